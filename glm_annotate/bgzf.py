"""Compressed bytes: gzip and BGZF in, BGZF out, and BCF through htslib in a child process.

Reading checks every CRC and the end-of-file block, on files and on pipes: half a file must not
pass for a small one. Writing puts the end-of-file block last and only when all went well, so that
whoever reads our output can tell as well.
"""

from __future__ import annotations

import contextlib
import logging
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, Protocol

from glm_annotate.errors import InputError

logger = logging.getLogger(__name__)

READ_BYTES = 1 << 20
EOF_BLOCK = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
GZIP_MAGIC = b"\x1f\x8b"
_HEADER = 18  # bytes of a BGZF block before its data
_PAYLOAD = 0xFF00  # bytes of text in a block, as htslib cuts it
_GROUP = 16  # blocks, a mebibyte of text
_LEVEL = 6


def is_bgzf(head: bytes) -> bool:
    """Tell whether these first bytes of a file (18 or more) start a BGZF block."""
    return head[:4] == b"\x1f\x8b\x08\x04" and _block_size(head) > 0


def _block_size(head: bytes, at: int = 0) -> int:
    """Size of the block that starts at `at`, 0 if it is no BGZF block."""
    if head[at : at + 4] != b"\x1f\x8b\x08\x04" or len(head) < at + _HEADER:
        return 0
    # Nearly always the only extra field; others may stand before it.
    field, end = at + 12, at + 12 + int.from_bytes(head[at + 10 : at + 12], "little")
    while field + 6 <= end:
        size = int.from_bytes(head[field + 2 : field + 4], "little")
        if head[field : field + 2] == b"BC" and size == 2:
            return int.from_bytes(head[field + 4 : field + 6], "little") + 1
        field += 4 + size
    return 0


def pieces(name: str, handle: BinaryIO) -> Iterator[bytes]:
    """Read an unbuffered binary file to its end; on a pipe a piece is what is there.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        while piece := handle.read(READ_BYTES):
            yield piece
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from error


def _inflate(block: bytes) -> bytes:
    return zlib.decompress(block, 31, max(1, int.from_bytes(block[-4:], "little")))


def damaged(name: str, what: str) -> InputError:
    """Make the error for compressed data that cannot be read to its end."""
    return InputError(f"{name}: truncated or damaged: {what}; fetch or write the file again")


def inflate_bgzf(name: str, raw: Iterator[bytes], threads: int = 0) -> Iterator[bytes]:
    """Decompress BGZF.

    Raises:
        InputError: A block is cut or damaged, or the end-of-file block is missing.
    """
    held, last = b"", b""
    with ThreadPoolExecutor(threads) if threads > 1 else contextlib.nullcontext() as pool:
        for piece in raw:
            held += piece
            at, blocks = 0, []
            while len(held) - at >= _HEADER:
                size = _block_size(held, at)
                if not size:
                    raise damaged(name, "bytes that are no BGZF block")
                if len(held) - at < size:
                    break
                blocks.append(held[at : at + size])
                at += size
            held, last = held[at:], blocks[-1] if blocks else last
            # In groups: a piece may come out fifty times as large.
            for i in range(0, len(blocks), _GROUP):
                try:
                    yield b"".join((pool.map if pool else map)(_inflate, blocks[i : i + _GROUP]))
                except zlib.error as error:
                    raise damaged(name, str(error)) from error
    if held or last != EOF_BLOCK:
        raise damaged(name, "it ends inside a block" if held else "no BGZF end-of-file block")


def inflate_gzip(name: str, raw: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress plain gzip, members one after another.

    Raises:
        InputError: The data is cut or damaged.
    """
    member = zlib.decompressobj(31)
    for piece in raw:
        data = piece
        while data:
            if member.eof:
                data = data.lstrip(b"\0")  # padding that tape drives left
                if not data:
                    break
                member = zlib.decompressobj(31)
            try:
                # Bounded: a piece of zeros would otherwise come out a thousand times as large.
                yield member.decompress(data, READ_BYTES)
            except zlib.error as error:
                raise damaged(name, str(error)) from error
            data = member.unused_data if member.eof else member.unconsumed_tail
    if not member.eof:
        raise damaged(name, "it ends inside the gzip data")


