"""What the files of a run hold, read without MultiQC."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

ALLELE = ("chrom", "pos", "id", "ref", "alt")
# Statuses of alleles whose every score has a number.
COMPLETE = ("SCORED", "PRECOMPUTED")
BINS = 40


def read_summary(text: str) -> dict[str, Any] | None:
    """Parse the JSON of `glm-annotate vcf --summary`; None if it is another JSON."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return None
    if not isinstance(found, dict) or not {"glm_annotate", "alleles", "models"} <= found.keys():
        return None
    return found


def read_scores(lines: Iterable[str]) -> dict[str, array[float]] | None:
    """Collect the numbers of each score of `glm-annotate vcf --tsv`; None if it is another table.

    Columns that hold text (status, genes, names of tracks) are left out, missing numbers too.
    """
    rows = iter(lines)
    head = next(rows, "").rstrip("\r\n").split("\t")
    if tuple(head[: len(ALLELE)]) != ALLELE:
        return None
    # Single precision: at most 6 digits are in the file, and a genome has millions of rows.
    found = {name: array("f") for name in head[len(ALLELE) :] if not name.endswith("_STATUS")}
    places = {name: head.index(name) for name in found}
    for row in rows:
        cells = row.rstrip("\r\n").split("\t")
        for name, place in tuple(places.items()):
            if cells[place] == ".":
                continue
            try:
                found[name].append(float(cells[place]))
            except ValueError:
                del found[name], places[name]
    return {name: values for name, values in found.items() if values}


def histograms(samples: Mapping[str, Sequence[float]]) -> dict[str, dict[float, float]]:
    """Percent of the numbers of each sample by bin; the samples share the bins, keyed by centre."""
    low = min(min(values) for values in samples.values())
    high = max(max(values) for values in samples.values())
    width = (high - low) / BINS or 1.0
    centres = [float(f"{low + (i + 0.5) * width:.4g}") for i in range(BINS)]
    found = {}
    for name, values in samples.items():
        counts = [0] * BINS
        for value in values:
            counts[min(BINS - 1, int((value - low) / width))] += 1
        found[name] = {x: 100 * n / len(values) for x, n in zip(centres, counts, strict=False)}
    return found


def median(values: Sequence[float]) -> float:
    """The middle number, or the mean of the two, to the 6 digits that the numbers have."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    found = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return float(f"{found:.6g}")
