"""BPNet and ChromBPNet: profiles of 1,000 single bases from windows of 2,114.

After Avsec et al. (2021) and Pampari et al. (2024), in the layout of bpnet-lite. A track is the
profile's probabilities times exp of the predicted log counts, so that its sum is the counts (plus
the one that training adds before it takes the logarithm). Decisions: one softmax goes over both
strands of a stranded model, which is why a selection of tracks cuts the result and not the weights;
control tracks are taken for zero, as in scoring variants, and their weights are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from glm_annotate.errors import InputError
from glm_annotate.train.families.family import Family, Official, Source, Values, is_matrix_of
from glm_annotate.train.families.one_bin import TRACKS, Rows, card_of, stored, track_rows
from glm_annotate.train.families.predictor import Predicted, Predictor
from glm_annotate.train.official import Keys, build_config, fill, parse_config, rename

_LENGTH = 2114
_SCORES = ("LOGSED", "JSD")


class BpnetConfig(BaseModel):
    """The config's `[model]` table.

    Attributes:
        length: Bases of a window.
        filters: Channels.
        layers: Dilated residual layers, distance of taps 2, 4, 8, ...
        kernel: Taps of the first convolution; odd.
        profile_kernel: Taps of the last; odd.
        outputs: Tracks: 1, or 2 for the two strands.
        trimming: Bases cut off at each side; None: as far as the zeros past the edges reach.
        profile_bias: Whether the last convolution has a bias.
        count_bias: Whether the counts' layer has one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    length: int = Field(default=_LENGTH, ge=1)
    filters: int = Field(default=64, ge=1)
    layers: int = Field(default=8, ge=0, le=20)
    kernel: int = Field(default=21, ge=1)
    profile_kernel: int = Field(default=75, ge=1)
    outputs: int = Field(default=1, ge=1)
    trimming: int | None = Field(default=None, ge=0)
    profile_bias: bool = True
    count_bias: bool = True

    @model_validator(mode="after")
    def _check(self) -> BpnetConfig:
        if self.kernel % 2 == 0 or self.profile_kernel % 2 == 0:
            raise ValueError("kernels must be odd")
        if self.length <= 2 * self.cut:
            raise ValueError(f"length {self.length} must be more than twice {self.cut}, the edges")
        return self

    @property
    def cut(self) -> int:
        """Bases cut off at each side."""
        if self.trimming is not None:
            return self.trimming
        return self.kernel // 2 + self.profile_kernel // 2 + (2 << self.layers) - 2


class ChromBpnetConfig(BaseModel):
    """The config's `[model]` table: two networks of one window.

    Attributes:
        length: Bases of a window.
        filters: Channels of the accessibility network.
        layers: Its dilated layers.
        bias_filters: Channels of the network of the enzyme's bias.
        bias_layers: Its dilated layers; no more than the other's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    length: int = Field(default=_LENGTH, ge=1)
    filters: int = Field(default=512, ge=1)
    layers: int = Field(default=8, ge=0, le=20)
    bias_filters: int = Field(default=128, ge=1)
    bias_layers: int = Field(default=4, ge=0, le=20)


class _Profile(Predictor):
    """What both have: heads to tracks, and tracks cut out of the result."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs = {"tracks": TRACKS}
        self.kept: tuple[int, ...] | None = None

    def heads(self, bases: Tensor) -> tuple[Tensor, Tensor]:
        """Compute profile logits (B, tracks, bins) and counts (B, 1)."""
        raise NotImplementedError

    def forward(self, bases: Tensor, channels: Tensor | None = None) -> tuple[Tensor, ...]:
        """Predict tracks (B, bins, T)."""
        logits, counts = self.heads(bases)
        shares = torch.softmax(logits.flatten(1), dim=1).view_as(logits)
        tracks = (shares * counts[:, :, None]).transpose(1, 2)
        return (tracks if self.kept is None else tracks[:, :, list(self.kept)],)

    def select(self, tracks: Sequence[int]) -> None:
        """Return only these tracks; the softmax still needs the others."""
        before = self.kept
        self.kept = tuple(tracks if before is None else (before[i] for i in tracks))


