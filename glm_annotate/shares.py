"""One model's share of a chunk, whatever kind of model: what the pipeline does with it.

Language models gather evidence of all alleles and turn it into scores at the end (`tasks`); models
of tracks, of splice sites and of contact maps score each allele as soon as its passes are done
(`track_tasks`, `splice_tasks`, `contact_tasks`); models of parts of exons keep the few numbers of
each pass (`exon_tasks`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from glm_annotate.answers import Ints
from glm_annotate.card import Objective
from glm_annotate.contact_tasks import make_contact_task
from glm_annotate.exon_tasks import make_exon_task
from glm_annotate.genome import Genome
from glm_annotate.model import Model, Result
from glm_annotate.runtime import OrtRunner
from glm_annotate.splice_tasks import make_splice_task
from glm_annotate.tasks import make_task
from glm_annotate.track_tasks import make_track_task
from glm_annotate.variants import Alleles


class Passes(Protocol):
    """What the pipeline needs of the plan of a task's passes."""

    def seal(self) -> int:
        """End asking; gives the number of distinct passes."""

    def rows_counts(self) -> dict[int, int]:
        """Count distinct passes by their number of rows."""

    def execute(self, runner: OrtRunner) -> None:
        """Make the passes, and do what is done with their answers at once; raises PassFailed."""


class Share(Protocol):
    """What the pipeline needs of a task.

    Attributes:
        model: The model.
        chosen: Alleles that windows are cut for.
        failed: Whether a pass failed.
    """

    model: Model
    chosen: Ints
    failed: bool

    @property
    def plan(self) -> Passes:
        """The passes that were asked for."""

    def ask(self, genome: Genome) -> None:
        """Cut and encode windows, and say what is read of their passes."""

    def result(self) -> Result:
        """Give the scores, after the passes."""

    def foreseen(self) -> Result:
        """Give the reasons that are known before the passes, and 0.0 for each number to come."""

    def blank(self) -> Result:
        """Give a result without numbers, with the reasons that are the same for all scores."""

    def single(self, allele: int) -> Share:
        """Make a task of one of its alleles."""


_KINDS: dict[Objective, Callable[[Model, Alleles, Ints], Share]] = {
    "masked": make_task,
    "causal": make_task,
    "tracks": make_track_task,
    "contacts": make_contact_task,
}


def make_share(model: Model, alleles: Alleles, skip: Ints) -> Share:
    """Choose what a model scores of a chunk.

    Args:
        model: The model.
        alleles: Of the chunk.
        skip: Reasons known so far, shape (n,); it is added to.
    """
    card = model.bundle.card
    make = make_splice_task if card.in_genes else _KINDS[card.objective]
    if card.frame == "exon":
        make = make_exon_task
    if model.outputs == {"embedding"}:
        make = make_task
    return make(model, alleles, skip)
