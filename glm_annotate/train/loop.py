"""The training loop: a config and its data in, checkpoints and logs out.

`log.csv` has a row every `log_every` steps, `valid.csv` one for each figure at each validation,
which reads the averaged weights. Decisions: a batch is a function of (seed, step), and so are the
random numbers that layers draw, so a resumed run repeats an uninterrupted one exactly on the same
machine and number of threads. Every device makes the whole batch and takes its share: what the
sum of losses is divided by is then known without asking the others, and gradients do not depend on
how a batch was cut.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from glm_annotate.errors import InputError
from glm_annotate.train import accounting, checkpoints
from glm_annotate.train.config import TrainConfig, data_folder, load_config
from glm_annotate.train.data import DROPOUT
from glm_annotate.train.logs import Logs
from glm_annotate.train.objective import Batch, Measured, Objective, Record, Recorded
from glm_annotate.train.objectives import make_objective
from glm_annotate.train.optim import Average, anneal_fraction, learning_rate, make_optimizers
from glm_annotate.train.sharing import load_optimizer, load_weights, make_fabric, whole
from glm_annotate.train.trainable import find_family

logger = logging.getLogger(__name__)

LAST, BEST = "last.ckpt", "best.ckpt"


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
    config, home = load_config(config_path), Path(config_path).parent
    folder = data_folder(config_path, config, data)
    out = home / config.run.out
    if (out / LAST).exists() and not resume:
        raise InputError(f"{out}: holds a run already; continue it with --resume or move it away")
    run = Run(config, home, folder, out)
    run.loop(min(stop, config.optim.steps) if stop else config.optim.steps)
    return out / LAST


class Run:
    """One run: what changes from step to step, and the steps."""

    def __init__(self, config: TrainConfig, home: Path, data: Path, out: Path) -> None:
        self.config, self.out = config, out
        if config.run.threads:
            torch.set_num_threads(config.run.threads)
        self.fabric = make_fabric(config.run, config.optim)
        self.fabric.launch()
        torch.manual_seed(config.seed)
        self.objective: Objective = make_objective(config, home, data)
        objective: object = self.objective
        self.record = objective.record() if isinstance(objective, Recorded) else Record()
        self.digests = accounting.digests(self.record.files, data)
        self.code = accounting.code_version()
        out.mkdir(parents=True, exist_ok=True)
        before = checkpoints.load(out / LAST) if (out / LAST).exists() else None
        if before is not None:
            _check_same(out, before, config, self.digests)
        self.network = self.objective.network
        if config.init and before is None:
            self.network.load_state_dict(checkpoints.load(home / config.init).average)
        first = self.objective.batch(0, 0.0)
        self.rows, self.flops = accounting.rows_of(first, config.data.context), 0.0
        if before is None and config.run.strategy != "fsdp":
            self.flops = accounting.count_flops(self.objective, first, self.fabric.device)
        self.model = self.fabric.setup_module(self.network)
        family = find_family(config.family)
        self.optimizers: list[Optimizer] = make_optimizers(self.network, family, config.optim)
        self.steppers: list[Any] = [self.fabric.setup_optimizers(x) for x in self.optimizers]
        self.average = Average(self.network, config.optim.ema)
        self.step, self.seconds, self.best, self.stale = 0, 0.0, math.inf, 0
        self.quality: dict[str, float] = {}
        self.loss = self.gradient = torch.zeros(())
        if before is not None:
            self._restore(before)
        self.logs: Logs | None = None
        if self.fabric.is_global_zero:
            self.logs = Logs(
                out,
                step=self.step,
                steps=config.optim.steps,
                bases=config.optim.batch * config.data.context,
                tensorboard=config.run.tensorboard,
            )

    def loop(self, end: int) -> None:
        """Train until `end` steps are done; the run's last step is followed by a validation."""
        settings, saved = self.config.run, time.monotonic()
        while self.step < end and not self._is_over():
            self._train_step()
            last = self.step == self.config.optim.steps
            if self.step % settings.log_every == 0 or last:
                self._log()
            elif self.logs is not None:
                self.logs.step(None)
            if last or (settings.valid_every and self.step % settings.valid_every == 0):
                self.validate()
            if self._is_due(saved):
                self.save(LAST)
                saved = time.monotonic()
        self.save(LAST)
        if self.logs is not None:
            self.logs.close()
            accounting.tell(self._compute(), self.out)

    def _train_step(self) -> None:
        """Do one step: gradients of the parts of the batch, clipped, and the update."""
        began, optim = time.monotonic(), self.config.optim
        batch = self.objective.batch(self.step, anneal_fraction(self.step, optim))
        weight = max(float(self.objective.weight(batch)), 1e-12)
        self._seed()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(self.step, optim)
        parts = list(self._parts(batch))
        # Devices average their gradients, which were to be summed.
        scale = self.fabric.world_size / weight
        totals = torch.zeros((), device=self.fabric.device)
        for number, part in enumerate(parts):
            waits = number + 1 < len(parts)
            with self.fabric.no_backward_sync(self.model, enabled=waits and self._is_shared()):
                total = self.objective.total(self.model, part)
                self.fabric.backward(total * scale)
            totals += total.detach()
        for optimizer in self.optimizers:
            self.fabric.strategy.precision.unscale_gradients(optimizer)
        self.gradient = torch.nn.utils.clip_grad_norm_(self.network.parameters(), optim.clip)
        for stepper in self.steppers:
            stepper.step()
            stepper.zero_grad()
        self.average.update(self.step)
        self.loss = totals / weight
        self.step += 1
        self.seconds += time.monotonic() - began

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        """Cut this device's share of a batch into the parts that are run one by one."""
        count = self.fabric.world_size * self.config.optim.accumulate
        first = self.fabric.global_rank * self.config.optim.accumulate
        cut = {key: value.tensor_split(count) for key, value in batch.items()}
        for number in range(first, first + self.config.optim.accumulate):
            yield self.fabric.to_device({key: values[number] for key, values in cut.items()})

    def _seed(self) -> None:
        """Make what layers draw a function of seed, step and device."""
        key = (self.config.seed, self.step, DROPOUT, self.fabric.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))

    def validate(self) -> None:
        """Measure the averaged weights on held-out data, and keep them if they are best."""
        self._check_loss()
        with self.average.in_place(), torch.no_grad():
            self.model.eval()
            found = self.objective.validate(self.model)
            self.model.train()
        # All devices go by the first one's numbers, which may differ in the last digit.
        found = self.fabric.broadcast(found)
        self.quality = {name: figure.value for name, figure in found.items()}
        if self.logs is not None:
            self.logs.valid(self.step, {k: (v.value, v.count) for k, v in found.items()})
            figures = ", ".join(f"{name} {value:.4f}" for name, value in self.quality.items())
            logger.info("step %d: held out: %s", self.step, figures)
        score = selection_score(found, self.config.run.select)
        self.stale += 1
        if score < self.best:
            self.best, self.stale = score, 0
            self.save(BEST)

    def save(self, name: str) -> None:
        """Write the state of the run into its folder, a broken one never."""
        self._check_loss()
        state = checkpoints.Checkpoint(
            config=self.config.model_dump_json(),
            step=self.step,
            seconds=self.seconds,
            weights=whole(dict(self.network.state_dict())),
            average=whole(self.average.weights),
            optimizers=[whole(optimizer.state_dict()) for optimizer in self.optimizers],
            quality=self.quality,
            best=self.best,
            groups={name: list(members) for name, members in self.record.groups.items()},
            valid={name: list(members) for name, members in self.record.valid.items()},
            stale=self.stale,
            scaler=self.fabric.strategy.precision.state_dict(),
            code=self.code,
            data=self.digests,
            compute=self._compute(),
            flops=self.flops,
            tokenizer=self.record.tokenizer,
        )
        if self.fabric.is_global_zero:
            checkpoints.save(self.out / name, state)
        self.fabric.barrier()

    def _restore(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Continue from a checkpoint."""
        load_weights(self.network, checkpoint.average)
        self.average.load()
        load_weights(self.network, checkpoint.weights)
        for optimizer, state in zip(self.optimizers, checkpoint.optimizers, strict=True):
            load_optimizer(optimizer, state)
        self.fabric.strategy.precision.load_state_dict(checkpoint.scaler)
        self.step, self.seconds, self.flops = checkpoint.step, checkpoint.seconds, checkpoint.flops
        self.best, self.stale = checkpoint.best, checkpoint.stale
        self.quality = dict(checkpoint.quality)
        logger.info("continue at step %d", self.step)

    def _is_shared(self) -> bool:
        return self.fabric.world_size > 1

    def _is_over(self) -> bool:
        """Whether validations have stopped getting better."""
        patience = self.config.run.patience
        return bool(patience) and self.stale >= patience

    def _is_due(self, saved: float) -> bool:
        """Whether to save: all devices have to say the same, so one looks at its clock."""
        settings = self.config.run
        if settings.save_every and self.step % settings.save_every == 0:
            return True
        if self._is_shared() and self.step % settings.log_every:
            return False
        late = time.monotonic() - saved > 60 * settings.save_minutes
        return bool(self.fabric.broadcast(late)) if self._is_shared() else late

    def _check_loss(self) -> float:
        """Give the mean loss of the last step over all devices.

        Raises:
            InputError: It is no number any more.
        """
        loss: Any = self.loss
        if self._is_shared():
            loss = self.fabric.all_reduce(loss, reduce_op="sum")
        value = float(loss)
        if not math.isfinite(value):
            raise InputError(f"{self.out}: the loss is {value} at step {self.step}; lower optim.lr")
        return value

    def _compute(self) -> dict[str, float]:
        return accounting.compute_of(
            self.network,
            self.config.run,
            rows=self.step * self.rows,
            flops=self.step * self.flops,
            seconds=self.seconds,
        )

    def _log(self) -> None:
        loss = self._check_loss()
        norm: Tensor = whole(self.gradient)
        if self.logs is None:
            return
        at = self.step - 1  # the step that has just been done
        self.logs.train(
            self.step,
            loss=loss,
            lr=learning_rate(at, self.config.optim),
            gradient=float(norm),
            seconds=self.seconds,
        )
        self.logs.step(loss)


def selection_score(found: dict[str, Measured], select: tuple[str, ...]) -> float:
    """Join held-out figures into one number, better when lower; infinite where there are none.

    Args:
        found: By name.
        select: Which of them; empty: all that are better when lower, or all if none is.

    Raises:
        InputError: There is no such figure.
    """
    unknown = [name for name in select if name not in found]
    if unknown:
        raise InputError(f"run.select: no figure {unknown[0]!r}; there are: {', '.join(found)}")
    lower = [name for name, figure in found.items() if figure.better == "lower"]
    chosen = [found[name] for name in select or lower or found]
    values = [x.value if x.better == "lower" else -x.value for x in chosen]
    return float(np.mean(values)) if values else math.inf


def _check_same(
    out: Path, before: checkpoints.Checkpoint, new: TrainConfig, digests: dict[str, str]
) -> None:
    """Refuse to continue a run under another model, data set or vocabulary."""
    old = before.settings()
    parts = ("family", "objective", "model", "encoder", "data", "supervised", "finetune", "seed")
    for part in parts:
        if getattr(old, part) != getattr(new, part):
            raise InputError(
                f"{out}: the run was started with another {part!r} than the config has now; "
                "put it back, or start afresh with another run.out"
            )
    changed = [name for name, digest in before.data.items() if digests.get(name) != digest]
    if changed:
        raise InputError(
            f"{out}: {changed[0]} has changed since the run was started; put it back, or start "
            "afresh with another run.out"
        )
