"""The command `calibrate`: what scores are like on a background, stored in the bundle."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from glm_annotate.draws import Match

_FASTA, _, _SCORES = MODEL_OPTIONS
_OPTIONS = (
    _FASTA,
    option(
        "--background",
        metavar="FILE",
        help="Alleles of the background as VCF, BCF or table, such as common variants.",
    ),
    option(
        "--random",
        type=click.IntRange(min=1),
        metavar="N",
        help="Draw N different substitutions of one base as the background.",
    ),
    option(
        "--regions",
        metavar="FILE.bed",
        help="Where --random draws.  [default: contigs that the model is meant for]",
    ),
    option(
        "--match",
        metavar="FILE",
        help="VCF whose substitutions the background is to be like; see the next two.",
    ),
    option("--match-titv", is_flag=True, help="As many transitions for each transversion."),
    option(
        "--match-context",
        type=click.Choice(["1", "3", "5"]),
        metavar="1|3|5",
        help="The same share of each ALT base in each context of so many bases.",
    ),
    _SCORES,
    option(
        "--llr-context",
        type=click.Choice(["1", "3"]),
        metavar="1|3",
        help="Also store the mean LLR by ALT base and context of so many bases, for TAG_LLR_ADJ.",
    ),
    option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N"),
    option("--null-name", metavar="TEXT", help="What headers call the background."),
    option("--assembly", metavar="NAME", help="Of REF.fa.  [default: its file's name]"),
    option("-o", "--output", metavar="BUNDLE", help="Folder or .zip to make."),
    option("--in-place", is_flag=True, help="Change MODEL itself."),
    option("--force", is_flag=True, help="Replace BUNDLE where it exists."),
    *RUN_OPTIONS,
    MODE,
    CONFIG,
)


@click.command("calibrate", short_help="Store the distribution of a model's scores.")
@click.argument("model")
@lambda command: decorate(command, _OPTIONS)
@click.pass_context
def calibrate_command(ctx: click.Context, /, **given: Any) -> None:
    """Score a background with MODEL, and store the distribution of each score in the bundle.

    `glm-annotate vcf` then says where each score lies in it: TAG_SCORE_PCT, its percentile, and
    TAG_SCORE_EXC, -log10 of the chance that the background is as extreme.
    """  # fmt: skip
    from glm_annotate.background import Null, make_background
    from glm_annotate.calibrated_bundle import find_target, write_calibrated

    match = _match(given)
    # Before the work, not after it.
    target = find_target(
        given["model"], given["output"], in_place=given["in_place"], force=given["force"]
    )
    null = Null(
        **setup_values(given | {"models": (given["model"],)}),
        variants=given["background"],
        random=given["random"] or 0,
        regions=given["regions"],
        match=match,
        seed=given["seed"],
        context=int(given["llr_context"] or 0),
        name=given["null_name"] or "",
        assembly=given["assembly"] or "",
        command=recorded((PROGRAM, *(ctx.obj or ()))),
    )
    with progress_of(" records") as progress:
        _, background = make_background(null, progress)
    write_calibrated(target, background)
    logger = logging.getLogger(__name__)
    for key, series in background.series.items():
        logger.info("%s: %s", key, series.told())
    logger.info("%s: background: %s, %s", target.path, background.null, background.assembly)


def _match(given: dict[str, Any]) -> Match | None:
    """Check which background is asked for, and tell what it is matched to.

    Raises:
        UsageError: Options contradict each other.
    """
    from glm_annotate.draws import Match

    if (given["background"] is None) == (given["random"] is None):
        raise UsageError("name a background with --background FILE, or draw one with --random N")
    if given["regions"] is not None and given["random"] is None:
        raise UsageError(
            f"--regions {given['regions']}: is for --random; of --background choose with "
            "bcftools view -T"
        )
    ways = given["match_titv"] + (given["match_context"] is not None)
    if ways != (given["match"] is not None):
        raise UsageError(
            "--match FILE, and one of --match-titv and --match-context, belong together; give "
            "both or neither"
        )
    return Match(given["match"], int(given["match_context"] or 0)) if ways else None


def recorded(words: Sequence[str]) -> str:
    """Write a command line without the folders of its files."""
    kept = (x if "://" in x else re.sub(r"[^=,\s]*/", "", x) for x in words)
    return " ".join(kept)
