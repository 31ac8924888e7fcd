"""Losses of targets (B, bins, tracks) in which NaN says that nothing was measured there.

Each is a sum, and what it is to be divided by is worked out from the targets alone, so that parts
of a batch add up. Poisson and Poisson-multinomial are those of Basenji and Borzoi, without the
terms that depend on the targets alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from glm_annotate.train.supervised.config import LossConfig

EPSILON = 1e-7


def position_weights(bins: int, config: LossConfig) -> Tensor:
    """Weigh the bins of a window, shape (bins,): 1 in the middle, 1 / weight_range at the ends."""
    if config.weight_range == 1:
        return torch.ones(bins)
    half = bins / 2 - 0.5
    place = (torch.arange(bins, dtype=torch.float64) - half) / max(half, 0.5)
    weights = torch.exp(-math.log(config.weight_range) * place**config.weight_exp)
    return (weights / weights.max()).float()


def weight(targets: Tensor, config: LossConfig) -> Tensor:
    """Say what `total` is to be divided by: measured bins by weight, or windows by tracks."""
    known = targets.isfinite()
    if config.kind == "poisson_multinomial":
        return known.any(1).sum().float()
    places = position_weights(targets.shape[1], config).to(targets.device)
    return (known * places[None, :, None]).sum()


def total(found: Tensor, targets: Tensor, config: LossConfig) -> Tensor:
    """Sum the losses of predictions, both (B, bins, tracks).

    With `coarse`, the loss of sums of so many bins is added. Each of those counts as often as it
    has bins, so that after the division by `weight` both are means.
    """
    loss = _sum(found.float(), targets.float(), config)
    if config.coarse:
        step = config.coarse
        several = 1 if config.kind == "poisson_multinomial" else step
        wide = [coarsen(x.float(), step) for x in (found, targets)]
        loss = loss + config.coarse_weight * several * _sum(wide[0], wide[1], config)
    return loss


def coarsen(values: Tensor, step: int) -> Tensor:
    """Sum bins by `step`, (B, bins, T) to (B, bins // step, T); those left over are dropped."""
    bins = values.shape[1] // step
    kept = values[:, : bins * step]
    return kept.reshape(kept.shape[0], bins, step, kept.shape[2]).sum(2)


def _sum(found: Tensor, targets: Tensor, config: LossConfig) -> Tensor:
    known = targets.isfinite()
    wanted = torch.where(known, targets, 0.0)
    places = position_weights(targets.shape[1], config).to(targets.device)[None, :, None]
    if config.kind == "poisson_multinomial":
        return poisson_multinomial(found, wanted, known * places, config.total_weight).sum()
    if config.kind == "poisson":
        each = poisson(found, wanted)
    elif config.kind == "mse":
        each = (found - wanted).square()
    else:
        each = cross_entropy(found, wanted)
    return torch.where(known, each * places, 0.0).sum()


def poisson(found: Tensor, wanted: Tensor) -> Tensor:
    """Give the negative log-likelihood of counts, less what depends on them alone."""
    return found - wanted * torch.log(found + EPSILON)


def cross_entropy(found: Tensor, wanted: Tensor) -> Tensor:
    """Give the binary cross-entropy of probabilities."""
    # Its gradient is not a number at 0 and 1; float32 has numbers beside both.
    found = found.clamp(EPSILON, 1 - EPSILON)
    return -(wanted * torch.log(found) + (1 - wanted) * torch.log1p(-found))


def poisson_multinomial(
    found: Tensor, wanted: Tensor, weights: Tensor, total_weight: float
) -> Tensor:
    """Give Borzoi's loss of each window and track, (B, T); 0 where nothing was measured.

    How counts are spread over the bins is multinomial, how many there are is Poisson.

    Args:
        found: Predictions, (B, bins, T).
        wanted: Targets, any number where the weight is 0.
        weights: Of the bins, (B or 1, bins, T or 1).
        total_weight: Of the Poisson term.
    """
    weights = weights.expand_as(wanted)
    measured = weights > 0
    found, wanted = found * weights, wanted * weights
    sum_found, sum_wanted = found.sum(1), wanted.sum(1)
    share = (found + EPSILON) / (sum_found[:, None] + EPSILON)
    spread = -torch.where(measured, (wanted + EPSILON) * torch.log(share), 0.0).sum(1)
    counts = sum_found - sum_wanted * torch.log(sum_found + EPSILON)
    scale = weights.sum(1)
    each = (spread + total_weight * counts) / scale.clamp(min=EPSILON)
    return torch.where(scale > 0, each, 0.0)
