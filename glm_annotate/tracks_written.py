"""What a run of `glm-annotate tracks` has written: its files, and what each of them is of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Written:
    """A file.

    Attributes:
        path: Of the file.
        tag: Of the model.
        kind: What was asked for: `predict`, `likelihood`, ..., `ism`, `ref`, `alt`, `delta`.
        name: Of the track, or of the part of a kind that has several.
        about: A sentence for labels.
        assay: Of the track.
        allele: `chr:pos:ref:alt` or a haplotype, of tracks of these.
    """

    path: str
    tag: str
    kind: str
    name: str
    about: str
    assay: str = ""
    allele: str = ""
