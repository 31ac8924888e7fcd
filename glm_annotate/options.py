"""Options of the command line, and the job that they make.

Every option can also come from `GLM_ANNOTATE_<NAME>` or from the file of --config; the command line
beats the variable, and the variable beats the file.
"""

from __future__ import annotations

import datetime
import os
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from glm_annotate.errors import UsageError

if TYPE_CHECKING:
    from glm_annotate.job import Job
    from glm_annotate.runtime import Settings
    from glm_annotate.track_choice import TrackChoice

PROGRAM = "glm-annotate"
_Command = TypeVar("_Command", bound=Callable[..., Any])


class Attached(click.Command):
    """A command whose -W takes a value only when it is attached, as in bcftools."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Spell every form of -W out."""
        spelled = []
        for argument in args:
            if argument in ("-W", "--write-index"):
                argument = "--write-index=csi"
            elif argument.startswith("-W"):
                argument = "--write-index=" + argument[2:].removeprefix("=")
            spelled.append(argument)
        return super().parse_args(ctx, spelled)


def option(*names: str, **settings: Any) -> Callable[[_Command], _Command]:
    """Make an option that `GLM_ANNOTATE_<NAME>` can set too."""
    long = next(name for name in names if name.startswith("--"))
    variable = "GLM_ANNOTATE_" + long.split("/")[0].strip("-").replace("-", "_").upper()
    return click.option(*names, envvar=variable, show_envvar=False, **settings)


def _read_config(ctx: click.Context, parameter: click.Parameter, path: str | None) -> None:
    """Make the values of a TOML file the defaults of the command."""
    if path is None:
        return
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--config {path}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise click.UsageError(f"--config {path}: not TOML: {error}") from error
    named = {
        name.strip("-"): p
        for p in ctx.command.params
        if isinstance(p, click.Option)
        for name in p.opts
        if name.startswith("--")
    }
    unknown = sorted(set(values) - set(named))
    if unknown:
        known = ", ".join(sorted(named))
        raise click.UsageError(f"--config {path}: unknown key {unknown[0]!r}; known: {known}")
    ctx.default_map = {
        # An option that repeats may have one value that is no list.
        named[key].name or "": [value] if named[key].multiple and isinstance(value, str) else value
        for key, value in values.items()
    }


