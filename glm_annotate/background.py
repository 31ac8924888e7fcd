"""`glm-annotate calibrate`: score a background, and keep the distribution of its scores.

The background goes through the same run as variants of a user, and its numbers are taken as they
would be written, so that what is compared later is alike. All numbers are held until the end, 8
bytes each, so that the counts are exact for any size.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glm_annotate.annotate import Model, Work, score_chunks
from glm_annotate.answers import Floats, Ints
from glm_annotate.assembly import look_ahead
from glm_annotate.beds import place, read_bed
from glm_annotate.bundle import Bundle
from glm_annotate.calibration import (
    ADJUSTED,
    CORRECTED,
    AlleleClass,
    Background,
    Series,
    context_means,
    contexts,
    is_snv,
)
from glm_annotate.draws import (
    Match,
    as_input,
    choose_matched,
    draw_substitutions,
    read_substitutions,
)
from glm_annotate.errors import InputError, UsageError
from glm_annotate.fields import FieldWriter, compared, meaning, numbers_in
from glm_annotate.genome import Codes, Genome, Interval, aliases
from glm_annotate.opening import open_models
from glm_annotate.records import VariantInput, open_input
from glm_annotate.run_setup import Setup
from glm_annotate.sketches import Sketch, make_sketch
from glm_annotate.vcf import format_floats

logger = logging.getLogger(__name__)

# Fewer numbers than this make a poor background.
_FEW = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Null(Setup):
    """A background that is to be made, of one model.

    Attributes:
        variants: VCF, BCF or table of it; None: substitutions are drawn.
        random: How many are drawn.
        regions: BED in which they are drawn; None: contigs that the model is meant for.
        match: What the background has in common with other variants.
        seed: Of draws and choices.
        context: Bases of the context that LLR is corrected for; 0: it is not.
        name: Of the background, for headers; empty: made of the above.
        assembly: Name of the reference; empty: that of the FASTA's file.
        command: For the record.
    """

    variants: str | None = None
    random: int = 0
    regions: str | None = None
    match: Match | None = None
    seed: int = 0
    context: int = 0
    name: str = ""
    assembly: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of a background, all of shape (n,).

    Attributes:
        snv: Which alleles are substitutions of one base.
        context: Of each, see `calibration.contexts`; `alt`: its ALT code.
        values: By INFO key without the tag, NaN where there is none.
    """

    snv: NDArray[np.bool_]
    context: Ints
    alt: Codes
    values: dict[str, Floats]


def make_background(
    null: Null, progress: Callable[[int], None] = lambda records: None
) -> tuple[Bundle, Background]:
    """Score a background.

    Args:
        null: What it is.
        progress: Called with the number of records of each chunk that is done.

    Returns:
        The model, and the distributions of its scores.

    Raises:
        GlmAnnotateError: Something that the user can mend.
    """
    genome = Genome(null.fasta)
    (model,) = open_models(null, genome)
    meanings = {key: meaning(model, column) for key, column in compared(model).items()}
    if null.context and CORRECTED not in meanings:
        raise UsageError(
            f"--llr-context {null.context}: {CORRECTED} is not among the scores "
            f"{', '.join(meanings)}; add -s {CORRECTED}, or leave it out"
        )
    with _variants(null, genome, model) as source:
        scores = _score(model, genome, source, list(meanings), null.context or 1, progress)
    means = None
    if null.context:
        values = scores.values[CORRECTED]
        means = context_means(null.context, scores.context, scores.alt, values)
        adjusted = values - means.of(scores.context, scores.alt)
        scores.values[ADJUSTED] = numbers_in(format_floats(adjusted))
        meanings[ADJUSTED] = meanings[CORRECTED]
    series = {key: Series(meanings[key], _sketches(scores, key)) for key in meanings}
    return model.bundle, Background(
        digest=model.bundle.digest,
        null=null.name or _named(null),
        assembly=null.assembly or _assembly(null.fasta),
        seed=null.seed,
        command=null.command,
        series={key: one for key, one in series.items() if one.sketches},
        context=means,
    )


