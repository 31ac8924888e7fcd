"""`--from`: scores that an earlier run has written are taken from its output, not computed anew.

An allele is taken by what it changes, however it is spelled, never by its ID, and only where the
file says that all its scores have numbers. A model's scores are taken only where the file's header
says that they were made by that model in the same way (`made_by`). What is taken is the text of
the INFO keys, so that it is written again as it was.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from glm_annotate.annotate import Asked, Model, Taken
from glm_annotate.answers import Ints
from glm_annotate.chunks import Chunk
from glm_annotate.errors import InputError
from glm_annotate.fields import SCORED, columns_of, status_key
from glm_annotate.genome import Codes, Genome, N
from glm_annotate.made_by import Contigs, readable_contigs, usable_models
from glm_annotate.score_files import ScoreFile, open_score_file
from glm_annotate.skips import Skip
from glm_annotate.variants import AlleleReader, Alleles

logger = logging.getLogger(__name__)

_HAVE_NUMBERS = frozenset((SCORED.encode(), str(Skip.PRECOMPUTED).encode()))
_CELLS = {
    "Float": re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|\."),
    "Integer": re.compile(rb"-?[0-9]+|\."),
    "String": re.compile(rb"[^\s;=,]+"),
}
# Files whose REFs disagree with the FASTA this often are of another one.
_LOOK_AT, _AT_LEAST, _MOST_WRONG = 1000, 50, 0.2
_BASES = [bytes([code]) for code in range(N)]

# Place of the contig in the FASTA, first changed base, and the codes there in REF and in ALT.
_Change = tuple[int, int, bytes, bytes]
# The alleles of a chunk that a model is to score, by what they change.
_Wanted = dict[_Change, list[int]]
_Texts = tuple[bytes, ...]
_Span = tuple[int, int]


@dataclass(slots=True)
class _Source:
    """A file of scores.

    Attributes:
        file: It.
        contigs: Of it: those that are read.
        models: Of the run: those whose scores it has.
        compared: REFs that were compared with the FASTA; `wrong`: those that disagree.
        told: Whether it was said that an allele stands twice with other scores.
    """

    file: ScoreFile
    contigs: Contigs
    models: Sequence[Model]
    compared: int = 0
    wrong: int = 0
    told: bool = False


@dataclass(frozen=True, slots=True)
class _Records:
    """Records of a file, in columns; contigs are spelled as in the FASTA, `pos` is 1-based."""

    chroms: Sequence[bytes]
    pos: Sequence[int]
    refs: Sequence[bytes]
    alts: Sequence[bytes]
    infos: Sequence[bytes]

    def read(self, reader: AlleleReader) -> Alleles:
        """Read their alleles."""
        pos = np.array(self.pos, dtype=np.int64)
        return reader.read(self.chroms, pos, self.refs, self.alts, self.infos)

    def where(self, i: int) -> str:
        """Name one in a message."""
        site = b"%b:%d:%b:%b" % (self.chroms[i], self.pos[i], self.refs[i], self.alts[i])
        return site[:80].decode("utf-8", "replace")


class Precomputed(AbstractContextManager["Precomputed"]):
    """Finds alleles in the files of `--from`.

    Args:
        names: The files; of several that have an allele the first one gives its scores.
        models: Of the run.
        genome: The reference.
        contig_map: The user's own VCF-to-FASTA contig names.
        tf32: Whether the run's matrix products are rounded so.

    Raises:
        InputError: A file cannot be read, has no index, or was made in another way.
    """

    def __init__(
        self,
        names: Iterable[str],
        models: Sequence[Model],
        genome: Genome,
        *,
        contig_map: dict[str, str],
        tf32: bool = False,
    ) -> None:
        self._genome = genome
        # As the run reads its own alleles: longer symbolic ones are not spelled out.
        longest = max(model.bundle.card.context for model in models)
        self._readers = {
            circular: AlleleReader(genome, circular=circular, longest=longest)
            for circular in dict.fromkeys(model.circular for model in models)
        }
        self._cells = {model.tag: _cells(model) for model in models}
        self._sources: list[_Source] = []
        with ExitStack() as stack:
            for name in names:
                file = stack.enter_context(closing(open_score_file(name)))
                contigs = readable_contigs(file, genome, contig_map)
                usable = usable_models(file, contigs, models, genome, tf32=tf32)
                self._sources.append(_Source(file, contigs, usable))
            self._closing = stack.pop_all()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the files."""
        self._closing.close()

    def find(self, chunk: Chunk, asked: Mapping[str, Asked]) -> dict[str, Taken]:
        """Look the alleles of a chunk up.

        Args:
            chunk: The records.
            asked: By tag: alleles as the model reads them, and why some are not scored.

        Returns:
            By tag: alleles that are found, and the text of their INFO keys but the status.

        Raises:
            InputError: A file is damaged, or its REFs are not those of the FASTA.
        """
        found: dict[str, dict[int, _Texts]] = {tag: {} for tag in asked}
        for source in self._sources:
            wanted = {x.tag: _wanted(asked[x.tag], found[x.tag]) for x in source.models}
            records = self._near(source, chunk, asked, wanted)
            read: dict[frozenset[str], Alleles] = {}
            for model in source.models:
                if model.circular not in read:
                    read[model.circular] = records.read(self._readers[model.circular])
                    self._compare(source, read[model.circular])
                self._take(
                    source, model, records, read[model.circular], wanted[model.tag],
                    found[model.tag],
                )  # fmt: skip
        return {
            tag: Taken(np.array(sorted(rows), dtype=np.int64), [rows[i] for i in sorted(rows)])
            for tag, rows in found.items()
            if rows
        }

    def _near(
        self,
        source: _Source,
        chunk: Chunk,
        asked: Mapping[str, Asked],
        wanted: Mapping[str, _Wanted],
    ) -> _Records:
        """Read the records of a file that can spell a wanted allele."""
        spans: dict[int, set[_Span]] = {}
        for model in source.models:
            alleles = asked[model.tag].alleles
            for change, places in wanted[model.tag].items():
                name = alleles.contigs[change[0]]
                held = spans.setdefault(change[0], set())
                held.update(self._spans(name, change, name in model.circular))
                if len(change[2]) != 1 or len(change[3]) != 1:
                    held.update(_own_spans(chunk, alleles, places))
        rows = [
            (name.encode(), int(columns[1]), columns[3], columns[4], columns[7].rstrip(b"\r"))
            for name, number in ((x, i) for i, x in enumerate(self._genome.contigs) if i in spans)
            for spelled in source.contigs.get(name, ())
            for columns in source.file.near(spelled, spans[number])
        ]
        return _Records(*(zip(*rows, strict=True) if rows else ((),) * 5))

    def _spans(self, contig: str, change: _Change, circular: bool) -> Iterator[_Span]:
        """Say where the REF of a record may lie that spells a change, 0-based half-open."""
        _, start, ref, alt = change
        if len(ref) == len(alt) == 1:
            yield start, start + 1
            return
        codes, end = self._genome.codes(contig), start + len(ref)
        if not ref or not alt:
            moved = np.frombuffer(ref or alt, dtype=np.uint8)
            end += _shifts(codes, end, moved, circular=circular)
        # An insertion's REF is the base before it or the base behind it.
        for turn in (0, codes.size) if circular else (0,):
            inside = max(0, start - 1 - turn), min(codes.size, end + 1 - turn)
            if inside[0] < inside[1]:
                yield inside
        if circular and start == 0:
            yield codes.size - 1, codes.size

    def _compare(self, source: _Source, alleles: Alleles) -> None:
        """Compare the first REFs of a file with the FASTA.

        Raises:
            InputError: It looks like another assembly.
        """
        if source.compared >= _LOOK_AT:
            return
        source.compared += int((alleles.compared > 0).sum())
        source.wrong += int((alleles.compared > 1).sum())
        if source.compared >= _AT_LEAST and source.wrong > _MOST_WRONG * source.compared:
            raise InputError(
                f"--from {source.file.name}: {source.wrong} of the first {source.compared} REF "
                f"alleles are not what {self._genome.path} has there: it looks like another "
                "assembly; name scores made with this FASTA, or leave --from out"
            )

    def _take(
        self,
        source: _Source,
        model: Model,
        records: _Records,
        alleles: Alleles,
        wanted: _Wanted,
        found: dict[int, _Texts],
    ) -> None:
        """Take the scores of one model for all alleles that records of a file have them of."""
        cells, status = self._cells[model.tag], status_key(model).encode()
        first = np.searchsorted(alleles.record, alleles.record).tolist()
        for i, change in _changes(alleles):
            places = wanted.get(change)
            if places is None:
                continue
            record = int(alleles.record[i])
            count = records.alts[record].count(b",") + 1
            texts = _texts(records.infos[record], status, cells, i - first[i], count)
            if texts is None:
                continue
            differs = [found.setdefault(place, texts) != texts for place in places]
            if any(differs) and not source.told:
                source.told = True
                logger.warning(
                    "%s: %s stands twice, with other scores of %s; the first ones are taken",
                    source.file.name, records.where(record), model.tag,
                )  # fmt: skip


