"""Networks of DeepSEA, Beluga and DanQ.

Decisions: nothing changes a weight in a pass (selene's DeepSEA does: `limit_rows` does it once,
when weights are read), and DanQ's LSTM recurs over the window unless asked for what selene's does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from glm_annotate.train.families.one_bin import OneBin, keep_rows, recur


class DeepSeaConfig(BaseModel):
    """The config's `[model]` table, for DeepSEA and Beluga.

    Attributes:
        length: Bases of a window.
        widths: Channels of each stage; stages are pooled, the last is not.
        depth: Convolutions a stage.
        kernel: Taps of a convolution, without padding.
        pool: Rows that become one between stages.
        hidden: Width of the dense layer.
        tracks: Features predicted.
        floor: What a rectified value below 0 becomes (Lua's threshold puts 1e-6 there).
        normed: Whether each stage and the dense layer end in a batch norm, as selene's do.
        unknown: What an N is in each channel.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    length: int = Field(default=1000, ge=1)
    widths: tuple[int, ...] = Field(default=(320, 480, 960), min_length=1)
    depth: int = Field(default=1, ge=1)
    kernel: int = Field(default=8, ge=1)
    pool: int = Field(default=4, ge=1)
    hidden: int = Field(default=925, ge=1)
    tracks: int = Field(default=919, ge=1)
    floor: float = Field(default=0.0, ge=0)
    normed: bool = False
    unknown: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> DeepSeaConfig:
        if min(self.widths) < 1 or self.rows < 1:
            raise ValueError(f"no row is left of {self.length} bases")
        return self

    @property
    def rows(self) -> int:
        """Rows that reach the dense layer."""
        left = self.length
        for stage in range(len(self.widths)):
            left = left // self.pool if stage else left
            left -= self.depth * (self.kernel - 1)
        return left


class DeepSea(OneBin):
    """Stages of convolutions with pools between them, then two dense layers."""

    def __init__(self, config: DeepSeaConfig) -> None:
        super().__init__()
        self.length, self.unknown = config.length, config.unknown
        self.floor, self.pool = config.floor, config.pool
        self.stages, self.norms = nn.ModuleList(), nn.ModuleList()
        wide = 4
        for width in config.widths:
            convs = nn.ModuleList()
            for _ in range(config.depth):
                convs.append(nn.Conv1d(wide, width, config.kernel))
                wide = width
            self.stages.append(convs)
            self.norms.append(nn.BatchNorm1d(width) if config.normed else nn.Identity())
        self.dense = nn.ModuleList(
            [nn.Linear(wide * config.rows, config.hidden), nn.Linear(config.hidden, config.tracks)]
        )
        self.dense_norm = nn.BatchNorm1d(config.hidden) if config.normed else nn.Identity()

    def predict(self, bases: Tensor) -> Tensor:
        """Predict probabilities (B, tracks)."""
        x = bases.transpose(1, 2)  # (B, 4, L)
        for stage, (convs, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            for conv in convs:  # type: ignore[attr-defined]
                x = self._rectify(conv(x))
            if stage + 1 < len(self.stages):
                x = nn.functional.max_pool1d(x, self.pool)
            x = norm(x)
        x = self.dense_norm(self._rectify(self.dense[0](x.flatten(1))))
        return torch.sigmoid(self.dense[1](x))

    def _rectify(self, x: Tensor) -> Tensor:
        if self.floor == 0:
            return torch.relu(x)
        return torch.where(x > 0, x, self.floor)

    def select(self, tracks: Sequence[int]) -> None:
        """Keep only these tracks."""
        self.dense[1] = keep_rows(self.dense[1], tracks)  # type: ignore[arg-type]


class DanQConfig(BaseModel):
    """The config's `[model]` table.

    Attributes:
        length: Bases of a window.
        width: Channels of the convolution, and of each direction of the LSTM.
        kernel: Taps of the convolution, without padding.
        pool: Rows that become one.
        hidden: Width of the dense layer.
        tracks: Features predicted.
        compat: `fixed` recurs over the window. `published` is what selene's class computes for a
            single window: it takes the batch for the time, so no row knows of another.
        unknown: What an N is in each channel.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    length: int = Field(default=1000, ge=1)
    width: int = Field(default=320, ge=1)
    kernel: int = Field(default=26, ge=1)
    pool: int = Field(default=13, ge=1)
    hidden: int = Field(default=925, ge=1)
    tracks: int = Field(default=919, ge=1)
    compat: Literal["published", "fixed"] = "fixed"
    unknown: float = Field(default=0.25, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> DanQConfig:
        if self.rows < 1:
            raise ValueError(f"no row is left of {self.length} bases")
        return self

    @property
    def rows(self) -> int:
        """Rows that reach the LSTM."""
        return (self.length - self.kernel + 1) // self.pool


class DanQ(OneBin):
    """A convolution, a two-way LSTM over its pooled rows, two dense layers."""

    def __init__(self, config: DanQConfig) -> None:
        super().__init__()
        self.length, self.unknown, self.pool = config.length, config.unknown, config.pool
        self.alone = config.compat == "published"
        self.conv = nn.Conv1d(4, config.width, config.kernel)
        self.lstm = nn.LSTM(config.width, config.width, batch_first=True, bidirectional=True)
        wide = 2 * config.width * config.rows
        self.dense = nn.ModuleList(
            [nn.Linear(wide, config.hidden), nn.Linear(config.hidden, config.tracks)]
        )

    def predict(self, bases: Tensor) -> Tensor:
        """Predict probabilities (B, tracks)."""
        x = torch.relu(self.conv(bases.transpose(1, 2)))
        rows = nn.functional.max_pool1d(x, self.pool).transpose(1, 2)  # (B, T, width)
        rows = recur(self.lstm, rows, alone=self.alone)
        x = torch.relu(self.dense[0](rows.flatten(1)))
        return torch.sigmoid(self.dense[1](x))

    def select(self, tracks: Sequence[int]) -> None:
        """Keep only these tracks."""
        self.dense[1] = keep_rows(self.dense[1], tracks)  # type: ignore[arg-type]
