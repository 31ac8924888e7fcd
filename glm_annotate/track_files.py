"""Tracks out: one bigWig or bedGraph a track, all or nothing.

A base has one value or none. Decisions: NaN is no value, neither a zero nor a bridge; an infinity
is refused, since no browser draws it; what lies past the end of a contig is cut. Files get their
names when they are complete, those of a set all at the end.
"""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import stat
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from glm_annotate.errors import InputError, UsageError
from glm_annotate.track_choice import info_names
from glm_annotate.track_sinks import (
    BedGraphSink,
    BigWigSink,
    TrackSink,
    index_bedgraph,
    telling,
)
from glm_annotate.vcf import OutFile, atomic_file, check_output, is_regular

Floats = NDArray[np.float64]

_KINDS = {
    ".bw": "bigWig", ".bigwig": "bigWig",
    ".bedgraph": "bedGraph", ".bg": "bedGraph", ".bdg": "bedGraph",
    ".bedgraph.gz": "packed", ".bg.gz": "packed", ".bdg.gz": "packed",
}  # fmt: skip
_INDEXES = (".tbi", ".csi")
_LARGEST = float(np.finfo(np.float32).max)
_BUFFER = 1 << 16  # values of a file that wait to be written
_LEAST = 1 << 10
_VALUE_BYTES = 16  # of a value that waits: its start and itself
SET_BYTES = 1 << 28  # what waits in all files of a set together: 256 MB
_SPARE_FILES = 64  # descriptors for everything else


def track_kind(path: str) -> str:
    """Say what a name asks for: `bigWig`, `bedGraph` or `packed`, a bgzipped and indexed bedGraph.

    Raises:
        UsageError: Its extension says nothing, or a bigWig is to go to a pipe.
    """
    lower = path.lower()
    kind = next((kind for end, kind in _KINDS.items() if lower.endswith(end)), "")
    if not kind and not is_regular(path):
        return "bedGraph"
    if not kind:
        raise UsageError(
            f"{path}: unknown kind of track; names end in {', '.join(_KINDS)}, and - is bedGraph "
            "to stdout"
        )
    if kind == "bigWig" and not is_regular(path):
        raise UsageError(
            f"{path}: a bigWig cannot be written to a pipe; name a file or a .bedgraph"
        )
    return kind


def is_track_file(path: str) -> bool:
    """Say whether a name is that of one track, and not of a folder of tracks."""
    return path.lower().endswith(tuple(_KINDS)) or not (is_regular(path) or os.path.isdir(path))


