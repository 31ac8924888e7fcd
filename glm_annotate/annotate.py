"""The pipeline: records in, the same records with their alleles' scores out, in order.

A chunk of records is *prepared* (alleles read, windows cut and encoded, passes planned) while the
chunk before it *runs* in a worker thread, one a session; then it is *finished* (answers become
scores). Memory is bounded by the chunks under way: one a session, and one being prepared.
Decisions: a pass that fails alone makes its alleles FAILED and nothing else; models that see a
contig as circular and models that do not each get alleles aligned their way.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from glm_annotate.answers import Floats, Ints, OutputRole
from glm_annotate.bundle import Bundle
from glm_annotate.chunks import Chunk
from glm_annotate.encoding import refused
from glm_annotate.evidence import EVIDENCE, Asked
from glm_annotate.genome import Genome, aliases
from glm_annotate.pairs import Pair, grid_pairs, variant_pairs
from glm_annotate.plan import PassFailed, Plan
from glm_annotate.runtime import OrtRunner
from glm_annotate.scores import ScoreSpec
from glm_annotate.variants import AlleleReader, Alleles, Skip, skip_code
from glm_annotate.windows import WindowBatch, cut_windows, fit, too_long

logger = logging.getLogger(__name__)

_EvidenceKey = tuple[str, tuple[tuple[str, str], ...]]
# A chunk holds so many records at most, and no more than fit in so many bytes of windows and
# embeddings. It holds fewer of an expensive model (weights x bases), so that progress is seen and
# Ctrl-C does not lose minutes. None of it depends on the machine: output is the same everywhere.
_LARGEST_CHUNK, _SMALLEST_CHUNK = 4096, 16
_CHUNK_BYTES = 1 << 25
_CHUNK_COST = 1 << 40
_LARGEST = float(np.finfo(np.float32).max)  # VCF's Float: larger ones could not be written


@dataclass(frozen=True, slots=True)
class Model:
    """A bundle as it is used in one run.

    Attributes:
        tag: Prefix of its INFO keys.
        bundle: Card, graph and encoder.
        scores: What is computed.
        strands: Strands that are read and averaged; True is the reverse one.
        circular: FASTA names of contigs that wrap around.
        runners: Sessions, one a device.
        ignore_scope: Score contigs that the card is not meant for.
    """

    tag: str
    bundle: Bundle
    scores: tuple[ScoreSpec, ...]
    strands: tuple[bool, ...]
    circular: frozenset[str]
    runners: Sequence[OrtRunner]
    ignore_scope: bool = False

    @property
    def outputs(self) -> frozenset[OutputRole]:
        """Graph outputs that the scores read."""
        return frozenset(spec.score.output for spec in self.scores)


@dataclass(frozen=True, slots=True)
class Result:
    """What one model says of a chunk's alleles.

    Attributes:
        skip: Why an allele has no score at all, as in `variants.skip_code`; 0 for none.
        values: By `ScoreSpec.key`, NaN where there is no number.
        reasons: By `ScoreSpec.key`: why an allele that is not skipped has no number; 0 for none.
    """

    skip: Ints
    values: dict[str, Floats]
    reasons: dict[str, Ints]


@dataclass(slots=True)
class _Task:
    """One model's share of a chunk."""

    model: Model
    alleles: Alleles
    skip: Ints
    chosen: Ints
    plan: Plan
    asked: dict[_EvidenceKey, list[tuple[Pair, Asked]]]
    failed: bool = False


@dataclass(slots=True)
class Work:
    """A chunk on its way.

    Attributes:
        chunk: Its records.
        alleles: Their alleles, as any model reads them: `skip` and `record` are the same for all.
        passes: Distinct forward passes, by tag.
    """

    chunk: Chunk
    alleles: Alleles
    tasks: list[_Task]
    passes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scored:
    """A finished chunk: its records, alleles, and each model's result by tag."""

    chunk: Chunk
    alleles: Alleles
    results: dict[str, Result]


