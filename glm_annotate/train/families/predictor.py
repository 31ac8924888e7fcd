"""What a file of a hybrid predictor has to offer: assay tracks, contact maps, splice sites.

A graph takes ids of bases, 0 to 3 in the order of the card's vocabulary and 4 for N: one byte a
base instead of sixteen. The table that turns them into numbers is put in front of the network when
its graph is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

UNKNOWN = 4  # the id of N


class Predictor(nn.Module):
    """A network over bases.

    Attributes:
        outputs: Axes of each output by its name in the card, in the order that `forward` gives
            them, such as `{"tracks": ("batch", "bin", "track")}`.
        length: Bases of a window; None: any number.
        multiple_of: What that number is a multiple of.
        channels: Signals beside the bases, (B, L, channels); 0: there are none.
        unknown: What an N is in each of the four base channels.
        has_attention: Whether `give_maps` is there.
        vocabulary: Token ids that it reads in place of bases, (B, T) with any number of rows up to
            `max_rows`; 0: it reads bases.
        max_rows: Most rows of token ids; None for any number.
    """

    outputs: Mapping[str, tuple[str, ...]]
    length: int | None = None
    multiple_of: int = 1
    channels: int = 0
    unknown: float = 0.0
    has_attention: bool = False
    vocabulary: int = 0
    max_rows: int | None = None

    def forward(self, bases: Tensor, channels: Tensor | None = None) -> tuple[Tensor, ...]:
        """Predict from one-hot bases (B, L, 4) and signals (B, L, C); outputs are activated."""
        raise NotImplementedError

    def select(self, tracks: Sequence[int]) -> None:
        """Keep only these tracks, in this order, and throw the others' weights away."""
        raise NotImplementedError

    def give_maps(self) -> None:
        """Give attention maps as the last output, (B, layers, heads, T, T)."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Predicted:
    """An official checkpoint of a predictor, as `Loaded` is one of a language model.

    Attributes:
        networks: Replicates whose outputs are averaged; mostly one.
        card: Card keys that follow from the checkpoint.
        tracks: Rows of `tracks.tsv` in the order of the outputs: identifier, description, assay,
            biosample, strand_pair, units, role, transform, clip_soft, scale (any may be absent).
        files: Further files of the bundle, such as `genes.tsv.gz`.
    """

    networks: tuple[Predictor, ...]
    card: Mapping[str, Any]
    tracks: tuple[Mapping[str, str], ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
