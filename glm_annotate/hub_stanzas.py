"""Stanzas of trackDb.txt: what a hub says of its tracks and of the groups that hold them.

Settings and their values are those of UCSC's Hub Track Database Definition. A group stands before
its members; members of an overlay or a composite take what they do not say from their group.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from glm_annotate.errors import UsageError
from glm_annotate.hub_limits import Limits

Colour = tuple[int, int, int]
Visibility = Literal["hide", "dense", "squish", "pack", "full"]
GroupKind = Literal["overlay", "composite", "folder"]

BLUE, VERMILLION = (0, 114, 178), (213, 94, 0)
SHORT, LONG = 17, 76  # characters of labels
_WORD = 100  # and of names, which are names of files too
_REPLACED = str.maketrans({"\\": "/", "<": "(", ">": ")"})  # line ends, and HTML


@dataclass(frozen=True, slots=True)
class HubGroup:
    """Tracks that belong together.

    Attributes:
        name: Made a word of letters, digits and underscores.
        long_label: Cut to 76 characters; `short_label`, else the name, to 17.
        kind: `overlay` draws bigWigs over one another (multiWig), `composite` configures tracks
            of one kind together, `folder` (superTrack) holds tracks and groups of any kind.
        parent: A folder that holds this group, itself no folder.
    """

    name: str
    long_label: str = ""
    short_label: str = ""
    kind: GroupKind = "composite"
    visibility: Visibility = "full"
    parent: HubGroup | None = None


@dataclass(frozen=True, slots=True)
class HubTrack:
    """One file of a hub.

    Attributes:
        name: Made a word of letters, digits and underscores, and unique.
        file: A bigWig, or a bgzipped VCF with its .tbi beside it; in the hub's folder, else it is
            copied there. A relative path starts from the hub's folder if the file is there.
        long_label: Cut to 76 characters; `short_label`, else the name, to 17, and unique.
        assay: Chooses the colour if `colour` is None; `alt_colour` is that of negative values.
        limits: Of the view, such as (0, 1) for probabilities; None: from quantiles of the data.
    """

    name: str
    file: str
    long_label: str = ""
    short_label: str = ""
    assay: str = ""
    colour: Colour | None = None
    alt_colour: Colour | None = None
    limits: Limits | None = None
    visibility: Visibility = "full"
    group: HubGroup | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """A track with what its stanza needs: words, labels, a path from trackDb.txt, and its data."""

    track: HubTrack
    word: str
    short: str
    kind: str
    source: Path
    target: Path
    url: str
    colour: Colour
    range: Limits = (0.0, 1.0)
    limits: Limits = (0.0, 1.0)


def stanzas_of(placed: Sequence[Placed]) -> Iterator[str]:
    """Yield the stanzas of trackDb.txt: a group before its tracks, a folder before its groups."""
    members: dict[HubGroup | None, list[Placed]] = {}
    order: dict[HubGroup | Placed, list[HubGroup]] = {}
    for track in placed:
        groups = list(groups_of(track.track))
        members.setdefault(track.track.group, []).append(track)
        order.setdefault(groups[0] if groups else track, [])
        if len(groups) == 2 and groups[1] not in order[groups[0]]:
            order[groups[0]].append(groups[1])
    priority = 0
    for top, inner in order.items():
        priority += 1
        if isinstance(top, Placed):
            yield _track_stanza(top, priority, "")
            continue
        yield _group_stanza(top, members.get(top, []), priority, "")
        yield from _member_stanzas(top, members.get(top, []), "    ")
        for number, group in enumerate(inner, 1):
            yield _group_stanza(group, members[group], number, "    ")
            yield from _member_stanzas(group, members[group], "        ")


def _member_stanzas(group: HubGroup, members: Sequence[Placed], indent: str) -> Iterator[str]:
    kinds = {x.kind for x in members}
    if group.kind == "overlay" and kinds != {"bigWig"}:
        raise UsageError(f"track hub: {group.name}: an overlay holds bigWigs; a folder holds any")
    if group.kind == "composite" and len(kinds) > 1:
        raise UsageError(
            f"track hub: {group.name}: a composite holds files of one kind; a folder holds any"
        )
    for number, track in enumerate(members, 1):
        yield _track_stanza(track, number, indent)


def _group_stanza(group: HubGroup, members: Sequence[Placed], priority: int, indent: str) -> str:
    settings = {
        "track": word_of(group.name),
        "shortLabel": label_of(group.short_label or group.name, SHORT, group.name),
        "longLabel": label_of(group.long_label or group.name, LONG, group.name),
    }
    if group.parent is not None:
        settings["parent"] = word_of(group.parent.name)
    if group.kind == "folder":
        settings["superTrack"] = "on show"
    elif group.kind == "composite":
        settings["compositeTrack"] = "on"
    else:
        settings |= {
            "container": "multiWig", "aggregate": "transparentOverlay",
            "showSubtrackColorOnUi": "on",
        }  # fmt: skip
    if group.kind != "folder":
        settings["type"] = members[0].kind
        if members[0].kind == "bigWig":
            settings |= _signal(
                _hull([x.range for x in members]), _hull([x.limits for x in members])
            )
        settings["visibility"] = group.visibility
    return stanza({**settings, "priority": str(priority)}, indent)


def _track_stanza(placed: Placed, priority: int, indent: str) -> str:
    track = placed.track
    settings = {
        "track": placed.word,
        "type": placed.kind,
        "bigDataUrl": placed.url,
        "shortLabel": placed.short,
        "longLabel": label_of(track.long_label or track.name, LONG, track.name),
    }
    inside = track.group.kind if track.group is not None else ""
    if track.group is not None:
        settings["parent"] = word_of(track.group.name) + (" on" if inside == "composite" else "")
    if inside not in ("overlay", "composite"):  # there the group's is taken
        settings["visibility"] = track.visibility
    settings["color"] = _numbers(placed.colour)
    if placed.kind == "bigWig":
        negative = VERMILLION if placed.colour != VERMILLION else BLUE
        settings["altColor"] = _numbers(track.alt_colour or negative)
        settings |= _signal(placed.range, placed.limits)
        if inside == "overlay":
            for shared in ("autoScale", "viewLimits", "maxHeightPixels"):
                del settings[shared]
    return stanza({**settings, "priority": str(priority)}, indent)


def _signal(found: Limits, limits: Limits) -> dict[str, str]:
    return {
        "type": f"bigWig {found[0]:g} {found[1]:g}",
        "autoScale": "off",
        "viewLimits": f"{limits[0]:g}:{limits[1]:g}",
        "maxHeightPixels": "128:48:16",
    }


def _hull(limits: Sequence[Limits]) -> Limits:
    return min(x for x, _ in limits), max(x for _, x in limits)


def _numbers(colour: Colour) -> str:
    return ",".join(map(str, colour))


def stanza(settings: Mapping[str, str], indent: str = "") -> str:
    """Write settings, a line each."""
    return "".join(f"{indent}{key} {value}\n" for key, value in settings.items())


def word_of(text: str) -> str:
    """Make a name of a track: a letter, then letters, digits and underscores."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    word = re.sub(r"\W", "_", ascii_text.replace("+", "_plus").replace("-", "_minus"))
    return (word if word[:1].isalpha() else f"t_{word}")[:_WORD]


def label_of(text: str, limit: int, name: str = "") -> str:
    """Make a label: printable ASCII in one line, cut after a word or, in a long word, within.

    Args:
        text: What it says.
        limit: Characters.
        name: What it says where nothing is left of `text`.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    plain = " ".join(plain.translate(_REPLACED).split()) or word_of(name)
    if len(plain) <= limit:
        return plain
    cut = plain[: limit + 1].rpartition(" ")[0]
    if len(cut) > 2 * limit // 3:
        return cut
    # Names of one experiment often differ at their ends.
    return plain[: limit // 2] + ".." + plain[limit // 2 + 2 - limit :]


def groups_of(track: HubTrack) -> Iterator[HubGroup]:
    """Yield the groups of a track, the outermost first.

    Raises:
        UsageError: A group lies in one that is no folder, or a folder in a folder.
    """
    group = track.group
    if group is None:
        return
    outer = group.parent
    if outer is not None:
        if group.kind == "folder" or outer.kind != "folder" or outer.parent is not None:
            raise UsageError(f"track hub: {group.name} in {outer.name}: only a folder holds groups")
        yield outer
    yield group
