"""`--matrix`: one row for each allele and track, as Parquet.

Rows are written chunk by chunk, a row group each, so that memory does not grow with the file.
Alleles that a model of tracks did not score have no row: INFO holds the reason.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import numpy as np

from glm_annotate.annotate import Model, Scored
from glm_annotate.errors import UsageError
from glm_annotate.vcf import OutFile, atomic_file

_SITE = ("chrom", "pos", "id", "ref", "alt")


class _Sink(io.RawIOBase):
    """What pyarrow needs of a file, around an output that only writes."""

    def __init__(self, out: OutFile) -> None:
        self._out, self._written = out, 0

    def writable(self) -> bool:
        """Say that it is written to."""
        return True

    def tell(self) -> int:
        """Say how many bytes were written."""
        return self._written

    def write(self, data: Any, /) -> int:
        """Write all of the bytes."""
        self._out.write(bytes(data))
        self._written += len(data)
        return len(data)


class Matrix(AbstractContextManager["Matrix"]):
    """Writes the rows of a run.

    Args:
        path: Of the Parquet file; it appears when everything is written.
        models: Of the run; those of tracks have rows.
        force: Replace a file that is there.

    Raises:
        UsageError: pyarrow is not installed, or no model predicts tracks.
    """

    def __init__(self, path: str, models: Sequence[Model], *, force: bool) -> None:
        self._models = [model for model in models if model.tracks is not None]
        if not self._models:
            raise UsageError(f"--matrix {path}: no model of this run predicts tracks")
        try:
            import pyarrow
        except ImportError as error:
            raise UsageError(
                f"--matrix {path}: needs pyarrow; run: pip install 'glm_annotate[matrix]'"
            ) from error
        self._keys = list(
            dict.fromkeys(spec.key for model in self._models for spec in model.scores)
        )
        text, number = pyarrow.dictionary(pyarrow.int32(), pyarrow.string()), pyarrow.float64()
        self._schema = pyarrow.schema(
            [
                ("chrom", text), ("pos", pyarrow.int64()), ("id", pyarrow.string()),
                ("ref", pyarrow.string()), ("alt", pyarrow.string()),
                ("model", text), ("track", text), ("REF", number), ("ALT", number),
                *((key, number) for key in self._keys),
            ]
        )  # fmt: skip
        self._file = atomic_file(path, force=force)
        self._writer: Any = None

    def __enter__(self) -> Matrix:
        """Open the file."""
        import pyarrow.parquet

        self._writer = pyarrow.parquet.ParquetWriter(
            _Sink(self._file.__enter__()), self._schema, compression="zstd"
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file, and give it its name unless something failed."""
        self._writer.close()
        self._file.__exit__(kind, error, trace)

    def write(self, scored: Scored, sites: Iterable[tuple[bytes, ...]]) -> None:
        """Write the rows of a chunk.

        Args:
            scored: Its results.
            sites: Contig, position, ID, REF and ALT of every allele, as in the VCF.
        """
        import pyarrow

        texts = list(sites)
        for model in self._models:
            columns = self._columns(model, scored, texts)
            if columns is not None:
                self._writer.write_table(pyarrow.table(columns, schema=self._schema))

    def _columns(
        self, model: Model, scored: Scored, sites: list[tuple[bytes, ...]]
    ) -> dict[str, Any] | None:
        """Give a model's columns, (alleles x tracks,) each; None where it scored nothing."""
        result, tracks = scored.results[model.tag], model.tracks
        known = np.flatnonzero(
            np.any([np.isfinite(values) for values in result.values.values()], axis=0)
        )
        if tracks is None or result.sums is None or not known.size:
            return None
        size = len(tracks.names)
        rows = known.size * size
        columns: dict[str, Any] = {}
        for place, name in enumerate(_SITE):
            cells = [sites[i][place].decode() for i in known.tolist()]
            values = [int(x) for x in cells] if name == "pos" else cells
            columns[name] = np.repeat(np.array(values, dtype=object), size).tolist()
        columns["model"] = [model.tag] * rows
        columns["track"] = list(tracks.names) * known.size
        columns["REF"] = result.sums[known, 0].reshape(-1)
        columns["ALT"] = result.sums[known, 1].reshape(-1)
        for key in self._keys:
            scores = result.tracks.get(key)
            columns[key] = [None] * rows
            if scores is not None:
                columns[key] = _nullable(scores[known].reshape(-1))
        return columns


def _nullable(numbers: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
    """Turn NaN into what Parquet has for a missing value."""
    import pyarrow

    return pyarrow.array(numbers, mask=~np.isfinite(numbers))
