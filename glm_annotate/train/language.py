"""Objectives of language models over the windows of a corpus: hidden rows, or the next one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from glm_annotate.encoding import Encoder, make_encoder
from glm_annotate.errors import BundleError, InputError
from glm_annotate.train.config import TrainConfig
from glm_annotate.train.data import MASKS, Corpus, Windows, load_corpus, stream
from glm_annotate.train.families.family import Network
from glm_annotate.train.losses import (
    IGNORED,
    Masked,
    base_loss,
    class_weights,
    mask_batch,
    next_labels,
    runs_of,
    shifted,
    summed_loss,
    total_weight,
)
from glm_annotate.train.objective import Batch, Measured, Record, device_of
from glm_annotate.train.tokens import Block, Tokens, encode_block, read_tokens
from glm_annotate.train.trainable import check_trainable, find_family, rows_of_window

# Bases and windows of a pass over held-out data.
_PASS_BASES, _PASS_WINDOWS = 65536, 128


@dataclass(frozen=True, slots=True)
class Reader:
    """A network, and how windows become its rows.

    Attributes:
        config: Of the run.
        network: Fresh.
        encoder: Of its rows.
        tokens: What its ids mean.
        tokenizer: Text of `tokenizer.json`, for a bpe encoder.
    """

    config: TrainConfig
    network: Network
    encoder: Encoder
    tokens: Tokens
    tokenizer: str | None

    def rows(self, windows: Windows) -> Block:
        """Encode windows."""
        data = self.config.data
        return encode_block(
            self.encoder, windows.codes, data.rows, windows.soft, data.repeat_weight
        )

    def passes(self, windows: Windows) -> Iterator[Block]:
        """Encode windows in parts that fit into memory."""
        size = max(1, min(_PASS_WINDOWS, _PASS_BASES // self.config.data.context))
        for start in range(0, len(windows.codes), size):
            # Held-out repeats count as the rest does.
            yield self.rows(Windows(windows.codes[start : start + size]))


def make_reader(config: TrainConfig, home: Path) -> Reader:
    """Build network and encoder of a config.

    Raises:
        InputError: They do not fit each other or the objective.
    """
    family = find_family(config.family)
    path = home / config.tokenizer if config.tokenizer else None
    try:
        encoder = make_encoder(config.encoder, path)
    except BundleError as error:
        raise InputError(f"{path or 'encoder'}: {error}") from error
    tokens = read_tokens(config.encoder, encoder, path)
    rows = rows_of_window(config.encoder, config.data.context, config.data.rows)
    network = check_trainable(family, family.build(config.model), config, tokens, rows)
    text = path.read_text(encoding="utf-8") if path else None
    return Reader(config, network, encoder, tokens, text)


def read_corpus(config: TrainConfig, home: Path, data: Path) -> Corpus:
    """Read the windows of a config.

    Raises:
        InputError: They cannot be read, or nothing is held out.
    """
    corpus = load_corpus(config.data, data, home)
    if not corpus.valid:
        raise InputError(
            "data.validation: nothing is held out, so nothing would tell learning from memory; "
            "name contigs (validation) or a group (held_out = true)"
        )
    return corpus


class MaskedRows:
    """Predict hidden rows from those around them."""

    def __init__(self, config: TrainConfig, home: Path, data: Path) -> None:
        self.config, self.reader = config, make_reader(config, home)
        self.corpus = read_corpus(config, home, data)
        self.network: nn.Module = self.reader.network
        self.runs = runs_of(config.mask, self.reader.tokens)
        size = self.reader.network.vocabulary
        self.by_id = class_weights(self.reader.tokens, config.mask, size)

    def record(self) -> Record:
        """Say what was read and held out."""
        return record_of(self.corpus, self.reader)

    def batch(self, step: int, anneal: float) -> Batch:
        """Draw windows and hide some of their rows: rows, labels and perhaps weights, (B, T)."""
        config, mask = self.config, self.config.mask
        block = self.reader.rows(self.corpus.windows(config.seed, step, config.optim.batch, anneal))
        masked = mask_batch(
            block.rows,
            self.reader.tokens,
            stream(config.seed, step, MASKS),
            rate=mask.rate.at(anneal),
            keep=mask.keep,
            random=mask.random,
            runs=self.runs,
        )
        return as_batch(masked, row_weights(block.weights, masked.labels, self.by_id))

    def weight(self, batch: Batch) -> Tensor:
        """Count the hidden rows, or sum their weights."""
        return total_weight(batch["labels"], batch.get("weights"))

    def total(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum the cross-entropy of the hidden rows."""
        return summed_loss(model(batch["rows"]), batch["labels"], batch.get("weights"))

    def validate(self, model: nn.Module) -> dict[str, Measured]:
        """Measure each held-out group: nats a base over the words of A, C, G, T."""
        return {
            name: masked_entropy(model, self.reader, self.corpus.held_out(name))
            for name in self.corpus.valid
        }


