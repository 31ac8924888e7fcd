"""Sets of homologous stretches in, pairs of windows out: views of what evolution kept.

A pair is two members of one set, cut at the same share of their lengths, as members that are
aligned end to end want. A member on the reverse strand is read from its right end. Decisions: a
set of which any member lies on a held-out contig is held out whole, since its other members would
tell of it; members of a held-out group are never trained on, and measured against the rest.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glm_annotate.errors import InputError
from glm_annotate.genome import Codes, Genome, reverse_complement
from glm_annotate.train.config import TrainConfig
from glm_annotate.train.data import VIEWS, check_known, listed_names, stream

_COLUMNS = ("set", "fasta", "contig", "start", "end", "strand")


@dataclass(frozen=True, slots=True)
class Member:
    """A stretch, 0-based half-open.

    Attributes:
        genome: Path of its FASTA.
        contig: Its name.
        start: First base; `end`: exclusive.
        backward: It lies on the reverse strand.
        unseen: It is of a group that is held out.
    """

    genome: str
    contig: str
    start: int
    end: int
    backward: bool = False
    unseen: bool = False


@dataclass(frozen=True, slots=True)
class Pairs:
    """Two views each.

    Attributes:
        one: Base codes of the first views, shape (n, context).
        other: Of the second views.
        sets: Which set each pair is of, shape (n,).
    """

    one: Codes
    other: Codes
    sets: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Homologs:
    """Homologous stretches of a run.

    Attributes:
        config: Of the run.
        genomes: By path.
        train: Members by set, two or more each.
        valid: Members by held-out set.
        files: What was read.
    """

    config: TrainConfig
    genomes: dict[str, Genome]
    train: dict[str, tuple[Member, ...]]
    valid: dict[str, tuple[Member, ...]]
    files: tuple[Path, ...]

    def pairs(self, step: int) -> Pairs:
        """Draw the pairs of a step, of different sets where there are enough."""
        config = self.config
        rng = stream(config.seed, step, VIEWS)
        sets, size = list(self.train.values()), config.optim.batch
        chosen = rng.choice(len(sets), size=size, replace=len(sets) < size)
        counts = np.array([len(sets[i]) for i in chosen])
        first = rng.integers(counts)
        second = (first + 1 + rng.integers(counts - 1)) % counts
        place, flip = rng.random(size), rng.random(size) < 0.5
        reach = config.contrastive.jitter
        moves = rng.integers(-reach, reach + 1, size=(2, size))
        views = [
            np.stack(
                [
                    self._view(sets[i][m], float(u), int(move))
                    for i, m, u, move in zip(chosen, members, place, moved, strict=True)
                ]
            )
            for members, moved in ((first, moves[0]), (second, moves[1]))
        ]
        if config.data.reverse_complement:
            for view in views:  # both alike: a pair stays on one strand
                view[flip] = reverse_complement(view[flip])
        return Pairs(views[0], views[1], chosen.astype(np.int64))

    def held_out(self) -> Iterator[Pairs]:
        """Cut the middle of the first two members of every held-out set, unseen ones first."""
        members = [sorted(x, key=lambda m: not m.unseen)[:2] for x in self.valid.values()]
        size = self.config.contrastive.valid_batch
        for start in range(0, len(members), size):
            part = members[start : start + size]
            one, other = (np.stack([self._view(x[i], 0.5, 0) for x in part]) for i in (0, 1))
            yield Pairs(one, other, np.arange(start, start + len(part)))

    def _view(self, member: Member, place: float, move: int) -> Codes:
        """Cut a window of a member at a share of its length, shape (context,)."""
        context, length = self.config.data.context, member.end - member.start
        spare = length - context
        along = int(place * (spare + 1)) if spare >= 0 else -((-spare) // 2)
        start = member.start + along
        if member.backward:
            start = member.end - context - along
        circular = self.config.data.circular
        codes = self.genomes[member.genome].windows(
            member.contig, np.array([start + move]), context, circular=circular
        )[0]
        return reverse_complement(codes) if member.backward else codes


def load_homologs(config: TrainConfig, folder: Path, lists: Path) -> Homologs:
    """Read the homologous stretches of a config.

    Args:
        config: Of the run.
        folder: Data folder.
        lists: Folder that lists of names are relative to.

    Raises:
        InputError: A file cannot be read or names what is not there, or nothing is left to train
            on or to measure.
    """
    genomes = {g.fasta: Genome(folder / g.fasta) for g in config.data.groups}
    table = config.contrastive.pairs
    found = _same_names(config, genomes) if table is None else _listed(config, genomes, folder)
    validation = listed_names(lists, config.data.validation)
    excluded = listed_names(lists, config.data.exclude)
    check_known(validation, {name for genome in genomes.values() for name in genome.contigs})
    train: dict[str, tuple[Member, ...]] = {}
    valid: dict[str, tuple[Member, ...]] = {}
    for name, members in found.items():
        left = tuple(m for m in members if m.contig not in excluded)
        seen = tuple(m for m in left if not m.unseen)
        if any(m.contig in validation for m in left):
            if len(left) > 1:
                valid[name] = left
            continue
        if len(seen) > 1:
            train[name] = seen
        if len(seen) < len(left) and len(left) > 1:
            valid[name] = left
    if len(train) < 2:
        raise InputError(
            f"contrastive: found {len(train)} sets of two or more homologs to train on, wanted two "
            "or more; give contrastive.pairs, or groups with contigs of the same names"
        )
    if len(valid) < 2:
        raise InputError(
            f"data.validation: found {len(valid)} held-out sets of homologs, wanted two or more; "
            "name contigs (validation) or a group (held_out = true)"
        )
    tables = () if table is None else (folder / table,)
    files = (*(folder / g.fasta for g in config.data.groups), *tables)
    by_path = {genome.path: genome for genome in genomes.values()}
    return Homologs(config, by_path, train, valid, tuple(dict.fromkeys(files)))


def _same_names(config: TrainConfig, genomes: dict[str, Genome]) -> dict[str, list[Member]]:
    """Take contigs of one name in several groups for homologs."""
    found: dict[str, list[Member]] = {}
    for group in config.data.groups:
        genome = genomes[group.fasta]
        for name, size in genome.contigs.items():
            member = Member(genome.path, name, 0, size, unseen=group.held_out)
            found.setdefault(name, []).append(member)
    return found


def _listed(
    config: TrainConfig, genomes: dict[str, Genome], folder: Path
) -> dict[str, list[Member]]:
    path = folder / str(config.contrastive.pairs)
    unseen = {g.fasta for g in config.data.groups if g.held_out}
    found: dict[str, list[Member]] = {}
    try:
        with open(path, newline="", encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot read the table of homologs: {error}") from error
    for line, row in enumerate(rows, 2):
        lacking = [x for x in _COLUMNS if not row.get(x)]
        if lacking:
            raise InputError(
                f"{path}: line {line}: no {lacking[0]}; columns are {', '.join(_COLUMNS)}, between "
                "tabs, named in the first line"
            )
        genome = genomes.get(row["fasta"])
        if genome is None:
            raise InputError(
                f"{path}: line {line}: {row['fasta']} is the fasta of no group; add it to "
                "data.groups"
            )
        size = genome.contigs.get(row["contig"], -1)
        start, end = (int(row[x]) if row[x].isdecimal() else -1 for x in ("start", "end"))
        if not 0 <= start < end <= size or row["strand"] not in "+-":
            raise InputError(
                f"{path}: line {line}: {row['contig']}:{row['start']}-{row['end']} on strand "
                f"{row['strand']} is no place of {genome.path}"
            )
        backward = row["strand"] == "-"
        member = Member(genome.path, row["contig"], start, end, backward, row["fasta"] in unseen)
        found.setdefault(row["set"], []).append(member)
    return found
