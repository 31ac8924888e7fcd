"""Pangolin: how often a base is a splice site, in four tissues.

After Zeng and Li (2022), written from the published description: SpliceAI's stack of units with
eight ends, of each tissue the probability that a base is a splice site and the part of transcripts
that use it. A published file was tuned for one of the eight and is good for that one alone, so
that a network of ours may hold several stacks, and each gives one track. Acceptors and donors are
not told apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

from glm_annotate.errors import InputError
from glm_annotate.train.families.family import Family, Official, Source, Values
from glm_annotate.train.families.predictor import Predicted, Predictor
from glm_annotate.train.families.spliceai import ENCODER, replicates, window_of
from glm_annotate.train.families.spliceai_blocks import DILATIONS, GROUP, SpliceAIConfig, Trunk
from glm_annotate.train.official import Keys, build_config, fill

_TISSUES = ("heart", "liver", "brain", "testis")
# The eight ends in the order of the files' numbers: of each tissue the site, then its usage.
ENDS = tuple((tissue, kind) for tissue in _TISSUES for kind in ("site", "usage"))
SCORES = tuple(f"{kind}_{what}" for kind in ("DS", "DP") for what in ("GAIN", "LOSS"))
_WIDTHS = (11, 11, 21, 41)  # of each group


class PangolinConfig(BaseModel):
    """The config's `[model]` table.

    Attributes:
        ends: Which of the eight ends each stack gives, one stack an entry; see `ENDS`. One entry
            of -1: one stack gives all eight.
        widths: Taps of the convolutions of each unit; odd.
        dilations: Of the same.
        channels: Width of a stack.
        group: Units between two skips.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ends: tuple[int, ...] = Field(default=(-1,), min_length=1)
    widths: tuple[int, ...] = tuple(width for width in _WIDTHS for _ in range(GROUP))
    dilations: tuple[int, ...] = tuple(x for x in DILATIONS for _ in range(GROUP))
    channels: int = Field(default=32, gt=0)
    group: int = Field(default=GROUP, gt=0)

    @field_validator("ends")
    @classmethod
    def _known(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if value != (-1,) and (min(value) < 0 or max(value) >= len(ENDS)):
            raise ValueError(f"ends must be 0 to {len(ENDS) - 1}, or -1 alone for all")
        return value

    def stack(self) -> SpliceAIConfig:
        """Say what a stack is."""
        sizes = {"widths": self.widths, "dilations": self.dilations, "channels": self.channels}
        return build_config(SpliceAIConfig, {**sizes, "group": self.group, "eps": 1e-5})


class Stack(nn.Module):
    """Units with eight ends, of which `ends` are given."""

    def __init__(self, config: SpliceAIConfig, ends: Sequence[int]) -> None:
        super().__init__()
        self.trunk, self.ends = Trunk(config), list(ends)
        # Two classes for a site, one number for its usage.
        self.heads = nn.ModuleDict(
            {
                f"conv_last{number}": nn.Conv1d(config.channels, 2 if number % 2 else 1, 1)
                for number in range(1, 1 + len(ENDS))
            }
        )

    def forward(self, bases: Tensor) -> Tensor:
        """Give the ends (B, E, L - 2 crop) for bases (B, L, 4)."""
        features = self.trunk(bases)
        return torch.cat([self._end(features, end) for end in self.ends], dim=1)

    def _end(self, features: Tensor, end: int) -> Tensor:
        found: Tensor = self.heads[f"conv_last{end + 1}"](features)
        if end % 2:
            return torch.sigmoid(found)
        return torch.softmax(found, dim=1)[:, 1:]


class Pangolin(Predictor):
    """Stacks side by side, a track for each of their ends."""

    outputs: Mapping[str, tuple[str, ...]] = {"tracks": ("batch", "bin", "track")}

    def __init__(self, config: PangolinConfig) -> None:
        super().__init__()
        every = [list(range(len(ENDS)))] if config.ends == (-1,) else [[x] for x in config.ends]
        self.stacks = nn.ModuleList(Stack(config.stack(), ends) for ends in every)
        self.shortest = 2 * self.crop + 1

    @property
    def crop(self) -> int:
        """Bases that are cut off at each side."""
        (crop,) = {stack.trunk.crop for stack in self._stacks()}
        return int(crop)

    @property
    def ends(self) -> list[int]:
        """The tracks, as numbers of `ENDS`."""
        return [end for stack in self._stacks() for end in stack.ends]

    def forward(self, bases: Tensor, channels: Tensor | None = None) -> tuple[Tensor, ...]:
        """Give tracks (B, L - 2 crop, T) for bases (B, L, 4)."""
        return (torch.cat([stack(bases) for stack in self.stacks], dim=1).transpose(1, 2),)

    def select(self, tracks: Sequence[int]) -> None:
        """Keep these tracks, and the stacks and heads that make them.

        Raises:
            InputError: Stacks would have to take turns.
        """
        places = [(stack, end) for stack in self._stacks() for end in stack.ends]
        chosen: list[tuple[Stack, list[int]]] = []
        for stack, end in (places[track] for track in tracks):
            if not chosen or chosen[-1][0] is not stack:
                chosen.append((stack, []))
            chosen[-1][1].append(end)
        stacks = [stack for stack, _ in chosen]
        if len({id(stack) for stack in stacks}) != len(stacks):
            raise InputError("tracks of one stack of Pangolin must stand side by side")
        for stack, ends in chosen:
            stack.ends = ends
            for name in set(stack.heads) - {f"conv_last{end + 1}" for end in ends}:
                del stack.heads[name]
        self.stacks = nn.ModuleList(stacks)

    def _stacks(self) -> list[Stack]:
        return [stack for stack in self.stacks if isinstance(stack, Stack)]


def build(values: Values) -> Pangolin:
    """Make a network from the config's `[model]` table.

    Raises:
        InputError: A key or value is not allowed.
    """
    return Pangolin(build_config(PangolinConfig, values))


# Official checkpoints


def _renames(units: int) -> tuple[tuple[str, str], ...]:
    """Give the authors' names ours: skips stand between the units here."""
    pairs = [("conv1\\.", "trunk.initial_conv."), ("skip\\.", "trunk.initial_skip.conv.")]
    for number in range(units):
        place = f"trunk.residual_units.{number + number // GROUP}."
        pairs += [(rf"resblocks\.{number}\.bn", f"{place}batchnorm")]
        pairs += [(rf"resblocks\.{number}\.", place)]
    for group in range(-(-units // GROUP)):
        place = f"trunk.residual_units.{(GROUP + 1) * group + GROUP}.conv."
        pairs += [(rf"convs\.{group}\.", place)]
    return (*pairs, ("conv_last", "heads.conv_last"))


def _stacks_of(source: Source) -> dict[int, Mapping[str, Tensor]]:
    """Take apart what holds several stacks: keys that begin with `end0/`, `end2/`, ..."""
    stacks: dict[int, dict[str, Tensor]] = {}
    for key, value in source.weights.items():
        match = re.match(r"end(\d)/", key)
        end = int(match[1]) if match else -1
        stacks.setdefault(end, {})[key[match.end() :] if match else key] = value
    return {end: stacks[end] for end in sorted(stacks)}


def _network(source: Source) -> Pangolin:
    stacks = _stacks_of(source)
    if len(stacks) > 1 and -1 in stacks:
        raise InputError(f"{source.name}: files of one end beside others; fetch them again")
    first = next(iter(stacks.values()))
    units = sum(bool(re.fullmatch(r"resblocks\.\d+\.conv1\.weight", key)) for key in first)
    if units != len(_WIDTHS) * GROUP:
        raise InputError(
            f"{source.name}: {units} units, wanted {len(_WIDTHS) * GROUP}; fetch the file again"
        )
    channels = len(first["conv1.weight"])
    values: dict[str, Any] = {"ends": tuple(stacks), "channels": channels}
    network = Pangolin(build_config(PangolinConfig, values))
    for stack, weights in zip(network.stacks, stacks.values(), strict=True):
        part = Source(source.name, weights, source.config, files=source.files)
        fill(stack, part, Keys(rename=_renames(units)))
    return network.eval()


def _load(source: Source, context: int | None) -> Predicted:
    networks = [_network(part) for part in replicates(source)]
    first = networks[0]
    if any(network.ends != first.ends for network in networks):
        raise InputError(f"{source.name}: the replicates are not of the same ends; give whole sets")
    card = {
        "encoder": ENCODER,
        **window_of(source, first.crop, context),
        "bin_size": 1,
        "crop": first.crop,
        # Pangolin reads the gene's strand and does not hide what lies outside the gene.
        "frame": "variant",
        "strand": "gene",
        "scores": SCORES,
    }
    return Predicted(tuple(networks), card, tuple(_row(*ENDS[end]) for end in first.ends))


def _row(tissue: str, kind: str) -> dict[str, str]:
    what = "probability of a splice site" if kind == "site" else "part of transcripts that use it"
    return {
        "identifier": f"{tissue}_{kind}",
        "description": f"{what}, {tissue}",
        "assay": "splice",
        "biosample": tissue,
        "units": "probability" if kind == "site" else "fraction",
        # Both tell how strong a site is. A file of all ends has both, of which users may choose.
        "role": "usage",
        "transform": "none",
    }


def _recognise(source: Source) -> bool:
    wanted = {"skip.weight", "resblocks.0.bn1.weight", "convs.0.weight", "conv_last8.weight"}
    stacks = [stack for part in replicates(source) for stack in _stacks_of(part).values()]
    return bool(stacks) and all(wanted <= stack.keys() for stack in stacks)


def is_trunk(name: str, weight: Tensor) -> bool:
    """Tell the parameters that Muon may update: the taps of the stacks."""
    return ".trunk.residual_units." in name and weight.ndim == 3


FAMILY = Family(
    name="pangolin",
    objective="tracks",
    build=build,
    trunk=is_trunk,
    citation="Zeng T., Li Y.I. (2022) Predicting RNA splicing from DNA sequence using Pangolin. "
    "Genome Biology 23, 103. doi:10.1186/s13059-022-02664-4",
    title="Pangolin",
    official=(
        Official(
            variant="Pangolin",
            recognise=_recognise,
            load=_load,
            tag="PANGOLIN",
            tokenizer="one-hot bases",
            code_licence="GPL-3.0",
            weights_licence="GPL-3.0",
        ),
    ),
)
