"""The Hail recipe, run by Hail, against bcftools."""

from __future__ import annotations

import csv
import os
import subprocess

import plugin_programs
import pytest

SCRIPT = plugin_programs.PLUGINS / "hail" / "glm_filter.py"


@pytest.mark.hosts
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_filter_keeps_what_bcftools_keeps(tmp_path, run_cli, example_dir, bcftools):
    hailctl = plugin_programs.program("hailctl", "pip install hail, Java 11")
    scored = tmp_path / "scored.vcf.gz"
    # MT, which Hail's GRCh38 calls chrM; two ALTs, of which one is below.
    text = (example_dir / "mtdna_variants.vcf").read_text().replace("\nchrM\t", "\nMT\t")
    text = text.replace("##contig=<ID=chrM,", "##contig=<ID=MT,")
    (tmp_path / "in.vcf").write_text(text)
    run_cli(
        "vcf", tmp_path / "in.vcf", "-f", example_dir / "chrM.fa", "-m", "mito", "-o", scored,
        check=True,
    )  # fmt: skip
    done = subprocess.run(
        [plugin_programs.python_of(hailctl), SCRIPT, scored, "--field", "MITO_LLR", "--below", "-3",
         "-o", tmp_path / "kept.ht", "--tsv", tmp_path / "kept.tsv"],
        cwd=tmp_path, env={**os.environ, "SPARK_LOCAL_IP": "127.0.0.1"},
        capture_output=True, text=True, check=False, timeout=1150,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    with (tmp_path / "kept.tsv").open() as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    split = subprocess.run(
        [bcftools, "norm", "-m", "-any", scored], capture_output=True, check=True
    ).stdout
    expected = subprocess.run(
        [bcftools, "query", "-i", "MITO_LLR<-3", "-f", "%POS\t%REF\t%ALT\t%MITO_LLR\n", "-"],
        input=split, capture_output=True, check=True,
    ).stdout.decode()  # fmt: skip
    known = {tuple(x.split("\t")[:3]): float(x.split("\t")[3]) for x in expected.splitlines()}
    found = {
        (row["locus"].removeprefix("chrM:"), *row["alleles"].strip('[]"').split('","')): float(
            row["MITO_LLR"]
        )
        for row in rows
    }
    assert len(known) > 20
    assert found.keys() == known.keys()
    assert found == pytest.approx(known, rel=1e-4)
    assert {row["MITO_STATUS"] for row in rows} == {"SCORED"}
    assert f"{len(known)} of 83 alleles" in done.stdout
