"""Pipes that close, Ctrl-C, and errors after output has begun: in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_kit import COLUMNS, HEAD, call, records_of, write_vcf
from engine import write_fasta

from glm_annotate.testing import toy_bundle

FINE = "chr1\t7\t.\tC\tA\t.\t.\t.\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipes")
    write_fasta(folder / "genome.fa", {"chr1": "ACGTTGCAAC" * 20})
    toy_bundle("markov", folder / "toy", context=16)
    write_vcf(folder / "in.vcf", ["chr1 7 C A", "chr1 9 A T"])
    return folder


@pytest.fixture
def options(home: Path) -> list[object]:
    return ["-f", home / "genome.fa", "-m", home / "toy"]


def start(*arguments: object, **kwargs: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "glm_annotate", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, **kwargs)


@pytest.mark.parametrize("kind", ["v", "z", "u", "b"])
def test_a_closed_pipe_ends_quietly(kind: str, options: list[object], tmp_path: Path) -> None:
    source = write_vcf(tmp_path / "long.vcf", [f"chr1 {i % 199 + 1} A C" for i in range(60_000)])
    given = ["--allow-ref-mismatch", "-O", kind]
    run = start("-q", "vcf", source, *options, *given, stdout=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stdout.read(8)
    run.stdout.close()
    _, err = run.communicate(timeout=50)
    assert (run.returncode, err) == (141, b"")


@pytest.mark.parametrize("out", ["out.vcf", "out.vcf.gz", "out.bcf"])
def test_ctrl_c(out: str, options: list[object], tmp_path: Path) -> None:
    head = HEAD.replace(COLUMNS, f"##contig=<ID=chr1,length=200>\n{COLUMNS}")
    # More than one chunk is read before the input stalls.
    rows = "".join(f"chr1\t{i % 200 + 1}\t.\tN\tA\t.\t.\t.\n" for i in range(110_000))
    given = ["vcf", *options, "-o", tmp_path / out]
    with start(*given, stdin=subprocess.PIPE) as run:
        assert run.stdin is not None
        assert run.stderr is not None
        run.stdin.write((head + rows).encode())
        run.stdin.flush()
        deadline = time.monotonic() + 30
        while not any(tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)
        begun = any(tmp_path.iterdir())
        run.send_signal(signal.SIGINT)
        code = run.wait(timeout=20)
        said = run.stderr.read()
    assert begun, "no output was begun"
    assert code == 130
    assert said.rstrip().endswith(b"glm-annotate: interrupted")
    assert b"Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_no_end_block_on_stdout(
    options: list[object], tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    text = HEAD.encode() + FINE.encode() * 12_000 + b"chr1\n"
    done = run_cli("-q", "vcf", *options, "-O", "z", stdin=text, text=False)
    assert done.returncode == 1
    assert done.stderr.startswith(b"glm-annotate: error: stdin: line 12003 ")
    assert len(done.stderr.splitlines()) == 1
    whole = run_cli("-q", "vcf", *options, "-O", "z", stdin=text[:-5], text=False)
    assert whole.returncode == 0
    assert whole.stdout.endswith(whole.stdout[-28:])
    assert not done.stdout.endswith(whole.stdout[-28:])


def test_a_fifo_is_written_in_place(home: Path, options: list[object], tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    with subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE) as reader:
        assert call("-q", "vcf", home / "in.vcf", *options, "-o", fifo) == 0
        text, _ = reader.communicate(timeout=30)
    assert len(records_of(text)) == 2
    assert fifo.is_fifo()
