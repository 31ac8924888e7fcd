"""The objectives of a config by their names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from glm_annotate.train.config import TrainConfig
from glm_annotate.train.contrastive import Contrastive
from glm_annotate.train.finetune import make_finetune
from glm_annotate.train.language import MaskedRows, NextRow
from glm_annotate.train.objective import Objective
from glm_annotate.train.supervised import make_supervised

OBJECTIVES: dict[str, Callable[[TrainConfig, Path, Path], Objective]] = {
    # Language models.
    "masked": MaskedRows,
    "causal": NextRow,
    "contrastive": Contrastive,
    # Measurements.
    "tracks": make_supervised,
    "labels": make_supervised,
    "regression": make_supervised,
    "contacts": make_supervised,
    # A head on a language model.
    "finetune": make_finetune,
}


def make_objective(config: TrainConfig, home: Path, data: Path) -> Objective:
    """Read a run's data and build its network.

    Args:
        config: Of the run.
        home: Folder of the config file.
        data: Data folder.

    Raises:
        InputError: Config, data and network do not fit each other, or nothing is held out.
    """
    return OBJECTIVES[config.objective](config, home, data)
