"""Who imports what: training libraries stay in training, and the command starts light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "glm_annotate"
SOURCES = {
    ".".join(("glm_annotate", *path.relative_to(PACKAGE).with_suffix("").parts)): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
SCORING = sorted(name for name in SOURCES if not name.startswith("glm_annotate.train"))

TRAINING_ONLY = {"torch", "transformers", "lightning", "lightning_fabric", "lightning_utilities"}
TRAINING_ONLY |= {"onnx", "onnxscript", "peft", "safetensors"}
HEAVY = ["torch", "transformers", "onnx", "pandas", "pyranges", "onnxruntime", "matplotlib"]
HEAVY += ["pyBigWig", "pyarrow", "huggingface_hub", "tokenizers", "zarr"]


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the modules that a piece of source imports anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_import(tree: ast.Module) -> Iterator[str]:
    """Yield the modules that are imported when the source is, type checking aside."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield from imported(node)


def test_the_walk_finds_modules_and_imports():
    assert {"glm_annotate.genome", "glm_annotate.train.loop"} <= set(SOURCES)
    tree = ast.parse("def f():\n    import torch.nn as nn\n    from onnx import helper\n")
    assert list(imported(tree)) == ["torch.nn", "onnx", "onnx.helper"]
    assert list(at_import(tree)) == []
    loop = ast.parse(SOURCES["glm_annotate.train.loop"].read_text(encoding="utf-8"))
    assert "torch" in set(at_import(loop))


@pytest.mark.parametrize("name", SCORING)
def test_training_libraries_are_imported_under_train_alone(name):
    tree = ast.parse(SOURCES[name].read_text(encoding="utf-8"))
    assert {x.split(".")[0] for x in imported(tree)} & TRAINING_ONLY == set()
    # A verb such as `train` may fetch its own module when it runs, never before.
    assert not [x for x in at_import(tree) if x.startswith("glm_annotate.train")]


def test_trap_packages_under_agpl_are_oracles_alone():
    """multimolecule may be compared with, and neither be imported nor asked for."""
    for path in SOURCES.values():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert {x.split(".")[0] for x in imported(tree)} & {"multimolecule"} == set(), path
    assert "multimolecule" not in (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")


def test_importing_the_scoring_side_loads_nothing_heavy():
    """One process imports module after module, and names the first that loads too much."""
    names = [name.removesuffix(".__init__") for name in SCORING if not name.endswith("__main__")]
    script = (
        "import importlib, sys\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        f"    loaded = [x for x in {HEAVY!r} if x in sys.modules]\n"
        "    assert not loaded, (name, loaded)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")
