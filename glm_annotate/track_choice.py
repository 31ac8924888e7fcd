"""Choosing tracks of a model, and names of theirs that INFO keys can hold.

Choosing one strand chooses the other too: the prediction of the reverse strand needs both, and
their scores become one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glm_annotate.errors import InputError, UsageError
from glm_annotate.track_table import TrackTable

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
_LISTED = 10  # how many known values an error names


@dataclass(frozen=True, slots=True)
class TrackChoice:
    """What a user asks for: a track meets one value of every option that is given.

    Attributes:
        files: Files of identifiers, one a line; what follows a tab is left out (`--tracks-file`).
        regexes: Searched in identifier and description (`--track-regex`).
        assays: Whole names, of any case (`--assay`); `biosamples` likewise (`--biosample`).
    """

    files: tuple[str, ...] = ()
    regexes: tuple[str, ...] = ()
    assays: tuple[str, ...] = ()
    biosamples: tuple[str, ...] = ()


def choose_tracks(table: TrackTable, choice: TrackChoice) -> Ints:
    """Choose tracks, strand pairs whole, in the order of the table; all where nothing is asked.

    Raises:
        UsageError: A value is unknown or no regular expression, or no track meets all options.
        InputError: A file cannot be read or names an unknown track.
    """
    kept = np.ones(len(table), dtype=np.bool_)
    if choice.files:
        kept &= _listed(table, choice.files)
    if choice.regexes:
        kept &= _matching(table, choice.regexes)
    if choice.assays:
        kept &= _named("--assay", choice.assays, [x.assay for x in table.tracks])
    if choice.biosamples:
        kept &= _named("--biosample", choice.biosamples, [x.biosample for x in table.tracks])
    if not kept.any():
        raise UsageError(
            f"no track meets all of {_asked(choice)}; the model has {len(table)} tracks, such as "
            f"{_some(table.identifiers)}"
        )
    return np.flatnonzero(kept | kept[table.pair])


def _asked(choice: TrackChoice) -> str:
    names = ("--tracks-file", "--track-regex", "--assay", "--biosample")
    values = (choice.files, choice.regexes, choice.assays, choice.biosamples)
    return ", ".join(f"{n} {x}" for n, given in zip(names, values, strict=True) for x in given)


def _listed(table: TrackTable, paths: Iterable[str]) -> Bools:
    kept = np.zeros(len(table), dtype=np.bool_)
    for path in paths:
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read as a list of tracks: {error}") from error
        lines = [x.partition("\t")[0].strip() for x in text.split("\n")]
        wanted = [(i, x) for i, x in enumerate(lines, 1) if x and not x.startswith("#")]
        if not wanted:
            raise InputError(f"{path}: no track in it; it needs one identifier a line")
        for line, name in wanted:
            if name not in table.number:
                raise InputError(
                    f"{path}: line {line}: unknown track {name!r}; {_like(name, table.identifiers)}"
                )
            kept[table.number[name]] = True
    return kept


def _matching(table: TrackTable, regexes: Iterable[str]) -> Bools:
    kept = np.zeros(len(table), dtype=np.bool_)
    for text in regexes:
        try:
            pattern = re.compile(text)
        except re.error as error:
            raise UsageError(f"--track-regex {text}: no regular expression: {error}") from error
        found = [
            bool(pattern.search(x.identifier) or pattern.search(x.description))
            for x in table.tracks
        ]
        if not any(found):
            raise UsageError(
                f"--track-regex {text}: in no identifier or description of {len(table)} tracks, "
                f"such as {_some(table.identifiers)}"
            )
        kept |= np.array(found)
    return kept


def _named(option: str, wanted: Iterable[str], have: Sequence[str]) -> Bools:
    kept = np.zeros(len(have), dtype=np.bool_)
    folded = [x.casefold() for x in have]
    for name in wanted:
        if name.strip().casefold() not in folded:
            raise UsageError(f"{option} {name}: unknown; {_like(name, have)}")
        kept |= np.array([x == name.strip().casefold() for x in folded])
    return kept


def _like(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {_some(known)}"


def _some(known: Sequence[str]) -> str:
    names = sorted({x for x in known if x})
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return (", ".join(names[:_LISTED]) or "none") + more


def info_names(identifiers: Sequence[str]) -> tuple[str, ...]:
    """Turn identifiers into what an INFO key may hold.

    Raises:
        UsageError: Two become the same.
    """
    found: dict[str, str] = {}
    for identifier in identifiers:
        text = identifier.replace("+", "_plus").replace("-", "_minus")
        name = re.sub(r"[^0-9A-Za-z_]", "_", text)
        if name in found:
            raise UsageError(
                f"the tracks {found[name]!r} and {identifier!r} would both be {name} in INFO keys; "
                "choose one of them with --tracks-file"
            )
        found[name] = identifier
    return tuple(found)
