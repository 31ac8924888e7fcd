"""GPN-MSA: a transformer over the columns of a whole-genome alignment, one base of human a row.

After Benegas, Albors, Aw, Ye and Song (2025) and their checkpoint (`GPNRoFormer`). A row is the
human base, which may be masked, and beside it the letters of all other species, which never are.
Decisions: the other species come as codes, one channel each, and become one-hot in the graph; the
rotary table is taken as the checkpoint stores it, because that is what the authors' code does;
attention maps are not offered.
"""

from __future__ import annotations

import dataclasses
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
from glm_annotate.train.families.gpn_songlab import check_allowed, limits_of
from glm_annotate.train.families.gpn_songlab_blocks import one_hot
from glm_annotate.train.layers import (
    MaskedHead,
    PostNormLayer,
    SelfAttention,
    attention,
    merge_heads,
    rotary_table,
    split_heads,
)
from glm_annotate.train.official import Keys, build_config, fill, parse_config, whole

# Bases of a window in training, and in the authors' scores.
WINDOW = 128
# Ids of the human row; a gap and whatever is unknown are the same.
TOKENS = {"-": 0, "A": 1, "C": 2, "G": 3, "T": 4, "?": 5}
# Codes of the other species: the same without the mask.
CODES = 5


class GpnMsaConfig(BaseModel):
    """The config's `[model]` table.

    Attributes:
        species: Species beside human.
        vocabulary: Ids of the human row.
        codes: Codes of the other species.
        dim: Width of the residual stream; must hold all one-hot letters.
        layers: Transformer layers.
        heads: Attention heads.
        hidden: Width of the feed-forward layer.
        positions: Rows of the rotary table.
        eps: Of the norms.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    species: int = Field(gt=0)
    vocabulary: int = Field(default=len(TOKENS), gt=0)
    codes: int = Field(default=CODES, gt=0)
    dim: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    hidden: int = Field(gt=0)
    positions: int = Field(default=1536, gt=0)
    eps: float = Field(default=1e-12, gt=0, lt=1)

    @model_validator(mode="after")
    def _check(self) -> GpnMsaConfig:
        if self.dim % (2 * self.heads):
            raise ValueError(f"dim {self.dim} is not an even number for each of {self.heads} heads")
        letters = self.vocabulary + self.codes * self.species
        if letters > self.dim:
            raise ValueError(f"{letters} letters of {self.species} species exceed dim {self.dim}")
        return self


def rotate_pairs(x: Tensor, table: Tensor) -> Tensor:
    """Rotate neighbours (2 i, 2 i + 1) of heads (B, H, T, d) by a table (T, d): sines, cosines."""
    sin, cos = table.chunk(2, dim=-1)
    even, odd = x.view(*x.shape[:-1], -1, 2).unbind(-1)
    turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1)
    return turned.flatten(-2)


class PairAttention(SelfAttention):
    """Attention whose rotation takes neighbouring dimensions as pairs."""

    def forward(
        self, x: Tensor, bias: Tensor | None = None, angles: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Let rows (B, T, D) attend to each other; returns rows and maps (B, H, T, T).

        Args:
            x: Rows.
            bias: Added to the scores.
            angles: The rotary table (T, d), see `rotate_pairs`.
        """
        query, key, value = (
            split_heads(part(x), self.heads) for part in (self.query, self.key, self.value)
        )
        if angles is not None:
            query, key = rotate_pairs(query, angles), rotate_pairs(key, angles)
        out, maps = attention(query, key, value, bias)
        return merge_heads(out), maps


class Layer(PostNormLayer):
    """RoFormer's layer: BERT's with `PairAttention`."""

    def __init__(self, dim: int, heads: int, hidden: int, eps: float) -> None:
        super().__init__(dim, heads, hidden, eps)
        self.attention["self"] = PairAttention(dim, heads)


