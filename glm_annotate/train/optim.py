"""Optimizers, schedule and weight averaging: pure functions of the step where that is possible."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from glm_annotate.train.config import OptimConfig
from glm_annotate.train.families import Family


def anneal_fraction(step: int, config: OptimConfig) -> float:
    """Tell how much of the anneal is done at a step: 0 before it, 1 at the last step."""
    if not config.falling_steps:
        return 0.0
    first = config.steps - config.falling_steps
    return min(1.0, max(0.0, (step + 1 - first) / config.falling_steps))


def learning_rate(step: int, config: OptimConfig) -> float:
    """Return the learning rate of a step: warm-up, hold (or not), half a cosine down."""
    warm = min(1.0, (step + 1) / (config.warmup_steps + 1))
    falling = 0.5 * (1 + math.cos(math.pi * anneal_fraction(step, config)))
    return config.lr * warm * (config.final_lr + (1 - config.final_lr) * falling)


def make_optimizers(network: nn.Module, family: Family, config: OptimConfig) -> list[Optimizer]:
    """Make the optimizers of a run; each parameter belongs to exactly one."""
    named = [(name, weight) for name, weight in network.named_parameters() if weight.requires_grad]
    trunk = [w for name, w in named if family.trunk(name, w)]
    rest = [w for name, w in named if not family.trunk(name, w)]
    matrices, vectors = [w for w in rest if w.ndim > 1], [w for w in rest if w.ndim < 2]
    if config.name == "adamw":
        return [_adamw(matrices + trunk, vectors, config)]
    muon = Muon(
        trunk,
        lr=config.lr,
        weight_decay=config.weight_decay,
        # Updates as large as AdamW's, so that one learning rate serves both.
        adjust_lr_fn="match_rms_adamw",
    )
    return [muon, _adamw(matrices, vectors, config)]


def _adamw(matrices: Sequence[Tensor], vectors: Sequence[Tensor], config: OptimConfig) -> Optimizer:
    groups: list[dict[str, Any]] = [
        {"params": list(matrices), "weight_decay": config.weight_decay},
        {"params": list(vectors), "weight_decay": 0.0},
    ]
    return AdamW([g for g in groups if g["params"]], lr=config.lr, betas=config.betas)


class Average:
    """Exponential moving average of weights; early steps weigh less than `decay` says.

    Attributes:
        decay: See there.
        weights: By name, what is not a floating-point number as it was at the start.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        state = network.state_dict()
        self.weights = {name: value.detach().clone() for name, value in state.items()}
        # The tensors of a state share their memory with the network's.
        moving = [name for name, value in state.items() if value.is_floating_point()]
        self._averaged = [self.weights[name] for name in moving]
        self._current = [state[name].detach() for name in moving]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the network's weights after a step, numbered from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averaged, self._current, 1 - decay)

    def load(self) -> None:
        """Take the network's weights for the average."""
        _copy(self._current, self._averaged)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the network have the average for a while."""
        with torch.no_grad():
            kept = [current.clone() for current in self._current]
            _copy(self._averaged, self._current)
        try:
            yield
        finally:
            _copy(kept, self._current)


@torch.no_grad()
def _copy(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
