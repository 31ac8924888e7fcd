"""GENA-LM: BERT with norms before the layers, over byte pairs; also block sparse with rotation.

After Fishman et al. (2025), written from the published description. Submodules carry the names of
the official keys. The short models have learned positions and see everything; the long ones rotate
the first part of each head, and which blocks of rows a block of rows sees, head by head, is a
buffer of the checkpoint (`master_layout`): it was drawn when the model was made.

Decisions: block-sparse attention is the dense one with a bias that hides the other blocks. A row
that fills up the last block is hidden from all others and of no use itself, so that numbers of
rows which are no multiple of a block need no filling at all. 4,096 rows of 12 heads take about
2.5 GB a window, 1,024 rows 170 MB. Where a window has exactly as many rows as a head has
dimensions, DeepSpeed leaves the keys untransposed; here it is computed as any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

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
    card_of,
    release,
    window_of,
)
from glm_annotate.train.layers import Embeddings, MaskedHead, SelfAttention
from glm_annotate.train.official import build_config, check_whole, fill, parse_config, whole

# What DeepSpeed's BigBird layout has, in blocks, for networks that are trained here.
_GLOBAL, _SLIDING, _RANDOM = 2, 3, 3
_HIDDEN = torch.finfo(torch.float32).min


class GenaConfig(BaseModel):
    """The config's `[model]` table.

    Attributes:
        vocabulary: Token ids.
        dim: Width of the residual stream; `heads` divides it.
        hidden: Width of the feed-forward.
        positions: Rows of the table of learned positions; 0: `rotary`.
        rotary: Dimensions of each head that are rotated, with frequencies of `base`.
        block: Rows of a block of sparse attention; 0: every row sees every row.
        blocks: Most blocks of a window.
        last_norm: Whether a norm follows the last layer.
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
    positions: int = Field(default=0, ge=0)
    rotary: int = Field(default=0, ge=0)
    base: float = Field(default=10000.0, gt=0)
    block: int = Field(default=0, ge=0)
    blocks: int = Field(default=0, ge=0)
    last_norm: bool = True
    activation: Literal["none", "tanh"] = "none"
    types: int = Field(default=2, gt=0)
    eps: float = Field(default=1e-12, gt=0, lt=1)
    tied: bool = True

    @model_validator(mode="after")
    def _check(self) -> GenaConfig:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        if bool(self.positions) == bool(self.rotary):
            raise ValueError("either positions or rotary is needed, and not both")
        if self.rotary % 2 or self.rotary > self.dim // self.heads:
            raise ValueError(
                f"rotary {self.rotary} is not an even part of a head of {self.dim // self.heads}"
            )
        if bool(self.block) != bool(self.blocks):
            raise ValueError("block and blocks go together")
        return self

    @property
    def most(self) -> int | None:
        """Most rows of a window; None: any number."""
        limits = [x for x in (self.positions, self.block * self.blocks) if x]
        return min(limits, default=None)


class Layout(nn.Module):
    """Which blocks of rows see which, by head: `master_layout`, (H, n, n), 1 where seen."""

    master_layout: Tensor

    def __init__(self, config: GenaConfig) -> None:
        super().__init__()
        self.block = config.block
        self.register_buffer("master_layout", draw_layout(config.heads, config.blocks))

    def bias(self, rows: int) -> Tensor:
        """Make the bias (H, T, T) that hides what is not seen."""
        block = torch.arange(rows, device=self.master_layout.device) // self.block
        # Small before it is large: the layout as numbers, then its rows, then its columns.
        hidden = torch.where(self.master_layout == 0, _HIDDEN, 0.0)
        return hidden.index_select(1, block).index_select(2, block)


