"""Weights out of a frozen TensorFlow graph (.pb), without TensorFlow or protobuf.

A frozen graph is a GraphDef whose variables have become nodes of kind `Const`. Only what leads to
their values is read: the messages and field numbers below, everything else is skipped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from glm_annotate.errors import InputError

# Field numbers of TensorFlow's graph.proto, node_def.proto, attr_value.proto, tensor.proto and
# tensor_shape.proto.
_NODE = 1  # of a graph
_NAME, _OP, _ATTRIBUTE = 1, 2, 5  # of a node
_KEY, _VALUE = 1, 2  # of an attribute, which is a pair
_TENSOR = 8  # of a value
_DTYPE, _SHAPE, _CONTENT, _FLOATS = 1, 2, 4, 5  # of a tensor
_DIM, _SIZE = 2, 1  # of a shape, and of one of its dimensions
_FLOAT = 1  # the dtype float32
_MOST_DIMS = 8


def read_frozen_graph(path: Path) -> dict[str, Tensor]:
    """Read a file, see `frozen_weights`.

    Raises:
        InputError: It cannot be read, or is no frozen graph.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return frozen_weights(data, str(path))


def frozen_weights(data: bytes, name: str) -> dict[str, Tensor]:
    """Give the float32 constants of a frozen graph by the names of their nodes.

    Args:
        data: The file's contents.
        name: How messages call it.

    Raises:
        InputError: It is damaged, or holds no such constant.
    """
    weights: dict[str, Tensor] = {}
    try:
        for number, node in _fields(memoryview(data)):
            if number == _NODE:
                weights |= _constant(_message(node))
    except (IndexError, ValueError, TypeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{name}: not a frozen TensorFlow graph ({error}); fetch the file again"
        ) from error
    if not weights:
        raise InputError(
            f"{name}: holds no constants of float32, so it is not a frozen graph; wanted a .pb "
            "whose variables were turned into constants"
        )
    return weights


def _constant(node: memoryview) -> dict[str, Tensor]:
    """Give the value of a node by its name; nothing where it is no constant of float32."""
    name = kind = ""
    value: memoryview | None = None
    for number, part in _fields(node):
        if number == _NAME:
            name = _text(part)
        elif number == _OP:
            kind = _text(part)
        elif number == _ATTRIBUTE:
            pair = dict(_fields(_message(part)))
            if _text(pair.get(_KEY, b"")) == "value":
                value = _message(pair[_VALUE])
    if kind != "Const" or value is None:
        return {}
    tensor = dict(_fields(value)).get(_TENSOR)
    found = None if tensor is None else _tensor(_message(tensor))
    return {} if found is None else {name: found}


def _tensor(message: memoryview) -> Tensor | None:
    dtype, raw, values = 0, b"", b""
    shape: tuple[int, ...] = ()
    for number, part in _fields(message):
        if number == _DTYPE and isinstance(part, int):
            dtype = part
        elif number == _SHAPE:
            shape = _shape(_message(part))
        elif number == _CONTENT:
            raw = bytes(_message(part))
        elif number == _FLOATS:
            values += bytes(_message(part))  # packed, or one at a time
    if dtype != _FLOAT:
        return None
    count = math.prod(shape)
    array = np.frombuffer(raw or values, dtype="<f4")
    if not raw and len(array) == 1 and count <= len(message) ** 2:
        array = np.repeat(array, count)  # a tensor of one number throughout is stored as that
    if len(array) != count:
        raise ValueError(f"a tensor of {count} numbers has {len(array)}")
    return torch.from_numpy(array.reshape(shape).astype(np.float32))


def _shape(message: memoryview) -> tuple[int, ...]:
    sizes: list[int] = []
    for number, part in _fields(message):
        if number == _DIM:
            size = dict(_fields(_message(part))).get(_SIZE, 0)
            if not isinstance(size, int) or size > 1 << 31 or len(sizes) == _MOST_DIMS:
                raise ValueError("a shape that no weight has")
            sizes.append(size)
    return tuple(sizes)


def _message(part: int | memoryview) -> memoryview:
    if isinstance(part, int):
        raise ValueError("a number where a message should be")
    return part


def _text(part: int | memoryview | bytes) -> str:
    return bytes(part).decode() if not isinstance(part, int) else ""


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of each field of a protobuf message; fixed-size ones as bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > len(data):
            raise ValueError("a field runs past the end")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("a number that is too long")
