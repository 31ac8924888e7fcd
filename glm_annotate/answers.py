"""What a request reads of the passes: from a batch's outputs to float64 numbers, kind by kind.

`token`: log p of one id in one row. `base`: the distribution over A, C, G, T that a row implies for
one of its bases. `likelihood`: log likelihood of the counted rows. `pool`: embedding averaged over
a stretch of bases. Softmax is over the full vocabulary, in float64 on the host; only `likelihood`,
which reads every row, takes its logarithms on the device, in double as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from glm_annotate.encoding import Encoder, Rows, Spans

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
OutputRole = Literal["logits", "embedding", "tracks", "contacts"]
ROLES: tuple[OutputRole, ...] = get_args(OutputRole)


_LARGEST = float(np.finfo(np.float32).max)


def is_writable(values: Floats) -> NDArray[np.bool_]:
    """Tell numbers from what VCF's Float, of 32 bits, cannot hold: NaN, infinity and beyond."""
    return np.asarray(np.abs(values) <= _LARGEST)  # False for NaN


class Outputs(Protocol):
    """What a batch of B passes gave, still on the device."""

    def rows(self, window: Ints, row: Ints) -> NDArray[np.floating[Any]]:
        """Read logits of rows, shape (m, V), for windows and rows, shape (m,) each."""

    def token_logs(self, ids: Ints) -> Floats:
        """Read log p of one id in every row, shape (B, T)."""

    def pool(self, window: Ints, weights: Floats) -> Floats:
        """Sum embeddings under weights (m, T), shape (m, D)."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One executed batch, as requests see it.

    Attributes:
        got: The model's outputs.
        encoder: Of the model.
        shift: The card's `logits_shift`: row t predicts token t + shift.
        ids: Unmasked rows of the batch, shape (B, T).
    """

    got: Outputs
    encoder: Encoder
    shift: int
    ids: Rows


def answer_tokens(batch: Batch, window: Ints, details: Ints, spans: Spans) -> Floats:
    """Log p of ids; details (m, 2): row, id."""
    logs, inverse = _log_softmax_rows(batch, window, details[:, 0])
    found: Floats = logs[inverse, details[:, 1]]
    return found


def answer_bases(batch: Batch, window: Ints, details: Ints, spans: Spans) -> Floats:
    """Distributions over A, C, G, T, shape (m, 4); details (m, 3): row, width, base in the row."""
    logs, inverse = _log_softmax_rows(batch, window, details[:, 0])
    out = np.full((window.size, 4), np.nan)
    for width, offset in np.unique(details[:, 1:], axis=0).tolist():
        ids = batch.encoder.base_ids(width, offset)
        if ids is None:
            raise ValueError("this encoder's rows have no fixed place for a base")
        here = np.flatnonzero((details[:, 1] == width) & (details[:, 2] == offset))
        chance = np.exp(logs[inverse[here]])[:, ids].sum(axis=2)  # (m, 4, ids of a base) -> (m, 4)
        out[here] = chance / chance.sum(axis=1, keepdims=True)
    return out


def answer_likelihood(
    batch: Batch, window: Ints, details: NDArray[np.bool_], spans: Spans
) -> Floats:
    """Log likelihood, shape (m,); details (m, T): rows that count."""
    ids = np.asarray(batch.ids, dtype=np.int64)
    targets = np.roll(ids, -batch.shift, axis=1)
    logs = np.roll(batch.got.token_logs(targets), batch.shift, axis=1)  # row t is about token t
    counted = details.copy()
    counted[:, : max(1, batch.shift)] = False  # nothing precedes the first token
    total: Floats = np.where(counted, logs[window], 0.0).sum(axis=1)
    return total


def answer_pools(batch: Batch, window: Ints, details: Ints, spans: Spans) -> Floats:
    """Mean embeddings, shape (m, D); details (m, 2): stretch of bases, 0-based half-open."""
    start, end = details[:, 0, None], details[:, 1, None]
    inside = np.minimum(spans[..., 1], end) - np.maximum(spans[..., 0], start)
    weights = np.maximum(inside, 0) * (spans[..., 0] >= 0)  # special tokens stand for no base
    total = weights.sum(axis=1, keepdims=True)
    return batch.got.pool(window, weights / np.where(total > 0, total, np.nan))


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of request: the output that it reads, and how."""

    output: OutputRole
    answer: Callable[[Batch, Ints, NDArray[Any], Spans], Floats]


KINDS: dict[str, Kind] = {
    "token": Kind("logits", answer_tokens),
    "base": Kind("logits", answer_bases),
    "likelihood": Kind("logits", answer_likelihood),
    "pool": Kind("embedding", answer_pools),
}


def _log_softmax_rows(batch: Batch, window: Ints, row: Ints) -> tuple[Floats, Ints]:
    """Read the distinct rows; returns their log softmax (u, V) and where each request's lies.

    Row t of the request is about token t, which row t - shift of the logits predicts.
    """
    width = batch.ids.shape[1]
    distinct, inverse = np.unique(window * width + row - batch.shift, return_inverse=True)
    logits = batch.got.rows(distinct // width, distinct % width).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits, inverse
