"""What the files of the classic predictors share: cards, track tables, layers cut to some tracks.

Most of them give one number a window and track: a card with a single bin as wide as the window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from glm_annotate.errors import InputError
from glm_annotate.train.families.family import Source
from glm_annotate.train.families.predictor import UNKNOWN, Predicted, Predictor

# Files of track names that authors put beside their weights, one name a line.
_NAME_FILES = ("tracks.txt", "target.names", "predictor_names.txt", "target_labels.txt")

Rows = tuple[Mapping[str, str], ...]
TRACKS = ("batch", "bin", "track")  # axes of the output


class OneBin(Predictor):
    """A predictor of one number a window and track."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs = {"tracks": TRACKS}

    def predict(self, bases: Tensor) -> Tensor:
        """Predict (B, tracks), activated, from one-hot bases (B, L, 4)."""
        raise NotImplementedError

    def forward(self, bases: Tensor, channels: Tensor | None = None) -> tuple[Tensor, ...]:
        """Predict tracks (B, 1, T)."""
        return (self.predict(bases)[:, None],)


def keep_rows(layer: nn.Linear, rows: Sequence[int]) -> nn.Linear:
    """Cut a linear layer to some of its outputs."""
    kept = nn.Linear(layer.in_features, len(rows), bias=layer.bias is not None)
    chosen = list(rows)
    kept.weight = nn.Parameter(layer.weight.detach()[chosen].clone())
    if layer.bias is not None:
        kept.bias = nn.Parameter(layer.bias.detach()[chosen].clone())
    return kept


def recur(lstm: nn.LSTM, rows: Tensor, *, alone: bool) -> Tensor:
    """Run a two-way LSTM (batch first) over rows (B, T, C); gives (B, T, 2 H).

    Args:
        lstm: The layer.
        rows: What it reads.
        alone: Every row is a sequence of its own. That is what code computes for a single window
            that took the batch for the time: `nn.LSTM` without `batch_first` on (B, T, C).
    """
    if not alone:
        out: Tensor = lstm(rows)[0]
        return out
    batch, length, wide = rows.shape
    out = lstm(rows.reshape(batch * length, 1, wide))[0]
    return out.reshape(batch, length, out.shape[-1])


def card_of(
    length: int,
    *,
    bin_size: int,
    scores: Sequence[str],
    order: str = "ACGT",
    crop: int = 0,
    provenance: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Make the card of a predictor over single bases; `order` is that of its input channels."""
    vocab = {"order": order, "first_id": 0, "single_ids": {"N": UNKNOWN}}
    return {
        "encoder": {"kind": "kmer", "vocab": vocab},
        "context": length,
        "anchor": max(length // 2 - 1, 0),
        "bin_size": bin_size,
        "crop": crop,
        "strand": "both",
        "scores": list(scores),
        "provenance": dict(provenance or {}),
    }


def predicted_whole(
    source: Source,
    network: Predictor,
    *,
    length: int,
    tracks: int,
    provenance: Mapping[str, str],
    order: str = "ACGT",
) -> Predicted:
    """Give a model whose one bin is its whole window: its network, card and tracks."""
    card = card_of(
        length, bin_size=length, scores=("SAD", "LFC"), order=order, provenance=provenance
    )
    return Predicted((network,), card, track_rows(source, tracks))


def check_context(source: Source, context: int | None, length: int) -> None:
    """Refuse another window where the weights fix it.

    Raises:
        InputError: The user asked for one.
    """
    if context not in (None, length):
        raise InputError(
            f"{source.name}: found --context {context}, these weights read windows of {length} "
            "bases only; leave --context out"
        )


def track_rows(source: Source, count: int, units: str = "probability") -> Rows:
    """Name the tracks: from the config's `labels`, or a file of names beside the weights.

    Raises:
        InputError: Another number of names than of tracks.
    """
    names, where = _names(source)
    if names and len(names) != count:
        raise InputError(
            f"{where}: holds {len(names)} names, the weights have {count} tracks; fetch names and "
            "weights of one checkpoint"
        )
    # Columns that kipoi and selene put behind a name are of no use here.
    found = [name.split("\t")[0].strip() for name in names]
    identifiers = found or [f"track_{i}" for i in range(count)]
    return tuple(
        {
            "identifier": identifier,
            "description": identifier,
            "units": units,
            "role": "profile",
            "transform": "none",
        }
        for identifier in identifiers
    )


def _names(source: Source) -> tuple[list[str], str]:
    labels = source.config.get("labels")
    if labels is not None:
        if not isinstance(labels, list) or not all(isinstance(x, str) for x in labels):
            raise InputError(f"{source.name}: config: labels is no list of names; mend config.json")
        return list(labels), f"{source.name}: config: labels"
    paths = (source.file(name) for name in _NAME_FILES)
    path = next((path for path in paths if path is not None), None)
    if path is None:
        return [], ""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in lines if line.strip()], str(path)


def with_flat_kernels(source: Source, axis: int) -> Source:
    """Drop the empty axis of kernels that a two-dimensional layer stored, such as (C, 4, 1, 8)."""
    flat = {
        name: value.squeeze(axis) if value.ndim == 4 and value.shape[axis] == 1 else value
        for name, value in source.weights.items()
    }
    return replace(source, weights=flat)


def stored(source: Source, name: str, axes: int) -> Tensor:
    """Take a weight whose shape tells a size of the network.

    Raises:
        InputError: There is none, or it has another number of axes.
    """
    value = source.weights.get(name)
    if value is None or value.ndim != axes or 0 in value.shape:
        found = "nothing" if value is None else "x".join(map(str, value.shape)) or "a scalar"
        raise InputError(
            f"{source.name}: {name}: found {found}, wanted {axes} axes; name the right system "
            "with --family, or fetch the checkpoint again"
        )
    return value


def with_counts(source: Source, network: nn.Module) -> Source:
    """Add the counts of batches that batch norms of old checkpoints did not keep."""
    counts = {
        name: value
        for name, value in network.state_dict().items()
        if name.endswith(".num_batches_tracked") and name not in source.weights
    }
    return replace(source, weights={**source.weights, **counts})


def limit_rows(source: Source, pattern: tuple[str, ...], most: float) -> Source:
    """Scale down rows of weights that are longer than `most`, as training code did in its pass."""
    limited = {
        name: torch.renorm(value, 2, 0, most)
        if name.endswith(pattern) and value.ndim > 1
        else value
        for name, value in source.weights.items()
    }
    return replace(source, weights=limited)
