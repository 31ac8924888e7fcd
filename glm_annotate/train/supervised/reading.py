"""Files of labelled or measured sequences in, examples out."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from glm_annotate.beds import place, read_bed
from glm_annotate.errors import InputError
from glm_annotate.genome import Codes, Genome, N, to_codes
from glm_annotate.train.supervised.config import LabelsConfig, RegressionConfig, SplitConfig
from glm_annotate.train.supervised.splits import split_genome

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Example:
    """A sequence and its values.

    Attributes:
        name: For messages.
        codes: Its bases, with some around it where they are known.
        values: One a track, NaN where nothing was measured.
        group: What the split goes by: a contig, or a fold.
    """

    name: str
    codes: Codes
    values: NDArray[np.float32]
    group: str

    def window(self, length: int, shift: int = 0) -> Codes:
        """Cut a window of `length` bases around the middle moved by `shift`, N where none are."""
        start = (self.codes.size - length) // 2 + shift
        out = np.full(length, N, dtype=np.uint8)
        low, high = max(start, 0), min(start + length, self.codes.size)
        if low < high:
            out[low - start : high - start] = self.codes[low:high]
        return out


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a text file, plain or gzipped.

    Raises:
        InputError: It cannot be read, also later on.
    """
    try:
        with open(path, "rb") as raw:
            gzipped = raw.read(2) == b"\x1f\x8b"
        with (
            gzip.open(path, "rt", encoding="utf-8")
            if gzipped
            else path.open(encoding="utf-8") as handle
        ):
            yield handle
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error


def read_numbers(config: RegressionConfig, data: Path) -> list[Example]:
    """Read a table of sequences and numbers; an empty number was not measured.

    Raises:
        InputError: A column is missing, or a cell is no number or no sequence.
    """
    path = data / str(config.table)
    found = []
    with open_text(path) as handle:
        reader = csv.DictReader(handle, delimiter="\t")
        wanted = (config.sequence, *config.value, *filter(None, [config.fold]))
        missing = [name for name in wanted if name not in (reader.fieldnames or ())]
        if missing:
            known = ", ".join(reader.fieldnames or ())
            raise InputError(f"{path}: no column {missing[0]!r}; it has {known}")
        for line, row in enumerate(reader, 2):
            where = f"{path}: line {line}"
            text = f"{config.left}{_bases(row[config.sequence], where)}{config.right}"
            raw = [_number(row[name], where) for name in config.value]
            values = (np.array(raw) - config.offset) * config.scale
            group = row[config.fold] if config.fold else ""
            found.append(Example(where, to_codes(text), values.astype(np.float32), group))
    return _some(found, path)


def read_labels(
    config: LabelsConfig, length: int, spare: int, home: Path, data: Path
) -> tuple[list[Example], tuple[str, ...]]:
    """Read labelled sequences, and name their classes.

    Args:
        config: The files.
        length: Bases of a window.
        spare: Bases read at each side of it, of a genome.
        home: Folder that folds are relative to.
        data: Folder that the files are relative to.

    Raises:
        InputError: A file is damaged, a label is unknown, or a sequence has none.
    """
    if config.satori is not None:
        rows = _satori(config.satori, data)
    elif config.bed is None:
        rows = _titles(data / str(config.fasta))
    else:
        rows = _bed(config, length + 2 * spare, home, data)
    labels = sorted({x for row in rows for x in row.labels} - {config.negative})
    classes = config.classes or tuple(labels)
    unknown = [x for x in labels if x not in classes]
    if unknown or not classes:
        shown = unknown[0] if unknown else "none"
        raise InputError(
            f"labels: found {shown!r}, known are {', '.join(classes) or 'none'}, and "
            f"{config.negative!r} for none of them"
        )
    found = []
    for row in rows:
        values = np.array([name in row.labels for name in classes], dtype=np.float32)
        if config.exclusive and values.sum() != 1:
            raise InputError(f"{row.name}: {int(values.sum())} classes, wanted one: exclusive")
        found.append(Example(row.name, row.codes, values, row.group))
    return found, classes


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    codes: Codes
    labels: frozenset[str]
    group: str


def _titles(path: Path) -> list[_Row]:
    """Read a FASTA whose titles are NAME LABEL[,LABEL...]; the name is the split's."""
    found = []
    for title, text in _fasta(path):
        name, _, label = title.partition(" ")
        if not label.strip():
            raise InputError(f"{path}: {name}: no label behind the name")
        found.append(_Row(f"{path}: {name}", to_codes(text), _set(label), name))
    return _some(found, path)


