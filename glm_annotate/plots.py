"""An annotated VCF in, a picture out: scores along one contig, coloured by what is known.

Decisions: an allele without the first score is drawn hollow at its fallback score, so that indels
are seen too; alleles without either are counted in the corner, never dropped in silence. A few
scores far from all others would flatten the rest: they are drawn at the edge with their value.
Colours are Okabe and Ito's, which the colour-blind can tell apart, and every class has a shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, Any

from glm_annotate.errors import InputError
from glm_annotate.plot_data import (
    Region,
    Scale,
    ScoredAllele,
    auroc,
    read_alleles,
    read_regions,
    scale_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, PALE = "#222222", "#8A8A8A"
# What a format calls the date that it would write.
_DATES = {"svg": "Date", "pdf": "CreationDate"}
_SPARE_COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#000000")
_FONT = 8.0
# Width of an average letter and height of a line of text, in units of the font size.
_LETTER, _LINE = 0.58, 1.25
# Where a label may stand, in points from the marker; the first that is free is taken.
_OFFSETS = ((7, 0), (-7, 0), (0, -9), (0, 9), (6, -8), (-6, -8), (6, 8), (-6, 8))


@dataclass(frozen=True, slots=True)
class Style:
    """How the alleles of one class are drawn."""

    colour: str
    marker: str
    title: str


STYLES = {
    "benign_haplogroup": Style("#0072B2", "o", "haplogroup marker"),
    "benign_common": Style("#56B4E9", "^", "common polymorphism"),
    "pathogenic_confirmed": Style("#D55E00", "D", "confirmed pathogenic"),
}

_Point = tuple[float, float, ScoredAllele]
_Box = tuple[float, float, float, float]


def plot_scores(
    vcf_path: str | Path,
    out_png: str | Path,
    *,
    key: str = "MITO_LLR",
    fallback: str | None = "MITO_PLLR",
    class_field: str = "CLASS",
    regions: str | Path | None = None,
    highlight: Sequence[str] = (),
    title: str | None = None,
) -> Path:
    """Draw the scores of a VCF along its contig and, beside them, how the classes separate.

    Args:
        vcf_path: VCF or BCF with records of one contig.
        out_png: The picture; another ending of the name gives another format (pdf, svg).
        key: INFO field with one number an ALT.
        fallback: INFO field to use where `key` has no number, if the file has it.
        class_field: INFO field that names what is known of a record.
        regions: BED of genes to draw below.
        highlight: Names (IDs of the VCF) of alleles to label before all others.
        title: Heading of the picture.

    Raises:
        InputError: The file has no such field, no score or several contigs, or the picture cannot
            be written.
    """
    figure = new_figure(13, 6.6)
    contig, length, alleles = read_alleles(Path(vcf_path), key, fallback, class_field)
    genes = read_regions(Path(regions), contig) if regions else []
    styles, scale = _styles_of(alleles), scale_of([x.score for x in alleles if x.score is not None])
    main, side, track = _axes(figure)
    _draw_scores(main, alleles, styles, scale, (key, fallback))
    _draw_separation(side, alleles, styles, scale)
    _draw_track(track, genes, contig, length)
    _label_outstanding(main, alleles, styles, scale, highlight)
    _draw_heading(figure, title or f"{key} along {contig}", alleles, styles)
    return save(figure, Path(out_png))


def new_figure(width: float, height: float) -> Figure:
    """Make a figure that pyplot knows nothing of; sizes are in inches.

    Raises:
        InputError: There is no matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(
            "pictures need matplotlib; run: pip install 'glm_annotate[plots]'"
        ) from error
    return Figure(figsize=(width, height), dpi=150, facecolor="white")


def check_picture(path: str | Path) -> None:
    """Check that a picture of this name can be made.

    Raises:
        InputError: There is no matplotlib, or the ending is no picture format.
    """
    figure, ending = new_figure(1, 1), Path(path).suffix
    known = figure.canvas.get_supported_filetypes()
    if ending[1:].lower() not in known:
        raise InputError(
            f"{path}: {ending or 'no ending'} is no picture format; known are "
            f"{', '.join(sorted(known))}"
        )


def save(figure: Figure, path: Path) -> Path:
    """Write a picture in the format of its ending; the same picture gives the same bytes.

    Raises:
        InputError: The ending is no picture format, or the file cannot be written.
    """
    from matplotlib import rc_context

    check_picture(path)
    ending = path.suffix[1:].lower()
    undated: dict[str, Any] = {"metadata": {_DATES[ending]: None}} if ending in _DATES else {}
    try:
        # Text of an SVG stays text, and its identifiers are those of every run.
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": "glm_annotate"}):
            figure.savefig(path, **undated)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def _styles_of(alleles: Sequence[ScoredAllele]) -> dict[str, Style]:
    present = dict.fromkeys(x.known for x in alleles if x.score is not None)
    others = [name for name in present if name not in STYLES]
    spare = {
        name: Style(_SPARE_COLOURS[i % len(_SPARE_COLOURS)], "sPXv"[i % 4], name.replace("_", " "))
        for i, name in enumerate(others)
    }
    return {name: style for name, style in {**STYLES, **spare}.items() if name in present}


