"""The network of Akita: convolutions down to bins, pairs of bins, convolutions over the map.

Every convolution stands between a ReLU and a norm. Shapes: B windows, L bases, C channels, N bins.
Decision: all maps of a checkpoint are given at once, as the last axis, since one pass makes them
all; a map is the list of its upper triangle, row by row, as the authors have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from glm_annotate.train.families.predictor import Predictor

Width = Annotated[int, Field(gt=0, le=4096)]
Rate = Annotated[float, Field(ge=1, le=4)]


class AkitaConfig(BaseModel):
    """The config's `[model]` table; the defaults are those of the published network.

    Attributes:
        bins: Of a side of the map before it is cropped.
        stem: Channels of the first convolution; `stem_kernel`: its taps; `stem_pool`: bases of a
            position after it.
        tower: Channels of the convolutions after it; `tower_kernel`, `tower_pool` as above.
        narrow: Channels inside the dilated blocks; `rate`: what the dilation grows by;
            `repeat`: how many there are.
        neck: Channels of a bin; `neck_kernel`: taps of the convolution that makes them.
        flat: Channels of a pair of bins; `flat_kernel`: side of the convolution that makes them.
        flat_narrow: Inside the dilated blocks of the map; `flat_rate`, `flat_repeat` as above.
        crop: Bins cut off at each side.
        diagonal: Diagonals that are left out, the main one first.
        maps: Maps that are predicted.
        eps: Of the norms; Keras has 0.001.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    bins: int = Field(default=512, gt=0)
    stem: Width = 96
    stem_kernel: Width = 11
    stem_pool: Width = 2
    tower: tuple[Width, ...] = (96,) * 10
    tower_kernel: Width = 5
    tower_pool: Width = 2
    narrow: Width = 48
    narrow_kernel: Width = 3
    rate: Rate = 1.75
    repeat: int = Field(default=8, ge=0, le=64)
    neck: Width = 64
    neck_kernel: Width = 5
    flat: Width = 48
    flat_kernel: Width = 3
    flat_narrow: Width = 24
    flat_narrow_kernel: Width = 3
    flat_rate: Rate = 1.75
    flat_repeat: int = Field(default=6, ge=0, le=64)
    crop: int = Field(default=32, ge=0)
    diagonal: int = Field(default=2, ge=0)
    maps: Width = 5
    eps: float = Field(default=1e-3, gt=0, lt=1)

    @property
    def bin_size(self) -> int:
        """Bases of a bin."""
        return int(self.stem_pool * self.tower_pool ** len(self.tower))

    @property
    def side(self) -> int:
        """Bins of a side of the map that is given."""
        return self.bins - 2 * self.crop

    @model_validator(mode="after")
    def _check(self) -> AkitaConfig:
        for name in type(self).model_fields:
            if name.endswith("kernel") and getattr(self, name) % 2 == 0:
                raise ValueError(f"{name} must be odd: what it reads is centred")
        if self.side <= self.diagonal:
            raise ValueError(
                f"crop {self.crop} and diagonal {self.diagonal} leave nothing of {self.bins} bins"
            )
        rates = dilations(self.rate, self.repeat) + dilations(self.flat_rate, self.flat_repeat)
        widest = max(rates, default=1)
        if widest > self.bins:
            raise ValueError(f"dilation {widest} reaches beyond {self.bins} bins")
        return self


def dilations(rate: float, repeat: int) -> list[int]:
    """List the dilations of blocks: powers of the rate, rounded."""
    return [round(rate**i) for i in range(repeat)]


