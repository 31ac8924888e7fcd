"""A distribution of numbers in short, and what it says of one: percentile, exceedance.

Of a distribution of few different values all are kept, of others the least and the largest ones and
those of evenly spaced ranks between, each with the exact count of numbers below. The count between
two kept values is interpolated, and off by less than 1/4096 of all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glm_annotate.answers import Floats, Ints

Singles = NDArray[np.float32]

# So many values at the ends, and so many steps between, are kept of more values than ALL_KEPT.
TAIL, STEPS, ALL_KEPT = 256, 4096, 8192


@dataclass(frozen=True, slots=True)
class Sketch:
    """A distribution of n numbers.

    Attributes:
        values: Some of them, each once, ascending, the least and the largest among them, (m,).
        below: How many of the n are less than each, shape (m,).
        upto: How many are not larger.
        n: How many there are.
    """

    values: Singles
    below: Ints
    upto: Ints
    n: int

    def counts(self, numbers: Singles) -> tuple[Floats, Floats]:
        """Count those that are less than, and those that equal, each of some numbers.

        Args:
            numbers: Shape (k,); NaN has NaN.

        Returns:
            Both of shape (k,); fractions where a rank is interpolated.
        """
        known = np.isfinite(numbers)
        asked = np.where(known, numbers, self.values[0])
        at = np.searchsorted(self.values, asked, side="left")
        left, right = np.maximum(at - 1, 0), np.minimum(at, self.values.size - 1)
        same = self.values[right] == asked
        low, high = self.values[left].astype(np.float64), self.values[right].astype(np.float64)
        span = np.where(high > low, high - low, 1.0)
        part = np.clip((asked - low) / span, 0.0, 1.0)
        below = self.upto[left] + part * (self.below[right] - self.upto[left])
        below = np.where(at == 0, 0.0, np.where(at == self.values.size, float(self.n), below))
        below = np.where(same, self.below[right], below)
        equal = np.where(same, self.upto[right] - self.below[right], 0.0)
        return np.where(known, below, np.nan), np.where(known, equal, np.nan)


def make_sketch(numbers: Singles) -> Sketch:
    """Count the numbers of a background, at least one and all finite."""
    values, counts = np.unique(numbers, return_counts=True)
    upto = np.cumsum(counts)
    if values.size > ALL_KEPT:
        ranks = np.linspace(0, numbers.size - 1, STEPS + 1).round().astype(np.int64)
        ends = np.r_[:TAIL, values.size - TAIL : values.size]
        kept = np.union1d(np.searchsorted(upto, ranks, side="right"), ends)
        values, counts, upto = values[kept], counts[kept], upto[kept]
    return Sketch(values.astype(np.float32), upto - counts, upto, int(numbers.size))


def percentile(sketch: Sketch, numbers: Singles) -> Floats:
    """Give 100 x the share of a background that is less, and half of what is equal, shape (k,)."""
    below, equal = sketch.counts(numbers)
    return np.asarray(100.0 * (below + 0.5 * equal) / sketch.n)


def exceedance(sketch: Sketch, numbers: Singles, *, upper: bool) -> Floats:
    """Give -log10 of the chance that a background is as extreme or more, shape (k,).

    The chance is (k + 1) / (n + 1), with k of n as large or larger; unless `upper`, it is twice
    that of the nearer tail, and 1 at most.
    """
    below, equal = sketch.counts(numbers)
    over = (sketch.n - below + 1.0) / (sketch.n + 1.0)
    if upper:
        return np.asarray(-np.log10(over))
    under = (below + equal + 1.0) / (sketch.n + 1.0)
    return np.asarray(-np.log10(np.minimum(1.0, 2.0 * np.minimum(over, under))))
