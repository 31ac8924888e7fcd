"""What systems share that are BERT: keys, config, fresh weights, and byte pairs as tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glm_annotate.errors import InputError
from glm_annotate.train.families.family import Source
from glm_annotate.train.layers import MaskedHead

WORDS = "bert.embeddings.word_embeddings.weight"
DECODER = "cls.predictions.decoder.weight"
BIASES = ("cls.predictions.bias", "cls.predictions.decoder.bias")
# Of the tokenizers over byte pairs.
SPECIAL = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3, "[MASK]": 4}

# Official names of the config's values by ours.
SETTINGS = {
    "vocabulary": "vocab_size",
    "dim": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "hidden": "intermediate_size",
    "types": "type_vocab_size",
    "eps": "layer_norm_eps",
}


class Head(nn.Module):
    """What official keys call `cls`."""

    def __init__(self, predictions: MaskedHead) -> None:
        super().__init__()
        self.predictions = predictions


@torch.no_grad()
def start(network: nn.Module) -> None:
    """Draw fresh weights as BERT does: matrices around 0, no biases, norms as they are."""
    for name, weight in network.named_parameters():
        if weight.ndim == 2:
            weight.normal_(0.0, 0.02)
        elif name.endswith("bias"):
            weight.zero_()


def settings(
    source: Source, names: Mapping[str, str], fixed: Mapping[str, object]
) -> dict[str, object]:
    """Take from an official config what the architecture needs, under our names.

    Args:
        source: The checkpoint.
        names: Official names of the values by ours; what the file lacks is left out.
        fixed: Official names and the one value that each may have if it is there.

    Raises:
        InputError: There is no config, or it says something else than `fixed`.
    """
    if not source.config:
        raise InputError(
            f"{source.name}: no config.json beside the weights; fetch it from their repository"
        )
    for key, allowed in fixed.items():
        found = source.config.get(key, allowed)
        if found != allowed:
            raise InputError(
                f"{source.name}: config: {key} is {found!r}, wanted {allowed!r}; fetch config and "
                "weights of one checkpoint"
            )
    return {ours: source.config[key] for ours, key in names.items() if key in source.config}


def is_tied(weights: Mapping[str, Tensor]) -> bool:
    """Tell whether the decoder's matrix is that of the embeddings; one left out is."""
    words, decoder = weights.get(WORDS), weights.get(DECODER)
    return words is None or decoder is None or torch.equal(words, decoder)


def check_biases(source: Source) -> None:
    """Refuse two different output biases: the authors' code has one under two names."""
    first, second = (source.weights.get(name) for name in BIASES)
    if first is not None and second is not None and not torch.equal(first, second):
        raise InputError(
            f"{source.name}: {' and '.join(BIASES)} differ, and are one weight of the system; "
            "fetch the checkpoint again"
        )


def read_tokenizer(source: Source, size: int) -> tuple[str, int]:
    """Read tokenizer.json without what cuts or pads; gives it and the bases of its longest token.

    Raises:
        InputError: It is not there, cannot be read, or has other ids than the model.
    """
    path = source.file("tokenizer.json")
    if path is None:
        raise InputError(
            f"{source.name}: no tokenizer.json beside the weights; fetch it from their repository"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        kind, ids = values["model"]["type"], dict(values["model"]["vocab"])
        most = max(ids.values()) + 1
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error!r}); fetch the {path.name} of the same checkpoint"
        ) from error
    if kind != "BPE":
        raise InputError(
            f"{path}: the tokenizer is {kind}, wanted BPE; fetch the {path.name} of the same "
            "checkpoint"
        )
    _check_ids(path, ids)
    if most != size:
        raise InputError(
            f"{path}: has {most} ids, the model has {size}; fetch the {path.name} of the same "
            "checkpoint"
        )
    text = json.dumps({**values, "truncation": None, "padding": None}, ensure_ascii=False)
    return text, max(len(word) for word in ids if word not in SPECIAL)


def _check_ids(path: Path, ids: Mapping[str, int]) -> None:
    for word, wanted in SPECIAL.items():
        if ids.get(word) != wanted:
            raise InputError(
                f"{path}: the id of {word} is {ids.get(word)}, wanted {wanted}; fetch the "
                f"{path.name} of the same checkpoint"
            )
    if len(set(ids.values())) < len(ids):
        raise InputError(
            f"{path}: two tokens have one id; fetch the {path.name} of the same checkpoint"
        )
    for base in "ACGT":
        if base not in ids:
            raise InputError(
                f"{path}: has no token for {base}; fetch the {path.name} of the same checkpoint"
            )


def byte_pair_card(window: int, tokens: int) -> dict[str, Any]:
    """Make the card of a window in bases that has at most so many tokens."""
    vocab = {
        "pad_id": SPECIAL["[PAD]"],
        "unk_id": SPECIAL["[UNK]"],
        "mask_id": SPECIAL["[MASK]"],
        "n": "token",
        "prefix": [SPECIAL["[CLS]"]],
        "suffix": [SPECIAL["[SEP]"]],
    }
    return {
        "context": window,
        "anchor": window // 2,
        "window": {"kind": "dynamic", "max_tokens": tokens},
        "encoder": {"kind": "bpe", "vocab": vocab},
        "strand": "both",
        # LLR has no number where the two alleles are cut into tokens differently.
        "scores": ["PLLR", "EMB_COS"],
    }
