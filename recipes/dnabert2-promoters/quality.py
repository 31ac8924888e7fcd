"""Compare a run of `config.toml` with a ridge regression on k-mers, on the same held-out families.

python recipes/dnabert2-promoters/quality.py CONFIG CHECKPOINT --data FOLDER

Prints Pearson's r with 95 % intervals over families of sequences.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import click
import numpy as np
import torch

from glm_annotate.train import checkpoints
from glm_annotate.train.config import load_config
from glm_annotate.train.finetune.data import families, load_examples
from glm_annotate.train.finetune.model import encoder_of, restore
from glm_annotate.train.supervised.ridge import NormalEquations, bootstrap, count_kmers

K, PENALTY = 4, 300.0


def kmers(codes: np.ndarray) -> np.ndarray:
    """Count the k-mers of sequences (n, L), shape (n, 4^k)."""
    length = codes.shape[1]
    padded = np.pad(codes, ((0, 0), (0, K - 1)), constant_values=4)
    return np.concatenate([count_kmers(row, length, K) for row in padded])


def predict(checkpoint: Path, codes: np.ndarray) -> np.ndarray:
    """Predict with a run's averaged weights, shape (n,)."""
    network = restore(checkpoints.load(checkpoint).average).eval()
    out = np.empty(len(codes))
    with torch.no_grad():
        for group in encoder_of(network.facts).encode(codes):
            rows = torch.from_numpy(group.rows.astype(np.int64))
            found = network.activate(network.head(network.pool(rows)))
            out[group.index] = found[:, 0].numpy()
    return out


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    config = load_config(options.config)
    assert config.finetune is not None
    examples = config.finetune.examples
    split = load_examples(examples, options.data, config.data.context, config.seed, classes=False)
    equations = NormalEquations(4**K, 1)
    equations.add(kmers(split.train.codes), split.train.targets)
    wanted = split.valid.targets[:, 0].astype(np.float64)
    family = families(split.valid.codes, examples.homology)
    natural = np.isin(family, [x for x in np.unique(family) if (family == x).sum() > 5])
    columns = {
        "model": predict(options.checkpoint, split.valid.codes),
        f"{K}-mer ridge": equations.solve([PENALTY])[0].predict(kmers(split.valid.codes))[:, 0],
    }
    click.echo("held out\tsequences\tfamilies\tcolumn\tr\t95 % interval")
    for name, kept in (
        ("all", np.ones_like(natural)),
        ("natural promoters and their mutants", natural),
        ("random sequences", ~natural),
    ):
        blocks = [np.flatnonzero((family == x) & kept) for x in np.unique(family[kept])]
        for column, found in columns.items():
            r = bootstrap([found[x] for x in blocks], [wanted[x] for x in blocks])
            click.echo(
                f"{name}\t{kept.sum()}\t{len(blocks)}\t{column}\t{r.value:.3f}\t"
                f"{r.low:.3f} to {r.high:.3f}"
            )


if __name__ == "__main__":
    main()
