"""What cannot be used: one line on stderr, the right exit code, and nothing half-written."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_kit import COLUMNS, HEAD, call, statuses, write_vcf
from engine import write_fasta

from glm_annotate.bundle import read_card, write_bundle
from glm_annotate.testing import toy_bundle

GENOME = {"chr1": "ACGTTGCAAC" * 20, "chr2": "GGATC" * 4}
FINE = "chr1\t7\t.\tC\tA\t.\t.\t.\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("errors")
    write_fasta(folder / "genome.fa", GENOME)
    toy_bundle("markov", folder / "toy", context=16)
    write_vcf(folder / "in.vcf", ["chr1 7 C A", "chr1 9 A T"])
    return folder


@pytest.fixture
def options(home: Path) -> list[object]:
    return ["-f", home / "genome.fa", "-m", home / "toy"]


Fails = Callable[..., str]


@pytest.fixture
def fails(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Fails:
    """Run with an output file; gives the one line on stderr of a run that must end with 1."""

    def run(source: object, *options: object, out: str = "out.vcf") -> str:
        folder = tmp_path / "outputs"
        folder.mkdir()
        given = ["-o", folder / out, "--tsv", folder / "out.tsv", "--summary", folder / "out.json"]
        assert call("-q", "vcf", source, *options, *given) == 1
        captured = capfd.readouterr()
        assert captured.out == ""
        lines = captured.err.splitlines()
        assert list(folder.iterdir()) == []
        assert len(lines) == 1, lines
        assert lines[0].startswith("glm-annotate: error: ")
        return lines[0].removeprefix("glm-annotate: error: ")

    return run


# The reference


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("none.fa", None, ["none.fa", "no such FASTA"]),
        ("text.fa", "hello\n", ["text.fa", "not a FASTA"]),
        ("empty.fa", ">\n", ["empty.fa"]),
    ],
)
def test_fasta(
    name: str, content: str | None, parts: list[str], home: Path, tmp_path: Path, fails: Fails
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    error = fails(home / "in.vcf", "-f", tmp_path / name, "-m", home / "toy")
    assert all(part in error for part in parts)


def snvs(wrong: int, right: int) -> list[str]:
    """SNVs on chr1, the first ones with a REF that the FASTA does not have."""
    bases = GENOME["chr1"]
    other = dict(zip("ACGT", "CGTA", strict=True))
    rows = []
    for i in range(wrong + right):
        ref = other[bases[i]] if i < wrong else bases[i]
        rows.append(f"chr1 {i + 1} {ref} {other[ref]}")
    return rows


@pytest.mark.parametrize(
    ("wrong", "right", "stops"),
    [(11, 39, True), (10, 40, False), (11, 38, False), (49, 0, False), (50, 0, True)],
)
def test_another_assembly_by_its_bases(
    wrong: int, right: int, stops: bool, options: list[object], tmp_path: Path, fails: Fails
) -> None:
    """More than a fifth of at least 50 comparable REFs."""
    source = write_vcf(tmp_path / "in.vcf", snvs(wrong, right))
    if stops:
        error = fails(source, *options)
        assert f"{source}: {wrong} of the first {wrong + right} REF alleles" in error
        assert "--allow-ref-mismatch" in error
        return
    assert call("-q", "vcf", source, *options, "-o", tmp_path / "out.vcf") == 0


def test_records_that_cannot_be_compared_do_not_count(
    options: list[object], tmp_path: Path
) -> None:
    extra = ["chr1 5000 A C", "chrX 1 A C", "chr1 3 N C", "chr1 3 G ."] * 20
    source = write_vcf(tmp_path / "in.vcf", [*extra, *snvs(9, 40)])
    assert call("-q", "vcf", source, *options, "-o", tmp_path / "out.vcf") == 0


def test_going_on_all_the_same(options: list[object], tmp_path: Path) -> None:
    source, out = write_vcf(tmp_path / "in.vcf", snvs(30, 30)), tmp_path / "out.vcf"
    assert call("-q", "vcf", source, *options, "--allow-ref-mismatch", "-o", out) == 0
    found = [x for listed in statuses(out.read_text()).values() for x in listed]
    assert found == ["REF_MISMATCH"] * 30 + ["SCORED"] * 30


def test_another_assembly_by_the_length(
    example_dir: Path, home: Path, tmp_path: Path, fails: Fails
) -> None:
    fasta = shutil.copy(example_dir / "hg19.chrM.fa", tmp_path)
    error = fails(example_dir / "mtdna_variants.vcf", "-f", fasta, "-m", home / "toy")
    assert "chrM has 16,569 bases" in error
    assert "has 16,571" in error
    assert "-f" in error


# The input

TRUNCATIONS = {"z": ["view", "-Oz"], "b": ["view", "-Ob"]}


@pytest.mark.parametrize("kind", TRUNCATIONS)
@pytest.mark.parametrize("cut", ["no end block", "inside a block"])
@pytest.mark.parametrize("out", ["out.vcf", "out.vcf.gz", "out.bcf"])
def test_truncated_input(
    kind: str, cut: str, out: str, options: list[object], tmp_path: Path, fails: Fails,
    bcftools: str,
) -> None:  # fmt: skip
    head = HEAD.replace(COLUMNS, f"##contig=<ID=chr1,length=200>\n{COLUMNS}")
    rows = [f"chr1 {i % 190 + 1} {GENOME['chr1'][i % 190]} T" for i in range(9000)]
    whole = write_vcf(tmp_path / "whole.vcf", rows, head)
    command = [bcftools, *TRUNCATIONS[kind], "--no-version", str(whole)]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    source = tmp_path / "cut"
    source.write_bytes(data[:-28] if cut == "no end block" else data[: len(data) * 2 // 3])
    error = fails(source, *options, out=out)
    assert error.startswith(f"{source}: truncated or damaged")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (HEAD + FINE + "chr1\t8\t.\tA\tC\t.\n", ["line 4", "6 tab-separated columns"]),
        (HEAD + FINE + "chr1\tx\t.\tA\tC\t.\t.\t.\n", ["line 4", "POS 'x'"]),
        (HEAD + FINE + "chr1\t-3\t.\tA\tC\t.\t.\t.\n", ["line 4", "POS '-3'"]),
        (HEAD + FINE + "\n" + FINE, ["line 4", "is empty"]),
        (HEAD + FINE + HEAD, ["line 4", "header line"]),
        (HEAD + FINE.replace("\t", " "), ["line 3", "tab-separated columns"]),
        ("##fileformat=VCFv4.2\n" + FINE, ["line 2", "#CHROM"]),
        ("##fileformat=VCFv4.2\n", ["#CHROM"]),
        ("", ["empty"]),
        ("GIF89a\n", ["none of"]),
        ("chr1\t7\tC\tA\nchr1\t8\tA\n", ["line 2"]),
        ("chr1\t7\tC\tA\nchr1\teight\tA\tC\n", ["line 2"]),
    ],
)
def test_malformed_text(
    text: str, parts: list[str], options: list[object], tmp_path: Path, fails: Fails
) -> None:
    source = tmp_path / "in.vcf"
    source.write_text(text)
    error = fails(source, *options)
    assert error.startswith(f"{source}: ")
    assert all(part in error for part in parts)


def test_a_bad_line_far_behind(options: list[object], tmp_path: Path, fails: Fails) -> None:
    """Found when output has begun."""
    source = tmp_path / "in.vcf"
    source.write_text(HEAD + FINE * 12_000 + "chr1\t8\n" + FINE)
    assert f"{source}: line 12003 " in fails(source, *options)


def test_input_that_is_not_there(options: list[object], tmp_path: Path, fails: Fails) -> None:
    assert "no.vcf: No such file" in fails(tmp_path / "no.vcf", *options)


def test_regions_without_an_index(home: Path, options: list[object], fails: Fails) -> None:
    assert "bcftools index" in fails(home / "in.vcf", *options, "-r", "chr1")


@pytest.mark.parametrize(
    ("row", "head", "named"),
    [
        ("chr1 7 C A ODD=3", "", "INFO ODD"),
        ("chrX 7 C A", "##contig=<ID=chr1>\n", "contig chrX"),
    ],
)
def test_what_bcf_cannot_hold(
    row: str, head: str, named: str, options: list[object], tmp_path: Path, fails: Fails
) -> None:
    head = HEAD.replace(COLUMNS, head + COLUMNS)
    source = write_vcf(tmp_path / "in.vcf", ["chr1 3 G A", row], head)
    error = fails(source, *options, out="out.bcf")
    assert named in error
    assert row.split(" ")[0] + ":7" in error
    assert "-O z" in error
    # The remedy is one.
    assert call("-q", "vcf", source, *options, "-o", tmp_path / "out.vcf.gz") == 0


# The model


def test_models_that_are_none(home: Path, tmp_path: Path, fails: Fails) -> None:
    error = fails(home / "in.vcf", "-f", home / "genome.fa", "-m", tmp_path)
    assert error == f"{tmp_path}: not a model bundle: it holds no card.json"


def test_unknown_model(home: Path, fails: Fails) -> None:
    error = fails(home / "in.vcf", "-f", home / "genome.fa", "-m", "nosuch")
    assert "glm-annotate models list" in error


def _flip_a_byte(bundle: Path) -> None:
    data = bytearray((bundle / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(data)


def _rewrite(bundle: Path, **keys: object) -> None:
    write_bundle(bundle, read_card(bundle).model_dump(exclude={"sha256"}) | keys)


def _tensor(name: str, dtype: str = "float32") -> dict[str, object]:
    return {"name": name, "axes": ("batch", "rows", "vocabulary"), "dtype": dtype}


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (_flip_a_byte, ["model.onnx: sha256", "copy the bundle again"]),
        (lambda b: (b / "card.json").write_text("{"), ["card.json"]),
        (lambda b: (b / "selftest.npz").unlink(), ["selftest.npz is missing"]),
        (lambda b: _rewrite(b, outputs={"logits": _tensor("scores")}), ["output 'scores'"]),
        (
            lambda b: _rewrite(b, outputs={"logits": _tensor("logits", "float16")}),
            ["output 'logits' (float16)", "logits (float32)"],
        ),
        (lambda b: _rewrite(b, inputs={"rows": _tensor("ids", "int64")}), ["input 'ids'"]),
        (lambda b: _rewrite(b, inputs={"rows": _tensor("rows", "int32")}), ["rows (int64)"]),
    ],
)
def test_bundles_that_are_not_what_they_say(
    spoil: Callable[[Path], None], parts: list[str], home: Path, tmp_path: Path, fails: Fails
) -> None:
    bundle = toy_bundle("markov", tmp_path / "spoilt", context=16)
    spoil(bundle)
    error = fails(home / "in.vcf", "-f", home / "genome.fa", "-m", bundle)
    assert str(bundle) in error
    assert all(part in error for part in parts), error


def test_cuda_where_there_is_none(
    home: Path, options: list[object], fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    error = fails(home / "in.vcf", *options, "--device", "cuda")
    assert error.startswith("--device cuda:0: ")
    assert "--device cpu" in error


# The output


@pytest.mark.parametrize("option", ["-o", "--tsv", "--summary"])
def test_outputs_that_exist(
    option: str, home: Path, options: list[object], tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = {x: tmp_path / f"out{i}" for i, x in enumerate(("-o", "--tsv", "--summary"))}
    out[option].write_text("keep me")
    given = [x for pair in out.items() for x in pair]
    assert call("-q", "vcf", home / "in.vcf", *options, *given) == 1
    expected = f"glm-annotate: error: {out[option]}: is there already; --force replaces it"
    assert capfd.readouterr().err.splitlines() == [expected]
    assert out[option].read_text() == "keep me"
    assert list(tmp_path.iterdir()) == [out[option]]
    assert call("-q", "vcf", home / "in.vcf", *options, *given, "--force") == 0
    assert out[option].read_text() != "keep me"


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_the_input_is_never_replaced(
    force: list[str], home: Path, options: list[object], tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    source = tmp_path / "in.vcf"
    shutil.copy(home / "in.vcf", source)
    (tmp_path / "link.vcf").symlink_to(source)
    for out in (source, tmp_path / "link.vcf"):
        assert call("-q", "vcf", source, *options, "-o", out, *force) == 1
        assert "is the input itself" in capfd.readouterr().err
    assert source.read_bytes() == (home / "in.vcf").read_bytes()


def test_a_folder_that_is_not_there(
    home: Path, options: list[object], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "no" / "out.vcf"
    assert call("-q", "vcf", home / "in.vcf", *options, "-o", out) == 1
    assert f"{out}: cannot be made" in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["v", "z", "u", "b"])
def test_a_full_disk(
    kind: str, home: Path, options: list[object], capfd: pytest.CaptureFixture[str]
) -> None:
    given = ["-o", "/dev/full", "-O", kind]
    assert call("-q", "vcf", home / "in.vcf", *options, *given) == 1
    error = "glm-annotate: error: /dev/full: cannot be written: No space left on device"
    assert capfd.readouterr().err.splitlines() == [error]
