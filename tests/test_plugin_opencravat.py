"""The OpenCRAVAT annotator: its database, its yml, and the annotator in OpenCRAVAT itself."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys

import plugin_programs
import pytest
import yaml

PLUGIN = plugin_programs.PLUGINS / "opencravat"
INSTALL = "pip install open-cravat, GLM_HOSTS=folder of oc"
HEADER = """##fileformat=VCFv4.3
##INFO=<ID=AF,Number=A,Type=Float,Description="of the caller">
##INFO=<ID=T_LLR,Number=A,Type=Float,Description="a \\"b\\", c",Source="glm_annotate",Version="1">
##INFO=<ID=T_DP_AG,Number=A,Type=Integer,Description="where",Source="glm_annotate",Version="1">
##INFO=<ID=T_GENE,Number=A,Type=String,Description="gene",Source="glm_annotate",Version="1">
#CHROM	POS	ID	REF	ALT	QUAL	FILTER	INFO
"""


def build(vcf, folder):
    return subprocess.run(
        [sys.executable, PLUGIN / "build_data.py", vcf, "-o", folder],
        capture_output=True,
        text=True,
        check=False,
    )


def table(folder):
    with sqlite3.connect(folder / "glm_annotate" / "data" / "glm_annotate.sqlite") as base:
        return base.execute("select * from score order by pos, ref, alt").fetchall()


@pytest.fixture(scope="module")
def scored(tmp_path_factory, run_cli, example_dir):
    """The example variants, scored by mito."""
    path = tmp_path_factory.mktemp("opencravat") / "scored.vcf.gz"
    run_cli(
        "vcf", example_dir / "mtdna_variants.vcf", "-f", example_dir / "chrM.fa",
        "-m", "mito", "-o", path, check=True,
    )  # fmt: skip
    return path


def test_table_has_every_allele_as_opencravat_spells_it(tmp_path):
    vcf = tmp_path / "in.vcf"
    vcf.write_text(
        HEADER
        + "1\t10\t.\tA\tC,G\t.\t.\tAF=0.1,0.2;T_LLR=-1.5,2;T_DP_AG=3,.;T_GENE=a%3Bb,.\n"
        + "MT\t20\t.\tGA\tG,<DEL>,*\t.\t.\tT_LLR=1,.,.;T_DP_AG=.,.,.;T_GENE=.,.,.\n"
        # In CAA one A less is either of two: the beginning cut first, or the end.
        + "chr2\t30\t.\tCAA\tCA\t.\t.\tT_LLR=7\n"
        + "chr2\t40\t.\tC\tCTT\t.\tPASS\tT_LLR=8;T_GENE=g\n"
    )
    done = build(vcf, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert table(tmp_path / "out") == [
        ("chr1", 10, "A", "C", -1.5, 3, "a;b"),
        ("chr1", 10, "A", "G", 2.0, None, None),
        ("chrM", 21, "A", "-", 1.0, None, None),
        ("chr2", 31, "A", "-", 7.0, None, None),
        ("chr2", 32, "A", "-", 7.0, None, None),
        ("chr2", 41, "-", "TT", 8.0, None, "g"),
    ]
    columns = yaml.safe_load((tmp_path / "out/glm_annotate/glm_annotate.yml").read_text())
    assert [(x["name"], x["type"], x["desc"]) for x in columns["output_columns"]] == [
        ("t_llr", "float", 'a "b", c'),
        ("t_dp_ag", "int", "where"),
        ("t_gene", "string", "gene"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER, "has no records"),
        (HEADER[HEADER.index("#CHROM") :] + "1\t1\t.\tA\tC\t.\t.\t.\n", "no INFO field"),
    ],
)
def test_vcf_without_scores_is_refused(tmp_path, text, message):
    vcf = tmp_path / "in.vcf"
    vcf.write_text(text)
    done = build(vcf, tmp_path / "out")
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "out/glm_annotate/data/glm_annotate.sqlite").exists()


def test_yml_of_the_module_is_that_of_mito_and_complete(tmp_path, scored):
    assert build(scored, tmp_path).returncode == 0
    shipped = (PLUGIN / "glm_annotate/glm_annotate.yml").read_text()
    assert (tmp_path / "glm_annotate/glm_annotate.yml").read_text() == shipped
    module = yaml.safe_load(shipped)
    for key in ("title", "version", "type", "level", "output_columns", "description", "developer"):
        assert module[key], key
    assert module["developer"].keys() == {"name", "organization", "email", "website", "citation"}
    # 83 alleles; none has two spellings.
    assert len(table(tmp_path)) == 83


@pytest.mark.hosts
@pytest.mark.timeout(240)
def test_annotator_runs_in_opencravat(tmp_path, scored):
    oc = plugin_programs.program("oc", INSTALL)
    modules = tmp_path / "modules"
    assert build(scored, modules / "annotators").returncode == 0
    # Not `oc config md`, which would change the OpenCRAVAT of this machine.
    home = {**os.environ, "HOME": str(tmp_path), "OPENCRAVAT_MD": str(modules)}
    variants = [
        (1, "chrM", 3243, "A", "G", ""),
        (2, "chrM", 303, "-", "C", ""),  # chrM 302 A AC
        (3, "chrM", 3243, "A", "T", ""),  # not scored
        (4, "chrM", 514, "CA", "-", ""),
    ]
    (tmp_path / "in.crv").write_text("".join("\t".join(map(str, x)) + "\n" for x in variants))
    script = modules / "annotators/glm_annotate/glm_annotate.py"
    done = subprocess.run(
        [plugin_programs.python_of(oc), script, tmp_path / "in.crv", "-d", tmp_path],
        env=home, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (output,) = tmp_path.glob("*.var")
    rows = [x.split("\t") for x in output.read_text().splitlines() if not x.startswith("#")]
    with sqlite3.connect(modules / "annotators/glm_annotate/data/glm_annotate.sqlite") as base:
        known = base.execute("select mito_llr from score where pos = 3243").fetchone()[0]
    assert [row[0] for row in rows] == ["1", "2", "4"]
    # README.md of the project has this number.
    assert float(rows[0][1]) == pytest.approx(-4.70273, abs=1e-4)
    assert float(rows[0][1]) == known
    assert [row[3] for row in rows] == ["SCORED", "LLR:INDEL", "LLR:INDEL"]


@pytest.mark.hosts
@pytest.mark.timeout(240)
def test_whole_job_of_opencravat(tmp_path, scored, example_dir):
    oc = plugin_programs.program("oc", INSTALL)
    base = os.environ.get("GLM_OPENCRAVAT_MODULES")
    if not base:
        pytest.skip("GLM_OPENCRAVAT_MODULES names no folder with converter, mapper and reporters")
    modules = tmp_path / "modules"
    shutil.copytree(base, modules, ignore=shutil.ignore_patterns("glm_annotate"))
    assert build(scored, modules / "annotators").returncode == 0
    # Not `oc config md`, which would change the OpenCRAVAT of this machine.
    home = {**os.environ, "HOME": str(tmp_path), "OPENCRAVAT_MD": str(modules)}
    done = subprocess.run(
        [oc, "run", example_dir / "mtdna_variants.vcf", "-l", "hg38", "-a", "glm_annotate",
         "-t", "tsv", "-d", tmp_path / "out"],
        env=home, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert "Finished normally" in done.stdout, done.stdout + done.stderr
    with sqlite3.connect(tmp_path / "out" / "mtdna_variants.vcf.sqlite") as result:
        found = result.execute(
            "select count(*), count(glm_annotate__mito_llr), count(glm_annotate__mito_pllr) "
            "from variant"
        ).fetchone()
    # 83 alleles less the placeholder at 3107, whose N OpenCRAVAT does not take; 8 are indels.
    assert found == (82, 74, 82)
