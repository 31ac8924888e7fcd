"""What each score asks of a model: from haplotype pairs to requests, and back to numbers an allele.

An asker names passes and requests in the pair's plan at once, and returns how to read the answers
after the plan has run. It also says which alleles it cannot serve, and why. Askers see one strand;
`EVIDENCE` joins them to the windows they read. Rows that hold anything but A, C, G, T never count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from glm_annotate.answers import Floats, Ints
from glm_annotate.card import ModelCard
from glm_annotate.encoding import Encoder
from glm_annotate.genome import Codes
from glm_annotate.pairs import (
    Bools,
    Haplotypes,
    Pair,
    as_masks,
    ids_at,
    members_rows,
    sum_by,
    touching,
)
from glm_annotate.plan import Ticket
from glm_annotate.pseudo import ask_pseudo_ratio
from glm_annotate.variants import Skip, skip_code

Options = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Asked:
    """Requests of one pair.

    Attributes:
        skip: Why an allele gets no number, as in `variants.skip_code`; 0 for none; shape (n,).
        read: Gives the evidence of all n alleles after the plan has run, shape (n, ...).
    """

    skip: Ints
    read: Callable[[], Floats]


Asker = Callable[[Pair, ModelCard, Options], Asked]


def nothing(pair: Pair, reason: Skip) -> Asked:
    """Ask for nothing, for one reason."""
    return Asked(np.full(pair.size, skip_code(reason)), lambda: np.full(pair.size, np.nan))


def is_fixed(encoder: Encoder) -> bool:
    """Whether rows stand for a fixed number of bases, so that substitutions keep the rows."""
    return encoder.base_ids(encoder.spec.k, 0) is not None


def swapped_rows(pair: Pair) -> tuple[Bools, Ints]:
    """Find the rows that a substitution swaps.

    Returns:
        Which rows, shape (1 or n, T), and which alleles do not swap rows one for one, as skip
        codes, shape (n,): byte-pair alleles that change the number of tokens or more than one.
    """
    fine = np.zeros(pair.size, dtype=np.int64)
    if is_fixed(pair.ref.plan.encoder):
        return touching(pair.ref.spans, pair.changed), fine
    old, new = pair.ref.encoded, pair.alt.encoded
    if old.rows.shape != new.rows.shape:
        return np.zeros((1, old.rows.shape[1]), dtype=bool), fine + skip_code(Skip.TOKENIZATION)
    differ = old.rows != new.rows
    moved = differ & (old.spans != new.spans).any(axis=2)
    wrong = (differ.sum(axis=1) != 1) | moved.any(axis=1)
    return differ, np.where(wrong, skip_code(Skip.TOKENIZATION), 0)


def ask_masked_ratio(pair: Pair, card: ModelCard, options: Options) -> Asked:
    """LLR: the swapped rows masked in one pass of the REF window."""
    if not pair.is_substitution:
        return nothing(pair, Skip.INDEL)
    swapped, skip = swapped_rows(pair)
    which = np.flatnonzero(skip == 0)
    masks = swapped if swapped.shape[0] == 1 else swapped[which]
    passes = pair.ref.sequences.bucket.passes(pair.ref.sequences, which, as_masks(masks))
    return _ratio(pair, swapped, skip, which, passes)


def ask_unmasked_ratio(pair: Pair, card: ModelCard, options: Options) -> Asked:
    """WTLLR: the same rows in an unmasked pass of the REF window."""
    if not pair.is_substitution:
        return nothing(pair, Skip.INDEL)
    swapped, skip = swapped_rows(pair)
    which = np.flatnonzero(skip == 0)
    passes = pair.ref.sequences.bucket.passes(pair.ref.sequences, which)
    return _ratio(pair, swapped, skip, which, passes)


def _ratio(pair: Pair, swapped: Bools, skip: Ints, which: Ints, passes: Ints) -> Asked:
    """Ask (stride / k) x sum over the swapped rows of log p(ALT row) - log p(REF row)."""
    spec, bucket = pair.ref.plan.encoder.spec, pair.ref.sequences.bucket
    owner, row = members_rows(swapped if swapped.shape[0] == 1 else swapped[which], which.size)
    known = pair.ref.known_at(which[owner], row)
    owner, row = owner[known], row[known]
    skip = skip.copy()
    skip[which[np.bincount(owner, minlength=which.size) == 0]] = skip_code(Skip.TOKENIZATION)
    old, new = (ids_at(side, which[owner], row) for side in (pair.ref, pair.alt))
    ref = bucket.ask("token", passes[owner], np.stack([row, old], axis=1))
    alt = bucket.ask("token", passes[owner], np.stack([row, new], axis=1))

    def read() -> Floats:
        difference = (alt.values - ref.values) * (spec.stride / spec.k)
        return sum_by(which[owner], difference, pair.size)

    return Asked(skip, read)


def ask_likelihood_ratio(pair: Pair, card: ModelCard, options: Options) -> Asked:
    """Causal LLR: log likelihoods of both windows, over rows of A, C, G, T."""
    tickets = []
    for side in (pair.ref, pair.alt):
        bucket = side.sequences.bucket
        passes = bucket.passes(side.sequences, pair.members)
        tickets.append(bucket.ask("likelihood", passes, side.known_rows()))
    ref, alt = tickets
    return Asked(np.zeros(pair.size, dtype=np.int64), lambda: alt.values - ref.values)


def ask_distribution(pair: Pair, card: ModelCard, options: Options) -> Asked:
    """ENT: what the REF window says of A, C, G, T at the first changed base, shape (n, 4)."""
    side = pair.ref
    if not is_fixed(side.plan.encoder):
        return nothing(pair, Skip.TOKENIZATION)
    rows = touching(side.spans, pair.focus[:, None])
    readable = rows.copy()
    if card.objective == "causal":
        # Nothing precedes the first row, and inside a token no base is given its own prefix.
        readable[:, : max(1, card.logits_shift)] = False
        readable &= side.spans[..., 0] == pair.focus[:, None]
    bucket = side.sequences.bucket
    masks = as_masks(rows) if card.objective == "masked" else None
    passes = bucket.passes(side.sequences, pair.members, masks)
    owner, row = members_rows(readable, pair.size)
    spans = side.spans_at(owner, row)
    focus = np.broadcast_to(pair.focus, (pair.size,))[owner]
    details = np.stack([row, spans[:, 1] - spans[:, 0], focus - spans[:, 0]], axis=1)
    ticket = bucket.ask("base", passes[owner], details.astype(np.int64))
    skip = np.where(np.bincount(owner, minlength=pair.size) == 0, skip_code(Skip.TOKENIZATION), 0)
    return Asked(skip, lambda: mean_distribution(ticket, owner, pair.size, reverse=pair.reverse))


def mean_distribution(ticket: Ticket, owner: Ints, n: int, *, reverse: bool) -> Floats:
    """Average distributions over A, C, G, T by their owner, shape (n, 4).

    Args:
        ticket: Of distributions on one strand, shape (m, 4).
        owner: The allele of each, shape (m,).
        n: Number of alleles.
        reverse: The strand; they come out on the forward one.
    """
    total = np.zeros((n, 4))
    np.add.at(total, owner, ticket.values)
    mean: Floats = total / np.maximum(np.bincount(owner, minlength=n), 1)[:, None]
    return mean[:, ::-1] if reverse else mean  # the complement of ACGT is TGCA


def ask_reference(pair: Pair, card: ModelCard, options: Options) -> Asked:
    """Likelihood: what the REF window says of its own base there, shape (n,)."""
    focus = np.broadcast_to(pair.focus, (pair.size,))
    codes = pair.ref.codes[pair.members, focus]
    return of_reference(ask_distribution(pair, card, options), codes, reverse=pair.reverse)


def of_reference(asked: Asked, codes: Codes, *, reverse: bool) -> Asked:
    """Read of distributions over A, C, G, T the one base that the genome has.

    Args:
        asked: Gives distributions, shape (n, 4).
        codes: Bases as the strand has them, shape (n,); others than A, C, G, T give NaN.
        reverse: The strand.
    """
    known = codes < 4
    base = np.where(known, 3 - codes if reverse else codes, 0).astype(np.int64)

    def read() -> Floats:
        values = asked.read()
        return np.where(known, values[np.arange(base.size), base], np.nan)

    return Asked(asked.skip, read)


def ask_pooled(pair: Pair, card: ModelCard, options: Options) -> Asked:
    """EMB_*: embeddings of both haplotypes pooled around the site, shape (n, 2, D)."""
    tickets = []
    for side in (pair.ref, pair.alt):
        stretch = pool_stretch(side, card, options, pair.reverse)
        bucket = side.sequences.bucket
        passes = bucket.passes(side.sequences, pair.members)
        details = np.tile(np.array(stretch, dtype=np.int64), (pair.size, 1))
        tickets.append(bucket.ask("pool", passes, details))
    halves = card.embedding is not None and card.embedding.halves == "rc"

    def read() -> Floats:
        both = np.stack([ticket.values for ticket in tickets], axis=1)
        half = both.shape[2] // 2
        return (both[..., :half] + both[..., : half - 1 : -1]) / 2 if halves else both

    return Asked(np.zeros(pair.size, dtype=np.int64), read)


def pool_stretch(
    side: Haplotypes, card: ModelCard, options: Options, reverse: bool
) -> tuple[int, int]:
    """Say which bases of a haplotype's window are pooled, in the strand's coordinates."""
    start, end = side.site
    length = side.codes.shape[1]
    if options["pool"] == "all":
        return 0, length
    if options["pool"] == "site":
        return (start, end) if end > start else (max(0, start - 1), min(length, start + 1))
    k = int(options["k"])
    if card.objective == "causal":  # only rows from the site on have seen the allele
        first = start
    elif reverse:  # the forward strand's stretch, mirrored
        first = end - (end - start) // 2 + k // 2 - k
    else:
        first = start + (end - start) // 2 - k // 2
    return max(0, first), min(length, first + k)


@dataclass(frozen=True, slots=True)
class Evidence:
    """A kind of evidence: who asks for it, and of which windows."""

    ask: Asker
    windows: Literal["variant", "cut", "grid"] = "variant"


def _ask_pseudo(pair: Pair, card: ModelCard, options: Options) -> Asked:
    skip, read = ask_pseudo_ratio(pair, card.pllr_max, is_fixed(pair.ref.plan.encoder))
    return Asked(skip, read)


EVIDENCE: dict[str, Evidence] = {
    "masked_ratio": Evidence(ask_masked_ratio),
    "unmasked_ratio": Evidence(ask_unmasked_ratio, "grid"),
    "pseudo_ratio": Evidence(_ask_pseudo, "cut"),
    "likelihood_ratio": Evidence(ask_likelihood_ratio),
    "distribution": Evidence(ask_distribution),
    "reference": Evidence(ask_reference),
    "pooled": Evidence(ask_pooled),
}
