"""`glm-annotate vcf`: open everything, look before writing, score, write, and sum up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from glm_annotate import __version__
from glm_annotate.annotate import Annotator, Model, Work, score_chunks
from glm_annotate.assembly import Works, contigs_as_written, look_ahead
from glm_annotate.errors import UsageError
from glm_annotate.fields import FieldWriter, info_lines, model_lines
from glm_annotate.genome import Genome
from glm_annotate.header import (
    Header,
    extend_header,
    refuse_clashes,
    refuse_keys_in,
    run_lines,
    without_samples,
)
from glm_annotate.matrix import Matrix
from glm_annotate.opening import open_models
from glm_annotate.phased import Phased
from glm_annotate.precomputed import Precomputed
from glm_annotate.records import VariantInput, open_input
from glm_annotate.regions import Regions
from glm_annotate.run_setup import Setup
from glm_annotate.vcf import VcfWriter, atomic_file, check_index, check_output, splice

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Setup):
    """One run of `glm-annotate vcf`.

    Attributes:
        source: Path, "-" or `chr:pos:ref:alt`.
        output: Path or None for stdout; `kind`: v, z, u or b.
        precomputed: Outputs of earlier runs from which scores are taken.
        phased: A sample on whose haplotypes alleles are scored besides.
        matrix: Parquet file of one row an allele and track.
        arguments: The command line, for the header; empty leaves it out.
        date: For the header.
    """

    source: str
    output: str | None = None
    kind: str = "v"
    index: str | None = None
    regions: Regions | None = None
    targets: Regions | None = None
    contig_map: dict[str, str] = field(default_factory=dict)
    force: bool = False
    overwrite: bool = False
    sites_only: bool = False
    allow_ref_mismatch: bool = False
    precomputed: tuple[str, ...] = ()
    phased: str | None = None
    tsv: str | None = None
    matrix: str | None = None
    arguments: tuple[str, ...] = ()
    date: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did; `as_dict` is the content of --summary."""

    source: str
    records: int
    alleles: int
    records_without_alt: int
    seconds: float
    models: dict[str, dict[str, Any]]

    @property
    def has_unscored(self) -> bool:
        """Whether some allele has no number from some model."""
        return any(model["unscored"] for model in self.models.values())

    def as_dict(self) -> dict[str, Any]:
        """Give everything as JSON values."""
        return {
            "glm_annotate": __version__,
            "input": self.source,
            "records": self.records,
            "records_without_alt": self.records_without_alt,
            "alleles": self.alleles,
            "seconds": round(self.seconds, 3),
            "models": self.models,
        }


def run_job(
    job: Job,
    progress: Callable[[int], None] = lambda records: None,
) -> Summary:
    """Annotate a VCF.

    Args:
        job: What to do.
        progress: Called with the number of records of each chunk that is done.

    Raises:
        GlmAnnotateError: Something that the user can mend.
    """
    began = time.perf_counter()
    check_index(job.output, job.kind, job.index)
    check_output(job.output, job.force, job.source)
    genome = Genome(job.fasta)
    models = open_models(job, genome)
    fields = FieldWriter(models, job.phased)
    with ExitStack() as stack:
        source = stack.enter_context(_open_source(job))
        if not job.overwrite:
            refuse_clashes(source.name, source.header, fields.keys)
        known = stack.enter_context(_precomputed(job, models, genome)) if job.precomputed else None
        annotator, works = _look(job, genome, models, source, known)
        header = _header(job, source, models, genome, works.seen)
        writer = VcfWriter(
            job.output, job.kind, header, newline=source.newline, force=job.force,
            source=job.source, index=job.index, threads=job.threads,
        )  # fmt: skip
        stack.enter_context(writer)
        table = stack.enter_context(atomic_file(job.tsv, force=job.force)) if job.tsv else None
        if table is not None:
            table.write(fields.table_head())
        matrix = None
        if job.matrix is not None:
            matrix = stack.enter_context(Matrix(job.matrix, models, force=job.force))
        remove = frozenset(key.encode() for key in fields.keys) if job.overwrite else frozenset()
        passes = dict.fromkeys((model.tag for model in models), 0)

        def done(work: Work) -> None:
            for tag, count in work.passes.items():
                passes[tag] += count
            progress(len(work.chunk))

        for scored in score_chunks(annotator, works, done):
            if not job.overwrite:
                refuse_keys_in(source.name, scored.chunk, fields.keys)
            columns = fields.columns(scored)
            additions = fields.additions(scored, columns)
            writer.write(splice(scored.chunk, additions, remove=remove, sites_only=job.sites_only))
            if table is not None:
                table.write(fields.table_rows(scored, columns))
            if matrix is not None:
                matrix.write(scored, fields.sites(scored))
    return _summary(source.name, models, fields, passes, time.perf_counter() - began)


