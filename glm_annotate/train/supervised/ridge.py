"""The baseline: ridge regression of binned values on counts of k-mers, by normal equations.

A bin's features are how often each k-mer begins in it, on the forward strand or, `canonical`, with
a k-mer and its reverse complement counted together. Features and values are centred, so that the
intercept is not shrunk. Only sums of products are kept: data of any size stream through, and
several strengths cost one factorisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glm_annotate.genome import Codes
from glm_annotate.train.supervised.measures import pearson

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def kmer_columns(k: int, *, canonical: bool) -> tuple[Ints, int]:
    """Give the column of every k-mer, in the order of its letters A, C, G, T; and their number."""
    numbers = np.arange(4**k)
    if not canonical:
        return numbers, numbers.size
    digits = numbers[:, None] // 4 ** np.arange(k - 1, -1, -1) % 4
    reverse = ((3 - digits[:, ::-1]) * 4 ** np.arange(k - 1, -1, -1)).sum(1)
    kept, columns = np.unique(np.minimum(numbers, reverse), return_inverse=True)
    return columns, kept.size


def count_kmers(codes: Codes, bin_size: int, k: int, *, canonical: bool = False) -> Floats:
    """Count k-mers by the bin that they begin in, shape (bins, columns).

    Args:
        codes: Base codes of whole bins, and k - 1 more where there are any: the last bin's k-mers
            reach into them.
        bin_size: Bases of a bin.
        k: Bases of a k-mer; those with an N are not counted.
        canonical: See the module.
    """
    bins = codes.size // bin_size
    columns, width = kmer_columns(k, canonical=canonical)
    starts = min(codes.size - k + 1, bins * bin_size)
    number = np.zeros(starts, dtype=np.int64)
    known = np.ones(starts, dtype=np.bool_)
    for i in range(k):
        column = codes[i : i + starts].astype(np.int64)
        number = number * 4 + np.minimum(column, 3)
        known &= column < 4
    place = np.arange(starts)[known] // bin_size * width + columns[number[known]]
    counts: Floats = np.bincount(place, minlength=bins * width).reshape(bins, width).astype(float)
    return counts


@dataclass(frozen=True, slots=True)
class Ridge:
    """A fitted regression.

    Attributes:
        weights: Shape (columns, tracks).
        intercept: Shape (tracks,).
    """

    weights: Floats
    intercept: Floats

    def predict(self, features: Floats) -> Floats:
        """Predict values (bins, tracks)."""
        found: Floats = features @ self.weights + self.intercept
        return found


class NormalEquations:
    """Sums of products that grow with the data."""

    def __init__(self, columns: int, tracks: int) -> None:
        self.count = 0
        self._x, self._y = np.zeros(columns), np.zeros(tracks)
        self._xx, self._xy = np.zeros((columns, columns)), np.zeros((columns, tracks))

    def add(self, features: Floats, values: Floats) -> None:
        """Take in bins; one with a NaN value is left out of all tracks."""
        known = np.isfinite(values).all(1)
        x, y = features[known], values[known].astype(np.float64)
        self.count += len(x)
        self._x += x.sum(0)
        self._y += y.sum(0)
        self._xx += x.T @ x
        self._xy += x.T @ y

    def solve(self, strengths: Sequence[float]) -> list[Ridge]:
        """Fit: minimise squared errors plus strength times the squared weights."""
        x, y = self._x / self.count, self._y / self.count
        gram = self._xx - self.count * np.outer(x, x)
        cross = self._xy - self.count * np.outer(x, y)
        levels, axes = np.linalg.eigh(gram)
        turned, levels = axes.T @ cross, np.maximum(levels, 0)
        found = []
        for strength in strengths:
            # Directions without data stay 0 where there is no penalty.
            size = levels + strength
            least = levels.max(initial=0) * 1e-12
            kept = size > least
            weights = axes[:, kept] @ (turned[kept] / size[kept, None])
            found.append(Ridge(weights, y - x @ weights))
        return found


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure, and its 95 % interval."""

    value: float
    low: float
    high: float


def bootstrap(
    found: Sequence[Floats], wanted: Sequence[Floats], *, count: int = 1000, seed: int = 0
) -> Interval:
    """Give Pearson's r over the bins of all blocks, and an interval over blocks.

    Args:
        found: Predictions of each block, such as a window or 50 kb of a chromosome, (bins,).
        wanted: Measured values of each.
        count: Resamples of the blocks.
        seed: Of the resamples.
    """
    value = pearson(np.concatenate(found), np.concatenate(wanted))
    drawn = resample([(found, wanted)], count=count, seed=seed)[:, 0]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def resample(
    pairs: Sequence[tuple[Sequence[Floats], Sequence[Floats]]], *, count: int, seed: int
) -> Floats:
    """Give r of each pair of predictions and values, blocks drawn with replacement.

    All pairs see the same draws, so that differences between columns are those of one sample.

    Returns:
        Shape (count, pairs).
    """
    sums = np.stack([_block_sums(found, wanted) for found, wanted in pairs])  # (p, blocks, 6)
    blocks = sums.shape[1]
    rng = np.random.default_rng(seed)
    times = rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=count).astype(float)
    n, x, y, xx, yy, xy = np.moveaxis(np.einsum("rb,pbs->rps", times, sums), 2, 0)
    variances = np.maximum(xx - x * x / n, 0) * np.maximum(yy - y * y / n, 0)
    out = np.full(n.shape, np.nan)
    np.divide(xy - x * y / n, np.sqrt(variances), out=out, where=variances > 0)
    return out


def _block_sums(found: Sequence[Floats], wanted: Sequence[Floats]) -> Floats:
    """Sum up blocks around the common mean, which keeps the digits, (blocks, 6)."""
    middle = float(np.concatenate(found).mean()), float(np.concatenate(wanted).mean())
    rows = []
    for one, other in zip(found, wanted, strict=True):
        x, y = one - middle[0], other - middle[1]
        rows.append((x.size, x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()))
    return np.array(rows, dtype=np.float64)
