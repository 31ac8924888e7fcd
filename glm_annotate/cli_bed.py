"""The command `bed`: one row a region."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from glm_annotate.model_options import (
    CONFIG,
    MODE,
    MODEL_OPTIONS,
    RUN_OPTIONS,
    decorate,
    option,
    setup_values,
)
from glm_annotate.progress import progress_of

_Command = TypeVar("_Command", bound=Callable[..., Any])

_BED_OPTIONS = (
    *MODEL_OPTIONS[:2],  # FASTA and models; -s has other names here
    click.option(
        "-s",
        "--score",
        "scores",
        multiple=True,
        metavar="PLL|LL|TRACKS|EMB[,...]",
        help="What is said of regions.  [default: all that the model has but EMB]",
    ),
    option("--embedding", is_flag=True, help="EMB too; needs -o OUT.parquet."),
    click.option(
        "-o",
        "--output",
        metavar="OUT.tsv|.bed|.parquet",
        help="Output file.  [default: TSV to stdout]",
    ),
    *RUN_OPTIONS,
    MODE,
    option(
        "--top",
        type=click.IntRange(1),
        metavar="N",
        help="Name the N tracks with the largest means.  [default: 5 of more than 16 tracks, else "
        "none]",
    ),
    option(
        "--edge",
        type=click.IntRange(0),
        metavar="BINS",
        help="Bins left out at each side of a window of tracks.  [default: none of models that "
        "crop, else an eighth]",
    ),
    option("--force", is_flag=True, help="Replace OUT where it exists."),
    option("--strict", is_flag=True, help="Exit with 3 if a region has no score."),
    CONFIG,
)


def _bed_options(command: _Command) -> _Command:
    return decorate(command, _BED_OPTIONS)


@click.command("bed", short_help="Score the regions of a BED.")
@click.argument("source", metavar="[IN.bed]", required=False)
@_bed_options
@click.pass_context
def bed_command(ctx: click.Context, /, **given: Any) -> int:
    """Score the regions of IN.bed, plain or gzipped (- is stdin): one row a region, in order.

    Every column of the BED stays. Each model adds TAG_STATUS: SCORED, or why there is no number;
    such a region does not end the run.

    PLL, of masked models: TAG_PLL is the sum over the region's bases of log p(base | all others of
    its window) among A, C, G and T, TAG_MEAN that of a base, TAG_BASES how many bases count (N do
    not).

    LL, of causal models: TAG_LL is the sum of log p(base | what precedes it in its window, at least
    half a window); TAG_MEAN and TAG_BASES likewise.

    TRACKS: TAG_<TRACK>_mean and TAG_<TRACK>_max over the region's bins, where bins at its ends
    count by the bases inside; they equal those of the bigWigs of `tracks -k predict`. Of more than
    16 tracks: TAG_TOP, and in Parquet all of them as the lists TAG_mean and TAG_max.

    EMB: TAG_EMB is the embedding, the mean over the region's bases in the middle of a window; only
    in Parquet. Regions longer than the context are cut into tiles of equal lengths, which are
    weighted by their bases.

    Logarithms are natural. Both strands are read and averaged whatever the strand of a region;
    tracks of one strand are not swapped for regions on `-`.
    """
    if given["source"] is None and sys.stdin.isatty():
        raise click.UsageError("name IN.bed, or - to read stdin", ctx)
    from glm_annotate.bed_job import BedJob, run_bed

    own = {name: given[name] for name in ("output", "embedding", "top", "edge", "force")}
    job = BedJob(**setup_values(given), source=given["source"] or "-", **own)
    with progress_of(" regions") as progress:
        summary = run_bed(job, progress)
    logger = logging.getLogger(__name__)
    logger.info("%d regions", summary.regions)
    for tag, counts in summary.status.items():
        for status, count in counts.most_common():
            logger.info("%s: %8d %s", tag, count, status)
    return 3 if given["strict"] and summary.has_unscored else 0
