"""What a report shows around alleles: bases, genes, predicted tracks, saturation mutagenesis.

Only stretches near the alleles of the page are read. Coordinates are 0-based half-open.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from glm_annotate.errors import InputError
from glm_annotate.genome import Genome, aliases, to_codes, to_text
from glm_annotate.hub_limits import open_bigwig
from glm_annotate.report_data import Allele

if TYPE_CHECKING:
    from glm_annotate.gene_models import Gene, GeneModels

Floats = NDArray[np.float64]

KINDS = ("ref", "alt", "delta")
BASES = "ACGT"
# Bases shown around an allele, and how near genes have to be.
SEQUENCE_FLANK, GENE_FLANK = 200, 50_000
ISM_FLANK, TRACK_FLANK = 30, 131_072
# What a page holds at most.
MOST_GENES, MOST_TRACKS, MOST_BINS, MOST_ISM = 2_000, 8, 512, 60_000
_LONGEST_REF = 1_000
_INDEX_COLUMNS = ("chrom", "pos", "ref", "alt", "track", "kind", "file")


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bases of a contig from `start` on; N where they are not known."""

    contig: str
    start: int
    bases: str


@dataclass(frozen=True, slots=True)
class Signal:
    """One track around one allele, in bins of `step` bases from `start` on (NaN: no value).

    Attributes:
        kind: `ref`, `alt` or `delta`.
        values: Means of the bins; for `delta` the value of the largest absolute size.
    """

    track: str
    kind: str
    start: int
    step: int
    values: Floats


@dataclass(frozen=True, slots=True)
class Mutagenesis:
    """Effects of every base at every position from `start` on, shape (n, 4) in the order ACGT."""

    contig: str
    start: int
    effects: Floats


Span = tuple[str, int, int]


def spans_around(alleles: Iterable[Allele], flank: int) -> list[Span]:
    """List the stretches within `flank` of an allele's REF, merged, in the order of the alleles."""
    by_contig: dict[str, list[tuple[int, int]]] = {}
    for allele in alleles:
        start, bases = allele.pos - 1, min(len(allele.ref), _LONGEST_REF)
        by_contig.setdefault(allele.chrom, []).append(
            (max(0, start - flank), max(0, start) + bases + flank)
        )
    found: list[Span] = []
    for contig, pairs in by_contig.items():
        pairs.sort()
        start, end = pairs[0]
        for left, right in pairs[1:]:
            if left > end:
                found.append((contig, start, end))
                start, end = left, right
            end = max(end, right)
        found.append((contig, start, end))
    return found


def read_bases(
    alleles: Sequence[Allele], genome: Genome | None
) -> tuple[list[Stretch], dict[str, int]]:
    """Read the bases around alleles, and the lengths of their contigs as far as they are known.

    Without a genome, or where it lacks the contig, the bases are those of REF, and N between them.
    """
    import pysam

    spans, lengths = spans_around(alleles, SEQUENCE_FLANK), {}
    if genome is None:
        return _bases_of_refs(alleles, spans), {}
    known, unknown = [], []
    with pysam.FastaFile(genome.path) as fasta:
        for contig, start, end in spans:
            name = genome.resolve(contig)
            if name is None:
                unknown.append((contig, start, end))
                continue
            lengths[contig] = genome.contigs[name]
            end = min(end, genome.contigs[name])
            if start < end:  # else the record lies outside the contig
                known.append(
                    Stretch(contig, start, to_text(to_codes(fasta.fetch(name, start, end))))
                )
    return known + _bases_of_refs(alleles, unknown), lengths


def _bases_of_refs(alleles: Iterable[Allele], spans: Sequence[Span]) -> list[Stretch]:
    held: dict[str, list[tuple[int, int, bytearray]]] = {}
    for contig, start, end in spans:
        held.setdefault(contig, []).append((start, end, bytearray(b"N" * (end - start))))
    for allele in alleles:
        start = allele.pos - 1
        letters = to_text(to_codes(allele.ref)).encode()
        for left, right, bases in held.get(allele.chrom, ()):
            if left <= start < right:
                room = letters[: right - start]
                bases[start - left : start - left + len(room)] = room
    return [
        Stretch(contig, left, bases.decode())
        for contig, stretches in held.items()
        for left, _, bases in stretches
    ]


