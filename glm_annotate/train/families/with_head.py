"""A language model with a head: one prediction a window, of assays or classes.

What is trained is `WithHead`, what is exported `Finetuned`. A row weighs as many bases as it stands
for, as in the scores of embeddings; special tokens, padding and N weigh nothing, so that what a
window is filled up with does not change its pooled row. Windows of a batch that have different
numbers of rows are run one length after the other: no network here hides padding from attention.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional

from glm_annotate.encoding import Encoder
from glm_annotate.errors import InputError
from glm_annotate.train.families.family import Family, Network, Values
from glm_annotate.train.families.one_bin import TRACKS, keep_rows
from glm_annotate.train.families.predictor import Predictor
from glm_annotate.train.finetune.config import HeadConfig, LoraConfig, Loss, Mode
from glm_annotate.vocab import EncoderSpec

Floats = NDArray[np.float32]


class Facts(BaseModel):
    """What a network with a head is, kept among its weights: a checkpoint alone can be exported.

    Attributes:
        family: System of the language model.
        model: What its family's `build` makes it from.
        encoder: How windows become ids.
        tokenizer: Text of `tokenizer.json`, of a bpe encoder.
        context: Bases of a window.
        max_rows: Most rows of a window; None: any number.
        reverse_complement: Whether both strands mean the same.
        mode: What was trained.
        loss: What it was trained with, which decides what predictions are.
        head: What stands on it.
        lora: Low-rank changes, with mode = lora.
        outputs: Names of the predictions.
        provenance: Of the language model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: str
    model: dict[str, Any]
    encoder: EncoderSpec
    tokenizer: str | None = None
    context: int
    max_rows: int | None = None
    reverse_complement: bool
    mode: Mode
    loss: Loss
    head: HeadConfig
    lora: LoraConfig
    outputs: tuple[str, ...]
    provenance: dict[str, Any] = {}


