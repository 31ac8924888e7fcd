"""Numbers of every base of a stretch: likelihood, entropy, information, saturation mutagenesis.

They come out of the ordinary pipeline: a stretch is cut into pieces, the bases of a piece become
alleles without records (one a base, or three where all substitutions are asked for), and what is
read of them is what `vcf` writes at the same sites. Bases other than A, C, G and T, those that a
model is not meant for and those without a number are NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from glm_annotate.annotate import Annotator, Scored, Work, score_chunks
from glm_annotate.answers import Floats
from glm_annotate.chunks import Chunk
from glm_annotate.dense import dense_stride
from glm_annotate.errors import UsageError
from glm_annotate.evidence import is_fixed
from glm_annotate.genome import Codes, Genome, Interval
from glm_annotate.model import Model, Result
from glm_annotate.scores import ScoreSpec, parse_score
from glm_annotate.variants import Alleles, Skip, skip_code

What = Literal["likelihood", "entropy", "information", "ism"]
Mode = Literal["exact", "dense"]
Piece = tuple[int, dict[str, Floats]]

ISM = ("A", "C", "G", "T", "maxabs", "mean")
# Scores that are read of one allele a base, and what is made of them.
_SINGLE: dict[str, tuple[str, Callable[[Floats], Floats]]] = {
    "likelihood": ("LIKELIHOOD", lambda values: values),
    "entropy": ("ENT", lambda values: values),
    "information": ("ENT", lambda values: 2.0 - values / math.log(2.0)),
}


@dataclass(frozen=True, slots=True)
class Kind:
    """Something that every base has a number of.

    Attributes:
        what: `likelihood`: log p of the reference base among A, C, G and T (nats); `entropy`: of
            these four (nats); `information`: 2 - entropy in bits; `ism`: a score of each of the
            three other bases, 0 of the reference base, and of the three the largest without its
            sign (`maxabs`) and the mean.
        score: Of `ism`, as after -s, or as read of it.
        track: Of `ism` by a model of tracks: its identifier; None: the largest of all tracks.
    """

    what: What
    score: str | ScoreSpec = "LLR"
    track: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its columns."""
        if self.what != "ism":
            return (self.what,)
        return tuple(f"ism_{name}" for name in ISM)


@dataclass(frozen=True, slots=True)
class SitePiece:
    """Numbers of consecutive bases.

    Attributes:
        contig: A name of the FASTA.
        start: The first base, 0-based.
        columns: By name, float64, shape (n,).
        scored: The alleles that they were read of, one or three a base, and all their scores.
    """

    contig: str
    start: int
    columns: dict[str, Floats]
    scored: Scored


def per_base(
    model: Model,
    genome: Genome,
    contig: str,
    start: int,
    end: int,
    kinds: Sequence[Kind],
    mode: Mode = "exact",
    *,
    stride: int | None = None,
) -> Iterator[Piece]:
    """Compute numbers of every base of a stretch, 0-based and half-open.

    Args:
        model: What to ask; its own scores and mode do not matter. Who stops in the middle cannot
            use its sessions again.
        genome: The reference.
        contig: Name in the FASTA.
        start: Not before the contig.
        end: Not past it.
        kinds: What to compute, no column twice.
        mode: `dense`: many sites a pass, where the scores can be read so.
        stride: Of dense passes, in place of the card's.

    Yields:
        Pieces in order, without gaps: the first base, and float64 values by column, shape (n,).

    Raises:
        UsageError: The model does not give a score, has no such track or no dense mode.
    """
    stretch = Interval(contig, start, end)
    for piece in over_stretches(model, genome, [stretch], kinds, mode, stride=stride):
        yield piece.start, piece.columns


def over_stretches(
    model: Model,
    genome: Genome,
    stretches: Iterable[Interval],
    kinds: Sequence[Kind],
    mode: Mode = "exact",
    *,
    stride: int | None = None,
    also: Sequence[ScoreSpec] = (),
) -> Iterator[SitePiece]:
    """Compute numbers of every base of some stretches, one after the other.

    Args:
        model: As in `per_base`.
        genome: The reference.
        stretches: Of contigs of the FASTA, within them.
        kinds: What to compute, no column twice.
        mode: As in `per_base`.
        stride: The same.
        also: Scores that the alleles are to have besides; they share the passes.

    Yields:
        Pieces of the stretches in order, without gaps.

    Raises:
        UsageError: As in `per_base`.
    """
    readers = [_reader(kind, model) for kind in kinds]
    columns = [name for kind in kinds for name in kind.columns]
    if len(set(columns)) < len(columns):
        raise ValueError(f"columns with one name among {columns}")
    dense = dense_stride(model.bundle, wanted=stride) if mode == "dense" else 0
    specs = tuple({spec.key: spec for spec in (*also, *(spec for spec, _ in readers))}.values())
    asked = replace(model, scores=specs, dense=dense)
    alts = 3 if any(kind.what == "ism" for kind in kinds) else 1
    annotator = Annotator(genome, [asked])
    size = annotator.chunk_size // alts
    works = (
        _work(annotator, stretch.chrom, start, end, alts)
        for stretch in stretches
        for start, end in _cuts(_within(stretch, genome), size, asked)
    )
    for scored in score_chunks(annotator, works):
        ref = scored.alleles.ref_base.reshape(-1, alts)[:, 0]
        result = scored.results[asked.tag]
        found: dict[str, Floats] = {}
        for kind, (_, read) in zip(kinds, readers, strict=True):
            values = read(result).reshape(-1, alts)
            parts = _mutated(values, ref) if kind.what == "ism" else [values[:, 0]]
            found |= zip(kind.columns, parts, strict=True)
        contig = scored.alleles.contigs[int(scored.alleles.contig[0])]
        yield SitePiece(contig, int(scored.alleles.start[0]), found, scored)


