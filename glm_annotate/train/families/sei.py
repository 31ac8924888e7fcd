"""Sei: probabilities of 21,907 chromatin profiles from windows of 4,096 bases.

After Chen et al. (2022); layers and their order follow the authors' code. Every stage adds what
went into its rectified half to what comes out of it, except the first dilated layer: what it adds
to is the rectified half alone. Rows are summed up by a basis of 16 cubic splines, which follows
from their number and lies in no checkpoint.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from glm_annotate.train.families.family import Family, Official, Source, Values, is_matrix_of
from glm_annotate.train.families.one_bin import (
    OneBin,
    check_context,
    keep_rows,
    predicted_whole,
    stored,
)
from glm_annotate.train.families.predictor import Predicted
from glm_annotate.train.official import Keys, build_config, fill, parse_config, rename

_POOL = 4
_DEGREE = 3


class SeiConfig(BaseModel):
    """The config's `[model]` table.

    Attributes:
        length: Bases of a window.
        widths: Channels of the three stages, with pools of 4 between them.
        kernel: Taps of their convolutions; odd.
        dilations: Distances of taps of the dilated layers.
        dilated_kernel: Taps of a dilated layer; odd.
        splines: Functions in the basis.
        tracks: Profiles predicted, and the width of the dense layer before.
        unknown: What an N is in each channel.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    length: int = Field(default=4096, ge=1)
    widths: tuple[int, int, int] = (480, 640, 960)
    kernel: int = Field(default=9, ge=1)
    dilations: tuple[int, ...] = Field(default=(2, 4, 8, 16, 25), min_length=1)
    dilated_kernel: int = Field(default=5, ge=1)
    splines: int = Field(default=16, gt=_DEGREE)
    tracks: int = Field(default=21907, ge=1)
    unknown: float = Field(default=0.25, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> SeiConfig:
        if self.kernel % 2 == 0 or self.dilated_kernel % 2 == 0:
            raise ValueError("kernels must be odd")
        if self.rows < 2:
            raise ValueError(f"a window of {self.length} bases leaves less than two rows")
        return self

    @property
    def rows(self) -> int:
        """Rows that the splines sum up."""
        return self.length // _POOL // _POOL


def spline_basis(rows: int, functions: int) -> NDArray[np.float64]:
    """Compute cubic B-splines at rows 0, 1, ...: (rows, functions), each row sums to 1.

    Knots lie evenly from the first row to the last, those two repeated; by the recursion of Cox and
    de Boor, the last row being part of the last interval.
    """
    last = rows - 1.0
    inner = np.linspace(0, last, functions - _DEGREE + 1)[1:-1]
    knots = np.concatenate([[0.0] * (_DEGREE + 1), inner, [last] * (_DEGREE + 1)])
    x = np.arange(rows, dtype=np.float64)[:, None]
    basis = ((knots[:-1] <= x) & (x < knots[1:])).astype(np.float64)
    basis[-1, functions - 1] = 1.0
    for degree in range(1, _DEGREE + 1):
        count = len(knots) - degree - 1
        left, right = knots[:count], knots[degree + 1 :]
        rise, fall = knots[degree:-1] - left, right - knots[1 : count + 1]
        up = np.divide(x - left, rise, out=np.zeros((rows, count)), where=rise > 0)
        down = np.divide(right - x, fall, out=np.zeros((rows, count)), where=fall > 0)
        basis = up * basis[:, :-1] + down * basis[:, 1:]
    return basis


class Stage(nn.Module):
    """Two convolutions without activation, then two with."""

    def __init__(self, before: int, width: int, kernel: int) -> None:
        super().__init__()
        pad = kernel // 2
        self.linear = nn.ModuleList(
            nn.Conv1d(wide, width, kernel, padding=pad) for wide in (before, width)
        )
        self.rectified = nn.ModuleList(
            nn.Conv1d(width, width, kernel, padding=pad) for _ in range(2)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Give both halves' outputs, (B, width, rows) each, for (B, before, rows)."""
        for conv in self.linear:
            x = conv(x)
        y = x
        for conv in self.rectified:
            y = torch.relu(conv(y))
        return x, y


class Sei(OneBin):
    """Three stages, five dilated layers, the spline basis, two dense layers."""

    basis: Tensor

    def __init__(self, config: SeiConfig) -> None:
        super().__init__()
        self.length, self.unknown = config.length, config.unknown
        wide = (4, *config.widths)
        self.stages = nn.ModuleList(
            Stage(before, width, config.kernel) for before, width in itertools.pairwise(wide)
        )
        width, taps = config.widths[-1], config.dilated_kernel
        self.dilated = nn.ModuleList(
            nn.Conv1d(width, width, taps, dilation=step, padding=step * (taps // 2))
            for step in config.dilations
        )
        basis = spline_basis(config.rows, config.splines)
        self.register_buffer("basis", torch.from_numpy(basis).float(), persistent=False)
        self.dense = nn.Linear(width * config.splines, config.tracks)
        self.head = nn.Linear(config.tracks, config.tracks)

    def predict(self, bases: Tensor) -> Tensor:
        """Predict probabilities (B, tracks)."""
        x = bases.transpose(1, 2)  # (B, 4, L)
        y = x
        for i, stage in enumerate(self.stages):
            x = nn.functional.max_pool1d(x, _POOL) if i else x
            linear, y = stage(x)
            x = linear + y
        for i, conv in enumerate(self.dilated):
            # The first one's residual leaves out the linear half.
            x = (x if i else y) + torch.relu(conv(x))
        summed = x @ self.basis  # (B, width, splines)
        return torch.sigmoid(self.head(torch.relu(self.dense(summed.flatten(1)))))

    def select(self, tracks: Sequence[int]) -> None:
        """Keep only these tracks; the dense layer before stays as it is."""
        self.head = keep_rows(self.head, tracks)


def build(values: Values) -> Sei:
    """Make a network with fresh weights.

    Raises:
        InputError: A key or value of `[model]` is not allowed.
    """
    return Sei(build_config(SeiConfig, values))


# Places of the convolutions in the authors' sequences, which hold pools, dropout and ReLU too.
_PLACES = {
    "lconv1": ("linear", 0, (0, 1)), "conv1": ("rectified", 0, (0, 2)),
    "lconv2": ("linear", 1, (2, 3)), "conv2": ("rectified", 1, (1, 3)),
    "lconv3": ("linear", 2, (2, 3)), "conv3": ("rectified", 2, (1, 3)),
}  # fmt: skip
_RENAME = (
    (r"module\.", ""), (r"model\.", ""),
    *(
        (rf"{name}\.{place}\.", f"stages.{stage}.{half}.{i}.")
        for name, (half, stage, places) in _PLACES.items()
        for i, place in enumerate(places)
    ),
    *((rf"dconv{i + 1}\.1\.", f"dilated.{i}.") for i in range(5)),
    (r"classifier\.0\.", "dense."), (r"classifier\.2\.", "head."),
)  # fmt: skip


def recognise(source: Source) -> bool:
    """Tell whether a source is a checkpoint of the authors."""
    names = rename(source.weights, Keys(rename=_RENAME)).keys()
    return {"stages.0.linear.0.weight", "dilated.4.weight", "head.weight"} <= names


def load(source: Source, context: int | None) -> Predicted:
    """Read a checkpoint of the authors.

    Raises:
        InputError: Weights are not those of the system.
    """
    named = replace(source, weights=rename(source.weights, Keys(rename=_RENAME)))
    widths = [stored(named, f"stages.{i}.linear.0.weight", 3).shape[0] for i in range(3)]
    dense = stored(named, "dense.weight", 2)
    values: dict[str, object] = {
        "widths": tuple(widths),
        "kernel": stored(named, "stages.0.linear.0.weight", 3).shape[2],
        "dilated_kernel": stored(named, "dilated.0.weight", 3).shape[2],
        "splines": dense.shape[1] // widths[-1],
        "tracks": dense.shape[0],
        **({"length": source.config["length"]} if "length" in source.config else {}),
    }
    config = parse_config(SeiConfig, named, values)
    check_context(source, context, config.length)
    network = Sei(config)
    fill(network, named, Keys())
    facts = {"assembly": "GRCh38", "species": "Homo sapiens"}
    return predicted_whole(
        source, network, length=config.length, tracks=config.tracks, provenance=facts
    )


FAMILY = Family(
    name="sei",
    objective="tracks",
    build=build,
    trunk=is_matrix_of("dense"),
    citation="Chen, Wong, Troyanskaya and Zhou, Nature Genetics 54 (2022) 940",
    title="Sei",
    official=(
        Official(
            variant="2022",
            recognise=recognise,
            load=load,
            tag="SEI",
            tokenizer="one-hot bases",
            code_licence="academic and research use only",
            weights_licence="academic and research use only",
        ),
    ),
)
