"""Labelled alleles: a VCF in, one row for each ALT out, and what its INFO keys say of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from glm_annotate.answers import Floats
from glm_annotate.errors import InputError, UsageError

SiteCell = tuple[str, int, str, str]
Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Declared:
    """An INFO key of a header: how many values it has, and of what type."""

    number: str
    kind: str

    @property
    def is_score(self) -> bool:
        """Whether it holds one number for each ALT."""
        return self.number == "A" and self.kind in ("Float", "Integer")

    @property
    def is_number(self) -> bool:
        """Whether its values are numbers."""
        return self.kind in ("Float", "Integer")


@dataclass(frozen=True, slots=True)
class Table:
    """ALT alleles of a VCF, one a row.

    Attributes:
        path: Of the file.
        declared: All INFO keys of its header.
        models: Fields of its `##glm_annotateModel` lines, by tag.
        sites: Contig, position (1-based), REF and ALT.
        info: Values by key, None where an allele has none.
    """

    path: str
    declared: dict[str, Declared]
    models: dict[str, dict[str, str]]
    sites: list[SiteCell]
    info: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.sites)

    def texts(self, key: str) -> list[str]:
        """Give the values of a key as text; empty where there is none."""
        return ["" if x is None else _text(x) for x in self.info[key]]

    def numbers(self, key: str) -> Floats:
        """Give the values of a key as numbers, NaN where there is none, shape (n,).

        Raises:
            InputError: Its type is text.
        """
        if not self.declared[key].is_number:
            raise InputError(
                f"{self.path}: INFO {key} is {self.declared[key].kind}, not numbers; keys of "
                f"numbers: {_listed(k for k, x in self.declared.items() if x.is_number)}"
            )
        found = [math.nan if x is None else float(x) for x in self.info[key]]
        if self.declared[key].kind == "Float":
            # Of 32 bits; as they were written, 0.1 is not below 0.1.
            found = [float(f"{x:.7g}") for x in found]
        return np.array(found)


def read_table(path: str, keys: Sequence[str] | None) -> Table:
    """Read the alleles of a VCF or BCF.

    Args:
        path: Of the file.
        keys: INFO keys to read; None: all.

    Raises:
        InputError: It cannot be read, has no such key, no allele, or a record's values do not fit
            its alleles.
    """
    import pysam

    from glm_annotate.header import fields_of

    pysam.set_verbosity(0)  # htslib's own lines would come on top of ours
    try:
        with pysam.VariantFile(path) as file:
            declared = {
                name: Declared(str(field.number), str(field.type))
                for name, field in file.header.info.items()
            }
            for key in keys or ():
                if key not in declared:
                    raise InputError(f"{path}: no INFO key {key}; it has {_listed(declared)}")
            wanted = list(declared) if keys is None else list(dict.fromkeys(keys))
            lines = (str(record).rstrip("\n").encode() for record in file.header.records)
            parsed = [x for x in map(fields_of, lines) if x and x[0] == b"glm_annotateModel"]
            sites: list[SiteCell] = []
            info: dict[str, list[Any]] = {key: [] for key in wanted}
            for record in file:
                alts = record.alts or ()
                sites += [(record.chrom, record.pos, str(record.ref), alt) for alt in alts]
                for key in wanted:
                    info[key] += _values(path, record, key, declared[key].number, len(alts))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as VCF or BCF ({error})") from error
    if not sites:
        raise InputError(f"{path}: no ALT allele in it; there is nothing to evaluate")
    models = {}
    for _, fields in parsed:
        texts = {k.decode(): v.decode() for k, v in fields.items()}
        models[texts.get("ID", "").upper()] = texts
    return Table(path, declared, models, sites, info)


def _values(path: str, record: Any, key: str, number: str, alts: int) -> list[Any]:
    """Give the value of every ALT: its own, or the one of the record."""
    if key not in record.info:
        return [None] * alts
    found = record.info[key]
    if number not in ("A", "R"):
        return [found] * alts
    values = list(found) if isinstance(found, tuple) else [found]
    values = values[1:] if number == "R" else values
    if len(values) != alts:
        raise InputError(
            f"{path}: {record.chrom}:{record.pos} has {len(values)} values in {key} for {alts} ALT "
            "alleles; mend the record"
        )
    return values


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(_text(x) for x in value)
    if isinstance(value, bool):
        return str(int(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _listed(names: Any) -> str:
    found = list(names)
    return (", ".join(found[:12]) + (", ..." if len(found) > 12 else "")) or "none"


@dataclass(frozen=True, slots=True)
class Labels:
    """What is known of every allele.

    Attributes:
        kind: `classes`: 1 positive, 0 negative; `numbers`: what was measured.
        values: NaN where an allele has no label, shape (n,).
        reasons: Why; empty where it has one.
        about: One line for the report.
    """

    kind: Literal["classes", "numbers"]
    values: Floats
    reasons: list[str]
    about: str


def read_labels(table: Table, key: str, positive: Names, negative: Names) -> Labels:
    """Turn an INFO key into labels.

    Args:
        table: The alleles.
        key: Of the label.
        positive: Its values that make the positive class; none: it holds numbers.
        negative: Those of the negative class; none: all others.

    Raises:
        UsageError: The key holds text and no class is named, or a class is empty.
    """
    if not positive:
        if negative:
            raise UsageError(f"--negative {','.join(negative)}: needs --positive VALUE")
        if not table.declared[key].is_number:
            seen = list(dict.fromkeys(x for x in table.texts(key) if x))
            raise UsageError(
                f"--label {key}: holds {_listed(seen)}; say which are the positive class: "
                f"--positive {seen[0] if seen else 'VALUE'}"
            )
        numbers = table.numbers(key)
        numbers = np.where(np.isfinite(numbers), numbers, np.nan)
        reasons = ["" if known else f"no {key}" for known in np.isfinite(numbers).tolist()]
        return Labels("numbers", numbers, reasons, f"numbers of INFO {key}")
    texts = table.texts(key)
    if table.declared[key].kind == "Flag":
        texts = [text or "0" for text in texts]
    if both := set(positive) & set(negative):
        raise UsageError(f"--negative {min(both)}: is of the positive class too")
    values, reasons = np.full(len(texts), np.nan), [""] * len(texts)
    for i, text in enumerate(texts):
        if text in positive:
            values[i] = 1.0
        elif text and (text in negative or not negative):
            values[i] = 0.0
        else:
            reasons[i] = f"{key} of neither class" if text else f"no {key}"
    for name, number, names in (("positive", 1.0, positive), ("negative", 0.0, negative)):
        if not (values == number).any():
            raise UsageError(
                f"--{name} {','.join(names)}: no allele is of the {name} class; {key} holds "
                f"{_listed(dict.fromkeys(x for x in texts if x))}"
            )
    others = ", ".join(negative) if negative else "any other"
    return Labels(
        "classes", values, reasons, f"INFO {key}: positive {', '.join(positive)}; negative {others}"
    )


def reason_of(status: str, key: str) -> str:
    """Say why an allele has no number, by the status of its model.

    Args:
        status: As in INFO `<TAG>_STATUS`.
        key: Of the score, without the tag.
    """
    for part in status.split("|"):
        score, colon, reason = part.partition(":")
        if colon and (key == score or key.startswith(f"{score}_")):
            return reason
    return "no value" if not status or ":" in status or status == "SCORED" else status
