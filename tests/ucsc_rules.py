"""UCSC's rules for track hubs, written from its help pages; `violations` lists what breaks them.

[hub]  https://genome.ucsc.edu/goldenPath/help/hgTrackHubHelp.html (steps 2 to 7)
[db]   https://genome.ucsc.edu/goldenPath/help/trackDb/trackDbHub.html (settings, by name)

autoScale <off/on/group>, viewLimits <lower:upper> and maxHeightPixels <max:default:min> have the
forms that [db] gives; the package trackhub, whose table is parsed from that page, agrees.

Where two pages differ (labels of 76 or 80 characters, a hyphen in names), the stricter is checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

Stanza = dict[str, str]
VISIBILITIES = {"hide", "dense", "squish", "pack", "full"}  # [db] visibility


def violations(hub: Path) -> list[str]:
    """List all broken rules of the hub with this hub.txt; empty: none."""
    return [*_hub(hub)]


def _hub(path: Path) -> Iterator[str]:
    broken: list[str] = []
    stanzas = parse(path, broken)
    yield from broken
    # [hub] step 4: a single stanza, `hub` first; the other fields but descriptionUrl are needed.
    if len(stanzas) != 1:
        yield f"hub.txt: {len(stanzas)} stanzas"
        return
    [hub] = stanzas
    if next(iter(hub)) != "hub":
        yield "hub.txt: hub is not the first line"
    for key in ("hub", "shortLabel", "longLabel", "genomesFile", "email"):
        if key not in hub:
            yield f"hub.txt: no {key}"
    yield from _unknown("hub.txt", hub, {*_HUB})
    if not re.fullmatch(r"\S+", hub.get("hub", "x")):  # [db] hub: no spaces
        yield "hub.txt: hub is not one word"
    if len(hub.get("shortLabel", "")) > 17:  # [hub] step 4: 17; [db] shortLabel: under 20
        yield "hub.txt: shortLabel is too long"
    if len(hub.get("longLabel", "")) >= 70:  # [db] longLabel: under 70; [hub] step 4: 80
        yield "hub.txt: longLabel is too long"
    if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", hub.get("email", "a@b.c")):
        yield "hub.txt: email is none"
    genomes = path.parent / hub.get("genomesFile", "")
    if not genomes.is_file():
        yield "hub.txt: genomesFile is missing"
        return
    yield from _genomes(genomes)


_HUB = ("hub", "shortLabel", "longLabel", "genomesFile", "email", "descriptionUrl")


def _genomes(path: Path) -> Iterator[str]:
    broken: list[str] = []
    stanzas = parse(path, broken)
    yield from broken
    if not stanzas:
        yield "genomes.txt: empty"
    for stanza in stanzas:
        # [hub] step 5: begins with `genome`, a UCSC database name; trackDb is a relative path.
        if next(iter(stanza)) != "genome":
            yield "genomes.txt: genome is not the first line"
        yield from _unknown("genomes.txt", stanza, {"genome", "trackDb"})
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", stanza.get("genome", "x")):
            yield "genomes.txt: genome is no database name"
        database = path.parent / stanza.get("trackDb", "")
        if not database.is_file():
            yield "genomes.txt: trackDb is missing"
            continue
        # [hub] step 6: subdirectories correspond to the names of genomes.
        if database.parent.name != stanza.get("genome"):
            yield "genomes.txt: trackDb is not in a folder named as the genome"
        yield from _database(database)


def parse(path: Path, broken: list[str]) -> list[Stanza]:
    """Read stanzas: lines `setting value`, a blank line between stanzas ([db], introduction)."""
    data = path.read_bytes()
    name = path.name
    # [db] introduction: text is ASCII.
    if not data.isascii():
        broken.append(f"{name}: not ASCII")
    stanzas: list[Stanza] = [{}]
    for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
        text = line.strip()
        if not text:
            if stanzas[-1]:
                stanzas.append({})
            continue
        # [db] introduction: a backslash at the end joins lines; ours has none.
        if text.endswith("\\"):
            broken.append(f"{name}:{number}: continued line")
        if re.search(r"[\x00-\x08\x0b-\x1f\x7f]", line) or "\t" in line:
            broken.append(f"{name}:{number}: control character")
        key, _, value = text.partition(" ")
        if not value.strip():
            broken.append(f"{name}:{number}: {key} without a value")
        if key in stanzas[-1]:
            broken.append(f"{name}:{number}: {key} twice in a stanza")
        stanzas[-1][key] = value.strip()
    return [x for x in stanzas if x]


def _unknown(where: str, stanza: Stanza, known: set[str]) -> Iterator[str]:
    for key in stanza:
        if key not in known:  # hubCheck: settings that the browser does not know
            yield f"{where}: unknown setting {key}"


# --- trackDb.txt -------------------------------------------------------------------------------


def _pair(text: str) -> bool:
    low, colon, high = text.partition(":")
    return bool(colon) and _number(low) and _number(high) and float(low) < float(high)


def _number(text: str) -> bool:
    return bool(re.fullmatch(r"-?\d+(\.\d+)?(e[+-]?\d+)?", text))


def _colour(text: str) -> bool:
    return bool(re.fullmatch(r"\d+,\d+,\d+", text)) and all(int(x) < 256 for x in text.split(","))


def _heights(text: str) -> bool:
    if not re.fullmatch(r"\d+:\d+:\d+", text):
        return False
    most, usual, least = map(int, text.split(":"))
    return most >= usual >= least > 0


def _type(text: str) -> bool:
    """[hub] step 7 and [db] bigWig: `bigWig` with the data's range, or `vcfTabix`."""
    kind, *more = text.split()
    if kind == "bigWig":
        return not more or (len(more) == 2 and all(map(_number, more)) and _ordered(more))
    return kind == "vcfTabix" and not more


