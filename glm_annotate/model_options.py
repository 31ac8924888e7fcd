"""Options that every command with a model has: which models, how they run, what they read.

Every option can also come from `GLM_ANNOTATE_<NAME>` or from the file of --config; the command line
beats the variable, and the variable beats the file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from glm_annotate.errors import UsageError

if TYPE_CHECKING:
    from glm_annotate.runtime import Settings
    from glm_annotate.track_choice import TrackChoice

PROGRAM = "glm-annotate"
_Command = TypeVar("_Command", bound=Callable[..., Any])


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
MODEL_OPTIONS = (
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
        "mask=center:width=BASES or, gene by gene, mask=gene|exons|tss[:width=BASES]. Repeat or "
        "join by commas. Default: the model's own.",
    ),
)
RUN_OPTIONS = (
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
    option(
        "--msa",
        metavar="FILE.zarr",
        help="Alignment of REF.fa with other species, for models that read one.",
    ),
    option(
        "--gtf",
        metavar="FILE",
        help="Genes as GTF, GFF3 or table, for models that read alleles in their genes and for "
        "scores with a mask of genes.  [default: the model's own]",
    ),
    option(
        "--signal",
        "signals",
        multiple=True,
        metavar="NAME=FILE.bw",
        help="bigWig of a signal, for models that read one of that name. Repeat for several.",
    ),
    *_TRACK_OPTIONS,
    option("--ignore-scope", is_flag=True, help="Score contigs that the model is not meant for."),
)
MODE = option(
    "--mode",
    type=click.Choice(["exact", "dense"]),
    default="exact",
    show_default=True,
    help="Dense: LLR of single bases and ENT of masked models are read at many sites of a pass, "
    "faster and nearly the same (models check tells how nearly); other scores stay exact.",
)
CONFIG = click.option(
    "--config",
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    metavar="FILE.toml",
    help="Options from a file; the command line beats them.",
)


def decorate(command: _Command, options: Iterable[Callable[[Any], Any]]) -> _Command:
    """Give a command options, which its help lists in this order."""
    for add in reversed(tuple(options)):
        command = add(command)
    return command


def track_options(command: _Command) -> _Command:
    """Give a command the options that choose tracks."""
    return decorate(command, _TRACK_OPTIONS)


def track_choice(given: dict[str, Any]) -> TrackChoice | None:
    """Take the options that choose tracks out of a command's; None where none was given."""
    from glm_annotate.track_choice import TrackChoice

    names = ("tracks_files", "track_regexes", "assays", "biosamples")
    values = [tuple(given.pop(name)) for name in names]
    return TrackChoice(*values) if any(values) else None


def setup_values(given: dict[str, Any]) -> dict[str, Any]:
    """Give the values of a `run_setup.Setup` that the options of a command describe.

    Raises:
        UsageError: They contradict each other or name something unknown.
    """
    from glm_annotate.signals import parse_signals

    circular = given["circular"]
    return {
        "fasta": given["fasta"],
        "models": tuple(given["models"]),
        "scores": tuple(given["scores"]),
        "circular": None if circular is None else tuple(_names(circular)),
        "strand": given["strand"],
        "msa": given["msa"],
        "gtf": given["gtf"],
        "signals": parse_signals(given["signals"]),
        "tracks": track_choice(dict(given)),
        "runtime": _runtime(given),
        "threads": given["threads"],
        "ignore_scope": given["ignore_scope"],
        "mode": given.get("mode", "exact"),
    }


def _names(text: str) -> Iterable[str]:
    return (x for x in text.split(",") if x != "none")


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