def _cells(model: Model) -> list[tuple[bytes, re.Pattern[bytes]]]:
    """List the INFO keys of a model but the status, and what their values look like."""
    return [(column.key.encode(), _CELLS[column.kind]) for column in columns_of(model)]


def _wanted(asked: Asked, found: Mapping[int, _Texts]) -> _Wanted:
    """Sort the alleles that are to be scored, and are not found yet, by what they change."""
    out: _Wanted = {}
    for i, change in _changes(asked.alleles, asked.skip):
        if i not in found:
            out.setdefault(change, []).append(i)
    return out


def _changes(alleles: Alleles, skip: Ints | None = None) -> Iterator[tuple[int, _Change]]:
    """Give what each allele without a reason changes, left-aligned and trimmed."""
    chosen = np.flatnonzero((alleles.skip if skip is None else skip) == 0)
    columns = (alleles.contig, alleles.start, alleles.ref_base, alleles.alt_base)
    single = (alleles.ref_len == 1) & (alleles.alt_len == 1)
    for i, simple, contig, start, ref, alt in zip(
        chosen.tolist(), single[chosen].tolist(), *(x[chosen].tolist() for x in columns),
        strict=True,
    ):  # fmt: skip
        if i in alleles.edits:
            old, new = alleles.edits[i]
            yield i, (contig, start, old.tobytes(), new.tobytes())
        elif simple:
            yield i, (contig, start, _BASES[ref], _BASES[alt])


