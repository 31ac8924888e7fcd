"""Why an allele, or one score of it, has no number: the words that stand in a status."""

from __future__ import annotations

from enum import StrEnum


class Skip(StrEnum):
    """Why an allele, or one score of it, has no number."""

    REF_MISMATCH = "REF_MISMATCH"
    CONTIG_MISSING = "CONTIG_MISSING"
    SYMBOLIC = "SYMBOLIC"
    SPANNING = "SPANNING"
    BREAKEND = "BREAKEND"
    AMBIGUOUS = "AMBIGUOUS"
    TOO_LONG = "TOO_LONG"
    OFF_CONTIG = "OFF_CONTIG"
    OUT_OF_SCOPE = "OUT_OF_SCOPE"
    NO_CHANGE = "NO_CHANGE"
    FAILED = "FAILED"
    INDEL = "INDEL"
    TOKENIZATION = "TOKENIZATION"
    NO_SIGNAL = "NO_SIGNAL"
    NO_BIN = "NO_BIN"
    NO_GENE = "NO_GENE"
    NOT_FINITE = "NOT_FINITE"
    PRECOMPUTED = "PRECOMPUTED"  # it has, but from a file


SKIPS = tuple(Skip)  # `Alleles.skip` holds 1 + the place in here, 0 for none


def skip_code(skip: Skip) -> int:
    """Give the number that stands for a reason in columns."""
    return SKIPS.index(skip) + 1
