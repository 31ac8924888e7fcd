"""Which bins are where: masks, alleles of unequal length, the other strand, contact maps.

Places are bases of a window, 0-based from its left edge; intervals are half-open, shape (m, 2).
Predictions of tracks are (..., bins, tracks), contact maps (..., bins, bins), or (..., pairs) where
only the upper triangle is given.

Decisions: a bin belongs to an interval if they share a base. `center` is about the middle of the
window. Of unequal alleles that share bases the first bases are paired, and the rest is the
insertion or deletion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

INSULATION_RADIUS = 50  # bins
_INSULATION_FLOOR = 30  # pseudocount, in means of the map


@dataclass(frozen=True, slots=True)
class Bins:
    """The bins that a prediction has.

    Attributes:
        first: Place of the first base of the first bin.
        size: Bases of a bin.
        count: How many bins there are.
    """

    first: int
    size: int
    count: int

    def at(self, place: int) -> int:
        """Give the bin of a place; below 0 or from `count` up where no bin has it."""
        return (place - self.first) // self.size

    @property
    def starts(self) -> Ints:
        """First base of every bin, shape (count,)."""
        return self.first + self.size * np.arange(self.count)


def bins_of(context: int, bin_size: int, crop: int) -> Bins:
    """Lay bins over a window of `context` bases, of which `crop` bins are cut off at each side."""
    return Bins(crop * bin_size, bin_size, max(0, context // bin_size - 2 * crop))


# --- masks -------------------------------------------------------------------------------------


def center_mask(bins: Bins, context: int, width: int) -> Bools:
    """Choose the bins of the `width` bases in the middle of the window, shape (count,)."""
    start = (context - width) // 2
    return interval_mask(bins, np.array([[start, start + width]]))


def interval_mask(bins: Bins, intervals: Ints, stitch: Stitch | None = None) -> Bools:
    """Choose the bins that share a base with an interval.

    Args:
        bins: Of the window.
        intervals: Places on the reference, that is genomic intervals minus the window's left edge,
            in any order, shape (m, 2); may reach beyond the window.
        stitch: How the bins lie where alleles of unequal length were stitched.

    Returns:
        Shape (count,).
    """
    starts = bins.starts
    if stitch is not None:
        starts[max(0, stitch.bin + 1) :] += stitch.skipped
    filled = intervals[intervals[:, 0] < intervals[:, 1]]
    low = np.searchsorted(starts + bins.size, filled[:, 0], side="right")
    high = np.maximum(low, np.searchsorted(starts, filled[:, 1], side="left"))
    steps = np.zeros(bins.count + 1, dtype=np.int64)
    np.add.at(steps, low, 1)
    np.add.at(steps, high, -1)
    return np.asarray(np.cumsum(steps)[:-1] > 0)


def around(places: Ints, width: int) -> Ints:
    """Give the intervals of `width` bases around places, shape (m,) to (m, 2)."""
    starts = places - (width - 1) // 2
    return np.stack([starts, starts + width], axis=1)


# --- alleles of unequal length -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stitch:
    """How the longer allele of a pair is put together from two predictions.

    Attributes:
        longer: Which allele is predicted twice.
        shift: How many bases further right the second window begins on that allele.
        bin: The last bin that comes from the first prediction; may lie outside the bins.
    """

    longer: Literal["ref", "alt"]
    shift: int
    bin: int

    @property
    def skipped(self) -> int:
        """Bases of the reference between the bins of the two predictions."""
        return self.shift if self.longer == "ref" else 0


def stitch_of(bins: Bins, start: int, ref_len: int, alt_len: int) -> Stitch | None:
    """Say how predictions with bins of several bases are stitched; None: lengths are equal.

    Args:
        bins: Of both windows, which have the same left edge.
        start: Place of the variant's first base.
        ref_len: Bases of the trimmed REF allele.
        alt_len: Bases of the trimmed ALT allele.
    """
    if ref_len == alt_len:
        return None
    longer: Literal["ref", "alt"] = "ref" if ref_len > alt_len else "alt"
    return Stitch(longer, abs(ref_len - alt_len), bins.at(start))


def stitch_tracks(stitch: Stitch, first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Join both predictions of the longer allele, shape (..., bins, tracks) each."""
    end = max(0, stitch.bin + 1)
    return np.concatenate([first[..., :end, :], second[..., end:, :]], axis=-2)


def onto_reference(
    alt: NDArray[Any], bins: Bins, start: int, ref_len: int, alt_len: int
) -> tuple[NDArray[Any], Bools]:
    """Put a prediction of the ALT haplotype with a bin a base on the bins of REF.

    An inserted stretch and the base before it become their maximum, deleted bases 0.

    Args:
        alt: Shape (..., bins, tracks); its window has REF's left edge.
        bins: Of both windows, one base each.
        start: Place of the variant's first base; of an insertion the base after the junction.
        ref_len: Bases of the trimmed REF allele.
        alt_len: Bases of the trimmed ALT allele.

    Returns:
        The values on REF's bins, and which bins have one, shape (bins,). The others, at the right
        edge behind an insertion, lie outside the ALT window; they hold 0 and are for no mask.

    Raises:
        ValueError: A bin has more than one base.
    """
    if bins.size != 1:
        raise ValueError(f"bins of {bins.size} bases are stitched, not put on single bases")
    paired = start + min(ref_len, alt_len)
    grown, lost = max(0, alt_len - ref_len), max(0, ref_len - alt_len)
    place = bins.starts
    source = np.where(place < paired, place, place + grown - lost) - bins.first
    deleted = (place >= paired) & (place < paired + lost)
    known = (source >= 0) & (source < bins.count)
    out = np.where((known & ~deleted)[:, None], alt[..., np.clip(source, 0, bins.count - 1), :], 0)
    anchor = paired - 1 - bins.first
    if grown and 0 <= anchor < bins.count:
        out[..., anchor, :] = alt[..., anchor : anchor + 1 + grown, :].max(axis=-2)
        known[anchor] = anchor + grown < bins.count
        out[..., ~known, :] = 0
    return out.astype(alt.dtype), known | deleted


