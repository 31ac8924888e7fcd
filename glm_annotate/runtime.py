"""ONNX Runtime sessions: devices, batch size, I/O binding, and what is read of a model's outputs.

Decisions: outputs stay on the device, and the graphs in `heads/` reduce them there. The session is
asked which provider it got, since ONNX Runtime falls back to the CPU without an error and its own
lists name devices that are not there. On the CPU the batch follows from the number of rows alone,
so that two runs agree to the last digit; on CUDA it is found by trial and remembered. A batch that
does not fit is halved by the plan (`PassFailed`). A pass of a bundle with replicates runs all of
them, one after the other; their outputs are added up in double where they lie, so that memory is
that of two of them, and all that reads outputs reads the average.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from glm_annotate.answers import ROLES, Floats, Ints, OutputRole
from glm_annotate.bundle import Bundle
from glm_annotate.channels import Values, pad_channels
from glm_annotate.devices import CUDA, open_session
from glm_annotate.devices import Device as Device
from glm_annotate.devices import Settings as Settings
from glm_annotate.devices import parse_device as parse_device
from glm_annotate.encoding import Rows
from glm_annotate.errors import BundleError, InputError
from glm_annotate.graphs import TYPES, check_graph
from glm_annotate.plan import PassFailed, Stopped

if TYPE_CHECKING:
    import onnxruntime as ort

logger = logging.getLogger(__name__)

_HEADS = Path(__file__).parent / "heads"
# Rows and passes a batch on the CPU: more does not pay, fewer leave threads idle.
_CPU_ROWS, _CPU_PASSES = 8192, 16
_CUDA_ROWS = 1 << 22


def stop_runners(runners: Iterable[OrtRunner]) -> None:
    """End the work of sessions before their next batches."""
    for runner in runners:
        runner.stopped = True


def open_runners(bundle: Bundle, settings: Settings) -> list[OrtRunner]:
    """Open one session a device.

    Raises:
        BundleError: ONNX Runtime cannot load the graph, or it is not what the card says.
        InputError: A device that the user named is not there.
    """
    return [OrtRunner(bundle, device, settings) for device in settings.devices]


class OrtRunner:
    """A model on a device.

    Attributes:
        device: Where it really runs.
        passes: Forward passes made so far.
        stopped: Set by another thread to end the work before the next batch.
    """

    def __init__(self, bundle: Bundle, device: Device, settings: Settings) -> None:
        self.bundle, self.settings = bundle, settings
        self.passes, self.stopped = 0, False
        self._sessions, self.device = _open(bundle, device, settings)
        self._batch: dict[int, int] = {}
        self._seconds: dict[int, float] = {}
        self._heads: dict[tuple[str, str], ort.InferenceSession] = {}

    def batch_size(self, rows: int) -> int:
        """Say how many passes of this many rows go into a batch."""
        if self.settings.batch:
            return min(self.settings.batch, self._batch.get(rows, self.settings.batch))
        if rows not in self._batch:
            on_cpu = self.device.kind == "cpu"
            self._batch[rows] = _on_cpu(rows) if on_cpu else self._try_batches(rows)
        return self._batch[rows]

    def limit(self, rows: int, batch: int) -> None:
        """Remember that larger batches do not fit."""
        self._batch[rows] = batch

    def run(
        self, rows: Rows, outputs: frozenset[OutputRole], channels: Values | None = None
    ) -> BoundOutputs:
        """Run one batch of rows (B, T[, C]), and channels (B, T, C) where the card has some.

        Raises:
            PassFailed: ONNX Runtime gave up, mostly for want of memory.
            Stopped: Somebody set `stopped`.
        """
        card = self.bundle.card
        padded = _pad(rows, card.window.multiple_of, card.encoder.vocab.pad_id)
        inputs = {"rows": padded}
        if "attention_mask" in card.inputs:
            seen = np.zeros(padded.shape[:2], dtype=np.int64)
            seen[:, : rows.shape[1]] = 1
            inputs["attention_mask"] = seen
        if channels is not None:
            inputs["channels"] = pad_channels(channels, padded.shape[1], card.encoder)
        return self._run_inputs(inputs, outputs, rows.shape)

    def run_parts(self, parts: Mapping[str, Rows], outputs: frozenset[OutputRole]) -> BoundOutputs:
        """Run one batch of parts of exons (B, L[, C]), by roles of inputs; raises as `run`."""
        return self._run_inputs(parts, outputs, next(iter(parts.values())).shape)

    def _run_inputs(
        self,
        inputs: Mapping[str, NDArray[Any]],
        outputs: frozenset[OutputRole],
        shape: tuple[int, ...],
    ) -> BoundOutputs:
        roles = sorted(outputs)
        if len(self._sessions) == 1:
            values = self._run_graph(self._sessions[0], inputs, roles)
        else:
            values = self._average(inputs, roles)
        self.passes += shape[0]
        return BoundOutputs(self, dict(zip(roles, values, strict=True)), shape)

    def _run_graph(
        self,
        session: ort.InferenceSession,
        inputs: Mapping[str, NDArray[Any]],
        roles: list[OutputRole],
    ) -> list[Any]:
        """Run one graph; its outputs stay on the device."""
        if self.stopped:
            raise Stopped
        binding = session.io_binding()
        for role, array in inputs.items():
            self._bind(binding, role, array)
        for wanted in roles:
            name = self.bundle.card.outputs[wanted].name
            binding.bind_output(name, self.device.kind, self.device.number)
        _run_bound(session, binding)
        return list(binding.get_outputs())

    def _average(self, inputs: Mapping[str, NDArray[Any]], roles: list[OutputRole]) -> list[Any]:
        """Run every replicate, and average their outputs in double on the device."""
        means: list[Any] = [np.zeros((1, 1, 1))] * len(roles)
        for number, session in enumerate(self._sessions, start=1):
            count = np.array(float(len(self._sessions)) if number == len(self._sessions) else 1.0)
            for i, value in enumerate(self._run_graph(session, inputs, roles)):
                shapes = [list(x.shape()) for x in (value, means[i])] if number > 1 else []
                if shapes and shapes[0] != shapes[1]:
                    raise BundleError(
                        f"{self.bundle.graphs[number - 1]}: the output {roles[i]} has the shape "
                        f"{shapes[0]}, that of other replicates is {shapes[1]}; export the bundle "
                        "again"
                    )
                feeds = {"total": means[i], "count": count}
                means[i] = self.reduce("mean", value, feeds, stays=True)
        return means

    def reduce(self, name: str, value: Any, feeds: dict[str, Any], *, stays: bool = False) -> Any:
        """Run a head on an output.

        Args:
            name: Of the head.
            value: The output, on the device.
            feeds: Its other inputs: arrays, or values on the device.
            stays: Leave the result on the device.
        """
        import onnxruntime as ort

        session = self.head(name, TYPES[value.data_type()])
        binding = session.io_binding()
        binding.bind_ortvalue_input("values", value)
        for key, given in feeds.items():
            if isinstance(given, np.ndarray):
                # Not ascontiguousarray, which gives a number an axis.
                whole = np.asarray(given, order="C")
                given = ort.OrtValue.ortvalue_from_numpy(
                    whole, self.device.kind, self.device.number
                )
            binding.bind_ortvalue_input(key, given)
        place = (self.device.kind, self.device.number) if stays else ("cpu", 0)
        binding.bind_output(session.get_outputs()[0].name, *place)
        _run_bound(session, binding)
        return binding.get_outputs()[0]

    def head(self, name: str, dtype: str) -> ort.InferenceSession:
        """Open a reduction head on the same device, once."""
        key = name, dtype
        if key not in self._heads:
            path = _HEADS / f"{name}.{dtype}.onnx"
            self._heads[key] = open_session(path, self.device, self.settings)
        return self._heads[key]

    def _bind(self, binding: Any, role: str, values: NDArray[Any]) -> None:
        import onnxruntime as ort

        tensor = self.bundle.card.inputs[role]
        array = np.ascontiguousarray(values, dtype=tensor.dtype)
        value = ort.OrtValue.ortvalue_from_numpy(array, self.device.kind, self.device.number)
        binding.bind_ortvalue_input(tensor.name, value)

    def seconds_per_pass(self, rows: int, outputs: frozenset[OutputRole]) -> float:
        """Time one batch, once for each number of rows."""
        if rows not in self._seconds:
            self._seconds[rows] = self._time(self.batch_size(rows), rows, outputs)
        return self._seconds[rows]

    def _try_batches(self, rows: int) -> int:
        """Double the batch as long as a pass gets cheaper and memory allows."""
        best, best_seconds, batch = 1, float("inf"), 8
        outputs: frozenset[OutputRole] = frozenset(
            role for role in ROLES if role in self.bundle.card.outputs
        )
        while batch * rows <= _CUDA_ROWS:
            try:
                seconds = self._time(batch, rows, outputs)
            except PassFailed:
                break
            if seconds > 0.95 * best_seconds:
                break
            best, best_seconds, batch = batch, seconds, batch * 2
        return best

    def _time(self, batch: int, rows: int, outputs: frozenset[OutputRole]) -> float:
        """Time a batch after a first one; returns seconds a pass."""
        made = self.passes
        if self.bundle.card.frame == "exon":
            again = partial(self.run_parts, self._blank_parts(batch, rows), outputs)
        else:
            beside = len(self.bundle.card.encoder.channels)
            channels = np.zeros((batch, rows, beside), dtype=np.uint8) if beside else None
            again = partial(self.run, self._blank_rows(batch, rows), outputs, channels)
        again()
        began = time.perf_counter()
        again()
        self.passes = made
        return (time.perf_counter() - began) / batch

    def _blank_rows(self, batch: int, rows: int) -> Rows:
        is_one_hot = self.bundle.card.encoder.kind == "one_hot"
        return np.zeros((batch, rows, 4) if is_one_hot else (batch, rows), dtype=np.float32)

    def _blank_parts(self, batch: int, rows: int) -> dict[str, Rows]:
        """Make parts of an exon; those of any length share what those of one length leave."""
        shapes = {x.name: x.shape for x in self._sessions[0].get_inputs()}
        found = {role: shapes[x.name] for role, x in self.bundle.card.inputs.items()}
        fixed = [x[1] for x in found.values() if isinstance(x[1], int)]
        share = max(1, (rows - sum(fixed)) // max(1, len(found) - len(fixed)))
        return {
            role: np.zeros((batch, x[1] if isinstance(x[1], int) else share, *x[2:]))
            for role, x in found.items()
        }


@dataclass(frozen=True)
class BoundOutputs:
    """Outputs of a batch, on the device; see `answers.Outputs`."""

    runner: OrtRunner
    values: dict[OutputRole, Any]
    shape: tuple[int, ...]
    _cache: dict[str, Any] = field(default_factory=dict)

    def rows(self, window: Ints, row: Ints) -> NDArray[np.floating[Any]]:
        """Read logits of rows, shape (m, V)."""
        index = np.stack([window, row], axis=1)
        found: NDArray[np.floating[Any]] = self._run("rows", "logits", {"index": index})
        return found

    def token_logs(self, ids: Ints) -> Floats:
        """Read log p of one id in every row, shape (B, T)."""
        extra = self._padded_rows - ids.shape[1]
        wide = np.pad(ids, ((0, 0), (0, extra))) if extra else ids
        found: Floats = self._run("tokens", "logits", {"ids": wide})
        return found[:, : ids.shape[1]]

    def pool(self, window: Ints, weights: Floats) -> Floats:
        """Sum embeddings under weights (m, T), shape (m, D)."""
        extra = self._padded_rows - weights.shape[1]
        wide = np.pad(weights, ((0, 0), (0, extra))) if extra else weights
        # In pieces: the head gathers (m, T, D).
        step = max(1, self.shape[0])
        pieces = [
            self._run(
                "pool", "embedding", {"window": window[i : i + step], "weights": wide[i : i + step]}
            )
            for i in range(0, len(window), step)
        ]
        return np.concatenate(pieces) if pieces else np.zeros((0, 0))

    def array(self, role: OutputRole) -> NDArray[Any]:
        """Bring a whole output to the host, shape (B, ...)."""
        found: NDArray[Any] = self.values[role].numpy()
        return found

    @cached_property
    def _padded_rows(self) -> int:
        multiple = self.runner.bundle.card.window.multiple_of
        return -(-self.shape[1] // multiple) * multiple

    def _run(self, head: str, role: OutputRole, feeds: dict[str, NDArray[Any]]) -> NDArray[Any]:
        found: NDArray[Any] = self.runner.reduce(head, self.values[role], feeds).numpy()
        return found


def _run_bound(session: ort.InferenceSession, binding: Any) -> None:
    """Run a session; PassFailed where ONNX Runtime gives up."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    try:
        session.run_with_iobinding(binding)
    # With bound outputs ONNX Runtime has no class of its own for a node that fails.
    except (RuntimeError, state.Fail, state.RuntimeException, state.InvalidArgument) as error:
        raise PassFailed(str(error).splitlines()[0]) from error


