"""Tables of regions: the columns of a BED as they came, and ours, as text or Parquet."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import PurePath
from types import TracebackType
from typing import Any, Literal

import numpy as np

from glm_annotate.bed_scores import Cells, Column
from glm_annotate.beds import BedRow
from glm_annotate.errors import InputError, UsageError
from glm_annotate.parquet import ParquetSink, need_pyarrow
from glm_annotate.vcf import atomic_file, format_floats, is_regular

Kind = Literal["tsv", "bed", "parquet"]
_KINDS: dict[str, Kind] = {".tsv": "tsv", ".txt": "tsv", ".bed": "bed", ".parquet": "parquet"}
_BED = ("chrom", "start", "end", "name", "score", "strand")


def kind_of(path: str | None) -> Kind:
    """Say how an output is written, from its name; what is no file is a TSV.

    Raises:
        UsageError: The name ends in nothing that is known.
    """
    suffix = PurePath(path or "-").suffix
    if suffix in _KINDS:
        return _KINDS[suffix]
    if is_regular(path):
        raise UsageError(f"-o {path}: not a name that ends in {', '.join(_KINDS)}")
    return "tsv"


def bed_columns(width: int) -> tuple[str, ...]:
    """Name the columns of a BED with so many."""
    return (*_BED[:width], *(f"col{i}" for i in range(7, width + 1)))


class Table(AbstractContextManager["Table"]):
    """Writes rows; the file appears when everything is written.

    Args:
        path: Where; None or "-": stdout.
        width: Columns of the BED.
        columns: Ours.
        force: Replace a file that is there.
        source: The BED, for messages; it is never replaced.

    Raises:
        UsageError: The name of the file says nothing that is known, or pyarrow is missing.
    """

    def __init__(
        self, path: str | None, width: int, columns: Sequence[Column], *, force: bool, source: str
    ) -> None:
        self._source, self._width, self._columns = source, width, columns
        self._names, self._kind = bed_columns(width), kind_of(path)
        self._file = atomic_file(path, force=force, source=source)
        self._schema = _schema(str(path), self._names, columns) if self._kind == "parquet" else None
        self._stack = ExitStack()
        self._put: Callable[[Sequence[BedRow], Sequence[Cells]], None]

    def __enter__(self) -> Table:
        """Open the file."""
        out = self._stack.enter_context(self._file)
        if self._schema is None:
            self._out = out
            mark = "#" if self._kind == "bed" else ""
            names = [*self._names, *(column.name for column in self._columns)]
            out.write((mark + "\t".join(names) + "\n").encode())
            self._put = self._put_text
        else:
            import pyarrow.parquet

            self._writer = self._stack.enter_context(
                pyarrow.parquet.ParquetWriter(ParquetSink(out), self._schema, compression="zstd")
            )
            self._put = self._put_arrays
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file, and give it its name unless something failed."""
        self._stack.__exit__(kind, error, trace)

    def write(self, rows: Sequence[BedRow], cells: Sequence[Cells]) -> None:
        """Write rows.

        Args:
            rows: Of the BED.
            cells: Of every column of ours, shape (rows,), or (rows, size) of lists.

        Raises:
            InputError: A row has another number of columns than the first one.
        """
        for row in rows:
            if len(row.cells) != self._width:
                name = "stdin" if self._source == "-" else self._source
                raise InputError(
                    f"{name}: line {row.line} has {len(row.cells)} columns, and the first row has "
                    f"{self._width}; a BED has as many in every row"
                )
        self._put(rows, cells)

    def _put_text(self, rows: Sequence[BedRow], cells: Sequence[Cells]) -> None:
        pairs = zip(self._columns, cells, strict=True)
        texts = [_texts(column, values) for column, values in pairs]
        lines = [
            "\t".join((*row.cells, *ours))
            for row, ours in zip(rows, zip(*texts, strict=True), strict=True)
        ]
        self._out.write("".join(line + "\n" for line in lines).encode())

    def _put_arrays(self, rows: Sequence[BedRow], cells: Sequence[Cells]) -> None:
        import pyarrow

        arrays: list[Any] = []
        for place, name in enumerate(self._names):
            texts = [row.cells[place] for row in rows]
            arrays.append([int(x) for x in texts] if name in ("start", "end") else texts)
        for column, values in zip(self._columns, cells, strict=True):
            arrays.append(_nullable(column, values))
        columns = [
            pyarrow.array(values, field.type)
            for values, field in zip(arrays, self._schema or (), strict=True)
        ]
        self._writer.write_table(pyarrow.Table.from_arrays(columns, schema=self._schema))


def _texts(column: Column, values: Cells) -> list[str]:
    if column.kind == "number":
        return [text.decode() for text in format_floats(values)]
    if column.kind == "count":
        return [str(x) if x >= 0 else "." for x in values.tolist()]
    return [str(x) or "." for x in values.tolist()]


def _nullable(column: Column, values: Cells) -> list[Any]:
    """Give cells with None where there is nothing."""
    if column.kind == "list":
        known = np.asarray(np.isfinite(values).any(axis=1)).tolist()
        return [row if yes else None for row, yes in zip([*values], known, strict=True)]
    if column.kind == "number":
        return [x if math.isfinite(x) else None for x in values.tolist()]
    if column.kind == "count":
        return [x if x >= 0 else None for x in values.tolist()]
    return [x or None for x in values.tolist()]


def _schema(path: str, names: Sequence[str], columns: Sequence[Column]) -> Any:
    need_pyarrow(f"-o {path}")
    import pyarrow

    types = {"number": pyarrow.float64(), "count": pyarrow.int64(), "text": pyarrow.string()}
    fields = [
        pyarrow.field(x, pyarrow.int64() if x in ("start", "end") else pyarrow.string())
        for x in names
    ]
    for column in columns:
        if column.kind != "list":
            fields.append(pyarrow.field(column.name, types[column.kind]))
            continue
        labels = {"labels": json.dumps(column.labels)} if column.labels else None
        kind = pyarrow.list_(pyarrow.float32(), column.size)
        fields.append(pyarrow.field(column.name, kind, metadata=labels))
    return pyarrow.schema(fields)
