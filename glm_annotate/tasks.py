"""One model's share of a chunk: what is asked of it, and how the answers become scores.

Decisions: an allele on a contig that the model's channels do not know gets NO_SIGNAL for every
score, and no window; evidence that several scores read is asked for once; of a model that is read
in dense passes, alleles that those do not serve are asked for one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from glm_annotate.answers import Floats, Ints, is_writable
from glm_annotate.dense import DENSE, DenseAsker
from glm_annotate.encoding import refused
from glm_annotate.evidence import EVIDENCE, Asked
from glm_annotate.genome import Genome
from glm_annotate.model import Model, Result
from glm_annotate.pairs import Pair, cut_pairs, cuts, grid_pairs, variant_pairs
from glm_annotate.passes import ChunkTask, trackless_result
from glm_annotate.plan import Plan
from glm_annotate.variants import Alleles, Skip, skip_code
from glm_annotate.windows import WindowBatch, cut_windows, fit, too_long

_EvidenceKey = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(slots=True)
class Task(ChunkTask):
    """One model's share of a chunk.

    Attributes:
        plan: The passes.
        asked: Alleles and what was asked of them, by kind of evidence.
    """

    plan: Plan
    asked: dict[_EvidenceKey, list[tuple[Ints, Asked]]] = field(default_factory=dict)

    def ask(self, genome: Genome) -> None:
        """Ask for all evidence that the scores read, each kind once."""
        _ask(self, genome)

    def result(self) -> Result:
        """Turn the answers into scores."""
        return _result(self)

    def foreseen(self) -> Result:
        """Give the reasons that are known before the passes, and 0.0 for each number to come."""
        return _foreseen(self)

    def blank(self) -> Result:
        """Give a result without numbers, with the reasons that are the same for all scores."""
        return trackless_result(self.model, self.skip, self.silent)

    def single(self, allele: int) -> Task:
        """Make a task of one of its alleles."""
        chosen = np.array([allele])
        return Task(self.model, self.alleles, self.skip, self.silent, chosen, _plan(self.model))


def make_task(model: Model, alleles: Alleles, skip: Ints) -> Task:
    """Choose what a model scores of a chunk.

    Args:
        model: The model.
        alleles: Of the chunk.
        skip: Reasons known so far, shape (n,); it is added to.
    """
    silent, chosen = choose(model, alleles, skip)
    return Task(model, alleles, skip, silent, chosen, _plan(model))


def choose(model: Model, alleles: Alleles, skip: Ints) -> tuple[Ints, Ints]:
    """Find what can be scored: adds to `skip`, and gives `Task.silent` and `Task.chosen`."""
    card = model.bundle.card
    skip[(skip == 0) & too_long(alleles, card)] = skip_code(Skip.TOO_LONG)
    silent, chosen = np.zeros_like(skip), np.flatnonzero(skip == 0)
    if model.channels is not None:
        for number in np.unique(alleles.contig[chosen]).tolist():
            if not model.channels.holds(alleles.contigs[number]):
                silent[(skip == 0) & (alleles.contig == number)] = skip_code(Skip.NO_SIGNAL)
        chosen = chosen[silent[chosen] == 0]
    return silent, chosen


def _plan(model: Model) -> Plan:
    return Plan(model.bundle.encoder, model.bundle.card.logits_shift)


def _ask(task: Task, genome: Genome) -> None:
    """Ask for all evidence that the task's scores read, each kind once."""
    model, card = task.model, task.model.bundle.card
    wanted = dict.fromkeys(spec.evidence for spec in model.scores)
    grid, others = _split(wanted, lambda key: EVIDENCE[key[0]].windows == "grid")
    dense, others = _split(others, lambda key: model.dense > 0 and key[0] in DENSE)
    cut = cut_windows(genome, task.alleles, task.chosen, card, model.circular, model.channels)
    for whole in (_readable(task, batch) for batch in cut):
        if grid:
            for reverse in model.strands:
                pairs = grid_pairs(
                    genome, task.alleles, whole, card, model.circular, task.plan, reverse,
                    model.channels,
                )  # fmt: skip
                _ask_pairs(task, grid, pairs)
        is_single = whole.ref_len == whole.alt_len == 1
        shared = [key for key in dense if is_single or not DENSE[key[0]].single]
        alone = [key for key in dense if key not in shared]
        _ask_centred(task, whole, [*others, *alone])
        if shared:
            _ask_centred(task, _ask_dense(task, genome, whole, shared), shared)


def _split(
    keys: Iterable[_EvidenceKey], first: Callable[[_EvidenceKey], bool]
) -> tuple[list[_EvidenceKey], list[_EvidenceKey]]:
    """Tell keys of which something is true from the others."""
    parts: tuple[list[_EvidenceKey], list[_EvidenceKey]] = ([], [])
    for key in keys:
        parts[0 if first(key) else 1].append(key)
    return parts


