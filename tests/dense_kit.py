"""Dense scores once more, by plain loops, and the engine reading densely."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine import Engine
from oracle import COMPLEMENT, Allele, Haplotype, Oracle, Reason

from glm_annotate.annotate import Annotator
from glm_annotate.dense import dense_stride


class DenseEngine(Engine):
    """The engine in the mode `dense`."""

    def __init__(self, bundle: Path, fasta: Path, scores: Sequence[str], **options: Any) -> None:
        super().__init__(bundle, fasta, scores, **options)
        (model,) = self.annotator.models
        self.model = replace(model, dense=dense_stride(self.bundle))
        self.annotator = Annotator(self.genome, [self.model])


class DenseOracle(Oracle):
    """LLR of single bases and ENT from windows of the grid, other alleles as the oracle has them.

    Of the window k of `half` bases, from k x half - quarter on, every site at a multiple of the
    stride from the allele's is masked too, where the contig has A, C, G or T.
    """

    def allele(self, chrom, pos, ref, alt):
        found = super().allele(chrom, pos, ref, alt)
        if self.vocab.n == "error" and any(
            set(hap.bases) - set("ACGT") for pair in self.pairs(found) for hap in pair
        ):
            raise Reason("AMBIGUOUS")
        return found

    def window(self, allele, alt):
        """Give the window, the place of the site in it and the places masked; None where exact."""
        half, quarter = self.length // 2, self.length // 4
        text = self.text(allele.chrom)
        if not allele.start < len(text) or text[allele.start] not in "ACGT":
            return None
        left = allele.start // half * half - quarter
        at = allele.start - left
        bases = self.stretch(allele.chrom, left, self.length)
        if self.vocab.n == "error" and set(bases) - set("ACGT"):
            return None
        masked = []
        for place in range(self.length):
            site = left + place  # 0-based, past an origin goes on
            same = site % self.card.dense == allele.start % self.card.dense
            if same and bases[place] in "ACGT":
                masked.append(place)
        changed = bases[:at] + alt + bases[at + 1 :]
        columns = ()
        if self.columns is not None:
            around = allele.chrom in self.genome.circular
            columns = self.columns.window(
                replace(allele, ref="N", alt="N"), left, "N", self.length, around
            )
        old, new = (Haplotype(x, at, at + 1, columns) for x in (bases, changed))
        strands = [(old, new, masked)]
        if self.strand == "both":
            there = [self.length - 1 - x for x in masked]
            strands.append((old.reversed(), new.reversed(), there))
        return strands

    def llr(self, allele):
        strands = None
        if len(allele.ref) == len(allele.alt) == 1:
            strands = self.window(allele, allele.alt)
        if strands is None:
            return super().llr(allele)
        total = 0.0
        for old, new, masked in strands:
            before, after = self.rows(old), self.rows(new)
            hidden = [t for t, row in enumerate(before) if row.touches(masked)]
            logp = self.log_probabilities(before, hidden)
            for t, row in enumerate(before):
                if row.touches([old.start]) and row.plain:
                    total += logp[t][after[t].id] - logp[t][row.id]
        return total / len(strands) * self.spec.stride / self.spec.k

    def ent(self, allele):
        strands = self.window(allele, "N")
        if strands is None:
            return super().ent(allele)
        found = self.chances(strands)
        return -sum(p * math.log(p) for p in found if p > 0)

    def chances(self, strands):
        """Give the probabilities of A, C, G, T at the site, averaged over strands."""
        mean = dict.fromkeys("ACGT", 0.0)
        for strand, (window, _, masked) in enumerate(strands):
            rows = self.rows(window)
            hidden = [t for t, row in enumerate(rows) if row.touches(masked)]
            logp = self.log_probabilities(rows, hidden)
            touched = [t for t, row in enumerate(rows) if row.touches([window.start])]
            for t in touched:
                place = window.start - rows[t].start
                ids = self.encoder.ids_by_base(rows[t].end - rows[t].start, place)
                sums = {x: sum(math.exp(logp[t][i]) for i in ids[x]) for x in "ACGT"}
                for x, value in sums.items():
                    there = COMPLEMENT[x] if strand else x
                    share = len(touched) * len(strands)
                    mean[there] += value / sum(sums.values()) / share
        return [mean[x] for x in "ACGT"]

    def likelihood(self, chrom, position):
        """Give log p of a base of the contig, 0-based."""
        base = self.text(chrom)[position]
        strands = self.window(Allele(chrom, position, base, "N"), "N")
        return math.log(self.chances(strands)["ACGT".index(base)])
