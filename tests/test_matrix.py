"""`--matrix` and the options that choose tracks, with a language model beside the tracks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli_kit import call, write_vcf
from engine import write_fasta

pytest.importorskip("pyarrow")
pytest.importorskip("torch")

import pandas as pd
from test_splice_vcf import CONTIGS, LOCI, snv, spliceai
from test_splice_vcf import write_toy as write_splice_toy
from toy_tracks import KEYS, NAMES, ROWS, Shape, write_toy

from glm_annotate.testing import toy_bundle

BASES = "".join(np.random.default_rng(4).choice(list("ACGT"), 400))
SHAPE = Shape(context=64, anchor=32, bin_size=4, crop=2)
RECORDS = [
    f"c 101 {BASES[100]} {'A' if BASES[100] != 'A' else 'C'},{'G' if BASES[100] != 'G' else 'T'}",
    f"c 151 {BASES[150]} {BASES[150]}ACG",
    f"c 201 {BASES[200:204]} {BASES[200]}",
    "nowhere 5 A C",
    "c 250 N <DEL>",
]
MERGED = list(NAMES)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [row | {"assay": "RNA" if "rna" in row["identifier"] else "OTHER"} for row in ROWS]
    folder = write_toy(tmp_path_factory.mktemp("toy") / "b", SHAPE, rows, scores=("SAD", "D2"))
    columns = (folder / "tracks.tsv").read_text().splitlines()
    texts = [
        columns[0] + "\tassay",
        *(f"{x}\t{r['assay']}" for x, r in zip(columns[1:], rows, strict=True)),
    ]
    (folder / "tracks.tsv").write_text("\n".join(texts) + "\n")
    return rewrite(folder)


def rewrite(folder: Path) -> Path:
    """Give the card the digests of the files as they are now."""
    import json

    from glm_annotate.bundle import write_bundle

    card = json.loads((folder / "card.json").read_text())
    card.pop("sha256")
    write_bundle(folder, card)
    return folder


@pytest.fixture
def command(tmp_path: Path, bundle: Path) -> list[object]:
    fasta = write_fasta(tmp_path / "g.fa", {"c": BASES})
    vcf = write_vcf(tmp_path / "in.vcf", RECORDS)
    return ["vcf", vcf, "-f", fasta, "-m", bundle, "-o", tmp_path / "out.vcf"]


def info(path: Path) -> list[dict[str, list[str]]]:
    lines = [x for x in path.read_text().splitlines() if not x.startswith("#")]
    fields = [x.split("\t")[7].split(";") for x in lines]
    return [{k: v.split(",") for k, _, v in (x.partition("=") for x in row)} for row in fields]


def test_a_row_for_each_scored_allele_and_track(command, tmp_path):
    matrix = tmp_path / "m.parquet"
    assert call(*command, "--matrix", matrix, "-s", "SAD,D2:mask=center:width=16") == 0
    table = pd.read_parquet(matrix)
    assert list(table.columns) == [
        "chrom", "pos", "id", "ref", "alt", "model", "gene", "gene_id", "track", "REF", "ALT",
        "SAD", "D2_CENTER16",
    ]  # fmt: skip
    assert table[["gene", "gene_id"]].isna().all().all()
    assert len(table) == 4 * len(MERGED)  # what no number was given for has no row
    assert table.track.tolist() == MERGED * 4
    assert set(table.model) == {"TRK"}
    records = info(tmp_path / "out.vcf")
    written = [
        float(values[allele])
        for record in records[:3]
        for allele in range(len(record["TRK_STATUS"]))
        for values in (record[f"TRK_SAD_{name}"] for name in KEYS)
    ]
    np.testing.assert_allclose(table.SAD, written, rtol=1e-5, atol=1e-6)
    # Sums over all bins: their difference is SAD where lengths are equal.
    equal = table.ref.astype(str).str.len() == table.alt.astype(str).str.len()
    np.testing.assert_allclose((table.ALT - table.REF)[equal], table.SAD[equal], atol=1e-9)
    assert (table.pos.iloc[0], table.ref.iloc[0]) == (101, BASES[100])


def test_a_language_model_beside_it_gets_the_scores_that_it_can_give(command, tmp_path):
    other = toy_bundle("markov", tmp_path / "markov", context=24, anchor=12)
    matrix = tmp_path / "m.parquet"
    assert call(*command, "-m", f"LM={other}", "-s", "SAD,PLLR", "--matrix", matrix) == 0
    (first, *_) = info(tmp_path / "out.vcf")
    assert {"TRK_SAD_MAX", "TRK_SAD_TOP", "LM_PLLR"} <= first.keys()
    assert not {"LM_LLR", "TRK_D2_MAX"} & first.keys()
    assert set(pd.read_parquet(matrix).model) == {"TRK"}
    # None of those asked for: its own.
    assert call(*command, "-m", f"LM={other}", "-s", "SAD", "--force") == 0
    assert "LM_LLR" in info(tmp_path / "out.vcf")[0]


def test_a_score_that_no_model_gives_is_an_error(command, capsys):
    assert call(*command, "-s", "SAD,LLR") == 2
    assert "the tracks model 'toy tracks' does not give LLR" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["--assay", "rna"], ["rna+"]),
        (["--track-regex", "^(dnase|cage-)$"], ["cage+", "dnase"]),
        (["--tracks-file", "LIST"], ["dnase", "chip-1.2"]),
        (["--track-regex", "a", "--assay", "OTHER"], ["cage+", "dnase"]),
    ],
)
def test_tracks_are_chosen_strand_pairs_whole(command, tmp_path, words, kept):
    (tmp_path / "list.txt").write_text("chip-1.2\ndnase\tsomething\n")
    given = [tmp_path / "list.txt" if word == "LIST" else word for word in words]
    matrix = tmp_path / "m.parquet"
    assert call(*command) == 0
    everything = info(tmp_path / "out.vcf")[1]
    assert call(*command, *given, "--matrix", matrix, "--force") == 0
    assert pd.read_parquet(matrix).track.unique().tolist() == kept
    chosen = info(tmp_path / "out.vcf")[1]
    single = {k: v for k, v in chosen.items() if not k.endswith(("_MAX", "_TOP", "_STATUS"))}
    assert len(single) == 2 * len(kept)
    assert all(everything[key] == value for key, value in single.items())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--assay", "DNASE"], "--assay"),
        (["--track-regex", "("], "--track-regex"),
        (["--tracks-file", "none.txt"], "none.txt"),
    ],
)
def test_a_choice_that_cannot_be_made_says_why(command, capsys, words, message):
    assert call(*command, *words) in (1, 2)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error


def test_a_matrix_without_tracks_is_an_error(tmp_path, capsys):
    other = toy_bundle("markov", tmp_path / "markov", context=24, anchor=12)
    fasta = write_fasta(tmp_path / "g.fa", {"c": BASES})
    words = ["vcf", "c:101:" + BASES[100] + ":N", "-f", fasta, "-m", other]
    assert call(*words, "--matrix", tmp_path / "m.parquet", "-o", tmp_path / "o.vcf") == 2
    assert "no model of this run predicts tracks" in capsys.readouterr().err
    assert not (tmp_path / "m.parquet").exists()


def test_a_failed_run_leaves_no_matrix(command, tmp_path):
    words = [*command, "--matrix", tmp_path / "m.parquet"]
    (tmp_path / "in.vcf").write_text((tmp_path / "in.vcf").read_text() + "not a record\n")
    assert call(*words) == 1
    assert not (tmp_path / "m.parquet").exists()


def test_rows_of_splice_sites_and_tracks_in_one_file(tmp_path, bundle):
    """A model in the frame of genes has a row an allele and gene, without track, REF and ALT."""
    sites = write_splice_toy(tmp_path / "splice")
    fasta = write_fasta(tmp_path / "g.fa", CONTIGS)
    alleles = [snv("c", 400), snv("c", 470), snv("d", 40), snv("c", 850)]
    vcf = write_vcf(tmp_path / "in.vcf", [f"{c} {p} {r} {a}" for c, p, r, a in alleles])
    matrix = tmp_path / "m.parquet"
    words = ["vcf", vcf, "-f", fasta, "-m", sites, "-m", bundle, "-o", tmp_path / "out.vcf"]
    assert call(*words, "-s", "SAD,DS_AG,DP_AG", "--matrix", matrix) == 0
    table = pd.read_parquet(matrix)
    assert list(table.columns[-3:]) == ["DS_AG", "DP_AG", "SAD"]
    tracks, rows = table[table.model == "TRK"], table[table.model == "TOY"]
    assert len(tracks) == len(alleles) * len(MERGED)
    assert tracks[["gene", "gene_id", "DS_AG", "DP_AG"]].isna().all().all()
    assert rows[["track", "REF", "ALT", "SAD"]].isna().all().all()
    wanted = [
        (pos, locus.name)
        for contig, pos, _, _ in alleles
        for locus in LOCI
        if locus.contig == contig and locus.start < pos <= locus.end
    ]
    assert list(zip(rows.pos, rows.gene, strict=True)) == wanted
    assert len(wanted) == 5
    assert rows.gene_id.tolist() == rows.gene.tolist()
    for (_, name), score, place, allele in zip(
        wanted, rows.DS_AG, rows.DP_AG, [0, 0, 1, 1, 2], strict=True
    ):
        (locus,) = [x for x in LOCI if x.name == name]
        found = spliceai(locus, *alleles[allele][1:])
        assert (score, place) == (pytest.approx(found["DS_AG"], abs=1e-6), found["DP_AG"])
    # Alone, too.
    assert call(*words[:6], "-o", tmp_path / "o.vcf", "--matrix", tmp_path / "alone.parquet") == 0
    assert len(pd.read_parquet(tmp_path / "alone.parquet")) == len(wanted)
