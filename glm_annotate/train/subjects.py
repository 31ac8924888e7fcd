"""What can be exported: a run of ours, or an official checkpoint, as a network and its card.

The card has two sources. What the checkpoint knows (encoder, shapes, objective, what was held out)
is a fact that nobody may contradict; what it only suggests (name, context, scores, licences) may
be replaced by the author's card file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from glm_annotate.bundle import TOKENIZER, sha256_of
from glm_annotate.card import Provenance
from glm_annotate.errors import InputError, UsageError
from glm_annotate.train import checkpoints, graph
from glm_annotate.train.checkpoints import Checkpoint
from glm_annotate.train.exported import Exportable
from glm_annotate.train.families import FAMILIES
from glm_annotate.train.families.family import Family, Loaded, Network, Official, Source
from glm_annotate.train.families.mmsplice_blocks import ExonPredictor
from glm_annotate.train.families.predictor import Predicted, Predictor
from glm_annotate.train.head_choice import with_head
from glm_annotate.train.importing import Imported
from glm_annotate.train.sources import open_source

# Keys that no card file may hold: the checkpoint decides them.
FACTS = (
    *("encoder", "family", "format", "inputs", "objective", "outputs", "precision", "sha256"),
    "logits_shift",
)


@dataclass(frozen=True, slots=True)
class Subject:
    """A network that is to become a bundle.

    Attributes:
        name: How messages call it.
        networks: In evaluation mode, float32; several are replicates, whose outputs are averaged.
        card: Card keys, those of `FACTS` among them.
        provenance: Completes what the author wrote with what the checkpoint knows.
        tokenizer: The text of `tokenizer.json`, for a bpe encoder.
        tracks: Rows of `tracks.tsv`, of a predictor.
        files: Further files of the bundle.
    """

    name: str
    networks: tuple[Exportable, ...]
    card: dict[str, Any]
    provenance: Callable[[Provenance], dict[str, Any]]
    tokenizer: str | None = None
    tracks: tuple[Mapping[str, str], ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def network(self) -> Exportable:
        """The network, of replicates the first."""
        return self.networks[0]


def open_subject(
    source: str | Path,
    *,
    family: str | None = None,
    context: int | None = None,
    head: str | None = None,
) -> Subject:
    """Read a checkpoint of ours or an official one.

    Args:
        source: See `sources.open_source`; or the checkpoint of a training run.
        family: The system, where it cannot be told from config and keys.
        context: Bases of the window, in place of the default.
        head: Which head of an official checkpoint with several.

    Raises:
        InputError: It cannot be read, is of no known system, or does not fit it.
        UsageError: It has no such head.
    """
    if Path(source).is_file() and checkpoints.is_checkpoint(Path(source)):
        if family is not None:
            raise InputError(f"{source}: a checkpoint of glm-annotate knows its family")
        if head is not None:
            raise UsageError(f"--head {head}: {source}: a checkpoint of glm-annotate has no heads")
        return _own(source, context)
    opened = open_source(source)
    chosen, official = identify(opened, family)
    opened = with_head(opened, official, head)
    return _official(opened, chosen, official, official.load(opened, context))


def identify(source: Source, family: str | None = None) -> tuple[Family, Official]:
    """Tell which system a source is of, from its config and keys.

    Raises:
        InputError: No system or more than one knows it.
    """
    readable = {name: entry for name, entry in FAMILIES.items() if entry.official}
    if family is not None and family not in readable:
        raise InputError(f"--family {family}: known are {', '.join(sorted(readable))}")
    pool = [readable[family]] if family is not None else list(readable.values())
    entries = [(entry, official) for entry in pool for official in entry.official]
    found = [(entry, official) for entry, official in entries if official.recognise(source)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(sorted({entry.name for entry, _ in found}))
        raise InputError(f"{source.name}: may be of {names}; say which with --family")
    if family is not None and len(entries) == 1:
        return entries[0]
    shown = ", ".join(sorted(source.weights)[:3])
    raise InputError(
        f"{source.name}: config and keys ({shown}, ...) are of no known system; known are "
        f"{', '.join(sorted(readable))}; name one with --family"
    )


def _own(path: str | Path, context: int | None) -> Subject:
    state = checkpoints.load(path)
    config = state.settings()
    if config.finetune is not None:
        return _finetuned(str(path), state, context)
    if config.supervised is not None:
        return _supervised(str(path), state, context)
    if config.family not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise InputError(f"{path}: family {config.family!r} is unknown; known are {known}")
    family = FAMILIES[config.family]
    network = family.build(config.model)
    if isinstance(network, Predictor):
        raise InputError(
            f"{path}: a predictor, but not of a run with [supervised]; export its own files"
        )
    try:
        network.load_state_dict(state.average)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: the weights do not fit its own config: {reason}") from error
    window = context or config.data.context
    vocab = config.encoder.vocab
    rows = config.data.rows
    network.materialise(rows or window + len(vocab.prefix) + len(vocab.suffix))
    card = {
        "name": config.name,
        "context": window,
        "anchor": window // 2,
        "encoder": config.encoder.model_dump(mode="json", exclude_none=True),
        "logits_shift": int(family.objective == "causal"),
        **_facts(family, network),
    }
    if network.equivariant:
        card |= {"strand": "equivariant", "embedding": {"halves": "rc"}}
    if state.tokenizer is not None:
        # LLR has no number where the two alleles are cut into tokens differently.
        window_rule = {"kind": "dynamic", "max_tokens": rows}
        card |= {"window": window_rule, "scores": ["PLLR", "EMB_COS"]}
    if config.objective == "contrastive" and not config.contrastive.masked_weight:
        card["scores"] = ["EMB_COS"]  # no base was ever predicted

    def provenance(given: Provenance) -> dict[str, Any]:
        return _own_provenance(given, state, network)

    return Subject(str(path), (network.eval(),), card, provenance, state.tokenizer)


def _supervised(path: str, state: Checkpoint, context: int | None) -> Subject:
    """Make a subject of a predictor that was trained on measurements."""
    # Here, because it imports the reading of measurements.
    from glm_annotate.train.supervised.exporting import supervised_run

    made, provenance = supervised_run(path, state, context)
    card = {**made.card, **_facts(FAMILIES[state.settings().family], made.networks[0])}
    return Subject(path, made.networks, card, provenance, None, made.tracks, made.files)


def _finetuned(path: str, state: Checkpoint, context: int | None) -> Subject:
    """Make a subject of a language model with a head."""
    # Here, because it opens the language model by way of this module.
    from glm_annotate.train.finetune.exporting import finetuned

    config = state.settings()
    made, tokenizer = finetuned(path, state.average, context)
    family, name = FAMILIES[config.family], config.name
    card = {
        "name": name,
        "tag": re.sub(r"^[0-9]+|[^A-Z0-9]", "", name.upper()) or "HEAD",
        **made.card,
        **_facts(family, made.networks[0]),
    }

    def provenance(given: Provenance) -> dict[str, Any]:
        known = dict(made.card["provenance"])
        own = {
            "step": state.step,
            "examples": state.step * config.optim.batch,
            "parameters": sum(weight.numel() for weight in made.networks[0].parameters()),
            "training_hours": round(state.seconds / 3600, 3),
            "held_out_figures": {k: round(v, 5) for k, v in sorted(state.quality.items())},
            "sha256_of_examples": dict(state.data),
        }
        quality = {**known.pop("quality"), **given.quality, **own}
        held_out = "; ".join(", ".join(names) for names in state.valid.values())
        return {
            **known,
            **given.model_dump(exclude_defaults=True),
            "held_out": _sentences(given.held_out, held_out),
            "quality": quality,
            "compute_pfs_days": float(f"{state.compute.get('pfs_days_6nd', 0.0):.4g}"),
        }

    return Subject(path, made.networks, card, provenance, tokenizer, made.tracks)


def _official(
    source: Source, family: Family, official: Official, loaded: Loaded | Predicted
) -> Subject:
    given = dict(loaded.card)
    networks: tuple[Exportable, ...]
    networks = loaded.networks if isinstance(loaded, Predicted) else (loaded.network,)
    repository = source.repository.partition("@")[0]
    releases = {x.repository.partition("@")[0]: x.name for x in official.releases}
    folder = source.folder.resolve().name if source.folder is not None else family.name
    card = {
        "name": releases.get(repository, repository.rpartition("/")[2] or folder),
        "tag": official.tag,
        "description": f"{family.title}, official checkpoint.",
        "logits_shift": int(family.objective == "causal"),
        **given,
        **_facts(family, networks[0]),
    }
    known = {
        "code_licence": official.code_licence,
        "weights_licence": official.weights_licence,
        "citation": family.citation,
        **given.get("provenance", {}),
    }

    tokenizer = None if isinstance(loaded, Predicted) else loaded.tokenizer
    if tokenizer is not None:
        _check_tokenizer(source, tokenizer)

    def provenance(written: Provenance) -> dict[str, Any]:
        values = written.model_dump(exclude_defaults=True)
        quality = {**known.get("quality", {}), **written.quality, **_origin(source, networks)}
        command = f"glm-annotate export hf://{source.repository}" if source.repository else ""
        return {"command": command, **known, **values, "quality": quality}

    made = Subject(source.name, networks, card, provenance, tokenizer)
    if isinstance(loaded, Predicted):
        return replace(made, tracks=loaded.tracks, files=loaded.files)
    return made


def imported_subject(made: Imported) -> Subject:
    """Make a subject of weights that a user had."""
    networks = made.predicted.networks
    card = {**made.card, **_facts(made.family, networks[0])}
    known = dict(made.card.get("provenance", {}))

    def provenance(written: Provenance) -> dict[str, Any]:
        values = written.model_dump(exclude_defaults=True)
        parameters = sum(weight.numel() for x in networks for weight in x.parameters())
        quality = {**known.get("quality", {}), **written.quality, "parameters": parameters}
        return {**known, **values, "quality": quality}

    tracks, files = made.predicted.tracks, {**made.predicted.files, **made.files}
    return Subject(str(card["name"]), networks, card, provenance, None, tracks, files)


def _check_tokenizer(source: Source, text: str) -> None:
    """Refuse a tokenizer that cannot be read, or that cuts a sequence another way each time."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise InputError(
            f"{source.name}: needs the tokenizers package; run: pip install 'glm_annotate[bpe]'"
        ) from error
    path = source.file(TOKENIZER) or source.name
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the package raises nothing narrower
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: cannot be read ({reason}); fetch the {TOKENIZER} of the same checkpoint"
        ) from error
    if getattr(tokenizer.model, "dropout", None):
        raise InputError(f"{path}: cuts tokens at random; set its model's dropout to null")


