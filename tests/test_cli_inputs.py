"""Where records and contigs come from: tables, one allele, pipes, names in other spellings."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_kit import COLUMNS, HEAD, call, header_of, records_of, statuses, write_vcf
from engine import write_fasta

from glm_annotate.testing import toy_bundle

GENOME = {"chr1": "ACGTTGCAAC" * 6, "chrM": "GATTACAGATCC" * 3}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_fasta(folder / "genome.fa", GENOME)
    toy_bundle("markov", folder / "toy", context=16)
    return folder


@pytest.fixture
def options(home: Path) -> list[object]:
    return ["-f", home / "genome.fa", "-m", home / "toy", "--no-version"]


Annotate = Callable[..., str]


@pytest.fixture
def annotate(options: list[object], capfd: pytest.CaptureFixture[str]) -> Annotate:
    """Annotate to stdout; what went to stderr is in `annotate.err`."""

    def run(source: object, *more: object) -> str:
        capfd.readouterr()
        assert call("vcf", source, *options, *more) == 0
        out, err = capfd.readouterr()
        run.err = err  # type: ignore[attr-defined]
        return out

    return run


# Tables and alleles


@pytest.mark.parametrize(
    "table",
    [
        "chr1\t7\tC\tA\nchrM\t1\tG\tA,T\n",
        "chrom\tpos\tref\talt\nchr1\t7\tC\tA\nchrM\t1\tG\tA,T\n",
        "#name\tALT\tREF\tPOS\tCHROM\nx\tA\tC\t7\tchr1\ny\tA,T\tG\t1\tchrM\n",
        "chr1\t7\tC\tA\r\nchrM\t1\tG\tA,T",
    ],
)
def test_a_table_is_scored_like_its_vcf(table: str, tmp_path: Path, annotate: Annotate) -> None:
    (tmp_path / "in.tsv").write_text(table)
    source = write_vcf(tmp_path / "in.vcf", ["chr1 7 C A", "chrM 1 G A,T"])
    found, expected = annotate(tmp_path / "in.tsv"), annotate(source)
    assert records_of(found) == records_of(expected)
    assert header_of(found)[0] == "##fileformat=VCFv4.3"
    assert header_of(found)[1:] == header_of(expected)[1:]


def test_one_allele(tmp_path: Path, annotate: Annotate) -> None:
    source = write_vcf(tmp_path / "in.vcf", ["chr1 7 C A,T"])
    assert records_of(annotate("chr1:7:C:A,T")) == records_of(annotate(source))
    assert statuses(annotate("chr1:7:C:<DEL>")) == {("chr1", "7", "C", "<DEL>"): ["SYMBOLIC"]}
    assert statuses(annotate("chr1:8:C:A")) == {("chr1", "8", "C", "A"): ["REF_MISMATCH"]}


def test_one_allele_as_bcf(tmp_path: Path, options: list[object], bcftools: str) -> None:
    assert call("vcf", "1:7:C:A", *options, "-o", tmp_path / "one.bcf") == 0
    command = [bcftools, "query", "-f", "%CHROM %POS %TOY_STATUS", str(tmp_path / "one.bcf")]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert found == "1 7 SCORED"


def test_stdin_is_the_default_without_a_terminal(
    home: Path, options: list[object], tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    text = write_vcf(tmp_path / "in.vcf", ["chr1 7 C A"]).read_text()
    named = run_cli("vcf", "-", *options, stdin=text, check=True)
    silent = run_cli("vcf", *options, stdin=text, check=True)
    assert named.stdout == silent.stdout
    assert "TOY_STATUS=SCORED" in silent.stdout
    assert "1 records, 1 alleles" in silent.stderr


def test_a_terminal_without_in_gets_the_usage(options: list[object]) -> None:
    master, terminal = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "glm_annotate", "vcf", *map(str, options)],
            stdin=terminal,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
    finally:
        os.close(master)
        os.close(terminal)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Usage: glm-annotate vcf")
    assert "name IN, or - to read stdin" in done.stderr


def test_an_empty_vcf_and_one_without_alts(tmp_path: Path, annotate: Annotate) -> None:
    empty = annotate(write_vcf(tmp_path / "empty.vcf", []))
    assert records_of(empty) == []
    assert "0 records, 0 alleles" in annotate.err  # type: ignore[attr-defined]
    source = write_vcf(tmp_path / "refs.vcf", ["chr1 7 C .", "chr1 8 A . DP=1"])
    assert records_of(annotate(source)) == records_of(source.read_text())
    assert "2 records, 0 alleles, 2 records without ALT" in annotate.err  # type: ignore[attr-defined]


def test_order_does_not_matter(tmp_path: Path, annotate: Annotate) -> None:
    rows = ["chrM 20 G C", "chr1 40 C G", "chr1 7 C A", "chrM 1 G A", "chr1 7 C T"]
    found = records_of(annotate(write_vcf(tmp_path / "in.vcf", rows)))
    turned = records_of(annotate(write_vcf(tmp_path / "turned.vcf", rows[::-1])))
    assert [r.site for r in found] == [tuple(x.split()) for x in rows]
    assert found == turned[::-1]


def test_lines_keep_every_byte(tmp_path: Path, options: list[object]) -> None:
    odd = (
        b"##fileformat=VCFv4.1\n##x=\xff\xe9\n" + COLUMNS.encode() + b"\n"
        b"chr1\t007\tid;\xe9\tC\tA\t1e-3\tPASS;\tA=1;;B\n"
        b"chr1\t7\t.\tC\tA\t.\t.\tA=1;\n"
        b"chr1\t7\t.\tC\tA\t.\t.\t."
    )
    (tmp_path / "in.vcf").write_bytes(odd)
    assert call("vcf", tmp_path / "in.vcf", *options, "-o", tmp_path / "out.vcf") == 0
    written = (tmp_path / "out.vcf").read_bytes()
    lines, before = written.splitlines(keepends=True), odd.splitlines(keepends=True)
    assert lines[0] == before[0]
    assert before[1] in lines
    values = lines[-1].split(b"\t")[7]
    assert values.startswith(b"TOY_LLR=")
    assert lines[-3] == before[3][:-1] + b";" + values + b"\n"
    assert lines[-2] == before[4][:-1] + values + b"\n"  # no second semicolon
    assert lines[-1] == before[5][:-1] + values


# Contig names


@pytest.mark.parametrize(
    ("fasta_names", "vcf_names"),
    [
        (("chr1", "chrM"), ("1", "MT")),
        (("1", "MT"), ("chr1", "chrM")),
        (("1", "M"), ("chr1", "MT")),
        (("chr1", "chrM"), ("chr1", "M")),
    ],
)
def test_names_in_other_spellings(
    fasta_names: tuple[str, str], vcf_names: tuple[str, str], home: Path, tmp_path: Path,
    annotate: Annotate, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    plain = annotate(write_vcf(tmp_path / "in.vcf", ["chr1 7 C A", "chrM 1 G A", "chr1 9 A C"]))
    fasta = write_fasta(tmp_path / "other.fa", dict(zip(fasta_names, GENOME.values(), strict=True)))
    one, m = vcf_names
    source = write_vcf(tmp_path / "spelled.vcf", [f"{one} 7 C A", f"{m} 1 G A", f"{one} 9 A C"])
    assert call("vcf", source, "-f", fasta, "-m", home / "toy", "--no-version") == 0
    out, err = capfd.readouterr()
    assert [r.info for r in records_of(out)] == [r.info for r in records_of(plain)]
    assert [r.site[0] for r in records_of(out)] == [one, m, one]
    contigs = [x for x in header_of(out) if x.startswith("##contig")]
    assert contigs == [f"##contig=<ID={one},length=60>", f"##contig=<ID={m},length=36>"]
    told = [line for line in err.splitlines() if "contig names" in line]
    pairs = zip(vcf_names, fasta_names, strict=True)
    listed = ", ".join(f"{a} is {b}" for a, b in pairs if a != b)
    assert told == [f"glm-annotate: contig names of VCF and FASTA: {listed}"]


def test_contig_map(tmp_path: Path, annotate: Annotate) -> None:
    pairs = tmp_path / "map.tsv"
    pairs.write_text("# VCF name, FASTA name\nNC_012920.1\tchrM\n1\tnowhere\n")
    rows = ["NC_012920.1 1 G A", "1 7 C A", "chr1 7 C A"]
    source = write_vcf(tmp_path / "in.vcf", rows)
    # The map goes before the alias table.
    found = annotate(source, "--contig-map", pairs)
    assert [x for r in statuses(found).values() for x in r] == [
        *("SCORED", "CONTIG_MISSING", "SCORED"),
    ]
    assert "##contig=<ID=NC_012920.1,length=36>" in header_of(found)
    without = annotate(source)
    assert [x for r in statuses(without).values() for x in r] == [
        *("CONTIG_MISSING", "SCORED", "SCORED"),
    ]


@pytest.mark.parametrize("text", ["chr1 1\n", "a\tb\tc\n", None])
def test_a_wrong_contig_map(
    text: str | None, tmp_path: Path, options: list[object], capfd: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / "map.tsv").write_text(text)
    assert call("vcf", "chr1:7:C:A", *options, "--contig-map", tmp_path / "map.tsv") == 2
    assert "--contig-map" in capfd.readouterr().err


def test_hg19s_chrm_is_not_mt(
    example_dir: Path, home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Known by an alias only and of another length: missing, not another base."""
    fasta = tmp_path / "hg19.fa"
    fasta.write_bytes((example_dir / "hg19.chrM.fa").read_bytes())
    head = HEAD.replace(COLUMNS, f"##contig=<ID=MT,length=16569>\n{COLUMNS}")
    source = write_vcf(tmp_path / "in.vcf", ["MT 73 A G"], head)
    assert call("vcf", source, "-f", fasta, "-m", home / "toy") == 0
    out, err = capfd.readouterr()
    assert statuses(out) == {("MT", "73", "A", "G"): ["CONTIG_MISSING"]}
    assert "16569 bases in the VCF's header and 16571 in the FASTA" in err
    assert "MT is" not in err


def test_logs_go_to_stderr_and_quiet_keeps_them_back(
    options: list[object], capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("-q", "vcf", "chr1:7:C:A", *options) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert call("vcf", "chr1:7:C:A", *options) == 0
    loud_out, loud_err = capfd.readouterr()
    assert loud_out == out
    assert all(line.startswith("glm-annotate: ") for line in loud_err.splitlines())
    assert "TOY:        1 SCORED" in loud_err
