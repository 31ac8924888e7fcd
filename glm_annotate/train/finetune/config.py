"""The `[finetune]` table of a training config."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Mode = Literal["full", "frozen", "lora", "embeddings"]
Loss = Literal["mse", "poisson", "bce", "cross_entropy"]
Pool = Literal["mean", "cls", "site"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HeadConfig(_Part):
    """What stands on the language model.

    Attributes:
        pool: How the rows of a window become one: `mean` over its bases, the row of the first
            special token (`cls`), or the row of the window's middle base (`site`).
        hidden: Width of a hidden layer with GELU; 0: a linear layer alone.
    """

    pool: Pool = "mean"
    hidden: int = Field(default=0, ge=0)


class LoraConfig(_Part):
    """Low-rank changes of weights, W + alpha / rank x B A.

    Attributes:
        rank: Rows of A.
        alpha: Numerator of the factor.
        target: Regular expression of the whole name of the linear layers that are changed, such as
            `.*attention.*`; None: all that the embedding is made with.
    """

    rank: int = Field(default=8, gt=0)
    alpha: int = Field(default=16, gt=0)
    target: str | None = None


class ExamplesConfig(_Part):
    """Sequences and what is to be said of them.

    Attributes:
        files: TSV with a header, FASTA with the values behind the name, or BED with the values from
            the fourth column on; plain or gzip, relative to the data folder.
        fasta: Genome of BED files.
        sequence: Column of the sequences in a TSV.
        targets: Names of the values: columns of a TSV, in FASTA and BED the order of the values.
        classes: Names of the classes, in order; empty: all that occur, sorted.
        valid_files: Held-out examples, as `files`.
        valid_contigs: Contigs of BED files whose examples are held out.
        valid_fraction: Part of the families of sequences that is held out; 0: none.
        homology: Sequences that share so many bases in a row are of one family.
        allow_leakage: Train even if a held-out sequence has relatives among those trained on.
    """

    files: tuple[str, ...] = Field(min_length=1)
    fasta: str | None = None
    sequence: str = "sequence"
    targets: tuple[str, ...] = Field(min_length=1)
    classes: tuple[str, ...] = ()
    valid_files: tuple[str, ...] = ()
    valid_contigs: tuple[str, ...] = ()
    valid_fraction: float = Field(default=0.0, ge=0, lt=1)
    homology: int = Field(default=32, ge=12)
    allow_leakage: bool = False

    @model_validator(mode="after")
    def _check(self) -> ExamplesConfig:
        if not (self.valid_files or self.valid_contigs or self.valid_fraction):
            raise ValueError(
                "nothing is held out; give valid_files, valid_contigs or valid_fraction"
            )
        return self


class FinetuneConfig(_Part):
    """A language model, what of it is trained, and on what.

    Attributes:
        source: An official checkpoint or one of ours, as `glm-annotate export` takes it; a path is
            relative to the config file.
        family: The system of an official checkpoint, where its keys do not tell.
        mode: What is trained beside the head: all (`full`), nothing (`frozen`), low-rank changes
            (`lora`); `embeddings` is `frozen` with every window run through the model but once.
        loss: What the head says: a number (`mse`), a count (`poisson`), yes or no for each target
            (`bce`), one of several classes (`cross_entropy`).
        head: What stands on the model.
        lora: For mode = lora.
        examples: The data.
    """

    source: str
    family: str | None = None
    mode: Mode = "lora"
    loss: Loss = "mse"
    head: HeadConfig = HeadConfig()
    lora: LoraConfig = LoraConfig()
    examples: ExamplesConfig

    @model_validator(mode="after")
    def _check(self) -> FinetuneConfig:
        if self.loss == "cross_entropy" and len(self.examples.targets) != 1:
            raise ValueError("cross_entropy has one target, the name of the class")
        if self.examples.classes and self.loss != "cross_entropy":
            raise ValueError("classes are for the loss cross_entropy")
        return self
