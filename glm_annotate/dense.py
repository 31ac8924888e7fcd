"""Dense evidence: many sites of a window masked in one pass, each read as if it were alone.

Windows lie on the fixed grid of the contig (`pairs.grid_pairs` has the same one): window k starts
at k x half - quarter and answers for its central half. Pass r of a window masks the sites with
(pos - 1) mod stride = r; past the origin of a circular contig it goes on counting. A pass so
depends on the contig alone, and what it says of a site does not depend on other alleles.

Decisions: sites are bases A, C, G and T of the FASTA, so nothing else is masked. Alleles that no
such pass serves are scored exactly: alleles of several bases where the score masks them all, and
those at other letters or in windows that the model refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from glm_annotate.answers import Floats, Ints
from glm_annotate.bundle import Bundle
from glm_annotate.channels import Values, as_rows, reverse_channels
from glm_annotate.encoding import Encoded, Encoder, EncoderSpec, Spans, refused
from glm_annotate.errors import UsageError
from glm_annotate.evidence import Asked, is_fixed, mean_distribution, of_reference
from glm_annotate.genome import Codes, Genome, reverse_complement
from glm_annotate.model import Model
from glm_annotate.pairs import Bools, Haplotypes, ids_at, row_limit, sum_by
from glm_annotate.plan import Plan
from glm_annotate.scores import ScoreSpec
from glm_annotate.variants import Alleles, Skip, skip_code
from glm_annotate.windows import cut_stretches


def least_stride(spec: EncoderSpec) -> int:
    """Give the least distance of sites that leaves a row between them that touches neither."""
    return spec.k + spec.stride


def dense_stride(bundle: Bundle, *, wanted: int | None = None) -> int:
    """Give the distance of the sites that one pass masks, or say why there is no such mode.

    Args:
        bundle: The model.
        wanted: A stride to use in place of the card's.

    Raises:
        UsageError: The model cannot be read so.
    """
    card, stride = bundle.card, bundle.card.dense if wanted is None else wanted
    why = ""
    if card.objective != "masked":
        why = f"it is {card.objective}; only masked models have sites to mask together"
    elif not is_fixed(bundle.encoder):
        why = "its tokens differ in length, so no site has rows of its own"
    elif stride == 0:
        why = "its card has no stride (dense = 0)"
    elif stride < least_stride(card.encoder):
        why = f"its stride is {stride}, and its rows need {least_stride(card.encoder)} or more"
    if why:
        raise UsageError(f"--mode dense: {card.name} cannot be read so: {why}; use --mode exact")
    return stride


def is_dense(model: Model, spec: ScoreSpec) -> bool:
    """Say whether a score of a model is read of dense passes, where they serve the allele."""
    return model.dense > 0 and spec.evidence[0] in DENSE


@dataclass(frozen=True, slots=True)
class Grid:
    """The windows that answer for some sites.

    Attributes:
        codes: Their bases, shape (u, L); `beside`: their channels, shape (u, L, C).
        left: Their left edges, shape (u,).
        window: The window of each site, shape (n,); `place`: where the site lies in it.
        stride: Distance of sites that are masked together.
    """

    codes: Codes
    beside: Values | None
    left: Ints
    window: Ints
    place: Ints
    stride: int

    @property
    def length(self) -> int:
        """Bases of a window."""
        return int(self.codes.shape[1])

    def combinations(self) -> tuple[Ints, Ints, Ints]:
        """List the passes that the sites need.

        Returns:
            Window of each pass, shape (m,); bases that it masks, shape (m, w), -1 for none; and
            the pass of each site, shape (n,).
        """
        residue = (self.left[self.window] + self.place) % self.stride
        numbers, which = np.unique(self.window * self.stride + residue, return_inverse=True)
        window, residue = numbers // self.stride, numbers % self.stride
        first = (residue - self.left[window]) % self.stride
        bases = first[:, None] + np.arange(-(-self.length // self.stride)) * self.stride
        inside = bases < self.length
        bases = np.minimum(bases, self.length - 1)
        known = self.codes[window[:, None], bases] < 4
        return window, np.where(inside & known, bases, -1), which.reshape(-1)


@dataclass(frozen=True, slots=True)
class Sites:
    """Sites in windows of one number of rows, on one strand, and the passes that mask them.

    Attributes:
        allele: Their alleles, shape (n,).
        ref: Code of the base of REF on this strand; `alt`: of ALT, where it is one base.
        windows: The windows.
        member: The window of each site; `place`: where it lies there on this strand.
        owner: The site of each row that touches one; `row`: that row, both shape (m,).
        passes: The pass of each site, shape (n,).
        reverse: The strand.
    """

    allele: Ints
    ref: Codes
    alt: Codes
    windows: Haplotypes
    member: Ints
    place: Ints
    owner: Ints
    row: Ints
    passes: Ints
    reverse: bool

    def spans(self) -> tuple[Ints, Ints]:
        """Give the bases in each row of `row`, and which of them is the site."""
        spans = self.windows.spans_at(self.member[self.owner], self.row).astype(np.int64)
        return spans[:, 1] - spans[:, 0], self.place[self.owner] - spans[:, 0]

    def missing(self, counted: Ints) -> Ints:
        """Give skip codes, shape (n,): sites that own none of some rows have no number."""
        none = np.bincount(counted, minlength=self.allele.size) == 0
        return np.where(none, skip_code(Skip.TOKENIZATION), 0)


def ask_ratio(sites: Sites) -> Asked:
    """LLR: what the rows touching the site say of ALT's ids and of REF's."""
    side, spec = sites.windows, sites.windows.plan.encoder.spec
    known = side.known_at(sites.member[sites.owner], sites.row)
    owner, row = sites.owner[known], sites.row[known]
    width, offset = (values[known] for values in sites.spans())
    old = ids_at(side, sites.member[owner], row)
    new = swapped_ids(side.plan.encoder, old, width, offset, sites.ref[owner], sites.alt[owner])
    bucket, passes = side.sequences.bucket, sites.passes[owner]
    ref = bucket.ask("token", passes, np.stack([row, old], axis=1))
    alt = bucket.ask("token", passes, np.stack([row, new], axis=1))

    def read() -> Floats:
        difference = (alt.values - ref.values) * (spec.stride / spec.k)
        return sum_by(owner, difference, sites.allele.size)

    return Asked(sites.missing(owner), read)


def ask_distribution(sites: Sites) -> Asked:
    """ENT: what the rows touching the site say of A, C, G, T there, shape (n, 4)."""
    width, offset = sites.spans()
    details = np.stack([sites.row, width, offset], axis=1)
    bucket = sites.windows.sequences.bucket
    ticket = bucket.ask("base", sites.passes[sites.owner], details)
    n = sites.allele.size
    return Asked(
        sites.missing(sites.owner),
        lambda: mean_distribution(ticket, sites.owner, n, reverse=sites.reverse),
    )


def ask_reference(sites: Sites) -> Asked:
    """Likelihood: the same, of the base of REF alone, shape (n,)."""
    return of_reference(ask_distribution(sites), sites.ref, reverse=sites.reverse)


@dataclass(frozen=True, slots=True)
class Dense:
    """A kind of evidence that dense passes give.

    Attributes:
        ask: Asks for it.
        single: Whether it masks the whole allele: a site is one base.
    """

    ask: Callable[[Sites], Asked]
    single: bool = False


# By names of `evidence.EVIDENCE`.
DENSE: dict[str, Dense] = {
    "masked_ratio": Dense(ask_ratio, single=True),
    "distribution": Dense(ask_distribution),
    "reference": Dense(ask_reference),
}


def swapped_ids(
    encoder: Encoder, ids: Ints, width: Ints, offset: Ints, old: Codes, new: Codes
) -> Ints:
    """Give the ids of rows with one base swapped.

    Args:
        encoder: Of the rows.
        ids: The rows as they are, A, C, G and T alone, shape (m,).
        width: Bases of each row.
        offset: Which of them is swapped.
        old: Its code as it is.
        new: Its code to be.
    """
    out = np.empty_like(ids)
    for w, at in np.unique(np.stack([width, offset], axis=1), axis=0).tolist():
        table = encoder.base_ids(w, at)
        if table is None:
            raise ValueError("this encoder's rows have no fixed place for a base")
        here = np.flatnonzero((width == w) & (offset == at))
        # Rows of the table are in one order of the other bases: only the base at `at` differs.
        column = (table[old[here]] == ids[here, None]).argmax(axis=1)
        out[here] = table[new[here], column]
    return out


class DenseAsker:
    """Asks for dense evidence of alleles that have windows of one shape.

    Args:
        genome: The reference.
        model: Its card has a stride.
        alleles: Of the chunk.
        which: Alleles to serve if possible, shape (n,).
        plan: Takes the passes.

    Attributes:
        served: Which of them dense passes serve, shape (n,).
    """

    def __init__(
        self, genome: Genome, model: Model, alleles: Alleles, which: Ints, plan: Plan
    ) -> None:
        self._model, self._alleles, self._plan = model, alleles, plan
        self.served = _is_site(genome, alleles, which)
        at = np.flatnonzero(self.served)
        self._allele = which[at]
        self._grid = cut_grid(genome, model, alleles, self._allele)
        self._groups: list[tuple[bool, Encoded]] = []
        self._bad = np.zeros(0, dtype=bool)
        if not at.size:
            return
        bad = refused(self._grid.codes, model.bundle.card.encoder)
        readable = np.flatnonzero(~bad)
        limit = row_limit(model.bundle.card)
        for reverse in model.strands:
            codes = self._grid.codes[readable]
            for group in plan.encoder.encode(reverse_complement(codes) if reverse else codes):
                group = Encoded(readable[group.index], group.rows, group.spans)
                bad[group.index] |= group.rows.shape[1] > limit
                self._groups.append((reverse, group))
        self.served[at[bad[self._grid.window]]] = False
        self._bad = bad

    def sites(self) -> list[Sites]:
        """Name the passes, strand by strand and number of rows by number of rows."""
        window, bases, which = self._grid.combinations()
        return [
            self._sites(reverse, group, window, bases, which)
            for reverse, group in self._groups
            if not self._bad[group.index].all()
        ]

    def _sites(
        self, reverse: bool, group: Encoded, window: Ints, bases: Ints, which: Ints
    ) -> Sites:
        """Name the passes of one group of windows.

        Args:
            reverse: The strand.
            group: Windows of one number of rows.
            window: Of each pass, shape (m,).
            bases: That it masks on the forward strand, shape (m, w).
            which: The pass of each site, shape (n,).
        """
        grid, alleles = self._grid, self._alleles
        member = np.full(grid.codes.shape[0], -1)
        member[group.index] = np.arange(group.index.size)
        member[self._bad] = -1
        windows = self._haplotypes(group, reverse)
        touch = rows_by_base(group.spans, grid.length, self._plan.encoder.spec)
        flip = grid.length - 1
        mine = np.flatnonzero(member[window] >= 0)
        bases = np.where((bases[mine] >= 0) & reverse, flip - bases[mine], bases[mine])
        of = member[window[mine]]
        shared = touch.shape[0] == 1
        masks = touch[np.where(shared, 0, of)[:, None], bases]  # (m, w, rows of a base)
        masks = np.where((bases >= 0)[..., None], masks, -1).reshape(mine.size, -1)
        made = np.full(window.size, -1)
        made[mine] = windows.sequences.bucket.passes(windows.sequences, of, masks)
        here = np.flatnonzero(member[grid.window] >= 0)
        at = member[grid.window[here]]
        place = flip - grid.place[here] if reverse else grid.place[here]
        rows = touch[np.where(shared, 0, at), place]
        owner, slot = np.nonzero(rows >= 0)
        allele = self._allele[here]
        ref = grid.codes[grid.window[here], grid.place[here]]
        alt = alleles.alt_base[allele]
        if reverse:
            ref, alt = (
                reverse_complement(ref[:, None])[:, 0],
                reverse_complement(alt[:, None])[:, 0],
            )
        passes = made[which[here]]
        return Sites(
            allele, ref, alt, windows, at, place, owner, rows[owner, slot], passes, reverse
        )

    def _haplotypes(self, group: Encoded, reverse: bool) -> Haplotypes:
        spec = self._plan.encoder.spec
        codes, beside = self._grid.codes[group.index], self._grid.beside
        if beside is not None:
            beside = beside[group.index]
            beside = as_rows(reverse_channels(beside, spec) if reverse else beside, spec)
        codes = reverse_complement(codes) if reverse else codes
        whole = (0, self._grid.length)
        return Haplotypes(codes, group, self._plan, whole, whole, beside)


def cut_grid(genome: Genome, model: Model, alleles: Alleles, which: Ints) -> Grid:
    """Cut the windows of the grid that answer for the first bases of alleles, each once."""
    context = model.bundle.card.context
    half, quarter = max(1, context // 2), context // 4
    start = alleles.start[which]
    # By contig and number of the window; a contig has fewer than 2^32 bases.
    number = (alleles.contig[which] << 32) + start // half
    distinct, first, window = np.unique(number, return_index=True, return_inverse=True)
    left = (distinct & 0xFFFFFFFF) * half - quarter
    codes, beside = cut_stretches(
        genome, alleles, which[first], left, context, model.circular, model.channels
    )
    window = window.reshape(-1)
    return Grid(codes, beside, left, window, start - left[window], model.dense)


def _is_site(genome: Genome, alleles: Alleles, which: Ints) -> Bools:
    """Say at which alleles the FASTA has A, C, G or T, shape (n,)."""
    contig, start = alleles.contig[which], alleles.start[which]
    out = np.zeros(which.size, dtype=bool)
    for number in np.unique(contig):
        codes = genome.codes(alleles.contigs[int(number)])
        here = np.flatnonzero((contig == number) & (start >= 0) & (start < codes.size))
        out[here] = codes[start[here]] < 4
    return out


def rows_by_base(spans: Spans, length: int, spec: EncoderSpec) -> Ints:
    """List the rows that touch each base of windows.

    Args:
        spans: Shape (1 or u, T, 2).
        length: Bases of a window.
        spec: Says how wide rows are, and how many of them touch one base.

    Returns:
        Shape (1 or u, length, rows of a base), -1 for none.
    """
    most = -(-spec.k // spec.stride)
    out = np.full((spans.shape[0], length, most), -1, dtype=np.int64)
    start, end = spans[..., 0].astype(np.int64), spans[..., 1]
    for step in range(spec.k):
        member, row = np.nonzero((start >= 0) & (start + step < end))
        # Rows of one base follow each other, so that no two of them have one slot.
        out[member, start[member, row] + step, row % most] = row
    return out