class Unit(nn.Module):
    """ReLU, convolution, norm, and the largest of `pool` neighbours; in one or two dimensions."""

    def __init__(
        self, conv: type[nn.Conv1d | nn.Conv2d], sizes: tuple[int, int, int], eps: float,
        *, dilation: int = 1, pool: int = 1,
    ) -> None:  # fmt: skip
        """Make a unit; `sizes`: channels before and after, and taps."""
        super().__init__()
        before, after, kernel = sizes
        norm = nn.BatchNorm1d if conv is nn.Conv1d else nn.BatchNorm2d
        pad = dilation * (kernel // 2)
        self.conv = conv(before, after, kernel, padding=pad, dilation=dilation, bias=False)
        self.norm = norm(after, eps=eps)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Turn (B, C, positions) into (B, C', positions / pool), or maps into maps."""
        x = self.norm(self.conv(functional.relu(x)))
        return functional.max_pool1d(x, self.pool) if self.pool > 1 else x


class Residual(nn.Module):
    """A narrow dilated unit, a wide one of one tap, and what went in."""

    def __init__(
        self, conv: type[nn.Conv1d | nn.Conv2d], sizes: tuple[int, int, int], dilation: int,
        eps: float,
    ) -> None:  # fmt: skip
        """Make a block; `sizes`: channels outside and inside, and taps."""
        super().__init__()
        wide, narrow, kernel = sizes
        self.narrow = Unit(conv, (wide, narrow, kernel), eps, dilation=dilation)
        self.wide = Unit(conv, (narrow, wide, 1), eps)

    def forward(self, x: Tensor) -> Tensor:
        """Update (B, C, positions), or maps (B, C, N, N)."""
        out: Tensor = x + self.wide(self.narrow(x))
        return out


def symmetric(x: Tensor) -> Tensor:
    """Average maps (B, C, N, N) with their transposes."""
    return (x + x.transpose(2, 3)) / 2


class Akita(Predictor):
    """Bases (B, L, 4) to the upper triangles of maps (B, pairs, maps): log(observed / expected)."""

    distance: Tensor
    pairs: Tensor

    def __init__(self, config: AkitaConfig) -> None:
        super().__init__()
        self.config = config
        self.outputs = {"contacts": ("batch", "pair", "track")}
        self.length = config.bins * config.bin_size
        one, two, eps = nn.Conv1d, nn.Conv2d, config.eps
        self.stem = Unit(one, (4, config.stem, config.stem_kernel), eps, pool=config.stem_pool)
        widths = (config.stem, *config.tower)
        self.tower = nn.Sequential(
            *(
                Unit(one, (before, after, config.tower_kernel), eps, pool=config.tower_pool)
                for before, after in pairwise(widths)
            )
        )
        sizes = (widths[-1], config.narrow, config.narrow_kernel)
        self.residual = nn.Sequential(
            *(Residual(one, sizes, x, eps) for x in dilations(config.rate, config.repeat))
        )
        self.neck = Unit(one, (widths[-1], config.neck, config.neck_kernel), eps)
        # One channel more: the distance of the two bins.
        self.flat = Unit(two, (config.neck + 1, config.flat, config.flat_kernel), eps)
        sizes = (config.flat, config.flat_narrow, config.flat_narrow_kernel)
        self.flat_residual = nn.ModuleList(
            Residual(two, sizes, x, eps) for x in dilations(config.flat_rate, config.flat_repeat)
        )
        self.final = nn.Linear(config.flat, config.maps)
        bins, side = torch.arange(config.bins), config.side
        apart = (bins[:, None] - bins).abs().float()
        row, column = torch.triu_indices(side, side, config.diagonal)
        self.register_buffer("distance", apart[None, None], persistent=False)  # (1, 1, N, N)
        self.register_buffer("pairs", row * side + column, persistent=False)

    def units(self) -> Iterator[tuple[str, Unit]]:
        """List the units by name in the order in which they are computed."""
        return ((name, part) for name, part in self.named_modules() if isinstance(part, Unit))

    def forward(self, bases: Tensor, channels: Tensor | None = None) -> tuple[Tensor, ...]:
        """Predict the maps."""
        x = self.neck(self.residual(self.tower(self.stem(bases.transpose(1, 2)))))  # (B, C, N)
        # The trunk ends in a ReLU of its own: bins are averaged after it.
        x = functional.relu(x)
        x = (x[:, :, :, None] + x[:, :, None, :]) / 2
        apart = self.distance.expand(x.shape[0], -1, -1, -1)
        x = symmetric(self.flat(torch.cat([x, apart], dim=1)))  # (B, C, N, N)
        for block in self.flat_residual:
            x = symmetric(block(x))
        crop, side = self.config.crop, self.config.side
        x = x[:, :, crop : crop + side, crop : crop + side].flatten(2)
        return (self.final(x.index_select(2, self.pairs).transpose(1, 2)),)

    @torch.no_grad()
    def select(self, tracks: Sequence[int]) -> None:
        """Keep only these maps, in this order."""
        chosen = nn.Linear(self.config.flat, len(tracks))
        chosen.weight.copy_(self.final.weight[list(tracks)])
        chosen.bias.copy_(self.final.bias[list(tracks)])
        self.final = chosen.requires_grad_(self.final.weight.requires_grad)
