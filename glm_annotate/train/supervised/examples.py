"""Learning classes or numbers of sequences: FASTA, BED over a genome, tables, SATORI's files.

Every sequence is read once in as many steps as its data set is long: the order is a permutation
drawn from (seed, epoch). A sequence shorter than the network's window lies in its middle, with N
around it; of a longer one the middle is read.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from glm_annotate.errors import InputError
from glm_annotate.genome import Codes, reverse_complement
from glm_annotate.train.objective import Batch, Measured, Record
from glm_annotate.train.supervised import losses
from glm_annotate.train.supervised.config import LossConfig, SupervisedConfig
from glm_annotate.train.supervised.exporting import track_table
from glm_annotate.train.supervised.leakage import (
    check,
    clusters,
    measure,
    sketch,
    without_adapters,
)
from glm_annotate.train.supervised.measures import (
    auroc,
    average_precision,
    mean_of_known,
    pearson,
    ratio,
    spearman,
)
from glm_annotate.train.supervised.reading import Example, read_labels, read_numbers
from glm_annotate.train.supervised.splits import assign
from glm_annotate.train.supervised.windows import (
    ORDER,
    WINDOWS,
    Setup,
    encode,
    evaluating,
    make_window_encoder,
    one_number,
    predictor_of,
    run,
    stream,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """Numbers of the examples of each part."""

    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    test: NDArray[np.int64]


class ExamplesObjective:
    """Classes or numbers of sequences, see `Objective`.

    Attributes:
        network: The predictor, of one bin a window.
        examples: All sequences.
        parts: Which are trained on.
    """

    def __init__(self, config: SupervisedConfig, network: nn.Module, setup: Setup) -> None:
        """Read data and check that the network fits them.

        Raises:
            InputError: Something does not fit, or held-out sequences leak.
        """
        self.config, self.seed, self.size = config, setup.seed, setup.batch
        self.predictor = predictor_of(network, "tracks", setup.family)
        self.network: nn.Module = self.predictor
        self.shape = one_number(self.predictor)
        self.encoder, self.data = make_window_encoder(), setup.data
        self.examples, self.classes = _read(config, self.shape.length, setup.home, setup.data)
        if config.labels is not None and not config.labels.classes:
            logger.info("classes: %s", ", ".join(self.classes))
        else:
            self.classes = track_table(config).identifiers
        if self.shape.tracks != len(self.classes):
            raise InputError(
                f"model: the network has {self.shape.tracks} tracks, the data "
                f"{len(self.classes)}: {', '.join(self.classes[:6])}"
            )
        self.values = np.stack([x.values for x in self.examples]).astype(np.float32)
        check_values(self.values, config.loss)
        self.parts = _split(config, self.examples)
        self.leakage = self._check_leakage()
        self._order = lru_cache(maxsize=2)(self._permute)

    def _check_leakage(self) -> object:
        """Compare sequences of the held-out parts with those trained on, each a window."""
        rule = self.config.leakage.model_copy(update={"window": 1 << 40})
        codes = without_adapters([x.codes for x in self.examples])
        training = sketch((codes[i] for i in self.parts.train.tolist()), rule.k, 1)
        others = np.concatenate([self.parts.valid, self.parts.test]).tolist()
        pairs = ((self.examples[i].name, codes[i]) for i in others)
        return check(measure(pairs, training, rule, 1), rule)

    def record(self) -> Record:
        """Say what was read, and how many sequences are held out: names would be too many."""
        sizes = {
            name: [f"{part.size} sequences"]
            for name, part in (("valid", self.parts.valid), ("test", self.parts.test))
            if part.size
        }
        return Record(
            files=files_of(self.config, self.data),
            groups={"train": [f"{self.parts.train.size} sequences"]},
            valid=sizes,
        )

    def _permute(self, epoch: int) -> NDArray[np.int64]:
        return stream(self.seed, epoch, ORDER).permutation(self.parts.train)

    def batch(self, step: int, anneal: float) -> Batch:
        """Take the next examples: `rows` (B, L) and `targets` (B, tracks)."""
        del anneal
        rng, augment = stream(self.seed, step, WINDOWS), self.config.augment
        count = self.parts.train.size
        places = np.arange(step * self.size, (step + 1) * self.size)
        chosen = [int(self._order(int(x) // count)[int(x) % count]) for x in places]
        shifts = rng.integers(-augment.shift, augment.shift + 1, size=self.size)
        codes = self._windows(chosen, shifts.tolist())
        flip = rng.random(self.size) < 0.5
        if augment.reverse_complement:
            codes[flip] = reverse_complement(codes[flip])
        return self._batch(codes, np.array(chosen))

    def _batch(self, codes: Codes, chosen: NDArray[np.int64]) -> Batch:
        return {
            "rows": torch.from_numpy(encode(self.encoder, codes)),
            "targets": torch.from_numpy(self.values[chosen]),
        }

    def _windows(self, chosen: Sequence[int], shifts: Sequence[int]) -> Codes:
        pairs = zip(chosen, shifts, strict=True)
        return np.stack([self.examples[i].window(self.shape.length, s) for i, s in pairs])

    def weight(self, batch: Batch) -> Tensor:
        """Count examples by track, or examples where classes exclude each other."""
        if self._exclusive:
            return batch["targets"].isfinite().all(1).sum().float()
        return losses.weight(batch["targets"][:, None], self._loss)

    def total(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum the losses."""
        return self._total(self.predict(model, batch["rows"]), batch["targets"])

    def predict(self, model: nn.Module, rows: Tensor) -> Tensor:
        """Predict (B, tracks)."""
        return run(model, self.predictor, rows, None)["tracks"].float()[:, 0]

    def _total(self, found: Tensor, wanted: Tensor) -> Tensor:
        if self._exclusive:
            share = found.clamp(min=losses.EPSILON)
            return -(wanted.nan_to_num() * torch.log(share)).sum()
        return losses.total(found[:, None], wanted[:, None], self._loss)

    @property
    def _exclusive(self) -> bool:
        return self.config.labels is not None and self.config.labels.exclusive

    @property
    def _loss(self) -> LossConfig:
        return self.config.loss

    def _held_out(self) -> Iterator[tuple[Batch, NDArray[np.int64]]]:
        most = self.config.batch_valid
        for start in range(0, self.parts.valid.size, most):
            chosen = self.parts.valid[start : start + most]
            codes = self._windows(chosen.tolist(), [0] * len(chosen))
            yield self._batch(codes, chosen), chosen

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, Measured]:
        """Measure the loss; AUROC and average precision of classes, or correlations of numbers."""
        device = next(self.network.parameters()).device
        found, wanted, loss, weight = [], [], 0.0, 0.0
        with evaluating(model):
            for cpu, _ in self._held_out():
                batch = {key: value.to(device) for key, value in cpu.items()}
                out = self.predict(model, batch["rows"])
                loss += float(self._total(out, batch["targets"]))
                weight += float(self.weight(batch))
                found.append(out.cpu().numpy())
                wanted.append(cpu["targets"].numpy())
        x, y = np.concatenate(found).astype(float), np.concatenate(wanted).astype(float)
        classes = self.config.labels is not None
        figures = {"auroc": auroc, "average_precision": average_precision} if classes else {}
        measured = {"loss": Measured(ratio(loss, weight), len(x))}
        for name, figure in figures.items():
            each = [figure(x[:, i], y[:, i] > 0.5) for i in range(x.shape[1])]
            measured[name] = Measured(mean_of_known(each), len(x), "higher")
        if not classes:
            measured |= correlations(x, y)
        return measured


