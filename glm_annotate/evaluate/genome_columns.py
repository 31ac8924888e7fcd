"""What the genome says of alleles without any model: composition, genes, conservation.

Every function gives a number an allele, NaN where there is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glm_annotate.answers import Floats, Ints
from glm_annotate.chunks import parse
from glm_annotate.errors import InputError
from glm_annotate.evaluate.alleles import SiteCell
from glm_annotate.gene_models import GeneModels
from glm_annotate.genome import Codes, Genome, N, aliases
from glm_annotate.signals import check_head
from glm_annotate.variants import SKIPS, AlleleReader, Alleles

_PIECE = 1 << 22  # bases whose k-mers are counted at a time
_PURINES = np.array([True, False, True, False])


def place_alleles(
    genome: Genome, sites: Sequence[SiteCell], circular: frozenset[str] = frozenset()
) -> Alleles:
    """Find alleles on the reference, trimmed and left-aligned as for scores, one a site."""
    lines = [f"{c}\t{p}\t.\t{r}\t{a}\t.\t.\t." for c, p, r, a in sites]
    chunk = parse("alleles", "allele", "\n".join(lines).encode() + b"\n", 1)
    reader = AlleleReader(genome, circular=circular, contig_map={}, longest=1)
    return reader.read(chunk.chroms, chunk.pos, chunk.refs, chunk.alts, chunk.infos)


def placement_reasons(alleles: Alleles) -> list[str]:
    """Say why alleles have no place on the reference; empty where they have."""
    return [str(SKIPS[code - 1]) if code else "" for code in alleles.skip.tolist()]


def transitions(alleles: Alleles) -> Floats:
    """Tell transitions (1) from transversions (0)."""
    out = np.full(len(alleles), np.nan)
    known = (alleles.skip == 0) & (alleles.ref_len == 1) & (alleles.alt_len == 1)
    known &= (alleles.ref_base < N) & (alleles.alt_base < N)
    ref, alt = alleles.ref_base[known], alleles.alt_base[known]
    out[known] = _PURINES[ref] == _PURINES[alt]
    return out


def kmer_change(
    genome: Genome, alleles: Alleles, k: int, circular: frozenset[str] = frozenset()
) -> Floats:
    """Compare how common the k-mers of ALT and of REF are.

    Mean over the k-mers that hold a changed base (or the junction) of log(1 + count in the contigs
    of the alleles, both strands), of ALT minus REF.
    """
    out = np.full(len(alleles), np.nan)
    logs = np.log1p(count_kmers(genome, _used(alleles), k))
    for rows, name, ref, alt in _by_shape(alleles):
        size = ref.shape[1]
        left = alleles.start[rows] - (k - 1)
        span = genome.windows(name, left, size + 2 * (k - 1), circular=name in circular)
        before, after = span[:, : k - 1], span[:, k - 1 + size :]
        old = _mean_logs(np.concatenate([before, ref, after], axis=1), k, logs)
        new = _mean_logs(np.concatenate([before, alt, after], axis=1), k, logs)
        out[rows] = new - old
    return out


def count_kmers(genome: Genome, contigs: Sequence[str], k: int) -> Ints:
    """Count the k-mers of contigs on both strands, shape (4**k,)."""
    counts = np.zeros(4**k, dtype=np.int64)
    for name in contigs:
        codes = genome.codes(name)
        for start in range(0, codes.size, _PIECE):
            numbers, known = _kmers(codes[None, start : start + _PIECE + k - 1], k)
            counts += np.bincount(numbers[known], minlength=counts.size)
    # The reverse complement of a k-mer: bases 3 - x in reversed order.
    grid = counts.reshape((4,) * k)
    flipped = grid.transpose(range(k - 1, -1, -1))[(slice(None, None, -1),) * k]
    return np.asarray((grid + flipped).reshape(-1))


def gc_content(
    genome: Genome, alleles: Alleles, width: int, circular: frozenset[str] = frozenset()
) -> Floats:
    """Give the share of G and C among the bases of a window around the first changed base."""
    out = np.full(len(alleles), np.nan)
    for rows, name, _, _ in _by_shape(alleles):
        left = alleles.start[rows] - width // 2
        span = genome.windows(name, left, width, circular=name in circular)
        known = (span < N).sum(axis=1)
        strong = ((span == 1) | (span == 2)).sum(axis=1)
        out[rows] = np.where(known > 0, strong / np.maximum(known, 1), np.nan)
    return out


def tss_distance(genes: GeneModels, alleles: Alleles) -> Floats:
    """Give the bases from the first changed base to the nearest start of a transcript."""
    out = np.full(len(alleles), np.nan)
    for number in np.unique(alleles.contig[alleles.skip == 0]).tolist():
        on = genes.on(alleles.contigs[number])
        if not on:
            continue
        rows = np.flatnonzero((alleles.contig == number) & (alleles.skip == 0))
        starts = np.unique(np.concatenate([gene.tss for gene in on]))
        at = alleles.start[rows]
        right = np.searchsorted(starts, at).clip(max=starts.size - 1)
        left = (right - 1).clip(min=0)
        out[rows] = np.minimum(np.abs(starts[left] - at), np.abs(starts[right] - at))
    return out


class Signal:
    """A bigWig that is compared with, read stretch by stretch.

    Args:
        option: As the user gave it, for messages.
        path: Of the file.
        genome: The reference.

    Raises:
        InputError: It is no bigWig, or has no contig of the FASTA.
    """

    def __init__(self, option: str, path: str, genome: Genome) -> None:
        import pyBigWig

        self._label = option
        if not Path(path).is_file():
            raise InputError(f"{option}: no such file")
        check_head(option, path)
        try:
            file = pyBigWig.open(path)
        except RuntimeError as error:
            raise InputError(f"{option}: cannot be read as bigWig; copy the file again") from error
        self._file: Any = file
        lengths = file.chroms()
        self._names: dict[str, str] = {}
        for contig, size in genome.contigs.items():
            name = next((x for x in (contig, *aliases(contig)) if x in lengths), None)
            if name is None:
                continue
            if lengths[name] != size:
                raise InputError(
                    f"{option}: {name} has {lengths[name]:,} bases, {contig} of {genome.path} has "
                    f"{size:,}: a signal on another assembly; name the bigWig of this FASTA"
                )
            self._names[contig] = name
        if not self._names:
            raise InputError(
                f"{option}: no contig of {genome.path} in it (it has "
                f"{', '.join(list(lengths)[:3]) or 'none'}); name the bigWig of this FASTA"
            )

    def values(self, contig: str, start: int, end: int) -> Floats:
        """Read a stretch within a contig, NaN where there is no number, shape (end - start,).

        Raises:
            InputError: The file is damaged.
        """
        if contig not in self._names or end <= start:
            return np.full(end - start, np.nan)
        try:
            found = self._file.values(self._names[contig], start, end, numpy=True)
        except RuntimeError as error:
            raise InputError(
                f"{self._label}: {contig}:{start + 1}-{end} cannot be read; the file is damaged: "
                "copy the bigWig again"
            ) from error
        values = np.asarray(found, dtype=np.float64)
        return np.where(np.isfinite(values), values, np.nan)


def signal_at(signal: Signal, genome: Genome, alleles: Alleles) -> Floats:
    """Average a signal over the changed bases of REF, of insertions over both bases beside them."""
    out = np.full(len(alleles), np.nan)
    for i in np.flatnonzero(alleles.skip == 0).tolist():
        name, at = alleles.contigs[int(alleles.contig[i])], int(alleles.start[i])
        size = int(alleles.ref_len[i])
        start, end = (at, at + size) if size else (at - 1, at + 1)
        values = signal.values(name, max(0, start), min(end, genome.contigs[name]))
        known = values[np.isfinite(values)]
        out[i] = known.mean() if known.size else np.nan
    return out


def _used(alleles: Alleles) -> list[str]:
    return [alleles.contigs[i] for i in np.unique(alleles.contig[alleles.skip == 0]).tolist()]


def _by_shape(alleles: Alleles) -> Iterator[tuple[Ints, str, Codes, Codes]]:
    """Share alleles out by contig and lengths: rows, contig, REF and ALT codes, a row each."""
    chosen = np.flatnonzero(alleles.skip == 0)
    shape = np.stack([alleles.contig, alleles.ref_len, alleles.alt_len], axis=1)[chosen]
    kinds, which = np.unique(shape, axis=0, return_inverse=True)
    for kind in range(len(kinds)):
        rows = chosen[which.reshape(-1) == kind]
        edits = [alleles.edit(i) for i in rows.tolist()]
        ref, alt = np.stack([r for r, _ in edits]), np.stack([a for _, a in edits])
        yield rows, alleles.contigs[int(kinds[kind, 0])], ref, alt


def _kmers(codes: Codes, k: int) -> tuple[Ints, Any]:
    """Number the k-mers of sequences (n, L), and say which hold A, C, G, T alone."""
    length = max(0, codes.shape[1] - k + 1)
    numbers = np.zeros((codes.shape[0], length), dtype=np.int64)
    known = np.ones(numbers.shape, dtype=bool)
    for i in range(k):
        part = codes[:, i : i + length]
        known &= part < N
        numbers = 4 * numbers + np.where(part < N, part, 0)
    return numbers, known


def _mean_logs(codes: Codes, k: int, logs: Floats) -> Floats:
    numbers, known = _kmers(codes, k)
    count = known.sum(axis=1)
    total = np.where(known, logs[numbers], 0.0).sum(axis=1)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))
