"""Caduceus: Mamba in both directions over single bases; PS reads both strands with one network.

After Schiff et al. (2024). What decides whether official weights give the authors' numbers:

- PS keeps two streams, the window and its reverse complement, that meet in the head alone. The
  authors' fused code (`fused_add_norm: true`, as in every released config) makes the streams change
  places at each block but not at the final norm; their unfused code does not. Weights trained with
  one are nonsense with the other, though both are equivariant: the config decides.
- No special token is used. The authors' tokenizer appends [SEP], but their masked-language data
  set cuts it off again before the network sees it, and so do their scripts for variants. Without
  it, and with N and [MASK] their own complements, PS is exactly equivariant, so that one strand
  gives the number of both.
- N is the tokenizer's own token. In training, N of the assembly was replaced by [PAD].
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from glm_annotate.errors import InputError
from glm_annotate.train.families.caduceus_blocks import (
    Block,
    CaduceusConfig,
    Embeddings,
    make_norm,
)
from glm_annotate.train.families.family import (
    Family,
    Loaded,
    Network,
    Official,
    Release,
    Source,
    Values,
)
from glm_annotate.train.official import Keys, build_config, fill, parse_config, rename, whole

_RENAME = (
    (r"caduceus\.backbone\.", ""),
    (r"(.*\.)submodule\.", r"\1"),
    (r"embeddings\.word_embeddings\.embedding\.", "embeddings.word_embeddings."),
    (r"lm_head\.lm_head\.", "lm_head."),
)
# The map is checked against the vocabulary and then computed.
_IGNORE = (r"(.*\.)?complement_map",)
_TABLE, _HEAD = "embeddings.word_embeddings.weight", "lm_head.weight"
_FORWARD = r"(.*\.)mamba_fwd\.((?:in|out)_proj\..*)"
_REVERSE = r"(.*\.)mamba_rev\.((?:in|out)_proj\..*)"

# Of the authors' tokenizer: [CLS] [SEP] [BOS] [MASK] [PAD] [RESERVED] [UNK] A C G T N.
_LETTERS = 12
_MASK, _PAD, _UNK, _FIRST, _N = 3, 4, 6, 7, 11
_COMPLEMENTS = {7: 10, 10: 7, 8: 9, 9: 8}

# Default window: one CPU core reads it in a second (PH) or two (PS) with 16 layers.
_AFFORDABLE = 2048
# Longest window of any release, and of the shortest: bounds where nothing tells the trained one.
_LONGEST, _SHORTEST = 131_072, 1024

# Of the config's `ssm_cfg`: what our config calls it, and what only matters at initialisation.
_SSM = {
    "d_state": "states",
    "d_conv": "kernel",
    "expand": "expand",
    "conv_bias": "conv_bias",
    "bias": "bias",
}
_SSM_UNUSED = frozenset(
    {"dt_rank", "dt_min", "dt_max", "dt_init", "dt_scale", "dt_init_floor", "use_fast_path"}
)
_DIRECTIONS = {"add": "add", "ew_multiply": "multiply"}


class Caduceus(Network):
    """The network: ids (B, T) to logits (B, T, V) and embeddings (B, T, D), or (B, T, 2 D) in PS.

    In PS the second half of an embedding is that of the reverse complement at the same base, with
    its channels in reversed order.
    """

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__()
        self.config = config
        self.equivariant = bool(config.complement)
        self.dim = config.dim * (2 if self.equivariant else 1)
        self.vocabulary = config.vocabulary
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm_f = make_norm(config)
        self.lm_head = nn.Linear(config.dim, config.vocabulary, bias=False)
        if config.tied_head:
            self.lm_head.weight = self.embeddings.word_embeddings.weight
        self.complement: Tensor
        self.register_buffer(
            "complement", torch.tensor(config.complement, dtype=torch.int64), persistent=False
        )

    def embed(self, rows: Tensor) -> Tensor:
        """Return the last layer after the final norm, shape (B, T, dim), for ids (B, T)."""
        strands = [rows, self.complement[rows.flip(1)]] if self.equivariant else [rows]
        x = self.embeddings(torch.stack(strands))  # (S, B, T, D), each strand in its own direction
        for layer in self.layers:
            if self.config.exchange:  # each strand becomes what the other reads, turned around
                x = x.flip(0, 2, 3)
            x = x + layer(x)
        x = self.norm_f(x)
        return torch.cat([x[0], x[1].flip(1, 2)], dim=-1) if self.equivariant else x[0]

    def decode(self, embedding: Tensor) -> Tensor:
        """Turn embeddings (B, T, dim) into logits (B, T, V)."""
        if not self.equivariant:
            alone: Tensor = self.lm_head(embedding)
            return alone
        ours, theirs = embedding.chunk(2, dim=-1)
        logits: Tensor = self.lm_head(ours)
        return logits + functional.linear(theirs.flip(-1), self.lm_head.weight[self.complement])


def build(values: Values) -> Caduceus:
    """Make a network with fresh weights.

    Raises:
        InputError: A key or value of `[model]` is not allowed.
    """
    return Caduceus(build_config(CaduceusConfig, values))


def is_trunk(name: str, weight: Tensor) -> bool:
    """Tell projections of the blocks from all else; logarithms of rates are no projection."""
    return name.startswith("layers.") and weight.ndim == 2 and not name.endswith("A_log")


def load(source: Source, context: int | None) -> Loaded:
    """Read an official checkpoint, PH or PS.

    Raises:
        InputError: Config, keys or window contradict the architecture.
    """
    config = read_config(source)
    network = Caduceus(config)
    fill(network, source, _keys(config))
    window = _window(source, context)
    vocab = {
        "order": "ACGT",
        "first_id": _FIRST,
        "single_ids": {"N": _N},
        "pad_id": _PAD,
        "unk_id": _UNK,
        "mask_id": _MASK,
    }
    card = {
        "encoder": {"kind": "kmer", "k": 1, "stride": 1, "vocab": vocab},
        "context": window,
        "anchor": window // 2,
        "strand": "equivariant" if network.equivariant else "both",
        "scores": ("LLR", "PLLR"),
        "embedding": {"pool": "site", "halves": "rc" if network.equivariant else "none"},
        "provenance": {
            "training_data": "Human reference genome, the intervals of Basenji2's training set.",
            "assembly": "GRCh38",
            "species": "Homo sapiens",
            "limits": "In training N of the assembly was the token [PAD], not N.",
        },
    }
    return Loaded(network, card)


def read_config(source: Source) -> CaduceusConfig:
    """Read the authors' config; what it leaves out has their default.

    Raises:
        InputError: There is none, or it contradicts itself, the keys or the vocabulary.
    """
    given = source.config
    if "d_model" not in given:
        raise InputError(
            f"{source.name}: no config.json with d_model beside the weights; fetch it from their "
            "repository"
        )
    both = _is_both(source)
    wrapped = any(".mixer.submodule." in name for name in source.weights)
    if both != wrapped:
        raise InputError(
            f"{source.name}: config: rcps is {both}, wanted {wrapped} by the keys of the mixers; "
            "fetch config and weights of one checkpoint"
        )
    vocabulary = _vocabulary(source)
    names = rename(source.weights, Keys(_RENAME))
    values = {
        **_mamba(source, given.get("ssm_cfg") or {}),
        "vocabulary": vocabulary,
        "dim": given["d_model"],
        "layers": given.get("n_layer"),
        "norm": "rms" if given.get("rms_norm", True) else "layer",
        "eps": given.get("norm_epsilon", 1e-5),
        "directions": _directions(source),
        # The authors tie or do not; a file that stores both, and differently, is taken as it is.
        "tied": bool(given.get("bidirectional_weight_tie", True)) and _agree(names, _REVERSE),
        "tied_head": (both or bool(given.get("tie_word_embeddings", True)))
        and _same(names.get(_HEAD), names.get(_TABLE)),
        "complement": _complement(source, vocabulary) if both else (),
        "exchange": both and _is_fused(source),
    }
    return parse_config(CaduceusConfig, source, values)


def _keys(config: CaduceusConfig) -> Keys:
    """Say how keys are read: a tied weight may be missing, whichever of the two it is."""
    ties: tuple[tuple[str, str], ...] = ()
    if config.tied:
        ties += ((_REVERSE, r"\1mamba_fwd.\2"), (_FORWARD, r"\1mamba_rev.\2"))
    if config.tied_head:
        ties += ((re.escape(_HEAD), _TABLE), (re.escape(_TABLE), _HEAD))
    return Keys(_RENAME, _IGNORE, ties)


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two weights can be one: equal, or one of them left out."""
    return one is None or other is None or torch.equal(one, other)


