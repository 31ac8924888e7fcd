"""Substitutions for a background: drawn at random from a genome, or chosen from a VCF.

They can be matched to the substitutions of another VCF: as many transitions for each transversion,
or the same share of each ALT base in each context of k bases. The same seed, files and options give
the same substitutions. Only bases that the FASTA has as A, C, G or T count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from glm_annotate.answers import Ints
from glm_annotate.beds import merged
from glm_annotate.calibration import contexts
from glm_annotate.chunks import COLUMNS, Chunk, parse
from glm_annotate.errors import InputError
from glm_annotate.genome import Codes, Genome, Interval, to_letters
from glm_annotate.header import Header
from glm_annotate.records import VariantInput, open_input
from glm_annotate.variants import AlleleReader

# Fewer substitutions than this are shuffled as a whole; of more some are drawn at a time.
_SHUFFLED = 1 << 22
_ROUNDS, _LEAST_ROUND = 200, 1 << 16
_LINES = 1 << 14
_RECORDS = 1 << 12
_AT_LEAST, _MOST_WRONG = 50, 0.2


@dataclass(frozen=True, slots=True)
class Match:
    """What a background has in common with other variants.

    Attributes:
        path: VCF or BCF of these.
        k: Bases of the context; 0: transitions and transversions alone.
    """

    path: str
    k: int

    @property
    def context(self) -> int:
        """Bases that have to be read around a substitution."""
        return self.k or 1

    def classes(self, context: Ints, alt: Codes) -> Ints:
        """Number the classes of substitutions; -1 for the context -1."""
        if self.k:
            return np.where(context < 0, -1, context * 4 + alt)
        # A and G, C and T differ in the second bit alone.
        return np.where(context < 0, -1, (context ^ alt) == 2)

    def named(self, number: int) -> str:
        """Describe a class."""
        if not self.k:
            return "transitions" if number else "transversions"
        digits = [number // 4 // 4**i % 4 for i in reversed(range(self.k))]
        return f"{''.join('ACGT'[x] for x in digits)} to {'ACGT'[number % 4]}"


@dataclass(frozen=True, slots=True)
class Substitutions:
    """Substitutions of one base, all of shape (n,).

    Attributes:
        contig: Place in the FASTA.
        start: 0-based.
        ref: Codes; `alt`: the same.
        context: Number of the bases around, see `calibration.contexts`.
    """

    contig: Ints
    start: Ints
    ref: Codes
    alt: Codes
    context: Ints

    def __len__(self) -> int:
        return int(self.start.size)

    def take(self, which: Ints) -> Substitutions:
        """Choose some."""
        return Substitutions(
            self.contig[which], self.start[which], self.ref[which], self.alt[which],
            self.context[which],
        )  # fmt: skip

    def in_order(self) -> Substitutions:
        """Sort by place and ALT."""
        return self.take(np.lexsort((self.alt, self.start, self.contig)))


def joined(parts: Sequence[Substitutions]) -> Substitutions:
    """Put several together, at least one."""
    names = ("contig", "start", "ref", "alt", "context")
    return Substitutions(*(np.concatenate([getattr(x, name) for x in parts]) for name in names))


def read_substitutions(path: str, genome: Genome, k: int) -> Substitutions:
    """Read the substitutions of a VCF, BCF or table whose context of k bases is known.

    Raises:
        InputError: It cannot be read, looks like another assembly, or has none.
    """
    reader, parts = AlleleReader(genome), list[Substitutions]()
    compared = wrong = 0
    with open_input(path) as source:
        for chunk in source.chunks(_RECORDS):
            alleles = reader.read(chunk.chroms, chunk.pos, chunk.refs, chunk.alts, chunk.infos)
            compared += int((alleles.compared > 0).sum())
            wrong += int((alleles.compared > 1).sum())
            context = contexts(genome, alleles, k)
            columns = alleles.contig, alleles.start, alleles.ref_base, alleles.alt_base, context
            parts.append(Substitutions(*columns).take(np.flatnonzero(context >= 0)))
    if compared >= _AT_LEAST and wrong > _MOST_WRONG * compared:
        raise InputError(
            f"{path}: {wrong} of {compared} REF alleles are not what {genome.path} has there: it "
            "looks like another assembly; give the right one with -f"
        )
    if not any(map(len, parts)):
        raise InputError(
            f"{path}: has no substitution of one base that agrees with {genome.path}; name "
            "variants of this assembly"
        )
    return joined(parts)


def choose_matched(
    pool: Substitutions, target: Substitutions, match: Match, seed: int
) -> Substitutions:
    """Choose the most of a pool whose classes have the shares that they have in a target.

    Raises:
        InputError: The pool has none of a class that the target has.
    """
    wanted, have = (match.classes(x.context, x.alt) for x in (target, pool))
    size = int(max(wanted.max(), have.max())) + 1
    shares, stock = np.bincount(wanted, minlength=size), np.bincount(have, minlength=size)
    asked = np.flatnonzero(shares)
    total = int((stock[asked] * shares.sum() // shares[asked]).min())
    quotas = shares * total // shares.sum()
    if total == 0:
        lacking = int(asked[stock[asked].argmin()])
        raise InputError(
            f"{match.path}: {shares[lacking]} of its {shares.sum()} substitutions are "
            f"{match.named(lacking)}, of which the background has too few; name a larger one, or "
            "match by less: --match-titv"
        )
    order = np.random.default_rng(seed).permutation(len(pool))
    return pool.take(order[_first_of_each(have[order], quotas)]).in_order()


def draw_substitutions(
    genome: Genome,
    regions: Iterable[Interval],
    n: int,
    seed: int,
    match: Match | None = None,
) -> Substitutions:
    """Draw n different substitutions at random.

    Args:
        genome: The reference.
        regions: Where, by the FASTA's names.
        n: How many.
        seed: Of the draw.
        match: What they have in common with other variants; None: every substitution is as likely.

    Raises:
        InputError: There are not so many.
    """
    sites = _Sites(genome, merged(regions, genome))
    if match is None:
        quotas = np.array([n])
    else:
        target = read_substitutions(match.path, genome, match.context)
        quotas = _shared_out(n, np.bincount(match.classes(target.context, target.alt)))
    left, taken, parts = quotas.copy(), np.zeros(0, dtype=np.int64), list[Substitutions]()
    for drawn in _drawn(sites.size, n, np.random.default_rng(seed)):
        fresh = drawn[~np.isin(drawn, taken)]
        found, here = sites.read(fresh, 1 if match is None else match.context)
        if match is None:
            classes = np.zeros(len(found), dtype=np.int64)
        else:
            classes = match.classes(found.context, found.alt)
        kept = _first_of_each(classes, left)
        parts.append(found.take(kept))
        taken = np.union1d(taken, fresh[here[kept]])
        left -= np.bincount(classes[kept], minlength=left.size)
        if not left.any():
            return joined(parts).in_order()
    short = int(left.argmax())
    what = "substitutions" if match is None else f"substitutions {match.named(short)}"
    raise InputError(
        f"{genome.path}: has {quotas[short] - left[short]} {what} in the regions, and "
        f"{quotas[short]} are wanted; ask --random for fewer, or name more --regions"
    )


def _shared_out(total: int, counts: Ints) -> Ints:
    """Share a total out in proportion; what is left goes to the largest remainders."""
    exact = counts * total
    quotas = exact // counts.sum()
    rest = np.argsort(-(exact % counts.sum()), kind="stable")[: total - int(quotas.sum())]
    quotas[rest] += 1
    return np.asarray(quotas)


def _first_of_each(classes: Ints, quotas: Ints) -> Ints:
    """Give the places of the first of each class, in order, as many as its quota says."""
    order = np.argsort(classes, kind="stable")
    ranked = classes[order]
    rank = np.arange(ranked.size) - np.searchsorted(ranked, ranked, side="left")
    known = (ranked >= 0) & (ranked < quotas.size)
    most = np.where(known, quotas[np.where(known, ranked, 0)], 0)
    return np.sort(order[rank < most])


def _drawn(size: int, n: int, rng: np.random.Generator) -> Iterator[Ints]:
    """Draw numbers below a size, each once a round; all of them in one round where they are few."""
    if size <= _SHUFFLED:
        yield rng.permutation(size)
        return
    for _ in range(_ROUNDS):
        drawn = rng.integers(0, size, max(_LEAST_ROUND, 4 * n))
        yield drawn[np.sort(np.unique(drawn, return_index=True)[1])]


class _Sites:
    """The substitutions of some stretches, numbered: three a base, in the order of their ALT."""

    def __init__(self, genome: Genome, regions: Sequence[Interval]) -> None:
        self._genome, self._names = genome, list(genome.contigs)
        self._contig = np.array([self._names.index(x.chrom) for x in regions], dtype=np.int64)
        self._start = np.array([x.start for x in regions], dtype=np.int64)
        sizes = np.array([x.end - x.start for x in regions], dtype=np.int64)
        self._before = np.cumsum(sizes) - sizes
        self.size = 3 * int(sizes.sum())

    def read(self, numbers: Ints, k: int) -> tuple[Substitutions, Ints]:
        """Look some up: those with k known bases around, and which ones these are."""
        site = numbers // 3
        region = np.searchsorted(self._before, site, side="right") - 1
        contig, start = self._contig[region], self._start[region] + site - self._before[region]
        bases = np.empty((site.size, k), dtype=np.uint8)
        for number in np.unique(contig):
            here = contig == number
            name = self._names[int(number)]
            bases[here] = self._genome.windows(name, start[here] - k // 2, k, circular=False)
        ref = bases[:, k // 2]
        alt = ((ref + 1 + numbers % 3) % 4).astype(np.uint8)
        context = bases.astype(np.int64) @ (4 ** np.arange(k - 1, -1, -1))
        kept = np.flatnonzero((bases < 4).all(axis=1))
        return Substitutions(contig, start, ref, alt, context).take(kept), kept


def as_input(genome: Genome, found: Substitutions, name: str) -> VariantInput:
    """Write substitutions as records, one each."""
    lengths = (f"##contig=<ID={x},length={n}>".encode() for x, n in genome.contigs.items())
    header: Header = (b"##fileformat=VCFv4.3", *lengths, COLUMNS)
    return VariantInput(name, "vcf", header, b"\n", _chunks(genome, found, name))


def _chunks(genome: Genome, found: Substitutions, name: str) -> Iterator[Chunk]:
    names = [x.encode() for x in genome.contigs]
    for begin in range(0, len(found), _LINES):
        part = found.take(np.arange(begin, min(begin + _LINES, len(found))))
        columns = part.contig, part.start + 1, to_letters(part.ref), to_letters(part.alt)
        lines = [
            b"%b\t%d\t.\t%c\t%c\t.\t.\t.\n" % (names[contig], pos, ref, alt)
            for contig, pos, ref, alt in zip(*(x.tolist() for x in columns), strict=True)
        ]
        yield parse(name, "record", b"".join(lines), begin + 1)
