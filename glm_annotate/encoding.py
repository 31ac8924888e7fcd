"""Batches of sequences in, model rows and their spans out: one_hot, kmer, bpe, bytes.

One idea removes every branch per model: a *span* says which bases a row stands for. What a score
masks, compares or pools follows from spans alone. Training imports this module too, so that what
a model saw is what it is shown.

Policy for letters other than A, C, G, T: kmer and one_hot treat each as N and follow the card's
`n`; bpe and bytes show the letter itself to the model's own vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from glm_annotate.errors import BundleError, InputError
from glm_annotate.genome import Codes, to_letters
from glm_annotate.plugins import make_plugin_encoder
from glm_annotate.vocab import EncoderSpec as EncoderSpec
from glm_annotate.vocab import Vocab as Vocab

# Ids (n, T) in the smallest of uint8, uint16 and int32 that holds every id of the vocabulary, mask
# and padding among them; or channels (n, T, C), float32.
Rows = NDArray[Any]
Spans = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Sequences of one batch that have the same number of rows T.

    Attributes:
        index: Which sequences of the batch, shape (n,).
        rows: Ids, shape (n, T); or channels, shape (n, T, C). For their types see `Rows`.
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


def _shared_spans(
    starts: NDArray[np.int64], widths: int | NDArray[np.int64], vocab: Vocab
) -> Spans:
    body = np.stack([starts, starts + widths], axis=1)
    special = [np.full((len(ids), 2), -1) for ids in (vocab.prefix, vocab.suffix)]
    return np.concatenate([special[0], body, special[1]])[None].astype(np.int32)


def _id_type(largest: int, vocab: Vocab) -> np.dtype[Any]:
    """Choose the smallest type that holds the ids of bases, up to `largest`, and of the card."""
    most = max(largest, *vocab.named_ids(), 0)
    return np.dtype(np.uint8 if most < 1 << 8 else np.uint16 if most < 1 << 16 else np.int32)


def _with_specials(body: Rows, vocab: Vocab) -> Rows:
    if not (vocab.prefix or vocab.suffix):
        return body
    n, left, right = body.shape[0], len(vocab.prefix), len(vocab.suffix)
    out = np.empty((n, left + body.shape[1] + right), dtype=body.dtype)
    out[:, :left] = vocab.prefix
    out[:, left : left + body.shape[1]] = body
    out[:, left + body.shape[1] :] = vocab.suffix
    return out


def refused(codes: Codes, spec: EncoderSpec) -> NDArray[np.bool_]:
    """Say which sequences (B, L) the encoder raises at: those with N, where n = error."""
    if spec.vocab.n != "error":
        return np.zeros(codes.shape[0], dtype=bool)
    has_n: NDArray[np.bool_] = np.any(codes > 3, axis=1)
    return has_n


def _refuse(codes: Codes, spec: EncoderSpec) -> None:
    if refused(codes, spec).any():
        raise InputError("the model takes no N (its card has n = error), and a window holds one")


class OneHot:
    """Channels in `vocab.order`; N is zeros in every channel."""

    def __init__(self, spec: EncoderSpec) -> None:
        self.spec = spec
        self._table = np.zeros((16, 4), dtype=np.float32)
        for channel, base in enumerate(spec.vocab.order):
            self._table["ACGT".index(base), channel] = 1.0

    def encode(self, codes: Codes) -> list[Encoded]:
        """Encode base codes (B, L) as float32 rows (B, L, 4)."""
        _refuse(codes, self.spec)
        length = codes.shape[1]
        spans = _shared_spans(np.arange(length), 1, Vocab())
        return [Encoded(np.arange(codes.shape[0]), self._table.take(codes, axis=0), spans)]

    def base_ids(self, width: int, offset: int) -> NDArray[np.int64] | None:
        """Give the channels of A, C, G, T, shape (4, 1)."""
        return np.array([[self.spec.vocab.order.index(b)] for b in "ACGT"])


class Letters:
    """One row a base: k-mers of k = 1 and bytes, through one table of ids."""

    def __init__(self, spec: EncoderSpec) -> None:
        self.spec = spec
        vocab = spec.vocab
        if spec.kind == "bytes":
            table = to_letters(np.arange(15, dtype=np.uint8)).astype(np.int64)
        else:
            table = np.full(15, _n_id(vocab), dtype=np.int64)
            for digit, base in enumerate(vocab.order):
                table["ACGT".index(base)] = vocab.first_id + digit
        if vocab.n == "mask" and vocab.mask_id is not None:
            table[4:] = vocab.mask_id
        self._table = table.astype(_id_type(int(table.max()), vocab))

    def encode(self, codes: Codes) -> list[Encoded]:
        """Encode base codes (B, L) as ids (B, prefix + L + suffix)."""
        _refuse(codes, self.spec)
        rows = _with_specials(self._table.take(codes), self.spec.vocab)
        spans = _shared_spans(np.arange(codes.shape[1]), 1, self.spec.vocab)
        return [Encoded(np.arange(codes.shape[0]), rows, spans)]

    def base_ids(self, width: int, offset: int) -> NDArray[np.int64] | None:
        """Give the ids of A, C, G, T, shape (4, 1)."""
        return self._table[:4, None].astype(np.int64)


class Kmers:
    """k-mers of k > 1, overlapping (stride < k) or not (stride = k).

    Non-overlapping k-mers with n = token follow the Nucleotide Transformer: the sequence is cut
    at every N, each stretch gives whole k-mers and then single bases (none where tail = drop), each
    N is a token. With n = mask the frame never moves.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        self.spec = spec
        vocab = spec.vocab
        n_id = _n_id(vocab)
        self._unknown = vocab.unk_id if vocab.unk_id is not None else n_id
        if vocab.n == "mask" and vocab.mask_id is not None:
            n_id = self._unknown = vocab.mask_id
        self._type = _id_type(vocab.first_id + 4**spec.k - 1, vocab)
        self._digits = np.array([vocab.order.index(b) for b in "ACGT"] + [0] * 11, dtype=np.uint8)
        # -1 where the card has no single id: `_need_singles` refuses before one is read.
        self._singles = np.array([vocab.single_ids.get(b, -1) for b in "ACGT"] + [n_id] * 11)
        self._tail = spec.stride == spec.k and vocab.tail == "single"
        self._breaks = spec.stride == spec.k and vocab.n == "token"

    def encode(self, codes: Codes) -> list[Encoded]:
        """Encode base codes (B, L) as ids; windows with N may have another number of rows."""
        _refuse(codes, self.spec)
        if not self._breaks:
            return [self._framed(codes, np.arange(codes.shape[0]))]
        clean = np.all(codes < 4, axis=1)
        groups = [self._framed(codes[clean], np.flatnonzero(clean))] if clean.any() else []
        if not clean.all():
            groups += self._broken(codes[~clean], np.flatnonzero(~clean))
        return groups

    def base_ids(self, width: int, offset: int) -> NDArray[np.int64] | None:
        """Give ids of k-mers (width = k) or single bases (width = 1) by the base at `offset`."""
        if width == 1:
            self._need_singles()
            return self._singles[:4, None]
        k, order = self.spec.k, self.spec.vocab.order
        place = np.arange(4**k)
        digit = place // 4 ** (k - 1 - offset) % 4
        ids = self.spec.vocab.first_id + place
        return np.stack([ids[digit == order.index(base)] for base in "ACGT"])

    def _kmer_ids(self, codes: Codes, count: int, stride: int) -> Rows:
        """Give ids of the k-mers at 0, stride, 2 stride and so on, shape (B, count)."""
        stop = max(0, (count - 1) * stride + 1)
        digits = self._digits[codes]
        ids = np.zeros((codes.shape[0], count), dtype=self._type)
        for step in range(self.spec.k):
            ids *= 4
            ids += digits[:, step : step + stop : stride]
        ids += self._type.type(self.spec.vocab.first_id)
        unknown = codes > 3
        if unknown.any():
            for step in range(self.spec.k):
                ids[unknown[:, step : step + stop : stride]] = self._unknown
        return ids

    def _framed(self, codes: Codes, index: NDArray[np.int64]) -> Encoded:
        k, stride, vocab = self.spec.k, self.spec.stride, self.spec.vocab
        length = codes.shape[1]
        starts = np.arange(0, length - k + 1, stride)
        body = self._kmer_ids(codes, starts.size, stride)
        widths = np.full(starts.size, k)
        if self._tail and length % k:
            self._need_singles()
            tail = np.arange(length - length % k, length)
            singles = self._singles.astype(self._type)[codes[:, tail]]
            body = np.concatenate([body, singles], axis=1)
            starts = np.concatenate([starts, tail])
            widths = np.concatenate([widths, np.ones(tail.size, dtype=widths.dtype)])
        return Encoded(index, _with_specials(body, vocab), _shared_spans(starts, widths, vocab))

    def _broken(self, codes: Codes, index: NDArray[np.int64]) -> list[Encoded]:
        """Encode sequences that hold N: every base knows its place in its N-free stretch."""
        if self._tail:
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
        starts = is_n | (in_kmer & (place % k == 0))
        if self._tail:
            starts |= ~in_kmer
        padded = np.pad(codes, ((0, 0), (0, k)), constant_values=4)
        singles = self._singles.astype(self._type)[codes]
        ids = np.where(in_kmer, self._kmer_ids(padded, length, 1), singles)
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
        ids: Rows,
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
        self._type = _id_type(max(self._tokenizer.get_vocab().values(), default=0), spec.vocab)

    def encode(self, codes: Codes) -> list[Encoded]:
        """Encode base codes (B, L) as ids, grouped by the number of tokens."""
        _refuse(codes, self.spec)
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
        body = np.array([x.ids for x in tokens], dtype=self._type).reshape(len(tokens), -1)
        offsets = np.array([x.offsets for x in tokens], dtype=np.int32).reshape(*body.shape, 2)
        # A token can report only part of what it stands for (a run of N that the normaliser
        # folded), so a row lasts from the end of the row before to its own end.
        ends = offsets[..., 1]
        ends[:, -1:] = length
        starts = np.zeros_like(ends)
        starts[:, 1:] = ends[:, :-1]
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
    """Build the encoder that a card asks for; one of another package has a kind with a dot.

    Raises:
        BundleError: A bpe encoder without its tokenizer.json, a vocabulary without an id for N, or
            no such package.
    """
    if spec.is_plugin:
        return make_plugin_encoder(spec, tokenizer)
    if spec.kind == "one_hot":
        return OneHot(spec)
    if spec.kind == "bytes" or (spec.kind == "kmer" and spec.k == 1):
        return Letters(spec)
    if spec.kind == "kmer":
        return Kmers(spec)
    if tokenizer is None or not tokenizer.is_file():
        raise BundleError("a bpe encoder needs tokenizer.json in the bundle, and it is not there")
    return Bpe(spec, tokenizer)
