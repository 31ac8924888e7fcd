"""Graphs of the toy bundles: a handful of ONNX nodes over named tables.

The tables are initialisers, drawn from a seed and rounded to two decimals, so that a test can read
them from the file and redo the sum. Rows see the tokens beside them and beyond the ends the pad
token:

- logits[t] = left[token t-1] + right[token t+1] + own[token t]
- embedding[t] = embed_left[token t-1] + embed_own[token t]
- `wide` adds to both a direction times the sum over s of weights[t - s + reach] value[token s]
- `causal` has no token t+1; its direction is times the sum over s <= t of weights[s] value[token s]
- channels add to both x[t] @ near, and a direction times the sum over s of
  channel_weights[t - s + reach] x[s] @ channel_value
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

_END = np.iinfo(np.int64).max
_NEVER = -1e4  # a logit whose probability is 0 in every precision


@dataclass(frozen=True, slots=True)
class Shape:
    """What a builder of a graph is told.

    Attributes:
        size: Ids of the vocabulary; channels of one_hot.
        pad: Id that stands beyond the ends.
        dim: Channels of the embedding.
        reach: Most rows that a position table must serve.
        shift: The card's `logits_shift`.
        bases: Ids of A, C, G and T.
        channels: Of the input `channels`; 0: there is none.
    """

    size: int
    pad: int
    dim: int
    reach: int
    shift: int
    bases: tuple[int, ...] = ()
    channels: int = 0


@dataclass
class Graph:
    """An ONNX graph in the making; the inputs are called `rows` and `channels`."""

    random: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    tables: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, values: Any, name: str = "") -> str:
        """Add an initialiser and return its name."""
        name = name or f"constant{len(self.tables)}"
        self.tables.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def table(self, name: str, *shape: int, scale: float = 1.0) -> str:
        """Add an initialiser of random numbers with two decimals."""
        return self.constant(draw(self.random, *shape, scale=scale), name)

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        output = output or f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def sum(self, *terms: str, output: str) -> str:
        """Add the nodes that add up terms from left to right."""
        so_far = terms[0]
        for term in terms[1:-1]:
            so_far = self.node("Add", so_far, term)
        return self.node("Add", so_far, terms[-1], output=output)


def draw(random: np.random.Generator, *shape: int, scale: float = 1.0) -> NDArray[np.float32]:
    """Draw normal numbers and keep two decimals."""
    return np.round(random.normal(scale=scale, size=shape), 2).astype(np.float32)


def _neighbours(g: Graph, rows: str, pads: list[int], pad: str) -> tuple[str, str]:
    """Give the rows to the left and to the right of every row."""
    axis = g.constant(np.array([1]))
    padded = g.node("Pad", rows, g.constant(np.array(pads)), pad)
    ends = [(0, -2), (2, _END)]
    left, right = (
        g.node("Slice", padded, g.constant(np.array([a])), g.constant(np.array([b])), axis)
        for a, b in ends
    )
    return left, right


def _beside(g: Graph, shape: Shape) -> tuple[str, str, str]:
    tokens = g.node("Cast", "rows", to=TensorProto.INT64)
    left, right = _neighbours(g, tokens, [0, 1, 0, 1], g.constant(np.array(shape.pad)))
    return left, tokens, right


def _look_up(g: Graph, shape: Shape, ids: Mapping[str, str], operator: str = "Gather") -> list[str]:
    """Add a table for each name and look the named rows up in it.

    Tables have a row per id, and the vocabulary's width or, if called `embed_`, the embedding's.
    """
    terms = []
    for name, rows in ids.items():
        table = g.table(name, shape.size, shape.dim if "embed_" in name else shape.size)
        terms.append(g.node(operator, *((table, rows) if operator == "Gather" else (rows, table))))
    return terms


def markov(g: Graph, shape: Shape, *, wide: bool = False) -> None:
    """Sum three tables; `wide` adds what depends on every token of the window."""
    left, tokens, right = _beside(g, shape)
    terms = _look_up(g, shape, {"left": left, "right": right, "own": tokens})
    embedded = _look_up(g, shape, {"embed_left": left, "embed_own": tokens})
    if wide:
        _add_directions(g, shape, _everywhere(g, tokens, shape), terms, embedded)
    _add_channels(g, shape, terms, embedded)
    g.sum(*terms, output="logits")
    g.sum(*embedded, output="embedding")


def _places(g: Graph, tokens: str) -> str:
    """Give 0, 1, ... up to the number of rows."""
    rows = g.node("Gather", g.node("Shape", tokens), g.constant(np.array(1)))
    return g.node("Range", g.constant(np.array(0)), rows, g.constant(np.array(1)))


def _values(g: Graph, tokens: str, shape: Shape) -> str:
    return g.node("Gather", g.table("value", shape.size), tokens)


def _everywhere(g: Graph, tokens: str, shape: Shape) -> str:
    """Weigh the values of all tokens by their distance from each row, shape (B, T, 1)."""
    weights = _by_distance(g, tokens, shape, "weights")
    values = g.node("Unsqueeze", _values(g, tokens, shape), g.constant(np.array([2])))
    return g.node("MatMul", weights, values)


def _by_distance(g: Graph, rows: str, shape: Shape, name: str) -> str:
    """Give a weight for each row as seen from each row, by their distance, shape (T, T)."""
    weights = g.table(name, 2 * shape.reach + 1, scale=0.15)
    places = _places(g, rows)
    column = g.node("Unsqueeze", places, g.constant(np.array([1])))
    distance = g.node("Add", g.node("Sub", column, places), g.constant(np.array(shape.reach)))
    return g.node("Gather", weights, distance)


def _so_far(g: Graph, tokens: str, shape: Shape) -> str:
    """Add up the weighted values of the tokens up to each row, shape (B, T, 1)."""
    weights = g.node("Gather", g.table("weights", shape.reach, scale=0.15), _places(g, tokens))
    weighted = g.node("Mul", _values(g, tokens, shape), weights)
    sums = g.node("CumSum", weighted, g.constant(np.array(1)))
    return g.node("Unsqueeze", sums, g.constant(np.array([2])))


def _add_directions(
    g: Graph, shape: Shape, amount: str, terms: list[str], embedded: list[str], of: str = ""
) -> None:
    """Add one number a row, times a direction, to the terms of the logits and the embedding."""
    terms.append(g.node("Mul", amount, g.table(f"{of}direction", shape.size)))
    embedded.append(g.node("Mul", amount, g.table(f"embed_{of}direction", shape.dim)))


def _add_channels(g: Graph, shape: Shape, terms: list[str], embedded: list[str]) -> None:
    """Add what each row's channels say, and what those of all rows say, where there are any."""
    if not shape.channels:
        return
    numbers = g.node("Cast", "channels", to=TensorProto.FLOAT)
    terms.append(g.node("MatMul", numbers, g.table("near", shape.channels, shape.size)))
    embedded.append(g.node("MatMul", numbers, g.table("embed_near", shape.channels, shape.dim)))
    values = g.node("MatMul", numbers, g.table("channel_value", shape.channels, 1))
    far = g.node("MatMul", _by_distance(g, "channels", shape, "channel_weights"), values)
    _add_directions(g, shape, far, terms, embedded, "channel_")


