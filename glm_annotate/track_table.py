"""The tracks of a model: `tracks.tsv` and the `targets.txt` of others, as one frozen table.

A strand pair is named by identifiers, so that a part of a table is still a table.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from glm_annotate.errors import InputError
from glm_annotate.track_transforms import (
    NO_TRANSFORM,
    Transform,
    Transforms,
    Version,
    parse_transform,
    transforms_of,
    with_version,
)

TRACKS = "tracks.tsv"
Ints = NDArray[np.int64]
Role = Literal["profile", "acceptor", "donor", "usage"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class Track:
    """A row of tracks.tsv.

    Attributes:
        strand_pair: Identifier of the same signal on the other strand; empty: it has none.
        clip_soft: None: no soft clip.
        scale: None: 1.
    """

    identifier: str
    description: str = ""
    assay: str = ""
    biosample: str = ""
    strand_pair: str = ""
    units: str = ""
    role: Role = "profile"
    transform: Transform = NO_TRANSFORM
    clip_soft: float | None = None
    scale: float | None = None


COLUMNS = tuple(x.name for x in fields(Track))


@dataclass(frozen=True)
class TrackTable:
    """Tracks in the order of the graph's output.

    Raises:
        ValueError: Identifiers are not unique, or strand pairs do not name each other.
    """

    tracks: tuple[Track, ...]

    def __post_init__(self) -> None:
        if len(self.number) != len(self.tracks):
            [(twice, rows)] = Counter(self.identifiers).most_common(1)
            raise ValueError(f"the identifier {twice!r} stands in {rows} rows; it has to be unique")
        for track in self.tracks:
            if track.strand_pair and self._partner(track).strand_pair != track.identifier:
                raise ValueError(
                    f"{track.identifier!r} has the strand_pair {track.strand_pair!r}, which does "
                    "not name it in turn; pairs are mutual"
                )

    def __len__(self) -> int:
        return len(self.tracks)

    def _partner(self, track: Track) -> Track:
        if track.strand_pair not in self.number:
            raise ValueError(
                f"{track.identifier!r} has the strand_pair {track.strand_pair!r}, which is no "
                "identifier of the table"
            )
        return self.tracks[self.number[track.strand_pair]]

    @cached_property
    def number(self) -> Mapping[str, int]:
        """Place of every identifier."""
        return {name: i for i, name in enumerate(self.identifiers)}

    @property
    def identifiers(self) -> tuple[str, ...]:
        """All identifiers, in order."""
        return tuple(track.identifier for track in self.tracks)

    @cached_property
    def pair(self) -> Ints:
        """Place of each track's strand pair, its own where it has none, shape (tracks,)."""
        own = enumerate(self.tracks)
        found = [self.number[x.strand_pair] if x.strand_pair else i for i, x in own]
        return np.array(found, dtype=np.int64)

    @cached_property
    def merged(self) -> tuple[Ints, Ints]:
        """Merged tracks: the one that lends its name, and its partner or itself, shape (m,) each.

        A pair has the place of its first row and the name of the one that ends in `+`, else of
        the first.
        """
        first = np.flatnonzero(np.arange(len(self)) <= self.pair)
        second = self.pair[first]
        swap = [
            self.tracks[b].identifier.endswith("+") and not self.tracks[a].identifier.endswith("+")
            for a, b in zip(first.tolist(), second.tolist(), strict=True)
        ]
        return np.where(swap, second, first), np.where(swap, first, second)

    @property
    def merged_identifiers(self) -> tuple[str, ...]:
        """Names of the merged tracks."""
        return tuple(self.tracks[i].identifier for i in self.merged[0].tolist())

    def take(self, which: Ints) -> TrackTable:
        """Keep some tracks, pairs whole."""
        return TrackTable(tuple(self.tracks[i] for i in which.tolist()))

    def transforms(self, version: Version | None = None) -> Transforms:
        """Give the transforms in columns; `version` replaces the table's own.

        Raises:
            UsageError: A track's statistic is not known to that version.
        """
        rows = [x.transform for x in self.tracks]
        if version is not None:
            rows = [with_version(x, version) for x in rows]
        clips, scales = [x.clip_soft for x in self.tracks], [x.scale for x in self.tracks]
        return transforms_of(rows, clips, scales)


# --- files -------------------------------------------------------------------------------------


def read_tracks(path: str | Path) -> TrackTable:
    """Read tracks.tsv: a header, then a row a track; only `identifier` is needed.

    Raises:
        InputError: The file is no such table.
    """
    return _table(path, [(line, _track(path, line, row)) for line, row in _rows(path)])


