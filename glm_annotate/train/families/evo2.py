"""Evo 2: StripedHyena 2 over single bases of all domains of life, predicting the next.

After Brixi et al. (2026), written from the published description. There are three lengths of gated
convolution: short (7 taps) and medium (128 taps), whose taps are weights that groups of channels
share, and long, whose taps are a sum of decays, h[t] = sum_s R_s exp(l_s t). Short taps are stored
as a correlation (the last weighs the current row), medium ones as a convolution (the first does).
Official files hold the projections of attention by head; they are put in order when a file is
read. Blocks and their names are those of `striped_hyena`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from glm_annotate.errors import InputError
from glm_annotate.train.families.family import (
    Family,
    Loaded,
    Official,
    Release,
    Source,
    Values,
)
from glm_annotate.train.families.striped_hyena import (
    KEYS,
    Attention,
    AttentionBlock,
    ConvolutionBlock,
    GatedConvolution,
    GatedMlp,
    StripedHyena,
    blocks_with,
    card_of,
    check_rotary,
    choose_window,
    fill_striped,
    refuse_contradictions,
    shape_of,
    sizes_of,
)
from glm_annotate.train.official import build_config, parse_config, rename, whole

# From this many taps on the authors' code reads taps as a convolution and adds D.
_MEDIUM = 128
# Channels whose decays are in memory at once when taps are worked out.
_CHANNELS = 32


class Evo2Config(BaseModel):
    """The config's `[model]` table.

    Attributes:
        vocabulary: Token ids.
        dim: Width of the residual stream.
        pattern: A letter a block: S, M and L for short, medium and long convolution, A for
            attention.
        heads: Attention heads.
        hidden: Width of the feed-forward layer.
        short_taps: Taps of a short convolution; `short_groups`: of channels that share them.
        medium_taps: Taps of a medium convolution; `medium_groups`: of channels that share them.
        state: Decays a channel of a long convolution.
        taps: Of the convolution before the gates.
        base: Of the rotary positions; `scale`: what positions are divided by.
        eps: Added to the root mean square of a row.
        tied: Whether the head is the table of embeddings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: int = Field(default=512, gt=0)
    dim: int = Field(gt=0)
    pattern: str = Field(pattern="^[SMLA]+$")
    heads: int = Field(gt=0)
    hidden: int = Field(gt=0)
    short_taps: int = Field(default=7, gt=0, lt=_MEDIUM)
    short_groups: int = Field(default=1, gt=0)
    medium_taps: int = Field(default=_MEDIUM, ge=_MEDIUM)
    medium_groups: int = Field(default=1, gt=0)
    state: int = Field(default=16, gt=0)
    taps: int = Field(default=3, gt=0)
    base: float = Field(default=10000.0, gt=0)
    scale: float = Field(default=1.0, ge=1)
    eps: float = Field(default=1e-6, gt=0, lt=1)
    tied: bool = True

    @model_validator(mode="after")
    def _check(self) -> Evo2Config:
        if self.dim % (2 * self.heads):
            raise ValueError(f"dim {self.dim} is not an even number for each of {self.heads} heads")
        if self.dim % self.short_groups or self.dim % self.medium_groups:
            raise ValueError(f"dim {self.dim} cannot be cut into the groups of channels")
        return self


