"""What a model of tracks says of one haplotype, averaged over the strands that are read."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm_annotate.answers import Floats
from glm_annotate.card import ModelCard
from glm_annotate.errors import BundleError
from glm_annotate.model import Model, Tracks
from glm_annotate.passes import Passes
from glm_annotate.track_plan import Answers
from glm_annotate.track_table import TRACKS
from glm_annotate.track_windows import Bins, Stitch, bins_of, flip_tracks, stitch_tracks


def tracks_of(model: Model) -> Tracks:
    """Give the tracks that are read of a model of tracks."""
    if model.tracks is None:
        raise ValueError(f"{model.tag}: opened without its tracks")
    return model.tracks


def bins_of_card(card: ModelCard) -> Bins:
    """Lay out the bins that a window of a model of tracks has."""
    return bins_of(card.context, card.bin_size or 1, card.crop)


def predicted_tracks(
    model: Model, bins: Bins, side: Passes, answers: Answers, stitch: Stitch | None = None
) -> Floats:
    """Average a haplotype's prediction over strands, shape (bins, tracks), still transformed.

    Args:
        model: The model.
        bins: Of a window.
        side: Passes of the haplotype; two a strand where they are stitched.
        answers: To them.
        stitch: How two windows are joined.

    Raises:
        BundleError: The graph has other bins than the card, or fewer tracks than the table.
    """
    tracks, total = tracks_of(model), np.zeros(())
    for reverse, numbers in zip(model.strands, side, strict=True):
        parts = [_chosen_tracks(model, bins, answers[k]) for k in numbers]
        if reverse:
            parts = [flip_tracks(part, tracks.table.pair) for part in parts]
        whole = parts[0]
        if len(parts) > 1 and stitch is not None:
            whole = stitch_tracks(stitch, *parts)
        total = total + whole.astype(np.float64)
    return np.asarray(total / len(model.strands))


def _chosen_tracks(model: Model, bins: Bins, answer: NDArray[Any]) -> NDArray[Any]:
    """Take the tracks that are read of a whole prediction, shape (bins, tracks)."""
    which = tracks_of(model).which
    least = int(which.max()) + 1
    if answer.ndim != 2 or answer.shape[0] != bins.count or answer.shape[1] < least:
        raise BundleError(
            f"{model.bundle.path}: the graph gives tracks of shape {answer.shape}; by the card "
            f"there are {bins.count} bins, and {TRACKS} has a row {least}; export the bundle again"
        )
    found: NDArray[Any] = answer[:, which]
    return found
