"""For those who write a model, an encoder or a test: toy bundles and checks of the real ones.

`toy_bundle` writes a bundle whose answers can be worked out by hand. The `check_` functions return
when all is well and else raise the first fault they find, in one line.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from glm_annotate.bundle import SELFTEST, Bundle, load_bundle
from glm_annotate.card import GraphTensor
from glm_annotate.channels import check_channels
from glm_annotate.encoding import Encoded, Encoder, Rows
from glm_annotate.errors import BundleError, UsageError
from glm_annotate.genome import Codes, to_text
from glm_annotate.score_checks import check_row

if TYPE_CHECKING:
    from glm_annotate.scores import Score

_ONNX_TYPES = {"float32": "float", "float16": "float16"}


@dataclass(frozen=True, slots=True)
class BundleReport:
    """What `check_bundle` measured.

    Attributes:
        path: The bundle's folder.
        cases: Sequences in the self-test.
        differences: Largest difference from the self-test by output, as a part of
            max(1, largest value).
        tolerance: The card's `atol`, which the differences stay within.
    """

    path: Path
    cases: int
    differences: dict[str, float]
    tolerance: float


def toy_bundle(kind: str, folder: Path, **options: Any) -> Path:
    """Write a toy bundle into a folder and return the folder.

    Args:
        kind: markov, wide, causal, prefix, overlap, blocks, bpe, onehot, uniform or free; what
            they compute is written in `glm_annotate.train.toy_graphs`.
        folder: Made if need be.
        **options: seed, bos, n, dtype, dim, pool, k, halves, max_tokens, multiple_of, channels,
            replicates, and any key of the card (context, anchor, strand, circular, tag, scores,
            scope, ...).

    Raises:
        UsageError: An unknown kind or option, or no `onnx` package.
        BundleError: The options do not make a valid card.
    """
    if importlib.util.find_spec("onnx") is None:
        raise UsageError(
            "toy bundles need the onnx package; run: pip install 'glm_annotate[train]'"
        )
    from glm_annotate.train.toys import build

    return build(kind, folder, **options)


def check_encoder(encoder: Encoder, *, length: int = 61, seed: int = 0) -> None:
    """Check that an encoder keeps the promises that every score relies on.

    Each sequence is in one group; spans are in order and cover every base, special tokens have
    (-1, -1); a batch gives what its members give alone; a changed base changes only rows that
    touch it (not where tokens differ in length); `base_ids` agrees with the rows.

    Args:
        encoder: What to check.
        length: Bases of the sequences tried; the encoder's `tail: drop` may lose the last few.
        seed: Of the sequences.

    Raises:
        BundleError: The first promise that is not kept, with the sequence that shows it.
    """
    codes = np.random.default_rng(seed).integers(0, 4, size=(8, length)).astype(np.uint8)
    if encoder.spec.vocab.n != "error":
        codes[5:7, length // 3] = 4
        codes[6, length // 2 : length // 2 + 2] = 4
    groups = encoder.encode(codes)
    members = np.sort(np.concatenate([group.index for group in groups]))
    _promise(bool(np.array_equal(members, np.arange(8))), encoder, "groups are not a partition")
    for group in groups:
        for at, i in enumerate(group.index.tolist()):
            rows, spans = _member(group, at)
            _check_spans(encoder, rows, spans, codes[i])
            _check_alone(encoder, rows, spans, codes[i])
            _check_ids(encoder, rows, spans, codes[i])
            _check_change(encoder, rows, spans, codes[i])


def check_score(score: Score, *, seed: int = 0) -> None:
    """Check that a row of the table of scores keeps the promises that scoring relies on.

    It reads evidence that there is of the objectives it names, with the output and the options that
    belong to it; `reduce` gives one number an allele, which no other allele changes; and swapping
    REF and ALT does what `kind` says, as far as the evidence can be swapped.

    Args:
        score: What to check.
        seed: Of the evidence tried.

    Raises:
        BundleError: The first promise that is not kept.
    """
    check_row(score, seed)


def check_bundle(path: str | Path) -> BundleReport:
    """Load a bundle, compare its graphs with the card and run its self-test on the CPU.

    Of replicates it is the average that the self-test is about. Also checked: the encoder, that a
    batch gives what its members give alone, and that rows of a causal model do not see what comes
    after them.

    Raises:
        BundleError: The first fault found.
    """
    bundle = load_bundle(path)
    check_encoder(bundle.encoder)
    check_channels(bundle)
    inputs, expected = _self_test(bundle)
    sessions = {path: _session(path) for path in bundle.graphs}
    for path, session in sessions.items():
        _check_graph(bundle, path, session)
    found = _run(bundle, sessions, inputs)
    differences = {
        name: _compare(bundle, name, found[name], values, "the self-test")
        for name, values in expected.items()
    }
    cases = next(iter(inputs.values())).shape[0]
    for i in range(cases):
        alone = _run(bundle, sessions, {k: v[i : i + 1] for k, v in inputs.items()})
        for name, values in alone.items():
            _compare(bundle, name, values, found[name][i : i + 1], "the same case in a batch")
    if bundle.card.objective == "causal":
        _check_causal(bundle, sessions, inputs, found)
    return BundleReport(bundle.path, cases, differences, bundle.card.atol)


def _promise(kept: bool, encoder: Encoder, fault: str, codes: Codes | None = None) -> None:
    if not kept:
        where = "" if codes is None else f" (sequence {to_text(codes)})"
        raise BundleError(f"encoder {encoder.spec.kind}: {fault}{where}")


def _member(group: Encoded, at: int) -> tuple[Rows, NDArray[np.int32]]:
    return group.rows[at], group.spans_of(np.array([at]))[0]


def _check_spans(encoder: Encoder, rows: Rows, spans: NDArray[np.int32], codes: Codes) -> None:
    vocab, k, stride = encoder.spec.vocab, encoder.spec.k, encoder.spec.stride
    _promise(spans.shape == (len(rows), 2), encoder, "not one span a row", codes)
    special = (spans == -1).all(axis=1)
    left, right = len(vocab.prefix), len(vocab.suffix)
    inner = slice(left, len(rows) - right)
    outer = np.delete(special, np.arange(*inner.indices(len(rows))))
    good = outer.all() and not special[inner].any()
    _promise(bool(good), encoder, "special tokens are not those of prefix and suffix", codes)
    starts, ends = spans[inner, 0], spans[inner, 1]
    lost = codes.size - int(ends[-1])
    # A last step that does not fit is lost where k-mers overlap or the card drops the tail.
    most = stride - 1 if stride < k or vocab.tail == "drop" else 0
    inside = starts[0] == 0 and 0 <= lost <= most
    _promise(bool(inside), encoder, "spans do not reach from the first base to the last", codes)
    steps = starts[1:] - (ends[:-1] if stride == k else starts[:-1] + stride)
    _promise(not steps.any(), encoder, "spans do not follow each other", codes)


def _check_alone(encoder: Encoder, rows: Rows, spans: NDArray[np.int32], codes: Codes) -> None:
    groups = encoder.encode(codes[None])
    own_rows, own_spans = _member(groups[0], 0)
    same = np.array_equal(own_rows, rows) and np.array_equal(own_spans, spans)
    _promise(len(groups) == 1 and same, encoder, "a batch changes its members", codes)


def _check_ids(encoder: Encoder, rows: Rows, spans: NDArray[np.int32], codes: Codes) -> None:
    for row, (start, end) in zip(rows, spans.tolist(), strict=True):
        if start < 0 or (codes[start:end] >= 4).any():
            continue
        value = int(row.argmax()) if row.ndim else int(row)
        for at in range(start, end):
            ids = encoder.base_ids(end - start, at - start)
            if ids is not None:
                homes = [base for base in range(4) if value in ids[base]]
                _promise(homes == [int(codes[at])], encoder, "base_ids belie the rows", codes)


def _check_change(encoder: Encoder, rows: Rows, spans: NDArray[np.int32], codes: Codes) -> None:
    at = codes.size // 4
    spec = encoder.spec
    # Kinds of other packages say so by giving no ids of bases.
    if spec.kind == "bpe" or (spec.is_plugin and encoder.base_ids(spec.k, 0) is None):
        return
    changed = codes.copy()
    changed[at] = (codes[at] + 1) % 4
    other, other_spans = _member(encoder.encode(changed[None])[0], 0)
    _promise(np.array_equal(other_spans, spans), encoder, "a substitution moves rows", codes)
    differs = (other != rows).reshape(len(rows), -1).any(axis=1)
    touched = (spans[:, 0] <= at) & (at < spans[:, 1])
    # A row that also holds an N is unknown whatever the base is.
    unknown = np.array([bool((codes[max(a, 0) : max(b, 0)] > 3).any()) for a, b in spans])
    kept = not (differs & ~touched).any() and bool(differs[touched & ~unknown].all())
    _promise(kept, encoder, "a base changes other rows", codes)


def _self_test(bundle: Bundle) -> tuple[dict[str, Any], dict[str, Any]]:
    path, card = bundle.path / SELFTEST, bundle.card
    if SELFTEST not in card.sha256:
        raise BundleError(f"{bundle.path}: the bundle holds no {SELFTEST}; export it again")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: not a self-test: {error}; export the bundle again") from error
    wanted = {*(f"input_{x}" for x in card.inputs), *(f"output_{x}" for x in card.outputs)}
    if set(arrays) != wanted:
        raise BundleError(f"{path}: holds {sorted(arrays)}, the card asks for {sorted(wanted)}")
    inputs = {x: arrays[f"input_{x}"].astype(card.inputs[x].dtype) for x in card.inputs}
    return inputs, {str(x): arrays[f"output_{x}"] for x in card.outputs}


def _session(path: Path) -> Any:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as ort

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    faults = (ort.Fail, ort.InvalidGraph, ort.InvalidProtobuf, ort.NotImplemented)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except faults as error:
        first = str(error).splitlines()[0]
        raise BundleError(f"{path}: ONNX Runtime cannot load it: {first}") from error


def _check_graph(bundle: Bundle, path: Path, session: Any) -> None:
    outputs = {str(name): tensor for name, tensor in bundle.card.outputs.items()}
    sides: list[tuple[str, Mapping[str, GraphTensor], Any]] = [
        ("input", bundle.card.inputs, session.get_inputs()),
        ("output", outputs, session.get_outputs()),
    ]
    for side, declared, found in sides:
        tensors = {tensor.name: tensor for tensor in found}
        for tensor in declared.values():
            if tensor.name not in tensors:
                raise BundleError(
                    f"{path}: no {side} {tensor.name!r} (it has {', '.join(tensors)})"
                )
            real = tensors[tensor.name]
            kind = f"tensor({_ONNX_TYPES.get(tensor.dtype, tensor.dtype)})"
            if real.type != kind or len(real.shape) != len(tensor.axes):
                raise BundleError(
                    f"{path}: {side} {tensor.name!r} is {real.type} with "
                    f"{len(real.shape)} axes, the card says {kind} with {len(tensor.axes)}"
                )
        if side == "input" and len(found) != len(declared):
            raise BundleError(f"{path}: the card leaves out one of {', '.join(tensors)}")


def _run(bundle: Bundle, sessions: Mapping[Path, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Run every graph; of several give the averages."""
    (first, *others) = (_run_one(bundle, path, sessions[path], inputs) for path in sessions)
    if not others:
        return first
    for path, found in zip(bundle.graphs[1:], others, strict=True):
        for name, values in found.items():
            if values.shape != first[name].shape:
                raise BundleError(
                    f"{path}: {name} has shape {values.shape}, that of other replicates has "
                    f"{first[name].shape}"
                )
    every = [first, *others]
    return {name: np.mean([x[name] for x in every], axis=0, dtype=np.float64) for name in first}


