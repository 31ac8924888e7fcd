"""Alleles of a phased sample, each scored beside the others that its haplotype carries.

For an allele of haplotype h, the *background* is the reference with every allele of h but this one.
`_HAP` is the score of the allele there, as if the background were the FASTA: the window with all of
the haplotype's alleles against the window with all but this one. So it equals the plain score where
no other allele is near, and of an allele that both haplotypes carry it is the mean of the two.

Decisions: which alleles count is what `haplotypes` says: phased genotypes, or the same on both
haplotypes; others have no `_HAP`, and are in no background. All alleles of the sample are read
before the run, so that neither chunks nor regions cut a background. It is laid out around each
allele as a contig of its own, with the allele where the reference has it on the grid that windows
of some scores lie on: so alleles that are far away change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from glm_annotate.answers import Floats, Ints
from glm_annotate.chunks import Chunk
from glm_annotate.errors import UsageError
from glm_annotate.genome import Codes, Genome, N, to_codes
from glm_annotate.haplotypes import Carried, Edit, read_carried
from glm_annotate.made_genome import MadeGenome
from glm_annotate.model import Model, Result
from glm_annotate.passes import Bools
from glm_annotate.shares import Share, make_share
from glm_annotate.skips import Skip, skip_code
from glm_annotate.variants import Alleles, left_align, trim

if TYPE_CHECKING:
    from glm_annotate.fields import Column

HAPLOTYPES = (1, 2)
_Trimmed = tuple[int, Codes, Codes]  # 0-based start, REF, ALT, not left-aligned


@dataclass(slots=True)
class Background:
    """What a model is asked of one haplotype's alleles in a chunk.

    Attributes:
        share: Alleles that have another one near; all others are skipped.
        genome: A contig for each of them.
        carried: Alleles that the haplotype carries, shape (n,); `near`: those of `share`.
    """

    share: Share
    genome: Genome
    carried: Bools
    near: Bools


class Lineage:
    """The alleles of a haplotype, found by place.

    Args:
        genome: The reference.
        carried: They.
    """

    def __init__(self, genome: Genome, carried: Carried) -> None:
        self._genome, self._edits = genome, carried.edits
        self._at = {
            contig: {edit.start: i for i, edit in enumerate(edits)}
            for contig, edits in carried.edits.items()
        }

    def place(self, contig: str, start: int, ref: Codes, alt: Codes) -> int:
        """Find an allele among the haplotype's; -1 where it carries none such."""
        which = self._at.get(contig, {}).get(start, -1)
        if which < 0:
            return -1
        edit = self._edits[contig][which]
        same = edit.end - edit.start == ref.size and np.array_equal(edit.alt, alt)
        return which if same else -1

    def has_near(self, contig: str, which: int, reach: int, *, circular: bool) -> bool:
        """Say whether another allele lies so near to one."""
        edits = self._edits[contig]
        if len(edits) < 2:
            return False
        last, size = len(edits) - 1, self._genome.contigs[contig]
        here, before, behind = edits[which], edits[which - 1], edits[(which + 1) % len(edits)]
        if which == 0 and not circular:
            left = reach
        else:
            left = here.start - before.end + (size if which == 0 else 0)
        if which == last and not circular:
            right = reach
        else:
            right = behind.start - here.end + (size if which == last else 0)
        return min(left, right) < reach

    def around(
        self, contig: str, which: int, reach: int, unit: int, *, circular: bool
    ) -> tuple[Codes, int, bool]:
        """Lay out the background around an allele.

        Args:
            contig: A name of the FASTA.
            which: The allele, by `place`.
            reach: Bases at each side of it at least, N before the contig.
            unit: The allele comes to lie where it is on the reference, but for multiples of this.
            circular: Whether the contig wraps around.

        Returns:
            Bases, where the allele's first one is among them, and whether the contig begins there.
        """
        edit = self._edits[contig][which]
        need = reach + (edit.start - reach) % unit
        left = self._walk(contig, which, need, -1, circular=circular)
        right = self._walk(contig, which, reach, 1, circular=circular)
        ref = self._genome.codes(contig)[edit.start : edit.end]
        before = np.full(need - left.size, N, dtype=np.uint8)
        return np.concatenate([before, left, ref, right]), need, bool(before.size)

    def _walk(self, contig: str, which: int, need: int, way: int, *, circular: bool) -> Codes:
        """Gather bases of the background to the left (-1) or to the right (1) of an allele."""
        bases, edits = self._genome.codes(contig), self._edits[contig]
        if way < 0:  # as to the right, on the contig read backwards
            bases = bases[::-1]
        size, at = int(bases.size), self._ends(edits[which], int(bases.size), way)[1]
        k, parts = which + way, []
        while need > 0:
            if k == which:  # around the circle: its place is as in the reference
                k += way
            inside = 0 <= k < len(edits)
            first, behind = self._ends(edits[k], size, way) if inside else (size, size)
            found = [bases[at : min(first, at + need)]]
            need -= found[0].size
            if inside and need > 0:
                found.append(edits[k].alt[::way][:need])
                need -= found[1].size
                at, k = behind, k + way
            elif need > 0:
                if not circular or not size:
                    need = 0
                at, k = 0, 0 if way > 0 else len(edits) - 1
            parts += found
        whole = np.concatenate(parts) if parts else bases[:0]
        return whole[::way]

    @staticmethod
    def _ends(edit: Edit, size: int, way: int) -> tuple[int, int]:
        """Give start and end of an edit in the direction of a walk."""
        return (edit.start, edit.end) if way > 0 else (size - edit.end, size - edit.start)


