"""GPN: residual blocks of dilated convolution and feed-forward over single bases.

After Benegas, Batra and Song (2023), written from the published description. Decisions: padding
is explicit, `dilation * (k - 1) // 2`, because ONNX Runtime refuses automatic padding with
dilation; norms come before the layers; kernels are stored as matrices, which is the shape that
Muon wants. There is no attention and no mask: batches hold windows of one length.
"""

from __future__ import annotations

import math

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from glm_annotate.train.families.family import Family, Network, Values
from glm_annotate.train.official import build_config


class GpnConfig(BaseModel):
    """The config's `[model]` table.

    Attributes:
        vocabulary: Token ids.
        dim: Width of the residual stream.
        kernel: Bases a convolution reads; odd.
        hidden: Width of the feed-forward layer.
        dilations: One block each, in order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: int = Field(default=7, gt=0)
    dim: int = Field(gt=0)
    kernel: int = Field(default=9, gt=0)
    hidden: int = Field(gt=0)
    dilations: tuple[int, ...] = Field(min_length=1)

    @field_validator("kernel")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("kernel must be odd")
        return value

    @property
    def reach(self) -> int:
        """Bases to either side that a row can depend on."""
        return (self.kernel - 1) // 2 * sum(self.dilations)


class Convolution(nn.Module):
    """A dilated convolution over rows, (B, T, D) to (B, T, D), its kernel stored as a matrix."""

    def __init__(self, dim: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.dim, self.kernel, self.dilation = dim, kernel, dilation
        self.weight = nn.Parameter(torch.randn(dim, dim * kernel) / math.sqrt(dim * kernel))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve rows (B, T, D)."""
        weight = self.weight.view(self.dim, self.dim, self.kernel)
        padding = self.dilation * (self.kernel - 1) // 2
        out = functional.conv1d(
            x.transpose(1, 2), weight, self.bias, padding=padding, dilation=self.dilation
        )
        return out.transpose(1, 2)


class Block(nn.Module):
    """Convolution, then feed-forward, each with a norm before and a residual around it."""

    def __init__(self, config: GpnConfig, dilation: int) -> None:
        super().__init__()
        self.norm_conv = nn.LayerNorm(config.dim)
        self.conv = Convolution(config.dim, config.kernel, dilation)
        self.norm_ffn = nn.LayerNorm(config.dim)
        self.widen = nn.Linear(config.dim, config.hidden)
        self.narrow = nn.Linear(config.hidden, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        """Update rows (B, T, D)."""
        x = x + functional.gelu(self.conv(self.norm_conv(x)))
        hidden = functional.gelu(self.widen(self.norm_ffn(x)))
        out: Tensor = x + self.narrow(hidden)
        return out


class Gpn(Network):
    """The network: ids (B, T) to logits (B, T, V) and embeddings (B, T, D)."""

    def __init__(self, config: GpnConfig) -> None:
        super().__init__()
        self.config = config
        self.dim, self.vocabulary = config.dim, config.vocabulary
        self.embedding = nn.Embedding(config.vocabulary, config.dim)
        self.blocks = nn.ModuleList(Block(config, dilation) for dilation in config.dilations)
        self.norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, config.vocabulary)

    def embed(self, rows: Tensor) -> Tensor:
        """Return the last layer after the final norm, shape (B, T, D), for ids (B, T)."""
        x: Tensor = self.embedding(rows)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.norm(x)
        return out

    def decode(self, embedding: Tensor) -> Tensor:
        """Turn embeddings (B, T, D) into logits (B, T, V)."""
        logits: Tensor = self.head(embedding)
        return logits


def build(values: Values) -> Gpn:
    """Make a network with fresh weights.

    Raises:
        InputError: A key or value of `[model]` is not allowed.
    """
    return Gpn(build_config(GpnConfig, values))


def is_trunk(name: str, weight: Tensor) -> bool:
    """Tell matrices of the blocks from embeddings, norms, biases and the head."""
    return name.startswith("blocks.") and weight.ndim == 2


FAMILY = Family(
    name="gpn",
    objective="masked",
    build=build,
    trunk=is_trunk,
    citation="Benegas, Batra and Song, PNAS 120 (2023) e2311219120",
)
