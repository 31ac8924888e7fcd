"""One model's share of a chunk where the model predicts contact maps.

Maps are averaged over strands, the reverse one with both axes flipped, and then scored. Windows of
both haplotypes have one left edge, and maps are compared bin by bin. Decisions: a model of several
maps has a row of tracks.tsv for each, and its maps are scored like tracks; insulation needs bins at
both sides of the variant, and where the map has none the score is NO_BIN. Alleles are asked for in
their order: those of one site share passes, so that few maps are held at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from glm_annotate.answers import Floats, Ints
from glm_annotate.contact_scores import Layout, layout_of, score_contacts
from glm_annotate.encoding import refused
from glm_annotate.errors import BundleError
from glm_annotate.genome import Genome
from glm_annotate.model import Model, Result
from glm_annotate.passes import ChunkTask, Passes, ask_passes, empty_result, fill_result
from glm_annotate.tasks import choose
from glm_annotate.track_plan import Answers, TrackPlan
from glm_annotate.track_scores import merge_values
from glm_annotate.variants import Alleles, Skip, skip_code
from glm_annotate.windows import WindowBatch, cut_windows


@dataclass(slots=True)
class ContactTask(ChunkTask):
    """One model's share of a chunk.

    Attributes:
        layout: Of the maps.
        plan: The passes.
        values: By `ScoreSpec.key`: scores by map, shape (n, maps).
        sums: Sums over the maps of REF and of ALT, shape (n, 2, maps).
    """

    layout: Layout
    plan: TrackPlan = field(default_factory=lambda: TrackPlan("contacts"))
    values: dict[str, Floats] = field(default_factory=dict)
    sums: Floats = field(default_factory=lambda: np.zeros(0))

    def ask(self, genome: Genome) -> None:
        """Cut and encode windows, and say what is to be done with their predictions."""
        _ask(self, genome)

    def result(self) -> Result:
        """Turn what was gathered into scores."""
        result = fill_result(self.blank(), self.chosen, self.values)
        if result.sums is not None:
            result.sums[self.chosen] = self.sums[self.chosen]
        return result

    def blank(self) -> Result:
        """Give a result without numbers, with the reasons that do not depend on the passes."""
        return _blank(self)

    def single(self, allele: int) -> ContactTask:
        """Make a task of one of its alleles."""
        return _empty(self.model, self.alleles, self.skip, self.silent, np.array([allele]))


def make_contact_task(model: Model, alleles: Alleles, skip: Ints) -> ContactTask:
    """Choose what a model scores of a chunk; arguments as `tasks.make_task`."""
    silent, chosen = choose(model, alleles, skip)
    return _empty(model, alleles, skip, silent, chosen)


def _empty(model: Model, alleles: Alleles, skip: Ints, silent: Ints, chosen: Ints) -> ContactTask:
    units = [] if model.tracks is None else [x.units for x in model.tracks.table.tracks]
    layout = layout_of(model.bundle.card, units)
    task = ContactTask(model, alleles, skip, silent, chosen, layout)
    n, maps = len(alleles), 1 if model.tracks is None else len(model.tracks.names)
    task.values = {spec.key: np.full((n, maps), np.nan) for spec in model.scores}
    task.sums = np.full((n, 2, maps), np.nan)
    return task


def _ask(task: ContactTask, genome: Genome) -> None:
    model, chosen = task.model, task.chosen
    card = model.bundle.card
    cut = cut_windows(genome, task.alleles, chosen, card, model.circular, model.channels)
    cases: list[tuple[int, Passes, Passes]] = []
    for batch in _readable(task, cut):
        near = (None, None) if batch.beside is None else (batch.beside.ref, batch.beside.alt)
        ref = ask_passes(task.plan, model, batch.ref, near[0])
        alt = ask_passes(task.plan, model, batch.alt, near[1])
        cases += zip(batch.allele.tolist(), ref, alt, strict=True)
    for allele, one, other in sorted(cases, key=lambda case: case[0]):
        needs = [number for side in (one, other) for part in side for number in part]
        task.plan.then(needs, partial(_finish, task, allele, one, other))
    task.chosen = chosen[task.skip[chosen] == 0]


def _readable(task: ContactTask, batches: Iterable[WindowBatch]) -> Iterable[WindowBatch]:
    """Leave out windows with letters that the encoder refuses."""
    spec = task.model.bundle.encoder.spec
    for batch in batches:
        bad = refused(batch.ref, spec) | refused(batch.alt, spec)
        task.skip[batch.allele[bad]] = skip_code(Skip.AMBIGUOUS)
        if not bad.all():
            yield batch.take(np.flatnonzero(~bad)) if bad.any() else batch


def _finish(task: ContactTask, allele: int, ref: Passes, alt: Passes, answers: Answers) -> None:
    """Score one allele."""
    tracks = task.model.tracks
    sides = _maps(task, ref, answers), _maps(task, alt, answers)
    for spec in task.model.scores:
        numbers = score_contacts(spec.name, task.layout, *sides, spec.options)
        task.values[spec.key][allele] = (
            numbers if tracks is None else merge_values(numbers, *tracks.merged)
        )
    for side, maps in enumerate(sides):
        total = maps.reshape(maps.shape[0], -1).sum(axis=1)
        task.sums[allele, side] = total if tracks is None else merge_values(total, *tracks.merged)


def _maps(task: ContactTask, side: Passes, answers: Answers) -> Floats:
    """Average a haplotype's maps over strands, shape (maps, *layout.shape)."""
    model, tracks = task.model, task.model.tracks
    total = np.zeros(())
    for reverse, (number,) in zip(model.strands, side, strict=True):
        maps = task.layout.split(answers[number])
        _check(task, maps.shape)
        if tracks is not None:
            maps = maps[tracks.which]
        if reverse:
            maps = task.layout.flip(maps)
            maps = maps if tracks is None else maps[tracks.table.pair]
        total = total + maps.astype(np.float64)
    return np.asarray(total / len(model.strands))


def _check(task: ContactTask, shape: tuple[int, ...]) -> None:
    """Compare the shape of a window's maps with the card and the table of maps."""
    tracks, (number, *sides) = task.model.tracks, shape
    fits = number == 1 if tracks is None else number > tracks.which.max()
    if not fits or tuple(sides) != task.layout.shape:
        rows = "no tracks.tsv" if tracks is None else f"row {tracks.which.max() + 1} of tracks.tsv"
        raise BundleError(
            f"{task.model.bundle.path}: the graph gives {number} maps of {tuple(sides)} values; by "
            f"the card they have {task.layout.shape}, and there is {rows}; export the bundle again"
        )


def _blank(task: ContactTask) -> Result:
    """Give a result without numbers; without a bin for it insulation has a reason of its own."""
    result = empty_result(task.model, task.skip, task.silent)
    for spec in task.model.scores:
        if "radius" in spec.options and not task.layout.has_insulation(int(spec.options["radius"])):
            reasons = result.reasons[spec.key]
            reasons[reasons == 0] = skip_code(Skip.NO_BIN)
    return result