class TrackFile(AbstractContextManager["TrackFile"]):
    """One track; use it as a context manager, and `add` values in order.

    Args:
        path: See `track_kind`.
        contigs: Lengths by name, in the order in which values come.
        force: Replace a file that is there.
        name: Of the track, for messages.
        buffer: How many values wait to be written together.

    Raises:
        UsageError: See `track_kind`; or pyBigWig is not installed.
        InputError: The file is there already; from `with` on: it cannot be made or written.
    """

    def __init__(
        self,
        path: str,
        contigs: Mapping[str, int],
        *,
        force: bool,
        name: str = "",
        buffer: int = _BUFFER,
    ) -> None:
        self.path, self.name = path, name or os.path.basename(path)
        self.kind = track_kind(path)
        self._contigs, self._force, self._size = contigs, force, buffer
        self._order = {contig: i for i, contig in enumerate(contigs)}
        check_output(path, force)
        self._last = (-1, 0, "")  # contig's place, end, and what to call it
        self._waiting = ("", 0)  # contig and width of the values that wait
        self._count = 0
        self._temporary = ""
        self._ending = ""  # of the index
        self._stack = ExitStack()

    def __enter__(self) -> TrackFile:
        """Open the file under a temporary name."""
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Complete the file and give it its name, unless something failed."""
        try:
            if kind is None:
                self.seal()
                self.publish()
        finally:
            self.discard()

    def open(self) -> None:
        """Open the file; `discard` is to follow in every case.

        Raises:
            InputError: It cannot be made.
            UsageError: pyBigWig is not installed.
        """
        with ExitStack() as stack:
            self._sink = self._open(stack)
            stack.callback(self._sink.abort)
            self._starts = np.empty(self._size, dtype=np.int64)
            self._values = np.empty(self._size, dtype=self._sink.dtype)
            self._stack = stack.pop_all()

    def add(self, contig: str, start: int, values: Floats, span: int = 1) -> None:
        """Add values of consecutive bins.

        Args:
            contig: Of `contigs`.
            start: 0-based, of the first bin.
            values: Shape (bins,); NaN where there is none.
            span: Bases in a bin; the last bin may run past the end of the contig.

        Raises:
            InputError: A value is infinite or beyond 32 bits, or the file cannot be written.
            ValueError: Bins overlap or come before earlier ones, or lie on no contig.
        """
        end = self._check_place(contig, start, values, span)
        self._check_values(contig, start, values, span)
        whole = min(values.size, max(0, end - start) // span)
        self._put(contig, start, values[:whole], span)
        rest = end - start - whole * span
        if whole < values.size and rest > 0:
            self._put(contig, start + whole * span, values[whole : whole + 1], rest)

    def seal(self) -> None:
        """Complete the file under its temporary name.

        Raises:
            InputError: It cannot be written, or what was written cannot be read again.
        """
        self._flush()
        self._sink.finish()
        if self._temporary and self.kind == "packed":
            self._ending = index_bedgraph(self.path, self._temporary, self._contigs)

    def publish(self) -> None:
        """Give a complete file its name.

        Raises:
            InputError: It cannot be named so.
        """
        if not self._temporary:
            return
        final = os.path.realpath(self.path)
        with telling(self.path):
            if os.path.exists(final):
                os.chmod(self._temporary, stat.S_IMODE(os.stat(final).st_mode))
            os.replace(self._temporary, final)
            if self._ending:
                os.replace(self._temporary + self._ending, final + self._ending)
        if self._ending:
            # htslib would take an older index of the other kind for this file's.
            other = _INDEXES[self._ending == _INDEXES[0]]
            with contextlib.suppress(FileNotFoundError):
                os.unlink(final + other)

    def discard(self) -> None:
        """Remove what has no name yet; nothing after `publish`."""
        self._stack.close()

    def _open(self, stack: ExitStack) -> TrackSink:
        if not is_regular(self.path):
            out = stack.enter_context(atomic_file(self.path))
            return BedGraphSink(out, packed=self.kind == "packed")
        final = os.path.realpath(self.path)
        folder, base = os.path.split(final)
        self._temporary = os.path.join(folder, f".{secrets.token_hex(4)}.{base}")
        with telling(self.path):
            descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        stack.callback(self._remove)
        if self.kind == "bigWig":
            os.close(descriptor)
            return BigWigSink(self.path, self._temporary, self._contigs)
        stack.callback(os.close, descriptor)
        return BedGraphSink(OutFile(self.path, descriptor), packed=self.kind == "packed")

    def _remove(self) -> None:
        for ending in ("", *_INDEXES):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._temporary + ending)

    def _check_place(self, contig: str, start: int, values: Floats, span: int) -> int:
        """Check that bins come in order; returns where they end, at most the contig's length."""
        if contig not in self._order:
            raise ValueError(f"{self.path}: {contig} is no contig of this track")
        if start < 0 or span < 1 or values.ndim != 1:
            raise ValueError(f"{self.path}: {values.shape} bins of {span} from {contig}:{start}")
        end = min(start + values.size * span, self._contigs[contig])
        place = f"{contig}:{start}-{start + values.size * span}"
        order, last, before = self._last
        if (self._order[contig], start) < (order, last):
            raise ValueError(f"{self.path}: {place} comes after {before}")
        if values.size:
            self._last = self._order[contig], start + values.size * span, place
        return end

    def _check_values(self, contig: str, start: int, values: Floats, span: int) -> None:
        wrong = np.flatnonzero(np.abs(values) > _LARGEST)  # False for NaN
        if wrong.size:
            at = start + int(wrong[0]) * span
            raise InputError(
                f"{self.path}: {self.name}: {values[wrong[0]]:g} at {contig}:{at + 1}; tracks hold "
                f"numbers up to {_LARGEST:.3g}; check the model with: glm-annotate models check"
            )

    def _put(self, contig: str, start: int, values: Floats, width: int) -> None:
        known = np.flatnonzero(~np.isnan(values))
        if known.size and self._waiting != (contig, width):
            self._flush()
            self._waiting = contig, width
        done = 0
        while done < known.size:
            part = known[done : done + self._size - self._count]
            new = slice(self._count, self._count + part.size)
            self._starts[new] = start + part * width
            self._values[new] = values[part]
            done += part.size
            self._count += part.size
            if self._count == self._size:
                self._flush()

    def _flush(self) -> None:
        if self._count:
            contig, width = self._waiting
            self._sink.write(
                contig, width, self._starts[: self._count], self._values[: self._count]
            )
            self._count = 0


