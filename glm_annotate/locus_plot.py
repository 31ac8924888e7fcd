"""A picture of a locus: tracks of REF and ALT, their difference, genes, and a logo.

Numbers at the x axis are 1-based and stand in the middle of their bases, so that a variant stands
over its own POS. A logo with an axis of its own is joined by a shade to where it lies. Colours are
Okabe and Ito's, which the colour-blind can tell apart; without colour, dashes tell ALT from REF,
and up and down from 0 tell more from less.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm_annotate.locus_curves import ALT_COLOUR, ALT_DASHES, REF_COLOUR, draw_curve, draw_delta
from glm_annotate.locus_curves import Curve as Curve
from glm_annotate.locus_genes import GeneShape as GeneShape
from glm_annotate.locus_genes import draw_genes
from glm_annotate.locus_genes import genes_of as genes_of
from glm_annotate.locus_logo import Logo as Logo
from glm_annotate.locus_logo import draw_logo, draw_strip
from glm_annotate.locus_page import (
    COLUMNS,
    LEFT,
    MARGIN,
    NAMES,
    PANEL,
    TITLE,
    WIDTH,
    Page,
    Panel,
    page_of,
)
from glm_annotate.locus_page import Locus as Locus
from glm_annotate.locus_text import shortened, text_width, wrapped
from glm_annotate.plots import INK, PALE, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_NOTED = 100  # of fewer bases, the axis says where its numbers stand
_SIZE, _SMALL = 8.0, 7.0  # of text, in points
_LINE = 0.13  # from one line of a name to the next, in inches
_VARIANT, _SHADE = "#CC79A7", "#EDEDED"
_FAINT: dict[str, Any] = {"fontsize": _SMALL, "color": "#666666"}


def draw_locus(locus: Locus, path: str | Path) -> Path:
    """Draw a locus and write it in the format of the file's ending, such as png, svg or pdf.

    Raises:
        InputError: There is no matplotlib, the ending is no picture format, or the file cannot be
            written.
    """
    return save(locus_figure(locus), Path(path))


def locus_figure(locus: Locus) -> Figure:
    """Draw a locus.

    Raises:
        InputError: There is no matplotlib.
    """
    # Before the page, whose layout measures text: without matplotlib this says how to get it.
    figure = new_figure(WIDTH, 1.0)
    page = page_of(locus)
    figure.set_figheight(page.height)
    _mark_places(figure, page)
    axes = [_add_axes(figure, page, panel) for panel in page.panels]
    for number, (panel, here) in enumerate(zip(page.panels, axes, strict=True), 1):
        start, end = page.stretch(number > page.shared)
        _draw_panel(here, page, panel, (start, end))
        here.set_xlim(start, end)
        if number in (page.shared, len(axes)):
            _number_bases(here, locus.contig, start, end)
        else:
            here.tick_params(bottom=False, labelbottom=False)
    _write_head(figure, page)
    if page.notes:
        text = shortened(page.notes, _SMALL, 72 * (WIDTH - 2 * MARGIN))
        _write(figure, page, MARGIN, page.height - 0.08, text, va="bottom", **_FAINT)
    return figure


# --- panels ---------------------------------------------------------------------------------------


def _add_axes(figure: Figure, page: Page, panel: Panel) -> Axes:
    axes = figure.add_axes(page.box(LEFT, panel.top, PANEL, panel.height), label=panel.kind)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set(color=PALE, linewidth=0.6)
    axes.tick_params(colors=INK, length=2.5, width=0.6, pad=2)
    # What marks places lies behind all panels.
    axes.patch.set_visible(False)
    return axes


def _draw_panel(axes: Axes, page: Page, panel: Panel, stretch: tuple[int, int]) -> None:
    logo, hidden = page.locus.logo, page.genes.hidden
    name, below = "", ""
    if panel.curve and panel.kind == "curve":
        draw_curve(axes, panel.curve, stretch, COLUMNS)
        name, below = panel.curve.name, panel.curve.units
    elif panel.curve:
        draw_delta(axes, panel.curve, stretch, COLUMNS)
        below = "ALT \u2212 REF"
    elif panel.kind == "genes":
        draw_genes(axes, page.genes, *stretch)
        name, below = "genes", f"+{hidden:,} more" if hidden else ""
    elif logo and panel.kind == "logo":
        draw_logo(axes, logo)
        name, below = logo.title or "logo", "importance of REF"
    elif logo:
        box = page.box(LEFT + PANEL + 0.12, panel.top, 0.09, panel.height)
        scale = axes.figure.add_axes(box, label="scale")
        draw_strip(axes, scale, logo, 72 * PANEL / (stretch[1] - stretch[0]))
        below = "substitution by"
    if page.variant and panel.kind in ("logo", "strip"):
        start, end, _ = page.variant
        axes.axvspan(start, end, facecolor="none", edgecolor=_VARIANT, linewidth=1.2, zorder=4)
    _write_names(axes.figure, page, panel, name, below)


def _number_bases(axes: Axes, contig: str, start: int, end: int) -> None:
    """Write positions, 1-based, below the middles of their bases."""
    from matplotlib.ticker import MaxNLocator

    places = MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10], integer=True).tick_values(
        start + 1, end
    )
    shown = [int(x) for x in places if start + 1 <= x <= end] or [start + 1]
    axes.spines["bottom"].set(visible=True, color=PALE, linewidth=0.6)
    axes.set_xticks([x - 0.5 for x in shown], [f"{x:,}" for x in shown], fontsize=_SIZE)
    note = f"; {end - start} bases, numbers below their middles"
    axes.set_xlabel(
        f"position on {contig} (bp){note if end - start < _NOTED else ''}",
        fontsize=_SIZE, color=INK, labelpad=3, parse_math=False,
    )  # fmt: skip


def _mark_places(figure: Figure, page: Page) -> None:
    """Mark the variant, and where a logo with its own axis lies, behind all panels they cross."""
    from matplotlib.patches import Polygon

    top, bottom = page.panels[0].top, page.panels[page.shared - 1].bottom
    if page.shared < len(page.panels):
        start, end = page.stretch(own=True)
        if start < page.locus.end and end > page.locus.start:
            _mark(figure, page, "logo", (start, end), (top, bottom))
            below = page.panels[page.shared].top
            left, right = page.x(start), page.x(end)
            corners = (left, bottom), (right, bottom), (LEFT + PANEL, below), (LEFT, below)
            join = Polygon([page.box(*x)[:2] for x in corners], facecolor=_SHADE, linewidth=0)
            join.set(zorder=-3, alpha=0.6, transform=figure.transFigure, label="join")
            figure.add_artist(join)
    if page.variant:
        _mark(figure, page, "variant", page.variant[:2], (top - 0.04, bottom))


def _mark(
    figure: Figure, page: Page, name: str, bases: tuple[int, int], rows: tuple[float, float]
) -> None:
    from matplotlib.patches import Rectangle

    left, right = map(page.x, bases)
    x, y, width, height = page.box(left, rows[0], right - left, rows[1] - rows[0])
    fill, edge = {"variant": ("#F3DFEB", _VARIANT), "logo": (_SHADE, _SHADE)}[name]
    # The edge keeps a single base in sight.
    mark = Rectangle((x, y), width, height, facecolor=fill, edgecolor=edge, linewidth=0.8)
    mark.set(zorder=-1 if name == "variant" else -2, transform=figure.transFigure, label=name)
    figure.add_artist(mark)


# --- words ----------------------------------------------------------------------------------------


def _write(
    figure: Figure | SubFigure, page: Page, x: float, y: float, text: str, **kind: Any
) -> None:
    """Write at inches from the top left."""
    style = {"fontsize": _SIZE, "color": INK, "va": "top", "parse_math": False, **kind}
    figure.text(*page.box(x, y)[:2], text, **style)


def _write_names(
    figure: Figure | SubFigure, page: Page, panel: Panel, name: str, below: str
) -> None:
    """Write the name of a panel at the left, and below it in small what it shows."""
    lines = wrapped(name, _SIZE, 72 * NAMES, 2) if name else []
    for i, line in enumerate(lines):
        _write(figure, page, MARGIN, panel.top + i * _LINE, line)
    if below:
        y = panel.top + len(lines) * _LINE + 0.02
        _write(figure, page, MARGIN, y, shortened(below, _SMALL, 72 * NAMES), **_FAINT)


def _write_head(figure: Figure, page: Page) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    locus = page.locus
    title = locus.title or f"{locus.contig}:{locus.start + 1:,}\u2013{locus.end:,}"
    size, width = _SIZE + 4, 72 * (WIDTH - 2 * MARGIN)
    title = shortened(title, size, width, "bold")
    _write(figure, page, MARGIN, 0.12, title, fontsize=size, weight="bold")
    if locus.has_alt:
        handles = {
            "REF": Line2D([], [], color=REF_COLOUR, linewidth=1.4),
            "ALT": Line2D([], [], color=ALT_COLOUR, linewidth=1.4, linestyle=ALT_DASHES),
            "ALT above REF": Patch(color=ALT_COLOUR),
            "ALT below REF": Patch(color=REF_COLOUR),
        }
        figure.legend(
            list(handles.values()), list(handles), loc="upper left", ncols=4, frameon=False,
            bbox_to_anchor=page.box(LEFT, TITLE)[:2], fontsize=_SIZE, borderpad=0,
            borderaxespad=0, columnspacing=2, handlelength=2.4, handletextpad=0.6,
        )  # fmt: skip
    if page.variant:
        start, end, label = page.variant
        label = shortened(label, _SIZE, 72 * PANEL)
        half = text_width(label, _SIZE) / 144
        x = min(max(page.x((start + end) / 2), LEFT + half), LEFT + PANEL - half)
        _write(figure, page, x, page.panels[0].top - 0.05, label, ha="center", va="bottom")
