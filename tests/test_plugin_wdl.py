"""plugins/wdl: checked and run by miniwdl, without containers."""

from __future__ import annotations

import json
import re

import pytest
from workflow_kit import PLUGINS, SITES, check_shards, cut, host, make_inputs, run, scored_text

WDL = PLUGINS / "wdl" / "glm_annotate.wdl"


def test_inputs_are_described():
    text = WDL.read_text()
    workflow = text[text.index("workflow ") : text.index("call shards")]
    block = workflow.partition("    input {\n")[2].partition("    }\n")[0]
    declared = re.findall(r"^        [\w\[\]]+ (\w+)", block, re.MULTILINE)
    meta = workflow.partition("    parameter_meta {\n")[2].partition("    }\n")[0]
    described = re.findall(r"^        (\w+): ", meta, re.MULTILINE)
    assert declared == described
    example = json.loads((WDL.parent / "inputs.json").read_text())
    assert {key.removeprefix("glm_annotate.") for key in example} <= set(declared)


@pytest.mark.parametrize("sites", SITES.values(), ids=SITES)
@pytest.mark.parametrize("per", [1, 3, 1000])
def test_shards(sites, per, tmp_path):
    program = re.search(r"awk -v per=~\{records\} '(.*?)'\n", WDL.read_text(), re.DOTALL)
    assert program is not None
    check_shards(cut(program[1], sites, tmp_path, per=per), sites, per)


@pytest.mark.hosts
def test_miniwdl_check(tmp_path):
    run([host("miniwdl"), "check", "--strict", "--no-shellcheck", str(WDL)], tmp_path)


@pytest.mark.hosts
@pytest.mark.timeout(300)
def test_miniwdl_run(example_dir, tmp_path):
    (tmp_path / "given").mkdir()
    inputs = make_inputs(tmp_path / "given", example_dir, 24)
    given = json.loads((WDL.parent / "inputs.json").read_text())
    given["glm_annotate.records_per_shard"] = 8
    given["glm_annotate.extra_args"] = "--no-version"
    given["glm_annotate.cpu"] = 1
    (inputs.folder / "inputs.json").write_text(json.dumps(given))
    command = [host("miniwdl"), "run", str(WDL), "-i", "inputs.json", "-d", f"{tmp_path}/out/."]
    run(command, inputs.folder, MINIWDL__SCHEDULER__CONTAINER_BACKEND="bare")
    outputs = json.loads((tmp_path / "out" / "outputs.json").read_text())
    (found,) = (tmp_path / "out" / "out" / "scored_vcf").iterdir()
    assert scored_text(found) == inputs.expected
    assert len(outputs["glm_annotate.summaries"]) == 3
