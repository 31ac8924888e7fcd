"""DNABERT: BERT over overlapping k-mers, k = 3 to 6.

After Ji, Zhou, Liu and Davuluri (2021), written from the published description. Submodules carry
the names of the official keys.

How often the output bias counts. The authors' code gives the head's one bias to the decoder and
then adds it again, and the weights were trained so. Every current reader of the same files,
transformers among them, adds it once. Both are right for something: once (the default) gives the
numbers that others compute with these checkpoints, twice gives the probabilities that the training
minimised. `"mlm_bias_twice": true` in the checkpoint's config.json asks for twice. The embeddings
do not depend on it.

The authors' code also lets padding take part in attention. There is no padding here: a batch holds
windows of one number of rows.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from glm_annotate.errors import InputError
from glm_annotate.train.families.bert import (
    SETTINGS,
    WORDS,
    Head,
    check_biases,
    is_tied,
    settings,
    start,
)
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
from glm_annotate.train.layers import Embeddings, MaskedHead, PostNormLayer
from glm_annotate.train.official import Keys, build_config, check_vocabulary, fill, parse_config

ORDER = "ATCG"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# The k of each size of vocabulary.
SIZES = {len(SPECIAL) + 4**k: k for k in (3, 4, 5, 6)}

_POSITIONS = "bert.embeddings.position_embeddings.weight"
_CONTEXT = 512

KEYS = Keys(
    rename=(
        (r"(.*\.LayerNorm)\.gamma$", r"\1.weight"),
        (r"(.*\.LayerNorm)\.beta$", r"\1.bias"),
        (r"cls\.predictions\.bias$", "cls.predictions.decoder.bias"),
    ),
    ignore=(
        r"bert\.embeddings\.(position_ids|token_type_ids)",
        r"bert\.pooler\.dense\.(weight|bias)",
    ),
    ties=((r"cls\.predictions\.decoder\.weight", WORDS),),
)

# Our name of each size in an official config.json, and what else such a file may not contradict.
_SETTINGS = {
    **SETTINGS,
    "positions": "max_position_embeddings",
    "mlm_bias_twice": "mlm_bias_twice",
}
_FIXED = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}


class DnabertConfig(BaseModel):
    """The config's `[model]` table.

    Attributes:
        vocabulary: Token ids: five special ones and 4^k k-mers.
        dim: Width of the residual stream.
        layers: Layers.
        heads: Attention heads a layer.
        hidden: Width of the feed-forward layer.
        positions: Rows that the table of learned positions allows.
        types: Token types; only the first is used.
        eps: Added to the variance in norms.
        tied: Whether the decoder shares its matrix with the embeddings.
        mlm_bias_twice: Whether the output bias counts twice, see the module.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: int = Field(gt=0)
    dim: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    hidden: int = Field(gt=0)
    positions: int = Field(default=512, gt=2)
    types: int = Field(default=2, gt=0)
    eps: float = Field(default=1e-12, gt=0, lt=1)
    tied: bool = True
    mlm_bias_twice: bool = False

    @model_validator(mode="after")
    def _check(self) -> DnabertConfig:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is no multiple of {self.heads} heads")
        return self


