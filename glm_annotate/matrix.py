"""`--matrix`: one row for each allele and track, or allele, gene and track, as Parquet.

Scores that are made in genes have rows of their own. Rows are written chunk by chunk, a row group
or a few each, so that memory does not grow with the file. Alleles and genes without any number have
no row: INFO holds the reason. Tracks whose scores have percentiles in INFO have them here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from types import TracebackType
from typing import Any

import numpy as np

from glm_annotate.annotate import Model, Result, Scored
from glm_annotate.answers import Floats, Ints
from glm_annotate.calibration import Extra
from glm_annotate.errors import UsageError
from glm_annotate.fields import MOST_KEYS, extras_of, numbers_in
from glm_annotate.model import GeneRow
from glm_annotate.parquet import ParquetSink, need_pyarrow
from glm_annotate.track_choice import info_names
from glm_annotate.vcf import atomic_file, format_floats

_SITE = ("chrom", "pos", "id", "ref", "alt")
# Rows of a row group, or as many as one allele or gene has.
_GROUP = 1 << 18


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows of one model: so many entries (alleles, or alleles in genes) with all tracks each.

    Attributes:
        allele: Of each entry, shape (n,).
        genes: Name and identifier of the gene of each; none where the scores are of no gene.
        sums: Of REF and of ALT, shape (n, 2, tracks); None where there are none.
        values: By `ScoreSpec.key`, and by that with `_PCT` or `_EXC`, shape (n, tracks).
    """

    allele: Ints
    genes: Sequence[tuple[str | None, str | None]]
    sums: Floats | None
    values: dict[str, Floats]