def _on_cpu(rows: int) -> int:
    return max(1, min(_CPU_PASSES, _CPU_ROWS // rows))


def _pad(rows: Rows, multiple: int, pad_id: int | None) -> Rows:
    extra = -rows.shape[1] % multiple
    if not extra:
        return rows
    widths = ((0, 0), (0, extra), (0, 0))[: rows.ndim]
    return np.pad(rows, widths, constant_values=pad_id or 0)


def _open(
    bundle: Bundle, device: Device, settings: Settings
) -> tuple[list[ort.InferenceSession], Device]:
    """Open a session a graph; all are where the last one is."""
    sessions = []
    for path in bundle.graphs:
        session, device = _open_graph(path, device, settings)
        check_graph(bundle, path, session)
        sessions.append(session)
    return sessions, device


def _open_graph(
    path: Path, device: Device, settings: Settings
) -> tuple[ort.InferenceSession, Device]:
    try:
        session = open_session(path, device, settings)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error}") from error
    if device.kind == "cuda" and session.get_providers()[0] != CUDA:
        if settings.required:
            raise InputError(
                f"--device {device}: ONNX Runtime gave a CPU session instead (no such card, no "
                "driver, or CUDA libraries missing); see: glm-annotate doctor, or use --device cpu"
            )
        return session, Device("cpu")
    return session, device


def gets_cuda(device: Device, settings: Settings) -> bool:
    """Try whether a session of the smallest graph there is runs on a CUDA card."""
    session = open_session(_HEADS / "rows.float32.onnx", device, settings)
    return bool(session.get_providers()[0] == CUDA)
