"""Scores of tracks: pure functions of REF and ALT predictions, and the table that names them.

Predictions are un-transformed, on the same bins, averaged over strands; arrays are (..., bins,
tracks) and a score is (..., tracks). Everything is float64 from the first subtraction on: in
float32 a small difference drowns in the sums. A difference of sums is taken as the sum of
differences, which is the same number with more digits. A score over no bin is NaN, and so is one
that the track does not define, such as the root of a negative value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from glm_annotate.scores import Kind

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

LFC_PSEUDOCOUNT = 1e-3
JS_PERCENTILE = 25
_LN2 = float(np.log(2.0))


class TrackPair:
    """REF and ALT over the bins of a mask, and what several scores share.

    Args:
        ref: Shape (..., bins, tracks).
        alt: The same shape.
        mask: Which bins count, shape (bins,); None: all.
    """

    def __init__(self, ref: NDArray[Any], alt: NDArray[Any], mask: Bools | None = None) -> None:
        if ref.shape != alt.shape:
            raise ValueError(f"REF has shape {ref.shape} and ALT {alt.shape}")
        self.ref, self.alt = _chosen(ref, mask), _chosen(alt, mask)

    @property
    def bins(self) -> int:
        """How many bins count."""
        return int(self.ref.shape[-2])

    @cached_property
    def change(self) -> Floats:
        """ALT - REF, shape (..., bins, tracks)."""
        return self.alt - self.ref

    @cached_property
    def log_change(self) -> Floats:
        """log2(1 + ALT) - log2(1 + REF), shape (..., bins, tracks)."""
        return log2_1p(self.alt) - log2_1p(self.ref)

    @cached_property
    def totals(self) -> tuple[Floats, Floats]:
        """Sums of REF and of ALT, shape (..., tracks) each."""
        return self.ref.sum(axis=-2), self.alt.sum(axis=-2)


def _chosen(values: NDArray[Any], mask: Bools | None) -> Floats:
    kept = values if mask is None else values[..., mask, :]
    return kept.astype(np.float64)


def log2_1p(values: Floats) -> Floats:
    """log2(1 + x), exact to the last digits for small x too."""
    return np.asarray(np.log1p(values) / _LN2)


def _sum_of_roots(pair: TrackPair) -> Floats:
    return np.asarray((np.sqrt(pair.alt) - np.sqrt(pair.ref)).sum(axis=-2))


def _log_of_sums(pair: TrackPair) -> Floats:
    ref, alt = pair.totals
    return log2_1p(alt) - log2_1p(ref)


def _largest_change(pair: TrackPair) -> Floats:
    at = np.abs(pair.change).argmax(axis=-2, keepdims=True)  # the first bin where several are equal
    return np.asarray(np.take_along_axis(pair.change, at, axis=-2)[..., 0, :])


def _log_of_means(pair: TrackPair) -> Floats:
    ref, alt = (np.log(total / pair.bins + LFC_PSEUDOCOUNT) for total in pair.totals)
    return np.asarray(alt - ref)


def _first_norm(change: Floats) -> Floats:
    return np.asarray(np.abs(change).sum(axis=-2))


def _second_norm(change: Floats) -> Floats:
    return np.asarray(np.sqrt(np.square(change).sum(axis=-2)))


def _shannon_distance(pair: TrackPair) -> Floats:
    """Root of the Jensen-Shannon divergence, base 2.

    With m = (p + q) / 2 and t = (q - p) / (q + p) it is the root of the sum of m f(t), where
    f(t) = ((1 + t) ln(1 + t) + (1 - t) ln(1 - t)) / 2 = t artanh(t) + ln(1 - t t) / 2. No term is
    negative and none cancels another, so that two nearly equal tracks keep their digits.
    """
    ref, alt = (x / total[..., None, :] for x, total in zip(*_sides(pair), strict=True))
    both = ref + alt
    t = np.divide(alt - ref, both, out=np.zeros_like(both), where=both != 0)
    alone = np.abs(t) == 1  # the bin is empty in one of the tracks
    inner = np.where(alone, 0.0, t)
    f = np.where(alone, _LN2, inner * np.arctanh(inner) + np.log1p(-np.square(inner)) / 2)
    divergence = (both / 2 * f).sum(axis=-2) / _LN2
    # Two empty tracks have no distribution, and still nothing changed.
    same = (pair.ref == pair.alt).all(axis=-2)
    return np.where(same, 0.0, np.sqrt(np.maximum(divergence, 0.0)))


def _sides(pair: TrackPair) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    return (pair.ref, pair.alt), pair.totals


def _symmetric_divergence(pair: TrackPair) -> Floats:
    """(KL(r, a) + KL(a, r)) / 2 in nats, where r and a have REF's 25th percentile added."""
    floor = np.percentile(pair.ref, JS_PERCENTILE, axis=-2, keepdims=True)
    ref, alt = pair.ref + floor, pair.alt + floor
    ref, alt = (x / x.sum(axis=-2, keepdims=True) for x in (ref, alt))
    ratio = np.where(ref == alt, 0.0, np.log(alt) - np.log(ref))
    same = (pair.ref == pair.alt).all(axis=-2)
    return np.where(same, 0.0, ((alt - ref) * ratio).sum(axis=-2) / 2)


