"""Networks over parts of an exon: what MMSplice and MTSplice are made of.

Shapes: B exons, L bases of a part, C channels. Norms come from Keras: eps 1e-3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from glm_annotate.splice_scores import (
    ACCEPTOR_EXON,
    ACCEPTOR_INTRON,
    DONOR_EXON,
    DONOR_INTRON,
    INTRON_CUT,
    TISSUE_EXON,
    TISSUE_INTRON,
)
from glm_annotate.train.families.predictor import UNKNOWN, Predictor

_EPS = 1e-3
_DEGREE = 3
# Probabilities are kept this far from 0 and 1 before their logit is taken.
_CLIP = 1e-5
_LOGIT_MOST = math.log((1 - _CLIP) / _CLIP)


class ExonPredictor(Predictor):
    """A network over parts of an exon.

    Attributes:
        parts: Bases of each input of the graph, by its name; None: any number.
        overhang: Bases of each intron that the parts are cut from.
        chosen: The tracks that are given.
    """

    outputs: Mapping[str, tuple[str, ...]] = {"tracks": ("batch", "bin", "track")}
    parts: Mapping[str, int | None]
    overhang: int
    chosen: Tensor

    def split(self, bases: Tensor) -> tuple[Tensor, ...]:
        """Cut exons with `overhang` bases on both sides (B, L, 4) into the parts, in order."""
        raise NotImplementedError

    def predict(self, *parts: Tensor) -> Tensor:
        """Give tracks (B, T) for parts (B, L, 4), in order; nothing may be padded."""
        raise NotImplementedError

    def forward(self, bases: Tensor, channels: Tensor | None = None) -> tuple[Tensor, ...]:
        """Give tracks (B, 1, T) for exons with their introns (B, L, 4), of one length."""
        return (self.from_parts(*self.split(bases)),)

    def from_parts(self, *parts: Tensor) -> Tensor:
        """Give the chosen tracks (B, 1, T) for parts (B, L, 4), in order."""
        return self.predict(*parts)[:, None, self.chosen]

    def select(self, tracks: Sequence[int]) -> None:
        """Keep only these tracks."""
        self.chosen = self.chosen[list(tracks)]

    def _choose(self, count: int) -> None:
        self.register_buffer("chosen", torch.arange(count), persistent=False)


class PartsGraph(nn.Module):
    """What the graph of an `ExonPredictor` computes: ids (B, L), uint8, one input a part."""

    table: Tensor

    def __init__(self, network: ExonPredictor) -> None:
        super().__init__()
        self.network = network
        table = torch.cat([torch.eye(UNKNOWN), torch.full((1, UNKNOWN), network.unknown)])
        self.register_buffer("table", table, persistent=False)

    def forward(self, *rows: Tensor) -> Tensor:
        """Give tracks (B, 1, T)."""
        return self.network.from_parts(*(self.table[part.long()] for part in rows))

    def example(self, exons: int = 2, length: int = 61) -> tuple[Tensor, ...]:
        """Make inputs to trace with; parts of any length all differ, or they would be tied."""
        sizes = [
            length + 7 * place if size is None else size
            for place, size in enumerate(self.network.parts.values())
        ]
        return tuple(
            (torch.arange(exons * size) % UNKNOWN).reshape(exons, size).to(torch.uint8)
            for size in sizes
        )


class MMSpliceConfig(BaseModel):
    """The config's `[model]` table for MMSplice.

    Attributes:
        intron: Channels of the introns' networks.
        acceptor: Channels of the acceptor's.
        exon: Channels of the exon's.
        donor: Widths of the donor's two layers.
        masked: Whether the exon's mean leaves N out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    intron: int = Field(default=256, gt=0)
    acceptor: int = Field(default=32, gt=0)
    exon: int = Field(default=128, gt=0)
    donor: tuple[int, int] = (128, 64)
    masked: bool = True


class Intron(nn.Module):
    """Convolution, ReLU, mean over the bases, one number."""

    def __init__(self, channels: int, width: int = 13) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, channels, width, padding=width // 2)
        self.dense = nn.Linear(channels, 1)

    def forward(self, bases: Tensor) -> Tensor:
        """Score (B, L, 4) as (B, 1)."""
        features = functional.relu(self.conv(bases.transpose(1, 2)))
        out: Tensor = self.dense(features.mean(dim=2))
        return out


