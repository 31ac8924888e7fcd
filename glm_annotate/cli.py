"""The command line: options in, exit codes out. The only module that prints or exits.

Exit codes: 0 ok, 1 input or model error, 2 usage, 3 finished but --strict found alleles without a
score, 130 on Ctrl-C, 141 on a closed pipe. Logs, summary and progress go to stderr.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glm_annotate import __version__
from glm_annotate.cli_bed import bed_command
from glm_annotate.cli_calibrate import calibrate_command
from glm_annotate.cli_evaluate import evaluate_group
from glm_annotate.cli_report import report_command
from glm_annotate.cli_tracks import tracks_command
from glm_annotate.errors import GlmAnnotateError, UsageError
from glm_annotate.model_options import PROGRAM, option, track_choice, track_options
from glm_annotate.options import Attached, job_from, vcf_options
from glm_annotate.progress import progress_of

if TYPE_CHECKING:
    from glm_annotate.job import Summary
    from glm_annotate.train.export import ExportReport


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run the command line; returns the exit code, and leaves logging as it was."""
    logger = logging.getLogger("glm_annotate")
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    try:
        return _run(arguments)
    finally:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def _run(arguments: list[str]) -> int:
    try:
        result = commands.main(arguments, PROGRAM, standalone_mode=False, obj=tuple(arguments))
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return 2
    except GlmAnnotateError as error:
        click.echo(f"{PROGRAM}: error: {error}", err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo(f"{PROGRAM}: interrupted", err=True)
        return 130
    except (BrokenPipeError, _PipeClosed):
        # Nobody reads any more; the interpreter must not try to flush on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except MemoryError:
        click.echo(f"{PROGRAM}: error: out of memory; try a smaller --batch-size", err=True)
        return 1


class _PipeClosed(Exception):
    """A BrokenPipeError by a name that click does not know: it would end the run with 1."""


class _Stderr(logging.Handler):
    """Writes to what is stderr now, not to what it was when the handler was made."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        click.echo(self.format(record), err=True)


class _Commands(click.Group):
    """The commands, whose closed pipes reach `run`."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _PipeClosed from error


def _version(ctx: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(f"{PROGRAM} {__version__}")
        ctx.exit()


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version,
    help="Print the version.",
)  # fmt: skip
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors on stderr.")
@click.option("-v", "--verbose", is_flag=True, help="More on stderr.")
def commands(quiet: bool, verbose: bool) -> None:
    """Say what a variant does to the regulatory code, with genome language models run by ONNX."""
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    handler = _Stderr()
    handler.setFormatter(logging.Formatter(f"{PROGRAM}: %(message)s"))
    root = logging.getLogger("glm_annotate")
    root.handlers[:] = [handler]
    root.setLevel(level)
    root.propagate = False


@commands.command("vcf", cls=Attached, short_help="Annotate a VCF or BCF.")
@click.argument("source", metavar="[IN]", required=False)
@vcf_options
@click.pass_context
def vcf_command(ctx: click.Context, /, **given: Any) -> int:
    """Annotate the ALT alleles of IN (VCF, BCF or a table of chrom, pos, ref, alt; - is stdin).

    IN may also be one allele, chr:pos:ref:alt. Every record comes out as it went in, with INFO
    keys TAG_SCORE and TAG_STATUS added: each ALT gets a number, or the reason why it has none.
    """  # fmt: skip
    if given["source"] is None and sys.stdin.isatty():
        raise click.UsageError("name IN, or - to read stdin", ctx)
    from glm_annotate.job import foresee, run_job
    from glm_annotate.vcf import check_output

    job = job_from(given, ctx.obj or ())
    # Before the work, not after it.
    check_output(given["summary"], given["force"], job.source)
    with progress_of(" records") as progress:
        summary = foresee(job, progress) if given["dry_run"] else run_job(job, progress)
    _tell(summary, given["dry_run"])
    if given["summary"]:
        _write_summary(summary, given["summary"], given["force"])
    return 3 if given["strict"] and summary.has_unscored else 0


def _tell(summary: Summary, dry: bool) -> None:
    """Log what a run did."""
    logger = logging.getLogger(__name__)
    logger.info(
        "%d records, %d alleles, %d records without ALT%s",
        summary.records, summary.alleles, summary.records_without_alt,
        "" if dry else f", {summary.seconds:.1f} s",
    )  # fmt: skip
    for tag, model in summary.models.items():
        estimate = f", about {model['estimated_seconds']:.0f} s" if dry else ""
        logger.info("%s: %d forward passes%s", tag, model["forward_passes"], estimate)
        for status, count in model["status"].items():
            logger.info("%s: %8d %s", tag, count, status)


def _write_summary(summary: Summary, path: str, force: bool) -> None:
    import json

    from glm_annotate.vcf import atomic_file

    with atomic_file(path, force=force) as out:
        out.write((json.dumps(summary.as_dict(), indent=2) + "\n").encode())


for command in (
    bed_command,
    tracks_command,
    report_command,
    calibrate_command,
    evaluate_group,
):
    commands.add_command(command)


@commands.group("models", short_help="List, show and check model bundles.")
def models_group() -> None:
    """List, show and check model bundles."""


@models_group.command("list")
def models_list() -> None:
    """List the models that ship with the package."""
    from glm_annotate.bundle import read_card, shipped

    for name, folder in shipped().items():
        card = read_card(folder)
        scores = ",".join(card.scores)
        click.echo(
            f"{name}\t{card.version}\t{card.tag}\t{card.context} bp\t{scores}\t{card.description}"
        )


@models_group.command("show")
@click.argument("model")
def models_show(model: str) -> None:
    """Print the card of MODEL as JSON, with its digest."""
    import json

    from glm_annotate.bundle import load_bundle

    bundle = load_bundle(model)
    card = bundle.card.model_dump(mode="json", exclude_none=True)
    click.echo(json.dumps({"path": str(bundle.path), "digest": bundle.digest, **card}, indent=2))


@models_group.command("check")
@click.argument("model")
@click.option("--golden", is_flag=True, help="Compare official weights with published figures.")
@click.option(
    "-f", "--fasta-ref", "fasta", metavar="FILE",
    help="Genome or prompts that the published figures are of, or genome whose sites tell how far "
    "dense scores are from exact ones.",
)  # fmt: skip
def models_check(model: str, golden: bool, fasta: str | None) -> int:
    """Check the files of MODEL, load its graph and run its self-test."""
    from glm_annotate.bundle import read_card
    from glm_annotate.testing import check_bundle

    report = check_bundle(Path(model) if Path(model).exists() else model)
    card = read_card(report.path)
    is_dense = card.dense > 0 and not card.encoder.channels
    if fasta and not golden and not is_dense:
        raise UsageError(f"-f is for --golden and for models with --mode dense, not {card.name}")
    for name, difference in report.differences.items():
        click.echo(f"{name}\tlargest difference {difference:.3g}\tallowed {report.tolerance:.3g}")
    click.echo(f"{report.path}: ok, {report.cases} sequences")
    if is_dense:
        _tell_deviation(report.path, None if golden else fasta)
    return _tell_golden(model, fasta) if golden else 0


_head_option = click.option(
    "--head", metavar="NAME", help="Which head of several, such as mouse.  [default: human]"
)


@models_group.command("import")
@click.argument("what", nargs=-1, required=True)
@click.option("-o", "--output", required=True, metavar="BUNDLE", help="Folder to make.")
@click.option("--model", metavar="NAME", help="Which of a package's models.")
@click.option(
    "--assembly", type=click.Choice(["grch37", "grch38"]), default="grch38", show_default=True,
    help="Of the gene table, where the package has one.",
)  # fmt: skip
@click.option("--context", type=click.IntRange(min=1), metavar="N", help="Bases of the window.")
@_head_option
@track_options
@click.option("--accept-licence", is_flag=True, help="The licence of the weights allows my use.")
@click.option("--force", is_flag=True, help="Replace BUNDLE where it exists.")
def models_import(what: tuple[str, ...], output: str, force: bool, **options: Any) -> None:
    """Make a bundle of weights inside a package or file that you have (extra `train`).

    WHAT is the name of a package (cispliceai, spliceai, ...), installed or as a wheel, a weights
    file (Keras .h5, .pt of torch) or a folder of them. Several files of one model are its
    replicates, whose predictions are averaged.
    """
    _need_torch()
    from glm_annotate.train.export import export_imported
    from glm_annotate.train.importing import prepare
    from glm_annotate.train.subjects import identify

    tracks = track_choice(options)
    made = prepare(what[0] if len(what) == 1 else what, identify=identify, **options)
    report = export_imported(made, output, tracks=tracks, force=force)
    _tell_export(report)
    licence = report.card.provenance.weights_licence
    click.echo(f"weights: {licence or 'no licence is known'}")


def _tell_deviation(path: Path, fasta: str | None) -> None:
    from glm_annotate.bundle import load_bundle
    from glm_annotate.deviation import dense_deviation
    from glm_annotate.genome import Genome

    found = dense_deviation(load_bundle(path), Genome(fasta) if fasta else None)
    click.echo(
        f"dense\tstride {found.stride}\tLLR at {found.sites} sites of {fasta or 'random bases'} "
        f"against exact: median difference {found.median:.3g}, 99th percentile {found.p99:.3g}, "
        f"largest {found.largest:.3g}; standard deviation of exact {found.spread:.3g}, rank "
        f"correlation {found.spearman:.4f}"
    )


def _tell_golden(model: str, fasta: str | None) -> int:
    from glm_annotate.golden import check_golden

    figures = check_golden(model, fasta)
    for figure in figures:
        click.echo(
            f"{'ok  ' if figure.good else 'BAD '} {figure.what}\tfound {figure.found:.5f}\t"
            f"published {figure.expected:.5f}\tallowed {figure.tolerance:g}"
        )
    return 0 if all(figure.good for figure in figures) else 1


@commands.command("doctor", short_help="Say what works on this machine.")
def doctor_command() -> int:
    """Say which runtime, devices, packages and models work here, and what to do where not."""
    from glm_annotate.doctor import examine

    findings = examine()
    for finding in findings:
        click.echo(f"{'ok  ' if finding.ok else 'BAD '} {finding.what}: {finding.found}")
        if finding.mend:
            click.echo(f"     {finding.mend}")
    return 0 if all(finding.ok for finding in findings) else 1


@commands.command("train", short_help="Train a model from a TOML config.")
@click.argument("config")
@option("--data", metavar="DIR", help="Data folder, in place of the config's.")
@click.option("--resume", is_flag=True, help="Continue the run from its last checkpoint.")
def train_command(config: str, data: str | None, resume: bool) -> None:
    """Train the model that CONFIG describes (needs the extra `train`)."""
    _need_torch()
    from glm_annotate.train.loop import train

    click.echo(train(config, resume=resume, data=data))


@commands.command("export", short_help="Turn a checkpoint into a bundle.")
@click.argument("source")
@click.option("-o", "--output", required=True, metavar="BUNDLE", help="Folder to make.")
@click.option("--card", metavar="CARD.toml", help="Keys of the card that SOURCE does not know.")
@click.option("--family", metavar="NAME", help="System of SOURCE, where it cannot be told.")
@click.option(
    "--context", type=click.IntRange(min=1), metavar="N",
    help="Bases of the window, in place of the system's default.",
)  # fmt: skip
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp32",
    show_default=True,
    help="Of the weights as stored.",
)
@click.option("--calibration", metavar="REF.fa", help="Genome that sets the scales of int8.")
@click.option("--attention", is_flag=True, help="Give the graph the output attention.")
@_head_option
@track_options
@click.option("--force", is_flag=True, help="Replace BUNDLE where it exists.")
def export_command(source: str, output: str, **options: Any) -> None:
    """Export SOURCE as an ONNX bundle, checked against torch (needs the extra `train`).

    SOURCE is a checkpoint of `glm-annotate train`, or an official one: a .safetensors, .bin, .pt
    or .ckpt file, a folder in the layout of the Hugging Face hub, or hf://owner/repo[@revision].
    """
    _need_torch()
    from glm_annotate.train.export import export

    options["tracks"] = track_choice(options)
    if options["calibration"] and options["precision"] != "int8":
        raise UsageError("--calibration is for --precision int8")
    report = export(source, output, **options)
    _tell_export(report)


def _tell_export(report: ExportReport) -> None:
    card = report.card
    click.echo(
        f"{report.folder}: {card.name}, {card.context} bp, {card.precision}, {report.size} bytes"
    )
    for case in report.parity:
        for name, difference in case.deviation.items():
            click.echo(
                f"{name}\t{case.batch} x {case.length} rows\tONNX Runtime against torch "
                f"{difference:.2g}\tlargest value {case.largest[name]:.3g}"
            )
    if card.precision != "fp32":
        for name, difference in report.rounding.deviation.items():
            click.echo(f"{name}\t{card.precision} against fp32\t{difference:.2g}")


def _need_torch() -> None:
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        raise UsageError(
            "training and exporting need torch; run: pip install 'glm_annotate[train]'"
        )
