"""Gene tables of splice models' packages, as the `genes.tsv.gz` of a bundle.

Columns: gene, contig, strand, start, end (0-based, half-open), and the first and last bases of
exons as places (0-based, commas between): `acceptors` those where an exon begins in the direction
of the gene, `donors` those where one ends.

MMSplice's tables hold every exon of every transcript; of these comes a table with a row a gene, see
`exon_table`.
"""

from __future__ import annotations

import csv
import gzip
import io
import operator
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from glm_annotate.errors import InputError

COLUMNS = ("gene", "contig", "strand", "start", "end", "acceptors", "donors")
SPLICED = ("gene_id", "name", "contig", "strand", "exon_starts", "exon_ends", "introns")
# Of MMSplice's tables.
_EXON = ("gene_id", "gene_name", "Chromosome", "Strand")
_PLACES = ("Start", "End", "left_overhang", "right_overhang")


@dataclass(frozen=True, slots=True)
class Gene:
    """A gene: `start` and `end` 0-based, half-open; first and last bases of exons 0-based."""

    name: str
    contig: str
    strand: str
    start: int
    end: int
    firsts: tuple[int, ...]
    lasts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table is written: what stands between columns, and how a row is read."""

    separator: str
    read: Callable[[Mapping[str, str]], Gene]


def _exons(row: Mapping[str, str]) -> Gene:
    """SpliceAI's: exons as in UCSC's tables, 0-based and half-open, both ends of every one."""
    return Gene(
        row["#NAME"],
        row["CHROM"],
        row["STRAND"],
        int(row["TX_START"]),
        int(row["TX_END"]),
        tuple(_places(row["EXON_START"])),
        tuple(x - 1 for x in _places(row["EXON_END"])),
    )


def _junctions(row: Mapping[str, str]) -> Gene:
    """CI-SpliceAI's: 1-based; the last base before and the first base behind each intron."""
    return Gene(
        row["gene_id"],
        row["chr"],
        row["strand"],
        int(row["start"]) - 1,
        int(row["end"]),
        tuple(x - 1 for x in _places(row["jn_end"])),
        tuple(x - 1 for x in _places(row["jn_start"])),
    )


TABLES: Mapping[str, Layout] = {
    "exons": Layout("\t", _exons),
    "junctions": Layout(",", _junctions),
}


def gene_table(data: bytes, layout: Layout, name: str) -> bytes:
    """Write a package's gene table as that of a bundle, gzipped; the same bytes every time.

    Args:
        data: The table.
        layout: Of it, see `TABLES`.
        name: How messages call it.

    Raises:
        InputError: A row is not what it should be.
    """
    out = io.StringIO()
    write = csv.writer(out, delimiter="\t", lineterminator="\n")
    write.writerow(COLUMNS)
    for number, row in enumerate(_rows(data, layout, name), start=2):
        try:
            gene = layout.read(row)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{name}: line {number}: not a gene ({error})") from error
        if gene.strand not in ("+", "-") or not 0 <= gene.start < gene.end:
            raise InputError(
                f"{name}: line {number}: {gene.name}: strand {gene.strand!r}, {gene.start} to "
                f"{gene.end}; wanted + or -, and a start before the end"
            )
        forward = gene.strand == "+"
        sites = (gene.firsts, gene.lasts) if forward else (gene.lasts, gene.firsts)
        places = [",".join(map(str, sorted(x))) for x in sites]
        write.writerow([gene.name, gene.contig, gene.strand, gene.start, gene.end, *places])
    return gzip.compress(out.getvalue().encode(), mtime=0)


def exon_table(data: bytes, name: str) -> bytes:
    """Write MMSplice's table of exons as that of a bundle, gzipped: each exon of a gene once.

    Columns: gene_id, name, contig, strand, and of the exons their starts (0-based), ends
    (exclusive), and 1 where an intron lies before on the contig plus 2 where one lies behind.

    Args:
        data: The table, gzipped: places are 1-based and reach over what is read of introns.
        name: How messages call it.

    Raises:
        InputError: A row is not what it should be.
    """
    genes: dict[tuple[str, ...], set[tuple[int, int, int]]] = {}
    try:
        head, *lines = csv.reader(io.StringIO(gzip.decompress(data).decode()))
        key = operator.itemgetter(*map(head.index, _EXON))
        places = operator.itemgetter(*map(head.index, _PLACES))
        for line in lines:
            start, end, left, right = map(int, places(line))
            exon = start - 1 + left, end - right, (left > 0) + 2 * (right > 0)
            genes.setdefault(key(line), set()).add(exon)
    except (OSError, EOFError, zlib.error, ValueError, IndexError, csv.Error) as error:
        raise InputError(f"{name}: not a table of exons: {error}") from error
    out = io.StringIO()
    write = csv.writer(out, delimiter="\t", lineterminator="\n")
    write.writerow(SPLICED)
    for (gene_id, gene, contig, strand), exons in genes.items():
        lists = zip(*sorted(exons), strict=True)
        write.writerow(
            [gene_id, gene, contig, strand, *(",".join(map(str, numbers)) for numbers in lists)]
        )
    return gzip.compress(out.getvalue().encode(), mtime=0)


def _rows(data: bytes, layout: Layout, name: str) -> list[dict[str, str]]:
    try:
        text = data.decode()
        return list(csv.DictReader(io.StringIO(text), delimiter=layout.separator))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{name}: not a table: {error}") from error


def _places(text: str) -> list[int]:
    return [int(x) for x in text.split(",") if x]
