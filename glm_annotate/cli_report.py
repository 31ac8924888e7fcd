"""The command `report`: an annotated VCF in, one page to open in a browser out."""

from __future__ import annotations

import logging

import click

from glm_annotate.model_options import option


@click.command("report", short_help="Make a page to look at an annotated VCF.")
@click.argument("source", metavar="ANNOTATED")
@click.option("-o", "--output", required=True, metavar="FILE.html", help="Page to write.")
@option("-f", "--fasta-ref", "--fasta", "fasta", metavar="REF.fa", help="Bases for the browser.")
@option("--gtf", metavar="FILE", help="Genes for the browser (GTF or GFF3).")
@click.option(
    "--tracks", metavar="FOLDER", help="Folder of `glm-annotate tracks -k ref,alt,delta`."
)
@click.option("--ism", metavar="FOLDER", help="Folder TAG/ism of `glm-annotate tracks -k ism`.")
@click.option(
    "--max-variants", type=click.IntRange(min=1), default=5000, show_default=True, metavar="N",
    help="Alleles in the table at most: those of the largest absolute score.",
)  # fmt: skip
@click.option("--title", metavar="TEXT", help="Heading of the page.")
@click.option("--force", is_flag=True, help="Replace FILE.html where it exists.")
def report_command(
    source: str,
    output: str,
    fasta: str | None,
    gtf: str | None,
    tracks: str | None,
    ism: str | None,
    max_variants: int,
    title: str | None,
    force: bool,
) -> None:
    """Make one page of ANNOTATED (VCF or BCF of `glm-annotate vcf`; - is stdin).

    The page needs no network and no server: table of alleles, genome browser, distributions of
    the scores, and why alleles have none.
    """
    from glm_annotate.report import Extras, make_report
    from glm_annotate.vcf import atomic_file, check_output

    # Before the work, not after it.
    check_output(output, force, source)
    extras = Extras(fasta, gtf, tracks, ism)
    report = make_report(source, extras, most=max_variants, title=title)
    with atomic_file(output, force=force, source=source) as out:
        out.write(report.page)
    logging.getLogger(__name__).info(
        "%s: %d of %d alleles, %.1f MB", output, report.shown, report.alleles,
        len(report.page) / 1e6,
    )  # fmt: skip
