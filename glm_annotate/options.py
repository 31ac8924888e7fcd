"""Options of `glm-annotate vcf`, and the job that they make."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Sequence
from pathlib import Path
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
    from glm_annotate.job import Job

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


_VCF_OPTIONS = (
    *MODEL_OPTIONS,
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
    option("--contig-map", metavar="FILE", help="VCF name, tab, FASTA name; one pair a line."),
    *RUN_OPTIONS,
    MODE,
    option(
        "--from",
        "precomputed",
        multiple=True,
        metavar="FILE",
        help="Take scores from FILE, an indexed output of an earlier run with the same models, and "
        "compute only the rest. Repeat for several.",
    ),
    option(
        "--no-calibration",
        is_flag=True,
        help="No percentiles: leave the background of scores out that a bundle may have.",
    ),
    option(
        "--phased",
        metavar="SAMPLE",
        help="Also score each allele of SAMPLE's haplotypes beside the others that they carry.",
    ),
    option("--tsv", metavar="OUT.tsv", help="Also write a table with one row an allele."),
    option(
        "--matrix",
        metavar="OUT.parquet",
        help="Also write one row an allele and track, or allele, gene and track, for models of "
        "tracks and of splice sites.",
    ),
    option("--summary", metavar="OUT.json", help="Also write counts, passes and times."),
    option("--sites-only", is_flag=True, help="Leave out FORMAT and samples."),
    option("--overwrite", is_flag=True, help="Replace INFO keys of an earlier run."),
    option("--force", is_flag=True, help="Replace OUT where it exists."),
    option("--allow-ref-mismatch", is_flag=True, help="Go on where the FASTA looks wrong."),
    option("--strict", is_flag=True, help="Exit with 3 if an allele has no score."),
    option("--no-version", is_flag=True, help="No version and command line in the header."),
    option(
        "--dry-run",
        is_flag=True,
        help="Write nothing: count alleles, passes and seconds.",
    ),
    CONFIG,
)


def vcf_options(command: _Command) -> _Command:
    """Give a command the options of `glm-annotate vcf`."""
    return decorate(command, _VCF_OPTIONS)


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
    from glm_annotate.vcf import output_type

    _check_distinct(given)
    if given["phased"] is not None and given["precomputed"]:
        raise UsageError(
            f"--phased {given['phased']}: scores of --from are not of haplotypes; leave one out"
        )
    shown = () if given["no_version"] else (PROGRAM, *arguments)
    return Job(
        **setup_values(given),
        source=given["source"] or "-",
        output=given["output"],
        kind=output_type(given["output"], given["output_type"]),
        index=given["write_index"],
        regions=regions_from(given["regions"], given["regions_file"]),
        targets=targets_from(given["targets"], given["targets_file"]),
        contig_map=_contig_map(given["contig_map"]),
        force=given["force"],
        overwrite=given["overwrite"],
        sites_only=given["sites_only"],
        allow_ref_mismatch=given["allow_ref_mismatch"],
        precomputed=tuple(given["precomputed"]),
        phased=given["phased"],
        calibrated=not given["no_calibration"],
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
    for name in given["precomputed"]:
        if _place(name) in taken:
            raise UsageError(f"--from {name}: the place of {taken[_place(name)]} too; name another")


def _place(path: str) -> str:
    if path in ("-", "/dev/stdout"):
        return "-"
    return path if path.startswith("/dev/") else os.path.realpath(path)


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
