"""Steps of `glm-annotate train` beside a plain torch loop on the same network and batches.

    OMP_NUM_THREADS=1 python benchmarks/bench_training.py [--steps 30] [--pairs 7]

Both loops run in this process and take turns, A B B A. Both make the same batches, do the same
forward and backward passes, clip, step the same optimizer and keep an average of the weights; ours
adds what a run needs around it (parts, devices, checks, logs). The goal is at most 5 % more CPU
time. One pair is a warm-up and not counted.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from glm_annotate.train.config import load_config
from glm_annotate.train.loop import Run
from glm_annotate.train.objectives import make_objective

CONFIG = """
name = "bench"
family = "gpn"
seed = 1
[model]
vocabulary = 7
dim = {dim}
kernel = 9
hidden = {dim}
dilations = [1, 2, 4, 8]
[encoder]
kind = "kmer"
vocab = {{ first_id = 3, single_ids = {{ N = 2 }}, pad_id = 0, mask_id = 1 }}
[data]
context = 256
validation = ["held"]
[[data.groups]]
name = "a"
fasta = "a.fa"
[optim]
name = "adamw"
batch = {batch}
steps = 1000000
[run]
out = "run"
accelerator = "cpu"
threads = 1
valid_every = 0
save_minutes = 1e9
"""


def plain_loop(config_path: Path, folder: Path) -> Callable[[int], None]:
    """Make a loop as one would write it by hand for this one network."""
    config = load_config(config_path)
    torch.manual_seed(config.seed)
    objective = make_objective(config, folder, folder)
    network: nn.Module = objective.network
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    average = {k: v.detach().clone() for k, v in network.state_dict().items()}
    done = 0

    def run(steps: int) -> None:
        nonlocal done
        for step in range(done, done + steps):
            batch = objective.batch(step, 0.0)
            logits, labels = network(batch["rows"]), batch["labels"]
            asked = labels >= 0
            loss = functional.cross_entropy(logits[asked], labels[asked])
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                for name, value in network.state_dict().items():
                    average[name].lerp_(value, 0.001)
        done += steps

    return run


def our_loop(config_path: Path, folder: Path) -> Callable[[int], None]:
    """Make the loop of `glm-annotate train`, its logs at their default places."""
    run = Run(load_config(config_path), folder, folder, folder / "run")

    def steps(count: int) -> None:
        for _ in range(count):
            run._train_step()
            if run.step % run.config.run.log_every == 0:
                run._log()

    return steps


def taken(loop: Callable[[int], None], steps: int) -> float:
    """Return CPU seconds of some steps."""
    began = time.process_time()
    loop(steps)
    return time.process_time() - began


def main() -> None:
    """Print both rates and the median of their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--dim", type=int, default=96)
    parser.add_argument("--batch", type=int, default=16)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = np.random.default_rng(0)
        texts = {x: "".join(rng.choice(list("ACGT"), 100_000)) for x in ("x", "held")}
        (folder / "a.fa").write_text("".join(f">{k}\n{v}\n" for k, v in texts.items()))
        path = folder / "c.toml"
        path.write_text(CONFIG.format(dim=given.dim, batch=given.batch))
        ours, plain = our_loop(path, folder), plain_loop(path, folder)
        found = []
        for pair in range(given.pairs + 1):
            order = [ours, plain] if pair % 2 else [plain, ours]
            seconds = {loop: taken(loop, given.steps) for loop in order}
            if pair:
                found.append((seconds[ours], seconds[plain]))
    ratios = [one / other for one, other in found]
    bases = given.steps * given.batch * 256
    for label, column in (("glm-annotate train", 0), ("plain torch loop", 1)):
        middle = statistics.median(x[column] for x in found)
        print(f"{label}\t{middle / given.steps * 1e3:.2f} ms a step\t{bases / middle:,.0f} bases/s")
    print(
        f"ratio\t{statistics.median(ratios):.3f}\t(pairs: "
        f"{', '.join(f'{x:.3f}' for x in ratios)})\tgoal at most 1.05"
    )


if __name__ == "__main__":
    main()
