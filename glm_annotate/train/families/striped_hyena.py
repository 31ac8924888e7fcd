"""What Evo and Evo 2 share: StripedHyena, gated convolutions with a few layers of attention.

After Poli et al. (2023), written from the published description. The taps of a long convolution
follow from a few numbers a channel, the same for every window: a network that only scores has them
worked out once in float64 (`StripedHyena.materialise`), one that is trained works them out in every
pass. There is nothing that marks padding.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn
from torch.nn import functional

from glm_annotate.errors import InputError
from glm_annotate.train.families.family import Network, Source
from glm_annotate.train.layers import (
    attention,
    causal_bias,
    merge_heads,
    rotate_halves,
    split_heads,
)
from glm_annotate.train.long_convolution import LongConvolution, convolve_by_fft
from glm_annotate.train.official import Keys, fill

# Default window in bases: what the authors score variants with.
_CONTEXT = 8192
# Heads whose maps are in memory at once: 8193 rows take 270 MB a head.
_HEADS_AT_ONCE = 4

KEYS = Keys(
    rename=((r"backbone\.", ""),),
    ignore=(r"blocks\.\d+\.inner_mha_cls\.rotary_emb\.inv_freq", r".*\._extra_state"),
)


class RmsNorm(nn.Module):
    """scale * x / (root mean square of x + eps): eps stands outside the root."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise rows (B, T, D)."""
        size = x.norm(dim=-1, keepdim=True) * (1 / math.sqrt(x.shape[-1]))
        out: Tensor = self.scale * (x / (size + self.eps))
        return out


class GatedMlp(nn.Module):
    """l3(gelu(l1 x) * l2 x), or without the GELU."""

    def __init__(self, dim: int, hidden: int, *, gelu: bool = True) -> None:
        super().__init__()
        self.gelu = gelu
        self.l1, self.l2 = (nn.Linear(dim, hidden, bias=False) for _ in range(2))
        self.l3 = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Update rows (B, T, D)."""
        gate = self.l1(x)
        out: Tensor = self.l3((functional.gelu(gate) if self.gelu else gate) * self.l2(x))
        return out


class Attention(nn.Module):
    """Causal attention with rotary positions, a few heads at a time."""

    frequency: Tensor

    def __init__(self, dim: int, heads: int, base: float, scale: float, *, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.Wqkv = nn.Linear(dim, 3 * dim, bias=bias)
        self.out_proj = nn.Linear(dim, dim)
        frequency = rotary_frequency(dim // heads, base)
        self.register_buffer("frequency", (frequency / scale).float(), persistent=False)

    def forward(self, x: Tensor, *, keep: bool = False) -> tuple[Tensor, Tensor | None]:
        """Let rows (B, T, D) attend; returns rows, and maps (B, H, T, T) where they are kept."""
        rows = x.shape[1]
        query, key, value = (split_heads(y, self.heads) for y in self.Wqkv(x).chunk(3, dim=-1))
        angles = torch.arange(rows, device=x.device)[:, None] * self.frequency  # (T, d / 2)
        query, key = rotate_halves(query, angles), rotate_halves(key, angles)
        bias = causal_bias(rows, x.device)
        outs, kept = [], []
        few = (torch.split(y, _HEADS_AT_ONCE, dim=1) for y in (query, key, value))
        for q, k, v in zip(*few, strict=True):
            out, maps = attention(q, k, v, bias)
            outs.append(out)
            kept += [maps] if keep else []
        merged = merge_heads(torch.cat(outs, dim=1))
        return self.out_proj(merged), torch.cat(kept, dim=1) if keep else None


def rotary_frequency(dim: int, base: float) -> Tensor:
    """Compute base^(-2 i / dim), shape (dim / 2), float64."""
    power: Tensor = base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    return power


class AttentionBlock(nn.Module):
    """Attention, then feed-forward, each with a norm before and a residual around it."""

    def __init__(self, dim: int, eps: float, attend: Attention, mlp: GatedMlp) -> None:
        super().__init__()
        self.pre_norm, self.post_norm = RmsNorm(dim, eps), RmsNorm(dim, eps)
        self.inner_mha_cls, self.mlp = attend, mlp

    def forward(self, x: Tensor, *, keep: bool = False) -> tuple[Tensor, Tensor | None]:
        """Update rows (B, T, D); gives attention maps (B, H, T, T) where they are kept."""
        out, maps = self.inner_mha_cls(self.pre_norm(x), keep=keep)
        x = x + out
        return x + self.mlp(self.post_norm(x)), maps


class GatedConvolution(nn.Module):
    """A short convolution, then (taps convolved with x1 * v, + D * x1 * v) * x2.

    How the channels are split into x2, x1 and v, and where the taps come from, is up to those who
    inherit from it.
    """

    D: Tensor | None

    def __init__(self, dim: int, taps: int, *, bias: bool, skip: bool) -> None:
        super().__init__()
        self.short_filter_weight = nn.Parameter(torch.randn(3 * dim, 1, taps) / math.sqrt(taps))
        self.short_filter_bias = nn.Parameter(torch.zeros(3 * dim)) if bias else None
        self.D = nn.Parameter(torch.zeros(dim)) if skip else None
        self.long: LongConvolution | None = None

    def split(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split channels (B, 3 D, T) into x2, x1 and v, (B, D, T) each."""
        raise NotImplementedError

    def taps(self, rows: int, dtype: torch.dtype) -> Tensor:
        """Work out taps (D, L), L up to `rows`; tap 0 weighs the current row."""
        raise NotImplementedError

    def materialise(self, window: int) -> None:
        """Work the taps out in float64 for windows of up to `window` rows."""
        self.long = LongConvolution(self.taps(window, torch.float64), window)

    def forward(self, z: Tensor) -> Tensor:
        """Mix projected rows (B, T, 3 D) with those before them, to (B, T, D)."""
        weight, bias = self.short_filter_weight, self.short_filter_bias
        z = functional.pad(z.transpose(1, 2), (weight.shape[-1] - 1, 0))
        x2, x1, value = self.split(functional.conv1d(z, weight, bias, groups=weight.shape[0]))
        value = x1 * value
        if self.long is not None:
            mixed = self.long(value)
        else:
            mixed = convolve_by_fft(value, self.taps(value.shape[-1], value.dtype))
        if self.D is not None:
            mixed = mixed + self.D[:, None] * value
        out: Tensor = (mixed * x2).transpose(1, 2)
        return out


