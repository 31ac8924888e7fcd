"""plugins/galaxy: planemo's linter, and the tools' own tests without a Galaxy server."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from workflow_kit import PLUGINS, host, run

from glm_annotate import __version__
from glm_annotate.bundle import shipped
from glm_annotate.cli import commands

GALAXY = PLUGINS / "galaxy"
TOOLS = sorted(path.stem for path in GALAXY.glob("glm_annotate_*.xml"))
MACROS = ET.parse(GALAXY / "macros.xml").getroot()


@pytest.mark.parametrize("name", TOOLS)
def test_options_are_those_of_the_command(name):
    text = (GALAXY / f"{name}.xml").read_text()
    (command,) = re.findall(r"<command.*?</command>", text, re.DOTALL)
    command += "".join(token.text or "" for token in MACROS.iter("token"))
    subcommand = name.removeprefix("glm_annotate_")
    known = {x for parameter in commands.commands[subcommand].params for x in parameter.opts}
    used = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", command))
    used |= set(re.findall(r'truevalue="(--[\w-]+)"', text))
    assert used
    assert used <= known


@pytest.mark.parametrize("name", TOOLS)
def test_files_of_tests_exist(name):
    tool = ET.parse(GALAXY / f"{name}.xml").getroot()
    files = [x.get("value", "") for x in tool.iter("param") if x.get("ftype")]
    assert files
    for file in files:
        assert (GALAXY / "test-data" / file).is_file()
    assert len(list(tool.iter("test"))) >= 2


def test_macros_follow_the_package(example_dir):
    tokens = {token.get("name"): token.text for token in MACROS.iter("token")}
    assert tokens["@TOOL_VERSION@"] == __version__
    (models,) = (
        [option.get("value") for option in when.iter("option")]
        for when in MACROS.iter("when")
        if when.get("value") == "shipped"
    )
    assert models == sorted(shipped())
    assert (GALAXY / "test-data" / "chrM.fa").read_bytes() == (example_dir / "chrM.fa").read_bytes()


@pytest.mark.hosts
@pytest.mark.timeout(180)
def test_planemo_lint(tmp_path):
    command = [host("planemo"), "lint", "--fail_level", "warn", str(GALAXY)]
    out = run(command, tmp_path, HOME=str(tmp_path))
    assert "WARNING" not in out
    assert "ERROR" not in out


@pytest.mark.hosts
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", TOOLS)
def test_tools_pass_their_own_tests(name, tmp_path):
    python = Path(host("planemo")).parent / "python"
    kit = Path(__file__).parent / "galaxy_kit.py"
    out = run([str(python), str(kit), str(GALAXY / f"{name}.xml"), str(tmp_path)], tmp_path)
    tests = (GALAXY / f"{name}.xml").read_text().count("<test ")
    assert out.count(" passed: ") == tests
