"""What lies beside the weights of a Basenji2: params.json, and which of its heads they are of."""

from __future__ import annotations

from typing import Any

from glm_annotate.errors import InputError
from glm_annotate.train.families.baskerville import read_params
from glm_annotate.train.families.baskerville_layers import PARAMS
from glm_annotate.train.families.family import Source

ASSEMBLIES = {"human": ("Homo sapiens", "GRCh38"), "mouse": ("Mus musculus", "mm10")}
# Tracks of the published heads.
_PUBLISHED = {5313: "human", 1643: "mouse"}


def settings(source: Source) -> dict[str, Any]:
    """Read crop, window and growth of dilations off params.json; empty where there is none.

    Raises:
        InputError: It is damaged, or of a network that is not a Basenji2.
    """
    if source.file(PARAMS) is None:
        return {}
    model = read_params(source)
    if model.get("activation", "gelu") != "gelu":
        raise InputError(
            f"{source.name}: {PARAMS}: activation is {model['activation']!r}, known is 'gelu'"
        )
    found: dict[str, Any] = {"crop": model.get("target_crop", 0)}
    if "seq_length" in model:
        found["length"] = model["seq_length"]
    for block in model["trunk"]:
        name = block.get("name") if isinstance(block, dict) else None
        if name in ("Cropping1D", "cropping_1d"):
            found["crop"] = block.get("cropping")
        elif name == "dilated_residual":
            found["rate"] = block.get("rate_mult", 2)
    if not isinstance(found.get("rate", 1.5), int | float):
        raise InputError(f"{source.name}: {PARAMS}: rate_mult is {found['rate']!r}, no number")
    return found


def heads_of(source: Source, tracks: int) -> tuple[str, ...]:
    """Name the heads that weights with so many tracks may be of: a file holds one of them.

    Published ones are told by their number of tracks, others by params.json; where neither tells,
    it may be either.
    """
    if tracks in _PUBLISHED:
        return (_PUBLISHED[tracks],)
    try:
        model = read_params(source)
    except InputError:
        return tuple(ASSEMBLIES)
    units = {
        key.removeprefix("head").strip("_") or "human": block.get("units")
        for key, head in model.items()
        if key.startswith("head")
        for block in (head if isinstance(head, list) else [head])[-1:]
        if isinstance(block, dict)
    }
    return tuple(name for name, count in units.items() if count == tracks)
