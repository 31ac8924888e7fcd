"""The command line: options in, exit codes out. The only module that prints or exits.

Exit codes: 0 ok, 1 input or model error, 2 usage, 3 finished but --strict found alleles without a
score, 130 on Ctrl-C, 141 on a closed pipe. Logs, summary and progress go to stderr.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from glm_annotate import __version__
from glm_annotate.cli_bed import bed_command
from glm_annotate.cli_calibrate import calibrate_command
from glm_annotate.cli_evaluate import evaluate_group
from glm_annotate.cli_models import models_group
from glm_annotate.cli_report import report_command
from glm_annotate.cli_tracks import tracks_command
from glm_annotate.cli_training import export_command, tokenizer_command, train_command
from glm_annotate.errors import GlmAnnotateError
from glm_annotate.model_options import PROGRAM
from glm_annotate.options import Attached, job_from, vcf_options
from glm_annotate.progress import progress_of

if TYPE_CHECKING:
    from glm_annotate.job import Summary


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


for command in (
    bed_command, tracks_command, report_command, models_group, train_command, export_command,
    tokenizer_command, evaluate_group, calibrate_command,
):  # fmt: skip
    commands.add_command(command)
