"""Causal convolution with filters as long as the window, in real arithmetic.

Graphs for ONNX Runtime can hold no FFT (its operator runs on the CPU alone) and no complex
numbers, so that the transform is Bailey's four-step one written as products of real matrices:
n = N2 n1 + n2 and k = k1 + N1 k2 split a transform of N = N1 N2 points into one over n1, a
multiplication by twiddle factors and one over n2. Rows are real, so that the frequencies with
k1 > N1 / 2 are conjugates of others and are neither computed nor stored: the transformed filters
take about N floats a channel. All constants are computed in float64 and kept in float32.

Filters of few taps are faster as the plain sum, see `DIRECT_TAPS`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

# Up to this many taps the depthwise convolution of ONNX Runtime is faster than the transform: they
# meet near 50 taps at windows of 64 rows and near 80 at windows of 8192 (one CPU thread).
DIRECT_TAPS = 64
# Channels transformed at once when the constants are made: bounds the complex128 intermediates.
_CHANNELS = 64


def convolve_directly(x: Tensor, filters: Tensor) -> Tensor:
    """Convolve causally in float64, tap by tap: what every faster form is tested against.

    Args:
        x: Rows, shape (B, D, T).
        filters: Taps, shape (D, L); tap 0 weighs the current position.
    """
    x, filters = x.double(), filters.double()
    out = torch.zeros_like(x)
    for lag in range(min(x.shape[-1], filters.shape[-1])):
        out[..., lag:] += filters[:, lag, None] * x[..., : x.shape[-1] - lag]
    return out


def convolve_by_fft(x: Tensor, taps: Tensor) -> Tensor:
    """Convolve rows (B, D, T) causally with taps (D, T): for training, no graph can hold it."""
    rows, kind = x.shape[-1], torch.promote_types(x.dtype, torch.float32)  # not in bfloat16
    product = torch.fft.rfft(x.to(kind), n=2 * rows) * torch.fft.rfft(taps.to(kind), n=2 * rows)
    out: Tensor = torch.fft.irfft(product, n=2 * rows)[..., :rows]
    return out.to(x.dtype)


def split_size(length: int) -> tuple[int, int]:
    """Choose N1 (even) and N2 (a multiple of 8) with N1 N2 >= `length` and least arithmetic.

    A real transform there and back takes N (N1 + 4 N2) multiplications a channel.
    """
    choices = []
    for second in range(8, max(9, math.isqrt(4 * length)), 8):
        first = 2 * math.ceil(length / (2 * second))
        choices.append((first * second * (first + 4 * second), first, second))
    _, first, second = min(choices)
    return first, second


class LongConvolution(nn.Module):
    """Causal depthwise convolution (B, D, T) to (B, D, T), exact for every T up to `window`.

    Attributes:
        window: Most rows that it takes.
        direct: Whether it is the plain sum.
    """

    taps: Tensor
    first_in: Tensor
    first_out: Tensor
    second_in: Tensor
    second_out: Tensor
    twiddle_real: Tensor
    twiddle_imag: Tensor
    filters_real: Tensor
    filters_imag: Tensor

    def __init__(self, filters: Tensor, window: int) -> None:
        """Prepare filters of shape (D, L); tap 0 weighs the current position.

        Taps from `window` on can never be reached and are dropped; filters may also be shorter
        than the window.
        """
        super().__init__()
        self.window = window
        taps = filters.detach().double()[:, :window]
        self.direct = taps.shape[1] <= DIRECT_TAPS
        if self.direct:
            self._keep("taps", taps.flip(1)[:, None])
        else:
            self._transform(taps)

    def _keep(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value.float().contiguous(), persistent=False)

    def _transform(self, taps: Tensor) -> None:
        first, second = split_size(self.window + taps.shape[1] - 1)
        size, kept = first * second, first // 2 + 1
        self.second, self.rows = second, math.ceil(self.window / second)
        k1, n1 = torch.arange(kept), torch.arange(self.rows)
        places = torch.arange(second)
        forward = _roots(k1[:, None] * n1, first)  # (K1, R)
        weight = torch.full((kept,), 2.0 / size, dtype=torch.float64)
        weight[0] = weight[-1] = 1.0 / size  # k1 = 0 and N1 / 2 have no conjugate
        inner = _roots(places[:, None] * places, second)  # (N2, N2)
        twiddle = _roots(k1[:, None] * places, size)  # (K1, N2)
        backward = forward.conj().T * weight
        self._keep("first_in", torch.cat([forward.real, forward.imag]))
        self._keep("second_in", _as_real_matrix(inner))
        self._keep("second_out", _as_real_matrix(inner.conj()))
        self._keep("first_out", torch.cat([backward.real, -backward.imag], dim=1))
        self._keep("twiddle_real", twiddle.real)
        self._keep("twiddle_imag", twiddle.imag)
        spectra = [_spectrum(part, first, second, kept) for part in torch.split(taps, _CHANNELS)]
        self._keep("filters_real", torch.cat([part.real.float() for part in spectra]))
        self._keep("filters_imag", torch.cat([part.imag.float() for part in spectra]))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve rows (B, D, T), T up to `window`."""
        if self.direct:
            padded = functional.pad(x, (self.taps.shape[-1] - 1, 0))
            return functional.conv1d(padded, self.taps, groups=x.shape[1])
        batch, channels, length = x.shape
        padded = functional.pad(x, (0, self.rows * self.second - length))
        cells = padded.view(batch, channels, self.rows, self.second)
        real, imag = (self.first_in @ cells).chunk(2, dim=-2)  # (B, D, K1, N2) each
        real, imag = _times(real, imag, self.twiddle_real, self.twiddle_imag)
        real, imag = (torch.cat([real, imag], dim=-1) @ self.second_in).chunk(2, dim=-1)
        real, imag = _times(real, imag, self.filters_real, self.filters_imag)
        real, imag = (torch.cat([real, imag], dim=-1) @ self.second_out).chunk(2, dim=-1)
        real, imag = _times(real, imag, self.twiddle_real, -self.twiddle_imag)
        out = self.first_out @ torch.cat([real, imag], dim=-2)  # (B, D, R, N2)
        return out.flatten(2)[..., :length]


def _roots(power: Tensor, order: int) -> Tensor:
    """Compute exp(-2 pi i power / order), complex128; the power is reduced while it is exact."""
    angle = -2 * math.pi * (power % order).double() / order
    return torch.polar(torch.ones_like(angle), angle)


def _as_real_matrix(inner: Tensor) -> Tensor:
    """Turn a complex matrix into the real one (2 N, 2 N) that acts on rows [real, imaginary]."""
    upper = torch.cat([inner.real, inner.imag], dim=1)
    return torch.cat([upper, torch.cat([-inner.imag, inner.real], dim=1)])


def _spectrum(taps: Tensor, first: int, second: int, kept: int) -> Tensor:
    """Transform taps (D, L) and lay them out as (D, K1, N2): frequency k1 + N1 k2."""
    found: Tensor = torch.fft.fft(taps, n=first * second)
    return found.view(-1, second, first).transpose(1, 2)[:, :kept]


def _times(real: Tensor, imag: Tensor, by_real: Tensor, by_imag: Tensor) -> tuple[Tensor, Tensor]:
    """Multiply complex numbers given as two tensors each."""
    return real * by_real - imag * by_imag, real * by_imag + imag * by_real
