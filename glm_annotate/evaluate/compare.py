"""Columns against labels on the alleles that all of them have: measures, intervals, differences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glm_annotate.answers import Floats, Ints
from glm_annotate.errors import InputError
from glm_annotate.evaluate.alleles import Labels, SiteCell
from glm_annotate.evaluate.columns import Column, Strata
from glm_annotate.evaluate.metrics import (
    Estimate,
    Measure,
    auroc,
    average_precision,
    bootstrap,
    estimate,
    once,
    pearson,
    resamples,
    spearman,
    within,
)

# Strata with fewer alleles of either class, or fewer numbers, have no measure.
FEWEST = 10
EVERYTHING = "all"
MATCHED = "within strata"


@dataclass(frozen=True, slots=True)
class Shared:
    """Which alleles are measured, and why the others are not.

    Attributes:
        rows: Of the table, those with a label and a number in every column, each allele once.
        dropped: How many of the others, by the first reason, in the order of the columns.
        lacking: By column, how many labelled alleles it has no number of, by reason.
    """

    rows: Ints
    dropped: dict[str, int]
    lacking: dict[str, dict[str, int]]


def share_alleles(sites: Sequence[SiteCell], labels: Labels, columns: Sequence[Column]) -> Shared:
    """Find the alleles that every column has a number of.

    Raises:
        InputError: There are none, or none of one class.
    """
    why = list(labels.reasons)
    seen: set[SiteCell] = set()
    for i, site in enumerate(sites):
        if not why[i] and site in seen:
            why[i] = "given before in the file"
        seen.add(site)
    labelled = [not reason for reason in why]
    lacking: dict[str, dict[str, int]] = {}
    for column in columns:
        found: Counter[str] = Counter()
        for i in np.flatnonzero(~np.isfinite(column.values)).tolist():
            if labelled[i]:
                found[column.reasons[i] or "no value"] += 1
                why[i] = why[i] or f"{column.name}: {column.reasons[i] or 'no value'}"
        lacking[column.name] = dict(found.most_common())
    rows = np.array([i for i, reason in enumerate(why) if not reason], dtype=np.int64)
    dropped = dict(Counter(reason for reason in why if reason).most_common())
    values = labels.values[rows]
    good = rows.size > 1 if labels.kind == "numbers" else 0 < values.sum() < rows.size
    if not good:
        causes = "; ".join(f"{count} {reason}" for reason, count in dropped.items())
        what = "numbers" if labels.kind == "numbers" else "alleles of both classes"
        raise InputError(
            f"too few {what} with a number in every column ({rows.size} of {len(why)} alleles "
            f"left; {causes or 'all of one class'}); leave out the column that lacks most"
        )
    return Shared(rows, dropped, lacking)


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    Attributes:
        column: What was measured; `against`: what it was compared with, value = column - against.
        by: How alleles were shared out, `stratum`: which of them it is of.
        rows: Alleles; `positives`: those of the positive class, 0 where labels are numbers.
    """

    column: str
    against: str
    by: str
    stratum: str
    metric: str
    estimate: Estimate
    rows: int
    positives: int


def compare(
    columns: Sequence[Column],
    labels: Labels,
    shared: Shared,
    strata: Sequence[Strata],
    *,
    times: int,
    seed: int,
) -> list[Figure]:
    """Measure columns on the shared alleles: all of them, then stratum by stratum.

    Resamples keep the number of alleles of each class, in strata of each class in each stratum, and
    all columns are measured on the same ones.
    """
    label = labels.values[shared.rows]
    is_class = labels.kind == "classes"
    values = [column.oriented[shared.rows] for column in columns]
    names = [column.name for column in columns]
    classes = label.astype(np.int64) if is_class else np.zeros(label.size, dtype=np.int64)
    figures = _overall(names, values, label, classes, labels, times, seed)
    for some in strata:
        codes = np.array([some.order.index(some.labels[i]) for i in shared.rows.tolist()])
        figures += _stratified(names, values, label, classes, labels, some, codes, times, seed)
    return figures


