"""Genes in a picture of a locus: their shapes, and rows of them in which nothing overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from glm_annotate.gene_models import GeneModels
from glm_annotate.locus_text import shortened, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_ROWS = 6
_SIZE = 7.5  # of names, in points
_GAP = 5.0  # between neighbours in a row, in points
_ARROWS = 14.0  # from one arrow of an intron to the next, in points
_COLOUR = "#44525E"


@dataclass(frozen=True, slots=True)
class GeneShape:
    """A gene to draw; coordinates are 0-based half-open, exons ascending and disjoint."""

    name: str
    strand: str
    start: int
    end: int
    exons: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Placed:
    """A gene in its row.

    Attributes:
        gene: What it is.
        row: From 0 at the top.
        label: Its name, with the strand where there is no room for arrows.
        middle: Of the label, in bases.
        arrows: Where arrows along the strand go, in bases, and whether it is on an exon.
    """

    gene: GeneShape
    row: int
    label: str
    middle: float
    arrows: tuple[tuple[float, bool], ...]


@dataclass(frozen=True, slots=True)
class GeneRows:
    """The genes that found room in some rows, and how many others lie in the stretch."""

    placed: tuple[Placed, ...]
    hidden: int

    @property
    def count(self) -> int:
        """Rows that hold a gene."""
        return 1 + max((x.row for x in self.placed), default=-1)


def genes_of(models: GeneModels, contig: str, start: int, end: int) -> tuple[GeneShape, ...]:
    """Take the genes that share a base with a stretch, 0-based half-open, by their start."""
    return tuple(
        GeneShape(x.name, x.strand, x.start, x.end, tuple((a, b) for a, b in x.exons.tolist()))
        for x in models.overlapping(contig, start, end)
    )


def packed(spans: Sequence[tuple[float, float]], most: int, gap: float = 0.0) -> list[int | None]:
    """Put each span in the first row where it keeps a gap from all before it.

    Spans that come in the order of their starts take as few rows as can be.

    Args:
        spans: Left and right, in the order in which they may choose.
        most: How many rows there are.
        gap: Between two in a row.

    Returns:
        A row for each, from 0 on; None: there was no room.
    """
    rows: list[list[tuple[float, float]]] = [[] for _ in range(most)]
    found: list[int | None] = []
    for left, right in spans:
        fits = (
            number
            for number, row in enumerate(rows)
            if all(right + gap <= a or b + gap <= left for a, b in row)
        )
        row = next(fits, None)
        if row is not None:
            rows[row].append((left, right))
        found.append(row)
    return found


def gene_rows(
    genes: Sequence[GeneShape],
    start: int,
    end: int,
    width: float,
    first: tuple[int, int] | None = None,
) -> GeneRows:
    """Place genes and their names in rows.

    Args:
        genes: In any order; those that share no base with the stretch are left out.
        start: Of the stretch, 0-based.
        end: Exclusive.
        width: Of the stretch on the page, in points.
        first: A stretch whose genes must not be those without room.
    """
    unit = (end - start) / width  # bases of a point
    seen = sorted(
        (x for x in genes if x.start < end and x.end > start),
        key=lambda x: (first is None or not _touches(x, first), x.start, x.end, x.name),
    )
    spans, drafts = [], []
    for gene in seen:
        left, right = max(gene.start, start), min(gene.end, end)
        arrows = _arrows(gene, left, right, _ARROWS * unit)
        label = shortened(_label(gene, has_arrows=bool(arrows)), _SIZE, width)
        half = text_width(label, _SIZE) * unit / 2
        # The name keeps inside the picture where the gene lies at its edge.
        middle = min(max((left + right) / 2, start + half), max(end - half, start + half))
        spans.append((min(left, middle - half), max(right, middle + half)))
        drafts.append((gene, label, middle, arrows))
    rows = packed(spans, _MOST_ROWS, _GAP * unit)
    placed = tuple(
        Placed(gene, row, label, middle, arrows)
        for (gene, label, middle, arrows), row in zip(drafts, rows, strict=True)
        if row is not None
    )
    return GeneRows(placed, len(seen) - len(placed))


def draw_genes(axes: Axes, rows: GeneRows, start: int, end: int) -> None:
    """Draw rows of genes: exons are boxes, introns lines with arrows along the strand.

    Args:
        axes: Their x axis is in bases.
        rows: Of the stretch.
        start: Of the stretch, 0-based.
        end: Exclusive.
    """
    axes.set_ylim(rows.count - 0.33, -0.36)
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    for item in rows.placed:
        gene, row = item.gene, item.row
        left, right = max(gene.start, start), min(gene.end, end)
        axes.hlines(row, left, right, color=_COLOUR, linewidth=1, zorder=2)
        exons = [(max(a, left), min(b, right)) for a, b in gene.exons if a < right and b > left]
        # The edge keeps exons narrower than a pixel in sight.
        axes.broken_barh(
            [(a, b - a) for a, b in exons], (row - 0.18, 0.36), facecolor=_COLOUR,
            edgecolor=_COLOUR, linewidth=0.6, zorder=3,
        )  # fmt: skip
        _draw_arrows(axes, item)
        axes.text(
            item.middle, row + 0.25, item.label, fontsize=_SIZE, ha="center", va="top",
            color=_COLOUR, parse_math=False,
        )  # fmt: skip


def _touches(gene: GeneShape, stretch: tuple[int, int]) -> bool:
    return gene.start <= stretch[1] and gene.end >= stretch[0]


def _arrows(gene: GeneShape, left: int, right: int, step: float) -> tuple[tuple[float, bool], ...]:
    """Place arrows a step apart, see `Placed`, but for those that would touch an exon's edge."""
    if gene.strand not in "+-":
        return ()
    places = np.arange(left + step / 2, right - step / 3, step).tolist()
    edges = np.array([x for exon in gene.exons for x in exon], dtype=np.float64)
    return tuple(
        (place, bool(np.searchsorted(edges, place) % 2))
        for place in places
        if np.abs(edges - place).min(initial=step) > step / 4
    )


def _label(gene: GeneShape, *, has_arrows: bool) -> str:
    if has_arrows or gene.strand not in "+-":
        return gene.name
    return f"{gene.name} \u2192" if gene.strand == "+" else f"\u2190 {gene.name}"


def _draw_arrows(axes: Axes, item: Placed) -> None:
    """Draw arrows, dark on introns and white on exons."""
    from matplotlib.path import Path

    marker = [(-0.3, 0.6), (0.3, 0.0), (-0.3, -0.6)]
    if item.gene.strand == "-":
        marker = [(-x, y) for x, y in marker]
    for on_exon, colour in ((True, "white"), (False, _COLOUR)):
        places = [x for x, inside in item.arrows if inside is on_exon]
        axes.plot(
            places, [item.row] * len(places), marker=Path(marker), markersize=4.5,
            linestyle="none", markerfacecolor="none", markeredgecolor=colour, markeredgewidth=1,
            zorder=4,
        )  # fmt: skip