class Exon(nn.Module):
    """The same with a norm; the mean may be over bases that are not N alone."""

    def __init__(self, channels: int, *, masked: bool, width: int = 11) -> None:
        super().__init__()
        self.masked = masked
        self.conv = nn.Conv1d(4, channels, width, padding=width // 2)
        self.norm = nn.BatchNorm1d(channels, eps=_EPS)
        self.dense = nn.Linear(channels, 1)

    def forward(self, bases: Tensor) -> Tensor:
        """Score (B, L, 4) as (B, 1)."""
        features = functional.relu(self.norm(self.conv(bases.transpose(1, 2))))
        if self.masked:
            known = bases.amax(dim=2)[:, None]  # (B, 1, L)
            mean = (features * known).sum(dim=2) / known.sum(dim=2).clamp(min=1e-7)
        else:
            mean = features.mean(dim=2)
        out: Tensor = self.dense(mean)
        return out


class Acceptor(nn.Module):
    """Two convolutions, each with ReLU and then a norm, and a dense layer over all places."""

    def __init__(self, channels: int, width: int = 15) -> None:
        super().__init__()
        self.site = nn.Conv1d(4, channels, width, padding=width // 2)
        self.norm1 = nn.BatchNorm1d(channels, eps=_EPS)
        self.mix = nn.Conv1d(channels, channels, 1)
        self.norm2 = nn.BatchNorm1d(channels, eps=_EPS)
        self.dense = nn.Linear(channels * (ACCEPTOR_INTRON + ACCEPTOR_EXON), 1)

    def forward(self, bases: Tensor) -> Tensor:
        """Give the logit (B, 1) of an acceptor in (B, 53, 4)."""
        x = self.norm1(functional.relu(self.site(bases.transpose(1, 2))))
        x = self.norm2(functional.relu(self.mix(x)))
        out: Tensor = self.dense(x.transpose(1, 2).flatten(1))  # a place's channels side by side
        return out


class Donor(nn.Module):
    """Three dense layers over all bases."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__()
        self.dense1 = nn.Linear(4 * (DONOR_EXON + DONOR_INTRON), first)
        self.norm1 = nn.BatchNorm1d(first, eps=_EPS)
        self.dense2 = nn.Linear(first, second)
        self.norm2 = nn.BatchNorm1d(second, eps=_EPS)
        self.dense3 = nn.Linear(second, 1)

    def forward(self, bases: Tensor) -> Tensor:
        """Give the logit (B, 1) of a donor in (B, 18, 4)."""
        x = functional.relu(self.norm1(self.dense1(bases.flatten(1))))
        out: Tensor = self.dense3(functional.relu(self.norm2(self.dense2(x))))
        return out


class MMSplice(ExonPredictor):
    """Five numbers of an exon: scores of its introns and of itself, logits of its two sites."""

    parts: Mapping[str, int | None] = {
        "acceptor_intron": None,
        "acceptor": ACCEPTOR_INTRON + ACCEPTOR_EXON,
        "exon": None,
        "donor": DONOR_EXON + DONOR_INTRON,
        "donor_intron": None,
    }
    overhang = 100
    shortest = 2 * overhang + max(ACCEPTOR_EXON, DONOR_EXON)

    def __init__(self, config: MMSpliceConfig) -> None:
        super().__init__()
        self.acceptor_intron = Intron(config.intron)
        self.acceptor = Acceptor(config.acceptor)
        self.exon = Exon(config.exon, masked=config.masked)
        self.donor = Donor(*config.donor)
        self.donor_intron = Intron(config.intron)
        self._choose(len(self.parts))

    def split(self, bases: Tensor) -> tuple[Tensor, ...]:
        """Cut exons with 100 bases on both sides; sites and their neighbours overlap."""
        start, end = self.overhang, bases.shape[1] - self.overhang
        return (
            bases[:, : start - INTRON_CUT],
            bases[:, start - ACCEPTOR_INTRON : start + ACCEPTOR_EXON],
            bases[:, start:end],
            bases[:, end - DONOR_EXON : end + DONOR_INTRON],
            bases[:, end + INTRON_CUT :],
        )

    def predict(self, *parts: Tensor) -> Tensor:
        """Give the five numbers (B, 5)."""
        modules = (self.acceptor_intron, self.acceptor, self.exon, self.donor, self.donor_intron)
        found = [module(part) for module, part in zip(modules, parts, strict=True)]
        for site in (1, 3):
            # The logit of a clipped probability, without the rounding of a probability near 1.
            found[site] = found[site].clamp(-_LOGIT_MOST, _LOGIT_MOST)
        return torch.cat(found, dim=1)


class MTSpliceConfig(BaseModel):
    """The config's `[model]` table for MTSplice.

    Attributes:
        tissues: Numbers an exon.
        channels: Of the convolutions.
        width: Taps of the first; odd.
        depth: Dilated convolutions after it, 2, 4, 8, ... apart.
        hidden: Width of the dense layer.
        bases: B-splines of the weight of places.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tissues: int = Field(gt=0)
    channels: int = Field(default=64, gt=0)
    width: int = Field(default=11, gt=0)
    depth: int = Field(default=8, ge=0, le=8)
    hidden: int = Field(default=32, gt=0)
    bases: int = Field(default=10, gt=_DEGREE)

    @field_validator("width")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("width must be odd")
        return value


def spline_basis(length: int, bases: int) -> NDArray[np.float64]:
    """Evaluate cubic B-splines at places 0 .. length - 1, shape (length, bases).

    Knots are equally far apart and reach a thousandth of the range beyond it, as in mgcv; they are
    rounded to float32, as in the authors' code.
    """
    beyond = (length - 1) * 0.001
    first, last = -beyond, length - 1 + beyond
    step = (last - first) / (bases - _DEGREE)
    knots = np.linspace(first - _DEGREE * step, last + _DEGREE * step, bases + _DEGREE + 1)
    knots = knots.astype(np.float32).astype(np.float64)
    places = np.arange(length, dtype=np.float64)[:, None]
    basis = ((knots[:-1] <= places) & (places < knots[1:])).astype(np.float64)
    for degree in range(1, _DEGREE + 1):
        width = knots[degree:] - knots[:-degree]
        rise = (places - knots[: -degree - 1]) / width[:-1]
        fall = (knots[degree + 1 :] - places) / width[1:]
        basis = rise * basis[:, :-1] + fall * basis[:, 1:]
    return basis


class Spline(nn.Module):
    """A weight of 1 plus a smooth curve over the places, a curve a channel."""

    basis: Tensor

    def __init__(self, config: MTSpliceConfig) -> None:
        super().__init__()
        table = spline_basis(TISSUE_INTRON + TISSUE_EXON, config.bases)
        self.register_buffer("basis", torch.from_numpy(table).float(), persistent=False)
        self.kernel = nn.Parameter(torch.zeros(config.bases, config.channels))

    def forward(self, x: Tensor) -> Tensor:
        """Weigh (B, C, L)."""
        return x * (1 + self.basis @ self.kernel).T


class Arm(nn.Module):
    """One end of the exon: a convolution, dilated ones with residuals, a weight of places."""

    def __init__(self, config: MTSpliceConfig) -> None:
        super().__init__()
        size = config.channels
        self.first = nn.Conv1d(4, size, config.width, padding=config.width // 2)
        self.norms = nn.ModuleList(nn.BatchNorm1d(size, eps=_EPS) for _ in range(config.depth))
        self.convs = nn.ModuleList(
            nn.Conv1d(size, size, 3, dilation=2**power, padding=2**power)
            for power in range(1, 1 + config.depth)
        )
        self.spline = Spline(config)

    def forward(self, bases: Tensor) -> Tensor:
        """Turn (B, 400, 4) into (B, C, 400)."""
        x = functional.relu(self.first(bases.transpose(1, 2)))
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = x + functional.relu(conv(norm(x)))
        out: Tensor = self.spline(x)
        return out


class MTSplice(ExonPredictor):
    """How far the logit of PSI lies from its mean in each tissue."""

    parts: Mapping[str, int | None] = {
        "acceptor": TISSUE_INTRON + TISSUE_EXON,
        "donor": TISSUE_EXON + TISSUE_INTRON,
    }
    overhang = TISSUE_INTRON
    shortest = 2 * overhang

    def __init__(self, config: MTSpliceConfig) -> None:
        super().__init__()
        self.acceptor, self.donor = Arm(config), Arm(config)
        self.bn5 = nn.BatchNorm1d(config.channels, eps=_EPS)
        self.dense = nn.Linear(config.channels, config.hidden)
        self.bn6 = nn.BatchNorm1d(config.hidden, eps=_EPS)
        self.dense2 = nn.Linear(config.hidden, config.tissues)
        self._choose(config.tissues)

    def split(self, bases: Tensor) -> tuple[Tensor, ...]:
        """Cut both ends; of an exon below 100 bases they reach into the other intron."""
        size = TISSUE_INTRON + TISSUE_EXON
        return bases[:, :size], bases[:, bases.shape[1] - size :]

    def predict(self, *parts: Tensor) -> Tensor:
        """Give a number a tissue (B, T)."""
        left, right = self.acceptor(parts[0]), self.donor(parts[1])
        mean = torch.cat([left, right], dim=2).mean(dim=2)
        hidden = self.bn6(functional.relu(self.dense(self.bn5(mean))))
        out: Tensor = self.dense2(hidden)
        return out
