"""What a run learns, as the loop sees it: batches, a sum of losses, figures on held-out data.

The loop divides. An objective gives a sum over the examples of a batch and, apart from it, what the
sum of a whole batch is to be divided by, so that a batch may be cut into parts (by device, by
accumulation) of unequal weight and the gradient stays that of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure on held-out data.

    Attributes:
        value: The figure.
        count: How many bases, bins or examples it is of.
        better: Which way is better.
    """

    value: float
    count: int
    better: Literal["lower", "higher"] = "lower"


class Objective(Protocol):
    """What a run learns: its batches, its loss, and what is measured on held-out data."""

    @property
    def network(self) -> nn.Module:
        """What is trained; the loop sets it up for its devices."""
        ...

    def batch(self, step: int, anneal: float) -> Batch:
        """Make the whole batch of a step on the CPU, a pure function of the run's seed and `step`.

        Args:
            step: Number of the step, from 0.
            anneal: Fraction of the anneal done, for what moves with it.

        Returns:
            Tensors whose first dimension is the batch, all of one length.
        """
        ...

    def weight(self, batch: Batch) -> Tensor:
        """Say what `total` of a batch is to be divided by, a scalar; of parts, the sum is used."""
        ...

    def total(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum the losses over a batch, a scalar.

        Args:
            model: The network as the loop set it up; only `model(...)` reaches every device.
            batch: All or a part of what `batch` gave, on the model's device.
        """
        ...

    def validate(self, model: nn.Module) -> dict[str, Measured]:
        """Measure a network on held-out data, by name of the figure; in evaluation mode."""
        ...


@dataclass(frozen=True, slots=True)
class Record:
    """What a checkpoint keeps of an objective's data.

    Attributes:
        files: What was read, for their sha256.
        groups: Names of the contigs or sets trained on, by group.
        valid: Names of those held out, by group.
        tokenizer: Text of `tokenizer.json`, for a bpe encoder.
    """

    files: tuple[Path, ...] = ()
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    valid: Mapping[str, Sequence[str]] = field(default_factory=dict)
    tokenizer: str | None = None


@runtime_checkable
class Recorded(Protocol):
    """What an objective may offer beside `Objective`."""

    def record(self) -> Record:
        """Say what was read and held out."""
        ...


def device_of(model: nn.Module) -> torch.device:
    """Say where a model's inputs have to be."""
    return next(model.parameters()).device
