"""Figures on held-out examples: losses, correlations, accuracy, areas under curves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from glm_annotate.train.finetune.config import Loss
from glm_annotate.train.objective import Measured

Floats = NDArray[np.float64]
_SMALL = 1e-12


def measure(loss: Loss, found: Floats, wanted: Floats) -> dict[str, Measured]:
    """Compare predictions (n, outputs) with values (n, targets), NaN where unknown.

    Figures of several targets are means over those that have one.
    """
    known = ~np.isnan(wanted)
    count = int(known.sum())
    if loss == "cross_entropy":
        classes = wanted[:, 0].astype(np.int64)
        right = found[np.arange(len(found)), classes]
        hits = found.argmax(axis=1) == classes
        return {
            "cross_entropy": Measured(float(-np.log(right + _SMALL).mean()), count),
            "accuracy": Measured(float(hits.mean()), count, "higher"),
        }
    x, y = found[known], wanted[known]
    if loss == "bce":
        lost = -(y * np.log(x + _SMALL) + (1 - y) * np.log(1 - x + _SMALL))
        return {"bce": Measured(float(lost.mean()), count)} | _mean("auroc", found, wanted)
    if loss == "poisson":
        lost = x - y * np.log(x + 1e-6)
        return {"poisson": Measured(float(lost.mean()), count)} | _mean("pearson", found, wanted)
    squared = Measured(float(np.square(x - y).mean()), count)
    return {"mse": squared} | _mean("pearson", found, wanted)


def _mean(name: str, found: Floats, wanted: Floats) -> dict[str, Measured]:
    """Average a figure over the targets that it is defined for; nothing where there is none."""
    values, count = [], 0
    for x, y in zip(found.T, wanted.T, strict=True):
        known = ~np.isnan(y)
        value = _pearson(x[known], y[known]) if name == "pearson" else _area(x[known], y[known])
        if np.isfinite(value):
            values.append(value)
            count += int(known.sum())
    return {name: Measured(float(np.mean(values)), count, "higher")} if values else {}


def _pearson(x: Floats, y: Floats) -> float:
    x, y = x - x.mean(), y - y.mean()
    spread = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum() / spread) if spread > 0 else float("nan")


def _area(x: Floats, y: Floats) -> float:
    """Chance that an example with the property has the larger number, ties counting half."""
    positive, others = x[y > 0.5], np.sort(x[y <= 0.5])
    if not positive.size or not others.size:
        return float("nan")
    below = np.searchsorted(others, positive, "left") + np.searchsorted(others, positive, "right")
    return float(below.sum() / (2 * positive.size * others.size))
