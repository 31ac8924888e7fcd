"""The selective scan against its definition in float64, in torch and as an ONNX graph."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
import torch

from glm_annotate.train import graph
from glm_annotate.train.families.family import Network
from glm_annotate.train.selective_scan import selective_scan

torch.set_num_threads(1)


def inputs(batch, rows, channels=6, states=3, seed=0, spread=0.3):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    delta = torch.nn.functional.softplus(normal(batch, rows, channels) - 2)
    rates = -torch.exp(spread * normal(channels, states))
    write, read = normal(batch, rows, states), normal(batch, rows, states)
    return normal(batch, rows, channels), delta, rates, write, read


def by_definition(x, delta, rates, write, read):
    """Number by number, in Python's own floats."""
    batch, rows, channels = x.shape
    found = np.zeros((batch, rows, channels))
    for b in range(batch):
        for i in range(channels):
            for n, rate in enumerate(rates[i].tolist()):
                state = 0.0
                for t in range(rows):
                    size = float(delta[b, t, i])
                    state *= math.exp(size * rate)
                    state += size * float(x[b, t, i]) * float(write[b, t, n])
                    found[b, t, i] += float(read[b, t, n]) * state
    return found


def test_by_hand():
    """One channel, one state, decay a half: y = 1 x 2, then (2/2 + 3) x 10."""
    half = -math.log(2)
    found = selective_scan(
        torch.tensor([[[1.0], [3.0]]]), torch.ones(1, 2, 1), torch.tensor([[half]]),
        torch.tensor([[[2.0], [1.0]]]), torch.tensor([[[1.0], [10.0]]]),
    )  # fmt: skip
    assert found.flatten().tolist() == pytest.approx([2.0, 40.0], rel=1e-6)


@pytest.mark.parametrize(("batch", "rows"), [(1, 1), (3, 17), (2, 150)])
def test_definition(batch, rows):
    values = inputs(batch, rows)
    found = selective_scan(*values).numpy()
    assert found == pytest.approx(by_definition(*values), rel=1e-5, abs=1e-5)


def test_a_row_depends_on_none_after_it():
    values = inputs(1, 20)
    whole = selective_scan(*values)
    first = selective_scan(*(v[:, :9] if v.ndim == 3 else v for v in values))
    assert torch.equal(whole[:, :9], first)


def test_gradients_reach_every_input():
    values = [value.requires_grad_() for value in inputs(2, 9)]
    selective_scan(*values).square().sum().backward()
    assert all(bool((value.grad != 0).any()) for value in values)


class Scanner(Network):
    """The scan alone, its inputs made from ids, so that it is exported as networks are.

    Steps of id 4 are so long that two of them take a state below the smallest float.
    """

    def __init__(self):
        super().__init__()
        self.dim, self.vocabulary = 6, 5
        x, delta, rates, write, read = inputs(1, self.vocabulary, seed=7)
        delta[0, 4] = 60
        self.tables = torch.nn.ParameterList([x[0], delta[0], write[0], read[0]])
        self.rates = torch.nn.Parameter(rates)

    def read(self, rows):
        x, delta, write, read = (table[rows] for table in self.tables)
        return x, delta, self.rates, write, read

    def embed(self, rows):
        return selective_scan(*self.read(rows))

    def decode(self, embedding):
        return embedding[..., : self.vocabulary]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.onnx"
    graph.write_graph(Scanner().eval(), path, "fp32")
    return path


@pytest.mark.parametrize("shape", [(1, 1), (5, 19), (1, 700), (2, 3)])
def test_trap_graph_takes_other_shapes(shape, exported):
    batch = np.random.default_rng(2).integers(5, size=shape)
    (found,) = graph.run_graph(exported, [batch])
    wanted = by_definition(*(x.detach() for x in Scanner().read(torch.from_numpy(batch))))
    assert found["embedding"] == pytest.approx(wanted, rel=2e-5, abs=2e-5)


def test_graph_holds_one_scan_of_few_operators(exported):
    """What its speed rests on: nothing is unrolled, and a row costs six operators."""
    model = onnx.load(exported)
    (scan,) = [node for node in model.graph.node if node.op_type == "Scan"]
    (body,) = [attribute.g for attribute in scan.attribute if attribute.name == "body"]
    assert sorted(node.op_type for node in body.node) == [
        "Add", "Exp", "MatMul", "Mul", "Mul", "Mul",
    ]  # fmt: skip
    assert len(model.graph.node) < 40


def test_trap_no_quotients_of_cumulated_decays():
    """exp(cumsum) is 0 after some hundred rows of such decays, and its quotients no numbers."""
    x, delta, rates, write, read = inputs(1, 300, spread=0.1)
    delta = delta + 1
    cumulated = torch.exp((delta[..., None] * rates).cumsum(1))
    assert (cumulated[:, -1] == 0).all()
    found = selective_scan(x, delta, rates, write, read).numpy()
    assert np.isfinite(found).all()
    wanted = by_definition(x, delta, rates, write, read)
    assert found == pytest.approx(wanted, rel=1e-5, abs=1e-5)
