"""The parts of C.Origami: encoders of sequence and signals, attention between bins, 2-D decoder.

Written from a description of the published network; its code has no licence and was not used. The
names of parameters are those of its checkpoints. Shapes: B windows, L bases, C channels, N bins,
D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from glm_annotate.train.layers import attention, merge_heads, split_heads

BASES, SIGNALS = 5, 2  # the four and N; CTCF and ATAC
_START, _KERNEL, _SQUARE = 3, 5, 3  # taps of the first layer, of the blocks, and sides in 2-D


class Shrink(nn.Module):
    """Halve the positions, then refine: two convolutions around which the first one's result goes.

    `scale` is convolution, norm, ReLU; `res` convolution, norm, ReLU, convolution, norm.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        pad = _KERNEL // 2
        self.scale = nn.Sequential(
            nn.Conv1d(before, after, _KERNEL, stride=2, padding=pad),
            nn.BatchNorm1d(after),
            nn.ReLU(),
        )
        self.res = nn.Sequential(
            nn.Conv1d(after, after, _KERNEL, padding=pad),
            nn.BatchNorm1d(after),
            nn.ReLU(),
            nn.Conv1d(after, after, _KERNEL, padding=pad),
            nn.BatchNorm1d(after),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Turn (B, C, L) into (B, C', L / 2)."""
        x = self.scale(x)
        return functional.relu(self.res(x) + x)


class Encoder(nn.Module):
    """Two stacks of the same shape, one over bases and one over signals, joined bin by bin."""

    def __init__(self, first: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.conv_start_seq, self.conv_start_epi = _start(BASES, first), _start(SIGNALS, first)
        self.res_blocks_seq, self.res_blocks_epi = _stack(first, widths), _stack(first, widths)
        self.conv_end = nn.Conv1d(2 * widths[-1], 2 * widths[-1], 1)

    def forward(self, bases: Tensor, signals: Tensor) -> Tensor:
        """Turn bases (B, 5, L) and signals (B, 2, L) into bins (B, D, N)."""
        of_bases = self.res_blocks_seq(self.conv_start_seq(bases))  # (B, D / 2, N)
        of_signals = self.res_blocks_epi(self.conv_start_epi(signals))
        out: Tensor = self.conv_end(torch.cat([of_bases, of_signals], dim=1))
        return out


def _start(channels: int, width: int) -> nn.Sequential:
    conv = nn.Conv1d(channels, width, _START, stride=2, padding=_START // 2)
    return nn.Sequential(conv, nn.BatchNorm1d(width), nn.ReLU())


def _stack(first: int, widths: Sequence[int]) -> nn.Sequential:
    pairs = zip((first, *widths[:-1]), widths, strict=True)
    return nn.Sequential(*(Shrink(before, after) for before, after in pairs))


class SelfAttention(nn.Module):
    """Attention with the names of `torch.nn.MultiheadAttention`."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor) -> Tensor:
        """Let bins (B, N, D) attend to each other."""
        parts = functional.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        query, key, value = (split_heads(part, self.heads) for part in parts)
        mixed, _ = attention(query, key, value)
        out: Tensor = self.out_proj(merge_heads(mixed))
        return out


class Layer(nn.Module):
    """A transformer layer whose norms come before attention and feed-forward."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(dim, heads)
        self.linear1, self.linear2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Update bins (B, N, D)."""
        x = x + self.self_attn(self.norm1(x))
        out: Tensor = x + self.linear2(functional.relu(self.linear1(self.norm2(x))))
        return out


class Positions(nn.Module):
    """What the published network adds as position: the row of position 0, to every bin.

    It takes the axis of windows for that of positions, so that a window gets the row of its place
    in the batch. Its authors predict one window at a time, which is row 0; so does this.
    """

    pe: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        # sin 0 and cos 0 in turn.
        self.register_buffer("pe", (torch.arange(dim) % 2).float()[None, None])  # (1, 1, D)

    def forward(self, x: Tensor) -> Tensor:
        """Add it to bins (B, N, D)."""
        return x + self.pe


class Transformer(nn.Module):
    """The layers, one after the other, without a norm at the end."""

    def __init__(self, dim: int, layers: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(dim, heads, hidden) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """Update bins (B, N, D)."""
        for layer in self.layers:
            x = layer(x)
        return x


class Attention(nn.Module):
    """Positions and the transformer."""

    def __init__(self, dim: int, layers: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.pos_encoder = Positions(dim)
        self.module = Transformer(dim, layers, heads, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Update bins (B, D, N)."""
        out: Tensor = self.module(self.pos_encoder(x.transpose(1, 2)))
        return out.transpose(1, 2)


def pair_bins(x: Tensor) -> Tensor:
    """Turn bins (B, D, N) into pairs (B, 2 D, N, N): at (p, q) bin q, then bin p."""
    bins = x.shape[-1]
    of_column = x[:, :, None, :].expand(-1, -1, bins, -1)
    of_row = x[:, :, :, None].expand(-1, -1, -1, bins)
    return torch.cat([of_column, of_row], dim=1)


class Dilated(nn.Module):
    """Two dilated convolutions and what went in."""

    def __init__(self, dim: int, dilation: int) -> None:
        super().__init__()
        self.res = nn.Sequential(
            _square(dim, dim, dilation),
            nn.BatchNorm2d(dim),
            nn.ReLU(),
            _square(dim, dim, dilation),
            nn.BatchNorm2d(dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Update maps (B, D, N, N)."""
        return functional.relu(self.res(x) + x)


class Decoder(nn.Module):
    """From pairs of bins to one number each."""

    def __init__(self, dim: int, dilations: Sequence[int]) -> None:
        super().__init__()
        start = _square(2 * dim, dim, 1)
        self.conv_start = nn.Sequential(start, nn.BatchNorm2d(dim), nn.ReLU())
        self.res_blocks = nn.Sequential(*(Dilated(dim, x) for x in dilations))
        self.conv_end = nn.Conv2d(dim, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Turn pairs (B, 2 D, N, N) into a map (B, N, N)."""
        out: Tensor = self.conv_end(self.res_blocks(self.conv_start(x)))
        return out[:, 0]


def _square(before: int, after: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, _SQUARE, padding=dilation, dilation=dilation)
