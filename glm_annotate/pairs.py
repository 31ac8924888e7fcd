"""Haplotype pairs as a model reads them: windows of one strand, encoded, with what changed.

A `Pair` holds alleles whose REF haplotypes have one number of rows and whose ALT haplotypes have
one, in the coordinates of the strand that is read. What evidence masks, compares or pools follows
from it without asking which model or strand it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from glm_annotate.card import ModelCard
from glm_annotate.channels import Beside, Channels, Values, as_rows, reverse_channels
from glm_annotate.encoding import Encoded, Spans, refused
from glm_annotate.genome import Codes, Genome, reverse_complement
from glm_annotate.plan import Plan, Sequences
from glm_annotate.variants import Alleles
from glm_annotate.windows import WindowBatch, cut_stretches, shared_ends

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Stretch = tuple[int, int]  # bases of a window, 0-based half-open


@dataclass(frozen=True)
class Haplotypes:
    """One side of a pair.

    Attributes:
        codes: Base codes, shape (n, L).
        encoded: Their rows and spans.
        plan: Where passes over them are named.
        site: Where the trimmed allele lies.
        kept: Bases that the other side's window holds too, or would hold but for the allele.
        beside: Channels of every row, shape (n, T, C); None where the model has none.
    """

    codes: Codes
    encoded: Encoded
    plan: Plan
    site: Stretch
    kept: Stretch
    beside: Values | None = None

    @cached_property
    def sequences(self) -> Sequences:
        """The sequences in the plan, which takes in only those that some pass reads."""
        return self.plan.add(self.encoded, self.beside)

    @property
    def spans(self) -> Spans:
        """Spans, shape (1 or n, T, 2)."""
        return self.encoded.spans

    def spans_at(self, member: Ints, row: Ints) -> Spans:
        """Read the spans of some rows, shape (m, 2)."""
        found: Spans = self.spans[0, row] if self.spans.shape[0] == 1 else self.spans[member, row]
        return found

    def spans_of(self, member: int) -> Spans:
        """Read the spans of one sequence, shape (T, 2)."""
        found: Spans = self.spans[0 if self.spans.shape[0] == 1 else member]
        return found

    def known_at(self, member: Ints, row: Ints) -> Bools:
        """Say which of some rows (m,) stand for A, C, G and T alone; special tokens do not."""
        spans = self.spans_at(member, row)
        start, end = spans[:, 0, None], spans[:, 1, None]
        at = start + np.arange(max(1, int((end - start).max(initial=1))))
        odd = self.codes[member[:, None], np.minimum(at, self.codes.shape[1] - 1)] > 3
        return np.asarray(~(odd & (at < end)).any(axis=1) & (end > start)[:, 0])

    def known_rows(self) -> Bools:
        """Say which rows stand for A, C, G and T alone, shape (n, T); special tokens do not."""
        strange = np.pad(np.cumsum(self.codes > 3, axis=1), ((0, 0), (1, 0)))  # (n, L + 1)
        start, end = self.spans[..., 0], self.spans[..., 1]
        member = np.arange(self.codes.shape[0])[:, None]
        odd: Ints = strange[member, np.maximum(end, 0)] - strange[member, np.maximum(start, 0)]
        return np.asarray((odd == 0) & (end > start))


@dataclass(frozen=True, slots=True)
class Pair:
    """Alleles as one strand shows them.

    Attributes:
        allele: Index of each allele in its `Alleles`, shape (n,).
        ref: REF haplotypes; `alt`: ALT haplotypes.
        changed: Bases that differ, shape (1 or n, c); c = 0 where lengths differ.
        focus: The first changed base on the forward strand, shape (1 or n,).
        reverse: The strand.
    """

    allele: Ints
    ref: Haplotypes
    alt: Haplotypes
    changed: Ints
    focus: Ints
    reverse: bool

    @property
    def size(self) -> int:
        """Number of alleles."""
        return int(self.allele.size)

    @property
    def members(self) -> Ints:
        """0 to n - 1."""
        return np.arange(self.allele.size)

    @property
    def is_substitution(self) -> bool:
        """Whether the alleles have equal lengths."""
        return bool(self.changed.shape[1])


def touching(spans: Spans, bases: Ints) -> Bools:
    """Say which rows touch a base.

    Args:
        spans: Shape (1 or n, T, 2).
        bases: Places in the window, shape (1 or n, c).

    Returns:
        Shape (1 or n, T).
    """
    start, end = spans[..., 0, None], spans[..., 1, None]  # (1 or n, T, 1)
    at = bases[:, None, :]
    return np.asarray(((start <= at) & (at < end)).any(axis=2))


def members_rows(rows: Bools, n: int) -> tuple[Ints, Ints]:
    """List (member, row) of rows (1 or n, T) that are True, for n members."""
    if rows.shape[0] == n:
        member, row = np.nonzero(rows)
        return member, row
    shared = np.flatnonzero(rows[0])
    return np.repeat(np.arange(n), shared.size), np.tile(shared, n)


def as_masks(rows: Bools) -> Ints:
    """Turn rows (m, T) that are True into lists of rows (m, w), filled up with -1."""
    counts = rows.sum(axis=1)
    out = np.full((rows.shape[0], int(counts.max(initial=0))), -1, dtype=np.int64)
    member, row = np.nonzero(rows)
    out[member, np.arange(member.size) - np.repeat(np.cumsum(counts) - counts, counts)] = row
    return out


def ids_at(side: Haplotypes, member: Ints, row: Ints) -> Ints:
    """Read the ids of some rows, shape (m,); of one_hot rows, the channel."""
    found = side.encoded.rows[member, row]
    return np.asarray(found.argmax(axis=1) if found.ndim == 2 else found, dtype=np.int64)


def sum_by(owner: Ints, values: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Sum values (m,) by their owner, shape (n,)."""
    return np.bincount(owner, weights=values, minlength=n).astype(np.float64, copy=False)