class Dense(nn.Module):
    """A linear layer that the files call `dense`."""

    def __init__(self, wide: int, dim: int) -> None:
        super().__init__()
        self.dense = nn.Linear(wide, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Turn rows (B, T, wide) into rows (B, T, dim)."""
        out: Tensor = self.dense(x)
        return out


class Layer(nn.Module):
    """Attention, then feed-forward, each with a norm before and a residual around it."""

    def __init__(self, config: GenaConfig) -> None:
        super().__init__()
        dim, hidden = config.dim, config.hidden
        self.activation = config.activation
        attention = SelfAttention(dim, config.heads)
        if config.block:
            attention.sparse_self_attention = Layout(config)
        self.sparse = bool(config.block)
        self.attention = nn.ModuleDict({"self": attention, "output": Dense(dim, dim)})
        self.pre_attention_ln = nn.LayerNorm(dim, eps=config.eps)
        self.post_attention_ln = nn.LayerNorm(dim, eps=config.eps)
        self.intermediate = Dense(dim, hidden)
        self.output = Dense(hidden, dim)

    def forward(self, x: Tensor, angles: Tensor | None) -> tuple[Tensor, Tensor]:
        """Update rows (B, T, D); returns them and the attention maps (B, H, T, T)."""
        attention: Any = self.attention["self"]
        bias = attention.sparse_self_attention.bias(x.shape[1]) if self.sparse else None
        attended, maps = attention(self.pre_attention_ln(x), bias, angles)
        x = x + self.attention["output"](attended)
        wide = self.intermediate(self.post_attention_ln(x))
        return x + self.output(functional.gelu(wide, approximate=self.activation)), maps


class GenaLm(Network):
    """The network: ids (B, T) to logits (B, T, V), embeddings (B, T, D) and attention maps."""

    has_attention = True
    frequency: Tensor

    def __init__(self, config: GenaConfig) -> None:
        super().__init__()
        self.config = config
        self.dim, self.vocabulary, self.max_rows = config.dim, config.vocabulary, config.most
        embeddings = Embeddings(
            config.vocabulary,
            config.dim,
            config.eps,
            positions=config.positions,
            types=config.types,
        )
        encoder = nn.ModuleDict(
            {"layer": nn.ModuleList(Layer(config) for _ in range(config.layers))}
        )
        if config.last_norm:
            encoder["last_layer_ln"] = nn.LayerNorm(config.dim, eps=config.eps)
        self.bert = nn.ModuleDict({"embeddings": embeddings, "encoder": encoder})
        head = MaskedHead(config.dim, config.vocabulary, config.eps, activation=config.activation)
        self.cls = nn.ModuleDict({"predictions": head})
        if config.tied:
            head.decoder.weight = embeddings.word_embeddings.weight
        # Numbers and not a formula of the graph: at row 4,000 a last digit more or less shows.
        self.register_buffer("frequency", frequencies(config.rotary, config.base), persistent=False)
        start(self)

    def embed(self, rows: Tensor) -> Tensor:
        """Return the last layer after the final norm, if any, (B, T, D), for ids (B, T)."""
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
        angles = None
        if self.config.rotary:
            place = torch.arange(rows.shape[1], device=rows.device, dtype=torch.float32)
            angles = place[:, None] * self.frequency
        encoder: Any = self.bert["encoder"]
        for layer in encoder["layer"]:
            x, seen = layer(x, angles)
            if maps is not None:
                maps.append(seen)
        if self.config.last_norm:
            x = encoder["last_layer_ln"](x)
        return x


def frequencies(rotary: int, base: float) -> Tensor:
    """Compute the angles of one step, (rotary / 2,)."""
    return 1.0 / base ** (torch.arange(0, rotary, 2, dtype=torch.float32) / max(rotary, 1))


def draw_layout(heads: int, blocks: int) -> Tensor:
    """Draw a layout (H, n, n) such as the authors': always the same for the same shape."""
    generator = torch.Generator().manual_seed(heads * 10007 + blocks)
    place = torch.arange(blocks)
    near = (place[:, None] - place[None, :]).abs() <= _SLIDING // 2
    first = place < _GLOBAL
    chosen = torch.rand(heads, blocks, blocks, generator=generator).argsort(dim=-1) < _RANDOM
    return (chosen | near | first[:, None] | first[None, :]).to(torch.int64)


def build(values: Values) -> GenaLm:
    """Make a network with fresh weights.

    Raises:
        InputError: A key or value of `[model]` is not allowed.
    """
    return GenaLm(build_config(GenaConfig, values))


# Official checkpoints.


def is_dense(source: Source) -> bool:
    """Tell whether a source has the authors' norms before the layers, and nothing sparse."""
    return _is_pre_norm(source) and not _is_sparse(source)


def is_sparse(source: Source) -> bool:
    """Tell whether a source has the authors' norms before the layers, and sparse attention."""
    return _is_pre_norm(source) and _is_sparse(source)


def _is_pre_norm(source: Source) -> bool:
    return "bert.encoder.layer.0.pre_attention_ln.weight" in source.weights


def _is_sparse(source: Source) -> bool:
    stored = any(key.endswith(".master_layout") for key in source.weights)
    return stored or bool(source.config.get("sparse_config_cls"))


def load(source: Source, context: int | None) -> Loaded:
    """Read an official checkpoint.

    Raises:
        InputError: Weights, config or tokenizer.json contradict each other or the system, or the
            window is longer than what the authors trained on.
    """
    values = {**settings(source, SETTINGS, FIXED), **_shape(source)}
    values |= {"activation": activation_of(source), "tied": is_tied(source.weights)}
    config = parse_config(GenaConfig, source, values, SETTINGS)
    tokenizer, _ = read_tokenizer(source, config.vocabulary)
    check_biases(source)
    _check_frequencies(source, config)
    tokens = config.most or whole(source, "max_position_embeddings")
    window = window_of(source, context, tokens)
    network = GenaLm(config)
    fill(network, source, KEYS)
    return Loaded(network, card_of(source, window, tokens), tokenizer)


def _shape(source: Source) -> dict[str, object]:
    """Read the authors' own keys: positions, blocks and norms.

    Raises:
        InputError: They say something else than the keys of the weights.
    """
    found = source.config
    if not found.get("pre_layer_norm"):
        raise InputError(
            f"{source.name}: config: pre_layer_norm is {found.get('pre_layer_norm')!r}, wanted "
            "True by the keys of the norms; fetch config and weights of one checkpoint"
        )
    # A config that does not say has the last norm.
    values: dict[str, object] = {"last_norm": found.get("last_layer_norm", True)}
    kind = found.get("position_embedding_type", "absolute")
    most = whole(source, "max_position_embeddings")
    if kind == "absolute":
        values["positions"] = most
    elif kind == "rotary":
        width = whole(source, "hidden_size") // whole(source, "num_attention_heads")
        values["rotary"] = found.get("rotary_dim", width)
        values["base"] = found.get("rotary_base") or 10000.0
    else:
        raise InputError(
            f"{source.name}: config: position_embedding_type is {kind!r}, wanted absolute or "
            "rotary; fetch config and weights of one checkpoint"
        )
    if found.get("sparse_config_cls"):
        sparse = found.get("sparse_attention")
        block = sparse.get("block") if isinstance(sparse, Mapping) else None
        block = check_whole(source, "sparse_attention.block", block)
        values |= {"block": block, "blocks": most // block}
    return values


def _check_frequencies(source: Source, config: GenaConfig) -> None:
    """Compare the stored frequencies, which are not read, with those that the config gives."""
    wanted = frequencies(config.rotary, config.base)
    for name, stored in source.weights.items():
        if not name.endswith(".rotary_emb.inv_freq"):
            continue
        # Loose, because some files keep them in 16 bits.
        same = stored.shape == wanted.shape
        if not same or not torch.allclose(stored.float(), wanted, rtol=1e-2, atol=1e-6):
            raise InputError(
                f"{source.name}: {name} is not of base {config.base:g} and {config.rotary} "
                "dimensions; fetch config and weights of one checkpoint"
            )


_TOKENIZER = "byte pairs, 32,000 tokens; [CLS] before, [SEP] after"

FAMILY = Family(
    name="gena_lm",
    objective="masked",
    build=build,
    trunk=is_matrix_of("bert.encoder."),
    citation=CITATION,
    title="GENA-LM",
    official=(
        Official(
            variant="BERT",
            recognise=is_dense,
            load=load,
            tag="GENA",
            tokenizer=_TOKENIZER,
            code_licence="MIT",
            weights_licence="not stated; code MIT",
            releases=(
                release("bert-base", 512),
                release("bert-base-t2t", 512),
                release("bert-base-lastln-t2t", 512),
                release("bert-base-t2t-multi", 512),
                release("bert-large-t2t", 512),
            ),
        ),
        Official(
            variant="block sparse, rotary",
            recognise=is_sparse,
            load=load,
            tag="GENA",
            tokenizer=_TOKENIZER,
            code_licence="MIT",
            weights_licence="not stated; code MIT",
            releases=(
                release("bigbird-base-sparse", 4096),
                release("bigbird-base-sparse-t2t", 4096),
            ),
        ),
    ),
)