class NextRow:
    """Predict each row from those before it."""

    def __init__(self, config: TrainConfig, home: Path, data: Path) -> None:
        self.config, self.reader = config, make_reader(config, home)
        self.corpus = read_corpus(config, home, data)
        self.network: nn.Module = self.reader.network

    def record(self) -> Record:
        """Say what was read and held out."""
        return record_of(self.corpus, self.reader)

    def batch(self, step: int, anneal: float) -> Batch:
        """Draw windows: rows, what follows each, and perhaps weights, (B, T)."""
        config = self.config
        block = self.reader.rows(self.corpus.windows(config.seed, step, config.optim.batch, anneal))
        labels = next_labels(block.rows, self.reader.tokens)
        weights = None if block.weights is None else shifted(block.weights)
        return as_batch(Masked(block.rows, labels), weights)

    def weight(self, batch: Batch) -> Tensor:
        """Count the rows that are asked, or sum their weights."""
        return total_weight(batch["labels"], batch.get("weights"))

    def total(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum the cross-entropy of the rows that stand for bases and have one before them."""
        return summed_loss(model(batch["rows"]), batch["labels"], batch.get("weights"))

    def validate(self, model: nn.Module) -> dict[str, Measured]:
        """Measure each held-out group: nats a base over the words of A, C, G, T."""
        reader = self.reader
        found = {}
        for name in self.corpus.valid:
            blocks = reader.passes(self.corpus.held_out(name))
            asked = (Masked(x.rows, next_labels(x.rows, reader.tokens)) for x in blocks)
            found[name] = entropy(model, reader.tokens, asked)
        return found


def row_weights(
    weights: NDArray[np.float32] | None,
    labels: NDArray[np.int64],
    by_id: NDArray[np.float32] | None,
) -> NDArray[np.float32] | None:
    """Multiply weights of rows by those of what they stand for, shape (B, T)."""
    if by_id is None:
        return weights
    of_labels = by_id[np.where(labels == IGNORED, 0, labels)]
    return of_labels if weights is None else weights * of_labels


def as_batch(masked: Masked, weights: NDArray[np.float32] | None) -> Batch:
    """Make tensors of rows, labels and weights."""
    batch = {"rows": torch.from_numpy(masked.rows), "labels": torch.from_numpy(masked.labels)}
    if weights is not None:
        batch["weights"] = torch.from_numpy(weights)
    return batch


def record_of(corpus: Corpus, reader: Reader) -> Record:
    """Say what a run over a corpus has read and held out."""
    groups = {group.name: list(group.contigs) for group in corpus.groups}
    valid = {name: list(group.contigs) for name, group in corpus.valid.items()}
    return Record(corpus.files, groups, valid, reader.tokenizer)


def masked_entropy(model: nn.Module, reader: Reader, windows: Windows) -> Measured:
    """Measure a network on windows, with the same masks every time, all hidden by the mask."""
    config = reader.config.mask
    rng, runs = stream(0, 0, MASKS), runs_of(config, reader.tokens)
    blocks = reader.passes(windows)
    asked = (
        mask_batch(x.rows, reader.tokens, rng, rate=config.valid_rate, runs=runs) for x in blocks
    )
    return entropy(model, reader.tokens, asked)


def entropy(model: nn.Module, tokens: Tokens, blocks: Iterator[Masked]) -> Measured:
    """Measure cross-entropy over the words of A, C, G, T: nats a base, and how many bases."""
    device = device_of(model)
    ids = torch.from_numpy(tokens.ids).to(device)
    total, count = 0.0, 0
    for block in blocks:
        logits = model(torch.from_numpy(block.rows).to(device))
        loss, _ = base_loss(logits, torch.from_numpy(block.labels).to(device), ids)
        total += loss
        count += tokens.count(block.labels[block.labels != IGNORED])
    return Measured(total / max(1, count), count)