class Phased:
    """The haplotypes of a sample, and what models are asked of them.

    Args:
        path: A sorted VCF or BCF, which is read once here.
        sample: Name of the sample.
        genome: The reference.
        models: Of the run.
        contig_map: The user's own VCF-to-FASTA contig names.

    Raises:
        UsageError: A model cannot be asked.
        InputError: The file cannot be read, has no such sample, or is not sorted.
    """

    def __init__(
        self,
        path: str,
        sample: str,
        genome: Genome,
        models: Iterable[Model],
        contig_map: Mapping[str, str],
    ) -> None:
        for model in models:
            _check(model, sample)
        self.sample = sample
        self._lineages = [
            Lineage(genome, read_carried(path, sample, which, genome, contig_map))
            for which in HAPLOTYPES
        ]

    def backgrounds(
        self, chunk: Chunk, alleles: Alleles, model: Model, skip: Ints
    ) -> list[Background]:
        """Prepare what a model is asked of a chunk, one haplotype after the other.

        Args:
            chunk: The records.
            alleles: Theirs, as the model reads them.
            model: The model.
            skip: Why an allele is not scored; 0 for none, shape (n,).
        """
        written = _written(chunk, alleles, skip)
        return [_background(lineage, written, alleles, model) for lineage in self._lineages]


def _check(model: Model, sample: str) -> None:
    fault = ""
    if model.channels is not None:
        fault = "reads signals or an alignment of the reference, which no haplotype has"
    elif model.framed is not None or model.genes is not None:
        fault = "reads genes, which lie elsewhere on a haplotype"
    elif model.dense:
        fault = "is read in dense passes, which alleles share; use --mode exact"
    if fault:
        raise UsageError(f"--phased {sample}: {model.bundle.card.name} {fault}")


def _written(chunk: Chunk, alleles: Alleles, skip: Ints) -> dict[int, _Trimmed]:
    """Trim alleles as they are written, by their place in the chunk; no others than bases."""
    found: dict[int, _Trimmed] = {}
    first = np.searchsorted(alleles.record, alleles.record)
    for i in np.flatnonzero(skip == 0).tolist():
        record = int(alleles.record[i])
        alt = chunk.alts[record].split(b",")[i - int(first[i])]
        if alt.startswith(b"<"):
            continue
        skipped, old, new = trim(to_codes(chunk.refs[record]), to_codes(alt))
        found[i] = int(chunk.pos[record]) - 1 + skipped, old, new
    return found


