"""SATORI: a convolution, an optional LSTM, self-attention between motifs, then one sum a window.

After Ullah and Ben-Hur (2021); what is computed follows their code (MIT). It lets the windows of a
batch touch each other: its LSTM takes the batch for the time, and its readout is normalised over
the whole batch. `published` is what it computes for a batch of one window, so that scores of users'
checkpoints do not depend on their neighbours; `fixed`, for training, recurs over the window.
Without an LSTM the two differ only where every feature is 0: `fixed` then gives a number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from glm_annotate.errors import InputError
from glm_annotate.train.families.family import Family, Official, Source, Values, is_matrix_of
from glm_annotate.train.families.one_bin import (
    OneBin,
    keep_rows,
    predicted_whole,
    recur,
    stored,
)
from glm_annotate.train.families.predictor import Predicted
from glm_annotate.train.layers import merge_heads, split_heads
from glm_annotate.train.official import Keys, build_config, fill, parse_config, rename

_LENGTH = 600  # bases of a window in the authors' promoter data
_POOL = 6
_LEAST_VARIANCE = 1e-12
_DROP_CONV, _DROP_LSTM, _DROP_MAPS = 0.2, 0.4, 0.2


class SatoriConfig(BaseModel):
    """The config's `[model]` table.

    Attributes:
        compat: `fixed` recurs over the window; `published` is the authors' code for one window.
        length: Bases of a window.
        filters: Channels of the convolution.
        kernel: Its taps.
        padding: Zeros at each end of the window.
        pool: Rows that become one; 1: none.
        activation: After the convolution.
        hidden: Width of each direction of the LSTM; 0: there is none.
        heads: Heads of the attention.
        head_dim: Width of a head.
        dim: Width of the layer that joins heads.
        tracks: Classes.
        exclusive: Whether a window belongs to one class: softmax, else a sigmoid each.
        attention: Whether maps are an output too, (B, 1, heads, T, T).
        unknown: What an N is in each channel: the mean of the random base that the authors take.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    compat: Literal["published", "fixed"] = "fixed"
    length: int = Field(default=_LENGTH, ge=1)
    filters: int = Field(default=200, ge=1)
    kernel: int = Field(default=13, ge=1)
    padding: int = Field(default=6, ge=0)
    pool: int = Field(default=_POOL, ge=1)
    activation: Literal["relu", "exp"] = "relu"
    hidden: int = Field(default=100, ge=0)
    heads: int = Field(default=8, ge=1)
    head_dim: int = Field(default=32, ge=1)
    dim: int = Field(default=100, ge=2)
    tracks: int = Field(default=2, ge=1)
    exclusive: bool = False
    attention: bool = False
    unknown: float = Field(default=0.25, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> SatoriConfig:
        if (self.length + 2 * self.padding - self.kernel + 1) // self.pool < 1:
            raise ValueError(f"no row is left of {self.length} bases")
        return self


class Satori(OneBin):
    """The network; submodules have the names of the authors' checkpoints."""

    has_attention = True

    def __init__(self, config: SatoriConfig) -> None:
        super().__init__()
        self.length, self.unknown = config.length, config.unknown
        self.heads, self.pool, self.exp = config.heads, config.pool, config.activation == "exp"
        self.alone, self.exclusive = config.compat == "published", config.exclusive
        if config.attention:
            self.give_maps()
        conv = nn.Conv1d(4, config.filters, config.kernel, padding=config.padding, bias=False)
        self.layer1 = nn.Sequential(conv, nn.BatchNorm1d(config.filters))
        wide = config.filters
        if config.hidden:
            self.RNN = nn.LSTM(
                wide, config.hidden, num_layers=2, bidirectional=True, batch_first=True
            )
            wide = 2 * config.hidden
        self.recurrent = config.hidden > 0
        self.Q, self.K, self.V = (
            nn.ModuleList(nn.Linear(wide, config.head_dim) for _ in range(config.heads))
            for _ in range(3)
        )
        self.MultiHeadLinear = nn.Linear(config.heads * config.head_dim, config.dim)
        self.fc3 = nn.Linear(config.dim, config.tracks)
        self.drop_conv, self.drop_lstm = nn.Dropout(_DROP_CONV), nn.Dropout(_DROP_LSTM)
        self.drop_maps = nn.Dropout(_DROP_MAPS)

    def logits(self, bases: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits (B, tracks) and attention maps (B, heads, T, T)."""
        x = self.layer1(bases.transpose(1, 2))
        x = torch.exp(x) if self.exp else torch.relu(x)
        if self.pool > 1:
            x = nn.functional.max_pool1d(x, self.pool)
        rows = self.drop_conv(x).transpose(1, 2)  # (B, T, filters)
        if self.recurrent:
            rows = self.drop_lstm(recur(self.RNN, rows, alone=self.alone))
        query, key, value = (self._project(part, rows) for part in (self.Q, self.K, self.V))
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        maps = self.drop_maps(torch.softmax(scores, dim=-1))
        joined = merge_heads(torch.relu(maps @ value))
        summed = torch.relu(self.MultiHeadLinear(joined)).sum(1)  # (B, dim)
        middle = summed - summed.mean(1, keepdim=True)
        variance = middle.square().sum(1, keepdim=True) / (summed.shape[1] - 1)
        if not self.alone:
            # The authors' code stops where no feature is above 0; a training run must not.
            variance = variance.clamp(min=_LEAST_VARIANCE)
        return self.fc3(middle / variance.sqrt()), maps

    def _project(self, parts: nn.ModuleList, rows: Tensor) -> Tensor:
        """Apply a layer a head: (B, heads, T, head_dim)."""
        weight = torch.cat([part.weight for part in parts])  # type: ignore[misc]
        bias = torch.cat([part.bias for part in parts])  # type: ignore[misc]
        return split_heads(nn.functional.linear(rows, weight, bias), self.heads)

    def forward(self, bases: Tensor, channels: Tensor | None = None) -> tuple[Tensor, ...]:
        """Predict tracks (B, 1, T), and the maps where they are an output."""
        logits, maps = self.logits(bases)
        tracks = torch.softmax(logits, dim=1) if self.exclusive else torch.sigmoid(logits)
        found = (tracks[:, None], maps[:, None])
        return found[: len(self.outputs)]

    def give_maps(self) -> None:
        """Give attention maps as the last output, (B, 1, heads, T, T)."""
        axes = ("batch", "layer", "head", "query", "key")
        self.outputs = {**self.outputs, "attention": axes}

    def select(self, tracks: Sequence[int]) -> None:
        """Keep only these tracks.

        Raises:
            InputError: The classes exclude each other: each needs the others' weights.
        """
        if self.exclusive and list(tracks) != list(range(self.fc3.out_features)):
            raise InputError(
                "tracks: these classes exclude each other, their probabilities need all of them; "
                "leave the selection out"
            )
        self.fc3 = keep_rows(self.fc3, tracks)


def build(values: Values) -> Satori:
    """Make a network with fresh weights.

    Raises:
        InputError: A key or value of `[model]` is not allowed.
    """
    return Satori(build_config(SatoriConfig, values))


# Official checkpoints

_KEYS = Keys(rename=((r"module\.", ""),))
# What the authors' table of hyper-parameters says and the weights do not.
_FIXED = {
    "use_CNN": "True", "use_posEnc": "False", "use_pooling": "False", "use_embeddings": "False",
    "readout_strategy": "normalize",
}  # fmt: skip


def is_satori(source: Source) -> bool:
    """Tell whether a source has the keys of the authors' class."""
    names = rename(source.weights, _KEYS).keys()
    return {"layer1.0.weight", "Q.0.weight", "MultiHeadLinear.weight", "fc3.weight"} <= names


def recognise(compat: str, source: Source) -> bool:
    """Tell whether a source is a checkpoint to be read in this form (`published` by itself)."""
    return is_satori(source) and source.config.get("compat", "published") == compat


def load(source: Source, context: int | None) -> Predicted:
    """Read a checkpoint of the authors' code.

    A config.json beside it may say `compat`, `length`, `exclusive`, `attention` and `labels`; a
    table of the authors' hyper-parameters (`*hyperParams*.txt`) is read where there is one.

    Raises:
        InputError: Weights, table or config are not those of the system.
    """
    named = replace(source, weights=rename(source.weights, _KEYS))
    table = _table(source)
    config = _config(named, table, context)
    network = Satori(config)
    fill(network, named, Keys())
    facts = {"limits": _limits(config)}
    return predicted_whole(
        source, network, length=config.length, tracks=config.tracks, provenance=facts
    )


def _limits(config: SatoriConfig) -> str:
    if config.compat == "fixed" or not config.hidden:
        return ""
    return (
        "The authors' LSTM takes the batch for the time. Scores are those of windows given one by "
        "one: no row of a window knows of another through the LSTM."
    )


def _config(source: Source, table: Mapping[str, str], context: int | None) -> SatoriConfig:
    conv = stored(source, "layer1.0.weight", 3)
    query = stored(source, "Q.0.weight", 2)
    classes = stored(source, "fc3.weight", 2).shape[0]
    recurrent = source.weights.get("RNN.weight_hh_l0")
    values: dict[str, object] = {
        "compat": source.config.get("compat", "published"),
        "length": context or source.config.get("length", _LENGTH),
        "filters": conv.shape[0],
        "kernel": conv.shape[2],
        "padding": _number(source, table, "CNN_padding", conv.shape[2] // 2),
        "pool": _number(source, table, "CNN_poolsize", _POOL),
        "hidden": 0 if recurrent is None else recurrent.shape[-1],
        "heads": sum(bool(re.fullmatch(r"Q\.\d+\.weight", x)) for x in source.weights),
        "head_dim": query.shape[0],
        "dim": stored(source, "MultiHeadLinear.weight", 2).shape[0],
        "tracks": classes,
        # Their loss is cross entropy for two labels, binary cross entropy for more.
        "exclusive": source.config.get("exclusive", classes == 2),
        "attention": source.config.get("attention", False),
    }
    if table.get("use_CNNpool") == "False":
        values["pool"] = 1
    if table.get("CNN1_useexponential") == "True":
        values["activation"] = "exp"
    return parse_config(SatoriConfig, source, values)


def _number(source: Source, table: Mapping[str, str], name: str, default: int) -> int:
    text = table.get(name, str(default))
    if not text.isdecimal():
        raise InputError(
            f"{source.name}: hyper-parameters: {name} is {text}, wanted a number; give the table "
            "that the model was trained with"
        )
    return int(text)


def _table(source: Source) -> dict[str, str]:
    """Read `name|value|#comment` lines, where there is one such file beside the weights."""
    found = _tables(source.folder)
    if not found:
        return {}
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InputError(f"{source.name}: hyper-parameters in {names}; keep the model's own")
    values: dict[str, str] = {}
    for line in found[0].read_text(encoding="utf-8", errors="replace").splitlines():
        parts = line.split("|")
        if len(parts) > 1:
            values[parts[0].strip()] = parts[1].strip()
    for name, wanted in _FIXED.items():
        if values.get(name, wanted) != wanted:
            raise InputError(
                f"{found[0]}: {name} is {values[name]}, only {wanted} can be read; train that "
                "model again without it"
            )
    return values


def _tables(folder: Path | None) -> list[Path]:
    return sorted(folder.glob("*hyperParams*.txt")) if folder is not None else []


def _official(compat: Literal["published", "fixed"]) -> Official:
    return Official(
        variant=compat,
        recognise=partial(recognise, compat),
        load=load,
        tag="SATORI",
        tokenizer="one-hot bases",
        code_licence="MIT",
        weights_licence="none published",
    )


FAMILY = Family(
    name="satori",
    objective="tracks",
    build=build,
    trunk=is_matrix_of("MultiHeadLinear."),
    citation="Ullah and Ben-Hur, Nucleic Acids Research 49 (2021) e77",
    title="SATORI",
    official=(_official("published"), _official("fixed")),
)
