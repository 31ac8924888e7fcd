"""One model's share of a chunk where the model predicts splice sites, in the genes of alleles.

Each allele is evaluated in every gene that holds it, on the gene's strand alone. After SpliceAI:
bases outside the gene are N (card: frame = gene), and changes within `dist` bases of the site
count. Models of the use of sites, without acceptors and donors, are scored as Pangolin does. Scores
that share their options are of one gene, that with the largest change under these options.

Decisions: the site, from which positions are counted, is the first changed base, of pure insertions
and deletions the base before it (VCF's POS of the left-aligned variant), and lies at the card's
anchor. A gene holds an allele if it has one of its reference bases, of an insertion the base before
it. Every window has `context` bases: a haplotype of which more is needed is read in several, whose
bins are joined, for a bin depends on no more than `crop` bases at each side. Bases of ALT are never
N.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from glm_annotate.answers import Floats, Ints
from glm_annotate.card import ModelCard
from glm_annotate.errors import BundleError
from glm_annotate.gene_models import Gene
from glm_annotate.genome import Codes, Genome, N
from glm_annotate.model import GeneRow, Model, Result, Splice
from glm_annotate.passes import ChunkTask, Passes, ask_passes, empty_result
from glm_annotate.scores import ScoreSpec
from glm_annotate.splice_scores import align_alt, nearest_boundary, splice_deltas, usage_deltas
from glm_annotate.tasks import choose
from glm_annotate.track_plan import Answers, TrackPlan
from glm_annotate.variants import Alleles, Skip, skip_code
from glm_annotate.windows import WindowBatch, cut_windows, too_long


@dataclass(slots=True)
class _Best:
    """Of scores that share their options: the gene with the largest change of each allele.

    Attributes:
        distance: Bases at each side of the site in which changes count.
        masked: Whether annotated sites are told from others.
        specs: The scores.
        largest: The change without its sign, shape (n,).
        named: The gene; empty where there is none.
    """

    distance: int
    masked: bool
    specs: list[ScoreSpec]
    largest: Floats
    named: list[str]


@dataclass(slots=True)
class SpliceTask(ChunkTask):
    """One model's share of a chunk.

    Attributes:
        genes: Of each chosen allele, in the order of their starts.
        plan: The passes.
        values: By `ScoreSpec.key`, of the gene with the largest change, shape (n,).
        best: That gene, by the label of the scores.
        rows: Every allele in every gene.
    """

    genes: dict[int, tuple[Gene, ...]]
    plan: TrackPlan = field(default_factory=lambda: TrackPlan("tracks"))
    values: dict[str, Floats] = field(default_factory=dict)
    best: dict[str, _Best] = field(default_factory=dict)
    rows: list[GeneRow] = field(default_factory=list)

    def ask(self, genome: Genome) -> None:
        """Cut and encode windows, and say what is to be done with their predictions."""
        _ask(self, genome)

    def result(self) -> Result:
        """Turn what was gathered into scores."""
        return _result(self)

    def blank(self) -> Result:
        """Give a result without numbers, with the reasons that are the same for all scores."""
        result = empty_result(self.model, self.skip, self.silent)
        result.genes.extend([""] * len(self.alleles))
        for spec in self.model.scores:
            if spec.label:
                result.named[spec.key] = [""] * len(self.alleles)
        return result

    def single(self, allele: int) -> SpliceTask:
        """Make a task of one of its alleles."""
        chosen = np.array([allele])
        return _empty(self.model, self.alleles, self.skip, self.silent, chosen, self.genes)


@dataclass(frozen=True, slots=True)
class _Haplotype:
    """Passes of one haplotype, and where their windows begin in it."""

    passes: Passes
    edges: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Case:
    """One allele in one gene.

    Attributes:
        allele: Its place in the chunk; `rank`: of the gene among those that hold it.
        start: Place of the first changed base in the haplotypes; `site`: its 0-based position of
            the site on the contig.
        beyond: See `usage_deltas`.
    """

    allele: int
    rank: int
    gene: Gene
    ref: _Haplotype
    alt: _Haplotype
    start: int
    site: int
    ref_len: int
    alt_len: int
    beyond: int


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
    for spec in model.scores:
        task.values[spec.key] = np.full(n, np.nan)
        if spec.label not in task.best:
            distance, masked = int(spec.options["dist"]), spec.options["mask"] == "annotated"
            task.best[spec.label] = _Best(distance, masked, [], np.full(n, -np.inf), [""] * n)
        task.best[spec.label].specs.append(spec)
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
        needs = [k for side in (case.ref, case.alt) for part in side.passes for k in part]
        task.plan.then(needs, partial(_finish, task, case))


def _cases(
    task: SpliceTask, genome: Genome, batch: WindowBatch, card: ModelCard
) -> Iterator[_Case]:
    """Plan the passes of alleles that change the same number of bases."""
    site = task.model.bundle.card.anchor
    beyond = 0 if _splice(task.model).paired else batch.offset - site + max(batch.ref_len - 1, 0)
    if not batch.ref_len:
        beyond = 0
    more = _more(task, site, beyond)
    grown = max(more + batch.alt_len - batch.ref_len, 0)
    longest = max(more, grown)
    if longest:
        longer = card.model_copy(update={"context": card.context + longest})
        (batch,) = cut_windows(genome, task.alleles, batch.allele, longer, task.model.circular)
    old_edges, new_edges = (_edges(_bins(card), x) for x in (more, grown))
    for reverse in (False, True):
        found = [
            (member, rank, gene)
            for member, allele in enumerate(batch.allele.tolist())
            for rank, gene in enumerate(task.genes[allele])
            if (gene.strand == "-") == reverse
        ]
        if not found:
            continue
        ref, alt = _in_genes(batch, [x[0] for x in found], [x[2] for x in found], card)
        model = replace(task.model, strands=(reverse,))
        old = ask_passes(task.plan, model, ref, None, old_edges)
        new = ask_passes(task.plan, model, alt, None, new_edges)
        for (member, rank, gene), one, other in zip(found, old, new, strict=True):
            yield _Case(
                int(batch.allele[member]), rank, gene,
                _Haplotype(one, old_edges), _Haplotype(other, new_edges),
                batch.offset, int(batch.left[member]) + site, batch.ref_len, batch.alt_len, beyond,
            )  # fmt: skip


def _more(task: SpliceTask, site: int, beyond: int) -> int:
    """Say how many bins of REF are needed to the right of a window's."""
    card = task.model.bundle.card
    right = card.context - card.crop - 1 - site
    farthest = max(best.distance for best in task.best.values())
    return max(min(farthest, right) + beyond - right, 0)


