"""Toy bundles: models small enough to work out by hand, in every shape that a card describes.

What they compute is in `toy_graphs.py`. Only the `onnx` package is used, no torch. The self-test's
outputs come from onnx's own reference evaluator: a runtime that passes it agrees with a second
implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from pydantic import ValidationError

from glm_annotate.bundle import GRAPH, SELFTEST, TOKENIZER, replicate, write_bundle
from glm_annotate.card import ModelCard
from glm_annotate.encoding import make_encoder, mask_rows
from glm_annotate.errors import BundleError, UsageError
from glm_annotate.train.toy_graphs import Graph, Shape, causal, free, markov, one_hot, uniform

WITH_CHANNELS = ("markov", "wide", "prefix", "onehot")
TYPES = {
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "uint8": TensorProto.UINT8,
    "float32": TensorProto.FLOAT,
}


@dataclass(frozen=True, slots=True)
class Toy:
    """One kind of toy: the encoder's part of its card, its vocabulary and its graph."""

    encoder: Mapping[str, Any]
    size: int
    body: Callable[[Graph, Shape], None]
    context: int = 32
    objective: str = "masked"
    embeds: bool = True
    dtype: str = "int64"


def _ids(**vocab: Any) -> dict[str, Any]:
    return {"kind": "kmer", "vocab": vocab}


_PLAIN = _ids(first_id=3, pad_id=0, mask_id=1, unk_id=2)
_PREFIX = _ids(order="TGCA", first_id=5, pad_id=0, unk_id=1, mask_id=4, prefix=(2,), suffix=(3,))
_CAUSAL = _ids(first_id=7, pad_id=4, unk_id=6, single_ids={"N": 11}, prefix=(2,))
_FREE = _ids(first_id=0, unk_id=4, mask_id=5, pad_id=5)
_ONE_HOT = {"kind": "one_hot", "vocab": {"n": "zeros"}}
_OVERLAP = {**_PREFIX, "k": 3, "vocab": {**_PREFIX["vocab"], "order": "ATCG"}}
_SINGLES = {"A": 68, "T": 69, "C": 70, "G": 71, "N": 72}
_BLOCK_IDS = {"first_id": 4, "unk_id": 0, "pad_id": 1, "mask_id": 2, "prefix": (3,)}
_BLOCKS = {**_ids(order="ATCG", single_ids=_SINGLES, **_BLOCK_IDS), "k": 3, "stride": 3}
_BPE_SPECIALS = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
_BPE_IDS = {"unk_id": 0, "prefix": (1,), "suffix": (2,), "pad_id": 3, "mask_id": 4}
_BPE = {"kind": "bpe", "vocab": _BPE_IDS}

TOYS: dict[str, Toy] = {
    "markov": Toy(_PLAIN, 7, markov),
    "wide": Toy(_PLAIN, 7, partial(markov, wide=True)),
    "causal": Toy(_CAUSAL, 12, causal, objective="causal"),
    "prefix": Toy(_PREFIX, 9, markov),
    "overlap": Toy(_OVERLAP, 5 + 4**3, markov),
    "blocks": Toy(_BLOCKS, 73, markov, context=27),
    "bpe": Toy(_BPE, 64, markov, context=60),
    "onehot": Toy(_ONE_HOT, 4, one_hot, dtype="float32"),
    "uniform": Toy(_PLAIN, 7, uniform),
    "free": Toy(_FREE, 6, free, embeds=False, dtype="uint8"),
}


