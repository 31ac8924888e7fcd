"""Tracks in a picture of a locus: REF, ALT over it, and below them how much ALT is above REF.

Where a stretch has more bins than the panel has columns, a column shows the lowest and the highest
of the bins whose middles lie in it. So no peak is lost however narrow it is; what is lost is the
order within a column, and bins without a value beside others that have one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from glm_annotate.answers import Floats, Ints
from glm_annotate.plots import INK, PALE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REF_COLOUR, ALT_COLOUR = "#0072B2", "#D55E00"
# Dashes tell ALT from REF where there is no colour.
ALT_DASHES = (0, (2.2, 1.1))
_SIZE = 7.0  # of numbers at the axis, in points


@dataclass(frozen=True, slots=True)
class Curve:
    """One track.

    Attributes:
        name: Shown at the left.
        starts: First bases of the bins, 0-based in REF, ascending, shape (n,).
        span: Bases of a bin; bins do not overlap.
        ref: Shape (n,); NaN where there is nothing.
        alt: The same of the other allele, or None.
        units: Shown below the name.
        signed: Values lie on both sides of 0, and the axis does as well.
    """

    name: str
    starts: Ints
    span: int
    ref: Floats
    alt: Floats | None = None
    units: str = ""
    signed: bool = False

    def __post_init__(self) -> None:
        lengths = {len(x) for x in (self.starts, self.ref, self.alt) if x is not None}
        if len(lengths) > 1 or self.span < 1 or (np.diff(self.starts) < self.span).any():
            raise ValueError(f"{self.name}: bins of {self.span} bases overlap or lack values")

    def within(self, start: int, end: int) -> Curve:
        """Keep the bins that share a base with a stretch; what is infinite becomes NaN."""
        first = int(np.searchsorted(self.starts, start - self.span, "right"))
        last = max(first, int(np.searchsorted(self.starts, end, "left")))
        alt = None if self.alt is None else _finite(self.alt[first:last])
        starts, ref = self.starts[first:last], _finite(self.ref[first:last])
        return replace(self, starts=starts, ref=ref, alt=alt)

    @property
    def delta(self) -> Floats | None:
        """ALT - REF, shape (n,); None: there is no ALT."""
        return None if self.alt is None else self.alt - self.ref


@dataclass(frozen=True, slots=True)
class Steps:
    """What is drawn of some values: pieces of the x axis, each with its lowest and highest.

    Attributes:
        lefts: In bases, shape (m,).
        rights: The same; where it is not the next piece's left, there is a gap.
        low: NaN where there is nothing.
        high: The same as `low` unless pieces hold several bins.
        columns: Whether pieces are columns that hold several bins.
    """

    lefts: Floats
    rights: Floats
    low: Floats
    high: Floats
    columns: bool

    @property
    def x(self) -> Floats:
        """Corners of the steps in bases, NaN in gaps."""
        return self._broken(np.stack([self.lefts, self.rights], axis=1).ravel())

    def y(self, values: Floats) -> Floats:
        """Give the heights at `x` of values of the pieces."""
        return self._broken(np.repeat(values, 2))

    def _broken(self, corners: Floats) -> Floats:
        gaps = np.flatnonzero(self.rights[:-1] != self.lefts[1:])
        return np.insert(corners, 2 * (gaps + 1), np.nan)


def steps_of(
    starts: Ints, span: int, values: Floats, stretch: tuple[int, int], columns: int
) -> Steps:
    """Reduce bins to what a panel can show.

    Args:
        starts: Of the bins, 0-based, ascending, shape (n,).
        span: Bases of a bin.
        values: Shape (n,).
        stretch: Start and end of the panel.
        columns: Of the panel.
    """
    if values.size <= columns:
        lefts = starts.astype(np.float64)
        return Steps(lefts, lefts + span, values, values, columns=False)
    start, end = stretch
    # Bins that stick out at an edge belong to the column there.
    middles = np.clip(starts + span / 2, start, end)
    where = np.minimum((middles - start) * columns // (end - start), columns - 1).astype(np.int64)
    first = np.flatnonzero(np.diff(where, prepend=-1))
    edges = np.linspace(start, end, columns + 1)
    held = where[first]
    return Steps(
        edges[held],
        edges[held + 1],
        np.fmin.reduceat(values, first),
        np.fmax.reduceat(values, first),
        columns=True,
    )


def draw_curve(axes: Axes, curve: Curve, stretch: tuple[int, int], columns: int) -> None:
    """Draw REF, filled, and ALT over it, dashed."""
    drawn = [(curve.ref, REF_COLOUR, "-"), (curve.alt, ALT_COLOUR, ALT_DASHES)]
    held = [x for x, _, _ in drawn if x is not None]
    limits = _limits(np.concatenate(held), signed=curve.signed)
    if limits is None:
        no_prediction(axes)
        return
    axes.axhline(0, color=PALE, linewidth=0.6, zorder=1)
    for values, colour, dashes in drawn:
        if values is None:
            continue
        steps = steps_of(curve.starts, curve.span, values, stretch, columns)
        if colour == REF_COLOUR:
            _fill(axes, steps, np.minimum(steps.low, 0), np.maximum(steps.high, 0), colour, 0.22)
        for edge in (steps.high, steps.low) if steps.columns else (steps.high,):
            axes.plot(
                steps.x, steps.y(edge), color=colour, linestyle=dashes,
                linewidth=0.8 if steps.columns else 1.1, zorder=3,
                dash_capstyle="butt", solid_joinstyle="round",
            )  # fmt: skip
    set_height(axes, *limits)


def draw_delta(axes: Axes, curve: Curve, stretch: tuple[int, int], columns: int) -> None:
    """Draw ALT - REF up and down from 0, in the colour of the allele that has more."""
    delta = curve.delta
    if delta is None:
        return
    limits = _limits(delta, signed=True)
    if limits is None:
        no_prediction(axes)
        return
    axes.axhline(0, color=PALE, linewidth=0.6, zorder=1)
    steps = steps_of(curve.starts, curve.span, delta, stretch, columns)
    zero = 0.0 * steps.low  # NaN stays
    _fill(axes, steps, zero, np.maximum(steps.high, 0), ALT_COLOUR, 0.9)
    _fill(axes, steps, np.minimum(steps.low, 0), zero, REF_COLOUR, 0.9)
    set_height(axes, *limits, plus=True)


def number(value: float, *, plus: bool = False) -> str:
    """Write a number at an axis: three digits, a true minus, on request a plus."""
    text = f"{value:+.3g}" if plus and value else f"{value:.3g}"
    return text.replace("-", "\u2212")


def set_height(axes: Axes, low: float, high: float, *, plus: bool = False) -> None:
    """Let a panel show what lies between two numbers, 0 among them, and write them at its axis."""
    if low == high:  # nothing but 0, for which there is no scale
        axes.set_ylim(-1, 1)
    else:
        margin = 0.06 * (high - low)
        axes.set_ylim(low - margin * (low < 0), high + margin * (high > 0))
    # 0 has a number of its own where there is room between the others.
    ticks = sorted(
        {low, high} if plus or min(-low, high) < 0.3 * (high - low) else {low, 0.0, high}
    )
    axes.set_yticks(ticks, [number(x, plus=plus) for x in ticks], fontsize=_SIZE, color=INK)
    # The outer numbers keep inside the panel, away from those of its neighbours.
    for label, where in zip(axes.get_yticklabels(), ticks, strict=True):
        inner = low < where < high or low == high
        label.set_verticalalignment("center" if inner else "top" if where == high else "bottom")


def no_prediction(axes: Axes) -> None:
    """Say that a panel has nothing to show."""
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.text(
        *(0.5, 0.5), "no prediction", transform=axes.transAxes, fontsize=_SIZE + 1, color=PALE,
        ha="center", va="center", style="italic",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )  # fmt: skip


def _limits(values: Floats, *, signed: bool) -> tuple[float, float] | None:
    """Find the least and the greatest to be shown, 0 among them; None: there is no value."""
    known = values[np.isfinite(values)]
    if not known.size:
        return None
    low, high = min(0.0, float(known.min())), max(0.0, float(known.max()))
    most = max(-low, high)
    return (-most, most) if signed else (low, high)


def _finite(values: Floats) -> Floats:
    return np.where(np.isfinite(values), values, np.nan)


def _fill(axes: Axes, steps: Steps, low: Floats, high: Floats, colour: str, alpha: float) -> None:
    axes.fill_between(
        steps.x, steps.y(low), steps.y(high), color=colour, alpha=alpha, linewidth=0, zorder=2
    )