def foresee(job: Job, progress: Callable[[int], None] = lambda records: None) -> Summary:
    """Do all of a run but its forward passes and its output (`--dry-run`).

    Returns:
        A summary whose status counts are what is known before the passes, with the passes and the
        time that they would take (`estimated_seconds`), from a trial of one batch.
    """
    began = time.perf_counter()
    genome = Genome(job.fasta)
    models = open_models(job, genome)
    fields = FieldWriter(models, job.phased)
    passes = dict.fromkeys((model.tag for model in models), 0)
    seconds = dict.fromkeys(passes, 0.0)
    with ExitStack() as stack:
        source = stack.enter_context(_open_source(job))
        known = stack.enter_context(_precomputed(job, models, genome)) if job.precomputed else None
        annotator, works = _look(job, genome, models, source, known)
        for work in works:
            annotator.prepare(work)
            for tag, count in work.passes.items():
                passes[tag] += count
            for tag, cost in annotator.trial(work).items():
                seconds[tag] += cost
            fields.additions(scored := annotator.foresee(work), fields.columns(scored))
            progress(len(work.chunk))
    summary = _summary(source.name, models, fields, passes, time.perf_counter() - began)
    for tag, cost in seconds.items():
        summary.models[tag] |= {"estimated_seconds": round(cost, 1)}
    return summary


def _look(
    job: Job,
    genome: Genome,
    models: Sequence[Model],
    source: VariantInput,
    known: Precomputed | None,
) -> tuple[Annotator, Works]:
    return look_ahead(
        genome,
        models,
        source,
        contig_map=job.contig_map,
        allow_mismatch=job.allow_ref_mismatch,
        known=None if known is None else known.find,
        phased=_phased(job, genome, models, source),
    )


def _phased(
    job: Job, genome: Genome, models: Sequence[Model], source: VariantInput
) -> Phased | None:
    if job.phased is None:
        return None
    if source.kind not in ("vcf", "bcf") or job.source == "-":
        raise UsageError(
            f"--phased {job.phased}: {source.name} is read twice and has to have samples; name a "
            "VCF or BCF file, sorted"
        )
    return Phased(job.source, job.phased, genome, models, job.contig_map)


def _precomputed(job: Job, models: Sequence[Model], genome: Genome) -> Precomputed:
    if job.matrix is not None:
        logger.warning("--matrix %s: alleles taken from --from have no rows in it", job.matrix)
    return Precomputed(
        job.precomputed, models, genome, contig_map=job.contig_map, tf32=job.runtime.tf32
    )


def _open_source(job: Job) -> VariantInput:
    return open_input(job.source, regions=job.regions, targets=job.targets, threads=job.threads)


def _header(
    job: Job,
    source: VariantInput,
    models: Sequence[Model],
    genome: Genome,
    seen: Iterable[bytes],
) -> Header:
    header = without_samples(source.header) if job.sites_only else source.header
    meta = list(run_lines(__version__, job.arguments, job.date)) if job.arguments else []
    return extend_header(
        header,
        info_lines(models, __version__, sample=job.phased),
        [*meta, *model_lines(models, job.runtime.tf32)],
        contigs=contigs_as_written(genome, job.contig_map, seen),
        binary=job.kind in "ub",
        overwrite=job.overwrite,
    )


def _summary(
    name: str,
    models: Sequence[Model],
    fields: FieldWriter,
    passes: dict[str, int],
    seconds: float,
) -> Summary:
    return Summary(
        name,
        fields.records,
        fields.alleles,
        fields.records_without_alt,
        seconds,
        {
            model.tag: {
                "name": model.bundle.card.name,
                "version": model.bundle.card.version,
                "digest": model.bundle.digest,
                "scores": [spec.key for spec in model.scores],
                "strands": len(model.strands),
                "device": str(model.runners[0].device),
                "forward_passes": passes[model.tag],
                "unscored": fields.unscored[model.tag],
                "status": dict(fields.status_counts[model.tag].most_common()),
            }
            for model in models
        },
    )