def write_tracks(table: TrackTable, path: str | Path) -> None:
    """Write tracks.tsv with all its columns.

    Raises:
        InputError: A text holds a tab or the end of a line.
    """
    lines = ["\t".join(COLUMNS)]
    for track in table.tracks:
        cells = [_text(getattr(track, name)) for name in COLUMNS]
        if re.search(r"[\t\r\n]", "".join(cells)):
            raise InputError(
                f"{path}: the track {track.identifier!r} has a tab or the end of a line in it; "
                "take it out of its description"
            )
        lines.append("\t".join(cells))
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _text(value: str | float | Transform | None) -> str:
    if value is None:
        return ""
    return (
        value.text
        if isinstance(value, Transform)
        else value
        if isinstance(value, str)
        else repr(value)
    )


def read_targets(path: str | Path, version: Version) -> TrackTable:
    """Read a targets.txt of baskerville, Basenji or Enformer, without its column `file`.

    Its first column is an index, which `strand_pair` refers to. The assay is the description up to
    its first colon; the biosample is what follows, of CHIP what follows the target.

    Args:
        path: The table.
        version: Of the transform; the table does not tell.

    Raises:
        InputError: The file is no such table.
    """
    rows = list(_rows(path, index=True))
    names = {row["index"]: row.get("identifier", "") for _, row in rows}
    tracks = []
    for line, row in rows:
        pair, own = row.get("strand_pair", ""), row["index"]
        if pair and pair not in names:
            raise InputError(
                f"{path}: line {line}: strand_pair {pair!r} is no index of the table; both strands "
                "belong in it"
            )
        statistic = row.get("sum_stat", "")
        assay, biosample = _described(row.get("description", ""))
        known = {x: row[x] for x in ("identifier", "description", "clip_soft", "scale") if x in row}
        more = {
            "assay": assay,
            "biosample": biosample,
            "strand_pair": names[pair] if pair and pair != own else "",
            "transform": f"{version}:{statistic}" if statistic else "none",
        }
        tracks.append((line, _track(path, line, known | more)))
    return _table(path, tracks)


def _described(description: str) -> tuple[str, str]:
    assay, _, rest = description.partition(":")
    if assay == "CHIP" and ":" in rest:
        rest = rest.partition(":")[2]
    return assay.strip(), rest.strip()


def _rows(path: str | Path, *, index: bool = False) -> Iterable[tuple[int, dict[str, str]]]:
    """Give every row with its line; the first column of a target table has no name or `index`."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such table of tracks") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a table of tracks: {error}") from error
    head, *lines = [line.removesuffix("\r").split("\t") for line in text.rstrip("\r\n").split("\n")]
    if index and head and head[0] in ("", "index"):
        head[0] = "index"
    needed = ("index", "identifier") if index else ("identifier",)
    lacking = next((x for x in needed if x not in head), None)
    if lacking or len(set(head)) != len(head):
        raise InputError(
            f"{path}: line 1 is not a header with the columns {', '.join(needed)}, each once; it "
            f"has {', '.join(filter(None, head)) or 'nothing'}"
        )
    odd = [] if index else [x for x in head if x not in COLUMNS]
    if odd:
        raise InputError(f"{path}: unknown column {odd[0]!r}; known: {', '.join(COLUMNS)}")
    for number, cells in enumerate(lines, 2):
        if len(cells) != len(head):
            raise InputError(
                f"{path}: line {number} has {len(cells)} columns, the header {len(head)}"
            )
        yield number, dict(zip(head, cells, strict=True))


def _track(path: str | Path, line: int, row: Mapping[str, str]) -> Track:
    where = f"{path}: line {line}"
    cells = {name: cell.strip() for name, cell in row.items()}
    if not cells["identifier"]:
        raise InputError(f"{where}: the identifier is empty")
    role = next((x for x in ROLES if x == (cells.get("role") or "profile")), None)
    if role is None:
        raise InputError(f"{where}: role {cells['role']!r} is not one of {', '.join(ROLES)}")
    try:
        transform = parse_transform(cells.get("transform", ""))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    own = cells.get("strand_pair", "") == cells["identifier"]
    return Track(
        cells["identifier"],
        cells.get("description", ""),
        cells.get("assay", ""),
        cells.get("biosample", ""),
        "" if own else cells.get("strand_pair", ""),
        cells.get("units", ""),
        role,
        transform,
        _number(where, "clip_soft", cells.get("clip_soft", "")),
        _number(where, "scale", cells.get("scale", "")),
    )


def _number(where: str, name: str, text: str) -> float | None:
    if text.lower() in ("", "nan"):
        return None
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(f"{where}: {name} {text!r} is not a number") from error
    if not math.isfinite(value) or value <= 0:
        raise InputError(f"{where}: {name} {text!r} is not a number above 0")
    return value


def _table(path: str | Path, rows: Sequence[tuple[int, Track]]) -> TrackTable:
    if not rows:
        raise InputError(f"{path}: no track in it")
    try:
        return TrackTable(tuple(track for _, track in rows))
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
