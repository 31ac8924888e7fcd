"""The scores of splice sites as the table of scores lists them, and what may be asked of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from glm_annotate.card import ModelCard
from glm_annotate.errors import UsageError
from glm_annotate.track_table import Role

# Bases at each side of the site in which changes are looked for, and the most that may be asked.
DISTANCE, FARTHEST = 50, 4999
# `annotated`: gains at ends of annotated exons and losses elsewhere count for nothing.
MASKS = ("all", "annotated")


@dataclass(frozen=True, slots=True)
class SpliceScore:
    """A score of splice sites.

    Attributes:
        formula: For the header of a VCF.
        role: Of the tracks that it reads.
        whole: Whether its numbers are whole ones.
    """

    formula: str
    role: Role
    whole: bool


_CHANGES: Mapping[str, tuple[Role, str]] = MappingProxyType(
    {
        "AG": ("acceptor", "largest gain of an acceptor (ALT - REF)"),
        "AL": ("acceptor", "largest loss of an acceptor (REF - ALT)"),
        "DG": ("donor", "largest gain of a donor (ALT - REF)"),
        "DL": ("donor", "largest loss of a donor (REF - ALT)"),
        "GAIN": ("usage", "largest gain of a splice site in any of the tracks (ALT - REF)"),
        "LOSS": ("usage", "largest loss of a splice site in any of the tracks (REF - ALT)"),
    }
)

SPLICE_SCORES: Mapping[str, SpliceScore] = MappingProxyType(
    {
        f"{kind}_{what}": SpliceScore(text.format(change), role, kind == "DP")
        for kind, text in (("DS", "{} within dist bases"), ("DP", "bases from the site to the {}"))
        for what, (role, change) in _CHANGES.items()
    }
)


def splice_options(
    text: str, given: Mapping[str, str], card: ModelCard
) -> tuple[dict[str, str], str]:
    """Complete the options of a score of splice sites.

    Args:
        text: What the user wrote, for messages.
        given: Options after the name.
        card: The model that is asked.

    Returns:
        All options, and the label of those that are not the usual ones.

    Raises:
        UsageError: A value is unknown, or the window has not so many bases beside the site.
    """
    mask, distance = given.get("mask", MASKS[0]), given.get("dist", str(DISTANCE))
    if mask not in MASKS:
        raise UsageError(f"-s {text}: unknown mask {mask!r}; known here: {', '.join(MASKS)}")
    if not distance.isdecimal() or int(distance) > FARTHEST:
        raise UsageError(
            f"-s {text}: dist={distance} is not a number of bases from 0 to {FARTHEST}"
        )
    away = int(distance)
    held = min(card.anchor, card.context - 1 - card.anchor) - card.crop
    if "dist" in given and away > held:
        raise UsageError(
            f"-s {text}: dist={away}, and the window of {card.name} has {held} bases beside the "
            f"site; make the bundle again with --context {2 * (card.crop + away) + 1}"
        )
    labels = [mask.upper()] * (mask != MASKS[0]) + [f"DIST{away}"] * (away != DISTANCE)
    return {"dist": str(away), "mask": mask}, "_".join(labels)
