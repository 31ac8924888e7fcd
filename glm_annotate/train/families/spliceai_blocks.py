"""SpliceAI's stack of dilated convolutions, which Pangolin has too; names are OpenSpliceAI's."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

# Units between two skips, and the dilation of each such group.
GROUP, DILATIONS = 4, (1, 4, 10, 25)


class SpliceAIConfig(BaseModel):
    """The config's `[model]` table.

    Attributes:
        widths: Taps of the convolutions of each unit; odd.
        dilations: Of the same.
        channels: Width of the stack.
        group: Units between two skips.
        slope: Of the units below 0: 0 for ReLU.
        eps: Of the norms.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    widths: tuple[int, ...] = Field(min_length=1)
    dilations: tuple[int, ...] = Field(min_length=1)
    channels: int = Field(default=32, gt=0)
    group: int = Field(default=GROUP, gt=0)
    slope: float = Field(default=0.0, ge=0, lt=1)
    eps: float = Field(default=1e-3, gt=0)

    @model_validator(mode="after")
    def _check(self) -> SpliceAIConfig:
        if len(self.widths) != len(self.dilations):
            raise ValueError("widths and dilations must be as many")
        if len(self.widths) % self.group:
            raise ValueError(f"the number of units must be a multiple of group = {self.group}")
        if any(x < 1 or x % 2 == 0 for x in self.widths) or min(self.dilations) < 1:
            raise ValueError("widths must be odd, dilations 1 or more")
        return self


class Unit(nn.Module):
    """Norm, activation, dilated convolution, twice, and what came in added."""

    def __init__(self, config: SpliceAIConfig, width: int, dilation: int) -> None:
        super().__init__()
        size, edge = config.channels, dilation * (width - 1) // 2
        self.slope = config.slope
        self.batchnorm1 = nn.BatchNorm1d(size, eps=config.eps)
        self.conv1 = nn.Conv1d(size, size, width, dilation=dilation, padding=edge)
        self.batchnorm2 = nn.BatchNorm1d(size, eps=config.eps)
        self.conv2 = nn.Conv1d(size, size, width, dilation=dilation, padding=edge)

    def forward(self, x: Tensor) -> Tensor:
        """Update (B, C, L)."""
        y = self.conv1(self._activate(self.batchnorm1(x)))
        out: Tensor = x + self.conv2(self._activate(self.batchnorm2(y)))
        return out

    def _activate(self, x: Tensor) -> Tensor:
        return functional.leaky_relu(x, self.slope) if self.slope else functional.relu(x)


class Skip(nn.Module):
    """What a group of units hands to the end."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Project (B, C, L)."""
        out: Tensor = self.conv(x)
        return out


class Trunk(nn.Module):
    """The stack: units in groups, and the sum of the skips without the flanks.

    Attributes:
        crop: Bases that are cut off at each side.
    """

    def __init__(self, config: SpliceAIConfig) -> None:
        super().__init__()
        units = list(zip(config.widths, config.dilations, strict=True))
        self.crop = sum(dilation * (width - 1) for width, dilation in units)
        self.initial_conv = nn.Conv1d(4, config.channels, 1)
        self.initial_skip = Skip(config.channels)
        self.residual_units = nn.ModuleList()
        for number, (width, dilation) in enumerate(units, start=1):
            self.residual_units.append(Unit(config, width, dilation))
            if number % config.group == 0:
                self.residual_units.append(Skip(config.channels))

    def forward(self, bases: Tensor) -> Tensor:
        """Turn bases (B, L, 4) into features (B, C, L - 2 crop)."""
        x = self.initial_conv(bases.transpose(1, 2))
        total: Tensor = self.initial_skip(x)
        for part in self.residual_units:
            if isinstance(part, Skip):
                total = total + part(x)
            else:
                x = part(x)
        return total[:, :, self.crop : total.shape[2] - self.crop]
