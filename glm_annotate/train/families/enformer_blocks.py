"""The network of Enformer; `enformer.py` reads its checkpoints.

Shapes: B windows, L bases, T tokens, D width. Decision: the position features of the official
weights are a table, because those weights were trained on what TensorFlow's float32 made of a
formula, which the formula itself gives to 2.5e-3. `enformer_gammas.npz` holds that table for
distances 0 to 1535. It is one half of `tf_gammas.pt` of enformer-pytorch 0.8.12, whose other half
mirrors it (MIT licence, in `enformer_gammas.LICENSE`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import resources
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from glm_annotate.train.families.borzoi_blocks import (
    Block,
    RelativeAttention,
    select_rows,
    with_sign,
)
from glm_annotate.train.families.predictor import Predictor

TABLE_TOKENS = 1536  # that the official positions are made for
_TABLE = "enformer_gammas.npz"
_EPS = 1e-5  # of every norm
Gamma = Literal["official", "position", "feature"]


class EnformerConfig(BaseModel):
    """The config's `[model]` table.

    Attributes:
        tokens: Of a window; as many as its bases divided by `token`.
        stem: Channels of the first convolution; `stem_kernel`: its taps.
        tower: Channels of the steps after it, each of which halves the positions, as the stem does.
        kernel: Taps of their convolutions.
        layers: Blocks of the transformer, as wide as the last of `tower`.
        heads: Of the attention; `key`: width of a query and key.
        features: Numbers that tell a distance.
        gamma: A third of those. `official`: a table, for at most 1536 tokens. `position`: densities
            divided by their largest over positions. `feature`: divided by the largest of all at
            each position, which enformer-pytorch does where it is not told otherwise.
        crop: Bins cut off at each side.
        last: Channels of the layer before the head.
        tracks: Tracks of the head.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: int = Field(default=TABLE_TOKENS, ge=2)
    stem: int = Field(default=768, gt=0)
    stem_kernel: int = Field(default=15, gt=0)
    tower: tuple[int, ...] = Field(default=(768, 896, 1024, 1152, 1280, 1536), min_length=1)
    kernel: int = Field(default=5, gt=0)
    layers: int = Field(default=11, ge=0)
    heads: int = Field(default=8, gt=0)
    key: int = Field(default=64, gt=0)
    features: int = Field(default=192, gt=0)
    gamma: Gamma = "position"
    crop: int = Field(default=320, ge=0)
    last: int = Field(default=3072, gt=0)
    tracks: int = Field(default=5313, gt=0)

    @property
    def token(self) -> int:
        """Bases of a token, which is a bin too."""
        return 2 << len(self.tower)

    @model_validator(mode="after")
    def _check(self) -> EnformerConfig:
        if min(self.tower) <= 0 or self.tower[-1] % self.heads:
            raise ValueError(f"{self.heads} heads do not divide the widths {self.tower}")
        if self.stem_kernel % 2 == 0 or self.kernel % 2 == 0:
            raise ValueError("kernels must be odd: an even one has no middle")
        if self.features % 6:
            raise ValueError("features must be a multiple of 6: three kinds, with and without sign")
        if self.tokens <= 2 * self.crop:
            raise ValueError(f"{self.tokens} bins, of which {self.crop} are cropped at each side")
        if self.gamma == "official" and (self.tokens > TABLE_TOKENS or self.features != 192):
            raise ValueError(
                f"the official positions are 192 features of at most {TABLE_TOKENS} tokens"
            )
        return self


def gammas(tokens: int, count: int, gamma: Gamma) -> Tensor:
    """Compute densities of gamma distributions at distances 0 .. T-1, shape (T, count), float64.

    Their means are spread from T / count to T, their standard deviation is T / (2 count).
    """
    if gamma == "official":
        with resources.files(__package__).joinpath(_TABLE).open("rb") as handle:
            return torch.from_numpy(np.load(handle)["gammas"]).double()[:tokens]
    place = torch.arange(tokens, dtype=torch.float64)[:, None]
    mean = torch.linspace(tokens / count, tokens, count, dtype=torch.float64)
    deviation = tokens / (2 * count)
    shape, rate = (mean / deviation) ** 2, mean / deviation**2
    log = torch.xlogy(shape - 1, place) - rate * place
    density = torch.exp(log - torch.lgamma(shape) + shape * rate.log()) + 1e-8
    return density / density.amax(dim=0 if gamma == "position" else 1, keepdim=True)


