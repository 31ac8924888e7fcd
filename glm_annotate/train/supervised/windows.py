"""What the supervised objectives share: encoded windows, what a network gives, the two strands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from glm_annotate.encoding import Encoder, EncoderSpec, make_encoder
from glm_annotate.errors import InputError
from glm_annotate.genome import Codes
from glm_annotate.train.families.predictor import UNKNOWN, Predictor

# As the cards of `one_bin.card_of` have it.
ENCODER = EncoderSpec.model_validate(
    {"kind": "kmer", "vocab": {"order": "ACGT", "first_id": 0, "single_ids": {"N": UNKNOWN}}}
)

# Streams of random numbers that must not depend on one another.
WINDOWS, ORDER = 10, 11


def stream(seed: int, step: int, kind: int) -> np.random.Generator:
    """Make the random numbers of one step: same arguments, same numbers."""
    return np.random.default_rng((seed, step, kind))


@dataclass(frozen=True, slots=True)
class Setup:
    """What an objective needs to know of its run.

    Attributes:
        family: Name of the network's system, for messages.
        seed: Of the run.
        batch: Windows a step.
        home: Folder of the config file.
        data: Folder of the data.
        folder: Where arrays may be kept.
    """

    family: str
    seed: int
    batch: int
    home: Path
    data: Path
    folder: Path

    def find(self, name: str) -> Path:
        """Find a list that may lie beside the config, else in the data folder."""
        beside = self.home / name
        return beside if beside.is_file() else self.data / name


@dataclass(frozen=True, slots=True)
class Shape:
    """Windows of a network and what it gives for them.

    Attributes:
        length: Bases of a window.
        bins: Bins of its output.
        size: Bases of a bin.
        tracks: Tracks of its output.
    """

    length: int
    bins: int
    size: int
    tracks: int

    @property
    def crop(self) -> int:
        """Bases without a bin at each side."""
        return (self.length - self.bins * self.size) // 2


def encode(encoder: Encoder, codes: Codes) -> NDArray[np.uint8]:
    """Encode windows (B, L) as the scoring side does, ids (B, L)."""
    rows: NDArray[np.uint8] = encoder.encode(codes)[0].rows
    return rows


def make_window_encoder() -> Encoder:
    """Make the encoder of all predictors that are trained here."""
    return make_encoder(ENCODER)


def one_hot(rows: Tensor, unknown: float) -> Tensor:
    """Turn ids (B, L) into numbers (B, L, 4), N into `unknown` in each of them."""
    table = torch.cat([torch.eye(4), torch.full((1, 4), unknown)]).to(rows.device)
    return table[rows.long()]


def predictor_of(network: nn.Module, output: str, family: str) -> Predictor:
    """Check that a network gives what an objective needs.

    Raises:
        InputError: It is a language model, or has no such output, or windows of any length.
    """
    if not isinstance(network, Predictor) or output not in network.outputs:
        raise InputError(f"family {family!r} predicts no {output}; choose another family")
    if network.length is None:
        raise InputError(f"family {family!r} has windows of any length; it cannot be trained here")
    return network


@torch.no_grad()
def shape_of(network: Predictor, size: int | None) -> Shape:
    """Find out what a network gives for a window, with one pass over Ns.

    Args:
        network: It predicts tracks.
        size: Bases of a bin; None: there is one bin, as wide as the window.

    Raises:
        InputError: Bins of that size do not lie in the middle of the window.
    """
    length = int(network.length or 0)
    with evaluating(network):
        out = run(network, network, torch.full((1, length), UNKNOWN, dtype=torch.uint8), None)
    bins, tracks = out["tracks"].shape[1:]
    wide = size or length
    if bins * wide > length or (length - bins * wide) % (2 * wide):
        raise InputError(
            f"supervised.tracks.bin: found {wide}; the network gives {bins} bins for {length} "
            "bases, and these do not lie in its middle"
        )
    return Shape(length, bins, wide, tracks)


def one_number(network: Predictor) -> Shape:
    """Check that a network gives one number a window and track, and say how many tracks.

    Raises:
        InputError: It gives several bins.
    """
    out = shape_of(network, None) if _bins(network) == 1 else None
    if out is None:
        raise InputError(
            f"model: the network gives {_bins(network)} bins a window; sequences have one number "
            "each: choose a family of one bin (basset, satori, deepsea), or a length and crop that "
            "leave one"
        )
    return out


@torch.no_grad()
def _bins(network: Predictor) -> int:
    rows = torch.full((1, int(network.length or 0)), UNKNOWN, dtype=torch.uint8)
    with evaluating(network):
        return int(run(network, network, rows, None)["tracks"].shape[1])


def run(
    model: nn.Module, network: Predictor, rows: Tensor, channels: Tensor | None
) -> dict[str, Tensor]:
    """Run a network, as the loop has set it up, on ids (B, L); gives its outputs by name."""
    bases = one_hot(rows, network.unknown)
    found = model(bases) if channels is None else model(bases, channels)
    return dict(zip(network.outputs, found, strict=True))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch to evaluation, and back to what it was."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)