class ConvolutionBlock(nn.Module):
    """Gated convolution, then feed-forward, each with a norm before and a residual around it."""

    def __init__(
        self, dim: int, eps: float, mixer: GatedConvolution, mlp: GatedMlp, *, bias: bool
    ) -> None:
        super().__init__()
        self.pre_norm, self.post_norm = RmsNorm(dim, eps), RmsNorm(dim, eps)
        self.projections = nn.Linear(dim, 3 * dim, bias=bias)
        self.filter = mixer
        self.out_filter_dense = nn.Linear(dim, dim)
        self.mlp = mlp

    def forward(self, x: Tensor, *, keep: bool = False) -> tuple[Tensor, Tensor | None]:
        """Update rows (B, T, D); there are no maps to keep."""
        x = x + self.out_filter_dense(self.filter(self.projections(self.pre_norm(x))))
        return x + self.mlp(self.post_norm(x)), None


class StripedHyena(Network):
    """The network: ids (B, T) to logits (B, T, V) of the next base and embeddings (B, T, D).

    Attributes:
        config: What the system's `build` makes it from.
    """

    config: BaseModel

    def __init__(
        self, vocabulary: int, dim: int, eps: float, blocks: list[nn.Module], *, tied: bool
    ) -> None:
        super().__init__()
        self.dim, self.vocabulary = dim, vocabulary
        self.has_attention = any(isinstance(block, AttentionBlock) for block in blocks)
        self.embedding_layer = nn.Embedding(vocabulary, dim)
        self.blocks = nn.ModuleList(blocks)
        self.norm = RmsNorm(dim, eps)
        self.unembed = nn.Linear(dim, vocabulary, bias=False)
        if tied:
            nn.init.normal_(self.embedding_layer.weight, std=1 / math.sqrt(dim))
            self.unembed.weight = self.embedding_layer.weight

    @torch.no_grad()
    def materialise(self, window: int) -> None:
        """Fix the filters as they are now, for windows of up to `window` rows: graphs need this."""
        for block in self.blocks:
            if isinstance(block, ConvolutionBlock):
                block.filter.materialise(window)
        self.max_rows = window

    def embed(self, rows: Tensor) -> Tensor:
        """Return the last layer after the final norm, shape (B, T, D), for ids (B, T)."""
        x = self.embedding_layer(rows)
        for block in self.blocks:
            x, _ = block(x)
        out: Tensor = self.norm(x)
        return out

    def attend(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `embed` does, and the maps (B, layers, H, T, T) of the blocks that attend."""
        x, kept = self.embedding_layer(rows), []
        for block in self.blocks:
            x, maps = block(x, keep=True)
            kept += [] if maps is None else [maps]
        return self.norm(x), torch.stack(kept, dim=1)

    def decode(self, embedding: Tensor) -> Tensor:
        """Turn embeddings (B, T, D) into logits (B, T, V)."""
        logits: Tensor = self.unembed(embedding)
        return logits


# Reading official checkpoints.


def shape_of(
    source: Source, weights: Mapping[str, Tensor], name: str, axes: int
) -> tuple[int, ...]:
    """Look up a weight's shape.

    Raises:
        InputError: There is no such weight, or it has another number of axes.
    """
    if name not in weights or weights[name].ndim != axes:
        raise InputError(f"{source.name}: no weights for {name}; fetch the checkpoint again")
    return tuple(weights[name].shape)


def sizes_of(source: Source, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read vocabulary, dim, layers, hidden and the blocks that attend off the weights."""
    words = shape_of(source, weights, "embedding_layer.weight", 2)
    wide = shape_of(source, weights, "blocks.0.mlp.l1.weight", 2)
    return {
        "vocabulary": words[0],
        "dim": words[1],
        "hidden": wide[0],
        "layers": len(blocks_with(weights, r"pre_norm\.scale")),
        "attention": blocks_with(weights, r"inner_mha_cls\.Wqkv\.weight"),
    }


def blocks_with(weights: Mapping[str, Tensor], pattern: str) -> tuple[int, ...]:
    """List the blocks that have a weight of some name."""
    found = (re.fullmatch(rf"blocks\.(\d+)\.{pattern}", name) for name in weights)
    return tuple(sorted(int(match[1]) for match in found if match))


def refuse_contradictions(source: Source, wanted: Mapping[str, object]) -> None:
    """Refuse a config that says something else than the weights and the architecture.

    Raises:
        InputError: A key of the config is there and has another value than `wanted`.
    """
    for key, value in wanted.items():
        if source.config.get(key) not in (None, value):
            raise InputError(
                f"{source.name}: config: {key} is {source.config[key]!r}, wanted {value!r} by "
                "weights and architecture; fetch config and weights of one checkpoint"
            )


def check_rotary(source: Source, width: int, base: float) -> None:
    """Compare the rotary frequencies that some files hold with what the config says.

    Args:
        source: The checkpoint.
        width: Dimensions of a head.
        base: Of the rotary positions.

    Raises:
        InputError: They are of another number of heads or another base.
    """
    expected = rotary_frequency(width, base)
    for name, found in source.weights.items():
        if not name.endswith("rotary_emb.inv_freq"):
            continue
        # Files in bfloat16 have two digits.
        if found.shape != expected.shape or not torch.allclose(found.double(), expected, rtol=0.01):
            raise InputError(
                f"{source.name}: {name} is not of heads {width} wide and rotary base {base:g}, as "
                "the config says; fetch config and weights of one checkpoint"
            )


def choose_window(source: Source, context: int | None, longest: int) -> int:
    """Choose the bases of a window.

    Raises:
        InputError: The user asks for more than the checkpoint was trained on.
    """
    if context is not None and context > longest:
        raise InputError(
            f"{source.name}: --context {context}: allowed are 1 to {longest} bases, which it was "
            "trained on"
        )
    return context or min(longest, _CONTEXT)


def fill_striped(
    network: StripedHyena, source: Source, weights: Mapping[str, Tensor], *, tied: bool
) -> None:
    """Fill a network from weights with its own names; a tied head may be left out or repeated.

    Raises:
        InputError: Keys or shapes do not fit, or the head is not the table it should be.
    """
    words, head = (weights.get(x) for x in ("embedding_layer.weight", "unembed.weight"))
    if tied and words is not None and head is not None and not torch.equal(words, head):
        raise InputError(
            f"{source.name}: unembed.weight differs from embedding_layer.weight, but the config "
            "says tie_embeddings; fetch config and weights of one checkpoint"
        )
    ties = ((r"unembed\.weight", "embedding_layer.weight"),) if tied else ()
    fill(network, replace(source, weights=weights), Keys(ignore=KEYS.ignore, ties=ties))


def card_of(window: int, prefix: tuple[int, ...]) -> dict[str, Any]:
    """List the facts of a card: bytes, [EOD] 0 that may stand in front, [PAD] 1."""
    return {
        "encoder": {"kind": "bytes", "vocab": {"pad_id": 1, "prefix": prefix}},
        "context": window,
        "anchor": window // 2,
        "logits_shift": 1,
        "strand": "both",
        "scores": ("LLR", "EMB_COS"),
    }
