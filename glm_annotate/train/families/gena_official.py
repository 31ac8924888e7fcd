"""What the official checkpoints of GENA-LM share: keys, tokenizer, window and origin."""

from __future__ import annotations

import json
from typing import Any

import torch

from glm_annotate.errors import InputError
from glm_annotate.train.families.family import Release, Source
from glm_annotate.train.official import Keys

SPECIAL = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3, "[MASK]": 4}
CITATION = "Fishman et al., Nucleic Acids Research 53 (2025) gkae1310"
# The authors' 512 and 4,096 tokens are 4,500 and 36,000 bases.
_BASES, _TOKENS = 4500, 512
_CONTEXT = 4096
# Names of GELU's formula in official configs and in torch.
_ACTIVATIONS = {"gelu": "none", "gelu_new": "tanh"}
_BIASES = ("cls.predictions.bias", "cls.predictions.decoder.bias")
_HUB = "AIRI-Institute/gena-lm-"
# Contigs that the authors held out: of their first two models, and of all others.
_FIRST = ("bert-base", "bigbird-base-sparse")
_HELD_OUT = (
    "human chromosomes 7 and 10 (CP068271.2, CP068268.2)",
    "human chromosomes 22 and Y (CP068256.2, CP086569.2)",
)

KEYS = Keys(
    rename=((r"cls\.predictions\.bias$", "cls.predictions.decoder.bias"),),
    ignore=(
        r"bert\.embeddings\.(position_ids|token_type_ids)",
        r"bert\.encoder\.layer\.\d+\.attention\.self\.rotary_emb\.inv_freq",
        # Of the files of pretraining: BERT's pooler, BigBird's, and the second task.
        r"bert\.pooler\.(dense\.)?(weight|bias)",
        r"cls\.seq_relationship\.(weight|bias)",
    ),
    ties=((r"cls\.predictions\.decoder\.weight", "bert.embeddings.word_embeddings.weight"),),
)

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
FIXED = {"is_decoder": False, "add_cross_attention": False, "pad_token_id": SPECIAL["[PAD]"]}


def bases_of(tokens: int) -> int:
    """Say how many bases the authors take a number of tokens for."""
    return max(1, tokens * _BASES // _TOKENS)


def window_of(source: Source, context: int | None, tokens: int) -> int:
    """Choose the window in bases.

    Args:
        source: The checkpoint.
        context: What the user asked for; None: as much as a CPU can afford.
        tokens: Most tokens that the model was trained on.

    Raises:
        InputError: It is longer than what the model was trained on.
    """
    most = bases_of(tokens)
    window = min(_CONTEXT, most) if context is None else context
    if not 1 <= window <= most:
        raise InputError(
            f"{source.name}: --context {window}: allowed are 1 to {most} bases, which is what the "
            f"authors take {tokens} tokens for"
        )
    return window


def card_of(source: Source, window: int, tokens: int) -> dict[str, Any]:
    """Make the card of a window in bases that has at most so many tokens."""
    return {
        "context": window,
        "anchor": window // 2,
        "window": {"kind": "dynamic", "max_tokens": tokens},
        "encoder": {
            "kind": "bpe",
            "vocab": {
                "pad_id": SPECIAL["[PAD]"],
                "unk_id": SPECIAL["[UNK]"],
                "mask_id": SPECIAL["[MASK]"],
                "n": "token",
                "prefix": [SPECIAL["[CLS]"]],
                "suffix": [SPECIAL["[SEP]"]],
            },
        },
        "strand": "both",
        # LLR has no number where the two alleles are cut into tokens differently.
        "scores": ["PLLR", "EMB_COS"],
        "provenance": _provenance(source),
    }


def release(ending: str, tokens: int, note: str = "") -> Release:
    """Name one checkpoint on the hub."""
    return Release(f"gena-lm-{ending}", f"{_HUB}{ending}", bases_of(tokens), note=note)


def _provenance(source: Source) -> dict[str, str]:
    """Say what is known of a checkpoint that names its repository."""
    repository = source.repository.partition("@")[0]
    ending = repository.removeprefix(_HUB)
    if ending == repository:
        return {}
    facts = {"assembly": "T2T-CHM13v2.0 (GCF_009914755.1)", "held_out": _HELD_OUT[ending in _FIRST]}
    if ending in _FIRST:
        return {**facts, "training_data": "Human T2T genome", "species": "Homo sapiens"}
    data = "Human T2T genome with SNPs of 1000 Genomes"
    if ending.endswith("-multi"):
        return {**facts, "training_data": f"{data}; genomes of other species"}
    return {**facts, "training_data": data, "species": "Homo sapiens"}


def activation_of(source: Source) -> str:
    """Give torch's name of the config's GELU.

    Raises:
        InputError: It is another function.
    """
    found = source.config.get("hidden_act", "gelu")
    if found not in _ACTIVATIONS:
        raise InputError(
            f"{source.name}: config: hidden_act is {found!r}, allowed are {', '.join(_ACTIVATIONS)}"
        )
    return _ACTIVATIONS[found]


def check_biases(source: Source) -> None:
    """Refuse two different output biases: the authors' code has one under two names."""
    first, second = (source.weights.get(name) for name in _BIASES)
    if first is not None and second is not None and not torch.equal(first, second):
        raise InputError(
            f"{source.name}: {' and '.join(_BIASES)} differ, and are one weight of the system; "
            "fetch the checkpoint again"
        )


def read_tokenizer(source: Source, size: int) -> str:
    """Read tokenizer.json without what cuts or pads.

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
        raise InputError(f"{path}: not a tokenizer.json: {error!r}") from error
    if kind != "BPE":
        raise InputError(f"{path}: the tokenizer is {kind}, wanted BPE")
    for word, wanted in SPECIAL.items():
        if ids.get(word) != wanted:
            raise InputError(f"{path}: the id of {word} is {ids.get(word)}, wanted {wanted}")
    missing = [base for base in "ACGT" if base not in ids]
    if missing:
        raise InputError(f"{path}: has no token for {missing[0]}")
    if most != size:
        raise InputError(
            f"{path}: has {most} ids, the model has {size}; fetch the tokenizer.json of the same "
            "checkpoint"
        )
    return json.dumps({**values, "truncation": None, "padding": None}, ensure_ascii=False)
