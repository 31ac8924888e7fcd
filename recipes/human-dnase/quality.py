"""Measure predicted DNase and CAGE of windows of the human genome beside a ridge on 5-mers.

Bins are 128 bases, sums of four bins of the targets, whose values are left as they are stored. The
figure is the mean over tracks of Pearson's r across the bins of all windows. The ridge is fitted to
the same bins of the windows that the model was trained on; `ridge` reads the 5-mers of a bin and,
as a second set, those of the two beside it, `ridge_bin` the bin's alone, both strands counted
together. Their strength is chosen on the windows that the model was tuned on, for each assay.
Intervals are percentiles of a bootstrap over windows, the same windows for every score and track,
and so are those of differences.

The windows of the split's `test` are read with --final alone: they are for one look at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glm_annotate.errors import GlmAnnotateError, InputError
from glm_annotate.genome import Genome
from glm_annotate.train.config import load_config
from glm_annotate.train.supervised.config import SpeciesConfig
from glm_annotate.train.supervised.measures import Correlation, pearson
from glm_annotate.train.supervised.predicting import Windows, open_windows
from glm_annotate.train.supervised.ridge import (
    Interval,
    NormalEquations,
    count_kmers,
    kmer_columns,
    resample,
)
from glm_annotate.train.supervised.splits import split_genome
from glm_annotate.train.supervised.stored import Store, from_arrays

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

HERE = Path(__file__).parent
SIZE, WIDE, K = 32, 4, 5  # bases of a stored bin, such bins of a measured one, bases of a k-mer
STRENGTHS = (1e2, 1e3, 1e4, 1e5, 1e6)
Values = Mapping[str, Floats]  # by window, (bins, tracks)


@dataclass(frozen=True, slots=True)
class Data:
    """What is measured.

    Attributes:
        species: Of the config.
        genome: A sequence a window.
        store: Targets.
        parts: Names of the windows, by part of the split.
    """

    species: SpeciesConfig
    genome: Genome
    store: Store
    parts: Mapping[str, Sequence[str]]

    def place(self, window: str) -> tuple[int, int]:
        """First base and number of measured bins of a window."""
        known = (self.store.known or {})[window]
        return known.start, (known.end - known.start) // (SIZE * WIDE)

    def targets(self, window: str) -> Floats:
        """Values of the measured bins."""
        start, bins = self.place(window)
        stored = self.store.read(window, start // SIZE, bins * WIDE).astype(np.float64)
        sums: Floats = stored.reshape(bins, WIDE, -1).sum(1)
        return sums

    def features(self, window: str, *, beside: bool) -> Floats:
        """5-mers of each measured bin, and of its two neighbours as further columns."""
        start, bins = self.place(window)
        size = SIZE * WIDE
        codes = self.genome.codes(window)[start - size : start + (bins + 1) * size + K - 1]
        counts = count_kmers(codes, size, K, canonical=True)
        if not beside:
            return counts[1:-1]
        return np.concatenate([counts[1:-1], counts[:-2] + counts[2:]], axis=1)

    @property
    def assays(self) -> dict[str, Ints]:
        """Tracks of each assay."""
        names = [x.description.partition(":")[0] for x in self.species.track]
        return {name: np.flatnonzero(np.array(names) == name) for name in dict.fromkeys(names)}


def open_data(config: Path, folder: Path, *, final: bool) -> Data:
    """Open windows and targets; those of `test` with `final` alone."""
    settings = load_config(config).supervised
    if settings is None or settings.tracks is None or settings.tracks.species[0].arrays is None:
        raise InputError(f"{config}: wanted tracks of arrays")
    species = settings.tracks.species[0]
    genome = Genome(folder / species.fasta)
    split = split_genome(species.split, genome, config.parent)
    parts = {
        name: [x.chrom for x in stretches]
        for name, stretches in (
            ("train", split.train),
            ("tune", split.valid),
            ("final", split.test),
        )
        if name != "final" or final
    }
    names = [x for part in parts.values() for x in part]
    store = from_arrays(species.arrays, species.track, genome, names, data=folder, size=SIZE)
    return Data(species, genome, store, parts)


def predict_ridge(data: Data, measured: Sequence[str], *, beside: bool) -> Values:
    """Fit the ridge, and predict windows."""
    tracks = len(data.species.track)
    columns = kmer_columns(K, canonical=True)[1] * (2 if beside else 1)
    equations = NormalEquations(columns, tracks)
    for window in data.parts["train"]:
        equations.add(data.features(window, beside=beside), data.targets(window))
    fitted = equations.solve(STRENGTHS)
    held = [(data.features(x, beside=beside), data.targets(x)) for x in data.parts["tune"]]
    out = {x: np.empty_like(data.targets(x)) for x in measured}
    for own in data.assays.values():
        scores = []
        for ridge in fitted:
            r = Correlation(tracks)
            for x, y in held:
                r.add(ridge.predict(x).astype(np.float32), y.astype(np.float32))
            scores.append(float(np.nanmean(r.value()[own])))
        best = fitted[int(np.argmax(scores))]
        for window in measured:
            found = best.predict(data.features(window, beside=beside))
            out[window][:, own] = found[:, own]
    return out


def predict_model(model: Windows, data: Data, measured: Sequence[str]) -> Values:
    """Predict the measured bins of windows; the model's windows lie side by side.

    The last one is moved back, so that it ends where the targets end.
    """
    if [x.identifier for x in data.species.track] != list(model.table.identifiers):
        raise InputError("the model has other tracks than the config; export all of them")
    out = {}
    for window in measured:
        start, bins = data.place(window)
        count = bins * WIDE
        firsts = [min(x, count - model.bins) for x in range(0, count, model.bins)]
        starts = np.array([start + (x - model.crop) * SIZE for x in firsts], dtype=np.int64)
        codes = data.genome.windows(window, starts, model.length)
        found = np.empty((count, len(model.table)))
        for first, part in zip(firsts, model.predict(codes, squashed=True), strict=True):
            found[first : first + model.bins] = part
        out[window] = found.reshape(bins, WIDE, -1).sum(1)
    return out


def measure(
    scores: Mapping[str, Values], wanted: Values, columns: Ints, *, count: int, seed: int
) -> dict[str, Interval]:
    """Give the mean r over tracks of each score, and of the model less the ridge."""
    windows = list(wanted)
    drawn, values = {}, {}
    for name, found in scores.items():
        pairs = [
            ([found[w][:, i] for w in windows], [wanted[w][:, i] for w in windows])
            for i in columns.tolist()
        ]
        values[name] = float(
            np.nanmean([pearson(np.concatenate(x), np.concatenate(y)) for x, y in pairs])
        )
        drawn[name] = np.nanmean(resample(pairs, count=count, seed=seed), axis=1)
    if {"model", "ridge"} <= scores.keys():
        drawn["model_less_ridge"] = drawn["model"] - drawn["ridge"]
        values["model_less_ridge"] = values["model"] - values["ridge"]
    ends = {name: np.percentile(x, [2.5, 97.5]) for name, x in drawn.items()}
    return {k: Interval(v, float(ends[k][0]), float(ends[k][1])) for k, v in values.items()}


def to_markdown(results: Mapping[str, Mapping[str, Mapping[str, Interval]]]) -> str:
    """Lay the figures out as a table."""
    lines = ["| windows | assay | score | mean r | 95 % interval |", "|---|---|---|---|---|"]
    for part, assays in results.items():
        for assay, scores in assays.items():
            for name, x in scores.items():
                lines.append(
                    f"| {part} | {assay} | {name} | {x.value:.3f} | {x.low:.3f} to {x.high:.3f} |"
                )
    return "\n".join(lines) + "\n"


def run(options: argparse.Namespace) -> None:
    """Measure what the command line names."""
    data = open_data(HERE / "config.toml", options.data, final=options.final)
    parts = {k: v for k, v in data.parts.items() if k != "train"}
    measured = [x for part in parts.values() for x in part]
    scores: dict[str, Values] = {
        "ridge": predict_ridge(data, measured, beside=True),
        "ridge_bin": predict_ridge(data, measured, beside=False),
    }
    if options.model:
        scores["model"] = predict_model(open_windows(options.model), data, measured)
    results = {
        part: {
            assay: measure(
                scores,
                {x: data.targets(x) for x in names},
                columns,
                count=options.resamples,
                seed=options.seed,
            )
            for assay, columns in data.assays.items()
        }
        for part, names in parts.items()
    }
    report = {
        part: {a: {s: asdict(x) for s, x in v.items()} for a, v in assays.items()}
        for part, assays in results.items()
    }
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if options.markdown:
        sys.stdout.write(to_markdown(results))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and return an exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of the windows and their targets")
    add("--model", type=Path, help="bundle, or checkpoint of a run; without: the ridge alone")
    add("--final", action="store_true", help="read the test windows too: once, at the end")
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
