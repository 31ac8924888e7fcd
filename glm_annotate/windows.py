"""REF and ALT haplotypes around alleles, cut for a whole batch at once.

A window has the same left edge for both haplotypes, and `context` bases each; the changed bases
begin at `offset` in both. The reverse strand is the reverse complement of these same windows.
Where a model reads channels beside the bases, windows hold them too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm_annotate.card import ModelCard
from glm_annotate.channels import Beside, Channels
from glm_annotate.encoding import Encoder
from glm_annotate.genome import Codes, Genome, reverse_complement
from glm_annotate.variants import Alleles


@dataclass(frozen=True, slots=True)
class WindowBatch:
    """Windows of alleles that change the same number of bases in the same place of the window.

    Attributes:
        allele: Index of each allele in its `Alleles`, shape (n,).
        left: Left edge of the windows on the contig, 0-based, may be negative, shape (n,).
        ref: REF haplotypes, shape (n, L); `alt`: ALT haplotypes, shape (n, L).
        offset: Index of the first changed base in the window.
        ref_len: Bases of the trimmed REF allele; `alt_len`: of the trimmed ALT allele.
        changed: Places in the window of bases that differ; empty where the lengths differ.
        beside: Channels of both haplotypes, shape (n, L, C) each; None where the model has none.
    """

    allele: NDArray[np.int64]
    left: NDArray[np.int64]
    ref: Codes
    alt: Codes
    offset: int
    ref_len: int
    alt_len: int
    changed: tuple[int, ...]
    beside: Beside | None = None

    @property
    def length(self) -> int:
        """Bases of each window."""
        return int(self.ref.shape[1])

    def take(self, which: NDArray[np.int64]) -> WindowBatch:
        """Keep some of the windows."""
        return WindowBatch(
            self.allele[which],
            self.left[which],
            self.ref[which],
            self.alt[which],
            self.offset,
            self.ref_len,
            self.alt_len,
            self.changed,
            self.beside and self.beside.take(which),
        )

    def narrowed(self, left: int, right: int) -> WindowBatch:
        """Cut bases off both ends of every window."""
        keep = slice(left, self.length - right)
        return WindowBatch(
            self.allele,
            self.left + left,
            self.ref[:, keep],
            self.alt[:, keep],
            self.offset - left,
            self.ref_len,
            self.alt_len,
            tuple(x - left for x in self.changed),
            self.beside and self.beside.narrowed(keep),
        )


def too_long(alleles: Alleles, card: ModelCard) -> NDArray[np.bool_]:
    """Say which alleles do not fit a window behind the anchor."""
    longest: NDArray[np.int64] = np.maximum(alleles.ref_len, alleles.alt_len)
    return card.anchor + longest > card.context


def cut_windows(
    genome: Genome,
    alleles: Alleles,
    chosen: NDArray[np.int64],
    card: ModelCard,
    circular: frozenset[str],
    channels: Channels | None = None,
) -> Iterator[WindowBatch]:
    """Cut the windows of some alleles, in batches of one shape.

    Args:
        genome: The reference.
        alleles: Columns of the chunk's alleles.
        chosen: Which of them to cut: none with a reason, all short enough (see `too_long`).
        card: Gives context and anchor.
        circular: FASTA names of contigs that wrap around.
        channels: What the model reads beside the bases, known on every contig in use.
    """
    substitution = (alleles.ref_len[chosen] == 1) & (alleles.alt_len[chosen] == 1)
    single = chosen[substitution]
    if single.size:
        ref, alt = alleles.ref_base[single, None], alleles.alt_base[single, None]
        yield _cut(genome, alleles, single, ref, alt, (0,), card, circular, channels)
    for (_, _, changed), members in _by_shape(alleles, chosen[~substitution]).items():
        index = np.array(members)
        pairs = [alleles.edit(i) for i in members]
        ref, alt = np.stack([r for r, _ in pairs]), np.stack([a for _, a in pairs])
        yield _cut(genome, alleles, index, ref, alt, changed, card, circular, channels)


def _by_shape(
    alleles: Alleles, chosen: NDArray[np.int64]
) -> dict[tuple[int, int, tuple[int, ...]], list[int]]:
    shapes: dict[tuple[int, int, tuple[int, ...]], list[int]] = {}
    for i in chosen.tolist():
        ref, alt = alleles.edit(i)
        same = ref.size == alt.size
        changed = tuple(np.flatnonzero(ref != alt).tolist()) if same else ()
        shapes.setdefault((ref.size, alt.size, changed), []).append(i)
    return shapes


def _cut(
    genome: Genome,
    alleles: Alleles,
    index: NDArray[np.int64],
    ref: Codes,
    alt: Codes,
    changed: tuple[int, ...],
    card: ModelCard,
    circular: frozenset[str],
    channels: Channels | None,
) -> WindowBatch:
    """Cut windows of alleles with REF codes (n, r) and ALT codes (n, a)."""
    context, anchor = card.context, card.anchor
    old, new = ref.shape[1], alt.shape[1]
    left = alleles.start[index] - anchor
    span = context + max(0, old - new)
    stretch, values = cut_stretches(genome, alleles, index, left, span, circular, channels)
    stretch[:, anchor : anchor + old] = ref  # the record's bases where the FASTA has IUPAC codes
    after = stretch[:, anchor + old : anchor + old + context - anchor - new]
    haplotype = np.concatenate([stretch[:, :anchor], alt, after], axis=1)
    places = tuple(anchor + x for x in changed)
    beside = None
    if channels is not None and values is not None:
        beside = channels.haplotypes(values, context, anchor, old, new)
    ref = stretch[:, :context]
    return WindowBatch(index, left, ref, haplotype, anchor, old, new, places, beside)


def cut_stretches(
    genome: Genome,
    alleles: Alleles,
    index: NDArray[np.int64],
    left: NDArray[np.int64],
    span: int,
    circular: frozenset[str],
    channels: Channels | None,
) -> tuple[Codes, NDArray[Any] | None]:
    """Cut bases of the reference, shape (n, span), and the channels there, shape (n, span, C)."""
    stretch = np.empty((index.size, span), dtype=np.uint8)
    values = None if channels is None else channels.blank(index.size, span)
    contig = alleles.contig[index]
    for number in np.unique(contig):
        here = np.flatnonzero(contig == number)
        name = alleles.contigs[int(number)]
        wraps = name in circular
        stretch[here] = genome.windows(name, left[here], span, circular=wraps)
        if channels is not None and values is not None:
            values[here] = channels.windows(name, left[here], span, circular=wraps)
    return stretch, values


def fit(batch: WindowBatch, card: ModelCard, encoder: Encoder) -> Iterator[WindowBatch]:
    """Narrow the windows of a model with a dynamic window until their rows fit.

    Both flanks lose the same number of bases as long as both have some. How much an allele's
    window loses depends on that allele alone: on the larger number of rows of its two haplotypes
    and both strands, so that neither the strand nor the order of alleles matters. An allele that
    has too many rows without any flank does not come out.
    """
    limit = card.window.max_tokens
    if card.window.kind == "fixed" or limit is None:
        yield batch
        return
    while batch.allele.size:
        rows = _row_counts(batch, encoder)
        good = rows <= limit
        if good.any():
            yield batch.take(np.flatnonzero(good))
        batch = batch.take(np.flatnonzero(~good))
        if not batch.allele.size:
            return
        narrower = _narrow(batch, rows[~good], limit)
        if narrower is None:
            return
        for part in narrower[1:]:
            yield from fit(part, card, encoder)
        batch = narrower[0]


def shared_ends(batch: WindowBatch) -> tuple[int, int]:
    """Say where both haplotypes have the last base of the contig that both hold: REF, ALT."""
    grown = batch.alt_len - batch.ref_len
    return batch.length - max(0, grown), batch.length - max(0, -grown)


def _row_counts(batch: WindowBatch, encoder: Encoder) -> NDArray[np.int64]:
    rows = np.zeros(batch.allele.size, dtype=np.int64)
    ends = shared_ends(batch)
    # A shorter haplotype may have more byte pairs: its last token is cut into smaller ones.
    cut = (batch.ref[:, : ends[0]], batch.alt[:, : ends[1]]) if not batch.changed else ()
    for codes in (batch.ref, batch.alt, *cut):
        for strand in (codes, reverse_complement(codes)):
            for group in encoder.encode(strand):
                rows[group.index] = np.maximum(rows[group.index], group.rows.shape[1])
    return rows


def _narrow(batch: WindowBatch, rows: NDArray[np.int64], limit: int) -> list[WindowBatch] | None:
    """Cut every window in proportion to its excess; None where nothing is left to cut."""
    needed = max(batch.ref_len, batch.alt_len, 1)
    wanted = np.minimum(batch.length * limit // rows, batch.length - 2)
    wanted = np.maximum(wanted, needed)
    if batch.length <= needed:
        return None
    parts = []
    for length in np.unique(wanted):
        loss = batch.length - int(length)
        room_left = batch.offset
        room_right = batch.length - batch.offset - needed
        left = min(loss // 2, room_left)
        right = min(loss - left, room_right)
        left = min(loss - right, room_left)
        parts.append(batch.take(np.flatnonzero(wanted == length)).narrowed(left, right))
    return parts
