"""A UCSC track hub: hub.txt, genomes.txt and trackDb.txt around files of tracks.

The rules are those of UCSC's Track Hub help and Hub Track Database Definition. Where two of their
pages differ the stricter one is kept. Colours are Okabe and Ito's, which the colour-blind can tell
apart, one an assay.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from glm_annotate.errors import InputError, UsageError
from glm_annotate.hub_limits import Limits, data_range, view_limits
from glm_annotate.hub_stanzas import (
    BLUE,
    SHORT,
    VERMILLION,
    Colour,
    HubGroup,
    HubTrack,
    Placed,
    groups_of,
    label_of,
    stanza,
    stanzas_of,
    word_of,
)
from glm_annotate.track_sinks import telling
from glm_annotate.vcf import atomic_file, check_output

SKY, GREEN, ORANGE, PURPLE = (86, 180, 233), (0, 158, 115), (230, 159, 0), (204, 121, 167)
BLACK, GREY = (0, 0, 0), (130, 130, 130)
BASES: Mapping[str, Colour] = {"A": GREEN, "C": BLUE, "G": ORANGE, "T": VERMILLION}
ALLELES: Mapping[str, Colour] = {"ref": GREY, "alt": BLUE, "delta": VERMILLION}
ASSAYS: Mapping[str, Colour] = {
    "": BLUE, "DNASE": BLUE, "ATAC": SKY, "CAGE": VERMILLION, "RNA": GREEN, "CHIP": PURPLE,
}  # fmt: skip
_SPARE = (ORANGE, BLACK, GREY)  # in turn, for other assays

HUB_LONG = 69  # characters of the label
_KINDS = {".bw": "bigWig", ".bigwig": "bigWig", ".vcf.gz": "vcfTabix"}
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_GENOME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_EMAIL = re.compile(r"[!-?A-~]+@[!-?A-~]+\.[!-\-/-?A-~]+")  # ASCII around one @


def write_hub(
    folder: str,
    *,
    name: str,
    short_label: str,
    long_label: str,
    email: str,
    genome: str,
    tracks: Sequence[HubTrack],
    force: bool,
) -> str:
    """Write the three files of a hub, and copy tracks that lie elsewhere into its folder.

    Args:
        folder: Made if it is not there.
        name: A word.
        short_label: Cut to 17 characters.
        long_label: Cut to 69 characters.
        email: Whom UCSC and users may ask.
        genome: UCSC's name of the assembly, such as hg38, or an accession GCA_ or GCF_.
        tracks: In the order of display; those of a group are put together at its first one.
        force: Replace files that are there.

    Returns:
        The path of hub.txt.

    Raises:
        UsageError: A name, an e-mail or a genome that UCSC would not take, or wrong groups.
        InputError: A track's file is missing or of another kind, or files are there already.
    """
    _check_words(name, email, genome)
    root, inner = Path(folder), Path(folder) / genome
    files = {"hub": root / "hub.txt", "genomes": root / "genomes.txt", "db": inner / "trackDb.txt"}
    placed = _place(root, inner, tracks)
    for path in files.values():
        check_output(str(path), force)
    for track in placed:
        for source, target in _copies(track):
            if source != target:
                check_output(str(target), force, str(source))
    placed = [_with_data(track) for track in placed]
    stanzas = "\n".join(stanzas_of(placed))
    with telling(folder):
        inner.mkdir(parents=True, exist_ok=True)
    for track in placed:
        for source, target in _copies(track):
            if source != target:
                _copy(source, target, force)
    hub = {
        "hub": name,
        "shortLabel": label_of(short_label, SHORT, name),
        "longLabel": label_of(long_label, HUB_LONG, name),
        "genomesFile": "genomes.txt",
        "email": email,
    }
    _write(files["db"], stanzas, force)
    _write(files["genomes"], stanza({"genome": genome, "trackDb": f"{genome}/trackDb.txt"}), force)
    # Last, so that a hub that can be opened is complete.
    _write(files["hub"], stanza(hub), force)
    return str(files["hub"])


def overlay_of(
    name: str,
    files: Mapping[str, str],
    *,
    long_label: str,
    colours: Mapping[str, Colour] = BASES,
    limits: Limits | None = None,
    parent: HubGroup | None = None,
) -> list[HubTrack]:
    """Overlay tracks of one kind, such as those of four bases or of REF, ALT and their difference.

    Args:
        name: Of the overlay.
        files: By part, a key of `colours`.
        long_label: Of the overlay; a part adds its key.
        colours: `BASES` or `ALLELES`.
        limits: See `HubTrack`; an overlay has one view.
        parent: See `HubGroup`.
    """
    group = HubGroup(name, long_label, kind="overlay", parent=parent)
    return [
        HubTrack(
            f"{name}_{part}", file, f"{long_label}, {part}", f"{name} {part}",
            colour=colours[part], alt_colour=colours[part], limits=limits, group=group,
        )
        for part, file in files.items()
    ]  # fmt: skip


# --- names, labels and files -------------------------------------------------------------------


def _check_words(name: str, email: str, genome: str) -> None:
    checks = (
        ("name", name, _WORD, "a letter, then letters, digits and _"),
        ("email", email, _EMAIL, "an address such as me@example.org"),
        ("genome", genome, _GENOME, "UCSC's name of an assembly, such as hg38"),
    )
    for what, value, pattern, allowed in checks:
        if not pattern.fullmatch(value):
            raise UsageError(f"track hub: {what} {value!r}; UCSC wants {allowed}")


def _place(root: Path, inner: Path, tracks: Sequence[HubTrack]) -> list[Placed]:
    if not tracks:
        raise UsageError(f"{root}: a track hub needs at least one track")
    words = _words(tracks)
    shorts = _short_labels(tracks)
    colours = _colours(tracks)
    out = []
    for track, word, short, colour in zip(tracks, words, shorts, colours, strict=True):
        inside = root / track.file
        source = inside if inside.is_file() else Path(track.file)
        ending = next((x for x in _KINDS if source.name.lower().endswith(x)), None)
        if ending is None or not source.is_file():
            found = "no such file" if ending else f"a hub takes {', '.join(_KINDS)}"
            raise InputError(f"{track.file}: {found}; write the track first")
        if _KINDS[ending] == "vcfTabix" and not Path(f"{source}.tbi").is_file():
            raise InputError(f"{source}: no index {source}.tbi; run: bcftools index -t {source}")
        held = source.resolve().is_relative_to(root.resolve())
        target = source if held else inner / (word + ending)
        url = quote(os.path.relpath(target.resolve(), inner.resolve()))
        out.append(Placed(track, word, short, _KINDS[ending], source, target, url, colour))
    return out


def _words(tracks: Sequence[HubTrack]) -> list[str]:
    """Make a word of every name, none of them that of a group, all different."""
    groups: dict[str, HubGroup] = {}
    for group in (group for track in tracks for group in groups_of(track)):
        if groups.setdefault(word_of(group.name).lower(), group) != group:
            raise UsageError(f"track hub: two groups named {group.name}; give one another name")
    taken = set(groups)
    return [_unique(word_of(track.name), taken, "_") for track in tracks]


def _short_labels(tracks: Sequence[HubTrack]) -> list[str]:
    taken: set[str] = set()
    labels = [label_of(track.short_label or track.name, SHORT, track.name) for track in tracks]
    return [_unique(label, taken, " ", SHORT) for label in labels]


def _unique(text: str, taken: set[str], joint: str, limit: int = 100) -> str:
    found, number = text, 1
    while found.lower() in taken:
        number += 1
        ending = f"{joint}{number}"
        found = text[: limit - len(ending)].rstrip() + ending
    taken.add(found.lower())
    return found


def _colours(tracks: Sequence[HubTrack]) -> list[Colour]:
    known = dict(ASSAYS)
    out = []
    for track in tracks:
        assay = re.split(r"[^A-Z]", track.assay.upper())[0]
        if track.colour is None and assay not in known:
            known[assay] = _SPARE[(len(known) - len(ASSAYS)) % len(_SPARE)]
        out.append(track.colour or known[assay])
    return out


def _copies(placed: Placed) -> Iterator[tuple[Path, Path]]:
    yield placed.source, placed.target
    if placed.kind == "vcfTabix":
        yield Path(f"{placed.source}.tbi"), Path(f"{placed.target}.tbi")


def _copy(source: Path, target: Path, force: bool) -> None:
    with source.open("rb") as data, atomic_file(str(target), force=force) as out:
        shutil.copyfileobj(data, out, 1 << 20)


def _with_data(placed: Placed) -> Placed:
    if placed.kind != "bigWig":
        return placed
    path = str(placed.source)
    found = data_range(path)
    return replace(placed, range=found, limits=placed.track.limits or view_limits(path))


def _write(path: Path, text: str, force: bool) -> None:
    with atomic_file(str(path), force=force) as out:
        out.write(text.encode("ascii"))
