"""The pipeline: records in, the same records with their alleles' scores out, in order.

A chunk of records is *prepared* (alleles read, windows cut and encoded, passes planned) while the
chunk before it *runs* in a worker thread, one a session; then it is *finished* (answers become
scores). Memory is bounded by the chunks under way: one a session, and one being prepared.
Decisions: a pass that fails alone makes its alleles FAILED and nothing else; models that see a
contig as circular and models that do not each get alleles aligned their way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from glm_annotate.answers import Ints
from glm_annotate.chunks import Chunk
from glm_annotate.dense import is_dense
from glm_annotate.genome import Genome, aliases
from glm_annotate.model import Model as Model
from glm_annotate.model import Result as Result
from glm_annotate.phased import Background, Phased, haplotype_result
from glm_annotate.pipeline import overlapped
from glm_annotate.plan import PassFailed
from glm_annotate.runtime import stop_runners
from glm_annotate.shares import Share, make_share
from glm_annotate.variants import AlleleReader, Alleles, Skip, skip_code

logger = logging.getLogger(__name__)

# A chunk holds so many records at most, and no more than fit in so many bytes of windows and
# embeddings. It holds fewer of an expensive model (weights x bases), so that progress is seen and
# Ctrl-C does not lose minutes. None of it depends on the machine: output is the same everywhere.
_LARGEST_CHUNK, _SMALLEST_CHUNK = 4096, 16
_CHUNK_BYTES = 1 << 25
_CHUNK_COST = 1 << 40


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of those who may know scores before: alleles, and 0 in `skip` where wanted."""

    alleles: Alleles
    skip: Ints


@dataclass(frozen=True, slots=True)
class Taken:
    """Alleles of a chunk whose scores are known, and the text of their INFO keys but the status."""

    alleles: Ints
    texts: list[tuple[bytes, ...]]


Known = Callable[[Chunk, Mapping[str, Asked]], dict[str, Taken]]


@dataclass(slots=True)
class Work:
    """A chunk on its way.

    Attributes:
        chunk: Its records.
        alleles: Their alleles, as any model reads them: `skip` and `record` are the same for all.
        passes: Distinct forward passes, by tag.
        taken: Alleles whose scores were known before, by tag.
        backgrounds: Of the haplotypes of a sample, by tag.
    """

    chunk: Chunk
    alleles: Alleles
    tasks: list[Share]
    passes: dict[str, int] = field(default_factory=dict)
    taken: dict[str, Taken] = field(default_factory=dict)
    backgrounds: dict[str, list[Background]] = field(default_factory=dict)

    def shares(self, genome: Genome) -> Iterator[tuple[Share, Genome]]:
        """Give every task, and the genome that it is about."""
        for task in self.tasks:
            yield task, genome
        for backgrounds in self.backgrounds.values():
            for background in backgrounds:
                yield background.share, background.genome


@dataclass(frozen=True, slots=True)
class Scored:
    """A finished chunk: its records, alleles, each model's result by tag, and what was taken.

    `haplotypes` are the results on those of a sample, if there is one.
    """

    chunk: Chunk
    alleles: Alleles
    results: dict[str, Result]
    taken: dict[str, Taken] = field(default_factory=dict)
    haplotypes: dict[str, Result] = field(default_factory=dict)


