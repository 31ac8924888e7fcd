"""Akita: contact maps of several cell types from 1 Mb of bases.

After Fudenberg, Kelley and Pollard (2020) and the layers of basenji, whose params.json and Keras
weights are read. Decisions: the blocks of params.json have to be those of the published network, of
any size; a window is as long as it says, since distances and crop belong to that length.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from glm_annotate.errors import InputError
from glm_annotate.track_table import read_targets
from glm_annotate.train.families.akita_blocks import Akita, AkitaConfig
from glm_annotate.train.families.family import Family, Official, Source, Values
from glm_annotate.train.families.predictor import Predicted
from glm_annotate.train.keras_h5 import layers_of
from glm_annotate.train.official import Keys, build_config, check_whole, fill, parse_config


def build(values: Values) -> Akita:
    """Make a network with fresh weights.

    Raises:
        InputError: A key or value of `[model]` is not allowed.
    """
    return Akita(build_config(AkitaConfig, values))


def is_trunk(name: str, weight: Tensor) -> bool:
    """Tell the matrices that Muon may update: there are none but that of the head."""
    return False


# Official checkpoints

# A block's keys: what they are here, and what basenji takes where one is left out.
_Block = tuple[str, dict[str, tuple[str, Any]]]
_TRUNK: tuple[_Block, ...] = (
    (
        "conv_block",
        {
            "filters": ("stem", None), "kernel_size": ("stem_kernel", 1),
            "pool_size": ("stem_pool", 1),
        },
    ),
    (
        "conv_tower",
        {
            "filters_init": ("tower", None), "filters_mult": ("tower_mult", None),
            "repeat": ("tower_repeat", 1), "kernel_size": ("tower_kernel", 1),
            "pool_size": ("tower_pool", 1),
        },
    ),
    (
        "dilated_residual",
        {
            "filters": ("narrow", None), "kernel_size": ("narrow_kernel", 3),
            "rate_mult": ("rate", 2), "repeat": ("repeat", 1),
        },
    ),
    ("conv_block", {"filters": ("neck", None), "kernel_size": ("neck_kernel", 1)}),
)  # fmt: skip
_HEAD: tuple[_Block, ...] = (
    ("one_to_two", {"operation": ("operation", "mean")}),
    ("concat_dist_2d", {}),
    ("conv_block_2d", {"filters": ("flat", 128), "kernel_size": ("flat_kernel", 1)}),
    ("symmetrize_2d", {}),
    (
        "dilated_residual_2d",
        {
            "filters": ("flat_narrow", None), "kernel_size": ("flat_narrow_kernel", 3),
            "rate_mult": ("flat_rate", 2), "repeat": ("flat_repeat", 1),
        },
    ),
    ("cropping_2d", {"cropping": ("crop", None)}),
    ("upper_tri", {"diagonal_offset": ("diagonal", 2)}),
    ("final", {"units": ("maps", None), "activation": ("activation", "linear")}),
)  # fmt: skip
# Of training alone.
_IDLE = frozenset(["name", "dropout", "l2_scale", "l1_scale", "kernel_initializer", "bn_momentum"])
_PARTS = {
    "kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias",
    "moving_mean": "running_mean", "moving_variance": "running_var",
}  # fmt: skip
_NORMS = ("batch_normalization", "sync_batch_normalization")
_KINDS = frozenset({"conv1d", "conv2d", "dense", *_NORMS})
_BETWEEN = "give params.json and weights of one checkpoint"


def recognise(source: Source) -> bool:
    """Tell the Keras weights of an Akita: nothing else of basenji has convolutions in 2-D."""
    kinds = layers_of(source.weights).keys()
    return kinds <= _KINDS and kinds >= {"conv1d", "conv2d", "dense"}


def load(source: Source, context: int | None) -> Predicted:
    """Read weights that basenji saved, and params.json beside them.

    Raises:
        InputError: They are not what they should be, or `context` is another window.
    """
    config = official_config(source)
    network = Akita(config)
    if context not in (None, network.length):
        raise InputError(
            f"{source.name}: --context {context}: its window has {network.length} bases and no "
            "other number"
        )
    fill(network, dataclasses.replace(source, weights=to_torch(source, network)), Keys())
    return Predicted((network,), _card(config), _tracks(source, config.maps))


def official_config(source: Source) -> AkitaConfig:
    """Translate `params.json`.

    Raises:
        InputError: There is none, or it describes another network.
    """
    model = _read_params(source)
    _expect(source, "activation", model.get("activation", "relu"), ("relu",))
    _expect(source, "norm_type", model.get("norm_type"), ("batch", "batch-sync"))
    head, name = _head(source, model)
    made = _read(source, "trunk", model.get("trunk"), _TRUNK) | _read(source, name, head, _HEAD)
    _expect(source, "operation", made.pop("operation"), ("mean",))
    _expect(source, "activation of final", made.pop("activation"), ("linear",))
    for key, ours in (("target_crop", "crop"), ("diagonal_offset", "diagonal")):
        _expect(source, key, model.get(key, made[ours]), (made[ours],))
    made["tower"] = _widths(source, made)
    made["bins"] = _bins(source, model, made)
    return parse_config(AkitaConfig, source, made)


def _read_params(source: Source) -> Mapping[str, Any]:
    """Give the table `model` of the params.json beside the weights, or of the source's config."""
    path, values = source.file("params.json"), dict(source.config)
    if path is not None:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read: {error}; fetch it again") from error
    model = values.get("model") if isinstance(values, dict) else None
    if not isinstance(model, Mapping):
        raise InputError(
            f"{path or source.name}: found no table 'model' that tells what the layers are; put "
            "the params.json of the same checkpoint beside the weights"
        )
    return model


