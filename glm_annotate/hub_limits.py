"""What a bigWig holds, for the axes on which browsers draw it."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm_annotate.errors import InputError
from glm_annotate.signals import check_head

Limits = tuple[float, float]

_PARTS = 1000  # of a contig, whose extremes are looked at
_QUANTILE = 0.99
_SUMMARY = struct.Struct("<Qdd")  # covered bases, smallest and largest value
_SUMMARY_AT = 44


def data_range(path: str) -> Limits:
    """Read the smallest and largest value; (0, 1) where there is none.

    Raises:
        InputError: The file is no bigWig.
    """
    _, low, high = _summary(path)
    return low, high


def open_bigwig(path: str) -> Any:
    """Open a bigWig with pyBigWig, which ends the process at some files that were cut off.

    Raises:
        InputError: The file is no bigWig, or not whole.
    """
    import pyBigWig

    bases, _, _ = _summary(path)
    if bases:  # else the library writes an index too short for the check
        check_head(path, path)
    try:
        return pyBigWig.open(path)
    except RuntimeError as error:
        raise _unreadable(path, error) from error


def _summary(path: str) -> tuple[int, float, float]:
    """Read how many bases have a value, the smallest and the largest."""
    # Not through the library, which gives whole numbers, and crashes where squares overflow.
    try:
        with open(path, "rb") as handle:
            head = handle.read(_SUMMARY_AT + 8)
            if head[:4] != b"\x26\xfc\x8f\x88":
                raise InputError(f"{path}: not a bigWig: it starts with {head[:8]!r}")
            place = int.from_bytes(head[_SUMMARY_AT:], "little")
            handle.seek(place)
            bases, low, high = _SUMMARY.unpack(handle.read(_SUMMARY.size))
    except (OSError, struct.error) as error:
        raise _unreadable(path, error) from error
    return (bases, low, high) if bases and place else (0, 0.0, 1.0)


def _unreadable(path: str, error: Exception) -> InputError:
    return InputError(f"{path}: cannot be read as a bigWig: {error}; write it again")


def view_limits(path: str) -> Limits:
    """Choose limits within which nearly all of a bigWig is seen, zero among them.

    They are quantiles of the extremes of small parts of the contigs, where there are values, and
    two digits long.

    Raises:
        InputError: The file cannot be read.
    """
    low, high = data_range(path)
    with open_bigwig(path) as file:
        try:
            parts = list(_parts(file))
        except RuntimeError as error:
            raise _unreadable(path, error) from error
    if parts:
        lows, highs = (np.concatenate(x) for x in zip(*parts, strict=True))
        low = float(np.quantile(lows, 1 - _QUANTILE, method="lower"))
        high = float(np.quantile(highs, _QUANTILE, method="higher"))
    low, high = _round(min(low, 0.0)), _round(max(high, 0.0))
    return (low, high) if low < high else (0.0, 1.0)


def _parts(file: Any) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield smallest and largest values of parts that hold any, contig by contig."""
    for contig, length in file.chroms().items():
        start, end = 0, length
        # Twice: values may stand in a small piece of the contig only.
        for _ in range(2):
            count = min(_PARTS, end - start)
            found = file.stats(contig, start, end, type="max", nBins=count) if count else []
            known = [i for i, x in enumerate(found) if x is not None]
            if not known:
                break
            step = (end - start) / count
            last = math.ceil(start + (known[-1] + 1) * step)
            start, end = math.floor(start + known[0] * step), min(end, last)
        else:
            count = min(_PARTS, end - start)
            both = [file.stats(contig, start, end, type=x, nBins=count) for x in ("min", "max")]
            lows, highs = (np.array(x, dtype=np.float64) for x in both)
            there = np.isfinite(lows) & np.isfinite(highs)
            if there.any():
                yield lows[there], highs[there]


def _round(number: float) -> float:
    """Round away from zero to two digits."""
    if number == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(number))) - 1)
    digits = math.ceil(abs(number) / unit - 1e-6)  # of a float
    return math.copysign(float(f"{digits * unit:.2g}"), number)
