"""Alleles out of records: what each ALT changes, or why it cannot be scored.

`Variant` is one ALT as a person writes it. `Alleles` is the same for a whole chunk, in columns:
single-base substitutions, which are nearly all of a file, never become objects. Trimming and
left-alignment serve the scores only; the record is written as it came.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from glm_annotate.genome import BITS, Codes, Genome, N, to_codes
from glm_annotate.skips import SKIPS as SKIPS
from glm_annotate.skips import Skip as Skip
from glm_annotate.skips import skip_code as skip_code


@dataclass(frozen=True, slots=True)
class Variant:
    """One ALT allele; `pos` is 1-based as in VCF, `start` and `end` are 0-based half-open."""

    chrom: str
    pos: int
    ref: str
    alt: str

    @property
    def start(self) -> int:
        """First base of REF, 0-based."""
        return self.pos - 1

    @property
    def end(self) -> int:
        """End of REF, 0-based, exclusive."""
        return self.start + len(self.ref)

    def __str__(self) -> str:
        return f"{self.chrom}:{self.pos}:{self.ref}:{self.alt}"


@dataclass(slots=True)
class Alleles:
    """The ALT alleles of a chunk of records, in record and ALT order.

    Attributes:
        record: Index of the allele's record in the chunk, shape (n,).
        contig: Index into `contigs` (FASTA names), -1 where the FASTA lacks the contig.
        start: First changed base, 0-based, after trimming and left-alignment.
        ref_len: Bases of the trimmed REF allele; `alt_len`: of the trimmed ALT allele.
        ref_base: REF code where both lengths are 1; `alt_base`: the ALT code.
        skip: 0, or the code of the reason for the whole allele (see `skip_code`).
        edits: Trimmed (REF, ALT) codes of every other allele without a reason. A symbolic
            allele too long for any window has none, only its lengths.
        compared: How REF compares with the FASTA, one value a record: 1 it agrees, 2 it
            disagrees, 0 they could not be compared. Records without an ALT have 0.
    """

    contigs: list[str]
    record: NDArray[np.int64]
    contig: NDArray[np.int64]
    start: NDArray[np.int64]
    ref_len: NDArray[np.int64]
    alt_len: NDArray[np.int64]
    ref_base: Codes
    alt_base: Codes
    skip: NDArray[np.int64]
    edits: dict[int, tuple[Codes, Codes]] = field(default_factory=dict)
    compared: Codes = field(default_factory=lambda: np.zeros(0, dtype=np.uint8))

    def __len__(self) -> int:
        return int(self.record.size)

    def edit(self, i: int) -> tuple[Codes, Codes]:
        """Give the trimmed REF and ALT codes of one allele."""
        if i in self.edits:
            return self.edits[i]
        return self.ref_base[i : i + 1], self.alt_base[i : i + 1]


def trim(ref: Codes, alt: Codes) -> tuple[int, Codes, Codes]:
    """Remove the common suffix, then the common prefix.

    Returns:
        How many bases the prefix had, and what is left of REF and ALT.
    """
    shortest = min(ref.size, alt.size)
    same = ref[ref.size - shortest :][::-1] == alt[alt.size - shortest :][::-1]
    suffix = shortest if same.all() else int(same.argmin())
    ref, alt = ref[: ref.size - suffix], alt[: alt.size - suffix]
    shortest = min(ref.size, alt.size)
    same = ref[:shortest] == alt[:shortest]
    prefix = shortest if same.all() else int(same.argmin())
    return prefix, ref[prefix:], alt[prefix:]


def left_align(
    codes: Codes, start: int, ref: Codes, alt: Codes, *, circular: bool
) -> tuple[int, Codes, Codes]:
    """Move a pure insertion or deletion as far left as its haplotype allows.

    On a circular contig it may pass the origin, and the place behind the last base is the place
    before the first. It stops at letters other than A, C, G, T, which equal nothing.
    """
    if bool(ref.size) == bool(alt.size):
        return start, ref, alt
    moved = alt if alt.size else ref
    at, shift, size = start % codes.size if circular else start, 0, moved.size
    limit = codes.size if circular else start
    while shift < limit:
        before = codes[at - 1]
        if before >= N or before != moved[(size - 1 - shift) % size]:
            break
        at, shift = (at - 1) % codes.size, shift + 1
    # A long symbolic deletion that stays in place remains a view of the contig.
    rolled = np.roll(moved, shift % size) if shift % size else moved
    return at, (ref if alt.size else rolled), (rolled if alt.size else alt)


_BASES = re.compile(r"[ACGTUacgtu]+\Z")
# A duplication that is put elsewhere has a place that the record does not tell.
_STRUCTURAL = re.compile(r"<(?:(?:DEL|INV)(?::[^>]*)?|DUP(?::TANDEM(?::[^>]*)?)?)>\Z")
_LENGTH = re.compile(r"[+-]?[0-9]{1,18}")


def alt_skip(alt: str) -> Skip | None:
    """Say why an ALT as written cannot be scored as bases, or None if it can."""
    if _BASES.match(alt):
        return None
    if alt == "*":
        return Skip.SPANNING
    if "[" in alt or "]" in alt or (len(alt) > 1 and (alt[0] == "." or alt[-1] == ".")):
        return Skip.BREAKEND
    if alt.startswith("<"):
        return Skip.SYMBOLIC
    return Skip.AMBIGUOUS


def symbolic_length(alt: str, pos: int, info: str, which: int, alts: int) -> int | None:
    """Length of a `<DEL>`, `<DUP>` or `<INV>`: |SVLEN| of that ALT, else END - POS.

    Returns:
        The number of bases, or None where there is none or the two contradict each other.
    """
    if _STRUCTURAL.match(alt) is None:
        return None
    values = dict(x.partition("=")[::2] for x in info.split(";"))
    lengths = values.get("SVLEN", "").split(",")
    written = lengths[which] if len(lengths) == alts else ""
    length = abs(int(written)) if _LENGTH.fullmatch(written) else None
    end = values.get("END", "")
    span = int(end) - pos if _LENGTH.fullmatch(end) else None
    if length is None:
        return span if span is not None and span > 0 else None
    contradicts = span is not None and (length > span if alts > 1 else length != span)
    return None if contradicts or length < 1 else length


class AlleleReader:
    """Turns the columns of a chunk into `Alleles`.

    Args:
        genome: The reference.
        circular: FASTA names of contigs that wrap around.
        contig_map: The user's own VCF-to-FASTA contig names.
        longest: Symbolic alleles longer than this are not spelled out, only measured.
    """

    def __init__(
        self,
        genome: Genome,
        *,
        circular: frozenset[str] = frozenset(),
        contig_map: dict[str, str] | None = None,
        longest: int = 1 << 20,
    ) -> None:
        self._genome = genome
        self._circular, self._longest = circular, longest
        self._map = contig_map
        self._contigs = list(genome.contigs)
        self._number = {name: i for i, name in enumerate(self._contigs)}
        self._known: dict[bytes, int] = {}

    def read(
        self,
        chroms: Sequence[bytes],
        pos: NDArray[np.int64],
        refs: Sequence[bytes],
        alts: Sequence[bytes],
        infos: Sequence[bytes],
    ) -> Alleles:
        """Read the alleles of a chunk; columns as in VCF, `pos` 1-based, one value a record."""
        counts = np.array([0 if a == b"." else a.count(b",") + 1 for a in alts], dtype=np.int64)
        record = np.repeat(np.arange(counts.size), counts)
        contig = np.array([self._contig(c) for c in chroms], dtype=np.int64)
        ref_lens = np.fromiter(map(len, refs), dtype=np.int64, count=len(refs))
        alt_lens = np.fromiter(map(len, alts), dtype=np.int64, count=len(alts))
        simple = (ref_lens == 1) & (alt_lens == 1) & (counts == 1)
        out = _empty(self._contigs, record, contig[record], pos[record] - 1, counts.size)
        first = np.cumsum(counts) - counts
        chosen = np.flatnonzero(simple)
        if chosen.size:
            self._read_simple(out, chosen, first[chosen], refs, alts)
        for i in np.flatnonzero(~simple & (counts > 0)).tolist():
            listed = alts[i].decode("latin-1").split(",")
            self._read_record(out, i, int(first[i]), int(pos[i]), refs[i], listed, infos[i])
        return out

    def _contig(self, name: bytes) -> int:
        if name not in self._known:
            found = self._genome.resolve(name.decode("utf-8", "replace"), self._map)
            self._known[name] = -1 if found is None else self._number[found]
        return self._known[name]

    def _read_simple(
        self,
        out: Alleles,
        records: NDArray[np.int64],
        at: NDArray[np.int64],
        refs: Sequence[bytes],
        alts: Sequence[bytes],
    ) -> None:
        """Read records with a one-letter REF and ALT, all at once."""
        listed = records.tolist()
        ref_text = b"".join([refs[i] for i in listed])
        alt_text = b"".join([alts[i] for i in listed])
        out.ref_base[at] = ref = to_codes(ref_text)
        out.alt_base[at] = alt = to_codes(alt_text)
        alt_letters = np.frombuffer(alt_text, dtype=np.uint8)
        skip = np.zeros(at.size, dtype=np.int64)
        fasta = self._bases_at(out.contig[at], out.start[at], skip)
        clear = (skip == 0) & (ref < 4) & (fasta != N)
        odd = alt == N
        for letter in np.unique(alt_letters[odd]):
            reason = alt_skip(chr(letter))
            if reason in (Skip.SPANNING, Skip.SYMBOLIC, Skip.BREAKEND):
                skip[odd & (alt_letters == letter)] = skip_code(reason)
        agrees = (BITS[fasta] & BITS[ref]) != 0
        out.compared[records[clear]] = np.where(agrees[clear], 1, 2)
        _set(skip, clear & ~agrees, Skip.REF_MISMATCH)
        _set(skip, ~clear | (alt > 3), Skip.AMBIGUOUS)
        _set(skip, ref == alt, Skip.NO_CHANGE)
        out.skip[at] = skip

    def _bases_at(
        self, contig: NDArray[np.int64], start: NDArray[np.int64], skip: NDArray[np.int64]
    ) -> Codes:
        """Look the FASTA's bases up; where there is none, say why in `skip`."""
        out = np.full(contig.size, N, dtype=np.uint8)
        skip[contig < 0] = skip_code(Skip.CONTIG_MISSING)
        for number in np.unique(contig[contig >= 0]):
            here = np.flatnonzero(contig == number)
            codes = self._genome.codes(self._contigs[number])
            inside = (start[here] >= 0) & (start[here] < codes.size)
            out[here[inside]] = codes[start[here[inside]]]
            skip[here[~inside]] = skip_code(Skip.OFF_CONTIG)
        return out

    def _read_record(
        self,
        out: Alleles,
        record: int,
        first: int,
        pos: int,
        ref_text: bytes,
        alts: list[str],
        info: bytes,
    ) -> None:
        ref = to_codes(ref_text)
        shared = self._check_ref(out, record, int(out.contig[first]), pos - 1, ref)
        for which, alt in enumerate(alts):
            i = first + which
            reason = alt_skip(alt)
            if reason is Skip.SYMBOLIC:
                self._read_symbolic(out, i, pos, alt, which, len(alts), info, shared)
            elif reason in (Skip.SPANNING, Skip.BREAKEND):
                out.skip[i] = skip_code(reason)
            elif (why := shared or reason) is not None:
                out.skip[i] = skip_code(why)
            else:
                prefix, old, new = trim(ref, to_codes(alt))
                self._store(out, i, pos - 1 + prefix, old, new)

    def _check_ref(
        self, out: Alleles, record: int, number: int, start: int, ref: Codes
    ) -> Skip | None:
        if number < 0:
            return Skip.CONTIG_MISSING
        codes = self._genome.codes(self._contigs[number])
        if start < 0 or start + ref.size > codes.size:
            return Skip.OFF_CONTIG
        fasta = codes[start : start + ref.size]
        if not ref.size or bool((ref > 3).any()) or bool((fasta == N).any()):
            return Skip.AMBIGUOUS
        agrees = bool(((BITS[fasta] & BITS[ref]) != 0).all())
        out.compared[record] = 1 if agrees else 2
        return None if agrees else Skip.REF_MISMATCH

    def _read_symbolic(
        self,
        out: Alleles,
        i: int,
        pos: int,
        alt: str,
        which: int,
        alts: int,
        info: bytes,
        shared: Skip | None,
    ) -> None:
        length = symbolic_length(alt, pos, info.decode("latin-1"), which, alts)
        if length is None or shared:
            out.skip[i] = skip_code(Skip.SYMBOLIC if length is None or not shared else shared)
            return
        codes = self._genome.codes(self._contigs[int(out.contig[i])])
        stretch, kind = codes[pos : pos + length], alt[1:4]
        if pos + length > codes.size:
            out.skip[i] = skip_code(Skip.OFF_CONTIG)
        elif length > self._longest:
            out.start[i], out.ref_len[i] = pos, 0 if kind == "DUP" else length
            out.alt_len[i] = 0 if kind == "DEL" else length
        elif bool((stretch > 3).any()):
            out.skip[i] = skip_code(Skip.AMBIGUOUS)
        elif kind == "DUP":
            self._store(out, i, pos, stretch[:0], stretch)
        elif kind == "DEL":
            self._store(out, i, pos, stretch, stretch[:0])
        else:
            prefix, old, new = trim(stretch, (3 - stretch[::-1]).astype(np.uint8))
            self._store(out, i, pos + prefix, old, new)

    def _store(self, out: Alleles, i: int, start: int, ref: Codes, alt: Codes) -> None:
        if not ref.size and not alt.size:
            out.skip[i] = skip_code(Skip.NO_CHANGE)
            return
        name = self._contigs[int(out.contig[i])]
        codes = self._genome.codes(name)
        start, ref, alt = left_align(codes, start, ref, alt, circular=name in self._circular)
        out.start[i], out.ref_len[i], out.alt_len[i] = start, ref.size, alt.size
        if ref.size == alt.size == 1:
            out.ref_base[i], out.alt_base[i] = ref[0], alt[0]
        else:
            out.edits[i] = (ref, alt)


def _empty(
    contigs: list[str],
    record: NDArray[np.int64],
    contig: NDArray[np.int64],
    start: NDArray[np.int64],
    records: int,
) -> Alleles:
    n = record.size
    return Alleles(
        contigs,
        record,
        contig.copy(),
        start.copy(),
        np.ones(n, dtype=np.int64),
        np.ones(n, dtype=np.int64),
        np.full(n, N, dtype=np.uint8),
        np.full(n, N, dtype=np.uint8),
        np.zeros(n, dtype=np.int64),
        compared=np.zeros(records, dtype=np.uint8),
    )


def _set(skip: NDArray[np.int64], where: NDArray[np.bool_], reason: Skip) -> None:
    """Set a reason where there is none yet."""
    skip[where & (skip == 0)] = skip_code(reason)
