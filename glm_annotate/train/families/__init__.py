"""Systems that can be trained or read: one file each, ending in `FAMILY`."""

from __future__ import annotations

from glm_annotate.train.families import (
    caduceus,
    dnabert,
    dnabert2,
    evo,
    evo2,
    gena_bigbird,
    gena_lm,
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
    "gena_lm": gena_lm.FAMILY,
    "gena_bigbird": gena_bigbird.FAMILY,
    "hyenadna": hyenadna.FAMILY,
    "caduceus": caduceus.FAMILY,
    "evo": evo.FAMILY,
    "evo2": evo2.FAMILY,
}

__all__ = ["FAMILIES", "Family"]