def _agree(names: Mapping[str, Tensor], pattern: str) -> bool:
    """Whether every stored projection of the reverse direction is that of the forward one."""
    return all(
        _same(value, names.get(re.sub(pattern, r"\1mamba_fwd.\2", name)))
        for name, value in names.items()
        if re.fullmatch(pattern, name)
    )


def _mamba(source: Source, given: object) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise InputError(
            f"{source.name}: config: ssm_cfg is {given!r}, wanted a table; fetch config and "
            "weights of one checkpoint"
        )
    unknown = sorted(set(given) - set(_SSM) - _SSM_UNUSED)
    if unknown:
        known = ", ".join(sorted({*_SSM, *_SSM_UNUSED}))
        raise InputError(
            f"{source.name}: config: ssm_cfg has {unknown[0]}, wanted keys are {known}; fetch "
            "config and weights of one checkpoint"
        )
    values = {_SSM[name]: value for name, value in given.items() if name in _SSM}
    rank = given.get("dt_rank", "auto")
    return {**values, "rank": None if rank == "auto" else rank}


def _directions(source: Source) -> str:
    if not source.config.get("bidirectional", True):
        return "forward"
    strategy = source.config.get("bidirectional_strategy") or "add"
    if not isinstance(strategy, str) or strategy not in _DIRECTIONS:
        raise InputError(
            f"{source.name}: config: bidirectional_strategy is {strategy!r}, wanted "
            f"{' or '.join(_DIRECTIONS)}; fetch config and weights of one checkpoint"
        )
    return _DIRECTIONS[strategy]