class Annotator:
    """Scores chunks of records.

    Args:
        genome: The reference.
        models: What to score with.
        contig_map: The user's own VCF-to-FASTA contig names.
        absent: VCF contig names that are treated as missing from the FASTA.
        known: Gives the scores of alleles that need none made.
        phased: Haplotypes that alleles are scored on besides.
    """

    def __init__(
        self,
        genome: Genome,
        models: Sequence[Model],
        *,
        contig_map: dict[str, str] | None = None,
        absent: frozenset[str] = frozenset(),
        known: Known | None = None,
        phased: Phased | None = None,
    ) -> None:
        self.genome, self.models, self._known, self._phased = genome, models, known, phased
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
        asked = {
            model.tag: Asked(read[model.circular], self._skip(model, read[model.circular]))
            for model in self.models
        }
        taken = self._known(chunk, asked) if self._known is not None else {}
        for tag, found in taken.items():
            asked[tag].skip[found.alleles] = skip_code(Skip.PRECOMPUTED)
        tasks = [
            make_share(model, read[model.circular], asked[model.tag].skip) for model in self.models
        ]
        work = Work(chunk, next(iter(read.values())), tasks, taken=taken)
        if self._phased is not None:
            work.backgrounds = {
                tag: self._phased.backgrounds(chunk, alleles, model, asked[tag].skip)
                for model in self.models
                for tag, alleles in [(model.tag, read[model.circular])]
            }
        return work

    def take(self, chunk: Chunk, alleles: Alleles) -> Work:
        """Make a chunk of alleles that were made without records, for all models alike."""
        tasks = [make_share(model, alleles, self._skip(model, alleles)) for model in self.models]
        return Work(chunk, alleles, tasks)

    def prepare(self, work: Work) -> Work:
        """Cut and encode windows, and plan the passes."""
        for task, genome in work.shares(self.genome):
            task.ask(genome)
            tag = task.model.tag
            work.passes[tag] = work.passes.get(tag, 0) + task.plan.seal()
        return work

    def run(self, work: Work, session: int = 0) -> Work:
        """Make the forward passes on one of the models' sessions."""
        for task, _ in work.shares(self.genome):
            try:
                task.plan.execute(task.model.runners[session])
            except PassFailed:
                task.failed = True
        return work

    def finish(self, work: Work) -> Scored:
        """Turn answers into scores."""
        results = {task.model.tag: self._result(task, self.genome) for task in work.tasks}
        haplotypes = {
            tag: haplotype_result(
                results[tag], [(x, self._result(x.share, x.genome)) for x in backgrounds]
            )
            for tag, backgrounds in work.backgrounds.items()
        }
        return Scored(work.chunk, work.alleles, results, work.taken, haplotypes)

    def foresee(self, work: Work) -> Scored:
        """Give what is known of a prepared chunk before its passes: skips and reasons."""
        results = {task.model.tag: task.foreseen() for task in work.tasks}
        return Scored(work.chunk, work.alleles, results, work.taken, results)

    def trial(self, work: Work) -> dict[str, float]:
        """Estimate the seconds that a prepared chunk's passes will take, by tag."""
        seconds = dict.fromkeys((model.tag for model in self.models), 0.0)
        for task, _ in work.shares(self.genome):
            for rows, count in task.plan.rows_counts().items():
                cost = task.model.runners[0].seconds_per_pass(rows, task.model.outputs)
                seconds[task.model.tag] += count * cost
        return seconds

    def _skip(self, model: Model, alleles: Alleles) -> Ints:
        """Say why alleles are not scored, as far as it is the same for all models of a kind."""
        card = model.bundle.card
        skip = alleles.skip.copy()
        if card.scope is not None and not model.ignore_scope:
            fits = np.array([self._in_scope(model, name) for name in alleles.contigs], dtype=bool)
            outside = (alleles.contig >= 0) & ~fits[alleles.contig]
            skip[(skip == 0) & outside] = skip_code(Skip.OUT_OF_SCOPE)
        return skip

    def _in_scope(self, model: Model, name: str) -> bool:
        key = model.tag, name
        if key not in self._scope:
            length = self.genome.contigs[name]
            self._scope[key] = model.bundle.card.in_scope(name, length, aliases(name))
        return self._scope[key]

    def _result(self, task: Share, genome: Genome) -> Result:
        return self._one_by_one(task, genome) if task.failed else task.result()

    def _one_by_one(self, task: Share, genome: Genome) -> Result:
        """Score the alleles of a chunk with a failed pass singly, so that only its own fail."""
        total = task.blank()
        for i in task.chosen.tolist():
            single = task.single(i)
            single.ask(genome)
            single.plan.seal()
            try:
                single.plan.execute(task.model.runners[0])
            except PassFailed as error:
                logger.warning("%s: a forward pass failed: %s", task.model.tag, error)
                total.skip[i] = skip_code(Skip.FAILED)
                continue
            total.take(single.result(), i)
        return total


def _affordable(model: Model) -> int:
    """Say how many records of one model a chunk may hold."""
    card = model.bundle.card
    signals = sum(4 if x.source == "bigwig" else 1 for x in card.encoder.channels)
    size = card.context * (1 + signals)
    if card.embedding is not None and "embedding" in model.outputs:
        size = max(size, 16 * card.embedding.dim)
    cost = sum(graph.stat().st_size for graph in model.bundle.graphs) * card.context
    # Neighbours share dense passes, so that a chunk of few records would lose their advantage.
    shared = all(is_dense(model, spec) for spec in model.scores)
    gain = max(1, card.context // 2 // model.dense) if shared else 1
    return min(_CHUNK_BYTES // size, _CHUNK_COST * gain // cost)


def score_chunks(
    annotator: Annotator, works: Iterable[Work], on_done: Callable[[Work], None] | None = None
) -> Iterator[Scored]:
    """Prepare, run and finish chunks, the next ones prepared while sessions are busy.

    Args:
        annotator: Does the work.
        works: Chunks whose alleles are read.
        on_done: Called with each chunk after its passes.
    """
    runners = [runner for model in annotator.models for runner in model.runners]
    works = overlapped(
        works,
        annotator.prepare,
        annotator.run,
        sessions=len(annotator.models[0].runners),
        stop=partial(stop_runners, runners),
    )
    for work in works:
        if on_done is not None:
            on_done(work)
        yield annotator.finish(work)
