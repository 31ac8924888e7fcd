"""plugins/cwl: validated and run by cwltool, without containers."""

from __future__ import annotations

import re

import pytest
import yaml
from workflow_kit import PLUGINS, SITES, check_shards, cut, host, make_inputs, run, scored_text

CWL = PLUGINS / "cwl"
NAMES = sorted(path.name for path in CWL.glob("*.cwl"))


@pytest.mark.parametrize("name", NAMES)
def test_documents(name):
    document = yaml.safe_load((CWL / name).read_text())
    assert document["cwlVersion"] == "v1.2"
    assert document["class"] == ("Workflow" if name == "annotate.cwl" else "CommandLineTool")
    assert document["label"]
    # A container is a hint, so that the tools run without one.
    assert "DockerRequirement" not in document.get("requirements", {})
    for step in document.get("steps", {}).values():
        tool = yaml.safe_load((CWL / step["run"]).read_text())
        assert set(step["in"]) <= set(tool["inputs"])
        assert set(step["out"]) <= set(tool["outputs"])


def test_example_job_fits_the_workflow():
    job = yaml.safe_load((CWL / "job.yml").read_text())
    assert set(job) <= set(yaml.safe_load((CWL / "annotate.cwl").read_text())["inputs"])


@pytest.mark.parametrize("sites", SITES.values(), ids=SITES)
@pytest.mark.parametrize("per", [1, 3, 1000])
def test_shards(sites, per, tmp_path):
    listing = yaml.safe_load((CWL / "shards.cwl").read_text())["requirements"]
    entry = listing["InitialWorkDirRequirement"]["listing"][0]["entry"]
    program = re.search(r"awk -v per=\"\$2\" '(.*?)'\n", entry, re.DOTALL)
    assert program is not None
    check_shards(cut(program[1], sites, tmp_path, per=per), sites, per)


@pytest.mark.hosts
@pytest.mark.timeout(180)
def test_cwltool_validates(tmp_path):
    for name in NAMES:
        assert "is valid CWL" in run([host("cwltool"), "--validate", str(CWL / name)], tmp_path)


@pytest.mark.hosts
@pytest.mark.timeout(300)
def test_cwltool_runs_the_workflow(example_dir, tmp_path):
    inputs = make_inputs(tmp_path, example_dir, 24)
    job = yaml.safe_load((CWL / "job.yml").read_text())
    (tmp_path / "job.yml").write_text(
        yaml.safe_dump({**job, "records_per_shard": 8, "no_version": True})
    )
    command = [host("cwltool"), "--quiet", "--no-container", "--outdir", "out"]
    run([*command, str(CWL / "annotate.cwl"), "job.yml"], tmp_path)
    assert scored_text(tmp_path / "out" / "scored.vcf.gz") == inputs.expected
    assert len(list((tmp_path / "out").glob("*.glm_annotate.json"))) == 3


@pytest.mark.hosts
@pytest.mark.timeout(300)
def test_cwltool_runs_the_tools(example_dir, tmp_path):
    inputs = make_inputs(tmp_path, example_dir, 10)
    job = yaml.safe_load((CWL / "job.yml").read_text())
    del job["records_per_shard"]
    tools = {
        "glm-annotate-vcf.cwl": {**job, "no_version": True, "output_ending": ".vcf.gz"},
        "glm-annotate-tracks.cwl": {
            **{key: job[key] for key in ("ref", "model_names")},
            "region": "chrM:3240-3250",
            "kinds": ["entropy", "information"],
        },
    }
    for name, given in tools.items():
        (tmp_path / "job.yml").write_text(yaml.safe_dump(given))
        command = [host("cwltool"), "--quiet", "--no-container", "--outdir", "out"]
        run([*command, str(CWL / name), "job.yml"], tmp_path)
    assert scored_text(tmp_path / "out" / "scored.vcf.gz") == inputs.expected
    made = sorted(x.name for x in (tmp_path / "out" / "tracks").rglob("*.bw"))
    assert made == ["entropy.bw", "information.bw"]
