"""Parts of a training config that language models read: windows, masks, views.

Paths are relative to the data folder (FASTA, BED, GTF and tables) or to the folder of the config
(lists of names, tokenizer).
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Part(BaseModel):
    """A table of the config: no unknown key, no change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Ramp(Part):
    """A number that holds `start`, then moves linearly to `end` while the run anneals."""

    start: float = Field(ge=0)
    end: float = Field(ge=0)

    def at(self, anneal: float) -> float:
        """Return the value at a fraction of the anneal (0 before it, 1 at the last step)."""
        return self.start + (self.end - self.start) * anneal


class GenesConfig(Part):
    """Stretches around the genes of an annotation: exons and promoters.

    Attributes:
        gtf: GTF file, plain or gzipped, relative to the data folder.
        upstream: Bases before each transcript's first base that belong to its promoter.
        downstream: Bases of the transcript, from its first on, that do too.
        flank: Bases added on both sides of every exon.
    """

    gtf: str
    upstream: int = Field(default=1000, ge=0)
    downstream: int = Field(default=0, ge=0)
    flank: int = Field(default=0, ge=0)


class GroupConfig(Part):
    """Contigs that are sampled together.

    Attributes:
        name: How logs call the group.
        fasta: FASTA file, relative to the data folder.
        weight: Share of the samples, relative to the other groups.
        accessions: Text file of contig names, one a line. Only these belong to the group, and
            other groups of the same FASTA lose them. None: every contig not named elsewhere.
        held_out: The whole group is measured and never trained on, such as one species of many.
        regions: BED files, relative to the data folder; windows come from their union.
        genes: Windows come from exons and promoters, united with `regions`.
        random: Share of the windows that come from anywhere, where there are regions or genes.
    """

    name: str
    fasta: str
    weight: Ramp = Ramp(start=1.0, end=1.0)
    accessions: str | None = None
    held_out: bool = False
    regions: tuple[str, ...] = ()
    genes: GenesConfig | None = None
    random: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _fits(self) -> GroupConfig:
        if self.random and not self.limited:
            raise ValueError("random is for groups with regions or genes")
        return self

    @property
    def limited(self) -> bool:
        """Whether windows come from parts of the contigs alone."""
        return bool(self.regions) or self.genes is not None


class DataConfig(Part):
    """Where windows come from.

    Attributes:
        root: Default data folder, relative to the config file.
        context: Window length in bases.
        rows: Rows of a window, special tokens among them, for encoders that give windows
            different numbers of rows: longer ones are cut at their right end, shorter ones
            filled with the encoder's pad_id, which is never asked for.
        circular: Contigs wrap around.
        reverse_complement: Half of the windows are read from the reverse strand.
        groups: Contigs that are sampled together; supervised objectives have none.
        validation: Contigs that are never trained on and measured instead: a text file of
            names, relative to the config, or the names themselves.
        exclude: Contigs that are neither trained on nor measured, likewise.
        valid_stride: Bases between the starts of validation windows.
        repeat_sampling: How often a window of nothing but soft-masked bases is drawn, where one
            without any counts 1; in between it falls in a straight line.
        repeat_weight: Weight of a soft-masked base in the loss.
    """

    root: str = "."
    context: int = Field(gt=0)
    rows: int | None = Field(default=None, gt=0)
    circular: bool = False
    reverse_complement: bool = True
    groups: list[GroupConfig] = []
    validation: str | tuple[str, ...] | None = None
    exclude: str | tuple[str, ...] | None = None
    valid_stride: int = Field(default=256, gt=0)
    repeat_sampling: float = Field(default=1.0, gt=0, le=1)
    repeat_weight: float = Field(default=1.0, ge=0, le=1)

    @property
    def needs_repeats(self) -> bool:
        """Whether it matters which bases are soft-masked."""
        return self.repeat_sampling < 1 or self.repeat_weight < 1


class MaskConfig(Part):
    """Masked language modelling.

    Attributes:
        scheme: `single`: each row by itself; `contiguous`: runs of rows that hide one base
            wholly, for overlapping k-mers; `span`: runs of geometric length.
        rate: Fraction of the bases that are predicted.
        keep: Fraction of the predicted bases that stay readable.
        random: Fraction of the predicted bases that are replaced by a random base.
        span: Mean length of a span before it is cut at `span_max`, in rows.
        span_max: Longest span.
        weights: Loss weights by base, e.g. `{C = 2.0}`; 1 where absent. One base a row alone.
        valid_rate: Fraction predicted in validation windows (all of them masked).
    """

    scheme: Literal["single", "contiguous", "span"] = "single"
    rate: Ramp = Ramp(start=0.15, end=0.15)
    keep: float = Field(default=0.1, ge=0, le=1)
    random: float = Field(default=0.1, ge=0, le=1)
    span: float = Field(default=5.0, ge=1)
    span_max: int = Field(default=10, ge=1)
    weights: dict[str, float] = {}
    valid_rate: float = Field(default=0.125, gt=0, le=1)

    @model_validator(mode="after")
    def _fits(self) -> MaskConfig:
        if self.keep + self.random > 1:
            raise ValueError("keep + random is above 1")
        return self


class ContrastiveConfig(Part):
    """Homologous sequences as views of one another.

    Attributes:
        pairs: TSV with a header and the columns set, fasta, contig, start, end (0-based,
            half-open) and strand, relative to the data folder: one homologous stretch a row, those
            of one set homologous. None: contigs of one name in several groups are homologous.
        temperature: What similarities are divided by.
        jitter: Bases that each view is moved by at most, either way, on its own.
        masked_weight: Weight of the masked loss that is added; 0: there is none.
        symmetric: Whether each view of a pair is asked for the other, or the first alone.
        valid_batch: Pairs that are compared with one another in validation.
    """

    pairs: str | None = None
    temperature: float = Field(default=0.1, gt=0)
    jitter: int = Field(default=0, ge=0)
    masked_weight: float = Field(default=0.0, ge=0)
    symmetric: bool = True
    valid_batch: int = Field(default=64, ge=2)
