"""Is a graph what its card says? Looked at when a session is opened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from glm_annotate.answers import OutputRole
from glm_annotate.bundle import Bundle
from glm_annotate.errors import BundleError

if TYPE_CHECKING:
    import onnxruntime as ort

# ONNX Runtime's names of element types, and the card's.
TYPES = {
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
}


def check_graph(bundle: Bundle, path: Path, session: ort.InferenceSession) -> None:
    """Compare the inputs and outputs of a graph of the bundle, in a file, with the card's."""
    sides = (
        ("input", session.get_inputs(), bundle.card.inputs.values()),
        ("output", session.get_outputs(), bundle.card.outputs.values()),
    )
    for what, present, expected in sides:
        types = {tensor.name: TYPES.get(tensor.type, tensor.type) for tensor in present}
        for tensor in expected:
            if types.get(tensor.name) != tensor.dtype:
                found = ", ".join(f"{name} ({dtype})" for name, dtype in types.items())
                raise BundleError(
                    f"{path}: the card names the {what} {tensor.name!r} ({tensor.dtype}), "
                    f"the graph has {found}; export the bundle again"
                )
    _check_widths(bundle, path, session)
    unknown = {t.name for t in session.get_inputs()} - {t.name for t in bundle.card.inputs.values()}
    if unknown:
        raise BundleError(
            f"{path}: the graph wants the input {min(unknown)!r}, which is not in the card; "
            "export the bundle again"
        )


def _check_widths(bundle: Bundle, path: Path, session: ort.InferenceSession) -> None:
    """Compare the last axis of tensors with the channels, vocabulary and embedding of the card."""
    card, encoder = bundle.card, bundle.encoder
    ids = encoder.base_ids(encoder.spec.k, 0)
    needed: dict[OutputRole, int] = {
        "logits": 0 if ids is None else int(ids.max()) + 1,
        "embedding": card.embedding.dim if card.embedding else 0,
    }
    present = {tensor.name: tensor.shape for tensor in session.get_outputs()}
    for role, least in needed.items():
        tensor = card.outputs.get(role)
        width = present[tensor.name][-1] if tensor else None
        if isinstance(width, int) and width < least:
            raise BundleError(
                f"{path}: the card needs {least} values a row of the output {role}, "
                f"the graph has {width}; export the bundle again"
            )
    channels = card.inputs.get("channels")
    width = {x.name: x.shape for x in session.get_inputs()}[channels.name][-1] if channels else None
    if isinstance(width, int) and width != len(encoder.spec.channels):
        raise BundleError(
            f"{path}: the card needs {len(encoder.spec.channels)} values a row of the input "
            f"channels, the graph has {width}; export the bundle again"
        )
