"""BED files in: every row with all its columns, and the stretches that rows cover.

Columns are between tabs; rows without any tab are split at spaces. Lines that are empty or begin
with `#`, `track` or `browser` are no rows. Coordinates are 0-based half-open.
"""

from __future__ import annotations

import gzip
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from io import BufferedReader
from typing import cast

from glm_annotate.errors import InputError
from glm_annotate.gene_models import union
from glm_annotate.genome import Genome, Interval

_NO_ROW = re.compile(r"\s*(?:#.*|(?:track|browser)(?:\s.*)?)?", re.DOTALL)
_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class BedRow:
    """A row.

    Attributes:
        contig: As the file spells it.
        start: 0-based; `end`: exclusive.
        cells: All its columns.
        line: Its number in the file, from 1.
    """

    contig: str
    start: int
    end: int
    cells: tuple[str, ...]
    line: int

    @property
    def name(self) -> str:
        """The fourth column; empty where there is none."""
        return self.cells[3] if len(self.cells) > 3 else ""

    @property
    def strand(self) -> str:
        """The sixth column, `.` where there is none."""
        return self.cells[5] if len(self.cells) > 5 else "."


def read_bed(source: str) -> Iterator[BedRow]:
    """Read the rows of a BED, plain or gzipped; `-` is stdin.

    Raises:
        InputError: It cannot be read, or a line is no row.
    """
    name = "stdin" if source == "-" else source
    try:
        for number, line in enumerate(_lines(source), 1):
            if not _NO_ROW.fullmatch(line):
                yield _row(name, number, line.rstrip("\r\n"))
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such BED file") from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{name}: cannot be read as BED: {error}") from error


def _lines(source: str) -> Iterator[str]:
    stdin = cast(BufferedReader, sys.stdin.buffer)
    with nullcontext(stdin) if source == "-" else open(source, "rb") as handle:
        gzipped = handle.peek(2)[:2] == b"\x1f\x8b"
        lines = gzip.GzipFile(fileobj=handle) if gzipped else handle
        yield from (line.decode("utf-8") for line in lines)


def _row(name: str, number: int, line: str) -> BedRow:
    cells = tuple(line.split("\t") if "\t" in line else line.split())
    if len(cells) < 3 or not all(_NUMBER.fullmatch(x) for x in cells[1:3]):
        raise InputError(
            f"{name}: line {number}: {line[:60]!r} is no row of a BED; it needs contig, start and "
            "end, between tabs"
        )
    start, end = int(cells[1]), int(cells[2])
    if end < start:
        raise InputError(f"{name}: line {number}: {line[:60]!r} ends before it begins")
    return BedRow(cells[0], start, end, cells, number)


def place(row: BedRow, genome: Genome, source: str) -> Interval:
    """Find a row on the reference, with the FASTA's name of the contig.

    Raises:
        InputError: The FASTA has no such contig, or the row runs past its end.
    """
    where = f"{'stdin' if source == '-' else source}: line {row.line}"
    contig = genome.resolve(row.contig)
    if contig is None:
        raise InputError(
            f"{where}: {genome.path} has no contig {row.contig}; its first is "
            f"{next(iter(genome.contigs), 'none')}; name the regions as the FASTA does"
        )
    if row.end > genome.contigs[contig]:
        raise InputError(
            f"{where}: {row.contig}:{row.start}-{row.end} runs past the end of {contig} of "
            f"{genome.path}, which has {genome.contigs[contig]} bases; is it another assembly?"
        )
    return Interval(contig, row.start, row.end)


def merged(stretches: Iterable[Interval], genome: Genome) -> list[Interval]:
    """Join stretches that overlap or touch, contigs in the order of the FASTA."""
    by_contig: dict[str, list[tuple[int, int]]] = {}
    for x in stretches:
        if x.end > x.start:
            by_contig.setdefault(x.chrom, []).append((x.start, x.end))
    return [
        Interval(contig, start, end)
        for contig in genome.contigs
        if contig in by_contig
        for start, end in union(by_contig[contig]).tolist()
    ]
