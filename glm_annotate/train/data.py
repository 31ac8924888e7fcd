"""Training data: FASTA files and lists of contigs in, windows of base codes out.

Decisions: a batch is a pure function of (seed, step), so that a resumed run sees what an
uninterrupted one would have seen and no sampler state is saved. All contigs lie in one uint8
array; a batch is one fancy index, with no loop over windows. Within a group a window is drawn
evenly over all that there are, so a contig in proportion to its number of windows. Linear contigs
shorter than a window are padded with N. Windows that repeats make unlikely are drawn again, each
with numbers of its own, until one is taken.
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
from glm_annotate.train.places import Starts, anywhere, soft_masked, starts_within, stretches_of
from glm_annotate.train.places import window_count as window_count
from glm_annotate.train.settings import Ramp

# Streams of random numbers that must not depend on one another.
_WINDOWS, MASKS, _REPEATS, VIEWS, DROPOUT = 0, 1, 2, 3, 4


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
        starts: Windows that are drawn.
        everywhere: Windows of the whole contigs, of which a share of `random` comes.
        random: See there.
    """

    name: str
    contigs: tuple[str, ...]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    starts: Starts
    everywhere: Starts
    random: float = 0.0

    def place(self, position: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Turn numbers in [0, 1) into contigs (indices) and starts of windows."""
        contig, start = self.starts.at(position)
        if self.random:
            wide = position < self.random
            contig[wide], start[wide] = self.everywhere.at(position[wide] / self.random)
            rest = (position[~wide] - self.random) / (1 - self.random)
            contig[~wide], start[~wide] = self.starts.at(rest)
        return contig, start


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of one length.

    Attributes:
        codes: Base codes, shape (n, context).
        soft: Which bases are soft-masked, shape (n, context); None where nobody asks.
    """

    codes: Codes
    soft: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Corpus:
    """All sequences of a run, and how they are sampled.

    Attributes:
        config: Of the data.
        codes: Base codes of all contigs, end to end, shape (bases,).
        soft: Which bases are soft-masked, shape (bases,); None where that does not matter.
        groups: What is trained on, in the order of the config.
        weights: Of these groups.
        valid: What is held out, by name of the group it would belong to.
        files: What was read.
    """

    config: DataConfig
    codes: Codes
    soft: NDArray[np.bool_] | None
    groups: tuple[Group, ...]
    weights: tuple[Ramp, ...]
    valid: dict[str, Group]
    files: tuple[Path, ...] = ()

    def batch(self, seed: int, step: int, size: int, anneal: float) -> Codes:
        """Draw training windows as `windows` does, base codes alone, shape (size, context)."""
        return self.windows(seed, step, size, anneal).codes

    def windows(self, seed: int, step: int, size: int, anneal: float) -> Windows:
        """Draw training windows.

        Args:
            seed: Of the run.
            step: Number of the step, from 0.
            size: Windows.
            anneal: Fraction of the anneal done, for weights that move.
        """
        rng = stream(seed, step, _WINDOWS)
        weights = np.array([ramp.at(anneal) for ramp in self.weights])
        chosen = rng.choice(len(self.groups), size=size, p=weights / weights.sum())
        position, flip = rng.random(size), rng.random(size) < 0.5
        if self.config.repeat_sampling < 1:
            position = self._without_repeats(chosen, position, stream(seed, step, _REPEATS))
        codes = np.empty((size, self.config.context), dtype=np.uint8)
        soft = np.empty(codes.shape, dtype=bool) if self.soft is not None else None
        for number, group in enumerate(self.groups):
            rows = np.flatnonzero(chosen == number)
            if rows.size:
                cut = self.cut(group, *group.place(position[rows]))
                codes[rows] = cut.codes
                if soft is not None and cut.soft is not None:
                    soft[rows] = cut.soft
        if self.config.reverse_complement:
            codes[flip] = reverse_complement(codes[flip])
            if soft is not None:
                soft[flip] = soft[flip, ::-1]
        return Windows(codes, soft)

    def held_out(self, name: str) -> Windows:
        """Cut the held-out windows of a group on a fixed grid."""
        group, stride = self.valid[name], self.config.valid_stride
        firsts, counts, contigs = group.starts.first, group.starts.counts, group.starts.contig
        starts = [f + np.arange(0, c, stride) for f, c in zip(firsts, counts, strict=True)]
        contig = np.repeat(contigs, [s.size for s in starts])
        return self.cut(group, contig, np.concatenate(starts))

    def validation(self, name: str) -> Codes:
        """Cut the held-out windows of a group as `held_out` does, shape (n, context)."""
        return self.held_out(name).codes

    def cut(self, group: Group, contig: NDArray[np.int64], start: NDArray[np.int64]) -> Windows:
        """Cut the windows that begin at `start` of contigs (indices), both of shape (n,)."""
        inside = start[:, None] + np.arange(self.config.context)  # (n, context)
        sizes, offsets = group.sizes[contig][:, None], group.offsets[contig][:, None]
        if self.config.circular:
            index = offsets + inside % sizes
            return Windows(self.codes[index], self.soft[index] if self.soft is not None else None)
        known = (inside >= 0) & (inside < sizes)
        index = offsets + np.clip(inside, 0, sizes - 1)
        soft = self.soft[index] & known if self.soft is not None else None
        return Windows(np.where(known, self.codes[index], np.uint8(4)), soft)

    def _without_repeats(
        self,
        chosen: NDArray[np.int64],
        position: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> NDArray[np.float64]:
        """Draw positions again until each window passes: rejection keeps the shares exact."""
        position, open_ = position.copy(), np.arange(position.size)
        while open_.size:
            share = np.empty(open_.size)
            for number, group in enumerate(self.groups):
                rows = np.flatnonzero(chosen[open_] == number)
                if rows.size:
                    soft = self.cut(group, *group.place(position[open_[rows]])).soft
                    share[rows] = soft.mean(axis=1) if soft is not None else 0.0
            taken = rng.random(open_.size) < 1 - (1 - self.config.repeat_sampling) * share
            open_ = open_[~taken]
            position[open_] = rng.random(open_.size)
        return position


def load_corpus(config: DataConfig, folder: Path, lists: Path) -> Corpus:
    """Read every FASTA of a config.

    Args:
        config: Groups, hold-out and exclusion.
        folder: Data folder, which FASTA names are relative to.
        lists: Folder that lists of accessions are relative to.

    Raises:
        InputError: A file is missing, a listed accession is in no FASTA, a group is empty, or
            nothing is trained on.
    """
    genomes = {g.fasta: Genome(folder / g.fasta) for g in config.groups}
    validation = listed_names(lists, config.validation)
    withheld = validation | listed_names(lists, config.exclude)
    own = [listed_names(lists, group.accessions) for group in config.groups]
    everything = {name for genome in genomes.values() for name in genome.contigs}
    check_known(validation.union(*own), everything)
    pieces = _Pieces(config, folder)
    groups: list[Group] = []
    weights: list[Ramp] = []
    valid: dict[str, Group] = {}
    for number, group in enumerate(config.groups):
        genome = genomes[group.fasta]
        members = _members(group, genome, own, number)
        trained = [n for n in members if n not in withheld]
        held_out = [n for n in members if n in validation]
        if group.held_out:
            trained, held_out = [], [n for n in members if n in validation or n not in withheld]
        else:
            groups.append(pieces.add(group, genome, trained))
            weights.append(group.weight)
        if held_out:
            valid[group.name] = pieces.add(group, genome, held_out)
    if not groups:
        raise InputError("data.groups: every group is held_out, so nothing is left to train on")
    files = [folder / name for group in config.groups for name in _files(group)]
    soft = np.concatenate(pieces.soft) if config.needs_repeats else None
    return Corpus(
        config,
        np.concatenate(pieces.codes),
        soft,
        tuple(groups),
        tuple(weights),
        valid,
        tuple(dict.fromkeys(files)),
    )


def _files(group: GroupConfig) -> tuple[str, ...]:
    genes = (group.genes.gtf,) if group.genes is not None else ()
    return group.fasta, *group.regions, *genes


def listed_names(lists: Path, given: str | tuple[str, ...] | None) -> frozenset[str]:
    """Read names of contigs: a text file below `lists`, or the names themselves."""
    if isinstance(given, str):
        return frozenset(read_names(lists / given)) if given else frozenset()
    return frozenset(given or ())


def _members(
    group: GroupConfig, genome: Genome, own: Sequence[frozenset[str]], number: int
) -> list[str]:
    """Name the contigs of a group: its list, else what no list claims, in FASTA order."""
    if group.accessions:
        return [name for name in genome.contigs if name in own[number]]
    claimed = frozenset().union(*own)
    return [name for name in genome.contigs if name not in claimed]


def check_known(listed: frozenset[str], everything: set[str]) -> None:
    """Refuse names that no FASTA has: what is meant to be held out would be trained on.

    Raises:
        InputError: There is such a name.
    """
    missing = sorted(listed - everything)
    if missing:
        raise InputError(
            f"{len(missing)} listed accessions are in no FASTA of the config, the first "
            f"{missing[0]!r}; take them off the list or add their FASTA"
        )


class _Pieces:
    """Contigs laid end to end while groups are built."""

    def __init__(self, config: DataConfig, folder: Path) -> None:
        self._config, self._folder = config, folder
        self._length = 0
        self.codes: list[Codes] = []
        self.soft: list[NDArray[np.bool_]] = []

    def add(self, group: GroupConfig, genome: Genome, contigs: list[str]) -> Group:
        if not contigs:
            raise InputError(f"{genome.path}: group {group.name!r} has no contig left to sample")
        context, circular = self._config.context, self._config.circular
        sizes = np.array([genome.contigs[c] for c in contigs], dtype=np.int64)
        offsets = self._length + np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self.codes.extend(genome.codes(c) for c in contigs)
        if self._config.needs_repeats:
            self.soft.extend(soft_masked(genome.path, contigs))
        self._length += int(sizes.sum())
        everywhere = starts = anywhere(sizes, context, circular)
        if group.limited:
            stretches = stretches_of(group, genome, contigs, self._folder)
            starts = starts_within(stretches, sizes, context, circular)
            if not starts.counts.size:
                raise InputError(
                    f"{genome.path}: group {group.name!r} has regions or genes on none of its "
                    "contigs; name them as the FASTA does"
                )
        random = group.random
        return Group(group.name, tuple(contigs), offsets, sizes, starts, everywhere, random)
