"""The contrastive objective: tell the homolog of a sequence from those of other sequences.

After the idea of Lu, Lu and Moses (2020) that evolution is the augmentation which keeps function,
and that views should be homologous sequences: InfoNCE over pooled embeddings of two species'
windows, alone or added to the masked loss of the same pass. What each pair is told from are the
other pairs of its part of the batch, so that more devices or parts mean fewer others.
"""

from __future__ import annotations

from pathlib import Path
from types import MethodType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from glm_annotate.genome import Codes
from glm_annotate.train.config import TrainConfig
from glm_annotate.train.data import MASKS, Windows, stream
from glm_annotate.train.families.family import Network
from glm_annotate.train.homologs import Pairs, load_homologs
from glm_annotate.train.language import make_reader
from glm_annotate.train.losses import IGNORED, info_nce, mask_batch, runs_of
from glm_annotate.train.objective import Batch, Measured, Record, device_of


def both(network: Network, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Give embeddings (B, T, D) and logits (B, T, V) of one pass."""
    embedding = network.embed(rows)
    return embedding, network.decode(embedding)


class Contrastive:
    """Bring the embeddings of homologs together, and those of others apart."""

    def __init__(self, config: TrainConfig, home: Path, data: Path) -> None:
        self.config, self.reader = config, make_reader(config, home)
        self.homologs = load_homologs(config, data, home)
        network = self.reader.network
        # Devices only see what goes through `forward`, and checkpoints keep the family's names.
        network.forward = MethodType(both, network)  # type: ignore[method-assign]
        self.network: nn.Module = network
        self.masked = config.contrastive.masked_weight
        self.runs = runs_of(config.mask, self.reader.tokens) if self.masked else None

    def record(self) -> Record:
        """Say what was read and held out."""
        homologs = self.homologs
        groups, valid = {"sets": list(homologs.train)}, {"sets": list(homologs.valid)}
        return Record(homologs.files, groups, valid, self.reader.tokenizer)

    def batch(self, step: int, anneal: float) -> Batch:
        """Draw pairs: rows and labels of both views, (B, 2, T), and the set of each, (B,)."""
        mask = self.config.mask
        rng = stream(self.config.seed, step, MASKS)
        return self._batch(
            self.homologs.pairs(step), rng, mask.rate.at(anneal), mask.keep, mask.random
        )

    def weight(self, batch: Batch) -> Tensor:
        """Count the pairs."""
        return torch.tensor(float(len(batch["set"])), device=batch["set"].device)

    def total(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum InfoNCE over pairs, and the weighted mean masked loss of each pair's windows."""
        settings = self.config.contrastive
        one, other, logits = self._embed(model, batch)
        loss = info_nce(
            one, other, batch["set"], settings.temperature, symmetric=settings.symmetric
        )
        if not self.masked:
            return loss + 0 * logits.sum()  # devices wait for the gradient of every weight
        return loss + self.masked * _masked_means(logits, batch["labels"]).mean(dim=1).sum()

    def validate(self, model: nn.Module) -> dict[str, Measured]:
        """Measure held-out sets: InfoNCE, how often the homolog is the nearest, masked loss."""
        device, settings = device_of(model), self.config.contrastive
        rng = stream(0, 0, MASKS)
        loss, hits, masked, count = 0.0, 0, 0.0, 0
        for pairs in self.homologs.held_out():
            batch = self._batch(pairs, rng, self.config.mask.valid_rate, 0.0, 0.0)
            batch = {key: value.to(device) for key, value in batch.items()}
            one, other, logits = self._embed(model, batch)
            sets, same = batch["set"], torch.arange(len(batch["set"]), device=device)
            loss += float(
                info_nce(one, other, sets, settings.temperature, symmetric=settings.symmetric)
            )
            near = functional.normalize(one, dim=-1) @ functional.normalize(other, dim=-1).T
            hits += int((near.argmax(dim=1) == same).sum())
            if self.masked:
                masked += float(_masked_means(logits, batch["labels"]).mean(dim=1).sum())
            count += len(sets)
        found = {
            "contrastive": Measured(loss / count, count),
            "retrieval": Measured(hits / count, count, "higher"),
        }
        if self.masked:
            found["masked"] = Measured(masked / count, count)
        return found

    def _batch(
        self, pairs: Pairs, rng: np.random.Generator, rate: float, keep: float, random: float
    ) -> Batch:
        rows = np.stack([self._rows(pairs.one), self._rows(pairs.other)], axis=1)  # (B, 2, T)
        known = np.isin(rows, self.reader.tokens.ids)
        labels = np.full(rows.shape, IGNORED, dtype=np.int64)
        if self.masked:
            flat = rows.reshape(-1, rows.shape[2])
            masked = mask_batch(
                flat, self.reader.tokens, rng, rate=rate, keep=keep, random=random, runs=self.runs
            )
            rows, labels = masked.rows.reshape(rows.shape), masked.labels.reshape(rows.shape)
        return {
            "rows": torch.from_numpy(rows),
            "labels": torch.from_numpy(labels),
            "known": torch.from_numpy(known),
            "set": torch.from_numpy(pairs.sets),
        }

    def _rows(self, codes: Codes) -> NDArray[np.int64]:
        return self.reader.rows(Windows(codes)).rows

    def _embed(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Give the mean embedding of each view's bases, (B, D) twice, and logits (B, 2, T, V)."""
        rows = batch["rows"]
        embedding, logits = model(rows.flatten(0, 1))
        known = batch["known"].flatten(0, 1)[..., None].float()
        mean = (embedding.float() * known).sum(dim=1) / known.sum(dim=1).clamp(min=1)
        views = mean.unflatten(0, rows.shape[:2])
        return views[:, 0], views[:, 1], logits.unflatten(0, rows.shape[:2])


def _masked_means(logits: Tensor, labels: Tensor) -> Tensor:
    """Give the mean cross-entropy of each window's hidden rows, shape (B, 2)."""
    losses = functional.cross_entropy(
        logits.flatten(0, 2).float(), labels.flatten(), ignore_index=IGNORED, reduction="none"
    ).view(labels.shape)
    return losses.sum(dim=-1) / (labels != IGNORED).sum(dim=-1).clamp(min=1)