def causal(g: Graph, shape: Shape) -> None:
    """Sum two tables and what depends on every token so far."""
    left, tokens, _ = _beside(g, shape)
    if shape.shift == 0:  # row t is about token t and must not see it
        tokens = left
        left, _ = _neighbours(g, tokens, [0, 1, 0, 1], g.constant(np.array(shape.pad)))
    terms = _look_up(g, shape, {"left": left, "own": tokens})
    embedded = _look_up(g, shape, {"embed_left": left, "embed_own": tokens})
    _add_directions(g, shape, _so_far(g, tokens, shape), terms, embedded)
    g.sum(*terms, output="logits")
    g.sum(*embedded, output="embedding")


def one_hot(g: Graph, shape: Shape) -> None:
    """Sum three tables and a bias; beyond the ends, and where masked, all channels are 0."""
    left, right = _neighbours(g, "rows", [0, 1, 0, 0, 1, 0], g.constant(np.float32(0)))
    ids = {"left": left, "right": right, "own": "rows"}
    embed_ids = {"embed_left": left, "embed_own": "rows"}
    terms = _look_up(g, shape, ids, "MatMul")
    embedded = _look_up(g, shape, embed_ids, "MatMul")
    _add_channels(g, shape, terms, embedded)
    g.sum(*terms, g.table("bias", shape.size), output="logits")
    g.sum(*embedded, g.table("embed_bias", shape.dim), output="embedding")


def uniform(g: Graph, shape: Shape) -> None:
    """Give equal logits to the bases and next to nothing to other ids, whatever the rows."""
    left, tokens, _ = _beside(g, shape)
    table = np.full((shape.size, shape.size), _NEVER, dtype=np.float32)
    table[:, list(shape.bases)] = 0
    g.node("Gather", g.constant(table, "own"), tokens, output="logits")
    embedded = _look_up(g, shape, {"embed_left": left, "embed_own": tokens})
    g.sum(*embedded, output="embedding")


def free(g: Graph, shape: Shape) -> None:
    """Look one table up."""
    tokens = g.node("Cast", "rows", to=TensorProto.INT32)
    g.node("Gather", g.table("own", shape.size, shape.size), tokens, output="logits")
