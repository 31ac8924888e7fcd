"""A genome that was never a file: contigs by name, as base codes."""

from __future__ import annotations

from collections.abc import Mapping

from glm_annotate.genome import Codes, Genome


class MadeGenome(Genome):
    """Contigs that are at hand; none wraps around.

    Args:
        contigs: Base codes by name.
        path: What messages call it.
    """

    def __init__(self, contigs: Mapping[str, Codes], path: str = "sequences") -> None:
        # Not that of `Genome`, which opens a file.
        self.path, self.circular = path, frozenset()
        self._codes = dict(contigs)
        self.contigs = {name: int(codes.size) for name, codes in self._codes.items()}

    def codes(self, contig: str) -> Codes:
        """Give a whole contig, shape (length,)."""
        return self._codes[contig]
