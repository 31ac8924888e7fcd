"""The model card: everything the annotation side knows about a model.

`card.json` is parsed here and nowhere else; an unknown key is an error. No score, window or
writer looks at `name` or `family`: what differs between models is in these fields.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from glm_annotate.vocab import EncoderSpec

Objective = Literal["masked", "causal", "tracks", "contacts"]
Frame = Literal["variant", "gene", "exon"]
OutputName = Literal["logits", "embedding", "tracks", "contacts", "attention"]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Dtype = Literal["int64", "int32", "uint8", "float32", "float16", "bool"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WindowRule(_Strict):
    """How long a window may be.

    Attributes:
        kind: `fixed`: always `context` bases. `dynamic`: flanks are cut evenly until the rows fit.
        max_tokens: Most rows that the graph takes, special tokens included.
        multiple_of: Rows are padded on the right with `pad_id` to a multiple of this.
    """

    kind: Literal["fixed", "dynamic"] = "fixed"
    max_tokens: int | None = Field(default=None, ge=1)
    multiple_of: int = Field(default=1, ge=1)


class GraphTensor(_Strict):
    """An input or output of the graph: its name there, its axes in order, its element type."""

    name: str
    axes: tuple[str, ...]
    dtype: Dtype = "float32"


class EmbeddingRule(_Strict):
    """What the `embedding` output is and how it is pooled when the user does not say.

    Attributes:
        dim: Channels of the output.
        pool: `site` (the allele), `window` (k bases around it), `all`.
        k: Bases of pool = window.
        halves: `rc` where the second half of the channels belongs to the reverse complement, in
            reversed channel order: the two halves are averaged.
    """

    dim: int = Field(ge=1)
    pool: Literal["site", "window", "all"] = "site"
    k: int = Field(default=1, ge=1)
    halves: Literal["none", "rc"] = "none"


class ContactRule(_Strict):
    """Layout of a contact map output."""

    bin_size: int = Field(ge=1)
    diagonal: int = Field(default=0, ge=0)
    layout: Literal["square", "upper"] = "square"
    symmetric: bool = True


class ScopeContig(_Strict):
    """A contig that the model is meant for; lengths in bases, both bounds included."""

    name: str
    min_length: int = Field(default=0, ge=0)
    max_length: int | None = None


class Scope(_Strict):
    """Where the model may be used; elsewhere alleles get OUT_OF_SCOPE."""

    contigs: tuple[ScopeContig, ...] = ()
    taxa: tuple[str, ...] = ()


class Provenance(_Strict):
    """Where a model comes from and how good it was when measured."""

    code_licence: str = ""
    weights_licence: str = ""
    citation: str = ""
    training_data: str = ""
    assembly: str = ""
    species: str = ""
    accessions: str = ""
    held_out: str = ""
    command: str = ""
    commit: str = ""
    intended_use: str = ""
    limits: str = ""
    quality: dict[str, Any] = Field(default_factory=dict)
    compute_pfs_days: float | None = None


# What the model digest covers: anything here changes scores, anything else does not.
SCORING_KEYS = (
    *("objective", "context", "anchor", "window", "frame", "circular", "encoder", "inputs"),
    *("outputs", "logits_shift", "embedding", "strand", "shifts", "bin_size", "crop"),
    *("contacts", "pllr_max", "dense", "precision"),
)


class ModelCard(_Strict):
    """The contents of `card.json`.

    Attributes:
        tag: Prefix of the model's INFO keys.
        context: Bases of a window.
        anchor: Index in the window of the first changed base, after trimming and left-alignment;
            for an insertion the base after the junction.
        frame: `variant` windows; `gene` and `exon` need gene models, and so does `variant` with
            strand = gene, of tracks: whole windows, read on the strand of the gene.
        circular: Contigs that wrap around.
        inputs: Graph inputs by role: `rows`, `attention_mask`, `channels`, or the exon parts.
        outputs: Graph outputs by meaning, already activated.
        logits_shift: 0 where row t is about token t, 1 where row t predicts token t + 1.
        strand: Which strands are run and averaged when the user does not say.
        bin_size: Bases of a bin of `tracks`; `crop`: bins already cut off at each side.
        scores: Scores computed when the user names none.
        pllr_max: Most rows that a PLLR may mask one by one.
        dense: Distance in bases of the sites that `--mode dense` masks together; 0: no such mode.
        precision: Of the weights as stored.
        atol: Tolerance of self-test and parity.
        sha256: Of every other file of the bundle.
    """

    format: Literal[1] = 1
    name: str
    version: str = "1.0"
    tag: str
    description: str = ""
    family: str = ""
    objective: Objective
    context: int = Field(ge=1)
    anchor: int = Field(ge=0)
    window: WindowRule = Field(default_factory=WindowRule)
    frame: Frame = "variant"
    circular: tuple[str, ...] = ()
    encoder: EncoderSpec
    inputs: dict[str, GraphTensor]
    outputs: dict[OutputName, GraphTensor]
    logits_shift: Literal[0, 1] = 0
    embedding: EmbeddingRule | None = None
    strand: Literal["both", "forward", "equivariant", "gene"] = "both"
    shifts: tuple[int, ...] = Field(default=(0,), min_length=1)
    bin_size: int | None = Field(default=None, ge=1)
    crop: int = Field(default=0, ge=0)
    contacts: ContactRule | None = None
    scope: Scope | None = None
    scores: tuple[str, ...] = ()
    pllr_max: int = Field(default=64, ge=1)
    dense: int = Field(default=0, ge=0)
    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"
    atol: float = Field(default=1e-4, gt=0, allow_inf_nan=False)
    provenance: Provenance = Field(default_factory=Provenance)
    sha256: dict[str, Sha256] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> ModelCard:
        if not re.fullmatch(r"[A-Z][A-Z0-9]*", self.tag):
            raise ValueError(f"tag {self.tag!r} must be capitals and digits, a capital first")
        if self.anchor >= self.context:
            raise ValueError(f"anchor {self.anchor} lies outside a window of {self.context} bases")
        if self.frame != "exon" and "rows" not in self.inputs:
            raise ValueError("inputs need the role 'rows'")
        if self.objective in ("masked", "causal") and not {"logits", "embedding"} & set(
            self.outputs
        ):
            raise ValueError(f"a {self.objective} model needs the output logits or embedding")
        for needed in ("tracks", "contacts"):
            if self.objective == needed and needed not in self.outputs:
                raise ValueError(f"a {needed} model needs the output {needed}")
        if "embedding" in self.outputs and self.embedding is None:
            raise ValueError("the output embedding needs the key embedding with its dim")
        if "tracks" in self.outputs and self.bin_size is None:
            raise ValueError("the output tracks needs the key bin_size")
        if "contacts" in self.outputs and self.contacts is None:
            raise ValueError("the output contacts needs the key contacts with its bin_size")
        if self.window.kind == "dynamic" and self.window.max_tokens is None:
            raise ValueError("a dynamic window needs max_tokens")
        return self

    @property
    def in_genes(self) -> bool:
        """Whether windows are read on the strand of each gene that holds the allele."""
        whole = self.frame == "variant" and self.objective == "tracks" and self.strand == "gene"
        return whole or self.frame == "gene"

    def scoring_digest(self) -> str:
        """Digest the card's scoring keys (hex sha256)."""
        values = self.model_dump(mode="json", include=set(SCORING_KEYS))
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def in_scope(self, contig: str, length: int, same: tuple[str, ...] = ()) -> bool:
        """Say whether a contig, or one of its other spellings, is what the model is meant for."""
        if self.scope is None or not self.scope.contigs:
            return True
        names = {contig, *same}
        return any(
            c.name in names and c.min_length <= length <= (c.max_length or length)
            for c in self.scope.contigs
        )
