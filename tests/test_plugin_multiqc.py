"""The MultiQC module: how it reads files, and a report that MultiQC itself makes of two samples."""

from __future__ import annotations

import csv
import json
import subprocess
import tomllib

import plugin_programs
import pytest

PLUGIN = plugin_programs.PLUGINS / "multiqc"
tables = plugin_programs.load(PLUGIN / "multiqc_glm_annotate" / "tables.py")
HEAD = "chrom\tpos\tid\tref\talt\tT_LLR\tT_LLR_TOP\tT_STATUS\n"


def test_scores_are_numbers_by_column():
    rows = ["1\t5\t.\tA\tC\t-1.5\tliver\tSCORED\n", "1\t6\t.\tA\tC\t.\t.\tAMBIGUOUS\n"]
    found = tables.read_scores([HEAD, *rows, "1\t7\t.\tA\tC\t2\theart\tSCORED\n"])
    assert {k: list(v) for k, v in found.items()} == {"T_LLR": [-1.5, 2.0]}
    assert tables.read_scores([HEAD, rows[1]]) == {}
    assert tables.read_scores(["chrom\tstart\tend\n"]) is None
    assert tables.read_scores([]) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"glm_annotate": "0.1.0", "regions": 3}', '"x"'])
def test_other_json_is_no_summary(text):
    assert tables.read_summary(text) is None


def test_histograms_share_bins_and_add_up():
    found = tables.histograms({"a": [0.0, 10.0, 10.0, 9.9], "b": [5.1]})
    assert list(found["a"]) == list(found["b"])
    # 40 bins of a quarter: 0 in the first, three in the last; 5.1 in the 21st, around 5.125.
    assert {x: n for x, n in found["a"].items() if n} == {0.125: 25.0, 9.875: 75.0}
    assert {x: n for x, n in found["b"].items() if n} == {5.125: 100.0}
    assert sum(tables.histograms({"a": [3.0, 3.0]})["a"].values()) == 100


def test_median():
    assert tables.median([3, 1, 2]) == 2
    assert tables.median([4, 1, 2, 3]) == 2.5


def test_entry_points_lead_to_the_code():
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    for group, attribute in (("modules", "class MultiqcModule"), ("hooks", "def before_config")):
        ((_, target),) = project["entry-points"][f"multiqc.{group}.v1"].items()
        module, name = target.split(":")
        assert attribute.endswith(name)
        assert f"\n{attribute}" in (PLUGIN / f"{module.replace('.', '/')}.py").read_text()


@pytest.mark.hosts
@pytest.mark.timeout(240)
def test_report_of_two_samples(tmp_path, run_cli, example_dir):
    multiqc = plugin_programs.program("multiqc", "pip install multiqc ./plugins/multiqc")
    python = plugin_programs.python_of(multiqc)
    check = subprocess.run([python, "-c", "import multiqc_glm_annotate.module"], check=False)
    if check.returncode:
        pytest.skip("the MultiQC of this machine lacks the module (pip install ./plugins/multiqc)")
    other = tmp_path / "other.vcf"
    other.write_text(
        "##fileformat=VCFv4.2\n##contig=<ID=chrM,length=16569>\n"
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
        + "".join(
            f"chrM\t{pos}\t.\t{ref}\t{alt}\t.\t.\t.\n"
            for pos, ref, alt in ((3243, "A", "G"), (8993, "T", "G,*"), (100, "T", "A"))
        )
    )
    for name, vcf in (("first", example_dir / "mtdna_variants.vcf"), ("second", other)):
        run_cli(
            "vcf", vcf, "-f", example_dir / "chrM.fa", "-m", "mito", "-o", tmp_path / f"{name}.vcf",
            "--summary", tmp_path / f"{name}.glm_annotate.json",
            "--tsv", tmp_path / f"{name}.glm_annotate.tsv", check=True,
        )  # fmt: skip
    (tmp_path / "package.json").write_text('{"name": "no summary"}')
    done = subprocess.run(
        [multiqc, "--strict", "--no-ansi", "-o", tmp_path / "report", tmp_path],
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Found 2 summaries and 2 tables of scores" in done.stderr
    assert "warnings while parsing" not in done.stderr
    report = (tmp_path / "report/multiqc_report.html").read_text(encoding="utf-8")
    for anchor in ("glm_annotate", "glm_skipped", "glm_scores"):
        assert f'id="{anchor}"' in report
    data = tmp_path / "report/multiqc_data"
    with (data / "multiqc_glm_annotate.txt").open() as lines:
        rows = {row["Sample"]: row for row in csv.DictReader(lines, delimiter="\t")}
    assert rows.keys() == {"first", "second"}
    # The counts that README.md shows.
    first = rows["first"]
    assert [first[f"MITO_{x}"] for x in ("SCORED", "LLR:INDEL", "AMBIGUOUS")] == ["74", "8", "1"]
    assert (rows["second"]["alleles"], rows["second"]["MITO_unscored"]) == ("4", "2")
    # The median of two numbers is their mean; the other two alleles have none.
    with (tmp_path / "second.glm_annotate.tsv").open() as lines:
        scores = [x["MITO_LLR"] for x in csv.DictReader(lines, delimiter="\t")]
    numbers = [float(x) for x in scores if x != "."]
    assert len(numbers) == 2
    assert float(rows["second"]["MITO_LLR_median"]) == pytest.approx(sum(numbers) / 2, abs=1e-4)
    general = json.loads((data / "multiqc_data.json").read_text())["report_general_stats_data"]
    table = general["glm_annotate"] if isinstance(general, dict) else general[0]
    second = table["second"]
    second = second[0]["data"] if isinstance(second, list) else second
    assert second["MITO_scored"] == 50
    assert second["alleles"] == 4