class InterleavedConvolution(GatedConvolution):
    """A gated convolution whose channels lie x2, x1, v, x2, x1, v, ..."""

    def split(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split channels (B, 3 D, T): channel c is the (c // 3)-th of x2, x1 or v by c % 3."""
        x2, x1, value = z.view(z.shape[0], -1, 3, z.shape[2]).unbind(2)
        return x2, x1, value


class SharedConvolution(InterleavedConvolution):
    """Taps are weights (groups, 1, L), each for a run of neighbouring channels."""

    def __init__(self, config: Evo2Config, groups: int, length: int, *, medium: bool) -> None:
        super().__init__(config.dim, config.taps, bias=False, skip=medium)
        self.repeats, self.medium = config.dim // groups, medium
        self.h = nn.Parameter(torch.randn(groups, 1, length) / math.sqrt(length))

    def taps(self, rows: int, dtype: torch.dtype) -> Tensor:
        """Give taps (D, up to `rows`); short ones are stored with the current row last."""
        stored = self.h[:, 0].to(dtype)
        ordered = stored if self.medium else stored.flip(1)
        return ordered[:, :rows].repeat_interleave(self.repeats, 0)


class DecayingConvolution(InterleavedConvolution):
    """Taps from real poles: decays from a few rows to thousands."""

    def __init__(self, config: Evo2Config) -> None:
        super().__init__(config.dim, config.taps, bias=False, skip=True)
        rates = -torch.logspace(-3.5, -0.5, config.state)
        self.log_poles = nn.Parameter(rates[:, None].repeat(config.dim, 1, 1))  # (D, S, 1)
        self.residues = nn.Parameter(torch.randn(config.dim, config.state) / config.state)

    def taps(self, rows: int, dtype: torch.dtype) -> Tensor:
        """Work out taps (D, rows)."""
        few = (torch.split(x.to(dtype), _CHANNELS) for x in (self.log_poles, self.residues))
        return torch.cat([decays(p, r, rows) for p, r in zip(*few, strict=True)])


def decays(log_poles: Tensor, residues: Tensor, rows: int) -> Tensor:
    """Compute taps (D, rows), sum_s R_s exp(l_s t), of log poles (D, S, 1) and residues (D, S)."""
    time = torch.arange(rows, dtype=log_poles.dtype, device=log_poles.device)
    out: Tensor = (residues[..., None] * (log_poles * time).exp()).sum(1)
    return out


def make(config: Evo2Config) -> StripedHyena:
    """Make a network of Evo 2's blocks with fresh weights."""
    dim, eps = config.dim, config.eps

    def convolution(kind: str) -> GatedConvolution:
        if kind == "L":
            return DecayingConvolution(config)
        if kind == "M":
            return SharedConvolution(config, config.medium_groups, config.medium_taps, medium=True)
        return SharedConvolution(config, config.short_groups, config.short_taps, medium=False)

    def block(place: int, kind: str) -> nn.Module:
        # The first block alone has a GELU.
        mlp = GatedMlp(dim, config.hidden, gelu=place == 0)
        if kind == "A":
            mixer = Attention(dim, config.heads, config.base, config.scale, bias=False)
            return AttentionBlock(dim, eps, mixer, mlp)
        return ConvolutionBlock(dim, eps, convolution(kind), mlp, bias=False)

    blocks = [block(place, kind) for place, kind in enumerate(config.pattern)]
    network = StripedHyena(config.vocabulary, dim, eps, blocks, tied=config.tied)
    network.config = config
    return network


def build(values: Values) -> StripedHyena:
    """Make a network with fresh weights.

    Raises:
        InputError: A key or value of `[model]` is not allowed.
    """
    return make(build_config(Evo2Config, values))


def is_trunk(name: str, weight: Tensor) -> bool:
    """Tell matrices of the blocks from embeddings, norms, biases and what taps are made of."""
    return name.startswith("blocks.") and weight.ndim == 2 and not name.endswith("residues")


# Official checkpoints.


@dataclass(frozen=True, slots=True)
class _Facts:
    """What weights do not tell.

    Attributes:
        heads: Attention heads.
        base: Of the rotary positions; `scale`: what positions are divided by.
        longest: Longest window in bases that the authors trained on.
    """

    heads: int
    base: float
    scale: float
    longest: int


# Files of the authors: dim, layers, hidden, and what these do not tell.
_KNOWN = {
    "evo2_1b_base": ((1920, 25, 5120), _Facts(15, 1e4, 1, 8192)),
    "evo2_7b_base": ((4096, 32, 11008), _Facts(32, 1e4, 1, 8192)),
    "evo2_7b_microviridae": ((4096, 32, 11008), _Facts(32, 1e4, 1, 8192)),
    "evo2_7b_262k": ((4096, 32, 11008), _Facts(32, 1e4, 32, 262_144)),
    "evo2_7b": ((4096, 32, 11264), _Facts(32, 1e4, 128, 1_048_576)),
    "evo2_20b": ((8192, 24, 22528), _Facts(64, 1e6, 128, 1_048_576)),
    "evo2_40b_base": ((8192, 50, 21888), _Facts(64, 1e6, 1, 8192)),
    "evo2_40b": ((8192, 50, 22528), _Facts(64, 1e6, 128, 1_048_576)),
}


def recognise(source: Source) -> bool:
    """Tell a checkpoint in the layout of the authors' inference code."""
    pattern = re.compile(r"(backbone\.)?blocks\.\d+\.filter\.(h|log_poles)")
    return any(pattern.fullmatch(name) for name in source.weights)


def load(source: Source, context: int | None) -> Loaded:
    """Read a checkpoint, with filters for a window of `context` bases.

    Raises:
        InputError: The source is not what it should be, or the window is longer than trained.
    """
    weights = rename(source.weights, KEYS)
    sizes = sizes_of(source, weights)
    facts = find_facts(source, (sizes["dim"], sizes["layers"], sizes["hidden"]))
    config = _settings(source, weights, sizes, facts)
    check_rotary(source, config.dim // config.heads, config.base)
    window = choose_window(source, context, facts.longest)
    split = source.config.get("column_split", True)
    if not isinstance(split, bool):
        raise InputError(
            f"{source.name}: config: column_split is {split!r}, wanted true or false; fetch config "
            "and weights of one checkpoint"
        )
    if split:
        names = [f"blocks.{block}.inner_mha_cls.Wqkv.weight" for block in sizes["attention"]]
        weights |= {name: ungroup(weights[name], config.heads) for name in names}
    network = make(config)
    fill_striped(network, source, weights, tied=config.tied)
    network.materialise(window)
    card = card_of(window, prefix=())
    if source.repository.startswith("arcinstitute/evo2_"):
        data = "OpenGenome2: genomes of all domains of life, 8.8 trillion bases"
        card["provenance"] = {"training_data": data}
    return Loaded(network, card)


def ungroup(weight: Tensor, heads: int) -> Tensor:
    """Turn rows (heads, [query, key, value], d) of a projection into ([...], heads, d)."""
    if weight.ndim != 2 or weight.shape[0] % (3 * heads):
        return weight  # its shape is refused later
    return weight.view(heads, 3, -1, weight.shape[1]).transpose(0, 1).flatten(0, 2)


def find_facts(source: Source, sizes: tuple[int, int, int]) -> _Facts:
    """Find what the weights do not tell: in the config, by the file's name, or by sizes alone.

    Args:
        source: The checkpoint.
        sizes: Its dim, layers and hidden.

    Raises:
        InputError: None of them tells, or the config leaves out a part.
    """
    given, named = source.config, _named(source, sizes)
    if "num_attention_heads" in given:
        stretched = bool(given.get("use_interpolated_rotary_pos_emb"))
        scale = given.get("rotary_emb_scaling_factor", 1.0) if stretched else 1.0
        values: dict[str, Any] = {
            "rotary_emb_base": given.get("rotary_emb_base"),
            "rotary_emb_scaling_factor": scale,
        }
        bad = [key for key, value in values.items() if not isinstance(value, int | float)]
        if bad:
            raise InputError(
                f"{source.name}: config: {bad[0]} is {values[bad[0]]!r}, wanted a number; fetch "
                "config and weights of one checkpoint"
            )
        trained = [named.longest] if named else []
        return _Facts(
            whole(source, "num_attention_heads"),
            float(values["rotary_emb_base"]),
            float(values["rotary_emb_scaling_factor"]),
            min([whole(source, "max_seqlen"), *trained]),
        )
    same = {facts for known, facts in _KNOWN.values() if known == sizes}
    found = named or (same.pop() if len(same) == 1 else None)
    if found is None:
        raise InputError(
            f"{source.name}: sizes and file name do not tell heads and rotary positions; put the "
            "authors' .yml of this checkpoint beside it as config.yml, or keep the file's own name"
        )
    return found


def _named(source: Source, sizes: tuple[int, int, int]) -> _Facts | None:
    """Go by the file's name, if the sizes agree with it."""
    for file in source.files:
        known, facts = _KNOWN.get(file.stem, (None, None))
        if known == sizes:
            return facts
    return None


def _settings(
    source: Source, weights: Mapping[str, Tensor], sizes: Mapping[str, Any], facts: _Facts
) -> Evo2Config:
    """Read the sizes off the weights."""
    kinds = dict.fromkeys(sizes["attention"], "A")
    values: dict[str, Any] = {}
    for block in blocks_with(weights, r"filter\.log_poles"):
        kinds[block] = "L"
        values["state"] = shape_of(source, weights, f"blocks.{block}.filter.log_poles", 3)[1]
    for block in blocks_with(weights, r"filter\.h"):
        groups, _, length = shape_of(source, weights, f"blocks.{block}.filter.h", 3)
        kind, name = ("M", "medium") if length >= _MEDIUM else ("S", "short")
        kinds[block] = kind
        values |= {f"{name}_groups": groups, f"{name}_taps": length}
    if sorted(kinds) != list(range(sizes["layers"])):
        raise InputError(f"{source.name}: blocks without weights; fetch the checkpoint again")
    for block in blocks_with(weights, r"filter\.short_filter_weight"):
        name = f"blocks.{block}.filter.short_filter_weight"
        values["taps"] = shape_of(source, weights, name, 3)[2]
    values |= {key: sizes[key] for key in ("vocabulary", "dim", "hidden")}
    values |= {"pattern": "".join(kinds[block] for block in sorted(kinds))}
    values |= {"heads": facts.heads, "base": facts.base, "scale": facts.scale}
    values |= {
        "eps": source.config.get("eps", 1e-6),
        "tied": source.config.get("tie_embeddings", True),
    }
    config = parse_config(Evo2Config, source, values)
    _compare(source, config)
    return config


def _compare(source: Source, config: Evo2Config) -> None:
    places = {
        f"{name}_layer_idxs": [place for place, kind in enumerate(config.pattern) if kind == letter]
        for name, letter in (("attn", "A"), ("hcl", "L"), ("hcm", "M"), ("hcs", "S"))
    }
    wanted = {
        "vocab_size": config.vocabulary,
        "hidden_size": config.dim,
        "num_layers": len(config.pattern),
        "inner_mlp_size": config.hidden,
        "short_filter_length": config.taps,
        **places,
        "interleave": True,
        "column_split_hyena": False,
        "hyena_flip_x1x2": False,
        "evo2_style_activations": True,
        "mlp_activation": "gelu",
        "proj_groups": 1,
        "final_norm": True,
    }
    refuse_contradictions(source, wanted)


_FP8 = "the authors run its projections in 8 bits, here they are float32"
_PARTS = f"join its parts into one .pt first; {_FP8}"

FAMILY = Family(
    name="evo2",
    objective="causal",
    build=build,
    trunk=is_trunk,
    citation="Brixi et al., Nature (2026), doi 10.1038/s41586-026-10176-5",
    title="Evo 2",
    official=(
        Official(
            variant="vortex",
            recognise=recognise,
            load=load,
            tag="EVO2",
            tokenizer="bytes",
            code_licence="Apache-2.0",
            weights_licence="Apache-2.0",
            releases=(
                Release("evo2-1b-base", "arcinstitute/evo2_1b_base", 8192, note=_FP8),
                Release("evo2-7b-base", "arcinstitute/evo2_7b_base", 8192),
                Release("evo2-7b-262k", "arcinstitute/evo2_7b_262k", 262_144),
                Release("evo2-7b", "arcinstitute/evo2_7b", 1_048_576),
                Release("evo2-7b-microviridae", "evo-design/evo-2-7b-8k-microviridae", 8192),
                Release("evo2-20b", "arcinstitute/evo2_20b", 1_048_576, note=_PARTS),
                Release("evo2-40b-base", "arcinstitute/evo2_40b_base", 8192, note=_PARTS),
                Release("evo2-40b", "arcinstitute/evo2_40b", 1_048_576, note=_PARTS),
            ),
        ),
    ),
)
