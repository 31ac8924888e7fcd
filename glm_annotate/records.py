"""Variant records in: VCF, BCF, a table or one allele, in chunks of columns.

Text records are never formatted again: a chunk holds their bytes as read, and beside them the
columns that scoring needs. What is read is told by content, never by file name.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO, Literal

from glm_annotate.bgzf import (
    EOF_BLOCK,
    GZIP_MAGIC,
    bcf_to_text,
    damaged,
    inflate_bgzf,
    inflate_gzip,
    is_bgzf,
    pieces,
)
from glm_annotate.chunks import COLUMNS, Chunk, batches, chosen, parse, short, whole_lines
from glm_annotate.errors import InputError
from glm_annotate.regions import Regions, fetched, find_index, open_tabix

logger = logging.getLogger(__name__)

Kind = Literal["vcf", "bcf", "tsv", "allele"]

_BARE_HEADER = (b"##fileformat=VCFv4.3", COLUMNS)
_ALLELE = re.compile(r"(\S+):(\d+):([A-Za-z]+):(\S+)")
_FORMATS = "a VCF, a BCF, or tab-separated chrom, pos, ref, alt"
_OTHER_PACKERS = {
    b"BZh": "bzip2 -dc",
    b"\xfd7zXZ": "xz -dc",
    b"\x28\xb5\x2f\xfd": "zstd -dc",
    b"PK\x03\x04": "unzip -p",
}
_TABLE_COLUMNS = (b"chrom", b"pos", b"ref", b"alt")


@dataclass(slots=True)
class VariantInput:
    """An open input; use it as a context manager.

    Attributes:
        name: Path or "stdin", for messages.
        header: Header lines without line endings, the "#CHROM" line last.
        newline: The line ending of the header, for whoever writes it again.
    """

    name: str
    kind: Kind
    header: tuple[bytes, ...]
    newline: bytes
    _blocks: Iterator[Chunk]
    _closing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> VariantInput:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files and end the child process."""
        self._closing.close()

    def chunks(self, size: int) -> Iterator[Chunk]:
        """Give all records once, in order, at most `size` at a time.

        Records of one site (equal CHROM and POS) that follow each other stay together, which may
        make a chunk up to four times as long.

        Raises:
            InputError: A line is no record, or the data is cut or damaged.
        """
        return batches(self._blocks, size)


def open_input(
    source: str,
    *,
    regions: Regions | None = None,
    targets: Regions | None = None,
    threads: int = 0,
) -> VariantInput:
    """Open variants for reading.

    Args:
        source: A path, "-" for stdin, or an allele as `chr:pos:ref:alt`.
        regions: Read only what overlaps these, through the index.
        targets: Keep only records whose POS lies in these (or outside, if they exclude).
        threads: Threads that decompress BGZF.

    Raises:
        InputError: The input cannot be opened, is none of the formats or has no usable header, or
            `regions` ask for an index that is not there.
    """
    allele = _ALLELE.fullmatch(source)
    closing = contextlib.ExitStack()
    with contextlib.ExitStack() as on_error:
        on_error.enter_context(closing)
        if allele and not os.path.lexists(source):
            if regions is not None:
                raise InputError(f"{source}: -r and -R need a file with an index; use -t or -T")
            found = _open_allele(allele)
        else:
            found = _open_file(source, regions, threads, closing)
        if targets is not None:
            kept, blocks = targets, found._blocks
            found._blocks = (chosen(x, kept.contains(x.chroms, x.pos)) for x in blocks)
        found._closing = closing
        on_error.pop_all()
    return found


def _open_allele(match: re.Match[str]) -> VariantInput:
    chrom, pos, ref, alt = (x.encode("utf-8", "surrogateescape") for x in match.groups())
    line = b"\t".join((chrom, pos, b".", ref, alt, b".", b".", b".")) + b"\n"
    block = parse(match.string, "record", line, 1)
    return VariantInput(match.string, "allele", _BARE_HEADER, b"\n", iter((block,)))


