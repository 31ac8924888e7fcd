"""Embeddings of regions: rows weighted by the bases of the region that they hold.

A region lies in the middle of a window. One that is longer than the window is cut into tiles whose
lengths differ by a base at most, and so is one with more rows than the model takes; tiles are
weighted by their bases. Tiles without any A, C, G or T do not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from glm_annotate.answers import Floats, Ints
from glm_annotate.bed_scores import Column, Said, has_bases
from glm_annotate.channels import Beside
from glm_annotate.encoding import refused
from glm_annotate.errors import UsageError
from glm_annotate.evidence import Asked, ask_pooled
from glm_annotate.genome import Genome, Interval
from glm_annotate.model import Model
from glm_annotate.pairs import variant_pairs
from glm_annotate.pipeline import overlapped
from glm_annotate.plan import PassFailed, Plan
from glm_annotate.runtime import stop_runners
from glm_annotate.skips import Skip
from glm_annotate.windows import WindowBatch, fit

_WORK_BYTES = 1 << 25  # of windows and embeddings of a piece of work
_MOST_TILES = 256


@dataclass(slots=True)
class _Work:
    """Tiles that are read together.

    Attributes:
        tiles: Them; `owner`: the region of each.
        found: Their embeddings, shape (n, D); NaN until known.
        reasons: Why a tile will have none; "" where it may have one.
    """

    tiles: list[Interval]
    owner: list[int]
    found: Floats
    reasons: list[str]
    plan: Plan
    asked: list[tuple[Ints, Asked]] = field(default_factory=list)


class EmbeddingPart:
    """Pooled embeddings, averaged over the strands that are read.

    Args:
        model: A model with the output embedding.
        genome: The reference.
    """

    name = "EMB"

    def __init__(self, model: Model, genome: Genome) -> None:
        rule = model.bundle.card.embedding
        if rule is None:
            raise UsageError(f"-s EMB: {model.bundle.card.name} gives no embedding")
        # Halves of both strands are averaged into one.
        self._dim = rule.dim // 2 if rule.halves == "rc" else rule.dim
        self._model, self._genome = model, genome
        self.columns: tuple[Column, ...] = (Column(f"{model.tag}_EMB", "list", self._dim),)

    def say(self, places: Sequence[Interval]) -> Said:
        """Speak of regions."""
        total, bases = np.zeros((len(places), self._dim)), np.zeros(len(places))
        reasons: list[str] = [Skip.AMBIGUOUS] * len(places)
        runners = self._model.runners
        for work in overlapped(
            self._works(places),
            self._prepare,
            self._run,
            sessions=len(runners),
            stop=partial(stop_runners, runners),
        ):
            for tile, i, vector, reason in zip(
                work.tiles, work.owner, work.found, work.reasons, strict=True
            ):
                if np.isfinite(vector).all():
                    total[i] += vector * (tile.end - tile.start)
                    bases[i] += tile.end - tile.start
                else:
                    reasons[i] = reason or Skip.NOT_FINITE
        means = total / np.where(bases > 0, bases, np.nan)[:, None]
        return Said([means], ["" if n else x for x, n in zip(reasons, bases.tolist(), strict=True)])

    # --- tiles -----------------------------------------------------------------------------

    def _works(self, places: Sequence[Interval]) -> Iterator[_Work]:
        card = self._model.bundle.card
        cost = max(card.context * (1 + 4 * len(card.encoder.channels)), 32 * self._dim)
        size = max(1, min(_MOST_TILES, _WORK_BYTES // cost))
        tiles: list[tuple[int, Interval]] = []
        for i, place in enumerate(places):
            for tile in self._tiles(place):
                tiles.append((i, tile))
                if len(tiles) == size:
                    yield self._work(tiles)
                    tiles = []
        if tiles:
            yield self._work(tiles)

    def _work(self, tiles: list[tuple[int, Interval]]) -> _Work:
        found = np.full((len(tiles), self._dim), np.nan)
        owner, places = [i for i, _ in tiles], [tile for _, tile in tiles]
        return _Work(places, owner, found, [""] * len(tiles), self._plan())

    def _plan(self) -> Plan:
        return Plan(self._model.bundle.encoder, self._model.bundle.card.logits_shift)

    def _tiles(self, place: Interval) -> Iterator[Interval]:
        """Cut a region into tiles, and leave out those without a base."""
        for tile in cut_evenly(place, self._model.bundle.card.context):
            if has_bases(self._genome, tile):
                yield from self._fitting(tile)

    def _fitting(self, tile: Interval) -> Iterator[Interval]:
        """Halve a tile until the model takes its rows."""
        card, encoder = self._model.bundle.card, self._model.bundle.encoder
        if card.window.kind == "fixed" or tile.end - tile.start < 2:
            yield tile
            return
        (batch,) = self._batches([tile])
        if refused(batch.ref, encoder.spec).any() or any(True for _ in fit(batch, card, encoder)):
            yield tile
            return
        for half in cut_evenly(tile, -(-(tile.end - tile.start) // 2)):
            yield from self._fitting(half)

    def _batches(self, tiles: Sequence[Interval]) -> Iterator[WindowBatch]:
        """Cut windows around tiles, those of one length together."""
        model, context = self._model, self._model.bundle.card.context
        lengths = np.array([tile.end - tile.start for tile in tiles])
        contigs = np.array([tile.chrom for tile in tiles], dtype=object)
        for length in np.unique(lengths).tolist():
            index = np.flatnonzero(lengths == length)
            offset = (context - length) // 2
            left = np.array([tiles[i].start for i in index.tolist()]) - offset
            codes = np.empty((index.size, context), dtype=np.uint8)
            beside = None if model.channels is None else model.channels.blank(index.size, context)
            for contig in dict.fromkeys(contigs[index].tolist()):
                here, wraps = np.flatnonzero(contigs[index] == contig), contig in model.circular
                codes[here] = self._genome.windows(contig, left[here], context, circular=wraps)
                if beside is not None and model.channels is not None:
                    beside[here] = model.channels.windows(
                        contig, left[here], context, circular=wraps
                    )
            # As an allele that changes nothing: what follows then treats all models alike.
            yield WindowBatch(
                index, left, codes, codes, offset, length, length, (offset,),
                None if beside is None else Beside(beside, beside),
            )  # fmt: skip

    # --- passes ----------------------------------------------------------------------------

    def _prepare(self, work: _Work) -> _Work:
        self._ask(work, np.arange(len(work.tiles)))
        work.plan.seal()
        return work

    def _ask(self, work: _Work, members: Ints) -> None:
        """Plan the passes of some of the tiles."""
        card, encoder = self._model.bundle.card, self._model.bundle.encoder
        for batch in self._batches([work.tiles[i] for i in members.tolist()]):
            bad = refused(batch.ref, encoder.spec)
            for i in members[batch.allele[bad]].tolist():
                work.reasons[i] = Skip.AMBIGUOUS
            batch = batch.take(np.flatnonzero(~bad))
            lost = set(members[batch.allele].tolist())
            for part in fit(batch, card, encoder) if batch.allele.size else ():
                lost -= set(members[part.allele].tolist())
                for reverse in self._model.strands:
                    for pair in variant_pairs(part, work.plan, reverse):
                        asked = ask_pooled(pair, card, {"pool": "site"})
                        work.asked.append((members[pair.allele], asked))
            for i in lost:
                work.reasons[i] = Skip.TOO_LONG

    def _run(self, work: _Work, session: int) -> _Work:
        runner = self._model.runners[session]
        try:
            work.plan.execute(runner)
            self._read(work)
        except PassFailed:
            for member in range(len(work.tiles)):
                work.plan, work.asked = self._plan(), []
                self._ask(work, np.array([member]))
                work.plan.seal()
                try:
                    work.plan.execute(runner)
                except PassFailed:
                    work.reasons[member] = Skip.FAILED
                    continue
                self._read(work)
        return work

    def _read(self, work: _Work) -> None:
        """Average over strands, each of which gives a tile once."""
        for member, _ in work.asked:
            work.found[member] = 0.0
        for member, asked in work.asked:
            work.found[member] += asked.read()[:, 0] / len(self._model.strands)


def cut_evenly(place: Interval, most: int) -> Iterator[Interval]:
    """Cut a stretch into as few as possible of at most so many bases, of nearly equal lengths."""
    length = place.end - place.start
    count = -(-length // most)
    for i in range(count):
        start, end = length * i // count, length * (i + 1) // count
        yield Interval(place.chrom, place.start + start, place.start + end)
