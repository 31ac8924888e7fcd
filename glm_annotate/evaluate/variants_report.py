"""What `evaluate variants` leaves in its folder: tables, pictures, and a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from glm_annotate.evaluate.compare import EVERYTHING, FEWEST, MATCHED, Figure
from glm_annotate.evaluate.metrics import COVERAGE
from glm_annotate.evaluate.output import (
    Row,
    as_markdown,
    as_text,
    with_interval,
    write_report,
    write_rows,
)
from glm_annotate.evaluate.pictures import Point, draw_forest
from glm_annotate.evaluate.variants import Evaluation, Question

_CHANCE = {"AUROC": 0.5, "Spearman": 0.0}
_WAYS = {"low": "low values", "high": "high values", "abs": "values far from 0"}
_SIGNS = {"low": "with its sign turned", "high": "as it is", "abs": "without its sign"}


def rows_of(evaluation: Evaluation) -> list[Row]:
    """Give all figures, one a row."""
    columns = {column.name: column for column in evaluation.columns}
    return [
        {
            "column": x.column,
            "role": columns[x.column].role,
            "direction": columns[x.column].direction,
            "against": x.against,
            "by": x.by,
            "stratum": x.stratum,
            "metric": x.metric,
            "value": x.estimate.value,
            "low": x.estimate.low,
            "high": x.estimate.high,
            "alleles": x.rows,
            "positives": x.positives,
        }
        for x in evaluation.figures
    ]


def write_evaluation(evaluation: Evaluation, question: Question, folder: Path, command: str) -> str:
    """Write everything; returns the tables for the terminal."""
    write_rows(rows_of(evaluation), folder)
    write_rows(_alleles(evaluation), folder, "alleles.tsv")
    main = "AUROC" if evaluation.labels.kind == "classes" else "Spearman"
    _draw(evaluation, folder, main)
    tables = [("All alleles", _pooled(evaluation)), ("Differences", _differences(evaluation))]
    tables += [
        (f"By {strata.name}", _by_stratum(evaluation, strata.name, main))
        for strata in evaluation.strata
    ]
    parts = [
        ("Alleles", _account(evaluation)),
        ("Models", as_markdown(_models(evaluation))),
        ("Columns", as_markdown(_columns(evaluation))),
        *((name, as_markdown(rows)) for name, rows in tables),
        ("How to read this", _reading(evaluation, question)),
    ]
    write_report(folder, f"Evaluation of {Path(question.source).name}", command, parts)
    shown = [(name, rows) for name, rows in tables if rows and name != "Differences"]
    texts = [f"{name}\n{as_text(rows)}" for name, rows in shown]
    return "\n".join([_short_account(evaluation), "", *texts])


def _figures(evaluation: Evaluation, by: str, against: bool = False) -> list[Figure]:
    return [x for x in evaluation.figures if x.by == by and bool(x.against) == against]


def _text(figure: Figure) -> str:
    return with_interval(figure.estimate.value, figure.estimate.low, figure.estimate.high)


def _pooled(evaluation: Evaluation) -> list[Row]:
    found = _figures(evaluation, EVERYTHING)
    out: list[Row] = []
    for column in evaluation.columns:
        own = {x.metric: _text(x) for x in found if x.column == column.name}
        out.append(
            {"column": column.name, "role": column.role, "direction": column.direction, **own}
        )
    return out


def _differences(evaluation: Evaluation) -> list[Row]:
    return [
        {"column": x.column, "minus": x.against, "metric": x.metric, "difference": _text(x)}
        for x in _figures(evaluation, EVERYTHING, against=True)
    ]


def _by_stratum(evaluation: Evaluation, by: str, main: str) -> list[Row]:
    """Give a line a stratum, or a column where there are more of these."""
    found = {(x.stratum, x.column): x for x in _figures(evaluation, by) if x.metric == main}
    sizes = {stratum: _size(evaluation, x) for (stratum, _), x in found.items()}
    order = next(x.order for x in evaluation.strata if x.name == by)
    rows = [x for x in (*order, MATCHED) if x in sizes]
    names = [column.name for column in evaluation.columns]
    if len(names) <= len(rows):
        return [
            {by: x, "alleles": sizes[x], **{n: _text(found[x, n]) for n in names}} for x in rows
        ]
    return [{"column": n, **{f"{x} ({sizes[x]})": _text(found[x, n]) for x in rows}} for n in names]


def _size(evaluation: Evaluation, figure: Figure) -> str:
    if evaluation.labels.kind == "numbers":
        return str(figure.rows)
    return f"{figure.positives}+ {figure.rows - figure.positives}-"


def _alleles(evaluation: Evaluation) -> list[Row]:
    out: list[Row] = []
    for i in evaluation.shared.rows.tolist():
        chrom, pos, ref, alt = evaluation.table.sites[i]
        row: dict[str, str | int | float] = {"chrom": chrom, "pos": pos, "ref": ref, "alt": alt}
        row["label"] = float(evaluation.labels.values[i])
        row |= {x.name: float(x.values[i]) for x in evaluation.columns}
        out.append(row | {f"by_{x.name}": x.labels[i] for x in evaluation.strata})
    return out


def _models(evaluation: Evaluation) -> list[Row]:
    return [
        {
            "tag": tag,
            "model": fields.get("Name", ""),
            "version": fields.get("Version", ""),
            "digest": fields.get("Sha256", ""),
            "context": fields.get("Context", ""),
            "strands": fields.get("Strands", ""),
            "mode": fields.get("Mode", "exact"),
        }
        for tag, fields in evaluation.models.items()
    ]


def _columns(evaluation: Evaluation) -> list[Row]:
    is_class = evaluation.labels.kind == "classes"
    head = "speaks for the positive class" if is_class else "taken"
    ways = _WAYS if is_class else _SIGNS
    out: list[Row] = []
    for x in evaluation.columns:
        lacking = evaluation.shared.lacking[x.name]
        why = ", ".join(f"{count} {reason}" for reason, count in lacking.items())
        row = {"column": x.name, "what": x.about, "role": x.role, head: ways[x.direction]}
        out.append(row | {"labelled alleles without a number": why or "0"})
    return out


def _short_account(evaluation: Evaluation) -> str:
    total, kept = len(evaluation.table), evaluation.shared.rows.size
    text = f"{kept} of {total} alleles have a label and a number in every column"
    if evaluation.labels.kind == "classes":
        positives = int(evaluation.labels.values[evaluation.shared.rows].sum())
        text += f": {positives} positive, {kept - positives} negative"
    dropped = "; ".join(f"{n} {reason}" for reason, n in evaluation.shared.dropped.items())
    return f"{text}\nleft out: {dropped or 'none'}"


def _account(evaluation: Evaluation) -> str:
    rows: list[Row] = [
        {"left out because": reason, "alleles": count}
        for reason, count in evaluation.shared.dropped.items()
    ]
    first = _short_account(evaluation).splitlines()[0]
    return f"Labels: {evaluation.labels.about}.\n\n{first}.\n\n{as_markdown(rows)}"


def _reading(evaluation: Evaluation, question: Question) -> str:
    lines = [
        "- All columns are measured on the same alleles: those of the first section.",
        f"- Intervals hold {COVERAGE:g} % of {question.times} resamples (seed {question.seed}) of "
        "the alleles, percentiles. Alleles near each other are not independent, so that true "
        "intervals are wider. A resample is the same for all columns: differences are paired.",
    ]
    if evaluation.labels.kind == "classes":
        lines += [
            "- AUROC is the chance that a positive allele ranks before a negative one, a tie "
            "counting half; below 0.5 the column points the other way. Directions come from what a "
            "score means or from --direction, never from the labels.",
            "- AUPRC is the average precision; a column that says nothing has the share of "
            "positives, so that it can be compared between sets of one share only.",
            f"- `{MATCHED}`: mean AUROC of the strata, by their pairs: no pair crosses a border, "
            "so that what differs between strata cannot raise it.",
        ]
    else:
        lines.append(f"- `{MATCHED}`: mean of the strata, by their alleles.")
    lines.append(f"- Strata with fewer than {FEWEST} alleles (of either class) have no measure.")
    if any(column.role == "control" for column in evaluation.columns):
        lines.append(
            f"- Controls are the same graphs with {question.control} weights, drawn once (seed "
            f"{question.seed}): what the shape of a network gives without training. Another seed "
            "gives another control."
        )
    return "\n".join(lines)


def _draw(evaluation: Evaluation, folder: Path, main: str) -> None:
    roles = {column.name: column.role for column in evaluation.columns}

    def points(figures: Sequence[Figure], stratified: bool) -> list[Point]:
        return [
            Point(
                x.stratum if stratified else x.column,
                x.column if stratified else roles[x.column],
                x.estimate.value,
                x.estimate.low,
                x.estimate.high,
            )
            for x in figures
            if x.metric == main
        ]

    draw_forest(
        folder / f"{main.lower()}.png",
        points(_figures(evaluation, EVERYTHING), False),
        title=f"{main}, {evaluation.shared.rows.size} alleles",
        label=f"{main} with {COVERAGE:g} % interval",
        chance=_CHANCE[main],
    )
    for strata in evaluation.strata:
        draw_forest(
            folder / f"{main.lower()}_by_{strata.name}.png",
            points(_figures(evaluation, strata.name), True),
            title=f"{main} by {strata.name}",
            label=f"{main} with {COVERAGE:g} % interval",
            chance=_CHANCE[main],
        )