def variant_pairs(batch: WindowBatch, plan: Plan, reverse: bool) -> Iterator[Pair]:
    """Encode the windows of alleles for one strand."""
    length, (ref_end, alt_end) = batch.length, shared_ends(batch)
    ref_site = batch.offset, batch.offset + batch.ref_len
    alt_site = batch.offset, batch.offset + batch.alt_len
    ref_kept, alt_kept = (0, ref_end), (0, alt_end)
    changed = np.array([batch.changed], dtype=np.int64).reshape(1, -1)
    focus = np.array([batch.offset])
    ref, alt, beside = batch.ref, batch.alt, batch.beside
    if reverse:
        ref, alt = reverse_complement(ref), reverse_complement(alt)
        ref_site, alt_site = _flip(ref_site, length), _flip(alt_site, length)
        ref_kept, alt_kept = _flip(ref_kept, length), _flip(alt_kept, length)
        changed, focus = length - 1 - changed, length - 1 - focus
    sides = (ref, ref_site, ref_kept), (alt, alt_site, alt_kept)
    yield from _pairs(plan, batch.allele, sides, changed, focus, reverse, beside)


def cuts(batch: WindowBatch, plan: Plan) -> bool:
    """Say whether token lists can be compared only between the same two bases of the contig.

    So it is where rows differ in length (byte pairs) and alleles too: the windows' far ends are
    split into other tokens, and the lists would never agree again behind an indel.
    """
    return not batch.changed and plan.encoder.base_ids(plan.encoder.spec.k, 0) is None


def cut_pairs(batch: WindowBatch, plan: Plan, reverse: bool) -> Iterator[Pair]:
    """Encode haplotypes that begin and end at the same bases of the contig, for one strand."""
    sides: list[_Side] = []
    ends = shared_ends(batch)
    for codes, end, size in zip(
        (batch.ref, batch.alt), ends, (batch.ref_len, batch.alt_len), strict=True
    ):
        site, kept = (batch.offset, batch.offset + size), codes[:, :end]
        if reverse:
            site, kept = _flip(site, end), reverse_complement(kept)
        sides.append((kept, site, (0, end)))
    none = np.zeros((1, 0), dtype=np.int64)
    focus = np.array([batch.offset])
    yield from _pairs(plan, batch.allele, (sides[0], sides[1]), none, focus, reverse, None)


