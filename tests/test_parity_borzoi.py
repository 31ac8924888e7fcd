"""Borzoi, Flashzoi and Prime against borzoi-pytorch 0.5.1, and mini-Borzoi against TensorFlow.

The modules of borzoi-pytorch are imported one by one, without its readers of genes. Flashzoi wants
flash-attn, which wants a GPU: `Grouped` stands for its attention, written from its documentation.
The widths of the convolutions are fixed there, windows are short instead.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
import types

import numpy as np
import pytest
import torch
from parity_kit import ONNX_LIMIT, PUBLIC_LIMIT, randomise, worst
from torch import nn

from glm_annotate.train import graph
from glm_annotate.train.families.borzoi import FAMILY
from glm_annotate.train.families.family import Source

# The widths of convolutions make each of these a matter of half a minute on one core.
pytestmark = [
    pytest.mark.parity,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
REFERENCE = "borzoi-pytorch 0.5.1"
SMALL = {"dim": 1536, "depth": 2, "enable_mouse_head": True}


class Grouped(nn.Module):
    """Attention as flash-attn's MHA has it: four keys for eight heads, and rotary positions."""

    def __init__(self, embed_dim, num_heads, num_heads_kv, rotary_emb_dim, rotary_emb_base, **rest):
        super().__init__()
        assert (rest["qkv_proj_bias"], rest["out_proj_bias"], rest["causal"]) == (True, True, False)
        self.heads, self.keys, self.width = num_heads, num_heads_kv, embed_dim // num_heads
        self.scale = rest["softmax_scale"]
        self.rotary = rotary_emb_dim, rotary_emb_base
        self.Wqkv = nn.Linear(embed_dim, self.width * (num_heads + 2 * num_heads_kv))
        self.out_proj = nn.Linear(embed_dim, embed_dim)

    def turn(self, x: torch.Tensor, place: int) -> torch.Tensor:
        size, base = self.rotary
        out = x.clone()
        for i in range(size // 2):
            angle = place * base ** (-2 * i / size)
            one, two = x[..., i], x[..., i + size // 2]
            out[..., i] = one * math.cos(angle) - two * math.sin(angle)
            out[..., i + size // 2] = two * math.cos(angle) + one * math.sin(angle)
        return out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.Wqkv(x).reshape(*x.shape[:2], self.heads + 2 * self.keys, self.width)
        turned = self.heads + self.keys
        rows = [self.turn(parts[:, t, :turned], t) for t in range(x.shape[1])]
        query, key = torch.stack(rows, 1).split([self.heads, self.keys], 2)
        value = parts[:, :, turned:]
        out = []
        for head in range(self.heads):
            shared = head * self.keys // self.heads
            scores = torch.einsum("bid,bjd->bij", query[:, :, head], key[:, :, shared])
            weights = (scores * self.scale).softmax(-1)
            out.append(torch.einsum("bij,bjd->bid", weights, value[:, :, shared]))
        return self.out_proj(torch.cat(out, -1))


@pytest.fixture
def modeling(monkeypatch):
    for name in ("transformers", "einops", "pandas"):
        pytest.importorskip(name)
    found = importlib.util.find_spec("borzoi_pytorch")
    if found is None:
        pytest.skip("borzoi-pytorch is not installed")
    package = types.ModuleType("borzoi_pytorch")
    package.__path__ = list(found.submodule_search_locations)
    monkeypatch.setitem(sys.modules, "borzoi_pytorch", package)
    found = importlib.import_module("borzoi_pytorch.pytorch_borzoi_model")
    # Not before: transformers asks for flash-attn's version while it is imported.
    for name in ("flash_attn", "flash_attn.modules", "flash_attn.modules.mha"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["flash_attn.modules.mha"].MHA = Grouped
    yield found
    for name in [name for name in sys.modules if name.startswith("borzoi_pytorch.")]:
        sys.modules.pop(name)


@torch.no_grad()
def make(kind, **values):
    """With random weights; nothing is left at zero, the output of attention least of all."""
    made = randomise(kind.from_hparams(**SMALL | values), seed=4)
    generator = torch.Generator().manual_seed(5)
    for name, value in made.named_buffers():
        if name.endswith("running_mean"):
            value.copy_(0.3 * torch.randn(value.shape, generator=generator))
        elif name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return made


def source_of(made, **config) -> Source:
    return Source("borzoi", dict(made.state_dict()), {**made.config.to_dict(), **config})


def bases(batch: int, length: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).integers(4, size=(batch, length)).astype(np.uint8)
    rows[:, 5:9] = 4
    return rows


@torch.no_grad()
def public(made, rows: np.ndarray, head: str = "human") -> np.ndarray:
    table = torch.cat([torch.eye(4), torch.zeros(1, 4)])
    found = made(table[torch.from_numpy(rows).long()].transpose(1, 2), is_human=head == "human")
    return found.transpose(1, 2).numpy()


def compare(made, official, head, tmp_path, record_property, variant, length=2048):
    assert [x.recognise(source_of(made)) for x in FAMILY.official].count(True) == 1
    assert official.recognise(source_of(made))
    network = official.load(source_of(made, head=head), length).networks[0]
    windows = [bases(batch, length, batch) for batch in (1, 2, 3)]
    found = [graph.run_torch(network, rows)["tracks"] for rows in windows]
    ours = max(worst(x, public(made, rows, head)) for x, rows in zip(found, windows, strict=True))
    network.select([5, 0, 1001])
    path = tmp_path / "model.onnx"
    graph.write_graph(network, path, "fp32")
    run = [x["tracks"] for x in graph.run_graph(path, windows)]
    onnx = max(worst(x, y[..., [5, 0, 1001]]) for x, y in zip(run, found, strict=True))
    record_property("parity", ["Borzoi", variant, REFERENCE, ours, onnx, "-", 0])
    assert ours <= PUBLIC_LIMIT
    assert onnx <= ONNX_LIMIT


@pytest.mark.parametrize("head", ["human", "mouse"])
def test_borzoi(modeling, tmp_path, record_property, head):
    made = make(modeling.Borzoi, bins_to_return=38)
    compare(made, FAMILY.official[0], head, tmp_path, record_property, f"PyTorch, {head}")


def test_flashzoi(modeling, tmp_path, record_property):
    made = make(modeling.Borzoi, flashed=True, bins_to_return=38)
    compare(made, FAMILY.official[1], "human", tmp_path, record_property, "Flashzoi")


def test_prime(modeling, tmp_path, record_property):
    made = make(modeling.Prime, bins_to_return=70)
    compare(made, FAMILY.official[0], "human", tmp_path, record_property, "PyTorch, 16 bases")


def test_mini_borzoi(shared_dir, tmp_path, record_property):
    pytest.importorskip("h5py")
    from glm_annotate.train.keras_h5 import read_weights

    folder = shared_dir / "models" / "mini_borzoi"
    source = Source("mini", read_weights(folder / "model.h5"), {}, folder)
    network = FAMILY.official[2].load(source, None).networks[0]
    with np.load(folder / "golden_window.npz") as golden:
        x, wanted = golden["x"][0], golden["y"]
    rows = np.where(x.any(1), x.argmax(1), 4).astype(np.uint8)[None]
    found = graph.run_torch(network, rows)["tracks"]
    path = tmp_path / "model.onnx"
    graph.write_graph(network, path, "fp32")
    run = graph.run_graph(path, [rows, np.repeat(rows, 2, 0)])
    ours, onnx = worst(found, wanted), max(worst(y["tracks"][-1:], found) for y in run)
    record_property(
        "parity",
        ["Borzoi", "Keras, mini-Borzoi", "baskerville, trained weights", ours, onnx, "-", 0],
    )
    # Against TensorFlow the limit is absolute: coverage reaches 25.
    assert np.abs(found - wanted).max() <= 1e-4
    assert np.abs(run[0]["tracks"] - wanted).max() <= 1e-4
    assert onnx <= ONNX_LIMIT
