"""The oracle's channels: columns of an alignment and signals, base by base in plain Python.

An alignment is a dictionary: by contig, for every base, the letters of that column as a string, the
reference's first. Signals are one too: by name and contig a number for every base, or None.
"""

from __future__ import annotations

import math
import struct

CODES = {"A": 1, "C": 2, "G": 3, "T": 4}
OTHER_STRAND = {1: 4, 2: 3, 3: 2, 4: 1}

Alignment = dict[str, list[str]]
Signals = dict[str, dict[str, list[float | None]]]


class Number(float):
    """The value of a signal, which is the same on both strands."""


def single(value):
    """Round to the precision of float32."""
    return struct.unpack("f", struct.pack("f", value))[0]


class Columns:
    """The channels of a card's encoder on one alignment and its signals."""

    def __init__(self, spec, alignment: Alignment, signals: Signals | None = None):
        self.spec, self.alignment, self.signals = spec, alignment, signals or {}
        self.missing = tuple(
            x.missing if x.source == "msa" else Number(single(x.missing)) for x in spec.channels
        )

    def at(self, chrom, position, circular):
        """Give the value of each channel at a base of the reference; None lies nowhere."""
        column = self.alignment[chrom]
        if position is not None and circular:
            position %= len(column)
        if position is None or not 0 <= position < len(column):
            return self.missing
        letters = iter(column[position][1:])
        return tuple(
            CODES.get(next(letters).upper(), 0)
            if channel.source == "msa"
            else self.number(channel, chrom, position)
            for channel in self.spec.channels
        )

    def number(self, channel, chrom, position):
        """Give the number of a signal at a base, transformed; what is none is missing."""
        value = self.signals[channel.name][chrom][position]
        if value is None or math.isnan(value) or math.isinf(value):
            return Number(single(channel.missing))
        value = single(value)
        return Number(single(math.log1p(value)) if channel.transform == "log1p" else value)

    def window(self, allele, left, bases, length, circular):
        """Give the columns beside the window at `left` whose allele reads `bases`."""
        as_they_are = list(range(left, left + length))
        paired = min(len(allele.ref), len(bases))
        moved = list(range(left, allele.start + paired))
        moved += [None] * (len(bases) - paired)
        rest = allele.start + len(allele.ref)
        moved += range(rest, rest + length)
        beside = []
        for stays, moves in zip(as_they_are, moved[:length], strict=True):
            old, new = (self.at(allele.chrom, x, circular) for x in (stays, moves))
            beside.append(
                tuple(
                    new[c] if channel.indel == "edit" else old[c]
                    for c, channel in enumerate(self.spec.channels)
                )
            )
        return tuple(beside)


def reversed_columns(columns):
    """Give columns as the other strand reads them: numbers as they are, letters the others."""
    return tuple(
        tuple(x if isinstance(x, Number) else OTHER_STRAND.get(x, x) for x in column)
        for column in reversed(columns)
    )