def _run_one(bundle: Bundle, path: Path, session: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    from onnxruntime.capi import onnxruntime_pybind11_state as ort

    card = bundle.card
    feeds = {card.inputs[role].name: values for role, values in inputs.items()}
    names = [tensor.name for tensor in card.outputs.values()]
    try:
        arrays = session.run(names, feeds)
    except (ort.Fail, ort.InvalidArgument, ort.RuntimeException) as error:
        first = str(error).splitlines()[0]
        shapes = ", ".join(f"{name} {values.shape}" for name, values in feeds.items())
        raise BundleError(f"{path}: does not run on {shapes}: {first}") from error
    return {str(name): array for name, array in zip(card.outputs, arrays, strict=True)}


def _compare(bundle: Bundle, name: str, found: Any, expected: Any, what: str) -> float:
    if found.shape != expected.shape:
        raise BundleError(
            f"{bundle.path}: {name} has shape {found.shape}, {what} has {expected.shape}"
        )
    wide = expected.astype(np.float64)
    largest = float(np.abs(found - wide).max(initial=0.0) / max(1.0, np.abs(wide).max(initial=0.0)))
    if not largest <= bundle.card.atol:  # written so that NaN fails
        raise BundleError(
            f"{bundle.path}: {name} differs from {what} by {largest:.3g}, "
            f"the card's atol allows {bundle.card.atol:g}"
        )
    return largest


def _check_causal(
    bundle: Bundle,
    sessions: Mapping[Path, Any],
    inputs: Mapping[str, Any],
    found: Mapping[str, Any],
) -> None:
    rows = inputs["rows"].copy()
    # Another row of the right kind: ids of the first row, or the next channel.
    rows[:, -1] = np.roll(rows[:, -1], 1, axis=-1) if rows.ndim > 2 else rows[:, 0]
    again = _run(bundle, sessions, {**inputs, "rows": rows})
    for name, values in again.items():
        # Of attention maps (batch, layer, head, query, key) it is the rows that ask.
        along = 3 if name == "attention" else 1
        past, before = (x.take(range(x.shape[along] - 1), along) for x in (values, found[name]))
        _compare(bundle, name, past, before, "itself where only the last row was changed")
