"""Pictures of an evaluation: estimates with their intervals, and curves over the width of windows.

Colours are Okabe and Ito's, which the colour-blind can tell apart, and every series has a marker.
"""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

INK, PALE = "#222222", "#8A8A8A"
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
_FONT = 8.0
_MOST_LINES = 60
_NAMES = 4  # of a line of a legend


@dataclass(frozen=True, slots=True)
class Point:
    """An estimate: the line that it is on, the series that it belongs to, value and interval."""

    line: str
    series: str
    value: float
    low: float
    high: float


def draw_forest(
    path: Path, points: Sequence[Point], *, title: str, label: str, chance: float | None
) -> bool:
    """Draw estimates as points with their intervals, a line each.

    Args:
        path: Of the picture.
        points: In the order of the lines, from the top.
        title: Above.
        label: Of the axis.
        chance: Where a vertical line marks what says nothing; None: nowhere.

    Returns:
        Whether it was drawn: not without matplotlib, or without a value.
    """
    points = [x for x in points if math.isfinite(x.value)]
    lines = list(dict.fromkeys(x.line for x in points))[:_MOST_LINES]
    series = list(dict.fromkeys(x.series for x in points))
    if not points or not _can_draw(path):
        return False
    height = 1.3 + 0.26 * len(lines) * max(1.0, 0.5 * len(series) if _shares(points) else 1.0)
    figure, axes = _blank(7.2, height, left=0.36, legend=len(series))
    for number, name in enumerate(series):
        shift = (number - (len(series) - 1) / 2) * 0.7 / len(series) if _shares(points) else 0.0
        of = [x for x in points if x.series == name and x.line in lines]
        y = [lines.index(x.line) + shift for x in of]
        colour, marker = _look(number)
        for x, at in zip(of, y, strict=True):
            if math.isfinite(x.low):
                axes.hlines(at, x.low, x.high, color=colour, linewidth=1.6, zorder=2)
        axes.scatter(
            [x.value for x in of], y, color=colour, marker=marker, s=26, label=name, zorder=3,
            edgecolor="white", linewidth=0.5,
        )  # fmt: skip
    if chance is not None:
        axes.axvline(chance, color=PALE, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.set_yticks(range(len(lines)), [_short(x) for x in lines], fontsize=_FONT)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_xlabel(label, fontsize=_FONT + 1)
    _finish(figure, axes, title, len(series) > 1)
    figure.savefig(path)
    return True


@dataclass(frozen=True, slots=True)
class Curve:
    """A line of estimates over widths, with intervals."""

    name: str
    widths: Sequence[float]
    values: Sequence[float]
    lows: Sequence[float]
    highs: Sequence[float]


def draw_curves(path: Path, curves: Sequence[Curve], *, title: str, label: str) -> bool:
    """Draw estimates over the width of the window, on an axis of powers of two.

    Returns:
        Whether it was drawn: not without matplotlib, or without a curve.
    """
    if not curves or not _can_draw(path):
        return False
    figure, axes = _blank(7.2, 3.8, left=0.1, legend=len(curves))
    for number, curve in enumerate(curves):
        colour, marker = _look(number)
        axes.plot(
            curve.widths, curve.values, color=colour, marker=marker, markersize=4.5,
            label=curve.name, zorder=3,
        )  # fmt: skip
        axes.fill_between(
            curve.widths, curve.lows, curve.highs, color=colour, alpha=0.15, linewidth=0
        )
    axes.set_xscale("log", base=2)
    widths = sorted({x for curve in curves for x in curve.widths})
    axes.set_xticks(widths, [f"{x:g}" for x in widths], fontsize=_FONT, minor=False)
    axes.set_xlabel("bases of its window that the model still sees", fontsize=_FONT + 1)
    axes.set_ylabel(label, fontsize=_FONT + 1)
    axes.grid(axis="y", color="#E5E5E5", linewidth=0.7, zorder=0)
    _finish(figure, axes, title, True)
    figure.savefig(path)
    return True


def _shares(points: Sequence[Point]) -> bool:
    """Say whether several series have points on one line."""
    return len({x.line for x in points}) < len({(x.line, x.series) for x in points})


def _can_draw(path: Path) -> bool:
    if importlib.util.find_spec("matplotlib") is not None:
        return True
    logger.warning(
        "%s is not drawn: it needs matplotlib; run: pip install 'glm_annotate[plots]'", path
    )
    return False


def _look(number: int) -> tuple[str, str]:
    """Give the colour and marker of a series; no two of forty-nine look alike."""
    round_, place = divmod(number, len(COLOURS))
    return COLOURS[place], MARKERS[(place + round_) % len(MARKERS)]


def _blank(width: float, height: float, left: float, legend: int) -> tuple[Figure, Axes]:
    """Make a figure (inches) with room above for a title and a legend of so many names."""
    from matplotlib.figure import Figure

    lines = -(-legend // _NAMES)
    height += 0.17 * lines
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    top, bottom = (0.4 + 0.2 * lines) / height, 0.5 / height
    axes = figure.add_axes((left, bottom, 0.97 - left, 1 - top - bottom))
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=_FONT, colors=INK)
    return figure, axes


def _finish(figure: Figure, axes: Axes, title: str, legend: bool) -> None:
    height = figure.get_size_inches()[1]
    figure.text(0.02, 1 - 0.22 / height, title, fontsize=_FONT + 2, color=INK, weight="bold")
    if legend:
        figure.legend(
            loc="upper left", bbox_to_anchor=(0.015, 1 - 0.26 / height), ncols=_NAMES,
            frameon=False, fontsize=_FONT, handletextpad=0.3, columnspacing=1.4,
        )  # fmt: skip


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:38]}..."
