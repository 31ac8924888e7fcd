"""GENA-LM's BigBird: BERT over byte pairs whose long windows see a pattern of blocks.

After Fishman et al. (2025) and Zaheer et al. (2020), written from the published descriptions;
submodules carry the names of the official keys. Up to (5 + 2 r) blocks every row sees every row.
In longer windows the rows of the first and last block still do; those of a block between see the
first block, the last, their own and its two neighbours. The r random blocks of training are the
first block once more in inference, as transformers has it, so that block counts 1 + r times.

Decisions: the pattern is a bias on dense attention, 0 where the window is short, and which of the
two holds is computed in the graph from the number of rows; nothing is remembered from one window
to the next, other than in transformers. Rows that would fill up the last block would be hidden
from all others, so none are added. 4,096 rows of 12 heads take about 2 GB a window.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from glm_annotate.errors import InputError
from glm_annotate.train.families.bert import (
    SETTINGS,
    check_biases,
    is_tied,
    read_tokenizer,
    settings,
    start,
)
from glm_annotate.train.families.family import (
    Family,
    Loaded,
    Network,
    Official,
    Source,
    Values,
    is_matrix_of,
)
from glm_annotate.train.families.gena_official import (
    CITATION,
    FIXED,
    KEYS,
    activation_of,
    bases_of,
    card_of,
    release,
    window_of,
)
from glm_annotate.train.layers import Embeddings, MaskedHead, PostNormLayer
from glm_annotate.train.official import build_config, fill, parse_config, whole

_HIDDEN = torch.finfo(torch.float32).min
_FIXED = {
    **FIXED,
    "use_bias": True,
    "rescale_embeddings": False,
    "position_embedding_type": "absolute",
}


class BigBirdConfig(BaseModel):
    """The config's `[model]` table.

    Attributes:
        vocabulary: Token ids.
        dim: Width of the residual stream; `heads` divides it.
        hidden: Width of the feed-forward.
        positions: Rows of the table of learned positions.
        block: Rows of a block of sparse attention; 0: every row sees every row at any length.
        random: How often the first block counts once more.
        activation: `none`: GELU by erf; `tanh`: by tanh.
        types: Rows of the table of token types, of which the first is used.
        eps: Of the norms.
        tied: The decoder's matrix is that of the embeddings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: int = Field(default=32000, gt=0)
    dim: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    hidden: int = Field(gt=0)
    positions: int = Field(default=4096, gt=0)
    block: int = Field(default=64, ge=0)
    random: int = Field(default=3, ge=0)
    activation: Literal["none", "tanh"] = "tanh"
    types: int = Field(default=2, gt=0)
    eps: float = Field(default=1e-12, gt=0, lt=1)
    tied: bool = True

    @model_validator(mode="after")
    def _check(self) -> BigBirdConfig:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        return self

    @property
    def full(self) -> int:
        """Rows up to which every row sees every row."""
        return (5 + 2 * self.random) * self.block if self.block else self.positions


