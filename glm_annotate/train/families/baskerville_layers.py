"""Layers in the Keras h5 of a model of baskerville, as weights of our network.

The h5 names layers by kind and number alone, in the order in which baskerville made them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from glm_annotate.errors import InputError
from glm_annotate.train.families.borzoi_blocks import BorzoiConfig
from glm_annotate.train.families.family import Source
from glm_annotate.train.keras_h5 import layers_of

PARAMS = "params.json"
# In the h5: the kinds of layers, by our names of them.
_KINDS = {
    "conv1d": "conv", "batch_normalization": "norm", "sync_batch_normalization": "norm",
    "layer_normalization": "layer_norm", "dense": "dense", "separable_conv1d": "separable",
    "multihead_attention": "attention",
}  # fmt: skip
_NORM = {"gamma": "weight", "beta": "bias"}
_BATCH = _NORM | {"moving_mean": "running_mean", "moving_variance": "running_var"}
_ATTENTION = {
    "q_layer/kernel": "to_q.weight", "k_layer/kernel": "to_k.weight",
    "v_layer/kernel": "to_v.weight", "r_k_layer/kernel": "to_rel_k.weight",
    "embedding_layer/kernel": "to_out.weight", "embedding_layer/bias": "to_out.bias",
    "r_w_bias": "rel_content_bias", "r_r_bias": "rel_pos_bias",
}  # fmt: skip


def layers_in(source: Source) -> dict[str, list[str]]:
    """List the layers of each kind, in order.

    Raises:
        InputError: There is a kind that is not known.
    """
    out: dict[str, list[str]] = {name: [] for name in _KINDS.values()}
    for kind, names in layers_of(source.weights).items():
        if kind not in _KINDS:
            raise InputError(
                f"{source.name}: layer {names[0]} is of no known kind; known are {_list(_KINDS)}"
            )
        if out[_KINDS[kind]]:
            raise InputError(f"{source.name}: {names[0]} beside {out[_KINDS[kind]][0]}: two kinds")
        out[_KINDS[kind]] = names
    return out


def _places(config: BorzoiConfig) -> dict[str, list[str]]:
    """Name the modules of each kind in the order in which baskerville makes their layers."""
    tower = [f"tower.{i}." for i in range(len(config.tower))]
    blocks = [f"transformer.{i}." for i in range(config.layers)]
    ups = [f"up.{i}." for i in range(config.levels)]
    last = ["last."] if config.last else []
    dense = [f"{block}{part}." for block in blocks for part in ("widen", "narrow")]
    norms = [f"{part}norm." for part in tower]
    for up in ups:
        # The upward path comes before what it is joined with.
        norms += [f"{up}own.norm." if config.dense_up else f"{up}own.", f"{up}beside.norm."]
        dense += [*([f"{up}own.conv."] if config.dense_up else []), f"{up}beside.conv."]
    return {
        "conv": ["stem.", *(f"{part}conv." for part in (*tower, *last))],
        "norm": [*norms, *(f"{part}norm." for part in last)],
        "layer_norm": [f"{x}norm_{part}." for x in blocks for part in ("attention", "mlp")],
        "dense": [*dense, "head."],
        "separable": ups,
        "attention": [f"{block}attention." for block in blocks],
    }


def translate(
    source: Source, config: BorzoiConfig, kinds: Mapping[str, Sequence[str]]
) -> dict[str, Tensor]:
    """Give every weight of the h5 our name and axes.

    Raises:
        InputError: There are more or fewer layers than params.json tells of, or other weights.
    """
    out: dict[str, Tensor] = {}
    used = 0
    for kind, places in _places(config).items():
        layers = kinds[kind]
        if len(layers) != len(places):
            raise InputError(
                f"{source.name}: {len(layers)} layers of the kind {kind}, wanted {len(places)} by "
                f"{PARAMS}; fetch the {PARAMS} of the same model"
            )
        for layer, place in zip(layers, places, strict=True):
            weights = {
                name.removeprefix(f"{layer}/"): value
                for name, value in source.weights.items()
                if name.startswith(f"{layer}/")
            }
            used += len(weights)
            for name, value in _turn(source, kind, layer, weights):
                # A dense layer beside convolutions is one of a single tap.
                single = kind == "dense" and "conv" in place and value.ndim == 2
                out[place + name] = value[..., None] if single else value
            if kind == "norm":
                out[f"{place}num_batches_tracked"] = torch.tensor(0)
    if used != len(source.weights):
        raise InputError(f"{source.name}: holds {len(source.weights) - used} weights too many")
    return out


def _turn(
    source: Source, kind: str, layer: str, weights: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Rename the weights of one layer and put their axes in torch's order."""
    plain = {"kernel": "weight", "bias": "bias"}
    separable = {"depthwise_kernel": "depth.weight", "pointwise_kernel": "point.weight"}
    names = {
        "norm": _BATCH, "layer_norm": _NORM, "attention": _ATTENTION,
        "separable": separable | {"bias": "point.bias"},
    }.get(kind, plain)  # fmt: skip
    axes = {"conv": (2, 1, 0), "dense": (1, 0), "attention": (1, 0)}
    for name, value in weights.items():
        if name not in names:
            raise InputError(f"{source.name}: {layer} holds {name}, known are {_list(names)}")
        order = axes.get(kind)
        if name == "depthwise_kernel":
            order = (1, 2, 0)
        elif name == "pointwise_kernel":
            order = (2, 1, 0)
        if name.endswith("kernel") and order is not None:
            if value.ndim != len(order):
                raise InputError(
                    f"{source.name}: {layer}/{name} has {value.ndim} axes, wanted {len(order)}"
                )
            value = value.permute(order).contiguous()
        yield names[name], value


def _list(names: Iterable[object]) -> str:
    return ", ".join(map(str, names))
