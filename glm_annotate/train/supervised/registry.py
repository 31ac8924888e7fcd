"""Which objective a config's `[supervised]` table asks for."""

from __future__ import annotations

from pathlib import Path

import torch

from glm_annotate.errors import InputError
from glm_annotate.train.config import TrainConfig
from glm_annotate.train.families import FAMILIES
from glm_annotate.train.objective import Objective
from glm_annotate.train.supervised.contacts import ContactsObjective
from glm_annotate.train.supervised.examples import ExamplesObjective
from glm_annotate.train.supervised.targets import resolve
from glm_annotate.train.supervised.tracks import TracksObjective
from glm_annotate.train.supervised.variants import VariantsObjective
from glm_annotate.train.supervised.windows import Setup


def make(config: TrainConfig, home: Path, data: Path) -> Objective:
    """Make network and objective, see `make_supervised`."""
    given = config.supervised
    if given is None:
        raise InputError(f"objective {config.objective!r} needs the table [supervised]")
    if given.kind != config.objective:
        raise InputError(
            f"objective: found {config.objective!r}, and the table supervised.{given.kind}; the "
            "two must agree"
        )
    if config.family not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise InputError(f"family {config.family!r} is unknown; known are {known}")
    torch.manual_seed(config.seed)
    network = FAMILIES[config.family].build(config.model)
    setup = Setup(config.family, config.seed, config.optim.batch, home, data, home / config.run.out)
    settings = resolve(given, home)
    if settings.tracks is not None:
        return TracksObjective(settings, network, setup)
    if settings.contacts is not None:
        return ContactsObjective(settings, network, setup)
    if settings.regression is not None and settings.regression.vcf is not None:
        return VariantsObjective(settings, network, setup)
    return ExamplesObjective(settings, network, setup)