def open_track(path: str, contigs: Mapping[str, int], *, force: bool, name: str = "") -> TrackFile:
    """Make a file of one track, of the kind that its extension says; see `TrackFile`."""
    return TrackFile(path, contigs, force=force, name=name)


# --- many at once ------------------------------------------------------------------------------


def file_names(names: Sequence[str]) -> tuple[str, ...]:
    """Turn names of tracks into names of files, without extension.

    Raises:
        UsageError: Two become the same, also where upper and lower case are one.
    """
    found: dict[str, str] = {}
    files = [info_names([name])[0] for name in names]
    for name, file in zip(names, files, strict=True):
        if (folded := file.casefold()) in found:
            raise UsageError(
                f"the tracks {found[folded]!r} and {name!r} would both go to a file {file}; choose "
                "one of them with --tracks-file"
            )
        found[folded] = name
    return tuple(files)


class TrackSet(AbstractContextManager["TrackSet"]):
    """Files of several tracks in one folder, which get their names together.

    What waits to be written is `SET_BYTES` in all, at least 16 kB a track.

    Args:
        folder: Made if it is not there.
        names: Of the tracks, in the order of the columns of values.
        contigs: See `TrackFile`.
        force: Replace files that are there.
        extension: See `track_kind`.

    Raises:
        UsageError: Names collide, or there are more tracks than files can be open.
        InputError: A file is there already; from `with` on: one cannot be made or written.
    """

    def __init__(
        self,
        folder: str,
        names: Sequence[str],
        contigs: Mapping[str, int],
        *,
        force: bool,
        extension: str = ".bw",
    ) -> None:
        _check_limit(folder, len(names))
        size = SET_BYTES // _VALUE_BYTES // max(1, len(names))
        self._folder = folder
        self.files = {
            name: TrackFile(
                os.path.join(folder, file + extension), contigs, force=force, name=name,
                buffer=min(_BUFFER, max(_LEAST, size)),
            )
            for name, file in zip(names, file_names(names), strict=True)
        }  # fmt: skip

    def __enter__(self) -> TrackSet:
        """Open all files."""
        with ExitStack() as stack:
            with telling(self._folder):
                if not os.path.isdir(self._folder):
                    os.makedirs(self._folder)
                    stack.callback(self._remove_empty)
            for file in self.files.values():
                file.open()
                stack.callback(file.discard)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Complete all files and only then name them, unless something failed."""
        with self._stack:
            if kind is None:
                for file in self.files.values():
                    file.seal()
                for file in self.files.values():
                    file.publish()

    def add(self, contig: str, start: int, values: Floats, span: int = 1) -> None:
        """Add values of consecutive bins, shape (bins, tracks); see `TrackFile.add`."""
        for column, file in enumerate(self.files.values()):
            file.add(contig, start, values[:, column], span)

    def _remove_empty(self) -> None:
        with contextlib.suppress(OSError):
            os.rmdir(self._folder)


def _check_limit(folder: str, tracks: int) -> None:
    """Check that so many files can be open at once.

    Raises:
        UsageError: They cannot.
    """
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = tracks + _SPARE_FILES
    if limit == resource.RLIM_INFINITY or wanted <= limit:
        return
    raised = most == resource.RLIM_INFINITY or wanted <= most
    more = f", or run before: ulimit -n {wanted}" if raised else ""
    raise UsageError(
        f"{folder}: {tracks:,} tracks are as many files, and this system lets a program open "
        f"{limit:,}; choose at most {max(0, limit - _SPARE_FILES):,} with --track-regex{more}"
    )
