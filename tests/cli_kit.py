"""What the tests of the command line share: runs in this process, and VCF text taken apart."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from glm_annotate.cli import run

GOLDEN = Path(__file__).parent / "golden"
COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
HEAD = f"##fileformat=VCFv4.2\n{COLUMNS}\n"
OURS = re.compile(rb"##(INFO=<ID=[A-Z0-9]+_|glm_annotate)")


def call(*arguments: object) -> int:
    """Run `glm-annotate ARGS` here; gives the exit code."""
    logger = logging.getLogger("glm_annotate")
    before = logger.handlers[:], logger.level, logger.propagate
    try:
        return run([str(x) for x in arguments])
    finally:
        logger.handlers[:], level, logger.propagate = before
        logger.setLevel(level)


def write_vcf(path: Path, records: list[str], head: str = HEAD) -> Path:
    """Write records as `CHROM POS REF ALT [INFO]`, spaces between."""
    lines = []
    for record in records:
        chrom, pos, ref, alt, *info = record.split(" ")
        lines.append("\t".join([chrom, pos, ".", ref, alt, ".", ".", *(info or ["."])]) + "\n")
    path.write_text(head + "".join(lines))
    return path


@dataclass(frozen=True)
class Record:
    """A line of a VCF."""

    columns: list[str]

    @property
    def site(self) -> tuple[str, ...]:
        return tuple(self.columns[i] for i in (0, 1, 3, 4))

    @property
    def alts(self) -> list[str]:
        return [] if self.columns[4] == "." else self.columns[4].split(",")

    @property
    def info(self) -> dict[str, str]:
        pairs = (x.partition("=") for x in self.columns[7].split(";"))
        return {key: value for key, _, value in pairs}

    def per_alt(self, key: str) -> list[str]:
        return self.info[key].split(",")


def records_of(text: str | bytes) -> list[Record]:
    """Take the records of a VCF apart."""
    lines = (text.decode() if isinstance(text, bytes) else text).splitlines()
    return [Record(line.split("\t")) for line in lines if line and not line.startswith("#")]


def header_of(text: str | bytes) -> list[str]:
    lines = (text.decode() if isinstance(text, bytes) else text).splitlines()
    return [line for line in lines if line.startswith("#")]


def without_ours(text: bytes, tags: tuple[str, ...] = ("TOY",)) -> bytes:
    """Take our INFO keys and header lines off; what is left must be the input, byte for byte."""
    ours = re.compile(rb"(?:%b)_[A-Z0-9_]+=" % "|".join(tags).encode())
    out = []
    for line in text.splitlines(keepends=True):
        if line.startswith(b"#"):
            out += [] if OURS.match(line) else [line]
            continue
        columns = line.split(b"\t")
        body = columns[7].rstrip(b"\r\n")
        kept = b";".join(x for x in body.split(b";") if not ours.match(x)) or b"."
        columns[7] = kept + columns[7][len(body) :]
        out.append(b"\t".join(columns))
    return b"".join(out)


def statuses(text: str | bytes, tag: str = "TOY") -> dict[tuple[str, ...], list[str]]:
    """Give the status of every ALT by (CHROM, POS, REF, ALT)."""
    records = records_of(text)
    return {r.site: r.per_alt(f"{tag}_STATUS") for r in records if r.alts}
