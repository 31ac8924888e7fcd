"""Reference genome: an indexed FASTA in, upper-case base codes out.

A base is a small integer (`ALPHABET`): A, C, G, T are 0 to 3, N is 4, the other IUPAC letters
follow. Whole contigs are held as uint8 arrays, so that a batch of windows is one fancy index.
Decisions: bases past the end of a linear contig are N; a circular contig wraps around; letters
that are not IUPAC become N; U becomes T; soft-masking is lost on purpose.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from glm_annotate.errors import InputError

if TYPE_CHECKING:
    import pysam

logger = logging.getLogger(__name__)

Codes = NDArray[np.uint8]

ALPHABET = "ACGTNRYSWKMBDHV"
N = ALPHABET.index("N")
_MEANINGS = ["A", "C", "G", "T", "ACGT", "AG", "CT", "CG", "AT", "GT", "AC"]
_MEANINGS += ["CGT", "AGT", "ACT", "ACG"]
_COMPLEMENTS = "TGCANYRSWMKVHDB"


def _letter_table() -> Codes:
    table = np.full(256, N, dtype=np.uint8)
    for code, letter in enumerate(ALPHABET):
        table[ord(letter)] = table[ord(letter.lower())] = code
    table[ord("U")] = table[ord("u")] = ALPHABET.index("T")
    return table


_FROM_LETTER = _letter_table()
_TO_LETTER = np.frombuffer(ALPHABET.encode(), dtype=np.uint8)
_COMPLEMENT = np.array([ALPHABET.index(x) for x in _COMPLEMENTS], dtype=np.uint8)
# BITS[code] has bit b set where the letter can stand for base b of ACGT.
BITS = np.array([sum(1 << "ACGT".index(b) for b in x) for x in _MEANINGS], dtype=np.uint8)


def to_codes(text: str | bytes) -> Codes:
    """Turn letters into base codes, upper-casing on the way."""
    raw = text.encode("latin-1", "replace") if isinstance(text, str) else text
    return _FROM_LETTER[np.frombuffer(raw, dtype=np.uint8)]


def to_text(codes: Codes) -> str:
    """Turn base codes (one dimension) into upper-case letters."""
    return _TO_LETTER[codes].tobytes().decode("ascii")


def to_letters(codes: Codes) -> Codes:
    """Turn base codes into ASCII bytes of the same shape."""
    return _TO_LETTER[codes]


def reverse_complement(codes: Codes) -> Codes:
    """Reverse-complement along the last axis."""
    return _COMPLEMENT[codes[..., ::-1]]


@dataclass(frozen=True, slots=True)
class Interval:
    """A stretch of a contig, 0-based and half-open."""

    chrom: str
    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"interval {self.chrom}:{self.start}-{self.end} runs backwards")


def aliases(name: str) -> tuple[str, ...]:
    """List other spellings of a contig name: `chr1` and `1`, `chrM`, `MT` and `M`."""
    mitochondrial = ("chrM", "MT", "M", "chrMT")
    if name in mitochondrial:
        return tuple(x for x in mitochondrial if x != name)
    return (name.removeprefix("chr"),) if name.startswith("chr") else (f"chr{name}",)


class Genome:
    """An indexed FASTA, plain or bgzipped, read contig by contig.

    Args:
        path: The FASTA. A missing index is made beside it where the folder is writable.
        circular: Names of contigs that wrap around; names that the FASTA lacks are ignored.
        cache_bytes: How many bases to hold at most, beyond the contig in use.

    Raises:
        InputError: The file is missing, not a FASTA, gzipped but not bgzipped, or has no index
            and none can be made.
    """

    def __init__(
        self, path: str | Path, *, circular: Iterable[str] = (), cache_bytes: int = 600_000_000
    ) -> None:
        self.path = str(path)
        self._fasta = _open_fasta(self.path)
        names, lengths = self._fasta.references, self._fasta.lengths
        self.contigs: dict[str, int] = dict(zip(names, lengths, strict=True))
        self.circular = frozenset(self.resolve(name) or name for name in circular)
        self._cache: OrderedDict[str, Codes] = OrderedDict()
        self._cache_bytes = cache_bytes

    def resolve(self, name: str, contig_map: dict[str, str] | None = None) -> str | None:
        """Find the FASTA's spelling of a contig name, or None where it has no such contig."""
        if contig_map and name in contig_map:
            mapped = contig_map[name]
            return mapped if mapped in self.contigs else None
        if name in self.contigs:
            return name
        return next((x for x in aliases(name) if x in self.contigs), None)

    def codes(self, contig: str) -> Codes:
        """Read a whole contig as base codes, shape (length,); the array is read-only.

        Raises:
            InputError: The FASTA has no such contig, or its index does not fit the file.
        """
        cached = self._cache.get(contig)
        if cached is not None:
            self._cache.move_to_end(contig)
            return cached
        if contig not in self.contigs:
            known = ", ".join(list(self.contigs)[:3])
            raise InputError(f"{self.path}: no contig {contig!r} (it has {known}, ...)")
        held = sum(array.size for array in self._cache.values())
        while self._cache and held + self.contigs[contig] > self._cache_bytes:
            held -= self._cache.popitem(last=False)[1].size
        self._cache[contig] = self._read(contig)
        return self._cache[contig]

    def windows(
        self,
        contig: str,
        starts: NDArray[np.int64],
        length: int,
        *,
        circular: bool | None = None,
    ) -> Codes:
        """Cut windows of one contig.

        Args:
            contig: A name of this FASTA.
            starts: 0-based left edges, shape (n,); may lie before the contig or run past it.
            length: Bases in each window.
            circular: Whether the contig wraps around; None: as the genome was told.

        Returns:
            Base codes, shape (n, length): N past the ends, wrapped around on circular contigs.
        """
        codes = self.codes(contig)
        size = codes.size
        starts = np.asarray(starts, dtype=np.int64)
        inside = (starts >= 0) & (starts + length <= size)
        if size >= length and bool(inside.all()):
            return np.lib.stride_tricks.sliding_window_view(codes, length)[starts]
        out = np.empty((starts.size, length), dtype=np.uint8)
        if size >= length and bool(inside.any()):
            view = np.lib.stride_tricks.sliding_window_view(codes, length)
            out[inside] = view[starts[inside]]
        outside = np.flatnonzero(~inside)
        positions = starts[outside, None] + np.arange(length)
        if size == 0:
            out[outside] = N
        elif contig in self.circular if circular is None else circular:
            out[outside] = codes[positions % size]
        else:
            known = (positions >= 0) & (positions < size)
            out[outside] = np.where(known, codes[np.clip(positions, 0, size - 1)], N)
        return out

    def _read(self, contig: str) -> Codes:
        size, step = self.contigs[contig], 1 << 24
        out = np.empty(size, dtype=np.uint8)
        for start in range(0, size, step):
            end = min(start + step, size)
            try:
                text = self._fasta.fetch(contig, start, end)
            except (OSError, ValueError) as error:
                raise InputError(
                    f"{self.path}: cannot read {contig}: {error}; {_anew(self.path)}"
                ) from error
            # An index of an older file leads across line ends, into a header or past the end.
            if len(text) != end - start or "\n" in text or ">" in text:
                raise InputError(
                    f"{self.path}: {contig} does not have the {size} bases in the lines that its "
                    f"index says; {_anew(self.path)}"
                )
            out[start:end] = to_codes(text)
        out.flags.writeable = False
        return out