def correlations(found: NDArray[np.float64], wanted: NDArray[np.float64]) -> dict[str, Measured]:
    """Give Pearson's and Spearman's correlation, (n, tracks), as means over tracks."""
    out = {}
    for name, figure in (("pearson", pearson), ("spearman", spearman)):
        each = []
        for x, y in zip(found.T, wanted.T, strict=True):
            known = np.isfinite(y)
            each.append(figure(x[known], y[known]) if known.sum() > 1 else float("nan"))
        out[name] = Measured(mean_of_known(each), len(found), "higher")
    return out


def check_values(values: NDArray[np.float32], config: LossConfig) -> None:
    """Refuse values that a loss is not made for.

    Raises:
        InputError: Counts below 0, or probabilities outside 0 to 1.
    """
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if config.kind == "bce" and (low < 0 or high > 1):
        raise InputError(f"loss bce: values go from {low:g} to {high:g}, wanted 0 to 1; use mse")
    if config.kind.startswith("poisson") and low < 0:
        raise InputError(
            f"loss {config.kind}: the least value is {low:g}, wanted 0 or more; raise the values "
            "with regression.offset, or use mse"
        )
    if config.coarse or config.kind == "poisson_multinomial":
        raise InputError("loss: coarse and poisson_multinomial are for tracks along bins")