def _background(
    lineage: Lineage, written: Mapping[int, _Trimmed], alleles: Alleles, model: Model
) -> Background:
    card, n = model.bundle.card, len(alleles)
    carried, near = np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
    unit, beyond = max(1, card.context // 2), card.context + max(map(abs, card.shifts))
    contigs: dict[str, Codes] = {}
    moved: dict[int, _Trimmed] = {}
    for i, (start, ref, alt) in written.items():
        contig = alleles.contigs[int(alleles.contig[i])]
        which = lineage.place(contig, start, ref, alt)
        if which < 0:
            continue
        carried[i] = True
        wraps, reach = contig in model.circular, beyond + max(ref.size, alt.size)
        if not lineage.has_near(contig, which, reach, circular=wraps):
            continue
        near[i], room = True, reach
        while True:
            codes, at, begins = lineage.around(contig, which, room, unit, circular=wraps)
            moved[i] = left_align(codes, at, ref, alt, circular=False)
            if moved[i][0] >= reach or begins:
                break
            room *= 2  # it moved far to the left; what lies there has to be at hand too
        contigs[str(i)] = codes
    there = _moved(alleles, moved)
    plain = replace(model, circular=frozenset(), ignore_scope=True, calibration=None, shows=False)
    return Background(make_share(plain, there, there.skip), MadeGenome(contigs), carried, near)


def _moved(alleles: Alleles, moved: Mapping[int, _Trimmed]) -> Alleles:
    """Put alleles on contigs of their own; the others are skipped."""
    n = len(alleles)
    out = Alleles(
        [str(i) for i in moved],
        alleles.record,
        contig=np.full(n, -1),
        start=np.zeros(n, dtype=np.int64),
        ref_len=np.ones(n, dtype=np.int64),
        alt_len=np.ones(n, dtype=np.int64),
        ref_base=np.zeros(n, dtype=np.uint8),
        alt_base=np.zeros(n, dtype=np.uint8),
        skip=np.full(n, skip_code(Skip.NO_CHANGE)),
    )
    for number, (i, (start, ref, alt)) in enumerate(moved.items()):
        out.contig[i], out.start[i], out.skip[i] = number, start, 0
        out.ref_len[i], out.alt_len[i] = ref.size, alt.size
        if ref.size == alt.size == 1:
            out.ref_base[i], out.alt_base[i] = ref[0], alt[0]
        else:
            out.edits[i] = ref, alt
    return out


def haplotype_result(plain: Result, found: Sequence[tuple[Background, Result]]) -> Result:
    """Average an allele's numbers over the haplotypes that carry it.

    Args:
        plain: What the model says of the alleles in the reference, which holds where nothing else
            is near.
        found: By haplotype.
    """
    count = np.sum([background.carried for background, _ in found], axis=0)

    def mean(own: Floats, others: Sequence[Floats]) -> Floats:
        shape = (-1,) + (1,) * (own.ndim - 1)
        total = np.zeros_like(own)
        for (background, _), theirs in zip(found, others, strict=True):
            value = np.where(background.near.reshape(shape), theirs, own)
            total += np.where(background.carried.reshape(shape), value, 0.0)
        return total / np.where(count > 0, count, np.nan).reshape(shape)

    tracks = {
        key: mean(own, [result.tracks[key] for _, result in found])
        for key, own in plain.tracks.items()
    }
    values = {
        key: _largest(tracks[key])
        if key in tracks
        else mean(own, [result.values[key] for _, result in found])
        for key, own in plain.values.items()
    }
    return Result(plain.skip, values, plain.reasons, tracks)


def _largest(values: Floats) -> Floats:
    """Give of each allele's tracks the number that is largest without its sign, shape (n,)."""
    top = np.where(np.isfinite(values), np.abs(values), -1.0).argmax(axis=1)
    return np.asarray(values[np.arange(len(values)), top])


def haplotype_columns(columns: Iterable[Column], sample: str | None) -> list[Column]:
    """List the INFO keys of numbers on the haplotypes of a sample; none without one."""
    return [
        replace(
            column,
            key=f"{column.key}_HAP",
            description=f"{column.description}; beside the other alleles that the haplotypes of "
            f"{sample} with this one carry, mean of the haplotypes",
        )
        for column in columns
        if sample is not None and column.way and column.kind == "Float"
    ]
