"""Columns that are compared on the same alleles: scores of models, simple baselines, and strata."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, get_args

import numpy as np

from glm_annotate.answers import Floats
from glm_annotate.beds import place, read_bed
from glm_annotate.errors import InputError, UsageError
from glm_annotate.evaluate import genome_columns as reads
from glm_annotate.evaluate.alleles import Table
from glm_annotate.gene_files import read_gene_models
from glm_annotate.genome import Genome
from glm_annotate.scores import SCORES
from glm_annotate.variants import Alleles

Direction = Literal["low", "high", "abs"]
Role = Literal["score", "control", "baseline"]

_KMER, _GC_WIDTH = 6, 200
_LARGEST_K = 10
# Names of scores of which small values, or small absolute values, are the harmless ones.
_LOW = ("LLR", "PLLR", "WTLLR", "ENT", "EMB_DOT")
_EDGES = {"af": (0.001, 0.01, 0.1), "tss": (100.0, 1000.0, 10000.0)}


@dataclass(frozen=True, slots=True)
class Column:
    """A number an allele.

    Attributes:
        name: INFO key, or name of the baseline.
        role: Of what it is.
        direction: Which values speak for the positive class: `low`, `high`, or `abs` for those far
            from 0.
        values: NaN where there is none, shape (n,).
        reasons: Why, one an allele.
        about: What it is, for the report.
    """

    name: str
    role: Role
    direction: Direction
    values: Floats
    reasons: list[str]
    about: str = ""

    @property
    def oriented(self) -> Floats:
        """Values of which larger ones speak for the positive class."""
        if self.direction == "abs":
            return np.abs(self.values)
        return -self.values if self.direction == "low" else self.values


@dataclass(frozen=True, slots=True)
class Strata:
    """A way to share alleles out.

    Attributes:
        name: As after --by.
        labels: Stratum of every allele.
        order: All strata.
    """

    name: str
    labels: list[str]
    order: list[str]


@dataclass(frozen=True, slots=True)
class Placed:
    """Alleles on a reference, for what reads it.

    Attributes:
        alleles: One a row of the table.
        circular: Contigs that wrap around.
    """

    genome: Genome
    alleles: Alleles
    circular: frozenset[str] = field(default_factory=frozenset)


def directions_of(texts: Sequence[str]) -> dict[str, Direction]:
    """Parse --direction: `low`, or `KEY=low`; the key is empty where all columns are meant.

    Raises:
        UsageError: Something else.
    """
    found: dict[str, Direction] = {}
    for text in (x for given in texts for x in given.split(",")):
        key, _, value = text.rpartition("=")
        match = next((x for x in get_args(Direction) if x == value), None)
        if match is None:
            raise UsageError(
                f"--direction {text}: {value!r} is none of {', '.join(get_args(Direction))}"
            )
        found[key] = match
    return found


def direction_of_score(key: str) -> Direction:
    """Say which values of a score speak of an effect, by the name of the score in its key."""
    parts = key.split("_")
    names = ["_".join(parts[i:j]) for i in range(len(parts)) for j in range(len(parts), i, -1)]
    name = next((x for x in names if x in SCORES), "")
    if not name:
        return "high"
    if name in _LOW:
        return "low"
    is_signed = SCORES[name].kind == "signed" or name == "DLPSI"
    return "abs" if is_signed else "high"


# --- baselines ----------------------------------------------------------------------------------


def make_baseline(text: str, placed: Placed) -> Column:
    """Make the column of a baseline.

    It is `kmer[=K]`, `gc[=WIDTH]`, `tss=FILE`, `phylop=FILE.bw` or `transition`.

    Raises:
        UsageError: An unknown name, or a value that it cannot have.
    """
    name, _, value = text.partition("=")
    makers: dict[str, Callable[[str, Placed], tuple[Direction, Floats, str]]] = {
        "kmer": _kmer, "gc": _gc, "tss": _tss, "phylop": _phylop, "transition": _transition,
    }  # fmt: skip
    if name not in makers:
        raise UsageError(f"--baseline {text}: unknown; known: {', '.join(makers)}")
    direction, values, about = makers[name](value, placed)
    lost = [reason or "no value" for reason in reads.placement_reasons(placed.alleles)]
    label = f"{name}{value}" if name in ("kmer", "gc") else name
    return Column(label, "baseline", direction, values, lost, about)


def _kmer(value: str, placed: Placed) -> tuple[Direction, Floats, str]:
    k = _whole("kmer", value, _KMER, _LARGEST_K)
    values = reads.kmer_change(placed.genome, placed.alleles, k, placed.circular)
    about = f"mean log(1 + count) of the {k}-mers of ALT minus those of REF, counted in the FASTA"
    return "low", values, about


def _gc(value: str, placed: Placed) -> tuple[Direction, Floats, str]:
    width = _whole("gc", value, _GC_WIDTH, 1 << 20)
    values = reads.gc_content(placed.genome, placed.alleles, width, placed.circular)
    return "high", values, f"share of G and C in the {width} bases around"


def _tss(value: str, placed: Placed) -> tuple[Direction, Floats, str]:
    distance = _distances("--baseline", value, placed)
    return "low", np.log10(1 + distance), "log10(1 + bases to the nearest start of a transcript)"


def _phylop(value: str, placed: Placed) -> tuple[Direction, Floats, str]:
    if not value:
        raise UsageError("--baseline phylop: needs a bigWig: phylop=FILE.bw")
    signal = reads.Signal(f"--baseline phylop={value}", value, placed.genome)
    values = reads.signal_at(signal, placed.genome, placed.alleles)
    return "high", values, f"mean of the bigWig {value.rsplit('/', 1)[-1]} over the changed bases"


def _transition(value: str, placed: Placed) -> tuple[Direction, Floats, str]:
    if value:
        raise UsageError(f"--baseline transition={value}: transition takes no value")
    return "low", reads.transitions(placed.alleles), "1 of transitions, 0 of transversions"


def _whole(name: str, value: str, default: int, most: int) -> int:
    if not value:
        return default
    if not value.isdecimal() or not 1 <= int(value) <= most:
        raise UsageError(f"--baseline {name}={value}: not a number from 1 to {most}")
    return int(value)


def _distances(option: str, path: str, placed: Placed) -> Floats:
    if not path:
        raise UsageError(f"{option} tss: needs genes: tss=GENES.gtf")
    genes = read_gene_models(path)
    if all(genes.resolve(contig) is None for contig in placed.genome.contigs):
        raise InputError(
            f"{path}: no gene on a contig of {placed.genome.path}; name the genes of this assembly"
        )
    return reads.tss_distance(genes, placed.alleles)


# --- strata -------------------------------------------------------------------------------------


def key_of_strata(text: str) -> str:
    """Give the INFO key that a way to share alleles out reads; empty where it reads none."""
    name, _, value = text.partition("=")
    return value.split(":")[0] if name in ("consequence", "af") else ""


def needs_genome(text: str) -> bool:
    """Say whether a way to share alleles out reads the reference."""
    return not key_of_strata(text)


def make_strata(text: str, table: Table, placed: Placed | None) -> Strata:
    """Share alleles out.

    By `titv`, `consequence=KEY`, `region=FILE.bed`, `af=KEY[:EDGE...]` or `tss=FILE[:EDGE...]`.

    Raises:
        UsageError: An unknown name, a value that is missing, or edges that do not ascend.
    """
    name, _, value = text.partition("=")
    known = ("titv", "consequence", "region", "af", "tss")
    if name not in known:
        raise UsageError(f"--by {text}: unknown; known: {', '.join(known)}")
    if bool(value) == (name == "titv"):
        raise UsageError(
            "--by titv: takes no value" if value else f"--by {name}: needs a value: {name}=..."
        )
    if name == "consequence":
        labels = [label or "none" for label in table.texts(value)]
        counts = {x: labels.count(x) for x in dict.fromkeys(labels)}
        return Strata(name, labels, sorted(counts, key=lambda x: (-counts[x], x)))
    source, edges = _edges(text, value, _EDGES.get(name, ()))
    if name == "af":
        return _binned(name, table.numbers(source), edges)
    if placed is None:
        raise ValueError(f"--by {text}: made without a reference")
    if name == "tss":
        return _binned(name, _distances("--by", source, placed), edges)
    if name == "titv":
        kinds = {1.0: "transition", 0.0: "transversion"}
        numbers = reads.transitions(placed.alleles).tolist()
        return _present(name, [kinds.get(x, "other") for x in numbers], [*kinds.values(), "other"])
    return _regions(value, placed)


def _edges(text: str, value: str, default: tuple[float, ...]) -> tuple[str, tuple[float, ...]]:
    found = re.fullmatch(r"(.+?)((?::[0-9.eE+-]+)*)", value, re.DOTALL)
    if found is None or not found[2]:
        return value, default
    try:
        edges = tuple(float(x) for x in found[2][1:].split(":"))
    except ValueError as error:
        raise UsageError(f"--by {text}: edges are numbers between colons") from error
    if sorted(set(edges)) != list(edges):
        raise UsageError(f"--by {text}: edges have to ascend")
    return found[1], edges


def _binned(name: str, values: Floats, edges: Sequence[float]) -> Strata:
    texts = [f"{x:g}" for x in edges]
    between = [f"{a} to {b}" for a, b in pairwise(texts)]
    order = [f"below {texts[0]}", *between, f"{texts[-1]} or more", "none"]
    which = np.digitize(values, edges)
    labels = [
        order[i] if np.isfinite(x) else "none"
        for i, x in zip(which.tolist(), values.tolist(), strict=True)
    ]
    return _present(name, labels, order)


def _present(name: str, labels: list[str], order: Sequence[str]) -> Strata:
    there = set(labels)
    return Strata(name, labels, [x for x in order if x in there])


def _regions(path: str, placed: Placed) -> Strata:
    """Name alleles after the first row of a BED that holds one of their bases."""
    alleles, genome = placed.alleles, placed.genome
    labels = np.full(len(alleles), "outside", dtype=object)
    taken = alleles.skip != 0
    order: dict[str, None] = {}
    on = {
        alleles.contigs[i]: np.flatnonzero((alleles.contig == i) & ~taken)
        for i in np.unique(alleles.contig[~taken]).tolist()
    }
    by_start = {name: rows[np.argsort(alleles.start[rows])] for name, rows in on.items()}
    width = np.maximum(alleles.ref_len, 1)
    longest = {name: int(width[rows].max()) for name, rows in on.items()}
    for row in read_bed(path):
        where = place(row, genome, path)
        order.setdefault(row.name or "inside")
        if where.chrom not in by_start:
            continue
        rows = by_start[where.chrom]
        begin, end = np.searchsorted(
            alleles.start[rows], [where.start - longest[where.chrom] + 1, where.end]
        )
        near = rows[begin:end]
        inside = near[(alleles.start[near] + width[near] > where.start) & ~taken[near]]
        labels[inside], taken[inside] = row.name or "inside", True
    return _present("region", labels.tolist(), [*order, "outside"])
