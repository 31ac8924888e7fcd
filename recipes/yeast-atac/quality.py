"""Measure predicted ATAC coverage of yeast chromosomes beside a ridge regression on 5-mers.

Bins are 200 bases on a fixed grid of each chromosome. The figure is Pearson's r between predicted
and measured log(1 + mean coverage); that of plain coverage is given too. The ridge is fitted to
log(1 + mean coverage) of the same bins of the chromosomes that the model was trained on, without
the ribosomal repeat. `ridge` reads the 5-mers of the bin and, as a second set, those of the two
bins beside it (both strands counted together, as coverage has no strand); `ridge_bin` the bin's
alone. Their strength is chosen on chrXIII and chrXIV. Intervals are percentiles of a bootstrap over
blocks of 20 kb, the same blocks for every score, and so are those of the differences.

chrXV is read with --final alone: it is for one look at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glm_annotate.beds import read_bed
from glm_annotate.errors import GlmAnnotateError, InputError
from glm_annotate.genome import Genome
from glm_annotate.train.supervised.measures import pearson
from glm_annotate.train.supervised.predicting import Windows, open_windows
from glm_annotate.train.supervised.ridge import (
    Interval,
    NormalEquations,
    Ridge,
    bootstrap,
    count_kmers,
    kmer_columns,
    resample,
)

Floats = NDArray[np.float64]

HERE = Path(__file__).parent
FASTA, BIGWIG = "S288C_R64_16chr.fa.gz", "atac_fragment_coverage.no_chrXVI.bw"
TRAIN = tuple(
    f"chr{x}" for x in ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"]
)
TUNE, FINAL = ("chrXIII", "chrXIV"), ("chrXV",)
BIN, K, BLOCK = 200, 5, 100  # bases of a bin, bases of a k-mer, bins of a block
STRENGTHS = (1.0, 10.0, 100.0, 1000.0, 3000.0, 10_000.0)


def read_coverage(path: Path, genome: Genome, contig: str) -> Floats:
    """Read the mean coverage of the bins of a contig, those that are not full left out."""
    import pyBigWig

    bins = genome.contigs[contig] // BIN
    with pyBigWig.open(str(path)) as bigwig:
        if bigwig.chroms(contig) != genome.contigs[contig]:
            raise InputError(f"{path}: {contig} is missing or has another length")
        values = np.asarray(bigwig.values(contig, 0, bins * BIN, numpy=True), dtype=np.float64)
    means: Floats = np.nan_to_num(values).reshape(bins, BIN).mean(1)
    return means


def features(genome: Genome, contig: str, *, beside: bool) -> Floats:
    """Count the 5-mers of each bin, and those of its two neighbours as further columns."""
    bins = genome.contigs[contig] // BIN
    own = count_kmers(genome.codes(contig)[: bins * BIN + K - 1], BIN, K, canonical=True)
    if not beside:
        return own
    around = np.zeros_like(own)
    around[1:] += own[:-1]
    around[:-1] += own[1:]
    return np.concatenate([own, around], axis=1)


def fit_ridge(genome: Genome, coverage: Mapping[str, Floats], *, beside: bool) -> Ridge:
    """Fit on the chromosomes trained on, and choose the strength on those tuned on."""
    columns = kmer_columns(K, canonical=True)[1] * (2 if beside else 1)
    equations = NormalEquations(columns, 1)
    hidden = {contig: np.zeros(genome.contigs[contig] // BIN, dtype=np.bool_) for contig in TRAIN}
    for row in read_bed(str(HERE / "rdna.bed")):
        hidden[row.contig][row.start // BIN : -(-row.end // BIN)] = True
    for contig in TRAIN:
        wanted = np.where(hidden[contig], np.nan, np.log1p(coverage[contig]))
        equations.add(features(genome, contig, beside=beside), wanted[:, None])
    held = np.concatenate([features(genome, contig, beside=beside) for contig in TUNE])
    wanted = np.log1p(np.concatenate([coverage[contig] for contig in TUNE]))
    fitted = equations.solve(STRENGTHS)
    return max(fitted, key=lambda x: pearson(x.predict(held)[:, 0], wanted))


def predict(model: Windows, genome: Genome, contig: str) -> Floats:
    """Predict the mean coverage of the bins of a contig, windows side by side."""
    if BIN % model.size:
        raise InputError(f"bins of {model.size} bases do not make up bins of {BIN}")
    step = model.bins * model.size
    bins = genome.contigs[contig] // BIN
    starts = np.arange(0, bins * BIN, step, dtype=np.int64) - model.crop * model.size
    out = []
    for start in range(0, starts.size, 16):
        codes = genome.windows(contig, starts[start : start + 16], model.length)
        out.append(model.predict(codes)[..., 0].ravel())
    found: Floats = np.concatenate(out)[: bins * (BIN // model.size)]
    return found.reshape(bins, -1).mean(1)


def blocks(values: Mapping[str, Floats], contigs: Sequence[str]) -> list[Floats]:
    """Cut chromosomes into blocks; the last one of each may be short."""
    return [
        values[contig][start : start + BLOCK]
        for contig in contigs
        for start in range(0, values[contig].size, BLOCK)
    ]


def measure(
    scores: Mapping[str, Mapping[str, Floats]],
    coverage: Mapping[str, Floats],
    contigs: Sequence[str],
    *,
    count: int,
    seed: int,
) -> dict[str, dict[str, Interval]]:
    """Compare scores, predictions of log(1 + coverage), with what was measured.

    Returns:
        By figure and score; `model_less_ridge` is the difference of r of the logarithms.
    """
    logs = blocks({x: np.log1p(coverage[x]) for x in contigs}, contigs)
    plain = blocks(coverage, contigs)
    found = {name: blocks(values, contigs) for name, values in scores.items()}
    table = {
        "log": {name: bootstrap(x, logs, count=count, seed=seed) for name, x in found.items()},
        "plain": {
            name: bootstrap([np.expm1(y) for y in x], plain, count=count, seed=seed)
            for name, x in found.items()
        },
    }
    if {"model", "ridge"} <= found.keys():
        drawn = resample([(found["model"], logs), (found["ridge"], logs)], count=count, seed=seed)
        value = table["log"]["model"].value - table["log"]["ridge"].value
        low, high = np.nanpercentile(drawn[:, 0] - drawn[:, 1], [2.5, 97.5])
        table["log"]["model_less_ridge"] = Interval(value, float(low), float(high))
    return table


def to_markdown(results: Mapping[str, Mapping[str, Mapping[str, Interval]]]) -> str:
    """Lay the figures out as a table."""
    lines = [
        "| chromosomes | coverage | score | Pearson r | 95 % interval |",
        "|---|---|---|---|---|",
    ]
    for contigs, figures in results.items():
        for figure, scores in figures.items():
            for name, x in scores.items():
                lines.append(
                    f"| {contigs} | {figure} | {name} | {x.value:.3f} | {x.low:.3f} to "
                    f"{x.high:.3f} |"
                )
    return "\n".join(lines) + "\n"


def run(options: argparse.Namespace) -> None:
    """Measure what the command line names."""
    genome, bigwig = Genome(options.data / FASTA), options.data / BIGWIG
    sets = {"chrXIII-XIV": TUNE} | ({"chrXV": FINAL} if options.final else {})
    measured = [contig for contigs in sets.values() for contig in contigs]
    coverage = {x: read_coverage(bigwig, genome, x) for x in (*TRAIN, *measured)}
    scores: dict[str, dict[str, Floats]] = {}
    if options.model:
        model = open_windows(options.model)
        scores["model"] = {x: np.log1p(np.maximum(predict(model, genome, x), 0)) for x in measured}
    for name, beside in (("ridge", True), ("ridge_bin", False)):
        ridge = fit_ridge(genome, coverage, beside=beside)
        scores[name] = {
            x: ridge.predict(features(genome, x, beside=beside))[:, 0] for x in measured
        }
    results = {
        name: measure(scores, coverage, contigs, count=options.resamples, seed=options.seed)
        for name, contigs in sets.items()
    }
    report = {
        name: {k: {s: asdict(x) for s, x in v.items()} for k, v in figures.items()}
        for name, figures in results.items()
    }
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if options.markdown:
        sys.stdout.write(to_markdown(results))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and return an exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, help=f"folder of {FASTA} and {BIGWIG}")
    add("--model", type=Path, help="bundle, or checkpoint of a run; without: the ridge alone")
    add("--final", action="store_true", help="read chrXV too: once, at the end")
    add("--resamples", type=int, default=1000, help="of the bootstrap (1000)")
    add("--seed", type=int, default=0, help="of the bootstrap (0)")
    add("--out", type=Path, required=True, help="JSON file of the figures")
    add("--markdown", action="store_true", help="write a table of them to stdout too")
    try:
        run(parser.parse_args(arguments))
    except GlmAnnotateError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
