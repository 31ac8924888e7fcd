"""Toy models of contact maps, and their scores once more in plain Python.

Weights are small whole numbers and signals are quarters, so that every product is exact in float32
and the oracle, which adds up in double, has the same maps to the last bit. A contact is what the
bases of its two bins say, each base by its place in the bin: nothing is alike on both strands.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from oracle import Haplotype, Oracle, Reason
from oracle_channels import Columns, Signals
from torch import Tensor

from glm_annotate.bundle import GRAPH, write_bundle
from glm_annotate.train import graph
from glm_annotate.train.families.predictor import Predictor

Map = list[list[float | None]]


@dataclass(frozen=True)
class Shape:
    """Windows and maps of a toy; `maps` 0: the output has no axis of maps."""

    bins: int = 9
    size: int = 4
    crop: int = 0
    layout: str = "square"
    diagonal: int = 0
    symmetric: bool = True
    maps: int = 0
    signals: tuple[Mapping[str, Any], ...] = ()
    anchor: int = 18
    ratios: bool = False

    @property
    def side(self) -> int:
        return self.bins - 2 * self.crop

    @property
    def weights(self) -> np.ndarray[Any, Any]:
        """Whole numbers for what is before and what is behind, (2, size, 4 + signals)."""
        rng = np.random.default_rng(3)
        bases = rng.integers(0, 6, size=(2, self.size, 4))
        return np.concatenate(
            [bases, rng.integers(1, 4, size=(2, self.size, len(self.signals)))], axis=2
        )


class ToyContacts(Predictor):
    """Contact (i, j) of map m is (m + 1) x row i x column j + m x row i, plus its transpose."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        axes = ("row", "column") if shape.layout == "square" else ("pair",)
        self.outputs = {"contacts": ("batch", *axes, *(("track",) if shape.maps else ()))}
        self.shape, self.channels = shape, len(shape.signals)
        self.length = shape.bins * shape.size
        self.register_buffer("taps", torch.from_numpy(shape.weights).float())
        self.taps: Tensor
        row, column = np.triu_indices(shape.side, shape.diagonal)
        self.register_buffer("pairs", torch.from_numpy(row * shape.side + column))
        self.pairs: Tensor

    def forward(self, bases: Tensor, channels: Tensor | None = None) -> tuple[Tensor, ...]:
        shape = self.shape
        read = bases if channels is None else torch.cat([bases, channels], dim=2)
        read = read.unflatten(1, (shape.bins, shape.size))
        row, column = (torch.einsum("bnsc,sc->bn", read, taps) for taps in self.taps)
        found = []
        for m in range(max(1, shape.maps)):
            x = (m + 1) * row[:, :, None] * column[:, None, :] + m * row[:, :, None]
            x = x + x.transpose(1, 2) if shape.symmetric else x
            x = x[:, shape.crop : shape.bins - shape.crop, shape.crop : shape.bins - shape.crop]
            found.append(x if shape.layout == "square" else x.flatten(1)[:, self.pairs])
        return (torch.stack(found, dim=-1) if shape.maps else found[0],)


def card_of(shape: Shape, **card: Any) -> dict[str, Any]:
    inputs = {"rows": {"name": "rows", "axes": ("batch", "length"), "dtype": "uint8"}}
    if shape.signals:
        inputs["channels"] = {"name": "channels", "axes": ("batch", "length", "channel")}
    axes = ToyContacts(shape).outputs["contacts"]
    return {
        "name": "toy contacts",
        "tag": "MAP",
        "objective": "contacts",
        "context": shape.bins * shape.size,
        "anchor": shape.anchor,
        "crop": shape.crop,
        "contacts": {
            "bin_size": shape.size,
            "diagonal": shape.diagonal,
            "layout": shape.layout,
            "symmetric": shape.symmetric,
        },
        "encoder": {
            "kind": "kmer",
            "vocab": {"order": "ACGT", "single_ids": {"N": 4}},
            "channels": list(shape.signals),
        },
        "inputs": inputs,
        "outputs": {"contacts": {"name": "contacts", "axes": axes}},
        **card,
    }


def write_toy(folder: Path, shape: Shape, names: Sequence[str] = (), **card: Any) -> Path:
    """Write a bundle; `names` are the rows of tracks.tsv, `card` adds keys or replaces them."""
    folder.mkdir(parents=True)
    graph.write_graph(ToyContacts(shape).eval(), folder / GRAPH, "fp32")
    if names:
        unit = "log(observed/expected)" if shape.ratios else ""
        lines = ["identifier\tunits", *(f"{name}\t{unit}" for name in names)]
        (folder / "tracks.tsv").write_text("".join(f"{x}\n" for x in lines))
    write_bundle(folder, card_of(shape, **card))
    return folder


# --- the oracle ----------------------------------------------------------------------------------