class Bpnet(_Profile):
    """One network; submodules have bpnet-lite's names."""

    def __init__(self, config: BpnetConfig) -> None:
        super().__init__()
        self.length, self.cut = config.length, config.cut
        self.reach = config.profile_kernel // 2
        wide = config.filters
        self.iconv = nn.Conv1d(4, wide, config.kernel, padding=config.kernel // 2)
        self.rconvs = nn.ModuleList(
            nn.Conv1d(wide, wide, 3, dilation=2**i, padding=2**i)
            for i in range(1, config.layers + 1)
        )
        self.fconv = nn.Conv1d(
            wide,
            config.outputs,
            config.profile_kernel,
            padding=self.reach,
            bias=config.profile_bias,
        )
        self.linear = nn.Linear(wide, 1, bias=config.count_bias)

    def heads(self, bases: Tensor) -> tuple[Tensor, Tensor]:
        """Compute profile logits (B, outputs, bins) and counts (B, 1)."""
        x = torch.relu(self.iconv(bases.transpose(1, 2)))  # (B, filters, L)
        for conv in self.rconvs:
            x = x + torch.relu(conv(x))
        first, end = self.cut, x.shape[2] - self.cut
        logits = self.fconv(x)[:, :, first:end]
        # Counts see what the profile's convolution sees.
        seen = x[:, :, max(first - self.reach, 0) : end + self.reach]
        return logits, torch.exp(self.linear(seen.mean(2)))


class ChromBpnet(_Profile):
    """Accessibility and the enzyme's bias: logits add, and so do counts."""

    def __init__(self, bias: BpnetConfig, accessibility: BpnetConfig) -> None:
        super().__init__()
        self.length, self.cut = accessibility.length, accessibility.cut
        self.spare = accessibility.cut - bias.cut
        self.bias, self.accessibility = Bpnet(bias), Bpnet(accessibility)

    def heads(self, bases: Tensor) -> tuple[Tensor, Tensor]:
        """Compute profile logits (B, 1, bins) and counts (B, 1)."""
        logits, counts = self.accessibility.heads(bases)
        skewed, more = self.bias.heads(bases)
        # The bias network has fewer layers, so that its profile is longer.
        cut = skewed[:, :, self.spare : skewed.shape[2] - self.spare]
        return logits + cut, counts + more


def build_bpnet(values: Values) -> Bpnet:
    """Make a BPNet with fresh weights.

    Raises:
        InputError: A key or value of `[model]` is not allowed.
    """
    return Bpnet(build_config(BpnetConfig, values))


def build_chrombpnet(values: Values) -> ChromBpnet:
    """Make a ChromBPNet with fresh weights.

    Raises:
        InputError: A key or value of `[model]` is not allowed.
    """
    config = build_config(ChromBpnetConfig, values)
    sizes = ((config.bias_filters, config.bias_layers), (config.filters, config.layers))
    bias, accessibility = (
        build_config(BpnetConfig, {"length": config.length, "filters": x, "layers": y})
        for x, y in sizes
    )
    if bias.cut > accessibility.cut:
        raise InputError(
            f"model.bias_layers: found {config.bias_layers}, allowed are 0 to {config.layers}, the "
            "layers of the other network"
        )
    return ChromBpnet(bias, accessibility)


# Official checkpoints

_WRAPPED = Keys(rename=((r"module\.", ""),))
_KERAS = re.compile(
    r"(?:.*/)?(wo_bias_)?(?:bpnet_)?(1st_conv|\d+conv|prof_out_precrop|logcount_predictions)/"
    r"(kernel|bias)(?::0)?"
)
_LAYERS = {"1st_conv": "iconv", "prof_out_precrop": "fconv", "logcount_predictions": "linear"}
_NEEDED = ("iconv.weight", "fconv.weight", "linear.weight")


def from_keras(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give bpnet-lite's names and axes to weights of a Keras model of chrombpnet.

    Layers whose names say `wo_bias` are the accessibility network; names of others stay.
    """
    named: dict[str, Tensor] = {}
    for name, value in weights.items():
        match = _KERAS.fullmatch(name)
        if match is None:
            named[name] = value
            continue
        layer = _LAYERS.get(match[2])
        if layer is None:
            layer = f"rconvs.{int(match[2].removesuffix('conv')) - 1}"
        part = "weight" if match[3] == "kernel" else "bias"
        network = "accessibility" if match[1] else "bias"
        turned = value.permute(tuple(reversed(range(value.ndim))))
        named[f"{network}.{layer}.{part}"] = turned
    return named


def _named(source: Source) -> dict[str, Tensor]:
    """Give the weights bpnet-lite's names, below `bias.` and `accessibility.` if both are there."""
    weights = rename(source.weights, _WRAPPED)
    if not any(_KERAS.fullmatch(name) for name in weights):
        return weights
    weights = from_keras(weights)
    if len(weights) < len(source.weights):
        return {}  # several files, of which one would lie over the other
    parts = [part for part in ("bias.", "accessibility.") if f"{part}iconv.weight" in weights]
    if len(parts) == 1:
        weights = {name.removeprefix(parts[0]): value for name, value in weights.items()}
    return weights


def _has(names: Mapping[str, Tensor], prefix: str = "") -> bool:
    return {prefix + name for name in _NEEDED} <= names.keys()


def is_bpnet(source: Source) -> bool:
    """Tell whether a source is one network, of bpnet-lite or a Keras part of ChromBPNet."""
    return _has(_named(source)) and not is_unbiased(source)


def is_unbiased(source: Source) -> bool:
    """Tell whether a source is ChromBPNet's accessibility network alone, as Keras stores it."""
    marked = [match[1] for match in map(_KERAS.fullmatch, source.weights) if match is not None]
    return bool(marked) and all(marked) and _has(_named(source))


def is_chrombpnet(source: Source) -> bool:
    """Tell whether a source is both networks of ChromBPNet."""
    names = _named(source)
    return _has(names, "bias.") and _has(names, "accessibility.")


def load_bpnet(source: Source, context: int | None) -> Predicted:
    """Read one network; a config.json beside it may say `length`, `trimming` and `labels`.

    Raises:
        InputError: Weights are not those of the system.
    """
    named = replace(source, weights=_named(source))
    config, weights, controls = _part(named, "", context)
    network = Bpnet(config)
    fill(network, replace(named, weights=weights), Keys())
    limits = f"Its {controls} control tracks are taken for zero." if controls else ""
    return Predicted((network,), _card(config, limits), _tracks(source, config.outputs))


def load_chrombpnet(source: Source, context: int | None) -> Predicted:
    """Read both networks of ChromBPNet.

    Raises:
        InputError: Weights are not those of the system.
    """
    named = replace(source, weights=_named(source))
    bias, skewed, _ = _part(named, "bias.", context)
    config, weights, _ = _part(named, "accessibility.", context)
    if bias.outputs != config.outputs or bias.cut > config.cut:
        raise InputError(
            f"{source.name}: the bias network has {bias.outputs} tracks and cuts {bias.cut} bases, "
            f"the other {config.outputs} and {config.cut}; give the two parts of one model"
        )
    network = ChromBpnet(bias, config)
    known = {f"bias.{x}": y for x, y in skewed.items()}
    known |= {f"accessibility.{x}": y for x, y in weights.items()}
    parts = ("bias.", "accessibility.")
    rest = {x: y for x, y in named.weights.items() if not x.startswith(parts)}
    fill(network, replace(named, weights={**known, **rest}), Keys())
    return Predicted((network,), _card(config, ""), _tracks(source, config.outputs))


def _part(
    source: Source, prefix: str, context: int | None
) -> tuple[BpnetConfig, dict[str, Tensor], int]:
    """Read sizes and weights of one network, without its control tracks; tells how many."""
    first = stored(source, f"{prefix}iconv.weight", 3)
    last = stored(source, f"{prefix}fconv.weight", 3)
    counts = stored(source, f"{prefix}linear.weight", 2)
    filters = first.shape[0]
    weights = {
        name.removeprefix(prefix): value
        for name, value in source.weights.items()
        if name.startswith(prefix)
    }
    controls = max(last.shape[1] - filters, 0)
    if controls and counts.shape[1] == filters + 1:
        weights["fconv.weight"] = last[:, :filters]
        weights["linear.weight"] = counts[:, :filters]
    values: dict[str, object] = {
        "length": context or source.config.get("length", _LENGTH),
        "filters": filters,
        "layers": sum(bool(re.fullmatch(r"rconvs\.\d+\.weight", x)) for x in weights),
        "kernel": first.shape[2],
        "profile_kernel": last.shape[2],
        "outputs": last.shape[0],
        "profile_bias": "fconv.bias" in weights,
        "count_bias": "linear.bias" in weights,
        "trimming": source.config.get("trimming"),
    }
    return parse_config(BpnetConfig, source, values), weights, controls


def _card(config: BpnetConfig, limits: str) -> dict[str, object]:
    return card_of(
        config.length,
        bin_size=1,
        crop=config.cut,
        scores=_SCORES,
        provenance={"limits": limits} if limits else {},
    )


def _tracks(source: Source, count: int) -> Rows:
    """Name the tracks; two of them are the strands of one."""
    rows = track_rows(source, count, "counts")
    if count != 2:
        return rows
    named = rows if "labels" in source.config else _strands(rows)
    first, second = (row["identifier"] for row in named)
    return ({**named[0], "strand_pair": second}, {**named[1], "strand_pair": first})


def _strands(rows: Rows) -> Rows:
    return tuple(
        {**row, "identifier": name, "description": f"{name} strand"}
        for row, name in zip(rows, ("plus", "minus"), strict=True)
    )


def _official(
    variant: str,
    tag: str,
    recognise: Callable[[Source], bool],
    load: Callable[[Source, int | None], Predicted],
) -> Official:
    return Official(
        variant=variant,
        recognise=recognise,
        load=load,
        tag=tag,
        tokenizer="one-hot bases",
        code_licence="MIT",
        weights_licence="as their publisher says",
    )


BPNET = Family(
    name="bpnet",
    objective="tracks",
    build=build_bpnet,
    trunk=is_matrix_of("rconvs."),
    citation="Avsec et al., Nature Genetics 53 (2021) 354",
    title="BPNet",
    official=(_official("bpnet-lite", "BPNET", is_bpnet, load_bpnet),),
)
CHROMBPNET = Family(
    name="chrombpnet",
    objective="tracks",
    build=build_chrombpnet,
    trunk=is_matrix_of("accessibility.rconvs."),
    citation="Pampari et al., bioRxiv (2024) 2024.12.25.630221",
    title="ChromBPNet",
    official=(
        _official("with bias", "CHROMBPNET", is_chrombpnet, load_chrombpnet),
        _official("without bias", "CHROMBPNET", is_unbiased, load_bpnet),
    ),
)
