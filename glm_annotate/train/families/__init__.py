"""Systems that can be trained or read: one file each, ending in `FAMILY`."""

from __future__ import annotations

from glm_annotate.train.families import (
    dnabert,
    dnabert2,
    gpn,
    gpn_msa,
    gpn_songlab,
    hyenadna,
    nucleotide_transformer,
)
from glm_annotate.train.families.family import Family

FAMILIES: dict[str, Family] = {
    "gpn": gpn.FAMILY,
    "gpn_songlab": gpn_songlab.FAMILY,
    "gpn_msa": gpn_msa.FAMILY,
    "dnabert": dnabert.FAMILY,
    "dnabert2": dnabert2.FAMILY,
    "nucleotide_transformer": nucleotide_transformer.FAMILY,
    "hyenadna": hyenadna.FAMILY,
}

__all__ = ["FAMILIES", "Family"]
