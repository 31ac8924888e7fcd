"""Signals along the genome, such as ChIP-seq or ATAC-seq, read from bigWig files.

A bigWig has a number, or none, for every base of a contig. Decisions: what is no number there (no
data, NaN, an infinity, which no measurement gives) is the card's `missing`, which the model sees as
it stands; `transform` is for the others. Blocks of bases are read whole and kept for a while, since
the windows of neighbouring alleles overlap. A contig that the file lacks ends the run: a signal of
zeros is an answer of another kind than no signal.
"""

from __future__ import annotations

import os
import struct
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from glm_annotate.errors import InputError, UsageError
from glm_annotate.genome import Genome, aliases
from glm_annotate.vocab import Channel

Ints = NDArray[np.int64]
Numbers = NDArray[np.float32]

_BLOCK = 1 << 14  # bases that are read together
_KEPT = 1 << 9  # blocks of a file that are kept: 32 MB
_MAGIC, _BIGBED, _TREE, _INDEX = 0x888FFC26, 0x8789F2EB, 0x78CA8C91, 0x2468ACE0
_HEAD = struct.Struct("<IHHQQQ")
_HEAD_SIZE, _ZOOM_SIZE = 64, 24


class BigWig:
    """A bigWig of one signal.

    Args:
        name: Of the signal, as the card and `--signal` call it.
        path: Of the file.
        genome: The reference.

    Raises:
        InputError: There is no such file, or it is no bigWig.
    """

    def __init__(self, name: str, path: str, genome: Genome) -> None:
        self.path, self._genome = path, genome
        self._label = f"--signal {name}={path}"
        self._file = _open(self._label, path)
        self._lengths: dict[str, int] = self._file.chroms()
        self._names: dict[str, str] = {}
        self._blocks: OrderedDict[tuple[str, int], Numbers] = OrderedDict()

    def check(self, contig: str) -> None:
        """Check that a contig of the FASTA has values here.

        Raises:
            InputError: The file lacks it, or has it with another length.
        """
        if contig in self._names:
            return
        name = self._name(contig)
        if name is None:
            lacking = [x for x in self._genome.contigs if self._name(x) is None]
            others = ", ".join(x for x in lacking[:6] if x != contig)
            raise InputError(
                f"{self._label}: no contig {contig}, where alleles are to be scored"
                f"{others and f'; of the FASTA it lacks {others} too'} (it has "
                f"{', '.join(list(self._lengths)[:3]) or 'none'}); name a bigWig that covers it, "
                f"or leave the contig out: -t ^{contig}"
            )
        found, wanted = self._lengths[name], self._genome.contigs[contig]
        if found != wanted:
            raise InputError(
                f"{self._label}: {name} has {found:,} bases, {contig} of {self._genome.path} has "
                f"{wanted:,}: a signal on another assembly; name the bigWig of this FASTA"
            )
        self._names[contig] = name

    def read(self, contig: str, positions: Ints) -> Numbers:
        """Read values as they stand in the file, NaN where there are none, shape (m,).

        Args:
            contig: A name of the FASTA that `check` has let pass.
            positions: 0-based, in ascending order, shape (m,).

        Raises:
            InputError: The file is damaged.
        """
        out = np.empty(positions.size, dtype=np.float32)
        numbers, starts = np.unique(positions // _BLOCK, return_index=True)
        ends = [*starts[1:].tolist(), positions.size]
        for number, start, end in zip(numbers.tolist(), starts.tolist(), ends, strict=True):
            block = self._block(contig, number)
            out[start:end] = block[positions[start:end] - number * _BLOCK]
        return out

    def _name(self, contig: str) -> str | None:
        return next((x for x in (contig, *aliases(contig)) if x in self._lengths), None)

    def _block(self, contig: str, number: int) -> Numbers:
        key = contig, number
        if key in self._blocks:
            self._blocks.move_to_end(key)
            return self._blocks[key]
        if len(self._blocks) >= _KEPT:
            self._blocks.popitem(last=False)
        start = number * _BLOCK
        end = min(start + _BLOCK, self._genome.contigs[contig])
        try:
            values = self._file.values(self._names[contig], start, end, numpy=True)
        except RuntimeError as error:
            raise InputError(
                f"{self._label}: {contig}:{start + 1}-{end} cannot be read; the file is damaged: "
                "copy the bigWig again"
            ) from error
        self._blocks[key] = values
        return self._blocks[key]


class Signals:
    """The bigWig channels of one model, see `channels.Source`.

    Args:
        channels: Of the card, those of bigWigs in their order.
        files: By name of the channel.
    """

    def __init__(self, channels: Sequence[Channel], files: Mapping[str, BigWig]) -> None:
        self._channels = channels
        self._files = {channel.name: files[channel.name] for channel in channels}

    @property
    def label(self) -> str:
        """Names of signals and files, without their folders."""
        return ",".join(f"{name}={Path(x.path).name}" for name, x in self._files.items())

    def holds(self, contig: str) -> bool:
        """Check a contig of the FASTA in every file, and say yes.

        Raises:
            InputError: A file lacks it, or has it with another length.
        """
        for file in self._files.values():
            file.check(contig)
        return True

    def read(self, contig: str, positions: Ints) -> Numbers:
        """Read transformed values at 0-based positions (m,) in ascending order, (m, channels).

        Raises:
            InputError: A file is damaged, or a value has no logarithm.
        """
        raw = {name: file.read(contig, positions) for name, file in self._files.items()}
        out = np.empty((positions.size, len(self._channels)), dtype=np.float32)
        for column, channel in enumerate(self._channels):
            values = raw[channel.name]
            known = np.isfinite(values)
            if channel.transform == "log1p":
                self._check_logarithms(channel.name, contig, positions[known], values[known])
                # Of doubles, so that every processor gives the same float.
                values = np.log1p(np.where(known, values, 0).astype(np.float64))
            out[:, column] = np.where(known, values, channel.missing)
        return out

    def _check_logarithms(self, name: str, contig: str, positions: Ints, values: Numbers) -> None:
        wrong = np.flatnonzero(values <= -1)
        if wrong.size:
            where, value = int(positions[wrong[0]]) + 1, float(values[wrong[0]])
            raise InputError(
                f"--signal {name}={self._files[name].path}: {value:g} at {contig}:{where}, and the "
                "model reads log(1 + value), which needs values above -1; name a bigWig of counts "
                "or coverage, before any logarithm"
            )


def parse_signals(texts: Sequence[str]) -> dict[str, str]:
    """Parse `NAME=FILE.bw`, one each, into files by name.

    Raises:
        UsageError: Something else, or one name twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise UsageError(f"--signal {text}: not NAME=FILE.bw")
        if name in found:
            raise UsageError(
                f"--signal {text}: {name} is {found[name]} already; a signal has one file"
            )
        found[name] = path
    return found


def _open(label: str, path: str) -> Any:
    import pyBigWig

    if not Path(path).is_file():
        found = "a folder" if Path(path).is_dir() else "no such file"
        raise InputError(f"{label}: {found}; --signal takes NAME=FILE.bw")
    check_head(label, path)
    try:
        return pyBigWig.open(path)
    except RuntimeError as error:
        raise InputError(
            f"{label}: its header cannot be read; the file is damaged: copy the bigWig again"
        ) from error


def check_head(label: str, path: str) -> None:
    """Look at the places where the library takes a file's word, and ends the process if false.

    Raises:
        InputError: The file is no bigWig, or not whole.
    """
    try:
        with open(path, "rb") as handle:
            head = handle.read(_HEAD_SIZE)
            magic = int.from_bytes(head[:4], "little")
            if magic != _MAGIC:
                found = "a bigBed" if magic == _BIGBED else f"it starts with {head[:8]!r}"
                raise InputError(
                    f"{label}: not a bigWig: {found}; bedGraphToBigWig makes one of a bedGraph"
                )
            whole = len(head) == _HEAD_SIZE and _is_whole(handle, head)
    except OSError as error:
        raise InputError(f"{label}: cannot be read: {error.strerror}") from error
    if not whole:
        raise InputError(f"{label}: a bigWig that was cut off; copy it again")


def _is_whole(handle: BinaryIO, head: bytes) -> bool:
    size = os.fstat(handle.fileno()).st_size
    _, _, zooms, tree, _, index = _HEAD.unpack(head[: _HEAD.size])
    for place, mark, length in ((tree, _TREE, 32), (index, _INDEX, 48)):
        if place + length > size:
            return False
        handle.seek(place)
        if handle.read(4) != mark.to_bytes(4, "little"):
            return False
    return bool(size >= _HEAD_SIZE + zooms * _ZOOM_SIZE)