class Encoder(nn.Module):
    """The layers, `layer.0` and so on."""

    def __init__(self, config: DnabertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            PostNormLayer(config.dim, config.heads, config.hidden, config.eps)
            for _ in range(config.layers)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Update rows (B, T, D); gives them and a map (B, H, T, T) a layer."""
        maps = []
        for layer in self.layer:
            x, seen = layer(x)
            maps.append(seen)
        return x, maps


class Trunk(nn.Module):
    """What official keys call `bert`."""

    def __init__(self, config: DnabertConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(
            config.vocabulary,
            config.dim,
            config.eps,
            positions=config.positions,
            types=config.types,
        )
        self.encoder = Encoder(config)

    def forward(self, rows: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Turn ids (B, T) into rows (B, T, D) and a map (B, H, T, T) a layer."""
        x: tuple[Tensor, list[Tensor]] = self.encoder(self.embeddings(rows))
        return x


class Dnabert(Network):
    """The network: ids (B, T) to logits (B, T, V) and embeddings (B, T, D)."""

    has_attention = True

    def __init__(self, config: DnabertConfig) -> None:
        super().__init__()
        self.config = config
        self.dim, self.vocabulary = config.dim, config.vocabulary
        self.max_rows = config.positions
        self.bert = Trunk(config)
        self.cls = Head(MaskedHead(config.dim, config.vocabulary, config.eps))
        if config.tied:
            self.cls.predictions.decoder.weight = self.bert.embeddings.word_embeddings.weight
        start(self)

    def embed(self, rows: Tensor) -> Tensor:
        """Return the last layer, which ends in a norm, shape (B, T, D), for ids (B, T)."""
        x: Tensor = self.bert(rows)[0]
        return x

    def attend(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `embed` does, and the attention maps (B, layers, H, T, T)."""
        x, maps = self.bert(rows)
        return x, torch.stack(maps, dim=1)

    def decode(self, embedding: Tensor) -> Tensor:
        """Turn embeddings (B, T, D) into logits (B, T, V)."""
        logits: Tensor = self.cls.predictions(embedding)
        if self.config.mlm_bias_twice:
            logits = logits + self.cls.predictions.decoder.bias
        return logits


def vocabulary(k: int) -> list[str]:
    """List the tokens in the order of their ids, as `vocab.txt` does."""
    return [*SPECIAL, *("".join(word) for word in itertools.product(ORDER, repeat=k))]


def build(values: Values) -> Dnabert:
    """Make a network with fresh weights.

    Raises:
        InputError: A key or value of `[model]` is not allowed.
    """
    return Dnabert(build_config(DnabertConfig, values))


def recognise(source: Source) -> bool:
    """Tell whether a source is BERT over DNABERT's number of k-mers."""
    words = source.weights.get(WORDS)
    return (
        words is not None
        and words.ndim == 2
        and words.shape[0] in SIZES
        and _POSITIONS in source.weights
        and "bert.encoder.layer.0.attention.self.query.weight" in source.weights
        and not any("attention_ln" in key for key in source.weights)
    )


def load(source: Source, context: int | None) -> Loaded:
    """Read an official checkpoint.

    Raises:
        InputError: Weights, config or vocab.txt contradict each other or the system, or the
            window is longer than the table of positions.
    """
    values = settings(source, _SETTINGS, _FIXED)
    values["tied"] = is_tied(source.weights)
    config = parse_config(DnabertConfig, source, values, _SETTINGS)
    k = SIZES.get(config.vocabulary)
    if k is None:
        raise InputError(
            f"{source.name}: config: vocab_size is {config.vocabulary}, wanted "
            f"{' or '.join(map(str, SIZES))}, k = 3 to 6; fetch config and weights of one "
            "checkpoint"
        )
    check_vocabulary(source, vocabulary(k))
    check_biases(source)
    network = Dnabert(config)
    fill(network, source, KEYS)
    # A window of n bases has n - k + 1 k-mers, and two special tokens.
    most = config.positions - 2 + k - 1
    window = min(_CONTEXT, most) if context is None else context
    if not k <= window <= most:
        raise InputError(
            f"{source.name}: --context {window}: allowed are {k} to {most} bases, "
            f"which are {config.positions} rows"
        )
    return Loaded(network, _card(k, window))


def _card(k: int, window: int) -> dict[str, Any]:
    ids = {word: place for place, word in enumerate(SPECIAL)}
    return {
        "context": window,
        "anchor": window // 2,
        "encoder": {
            "kind": "kmer",
            "k": k,
            "stride": 1,
            "vocab": {
                "order": ORDER,
                "first_id": len(SPECIAL),
                "pad_id": ids["[PAD]"],
                "unk_id": ids["[UNK]"],
                "mask_id": ids["[MASK]"],
                # Any k-mer that holds an N is unknown.
                "n": "token",
                "prefix": [ids["[CLS]"]],
                "suffix": [ids["[SEP]"]],
            },
        },
        "strand": "both",
        "scores": ["LLR", "PLLR", "EMB_COS"],
        "provenance": {
            "training_data": "Human reference genome, sequences without N",
            "assembly": "GRCh38.p13",
            "species": "Homo sapiens",
        },
    }


def _release(k: int) -> Release:
    return Release(
        f"dnabert-{k}",
        f"zhihan1996/DNA_bert_{k}",
        509 + k,
        note=f"overlapping {k}-mers; output bias as in transformers, once",
    )


OFFICIAL = Official(
    variant="k = 3 to 6",
    recognise=recognise,
    load=load,
    tag="DNABERT",
    tokenizer="overlapping k-mers, k = 3 to 6",
    code_licence="Apache-2.0",
    weights_licence="Apache-2.0 (not verified; see LICENSE in their repository)",
    releases=tuple(_release(k) for k in SIZES.values()),
)

FAMILY = Family(
    name="dnabert",
    objective="masked",
    build=build,
    trunk=is_matrix_of("bert.encoder."),
    citation="Ji, Zhou, Liu and Davuluri, Bioinformatics 37 (2021) 2112-2120",
    title="DNABERT",
    official=(OFFICIAL,),
)
