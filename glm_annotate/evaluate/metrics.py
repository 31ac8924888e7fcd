"""Measures of a score against labels, and how far they would vary: the bootstrap.

A resample is a weight a row: how many times the row was drawn. A measure takes weights, so that
all columns are measured on the same resamples (differences are paired) and nothing is sorted twice.
Ties count half in AUROC, share a threshold in AUPRC and have their mean rank in Spearman.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glm_annotate.answers import Floats, Ints

Bools = NDArray[np.bool_]
Measure = Callable[[Ints], float]

FEWEST_GROUPS = 10  # of rows that are drawn together; fewer have no interval
COVERAGE = 95.0  # per cent of the resamples that lie in an interval


@dataclass(frozen=True, slots=True)
class Ranked:
    """A column of n values, sorted once.

    Attributes:
        order: Rows by ascending value, shape (n,).
        starts: Where in that order each run of equal values begins, shape (g,).
        group: The run that each row is in, shape (n,).
    """

    order: Ints
    starts: Ints
    group: Ints

    def sums(self, weights: Ints) -> Ints:
        """Add weights up over runs of equal values, shape (g,)."""
        return np.asarray(np.add.reduceat(weights[self.order], self.starts))


def rank(values: Floats) -> Ranked:
    """Sort a column; it has no NaN and at least one row."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    is_first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    group = np.empty(values.size, dtype=np.int64)
    group[order] = np.cumsum(is_first) - 1
    return Ranked(order, np.flatnonzero(is_first), group)


def auroc(values: Floats, positive: Bools) -> Measure:
    """Measure the chance that a positive row has a larger value than a negative one."""
    ranked, is_positive = rank(values), positive.astype(np.int64)

    def measure(weights: Ints) -> float:
        good = ranked.sums(weights * is_positive)
        bad = ranked.sums(weights * (1 - is_positive))
        pairs = float(good.sum()) * float(bad.sum())
        wins = float((good * (np.cumsum(bad) - 0.5 * bad)).sum())
        return wins / pairs if pairs else float("nan")

    return measure


def average_precision(values: Floats, positive: Bools) -> Measure:
    """Measure the area under precision over recall, as steps: sum of gain in recall x precision."""
    ranked, is_positive = rank(-values), positive.astype(np.int64)

    def measure(weights: Ints) -> float:
        good = ranked.sums(weights * is_positive)
        called = np.cumsum(ranked.sums(weights))
        found = np.cumsum(good)
        precision = found / np.maximum(called, 1)
        return float((good * precision).sum() / found[-1]) if found[-1] else float("nan")

    return measure


def pearson(x: Floats, y: Floats) -> Measure:
    """Measure the linear correlation of two columns."""

    def measure(weights: Ints) -> float:
        return _correlation(x, y, weights)

    return measure


def spearman(x: Floats, y: Floats) -> Measure:
    """Measure the correlation of the ranks of two columns."""
    first, second = rank(x), rank(y)

    def measure(weights: Ints) -> float:
        return _correlation(_mean_ranks(first, weights), _mean_ranks(second, weights), weights)

    return measure


def _mean_ranks(ranked: Ranked, weights: Ints) -> Floats:
    """Rank the rows of a resample, those of one value alike, shape (n,)."""
    size = ranked.sums(weights)
    return np.asarray((np.cumsum(size) - 0.5 * size)[ranked.group])


def _correlation(x: Floats, y: Floats, weights: Ints) -> float:
    total = int(weights.sum())
    if total < 2:
        return float("nan")
    a, b = x - x @ weights / total, y - y @ weights / total
    spread = float(np.sqrt((a * a) @ weights) * np.sqrt((b * b) @ weights))
    # Columns that are constant but for rounding have no correlation.
    tiny = 1e-12 * float(np.abs(x).max(initial=0.0) * np.abs(y).max(initial=0.0)) * total
    return float((a * b) @ weights) / spread if spread > tiny else float("nan")


def within(parts: Sequence[Measure], sizes: Sequence[float]) -> Measure:
    """Average measures of strata by their sizes; strata without a value do not count."""

    def measure(weights: Ints) -> float:
        return _average([part(weights) for part in parts], sizes)

    return measure


def _average(values: Sequence[float], sizes: Sequence[float]) -> float:
    known = [(v, s) for v, s in zip(values, sizes, strict=True) if np.isfinite(v)]
    total = sum(size for _, size in known)
    return sum(value * size for value, size in known) / total if total else float("nan")


def resamples(groups: Ints, times: int, seed: int) -> Iterator[Ints]:
    """Draw rows with replacement, as many of each group as it has.

    Args:
        groups: Of each row: rows are exchanged for rows of their group alone, shape (n,).
        times: How many resamples.
        seed: Of all of them.

    Yields:
        Weights of the rows, shape (n,).
    """
    draw = np.random.default_rng(seed)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    for _ in range(times):
        weights = np.zeros(groups.size, dtype=np.int64)
        for rows in members:
            weights[rows] = np.bincount(draw.integers(0, rows.size, rows.size), minlength=rows.size)
        yield weights


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measure on all rows, and the interval of its resamples; NaN where there is none."""

    value: float
    low: float
    high: float


def bootstrap(measures: Sequence[Measure], weights: Iterator[Ints]) -> Floats:
    """Measure every resample, shape (times, measures)."""
    found = [[measure(drawn) for measure in measures] for drawn in weights]
    return np.array(found, dtype=np.float64).reshape(len(found), len(measures))


def estimate(value: float, samples: Floats) -> Estimate:
    """Give the interval in which `COVERAGE` per cent of the samples of a measure lie."""
    known = samples[np.isfinite(samples)]
    if not known.size or not np.isfinite(value):
        return Estimate(value, float("nan"), float("nan"))
    tail = (100.0 - COVERAGE) / 2
    low, high = np.percentile(known, [tail, 100.0 - tail])
    return Estimate(value, float(low), float(high))


def once(groups: Ints) -> Ints:
    """Give the weights of all rows as they are."""
    return np.ones(groups.size, dtype=np.int64)
