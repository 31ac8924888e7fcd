"""What tracks are written as: bigWig through pyBigWig, and bedGraph as text or BGZF with an index.

pyBigWig takes NaN, values past the end of a contig and a full disk without a word, or ends the
process. So values come here checked (see `track_files`), room on the disk is looked at before every
write, and a finished bigWig is read again before it gets its name.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from glm_annotate.bgzf import BgzfSink, PlainSink
from glm_annotate.errors import InputError, UsageError
from glm_annotate.vcf import OutFile

Ints = NDArray[np.int64]
Floats = NDArray[Any]

_RUN = 256  # values from which a block of their own costs less than a position for each of them
_READ = 1 << 16  # values that are read again at a time
_SUMMARY = 44  # where a bigWig says where its summary is
_SLACK = 1 << 22  # bytes that stay free
_TBI_LIMIT = 1 << 29  # bases that a tbi index can address


class TrackSink(Protocol):
    """Where the values of a track go, in order; `finish` or `abort` is called once, at the end."""

    dtype: type[np.floating[Any]]

    def write(self, contig: str, width: int, starts: Ints, values: Floats) -> None:
        """Write values (n,) for the bases from `starts` (n,), `width` of them each."""

    def finish(self) -> None:
        """Complete the file.

        Raises:
            InputError: It cannot be written.
        """

    def abort(self) -> None:
        """Let go of the file as it is; no harm after `finish`."""


# --- bigWig ------------------------------------------------------------------------------------


class BigWigSink:
    """Writes a bigWig.

    Args:
        name: The file, for messages.
        path: Where it is written; an empty file that is there already.
        contigs: Lengths by name.

    Raises:
        UsageError: pyBigWig is not installed.
    """

    dtype: type[np.floating[Any]] = np.float32

    def __init__(self, name: str, path: str, contigs: Mapping[str, int]) -> None:
        self._name, self._path = name, path
        self._contigs = contigs
        self._library = _pybigwig(name)
        self._file: Any = self._library.open(path, "w")
        # Zoom levels as the library chooses: without any, some browsers draw nothing.
        self._file.addHeader(list(contigs.items()))
        self._extents: list[tuple[str, int, int, int]] = []  # contig, start, end, values
        self._ends: dict[str, list[float]] = {}
        self._range = (math.inf, -math.inf)

    def write(self, contig: str, width: int, starts: Ints, values: Floats) -> None:
        """Write values: long runs without positions, what lies between them with positions."""
        _check_room(self._name, self._path, 2 * (starts.nbytes + values.nbytes))
        edges = np.flatnonzero(np.diff(starts) != width) + 1
        bounds = np.concatenate(([0], edges, [starts.size]))
        done = 0
        for run in np.flatnonzero(np.diff(bounds) >= _RUN).tolist():
            first, last = int(bounds[run]), int(bounds[run + 1])
            self._scattered(contig, width, starts[done:first], values[done:first])
            self._run(contig, width, int(starts[first]), values[first:last])
            done = last
        if done == 0 and not edges.size:
            self._run(contig, width, int(starts[0]), values)
        else:
            self._scattered(contig, width, starts[done:], values[done:])
        self._note(contig, width, starts, values)

    def finish(self) -> None:
        """Close the file and compare what it holds with what was written."""
        self.abort()
        self._mend_range()
        try:
            found = self._library.open(self._path)
        except RuntimeError as error:
            raise self._broken() from error
        try:
            self._compare(found)
        finally:
            found.close()

    def abort(self) -> None:
        """Close the file; the library completes it, or leaves it unreadable."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _run(self, contig: str, width: int, start: int, values: Floats) -> None:
        self._file.addEntries(contig, start, values=values, span=width, step=width)

    def _scattered(self, contig: str, width: int, starts: Ints, values: Floats) -> None:
        if starts.size:
            self._file.addEntries(contig, starts, values=values, span=width)

    def _note(self, contig: str, width: int, starts: Ints, values: Floats) -> None:
        """Remember where values are, so that they can be counted in the file."""
        first, last, count = int(starts[0]), int(starts[-1]) + width, starts.size
        if self._extents:
            name, start, _, before = self._extents[-1]
            if name == contig and before + count <= _READ:
                first, count = start, before + count
                self._extents.pop()
        self._extents.append((contig, first, last, count))
        self._ends.setdefault(contig, [float(values[0]), 0.0])[1] = float(values[-1])
        low, high = self._range
        self._range = min(low, float(values.min())), max(high, float(values.max()))

    def _mend_range(self) -> None:
        """Put the smallest and largest value into the file's summary.

        The library does not take a new smallest value for the largest, even if it is the only one.
        """
        low, high = self._range
        with open(self._path, "r+b") as handle:
            handle.seek(_SUMMARY)
            summary = int.from_bytes(handle.read(8), "little")
            if low <= high and summary:
                handle.seek(summary + 8)  # after the number of bases
                handle.write(struct.pack("<dd", low, high))

    def _compare(self, found: Any) -> None:
        # Zoom levels are written last. Asking the library for them ends the process where squares
        # of values overflow.
        with open(self._path, "rb") as handle:
            levels = int.from_bytes(handle.read(8)[6:], "little")
        if self._extents and not levels:
            raise self._broken()
        ends: dict[str, list[float]] = {}
        for contig, start, end, count in self._extents:
            try:
                entries: Any = found.intervals(contig, start, end) or ()
            except RuntimeError as error:
                raise self._broken() from error
            if len(entries) != count:
                raise self._broken()
            ends.setdefault(contig, [entries[0][2], 0.0])[1] = entries[-1][2]
        if ends != self._ends or found.chroms() != dict(self._contigs):
            raise self._broken()

    def _broken(self) -> InputError:
        return InputError(
            f"{self._name}: what was written cannot be read again (disk full?); "
            f"df -h {os.path.dirname(self._path) or '.'} shows the room, another -o is elsewhere"
        )


