"""Channels that a model reads beside the bases, from files that the user names.

A source has a value for every position of the reference; here the values become those of
haplotypes, strands and rows. Positions off the contig, inserted bases and special tokens hold the
card's `missing`. Channels of an alignment are codes, which the other strand reads as other letters;
those of bigWigs are numbers. Decisions: only encoders of one base a row have channels, since a
value belongs to a base; a masked row keeps its channels; of an insertion or deletion `indel: edit`
moves the values with the bases, and of unequal alleles the first bases of both are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from glm_annotate.bundle import Bundle
from glm_annotate.errors import BundleError
from glm_annotate.genome import Genome
from glm_annotate.vocab import Channel, EncoderSpec

Ints = NDArray[np.int64]
Values = NDArray[Any]  # (n, L, C): uint8 where all channels are codes of an alignment, or float32

GAP, UNPAIRED = 0, 5  # codes of an alignment: gap or unknown, A, C, G, T; then none with a partner
_LARGEST = float(np.finfo(np.float32).max)
# A and T, C and G change places.
_COMPLEMENT = np.arange(256, dtype=np.uint8)
_COMPLEMENT[1:UNPAIRED] = _COMPLEMENT[1:UNPAIRED][::-1].copy()


class Source(Protocol):
    """Where the channels of one kind come from."""

    @property
    def label(self) -> str:
        """Name its file or files, without their folders."""

    def holds(self, contig: str) -> bool:
        """Say whether there are values for a contig of the FASTA; raises InputError."""

    def read(self, contig: str, positions: Ints) -> Values:
        """Read values at 0-based positions (m,) in ascending order, shape (m, channels)."""


@dataclass(frozen=True, slots=True)
class Beside:
    """Channels of REF and ALT haplotypes, shape (n, L, C) each; one array where they are equal."""

    ref: Values
    alt: Values

    def map(self, change: Callable[[Values], Values]) -> Beside:
        """Change both, an array that they share once."""
        ref = change(self.ref)
        return Beside(ref, ref if self.alt is self.ref else change(self.alt))

    def take(self, which: Ints) -> Beside:
        """Keep some of the haplotypes."""
        return self.map(lambda values: values[which])

    def narrowed(self, keep: slice) -> Beside:
        """Keep some of the bases."""
        return self.map(lambda values: values[:, keep])


class Channels:
    """The channels of one model on one genome.

    Args:
        spec: The card's encoder.
        genome: The reference.
        sources: By the card's `source`; each gives the channels of its kind, in the card's order.
    """

    def __init__(self, spec: EncoderSpec, genome: Genome, sources: Mapping[str, Source]) -> None:
        self._genome, self._sources = genome, sources
        kinds = np.array([channel.source for channel in spec.channels])
        self._places = {kind: np.flatnonzero(kinds == kind) for kind in sources}
        self._missing = _missing(spec)
        self._edits = np.array([channel.indel == "edit" for channel in spec.channels])

    @property
    def files(self) -> dict[str, str]:
        """Names of the sources' files, without their folders, by kind."""
        return {kind: source.label for kind, source in self._sources.items()}

    def holds(self, contig: str) -> bool:
        """Say whether every source has values for a contig of the FASTA.

        Raises:
            InputError: A source does not fit the contig.
        """
        return all(source.holds(contig) for source in self._sources.values())

    def blank(self, n: int, length: int) -> Values:
        """Make room for the channels of n windows."""
        return np.empty((n, length, self._missing.size), dtype=self._missing.dtype)

    def windows(self, contig: str, left: Ints, length: int, *, circular: bool) -> Values:
        """Cut windows of one contig, shape (n, length, C).

        Args:
            contig: A name of the FASTA.
            left: Left edges, 0-based, may lie before the contig or run past it, shape (n,).
            length: Bases in each window.
            circular: Whether the contig wraps around.
        """
        positions, place = _covered(left, length)
        read = self._read(contig, positions, circular=circular)
        # Of each position (C,), a view of the windows that begin there is (C, L).
        windows = np.lib.stride_tricks.sliding_window_view(read, length, axis=0)[place]
        return windows.transpose(0, 2, 1)

    def _read(self, contig: str, positions: Ints, *, circular: bool) -> Values:
        """Read positions in ascending order, some of them maybe off the contig, shape (m, C)."""
        size = self._genome.contigs[contig]
        out = np.empty((positions.size, self._missing.size), dtype=self._missing.dtype)
        inside = np.ones(positions.size, dtype=bool)
        number: Ints | None = None
        if circular:
            positions, number = np.unique(positions % size, return_inverse=True)
        else:
            inside = (positions >= 0) & (positions < size)
            positions = positions[inside]
        out[~inside] = self._missing
        for kind, source in self._sources.items():
            values = source.read(contig, positions)
            values = values if number is None else values[number]
            out[np.ix_(inside, self._places[kind])] = values
        return out

    def haplotypes(self, values: Values, context: int, start: int, old: int, new: int) -> Beside:
        """Give both haplotypes their channels.

        Args:
            values: On the reference, from the windows' left edge, shape (n, context or more, C).
            context: Bases of a window.
            start: Where the allele begins in the window.
            old: Bases of REF.
            new: Bases of ALT.
        """
        ref = values[:, :context]
        if old == new or not self._edits.any():
            return Beside(ref, ref)
        shape = values.shape[0], max(0, new - old), values.shape[2]
        before = values[:, : start + min(old, new)]
        inserted = np.broadcast_to(self._missing, shape)
        after = values[:, start + old : start + old + context - start - new]
        edited = np.concatenate([before, inserted, after], axis=1)
        return Beside(ref, edited if self._edits.all() else np.where(self._edits, edited, ref))


