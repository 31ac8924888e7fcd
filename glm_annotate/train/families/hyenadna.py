"""HyenaDNA: gated convolutions as long as the window, over single bases, predicting the next.

After Nguyen et al. (2023), written from the published description. The taps of a convolution are
the output of a small network over position (the implicit filter), the same for every window, so
that a network that only scores has them worked out once (`HyenaDna.materialise`); one that is
trained works them out in every pass. There is no attention and nothing that marks padding.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from glm_annotate.errors import InputError
from glm_annotate.train.families.family import (
    Family,
    Loaded,
    Network,
    Official,
    Release,
    Source,
    Values,
)
from glm_annotate.train.long_convolution import LongConvolution, convolve_by_fft
from glm_annotate.train.official import Keys, build_config, fill, parse_config, rename

# Decay of the slowest and the fastest channel at the end of the longest window, as the authors'
# code has them: exp(-t |delta|) reaches 1 % at t = 1.5 and t = 0.3; the shift keeps taps above 0.
_SLOW, _FAST, _TARGET, _SHIFT = 1.5, 0.3, 0.01, 0.05
_SHORT = 3  # taps of the convolution before the gates
_CONTEXT = 8192  # default window: what a CPU scores in seconds
_TOKENS = 12  # [CLS] [SEP] [BOS] [MASK] [PAD] [RESERVED] [UNK] A C G T N; more rows are padding


class HyenaDnaConfig(BaseModel):
    """The config's `[model]` table.

    Attributes:
        vocabulary: Token ids, rows that only pad the table included.
        dim: Width of the residual stream.
        layers: Blocks.
        hidden: Width of the feed-forward layer.
        max_rows: Longest window: positions that the implicit filters were trained on.
        features: Numbers that tell a filter its position: time, and pairs of cosine and sine; odd.
        filter_width: Width of the implicit filter.
        filter_layers: Hidden layers of the implicit filter after the first.
        frequency: Of its sines, at the start.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: int = Field(default=16, gt=0)
    dim: int = Field(gt=0)
    layers: int = Field(gt=0)
    hidden: int = Field(gt=0)
    max_rows: int = Field(ge=3)
    features: int = Field(default=5, ge=3)
    filter_width: int = Field(default=64, gt=0)
    filter_layers: int = Field(default=2, ge=0)
    frequency: float = Field(default=10.0, gt=0)

    @field_validator("features")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("features must be odd: time, and pairs of cosine and sine")
        return value


class Sine(nn.Module):
    """sin(frequency x), with a frequency for each of the filter's units."""

    def __init__(self, width: int, frequency: float) -> None:
        super().__init__()
        self.freq = nn.Parameter(torch.full((1, width), frequency))

    def forward(self, x: Tensor) -> Tensor:
        """Apply to (..., width)."""
        return torch.sin(self.freq * x)


class Positions(nn.Module):
    """What a filter is told of position: features z (1, L, F) and time t (1, L, 1) in 0 .. 1.

    Checkpoints hold both, and z may have been trained.
    """

    z: Tensor
    t: Tensor

    def __init__(self, rows: int, features: int) -> None:
        super().__init__()
        bands = (features - 1) // 2
        time = torch.linspace(0, 1, rows)[:, None]
        turn = 2 * math.pi * torch.arange(rows)[:, None] / rows
        angle = torch.linspace(1e-4, bands - 1, bands) * turn
        self.register_buffer("z", torch.cat([time, angle.cos(), -angle.sin()], dim=1)[None])
        self.register_buffer("t", time[None])


