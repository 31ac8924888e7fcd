"""Other projects' VCF test files through the whole program: records come out, or one line says why.

Every file gets a FASTA that fits its REF alleles, so that most alleles get numbers.
"""

from __future__ import annotations

import gzip
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from cli_kit import call
from engine import write_fasta

from glm_annotate.testing import toy_bundle

LARGEST = 100_000  # bases of a contig that is made up
PLAIN = re.compile(rb"[ACGTacgt]+\Z")
OURS = re.compile(rb"TOY_LLR=([^;]*);TOY_PLLR=([^;]*);TOY_STATUS=([^;\r]*)\Z")
NUMBER = re.compile(rb"-?\d+(\.\d+)?(e[+-]\d+)?\Z")
CORPORA = ["hts-specs", "htslib", "bcftools", "vcf-validator"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_bundle("markov", tmp_path_factory.mktemp("toy") / "toy", context=16)


@pytest.fixture(scope="module", params=CORPORA)
def files(
    request: pytest.FixtureRequest, shared_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    folder = tmp_path_factory.mktemp(str(request.param))
    with tarfile.open(shared_dir / "data" / "vcf_corpora" / f"{request.param}.tar.xz") as tar:
        tar.extractall(folder, filter="data")
    return sorted(path for path in folder.rglob("*") if path.is_file())


def text_of(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def fitting_fasta(text: bytes, path: Path) -> Path:
    """Make contigs that have the file's REF alleles where they should be."""
    random = np.random.default_rng(1)
    contigs = {"other": bytearray(b"ACGT" * 10)}
    for line in text.split(b"\n"):
        row = line.split(b"\t")
        if line.startswith(b"#") or len(row) < 5 or not row[1].isdigit():
            continue
        start, ref = int(row[1]) - 1, row[3]
        name = row[0].decode("utf-8", "replace")
        if not 0 <= start < LARGEST or not PLAIN.match(ref) or not re.fullmatch(r"[\w.]+", name):
            continue
        bases = contigs.setdefault(name, bytearray())
        missing = start + len(ref) + 20 - len(bases)
        bases += bytes(random.choice(list(b"ACGT"), max(0, missing)).tolist())
        bases[start : start + len(ref)] = ref
    return write_fasta(path, {name: bases.decode() for name, bases in contigs.items()})


def check_text(before: bytes, after: bytes, where: Path) -> int:
    """Find nothing but our keys new in the output; gives the number of alleles with a number."""
    scored = 0
    old = [line for line in before.split(b"\n") if line and not line.startswith(b"#")]
    new = [line for line in after.split(b"\n") if line and not line.startswith(b"#")]
    assert len(old) == len(new), where
    for one, two in zip(old, new, strict=True):
        was, now = one.split(b"\t", 8), two.split(b"\t", 8)
        assert was[:7] + was[8:] == now[:7] + now[8:] or len(was) == 8, (where, one, two)
        if was[4] == b".":
            assert one == two, where
            continue
        was[7], now[7] = was[7].rstrip(b"\r"), now[7].rstrip(b"\r")
        ours = OURS.search(now[7])
        assert ours is not None, (where, one, two)
        kept = b"" if was[7] in (b".", b"") else was[7] if was[7].endswith(b";") else was[7] + b";"
        assert now[7][: ours.start()] == kept, (where, one, two)
        columns = [value.split(b",") for value in ours.groups()]
        assert {len(column) for column in columns} == {was[4].count(b",") + 1}, (where, two)
        for llr, pllr, status in zip(*columns, strict=True):
            missing = {
                b"SCORED": (False, False), b"LLR:INDEL": (True, False)
            }.get(status, (True, True))  # fmt: skip
            assert tuple(NUMBER.match(x) is None for x in (llr, pllr)) == missing, (where, two)
            scored += missing != (True, True)
    return scored


def check_files(
    paths: list[Path], kind: str, bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> tuple[int, int]:
    """Annotate files; gives how many could be, and how many alleles of texts have a number."""
    annotated = scored = 0
    for number, path in enumerate(paths):
        text = text_of(path)
        fasta = fitting_fasta(text, tmp_path / f"{number}.fa")
        folder = tmp_path / f"{number}"
        folder.mkdir()
        out = folder / "out"
        given = ["-q", "vcf", path, "-f", fasta, "-m", bundle, "--allow-ref-mismatch"]
        code = call(*given, "-O", kind, "-o", out, "--threads", "1")
        stdout, stderr = capfd.readouterr()
        assert stdout == ""
        if code == 0:
            annotated += 1
            if kind == "v" and text.startswith((b"##", b"#CHROM\tPOS\tID\t")):
                scored += check_text(text, out.read_bytes(), path)
            continue
        assert code == 1, (path, stderr)
        assert not list(folder.iterdir()), path
        last = stderr.splitlines()[-1]
        assert last.startswith("glm-annotate: error: "), (path, stderr)
        assert str(path) in last or "BCF" in last, (path, stderr)
    return annotated, scored


def test_some_as_text(
    files: list[Path], bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    some = files[::3]
    annotated, scored = check_files(some, "v", bundle, tmp_path, capfd)
    assert annotated > len(some) // 4
    assert scored > annotated // 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["v", "b"])
def test_all(
    kind: str, files: list[Path], bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    annotated, scored = check_files(files, kind, bundle, tmp_path, capfd)
    assert annotated > len(files) // 10
    assert kind == "b" or scored > annotated // 2
