"""Language models under a head: opened from a checkpoint, changed by low rank, put together again.

Decisions: the network is built anew from its config, because what `load` gives may hold filters
that were worked out for scoring and do not follow their weights. Which layers low-rank changes go
to is found by running the embedding once: a layer whose weights are read without calling it would
be changed without effect, and is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from glm_annotate.bundle import TOKENIZER
from glm_annotate.card import Provenance
from glm_annotate.encoding import Encoder, EncoderSpec, make_encoder
from glm_annotate.errors import InputError
from glm_annotate.genome import to_codes
from glm_annotate.train.families import FAMILIES
from glm_annotate.train.families.family import Network
from glm_annotate.train.families.with_head import Facts, WithHead
from glm_annotate.train.finetune.config import FinetuneConfig
from glm_annotate.train.subjects import open_subject


def open_model(
    config: FinetuneConfig,
    home: Path,
    outputs: tuple[str, ...],
    *,
    context: int,
    reverse_complement: bool,
) -> WithHead:
    """Read a checkpoint and put a fresh head on it.

    Args:
        config: The `[finetune]` table.
        home: Folder that a path of `source` is relative to.
        context: Bases of a window.
        reverse_complement: Whether both strands mean the same.
        outputs: Names of what the head says.

    Raises:
        InputError: The checkpoint cannot be read, or is of a model that cannot carry the head.
    """
    name = config.source if config.source.startswith("hf://") else str(home / config.source)
    subject = open_subject(name, family=config.family, context=context)
    loaded, card = subject.network, subject.card
    values = getattr(loaded, "config", None)
    reads_ids = isinstance(loaded, Network) and not loaded.channels
    if not reads_ids or not isinstance(values, BaseModel) or card["encoder"]["kind"] == "one_hot":
        raise InputError(f"{name}: not a language model over bases alone; fine-tuning is for those")
    facts = Facts(
        family=card["family"],
        model=values.model_dump(mode="json"),
        encoder=EncoderSpec.model_validate(card["encoder"]),
        tokenizer=subject.tokenizer,
        context=context,
        reverse_complement=reverse_complement,
        mode=config.mode,
        loss=config.loss,
        head=config.head,
        lora=config.lora,
        outputs=outputs,
        provenance=subject.provenance(Provenance()),
    )
    trunk = FAMILIES[facts.family].build(facts.model)
    if not isinstance(trunk, Network):
        raise TypeError(f"{facts.family}: not a language model")
    trunk.load_state_dict(loaded.state_dict())
    limits = [x for x in (trunk.max_rows, card.get("window", {}).get("max_tokens")) if x]
    facts = facts.model_copy(update={"max_rows": min(limits, default=None)})
    encoder = encoder_of(facts)
    check_windows(name, facts, trunk, encoder)
    network = WithHead(trunk, facts, encoder)
    choose_trained(network)
    return network


def encoder_of(facts: Facts) -> Encoder:
    """Make the encoder of a network with a head."""
    import tempfile

    if facts.tokenizer is None:
        return make_encoder(facts.encoder)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / TOKENIZER
        path.write_text(facts.tokenizer, encoding="utf-8")
        return make_encoder(facts.encoder, path)


def restore(weights: Mapping[str, Tensor]) -> WithHead:
    """Make a network with a head from the weights that a run left.

    Raises:
        InputError: They are not of such a network.
    """
    try:
        facts = Facts.model_validate_json(bytes(weights["text"].tolist()))
        trunk = FAMILIES[facts.family].build(facts.model)
        if not isinstance(trunk, Network):
            raise TypeError(f"{facts.family}: not a language model")
        network = WithHead(trunk, facts, encoder_of(facts))
        choose_trained(network)
        network.load_state_dict(dict(weights))
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"the weights are not those of a fine-tuned model: {reason}") from error
    return network


def choose_trained(network: WithHead) -> None:
    """Say which parameters are trained, and add the low-rank ones.

    Raises:
        InputError: No layer can be changed by low rank, or one that was asked for cannot.
    """
    trunk, mode = network.trunk, network.facts.mode
    if mode == "full":
        _leave_unread(trunk)
        return
    trunk.requires_grad_(False)
    if mode == "lora":
        add_low_rank(network)


def add_low_rank(network: WithHead) -> None:
    """Add W + alpha / rank x B A to linear layers; B is 0 at first, so that nothing changes yet.

    Raises:
        InputError: No layer of that name can be changed, or peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise InputError(
            "finetune.mode: lora needs the peft package; run: pip install 'glm_annotate[train]'"
        ) from error

    wanted, trunk = network.facts.lora, network.trunk
    called = sorted(_called_layers(trunk))
    names = [x for x in called if wanted.target is None or re.fullmatch(wanted.target, x)]
    if not names:
        linear = [name for name, part in trunk.named_modules() if isinstance(part, nn.Linear)]
        some = ", ".join(called[:3]) or "none"
        raise InputError(
            f"finetune.lora.target: {wanted.target!r} is the name of none of the {len(called)} "
            f"layers that can be changed ({some}, ...); the model has {len(linear)} linear ones"
        )
    # peft compares a text as a regular expression with whole names.
    pattern = "|".join(re.escape(name) for name in names)
    settings = LoraConfig(
        r=wanted.rank, lora_alpha=wanted.alpha, target_modules=pattern, lora_dropout=0.0
    )
    before = dict(trunk.named_modules(remove_duplicate=False))
    inject_adapter_in_model(settings, trunk)
    # peft wraps a layer under the first of its names alone; some models share layers.
    changed = {id(before[name]): trunk.get_submodule(name) for name in names}
    for name, part in before.items():
        if id(part) in changed:
            _replace(trunk, name, changed[id(part)])
    for name, weight in trunk.named_parameters():
        weight.requires_grad_("lora_" in name)