def _satori(prefix: str, data: Path) -> list[_Row]:
    """Read SATORI's PREFIX.txt and PREFIX.fa, which have the same rows in the same order.

    A row is contig, start, end, what else there may be, and last its labels, joined by commas.
    """
    table, fasta = data / f"{prefix}.txt", data / f"{prefix}.fa"
    sequences = list(_fasta(fasta))
    with open_text(table) as handle:
        cells = [line.split("\t") for line in handle.read().splitlines() if line.strip()]
    if len(cells) != len(sequences):
        raise InputError(
            f"{table}: {len(cells)} rows, {fasta.name} has {len(sequences)} sequences; wanted one "
            "a row"
        )
    found = []
    for line, (row, (title, text)) in enumerate(zip(cells, sequences, strict=True), 1):
        if len(row) < 4:
            raise InputError(f"{table}: line {line}: {len(row)} columns, wanted 4 or more")
        contig, start, end = row[:3]
        # `bedtools getfasta` writes contig:start-end, and (strand) where it was asked to.
        if title.split("(")[0] not in (f"{contig}:{start}-{end}", "") and ":" in title:
            raise InputError(
                f"{fasta}: sequence {line} is {title}, {table.name} has {contig}:{start}-{end}; "
                "the two must have the same order"
            )
        found.append(_Row(f"{table}: line {line}", to_codes(text), _set(row[-1]), contig))
    return _some(found, table)


def _bed(config: LabelsConfig, length: int, home: Path, data: Path) -> list[_Row]:
    path, genome = str(data / str(config.bed)), Genome(data / str(config.fasta))
    where = _parts(config.split, genome, home)
    found = []
    for row in read_bed(path):
        if len(row.cells) < config.column:
            raise InputError(f"{path}: line {row.line}: no column {config.column}, the label")
        stretch = place(row, genome, path)
        middle = (stretch.start + stretch.end) // 2
        group = where(stretch.chrom, middle)
        if group is None:
            continue
        start = np.array([middle - length // 2], dtype=np.int64)
        codes = genome.windows(stretch.chrom, start, length)[0]
        labels = _set(row.cells[config.column - 1])
        found.append(_Row(f"{path}: line {row.line}", codes.copy(), labels, group))
    return _some(found, Path(path))


class _Parts:
    """Names the group of a place: its contig, or its fold; None where no fold holds it."""

    def __init__(self, split: SplitConfig, genome: Genome, home: Path) -> None:
        self._folds: list[tuple[str, int, int, str]] | None = None
        if split.folds is not None:
            split_genome(split, genome, home)  # refuses what overlaps
            path = str(home / split.folds)
            placed = ((place(row, genome, path), row.name) for row in read_bed(path))
            self._folds = [(x.chrom, x.start, x.end, name) for x, name in placed]

    def __call__(self, contig: str, middle: int) -> str | None:
        if self._folds is None:
            return contig
        inside = (n for c, a, b, n in self._folds if c == contig and a <= middle < b)
        return next(inside, None)


def _parts(split: SplitConfig | None, genome: Genome, home: Path) -> _Parts:
    if split is None:
        raise InputError("supervised.labels.split: missing; a bed needs it")
    return _Parts(split, genome, home)


def _fasta(path: Path) -> Iterator[tuple[str, str]]:
    """Read a FASTA of short sequences, titles whole."""
    title: str | None = None
    parts: list[str] = []
    with open_text(path) as handle:
        for line in handle:
            if line.startswith(">"):
                if title is not None:
                    yield title, "".join(parts)
                title, parts = line[1:].strip(), []
            elif title is not None:
                parts.append(line.strip())
            elif line.strip():
                raise InputError(f"{path}: not a FASTA: its first line does not begin with '>'")
    if title is not None:
        yield title, "".join(parts)


def _set(text: str) -> frozenset[str]:
    return frozenset(x.strip() for x in text.split(",") if x.strip())


def _bases(text: str | None, where: str) -> str:
    found = (text or "").strip().upper()
    if not found or not set(found) <= set("ACGTN"):
        raise InputError(f"{where}: {found[:20]!r} is no sequence of A, C, G, T and N")
    return found


def _number(text: str | None, where: str) -> float:
    if (text or "").strip() in ("", ".", "NA", "nan"):
        return float("nan")
    try:
        return float(text or "")
    except ValueError as error:
        raise InputError(f"{where}: {text!r} is no number") from error


def _some(rows: list[_T], path: Path) -> list[_T]:
    if not rows:
        raise InputError(f"{path}: no sequence in it")
    return rows
