"""Files of `--from`: bgzipped VCF or BCF, read through their index near given places.

From one place to the next the file is read on while few records lie between, and jumped through the
index where many do: a file of few records and one of every base are both read fast.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from glm_annotate.bgzf import EOF_BLOCK, damaged, is_bgzf
from glm_annotate.errors import InputError
from glm_annotate.header import Header
from glm_annotate.regions import how_to_index, index_beside, open_tabix

if TYPE_CHECKING:
    import pysam

# To jump costs about as much as to pass so many records by.
_WORTH_A_JUMP = 1000
# Bases that are asked of the index at once.
_FARTHEST = 1 << 20
_BCF = b"BCF\x02"


@dataclass(slots=True)
class ScoreFile:
    """An open file with an index.

    Attributes:
        name: Its path.
        header: Header lines without line endings, the "#CHROM" line last.
        contigs: Those that the index knows, in the file's spelling.
    """

    name: str
    header: Header
    contigs: tuple[str, ...]
    _fetch: Callable[[str, int, int | None], Iterator[bytes]]
    _close: Callable[[], None]

    def has_records(self, contig: str) -> bool:
        """Tell whether there is any record on a contig of the index."""
        return next(self._lines(contig, 0, None), None) is not None

    def near(self, contig: str, spans: Iterable[tuple[int, int]]) -> Iterator[list[bytes]]:
        """Give the columns of records whose REF shares a base with one of the spans.

        Records come in the file's order; one that reaches over several spans may come again.

        Args:
            contig: In the file's spelling.
            spans: 0-based half-open, in any order.

        Raises:
            InputError: The file is damaged.
        """
        left = deque(_joined(spans))
        while left:
            yield from self._from_first(contig, left)

    def close(self) -> None:
        """Close the file."""
        self._close()

    def _from_first(self, contig: str, left: deque[tuple[int, int]]) -> Iterator[list[bytes]]:
        """Read from the first span on, as far as it is worth it, and take off what is done."""
        first, passed = left[0], 0
        until = max(first[1], min(left[-1][1], first[0] + _FARTHEST))
        for line in self._lines(contig, first[0], until):
            columns = line.split(b"\t", 8)
            begin = _position(self.name, columns)
            while left and left[0][1] <= begin:
                left.popleft()
            if not left or passed == _WORTH_A_JUMP:
                return
            if left[0][0] < begin + len(columns[3]):
                passed = 0
                yield columns
            elif begin >= first[1]:
                passed += 1
        while left and left[0][1] <= until:
            left.popleft()

    def _lines(self, contig: str, start: int, end: int | None) -> Iterator[bytes]:
        try:
            yield from self._fetch(contig, start, end)
        except (OSError, ValueError) as error:
            raise damaged(self.name, f"{error}, or its index is of another file") from error


def _position(name: str, columns: list[bytes]) -> int:
    """Give the first base of REF, 0-based."""
    if len(columns) < 8 or not columns[1].isdigit():
        raise damaged(name, f"a record with {len(columns)} columns")
    return int(columns[1]) - 1


def _joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sort spans, and join those that overlap or touch."""
    out: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if out and start <= out[-1][1]:
            out[-1] = out[-1][0], max(out[-1][1], end)
        else:
            out.append((start, end))
    return out


def open_score_file(name: str) -> ScoreFile:
    """Open a bgzipped VCF or a BCF, with its index.

    Raises:
        InputError: It is not there, is none of these, or has no index.
    """
    is_bcf = _check_kind(name)
    index = index_beside(name, is_bcf)
    if index is None:
        raise InputError(f"--from {name}: has no index; {how_to_index(name, is_bcf)}")
    if is_bcf:
        return _open_bcf(name, index)
    tabix = open_tabix(name, index)
    with contextlib.ExitStack() as on_error:
        on_error.callback(tabix.close)
        try:
            header = tuple(line.encode("latin-1").rstrip(b"\r") for line in tabix.header)
        except (OSError, ValueError) as error:
            raise damaged(name, str(error)) from error
        on_error.pop_all()
    return ScoreFile(name, header, tuple(tabix.contigs), partial(_text_lines, tabix), tabix.close)


def _open_bcf(name: str, index: str) -> ScoreFile:
    import pysam

    pysam.set_verbosity(0)  # htslib's own lines would come on top of ours
    try:
        bcf = pysam.VariantFile(name, index_filename=index, drop_samples=True)
    except (OSError, ValueError) as error:
        raise damaged(name, str(error)) from error
    if bcf.index is None:
        bcf.close()
        raise InputError(f"{index}: the index cannot be read; run: bcftools index -f {name}")
    header = tuple(str(bcf.header).rstrip("\n").encode().split(b"\n"))
    contigs = tuple(str(contig) for contig in bcf.index)
    return ScoreFile(name, header, contigs, partial(_bcf_lines, bcf), bcf.close)


def _text_lines(
    tabix: pysam.TabixFile, contig: str, start: int, end: int | None
) -> Iterator[bytes]:
    return (line.encode("latin-1") for line in tabix.fetch(contig, start, end))


def _bcf_lines(bcf: pysam.VariantFile, contig: str, start: int, end: int | None) -> Iterator[bytes]:
    return (str(record).rstrip("\n").encode() for record in bcf.fetch(contig, start, end))


def _check_kind(name: str) -> bool:
    """Tell whether a file is BCF, not VCF.

    Raises:
        InputError: It cannot be read, or is not in BGZF.
    """
    try:
        with open(name, "rb") as handle:
            head = handle.read(1 << 16)
            handle.seek(max(0, os.fstat(handle.fileno()).st_size - len(EOF_BLOCK)))
            tail = handle.read()
    except OSError as error:
        raise InputError(
            f"--from {name}: {error.strerror}; name an output of glm-annotate vcf"
        ) from error
    if not is_bgzf(head):
        plain = name.removesuffix(".gz").removesuffix(".vcf")
        raise InputError(
            f"--from {name}: neither a bgzipped VCF nor a BCF; run: bcftools view -Oz -o "
            f"{plain}.bgz.vcf.gz {name} && bcftools index {plain}.bgz.vcf.gz"
        )
    if tail != EOF_BLOCK:
        raise damaged(name, "no BGZF end-of-file block")
    try:
        return zlib.decompressobj(31).decompress(head, len(_BCF)) == _BCF
    except zlib.error as error:
        raise damaged(name, str(error)) from error
