"""INFO fields: the header lines that declare them, their values by record, and their counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import numpy as np

from glm_annotate.annotate import Model, Result, Scored
from glm_annotate.answers import Floats, Ints
from glm_annotate.calibration import Extra
from glm_annotate.dense import is_dense
from glm_annotate.errors import UsageError
from glm_annotate.header import info_line, structured_line
from glm_annotate.phased import haplotype_columns
from glm_annotate.scores import ScoreSpec
from glm_annotate.track_choice import info_names
from glm_annotate.variants import SKIPS
from glm_annotate.vcf import format_floats

SCORED = "SCORED"
# Models with so many tracks at most have a key for each.
MOST_KEYS = 16
# Digits of digests that tell files and choices apart.
_SHORT = 12


@dataclass(frozen=True, slots=True)
class Column:
    """One INFO key.

    Attributes:
        key: Its name.
        kind: Its Type.
        description: For the header.
        read: Gives its text, allele by allele.
        way: `Score.kind` of its numbers; empty of names.
        choice: Tells the tracks apart that its numbers are made of, where these can be chosen.
    """

    key: str
    kind: str
    description: str
    read: Callable[[Result], list[bytes]]
    way: str = ""
    choice: str = ""


def columns_of(model: Model) -> list[Column]:
    """List the INFO keys of a model, in order, but the status."""
    found: list[Column] = []
    for spec in model.scores:
        key, text = f"{model.tag}_{spec.key}", _description(model, spec)
        way = spec.score.kind
        if model.tracks is None or spec.score.output == "embedding":
            kind, read = ("Integer", _whole) if spec.score.whole else ("Float", _values)
            choice = _chosen_sites(model)
            found.append(Column(key, kind, text, partial(read, spec.key), way, choice))
            continue
        names = model.tracks.names
        if spec.in_genes:
            text += "; in the gene in which the largest absolute value of all tracks is largest"
        if len(names) <= MOST_KEYS:
            for track, name in enumerate(info_names(names)):
                about = f"{text}; track {names[track]}"
                read = partial(_track, spec.key, track)
                found.append(Column(f"{key}_{name}", "Float", about, read, way))
        most = f"{text}; largest absolute value of {len(names)} tracks, signed"
        choice = _named_in_short(names)
        found.append(Column(f"{key}_MAX", "Float", most, partial(_values, spec.key), way, choice))
        which = f"Track of {key}_MAX, percent-encoded"
        found.append(Column(f"{key}_TOP", "String", which, partial(_top, spec.key, names)))
        if spec.in_genes:
            about = f"Gene of {key}_MAX, percent-encoded"
            found.append(Column(f"{key}_GENE", "String", about, partial(_named, spec.key)))
    if model.framed is not None:
        about = "Gene of the scores, percent-encoded: of those at the allele, the most changed one"
        for label, key in {spec.label: spec.key for spec in model.scores}.items():
            name = f"{model.tag}_GENE_{label}" if label else f"{model.tag}_GENE"
            text = f"{about}; of scores with the label {label}" if label else about
            genes = partial(_named, key) if label else _genes
            found.append(Column(name, "String", text, genes))
    _refuse_twins([column.key for column in found])
    return found


def extras_of(model: Model) -> list[Extra]:
    """List the INFO keys that say where numbers of a model lie in the background of its bundle."""
    if model.calibration is None:
        return []
    columns = columns_of(model)
    found = [
        extra
        for key, column in compared(model).items()
        for extra in model.calibration.extras(
            model.tag, key, meaning(model, column), upper=column.way == "distance"
        )
    ]
    _refuse_twins([*(x.key for x in columns), *(x.key for x in found)])
    return found


def compared(model: Model) -> dict[str, Column]:
    """List the INFO keys that can be compared with a background, by their names without the tag."""
    return {
        column.key.removeprefix(f"{model.tag}_"): column
        for column in columns_of(model)
        if column.way and column.kind == "Float"
    }


def meaning(model: Model, column: Column) -> str:
    """Say how the numbers of an INFO key are made, without the name and version of the model."""
    card = model.bundle.card
    text = column.description.replace(f"; model {card.name} {card.version}, ", "; ")
    if column.choice:
        text += f"; tracks {column.choice}"
    if model.channels is not None:
        text += "".join(f"; {kind} {name}" for kind, name in model.channels.files.items())
    return text


def _refuse_twins(keys: Iterable[str]) -> None:
    """Refuse a track whose name makes a key that the model has already."""
    for key, count in Counter(keys).most_common(1):
        if count > 1:
            raise UsageError(
                f"two columns would have the INFO key {key}, one for the name of its track; choose "
                "other tracks with --tracks-file, or other scores with -s"
            )


def _values(key: str, result: Result) -> list[bytes]:
    return format_floats(result.values[key])


def _whole(key: str, result: Result) -> list[bytes]:
    return [b"%d" % x if np.isfinite(x) else b"." for x in result.values[key].tolist()]


def _genes(result: Result) -> list[bytes]:
    return _encoded(result.genes)


def _named(key: str, result: Result) -> list[bytes]:
    return _encoded(result.named[key])


def _encoded(names: Iterable[str]) -> list[bytes]:
    return [quote(name, safe=_PLAIN).encode() or b"." for name in names]


def _track(key: str, track: int, result: Result) -> list[bytes]:
    return format_floats(result.tracks[key][:, track])


def _top(key: str, names: Sequence[str], result: Result) -> list[bytes]:
    """Name the track of the largest absolute value; a dot where there is none."""
    encoded = [quote(name, safe=_PLAIN).encode() for name in names]
    values, known = result.tracks[key], np.isfinite(result.values[key])
    best = np.where(np.isfinite(values), np.abs(values), -1.0).argmax(axis=1)
    return [
        encoded[i] if good else b"." for i, good in zip(best.tolist(), known.tolist(), strict=True)
    ]


# What may stand in a value of INFO, beside letters, digits, _ . - ~
_PLAIN = "+/()@"


def status_key(model: Model) -> str:
    """Name the INFO key of the status."""
    return f"{model.tag}_STATUS"


def info_lines(
    models: Iterable[Model], version: str, *, calibrated: bool = True, sample: str | None = None
) -> list[bytes]:
    """Declare the INFO keys of a run, with or without those of backgrounds and of a sample."""
    lines = []
    for model in models:
        columns = columns_of(model)
        for column in columns:
            lines.append(info_line(column.key, "A", column.kind, column.description, version))
        for extra in extras_of(model) if calibrated else ():
            lines.append(info_line(extra.key, "A", "Float", extra.description, version))
        for column in haplotype_columns(columns, sample):
            lines.append(info_line(column.key, "A", column.kind, column.description, version))
        text = f"Whether each ALT has scores of {model.bundle.card.name}, or why not"
        lines.append(info_line(status_key(model), "A", "String", text, version))
    return lines


def _description(model: Model, spec: ScoreSpec) -> str:
    card = model.bundle.card
    strands = _STRANDS[_strands(model)]
    options = "".join(f", {key}={value}" for key, value in sorted(spec.options.items()))
    dense = f", dense, stride {model.dense}" if is_dense(model, spec) else ""
    return (
        f"{spec.score.formula[spec.objective]}; model {card.name} {card.version}, "
        f"{_window(model)}, {strands}{options}{dense}"
    )


def model_lines(models: Iterable[Model], tf32: bool) -> list[bytes]:
    """Say which models were used, and how."""
    lines = []
    for model in models:
        card = model.bundle.card
        runner = model.runners[0]
        fields: dict[str, object] = {
            "Name": card.name,
            "Version": card.version,
            "Sha256": model.bundle.digest,
            "Context": card.context,
            "Strands": _strands(model),
            "Scores": ",".join(spec.key for spec in model.scores),
            "Circular": ",".join(sorted(model.circular)) or "none",
            "Device": runner.device.kind,
            "Precision": card.precision,
        }
        if len(model.bundle.graphs) > 1:
            fields["Replicates"] = len(model.bundle.graphs)
        if model.dense:
            fields["Mode"] = f"dense, stride {model.dense}"
        if model.tracks is not None:
            fields["Tracks"] = _named_in_short(model.tracks.names)
        elif chosen := _chosen_sites(model):
            fields["Tracks"] = chosen
        genes = model.genes if model.framed is None else model.framed
        if genes is not None and not Path(genes.path).is_relative_to(model.bundle.path):
            fields |= {"Genes": Path(genes.path).name, "GenesSha256": genes.digest[:_SHORT]}
        if model.channels is not None:
            fields |= {kind.capitalize(): name for kind, name in model.channels.files.items()}
        if runner.device.kind == "cuda":
            fields |= {"TF32": int(tf32), "ConvAlgoSearch": "HEURISTIC"}
        lines.append(structured_line("glm_annotateModel", model.tag.lower(), fields))
    return lines


def _chosen_sites(model: Model) -> str:
    """Tell choices of the tracks apart that tell how much a base is used as a splice site."""
    if model.splice is None or model.splice.paired:
        return ""
    return _named_in_short([str(column) for column in model.splice.columns])


def _named_in_short(names: Sequence[str]) -> str:
    """Tell one choice of tracks from another: their number, and part of the sha256 of all names."""
    return f"{len(names)} {sha256(chr(10).join(names).encode()).hexdigest()[:_SHORT]}"


_STRANDS = {
    "both": "both strands averaged", "forward": "forward strand", "gene": "strand of the gene",
}  # fmt: skip


def _strands(model: Model) -> str:
    if model.framed is not None:
        return "gene"
    return "both" if len(model.strands) == 2 else "forward"


def _window(model: Model) -> str:
    card = model.bundle.card
    if model.exons is not None:
        return f"exons with {model.exons.before} and {model.exons.behind} bp of their introns"
    return f"window {card.context} bp" + (" at most" if card.window.kind == "dynamic" else "")


def statuses(model: Model, result: Result) -> list[str]:
    """Give the status of every allele."""
    reasons = [result.reasons[spec.key] for spec in model.scores]
    columns = np.stack([result.skip, *reasons], axis=1)
    kinds, inverse = np.unique(columns, axis=0, return_inverse=True)
    names = [_status(kind, model.scores) for kind in kinds]
    return [names[i] for i in inverse.reshape(-1).tolist()]


def _status(kind: Ints, scores: Sequence[ScoreSpec]) -> str:
    whole, *single = kind.tolist()
    if whole:
        return str(SKIPS[whole - 1])
    pairs = [
        f"{spec.key}:{SKIPS[code - 1]}" for spec, code in zip(scores, single, strict=True) if code
    ]
    return "|".join(pairs) or SCORED


def has_number(model: Model, result: Result) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Say which alleles have a number in at least one score, shape (n,)."""
    columns = [np.isfinite(result.values[spec.key]) for spec in model.scores]
    return np.asarray(np.any(columns, axis=0))


