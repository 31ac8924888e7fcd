"""One model's share of a chunk where the model predicts tracks: windows, passes, scores by track.

A score is computed for each strand-merged track and shift from predictions that are averaged over
strands and then un-transformed; shifts are averaged last. Where alleles differ in length, bins of
several bases are stitched from two windows of the longer allele, and single bases are put on the
reference (see `track_windows`). Scores over masks of genes are made in every gene of the window,
and an allele's number is that of one of them (see `gene_masks`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from glm_annotate.answers import Floats, Ints
from glm_annotate.bundle import Bundle
from glm_annotate.card import ModelCard
from glm_annotate.encoding import refused
from glm_annotate.errors import BundleError
from glm_annotate.gene_masks import (
    InGene,
    View,
    by_mask,
    gene_mask,
    gene_row,
    genes_in,
    largest_gene,
)
from glm_annotate.gene_models import GeneModels
from glm_annotate.genome import Genome
from glm_annotate.model import Model, Result, Shown
from glm_annotate.passes import (
    ChunkTask,
    Passes,
    ask_passes,
    empty_result,
    fill_result,
    too_many_rows,
)
from glm_annotate.scores import ScoreSpec
from glm_annotate.tasks import choose
from glm_annotate.track_plan import Answers, TrackPlan
from glm_annotate.track_predictions import bins_of_card, predicted_tracks, tracks_of
from glm_annotate.track_scores import merge_strands, merge_values, score_tracks
from glm_annotate.track_windows import (
    Bins,
    Bools,
    Stitch,
    center_mask,
    onto_reference,
    stitch_of,
)
from glm_annotate.variants import Alleles, Skip, skip_code
from glm_annotate.windows import WindowBatch, cut_windows, too_long


@dataclass(slots=True)
class TrackTask(ChunkTask):
    """One model's share of a chunk.

    Attributes:
        plan: The passes.
        genes: Of alleles with scores over masks of genes: what is said of each gene.
        values: By `ScoreSpec.key`: scores by merged track, shape (n, tracks).
        sums: Sums over all bins of REF and of ALT by merged track, shape (n, 2, tracks); where bins
            are single bases, without those that an insertion pushes out of ALT's window.
        shown: See `Result.shown`.
    """

    plan: TrackPlan = field(default_factory=lambda: TrackPlan("tracks"))
    genes: dict[int, list[InGene]] = field(default_factory=dict)
    values: dict[str, Floats] = field(default_factory=dict)
    sums: Floats = field(default_factory=lambda: np.zeros(0))
    shown: dict[int, dict[int, Shown]] = field(default_factory=dict)

    def ask(self, genome: Genome) -> None:
        """Cut and encode windows, and say what is to be done with their predictions."""
        _ask(self, genome)

    def result(self) -> Result:
        """Turn what was gathered into scores."""
        return _result(self)

    def blank(self) -> Result:
        """Give a result without numbers, with the reasons that are the same for all scores."""
        return _blank(self)

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
    view: View
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
    n, tracks = len(task.alleles), len(tracks_of(task.model).names)
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
    if task.model.bundle.card.window.max_tokens is not None:
        _leave_out_long(task, genome, cards)
    if task.model.genes is not None:
        _find_genes(task, task.model.genes, genome, cards)
    cases = [
        case
        for card in cards
        for batch, stitch in _windows(task, genome, card)
        for case in _cases(task, genome, card, batch, stitch, 1 / len(cards))
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


def _leave_out_long(task: TrackTask, genome: Genome, cards: Iterable[ModelCard]) -> None:
    """Leave out alleles with more tokens in one of their windows than the graph takes."""
    for card in cards:
        for batch, stitch in _windows(task, genome, card):
            for side, edges in _edges(stitch).items():
                codes = batch.ref if side == "ref" else batch.alt
                for edge in edges:
                    bad = too_many_rows(task.model, codes[:, edge : edge + card.context])
                    task.skip[batch.allele[bad]] = skip_code(Skip.TOO_LONG)
    task.chosen = task.chosen[task.skip[task.chosen] == 0]


def _find_genes(task: TrackTask, genes: GeneModels, genome: Genome, cards: list[ModelCard]) -> None:
    """Find the genes that each allele is scored in, and leave out alleles without any score."""
    masks = by_mask(task.model.scores, genes=True)
    tracks = len(tracks_of(task.model).names)
    for allele in task.chosen.tolist():
        views = [_view(task, genome, card, allele) for card in cards]
        task.genes[allele] = genes_in(genes, views, list(masks))
        for place in task.genes[allele]:
            keys = [spec.key for mask in place.masks for spec in masks[mask]]
            place.values |= {key: np.zeros(tracks) for key in keys}
            begin = 0.0 if place.masks[0] == next(iter(masks)) else np.nan
            place.sums = np.full((2, tracks), begin)
    if not by_mask(task.model.scores, genes=False):
        some = [bool(task.genes[allele]) for allele in task.chosen.tolist()]
        task.chosen = task.chosen[np.array(some, dtype=bool)]


def _view(task: TrackTask, genome: Genome, card: ModelCard, allele: int) -> View:
    """Say where the bins of an allele's window lie."""
    alleles, bins = task.alleles, bins_of_card(card)
    lengths = int(alleles.ref_len[allele]), int(alleles.alt_len[allele])
    stitch, known = None, None
    if bins.size > 1:
        stitch = stitch_of(bins, card.anchor, *lengths)
    elif lengths[0] != lengths[1]:
        _, known = onto_reference(np.zeros((bins.count, 1)), bins, card.anchor, *lengths)
    contig = alleles.contigs[int(alleles.contig[allele])]
    turn = genome.contigs[contig] if contig in task.model.circular else 0
    left = int(alleles.start[allele]) - card.anchor
    return View(contig, left, bins, stitch, known, turn)