class Sink(Protocol):
    """Where encoded bytes go; `finish` or `abort` is called once, at the end."""

    def write(self, data: bytes) -> None: ...

    def finish(self) -> None: ...

    def abort(self) -> None: ...


class PlainSink:
    """Passes bytes on as they are."""

    def __init__(self, put: Callable[[bytes], None]) -> None:
        self.write = put

    def finish(self) -> None:
        """Nothing is held back."""

    def abort(self) -> None:
        """Nothing to take back."""


def deflate_block(data: bytes) -> bytes:
    """Compress at most 65,280 bytes into one BGZF block."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -15)
    body = packer.compress(data) + packer.flush()
    if len(body) + 26 > 1 << 16:  # incompressible: stored
        packer = zlib.compressobj(0, zlib.DEFLATED, -15)
        body = packer.compress(data) + packer.flush()
    head = EOF_BLOCK[:16] + struct.pack("<H", len(body) + 25)
    return head + body + struct.pack("<II", zlib.crc32(data), len(data))


class BgzfSink:
    """Compresses into BGZF; the same bytes come out for any number of threads."""

    def __init__(self, put: Callable[[bytes], None], threads: int = 0) -> None:
        self._put = put
        self._held = b""
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def write(self, data: bytes) -> None:
        """Compress all full blocks of what was written so far."""
        data = self._held + data
        full = len(data) - len(data) % _PAYLOAD
        blocks = [data[at : at + _PAYLOAD] for at in range(0, full, _PAYLOAD)]
        self._held = data[full:]
        for block in (self._pool.map if self._pool else map)(deflate_block, blocks):
            self._put(block)

    def finish(self) -> None:
        """Write the rest and the end-of-file block."""
        if self._held:
            self._put(deflate_block(self._held))
        self._put(EOF_BLOCK)
        self.abort()

    def abort(self) -> None:
        """Leave the output without its end-of-file block."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)


# htslib writes its log to stderr and bcftools its last words into the exception.
_CHILD = """
import sys
from pysam import SamtoolsError, bcftools
try:
    getattr(bcftools, sys.argv[1])(*sys.argv[2:], catch_stdout=False)
except SamtoolsError as error:
    sys.exit(str(error.args[0]).partition("stderr=")[2].strip() or str(error.args[0]))
"""


class Bcftools:
    """The bcftools that pysam carries, in a child process: a crash there is one error here.

    Args:
        args: Command and arguments.
        feed: Whether the child reads from `stdin`.
    """

    def __init__(self, args: Sequence[str], *, feed: bool) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _CHILD, *args],
            stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,
        )
        assert self._process.stdout is not None
        self.stdout: BinaryIO = self._process.stdout  # type: ignore[assignment]
        self.stdin: BinaryIO | None = self._process.stdin  # type: ignore[assignment]

    def put(self, data: bytes) -> None:
        """Write all of `data` to the child; BrokenPipeError if it is gone."""
        assert self.stdin is not None
        view = memoryview(data)
        while view:
            view = view[self.stdin.write(view) :]

    def close_stdin(self) -> None:
        """Tell the child that its input is complete."""
        if self.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.stdin.close()

    def reason(self) -> str | None:
        """Wait for the end; None if all went well, else what htslib complained about."""
        code = self._process.wait()
        if code == 0:
            return None
        said = [x for x in self._said() if x[:4] != "[W::" and "Error on closing" not in x]
        if code < 0 or not said:
            return f"htslib ended with status {code}"
        return said[0].partition("] ")[2] if said[0].startswith("[E::") else said[0]

    def warnings(self) -> list[str]:
        """What an ended child warned about, each once: htslib sets what it cannot read missing."""
        said = [x.partition("] ")[2] for x in self._said() if x.startswith("[W::")]
        return list(dict.fromkeys(said))

    def _said(self) -> list[str]:
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").splitlines()
        return [x for x in lines if x]

    def kill(self) -> None:
        """End the child at once if it still runs."""
        if self._process.poll() is None:
            self._process.kill()

    def close(self) -> None:
        """Kill the child if it still runs and let go of its files."""
        self.kill()
        self.stdout.close()
        self.close_stdin()
        self._process.wait()
        self._log.close()


