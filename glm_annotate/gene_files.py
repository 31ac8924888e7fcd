"""Genes from a GTF or GFF3.

Decisions: exons are `exon` rows, in files that have none `CDS` rows; a gene with neither is its
span; the same identifier on two contigs or strands is two genes.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from sys import intern
from typing import IO, Any, Literal, NamedTuple
from urllib.parse import unquote

from glm_annotate.errors import InputError
from glm_annotate.gene_models import (
    Gene,
    GeneModels,
    lines_of,
    make_gene,
    read_gene_table,
    spliced_exons,
)

# What places a row in a gene; everything else, most of a file, is never held.
_KEYS = ("gene_id", "gene_name", "transcript_id", "ID", "Parent", "Name", "gene", "locus_tag")
_GTF = re.compile(r'\s*([^\s;"]+)\s+(?:"([^"]*)"|([^\s;"]+))\s*(?:;|$)')
_GFF = re.compile(r"\s*([^=;]+)=([^;]*)(?:;|$)")
_ODD_IN_GFF, _ODD_IN_GTF = re.compile('[";]'), re.compile('[";%]')
_IS_GENE = re.compile(r"(?:.*_)?(?:pseudo)?gene", re.IGNORECASE)
_IS_TRANSCRIPT = re.compile(r"(?:.*_)?transcript|.*RNA|.*_segment", re.IGNORECASE)
_MARK = "="
_STEPS = 8  # from an exon up to its gene; more are a circle


def read_gene_models(path: str | Path) -> GeneModels:
    """Read a GTF or GFF3, plain or gzipped, or a table as in `read_gene_table`.

    Raises:
        InputError: The file is none of these, or has no gene.
    """
    text = str(path)
    if re.search(r"\.(?:tsv|txt)(?:\.b?gz)?$", text):
        return read_gene_table(path)
    with tempfile.TemporaryDirectory(prefix="glm_annotate_") as folder:
        reduced = Path(folder) / "genes.gtf"
        with reduced.open("w", encoding="utf-8") as out:
            kept = _reduce(text, out)
        columns = _read_reduced(reduced) if kept else [[] for _ in _Row._fields]
    models = GeneModels(text, _genes(columns))
    if not len(models):
        raise InputError(f"{text}: no gene in it; it needs rows of genes, exons or CDS")
    return models


def _reduce(path: str, out: IO[str]) -> int:
    """Write the rows and attributes that are needed as GTF, and count them.

    pyranges holds every attribute of every row, and its GFF3 reader fails on rows without any.
    """
    kept = 0
    has_exons = False
    for number, line in enumerate(lines_of(path), 1):
        if line.startswith("##FASTA"):
            break
        if line.startswith("#") or not line.strip():
            continue
        cells = line.rstrip("\r\n").split("\t")
        if len(cells) != 9:
            raise InputError(
                f"{path}: line {number} has {len(cells)} columns; GTF and GFF3 have 9, between tabs"
            )
        kind = cells[2]
        has_exons = has_exons or kind == "exon"
        # CDS rows stand in for exons only in files that have none.
        if not _role(kind) or (kind == "CDS" and has_exons):
            continue
        _check_place(path, number, cells)
        attributes = _attributes(cells[8])
        if attributes:
            # A mark in front: pandas would take the contigs 1 and 01 for a number, NA for nothing.
            out.write("\t".join((_MARK + cells[0], *cells[1:8], attributes)) + "\n")
            kept += 1
    return kept


@lru_cache(maxsize=1024)
def _role(kind: str) -> Literal["gene", "transcript", "exon", ""]:
    if kind in ("exon", "CDS"):
        return "exon"
    if _IS_GENE.fullmatch(kind):
        return "gene"
    return "transcript" if _IS_TRANSCRIPT.fullmatch(kind) else ""


def _check_place(path: str, number: int, cells: list[str]) -> None:
    start, end, strand = cells[3], cells[4], cells[6]
    whole = start.isdecimal() and end.isdecimal()
    if not whole or not 1 <= int(start) <= int(end) or strand not in ("+", "-", ".", "?"):
        raise InputError(
            f"{path}: line {number}: {start}-{end} on strand {strand!r} is no place; allowed are "
            "start and end from 1 on, and the strands + - ."
        )


def _attributes(text: str) -> str:
    """Give the needed attributes in the form that pyranges reads, quotes and semicolons escaped."""
    is_gff = "=" in text.partition('"')[0]
    # Only GFF3 escapes already.
    odd = _ODD_IN_GFF if is_gff else _ODD_IN_GTF
    found = []
    for key, *values in (_GFF if is_gff else _GTF).findall(text):
        value = "".join(values).strip()
        if key in _KEYS and value:
            found.append(f'{key} "{odd.sub(_escape, value)}";')
    return " ".join(found)


def _escape(match: re.Match[str]) -> str:
    return f"%{ord(match[0]):02X}"


class _Row(NamedTuple):
    """A row as pyranges read it; what it does not say is an empty text."""

    contig: str
    kind: str
    start: int
    end: int
    strand: str
    gene_id: str
    gene_name: str
    transcript_id: str
    own: str
    parent: str
    name: str
    gene: str
    locus_tag: str


_Columns = list[list[Any]]  # one a field of `_Row`


def _read_reduced(path: Path) -> _Columns:
    import pyranges

    with warnings.catch_warnings():
        # pyranges 0.1 calls pandas in ways that later versions of pandas announce the end of.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        frame = pyranges.read_gtf(str(path), as_df=True)
    columns: _Columns = []
    for name in ("Chromosome", "Feature", "Start", "End", "Strand", *_KEYS):
        if name not in frame:
            columns.append([""] * len(frame))
        elif name in ("Start", "End"):
            columns.append(frame[name].tolist())
        else:
            # Text that repeats, as almost all does, is held once.
            texts = frame[name].astype(object).fillna("").tolist()
            decode = unquote if name in _KEYS else _without_mark
            columns.append([intern(decode(x)) for x in texts])
    return columns


def _without_mark(text: str) -> str:
    return text.removeprefix(_MARK)


# --- rows to genes -----------------------------------------------------------------------------


@dataclass(slots=True)
class _Draft:
    """A gene while its rows come in.

    Transcripts by name: `transcripts` holds first and last base of each, `parts` its exons.
    """

    name: str = ""
    start: int = 1 << 62
    end: int = 0
    exons: list[tuple[int, int]] = field(default_factory=list)
    transcripts: dict[str, tuple[int, int]] = field(default_factory=dict)
    parts: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    def add(self, row: _Row) -> None:
        self.start, self.end = min(self.start, row.start), max(self.end, row.end)
        role = _role(row.kind)
        if role == "gene" or not self.name:
            own = row.name if role == "gene" else ""
            self.name = row.gene_name or row.gene or own or self.name
        if role == "exon":
            exon = row.start, row.end
            self.exons.append(exon)
            for name in row.parent.split(",") if row.parent else [row.transcript_id]:
                self._widen(name, row)
                self.parts.setdefault(name, []).append(exon)
        elif role == "transcript":
            # Rows without a name are the parts of one transcript.
            self._widen(row.own or row.transcript_id or ".", row)

    def _widen(self, transcript: str, row: _Row) -> None:
        if transcript:
            start, end = self.transcripts.get(transcript, (row.start, row.end))
            self.transcripts[transcript] = min(start, row.start), max(end, row.end)


def _genes(columns: _Columns) -> Iterator[Gene]:
    """Join rows into genes, one for each contig, strand and identifier."""
    exon = "exon" if "exon" in columns[_Row._fields.index("kind")] else "CDS"
    parents: dict[str, str] = {}
    ids: dict[str, str] = {}
    for row in map(_Row._make, zip(*columns, strict=True)):
        if row.own:
            ids[row.own] = row.gene_id
            if row.parent:
                parents[row.own] = row.parent.partition(",")[0]
    drafts: dict[tuple[str, str, str], _Draft] = {}
    for row in map(_Row._make, zip(*columns, strict=True)):
        gene = _gene_of(row, parents, ids)
        if gene and (row.kind == exon or _role(row.kind) != "exon"):
            drafts.setdefault((row.contig, row.strand, gene), _Draft()).add(row)
    for (contig, strand, gene), draft in drafts.items():
        span, spans = (draft.start, draft.end), draft.transcripts.values()
        spliced = [x for exons in draft.parts.values() for x in spliced_exons(exons)]
        yield make_gene(gene, draft.name, contig, strand, span, draft.exons, spans, spliced=spliced)


def _gene_of(row: _Row, parents: dict[str, str], ids: dict[str, str]) -> str:
    """Name the gene of a row: what lies at the top of its parents, else what it says itself."""
    top = row.parent.partition(",")[0] or row.own
    for _ in range(_STEPS):
        if top not in parents:
            break
        top = parents[top]
    named = ids.get(top) or row.gene_id
    return named or top or row.locus_tag or row.gene or row.gene_name or row.name
