"""A language model and a model of tracks in one run: INFO of both, and the matrix, read by others.

mito, which ships, is meant for chrM alone; mini-Borzoi, a test model of baskerville with trained
weights, reads 131,072 bases around any allele. The genome has both contigs.
"""

from __future__ import annotations

import gzip
import math
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_kit import call, write_vcf
from oracle import Oracle

pytest.importorskip("pyarrow")
pytest.importorskip("h5py")
pytest.importorskip("torch")

import pandas as pd
from oracle_tracks import TrackOracle
from toy_tracks import NAMES, Shape, write_toy

from glm_annotate.bundle import shipped

pytestmark = pytest.mark.timeout(300)
# A transition, an insertion in a run of C, a site with two ALTs; an eQTL, a site with two ALTs.
RECORDS = ["chrM 73 A G", "chrM 309 C CT", "chrM 152 T C,G", "chr1 63697 T C", "chr1 64764 C T,CAG"]
ALLELES = [
    ("chrM", 73, "A", "G"), ("chrM", 309, "C", "CT"), ("chrM", 152, "T", "C"),
    ("chrM", 152, "T", "G"), ("chr1", 63697, "T", "C"), ("chr1", 64764, "C", "T"),
    ("chr1", 64764, "C", "CAG"),
]  # fmt: skip
SCORES = ("LLR", "PLLR", "LOGSED", "SAX")
BOTH = [
    *("MITO_LLR", "MITO_PLLR", "MITO_STATUS"),
    *(f"BORZ_{score}_{end}" for score in ("LOGSED", "SAX") for end in ("MAX", "TOP")),
    "BORZ_STATUS",
]
Rows = dict[tuple[str, ...], dict[str, str]]


@dataclass(frozen=True)
class Done:
    """The run with both models, and where its files are."""

    folder: Path
    bundle: Path
    fasta: Path
    source: Path
    rows: Rows
    matrix: pd.DataFrame


