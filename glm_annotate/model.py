"""A model as it is used in one run, and what it says of a chunk's alleles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from glm_annotate.answers import Floats, Ints, OutputRole
from glm_annotate.bundle import Bundle
from glm_annotate.calibration import Calibration
from glm_annotate.channels import Channels
from glm_annotate.exon_frame import ExonFrame
from glm_annotate.gene_models import GeneModels
from glm_annotate.runtime import OrtRunner
from glm_annotate.scores import ScoreSpec
from glm_annotate.track_table import TrackTable
from glm_annotate.track_transforms import Transforms
from glm_annotate.track_windows import Bools, Stitch


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
        columns: Places in the graph's output of the acceptor and the donor, or of the tracks that
            tell how much a base is used as either.
        paired: Whether they are acceptor and donor.
    """

    genes: GeneModels
    columns: tuple[int, ...]
    paired: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """What a model of tracks predicts of one allele in windows of one shift, un-transformed.

    Attributes:
        left: Left edge of REF's window, 0-based, may be negative.
        stitch: How bins lie where alleles of unequal length were stitched.
        known: Which bins ALT has, shape (bins,); None: all.
        ref: Shape (bins, tracks); `alt`: the same, on the bins of REF.
    """

    left: int
    stitch: Stitch | None
    known: Bools | None
    ref: Floats
    alt: Floats


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
        genes: Those that scores of tracks over masks of genes are made in; None without such.
        exons: Those that alleles are read in, of a model of parts of exons.
        dense: Distance of the sites that one pass masks (`dense.dense_stride`); 0: one site a pass.
        calibration: What scores are compared with; None: nothing.
        shows: Whether results keep what a model of tracks predicts of each allele.
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
    genes: GeneModels | None = None
    exons: ExonFrame | None = None
    dense: int = 0
    calibration: Calibration | None = None
    shows: bool = False

    @property
    def framed(self) -> GeneModels | None:
        """Genes that alleles are read in; None of models of windows around alleles."""
        if self.exons is not None:
            return self.exons.genes
        return None if self.splice is None else self.splice.genes

    @property
    def outputs(self) -> frozenset[OutputRole]:
        """Graph outputs that the scores read."""
        return frozenset(spec.score.output for spec in self.scores)


@dataclass(frozen=True, slots=True)
class GeneRow:
    """What a model says of one allele in one gene.

    Attributes:
        allele: Its place in the chunk.
        gene: Name of the gene; `gene_id`: its identifier.
        values: By `ScoreSpec.key` of the scores that are made in genes, shape (merged tracks,), or
            (1,) of models without tracks; NaN where there is no number.
        sums: Of REF and of ALT over the bins of the first mask of genes, shape (2, merged tracks);
            None of models without tracks.
    """

    allele: int
    gene: str
    gene_id: str
    values: dict[str, Floats]
    sums: Floats | None = None


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
            Scores with options other than the card's may be of another: see `named`.
        rows: Of scores made in genes: every allele in every gene, by allele.
        named: By `ScoreSpec.key` of scores over masks of genes, or with a label: the gene that
            `values` and `tracks` are of, empty for none.
        shown: By allele and left edge of the window: its predictions, if the model shows them.
    """

    skip: Ints
    values: dict[str, Floats]
    reasons: dict[str, Ints]
    tracks: dict[str, Floats] = field(default_factory=dict)
    sums: Floats | None = None
    genes: list[str] = field(default_factory=list)
    rows: list[GeneRow] = field(default_factory=list)
    named: dict[str, list[str]] = field(default_factory=dict)
    shown: dict[int, dict[int, Shown]] = field(default_factory=dict)

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
        for key, names in self.named.items():
            names[allele] = other.named[key][allele]
        if allele in other.shown:
            self.shown[allele] = other.shown[allele]
        kept = [row for row in self.rows if row.allele != allele]
        found = [row for row in other.rows if row.allele == allele]
        self.rows[:] = sorted(kept + found, key=lambda row: row.allele)
