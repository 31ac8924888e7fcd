"""Masks and losses of language models: rows of a batch in, what is asked and how it is judged out.

Decisions: which rows are predicted is drawn row by row or run by run, so the count varies around
the rate; the random numbers come from numpy streams of (seed, step), never from torch's global
state. Special tokens and N are never predicted. Cross-entropies are natural logarithms: over the
tokens of A, C, G and T alone in validation (as a score reads them), over the whole vocabulary in
training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from glm_annotate.encoding import mask_rows
from glm_annotate.errors import InputError
from glm_annotate.train.config import MaskConfig
from glm_annotate.train.tokens import Tokens

IGNORED = -100
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Masked:
    """One masked batch.

    Attributes:
        rows: What the model reads, shape (B, T).
        labels: What it has to say, shape (B, T); -100 where it is not asked.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of rows that are predicted together.

    Attributes:
        mean: Mean of the geometric lengths, before the cut at `longest`.
        longest: Most rows of a run.
        extra: Rows added to every run: k-mers that overlap need one less than a base lies in.
    """

    mean: float = 1.0
    longest: int = 1
    extra: int = 0

    def reach(self) -> NDArray[np.float64]:
        """Give the chance that a run is longer than 0, 1, 2 ... rows, shape (longest + extra,)."""
        stays = 1 - 1 / self.mean
        return np.concatenate([np.ones(self.extra), stays ** np.arange(self.longest)])

    def start_rate(self, rate: float) -> float:
        """Find how often runs begin so that a share `rate` of all rows lies in one.

        A row is free if none of the starts at and before it begins a run that reaches it; the
        share of these falls as starts become more frequent, so halving finds the frequency.
        """
        chances, low, high = self.reach(), 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            covered = 1 - float(np.prod(1 - middle * chances))
            low, high = (middle, high) if covered < rate else (low, middle)
        return high

    def draw(self, shape: tuple[int, int], rate: float, rng: np.random.Generator) -> Bools:
        """Choose rows (B, T); runs may begin before the first row, so that edges are no rarer."""
        count, width = shape
        before = self.longest + self.extra - 1
        hit = rng.random((count, before + width)) < self.start_rate(rate)
        length = np.ones(hit.shape, dtype=np.int64)
        if self.longest > 1:
            length = np.minimum(rng.geometric(1 / self.mean, size=hit.shape), self.longest)
        end = np.arange(hit.shape[1]) + length + self.extra
        furthest = np.maximum.accumulate(np.where(hit, end, 0), axis=1)
        chosen: Bools = furthest[:, before:] > np.arange(before, hit.shape[1])
        return chosen


def runs_of(config: MaskConfig, tokens: Tokens) -> Runs | None:
    """Read the scheme of a config; None for rows by themselves.

    Raises:
        InputError: Single rows of overlapping k-mers: their neighbours would tell what is hidden.
    """
    if config.scheme == "single":
        if tokens.overlap > 1:
            raise InputError(
                "mask.scheme: found single, but k-mers overlap and neighbours tell what is hidden; "
                "wanted contiguous or span"
            )
        return None
    if config.scheme == "contiguous":
        return Runs(extra=tokens.overlap - 1)
    return Runs(config.span, config.span_max, tokens.overlap - 1)


def mask_batch(
    rows: NDArray[np.int64],
    tokens: Tokens,
    rng: np.random.Generator,
    *,
    rate: float,
    keep: float = 0.0,
    random: float = 0.0,
    runs: Runs | None = None,
) -> Masked:
    """Choose rows to predict, and hide them.

    Args:
        rows: Encoded batch, shape (B, T).
        tokens: Tells bases from other tokens, and the mask.
        rng: Random numbers of this step.
        rate: Fraction of the bases to predict.
        keep: Fraction of those that stay readable.
        random: Fraction of those that become random bases.
        runs: Rows that are chosen and treated together; None: each by itself.

    Raises:
        InputError: There is no mask.
    """
    if tokens.spec.vocab.mask_id is None:
        raise InputError("encoder.vocab.mask_id: masked training needs one, found none")
    known = np.isin(rows, tokens.ids)
    if runs is None:
        chosen = (rng.random(rows.shape, dtype=np.float32) < rate) & known
    else:
        chosen = runs.draw((rows.shape[0], rows.shape[1]), rate, rng) & known
    fate = rng.random(rows.shape, dtype=np.float32)
    substitutes = tokens.ids[rng.integers(tokens.ids.size, size=rows.shape)]
    if runs is not None:
        fate = _shared(fate, chosen)
    out = mask_rows(rows, chosen, tokens.spec)
    out = np.where(chosen & (fate < keep), rows, out)
    out = np.where(chosen & (fate >= 1 - random), substitutes, out)
    return Masked(out, np.where(chosen, rows, IGNORED))


def _shared(fate: NDArray[np.float32], chosen: Bools) -> NDArray[np.float32]:
    """Give all rows of a run the number of its first: one left readable would tell of others."""
    place = np.arange(chosen.shape[1])
    first = chosen & ~np.pad(chosen, ((0, 0), (1, 0)))[:, :-1]
    begins = np.maximum.accumulate(np.where(first, place, 0), axis=1)
    return np.take_along_axis(fate, begins, axis=1)


def class_weights(tokens: Tokens, config: MaskConfig, size: int) -> NDArray[np.float32] | None:
    """Turn loss weights by base into weights by id, shape (size,); None where all are 1.

    Raises:
        InputError: A weight names something that is not A, C, G or T, or rows are longer.
    """
    if not config.weights:
        return None
    unknown = sorted(set(config.weights) - set("ACGT"))
    if unknown:
        raise InputError(f"mask.weights: found {unknown[0]!r}, allowed are A, C, G and T")
    if tokens.ids.size != 4:
        raise InputError("mask.weights: weights by base need an encoder of one base a row")
    weights = np.ones(size, dtype=np.float32)
    for base, token in zip("ACGT", tokens.ids.tolist(), strict=True):
        weights[token] = config.weights.get(base, 1.0)
    return weights


def summed_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sum the cross-entropy of the rows that are asked for.

    Args:
        logits: Shape (B, T, V).
        labels: Shape (B, T), `IGNORED` where nothing is asked.
        weights: By row, shape (B, T).
    """
    asked = labels != IGNORED
    wanted, given = logits[asked].float(), labels[asked]
    if weights is None:
        return functional.cross_entropy(wanted, given, reduction="sum")
    losses = functional.cross_entropy(wanted, given, reduction="none")
    return (losses * weights[asked]).sum()