class BigBird(Network):
    """The network: ids (B, T) to logits (B, T, V), embeddings (B, T, D) and attention maps."""

    has_attention = True

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.config = config
        self.dim, self.vocabulary, self.max_rows = config.dim, config.vocabulary, config.positions
        dim, eps, activation = config.dim, config.eps, config.activation
        embeddings = Embeddings(
            config.vocabulary, dim, eps, positions=config.positions, types=config.types
        )
        layers = nn.ModuleList(
            PostNormLayer(dim, config.heads, config.hidden, eps, activation=activation)
            for _ in range(config.layers)
        )
        self.bert = nn.ModuleDict(
            {"embeddings": embeddings, "encoder": nn.ModuleDict({"layer": layers})}
        )
        head = MaskedHead(dim, config.vocabulary, eps, activation=activation)
        self.cls = nn.ModuleDict({"predictions": head})
        if config.tied:
            head.decoder.weight = embeddings.word_embeddings.weight
        start(self)

    def embed(self, rows: Tensor) -> Tensor:
        """Return the last layer, which ends in a norm, (B, T, D), for ids (B, T)."""
        return self._run(rows, None)

    def attend(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `embed` does, and the attention maps (B, layers, H, T, T)."""
        maps: list[Tensor] = []
        return self._run(rows, maps), torch.stack(maps, dim=1)

    def decode(self, embedding: Tensor) -> Tensor:
        """Turn embeddings (B, T, D) into logits (B, T, V)."""
        logits: Tensor = self.cls["predictions"](embedding)
        return logits

    def _run(self, rows: Tensor, maps: list[Tensor] | None) -> Tensor:
        """Embed, and append each layer's maps (B, H, T, T) to a list if there is one."""
        x: Tensor = self.bert["embeddings"](rows)
        bias = None
        if self.config.full < self.config.positions:
            place = torch.arange(rows.shape[1], device=rows.device)
            bias = pattern(place, self.config.block, self.config.random)
        encoder: Any = self.bert["encoder"]
        for layer in encoder["layer"]:
            x, seen = layer(x, bias)
            if maps is not None:
                maps.append(seen)
        return x


def pattern(place: Tensor, block: int, random: int) -> Tensor:
    """Make the bias (T, T) of a window whose rows have the places 0, 1 and so on.

    Args:
        place: The places, (T,).
        block: Rows of a block.
        random: How often the first block counts once more.
    """
    of = place // block
    row, column, last = of[:, None], of[None, :], of[-1]
    between = (row > 0) & (row < last)
    seen = ~between | ((row - column).abs() <= 1) | (column == 0) | (column == last)
    counted = torch.where(between & (column == 0), math.log(1 + random), 0.0)
    sparse = torch.where(seen, counted, _HIDDEN)
    # The length as a tensor: a comparison in Python would be settled when the graph is traced.
    return torch.where(place[-1] < (5 + 2 * random) * block, 0.0, sparse)


def build(values: Values) -> BigBird:
    """Make a network with fresh weights.

    Raises:
        InputError: A key or value of `[model]` is not allowed.
    """
    return BigBird(build_config(BigBirdConfig, values))


def recognise(source: Source) -> bool:
    """Tell whether a source is transformers' BigBird for masked language."""
    return (
        source.config.get("model_type") == "big_bird"
        and "bert.encoder.layer.0.attention.output.LayerNorm.weight" in source.weights
        and "cls.predictions.transform.dense.weight" in source.weights
    )


def load(source: Source, context: int | None) -> Loaded:
    """Read an official checkpoint.

    Raises:
        InputError: Weights, config or tokenizer.json contradict each other or the system, or the
            window is longer than what the authors trained on.
    """
    values = {**settings(source, {**SETTINGS, "positions": "max_position_embeddings"}, _FIXED)}
    values |= {"activation": activation_of(source, "gelu_new"), "tied": is_tied(source.weights)}
    config = parse_config(BigBirdConfig, source, {**values, **_blocks(source)}, SETTINGS)
    tokenizer, _ = read_tokenizer(source, config.vocabulary)
    check_biases(source)
    window = window_of(source, context, config.positions)
    network = BigBird(config)
    fill(network, source, KEYS)
    return Loaded(network, _card(source, config, window), tokenizer)


def _blocks(source: Source) -> dict[str, object]:
    """Read the size and number of blocks.

    Raises:
        InputError: The config has another kind of attention.
    """
    kind = source.config.get("attention_type", "block_sparse")
    if kind == "original_full":
        return {"block": 0, "random": 0}
    if kind != "block_sparse":
        raise InputError(
            f"{source.name}: config: attention_type is {kind!r}, wanted block_sparse or "
            "original_full; fetch config and weights of one checkpoint"
        )
    random = source.config.get("num_random_blocks", 3)
    return {"block": whole(source, "block_size", 64), "random": random}


def _card(source: Source, config: BigBirdConfig, window: int) -> dict[str, Any]:
    """Make the card; both haplotypes of a short window have to be on one side of the limit."""
    if config.full >= config.positions or window > bases_of(config.full):
        return card_of(source, window, config.positions)
    card = card_of(source, window, config.full)
    card["provenance"]["limits"] = (
        f"Windows hold at most {config.full} tokens, up to which attention is full: with more the "
        "two alleles of a variant could differ by the kind of attention alone. --context above "
        f"{bases_of(config.full)} asks for block-sparse attention."
    )
    return card


FAMILY = Family(
    name="gena_bigbird",
    objective="masked",
    build=build,
    trunk=is_matrix_of("bert.encoder."),
    citation=CITATION,
    title="GENA-LM",
    official=(
        Official(
            variant="BigBird",
            recognise=recognise,
            load=load,
            tag="GENA",
            tokenizer="byte pairs, 32,000 tokens; [CLS] before, [SEP] after",
            code_licence="MIT",
            weights_licence="not stated; code MIT",
            releases=(release("bigbird-base-t2t", 4096),),
        ),
    ),
)
