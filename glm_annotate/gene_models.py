"""Genes: where they lie, their exons and starts; a bundle's genes.tsv.gz.

A gene is the union of its transcripts, its starts (TSS) are their first bases. A gene without a
strand is read as if it lay on the forward one. GTF and GFF3 files are read in `gene_files`.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from glm_annotate.errors import InputError
from glm_annotate.genome import aliases

Ints = NDArray[np.int64]
Stretches = Literal["gene", "exons", "tss"]


@dataclass(frozen=True, slots=True)
class Gene:
    """A gene; coordinates are 0-based half-open.

    Attributes:
        contig: As the file spells it.
        strand: `+`, `-` or `.`.
        exons: Disjoint, ascending, shape (m, 2).
        tss: First base of every transcript, each once, ascending, shape (k,).
        sites: First and last bases of the exons of every transcript, each once, ascending.
        spliced: Exons of every transcript, each once, ascending: start, end, and whether an intron
            lies before it and behind it, as 0 and 1, left and right on the contig; shape (k, 4).
            None of genes that are a span alone.
    """

    gene_id: str
    name: str
    contig: str
    strand: str
    start: int
    end: int
    exons: Ints
    tss: Ints
    sites: Ints
    spliced: Ints

    def stretches(self, kind: Stretches) -> Ints:
        """Give the span, the exons or the single bases of the starts, shape (m, 2)."""
        if kind == "exons":
            return self.exons
        if kind == "gene":
            return np.array([[self.start, self.end]], dtype=np.int64)
        return np.stack([self.tss, self.tss + 1], axis=1)


@dataclass(frozen=True, slots=True)
class _Contig:
    genes: tuple[Gene, ...]
    starts: Ints
    ends: Ints


class GeneModels:
    """Genes by contig.

    Args:
        path: Where they come from, for messages.
        genes: In any order.
    """

    def __init__(self, path: str, genes: Iterable[Gene]) -> None:
        self.path = path
        by_contig: dict[str, list[Gene]] = {}
        for gene in sorted(genes, key=lambda g: (g.start, g.end, g.gene_id)):
            by_contig.setdefault(gene.contig, []).append(gene)
        self._contigs = {
            name: _Contig(
                tuple(found),
                np.array([g.start for g in found], dtype=np.int64),
                np.array([g.end for g in found], dtype=np.int64),
            )
            for name, found in by_contig.items()
        }

    def __len__(self) -> int:
        return sum(len(x.genes) for x in self._contigs.values())

    @cached_property
    def digest(self) -> str:
        """Give a sha256 over all that is known of the genes, however their file is packed."""
        total = hashlib.sha256()
        for held in self._contigs.values():
            for gene in held.genes:
                names = gene.gene_id, gene.name, gene.contig, gene.strand, gene.start, gene.end
                total.update(repr(names).encode())
                for numbers in (gene.exons, gene.tss, gene.sites, gene.spliced):
                    total.update(b"%d:" % numbers.size + numbers.tobytes())
        return total.hexdigest()

    @property
    def contigs(self) -> tuple[str, ...]:
        """Contigs that have genes, in the file's spelling."""
        return tuple(self._contigs)

    def resolve(self, contig: str) -> str | None:
        """Find the file's spelling of a contig, or None where it has no gene there."""
        names = (contig, *aliases(contig))
        return next((x for x in names if x in self._contigs), None)

    def on(self, contig: str) -> tuple[Gene, ...]:
        """List the genes of a contig by their start."""
        name = self.resolve(contig)
        return self._contigs[name].genes if name is not None else ()

    def overlapping(self, contig: str, start: int, end: int) -> tuple[Gene, ...]:
        """List the genes that share a base with a stretch; an empty one counts as its first base.

        Args:
            contig: In any spelling of `genome.aliases`.
            start: 0-based.
            end: Exclusive.
        """
        name = self.resolve(contig)
        if name is None:
            return ()
        held = self._contigs[name]
        last = int(np.searchsorted(held.starts, max(end, start + 1)))
        return tuple(held.genes[i] for i in np.flatnonzero(held.ends[:last] > start).tolist())