def _vocabulary(source: Source) -> int:
    """Pad the vocabulary as the authors do; it must be that of their tokenizer."""
    multiple = whole(source, "pad_vocab_size_multiple", 8)
    found = -(-whole(source, "vocab_size") // multiple) * multiple
    wanted = -(-_LETTERS // multiple) * multiple
    if found != wanted:
        raise InputError(
            f"{source.name}: config: vocab_size is {source.config.get('vocab_size')}, wanted "
            f"{_LETTERS} tokens, or {wanted} with padding; fetch config and weights of one "
            "checkpoint"
        )
    return found


def _complement(source: Source, vocabulary: int) -> tuple[int, ...]:
    """Compute the complement of each id, and compare it with every map that the source holds."""
    wanted = tuple(_COMPLEMENTS.get(i, i) for i in range(vocabulary))
    maps: dict[str, Mapping[int, int]] = {
        name: dict(enumerate(value.tolist()))
        for name, value in source.weights.items()
        if name.endswith("complement_map")
    }
    # By key and not by place: JSON sorts keys as text, so that 10 comes before 2.
    given = source.config.get("complement_map") or {}
    try:
        maps["config.complement_map"] = {int(key): int(value) for key, value in given.items()}
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{source.name}: config: complement_map is no map of ids") from error
    for name, found in maps.items():
        for here, there in found.items():
            if not 0 <= here < vocabulary or wanted[here] != there:
                raise InputError(
                    f"{source.name}: {name} pairs {here} with {there}, wanted 7 with 10, 8 with 9 "
                    "and every other id with itself; fetch config and weights of one checkpoint"
                )
    return wanted


def _is_both(source: Source) -> bool:
    """Whether both strands are read; from the keys where there is no config."""
    if "rcps" in source.config or "d_model" in source.config:
        return bool(source.config.get("rcps", False))
    return any(name.endswith("lm_head.complement_map") for name in source.weights)


def _is_fused(source: Source) -> bool:
    """Read `fused_add_norm`, which changes names of keys too.

    Raises:
        InputError: Config and keys disagree.
    """
    fused = bool(source.config.get("fused_add_norm", True))
    wrapped = any(name.endswith("norm.submodule.weight") for name in source.weights)
    if fused == wrapped:
        raise InputError(
            f"{source.name}: config: fused_add_norm is {fused}, wanted {not fused} by the keys of "
            "the norms; fetch config and weights of one checkpoint"
        )
    return fused


def _window(source: Source, context: int | None) -> int:
    trained = _trained(source)
    limit = trained or _LONGEST
    window = context if context is not None else min(_AFFORDABLE, trained or _SHORTEST)
    if not 1 <= window <= limit:
        raise InputError(
            f"{source.name}: --context {window}: allowed are 1 to {limit} bases, which it was "
            "trained on"
        )
    return window


def _trained(source: Source) -> int | None:
    """Find the window that it was trained on, in bases; None where nothing tells."""
    known = []
    path = source.file("tokenizer_config.json")
    if path is not None:
        try:
            length = json.loads(path.read_text(encoding="utf-8")).get("model_max_length")
        except (OSError, ValueError, AttributeError) as error:
            raise InputError(
                f"{path}: cannot be read ({error!r}); fetch the {path.name} of the same checkpoint"
            ) from error
        known += [length] if isinstance(length, int) and 1 <= length <= _LONGEST else []
    folder = source.folder.resolve().name if source.folder is not None else ""
    for text in (source.repository, folder):
        found = re.search(r"seqlen-(\d+)k", text)
        # Trained windows are powers of two, and their names hold whole thousands: 131k is 131,072.
        powers = (1 << n for n in range(10, 18))
        known += [x for x in powers if found is not None and x // 1000 == int(found[1])]
    return min(known, default=None)


def _is_ours(source: Source, *, both: bool) -> bool:
    named = source.config.get("model_type") == "caduceus"
    keyed = any(name.startswith("caduceus.backbone.") for name in source.weights)
    return (named or keyed) and _is_both(source) == both


def _official(variant: str, both: bool) -> Official:
    owner, kind = "kuleshov-group/caduceus", variant.lower()
    sizes = (("131k", 256, 16, ""), ("1k", 256, 4, "_lr-8e-3"), ("1k", 118, 4, "_lr-8e-3"))
    releases = tuple(
        Release(
            name=f"caduceus-{kind}-{length}-d{dim}",
            repository=f"{owner}-{kind}_seqlen-{length}_d_model-{dim}_n_layer-{layers}{suffix}",
            context=131_072 if length == "131k" else 1024,
        )
        for length, dim, layers, suffix in sizes
    )
    return Official(
        variant=variant,
        recognise=lambda source: _is_ours(source, both=both),
        load=load,
        tag=f"CAD{variant}",
        tokenizer="single bases",
        code_licence="Apache-2.0",
        weights_licence="Apache-2.0 (131k; not stated for 1k)",
        releases=releases,
    )


FAMILY = Family(
    name="caduceus",
    objective="masked",
    build=build,
    trunk=is_trunk,
    citation="Schiff et al., ICML 2024, arXiv:2403.03234",
    title="Caduceus",
    official=(_official("PH", both=False), _official("PS", both=True)),
)
