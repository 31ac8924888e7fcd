"""Pseudo log-likelihood ratios: each row that differs between the haplotypes, masked on its own.

Rows that both token lists share at their beginning and at their end say nothing and are left out,
after both lists are cut at the last base that both windows hold. Rows that overlap cannot be
masked one by one, since their neighbours give them away: there, bases take the place of rows, all
rows touching a base are masked together, and the sum is divided by k / stride.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from glm_annotate.answers import Floats, Ints
from glm_annotate.pairs import Bools, Haplotypes, Pair, as_masks, ids_at, sum_by, touching
from glm_annotate.plan import Ticket
from glm_annotate.variants import Skip, skip_code

_LOG4 = math.log(4.0)
_Read = Callable[[], Floats]


@dataclass(slots=True)
class _Side:
    """What one haplotype side asks for, gathered allele by allele."""

    sign: float
    haplotypes: Haplotypes
    owners: list[int] = field(default_factory=list)
    masks: list[Ints] = field(default_factory=list)

    def add(self, owner: int, masks: Ints) -> None:
        """Add masked passes of one allele: rows to mask, shape (passes, w)."""
        self.owners += [owner] * len(masks)
        self.masks.append(masks)


def ask_pseudo_ratio(pair: Pair, limit: int, fixed: bool) -> tuple[Ints, _Read]:
    """Ask for the pseudo log-likelihood ratios of a pair.

    Args:
        pair: The alleles.
        limit: Most masked passes of one haplotype.
        fixed: Whether rows stand for a fixed number of bases.

    Returns:
        Skip codes, shape (n,), and how to read the ratios, shape (n,).
    """
    spec = pair.ref.plan.encoder.spec
    overlapping = spec.stride < spec.k
    if fixed and spec.k == 1 and pair.is_substitution:
        return _ask_substitutions(pair, limit)
    sides = _Side(-1.0, pair.ref), _Side(1.0, pair.alt)
    skip = np.zeros(pair.size, dtype=np.int64)
    find = _differing_bases if overlapping else _differing_rows
    for member in range(pair.size):
        masks = find(pair, member)
        if max(len(m) for m in masks) > limit:
            skip[member] = skip_code(Skip.TOO_LONG)
            continue
        for side, mask in zip(sides, masks, strict=True):
            side.add(member, mask)
    share = spec.stride / spec.k if overlapping else 1.0
    reads = [_ask_side(pair.size, side, share) for side in sides if side.owners]
    return skip, lambda: sum((read() for read in reads), np.zeros(pair.size))


def _ask_substitutions(pair: Pair, limit: int) -> tuple[Ints, _Read]:
    """The same for one row a base and equal lengths, where the rows are known beforehand."""
    low, high = int(pair.changed.min()), int(pair.changed.max())
    if high - low + 1 > limit:
        return np.full(pair.size, skip_code(Skip.TOO_LONG)), lambda: np.full(pair.size, np.nan)
    reads = []
    for base in range(low, high + 1):
        masks = as_masks(touching(pair.ref.spans, np.array([[base]])))
        for sign, haplotypes in ((-1.0, pair.ref), (1.0, pair.alt)):
            side = _Side(sign, haplotypes, list(range(pair.size)), [masks])
            reads.append(_ask_side(pair.size, side, 1.0))
    return np.zeros(pair.size, dtype=np.int64), lambda: sum(
        (read() for read in reads), np.zeros(pair.size)
    )


def _ask_side(size: int, side: _Side, share: float) -> _Read:
    """Ask for the masked rows' log p + n log 4 of one haplotype side, summed by allele."""
    owners, haplotypes = np.array(side.owners, dtype=np.int64), side.haplotypes
    masks = _stack(side.masks)
    bucket = haplotypes.sequences.bucket
    passes = bucket.passes(haplotypes.sequences, owners, masks)
    at, row = np.nonzero(np.broadcast_to(masks >= 0, (owners.size, masks.shape[1])))
    row = masks[at if masks.shape[0] > 1 else 0, row]
    known = haplotypes.known_at(owners[at], row)
    at, row = at[known], row[known]
    spans = haplotypes.spans_at(owners[at], row)
    ids = ids_at(haplotypes, owners[at], row)
    ticket: Ticket = bucket.ask("token", passes[at], np.stack([row, ids], axis=1))
    length_bonus = (spans[:, 1] - spans[:, 0]) * _LOG4

    def read() -> Floats:
        return sum_by(owners[at], side.sign * share * (ticket.values + length_bonus), size)

    return read


def _differing_rows(pair: Pair, member: int) -> tuple[Ints, Ints]:
    """Give one mask a row that is left, REF and ALT, shape (rows left, 1) each."""
    lists = [_kept_rows(side, member) for side in (pair.ref, pair.alt)]
    ids = [side.encoded.rows[member][rows] for side, rows in zip(_both(pair), lists, strict=True)]
    (a, b), (c, d) = _between(ids[0], ids[1])
    return lists[0][a:b, None], lists[1][c:d, None]


def _differing_bases(pair: Pair, member: int) -> tuple[Ints, Ints]:
    """Give one mask a base that is left: the rows that touch it, shape (bases, k) each."""
    kept = [side.codes[member, slice(*side.kept)] for side in _both(pair)]
    left = _between(kept[0], kept[1])
    masks = []
    for side, (a, b) in zip(_both(pair), left, strict=True):
        spans = side.spans_of(member)
        bases = np.arange(a, b)[:, None] + side.kept[0]
        masks.append(as_masks(touching(spans[None], bases)))
    return masks[0], masks[1]


def _both(pair: Pair) -> tuple[Haplotypes, Haplotypes]:
    return pair.ref, pair.alt


def _kept_rows(side: Haplotypes, member: int) -> Ints:
    """List the rows whose bases all lie in the part that both windows hold."""
    spans = side.spans_of(member)
    inside = (spans[:, 0] >= side.kept[0]) & (spans[:, 1] <= side.kept[1])
    return np.flatnonzero(inside & (spans[:, 1] > spans[:, 0]))


def _stack(masks: list[Ints]) -> Ints:
    """Stack masks of different widths, the narrow ones filled up with -1."""
    width = max(mask.shape[1] for mask in masks)
    filled = [np.pad(m, ((0, 0), (0, width - m.shape[1])), constant_values=-1) for m in masks]
    return np.concatenate(filled)


def _between(
    old: NDArray[np.generic], new: NDArray[np.generic]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Find what is left of two lists without their common prefix and then common suffix."""
    shortest = min(len(old), len(new))
    same = _equal(old[:shortest], new[:shortest])
    prefix = shortest if same.all() else int(same.argmin())
    rest = shortest - prefix
    same = _equal(old[len(old) - rest :][::-1], new[len(new) - rest :][::-1])
    suffix = rest if same.all() else int(same.argmin())
    return (prefix, len(old) - suffix), (prefix, len(new) - suffix)


def _equal(a: NDArray[np.generic], b: NDArray[np.generic]) -> Bools:
    """Compare rows: ids, or channels."""
    same = a == b
    return np.asarray(same.all(axis=1) if same.ndim == 2 else same)
