"""What a file in this folder has to offer, so that loop and export need no system's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

Values = Mapping[str, int | float | bool | str | list[int]]


class Network(nn.Module):
    """A network over token ids.

    Attributes:
        dim: Numbers a row in the embedding.
        vocabulary: Logits a row.
    """

    dim: int
    vocabulary: int

    def embed(self, rows: Tensor) -> Tensor:
        """Return the last layer after the final norm, shape (B, T, dim), for ids (B, T)."""
        raise NotImplementedError

    def decode(self, embedding: Tensor) -> Tensor:
        """Turn embeddings (B, T, dim) into logits (B, T, vocabulary)."""
        raise NotImplementedError

    def forward(self, rows: Tensor) -> Tensor:
        """Return logits (B, T, vocabulary) for ids (B, T)."""
        return self.decode(self.embed(rows))


@dataclass(frozen=True, slots=True)
class Family:
    """One system.

    Attributes:
        name: As in the config and the card.
        objective: What it is trained on, as in the card.
        build: Makes a network from the config's `[model]` table; raises InputError.
        trunk: Tells the parameters of the trunk (by name and tensor) that Muon may update.
        citation: Where the system was published.
    """

    name: str
    objective: str
    build: Callable[[Values], Network]
    trunk: Callable[[str, Tensor], bool]
    citation: str
