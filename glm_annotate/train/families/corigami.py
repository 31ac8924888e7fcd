"""C.Origami: a contact map from the bases, CTCF binding and open chromatin of 2 Mb.

After Tan et al. (2023), written from a description of the published network: its code has no
licence and was not used. Where the description is silent, the decoder's blocks are taken to be as
the encoder's: a ReLU after the sum; run once beside the published network, with its size and random
weights, the map was the same to 2e-6. Decisions: the map is given as the network makes it, which is
log(1 + contacts) and not symmetric, because that is what the authors compare; N is a fifth channel
that is made here from the other four.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from glm_annotate.errors import InputError
from glm_annotate.train.families.corigami_blocks import (
    SIGNALS,
    Attention,
    Decoder,
    Encoder,
    pair_bins,
)
from glm_annotate.train.families.family import Family, Official, Source, Values
from glm_annotate.train.families.predictor import Predicted, Predictor
from glm_annotate.train.official import Keys, build_config, fill

ORDER = "ATCG"
WINDOW, BINS = 2_097_152, 256


class CorigamiConfig(BaseModel):
    """The config's `[model]` table; the defaults are those of the published network.

    Attributes:
        bins: Of a side of the map.
        first: Channels after the first convolution.
        widths: Channels of the blocks that follow, each of which halves the positions.
        layers: Of the transformer, which is twice as wide as the last block.
        heads: Attention heads.
        hidden: Width of the feed-forward layer.
        dilations: Of the decoder's blocks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    bins: int = Field(default=BINS, gt=0)
    first: int = Field(default=16, gt=0)
    widths: tuple[int, ...] = Field(
        default=(16, 16, 16, 16, 32, 32, 64, 64, 64, 64, 128, 128), min_length=1
    )
    layers: int = Field(default=8, gt=0)
    heads: int = Field(default=8, gt=0)
    hidden: int = Field(default=512, gt=0)
    dilations: tuple[int, ...] = (2, 4, 8, 16, 32)

    @property
    def dim(self) -> int:
        """Width of a bin."""
        return 2 * self.widths[-1]

    @property
    def bin_size(self) -> int:
        """Bases of a bin: the first convolution and every block halve."""
        return int(2 ** (1 + len(self.widths)))

    @model_validator(mode="after")
    def _check(self) -> CorigamiConfig:
        if min(*self.widths, *self.dilations, 1) < 1:
            raise ValueError("widths and dilations must be above 0")
        if self.dim % self.heads:
            raise ValueError(f"width {self.dim} of a bin is not divisible by {self.heads} heads")
        return self


class Corigami(Predictor):
    """Bases (B, L, 4) in the order A, T, C, G and signals CTCF, ATAC (B, L, 2) to (B, N, N)."""

    channels = SIGNALS

    def __init__(self, config: CorigamiConfig) -> None:
        super().__init__()
        self.config = config
        self.outputs = {"contacts": ("batch", "row", "column")}
        self.length = config.bins * config.bin_size
        self.encoder = Encoder(config.first, config.widths)
        self.attn = Attention(config.dim, config.layers, config.heads, config.hidden)
        self.decoder = Decoder(config.dim, config.dilations)

    def forward(self, bases: Tensor, channels: Tensor | None = None) -> tuple[Tensor, ...]:
        """Predict the map."""
        if channels is None:
            raise InputError("C.Origami reads CTCF and ATAC beside the bases; found no channels")
        unknown = 1 - bases.sum(dim=2, keepdim=True)
        letters = torch.cat([bases, unknown], dim=2).transpose(1, 2)  # (B, 5, L)
        bins = self.attn(self.encoder(letters, channels.transpose(1, 2)))  # (B, D, N)
        return (self.decoder(pair_bins(bins)),)

    def select(self, tracks: Sequence[int]) -> None:
        """Accept the one map that there is.

        Raises:
            InputError: Another one is asked for.
        """
        if list(tracks) != [0]:
            raise InputError(f"C.Origami: tracks {list(tracks)}: there is one map, number 0")


def build(values: Values) -> Corigami:
    """Make a network with fresh weights.

    Raises:
        InputError: A key or value of `[model]` is not allowed.
    """
    return Corigami(build_config(CorigamiConfig, values))


def is_trunk(name: str, weight: Tensor) -> bool:
    """Tell the transformer's matrices from the rest."""
    return name.startswith("attn.module.") and weight.ndim == 2


# Official checkpoints

_TABLE = "attn.pos_encoder.pe"
_MARKS = ("encoder.conv_start_seq.0.weight", "encoder.conv_start_epi.0.weight", _TABLE)
# Lightning's files name the module that holds the network.
_PREFIX = "model."
KEYS = Keys(rename=((r"model\.", ""),))


def recognise(source: Source) -> bool:
    """Tell whether a source is a C.Origami."""
    names = source.weights.keys()
    return any(all(prefix + mark in names for mark in _MARKS) for prefix in ("", _PREFIX))


def load(source: Source, context: int | None) -> Predicted:
    """Read a checkpoint of the authors' training code.

    Raises:
        InputError: It is not what it should be, or `context` is no window of whole bins.
    """
    network = Corigami(CorigamiConfig(bins=_bins(source, context)))
    fill(network, _first_position(source), KEYS)
    return Predicted((network,), _card(network))


def _bins(source: Source, context: int | None) -> int:
    """Count the bins of a window: any number can be computed, one was trained on."""
    size = WINDOW // BINS
    window = WINDOW if context is None else context
    if window < size or window > WINDOW or window % size:
        raise InputError(
            f"{source.name}: --context {window}: allowed are multiples of {size} up to {WINDOW}, "
            "the window of training"
        )
    return window // size


def _first_position(source: Source) -> Source:
    """Keep of the table of positions the row that a batch of one window is given."""
    cut = {
        name: value[:1] if name.removeprefix(_PREFIX) == _TABLE else value
        for name, value in source.weights.items()
    }
    return dataclasses.replace(source, weights=cut)


def _card(network: Corigami) -> dict[str, Any]:
    window, size = network.config.bins * network.config.bin_size, network.config.bin_size
    beside = {"source": "bigwig", "missing": 0.0, "indel": "edit"}
    limits = "trained on windows of 2,097,152 bases; a shorter one loses accuracy"
    return {
        "encoder": {
            "kind": "kmer",
            "vocab": {"order": ORDER, "first_id": 0, "single_ids": {"N": 4}},
            "channels": [
                {"name": "CTCF", "transform": "none", **beside},
                {"name": "ATAC", "transform": "log1p", **beside},
            ],
        },
        "context": window,
        # The authors centre the window on what they change: a single base begins the right half.
        "anchor": window // 2,
        "contacts": {"bin_size": size, "layout": "square", "symmetric": False},
        # As the authors predict; half of the reversals in their training were not complemented.
        "strand": "forward",
        "scores": ("CONTACT_L1", "INSULATION"),
        "provenance": {
            "held_out": "chr10 (validation), chr15 (test) and chrX by the authors' code",
            **({} if window == WINDOW else {"limits": limits}),
        },
    }


FAMILY = Family(
    name="corigami",
    objective="contacts",
    build=build,
    trunk=is_trunk,
    citation="Tan et al., Nature Biotechnology 41, 1140-1150 (2023)",
    title="C.Origami",
    official=(
        Official(
            variant="Lightning",
            recognise=recognise,
            load=load,
            tag="CORIGAMI",
            tokenizer="one-hot bases, and signals of CTCF and ATAC",
            code_licence="none stated",
            weights_licence="none stated",
        ),
    ),
)