def query(bcftools: str, path: Path, keys: list[str]) -> Rows:
    """Read INFO keys by allele, as bcftools prints them."""
    names = "".join(f"\t%INFO/{key}" for key in keys)
    command = [bcftools, "query", "-f", f"%CHROM\t%POS\t%REF\t%ALT{names}\n", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    found: Rows = {}
    for line in done.stdout.splitlines():
        chrom, pos, ref, alts, *values = line.split("\t")
        for i, alt in enumerate(alts.split(",")):
            cells = {key: x.split(",")[i] for key, x in zip(keys, values, strict=True)}
            found[chrom, pos, ref, alt] = cells
    return found


def annotate(folder: Path, name: str, source: Path, fasta: Path, *options: Any) -> Path:
    out = folder / name
    assert call("vcf", source, "-f", fasta, *options, "-o", out, "--force") == 0
    return out


@pytest.fixture(scope="module")
def done(shared_dir: Path, bcftools: str, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("together")
    mini = shared_dir / "models" / "mini_borzoi"
    for name in ("model.h5", "params.json", "targets.txt"):
        shutil.copyfile(mini / name, folder / name)
    fasta, bundle = folder / "both.fa", folder / "bundle"
    with gzip.open(mini / "hg38_1m.fa.gz", "rt") as file:
        chromosome = file.read()
    mitochondrion = (shared_dir / "data" / "chrM" / "chrM.fa").read_text()
    assert chromosome.startswith(">chr1")
    assert mitochondrion.startswith(">chrM")
    fasta.write_text(mitochondrion.rstrip("\n") + "\n" + chromosome)
    assert call("models", "import", folder / "model.h5", "-o", bundle) == 0
    head = "##fileformat=VCFv4.2\n##contig=<ID=chrM>\n##contig=<ID=chr1>\n"
    head += "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    source = write_vcf(folder / "in.vcf", RECORDS, head)
    options = ("-m", "mito", "-m", bundle, "-s", ",".join(SCORES), "--matrix", folder / "m.parquet")
    out = annotate(folder, "both.bcf", source, fasta, *options)
    matrix = pd.read_parquet(folder / "m.parquet")
    return Done(folder, bundle, fasta, source, query(bcftools, out, BOTH), matrix)


def test_every_allele_has_what_both_models_say(done: Done) -> None:
    assert list(done.rows) == [(c, str(p), r, a) for c, p, r, a in ALLELES]
    for (chrom, *_), cells in done.rows.items():
        assert cells["BORZ_STATUS"] == "SCORED"
        assert all(math.isfinite(float(cells[f"BORZ_{x}_MAX"])) for x in ("LOGSED", "SAX"))
        if chrom == "chr1":
            assert cells["MITO_STATUS"] == "OUT_OF_SCOPE"
            assert cells["MITO_LLR"] == cells["MITO_PLLR"] == "."
        else:
            assert math.isfinite(float(cells["MITO_PLLR"]))
    insertion = done.rows["chrM", "309", "C", "CT"]
    assert (insertion["MITO_LLR"], insertion["MITO_STATUS"]) == (".", "LLR:INDEL")


@pytest.mark.parametrize("tag", ["MITO", "BORZ"])
def test_a_model_alone_says_the_same(done: Done, bcftools: str, tag: str) -> None:
    """Text for text, and the two share no key."""
    scores = {"MITO": "LLR,PLLR", "BORZ": "LOGSED,SAX"}[tag]
    model = {"MITO": "mito", "BORZ": done.bundle}[tag]
    options = ("-m", model, "-s", scores)
    out = annotate(done.folder, f"{tag}.bcf", done.source, done.fasta, *options)
    alone = query(bcftools, out, [key for key in BOTH if key.startswith(tag)])
    for allele, cells in alone.items():
        assert cells == {key: done.rows[allele][key] for key in cells}


def test_numbers_of_mito_by_the_oracle(done: Done) -> None:
    oracle = Oracle(shipped()["mito"], done.fasta)
    compared = 0
    for chrom, pos, ref, alt in ALLELES:
        for score in ("LLR", "PLLR"):
            found = done.rows[chrom, str(pos), ref, alt][f"MITO_{score}"]
            if found != ".":
                wanted = oracle.score(chrom, pos, ref, alt, score)
                assert float(found) == pytest.approx(wanted, rel=1e-4, abs=2e-5)
                compared += 1
    assert compared == 7


def test_rows_of_the_matrix(done: Done) -> None:
    matrix, tracks = done.matrix, 47
    assert len(matrix) == len(ALLELES) * tracks
    assert set(matrix.model) == {"BORZ"}
    assert matrix.gene.isna().all()
    # One row an allele and track, each of them once.
    keys = ["chrom", "pos", "ref", "alt", "track"]
    assert not matrix.duplicated(keys).any()
    assert matrix[["REF", "ALT", "LOGSED", "SAX"]].notna().all(axis=None)
    for (chrom, pos, ref, alt), group in matrix.groupby(keys[:-1], observed=True, sort=False):
        cells = done.rows[chrom, str(pos), ref, alt]
        assert len(group) == tracks
        for score in ("LOGSED", "SAX"):
            top = group.loc[group[score].abs().idxmax()]
            assert cells[f"BORZ_{score}_TOP"] == top.track
            assert float(cells[f"BORZ_{score}_MAX"]) == pytest.approx(top[score], rel=1e-5)
        # log2(1 + sum) of both sides, averaged over strands before: from the sums alone.
        single = group[~group.track.str.endswith("+")]
        wanted = np.log2(1 + single.ALT) - np.log2(1 + single.REF)
        assert len(single) > 10
        assert single.LOGSED.to_numpy() == pytest.approx(wanted.to_numpy(), rel=1e-9, abs=1e-12)


def test_numbers_of_borzoi_by_the_oracle(done: Done) -> None:
    """Windows, strands, transforms and strand pairs once more, in loops."""
    oracle = TrackOracle(done.bundle, done.fasta)
    rows = done.matrix[(done.matrix.pos == 63697) & (done.matrix.alt == "C")].set_index("track")
    for score in ("LOGSED", "SAX"):
        wanted = dict(oracle.tracks("chr1", 63697, "T", "C", score))
        assert list(wanted) == list(rows.index)
        found = rows[score].to_numpy()
        assert found == pytest.approx(np.array(list(wanted.values())), rel=1e-3, abs=2e-5)
        assert np.abs(found).max() > 1e-3


def test_embedding_scores_have_no_rows(tmp_path: Path) -> None:
    """A model of tracks that is asked for its embedding alone has no number of a track."""
    rng = np.random.default_rng(6)
    bases = "".join(rng.choice(list("ACGT"), 300))
    fasta = tmp_path / "g.fa"
    fasta.write_text(f">c\n{bases}\n")
    ref = bases[99]
    source = write_vcf(tmp_path / "in.vcf", [f"c 100 {ref} {'A' if ref != 'A' else 'G'}"])
    shape = Shape(32, 15, 8)
    embeds = write_toy(tmp_path / "embeds", shape, embeds=True, scores=("EMB_L1",))
    plain = write_toy(tmp_path / "plain", shape, tag="PLAIN", scores=("SAD",))
    options = ("-m", embeds, "-m", plain, "--matrix", tmp_path / "m.parquet")
    annotate(tmp_path, "out.vcf", source, fasta, *options)
    matrix = pd.read_parquet(tmp_path / "m.parquet")
    assert set(matrix.model) == {"PLAIN"}
    assert list(matrix.track) == list(NAMES)
    assert matrix[["REF", "ALT", "SAD"]].notna().all(axis=None)
    assert "TRK_EMB_L1=" in (tmp_path / "out.vcf").read_text()
