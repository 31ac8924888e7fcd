"""The commands `evaluate ...`: how good scores, likelihoods and predicted tracks are."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from glm_annotate.errors import UsageError
from glm_annotate.model_options import (
    CONFIG,
    MODE,
    MODEL_OPTIONS,
    PROGRAM,
    RUN_OPTIONS,
    decorate,
    option,
    setup_values,
)

if TYPE_CHECKING:
    from glm_annotate.run_setup import Setup

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OUTPUT = click.option(
    "-o", "--output", required=True, metavar="OUTDIR", help="Folder for tables, pictures, report."
)
_FORCE = click.option("--force", is_flag=True, help="Replace the evaluation in OUTDIR.")
_TIMES = option(
    "--bootstrap", "times", type=click.IntRange(0), default=1000, show_default=True, metavar="N",
    help="Resamples of an interval.",
)  # fmt: skip
_SEED = option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N",
    help="Of all that is drawn.",
)  # fmt: skip
_POSITIVE = option(
    "--positive", metavar="VALUE[,...]", help="Values of KEY that make the positive class."
)
_NEGATIVE = option(
    "--negative", metavar="VALUE[,...]", help="Those of the negative class.  [default: all others]"
)
_DIRECTION = option(
    "--direction", "directions", multiple=True, metavar="[COLUMN=]low|high|abs",
    help="Which values speak for the positive class; without COLUMN of all scores.  [default: by "
    "the name of the score; of labels that are numbers: as it is]",
)  # fmt: skip
# Models are not needed where the VCF is annotated already.
_FASTA = option(
    "-f", "--fasta-ref", "--fasta", "fasta", metavar="REF.fa",
    help="Reference FASTA, for models, baselines, and strata that read it.",
)  # fmt: skip
_MODELS = option(
    "-m", "--model", "models", multiple=True, metavar="[TAG=]MODEL",
    help="Bundle to score with. Repeat to compare several on the same alleles.",
)  # fmt: skip


@click.group("evaluate", short_help="Measure models on data with known answers.")
def evaluate_group() -> None:
    """Measure models on data with known answers."""


def _options(*options: Callable[[Any], Any]) -> Callable[[_Command], _Command]:
    return lambda command: decorate(command, options)


@evaluate_group.command("variants", short_help="Scores against the labels of a VCF.")
@click.argument("source", metavar="LABELLED")
@_options(
    _FASTA,
    _MODELS,
    MODEL_OPTIONS[2],
    option("--label", required=True, metavar="KEY", help="INFO key of what is known."),
    _POSITIVE,
    _NEGATIVE,
    option(
        "--key", "keys", multiple=True, metavar="KEY[,...]",
        help="INFO keys to evaluate.  [default: those that the models write]",
    ),
    _DIRECTION,
    option(
        "--baseline", "baselines", multiple=True, metavar="NAME[=VALUE][,...]",
        help="Simple columns beside the scores: kmer[=K], gc[=WIDTH], tss=GENES.gtf, "
        "phylop=FILE.bw, transition.",
    ),
    option(
        "--by", multiple=True, metavar="NAME[=VALUE][,...]",
        help="Measure strata too: titv, consequence=KEY, region=FILE.bed, af=KEY[:EDGE...], "
        "tss=GENES.gtf[:EDGE...].",
    ),
    _TIMES,
    option(
        "--random-control", "control", is_flag=False, flag_value="permuted", default="",
        type=click.Choice(["", "permuted", "normal"]), metavar="[=permuted|normal]",
        help="Also score with the graph of each model and weights that were not learned: its own "
        "in another order, or normal ones.",
    ),
    _SEED,
    _OUTPUT,
    _FORCE,
    *RUN_OPTIONS,
    MODE,
    CONFIG,
)  # fmt: skip
@click.pass_context
def variants_command(ctx: click.Context, /, **given: Any) -> None:
    """Measure how well scores tell the alleles of LABELLED (VCF or BCF) apart.

    With --positive the label names classes, measured by AUROC and AUPRC; without it is a number,
    measured by Spearman's and Pearson's correlation. LABELLED is scored first where models are
    named, else its own INFO keys are read (--key).
    """
    from glm_annotate.evaluate.output import make_folder
    from glm_annotate.evaluate.variants import Question, evaluate_variants
    from glm_annotate.evaluate.variants_report import write_evaluation

    setup = _setup(given) if given["models"] else None
    if setup is None and given["control"]:
        raise UsageError("--random-control: needs models: -m MODEL")
    folder = make_folder(given["output"], given["force"])
    circular = given["circular"]
    question = Question(
        source=given["source"],
        label=given["label"],
        positive=_split(given["positive"]),
        negative=_split(given["negative"]),
        keys=_joined(given["keys"]),
        directions=given["directions"],
        baselines=_joined(given["baselines"]),
        by=_joined(given["by"]),
        fasta=given["fasta"] or "",
        circular=_split(circular),
        times=given["times"],
        seed=given["seed"],
        control=given["control"],
        force=given["force"],
    )
    evaluation = evaluate_variants(question, setup, folder)
    click.echo(write_evaluation(evaluation, question, folder, _typed(ctx)), nl=False)


def _setup(given: dict[str, Any]) -> Setup:
    from glm_annotate.run_setup import Setup

    if not given["fasta"]:
        raise UsageError("-m: needs the reference: -f REF.fa")
    return Setup(**setup_values(given))


def _split(text: str | None) -> tuple[str, ...]:
    return tuple(x for x in (text or "").split(",") if x)


def _joined(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(x for text in texts for x in _split(text))


def _typed(ctx: click.Context) -> str:
    """Give the command line as it was typed, for the report."""
    arguments = ctx.obj if isinstance(ctx.obj, tuple) else ()
    return shlex.join([PROGRAM, *map(str, arguments)]) if arguments else ""


@evaluate_group.command("perplexity", short_help="How well language models predict bases.")
@_options(
    *MODEL_OPTIONS[:2],
    click.option(
        "-R", "--regions-file", "regions", metavar="FILE.bed",
        help="Regions; their names share the bases out.  [default: the whole FASTA]",
    ),
    _TIMES,
    _SEED,
    _OUTPUT,
    _FORCE,
    *RUN_OPTIONS,
    MODE,
    CONFIG,
)  # fmt: skip
@click.pass_context
def perplexity_command(ctx: click.Context, /, **given: Any) -> None:
    """Measure how well language models predict the bases of REF.fa.

    Masked models predict each base from all others of its window, causal ones from those before
    it. Given are nats and bits a base, and the perplexity (2 to the power of the bits; 4 is a
    guess), of all bases, and of repeats (lower-case) and others.
    """
    from glm_annotate.evaluate.output import make_folder
    from glm_annotate.evaluate.perplexity import evaluate_perplexity
    from glm_annotate.evaluate.simple_reports import report_perplexity

    given = {**given, "scores": ()}
    setup = _setup(given)
    folder = make_folder(given["output"], given["force"])
    rows = evaluate_perplexity(setup, given["regions"], times=given["times"], seed=given["seed"])
    click.echo(report_perplexity(rows, folder, _typed(ctx)), nl=False)


@evaluate_group.command("tracks", short_help="Predicted tracks against measured ones.")
@_options(
    *MODEL_OPTIONS[:2],
    click.option(
        "-R", "--regions-file", "regions", required=True, metavar="FILE.bed",
        help="Regions to predict; those that the model was not trained on.",
    ),
    option(
        "--observed", multiple=True, required=True, metavar="TRACK=FILE.bw",
        help="What was measured, for a track of the models. Repeat for several.",
    ),
    option(
        "--mask", type=click.Choice(["gene", "exons"]), default="gene", show_default=True,
        help="Bases of a gene of --gtf that are added up.",
    ),
    option(
        "--missing", type=click.Choice(["zero", "skip"]), default="zero", show_default=True,
        help="What bases are that a bigWig has no number of.",
    ),
    _TIMES,
    _SEED,
    _OUTPUT,
    _FORCE,
    *RUN_OPTIONS,
    CONFIG,
)  # fmt: skip
@click.pass_context
def tracks_command(ctx: click.Context, /, **given: Any) -> None:
    """Measure predicted tracks against bigWigs, across bins and, with --gtf, across genes."""
    from glm_annotate.evaluate.output import make_folder
    from glm_annotate.evaluate.simple_reports import report_tracks
    from glm_annotate.evaluate.tracks import evaluate_tracks

    given = {**given, "scores": ()}
    setup = _setup(given)
    folder = make_folder(given["output"], given["force"])
    rows = evaluate_tracks(
        setup,
        given["regions"],
        given["observed"],
        gtf=given["gtf"],
        mask=given["mask"],
        missing=given["missing"],
        times=given["times"],
        seed=given["seed"],
    )
    click.echo(report_tracks(rows, folder, _typed(ctx)), nl=False)


@evaluate_group.command("context", short_help="Scores as the model sees less around alleles.")
@click.argument("source", metavar="VARIANTS")
@_options(
    *MODEL_OPTIONS,
    option("--label", default="", metavar="KEY", help="INFO key of what is known."),
    _POSITIVE,
    _NEGATIVE,
    _DIRECTION,
    option(
        "--widths", metavar="BASES[,...]",
        help="Bases that stay around the allele.  [default: powers of two up to the window]",
    ),
    option(
        "--how", type=click.Choice(["n", "shuffle"]), default="n", show_default=True,
        help="What becomes of the other bases: N, or shuffled with the same dinucleotides.",
    ),
    option(
        "--most", type=click.IntRange(2), default=1000, show_default=True, metavar="N",
        help="Alleles at most, drawn from all.",
    ),
    _TIMES,
    _SEED,
    _OUTPUT,
    _FORCE,
    *RUN_OPTIONS,
    CONFIG,
)  # fmt: skip
@click.pass_context
def context_command(ctx: click.Context, /, **given: Any) -> None:
    """Score VARIANTS (VCF or BCF) with less and less of the window: does a model use its context?

    Given are Spearman's correlation with the scores of the whole window and, with --label, how
    well the scores tell alleles apart at each width.
    """
    from glm_annotate.evaluate.context import Question, evaluate_context
    from glm_annotate.evaluate.output import make_folder
    from glm_annotate.evaluate.simple_reports import report_context

    setup = _setup(given)
    widths = _split(given["widths"])
    if wrong := [x for x in widths if not x.isdecimal()]:
        raise UsageError(f"--widths {wrong[0]}: not a number of bases")
    folder = make_folder(given["output"], given["force"])
    question = Question(
        source=given["source"],
        label=given["label"],
        positive=_split(given["positive"]),
        negative=_split(given["negative"]),
        directions=given["directions"],
        widths=tuple(map(int, widths)),
        how=given["how"],
        most=given["most"],
        times=given["times"],
        seed=given["seed"],
    )
    rows = evaluate_context(question, setup)
    click.echo(report_context(rows, folder, _typed(ctx)), nl=False)
