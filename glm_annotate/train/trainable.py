"""Which family a config means, and whether its network can learn what the config asks."""

from __future__ import annotations

from glm_annotate.encoding import EncoderSpec
from glm_annotate.errors import InputError
from glm_annotate.train.config import TrainConfig
from glm_annotate.train.families import FAMILIES, Family
from glm_annotate.train.families.family import Network
from glm_annotate.train.families.predictor import Predictor
from glm_annotate.train.tokens import Tokens


def find_family(name: str) -> Family:
    """Look a family up by name.

    Raises:
        InputError: There is no such family.
    """
    if name not in FAMILIES:
        raise InputError(f"family {name!r} is unknown; known are {', '.join(sorted(FAMILIES))}")
    return FAMILIES[name]


def check_trainable(
    family: Family, network: Network | Predictor, config: TrainConfig, tokens: Tokens, rows: int
) -> Network:
    """Refuse what a language objective cannot feed or would train wrongly.

    Args:
        family: Of the network.
        network: As built.
        config: Of the run.
        tokens: Of its encoder.
        rows: Of a window.

    Raises:
        InputError: The family learns something else or reads an alignment, or ids or rows of the
            encoder do not fit into the network.
    """
    if isinstance(network, Predictor) or network.channels:
        reads = "reads an alignment" if isinstance(network, Network) else f"is {family.objective}"
        raise InputError(
            f"family {family.name!r} {reads} and cannot be trained with objective = "
            f"{config.objective}, which shows bases alone; choose another family"
        )
    masked = config.objective == "masked" or (
        config.objective == "contrastive" and config.contrastive.masked_weight > 0
    )
    wanted = "masked" if masked else "causal"
    if family.objective != wanted and not (config.objective == "contrastive" and not masked):
        raise InputError(
            f"family {family.name!r} is {family.objective} and would be trained as {wanted}; "
            f'set objective = "{family.objective}", or choose another family'
        )
    largest = max(int(tokens.ids.max()), *config.encoder.vocab.named_ids())
    if largest >= network.vocabulary:
        raise InputError(
            f"model.vocabulary: found {network.vocabulary}, wanted more than {largest}, "
            "the largest id of the encoder"
        )
    if network.max_rows is not None and rows > network.max_rows:
        raise InputError(
            f"data.context: found {config.data.context}, which is {rows} rows; the network takes "
            f"at most {network.max_rows}; shorten the window, or raise its positions in [model]"
        )
    return network


def rows_of_window(spec: EncoderSpec, context: int, rows: int | None) -> int:
    """Count the rows of a window: what the config says, else of one without N.

    Raises:
        InputError: Byte pairs, whose number only `data.rows` can tell.
    """
    if rows is not None:
        return rows
    if spec.kind == "bpe":
        raise InputError(
            "data.rows: byte pairs give windows different numbers of rows, and a batch needs one; "
            f"say how many, about {max(1, context // 5)} for windows of {context} bases"
        )
    specials = len(spec.vocab.prefix) + len(spec.vocab.suffix)
    body = (context - spec.k) // spec.stride + 1
    if spec.kind == "kmer" and spec.stride == spec.k and spec.vocab.tail == "single":
        body += context % spec.k
    return body + specials
