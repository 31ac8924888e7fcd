"""Percentiles of scores of tracks: by track, of the largest of all, and in `--matrix`."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from cli_kit import call, records_of, write_vcf
from engine import write_fasta
from scipy import stats

pytest.importorskip("pyarrow")
pytest.importorskip("torch")

import pandas as pd
from test_calibration import calibrate, counted, numbers
from toy_tracks import KEYS, NAMES, ROWS, Shape, write_toy

BASES = "".join(np.random.default_rng(4).choice(list("ACGT"), 400))
SHAPE = Shape(context=64, anchor=32, bin_size=4, crop=2)
NULL = [
    f"c {i + 1} {BASES[i]} {alt}"
    for i in range(20, 380, 6) for alt in "ACGT" if alt != BASES[i]
]  # fmt: skip
ASKED = [
    f"c 101 {BASES[100]} {','.join(x for x in 'ACGT' if x != BASES[100])}",
    f"c 151 {BASES[150]} {BASES[150]}ACG",
    f"c 207 {BASES[206]} {'A' if BASES[206] != 'A' else 'C'}",
    "c 250 N <DEL>",
]
GENE = 'c\tx\texon\t91\t230\t.\t+\t.\tgene_id "g1"; transcript_id "t1"; gene_name "G1";\n'
KEYED = [*KEYS, "MAX"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tracks")
    write_toy(folder / "toy", SHAPE, ROWS, scores=("SAD", "D2"))
    write_fasta(folder / "g.fa", {"c": BASES})
    write_vcf(folder / "null.vcf", NULL)
    write_vcf(folder / "asked.vcf", ASKED)
    (folder / "g.gtf").write_text(GENE)
    null = ["--background", folder / "null.vcf", "-s", "SAD,D2,SAD:mask=exons"]
    calibrate(
        folder / "toy", *options(folder), *null, "--gtf", folder / "g.gtf", "-o", folder / "made"
    )
    return folder


def options(home: Path) -> list[object]:
    return ["-f", home / "g.fa", "--threads", 1]


def annotated(home: Path, name: str, bundle: str, *more: object) -> str:
    out = home / "out.vcf"
    command = ["vcf", home / name, *options(home), "-m", home / bundle, "-o", out, "--force"]
    assert call(*command, "--no-version", *more) == 0
    return out.read_text()


def test_each_track_has_its_own_background(home: Path) -> None:
    scored, found = annotated(home, "null.vcf", "toy"), annotated(home, "asked.vcf", "made")
    checked = 0
    for score in ("SAD", "D2"):
        for key in (f"{score}_{x}" for x in KEYED):
            background = numbers(scored, key, "TRK")
            columns = (numbers(found, key + x, "TRK") for x in ("", "_PCT", "_EXC"))
            for i, (value, rank, extreme) in enumerate(zip(*columns, strict=True)):
                if i == 3 or math.isnan(value):  # the background has no insertion
                    assert math.isnan(rank)
                    assert math.isnan(extreme)
                    continue
                expected = stats.percentileofscore(background, value, kind="mean")
                assert rank == pytest.approx(expected, rel=1e-5)
                chance = counted(background, value, upper=score == "D2")
                assert extreme == pytest.approx(-math.log10(chance), rel=1e-5, abs=1e-9)
                checked += 1
    assert checked == 2 * len(KEYED) * 4
    keys = set(records_of(found)[0].info)
    assert not [x for x in keys if "_TOP_" in x]


def test_the_matrix_holds_what_info_holds(home: Path, tmp_path: Path) -> None:
    matrix = tmp_path / "m.parquet"
    more = ["-s", "SAD,D2,SAD:mask=exons", "--gtf", home / "g.gtf", "--matrix", matrix]
    found = annotated(home, "asked.vcf", "made", *more)
    assert not math.isnan(numbers(found, f"SAD_EXONS_{KEYS[0]}_PCT", "TRK")[0])
    table = pd.read_parquet(matrix)
    alleles = table[table.gene.isna()]
    assert len(alleles) == 5 * len(NAMES)
    compared = 0
    for name, key in zip(NAMES, KEYS, strict=True):
        rows = alleles[alleles.track == name]
        for column in ("SAD_PCT", "SAD_EXC", "D2_PCT", "D2_EXC"):
            score, _, what = column.partition("_")
            expected = numbers(found, f"{score}_{key}_{what}", "TRK")[:5]
            np.testing.assert_array_equal(rows[column].to_numpy(dtype=float), expected)
            compared += 1
    assert compared == 20
    # A gene's number is not that of the gene that is largest.
    in_genes = table[table.gene.notna()]
    assert len(in_genes) > 0
    assert in_genes.filter(regex="_PCT|_EXC").isna().all(axis=None)
    assert "SAD_EXONS_PCT" not in table.columns
    annotated(home, "asked.vcf", "made", *more, "--no-calibration")
    plain = pd.read_parquet(matrix)
    kept = [x for x in table.columns if not x.endswith(("_PCT", "_EXC"))]
    pd.testing.assert_frame_equal(table[kept], plain)


def test_the_largest_of_other_tracks_is_not_compared(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    found = annotated(home, "asked.vcf", "made", "--track-regex", "dnase|rna")
    whole = annotated(home, "asked.vcf", "made")
    err = capfd.readouterr().err
    assert err.count("the background was made in another way") == 2
    assert "TRK_SAD_MAX: no percentiles" in err
    keys = set(records_of(found)[0].info)
    assert {x for x in keys if "MAX" in x} == {"TRK_SAD_MAX", "TRK_D2_MAX"}
    for key in ("SAD_dnase_PCT", "D2_rna_plus_EXC"):
        np.testing.assert_array_equal(numbers(found, key, "TRK"), numbers(whole, key, "TRK"))
    # Nor is that of as many other ones.
    null = [*options(home), "--background", home / "null.vcf", "--track-regex", "dnase|cage"]
    calibrate(home / "toy", *null, "-o", home / "two")
    found = annotated(home, "asked.vcf", "two", "--track-regex", "dnase|rna")
    assert {x for x in records_of(found)[0].info if x.endswith("_PCT")} == {
        "TRK_SAD_dnase_PCT", "TRK_D2_dnase_PCT",
    }  # fmt: skip
    same = annotated(home, "asked.vcf", "two", "--track-regex", "dnase|cage")
    assert "TRK_SAD_MAX_PCT" in records_of(same)[0].info
