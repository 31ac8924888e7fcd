"""VCF and BCF out: records with INFO extended, as text, BGZF or BCF, all or nothing.

INFO is spliced as text, so every byte that is not ours stays. A regular file appears under its
name only when it is complete; a pipe is written in place, and lacks its end-of-file block after
an error.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from glm_annotate.answers import is_writable
from glm_annotate.bgzf import BcfSink, Bcftools, BgzfSink, PlainSink, Sink
from glm_annotate.chunks import Chunk
from glm_annotate.errors import InputError, UsageError
from glm_annotate.header import Header, KnownKeys, info_keys

_OUTPUT_TYPES = {"v": "text", "z": "bgzipped text", "u": "uncompressed BCF", "b": "BCF"}
_EXTENSIONS = {".vcf": "v", ".vcf.gz": "z", ".vcf.bgz": "z", ".bcf": "bu"}
_DESCRIPTOR = re.compile(r"/dev/(?:fd/(\d+)|stdout|stderr)|/proc/self/fd/(\d+)")
_RESERVED = re.compile(rb"[:;=%,\r\n\t ]")


# --- text of records ---------------------------------------------------------------------------


def splice(
    chunk: Chunk,
    additions: Sequence[bytes],
    *,
    remove: frozenset[bytes] = frozenset(),
    sites_only: bool = False,
) -> list[bytes]:
    """Add text to the INFO column of every record.

    Args:
        chunk: The records.
        additions: What to add to each, `KEY=value;...`; an empty one leaves the line as it is.
        remove: INFO keys that are taken out first (`--overwrite`).
        sites_only: Whether to drop FORMAT and the samples.
    """
    lines, ends, infos = chunk.lines, chunk.ends, chunk.infos
    if remove:
        lines, ends, infos = _without_keys(chunk, remove)
    if sites_only:
        lines = [
            line[:end] + line[len(line.rstrip(b"\r\n")) :]
            for line, end in zip(lines, ends, strict=True)
        ]
    return [
        line
        if not more
        else line[: end - len(info)] + more + line[end:]
        if info in (b".", b"")
        else line[:end] + (b"" if info.endswith(b";") else b";") + more + line[end:]
        for line, end, info, more in zip(lines, ends, infos, additions, strict=True)
    ]


def _without_keys(
    chunk: Chunk, remove: frozenset[bytes]
) -> tuple[list[bytes], list[int], list[bytes]]:
    lines, ends, infos = list(chunk.lines), list(chunk.ends), list(chunk.infos)
    for i, info in enumerate(infos):
        if not any(key in info for key in remove) or remove.isdisjoint(info_keys(info)):
            continue
        kept = [x for x in info.split(b";") if x.partition(b"=")[0] not in remove]
        infos[i] = b";".join(kept) or b"."
        start = ends[i] - len(info)
        lines[i] = lines[i][:start] + infos[i] + lines[i][ends[i] :]
        ends[i] = start + len(infos[i])
    return lines, ends, infos


def format_floats(values: NDArray[np.float64]) -> list[bytes]:
    """Write numbers with at most 6 significant digits, what a 32-bit float cannot hold as `.`."""
    if values.size == 0:
        return []
    flat = np.asarray(values, dtype=np.float64).ravel() + 0.0  # -0 becomes 0
    good = is_writable(flat)
    out = (("%.6g " * flat.size) % tuple(np.where(good, flat, 0.0).tolist())).encode().split()
    for i in np.flatnonzero(~good):
        out[i] = b"."
    return out


def percent_encode(text: str) -> bytes:
    """Encode what would end or split a value of INFO."""
    return _RESERVED.sub(lambda match: b"%%%02X" % match[0][0], text.encode("utf-8"))


# --- files -------------------------------------------------------------------------------------


class OutFile:
    """Unbuffered binary output; a full disk is an InputError, a closed pipe a BrokenPipeError."""

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self._descriptor = descriptor

    def write(self, data: bytes) -> None:
        """Write all of `data`."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BrokenPipeError:
                raise
            except OSError as error:
                raise InputError(f"{self.name}: cannot be written: {error.strerror}") from error


def is_regular(path: str | None) -> bool:
    """Tell whether an output is a file that can appear all at once, not a pipe or a device."""
    if path in (None, "-") or _DESCRIPTOR.fullmatch(str(path)):
        return False
    try:
        return stat.S_ISREG(os.stat(str(path)).st_mode)
    except OSError:
        return True  # to be made, or to be refused when opened


