"""Tracks around variants: what a model predicts of REF and of ALT, and the difference.

An allele has a folder, `TAG/alleles/CONTIG_POS_REF_ALT/`, with `ref/TRACK.bw`, `alt/TRACK.bw` and
`delta/TRACK.bw`, all in coordinates of the reference: they are the predictions that its scores are
made of, so that the bins of delta add up to SAD. `index.tsv` lists the files, `TAG/alleles.tsv`
every allele with its status.

Decisions: predictions of each shift are un-transformed and then averaged, and count for the bins of
the window that was not moved. Bases that a deletion lies between the bins of have no value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from glm_annotate.annotate import Scored, Work, score_chunks
from glm_annotate.answers import Floats, Ints
from glm_annotate.assembly import look_ahead
from glm_annotate.errors import InputError
from glm_annotate.fields import FieldWriter, statuses
from glm_annotate.genome import Genome
from glm_annotate.model import Model, Shown
from glm_annotate.records import open_input
from glm_annotate.track_files import TrackSet
from glm_annotate.track_predictions import bins_of_card, tracks_of
from glm_annotate.track_sinks import telling
from glm_annotate.tracks_sites import folder_of
from glm_annotate.tracks_written import Written
from glm_annotate.vcf import atomic_file, check_output

if TYPE_CHECKING:
    from glm_annotate.tracks_job import TracksJob

INDEX = "index.tsv"
COLUMNS = ("chrom", "pos", "ref", "alt", "track", "kind", "file", "model")
_ALLELES = ("chrom", "pos", "id", "ref", "alt", "status", "folder")
_WORKS_BYTES = 1 << 26  # of predictions of the alleles of a piece of work
_LONGEST = 60  # characters of a folder
_NO_WORD = re.compile(r"[^0-9A-Za-z.-]")

_Site = tuple[str, str, str, str, str]  # chrom, pos, id, ref, alt


@dataclass(frozen=True, slots=True)
class Sides:
    """REF and ALT of an allele in coordinates of the reference.

    Attributes:
        starts: First base of each bin, ascending, shape (n,).
        ref: Shape (n, tracks); `alt`: the same, NaN where ALT has no bin.
    """

    starts: Ints
    ref: Floats
    alt: Floats

    def of(self, kind: str) -> Floats:
        """Give the values of `ref`, `alt` or `delta`."""
        return {"ref": self.ref, "alt": self.alt}[kind] if kind != "delta" else self.alt - self.ref


def write_alleles(
    job: TracksJob, models: Sequence[Model], genome: Genome, done: Callable[[int], None]
) -> tuple[list[Written], int]:
    """Write the tracks of every allele of the job's variants.

    Args:
        job: The run.
        models: Of tracks.
        genome: The reference.
        done: Told the bases of each allele.

    Returns:
        The files, and how many alleles there were.

    Raises:
        InputError: There are too many alleles, or a file cannot be written.
    """
    index = os.path.join(job.output, INDEX)
    check_output(index, job.force, job.source)
    showing = [replace(model, shows=True) for model in models]
    run = _Run(job, genome, done, FieldWriter(models), {model.tag: [] for model in models})
    with open_input(str(job.source), regions=job.regions, threads=job.threads) as variants:
        annotator, works = look_ahead(
            genome, showing, variants, contig_map={}, size=_works_size(models)
        )
        few = _few(works, job)
        with telling(job.output):
            os.makedirs(job.output, exist_ok=True)
        for scored in score_chunks(annotator, few):
            run.write(showing, scored)
    for tag, lines in run.told.items():
        _write_table(os.path.join(job.output, tag, "alleles.tsv"), _ALLELES, lines, job.force)
    rows = [_row(site, file, job.output) for site, file in run.written]
    _write_table(index, COLUMNS, rows, job.force)
    return [file for _, file in run.written], len(run.told[models[0].tag])


def _works_size(models: Sequence[Model]) -> int:
    """Say how many records fit into memory with all that is predicted of them."""
    largest = max(
        16 * bins_of_card(model.bundle.card).count * len(tracks_of(model).table) for model in models
    )
    return max(1, _WORKS_BYTES // largest)


def _few(works: Iterable[Work], job: TracksJob) -> list[Work]:
    """Read all works, before anything is written.

    Raises:
        InputError: There are more alleles than may be.
    """
    found: list[Work] = []
    alleles = 0
    for work in works:
        alleles += len(work.alleles)
        found.append(work)
        if alleles > job.most_alleles:
            raise InputError(
                f"{job.source}: more than {job.most_alleles} alleles, and each would have its own "
                "files; choose some with -r, or allow more with --max-alleles"
            )
    if not alleles:
        raise InputError(f"{job.source}: no ALT allele in it; tracks are of alleles")
    return found


@dataclass(slots=True)
class _Run:
    """What has been written so far."""

    job: TracksJob
    genome: Genome
    done: Callable[[int], None]
    fields: FieldWriter
    told: dict[str, list[tuple[str, ...]]]
    written: list[tuple[_Site, Written]] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)

    def write(self, models: Sequence[Model], scored: Scored) -> None:
        """Write the tracks of a chunk's alleles."""
        sites = [_site(cells) for cells in self.fields.sites(scored)]
        folders = [self._folder(site) for site in sites]
        for model in models:
            result = scored.results[model.tag]
            status = statuses(model, result)
            for allele, (site, folder) in enumerate(zip(sites, folders, strict=True)):
                shown = result.shown.pop(allele, None)
                if shown is not None and result.skip[allele] == 0:
                    contig = scored.alleles.contigs[int(scored.alleles.contig[allele])]
                    start = int(scored.alleles.start[allele])
                    sides = sides_of(model, self.genome, contig, start, shown)
                    self._save(model, contig, sides, site, folder)
                    self.done(model.bundle.card.context)
                    self.told[model.tag].append((*site, status[allele], folder))
                else:
                    self.told[model.tag].append((*site, status[allele], "."))

    def _folder(self, site: _Site) -> str:
        """Name the folder of an allele: a word, and another one for every allele."""
        chrom, pos, _, *alleles = site
        name = "_".join(_NO_WORD.sub("_", text) for text in (chrom, pos, *alleles))
        if len(name) > _LONGEST or name.casefold() in self.taken:
            # The same allele may stand in several records.
            told = sha256(repr((site, len(self.taken))).encode()).hexdigest()
            name = f"{name[:_LONGEST]}_{told[:8]}"
        self.taken.add(name.casefold())
        return name

    def _save(self, model: Model, contig: str, sides: Sides, site: _Site, folder: str) -> None:
        table, job = tracks_of(model).table, self.job
        allele = ":".join((*site[:2], *site[3:]))
        size = bins_of_card(model.bundle.card).size
        for kind in job.sides:
            place = folder_of(job, model, "alleles", folder, kind)
            files = TrackSet(
                place, table.identifiers, self.genome.contigs, force=job.force,
                extension=job.extension,
            )  # fmt: skip
            with files:
                add_bins(files, contig, sides.starts, sides.of(kind), size)
            self.written += [
                (
                    site,
                    Written(
                        files.files[x.identifier].path, model.tag, kind, x.identifier,
                        x.description or x.identifier, x.assay, allele,
                    ),
                )
                for x in table.tracks
            ]  # fmt: skip


