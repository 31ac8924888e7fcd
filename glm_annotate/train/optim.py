"""Optimizers, schedule and weight averaging: pure functions of the step where that is possible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from glm_annotate.train.config import OptimConfig
from glm_annotate.train.families import Family


def anneal_fraction(step: int, config: OptimConfig) -> float:
    """Tell how much of the anneal is done at a step: 0 before it, 1 at the last step."""
    if not config.anneal_steps:
        return 0.0
    first = config.steps - config.anneal_steps
    return min(1.0, max(0.0, (step + 1 - first) / config.anneal_steps))


def learning_rate(step: int, config: OptimConfig) -> float:
    """Return the learning rate of a step: warm-up, hold, half a cosine down."""
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
    """Exponential moving average of weights; early steps weigh less than `decay` says."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {k: v.detach().clone() for k, v in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after a step, numbered from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - decay)
