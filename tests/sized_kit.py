"""A network of mito's size with random weights, for genomes that mito is not meant for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from glm_annotate.bundle import GRAPH, find_bundle, write_bundle

_LEFT_OUT = ("sha256", "scope", "circular", "provenance", "embedding")


def random_mito(folder: Path, *, dense: int = 0) -> Path:
    """Write the bundle: mito's graph with each weight matrix shuffled, no scope, tag RANDOM.

    Args:
        folder: Made.
        dense: Stride of the dense mode.
    """
    source = find_bundle("mito")
    folder.mkdir(parents=True)
    model, rng = onnx.load(source / GRAPH), np.random.default_rng(8)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind == "f" and values.size > 1:
            shuffled = rng.permutation(values.reshape(-1)).reshape(values.shape)
            tensor.CopyFrom(numpy_helper.from_array(shuffled, tensor.name))
    onnx.save(model, folder / GRAPH)
    card = json.loads((source / "card.json").read_text())
    card = {key: value for key, value in card.items() if key not in _LEFT_OUT}
    card["outputs"].pop("embedding", None)
    write_bundle(folder, card | {"name": "random", "tag": "RANDOM", "dense": dense})
    return folder
