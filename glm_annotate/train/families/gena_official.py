"""What the official checkpoints of GENA-LM share: keys, window and origin."""

from __future__ import annotations

from typing import Any

from glm_annotate.errors import InputError
from glm_annotate.train.families.bert import SPECIAL, byte_pair_card
from glm_annotate.train.families.family import Release, Source
from glm_annotate.train.official import Keys

CITATION = "Fishman et al., Nucleic Acids Research 53 (2025) gkae1310"
# The authors' 512 and 4,096 tokens are 4,500 and 36,000 bases.
_BASES, _TOKENS = 4500, 512
_CONTEXT = 4096
# Names of GELU's formula in official configs and in torch.
_ACTIVATIONS = {"gelu": "none", "gelu_new": "tanh"}
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
    return {**byte_pair_card(window, tokens), "provenance": _provenance(source)}


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


def activation_of(source: Source, default: str = "gelu") -> str:
    """Give torch's name of the config's GELU.

    Args:
        source: The checkpoint.
        default: What a config means that does not say.

    Raises:
        InputError: It is another function.
    """
    found = source.config.get("hidden_act", default)
    if not isinstance(found, str) or found not in _ACTIVATIONS:
        raise InputError(
            f"{source.name}: config: hidden_act is {found!r}, wanted {' or '.join(_ACTIVATIONS)}; "
            "fetch config and weights of one checkpoint"
        )
    return _ACTIVATIONS[found]
