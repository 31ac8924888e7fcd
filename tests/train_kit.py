"""A small run for tests of training: genomes, a config, and what its files say."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np

CONFIG = """
name = "tiny"
family = "{family}"
objective = "{objective}"
seed = 4
{top}
[model]
{model}
[encoder]
{encoder}
[data]
context = 24
validation = ["held"]
valid_stride = 16
{data}
[[data.groups]]
name = "a"
fasta = "a.fa"
{group}
[mask]
rate = {{ start = 0.3, end = 0.2 }}
{mask}
[optim]
name = "adamw"
lr = 0.01
batch = 5
steps = 4
warmup_steps = 1
{optim}
[run]
out = "{out}"
threads = 1
log_every = 1
valid_every = 2
{run}
"""

GPN = "vocabulary = 7\ndim = 8\nkernel = 3\nhidden = 8\ndilations = [1, 2]"
LETTERS = 'kind = "kmer"\nvocab = { first_id = 3, single_ids = { N = 2 }, pad_id = 0, mask_id = 1 }'


def write_genome(folder: Path, name: str = "a.fa", seed: int = 0, size: int = 90) -> None:
    """Write contigs x, y, held and kept of random bases; a third of each is lower-case."""
    rng = np.random.default_rng(seed)
    texts = {}
    for contig in ("x", "y", "held", "kept"):
        letters = "".join(rng.choice(list("ACGT"), size))
        texts[contig] = letters[: size // 3].lower() + letters[size // 3 :]
    (folder / name).write_text("".join(f">{n}\n{text}\n" for n, text in texts.items()))


def write_run(folder: Path, out: str = "run", **parts: str) -> Path:
    """Write the config of a small run; `parts` are texts of the tables and of single keys."""
    defaults = {"family": "gpn", "objective": "masked", "model": GPN, "encoder": LETTERS}
    blank = dict.fromkeys(("top", "data", "group", "mask", "optim", "run"), "")
    path = folder / f"{out}.toml"
    path.write_text(CONFIG.format(**{**defaults, **blank, **parts}, out=out))
    return path


def rows_of(path: Path, *drop: str) -> list[dict[str, str]]:
    """Read a log without some of its columns."""
    with open(path, newline="") as handle:
        return [{k: v for k, v in row.items() if k not in drop} for row in csv.DictReader(handle)]


def run_and_keep(path: str, data: str, out: str, **options: bool) -> None:
    """Train, and write the gradients of every step before they are clipped."""
    import torch

    from glm_annotate.train import loop
    from glm_annotate.train.sharing import whole

    kept = []
    clip = torch.nn.utils.clip_grad_norm_

    def keep(weights, most):
        weights = list(weights)
        kept.append([whole(weight.grad).clone() for weight in weights])
        return clip(weights, most)

    torch.nn.utils.clip_grad_norm_ = keep
    try:
        loop.train(path, data=data, **options)
    finally:
        torch.nn.utils.clip_grad_norm_ = clip
    if os.environ.get("LOCAL_RANK", "0") == "0":
        torch.save(kept, out)


def run_as(rank: int, world: int, port: int, arguments: tuple[str, str, str]) -> None:
    """Do `run_and_keep` as one process of several, as a launcher such as torchrun starts them."""
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "WORLD_SIZE": str(world),
    }
    run_and_keep(*arguments)