class ContactOracle(Oracle):
    """Scores of one map of a model, in loops over bins; the maps are those of the toy or ONNX's."""

    def __init__(
        self, bundle: Path, fasta: Path, which: int, shape: Shape | None = None, **more: Any
    ) -> None:
        super().__init__(bundle, fasta, **more)
        self.which, self.shape, self.rule = which, shape, self.card.contacts
        self.seen: dict[Any, Any] = {}  # what graphs gave, and windows

    def with_signals(self, signals: Signals, contigs: Mapping[str, str]) -> ContactOracle:
        bases = {name: list(text) for name, text in contigs.items()}
        self.columns = Columns(self.spec, bases, signals)
        return self

    def of_map(self, which: int) -> ContactOracle:
        """Give the oracle of another map, which shares the passes."""
        other = copy.copy(self)
        other.which = which
        return other

    def pairs(self, allele: Any, left: Any = None) -> Any:
        if allele not in self.seen:
            self.seen[allele] = super().pairs(allele, left)
        return self.seen[allele]

    def _score(self, allele: Any, name: str, options: dict[str, str]) -> float:
        ref, alt = ([], [])
        for reverse, pair in enumerate(self.pairs(allele)):
            for maps, haplotype in zip((ref, alt), pair, strict=True):
                found = self.predict(haplotype)
                maps.append(turned(found) if reverse else found)
        one, other = averaged(ref), averaged(alt)
        if name == "CONTACT_L1":
            return mean_difference(one, other, self.rule.layout)
        place = self.card.anchor - self.card.crop * self.rule.bin_size
        at, radius = place // self.rule.bin_size, int(options.get("radius", "50"))
        measure = across if self.shape is not None and self.shape.ratios else insulation
        change = measure(other, at, radius)
        base = measure(one, at, radius)
        if change is None or base is None:
            raise Reason("NO_BIN")
        return change - base

    def predict(self, haplotype: Haplotype) -> Map:
        """Give a square map, None where the layout leaves out a pair."""
        if self.shape is not None:
            return toy_map(self.shape, haplotype, self.which)
        if haplotype not in self.seen:
            self.seen[haplotype] = self.pass_of(haplotype)
        values = self.seen[haplotype]
        if values.ndim > (2 if self.rule.layout == "square" else 1):
            values = values[..., self.which]
        side = self.card.context // self.rule.bin_size - 2 * self.card.crop
        if self.rule.layout == "square":
            return values.tolist()
        given = iter(values.tolist())
        out: Map = [[None] * side for _ in range(side)]
        for i in range(side):
            for j in range(i + self.rule.diagonal, side):
                out[i][j] = out[j][i] = next(given)
        assert next(given, None) is None
        return out

    def pass_of(self, haplotype: Haplotype) -> np.ndarray[Any, Any]:
        """Run the graph on one window."""
        order = self.vocab.order
        ids = [order.index(x) if x in order else 4 for x in haplotype.bases]
        feeds = {"rows": np.array([ids], dtype=np.uint8)}
        if self.columns is not None:
            feeds["channels"] = np.array([haplotype.columns], dtype=np.float32)
        self.passes += 1
        (found,) = self.session.run(["contacts"], feeds)
        return found[0].astype(np.float64)


def toy_map(shape: Shape, haplotype: Haplotype, m: int) -> Map:
    weights = shape.weights.tolist()
    sums = [[0.0] * shape.bins for _ in weights]
    for place, base in enumerate(haplotype.bases):
        n, s = divmod(place, shape.size)
        for side, taps in enumerate(weights):
            if base in "ACGT":
                sums[side][n] += taps[s]["ACGT".index(base)]
            for c in range(len(shape.signals)):
                sums[side][n] += taps[s][4 + c] * haplotype.columns[place][c]
    row, column = sums

    def one(i: int, j: int) -> float:
        return (m + 1) * row[i] * column[j] + m * row[i]

    kept = range(shape.crop, shape.bins - shape.crop)
    return [
        [
            None
            if abs(i - j) < shape.diagonal
            else one(i, j) + (one(j, i) if shape.symmetric else 0.0)
            for j in kept
        ]
        for i in kept
    ]


def turned(maps: Map) -> Map:
    return [row[::-1] for row in maps[::-1]]


def averaged(maps: Sequence[Map]) -> Map:
    places = range(len(maps[0]))
    return [
        [
            None if maps[0][i][j] is None else sum(x[i][j] for x in maps) / len(maps)
            for j in places
        ]
        for i in places
    ]  # fmt: skip


def mean_difference(one: Map, other: Map, layout: str) -> float:
    found = [
        abs(other[i][j] - x)
        for i, row in enumerate(one)
        for j, x in enumerate(row)
        if x is not None and (layout == "square" or i <= j)
    ]
    return sum(found) / len(found)


def insulation(maps: Map, at: int, radius: int) -> float | None:
    """C.Origami's insulation of one bin; None where it has no contacts to read."""
    side = len(maps)
    if not 0 <= at < side:
        return None
    before = [i for i in range(side) if at - radius <= i < at]
    behind = [i for i in range(side) if at <= i < at + radius]

    def mean(rows: Sequence[int], columns: Sequence[int]) -> float | None:
        found = [
            (maps[i][j] + maps[j][i]) / 2 for i in rows for j in columns if maps[i][j] is not None
        ]
        return sum(found) / len(found) if found else None

    floor = mean(range(side), range(side))
    between = mean(before, behind)
    inner = [x for x in (mean(before, before), mean(behind, behind)) if x is not None]
    if floor is None or between is None or not inner:
        return None
    return (max(inner) + 30 * floor) / (between + 30 * floor)


def across(maps: Map, at: int, radius: int) -> float | None:
    """Minus the mean of a symmetric map between both sides of a bin; None as `insulation`."""
    if insulation(maps, at, radius) is None:
        return None
    sides = range(at - radius, at), range(at, at + radius)
    before, behind = ([i for i in side if 0 <= i < len(maps)] for side in sides)
    found = [maps[i][j] for i in before for j in behind if maps[i][j] is not None]
    return -sum(found) / len(found)
