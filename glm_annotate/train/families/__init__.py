"""Systems that can be trained or read: one file each, ending in `FAMILY`."""

from __future__ import annotations

from glm_annotate.train.families import (
    akita,
    basenji2,
    basset,
    borzoi,
    bpnet,
    caduceus,
    corigami,
    deepsea,
    dnabert,
    dnabert2,
    enformer,
    evo,
    evo2,
    gena_bigbird,
    gena_lm,
    gpn,
    gpn_msa,
    gpn_songlab,
    hyenadna,
    mmsplice,
    nucleotide_transformer,
    pangolin,
    satori,
    sei,
    spliceai,
    with_head,
)
from glm_annotate.train.families.family import Family

FAMILIES: dict[str, Family] = {
    # Language models.
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
    # Predictors of assays, contacts and splice sites.
    "enformer": enformer.FAMILY,
    "borzoi": borzoi.FAMILY,
    "corigami": corigami.FAMILY,
    "akita": akita.FAMILY,
    "satori": satori.FAMILY,
    "deepsea": deepsea.DEEPSEA,
    "beluga": deepsea.BELUGA,
    "danq": deepsea.DANQ,
    "basset": basset.FAMILY,
    "basenji2": basenji2.FAMILY,
    "sei": sei.FAMILY,
    "bpnet": bpnet.BPNET,
    "chrombpnet": bpnet.CHROMBPNET,
    "spliceai": spliceai.FAMILY,
    "pangolin": pangolin.FAMILY,
    "mmsplice": mmsplice.FAMILY,
    # A language model fine-tuned on values of whole windows.
    "with_head": with_head.FAMILY,
}

__all__ = ["FAMILIES", "Family"]
