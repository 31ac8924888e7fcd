"""Official weights into a network of ours, with every key accounted for.

A key that is neither used nor known is an error, and so is a weight that nothing filled: what is
left over or left out without a word is how a wrong model gives plausible scores.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from glm_annotate.errors import InputError
from glm_annotate.train.families.family import Source

_Model = TypeVar("_Model", bound=BaseModel)
_SHOWN = 4
# Nothing that is counted is more.
_MOST = 10_000_000
# A size that a config may name whatever the weights are: `fill` says what is wrong with it.
_AFFORDABLE = 10_000
_ONE_CHECKPOINT = "fetch config and weights of one checkpoint"


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
    kinds: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


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
        InputError: A key is unknown; a weight is missing, has another shape, is stored as another
            kind of number (8 bits with scales elsewhere, say) or holds NaN or infinity.
    """
    wanted = network.state_dict()
    tally = _count(source, keys, wanted)
    _refuse_faults(source, tally)
    for name, value in tally.found.items():
        wanted[name].copy_(value)
    broken = [name for name, value in wanted.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise InputError(
            f"{source.name}: NaN or infinity in: {_some(broken)}; fetch the checkpoint again"
        )
    network.eval()


def _count(source: Source, keys: Keys, wanted: Mapping[str, Tensor]) -> _Tally:
    """Find each weight of a network, by its own name or as the copy of its twin."""
    tally = _Tally()
    for name, value in rename(source.weights, keys).items():
        if name not in wanted:
            tally.unknown.append(name)
        elif value.shape != wanted[name].shape:
            tally.shapes.append(f"{name} {_shape(value)}, wanted {_shape(wanted[name])}")
        elif value.is_floating_point() != wanted[name].is_floating_point():
            tally.kinds.append(f"{name} {_kind(value)}, wanted {_kind(wanted[name])}")
        else:
            tally.found[name] = value
    named = {text.split(" ", 1)[0] for text in (*tally.shapes, *tally.kinds)}
    for name in wanted.keys() - tally.found.keys() - named:
        twin = _twin(name, keys)
        if twin in tally.found:
            tally.found[name] = tally.found[twin]
        else:
            tally.missing.append(name)
    return tally


def _refuse_faults(source: Source, tally: _Tally) -> None:
    remedy = "name the right system with --family, or fetch the checkpoint again"
    if tally.unknown:
        found = _some(tally.unknown)
        raise InputError(f"{source.name}: keys that this system does not have: {found}; {remedy}")
    if tally.shapes:
        found = _some(tally.shapes)
        raise InputError(f"{source.name}: shapes that do not fit the config: {found}; {remedy}")
    if tally.kinds:
        raise InputError(
            f"{source.name}: weights that are no plain numbers: {_some(tally.kinds)}; give the "
            "checkpoint as its authors published it, not a quantised copy"
        )
    if tally.missing:
        raise InputError(f"{source.name}: no weights for: {_some(tally.missing)}; {remedy}")


def parse_config(
    model: type[_Model],
    source: Source,
    values: Mapping[str, object],
    names: Mapping[str, str] | None = None,
) -> _Model:
    """Read a config that an official file gives.

    Args:
        model: What it has to be.
        source: The checkpoint.
        values: Under our names.
        names: The official names of ours, for messages.

    Raises:
        InputError: A value is missing, not allowed, or a size that nothing in the weights has: the
            network is made before its weights are compared, and must not fill the memory.
    """
    called = dict(names or {})
    try:
        parsed = model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(called.get(str(part), str(part)) for part in first["loc"])
        found = f", found {first['input']!r}" if place and first["type"] != "missing" else ""
        raise InputError(
            f"{source.name}: config: {place or 'model'}: {first['msg']}{found}; {_ONE_CHECKPOINT}"
        ) from error
    _check_sizes(source, parsed, values, called)
    return parsed


def _check_sizes(
    source: Source, parsed: BaseModel, values: Mapping[str, object], called: Mapping[str, str]
) -> None:
    """Refuse numbers that are none, and sizes beyond all that the weights have."""
    longest = (max(weight.shape, default=0) for weight in source.weights.values())
    largest = max(len(source.weights), _AFFORDABLE, *longest)
    for name in parsed.model_fields_set:
        value, key = getattr(parsed, name), called.get(name, name)
        if isinstance(values[name], bool) and not isinstance(value, bool):
            raise InputError(
                f"{source.name}: config: {key} is {values[name]}, wanted a number; "
                f"{_ONE_CHECKPOINT}"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{source.name}: config: {key} is {value}; {_ONE_CHECKPOINT}")
        size = len(value) if isinstance(value, tuple) else value
        if isinstance(size, int) and size > largest:
            raise InputError(
                f"{source.name}: config: {key} is {size}, wanted at most {largest} by the weights; "
                f"{_ONE_CHECKPOINT}"
            )


def whole(source: Source, key: str, default: int = 0) -> int:
    """Read a positive whole number of an official config.

    Args:
        source: The checkpoint.
        key: Of the config.
        default: Where there is no such key; 0: there has to be.

    Raises:
        InputError: It is something else.
    """
    return check_whole(source, key, source.config.get(key, default))


def check_whole(source: Source, key: str, value: object) -> int:
    """Check that a value of an official config is a positive whole number.

    Raises:
        InputError: It is something else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST:
        raise InputError(
            f"{source.name}: config: {key} is {value!r}, wanted a number from 1 on; "
            f"{_ONE_CHECKPOINT}"
        )
    return value


def check_vocabulary(source: Source, wanted: Sequence[str], optional: Sequence[str] = ()) -> None:
    """Compare vocab.txt, where there is one beside the weights, with the ids of an encoder.

    Args:
        source: The checkpoint.
        wanted: Tokens in the order of their ids.
        optional: Tokens that may stand behind them, all or none.

    Raises:
        InputError: It gives other ids.
    """
    path = source.file("vocab.txt")
    if path is None:
        return
    found = path.read_text(encoding="utf-8", errors="replace").split()
    if found[len(wanted) :] == list(optional):
        wanted = [*wanted, *optional]
    pairs = itertools.zip_longest(found, wanted, fillvalue="nothing")
    for line, (here, token) in enumerate(pairs, start=1):
        if here != token:
            raise InputError(
                f"{path}: line {line}: found {here}, wanted {token}; fetch the {path.name} of the "
                "same checkpoint"
            )


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


def _kind(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(sorted(names)[:_SHOWN]) + more