@contextlib.contextmanager
def atomic_file(
    path: str | None, *, force: bool = False, source: str | None = None
) -> Iterator[OutFile]:
    """Open an output that is there complete or not at all.

    A regular file gets its name when the block ends without an error. Anything else (stdout for
    None or "-", a FIFO, a device, `/dev/fd/N`) is written in place.

    Args:
        path: Where to write.
        force: Whether an existing file is replaced.
        source: The input, which is never replaced.

    Raises:
        InputError: The file exists, is the input, or cannot be made or written.
    """
    name = "stdout" if path in (None, "-") else str(path)
    if not is_regular(path):
        descriptor = _open_in_place(name, path)
        try:
            yield OutFile(name, descriptor)
        finally:
            os.close(descriptor)
        return
    final = os.path.realpath(name)
    existing = _existing(name, final, force, source)
    hidden = f".{os.path.basename(final)}.{secrets.token_hex(4)}.tmp"
    temporary = os.path.join(os.path.dirname(final), hidden)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError as error:
        raise InputError(f"{name}: cannot be made: {error.strerror}; name another -o") from error
    try:
        try:
            yield OutFile(name, descriptor)
        finally:
            os.close(descriptor)
        try:
            if existing is not None:
                os.chmod(temporary, stat.S_IMODE(existing.st_mode))
            os.replace(temporary, final)
        except OSError as error:
            raise InputError(f"{name}: cannot be named so: {error.strerror}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def check_output(path: str | None, force: bool, source: str | None = None) -> None:
    """Say early that an output cannot be made: see `atomic_file`.

    Raises:
        InputError: It exists, or is the input.
    """
    if is_regular(path):
        _existing(str(path), os.path.realpath(str(path)), force, source)


def _open_in_place(name: str, path: str | None) -> int:
    match = _DESCRIPTOR.fullmatch(name) if path not in (None, "-") else None
    numbered = match and (match[1] or match[2])
    try:
        if match or path in (None, "-"):
            # A copy of the descriptor: opening /dev/fd/N would truncate a redirected file.
            return os.dup(int(numbered) if numbered else 2 if name.endswith("stderr") else 1)
        return os.open(name, os.O_WRONLY)
    except OSError as error:
        raise InputError(f"{name}: cannot be written: {error.strerror}; name another -o") from error


def _existing(name: str, final: str, force: bool, source: str | None) -> os.stat_result | None:
    try:
        existing = os.stat(final)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{name}: cannot be made: {error.strerror}; name another -o") from error
    if source is not None and os.path.exists(source) and os.path.samefile(source, final):
        raise InputError(f"{name}: is the input itself; name another -o")
    if not force:
        raise InputError(f"{name}: is there already; --force replaces it")
    return existing


# --- the writer --------------------------------------------------------------------------------


def output_type(path: str | None, given: str | None) -> str:
    """Say which of v, z, u, b to write, from `-O` or else the extension.

    Raises:
        UsageError: `-O` is none of them or contradicts the extension.
    """
    if given is not None and given not in _OUTPUT_TYPES:
        known = ", ".join(f"{x} ({what})" for x, what in _OUTPUT_TYPES.items())
        raise UsageError(f"-O {given}: unknown output type; known are {known}")
    implied = next((t for x, t in _EXTENSIONS.items() if path and path.endswith(x)), "")
    if given and implied and given not in implied:
        raise UsageError(
            f"-O {given} ({_OUTPUT_TYPES[given]}) contradicts the name {path}; leave out -O or "
            "change the name"
        )
    return given or implied[:1] or "v"


def check_index(path: str | None, kind: str, index: str | None) -> None:
    """Check that an output can have the index asked for.

    Raises:
        UsageError: It cannot.
    """
    if index is None:
        return
    if index not in ("csi", "tbi"):
        raise UsageError(f"-W={index}: unknown index; known are csi and tbi")
    if kind not in "zb" or not is_regular(path):
        raise UsageError(
            "-W: only a file written with -O z or -O b can be indexed; name it with -o"
        )
    if kind == "b" and index == "tbi":
        raise UsageError("-W=tbi: BCF has no tbi index; use -W or -O z")


class VcfWriter:
    """Writes a header and lines of records; use it as a context manager.

    Args:
        path: Where to write; None or "-" is stdout.
        kind: v, z, u or b, see `output_type`.
        header: Header lines without endings, the "#CHROM" line last.
        newline: The header's line ending.
        force: Whether an existing file is replaced.
        source: The input's path, which is never replaced.
        index: csi or tbi to make an index beside the finished file.
        threads: Threads that compress (z).

    Raises:
        UsageError: The output cannot have this index.
        InputError: From `with` on: the output cannot be made, written, or turned into BCF.
    """

    def __init__(
        self,
        path: str | None,
        kind: str,
        header: Header,
        *,
        newline: bytes = b"\n",
        force: bool = False,
        source: str | None = None,
        index: str | None = None,
        threads: int = 0,
    ) -> None:
        check_index(path, kind, index)
        self._path = path
        self._kind = kind
        self._header = header
        self._newline = newline
        self._file = atomic_file(path, force=force, source=source)
        self._index = index
        self._threads = threads
        name = "stdin" if source in (None, "-") else str(source)
        self._known = KnownKeys(header, name) if kind in "ub" else None
        self._written = 0

    def __enter__(self) -> VcfWriter:
        with contextlib.ExitStack() as stack:
            out = stack.enter_context(self._file)
            self._sink = self._open_sink(out)
            stack.push(self._end)
            self._sink.write(b"".join(line + self._newline for line in self._header))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        if kind is None and self._index is not None:
            _make_index(str(self._path), self._index)

    def write(self, lines: list[bytes]) -> None:
        """Write lines, each with its ending.

        Raises:
            InputError: The output cannot be written, or BCF cannot hold a record.
        """
        if self._known is not None:
            self._known.check(lines, self._written)
        self._written += len(lines)
        self._sink.write(b"".join(lines))

    def _open_sink(self, out: OutFile) -> Sink:
        if self._kind == "v":
            return PlainSink(out.write)
        if self._kind == "z":
            return BgzfSink(out.write, self._threads)
        return BcfSink(out.write, out.name, self._kind)

    def _end(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        finished = False
        try:
            if kind is None:
                self._sink.finish()
                finished = True
        finally:
            if not finished:
                self._sink.abort()


def _make_index(path: str, index: str) -> None:
    option = "-c" if index == "csi" else "-t"
    with contextlib.closing(Bcftools(["index", "-f", option, path], feed=False)) as child:
        if reason := child.reason():
            raise InputError(
                f"{path}: written, but not indexed: {reason}; "
                f"run: bcftools sort -Ob -W -o sorted.bcf {path}"
            )