@dataclass(frozen=True, slots=True)
class TrackScore:
    """A score of tracks.

    Attributes:
        kind: What swapping the alleles does, as in `scores`.
        compute: From a pair to numbers (..., tracks).
        formula: For the header of a VCF.
        merge: How the numbers of a strand pair become one: their sum, or the root of the sum of
            their squares.
    """

    kind: Kind
    compute: Callable[[TrackPair], Floats]
    formula: str
    merge: Literal["sum", "root"] = "sum"


TRACK_SCORES: dict[str, TrackScore] = {
    "SAD": TrackScore(
        "signed", lambda p: p.change.sum(axis=-2), "sum of ALT bins minus sum of REF bins"
    ),
    "LOGSAD": TrackScore(
        "signed", lambda p: p.log_change.sum(axis=-2), "sum of log2(1 + ALT) - log2(1 + REF)"
    ),
    "SQRTSAD": TrackScore("signed", _sum_of_roots, "sum of sqrt(ALT) - sqrt(REF)"),
    "LOGSED": TrackScore("signed", _log_of_sums, "log2(1 + sum of ALT) - log2(1 + sum of REF)"),
    "SAX": TrackScore("signed", _largest_change, "ALT - REF in the bin where it is largest"),
    "LFC": TrackScore(
        "signed",
        _log_of_means,
        f"ln(mean ALT + {LFC_PSEUDOCOUNT:g}) - ln(mean REF + {LFC_PSEUDOCOUNT:g})",
    ),
    "D1": TrackScore("distance", lambda p: _first_norm(p.change), "sum of |ALT - REF|"),
    "D2": TrackScore(
        "distance", lambda p: _second_norm(p.change), "root of the sum of (ALT - REF)^2", "root"
    ),
    "LOGD1": TrackScore(
        "distance", lambda p: _first_norm(p.log_change), "sum of |log2(1 + ALT) - log2(1 + REF)|"
    ),
    "LOGD2": TrackScore(
        "distance",
        lambda p: _second_norm(p.log_change),
        "root of the sum of (log2(1 + ALT) - log2(1 + REF))^2",
        "root",
    ),
    "JSD": TrackScore(
        "distance",
        _shannon_distance,
        "root of the Jensen-Shannon divergence (base 2) of REF / sum and ALT / sum",
    ),
    "JS": TrackScore(
        "other",
        _symmetric_divergence,
        "mean of both Kullback-Leibler divergences of (x + q) / sum(x + q), q = 25th percentile "
        "of REF",
    ),
}


def score_tracks(
    names: Iterable[str], ref: NDArray[Any], alt: NDArray[Any], mask: Bools | None = None
) -> dict[str, Floats]:
    """Compute scores of every track.

    Args:
        names: Rows of `TRACK_SCORES`.
        ref: Un-transformed predictions, shape (..., bins, tracks).
        alt: The same shape.
        mask: Which bins count, shape (bins,); None: all.

    Returns:
        By name, shape (..., tracks); NaN or infinite where there is no number.
    """
    pair = TrackPair(ref, alt, mask)
    if not pair.bins:
        shape = (*ref.shape[:-2], ref.shape[-1])
        return {name: np.full(shape, np.nan) for name in names}
    with np.errstate(divide="ignore", invalid="ignore"):
        return {name: TRACK_SCORES[name].compute(pair) for name in names}


def merge_strands(name: str, values: Floats, first: Ints, second: Ints) -> Floats:
    """Merge the scores of strand pairs.

    Args:
        name: Row of `TRACK_SCORES`.
        values: Scores by track, shape (..., tracks).
        first: Track of each merged track, shape (m,).
        second: Its partner on the other strand; the track itself where it has none.

    Returns:
        Shape (..., m).
    """
    one, other = values[..., first], values[..., second]
    merged = np.hypot(one, other) if TRACK_SCORES[name].merge == "root" else one + other
    return np.where(first == second, one, merged)


def merge_values(values: Floats, first: Ints, second: Ints) -> Floats:
    """Merge what adds up over a strand pair, such as sums of REF; arguments as `merge_strands`."""
    one: Floats = values[..., first]
    return np.where(first == second, one, one + values[..., second])
