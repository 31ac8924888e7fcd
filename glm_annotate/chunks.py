"""Chunks of records: lines split into the columns that scoring needs, and nothing more.

This is the hot path of reading: whole blocks of text are split at once, no record is an object.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glm_annotate.errors import InputError

COLUMNS = b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive records, one value a record in every column.

    Attributes:
        unit: What `numbers` count: lines of a text, else records.
        numbers: 1-based numbers in the input, shape (n,).
        lines: The whole lines as read, line ending included.
        ends: Where the INFO column ends in each line.
        chroms: CHROM, and so on for the other columns; `pos` is 1-based, shape (n,).
    """

    unit: str
    numbers: NDArray[np.int64]
    lines: list[bytes]
    ends: list[int]
    chroms: list[bytes]
    pos: NDArray[np.int64]
    refs: list[bytes]
    alts: list[bytes]
    infos: list[bytes]

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def first_line(self) -> int:
        """Number of the first record in the input."""
        return int(self.numbers[0])

    def where(self, i: int) -> str:
        """Name record `i` in a message."""
        chrom = self.chroms[i].decode("utf-8", "replace")
        return f"{self.unit} {self.numbers[i]} ({chrom}:{self.pos[i]})"


def whole_lines(raw: Iterator[bytes]) -> Iterator[bytes]:
    """Cut pieces at line ends; only the last may lack one."""
    held: list[bytes] = []
    for piece in raw:
        end = piece.rfind(b"\n") + 1
        if end:
            yield b"".join((*held, piece[:end]))
            held = [piece[end:]] if end < len(piece) else []
        elif piece:
            held.append(piece)
    if held:
        yield b"".join(held)


def parse(name: str, unit: str, data: bytes, number: int) -> Chunk:
    """Split whole lines into columns.

    Raises:
        InputError: A line is no record.
    """
    regular = _parse_regular(unit, data, number)
    if regular is not None:
        return regular
    texts = data.removesuffix(b"\n").split(b"\n")
    if b"\r" in data:
        # A carriage return inside a line ends no line.
        lines = [x + b"\n" for x in texts]
        lines[-1] = lines[-1] if data.endswith(b"\n") else texts[-1]
    else:
        lines = data.splitlines(keepends=True)
    rows = [x.split(b"\t", 8) for x in texts]
    columns = list(map(list, zip(*rows, strict=False)))
    pos = _positions(columns[1]) if len(columns) >= 8 else None
    if pos is None:
        raise _no_record(name, unit, rows, number)
    infos = columns[7]
    if b"\r" in data:
        # The ending of a line is no part of its last column.
        infos = [
            x.removesuffix(b"\r") if len(r) == 8 else x for x, r in zip(infos, rows, strict=True)
        ]
    ends = [
        len(x) - len(r[8]) - 1 if len(r) > 8 else len(x) - len(r[7]) + len(info)
        for x, r, info in zip(texts, rows, infos, strict=True)
    ]
    numbers = np.arange(number, number + len(rows), dtype=np.int64)
    return Chunk(unit, numbers, lines, ends, columns[0], pos, columns[3], columns[4], infos)


def _parse_regular(unit: str, data: bytes, number: int) -> Chunk | None:
    """Split lines of exactly 8 columns, all at once: no list a line for the garbage collector.

    Returns:
        None where a line has another number of columns, a POS that is no integer, or a carriage
        return.
    """
    if data.count(b"\t", 0, data.find(b"\n")) != 7 or b"\r" in data:
        return None
    text = data if data.endswith(b"\n") else data + b"\n"
    letters = np.frombuffer(text, dtype=np.uint8)
    stops = np.flatnonzero((letters == ord("\t")) | (letters == ord("\n")))
    is_line = letters[stops] == ord("\n")
    lines = int(is_line.sum())
    if stops.size != 8 * lines or not bool(is_line[7::8].all()):
        return None
    flat = text.replace(b"\n", b"\t").split(b"\t")
    chroms, texts, _, refs, alts, _, _, infos = (flat[column:-1:8] for column in range(8))
    pos = _positions(texts)
    if pos is None:
        return None
    ends = np.diff(stops[7::8], prepend=-1) - 1
    numbers = np.arange(number, number + lines, dtype=np.int64)
    whole = data.splitlines(keepends=True)
    return Chunk(unit, numbers, whole, ends.tolist(), chroms, pos, refs, alts, infos)


