"""Saturation mutagenesis in a picture of a locus: a logo, and below it what every base scores.

A letter is as high as the reference base matters: minus the mean score of the substitutions there.
So a base whose substitutions lower the score stands up, and one whose substitutions raise it hangs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from glm_annotate.answers import Floats
from glm_annotate.genome import Codes
from glm_annotate.locus_curves import ALT_COLOUR, REF_COLOUR, no_prediction, number, set_height
from glm_annotate.plots import INK, PALE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.path import Path

BASES = "ACGT"
_COLOURS = ("#009E73", "#0072B2", "#E69F00", "#D55E00")
_SIZE = 7.0  # of letters and numbers at the axes, in points
_MISSING = "#D4D4D4"


@dataclass(frozen=True, slots=True)
class Logo:
    """Scores of all substitutions of some neighbouring bases.

    Attributes:
        start: First base, 0-based.
        reference: Codes of `genome.ALPHABET`, shape (n,).
        values: Of A, C, G and T, shape (n, 4); 0 of the reference base, NaN where there is none.
        title: What the scores are.
    """

    start: int
    reference: Codes
    values: Floats
    title: str = ""

    def __post_init__(self) -> None:
        if self.values.shape != (self.reference.size, 4) or not self.reference.size:
            raise ValueError(f"{self.title}: {self.values.shape} values, not one a base and letter")

    @property
    def end(self) -> int:
        """Behind the last base."""
        return self.start + self.reference.size


def importance(logo: Logo) -> Floats:
    """Give minus the mean score of the substitutions that have one, shape (n,).

    NaN where there is no such score, or the reference is not A, C, G or T.
    """
    others = np.where(np.arange(4) == logo.reference[:, None], np.nan, logo.values)
    known = np.isfinite(others)
    count = np.where(logo.reference < 4, known.sum(axis=1), 0)
    total = np.where(known, others, 0.0).sum(axis=1)
    return np.where(count > 0, -total / np.maximum(count, 1), np.nan)


def draw_logo(axes: Axes, logo: Logo) -> None:
    """Draw the letters."""
    from matplotlib.patches import PathPatch
    from matplotlib.transforms import Affine2D

    heights = importance(logo)
    known = np.flatnonzero(np.isfinite(heights)).tolist()
    if not known:
        no_prediction(axes)
        return
    axes.axhline(0, color=PALE, linewidth=0.6, zorder=1)
    for i in known:
        base, height = int(logo.reference[i]), float(heights[i])
        place = Affine2D().scale(0.9, abs(height)).translate(logo.start + i + 0.05, min(height, 0))
        axes.add_patch(
            PathPatch(
                place.transform_path(_letter(base)), facecolor=_COLOURS[base], linewidth=0, zorder=3
            )
        )
    shown = heights[known]
    low, high = min(0.0, float(shown.min())), max(0.0, float(shown.max()))
    set_height(axes, low, high)


def draw_strip(axes: Axes, scale: Axes, logo: Logo, width: float) -> None:
    """Draw the scores of every base as colours, and dots on the reference.

    Args:
        axes: For the colours.
        scale: For what they mean.
        logo: The scores.
        width: Of a base, in points.
    """
    from matplotlib.colors import LinearSegmentedColormap

    known = np.abs(logo.values[np.isfinite(logo.values)])
    most = float(known.max()) if known.size and known.max() > 0 else 1.0
    # As in the panels above, blue is less than REF and vermillion more.
    shades = LinearSegmentedColormap.from_list(
        "less_more", ["#003A5C", REF_COLOUR, "#FAFAFA", ALT_COLOUR, "#6B2F00"]
    )
    axes.patch.set(visible=True, facecolor=_MISSING)
    edges = np.arange(logo.start, logo.end + 1), np.arange(5) - 0.5
    mesh = axes.pcolormesh(
        *edges, np.ma.masked_invalid(logo.values.T), cmap=shades, vmin=-most, vmax=most,
        edgecolors="white", linewidth=0.3 if width > 3 else 0,
    )  # fmt: skip
    axes.set_ylim(3.5, -0.5)
    axes.set_yticks(range(4), list(BASES), fontsize=_SIZE, color=INK)
    axes.tick_params(left=False)
    letters = np.flatnonzero(logo.reference < 4)
    axes.scatter(
        logo.start + letters + 0.5, logo.reference[letters], s=min(2.6, 0.5 * width) ** 2,
        color=INK, linewidth=0, zorder=3,
    )  # fmt: skip
    bar = axes.figure.colorbar(mesh, cax=scale)
    bar.outline.set_visible(False)
    bar.set_ticks([-most, 0, most], labels=[number(x, plus=True) for x in (-most, 0, most)])
    scale.tick_params(labelsize=_SIZE, colors=INK, length=2, pad=2)


@lru_cache(maxsize=4)
def _letter(base: int) -> Path:
    """Give the outline of a letter, stretched over the unit square."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import BboxTransformFrom

    font = FontProperties(family="DejaVu Sans", weight="bold")
    outline = TextPath((0, 0), BASES[base], size=1, prop=font)
    return BboxTransformFrom(outline.get_extents()).transform_path(outline)
