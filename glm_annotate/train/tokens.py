"""Windows in, rows that a language model learns from out: ids, and which of them count.

Networks take no padding mask, so a batch has one number of rows. Where an encoder gives windows
different numbers (byte pairs, k-mers that break at N), `data.rows` says how many: what is longer
is cut at its right end, before the suffix; what is shorter is filled with the pad id, which the
network reads and is never asked for. Only rows that stand for A, C, G and T alone are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glm_annotate.encoding import Encoded, Encoder, EncoderSpec
from glm_annotate.errors import InputError
from glm_annotate.genome import Codes

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the ids of an encoder mean to training.

    Attributes:
        spec: Of the encoder.
        ids: Of rows that stand for A, C, G and T alone; of single bases in this order, shape (n,).
        bases: Bases that a row of each id adds to those before it, shape (n,).
        overlap: Rows that a base lies in.
    """

    spec: EncoderSpec
    ids: Ints
    bases: Ints
    overlap: int

    def count(self, labels: Ints) -> int:
        """Count the bases that rows of these ids add."""
        order = np.argsort(self.ids)
        place = np.searchsorted(self.ids[order], labels)
        return int(self.bases[order[place]].sum())


def read_tokens(spec: EncoderSpec, encoder: Encoder, tokenizer: Path | None = None) -> Tokens:
    """Tell which ids stand for bases alone.

    Raises:
        InputError: The encoder gives channels, not ids.
    """
    vocab = spec.vocab
    if spec.kind == "one_hot":
        raise InputError(
            "language models are trained on ids; found encoder.kind = one_hot, "
            "wanted kmer, bpe or bytes"
        )
    if spec.kind == "bpe":
        ids, lengths = _byte_pairs(tokenizer)
        return Tokens(spec, ids, lengths, 1)
    if spec.k == 1:
        one = np.arange(4, dtype=np.uint8)[:, None]
        bare = encoder.encode(one)[0].rows[:, len(vocab.prefix)].astype(np.int64)
        return Tokens(spec, bare, np.ones(4, dtype=np.int64), 1)
    words = vocab.first_id + np.arange(4**spec.k)
    tails = np.array([vocab.single_ids[x] for x in "ACGT" if x in vocab.single_ids], dtype=np.int64)
    if spec.stride < spec.k:
        tails = tails[:0]  # overlapping k-mers leave no tail
    bases = np.repeat([spec.stride, 1], [words.size, tails.size])
    overlap = -(-spec.k // spec.stride)
    return Tokens(spec, np.concatenate([words, tails]), bases, overlap)


def _byte_pairs(tokenizer: Path | None) -> tuple[Ints, Ints]:
    from tokenizers import Tokenizer

    words = Tokenizer.from_file(str(tokenizer)).get_vocab()
    plain = sorted(
        (i, len(word)) for word, i in words.items() if word and not set(word) - {*"ACGT"}
    )
    if not plain:
        raise InputError(
            f"{tokenizer}: has no token of A, C, G and T; make one with: "
            "glm-annotate tokenizer CONFIG.toml -o FILE.json"
        )
    ids, lengths = zip(*plain, strict=True)
    return np.array(ids, dtype=np.int64), np.array(lengths, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Block:
    """Windows as rows.

    Attributes:
        rows: Ids, shape (B, T).
        weights: Share of the loss that each row has, shape (B, T); None where all have 1.
    """

    rows: Ints
    weights: NDArray[np.float32] | None


def encode_block(
    encoder: Encoder,
    codes: Codes,
    rows: int | None = None,
    soft: NDArray[np.bool_] | None = None,
    repeat_weight: float = 1.0,
) -> Block:
    """Encode windows (B, L) into one block of rows.

    Args:
        encoder: Of the model.
        codes: Base codes.
        rows: How many there have to be; None: as many as the windows give, if all agree.
        soft: Which bases are soft-masked, shape (B, L).
        repeat_weight: Of these; a row's weight is the mean over its bases.

    Raises:
        InputError: Windows have different numbers of rows and `rows` does not say how many.
    """
    encoded = encoder.encode(codes)
    if rows is None and len(encoded) != 1:
        counts = sorted(group.rows.shape[1] for group in encoded)
        raise InputError(
            f"data.rows: windows of {codes.shape[1]} bases have {counts[0]} to {counts[-1]} rows, "
            f"and a batch needs equal numbers of rows; for example: rows = {counts[0]}"
        )
    width = encoded[0].rows.shape[1] if rows is None else rows
    ids = np.empty((codes.shape[0], width), dtype=np.int64)
    weights = None
    if soft is not None and repeat_weight != 1:
        weights = np.ones(ids.shape, dtype=np.float32)
    for group in encoded:
        ids[group.index] = _fitted(group.rows, width, encoder.spec)
        if weights is not None and soft is not None:
            found = _row_weights(group, soft[group.index], repeat_weight)
            kept = min(width, found.shape[1])
            weights[group.index[:, None], np.arange(kept)] = found[:, :kept]
    return Block(ids, weights)


def _fitted(found: NDArray[np.int64], width: int, spec: EncoderSpec) -> Ints:
    """Cut or fill rows (n, T) to `width`; the suffix stays at the end of what is cut."""
    vocab, count = spec.vocab, found.shape[1]
    if count >= width:
        out = found[:, :width].astype(np.int64)
        if count > width and vocab.suffix:
            out[:, width - len(vocab.suffix) :] = vocab.suffix
        return out
    pad = vocab.pad_id if vocab.pad_id is not None else vocab.unk_id
    if pad is None:
        raise InputError(
            f"data.rows: found {width}, a window has only {count} and encoder.vocab has no pad_id "
            "to fill it with; give one, or fewer rows"
        )
    filled = np.full((found.shape[0], width), pad, dtype=np.int64)
    filled[:, :count] = found
    return filled


def _row_weights(
    group: Encoded, soft: NDArray[np.bool_], repeat_weight: float
) -> NDArray[np.float32]:
    """Mean over each row's bases of 1, or `repeat_weight` where soft-masked, shape (n, T)."""
    before = np.zeros((soft.shape[0], soft.shape[1] + 1), dtype=np.int64)
    np.cumsum(soft, axis=1, out=before[:, 1:])
    spans = np.broadcast_to(group.spans, (soft.shape[0], *group.spans.shape[1:])).astype(np.int64)
    start, end = np.maximum(spans[..., 0], 0), np.maximum(spans[..., 1], 0)
    covered = np.take_along_axis(before, end, 1) - np.take_along_axis(before, start, 1)
    share = covered / np.maximum(end - start, 1)
    weights: NDArray[np.float32] = (1 - (1 - repeat_weight) * share).astype(np.float32)
    return weights
