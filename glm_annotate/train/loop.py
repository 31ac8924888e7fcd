"""The training loop: a config and FASTA files in, checkpoints and two CSV logs out.

`log.csv` has a row every `log_every` steps, `valid.csv` one for each group at each validation,
which reads the averaged weights. Decisions: masks and windows are functions of (seed, step), so a
resumed run repeats an uninterrupted one exactly on the same machine and number of threads.
"""

from __future__ import annotations

import csv
import logging
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from glm_annotate.encoding import Encoder, make_encoder
from glm_annotate.errors import InputError
from glm_annotate.genome import Codes
from glm_annotate.train import checkpoints
from glm_annotate.train.config import TrainConfig, data_folder, load_config
from glm_annotate.train.data import MASKS, Corpus, load_corpus, stream
from glm_annotate.train.families import FAMILIES, Family
from glm_annotate.train.families.family import Network
from glm_annotate.train.families.predictor import Predictor
from glm_annotate.train.losses import base_loss, base_tokens, class_weights, mask_batch, masked_loss
from glm_annotate.train.optim import Average, anneal_fraction, learning_rate, make_optimizers

logger = logging.getLogger(__name__)

LAST, BEST = "last.ckpt", "best.ckpt"
_LOG_COLUMNS = ("step", "bases", "loss", "lr", "mask_rate", "seconds")
_VALID_COLUMNS = ("step", "bases", "group", "cross_entropy", "positions")


def train(
    config_path: str | Path, *, resume: bool = False, data: str | None = None, stop: int = 0
) -> Path:
    """Run a config to its last step.

    Args:
        config_path: TOML file.
        resume: Continue from the last checkpoint of the run, if it has one.
        data: Data folder, in place of `GLM_ANNOTATE_DATA` and the config's `data.root`.
        stop: Leave with a checkpoint after this many steps; 0 runs to the end.

    Returns:
        The last checkpoint.

    Raises:
        InputError: The config, data or checkpoint is not usable, or the run exists already and
            `resume` is False.
    """
    config = load_config(config_path)
    home = Path(config_path).parent
    out = home / config.run.out
    if (out / LAST).exists() and not resume:
        raise InputError(f"{out}: holds a run already; continue it with --resume or move it away")
    corpus = load_corpus(config.data, data_folder(config_path, config, data), home)
    out.mkdir(parents=True, exist_ok=True)
    run = _Run(config, home, corpus, out)
    if resume and (out / LAST).exists():
        run.restore(checkpoints.load(out / LAST))
    run.loop(min(stop, config.optim.steps) if stop else config.optim.steps)
    return out / LAST


def find_family(name: str) -> Family:
    """Look a family up by name.

    Raises:
        InputError: There is no such family.
    """
    if name not in FAMILIES:
        raise InputError(f"family {name!r} is unknown; known are {', '.join(sorted(FAMILIES))}")
    return FAMILIES[name]


def check_trainable(
    family: Family, network: Network | Predictor, encoder: Encoder, context: int
) -> Network:
    """Refuse what masked training over single bases cannot feed or would train wrongly.

    Raises:
        InputError: The family predicts the next base or reads an alignment, or ids or rows of the
            encoder do not fit into the network.
    """
    if isinstance(network, Predictor) or family.objective != "masked" or network.channels:
        reads = isinstance(network, Network) and network.channels
        kind = "reads an alignment" if reads else f"is {family.objective}"
        raise InputError(
            f"family {family.name!r} {kind} and cannot be trained, which is by masking bases "
            "alone; export an official checkpoint of it, or choose another family"
        )
    vocab = encoder.spec.vocab
    largest = max(int(base_tokens(encoder).max()), *vocab.named_ids())
    if largest >= network.vocabulary:
        raise InputError(
            f"model.vocabulary: found {network.vocabulary}, wanted more than {largest}, "
            "the largest id of the encoder"
        )
    rows = context + len(vocab.prefix) + len(vocab.suffix)
    if network.max_rows is not None and rows > network.max_rows:
        raise InputError(
            f"data.context: found {context}, which is {rows} rows; the network takes at most "
            f"{network.max_rows}; shorten the window, or raise its positions in [model]"
        )
    return network


