"""What a picture of scores shows: alleles of an annotated VCF, regions of a BED, and the scale."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING

from glm_annotate.errors import InputError

if TYPE_CHECKING:
    import pysam

UNKNOWN = "unclassified"
# Scores this many interquartile ranges beyond the quartiles are off the scale, if they are few.
_FAR, _FEW = 3.0, 0.1


@dataclass(frozen=True, slots=True)
class ScoredAllele:
    """One ALT of the file. `score` is None where neither key holds a number."""

    pos: int
    name: str
    known: str
    score: float | None
    is_fallback: bool


@dataclass(frozen=True, slots=True)
class Scale:
    """Scores that are drawn where they are; those beyond are drawn at `edges`."""

    low: float
    high: float

    @property
    def edges(self) -> tuple[float, float]:
        """Where scores below `low` and above `high` are drawn."""
        margin = 0.12 * (self.high - self.low)
        return self.low - margin, self.high + margin

    def is_off(self, score: float | None) -> bool:
        """Tell whether a score is drawn at an edge."""
        return score is not None and not self.low <= score <= self.high

    def place(self, score: float) -> float:
        """Say where a score is drawn."""
        return self.edges[0] if score < self.low else self.edges[1] if score > self.high else score


@dataclass(frozen=True, slots=True)
class Region:
    """A line of the BED file, 0-based and half-open."""

    start: int
    end: int
    name: str
    strand: str


def scale_of(scores: Sequence[float]) -> Scale:
    """Choose the range of scores that the picture shows to scale."""
    low, high = min(scores), max(scores)
    if len(scores) < 2:
        return Scale(low, high)
    first, _, third = quantiles(scores, n=4, method="inclusive")
    reach = _FAR * (third - first)
    near = [x for x in scores if first - reach <= x <= third + reach]
    if len(scores) - len(near) > _FEW * len(scores):
        return Scale(low, high)
    return Scale(min(near), max(near))


def auroc(low: Sequence[float], high: Sequence[float]) -> float:
    """Return the chance that a number of `low` is below one of `high`, a tie counting half."""
    wins = sum((a < b) + 0.5 * (a == b) for a in low for b in high)
    return wins / (len(low) * len(high))


def read_alleles(
    path: Path, key: str, fallback: str | None, class_field: str
) -> tuple[str, int, list[ScoredAllele]]:
    """Read the alleles of a VCF or BCF: its contig, the contig's length, and the alleles.

    Raises:
        InputError: It cannot be read, has no such score, or not exactly one contig.
    """
    import pysam

    pysam.set_verbosity(0)  # htslib's own lines would come on top of ours
    try:
        with pysam.VariantFile(str(path)) as file:
            _check_key(path, file.header, key)
            # pysam raises where a record is asked for a key that the header does not declare.
            second, group = (
                x if x and x in file.header.info else "" for x in (fallback, class_field)
            )
            records = list(file)
            alleles = [x for record in records for x in _alleles(path, record, key, second, group)]
            contigs = list(dict.fromkeys(record.chrom for record in records))
            lengths = {name: file.header.contigs[name].length for name in contigs}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as VCF or BCF ({error})") from error
    if len(contigs) != 1:
        raise InputError(
            f"{path}: records of {len(contigs)} contigs; a picture shows one; choose it with "
            "glm-annotate vcf -t CONTIG"
        )
    if all(allele.score is None for allele in alleles):
        raise InputError(f"{path}: no allele has a number in {key}; there is nothing to draw")
    return contigs[0], lengths[contigs[0]] or max(x.pos for x in alleles), alleles


def _check_key(path: Path, header: pysam.VariantHeader, key: str) -> None:
    if key not in header.info or not _is_score(header.info[key]):
        known = [name for name, field in header.info.items() if _is_score(field)]
        raise InputError(
            f"{path}: no INFO field {key} with a number an ALT; it has "
            f"{', '.join(known) or 'none'}; run: glm-annotate vcf, or name another key"
        )


def _is_score(field: pysam.VariantMetadata) -> bool:
    return field.number == "A" and field.type in ("Float", "Integer")


def _alleles(
    path: Path, record: pysam.VariantRecord, key: str, fallback: str, class_field: str
) -> Iterable[ScoredAllele]:
    alts = record.alts or ()
    ids = (record.id or "").split(";")
    first, second = (_numbers(path, record, x, len(alts)) for x in (key, fallback))
    known = str(record.info.get(class_field, UNKNOWN)) if class_field else UNKNOWN
    for i, alt in enumerate(alts):
        name = ids[i] if record.id and len(ids) == len(alts) else f"{record.pos}{record.ref}>{alt}"
        score = second[i] if first[i] is None else first[i]
        yield ScoredAllele(record.pos, name, known, score, first[i] is None)


def _numbers(path: Path, record: pysam.VariantRecord, key: str, n: int) -> list[float | None]:
    if not key or key not in record.info:
        return [None] * n
    found = record.info[key]
    values = found if isinstance(found, tuple) else (found,)
    if len(values) != n:
        raise InputError(
            f"{path}: {record.chrom}:{record.pos} has {len(values)} numbers in {key} for {n} ALT "
            "alleles; annotate the file again"
        )
    return [float(x) if x is not None and math.isfinite(x) else None for x in values]


def read_regions(path: Path, contig: str) -> list[Region]:
    """Read the lines of a BED that lie on a contig.

    Raises:
        InputError: It cannot be read, or a line is not BED.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as BED ({error})") from error
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith(("#", "track", "browser")):
            continue
        fields = line.split("\t")
        try:
            region = Region(int(fields[1]), int(fields[2]), *(*fields[3:], "", "", ".")[0:3:2])
        except (IndexError, ValueError) as error:
            raise InputError(f"{path}: line {number} is not BED: {line!r}") from error
        if fields[0] == contig:
            found.append(region)
    return found
