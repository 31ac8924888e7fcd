"""Weights as Keras lays them out, into torch's names and layout.

Keras numbers layers of one kind in the order in which they were made, and keeps channels last: a
convolution's kernel is (width, in, out).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from glm_annotate.train.keras_h5 import layers_of

Layers = Mapping[str, Mapping[str, Tensor]]

_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def by_layer(weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Sort weights by layer and kind; names are those of `keras_h5.read_weights`."""
    layers: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, value in weights.items():
        parts = name.split("/")
        layers[parts[0]][parts[-1]] = value
    return dict(layers)


def numbered(layers: Layers, kind: str) -> list[str]:
    """List the layers that Keras numbered for one kind, as `conv1d`, `conv1d_1`, in order."""
    places = {f"{name}/": weights for name, group in layers.items() for weights in group.values()}
    return layers_of(places).get(kind, [])


def convolution(layer: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give `weight` (out, in, width) and `bias` of a one-dimensional convolution."""
    return _named(layer, {"kernel": "weight", "bias": "bias"})


def dense(layer: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give `weight` (out, in) and `bias` of a dense layer."""
    return _named(layer, {"kernel": "weight", "bias": "bias"})


def norm(layer: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give what a batch normalisation of torch holds; Keras counts no batches."""
    return _named(layer, _NORM) | {"num_batches_tracked": torch.zeros((), dtype=torch.int64)}


def placed(prefix: str, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put a module's name before those of its weights."""
    return {f"{prefix}.{name}": value for name, value in values.items()}


def _named(layer: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Rename, and turn what has several axes round; unknown kinds keep theirs and are refused."""
    return {
        names.get(kind, kind): value.permute(*reversed(range(value.ndim))).contiguous()
        for kind, value in layer.items()
    }
