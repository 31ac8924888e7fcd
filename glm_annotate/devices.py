"""Where sessions of ONNX Runtime run, and how they are opened."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm_annotate.errors import BundleError, UsageError

if TYPE_CHECKING:
    import onnxruntime as ort

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@dataclass(frozen=True, slots=True)
class Device:
    """Where a session runs: `cpu`, or `cuda` with the number of the card."""

    kind: str
    number: int = 0

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.number}"


@dataclass(frozen=True, slots=True)
class Settings:
    """How sessions are made.

    Attributes:
        devices: One session each.
        threads: Threads of one session on the CPU.
        batch: Passes in a batch; 0 finds a number.
        tf32: Let CUDA round matrix products to 19 bits.
        required: Whether a device that is not there is an error, or the CPU will do.
    """

    devices: tuple[Device, ...] = (Device("cpu"),)
    threads: int = 1
    batch: int = 0
    tf32: bool = False
    required: bool = True


def parse_device(text: str, *, threads: int = 0, batch: int = 0, tf32: bool = False) -> Settings:
    """Parse `auto`, `cpu[:N]` (N threads) or `cuda[:I[,J...]]`.

    Raises:
        UsageError: It is none of these.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = re.fullmatch(r"(auto|cpu|cuda)(?::(\d+(?:,\d+)*))?", text.lower())
    if found is None or (
        found[2] and (found[1] == "auto" or ("," in found[2] and found[1] == "cpu"))
    ):
        raise UsageError(f"--device {text}: not auto, cpu, cpu:THREADS, cuda or cuda:I[,J...]")
    kind, numbers = found[1], [int(x) for x in (found[2] or "").split(",") if x]
    if kind == "cpu" and numbers:
        threads = numbers[0]
    cuda = tuple(Device("cuda", i) for i in numbers or [0])
    is_cuda = kind == "cuda" or (kind == "auto" and Path("/dev/nvidia0").exists())
    devices = cuda if is_cuda else (Device("cpu"),)
    return Settings(devices, threads or cores or 1, batch, tf32, required=kind == "cuda")


def open_session(path: Path, device: Device, settings: Settings) -> ort.InferenceSession:
    """Open a session of a graph; whether it got its device is for the caller to ask.

    Raises:
        BundleError: ONNX Runtime cannot load the graph.
    """
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.log_severity_level = 4  # what matters comes as an exception, and is told in one line
    # A waiting thread must not burn the core that encodes the next batch.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = [CPU]
    if device.kind == "cuda":
        ort.set_default_logger_severity(4)
        cuda = {
            "device_id": str(device.number),
            "use_tf32": "1" if settings.tf32 else "0",
            "cudnn_conv_algo_search": "HEURISTIC",
        }
        providers = [(CUDA, cuda), CPU]
    try:
        return ort.InferenceSession(str(path), options, providers=providers)
    except (
        state.Fail,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.InvalidArgument,
        state.NotImplemented,
        state.RuntimeException,
    ) as error:
        reason = " ".join(str(error).split())
        raise BundleError(f"{path}: ONNX Runtime cannot load it: {reason}") from error
