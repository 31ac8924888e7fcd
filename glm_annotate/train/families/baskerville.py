"""Models that baskerville trained: params.json, a Keras h5 of the weights, and targets.txt.

The h5 names layers by kind and number alone, in the order in which baskerville made them; what
each is follows from params.json. Only the blocks that Borzoi and its smaller relatives are made of
are known here; anything else is refused, with the name of the block.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from glm_annotate.errors import InputError
from glm_annotate.train.families.borzoi_blocks import Borzoi, BorzoiConfig
from glm_annotate.train.families.family import Source
from glm_annotate.train.keras_h5 import layers_of
from glm_annotate.train.official import Keys, fill, parse_config

PARAMS = "params.json"
# Of blocks: what matters in training alone.
_TRAINING = frozenset(
    (
        *("name", "l2_scale", "mha_l2_scale", "l1_scale", "bn_momentum", "kernel_initializer"),
        *("mha_initializer", "dropout", "attention_dropout", "position_dropout"),
    )
)
# Of blocks: what the network here is, and what a key that is left out means.
_FIXED: dict[str, dict[str, tuple[Any, ...]]] = {
    "conv_dna": {"norm_type": (None,), "activation": ("linear",), "stride": (1,)},
    "res_tower": {"num_convs": (1,), "pool_size": (2,), "pool_type": ("max",)},
    "transformer_tower": {
        "block_type": ("transformer",), "content_position_bias": (True,), "qkv_width": (1,),
    },
    "unet_conv": {"stride": (2,)},
    "Cropping1D": {},
    "conv_nac": {"kernel_size": (1,)},
    "final": {"activation": ("softplus",)},
}  # fmt: skip
# Of blocks: what is read, and which of it has to be there.
_READ: dict[str, tuple[str, ...]] = {
    "conv_dna": ("filters", "kernel_size", "pool_size"),
    "res_tower": (
        *("filters_init", "filters_end", "filters_mult", "divisible_by"),
        *("kernel_size", "repeat"),
    ),
    "transformer_tower": (
        *("key_size", "heads", "num_position_features", "seqlen_train"),
        *("dense_expansion", "repeat"),
    ),
    "unet_conv": ("kernel_size", "upsample_conv"),
    "Cropping1D": ("cropping",),
    "conv_nac": ("filters",),
    "final": ("units",),
}
_NEEDED = {
    "conv_dna": "filters", "res_tower": "filters_init", "transformer_tower": "key_size",
    "Cropping1D": "cropping", "conv_nac": "filters", "final": "units",
}  # fmt: skip
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


def recognise(source: Source) -> bool:
    """Tell whether a source is the h5 of a model of baskerville with a transformer."""
    return {"conv1d", "multihead_attention"} <= layers_of(source.weights).keys()


def read(source: Source, context: int | None) -> tuple[Borzoi, str]:
    """Read weights and params.json; returns the network and the name of its head.

    Raises:
        InputError: There is no params.json, it holds a block that is not known here, or the
            weights are not those of it.
    """
    model = read_params(source)
    units = _units(source, model)
    kinds = _layers(source)
    found = source.weights.get(f"{kinds['dense'][-1]}/bias") if kinds["dense"] else None
    tracks = found.numel() if found is not None else 0
    names = [name for name, count in units.items() if count == tracks]
    asked = source.config.get("head")
    if asked is not None and asked not in names:
        raise InputError(
            f"{source.name}: has {tracks} tracks, not those of head {asked!r}; "
            f"{PARAMS} gives {_list(units)}; give the h5 of that head"
        )
    if not names:
        raise InputError(
            f"{source.name}: has {tracks} tracks, {PARAMS} gives {_list(units)}; fetch "
            f"the {PARAMS} of the same model"
        )
    head = str(asked or names[0])
    config = config_of(source, model, tracks, context)
    network = Borzoi(config)
    fill(network, replace(source, weights=_translate(source, config, kinds)), Keys())
    return network, head


def read_params(source: Source) -> dict[str, Any]:
    """Read `model` of the params.json beside the weights.

    Raises:
        InputError: There is none, or it has no trunk.
    """
    path = source.file(PARAMS)
    if path is None:
        raise InputError(
            f"{source.name}: no {PARAMS} beside it; the weights alone do not tell its layers, "
            f"fetch the {PARAMS} of the model"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    model = values.get("model") if isinstance(values, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("trunk"), list):
        raise InputError(f"{path}: holds no model with a trunk; fetch the {PARAMS} of the model")
    return model


def config_of(
    source: Source, model: Mapping[str, Any], tracks: int, context: int | None
) -> BorzoiConfig:
    """Translate the `model` of params.json.

    Raises:
        InputError: It holds something that is not known here.
    """
    _check_globals(source, model)
    values: dict[str, Any] = {"tracks": tracks, "levels": 0, "crop": 0, "last": None}
    seen = [_block(source, block) for block in model["trunk"]]
    names = [name for name, _ in seen]
    order = "conv_dna res_tower transformer_tower [unet_conv ...] [Cropping1D] [conv_nac]"
    wanted = [
        "conv_dna",
        "res_tower",
        "transformer_tower",
        *["unet_conv"] * names.count("unet_conv"),
    ]
    if names[: len(wanted)] != wanted or names[len(wanted) :] not in (
        *([], ["Cropping1D"], ["conv_nac"], ["Cropping1D", "conv_nac"]),
    ):
        raise InputError(f"{source.name}: {PARAMS}: blocks {', '.join(names)}; known are {order}")
    ups = [block for name, block in seen if name == "unet_conv"]
    if any(block != ups[0] for block in ups):
        raise InputError(f"{source.name}: {PARAMS}: unet_conv blocks differ; known is one kind")
    for name, block in seen:
        values |= _read_block(source, name, block)
    values["levels"] = len(ups)
    token = values["stem_pool"] << len(values["tower"])
    trained = _number(source, "seq_length", model.get("seq_length"))
    length = context or trained
    if length % token or trained % token:
        raise InputError(
            f"{source.name}: a window of {length} bases is not a multiple of {token}; give one "
            "that is with --context"
        )
    values["tokens"] = length // token
    # The widths of the features are those of the window that it was trained on.
    values["trained_tokens"] = values["trained_tokens"] or trained // token
    return parse_config(BorzoiConfig, source, values)


def _check_globals(source: Source, model: Mapping[str, Any]) -> None:
    wanted = {"norm_type": ("batch", "batch-sync"), "activation": ("gelu",), "padding": ("same",)}
    for key, known in wanted.items():
        found = model.get(key, known[0])
        if found not in known:
            raise InputError(
                f"{source.name}: {PARAMS}: {key} is {found!r}, known are {_list(known)}"
            )


def _block(source: Source, block: Any) -> tuple[str, Mapping[str, Any]]:
    """Check one block; gives its name and itself."""
    name = block.get("name") if isinstance(block, dict) else None
    if not isinstance(name, str) or name not in _FIXED:
        raise InputError(f"{source.name}: {PARAMS}: block {name!r}, known are {_list(_FIXED)}")
    for key, value in block.items():
        known = _FIXED[name].get(key)
        if key in _TRAINING or key in _READ[name] or (known is not None and value in known):
            continue
        reason = f"known are {_list(known)}" if known else f"read are {_list(_READ[name])}"
        raise InputError(f"{source.name}: {PARAMS}: {name}: {key} is {value!r}, {reason}")
    # What is left out has baskerville's defaults, which must be those that are known.
    for key, default in (("num_convs", 2), ("norm_type", "global"), ("activation", "global")):
        if key in _FIXED[name] and key not in block and default not in _FIXED[name][key]:
            raise InputError(
                f"{source.name}: {PARAMS}: {name}: {key} is left out, known are "
                f"{_list(_FIXED[name][key])}"
            )
    if _NEEDED.get(name, "name") not in block:
        raise InputError(f"{source.name}: {PARAMS}: {name}: no {_NEEDED[name]}")
    return name, block


def _read_block(source: Source, name: str, block: Mapping[str, Any]) -> dict[str, Any]:
    """Translate one block to keys of ours."""

    def number(key: str, default: int | None = None) -> int:
        return _number(source, f"{name}: {key}", block.get(key, default))

    if name == "conv_dna":
        sizes = {"stem": number("filters"), "stem_kernel": number("kernel_size", 15)}
        return {**sizes, "stem_pool": number("pool_size", 1)}
    if name == "res_tower":
        return {"tower": _tower(source, block), "kernel": number("kernel_size", 1)}
    if name == "transformer_tower":
        values: dict[str, Any] = {"layers": number("repeat", 2), "heads": number("heads", 1)}
        values |= {"key": number("key_size"), "trained_tokens": block.get("seqlen_train")}
        values["expansion"] = block.get("dense_expansion", 2.0)
        if block.get("num_position_features") is None:
            raise InputError(f"{source.name}: {PARAMS}: {name}: no num_position_features")
        return {**values, "features": number("num_position_features")}
    if name == "unet_conv":
        dense = block.get("upsample_conv", False)
        return {"up_kernel": number("kernel_size", 1), "dense_up": dense}
    if name == "Cropping1D":
        return {"crop": _number(source, "Cropping1D: cropping", block["cropping"], least=0)}
    return {"last": number("filters")}


def _tower(source: Source, block: Mapping[str, Any]) -> tuple[int, ...]:
    """Work out the widths of a res_tower: a geometric row, each rounded to `divisible_by`."""
    first = _number(source, "res_tower: filters_init", block["filters_init"])
    repeat = _number(source, "res_tower: repeat", block.get("repeat", 1))
    unit = _number(source, "res_tower: divisible_by", block.get("divisible_by", 1))
    factor = block.get("filters_mult")
    if factor is None:
        end = _number(source, "res_tower: filters_end", block.get("filters_end"))
        factor = math.exp(math.log(end / first) / (repeat - 1)) if repeat > 1 else 1.0
    if not isinstance(factor, int | float) or not 0 < factor < 100 or repeat > 32:
        raise InputError(
            f"{source.name}: {PARAMS}: res_tower: filters_mult is {factor!r}, repeat {repeat}"
        )
    widths, width = [], float(first)
    for _ in range(repeat):
        widths.append(round(width / unit) * unit)
        width *= factor
    return tuple(widths)


def _units(source: Source, model: Mapping[str, Any]) -> dict[str, int]:
    """List the heads by name, and how many tracks each has."""
    units = {}
    for key, head in model.items():
        if key.startswith("head"):
            blocks = head if isinstance(head, list) else [head]
            if len(blocks) != 1:
                raise InputError(f"{source.name}: {PARAMS}: {key}: known is a single block, final")
            _block(source, blocks[0])
            name = key.removeprefix("head").strip("_") or "human"
            units[name] = _number(source, f"{key}: units", blocks[0]["units"])
    if not units:
        raise InputError(f"{source.name}: {PARAMS}: no head")
    return units


def _number(source: Source, key: str, value: object, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= 100_000_000:
        raise InputError(
            f"{source.name}: {PARAMS}: {key} is {value!r}, wanted a number from {least} on"
        )
    return value


# The h5


def _layers(source: Source) -> dict[str, list[str]]:
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


def _translate(
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