def _axes(figure: Figure) -> tuple[Axes, Axes, Axes]:
    main = figure.add_axes((0.065, 0.235, 0.665, 0.63))
    side = figure.add_axes((0.775, 0.235, 0.205, 0.63), sharey=main)
    track = figure.add_axes((0.065, 0.075, 0.665, 0.13), sharex=main)
    for axes in (main, side, track):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=_FONT + 1, colors=INK)
    main.tick_params(labelbottom=False, bottom=False)
    main.spines["bottom"].set_visible(False)
    return main, side, track


def _draw_scores(
    axes: Axes,
    alleles: Sequence[ScoredAllele],
    styles: Mapping[str, Style],
    scale: Scale,
    keys: tuple[str, str | None],
) -> None:
    axes.axhline(0, color=PALE, linewidth=0.8, zorder=1)
    points = _points(alleles, scale)
    for x, y, allele in points:
        style = styles[allele.known]
        axes.vlines(x, min(0, y), max(0, y), color=style.colour, alpha=0.28, linewidth=1, zorder=2)
        axes.scatter(
            [x],
            [y],
            s=30,
            marker=style.marker,
            facecolor="white" if allele.is_fallback else style.colour,
            edgecolor=style.colour if allele.is_fallback else "white",
            linewidth=1.3 if allele.is_fallback else 0.5,
            zorder=3,
        )
    # Room below the lowest point, where its label goes.
    lowest, highest = axes.get_ylim()
    axes.set_ylim(lowest - 0.06 * (highest - lowest), highest)
    axes.set_ylabel(f"{keys[0]}  (below 0: the variant is the less likely)", fontsize=_FONT + 1.5)
    hollow = f"hollow: {keys[1]}" if any(x.is_fallback for _, _, x in points) else ""
    off = sum(scale.is_off(x.score) for x in alleles)
    missing = sum(x.score is None for x in alleles)
    notes = [
        hollow,
        f"{off} off the scale, at the edge" if off else "",
        f"{missing} without a score" if missing else "",
    ]
    axes.text(
        *(1, 1.005), "   ".join(filter(None, notes)), transform=axes.transAxes, fontsize=_FONT,
        color=PALE, ha="right", va="bottom",
    )  # fmt: skip


def _points(alleles: Iterable[ScoredAllele], scale: Scale) -> list[_Point]:
    return [(x.pos, scale.place(x.score), x) for x in alleles if x.score is not None]


def _draw_separation(
    axes: Axes, alleles: Sequence[ScoredAllele], styles: Mapping[str, Style], scale: Scale
) -> None:
    axes.axhline(0, color=PALE, linewidth=0.8, zorder=1)
    for column, (name, style) in enumerate(styles.items()):
        points = [(y, x) for _, y, x in _points(alleles, scale) if x.known == name]
        # Multiples of the golden ratio spread points evenly, and the same way in every picture.
        spread = [column + 0.46 * ((i * 0.618) % 1 - 0.5) for i in range(len(points))]
        axes.scatter(
            spread, [y for y, _ in points], s=16, marker=style.marker, edgecolor=style.colour,
            color=["white" if x.is_fallback else style.colour for _, x in points],
            alpha=0.6, linewidth=0.9,
        )  # fmt: skip
        if len(points) > 1:
            low, middle, high = quantiles([y for y, _ in points], n=4, method="inclusive")
            axes.vlines(column + 0.36, low, high, color=style.colour, linewidth=5, alpha=0.5)
            axes.hlines(middle, column + 0.24, column + 0.48, color=style.colour, linewidth=2.2)
    titles = [x.title.replace(" ", "\n", 1) for x in styles.values()]
    axes.set_xticks(range(len(styles)), titles, fontsize=_FONT)
    axes.set_xlim(-0.5, len(styles) - 0.3)
    axes.tick_params(labelleft=False, bottom=False)
    axes.set_title(_separation(alleles), fontsize=_FONT + 1, color=INK, loc="left")


def _separation(alleles: Sequence[ScoredAllele]) -> str:
    scores = [(x.known, x.score) for x in alleles if x.score is not None]
    bad = [y for known, y in scores if known.startswith("pathogenic")]
    good = [y for known, y in scores if known.startswith("benign")]
    if not bad or not good:
        return ""
    return f"{len(bad)} pathogenic, {len(good)} benign alleles\nAUROC {auroc(bad, good):.3f}"