def _pybigwig(name: str) -> Any:
    try:
        import pyBigWig
    except ImportError as error:
        raise UsageError(
            f"{name}: bigWig needs pyBigWig; run: pip install pyBigWig, or name a .bedgraph.gz"
        ) from error
    return pyBigWig


def _check_room(name: str, path: str, wanted: int) -> None:
    """Check that some more bytes can be written; the library ends the process if they cannot.

    Raises:
        InputError: The disk is full, or the system's limit of a file's size is near.
    """
    disk = os.statvfs(os.path.dirname(path) or ".")
    room, what = disk.f_bavail * disk.f_frsize, "left on the disk"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY and limit - os.path.getsize(path) < room:
        room, what = limit - os.path.getsize(path), "left under the limit of ulimit -f"
    if room < wanted + _SLACK:
        raise InputError(
            f"{name}: cannot be written: {max(room, 0) >> 20} MB {what}, up to "
            f"{(wanted + _SLACK >> 20) + 1} MB needed; make room or name another -o"
        )


# --- bedGraph ----------------------------------------------------------------------------------


class BedGraphSink:
    """Writes a bedGraph: a line a value, neighbours that read the same joined.

    Args:
        out: Where bytes go.
        packed: Whether they are compressed to BGZF.
    """

    dtype: type[np.floating[Any]] = np.float64

    def __init__(self, out: OutFile, *, packed: bool) -> None:
        self._sink = BgzfSink(out.write) if packed else PlainSink(out.write)
        self._open: tuple[str, int, int, str] | None = None  # a line that may still grow

    def write(self, contig: str, width: int, starts: Ints, values: Floats) -> None:
        """Write values with 6 significant digits."""
        texts = (("%.6g " * values.size) % tuple((values + 0.0).tolist())).split()
        lines: list[str] = []
        held = self._open
        for start, text in zip(starts.tolist(), texts, strict=True):
            if held is not None:
                if held[2] == start and held[3] == text and held[0] == contig:
                    held = contig, held[1], start + width, text
                    continue
                lines.append(_line(held))
            held = contig, start, start + width, text
        self._open = held
        self._sink.write("".join(lines).encode())

    def finish(self) -> None:
        """Write the last line and what BGZF ends with."""
        if self._open is not None:
            self._sink.write(_line(self._open).encode())
        self._sink.finish()

    def abort(self) -> None:
        """Leave out the end."""
        self._sink.abort()


def _line(fields: tuple[str, int, int, str]) -> str:
    return "{}\t{}\t{}\t{}\n".format(*fields)


def index_bedgraph(name: str, path: str, contigs: Mapping[str, int]) -> str:
    """Make the index of a bgzipped bedGraph, beside it.

    Returns:
        What its name adds to the file's: `.tbi`, or `.csi` where a contig is too long for that.

    Raises:
        InputError: It cannot be made.
    """
    import pysam

    csi = max(contigs.values(), default=0) >= _TBI_LIMIT
    ending = ".csi" if csi else ".tbi"
    try:
        pysam.tabix_index(
            path, force=True, seq_col=0, start_col=1, end_col=2, zerobased=True, csi=csi,
            index=path + ending, keep_original=True,
        )  # fmt: skip
    except OSError as error:
        raise InputError(f"{name}: the index cannot be made: {error}; name another -o") from error
    return ending


# --- names -------------------------------------------------------------------------------------


@contextlib.contextmanager
def telling(name: str) -> Iterator[None]:
    """Turn an error of the system about an output into one of ours."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{name}: cannot be made: {error.strerror}; name another -o") from error
