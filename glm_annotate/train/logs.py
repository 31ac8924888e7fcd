"""What a run writes while it goes on: two CSV files, perhaps TensorBoard's, and a bar."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm_annotate.errors import InputError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter
    from tqdm import tqdm

LOG_COLUMNS = ("step", "bases", "loss", "lr", "gradient", "seconds")
VALID_COLUMNS = ("step", "bases", "figure", "value", "count")
# Columns of 1.0, whose logs a resumed run goes on with.
_RENAMED = {"group": "figure", "cross_entropy": "value", "positions": "count"}


class Logs:
    """The logs of a run.

    Args:
        folder: Of the run.
        step: Steps done; rows of later ones are dropped, a resumed run writes them again.
        steps: In all.
        bases: Of a step.
        tensorboard: Write TensorBoard's files too.

    Raises:
        InputError: TensorBoard is asked for and not installed.
    """

    def __init__(
        self, folder: Path, *, step: int, steps: int, bases: int, tensorboard: bool
    ) -> None:
        self._folder, self._bases = folder, bases
        _drop_after(folder / "log.csv", LOG_COLUMNS, step)
        _drop_after(folder / "valid.csv", VALID_COLUMNS, step)
        self._board = _board(folder, step) if tensorboard else None
        self._bar = _bar(step, steps, bases)

    def step(self, loss: float | None) -> None:
        """Move the bar on by a step."""
        if self._bar is not None:
            if loss is not None:
                self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            self._bar.update(self._bases)

    def train(self, step: int, *, loss: float, lr: float, gradient: float, seconds: float) -> None:
        """Write the row of a training step."""
        bases = step * self._bases
        row = (step, bases, f"{loss:.6f}", f"{lr:.3g}", f"{gradient:.4g}", f"{seconds:.1f}")
        _append(self._folder / "log.csv", LOG_COLUMNS, row)
        if self._board is not None:
            for name, value in {"loss": loss, "lr": lr, "gradient": gradient}.items():
                self._board.add_scalar(f"train/{name}", value, step)

    def valid(self, step: int, figures: Mapping[str, tuple[float, int]]) -> None:
        """Write the figures of a validation, value and count by name."""
        for name, (value, count) in figures.items():
            row = (step, step * self._bases, name, f"{value:.5f}", count)
            _append(self._folder / "valid.csv", VALID_COLUMNS, row)
            if self._board is not None:
                self._board.add_scalar(f"valid/{name}", value, step)

    def close(self) -> None:
        """Finish files and bar."""
        if self._board is not None:
            self._board.close()
        if self._bar is not None:
            self._bar.close()


def _bar(step: int, steps: int, bases: int) -> tqdm[Any] | None:
    """Make a bar with bases a second and the time left, on a terminal only."""
    if not sys.stderr.isatty():
        return None
    from tqdm import tqdm

    bar: tqdm[Any] = tqdm(
        total=steps * bases, initial=step * bases, unit=" bases", unit_scale=True, file=sys.stderr
    )
    return bar


def _board(folder: Path, step: int) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "run.tensorboard: needs tensorboard; run: pip install tensorboard"
        ) from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)


def _append(path: Path, columns: Sequence[str], row: Sequence[object]) -> None:
    fresh = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        if fresh:
            writer.writerow(columns)
        writer.writerow(row)


def _drop_after(path: Path, columns: Sequence[str], step: int) -> None:
    """Remove rows of later steps, and half a row that a kill may have left."""
    if not path.exists():
        return
    with open(path, newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    complete = [row for row in rows if None not in row.values()]
    named = [{_RENAMED.get(key, key): value for key, value in row.items()} for row in complete]
    kept = [row for row in named if int(row["step"]) <= step]
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([row.get(key, "") for key in columns] for row in kept)
    os.replace(temporary, path)
