"""One model's share of a chunk where the model predicts tracks: windows, passes, scores by track.

A score is computed for each strand-merged track and shift from predictions that are averaged over
strands and then un-transformed; shifts are averaged last. Where alleles differ in length, bins of
several bases are stitched from two windows of the longer allele, and single bases are put on the
reference (see `track_windows`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm_annotate.answers import Floats, Ints
from glm_annotate.bundle import Bundle
from glm_annotate.card import ModelCard
from glm_annotate.encoding import refused
from glm_annotate.errors import BundleError
from glm_annotate.genome import Genome
from glm_annotate.model import Model, Result, Tracks
from glm_annotate.passes import Passes, ask_passes, empty_result, fill_result, foresee
from glm_annotate.tasks import choose
from glm_annotate.track_plan import Answers, TrackPlan
from glm_annotate.track_scores import merge_strands, merge_values, score_tracks
from glm_annotate.track_table import TRACKS
from glm_annotate.track_windows import (
    Bins,
    Bools,
    Stitch,
    bins_of,
    center_mask,
    flip_tracks,
    onto_reference,
    stitch_of,
    stitch_tracks,
)
from glm_annotate.variants import Alleles, Skip, skip_code
from glm_annotate.windows import WindowBatch, cut_windows, too_long


@dataclass(slots=True)
class TrackTask:
    """One model's share of a chunk.

    Attributes:
        model: The model.
        alleles: Of the chunk.
        skip: Why an allele has no score at all; 0 for none; shape (n,).
        silent: Skip code of alleles that no score can be given for want of channels, else 0.
        chosen: Alleles that windows are cut for.
        plan: The passes.
        values: By `ScoreSpec.key`: scores by merged track, shape (n, tracks).
        sums: Sums over all bins of REF and of ALT by merged track, shape (n, 2, tracks); where bins
            are single bases, without those that an insertion pushes out of ALT's window.
        failed: Whether a pass failed.
    """

    model: Model
    alleles: Alleles
    skip: Ints
    silent: Ints
    chosen: Ints
    plan: TrackPlan = field(default_factory=lambda: TrackPlan("tracks"))
    values: dict[str, Floats] = field(default_factory=dict)
    sums: Floats = field(default_factory=lambda: np.zeros(0))
    failed: bool = False

    def ask(self, genome: Genome) -> None:
        """Cut and encode windows, and say what is to be done with their predictions."""
        _ask(self, genome)

    def result(self) -> Result:
        """Turn what was gathered into scores."""
        return _result(self)

    def foreseen(self) -> Result:
        """Give the reasons that are known before the passes, and 0.0 for each number to come."""
        return foresee(self.blank())

    def blank(self) -> Result:
        """Give a result without numbers, with the reasons that are the same for all scores."""
        return empty_result(self.model, self.skip, self.silent)

    def single(self, allele: int) -> TrackTask:
        """Make a task of one of its alleles."""
        chosen = np.array([allele])
        return _empty(TrackTask(self.model, self.alleles, self.skip, self.silent, chosen))


@dataclass(frozen=True, slots=True)
class _Case:
    """One allele in windows of one shift."""

    allele: int
    ref: Passes
    alt: Passes
    bins: Bins
    stitch: Stitch | None
    start: int
    ref_len: int
    alt_len: int
    share: float


def make_track_task(model: Model, alleles: Alleles, skip: Ints) -> TrackTask:
    """Choose what a model scores of a chunk; arguments as `tasks.make_task`."""
    for moved in _moved(model.bundle):
        skip[(skip == 0) & too_long(alleles, moved)] = skip_code(Skip.TOO_LONG)
    silent, chosen = choose(model, alleles, skip)
    return _empty(TrackTask(model, alleles, skip, silent, chosen))


def _empty(task: TrackTask) -> TrackTask:
    n, tracks = len(task.alleles), len(_tracks(task.model).names)
    task.values = {spec.key: np.zeros((n, tracks)) for spec in task.model.scores}
    task.sums = np.zeros((n, 2, tracks))
    return task


def _moved(bundle: Bundle) -> list[ModelCard]:
    """Give a card for each shift: windows that begin so many bases further right.

    Raises:
        BundleError: A shift is larger than what lies before or behind the anchor.
    """
    card = bundle.card
    for shift in card.shifts:
        if not 0 <= card.anchor - shift < card.context:
            raise BundleError(
                f"{bundle.path}: shift {shift} moves the variant, at {card.anchor} of a window of "
                f"{card.context} bases, out of it; mend shifts in the card"
            )
    return [card.model_copy(update={"anchor": card.anchor - shift}) for shift in card.shifts]


def _ask(task: TrackTask, genome: Genome) -> None:
    cards = _moved(task.model.bundle)
    if task.model.bundle.encoder.spec.vocab.n == "error":
        _leave_out_n(task, genome, cards)
    cases = [
        case
        for card in cards
        for batch, stitch in _windows(task, genome, card)
        for case in _cases(task, batch, stitch, 1 / len(cards))
    ]
    # Alleles that share passes, those of one site, are mostly neighbours.
    for case in sorted(cases, key=lambda case: case.allele):
        needs = [k for side in (case.ref, case.alt) for part in side for k in part]
        task.plan.then(needs, partial(_finish, task, case))


def _leave_out_n(task: TrackTask, genome: Genome, cards: Iterable[ModelCard]) -> None:
    """Leave out alleles with a letter in one of their windows that the encoder refuses."""
    spec = task.model.bundle.encoder.spec
    for card in cards:
        for batch, _ in _windows(task, genome, card):
            bad = refused(batch.ref, spec) | refused(batch.alt, spec)
            task.skip[batch.allele[bad]] = skip_code(Skip.AMBIGUOUS)
    task.chosen = task.chosen[task.skip[task.chosen] == 0]


def _windows(
    task: TrackTask, genome: Genome, card: ModelCard
) -> Iterator[tuple[WindowBatch, Stitch | None]]:
    """Cut windows, longer by the difference of the alleles where those are stitched."""
    model, bins = task.model, _bins(card)
    cut = partial(cut_windows, genome, task.alleles)
    for batch in cut(task.chosen, card, model.circular, model.channels):
        stitch = None
        if bins.size > 1:
            stitch = stitch_of(bins, batch.offset, batch.ref_len, batch.alt_len)
        if stitch is None:
            yield batch, None
            continue
        longer = card.model_copy(update={"context": card.context + stitch.shift})
        (wide,) = cut(batch.allele, longer, model.circular, model.channels)
        yield wide, stitch


def _bins(card: ModelCard) -> Bins:
    return bins_of(card.context, card.bin_size or 1, card.crop)


def _cases(
    task: TrackTask, batch: WindowBatch, stitch: Stitch | None, share: float
) -> Iterator[_Case]:
    """Plan the passes of alleles that change the same number of bases."""
    edges: dict[str, tuple[int, ...]] = {"ref": (0,), "alt": (0,)}
    if stitch is not None:
        edges[stitch.longer] = (0, stitch.shift)
    near = (None, None) if batch.beside is None else (batch.beside.ref, batch.beside.alt)
    ref = ask_passes(task.plan, task.model, batch.ref, near[0], edges["ref"])
    alt = ask_passes(task.plan, task.model, batch.alt, near[1], edges["alt"])
    bins = _bins(task.model.bundle.card)
    for member, allele in enumerate(batch.allele.tolist()):
        yield _Case(
            allele, ref[member], alt[member], bins, stitch, batch.offset,
            batch.ref_len, batch.alt_len, share,
        )  # fmt: skip


def _tracks(model: Model) -> Tracks:
    if model.tracks is None:
        raise ValueError(f"{model.tag}: opened without its tracks")
    return model.tracks


def _finish(task: TrackTask, case: _Case, answers: Answers) -> None:
    """Score one allele in windows of one shift."""
    model = task.model
    ref, alt = (_prediction(task, case, side, answers) for side in (case.ref, case.alt))
    known: Bools | None = None
    if case.bins.size == 1 and case.ref_len != case.alt_len:
        alt, known = onto_reference(alt, case.bins, case.start, case.ref_len, case.alt_len)
    tracks = _tracks(model)
    ref, alt = tracks.transforms.invert(ref), tracks.transforms.invert(alt)
    first, second = tracks.merged
    masks: dict[str, list[str]] = {}
    for spec in model.scores:
        masks.setdefault(_mask_name(spec.options), []).append(spec.key)
    names = {spec.key: spec.name for spec in model.scores}
    for mask, keys in masks.items():
        chosen = _mask(mask, case.bins, model.bundle.card, known)
        scores = score_tracks({names[key] for key in keys}, ref, alt, chosen)
        for key in keys:
            merged = merge_strands(names[key], scores[names[key]], first, second)
            task.values[key][case.allele] += case.share * merged
    for side, values in enumerate((ref, alt)):
        kept = values if known is None else values[known]
        total = merge_values(kept.sum(axis=0), first, second)
        task.sums[case.allele, side] += case.share * total


def _prediction(
    task: TrackTask, case: _Case, side: Passes, answers: Answers
) -> NDArray[np.float64]:
    """Average a haplotype's prediction over strands, shape (bins, tracks)."""
    model, tracks = task.model, _tracks(task.model)
    total = np.zeros(())
    for reverse, numbers in zip(model.strands, side, strict=True):
        parts = [_of_tracks(model, case.bins, answers[k]) for k in numbers]
        if reverse:
            parts = [flip_tracks(part, tracks.table.pair) for part in parts]
        whole = parts[0]
        if len(parts) > 1 and case.stitch is not None:
            whole = stitch_tracks(case.stitch, *parts)
        total = total + whole.astype(np.float64)
    return np.asarray(total / len(model.strands))


