"""Files that reports are made of: annotated VCFs, folders of bigWigs, and pages taken apart."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyBigWig

LENGTH = 5_000
# A sequence with a period that no test's window has, so that places are told apart.
SEQUENCE = ("ACGTTGCAAGCTCCGATAGGTCA" * 300)[:LENGTH]
HEAD = """\
##fileformat=VCFv4.3
##contig=<ID=c1,length=5000>
##INFO=<ID=CLASS,Number=1,Type=String,Description="what is known">
##INFO=<ID=TOY_LLR,Number=A,Type=Float,Description="a <b>ratio</b>",Source="glm_annotate",Version="0.1.0">
##INFO=<ID=TOY_PLLR,Number=A,Type=Float,Description="another",Source="glm_annotate",Version="0.1.0">
##INFO=<ID=TOY_STATUS,Number=A,Type=String,Description="why",Source="glm_annotate",Version="0.1.0">
##glm_annotateVersion=0.1.0
##glm_annotateCommand=glm-annotate vcf in.vcf -m toy; Date=Today
##glm_annotateModel=<ID=toy,Name="toy",Version="1.5",Sha256="0123456789abcdef",Context="512",Strands="both",Scores="LLR,PLLR">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO
"""  # noqa: E501


def write_fasta(folder: Path) -> Path:
    path = folder / "ref.fa"
    path.write_text(f">c1\n{SEQUENCE}\n")
    return path


def record(
    pos: int, alt: str, info: str, *, name: str = ".", ref: str = "", chrom: str = "c1"
) -> str:
    """Make a line; REF is the base of `SEQUENCE` unless it is given."""
    return f"{chrom}\t{pos}\t{name}\t{ref or SEQUENCE[pos - 1]}\t{alt}\t.\tPASS\t{info}\n"


def scores(llr: object, pllr: object, status: str = "SCORED") -> str:
    return f"TOY_LLR={llr};TOY_PLLR={pllr};TOY_STATUS={status}"


def write_vcf(path: Path, records: Sequence[str], head: str = HEAD) -> Path:
    path.write_text(head + "".join(records))
    return path


def write_bigwig(path: Path, start: int, values: Sequence[float], contig: str = "c1") -> Path:
    with pyBigWig.open(str(path), "w") as out:
        out.addHeader([(contig, LENGTH)])
        if values:
            out.addEntries(contig, start, values=[float(x) for x in values], span=1, step=1)
    return path


def write_tracks(folder: Path, rows: Sequence[tuple[str, ...]]) -> Path:
    """Write index.tsv of rows of chrom, pos, ref, alt, track, kind, file."""
    folder.mkdir(exist_ok=True)
    names = ("chrom", "pos", "ref", "alt", "track", "kind", "file")
    (folder / "index.tsv").write_text("".join("\t".join(x) + "\n" for x in (names, *rows)))
    return folder


def data_of(page: bytes) -> dict[str, Any]:
    """Read the data that a page holds."""
    match = re.search(rb'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match
    return json.loads(match[1])
