"""Checkpoints: one file a run state, written under another name and renamed.

Decisions: tensors, numbers and JSON text only, so that a checkpoint loads with torch's
`weights_only` and cannot run code. `average` holds what is measured and exported.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from glm_annotate.errors import InputError
from glm_annotate.train.config import TrainConfig


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State of a run.

    Attributes:
        config: The run's config as JSON.
        step: Steps done.
        seconds: Training time so far, validation left out.
        weights: Of the network.
        average: Their moving average.
        optimizers: State of each optimizer.
        random: State of torch's generator in checkpoints of 1.0, which nothing reads any more:
            layers that draw numbers do so by seed and step.
        quality: Held-out figures at the last validation, of language models the cross-entropy by
            group, nats a base.
        best: Lowest selection score so far.
        groups: Names of the contigs trained on, by group.
        valid: Names of the contigs held out, by group.
        stale: Validations since the best.
        scaler: State of the scaling of losses, for float16.
        code: Version of the package, and commit of its repository where there is one.
        data: sha256 of the files read, by name.
        compute: What the run has cost so far, see `accounting`.
        flops: Operations of a training step as counted; 0: not counted.
        tokenizer: Text of `tokenizer.json`, for a bpe encoder.
    """

    config: str
    step: int
    seconds: float
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizers: list[dict[str, Any]]
    quality: dict[str, float]
    best: float
    groups: dict[str, list[str]]
    valid: dict[str, list[str]]
    random: Tensor | None = None
    stale: int = 0
    scaler: dict[str, Any] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    compute: dict[str, float] = field(default_factory=dict)
    flops: float = 0.0
    tokenizer: str | None = None

    def settings(self) -> TrainConfig:
        """Parse the config that the run was started with."""
        return TrainConfig.model_validate_json(self.config)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint so that `path` is either the old one or the new one, whole."""
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "wb") as handle:
        torch.save({x.name: getattr(checkpoint, x.name) for x in fields(checkpoint)}, handle)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, path)


def is_checkpoint(path: Path) -> bool:
    """Tell a checkpoint of ours from other files of torch.save, without reading its weights."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        values = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
        return False
    return isinstance(values, dict) and {"config", "average", "optimizers"} <= values.keys()


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        InputError: The file is missing, is not one of ours, or is of another version.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path}: no such checkpoint; make one with: glm-annotate train CONFIG.toml"
        )
    # What is no zip would be given to torch's reader of an older format, which fails in any way.
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: not a checkpoint of glm-annotate train: damaged or another file")
    try:
        state = Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, TypeError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: not a checkpoint of glm-annotate train: {reason}") from error
    try:
        state.settings()
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "config"
        raise InputError(
            f"{path}: {place}: {first['msg']}: its config is of another version; use the "
            "glm-annotate that wrote it"
        ) from error
    tables = {"average": state.average, "groups": state.groups, "valid": state.valid}
    for name, value in tables.items():
        if not isinstance(value, dict):
            raise InputError(
                f"{path}: not a checkpoint of glm-annotate train: {name} is a "
                f"{type(value).__name__}, wanted a table"
            )
    return state
