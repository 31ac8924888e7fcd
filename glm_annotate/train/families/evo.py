"""Evo: StripedHyena over single bases of prokaryotes and phages, predicting the next.

After Nguyen et al. (2024), written from the published description. The taps of a long convolution
are a sum of decaying oscillations, h[t] = Re sum_s R_s p_s^t, whose poles p and residues R are the
parameters. Blocks and their names are those of `striped_hyena`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

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
    is_matrix_of,
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
from glm_annotate.train.official import build_config, parse_config, rename

# Bases of the first stage of training; interpolating positions by s stretched them s times.
_TRAINED = 8192
# Channels whose oscillations are in memory at once when taps are worked out.
_CHANNELS = 32


class EvoConfig(BaseModel):
    """The config's `[model]` table.

    Attributes:
        vocabulary: Token ids.
        dim: Width of the residual stream.
        layers: Blocks.
        heads: Attention heads; projections of the convolutions are grouped by them too.
        hidden: Width of the feed-forward layer.
        attention: Blocks that attend; the others convolve.
        state: Oscillations a channel.
        taps: Of the convolution before the gates.
        base: Of the rotary positions; `scale`: what positions are divided by.
        eps: Added to the root mean square of a row.
        tied: Whether the head is the table of embeddings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: int = Field(default=512, gt=0)
    dim: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    hidden: int = Field(gt=0)
    attention: tuple[int, ...] = ()
    state: int = Field(default=8, gt=0)
    taps: int = Field(default=3, gt=0)
    base: float = Field(default=10000.0, gt=0)
    scale: float = Field(default=1.0, ge=1)
    eps: float = Field(default=1e-6, gt=0, lt=1)
    tied: bool = True

    @model_validator(mode="after")
    def _check(self) -> EvoConfig:
        if self.dim % (2 * self.heads):
            raise ValueError(f"dim {self.dim} is not an even number for each of {self.heads} heads")
        if any(not 0 <= block < self.layers for block in self.attention):
            raise ValueError(f"attention names blocks outside 0 to {self.layers - 1}")
        return self


def oscillations(poles: Tensor, residues: Tensor, rows: int) -> Tensor:
    """Compute taps (D, rows), Re sum_s R_s p_s^t, of complex numbers stored as (D, S, 1, 2)."""
    time = torch.arange(rows, dtype=poles.dtype, device=poles.device)
    weight, pole = torch.view_as_complex(residues), torch.view_as_complex(poles)  # (D, S, 1)
    out: Tensor = (weight * (pole.log() * time).exp()).real.sum(1)
    return out


