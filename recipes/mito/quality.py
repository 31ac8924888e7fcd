"""Measure scores of mitochondrial SNVs against what is seen in human populations.

A variant that no population study has seen is more likely to be selected against. The AUROC of
`absent` against `common` and against `rare` says how well a score tells them apart. It is taken
within transitions and within transversions, never pooled: in this genome "is a transition" alone
tells seen from unseen. Intervals are percentiles of a bootstrap over positions, because the
alleles of a position are not independent.

Three scores are measured, all turned so that higher means more constrained: minus the model's
log-likelihood ratio, phyloP, and minus the ratio of a k-mer model of the same training sequences
(a base given five neighbours on each side, smoothed towards fewer neighbours). A variant without
a score (phyloP has no value, the VCF no number) is left out for that score alone, and counted.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glm_annotate.errors import GlmAnnotateError, InputError, UsageError
from glm_annotate.genome import Codes, Genome, aliases, to_codes
from glm_annotate.train.config import read_names

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

HERE = Path(__file__).parent
FLANK = 5
ABSENT, OTHERS = "absent", ("common", "rare")
_SPELLINGS = {
    "pos": ("pos", "position"),
    "ref": ("ref", "reference", "ref_allele"),
    "alt": ("alt", "alternate", "alt_allele"),
    "label": ("label_population",),
}


@dataclass(frozen=True, slots=True)
class Table:
    """SNVs and what populations say of them; all arrays have the shape (n,).

    Attributes:
        pos: 1-based positions.
        ref: Base codes 0 to 3.
        alt: Base codes 0 to 3.
        label: `absent`, `rare`, `common`, or what else the table holds.
    """

    pos: Ints
    ref: Ints
    alt: Ints
    label: NDArray[np.str_]

    @property
    def transition(self) -> Flags:
        """A to G, C to T and back: their codes are two apart."""
        two_apart: Flags = np.abs(self.ref - self.alt) == 2
        return two_apart


@dataclass(frozen=True, slots=True)
class Auroc:
    """One comparison.

    Attributes:
        auroc: Chance that an absent variant scores higher than one of the others.
        low: Lower end of the 95 % interval.
        high: Its upper end.
        absent: Absent variants with a score.
        others: Others with a score.
        missing: Variants of both kinds without a score.
    """

    auroc: float
    low: float
    high: float
    absent: int
    others: int
    missing: int


def read_table(path: Path) -> Table:
    """Read a tab-separated table, gzipped or not; the case of its column names does not matter.

    Raises:
        InputError: A column is missing, or a row is not an SNV of A, C, G, T.
    """
    data = path.read_bytes()
    text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8")
    head, *lines = text.splitlines() or [""]
    header = head.lstrip("#").split("\t")
    places = [_find_column(path, header, spellings) for spellings in _SPELLINGS.values()]
    rows = [line.split("\t") for line in lines]
    for number, row in enumerate(rows, 2):
        if len(row) <= max(places):
            raise InputError(f"{path}: line {number}: {len(row)} columns, the header has more")
        where, ref, alt = (row[place] for place in places[:3])
        if not where.isdigit() or any(base not in tuple("ACGTacgt") for base in (ref, alt)):
            raise InputError(
                f"{path}: line {number}: found {where} {ref}>{alt}, wanted an SNV of A, C, G, T"
            )
    pos, ref_column, alt_column, label = ([row[place] for row in rows] for place in places)
    return Table(
        np.array(pos, dtype=np.int64),
        to_codes("".join(ref_column)).astype(np.int64),
        to_codes("".join(alt_column)).astype(np.int64),
        np.array([text.strip().lower() for text in label], dtype=np.str_),
    )


def _find_column(path: Path, header: Sequence[str], spellings: Sequence[str]) -> int:
    lower = [name.strip().lower() for name in header]
    place = next((lower.index(name) for name in spellings if name in lower), None)
    if place is None:
        raise InputError(
            f"{path}: no column {' or '.join(spellings)}; its columns are {', '.join(header)}"
        )
    return place


def check_reference(table: Table, genome: Genome, contig: str, path: Path) -> None:
    """Refuse a table of another reference.

    Raises:
        InputError: A position or REF base is not the FASTA's.
    """
    codes = genome.codes(contig)
    inside = (table.pos >= 1) & (table.pos <= codes.size)
    agrees = inside & (codes[np.where(inside, table.pos - 1, 0)] == table.ref)
    if not agrees.all():
        first = int(np.flatnonzero(~agrees)[0])
        raise InputError(
            f"{path}: line {first + 2}: {genome.path} has not {'ACGT'[table.ref[first]]} at "
            f"{contig}:{table.pos[first]}; give the FASTA that the table was made with"
        )


def read_scores(path: Path, key: str, contig: str, table: Table) -> Floats:
    """Look the table's SNVs up in an annotated VCF, shape (n,); NaN where it has no number.

    Raises:
        InputError: The VCF lacks the key or has not one number an allele.
    """
    import pysam

    found: dict[tuple[int, str, str], float] = {}
    names = {contig, *aliases(contig)}
    with pysam.VariantFile(str(path)) as vcf:
        if key not in vcf.header.info or vcf.header.info[key].number != "A":
            known = [k for k, v in vcf.header.info.items() if v.number == "A"]
            raise InputError(
                f"{path}: no INFO key {key!r} with a number for each ALT; such keys are "
                f"{', '.join(known) or 'none'}; choose one with --key"
            )
        for record in vcf:
            if record.chrom in names and record.alts and key in record.info:
                for alt, value in zip(record.alts, record.info[key], strict=True):
                    if value is not None:
                        found[record.pos, record.ref or "", alt] = value
    keys = zip(table.pos.tolist(), table.ref.tolist(), table.alt.tolist(), strict=True)
    return np.array([found.get((p, "ACGT"[r], "ACGT"[a]), np.nan) for p, r, a in keys])


def read_phylop(path: Path, contig: str, size: int, table: Table) -> Floats:
    """Read phyloP at each SNV, shape (n,); NaN where the bigWig has no value.

    Raises:
        InputError: The bigWig has no such contig, or one of another length.
    """
    import pyBigWig

    with pyBigWig.open(str(path)) as bigwig:
        lengths = bigwig.chroms()
        name = next((n for n in (contig, *aliases(contig)) if n in lengths), None)
        if name is None or lengths[name] != size:
            raise InputError(
                f"{path}: no contig {contig} of {size} bases; it has "
                + ", ".join(f"{k} ({v})" for k, v in list(lengths.items())[:3])
            )
        values = np.asarray(bigwig.values(name, 0, size, numpy=True), dtype=np.float64)
    return values[table.pos - 1]


def training_sequences(fastas: Sequence[Path], withheld: frozenset[str]) -> Iterator[Codes]:
    """Yield the sequences of FASTA files, those of the withheld accessions left out."""
    for fasta in fastas:
        genome = Genome(fasta)
        for contig in genome.contigs:
            if contig not in withheld:
                yield genome.codes(contig)


def count_kmers(sequences: Iterable[Codes], flank: int = FLANK) -> Ints:
    """Count k-mers of circular sequences on both strands, shape (4,) * (2 * flank + 1).

    k-mers that hold a letter other than A, C, G, T are not counted.
    """
    width = 2 * flank + 1
    counts = np.zeros(4**width, dtype=np.int64)
    waiting: list[Ints] = []
    for codes in sequences:
        waiting.append(_kmer_numbers(codes, width))
        if sum(numbers.size for numbers in waiting) > 4_000_000:
            counts += np.bincount(np.concatenate(waiting), minlength=counts.size)
            waiting = []
    if waiting:
        counts += np.bincount(np.concatenate(waiting), minlength=counts.size)
    forward = counts.reshape((4,) * width)
    # The complement of code b is 3 - b: both strands are the sum of an array and its mirror image.
    return forward + np.flip(forward.transpose())


def _kmer_numbers(codes: Codes, width: int) -> Ints:
    wrapped = codes[np.arange(codes.size + width - 1) % codes.size].astype(np.int64)
    numbers = np.zeros(codes.size, dtype=np.int64)
    known = np.ones(codes.size, dtype=bool)
    for offset in range(width):
        column = wrapped[offset : offset + codes.size]
        numbers = numbers * 4 + column
        known &= column < 4
    return numbers[known]


def fit_kmers(counts: Ints, strength: float) -> list[Floats]:
    """Turn counts into P(centre | neighbours), for 0, 1, ... neighbours on each side.

    Each distribution is what was counted plus `strength` pseudo-counts that are spread as the
    distribution with one neighbour fewer on each side says; without neighbours, evenly.

    Returns:
        Table number f has the shape (4,) * (2 * f + 1) and sums to 1 over its middle axis.
    """
    flank = counts.ndim // 2
    shorter: Floats = np.array(0.25)
    tables = []
    for f in range(flank + 1):
        outside = (*range(flank - f), *range(flank + f + 1, counts.ndim))
        here = counts.sum(axis=outside)
        prior = shorter[None, ..., None] if f else shorter
        shorter = (here + strength * prior) / (here.sum(axis=f, keepdims=True) + strength)
        tables.append(shorter)
    return tables


def score_kmers(tables: Sequence[Floats], windows: Codes, table: Table) -> Floats:
    """Give log P(ALT) - log P(REF) of the k-mer model, shape (n,).

    Args:
        tables: From `fit_kmers`.
        windows: Bases around each SNV, shape (n, 2 * flank + 1). An N in a window leaves as many
            neighbours on each side as lie nearer than the N.
        table: The SNVs.
    """
    flank = windows.shape[1] // 2
    distance = np.abs(np.arange(windows.shape[1]) - flank)
    # The middle is REF or ALT in turn and never N.
    nearest = np.where((windows >= 4) & (distance > 0), distance, flank + 1).min(axis=1)
    out = np.empty(len(windows))
    for f, probabilities in enumerate(tables):
        rows = np.flatnonzero(nearest - 1 == f)
        sides = windows[rows, flank - f : flank + f + 1].T
        left, right = tuple(sides[:f]), tuple(sides[f + 1 :])
        alt = probabilities[(*left, table.alt[rows], *right)]
        ref = probabilities[(*left, table.ref[rows], *right)]
        out[rows] = np.log(alt) - np.log(ref)
    return out


def auroc(score: Floats, positive: Flags, weights: Floats) -> Floats:
    """Compute weighted AUROCs, ties counted half; NaN where a class has no weight.

    Args:
        score: Shape (n,).
        positive: Which should score higher, shape (n,).
        weights: One row for each AUROC, shape (r, n).

    Returns:
        Shape (r,).
    """
    order = np.argsort(score, kind="stable")
    ranked, weights = score[order], weights[:, order]
    ties = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    above = np.add.reduceat(weights * positive[order], ties, axis=1)
    below = np.add.reduceat(weights * ~positive[order], ties, axis=1)
    won = (above * (np.cumsum(below, axis=1) - below / 2)).sum(axis=1)
    pairs = above.sum(axis=1) * below.sum(axis=1)
    out = np.full(len(weights), np.nan)
    np.divide(won, pairs, out=out, where=pairs > 0)
    return out


def resample(pos: Ints, count: int, seed: int) -> Iterator[Floats]:
    """Draw positions with replacement, and yield weights of the variants, shape (some, n)."""
    positions, place = np.unique(pos, return_inverse=True)
    rng = np.random.default_rng(seed)
    even = np.full(positions.size, 1 / positions.size)
    for start in range(0, count, 50):
        drawn = rng.multinomial(positions.size, even, size=min(50, count - start))
        yield drawn[:, place].astype(np.float64)


def compare(score: Floats, table: Table, which: Flags, other: str, count: int, seed: int) -> Auroc:
    """Measure a score on absent against other variants.

    Args:
        score: Higher where more constrained, NaN where unknown, shape (n,).
        table: The SNVs.
        which: Those of the class looked at, shape (n,).
        other: Label compared with.
        count: Resamples.
        seed: Of the bootstrap.

    Raises:
        InputError: One of the two has no variant with a score.
    """
    asked = which & np.isin(table.label, (ABSENT, other))
    used = asked & np.isfinite(score)
    absent = table.label[used] == ABSENT
    if absent.all() or not absent.any():
        known = ", ".join(sorted(set(table.label.tolist())))
        raise InputError(
            f"label_population: no variant with a score is {ABSENT}, or none is {other}; "
            f"labels of the table are {known}"
        )
    value = float(auroc(score[used], absent, np.ones((1, absent.size)))[0])
    drawn = [auroc(score[used], absent, w) for w in resample(table.pos[used], count, seed)]
    low, high = np.nanpercentile(np.concatenate(drawn), [2.5, 97.5])
    missing = int(asked.sum()) - absent.size
    return Auroc(value, float(low), float(high), int(absent.sum()), int((~absent).sum()), missing)


Results = dict[str, dict[str, dict[str, Auroc]]]


def measure(scores: dict[str, Floats], table: Table, count: int, seed: int) -> Results:
    """Compare every score within both classes: score, class, comparison to figures."""
    classes = {"transitions": table.transition, "transversions": ~table.transition}
    return {
        name: {
            kind: {
                f"{ABSENT}_{other}": compare(score, table, which, other, count, seed)
                for other in OTHERS
            }
            for kind, which in classes.items()
        }
        for name, score in scores.items()
    }


def to_markdown(results: Results) -> str:
    """Lay the figures out as a table."""
    lines = [
        "| score | class | absent against | AUROC | 95 % interval | absent | others | missing |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for name, classes in results.items():
        for kind, comparisons in classes.items():
            for comparison, x in comparisons.items():
                other = comparison.removeprefix(f"{ABSENT}_")
                lines.append(
                    f"| {name} | {kind} | {other} | {x.auroc:.3f} | {x.low:.3f} to {x.high:.3f} "
                    f"| {x.absent} | {x.others} | {x.missing} |"
                )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line names, and return an exit code."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except GlmAnnotateError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    first = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=first)
    add = parser.add_argument
    add("--table", type=Path, required=True, help="all SNVs: pos, ref, alt, label_population")
    add("--fasta", type=Path, required=True, help="the reference of table and VCF")
    add("--scores", type=Path, help="VCF annotated with the model")
    add("--key", default="MITO_LLR", help="INFO key of the model's score (MITO_LLR)")
    add("--phylop", type=Path, help="bigWig of phyloP")
    add("--kmer-train", type=Path, nargs="+", default=[], help="FASTA files of the k-mer model")
    add("--kmer-withheld", type=Path, nargs="*", help="accessions it must not see (as the model)")
    add("--kmer-strength", type=float, default=10.0, help="pseudo-counts of a shorter context (10)")
    add("--resamples", type=int, default=1000, help="of the bootstrap (1000)")
    add("--seed", type=int, default=0, help="of the bootstrap (0)")
    add("--out", type=Path, required=True, help="JSON file of the figures")
    add("--markdown", action="store_true", help="write a table of them to stdout too")
    return parser


def _run(options: argparse.Namespace) -> None:
    if not (options.scores or options.phylop or options.kmer_train):
        raise UsageError("nothing to measure; give --scores, --phylop or --kmer-train")
    for path in (options.table, options.scores, options.phylop):
        if path is not None and not path.is_file():
            raise InputError(f"{path}: no such file")
    genome = Genome(options.fasta)
    contig = _find_contig(genome)
    table = read_table(options.table)
    check_reference(table, genome, contig, options.table)
    scores = collect_scores(options, genome, contig, table)
    results = measure(scores, table, options.resamples, options.seed)
    labels, counts = np.unique(table.label, return_counts=True)
    report = {
        "table": options.table.name,
        "labels": dict(zip(labels.tolist(), counts.tolist(), strict=True)),
        "resamples": options.resamples,
        "seed": options.seed,
        "auroc": {
            name: {k: {c: asdict(x) for c, x in v.items()} for k, v in classes.items()}
            for name, classes in results.items()
        },
    }
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if options.markdown:
        sys.stdout.write(to_markdown(results))


def collect_scores(
    options: argparse.Namespace, genome: Genome, contig: str, table: Table
) -> dict[str, Floats]:
    """Read or compute every score asked for, turned so that higher means more constrained."""
    scores: dict[str, Floats] = {}
    if options.scores:
        scores[options.key] = -read_scores(options.scores, options.key, contig, table)
    if options.phylop:
        size = genome.contigs[contig]
        scores["phyloP"] = read_phylop(options.phylop, contig, size, table)
    if options.kmer_train:
        scores["k-mer"] = -_score_kmers(options, genome, contig, table)
    return scores


def _find_contig(genome: Genome) -> str:
    contig = genome.resolve("chrM") or next(iter(genome.contigs))
    if genome.resolve("chrM") is None and len(genome.contigs) > 1:
        raise InputError(f"{genome.path}: no contig chrM, MT or M; give the mitochondrial FASTA")
    return contig


def _score_kmers(options: argparse.Namespace, genome: Genome, contig: str, table: Table) -> Floats:
    lists = options.kmer_withheld
    if lists is None:
        lists = [HERE / "validation.txt", HERE / "exclude.txt"]
    withheld = frozenset(name for path in lists for name in read_names(path))
    counts = count_kmers(training_sequences(options.kmer_train, withheld))
    windows = genome.windows(contig, table.pos - 1 - FLANK, 2 * FLANK + 1, circular=True)
    return score_kmers(fit_kmers(counts, options.kmer_strength), windows, table)


if __name__ == "__main__":
    sys.exit(main())
