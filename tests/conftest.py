"""Fixtures that any test may ask for, and what is skipped where."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

REPO = Path(__file__).resolve().parent.parent

# The machines that run the tests share their cores: a deadline would measure the neighbours.
settings.register_profile("shared", deadline=None, print_blob=True)
settings.load_profile("shared")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip `gpu` tests where no NVIDIA device is to be seen."""
    if shutil.which("nvidia-smi") or Path("/dev/nvidia0").exists():
        return
    no_gpu = pytest.mark.skip(reason="no CUDA device on this machine")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(no_gpu)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table of `make parity`, one row a variant, and write it to build/parity.tsv."""
    reports = [x for kind in ("passed", "failed") for x in terminalreporter.getreports(kind)]
    rows = [value for x in reports for key, value in x.user_properties if key == "parity"]
    if not rows:
        return
    head = ("system", "variant", "reference", "torch", "ONNX", "vcf", "values")
    cells = [
        [x if isinstance(x, str) else f"{x:.1e}" if isinstance(x, float) else str(x) for x in row]
        for row in sorted(rows)
    ]
    table = REPO / "build" / "parity.tsv"
    table.parent.mkdir(exist_ok=True)
    table.write_text("".join("\t".join(row) + "\n" for row in (head, *cells)))
    line = "{:24} {:24} {:54} {:>9} {:>9} {:>9} {:>7}".format
    terminalreporter.section("parity with public implementations (random weights)")
    for row in (head, *cells):
        terminalreporter.write_line(line(*row))


@pytest.fixture(scope="session")
def repo_dir() -> Path:
    """The root of the checkout."""
    return REPO


@pytest.fixture(scope="session")
def example_dir() -> Path:
    """The folder with the example genome and variants."""
    return REPO / "example_data"


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Large public data sets beside the checkout; tests that want them are skipped elsewhere."""
    path = REPO.parent / "shared"
    if not (path / "data").is_dir():
        pytest.skip("the data sets of ../shared are not on this machine")
    return path


@pytest.fixture(scope="session")
def bcftools() -> str:
    """Path of the real bcftools program."""
    path = shutil.which("bcftools")
    if path is None:
        pytest.skip("bcftools is not installed (Debian: apt-get install bcftools)")
    return path


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One thread of torch: sums in the same order, and no neighbours disturbed."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


RunCli = Callable[..., "subprocess.CompletedProcess[Any]"]


@pytest.fixture(scope="session")
def run_cli() -> RunCli:
    """A function that runs `glm-annotate ARGS` in its own process.

    `run_cli("vcf", path, "-f", fasta, stdin=text)` returns the completed process with `returncode`,
    `stdout` and `stderr`. `text=False` gives bytes; `check=True` fails with the program's stderr.
    """

    def run(
        *args: object,
        stdin: str | bytes | None = None,
        text: bool = True,
        check: bool = False,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        timeout: float = 55,
    ) -> subprocess.CompletedProcess[Any]:
        done = subprocess.run(
            [sys.executable, "-m", "glm_annotate", *map(str, args)],
            # Never the terminal's stdin: the program would wait for it.
            **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}),
            capture_output=True,
            text=text,
            check=False,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            timeout=timeout,
        )
        if check and done.returncode:
            pytest.fail(f"glm-annotate {args} ended with {done.returncode}: {done.stderr!r}")
        return done

    return run
