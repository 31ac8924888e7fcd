"""What models say of regions: numbers along them summed up, and what is said of each in words.

A *part* is one thing that is said of regions: PLL or LL of language models, TRACKS, EMB. Regions of
a block are read together, so that those that overlap share passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from glm_annotate.answers import Floats, Ints
from glm_annotate.beds import merged
from glm_annotate.causal import CausalReader
from glm_annotate.genome import Genome, Interval
from glm_annotate.model import Model
from glm_annotate.per_base import Kind, Mode, over_stretches
from glm_annotate.predict import Predictor
from glm_annotate.skips import Skip
from glm_annotate.stretches import Predicted
from glm_annotate.track_choice import info_names
from glm_annotate.track_predictions import tracks_of
from glm_annotate.vcf import format_floats, percent_encode

MOST_COLUMNS = 16  # tracks that have columns of their own
TOP = 5

Cells = NDArray[Any]
Along = Callable[[Iterable[Interval]], Iterator[Predicted]]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of ours.

    Attributes:
        name: With the model's tag.
        kind: `list`: of numbers, all of one length.
        size: Length of the lists.
        labels: Of the members of a list.
    """

    name: str
    kind: Literal["number", "count", "text", "list"] = "number"
    size: int = 0
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Said:
    """What a part says of some regions.

    Attributes:
        cells: One array a column, shape (n,), of lists (n, size); NaN, -1 or "" for none.
        reasons: Why a region has no number; "" where it has.
    """

    cells: list[Cells]
    reasons: list[str]


class Part(Protocol):
    """One thing that a model says of regions."""

    name: str
    columns: tuple[Column, ...]

    def say(self, places: Sequence[Interval]) -> Said:
        """Speak of regions, none of them empty, in their order."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Numbers summed up by region.

    Attributes:
        total: Sum over bases, shape (n, tracks).
        bases: That have a number, shape (n, tracks).
        top: Largest number, shape (n, tracks); NaN where there is none.
    """

    total: Floats
    bases: Ints
    top: Floats

    @property
    def means(self) -> Floats:
        """Mean of a base, shape (n, tracks); NaN where there is none."""
        return np.asarray(self.total / np.where(self.bases > 0, self.bases, np.nan))


