"""Official weights into a network of ours, with every key accounted for.

A key that is neither used nor known is an error, and so is a weight that nothing filled: what is
left over or left out without a word is how a wrong model gives plausible scores.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from glm_annotate.errors import InputError
from glm_annotate.train.families.family import Source

_Model = TypeVar("_Model", bound=BaseModel)
_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Keys:
    """How a checkpoint's keys become those of a network; every pattern is a regular expression.

    Attributes:
        rename: (pattern, replacement) pairs, each tried at the start of a key, in order.
        ignore: Patterns that match the whole of a renamed key: buffers and heads known to be
            unused.
        ties: (pattern, twin) pairs: a weight of the network whose whole name matches and that the
            file leaves out is a copy of its twin.
    """

    rename: tuple[tuple[str, str], ...] = ()
    ignore: tuple[str, ...] = ()
    ties: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class _Tally:
    """Weights by the network's names, and what was wrong."""

    found: dict[str, Tensor] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    shapes: list[str] = field(default_factory=list)


def rename(weights: Mapping[str, Tensor], keys: Keys) -> dict[str, Tensor]:
    """Apply `keys.rename` and drop what `keys.ignore` names."""
    out: dict[str, Tensor] = {}
    for name, value in weights.items():
        new = name
        for pattern, replacement in keys.rename:
            new = re.sub(rf"^(?:{pattern})", replacement, new)
        if not any(re.fullmatch(pattern, new) for pattern in keys.ignore):
            out[new] = value
    return out


@torch.no_grad()
def fill(network: nn.Module, source: Source, keys: Keys) -> None:
    """Copy a source's weights into parameters and persistent buffers, and end in evaluation mode.

    Raises:
        InputError: A key is unknown, a weight is missing or has another shape.
    """
    wanted = network.state_dict()
    tally = _Tally()
    for name, value in rename(source.weights, keys).items():
        if name not in wanted:
            tally.unknown.append(name)
        elif value.shape != wanted[name].shape:
            tally.shapes.append(f"{name} {_shape(value)}, wanted {_shape(wanted[name])}")
        else:
            tally.found[name] = value
    missing = []
    for name in wanted.keys() - tally.found.keys():
        twin = _twin(name, keys)
        if twin in tally.found:
            tally.found[name] = tally.found[twin]
        elif not any(name == text.split(" ", 1)[0] for text in tally.shapes):
            missing.append(name)
    remedy = "name the right system with --family, or fetch the checkpoint again"
    if tally.unknown:
        found = _some(tally.unknown)
        raise InputError(f"{source.name}: keys that this system does not have: {found}; {remedy}")
    if tally.shapes:
        found = _some(tally.shapes)
        raise InputError(f"{source.name}: shapes that do not fit the config: {found}; {remedy}")
    if missing:
        raise InputError(f"{source.name}: no weights for: {_some(missing)}; {remedy}")
    for name, value in tally.found.items():
        wanted[name].copy_(value)
    network.eval()


def parse_config(model: type[_Model], source: Source, values: Mapping[str, object]) -> _Model:
    """Read a config that an official file gives.

    Raises:
        InputError: A value is missing or not allowed.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{source.name}: config: {place or 'model'}: {first['msg']}") from error


def build_config(model: type[_Model], values: Mapping[str, object]) -> _Model:
    """Read the `[model]` table of a training config.

    Raises:
        InputError: A key or value is not allowed.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        known = ", ".join(sorted(model.model_fields))
        raise InputError(f"model.{place}: {first['msg']}; known here: {known}") from error


def _twin(name: str, keys: Keys) -> str | None:
    for pattern, twin in keys.ties:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, twin, name)
    return None


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "scalar"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(sorted(names)[:_SHOWN]) + more