def _covered(left: Ints, length: int) -> tuple[Ints, Ints]:
    """List what windows of one length cover, each position once, and where each window begins.

    Windows overlap, above all those of neighbouring sites. Where they do not there is no gap in the
    list, so that every window is a stretch of it.

    Args:
        left: Left edges, shape (n,).
        length: Bases in each window.

    Returns:
        Positions in ascending order, shape (m,), and the windows' places among them, shape (n,).
    """
    edges, window = np.unique(left, return_inverse=True)
    # Bases that each window adds to those before it.
    fresh = np.minimum(np.diff(edges, prepend=edges[:1] - length), length)
    first = edges + length - fresh
    before = np.cumsum(fresh) - fresh
    positions = np.repeat(first - before, fresh) + np.arange(int(fresh.sum()))
    return positions, (before + fresh - length)[window]


def _missing(spec: EncoderSpec) -> NDArray[Any]:
    dtype = np.uint8 if all(x.source == "msa" for x in spec.channels) else np.float32
    return np.array([channel.missing for channel in spec.channels]).astype(dtype)


def reverse_channels(values: Values, spec: EncoderSpec) -> Values:
    """Turn channels (n, L, C) into those of the reverse strand: letters are those of the other."""
    backwards = values[:, ::-1]
    if values.dtype == np.uint8:
        return _COMPLEMENT.take(backwards)
    out = backwards.copy()
    for place, channel in enumerate(spec.channels):
        if channel.source == "msa":
            out[..., place] = _COMPLEMENT.take(backwards[..., place].astype(np.uint8))
    return out


def as_rows(values: Values, spec: EncoderSpec) -> Values:
    """Give special tokens their channels: (n, L, C) to (n, T, C)."""
    left, right = len(spec.vocab.prefix), len(spec.vocab.suffix)
    return _with_missing(values, left, right, spec) if left or right else values


def pad_channels(values: Values, rows: int, spec: EncoderSpec) -> Values:
    """Pad channels (n, T, C) at the right to a number of rows."""
    extra = rows - values.shape[1]
    return _with_missing(values, 0, extra, spec) if extra else values


def _with_missing(values: Values, left: int, right: int, spec: EncoderSpec) -> Values:
    n, length, channels = values.shape
    out = np.empty((n, left + length + right, channels), dtype=values.dtype)
    out[:, :left] = out[:, left + length :] = _missing(spec)
    out[:, left : left + length] = values
    return out


def check_channels(bundle: Bundle) -> None:
    """Check that a card's channels can be read.

    Raises:
        BundleError: They do not fit its inputs or its encoder, or a value is not allowed.
    """
    card, spec = bundle.card, bundle.card.encoder
    if bool(spec.channels) != ("channels" in card.inputs):
        raise BundleError(
            f"{bundle.path}: the card has {len(spec.channels)} encoder.channels and the inputs "
            f"{', '.join(card.inputs)}: channels need the input 'channels', and it needs them; "
            "export the bundle again"
        )
    if spec.channels and (spec.kind == "bpe" or spec.is_plugin or spec.k > 1):
        raise BundleError(
            f"{bundle.path}: the card has encoder.channels beside the rows of {spec.kind} with "
            f"k = {spec.k}; channels need rows of one base: one_hot, bytes, or kmer with k = 1"
        )
    signals = [x for x in spec.channels if x.source == "bigwig"]
    if signals and card.inputs["channels"].dtype != "float32":
        raise BundleError(
            f"{bundle.path}: the input channels is {card.inputs['channels'].dtype}; the numbers of "
            f"{signals[0].name!r}, a bigWig, need float32; export the bundle again"
        )
    endless = next((x for x in signals if not abs(x.missing) <= _LARGEST), None)
    if endless is not None:
        raise BundleError(
            f"{bundle.path}: the channel {endless.name!r} of the card has missing = "
            f"{endless.missing:g}; wanted a number that float32 holds"
        )
    wrong = next((x for x in spec.channels if x.source == "msa" and not _is_code(x)), None)
    if wrong is not None:
        raise BundleError(
            f"{bundle.path}: the channel {wrong.name!r} of the card has transform = "
            f"{wrong.transform} and missing = {wrong.missing:g}; codes of an alignment are taken "
            f"as they are, and missing is {GAP}, or a whole number from {UNPAIRED} to 255"
        )


def _is_code(channel: Channel) -> bool:
    is_free = channel.missing == GAP or UNPAIRED <= channel.missing <= 255
    return channel.transform == "none" and is_free and channel.missing.is_integer()