def _open_file(
    source: str, regions: Regions | None, threads: int, closing: contextlib.ExitStack
) -> VariantInput:
    name = "stdin" if source == "-" else source
    try:
        stdin = source == "-"
        handle: BinaryIO = open(0 if stdin else source, "rb", buffering=0, closefd=not stdin)  # noqa: SIM115
        closing.enter_context(handle)
    except OSError as error:
        raise InputError(
            f"{name}: {error.strerror}; IN is {_FORMATS}, '-' or chr:pos:ref:alt"
        ) from error
    head, raw = _peeked(pieces(name, handle), 18, line=False)
    blocked, zipped = is_bgzf(head), head.startswith(GZIP_MAGIC)
    if blocked:
        _check_end(name, handle)
        raw = inflate_bgzf(name, raw, threads)
    elif zipped:
        hint = f"gunzip -c {name} | bgzip > {name.removesuffix('.gz')}.bgz"
        logger.warning("%s: gzip, not bgzip, so there is no random access; better: %s", name, hint)
        raw = inflate_gzip(name, raw)
    head, raw = _peeked(raw, 1 << 16, line=True)
    is_bcf = head.startswith(b"BCF\x02")
    index = ""
    if regions is not None:
        index = find_index(name, blocked=blocked, is_bcf=is_bcf)
    if is_bcf:
        return _open_bcf(name, raw, regions, closing)
    first = head.split(b"\n", 1)[0].rstrip(b"\r")
    if first.startswith((b"##", COLUMNS)):
        return _open_vcf(name, raw, regions, index, closing)
    if layout := _table_layout(name, first):
        if regions is not None:
            raise InputError(f"{name}: -r and -R need an indexed VCF or BCF; use -t or -T")
        return _open_table(name, raw, *layout)
    raise _unknown(name, head)


def _peeked(raw: Iterator[bytes], size: int, *, line: bool) -> tuple[bytes, Iterator[bytes]]:
    """Give the first `size` bytes or more, or the first line if asked, and all pieces again."""
    taken: list[bytes] = []
    while sum(map(len, taken)) < size and not (line and taken and b"\n" in taken[-1]):
        piece = next(raw, None)
        if piece is None:
            break
        taken.append(piece)
    return b"".join(taken), itertools.chain(taken, raw)


