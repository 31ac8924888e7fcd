"""The recurrence of a selective state space (Mamba), in a form that ONNX Runtime computes.

Each channel i of a row x_t keeps N numbers h, which decay and take in the row:

    h_t[n, i] = exp(delta_t[i] A[i, n]) h_{t-1}[n, i] + delta_t[i] x_t[i] B_t[n]
    y_t[i] = sum over n of C_t[n] h_t[n, i]

The rule: one row after another, with only the state kept. In a graph this is ONNX's Scan (the CPU
and the CUDA provider have it) over a body of six operators, and any number of rows will do; in
torch it is a loop over the same step. Measured on ONNX Runtime 1.31 with one CPU thread, 512
channels, N = 16: 7 microseconds a row at any length. Doubling (Hillis and Steele) does log2(T)
times the arithmetic and keeps T x N x 512 numbers, and took 30 times as long for 1,024 and for
4,096 rows. Blocks that run side by side, so that 256 steps do for 8,192 rows, took 4 times as
long. Quotients of cumulated decays would be cheapest and are wrong: after a few hundred rows the
decay is below the smallest float.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# What one step reads: delta (B, 1, I), delta x (B, 1, I), B (B, N, 1) and C (B, 1, N).
_Step = tuple[Tensor, Tensor, Tensor, Tensor]


def selective_scan(x: Tensor, delta: Tensor, rates: Tensor, write: Tensor, read: Tensor) -> Tensor:
    """Run the recurrence from a state of zeros, and give y, shape (B, T, I).

    Args:
        x: Rows, shape (B, T, I).
        delta: Step sizes, above 0, shape (B, T, I).
        rates: The matrix A, below 0, shape (I, N).
        write: What each row adds to the states (the matrix B), shape (B, T, N).
        read: How each row reads them (the matrix C), shape (B, T, N).
    """
    if torch.compiler.is_exporting():
        # The exporter would follow gradients into the Scan, and fail.
        x, delta, rates, write, read = (part.detach() for part in (x, delta, rates, write, read))
    decay = rates.T.contiguous()

    def step(state: Tensor, now: _Step) -> tuple[Tensor, Tensor]:
        size, taken, into, out = now
        state = torch.exp(size * decay) * state + into * taken
        return state, out @ state

    rows = (
        _by_row(delta)[:, :, None],
        _by_row(delta * x)[:, :, None],
        _by_row(write)[..., None],
        _by_row(read)[:, :, None],
    )
    start = x.new_zeros(x.shape[0], *decay.shape)
    found = _scan(step, start, rows) if torch.compiler.is_exporting() else _loop(step, start, rows)
    return found[:, :, 0].transpose(0, 1)


def _by_row(x: Tensor) -> Tensor:
    """Put rows first, (B, T, ...) to (T, B, ...), in memory too: the exporter asks for it."""
    return x.transpose(0, 1).contiguous()


def _scan(step: Any, state: Tensor, rows: _Step) -> Tensor:
    """Leave the loop to the graph; gives y, shape (T, B, 1, I)."""
    from torch._higher_order_ops.scan import scan

    found: Tensor = scan(step, state, rows, dim=0)[1]
    return found


def _loop(step: Any, state: Tensor, rows: _Step) -> Tensor:
    """Do the loop here; gives y, shape (T, B, 1, I)."""
    found = []
    for now in zip(*rows, strict=True):
        state, y = step(state, now)
        found.append(y)
    return torch.stack(found)
