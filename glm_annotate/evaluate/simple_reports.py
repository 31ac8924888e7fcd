"""What `evaluate perplexity`, `tracks` and `context` leave in their folders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from glm_annotate.evaluate.context import SHARE, verdict
from glm_annotate.evaluate.metrics import COVERAGE, FEWEST_GROUPS
from glm_annotate.evaluate.output import (
    Row,
    as_markdown,
    as_text,
    with_interval,
    write_report,
    write_rows,
)
from glm_annotate.evaluate.perplexity import BLOCK
from glm_annotate.evaluate.pictures import Curve, Point, draw_curves, draw_forest


def _interval(row: Row) -> str:
    return with_interval(*(float(row[name]) for name in ("value", "low", "high")))


def _point(row: Row, line: str, series: str, value: str = "value") -> Point:
    return Point(line, series, *(float(row[name]) for name in (value, "low", "high")))


def _digests(rows: Sequence[Row], name: str) -> str:
    """Name the digest of each model."""
    found = dict.fromkeys((str(row[name]), str(row["digest"])) for row in rows)
    return as_markdown([{name: text, "digest": digest} for text, digest in found])


def report_perplexity(rows: Sequence[Row], folder: Path, command: str) -> str:
    """Write everything; returns the table for the terminal."""
    write_rows(rows, folder)
    shown: list[Row] = [
        {
            "model": row["model"],
            "regions": row["regions"],
            "bases": row["bases"],
            "count": row["count"],
            "nats a base": with_interval(*(float(row[x]) for x in ("nats", "low", "high"))),
            "perplexity": float(f"{row['perplexity']:.4f}"),
            "of composition": float(f"{row['composition_perplexity']:.4f}"),
            "without": row["lost"],
        }
        for row in rows
    ]
    draw_forest(
        folder / "perplexity.png",
        [_point(x, f"{x['regions']}, {x['bases']}", str(x["model"]), "nats") for x in rows],
        title="Cross-entropy of bases",
        label=f"nats a base, {COVERAGE:g} % interval (dashed: a guess)",
        chance=math.log(4.0),
    )
    reading = (
        "- Nats a base: mean of -log p of the base, among A, C, G and T. Perplexity: 2 to the "
        "power of the bits, e to that of the nats; 4 is a guess, 1 is certain.\n"
        "- `of composition`: perplexity of a model that knows the shares of the four bases alone.\n"
        f"- Intervals are of resamples of blocks of {BLOCK} bases; fewer than {FEWEST_GROUPS} "
        "blocks have none. Bases without a number (OUT_OF_SCOPE and the like) are in `without`.\n"
        "- Of masked models this is a pseudo-perplexity: each base is predicted from all "
        "others, so that it cannot be compared with that of a causal model."
    )
    parts = [
        ("Bases", as_markdown(shown)),
        ("Models", _digests(rows, "model")),
        ("How to read this", reading),
    ]
    write_report(folder, "Perplexity", command, parts)
    return as_text(shown)


def report_tracks(rows: Sequence[Row], folder: Path, command: str) -> str:
    """Write everything; returns the table for the terminal."""
    write_rows(rows, folder)
    keys = dict.fromkeys(tuple(row[x] for x in _TRACK_KEYS) for row in rows)
    shown: list[Row] = []
    for key in keys:
        own = [row for row in rows if tuple(row[x] for x in _TRACK_KEYS) == key]
        line = dict(zip(_TRACK_KEYS, key, strict=True))
        found = {str(row["metric"]): _interval(row) for row in own}
        shown.append(line | found | {"count": own[0]["count"], "groups": own[0]["groups"]})
    for metric in dict.fromkeys(str(row["metric"]) for row in rows):
        draw_forest(
            folder / f"{metric.lower()}.png",
            [
                _point(x, f"{x['track']}, {x['across']}", f"{x['model']} {x['column']}")
                for x in rows
                if x["metric"] == metric
            ],
            title=f"{metric} of predicted and measured tracks",
            label=f"{metric} with {COVERAGE:g} % interval",
            chance=0.0,
        )
    reading = (
        "- Across bins: the mean measured signal of each bin of the regions against its "
        "prediction; intervals are of resamples of the windows of the model (`groups`).\n"
        "- Across genes: log2(1 + sum over the gene) of both, of genes that lie in the regions "
        "whole; of tracks with a strand only genes of that strand.\n"
        "- `gc`: the share of G and C of the same bins, which any model should beat.\n"
        f"- Fewer than {FEWEST_GROUPS} groups have no interval."
    )
    parts = [
        ("Tracks", as_markdown(shown)),
        ("Models", _digests(rows, "model")),
        ("How to read this", reading),
    ]
    write_report(folder, "Predicted and measured tracks", command, parts)
    return as_text(shown)


_TRACK_KEYS = ("model", "track", "across", "column")


def report_context(rows: Sequence[Row], folder: Path, command: str) -> str:
    """Write everything; returns the table and the verdicts for the terminal."""
    write_rows(rows, folder)
    metrics = list(dict.fromkeys(str(row["metric"]) for row in rows))
    columns = list(dict.fromkeys(str(row["column"]) for row in rows))
    shown: list[Row] = []
    for column in columns:
        own = [row for row in rows if row["column"] == column]
        for width in dict.fromkeys(row["width"] for row in own):
            of = {str(row["metric"]): _interval(row) for row in own if row["width"] == width}
            shown.append({"column": column, "width": width, **of, "alleles": own[0]["alleles"]})
    for metric in metrics:
        draw_curves(
            folder / f"context_{metric.split()[0].lower()}{'_whole' * (' ' in metric)}.png",
            [_curve(rows, column, metric) for column in columns],
            title=f"{metric} as the model sees less",
            label=metric,
        )
    verdicts = "\n".join(f"- {verdict(rows, column)}" for column in columns)
    reading = (
        "- Bases beyond the width are "
        + (
            "N"
            if rows[0]["hidden"] == "n"
            else "shuffled, their dinucleotides kept (and with them the base next to the width)"
        )
        + ", half of the width on each side of the first changed base. Alleles have a number at "
        "all widths.\n"
        f"- A width is enough where it and all wider ones have {100 * SHARE:g} % of the figure of "
        "the whole window, counted from chance (AUROC 0.5).\n"
        "- N is not what a model was trained on: where N and shuffled bases differ, the shuffled "
        "ones tell more of the context."
    )
    parts = [
        ("Does it use its context?", verdicts),
        ("Widths", as_markdown(shown)),
        ("Models", _digests(rows, "column")),
        ("How to read this", reading),
    ]
    write_report(folder, "Context", command, parts)
    return f"{as_text(shown)}\n{verdicts}\n"


def _curve(rows: Sequence[Row], column: str, metric: str) -> Curve:
    own = [x for x in rows if x["column"] == column and x["metric"] == metric]
    own.sort(key=lambda row: float(row["width"]))

    def read(name: str) -> list[float]:
        return [float(row[name]) for row in own]

    return Curve(column, read("width"), read("value"), read("low"), read("high"))