def _of_tracks(model: Model, bins: Bins, answer: NDArray[Any]) -> NDArray[Any]:
    """Take the tracks that are read of a whole prediction, shape (bins, tracks).

    Raises:
        BundleError: The graph has other bins than the card, or fewer tracks than the table.
    """
    which = _tracks(model).which
    least = int(which.max()) + 1
    if answer.ndim != 2 or answer.shape[0] != bins.count or answer.shape[1] < least:
        raise BundleError(
            f"{model.bundle.path}: the graph gives tracks of shape {answer.shape}; by the card "
            f"there are {bins.count} bins, and {TRACKS} has a row {least}; export the bundle again"
        )
    found: NDArray[Any] = answer[:, which]
    return found


def _mask_name(options: Mapping[str, str]) -> str:
    return ":".join(options[key] for key in ("mask", "width") if key in options)


def _mask(name: str, bins: Bins, card: ModelCard, known: Bools | None) -> Bools | None:
    """Choose the bins of a mask, shape (bins,); None: all."""
    kind, _, width = name.partition(":")
    if kind == "all":
        return known
    mask = center_mask(bins, card.context, int(width))
    return mask if known is None else mask & known


def _result(task: TrackTask) -> Result:
    """Turn what a task that has run has gathered into scores."""
    result = fill_result(task.blank(), task.chosen, task.values)
    if result.sums is not None:
        result.sums[task.chosen] = task.sums[task.chosen]
    return result
