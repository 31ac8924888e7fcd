"""Basenji2: 5,313 tracks in bins of 128 bases from windows of 131,072.

After Kelley (2020); sizes are those of the published parameters. A block is GELU, convolution,
batch norm, in this order, the very first one too: the one-hot bases go through GELU. There are
three GELUs about, whose outputs differ by up to 0.02: the authors' code of today has the tanh
approximation, the PyTorch port the exact one; each kind of file is read with its own, and the card
says which.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from glm_annotate.errors import InputError
from glm_annotate.train.families import basenji2_keras
from glm_annotate.train.families.basenji2_params import ASSEMBLIES, heads_of, settings
from glm_annotate.train.families.family import Family, Official, Source, Values, is_matrix_of
from glm_annotate.train.families.one_bin import (
    TRACKS,
    card_of,
    keep_rows,
    stored,
    track_rows,
)
from glm_annotate.train.families.predictor import Predicted, Predictor
from glm_annotate.train.families.targets import find_targets
from glm_annotate.train.official import Keys, build_config, fill, parse_config, rename

_EPS = 1e-3  # Keras' batch norm
_LENGTH, _CROP = 131_072, 64
_DROP_DILATED, _DROP_LAST = 0.3, 0.05

Gelu = Literal["erf", "tanh", "sigmoid"]


class Basenji2Config(BaseModel):
    """The config's `[model]` table.

    Attributes:
        length: Bases of a window, a multiple of the bin.
        stem: Channels of the first convolution.
        stem_kernel: Its taps.
        tower: Channels of the blocks that follow; each of them, as the first, halves the rows.
        tower_kernel: Their taps.
        narrow: Channels inside a dilated block.
        dilations: Distance of taps of each dilated block.
        crop: Bins cut off at each side.
        wide: Channels of the last block.
        tracks: Tracks predicted.
        gelu: Exact, or one of its two approximations.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    length: int = Field(default=_LENGTH, ge=1)
    stem: int = Field(default=288, ge=1)
    stem_kernel: int = Field(default=15, ge=1)
    tower: tuple[int, ...] = (339, 399, 470, 554, 652, 768)
    tower_kernel: int = Field(default=5, ge=1)
    narrow: int = Field(default=384, ge=1)
    dilations: tuple[int, ...] = (1, 2, 3, 4, 6, 9, 14, 21, 32, 48, 72)
    crop: int = Field(default=_CROP, ge=0)
    wide: int = Field(default=1536, ge=1)
    tracks: int = Field(default=5313, ge=1)
    gelu: Gelu = "tanh"

    @model_validator(mode="after")
    def _check(self) -> Basenji2Config:
        if self.stem_kernel % 2 == 0 or self.tower_kernel % 2 == 0:
            raise ValueError("kernels must be odd")
        if self.length % self.bin_size or self.length // self.bin_size <= 2 * self.crop:
            raise ValueError(
                f"length {self.length} must be a multiple of {self.bin_size} and hold more than "
                f"{2 * self.crop} bins"
            )
        return self

    @property
    def bin_size(self) -> int:
        """Bases of a bin."""
        return int(2 ** (len(self.tower) + 1))


def dilations(count: int, rate: float = 1.5) -> tuple[int, ...]:
    """Work out distances of taps: each 1.5 times the last, rounded half to even as numpy does."""
    found, step = [], 1.0
    for _ in range(count):
        found.append(round(step))
        step = float(round(step * rate))
    return tuple(found)


