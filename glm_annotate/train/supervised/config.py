"""The `[supervised]` part of a training config: data, splits, losses and augmentation.

Decisions: exactly one of the tables `tracks`, `labels`, `regression` and `contacts` is there, the
one that `objective` of the config names. Paths are relative to the data folder, but lists of
targets and folds to the folder of the config, as lists of accessions are.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from glm_annotate.track_transforms import Version

Share = Annotated[float, Field(ge=0, le=1)]
Loss = Literal["poisson", "poisson_multinomial", "mse", "bce"]
Statistic = Literal[
    "sum", "mean", "max", "sum_sqrt", "sum_exp75", "mean_sqrt", "mean_exp75", "max_sqrt"
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SplitConfig(_Part):
    """Which stretches are trained on, and which are not.

    Attributes:
        train: Names of contigs, or of folds where `folds` is given; empty: all that are in no
            other list.
        valid: Measured during training, never trained on.
        test: Neither trained on nor measured.
        folds: BED of stretches whose fourth column names their fold, relative to the config.
    """

    train: tuple[str, ...] = ()
    valid: tuple[str, ...] = Field(min_length=1)
    test: tuple[str, ...] = ()
    folds: str | None = None

    @model_validator(mode="after")
    def _check(self) -> SplitConfig:
        named = (*self.train, *self.valid, *self.test)
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise ValueError(f"{twice[0]!r} stands twice in train, valid and test")
        return self


class LeakageConfig(_Part):
    """How held-out sequences are compared with those trained on.

    Attributes:
        k: Bases of the words that are compared, on both strands.
        scaled: One word of so many is looked at.
        window: Bases of a held-out window.
        contained: Share of a window's words in the training sequences from which it counts as
            leaked.
        most: Largest share of leaked windows; above it the run is refused.
        allow: Train all the same; the figure is logged.
        soft_masked: Look at lower-case bases too, which are repeats.
    """

    k: int = Field(default=21, ge=8, le=31)
    scaled: int = Field(default=8, ge=1)
    window: int = Field(default=1024, ge=64)
    contained: float = Field(default=0.5, gt=0, le=1)
    most: Share = 0.05
    allow: bool = False
    soft_masked: bool = False


class AugmentConfig(_Part):
    """How a window is varied.

    Attributes:
        reverse_complement: Half of the windows are read from the reverse strand; tracks of a
            strand pair are swapped.
        shift: Bases that the sequence is moved by at most, to either side, its targets staying.
    """

    reverse_complement: bool = True
    shift: int = Field(default=3, ge=0)


class LossConfig(_Part):
    """What is minimised.

    Attributes:
        kind: `poisson`, `poisson_multinomial` (Borzoi), `mse` or `bce`.
        total_weight: Of the total count, of poisson_multinomial.
        weight_range: How much more the middle of a window weighs than its ends; 1: all the same.
        weight_exp: How sharply the weight falls; even.
        coarse: Bins that are summed for a second loss of the same kind; 0: there is none.
        coarse_weight: Of that loss, beside 1 for the first.
    """

    kind: Loss = "poisson"
    total_weight: float = Field(default=0.2, ge=0)
    weight_range: float = Field(default=1.0, ge=1)
    weight_exp: int = Field(default=4, ge=2)
    coarse: int = Field(default=0, ge=0)
    coarse_weight: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> LossConfig:
        if self.weight_exp % 2:
            raise ValueError("weight_exp must be even: both sides of a window are alike")
        if self.coarse == 1:
            raise ValueError("coarse is 1, the bins themselves; wanted 0, or 2 and more")
        return self


class TrackConfig(_Part):
    """One track.

    Attributes:
        identifier: Its name, unique.
        file: A bigWig, or a BED; empty where the arrays of an npz hold the values.
        bed: What a BED gives a base: how many rows cover it, whether one does, how many begin or
            end there, or the largest score (fifth column) of those that cover it.
        sum_stat: How bases become a bin, and how that number is squashed.
        clip: Hard clip, the last thing done.
        clip_soft: Where the square root begins.
        scale: What values are multiplied by.
        version: Of the transform, see `track_transforms`: what multiplies when.
        log1p: Learn log(1 + y) of what comes out; predictions stay logarithms.
        strand_pair: Identifier of the same signal on the other strand.
        column: Of the arrays of an npz; None: its place among the tracks.
        description: For people, such as `DNASE:HepG2`.
    """

    identifier: str = Field(min_length=1)
    file: str = ""
    bed: Literal["coverage", "presence", "ends", "score"] = "coverage"
    sum_stat: Statistic = "sum"
    clip: float | None = Field(default=None, gt=0)
    clip_soft: float | None = Field(default=None, gt=0)
    scale: float = Field(default=1.0, gt=0)
    version: Version = "new"
    log1p: bool = False
    strand_pair: str = ""
    column: int | None = Field(default=None, ge=0)
    description: str = ""
    assay: str = ""
    biosample: str = ""
    units: str = ""


class ArraysConfig(_Part):
    """Targets that lie in an npz, windows by bins by tracks, already transformed.

    Attributes:
        file: The npz.
        targets: Its array of values, (windows, bins, tracks).
        contigs: Its array of names, one a window; each is a sequence of the FASTA.
    """

    file: str
    targets: str = "targets"
    contigs: str = "contigs"


class SpeciesConfig(_Part):
    """A genome and the tracks measured on it.

    Attributes:
        name: For logs, and the biosample of tracks that name none.
        fasta: The genome.
        split: See there.
        track: Its tracks, `[[supervised.tracks.species.track]]`.
        targets: Table of tracks, relative to the config; columns identifier, file, clip,
            clip_soft, scale, sum_stat, strand_pair, description, as baskerville has them.
        arrays: An npz in place of files.
        blacklist: BED of stretches without targets, beside the config or in the data folder.
        regions: BED, likewise: `region_share` of the windows have one of them in their middle.
        region_share: See `regions`.
        weight: Share of the samples, relative to the other species.
    """

    name: str = "species"
    fasta: str
    split: SplitConfig
    track: tuple[TrackConfig, ...] = ()
    targets: str | None = None
    arrays: ArraysConfig | None = None
    blacklist: str | None = None
    regions: str | None = None
    region_share: Share = 0.5
    weight: float = Field(default=1.0, gt=0)


class TracksConfig(_Part):
    """Tracks along windows.

    Attributes:
        bin: Bases of a bin, as the network has them.
        resolution: Bases that values are kept by, a divisor of `bin`; windows begin at multiples
            of it. None: the bin.
        species: One or more, `[[supervised.tracks.species]]`; each has its own tracks, whose
            losses count on its own windows alone.
        valid_windows: Held-out windows measured at most, evenly spread.
        valid_coarse: Bins that are summed for a second correlation; 0: there is none.
    """

    bin: int = Field(gt=0)
    resolution: int | None = Field(default=None, gt=0)
    species: tuple[SpeciesConfig, ...] = Field(min_length=1)
    valid_windows: int = Field(default=256, gt=0)
    valid_coarse: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> TracksConfig:
        if self.resolution is not None and self.bin % self.resolution:
            raise ValueError(f"resolution {self.resolution} does not divide the bin, {self.bin}")
        return self


class LabelsConfig(_Part):
    """Classes of sequences: of a FASTA or BED with labels, or SATORI's two files.

    Attributes:
        fasta: The genome of a BED; or sequences whose titles are NAME LABEL[,LABEL...].
        bed: Stretches of the genome, the label in column `column`; windows are centred on them.
        satori: PREFIX of PREFIX.txt (contig, start, end, ..., labels with commas between) and of
            PREFIX.fa, which has the same rows.
        column: Column of the label in the BED, from 1.
        classes: Names of labels in the order of the network's tracks; empty: all, sorted.
        negative: Label of none of the classes; a sequence with it has zeros everywhere.
        exclusive: One class a sequence; the softmax network's tracks are the classes.
        split: By contigs, folds, or names of sequences.
        valid_share: Share of the sequences held out, by a hash of the sequence, where `split` is
            not given.
        homology: Sequences that share a word of `leakage.k` bases are held out together.
    """

    fasta: str | None = None
    bed: str | None = None
    satori: str | None = None
    column: int = Field(default=4, ge=4)
    classes: tuple[str, ...] = ()
    negative: str = "0"
    exclusive: bool = False
    split: SplitConfig | None = None
    valid_share: float = Field(default=0.1, gt=0, lt=1)
    homology: bool = True

    @model_validator(mode="after")
    def _check(self) -> LabelsConfig:
        if (self.satori is None) == (self.fasta is None):
            raise ValueError("needs either fasta (with or without bed) or satori")
        if self.bed and not self.split:
            raise ValueError("a bed needs a split by contigs")
        return self


class RegressionConfig(_Part):
    """Numbers of sequences, or of changes of sequences.

    Attributes:
        table: TSV with a header, one sequence a row; or None where `vcf` is given.
        sequence: Its column of sequences.
        value: Its columns of numbers, one a track.
        fold: Its column of fold names, which `split` refers to.
        vcf: Variants whose measured effect is the prediction of ALT less that of REF.
        fasta: Of the VCF.
        key: INFO keys of the effects, one a track.
        split: Folds of the table, or contigs of the VCF.
        valid_share: Share of the sequences held out, by a hash of the sequence, where `split` is
            not given.
        homology: Sequences that share a word of `leakage.k` bases are held out together.
        left: Bases put before every sequence; `right`: after it.
        offset: What is taken off the values; `scale`: what they are then multiplied by.
    """

    table: str | None = None
    sequence: str = "sequence"
    value: tuple[str, ...] = ("expression",)
    fold: str | None = None
    vcf: str | None = None
    fasta: str | None = None
    key: tuple[str, ...] = ()
    split: SplitConfig | None = None
    valid_share: float = Field(default=0.1, gt=0, lt=1)
    homology: bool = True
    left: str = Field(default="", pattern="^[ACGTN]*$")
    right: str = Field(default="", pattern="^[ACGTN]*$")
    offset: float = 0.0
    scale: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _check(self) -> RegressionConfig:
        if (self.table is None) == (self.vcf is None):
            raise ValueError("needs either table or vcf")
        if self.vcf and not (self.fasta and self.key and self.split):
            raise ValueError("a vcf needs fasta, key and a split by contigs")
        if self.table and bool(self.split) != bool(self.fold):
            raise ValueError("fold names the column that split refers to; give both or neither")
        return self


class SignalConfig(_Part):
    """A signal beside the bases, read by the network.

    Attributes:
        name: As the card calls it.
        file: A bigWig.
        transform: Of its values.
        missing: What stands for a base without a value.
    """

    name: str
    file: str
    transform: Literal["none", "log1p"] = "none"
    missing: float = 0.0


class ContactsConfig(_Part):
    """Contact maps of cooler files.

    Attributes:
        fasta: The genome.
        cooler: One file a map; `FILE.mcool::/resolutions/10000` for one of many resolutions.
        kind: `log1p`: log(1 + balanced contacts), resized to the network's bins (C.Origami);
            `observed_expected`: log of contacts over the mean of their distance (Akita), whose
            bins have to be the network's.
        clip: Largest absolute value of observed_expected.
        balance: Multiply by the weights of the file.
        signals: What the network reads beside the bases.
        split: By contigs or folds.
        valid_windows: Held-out windows measured at most.
        min_known: Least share of cells with a value; emptier windows are left out.
        diagonal: Diagonals that are not learned, the main one first.
    """

    fasta: str
    cooler: tuple[str, ...] = Field(min_length=1)
    kind: Literal["log1p", "observed_expected"] = "log1p"
    clip: float = Field(default=2.0, gt=0)
    balance: bool = True
    signals: tuple[SignalConfig, ...] = ()
    split: SplitConfig
    valid_windows: int = Field(default=64, gt=0)
    min_known: Share = 0.5
    diagonal: int = Field(default=0, ge=0)


class SupervisedConfig(_Part):
    """The `[supervised]` table; exactly one of its four kinds of data is there.

    Attributes:
        tracks: Assay tracks along windows.
        labels: Classes of sequences.
        regression: Numbers of sequences.
        contacts: Contact maps.
        loss: See there.
        augment: See there.
        leakage: See there.
        batch_valid: Windows of a pass over held-out data.
    """

    tracks: TracksConfig | None = None
    labels: LabelsConfig | None = None
    regression: RegressionConfig | None = None
    contacts: ContactsConfig | None = None
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()
    leakage: LeakageConfig = LeakageConfig()
    batch_valid: int = Field(default=16, gt=0)

    @model_validator(mode="after")
    def _check(self) -> SupervisedConfig:
        given = [name for name in KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"wanted one of {', '.join(KINDS)}, found {found}")
        return self

    @property
    def kind(self) -> str:
        """Which of the four it is."""
        return next(name for name in KINDS if getattr(self, name) is not None)


KINDS = ("tracks", "labels", "regression", "contacts")
