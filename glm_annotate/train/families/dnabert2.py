"""DNABERT-2: BERT over byte pairs with ALiBi and gated feed-forward layers.

After Zhou, Ji, Li, Dutta, Davuluri and Liu (2024), written from the published description.
Submodules carry the names of the official keys. Decisions: the distances of ALiBi are computed in
the graph, so that it takes any number of rows, where the authors keep a table of 512; [PAD] is 3,
as the tokenizer has it, although the official config says 0, which is [UNK].
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from glm_annotate.errors import InputError
from glm_annotate.train.families.bert import (
    SETTINGS,
    Head,
    byte_pair_card,
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
    Release,
    Source,
    Values,
    is_matrix_of,
)
from glm_annotate.train.layers import (
    Embeddings,
    MaskedHead,
    Projection,
    attention,
    merge_heads,
    split_heads,
)
from glm_annotate.train.official import Keys, build_config, fill, parse_config

# The head's norm does not follow the config.
_HEAD_EPS = 1e-12
_CONTEXT, _ROWS = 2048, 512

KEYS = Keys(
    ignore=(
        r"bert\.embeddings\.(position_ids|token_type_ids)",
        r"bert\.pooler\.dense\.(weight|bias)",
    ),
    ties=((r"cls\.predictions\.decoder\.weight", "bert.embeddings.word_embeddings.weight"),),
)

_FIXED = {"hidden_act": "gelu", "is_decoder": False}


class Dnabert2Config(BaseModel):
    """The config's `[model]` table.

    Attributes:
        vocabulary: Token ids.
        dim: Width of the residual stream.
        layers: Layers.
        heads: Attention heads a layer.
        hidden: Width of the gated feed-forward layer.
        types: Token types; only the first is used.
        eps: Added to the variance in norms, the head's excepted.
        tied: Whether the decoder shares its matrix with the embeddings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: int = Field(gt=0)
    dim: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    hidden: int = Field(gt=0)
    types: int = Field(default=2, gt=0)
    eps: float = Field(default=1e-12, gt=0, lt=1)
    tied: bool = True

    @model_validator(mode="after")
    def _check(self) -> Dnabert2Config:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is no multiple of {self.heads} heads")
        return self


def slopes(heads: int) -> list[float]:
    """Compute the slope of each head.

    A power of two gets 2^(-8 i / heads), i from 1. Other numbers get those of the largest power of
    two below, and then every other one, from the first, of twice that power.
    """
    whole = 1 << (heads.bit_length() - 1)
    even = [2.0 ** (-8 * (i + 1) / whole) for i in range(whole)]
    between = [2.0 ** (-8 * (2 * i + 1) / (2 * whole)) for i in range(heads - whole)]
    return even + between


class Attention(nn.Module):
    """Attention before its output projection, queries, keys and values from one matrix."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.Wqkv = nn.Linear(dim, 3 * dim)

    def forward(self, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Let rows (B, T, D) attend to each other; returns rows and maps (B, H, T, T)."""
        query, key, value = (split_heads(part, self.heads) for part in self.Wqkv(x).chunk(3, -1))
        out, maps = attention(query, key, value, bias)
        return merge_heads(out), maps


