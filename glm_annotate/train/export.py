"""A checkpoint in, a model bundle out, checked against torch before it takes its name.

The card has two sources. What the run knows (encoder, shapes, objective, what was held out and
how well it was predicted) is read from the checkpoint; what only its author knows comes from a
card file, which may not contradict the run. The bundle is built in a folder beside its place and
renamed, so that it is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from glm_annotate.bundle import CARD, GRAPH, SELFTEST, write_bundle
from glm_annotate.card import ModelCard, Provenance
from glm_annotate.encoding import mask_rows
from glm_annotate.errors import InputError
from glm_annotate.train import checkpoints, graph
from glm_annotate.train.checkpoints import Checkpoint
from glm_annotate.train.config import TrainConfig
from glm_annotate.train.families import FAMILIES
from glm_annotate.train.families.family import Network
from glm_annotate.train.graph import Parity, Precision

_SELFTEST_LENGTH = 96
_SMALLEST_ATOL = 1e-4
# Keys that a card file may not hold, because the checkpoint decides them.
_FACTS = ("encoder", "family", "format", "inputs", "objective", "outputs", "precision", "sha256")

_Model = TypeVar("_Model", bound=BaseModel)
CardSource = Mapping[str, Any] | str | Path


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What `export` made.

    Attributes:
        folder: The bundle.
        card: Its card.
        parity: ONNX Runtime against torch with the weights as stored, one a shape.
        rounding: Torch with the weights as stored against torch with the checkpoint's; all 0
            for fp32.
        size: Bytes of graph and weights.
    """

    folder: Path
    card: ModelCard
    parity: tuple[Parity, ...]
    rounding: Parity
    size: int