_TRACK_OPTIONS = (
    option(
        "--tracks-file", "tracks_files", multiple=True, metavar="FILE",
        help="Only tracks whose identifiers stand in FILE, one a line.",
    ),
    option(
        "--track-regex", "track_regexes", multiple=True, metavar="REGEX",
        help="Only tracks whose identifier or description matches.",
    ),
    option("--assay", "assays", multiple=True, metavar="NAME", help="Only tracks of this assay."),
    option(
        "--biosample", "biosamples", multiple=True, metavar="NAME",
        help="Only tracks of these cells or this tissue.",
    ),
)  # fmt: skip
_VCF_OPTIONS = (
    option(
        "-f",
        "--fasta-ref",
        "--fasta",
        "fasta",
        required=True,
        metavar="REF.fa",
        help="Reference FASTA, plain or bgzipped; a missing index is made.",
    ),
    option(
        "-m",
        "--model",
        "models",
        multiple=True,
        required=True,
        metavar="[TAG=]MODEL",
        help="Bundle folder or .zip, shipped name (glm-annotate models list), or "
        "hf://owner/repo[@rev]. Repeat for several models; TAG= changes the prefix of INFO keys.",
    ),
    option(
        "-s",
        "--score",
        "scores",
        multiple=True,
        metavar="NAME[:key=value...]",
        help="Language models: LLR, PLLR, WTLLR, ENT, and EMB_COS, EMB_L1, EMB_L2, EMB_DOT with "
        "pool=site|window|all and k=BASES. Tracks: SAD, LOGSED, D2 and more, with "
        "mask=center:width=BASES. Repeat or join by commas. Default: the model's own.",
    ),
    option("-o", "--output", metavar="OUT", help="Output file.  [default: stdout]"),
    option(
        "-O",
        "--output-type",
        metavar="v|z|u|b",
        help="VCF, bgzipped VCF, uncompressed BCF, BCF.  [default: from the name of OUT, else v]",
    ),
    option("-W", "--write-index", metavar="[=csi|tbi]", help="Index OUT."),
    option("-r", "--regions", metavar="REGION", help="Only chr[:beg-end][,...], by the index."),
    option("-R", "--regions-file", metavar="FILE", help="The same from a BED, VCF or table."),
    option("-t", "--targets", metavar="[^]REGION", help="Like -r, streaming; ^ leaves them out."),
    option("-T", "--targets-file", metavar="[^]FILE", help="The same from a file."),
    option(
        "--device",
        default="auto",
        show_default=True,
        metavar="auto|cpu[:N]|cuda[:I[,J...]]",
        help="Where models run.",
    ),
    option(
        "--threads",
        type=click.IntRange(0),
        default=0,
        metavar="N",
        help="Threads of ONNX Runtime on the CPU and of bgzf.  [default: all cores]",
    ),
    option(
        "--batch-size",
        default="auto",
        show_default=True,
        metavar="auto|N",
        help="Forward passes in a batch.",
    ),
    option(
        "--precision",
        type=click.Choice(["fp32", "tf32"]),
        default="fp32",
        show_default=True,
        help="Matrix products on CUDA.",
    ),
    option("--strand", type=click.Choice(["both", "forward"]), help="[default: the model's own]"),
    option(
        "--circular",
        metavar="CONTIG[,...]",
        help="Contigs that wrap around; `none` for none.  [default: those of the model]",
    ),
    option("--contig-map", metavar="FILE", help="VCF name, tab, FASTA name; one pair a line."),
    option(
        "--msa",
        metavar="FILE.zarr",
        help="Alignment of REF.fa with other species, for models that read one.",
    ),
    option(
        "--gtf",
        metavar="FILE",
        help="Genes as GTF, GFF3 or table, for models that read alleles in their genes.  "
        "[default: the model's own]",
    ),
    option(
        "--signal",
        "signals",
        multiple=True,
        metavar="NAME=FILE.bw",
        help="bigWig of a signal, for models that read one of that name. Repeat for several.",
    ),
    *_TRACK_OPTIONS,
    option("--tsv", metavar="OUT.tsv", help="Also write a table with one row an allele."),
    option(
        "--matrix",
        metavar="OUT.parquet",
        help="Also write one row an allele and track, for models of tracks.",
    ),
    option("--summary", metavar="OUT.json", help="Also write counts, passes and times."),
    option("--sites-only", is_flag=True, help="Leave out FORMAT and samples."),
    option("--overwrite", is_flag=True, help="Replace INFO keys of an earlier run."),
    option("--force", is_flag=True, help="Replace OUT where it exists."),
    option("--allow-ref-mismatch", is_flag=True, help="Go on where the FASTA looks wrong."),
    option("--ignore-scope", is_flag=True, help="Score contigs that the model is not meant for."),
    option("--strict", is_flag=True, help="Exit with 3 if an allele has no score."),
    option("--no-version", is_flag=True, help="No version and command line in the header."),
    option(
        "--dry-run",
        is_flag=True,
        help="Write nothing: count alleles, passes and seconds.",
    ),
    click.option(
        "--config",
        is_eager=True,
        expose_value=False,
        callback=_read_config,
        metavar="FILE.toml",
        help="Options from a file; the command line beats them.",
    ),
)


def vcf_options(command: _Command) -> _Command:
    """Give a command the options of `glm-annotate vcf`."""
    for decorate in reversed(_VCF_OPTIONS):
        command = decorate(command)
    return command