def _positions(column: list[bytes]) -> NDArray[np.int64] | None:
    """Read POS, shape (n,); None if one of them is no integer from 0 up."""
    if not b"".join(column).isdigit():
        return None
    try:
        return np.fromiter(map(int, column), dtype=np.int64, count=len(column))
    except (ValueError, OverflowError):
        return None


def short(text: bytes) -> str:
    return repr(text[:40].decode("utf-8", "replace")) + ("..." if len(text) > 40 else "")


def _no_record(name: str, unit: str, rows: Sequence[Sequence[bytes]], number: int) -> InputError:
    i = next(i for i, r in enumerate(rows) if len(r) < 8 or _positions([r[1]]) is None)
    row, text = rows[i], b"\t".join(rows[i])
    if not text.strip():
        found, mend = "is empty", "drop such lines with: sed '/^\\s*$/d'"
    elif text.startswith((b"##", COLUMNS)):
        found, mend = "is a header line after records", "join files with: bcftools concat"
    elif len(row) < 8:
        found = f"{short(text)} has {len(row)} tab-separated columns"
        mend = "mend or remove the line (a truncated file ends like this)"
    else:
        found, mend = f"has POS {short(row[1])}", "mend or remove the line"
    return InputError(
        f"{name}: {unit} {number + i} {found}; a record has at least 8 columns and POS is an "
        f"integer from 0 up; {mend}"
    )


def part(chunk: Chunk, start: int, stop: int) -> Chunk:
    return Chunk(
        chunk.unit,
        chunk.numbers[start:stop],
        chunk.lines[start:stop],
        chunk.ends[start:stop],
        chunk.chroms[start:stop],
        chunk.pos[start:stop],
        chunk.refs[start:stop],
        chunk.alts[start:stop],
        chunk.infos[start:stop],
    )


def joined(a: Chunk, b: Chunk) -> Chunk:
    return Chunk(
        a.unit,
        np.concatenate((a.numbers, b.numbers)),
        a.lines + b.lines,
        a.ends + b.ends,
        a.chroms + b.chroms,
        np.concatenate((a.pos, b.pos)),
        a.refs + b.refs,
        a.alts + b.alts,
        a.infos + b.infos,
    )


def chosen(chunk: Chunk, keep: NDArray[np.bool_]) -> Chunk:
    if keep.all():
        return chunk
    wanted = keep.tolist()
    return Chunk(
        chunk.unit,
        chunk.numbers[keep],
        list(itertools.compress(chunk.lines, wanted)),
        list(itertools.compress(chunk.ends, wanted)),
        list(itertools.compress(chunk.chroms, wanted)),
        chunk.pos[keep],
        list(itertools.compress(chunk.refs, wanted)),
        list(itertools.compress(chunk.alts, wanted)),
        list(itertools.compress(chunk.infos, wanted)),
    )


def batches(blocks: Iterator[Chunk], size: int) -> Iterator[Chunk]:
    """Cut blocks of any length into chunks of at most `size` records.

    Records of one site (equal CHROM and POS) that follow each other stay together, which may make
    a chunk up to four times as long.
    """
    held: Chunk | None = None
    for block in blocks:
        held = block if held is None else joined(held, block)
        start = 0
        while stop := _cut(held, start, size, last=False):
            yield part(held, start, stop)
            start = stop
        held = part(held, start, len(held))
    start = 0
    while held is not None and (stop := _cut(held, start, size, last=True)):
        yield part(held, start, stop)
        start = stop


def _cut(chunk: Chunk, start: int, size: int, *, last: bool) -> int:
    """Where a chunk from `start` on ends; 0 if that depends on records not yet read."""
    total, stop = len(chunk), start + size
    if total <= stop:
        return total if last and total > start else 0

    def same_site(i: int) -> bool:
        return bool(chunk.pos[i - 1] == chunk.pos[i] and chunk.chroms[i - 1] == chunk.chroms[i])

    while stop > start and same_site(stop):
        stop -= 1
    if stop > start:
        return stop
    stop, limit = start + size, start + 4 * size
    while stop < min(total, limit) and same_site(stop):
        stop += 1
    return stop if stop < total or stop == limit or last else 0
