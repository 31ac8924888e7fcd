"""The networks of the published GPN checkpoints: dilated convolutions over rows, no attention.

Shapes: B windows, T rows, D width of the residual stream. Decisions: padding is explicit,
`dilation * (k - 1) // 2`, because ONNX Runtime refuses automatic padding with dilation; norms have
torch's eps of 1e-5, whatever `layer_norm_eps` a checkpoint's config holds, because the authors'
code reads that key for none of these blocks.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from glm_annotate.train.families.family import Network

Layout = Literal["legacy", "convnet", "bytenet"]


def one_hot(ids: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """Turn ids (...) of any number type into (..., width); other numbers than ids are all zeros."""
    return (ids[..., None] == torch.arange(width, device=ids.device)).to(dtype)


class Convolution(nn.Conv1d):
    """A dilated convolution over rows, (B, T, D) to (B, T, D), zeros past both ends."""

    def __init__(
        self, dim: int, kernel: int, dilation: int, *, bias: bool = True, depthwise: bool = False
    ) -> None:
        super().__init__(
            dim,
            dim,
            kernel,
            padding=dilation * (kernel - 1) // 2,
            dilation=dilation,
            groups=dim if depthwise else 1,
            bias=bias,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve rows (B, T, D)."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class LegacyBlock(nn.Module):
    """`ConvNet`: convolution, then a linear layer, each with GELU and a norm after it."""

    def __init__(self, dim: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.conv = Convolution(dim, kernel, dilation)
        self.norm_conv = nn.LayerNorm(dim)
        self.linear = nn.Linear(dim, dim)
        self.norm_linear = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Update rows (B, T, D)."""
        x = x + self.norm_conv(functional.gelu(self.conv(x)))
        out: Tensor = x + self.norm_linear(functional.gelu(self.linear(x)))
        return out