class GpnMsa(Network):
    """The network: ids (B, T) and codes (B, T, species) to logits (B, T, V) and (B, T, D)."""

    def __init__(self, config: GpnMsaConfig) -> None:
        super().__init__()
        self.config = config
        self.dim, self.vocabulary = config.dim, config.vocabulary
        self.max_rows, self.channels = config.positions, config.species
        angles = rotary_table(config.positions, config.dim // config.heads)
        table = torch.cat([angles.sin(), angles.cos()], dim=1)
        self.embed_positions = nn.Embedding(*table.shape)
        self.embed_positions.weight = nn.Parameter(table, requires_grad=False)
        self.layers = nn.ModuleList(
            Layer(config.dim, config.heads, config.hidden, config.eps) for _ in range(config.layers)
        )
        self.head = MaskedHead(config.dim, config.vocabulary, config.eps)

    def letters(self, rows: Tensor, channels: Tensor) -> Tensor:
        """Lay out one row's letters (B, T, D): human, then each species in turn, then zeros."""
        dtype = self.embed_positions.weight.dtype
        human = one_hot(rows, self.vocabulary, dtype)
        others = one_hot(channels, self.config.codes, dtype).flatten(2)  # (B, T, species x codes)
        used = self.vocabulary + self.config.codes * self.config.species
        return functional.pad(torch.cat([human, others], dim=2), (0, self.dim - used))

    def embed_with(self, rows: Tensor, channels: Tensor) -> Tensor:
        """Return the last layer, which ends in its norm, (B, T, D)."""
        x = self.letters(rows, channels)
        table = self.embed_positions(torch.arange(rows.shape[1], device=rows.device))
        for layer in self.layers:
            x, _ = layer(x, None, table)
        return x

    def decode(self, embedding: Tensor) -> Tensor:
        """Turn embeddings (B, T, D) into logits (B, T, V)."""
        logits: Tensor = self.head(embedding)
        return logits


def build(values: Values) -> GpnMsa:
    """Make a network with fresh weights.

    Raises:
        InputError: A key or value of `[model]` is not allowed.
    """
    return GpnMsa(build_config(GpnMsaConfig, values))


# Official checkpoints

_BIAS, _DECODER_BIAS = "cls.predictions.bias", "cls.predictions.decoder.bias"
KEYS = Keys(
    rename=(
        (r"model\.encoder\.embed_positions\.", "embed_positions."),
        (r"model\.encoder\.layer\.", "layers."),
        (r"cls\.predictions\.", "head."),
    ),
    # The decoder adds its own bias; transformers keeps this second one, unused.
    ignore=(r"head\.bias",),
)
_MARKS = (
    "model.encoder.embed_positions.weight",
    "model.encoder.layer.0.attention.self.query.weight",
)
# What the config must not contradict: the architecture has nothing for other values.
_ALLOWED: dict[str, tuple[Any, ...]] = {
    "vocab_size": (len(TOKENS),),
    "aux_features_vocab_size": (CODES,),
    "group_tokens": (1,),
    "hidden_act": ("gelu",),
    "rotary_value": (False,),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
}


def recognise(source: Source) -> bool:
    """Tell whether a source is a GPN-MSA."""
    kind = source.config.get("model_type", "GPNRoFormer")
    return kind == "GPNRoFormer" and all(mark in source.weights for mark in _MARKS)


def load(source: Source, context: int | None) -> Loaded:
    """Read an official checkpoint.

    Raises:
        InputError: Weights or config are not those of GPN-MSA, or `context` is not the window of
            training.
    """
    config = official_config(source)
    network = GpnMsa(config)
    if context is not None and context > (network.max_rows or context):
        raise InputError(
            f"{source.name}: --context {context}: allowed are 1 to {network.max_rows} bases, where "
            "its table of positions ends"
        )
    fill(network, _with_bias(source), KEYS)
    return Loaded(network, _card(source, config.species, context))


def _with_bias(source: Source) -> Source:
    """Give the decoder its bias where a file holds the tied one under the other name alone."""
    weights = source.weights
    if _DECODER_BIAS in weights or _BIAS not in weights:
        return source
    return dataclasses.replace(source, weights={**weights, _DECODER_BIAS: weights[_BIAS]})


def official_config(source: Source) -> GpnMsaConfig:
    """Translate `config.json`; keys that it leaves out have the defaults of the authors' class.

    Raises:
        InputError: There is none, or it contradicts the architecture.
    """
    values = source.config
    check_allowed(source, _ALLOWED)
    features, dim = whole(source, "n_aux_features", 0), whole(source, "hidden_size", 768)
    if features % CODES:
        raise InputError(
            f"{source.name}: config: n_aux_features is {features}, wanted {CODES} for each "
            "species; fetch config and weights of one checkpoint"
        )
    if values.get("embedding_size") not in (None, dim):
        raise InputError(
            f"{source.name}: config: embedding_size is {values['embedding_size']}, wanted {dim} as "
            "hidden_size; fetch config and weights of one checkpoint"
        )
    made = {
        "species": features // CODES,
        "dim": dim,
        "layers": whole(source, "num_hidden_layers", 12),
        "heads": whole(source, "num_attention_heads", 12),
        "hidden": whole(source, "intermediate_size", 3072),
        "positions": whole(source, "max_position_embeddings", 1536),
        "eps": values.get("layer_norm_eps", 1e-12),
    }
    return parse_config(GpnMsaConfig, source, made)


def species_names(source: Source, species: int) -> list[str]:
    """Name the channels: from `species` in the config, else by number.

    Raises:
        InputError: The config names another number of them, or one twice.
    """
    names = source.config.get("species")
    if names is None:
        return [f"species_{i + 1}" for i in range(species)]
    listed = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not listed or len(names) != species or len(set(names)) != species:
        found = len(set(names)) if listed else repr(names)
        raise InputError(
            f"{source.name}: config: species has {found} different names, wanted {species}; fetch "
            "config and weights of one checkpoint"
        )
    return list(names)


_CITATION = "Benegas, Albors, Aw, Ye and Song, Nature Biotechnology (2025) s41587-024-02511-w"
_FACTS = {
    "songlab/gpn-msa-sapiens": {
        "species": "Homo sapiens",
        "assembly": "hg38",
        "training_data": "UCSC multiz100way, human and 89 other vertebrates; "
        "songlab/gpn-msa-sapiens-dataset",
    }
}


def _card(source: Source, species: int, context: int | None) -> dict[str, Any]:
    window = context or WINDOW
    channels = [
        {"name": name, "source": "msa", "indel": "edit", "missing": TOKENS["-"]}
        for name in species_names(source, species)
    ]
    vocab = {
        "order": "ACGT",
        "first_id": TOKENS["A"],
        "single_ids": {"N": TOKENS["-"]},
        "pad_id": TOKENS["-"],
        "unk_id": TOKENS["-"],
        "mask_id": TOKENS["?"],
    }
    return {
        "encoder": {"kind": "kmer", "vocab": vocab, "channels": channels},
        "context": window,
        "anchor": window // 2,
        "strand": "both",
        "scores": ["LLR", "PLLR"],
        "provenance": {
            **_FACTS.get(source.repository.partition("@")[0], {}),
            **limits_of(context, WINDOW),
        },
    }


FAMILY = Family(
    name="gpn_msa",
    objective="masked",
    build=build,
    trunk=is_matrix_of("layers."),
    citation=_CITATION,
    title="GPN-MSA",
    official=(
        Official(
            variant="GPNRoFormer",
            recognise=recognise,
            load=load,
            tag="GPNMSA",
            tokenizer="single bases, and a letter of each other species",
            code_licence="MIT",
            weights_licence="MIT",
            releases=(
                Release(
                    "gpn-msa-sapiens",
                    "songlab/gpn-msa-sapiens",
                    WINDOW,
                    note="human; needs the alignment of 89 species",
                ),
            ),
        ),
    ),
)
