"""Numbers along stretches of the genome, read window by window of a grid.

Each window gives some bases of its own, so that a number depends on nothing but the genome and the
model: not on the stretches that were asked for, nor on how many windows are run at a time. Window k
gives the bases from k x step on.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from glm_annotate.answers import Floats, Ints, OutputRole
from glm_annotate.genome import Genome, Interval
from glm_annotate.model import Model
from glm_annotate.pipeline import overlapped
from glm_annotate.plan import PassFailed
from glm_annotate.runtime import stop_runners
from glm_annotate.track_plan import TrackPlan

logger = logging.getLogger(__name__)

_WORK_BYTES = 1 << 25  # of numbers of a piece of work
_MOST_WINDOWS = 64


@dataclass(frozen=True, slots=True)
class Predicted:
    """Neighbouring bins of a contig.

    Attributes:
        contig: A name of the FASTA.
        start: First base of the first bin, 0-based.
        bin_size: Bases of a bin.
        values: Shape (bins, tracks); NaN where there is no prediction.
    """

    contig: str
    start: int
    bin_size: int
    values: Floats


@dataclass(slots=True)
class Work:
    """Neighbouring windows of one contig.

    Attributes:
        contig: A name of the FASTA.
        numbers: Of the windows, shape (n,).
        found: What they give, shape (n, bins, tracks); NaN until it is known.
        plan: Their passes.
    """

    contig: str
    numbers: Ints
    found: Floats
    plan: TrackPlan


class WindowReader(ABC):
    """Reads stretches.

    Args:
        model: The model.
        genome: The reference.
        role: The output that is read.
        kept: Bins that a window gives.
        bin_size: Bases of a bin.
        tracks: Numbers of a bin.
    """

    def __init__(
        self, model: Model, genome: Genome, *, role: OutputRole, kept: int, bin_size: int,
        tracks: int,
    ) -> None:  # fmt: skip
        self.model, self.genome = model, genome
        self._role, self._kept, self._bin_size, self._tracks = role, kept, bin_size, tracks

    @property
    def numbers(self) -> int:
        """Numbers of a bin."""
        return self._tracks

    @property
    def step(self) -> int:
        """Bases from one window to the next."""
        return self._kept * self._bin_size

    def predict(self, stretches: Iterable[Interval]) -> Iterator[Predicted]:
        """Give the bins that hold a base of some stretches, in order, and some beside them.

        Args:
            stretches: Of contigs of the FASTA, those of a contig one after the other, sorted and
                disjoint.
        """
        works = overlapped(
            self._works(stretches),
            self._prepare,
            self._run,
            sessions=len(self.model.runners),
            stop=partial(stop_runners, self.model.runners),
        )
        for work in works:
            yield from self._pieces(work)

    @abstractmethod
    def _ask(self, work: Work, members: Ints) -> None:
        """Plan the passes of some of the windows, and how `found` comes out of them."""

    def _holds(self, contig: str) -> bool:
        """Say whether the model's channels, if it reads any, know a contig."""
        return self.model.channels is None or self.model.channels.holds(contig)

    def _works(self, stretches: Iterable[Interval]) -> Iterator[Work]:
        """Share the windows out; one that two stretches touch comes once."""
        size = max(1, min(_MOST_WINDOWS, _WORK_BYTES // (8 * self._kept * self._tracks)))
        contig, last = "", -1
        for stretch in stretches:
            last = last if stretch.chrom == contig else -1
            contig = stretch.chrom
            if stretch.start == stretch.end:
                continue
            first = max(last + 1, stretch.start // self.step)
            last = max(last, -(-stretch.end // self.step) - 1)
            for start in range(first, last + 1, size):
                numbers = np.arange(start, min(start + size, last + 1))
                found = np.full((numbers.size, self._kept, self._tracks), np.nan)
                yield Work(contig, numbers, found, TrackPlan(self._role))

    def _prepare(self, work: Work) -> Work:
        self._ask(work, np.arange(work.numbers.size))
        work.plan.seal()
        return work

    def _run(self, work: Work, session: int) -> Work:
        runner = self.model.runners[session]
        try:
            work.plan.execute(runner)
        except PassFailed:
            for member in np.flatnonzero(np.isnan(work.found).all(axis=(1, 2))).tolist():
                work.plan = TrackPlan(self._role)
                self._ask(work, np.array([member]))
                work.plan.seal()
                try:
                    work.plan.execute(runner)
                except PassFailed as error:
                    place = f"{work.contig}:{int(work.numbers[member]) * self.step + 1}"
                    logger.warning(
                        "%s: the window that gives %s failed: %s", self.model.tag, place, error
                    )
        return work

    def _pieces(self, work: Work) -> Iterator[Predicted]:
        """Join windows, which touch, and cut what lies past the end of the contig."""
        start, size = int(work.numbers[0]) * self.step, self.genome.contigs[work.contig]
        bins = -(-(size - start) // self._bin_size)
        values = work.found.reshape(-1, self._tracks)[:bins]
        yield Predicted(work.contig, start, self._bin_size, values)