def _own_spans(chunk: Chunk, alleles: Alleles, places: Iterable[int]) -> Iterator[_Span]:
    """Give the stretches of REF of alleles in their own records; symbolic ones lie elsewhere."""
    for i in places:
        record = int(alleles.record[i])
        start = max(0, int(chunk.pos[record]) - 1)
        yield start, start + len(chunk.refs[record])


def _shifts(codes: Codes, end: int, moved: Codes, *, circular: bool) -> int:
    """Count the bases by which an insertion or deletion can be moved to the right.

    Args:
        codes: Of the contig.
        end: Behind its REF.
        moved: What is inserted or deleted.
        circular: Whether the contig wraps around.
    """
    shift, size = 0, 64
    most = codes.size if circular else codes.size - end
    while shift < most:
        at = np.arange(shift, min(most, shift + size))
        same = codes[(end + at) % codes.size] == moved[at % moved.size]
        if not same.all():
            return shift + int(same.argmin())
        shift, size = shift + at.size, 4 * size
    return shift


def _texts(
    info: bytes,
    status: bytes,
    cells: Iterable[tuple[bytes, re.Pattern[bytes]]],
    which: int,
    count: int,
) -> _Texts | None:
    """Read the values of one ALT of `count`; None where not all of its scores have numbers."""
    values = dict(x.partition(b"=")[::2] for x in info.split(b";"))
    statuses = values.get(status, b"").split(b",")
    if len(statuses) != count or statuses[which] not in _HAVE_NUMBERS:
        return None
    out = []
    for key, pattern in cells:
        texts = values.get(key, b"").split(b",")
        if len(texts) != count or pattern.fullmatch(texts[which]) is None:
            return None
        out.append(texts[which])
    return tuple(out)
