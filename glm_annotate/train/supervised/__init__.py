"""Learning from measurements: tracks, classes, numbers and contact maps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glm_annotate.train.config import TrainConfig
    from glm_annotate.train.objective import Objective


def make_supervised(config: TrainConfig, home: Path, data: Path) -> Objective:
    """Make the objective of a config with a `[supervised]` table.

    Args:
        config: The run.
        home: Folder of the config file.
        data: Data folder.

    Raises:
        InputError: The config, a file or the split is not usable.
    """
    # Here, because the config of a run is read before torch is needed.
    from glm_annotate.train.supervised.registry import make

    return make(config, home, data)


__all__ = ["make_supervised"]