def merge(network: WithHead) -> None:
    """Put low-rank changes into the weights, and plain layers in their places."""
    if network.facts.mode != "lora":
        return
    from peft.tuners.lora import LoraLayer

    trunk = network.trunk
    for name, part in list(trunk.named_modules(remove_duplicate=False)):
        if isinstance(part, LoraLayer):
            if not part.merged:
                part.merge()
            _replace(trunk, name, part.get_base_layer())


def _replace(trunk: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(trunk.get_submodule(parent), last, part)


def count_parameters(network: nn.Module) -> tuple[int, int]:
    """Count the parameters that are trained, and all."""
    weights = list(network.parameters())
    return sum(x.numel() for x in weights if x.requires_grad), sum(x.numel() for x in weights)


def check_windows(name: str, facts: Facts, trunk: Network, encoder: Encoder) -> None:
    """Refuse windows that do not fit, and pools that the tokens do not have.

    Raises:
        InputError: See above.
    """
    spec, most = facts.encoder, facts.max_rows
    if spec.kind != "bpe":
        rows = encoder.encode(to_codes(b"A" * facts.context)[None])[0].rows.shape[1]
        if most is not None and rows > most:
            raise InputError(
                f"{name}: data.context: found {facts.context}, which is {rows} rows; the "
                f"model takes at most {most}"
            )
    if facts.head.pool == "cls" and not spec.vocab.prefix:
        raise InputError(
            f"{name}: finetune.head.pool: the tokens have no special one in front; use mean or site"
        )
    if facts.head.pool == "site" and spec.kind == "bpe":
        spans = encoder.encode(to_codes(b"ANNNNA")[None])[0].spans[0]
        tokens = [token for token in spans.tolist() if token[0] >= 0]
        if any("N" in "ANNNNA"[a:b] and b - a > 1 for a, b in tokens) and len(tokens) < 6:
            raise InputError(
                f"{name}: finetune.head.pool: the tokenizer makes one token of several N, so that "
                "the place of a base cannot be told; use mean or cls"
            )


def _called_layers(trunk: Network) -> list[str]:
    """Name the linear layers that the embedding calls."""
    called: dict[str, bool] = {}
    with ExitStack() as stack:
        for name, part in trunk.named_modules():
            if isinstance(part, nn.Linear):

                def note(_: nn.Module, __: Any, ___: Any, name: str = name) -> None:
                    called[name] = True

                stack.callback(part.register_forward_hook(note).remove)
        with torch.no_grad():
            trunk.embed(_probe(trunk))
    return list(called)


def _leave_unread(trunk: Network) -> None:
    """Do not train what the embedding does not read, such as the model's own head."""
    trunk.requires_grad_(True)
    weights = list(trunk.parameters())
    slopes = torch.autograd.grad(trunk.embed(_probe(trunk)).sum(), weights, allow_unused=True)
    for weight, slope in zip(weights, slopes, strict=True):
        weight.requires_grad_(slope is not None)


def _probe(trunk: Network) -> Tensor:
    """Make ids (1, T) of which a few are there."""
    return torch.arange(min(16, trunk.max_rows or 16))[None] % trunk.vocabulary
