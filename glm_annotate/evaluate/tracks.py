"""`evaluate tracks`: predicted tracks against measured ones, across bins and across genes.

A bin has the mean of the measured signal over its bases. Bins of one window of the model are
predicted together, so that intervals come of resamples of windows; those of genes come of genes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from glm_annotate.answers import Floats, Ints
from glm_annotate.beds import merged, place, read_bed
from glm_annotate.errors import InputError, UsageError
from glm_annotate.evaluate.genome_columns import Signal
from glm_annotate.evaluate.metrics import (
    FEWEST_GROUPS,
    Estimate,
    bootstrap,
    estimate,
    once,
    pearson,
    resamples,
    spearman,
)
from glm_annotate.evaluate.output import Row
from glm_annotate.gene_files import read_gene_models
from glm_annotate.gene_models import Gene, GeneModels
from glm_annotate.genome import Genome, Interval
from glm_annotate.model import Model, Tracks
from glm_annotate.opening import open_models
from glm_annotate.predict import Predictor
from glm_annotate.run_setup import Setup
from glm_annotate.track_predictions import tracks_of

Missing = Literal["zero", "skip"]
Mask = Literal["gene", "exons"]
PREDICTION, BASELINE = "prediction", "gc"


@dataclass(frozen=True, slots=True)
class Binned:
    """Bins of one contig, all of them; NaN where there is none.

    Attributes:
        size: Bases of a bin.
        predicted: Shape (bins, tracks).
        observed: The same.
        gc: Share of G and C, shape (bins,).
    """

    size: int
    predicted: Floats
    observed: Floats
    gc: Floats


def evaluate_tracks(
    setup: Setup,
    bed: str,
    observed: Sequence[str],
    *,
    gtf: str | None = None,
    mask: Mask = "gene",
    missing: Missing = "zero",
    times: int = 1000,
    seed: int = 0,
) -> list[Row]:
    """Measure predicted tracks on regions.

    Args:
        setup: The models, and how they are read.
        bed: Regions.
        observed: `TRACK=FILE.bw`, one each.
        gtf: Genes, which are measured too.
        mask: Which bases of a gene are added up.
        missing: What bases are that a bigWig has no number of: 0, or left out.
        times: Resamples of an interval.
        seed: Of them.

    Returns:
        A row for each model, track, place (bins or genes) and metric.

    Raises:
        UsageError: A model predicts no tracks, or none of that name.
        InputError: A file cannot be read, or no bin is left.
    """
    genome = Genome(setup.fasta)
    stretches = merged([place(row, genome, bed) for row in read_bed(bed)], genome)
    if not stretches:
        raise InputError(f"{bed}: no base in it; name regions: -R FILE.bed")
    genes = None if gtf is None else read_gene_models(gtf)
    rows: list[Row] = []
    for model in open_models(replace(setup, gtf=None), genome):
        files = observed_files(model, observed)
        signals = [Signal(f"--observed {n}={p}", p, genome) for n, p in files.items()]
        chosen = choose(model, list(files))
        predictor = Predictor(chosen, genome)
        places = [tracks_of(chosen).table.number[name] for name in files]
        contigs = collect(predictor, stretches, signals, places, missing)
        step = predictor.grid.step // predictor.grid.bins.size
        for number, name in enumerate(files):
            rows += _bin_rows(model, name, number, contigs, step, times, seed)
            if genes is not None:
                strand = strand_of(chosen, name)
                rows += _gene_rows(model, name, number, contigs, genes, mask, strand, times, seed)
    return rows


def observed_files(model: Model, texts: Sequence[str]) -> dict[str, str]:
    """Parse `TRACK=FILE.bw`, where a track may have `=` in its name.

    Raises:
        UsageError: The model has no such track, or one twice.
    """
    if model.tracks is None:
        raise UsageError(f"-m: {model.bundle.card.name} predicts no tracks")
    names = model.tracks.table.identifiers
    found: dict[str, str] = {}
    for text in texts:
        fitting = [x for x in names if text.startswith(f"{x}=") and len(text) > len(x) + 1]
        if not fitting:
            known = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            raise UsageError(
                f"--observed {text}: not TRACK=FILE.bw with a track of {model.bundle.card.name}; "
                f"it has {known}"
            )
        name = max(fitting, key=len)
        if name in found:
            raise UsageError(f"--observed {text}: {name} is {found[name]} already")
        found[name] = text[len(name) + 1 :]
    return found


def choose(model: Model, names: Sequence[str]) -> Model:
    """Read of a model only some tracks, and their partners on the other strand."""
    tracks = tracks_of(model)
    own = [tracks.table.number[name] for name in names]
    kept = np.array(sorted({*own, *tracks.table.pair[own].tolist()}), dtype=np.int64)
    return replace(model, tracks=Tracks(tracks.table.take(kept), tracks.which[kept]))


def strand_of(model: Model, name: str) -> str:
    """Give the strand of a track that has a partner on the other; empty where it has none."""
    table = tracks_of(model).table
    track = table.tracks[table.number[name]]
    return name[-1] if track.strand_pair and name[-1] in "+-" else ""


def collect(
    predictor: Predictor,
    stretches: Sequence[Interval],
    signals: Sequence[Signal],
    places: Sequence[int],
    missing: Missing,
) -> dict[str, Binned]:
    """Predict the bins that hold a base of some stretches, and measure the same bins."""
    genome, size = predictor.genome, predictor.grid.bins.size
    out: dict[str, Binned] = {}
    wanted: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]] = {}
    for contig in dict.fromkeys(x.chrom for x in stretches):
        count = -(-genome.contigs[contig] // size)
        empty = np.full((count, len(signals)), np.nan)
        out[contig] = Binned(size, empty, empty.copy(), np.full(count, np.nan))
        wanted[contig] = np.zeros(count, dtype=bool)
    for x in stretches:
        wanted[x.chrom][x.start // size : -(-x.end // size)] = True
    for piece in predictor.predict(stretches):
        binned, first = out[piece.contig], piece.start // size
        bins = np.arange(first, first + piece.values.shape[0])
        inside = wanted[piece.contig][bins]
        binned.predicted[bins[inside]] = piece.values[inside][:, list(places)]
    for contig, binned in out.items():
        for run in _runs(np.flatnonzero(wanted[contig])):
            _measure(binned, genome, contig, run, signals, missing)
    return out


def _runs(bins: Ints) -> list[Ints]:
    return np.split(bins, np.flatnonzero(np.diff(bins) > 1) + 1) if bins.size else []


def _measure(
    binned: Binned,
    genome: Genome,
    contig: str,
    run: Ints,
    signals: Sequence[Signal],
    missing: Missing,
) -> None:
    """Fill in neighbouring bins what was measured there."""
    size, length = binned.size, genome.contigs[contig]
    start, end = int(run[0]) * size, min((int(run[-1]) + 1) * size, length)
    codes = genome.codes(contig)[start:end]
    strong = np.where(codes < 4, (codes == 1) | (codes == 2), np.nan)
    binned.gc[run] = _bin_means(strong, size)
    for number, signal in enumerate(signals):
        values = signal.values(contig, start, end)
        values = np.nan_to_num(values, nan=0.0) if missing == "zero" else values
        binned.observed[run, number] = _bin_means(values, size)


def _bin_means(values: Floats, size: int) -> Floats:
    """Average the bases of each bin that have a number; the last bin may have fewer bases."""
    bins = np.full((-(-values.size // size), size), np.nan)
    bins.reshape(-1)[: values.size] = values
    known = np.isfinite(bins)
    count = known.sum(axis=1)
    total = np.where(known, bins, 0.0).sum(axis=1)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def _bin_rows(
    model: Model,
    name: str,
    number: int,
    contigs: dict[str, Binned],
    step: int,
    times: int,
    seed: int,
) -> list[Row]:
    """Compare bins, which are drawn window by window."""
    x = np.concatenate([binned.predicted[:, number] for binned in contigs.values()])
    y = np.concatenate([binned.observed[:, number] for binned in contigs.values()])
    gc = np.concatenate([binned.gc for binned in contigs.values()])
    windows, last = [], 0
    for binned in contigs.values():
        windows.append(last + np.arange(binned.gc.size) // step)
        last = int(windows[-1][-1]) + 1
    known = np.isfinite(x) & np.isfinite(y) & np.isfinite(gc)
    if known.sum() < 2:
        raise InputError(
            f"--observed {name}: {int(known.sum())} bins with a prediction and a measured number; "
            "name other regions (-R), or take missing numbers as 0 (--missing zero)"
        )
    groups = np.unique(np.concatenate(windows)[known], return_inverse=True)[1]
    pairs = {PREDICTION: (x[known], y[known]), BASELINE: (gc[known], y[known])}
    return _rows(model, name, "bins", pairs, groups.reshape(-1), times, seed)


def gene_sums(binned: Binned, gene: Gene, mask: Mask, number: int) -> tuple[float, float] | None:
    """Add prediction and signal up over the bases of a gene; None where a bin has none."""
    totals = np.zeros(2)
    for start, end in gene.stretches(mask).tolist():
        bins = np.arange(start // binned.size, -(-end // binned.size))
        if end <= start or start < 0 or bins[-1] >= binned.gc.size:
            return None
        left = np.maximum(bins * binned.size, start)
        share = np.minimum((bins + 1) * binned.size, end) - left
        totals[0] += share @ binned.predicted[bins, number] / binned.size
        totals[1] += share @ binned.observed[bins, number]
    return None if np.isnan(totals).any() else (float(totals[0]), float(totals[1]))


def _gene_rows(
    model: Model,
    name: str,
    number: int,
    contigs: dict[str, Binned],
    genes: GeneModels,
    mask: Mask,
    strand: str,
    times: int,
    seed: int,
) -> list[Row]:
    """Compare genes that lie in the regions whole, by log2(1 + sum)."""
    found = [
        sums
        for contig, binned in contigs.items()
        for gene in genes.on(contig)
        if not strand or gene.strand == strand
        if (sums := gene_sums(binned, gene, mask, number)) is not None
    ]
    values = np.log2(1 + np.maximum(np.array(found).reshape(-1, 2), 0.0))
    if len(values) < 2:
        raise InputError(
            f"{genes.path}: {len(values)} genes lie in the regions whole; name other regions (-R)"
        )
    pairs = {PREDICTION: (values[:, 0], values[:, 1])}
    return _rows(model, name, f"genes ({mask})", pairs, np.arange(len(values)), times, seed)


def _rows(
    model: Model,
    name: str,
    where: str,
    pairs: dict[str, tuple[Floats, Floats]],
    groups: Ints,
    times: int,
    seed: int,
) -> list[Row]:
    """Measure pairs of columns; rows of a group are drawn together."""
    clusters = np.zeros(int(groups.max()) + 1, dtype=np.int64)
    measures = {
        (column, metric): measure
        for column, (x, y) in pairs.items()
        for metric, measure in (("Pearson", pearson(x, y)), ("Spearman", spearman(x, y)))
    }
    drawn = (weights[groups] for weights in resamples(clusters, times, seed))
    samples = bootstrap(
        list(measures.values()), drawn if clusters.size >= FEWEST_GROUPS else iter(())
    )
    rows: list[Row] = []
    for place_, ((column, metric), measure) in enumerate(measures.items()):
        found: Estimate = estimate(measure(once(groups)), samples[:, place_])
        rows.append(
            {
                "model": model.tag,
                "digest": model.bundle.digest,
                "track": name,
                "column": column,
                "across": where,
                "metric": metric,
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "count": int(groups.size),
                "groups": int(clusters.size),
            }
        )
    return rows