def sides_of(
    model: Model, genome: Genome, contig: str, start: int, shown: Mapping[int, Shown]
) -> Sides:
    """Put what was predicted of an allele in the windows of all shifts on the reference.

    Args:
        model: It.
        genome: The reference.
        contig: The FASTA's name.
        start: First changed base, 0-based.
        shown: By left edge of the windows.
    """
    windows = list(shown.values())
    bins, left = bins_of_card(model.bundle.card), start - model.bundle.card.anchor
    middle = min(windows, key=lambda x: abs(x.left - left))
    ref = np.mean([x.ref for x in windows], axis=0)
    alt = np.mean([_known(x) for x in windows], axis=0)
    starts = left + bins.starts
    if middle.stitch is not None:
        starts[max(0, middle.stitch.bin + 1) :] += middle.stitch.skipped
    size = genome.contigs[contig]
    if contig in model.circular:
        starts %= size
        order = np.argsort(starts, kind="stable")
        starts, ref, alt = starts[order], ref[order], alt[order]
        # A window longer than the contig comes round: bins that would overlap are left out.
        apart = np.diff(starts, prepend=-bins.size) >= bins.size
        starts, ref, alt = starts[apart], ref[apart], alt[apart]
    inside = (starts >= 0) & (starts < size)
    return Sides(starts[inside], ref[inside], alt[inside])


def _known(shown: Shown) -> Floats:
    if shown.known is None:
        return shown.alt
    return np.where(shown.known[:, None], shown.alt, np.nan)


def add_bins(files: TrackSet, contig: str, starts: Ints, values: Floats, size: int) -> None:
    """Add bins that need not touch: first bases (n,), ascending, and values (n, tracks)."""
    cuts = np.flatnonzero(np.diff(starts) != size) + 1
    for first, part in zip(
        starts[np.concatenate([[0], cuts])].tolist() if starts.size else (),
        np.split(values, cuts),
        strict=False,
    ):
        files.add(contig, first, part, size)


def _site(cells: Sequence[bytes]) -> _Site:
    chrom, pos, name, ref, alt = (x.decode("utf-8", "replace") for x in cells)
    return chrom, pos, name, ref, alt


def _row(site: _Site, file: Written, folder: str) -> tuple[str, ...]:
    path = os.path.relpath(file.path, folder)
    return (*site[:2], *site[3:], file.name, file.kind, path, file.tag)


def _write_table(
    path: str, columns: Sequence[str], rows: Iterable[Sequence[str]], force: bool
) -> None:
    with telling(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
    with atomic_file(path, force=force) as out:
        for row in (columns, *rows):
            out.write(("\t".join(row) + "\n").encode())
