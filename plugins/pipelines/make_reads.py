"""Simulate paired reads of a sample that carries known variants; a small set to try a pipeline on.

    python make_reads.py REF.fa TRUTH.vcf -o PREFIX [options]

Puts every ALT of TRUTH.vcf (small alleles of one contig, one ALT a record, sorted, not overlapping)
into the first contig of REF.fa, cuts pairs from it, and writes PREFIX_1.fq.gz and PREFIX_2.fq.gz.
The sample is haploid, like mitochondrial DNA, and its sequence a line, not a circle. Needs Python
alone.
"""

from __future__ import annotations

import argparse
import gzip
import random
import sys

COMPLEMENT = str.maketrans("ACGTN", "TGCAN")
# Phred 30, which tells an aligner and a caller of one error in a thousand bases.
QUALITY = "?"


def read_first_contig(path: str) -> tuple[str, str]:
    """Name and upper-case bases of the first contig."""
    name, parts = "", []
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            if line.startswith(">"):
                if name:
                    break
                name = line[1:].split()[0]
            else:
                parts.append(line.strip().upper())
    return name, "".join(parts)


def apply(bases: str, contig: str, path: str) -> str:
    """The contig with every ALT of a VCF in it."""
    parts, end = [], 0
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.startswith("#"):
                continue
            chrom, text, _, ref, alt = line.split("\t")[:5]
            start = int(text) - 1
            if chrom != contig or start < end or bases[start : start + len(ref)] != ref:
                sys.exit(f"{path} line {number}: not on {contig}, not sorted, or REF is not there")
            parts += [bases[end:start], alt]
            end = start + len(ref)
    return "".join([*parts, bases[end:]])


def with_errors(read: str, rate: float, dice: random.Random) -> str:
    """The read with some of its bases replaced by others."""
    return "".join(dice.choice("ACGT".replace(x, "")) if dice.random() < rate else x for x in read)


def main() -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("fasta", metavar="REF.fa")
    parser.add_argument("truth", metavar="TRUTH.vcf")
    parser.add_argument("-o", "--output", required=True, metavar="PREFIX")
    parser.add_argument("--depth", type=float, default=40)
    parser.add_argument("--length", type=int, default=150)
    parser.add_argument("--insert", type=int, default=350, help="mean length of a fragment")
    parser.add_argument("--errors", type=float, default=0.001, help="part of bases read wrongly")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    contig, bases = read_first_contig(given.fasta)
    sample = apply(bases, contig, given.truth)
    dice = random.Random(given.seed)
    pairs = round(given.depth * len(sample) / (2 * given.length))
    with (
        gzip.open(f"{given.output}_1.fq.gz", "wt") as first,
        gzip.open(f"{given.output}_2.fq.gz", "wt") as second,
    ):
        for i in range(pairs):
            size = max(given.length, round(dice.gauss(given.insert, given.insert / 10)))
            start = dice.randrange(len(sample) - size + 1)
            piece = sample[start : start + size]
            mates = [piece, piece[::-1].translate(COMPLEMENT)]
            if dice.random() < 0.5:
                mates.reverse()
            for out, mate in zip((first, second), mates, strict=False):
                read = with_errors(mate[: given.length], given.errors, dice)
                out.write(f"@read{i}\n{read}\n+\n{QUALITY * len(read)}\n")
    print(f"{pairs} pairs of {contig}, {len(sample)} bases")


if __name__ == "__main__":
    main()
