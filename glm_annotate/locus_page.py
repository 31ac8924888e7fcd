"""Where everything of a picture of a locus lies.

Decisions: the panels share one x axis, but for a logo that would be too small to be read on it, or
lies elsewhere: that has an axis of its own. Names have a column at the left, and whatever is cut
to a width is measured as it will be drawn, so that no text meets another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from glm_annotate.answers import Floats
from glm_annotate.locus_curves import Curve
from glm_annotate.locus_genes import GeneRows, GeneShape, gene_rows
from glm_annotate.locus_logo import Logo

Kind = Literal["curve", "delta", "genes", "logo", "strip"]
Box = tuple[float, float, float, float]

MOST_CURVES = 8
# Inches: of the page, around the panels, of names at the left, and of the panels.
WIDTH, MARGIN, LEFT, _RIGHT, NAMES = 11.0, 0.12, 2.0, 0.75, 1.24
PANEL = WIDTH - LEFT - _RIGHT
_HEIGHTS: dict[Kind, float] = {"curve": 0.64, "delta": 0.38, "logo": 0.7, "strip": 0.56}
_TALLER = {1: 1.6, 2: 1.25}  # panels of few tracks
_GENE_ROW = 0.31
_ABOVE: dict[Kind, float] = {
    "curve": 0.13,
    "delta": 0.05,
    "genes": 0.14,
    "logo": 0.14,
    "strip": 0.06,
}
TITLE, _LEGEND, _LABEL, _AXIS, _FOOT = 0.42, 0.26, 0.2, 0.46, 0.24
_JOIN = 0.3  # from the axis of the tracks to a logo with one of its own
# Columns are as wide as a line is: two pixels.
COLUMNS = round(PANEL * 75)
# Over a longer stretch the letters of a logo would be too thin on the axis of the tracks.
_MOST_LETTERS = 150


@dataclass(frozen=True, slots=True)
class Locus:
    """What a picture shows; coordinates are 0-based half-open.

    Attributes:
        contig: For the axis.
        start: First base that is drawn.
        end: Exclusive.
        curves: Tracks; of more than eight those that matter most are drawn. Without any, the
            stretch of the logo is drawn.
        genes: Those outside the stretch are left out.
        logo: Saturation mutagenesis.
        variant: Start, end and a label, such as `chr1:123 A>G`.
        title: If empty, the place.
    """

    contig: str
    start: int
    end: int
    curves: tuple[Curve, ...]
    genes: tuple[GeneShape, ...] = ()
    logo: Logo | None = None
    variant: tuple[int, int, str] | None = None
    title: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"{self.contig}:{self.start}-{self.end} has no base")
        if not self.curves and self.logo is None:
            raise ValueError(f"{self.contig}:{self.start}-{self.end}: nothing to draw")

    @property
    def has_alt(self) -> bool:
        """Whether a track has a line for ALT."""
        return any(x.alt is not None for x in self.curves)


@dataclass(frozen=True, slots=True)
class Panel:
    """A row of the page; `top` and `height` in inches, from the top."""

    kind: Kind
    top: float
    height: float
    curve: Curve | None = None

    @property
    def bottom(self) -> float:
        """Where it ends, in inches from the top."""
        return self.top + self.height


@dataclass(frozen=True, slots=True)
class Page:
    """Where everything of a picture lies, inches from the top.

    Attributes:
        locus: With the tracks, and the bins of them, that are drawn.
        genes: In rows.
        notes: For the foot of the page.
        panels: From the top.
        shared: How many of them have the axis of the tracks.
        height: Of the page.
    """

    locus: Locus
    genes: GeneRows
    notes: str
    panels: tuple[Panel, ...]
    shared: int
    height: float

    def x(self, base: float) -> float:
        """Place a base on the axis of the tracks, in inches from the left."""
        start, end = self.locus.start, self.locus.end
        return LEFT + PANEL * (min(max(base, start), end) - start) / (end - start)

    def box(self, left: float, top: float, width: float = 0.0, height: float = 0.0) -> Box:
        """Turn inches from the top left into parts of the page from the bottom left."""
        return left / WIDTH, 1 - (top + height) / self.height, width / WIDTH, height / self.height

    def stretch(self, own: bool) -> tuple[int, int]:
        """Give what an axis shows: that of the tracks, or that of the logo alone."""
        shown = self.locus.logo if own and self.locus.logo else self.locus
        return shown.start, shown.end

    @property
    def variant(self) -> tuple[int, int, str] | None:
        """The variant, if it touches the stretch."""
        found = self.locus.variant
        if found is None or found[1] < self.locus.start or found[0] >= self.locus.end:
            return None
        return found


def chosen(curves: Sequence[Curve], most: int = MOST_CURVES) -> tuple[Curve, ...]:
    """Take the tracks with the largest absolute ALT - REF, or without ALT with the largest mean.

    Those that are taken keep their order; tracks without a number are the last to be taken.
    """
    ranks = [(_most(curve.delta), _mean(curve.ref)) for curve in curves]
    best = sorted(range(len(curves)), key=lambda i: ranks[i], reverse=True)[:most]
    return tuple(curves[i] for i in sorted(best))


def _most(values: Floats | None) -> float:
    known = np.abs(values[np.isfinite(values)]) if values is not None else np.zeros(0)
    return float(known.max()) if known.size else -np.inf


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else -np.inf


def page_of(locus: Locus) -> Page:
    """Choose what is drawn of a locus, and give every panel its place."""
    if not locus.curves and locus.logo is not None:
        locus = replace(locus, start=locus.logo.start, end=locus.logo.end)
    given, start, end = locus.curves, locus.start, locus.end
    locus = replace(locus, curves=chosen([x.within(start, end) for x in given]))
    first = None if locus.variant is None else locus.variant[:2]
    genes = gene_rows(locus.genes, start, end, 72 * PANEL, first)
    notes = _notes(locus, len(given))
    page = Page(locus, genes, notes, (), 0, 0.0)
    top = TITLE + _LEGEND * locus.has_alt + _LABEL * (page.variant is not None)
    panels, shared = _panels(locus, genes.count, top)
    height = panels[-1].bottom + _AXIS + _FOOT * bool(notes)
    return replace(page, panels=tuple(panels), shared=shared, height=height)


def _panels(locus: Locus, gene_rows: int, top: float) -> tuple[list[Panel], int]:
    """Stack the panels, and count those on the axis of the tracks."""
    panels: list[Panel] = []

    def add(kind: Kind, height: float, above: float, curve: Curve | None = None) -> None:
        panels.append(Panel(kind, panels[-1].bottom + above if panels else top, height, curve))

    taller = _TALLER.get(len(locus.curves), 1.0)
    for curve in locus.curves:
        add("curve", _HEIGHTS["curve"] * taller, _ABOVE["curve"], curve)
        if curve.alt is not None:
            add("delta", _HEIGHTS["delta"] * taller, _ABOVE["delta"], curve)
    if gene_rows:
        add("genes", _GENE_ROW * gene_rows, _ABOVE["genes"])
    if locus.logo is None:
        return panels, len(panels)
    within = locus.start <= locus.logo.start and locus.logo.end <= locus.end
    fits = within and locus.end - locus.start <= _MOST_LETTERS
    apart = bool(locus.curves) and not fits
    shared = len(panels) if apart else len(panels) + 2
    add("logo", _HEIGHTS["logo"], _AXIS + _JOIN if apart else _ABOVE["logo"])
    add("strip", _HEIGHTS["strip"], _ABOVE["strip"])
    return panels, shared


def _notes(locus: Locus, given: int) -> str:
    notes = []
    if given > len(locus.curves):
        most = "|ALT \u2212 REF|" if locus.has_alt else "mean"
        notes.append(f"{len(locus.curves)} of {given} tracks: those with the largest {most}")
    if any(x.ref.size > COLUMNS for x in locus.curves):
        notes.append("where bins are many, lines are the highest and the lowest of neighbours")
    if locus.logo is not None and not np.isfinite(locus.logo.values).all():
        notes.append("grey: no score")
    return "; ".join(notes)
