"""The picture of `glm-annotate tracks`, drawn from the files that were written."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from glm_annotate.answers import Floats, Ints
from glm_annotate.errors import InputError, UsageError
from glm_annotate.genome import Genome, Interval
from glm_annotate.locus_curves import Curve
from glm_annotate.locus_genes import GeneShape, genes_of
from glm_annotate.locus_logo import Logo
from glm_annotate.locus_page import Locus
from glm_annotate.locus_plot import draw_locus
from glm_annotate.plots import check_picture
from glm_annotate.regions import regions_from
from glm_annotate.tracks_job import SIDES, TracksDone, TracksJob, of_regions
from glm_annotate.tracks_written import Written
from glm_annotate.vcf import check_output

if TYPE_CHECKING:
    from glm_annotate.tracks_extras import Extras

logger = logging.getLogger(__name__)

_LETTERS = 150  # bases of a logo at most
_NEAR = 50  # bases of a logo at each side of a variant or of the strongest site
_BASES = "ACGT"


def check_plot(job: TracksJob, path: str) -> None:
    """Check, before the work, that a picture can be drawn.

    Raises:
        UsageError: Matplotlib or the format of the name is missing.
        InputError: The file is there already.
    """
    check_picture(path)
    check_output(path, job.force)


def write_plot(job: TracksJob, extras: Extras, done: TracksDone, genome: Genome) -> str:
    """Draw the first stretch, or the first allele, and say what is shown.

    Raises:
        InputError: There is nothing to draw, or the picture cannot be written.
    """
    written = done.written
    sides = [x for x in written if x.kind in SIDES]
    if sides:
        allele = sides[0].allele
        written = [x for x in written if x.kind not in SIDES or x.allele == allele]
    stretch = _stretch(job, extras, done, written, genome)
    variant = None
    if sides and job.sample is None:
        variant = _variant(sides[0].allele, stretch)
    curves = _curves(written, stretch)
    logo = _logo(written, stretch, variant, genome)
    if not curves and logo is None:
        raise InputError(f"--plot {extras.plot}: no values in {stretch.chrom}; nothing to draw")
    locus = Locus(
        stretch.chrom, stretch.start, stretch.end, tuple(curves), _genes(extras.gtf, stretch), logo,
        variant, _title(written, sides),
    )  # fmt: skip
    path = draw_locus(locus, str(extras.plot))
    more = f", the first of {done.alleles} alleles" if done.alleles > 1 else ""
    return f"{path}: {stretch.chrom}:{stretch.start + 1}-{stretch.end}{more}"


def _title(written: Sequence[Written], sides: Sequence[Written]) -> str:
    tags = ", ".join(dict.fromkeys(x.tag for x in written))
    return f"{tags}: {sides[0].allele}" if sides else f"{tags}: tracks"


def _stretch(
    job: TracksJob, extras: Extras, done: TracksDone, written: Sequence[Written], genome: Genome
) -> Interval:
    """Choose what is drawn: what was asked for, the window of an allele, or the first stretch."""
    if extras.region is not None:
        regions = regions_from(extras.region, None)
        if regions is None:
            raise UsageError("--plot-region names nothing")
        return next(of_regions(regions, genome))
    sides = [x for x in written if x.kind in SIDES]
    if sides:
        import pyBigWig

        with pyBigWig.open(sides[0].path) as file:
            for contig, size in file.chroms().items():
                found = file.intervals(contig, 0, size) or ()
                if found:
                    return Interval(contig, found[0][0], found[-1][1])
    if done.first is None:
        raise InputError(f"--plot {extras.plot}: there is no stretch to draw")
    return done.first


def _curves(written: Sequence[Written], stretch: Interval) -> list[Curve]:
    """Read what is drawn as tracks: REF with its ALT, and of mutagenesis the mean."""
    alts = {(x.tag, x.name): x.path for x in written if x.kind == "alt"}
    over_ref = ("alt", "delta") if any(x.kind == "ref" for x in written) else ()
    found = []
    for x in written:
        if x.kind in over_ref or (x.kind == "ism" and x.name != "mean"):
            continue
        starts, span, values = read_bins(x.path, stretch)
        alt, path = None, alts.get((x.tag, x.name))
        if x.kind == "ref" and path is not None:
            other, _, numbers = read_bins(path, stretch)
            alt = _matched(starts, other, numbers)
        name = f"{x.kind} {x.name}" if x.kind == "ism" else x.name
        signed = x.kind in ("delta", "ism")
        found.append(Curve(name, starts, span, values, alt, signed=signed))
    return found


def _matched(starts: Ints, other: Ints, values: Floats) -> Floats:
    """Give values at the bins of `starts`, NaN where the other file has none."""
    out = np.full(starts.size, np.nan)
    _, mine, theirs = np.intersect1d(starts, other, return_indices=True)
    out[mine] = values[theirs]
    return out


def read_bins(path: str, stretch: Interval) -> tuple[Ints, int, Floats]:
    """Read a stretch of a bigWig: first bases (n,), the usual bases of a bin, and values (n,)."""
    import pyBigWig

    with pyBigWig.open(path) as file:
        found = file.intervals(stretch.chrom, stretch.start, stretch.end) or ()
    table = np.array(found, dtype=np.float64).reshape(-1, 3)
    starts = table[:, 0].astype(np.int64)
    spans = (table[:, 1] - table[:, 0]).astype(np.int64)
    span = int(np.median(spans)) if spans.size else 1
    return starts, span, table[:, 2]


def _logo(
    written: Sequence[Written],
    stretch: Interval,
    variant: tuple[int, int, str] | None,
    genome: Genome,
) -> Logo | None:
    """Take the mutagenesis around the variant, or around the strongest site of a long stretch."""
    files = {x.name: x.path for x in written if x.kind == "ism"}
    if "A" not in files:
        return None
    start, end = stretch.start, stretch.end
    if variant is not None:
        start, end = variant[0] - _NEAR, variant[1] + _NEAR
    elif end - start > _LETTERS:
        starts, _, values = read_bins(files["maxabs"], stretch)
        if not starts.size:
            return None
        middle = int(starts[int(np.argmax(values))])
        start, end = middle - _NEAR, middle + _NEAR + 1
    size = genome.contigs[stretch.chrom]
    there = Interval(stretch.chrom, max(0, start), min(end, size, max(0, start) + _LETTERS))
    values = np.full((there.end - there.start, 4), np.nan)
    for column, base in enumerate(_BASES):
        starts, _, found = read_bins(files[base], there)
        values[starts - there.start, column] = found
    if np.isnan(values).all():
        return None
    codes = genome.codes(there.chrom)[there.start : there.end]
    about = next(x.about for x in written if x.kind == "ism" and x.name == "A")
    return Logo(there.start, codes, values, about)


def _variant(allele: str, stretch: Interval) -> tuple[int, int, str]:
    _, pos, ref, alt = allele.rsplit(":", 3)
    start = int(pos) - 1
    shown = [x if len(x) <= 12 else f"{x[:9]}...{len(x)}" for x in (ref, alt)]
    return start, start + len(ref), f"{stretch.chrom}:{pos} {shown[0]}>{shown[1]}"


def _genes(gtf: str | None, stretch: Interval) -> tuple[GeneShape, ...]:
    if gtf is None:
        return ()
    from glm_annotate.gene_files import read_gene_models

    models = read_gene_models(gtf)
    contig = models.resolve(stretch.chrom)
    if contig is None:
        logger.warning("--gtf %s: no gene on %s", gtf, stretch.chrom)
        return ()
    return genes_of(models, contig, stretch.start, stretch.end)
