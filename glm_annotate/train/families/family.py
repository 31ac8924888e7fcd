"""What a file in this folder has to offer, so that loop and export need no system's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from glm_annotate.train.families.predictor import Predicted, Predictor

Values = Mapping[str, int | float | bool | str | list[int]]


class Network(nn.Module):
    """A network over token ids.

    Attributes:
        dim: Numbers a row in the embedding.
        vocabulary: Logits a row.
        max_rows: Most rows that the weights allow (learned positions, materialised filters);
            None for any number.
        channels: Channels of the second input (B, T, channels), float32; 0: there is none.
        has_attention: Whether `attend` gives maps.
        equivariant: Whether both strands are read alike; the second half of the embedding then
            belongs to the reverse complement, its channels reversed.
    """

    dim: int
    vocabulary: int
    max_rows: int | None = None
    channels: int = 0
    has_attention: bool = False
    equivariant: bool = False

    def embed(self, rows: Tensor) -> Tensor:
        """Return the last layer after the final norm, shape (B, T, dim), for ids (B, T)."""
        raise NotImplementedError

    def embed_with(self, rows: Tensor, channels: Tensor) -> Tensor:
        """Do as `embed`, where the network has `channels`: (B, T, channels), float32."""
        raise NotImplementedError

    def attend(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `embed` does, and the attention maps (B, layers, heads, T, T)."""
        raise NotImplementedError

    def materialise(self, window: int) -> None:
        """Fix what depends on weights alone, for windows of up to `window` rows.

        Called before a graph is written; long filters are worked out here.
        """

    def decode(self, embedding: Tensor) -> Tensor:
        """Turn embeddings (B, T, dim) into logits (B, T, vocabulary)."""
        raise NotImplementedError

    def forward(self, rows: Tensor) -> Tensor:
        """Return logits (B, T, vocabulary) for ids (B, T)."""
        return self.decode(self.embed(rows))


@dataclass(frozen=True, slots=True)
class Source:
    """An official checkpoint as it lies on disk.

    Attributes:
        name: How messages call it.
        weights: Tensors by the name that the file gives them.
        config: Its `config.json` (or yml), empty where there is none.
        folder: Where its tokenizer files lie; None where nothing but weights is known.
        repository: `owner/repo@commit` where it came from a hub, else "".
        files: The files that the weights were read from.
    """

    name: str
    weights: Mapping[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    repository: str = ""
    files: tuple[Path, ...] = ()

    def file(self, name: str) -> Path | None:
        """Find a file beside the weights."""
        path = self.folder / name if self.folder is not None else None
        return path if path is not None and path.is_file() else None


@dataclass(frozen=True, slots=True)
class Loaded:
    """An official checkpoint as a network and the facts of its card.

    Attributes:
        network: In evaluation mode, float32, holding every weight of the source.
        card: Card keys that follow from the checkpoint: encoder, context, anchor, window,
            logits_shift, strand, scores, pllr_max, embedding (pool, k, halves; `dim` is added),
            and whatever else is not the card's default.
        tokenizer: The text of `tokenizer.json` for a bpe encoder.
    """

    network: Network
    card: Mapping[str, Any]
    tokenizer: str | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """One official checkpoint that can be downloaded.

    Attributes:
        name: The bundle's name and the row in the table of models, such as `dnabert-6`.
        repository: `owner/repo[@revision]` on the Hugging Face hub.
        context: Longest window in bases that the authors trained on.
        options: Further arguments of `glm-annotate export` that this one needs.
        note: What a user should know, in a few words.
    """

    name: str
    repository: str
    context: int
    options: str = ""
    note: str = ""


def one_head(source: Source) -> tuple[str, ...]:
    """Say that there are no heads to choose from."""
    return ()


@dataclass(frozen=True, slots=True)
class Official:
    """How a system's official checkpoints are read.

    Attributes:
        variant: What the parity table calls them (a system may have several).
        recognise: Whether a source is one of these, from config and keys; must not raise.
        load: Makes the network; the second argument is the window in bases that the user asked
            for, None for the default. Raises InputError where the source is not what it should be.
        tag: The card's `tag`, such as `NT`.
        tokenizer: In words, for the table.
        code_licence: SPDX name of the authors' code.
        weights_licence: SPDX name of the weights, or what is known of it.
        releases: Checkpoints to download.
        heads: Names of the heads of a source that `head` of its config chooses from; must not
            raise.
    """

    variant: str
    recognise: Callable[[Source], bool]
    load: Callable[[Source, int | None], Loaded | Predicted]
    tag: str
    tokenizer: str
    code_licence: str
    weights_licence: str
    releases: tuple[Release, ...] = ()
    heads: Callable[[Source], tuple[str, ...]] = one_head


@dataclass(frozen=True, slots=True)
class Family:
    """One system.

    Attributes:
        name: As in the config and the card.
        objective: What it is trained on, as in the card.
        build: Makes a network from the config's `[model]` table; raises InputError.
        trunk: Tells the parameters of the trunk (by name and tensor) that Muon may update.
        citation: Where the system was published.
        title: What people call it.
        official: How its official checkpoints are read, one entry a variant.
    """

    name: str
    objective: str
    build: Callable[[Values], Network | Predictor]
    trunk: Callable[[str, Tensor], bool]
    citation: str
    title: str = ""
    official: tuple[Official, ...] = ()


def is_matrix_of(prefix: str) -> Callable[[str, Tensor], bool]:
    """Make a `trunk` that names the matrices below a module."""

    def chosen(name: str, weight: Tensor) -> bool:
        return name.startswith(prefix) and weight.ndim == 2

    return chosen