def sum_up(pieces: Iterable[Predicted], places: Sequence[Interval], tracks: int) -> Totals:
    """Sum bins by region; one that a region holds in part counts for the bases that it holds."""
    shape = len(places), tracks
    totals = Totals(np.zeros(shape), np.zeros(shape, dtype=np.int64), np.full(shape, np.nan))
    names = np.array([place.chrom for place in places], dtype=object)
    starts = np.array([place.start for place in places])
    ends = np.array([place.end for place in places])
    for piece in pieces:
        first, size, n = piece.start, piece.bin_size, len(piece.values)
        inside = (names == piece.contig) & (starts < first + size * n) & (ends > first)
        for i in np.flatnonzero(inside).tolist():
            a = max(0, (int(starts[i]) - first) // size)
            b = min(n, -(-(int(ends[i]) - first) // size))
            edges = first + size * np.arange(a, b)
            weights = np.minimum(edges + size, ends[i]) - np.maximum(edges, starts[i])
            part = piece.values[a:b]
            known = np.isfinite(part)
            totals.total[i] += weights @ np.where(known, part, 0.0)
            totals.bases[i] += weights @ known.astype(np.int64)
            top = np.fmax.reduce(np.where(known, part, np.nan), axis=0)
            totals.top[i] = np.fmax(totals.top[i], top)
    return totals


def has_bases(genome: Genome, place: Interval) -> bool:
    """Say whether a stretch has any A, C, G or T."""
    return bool((genome.codes(place.chrom)[place.start : place.end] < 4).any())


def _reasons(genome: Genome, places: Sequence[Interval], none: NDArray[np.bool_]) -> list[str]:
    """Say why regions that were read have no number; "" where they have."""
    return [
        "" if not lacks else Skip.FAILED if has_bases(genome, place) else Skip.AMBIGUOUS
        for place, lacks in zip(places, none.tolist(), strict=True)
    ]


class LikelihoodPart:
    """Sum and mean of log p of the bases of regions.

    Args:
        name: PLL of masked models, LL of causal ones.
        model: The model.
        genome: The reference.
        along: Gives log p along stretches.
    """

    def __init__(self, name: str, model: Model, genome: Genome, along: Along) -> None:
        self.name, self._genome, self._along = name, genome, along
        self.columns: tuple[Column, ...] = (
            Column(f"{model.tag}_{name}"),
            Column(f"{model.tag}_MEAN"),
            Column(f"{model.tag}_BASES", "count"),
        )

    def say(self, places: Sequence[Interval]) -> Said:
        """Speak of regions."""
        found = sum_up(self._along(merged(places, self._genome)), places, 1)
        means = found.means[:, 0]
        sums = np.where(np.isnan(means), np.nan, found.total[:, 0])
        reasons = _reasons(self._genome, places, np.isnan(means))
        return Said([sums, means, found.bases[:, 0]], reasons)


def masked_part(model: Model, genome: Genome, mode: Mode) -> LikelihoodPart:
    """Make the part of a masked model: each base given all others of its window."""

    def along(stretches: Iterable[Interval]) -> Iterator[Predicted]:
        for x in over_stretches(model, genome, stretches, [Kind("likelihood")], mode):
            yield Predicted(x.contig, x.start, 1, x.columns["likelihood"][:, None])

    return LikelihoodPart("PLL", model, genome, along)


def causal_part(model: Model, genome: Genome) -> LikelihoodPart:
    """Make the part of a causal model: each base given what precedes it in its window."""
    return LikelihoodPart("LL", model, genome, CausalReader(model, genome).predict)


class TracksPart:
    """Mean and maximum of tracks over regions.

    Args:
        model: A model of tracks.
        genome: The reference.
        edge: As of `predict.Predictor`.
        top: How many tracks are named; None: 5 where not all have columns, else none.
    """

    name = "TRACKS"

    def __init__(self, model: Model, genome: Genome, edge: int | None, top: int | None) -> None:
        self._genome, self._predictor = genome, Predictor(model, genome, edge)
        self._names = tracks_of(model).table.identifiers
        size, tag = len(self._names), model.tag
        self._apart = size <= MOST_COLUMNS
        self._top = top if top is not None else 0 if self._apart else TOP
        numbers: list[Column]
        if self._apart:
            names = [f"{tag}_{name}" for name in info_names(self._names)]
            numbers = [Column(f"{x}_{what}") for x in names for what in ("mean", "max")]
        else:
            numbers = [Column(f"{tag}_{x}", "list", size, self._names) for x in ("mean", "max")]
        best = [Column(f"{tag}_TOP", "text")] if self._top else []
        self.columns: tuple[Column, ...] = (*best, *numbers)

    def say(self, places: Sequence[Interval]) -> Said:
        """Speak of regions."""
        stretches = merged(places, self._genome)
        found = sum_up(self._predictor.predict(stretches), places, len(self._names))
        means, top = found.means, found.top
        cells: list[Cells] = []
        if self._top:
            cells.append(np.array([self._best(row) for row in means], dtype=object))
        if self._apart:
            for track in range(len(self._names)):
                cells += [means[:, track], top[:, track]]
        else:
            cells += [means, top]
        reasons = _reasons(self._genome, places, np.asarray(np.isnan(means).all(axis=1)))
        return Said(cells, reasons)

    def _best(self, means: Floats) -> str:
        """Name the tracks with the largest means, ties in the order of the table."""
        order = np.argsort(np.where(np.isnan(means), np.inf, -means), kind="stable")[: self._top]
        order = order[~np.isnan(means[order])]
        values = [text.decode() for text in format_floats(means[order])]
        names = [percent_encode(self._names[i]).decode() for i in order.tolist()]
        return ",".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
