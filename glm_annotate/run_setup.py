"""What a run needs to know before its models can be opened, whatever it is to write."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from glm_annotate.runtime import Settings
from glm_annotate.track_choice import TrackChoice


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The models of a run, and what they read.

    Attributes:
        fasta: The reference.
        models: `[TAG=]MODEL`, one each.
        scores: As given after -s; none: the cards' own.
        circular: Contigs that wrap around; None: those that a card declares.
        strand: `both` or `forward`; None: the card's.
        msa: The alignment of models that read one.
        gtf: Genes, in place of those of the bundles.
        signals: The bigWigs of models that read some, by name of the channel.
        tracks: Which tracks are read; None: all.
        mode: `exact`, or `dense`: many sites a pass, of scores that can be read so.
        ignore_scope: Score contigs that a card is not meant for.
        calibrated: Compare scores with the background of a bundle that has one.
    """

    fasta: str
    models: tuple[str, ...]
    scores: tuple[str, ...] = ()
    circular: tuple[str, ...] | None = None
    strand: str | None = None
    msa: str | None = None
    gtf: str | None = None
    signals: dict[str, str] = field(default_factory=dict)
    tracks: TrackChoice | None = None
    runtime: Settings = field(default_factory=Settings)
    threads: int = 0
    mode: Literal["exact", "dense"] = "exact"
    ignore_scope: bool = False
    calibrated: bool = False
