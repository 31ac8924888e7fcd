"""Options of `vcf`: what they choose, and which of several sources of a value wins."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_kit import COLUMNS, HEAD, call, header_of, records_of, statuses, write_vcf
from engine import write_fasta
from oracle import Oracle

from glm_annotate import __version__
from glm_annotate.bundle import load_bundle
from glm_annotate.cli import run
from glm_annotate.testing import toy_bundle

GENOME = {"chr1": "ACGTTGCAAC" * 6, "chrM": "GATTACAGATCC" * 3}
CONTIGS = "##contig=<ID=chr1,length=60>\n##contig=<ID=chrM,length=36>\n"
MIXED = [
    *("chr1 7 C A,T", "chr1 20 CAC C", "chr1 20 C <DEL>", "chr1 30 C .", "chr1 31 A T,*"),
    *("chrM 1 G A", "chrM 20 G C", "chrX 1 A C"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("options")
    write_fasta(folder / "genome.fa", GENOME)
    toy_bundle("wide", folder / "toy", context=16)
    write_vcf(folder / "in.vcf", MIXED, HEAD.replace(COLUMNS, CONTIGS + COLUMNS))
    return folder


@pytest.fixture
def options(home: Path) -> list[object]:
    return ["-f", home / "genome.fa", "-m", home / "toy"]


Annotate = Callable[..., str]


@pytest.fixture
def annotate(home: Path, options: list[object], tmp_path: Path) -> Annotate:
    def run(*more: object, source: object = None, code: int = 0) -> str:
        out = tmp_path / "out.vcf"
        given = [source or home / "in.vcf", *options, "--force", "-o", out, *more]
        assert call("vcf", *given) == code
        return out.read_text()

    return run


@pytest.fixture
def fails(
    home: Path, options: list[object], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run and give the last line on stderr of a run that must end with a code."""

    def run(*more: object, code: int = 2) -> str:
        assert call("vcf", home / "in.vcf", *options, *more) == code
        out, err = capfd.readouterr()
        assert out == ""
        return err.splitlines()[-1]

    return run


# Which records


@pytest.mark.parametrize(
    "given",
    [
        ["-r", "chr1:20-30"],
        ["-r", "chrM:5-,chr1:7"],
        ["-r", "chr1:21"],
        ["-t", "chr1:21"],
        ["-t", "^chr1"],
        ["-t", "chrM,chr1:31"],
        ["-R", "regions.bed"],
        ["-T", "regions.bed"],
        ["-T", "^sites.tsv"],
    ],
)
def test_regions_and_targets_choose_what_bcftools_does(
    given: list[str], home: Path, annotate: Annotate, tmp_path: Path, bcftools: str
) -> None:
    (tmp_path / "regions.bed").write_text("chr1\t19\t20\nchrM\t0\t1\n")
    (tmp_path / "sites.tsv").write_text("chr1\t7\nchr1\t31\t40\n")
    names = {"regions.bed": tmp_path / "regions.bed", "^sites.tsv": f"^{tmp_path / 'sites.tsv'}"}
    chosen = [names.get(x, x) for x in given]
    packed = tmp_path / "in.vcf.gz"
    view = [bcftools, "view", "--no-version"]
    subprocess.run([*view, "-Oz", "-o", packed, home / "in.vcf"], check=True)
    subprocess.run([bcftools, "index", packed], check=True)
    command = [*view, "-H", *map(str, chosen), str(packed)]
    expected = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = records_of(annotate(*chosen, source=packed))
    key = sorted if given[0] in ("-r", "-R") else list
    assert key(r.site for r in found) == key(r.site for r in records_of(expected))
    assert bool(found) == (given != ["-t", "chr1:21"])  # the deletion only reaches there
    whole = {r.site: r.info for r in records_of(annotate())}
    assert all(r.info == whole[r.site] for r in found)


