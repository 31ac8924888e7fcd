"""Every score once more, slowly: strings, Python loops and one pass at a time.

Written from the definitions of the scores alone and sharing nothing with the scoring code: the
package only loads the card and reads the FASTA. What has no number gives the reason as a string.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime
from oracle_channels import Columns, reversed_columns
from oracle_tokens import Tokens

from glm_annotate.bundle import load_bundle
from glm_annotate.genome import Genome, aliases, to_text

COMPLEMENT = dict(zip("ACGTNRYSWKMBDHV", "TGCANYRSWMKVHDB", strict=True))
_MEANS = "A:A C:C G:G T:T R:AG Y:CT S:CG W:AT K:GT M:AC B:CGT D:AGT H:ACT V:ACG"
STANDS_FOR = dict(x.split(":") for x in _MEANS.split())
LN4 = math.log(4)


class Reason(Exception):
    """An allele, or a score of it, that has no number."""


@dataclass(frozen=True)
class Haplotype:
    """A window in reading direction, where its allele lies in it, and the channels beside it."""

    bases: str
    start: int
    end: int
    columns: tuple[tuple[float, ...], ...] = ()

    def reversed(self):
        size, bases = len(self.bases), reverse_complement(self.bases)
        return Haplotype(bases, size - self.end, size - self.start, reversed_columns(self.columns))


@dataclass(frozen=True)
class Allele:
    """What a variant changes: trimmed, left-aligned, `start` 0-based."""

    chrom: str
    start: int
    ref: str
    alt: str


def reverse_complement(text: str):
    return "".join(COMPLEMENT[x] for x in reversed(text))


def log_softmax(logits):
    top = logits.max()
    return logits - top - math.log(np.exp(logits - top).sum())


def without_common_ends(ref, alt):
    """Remove the common prefix, then the common suffix; give the places that are left."""
    left = 0
    while left < min(len(ref), len(alt)) and ref[left] == alt[left]:
        left += 1
    right = 0
    while right < min(len(ref), len(alt)) - left and ref[-1 - right] == alt[-1 - right]:
        right += 1
    return range(left, len(ref) - right), range(left, len(alt) - right)


class Oracle:
    """A model and a genome; `score` gives one score of one allele.

    A model with channels needs an `alignment`, see `oracle_channels`.
    """

    def __init__(self, bundle_path, fasta_path, circular=None, strand=None, alignment=None):
        bundle = load_bundle(bundle_path)
        self.card = bundle.card
        self.spec, self.vocab = bundle.card.encoder, bundle.card.encoder.vocab
        names = self.card.circular if circular is None else circular
        self.genome = Genome(fasta_path, circular=names)
        self.strand = strand or self.card.strand
        self.length = self.card.context
        self.passes = 0
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(bundle.graph), options, providers=["CPUExecutionProvider"]
        )
        self.encoder = Tokens(self.card, Path(bundle.path))
        self.texts: dict[str, str] = {}
        self.columns = None if alignment is None else Columns(self.spec, alignment)

    def score(self, chrom: str, pos: int, ref: str, alt: str, spec: str) -> float | str:
        """Compute one score, named as on the command line, or say why there is none."""
        name, *pairs = spec.split(":")
        options = dict(pair.split("=") for pair in pairs)
        try:
            allele = self.allele(chrom, pos, ref.upper(), alt.upper())
            if self.columns is not None and allele.chrom not in self.columns.alignment:
                raise Reason("NO_SIGNAL")
            value = self._score(allele, name, options)
        except Reason as reason:
            return str(reason)
        return value if math.isfinite(value) else "NOT_FINITE"

    def _score(self, allele, name, options):
        masked = {"LLR": self.llr, "PLLR": self.pllr, "WTLLR": self.wtllr, "ENT": self.ent}
        causal = {"LLR": self.causal_llr, "ENT": self.ent}
        scores = masked if self.card.objective == "masked" else causal
        if name in scores:
            if options:
                raise ValueError(f"{name} takes no options")
            return scores[name](allele)
        pool = options.pop("pool", self.card.embedding.pool)
        k = int(options.pop("k", self.card.embedding.k))
        if options:
            raise ValueError(f"{name} does not take {options}")
        ref, alt = self.embeddings(allele, pool, k)
        if name == "EMB_COS":
            with np.errstate(invalid="ignore"):
                return float(1 - ref @ alt / np.sqrt((ref @ ref) * (alt @ alt)))
        if name == "EMB_L1":
            return float(sum(abs(a - b) for a, b in zip(ref, alt, strict=True)))
        if name == "EMB_L2":
            return math.sqrt(sum((a - b) ** 2 for a, b in zip(ref, alt, strict=True)))
        if name == "EMB_DOT":
            return float(sum(a * b for a, b in zip(ref, alt, strict=True)))
        raise ValueError(f"no score {name} for a {self.card.objective} model")

    # Alleles and windows

    def allele(self, chrom, pos, ref, alt):
        """Trim, left-align, and find out what keeps the whole allele from having a score."""
        contig = self.genome.resolve(chrom)
        if contig is None:
            raise Reason("CONTIG_MISSING")
        text = self.text(contig)
        size, start, around = len(text), pos - 1, contig in self.genome.circular
        if not 0 <= start < size or (start + len(ref) > size and not around):
            raise Reason("OFF_CONTIG")
        there = "".join(text[(start + i) % size] for i in range(len(ref)))
        if set(ref + alt) - set("ACGT") or "N" in there:
            raise Reason("AMBIGUOUS")
        if any(base not in STANDS_FOR[x] for base, x in zip(ref, there, strict=True)):
            raise Reason("REF_MISMATCH")
        while ref and alt and ref[-1] == alt[-1]:
            ref, alt = ref[:-1], alt[:-1]
        while ref and alt and ref[0] == alt[0]:
            ref, alt, start = ref[1:], alt[1:], start + 1
        if not ref and not alt:
            raise Reason("NO_CHANGE")
        if not ref or not alt:
            moves = 0
            while (around or start > 0) and moves < size:
                before, last = text[(start - 1) % size], (ref or alt)[-1]
                if before != last:
                    break
                ref, alt = (before + x[:-1] if x else x for x in (ref, alt))
                start, moves = start - 1, moves + 1
        if not self.card.in_scope(contig, size, aliases(contig)):
            raise Reason("OUT_OF_SCOPE")
        if self.card.anchor + max(len(ref), len(alt)) > self.length:
            raise Reason("TOO_LONG")
        return Allele(contig, start % size if around else start, ref, alt)

    def text(self, chrom):
        if chrom not in self.texts:
            self.texts[chrom] = to_text(self.genome.codes(chrom))
        return self.texts[chrom]

    def base(self, chrom, position):
        text = self.text(chrom)
        if chrom in self.genome.circular:
            return text[position % len(text)]
        return text[position] if 0 <= position < len(text) else "N"

    def stretch(self, chrom, start, length):
        return "".join(self.base(chrom, start + i) for i in range(length))

    def edited(self, allele, left, bases):
        """Give the window at `left` with the allele replaced by `bases`, cut to its length."""
        before = self.stretch(allele.chrom, left, allele.start - left)
        behind = self.stretch(allele.chrom, allele.start + len(allele.ref), self.length)
        offset, columns = allele.start - left, ()
        if self.columns is not None:
            around = allele.chrom in self.genome.circular
            columns = self.columns.window(allele, left, bases, self.length, around)
        whole = (before + bases + behind)[: self.length]
        return Haplotype(whole, offset, offset + len(bases), columns)

    def pairs(self, allele, left=None):
        """Give the REF and ALT haplotype of each strand that is used."""
        left = allele.start - self.card.anchor if left is None else left
        # The REF window holds the record's REF, which the FASTA may spell as an IUPAC letter.
        ref, alt = (self.edited(allele, left, x) for x in (allele.ref, allele.alt))
        if self.strand in ("forward", "equivariant"):
            return [(ref, alt)]
        if self.strand != "both":
            raise ValueError(f"strand {self.strand} is not for this oracle")
        return [(ref, alt), (ref.reversed(), alt.reversed())]

    # Tokens and passes

    def rows(self, hap):
        """Give the rows of a window, each with its channels."""
        rows = self.encoder.rows(hap.bases)
        if self.columns is None:
            return rows
        none = self.columns.missing
        return [replace(x, beside=hap.columns[x.start] if x.bases else none) for x in rows]

    def run(self, rows, masked=()):
        """Run one window alone; `masked` are places of rows. Gives one array an output."""
        tensor = self.card.inputs["rows"]
        if self.spec.kind == "one_hot":
            values = np.zeros((1, len(rows), 4), dtype=tensor.dtype)
            for t, row in enumerate(rows):
                if t not in masked and row.id is not None:
                    values[0, t, row.id] = 1
        else:
            ids = [self.vocab.mask_id if t in masked else row.id for t, row in enumerate(rows)]
            values = np.array([ids], dtype=tensor.dtype)
        self.passes += 1
        names = [self.card.outputs[x].name for x in self.card.outputs]
        feeds = {tensor.name: values}
        if self.columns is not None:
            beside = self.card.inputs["channels"]
            feeds[beside.name] = np.array([[row.beside for row in rows]], dtype=beside.dtype)
        arrays = self.session.run(names, feeds)
        outputs = zip(self.card.outputs, arrays, strict=True)
        return {name: array[0].astype(np.float64) for name, array in outputs}

    def log_probabilities(self, rows, masked=()):
        """Give for each row the log probabilities of the ids it may have, or None."""
        logits, shift = self.run(rows, masked)["logits"], self.card.logits_shift
        return [None if t < shift else log_softmax(logits[t - shift]) for t in range(len(rows))]

    # Likelihood scores

    def llr(self, allele):
        if len(allele.ref) != len(allele.alt):
            raise Reason("INDEL")
        values = [self.swap(ref, alt, masks=True) for ref, alt in self.pairs(allele)]
        return sum(values) / len(values)

    def wtllr(self, allele):
        if len(allele.ref) != len(allele.alt):
            raise Reason("INDEL")
        half, quarter = self.length // 2, self.length // 4
        left = allele.start // half * half - quarter
        changed = [i for i, x in enumerate(allele.ref) if x != allele.alt[i]]
        if allele.start + changed[-1] - left >= self.length:
            raise Reason("TOO_LONG")
        pairs = self.pairs(allele, left)
        values = [self.swap(ref, alt, masks=False) for ref, alt in pairs]
        return sum(values) / len(values)

    def swap(self, ref, alt, *, masks):
        """Sum over the rows that differ what the REF pass says about ALT's id and REF's."""
        old, new = self.rows(ref), self.rows(alt)
        if self.spec.kind == "bpe":
            touched = [t for t, (a, b) in enumerate(zip(old, new, strict=False)) if a.id != b.id]
            spans = {(rows[t].start, rows[t].end) for rows in (old, new) for t in touched[:1]}
            if len(old) != len(new) or len(touched) != 1 or len(spans) != 1:
                raise Reason("TOKENIZATION")
        else:
            changed = [i for i, base in enumerate(ref.bases) if base != alt.bases[i]]
            touched = [t for t, row in enumerate(old) if row.touches(changed)]
        logp = self.log_probabilities(old, touched if masks else ())
        plain = [t for t in touched if old[t].plain and new[t].plain and logp[t] is not None]
        total = sum(logp[t][new[t].id] - logp[t][old[t].id] for t in plain)
        return total * self.spec.stride / self.spec.k

    def causal_llr(self, allele):
        values = [self.sentence(alt) - self.sentence(ref) for ref, alt in self.pairs(allele)]
        return sum(values) / len(values)

    def sentence(self, hap):
        """Log-likelihood of a window's A, C, G and T bases, each given what precedes it."""
        rows = self.rows(hap)
        logp = self.log_probabilities(rows)
        # Nothing precedes row 0: a first base without a prefix.
        return sum(logp[t][rows[t].id] for t in range(1, len(rows)) if rows[t].plain)

    def pllr(self, allele):
        overlap = self.spec.stride < self.spec.k
        one = self.pllr_bases if overlap else self.pllr_rows
        values = [one(*pair, reverse=i == 1) for i, pair in enumerate(self.pairs(allele))]
        return sum(values) / len(values)

    def shared(self, hap, other, reverse):
        """Give the part of a haplotype whose bases the other window holds too."""
        grown = (other.end - other.start) - (hap.end - hap.start)
        lost = max(grown, 0)  # the other is longer: it lacks the last `lost` reference bases
        return (lost, self.length) if reverse else (0, self.length - lost)

    def pllr_rows(self, ref, alt, *, reverse):
        lists = []
        for hap, other in ((ref, alt), (alt, ref)):
            first, last = self.shared(hap, other, reverse)
            if self.spec.kind == "bpe":  # whose last token depends on where the window ends
                hap = replace(hap, bases=hap.bases[first:last])
                first, last = 0, last - first
            rows = self.rows(hap)
            inside = [
                t for t, x in enumerate(rows) if x.bases and first <= x.start and x.end <= last
            ]
            lists.append((rows, inside))
        left = without_common_ends(*([rows[t].id for t in kept] for rows, kept in lists))
        if max(map(len, left)) > self.card.pllr_max:
            raise Reason("TOO_LONG")
        sums = []
        for (rows, kept), places in zip(lists, left, strict=True):
            total = 0.0
            for t in (kept[i] for i in places):
                if rows[t].plain:
                    logp = self.log_probabilities(rows, (t,))[t]
                    total += logp[rows[t].id] + len(rows[t].bases) * LN4
            sums.append(total)
        return sums[1] - sums[0]

    def pllr_bases(self, ref, alt, *, reverse):
        parts = [self.shared(ref, alt, reverse), self.shared(alt, ref, reverse)]
        texts = [hap.bases[a:b] for hap, (a, b) in zip((ref, alt), parts, strict=True)]
        left = without_common_ends(*texts)
        if max(map(len, left)) > self.card.pllr_max:
            raise Reason("TOO_LONG")
        sums = []
        for hap, (first, _), places in zip((ref, alt), parts, left, strict=True):
            rows, total = self.rows(hap), 0.0
            for position in (first + i for i in places):
                touched = [t for t, row in enumerate(rows) if row.touches([position])]
                logp = self.log_probabilities(rows, touched)
                for t in touched:
                    if rows[t].plain:
                        total += logp[t][rows[t].id] + self.spec.k * LN4
            sums.append(total * self.spec.stride / self.spec.k)
        return sums[1] - sums[0]

    # Entropy

    def ent(self, allele):
        distributions = []
        for strand, (ref, _) in enumerate(self.pairs(allele)):
            # For an insertion the base after the junction, on the forward strand.
            anchor = self.card.anchor
            at = self.length - 1 - anchor if strand else anchor
            found = self.base_distribution(ref, at)
            distributions.append(found[::-1] if strand else found)  # A C G T against T G C A
        mean = np.mean(distributions, axis=0)
        return -sum(p * math.log(p) for p in mean if p > 0)

    def base_distribution(self, hap, at):
        """Give the probabilities of A, C, G and T at a place of a window."""
        if self.spec.kind == "bpe":
            raise Reason("TOKENIZATION")
        rows = self.rows(hap)
        touched = [t for t, row in enumerate(rows) if row.touches([at])]
        if self.card.objective == "causal":
            touched = [t for t in touched if t > 0 and rows[t].start == at]
            logp = self.log_probabilities(rows)
        else:
            logp = self.log_probabilities(rows, touched)
        if not touched:
            raise Reason("TOKENIZATION")
        found = []
        for t in touched:
            ids = self.encoder.ids_by_base(rows[t].end - rows[t].start, at - rows[t].start)
            sums = np.array([sum(math.exp(logp[t][i]) for i in ids[base]) for base in "ACGT"])
            found.append(sums / sums.sum())
        return np.mean(found, axis=0)

    # Embeddings

    def embeddings(self, allele, pool, k):
        """Give the pooled embedding of REF and of ALT, strands averaged."""
        pairs = self.pairs(allele)
        pooled = [
            [self.pooled(hap, pool, k, reverse=strand == 1) for hap in pair]
            for strand, pair in enumerate(pairs)
        ]
        return np.mean([x[0] for x in pooled], axis=0), np.mean([x[1] for x in pooled], axis=0)

    def interval(self, hap, pool, k, *, reverse):
        """Give the pooled bases in the haplotype's own reading direction."""
        if pool == "all":
            return 0, self.length
        if pool == "window" and self.card.objective == "causal":
            return hap.start, hap.start + k
        # Placed on the forward strand, then mirrored.
        forward = hap.reversed() if reverse else hap
        size = forward.end - forward.start
        if pool == "window":
            start = forward.start + size // 2 - k // 2
            end = start + k
        elif pool == "site":
            start, end = forward.start, forward.end
            if size == 0:
                start, end = start - 1, start + 1
        else:
            raise ValueError(f"no pool {pool}")
        return (self.length - end, self.length - start) if reverse else (start, end)

    def pooled(self, hap, pool, k, *, reverse):
        start, end = self.interval(hap, pool, k, reverse=reverse)
        rows = self.rows(hap)
        hidden = self.run(rows)["embedding"]
        total, weight = np.zeros(hidden.shape[1]), 0
        for row, values in zip(rows, hidden, strict=True):
            inside = max(0, min(row.end, end) - max(row.start, start)) if row.bases else 0
            total, weight = total + inside * values, weight + inside
        if not weight:
            raise Reason("NOT_FINITE")
        mean = total / weight
        if self.card.embedding.halves == "rc":
            half = len(mean) // 2
            mean = (mean[:half] + mean[half:][::-1]) / 2
        return mean