def _within(stretch: Interval, genome: Genome) -> Interval:
    if not 0 <= stretch.start <= stretch.end <= genome.contigs[stretch.chrom]:
        raise ValueError(f"{stretch.chrom} has no bases {stretch.start} to {stretch.end}")
    return stretch


def _reader(kind: Kind, model: Model) -> tuple[ScoreSpec, Callable[[Result], Floats]]:
    """Find the score of a kind, and how its values are read: one an allele, shape (n,)."""
    card = model.bundle.card
    if kind.what != "ism":
        # Whoever gives ENT gives the other two: they are read of the same passes.
        entropy = parse_score("ENT", card)
        if not is_fixed(model.bundle.encoder):
            raise UsageError(
                f"{card.name} gives no {kind.what} of single bases: its tokens differ in length; "
                "-k ism gives what its tokens allow"
            )
        name, change = _SINGLE[kind.what]
        spec = replace(entropy, name=name)
        return spec, lambda result: change(result.values[spec.key])
    spec = parse_score(kind.score, card) if isinstance(kind.score, str) else kind.score
    if kind.track is None:
        return spec, lambda result: result.values[spec.key]
    by_track = model.tracks is not None and spec.score.output in ("tracks", "contacts")
    names = model.tracks.names if model.tracks is not None and by_track else ()
    if kind.track not in names:
        known = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "none"
        raise UsageError(f"{card.name} has no track {kind.track!r}; it has {known}")
    track = names.index(kind.track)
    return spec, lambda result: result.tracks[spec.key][:, track]


def _cuts(stretch: Interval, size: int, model: Model) -> Iterator[tuple[int, int]]:
    """Cut a stretch into pieces of about `size` bases.

    Dense passes serve half a context each, from a multiple of it on: cuts elsewhere would have them
    made twice.
    """
    unit = max(1, model.bundle.card.context // 2) if model.dense else 1
    size = max(1, size // unit) * unit
    start = stretch.start
    while start < stretch.end:
        stop = min(stretch.end, (start // size + 1) * size)
        yield start, stop
        start = stop


def _work(annotator: Annotator, contig: str, start: int, end: int, alts: int) -> Work:
    alleles = substitutions(annotator.genome, contig, start, end, alts)
    return annotator.take(_NO_RECORDS, alleles)


_NO_RECORDS = Chunk("record", np.zeros(0, dtype=np.int64), [], [], [], np.zeros(0, dtype=np.int64),
                    [], [], [])  # fmt: skip


def substitutions(genome: Genome, contig: str, start: int, end: int, alts: int = 3) -> Alleles:
    """Make single-base alleles of every base of a stretch.

    Args:
        genome: The reference.
        contig: Name in the FASTA.
        start: First base, 0-based.
        end: Half-open.
        alts: How many a base, 1 to 3: the other bases in the order of A, C, G, T.

    Returns:
        `alts` alleles a base, in order; those of other letters are AMBIGUOUS.
    """
    ref = np.repeat(genome.codes(contig)[start:end], alts)
    n = ref.size
    number = np.tile(np.arange(alts, dtype=np.uint8), end - start)
    known = ref < 4
    ones = np.ones(n, dtype=np.int64)
    skip = np.where(known, 0, skip_code(Skip.AMBIGUOUS))
    alt = (number + (number >= ref)).astype(np.uint8)
    contigs = list(genome.contigs)
    return Alleles(
        contigs,
        record=np.arange(n),
        contig=np.full(n, contigs.index(contig)),
        start=np.repeat(np.arange(start, end), alts),
        ref_len=ones,
        alt_len=ones.copy(),
        ref_base=ref,
        alt_base=alt,
        skip=skip,
    )


def _mutated(values: Floats, ref: Codes) -> list[Floats]:
    """Turn scores of the three other bases (n, 3) into columns: see `ISM`."""
    known = ref < 4
    base = np.where(known, ref, 0).astype(np.int64)
    out = np.full((ref.size, 4), np.nan)
    others = np.arange(3) + (np.arange(3) >= base[:, None])  # (n, 3)
    np.put_along_axis(out, others, values, axis=1)
    out[np.arange(ref.size), base] = 0.0
    out[~known] = np.nan
    # A site without any number has no zero either.
    out[np.isnan(values).all(axis=1)] = np.nan
    return [*out.T, np.abs(values).max(axis=1), values.mean(axis=1)]