def _expect(source: Source, key: str, found: object, allowed: tuple[Any, ...]) -> None:
    if found not in allowed:
        wanted = " or ".join(map(repr, allowed))
        raise InputError(f"{source.name}: params.json: {key} is {found!r}, wanted {wanted}")


def _head(source: Source, model: Mapping[str, Any]) -> tuple[Any, str]:
    """Find the head: the only one, or that of the number in the name, as in model1_best.h5."""
    names = sorted((key for key in model if key.startswith("head")), key=_naturally)
    number = re.match(r"model(\d+)", source.files[0].name) if source.files else None
    place = int(number[1]) if number is not None and len(names) > 1 else 0
    if not names or place >= len(names) or (len(names) > 1 and number is None):
        raise InputError(
            f"{source.name}: params.json: found the heads {', '.join(names) or 'none'}; with more "
            "than one the file's name tells which, as model0_best.h5 does"
        )
    return model[names[place]], names[place]


def _naturally(text: str) -> list[tuple[int, str]]:
    return [(int(x), "") if x.isdigit() else (-1, x) for x in re.split(r"(\d+)", text)]


def _read(source: Source, place: str, blocks: object, wanted: tuple[_Block, ...]) -> dict[str, Any]:
    """Read a list of blocks that have to be these."""
    given = blocks if isinstance(blocks, list) else []
    names = [block.get("name") if isinstance(block, Mapping) else block for block in given]
    if names != [name for name, _ in wanted]:
        listed = ", ".join(name for name, _ in wanted)
        found = ", ".join(map(str, names)) or "none"
        raise InputError(
            f"{source.name}: params.json: {place} has the blocks {found}; Akita has {listed}"
        )
    made: dict[str, Any] = {}
    for block, (name, keys) in zip(given, wanted, strict=True):
        unknown = sorted(block.keys() - keys.keys() - _IDLE)
        missing = [key for key, (_, default) in keys.items() if block.get(key, default) is None]
        if unknown or missing:
            fault = f"does not know {unknown[0]}" if unknown else f"needs {missing[0]}"
            raise InputError(f"{source.name}: params.json: {place}: {name} {fault}; {_BETWEEN}")
        made |= {ours: block.get(key, default) for key, (ours, default) in keys.items()}
    return made


def _widths(source: Source, made: dict[str, Any]) -> tuple[int, ...]:
    """List the tower's widths, each the one before it times a factor."""
    factor, width = (
        made.pop("tower_mult"),
        float(check_whole(source, "filters_init", made["tower"])),
    )
    repeat = check_whole(source, "repeat", made.pop("tower_repeat"))
    if not isinstance(factor, int | float) or not 0 < factor < 4 or repeat > len(source.weights):
        raise InputError(
            f"{source.name}: params.json: conv_tower: filters_mult is {factor!r} and repeat "
            f"{repeat}, wanted a number below 4 and at most {len(source.weights)}; {_BETWEEN}"
        )
    widths = [width]
    for _ in range(repeat - 1):
        widths.append(widths[-1] * factor)
    return tuple(min(round(x), 10**9) for x in widths)


