"""Tracks of a haplotype of a phased sample beside those of the reference.

Files are `TAG/SAMPLE_hN/ref/TRACK.bw`, `alt/TRACK.bw` and `delta/TRACK.bw`, in coordinates of the
reference. Decisions: both sequences are predicted on the grid of `predict`, each on its own; ALT of
a bin of the reference is the mean over the haplotype's bases that stand for the bin's, so that a
deleted base counts nothing, and an inserted one with the base behind it. Without -r, stretches are
a window around each allele that the haplotype carries.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from glm_annotate.answers import Floats
from glm_annotate.beds import merged
from glm_annotate.errors import InputError, UsageError
from glm_annotate.genome import Genome, Interval
from glm_annotate.haplotypes import Carried, HaplotypeGenome, read_carried
from glm_annotate.model import Model
from glm_annotate.predict import Predictor
from glm_annotate.track_files import TrackSet
from glm_annotate.track_predictions import tracks_of
from glm_annotate.tracks_sites import folder_of
from glm_annotate.tracks_written import Written

if TYPE_CHECKING:
    from glm_annotate.tracks_job import TracksJob

logger = logging.getLogger(__name__)

_PIECE = 32  # windows whose predictions are held at a time
_NO_WORD = re.compile(r"[^0-9A-Za-z.-]")


def write_haplotype(
    job: TracksJob, model: Model, genome: Genome, done: Callable[[int], None]
) -> list[Written]:
    """Write the tracks of a sample's haplotype.

    Args:
        job: The run.
        model: Of tracks.
        genome: The reference.
        done: Told the bases of each piece.

    Raises:
        InputError: The haplotype carries nothing, or the VCF cannot be read.
        UsageError: The model reads signals, which no haplotype has.
    """
    sample = str(job.sample)
    if model.channels is not None:
        raise UsageError(
            f"--sample {sample}: {model.bundle.card.name} reads signals measured along the "
            "reference; take a model of sequence alone"
        )
    carried = read_carried(str(job.source), sample, job.haplotype, genome)
    if not any(carried.edits.values()):
        raise InputError(
            f"{job.source}: haplotype {job.haplotype} of {sample} carries no allele that counts; "
            "it needs phased genotypes, 0|1"
        )
    haplotype = HaplotypeGenome(genome, carried)
    reference, other = (Predictor(model, x, job.edge) for x in (genome, haplotype))
    table, word = tracks_of(model).table, _NO_WORD.sub("_", sample)
    name = f"{word}_h{job.haplotype}"
    written: list[Written] = []
    with ExitStack() as stack:
        sets = {}
        for kind in job.sides:
            files = TrackSet(
                folder_of(job, model, name, kind), table.identifiers, genome.contigs,
                force=job.force, extension=job.extension,
            )  # fmt: skip
            sets[kind] = stack.enter_context(files)
            written += [
                Written(
                    files.files[x.identifier].path, model.tag, kind, x.identifier,
                    x.description or x.identifier, x.assay, f"{sample} haplotype {job.haplotype}",
                )
                for x in table.tracks
            ]  # fmt: skip
        size = reference.grid.bins.size
        for piece in _pieces(_stretches(job, model, genome, carried), reference.step, genome):
            ref = _on_bins(reference, piece, genome)
            alt = _lifted(other, haplotype, piece, size)
            for kind, files in sets.items():
                values = {"ref": ref, "alt": alt, "delta": alt - ref}[kind]
                files.add(piece.chrom, piece.start, values, size)
            done(piece.end - piece.start)
    return written


def _stretches(job: TracksJob, model: Model, genome: Genome, carried: Carried) -> list[Interval]:
    from glm_annotate.tracks_job import of_regions

    if job.regions is not None:
        return merged(of_regions(job.regions, genome), genome)
    half = model.bundle.card.context // 2
    return merged(
        (
            Interval(contig, max(0, x.start - half), min(genome.contigs[contig], x.end + half))
            for contig, edits in carried.edits.items()
            for x in edits
        ),
        genome,
    )


def _pieces(stretches: Sequence[Interval], step: int, genome: Genome) -> Iterator[Interval]:
    """Cut stretches where windows of the grid meet, and widen their ends to there."""
    size = step * _PIECE
    last = ("", 0)
    for stretch in stretches:
        start = stretch.start // step * step
        if stretch.chrom == last[0]:
            start = max(start, last[1])
        end = min(-(-stretch.end // step) * step, genome.contigs[stretch.chrom])
        last = stretch.chrom, max(start, end)
        for first in range(start, end, size):
            yield Interval(stretch.chrom, first, min(first + size, end))


def _on_bins(predictor: Predictor, piece: Interval, genome: Genome) -> Floats:
    """Predict a piece that begins with a window, shape (bins, tracks)."""
    parts = [x.values for x in predictor.predict([piece])]
    size = predictor.grid.bins.size
    return np.concatenate(parts)[: -(-(piece.end - piece.start) // size)]


def _lifted(predictor: Predictor, haplotype: HaplotypeGenome, piece: Interval, size: int) -> Floats:
    """Predict the haplotype under a piece of the reference, and average over the latter's bins."""
    contig = piece.chrom
    start, end = (haplotype.to_haplotype(contig, x) for x in (piece.start, piece.end))
    count = -(-(piece.end - piece.start) // size)
    tracks = len(tracks_of(predictor.model).table)
    total, bases = np.zeros((count, tracks)), np.zeros((count, tracks))
    if start == end:
        return np.full((count, tracks), np.nan)
    for part in predictor.predict([Interval(contig, start, end)]):
        places = part.start + np.arange(part.values.shape[0] * part.bin_size)
        values = np.repeat(part.values, part.bin_size, axis=0)
        wanted = (places >= start) & (places < end)
        places, values = places[wanted], values[wanted]
        on = (haplotype.to_reference(contig, places) - piece.start) // size
        # What is inserted behind the last base of the piece belongs to the next one.
        inside = (on >= 0) & (on < count)
        known = ~np.isnan(values[inside])
        np.add.at(total, on[inside], np.where(known, values[inside], 0.0))
        np.add.at(bases, on[inside], known)
    with np.errstate(invalid="ignore"):
        return np.where(bases > 0, total / np.maximum(bases, 1), np.nan)