def _windows(
    task: TrackTask, genome: Genome, card: ModelCard
) -> Iterator[tuple[WindowBatch, Stitch | None]]:
    """Cut windows, longer by the difference of the alleles where those are stitched."""
    model, bins = task.model, bins_of_card(card)
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


def _edges(stitch: Stitch | None) -> dict[str, tuple[int, ...]]:
    """Say where windows begin on each haplotype: two on the longer one of a stitched pair."""
    edges: dict[str, tuple[int, ...]] = {"ref": (0,), "alt": (0,)}
    if stitch is not None:
        edges[stitch.longer] = (0, stitch.shift)
    return edges


def _cases(
    task: TrackTask,
    genome: Genome,
    card: ModelCard,
    batch: WindowBatch,
    stitch: Stitch | None,
    share: float,
) -> Iterator[_Case]:
    """Plan the passes of alleles that change the same number of bases."""
    edges = _edges(stitch)
    near = (None, None) if batch.beside is None else (batch.beside.ref, batch.beside.alt)
    ref = ask_passes(task.plan, task.model, batch.ref, near[0], edges["ref"])
    alt = ask_passes(task.plan, task.model, batch.alt, near[1], edges["alt"])
    for member, allele in enumerate(batch.allele.tolist()):
        yield _Case(
            allele, ref[member], alt[member], _view(task, genome, card, allele), batch.offset,
            batch.ref_len, batch.alt_len, share,
        )  # fmt: skip


def _finish(task: TrackTask, case: _Case, answers: Answers) -> None:
    """Score one allele in windows of one shift."""
    model = task.model
    view = case.view
    ref, alt = (
        predicted_tracks(model, view.bins, side, answers, view.stitch)
        for side in (case.ref, case.alt)
    )
    bins, known = case.view.bins, case.view.known
    if known is not None:
        alt, _ = onto_reference(alt, bins, case.start, case.ref_len, case.alt_len)
    tracks = tracks_of(model)
    ref, alt = tracks.transforms.invert(ref), tracks.transforms.invert(alt)
    if model.shows:
        shown = Shown(view.left, view.stitch, known, ref, alt)
        task.shown.setdefault(case.allele, {})[view.left] = shown
    for mask, specs in by_mask(model.scores, genes=False).items():
        chosen = _mask(mask, bins, model.bundle.card, known)
        for key, scores in _scores(model, specs, ref, alt, chosen).items():
            task.values[key][case.allele] += case.share * scores
    task.sums[case.allele] += case.share * _sums(model, ref, alt, known)
    masks = by_mask(model.scores, genes=True)
    for place in task.genes.get(case.allele, ()):
        for mask in place.masks:
            held = gene_mask(place.gene, mask, case.view)
            for key, scores in _scores(model, masks[mask], ref, alt, held).items():
                place.values[key] += case.share * scores
            if mask == next(iter(masks)):
                place.sums += case.share * _sums(model, ref, alt, held)


def _scores(
    model: Model, specs: Iterable[ScoreSpec], ref: Floats, alt: Floats, chosen: Bools | None
) -> dict[str, Floats]:
    """Score REF and ALT over one mask: by key, shape (merged tracks,)."""
    first, second = tracks_of(model).merged
    names = {spec.key: spec.name for spec in specs}
    scores = score_tracks(set(names.values()), ref, alt, chosen)
    return {k: merge_strands(name, scores[name], first, second) for k, name in names.items()}


def _sums(model: Model, ref: Floats, alt: Floats, chosen: Bools | None) -> Floats:
    """Add up the bins of a mask, shape (2, merged tracks)."""
    sides = (values if chosen is None else values[chosen] for values in (ref, alt))
    return np.stack([merge_values(x.sum(axis=0), *tracks_of(model).merged) for x in sides])


def _mask(name: str, bins: Bins, card: ModelCard, known: Bools | None) -> Bools | None:
    """Choose the bins of a mask, shape (bins,); None: all."""
    kind, _, width = name.partition(":")
    if kind == "all":
        return known
    mask = center_mask(bins, card.context, int(width))
    return mask if known is None else mask & known


def _blank(task: TrackTask) -> Result:
    """Give a result without numbers, and NO_GENE where a mask has no gene."""
    result = empty_result(task.model, task.skip, task.silent)
    for mask, specs in by_mask(task.model.scores, genes=True).items():
        without = [i for i, found in task.genes.items() if all(mask not in x.masks for x in found)]
        for spec in specs:
            result.reasons[spec.key][without] = skip_code(Skip.NO_GENE)
            result.named[spec.key] = [""] * len(task.alleles)
    return result


def _result(task: TrackTask) -> Result:
    """Turn what a task that has run has gathered into scores."""
    result, keys = task.blank(), [spec.key for spec in task.model.scores if spec.in_genes]
    for allele in task.chosen.tolist():
        for key in keys:
            place = largest_gene(task.genes[allele], key)
            task.values[key][allele] = np.nan if place is None else place.values[key]
            result.named[key][allele] = "" if place is None else place.gene.name
        if keys:
            result.rows.extend(gene_row(allele, place, keys) for place in task.genes[allele])
    fill_result(result, task.chosen, task.values)
    result.shown.update(task.shown)
    if result.sums is not None:
        result.sums[task.chosen] = task.sums[task.chosen]
    return result