def _check_end(name: str, handle: BinaryIO) -> None:
    """Find a missing end-of-file block before any work is done, where the file can seek."""
    status = os.fstat(handle.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_size < len(EOF_BLOCK):
        return
    if os.pread(handle.fileno(), len(EOF_BLOCK), status.st_size - len(EOF_BLOCK)) != EOF_BLOCK:
        raise damaged(name, "no BGZF end-of-file block")


def _unknown(name: str, head: bytes) -> InputError:
    if not head:
        return InputError(f"{name}: empty; IN is {_FORMATS}")
    if head.startswith(b"\xef\xbb\xbf"):
        return InputError(
            f"{name}: it starts with a UTF-8 byte order mark; "
            f"run: sed -i '1s/^\\xEF\\xBB\\xBF//' {name}"
        )
    for magic, unpack in _OTHER_PACKERS.items():
        if head.startswith(magic):
            return InputError(
                f"{name}: neither gzip nor plain; run: {unpack} {name} | bgzip > OUT.gz"
            )
    return InputError(f"{name}: it starts with {head[:24]!r}, which is none of {_FORMATS}")


# --- the formats -----------------------------------------------------------------------------


def _open_vcf(
    name: str,
    raw: Iterator[bytes],
    regions: Regions | None,
    index: str,
    closing: contextlib.ExitStack,
) -> VariantInput:
    header, newline, rest = _header(name, raw)
    if regions is not None:
        tabix = open_tabix(name, index)
        closing.callback(tabix.close)
        # htslib's lines come without their ending, whichever it was.
        blocks = fetched(name, tabix, regions, newline)
    else:
        blocks = _parsed(name, "line", rest, len(header) + 1)
    return VariantInput(name, "vcf", header, newline, blocks)


def _open_bcf(
    name: str, raw: Iterator[bytes], regions: Regions | None, closing: contextlib.ExitStack
) -> VariantInput:
    args = ["-"]
    if regions is not None:
        # A file, not an argument: those are limited in length.
        bed = tempfile.NamedTemporaryFile(suffix=".bed")  # noqa: SIM115
        closing.enter_context(bed)
        bed.write(regions.bed())
        bed.flush()
        args = ["-R", bed.name, name]
    text = bcf_to_text(name, raw if regions is None else None, args)
    closing.enter_context(contextlib.closing(text))  # type: ignore[type-var]
    header, newline, rest = _header(name, text)
    return VariantInput(name, "bcf", header, newline, _parsed(name, "record", rest, 1))


def _open_table(
    name: str, raw: Iterator[bytes], width: int, order: Sequence[int], has_header: bool
) -> VariantInput:
    lines = whole_lines(raw)
    number = 1
    if has_header:
        first = next(lines)
        end = first.find(b"\n") + 1 or len(first)
        lines, number = itertools.chain((first[end:],) if first[end:] else (), lines), 2

    def as_vcf(data: bytes, first: int) -> bytes:
        out = []
        for i, text in enumerate(data.removesuffix(b"\n").split(b"\n"), first):
            row = text.removesuffix(b"\r").split(b"\t")
            chrom, pos, ref, alt = [row[k] for k in order] if len(row) == width else [b""] * 4
            if not (chrom and pos and ref and alt):
                raise InputError(
                    f"{name}: line {i}: {short(text)} has not the {width} tab-separated values "
                    f"of the {'header' if has_header else 'first'} line; mend or remove it"
                )
            out.append(b"%b\t%b\t.\t%b\t%b\t.\t.\t.\n" % (chrom, pos, ref, alt))
        return b"".join(out)

    blocks = _parsed(name, "line", lines, number, as_vcf)
    return VariantInput(name, "tsv", _BARE_HEADER, b"\n", blocks)


def _table_layout(name: str, first: bytes) -> tuple[int, list[int], bool] | None:
    """Number of columns, where chrom, pos, ref and alt are, and whether the line is a header."""
    fields = first.split(b"\t")
    names = [x.strip().lower() for x in first.removeprefix(b"#").split(b"\t")]
    if set(_TABLE_COLUMNS) <= set(names):
        return len(fields), [names.index(x) for x in _TABLE_COLUMNS], True
    if len(fields) < 4 or not fields[1].isdigit():
        return None
    if len(fields) == 4:
        # A BED of four columns has a number where REF would be.
        return (4, [0, 1, 2, 3], False) if fields[2].isalpha() else None
    raise InputError(
        f"{name}: line 1: {len(fields)} columns and no header; a VCF starts with ##fileformat and "
        "a #CHROM line, a table of more than chrom, pos, ref, alt with a line of column names"
    )


def _header(name: str, raw: Iterator[bytes]) -> tuple[tuple[bytes, ...], bytes, Iterator[bytes]]:
    """Read the header: its lines, their ending, and what follows in whole lines."""
    text = whole_lines(raw)
    lines: list[bytes] = []
    for data in text:
        start = 0
        while start < len(data):
            end = data.find(b"\n", start) + 1 or len(data)
            line = data[start:end].removesuffix(b"\n")
            lines.append(line)
            start = end
            if line.startswith(b"##"):
                continue
            if not line.removesuffix(b"\r").startswith(COLUMNS):
                raise InputError(
                    f"{name}: line {len(lines)}: {short(line)} where the header line "
                    "#CHROM POS ID REF ALT QUAL FILTER INFO, tab-separated, should be"
                )
            rest = itertools.chain((data[start:],) if data[start:] else (), text)
            # A lone line with another ending than the rest keeps it.
            crlf = all(x.endswith(b"\r") for x in lines)
            header = tuple(x.removesuffix(b"\r") for x in lines) if crlf else tuple(lines)
            return header, b"\r\n" if crlf else b"\n", rest
    raise InputError(
        f"{name}: a VCF without a #CHROM line, {len(lines)} header lines long; "
        "mend it with bcftools reheader"
    )


def _parsed(
    name: str,
    unit: str,
    text: Iterator[bytes],
    number: int,
    convert: Callable[[bytes, int], bytes] | None = None,
) -> Iterator[Chunk]:
    for data in text:
        block = parse(name, unit, convert(data, number) if convert else data, number)
        number += len(block)
        yield block