def _score(
    model: Model,
    genome: Genome,
    source: VariantInput,
    keys: list[str],
    k: int,
    progress: Callable[[int], None],
) -> Scores:
    """Score the alleles of a background.

    Raises:
        InputError: None of them has a number.
    """
    fields, parts = FieldWriter([model]), list[Scores]()

    def done(work: Work) -> None:
        progress(len(work.chunk))

    annotator, works = look_ahead(genome, [model], source, contig_map={})
    for scored in score_chunks(annotator, works, done):
        texts = dict(zip(fields.keys, fields.columns(scored), strict=True))
        values = {key: numbers_in(texts[f"{model.tag}_{key}"]) for key in keys}
        alleles = scored.alleles
        context = contexts(genome, alleles, k)
        parts.append(Scores(is_snv(alleles), context, alleles.alt_base, values))
    if fields.unscored[model.tag] == sum(x.snv.size for x in parts):
        listed = fields.status_counts[model.tag].most_common(3)
        told = ", ".join(f"{count} {status}" for status, count in listed) or "no allele"
        raise InputError(
            f"{source.name}: no allele of the background has a score ({told}); name variants of "
            f"{genome.path} that the model can score"
        )
    return Scores(
        np.concatenate([x.snv for x in parts]),
        np.concatenate([x.context for x in parts]),
        np.concatenate([x.alt for x in parts]),
        {key: np.concatenate([x.values[key] for x in parts]) for key in keys},
    )


def _sketches(scores: Scores, key: str) -> dict[AlleleClass, Sketch]:
    """Sum up the numbers of a score, and tell where they are few."""
    values, out = scores.values[key], dict[AlleleClass, Sketch]()
    known = np.isfinite(values)
    classes: tuple[tuple[AlleleClass, NDArray[np.bool_]], ...]
    classes = ("snv", scores.snv), ("other", ~scores.snv)
    for kind, here in classes:
        if (here & known).any():
            out[kind] = make_sketch(values[here & known].astype(np.float32))
    most = max((sketch.n for sketch in out.values()), default=0)
    if most < _FEW:
        logger.warning("%s: only %d alleles of the background have a number", key, most)
    return out


def _variants(null: Null, genome: Genome, model: Model) -> VariantInput:
    match = null.match
    if null.variants is None:
        regions = _regions(null, genome, model)
        drawn = draw_substitutions(genome, regions, null.random, null.seed, match)
        return as_input(genome, drawn, "random substitutions")
    if match is None:
        return open_input(null.variants, threads=null.threads)
    pool, target = (
        read_substitutions(path, genome, match.context) for path in (null.variants, match.path)
    )
    chosen = choose_matched(pool, target, match, null.seed)
    logger.info("%s: %d of %d substitutions are chosen", null.variants, len(chosen), len(pool))
    return as_input(genome, chosen, null.variants)


def _regions(null: Null, genome: Genome, model: Model) -> list[Interval]:
    """Say where substitutions are drawn.

    Raises:
        InputError: The FASTA has no contig that the model is meant for.
    """
    if null.regions is not None:
        return [place(row, genome, null.regions) for row in read_bed(null.regions)]
    card = model.bundle.card
    found = [
        Interval(name, 0, length)
        for name, length in genome.contigs.items()
        if null.ignore_scope or card.in_scope(name, length, aliases(name))
    ]
    if not found:
        raise InputError(
            f"{genome.path}: has no contig that the model {card.name} is meant for; give another "
            "FASTA with -f, or go on with --ignore-scope"
        )
    return found


def _named(null: Null) -> str:
    """Say in words what a background is."""
    if null.variants is None:
        text = "random substitutions"
        if null.regions is not None:
            text += f" in {Path(null.regions).name}"
    else:
        text = f"alleles of {Path(null.variants).name}"
    if null.match is not None:
        what = f"ALT in contexts of {null.match.k}" if null.match.k else "transitions"
        text += f", matched to {Path(null.match.path).name} by {what}"
    drawn = null.variants is None or null.match is not None
    return f"{text}, seed {null.seed}" if drawn else text


def _assembly(fasta: str) -> str:
    """Name a reference after its file."""
    name = Path(fasta).name
    for ending in (".gz", ".bgz", ".fa", ".fasta", ".fna"):
        name = name.removesuffix(ending)
    return name
