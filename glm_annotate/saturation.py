"""Saturation mutagenesis as a VCF: every single-base substitution of a stretch, scored.

One record a substitution, the three of a base in the order of their ALT, as files of precomputed
scores have them. The records go through the same run as those of a user, so that `vcf --from` can
take its scores from the output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from glm_annotate.chunks import COLUMNS, Chunk, parse
from glm_annotate.errors import InputError
from glm_annotate.genome import Genome, Interval, to_letters
from glm_annotate.header import Header
from glm_annotate.job import Job, Summary, run_job
from glm_annotate.records import VariantInput

_NAME = "all substitutions"
_BASES = 1 << 14  # of which records are made at a time
_ALTS = {ref: bytes(x for x in b"ACGT" if x != ref) for ref in b"ACGT"}


def saturation_records(genome: Genome, regions: Iterable[Interval]) -> Iterator[bytes]:
    """Write all substitutions as lines of a VCF, in the order of the FASTA, each base once.

    Args:
        genome: The reference; letters other than A, C, G and T have none.
        regions: By names of the FASTA; they may overlap.

    Yields:
        Whole lines, those of some thousand bases at a time.

    Raises:
        InputError: A region is not in the FASTA.
    """
    for region in merged(genome, regions):
        chrom = region.chrom.encode()
        for start in range(region.start, region.end, _BASES):
            end = min(start + _BASES, region.end)
            letters = to_letters(genome.codes(region.chrom)[start:end]).tolist()
            lines = [
                b"%b\t%d\t.\t%c\t%c\t.\t.\t.\n" % (chrom, pos, ref, alt)
                for pos, ref in enumerate(letters, start + 1)
                for alt in _ALTS.get(ref, b"")
            ]
            if lines:
                yield b"".join(lines)


def write_saturation(
    job: Job, regions: Iterable[Interval], progress: Callable[[int], None] = lambda records: None
) -> Summary:
    """Score all substitutions of some regions, and write them as a bgzipped, indexed VCF.

    Args:
        job: What to score with, and its `output`; its source and kind do not matter.
        regions: By names of the FASTA.
        progress: Called with the number of records of each chunk that is done.

    Raises:
        GlmAnnotateError: Something that the user can mend.
    """
    genome = Genome(job.fasta)
    blocks = _blocks(genome, list(merged(genome, regions)))
    variants = VariantInput(_NAME, "vcf", _header(genome), b"\n", blocks)
    whole = replace(job, source=_NAME, kind="z", index=job.index or "tbi")
    return run_job(whole, progress, variants)


def merged(genome: Genome, regions: Iterable[Interval]) -> Iterator[Interval]:
    """Order regions as the FASTA orders contigs, and join those that overlap or touch.

    Raises:
        InputError: A region is not in the FASTA.
    """
    by_contig: dict[str, list[Interval]] = {}
    for region in regions:
        if region.end > genome.contigs.get(region.chrom, -1):
            raise InputError(
                f"{genome.path}: has no {region.chrom}:{region.start + 1}-{region.end}; name "
                "contigs as the FASTA does, and places within them"
            )
        by_contig.setdefault(region.chrom, []).append(region)
    for contig in genome.contigs:
        held: Interval | None = None
        for region in sorted(by_contig.get(contig, ()), key=lambda x: x.start):
            if held is not None and region.start <= held.end:
                held = Interval(contig, held.start, max(held.end, region.end))
                continue
            if held is not None:
                yield held
            held = region
        if held is not None:
            yield held


def _header(genome: Genome) -> Header:
    contigs = (f"##contig=<ID={x},length={n}>".encode() for x, n in genome.contigs.items())
    return (b"##fileformat=VCFv4.3", *contigs, COLUMNS)


def _blocks(genome: Genome, regions: list[Interval]) -> Iterator[Chunk]:
    number = 1
    for text in saturation_records(genome, regions):
        chunk = parse(_NAME, "record", text, number)
        number += len(chunk)
        yield chunk
