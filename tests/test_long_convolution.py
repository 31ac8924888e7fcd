"""The long convolution: what it computes and stores, and that it can be exported."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from glm_annotate.train import graph, long_convolution
from glm_annotate.train.families.family import Network
from glm_annotate.train.long_convolution import (
    DIRECT_TAPS,
    LongConvolution,
    convolve_by_fft,
    convolve_directly,
    split_size,
)

# (window, taps): the transform with as many, fewer and more taps than rows, odd sizes among them.
SIZES = [(65, 65), (300, 300), (301, 97), (130, 400), (1000, 1000)]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def by_numpy(x: torch.Tensor, taps: torch.Tensor) -> np.ndarray:
    """numpy's convolution, channel by channel, cut to the rows that are there."""
    out = np.empty(x.shape)
    for b, d in np.ndindex(*x.shape[:2]):
        out[b, d] = np.convolve(x[b, d].numpy(), taps[d].numpy())[: x.shape[2]]
    return out


@pytest.mark.parametrize("direct_taps", [0, DIRECT_TAPS])
def test_three_taps_by_hand(monkeypatch, direct_taps):
    monkeypatch.setattr(long_convolution, "DIRECT_TAPS", direct_taps)
    made = LongConvolution(torch.tensor([[1.0, 2.0, 3.0]]), 4)
    assert made.direct == (direct_taps > 0)
    # 1; 2 + 0; 3 + 0 + 2; 0 + 4 + 5.
    out = made(torch.tensor([[[1.0, 0.0, 2.0, 5.0]]]))
    torch.testing.assert_close(out, torch.tensor([[[1.0, 2.0, 5.0, 9.0]]]))


def test_the_direct_form_is_numpy_s_convolution():
    x, taps = draw(2, 3, 20), draw(3, 50, seed=1)
    np.testing.assert_allclose(convolve_directly(x, taps).numpy(), by_numpy(x, taps), atol=1e-12)


def test_the_form_for_training_is_numpy_s_convolution():
    x, taps = draw(2, 3, 21), draw(3, 21, seed=1)
    np.testing.assert_allclose(convolve_by_fft(x, taps).numpy(), by_numpy(x, taps), atol=1e-12)
    half = convolve_by_fft(x.bfloat16(), taps.bfloat16())
    assert half.dtype == torch.bfloat16
    np.testing.assert_allclose(half.float().numpy(), by_numpy(x, taps), atol=0.2)


@pytest.mark.parametrize(("window", "taps"), [(40, 40), (64, 64), *SIZES])
def test_every_number_of_rows_up_to_the_window(window, taps):
    filters = draw(3, taps, seed=1)
    made = LongConvolution(filters, window)
    assert made.direct == (min(window, taps) <= DIRECT_TAPS)
    for rows in sorted({1, 2, window // 3, window - 1, window}):
        x = draw(2, 3, rows, seed=rows).float()
        wanted = by_numpy(x.double(), filters)
        found = made(x)
        assert found.dtype == torch.float32
        assert np.abs(found.numpy() - wanted).max() <= 2e-6 * max(1.0, np.abs(wanted).max())


def test_no_row_knows_what_comes_after_it():
    made = LongConvolution(draw(2, 200), 200)
    x = draw(1, 2, 200, seed=1).float()
    after = x.clone()
    after[..., 120:] += 3
    before, changed = made(x), made(after)
    # Not bit for bit: rounding in a transform is shared by all rows.
    torch.testing.assert_close(changed[..., :120], before[..., :120], rtol=0, atol=3e-5)
    assert float((changed - before)[..., 120].abs().min()) > 0.1


@pytest.mark.parametrize("length", [129, 2048, 2051, 16384, 65535])
def test_the_split_is_the_cheapest_of_its_kind(length):
    first, second = split_size(length)
    assert first * second >= length
    assert first % 2 == 0
    assert second % 8 == 0
    every = [(2 * math.ceil(length / (2 * n)), n) for n in range(8, length + 8, 8)]
    assert first * second * (first + 4 * second) == min(a * b * (a + 4 * b) for a, b in every)


def test_what_is_stored():
    window, channels = 4096, 8
    made = LongConvolution(draw(channels, window), window)
    assert made.state_dict() == {}
    spectra = made.filters_real.numel() + made.filters_imag.numel()
    # Two windows of floats a channel: half of a complex transform that fits the convolution.
    assert spectra <= 1.1 * 2 * window * channels
    shared = sum(x.numel() for x in made.buffers()) - spectra
    assert shared <= 20 * window
    assert {x.dtype for x in made.buffers()} == {torch.float32}


class Probe(Network):
    """Three numbers for each of five ids, convolved."""

    def __init__(self, long: LongConvolution) -> None:
        super().__init__()
        self.dim, self.vocabulary, self.max_rows = 3, 5, long.window
        self.table = torch.nn.Embedding.from_pretrained(draw(5, 3, seed=7).float())
        self.long = long

    def embed(self, rows):
        return self.long(self.table(rows).transpose(1, 2)).transpose(1, 2)

    def decode(self, embedding):
        return embedding @ self.table.weight.T


@pytest.mark.parametrize(("window", "taps"), [(50, 50), (150, 150), (150, 100)])
def test_trap_graph_takes_other_shapes(tmp_path: Path, window, taps):
    filters, path = draw(3, taps, seed=1), tmp_path / "probe.onnx"
    network = Probe(LongConvolution(filters, window)).eval()
    graph.write_graph(network, path, "fp32")
    shapes = ((1, 1), (5, 19), (1, window))
    batches = [np.random.default_rng(i).integers(5, size=x) for i, x in enumerate(shapes)]
    for rows, found in zip(batches, graph.run_graph(path, batches), strict=True):
        x = network.table.weight[torch.from_numpy(rows)].double().transpose(1, 2)
        wanted = by_numpy(x, filters).swapaxes(1, 2)
        assert np.abs(found["embedding"] - wanted).max() <= 2e-6 * max(1.0, np.abs(wanted).max())