def build(
    kind: str,
    folder: Path,
    *,
    seed: int = 0,
    context: int | None = None,
    bos: bool = True,
    n: str | None = None,
    dtype: str | None = None,
    dim: int = 6,
    pool: str = "site",
    k: int = 1,
    halves: str = "none",
    max_tokens: int | None = None,
    multiple_of: int = 1,
    channels: Sequence[Mapping[str, Any]] = (),
    replicates: int = 0,
    **card: Any,
) -> Path:
    """Write a toy bundle into a folder, which is made if need be.

    Args:
        kind: A key of `TOYS`.
        folder: Where card.json, model.onnx and selftest.npz go.
        seed: Of the tables, of the self-test and of the bpe tokenizer's training text.
        context: Bases of the window; the anchor is its middle unless the card says so.
        bos: False takes the prefix off the causal toy's vocabulary.
        n: The vocabulary's policy for N instead of the toy's own.
        dtype: Of the input `rows`: int64, int32 or uint8, where rows are ids.
        dim: Channels of the embedding.
        pool: With k and halves the card's embedding rule.
        k: Bases of pool = window.
        halves: none or rc.
        max_tokens: Makes the window dynamic (the bpe toy's always is).
        multiple_of: Rows are padded to a multiple of this.
        channels: Of the card's encoder, for the kinds of `WITH_CHANNELS`; the input is float32.
        replicates: How many graphs, each with tables of its own; 0 is one that is no replicate.
        **card: Any other key of the card: anchor, strand, circular, tag, scores, ...

    Returns:
        The folder.

    Raises:
        UsageError: No such kind, or an option that is neither named here nor a key of the card.
        BundleError: A card that is not valid.
    """
    if kind not in TOYS:
        raise UsageError(f"no toy bundle {kind!r}; there are: {', '.join(TOYS)}")
    if unknown := sorted(set(card) - set(ModelCard.model_fields)):
        known = ", ".join(ModelCard.model_fields)
        raise UsageError(f"toy bundle {kind}: no card key {unknown[0]!r}; there are: {known}")
    if channels and kind not in WITH_CHANNELS:
        raise UsageError(
            f"toy bundle {kind} has no channels; these may: {', '.join(WITH_CHANNELS)}"
        )
    toy = TOYS[kind]
    vocab = {**toy.encoder["vocab"], **({"n": n} if n else {}), **({} if bos else {"prefix": ()})}
    keys = {
        **_card(kind, toy, context or toy.context, dtype or toy.dtype),
        "encoder": {**toy.encoder, "vocab": vocab, "channels": channels},
        "window": {"multiple_of": multiple_of},
    }
    if channels:
        axes = ["batch", "rows", "channel"]
        keys["inputs"] |= {"channels": {"name": "channels", "axes": axes, "dtype": "float32"}}
    if toy.embeds:
        keys["embedding"] = {"dim": dim, "pool": pool, "k": k, "halves": halves}
    if kind == "bpe" and max_tokens is None:
        max_tokens = keys["context"] + 2  # a token a base, [CLS] and [SEP]: everything fits
    if max_tokens is not None:
        keys["window"] |= {"kind": "dynamic", "max_tokens": max_tokens}
    try:
        parsed = ModelCard.model_validate(keys | card)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(x) for x in first["loc"]) or "card"
        raise BundleError(f"toy bundle {kind}: {where}: {first['msg']}") from error
    graphs = [replicate(i) for i in range(replicates)] or [GRAPH]
    _write(toy, folder, parsed, graphs, seed=seed, dim=dim)
    return folder


def _card(kind: str, toy: Toy, context: int, dtype: str) -> dict[str, Any]:
    axes = ["batch", "rows"]
    outputs = {"logits": [*axes, "vocabulary"], "embedding": [*axes, "channel"]}
    if not toy.embeds:
        del outputs["embedding"]
    channels = ["channel"] if toy.encoder["kind"] == "one_hot" else []
    is_causal = toy.objective == "causal"
    return {
        "name": f"toy-{kind}",
        "tag": "TOY",
        "description": f"Toy model for tests ({kind}); its scores mean nothing.",
        "family": "toy",
        "objective": toy.objective,
        "context": context,
        "anchor": context // 2,
        "inputs": {"rows": {"name": "rows", "axes": axes + channels, "dtype": dtype}},
        "outputs": {name: {"name": name, "axes": a} for name, a in outputs.items()},
        "logits_shift": int(is_causal),
        "scores": ("LLR",) if is_causal else ("LLR", "PLLR"),
    }