class Modulation(nn.Module):
    """Decay of the taps with distance, each channel with its own rate."""

    deltas: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        slow, fast = math.log(_TARGET) / _SLOW, math.log(_TARGET) / _FAST
        self.register_buffer("deltas", torch.linspace(slow, fast, dim)[None, None])

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Damp taps (1, L, D) by time t (1, L, 1)."""
        return x * (torch.exp(-t * self.deltas.abs()) + _SHIFT)


class ImplicitFilter(nn.Module):
    """The network over position whose output are the taps of one block."""

    def __init__(self, config: HyenaDnaConfig) -> None:
        super().__init__()
        width, sine = config.filter_width, Sine(config.filter_width, config.frequency)
        parts: list[nn.Module] = [nn.Linear(config.features, width), sine]
        for _ in range(config.filter_layers):
            parts += [nn.Linear(width, width), sine]
        self.bias = nn.Parameter(torch.randn(config.dim))
        self.pos_emb = Positions(config.max_rows, config.features)
        self.implicit_filter = nn.Sequential(*parts, nn.Linear(width, config.dim, bias=False))
        self.modulation = Modulation(config.dim)

    def taps(self, rows: int) -> Tensor:
        """Work out the first `rows` taps, shape (D, rows); tap 0 weighs the current position."""
        z, t = self.pos_emb.z[:, :rows], self.pos_emb.t[:, :rows]
        out: Tensor = self.modulation(self.implicit_filter(z), t)
        return out[0].T


class Operator(nn.Module):
    """Hyena of order 2: y = x0 * (taps convolved with (x1 * v) + bias * x1 * v)."""

    def __init__(self, config: HyenaDnaConfig) -> None:
        super().__init__()
        dim = config.dim
        self.in_proj = nn.Linear(dim, 3 * dim)
        self.short_filter = nn.Conv1d(3 * dim, 3 * dim, _SHORT, groups=3 * dim)
        self.filter_fn = ImplicitFilter(config)
        self.out_proj = nn.Linear(dim, dim)
        self.long: LongConvolution | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Mix rows (B, T, D) with those before them."""
        x = functional.pad(self.in_proj(x).transpose(1, 2), (_SHORT - 1, 0))
        gate, key, value = self.short_filter(x).chunk(3, dim=1)  # (B, D, T) each
        value = value * key
        if self.long is not None:
            mixed = self.long(value)
        else:
            mixed = convolve_by_fft(value, self.filter_fn.taps(value.shape[-1]))
        mixed = mixed + self.filter_fn.bias[:, None] * value
        out: Tensor = self.out_proj((mixed * gate).transpose(1, 2))
        return out


