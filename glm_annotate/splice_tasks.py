"""One model's share of a chunk where the model predicts splice sites in the frame of a gene.

Each allele is evaluated in every gene that holds it, after SpliceAI: bases outside the gene are N,
only the gene's strand is read, changes within 50 bases of the site count, and nothing is masked. An
allele's numbers are those of the gene with the largest change.

Decisions: the site, from which positions are counted, is the first changed base, of pure insertions
and deletions the base before it (VCF's POS of the left-aligned variant), and lies at the card's
anchor. A gene holds an allele if it has one of its reference bases, of an insertion the base before
it. Every window has `context` bases: the haplotype of an insertion is read in several, whose bins
are joined, for a bin depends on no more than `crop` bases at each side. Bases of ALT are never N.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from glm_annotate.answers import Floats, Ints
from glm_annotate.card import ModelCard
from glm_annotate.errors import BundleError
from glm_annotate.gene_models import Gene
from glm_annotate.genome import Codes, Genome, N
from glm_annotate.model import Model, Result, Splice
from glm_annotate.passes import Passes, ask_passes, empty_result, foresee
from glm_annotate.splice_scores import align_alt, splice_deltas
from glm_annotate.tasks import choose
from glm_annotate.track_plan import Answers, TrackPlan
from glm_annotate.variants import Alleles, Skip, skip_code
from glm_annotate.windows import WindowBatch, cut_windows, too_long

# Bases at each side of the site in which changes are looked for.
DISTANCE = 50


@dataclass(slots=True)
class SpliceTask:
    """One model's share of a chunk.

    Attributes:
        model: The model.
        alleles: Of the chunk.
        skip: Why an allele has no score at all; 0 for none; shape (n,).
        silent: Skip code of alleles that lie in no gene, else 0.
        chosen: Alleles that windows are cut for.
        genes: Of each of them, in the order of their starts.
        plan: The passes.
        values: By name of the score, of the gene with the largest change, shape (n,).
        largest: That change without its sign, shape (n,).
        named: That gene; empty where there is none.
        failed: Whether a pass failed.
    """

    model: Model
    alleles: Alleles
    skip: Ints
    silent: Ints
    chosen: Ints
    genes: dict[int, tuple[Gene, ...]]
    plan: TrackPlan = field(default_factory=lambda: TrackPlan("tracks"))
    values: dict[str, Floats] = field(default_factory=dict)
    largest: Floats = field(default_factory=lambda: np.zeros(0))
    named: list[str] = field(default_factory=list)
    failed: bool = False

    def ask(self, genome: Genome) -> None:
        """Cut and encode windows, and say what is to be done with their predictions."""
        _ask(self, genome)

    def result(self) -> Result:
        """Turn what was gathered into scores."""
        return _result(self)

    def foreseen(self) -> Result:
        """Give the reasons that are known before the passes, and 0.0 for each number to come."""
        return foresee(self.blank())

    def blank(self) -> Result:
        """Give a result without numbers, with the reasons that are the same for all scores."""
        result = empty_result(self.model, self.skip, self.silent)
        result.genes.extend([""] * len(self.alleles))
        return result

    def single(self, allele: int) -> SpliceTask:
        """Make a task of one of its alleles."""
        chosen = np.array([allele])
        return _empty(self.model, self.alleles, self.skip, self.silent, chosen, self.genes)


@dataclass(frozen=True, slots=True)
class _Case:
    """One allele in one gene."""

    allele: int
    rank: int
    gene: Gene
    ref: Passes
    alt: Passes
    edges: tuple[int, ...]
    start: int
    ref_len: int
    alt_len: int


def make_splice_task(model: Model, alleles: Alleles, skip: Ints) -> SpliceTask:
    """Choose what a model scores of a chunk; arguments as `tasks.make_task`."""
    skip[(skip == 0) & too_long(alleles, _moved(model.bundle.card))] = skip_code(Skip.TOO_LONG)
    silent, chosen = choose(model, alleles, skip)
    genes = {i: _genes_of(_splice(model), alleles, i) for i in chosen.tolist()}
    silent[[i for i, found in genes.items() if not found]] = skip_code(Skip.NO_GENE)
    return _empty(model, alleles, skip, silent, chosen[silent[chosen] == 0], genes)


def _empty(
    model: Model,
    alleles: Alleles,
    skip: Ints,
    silent: Ints,
    chosen: Ints,
    genes: dict[int, tuple[Gene, ...]],
) -> SpliceTask:
    task, n = SpliceTask(model, alleles, skip, silent, chosen, genes), len(alleles)
    task.values = {spec.name: np.full(n, np.nan) for spec in model.scores}
    task.largest, task.named = np.full(n, -np.inf), [""] * n
    return task


def _moved(card: ModelCard) -> ModelCard:
    """Give the card for pure insertions and deletions: the base before them is at the anchor."""
    return card.model_copy(update={"anchor": card.anchor + 1})


def _splice(model: Model) -> Splice:
    if model.splice is None:
        raise ValueError(f"{model.tag}: opened without its genes")
    return model.splice


def _genes_of(splice: Splice, alleles: Alleles, i: int) -> tuple[Gene, ...]:
    contig, start, size = (int(x[i]) for x in (alleles.contig, alleles.start, alleles.ref_len))
    first = start if size else max(start - 1, 0)
    return splice.genes.overlapping(alleles.contigs[contig], first, start + size)


def _ask(task: SpliceTask, genome: Genome) -> None:
    card, alleles, chosen = task.model.bundle.card, task.alleles, task.chosen
    pure = (alleles.ref_len[chosen] == 0) | (alleles.alt_len[chosen] == 0)
    cases = [
        case
        for part, placed in ((chosen[~pure], card), (chosen[pure], _moved(card)))
        for batch in cut_windows(genome, alleles, part, placed, task.model.circular)
        for case in _cases(task, genome, batch, placed)
    ]
    # Alleles that share passes, those of one site, are mostly neighbours.
    for case in sorted(cases, key=lambda case: (case.allele, case.rank)):
        needs = [k for side in (case.ref, case.alt) for part in side for k in part]
        task.plan.then(needs, partial(_finish, task, case))


def _cases(
    task: SpliceTask, genome: Genome, batch: WindowBatch, card: ModelCard
) -> Iterator[_Case]:
    """Plan the passes of alleles that change the same number of bases."""
    bins, grown = _bins(card), max(batch.alt_len - batch.ref_len, 0)
    edges = (*range(0, grown, bins), grown)
    if grown:
        longer = card.model_copy(update={"context": card.context + grown})
        (batch,) = cut_windows(genome, task.alleles, batch.allele, longer, task.model.circular)
    for reverse in (False, True):
        found = [
            (member, rank, gene)
            for member, allele in enumerate(batch.allele.tolist())
            for rank, gene in enumerate(task.genes[allele])
            if (gene.strand == "-") == reverse
        ]
        if not found:
            continue
        ref, alt = _in_genes(batch, np.array([x[0] for x in found]), [x[2] for x in found])
        model = replace(task.model, strands=(reverse,))
        old = ask_passes(task.plan, model, ref, None)
        new = ask_passes(task.plan, model, alt, None, edges)
        for (member, rank, gene), one, other in zip(found, old, new, strict=True):
            yield _Case(
                int(batch.allele[member]), rank, gene, one, other, edges,
                batch.offset, batch.ref_len, batch.alt_len,
            )  # fmt: skip


def _in_genes(batch: WindowBatch, members: Ints, genes: list[Gene]) -> tuple[Codes, Codes]:
    """Give REF and ALT haplotypes, shape (n, L), with N outside a gene for each."""
    starts, ends = (
        np.array(x)[:, None] for x in ([g.start for g in genes], [g.end for g in genes])
    )
    place = batch.left[members, None] + np.arange(batch.length)
    ref = np.where((place >= starts) & (place < ends), batch.ref[members], N)
    after = batch.offset + batch.alt_len
    place[:, after:] += batch.ref_len - batch.alt_len
    outside = (place < starts) | (place >= ends)
    outside[:, batch.offset : after] = False
    alt = np.where(outside, N, batch.alt[members])
    return ref.astype(np.uint8), alt.astype(np.uint8)


def _bins(card: ModelCard) -> int:
    return card.context - 2 * card.crop


def _finish(task: SpliceTask, case: _Case, answers: Answers) -> None:
    """Score an allele in one gene, and keep it if its change is the largest so far."""
    card = task.model.bundle.card
    bins, reverse = _bins(card), case.gene.strand == "-"
    ref = _tracks(task.model, bins, case.ref, (0,), reverse, answers)
    alt = _tracks(task.model, bins, case.alt, case.edges, reverse, answers)
    aligned = align_alt(alt, case.start - card.crop, case.ref_len, case.alt_len, bins)
    evidence = np.stack([ref, aligned])[None]
    deltas = splice_deltas(evidence, card.anchor - card.crop, distance=DISTANCE)
    changes = [abs(float(x[0])) for name, x in deltas.items() if name.startswith("DS_")]
    largest = max((x for x in changes if np.isfinite(x)), default=-1.0)
    if largest <= task.largest[case.allele]:
        return
    task.largest[case.allele], task.named[case.allele] = largest, case.gene.name
    for name, values in task.values.items():
        kept = np.isfinite(deltas[name.replace("DP_", "DS_")][0])
        values[case.allele] = deltas[name][0] if kept else np.nan


def _tracks(
    model: Model,
    bins: int,
    side: Passes,
    edges: tuple[int, ...],
    reverse: bool,
    answers: Answers,
) -> Floats:
    """Join the bins of a haplotype's windows in the order of the genome: acceptor and donor.

    Raises:
        BundleError: The graph has other bins than the card, or fewer tracks than the table.
    """
    splice, (numbers,) = _splice(model), side
    which = [splice.acceptor, splice.donor]
    joined = np.empty((edges[-1] + bins, 2))
    for edge, number in zip(edges, numbers, strict=True):
        answer = answers[number]
        if answer.ndim != 2 or answer.shape[0] != bins or answer.shape[1] <= max(which):
            raise BundleError(
                f"{model.bundle.path}: the graph gives tracks of shape {answer.shape}; by the card "
                f"there are {bins} bins, and tracks.tsv has a row {max(which) + 1}; export the "
                "bundle again"
            )
        part = answer[::-1] if reverse else answer
        joined[edge : edge + bins] = part[:, which]
    return joined


def _result(task: SpliceTask) -> Result:
    """Turn what a task that has run has gathered into scores."""
    result, chosen = task.blank(), task.chosen
    for spec in task.model.scores:
        numbers = task.values[spec.name][chosen]
        result.values[spec.key][chosen] = numbers
        none = chosen[~np.isfinite(numbers)]
        result.reasons[spec.key][none] = skip_code(Skip.NOT_FINITE)
    for i in chosen.tolist():
        result.genes[i] = task.named[i]
    return result