def bcf_to_text(name: str, bcf: Iterator[bytes] | None, args: Sequence[str]) -> Iterator[bytes]:
    """Let htslib format BCF as VCF text.

    Args:
        name: The file, for messages.
        bcf: Decompressed BCF to read, or None where `args` name an indexed file.
        args: Arguments of `bcftools view` that say what to read.

    Raises:
        InputError: The BCF is cut or damaged.
    """
    child = Bcftools(["view", "--no-version", *args], feed=bcf is not None)
    failed: list[Exception] = []

    def pump(data: Iterator[bytes]) -> None:
        try:
            for piece in data:
                child.put(piece)
        except BrokenPipeError:
            pass  # the child's own last words say why
        except (InputError, OSError, ValueError) as error:
            failed.append(error)
        child.close_stdin()

    # A daemon: after an error it may still wait for a pipe that nobody writes to.
    feeder = threading.Thread(target=pump, args=(bcf,), daemon=True) if bcf is not None else None
    try:
        if feeder:
            feeder.start()
        yield from pieces(name, child.stdout)
        if feeder:
            feeder.join()
        if failed:
            raise failed[0]
        if reason := child.reason():
            raise damaged(name, reason)
    finally:
        child.close()


class BcfSink:
    """Turns VCF text into BCF with htslib's parser.

    The child's output passes through here with its last 28 bytes held back, the end-of-file block:
    a child that is killed, or loses us, cannot make half a file look whole.
    """

    def __init__(self, put: Callable[[bytes], None], name: str, output_type: str) -> None:
        self._name = name
        self._put = put
        self._child = Bcftools(["view", "--no-version", f"-O{output_type}", "-"], feed=True)
        self._tail = b""
        self._failed: list[Exception] = []
        self._relay = threading.Thread(target=self._pass_on, daemon=True)
        self._relay.start()

    def _pass_on(self) -> None:
        try:
            for piece in pieces(self._name, self._child.stdout):
                data = self._tail + piece
                self._tail = data[-len(EOF_BLOCK) :]
                self._put(data[: -len(EOF_BLOCK)])
        except (InputError, OSError) as error:  # full disk or closed pipe: told in the main thread
            self._failed.append(error)
            self._child.stdout.close()

    def write(self, data: bytes) -> None:
        """Send text to the parser."""
        try:
            self._child.put(data)
        except BrokenPipeError as error:
            self._complain()
            raise InputError(f"{self._name}: htslib stopped reading; -O z needs none") from error

    def finish(self) -> None:
        """Wait for the parser and write the rest with the end-of-file block."""
        self._child.close_stdin()
        self._relay.join()
        self._complain()
        if warnings := self._child.warnings():
            more = f" (and {len(warnings) - 1} more)" if len(warnings) > 1 else ""
            logger.warning("%s: htslib: %s%s", self._name, warnings[0], more)
        self._put(self._tail)
        self.abort()

    def abort(self) -> None:
        """Kill the parser; its end-of-file block is not written."""
        self._child.kill()
        # Not for ever: the relay may wait for a reader who has stopped reading.
        self._relay.join(timeout=5)
        self._child.close()

    def _complain(self) -> None:
        self._relay.join()
        if self._failed:
            raise self._failed[0]
        if reason := self._child.reason():
            raise InputError(
                f"{self._name}: htslib cannot write this as BCF: {reason}; -O z writes it as it is"
            )