def test_streaming_targets_need_no_index(annotate: Annotate) -> None:
    assert [r.site[:2] for r in records_of(annotate("-t", "chrM"))] == [
        ("chrM", "1"),
        ("chrM", "20"),
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["-O", "z", "-o", "x.vcf"], "contradicts"),
        (["-O", "v", "-o", "x.vcf.gz"], "contradicts"),
        (["-O", "z", "-o", "x.bcf"], "contradicts"),
        (["-O", "x"], "unknown output type"),
        (["-W"], "can be indexed"),
        (["-W", "-o", "x.vcf"], "can be indexed"),
        (["-W=tbi", "-o", "x.bcf"], "no tbi index"),
        (["-W=xyz", "-o", "x.vcf.gz"], "unknown index"),
        (["-r", "chr1", "-R", "x"], "exclude each other"),
        (["-t", "chr1:5-1"], "ends before"),
        (["--device", "gpu"], "cuda"),
        (["--device", "cpu:1,2"], "cuda"),
        (["--batch-size", "0"], "--batch-size"),
        (["--batch-size", "many"], "--batch-size"),
        (["--threads", "-1"], "--threads"),
        (["--strand", "reverse"], "forward"),
        (["--precision", "fp8"], "tf32"),
        (["-s", "LRR"], "LLR, PLLR, WTLLR"),
        (["-s", "LLR:pool=site"], "known here: none"),
        (["-s", "EMB_COS:pool=line"], "site, window, all"),
        (["-s", "EMB_COS:k=17"], "from 1 to 16"),
        (["--tsv", "-"], "--tsv"),
        (["-o", "x.vcf", "--tsv", "./x.vcf"], "--tsv"),
        (["-o", "x.vcf", "--summary", "x.vcf"], "--summary"),
        (["--tsv", "x.tsv", "--summary", "x.tsv"], "--summary"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_contradictions_are_usage_errors(
    given: list[str], message: str, fails: Callable[..., str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert message in fails(*given)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("missing", "named"), [("-f", "--fasta-ref"), ("-m", "--model")])
def test_required_options(missing: str, named: str, home: Path, options: list[object],
                          capfd: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    at = options.index(missing)
    assert call("vcf", home / "in.vcf", *options[:at], *options[at + 2 :]) == 2
    err = capfd.readouterr().err
    assert named in err
    assert err.startswith("Usage: glm-annotate vcf")


# Where values come from


def test_command_line_beats_variable_beats_file(
    annotate: Annotate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "options.toml"
    config.write_text('score = "ENT"\nno-version = true\nthreads = 1\n')

    def scores(*more: object) -> str:
        text = annotate(*more)
        (line,) = [x for x in header_of(text) if x.startswith("##glm_annotateModel")]
        return line.split('Scores="')[1].split('"')[0]

    assert scores() == "LLR,PLLR"
    assert scores("--config", config) == "ENT"
    assert "##glm_annotateVersion" not in annotate("--config", config)
    monkeypatch.setenv("GLM_ANNOTATE_SCORE", "LLR,EMB_L1")
    assert scores("--config", config) == "LLR,EMB_L1"
    assert scores("--config", config, "-s", "WTLLR") == "WTLLR"
    monkeypatch.setenv("GLM_ANNOTATE_NO_VERSION", "1")
    assert "##glm_annotateVersion" not in annotate()


def test_a_whole_run_from_a_file(home: Path, tmp_path: Path, annotate: Annotate) -> None:
    config, out = tmp_path / "options.toml", tmp_path / "made.vcf"
    config.write_text(
        f'fasta = "{home / "genome.fa"}"\nmodel = ["{home / "toy"}"]\noutput = "{out}"\n'
        'score = ["LLR", "PLLR"]\nbatch-size = 3\nno-version = true\nforce = true\n'
    )
    assert call("vcf", home / "in.vcf", "--config", config) == 0
    assert out.read_text() == annotate("--no-version")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scores = 'LLR'\n", "unknown key 'scores'; known: allow-ref-mismatch, assay, batch-size"),
        ("score 'LLR'\n", "not TOML"),
        ("threads = 'x'\n", "--threads"),
    ],
)
def test_a_wrong_config_is_a_usage_error(
    text: str, message: str, fails: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "c.toml").write_text(text)
    assert message in fails("--config", tmp_path / "c.toml")


def test_a_missing_config_is_a_usage_error(fails: Callable[..., str], tmp_path: Path) -> None:
    assert "cannot be read" in fails("--config", tmp_path / "none.toml")


# What comes out beside the VCF


def test_strict(annotate: Annotate, tmp_path: Path) -> None:
    assert annotate("--strict", "--no-version", code=3) == annotate("--no-version")
    source = write_vcf(tmp_path / "fine.vcf", ["chr1 7 C A,T", "chr1 20 CAC C", "chr1 30 C ."])
    # The deletion has no LLR, but PLLR: it has a number.
    annotate("--strict", source=source)
    annotate("--strict", "-s", "LLR", source=source, code=3)


def test_sites_only(annotate: Annotate, tmp_path: Path) -> None:
    source = tmp_path / "samples.vcf"
    source.write_text(
        f"##fileformat=VCFv4.2\n{COLUMNS}\tFORMAT\ts1\ts2\n"
        "chr1\t7\t.\tC\tA\t.\t.\tDP=1\tGT\t0/1\t1/1\nchr1\t9\t.\tA\t.\t.\t.\t.\tGT\t0/0\t0/0\n"
    )
    whole, sites = (annotate(*x, source=source) for x in ([], ["--sites-only"]))
    assert header_of(sites)[-1] == COLUMNS
    assert header_of(whole)[-1] == f"{COLUMNS}\tFORMAT\ts1\ts2"
    cut = [record.columns[:8] for record in records_of(whole)]
    assert [record.columns for record in records_of(sites)] == cut


def test_tsv_has_one_row_an_allele(annotate: Annotate, tmp_path: Path) -> None:
    table = tmp_path / "out.tsv"
    text = annotate("--tsv", table, "-s", "LLR,EMB_COS")
    keys = ["TOY_LLR", "TOY_EMB_COS", "TOY_STATUS"]
    expected = ["\t".join(["chrom", "pos", "id", "ref", "alt", *keys])]
    for record in records_of(text):
        for i, alt in enumerate(record.alts):
            site = [*record.columns[:4], alt]
            expected.append("\t".join([*site, *(record.per_alt(key)[i] for key in keys)]))
    assert table.read_text().splitlines() == expected
    assert len(expected) == 1 + 9


def test_summary(annotate: Annotate, home: Path, tmp_path: Path) -> None:
    path = tmp_path / "sum.json"
    text = annotate("--summary", path, "-s", "LLR,PLLR")
    found = json.loads(path.read_text())
    assert found.pop("seconds") >= 0
    assert found == {
        "glm_annotate": __version__,
        "input": str(home / "in.vcf"),
        "records": 8,
        "records_without_alt": 1,
        "alleles": 9,
        "models": {
            "TOY": {
                "name": "toy-wide",
                "version": "1.0",
                "digest": load_bundle(home / "toy").digest,
                "scores": ["LLR", "PLLR"],
                "strands": 2,
                "device": "cpu",
                # Both strands of four sites of substitutions, and of the two deleted bases.
                "forward_passes": 2 * (4 + 2),
                "unscored": 3,
                "status": {
                    "SCORED": 5, "LLR:INDEL": 1, "SYMBOLIC": 1, "SPANNING": 1, "CONTIG_MISSING": 1
                },
            }
        },
    }  # fmt: skip
    counted: dict[str, int] = {}
    for listed in statuses(text).values():
        for status in listed:
            counted[status] = counted.get(status, 0) + 1
    assert counted == found["models"]["TOY"]["status"]


def test_passes_are_counted_by_hand(annotate: Annotate, tmp_path: Path) -> None:
    # One site with three ALTs and its copy: one pass a strand for LLR, which PLLR shares.
    source = write_vcf(tmp_path / "in3.vcf", ["chr1 7 C A,G,T", "chr1 7 C G", "chr1 20 C A"])
    for asked, passes in (("LLR", 4), ("LLR,PLLR", 4), ("EMB_L1,EMB_L2", 2 * (1 + 3 + 1 + 1))):
        annotate("-s", asked, "--summary", tmp_path / "s.json", source=source)
        found = json.loads((tmp_path / "s.json").read_text())
        assert found["models"]["TOY"]["forward_passes"] == passes


def test_dry_run(
    home: Path, options: list[object], annotate: Annotate, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    annotate("--summary", tmp_path / "real.json")
    real = json.loads((tmp_path / "real.json").read_text())
    capfd.readouterr()
    before = sorted(tmp_path.iterdir())
    given = ["-o", tmp_path / "dry.vcf", "--tsv", tmp_path / "dry.tsv", "--dry-run"]
    assert call("vcf", home / "in.vcf", *options, *given) == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert sorted(tmp_path.iterdir()) == before
    passes = real["models"]["TOY"]["forward_passes"]
    assert f"TOY: {passes} forward passes, about " in err
    assert call("vcf", home / "in.vcf", *options, *given, "--summary", tmp_path / "dry.json") == 0
    dry = json.loads((tmp_path / "dry.json").read_text())
    assert dry["models"]["TOY"].pop("estimated_seconds") >= 0
    assert {**dry, "seconds": 0} == {**real, "seconds": 0}
    assert call("vcf", home / "in.vcf", *options, *given, "--strict") == 3


# How models are run


@pytest.mark.parametrize("strand", ["both", "forward"])
def test_strand(strand: str, home: Path, annotate: Annotate) -> None:
    oracle = Oracle(home / "toy", home / "genome.fa", strand=strand)
    record = records_of(annotate("--strand", strand, "-s", "LLR"))[0]
    expected = [oracle.score("chr1", 7, "C", alt, "LLR") for alt in "AT"]
    assert [float(x) for x in record.per_alt("TOY_LLR")] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("card", "given", "circular"),
    [
        ((), [], ()),
        ((), ["--circular", "MT"], ("chrM",)),
        (("chrM",), [], ("chrM",)),
        (("M",), [], ("chrM",)),
        (("chrM",), ["--circular", "none"], ()),
        (("chrM",), ["--circular", "chr1,chrM"], ("chr1", "chrM")),
    ],
)
def test_circular(
    card: tuple[str, ...], given: list[str], circular: tuple[str, ...], home: Path, tmp_path: Path
) -> None:
    bundle = toy_bundle("wide", tmp_path / "toy", context=16, circular=card)
    oracle = Oracle(bundle, home / "genome.fa", circular=circular)
    command = ["vcf", home / "in.vcf", "-f", home / "genome.fa", "-m", bundle, "-s", "LLR"]
    assert call(*command, *given, "-o", tmp_path / "out.vcf") == 0
    text = (tmp_path / "out.vcf").read_text()
    found = {r.site: r.info for r in records_of(text)}[("chrM", "1", "G", "A")]
    assert float(found["TOY_LLR"]) == pytest.approx(oracle.score("chrM", 1, "G", "A", "LLR"), 1e-5)
    assert f'Circular="{",".join(circular) or "none"}"' in text


@pytest.mark.parametrize(
    "given", [["--batch-size", "1"], ["--threads", "1"], ["--device", "cpu:2"]]
)
def test_batch_size_and_threads_change_no_byte(given: list[str], annotate: Annotate) -> None:
    assert annotate("--no-version", *given) == annotate("--no-version")


def test_a_run_leaves_logging_as_it_was() -> None:
    """Programs that call the command line keep their own handlers and levels."""
    logger = logging.getLogger("glm_annotate")
    before = logger.handlers[:], logger.level, logger.propagate
    assert run(["-q", "models", "list"]) == 0
    assert (logger.handlers, logger.level, logger.propagate) == before
