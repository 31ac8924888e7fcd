"""Batches of sequences in, model rows and their spans out: one_hot, kmer, bpe, bytes.

One idea removes every branch per model: a *span* says which bases a row stands for. What a score
masks, compares or pools follows from spans alone. Training imports this module too, so that what
a model saw is what it is shown.

Policy for letters other than A, C, G, T: kmer and one_hot treat each as N and follow the card's
`n`; bpe and bytes show the letter itself to the model's own vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from glm_annotate.errors import BundleError, InputError
from glm_annotate.genome import Codes, to_letters

Rows = NDArray[Any]  # (n, T) ids or (n, T, C) float32
Spans = NDArray[np.int32]


class Channel(BaseModel):
    """An input channel beside the bases, read from a file that the user names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    source: Literal["bigwig", "msa"]
    transform: Literal["none", "log1p"] = "none"
    missing: float = 0.0
    indel: Literal["edit", "reference"] = "reference"


class Vocab(BaseModel):
    """Token ids of an encoder.

    Attributes:
        order: Order of bases: channels of one_hot, digits of k-mers.
        first_id: Id of the first k-mer; the others follow in `itertools.product` order.
        single_ids: Ids of single letters: N, and the bases where k-mers leave a tail.
        tail: What non-overlapping k-mers do with the last len % k bases.
        n: What a base other than A, C, G, T becomes: its own token, zeros, the mask, an error.
        prefix: Ids put before every sequence.
        suffix: Ids put after every sequence.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    order: str = "ACGT"
    first_id: int = 0
    single_ids: dict[str, int] = Field(default_factory=dict)
    tail: Literal["single", "drop"] = "single"
    pad_id: int | None = None
    unk_id: int | None = None
    mask_id: int | None = None
    n: Literal["token", "zeros", "mask", "error"] = "token"
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Vocab:
        if sorted(self.order) != list("ACGT"):
            raise ValueError(f"order {self.order!r} is not an order of A, C, G and T")
        if self.n == "mask" and self.mask_id is None:
            raise ValueError("n = mask needs a mask_id")
        return self


class EncoderSpec(BaseModel):
    """The card's `encoder`: which encoder, and its vocabulary."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["one_hot", "kmer", "bpe", "bytes"]
    k: int = Field(default=1, ge=1, le=12)
    stride: int = Field(default=1, ge=1)
    vocab: Vocab = Field(default_factory=Vocab)
    channels: tuple[Channel, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> EncoderSpec:
        if self.stride > self.k:
            raise ValueError(f"stride {self.stride} is larger than k {self.k}: bases would be lost")
        if self.kind in ("one_hot", "bytes") and (self.k, self.stride) != (1, 1):
            raise ValueError(f"{self.kind} has k = 1 and stride = 1")
        if self.vocab.n == "zeros" and self.kind != "one_hot":
            raise ValueError("n = zeros is for one_hot; ids have n = token, mask or error")
        return self


@dataclass(frozen=True, slots=True)
class Encoded:
    """Sequences of one batch that have the same number of rows T.

    Attributes:
        index: Which sequences of the batch, shape (n,).
        rows: Ids, shape (n, T), int64; or channels, shape (n, T, C), float32.
        spans: Bases [start, end) that each row stands for, shape (n or 1, T, 2); (-1, -1) for
            special tokens. A leading 1 means that all sequences share them.
    """

    index: NDArray[np.int64]
    rows: Rows
    spans: Spans

    def spans_of(self, which: NDArray[np.int64]) -> Spans:
        """Give the spans of some members, still shared if they are shared."""
        return self.spans if self.spans.shape[0] == 1 else self.spans[which]


class Encoder(Protocol):
    """What every encoder offers."""

    spec: EncoderSpec

    def encode(self, codes: Codes) -> list[Encoded]:
        """Encode a batch of base codes, shape (B, L), grouped by the number of rows."""

    def base_ids(self, width: int, offset: int) -> NDArray[np.int64] | None:
        """Ids of rows of `width` bases by the base at `offset`, shape (4, n), A C G T; else None.

        None means that rows of this encoder do not have a fixed number of bases.
        """


def mask_rows(rows: Rows, touched: NDArray[np.bool_], spec: EncoderSpec) -> Rows:
    """Return a copy of rows (n, T[, C]) with those of `touched` (n, T) or (T,) masked.

    Raises:
        BundleError: The card's vocabulary has no mask.
    """
    out = rows.copy()
    if rows.ndim == 3:
        out[..., touched, :] = 0
        return out
    if spec.vocab.mask_id is None:
        raise BundleError("the card's encoder has no mask_id, so nothing can be masked")
    out[..., touched] = spec.vocab.mask_id
    return out


def _shared_spans(starts: NDArray[np.int64], width: int, vocab: Vocab) -> Spans:
    body = np.stack([starts, starts + width], axis=1)
    special = [np.full((len(ids), 2), -1) for ids in (vocab.prefix, vocab.suffix)]
    return np.concatenate([special[0], body, special[1]])[None].astype(np.int32)


def _with_specials(body: NDArray[np.int64], vocab: Vocab) -> NDArray[np.int64]:
    if not (vocab.prefix or vocab.suffix):
        return body
    n, left, right = body.shape[0], len(vocab.prefix), len(vocab.suffix)
    out = np.empty((n, left + body.shape[1] + right), dtype=np.int64)
    out[:, :left] = vocab.prefix
    out[:, left : left + body.shape[1]] = body
    out[:, left + body.shape[1] :] = vocab.suffix
    return out


def _refuse_n(known: NDArray[np.bool_], spec: EncoderSpec) -> None:
    if spec.vocab.n == "error" and not known.all():
        raise InputError("the model takes no N, and a window holds one")


class OneHot:
    """Channels in `vocab.order`; N is zeros in every channel."""

    def __init__(self, spec: EncoderSpec) -> None:
        self.spec = spec
        self._table = np.zeros((16, 4), dtype=np.float32)
        for channel, base in enumerate(spec.vocab.order):
            self._table["ACGT".index(base), channel] = 1.0

    def encode(self, codes: Codes) -> list[Encoded]:
        """Encode base codes (B, L) as float32 rows (B, L, 4)."""
        _refuse_n(codes < 4, self.spec)
        length = codes.shape[1]
        spans = _shared_spans(np.arange(length), 1, Vocab())
        return [Encoded(np.arange(codes.shape[0]), self._table[codes], spans)]

    def base_ids(self, width: int, offset: int) -> NDArray[np.int64] | None:
        """Give the channels of A, C, G, T, shape (4, 1)."""
        return np.array([[self.spec.vocab.order.index(b)] for b in "ACGT"])


class Letters:
    """One row a base: k-mers of k = 1 and bytes, through one table of ids."""

    def __init__(self, spec: EncoderSpec) -> None:
        self.spec = spec
        vocab = spec.vocab
        if spec.kind == "bytes":
            self._table = to_letters(np.arange(15, dtype=np.uint8)).astype(np.int64)
        else:
            self._table = np.full(15, _n_id(vocab), dtype=np.int64)
            for digit, base in enumerate(vocab.order):
                self._table["ACGT".index(base)] = vocab.first_id + digit
        if vocab.n == "mask" and vocab.mask_id is not None:
            self._table[4:] = vocab.mask_id

    def encode(self, codes: Codes) -> list[Encoded]:
        """Encode base codes (B, L) as ids (B, prefix + L + suffix)."""
        _refuse_n(codes < 4, self.spec)
        rows = _with_specials(self._table.take(codes), self.spec.vocab)
        spans = _shared_spans(np.arange(codes.shape[1]), 1, self.spec.vocab)
        return [Encoded(np.arange(codes.shape[0]), rows, spans)]

    def base_ids(self, width: int, offset: int) -> NDArray[np.int64] | None:
        """Give the ids of A, C, G, T, shape (4, 1)."""
        return self._table[:4, None]


class Kmers:
    """k-mers of k > 1, overlapping (stride < k) or not (stride = k).

    Non-overlapping k-mers with n = token follow the Nucleotide Transformer: the sequence is cut
    at every N, each stretch gives whole k-mers and then single bases, each N is a token. With
    n = mask the frame never moves.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        self.spec = spec
        self._order = np.array([spec.vocab.order.find(b) for b in "ACGT"] + [0] * 12)
        self._n_id = _n_id(spec.vocab)
        self._unknown = spec.vocab.unk_id if spec.vocab.unk_id is not None else self._n_id
        if spec.vocab.n == "mask" and spec.vocab.mask_id is not None:
            self._n_id = self._unknown = spec.vocab.mask_id
        singles = spec.vocab.single_ids
        self._singles = np.array([singles.get(b, -1) for b in "ACGT"] + [self._n_id] * 12)
        self._breaks = spec.stride == spec.k and spec.vocab.n == "token"

    def encode(self, codes: Codes) -> list[Encoded]:
        """Encode base codes (B, L) as ids; windows with N may have another number of rows."""
        known = codes < 4
        _refuse_n(known, self.spec)
        if not self._breaks:
            return [self._framed(codes, np.arange(codes.shape[0]))]
        clean = known.all(axis=1)
        groups = [self._framed(codes[clean], np.flatnonzero(clean))] if clean.any() else []
        if not clean.all():
            groups += self._broken(codes[~clean], np.flatnonzero(~clean))
        return groups

    def base_ids(self, width: int, offset: int) -> NDArray[np.int64] | None:
        """Give ids of k-mers (width = k) or single bases (width = 1) by the base at `offset`."""
        if width == 1 and self.spec.k != 1:
            return self._singles[:4, None]
        k, order = self.spec.k, self.spec.vocab.order
        digits = np.array(list(itertools.product(range(4), repeat=k)))  # (4^k, k)
        ids = self.spec.vocab.first_id + np.arange(4**k)
        return np.stack([ids[digits[:, offset] == order.index(base)] for base in "ACGT"])

    def _kmer_ids(self, codes: Codes, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        ids = np.zeros((codes.shape[0], starts.size), dtype=np.int64)
        known = np.ones(ids.shape, dtype=bool)
        for step in range(self.spec.k):
            column = codes[:, starts + step]
            ids = ids * 4 + self._order[column]
            known &= column < 4
        return np.where(known, ids + self.spec.vocab.first_id, self._unknown)

    def _framed(self, codes: Codes, index: NDArray[np.int64]) -> Encoded:
        k, stride, vocab = self.spec.k, self.spec.stride, self.spec.vocab
        length = codes.shape[1]
        starts = np.arange(0, length - k + 1, stride)
        body = self._kmer_ids(codes, starts)
        widths = np.full(starts.size, k)
        if stride == k and vocab.tail == "single" and length % k:
            tail = np.arange(length - length % k, length)
            self._need_singles()
            body = np.concatenate([body, self._singles[codes[:, tail]]], axis=1)
            starts = np.concatenate([starts, tail])
            widths = np.concatenate([widths, np.ones(tail.size, dtype=widths.dtype)])
        spans = _shared_spans(starts, 0, vocab)
        left = len(vocab.prefix)
        spans[0, left : left + starts.size, 1] += widths.astype(np.int32)
        return Encoded(index, _with_specials(body, vocab), spans)

    def _broken(self, codes: Codes, index: NDArray[np.int64]) -> list[Encoded]:
        """Encode sequences that hold N: every base knows its place in its N-free stretch."""
        self._need_singles()
        k, length = self.spec.k, codes.shape[1]
        places = np.arange(length)
        is_n = codes >= 4
        last_n = np.maximum.accumulate(np.where(is_n, places, -1), axis=1)
        next_n = np.where(is_n, places, length)
        next_n = np.minimum.accumulate(next_n[:, ::-1], axis=1)[:, ::-1]
        place = places - last_n - 1  # 0-based place in the stretch; -1 at an N itself
        whole = (next_n - last_n - 1) // k * k
        in_kmer = ~is_n & (place < whole)
        starts = is_n | ~in_kmer | (place % k == 0)
        padded = np.pad(codes, ((0, 0), (0, k)), constant_values=4)
        ids = np.where(in_kmer, self._kmer_ids(padded, places), self._singles[codes])
        ends = places + np.where(in_kmer, k, 1)
        counts = starts.sum(axis=1)
        return [
            self._gather(starts[same], ids[same], ends[same], index[same], int(count))
            for count in np.unique(counts)
            for same in [np.flatnonzero(counts == count)]
        ]

    def _gather(
        self,
        starts: NDArray[np.bool_],
        ids: NDArray[np.int64],
        ends: NDArray[np.int64],
        index: NDArray[np.int64],
        count: int,
    ) -> Encoded:
        vocab, n = self.spec.vocab, index.size
        first = np.nonzero(starts)[1].reshape(n, count)
        body = ids[starts].reshape(n, count)
        spans = np.full((n, count + len(vocab.prefix) + len(vocab.suffix), 2), -1, dtype=np.int32)
        left = len(vocab.prefix)
        spans[:, left : left + count, 0] = first
        spans[:, left : left + count, 1] = ends[starts].reshape(n, count)
        return Encoded(index, _with_specials(body, vocab), spans)

    def _need_singles(self) -> None:
        if (self._singles[:4] < 0).any():
            raise BundleError("the card's encoder needs single_ids of A, C, G and T for its tail")


class Bpe:
    """Byte-pair tokens of a `tokenizer.json`; prefix and suffix come from the card."""

    def __init__(self, spec: EncoderSpec, tokenizer: Path) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise BundleError(
                "this model needs the tokenizers package; run: pip install 'glm_annotate[bpe]'"
            ) from error
        self.spec = spec
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode(self, codes: Codes) -> list[Encoded]:
        """Encode base codes (B, L) as ids, grouped by the number of tokens."""
        _refuse_n(codes < 4, self.spec)
        letters = to_letters(codes)
        texts = [row.tobytes().decode("ascii") for row in letters]
        tokens = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        counts = np.array([len(x.ids) for x in tokens], dtype=np.int64)
        return [
            self._group([tokens[i] for i in same], same, codes.shape[1])
            for count in np.unique(counts)
            for same in [np.flatnonzero(counts == count)]
        ]

    def base_ids(self, width: int, offset: int) -> NDArray[np.int64] | None:
        """Give None: tokens differ in length, so no row has a fixed place for a base."""
        return None

    def _group(self, tokens: Sequence[Any], index: NDArray[np.int64], length: int) -> Encoded:
        vocab = self.spec.vocab
        body = np.array([x.ids for x in tokens], dtype=np.int64).reshape(len(tokens), -1)
        starts = np.array([x.offsets for x in tokens], dtype=np.int32).reshape(*body.shape, 2)
        starts = starts[..., 0].copy()
        # A token can report only part of what it stands for (a run of N that the normaliser
        # folded): a row lasts from the end of the one before to the start of the next.
        ends = np.full_like(starts, length)
        ends[:, :-1] = starts[:, 1:]
        reported = np.array([x.offsets for x in tokens], dtype=np.int32).reshape(*body.shape, 2)
        ends = np.minimum(ends, np.maximum(reported[..., 1], 0))
        if ends.size:
            ends[:, -1] = length
        starts[:, 1:] = ends[:, :-1]
        starts[:, :1] = 0
        shape = (len(tokens), body.shape[1] + len(vocab.prefix) + len(vocab.suffix), 2)
        spans = np.full(shape, -1, dtype=np.int32)
        left = len(vocab.prefix)
        spans[:, left : left + body.shape[1], 0] = starts
        spans[:, left : left + body.shape[1], 1] = ends
        return Encoded(index, _with_specials(body, vocab), spans)


def _n_id(vocab: Vocab) -> int:
    if "N" in vocab.single_ids:
        return vocab.single_ids["N"]
    if vocab.unk_id is not None:
        return vocab.unk_id
    if vocab.mask_id is not None and vocab.n == "mask":
        return vocab.mask_id
    if vocab.n == "error":
        return -1  # never reached: encode refuses N first
    raise BundleError("the card's encoder has no id for N: set single_ids.N, unk_id or n")


def make_encoder(spec: EncoderSpec, tokenizer: Path | None = None) -> Encoder:
    """Build the encoder that a card asks for.

    Raises:
        BundleError: A bpe encoder without its tokenizer.json, or a vocabulary without an id for N.
    """
    if spec.kind == "one_hot":
        return OneHot(spec)
    if spec.kind == "bytes" or (spec.kind == "kmer" and spec.k == 1):
        return Letters(spec)
    if spec.kind == "kmer":
        return Kmers(spec)
    if tokenizer is None or not tokenizer.is_file():
        raise BundleError("a bpe encoder needs tokenizer.json in the bundle, and it is not there")
    return Bpe(spec, tokenizer)
