"""Log likelihoods of the bases of whole stretches of the genome, as a causal model gives them.

A base is read given what precedes it in its window, on every strand that is read: natural log p
over the full vocabulary, as for LLR, averaged over strands. Windows lie on a grid of the contig,
and each gives the bases of the half that it ends with in the direction of reading, so that at least
half a window precedes every base. Before the first base of a contig there is N, as for alleles.
Bases other than A, C, G and T have no value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from glm_annotate.answers import Floats, Ints
from glm_annotate.encoding import Encoder, refused
from glm_annotate.errors import UsageError
from glm_annotate.genome import Codes, Genome, reverse_complement
from glm_annotate.model import Model
from glm_annotate.pairs import row_limit
from glm_annotate.passes import ask_passes
from glm_annotate.stretches import WindowReader, Work
from glm_annotate.track_plan import Answers

_Read = tuple[int, Codes, bool]  # a pass, the bases that it gives in reading direction, the strand


def reads_bases(encoder: Encoder) -> bool:
    """Say whether every row is the id of one base."""
    spec = encoder.spec
    return spec.kind == "bytes" or (spec.kind == "kmer" and spec.k == 1)


class CausalReader(WindowReader):
    """Gives log p of the bases of stretches, one number a base.

    Args:
        model: A causal model with rows of single bases.
        genome: The reference.

    Raises:
        UsageError: Its rows are others.
    """

    def __init__(self, model: Model, genome: Genome) -> None:
        card, encoder = model.bundle.card, model.bundle.encoder
        ids = encoder.base_ids(1, 0) if reads_bases(encoder) else None
        if ids is None:
            raise UsageError(
                f"{card.name} gives no likelihood of single bases: its tokens are not of one base"
            )
        self._ids = ids[:, 0]
        vocab = encoder.spec.vocab
        self._length = min(card.context, row_limit(card) - len(vocab.prefix + vocab.suffix))
        kept = max(1, self._length // 2)
        super().__init__(model, genome, role="logits", kept=kept, bin_size=1, tracks=1)

    def _ask(self, work: Work, members: Ints) -> None:
        contig, numbers = work.contig, work.numbers[members]
        if not self._holds(contig):
            return
        spec, circular = self.model.bundle.encoder.spec, contig in self.model.circular
        # In reading direction the bases of a window that count are its last ones.
        windows = []
        for reverse in self.model.strands:
            left = numbers * self.step if reverse else (numbers + 1) * self.step - self._length
            codes = self.genome.windows(contig, left, self._length, circular=circular)
            windows.append((reverse, left, codes))
        readable = np.ones(members.size, dtype=bool)
        for _, _, codes in windows:
            readable &= (codes < 4).any(axis=1) & ~refused(codes, spec)
        which = np.flatnonzero(readable)
        if not which.size:
            return
        reads: list[list[_Read]] = [[] for _ in which]
        for reverse, left, codes in windows:
            beside = None
            if self.model.channels is not None:
                beside = self.model.channels.windows(
                    contig, left[which], self._length, circular=circular
                )
            one = replace(self.model, strands=(reverse,))
            asked = ask_passes(work.plan, one, codes[which], beside)
            read = reverse_complement(codes[which]) if reverse else codes[which]
            for at, ((number,),) in enumerate(asked):
                reads[at].append((number, read[at, -self.step :], reverse))
        for at, member in enumerate(members[which].tolist()):
            needs = [number for number, _, _ in reads[at]]
            work.plan.then(needs, partial(self._finish, work, member, reads[at]))

    def _finish(self, work: Work, member: int, reads: Sequence[_Read], answers: Answers) -> None:
        card = self.model.bundle.card
        first = len(card.encoder.vocab.prefix) + self._length - self.step
        total = np.zeros(self.step)
        for number, codes, reverse in reads:
            rows = np.arange(first, first + self.step)
            given = (codes < 4) & (rows >= max(1, card.logits_shift))
            logits = answers[number][np.maximum(rows - card.logits_shift, 0)]
            ids = self._ids[np.where(given, codes, 0)]
            logs = np.where(given, _log_chances(logits, ids), np.nan)
            total += logs[::-1] if reverse else logs
        work.found[member, :, 0] = total / len(reads)


def _log_chances(logits: np.ndarray, ids: Ints) -> Floats:
    """Read log p of an id a row of logits (n, V), shape (n,)."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    chosen: Floats = wide[np.arange(ids.size), ids] - np.log(np.exp(wide).sum(axis=1))
    return chosen
