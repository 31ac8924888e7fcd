"""Distributions of scores, of any number of alleles in the same memory.

Decisions: the first `_HELD` numbers of a score choose the range that is shown, every number is
counted. What lies beyond the range is in the outermost bins, and counted apart too.
"""

from __future__ import annotations

import array
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_BINS = 40
_HELD = 1 << 18  # numbers of a score that wait to be counted: 1 MB
# Scores so many interquartile ranges beyond the quartiles are off the scale, if they are few.
_FAR, _FEW = 3.0, 0.1
_NARROW = 1e-6  # of the numbers themselves, below which a range would be rounding alone


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of a score in bins of equal width from `low` to `high`.

    Attributes:
        below: How many lie below `low`; the first bin counts them too. `above` likewise.
    """

    low: float
    high: float
    counts: tuple[int, ...]
    below: int
    above: int


class Distribution:
    """Counts numbers one by one."""

    def __init__(self) -> None:
        self._waiting = array.array("f")
        self._range: tuple[float, float] | None = None
        self._counts = np.zeros(_BINS, dtype=np.int64)
        self._below = self._above = 0

    def add(self, number: float) -> None:
        """Count a finite number that 32 bits hold."""
        self._waiting.append(number)
        if len(self._waiting) == _HELD:
            self._count()

    def histogram(self) -> Histogram | None:
        """Give the counts so far; None if there was no number."""
        if self._waiting:
            self._count()
        if self._range is None:
            return None
        counts = tuple(self._counts.tolist())
        return Histogram(*self._range, counts, self._below, self._above)

    def _count(self) -> None:
        numbers = np.array(self._waiting, dtype=np.float64)
        self._waiting = array.array("f")
        if self._range is None:
            self._range = _range(numbers)
        low, high = self._range
        counts, _ = np.histogram(np.clip(numbers, low, high), bins=_BINS, range=(low, high))
        self._counts += counts
        self._below += int((numbers < low).sum())
        self._above += int((numbers > high).sum())


def _range(numbers: Floats) -> tuple[float, float]:
    """Choose the range that shows the bulk: a few scores far from all others would flatten it."""
    first, third = np.percentile(numbers, (25, 75))
    reach = _FAR * (third - first)
    near = numbers[(numbers >= first - reach) & (numbers <= third + reach)]
    # Where most scores are one number, all others are far from it.
    bulk = reach > 0 and numbers.size - near.size <= _FEW * numbers.size
    shown = near if bulk else numbers
    low, high = float(shown.min()), float(shown.max())
    size = max(abs(low), abs(high))
    if high - low > _NARROW * size:
        return low, high
    margin = max(0.5, size / 10)
    return low - margin, high + margin
