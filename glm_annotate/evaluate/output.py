"""What an evaluation leaves: tables as text, TSV and Parquet, and a report for people.

Rows are dicts with the same keys; a number that is not known is NaN here, `.` in text and null in
Parquet.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from glm_annotate import __version__
from glm_annotate.errors import InputError
from glm_annotate.vcf import atomic_file

logger = logging.getLogger(__name__)

Cell = str | int | float
Row = Mapping[str, Cell]

METRICS, REPORT = "metrics.tsv", "report.md"


def make_folder(path: str, force: bool) -> Path:
    """Make the folder of an evaluation.

    Raises:
        InputError: It holds one already, or cannot be made.
    """
    folder = Path(path)
    if (folder / REPORT).exists() and not force:
        raise InputError(f"{folder}: holds an evaluation; name another -o, or replace it: --force")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}; name another -o") from error
    return folder


def cell(value: Cell) -> str:
    """Write a value: numbers with 6 significant digits, `.` for none."""
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else "."
    text = str(value)
    return " ".join(text.split()) if text else "."


def with_interval(value: float, low: float, high: float) -> str:
    """Write an estimate for people: `0.812 [0.790, 0.833]`."""
    if not math.isfinite(value):
        return "."
    # Rounded first, so that there is no -0.000.
    texts = [f"{round(x, 3) + 0.0:.3f}" for x in (value, low, high)]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]" if math.isfinite(low) else texts[0]


def as_text(rows: Sequence[Row]) -> str:
    """Align rows for a terminal; numbers to the right."""
    if not rows:
        return ""
    names = list(rows[0])
    texts = [[cell(row[name]) for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *texts, strict=True)]
    right = [all(not isinstance(row[name], str) for row in rows) for name in names]

    def line(cells: Sequence[str]) -> str:
        padded = [
            text.rjust(width) if numeric else text.ljust(width)
            for text, width, numeric in zip(cells, widths, right, strict=True)
        ]
        return "  ".join(padded).rstrip()

    return "\n".join([line(names), *map(line, texts)]) + "\n"


def as_markdown(rows: Sequence[Row]) -> str:
    """Give rows as a table of Markdown."""
    if not rows:
        return ""
    names = list(rows[0])
    lines = [names, ["---"] * len(names)]
    lines += [[cell(row[name]).replace("|", "\\|") for name in names] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def write_rows(rows: Sequence[Row], folder: Path, name: str = METRICS) -> None:
    """Write rows as TSV and, where pyarrow is installed, as Parquet beside it."""
    names = list(rows[0]) if rows else []
    lines = ["\t".join(names), *("\t".join(cell(row[x]) for x in names) for row in rows)]
    _write(folder / name, ("\n".join(lines) + "\n").encode())
    parquet = (folder / name).with_suffix(".parquet")
    if importlib.util.find_spec("pyarrow") is None:
        logger.warning(
            "%s is not written: it needs pyarrow; run: pip install 'glm_annotate[matrix]'", parquet
        )
        return
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({name: _column([row[name] for row in rows]) for name in names})
    held = io.BytesIO()
    pyarrow.parquet.write_table(table, held, compression="zstd")
    _write(parquet, held.getvalue())


def _column(values: Sequence[Cell]) -> list[Cell | None]:
    return [None if isinstance(x, float) and not math.isfinite(x) else x for x in values]


def write_report(folder: Path, title: str, command: str, parts: Sequence[tuple[str, str]]) -> None:
    """Write a report: what was run, then parts with a heading each."""
    lines = [f"# {title}", "", f"glm-annotate {__version__}"]
    if command:
        lines += ["", "```", command, "```"]
    for heading, text in parts:
        if text.strip():
            lines += ["", f"## {heading}", "", text.rstrip()]
    _write(folder / REPORT, ("\n".join(lines) + "\n").encode())


def _write(path: Path, data: bytes) -> None:
    with atomic_file(str(path), force=True) as out:
        out.write(data)
