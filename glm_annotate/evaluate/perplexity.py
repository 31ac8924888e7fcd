"""`evaluate perplexity`: how well a language model predicts the bases of a genome.

Every base of the regions is predicted from the others (masked models: masked, both strands averaged
as the card says) or from those before it (causal models, on the forward strand unless asked
otherwise), among A, C, G and T. Bases are shared out by the names of the regions and by repeats,
which are lower-case in the FASTA. Neighbouring bases are predicted alike, so that intervals come of
blocks of bases.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from glm_annotate.answers import Floats, Ints
from glm_annotate.beds import merged, place, read_bed
from glm_annotate.errors import InputError
from glm_annotate.evaluate.metrics import FEWEST_GROUPS, Estimate, estimate, resamples
from glm_annotate.evaluate.output import Row
from glm_annotate.gene_models import union
from glm_annotate.genome import Genome, Interval
from glm_annotate.model import Model
from glm_annotate.opening import open_models
from glm_annotate.per_base import Kind, Mode, over_stretches
from glm_annotate.run_setup import Setup

logger = logging.getLogger(__name__)

BLOCK = 1000  # bases that are drawn together
ALL, UNIQUE, REPEATS = "all", "unique", "repeats"
_MOST_NAMES = 50


@dataclass(frozen=True, slots=True)
class Regions:
    """Where bases are predicted.

    Attributes:
        stretches: Disjoint, in the order of the FASTA.
        named: Regions by name; one that overlaps others has the bases of both.
    """

    stretches: list[Interval]
    named: dict[str, list[Interval]] = field(default_factory=dict)


@dataclass(slots=True)
class Tally:
    """Sums over the bases of one kind.

    Attributes:
        blocks: By block: sum of log p (nats), and bases.
        bases: How many A, C, G and T were predicted, shape (4,).
        lost: Bases A, C, G, T without a number.
    """

    blocks: dict[tuple[str, int], tuple[float, int]] = field(default_factory=dict)
    bases: Ints = field(default_factory=lambda: np.zeros(4, dtype=np.int64))
    lost: int = 0

    def add(self, contig: str, positions: Ints, logs: Floats, codes: NDArray[np.uint8]) -> None:
        """Take bases of a stretch in."""
        known = np.isfinite(logs)
        self.lost += int(((codes < 4) & ~known).sum())
        self.bases += np.bincount(codes[known], minlength=4)[:4]
        numbers, inverse = np.unique(positions[known] // BLOCK, return_inverse=True)
        sums = np.bincount(inverse, logs[known], minlength=numbers.size)
        counts = np.bincount(inverse, minlength=numbers.size)
        for number, total, count in zip(numbers.tolist(), sums, counts, strict=True):
            old = self.blocks.get((contig, number), (0.0, 0))
            self.blocks[contig, number] = old[0] + float(total), old[1] + int(count)

    def entropy(self, times: int, seed: int) -> Estimate:
        """Estimate the mean of -log p, in nats a base, from resamples of blocks."""
        sums = np.array([x for x, _ in self.blocks.values()])
        counts = np.array([n for _, n in self.blocks.values()], dtype=np.int64)
        if not counts.size:
            return Estimate(math.nan, math.nan, math.nan)
        times = times if counts.size >= FEWEST_GROUPS else 0
        drawn = resamples(np.zeros(counts.size, dtype=np.int64), times, seed)
        samples = np.array([-(w @ sums) / (w @ counts) for w in drawn])
        return estimate(float(-sums.sum() / counts.sum()), samples)

    def composition(self) -> float:
        """Give the entropy of the bases alone, in nats: of a model that knows no more."""
        if not self.bases.sum():
            return math.nan
        share = self.bases / self.bases.sum()
        return float(-(share * np.log(np.where(share > 0, share, 1.0))).sum())


def find_regions(genome: Genome, bed: str | None) -> Regions:
    """Read the regions of a BED; without one all contigs are meant.

    Raises:
        InputError: It cannot be read, or holds no base.
    """
    if bed is None:
        return Regions([Interval(name, 0, size) for name, size in genome.contigs.items() if size])
    named: dict[str, list[Interval]] = {}
    for row in read_bed(bed):
        named.setdefault(row.name, []).append(place(row, genome, bed))
    stretches = merged([x for some in named.values() for x in some], genome)
    if not stretches:
        raise InputError(f"{bed}: no base in it; name regions: -R FILE.bed")
    if set(named) == {""}:
        named = {}
    if len(named) > _MOST_NAMES:
        logger.warning("%s: %d names of regions; bases are not shared out by them", bed, len(named))
        named = {}
    return Regions(stretches, named)


def evaluate_perplexity(
    setup: Setup, bed: str | None, *, times: int = 1000, seed: int = 0
) -> list[Row]:
    """Measure models on the bases of regions.

    Args:
        setup: The models, and how they are read.
        bed: Regions; None: the whole FASTA.
        times: Resamples of an interval.
        seed: Of them.

    Returns:
        A row for each model and kind of bases.
    """
    genome = Genome(setup.fasta)
    regions = find_regions(genome, bed)
    rows: list[Row] = []
    for model in open_models(setup, genome):
        if model.bundle.card.objective == "causal" and setup.strand is None:
            model = replace(model, strands=(False,))
        tallies = tally_model(model, genome, regions, setup.mode == "dense")
        for (name, kind), tally in tallies.items():
            rows.append(_row(model, name, kind, tally, times, seed))
    return rows


def _row(model: Model, name: str, kind: str, tally: Tally, times: int, seed: int) -> Row:
    found = tally.entropy(times, seed)
    bits = found.value / math.log(2.0)
    return {
        "model": model.tag,
        "digest": model.bundle.digest,
        "regions": name,
        "bases": kind,
        "count": int(tally.bases.sum()),
        "lost": tally.lost,
        "nats": found.value,
        "low": found.low,
        "high": found.high,
        "bits": bits,
        "perplexity": 2.0**bits,
        "composition_perplexity": math.exp(tally.composition()),
    }


def tally_model(
    model: Model, genome: Genome, regions: Regions, dense: bool
) -> dict[tuple[str, str], Tally]:
    """Add up what a model says of the bases of regions, by name of the region and kind of base."""
    tallies: dict[tuple[str, str], Tally] = {}
    named = {name or "no name": _by_contig(some) for name, some in regions.named.items()}
    kinds = [Kind("likelihood")]
    mode: Mode = "dense" if dense else "exact"
    for piece in over_stretches(model, genome, regions.stretches, kinds, mode):
        logs = piece.columns["likelihood"]
        where = Interval(piece.contig, piece.start, piece.start + logs.size)
        positions = np.arange(where.start, where.end)
        codes = genome.codes(where.chrom)[where.start : where.end]
        lower, every = _lower_case(genome, where), np.ones(logs.size, dtype=bool)
        members = {ALL: every}
        members |= {name: _inside(where.chrom, positions, x) for name, x in named.items()}
        for name, inside in members.items():
            for kind, of_kind in ((ALL, every), (UNIQUE, ~lower), (REPEATS, lower)):
                chosen = inside & of_kind
                tally = tallies.setdefault((name, kind), Tally())
                tally.add(where.chrom, positions[chosen], logs[chosen], codes[chosen])
    # Where no base is a repeat, the others are all there are.
    return {
        (name, kind): tally
        for (name, kind), tally in tallies.items()
        if kind == ALL or (tallies[name, REPEATS].bases.sum() and tally.bases.sum())
    }


def _by_contig(some: Sequence[Interval]) -> dict[str, Ints]:
    """Give disjoint stretches of each contig, shape (n, 2)."""
    contigs = dict.fromkeys(x.chrom for x in some)
    return {name: union((x.start, x.end) for x in some if x.chrom == name) for name in contigs}


def _inside(contig: str, positions: Ints, some: Mapping[str, Ints]) -> NDArray[np.bool_]:
    """Say which positions lie in stretches."""
    if contig not in some:
        return np.zeros(positions.size, dtype=bool)
    stretches = some[contig]
    before = np.searchsorted(stretches[:, 0], positions, side="right") - 1
    return np.asarray((before >= 0) & (positions < stretches[before.clip(min=0), 1]))


def _lower_case(genome: Genome, where: Interval) -> NDArray[np.bool_]:
    """Read which letters of the FASTA are lower-case, which a genome does not keep."""
    import pysam

    with pysam.FastaFile(genome.path) as file:
        text = file.fetch(where.chrom, where.start, where.end)
    return np.frombuffer(text.encode("latin-1"), dtype=np.uint8) >= ord("a")