def total_weight(labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Say what `summed_loss` is to be divided by for a mean, a scalar of float32."""
    asked = labels != IGNORED
    return (asked if weights is None else weights[asked]).sum().float()


def base_loss(logits: Tensor, labels: Tensor, ids: Tensor) -> tuple[float, int]:
    """Sum the cross-entropy over some ids alone, and count the rows.

    Args:
        logits: Shape (B, T, V).
        labels: Shape (B, T).
        ids: Those of A, C, G, T, or of all words over them, shape (n,).
    """
    asked = labels != IGNORED
    scores = functional.log_softmax(logits[asked][:, ids].float(), dim=-1)  # (rows, n)
    hit = labels[asked][:, None] == ids
    return -float(scores[hit].double().sum()), int(asked.sum())


def next_labels(rows: NDArray[np.int64], tokens: Tokens) -> NDArray[np.int64]:
    """Say what each row has to predict: the next one, where it stands for bases, shape (B, T)."""
    labels = np.full(rows.shape, IGNORED, dtype=np.int64)
    following = rows[:, 1:]
    labels[:, :-1] = np.where(np.isin(following, tokens.ids), following, IGNORED)
    return labels


def shifted(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Move weights (B, T) of rows to the rows that predict them."""
    out = np.zeros_like(weights)
    out[:, :-1] = weights[:, 1:]
    return out


def info_nce(
    one: Tensor, other: Tensor, sets: Tensor, temperature: float, *, symmetric: bool = True
) -> Tensor:
    """Sum over pairs how badly each view tells its partner from the partners of others.

    Args:
        one: Embeddings of the first views, shape (B, D).
        other: Of the second views, shape (B, D).
        sets: What each pair is of, shape (B,); views of one set are not held against each other.
        temperature: What cosine similarities are divided by.
        symmetric: Both views are asked, and the two losses averaged.
    """
    left, right = (
        functional.normalize(one.float(), dim=-1),
        functional.normalize(other.float(), dim=-1),
    )
    scores = left @ right.T / temperature  # (B, B)
    pairs = torch.eye(len(sets), dtype=torch.bool, device=sets.device)
    scores = scores.masked_fill((sets[:, None] == sets) & ~pairs, -torch.inf)
    asked = torch.arange(len(sets), device=sets.device)
    loss = functional.cross_entropy(scores, asked, reduction="sum")
    if not symmetric:
        return loss
    return (loss + functional.cross_entropy(scores.T, asked, reduction="sum")) / 2
