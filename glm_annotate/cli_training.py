"""The commands `train`, `export` and `tokenizer`."""

from __future__ import annotations

import importlib.util
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glm_annotate.errors import UsageError
from glm_annotate.model_options import option, track_choice, track_options

if TYPE_CHECKING:
    from glm_annotate.train.export import ExportReport

head_option = click.option(
    "--head", metavar="NAME", help="Which head of several, such as mouse.  [default: human]"
)


@click.command("tokenizer", short_help="Learn byte-pair tokens from FASTA files.")
@click.argument("sources", nargs=-1, required=True, metavar="FASTA|CONFIG.toml...")
@click.option("-o", "--output", required=True, metavar="FILE.json", help="tokenizer.json to write.")
@option("--data", metavar="DIR", help="Data folder of CONFIG, in place of its own.")
@click.option(
    "--vocabulary", type=click.IntRange(min=10), default=4096, show_default=True, metavar="N",
    help="Ids at most, five special tokens and single bases among them.",
)  # fmt: skip
@click.option(
    "--longest", type=click.IntRange(min=1), default=16, show_default=True, metavar="N",
    help="Bases of a token at most.",
)  # fmt: skip
@click.option(
    "--chunk", type=click.IntRange(min=16), default=1000, show_default=True, metavar="N",
    help="Letters of the chunks that tokens are learnt in.",
)  # fmt: skip
@click.option(
    "--bases", type=click.IntRange(min=1), default=100_000_000, show_default=True, metavar="N",
    help="Letters to learn from at most, chosen at random.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
    help="Of that choice.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace FILE.json where it exists.")
def tokenizer_command(
    sources: tuple[str, ...],
    output: str,
    data: str | None,
    vocabulary: int,
    longest: int,
    chunk: int,
    bases: int,
    seed: int,
    force: bool,
) -> None:
    """Learn byte pairs (BPE) from FASTA files, or from those of a training CONFIG.

    Of a config, what it holds out is left out. The config itself, which names FILE.json, may be
    written before.
    """
    from glm_annotate.train.bpe import ENCODER, sources_of, train_bpe
    from glm_annotate.vcf import atomic_file, check_output

    check_output(output, force, sources[0])
    files: list[Path] = []
    skip: frozenset[str] = frozenset()
    for source in map(Path, sources):
        if source.suffix == ".toml":
            found, held = sources_of(source, Path(data) if data else None)
            files, skip = files + found, skip | held
        else:
            files.append(source)
    made = train_bpe(
        files, vocabulary=vocabulary, longest=longest, chunk=chunk, bases=bases, seed=seed,
        skip=skip,
    )  # fmt: skip
    with atomic_file(output, force=force) as out:
        out.write(made.text.encode())
    logging.getLogger(__name__).info(
        "%s: %d ids from %d bases, %.2f bases a token; the config says vocab = %s",
        output, made.size, made.bases, made.mean, ENCODER,
    )  # fmt: skip


@click.command("train", short_help="Train a model from a TOML config.")
@click.argument("config")
@option("--data", metavar="DIR", help="Data folder, in place of the config's.")
@click.option("--resume", is_flag=True, help="Continue the run from its last checkpoint.")
def train_command(config: str, data: str | None, resume: bool) -> None:
    """Train the model that CONFIG describes (needs the extra `train`)."""
    need_torch()
    from glm_annotate.train.loop import train

    last = train(config, resume=resume, data=data)
    if os.environ.get("LOCAL_RANK", "0") == "0":  # of several processes one says it
        click.echo(last)


@click.command("export", short_help="Turn a checkpoint into a bundle.")
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
@head_option
@track_options
@click.option("--force", is_flag=True, help="Replace BUNDLE where it exists.")
def export_command(source: str, output: str, **options: Any) -> None:
    """Export SOURCE as an ONNX bundle, checked against torch (needs the extra `train`).

    SOURCE is a checkpoint of `glm-annotate train`, or an official one: a .safetensors, .bin, .pt
    or .ckpt file, a folder in the layout of the Hugging Face hub, or hf://owner/repo[@revision].
    """
    need_torch()
    from glm_annotate.train.export import export

    options["tracks"] = track_choice(options)
    if options["calibration"] and options["precision"] != "int8":
        raise UsageError("--calibration is for --precision int8")
    report = export(source, output, **options)
    tell_export(report)


def tell_export(report: ExportReport) -> None:
    """Print what an export measured."""
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


def need_torch() -> None:
    """Refuse to go on without torch."""
    if importlib.util.find_spec("torch") is None:
        raise UsageError(
            "training and exporting need torch; run: pip install 'glm_annotate[train]'"
        )
