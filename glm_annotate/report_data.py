"""What a report shows of an annotated VCF: alleles, their scores and statuses, and how it was made.

Decisions: everything is counted, but only the alleles with the largest scores are kept as rows, so
that a page of any file has a bounded size. The first score of an allele that has a number ranks it.
Text of the file is kept as it is; `report` cuts it to a length and makes it harmless.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from glm_annotate.chunks import Chunk
from glm_annotate.errors import InputError
from glm_annotate.header import Header, fields_of
from glm_annotate.records import open_input
from glm_annotate.report_histograms import Distribution, Histogram
from glm_annotate.skips import Skip

SCORED = "SCORED"
MEANINGS: Mapping[str, str] = {
    SCORED: "every score has a number",
    Skip.PRECOMPUTED: "the scores come from a file of scores made before",
    Skip.REF_MISMATCH: "REF is not what the reference has there",
    Skip.CONTIG_MISSING: "the reference has no such contig",
    Skip.SYMBOLIC: "an ALT in angle brackets whose sequence is not known",
    Skip.SPANNING: "ALT is *, a deletion that another record describes",
    Skip.BREAKEND: "ALT is a breakend",
    Skip.AMBIGUOUS: "a letter other than A, C, G, T in REF or ALT, or in the reference there",
    Skip.TOO_LONG: "the allele does not fit into the window of the model",
    Skip.OFF_CONTIG: "the record lies outside the contig",
    Skip.OUT_OF_SCOPE: "the model is not meant for this contig",
    Skip.NO_CHANGE: "REF and ALT are the same sequence",
    Skip.FAILED: "the forward pass ended with an error",
    Skip.INDEL: "the score is defined for alleles of equal length only",
    Skip.TOKENIZATION: "the alleles do not differ in one token for one token",
    Skip.NO_SIGNAL: "the alignment or signal has no such contig",
    Skip.NO_BIN: "the map has no bin of the allele",
    Skip.NO_GENE: "the allele lies in no gene that the run knew",
    Skip.NOT_FINITE: "the model returned no finite number",
}
_LARGEST = float(np.finfo(np.float32).max)  # of VCF's Float
_TEXT, _STATUSES = 200, 24
_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Column:
    """An INFO key of ours with one value an ALT.

    Attributes:
        tag: Of its model.
        is_number: Whether it holds numbers; else text.
        of_track: Whether it is of one track of several, and a `_MAX` sums them up.
    """

    key: str
    tag: str
    is_number: bool
    of_track: bool
    description: str


@dataclass(frozen=True, slots=True)
class ModelLine:
    """A model of the run, as the header names it."""

    tag: str
    fields: dict[str, str]


@dataclass(frozen=True, slots=True)
class Status:
    """How many alleles have a status, and what it means (empty where it is none of ours)."""

    word: str
    count: int
    meaning: str


@dataclass(frozen=True, slots=True)
class Allele:
    """A row: one ALT. `pos` is 1-based.

    Attributes:
        order: Its place among the alleles of the file.
        rank: The absolute value of its first score that has a number; -1 if none has.
        values: By column: a number or text, or None.
        statuses: By tag of a model.
        info: The INFO column without our keys.
    """

    order: int
    chrom: str
    pos: int
    name: str
    ref: str
    alt: str
    filter: str
    info: str
    rank: float
    values: tuple[float | str | None, ...]
    statuses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Annotated:
    """An annotated VCF.

    Attributes:
        contigs: Lengths by name, for those that the header gives a length.
        tags: Of the models, in the order of `Allele.statuses`.
        scored: Alleles with a number in at least one column.
        rows: In the order of the file.
    """

    source: str
    models: tuple[ModelLine, ...]
    notes: tuple[tuple[str, str], ...]
    contigs: dict[str, int]
    columns: tuple[Column, ...]
    tags: tuple[str, ...]
    statuses: dict[str, tuple[Status, ...]]
    histograms: dict[str, Histogram]
    records: int
    alleles: int
    without_alt: int
    scored: int
    rows: tuple[Allele, ...]


@dataclass(slots=True)
class _Tally:
    columns: tuple[Column, ...]
    tags: tuple[str, ...]
    most: int
    numbers: list[Distribution] = field(init=False)
    words: list[Counter[str]] = field(init=False)
    rows: list[tuple[float, int, Allele]] = field(default_factory=list)
    records: int = 0
    alleles: int = 0
    without_alt: int = 0
    scored: int = 0

    def __post_init__(self) -> None:
        self.numbers = [Distribution() for _ in self.columns]
        self.words = [Counter() for _ in self.tags]

    def count(self, values: Sequence[float | str | None], statuses: Sequence[str]) -> None:
        self.alleles += 1
        has_number = False
        for numbers, value in zip(self.numbers, values, strict=True):
            if isinstance(value, float):
                numbers.add(value)
                has_number = True
        self.scored += has_number
        for counter, word in zip(self.words, statuses, strict=True):
            counter[word] += 1

    def wants(self, rank: float) -> bool:
        return len(self.rows) < self.most or rank > self.rows[0][0]

    def keep(self, allele: Allele) -> None:
        push = heapq.heappush if len(self.rows) < self.most else heapq.heappushpop
        push(self.rows, (allele.rank, -allele.order, allele))


def read_annotated(source: str, most: int) -> Annotated:
    """Read an annotated VCF or BCF ("-": stdin), and keep the `most` alleles of the largest scores.

    Raises:
        InputError: It cannot be read, has no key of ours, or a value that is none an ALT.
    """
    with open_input(source) as file:
        columns, tags = _columns(file.name, file.header)
        tally = _Tally(columns, tags, most)
        for chunk in file.chunks(_CHUNK):
            _read(file.name, chunk, tally)
        header, name = file.header, file.name
    notes, models = _run(header)
    return Annotated(
        Path(name).name, models, notes, _lengths(header), columns, tags,
        {tag: _statuses(words) for tag, words in zip(tags, tally.words, strict=True)},
        {
            column.key: found
            for column, numbers in zip(columns, tally.numbers, strict=True)
            if (found := numbers.histogram()) is not None
        },
        tally.records, tally.alleles, tally.without_alt, tally.scored,
        tuple(x for _, _, x in sorted(tally.rows, key=lambda row: -row[1])),
    )  # fmt: skip


# --- the header ------------------------------------------------------------------------------


def shortened(text: str, limit: int = _TEXT) -> str:
    """Cut a text to a length, and show it."""
    return text if len(text) <= limit else f"{text[: limit - 1]}\N{HORIZONTAL ELLIPSIS}"


def _decoded(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _text(raw: bytes, limit: int = _TEXT) -> str:
    return shortened(_decoded(raw), limit)


def _structured(header: Header) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
    for line in header:
        parsed = fields_of(line)
        if parsed is not None and b"ID" in parsed[1]:
            yield parsed


def _columns(name: str, header: Header) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    ours = [
        x for kind, x in _structured(header)
        if kind == b"INFO" and x.get(b"Source") == b"glm_annotate" and x.get(b"Number") == b"A"
    ]  # fmt: skip
    keys = [_decoded(x[b"ID"]) for x in ours]
    tags = tuple(dict.fromkeys(x.removesuffix("_STATUS") for x in keys if x.endswith("_STATUS")))
    sums = tuple(x.removesuffix("MAX") for x in keys if x.endswith("_MAX"))
    found = []
    for key, fields in zip(keys, ours, strict=True):
        if key.endswith("_STATUS"):
            continue
        owners = [tag for tag in tags if key.startswith(f"{tag}_")]
        summed = (
            key.startswith(sums) and not key.endswith(("_MAX", "_TOP", "_GENE")) if sums else False
        )
        is_number = fields.get(b"Type") in (b"Float", b"Integer")
        about = _text(fields.get(b"Description", b""), 1000)
        tag = max(owners, key=len, default=key.partition("_")[0])
        found.append(Column(key, tag, is_number, summed, about))
    if not any(column.is_number for column in found):
        raise InputError(
            f"{name}: no INFO key of glm-annotate with a number an ALT in the header; a report "
            "needs an annotated file; run: glm-annotate vcf IN -f REF.fa -m MODEL -o ANNOTATED"
        )
    return tuple(found), tags


def _run(header: Header) -> tuple[tuple[tuple[str, str], ...], tuple[ModelLine, ...]]:
    """Take the lines that say how the file was made."""
    models = tuple(
        ModelLine(
            _text(x[b"ID"]).upper(),
            {_text(key): _text(value, 1000) for key, value in x.items() if key != b"ID"},
        )
        for kind, x in _structured(header)
        if kind == b"glm_annotateModel"
    )
    titles = {b"reference": "Reference", b"glm_annotateVersion": "Version"}
    titles[b"glm_annotateCommand"] = "Command"
    notes = []
    for line in header:
        key, _, value = line.removeprefix(b"##").partition(b"=")
        if line.startswith(b"##") and key in titles:
            notes.append((titles[key], _text(value, 2000)))
    return tuple(notes), models


def _lengths(header: Header) -> dict[str, int]:
    return {
        _decoded(x[b"ID"]): int(x[b"length"])
        for kind, x in _structured(header)
        if kind == b"contig" and x.get(b"length", b"").isdigit()
    }


# --- the records -----------------------------------------------------------------------------


def _read(name: str, chunk: Chunk, tally: _Tally) -> None:
    """Count the alleles of some records, and keep those of the largest scores."""
    keys = [x.key.encode() for x in tally.columns]
    status_keys = [f"{tag}_STATUS".encode() for tag in tally.tags]
    ours = {*keys, *status_keys}
    for i in range(len(chunk)):
        tally.records += 1
        if chunk.alts[i] == b".":
            tally.without_alt += 1
            continue
        alts = chunk.alts[i].split(b",")
        pairs = [x.partition(b"=") for x in chunk.infos[i].split(b";")]
        held = {key: _split(value, len(alts)) for key, _, value in pairs if key in ours}
        if wrong := next((key for key, x in held.items() if len(x) != len(alts)), None):
            raise InputError(
                f"{name}: {chunk.where(i)} has {len(held[wrong])} values in {wrong.decode()} for "
                f"{len(alts)} ALT alleles; annotate the file again"
            )
        none = [b"."] * len(alts)
        by_column = [held.get(key, none) for key in keys]
        by_tag = [held.get(key, none) for key in status_keys]
        for a in range(len(alts)):
            values = tuple(
                _value(name, chunk, i, column, texts[a])
                for column, texts in zip(tally.columns, by_column, strict=True)
            )
            statuses = tuple(_text(words[a]) for words in by_tag)
            rank, order = _rank(tally.columns, values), tally.alleles
            tally.count(values, statuses)
            if tally.wants(rank):
                other = b";".join(b"".join(pair) for pair in pairs if pair[0] not in ours)
                tally.keep(_allele(chunk.lines[i], a, other, order, rank, values, statuses))


def _allele(
    line: bytes,
    a: int,
    info: bytes,
    order: int,
    rank: float,
    values: tuple[float | str | None, ...],
    statuses: tuple[str, ...],
) -> Allele:
    """Make a row of ALT number `a` of a record; an ID for each ALT is shared out."""
    chrom, pos, label, ref, alt, _, filters, _ = map(_decoded, line.split(b"\t", 7))
    alts, names = alt.split(","), label.split(";")
    name = names[a] if len(names) == len(alts) else label
    return Allele(
        order, chrom, int(pos), "" if name == "." else name, ref, alts[a], filters,
        _decoded(info), rank, values, statuses,
    )  # fmt: skip


def _split(value: bytes, alts: int) -> list[bytes]:
    """Split a value of Number=A; a lone dot says that none is known."""
    return [value] * alts if value == b"." else value.split(b",")


def _rank(columns: Sequence[Column], values: Sequence[float | str | None]) -> float:
    pairs = zip(columns, values, strict=True)
    numbers = (abs(x) for column, x in pairs if isinstance(x, float) and not column.of_track)
    return next(numbers, -1.0)


def _value(name: str, chunk: Chunk, i: int, column: Column, raw: bytes) -> float | str | None:
    if raw in (b".", b""):
        return None
    if not column.is_number:
        return shortened(unquote(_decoded(raw)))
    try:
        number = float(raw)
    except ValueError as error:
        raise InputError(
            f"{name}: {chunk.where(i)} has {_text(raw, 40)!r} in {column.key}, which is no number; "
            "annotate the file again"
        ) from error
    return number if abs(number) <= _LARGEST else None  # NaN is not


def _statuses(words: Counter[str]) -> tuple[Status, ...]:
    ranked = words.most_common()
    found = [Status(word, count, meaning(word)) for word, count in ranked[:_STATUSES]]
    if rest := ranked[_STATUSES:]:
        found.append(Status("others", sum(count for _, count in rest), f"{len(rest)} more"))
    return tuple(found)


def meaning(status: str) -> str:
    """Say what a status means; empty where it is none of ours."""
    if status in MEANINGS:
        return MEANINGS[status]
    pairs = [x.partition(":") for x in status.split("|")]
    if not all(reason in MEANINGS for _, _, reason in pairs):
        return ""
    reasons: dict[str, list[str]] = {}
    for score, _, reason in pairs:
        reasons.setdefault(reason, []).append(score)
    return "; ".join(
        f"no {', '.join(scores)}: {MEANINGS[reason]}" for reason, scores in reasons.items()
    )