def _origin(source: Source, networks: Sequence[Exportable]) -> dict[str, Any]:
    """Say which weights these are; file names only, a path would tell about somebody's machine."""
    return {
        "parameters": sum(weight.numel() for x in networks for weight in x.parameters()),
        "sha256_of_weights": {path.name: sha256_of(path) for path in source.files},
    }


def _facts(family: Family, network: Exportable) -> dict[str, Any]:
    """List the keys that follow from family and network alone."""
    if isinstance(network, Predictor):
        return _predictor_facts(family, network)
    ids = {"name": graph.INPUT, "axes": ("batch", "length"), "dtype": "int64"}
    axes = {"logits": "vocabulary", "embedding": "channel"}
    inputs = {graph.INPUT: ids}
    if network.channels:
        name = graph.CHANNELS
        inputs[name] = {"name": name, "axes": ("batch", "length", "channel"), "dtype": "float32"}
    return {
        "family": family.name,
        "objective": family.objective,
        "inputs": inputs,
        "outputs": {
            key: {"name": key, "axes": ("batch", "length", axes[key])} for key in graph.OUTPUTS
        },
    }


def _predictor_facts(family: Family, network: Predictor) -> dict[str, Any]:
    names = list(network.parts) if isinstance(network, ExonPredictor) else [graph.INPUT]
    dtype = "int64" if network.vocabulary else "uint8"
    inputs = {x: {"name": x, "axes": ("batch", "length"), "dtype": dtype} for x in names}
    if network.channels:
        axes = ("batch", "length", "channel")
        inputs[graph.CHANNELS] = {"name": graph.CHANNELS, "axes": axes, "dtype": "float32"}
    return {
        "family": family.name,
        "objective": family.objective,
        "inputs": inputs,
        "outputs": {name: {"name": name, "axes": axes} for name, axes in network.outputs.items()},
    }