class Block(nn.Module):
    """Operator, then feed-forward, each with a norm before and a residual around it."""

    def __init__(self, config: HyenaDnaConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(config.dim), nn.LayerNorm(config.dim)
        self.mixer = Operator(config)
        wide, narrow = nn.Linear(config.dim, config.hidden), nn.Linear(config.hidden, config.dim)
        self.mlp = nn.ModuleDict({"fc1": wide, "fc2": narrow})

    def forward(self, x: Tensor) -> Tensor:
        """Update rows (B, T, D)."""
        x = x + self.mixer(self.norm1(x))
        hidden = functional.gelu(self.mlp["fc1"](self.norm2(x)), approximate="tanh")
        out: Tensor = x + self.mlp["fc2"](hidden)
        return out


class Backbone(nn.Module):
    """Embeddings, blocks and the final norm, with the names of the checkpoints."""

    def __init__(self, config: HyenaDnaConfig) -> None:
        super().__init__()
        words = nn.Embedding(config.vocabulary, config.dim)
        self.embeddings = nn.ModuleDict({"word_embeddings": words})
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.ln_f = nn.LayerNorm(config.dim)

    def forward(self, rows: Tensor) -> Tensor:
        """Turn ids (B, T) into rows (B, T, D)."""
        x = self.embeddings["word_embeddings"](rows)
        for block in self.layers:
            x = block(x)
        out: Tensor = self.ln_f(x)
        return out


class HyenaDna(Network):
    """The network: ids (B, T) to logits (B, T, V) of the next base and embeddings (B, T, D)."""

    def __init__(self, config: HyenaDnaConfig) -> None:
        super().__init__()
        self.config = config
        self.dim, self.vocabulary, self.max_rows = config.dim, config.vocabulary, config.max_rows
        self.backbone = Backbone(config)
        self.lm_head = nn.Linear(config.dim, config.vocabulary, bias=False)

    @torch.no_grad()
    def materialise(self, window: int) -> None:
        """Fix the filters as they are now, for windows of up to `window` rows: graphs need this."""
        for part in self.modules():
            if isinstance(part, Operator):
                # In float32, as the authors do: sine upon sine of 10 x makes of its rounding what
                # float64 would differ from the model as published, by 1e-4 of the logits.
                part.long = LongConvolution(part.filter_fn.taps(window), window)
        self.max_rows = window

    def embed(self, rows: Tensor) -> Tensor:
        """Return the last layer after the final norm, shape (B, T, D), for ids (B, T)."""
        out: Tensor = self.backbone(rows)
        return out

    def decode(self, embedding: Tensor) -> Tensor:
        """Turn embeddings (B, T, D) into logits (B, T, V)."""
        logits: Tensor = self.lm_head(embedding)
        return logits


def build(values: Values) -> HyenaDna:
    """Make a network with fresh weights.

    Raises:
        InputError: A key or value of `[model]` is not allowed.
    """
    return HyenaDna(build_config(HyenaDnaConfig, values))


def is_trunk(name: str, weight: Tensor) -> bool:
    """Tell matrices of the blocks from the rest; those of the implicit filters are of the rest."""
    return name.startswith("backbone.layers.") and ".filter_fn." not in name and weight.ndim == 2


# Official checkpoints.

_WORDS = "backbone.embeddings.word_embeddings.weight"
_BLOCK = r"backbone\.layers\.\d+\."
_FILTER = "backbone.layers.0.mixer.filter_fn."
_HF = Keys(rename=((r"hyena\.", ""),))
# Training with gradient checkpointing wraps mixer and mlp; Lightning keeps a count of tokens; the
# head is the table of embeddings, where transformers' files have a head of their own.
_LIGHTNING = Keys(
    rename=((r"model\.", ""), (rf"({_BLOCK}(?:mixer|mlp))\.layer\.", r"\1.")),
    ignore=(r"(?:train|val|test)_torchmetrics\..*",),
    ties=((r"lm_head\.weight", _WORDS),),
)


def recognise_hf(source: Source) -> bool:
    """Tell a checkpoint of the authors' code for transformers."""
    return f"hyena.{_FILTER}pos_emb.z" in source.weights


def recognise_lightning(source: Source) -> bool:
    """Tell a checkpoint of the authors' training code."""
    place = "model.backbone.layers.0.mixer.{}filter_fn.pos_emb.z"
    return any(place.format(infix) in source.weights for infix in ("", "layer."))


def load(source: Source, context: int | None) -> Loaded:
    """Read either layout, with filters for a window of `context` bases.

    Raises:
        InputError: The source is not what it should be, or the window is longer than its filters.
    """
    keys = _HF if recognise_hf(source) else _LIGHTNING
    weights = rename(source.weights, keys)
    config = _sizes(source, weights)
    _compare(source, config)
    window = context or min(config.max_rows - 2, _CONTEXT)
    if window > config.max_rows:
        raise InputError(
            f"{source.name}: --context {window}: allowed are 1 to {config.max_rows} bases, where "
            "its filters end"
        )
    network = HyenaDna(config)
    _share_frequencies(source, weights, config)
    fill(network, replace(source, weights=weights), Keys(ties=keys.ties))
    network.materialise(window)
    return Loaded(network, _card(source, window))


def _sizes(source: Source, weights: Mapping[str, Tensor]) -> HyenaDnaConfig:
    """Read the sizes off the weights: `weights.ckpt` may come without a config."""

    def count(pattern: str) -> int:
        return sum(re.fullmatch(pattern, name) is not None for name in weights)

    linear = f"{_FILTER}implicit_filter."
    names = (_WORDS, "backbone.layers.0.mlp.fc1.weight", f"{_FILTER}pos_emb.z", f"{linear}0.weight")
    for name, axes in zip(names, (2, 2, 3, 2), strict=True):
        if name not in weights or weights[name].ndim != axes:
            raise InputError(f"{source.name}: no weights for {name}; fetch the checkpoint again")
    words, wide, z, first = (weights[name].shape for name in names)
    values = {"vocabulary": words[0], "dim": words[1], "hidden": wide[0], "max_rows": z[1]}
    values |= {"features": z[2], "filter_width": first[0]}
    values["layers"] = count(rf"{_BLOCK}norm1\.weight")
    values["filter_layers"] = count(rf"{re.escape(linear)}\d+\.weight") - 2
    return parse_config(HyenaDnaConfig, source, values)


def _compare(source: Source, config: HyenaDnaConfig) -> None:
    """Refuse a config that says something else than the weights, or that is not HyenaDNA."""
    layer = source.config.get("layer")
    stated = {**source.config, **(layer if isinstance(layer, Mapping) else {})}
    wanted: dict[str, Any] = dict.fromkeys(("max_seq_len", "l_max"), config.max_rows)
    wanted |= dict.fromkeys(("hyena_order", "order"), 2)
    wanted |= {"d_model": config.dim, "d_inner": config.hidden, "n_layer": config.layers}
    wanted |= {"emb_dim": config.features, "filter_order": config.filter_width}
    wanted |= {"num_inner_mlps": config.filter_layers, "vocab_size": _TOKENS}
    wanted |= {"layer_norm_epsilon": 1e-5, "modulate": True}
    for key, value in wanted.items():
        if stated.get(key) not in (None, value):
            raise InputError(
                f"{source.name}: config: {key} is {stated[key]!r}, wanted {value!r} by weights and "
                "architecture; fetch config and weights of one checkpoint"
            )


def _share_frequencies(source: Source, weights: dict[str, Tensor], config: HyenaDnaConfig) -> None:
    """Give each sine of a filter its frequency: they share one, which a file may hold once."""
    for block in range(config.layers):
        place = f"backbone.layers.{block}.mixer.filter_fn.implicit_filter."
        names = [f"{place}{1 + 2 * part}.freq" for part in range(config.filter_layers + 1)]
        found = [weights[name] for name in names if name in weights]
        if any(not torch.equal(other, found[0]) for other in found[1:]):
            raise InputError(f"{source.name}: {place}*.freq differ; fetch the checkpoint again")
        weights.update(dict.fromkeys(names, found[0]) if found else {})


def _card(source: Source, window: int) -> dict[str, Any]:
    ids = {"first_id": 7, "single_ids": {"N": 11}, "pad_id": 4, "unk_id": 6, "mask_id": 3}
    card: dict[str, Any] = {
        "encoder": {"kind": "kmer", "k": 1, "stride": 1, "vocab": {"order": "ACGT", **ids}},
        "context": window,
        "anchor": window // 2,
        "logits_shift": 1,
        "strand": "both",
        "scores": ("LLR", "EMB_COS"),
    }
    if source.repository.startswith("LongSafari/hyenadna-"):
        human = {"species": "Homo sapiens", "assembly": "hg38"}
        card["provenance"] = {"training_data": "human reference genome", **human}
    return card


# What the repositories call their windows, and the bases of them.
_WINDOWS = (
    ("tiny-1k-seqlen", 1024), ("tiny-1k-seqlen-d256", 1024), ("tiny-16k-seqlen-d128", 16384),
    ("small-32k-seqlen", 32768), ("medium-160k-seqlen", 160_000),
    ("medium-450k-seqlen", 450_000), ("large-1m-seqlen", 1_000_000),
)  # fmt: skip


def _official(variant: str, recognise: Callable[[Source], bool], suffix: str) -> Official:
    names = [(f"hyenadna-{name}{suffix}", context) for name, context in _WINDOWS]
    return Official(
        variant=variant,
        recognise=recognise,
        load=load,
        tag="HYENA",
        tokenizer="single bases",
        code_licence="Apache-2.0",
        weights_licence="BSD-3-Clause",
        releases=tuple(Release(name, f"LongSafari/{name}", context) for name, context in names),
    )


FAMILY = Family(
    name="hyenadna",
    objective="causal",
    build=build,
    trunk=is_trunk,
    citation="Nguyen et al., NeurIPS 36 (2023), arXiv:2306.15794",
    title="HyenaDNA",
    official=(
        _official("transformers", recognise_hf, "-hf"),
        _official("Lightning", recognise_lightning, ""),
    ),
)