class Matrix(AbstractContextManager["Matrix"]):
    """Writes the rows of a run.

    Args:
        path: Of the Parquet file; it appears when everything is written.
        models: Of the run; those of tracks and those in the frame of genes have rows.
        force: Replace a file that is there.

    Raises:
        UsageError: pyarrow is not installed, or no model has rows.
    """

    def __init__(self, path: str, models: Sequence[Model], *, force: bool) -> None:
        self._models = [model for model in models if model.tracks is not None or _framed(model)]
        if not self._models:
            raise UsageError(
                f"--matrix {path}: no model of this run predicts tracks or reads genes"
            )
        need_pyarrow(f"--matrix {path}")
        import pyarrow

        self._beside = {model.tag: _beside(model) for model in self._models}
        scores = (spec.key for model in self._models for spec in model.scores)
        self._keys = list(dict.fromkeys((*scores, *chain(*self._beside.values()))))
        text, number = pyarrow.dictionary(pyarrow.int32(), pyarrow.string()), pyarrow.float64()
        self._schema = pyarrow.schema(
            [
                ("chrom", text), ("pos", pyarrow.int64()), ("id", pyarrow.string()),
                ("ref", pyarrow.string()), ("alt", pyarrow.string()),
                ("model", text), ("gene", text), ("gene_id", text), ("track", text),
                ("REF", number), ("ALT", number),
                *((key, number) for key in self._keys),
            ]
        )  # fmt: skip
        self._file = atomic_file(path, force=force)
        self._writer: Any = None

    def __enter__(self) -> Matrix:
        """Open the file."""
        import pyarrow.parquet

        self._writer = pyarrow.parquet.ParquetWriter(
            ParquetSink(self._file.__enter__()), self._schema, compression="zstd"
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

        texts = [[cell.decode() for cell in site] for site in sites]
        for model in self._models:
            result = scored.results[model.tag]
            beside = self._beside[model.tag]
            for block in chain(_by_allele(model, scored, beside), _by_gene(result.rows)):
                columns = self._columns(model, block, texts)
                self._writer.write_table(pyarrow.table(columns, schema=self._schema))

    def _columns(self, model: Model, block: _Block, sites: list[list[str]]) -> dict[str, Any]:
        """Give the columns of a block, (entries x tracks,) each."""
        import pyarrow

        entries, size = block.allele.size, next(iter(block.values.values())).shape[1]
        entry, track = np.repeat(np.arange(entries), size), np.tile(np.arange(size), entries)

        def spread(name: str, cells: Sequence[object], which: Ints) -> Any:
            return pyarrow.array(cells, self._schema.field(name).type).take(which)

        columns: dict[str, Any] = {}
        for place, name in enumerate(_SITE):
            texts = [sites[i][place] for i in block.allele.tolist()]
            columns[name] = spread(name, [*map(int, texts)] if name == "pos" else texts, entry)
        columns["model"] = spread("model", [model.tag], np.zeros_like(entry))
        genes = block.genes or [(None, None)] * entries
        columns["gene"] = spread("gene", [name for name, _ in genes], entry)
        columns["gene_id"] = spread("gene_id", [name for _, name in genes], entry)
        names = [None] if model.tracks is None else model.tracks.names
        columns["track"] = spread("track", names, track)
        for side, name in enumerate(("REF", "ALT")):
            columns[name] = _nullable(None if block.sums is None else block.sums[:, side], entry)
        for key in self._keys:
            columns[key] = _nullable(block.values.get(key), entry)
        return columns


def _framed(model: Model) -> bool:
    """Say whether all scores of a model are made in genes, its own way."""
    return model.splice is not None or model.bundle.card.frame != "variant"


def _beside(model: Model) -> dict[str, list[tuple[str, Extra | None]]]:
    """List by column what is said of each track: the score that it is made of, and how.

    Of scores over genes INFO compares the gene with the largest number, which says nothing of a
    row: they have none.
    """
    made = {extra.key: extra for extra in extras_of(model)}
    if not made or model.tracks is None or len(model.tracks.names) > MOST_KEYS:
        return {}
    names, out = info_names(model.tracks.names), {}
    for spec in model.scores:
        for what in ("PCT", "EXC"):
            keys = (f"{model.tag}_{spec.key}_{name}_{what}" for name in names)
            found = [(spec.key, None if spec.in_genes else made.get(key)) for key in keys]
            if any(extra for _, extra in found):
                out[f"{spec.key}_{what}"] = found
    return out


def _compared(scored: Scored, result: Result, ways: Sequence[tuple[str, Extra | None]]) -> Floats:
    """Compare the numbers of all tracks as INFO does, shape (n, tracks)."""
    out = np.full((len(scored.alleles), len(ways)), np.nan)
    for track, (key, extra) in enumerate(ways):
        if extra is not None:
            numbers = numbers_in(format_floats(result.tracks[key][:, track]))
            out[:, track] = numbers_in(format_floats(extra.make(numbers, scored.alleles)))
    return out


def _by_allele(
    model: Model, scored: Scored, beside: Mapping[str, Sequence[tuple[str, Extra | None]]]
) -> Iterator[_Block]:
    """Give the rows of scores that are of no gene."""
    result = scored.results[model.tag]
    keys = [spec.key for spec in model.scores if not spec.in_genes]
    if result.sums is None or not keys or _framed(model):
        return
    known = np.any([np.isfinite(result.values[key]) for key in keys], axis=0)
    columns = {key: result.tracks[key] for key in keys}
    columns |= {key: _compared(scored, result, ways) for key, ways in beside.items()}
    step = max(1, _GROUP // result.sums.shape[2])
    alleles = np.flatnonzero(known)
    for begin in range(0, alleles.size, step):
        part = alleles[begin : begin + step]
        values = {key: cells[part] for key, cells in columns.items()}
        yield _Block(part, [], result.sums[part], values)


def _by_gene(rows: Sequence[GeneRow]) -> Iterator[_Block]:
    """Give the rows of scores that are made in genes."""
    known = [row for row in rows if any(np.isfinite(x).any() for x in row.values.values())]
    step = max(1, _GROUP // next(iter(known[0].values.values())).size) if known else 1
    for begin in range(0, len(known), step):
        part = known[begin : begin + step]
        sums = [row.sums for row in part if row.sums is not None]
        yield _Block(
            np.array([row.allele for row in part]),
            [(row.gene, row.gene_id) for row in part],
            np.stack(sums) if sums else None,
            {key: np.stack([row.values[key] for row in part]) for key in part[0].values},
        )


def _nullable(numbers: Floats | None, rows: Ints) -> Any:
    """Give the cells of so many rows, null where there is no number."""
    import pyarrow

    if numbers is None:
        return pyarrow.nulls(rows.size)
    cells = numbers.reshape(-1)
    return pyarrow.array(cells, mask=~np.isfinite(cells))