class _Run:
    """One run: what changes from step to step, and the steps."""

    def __init__(self, config: TrainConfig, home: Path, corpus: Corpus, out: Path) -> None:
        self.config, self.corpus, self.out = config, corpus, out
        if config.run.threads:
            torch.set_num_threads(config.run.threads)
        torch.manual_seed(config.seed)
        family = find_family(config.family)
        self.encoder: Encoder = make_encoder(config.encoder)
        built = family.build(config.model)
        self.network = check_trainable(family, built, self.encoder, config.data.context)
        if config.init:
            self.network.load_state_dict(checkpoints.load(home / config.init).average)
        self.fabric = Fabric(accelerator="cpu", devices=1, precision=config.run.precision)
        self.optimizers: list[Optimizer] = make_optimizers(self.network, family, config.optim)
        self.model, *self.steppers = self.fabric.setup(self.network, *self.optimizers)
        self.average = Average(self.network, config.optim.ema)
        self.weights = class_weights(self.encoder, config.mask, self.network.vocabulary)
        self.step, self.seconds, self.best = 0, 0.0, math.inf
        self.quality: dict[str, float] = {}

    def restore(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Continue from a checkpoint; log rows written after it are dropped."""
        _check_same(self.out, checkpoint.settings(), self.config)
        self.network.load_state_dict(checkpoint.weights)
        self.average.weights = checkpoint.average
        for optimizer, state in zip(self.optimizers, checkpoint.optimizers, strict=True):
            optimizer.load_state_dict(state)
        torch.set_rng_state(checkpoint.random)
        self.step, self.seconds = checkpoint.step, checkpoint.seconds
        self.best, self.quality = checkpoint.best, dict(checkpoint.quality)
        _drop_after(self.out / "log.csv", self.step)
        _drop_after(self.out / "valid.csv", self.step)
        logger.info("continue at step %d", self.step)

    def loop(self, end: int) -> None:
        """Train until `end` steps are done; the run's last step is followed by a validation."""
        settings, saved = self.config.run, time.monotonic()
        while self.step < end:
            loss = self._train_step()
            last = self.step == self.config.optim.steps
            if self.step % settings.log_every == 0 or last:
                self._log(loss)
            if last or (settings.valid_every and self.step % settings.valid_every == 0):
                self.validate()
            due = time.monotonic() - saved > 60 * settings.save_minutes
            if due or (settings.save_every and self.step % settings.save_every == 0):
                self.save(LAST)
                saved = time.monotonic()
        self.save(LAST)

    def validate(self) -> None:
        """Measure the averaged weights on every held-out group, and keep them if they are best."""
        weights = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.average.weights)
        for name in self.corpus.valid:
            windows = self.corpus.validation(name)
            loss, count = cross_entropy(self.model, self.encoder, windows, self.config)
            self.quality[name] = loss
            row = (self.step, self._bases(), name, f"{loss:.5f}", count)
            _append(self.out / "valid.csv", _VALID_COLUMNS, row)
        self.network.load_state_dict(weights)
        chosen = self.config.run.select or list(self.quality)
        score = float(np.mean([self.quality[name] for name in chosen])) if chosen else math.inf
        logger.info("step %d: held-out cross-entropy %.4f", self.step, score)
        if score < self.best:
            self.best = score
            self.save(BEST)

    def save(self, name: str) -> None:
        """Write the state of the run into its folder."""
        state = checkpoints.Checkpoint(
            config=self.config.model_dump_json(),
            step=self.step,
            seconds=self.seconds,
            weights=self.network.state_dict(),
            average=self.average.weights,
            optimizers=[optimizer.state_dict() for optimizer in self.optimizers],
            random=torch.get_rng_state(),
            quality=self.quality,
            best=self.best,
            groups={group.name: list(group.contigs) for group in self.corpus.groups},
            valid={name: list(group.contigs) for name, group in self.corpus.valid.items()},
        )
        checkpoints.save(self.out / name, state)

    def _train_step(self) -> float:
        began, optim = time.monotonic(), self.config.optim
        rows, labels = self._batch(self.step)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(self.step, optim)
        loss = masked_loss(self.model(rows), labels, self.weights)
        self.fabric.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), optim.clip)
        for stepper in self.steppers:
            stepper.step()
            stepper.zero_grad()
        self.average.update(self.network, self.step)
        self.step += 1
        self.seconds += time.monotonic() - began
        value = float(loss.detach())
        if not math.isfinite(value):
            raise InputError(f"{self.out}: the loss is {value} at step {self.step}; lower optim.lr")
        return value

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Make the masked batch of a step: rows and labels, shape (B, T)."""
        anneal, mask = anneal_fraction(step, self.config.optim), self.config.mask
        codes = self.corpus.batch(self.config.seed, step, self.config.optim.batch, anneal)
        masked = mask_batch(
            encode_windows(self.encoder, codes),
            self.encoder,
            stream(self.config.seed, step, MASKS),
            rate=mask.rate.at(anneal),
            keep=mask.keep,
            random=mask.random,
        )
        return torch.from_numpy(masked.rows), torch.from_numpy(masked.labels)

    def _bases(self) -> int:
        return self.step * self.config.optim.batch * self.config.data.context

    def _log(self, loss: float) -> None:
        optim, rate = self.config.optim, self.config.mask.rate
        at = self.step - 1  # the step that has just been done
        row = (
            self.step,
            self._bases(),
            f"{loss:.6f}",
            f"{learning_rate(at, optim):.3g}",
            f"{rate.at(anneal_fraction(at, optim)):.3g}",
            f"{self.seconds:.1f}",
        )
        _append(self.out / "log.csv", _LOG_COLUMNS, row)


def encode_windows(encoder: Encoder, codes: Codes) -> NDArray[np.int64]:
    """Encode windows of one length into one block of rows, shape (B, T).

    Raises:
        InputError: The encoder gives the windows different numbers of rows.
    """
    encoded = encoder.encode(codes)
    if len(encoded) != 1:
        raise InputError("training needs an encoder that gives equal windows equal numbers of rows")
    rows: NDArray[np.int64] = encoded[0].rows.astype(np.int64)
    return rows


@torch.no_grad()
def cross_entropy(
    model: torch.nn.Module, encoder: Encoder, windows: Codes, config: TrainConfig
) -> tuple[float, int]:
    """Measure a network on windows (n, context): nats a masked base over A, C, G, T, and bases."""
    bases = torch.from_numpy(base_tokens(encoder))
    rng = stream(0, 0, MASKS)  # the same masks at every validation
    total, count = 0.0, 0
    model.eval()
    for start in range(0, len(windows), 128):
        rows = encode_windows(encoder, windows[start : start + 128])
        masked = mask_batch(rows, encoder, rng, rate=config.mask.valid_rate)
        logits = model(torch.from_numpy(masked.rows))
        loss, asked = base_loss(logits, torch.from_numpy(masked.labels), bases)
        total, count = total + loss, count + asked
    model.train()
    return total / max(1, count), count


def _check_same(out: Path, old: TrainConfig, new: TrainConfig) -> None:
    """Refuse to continue a run under another model, data set or vocabulary."""
    for part in ("family", "model", "encoder", "data", "seed"):
        if getattr(old, part) != getattr(new, part):
            raise InputError(
                f"{out}: the run was started with another {part!r} than the config has now; "
                "put it back, or start afresh with another run.out"
            )


def _append(path: Path, columns: Sequence[str], row: Sequence[object]) -> None:
    fresh = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        if fresh:
            writer.writerow(columns)
        writer.writerow(row)


def _drop_after(path: Path, step: int) -> None:
    """Remove rows of later steps, which a resumed run writes again."""
    if not path.exists():
        return
    head, *rows = path.read_text(encoding="utf-8").splitlines()
    kept = [row for row in rows if int(row.split(",")[0]) <= step]
    temporary = path.with_name(path.name + ".part")
    temporary.write_text("\n".join([head, *kept]) + "\n", encoding="utf-8")
    os.replace(temporary, path)
