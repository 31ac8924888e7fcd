"""What a graph computes, of either kind of network, and the batches that it is tried on.

A language model takes token ids (B, T) and gives logits and embeddings; a predictor takes ids of
bases, or token ids where it has a vocabulary, and gives its own outputs. Both may have channels as
a second input. A predictor of exons has an input for each part of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from glm_annotate.encoding import EncoderSpec
from glm_annotate.train.families.family import Network
from glm_annotate.train.families.mmsplice_blocks import ExonPredictor, PartsGraph
from glm_annotate.train.families.predictor import UNKNOWN, Predictor

INPUT, CHANNELS, ATTENTION = "rows", "channels", "attention"
OUTPUTS = ("logits", "embedding")
Exportable = Network | Predictor
Values = dict[str, NDArray[np.float32]]
# Ids (B, T), ids and channels (B, T, C), or ids (B, L) of each part of an exon.
Batch = NDArray[Any] | tuple[NDArray[Any], NDArray[np.float32]] | Mapping[str, NDArray[Any]]

# Batch and length of the example: neither is 1, which the exporter would take for a constant.
_WINDOWS, _ROWS = 2, 41


class _Language(nn.Module):
    """Logits (B, T, V), embedding (B, T, D), and maps where asked for."""

    def __init__(self, network: Network, *, attention: bool) -> None:
        super().__init__()
        self.network, self.attention = network, attention

    def forward(self, rows: Tensor, channels: Tensor | None = None) -> tuple[Tensor, ...]:
        if self.attention:
            embedding, maps = self.network.attend(rows)
            return self.network.decode(embedding).float(), embedding.float(), maps.float()
        if channels is not None:
            embedding = self.network.embed_with(rows, channels)
        else:
            embedding = self.network.embed(rows)
        return self.network.decode(embedding).float(), embedding.float()


class _Prediction(nn.Module):
    """A predictor behind the table that turns ids of bases into numbers."""

    def __init__(self, network: Predictor) -> None:
        super().__init__()
        self.network = network
        table = torch.cat([torch.eye(4), torch.full((1, 4), network.unknown)])
        self.register_buffer("table", table, persistent=False)
        self.table: Tensor

    def forward(self, rows: Tensor, channels: Tensor | None = None) -> tuple[Tensor, ...]:
        if self.network.vocabulary:
            return tuple(output.float() for output in self.network(rows))
        bases = self.table[rows.long()]  # (B, L, 4)
        found = self.network(bases) if channels is None else self.network(bases, channels)
        return tuple(output.float() for output in found)


def exported(network: Exportable, *, attention: bool = False) -> nn.Module:
    """Put around a network what its graph has and it has not."""
    if isinstance(network, ExonPredictor):
        return PartsGraph(network)
    if isinstance(network, Predictor):
        return _Prediction(network)
    return _Language(network, attention=attention)


def outputs_of(network: Exportable, *, attention: bool = False) -> tuple[str, ...]:
    """Name the graph's outputs, in order."""
    if isinstance(network, Predictor):
        return tuple(network.outputs)
    return (*OUTPUTS, ATTENTION) if attention else OUTPUTS


def example_of(network: Exportable) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Make inputs to trace with, and say which of their axes are free, as the exporter wants it."""
    free: dict[int, Any] = {0: torch.export.Dim("batch")}
    if isinstance(network, ExonPredictor):
        names = list(network.parts)
        lengths = {name: {1: torch.export.Dim(name)} for name in names if not network.parts[name]}
        inputs = dict(zip(names, PartsGraph(network).example(), strict=True))
        return inputs, {"rows": tuple(free | lengths.get(name, {}) for name in names)}
    if isinstance(network, Predictor) and not network.vocabulary:
        unit, length = network.multiple_of, network.length
        if length is None:
            # No number that something else in the network may have.
            length = unit * -(-_ROWS // unit) if unit > 1 else 10 * _ROWS
            units = torch.export.Dim("units")
            free[1] = unit * units if unit > 1 else torch.export.Dim("length")
        rows = (torch.arange(_WINDOWS * length) % UNKNOWN).reshape(_WINDOWS, length)
        inputs = {INPUT: rows.to(torch.uint8)}
    else:
        length = min(_ROWS, network.max_rows or _ROWS)
        rows = torch.arange(_WINDOWS * length).reshape(_WINDOWS, length)
        inputs = {INPUT: rows % network.vocabulary}
        free[1] = torch.export.Dim("length", max=network.max_rows)
    if network.channels:
        inputs[CHANNELS] = torch.ones(_WINDOWS, length, network.channels)
    return inputs, dict.fromkeys(inputs, free)


@torch.no_grad()
def run_torch(network: Exportable, batch: Batch, *, attention: bool = False) -> Values:
    """Compute with torch what the graph gives, by the names of its outputs."""
    inputs = [torch.from_numpy(part) for part in feeds_of(batch).values()]
    found = exported(network, attention=attention)(*inputs)
    found = (found,) if isinstance(found, Tensor) else found
    names = outputs_of(network, attention=attention)
    return {name: x.numpy() for name, x in zip(names, found, strict=True)}


def random_batch(
    network: Exportable,
    spec: EncoderSpec,
    shape: tuple[int, int],
    seed: int,
    *,
    masked: float = 0.1,
) -> Batch:
    """Draw ids (B, T) of every kind, a part of them masked, and channels where there are some.

    Channels of a language model are the codes 0 to 4 of an alignment, those of a predictor are
    signals above 0. Parts of exons are those of exons with their introns, T bases in all.
    """
    rng = np.random.default_rng(seed)
    if isinstance(network, ExonPredictor):
        bases = rng.integers(UNKNOWN, size=shape).astype(np.uint8)
        bases[rng.random(shape) < masked / 5] = UNKNOWN
        parts = network.split(torch.from_numpy(bases))
        return {name: x.numpy() for name, x in zip(network.parts, parts, strict=True)}
    if isinstance(network, Predictor) and not network.vocabulary:
        bases = rng.integers(UNKNOWN, size=shape).astype(np.uint8)
        bases[rng.random(shape) < masked / 5] = UNKNOWN
        if not network.channels:
            return bases
        return bases, rng.gamma(1.0, size=(*shape, network.channels)).astype(np.float32)
    rows = rng.integers(network.vocabulary, size=shape)
    if spec.vocab.mask_id is not None:
        rows[rng.random(shape) < masked] = spec.vocab.mask_id
    if not network.channels:
        return rows
    return rows, rng.integers(5, size=(*shape, network.channels)).astype(np.float32)


def parts_of(batch: Batch) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    """Take a batch of windows apart: ids (B, T), and channels (B, T, C) where there are some."""
    if isinstance(batch, Mapping):
        raise TypeError("a batch of exons has no rows")
    return batch if isinstance(batch, tuple) else (batch, None)


def feeds_of(batch: Batch) -> dict[str, NDArray[Any]]:
    """Name a batch's arrays as the graph's inputs are named."""
    if isinstance(batch, Mapping):
        return dict(batch)
    rows, channels = parts_of(batch)
    return {INPUT: rows} if channels is None else {INPUT: rows, CHANNELS: channels}


def first_rows(batch: Batch, count: int) -> Batch:
    """Cut a batch to its first rows."""
    rows, channels = parts_of(batch)
    return rows[:, :count] if channels is None else (rows[:, :count], channels[:, :count])
