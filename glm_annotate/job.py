"""`glm-annotate vcf`: open everything, look before writing, score, write, and sum up."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from glm_annotate import __version__
from glm_annotate.alignment import Alignment
from glm_annotate.annotate import Annotator, Model, Work, score_chunks
from glm_annotate.assembly import Works, contigs_as_written, look_ahead
from glm_annotate.bundle import Bundle, load_bundle
from glm_annotate.channels import Channels, check_channels
from glm_annotate.errors import BundleError, UsageError
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
from glm_annotate.records import VariantInput, open_input
from glm_annotate.regions import Regions
from glm_annotate.runtime import Settings, open_runners
from glm_annotate.scores import parse_scores
from glm_annotate.vcf import VcfWriter, atomic_file, check_index, check_output, splice

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """One run of `glm-annotate vcf`.

    Attributes:
        source: Path, "-" or `chr:pos:ref:alt`.
        fasta: The reference.
        models: `[TAG=]MODEL`, one each.
        scores: As given after -s; none: the cards' own.
        output: Path or None for stdout; `kind`: v, z, u or b.
        circular: Contigs that wrap around; None: those that a card declares.
        strand: `both` or `forward`; None: the card's.
        msa: The alignment of models that read one.
        arguments: The command line, for the header; empty leaves it out.
        date: For the header.
    """

    source: str
    fasta: str
    models: tuple[str, ...]
    scores: tuple[str, ...] = ()
    output: str | None = None
    kind: str = "v"
    index: str | None = None
    regions: Regions | None = None
    targets: Regions | None = None
    circular: tuple[str, ...] | None = None
    contig_map: dict[str, str] = field(default_factory=dict)
    strand: str | None = None
    msa: str | None = None
    runtime: Settings = field(default_factory=Settings)
    threads: int = 0
    force: bool = False
    overwrite: bool = False
    sites_only: bool = False
    allow_ref_mismatch: bool = False
    ignore_scope: bool = False
    tsv: str | None = None
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


def run_job(job: Job, progress: Callable[[int], None] = lambda records: None) -> Summary:
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
    fields = FieldWriter(models)
    with ExitStack() as stack:
        source = stack.enter_context(_open_source(job))
        if not job.overwrite:
            refuse_clashes(source.name, source.header, fields.keys)
        annotator, works = _look(job, genome, models, source)
        header = _header(job, source, models, genome, works.seen)
        writer = VcfWriter(
            job.output, job.kind, header, newline=source.newline, force=job.force,
            source=job.source, index=job.index, threads=job.threads,
        )  # fmt: skip
        stack.enter_context(writer)
        table = stack.enter_context(atomic_file(job.tsv, force=job.force)) if job.tsv else None
        if table is not None:
            table.write(fields.table_head())
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
    fields = FieldWriter(models)
    passes = dict.fromkeys((model.tag for model in models), 0)
    seconds = dict.fromkeys(passes, 0.0)
    with _open_source(job) as source:
        annotator, works = _look(job, genome, models, source)
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


def open_models(job: Job, genome: Genome) -> list[Model]:
    """Load bundles and open their sessions.

    Raises:
        UsageError: Two models have one tag, no model of the run gives a score, or a model reads an
            alignment and none is named.
    """
    bundles = [_tagged(text) for text in job.models]
    tags = [tag for tag, _ in bundles]
    if len(set(tags)) < len(tags):
        twice = next(tag for tag in tags if tags.count(tag) > 1)
        raise UsageError(f"-m: two models have the tag {twice}; give one another: -m NEWTAG=MODEL")
    models = []
    for tag, bundle in bundles:
        _check_supported(bundle, job)
        card = bundle.card
        circular = card.circular if job.circular is None else job.circular
        names = frozenset(filter(None, (genome.resolve(name) for name in circular)))
        strand = job.strand or card.strand
        models.append(
            Model(
                tag,
                bundle,
                parse_scores(job.scores, card),
                (False, True) if strand == "both" else (False,),
                names,
                open_runners(bundle, job.runtime),
                job.ignore_scope,
                _open_channels(bundle, genome, job),
            )
        )
        logger.info("%s: model %s %s on %s", tag, card.name, card.version, _where(models[-1], job))
    if job.msa is not None and not any(model.channels for model in models):
        logger.warning("--msa %s: no model of this run reads an alignment", job.msa)
    return models


def _open_channels(bundle: Bundle, genome: Genome, job: Job) -> Channels | None:
    channels = bundle.card.encoder.channels
    if not channels or job.msa is None:
        return None
    alignment = Alignment(job.msa, genome, len(channels))
    return Channels(bundle.card.encoder, genome, {"msa": alignment})


def _check_supported(bundle: Bundle, job: Job) -> None:
    """Refuse a card that asks for what this version does not do, rather than score without it."""
    card = bundle.card
    wants = {
        f"frame = {card.frame}": card.frame != "variant",
        f"shifts = {list(card.shifts)}": card.shifts != (0,),
        "encoder.channels of bigWigs": any(x.source == "bigwig" for x in card.encoder.channels),
    }
    missing = [what for what, wanted in wants.items() if wanted]
    if missing:
        raise BundleError(
            f"{bundle.path}: the card has {missing[0]}, which glm-annotate {__version__} cannot "
            "do; it runs models on whole windows around variants; a later version may"
        )
    check_channels(bundle)
    if card.encoder.channels and job.msa is None:
        raise UsageError(
            f"{bundle.path}: the model reads an alignment with {len(card.encoder.channels)} other "
            "species beside the bases; name it: --msa FILE.zarr"
        )


def _where(model: Model, job: Job) -> str:
    device = ", ".join(str(runner.device) for runner in model.runners)
    return f"{device} ({job.runtime.threads} threads)" if device == "cpu" else device


def _tagged(text: str) -> tuple[str, Bundle]:
    found = re.fullmatch(r"([A-Z][A-Z0-9]*)=(.+)", text)
    bundle = load_bundle(found[2] if found else text)
    return (found[1] if found else bundle.card.tag), bundle


def _look(
    job: Job, genome: Genome, models: Sequence[Model], source: VariantInput
) -> tuple[Annotator, Works]:
    return look_ahead(
        genome,
        models,
        source,
        contig_map=job.contig_map,
        allow_mismatch=job.allow_ref_mismatch,
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
        info_lines(models, __version__),
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