def _draw_track(axes: Axes, genes: Sequence[Region], contig: str, length: int) -> None:
    axes.set_xlim(-0.01 * length, 1.01 * length)
    axes.set_ylim(-1.25, 1.25)
    axes.set_yticks([0.62, -0.62], ["+", "\u2212"] if genes else ["", ""])
    axes.tick_params(left=False)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"position on {contig} (bp)", fontsize=_FONT + 1.5)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.hlines((0.62, -0.62) if genes else (), 0, length, color="#D9D9D9", linewidth=1, zorder=1)
    for gene in genes:
        _draw_gene(axes, gene)


def _draw_gene(axes: Axes, gene: Region) -> None:
    middle = {"+": 0.62, "-": -0.62}.get(gene.strand, 0.0)
    height = 0.9 if gene.strand in "+-" else 2.14
    name = gene.name.removeprefix("MT-")
    left, right = axes.transData.transform([(gene.start, 0), (gene.end, 0)])[:, 0]
    size = _FONT - 0.5
    fits = right - left > _pixels(axes, _LETTER * size * len(name) + 2)
    axes.bar(
        gene.start, height, gene.end - gene.start, middle - height / 2, align="edge", zorder=2,
        color="#DDE3E8" if fits else "#6F7B85", edgecolor="white", linewidth=0.6,
    )  # fmt: skip
    if fits:
        where = ((gene.start + gene.end) / 2, middle - 0.03)
        axes.text(*where, name, fontsize=size, ha="center", va="center", color=INK, zorder=3)


def _draw_heading(
    figure: Figure, title: str, alleles: Sequence[ScoredAllele], styles: Mapping[str, Style]
) -> None:
    figure.text(0.065, 0.945, title, fontsize=_FONT + 6, color=INK, weight="bold")
    handles = [
        figure.axes[0].scatter([], [], s=34, marker=style.marker, color=style.colour)
        for style in styles.values()
    ]
    counts = [sum(x.known == name and x.score is not None for x in alleles) for name in styles]
    figure.legend(
        handles,
        [f"{style.title} ({n})" for style, n in zip(styles.values(), counts, strict=True)],
        loc="upper left", bbox_to_anchor=(0.058, 0.938), ncols=len(styles), frameon=False,
        fontsize=_FONT + 1, handletextpad=0.2, columnspacing=1.6, scatteryoffsets=[0.5],
    )  # fmt: skip


def _label_outstanding(
    axes: Axes,
    alleles: Sequence[ScoredAllele],
    styles: Mapping[str, Style],
    scale: Scale,
    highlight: Sequence[str],
) -> None:
    """Name the most extreme alleles where there is room, the strongest first."""
    from matplotlib.patheffects import withStroke

    points = _points(alleles, scale)
    boxes = [_box(axes, x, y, 0, 0, "oo") for x, y, _ in points]
    for x, y, allele in _outstanding(points, scale, highlight):
        off = scale.is_off(allele.score)
        text = f"{allele.name} (score {allele.score:.1f})" if off else allele.name
        for dx, dy in _OFFSETS:
            box = _box(axes, x, y, dx, dy, text)
            if _inside(axes, box) and not any(_overlap(box, other) for other in boxes):
                axes.annotate(
                    text, (x, y), (dx, dy), textcoords="offset points", fontsize=_FONT,
                    color=styles[allele.known].colour, va="center", zorder=4,
                    ha="left" if dx > 0 else "right" if dx < 0 else "center",
                    path_effects=[withStroke(linewidth=2, foreground="white")],
                )  # fmt: skip
                boxes.append(box)
                break


def _outstanding(points: Sequence[_Point], scale: Scale, highlight: Sequence[str]) -> list[_Point]:
    """List what is off the scale, the highlighted, the lowest, the pathogenic near or above 0."""
    ranked = sorted(points, key=lambda point: point[1])
    off = [point for point in ranked if scale.is_off(point[2].score)]
    bad = [point for point in ranked if point[2].known.startswith("pathogenic")]
    rest = [point for point in ranked if not point[2].known.startswith("pathogenic")]
    asked = [point for point in ranked if point[2].name in highlight]
    chosen = [*off, *asked, *bad[:8], *rest[:4], *bad[:-4:-1]]
    return list(dict.fromkeys(chosen))


def _pixels(axes: Axes, points: float) -> float:
    return points * axes.figure.dpi / 72


def _box(axes: Axes, x: float, y: float, dx: float, dy: float, text: str) -> _Box:
    """Pixels that a text will cover: left, bottom, right, top."""
    px, py = axes.transData.transform((x, y))
    px, py = px + _pixels(axes, dx), py + _pixels(axes, dy)
    width = _pixels(axes, _LETTER * _FONT * len(text))
    half = _pixels(axes, _LINE * _FONT) / 2
    left = px if dx > 0 else px - width if dx < 0 else px - width / 2
    return left, py - half, left + width, py + half


def _inside(axes: Axes, box: _Box) -> bool:
    left, bottom, right, top = axes.get_window_extent().extents
    return bool(box[0] >= left and box[2] <= right and box[1] >= bottom and box[3] <= top)


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
