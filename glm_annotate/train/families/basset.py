"""Basset: accessibility in 164 cell types from windows of 600 bases.

After Kelley, Snoek and Rinn (2016). Its weights came from Lua too, but its data were written by
Python with bases in the order A, C, G, T and a quarter of each for N: the order that DeepSEA and
Beluga need would be wrong here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from glm_annotate.train.families.family import Family, Official, Source, Values, is_matrix_of
from glm_annotate.train.families.one_bin import (
    OneBin,
    check_context,
    keep_rows,
    predicted_whole,
    stored,
    with_counts,
    with_flat_kernels,
)
from glm_annotate.train.families.predictor import Predicted
from glm_annotate.train.official import Keys, build_config, fill, parse_config, rename

_LENGTH = 600


class BassetConfig(BaseModel):
    """The config's `[model]` table.

    Attributes:
        length: Bases of a window.
        widths: Channels of each convolution.
        kernels: Its taps, without padding.
        pools: Rows that become one after it.
        hidden: Width of the two dense layers.
        tracks: Cell types predicted.
        unknown: What an N is in each channel.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    length: int = Field(default=_LENGTH, ge=1)
    widths: tuple[int, ...] = Field(default=(300, 200, 200), min_length=1)
    kernels: tuple[int, ...] = (19, 11, 7)
    pools: tuple[int, ...] = (3, 4, 4)
    hidden: int = Field(default=1000, ge=1)
    tracks: int = Field(default=164, ge=1)
    unknown: float = Field(default=0.25, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> BassetConfig:
        if not len(self.widths) == len(self.kernels) == len(self.pools):
            raise ValueError("widths, kernels and pools need one number a convolution")
        if min(*self.widths, *self.kernels, *self.pools) < 1 or self.rows < 1:
            raise ValueError(f"no row is left of {self.length} bases")
        return self

    @property
    def rows(self) -> int:
        """Rows that reach the first dense layer."""
        left = self.length
        for kernel, pool in zip(self.kernels, self.pools, strict=True):
            left = (left - kernel + 1) // pool
        return left


class Basset(OneBin):
    """Convolutions with batch norms and pools, then three dense layers."""

    def __init__(self, config: BassetConfig) -> None:
        super().__init__()
        self.length, self.unknown, self.pools = config.length, config.unknown, config.pools
        wide = (4, *config.widths)
        self.convs = nn.ModuleList(
            nn.Conv1d(before, after, kernel)
            for before, after, kernel in zip(wide, wide[1:], config.kernels, strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in config.widths)
        sizes = (config.widths[-1] * config.rows, config.hidden, config.hidden)
        self.dense = nn.ModuleList(nn.Linear(size, config.hidden) for size in sizes[:2])
        self.dense_norms = nn.ModuleList(nn.BatchNorm1d(config.hidden) for _ in range(2))
        self.head = nn.Linear(config.hidden, config.tracks)

    def predict(self, bases: Tensor) -> Tensor:
        """Predict probabilities (B, tracks)."""
        x = bases.transpose(1, 2)  # (B, 4, L)
        for conv, norm, pool in zip(self.convs, self.norms, self.pools, strict=True):
            x = nn.functional.max_pool1d(torch.relu(norm(conv(x))), pool)
        x = x.flatten(1)
        for dense, norm in zip(self.dense, self.dense_norms, strict=True):
            x = torch.relu(norm(dense(x)))
        return torch.sigmoid(self.head(x))

    def select(self, tracks: Sequence[int]) -> None:
        """Keep only these tracks."""
        self.head = keep_rows(self.head, tracks)


def build(values: Values) -> Basset:
    """Make a network with fresh weights.

    Raises:
        InputError: A key or value of `[model]` is not allowed.
    """
    return Basset(build_config(BassetConfig, values))


# The converted checkpoint: numbers of layers in one sequence.
_RENAME = (
    (r"module\.", ""),
    *((rf"{4 * i}\.", f"convs.{i}.") for i in range(3)),
    *((rf"{4 * i + 1}\.", f"norms.{i}.") for i in range(3)),
    (r"13\.1\.", "dense.0."), (r"17\.1\.", "dense.1."), (r"21\.1\.", "head."),
    (r"14\.", "dense_norms.0."), (r"18\.", "dense_norms.1."),
)  # fmt: skip


def recognise(source: Source) -> bool:
    """Tell whether a source is the converted checkpoint."""
    names = rename(source.weights, Keys(rename=_RENAME))
    first = names.get("convs.0.weight")
    return (
        first is not None
        and first.ndim == 4
        and first.shape[3] == 1
        and {"norms.2.weight", "dense_norms.1.weight", "head.weight"} <= names.keys()
    )


def load(source: Source, context: int | None) -> Predicted:
    """Read the checkpoint of 2016, as kipoi converted it.

    Raises:
        InputError: Weights are not those of the system.
    """
    flat = with_flat_kernels(source, 3)
    named = replace(flat, weights=rename(flat.weights, Keys(rename=_RENAME)))
    convs = [stored(named, f"convs.{i}.weight", 3) for i in range(3)]
    values: dict[str, object] = {
        "widths": tuple(conv.shape[0] for conv in convs),
        "kernels": tuple(conv.shape[2] for conv in convs),
        "hidden": stored(named, "dense.0.weight", 2).shape[0],
        "tracks": stored(named, "head.weight", 2).shape[0],
        **{key: source.config[key] for key in ("length", "pools") if key in source.config},
    }
    config = parse_config(BassetConfig, named, values)
    check_context(source, context, config.length)
    network = Basset(config)
    fill(network, with_counts(named, network), Keys())
    facts = {"assembly": "GRCh37", "species": "Homo sapiens"}
    return predicted_whole(
        source, network, length=config.length, tracks=config.tracks, provenance=facts
    )


FAMILY = Family(
    name="basset",
    objective="tracks",
    build=build,
    trunk=is_matrix_of("dense."),
    citation="Kelley, Snoek and Rinn, Genome Research 26 (2016) 990",
    title="Basset",
    official=(
        Official(
            variant="2016",
            recognise=recognise,
            load=load,
            tag="BASSET",
            tokenizer="one-hot bases",
            code_licence="MIT",
            weights_licence="MIT",
        ),
    ),
)
