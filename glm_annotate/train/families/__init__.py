"""Systems that can be trained or read: one file each, ending in `FAMILY`."""

from __future__ import annotations

from glm_annotate.train.families import gpn, gpn_msa, gpn_songlab, nucleotide_transformer
from glm_annotate.train.families.family import Family

FAMILIES: dict[str, Family] = {
    "gpn": gpn.FAMILY,
    "gpn_songlab": gpn_songlab.FAMILY,
    "gpn_msa": gpn_msa.FAMILY,
    "nucleotide_transformer": nucleotide_transformer.FAMILY,
}

__all__ = ["FAMILIES", "Family"]