# --- the other strand --------------------------------------------------------------------------


def flip_tracks(reverse: NDArray[Any], pair: Ints) -> NDArray[Any]:
    """Turn predictions of the reverse complement into those of the forward strand.

    Args:
        reverse: Shape (..., bins, tracks).
        pair: Place of each track's strand pair, or its own, shape (tracks,).
    """
    flipped: NDArray[Any] = reverse[..., ::-1, :][..., pair]
    return flipped


def flip_contacts(reverse: NDArray[Any]) -> NDArray[Any]:
    """Turn maps (..., bins, bins) of the reverse complement into those of the forward strand."""
    return reverse[..., ::-1, ::-1]


def flip_upper(reverse: NDArray[Any], bins: int, diagonal: int) -> NDArray[Any]:
    """The same for upper triangles (..., pairs) of maps that are symmetric."""
    row, column = np.triu_indices(bins, diagonal)
    place = np.zeros((bins, bins), dtype=np.int64)
    place[row, column] = np.arange(row.size)
    flipped: NDArray[Any] = reverse[..., place[bins - 1 - column, bins - 1 - row]]
    return flipped


# --- contact maps ------------------------------------------------------------------------------


def upper_bins(pairs: int, diagonal: int) -> int:
    """Say how many bins an upper triangle of so many pairs has, row by row from a diagonal on.

    Raises:
        ValueError: No number of bins has so many pairs.
    """
    side = (int(np.sqrt(8 * pairs + 1)) - 1) // 2
    if side * (side + 1) // 2 != pairs:
        raise ValueError(f"{pairs} pairs are no upper triangle from diagonal {diagonal} on")
    return side + diagonal


def to_square(upper: NDArray[Any], diagonal: int) -> Floats:
    """Turn upper triangles (..., pairs) into symmetric maps; NaN near the diagonal, if left out."""
    bins = upper_bins(upper.shape[-1], diagonal)
    row, column = np.triu_indices(bins, diagonal)
    out = np.full((*upper.shape[:-1], bins, bins), np.nan)
    out[..., row, column] = out[..., column, row] = upper
    return out


def contact_l1(ref: NDArray[Any], alt: NDArray[Any], layout: Literal["square", "upper"]) -> Floats:
    """Mean absolute difference of maps over all pairs that the layout holds, shape (...)."""
    axes = (-2, -1) if layout == "square" else (-1,)
    return np.asarray(np.abs(alt.astype(np.float64) - ref).mean(axis=axes))


def insulation(maps: NDArray[Any], at: int, radius: int = INSULATION_RADIUS) -> Floats:
    """Insulation score of one bin.

    (max(l, r) + p) / (c + p), with the means l of the contacts among the `radius` bins before the
    bin, r among the `radius` bins from it on, c between the two, and p 30 times the map's mean.
    Fewer bins at the edges of the map; pairs that are NaN are left out.

    Args:
        maps: Shape (..., bins, bins).
        at: The bin.
        radius: In bins.

    Returns:
        Shape (...); NaN where nothing lies before the bin, or the bin outside the map.
    """
    count = maps.shape[-1]
    if not 0 < at < count:
        return np.full(maps.shape[:-2], np.nan)
    before, after = slice(max(0, at - radius), at), slice(at, min(count, at + radius))
    floor = _INSULATION_FLOOR * _mean(maps)
    inside = np.fmax(_mean(maps[..., before, before]), _mean(maps[..., after, after]))
    between = mean_across(maps, at, radius)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((inside + floor) / (between + floor))


def mean_across(maps: NDArray[Any], at: int, radius: int = INSULATION_RADIUS) -> Floats:
    """Mean of the contacts between both sides of a bin; arguments and NaN as `insulation`."""
    count = maps.shape[-1]
    if not 0 < at < count:
        return np.full(maps.shape[:-2], np.nan)
    return _mean(maps[..., max(0, at - radius) : at, at : min(count, at + radius)])


def insulation_change(
    ref: NDArray[Any], alt: NDArray[Any], at: int, radius: int = INSULATION_RADIUS
) -> Floats:
    """Insulation score of ALT minus that of REF; arguments as `insulation`."""
    return insulation(alt, at, radius) - insulation(ref, at, radius)


def _mean(maps: NDArray[Any]) -> Floats:
    """Mean over both axes of what is not NaN; NaN where that is nothing."""
    values = maps.astype(np.float64)
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=(-2, -1))
    number = known.sum(axis=(-2, -1))
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)