def make_gene(
    gene_id: str,
    name: str,
    contig: str,
    strand: str,
    span: tuple[int, int],
    exons: Iterable[tuple[int, int]],
    transcripts: Iterable[tuple[int, int]],
    sites: Iterable[int] | None = None,
    spliced: Iterable[tuple[int, int, int, int]] = (),
) -> Gene:
    """Make a gene of intervals, 0-based half-open; no exon or transcript: its span.

    `sites` are first and last bases of exons where these do not follow from `exons`.
    """
    spans, parts = list(transcripts) or [span], list(exons) or [span]
    ends = {x for start, end in parts for x in (start, end - 1)} if sites is None else set(sites)
    first = {end - 1 if strand == "-" else start for start, end in spans}
    return Gene(
        gene_id,
        name or gene_id,
        contig,
        strand if strand in "+-" else ".",
        *span,
        union(parts),
        np.array(sorted(first), dtype=np.int64),
        np.array(sorted(ends), dtype=np.int64),
        np.array(sorted(set(spliced)), dtype=np.int64).reshape(-1, 4),
    )


def spliced_exons(exons: Iterable[tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    """Say of each exon of one transcript on which sides it has introns, see `Gene.spliced`."""
    parts = list(exons)
    first = min((start for start, _ in parts), default=0)
    last = max((end for _, end in parts), default=0)
    return [(start, end, int(start != first), int(end != last)) for start, end in parts]


def union(intervals: Iterable[tuple[int, int]]) -> Ints:
    """Join intervals that overlap or touch, shape (m, 2)."""
    joined: list[list[int]] = []
    for start, end in sorted(intervals):
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    return np.array(joined, dtype=np.int64).reshape(-1, 2)


def lines_of(path: str) -> Iterator[str]:
    """Give the lines of a plain or gzipped file.

    Raises:
        InputError: It cannot be read.
    """
    try:
        with open(path, "rb") as handle:
            gzipped = handle.read(2) == b"\x1f\x8b"
        opened = gzip.open if gzipped else open
        with opened(path, "rt", encoding="utf-8") as text:
            yield from text
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file of genes; name one with --gtf") from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as genes: {error}") from error


# --- tables ------------------------------------------------------------------------------------

GENES = "genes.tsv.gz"
_TABLE = ("name", "chrom", "strand", "tx_start", "tx_end", "exon_starts", "exon_ends")
_SITES = ("gene", "contig", "strand", "start", "end", "acceptors", "donors")
_SPLICED = ("gene_id", "name", "contig", "strand", "exon_starts", "exon_ends", "introns")


def read_gene_table(path: str | Path) -> GeneModels:
    """Read genes.tsv.gz: one transcript a gene, in the form of SpliceAI's tables.

    Columns name, chrom, strand, tx_start, tx_end, exon_starts, exon_ends in any case, `#` before
    the first or not, `EXON_START` for `exon_starts` too. Starts are 0-based, ends exclusive; lists
    have commas, also behind the last number. A gene whose name stands in several rows is each.

    Or the columns gene, contig, strand, start, end, acceptors, donors: bases of exons next to their
    introns, 0-based, in any number; where they do not make up exons, the exons are the gene's span.

    Or gene_id, name, contig, strand, exon_starts, exon_ends, introns: the exons of all transcripts,
    and of each 1 where an intron lies before it on the contig, plus 2 where one lies behind it.

    Raises:
        InputError: The file is no such table, or has no gene.
    """
    text = str(path)
    lines = lines_of(text)
    head = next(lines, "").rstrip("\r\n").removeprefix("#").lower().split("\t")
    columns = [f"{x}s" if x in ("exon_start", "exon_end") else x for x in head]
    read = _READERS.get(tuple(columns))
    if read is None:
        raise InputError(f"{text}: line 1 is not the header {', '.join(_TABLE)}; it has {head}")
    genes = [
        read(text, number, line.rstrip("\r\n").split("\t"))
        for number, line in enumerate(lines, 2)
        if line.strip()
    ]
    if not genes:
        raise InputError(f"{text}: no gene in it")
    return GeneModels(text, genes)


def _table_gene(path: str, number: int, cells: list[str]) -> Gene:
    try:
        name, contig, strand, start, end, starts, ends = cells
        exons = list(zip(_numbers(starts), _numbers(ends), strict=True))
        first, last = int(start), int(end)
    except ValueError as error:
        raise InputError(f"{path}: line {number} is no gene: {error}") from error
    backwards = any(a >= b or a < first or b > last for a, b in exons)
    if strand not in ("+", "-") or not 0 <= first < last or not exons or backwards:
        raise InputError(
            f"{path}: line {number}: {name!r} needs a strand + or -, and exons inside "
            f"{first}-{last}, starts 0-based and ends exclusive"
        )
    span, spliced = (first, last), spliced_exons(exons)
    return make_gene(name, name, contig, strand, span, exons, (), spliced=spliced)


def _spliced_gene(path: str, number: int, cells: list[str]) -> Gene:
    try:
        gene_id, name, contig, strand, *lists = cells
        starts, ends, sides = map(_numbers, lists)
        spliced = [(a, b, x & 1, x >> 1) for a, b, x in zip(starts, ends, sides, strict=True)]
    except ValueError as error:
        raise InputError(f"{path}: line {number} is no gene: {error}") from error
    fine = all(0 <= a < b and 0 <= x <= 3 for a, b, x in zip(starts, ends, sides, strict=True))
    if strand not in ("+", "-") or not fine:
        raise InputError(
            f"{path}: line {number}: {name!r} needs a strand + or -, exons with starts 0-based and "
            "ends exclusive, and introns from 0 to 3"
        )
    span, exons = (min(starts), max(ends)), list(zip(starts, ends, strict=True))
    return make_gene(gene_id, name, contig, strand, span, exons, (), spliced=spliced)


def _site_gene(path: str, number: int, cells: list[str]) -> Gene:
    try:
        name, contig, strand, start, end, acceptors, donors = cells
        first, last = int(start), int(end)
        sites = [_numbers(x) if x else [] for x in (acceptors, donors)]
    except ValueError as error:
        raise InputError(f"{path}: line {number} is no gene: {error}") from error
    places = [x for listed in sites for x in listed]
    inside = all(first <= x < last for x in places)
    if strand not in ("+", "-") or not 0 <= first < last or not inside:
        raise InputError(
            f"{path}: line {number}: {name!r} needs a strand + or -, and sites inside "
            f"{first}-{last}, starts 0-based and ends exclusive"
        )
    lefts, rights = sites if strand == "+" else sites[::-1]
    exons = _exons(lefts, rights) or _exons([first, *lefts], [*rights, last - 1])
    span, spliced = (first, last), spliced_exons(exons)
    return make_gene(name, name, contig, strand, span, exons, (), places, spliced)


def _exons(lefts: list[int], rights: list[int]) -> list[tuple[int, int]]:
    """Pair first and last bases; none where they do not take turns."""
    turns = [x for pair in zip(lefts, rights, strict=False) for x in pair]
    if len(lefts) != len(rights) or turns != sorted(turns):
        return []
    return [(a, b + 1) for a, b in zip(lefts, rights, strict=True)]


def _numbers(text: str) -> list[int]:
    return [int(x) for x in text.rstrip(",").split(",")]


_READERS: dict[tuple[str, ...], Callable[[str, int, list[str]], Gene]] = {
    _TABLE: _table_gene,
    _SITES: _site_gene,
    _SPLICED: _spliced_gene,
}
