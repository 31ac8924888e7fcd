"""The small graphs that read a model's outputs where they lie and hand back a few numbers.

`python -m glm_annotate.train.heads` writes `glm_annotate/heads/*.onnx`. They run in a session of
their own after the model's, on the model's device, so that a window returns bytes where its
output has megabytes, and the model's file is never edited. Each exists for every element type that
a model's output may have, and for double, which averages of replicates are; sums are taken in
double.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

FOLDER = Path(__file__).parent.parent / "heads"
_TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "float64": TensorProto.DOUBLE,
}
# What every provider of the supported ONNX Runtime releases reads.
_OPSET, _IR = 17, 8


def rows_head(dtype: str) -> onnx.ModelProto:
    """Pick rows: values (B, T, V), index (M, 2) of (window, row) -> picked (M, V), no half."""
    element = TensorProto.DOUBLE if dtype == "float64" else TensorProto.FLOAT
    nodes = [
        helper.make_node("GatherND", ["values", "index"], ["chosen"]),
        helper.make_node("Cast", ["chosen"], ["picked"], to=element),
    ]
    inputs = [_value("values", dtype, ["B", "T", "V"]), _int64("index", ["M", 2])]
    return _model(nodes, inputs, "picked", element, ["M", "V"])


def pool_head(dtype: str) -> onnx.ModelProto:
    """Pool rows: values (B, T, D), window (M,), weights (M, T) double -> pooled (M, D) double."""
    nodes = [
        helper.make_node("Gather", ["values", "window"], ["chosen"], axis=0),
        helper.make_node("Cast", ["chosen"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("Unsqueeze", ["weights", "one"], ["line"]),
        helper.make_node("MatMul", ["line", "wide"], ["product"]),
        helper.make_node("Squeeze", ["product", "one"], ["pooled"]),
    ]
    inputs = [
        _value("values", dtype, ["B", "T", "D"]),
        _int64("window", ["M"]),
        helper.make_tensor_value_info("weights", TensorProto.DOUBLE, ["M", "T"]),
    ]
    one = helper.make_tensor("one", TensorProto.INT64, [1], [1])
    return _model(nodes, inputs, "pooled", TensorProto.DOUBLE, ["M", "D"], [one])


def token_head(dtype: str) -> onnx.ModelProto:
    """Read log p of one id a row: values (B, T, V), ids (B, T) -> logp (B, T) double."""
    nodes = [
        helper.make_node("Cast", ["values"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("LogSoftmax", ["wide"], ["logs"], axis=-1),
        helper.make_node("Unsqueeze", ["ids", "last"], ["column"]),
        helper.make_node("GatherElements", ["logs", "column"], ["found"], axis=2),
        helper.make_node("Squeeze", ["found", "last"], ["logp"]),
    ]
    inputs = [_value("values", dtype, ["B", "T", "V"]), _int64("ids", ["B", "T"])]
    last = helper.make_tensor("last", TensorProto.INT64, [1], [2])
    return _model(nodes, inputs, "logp", TensorProto.DOUBLE, ["B", "T"], [last])


def mean_head(dtype: str) -> onnx.ModelProto:
    """Average replicates one by one: (total (B, T, X) double + values) / count -> mean double.

    The count is 1 for all but the last one, so that equal replicates have exactly their own mean.
    """
    nodes = [
        helper.make_node("Cast", ["values"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("Add", ["total", "wide"], ["sum"]),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
    ]
    inputs = [
        _value("values", dtype, ["B", "T", "X"]),
        # Of one number at first.
        helper.make_tensor_value_info("total", TensorProto.DOUBLE, ["b", "t", "x"]),
        helper.make_tensor_value_info("count", TensorProto.DOUBLE, []),
    ]
    return _model(nodes, inputs, "mean", TensorProto.DOUBLE, ["B", "T", "X"])


HEADS = {"rows": rows_head, "pool": pool_head, "tokens": token_head, "mean": mean_head}


def build() -> dict[str, bytes]:
    """Build every head, by file name."""
    return {
        f"{name}.{dtype}.onnx": make(dtype).SerializeToString()
        for name, make in HEADS.items()
        for dtype in _TYPES
    }


def _value(name: str, dtype: str, shape: list[str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _TYPES[dtype], shape)


def _int64(name: str, shape: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.INT64, shape)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    output: str,
    element: int,
    shape: list[str],
    constants: list[onnx.TensorProto] | None = None,
) -> onnx.ModelProto:
    result = helper.make_tensor_value_info(output, element, shape)
    graph = helper.make_graph(nodes, "head", inputs, [result], constants or [])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], producer_name="glm_annotate"
    )
    model.ir_version = _IR
    onnx.checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    for file_name, content in build().items():
        (FOLDER / file_name).write_bytes(content)
