"""The objective of fine-tuning: batches of examples, their losses, and figures on held-out ones.

Decisions: each pass over the examples has an order of its own, a function of seed and pass, and a
step takes the next ones of it. Validation predicts as the bundle will: averaged over the strands
that the bundle reads.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from glm_annotate.encoding import Encoder
from glm_annotate.errors import InputError
from glm_annotate.genome import Codes, reverse_complement
from glm_annotate.train.config import TrainConfig
from glm_annotate.train.data import stream
from glm_annotate.train.families.with_head import FAMILY
from glm_annotate.train.finetune.config import FinetuneConfig
from glm_annotate.train.finetune.data import Examples, Floats, load_examples
from glm_annotate.train.finetune.figures import measure
from glm_annotate.train.finetune.model import count_parameters, encoder_of, open_model
from glm_annotate.train.objective import Batch, Measured, Record, device_of

logger = logging.getLogger(__name__)

_ORDER, _FLIPS = 11, 12
# Windows that are run together outside of training.
_TOGETHER = 64


@dataclass(frozen=True, slots=True)
class Ready:
    """Examples as the network reads them, by strand: shape (strands, n, ...).

    Attributes:
        rows: Token ids, padded; `lengths`: how many count, (strands, n).
        pooled: Pooled embeddings (strands, n, D) where they are kept; `rows` are then not read.
        targets: Shape (n, targets).
    """

    rows: NDArray[np.int64]
    lengths: NDArray[np.int64]
    targets: Floats
    pooled: Floats | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, index: NDArray[np.int64], strand: NDArray[np.int64]) -> Batch:
        """Take examples, each on one of the strands."""
        out = {"targets": torch.from_numpy(self.targets[index])}
        if self.pooled is not None:
            return out | {"pooled": torch.from_numpy(self.pooled[strand, index])}
        lengths = self.lengths[strand, index]
        rows = self.rows[strand, index, : lengths.max()]
        return out | {"rows": torch.from_numpy(rows), "lengths": torch.from_numpy(lengths)}


class Finetune:
    """What a run with a `[finetune]` table learns; see `objective.Objective`.

    Args:
        config: Of the run.
        home: Folder of the config file, which source and run folder are relative to.
        data: Folder of the examples.

    Raises:
        InputError: The model, the examples or their combination are not usable.
    """

    def __init__(self, config: TrainConfig, home: Path, data: Path) -> None:
        if config.finetune is None:
            raise InputError("objective = 'finetune' needs a table [finetune]")
        if config.family != FAMILY.name or config.model:
            raise InputError(
                f"family is {config.family!r}; with objective = 'finetune' it is {FAMILY.name!r} "
                "and [model] is empty: finetune.source tells what the model is"
            )
        self.config, self.seed = config.finetune, config.seed
        self.size, self.windows = config.optim.batch, config.data
        if config.optim.name == "muon" and self.config.mode in ("frozen", "embeddings"):
            raise InputError(
                f"optim.name: muon is for matrices of the model, and finetune.mode = "
                f"{self.config.mode} trains none; use adamw"
            )
        classes = self.config.loss == "cross_entropy"
        split = self.split = load_examples(
            self.config.examples, data, config.data.context, config.seed, classes=classes
        )
        self.tuned = open_model(
            self.config,
            home,
            split.outputs,
            context=config.data.context,
            reverse_complement=config.data.reverse_complement,
        )
        self.network: nn.Module = self.tuned
        encoder = encoder_of(self.tuned.facts)
        self.train, self.valid = (self._ready(x, encoder) for x in (split.train, split.valid))
        if config.run.strategy == "fsdp" and np.unique(self.train.lengths).size > 1:
            raise InputError(
                "run.strategy: with fsdp all devices have to run the same passes, and windows of "
                "this model have different numbers of rows; use ddp"
            )
        self._standardise()
        _check_values(self.config, split.train, split.valid)
        if self.config.mode == "embeddings":
            folder = home / config.run.out
            self.train, self.valid = (self._keep(x, folder) for x in (self.train, self.valid))
        trained, whole = count_parameters(self.tuned)
        logger.info(
            "finetune, %s: %s of %s parameters are trained; %d examples, %d held out",
            self.config.mode, f"{trained:,}", f"{whole:,}", len(self.train), len(self.valid),
        )  # fmt: skip

    def batch(self, step: int, anneal: float) -> Batch:
        """Take the examples of a step, each on a strand."""
        n = len(self.train)
        place = step * self.size + np.arange(self.size)
        index = np.empty(self.size, dtype=np.int64)
        for turn in np.unique(place // n).tolist():
            order = stream(self.seed, turn, _ORDER).permutation(n)
            here = place // n == turn
            index[here] = order[place[here] % n]
        strands = len(self.train.lengths)
        flips = stream(self.seed, step, _FLIPS)
        return self.train.batch(index, flips.integers(strands, size=self.size))

    def weight(self, batch: Batch) -> Tensor:
        """Count the known values."""
        return (~batch["targets"].isnan()).sum().to(torch.float32)

    def total(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum the losses over all known values."""
        return self._losses(model(_inputs(batch)), batch["targets"])

    def validate(self, model: nn.Module) -> dict[str, Measured]:
        """Measure predictions of the held-out examples, averaged over strands."""
        network, was_training = self.tuned, model.training
        model.eval()
        device = device_of(network)
        strands = len(self.valid.lengths)
        predictions = []
        with torch.no_grad():
            for index in _blocks(len(self.valid)):
                total = torch.zeros(())
                for strand in range(strands):
                    batch = self.valid.batch(index, np.full(index.size, strand))
                    inputs = {key: x.to(device) for key, x in _inputs(batch).items()}
                    total = total + network.activate(model(inputs).float()).cpu() / strands
                predictions.append(total)
        model.train(was_training)
        found = torch.cat(predictions).numpy().astype(np.float64)
        return measure(self.config.loss, found, self.valid.targets.astype(np.float64))

    def record(self) -> Record:
        """Say what was read and held out."""
        groups = self.split.train.contigs, self.split.valid.contigs
        train, valid = (sorted(set(names) - {""}) for names in groups)
        return Record(
            self.split.files,
            {"examples": train or [f"{len(self.train)} sequences"]},
            {"examples": valid or [f"{len(self.valid)} sequences, with their relatives"]},
        )

    def _losses(self, raw: Tensor, targets: Tensor) -> Tensor:
        raw = raw.float()
        if self.config.loss == "cross_entropy":
            return functional.cross_entropy(raw, targets[:, 0].long(), reduction="sum")
        known = ~targets.isnan()
        wanted = targets.nan_to_num()
        match self.config.loss:
            case "mse":
                shift, scale = (x.to(raw.device) for x in (self.tuned.shift, self.tuned.scale))
                losses = (raw - (wanted - shift) / scale).square()
            case "poisson":
                rate = functional.softplus(raw)
                losses = rate - wanted * (rate + 1e-6).log()
            case _:
                losses = functional.binary_cross_entropy_with_logits(raw, wanted, reduction="none")
        return losses[known].sum()

    def _ready(self, examples: Examples, encoder: Encoder) -> Ready:
        """Encode examples on the strands that are read."""
        both = [examples.codes]
        if self.windows.reverse_complement:
            both.append(reverse_complement(examples.codes))
        encoded = [_encode(codes, encoder) for codes in both]
        longest = max(rows.shape[1] for rows, _ in encoded)
        most = self.tuned.facts.max_rows
        if most is not None and longest > most:
            raise InputError(
                f"data.context: a window of {self.windows.context} bases has {longest} rows, "
                f"the model takes at most {most}; shorten it"
            )
        wide = [np.pad(rows, ((0, 0), (0, longest - rows.shape[1]))) for rows, _ in encoded]
        return Ready(np.stack(wide), np.stack([x for _, x in encoded]), examples.targets)

    def _standardise(self) -> None:
        """Set what values are shifted and scaled by: mean and spread of those trained on."""
        if self.config.loss != "mse":
            return
        values = self.train.targets.astype(np.float64)
        spread = np.nanstd(values, axis=0)
        spread[~(spread > 0)] = 1.0
        self.tuned.shift.copy_(torch.from_numpy(np.nanmean(values, axis=0)))
        self.tuned.scale.copy_(torch.from_numpy(spread))

    def _keep(self, ready: Ready, folder: Path) -> Ready:
        """Run every window through the model once, or read what an earlier run kept of it."""
        digest = hashlib.sha256(self.tuned.text.numpy().tobytes())
        for name, value in self.tuned.trunk.state_dict().items():
            digest.update(name.encode() + value.numpy().tobytes())
        digest.update(ready.rows.tobytes() + ready.lengths.tobytes())
        path = folder / f"embeddings.{digest.hexdigest()[:16]}.npy"
        if path.is_file():
            kept: Floats = np.load(path)
            return Ready(ready.rows, ready.lengths, ready.targets, kept)
        parts = []
        with torch.no_grad():
            for rows, lengths in zip(ready.rows, ready.lengths, strict=True):
                blocks = [
                    self.tuned.pool_each(
                        torch.from_numpy(rows[index]), torch.from_numpy(lengths[index])
                    )
                    for index in _blocks(len(ready))
                ]
                parts.append(torch.cat(blocks).numpy())
        pooled = np.stack(parts)
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part.npy")
        np.save(temporary, pooled)
        temporary.replace(path)
        return Ready(ready.rows, ready.lengths, ready.targets, pooled)


