"""Make an OpenCRAVAT annotator of a VCF that glm-annotate has scored.

    python build_data.py SCORED.vcf.gz [-o DIR] [--title TEXT]

Copies the module beside this script to DIR/glm_annotate (default: writes into the module
itself), writes its data/glm_annotate.sqlite, and sets the output columns of its yml to the fields
of the VCF. Needs Python alone. The VCF has to be on GRCh38, which OpenCRAVAT's positions are on.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

NAME = "glm_annotate"
HERE = Path(__file__).resolve().parent / NAME
TYPES = {"Float": ("float", "real"), "Integer": ("int", "integer"), "String": ("string", "text")}
BASES = re.compile("[ACGTN]+")
Value = str | int | float | None


class Field(NamedTuple):
    """An INFO field that glm-annotate wrote, one value an ALT."""

    key: str
    kind: str  # the VCF's Type
    description: str

    @property
    def column(self) -> str:
        """The name in the yml and in the table."""
        return self.key.lower()

    def value(self, text: str) -> Value:
        """Parse the value of one ALT."""
        if text == ".":
            return None
        return {"Float": float, "Integer": int, "String": unquote}[self.kind](text)


def read_lines(path: str) -> Iterator[str]:
    """Lines of a VCF, plain or (b)gzipped."""
    with open(path, "rb") as binary:
        packed = binary.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rt") if packed else open(path, encoding="utf-8") as lines:
        yield from lines


def read_fields(header: list[str]) -> list[Field]:
    """Fields that a header declares as written by glm-annotate, in its order."""
    found = []
    for line in header:
        match = re.match(
            r'##INFO=<ID=([^,]+),Number=A,Type=(\w+),Description="((?:[^"\\]|\\.)*)"(.*)>', line
        )
        if match and 'Source="glm_annotate"' in match[4]:
            found.append(Field(match[1], match[2], re.sub(r"\\(.)", r"\1", match[3])))
    if not found:
        sys.exit("no INFO field of the VCF is from glm-annotate: score it with `glm-annotate vcf`")
    return found


def contig(name: str) -> str:
    """OpenCRAVAT's spelling: chr1, chrX, chrM."""
    bare = name[3:] if name.startswith("chr") else name
    return "chrM" if bare == "MT" else f"chr{bare}"


def trim(pos: int, ref: str, alt: str, end_first: bool) -> tuple[int, str, str]:
    """Cut what both alleles share, at the end or at the beginning first; `-` for what is empty."""
    for at_end in (end_first, not end_first):
        n = 0
        for a, b in (
            zip(reversed(ref), reversed(alt), strict=False)
            if at_end
            else zip(ref, alt, strict=False)
        ):
            if a != b:
                break
            n += 1
        if at_end:
            ref, alt = ref[: len(ref) - n], alt[: len(alt) - n]
        else:
            pos, ref, alt = pos + n, ref[n:], alt[n:]
    return pos, ref or "-", alt or "-"


def rows(record: list[str], fields: list[Field]) -> Iterator[list[Value]]:
    """Rows of the table for each ALT of bases that one record has."""
    info = dict(item.partition("=")[::2] for item in record[7].split(";"))
    chrom, pos, ref = contig(record[0]), int(record[1]), record[3].upper()
    alts = record[4].upper().split(",")
    columns = [info.get(field.key, ".").split(",") for field in fields]
    for i, alt in enumerate(alts):
        if alt == ref or not BASES.fullmatch(ref) or not BASES.fullmatch(alt):
            continue
        values = [
            field.value(column[i]) if len(column) == len(alts) else None
            for field, column in zip(fields, columns, strict=False)
        ]
        # OpenCRAVAT's VCF converter cuts the beginning first, its other ones the end: beside
        # repeats that makes two spellings of one indel.
        for place in {trim(pos, ref, alt, False), trim(pos, ref, alt, True)}:
            yield [chrom, *place, *values]


def write_data(path: Path, source: str) -> tuple[list[Field], int]:
    """Write the table of all alleles of `source`; gives its fields and its number of rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    base = sqlite3.connect(new)
    header: list[str] = []
    fields: list[Field] = []
    insert = ""
    for line in read_lines(source):
        if line.startswith("#"):
            header.append(line.rstrip("\r\n"))
            continue
        if not fields:
            fields = read_fields(header)
            columns = "".join(f", {x.column} {TYPES[x.kind][1]}" for x in fields)
            base.execute(
                "create table score (chrom text not null, pos integer not null, ref text not null, "
                f"alt text not null{columns}, primary key (chrom, pos, ref, alt)) without rowid"
            )
            insert = f"insert or ignore into score values ({', '.join('?' * (4 + len(fields)))})"
        base.executemany(insert, rows(line.rstrip("\r\n").split("\t"), fields))
    if not fields:
        sys.exit(f"{source} has no records")
    (count,) = base.execute("select count(*) from score").fetchone()
    base.commit()
    base.close()
    new.replace(path)
    return fields, count


def output_columns(fields: list[Field]) -> str:
    """The part of the yml that describes the columns. JSON's strings are YAML's."""
    lines = ["output_columns:"]
    for field in fields:
        status = field.key.endswith("_STATUS")
        lines += [
            f"- name: {field.column}",
            f"  title: {json.dumps(field.key.replace('_', ' '))}",
            f"  type: {TYPES[field.kind][0]}",
            f"  desc: {json.dumps(field.description)}",
            f"  width: {110 if field.kind == 'String' else 80}",
            *(["  category: single", "  hidden: true"] if status else []),
        ]
    return "\n".join(lines) + "\n"


def write_module(folder: Path, fields: list[Field], title: str | None) -> None:
    """Copy the module to `folder` where it is another one, with the yml of these fields."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (f"{NAME}.py", f"{NAME}.md"):
        if folder != HERE:
            shutil.copyfile(HERE / name, folder / name)
    text = (HERE / f"{NAME}.yml").read_text(encoding="utf-8")
    text = re.sub(
        r"^output_columns:\n(?:[- ].*\n)+",
        lambda _: output_columns(fields),
        text,
        flags=re.MULTILINE,
    )
    if title:
        text = re.sub("^title: .*", lambda _: f"title: {json.dumps(title)}", text, flags=re.M)
    (folder / f"{NAME}.yml").write_text(text, encoding="utf-8")


def main() -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("scored", metavar="SCORED.vcf.gz")
    parser.add_argument("-o", "--output", metavar="DIR", help="where DIR/glm_annotate is made")
    parser.add_argument("--title", help="what OpenCRAVAT calls the columns' group")
    given = parser.parse_args()
    folder = Path(given.output).resolve() / NAME if given.output else HERE
    fields, count = write_data(folder / "data" / f"{NAME}.sqlite", given.scored)
    write_module(folder, fields, given.title)
    print(f"{folder}: {count} alleles, columns {', '.join(x.column for x in fields)}")


if __name__ == "__main__":
    main()
