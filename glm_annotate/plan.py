"""Which forward passes a chunk of alleles needs, each distinct one once, and what to read of them.

Evidence is asked for before anything runs: sequences are added, passes over them (with rows masked
or not) are named, and requests point at passes. `seal` finds the passes that are the same to the
model, whoever asked; `execute` runs them in batches and answers the requests.

Decisions: passes are equal when their masked input rows are, and their channels where there are
any. Equality is by a 64-bit hash that is linear in the rows, so that the hash of a masked copy
follows from that of the original and the copy exists for one batch only. The multipliers are
random and fixed; with some 10^5 passes a chunk the chance of one false match in 10^9 variants is
below 10^-4. Haplotypes that share one array of channels are stored with one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from glm_annotate.answers import KINDS, Batch, Floats, Ints, OutputRole, Outputs
from glm_annotate.channels import Values
from glm_annotate.encoding import Encoded, Encoder, Rows, Spans

Hashes = NDArray[np.uint64]
_BLOCK = 1 << 22  # elements hashed at a time, to bound temporary memory
_OF_CHANNELS = np.uint64(0x9E3779B97F4A7C15)  # tells their share of a hash from that of the rows


class PassFailed(Exception):
    """A batch could not be run, mostly for want of memory."""


class Stopped(Exception):
    """The run was called off between two batches."""


class Runner(Protocol):
    """What executes batches."""

    def batch_size(self, rows: int) -> int:
        """Say how many passes of this many rows go into a batch."""

    def limit(self, rows: int, batch: int) -> None:
        """Remember that larger batches do not fit."""

    def run(
        self, rows: Rows, outputs: frozenset[OutputRole], channels: Values | None = None
    ) -> Outputs:
        """Run one batch of rows (B, T[, C]) and the channels beside them; raises PassFailed."""


@dataclass(frozen=True, slots=True)
class Sequences:
    """Encoded sequences that a plan knows.

    Attributes:
        bucket: Where they lie.
        first: Number of the first one in the bucket.
        encoded: Their rows and spans.
        hashes: Of their rows and channels, shape (n,).
    """

    bucket: Bucket
    first: int
    encoded: Encoded
    hashes: Hashes


@dataclass(frozen=True, slots=True)
class Ticket:
    """A place in the answers, to be read after `Plan.execute`."""

    bucket: Bucket
    kind: str
    start: int
    stop: int

    @property
    def values(self) -> Floats:
        """The answers, in the order asked."""
        return self.bucket.answers[self.kind][self.start : self.stop]


@dataclass(slots=True)
class _Columns:
    """Arrays that grow by appending arrays."""

    parts: tuple[list[NDArray[Any]], ...]
    count: int = 0

    def add(self, *arrays: NDArray[Any]) -> int:
        """Append one array a column; returns where they begin."""
        for part, array in zip(self.parts, arrays, strict=True):
            part.append(array)
        first, self.count = self.count, self.count + len(arrays[0])
        return first

    def joined(self) -> list[NDArray[Any]]:
        return [np.concatenate(part) for part in self.parts]


def _columns(n: int) -> _Columns:
    return _Columns(tuple([] for _ in range(n)))


@dataclass(slots=True)
class Bucket:
    """Sequences of one number of rows, with the passes and requests over them.

    Attributes:
        encoder: Of the model.
        shift: The card's `logits_shift`.
        shared: Spans of every sequence, shape (1, T, 2); None where each has its own.
        answers: By kind of request, after `execute`.
    """

    encoder: Encoder
    shift: int
    shared: Spans | None
    answers: dict[str, Floats] = field(default_factory=dict)
    _rows: _Columns = field(default_factory=lambda: _columns(1))
    _spans: _Columns = field(default_factory=lambda: _columns(1))
    _channels: _Columns = field(default_factory=lambda: _columns(1))
    _channels_at: _Columns = field(default_factory=lambda: _columns(1))  # by sequence
    _shared: dict[int, tuple[int, Hashes]] = field(default_factory=dict)
    _passes: _Columns = field(default_factory=lambda: _columns(3))  # sequence, mask, hash
    _requests: dict[str, _Columns] = field(default_factory=dict)
    _masks: list[Ints] = field(default_factory=lambda: [np.zeros(0, dtype=np.int64)])
    _mask_numbers: dict[bytes, int] = field(default_factory=dict)
    _slots: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    _chosen: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def add(self, encoded: Encoded, channels: Values | None = None) -> Sequences:
        """Take in sequences and their channels (n, T, C); equal ones may be added again."""
        if self.shared is None:
            self._spans.add(encoded.spans)
        hashes = hash_rows(encoded.rows)
        if channels is not None:
            first, extra = self._add_channels(channels)
            self._channels_at.add(np.arange(first, first + len(channels)))
            hashes = hashes + extra * _OF_CHANNELS
        return Sequences(self, self._rows.add(encoded.rows), encoded, hashes)

    def _add_channels(self, channels: Values) -> tuple[int, Hashes]:
        """Keep channels, an array that is known already once; gives its place and hashes."""
        # The array is kept, so that no other one can have its id.
        if id(channels) not in self._shared:
            self._shared[id(channels)] = self._channels.add(channels), hash_rows(channels)
        return self._shared[id(channels)]

    def passes(self, of: Sequences, which: Ints, masks: Ints | None = None) -> Ints:
        """Name passes over sequences.

        Args:
            of: Sequences of this bucket.
            which: Members of `of`, shape (m,).
            masks: Rows to mask, shape (m, w), or (1, w) for all alike, filled up with -1; None
                masks nothing.

        Returns:
            Numbers of the passes, shape (m,).
        """
        hashes = of.hashes[which]
        numbers = np.zeros(which.size, dtype=np.int64)
        if masks is not None:
            numbers = np.broadcast_to(self._number_masks(masks), which.shape)
            hashes = hashes - self._masked_part(of.encoded.rows, which, numbers)
        first = self._passes.add(of.first + which, numbers, hashes)
        return np.arange(first, first + which.size)

    def ask(self, kind: str, passes: Ints, details: NDArray[Any]) -> Ticket:
        """Ask one thing a pass: `answers.KINDS` has the kinds and their details, shape (m, ...)."""
        first = self._requests.setdefault(kind, _columns(2)).add(passes, details)
        return Ticket(self, kind, first, first + passes.size)

    def seal(self) -> int:
        """Find the distinct passes; returns their number."""
        if not self._passes.count:
            return 0
        hashes = np.concatenate(self._passes.parts[2])
        _, first, slots = np.unique(hashes, return_index=True, return_inverse=True)
        # In the order in which they were asked for: neighbours share a batch.
        order = np.argsort(first)
        place = np.empty_like(order)
        place[order] = np.arange(order.size)
        self._chosen, self._slots = first[order], place[slots]
        return int(order.size)

    @property
    def distinct(self) -> int:
        """How many distinct passes there are, after `seal`."""
        return int(self._chosen.size)

    def execute(self, runner: Runner) -> None:
        """Run the distinct passes, and answer every request."""
        if not self._chosen.size:
            return
        (all_rows,) = self._rows.joined()
        sequence, mask, _ = self._passes.joined()
        spans = self.shared if self.shared is not None else self._spans.joined()[0]
        channels = _Picked(self._channels, self._channels_at)
        readers = [_Reader(kind, x, self._slots, sequence) for kind, x in self._requests.items()]
        outputs = frozenset(KINDS[kind].output for kind in self._requests)
        width, start = all_rows.shape[1], 0
        whole = step = runner.batch_size(width)
        while start < self._chosen.size:
            chosen = self._chosen[start : start + step]
            ids = all_rows[sequence[chosen]]
            try:
                got = runner.run(
                    self._masked(ids, mask[chosen]), outputs, *channels.of(sequence[chosen])
                )
                batch = Batch(got, self.encoder, self.shift, ids)
                for reader in readers:
                    reader.read(batch, spans, start, start + chosen.size)
            except PassFailed:
                if chosen.size == 1:
                    runner.limit(width, whole)  # one pass alone fails: not for its batch's size
                    raise
                step = chosen.size // 2
                runner.limit(width, step)
                continue
            start += chosen.size
        self.answers = {reader.kind: reader.result for reader in readers}

    def _masked(self, rows: Rows, numbers: Ints) -> Rows:
        member, row = self._masked_rows(numbers)
        if not member.size:
            return rows
        out = rows.copy()
        out[member, row] = self._blank
        return out

    @property
    def _blank(self) -> int:
        """What a masked row holds: the mask, or zeros in every channel."""
        spec = self.encoder.spec
        return 0 if spec.kind == "one_hot" else spec.vocab.mask_id or 0

    def _number_masks(self, masks: Ints) -> Ints:
        distinct, inverse = np.unique(masks, axis=0, return_inverse=True)
        numbers = [self._intern(mask[mask >= 0]) for mask in distinct]
        return np.array(numbers, dtype=np.int64)[inverse.reshape(-1)]

    def _intern(self, mask: Ints) -> int:
        key = mask.tobytes()
        if key not in self._mask_numbers:
            self._mask_numbers[key] = len(self._masks)
            self._masks.append(mask)
        return self._mask_numbers[key]

    def _masked_rows(self, numbers: Ints) -> tuple[Ints, Ints]:
        """List (member, row) of every masked row."""
        if not numbers.any():
            return numbers[:0], numbers[:0]
        if (numbers == numbers[0]).all():
            rows = self._masks[int(numbers[0])]
            return np.repeat(np.arange(numbers.size), rows.size), np.tile(rows, numbers.size)
        lists = [self._masks[i] for i in numbers.tolist()]
        return np.repeat(np.arange(len(lists)), [x.size for x in lists]), np.concatenate(lists)

    def _masked_part(self, rows: Rows, which: Ints, numbers: Ints) -> Hashes:
        """What masking takes off the hashes, shape (m,)."""
        member, row = self._masked_rows(numbers)
        values = rows[which[member], row]
        lost = _words(values) - _words(np.full_like(values, self._blank))
        lost = lost * _factors(rows.shape[1:])[row]
        lost = lost if lost.ndim == 1 else lost.sum(axis=1)  # one_hot: over channels
        out = np.zeros(which.size, dtype=np.uint64)
        np.add.at(out, member, lost)
        return out


class _Picked:
    """The channels of a bucket, sequence by sequence."""

    def __init__(self, channels: _Columns, at: _Columns) -> None:
        self._values = channels.joined()[0] if channels.count else None
        self._at = at.joined()[0] if at.count else np.zeros(0, dtype=np.int64)

    def of(self, sequences: Ints) -> tuple[Values, ...]:
        """Give the channels of some sequences, shape (m, T, C); nothing where there are none."""
        return () if self._values is None else (self._values[self._at[sequences]],)


class _Reader:
    """Answers the requests of one kind, batch by batch."""

    def __init__(self, kind: str, requests: _Columns, slots: Ints, sequence: Ints) -> None:
        self.kind = kind
        self.result: Floats = np.zeros(0)
        passes, self._details = requests.joined()
        self._sequence = sequence[passes]
        self._order = np.argsort(slots[passes], kind="stable")
        self._sorted = slots[passes][self._order]

    def read(self, batch: Batch, spans: Spans, start: int, stop: int) -> None:
        """Answer what was asked of the distinct passes from `start` to `stop`."""
        low, high = np.searchsorted(self._sorted, [start, stop])
        if low == high:
            return  # none of these passes was asked this
        which, window = self._order[low:high], self._sorted[low:high] - start
        own = spans if spans.shape[0] == 1 else spans[self._sequence[which]]
        values = KINDS[self.kind].answer(batch, window, self._details[which], own)
        if not self.result.size:
            self.result = np.full((self._order.size, *values.shape[1:]), np.nan)
        self.result[which] = values


class Plan:
    """Everything that one model has to run for one chunk of alleles."""

    def __init__(self, encoder: Encoder, shift: int) -> None:
        self.encoder = encoder
        self.passes = 0
        self._shift = shift
        self._buckets: dict[tuple[int, bytes], Bucket] = {}

    def add(self, encoded: Encoded, channels: Values | None = None) -> Sequences:
        """Take in sequences of one number of rows, and the channels beside them."""
        # A lone sequence of tokens of any length has one set of spans too, and they are its own.
        is_fixed = self.encoder.base_ids(self.encoder.spec.k, 0) is not None
        is_shared = encoded.spans.shape[0] == 1 and is_fixed
        shared = encoded.spans if is_shared else None
        key = encoded.rows.shape[1], shared.tobytes() if shared is not None else b""
        if key not in self._buckets:
            self._buckets[key] = Bucket(self.encoder, self._shift, shared)
        return self._buckets[key].add(encoded, channels)

    def seal(self) -> int:
        """Find the distinct passes of every bucket; returns their number."""
        self.passes = sum(bucket.seal() for bucket in self._buckets.values())
        return self.passes

    def rows_counts(self) -> dict[int, int]:
        """Count distinct passes by their number of rows."""
        counts: dict[int, int] = {}
        for (rows, _), bucket in self._buckets.items():
            counts[rows] = counts.get(rows, 0) + bucket.distinct
        return counts

    def execute(self, runner: Runner) -> None:
        """Run everything that was asked for."""
        for bucket in self._buckets.values():
            bucket.execute(runner)


def hash_rows(rows: Rows) -> Hashes:
    """Hash rows (n, T[, C]) by a fixed linear function modulo 2^64, shape (n,)."""
    factors = _factors(rows.shape[1:]).reshape(-1)
    step = max(1, _BLOCK // max(1, factors.size))
    parts = [
        _words(rows[start : start + step]).reshape(-1, factors.size) @ factors
        for start in range(0, max(1, len(rows)), step)
    ]
    return np.concatenate(parts)


def _words(values: Rows) -> Hashes:
    whole = values.view(np.uint32) if values.dtype == np.float32 else values
    return whole.astype(np.uint64)


@lru_cache(maxsize=64)
def _factors(shape: tuple[int, ...]) -> Hashes:
    rng = np.random.default_rng(20261124)
    return rng.integers(1 << 64, size=shape, dtype=np.uint64) | np.uint64(1)
