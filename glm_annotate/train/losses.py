"""Masked language modelling: rows of a batch in, masked rows and a loss out.

Decisions: which rows are predicted is drawn row by row, so the count varies around the rate; the
random numbers come from numpy streams of (seed, step), never from torch's global state. Special
tokens and N are never predicted. Cross-entropies are natural logarithms over the base tokens
alone in validation (as a score reads them) and over the whole vocabulary in training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from glm_annotate.encoding import Encoder, mask_rows
from glm_annotate.errors import InputError
from glm_annotate.train.config import MaskConfig


@dataclass(frozen=True, slots=True)
class Masked:
    """One masked batch.

    Attributes:
        rows: What the model reads, shape (B, T).
        labels: What it has to say, shape (B, T); -100 where it is not asked.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]


IGNORED = -100


def base_tokens(encoder: Encoder) -> NDArray[np.int64]:
    """List the ids of A, C, G, T, shape (4,).

    Raises:
        InputError: The encoder does not give every base a row of its own.
    """
    spec = encoder.spec
    # Encoders of longer k-mers also have ids for single bases, which only their tails use.
    ids = encoder.base_ids(1, 0) if spec.k == 1 else None
    if ids is None or spec.vocab.mask_id is None or spec.kind == "one_hot":
        raise InputError(
            "masked training needs an encoder with a mask_id and one row a base; "
            f"found kind = {spec.kind}, k = {spec.k}, stride = {spec.stride}"
        )
    return ids[:, 0]


def mask_batch(
    rows: NDArray[np.int64],
    encoder: Encoder,
    rng: np.random.Generator,
    *,
    rate: float,
    keep: float = 0.0,
    random: float = 0.0,
) -> Masked:
    """Choose rows to predict, and hide them.

    Args:
        rows: Encoded batch, shape (B, T).
        encoder: Tells bases from other tokens, and the mask.
        rng: Random numbers of this step.
        rate: Fraction of the bases to predict.
        keep: Fraction of those that stay readable.
        random: Fraction of those that become a random base.
    """
    bases = base_tokens(encoder)
    chosen = (rng.random(rows.shape, dtype=np.float32) < rate) & np.isin(rows, bases)
    fate = rng.random(rows.shape, dtype=np.float32)
    substitutes = bases[rng.integers(4, size=rows.shape)]
    out = mask_rows(rows, chosen, encoder.spec)
    out = np.where(chosen & (fate < keep), rows, out)
    out = np.where(chosen & (fate >= 1 - random), substitutes, out)
    return Masked(out, np.where(chosen, rows, IGNORED))


def class_weights(encoder: Encoder, config: MaskConfig, size: int) -> Tensor | None:
    """Turn loss weights by base into weights by id, shape (size,); None where all are 1.

    Raises:
        InputError: A weight names something that is not A, C, G or T.
    """
    if not config.weights:
        return None
    unknown = sorted(set(config.weights) - set("ACGT"))
    if unknown:
        raise InputError(f"mask.weights: found {unknown[0]!r}, allowed are A, C, G and T")
    weights = torch.ones(size)
    for base, token in zip("ACGT", base_tokens(encoder).tolist(), strict=True):
        weights[token] = config.weights.get(base, 1.0)
    return weights


def masked_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Compute the mean cross-entropy of the predicted rows.

    Args:
        logits: Shape (B, T, V).
        labels: Shape (B, T), `IGNORED` where nothing is asked.
        weights: By id, shape (V,). The mean is over the weights.
    """
    asked = labels != IGNORED
    return functional.cross_entropy(logits[asked].float(), labels[asked], weight=weights)


def base_loss(logits: Tensor, labels: Tensor, bases: Tensor) -> tuple[float, int]:
    """Sum the cross-entropy over A, C, G, T alone, and count the rows.

    Args:
        logits: Shape (B, T, V).
        labels: Shape (B, T).
        bases: Ids of A, C, G, T, shape (4,).
    """
    asked = labels != IGNORED
    scores = functional.log_softmax(logits[asked][:, bases].float(), dim=-1)  # (n, 4)
    hit = labels[asked][:, None] == bases
    return -float(scores[hit].double().sum()), int(asked.sum())
