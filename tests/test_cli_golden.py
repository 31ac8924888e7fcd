"""One VCF with every kind of record, through every format, against the slow oracle.

The golden file says of each ALT which status it must have (WHY) or which haplotype a symbolic ALT
means (SAME); the numbers come from `oracle.py`. The records around our keys must be the input's.
"""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_kit import GOLDEN, call, header_of, records_of, without_ours
from oracle import Oracle

from glm_annotate.testing import toy_bundle

VCF = GOLDEN / "every_kind.vcf"
# As asked for, and the INFO key.
SCORES = {
    "LLR": "TOY_LLR",
    "PLLR": "TOY_PLLR",
    "WTLLR": "TOY_WTLLR",
    "ENT": "TOY_ENT",
    "EMB_COS": "TOY_EMB_COS",
    "EMB_L2:pool=window:k=7": "TOY_EMB_L2_WINDOW7",
    "EMB_DOT:pool=all": "TOY_EMB_DOT_ALL",
}
KEYS = [*SCORES.values(), "TOY_STATUS"]
Expected = list[list[dict[str, float | str]]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    shutil.copy(GOLDEN / "genome.fa", folder)
    toy_bundle("wide", folder / "toy", context=24, anchor=12, circular=("chrM",))
    return folder


@pytest.fixture(scope="module")
def options(home: Path) -> list[object]:
    asked = ",".join(SCORES)
    return ["-f", home / "genome.fa", "-m", home / "toy", "-s", asked, "--no-version", "--force"]


@pytest.fixture(scope="module")
def expected(home: Path) -> Expected:
    """What the oracle and the golden file say of every ALT, by key, in record order."""
    oracle = Oracle(home / "toy", home / "genome.fa")
    out: Expected = []
    for record in records_of(VCF.read_text()):
        blank = ["."] * len(record.alts)
        whys, sames = (
            record.per_alt(key) if key in record.info else blank for key in ("WHY", "SAME")
        )
        chrom, pos, ref, _ = record.site
        row = []
        for alt, why, same in zip(record.alts, whys, sames, strict=True):
            values: dict[str, float | str] = dict.fromkeys(SCORES.values(), ".")
            if why == ".":
                place, old, new = (pos, ref, alt) if same == "." else same.split("_")
                found = {k: oracle.score(chrom, int(place), old, new, s) for s, k in SCORES.items()}
                reasons = [
                    f"{k.removeprefix('TOY_')}:{x}" for k, x in found.items() if isinstance(x, str)
                ]
                values |= {k: x for k, x in found.items() if not isinstance(x, str)}
                why = "|".join(reasons) or "SCORED"
            row.append(values | {"TOY_STATUS": why})
        out.append(row)
    return out


def check(text: str | bytes, expected: Expected) -> None:
    records = records_of(text)
    assert len(records) == len(expected) == 38
    for record, row in zip(records, expected, strict=True):
        if not row:
            assert not any(key.startswith("TOY_") for key in record.info)
            continue
        for key in KEYS:
            written = record.per_alt(key)
            assert len(written) == len(row), (record.site, key)
            for text_value, values in zip(written, row, strict=True):
                value = values[key]
                same = (
                    text_value == value
                    if isinstance(value, str)
                    else math.isclose(float(text_value), value, rel_tol=1e-5, abs_tol=2e-6)
                )
                assert same, (record.site, key, text_value, value)


def test_the_golden_file_has_every_kind(expected: Expected) -> None:
    seen = {str(values["TOY_STATUS"]) for row in expected for values in row}
    assert seen == {
        *("SCORED", "LLR:INDEL|WTLLR:INDEL", "REF_MISMATCH", "CONTIG_MISSING", "SYMBOLIC"),
        *("SPANNING", "BREAKEND", "AMBIGUOUS", "TOO_LONG", "OFF_CONTIG", "NO_CHANGE"),
    }


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_text_to_text(ending: bytes, home: Path, options: list[object], expected: Expected) -> None:
    source, out = home / "in.vcf", home / "out.vcf"
    source.write_bytes(VCF.read_bytes().replace(b"\n", ending))
    assert call("vcf", source, *options, "-o", out) == 0
    written = out.read_bytes()
    check(written, expected)
    assert without_ours(written) == source.read_bytes()
    assert written.count(ending) == written.count(b"\n")


def test_our_keys_come_last_and_in_order(home: Path, options: list[object]) -> None:
    assert call("vcf", VCF, *options, "-o", home / "order.vcf") == 0
    for record in records_of((home / "order.vcf").read_text()):
        if record.alts:
            assert list(record.info)[-len(KEYS) :] == KEYS
            own = [key for key in record.info if not key.startswith("TOY_")]
            assert len(own) + len(KEYS) == len(record.info)


@pytest.mark.parametrize("kind", ["z", "u", "b"])
def test_other_formats_hold_the_same(
    kind: str, home: Path, options: list[object], expected: Expected, bcftools: str
) -> None:
    out = home / {"z": "out.vcf.gz", "u": "out-u.bcf", "b": "out.bcf"}[kind]
    assert call("vcf", VCF, *options, "-O", kind, "-o", out, *(["-W"] if kind != "u" else [])) == 0

    def ask(*args: object) -> str:
        command = [bcftools, *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    check(ask("view", "--no-version", out), expected)
    rows = ask("query", "-f", "%TOY_LLR|%TOY_STATUS\n", out).splitlines()
    for line, row in zip(rows, expected, strict=True):
        number, status = line.split("|", 1)
        if row:
            assert status == ",".join(str(x["TOY_STATUS"]) for x in row)
            assert [x == "." for x in number.split(",")] == [x["TOY_LLR"] == "." for x in row]
    if kind == "z":
        # The text inside is what text output is.
        assert call("vcf", VCF, *options, "-o", home / "plain.vcf") == 0
        inside = subprocess.run(["gzip", "-dc", out], capture_output=True, check=True).stdout
        assert inside == (home / "plain.vcf").read_bytes()
    # Without our keys bcftools shows what it shows of the input; indexes serve both.
    removed = ask("annotate", "--no-version", "-x", ",".join(f"INFO/{k}" for k in KEYS), out)
    plain = [line for line in removed.splitlines() if not line.startswith("##glm_annotate")]
    assert plain == ask("view", "--no-version", VCF).splitlines()
    if kind != "u":
        assert ask("view", "-H", out, "chr2:40-41").count("\n") == 3


def test_filters_count_the_same_in_text_and_bcf(
    home: Path, options: list[object], expected: Expected, bcftools: str
) -> None:
    below = [
        row for row in expected if any(float(x["TOY_LLR"]) < -1 for x in row if x["TOY_LLR"] != ".")
    ]
    for name in ("filter.vcf", "filter.vcf.gz", "filter.bcf"):
        assert call("vcf", VCF, *options, "-o", home / name) == 0
        command = [bcftools, "view", "-H", "-i", "TOY_LLR<-1", str(home / name)]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert found.count("\n") == len(below) > 0


@pytest.mark.parametrize("given", ["text", "bgzf", "gzip", "bcf"])
def test_every_input_format_through_a_pipe(
    given: str,
    home: Path,
    options: list[object],
    expected: Expected,
    bcftools: str,
    run_cli: Callable[..., Any],
) -> None:
    commands = {
        "text": ["cat", VCF],
        "bgzf": ["bgzip", "-c", VCF],
        "gzip": ["gzip", "-c", VCF],
        "bcf": [bcftools, "view", "--no-version", "-Ob", VCF],
    }
    data = subprocess.run(commands[given], capture_output=True, check=True).stdout
    done = run_cli("-q", "vcf", *options, stdin=data, text=False, check=True)
    check(done.stdout, expected)
    if given != "bcf":
        assert without_ours(done.stdout) == VCF.read_bytes()
    assert (b"gzip, not bgzip" in done.stderr) == (given == "gzip")
    assert done.stderr == b"" or given == "gzip"


def test_model_line_and_descriptions_survive_bcftools(
    home: Path, options: list[object], bcftools: str
) -> None:
    assert call("vcf", VCF, *options, "-o", home / "lines.bcf") == 0
    command = [bcftools, "view", "-h", "--no-version", str(home / "lines.bcf")]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert call("vcf", VCF, *options, "-o", home / "lines.vcf") == 0
    ours = [x for x in header_of((home / "lines.vcf").read_text()) if "glm_annotate" in x]
    assert len(ours) == len(KEYS) + 1
    assert set(ours) <= set(found.splitlines())