def read_genes(alleles: Sequence[Allele], models: GeneModels) -> tuple[list[tuple[str, Gene]], int]:
    """List genes near alleles with the contig's name in the VCF, and count those left out."""
    found: dict[tuple[str, str, int], tuple[str, Gene]] = {}
    for contig, start, end in spans_around(alleles, GENE_FLANK):
        for gene in models.overlapping(contig, start, end):
            found.setdefault((contig, gene.gene_id, gene.start), (contig, gene))
    genes = list(found.values())
    return genes[:MOST_GENES], max(0, len(genes) - MOST_GENES)


def genes_at(allele: Allele, models: GeneModels) -> str:
    """Name the genes that an allele's REF overlaps."""
    start = max(0, allele.pos - 1)
    genes = models.overlapping(allele.chrom, start, start + len(allele.ref))
    names = list(dict.fromkeys(gene.name or gene.gene_id for gene in genes))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


# --- tracks ----------------------------------------------------------------------------------

Site = tuple[str, int, str, str]
Files = dict[Site, dict[tuple[str, str], Path]]


def site_of(allele: Allele) -> Site:
    """Name an allele as the index of a folder of tracks does."""
    return allele.chrom, allele.pos, allele.ref, allele.alt


def read_track_index(folder: Path) -> Files:
    """Read index.tsv of a folder of tracks: files by allele, then by track and kind.

    Raises:
        InputError: It is not there, lacks a column, or has a line that is wrong.
    """
    path = folder / "index.tsv"
    mend = "run: glm-annotate tracks IN.vcf -f REF.fa -m MODEL -k ref,alt,delta -o FOLDER"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no index of tracks can be read ({error}); {mend}") from error
    names = lines[0].lstrip("#").split("\t") if lines else []
    if lacking := [x for x in _INDEX_COLUMNS if x not in names]:
        raise InputError(f"{path}: line 1 lacks the columns {', '.join(lacking)}; {mend}")
    rows: list[tuple[Site, str, str, str, Path]] = []
    for number, line in enumerate(lines[1:], 2):
        cells = dict(zip(names, line.split("\t"), strict=False))
        if len(line.split("\t")) != len(names) or not cells["pos"].isdigit():
            raise InputError(f"{path}: line {number} has not the columns of line 1; {mend}")
        if cells["kind"] not in KINDS:
            raise InputError(
                f"{path}: line {number} has the kind {cells['kind']!r}; known are "
                f"{', '.join(KINDS)}; {mend}"
            )
        file = (folder / cells["file"]).resolve()
        if not file.is_relative_to(folder.resolve()):
            raise InputError(f"{path}: line {number} names a file outside the folder; {mend}")
        site = cells["chrom"], int(cells["pos"]), cells["ref"], cells["alt"]
        rows.append((site, cells.get("model", ""), cells["track"], cells["kind"], file))
    several = len({model for _, model, *_ in rows}) > 1
    found: Files = {}
    for site, model, track, kind, file in rows:
        found.setdefault(site, {})[f"{model} {track}" if several else track, kind] = file
    return found


def read_signals(allele: Allele, files: Mapping[tuple[str, str], Path]) -> tuple[list[Signal], int]:
    """Read the tracks of an allele, those that it changes most, and count those left out.

    Raises:
        InputError: A bigWig cannot be read.
    """
    names = list(dict.fromkeys(track for track, _ in files))
    if len(names) > MOST_TRACKS:
        # One at a time: a model may have thousands, of 200,000 bases each.
        change = {name: _change(files.get((name, "delta")), allele) for name in names}
        names.sort(key=lambda name: -change[name])
    found: list[Signal] = []
    shown: set[str] = set()
    for name in names:
        if len(shown) == MOST_TRACKS:
            break
        for kind in KINDS:
            path = files.get((name, kind))
            data = None if path is None else _values(path, allele)
            if data is not None:
                found.append(Signal(name, kind, *_binned(*data, kind)))
                shown.add(name)
    return found, len(names) - len(shown)