def _ask_dense(
    task: Task, genome: Genome, batch: WindowBatch, wanted: list[_EvidenceKey]
) -> WindowBatch:
    """Ask for what dense passes give; returns the alleles that they do not serve."""
    asker = DenseAsker(genome, task.model, task.alleles, batch.allele, task.plan)
    for sites in asker.sites():
        for key in wanted:
            asked = DENSE[key[0]].ask(sites)
            task.asked.setdefault(key, []).append((sites.allele, asked))
    return batch.take(np.flatnonzero(~asker.served))


def _ask_centred(task: Task, whole: WindowBatch, wanted: list[_EvidenceKey]) -> None:
    """Ask for what reads windows around each allele."""
    if not wanted or not whole.allele.size:
        return
    cut_short, centred = _split(wanted, lambda key: EVIDENCE[key[0]].windows == "cut")
    model = task.model
    for batch in fit(whole, model.bundle.card, model.bundle.encoder):
        for reverse in model.strands:
            _ask_strand(task, batch, reverse, centred, cut_short)


def _ask_strand(
    task: Task,
    batch: WindowBatch,
    reverse: bool,
    whole: list[_EvidenceKey],
    cut_short: list[_EvidenceKey],
) -> None:
    """Ask for what reads whole windows, and for what reads haplotypes that end at one base."""
    if not cuts(batch, task.plan):
        _ask_pairs(task, [*whole, *cut_short], variant_pairs(batch, task.plan, reverse))
        return
    if whole:
        _ask_pairs(task, whole, variant_pairs(batch, task.plan, reverse))
    if cut_short:
        _ask_pairs(task, cut_short, cut_pairs(batch, task.plan, reverse))


def _readable(task: Task, batch: WindowBatch) -> WindowBatch:
    """Leave out windows with letters that the encoder refuses."""
    spec = task.model.bundle.encoder.spec
    if spec.vocab.n != "error":
        return batch
    bad = refused(batch.ref, spec) | refused(batch.alt, spec)
    task.skip[batch.allele[bad]] = skip_code(Skip.AMBIGUOUS)
    task.chosen = np.flatnonzero((task.skip == 0) & (task.silent == 0))
    return batch.take(np.flatnonzero(~bad))


def _ask_pairs(task: Task, wanted: list[_EvidenceKey], pairs: Iterable[Pair]) -> None:
    card = task.model.bundle.card
    for pair in pairs:
        for key in wanted:
            name, options = key
            asked = EVIDENCE[name].ask(pair, card, dict(options))
            task.asked.setdefault(key, []).append((pair.allele, asked))


def _foreseen(task: Task) -> Result:
    """Give the reasons that are known before the passes, and 0.0 for each number to come."""
    result = task.blank()
    for spec in task.model.scores:
        result.reasons[spec.key][:] = _reasons(task, task.asked.get(spec.evidence, []))
        scored = (result.skip == 0) & (result.reasons[spec.key] == 0)
        result.values[spec.key][scored] = 0.0
    return result


def _result(task: Task) -> Result:
    """Turn the answers to a task that has run into scores."""
    result = task.blank()
    # Nothing was asked where no window of the chunk could be cut.
    wanted = dict.fromkeys(spec.evidence for spec in task.model.scores)
    evidence = {key: _gather(task, task.asked.get(key, [])) for key in wanted}
    for spec in task.model.scores:
        values, reasons = evidence[spec.evidence]
        result.reasons[spec.key][:] = reasons
        chosen = task.chosen[reasons[task.chosen] == 0]
        if not chosen.size:
            continue
        numbers = spec.score.reduce(values[chosen])
        fine = is_writable(numbers)
        result.values[spec.key][chosen] = np.where(fine, numbers, np.nan)
        result.reasons[spec.key][chosen[~fine]] = skip_code(Skip.NOT_FINITE)
    return result


def _gather(task: Task, asked: list[tuple[Ints, Asked]]) -> tuple[Floats, Ints]:
    """Average evidence over strands; returns it with the reasons where there is none."""
    n, share = len(task.alleles), 1 / len(task.model.strands)
    total: Floats = np.zeros(0)
    for allele, one in asked:
        if bool((one.skip != 0).all()):
            continue  # nothing was asked
        values = one.read()
        total = total if total.size else np.zeros((n, *values.shape[1:]))
        total[allele] += share * values
    return total if total.size else np.full(n, np.nan), _reasons(task, asked)


def _reasons(task: Task, asked: list[tuple[Ints, Asked]]) -> Ints:
    """Say why alleles get no number of one kind of evidence; 0 where they do."""
    reasons = task.silent.copy()
    seen = np.zeros_like(reasons)
    for allele, one in asked:
        reasons[allele] = np.where(one.skip != 0, one.skip, reasons[allele])
        seen[allele] += 1
    # No window could hold what the evidence reads, or one on the grid has an N that may not be.
    refuses = task.model.bundle.encoder.spec.vocab.n == "error"
    lost = task.chosen[seen[task.chosen] < len(task.model.strands)]
    reasons[lost[reasons[lost] == 0]] = skip_code(Skip.TOKENIZATION if refuses else Skip.TOO_LONG)
    return reasons