def numbers_in(texts: Sequence[bytes]) -> Floats:
    """Read the numbers of an INFO key as they are written, NaN for a dot, shape (n,)."""
    return np.array([b"nan" if x == b"." else x for x in texts], dtype="S").astype(np.float64)


class FieldWriter:
    """Turns scored chunks into INFO text and table rows, and counts what it saw.

    Attributes:
        keys: INFO keys, in order.
        status_counts: Alleles by status, by tag.
        unscored: Alleles without any number, by tag.
    """

    def __init__(self, models: Sequence[Model], sample: str | None = None) -> None:
        self.models = models
        self._columns = [
            (found := columns_of(model), extras_of(model), haplotype_columns(found, sample))
            for model in models
        ]
        self.keys = [
            key
            for model, parts in zip(models, self._columns, strict=True)
            for key in (*(x.key for part in parts for x in part), status_key(model))
        ]
        for model in models:
            if model.calibration is not None:
                ways = {key: meaning(model, column) for key, column in compared(model).items()}
                model.calibration.tell(model.tag, ways)
        self.status_counts: dict[str, Counter[str]] = {m.tag: Counter() for m in models}
        self.unscored: Counter[str] = Counter()
        self.records = self.alleles = self.records_without_alt = 0
        self._template = b";".join(key.encode() + b"=%b" for key in self.keys)

    def columns(self, scored: Scored) -> list[list[bytes]]:
        """Give the text of every key, allele by allele, and count."""
        out: list[list[bytes]] = []
        for model, (columns, extras, phased) in zip(self.models, self._columns, strict=True):
            result = scored.results[model.tag]
            cells = [column.read(result) for column in columns]
            known = has_number(model, result)
            if taken := scored.taken.get(model.tag):
                known[taken.alleles] = True
                for i, row in zip(taken.alleles.tolist(), taken.texts, strict=True):
                    for column, text in zip(cells, row, strict=True):
                        column[i] = text
            by_key = {column.key: cell for column, cell in zip(columns, cells, strict=True)}
            for extra in extras:
                numbers = extra.make(numbers_in(by_key[extra.source]), scored.alleles)
                by_key[extra.key] = format_floats(numbers)
            by_key |= {x.key: x.read(scored.haplotypes[model.tag]) for x in phased}
            texts = statuses(model, result)
            out += [*by_key.values(), [text.encode() for text in texts]]
            self.status_counts[model.tag].update(texts)
            self.unscored[model.tag] += int((~known).sum())
        return out

    def additions(self, scored: Scored, columns: Sequence[Sequence[bytes]]) -> list[bytes]:
        """Join the text of every key into one addition a record; empty where there is no ALT."""
        records = len(scored.chunk)
        counts = np.bincount(scored.alleles.record, minlength=records)
        self.records += records
        self.alleles += len(scored.alleles)
        self.records_without_alt += int((counts == 0).sum())
        if (counts == 1).all():
            return self.by_allele(columns)
        ends = np.cumsum(counts)
        return [
            self._template % tuple(b",".join(column[end - n : end]) for column in columns)
            if n
            else b""
            for end, n in zip(ends.tolist(), counts.tolist(), strict=True)
        ]

    def by_allele(self, columns: Sequence[Sequence[bytes]]) -> list[bytes]:
        """Join the text of every key into one addition an allele."""
        return [self._template % row for row in zip(*columns, strict=True)]

    def table_head(self) -> bytes:
        """Give the first line of the table: one row an allele."""
        return ("\t".join(("chrom", "pos", "id", "ref", "alt", *self.keys)) + "\n").encode()

    def table_rows(self, scored: Scored, columns: Sequence[Sequence[bytes]]) -> bytes:
        """Give the table rows of a chunk's alleles."""
        rows = zip(self.sites(scored), zip(*columns, strict=True), strict=True)
        return b"".join(b"\t".join((*site, *values)) + b"\n" for site, values in rows)

    def sites(self, scored: Scored) -> Iterator[tuple[bytes, ...]]:
        """Give contig, position, ID, REF and ALT of a chunk's alleles, as in the VCF."""
        chunk = scored.chunk
        for chrom, line, ref, alts in zip(
            chunk.chroms, chunk.lines, chunk.refs, chunk.alts, strict=True
        ):
            if alts == b".":
                continue
            _, pos, name, _ = line.split(b"\t", 3)
            for alt in alts.split(b","):
                yield chrom, pos, name, ref, alt
