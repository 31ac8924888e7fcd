"""Training configuration: a TOML file in, a validated `TrainConfig` out.

Decisions: an unknown key is an error that names the known ones. Paths are relative to the folder
of the config file, except FASTA files, which are relative to the data folder (`--data`, then
`GLM_ANNOTATE_DATA`, then `data.root`), so that a recipe holds no path of one machine.
The schedule is warm-up, hold, anneal: everything but the last `anneal_steps` does not depend on
`steps`, so that a run can be lengthened or cut short and stays the run that its config describes.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from glm_annotate.encoding import EncoderSpec
from glm_annotate.errors import InputError

DATA_VARIABLE = "GLM_ANNOTATE_DATA"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Ramp(_Part):
    """A number that holds `start`, then moves linearly to `end` while the run anneals."""

    start: float = Field(ge=0)
    end: float = Field(ge=0)

    def at(self, anneal: float) -> float:
        """Return the value at a fraction of the anneal (0 before it, 1 at the last step)."""
        return self.start + (self.end - self.start) * anneal


class GroupConfig(_Part):
    """Contigs that are sampled together.

    Attributes:
        name: How logs call the group.
        fasta: FASTA file, relative to the data folder.
        weight: Share of the samples, relative to the other groups.
        accessions: Text file of contig names, one a line. Only these belong to the group, and
            other groups of the same FASTA lose them. None: every contig not named elsewhere.
    """

    name: str
    fasta: str
    weight: Ramp
    accessions: str | None = None


class DataConfig(_Part):
    """Where windows come from.

    Attributes:
        root: Default data folder, relative to the config file.
        context: Window length in bases.
        circular: Contigs wrap around.
        reverse_complement: Half of the windows are read from the reverse strand.
        validation: Text file of contig names that are never trained on and measured instead.
        exclude: Text file of contig names that are neither trained on nor measured.
        valid_stride: Bases between the starts of validation windows.
    """

    root: str = "."
    context: int = Field(gt=0)
    circular: bool = False
    reverse_complement: bool = True
    groups: list[GroupConfig] = Field(min_length=1)
    validation: str | None = None
    exclude: str | None = None
    valid_stride: int = Field(default=256, gt=0)


class MaskConfig(_Part):
    """Masked language modelling.

    Attributes:
        rate: Fraction of the bases that are predicted.
        keep: Fraction of the predicted bases that stay readable.
        random: Fraction of the predicted bases that are replaced by a random base.
        weights: Loss weights by token text, e.g. `{C = 2.0}`; 1 where absent.
        valid_rate: Fraction predicted in validation windows (all of them masked).
    """

    rate: Ramp = Ramp(start=0.15, end=0.15)
    keep: float = Field(default=0.1, ge=0, le=1)
    random: float = Field(default=0.1, ge=0, le=1)
    weights: dict[str, float] = {}
    valid_rate: float = Field(default=0.125, gt=0, le=1)

    @model_validator(mode="after")
    def _fits(self) -> MaskConfig:
        if self.keep + self.random > 1:
            raise ValueError("keep + random is above 1")
        return self


class OptimConfig(_Part):
    """Optimizer and schedule.

    Attributes:
        name: `adamw`, or `muon`: Muon for the matrices of the trunk, AdamW for the rest.
        lr: Peak learning rate.
        final_lr: Fraction of `lr` at the last step.
        weight_decay: Decoupled weight decay of matrices.
        betas: AdamW's two decay rates.
        clip: Largest norm of the gradient.
        batch: Windows a step.
        steps: Steps in all.
        warmup_steps: Steps of linear warm-up.
        anneal_steps: Steps at the end in which the rate falls along a half cosine.
        ema: Decay of the averaged weights, which are the ones measured and exported.
    """

    name: Literal["adamw", "muon"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    final_lr: float = Field(default=0.02, ge=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = Field(default=1.0, gt=0)
    batch: int = Field(default=64, gt=0)
    steps: int = Field(gt=0)
    warmup_steps: int = Field(default=100, ge=0)
    anneal_steps: int = Field(default=0, ge=0)
    ema: float = Field(default=0.999, ge=0, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> OptimConfig:
        if self.warmup_steps + self.anneal_steps > self.steps:
            raise ValueError("warmup_steps + anneal_steps is above steps")
        return self


class RunConfig(_Part):
    """How a run behaves on its machine.

    Attributes:
        out: Folder of checkpoints and logs, relative to the config file.
        precision: Lightning Fabric's name of the arithmetic.
        threads: Threads of torch; 0 leaves torch's own choice.
        log_every: Steps between lines of `log.csv`.
        valid_every: Steps between validations; 0 validates at the end only.
        save_minutes: Minutes between checkpoints.
        save_every: Steps between checkpoints; 0 goes by minutes alone.
        select: Held-out groups whose mean cross-entropy picks `best.ckpt`; empty: all.
    """

    out: str
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    threads: int = Field(default=0, ge=0)
    log_every: int = Field(default=20, gt=0)
    valid_every: int = Field(default=500, ge=0)
    save_minutes: float = Field(default=5.0, gt=0)
    save_every: int = Field(default=0, ge=0)
    select: tuple[str, ...] = ()


class TrainConfig(_Part):
    """Everything that determines a run, with `init` naming a checkpoint to start from."""

    name: str
    family: str
    seed: int = Field(default=0, ge=0)
    init: str | None = None
    model: dict[str, int | float | bool | str | list[int]]
    encoder: EncoderSpec
    data: DataConfig
    mask: MaskConfig = MaskConfig()
    optim: OptimConfig
    run: RunConfig


def load_config(path: str | Path) -> TrainConfig:
    """Read and validate a TOML config.

    Raises:
        InputError: The file is missing, is not TOML, or has a key or value that is not allowed.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read the training config: {error}") from error
    try:
        return TrainConfig.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not TOML: {error}") from error
    except ValidationError as error:
        raise InputError(f"{path}: {_explain(error)}") from error


def data_folder(config_path: str | Path, config: TrainConfig, data: str | None = None) -> Path:
    """Find the data folder: the argument, else `GLM_ANNOTATE_DATA`, else `data.root`.

    Raises:
        InputError: There is no such folder.
    """
    chosen = data or os.environ.get(DATA_VARIABLE)
    folder = Path(chosen) if chosen else Path(config_path).parent / config.data.root
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such data folder; name one with --data FOLDER or {DATA_VARIABLE}"
        )
    return folder


def read_names(path: Path) -> tuple[str, ...]:
    """Read contig names, one a line; `#` starts a comment.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot read the list of accessions: {error}") from error
    bare = (line.split("#")[0].strip() for line in lines)
    return tuple(name for name in bare if name)


def _explain(error: ValidationError) -> str:
    found = error.errors()
    # A misspelt key is also a missing one: its own name says more.
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return f"{place}: {first['msg']}"
    return f"unknown key {place!r}; known here: {', '.join(_known_keys(first['loc'][:-1]))}"


def _known_keys(place: tuple[int | str, ...]) -> list[str]:
    """List the keys of the config part that a pydantic error location leads to."""
    part: type[BaseModel] = TrainConfig
    for name in place:
        if isinstance(name, int):
            continue
        found = _inner_model(part.model_fields[name].annotation)
        if found is None:
            return []
        part = found
    return sorted(part.model_fields)


def _inner_model(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    parts = getattr(annotation, "__args__", ())
    return next((m for m in map(_inner_model, parts) if m is not None), None)