def _write(
    toy: Toy, folder: Path, card: ModelCard, graphs: Sequence[str], *, seed: int, dim: int
) -> None:
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    if card.encoder.kind == "bpe":
        (folder / TOKENIZER).write_text(_tokenizer(random, toy.size), encoding="utf-8")
    vocab = card.encoder.vocab
    bases = tuple(vocab.first_id + vocab.order.index(b) for b in "ACGT")
    # Positions: a row a base, the special tokens, and padding up to the next multiple.
    specials = len(vocab.prefix) + len(vocab.suffix)
    reach = card.context + specials + card.window.multiple_of
    channels = len(card.encoder.channels)
    shape = Shape(toy.size, vocab.pad_id or 0, dim, reach, card.logits_shift, bases, channels)
    models = [_model(toy, card, shape, random) for _ in graphs]
    for name, model in zip(graphs, models, strict=True):
        (folder / name).write_bytes(model.SerializeToString(deterministic=True))
    _self_test(folder, models, card, random)
    write_bundle(folder, card.model_dump(exclude={"sha256"}))


def _model(toy: Toy, card: ModelCard, shape: Shape, random: np.random.Generator) -> onnx.ModelProto:
    g = Graph(random)
    toy.body(g, shape)
    axes: dict[str, list[Any]] = {
        "rows": ["batch", "rows", 4][: len(card.inputs["rows"].axes)],
        "channels": ["batch", "rows", shape.channels],
    }
    inputs = [
        helper.make_tensor_value_info(role, TYPES[tensor.dtype], axes[role])
        for role, tensor in card.inputs.items()
    ]
    widths = {"logits": shape.size, "embedding": shape.dim}
    graph = helper.make_graph(
        g.nodes,
        card.name,
        inputs,
        [
            helper.make_tensor_value_info(x, TensorProto.FLOAT, ["batch", "rows", widths[x]])
            for x in card.outputs
        ],
        g.tables,
    )
    # Old enough for any supported runtime.
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8, producer_name="toys")
    onnx.checker.check_model(model, full_check=True)
    return model


def _self_test(
    folder: Path, models: Sequence[onnx.ModelProto], card: ModelCard, random: np.random.Generator
) -> None:
    from onnx.reference import ReferenceEvaluator

    tokenizer = folder / TOKENIZER
    encoder = make_encoder(card.encoder, tokenizer if tokenizer.exists() else None)
    codes = random.integers(0, 4, size=(3, card.context)).astype(np.uint8)
    rows = max(encoder.encode(codes), key=lambda group: group.index.size).rows
    if card.objective == "masked":
        touched = np.zeros(rows.shape[:2], dtype=bool)
        touched[:, rows.shape[1] // 2] = True
        rows = np.concatenate([rows, mask_rows(rows, touched, card.encoder)])
    inputs = {"rows": rows.astype(card.inputs["rows"].dtype)}
    if card.encoder.channels:
        shape = *rows.shape[:2], len(card.encoder.channels)
        inputs["channels"] = random.integers(5, size=shape).astype(card.inputs["channels"].dtype)
    names = list(card.outputs)
    found = [ReferenceEvaluator(model).run(list(names), inputs) for model in models]
    values = found[0]
    if len(found) > 1:
        values = [np.mean(x, axis=0, dtype=np.float64) for x in zip(*found, strict=True)]
    arrays: dict[str, Any] = {f"input_{name}": value for name, value in inputs.items()}
    arrays |= {f"output_{name}": value for name, value in zip(names, values, strict=True)}
    np.savez(folder / SELFTEST, **arrays)


def _tokenizer(random: np.random.Generator, size: int) -> str:
    """Train byte-pair merges on a text in which some words are common; returns JSON."""
    from tokenizers import Tokenizer, models, trainers

    # Every word of three has its own probability, so that no two merges tie by design.
    words = np.array(["".join(x) for x in product("ACGT", repeat=3)])
    chance = random.dirichlet(np.full(words.size, 0.3))
    text = "".join(random.choice(words, size=4000, p=chance))
    tokenizer = Tokenizer(models.BPE(unk_token=_BPE_SPECIALS[0]))
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(_BPE_SPECIALS),
        initial_alphabet=list("ACGTN"),
        max_token_length=6,
        show_progress=False,
    )
    tokenizer.train_from_iterator([text[i : i + 400] for i in range(0, len(text), 400)], trainer)
    return str(tokenizer.to_str(pretty=True))
