"""The tutorials' commands run as they are printed, one after the other, in one folder."""

from __future__ import annotations

import csv
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("lightning_fabric")
pytest.importorskip("onnx")

TUTORIALS = Path(__file__).resolve().parent.parent / "docs" / "tutorials"
ORDER = ("pretrain", "finetune", "export", "annotate")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tutorial")


def blocks(name):
    text = (TUTORIALS / f"{name}.md").read_text(encoding="utf-8")
    return re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run(name, folder):
    """Run the blocks of a page; a command that fails ends the test with what it said."""
    bin_folder = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    env |= {"OMP_NUM_THREADS": "1"}
    outputs = []
    for block in blocks(name):
        done = subprocess.run(
            ["sh", "-euc", block], cwd=folder, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{name}.md:\n{block}\n{done.stdout}\n{done.stderr}"
        outputs.append(done.stdout + done.stderr)
    return outputs


def last_figures(path):
    """The figures of the last validation, by name."""
    with open(path, newline="") as handle:
        rows = list(csv.DictReader(handle))
    last = rows[-1]["step"]
    return {row["figure"]: float(row["value"]) for row in rows if row["step"] == last}


def infos(path):
    lines = [x.split("\t") for x in path.read_text().splitlines() if not x.startswith("#")]
    return [dict(pair.split("=", 1) for pair in line[7].split(";")) for line in lines]


# In the order of the pages: each goes on where the one before it ended.


def test_every_page_has_commands_and_is_run():
    assert {path.stem for path in TUTORIALS.glob("*.md")} == set(ORDER)
    assert all("glm-annotate" in "".join(blocks(name)) for name in ORDER)


@pytest.mark.timeout(300)
def test_pretrain(folder):
    run("pretrain", folder)
    found = last_figures(folder / "runs" / "pretrain" / "valid.csv")
    # A quarter of the bases cannot be told at all.
    assert math.log(4) / 4 < found["genome"] < 0.9 * math.log(4)


@pytest.mark.timeout(300)
def test_finetune(folder):
    outputs = run("finetune", folder)
    assert "lora: " in "".join(outputs)
    tuned, alone = (
        last_figures(folder / "runs" / name / "valid.csv") for name in ("finetune", "embeddings")
    )
    assert tuned["pearson"] > 0.55
    assert tuned["pearson"] > alone["pearson"] + 0.03


@pytest.mark.timeout(300)
def test_export(folder):
    outputs = run("export", folder)
    assert outputs[-1].count("ok, ") == 2


@pytest.mark.timeout(300)
def test_annotate(folder):
    run("annotate", folder)
    element, random, deletion, insertion = infos(folder / "scored.vcf")
    assert float(element["TUTOR_LLR"]) < float(random["TUTOR_LLR"])
    for info in (element, random, deletion, insertion):
        assert info["PROMOTERS_STATUS"] == "SCORED"
        assert float(info["TUTOR_PLLR"]) == float(info["TUTOR_PLLR"])
    assert float(insertion["PROMOTERS_SAD_expression"]) > 0.5
    assert (folder / "scores.tsv").read_text().count("\n") == 5
