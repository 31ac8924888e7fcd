"""Which stretches of a genome are trained on, measured, or left alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from glm_annotate.beds import place, read_bed
from glm_annotate.errors import InputError
from glm_annotate.genome import Genome, Interval
from glm_annotate.train.supervised.config import SplitConfig


@dataclass(frozen=True, slots=True)
class Split:
    """Stretches by their part.

    Attributes:
        train: Trained on.
        valid: Measured.
        test: Left alone.
        whole: Whether stretches are whole contigs, so that a window may reach past their ends.
    """

    train: tuple[Interval, ...]
    valid: tuple[Interval, ...]
    test: tuple[Interval, ...]
    whole: bool

    @property
    def used(self) -> tuple[str, ...]:
        """Contigs of which targets may be read, each once."""
        return tuple(dict.fromkeys(x.chrom for x in (*self.train, *self.valid)))


def split_genome(config: SplitConfig, genome: Genome, home: Path) -> Split:
    """Split a genome by contigs, or by the folds of a BED.

    Args:
        config: Names of contigs or folds.
        genome: The genome.
        home: Folder that the BED is relative to.

    Raises:
        InputError: A name is unknown, stretches of different parts overlap, or nothing is trained
            on.
    """
    if config.folds is None:
        known: dict[str, tuple[Interval, ...]] = {
            name: (Interval(name, 0, size),) for name, size in genome.contigs.items()
        }
        source = genome.path
    else:
        source = str(home / config.folds)
        known = _folds(source, genome)
    parts = assign(config, known, source)
    chosen = [tuple(x for name in part for x in known[name]) for part in parts]
    if config.folds is not None:
        _check_apart(chosen, source)
    return Split(chosen[0], chosen[1], chosen[2], config.folds is None)


def contigs(stretches: Iterable[Interval]) -> list[str]:
    """Name the contigs of stretches, each once."""
    return list(dict.fromkeys(x.chrom for x in stretches))


def assign(
    config: SplitConfig, known: Iterable[str], source: str
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Name what is trained on, measured and left alone.

    Args:
        config: The names.
        known: All names there are.
        source: What messages call their file.

    Raises:
        InputError: A name is unknown, or nothing is left to train on.
    """
    names = list(known)
    missing = [x for x in (*config.train, *config.valid, *config.test) if x not in names]
    if missing:
        shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        raise InputError(f"split: {source} has no {missing[0]!r}; it has {shown}")
    other = {*config.valid, *config.test}
    train = config.train or tuple(x for x in names if x not in other)
    if not train:
        raise InputError(f"split: nothing of {source} is left to train on; hold less out")
    return train, config.valid, config.test


def _folds(path: str, genome: Genome) -> dict[str, tuple[Interval, ...]]:
    found: dict[str, list[Interval]] = {}
    for row in read_bed(path):
        if not row.name:
            raise InputError(f"{path}: line {row.line}: no fourth column, which names the fold")
        found.setdefault(row.name, []).append(place(row, genome, path))
    return {name: tuple(rows) for name, rows in found.items()}


def _check_apart(parts: list[tuple[Interval, ...]], path: str) -> None:
    """Refuse stretches of different parts that share a base."""
    every = sorted(
        (x.chrom, x.start, x.end, number) for number, part in enumerate(parts) for x in part
    )
    reach: dict[str, tuple[int, int]] = {}  # end of what came so far, and its part
    for chrom, start, end, number in every:
        before = reach.get(chrom)
        if before is not None and start < before[0] and number != before[1]:
            raise InputError(
                f"{path}: {chrom}:{start}-{end} overlaps a stretch of another part of the split; "
                "cut the folds so that they share no base"
            )
        if before is None or end > before[0]:
            reach[chrom] = (end, number)
