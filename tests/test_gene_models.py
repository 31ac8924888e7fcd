"""Genes from GTF, GFF3 and tables: made-up files by hand, real ones against a plain reading."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from glm_annotate.errors import InputError
from glm_annotate.gene_files import read_gene_models
from glm_annotate.gene_models import Gene, GeneModels, read_gene_table, union


def rows(*lines: str) -> str:
    """Rows of contig, type, start, end, strand and attributes, as nine columns."""
    out = []
    for line in lines:
        contig, kind, start, end, strand, attributes = line.split(" ", 5)
        out.append("\t".join((contig, "x", kind, start, end, ".", strand, ".", attributes)))
    return "\n".join(out) + "\n"


def read(tmp_path: Path, text: str, name: str) -> GeneModels:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    return read_gene_models(path)


def plain(gene: Gene) -> tuple[object, ...]:
    return (
        *(gene.gene_id, gene.name, gene.contig, gene.strand, gene.start, gene.end),
        gene.exons.tolist(),
        gene.tss.tolist(),
    )


# Two transcripts on the minus strand, 1-based and inclusive: 101-150, 201-250 and 141-160, 201-300.
GTF = "#!x\n" + rows(
    'chr1 gene 101 300 - gene_id "G1"; gene_name "first; one"; level 2;',
    'chr1 transcript 101 250 - gene_id "G1"; transcript_id "T1"; gene_name "first; one";',
    'chr1 exon 101 150 - gene_id "G1"; transcript_id "T1"; exon_number 1;',
    'chr1 CDS 120 150 - gene_id "G1"; transcript_id "T1";',
    'chr1 exon 201 250 - gene_id "G1"; transcript_id "T1"; exon_number 2;',
    'chr1 exon 141 160 - gene_id "G1"; transcript_id "T2";',
    'chr1 exon 201 300 - gene_id "G1"; transcript_id "T2";',
    'chr1 stop_codon 10 12 - gene_id "G1"; transcript_id "T1";',
    'chr1 exon 50 60 + gene_id "50%25"; transcript_id "T3";',
    'chr2 exon 50 60 + gene_id "G1"; transcript_id "T4";',
)
GENES = [
    ("50%25", "50%25", "chr1", "+", 49, 60, [[49, 60]], [49]),
    ("G1", "first; one", "chr1", "-", 100, 300, [[100, 160], [200, 300]], [249, 299]),
    ("G1", "G1", "chr2", "+", 49, 60, [[49, 60]], [49]),
]


@pytest.mark.parametrize("name", ["a.gtf", "a.gtf.gz"])
def test_gtf_by_hand(tmp_path: Path, name: str) -> None:
    models = read(tmp_path, GTF, name)
    assert [plain(g) for contig in ("chr1", "chr2") for g in models.on(contig)] == GENES
    assert (len(models), models.contigs) == (3, ("chr1", "chr2"))


GFF3 = "##gff-version 3\n" + rows(
    "1 region 1 900 . ID=region:1",
    "1 gene 101 300 - ID=gene:G1;Name=first%3B one;gene_id=G1",
    "1 mRNA 101 250 - ID=transcript:T1;Parent=gene:G1;transcript_id=T1",
    "1 exon 101 150 - Parent=transcript:T1;Name=E1",
    # Of both transcripts; the second is listed later.
    "1 exon 201 250 - Parent=transcript:T1,transcript:T2",
    "1 exon 141 160 - Parent=transcript:T2",
    "1 exon 201 300 - Parent=transcript:T2",
    "1 CDS 120 150 - ID=CDS:P1;Parent=transcript:T1",
    "1 mRNA 141 300 - ID=transcript:T2;Parent=gene:G1;transcript_id=T2",
    "1 repeat 1 5 + .",
)


def test_gff3_by_hand(tmp_path: Path) -> None:
    text = GFF3 + "\n##FASTA\n>1\nACGT\n"
    [gene] = read(tmp_path, text, "a.gff3").on("1")
    assert plain(gene) == (
        "G1", "first; one", "1", "-", 100, 300, [[100, 160], [200, 300]], [249, 299]
    )  # fmt: skip


def test_genes_without_exons_have_their_cds_or_their_span(tmp_path: Path) -> None:
    text = rows(
        "c gene 1 90 + locus_tag=A;gene=nameA",
        "c mRNA 1 30 + locus_tag=A",
        "c mRNA 61 90 + locus_tag=A",
        "c CDS 1 30 + locus_tag=A",
        "c CDS 61 90 + locus_tag=A",
        "c gene 100 120 . gene_name=B",
        "c CDS 200 230 - ID=orf1;product=tail",
    )
    got = [plain(g) for g in read(tmp_path, text, "a.gff").on("c")]
    assert got == [
        ("A", "nameA", "c", "+", 0, 90, [[0, 30], [60, 90]], [0]),  # the two parts are one mRNA
        ("B", "B", "c", ".", 99, 120, [[99, 120]], [99]),
        ("orf1", "orf1", "c", "-", 199, 230, [[199, 230]], [229]),
    ]


def test_contigs_keep_their_spelling(tmp_path: Path) -> None:
    names = ("1", "01", "NA", "chr1", "1.0")
    text = rows(*(f'{x} gene 1 9 + gene_id "{x}";' for x in names))
    models = read(tmp_path, text, "a.gtf")
    assert {(c, g.gene_id) for c in models.contigs for g in models.on(c)} == {(x, x) for x in names}


def test_stretches_of_a_gene(tmp_path: Path) -> None:
    gene = read(tmp_path, GTF, "a.gtf").on("chr1")[1]
    assert gene.stretches("gene").tolist() == [[100, 300]]
    assert gene.stretches("exons").tolist() == [[100, 160], [200, 300]]
    assert gene.stretches("tss").tolist() == [[249, 250], [299, 300]]


@pytest.mark.parametrize(
    ("contig", "start", "end", "wanted"),
    [
        ("chr1", 100, 101, ["G1"]),
        ("1", 299, 300, ["G1"]),  # another spelling
        ("1", 300, 301, []),
        ("chr1", 99, 100, []),
        ("chr1", 99, 99, []),  # an insertion in front of 99
        ("chr1", 100, 100, ["G1"]),
        ("chr1", 59, 101, ["50%25", "G1"]),
        ("chr9", 59, 101, []),
    ],
)
def test_overlapping_genes(
    tmp_path: Path, contig: str, start: int, end: int, wanted: list[str]
) -> None:
    got = read(tmp_path, GTF, "a.gtf").overlapping(contig, start, end)
    assert [g.gene_id for g in got] == wanted


def test_a_long_gene_that_begins_far_to_the_left(tmp_path: Path) -> None:
    text = rows(
        'c gene 1 1000 + gene_id "long";',
        *(f'c gene {10 * i + 1} {10 * i + 5} + gene_id "g{i}";' for i in range(50)),
    )
    models = read(tmp_path, text, "a.gtf")
    for at in range(0, 1010, 3):
        wanted = {"long"} if at < 1000 else set()
        wanted |= {f"g{i}" for i in range(50) if 10 * i <= at < 10 * i + 5}
        assert {g.gene_id for g in models.overlapping("c", at, at + 1)} == wanted


def test_union_of_intervals() -> None:
    assert union([(5, 9), (1, 3), (8, 12), (3, 4), (20, 21)]).tolist() == [
        [1, 4],
        [5, 12],
        [20, 21],
    ]
    assert union([]).shape == (0, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no gene in it"),
        (rows('c start_codon 1 3 + gene_id "G";'), "no gene in it"),
        ("c\tx\texon\t1\t3\n", "line 1 has 5 columns; GTF and GFF3 have 9"),
        ("#\n" + rows('c exon 0 3 + gene_id "G";'), "line 2: 0-3 on strand '+' is no place"),
        (rows('c exon 5 3 + gene_id "G";'), "line 1: 5-3"),
        (rows('c exon 5 x + gene_id "G";'), "line 1: 5-x"),
        (rows('c exon 5 6 forward gene_id "G";'), "strand 'forward'"),
    ],
)
def test_annotation_that_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read(tmp_path, text, "a.gtf")
    assert "a.gtf" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file of genes"):
        read_gene_models(tmp_path / "none.gtf")
    damaged = tmp_path / "damaged.gtf.gz"
    damaged.write_bytes(gzip.compress(GTF.encode())[:-20])
    with pytest.raises(InputError, match="cannot be read as genes"):
        read_gene_models(damaged)


# --- tables ------------------------------------------------------------------------------------

SPLICEAI = (
    "#NAME\tCHROM\tSTRAND\tTX_START\tTX_END\tEXON_START\tEXON_END\n"
    "G1\t1\t-\t100\t300\t100,200,\t150,300,\n"
    "G2\tX\t+\t0\t10\t0,\t10,\n"
)
OURS = SPLICEAI.lower().replace("#", "").replace("exon_start", "exon_starts")
OURS = OURS.replace("exon_end", "exon_ends").replace("g", "G").replace("x\t+", "X\t+")


@pytest.mark.parametrize(
    ("text", "name"), [(SPLICEAI, "grch37.txt"), (OURS.replace(",\t", "\t"), "genes.tsv.gz")]
)
def test_table_by_hand(tmp_path: Path, text: str, name: str) -> None:
    models = read(tmp_path, text, name)
    assert [plain(g) for contig in ("chr1", "X") for g in models.on(contig)] == [
        # Starts are 0-based already, unlike those of a GTF.
        ("G1", "G1", "1", "-", 100, 300, [[100, 150], [200, 300]], [299]),
        ("G2", "G2", "X", "+", 0, 10, [[0, 10]], [0]),
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("#NAME", "NAMES", "line 1 is not the header name, chrom"),
        ("\t300\t", "\t90\t", "line 2: 'G1' needs"),
        ("100,200,", "90,200,", "exons inside 100-300"),
        ("100,200,", "100,", "line 2 is no gene"),
        ("100,200,", "100,x,", "line 2 is no gene"),
        ("\t+\t", "\t.\t", "line 3: 'G2' needs a strand"),
        ("\tX", "", "line 3 is no gene"),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, SPLICEAI.replace(old, new), "genes.tsv")


def test_a_table_without_genes(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text(SPLICEAI.splitlines()[0])
    with pytest.raises(InputError, match="no gene in it"):
        read_gene_table(tmp_path / "t.tsv")


# --- yeast -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def yeast(shared_dir: Path) -> tuple[Path, GeneModels]:
    path = shared_dir / "data" / "yeast" / "Saccharomyces_cerevisiae.R64-1-1.109.gtf.gz"
    return path, read_gene_models(path)


def test_yeast_against_a_plain_reading(yeast: tuple[Path, GeneModels]) -> None:
    path, models = yeast
    spans: dict[str, tuple[str, int, int, str]] = {}
    exonic: dict[str, set[int]] = {}
    with gzip.open(path, "rt") as lines:
        for line in lines:
            cells = line.split("\t")
            if line[0] == "#" or cells[2] not in ("gene", "exon"):
                continue
            gene = cells[8].split('gene_id "')[1].split('"')[0]
            start, end = int(cells[3]) - 1, int(cells[4])
            if cells[2] == "gene":
                spans[gene] = cells[0], start, end, cells[6]
            else:
                exonic.setdefault(gene, set()).update(range(start, end))
    assert len(models) == len(spans) == 7127
    for contig in models.contigs:
        for gene in models.on(contig):
            assert (gene.contig, gene.start, gene.end, gene.strand) == spans[gene.gene_id]
            bases = {b for start, end in gene.exons.tolist() for b in range(start, end)}
            assert bases == exonic[gene.gene_id]


def test_a_yeast_gene_with_an_intron(yeast: tuple[Path, GeneModels], shared_dir: Path) -> None:
    wanted = ("EFB1", "+", 142_173, 143_160, [[142_173, 142_253], [142_619, 143_160]], [142_173])
    sgd = read_gene_models(shared_dir / "data" / "yeast" / "S288C_R64.gff3.gz")
    for models in (yeast[1], sgd):
        found = models.overlapping("chrI", 142_300, 142_301)  # in the intron
        [gene] = [g for g in found if g.gene_id == "YAL003W"]
        assert plain(gene)[1:2] + plain(gene)[3:] == wanted
