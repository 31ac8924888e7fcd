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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from glm_annotate import __version__
from glm_annotate.encoding import EncoderSpec
from glm_annotate.errors import BundleError
from glm_annotate.train.families.family import Network

if TYPE_CHECKING:
    import onnx

INPUT, OUTPUTS = "rows", ("logits", "embedding")
Precision = Literal["fp32", "fp16"]
Values = dict[str, NDArray[np.float32]]

OPSET = 18
# Batch and length of the example: neither is 1, which the exporter would take for a constant.
_EXAMPLE = (2, 41)
# Operators that ONNX Runtime has on the CPU alone, or not in every build for CUDA.
_UNPORTABLE = frozenset({"Gelu", "DFT", "STFT"})
# Deviation allowed between torch and ONNX Runtime, relative to the largest output above 1.
TOLERANCE = 1e-4
# A protobuf message ends at 2 GiB; larger graphs keep their weights in a file beside them.
_INLINE_BYTES = 1_900_000_000
_TORCH_LOGS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


@dataclass(frozen=True, slots=True)
class Parity:
    """ONNX Runtime against torch at one shape.

    Attributes:
        batch: Windows.
        length: Rows of each.
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


class _Exported(nn.Module):
    """What the graph computes: logits (B, T, V) and embedding (B, T, D) of one pass."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.network.embed(rows)
        return self.network.decode(embedding).float(), embedding.float()


def write_graph(network: Network, path: Path, precision: Precision) -> None:
    """Write a network as ONNX with any batch and length; large ones with `PATH.data` beside.

    Args:
        network: In evaluation mode; for fp16 with rounded matrices.
        path: File to write.
        precision: How matrices are stored.

    Raises:
        BundleError: The graph needs an operator that CUDA sessions lack.
    """
    model = _trace(network)
    operators = {node.op_type for graph in _graphs(model.graph) for node in graph.node}
    unportable = sorted(operators & _UNPORTABLE)
    if unportable:
        raise BundleError(f"{path.name}: the graph holds {unportable[0]}, which CUDA cannot run")
    _strip(model)
    if precision == "fp16":
        _store_as_half(model.graph)
    _save(model, path)


def round_matrices(network: Network) -> None:
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


@torch.no_grad()
def run_torch(network: Network, rows: NDArray[np.int64]) -> Values:
    """Compute logits (B, T, V) and embedding (B, T, D) of ids (B, T) with torch."""
    embedding = network.embed(torch.from_numpy(rows))
    logits = network.decode(embedding)
    return {"logits": logits.float().numpy(), "embedding": embedding.float().numpy()}


def run_graph(path: Path, batches: list[NDArray[np.int64]]) -> list[Values]:
    """Compute the outputs of an ONNX file on the CPU, for each batch of ids (B, T)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    outputs = [session.run(list(OUTPUTS), {INPUT: rows}) for rows in batches]
    return [dict(zip(OUTPUTS, found, strict=True)) for found in outputs]


def compare(found: Values, wanted: Values) -> Parity:
    """Measure outputs against those that torch gave for the same rows.

    Raises:
        BundleError: The shapes differ.
    """
    for name in OUTPUTS:
        if found[name].shape != wanted[name].shape:
            raise BundleError(
                f"{name} has the shape {found[name].shape}, torch's has {wanted[name].shape}"
            )
    batch, length = wanted["logits"].shape[:2]
    deviation = {k: float(np.abs(found[k] - wanted[k]).max()) for k in OUTPUTS}
    largest = {k: float(np.abs(wanted[k]).max()) for k in OUTPUTS}
    return Parity(batch, length, deviation, largest)


def random_rows(
    vocabulary: int, spec: EncoderSpec, shape: tuple[int, int], seed: int
) -> NDArray[np.int64]:
    """Draw ids that hold every kind of token, a tenth of them the mask, shape (B, T)."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(vocabulary, size=shape)
    if spec.vocab.mask_id is not None:
        rows[rng.random(shape) < 0.1] = spec.vocab.mask_id
    return rows


def _trace(network: Network) -> onnx.ModelProto:
    import onnx

    rows = torch.arange(_EXAMPLE[0] * _EXAMPLE[1]).reshape(_EXAMPLE) % network.vocabulary
    size = sum(weight.nbytes for weight in network.parameters())
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        path = Path(scratch) / "traced.onnx"
        torch.onnx.export(
            _Exported(network).eval(),
            (rows,),
            path,
            input_names=[INPUT],
            # Not the final names: the exporter gives them to the outputs even where an inner
            # value has the same one (`embedding` is an operator of torch), and such a graph is
            # refused by ONNX Runtime.
            output_names=[f"final.{name}" for name in OUTPUTS],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}},
            external_data=size > _INLINE_BYTES,
            verbose=False,
        )
        model = onnx.load(path)
    names = {name: f"inner.{name}" for name in OUTPUTS}
    _rename(model.graph, names | {f"final.{name}": name for name in OUTPUTS})
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


def _store_as_half(graph: onnx.GraphProto) -> None:
    """Store the matrices that float16 holds exactly as such, and cast them in the graph."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        exact = numpy_helper.to_array(tensor)
        half = exact.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), exact):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = list(graph.node)
    graph.ClearField("node")
    graph.node.extend([*casts, *nodes])


def _save(model: onnx.ModelProto, path: Path) -> None:
    import onnx

    beside: Mapping[str, Any] = {}
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) > _INLINE_BYTES:
        beside = {"save_as_external_data": True, "location": f"{path.name}.data"}
    onnx.save_model(model, path, **beside)
