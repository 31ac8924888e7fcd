"""Weights of a Keras model in an HDF5 file, read as data: TensorFlow is not needed.

A name is `layer/weight`, such as `conv1d_1/kernel`; parts of a layer that has some stand between,
such as `multihead_attention/q_layer/kernel`. Arrays keep the axes that Keras gives them: `kernel`
of a dense layer is (in, out), of a 1-D convolution (width, in, out).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glm_annotate.errors import InputError

SUFFIXES = (".h5", ".hdf5")
# What a whole saved model keeps its weights in; a file of weights alone has the layers on top.
_WEIGHTS = "model_weights"
_OTHER = frozenset({"optimizer_weights"})


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read every weight of a file, by name.

    Raises:
        InputError: It is no HDF5 file, h5py is not installed, or it holds no numbers.
    """
    weights: dict[str, Tensor] = {}
    with _open(path) as file:
        root = file.get(_WEIGHTS, file)

        def visit(name: str, item: Any) -> None:
            if not hasattr(item, "shape") or name.split("/")[0] in _OTHER:
                return
            short = _shorten(name)
            if short in weights:
                raise InputError(f"{path}: {short} stands there twice; save the model again")
            # A copy: what h5py gives may have the file's byte order.
            try:
                weights[short] = torch.from_numpy(item[()].astype(item.dtype.newbyteorder("=")))
            except (AttributeError, OSError, TypeError) as error:
                raise InputError(f"{path}: {name} is no array of numbers: {error}") from error

        root.visititems(visit)
    if not weights:
        raise InputError(f"{path}: holds no weights; save the model with its weights")
    return weights


def read_config(path: str | Path) -> dict[str, Any]:
    """Read the description of the layers that a whole saved model carries; empty without one.

    Raises:
        InputError: It is no HDF5 file, or the description is damaged.
    """
    with _open(path) as file:
        text = file.attrs.get("model_config")
    if text is None:
        return {}
    try:
        values = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: model_config is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: model_config holds a {type(values).__name__}, wanted a table")
    return values


def layers_of(weights: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """List the layers by kind, in the order in which Keras made them.

    `conv1d`, `conv1d_2` are of the kind `conv1d`. What Keras counts on from depends on the models
    made before in the same program, so that only the order of the numbers means something.
    """
    kinds: dict[str, dict[str, int]] = {}
    for name in weights:
        layer = name.split("/")[0]
        found = re.fullmatch(r"(.*?)(?:_(\d+))?", layer)
        kind, number = (found[1], int(found[2] or 0)) if found else (layer, 0)
        kinds.setdefault(kind, {})[layer] = number
    return {kind: sorted(names, key=names.__getitem__) for kind, names in kinds.items()}


def _shorten(name: str) -> str:
    """Drop `:0`, and the layer's name where it stands twice."""
    parts = [part.removesuffix(":0") for part in name.split("/")]
    return "/".join(parts[1:] if len(parts) > 2 and parts[0] == parts[1] else parts)


def _open(path: str | Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise InputError(f"{path}: needs h5py; run: pip install 'glm_annotate[train]'") from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        reason = error.strerror or "not an HDF5 file: damaged, or an unfinished download"
        raise InputError(f"{path}: cannot be read: {reason}") from error
