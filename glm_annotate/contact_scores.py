"""Scores of contact maps: where the pairs of a layout lie, and the table that names the scores.

Maps are compared as the graph gives them, (maps, bins, bins), or (maps, pairs) where only the upper
triangle is given, row by row; that is of a symmetric map. What is nearer to the diagonal than the
card's `diagonal` does not count. Decisions: ALT's window has REF's left edge, so that behind an
insertion or deletion a bin of ALT holds other bases than that of REF; insulation of a map that is
not symmetric is that of the mean of the map and its transpose, since contacts have no direction.
Maps of log(observed/expected) have a mean near 0, and a ratio of means would be of any size: their
insulation is the mean of the contacts across the bin with its sign turned, so that of any map a
change above 0 means that the sides of the bin are kept apart more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from glm_annotate.card import ContactRule, ModelCard
from glm_annotate.track_windows import (
    Bins,
    bins_of,
    contact_l1,
    flip_contacts,
    flip_upper,
    insulation_change,
    mean_across,
    to_square,
)

if TYPE_CHECKING:
    from glm_annotate.scores import Kind

Floats = NDArray[np.float64]
# `units` of maps that are around 0, as tracks.tsv has them.
_LOG_RATIO = re.compile(
    r"(log|ln|log2|log10)\s*\(\s*obs(erved)?\s*/\s*exp(ected)?\s*\)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a model lays out its maps.

    Attributes:
        rule: The card's.
        bins: Of a side of a map.
        at: The bin of a variant's first base; may lie outside.
        ratios: Of every map whether it holds logarithms of observed to expected contacts; none
            does where this is empty.
    """

    rule: ContactRule
    bins: Bins
    at: int
    ratios: tuple[bool, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """What one map has: (bins, bins) or (pairs,)."""
        side = self.bins.count
        if self.rule.layout == "square":
            return side, side
        kept = max(0, side - self.rule.diagonal)
        return (kept * (kept + 1) // 2,)

    def split(self, answer: NDArray[Any]) -> NDArray[Any]:
        """Put the maps of one window first: (*shape) or (*shape, maps) to (maps, *shape)."""
        if answer.ndim == len(self.shape):
            return answer[None]
        return np.moveaxis(answer, -1, 0)

    def flip(self, reverse: NDArray[Any]) -> NDArray[Any]:
        """Turn maps of the reverse complement into those of the forward strand."""
        if self.rule.layout == "square":
            return flip_contacts(reverse)
        return flip_upper(reverse, self.bins.count, self.rule.diagonal)

    def has_insulation(self, radius: int) -> bool:
        """Say whether the variant's bin has bins at its sides that reach beyond the diagonal."""
        before, after = min(self.at, radius), min(self.bins.count - self.at, radius)
        return min(before, after) > 0 and max(before, after) > self.rule.diagonal


def layout_of(card: ModelCard, units: Sequence[str] = ()) -> Layout:
    """Read a card's layout, and off the units of the maps which are logarithms of ratios.

    Raises:
        ValueError: The card has no contacts.
    """
    if card.contacts is None:
        raise ValueError(f"{card.name}: a card without contacts")
    bins = bins_of(card.context, card.contacts.bin_size, card.crop)
    ratios = tuple(_LOG_RATIO.fullmatch(text.strip()) is not None for text in units)
    return Layout(card.contacts, bins, bins.at(card.anchor), ratios)


def _difference(layout: Layout, ref: Floats, alt: Floats, options: Mapping[str, str]) -> Floats:
    rule = layout.rule
    if rule.layout == "square" and rule.diagonal:
        kept = ~_near(layout)
        return contact_l1(ref[:, kept], alt[:, kept], "upper")
    return contact_l1(ref, alt, rule.layout)


def _insulation(layout: Layout, ref: Floats, alt: Floats, options: Mapping[str, str]) -> Floats:
    radius = int(options["radius"])
    if not layout.has_insulation(radius):
        return np.full(ref.shape[0], np.nan)
    sides = (_whole(layout, ref), _whole(layout, alt))
    change = insulation_change(*sides, layout.at, radius)
    if not any(layout.ratios):
        return change
    across = mean_across(sides[0], layout.at, radius) - mean_across(sides[1], layout.at, radius)
    return np.where(layout.ratios, across, change)


def _whole(layout: Layout, maps: Floats) -> Floats:
    """Give symmetric maps (maps, bins, bins), NaN near the diagonal where that is left out."""
    rule = layout.rule
    if rule.layout == "upper":
        return to_square(maps, rule.diagonal)
    if not rule.symmetric:
        maps = (maps + maps.swapaxes(-2, -1)) / 2
    return np.where(_near(layout), np.nan, maps) if rule.diagonal else maps


def _near(layout: Layout) -> NDArray[np.bool_]:
    place = np.arange(layout.bins.count)
    return np.asarray(np.abs(place[:, None] - place) < layout.rule.diagonal)


@dataclass(frozen=True, slots=True)
class ContactScore:
    """A score of contact maps.

    Attributes:
        kind: What swapping the alleles does, as in `scores`.
        compute: From the layout, REF and ALT (maps, ...) and options to numbers (maps,).
        formula: For the header of a VCF.
        keys: Options that may follow the name.
    """

    kind: Kind
    compute: Callable[[Layout, Floats, Floats, Mapping[str, str]], Floats]
    formula: str
    keys: tuple[str, ...] = ()


_INDELS = "insertions and deletions are aligned at the left edge of the window alone"
CONTACT_SCORES: dict[str, ContactScore] = {
    "CONTACT_L1": ContactScore(
        "distance", _difference, f"mean of |ALT - REF| over the contact map, {_INDELS}"
    ),
    "INSULATION": ContactScore(
        "signed",
        _insulation,
        "insulation score at the bin of the variant, ALT - REF (of a map that is not symmetric: of "
        "its mean with its transpose; of one of log(observed/expected): minus the mean across the "
        f"bin), {_INDELS}",
        ("radius",),
    ),
}


def score_contacts(
    name: str, layout: Layout, ref: Floats, alt: Floats, options: Mapping[str, str]
) -> Floats:
    """Compute one score of every map.

    Args:
        name: Row of `CONTACT_SCORES`.
        layout: Of the maps.
        ref: Averaged over strands, shape (maps, *layout.shape).
        alt: The same shape.
        options: Of the score.

    Returns:
        Shape (maps,); NaN where there is no number, as where a map has a value that is none.
    """
    axes = tuple(range(1, ref.ndim))
    fine = np.isfinite(ref).all(axis=axes) & np.isfinite(alt).all(axis=axes)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        numbers = CONTACT_SCORES[name].compute(layout, ref, alt, options)
    return np.where(fine, numbers, np.nan)