class GatedUnit(nn.Module):
    """A gated feed-forward layer with its residual and norm; the first half is the gate."""

    def __init__(self, dim: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.gated_layers = nn.Linear(dim, 2 * hidden, bias=False)
        self.wo = nn.Linear(hidden, dim)
        self.layernorm = nn.LayerNorm(dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Update rows (B, T, D)."""
        gate, value = self.gated_layers(x).chunk(2, dim=-1)
        out: Tensor = self.layernorm(self.wo(functional.gelu(gate) * value) + x)
        return out


class Layer(nn.Module):
    """Attention and gated unit, norms after the residuals."""

    def __init__(self, config: Dnabert2Config) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {
                "self": Attention(config.dim, config.heads),
                "output": Projection(config.dim, config.dim, config.eps),
            }
        )
        self.mlp = GatedUnit(config.dim, config.hidden, config.eps)

    def forward(self, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Update rows (B, T, D); returns them and the attention maps (B, H, T, T)."""
        attended, maps = self.attention["self"](x, bias)
        return self.mlp(self.attention["output"](attended, x)), maps


class Encoder(nn.Module):
    """The layers, `layer.0` and so on, and the bias that they share."""

    slopes: Tensor

    def __init__(self, config: Dnabert2Config) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.register_buffer("slopes", torch.tensor(slopes(config.heads)), persistent=False)

    def bias(self, x: Tensor) -> Tensor:
        """Compute -slope x distance, (H, T, T), for rows (B, T, D)."""
        place = torch.arange(x.shape[1], device=x.device)
        distance = (place[None, :] - place[:, None]).abs()
        return -self.slopes[:, None, None] * distance

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Update rows (B, T, D); gives them and a map (B, H, T, T) a layer."""
        bias, maps = self.bias(x), []
        for layer in self.layer:
            x, seen = layer(x, bias)
            maps.append(seen)
        return x, maps


class Trunk(nn.Module):
    """What official keys call `bert`."""

    def __init__(self, config: Dnabert2Config) -> None:
        super().__init__()
        self.embeddings = Embeddings(config.vocabulary, config.dim, config.eps, types=config.types)
        self.encoder = Encoder(config)

    def forward(self, rows: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Turn ids (B, T) into rows (B, T, D) and a map (B, H, T, T) a layer."""
        x: tuple[Tensor, list[Tensor]] = self.encoder(self.embeddings(rows))
        return x


class Dnabert2(Network):
    """The network: ids (B, T) to logits (B, T, V) and embeddings (B, T, D)."""

    has_attention = True

    def __init__(self, config: Dnabert2Config) -> None:
        super().__init__()
        self.config = config
        self.dim, self.vocabulary = config.dim, config.vocabulary
        self.bert = Trunk(config)
        self.cls = Head(MaskedHead(config.dim, config.vocabulary, _HEAD_EPS))
        if config.tied:
            self.cls.predictions.decoder.weight = self.bert.embeddings.word_embeddings.weight
        start(self)

    def embed(self, rows: Tensor) -> Tensor:
        """Return the last layer, which ends in a norm, shape (B, T, D), for ids (B, T)."""
        x: Tensor = self.bert(rows)[0]
        return x

    def attend(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `embed` does, and the attention maps (B, layers, H, T, T)."""
        x, maps = self.bert(rows)
        return x, torch.stack(maps, dim=1)

    def decode(self, embedding: Tensor) -> Tensor:
        """Turn embeddings (B, T, D) into logits (B, T, V)."""
        logits: Tensor = self.cls.predictions(embedding)
        return logits


def build(values: Values) -> Dnabert2:
    """Make a network with fresh weights.

    Raises:
        InputError: A key or value of `[model]` is not allowed.
    """
    return Dnabert2(build_config(Dnabert2Config, values))


def recognise(source: Source) -> bool:
    """Tell whether a source has the keys of MosaicBERT with ALiBi."""
    layer = "bert.encoder.layer.0"
    return (
        f"{layer}.attention.self.Wqkv.weight" in source.weights
        and f"{layer}.mlp.gated_layers.weight" in source.weights
        and "bert.embeddings.position_embeddings.weight" not in source.weights
    )


def load(source: Source, context: int | None) -> Loaded:
    """Read an official checkpoint.

    Raises:
        InputError: Weights, config or tokenizer.json contradict each other or the system, or no
            window as long as `context` fits the tokens that the model is given.
    """
    values = settings(source, SETTINGS, _FIXED)
    values["tied"] = is_tied(source.weights)
    config = parse_config(Dnabert2Config, source, values, SETTINGS)
    tokenizer, longest = read_tokenizer(source, config.vocabulary)
    network = Dnabert2(config)
    fill(network, source, KEYS)
    # All but [CLS] and [SEP] being the longest token.
    most = (_ROWS - 2) * longest
    window = min(_CONTEXT, most) if context is None else context
    if not 1 <= window <= most:
        raise InputError(
            f"{source.name}: --context {window}: allowed are 1 to {most} bases, the most that "
            f"{_ROWS} tokens can hold"
        )
    return Loaded(network, _card(window), tokenizer)


def _card(window: int) -> dict[str, Any]:
    data = "Genomes of 135 species, 32.49 billion bases, sequences without N"
    return {**byte_pair_card(window, _ROWS), "provenance": {"training_data": data}}


OFFICIAL = Official(
    variant="117M",
    recognise=recognise,
    load=load,
    tag="DNABERT2",
    tokenizer="byte pairs, 4096 tokens",
    code_licence="Apache-2.0",
    weights_licence="Apache-2.0 (not verified; see LICENSE in their repository)",
    releases=(
        Release(
            "dnabert-2",
            "zhihan1996/DNABERT-2-117M",
            _CONTEXT,
            note=f"about 4.6 bases a token; flanks are cut until {_ROWS} tokens fit",
        ),
    ),
)

FAMILY = Family(
    name="dnabert2",
    objective="masked",
    build=build,
    trunk=is_matrix_of("bert.encoder."),
    citation="Zhou, Ji, Li, Dutta, Davuluri and Liu, ICLR 2024",
    title="DNABERT-2",
    official=(OFFICIAL,),
)