def _inputs(batch: Batch) -> Batch:
    """Leave the targets out of what the network reads."""
    return {key: x for key, x in batch.items() if key != "targets"}


def _blocks(n: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, n, _TOGETHER):
        yield np.arange(start, min(n, start + _TOGETHER))


def _encode(codes: Codes, encoder: Encoder) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Encode windows (n, context) into padded rows (n, T) and their numbers of rows (n,)."""
    groups = encoder.encode(codes)
    longest = max(group.rows.shape[1] for group in groups)
    rows = np.zeros((len(codes), longest), dtype=np.int64)
    lengths = np.empty(len(codes), dtype=np.int64)
    for group in groups:
        rows[group.index, : group.rows.shape[1]] = group.rows
        lengths[group.index] = group.rows.shape[1]
    return rows, lengths


def _check_values(config: FinetuneConfig, *parts: Examples) -> None:
    """Refuse values that the loss cannot be of.

    Raises:
        InputError: A negative count, something else than 0 or 1, or a target never given.
    """
    allowed = {"poisson": (0.0, np.inf), "bce": (0.0, 1.0)}.get(config.loss)
    for part in parts:
        known = part.targets[~np.isnan(part.targets)]
        if allowed and ((known < allowed[0]) | (known > allowed[1])).any():
            raise InputError(
                f"finetune.loss: {config.loss} is for values from {allowed[0]:g} to "
                f"{allowed[1]:g}; found {known.min():g} to {known.max():g}"
            )
        if np.isnan(part.targets).all(axis=0).any():
            raise InputError("finetune.examples.targets: one has no value on one side of the split")
