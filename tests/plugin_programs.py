"""Where the programs are that plugins run in: $GLM_HOSTS, build/hosts-*/bin, then the PATH.

Hosts must not meddle with the packages of this environment: each group has one of its own.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

REPO = Path(__file__).resolve().parent.parent
PLUGINS = REPO / "plugins"


def program(name: str, install: str) -> str:
    """Path of a program; skips where it is not, and says how to install it."""
    installed = map(str, sorted((REPO / "build").glob("hosts-*/bin")))
    places = (os.environ.get("GLM_HOSTS"), *installed, os.environ.get("PATH"))
    found = shutil.which(name, path=os.pathsep.join(filter(None, places)))
    if found is None:
        pytest.skip(f"{name} is not installed ({install})")
    return found


def python_of(path: str) -> str:
    """The Python that a script of a virtual environment runs with."""
    first = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()[0]
    return first.removeprefix("#!").strip()


def load(path: Path) -> ModuleType:
    """Import a file of a plugin, which is no part of the package."""
    name = f"plugin_{path.parent.name}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
