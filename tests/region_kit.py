"""Numbers along contigs once more, slowly: one window at a time, from the session itself."""

from __future__ import annotations

import itertools
import math

import numpy as np
from dense_kit import DenseOracle
from oracle import Allele, Haplotype, Oracle, log_softmax, reverse_complement
from oracle_tracks import TrackOracle


class AlongOracle(TrackOracle):
    """A model of tracks along a contig, window by window."""

    def along(self, chrom, edge=None):
        """Give the values of every bin of a contig, by track; None where there are none."""
        size, crop = self.card.bin_size, self.card.crop
        count = self.length // size - 2 * crop
        if edge is None:
            edge = 0 if crop else count // 8
        kept, total = count - 2 * edge, -(-self.genome.contigs[chrom] // size)
        out = []
        while len(out) < total:
            left = (len(out) - edge - crop) * size  # where the window begins
            out += self.window_of_bins(chrom, left)[edge : edge + kept]
        return out[:total]

    def window_of_bins(self, chrom, left):
        texts = [self.stretch(chrom, left + shift, self.length) for shift in self.card.shifts]
        refuses = self.vocab.n == "error"
        if any(not set(x) & set("ACGT") or (refuses and set(x) - set("ACGT")) for x in texts):
            return [None] * self.length
        read = [self.both(text) for text in texts]
        return [
            [
                self.taken_back(t, math.fsum(x[i][t] for x in read) / len(read))
                for t in range(len(self.rows_of_table))
            ]
            for i in range(len(read[0]))
        ]

    def both(self, text):
        """Average the strands, transformed as the graph gives them; by bin and track."""
        found = self.raw(text)
        if self.strand != "both":
            return found
        other = self.raw(reverse_complement(text))[::-1]
        return [
            [(x + other[i][self.partner(t)]) / 2 for t, x in enumerate(values)]
            for i, values in enumerate(found)
        ]


class CausalOracle(Oracle):
    """A causal model along a contig, base by base."""

    def log_chance(self, chrom, position):
        """Give log p of a base, 0-based, given what precedes it; None where it has none."""
        half = self.length // 2
        block = position // half * half
        lefts = {False: block + half - self.length, True: block}
        values = []
        for reverse in (False, True) if self.strand == "both" else (False,):
            text = self.stretch(chrom, lefts[reverse], self.length)
            at = position - lefts[reverse]
            if reverse:
                text, at = reverse_complement(text), self.length - 1 - at
            if text[at] not in "ACGT":
                return None
            values.append(self.given(text[:at], text[at]))
        return math.fsum(values) / len(values)

    def given(self, before, base):
        """Give log p of a base behind some others, from a pass over these alone."""
        prefix = list(self.vocab.prefix)
        ids = dict(zip(self.vocab.order, range(self.vocab.first_id, 99), strict=False))
        ids |= dict.fromkeys("NRY", self.vocab.single_ids["N"])
        rows = prefix + [ids[x] for x in before]
        (logits,) = self.session.run(["logits"], {"rows": np.array([rows])})
        return float(log_softmax(logits[0][-1].astype(np.float64))[ids[base]])


class MaskedOracle(DenseOracle):
    """A masked model along a contig, base by base."""

    def log_chance(self, chrom, position, *, dense=False):
        """Give log p of a base, 0-based, masked alone or with others; None where it has none."""
        base, at = self.text(chrom)[position], self.card.anchor
        if base not in "ACGT":
            return None
        if dense:
            return self.likelihood(chrom, position)
        hap = whole(self, chrom, position - at, at, at + 1)
        strands = [(hap, hap, [at])]
        if self.strand == "both":
            there = hap.reversed()
            strands.append((there, there, [self.length - 1 - at]))
        return math.log(self.chances(strands)["ACGT".index(base)])


def whole(oracle, chrom, left, start, end):
    """Give a window as it is, with a stretch of it to look at, and its columns."""
    columns = ()
    if oracle.columns is not None:
        nothing, around = Allele(chrom, left, "N", "N"), chrom in oracle.genome.circular
        columns = oracle.columns.window(nothing, left, "N", oracle.length, around)
    return Haplotype(oracle.stretch(chrom, left, oracle.length), start, end, columns)


class EmbeddingOracle(Oracle):
    """Pooled embeddings of stretches."""

    def embedding(self, chrom, start, end):
        """Average tiles of equal lengths by their bases; None where none has a base."""
        total, bases = 0.0, 0
        count = math.ceil((end - start) / self.length)
        edges = [start + (end - start) * i // count for i in range(count + 1)]
        for a, b in itertools.pairwise(edges):
            if not set(self.stretch(chrom, a, b - a)) & set("ACGT"):
                continue
            before = (self.length - (b - a)) // 2
            hap = whole(self, chrom, a - before, before, before + b - a)
            both = [self.pooled(hap, "site", 0, reverse=False)]
            if self.strand == "both":
                both.append(self.pooled(hap.reversed(), "site", 0, reverse=True))
            total, bases = total + np.mean(both, axis=0) * (b - a), bases + b - a
        return total / bases if bases else None
