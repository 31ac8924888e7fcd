"""The notebooks run: as the Python files that they are, and in Jupyter where it is installed."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.py"))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(command, cwd):
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True,
        check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_as_they_lie(path):
    lines = run(["-W", "error", path.name], path.parent).splitlines()
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    number = re.search(r"^chrM\t3243\t.*MITO_LLR=(-?\d+\.\d{2})", readme, re.MULTILINE)
    assert number is not None
    wanted = rf"chrM +3243 .* A +G +{re.escape(number[1])}\d* "
    assert any(re.search(wanted, line) for line in lines), lines
    assert sum("MITO_STATUS" in line for line in lines) >= 2
    assert lines[-1] == "embedding of each base: (57, 192)"


@pytest.mark.hosts
@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_in_jupyter(path, tmp_path):
    for module in ("jupytext", "nbmake", "ipykernel"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed; run: pip install jupytext nbmake ipykernel")
    # Where the script lies, so that its paths lead to the same files.
    for name in ("docs", "example_data"):
        (tmp_path / name).mkdir()
    (tmp_path / "docs" / "notebooks").mkdir()
    for file in (DOCS.parent / "example_data").iterdir():
        if file.is_file():
            (tmp_path / "example_data" / file.name).symlink_to(file)
    notebook = tmp_path / "docs" / "notebooks" / f"{path.stem}.ipynb"
    run(["-m", "jupytext", "--to", "ipynb", "--output", str(notebook), str(path)], DOCS)
    options = [
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        "-c",
        os.devnull,
        "--overwrite",
    ]
    run(["-m", "pytest", "-q", "--nbmake", *options, str(notebook)], tmp_path)
    text = notebook.read_text()
    assert text.count('"output_type": "stream"') == 6
    assert '"output_type": "error"' not in text


def test_python_of_the_page_is_valid_and_of_names_that_exist():
    import glm_annotate

    text = (DOCS / "api.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        compile(block, "api.md", "exec")
    names = {
        x
        for line in re.findall(r"^from glm_annotate import (.*)$", text, re.M)
        for x in line.split(", ")
    }
    assert names <= set(glm_annotate.__all__)


def test_the_signatures_of_the_page_are_those_of_the_code():
    import inspect

    from glm_annotate import score
    from glm_annotate.bundle_predict import predict
    from glm_annotate.score_checks import KNOWN

    text = (DOCS / "api.md").read_text()
    first, rest = text.split("## load_bundle")
    told = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", first, re.M))))
    assert told == set(inspect.signature(score).parameters)
    (given,) = re.findall(r"`bundle\.predict\((.*?)\)`", rest)
    defaults = {name: x.default for name, x in inspect.signature(predict).parameters.items()}
    wanted = [
        name if value is inspect.Parameter.empty else f"{name}={value!r}".replace("'", '"')
        for name, value in defaults.items()
        if name != "bundle"
    ]
    assert given.split(", ") == wanted
    rows = re.findall(r"^\| `(\w+)` \| .* \| \((n.*?)\) \|", rest, re.M)
    shapes = {
        name: ("n", *("D" if x == 6 else str(x) for x in known.shape))
        for name, known in KNOWN.items()
    }
    assert {name: tuple(x for x in re.split(", ?", shape) if x) for name, shape in rows} == shapes
