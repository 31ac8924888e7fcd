"""The command `tracks`: stretches of the genome or variants in, bigWigs out."""

from __future__ import annotations

import datetime
import logging
from typing import Any

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
from glm_annotate.progress import progress_of

_FORMATS = {"bw": ".bw", "bedgraph": ".bedgraph", "bedgraph.gz": ".bedgraph.gz"}
_OPTIONS = (
    *MODEL_OPTIONS,
    option(
        "-k", "--kind", "kinds", required=True, multiple=True, metavar="KIND[,...]",
        help="predict (tracks of an assay model); likelihood, entropy, information (of language "
        "models); ism (saturation mutagenesis); ref, alt, delta (of an assay model, around "
        "variants).",
    ),
    click.option(
        "-o", "--output", required=True, metavar="OUT.bw|OUTDIR",
        help="A file of one track (.bw, .bedgraph, .bedgraph.gz; - is bedGraph to stdout), or a "
        "folder.",
    ),
    click.option(
        "-O", "--output-type", type=click.Choice(list(_FORMATS)), default="bw", show_default=True,
        help="Of the files in OUTDIR.",
    ),
    option("-r", "--regions", metavar="REGION", help="chr[:beg-end][,...], in place of a BED."),
    option(
        "--edge", type=click.IntRange(0), metavar="BINS",
        help="Bins left out at each side of a window of predict.  [default: none where the model "
        "crops, else an eighth]",
    ),
    option(
        "--around", type=click.IntRange(0), default=100, show_default=True, metavar="N",
        help="Bases at each side of variants that have ism and other numbers of every base.",
    ),
    option(
        "--sample", metavar="NAME",
        help="ALT is a haplotype of this sample of IN, in place of single alleles.",
    ),
    option("--haplotype", type=click.IntRange(1, 2), default=1, show_default=True),
    option(
        "--max-alleles", type=click.IntRange(1), default=1000, show_default=True, metavar="N",
        help="Stop where IN has more alleles: each has files of its own.",
    ),
    *RUN_OPTIONS,
    MODE,
    option("--hub", metavar="GENOME", help="Also make OUTDIR a UCSC track hub of GENOME (hg38)."),
    option("--email", metavar="ADDRESS", help="Of the hub, which UCSC asks for."),
    option(
        "--plot", metavar="FILE.png|svg",
        help="Also draw the first stretch or the one allele of IN, with the genes of --gtf.",
    ),
    option("--plot-region", metavar="REGION", help="What --plot shows, in place of all."),
    option("--force", is_flag=True, help="Replace files that are there."),
    option("--no-version", is_flag=True, help="No command line in the VCF of ism."),
    CONFIG,
)  # fmt: skip


def tracks_options(command: Any) -> Any:
    """Give a command the options of `glm-annotate tracks`."""
    return decorate(command, _OPTIONS)


@click.command("tracks", short_help="Write bigWig tracks of regions or variants.")
@click.argument("source", metavar="[IN]", required=False)
@tracks_options
@click.pass_context
def tracks_command(ctx: click.Context, /, **given: Any) -> None:
    """Write tracks of regions, of whole contigs, or around variants.

    IN is a BED, whose regions are in place of -r; without both, whole contigs are written. Or IN
    has variants: VCF, BCF, a table, or chr:pos:ref:alt.

    Values do not depend on the regions that are asked for: windows lie on a fixed grid, or around
    each base. A folder has TAG/likelihood.bw, TAG/entropy.bw, TAG/information.bw,
    TAG/ism/{A,C,G,T,maxabs,mean}.bw and TAG/ism/snvs.vcf.gz (for vcf --from),
    TAG/predict/TRACK.bw, and TAG/alleles/ALLELE/{ref,alt,delta}/TRACK.bw with index.tsv.
    """
    from glm_annotate.regions import regions_from
    from glm_annotate.tracks_extras import Extras, check_extras, write_extras
    from glm_annotate.tracks_job import TracksJob, run_tracks

    kinds = tuple(dict.fromkeys(x for text in given["kinds"] for x in text.split(",") if x))
    job = TracksJob(
        **setup_values(given),
        kinds=kinds,
        output=given["output"],
        source=given["source"],
        regions=regions_from(given["regions"], None),
        extension=_FORMATS[given["output_type"]],
        edge=given["edge"],
        around=given["around"],
        sample=given["sample"],
        haplotype=given["haplotype"],
        most_alleles=given["max_alleles"],
        force=given["force"],
        arguments=() if given["no_version"] else (PROGRAM, *(ctx.obj or ())),
        date=datetime.datetime.now().astimezone().strftime("%a %b %d %H:%M:%S %Y"),
    )
    if given["source"] == "-" and job.sides and set(kinds) - set(job.sides):
        raise UsageError("IN is stdin, which can be read once: ask for these kinds one by one")
    extras = Extras(given["hub"], given["email"], given["plot"], given["plot_region"], given["gtf"])
    # Before the work, not after it.
    check_extras(job, extras)
    with progress_of(" bp") as progress:
        done = run_tracks(job, progress)
    logger = logging.getLogger(__name__)
    for line in write_extras(job, extras, done):
        logger.info("%s", line)
    logger.info(
        "%s: %d files, %d bases%s, %.1f s", job.output, len(done.written), done.bases,
        f", {done.alleles} alleles" if done.alleles else "", done.seconds,
    )  # fmt: skip