def _bins(source: Source, model: Mapping[str, Any], made: Mapping[str, Any]) -> int:
    length = check_whole(source, "seq_length", model.get("seq_length"))
    stem, tower = (check_whole(source, "pool_size", made[f"{x}_pool"]) for x in ("stem", "tower"))
    size = stem * int(tower ** len(made["tower"]))
    if length % size:
        raise InputError(
            f"{source.name}: params.json: seq_length is {length}, wanted a multiple of {size}, "
            f"which pooling makes of a bin; {_BETWEEN}"
        )
    return length // size


def to_torch(source: Source, network: Akita) -> dict[str, Tensor]:
    """Name Keras weights as the network does and give them torch's order of axes.

    Keras numbers layers in the order in which they were made: that of the units.

    Raises:
        InputError: Their numbers differ.
    """
    kinds = layers_of(source.weights)
    convs = [*kinds.get("conv1d", []), *kinds.get("conv2d", [])]
    norms = [layer for kind in _NORMS for layer in kinds.get(kind, [])]
    dense, units = kinds.get("dense", []), list(network.units())
    flat = sum(unit.conv.weight.ndim == 4 for _, unit in units)
    found = (len(kinds.get("conv1d", [])), len(kinds.get("conv2d", [])), len(norms), len(dense))
    wanted = (len(units) - flat, flat, len(units), 1)
    if found != wanted:
        raise InputError(
            f"{source.name}: layers conv1d, conv2d, batch_normalization and dense: found "
            f"{', '.join(map(str, found))}, wanted {', '.join(map(str, wanted))} by params.json; "
            f"{_BETWEEN}"
        )
    names = {dense[0]: "final"}
    for (name, _), conv, norm in zip(units, convs, norms, strict=True):
        names |= {conv: f"{name}.conv", norm: f"{name}.norm"}
    out = {f"{name}.norm.num_batches_tracked": torch.tensor(0) for name, _ in units}
    for key, value in source.weights.items():
        layer, _, part = key.partition("/")
        # The two axes of channels stand last in Keras and first, swapped, in torch.
        is_kernel = part == "kernel" and value.ndim > 1
        moved = value.movedim((-1, -2), (0, 1)) if is_kernel else value
        out[f"{names.get(layer, layer)}.{_PARTS.get(part, part)}"] = moved
    return out


def _tracks(source: Source, maps: int) -> tuple[dict[str, str], ...]:
    """Name the maps: from the authors' targets.txt beside the weights, else by number."""
    path = source.file("targets.txt")
    units = {"units": "log(observed/expected)", "transform": "none"}
    if path is None:
        return tuple({"identifier": f"map_{i + 1}", **units} for i in range(maps))
    found = read_targets(path, "none").tracks
    if len(found) != maps:
        raise InputError(
            f"{path}: found {len(found)} rows, wanted {maps}, one a map of params.json; give the "
            "targets.txt of the same checkpoint"
        )
    return tuple({"identifier": x.identifier, "description": x.description, **units} for x in found)


def _card(config: AkitaConfig) -> dict[str, Any]:
    window = config.bins * config.bin_size
    return {
        "encoder": {
            "kind": "kmer",
            "vocab": {"order": "ACGT", "first_id": 0, "single_ids": {"N": 4}},
        },
        "context": window,
        "anchor": window // 2 - 1,
        "crop": config.crop,
        "contacts": {
            "bin_size": config.bin_size,
            "diagonal": config.diagonal,
            "layout": "upper",
            "symmetric": True,
        },
        "strand": "both",
        "scores": ("CONTACT_L1", "INSULATION"),
    }


FAMILY = Family(
    name="akita",
    objective="contacts",
    build=build,
    trunk=is_trunk,
    citation="Fudenberg, Kelley and Pollard, Nature Methods 17, 1111-1117 (2020)",
    title="Akita",
    official=(
        Official(
            variant="Keras",
            recognise=recognise,
            load=load,
            tag="AKITA",
            tokenizer="one-hot bases",
            code_licence="Apache-2.0",
            weights_licence="none stated",
        ),
    ),
)
