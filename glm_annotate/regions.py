"""Stretches of the genome a run is limited to: `-r`, `-R`, `-t` and `-T` with bcftools' meaning.

Strings and tab-delimited files are 1-based and inclusive, `.bed` and `.bed.gz` files 0-based and
half-open. Regions pick records whose REF overlaps them, targets records whose POS lies in them.
"""

from __future__ import annotations

import gzip
import logging
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from glm_annotate.bgzf import damaged
from glm_annotate.chunks import Chunk, chosen, parse
from glm_annotate.errors import InputError, UsageError

if TYPE_CHECKING:
    import pysam

logger = logging.getLogger(__name__)

MAX_END = (1 << 31) - 1  # the last position an index or a BED can speak of
_FETCHED = 10_000  # records asked of the index at a time
_REGION = re.compile(r"(?:\{(?P<braced>[^{}]+)\}|(?P<plain>[^:{}]+))(?::(?P<span>.*))?")
_SPAN = re.compile(r"(\d+)(-?)(\d*)")


@dataclass(frozen=True, slots=True)
class Regions:
    """Disjoint intervals, contigs in the order they were named.

    Attributes:
        intervals: Contig name to sorted intervals, 0-based half-open, shape (n, 2).
        exclude: Whether what lies inside is left out.
    """

    intervals: dict[bytes, NDArray[np.int64]]
    exclude: bool = False

    def contains(self, chroms: Sequence[bytes], pos: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which records (1-based `pos`) a run with these targets keeps."""
        number = {name: i for i, name in enumerate(self.intervals)}
        which = np.fromiter((number.get(c, -1) for c in chroms), dtype=np.int64, count=len(chroms))
        inside = np.zeros(which.size, dtype=np.bool_)
        for i in np.unique(which[which >= 0]):
            spans = list(self.intervals.values())[i]
            records = np.flatnonzero(which == i)
            start = pos[records] - 1
            before = np.searchsorted(spans[:, 0], start, side="right") - 1
            inside[records] = (before >= 0) & (start < spans[before, 1])
        return ~inside if self.exclude else inside

    def bed(self) -> bytes:
        """Write the intervals as BED."""
        return b"".join(
            b"%b\t%d\t%d\n" % (name, start, end)
            for name, spans in self.intervals.items()
            for start, end in spans.tolist()
        )


def regions_from(text: str | None, path: str | None) -> Regions | None:
    """Read the values of `-r` and `-R`; None where neither is given.

    Raises:
        UsageError: Both are given, or the string is no region.
        InputError: The file cannot be read as regions.
    """
    if text is not None and path is not None:
        raise UsageError("-r and -R exclude each other; give one")
    if text is None and path is None:
        return None
    found = _parse(text, "-r") if text is not None else _read(str(path))
    # An index knows no POS 0.
    inside = [(name, max(0, start), end) for name, start, end in found if end > 0]
    if not inside:
        raise UsageError("-r and -R name no position from 1 up")
    return _merged(inside)


def targets_from(text: str | None, path: str | None) -> Regions | None:
    """Read the values of `-t` and `-T`, where a leading `^` excludes; None where neither is given.

    Raises:
        UsageError: Both are given, or the string is no region.
        InputError: The file cannot be read as regions.
    """
    if text is not None and path is not None:
        raise UsageError("-t and -T exclude each other; give one")
    if text is not None:
        return _merged(_parse(text.removeprefix("^"), "-t"), exclude=text.startswith("^"))
    if path is None:
        return None
    return _merged(_read(path.removeprefix("^")), exclude=path.startswith("^"))


def _merged(found: Iterable[tuple[str, int, int]], *, exclude: bool = False) -> Regions:
    by_name: dict[bytes, list[tuple[int, int]]] = {}
    for name, start, end in found:
        by_name.setdefault(name.encode("utf-8", "surrogateescape"), []).append((start, end))
    out = {}
    for key, spans in by_name.items():
        joined: list[list[int]] = []
        for start, end in sorted(spans):
            if joined and start <= joined[-1][1]:
                joined[-1][1] = max(joined[-1][1], end)
            else:
                joined.append([start, end])
        out[key] = np.array(joined, dtype=np.int64)
    return Regions(out, exclude)


def _parse(text: str, option: str) -> list[tuple[str, int, int]]:
    out = []
    for item in text.split(","):
        match = _REGION.fullmatch(item)
        span = _SPAN.fullmatch(match["span"]) if match and match["span"] is not None else None
        if match is None or (match["span"] is not None and span is None):
            raise UsageError(
                f"{option}: {item!r} is no region; write chr, chr:pos, chr:beg-end or chr:beg- "
                "(1-based, no thousands separators, {name} around a name with a colon)"
            )
        # The whole contig begins at -1: POS 0, the telomere, belongs to it.
        start, end = -1, MAX_END
        if span is not None:
            start = int(span[1]) - 1
            end = int(span[3]) if span[3] else MAX_END if span[2] else start + 1
            if end <= start:
                raise UsageError(f"{option}: {item!r} ends before it begins")
        out.append((match["braced"] or match["plain"], start, min(end, MAX_END)))
    return out


def _read(path: str) -> list[tuple[str, int, int]]:
    try:
        with open(path, "rb") as handle:
            raw = handle.read()
        text = gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
    except (EOFError, zlib.error, OSError) as error:
        why = (isinstance(error, OSError) and error.strerror) or f"not readable ({error})"
        raise InputError(f"{path}: {why}; regions are a BED, a VCF or chr<TAB>beg<TAB>end") from (
            error
        )
    is_bed = path.lower().endswith((".bed", ".bed.gz"))
    is_vcf = text.startswith(b"##fileformat=VCF")
    out = []
    for i, line in enumerate(text.decode("utf-8", "surrogateescape").splitlines(), 1):
        if not line.strip() or line.startswith(("#", "track ", "browser ")):
            continue
        fields = line.split("\t")
        numbers = fields[1:2] if is_vcf else fields[1:3]
        if not numbers or not all(re.fullmatch(r"\d+", x, re.ASCII) for x in numbers):
            raise InputError(
                f"{path}: line {i}: {line[:60]!r} is no region; a line is "
                "chr<TAB>pos or chr<TAB>beg<TAB>end"
            )
        start = int(numbers[0]) - (not is_bed)
        end = int(numbers[-1]) + (is_bed and len(numbers) == 1)
        if end < start:
            raise InputError(f"{path}: line {i}: {line[:60]!r} ends before it begins")
        if end > start:
            out.append((fields[0], start, min(end, MAX_END)))
    if not out:
        raise InputError(
            f"{path}: no region in it; it should be a BED, a VCF or chr<TAB>beg<TAB>end"
        )
    return out


# --- through an index --------------------------------------------------------------------------


def find_index(name: str, *, blocked: bool, is_bcf: bool) -> str:
    """Give the path of a file's index.

    Raises:
        InputError: It has none, or is of a kind (or stdin) that cannot have one.
    """
    if name == "stdin":
        raise InputError("stdin: -r and -R need a file with an index; use -t or -T")
    if not blocked:
        plain = name.removesuffix(".gz")
        raise InputError(
            f"{name}: -r and -R need a bgzipped VCF or a BCF with an index; run: bcftools view "
            f"-Oz -o {plain}.bgz {name} && bcftools index {plain}.bgz; or use -t or -T"
        )
    found = index_beside(name, is_bcf)
    if found is None:
        raise InputError(f"{name}: no index for -r and -R; {how_to_index(name, is_bcf)}")
    return found


def index_beside(name: str, is_bcf: bool) -> str | None:
    """Find the index beside a file, and tell if it is the older one; None where there is none."""
    suffixes = (".csi",) if is_bcf else (".csi", ".tbi")
    found = next((name + x for x in suffixes if os.path.exists(name + x)), None)
    if found is not None and os.stat(name).st_mtime > os.stat(found).st_mtime + 1:
        logger.warning("%s is newer than its index; run: bcftools index -f %s", name, name)
    return found


def how_to_index(name: str, is_bcf: bool) -> str:
    """Name the command that makes an index."""
    return f"run: bcftools index {name}" + ("" if is_bcf else f" or tabix -p vcf {name}")


def fetched(name: str, tabix: pysam.TabixFile, regions: Regions, ending: bytes) -> Iterator[Chunk]:
    """Records of a bgzipped, indexed VCF that overlap the regions, each once."""
    lines: list[bytes] = []
    floors: list[int] = []
    number = 1
    for line, floor in _overlapping(name, tabix, regions):
        lines.append(line + ending)
        floors.append(floor)
        if len(lines) == _FETCHED:
            block = _unseen(parse(name, "record", b"".join(lines), number), floors)
            number += len(block)
            yield block
            lines, floors = [], []
    if lines:
        yield _unseen(parse(name, "record", b"".join(lines), number), floors)


def _unseen(block: Chunk, floors: list[int]) -> Chunk:
    """Drop records that an earlier interval gave already: those that begin before its end."""
    return chosen(block, block.pos > np.array(floors, dtype=np.int64))


def _overlapping(
    name: str, tabix: pysam.TabixFile, regions: Regions
) -> Iterator[tuple[bytes, int]]:
    """Lines from the index, with the end of the interval before on the same contig."""
    for contig, spans in regions.intervals.items():
        chrom = contig.decode("utf-8", "surrogateescape")
        if chrom not in tabix.contigs:
            logger.warning("%s: no record on %s, which -r or -R names", name, chrom)
            continue
        floor = 0  # POS 0 lies in no region
        for start, end in spans.tolist():
            try:
                for line in tabix.fetch(chrom, start, end if end < MAX_END else None):
                    yield line.encode("latin-1"), floor
            except (OSError, ValueError) as error:
                raise damaged(name, f"{error}, or its index is of another file") from error
            floor = end


def open_tabix(name: str, index: str) -> pysam.TabixFile:
    """Open a bgzipped VCF through its index.

    Raises:
        InputError: The index cannot be read.
    """
    import pysam

    pysam.set_verbosity(0)  # htslib's own lines would come on top of ours
    try:
        # latin-1 gives every byte back as it was.
        return pysam.TabixFile(name, index=index, encoding="latin-1")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{name}: the index cannot be read ({error}); run: bcftools index -f {name}"
        ) from error