class Annotator:
    """Scores chunks of records.

    Args:
        genome: The reference.
        models: What to score with.
        contig_map: The user's own VCF-to-FASTA contig names.
        absent: VCF contig names that are treated as missing from the FASTA.
    """

    def __init__(
        self,
        genome: Genome,
        models: Sequence[Model],
        *,
        contig_map: dict[str, str] | None = None,
        absent: frozenset[str] = frozenset(),
    ) -> None:
        self.genome, self.models = genome, models
        longest = max(model.bundle.card.context for model in models)
        names = {**(contig_map or {}), **dict.fromkeys(absent, "")}
        self._readers = {
            circular: AlleleReader(genome, circular=circular, contig_map=names, longest=longest)
            for circular in dict.fromkeys(model.circular for model in models)
        }
        self._scope: dict[tuple[str, str], bool] = {}

    @property
    def chunk_size(self) -> int:
        """Records that go into a chunk."""
        return max(_SMALLEST_CHUNK, min(_LARGEST_CHUNK, *map(_affordable, self.models)))

    def read(self, chunk: Chunk) -> Work:
        """Read a chunk's alleles."""
        columns = chunk.chroms, chunk.pos, chunk.refs, chunk.alts, chunk.infos
        read = {circular: reader.read(*columns) for circular, reader in self._readers.items()}
        tasks = [self._task(model, read[model.circular]) for model in self.models]
        return Work(chunk, next(iter(read.values())), tasks)

    def prepare(self, work: Work) -> Work:
        """Cut and encode windows, and plan the passes."""
        for task in work.tasks:
            self._ask(task)
            work.passes[task.model.tag] = task.plan.seal()
        return work

    def run(self, work: Work, session: int = 0) -> Work:
        """Make the forward passes on one of the models' sessions."""
        for task in work.tasks:
            try:
                task.plan.execute(task.model.runners[session])
            except PassFailed:
                task.failed = True
        return work

    def finish(self, work: Work) -> Scored:
        """Turn answers into scores."""
        results = {
            task.model.tag: self._one_by_one(task) if task.failed else _result(task)
            for task in work.tasks
        }
        return Scored(work.chunk, work.alleles, results)

    def foresee(self, work: Work) -> Scored:
        """Give what is known of a prepared chunk before its passes: skips and reasons."""
        results = {}
        for task in work.tasks:
            result = _blank_result(task)
            for spec in task.model.scores:
                asked = task.asked.get(spec.evidence, [])
                result.reasons[spec.key][:] = _reasons(task, asked)
                scored = (result.skip == 0) & (result.reasons[spec.key] == 0)
                result.values[spec.key][scored] = 0.0
            results[task.model.tag] = result
        return Scored(work.chunk, work.alleles, results)

    def trial(self, work: Work) -> dict[str, float]:
        """Estimate the seconds that a prepared chunk's passes will take, by tag."""
        return {
            task.model.tag: sum(
                count * task.model.runners[0].seconds_per_pass(rows, task.model.outputs)
                for rows, count in task.plan.rows_counts().items()
            )
            for task in work.tasks
        }

    def _task(self, model: Model, alleles: Alleles) -> _Task:
        card = model.bundle.card
        skip = alleles.skip.copy()
        if card.scope is not None and not model.ignore_scope:
            fits = np.array([self._in_scope(model, name) for name in alleles.contigs], dtype=bool)
            outside = (alleles.contig >= 0) & ~fits[alleles.contig]
            skip[(skip == 0) & outside] = skip_code(Skip.OUT_OF_SCOPE)
        skip[(skip == 0) & too_long(alleles, card)] = skip_code(Skip.TOO_LONG)
        plan = Plan(model.bundle.encoder, card.logits_shift)
        return _Task(model, alleles, skip, np.flatnonzero(skip == 0), plan, {})

    def _in_scope(self, model: Model, name: str) -> bool:
        key = model.tag, name
        if key not in self._scope:
            length = self.genome.contigs[name]
            self._scope[key] = model.bundle.card.in_scope(name, length, aliases(name))
        return self._scope[key]

    def _ask(self, task: _Task) -> None:
        """Ask for all evidence that the task's scores read, each kind once."""
        model, card = task.model, task.model.bundle.card
        wanted = dict.fromkeys(spec.evidence for spec in model.scores)
        grid = [key for key in wanted if EVIDENCE[key[0]].windows == "grid"]
        centred = [key for key in wanted if EVIDENCE[key[0]].windows == "variant"]
        cut = cut_windows(self.genome, task.alleles, task.chosen, card, model.circular)
        for whole in (self._readable(task, batch) for batch in cut):
            for reverse in model.strands:
                if grid:
                    pairs = grid_pairs(
                        self.genome, task.alleles, whole, card, model.circular, task.plan, reverse
                    )
                    _ask_pairs(task, grid, pairs)
            if centred:
                for batch in fit(whole, card, model.bundle.encoder):
                    for reverse in model.strands:
                        _ask_pairs(task, centred, variant_pairs(batch, task.plan, reverse))

    def _readable(self, task: _Task, batch: WindowBatch) -> WindowBatch:
        """Leave out windows with letters that the encoder refuses."""
        spec = task.model.bundle.encoder.spec
        if spec.vocab.n != "error":
            return batch
        bad = refused(batch.ref, spec) | refused(batch.alt, spec)
        task.skip[batch.allele[bad]] = skip_code(Skip.AMBIGUOUS)
        task.chosen = np.flatnonzero(task.skip == 0)
        return batch.take(np.flatnonzero(~bad))

    def _one_by_one(self, task: _Task) -> Result:
        """Score the alleles of a chunk with a failed pass singly, so that only its own fail."""
        total = _blank_result(task)
        for i in task.chosen.tolist():
            plan = Plan(task.plan.encoder, task.model.bundle.card.logits_shift)
            single = _Task(task.model, task.alleles, task.skip, np.array([i]), plan, {})
            self._ask(single)
            plan.seal()
            try:
                plan.execute(task.model.runners[0])
            except PassFailed as error:
                logger.warning("%s: a forward pass failed: %s", task.model.tag, error)
                total.skip[i] = skip_code(Skip.FAILED)
                continue
            alone = _result(single)
            for key in total.values:
                total.values[key][i] = alone.values[key][i]
                total.reasons[key][i] = alone.reasons[key][i]
        return total


