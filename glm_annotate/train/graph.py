"""A network in, an ONNX file out, and how far ONNX Runtime is from torch on it.

Decisions: opset 18 keeps Gelu a formula, because not every CUDA build has that operator. What the
exporter remembers about the machine (stack traces, its version) is stripped, so that the same
weights give the same bytes. fp16 is a way to store matrices, not to compute with them: a Cast to
float32 stands between each and its use.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from glm_annotate import __version__
from glm_annotate.errors import BundleError
from glm_annotate.train.exported import ATTENTION as ATTENTION
from glm_annotate.train.exported import CHANNELS as CHANNELS
from glm_annotate.train.exported import INPUT as INPUT
from glm_annotate.train.exported import OUTPUTS as OUTPUTS
from glm_annotate.train.exported import Batch as Batch
from glm_annotate.train.exported import Exportable as Exportable
from glm_annotate.train.exported import Values as Values
from glm_annotate.train.exported import example_of, exported, outputs_of
from glm_annotate.train.exported import feeds_of as feeds_of
from glm_annotate.train.exported import first_rows as first_rows
from glm_annotate.train.exported import parts_of as parts_of
from glm_annotate.train.exported import random_batch as random_batch
from glm_annotate.train.exported import run_torch as run_torch

if TYPE_CHECKING:
    import onnx

Precision = Literal["fp32", "fp16", "int8"]

OPSET = 18
# Operators that ONNX Runtime has on the CPU alone, or not in every build for CUDA.
_UNPORTABLE = frozenset({"Gelu", "DFT", "STFT"})
# Deviation allowed between torch and ONNX Runtime, relative to the largest output above 1.
TOLERANCE = 1e-4
# A protobuf message ends at 2 GiB; larger graphs keep their weights in a file beside them.
_INLINE_BYTES = 1_900_000_000
# Of weights in that file, so that it can be mapped into memory.
_ALIGNMENT = 4096
_TORCH_LOGS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


@dataclass(frozen=True, slots=True)
class Parity:
    """ONNX Runtime against torch at one shape.

    Attributes:
        batch: Windows.
        length: Rows of each, or bins of a predictor.
        deviation: Largest absolute difference, by output.
        largest: Largest absolute value that torch gave, by output.
    """

    batch: int
    length: int
    deviation: dict[str, float]
    largest: dict[str, float]

    @property
    def worst(self) -> float:
        """Largest deviation of an output, as a part of max(1, its largest value)."""
        return max(x / max(1.0, self.largest[name]) for name, x in self.deviation.items())

    def check(self, path: Path) -> None:
        """Refuse a graph that does not compute what torch computes.

        Raises:
            BundleError: An output is off by more than `TOLERANCE`.
        """
        for name, found in self.deviation.items():
            allowed = TOLERANCE * max(1.0, self.largest[name])
            if not found <= allowed:  # written so that NaN fails
                raise BundleError(
                    f"{path.name}: {name} of {self.batch} x {self.length} rows differs from torch "
                    f"by {found:.2g}, allowed are {allowed:.2g}; export with another version of "
                    "torch"
                )


def write_graph(
    network: Exportable, path: Path, precision: Precision, *, attention: bool = False
) -> None:
    """Write a network as ONNX with any batch and length; large ones with `PATH.data` beside.

    Args:
        network: In evaluation mode; for fp16 with rounded matrices.
        path: File to write.
        precision: How matrices are stored; int8 writes fp32, which `quantise` then turns.
        attention: Give the attention maps as a third output.

    Raises:
        BundleError: The graph needs an operator that CUDA sessions lack.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        traced = Path(scratch) / "traced.onnx"
        model = _trace(network, traced, attention=attention)
        operators = {node.op_type for graph in _graphs(model.graph) for node in graph.node}
        unportable = sorted(operators & _UNPORTABLE)
        if unportable:
            raise BundleError(f"{path.name}: the graph holds {unportable[0]}, which CUDA lacks")
        _strip(model)
        _save(model, path, traced.parent, half=precision == "fp16")


def round_matrices(network: Exportable) -> None:
    """Round every weight of two or more dimensions to what float16 can hold, in place.

    Raises:
        BundleError: A weight is beyond float16.
    """
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim < 2:
                continue
            rounded = weight.half().float()
            if not bool(torch.isfinite(rounded).all()):
                raise BundleError(
                    f"{name}: holds {float(weight.abs().max()):.3g}, beyond float16's 65504; "
                    "export with --precision fp32"
                )
            weight.copy_(rounded)


