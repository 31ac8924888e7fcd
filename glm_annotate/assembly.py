"""Is the FASTA the reference that the VCF was made for? Looked at before anything is written.

If the first REF alleles disagree with the FASTA, or the header knows another length for a contig
that they use, the reference is of another assembly, and every score would be wrong without looking
so. A contig of another length that is not among the first records, or that the FASTA knows under
another name only (hg19's chrM is not rCRS), is treated as missing.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from glm_annotate.annotate import Annotator, Known, Model, Work
from glm_annotate.errors import InputError
from glm_annotate.genome import Genome, aliases
from glm_annotate.header import Header, fields_of
from glm_annotate.phased import Phased
from glm_annotate.records import VariantInput

logger = logging.getLogger(__name__)

_LOOK_AT, _AT_LEAST, _MOST_WRONG = 1000, 50, 0.2
_READ_AT_MOST = 100_000  # records that are held where hardly any can be compared


@dataclass(slots=True)
class Works:
    """Chunks with their alleles read, the first of them before anything was written.

    Attributes:
        seen: VCF contig names of the first chunks.
    """

    first: list[Work]
    rest: Iterator[Work]
    seen: dict[bytes, None]

    def __iter__(self) -> Iterator[Work]:
        """Give all chunks once; each is let go when the next is asked for."""
        while self.first:
            yield self.first.pop(0)
        yield from self.rest


def look_ahead(
    genome: Genome,
    models: Sequence[Model],
    source: VariantInput,
    *,
    contig_map: dict[str, str],
    allow_mismatch: bool = False,
    known: Known | None = None,
    phased: Phased | None = None,
    size: int = 0,
) -> tuple[Annotator, Works]:
    """Read the first chunks, and check that the FASTA is the reference that the VCF was made for.

    Args:
        genome: The reference.
        models: Of the run.
        source: The records.
        contig_map: The user's own VCF-to-FASTA contig names.
        allow_mismatch: Go on where it does not look like it.
        known: See `Annotator`.
        phased: See `Annotator`.
        size: Records of a chunk at most; 0: as many as the annotator takes.

    Raises:
        InputError: It does not look like it.
    """
    differing = {} if allow_mismatch else _other_lengths(source.header, genome, contig_map)
    annotator = Annotator(
        genome,
        models,
        contig_map=contig_map,
        absent=frozenset(differing),
        known=known,
        phased=phased,
    )
    most = min(size or annotator.chunk_size, annotator.chunk_size)
    works = (annotator.read(chunk) for chunk in source.chunks(most))
    first: list[Work] = []
    compared = wrong = held = 0
    for work in works:
        first.append(work)
        held += len(work.chunk)
        compared += int((work.alleles.compared > 0).sum())
        wrong += int((work.alleles.compared > 1).sum())
        if compared >= _LOOK_AT or held >= _READ_AT_MOST:
            break
    seen = dict.fromkeys(itertools.chain.from_iterable(work.chunk.chroms for work in first))
    _check_lengths(source, genome, differing, seen)
    if compared >= _AT_LEAST and wrong > _MOST_WRONG * compared and not allow_mismatch:
        raise InputError(
            f"{source.name}: {wrong} of the first {compared} REF alleles are not what "
            f"{genome.path} has there: it looks like another assembly; give the right one with -f, "
            "or go on with --allow-ref-mismatch"
        )
    _report_aliases(genome, {**contig_map, **dict.fromkeys(differing, "")}, seen)
    return annotator, Works(first, works, seen)


def _other_lengths(
    header: Header, genome: Genome, contig_map: dict[str, str]
) -> dict[str, tuple[int, int]]:
    """List VCF contigs whose length in the header is not the FASTA's: (header, FASTA)."""
    out = {}
    for name, length in header_contigs(header).items():
        found = genome.resolve(name, contig_map)
        if found is not None and length is not None and length != genome.contigs[found]:
            out[name] = length, genome.contigs[found]
    return out


def header_contigs(header: Header) -> dict[str, int | None]:
    """Read the contig lines of a header: lengths by name."""
    out: dict[str, int | None] = {}
    for line in header:
        parsed = fields_of(line)
        if parsed and parsed[0] == b"contig" and b"ID" in parsed[1]:
            length = parsed[1].get(b"length", b"")
            name = parsed[1][b"ID"].decode("utf-8", "replace")
            out[name] = int(length) if length.isdigit() else None
    return out


def _check_lengths(
    source: VariantInput,
    genome: Genome,
    differing: dict[str, tuple[int, int]],
    seen: Iterable[bytes],
) -> None:
    """Stop for a contig in use; others, and those only known under another name, are left out."""
    used = {name.decode("utf-8", "replace") for name in seen}
    for name, (expected, found) in differing.items():
        if name in used and name in genome.contigs:
            raise InputError(
                f"{source.name}: its header says that {name} has {expected:,} bases, {genome.path} "
                f"has {found:,}: another assembly; give the right FASTA with -f, or go on with "
                "--allow-ref-mismatch"
            )
        logger.warning(
            "%s has %d bases in the VCF's header and %d in the FASTA: treated as missing from it",
            name, expected, found,
        )  # fmt: skip


def _report_aliases(genome: Genome, contig_map: dict[str, str], seen: Iterable[bytes]) -> None:
    pairs = []
    for name in seen:
        text = name.decode("utf-8", "replace")
        found = genome.resolve(text, contig_map)
        if found is not None and found != text:
            pairs.append(f"{text} is {found}")
    if pairs:
        more = f" and {len(pairs) - 5} more" if len(pairs) > 5 else ""
        logger.warning("contig names of VCF and FASTA: %s%s", ", ".join(pairs[:5]), more)


def contigs_as_written(
    genome: Genome, contig_map: dict[str, str], seen: Iterable[bytes]
) -> dict[str, int]:
    """Give the FASTA's contigs and lengths in the spelling of the VCF."""
    names = [name.decode("utf-8", "replace") for name in seen]
    spelled = {found: name for name in names if (found := genome.resolve(name, contig_map))}
    spelled |= {fasta: name for name, fasta in contig_map.items() if fasta not in spelled}
    is_other = any(fasta != name for fasta, name in spelled.items()) and not contig_map
    out = {}
    for fasta, length in genome.contigs.items():
        name = spelled.get(fasta) or (aliases(fasta)[0] if is_other else fasta)
        out[name] = length
    return out