def track_options(command: _Command) -> _Command:
    """Give a command the options that choose tracks."""
    for decorate in reversed(_TRACK_OPTIONS):
        command = decorate(command)
    return command


def track_choice(given: dict[str, Any]) -> TrackChoice | None:
    """Take the options that choose tracks out of a command's; None where none was given."""
    from glm_annotate.track_choice import TrackChoice

    names = ("tracks_files", "track_regexes", "assays", "biosamples")
    values = [tuple(given.pop(name)) for name in names]
    return TrackChoice(*values) if any(values) else None


def job_from(given: dict[str, Any], arguments: Sequence[str] = ()) -> Job:
    """Make the job that the options of `glm-annotate vcf` describe.

    Args:
        given: Values by option.
        arguments: The command line as it was typed, for the header.

    Raises:
        UsageError: They contradict each other or name something unknown.
    """
    from glm_annotate.job import Job
    from glm_annotate.regions import regions_from, targets_from
    from glm_annotate.signals import parse_signals
    from glm_annotate.vcf import output_type

    _check_distinct(given)
    shown = () if given["no_version"] else (PROGRAM, *arguments)
    circular = given["circular"]
    names = None if circular is None else tuple(x for x in circular.split(",") if x != "none")
    return Job(
        source=given["source"] or "-",
        fasta=given["fasta"],
        models=tuple(given["models"]),
        scores=tuple(given["scores"]),
        output=given["output"],
        kind=output_type(given["output"], given["output_type"]),
        index=given["write_index"],
        regions=regions_from(given["regions"], given["regions_file"]),
        targets=targets_from(given["targets"], given["targets_file"]),
        circular=names,
        contig_map=_contig_map(given["contig_map"]),
        strand=given["strand"],
        msa=given["msa"],
        gtf=given["gtf"],
        signals=parse_signals(given["signals"]),
        tracks=track_choice(dict(given)),
        runtime=_runtime(given),
        threads=given["threads"],
        force=given["force"],
        overwrite=given["overwrite"],
        sites_only=given["sites_only"],
        allow_ref_mismatch=given["allow_ref_mismatch"],
        ignore_scope=given["ignore_scope"],
        tsv=given["tsv"],
        matrix=given["matrix"],
        arguments=shown,
        date=datetime.datetime.now().astimezone().strftime("%a %b %d %H:%M:%S %Y"),
    )


def _check_distinct(given: dict[str, Any]) -> None:
    """Refuse two outputs in one place, where each would spoil the other."""
    taken = {_place(given["output"] or "-"): "-o"}
    for name in ("tsv", "matrix", "summary"):
        if given[name] is not None:
            first = taken.setdefault(_place(given[name]), f"--{name}")
            if first != f"--{name}":
                raise UsageError(f"--{name} {given[name]}: the place of {first} too; name another")


def _place(path: str) -> str:
    if path in ("-", "/dev/stdout"):
        return "-"
    return path if path.startswith("/dev/") else os.path.realpath(path)


def _runtime(given: dict[str, Any]) -> Settings:
    from glm_annotate.runtime import parse_device

    batch = given["batch_size"]
    if batch != "auto" and not (batch.isdigit() and int(batch) > 0):
        raise UsageError(f"--batch-size {batch}: not auto or a number above 0")
    return parse_device(
        given["device"],
        threads=given["threads"],
        batch=0 if batch == "auto" else int(batch),
        tf32=given["precision"] == "tf32",
    )


def _contig_map(path: str | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--contig-map {path}: cannot be read: {error}") from error
    pairs = [line.split("\t") for line in lines if line.strip() and not line.startswith("#")]
    wrong = next((pair for pair in pairs if len(pair) != 2), None)
    if wrong is not None:
        raise UsageError(
            f"--contig-map {path}: found {wrong!r}; a line is VCF name, tab, FASTA name"
        )
    return {pair[0]: pair[1] for pair in pairs}