class Block(nn.Module):
    """GELU, convolution without bias, batch norm."""

    def __init__(
        self,
        before: int,
        width: int,
        kernel: int,
        gelu: Gelu,
        *,
        dilation: int = 1,
        drop: float = 0,
    ) -> None:
        super().__init__()
        self.gelu, self.drop = gelu, nn.Dropout(drop)
        pad = dilation * (kernel // 2)
        self.conv = nn.Conv1d(before, width, kernel, dilation=dilation, padding=pad, bias=False)
        self.norm = nn.BatchNorm1d(width, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Turn (B, before, rows) into (B, width, rows)."""
        out: Tensor = self.drop(self.norm(self.conv(activate(x, self.gelu))))
        return out


def activate(x: Tensor, gelu: Gelu) -> Tensor:
    """Apply GELU in one of its three forms."""
    if gelu == "sigmoid":
        return x * torch.sigmoid(1.702 * x)
    return nn.functional.gelu(x, approximate="tanh" if gelu == "tanh" else "none")


class Basenji2(Predictor):
    """Convolutions that halve the rows, dilated residual blocks, a head for each bin."""

    def __init__(self, config: Basenji2Config) -> None:
        super().__init__()
        self.outputs = {"tracks": TRACKS}
        self.length, self.multiple_of = config.length, config.bin_size
        self.crop, self.gelu = config.crop, config.gelu
        gelu = config.gelu
        wide = (config.stem, *config.tower)
        self.stem = Block(4, config.stem, config.stem_kernel, gelu)
        self.tower = nn.ModuleList(
            Block(before, after, config.tower_kernel, gelu)
            for before, after in itertools.pairwise(wide)
        )
        dim = wide[-1]
        self.dilated = nn.ModuleList(
            nn.ModuleList(
                [
                    Block(dim, config.narrow, 3, gelu, dilation=step),
                    Block(config.narrow, dim, 1, gelu, drop=_DROP_DILATED),
                ]
            )
            for step in config.dilations
        )
        self.last = Block(dim, config.wide, 1, gelu, drop=_DROP_LAST)
        self.head = nn.Linear(config.wide, config.tracks)

    def forward(self, bases: Tensor, channels: Tensor | None = None) -> tuple[Tensor, ...]:
        """Predict tracks (B, bins, T)."""
        x = nn.functional.max_pool1d(self.stem(bases.transpose(1, 2)), 2)
        for block in self.tower:
            x = nn.functional.max_pool1d(block(x), 2)
        for narrow, widen in self.dilated:  # type: ignore[misc]
            x = x + widen(narrow(x))  # type: ignore[has-type]
        x = x[:, :, self.crop : x.shape[2] - self.crop]
        rows = activate(self.last(x), self.gelu).transpose(1, 2)  # (B, bins, wide)
        return (nn.functional.softplus(self.head(rows)),)

    def select(self, tracks: Sequence[int]) -> None:
        """Keep only these tracks."""
        self.head = keep_rows(self.head, tracks)


def build(values: Values) -> Basenji2:
    """Make a network with fresh weights.

    Raises:
        InputError: A key or value of `[model]` is not allowed.
    """
    return Basenji2(build_config(Basenji2Config, values))


# Official checkpoints

_PARTS = ((r"1\.", "conv."), (r"2\.", "norm."))
_PORT = (
    (r"module\.", ""),
    *((rf"model\.trunk\.0\.block\.{old}", f"stem.{new}") for old, new in _PARTS),
    *((rf"model\.trunk\.1\.tower\.(\d+)\.block\.{old}", rf"tower.\1.{new}") for old, new in _PARTS),
    *(
        (rf"model\.trunk\.2\.block\.(\d+)\.module\.(\d)\.block\.{old}", rf"dilated.\1.\2.{new}")
        for old, new in _PARTS
    ),
    *((rf"model\.trunk\.4\.block\.{old}", f"last.{new}") for old, new in _PARTS),
    (r"model\.head\.final\.block\.1\.", "head."),
)


def is_port(source: Source) -> bool:
    """Tell whether a source is a checkpoint of basenji2-pytorch."""
    names = rename(source.weights, Keys(rename=_PORT)).keys()
    return {"stem.conv.weight", "dilated.0.1.conv.weight", "head.weight"} <= names


def load_port(source: Source, context: int | None) -> Predicted:
    """Read a checkpoint of basenji2-pytorch.

    Raises:
        InputError: Weights are not those of the system.
    """
    named = replace(source, weights=rename(source.weights, Keys(rename=_PORT)))
    return _load(source, named, context, "erf")


def load_keras(source: Source, context: int | None) -> Predicted:
    """Read the weights of the authors' Keras model; layers are told by the order of making.

    Raises:
        InputError: Weights are not those of the system.
    """
    return _load(
        source, replace(source, weights=basenji2_keras.from_keras(source)), context, "tanh"
    )


def _load(source: Source, named: Source, context: int | None, gelu: Gelu) -> Predicted:
    config = _config(named, gelu, context)
    head = _head(named, config.tracks)
    network = Basenji2(config)
    fill(network, named, Keys())
    species, assembly = ASSEMBLIES.get(head, ("", ""))
    card = card_of(
        config.length,
        bin_size=config.bin_size,
        crop=config.crop,
        scores=("SAD", "LOGSED"),
        provenance={
            "species": species,
            "assembly": assembly,
            "limits": f"GELU computed as {config.gelu}; codes of this system differ in it.",
        },
    )
    rows = find_targets(source, head, config.tracks, "none")
    return Predicted((network,), card, rows or track_rows(source, config.tracks, "signal"))


def _head(named: Source, tracks: int) -> str:
    """Say which head the weights are of: the config's `head`, else what their number tells.

    Raises:
        InputError: They are of another head than the one asked for.
    """
    known = heads_of(named, tracks) or ("human",)
    asked = named.config.get("head")
    if asked is not None and asked not in known:
        raise InputError(
            f"{named.name}: has the {tracks} tracks of head {' or '.join(known)}, not those of "
            f"{asked!r}; give the weights of that head"
        )
    return str(asked or ("human" if "human" in known else known[0]))


def _heads_of_port(source: Source) -> tuple[str, ...]:
    """See `Official.heads`."""
    head = rename(source.weights, Keys(rename=_PORT)).get("head.bias")
    return heads_of(source, 0 if head is None else head.numel())


def _config(source: Source, gelu: Gelu, context: int | None) -> Basenji2Config:
    stem = stored(source, "stem.conv.weight", 3)
    names = source.weights
    count = sum(bool(re.fullmatch(r"tower\.\d+\.conv\.weight", x)) for x in names)
    pairs = sum(bool(re.fullmatch(r"dilated\.\d+\.0\.conv\.weight", x)) for x in names)
    towers = [stored(source, f"tower.{i}.conv.weight", 3) for i in range(count)]
    head = stored(source, "head.weight", 2)
    beside = settings(source)
    rate = beside.pop("rate", 1.5)
    values: dict[str, object] = {
        "gelu": gelu,
        **beside,
        **{x: source.config[x] for x in ("crop", "gelu") if x in source.config},
        "stem": stem.shape[0],
        "stem_kernel": stem.shape[2],
        "tower": tuple(tower.shape[0] for tower in towers),
        "tower_kernel": towers[0].shape[2] if towers else 5,
        "narrow": stored(source, "dilated.0.0.conv.weight", 3).shape[0],
        "dilations": dilations(pairs, rate),
        "wide": head.shape[1],
        "tracks": head.shape[0],
    }
    config = parse_config(Basenji2Config, source, values)
    length, bin_size = context or config.length, config.bin_size
    if length % bin_size or length // bin_size <= 2 * config.crop:
        raise InputError(
            f"{source.name}: found --context {length}, wanted a multiple of {bin_size} of more "
            f"than the {2 * config.crop} bins cut off; leave it out for {config.length}"
        )
    return config.model_copy(update={"length": length})


FAMILY = Family(
    name="basenji2",
    objective="tracks",
    build=build,
    trunk=is_matrix_of("head"),
    citation="Kelley, PLoS Computational Biology 16 (2020) e1008050",
    title="Basenji2",
    official=(
        Official(
            variant="basenji2-pytorch",
            recognise=is_port,
            load=load_port,
            tag="BASENJI",
            tokenizer="one-hot bases",
            code_licence="MIT",
            weights_licence="none stated",
            heads=_heads_of_port,
        ),
        Official(
            variant="Keras",
            recognise=basenji2_keras.recognise,
            load=load_keras,
            tag="BASENJI",
            tokenizer="one-hot bases",
            code_licence="Apache-2.0",
            weights_licence="none stated",
            heads=basenji2_keras.heads_of,
        ),
    ),
)
