"""A model as it is used in one run, and what it says of a chunk's alleles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from glm_annotate.answers import Floats, Ints, OutputRole
from glm_annotate.bundle import Bundle
from glm_annotate.channels import Channels
from glm_annotate.gene_models import GeneModels
from glm_annotate.runtime import OrtRunner
from glm_annotate.scores import ScoreSpec
from glm_annotate.track_table import TrackTable
from glm_annotate.track_transforms import Transforms


@dataclass(frozen=True)
class Tracks:
    """The tracks that a run reads of a model.

    Attributes:
        table: Them.
        which: Their places in the graph's output, shape (tracks,).
    """

    table: TrackTable
    which: Ints

    @cached_property
    def transforms(self) -> Transforms:
        """How their predictions are taken back."""
        return self.table.transforms()

    @cached_property
    def merged(self) -> tuple[Ints, Ints]:
        """Strand pairs, see `TrackTable.merged`."""
        return self.table.merged

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Identifiers of the merged tracks."""
        return self.table.merged_identifiers


@dataclass(frozen=True, slots=True)
class Splice:
    """What a model of splice sites is read with.

    Attributes:
        genes: In whose frame alleles are read.
        acceptor: Place of that track in the graph's output; `donor`: of the other.
    """

    genes: GeneModels
    acceptor: int
    donor: int


@dataclass(frozen=True, slots=True)
class Model:
    """A bundle as it is used in one run.

    Attributes:
        tag: Prefix of its INFO keys.
        bundle: Card, graph and encoder.
        scores: What is computed.
        strands: Strands that are read and averaged; True is the reverse one.
        circular: FASTA names of contigs that wrap around.
        runners: Sessions, one a device.
        ignore_scope: Score contigs that the card is not meant for.
        channels: Where the card's channels come from; None where it has none.
        tracks: What it predicts, of a model of tracks.
        splice: Genes and sites, of a model in the frame of genes; it has no `tracks`.
    """

    tag: str
    bundle: Bundle
    scores: tuple[ScoreSpec, ...]
    strands: tuple[bool, ...]
    circular: frozenset[str]
    runners: Sequence[OrtRunner]
    ignore_scope: bool = False
    channels: Channels | None = None
    tracks: Tracks | None = None
    splice: Splice | None = None

    @property
    def outputs(self) -> frozenset[OutputRole]:
        """Graph outputs that the scores read."""
        return frozenset(spec.score.output for spec in self.scores)


@dataclass(frozen=True, slots=True)
class Result:
    """What one model says of a chunk's alleles.

    Attributes:
        skip: Why an allele has no score at all, as in `variants.skip_code`; 0 for none.
        values: By `ScoreSpec.key`, NaN where there is no number.
        reasons: By `ScoreSpec.key`: why an allele that is not skipped has no number; 0 for none.
        tracks: Of a model of tracks: by `ScoreSpec.key`, shape (n, merged tracks); `values` then
            hold the one that is largest without its sign.
        sums: Sums over all bins of REF and of ALT, shape (n, 2, merged tracks).
        genes: Of a model in the frame of genes: the one that `values` are of, empty for none.
    """

    skip: Ints
    values: dict[str, Floats]
    reasons: dict[str, Ints]
    tracks: dict[str, Floats] = field(default_factory=dict)
    sums: Floats | None = None
    genes: list[str] = field(default_factory=list)

    def take(self, other: Result, allele: int) -> None:
        """Take over what another result of the same task says of one allele."""
        for mine, theirs in (
            (self.values, other.values),
            (self.reasons, other.reasons),
            (self.tracks, other.tracks),
        ):
            for key in mine:
                mine[key][allele] = theirs[key][allele]
        if self.sums is not None and other.sums is not None:
            self.sums[allele] = other.sums[allele]
        if self.genes:
            self.genes[allele] = other.genes[allele]
