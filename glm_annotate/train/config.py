"""Training configuration: a TOML file in, a validated `TrainConfig` out.

Decisions: an unknown key is an error that names the known ones. Paths are relative to the folder
of the config file, except FASTA files, which are relative to the data folder (`--data`, then
`GLM_ANNOTATE_DATA`, then `data.root`), so that a recipe holds no path of one machine.
The schedule is warm-up, hold, anneal: everything but the last `anneal_steps` does not depend on
`steps`, so that a run can be lengthened or cut short and stays the run that its config describes.
With `schedule = "cosine"` the anneal begins where the warm-up ends, and `steps` matter throughout.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from glm_annotate.encoding import EncoderSpec, Vocab
from glm_annotate.errors import InputError
from glm_annotate.train.finetune.config import FinetuneConfig
from glm_annotate.train.settings import ContrastiveConfig as ContrastiveConfig
from glm_annotate.train.settings import DataConfig as DataConfig
from glm_annotate.train.settings import GenesConfig as GenesConfig
from glm_annotate.train.settings import GroupConfig as GroupConfig
from glm_annotate.train.settings import MaskConfig as MaskConfig
from glm_annotate.train.settings import Part
from glm_annotate.train.settings import Ramp as Ramp
from glm_annotate.train.supervised.config import KINDS, SupervisedConfig
from glm_annotate.train.supervised.targets import resolve

DATA_VARIABLE = "GLM_ANNOTATE_DATA"


class OptimConfig(Part):
    """Optimizer and schedule.

    Attributes:
        name: `adamw`, or `muon`: Muon for the matrices of the trunk, AdamW for the rest.
        lr: Peak learning rate.
        final_lr: Fraction of `lr` at the last step.
        weight_decay: Decoupled weight decay of matrices.
        betas: AdamW's two decay rates.
        clip: Largest norm of the gradient.
        batch: Windows a step, over all devices and parts.
        accumulate: Parts that a device's share of a batch is cut into; gradients are summed.
        steps: Steps in all.
        warmup_steps: Steps of linear warm-up.
        anneal_steps: Steps at the end in which the rate falls along a half cosine.
        schedule: `hold`: constant between warm-up and anneal; `cosine`: anneal after warm-up.
        ema: Decay of the averaged weights, which are the ones measured and exported.
    """

    name: Literal["adamw", "muon"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    final_lr: float = Field(default=0.02, ge=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = Field(default=1.0, gt=0)
    batch: int = Field(default=64, gt=0)
    accumulate: int = Field(default=1, gt=0)
    steps: int = Field(gt=0)
    warmup_steps: int = Field(default=100, ge=0)
    anneal_steps: int = Field(default=0, ge=0)
    schedule: Literal["hold", "cosine"] = "hold"
    ema: float = Field(default=0.999, ge=0, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> OptimConfig:
        if self.warmup_steps + self.anneal_steps > self.steps:
            raise ValueError("warmup_steps + anneal_steps is above steps")
        if self.schedule == "cosine" and self.anneal_steps:
            raise ValueError("schedule = cosine anneals after warm-up; remove anneal_steps")
        if self.accumulate > self.batch:
            raise ValueError("accumulate is above batch: parts would be empty")
        return self

    @property
    def falling_steps(self) -> int:
        """Steps in which the rate falls."""
        return self.steps - self.warmup_steps if self.schedule == "cosine" else self.anneal_steps


class RunConfig(Part):
    """How a run behaves on its machine.

    Attributes:
        out: Folder of checkpoints and logs, relative to the config file.
        accelerator: Lightning Fabric's name of the devices; `auto` takes GPUs where there are.
        devices: Devices of each node.
        num_nodes: Machines.
        strategy: `ddp`: every device holds the network; `fsdp`: devices share it out; `auto`: ddp
            where there are several devices.
        precision: Lightning Fabric's name of the arithmetic.
        threads: Threads of torch; 0 leaves torch's own choice.
        log_every: Steps between lines of `log.csv`.
        valid_every: Steps between validations; 0 validates at the end only.
        patience: Validations without a better score after which the run ends; 0: never.
        save_minutes: Minutes between checkpoints.
        save_every: Steps between checkpoints; 0 goes by minutes alone.
        select: Held-out figures whose mean picks `best.ckpt`; empty: all that are better when
            lower, or all where there is none of these.
        tensorboard: Write TensorBoard's logs too, into `run.out`.
        price: Of a device for an hour, for the estimate of costs; 0: none is given.
        peak_tflops: What a device can do at most, for the estimate of how well it was used; 0:
            unknown.
    """

    out: str
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = Field(default=1, gt=0)
    num_nodes: int = Field(default=1, gt=0)
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    threads: int = Field(default=0, ge=0)
    log_every: int = Field(default=20, gt=0)
    valid_every: int = Field(default=500, ge=0)
    patience: int = Field(default=0, ge=0)
    save_minutes: float = Field(default=5.0, gt=0)
    save_every: int = Field(default=0, ge=0)
    select: tuple[str, ...] = ()
    tensorboard: bool = False
    price: float = Field(default=0.0, ge=0)
    peak_tflops: float = Field(default=0.0, ge=0)


LANGUAGE = ("masked", "causal", "contrastive")
ObjectiveName = Literal[
    "masked", "causal", "contrastive", "tracks", "labels", "regression", "contacts", "finetune"
]


class TrainConfig(Part):
    """Everything that determines a run.

    Attributes:
        name: Of the model.
        family: A system of `families`.
        objective: What is learned.
        seed: Of all random numbers.
        init: Checkpoint whose averaged weights the run starts from, relative to the config.
        model: What the family's network is made with.
        encoder: How bases become rows; predictors of assays read bases and need none.
        tokenizer: `tokenizer.json` of a bpe encoder, relative to the config.
        data: Where windows come from.
        mask: Of the objectives masked and contrastive.
        contrastive: Of the objective contrastive.
        supervised: Of the objectives tracks, labels, regression and contacts.
        finetune: Of the objective finetune.
        optim: Optimizer and schedule.
        run: Behaviour on the machine.
    """

    name: str
    family: str
    objective: ObjectiveName = "masked"
    seed: int = Field(default=0, ge=0)
    init: str | None = None
    model: dict[str, int | float | bool | str | list[int]]
    encoder: EncoderSpec = EncoderSpec(kind="one_hot", vocab=Vocab(n="zeros"))
    tokenizer: str | None = None
    data: DataConfig
    mask: MaskConfig = MaskConfig()
    contrastive: ContrastiveConfig = ContrastiveConfig()
    supervised: SupervisedConfig | None = None
    finetune: FinetuneConfig | None = None
    optim: OptimConfig
    run: RunConfig

    @model_validator(mode="after")
    def _fits(self) -> TrainConfig:
        if self.objective in LANGUAGE and not self.data.groups:
            raise ValueError(f"data.groups: objective {self.objective} needs at least one group")
        if (self.encoder.kind == "bpe") != (self.tokenizer is not None):
            raise ValueError("tokenizer: a bpe encoder needs its tokenizer.json, others have none")
        supervised = self.objective in KINDS
        if supervised and (self.supervised is None or self.supervised.kind != self.objective):
            raise ValueError(f"supervised.{self.objective}: the objective of that name needs it")
        if not supervised and self.supervised is not None:
            raise ValueError(f"supervised: objective {self.objective} does not read it")
        if (self.objective == "finetune") != (self.finetune is not None):
            raise ValueError("finetune: the objective of that name needs it, others have none")
        return self


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
        config = TrainConfig.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not TOML: {error}") from error
    except ValidationError as error:
        raise InputError(f"{path}: {_explain(error)}") from error
    if config.supervised is None:
        return config
    # A checkpoint holds the config and has to know its tracks without other files.
    supervised = resolve(config.supervised, Path(path).parent)
    return config.model_copy(update={"supervised": supervised})


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
