"""Training data: FASTA files and lists of accessions in, windows of base codes out.

Decisions: a batch is a pure function of (seed, step), so that a resumed run sees what an
uninterrupted one would have seen and no sampler state is saved. All contigs lie in one uint8
array; a batch is one fancy index, with no loop over windows. Within a group a contig is drawn in
proportion to its number of windows. Linear contigs shorter than a window are padded with N.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glm_annotate.errors import InputError
from glm_annotate.genome import Codes, Genome, reverse_complement
from glm_annotate.train.config import DataConfig, GroupConfig, read_names

# Streams of random numbers that must not depend on one another.
_WINDOWS, MASKS = 0, 1


def stream(seed: int, step: int, kind: int) -> np.random.Generator:
    """Make the random numbers of one step: same arguments, same numbers."""
    return np.random.default_rng((seed, step, kind))


@dataclass(frozen=True, slots=True)
class Group:
    """Contigs sampled together.

    Attributes:
        name: For logs.
        contigs: Names.
        offsets: Where each contig begins in `Corpus.codes`, shape (n,).
        sizes: Bases of each contig, shape (n,).
        cumulative: Windows that begin before the end of each contig, shape (n,).
    """

    name: str
    contigs: tuple[str, ...]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    cumulative: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Corpus:
    """All sequences of a run, and how they are sampled.

    Attributes:
        codes: Base codes of all contigs, end to end, shape (bases,).
        groups: What is trained on, in the order of the config.
        valid: What is held out, by name of the group it would belong to.
    """

    config: DataConfig
    codes: Codes
    groups: tuple[Group, ...]
    valid: dict[str, Group]

    def batch(self, seed: int, step: int, size: int, anneal: float) -> Codes:
        """Draw training windows, shape (size, context).

        Args:
            seed: Of the run.
            step: Number of the step, from 0.
            size: Windows.
            anneal: Fraction of the anneal done, for weights that move.
        """
        rng = stream(seed, step, _WINDOWS)
        weights = np.array([g.weight.at(anneal) for g in self.config.groups])
        chosen = rng.choice(len(self.groups), size=size, p=weights / weights.sum())
        position, flip = rng.random(size), rng.random(size) < 0.5
        out = np.empty((size, self.config.context), dtype=np.uint8)
        for number, group in enumerate(self.groups):
            rows = np.flatnonzero(chosen == number)
            if rows.size:
                out[rows] = self._draw(group, position[rows])
        if self.config.reverse_complement:
            out[flip] = reverse_complement(out[flip])
        return out

    def validation(self, name: str) -> Codes:
        """Cut the held-out windows of a group on a fixed grid, shape (n, context)."""
        group, stride = self.valid[name], self.config.valid_stride
        counts = np.array([self._window_count(size) for size in group.sizes])
        starts = [np.arange(0, count, stride) for count in counts]
        contig = np.repeat(np.arange(len(starts)), [s.size for s in starts])
        return self._cut(group, contig, np.concatenate(starts))

    def _draw(self, group: Group, position: NDArray[np.float64]) -> Codes:
        """Turn uniform numbers into windows of a group, shape (n, context)."""
        index = (position * group.cumulative[-1]).astype(np.int64)
        contig = np.searchsorted(group.cumulative, index, side="right")
        before = np.concatenate([[0], group.cumulative[:-1]])
        return self._cut(group, contig, index - before[contig])

    def _cut(self, group: Group, contig: NDArray[np.int64], start: NDArray[np.int64]) -> Codes:
        inside = start[:, None] + np.arange(self.config.context)  # (n, context)
        sizes = group.sizes[contig][:, None]
        if self.config.circular:
            return self.codes[group.offsets[contig][:, None] + inside % sizes]
        known = inside < sizes
        picked = self.codes[group.offsets[contig][:, None] + np.minimum(inside, sizes - 1)]
        return np.where(known, picked, np.uint8(4))

    def _window_count(self, size: int) -> int:
        return window_count(size, self.config.context, self.config.circular)


def window_count(size: int, context: int, circular: bool) -> int:
    """Count the windows that a contig of `size` bases offers."""
    return size if circular else max(1, size - context + 1)


def load_corpus(config: DataConfig, folder: Path, lists: Path) -> Corpus:
    """Read every FASTA of a config.

    Args:
        config: Groups, hold-out and exclusion.
        folder: Data folder, which FASTA names are relative to.
        lists: Folder that lists of accessions are relative to.

    Raises:
        InputError: A file is missing, a listed accession is in no FASTA, or a group is empty.
    """
    genomes = {g.fasta: Genome(folder / g.fasta) for g in config.groups}
    validation = _names(lists, config.validation)
    withheld = validation | _names(lists, config.exclude)
    own = [_names(lists, group.accessions) for group in config.groups]
    everything = {name for genome in genomes.values() for name in genome.contigs}
    _check_known(validation.union(*own), everything)
    pieces = _Pieces(config)
    groups: list[Group] = []
    valid: dict[str, Group] = {}
    for number, group in enumerate(config.groups):
        genome = genomes[group.fasta]
        members = _members(group, genome, own, number)
        groups.append(pieces.add(group.name, genome, [n for n in members if n not in withheld]))
        held_out = [n for n in members if n in validation]
        if held_out:
            valid[group.name] = pieces.add(group.name, genome, held_out)
    return Corpus(config, np.concatenate(pieces.codes), tuple(groups), valid)


def _names(lists: Path, file: str | None) -> frozenset[str]:
    return frozenset(read_names(lists / file)) if file else frozenset()


def _members(
    group: GroupConfig, genome: Genome, own: Sequence[frozenset[str]], number: int
) -> list[str]:
    """Name the contigs of a group: its list, else what no list claims, in FASTA order."""
    if group.accessions:
        return [name for name in genome.contigs if name in own[number]]
    claimed = frozenset().union(*own)
    return [name for name in genome.contigs if name not in claimed]


def _check_known(listed: frozenset[str], everything: set[str]) -> None:
    missing = sorted(listed - everything)
    if missing:
        raise InputError(
            f"{len(missing)} listed accessions are in no FASTA of the config, the first "
            f"{missing[0]!r}; take them off the list or add their FASTA"
        )


class _Pieces:
    """Contigs laid end to end while groups are built."""

    def __init__(self, config: DataConfig) -> None:
        self._config = config
        self._length = 0
        self.codes: list[Codes] = []

    def add(self, name: str, genome: Genome, contigs: list[str]) -> Group:
        if not contigs:
            raise InputError(f"{genome.path}: group {name!r} has no contig left to sample")
        sizes = np.array([genome.contigs[c] for c in contigs], dtype=np.int64)
        offsets = self._length + np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self.codes.extend(genome.codes(c) for c in contigs)
        self._length += int(sizes.sum())
        counts = [window_count(int(s), self._config.context, self._config.circular) for s in sizes]
        return Group(name, tuple(contigs), offsets, sizes, np.cumsum(counts))
