"""Caduceus' layers: Mamba, Mamba in both directions, and what their sizes are.

Written from the published description; parameters carry the names of official checkpoints.
Shapes: B windows, T rows, D width, I = expand x D channels inside a Mamba, N states a channel.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from glm_annotate.train.selective_scan import selective_scan

# Step sizes of a fresh network.
_LEAST_STEP, _LARGEST_STEP = 1e-3, 1e-1
_EMBEDDING_SPREAD = 0.02


class CaduceusConfig(BaseModel):
    """The config's `[model]` table.

    Attributes:
        vocabulary: Token ids.
        dim: Width of the residual stream of one strand.
        layers: Blocks.
        states: Numbers that each channel of a Mamba keeps.
        kernel: Rows that its convolution reads: the current one and those before it.
        expand: Channels of a Mamba, as a multiple of `dim`.
        rank: Numbers that step sizes are made from; None: a sixteenth of `dim`, rounded up.
        conv_bias: Whether the convolution has a bias.
        bias: Whether projections into and out of a Mamba have biases.
        norm: `rms`, or `layer` for LayerNorm with bias.
        eps: Added to the mean square (or variance) that a norm divides by.
        directions: `add` or `multiply` what both reading directions give, or read `forward` only.
        tied: Whether both directions share the projections into and out of their Mamba.
        tied_head: Whether the head is the table of embeddings.
        complement: The id of each id's complement. With it both strands are read with the same
            weights, and the network is equivariant under reverse complement; empty: one strand.
        exchange: Whether the strands change places at every block, as in the authors' fused code.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: int = Field(default=16, gt=0)
    dim: int = Field(gt=0)
    layers: int = Field(gt=0)
    states: int = Field(default=16, gt=0)
    kernel: int = Field(default=4, gt=0)
    expand: float = Field(default=2, gt=0, le=64)
    rank: int | None = Field(default=None, gt=0)
    conv_bias: bool = True
    bias: bool = False
    norm: Literal["rms", "layer"] = "rms"
    eps: float = Field(default=1e-5, gt=0, lt=1)
    directions: Literal["add", "multiply", "forward"] = "add"
    tied: bool = True
    tied_head: bool = True
    complement: tuple[int, ...] = ()
    exchange: bool = False

    @model_validator(mode="after")
    def _check(self) -> CaduceusConfig:
        pairs = self.complement
        if pairs and sorted(pairs) != list(range(self.vocabulary)):
            raise ValueError(f"complement must hold each of {self.vocabulary} ids once")
        if any(pairs[there] != here for here, there in enumerate(pairs)):
            raise ValueError("complement must lead back: the complement of a complement is the id")
        if self.exchange and not pairs:
            raise ValueError("exchange needs complement: one strand has none to change with")
        return self

    @property
    def inner(self) -> int:
        """Channels of a Mamba."""
        return int(self.expand * self.dim)

    @property
    def step_rank(self) -> int:
        """Numbers that step sizes are made from."""
        return self.rank if self.rank is not None else math.ceil(self.dim / 16)


class RmsNorm(nn.Module):
    """Divide by the root of the mean square, then weigh each channel."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def make_norm(config: CaduceusConfig) -> nn.Module:
    """Make a norm over the last axis, D wide."""
    if config.norm == "layer":
        return nn.LayerNorm(config.dim, eps=config.eps)
    return RmsNorm(config.dim, config.eps)


class Mamba(nn.Module):
    """A gated selective state space that reads rows from left to right."""

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__()
        inner, rank = config.inner, config.step_rank
        self.sizes = [rank, config.states, config.states]
        self.kernel = config.kernel
        self.in_proj = nn.Linear(config.dim, 2 * inner, bias=config.bias)
        self.conv1d = nn.Conv1d(inner, inner, config.kernel, groups=inner, bias=config.conv_bias)
        self.x_proj = nn.Linear(inner, sum(self.sizes), bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        rates = torch.arange(1, config.states + 1, dtype=torch.float32).log()
        self.A_log = nn.Parameter(rates.repeat(inner, 1))  # (I, N)
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, config.dim, bias=config.bias)
        self._initialise(config)

    @torch.no_grad()
    def _initialise(self, config: CaduceusConfig) -> None:
        """Spread step sizes over their range, and keep what comes out small in deep stacks."""
        low, high = math.log(_LEAST_STEP), math.log(_LARGEST_STEP)
        steps = torch.empty_like(self.dt_proj.bias).uniform_(low, high).exp()
        self.dt_proj.bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # softplus gives `steps`
        nn.init.uniform_(self.dt_proj.weight, -(config.step_rank**-0.5), config.step_rank**-0.5)
        self.out_proj.weight.div_(math.sqrt(config.layers))

    def forward(self, x: Tensor) -> Tensor:
        """Turn rows (B, T, D) into rows (B, T, D); a row depends on those before it."""
        value, gate = self.in_proj(x).chunk(2, dim=-1)  # (B, T, I) each
        before = functional.pad(value.transpose(1, 2), (self.kernel - 1, 0))
        value = functional.silu(self.conv1d(before)).transpose(1, 2)
        step, write, read = self.x_proj(value).split(self.sizes, dim=-1)
        delta = functional.softplus(self.dt_proj(step))
        found = selective_scan(value, delta, -torch.exp(self.A_log), write, read)
        out: Tensor = self.out_proj((found + self.D * value) * functional.silu(gate))
        return out


class BiMamba(nn.Module):
    """A Mamba that reads from the left, and another that reads from the right."""

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__()
        self.directions = config.directions
        self.mamba_fwd = Mamba(config)
        if config.directions == "forward":
            return
        self.mamba_rev = Mamba(config)
        if config.tied:
            self.mamba_rev.in_proj = self.mamba_fwd.in_proj
            self.mamba_rev.out_proj = self.mamba_fwd.out_proj

    def forward(self, x: Tensor) -> Tensor:
        """Turn rows (B, T, D) into rows (B, T, D)."""
        found: Tensor = self.mamba_fwd(x)
        if self.directions == "forward":
            return found
        back: Tensor = self.mamba_rev(x.flip(1)).flip(1)
        return found + back if self.directions == "add" else found * back


class Block(nn.Module):
    """What a layer adds to the residual stream."""

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__()
        self.norm = make_norm(config)
        self.mixer = BiMamba(config)

    def forward(self, x: Tensor) -> Tensor:
        """Turn the residual stream (S, B, T, D), S strands, into what is to be added to it."""
        found: Tensor = self.mixer(self.norm(x).flatten(0, 1))
        return found.view(x.shape)


class Embeddings(nn.Module):
    """The table of token embeddings, under the name that checkpoints give it."""

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocabulary, config.dim)
        nn.init.normal_(self.word_embeddings.weight, std=_EMBEDDING_SPREAD)

    def forward(self, rows: Tensor) -> Tensor:
        """Embed ids (...) as rows (..., D)."""
        out: Tensor = self.word_embeddings(rows)
        return out
