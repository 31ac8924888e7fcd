"""INFO fields: the header lines that declare them, their values by record, and their counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from glm_annotate.annotate import Model, Result, Scored
from glm_annotate.answers import Ints
from glm_annotate.header import info_line, structured_line
from glm_annotate.scores import ScoreSpec
from glm_annotate.variants import SKIPS
from glm_annotate.vcf import format_floats

SCORED = "SCORED"


def score_key(model: Model, spec: ScoreSpec) -> str:
    """Name the INFO key of a score."""
    return f"{model.tag}_{spec.key}"


def status_key(model: Model) -> str:
    """Name the INFO key of the status."""
    return f"{model.tag}_STATUS"


def info_keys_of(models: Iterable[Model]) -> list[str]:
    """List all INFO keys that a run writes, in order."""
    return [
        key
        for model in models
        for key in (*(score_key(model, spec) for spec in model.scores), status_key(model))
    ]


def info_lines(models: Iterable[Model], version: str) -> list[bytes]:
    """Declare the INFO keys of a run."""
    lines = []
    for model in models:
        card = model.bundle.card
        setting = (
            f"model {card.name} {card.version}, {_window(model)}, "
            f"{'both strands averaged' if len(model.strands) == 2 else 'forward strand'}"
        )
        for spec in model.scores:
            options = "".join(f", {key}={value}" for key, value in sorted(spec.options.items()))
            text = f"{spec.score.formula[spec.objective]}; {setting}{options}"
            lines.append(info_line(score_key(model, spec), "A", "Float", text, version))
        text = f"Whether each ALT has scores of {card.name}, or why not"
        lines.append(info_line(status_key(model), "A", "String", text, version))
    return lines


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
            "Strands": "both" if len(model.strands) == 2 else "forward",
            "Scores": ",".join(spec.key for spec in model.scores),
            "Circular": ",".join(sorted(model.circular)) or "none",
            "Device": runner.device.kind,
            "Precision": card.precision,
        }
        if model.channels is not None:
            fields |= {kind.capitalize(): name for kind, name in model.channels.files.items()}
        if runner.device.kind == "cuda":
            fields |= {"TF32": int(tf32), "ConvAlgoSearch": "HEURISTIC"}
        lines.append(structured_line("glm_annotateModel", model.tag.lower(), fields))
    return lines


def _window(model: Model) -> str:
    card = model.bundle.card
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


class FieldWriter:
    """Turns scored chunks into INFO text and table rows, and counts what it saw.

    Attributes:
        keys: INFO keys, in order.
        status_counts: Alleles by status, by tag.
        unscored: Alleles without any number, by tag.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        self.models = models
        self.keys = info_keys_of(models)
        self.status_counts: dict[str, Counter[str]] = {m.tag: Counter() for m in models}
        self.unscored: Counter[str] = Counter()
        self.records = self.alleles = self.records_without_alt = 0
        self._template = b";".join(key.encode() + b"=%b" for key in self.keys)

    def columns(self, scored: Scored) -> list[list[bytes]]:
        """Give the text of every key, allele by allele, and count."""
        out: list[list[bytes]] = []
        for model in self.models:
            result = scored.results[model.tag]
            out += [format_floats(result.values[spec.key]) for spec in model.scores]
            texts = statuses(model, result)
            out.append([text.encode() for text in texts])
            self.status_counts[model.tag].update(texts)
            self.unscored[model.tag] += int((~has_number(model, result)).sum())
        return out

    def additions(self, scored: Scored, columns: Sequence[Sequence[bytes]]) -> list[bytes]:
        """Join the text of every key into one addition a record; empty where there is no ALT."""
        records = len(scored.chunk)
        counts = np.bincount(scored.alleles.record, minlength=records)
        self.records += records
        self.alleles += len(scored.alleles)
        self.records_without_alt += int((counts == 0).sum())
        if (counts == 1).all():
            return [self._template % row for row in zip(*columns, strict=True)]
        ends = np.cumsum(counts)
        return [
            self._template % tuple(b",".join(column[end - n : end]) for column in columns)
            if n
            else b""
            for end, n in zip(ends.tolist(), counts.tolist(), strict=True)
        ]

    def table_head(self) -> bytes:
        """Give the first line of the table: one row an allele."""
        return ("\t".join(("chrom", "pos", "id", "ref", "alt", *self.keys)) + "\n").encode()

    def table_rows(self, scored: Scored, columns: Sequence[Sequence[bytes]]) -> bytes:
        """Give the table rows of a chunk's alleles."""
        rows = zip(self._sites(scored), zip(*columns, strict=True), strict=True)
        return b"".join(b"\t".join((*site, *values)) + b"\n" for site, values in rows)

    def _sites(self, scored: Scored) -> Iterator[tuple[bytes, ...]]:
        chunk = scored.chunk
        for chrom, line, ref, alts in zip(
            chunk.chroms, chunk.lines, chunk.refs, chunk.alts, strict=True
        ):
            if alts == b".":
                continue
            _, pos, name, _ = line.split(b"\t", 3)
            for alt in alts.split(b","):
                yield chrom, pos, name, ref, alt
