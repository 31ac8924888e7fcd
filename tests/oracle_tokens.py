"""The oracle's tokens: letters to rows by string slices (byte pairs by `tokenizers` itself)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """A token: its id (None: a base that one_hot cannot show) and the bases it stands for.

    `beside` holds its channels, where the model has some.
    """

    id: int | None
    start: int
    end: int
    bases: str
    beside: tuple[float, ...] = ()

    @property
    def plain(self):
        """Whether it stands for A, C, G and T only."""
        return bool(self.bases) and set(self.bases) <= set("ACGT")

    def touches(self, positions: Iterable[int]):
        return any(self.start <= x < self.end for x in positions)


class Tokens:
    """The encoder of a model card, once more."""

    def __init__(self, card, folder: Path):
        self.card, self.spec, self.vocab = card, card.encoder, card.encoder.vocab
        self.tokenizer: Any = None
        if self.spec.kind == "bpe":
            from tokenizers import Tokenizer

            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self.tokenizer.no_truncation()
            self.tokenizer.no_padding()

    def rows(self, bases):
        """Give the rows of a window, special tokens and padding included."""
        body = {
            "one_hot": self.one_hot,
            "bytes": lambda text: [Row(ord(x), i, i + 1, x) for i, x in enumerate(text)],
            "kmer": self.letters if self.spec.k == 1 else self.kmers,
            "bpe": self.pieces,
        }[self.spec.kind](bases)
        rows = [Row(x, -1, -1, "") for x in self.vocab.prefix]
        rows += body
        rows += [Row(x, -1, -1, "") for x in self.vocab.suffix]
        while len(rows) % self.card.window.multiple_of:
            rows.append(Row(self.vocab.pad_id, -1, -1, ""))
        most = self.card.window.max_tokens
        if most is not None and len(rows) > most:
            raise ValueError(f"{len(rows)} rows: the window must shrink, which the oracle cannot")
        return rows

    def one_hot(self, bases):
        ids = [self.vocab.order.index(x) if x in "ACGT" else None for x in bases]
        return [Row(x, i, i + 1, bases[i]) for i, x in enumerate(ids)]

    def n_id(self):
        if self.vocab.n == "error":
            raise ValueError("the model takes no N")
        if self.vocab.n == "mask":
            return self.vocab.mask_id
        return self.vocab.single_ids.get("N", self.vocab.unk_id)

    def letter_id(self, base):
        if base not in "ACGT":
            return self.n_id()
        if self.spec.k > 1:
            return self.vocab.single_ids[base]
        return self.vocab.first_id + self.vocab.order.index(base)

    def letters(self, bases):
        return [Row(self.letter_id(x), i, i + 1, x) for i, x in enumerate(bases)]

    def kmer_id(self, word):
        if set(word) <= set("ACGT"):
            number = 0
            for base in word:
                number = 4 * number + self.vocab.order.index(base)
            return self.vocab.first_id + number
        if self.vocab.n == "mask" or self.vocab.unk_id is None:
            return self.n_id()
        return self.vocab.unk_id

    def kmers(self, bases):
        k, stride = self.spec.k, self.spec.stride
        if stride < k or self.vocab.n == "mask":
            starts = range(0, len(bases) - k + 1, stride)
            rows = [Row(self.kmer_id(bases[i : i + k]), i, i + k, bases[i : i + k]) for i in starts]
            tail = len(bases) % k if stride == k and self.vocab.tail == "single" else 0
            places = range(len(bases) - tail, len(bases))
            return rows + [Row(self.letter_id(bases[i]), i, i + 1, bases[i]) for i in places]
        # The sequence is cut at every N; a stretch gives whole k-mers, then single bases.
        rows, at = [], 0
        while at < len(bases):
            word = bases[at : at + k]
            whole = len(word) == k and set(word) <= set("ACGT")
            word = word if whole else word[0]
            rows.append(Row(self.kmer_id(word) if whole else self.letter_id(word), at, 0, word))
            at += len(word)
        return [Row(x.id, x.start, x.start + len(x.bases), x.bases) for x in rows]

    def pieces(self, bases):
        found = self.tokenizer.encode(bases, add_special_tokens=False)
        rows, start = [], 0
        for x, (_, end) in zip(found.ids, found.offsets, strict=True):
            # A normaliser that folds a run of N tells of its last base alone.
            rows.append(Row(x, start, end, bases[start:end]))
            start = end
        return rows

    def ids_by_base(self, width, offset):
        if self.spec.kind == "one_hot":
            return {base: [self.vocab.order.index(base)] for base in "ACGT"}
        if self.spec.kind == "bytes":
            return {base: [ord(base)] for base in "ACGT"}
        if width == 1:
            return {base: [self.letter_id(base)] for base in "ACGT"}
        words = ["".join(x) for x in itertools.product(self.vocab.order, repeat=width)]
        first = self.vocab.first_id
        return {
            base: [first + i for i, word in enumerate(words) if word[offset] == base]
            for base in "ACGT"
        }
