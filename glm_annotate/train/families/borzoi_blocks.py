"""The network of Borzoi, Flashzoi and the models of baskerville, and what Enformer shares with it.

Shapes: B windows, L bases, T tokens, D width, H heads, d = D / H of a value. Convolutions read
(B, channels, positions), the transformer reads (B, T, D). Decisions: the window is fixed, so that
position features are a table; its relative logits are moved into place by one cut and one fold,
which is all that a map of 4096 x 8191 leaves room for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from glm_annotate.train.families.predictor import Predictor
from glm_annotate.train.layers import merge_heads, rotary_table, rotate_first, split_heads

# Of every norm, as Keras has it.
EPS = 1e-3
# Rotary positions of Flashzoi: how much of a head turns, and how slowly its last pair.
_TURNED, _BASE = 128, 20000.0


class BorzoiConfig(BaseModel):
    """The config's `[model]` table.

    Attributes:
        tokens: Of a window; as many as its bases divided by `token`.
        stem: Channels of the first convolution; `stem_kernel`: its taps; `stem_pool`: bases of a
            position after it.
        tower: Channels of the convolutions after it, each followed by pooling by two; the last
            ones, `levels` of them, are brought back on the way up.
        kernel: Their taps; `up_kernel`: taps of the convolutions on the way up.
        levels: Times that positions are doubled after the transformer.
        dense_up: Whether the upward path has a layer of its own before it is doubled.
        layers: Blocks of the transformer, as wide as the last of `tower`.
        attention: `relative` (Borzoi) or `rotary` (Flashzoi).
        heads: Of the attention.
        key: Width of a query and key (relative).
        features: Numbers that tell a distance (relative).
        trained_tokens: Tokens that the widths of the features are made for; None: as many as the
            window has.
        expansion: Width of the feed-forward layer, in widths of the transformer.
        crop: Bins cut off at each side.
        last: Channels of the layer before the head; None: there is no such layer.
        tracks: Tracks of the head.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: int = Field(default=4096, ge=2)
    stem: int = Field(default=512, gt=0)
    stem_kernel: int = Field(default=15, gt=0)
    stem_pool: int = Field(default=2, gt=0)
    tower: tuple[int, ...] = Field(default=(608, 736, 896, 1056, 1280, 1536), min_length=1)
    kernel: int = Field(default=5, gt=0)
    up_kernel: int = Field(default=3, gt=0)
    levels: int = Field(default=2, ge=0)
    dense_up: bool = True
    layers: int = Field(default=8, ge=0)
    attention: Literal["relative", "rotary"] = "relative"
    heads: int = Field(default=8, gt=0)
    key: int = Field(default=64, gt=0)
    features: int = Field(default=32, gt=0)
    trained_tokens: int | None = Field(default=None, gt=0)
    expansion: float = Field(default=2.0, gt=0)
    crop: int = Field(default=16, ge=0)
    last: int | None = Field(default=1920, gt=0)
    tracks: int = Field(default=7611, gt=0)

    @property
    def token(self) -> int:
        """Bases of a token."""
        return self.stem_pool << len(self.tower)

    @property
    def length(self) -> int:
        """Bases of a window."""
        return self.tokens * self.token

    @property
    def bin(self) -> int:
        """Bases of a bin."""
        return self.token >> self.levels

    @property
    def bins(self) -> int:
        """Bins of an output."""
        return (self.tokens << self.levels) - 2 * self.crop

    @model_validator(mode="after")
    def _check(self) -> BorzoiConfig:
        if min(self.tower) <= 0:
            raise ValueError("tower holds a number below 1")
        if not all(taps % 2 for taps in (self.stem_kernel, self.kernel, self.up_kernel)):
            raise ValueError("kernels must be odd: an even one has no middle")
        if self.levels > len(self.tower):
            raise ValueError(f"levels is {self.levels}, tower has only {len(self.tower)} to return")
        if self.bins < 1:
            raise ValueError(
                f"a window of {self.length} bases leaves no bin: {self.crop} of {self.bin} bases "
                "are cropped at each side"
            )
        if self.tower[-1] % self.heads:
            raise ValueError(f"{self.heads} heads do not divide the width {self.tower[-1]}")
        if self.features % 2:
            raise ValueError("features must be even: each distance with and without its sign")
        if self.attention == "rotary":
            if self.heads % 2:
                raise ValueError("rotary attention shares keys between two heads each")
            if (self.tower[-1] // self.heads) < _TURNED:
                raise ValueError(f"a head of rotary attention has {_TURNED} numbers or more")
        return self


def central_mask(tokens: int, features: int, trained: int) -> Tensor:
    """Tell distances -(T-1) .. T-1 by which widths reach beyond them, (2T - 1, features).

    The second half is the first, times the sign of the distance.
    """
    count = features // 2
    width = (trained + 1.0) ** (torch.arange(1, count + 1, dtype=torch.float64) / count) - 1
    distance = torch.arange(1 - tokens, tokens, dtype=torch.float64)[:, None]
    return with_sign((width > distance.abs()).float(), distance)


def with_sign(features: Tensor, distance: Tensor) -> Tensor:
    """Append features (2T - 1, F) times the sign of their distance (2T - 1, 1)."""
    return torch.cat([features, features * distance.sign().float()], dim=1)


def shift(logits: Tensor) -> Tensor:
    """Turn logits of distances (B, H, T, 2T - 1) into logits of rows (B, H, T, T).

    Row i, column j of the result is what stood in row i for the distance j - i.
    """
    rows = logits.shape[2]
    flat = logits.flatten(2)[:, :, rows - 1 : rows - 1 + rows * (2 * rows - 2)]
    return flat.reshape(*flat.shape[:2], rows, 2 * rows - 2)[..., :rows]


class RelativeAttention(nn.Module):
    """Attention whose logits depend on content and on distance, each with a bias of its own."""

    def __init__(self, dim: int, heads: int, key: int, features: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, key**-0.5
        self.to_q, self.to_k = (nn.Linear(dim, heads * key, bias=False) for _ in range(2))
        self.to_v = nn.Linear(dim, dim, bias=False)
        self.to_rel_k = nn.Linear(features, heads * key, bias=False)
        self.to_out = nn.Linear(dim, dim)
        self.rel_content_bias = nn.Parameter(torch.randn(1, heads, 1, key))
        self.rel_pos_bias = nn.Parameter(torch.randn(1, heads, 1, key))

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """Let rows (B, T, D) attend to each other; features (2T - 1, F) tell their distances."""
        query, key, value = (
            split_heads(part(x), self.heads) for part in (self.to_q, self.to_k, self.to_v)
        )
        # The biases are added to queries that are scaled already.
        query = query * self.scale
        away = split_heads(self.to_rel_k(features)[None], self.heads)  # (1, H, 2T - 1, key)
        content = (query + self.rel_content_bias) @ key.transpose(-1, -2)
        distance = shift((query + self.rel_pos_bias) @ away.transpose(-1, -2))
        out: Tensor = self.to_out(merge_heads(torch.softmax(content + distance, dim=-1) @ value))
        return out


class RotaryAttention(nn.Module):
    """Attention of Flashzoi: positions turn queries and keys, two heads share a key and value."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.width = heads, dim // heads
        self.Wqkv = nn.Linear(dim, 2 * dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        """Let rows (B, T, D) attend to each other; angles (T, turned / 2) tell their positions."""
        heads, wide = self.heads, self.heads * self.width
        # The queries of all heads, then keys and values of half as many.
        query, key, value = self.Wqkv(x).split([wide, wide // 2, wide // 2], dim=-1)
        query = rotate_first(split_heads(query, heads), angles)
        key = rotate_first(split_heads(key, heads // 2), angles)
        value = split_heads(value, heads // 2)
        # Heads 2 i and 2 i + 1 share the i-th key: (B, H / 2, 2, T, d) against (B, H / 2, 1, T, d).
        pairs = query.reshape(query.shape[0], heads // 2, 2, *query.shape[2:])
        scores = pairs @ key.unsqueeze(2).transpose(-1, -2) / math.sqrt(self.width)
        out = torch.softmax(scores, dim=-1) @ value.unsqueeze(2)
        merged: Tensor = self.out_proj(merge_heads(out.flatten(1, 2)))
        return merged


class Block(nn.Module):
    """A block of the transformer, norms before the layers."""

    def __init__(self, attention: nn.Module, dim: int, hidden: int, eps: float = EPS) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(dim, eps=eps)
        self.attention = attention
        self.norm_mlp = nn.LayerNorm(dim, eps=eps)
        self.widen, self.narrow = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Update rows (B, T, D)."""
        x = x + self.attention(self.norm_attention(x), positions)
        out: Tensor = x + self.narrow(functional.relu(self.widen(self.norm_mlp(x))))
        return out


class ConvBlock(nn.Module):
    """Norm, GELU, convolution: (B, channels in, positions) to (B, channels out, positions)."""

    def __init__(self, channels: int, out: int, kernel: int = 1) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels, eps=EPS)
        self.conv = nn.Conv1d(channels, out, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Transform."""
        out: Tensor = self.conv(functional.gelu(self.norm(x), approximate="tanh"))
        return out


class Up(nn.Module):
    """A step up: positions doubled, what the tower had at that resolution added, smoothed."""

    def __init__(self, dim: int, beside: int, kernel: int, *, dense: bool) -> None:
        super().__init__()
        # Without a layer of its own, the upward path still has its norm.
        self.own: nn.Module = ConvBlock(dim, dim) if dense else nn.BatchNorm1d(dim, eps=EPS)
        self.beside = ConvBlock(beside, dim)
        self.depth = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim, bias=False)
        self.point = nn.Conv1d(dim, dim, 1)
        self.dense = dense

    def forward(self, x: Tensor, beside: Tensor) -> Tensor:
        """Take rows (B, D, n) and the tower's (B, channels, 2n) to rows (B, D, 2n)."""
        x = self.own(x)
        if not self.dense:
            x = functional.gelu(x, approximate="tanh")
        # Each position twice, side by side.
        doubled = torch.stack([x, x], dim=-1).flatten(-2)
        out: Tensor = self.point(self.depth(doubled + self.beside(beside)))
        return out


class Borzoi(Predictor):
    """Convolutions down to tokens, a transformer, and steps up to bins."""

    outputs = {"tracks": ("batch", "bin", "track")}  # noqa: RUF012 - a Mapping, as in the base
    positions: Tensor

    def __init__(self, config: BorzoiConfig) -> None:
        super().__init__()
        self.config = config
        self.length, self.multiple_of = config.length, config.token
        dim, sizes = config.tower[-1], (config.stem, *config.tower)
        self.stem = nn.Conv1d(4, config.stem, config.stem_kernel, padding=config.stem_kernel // 2)
        self.tower = nn.ModuleList(
            ConvBlock(before, after, config.kernel)
            for before, after in zip(sizes, config.tower, strict=False)
        )
        hidden = int(config.expansion * dim)
        self.transformer = nn.ModuleList(
            Block(self._attention(config, dim), dim, hidden) for _ in range(config.layers)
        )
        beside = config.tower[::-1][: config.levels]
        self.up = nn.ModuleList(
            Up(dim, width, config.up_kernel, dense=config.dense_up) for width in beside
        )
        self.last = ConvBlock(dim, config.last) if config.last else nn.Identity()
        self.head = nn.Linear(config.last or dim, config.tracks)
        self.register_buffer("positions", self._positions(config), persistent=False)

    @staticmethod
    def _attention(config: BorzoiConfig, dim: int) -> nn.Module:
        if config.attention == "rotary":
            return RotaryAttention(dim, config.heads)
        return RelativeAttention(dim, config.heads, config.key, config.features)

    @staticmethod
    def _positions(config: BorzoiConfig) -> Tensor:
        tokens = config.tokens
        if config.attention == "rotary":
            return rotary_table(tokens, _TURNED, base=_BASE)
        return central_mask(tokens, config.features, config.trained_tokens or tokens)

    def forward(self, bases: Tensor, channels: Tensor | None = None) -> tuple[Tensor, ...]:
        """Predict tracks (B, bins, tracks) from one-hot bases (B, L, 4)."""
        del channels
        x = functional.max_pool1d(self.stem(bases.transpose(1, 2)), self.config.stem_pool)
        seen = []
        for conv in self.tower:
            x = conv(x)
            seen.append(x)
            x = functional.max_pool1d(x, 2)
        x = x.transpose(1, 2)
        for block in self.transformer:
            x = block(x, self.positions)
        x = x.transpose(1, 2)
        for up, beside in zip(self.up, seen[::-1], strict=False):
            x = up(x, beside)
        crop = self.config.crop
        x = self.last(x[:, :, crop : x.shape[2] - crop])
        x = functional.gelu(x, approximate="tanh").transpose(1, 2)
        return (functional.softplus(self.head(x)),)

    def select(self, tracks: Sequence[int]) -> None:
        """Keep only these tracks."""
        self.head = select_rows(self.head, tracks)


@torch.no_grad()
def select_rows(head: nn.Linear, tracks: Sequence[int]) -> nn.Linear:
    """Make a head of some of another's outputs, in this order."""
    kept = nn.Linear(head.in_features, len(tracks)).to(head.weight)
    index = torch.as_tensor(list(tracks), dtype=torch.long)
    kept.weight.copy_(head.weight[index])
    kept.bias.copy_(head.bias[index])
    return kept.train(head.training)