def _edges(bins: int, more: int) -> tuple[int, ...]:
    """Say where windows begin that give so many bins more than one."""
    return (*range(0, more, bins), more)


def _in_genes(
    batch: WindowBatch, which: Sequence[int], genes: Sequence[Gene], card: ModelCard
) -> tuple[Codes, Codes]:
    """Give REF and ALT haplotypes, shape (n, L), by the card with N outside a gene for each."""
    members = np.array(which)
    if card.frame != "gene":
        return batch.ref[members], batch.alt[members]
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
    """Score an allele in one gene, and keep what is the largest change so far."""
    card, reverse = task.model.bundle.card, case.gene.strand == "-"
    ref, alt = (_tracks(task.model, x, reverse, answers) for x in (case.ref, case.alt))
    aligned = align_alt(alt, case.start - card.crop, case.ref_len, case.alt_len, len(ref))
    evidence, row = np.stack([ref, aligned])[None], {}
    for best in task.best.values():
        deltas = _deltas(task.model, case, evidence, best)
        changes = [abs(x) for name, x in deltas.items() if name.startswith("DS_")]
        largest = max((x for x in changes if np.isfinite(x)), default=-1.0)
        for spec in best.specs:
            known = np.isfinite(deltas[spec.name.replace("DP_", "DS_")])
            row[spec.key] = np.array([deltas[spec.name] if known else np.nan])
        if largest > best.largest[case.allele]:
            best.largest[case.allele], best.named[case.allele] = largest, case.gene.name
            for spec in best.specs:
                task.values[spec.key][case.allele] = row[spec.key][0]
    task.rows.append(GeneRow(case.allele, case.gene.name, case.gene.gene_id, row))


def _deltas(model: Model, case: _Case, evidence: Floats, best: _Best) -> dict[str, float]:
    """Give scores and positions of one allele in one gene by their names."""
    card, sites = model.bundle.card, case.gene.sites
    centre = card.anchor - card.crop
    if _splice(model).paired:
        boundary = [nearest_boundary(sites, case.site)] if best.masked else None
        found = splice_deltas(evidence, centre, distance=best.distance, boundary=boundary)
    else:
        places = np.arange(evidence.shape[2]) + case.site - centre
        found = usage_deltas(
            evidence,
            centre,
            distance=best.distance,
            beyond=case.beyond,
            known=np.isin(places, sites) if best.masked else None,
        )
    return {name: float(x[0]) for name, x in found.items()}


def _tracks(model: Model, side: _Haplotype, reverse: bool, answers: Answers) -> Floats:
    """Join the bins of a haplotype's windows in the order of the genome, by the model's columns.

    Raises:
        BundleError: The graph has other bins than the card, or fewer tracks than the table.
    """
    which, (numbers,) = list(_splice(model).columns), side.passes
    bins = _bins(model.bundle.card)
    joined = np.empty((side.edges[-1] + bins, len(which)))
    for edge, number in zip(side.edges, numbers, strict=True):
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
    for label, best in task.best.items():
        for spec in best.specs:
            numbers = task.values[spec.key][chosen]
            result.values[spec.key][chosen] = numbers
            none = chosen[~np.isfinite(numbers)]
            result.reasons[spec.key][none] = skip_code(Skip.NOT_FINITE)
        for names in [result.named[x.key] for x in best.specs] if label else [result.genes]:
            for i in chosen.tolist():
                names[i] = best.named[i]
    result.rows.extend(task.rows)
    return result
