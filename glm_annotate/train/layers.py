"""Blocks that three or more systems share; names of parameters are those of official checkpoints.

Shapes: B windows, T rows, D width, H heads, d = D / H. Nothing here depends on a length that was
seen when a graph was traced: position tables are computed in the graph. No padding and no mask
either: a batch holds windows of one number of rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Turn rows (B, T, H d) into heads (B, H, T, d)."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """Turn heads (B, H, T, d) into rows (B, T, H d)."""
    return x.transpose(1, 2).flatten(2)


def attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention of heads (B, H, T, d).

    Args:
        query: What each row asks.
        key: What each row offers.
        value: What each row gives.
        bias: Added to the scores, broadcast to (B, H, T, T).

    Returns:
        Heads (B, H, T, d) and the attention maps (B, H, T, T).
    """
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    maps = torch.softmax(scores if bias is None else scores + bias, dim=-1)
    return maps @ value, maps


def causal_bias(rows: int, device: torch.device) -> Tensor:
    """Make the bias (T, T) that hides what comes later."""
    place = torch.arange(rows, device=device)
    hidden = place[None, :] > place[:, None]
    return torch.where(hidden, torch.finfo(torch.float32).min, 0.0)


def rotary_table(
    rows: int,
    dim: int,
    base: float = 10000.0,
    scale: float = 1.0,
    device: torch.device | None = None,
) -> Tensor:
    """Compute angles (T, dim / 2): position / scale times base^(-2 i / dim)."""
    exponent = -torch.arange(0, dim, 2, dtype=torch.float32, device=device) / dim
    place = torch.arange(rows, dtype=torch.float32, device=device) / scale
    return place[:, None] * base**exponent


def rotate_halves(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate pairs (i, i + d/2) of heads (B, H, T, d) by angles (T, d / 2)."""
    left, right = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


class SelfAttention(nn.Module):
    """BERT's attention before its output projection, with its names: query, key, value."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))

    def forward(
        self, x: Tensor, bias: Tensor | None = None, angles: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Let rows (B, T, D) attend to each other; returns rows and maps (B, H, T, T).

        Args:
            x: Rows.
            bias: Added to the scores, see `attention`.
            angles: Rotation of queries and keys, see `rotate_halves`; may cover only the first
                part of each head, the rest then stays.
        """
        query, key, value = (
            split_heads(part(x), self.heads) for part in (self.query, self.key, self.value)
        )
        if angles is not None:
            query, key = rotate_first(query, angles), rotate_first(key, angles)
        out, maps = attention(query, key, value, bias)
        return merge_heads(out), maps


def rotate_first(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate the first 2 x angles.shape[-1] dimensions of heads (B, H, T, d)."""
    turned = 2 * angles.shape[-1]
    if turned == x.shape[-1]:
        return rotate_halves(x, angles)
    return torch.cat([rotate_halves(x[..., :turned], angles), x[..., turned:]], dim=-1)


class Projection(nn.Module):
    """BERT's `output`: a linear layer whose result is added to the residual and normalised."""

    def __init__(self, wide: int, dim: int, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(wide, dim)
        self.LayerNorm = nn.LayerNorm(dim, eps=eps)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Project rows (B, T, wide) and add them to `residual` (B, T, D)."""
        out: Tensor = self.LayerNorm(self.dense(x) + residual)
        return out


class PostNormLayer(nn.Module):
    """BERT's layer, norms after the residuals, with the names of transformers' checkpoints."""

    def __init__(
        self, dim: int, heads: int, hidden: int, eps: float, *, activation: str = "none"
    ) -> None:
        """Make a layer; `activation`: gelu's `approximate`, `none` (erf) or `tanh`."""
        super().__init__()
        self.activation = activation
        self.attention = nn.ModuleDict(
            {"self": SelfAttention(dim, heads), "output": Projection(dim, dim, eps)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(dim, hidden)})
        self.output = Projection(hidden, dim, eps)

    def forward(
        self, x: Tensor, bias: Tensor | None = None, angles: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Update rows (B, T, D); returns them and the attention maps (B, H, T, T)."""
        attended, maps = self.attention["self"](x, bias, angles)
        x = self.attention["output"](attended, x)
        wide = functional.gelu(self.intermediate["dense"](x), approximate=self.activation)
        return self.output(wide, x), maps


class Embeddings(nn.Module):
    """BERT's embeddings: word + position + token type 0, normalised.

    Attributes:
        positions: Rows of the table of learned positions; 0 for none.
    """

    def __init__(
        self, vocabulary: int, dim: int, eps: float, *, positions: int = 0, types: int = 2
    ) -> None:
        super().__init__()
        self.positions = positions
        self.word_embeddings = nn.Embedding(vocabulary, dim)
        if positions:
            self.position_embeddings = nn.Embedding(positions, dim)
        self.token_type_embeddings = nn.Embedding(types, dim)
        self.LayerNorm = nn.LayerNorm(dim, eps=eps)

    def forward(self, rows: Tensor) -> Tensor:
        """Embed ids (B, T) as rows (B, T, D)."""
        x = self.word_embeddings(rows) + self.token_type_embeddings.weight[0]
        if self.positions:
            x = x + self.position_embeddings(torch.arange(rows.shape[1], device=rows.device))
        out: Tensor = self.LayerNorm(x)
        return out


class Transform(nn.Module):
    """The first half of BERT's masked-language head: linear, GELU, norm."""

    def __init__(self, dim: int, eps: float, *, activation: str = "none") -> None:
        super().__init__()
        self.activation = activation
        self.dense = nn.Linear(dim, dim)
        self.LayerNorm = nn.LayerNorm(dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Transform rows (B, T, D)."""
        out: Tensor = self.LayerNorm(functional.gelu(self.dense(x), approximate=self.activation))
        return out


class MaskedHead(nn.Module):
    """BERT's masked-language head: `transform`, then `decoder`."""

    def __init__(self, dim: int, vocabulary: int, eps: float, *, activation: str = "none") -> None:
        super().__init__()
        self.transform = Transform(dim, eps, activation=activation)
        self.decoder = nn.Linear(dim, vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        """Turn rows (B, T, D) into logits (B, T, V)."""
        logits: Tensor = self.decoder(self.transform(x))
        return logits
