"""Systems at the size of their official checkpoints, with random weights: does the export fit?

    python benchmarks/full_size.py [--only NAME ...]

Each system in a process of its own: build, write the graph, compare ONNX Runtime with torch on one
window, and tell seconds, bytes and the largest memory of the process. Weights are random, so no
score means anything; shapes, operators, bytes and times are those of the official model. Sizes are
those of the published configs.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Size:
    """A model table of a family, and the rows of the window that is run.

    Attributes:
        complete: False where memory allows only a part of the blocks.
    """

    family: str
    model: dict[str, Any]
    rows: int
    complete: bool = True


_BERT = {"dim": 768, "layers": 12, "heads": 12, "hidden": 3072}
_CADUCEUS = {"dim": 256, "layers": 16, "tied": True}
_RC_IDS = (0, 1, 2, 3, 4, 5, 6, 10, 9, 8, 7, 11, 12, 13, 14, 15)
_CYCLE = [1, 2, 4, 8, 16, 32]


def _nt(dim: int, layers: int, heads: int, hidden: int, rows: int = 512) -> Size:
    model = {"dim": dim, "layers": layers, "heads": heads, "hidden": hidden}
    return Size("nucleotide_transformer", model, rows)


def _hyena(dim: int, layers: int, longest: int, rows: int) -> Size:
    model = {"dim": dim, "layers": layers, "hidden": 4 * dim, "max_rows": longest}
    return Size("hyenadna", model, rows)


SIZES: dict[str, Size] = {
    "dnabert-6": Size("dnabert", {"vocabulary": 4101, **_BERT}, 509),
    "dnabert-2": Size("dnabert2", {"vocabulary": 4096, **_BERT}, 512),
    "nt-500m-human-ref": Size(
        "nucleotide_transformer",
        {
            "vocabulary": 4105,
            "dim": 1280,
            "layers": 24,
            "heads": 20,
            "hidden": 5120,
            "gated": False,
            "positions": 1002,
            "token_dropout": True,
        },
        512,
    ),
    "nt-v2-50m": _nt(512, 12, 16, 2048),
    "nt-v2-100m": _nt(512, 22, 16, 2048),
    "nt-v2-250m": _nt(768, 24, 16, 3072),
    "nt-v2-500m": _nt(1024, 29, 16, 4096),
    "gena-lm-bert-base": Size("gena_lm", {**_BERT, "positions": 512}, 512),
    "gena-lm-bert-large": Size(
        "gena_lm",
        {"dim": 1024, "layers": 24, "heads": 16, "hidden": 4096, "positions": 512, "eps": 1e-5},
        512,
    ),
    "gena-lm-bigbird-sparse": Size(
        "gena_lm", {**_BERT, "rotary": 32, "block": 64, "blocks": 64}, 1024
    ),
    "gena-lm-bigbird": Size("gena_bigbird", _BERT, 1024),
    "gpn-brassicales": Size(
        "gpn_songlab",
        {
            "layout": "legacy",
            "dim": 512,
            "hidden": 512,
            "kernel": 9,
            "bias": True,
            "dilations": [_CYCLE[i % 6] for i in range(25)],
        },
        512,
    ),
    "gpn-animal-promoter": Size(
        "gpn_songlab",
        {
            "layout": "bytenet",
            "dim": 1024,
            "hidden": 512,
            "table": True,
            "transform": False,
            "kernel": 5,
            "dilations": [2 ** (i % 8) for i in range(64)],
        },
        512,
    ),
    "gpn-msa-sapiens": Size("gpn_msa", {"species": 89, **_BERT}, 128),
    "hyenadna-tiny-1k": _hyena(128, 2, 1026, 1024),
    "hyenadna-small-32k": _hyena(256, 4, 32770, 8192),
    "hyenadna-medium-160k": _hyena(256, 8, 160002, 8192),
    "hyenadna-large-1m": _hyena(256, 8, 1000002, 8192),
    "caduceus-ph-131k": Size("caduceus", _CADUCEUS, 2048),
    "caduceus-ps-131k": Size(
        "caduceus", {**_CADUCEUS, "complement": _RC_IDS, "exchange": True}, 2048
    ),
    "evo2-1b-base": Size(
        "evo2",
        {
            "dim": 1920,
            "pattern": ("SMLA" + "SML") * 3 + "SMLA",
            "heads": 15,
            "hidden": 5120,
            "short_groups": 128,
            "medium_groups": 128,
        },
        1024,
    ),
    "evo-1-8k, 2 of 32 blocks": Size(
        "evo",
        {"dim": 4096, "layers": 2, "heads": 32, "hidden": 10928, "attention": (1,)},
        1024,
        complete=False,
    ),
}


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Build one system, export it and run a window."""
    import torch

    from glm_annotate.train import graph
    from glm_annotate.train.families import FAMILIES

    size = SIZES[name]
    torch.manual_seed(0)
    network = FAMILIES[size.family].build(size.model).eval()
    network.materialise(size.rows)
    parameters = sum(weight.numel() for weight in network.parameters())
    began = time.perf_counter()
    path = folder / "model.onnx"
    graph.write_graph(network, path, "fp32")
    exported = time.perf_counter() - began
    rows = np.random.default_rng(1).integers(network.vocabulary, size=(1, size.rows))
    batch: Any = rows
    if network.channels:
        shape = (1, size.rows, network.channels)
        batch = rows, np.random.default_rng(2).integers(5, size=shape).astype(np.float32)
    wanted = graph.run_torch(network, batch)
    del network
    began = time.perf_counter()
    (found,) = graph.run_graph(path, [batch])
    return {
        "parameters": parameters,
        "export": exported,
        "bytes": sum(file.stat().st_size for file in folder.iterdir()),
        "run": time.perf_counter() - began,
        "difference": graph.compare(found, wanted).worst,
        # Kilobytes on Linux.
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def main(arguments: Sequence[str]) -> int:
    """Measure the systems asked for; returns 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.child:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(given.child, Path(folder))))
        return 0
    print("| system | parameters (M) | rows | export (s) | graph (MB) | load and run (s) |"
          " against torch | peak memory (GB) |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    failed = False
    for name in given.only:
        words = [sys.executable, __file__, "--child", name]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            failed = True
            reason = (done.stderr.strip().splitlines() or [f"signal {-done.returncode}"])[-1]
            print(f"| {name} | failed: {reason} |", flush=True)
            continue
        x = json.loads(done.stdout.splitlines()[-1])
        print(
            f"| {name} | {x['parameters'] / 1e6:.1f} | {SIZES[name].rows} | {x['export']:.0f} | "
            f"{x['bytes'] / 1e6:.0f} | {x['run']:.1f} | {x['difference']:.1e} | "
            f"{x['memory']:.1f} |",
            flush=True,
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
