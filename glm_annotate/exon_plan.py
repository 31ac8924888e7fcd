"""Forward passes over parts of exons: each haplotype of an exon once, those of one shape together.

A pass gives a few numbers, so all answers are kept. Sequences are cut batch by batch: exons may
have 200,000 bases, and there are as many haplotypes of one as there are alleles in it. Nothing is
ever padded to the length of something else, for the networks would see it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from glm_annotate.answers import Floats, Ints
from glm_annotate.encoding import Rows
from glm_annotate.errors import BundleError
from glm_annotate.exon_frame import Edit, Exon, ExonFrame, Haplotype
from glm_annotate.genome import Codes
from glm_annotate.plan import PassFailed
from glm_annotate.runtime import OrtRunner

_Shape = tuple[int, int, int]


class ExonPlan:
    """What one model has to run for one chunk of alleles.

    Args:
        frame: How exons are cut and encoded.

    Attributes:
        answers: Tracks of each pass, shape (passes, tracks), after `execute`.
        marks: Digests of the parts of each pass, shape (passes, parts): equal ones have the same
            bases.
    """

    def __init__(self, frame: ExonFrame) -> None:
        self.frame, self.passes = frame, 0
        self.answers: Floats = np.zeros((0, 0))
        self.marks: NDArray[np.uint64] = np.zeros((0, len(frame.names)), dtype=np.uint64)
        self._haplotypes: list[Haplotype] = []
        self._number: dict[tuple[Exon, Edit | None], int] = {}

    def add(self, exon: Exon, edit: Edit | None, read: Callable[[], Haplotype]) -> int:
        """Ask for a pass; gives its number. `read` is called if it is the first time."""
        number = self._number.setdefault((exon, edit), len(self._haplotypes))
        if number == len(self._haplotypes):
            self._haplotypes.append(read())
        return number

    def seal(self) -> int:
        """Say how many passes there are."""
        self.passes = len(self._haplotypes)
        return self.passes

    def rows_counts(self) -> dict[int, int]:
        """Count passes by their bases, those of the introns included."""
        return dict(Counter(sum(x.shape) for x in self._haplotypes))

    def execute(self, runner: OrtRunner) -> None:
        """Run everything that was asked for.

        Raises:
            PassFailed: A pass failed even alone.
            BundleError: The graph's answer is not one bin of tracks.
        """
        shapes: dict[_Shape, list[int]] = {}
        for number, haplotype in enumerate(self._haplotypes):
            shapes.setdefault(haplotype.shape, []).append(number)
        self.marks = np.zeros((self.passes, len(self.frame.names)), dtype=np.uint64)
        for shape, numbers in sorted(shapes.items()):
            size, at = sum(shape), 0
            while at < len(numbers):
                chosen = numbers[at : at + runner.batch_size(size)]
                found = self._run(runner, chosen, size)
                self._keep(runner, numbers[at : at + len(found)], found)
                at += len(found)

    def _run(self, runner: OrtRunner, chosen: list[int], size: int) -> NDArray[np.float32]:
        """Run the first of some passes of one shape: as many as fit."""
        cut = [self.frame.cut(x.codes(), x.shape[0], x.shape[2]) for x in self._of(chosen)]
        for number, parts in zip(chosen, cut, strict=True):
            self.marks[number] = [_mark(parts[name]) for name in self.frame.names]
        while True:
            inputs: dict[str, Rows] = {
                name: self.frame.table[np.stack([parts[name] for parts in cut])]
                for name in self.frame.names
            }
            try:
                return runner.run_parts(inputs, frozenset({"tracks"})).array("tracks")
            except PassFailed:
                if len(cut) == 1:
                    raise
                cut = cut[: len(cut) // 2]
                runner.limit(size, len(cut))

    def _of(self, numbers: list[int]) -> list[Haplotype]:
        return [self._haplotypes[number] for number in numbers]

    def _keep(self, runner: OrtRunner, numbers: list[int], found: NDArray[np.float32]) -> None:
        if found.ndim != 3 or found.shape[1] != 1:
            raise BundleError(
                f"{runner.bundle.path}: the graph gives tracks of shape {found.shape[1:]}, wanted "
                "one bin; export the bundle again"
            )
        tracks = found.shape[2]
        if self.answers.shape != (self.passes, tracks):
            self.answers = np.full((self.passes, tracks), np.nan)
        self.answers[numbers] = found[:, 0]

    def changed(self, ref: Ints, alt: Ints) -> NDArray[np.bool_]:
        """Say which parts differ between passes, shape (n, parts), in the order of the names."""
        return np.asarray(self.marks[ref] != self.marks[alt])


def _mark(part: Codes) -> int:
    return int.from_bytes(hashlib.blake2b(part.tobytes(), digest_size=8).digest(), "little")
