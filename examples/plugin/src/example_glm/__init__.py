"""Two scores and an encoder for glm_annotate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glm_annotate.encoding import Encoded, EncoderSpec
from glm_annotate.genome import ALPHABET, Codes
from glm_annotate.scores import Score

Floats = NDArray[np.float64]


def _gini(chances: Floats) -> Floats:
    """1 - sum of squared probabilities of A, C, G, T, shape (n, 4)."""
    return np.asarray(1.0 - (chances**2).sum(axis=1))


GINI = Score(
    kind="other",
    evidence={"masked": "distribution", "causal": "distribution"},
    reduce=_gini,
    formula={
        "masked": "1 - sum of p^2 over A, C, G, T at the first changed base, masked",
        "causal": "1 - sum of p^2 over A, C, G, T at the first changed base, given its prefix",
    },
)
LLR_SIZE = Score(
    kind="distance",
    evidence={"masked": "masked_ratio", "causal": "likelihood_ratio"},
    reduce=np.abs,
    formula={"masked": "|LLR|", "causal": "|LLR|"},
)


class Iupac:
    """A row a base, with an id for every letter of IUPAC's code, from `first_id` on."""

    def __init__(self, spec: EncoderSpec, tokenizer: Path | None = None) -> None:
        self.spec = spec
        ids = spec.vocab.first_id + np.arange(len(ALPHABET))
        self._ids = ids.astype(np.int32)

    def encode(self, codes: Codes) -> list[Encoded]:
        """Encode base codes (B, L) as ids (B, prefix + L + suffix)."""
        vocab = self.spec.vocab
        size, length = codes.shape
        parts = [
            np.tile(np.array(x, dtype=np.int32), (size, 1)) for x in (vocab.prefix, vocab.suffix)
        ]
        rows = np.concatenate([parts[0], self._ids[codes], parts[1]], axis=1)
        spans = np.full((1, rows.shape[1], 2), -1, dtype=np.int32)
        first = len(vocab.prefix)
        spans[0, first : first + length, 0] = np.arange(length)
        spans[0, first : first + length, 1] = np.arange(length) + 1
        return [Encoded(np.arange(size), rows, spans)]

    def base_ids(self, width: int, offset: int) -> NDArray[np.int64] | None:
        """Give the ids of A, C, G, T, shape (4, 1)."""
        return self._ids[:4, None].astype(np.int64)