def positions(tokens: int, features: int, gamma: Gamma) -> Tensor:
    """Tell distances -(T-1) .. T-1 by features, (2T - 1, features).

    Decays with half-lives 8 .. T, widths 2^k - 1 that reach beyond the distance, and gamma
    densities; then all of them times the sign of the distance.
    """
    count = features // 6
    trained = TABLE_TOKENS if gamma == "official" else tokens
    distance = torch.arange(1 - tokens, tokens, dtype=torch.float64)[:, None]
    away = distance.abs()
    life = 2 ** torch.linspace(3, math.log2(trained), count, dtype=torch.float64)
    width = 2 ** torch.arange(1, count + 1, dtype=torch.float64) - 1
    density = gammas(tokens, count, gamma)[away[:, 0].long()]
    found = torch.cat([torch.exp(-math.log(2) / life * away), width > away, density], dim=1)
    return with_sign(found.float(), distance)


class ConvBlock(nn.Module):
    """Norm, GELU in its sigmoid form, convolution: (B, channels in, n) to (B, channels out, n)."""

    def __init__(self, channels: int, out: int, kernel: int = 1) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels, eps=_EPS)
        self.conv = nn.Conv1d(channels, out, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Transform."""
        out: Tensor = self.conv(gelu(self.norm(x)))
        return out


def gelu(x: Tensor) -> Tensor:
    """X sigmoid(1.702 x), the form that the weights were trained with."""
    return x * torch.sigmoid(1.702 * x)


class AttentionPool(nn.Module):
    """Halve the positions: each channel's mean of a pair, weighted by a softmax over the two."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Conv1d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Take (B, channels, 2n) to (B, channels, n).

        A softmax of two is a sigmoid of their difference, and the scores are linear: one
        convolution of the difference is all that is needed.
        """
        first, second = x[..., 0::2], x[..., 1::2]
        difference = first - second
        weight: Tensor = torch.sigmoid(self.score(difference))
        return second + weight * difference


class Step(nn.Module):
    """A convolution, one of a single tap that is added to its result, and pooling."""

    def __init__(self, first: nn.Module, channels: int) -> None:
        super().__init__()
        self.first = first
        self.mix = ConvBlock(channels, channels)
        self.pool = AttentionPool(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Take (B, channels in, 2n) to (B, channels, n)."""
        x = self.first(x)
        out: Tensor = self.pool(x + self.mix(x))
        return out


class Enformer(Predictor):
    """Steps down to tokens, a transformer, and a layer over what is left of them."""

    outputs = {"tracks": ("batch", "bin", "track")}  # noqa: RUF012 - a Mapping, as in the base
    positions: Tensor

    def __init__(self, config: EnformerConfig) -> None:
        super().__init__()
        self.config = config
        self.length, self.multiple_of = config.tokens * config.token, config.token
        dim, sizes = config.tower[-1], (config.stem, *config.tower)
        taps = config.stem_kernel
        self.stem = Step(nn.Conv1d(4, config.stem, taps, padding=taps // 2), config.stem)
        self.tower = nn.ModuleList(
            Step(ConvBlock(before, after, config.kernel), after)
            for before, after in zip(sizes, config.tower, strict=False)
        )
        self.transformer = nn.ModuleList(
            Block(
                RelativeAttention(dim, config.heads, config.key, config.features),
                dim,
                2 * dim,
                _EPS,
            )
            for _ in range(config.layers)
        )
        self.last = ConvBlock(dim, config.last)
        self.head = nn.Linear(config.last, config.tracks)
        table = positions(config.tokens, config.features, config.gamma)
        self.register_buffer("positions", table, persistent=False)

    def forward(self, bases: Tensor, channels: Tensor | None = None) -> tuple[Tensor, ...]:
        """Predict tracks (B, bins, tracks) from one-hot bases (B, L, 4)."""
        del channels
        x = self.stem(bases.transpose(1, 2))
        for step in self.tower:
            x = step(x)
        x = x.transpose(1, 2)
        for block in self.transformer:
            x = block(x, self.positions)
        crop = self.config.crop
        x = self.last(x[:, crop : x.shape[1] - crop].transpose(1, 2))
        return (functional.softplus(self.head(gelu(x).transpose(1, 2))),)

    def select(self, tracks: Sequence[int]) -> None:
        """Keep only these tracks."""
        self.head = select_rows(self.head, tracks)