def _change(path: Path | None, allele: Allele) -> float:
    found = None if path is None else _values(path, allele)
    return -1.0 if found is None else float(np.nanmax(np.abs(found[1])))


def _values(path: Path, allele: Allele) -> tuple[int, Floats] | None:
    """Read what a bigWig holds around an allele: first position and values, NaN in gaps."""
    middle = allele.pos - 1
    with open_bigwig(str(path)) as file:
        found = _stretch(str(path), file, allele.chrom, middle - TRACK_FLANK, middle + TRACK_FLANK)
    if found is None:
        return None
    start, values = found
    held = np.flatnonzero(np.isfinite(values))
    if held.size == 0:
        return None
    first, last = int(held[0]), int(held[-1]) + 1
    return start + first, values[first:last]


def _binned(start: int, values: Floats, kind: str) -> tuple[int, int, Floats]:
    step = max(1, math.ceil(values.size / MOST_BINS))
    bins = math.ceil(values.size / step)
    padded = np.full(bins * step, np.nan)
    padded[: values.size] = values
    table = padded.reshape(bins, step)
    known = np.isfinite(table)
    filled = np.where(known, table, 0.0)
    if kind == "delta":
        out = filled[np.arange(bins), np.abs(filled).argmax(axis=1)]
    else:
        out = filled.sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return start, step, np.where(known.any(axis=1), out, np.nan)


def _stretch(path: str, file: Any, contig: str, start: int, end: int) -> tuple[int, Floats] | None:
    """Read a stretch, cut to the contig; None where the file has nothing of it."""
    lengths = file.chroms()
    name = next((x for x in (contig, *aliases(contig)) if x in lengths), None)
    start = max(0, start)
    end = min(end, lengths[name]) if name is not None else 0
    if start >= end:
        return None
    try:
        return start, file.values(name, start, end, numpy=True).astype(np.float64)
    except RuntimeError as error:
        raise InputError(
            f"{path}: {contig}:{start + 1}-{end} cannot be read; make it again with glm-annotate "
            "tracks"
        ) from error


# --- saturation mutagenesis ------------------------------------------------------------------


def read_mutagenesis(alleles: Sequence[Allele], folder: Path) -> tuple[list[Mutagenesis], int]:
    """Read A.bw, C.bw, G.bw and T.bw around alleles; give the stretches, and alleles left out.

    Args:
        alleles: The most important first.
        folder: Of the four bigWigs.

    Raises:
        InputError: A bigWig is not there or cannot be read.
    """
    taken = list(alleles)
    spans = spans_around(taken, ISM_FLANK)
    while sum(end - start for _, start, end in spans) > MOST_ISM:
        taken = taken[: max(1, len(taken) * 3 // 4)]
        spans = spans_around(taken, ISM_FLANK)
    columns = []
    for base in BASES:
        path = folder / f"{base}.bw"
        if not path.is_file():
            raise InputError(
                f"{path}: no such file; --ism needs A.bw, C.bw, G.bw, T.bw; run: glm-annotate "
                "tracks IN -f REF.fa -m MODEL -k ism -o FOLDER, and name FOLDER/TAG/ism"
            )
        with open_bigwig(str(path)) as file:
            columns.append([_stretch(str(path), file, *span) for span in spans])
    found = []
    for (contig, _, _), *four in zip(spans, *columns, strict=True):
        held = [x for x in four if x is not None]
        if len(held) < len(BASES):
            continue
        effects = np.stack([values for _, values in held], axis=1)
        if np.isfinite(effects).any():
            found.append(Mutagenesis(contig, held[0][0], effects))
    return found, len(alleles) - len(taken)
