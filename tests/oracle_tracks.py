"""Scores of tracks once more, slowly: strings, one window at a time, loops over bases and bins.

Written from the definitions alone. What an allele is and which letters lie around it comes from
`oracle`; windows, bins, strands, alignment, transforms, masks and scores are here.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
from oracle import Oracle, Reason, reverse_complement


class TrackOracle(Oracle):
    """A model of tracks and a genome; `tracks` gives one score of one allele, track by track."""

    def __init__(self, bundle_path, fasta_path, circular=None, strand=None):
        super().__init__(bundle_path, fasta_path, circular, strand)
        with open(Path(bundle_path) / "tracks.tsv", newline="") as handle:
            self.rows_of_table = list(csv.DictReader(handle, delimiter="\t"))
        self.place = {row["identifier"]: i for i, row in enumerate(self.rows_of_table)}
        self.seen, self.seen_bins = {}, {}

    # Names

    def merged(self):
        """List (name, track, partner or None) of each track after strands are merged."""
        found = []
        for i, row in enumerate(self.rows_of_table):
            other = self.partner(i)
            if other == i:
                found.append((row["identifier"], i, None))
            elif i < other:
                names = [row["identifier"], self.rows_of_table[other]["identifier"]]
                plus = [name for name in names if name.endswith("+")]
                found.append(((plus or names)[0], i, other))
        return found

    def partner(self, track):
        return self.place[self.rows_of_table[track]["strand_pair"] or self.identifier(track)]

    def identifier(self, track):
        return self.rows_of_table[track]["identifier"]

    # Scores

    def tracks(self, chrom, pos, ref, alt, spec):
        """Give {merged track: score}, or the reason why the allele has none."""
        name, *pairs = spec.split(":")
        options = dict(pair.split("=") for pair in pairs)
        try:
            allele = self.allele(chrom, pos, ref.upper(), alt.upper())
            for shift in self.card.shifts:
                start = self.card.anchor - shift
                if start + max(len(allele.ref), len(allele.alt)) > self.length:
                    raise Reason("TOO_LONG")
        except Reason as reason:
            return str(reason)
        total = {merged: 0.0 for merged, _, _ in self.merged()}
        for shift in self.card.shifts:
            # A window that is moved right by `shift` has the variant further left in it.
            bins = self.pairs_of_bins(allele, allele.start - self.card.anchor + shift)
            kept = [x for x in bins if self.is_chosen(x[0], options)]
            for merged, one, other in self.merged():
                values = [
                    self.score_of(name, [b[1][t] for b in kept], [b[2][t] for b in kept])
                    for t in (one, other)
                    if t is not None
                ]
                squares = name in ("D2", "LOGD2")
                score = math.hypot(*values) if squares else sum(values)
                total[merged] += score / len(self.card.shifts)
        return total

    def sums(self, chrom, pos, ref, alt):
        """Give {merged track: (sum of REF, sum of ALT)} over the bins that both have."""
        allele = self.allele(chrom, pos, ref.upper(), alt.upper())
        out = {merged: [0.0, 0.0] for merged, _, _ in self.merged()}
        for shift in self.card.shifts:
            bins = self.pairs_of_bins(allele, allele.start - self.card.anchor + shift)
            for merged, one, other in self.merged():
                for t in (one, other):
                    for side in (0, 1):
                        values = [b[1 + side][t] for b in bins] if t is not None else []
                        out[merged][side] += math.fsum(values) / len(self.card.shifts)
        return out

    def is_chosen(self, number, options):
        """Whether a bin belongs to the mask: whether it has a base of it."""
        if options.get("mask", "all") == "all" and "width" not in options:
            return True
        width = int(options["width"])
        low = (self.length - width) // 2
        first = self.first_base(number)
        return any(low <= p < low + width for p in range(first, first + self.card.bin_size))

    def score_of(self, name, ref, alt):
        log = [(math.log2(1 + r), math.log2(1 + a)) for r, a in zip(ref, alt, strict=True)]
        both = list(zip(ref, alt, strict=True))
        if name == "SAD":
            return math.fsum(alt) - math.fsum(ref)
        if name == "LOGSAD":
            return math.fsum(a - r for r, a in log)
        if name == "SQRTSAD":
            return math.fsum(math.sqrt(a) - math.sqrt(r) for r, a in both)
        if name == "LOGSED":
            return math.log2(1 + math.fsum(alt)) - math.log2(1 + math.fsum(ref))
        if name == "SAX":
            best = 0.0
            for r, a in both:
                if abs(a - r) > abs(best):
                    best = a - r
            return best
        if name == "LFC":
            means = (math.fsum(x) / len(x) for x in (ref, alt))
            one, other = (math.log(x + 1e-3) for x in means)
            return other - one
        if name in ("D1", "LOGD1"):
            return math.fsum(abs(a - r) for r, a in (both if name == "D1" else log))
        if name in ("D2", "LOGD2"):
            return math.sqrt(math.fsum((a - r) ** 2 for r, a in (both if name == "D2" else log)))
        if name == "JSD":
            if not (any(ref) and any(alt)):
                return math.nan
            p, q = ([x / math.fsum(side) for x in side] for side in (ref, alt))
            middle = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
            divergence = (kl(p, middle) + kl(q, middle)) / 2 / math.log(2)
            return math.sqrt(max(0.0, divergence))
        if name == "JS":
            floor = percentile(ref, 25)
            p, q = ([x + floor for x in side] for side in (ref, alt))
            p, q = ([x / math.fsum(side) for x in side] for side in (p, q))
            return (kl(p, q) + kl(q, p)) / 2
        raise ValueError(f"no score {name} of tracks")

    # Bins

    def first_base(self, number):
        """Give the place in the window where a bin begins."""
        return (self.card.crop + number) * self.card.bin_size

    def pairs_of_bins(self, allele, left):
        """Give (bin, REF's values, ALT's values) of the bins of REF's window that both have."""
        if (allele, left) not in self.seen_bins:
            self.seen_bins[allele, left] = self.find_bins(allele, left)
        return self.seen_bins[allele, left]

    def find_bins(self, allele, left):
        start = allele.start - left
        grown = len(allele.alt) - len(allele.ref)
        ref, alt = (self.haplotype(allele, left, x, abs(grown)) for x in (allele.ref, allele.alt))
        if self.card.bin_size == 1:
            return self.base_by_base(allele, start, self.predict(ref, 0), self.predict(alt, 0))
        if not grown:
            sides = [self.predict(ref, 0), self.predict(alt, 0)]
        else:
            sides = [
                self.stitched(hap, grown, start) if is_longer else self.predict(hap, 0)
                for hap, is_longer in ((ref, grown < 0), (alt, grown > 0))
            ]
        return [(i, *values) for i, values in enumerate(zip(*sides, strict=True))]

    def stitched(self, hap, grown, start):
        one, other = self.predict(hap, 0), self.predict(hap, abs(grown))
        return [one[i] if self.first_base(i) <= start else other[i] for i in range(len(one))]

    def base_by_base(self, allele, start, ref, alt):
        """Walk both haplotypes at once; ALT's bases behind the paired ones go to the last pair."""
        old, new = len(allele.ref), len(allele.alt)
        paired = min(old, new)
        out = []
        for place in range(self.card.crop, self.length - self.card.crop):
            if place < start + paired:
                sources = [place]
            elif place < start + old:
                sources = []
            else:
                sources = [place + new - old]
            if new > old and place == start + paired - 1:
                sources += range(place + 1, place + 1 + new - old)
            inside = [self.card.crop <= x < self.length - self.card.crop for x in sources]
            if not all(inside):
                continue
            number = place - self.card.crop
            values = [alt[x - self.card.crop] for x in sources]
            zero = [0.0] * len(self.rows_of_table)
            value = [max(x) for x in zip(*values, strict=True)] if values else zero
            out.append((number, ref[number], value))
        return out

    # Predictions

    def haplotype(self, allele, left, bases, more):
        """Give the letters of a haplotype from `left` on, some more than a window has."""
        before = self.stretch(allele.chrom, left, allele.start - left)
        length = self.length + more
        behind = self.stretch(allele.chrom, allele.start + len(allele.ref), length)
        return (before + bases + behind)[:length]

    def predict(self, hap, at):
        """Predict a window of a haplotype: strands averaged, then un-transformed; by bin."""
        text = hap[at : at + self.length]
        found = self.raw(text)
        if self.strand == "both":
            other = self.raw(reverse_complement(text))
            last = len(found) - 1
            found = [
                [(value + other[last - i][self.partner(t)]) / 2 for t, value in enumerate(values)]
                for i, values in enumerate(found)
            ]
        return [[self.taken_back(t, x) for t, x in enumerate(values)] for values in found]

    def raw(self, text):
        if text not in self.seen:
            assert len(text) == self.length
            ids = ["ACGTN".index(x if x in "ACGT" else "N") for x in text]
            (found,) = self.session.run(["tracks"], {"rows": np.array([ids], dtype=np.uint8)})
            bins = self.length // self.card.bin_size - 2 * self.card.crop
            assert found.shape == (1, bins, len(self.rows_of_table))
            self.seen[text] = found[0].astype(np.float64).tolist()
        return self.seen[text]

    def taken_back(self, track, x):
        row = self.rows_of_table[track]
        version, _, statistic = row["transform"].partition(":")
        clip = float(row["clip_soft"] or "inf")
        scale = float(row["scale"] or 1)
        if version == "new":
            x = clip - 1 + (x - clip + 1) ** 2 if x > clip else x
            power = 2 if statistic.endswith("_sqrt") else 4 / 3 if "_exp75" in statistic else 1
            return (1 + x) ** power - 1
        if version == "old":
            x /= scale
            x = clip + (x - clip) ** 2 if x > clip else x
            return (x ** (4 / 3) if statistic.endswith("_sqrt") else x) * scale
        return x


def kl(p, q):
    return math.fsum(x * math.log(x / y) for x, y in zip(p, q, strict=True) if x)


def percentile(values, percent):
    """Interpolate between the two nearest of the sorted values."""
    ordered = sorted(values)
    at = (len(ordered) - 1) * percent / 100
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)
