"""One haplotype of a phased sample, as a genome of its own, and the way back to the reference.

Decisions: an allele counts where its genotype is phased, or the same on both haplotypes, or there
is only one. Unphased heterozygous, symbolic and mismatching alleles, and those that overlap an
allele before them, are left out and counted. Positions on the haplotype lead to the reference base
they stand for; inserted bases lead to the base behind the insertion, so that an interval of the
haplotype becomes the reference interval between its ends, and one inside an insertion is empty.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from glm_annotate.answers import Ints
from glm_annotate.errors import InputError
from glm_annotate.genome import Codes, Genome, N, to_codes
from glm_annotate.variants import trim

logger = logging.getLogger(__name__)

_BASES = re.compile(r"[ACGTNacgtn]+")


@dataclass(frozen=True, slots=True)
class Edit:
    """A trimmed allele of the haplotype: bases `start` to `end` of the reference become `alt`."""

    start: int
    end: int
    alt: Codes


@dataclass(slots=True)
class Carried:
    """The alleles that a haplotype carries.

    Attributes:
        sample: Its name; `haplotype`: 1 or 2.
        edits: By FASTA contig, ascending, disjoint.
        left_out: Why alleles do not count, and how many.
    """

    sample: str
    haplotype: int
    edits: dict[str, list[Edit]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)


def read_carried(
    path: str,
    sample: str,
    haplotype: int,
    genome: Genome,
    contig_map: Mapping[str, str] | None = None,
) -> Carried:
    """Read the alleles that a sample carries on one haplotype from a sorted VCF or BCF.

    Args:
        path: The file.
        sample: Name of the sample.
        haplotype: 1, the allele before the bar of a genotype, or 2, the one behind it.
        genome: The reference.
        contig_map: The user's own VCF-to-FASTA contig names.

    Raises:
        InputError: The file cannot be read, has no such sample, or is not sorted.
    """
    carried = Carried(sample, haplotype)
    unknown: Counter[str] = Counter()
    for chrom, pos, ref, alt, why in _alleles(path, sample, haplotype):
        contig = genome.resolve(chrom, dict(contig_map or {}))
        if contig is None:
            unknown[chrom] += 1
            continue
        reason = why or _add(carried, path, genome, contig, pos, ref, alt)
        if reason:
            carried.left_out[reason] += 1
    for reason, count in carried.left_out.most_common():
        logger.warning(
            "%s: %d alleles of %s, haplotype %d, left out: %s",
            path, count, sample, haplotype, reason,
        )  # fmt: skip
    for chrom, count in unknown.items():
        logger.warning("%s: %d alleles on %s, which the FASTA lacks", path, count, chrom)
    return carried


def _alleles(path: str, sample: str, haplotype: int) -> Iterator[tuple[str, int, str, str, str]]:
    """Give contig, POS, REF, ALT and why not, of each allele that the haplotype may carry."""
    import pysam

    pysam.set_verbosity(0)  # htslib's own lines would come on top of ours
    try:
        with pysam.VariantFile(path) as file:
            samples = list(file.header.samples)
            if sample not in samples:
                few = ", ".join(samples[:5]) or "none"
                raise InputError(f"{path}: no sample {sample}; it has {len(samples)}: {few}")
            file.subset_samples([sample])
            for record in file:
                call = record.samples[0]
                found, why = _carried(call.get("GT") or (), call.phased, haplotype)
                for number in found:
                    alleles = record.alleles or ()
                    yield record.chrom, record.pos, alleles[0], alleles[number], why
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as VCF or BCF: {error}") from error


def _carried(
    genotype: tuple[int | None, ...], phased: bool, haplotype: int
) -> tuple[list[int], str]:
    """Say which ALT a haplotype carries, or which it may carry and why it does not count."""
    called = [number for number in genotype if number]
    if len(genotype) == 1 or (genotype and len(set(genotype)) == 1):
        return called[:1], ""
    if len(genotype) != 2:
        return list(dict.fromkeys(called)), f"genotypes of {len(genotype)} alleles"
    if not phased:
        return list(dict.fromkeys(called)), "heterozygous and not phased"
    number = genotype[haplotype - 1]
    return ([number] if number else []), ""


def _add(
    carried: Carried, path: str, genome: Genome, contig: str, pos: int, ref: str, alt: str
) -> str:
    """Add an allele to the haplotype; gives the reason where it does not count."""
    if not _BASES.fullmatch(ref) or not _BASES.fullmatch(alt):
        return "spanning deletions" if alt == "*" else "symbolic, or no bases"
    old, new = to_codes(ref), to_codes(alt)
    bases = genome.codes(contig)[pos - 1 : pos - 1 + old.size]
    if bases.size < old.size or bool(((bases != old) & (bases < N) & (old < N)).any()):
        return "REF is not the base of the FASTA"
    skipped, old, new = trim(old, new)
    start = pos - 1 + skipped
    edits = carried.edits.setdefault(contig, [])
    if edits and start < edits[-1].start:
        raise InputError(f"{path}: {contig}:{pos} is out of order; run: bcftools sort")
    if edits and (start < edits[-1].end or start == edits[-1].start):
        return "it overlaps another one of the haplotype"
    edits.append(Edit(start, start + old.size, new))
    return ""


class HaplotypeGenome(Genome):
    """A genome with the alleles of a haplotype in it; contigs have the haplotype's lengths.

    Args:
        reference: The genome that the alleles change.
        carried: They.
    """

    def __init__(self, reference: Genome, carried: Carried) -> None:
        super().__init__(reference.path, circular=reference.circular)
        self.reference, self.carried = reference, carried
        self._anchors = {
            contig: _anchors(carried.edits.get(contig, ())) for contig in reference.contigs
        }
        self.contigs = {
            contig: size + self._grown(contig) for contig, size in reference.contigs.items()
        }

    def _grown(self, contig: str) -> int:
        return sum(len(x.alt) - (x.end - x.start) for x in self.carried.edits.get(contig, ()))

    def _read(self, contig: str) -> Codes:
        bases, at, parts = self.reference.codes(contig), 0, []
        for edit in self.carried.edits.get(contig, ()):
            parts += [bases[at : edit.start], edit.alt]
            at = edit.end
        out = np.concatenate([*parts, bases[at:]])
        out.flags.writeable = False
        return out

    def to_reference(self, contig: str, places: Ints) -> Ints:
        """Lead places of the haplotype (0-based, the contig's end too) to the reference."""
        first, reference, slope = self._anchors[contig]
        which = np.searchsorted(first, places, side="right") - 1
        return np.asarray(reference[which] + slope[which] * (places - first[which]))

    def to_haplotype(self, contig: str, place: int) -> int:
        """Lead a place of the reference to the haplotype; of a deletion, to the base behind it."""
        shift = 0
        for edit in self.carried.edits.get(contig, ()):
            if place < edit.end:
                return min(place, edit.start + int(edit.alt.size)) + shift
            shift += edit.alt.size - (edit.end - edit.start)
        return place + shift


def _anchors(edits: Iterable[Edit]) -> tuple[Ints, Ints, Ints]:
    """List where the way back changes: place of the haplotype, its base, and bases a place."""
    found, grown = [(0, 0, 1)], 0
    for edit in edits:
        old, new = edit.end - edit.start, int(edit.alt.size)
        place = edit.start + grown
        if new > old:
            found.append((place + old, edit.end, 0))
        if new != old:
            found.append((place + new, edit.end, 1))
        grown += new - old
    first, reference, slope = np.array(found, dtype=np.int64).T
    return first, reference, slope