def grid_pairs(
    genome: Genome,
    alleles: Alleles,
    batch: WindowBatch,
    card: ModelCard,
    circular: frozenset[str],
    plan: Plan,
    reverse: bool,
    channels: Channels | None = None,
) -> Iterator[Pair]:
    """Encode the same substitutions in windows of the fixed grid of their contig.

    Window k starts at k x half - quarter and answers for its central half. Alleles whose last
    changed base lies past the window's end are left out, and so are windows of more rows than the
    model takes (narrowing them would take them off the grid) or of letters that it refuses.
    """
    if not batch.changed:  # an indel, which no score of the grid reads
        yield from variant_pairs(batch, plan, reverse)
        return
    half, quarter, length = card.context // 2, card.context // 4, card.context
    start = batch.left + batch.offset
    left = start // max(1, half) * half - quarter
    places = start[:, None] - left[:, None] + np.array(batch.changed) - batch.offset  # (n, c)
    chosen = np.flatnonzero(places[:, -1] < length)
    if not chosen.size:
        return
    places, left = places[chosen], left[chosen]
    allele = batch.allele[chosen]
    ref, values = cut_stretches(genome, alleles, allele, left, length, circular, channels)
    inside: Ints = np.array(batch.changed)
    member = np.arange(chosen.size)[:, None]
    ref[member, places] = batch.ref[chosen][:, inside]
    alt = ref.copy()
    alt[member, places] = batch.alt[chosen][:, inside]
    good = np.flatnonzero(~refused(ref, card.encoder))
    ref, alt, places, allele = ref[good], alt[good], places[good], allele[good]
    beside = None if values is None else Beside(values, values).take(good)
    if reverse:
        ref, alt, places = reverse_complement(ref), reverse_complement(alt), length - 1 - places
    whole = (0, length)
    sides = (ref, whole, whole), (alt, whole, whole)
    limit = row_limit(card)
    for pair in _pairs(plan, allele, sides, places, places[:, 0], reverse, beside):
        if pair.ref.encoded.rows.shape[1] <= limit:
            yield pair


def row_limit(card: ModelCard) -> int:
    """Give the most rows that a whole window may have."""
    vocab = card.encoder.vocab
    return card.window.max_tokens or card.context + len(vocab.prefix + vocab.suffix)


def _flip(stretch: Stretch, length: int) -> Stretch:
    return length - stretch[1], length - stretch[0]


_Side = tuple[Codes, Stretch, Stretch]


def _pairs(
    plan: Plan,
    allele: Ints,
    sides: tuple[_Side, _Side],
    changed: Ints,
    focus: Ints,
    reverse: bool,
    beside: Beside | None,
) -> Iterator[Pair]:
    """Encode both sides, and split where members differ in their number of rows."""
    (ref, ref_site, ref_kept), (alt, alt_site, alt_kept) = sides
    beside = beside and _beside_rows(beside, plan, reverse)
    for first in plan.encoder.encode(ref):
        for second in plan.encoder.encode(alt):
            both = np.intersect1d(first.index, second.index, assume_unique=True)
            if not both.size:
                continue
            whole = both.size == allele.size
            old, new = _members(first, both), _members(second, both)
            near = beside if beside is None or whole else beside.take(both)
            ref_codes, alt_codes = (ref, alt) if whole else (ref[both], alt[both])
            yield Pair(
                allele if whole else allele[both],
                Haplotypes(ref_codes, old, plan, ref_site, ref_kept, near.ref if near else None),
                Haplotypes(alt_codes, new, plan, alt_site, alt_kept, near.alt if near else None),
                changed if changed.shape[0] == 1 else changed[both],
                focus if focus.shape[0] == 1 else focus[both],
                reverse,
            )


def _beside_rows(beside: Beside, plan: Plan, reverse: bool) -> Beside:
    """Turn channels of bases into those of the strand's rows."""
    spec = plan.encoder.spec

    def rows(values: Values) -> Values:
        return as_rows(reverse_channels(values, spec) if reverse else values, spec)

    return beside.map(rows)


def _members(encoded: Encoded, both: Ints) -> Encoded:
    """Keep some sequences of a group."""
    if both.size == encoded.index.size:
        return encoded
    at = np.flatnonzero(np.isin(encoded.index, both, assume_unique=True))
    return Encoded(both, encoded.rows[at], encoded.spans_of(at))
