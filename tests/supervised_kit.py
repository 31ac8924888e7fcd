"""What tests of supervised training share: random sequence, and indexed FASTA files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pysam

from glm_annotate.genome import to_text


def random_text(size: int, seed: int) -> str:
    return to_text(np.random.default_rng(seed).integers(4, size=size).astype(np.uint8))


def write_fasta(path: Path, contigs: dict[str, str]) -> Path:
    path.write_text("".join(f">{name}\n{text}\n" for name, text in contigs.items()))
    pysam.faidx(str(path))
    return path
