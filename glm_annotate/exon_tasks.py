"""One model's share of a chunk where the model reads parts of exons, as MMSplice and MTSplice do.

Each allele is evaluated in every exon of every transcript that holds it (see `exon_frame`), and an
exon that several transcripts or genes have is read once. Decisions: an allele's numbers are those
of the exon with the largest change, of all tissues; exons of one gene are told apart by their
places and by whether they have introns, not by their transcripts; alleles longer than both introns'
ends together are not scored. Of MTSplice a tissue's number is the difference of its predictions for
ALT and for REF; the change of the mean over the tissues, which MMSplice predicts, is not in it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np

from glm_annotate.answers import Floats, Ints
from glm_annotate.errors import BundleError
from glm_annotate.exon_frame import MODULES, Edit, Exon, ExonFrame, read_exon
from glm_annotate.exon_plan import ExonPlan
from glm_annotate.gene_models import Gene
from glm_annotate.genome import Genome
from glm_annotate.model import GeneRow, Model, Result
from glm_annotate.passes import ChunkTask, empty_result, fill_result
from glm_annotate.splice_scores import delta_logit_psi
from glm_annotate.track_scores import merge_values
from glm_annotate.variants import Alleles, Skip, skip_code

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class _Case:
    """One allele in one exon: the gene, and the numbers of the passes."""

    allele: int
    gene: Gene
    ref: int
    alt: int


@dataclass(slots=True)
class ExonTask(ChunkTask):
    """One model's share of a chunk.

    Attributes:
        exons: Of each chosen allele, with their genes.
        plan: The passes.
        cases: What they are of, by allele.
    """

    exons: dict[int, list[tuple[Gene, Exon]]]
    plan: ExonPlan
    cases: list[_Case] = field(default_factory=list)

    def ask(self, genome: Genome) -> None:
        """Cut the stretches of exons, and say which passes are needed."""
        for allele in self.chosen.tolist():
            _ask(self, allele, genome)

    def result(self) -> Result:
        """Turn the answers of the passes into scores."""
        return _result(self)

    def blank(self) -> Result:
        """Give a result without numbers, with the reasons that are the same for all scores."""
        result = empty_result(self.model, self.skip, self.silent)
        result.genes.extend([""] * len(self.alleles))
        return result

    def single(self, allele: int) -> ExonTask:
        """Make a task of one of its alleles."""
        chosen, plan = np.array([allele]), ExonPlan(self.plan.frame)
        return ExonTask(self.model, self.alleles, self.skip, self.silent, chosen, self.exons, plan)


def make_exon_task(model: Model, alleles: Alleles, skip: Ints) -> ExonTask:
    """Choose what a model scores of a chunk; arguments as `tasks.make_task`."""
    frame = _frame(model)
    longest = np.maximum(alleles.ref_len, alleles.alt_len)
    skip[(skip == 0) & (longest > frame.before + frame.behind)] = skip_code(Skip.TOO_LONG)
    silent, chosen = np.zeros_like(skip), np.flatnonzero(skip == 0)
    exons = {}
    for i in chosen.tolist():
        contig, start, size = (int(x[i]) for x in (alleles.contig, alleles.start, alleles.ref_len))
        exons[i] = list(frame.holding(alleles.contigs[contig], start, size))
        if not exons[i]:
            silent[i] = skip_code(Skip.NO_GENE)
    chosen = chosen[silent[chosen] == 0]
    return ExonTask(model, alleles, skip, silent, chosen, exons, ExonPlan(frame))


def _frame(model: Model) -> ExonFrame:
    if model.exons is None:
        raise ValueError(f"{model.tag}: opened without its exons")
    return model.exons


def _ask(task: ExonTask, allele: int, genome: Genome) -> None:
    """Plan the passes of one allele."""
    plan, start = task.plan, int(task.alleles.start[allele])
    contig = task.alleles.contigs[int(task.alleles.contig[allele])]
    circular = contig in task.model.circular
    old, new = task.alleles.edit(allele)
    ref, alt = None, Edit(start, old.size, new.tobytes())
    if old.size:
        (found,) = genome.windows(contig, np.array([start]), old.size, circular=circular)
        if not np.array_equal(found, old):  # the FASTA has IUPAC codes, the record bases
            ref = Edit(start, old.size, old.tobytes())
    for gene, exon in task.exons[allele]:
        one, other = (
            plan.add(exon, edit, partial(read_exon, genome, exon, edit, circular=circular))
            for edit in (ref, alt)
        )
        task.cases.append(_Case(allele, gene, one, other))


def _result(task: ExonTask) -> Result:
    """Turn what a task that has run has gathered into scores."""
    result, model = task.blank(), task.model
    if not task.cases:
        return result
    sides, changes = _numbers(task)
    # NaN is no change: it loses to any number.
    sizes = np.where(np.isfinite(changes), np.abs(changes), -1.0).max(axis=1).tolist()
    best: dict[int, int] = {}
    in_gene: dict[tuple[int, int], int] = {}
    for number, case in enumerate(task.cases):
        _keep_larger(best, case.allele, number, sizes)
        _keep_larger(in_gene, (case.allele, id(case.gene)), number, sizes)
    every = np.full((len(task.alleles), changes.shape[1]), np.nan)
    for allele, number in best.items():
        every[allele] = changes[number]
        result.genes[allele] = task.cases[number].gene.name
        if result.sums is not None:
            result.sums[allele] = sides[:, number]
    keys = [spec.key for spec in model.scores]
    for (allele, _), number in in_gene.items():
        gene, sums = task.cases[number].gene, None if model.tracks is None else sides[:, number]
        values = dict.fromkeys(keys, changes[number])
        result.rows.append(GeneRow(allele, gene.name, gene.gene_id, values, sums))
    return fill_result(result, task.chosen, dict.fromkeys(keys, every))


def _keep_larger(found: dict[_Key, int], key: _Key, number: int, sizes: Sequence[float]) -> None:
    """Keep the case with the larger change; of equal ones, the first."""
    held = found.setdefault(key, number)
    if sizes[number] > sizes[held]:
        found[key] = number


def _numbers(task: ExonTask) -> tuple[Floats, Floats]:
    """Give REF and ALT of every case, shape (2, cases, tracks), and its changes (cases, tracks).

    Of a model of five parts the change is one number, of a model of tissues one a tissue.

    Raises:
        BundleError: The graph has other tracks than the card and the table say.
    """
    model, plan = task.model, task.plan
    which = np.array([(x.ref, x.alt) for x in task.cases]).T
    count, tracks = plan.answers.shape[1], model.tracks
    wanted = len(MODULES) if tracks is None else int(tracks.which.max()) + 1
    if count < wanted or (tracks is None and count > wanted):
        raise BundleError(
            f"{model.bundle.path}: the graph gives {count} numbers an exon, by the card and "
            f"tracks.tsv there are {wanted}; export the bundle again"
        )
    sides = plan.answers[which]
    if tracks is None:
        order = [plan.frame.names.index(name) for name in MODULES]
        changed = plan.changed(*which)[:, order]
        return sides, delta_logit_psi(sides[0], sides[1], changed)[:, None]
    sides = merge_values(sides[..., tracks.which], *tracks.merged)
    return sides, sides[1] - sides[0]
