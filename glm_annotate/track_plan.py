"""Forward passes of models that predict tracks: each distinct window once, reduced as they come.

A window gives megabytes, so answers are not kept: jobs are done in the order in which they were
asked for, passes run in the order in which jobs need them, and what no later job reads is let go at
once. Jobs that share passes should be asked for one after the other.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm_annotate.answers import OutputRole
from glm_annotate.encoding import Rows
from glm_annotate.plan import PassFailed
from glm_annotate.runtime import OrtRunner

Values = NDArray[Any]
Answers = Mapping[int, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Job:
    """What is done with the answers of some passes.

    Attributes:
        needs: Numbers of the passes.
        finish: Called with their answers.
    """

    needs: tuple[int, ...]
    finish: Callable[[Answers], None]


class TrackPlan:
    """What one model has to run for one chunk of alleles.

    Args:
        role: The graph output that is read.
    """

    def __init__(self, role: OutputRole) -> None:
        self.role, self.passes = role, 0
        self._rows: list[Rows] = []
        self._channels: list[Values] = []
        self._number: dict[bytes, int] = {}
        self._jobs: list[Job] = []

    def add(self, rows: Rows, channels: Values | None = None) -> int:
        """Ask for a pass of rows (L,) and channels (L, C); gives its number."""
        digest = hashlib.blake2b(rows.tobytes(), digest_size=16)
        if channels is not None:
            digest.update(channels.tobytes())
        number = self._number.setdefault(digest.digest(), len(self._rows))
        if number == len(self._rows):
            self._rows.append(rows)
            if channels is not None:
                self._channels.append(channels)
        return number

    def then(self, needs: Sequence[int], finish: Callable[[Answers], None]) -> None:
        """Ask for something to be done with the answers of passes, at least one."""
        self._jobs.append(Job(tuple(needs), finish))

    def seal(self) -> int:
        """Say how many passes there are."""
        self.passes = len(self._rows)
        return self.passes

    def rows_counts(self) -> dict[int, int]:
        """Count passes by their number of rows."""
        sizes, counts = np.unique([x.shape[0] for x in self._rows], return_counts=True)
        return dict(zip(sizes.tolist(), counts.tolist(), strict=True))

    def execute(self, runner: OrtRunner) -> None:
        """Run everything that was asked for.

        Raises:
            PassFailed: A pass failed even alone.
        """
        order = list(dict.fromkeys(k for job in self._jobs for k in job.needs))
        rank = {k: i for i, k in enumerate(order)}
        uses = Counter(k for job in self._jobs for k in job.needs)
        waiting = deque((max(map(rank.__getitem__, job.needs)), job) for job in self._jobs)
        found: dict[int, NDArray[np.float32]] = {}
        at = 0
        while waiting:
            batch = self._run(runner, order[at:])
            found.update(zip(order[at:], batch, strict=False))
            at += len(batch)
            del batch  # or it would still be there while the next one runs
            while waiting and waiting[0][0] < at:
                _, job = waiting.popleft()
                job.finish(found)
                for k in job.needs:
                    uses[k] -= 1
                    if not uses[k]:
                        del found[k]

    def _run(self, runner: OrtRunner, order: Sequence[int]) -> NDArray[np.float32]:
        """Run the first of some passes: as many as fit, and have the same number of rows."""
        length = self._rows[order[0]].shape[0]
        alike = takewhile(lambda k: self._rows[k].shape[0] == length, order)
        chosen = list(islice(alike, runner.batch_size(length)))
        while True:
            channels = np.stack([self._channels[k] for k in chosen]) if self._channels else None
            rows = np.stack([self._rows[k] for k in chosen])
            try:
                return runner.run(rows, frozenset({self.role}), channels).array(self.role)
            except PassFailed:
                if len(chosen) == 1:
                    raise
                chosen = chosen[: len(chosen) // 2]
                runner.limit(length, len(chosen))