class WithHead(nn.Module):
    """A language model, its pooled row, and a head on that.

    Attributes:
        trunk: The language model.
        head: From the pooled row (B, D) to numbers (B, outputs).
        shift: Mean and `scale` spread of the values trained on, which the head does without.
    """

    def __init__(self, trunk: Network, facts: Facts, encoder: Encoder) -> None:
        super().__init__()
        self.facts, self.trunk = facts, trunk
        self.dim = trunk.dim // 2 if trunk.equivariant else trunk.dim
        count, hidden = len(facts.outputs), facts.head.hidden
        layers: list[nn.Module] = []
        if hidden:
            layers = [nn.Linear(self.dim, hidden), nn.GELU()]
        self.head = nn.Sequential(*layers, nn.Linear(hidden or self.dim, count))
        self.shift: Tensor
        self.scale: Tensor
        self.widths: Tensor
        self.steps: Tensor
        self.text: Tensor
        self.register_buffer("shift", torch.zeros(count))
        self.register_buffer("scale", torch.ones(count))
        widths, steps = row_tables(encoder, facts.tokenizer, trunk.vocabulary)
        self.register_buffer("widths", torch.from_numpy(widths), persistent=False)
        self.register_buffer("steps", torch.from_numpy(steps), persistent=False)
        text = np.frombuffer(facts.model_dump_json().encode(), dtype=np.uint8)
        self.register_buffer("text", torch.from_numpy(text.copy()))

    def train(self, mode: bool = True) -> Self:
        """Train the head, and the trunk where it is trained at all."""
        super().train(mode)
        if self.facts.mode in ("frozen", "embeddings"):
            self.trunk.eval()
        return self

    def pool(self, rows: Tensor) -> Tensor:
        """Pool ids (B, T) into (B, D)."""
        x = self.trunk.embed(rows).float()
        if self.trunk.equivariant:
            ours, theirs = x.chunk(2, dim=-1)
            x = (ours + theirs.flip(-1)) / 2
        if self.facts.head.pool == "cls":
            return x[:, 0]
        weights = self.widths[rows]  # (B, T)
        if self.facts.head.pool == "site":
            weights = self._of_site(rows, weights)
        total = weights.sum(1, keepdim=True).clamp(min=1)  # a window of N alone has no base
        out: Tensor = (x * weights[..., None]).sum(1) / total
        return out

    def _of_site(self, rows: Tensor, widths: Tensor) -> Tensor:
        """Choose the rows of the middle base, of both where there are two: (B, T)."""
        steps = self.steps[rows]
        start = steps.cumsum(1) - steps
        sites = {(self.facts.context - 1) // 2, self.facts.context // 2}
        touched = [(start <= site) & (site < start + widths) for site in sorted(sites)]
        return torch.stack(touched).sum(0).to(widths.dtype)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Give what the loss reads, (B, outputs), of `rows` (B, T) and `lengths` (B,), or `pooled`.

        `rows` are padded; `lengths` say how many count. `pooled` (B, D) is what `pool` gave.
        """
        if "pooled" in batch:
            pooled = batch["pooled"]
        else:
            pooled = self.pool_each(batch["rows"], batch["lengths"])
        out: Tensor = self.head(pooled.to(self.shift.dtype))
        return out

    def pool_each(self, rows: Tensor, lengths: Tensor) -> Tensor:
        """Pool padded rows (B, T) of which `lengths` (B,) count, one length after the other."""
        order, parts = [], []
        for length in torch.unique(lengths).tolist():
            members = (lengths == length).nonzero()[:, 0]
            order.append(members)
            parts.append(self.pool(rows[members, :length]))
        return torch.cat(parts)[torch.cat(order).argsort()]

    def activate(self, raw: Tensor) -> Tensor:
        """Turn what the loss reads into predictions, (B, outputs): values, rates, probabilities."""
        match self.facts.loss:
            case "mse":
                return raw * self.scale + self.shift
            case "poisson":
                return functional.softplus(raw)
            case "bce":
                return raw.sigmoid()
            case "cross_entropy":
                return raw.softmax(-1)


class Finetuned(Predictor):
    """What is exported: ids (B, T) to one bin of predictions (B, 1, outputs)."""

    def __init__(self, network: WithHead) -> None:
        super().__init__()
        self.network = network
        self.outputs = {"tracks": TRACKS}
        self.vocabulary, self.max_rows = network.trunk.vocabulary, network.facts.max_rows

    def forward(self, bases: Tensor, channels: Tensor | None = None) -> tuple[Tensor, ...]:
        """Predict from ids (B, T)."""
        network = self.network
        found: Tensor = network.activate(network.head(network.pool(bases)))
        return (found[:, None],)

    def select(self, tracks: Sequence[int]) -> None:
        """Keep only these outputs; classes belong together.

        Raises:
            InputError: The outputs are probabilities of classes that add up to 1.
        """
        network, which = self.network, list(tracks)
        last = network.head[-1]
        if which == list(range(len(network.shift))) or not isinstance(last, nn.Linear):
            return
        if network.facts.loss == "cross_entropy":
            raise InputError("the probabilities of classes belong together; leave --tracks away")
        network.head[-1] = keep_rows(last, which)
        network.shift, network.scale = network.shift[which], network.scale[which]


def row_tables(encoder: Encoder, tokenizer: str | None, size: int) -> tuple[Floats, Floats]:
    """Tell by id, shape (size,): how many of A, C, G, T a row stands for, and bases to the next.

    A row that holds an N stands for none.
    """
    spec = encoder.spec
    widths, steps = np.zeros((2, size), dtype=np.float32)
    if spec.kind == "bpe":
        words: Mapping[str, int] = json.loads(tokenizer or "{}")["model"]["vocab"]
        for word, token in words.items():
            if set(word) <= set("ACGTN"):
                steps[token] = len(word)
                widths[token] = len(word) if "N" not in word else 0
    else:
        for width in {1, spec.k} if spec.stride == spec.k else {spec.k}:
            if width == 1 < spec.k and not spec.vocab.single_ids.keys() >= set("ACGT"):
                continue  # the tail is dropped
            ids = encoder.base_ids(width, 0)
            if ids is not None:
                widths[ids] = width
                steps[ids] = min(width, spec.stride)
    _add_unknown(encoder, widths, steps)
    for token in (*spec.vocab.prefix, *spec.vocab.suffix):
        widths[token] = steps[token] = 0
    return widths, steps


def _add_unknown(encoder: Encoder, widths: Floats, steps: Floats) -> None:
    """Add the bases from a row of N to the next, by the rows of a sequence that has some."""
    if encoder.spec.vocab.n == "error":
        return
    codes = np.full((1, 4 * encoder.spec.k), 4, dtype=np.uint8)
    (group,) = encoder.encode(codes)
    rows, spans = group.rows[0].astype(np.int64), group.spans[0]
    for row, (start, end) in zip(rows.tolist(), spans.tolist(), strict=True):
        if start >= 0 and widths[row] == 0:
            steps[row] = min(end - start, encoder.spec.stride if encoder.spec.k > 1 else end)


def build(values: Values) -> Predictor:
    """Refuse: the language model comes from a checkpoint.

    Raises:
        InputError: Always.
    """
    raise InputError(
        "family 'with_head' is made of a checkpoint, which [finetune] source names; set "
        'objective = "finetune"'
    )


def is_trunk(name: str, weight: Tensor) -> bool:
    """Tell matrices of the language model's layers from tables and the head."""
    return name.startswith("trunk.") and weight.ndim == 2 and "embed" not in name


FAMILY = Family(
    name="with_head",
    objective="tracks",
    build=build,
    trunk=is_trunk,
    citation="",
    title="Language model with a head",
)