def export(
    checkpoint: str | Path,
    folder: str | Path,
    *,
    card: CardSource,
    precision: Precision = "fp32",
    force: bool = False,
) -> ExportReport:
    """Write the bundle of a checkpoint's averaged weights.

    Args:
        checkpoint: File of a training run.
        folder: The bundle to make.
        card: The card's keys that the checkpoint does not know, as a mapping or a TOML file.
            `context` and `anchor` are the trained window and its middle unless given.
        precision: How matrices are stored.
        force: Replace a bundle that is already there.

    Raises:
        InputError: Checkpoint or card are not usable, or something lies where the bundle goes.
        BundleError: ONNX Runtime does not compute what torch computes.
    """
    target = Path(folder).resolve()
    _check_place(target, force=force)
    state = checkpoints.load(checkpoint)
    exact, stored = _load_network(state, checkpoint), _load_network(state, checkpoint)
    if precision == "fp16":
        graph.round_matrices(stored)
    values = _card_values(card, state, stored, precision)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        graph.write_graph(stored, scratch / GRAPH, precision)
        parity = _check_parity(scratch / GRAPH, stored, values)
        rounding = _measure_rounding(stored, exact, values)
        _write_selftest(scratch / SELFTEST, stored, values)
        written = write_bundle(scratch, _with_measurements(values, parity, rounding))
        size = sum(path.stat().st_size for path in scratch.glob(f"{GRAPH}*"))
        _move(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return ExportReport(target, written, parity, rounding, size)


def _check_place(target: Path, *, force: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError(
            f"{target}: a file lies where the bundle goes; name another folder with -o"
        )
    if not any(target.iterdir()):
        return
    if not (target / CARD).is_file():
        raise InputError(
            f"{target}: holds files and no {CARD}, so it is not a bundle and is not replaced; "
            "name another folder with -o"
        )
    if not force:
        raise InputError(f"{target}: is there already; replace it with --force")


def _load_network(state: Checkpoint, path: str | Path) -> Network:
    config = state.settings()
    if config.family not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise InputError(f"{path}: family {config.family!r} is unknown; known are {known}")
    network = FAMILIES[config.family].build(config.model)
    try:
        network.load_state_dict(state.average)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: the weights do not fit its own config: {reason}") from error
    return network.eval()


def _card_values(
    source: CardSource, state: Checkpoint, network: Network, precision: Precision
) -> dict[str, Any]:
    """Join the author's card with the run's facts, and check that a card comes out."""
    name, given = _read_card(source)
    allowed = sorted(set(ModelCard.model_fields) - set(_FACTS))
    for key in given:
        if key in _FACTS:
            raise InputError(f"{name}: {key!r} comes from the checkpoint; remove it from the card")
        if key not in allowed:
            raise InputError(f"{name}: unknown key {key!r}; known here: {', '.join(allowed)}")
    config = state.settings()
    context = given.get("context", config.data.context)
    embedding = given.get("embedding", {})
    if not isinstance(embedding, Mapping):
        raise InputError(f"{name}: embedding: found {embedding!r}, wanted a table of pool and k")
    provenance = _parse(name, Provenance, given.get("provenance", {}), "provenance.")
    values = {
        "name": config.name,
        "context": context,
        "anchor": context // 2 if isinstance(context, int) else 0,
        **given,
        **_facts(config),
        "embedding": {"dim": network.dim, **embedding}
        if isinstance(embedding, dict)
        else embedding,
        "precision": precision,
        "provenance": _provenance(provenance, state, network),
    }
    _parse(name, ModelCard, values)
    return values


def _parse(name: str, model: type[_Model], values: object, prefix: str = "") -> _Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = prefix + ".".join(map(str, first["loc"]))
        raise InputError(f"{name}: {where or 'card'}: {first['msg']}") from error


def _facts(config: TrainConfig) -> dict[str, Any]:
    """List the keys that follow from a run's config alone."""
    family = FAMILIES[config.family]
    rows = {"name": graph.INPUT, "axes": ("batch", "length"), "dtype": "int64"}
    axes = {"logits": "vocabulary", "embedding": "channel"}
    return {
        "family": family.name,
        "objective": family.objective,
        "encoder": config.encoder.model_dump(mode="json", exclude_none=True),
        "inputs": {graph.INPUT: rows},
        "outputs": {
            key: {"name": key, "axes": ("batch", "length", axes[key])} for key in graph.OUTPUTS
        },
    }


def _read_card(source: CardSource) -> tuple[str, dict[str, Any]]:
    """Read a card: how messages call it, and its keys."""
    if isinstance(source, Mapping):
        return "card", dict(source)
    try:
        return str(source), tomllib.loads(Path(source).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: cannot read the card: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source}: not TOML: {error}") from error


def _provenance(given: Provenance, state: Checkpoint, network: Network) -> dict[str, Any]:
    """Add to what the author wrote what the run knows."""
    config = state.settings()
    bases = state.step * config.optim.batch * config.data.context
    parameters = sum(weight.numel() for weight in network.parameters())
    held_out = "; ".join(f"{group}: {', '.join(n)}" for group, n in sorted(state.valid.items()))
    trained = {
        "step": state.step,
        "bases": bases,
        "parameters": parameters,
        "training_hours": round(state.seconds / 3600, 3),
        "held_out_cross_entropy": {k: round(v, 5) for k, v in sorted(state.quality.items())},
    }
    return {
        **given.model_dump(),
        "citation": given.citation or FAMILIES[config.family].citation,
        "accessions": _sentences(given.accessions, _count_contigs(state)),
        "held_out": _sentences(given.held_out, held_out),
        "quality": {**given.quality, **trained},
        # 2 operations a weight and base forward, 4 backward.
        "compute_pfs_days": float(f"{6 * parameters * bases / (1e15 * 86400):.4g}"),
    }


def _sentences(text: str, fact: str) -> str:
    return " ".join(part for part in (text, fact) if part)


def _count_contigs(state: Checkpoint) -> str:
    """Name the sequences trained on by number and digest: too many to list in a card."""
    names = sorted({name for group in state.groups.values() for name in group})
    digest = hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest()
    counts = ", ".join(f"{len(group)} {name}" for name, group in state.groups.items())
    return f"{counts}; sha256 of their sorted names, one a line: {digest}"


def _check_parity(path: Path, network: Network, values: Mapping[str, Any]) -> tuple[Parity, ...]:
    """Run graph and torch at three shapes that the exporter has not seen."""
    spec = ModelCard.model_validate(values).encoder
    shapes = ((1, 1), (1, values["context"]), (5, 19))
    batches = [
        graph.random_rows(network.vocabulary, spec, shape, seed)
        for seed, shape in enumerate(shapes)
    ]
    found = graph.run_graph(path, batches)
    parity = tuple(
        graph.compare(outputs, graph.run_torch(network, rows))
        for outputs, rows in zip(found, batches, strict=True)
    )
    for case in parity:
        case.check(path)
    return parity


def _measure_rounding(stored: Network, exact: Network, values: Mapping[str, Any]) -> Parity:
    spec = ModelCard.model_validate(values).encoder
    rows = graph.random_rows(exact.vocabulary, spec, (4, values["context"]), seed=7)
    return graph.compare(graph.run_torch(stored, rows), graph.run_torch(exact, rows))


def _write_selftest(path: Path, network: Network, values: Mapping[str, Any]) -> None:
    """Write rows and what torch answers: a window as it is, and with a tenth of it masked."""
    spec = ModelCard.model_validate(values).encoder
    shape = (1, min(_SELFTEST_LENGTH, values["context"]))
    plain = np.random.default_rng(11).integers(network.vocabulary, size=shape)
    rows = [plain]
    if spec.vocab.mask_id is not None:
        rows.append(mask_rows(plain, np.arange(shape[1]) % 10 == 5, spec))
    batch = np.concatenate(rows)
    outputs = {f"output_{key}": array for key, array in graph.run_torch(network, batch).items()}
    arrays: dict[str, Any] = {"input_rows": batch, **outputs}
    np.savez_compressed(path, **arrays)


def _with_measurements(
    values: dict[str, Any], parity: Sequence[Parity], rounding: Parity
) -> dict[str, Any]:
    """Put the tolerance and what was measured into the card."""
    worst = max(case.worst for case in parity)
    atol = max(values.get("atol", _SMALLEST_ATOL), _round_up(10 * worst))
    measured: dict[str, Any] = {"onnx_against_torch": _two_digits(worst)}
    if values["precision"] == "fp16":
        measured["fp16_against_fp32"] = {k: _two_digits(v) for k, v in rounding.deviation.items()}
    provenance = values["provenance"]
    quality = {**provenance["quality"], **measured}
    return {**values, "atol": atol, "provenance": {**provenance, "quality": quality}}


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")


def _round_up(value: float) -> float:
    """Round up to one significant digit."""
    if value == 0:
        return 0.0
    unit = 10.0 ** math.floor(math.log10(value))
    return float(f"{math.ceil(value / unit) * unit:.1g}")


def _move(scratch: Path, target: Path) -> None:
    """Rename the finished folder into place; a bundle that was there goes away last."""
    scratch.chmod(0o755)  # mkdtemp shuts others out
    if not target.exists():
        os.rename(scratch, target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    os.rename(target, old)
    try:
        os.rename(scratch, target)
    except OSError:
        os.rename(old, target)
        raise
    shutil.rmtree(old)
