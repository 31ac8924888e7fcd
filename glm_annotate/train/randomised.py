"""Controls of a model: the same graph with weights that were not learned.

Such a model has the architecture, the encoder and the sizes of the other, and nothing of what it
was trained on. What it still predicts comes of its shape and of the bases themselves.

Decisions: `permuted` puts the values of each tensor in another order, `normal` draws those of
tensors with two or more axes from a normal distribution of the same mean and standard deviation
and permutes the others (variances of a normalisation stay positive). Tensors of few different
values are codes and masks, not weights, and stay; so do whole numbers, unless they are the
quantised weights of an int8 model, which are permuted.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np

from glm_annotate.bundle import BACKGROUND, SELFTEST, Bundle, load_bundle, write_bundle
from glm_annotate.errors import BundleError, UsageError

Method = Literal["permuted", "normal"]

_FEW = 6  # different values that a tensor of weights has more of
_LARGEST = 1 << 30  # bytes of a graph beyond which its weights go beside it


def write_control(model: str, folder: Path, method: Method, seed: int) -> str:
    """Write a bundle of the same graph with other weights.

    Args:
        model: What the user wrote after -m.
        folder: To be made.
        method: How weights are made, see the module.
        seed: Of them.

    Returns:
        The tag of the model, without any addition.

    Raises:
        UsageError: There is no `onnx` package.
        BundleError: The graph has no weights that could be drawn again.
    """
    try:
        import onnx
    except ImportError as error:
        raise UsageError(
            "--random-control: needs the onnx package; run: pip install 'glm_annotate[train]'"
        ) from error
    tag, equals, name = model.partition("=")
    is_tagged = bool(equals) and tag.isalnum() and tag.isupper()
    bundle = load_bundle(name if is_tagged else model)
    draw = np.random.default_rng(seed)
    skipped = {x for x in bundle.card.sha256 if x.endswith((".onnx", ".data"))} | {
        SELFTEST,
        BACKGROUND,
    }
    folder.mkdir(parents=True)
    for other in bundle.card.sha256:
        if other not in skipped:
            (folder / other).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.path / other, folder / other)
    for path in bundle.graphs:
        graph = onnx.load(str(path))
        if not _redraw(graph.graph, method, draw):
            raise BundleError(f"{path}: holds no weights to draw again; no control can be made")
        size = graph.ByteSize()
        onnx.save_model(
            graph,
            str(folder / path.name),
            save_as_external_data=size > _LARGEST,
            location=f"{path.name}.data",
        )
    write_bundle(folder, _card(bundle, method, seed))
    return tag if is_tagged else bundle.card.tag


def _card(bundle: Bundle, method: Method, seed: int) -> dict[str, Any]:
    card = bundle.card.model_dump(mode="json", exclude_none=True)
    del card["sha256"]
    about = f"{bundle.card.name} with {method} weights, seed {seed}: a control, not a model"
    return card | {"name": about, "description": about, "provenance": {}}


def _redraw(graph: Any, method: Method, draw: np.random.Generator) -> int:
    """Give the initialisers of a graph other values; returns how many numbers were changed."""
    from onnx import numpy_helper

    changed = 0
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if not _is_weights(values):
            continue
        found = draw.permutation(values.reshape(-1)).reshape(values.shape)
        if method == "normal" and values.ndim > 1 and values.dtype.kind == "f":
            wide = values.astype(np.float64)
            found = draw.normal(wide.mean(), wide.std(), values.shape)
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(found.astype(values.dtype), name))
        changed += values.size
    return changed


def _is_weights(values: Any) -> bool:
    is_quantised = values.dtype in (np.int8, np.uint8) and values.ndim > 1
    if values.ndim < 1 or not (values.dtype.kind == "f" or is_quantised):
        return False
    return bool(np.unique(values).size > _FEW)