def files_of(config: SupervisedConfig, data: Path) -> tuple[Path, ...]:
    """List the files of labels or numbers."""
    names: list[str | None] = []
    if config.labels is not None:
        prefix = config.labels.satori
        names += [config.labels.fasta, config.labels.bed]
        names += [f"{prefix}.txt", f"{prefix}.fa"] if prefix else []
    if config.regression is not None:
        names.append(config.regression.table)
    return tuple(data / name for name in names if name)


def _read(
    config: SupervisedConfig, length: int, home: Path, data: Path
) -> tuple[list[Example], tuple[str, ...]]:
    if config.labels is not None:
        return read_labels(config.labels, length, config.augment.shift, home, data)
    if config.regression is None:
        raise InputError("supervised: neither labels nor regression")
    return read_numbers(config.regression, data), config.regression.value


def _split(config: SupervisedConfig, examples: Sequence[Example]) -> Parts:
    rule = config.labels or config.regression
    if rule is None:
        raise InputError("supervised: neither labels nor regression")
    if rule.split is None:
        codes = [x.codes for x in examples]
        share = np.array([_share(x) for x in codes])
        if rule.homology:
            share = share[_clusters(codes, config.leakage.k)]
        held = share < rule.valid_share
        names = np.where(held, "valid", "train")
        chosen: tuple[tuple[str, ...], ...] = (("train",), ("valid",), ())
    else:
        names = np.array([x.group for x in examples])
        chosen = assign(rule.split, dict.fromkeys(names.tolist()), "the data")
    found = [np.flatnonzero(np.isin(names, list(part))) for part in chosen]
    if not found[0].size or not found[1].size:
        raise InputError(
            f"split: {found[0].size} sequences to train on and {found[1].size} held out; wanted "
            "some of both"
        )
    return Parts(*found)


def _clusters(codes: Sequence[Codes], k: int) -> NDArray[np.int64]:
    """Group homologous sequences.

    Raises:
        InputError: Most of them are in one group, so that a share of them cannot be held out.
    """
    found = clusters(without_adapters(codes), k)
    sizes = np.bincount(found)
    logger.info("%d groups of sequences, the largest of %d", (sizes > 0).sum(), sizes.max())
    if sizes.max() > len(codes) / 2:
        raise InputError(
            f"split: {sizes.max()} of {len(codes)} sequences hang together by words of {k} bases; "
            "name folds, or set homology = false and look at the leakage"
        )
    return found


def _share(codes: Codes) -> float:
    """Place a sequence between 0 and 1, the same whatever its strand."""
    both = min(codes.tobytes(), reverse_complement(codes).tobytes())
    return int.from_bytes(hashlib.sha256(both).digest()[:8], "big") / 2**64