class OscillatingConvolution(GatedConvolution):
    """Evo's: channels in groups [x2, x1, v] a head, taps from poles and residues."""

    def __init__(self, config: EvoConfig) -> None:
        super().__init__(config.dim, config.taps, bias=True, skip=True)
        self.heads = config.heads
        # Decays from a few rows to thousands, a turn from never to every eighth row.
        size = 1 - torch.logspace(-3.5, -0.5, config.state).expand(config.dim, -1)
        angle = torch.linspace(0, math.pi / 4, config.dim)[:, None].expand(-1, config.state)
        poles = torch.view_as_real(torch.polar(size.contiguous(), angle.contiguous()))
        self.poles = nn.Parameter(poles[:, :, None].contiguous())  # (D, S, 1, 2)
        self.residues = nn.Parameter(torch.randn(config.dim, config.state, 1, 2) / config.state)

    def split(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split channels (B, 3 D, T): each head has its x2, then its x1, then its v."""
        parts = z.view(z.shape[0], self.heads, 3, -1, z.shape[2]).unbind(2)  # (B, H, d, T) each
        x2, x1, value = (part.flatten(1, 2) for part in parts)
        return x2, x1, value

    def taps(self, rows: int, dtype: torch.dtype) -> Tensor:
        """Work out taps (D, rows)."""
        few = (torch.split(x.to(dtype), _CHANNELS) for x in (self.poles, self.residues))
        return torch.cat([oscillations(p, r, rows) for p, r in zip(*few, strict=True)])


def make(config: EvoConfig) -> StripedHyena:
    """Make a network of Evo's blocks with fresh weights."""

    def block(place: int) -> nn.Module:
        mlp = GatedMlp(config.dim, config.hidden)
        if place in config.attention:
            mixer = Attention(config.dim, config.heads, config.base, config.scale, bias=True)
            return AttentionBlock(config.dim, config.eps, mixer, mlp)
        convolution = OscillatingConvolution(config)
        return ConvolutionBlock(config.dim, config.eps, convolution, mlp, bias=True)

    blocks = [block(place) for place in range(config.layers)]
    network = StripedHyena(config.vocabulary, config.dim, config.eps, blocks, tied=config.tied)
    network.config = config
    return network


def build(values: Values) -> StripedHyena:
    """Make a network with fresh weights.

    Raises:
        InputError: A key or value of `[model]` is not allowed.
    """
    return make(build_config(EvoConfig, values))


# Official checkpoints.

_REPOSITORIES = r"(togethercomputer|evo-design|LongSafari)/evo-1"


def load(source: Source, context: int | None) -> Loaded:
    """Read a checkpoint, with filters for a window of `context` bases behind the BOS.

    Raises:
        InputError: The source is not what it should be, or the window is longer than trained.
    """
    weights = rename(source.weights, KEYS)
    config = _settings(source, weights)
    check_rotary(source, config.dim // config.heads, config.base)
    window = choose_window(source, context, round(_TRAINED * config.scale))
    network = make(config)
    fill_striped(network, source, weights, tied=config.tied)
    network.materialise(window + 1)
    card = card_of(window, prefix=(0,))
    if re.match(_REPOSITORIES, source.repository):
        data = "OpenGenome: prokaryotic genomes, about 300 billion bases"
        card["provenance"] = {"training_data": data}
    return Loaded(network, card)


def _settings(source: Source, weights: Mapping[str, Tensor]) -> EvoConfig:
    """Read the sizes off the weights, and the rest from the config."""
    given = source.config
    if "num_attention_heads" not in given:
        raise InputError(
            f"{source.name}: no config with num_attention_heads beside the weights; put the "
            "repository's config.json there, or the authors' .yml of this checkpoint as config.yml"
        )
    poles = next(iter(blocks_with(weights, r"filter\.poles")), 0)
    stretched = bool(given.get("use_interpolated_rotary_pos_emb"))
    values = {
        **sizes_of(source, weights),
        "heads": given["num_attention_heads"],
        "state": shape_of(source, weights, f"blocks.{poles}.filter.poles", 4)[1],
        "taps": shape_of(source, weights, f"blocks.{poles}.filter.short_filter_weight", 3)[2],
        "base": given.get("rotary_emb_base", 10000.0),
        "scale": given.get("rotary_emb_scaling_factor", 1.0) if stretched else 1.0,
        "eps": given.get("eps", 1e-6),
        "tied": given.get("tie_embeddings", True),
    }
    config = parse_config(EvoConfig, source, values)
    refuse_contradictions(
        source,
        {
            "vocab_size": config.vocabulary,
            "hidden_size": config.dim,
            "num_filters": config.dim,
            "num_layers": config.layers,
            "inner_mlp_size": config.hidden,
            "attn_layer_idxs": list(config.attention),
            "state_size": config.state,
            "short_filter_length": config.taps,
            "column_split_hyena": True,
            "mlp_activation": "gelu",
            "proj_groups": 1,
            "hyena_filter_groups": 1,
            "final_norm": True,
        },
    )
    return config


def _is_evo(source: Source) -> bool:
    return any(re.fullmatch(r"(backbone\.)?blocks\.\d+\.filter\.poles", x) for x in source.weights)


def recognise_short(source: Source) -> bool:
    """Tell a checkpoint with the rotary positions of its first stage of training."""
    return _is_evo(source) and not source.config.get("use_interpolated_rotary_pos_emb")


def recognise_long(source: Source) -> bool:
    """Tell a checkpoint whose rotary positions were interpolated."""
    return _is_evo(source) and bool(source.config.get("use_interpolated_rotary_pos_emb"))


def _official(
    variant: str, recognise: Callable[[Source], bool], releases: tuple[Release, ...]
) -> Official:
    return Official(
        variant=variant,
        recognise=recognise,
        load=load,
        tag="EVO",
        tokenizer="bytes behind a BOS",
        code_licence="Apache-2.0",
        weights_licence="Apache-2.0",
        releases=releases,
    )


# The authors' own loader takes revision 1.1_fix of the base models that have one.
_SHORT = (
    Release("evo-1-8k-base", "togethercomputer/evo-1-8k-base@1.1_fix", 8192),
    Release("evo-1.5-8k-base", "evo-design/evo-1.5-8k-base", 8192),
    Release("evo-1-8k-crispr", "LongSafari/evo-1-8k-crispr", 8192, note="fine-tuned on CRISPR"),
    Release(
        "evo-1-8k-transposon", "LongSafari/evo-1-8k-transposon", 8192, note="fine-tuned on IS200"
    ),
)
_LONG = (Release("evo-1-131k-base", "togethercomputer/evo-1-131k-base@1.1_fix", 131072),)

FAMILY = Family(
    name="evo",
    objective="causal",
    build=build,
    trunk=is_matrix_of("blocks."),
    citation="Nguyen et al., Science 386 (2024) eado9336",
    title="Evo",
    official=(
        _official("8k", recognise_short, _SHORT),
        _official("131k", recognise_long, _LONG),
    ),
)
