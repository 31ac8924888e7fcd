"""The commands `models`: list, show, check and import bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from glm_annotate.cli_training import head_option, need_torch, tell_export
from glm_annotate.errors import UsageError
from glm_annotate.model_options import track_choice, track_options


@click.group("models", short_help="List, show and check model bundles.")
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


@models_group.command("import")
@click.argument("what", nargs=-1, required=True)
@click.option("-o", "--output", required=True, metavar="BUNDLE", help="Folder to make.")
@click.option("--model", metavar="NAME", help="Which of a package's models.")
@click.option(
    "--assembly", type=click.Choice(["grch37", "grch38"]), default="grch38", show_default=True,
    help="Of the gene table, where the package has one.",
)  # fmt: skip
@click.option("--context", type=click.IntRange(min=1), metavar="N", help="Bases of the window.")
@head_option
@track_options
@click.option("--accept-licence", is_flag=True, help="The licence of the weights allows my use.")
@click.option("--force", is_flag=True, help="Replace BUNDLE where it exists.")
def models_import(what: tuple[str, ...], output: str, force: bool, **options: Any) -> None:
    """Make a bundle of weights inside a package or file that you have (extra `train`).

    WHAT is the name of a package (cispliceai, spliceai, ...), installed or as a wheel, a weights
    file (Keras .h5, .pt of torch) or a folder of them. Several files of one model are its
    replicates, whose predictions are averaged.
    """
    need_torch()
    from glm_annotate.train.export import export_imported
    from glm_annotate.train.importing import prepare
    from glm_annotate.train.subjects import identify

    tracks = track_choice(options)
    made = prepare(what[0] if len(what) == 1 else what, identify=identify, **options)
    report = export_imported(made, output, tracks=tracks, force=force)
    tell_export(report)
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
