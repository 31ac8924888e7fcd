"""Fine-tuning of language models: full, frozen, by low-rank changes, or on kept embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glm_annotate.train.config import TrainConfig
    from glm_annotate.train.objective import Objective


def make_finetune(config: TrainConfig, home: Path, data: Path) -> Objective:
    """Make the objective of a config with a `[finetune]` table.

    Args:
        config: Of the run.
        home: Folder of the config file.
        data: Folder of the examples.

    Raises:
        InputError: The model, the examples or their combination are not usable.
    """
    # Here, because the table's config is read by every run, and this imports much.
    from glm_annotate.train.finetune.objective import Finetune

    return Finetune(config, home, data)
