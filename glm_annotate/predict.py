"""Assay tracks of whole stretches of the genome, as a model of tracks predicts them.

Windows lie on a grid of the contig, and each gives the bins in its middle, so that a bin's value
depends on nothing but the genome and the model: not on the stretches that were asked for, nor on
how many windows are run at a time. Window k gives the bins from base k x step on, where a step is
the bases of the bins that a window keeps.

Decisions: predictions are averaged over strands and shifts and then un-transformed, as for scores
of alleles; those of a shift count for the bins of the window that was not moved. Of models that cut
off no bins (`crop` = 0) an eighth of the bins is left out at each side. Bins of windows without any
A, C, G or T have no value, and those past the end of the contig do not come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from glm_annotate.answers import Ints
from glm_annotate.card import ModelCard
from glm_annotate.encoding import refused
from glm_annotate.errors import UsageError
from glm_annotate.genome import Genome
from glm_annotate.model import Model
from glm_annotate.passes import Passes, ask_passes, too_many_rows
from glm_annotate.stretches import Predicted as Predicted
from glm_annotate.stretches import WindowReader, Work
from glm_annotate.track_plan import Answers
from glm_annotate.track_predictions import bins_of_card, predicted_tracks, tracks_of
from glm_annotate.track_windows import Bins

_EDGE = 8  # of the bins of a window that is not cropped, one in so many is left out at each side


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the windows of a model lie on a contig.

    Attributes:
        bins: Of a window.
        edge: Bins that are left out at each side, beside those that the model has cut off.
    """

    bins: Bins
    edge: int

    @property
    def kept(self) -> int:
        """Bins that a window gives."""
        return self.bins.count - 2 * self.edge

    @property
    def step(self) -> int:
        """Bases from one window to the next."""
        return self.kept * self.bins.size

    @property
    def lead(self) -> int:
        """Bases of a window before those it gives."""
        return self.bins.first + self.edge * self.bins.size


def grid_of(card: ModelCard, edge: int | None = None) -> Grid:
    """Lay out the grid of a model of tracks.

    Args:
        card: Of the model.
        edge: Bins to leave out at each side of a window; None: see the module.

    Raises:
        UsageError: No bin would be left.
    """
    bins = bins_of_card(card)
    if edge is None:
        edge = 0 if card.crop else bins.count // _EDGE
    grid = Grid(bins, edge)
    if grid.kept < 1:
        raise UsageError(
            f"--edge {edge}: a window of {card.name} has {bins.count} bins, and none would be "
            f"left; it takes 0 to {(bins.count - 1) // 2}"
        )
    return grid


class Predictor(WindowReader):
    """Predicts the tracks of stretches.

    Args:
        model: A model of tracks.
        genome: The reference.
        edge: As in `grid_of`.
    """

    def __init__(self, model: Model, genome: Genome, edge: int | None = None) -> None:
        self.grid = grid_of(model.bundle.card, edge)
        super().__init__(
            model, genome, role="tracks", kept=self.grid.kept, bin_size=self.grid.bins.size,
            tracks=len(tracks_of(model).table),
        )  # fmt: skip

    def _ask(self, work: Work, members: Ints) -> None:
        card, circular = self.model.bundle.card, work.contig in self.model.circular
        encoder = self.model.bundle.encoder.spec
        left = work.numbers[members] * self.step - self.grid.lead
        windows = [
            self.genome.windows(work.contig, left + shift, card.context, circular=circular)
            for shift in card.shifts
        ]
        readable = np.full(members.size, self._holds(work.contig))
        for codes in windows:
            readable &= (codes < 4).any(axis=1) & ~refused(codes, encoder)
            readable &= ~too_many_rows(self.model, codes)
        which = np.flatnonzero(readable)
        if not which.size:
            return
        asked: list[list[Passes]] = []
        for shift, codes in zip(card.shifts, windows, strict=True):
            beside = None
            if self.model.channels is not None:
                beside = self.model.channels.windows(
                    work.contig, left[which] + shift, card.context, circular=circular
                )
            asked.append(ask_passes(work.plan, self.model, codes[which], beside))
        for at, member in enumerate(members[which].tolist()):
            sides = [passes[at] for passes in asked]
            needs = [k for side in sides for part in side for k in part]
            work.plan.then(needs, partial(self._finish, work, member, sides))

    def _finish(self, work: Work, member: int, sides: Sequence[Passes], answers: Answers) -> None:
        grid = self.grid
        total = sum(predicted_tracks(self.model, grid.bins, side, answers) for side in sides)
        mean = np.asarray(total)[grid.edge : grid.edge + grid.kept] / len(sides)
        work.found[member] = tracks_of(self.model).transforms.invert(mean)
