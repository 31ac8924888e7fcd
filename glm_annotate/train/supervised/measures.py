"""Figures on held-out data, in numpy: correlations that are summed up window by window, ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from glm_annotate.evaluate import metrics

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Correlation:
    """Pearson's r of many columns, from sums that grow with the data.

    Attributes:
        count: Pairs of numbers seen, shape (columns,).
    """

    def __init__(self, columns: int) -> None:
        self.count = np.zeros(columns)
        self._sums = np.zeros((5, columns))  # x, y, xx, yy, xy
        self._origin: Floats | None = None

    def add(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
        """Take in values (rows, columns); a pair in which one is NaN is left out."""
        known = np.isfinite(x) & np.isfinite(y)
        if self._origin is None:
            # Sums of squares around a number near the mean keep their digits.
            self._origin = np.array(
                [
                    y[known[:, i], i].mean(dtype=np.float64) if known[:, i].any() else 0.0
                    for i in range(y.shape[1])
                ]
            )
        a = np.where(known, x - self._origin, 0.0).astype(np.float64)
        b = np.where(known, y - self._origin, 0.0).astype(np.float64)
        self.count += known.sum(0)
        parts = (a, b, a * a, b * b, a * b)
        self._sums += np.stack([part.sum(0) for part in parts])

    def value(self) -> Floats:
        """Give r of each column, NaN where one side does not vary, shape (columns,)."""
        n = np.maximum(self.count, 1)
        x, y, xx, yy, xy = self._sums / n
        variances = np.maximum(xx - x * x, 0) * np.maximum(yy - y * y, 0)
        r = np.full(self.count.size, np.nan)
        np.divide(xy - x * y, np.sqrt(variances), out=r, where=variances > 1e-24)
        return r


def mean_of_known(values: Sequence[float] | Floats) -> float:
    """Average those that are numbers: a track that does not vary has no correlation, NaN."""
    each = np.asarray(values, dtype=np.float64)
    known = each[np.isfinite(each)]
    return float(known.mean()) if known.size else float("nan")


def ratio(total: float, weight: float) -> float:
    """Divide a sum of losses by its weight; NaN where nothing was measured."""
    return total / weight if weight else float("nan")


def pearson(x: Floats, y: Floats) -> float:
    """Give Pearson's r of two rows of numbers, NaN where one does not vary."""
    a, b = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale > 0 else float("nan")


def spearman(x: Floats, y: Floats) -> float:
    """Give Spearman's correlation of two rows of numbers."""
    return metrics.spearman(x, y)(_ones(x))


def auroc(score: Floats, positive: Flags) -> float:
    """Give the chance that a positive scores above a negative, ties counted half."""
    return metrics.auroc(score, positive)(_ones(score)) if score.size else float("nan")


def average_precision(score: Floats, positive: Flags) -> float:
    """Give the mean precision over the positives, those of one score taken together."""
    return metrics.average_precision(score, positive)(_ones(score)) if score.size else float("nan")


def _ones(values: Floats) -> NDArray[np.int64]:
    """Count every row once."""
    return np.ones(values.size, dtype=np.int64)
