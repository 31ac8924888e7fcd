"""The card's `encoder`: which encoder a model reads, and its token ids."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class Channel(BaseModel):
    """An input channel beside the bases, read from a file that the user names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    source: Literal["bigwig", "msa"]
    transform: Literal["none", "log1p"] = "none"
    missing: float = 0.0
    indel: Literal["edit", "reference"] = "reference"


class Vocab(BaseModel):
    """Token ids of an encoder.

    Attributes:
        order: Order of bases: channels of one_hot, digits of k-mers.
        first_id: Id of the first k-mer; the others follow in `itertools.product` order.
        single_ids: Ids of single letters: N, and the bases where k-mers leave a tail.
        tail: What non-overlapping k-mers do with the last len % k bases.
        n: What a base other than A, C, G, T becomes: its own token, zeros, the mask, an error.
        prefix: Ids put before every sequence.
        suffix: Ids put after every sequence.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    order: str = "ACGT"
    first_id: TokenId = 0
    single_ids: dict[str, TokenId] = Field(default_factory=dict)
    tail: Literal["single", "drop"] = "single"
    pad_id: TokenId | None = None
    unk_id: TokenId | None = None
    mask_id: TokenId | None = None
    n: Literal["token", "zeros", "mask", "error"] = "token"
    prefix: tuple[TokenId, ...] = ()
    suffix: tuple[TokenId, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Vocab:
        if sorted(self.order) != list("ACGT"):
            raise ValueError(f"order {self.order!r} is not an order of A, C, G and T")
        if self.n == "mask" and self.mask_id is None:
            raise ValueError("n = mask needs a mask_id")
        unknown = sorted(set(self.single_ids) - set("ACGTN"))
        if unknown:
            raise ValueError(f"single_ids names {unknown[0]!r}; allowed are A, C, G, T and N")
        return self

    def named_ids(self) -> tuple[int, ...]:
        """List every id that stands in the card itself, k-mers aside."""
        optional = (self.pad_id, self.unk_id, self.mask_id)
        present = tuple(x for x in optional if x is not None)
        return (*present, *self.prefix, *self.suffix, *self.single_ids.values())


# The name of a package, and of what it offers.
PluginKind = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*\.[a-z0-9_]+$")]


class EncoderSpec(BaseModel):
    """The card's `encoder`: which encoder, and its vocabulary."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["one_hot", "kmer", "bpe", "bytes"] | PluginKind
    k: int = Field(default=1, ge=1, le=12)
    stride: int = Field(default=1, ge=1)
    vocab: Vocab = Field(default_factory=Vocab)
    channels: tuple[Channel, ...] = ()

    @property
    def is_plugin(self) -> bool:
        """Whether the kind is another package's: those have a dot."""
        return "." in self.kind

    @model_validator(mode="after")
    def _check(self) -> EncoderSpec:
        if self.stride > self.k:
            raise ValueError(f"stride {self.stride} is larger than k {self.k}: bases would be lost")
        if self.kind != "kmer" and not self.is_plugin and (self.k, self.stride) != (1, 1):
            raise ValueError(f"{self.kind} has k = 1 and stride = 1")
        if self.vocab.n == "zeros" and self.kind != "one_hot":
            raise ValueError("n = zeros is for one_hot; ids have n = token, mask or error")
        if self.vocab.n == "mask" and self.kind == "bpe":
            raise ValueError("n = mask is for kmer and bytes; bpe has n = token or error")
        if self.kind == "one_hot" and (self.vocab.prefix or self.vocab.suffix):
            raise ValueError("one_hot has channels, so neither prefix nor suffix ids")
        return self
