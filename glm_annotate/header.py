"""VCF header lines: what is declared, and where our own lines go.

A header is a tuple of byte lines without line endings, the "#CHROM" line last. Lines that are not
ours are never changed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from glm_annotate.chunks import Chunk
from glm_annotate.errors import InputError

Header = tuple[bytes, ...]

_STRUCTURED = re.compile(rb"##([^=]+)=<(.*)>\s*")
_FIELD = re.compile(rb'([^=,]+)=("(?:[^"\\]|\\.)*"|[^,]*),?')
_FIXED_COLUMNS = 8


@dataclass(frozen=True, slots=True)
class Declared:
    """The IDs that a header declares, by kind."""

    info: frozenset[bytes]
    format: frozenset[bytes]
    filter: frozenset[bytes]
    contig: frozenset[bytes]


def fields_of(line: bytes) -> tuple[bytes, dict[bytes, bytes]] | None:
    """Take `##NAME=<KEY=value,...>` apart, quotes removed; None where a line has another form."""
    match = _STRUCTURED.fullmatch(line)
    if match is None:
        return None
    fields = {}
    for key, value in _FIELD.findall(match[2]):
        quoted = len(value) > 1 and value.startswith(b'"')
        fields[key.strip()] = re.sub(rb"\\(.)", rb"\1", value[1:-1]) if quoted else value
    return match[1], fields


def declared(header: Iterable[bytes]) -> Declared:
    """List the INFO, FORMAT, FILTER and contig IDs of a header."""
    found: dict[bytes, set[bytes]] = {b"INFO": set(), b"FORMAT": set(), b"FILTER": {b"PASS"}}
    found[b"contig"] = set()
    for line in header:
        parsed = fields_of(line)
        if parsed and parsed[0] in found and b"ID" in parsed[1]:
            found[parsed[0]].add(parsed[1][b"ID"])
    return Declared(*(frozenset(found[x]) for x in (b"INFO", b"FORMAT", b"FILTER", b"contig")))


def clashing(header: Iterable[bytes], keys: Collection[str]) -> list[str]:
    """Tell which of our INFO keys a header declares already."""
    there = declared(header).info
    return [key for key in keys if key.encode() in there]


def refuse_clashes(name: str, header: Iterable[bytes], keys: Collection[str]) -> None:
    """Stop before fields of an earlier run are written a second time.

    Raises:
        InputError: The header declares INFO keys of ours.
    """
    if clash := clashing(header, keys):
        raise InputError(
            f"{name}: the header has INFO {', '.join(clash)} already; {_mend(name, clash)}"
        )


def refuse_keys_in(name: str, chunk: Chunk, keys: Collection[str]) -> None:
    """Stop where a record holds an INFO key of ours though the header does not declare it.

    Raises:
        InputError: A record holds one of the keys.
    """
    prefixes = {key.partition("_")[0].encode() + b"_" for key in keys}
    joined = b"\n".join(chunk.infos)
    if not any(prefix in joined for prefix in prefixes):
        return
    ours = {key.encode() for key in keys}
    for i, info in enumerate(chunk.infos):
        if clash := [x.decode() for x in info_keys(info) if x in ours]:
            found = f"{chunk.where(i)} has INFO {', '.join(clash)}"
            raise InputError(f"{name}: {found} already; {_mend(name, clash)}")


def info_keys(info: bytes) -> list[bytes]:
    """List the keys of an INFO column."""
    return [x.partition(b"=")[0] for x in info.split(b";") if x and x != b"."]


def _mend(name: str, keys: Iterable[str]) -> str:
    listed = ",".join(f"INFO/{key}" for key in keys)
    return f"use --overwrite, or run: bcftools annotate -x {listed} {name}"


class KnownKeys:
    """Finds what a BCF cannot hold: keys and contigs that its header does not declare."""

    def __init__(self, header: Header, source: str) -> None:
        self._declared = declared(header)
        self._source = source
        self._filters: set[bytes] = {b"."}
        self._formats: set[bytes] = set()

    def check(self, lines: Sequence[bytes], before: int) -> None:
        """Look at lines, `before` of which were written already.

        Raises:
            InputError: A line holds an undeclared key or contig.
        """
        known = self._declared
        for number, line in enumerate(lines, before + 1):
            row = line.rstrip(b"\r\n").split(b"\t", 9)
            if row[0] not in known.contig:
                self._refuse(row, number, "contig", row[0])
            if row[6] not in self._filters:
                self._look(row, number, "FILTER", row[6].split(b";"), known.filter)
                self._filters.add(row[6])
            if row[7] != b".":
                self._look(row, number, "INFO", info_keys(row[7]), known.info)
            if len(row) > 8 and row[8] not in self._formats:
                self._look(row, number, "FORMAT", row[8].split(b":"), known.format)
                self._formats.add(row[8])

    def _look(
        self, row: list[bytes], number: int, what: str, keys: list[bytes], known: frozenset[bytes]
    ) -> None:
        if not known.issuperset(keys):
            for key in keys:
                if key not in known and key not in (b"", b"."):
                    self._refuse(row, number, what, key)

    def _refuse(self, row: list[bytes], number: int, what: str, key: bytes) -> None:
        chrom, pos, shown = (x.decode("utf-8", "replace") for x in (row[0], row[1], key))
        raise InputError(
            f"{self._source}: record {number} ({chrom}:{pos}): {what} {shown} is not in the "
            "header, so BCF cannot hold it; write text with -O z, or add it to the header with "
            "bcftools annotate -h"
        )


def extend_header(
    header: Header,
    info_lines: Sequence[bytes],
    meta_lines: Sequence[bytes] = (),
    *,
    contigs: Mapping[str, int] | None = None,
    binary: bool = False,
    overwrite: bool = False,
) -> Header:
    """Add our lines to a header; every other line stays where it is.

    Args:
        header: The input's header.
        info_lines: `##INFO` lines, put after the last one there is.
        meta_lines: Other lines, put before the "#CHROM" line. One with an ID replaces a line of the
            same name and ID: that a former run left.
        contigs: Lengths of contigs in the input's spelling. Those that the header lacks are added,
            but only if the output is binary or the header names no contig at all.
        binary: Whether the output is BCF.
        overwrite: Whether `info_lines` replace lines with the same ID.
    """
    replaced = {_identity(x) for x in (*meta_lines, *(info_lines if overwrite else ()))} - {None}
    lines = header[:-1]
    # Also a line that is replaced shows the place: a second run writes what the first one did.
    last = max((i for i, x in enumerate(lines) if x.startswith(b"##INFO=")), default=len(lines) - 1)
    before, after = (
        [x for x in part if not replaced or _identity(x) not in replaced]
        for part in (lines[: last + 1], lines[last + 1 :])
    )
    known = declared(header).contig
    added = []
    if contigs and (binary or not known):
        lacking = {name.encode(): length for name, length in contigs.items()}
        added = [
            b"##contig=<ID=%b,length=%d>" % (name, length)
            for name, length in lacking.items()
            if name not in known
        ]
    return (*before, *info_lines, *after, *added, *meta_lines, header[-1])


def _identity(line: bytes) -> tuple[bytes, bytes] | None:
    parsed = fields_of(line)
    return (parsed[0], parsed[1][b"ID"]) if parsed and b"ID" in parsed[1] else None


def without_samples(header: Header) -> Header:
    """Cut FORMAT and the samples off the "#CHROM" line."""
    return (*header[:-1], b"\t".join(header[-1].split(b"\t")[:_FIXED_COLUMNS]))


def _quoted(text: str) -> str:
    flat = " ".join(text.split())
    return '"' + flat.replace("\\", "\\\\").replace('"', '\\"') + '"'


def info_line(
    key: str,
    number: str,
    kind: str,
    description: str,
    version: str,
) -> bytes:
    """Make an `##INFO` line of ours."""
    return (
        f"##INFO=<ID={key},Number={number},Type={kind},Description={_quoted(description)},"
        f'Source="glm_annotate",Version={_quoted(version)}>'
    ).encode()


def structured_line(name: str, identifier: str, fields: Mapping[str, object]) -> bytes:
    """Make a line `##NAME=<ID=...,KEY="value",...>`.

    All values but the ID are quoted: htslib drops lines with commas outside quotes.
    """
    rest = "".join(f",{key}={_quoted(str(value))}" for key, value in fields.items())
    return f"##{name}=<ID={identifier}{rest}>".encode()


def run_lines(version: str, arguments: Sequence[str], date: str) -> tuple[bytes, bytes]:
    """Make the lines that say which program with which arguments wrote the file."""
    command = " ".join(shlex.join(arguments).split())
    return (
        f"##glm_annotateVersion={version}".encode(),
        f"##glm_annotateCommand={command}; Date={date}".encode("utf-8", "surrogateescape"),
    )
