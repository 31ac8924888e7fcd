"""Values of tracks along a genome, kept in cells of a few bases in one memory-mapped array.

A bigWig or BED is read once, contig by contig; what it gives lies in the run's folder under a name
that holds a hash of the files and settings, so that a second run, or a resumed one, maps the same
file. Only contigs that are trained on or measured are read. Cells hold sums of bases (or maxima),
from which a bin at any multiple of the cell is made exactly. A base without a value counts 0, a
base of the blacklist makes its cell NaN.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm_annotate.beds import place, read_bed
from glm_annotate.errors import InputError
from glm_annotate.genome import Genome, Interval, aliases
from glm_annotate.track_transforms import NO_TRANSFORM, Transforms, parse_transform, transforms_of
from glm_annotate.train.supervised.config import ArraysConfig, TrackConfig

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]
Values = NDArray[np.float32]
_PIECE = 1 << 22  # bases read at a time
_ENDS = 1 << 20  # bytes at both ends of a file that its hash is of


@dataclass(frozen=True, slots=True)
class Store:
    """Values of tracks.

    Attributes:
        cells: Shape (cells, tracks), of all contigs end to end.
        first: Place of each contig's first cell.
        count: Cells of each contig; a last one that is not full is left out.
        resolution: Bases of a cell.
        ready: Whether a cell is a bin that has been transformed already.
        known: Stretches that have targets, where not all of a contig has.
    """

    cells: NDArray[np.float32]
    first: dict[str, int]
    count: dict[str, int]
    resolution: int
    ready: bool = False
    known: dict[str, Interval] | None = None

    def read(self, contig: str, cell: int, cells: int) -> Values:
        """Read cells of a contig, (cells, tracks), NaN past its ends."""
        out = np.full((cells, self.cells.shape[1]), np.nan, dtype=np.float32)
        low, high = max(cell, 0), min(cell + cells, self.count[contig])
        if low < high:
            begin = self.first[contig]
            out[low - cell : high - cell] = self.cells[begin + low : begin + high]
        return out


class Bins:
    """What becomes of the cells of bins: one number, squashed, clipped."""

    def __init__(self, tracks: Sequence[TrackConfig], size: int, resolution: int) -> None:
        """Make it for bins of `size` bases.

        Raises:
            InputError: A track's settings contradict each other.
        """
        self.size, self.several = size, size // resolution
        self.maximum = np.array([x.sum_stat.startswith("max") for x in tracks])
        self.mean = np.array([x.sum_stat.startswith("mean") for x in tracks])
        self.clip = np.array([np.inf if x.clip is None else x.clip for x in tracks])
        self.log = np.array([x.log1p for x in tracks])
        self.transforms: Transforms = transforms_of(
            [NO_TRANSFORM if x.version == "none" else transform_of(x) for x in tracks],
            [x.clip_soft for x in tracks],
            [x.scale for x in tracks],
        )
        old = np.array([x.version == "old" for x in tracks])
        # The old order clips before it scales.
        self.clip = np.where(old, self.clip * self.transforms.scale, self.clip)

    def make(self, cells: Values) -> Values:
        """Turn cells (bins x several, tracks) into bins (bins, tracks)."""
        parts = cells.reshape(-1, self.several, cells.shape[1]).astype(np.float64)
        values = np.where(self.maximum, parts.max(1), parts.sum(1))
        values = np.where(self.mean, values / self.size, values)
        return self.squash(values)

    def squash(self, values: Floats) -> Values:
        """Transform the numbers of bins as baskerville does: scale, root, soft clip, hard clip."""
        out = np.clip(self.transforms.apply(values), -self.clip, self.clip)
        with np.errstate(invalid="ignore"):
            return np.where(self.log, np.log1p(out), out).astype(np.float32)


def transform_of(track: TrackConfig) -> Any:
    """Give a track's transform as tracks.tsv has it.

    Raises:
        InputError: Its version does not know its statistic, or `none` is asked to squash.
    """
    where = f"track {track.identifier!r}"
    if track.version == "none":
        if track.scale != 1 or track.clip_soft is not None or "_" in track.sum_stat:
            raise InputError(
                f"{where}: version none has no scale, clip_soft or root; leave version out"
            )
        return NO_TRANSFORM
    try:
        return parse_transform(f"{track.version}:{track.sum_stat}")
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def store(
    genome: Genome,
    contigs: Sequence[str],
    tracks: Sequence[TrackConfig],
    *,
    data: Path,
    folder: Path,
    resolution: int,
    blacklist: Path | None = None,
) -> Store:
    """Read the files of tracks, or map what an earlier run has read.

    Args:
        genome: The genome.
        contigs: Of it, those that are read; no other is looked at.
        tracks: Their files.
        data: Folder that the files are relative to.
        folder: Where the array goes.
        resolution: Bases of a cell.
        blacklist: BED of bases without targets.

    Raises:
        InputError: A file is missing, of another assembly, or damaged.
    """
    count = {name: genome.contigs[name] // resolution for name in contigs}
    starts = np.cumsum([0, *count.values()]).tolist()
    first = dict(zip(contigs, starts, strict=False))
    path = folder / f"targets.{_digest(genome, contigs, tracks, data, resolution, blacklist)}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _fill(path, genome, first, count, tracks, data, resolution, blacklist)
    return Store(np.load(path, mmap_mode="r"), first, count, resolution)


def from_arrays(
    arrays: ArraysConfig,
    tracks: Sequence[TrackConfig],
    genome: Genome,
    contigs: Sequence[str],
    *,
    data: Path,
    size: int,
) -> Store:
    """Take targets of windows out of an npz; each lies in the middle of its sequence.

    Args:
        arrays: The file and its arrays.
        tracks: Which columns; None: its place.
        genome: A sequence a window.
        contigs: Those that are read; targets of others are not looked at.
        data: Folder that the file is relative to.
        size: Bases of a bin.

    Raises:
        InputError: The file lacks an array, a contig or a column, or its shape does not fit.
    """
    path = data / arrays.file
    try:
        with np.load(path, allow_pickle=False) as opened:
            names = [str(x) for x in opened[arrays.contigs]]
            targets = opened[arrays.targets]
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as arrays of targets: {error}") from error
    columns = [i if x.column is None else x.column for i, x in enumerate(tracks)]
    if targets.ndim != 3 or len(names) != len(targets) or max(columns) >= targets.shape[2]:
        raise InputError(
            f"{path}: {arrays.targets} has the shape {targets.shape}; wanted {len(names)} windows, "
            f"bins, and more than {max(columns)} tracks"
        )
    bins = targets.shape[1]
    cells, first, count, known = [], {}, {}, {}
    begin = 0
    for contig in contigs:
        if contig not in names:
            raise InputError(f"{path}: no window {contig!r}, which is in the FASTA and the split")
        spare = genome.contigs[contig] - bins * size
        if spare < 0 or spare % (2 * size):
            raise InputError(
                f"{path}: {contig} has {genome.contigs[contig]} bases, and {bins} bins of {size} "
                "do not lie in their middle"
            )
        edge = spare // (2 * size)
        own = np.full((bins + 2 * edge, len(columns)), np.nan, dtype=np.float32)
        own[edge : edge + bins] = targets[names.index(contig)][:, columns]
        cells.append(own)
        first[contig], count[contig] = begin, len(own)
        known[contig] = Interval(contig, edge * size, (edge + bins) * size)
        begin += len(own)
    return Store(np.concatenate(cells), first, count, size, ready=True, known=known)


def _digest(
    genome: Genome,
    contigs: Sequence[str],
    tracks: Sequence[TrackConfig],
    data: Path,
    resolution: int,
    blacklist: Path | None,
) -> str:
    """Hash what the array is made of; of a file its size and both its ends."""
    nameless = next((x.identifier for x in tracks if not x.file), None)
    if nameless is not None:
        raise InputError(f"track {nameless!r}: no file; name a bigWig or BED")
    files = [(x.file, x.bed, x.sum_stat.partition("_")[0] == "max") for x in tracks]
    sizes = {name: genome.contigs[name] for name in contigs}
    found = hashlib.sha256(json.dumps([files, sizes, resolution]).encode())
    paths = [data / file for file in dict.fromkeys(x.file for x in tracks)]
    for path in (*paths, *filter(None, [blacklist])):
        try:
            with open(path, "rb") as handle:
                size = handle.seek(0, os.SEEK_END)
                found.update(str(size).encode())
                for place_ in (0, max(0, size - _ENDS)):
                    handle.seek(place_)
                    found.update(handle.read(_ENDS))
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return found.hexdigest()[:16]


def _fill(
    path: Path,
    genome: Genome,
    first: dict[str, int],
    count: dict[str, int],
    tracks: Sequence[TrackConfig],
    data: Path,
    resolution: int,
    blacklist: Path | None,
) -> None:
    shape = (sum(count.values()), len(tracks))
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    cells = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
    logger.info("read %d tracks into %s", len(tracks), path.name)
    for column, track in enumerate(tracks):
        source = _open(track, data, genome)
        for contig, begin in first.items():
            end = count[contig] * resolution
            step = _PIECE // resolution * resolution or resolution
            for start in range(0, end, step):
                stop = min(start + step, end)
                values = source.read(contig, start, stop).reshape(-1, resolution)
                made = values.max(1) if track.sum_stat.startswith("max") else values.sum(1)
                at = begin + start // resolution
                cells[at : at + len(made), column] = made
    for row in read_bed(str(blacklist)) if blacklist else ():
        stretch = place(row, genome, str(blacklist))
        if stretch.chrom in first:
            low, high = stretch.start // resolution, -(-stretch.end // resolution)
            begin = first[stretch.chrom]
            cells[begin + low : begin + min(high, count[stretch.chrom])] = np.nan
    cells.flush()
    os.replace(temporary, path)


class _BigWig:
    """Values of a bigWig, base by base."""

    def __init__(self, path: Path, genome: Genome) -> None:
        import pyBigWig

        self.path, self._genome = path, genome
        try:
            self._file = pyBigWig.open(str(path))
        except RuntimeError as error:
            raise InputError(f"{path}: not a bigWig, or damaged; copy it again") from error
        self._lengths: dict[str, int] = self._file.chroms() or {}

    def read(self, contig: str, start: int, end: int) -> Floats:
        name = next((x for x in (contig, *aliases(contig)) if x in self._lengths), None)
        size = self._genome.contigs[contig]
        if name is None or self._lengths[name] != size:
            found = "no such contig" if name is None else f"{self._lengths[name]:,} bases"
            raise InputError(
                f"{self.path}: {contig} of {size:,} bases: found {found}; give the bigWig of this "
                "assembly, or leave the contig out of the split"
            )
        values = np.asarray(self._file.values(name, start, end, numpy=True), dtype=np.float64)
        return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


class _Bed:
    """What a BED gives each base."""

    def __init__(self, path: Path, genome: Genome, mode: str) -> None:
        self._mode = mode
        rows: dict[str, list[tuple[int, int, float]]] = {}
        for row in read_bed(str(path)):
            stretch = place(row, genome, str(path))
            score = _score(row.cells, f"{path}: line {row.line}") if mode == "score" else 1.0
            rows.setdefault(stretch.chrom, []).append((stretch.start, stretch.end, score))
        self._rows = {name: np.array(sorted(x, key=lambda y: y[2])) for name, x in rows.items()}

    def read(self, contig: str, start: int, end: int) -> Floats:
        out = np.zeros(end - start)
        rows = self._rows.get(contig)
        if rows is None:
            return out
        rows = rows[(rows[:, 0] < end) & (rows[:, 1] > start)]
        low = (np.clip(rows[:, 0], start, end) - start).astype(np.int64)
        high = (np.clip(rows[:, 1], start, end) - start).astype(np.int64)
        if self._mode == "score":
            for a, b, score in zip(low, high, rows[:, 2], strict=True):
                out[a:b] = score  # rows are in the order of their scores
            return out
        if self._mode == "ends":
            for places in (rows[:, 0], rows[:, 1] - 1):
                inside = places[(places >= start) & (places < end)].astype(np.int64) - start
                out += np.bincount(inside, minlength=out.size)
            return out
        edges = np.bincount(low, minlength=out.size + 1) - np.bincount(high, minlength=out.size + 1)
        covered = np.cumsum(edges)[:-1].astype(np.float64)
        return np.minimum(covered, 1) if self._mode == "presence" else covered


def _score(cells: Sequence[str], where: str) -> float:
    try:
        return float(cells[4])
    except (IndexError, ValueError) as error:
        raise InputError(f"{where}: no number in the fifth column, the score") from error


def _open(track: TrackConfig, data: Path, genome: Genome) -> _BigWig | _Bed:
    path = data / track.file
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if kind in ("bw", "bigwig", "bigw"):
        return _BigWig(path, genome)
    if kind in ("bed", "narrowpeak", "broadpeak", "bed6"):
        return _Bed(path, genome, track.bed)
    raise InputError(f"{path}: wanted a .bw, .bigWig, .bed or .narrowPeak, plain or gzipped BED")
