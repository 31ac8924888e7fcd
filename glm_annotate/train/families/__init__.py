"""Systems that can be trained: one file each, ending in `FAMILY`."""

from __future__ import annotations

from glm_annotate.train.families import gpn
from glm_annotate.train.families.family import Family

FAMILIES: dict[str, Family] = {"gpn": gpn.FAMILY}

__all__ = ["FAMILIES", "Family"]
