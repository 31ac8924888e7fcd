"""`evaluate variants`: scores of models, and simple baselines, against what is known of alleles."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from glm_annotate.errors import UsageError
from glm_annotate.evaluate.alleles import Labels, Table, read_labels, read_table, reason_of
from glm_annotate.evaluate.columns import (
    Column,
    Direction,
    Placed,
    Role,
    Strata,
    direction_of_score,
    directions_of,
    key_of_strata,
    make_baseline,
    make_strata,
    needs_genome,
)
from glm_annotate.evaluate.compare import Figure, Shared, compare, share_alleles
from glm_annotate.evaluate.genome_columns import place_alleles
from glm_annotate.genome import Genome
from glm_annotate.job import Job, run_job
from glm_annotate.run_setup import Setup

Control = Literal["", "permuted", "normal"]
CONTROL = "RANDOM"  # what follows the tag of a model in that of its control
SCORED = "scored.vcf.gz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of a labelled VCF.

    Attributes:
        source: The VCF.
        label: INFO key of what is known.
        positive: Its values of the positive class; none: it holds numbers.
        negative: Those of the negative class; none: all others.
        keys: INFO keys to evaluate; none: those that the models write.
        directions: As after --direction.
        baselines: As after --baseline.
        by: As after --by.
        fasta: The reference, for baselines and strata that read it; empty: none.
        circular: Contigs that wrap around.
        times: Resamples.
        seed: Of resamples and of controls.
        control: How the weights of controls are drawn; empty: no controls.
        force: Replace files of an earlier evaluation.
    """

    source: str
    label: str
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    directions: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    fasta: str = ""
    circular: tuple[str, ...] = ()
    times: int = 1000
    seed: int = 0
    control: Control = ""
    force: bool = False


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was found.

    Attributes:
        table: The alleles.
        shared: Those that were measured.
        models: Fields of the models in the VCF, by tag.
    """

    table: Table
    labels: Labels
    columns: list[Column]
    strata: list[Strata]
    shared: Shared
    figures: list[Figure]
    models: dict[str, dict[str, str]]


def evaluate_variants(question: Question, setup: Setup | None, folder: Path) -> Evaluation:
    """Score a labelled VCF where models are given, and measure every column.

    Args:
        question: What is asked.
        setup: Models to score with; None: the VCF is annotated already.
        folder: Where the annotated VCF goes; it exists.

    Raises:
        GlmAnnotateError: Something that the user can mend.
    """
    if setup is None and not question.keys and not question.baselines:
        raise UsageError("nothing to evaluate: name models (-m), INFO keys (--key) or --baseline")
    # Before the work, not after it.
    directions = directions_of(question.directions)
    for option, texts in (("--baseline", question.baselines), ("--by", question.by)):
        names = [text if option == "--baseline" else text.partition("=")[0] for text in texts]
        if twice := [name for name in names if names.count(name) > 1]:
            raise UsageError(f"{option} {twice[0]}: given twice; give it once")
    given = read_table(question.source, [question.label, *_strata_keys(question)])
    labels = read_labels(given, question.label, question.positive, question.negative)
    source, fresh = question.source, list(dict.fromkeys(question.keys))
    if setup is not None:
        source = str(folder / SCORED)
        _score(question, setup, source)
        declared = read_table(source, []).declared
        written = [k for k, x in declared.items() if k not in given.declared]
        # Whole numbers are places, such as those of splice sites.
        floats = [k for k in written if declared[k].is_score and declared[k].kind == "Float"]
        fresh = fresh or floats
    statuses = [k for k in read_table(source, []).declared if k.endswith("_STATUS")]
    table = read_table(source, [question.label, *_strata_keys(question), *fresh, *statuses])
    placed = _placed(question, setup, table)
    columns = [_score_column(table, key, statuses) for key in fresh]
    if question.baselines and placed is None:
        raise UsageError("--baseline: needs the reference: -f REF.fa")
    if placed is not None:
        columns += [make_baseline(text, placed) for text in question.baselines]
    columns = _directed(columns, directions, labels)
    if placed is None and any(map(needs_genome, question.by)):
        raise UsageError("--by: needs the reference: -f REF.fa")
    strata = [make_strata(text, table, placed) for text in question.by]
    shared = share_alleles(table.sites, labels, columns)
    figures = compare(columns, labels, shared, strata, times=question.times, seed=question.seed)
    return Evaluation(table, labels, columns, strata, shared, figures, table.models)


def _strata_keys(question: Question) -> list[str]:
    return [key for key in map(key_of_strata, question.by) if key]


def _score(question: Question, setup: Setup, output: str) -> None:
    """Annotate the VCF with all models, and with their controls."""
    with tempfile.TemporaryDirectory(prefix="glm_annotate_") as drawn:
        models = list(setup.models)
        if question.control:
            from glm_annotate.train.randomised import write_control

            for number, text in enumerate(setup.models):
                path = Path(drawn) / str(number)
                tag = write_control(text, path, question.control, question.seed)
                models.append(f"{tag}{CONTROL}={path}")
        values = {name: getattr(setup, name) for name in Setup.__slots__}
        job = Job(
            **{**values, "models": tuple(models)},
            source=question.source,
            output=output,
            kind="z",
            force=question.force,
        )
        run_job(job)


def _placed(question: Question, setup: Setup | None, table: Table) -> Placed | None:
    fasta = question.fasta or (setup.fasta if setup is not None else "")
    if not fasta or not (question.baselines or any(map(needs_genome, question.by))):
        return None
    genome = Genome(fasta)
    named = [name for x in table.models.values() for name in x.get("Circular", "").split(",")]
    found = (genome.resolve(name) for name in question.circular or named)
    circular = frozenset(name for name in found if name is not None)
    return Placed(genome, place_alleles(genome, table.sites, circular), circular)


def _score_column(table: Table, key: str, statuses: Sequence[str]) -> Column:
    values = table.numbers(key)
    # Of tags that begin alike the longest is the model's.
    tags = sorted((s.removesuffix("_STATUS") for s in statuses), key=len, reverse=True)
    tag = next((tag for tag in tags if key.startswith(f"{tag}_")), "")
    role: Role = "control" if tag.endswith(CONTROL) and tag != CONTROL else "score"
    reasons = [""] * len(table)
    if tag:
        own = key.removeprefix(f"{tag}_")
        reasons = [reason_of(text, own) for text in table.texts(f"{tag}_STATUS")]
    about = table.models.get(tag, {}).get("Name", "INFO key of the file")
    return Column(key, role, direction_of_score(key), values, reasons, about)


def _directed(
    columns: Sequence[Column], given: dict[str, Direction], labels: Labels
) -> list[Column]:
    """Give columns the directions that the user named; without one it means the scores alone.

    Of labels that are numbers the sign of a correlation tells the direction, so that columns are
    taken as they are unless the user says otherwise.
    """
    names = [column.name for column in columns]
    if unknown := sorted(set(given) - {*names, ""}):
        raise UsageError(
            f"--direction {unknown[0]}=...: no such column; there are: {', '.join(names)}"
        )
    out = []
    for column in columns:
        own = column.direction if labels.kind == "classes" else "high"
        if column.role != "baseline":
            own = given.get("", own)
        out.append(replace(column, direction=given.get(column.name, own)))
    return out