def _open_fasta(path: str) -> pysam.FastaFile:
    import pysam

    if not Path(path).is_file():
        found = "a folder, not a FASTA" if Path(path).is_dir() else "no such FASTA file"
        raise InputError(f"{path}: {found}; name one with -f REF.fa")
    _check_compression(path)
    pysam.set_verbosity(0)  # htslib's own lines would come on top of ours
    had_index = Path(path + ".fai").exists()
    try:
        fasta = pysam.FastaFile(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {_why_unreadable(path, had_index)}") from error
    if not fasta.references:
        raise InputError(f"{path}: no sequence in it; a FASTA starts with '>'")
    if not had_index:
        logger.info("made the index %s.fai", path)
    elif Path(path).stat().st_mtime > Path(path + ".fai").stat().st_mtime + 1:
        logger.warning("%s is newer than its index; if it changed: samtools faidx %s", path, path)
    return fasta


def _why_unreadable(path: str, had_index: bool) -> str:
    """Say what htslib only prints: why a FASTA cannot be opened, and what mends it."""
    folder = Path(path).parent
    if had_index:
        return f"its index cannot be read; {_anew(path)}"
    if not os.access(folder, os.W_OK):
        return (
            f"has no index, and the folder {folder} is not writable; copy the FASTA elsewhere and "
            "run: samtools faidx COPY.fa"
        )
    return (
        f"no index {path}.fai can be made: a FASTA needs lines of equal length within a sequence, "
        f"and bases in its first one; for the line at fault run: samtools faidx {path}"
    )


def _anew(path: str) -> str:
    return f"run: rm -f {path}.fai {path}.gzi && samtools faidx {path}"


def _check_compression(path: str) -> None:
    try:
        with open(path, "rb") as handle:
            head = handle.read(18)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    gzipped, blocked = head[:2] == b"\x1f\x8b", head[12:14] == b"BC"
    if gzipped and not blocked:
        plain = path.removesuffix(".gz")
        raise InputError(
            f"{path}: gzipped, but not in blocks, so it has no random access; run: "
            f"gunzip {path} && bgzip {plain} && samtools faidx {path}"
        )
    if not gzipped and head[:1] not in (b">", b"\n"):
        raise InputError(f"{path}: not a FASTA: it starts with {head[:8]!r}, not with '>'")
