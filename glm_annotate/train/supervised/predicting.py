"""Predictions of a bundle or a checkpoint for windows of bases, to measure it by.

Both strands are read and averaged, as scores do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glm_annotate.bundle import CARD, GRAPH
from glm_annotate.card import ModelCard
from glm_annotate.encoding import make_encoder
from glm_annotate.errors import InputError
from glm_annotate.genome import Codes, reverse_complement
from glm_annotate.track_table import TRACKS, TrackTable, read_tracks

Floats = NDArray[np.float64]
_WINDOWS = 8  # of a pass


@dataclass(frozen=True, slots=True)
class Windows:
    """A model of tracks that reads windows.

    Attributes:
        length: Bases of a window.
        size: Bases of a bin.
        crop: Bins without a prediction at each side.
        table: Tracks.
        pass_: One pass: ids (B, L) to tracks (B, bins, T).
        encode: Base codes to ids.
    """

    length: int
    size: int
    crop: int
    table: TrackTable
    pass_: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    encode: Callable[[Codes], NDArray[np.uint8]]

    @property
    def bins(self) -> int:
        """Bins of a window."""
        return self.length // self.size - 2 * self.crop

    def predict(self, codes: Codes, *, squashed: bool = False) -> Floats:
        """Predict windows (n, L): (n, bins, T), un-transformed unless `squashed`."""
        out = []
        for start in range(0, len(codes), _WINDOWS):
            part = codes[start : start + _WINDOWS]
            forward = self.pass_(self.encode(part))
            reverse = self.pass_(self.encode(reverse_complement(part)))
            reverse = reverse[:, ::-1][..., self.table.pair]
            out.append((forward.astype(np.float64) + reverse) / 2)
        found = np.concatenate(out)
        return found if squashed else self.table.transforms().invert(found)


def open_windows(path: Path) -> Windows:
    """Open the folder of a bundle, or a checkpoint of a run with `[supervised.tracks]`.

    Raises:
        InputError: It is neither.
    """
    return _bundle(path) if path.is_dir() else _checkpoint(path)


def _bundle(path: Path) -> Windows:
    import onnxruntime

    try:
        card = ModelCard.model_validate_json((path / CARD).read_text(encoding="utf-8"))
        session = onnxruntime.InferenceSession(path / GRAPH, providers=["CPUExecutionProvider"])
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a bundle: {error}") from error
    if card.objective != "tracks" or card.bin_size is None:
        raise InputError(f"{path}: not a model of tracks")
    encoder = make_encoder(card.encoder)
    source, target = card.inputs["rows"].name, card.outputs["tracks"].name

    def run(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = session.run([target], {source: rows})[0]
        return found

    return Windows(
        card.context,
        card.bin_size,
        card.crop,
        read_tracks(path / TRACKS),
        run,
        lambda codes: encoder.encode(codes)[0].rows,
    )


def _checkpoint(path: Path) -> Windows:
    import torch

    from glm_annotate.train import checkpoints
    from glm_annotate.train.families import FAMILIES
    from glm_annotate.train.supervised.exporting import track_table
    from glm_annotate.train.supervised.targets import resolve
    from glm_annotate.train.supervised.windows import (
        encode,
        make_window_encoder,
        predictor_of,
        shape_of,
    )
    from glm_annotate.train.supervised.windows import run as run_network

    state = checkpoints.load(path)
    config = state.settings()
    if config.supervised is None or config.supervised.tracks is None:
        raise InputError(f"{path}: not a run with [supervised.tracks]")
    network = predictor_of(FAMILIES[config.family].build(config.model), "tracks", config.family)
    network.load_state_dict(state.average)
    network.eval()
    settings = resolve(config.supervised, path.parent)
    shape = shape_of(network, config.supervised.tracks.bin)
    encoder = make_window_encoder()

    @torch.no_grad()
    def run(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
        out = run_network(network, network, torch.from_numpy(rows), None)["tracks"]
        found: NDArray[np.float32] = out.numpy()
        return found

    return Windows(
        shape.length,
        shape.size,
        shape.crop // shape.size,
        track_table(settings),
        run,
        lambda codes: encode(encoder, codes),
    )