def _overall(
    names: list[str],
    values: list[Floats],
    label: Floats,
    classes: Ints,
    labels: Labels,
    times: int,
    seed: int,
) -> list[Figure]:
    sets = [measures_of(x, label, labels.kind) for x in values]
    metrics = list(sets[0])
    flat = [measures[name] for measures in sets for name in metrics]
    whole = np.array([measure(once(classes)) for measure in flat]).reshape(len(names), -1)
    drawn = bootstrap(flat, resamples(classes, times, seed)).reshape(times, *whole.shape)
    size, positives = label.size, int(classes.sum())
    out: list[Figure] = []
    for m, metric in enumerate(metrics):
        for i, name in enumerate(names):
            found = estimate(whole[i, m], drawn[:, i, m])
            out.append(Figure(name, "", EVERYTHING, "", metric, found, size, positives))
        for i, name in enumerate(names):
            for j, other in enumerate(names):
                if i < j:
                    gap = estimate(whole[i, m] - whole[j, m], drawn[:, i, m] - drawn[:, j, m])
                    out.append(Figure(name, other, EVERYTHING, "", metric, gap, size, positives))
    return out


def _stratified(
    names: list[str],
    values: list[Floats],
    label: Floats,
    classes: Ints,
    labels: Labels,
    strata: Strata,
    codes: Ints,
    times: int,
    seed: int,
) -> list[Figure]:
    """Measure each stratum, and the mean over strata of which no pair crosses a border."""
    members = [np.flatnonzero(codes == s) for s in range(len(strata.order))]
    counts = [(rows.size, int(classes[rows].sum())) for rows in members]
    measured = [s for s, (n, p) in enumerate(counts) if _is_enough(n, p, labels)]
    # In AUROC a stratum counts by its pairs, in correlations by its alleles.
    is_class = labels.kind == "classes"
    sizes = [float(counts[s][1] * (counts[s][0] - counts[s][1]) if is_class else counts[s][0])
             for s in measured]  # fmt: skip
    flat: list[Measure] = []
    keys: list[tuple[str, str, int]] = []
    for name, column in zip(names, values, strict=True):
        sets = [
            {metric: _part(measure, members[s]) for metric, measure in
             measures_of(column[members[s]], label[members[s]], labels.kind).items()}
            for s in measured
        ]  # fmt: skip
        for place, found in zip(measured, sets, strict=True):
            flat += found.values()
            keys += [(name, metric, place) for metric in found]
        # A mean precision over strata with other shares of positives would mean nothing.
        for metric in ("AUROC",) if is_class else ("Spearman", "Pearson"):
            if len(measured) > 1:
                flat.append(within([found[metric] for found in sets], sizes))
                keys.append((name, metric, -1))
    drawn = bootstrap(flat, resamples(2 * codes + classes, times, seed))
    out = []
    for i, (name, metric, place) in enumerate(keys):
        measured_so = estimate(flat[i](once(classes)), drawn[:, i])
        inside = [counts[s] for s in measured] if place < 0 else [counts[place]]
        title = MATCHED if place < 0 else strata.order[place]
        n, p = (sum(x) for x in zip(*inside, strict=True))
        out.append(Figure(name, "", strata.name, title, metric, measured_so, n, p))
    nothing = Estimate(float("nan"), float("nan"), float("nan"))
    metric = "AUROC" if is_class else "Spearman"
    out += [
        Figure(name, "", strata.name, strata.order[s], metric, nothing, n, p)
        for name in names
        for s, (n, p) in enumerate(counts)
        if s not in measured and n
    ]
    return out


def _part(measure: Measure, rows: Ints) -> Measure:
    return lambda weights: measure(weights[rows])


def _is_enough(rows: int, positives: int, labels: Labels) -> bool:
    if labels.kind == "numbers":
        return rows >= FEWEST
    return min(positives, rows - positives) >= FEWEST


def measures_of(values: Floats, label: Floats, kind: str) -> dict[str, Measure]:
    """List the measures of a column against labels."""
    if kind == "numbers":
        return {"Spearman": spearman(values, label), "Pearson": pearson(values, label)}
    positive = label > 0.5
    return {"AUROC": auroc(values, positive), "AUPRC": average_precision(values, positive)}