def _ordered(pair: list[str]) -> bool:
    return float(pair[0]) <= float(pair[1])


# [db]: the form of every setting that we use.
FORMS: dict[str, Callable[[str], bool]] = {
    "track": lambda x: bool(re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", x)),  # [hub] step 7
    "type": _type,
    "shortLabel": lambda x: len(x) <= 17,  # [db] shortLabel: 17 printable characters
    "longLabel": lambda x: len(x) <= 76,  # [db] longLabel: 76 printable characters
    "bigDataUrl": lambda x: not re.search(r"\s", x),
    "visibility": lambda x: x in VISIBILITIES,
    "color": _colour,
    "altColor": _colour,
    "autoScale": lambda x: x in ("on", "off", "group"),
    "viewLimits": _pair,
    "maxHeightPixels": _heights,
    "priority": _number,
    "parent": lambda x: bool(re.fullmatch(r"\w+( (on|off))?", x)),
    "container": lambda x: x == "multiWig",
    "aggregate": lambda x: x in ("transparentOverlay", "stacked", "solidOverlay"),  # not none
    "showSubtrackColorOnUi": lambda x: x in ("on", "off"),
    "superTrack": lambda x: x in ("on", "on show"),
    "compositeTrack": lambda x: x == "on",
}
_HOLDERS = {"container": "multiWig", "compositeTrack": "composite", "superTrack": "superTrack"}


def _holder(stanza: Stanza) -> str:
    return next((kind for key, kind in _HOLDERS.items() if key in stanza), "")


def _database(path: Path) -> Iterator[str]:
    broken: list[str] = []
    stanzas = parse(path, broken)
    yield from broken
    seen: dict[str, Stanza] = {}
    for stanza in stanzas:
        where = f"trackDb.txt: {stanza.get('track', '?')}"
        if next(iter(stanza)) != "track":  # [db] introduction
            yield f"{where}: track is not the first line"
        if stanza.get("track") in seen:  # [hub] step 7: unique
            yield f"{where}: twice"
        yield from _unknown(where, stanza, {*FORMS})
        for key, value in stanza.items():
            if key in FORMS and not FORMS[key](value):
                yield f"{where}: bad {key} {value}"
        yield from _needed(where, stanza, path.parent)
        yield from _nesting(where, stanza, seen)
        seen[stanza.get("track", "?")] = stanza
    for name, stanza in seen.items():
        children = [x for x in seen.values() if x.get("parent", "").split(" ")[0] == name]
        if _holder(stanza) and not children:
            yield f"trackDb.txt: {name}: holds nothing"


def _needed(where: str, stanza: Stanza, folder: Path) -> Iterator[str]:
    # [hub] step 7: what every track has; groups have no data of their own, folders no type either.
    holder = _holder(stanza)
    wanted = ["shortLabel", "longLabel"]
    wanted += [] if holder == "superTrack" else ["type"]
    wanted += [] if holder else ["bigDataUrl"]
    # [db] aggregate: "important to declare".
    wanted += ["aggregate"] if holder == "multiWig" else []
    for key in wanted:
        if key not in stanza:
            yield f"{where}: no {key}"
    if "bigDataUrl" in stanza:
        data = folder / unquote(stanza["bigDataUrl"])
        if not data.is_file():
            yield f"{where}: bigDataUrl leads to no file"
        # [hub] VCF: the index has the name of the file and .tbi.
        if stanza.get("type") == "vcfTabix" and not Path(f"{data}.tbi").is_file():
            yield f"{where}: no index"


def _nesting(where: str, stanza: Stanza, seen: dict[str, Stanza]) -> Iterator[str]:
    if "parent" not in stanza:
        return
    parent = seen.get(stanza["parent"].split(" ")[0], {})
    holds, holder = _holder(parent), _holder(stanza)
    if not holds:
        yield f"{where}: parent is no group that stands before it"
        return
    # [db] superTrack_intro: folders hold groups, not vice versa, and there is one level of folders.
    if holder == "superTrack" or (holder and holds != "superTrack"):
        yield f"{where}: a {holder} in a {holds}"
    kind, over = stanza.get("type", " ").split(" ")[0], parent.get("type", " ").split(" ")[0]
    if holds in ("multiWig", "composite") and kind != over:  # [db] container, compositeTrack
        yield f"{where}: {kind} in a group of {over}"
    if holds == "multiWig" and "color" not in stanza:  # [db] container example
        yield f"{where}: no color in an overlay"
