"""Borzoi, Flashzoi and their 16-base relative Prime: coverage of assays along half a megabase.

After Linder et al. (2025), and Hingerl et al. (2024) for Flashzoi; layout and defaults checked
against borzoi-pytorch and baskerville (Apache-2.0), whose checkpoints are read. A checkpoint may
have a head for human and one for mouse: one is exported, see `chosen_head`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from glm_annotate.errors import InputError
from glm_annotate.train.families import baskerville
from glm_annotate.train.families.borzoi_blocks import Borzoi, BorzoiConfig
from glm_annotate.train.families.family import (
    Family,
    Official,
    Release,
    Source,
    Values,
    is_matrix_of,
)
from glm_annotate.train.families.predictor import Predicted
from glm_annotate.train.families.targets import find_targets
from glm_annotate.train.official import Keys, build_config, fill, parse_config

CONTEXT = 524_288
# Tokens that borzoi-pytorch makes its widths for, whatever the window.
_TRAINED = 4096
_CITATION = "Linder et al., Nature Genetics 57 (2025) 949-961"
ASSEMBLIES = {"human": ("Homo sapiens", "hg38"), "mouse": ("Mus musculus", "mm10")}
# The head of the published Borzoi, by tracks: trained on coverage squashed in the old way.
_PUBLISHED = {"human": 7611, "mouse": 2608}


def build(values: Values) -> Borzoi:
    """Make a network with fresh weights.

    Raises:
        InputError: A key or value of `[model]` is not allowed.
    """
    return Borzoi(build_config(BorzoiConfig, values))


def chosen_head(source: Source, heads: Mapping[str, object]) -> str:
    """Say which head is exported: the config's `head`; else the only one; else human.

    A repository whose name ends in `-mouse` was trained further for mouse: there it is mouse.

    Raises:
        InputError: There is no such head.
    """
    name = source.repository.partition("@")[0]
    if not name and source.folder is not None:
        name = source.folder.name
    usual = "mouse" if name.endswith("-mouse") and "mouse" in heads else "human"
    found = source.config.get("head", next(iter(heads)) if len(heads) == 1 else usual)
    if found not in heads:
        known = ", ".join(sorted(heads)) or "none"
        raise InputError(f"{source.name}: no head {found!r}, found {known}; choose with --head")
    return str(found)


# Checkpoints of borzoi-pytorch

_STEM, _FIRST = "conv_dna.conv_layer.weight", "transformer.0.0.fn.1."
_CONV = {r"norm\.": "norm.", r"conv_layer\.": "conv."}
_BLOCK = {
    r"0\.fn\.0\.": "norm_attention.", r"0\.fn\.1\.(?:mha\.)?": "attention.",
    r"1\.fn\.0\.": "norm_mlp.", r"1\.fn\.1\.": "widen.", r"1\.fn\.4\.": "narrow.",
}  # fmt: skip


def recognise(rotary: bool, source: Source) -> bool:
    """Tell whether a source is a checkpoint of borzoi-pytorch, with this kind of attention."""
    marks = {_STEM, f"{_FIRST}mha.Wqkv.weight" if rotary else f"{_FIRST}to_rel_k.weight"}
    return marks <= source.weights.keys()


def load(rotary: bool, source: Source, context: int | None) -> Predicted:
    """Read a checkpoint of borzoi-pytorch.

    Raises:
        InputError: Weights or config are not those of one.
    """
    heads = _heads(source)
    head = chosen_head(source, heads)
    config = _config(source, rotary, heads[head], context)
    network = Borzoi(config)
    weights = {
        name: value.squeeze(-1) if name.endswith("_head.weight") and value.ndim == 3 else value
        for name, value in source.weights.items()
    }
    fill(network, replace(source, weights=weights), _keys(config, head))
    card = _card(config, head, "Borzoi training set" if heads[head] in _PUBLISHED.values() else "")
    return Predicted((network,), card, find_targets(source, head, config.tracks, "old"))


def _heads(source: Source) -> dict[str, int]:
    """List the heads, and how many tracks each has."""
    return {
        name.removesuffix("_head.weight"): value.shape[0]
        for name, value in source.weights.items()
        if re.fullmatch(r"\w+_head\.weight", name) and value.ndim
    }


def heads_of(source: Source) -> tuple[str, ...]:
    """Name the heads, see `Official.heads`."""
    return tuple(sorted(_heads(source)))


def _keys(config: BorzoiConfig, head: str) -> Keys:
    """Name our modules as borzoi-pytorch does; unet1 has the step below res_tower, and so on."""
    count, levels = len(config.tower), config.levels
    names = [rf"res_tower\.{2 * i}" for i in range(count - levels + 1)]
    names += [rf"unet{i}\.1" for i in range(1, levels)]
    places = {name: f"tower.{i}." for i, name in enumerate(names)}
    rename = []
    for i in range(levels):
        own = levels - 1 - i
        places |= {rf"upsampling_unet{own}\.0": f"up.{i}.own."}
        places |= {rf"horizontal_conv{own}": f"up.{i}.beside."}
        rename += [
            (rf"separable{own}\.conv_layer\.0\.", f"up.{i}.depth."),
            (rf"separable{own}\.conv_layer\.1\.", f"up.{i}.point."),
        ]
    places[r"final_joined_convs\.0"] = "last."
    for old, new in places.items():
        rename += [(rf"{old}\.{part}", new + name) for part, name in _CONV.items()]
    rename += [(rf"transformer\.(\d+)\.{old}", rf"transformer.\1.{n}") for old, n in _BLOCK.items()]
    rename += [(r"conv_dna\.conv_layer\.", "stem."), (rf"{head}_head\.", "head.")]
    # The other head; and rotary frequencies, which some versions of flash-attn keep.
    return Keys(tuple(rename), ignore=(r"\w+_head\.\w+", r".*\.rotary_emb\.\w+"))


def _config(source: Source, rotary: bool, tracks: int, context: int | None) -> BorzoiConfig:
    """Read sizes off the weights, and off the config what they do not tell."""
    levels = 1 + sum(f"unet{i}.1.conv_layer.weight" in source.weights for i in (1, 2))
    count = len([x for x in source.weights if re.fullmatch(r"res_tower\.\d+\.conv_layer\.bias", x)])
    names = [f"res_tower.{2 * i}" for i in range(count)]
    names += [f"unet{i}.1" for i in range(1, levels)]
    stem = shape_of(source, _STEM, 3)
    blocks = {x.split(".")[1] for x in source.weights if re.match(r"transformer\.\d+\.", x)}
    values: dict[str, Any] = {
        "stem": stem[0],
        "stem_kernel": stem[2],
        "tower": tuple(shape_of(source, f"{name}.conv_layer.weight", 3)[0] for name in names),
        "levels": levels,
        "layers": len(blocks),
        "tracks": tracks,
        "trained_tokens": _TRAINED,
        "last": None,
    }
    if "final_joined_convs.0.conv_layer.weight" in source.weights:
        values["last"] = shape_of(source, "final_joined_convs.0.conv_layer.weight", 3)[0]
    if rotary:
        values |= {"attention": "rotary", "heads": source.config.get("heads", 8)}
    else:
        bias = shape_of(source, f"{_FIRST}rel_content_bias", 4)
        features = shape_of(source, f"{_FIRST}to_rel_k.weight", 2)[1]
        values |= {"heads": bias[1], "key": bias[3], "features": features}
    token = 2 << len(names)
    values["tokens"] = tokens_of(source, context or CONTEXT, token)
    values["crop"] = _crop(source, values["tokens"] << levels, token >> levels)
    return parse_config(BorzoiConfig, source, values)


def tokens_of(source: Source, context: int, token: int) -> int:
    """Count the tokens of a window.

    Raises:
        InputError: It does not hold a whole number of them, two or more.
    """
    if context % token or context < 2 * token:
        raise InputError(
            f"{source.name}: a window of {context} bases; wanted a multiple of {token}, from "
            f"{2 * token} on; give it with --context"
        )
    return context // token


def _crop(source: Source, bins: int, size: int) -> int:
    """Work out the bins cut off at each side: the config says how many are kept.

    borzoi-pytorch keeps a central 196,608 bases unless it is told otherwise, and all but 512 bases
    at each side where `return_center_bins_only` is false.
    """
    if source.config.get("return_center_bins_only", True) is False:
        return 16
    kept = source.config.get("bins_to_return", 196_608 // size)
    if kept == -1:
        return 0
    if not isinstance(kept, int) or isinstance(kept, bool) or kept < 1 or (bins - kept) % 2:
        raise InputError(
            f"{source.name}: config: bins_to_return is {kept!r}, wanted an even number, or -1"
        )
    if kept > bins:
        raise InputError(
            f"{source.name}: a window of {bins * size} bases has fewer than the {kept} bins of "
            f"bins_to_return; give {kept * size} or more with --context"
        )
    return (bins - kept) // 2


def shape_of(source: Source, name: str, axes: int) -> tuple[int, ...]:
    """Give the shape of a weight.

    Raises:
        InputError: There is none of that name, or with another number of axes.
    """
    value: Tensor | None = source.weights.get(name)
    if value is None or value.ndim != axes:
        raise InputError(
            f"{source.name}: no {name} of {axes} axes; name the right system with --family, or "
            "fetch the checkpoint again"
        )
    return tuple(value.shape)


# Keras files of baskerville


def load_keras(source: Source, context: int | None) -> Predicted:
    """Read the h5 and params.json of a model of baskerville.

    Raises:
        InputError: They are not those of a model that is known here.
    """
    network, head = baskerville.read(source, context)
    config = network.config
    published = _PUBLISHED.get(head) == config.tracks
    rows = find_targets(source, head, config.tracks, "old" if published else "new")
    card = _card(config, head, "Borzoi training set" if published else "")
    return Predicted((network,), card, rows)


def _card(config: BorzoiConfig, head: str, data: str) -> dict[str, Any]:
    species, assembly = ASSEMBLIES.get(head, ("", ""))
    provenance = {"species": species, "assembly": assembly}
    if data:
        provenance |= {"training_data": data, "held_out": "fold 3 (test), fold 4 (validation)"}
    return {
        "encoder": {
            "kind": "kmer",
            "vocab": {"order": "ACGT", "first_id": 0, "single_ids": {"N": 4}},
        },
        "context": config.length,
        # As in the authors' scripts: the base left of the middle.
        "anchor": config.length // 2 - 1,
        "bin_size": config.bin,
        "crop": config.crop,
        "strand": "both",
        "scores": ("LOGSED", "LOGD2"),
        "provenance": provenance,
    }


def _official(
    variant: str,
    recognises: Callable[[Source], bool],
    loads: Callable[[Source, int | None], Predicted],
    tag: str = "BORZ",
    *releases: str,
    weights: str = "",
    heads: Callable[[Source], tuple[str, ...]] = heads_of,
) -> Official:
    return Official(
        variant=variant,
        recognise=recognises,
        load=loads,
        tag=tag,
        tokenizer="one-hot bases",
        code_licence="Apache-2.0",
        weights_licence=weights or "Apache-2.0 (not verified)",
        releases=tuple(Release(x, f"johahi/{x}", CONTEXT, note=_note(x)) for x in releases),
        heads=heads,
    )


def _note(name: str) -> str:
    return "mouse" if name.endswith("-mouse") else "human"


_REPLICATES = [f"borzoi-replicate-{i}{end}" for end in ("", "-mouse") for i in range(4)]
FAMILY = Family(
    name="borzoi",
    objective="tracks",
    build=build,
    trunk=is_matrix_of("transformer."),
    citation=_CITATION,
    title="Borzoi",
    official=(
        _official("PyTorch", partial(recognise, False), partial(load, False), "BORZ", *_REPLICATES),
        _official(
            "Flashzoi",
            partial(recognise, True),
            partial(load, True),
            "FLASHZOI",
            *(f"flashzoi-replicate-{i}" for i in range(4)),
            weights="not stated; ported and trained with Apache-2.0 and MIT code",
        ),
        _official(
            "Keras",
            baskerville.recognise,
            load_keras,
            weights="not stated in the file",
            heads=baskerville.heads_of,
        ),
    ),
)
