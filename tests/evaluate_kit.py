"""What the tests of `evaluate` share: runs in this process, their tables, and a small genome."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from engine import write_fasta

from glm_annotate.cli_evaluate import evaluate_group


def evaluate(*arguments: object) -> None:
    evaluate_group.main([*map(str, arguments), "--threads", "1"], "evaluate", standalone_mode=False)


def rows_of(folder: Path, name: str = "metrics.tsv") -> list[dict[str, str]]:
    with (folder / name).open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.fixture(scope="module")
def contigs() -> dict[str, str]:
    draw = np.random.default_rng(8)
    made = {n: "".join(draw.choice(list("ACGT"), s)) for n, s in (("one", 1300), ("two", 700))}
    line = made["one"]
    made["one"] = line[:40] + "NNN" + line[43:60] + line[60:110].lower() + line[110:]
    return made


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory, contigs: dict[str, str]) -> Path:
    return write_fasta(tmp_path_factory.mktemp("genome") / "toy.fa", contigs)