def _own_provenance(given: Provenance, state: Checkpoint, network: Network) -> dict[str, Any]:
    """Add to what the author wrote what the run knows."""
    config = state.settings()
    bases = state.step * config.optim.batch * config.data.context
    parameters = sum(weight.numel() for weight in network.parameters())
    held_out = "; ".join(f"{group}: {', '.join(n)}" for group, n in sorted(state.valid.items()))
    figures = "figures" if config.objective == "contrastive" else "cross_entropy"
    trained: dict[str, Any] = {
        "step": state.step,
        "bases": bases,
        "parameters": parameters,
        "training_hours": round(state.seconds / 3600, 3),
        f"held_out_{figures}": {k: round(v, 5) for k, v in sorted(state.quality.items())},
    }
    if state.data:
        trained["sha256_of_data"] = dict(state.data)
    if "pfs_days_counted" in state.compute:
        trained["pfs_days_counted"] = float(f"{state.compute['pfs_days_counted']:.4g}")
    rows = state.compute.get("rows", bases)
    return {
        **given.model_dump(),
        "citation": given.citation or FAMILIES[config.family].citation,
        "accessions": _sentences(given.accessions, _count_contigs(state)),
        "held_out": _sentences(given.held_out, held_out),
        "quality": {**given.quality, **trained},
        # 2 operations a weight and base forward, 4 backward.
        "compute_pfs_days": float(f"{6 * parameters * rows / (1e15 * 86400):.4g}"),
    }


def _sentences(text: str, fact: str) -> str:
    return " ".join(part for part in (text, fact) if part)


def _count_contigs(state: Checkpoint) -> str:
    """Name the sequences trained on by number and digest: too many to list in a card."""
    names = sorted({name for group in state.groups.values() for name in group})
    digest = hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest()
    counts = ", ".join(f"{len(group)} {name}" for name, group in state.groups.items())
    return f"{counts}; sha256 of their sorted names, one a line: {digest}"
