"""Keras weights of a Basenji2: layers are told by the order in which they were made."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from glm_annotate.errors import InputError
from glm_annotate.train.families import basenji2_params
from glm_annotate.train.families.family import Source

_KERAS = re.compile(
    r"(?:.*/)?(conv1d|batch_normalization|dense)(?:_(\d+))?/"
    r"(kernel|bias|gamma|beta|moving_mean|moving_variance)(?::0)?"
)
_KERAS_PARTS = {
    "kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias",
    "moving_mean": "running_mean", "moving_variance": "running_var",
}  # fmt: skip


def recognise(source: Source) -> bool:
    """Tell whether a source is a model of basenji: its convolutions, each with a batch norm."""
    found = [_KERAS.fullmatch(name) for name in source.weights]
    kinds = [match[1] for match in found if match and match[3] in ("kernel", "gamma")]
    convs = kinds.count("conv1d")
    return (
        all(found)
        and convs > 3
        and convs == kinds.count("batch_normalization")
        and kinds.count("dense") == 1
        and bool(_places(_taps(_layers(source)["conv1d"])))
    )


def heads_of(source: Source) -> tuple[str, ...]:
    """See `Official.heads`."""
    (head,) = _layers(source)["dense"]
    return basenji2_params.heads_of(source, head["bias"].numel())


def from_keras(source: Source) -> dict[str, Tensor]:
    """Give our names and axes to the weights of Keras.

    Raises:
        InputError: The layers are not a stem, a tower, pairs of dilated layers and a last one.
    """
    layers = _layers(source)
    convs, norms, (head,) = (layers[x] for x in ("conv1d", "batch_normalization", "dense"))
    places = _places(_taps(convs))
    if len(places) != len(norms):
        raise InputError(
            f"{source.name}: found convolutions of {', '.join(map(str, _taps(convs)))} taps, "
            "wanted a stem, a tower, pairs of 3 and 1, and a last one of 1; name the right system "
            "with --family"
        )
    named = {
        f"{place}.{part}.{name}": value
        for place, conv, norm in zip(places, convs, norms, strict=True)
        for part, weights in (("conv", _turned(conv)), ("norm", norm))
        for name, value in weights.items()
    }
    named |= {f"{place}.norm.num_batches_tracked": torch.tensor(0) for place in places}
    return named | {f"head.{name}": value for name, value in _turned(head).items()}


def _turned(layer: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn a kernel (taps, in, out) or (in, out) of Keras into (out, in, taps) or (out, in)."""
    axes = {name: tuple(reversed(range(value.ndim))) for name, value in layer.items()}
    return {name: value.permute(axes[name]) for name, value in layer.items()}


def _layers(source: Source) -> dict[str, list[dict[str, Tensor]]]:
    """Sort Keras' weights by kind of layer, layers in the order of their numbers."""
    layers: dict[str, dict[int, dict[str, Tensor]]] = {}
    for name, value in source.weights.items():
        if match := _KERAS.fullmatch(name):
            kind, number = layers.setdefault(match[1], {}), int(match[2] or 0)
            kind.setdefault(number, {})[_KERAS_PARTS[match[3]]] = value
    return {kind: [found[i] for i in sorted(found)] for kind, found in layers.items()}


def _taps(convs: Sequence[Mapping[str, Tensor]]) -> list[int]:
    """List the taps of Keras' convolutions, whose kernels are (taps, in, out)."""
    kernels = (conv.get("weight") for conv in convs)
    return [x.shape[0] if x is not None and x.ndim == 3 else 0 for x in kernels]


def _places(taps: Sequence[int]) -> list[str]:
    """Tell the convolutions apart: dilated pairs have 3 taps and 1; none where they do not fit."""
    left = list(taps[1:-1])
    pairs = 0
    while left[-2:] == [3, 1]:
        left, pairs = left[:-2], pairs + 1
    if not pairs or 1 in left or taps[-1] != 1:
        return []
    dilated = [f"dilated.{i}.{j}" for i in range(pairs) for j in range(2)]
    return ["stem", *(f"tower.{i}" for i in range(len(left))), *dilated, "last"]
