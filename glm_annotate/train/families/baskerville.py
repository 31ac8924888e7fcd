"""Models that baskerville trained: params.json, a Keras h5 of the weights, and targets.txt.

The h5 names layers by kind and number alone, in the order in which baskerville made them; what
each is follows from params.json. Only the blocks that Borzoi and its smaller relatives are made of
are known here; anything else is refused, with the name of the block.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from glm_annotate.errors import InputError
from glm_annotate.train.families.baskerville_layers import PARAMS, layers_in, translate
from glm_annotate.train.families.borzoi_blocks import Borzoi, BorzoiConfig
from glm_annotate.train.families.family import Source
from glm_annotate.train.keras_h5 import layers_of
from glm_annotate.train.official import Keys, fill, parse_config

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
    units, tracks = _units(source, model), _tracks(source)
    names = _fitting(source, units, tracks)
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
    head = str(asked or ("human" if "human" in names else names[0]))
    config = config_of(source, model, tracks, context)
    network, kinds = Borzoi(config), layers_in(source)
    fill(network, replace(source, weights=translate(source, config, kinds)), Keys())
    return network, head


def heads_of(source: Source) -> tuple[str, ...]:
    """Name the heads that an h5 may be of, see `Official.heads`: it holds one."""
    try:
        units = _units(source, read_params(source))
    except InputError:
        return ()
    return _fitting(source, units, _tracks(source))


def _tracks(source: Source) -> int:
    """Count the tracks of the h5: the last dense layer is the head."""
    dense = layers_of(source.weights).get("dense", [])
    bias = source.weights.get(f"{dense[-1]}/bias") if dense else None
    return 0 if bias is None else bias.numel()


def _fitting(source: Source, units: Mapping[str, int], tracks: int) -> tuple[str, ...]:
    """List the heads of so many tracks: of several the one whose number the file has.

    Training keeps the best weights of head i in model<i>_best.h5.
    """
    fitting = tuple(name for name, count in units.items() if count == tracks)
    number = re.match(r"model(\d+)_", source.files[0].name) if source.files else None
    place = int(number[1]) if number is not None else len(units)
    if len(fitting) > 1 and place < len(units) and list(units)[place] in fitting:
        return (list(units)[place],)
    return fitting


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


def _list(names: Iterable[object]) -> str:
    return ", ".join(map(str, names))
