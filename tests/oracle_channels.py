"""The oracle's channels: columns of an alignment, base by base in plain Python.

An alignment is a dictionary: by contig, for every base, the letters of that column as a string, the
reference's first.
"""

from __future__ import annotations

CODES = {"A": 1, "C": 2, "G": 3, "T": 4}
OTHER_STRAND = {1: 4, 2: 3, 3: 2, 4: 1}

Alignment = dict[str, list[str]]


class Columns:
    """The channels of a card's encoder on one alignment."""

    def __init__(self, spec, alignment: Alignment):
        self.spec, self.alignment = spec, alignment
        self.missing = tuple(channel.missing for channel in spec.channels)

    def at(self, chrom, position, circular):
        """Give the value of each channel at a base of the reference; None lies nowhere."""
        column = self.alignment[chrom]
        if position is not None and circular:
            position %= len(column)
        if position is None or not 0 <= position < len(column):
            return self.missing
        return tuple(CODES.get(letter.upper(), 0) for letter in column[position][1:])

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
    """Give columns as the other strand reads them."""
    return tuple(tuple(OTHER_STRAND.get(code, code) for code in x) for x in reversed(columns))