def _affordable(model: Model) -> int:
    """Say how many records of one model a chunk may hold."""
    card = model.bundle.card
    size = card.context
    if card.embedding is not None and "embedding" in model.outputs:
        size = max(size, 16 * card.embedding.dim)
    cost = model.bundle.graph.stat().st_size * card.context
    return min(_CHUNK_BYTES // size, _CHUNK_COST // cost)


def _ask_pairs(task: _Task, wanted: list[_EvidenceKey], pairs: Iterable[Pair]) -> None:
    card = task.model.bundle.card
    for pair in pairs:
        for key in wanted:
            name, options = key
            asked = EVIDENCE[name].ask(pair, card, dict(options))
            task.asked.setdefault(key, []).append((pair, asked))


def _blank_result(task: _Task) -> Result:
    n, keys = len(task.alleles), [spec.key for spec in task.model.scores]
    return Result(
        task.skip.copy(),
        {key: np.full(n, np.nan) for key in keys},
        {key: np.zeros(n, dtype=np.int64) for key in keys},
    )


def _result(task: _Task) -> Result:
    result = _blank_result(task)
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
        fine = np.abs(numbers) <= _LARGEST  # False for NaN
        result.values[spec.key][chosen] = np.where(fine, numbers, np.nan)
        result.reasons[spec.key][chosen[~fine]] = skip_code(Skip.NOT_FINITE)
    return result


def _gather(task: _Task, asked: list[tuple[Pair, Asked]]) -> tuple[Floats, Ints]:
    """Average evidence over strands; returns it with the reasons where there is none."""
    n, share = len(task.alleles), 1 / len(task.model.strands)
    total: Floats = np.zeros(0)
    for pair, one in asked:
        if bool((one.skip != 0).all()):
            continue  # nothing was asked
        values = one.read()
        total = total if total.size else np.zeros((n, *values.shape[1:]))
        total[pair.allele] += share * values
    return total if total.size else np.full(n, np.nan), _reasons(task, asked)


def _reasons(task: _Task, asked: list[tuple[Pair, Asked]]) -> Ints:
    """Say why alleles get no number of one kind of evidence; 0 where they do."""
    n = len(task.alleles)
    reasons: Ints = np.zeros(n, dtype=np.int64)
    seen: Ints = np.zeros(n, dtype=np.int64)
    for pair, one in asked:
        reasons[pair.allele] = np.where(one.skip != 0, one.skip, reasons[pair.allele])
        seen[pair.allele] += 1
    # No window could hold what the evidence reads, or one on the grid has an N that may not be.
    refuses = task.model.bundle.encoder.spec.vocab.n == "error"
    lost = task.chosen[seen[task.chosen] < len(task.model.strands)]
    reasons[lost[reasons[lost] == 0]] = skip_code(Skip.TOKENIZATION if refuses else Skip.TOO_LONG)
    return reasons


def score_chunks(
    annotator: Annotator, works: Iterable[Work], on_done: Callable[[Work], None] | None = None
) -> Iterator[Scored]:
    """Prepare, run and finish chunks, the next ones prepared while sessions are busy.

    Args:
        annotator: Does the work.
        works: Chunks whose alleles are read.
        on_done: Called with each chunk after its passes.
    """
    sessions = len(annotator.models[0].runners)
    pending: deque[Future[Work]] = deque()
    with ExitStack() as stack:
        pools = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(sessions)]
        stack.push(partial(_stop, annotator))
        for number, work in enumerate(works):
            prepared = annotator.prepare(work)
            session = number % sessions
            pending.append(pools[session].submit(annotator.run, prepared, session))
            if len(pending) > sessions:
                yield _take(annotator, pending, on_done)
        while pending:
            yield _take(annotator, pending, on_done)


def _take(
    annotator: Annotator, pending: deque[Future[Work]], on_done: Callable[[Work], None] | None
) -> Scored:
    work = pending.popleft().result()
    if on_done is not None:
        on_done(work)
    return annotator.finish(work)


def _stop(annotator: Annotator, kind: type[BaseException] | None, *_: object) -> None:
    """End the workers' passes; only an error or Ctrl-C leaves any to end."""
    if kind is None:
        return
    for model in annotator.models:
        for runner in model.runners:
            runner.stopped = True
