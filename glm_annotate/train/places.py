"""Where windows may begin: whole contigs, or around stretches of a BED or of genes.

A window belongs to a stretch where it lies within it. Stretches shorter than a window are first
widened to it, evenly on both sides, and moved into a linear contig; what then overlaps or touches
is one stretch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glm_annotate.beds import place, read_bed
from glm_annotate.errors import InputError
from glm_annotate.gene_files import read_gene_models
from glm_annotate.gene_models import union
from glm_annotate.genome import Genome
from glm_annotate.train.settings import GenesConfig, GroupConfig

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Starts:
    """Runs of starts of windows.

    Attributes:
        contig: Index of the contig of each run, shape (n,).
        first: First start of each, 0-based.
        counts: Starts of each.
    """

    contig: Ints
    first: Ints
    counts: Ints

    @cached_property
    def cumulative(self) -> Ints:
        """Starts of each run and those before it."""
        return np.cumsum(self.counts)

    def at(self, position: NDArray[np.float64]) -> tuple[Ints, Ints]:
        """Turn numbers in [0, 1) into contigs (indices) and starts, evenly over all starts."""
        index = (position * self.cumulative[-1]).astype(np.int64)
        run = np.searchsorted(self.cumulative, index, side="right")
        before = np.concatenate([[0], self.cumulative[:-1]])
        return self.contig[run], self.first[run] + index - before[run]


def window_count(size: int, context: int, circular: bool) -> int:
    """Count the windows that a contig of `size` bases offers."""
    return size if circular else max(1, size - context + 1)


def anywhere(sizes: Ints, context: int, circular: bool) -> Starts:
    """List all starts of contigs, one run each."""
    counts = [window_count(int(size), context, circular) for size in sizes]
    return Starts(np.arange(sizes.size), np.zeros_like(sizes), np.array(counts, dtype=np.int64))


def starts_within(stretches: Sequence[Ints], sizes: Ints, context: int, circular: bool) -> Starts:
    """List the starts of windows that lie within stretches.

    Args:
        stretches: Of each contig, shape (m, 2), 0-based half-open.
        sizes: Bases of each contig.
        context: Bases of a window.
        circular: Contigs wrap around.
    """
    contig, first, counts = [], [], []
    for index, (found, size) in enumerate(zip(stretches, sizes.tolist(), strict=True)):
        if not len(found):
            continue
        if size < context:  # one window, or on a circle as many as there are bases
            contig.append(index)
            first.append(0)
            counts.append(window_count(size, context, circular))
            continue
        wide = list(_widened(found, size, context, circular))
        runs = _on_circle(wide, size, context) if circular else _on_line(wide, context)
        for start, end in runs.tolist():
            contig.append(index)
            first.append(start)
            counts.append(end - start)
    columns = (np.array(x, dtype=np.int64) for x in (contig, first, counts))
    return Starts(*columns)


def _widened(found: Ints, size: int, context: int, circular: bool) -> Iterable[tuple[int, int]]:
    for start, end in found.tolist():
        lacking = max(0, context - (end - start))
        left, right = start - lacking // 2, end + lacking - lacking // 2
        if not circular:
            moved = max(0, -left) - max(0, right - size)
            left, right = left + moved, right + moved
        yield left, right


def _on_line(wide: Sequence[tuple[int, int]], context: int) -> Ints:
    """Give runs of starts [first, end) of windows within united stretches, shape (m, 2)."""
    merged = union(wide)
    return np.stack([merged[:, 0], merged[:, 1] - context + 1], axis=1)


def _on_circle(wide: Sequence[tuple[int, int]], size: int, context: int) -> Ints:
    """Do as `_on_line`, across the origin too."""
    inside = np.zeros(size, dtype=np.int64)
    for start, end in wide:
        inside[np.arange(start, min(end, start + size)) % size] = 1
    before = np.concatenate([[0], np.cumsum(np.concatenate([inside, inside]))])
    allowed = before[context : context + size] - before[:size] == context
    change = np.diff(np.pad(allowed.astype(np.int8), 1))
    return np.stack([np.flatnonzero(change == 1), np.flatnonzero(change == -1)], axis=1)


def stretches_of(
    group: GroupConfig, genome: Genome, contigs: Sequence[str], folder: Path
) -> list[Ints]:
    """Read the stretches of a group by contig: its BED files and genes, united.

    Raises:
        InputError: A file cannot be read, or does not fit the FASTA.
    """
    found: dict[str, list[tuple[int, int]]] = {name: [] for name in contigs}
    for name in group.regions:
        source = str(folder / name)
        for row in read_bed(source):
            where = place(row, genome, source)
            if where.chrom in found and where.end > where.start:
                found[where.chrom].append((where.start, where.end))
    if group.genes is not None:
        genes = read_gene_models(folder / group.genes.gtf)
        for name in contigs:
            for gene in genes.on(name):
                if gene.end > genome.contigs[name]:
                    raise InputError(
                        f"{folder / group.genes.gtf}: gene {gene.gene_id} runs past the end of "
                        f"{name} of {genome.path}; is it another assembly?"
                    )
                parts = _around(gene.exons, gene.tss, gene.strand == "-", group.genes)
                size = genome.contigs[name]
                found[name] += [(max(0, a), min(size, b)) for a, b in parts.tolist()]
    return [union(found[name]) for name in contigs]


def _around(exons: Ints, tss: Ints, backward: bool, config: GenesConfig) -> Ints:
    """Give a gene's exons with flanks and the promoters of its transcripts, shape (m, 2)."""
    up, down = config.upstream, config.downstream
    # A start on the reverse strand has its promoter to the right.
    left, right = (down - 1, up + 1) if backward else (up, down)
    promoters = np.stack([tss - left, tss + right], axis=1)
    wide = exons + np.array([-config.flank, config.flank])
    both = np.concatenate([wide, promoters])
    return both[both[:, 1] > both[:, 0]]


def soft_masked(path: str, contigs: Iterable[str]) -> list[NDArray[np.bool_]]:
    """Say which letters of contigs are lower-case, shape (length,) each."""
    import pysam

    with pysam.FastaFile(path) as fasta:
        return [
            np.frombuffer(fasta.fetch(name).encode("ascii", "replace"), dtype=np.uint8) >= ord("a")
            for name in contigs
        ]
