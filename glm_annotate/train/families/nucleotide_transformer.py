"""Nucleotide Transformer v1 and v2: an encoder with norms before the layers, over 6-mers in a row.

After Dalla-Torre et al. (2025), from the description. v1: learned positions, GELU with biases. v2:
rotated queries and keys, SwiGLU without biases. Decisions: which one a file is follows from its
feed-forward, because configs of v2 do not name a model type. The epsilon of the norms is the
config's (the authors' other code has another). Windows are whole k-mers: no base is left over.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from functools import partial
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
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
    is_matrix_of,
)
from glm_annotate.train.layers import SelfAttention, rotary_table
from glm_annotate.train.official import (
    Keys,
    build_config,
    check_vocabulary,
    fill,
    parse_config,
    whole,
)

ORDER = "ATCG"
# Ids before the k-mers: four, and two more in v2. Behind them come the single letters.
SPECIAL, EXTRA, LETTERS = ("<unk>", "<pad>", "<mask>", "<cls>"), ("<eos>", "<bos>"), "ATCGN"
UNKNOWN, PAD, MASK, CLS = range(4)
_FIRST_POSITION = PAD + 1
_SHOWN_IN_TRAINING = 1 - 0.15 * 0.8  # 80 % of the 15 % of rows that were chosen became the mask
# The default window: 167 6-mers are 1,002 bases, about the longest sequences that the authors
# fine-tuned on. Odd, so that both strands see the variant in the same central k-mer. Half of them
# differ behind an indel, and a few more rows where there are Ns.
_KMERS, _PLLR_MAX = 167, 96
_LICENCE = "CC-BY-NC-SA-4.0"


class NucleotideTransformerConfig(BaseModel):
    """The config's `[model]` table.

    Attributes:
        vocabulary: Token ids.
        dim: Width of the residual stream; `heads` divides it.
        hidden: Width of the feed-forward.
        gated: SwiGLU without biases (v2) in place of GELU (v1).
        positions: Rows of the table of learned positions, the first two unused (v1); 0: rotated
            queries and keys (v2), with frequencies of `base`.
        token_dropout: Rows of `mask_id` are zeroed, the others scaled by how many there are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: int = Field(default=4107, gt=0)
    dim: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    hidden: int = Field(gt=0)
    gated: bool = True
    positions: int = Field(default=0, ge=0)
    token_dropout: bool = False
    mask_id: int = Field(default=MASK, ge=0)
    eps: float = Field(default=1e-12, gt=0, lt=1)
    base: float = Field(default=10000.0, gt=0)

    @model_validator(mode="after")
    def _check(self) -> NucleotideTransformerConfig:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        if not self.positions and self.dim // self.heads % 2:
            raise ValueError(f"a rotated head needs an even width, found {self.dim // self.heads}")
        if 0 < self.positions < _FIRST_POSITION + 2:
            raise ValueError(f"positions {self.positions} leave no row for a k-mer")
        return self


