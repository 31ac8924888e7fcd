"""A fine-tuned network as what a bundle is made of: predictor, card keys, tracks, provenance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from glm_annotate.errors import InputError
from glm_annotate.train.families import FAMILIES
from glm_annotate.train.families.predictor import Predicted
from glm_annotate.train.families.with_head import Facts, Finetuned
from glm_annotate.train.finetune.config import Loss
from glm_annotate.train.finetune.model import count_parameters, merge, restore

# What a score may be of: any number, or numbers from 0 on.
_SCORES: Mapping[Loss, tuple[str, ...]] = {
    "mse": ("SAD",),
    "poisson": ("LOGSED", "SAD"),
    "bce": ("SAD", "LFC"),
    "cross_entropy": ("SAD", "LFC"),
}
_UNITS: Mapping[Loss, str] = {
    "mse": "",
    "poisson": "count",
    "bce": "probability",
    "cross_entropy": "probability",
}


def finetuned(
    name: str, weights: Mapping[str, Tensor], context: int | None
) -> tuple[Predicted, str | None]:
    """Make what is exported of the weights of a run; gives also the text of its tokenizer.

    Args:
        name: How messages call the checkpoint.
        weights: Of `WithHead`.
        context: Bases of the window that the user asked for; None: as trained.

    Raises:
        InputError: The weights are of something else, or another window is asked for.
    """
    network = restore(weights)
    facts = network.facts
    if context not in (None, facts.context):
        raise InputError(
            f"{name}: found --context {context}, the head was trained on windows of "
            f"{facts.context} bases; leave --context out"
        )
    trained, _ = count_parameters(network)
    merge(network)
    vocab = facts.encoder.vocab
    network.trunk.materialise(facts.context + len(vocab.prefix) + len(vocab.suffix))
    predictor = Finetuned(network).eval()
    limits = [x for x in (network.trunk.max_rows, facts.max_rows) if x is not None]
    predictor.max_rows = min(limits, default=None)
    card = _card(facts, predictor, equivariant=network.trunk.equivariant)
    card["provenance"] = _provenance(facts, trained)
    tracks = tuple(
        {
            "identifier": output,
            "description": output,
            "units": _UNITS[facts.loss],
            "role": "profile",
            "transform": "none",
        }
        for output in facts.outputs
    )
    return Predicted((predictor,), card, tracks), facts.tokenizer


def _card(facts: Facts, predictor: Finetuned, *, equivariant: bool) -> dict[str, Any]:
    strand = "equivariant" if equivariant else "both"
    card = {
        "description": f"{FAMILIES[facts.family].title} with a head, fine-tuned ({facts.mode}).",
        "context": facts.context,
        "anchor": facts.context // 2,
        "encoder": facts.encoder.model_dump(mode="json", exclude_none=True),
        "bin_size": facts.context,
        "strand": strand if facts.reverse_complement else "forward",
        "scores": list(_SCORES[facts.loss]),
    }
    if predictor.max_rows is not None:
        card["window"] = {"max_tokens": predictor.max_rows}
    return card


def _provenance(facts: Facts, trained: int) -> dict[str, Any]:
    """Tell where the language model is from, and how many of its parameters moved."""
    source = dict(facts.provenance)
    quality = {f"source_{key}": value for key, value in source.pop("quality", {}).items()}
    kept = ("code_licence", "weights_licence", "citation")
    known = {key: source[key] for key in kept if source.get(key)}
    return {**known, "quality": {**quality, "trained_parameters": trained}}