class ConvBlock(nn.Module):
    """`GPN`, encoder convnet: convolution and feed-forward, each with a norm before it."""

    def __init__(
        self, dim: int, hidden: int, kernel: int, dilation: int, *, bias: bool, depthwise: bool
    ) -> None:
        super().__init__()
        self.norm_conv = nn.LayerNorm(dim, bias=bias)
        self.conv = Convolution(dim, kernel, dilation, bias=bias, depthwise=depthwise)
        self.mix = nn.Linear(dim, dim, bias=bias)
        self.norm_ffn = nn.LayerNorm(dim, bias=bias)
        self.widen = nn.Linear(dim, hidden, bias=bias)
        self.narrow = nn.Linear(hidden, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Update rows (B, T, D)."""
        x = x + self.mix(functional.gelu(self.conv(self.norm_conv(x))))
        out: Tensor = x + self.narrow(functional.gelu(self.widen(self.norm_ffn(x))))
        return out


class ByteNetBlock(nn.Module):
    """`GPN`, encoder bytenet: to a narrower stream, convolution there, and back."""

    def __init__(
        self, dim: int, hidden: int, kernel: int, dilation: int, *, bias: bool, depthwise: bool
    ) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(dim, bias=bias)
        self.narrow = nn.Linear(dim, hidden, bias=bias)
        self.norm_narrow = nn.LayerNorm(hidden, bias=bias)
        self.conv = Convolution(hidden, kernel, dilation, bias=bias, depthwise=depthwise)
        self.norm_conv = nn.LayerNorm(hidden, bias=bias)
        self.widen = nn.Linear(hidden, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Update rows (B, T, D)."""
        inner = self.narrow(functional.gelu(self.norm_in(x)))
        inner = self.conv(functional.gelu(self.norm_narrow(inner)))
        out: Tensor = x + self.widen(functional.gelu(self.norm_conv(inner)))
        return out


class Head(nn.Module):
    """Embeddings (B, T, D) to logits (B, T, V), with or without a layer between."""

    def __init__(self, dim: int, vocabulary: int, *, bias: bool, transform: bool) -> None:
        super().__init__()
        self.transform = transform
        if transform:
            self.dense = nn.Linear(dim, dim, bias=bias)
            self.norm = nn.LayerNorm(dim, bias=bias)
        self.decoder = nn.Linear(dim, vocabulary, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Turn embeddings into logits."""
        if self.transform:
            x = self.norm(functional.gelu(self.dense(x)))
        logits: Tensor = self.decoder(x)
        return logits


class GpnSonglabConfig(BaseModel):
    """The config's `[model]` table.

    Attributes:
        layout: Which block: `legacy` (ConvNet), `convnet` or `bytenet` (both GPN).
        vocabulary: Token ids.
        dim: Width of the residual stream.
        hidden: Width of the feed-forward layer (convnet) or of the narrow stream (bytenet); equal
            to `dim` for legacy.
        kernel_first: Bases that the first convolution reads; odd.
        kernel: Bases that the others read; odd.
        dilations: One block each, in order.
        bias: Whether layers and norms have one.
        depthwise: Whether all convolutions but the first keep channels apart.
        table: Whether ids are embedded by a table of weights; else one-hot.
        transform: Whether the head has a layer before the decoder.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layout: Layout = "convnet"
    vocabulary: int = Field(default=7, gt=0)
    dim: int = Field(gt=0)
    hidden: int = Field(gt=0)
    kernel_first: int = Field(default=9, gt=0)
    kernel: int = Field(default=5, gt=0)
    dilations: tuple[int, ...] = Field(min_length=1)
    bias: bool = False
    depthwise: bool = False
    table: bool = False
    transform: bool = True

    @model_validator(mode="after")
    def _check(self) -> GpnSonglabConfig:
        if self.kernel_first % 2 == 0 or self.kernel % 2 == 0:
            raise ValueError("kernels must be odd")
        if min(self.dilations) < 1:
            raise ValueError("dilations must be at least 1")
        if not self.table and self.vocabulary > self.dim:
            raise ValueError(f"one-hot ids of {self.vocabulary} do not fit in dim {self.dim}")
        if self.layout == "legacy":
            plain = self.bias and self.transform and not (self.depthwise or self.table)
            if not plain or self.hidden != self.dim or self.kernel_first != self.kernel:
                raise ValueError(
                    "legacy has bias and transform, neither depthwise nor table, hidden = dim and "
                    "kernel_first = kernel"
                )
        return self

    @property
    def reach(self) -> int:
        """Bases to either side that a row can depend on."""
        kernels = (self.kernel_first, *(self.kernel for _ in self.dilations[1:]))
        pairs = zip(kernels, self.dilations, strict=True)
        return sum((kernel - 1) // 2 * dilation for kernel, dilation in pairs)


class GpnSonglab(Network):
    """The network: ids (B, T) to logits (B, T, V) and embeddings (B, T, D)."""

    def __init__(self, config: GpnSonglabConfig) -> None:
        super().__init__()
        self.config = config
        self.dim, self.vocabulary = config.dim, config.vocabulary
        if config.table:
            self.embedding = nn.Embedding(config.vocabulary, config.dim)
        self.layers = nn.ModuleList(_block(config, i) for i in range(len(config.dilations)))
        if config.layout != "legacy":
            self.norm = nn.LayerNorm(config.dim, bias=config.bias)
        self.head = Head(
            config.dim, config.vocabulary, bias=config.bias, transform=config.transform
        )

    def embed(self, rows: Tensor) -> Tensor:
        """Return the last layer, after the final norm where there is one, (B, T, D)."""
        x: Tensor
        if self.config.table:
            x = self.embedding(rows)
        else:
            x = one_hot(rows, self.dim, self.head.decoder.weight.dtype)
        for layer in self.layers:
            x = layer(x)
        if self.config.layout != "legacy":
            x = self.norm(x)
        return x

    def decode(self, embedding: Tensor) -> Tensor:
        """Turn embeddings (B, T, D) into logits (B, T, V)."""
        logits: Tensor = self.head(embedding)
        return logits


def _block(config: GpnSonglabConfig, i: int) -> nn.Module:
    dilation = config.dilations[i]
    kernel = config.kernel if i else config.kernel_first
    if config.layout == "legacy":
        return LegacyBlock(config.dim, kernel, dilation)
    made = ConvBlock if config.layout == "convnet" else ByteNetBlock
    return made(
        config.dim,
        config.hidden,
        kernel,
        dilation,
        bias=config.bias,
        depthwise=config.depthwise and i > 0,
    )