def run_graph(path: Path, batches: Sequence[Batch], *, attention: bool = False) -> list[Values]:
    """Compute the outputs of an ONNX file on the CPU, for each batch; maps where asked for."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_outputs() if attention or x.name != ATTENTION]
    outputs = [session.run(names, feeds_of(batch)) for batch in batches]
    return [dict(zip(names, found, strict=True)) for found in outputs]


def compare(found: Values, wanted: Values) -> Parity:
    """Measure outputs against those that torch gave for the same rows.

    Raises:
        BundleError: The shapes differ.
    """
    for name in wanted:
        if found[name].shape != wanted[name].shape:
            raise BundleError(
                f"{name} has the shape {found[name].shape}, torch's has {wanted[name].shape}"
            )
    windows, length = next(iter(wanted.values())).shape[:2]
    deviation = {k: float(np.abs(found[k] - wanted[k]).max()) for k in wanted}
    largest = {k: float(np.abs(wanted[k]).max()) for k in wanted}
    return Parity(windows, length, deviation, largest)


def _trace(network: Exportable, path: Path, *, attention: bool) -> onnx.ModelProto:
    """Write a graph as torch makes it, and read it without the weights beside it, if any."""
    import onnx

    inputs, dynamic = example_of(network)
    size = sum(weight.nbytes for weight in (*network.parameters(), *network.buffers()))
    names = outputs_of(network, attention=attention)
    with _quiet():
        torch.onnx.export(
            exported(network, attention=attention).eval(),
            tuple(inputs.values()),
            path,
            input_names=list(inputs),
            # Not the final names: the exporter gives them to the outputs even where an inner
            # value has the same one (`embedding` is an operator of torch), and such a graph is
            # refused by ONNX Runtime.
            output_names=[f"final.{name}" for name in names],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=dynamic,
            external_data=size > _INLINE_BYTES,
            verbose=False,
        )
    model = onnx.load(path, load_external_data=False)
    inner = {name: f"inner.{name}" for name in names}
    _rename(model.graph, inner | {f"final.{name}": name for name in names})
    return model


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            # Reading a field that is not set is harmless, writing to it would set it.
            inner = [attribute.g] if attribute.HasField("g") else []
            for part in (*inner, *attribute.graphs):
                yield from _graphs(part)


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename values of a graph and of those inside it, all at once."""
    for part in _graphs(graph):
        for node in part.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
        for value in (*part.initializer, *part.output):
            value.name = names.get(value.name, value.name)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress, log lines and warnings off the terminal."""
    loggers = [logging.getLogger(name) for name in _TORCH_LOGS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _strip(model: onnx.ModelProto) -> None:
    """Remove what depends on the machine and not on the network."""
    model.producer_name, model.producer_version = "glm_annotate", __version__
    parts: list[Any] = [model]
    for graph in _graphs(model.graph):
        graph.ClearField("value_info")
        parts += [graph, *graph.node, *graph.initializer, *graph.input, *graph.output]
    for part in parts:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _save(model: onnx.ModelProto, path: Path, folder: Path, *, half: bool) -> None:
    """Write a graph; where its weights lie in `folder`, one at a time to `PATH.data`."""
    import onnx
    from onnx.external_data_helper import load_external_data_for_tensor, set_external_data

    beside = [x for x in model.graph.initializer if x.data_location == onnx.TensorProto.EXTERNAL]
    if not beside:
        if half:
            _store_as_half(model.graph, model.graph.initializer)
        onnx.save_model(model, path)
        return
    casts: list[onnx.NodeProto] = []
    with open(f"{path}.data", "wb") as out:
        for tensor in beside:
            load_external_data_for_tensor(tensor, str(folder))
            tensor.data_location = onnx.TensorProto.DEFAULT
            if half:
                casts += _halve(tensor)
            out.write(b"\0" * (-out.tell() % _ALIGNMENT))
            place = out.tell()
            length = out.write(tensor.raw_data)
            set_external_data(tensor, Path(f"{path}.data").name, place, length)
            tensor.ClearField("raw_data")
    _put_first(model.graph, casts)
    onnx.save_model(model, path)


def _store_as_half(graph: onnx.GraphProto, tensors: Iterable[onnx.TensorProto]) -> None:
    """Store the matrices that float16 holds exactly as such, and cast them in the graph."""
    _put_first(graph, [node for tensor in tensors for node in _halve(tensor)])


def _halve(tensor: onnx.TensorProto) -> list[onnx.NodeProto]:
    """Turn a matrix into float16 if that loses nothing; gives the node that casts it back."""
    from onnx import TensorProto, helper, numpy_helper

    if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
        return []
    exact = numpy_helper.to_array(tensor)
    # A product beyond float16 is inf, which is not equal to what it was made from.
    with np.errstate(over="ignore"):
        half = exact.astype(np.float16)
    if not np.array_equal(half.astype(np.float32), exact):
        return []
    name = tensor.name
    tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
    return [helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT)]


def _put_first(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    rest = list(graph.node)
    graph.ClearField("node")
    graph.node.extend([*nodes, *rest])