class Embeddings(nn.Module):
    """Ids (B, T) as rows (B, T, D), with learned positions where there are some."""

    def __init__(self, config: NucleotideTransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.word_embeddings = nn.Embedding(config.vocabulary, config.dim)
        if config.positions:
            self.position_embeddings = nn.Embedding(config.positions, config.dim)

    def forward(self, rows: Tensor) -> Tensor:
        x: Tensor = self.word_embeddings(rows)
        if self.config.token_dropout:
            shown = (rows != self.config.mask_id).to(x.dtype)[..., None]
            # A window of nothing but masks has no share; its rows are zeros either way.
            share = shown.mean(dim=1, keepdim=True).clamp(min=1e-6)
            x = x * shown * (_SHOWN_IN_TRAINING / share)
        if self.config.positions:
            place = torch.arange(rows.shape[1], device=rows.device) + _FIRST_POSITION
            x = x + self.position_embeddings(place)
        return x


def dense(wide: int, dim: int, *, bias: bool = True) -> nn.Sequential:
    """Make a linear layer that the files call `dense`."""
    return nn.Sequential(OrderedDict(dense=nn.Linear(wide, dim, bias=bias)))


class Layer(nn.Module):
    """Attention, then feed-forward, each with a norm before and a residual around it."""

    def __init__(self, config: NucleotideTransformerConfig) -> None:
        super().__init__()
        dim, hidden, self.gated = config.dim, config.hidden, config.gated
        parts = {"self": SelfAttention(dim, config.heads), "output": dense(dim, dim)}
        self.attention = nn.ModuleDict(parts | {"LayerNorm": nn.LayerNorm(dim, eps=config.eps)})
        self.LayerNorm = nn.LayerNorm(dim, eps=config.eps)
        self.intermediate = dense(dim, hidden * (1 + self.gated), bias=not self.gated)
        self.output = dense(hidden, dim, bias=not self.gated)

    def forward(self, x: Tensor, angles: Tensor | None) -> tuple[Tensor, Tensor]:
        """Update rows (B, T, D); returns them and the attention maps (B, H, T, T)."""
        attended, maps = self.attention["self"](self.attention["LayerNorm"](x), angles=angles)
        x = x + self.attention["output"](attended)
        wide: Tensor = self.intermediate(self.LayerNorm(x))
        if self.gated:
            gate, value = wide.chunk(2, dim=-1)
            return x + self.output(functional.silu(gate) * value), maps
        return x + self.output(functional.gelu(wide)), maps


class NucleotideTransformer(Network):
    """The network: ids (B, T) to logits (B, T, V), embeddings (B, T, D) and attention maps."""

    has_attention = True

    def __init__(self, config: NucleotideTransformerConfig) -> None:
        super().__init__()
        self.config, self.dim, self.vocabulary = config, config.dim, config.vocabulary
        self.max_rows = config.positions - _FIRST_POSITION if config.positions else None
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim, eps=config.eps)
        self.lm_head = nn.Sequential(
            OrderedDict(
                dense=nn.Linear(config.dim, config.dim),
                gelu=nn.GELU(),
                layer_norm=nn.LayerNorm(config.dim, eps=config.eps),
                decoder=nn.Linear(config.dim, config.vocabulary),
            )
        )

    def embed(self, rows: Tensor) -> Tensor:
        """Return the last layer after the final norm, shape (B, T, D), for ids (B, T)."""
        return self._run(rows, None)

    def attend(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `embed` does, and the attention maps (B, layers, H, T, T)."""
        maps: list[Tensor] = []
        return self._run(rows, maps), torch.stack(maps, dim=1)

    def decode(self, embedding: Tensor) -> Tensor:
        """Turn embeddings (B, T, D) into logits (B, T, V)."""
        logits: Tensor = self.lm_head(embedding)
        return logits

    def _run(self, rows: Tensor, maps: list[Tensor] | None) -> Tensor:
        """Embed, and append each layer's maps (B, H, T, T) to a list if there is one."""
        x: Tensor = self.embeddings(rows)
        width, base = self.dim // self.config.heads, self.config.base
        table = rotary_table(rows.shape[1], width, base, device=x.device)
        angles = None if self.config.positions else table
        for layer in self.layers:
            x, seen = layer(x, angles)
            if maps is not None:
                maps.append(seen)
        out: Tensor = self.norm(x)
        return out


def build(values: Values) -> NucleotideTransformer:
    """Make a network with fresh weights.

    Raises:
        InputError: A key or value of `[model]` is not allowed.
    """
    return NucleotideTransformer(build_config(NucleotideTransformerConfig, values))


# Official checkpoints. Below, `gated` is True for v2.

_RENAME = (
    (r"esm\.encoder\.layer\.", "layers."),
    (r"esm\.encoder\.emb_layer_norm_after\.", "norm."),
    (r"esm\.", ""),
    (r"lm_head\.bias", "lm_head.decoder.bias"),
    (r"(.*LayerNorm\.)gamma", r"\1weight"),  # as transformers 5 saves them
    (r"(.*LayerNorm\.)beta", r"\1bias"),
)
_IGNORED = (r"embeddings\.position_ids", r"contact_head\.regression\.(weight|bias)")
# What files of v2 hold and nothing reads.
_UNUSED = (r"embeddings\.position_embeddings\.weight", r"(.*\.)?rotary_embeddings\.inv_freq")
_TIES = ((r"lm_head\.decoder\.weight", "embeddings.word_embeddings.weight"),)
_POSITIONS = "max_position_embeddings"
_NEEDED = {
    "vocabulary": "vocab_size",
    "dim": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "hidden": "intermediate_size",
    "eps": "layer_norm_eps",
    "positions": _POSITIONS,
}
# What v1's and v2's configs say where they say something.
_FIXED: dict[str, tuple[Any, Any]] = {
    "model_type": ("esm", "esm"),
    "position_embedding_type": ("absolute", "rotary"),
    "add_bias_fnn": (True, False),
    "emb_layer_norm_before": (False, False),
    "pad_token_id": (PAD, PAD),
    "mask_token_id": (MASK, MASK),
}


def tokens(k: int, *, gated: bool) -> list[str]:
    """List the vocabulary of k-mers in the order of ids."""
    kmers = map("".join, itertools.product(ORDER, repeat=k))
    return [*SPECIAL, *(EXTRA if gated else ()), *kmers, *LETTERS]


def _kmer_of(source: Source, *, gated: bool) -> int | None:
    """Find the k whose vocabulary has as many ids as the weights."""
    words = source.weights.get("esm.embeddings.word_embeddings.weight", torch.empty(0))
    rest = words.shape[:1].numel() - len(SPECIAL) - len(LETTERS) - len(EXTRA) * gated
    return next((k for k in range(2, 9) if 4**k == rest), None)


def _is_gated(source: Source) -> bool | None:
    """Tell v2 (True) from v1 by shape and bias of the feed-forward; None: neither."""
    first = "esm.encoder.layer.0."
    wide = source.weights.get(f"{first}intermediate.dense.weight")
    narrow = source.weights.get(f"{first}output.dense.weight")
    if wide is None or narrow is None or narrow.ndim != 2:
        return None
    biased = f"{first}intermediate.dense.bias" in source.weights
    return not biased if wide.shape[:1].numel() == narrow.shape[1] * (2 - biased) else None


def _recognise(source: Source, *, gated: bool) -> bool:
    # Either vocabulary: a mixture of v1 and v2 is for `_load` to explain. Proteins have 33 ids.
    kmers = (_kmer_of(source, gated=either) for either in (False, True))
    return _is_gated(source) is gated and any(kmers)


def _load(source: Source, context: int | None, *, gated: bool) -> Loaded:
    k = _kmer_of(source, gated=gated)
    if k is None or _is_gated(source) is not gated:
        raise InputError(
            f"{source.name}: vocabulary and feed-forward are not both of v{1 + gated}; v2 is "
            "saved so by transformers' EsmModel, which makes up weights; fetch the official file"
        )
    config, rows = _read_config(source, gated=gated)
    # v1's list may name two ids more, which its network does not have.
    check_vocabulary(source, tokens(k, gated=gated), () if gated else EXTRA)
    kmers = _count_kmers(source, context, k, rows - 1)
    if gated:
        _check_unused(source, config, rows)
    network = NucleotideTransformer(config)
    # Where the config unties them, a file without the decoder is not whole.
    ties = _TIES if source.config.get("tie_word_embeddings", True) else ()
    fill(network, source, Keys(_RENAME, _IGNORED + _UNUSED * gated, ties))
    card = {
        "encoder": _encoder(k, gated=gated),
        "context": kmers * k,
        "anchor": kmers // 2 * k + k // 2,
        "scores": ["LLR", "EMB_COS"],
        "pllr_max": _PLLR_MAX,
        "provenance": _provenance(source),
    }
    if network.max_rows is not None:  # every base before an N is a row, and the table ends
        card["window"] = {"kind": "dynamic", "max_tokens": network.max_rows}
    return Loaded(network, card)


def _read_config(source: Source, *, gated: bool) -> tuple[NucleotideTransformerConfig, int]:
    """Read the config, and the number of rows that the authors trained on."""
    found = source.config
    absent = [key for key in _NEEDED.values() if found.get(key) is None]
    if absent:
        raise InputError(
            f"{source.name}: no config.json with {', '.join(absent)} beside the weights; fetch it "
            "from their repository"
        )
    for key, wanted in _FIXED.items():
        if found.get(key) not in (None, wanted[gated]):
            raise InputError(
                f"{source.name}: config: {key} is {found[key]!r}, wanted {wanted[gated]!r} for "
                f"v{1 + gated}; fetch config and weights of one checkpoint"
            )
    values = {ours: found[theirs] for ours, theirs in _NEEDED.items()}
    values |= {"gated": gated, "token_dropout": found.get("token_dropout") or False}
    values |= {"base": found.get("rope_theta") or 10000.0, "positions": whole(source, _POSITIONS)}
    # Read as learned positions first: their number is checked even where none are learned.
    config = parse_config(NucleotideTransformerConfig, source, values, _NEEDED)
    rows = config.positions - _FIRST_POSITION
    if gated:
        config = parse_config(NucleotideTransformerConfig, source, values | {"positions": 0})
    return config, rows


def _count_kmers(source: Source, context: int | None, k: int, most: int) -> int:
    if context is None:
        return min(_KMERS, most)
    kmers = min(max((context + k // 2) // k, 1), most)
    if kmers * k != context:
        raise InputError(
            f"{source.name}: --context {context}: allowed are multiples of {k} bases up to "
            f"{most * k}; the nearest is {kmers * k}"
        )
    return kmers


def _check_unused(source: Source, config: NucleotideTransformerConfig, rows: int) -> None:
    """Check the shapes of what files of v2 store and nothing reads: they tell a wrong config."""
    shapes = {
        "position_embeddings.weight": (rows + _FIRST_POSITION, config.dim),
        "rotary_embeddings.inv_freq": (config.dim // config.heads // 2,),
    }
    for name, stored in source.weights.items():
        wanted = next((x for ending, x in shapes.items() if name.endswith(ending)), None)
        if wanted not in (None, tuple(stored.shape)):
            raise InputError(
                f"{source.name}: {name}: found {tuple(stored.shape)}, wanted {wanted} by the "
                "config; fetch config and weights of one checkpoint"
            )


def _encoder(k: int, *, gated: bool) -> dict[str, Any]:
    ids = {token: place for place, token in enumerate(tokens(k, gated=gated))}
    special = {"pad_id": PAD, "unk_id": UNKNOWN, "mask_id": MASK, "prefix": [CLS]}
    single = {letter: ids[letter] for letter in LETTERS}
    vocab = {"order": ORDER, "first_id": ids[ORDER[0] * k], "single_ids": single, **special}
    return {"kind": "kmer", "k": k, "stride": k, "vocab": vocab}


def _provenance(source: Source) -> dict[str, str]:
    """Name the training data where the repository is known; licences stand below."""
    name = source.repository.partition("@")[0].removeprefix(_OWNER)
    facts = {"limits": f"The weights' licence, {_LICENCE}, allows no commercial use."}
    return facts | ({"training_data": _TRAINED_ON[name]} if name in _TRAINED_ON else {})


_OWNER = "InstaDeepAI/nucleotide-transformer-"
_TRAINED_ON = {"500m-human-ref": "the human reference genome"}
_TRAINED_ON |= dict.fromkeys(("500m-1000g", "2.5b-1000g"), "3,202 human genomes")
_TRAINED_ON |= {
    f"{size}-multi-species": "850 genomes of many species"
    for size in ("2.5b", "v2-50m", "v2-100m", "v2-250m", "v2-500m", "v2-50m-3mer")
}

FAMILY = Family(
    name="nucleotide_transformer",
    objective="masked",
    build=build,
    trunk=is_matrix_of("layers."),
    citation="Dalla-Torre et al., Nature Methods 22 (2025) 287-297",
    title="Nucleotide Transformer",
    official=tuple(
        Official(
            variant=f"v{1 + gated}",
            recognise=partial(_recognise, gated=gated),
            load=partial(_load, gated=gated),
            tag="NT",
            tokenizer="6-mers (3-mers) side by side, single bases before an N",
            code_licence=_LICENCE,
            weights_licence=_LICENCE,
            releases=tuple(
                Release(f"nt-{x}", f"{_OWNER}{x}", longest // (1 + ("3mer" in x)))
                for x in _TRAINED_ON
                if x.startswith("v2") is gated
            ),
        )
        for gated, longest in ((False, 5994), (True, 12282))
    ),
)
