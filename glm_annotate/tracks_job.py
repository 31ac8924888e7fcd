"""`glm-annotate tracks`: which numbers of which stretches of the genome become which files.

A single track goes to a file; everything else to a folder, where each model has one of its tag:
`likelihood.bw`, `entropy.bw`, `information.bw`, `ism/A.bw` to `ism/T.bw`, `ism/maxabs.bw`,
`ism/mean.bw`, `ism/snvs.vcf.gz`, `predict/TRACK.bw`; see `tracks_alleles` for those of variants.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

from glm_annotate.beds import merged, place, read_bed
from glm_annotate.card import ModelCard
from glm_annotate.errors import InputError, UsageError
from glm_annotate.genome import Genome, Interval, aliases
from glm_annotate.model import Model
from glm_annotate.opening import card_of, open_models, plain_scores
from glm_annotate.per_base import What
from glm_annotate.records import open_input
from glm_annotate.regions import MAX_END, Regions
from glm_annotate.run_setup import Setup
from glm_annotate.track_files import is_track_file
from glm_annotate.tracks_sites import write_predictions, write_sites
from glm_annotate.tracks_written import Written

logger = logging.getLogger(__name__)

SITES: tuple[What, ...] = get_args(What)
SIDES = ("ref", "alt", "delta")
KINDS = ("predict", *SITES, *SIDES)
AROUND = 100  # bases at each side of a variant, where stretches are those of variants


@dataclass(frozen=True, slots=True, kw_only=True)
class TracksJob(Setup):
    """One run of `glm-annotate tracks`.

    Attributes:
        kinds: What to write, of `KINDS`.
        output: A file of one track, or a folder.
        source: A BED, or variants; None: whole contigs, or `regions`.
        regions: In place of a BED; of variants, those that are read.
        extension: Of the files in a folder.
        edge: Bins that are left out at each side of a window; None: the model's own.
        around: Bases at each side of a variant that have numbers of every base.
        sample: Whose haplotype is ALT, in place of single alleles; `haplotype`: 1 or 2.
        most_alleles: More than so many are an error.
        arguments: The command line, for the header of a VCF; `date`: the same.
    """

    kinds: tuple[str, ...]
    output: str
    source: str | None = None
    regions: Regions | None = None
    extension: str = ".bw"
    edge: int | None = None
    around: int = AROUND
    sample: str | None = None
    haplotype: int = 1
    most_alleles: int = 1000
    force: bool = False
    arguments: tuple[str, ...] = ()
    date: str = ""

    @property
    def sides(self) -> tuple[str, ...]:
        """Kinds that are of alleles."""
        return tuple(kind for kind in SIDES if kind in self.kinds)


@dataclass(frozen=True, slots=True)
class TracksDone:
    """What a run wrote.

    Attributes:
        first: The first stretch that was asked for; None where only alleles were.
    """

    written: list[Written]
    bases: int
    alleles: int
    seconds: float
    first: Interval | None = None


@dataclass(slots=True)
class _Count:
    """Bases that are done."""

    progress: Callable[[int], None]
    bases: int = 0
    files: list[Written] = field(default_factory=list)

    def __call__(self, bases: int) -> None:
        self.bases += bases
        self.progress(bases)


def run_tracks(job: TracksJob, progress: Callable[[int], None] = lambda bases: None) -> TracksDone:
    """Write tracks.

    Args:
        job: What to do.
        progress: Called with the number of bases of each piece that is done.

    Raises:
        GlmAnnotateError: Something that the user can mend.
    """
    began = time.perf_counter()
    _check_kinds(job)
    cards = [card_of(text) for text in job.models]
    for card in cards:
        _check_card(job, card)
    genome = Genome(job.fasta)
    stretches = _stretches(job, genome) if set(job.kinds) - set(SIDES) else []
    models = open_models(replace(job, scores=_scores(job, cards)), genome)
    _check_single(job, models)
    done = _Count(progress)
    alleles = 0
    for model in models:
        some = list(_in_scope(model, genome, stretches))
        if "predict" in job.kinds:
            done.files += write_predictions(job, model, genome, some, done)
        if sites := [kind for kind in SITES if kind in job.kinds]:
            done.files += write_sites(job, model, genome, some, sites, done)
    if job.sides:
        alleles = _write_alleles(job, models, genome, done)
    first = stretches[0] if stretches else None
    return TracksDone(done.files, done.bases, alleles, time.perf_counter() - began, first)


def _write_alleles(job: TracksJob, models: Sequence[Model], genome: Genome, done: _Count) -> int:
    from glm_annotate.tracks_alleles import write_alleles
    from glm_annotate.tracks_haplotypes import write_haplotype

    if job.sample is None:
        files, alleles = write_alleles(job, models, genome, done)
        done.files += files
        return alleles
    for model in models:
        done.files += write_haplotype(job, model, genome, done)
    return 0


# --- what fits together ------------------------------------------------------------------------


def _check_kinds(job: TracksJob) -> None:
    unknown = [kind for kind in job.kinds if kind not in KINDS]
    if unknown or not job.kinds:
        raise UsageError(f"-k {','.join(unknown)}: known are {', '.join(KINDS)}")
    if job.sides and job.source is None:
        raise UsageError(f"-k {','.join(job.sides)}: of variants; name a VCF or chr:pos:ref:alt")
    if job.sample is not None and set(job.kinds) - set(SIDES):
        raise UsageError(f"--sample {job.sample}: its haplotype has -k {', '.join(SIDES)} alone")
    if job.source and job.regions and not job.sides and not _holds_variants(job.source):
        raise UsageError(f"{job.source}: regions come from a BED or from -r; give one")
    if is_track_file(job.output) and (job.sides or len(job.kinds) > 1 or "ism" in job.kinds):
        raise UsageError(
            f"-o {job.output}: is one track, and -k {','.join(job.kinds)} makes several; name a "
            "folder"
        )


def _check_card(job: TracksJob, card: ModelCard) -> None:
    """Check that a model gives what is asked for."""
    gives: tuple[str, ...] = (*SITES,)
    if card.objective == "tracks" and card.frame == "variant":
        gives = ("predict", "ism", *SIDES)
    elif card.objective not in ("masked", "causal"):
        gives = ("ism",)
    for kind in job.kinds:
        if kind not in gives:
            raise UsageError(f"-k {kind}: {card.name} gives {', '.join(gives)}")


def _scores(job: TracksJob, cards: Sequence[ModelCard]) -> tuple[str, ...]:
    """Choose the scores that models are opened with: those of -s only where they are read."""
    if "ism" in job.kinds:
        return job.scores
    return plain_scores(cards)


def _check_single(job: TracksJob, models: Sequence[Model]) -> None:
    if not is_track_file(job.output):
        return
    count = len(models)
    if "predict" in job.kinds and models[0].tracks is not None:
        count *= len(models[0].tracks.table)
    if count > 1:
        raise UsageError(
            f"-o {job.output}: is one track, and {count} would be written; name a folder, or "
            "choose one with --track-regex"
        )


# --- stretches ---------------------------------------------------------------------------------


def _stretches(job: TracksJob, genome: Genome) -> list[Interval]:
    """List the stretches that are asked for, merged, in the order of the FASTA."""
    if job.source is None:
        if job.regions is None:
            return [Interval(name, 0, size) for name, size in genome.contigs.items()]
        return merged(of_regions(job.regions, genome), genome)
    if job.sides or _holds_variants(job.source):
        return merged(_around_variants(job, genome), genome)
    return merged((place(row, genome, job.source) for row in read_bed(job.source)), genome)


def _holds_variants(source: str) -> bool:
    """Say whether a source is of variants, by its name: BED and its kin need not end in .bed."""
    name = source.lower()
    return name.endswith((".vcf", ".vcf.gz", ".vcf.bgz", ".bcf")) or (
        ":" in source and not Path(source).exists()
    )


def of_regions(regions: Regions, genome: Genome) -> Iterator[Interval]:
    """Give the stretches of -r by names of the FASTA.

    Raises:
        InputError: One is not in the FASTA.
    """
    for name, spans in regions.intervals.items():
        spelled = name.decode("utf-8", "replace")
        contig = genome.resolve(spelled)
        if contig is None:
            raise InputError(
                f"-r {spelled}: {genome.path} has no such contig; its first is "
                f"{next(iter(genome.contigs), 'none')}"
            )
        size = genome.contigs[contig]
        for start, end in spans.tolist():
            if start >= size or (size < end < MAX_END):
                raise InputError(
                    f"-r {spelled}:{start + 1}-{end}: {contig} of {genome.path} has {size} bases"
                )
            yield Interval(contig, max(0, start), min(end, size))


def _around_variants(job: TracksJob, genome: Genome) -> Iterator[Interval]:
    """Give what lies around each record; those on contigs that the FASTA lacks have nothing."""
    lacking = set()
    with open_input(str(job.source), regions=job.regions, threads=job.threads) as variants:
        for chunk in variants.chunks(4096):
            for name, pos, ref in zip(chunk.chroms, chunk.pos.tolist(), chunk.refs, strict=True):
                contig = genome.resolve(name.decode("utf-8", "replace"))
                if contig is None:
                    lacking.add(name.decode("utf-8", "replace"))
                    continue
                size = genome.contigs[contig]
                start = min(max(0, pos - 1 - job.around), size)
                end = min(size, pos - 1 + len(ref) + job.around)
                yield Interval(contig, start, max(start, end))
    for spelled in sorted(lacking):
        logger.warning("%s: no contig %s in %s", job.source, spelled, genome.path)


def _in_scope(model: Model, genome: Genome, stretches: Iterable[Interval]) -> Iterator[Interval]:
    """Give the stretches of contigs that a model is meant for, and say which it is not."""
    card, out = model.bundle.card, dict[str, None]()
    for stretch in stretches:
        name = stretch.chrom
        size = genome.contigs[name]
        if model.ignore_scope or card.in_scope(name, size, aliases(name)):
            yield stretch
        else:
            out[name] = None
    if out:
        few = ", ".join([*out][:5]) + (", ..." if len(out) > 5 else "")
        logger.warning(
            "%s: nothing of %d contigs that %s is not meant for (%s); --ignore-scope overrides",
            model.tag, len(out), card.name, few,
        )  # fmt: skip
