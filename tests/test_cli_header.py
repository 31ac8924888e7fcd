"""What `vcf` writes into the header, how keys are named, and what a second run does."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_kit import COLUMNS, GOLDEN, HEAD, call, header_of, records_of, write_vcf
from engine import write_fasta

from glm_annotate import __version__
from glm_annotate.bundle import load_bundle
from glm_annotate.testing import toy_bundle

GENOME = {"chr1": "ACGTTGCAAC" * 6, "chrM": "GATTACAGAT" * 3}
RECORDS = ["chr1 7 C A,T", "chr1 20 C <DEL>", "chr1 30 C CAA"]
INFO_LINE = re.compile(
    r'##INFO=<ID=(\w+),Number=A,Type=(Float|String),Description="([^"\\]*)",'
    r'Source="glm_annotate",Version="([^"]*)">'
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("header")
    write_fasta(folder / "genome.fa", GENOME)
    toy_bundle("markov", folder / "toy", context=16, circular=("chrM",))
    toy_bundle("causal", folder / "other", context=12, tag="CAUS", strand="forward")
    write_vcf(folder / "in.vcf", RECORDS)
    return folder


Annotate = Callable[..., str]


@pytest.fixture
def annotate(home: Path, tmp_path: Path) -> Annotate:
    """Annotate in.vcf, or another, and give the text that comes out."""

    def run(*options: object, source: Path | None = None, model: object = None) -> str:
        out = tmp_path / "out.vcf"
        model = home / "toy" if model is None else model
        given = [source or home / "in.vcf", "-f", home / "genome.fa", "-m", model]
        assert call("vcf", *given, "--force", "-o", out, *options) == 0
        return out.read_text()

    return run


def test_lines_and_their_order(annotate: Annotate, home: Path, tmp_path: Path) -> None:
    head = [
        "##fileformat=VCFv4.2",
        '##INFO=<ID=DP,Number=1,Type=Integer,Description="Depth">',
        '##FILTER=<ID=q10,Description="Low">',
        "##contig=<ID=chr1,length=60>",
        "##odd line",
    ]
    source = write_vcf(tmp_path / "in.vcf", RECORDS, "\n".join([*head, COLUMNS]) + "\n")
    lines = header_of(annotate("--threads", "1", source=source))
    assert lines[:2] == head[:2]
    found = [INFO_LINE.fullmatch(x) for x in lines[2:5]]
    assert [(m[1], m[2], m[4]) for m in found if m] == [
        ("TOY_LLR", "Float", __version__),
        ("TOY_PLLR", "Float", __version__),
        ("TOY_STATUS", "String", __version__),
    ]
    # The header has contigs, so none is added to text.
    assert lines[5:8] == head[2:]
    assert lines[8] == f"##glm_annotateVersion={__version__}"
    typed = f"glm-annotate vcf {source} -f {home / 'genome.fa'} -m {home / 'toy'}"
    assert lines[9].startswith(f"##glm_annotateCommand={typed} --force -o ")
    assert re.fullmatch(r".* --threads 1; Date=\w{3} \w{3} \d\d [\d:]{8} \d{4}", lines[9])
    digest = load_bundle(home / "toy").digest
    assert lines[10] == (
        f'##glm_annotateModel=<ID=toy,Name="toy-markov",Version="1.0",Sha256="{digest}",'
        'Context="16",Strands="both",Scores="LLR,PLLR",Circular="chrM",Device="cpu",'
        'Precision="fp32">'
    )
    assert lines[11:] == [COLUMNS]


def test_no_version_drops_two_lines(annotate: Annotate) -> None:
    whole, short = (header_of(annotate(*option)) for option in ([], ["--no-version"]))
    dropped = [x for x in whole if x not in short]
    assert [x.partition("=")[0] for x in dropped] == [
        "##glm_annotateVersion",
        "##glm_annotateCommand",
    ]
    assert [x for x in whole if x in short] == short
    assert annotate("--no-version") == annotate("--no-version")


@pytest.mark.parametrize(
    ("model", "options", "parts"),
    [
        ("toy", [], ["log p(ALT) - log p(REF)", "toy-markov 1.0", "window 16 bp", "both strands"]),
        ("toy", ["--strand", "forward"], ["forward strand"]),
        ("other", [], ["log likelihood", "toy-causal 1.0", "window 12 bp", "forward strand"]),
    ],
)
def test_descriptions(
    model: str, options: list[str], parts: list[str], annotate: Annotate, home: Path
) -> None:
    lines = header_of(annotate(*options, "-s", "LLR", model=home / model))
    (text,) = [m[3] for x in lines if (m := INFO_LINE.fullmatch(x)) and m[1].endswith("_LLR")]
    assert all(part in text for part in parts)


@pytest.mark.parametrize(
    ("asked", "keys"),
    [
        ("EMB_COS", ["EMB_COS"]),
        ("emb_cos:pool=site", ["EMB_COS"]),  # the card's own option gives no label
        ("EMB_COS:pool=window:k=7", ["EMB_COS_WINDOW7"]),
        ("EMB_L1:k=7", ["EMB_L1_WINDOW7"]),
        ("EMB_L2:pool=all,EMB_L2,LLR", ["EMB_L2_ALL", "EMB_L2", "LLR"]),
        ("EMB_COS,EMB_COS:pool=site", ["EMB_COS"]),
    ],
)
def test_labels(asked: str, keys: list[str], annotate: Annotate) -> None:
    text = annotate("-s", asked)
    first = records_of(text)[0]
    assert list(first.info) == [f"TOY_{key}" for key in (*keys, "STATUS")]
    declared = [m[1] for x in header_of(text) if (m := INFO_LINE.fullmatch(x))]
    assert declared == list(first.info)


def test_labels_follow_the_card(annotate: Annotate, tmp_path: Path) -> None:
    bundle = toy_bundle("markov", tmp_path / "window", context=16, pool="window", k=7)
    text = annotate("-s", "EMB_L1:k=7,EMB_L1:k=5,EMB_L1:pool=site", model=bundle)
    keys = ["TOY_EMB_L1", "TOY_EMB_L1_WINDOW5", "TOY_EMB_L1_SITE", "TOY_STATUS"]
    assert list(records_of(text)[0].info) == keys


def test_several_models_and_tags(annotate: Annotate, home: Path) -> None:
    both = annotate("-m", home / "other", "-m", f"NEW2={home / 'toy'}")
    toy, other = annotate(), annotate(model=home / "other")
    own = [m[1] for x in header_of(both) if (m := INFO_LINE.fullmatch(x))]
    assert own == [
        *("TOY_LLR", "TOY_PLLR", "TOY_STATUS", "CAUS_LLR", "CAUS_STATUS"),
        *("NEW2_LLR", "NEW2_PLLR", "NEW2_STATUS"),
    ]
    ids = [x.split(",")[0] for x in header_of(both) if x.startswith("##glm_annotateModel")]
    assert ids == [f"##glm_annotateModel=<ID={x}" for x in ("toy", "caus", "new2")]
    # Each model gives what it gives alone.
    for record, one, two in zip(*map(records_of, (both, toy, other)), strict=True):
        renamed = {key.replace("TOY_", "NEW2_"): value for key, value in one.info.items()}
        shared = {key: record.info[key] for key in own if key in record.info}
        assert shared == {k: v for k, v in {**one.info, **two.info, **renamed}.items() if k in own}


def test_equal_tags_are_an_error(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    given = ["-f", home / "genome.fa", "-m", home / "toy", "-m", f"TOY={home / 'other'}"]
    assert call("vcf", home / "in.vcf", *given) == 2
    assert "two models have the tag TOY" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("spelled", "head", "added"),
    [
        (["chr1 7 C A"], HEAD, ["chr1,length=60", "chrM,length=30"]),
        (["1 7 C A"], HEAD, ["1,length=60", "MT,length=30"]),
        (["1 7 C A", "M 3 T C"], HEAD, ["1,length=60", "M,length=30"]),
        (["chr1 7 C A"], f"##contig=<ID=chr1>\n{COLUMNS}\n", []),
    ],
)
def test_contigs_are_added_to_text_where_there_is_none(
    spelled: list[str], head: str, added: list[str], annotate: Annotate, tmp_path: Path
) -> None:
    head = head if head.startswith("##fileformat") else "##fileformat=VCFv4.2\n" + head
    source = write_vcf(tmp_path / "in.vcf", spelled, head)
    before = [x for x in head.splitlines() if x.startswith("##contig")]
    contigs = [x for x in header_of(annotate(source=source)) if x.startswith("##contig")]
    assert contigs == [*before, *(f"##contig=<ID={x}>" for x in added)]


def test_contigs_that_a_bcf_lacks_are_added(home: Path, tmp_path: Path, bcftools: str) -> None:
    head = f"##fileformat=VCFv4.2\n##contig=<ID=MT,length=30>\n{COLUMNS}\n"
    source = write_vcf(tmp_path / "in.vcf", ["1 7 C A", "MT 3 T C"], head)
    out = tmp_path / "out.bcf"
    assert call("vcf", source, "-f", home / "genome.fa", "-m", home / "toy", "-o", out) == 0
    command = [bcftools, "view", "--no-version", str(out)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    contigs = [x for x in header_of(text) if x.startswith("##contig")]
    assert contigs == ["##contig=<ID=MT,length=30>", "##contig=<ID=1,length=60>"]
    assert [record.site[0] for record in records_of(text)] == ["1", "MT"]


DEPTH = '##INFO=<ID=DP,Number=1,Type=Integer,Description="Depth">'


@pytest.mark.parametrize(
    "own",
    [
        [],
        ["##contig=<ID=chr1,length=60>"],
        [DEPTH],
        ["##contig=<ID=chr1,length=60>", DEPTH, "##source=x"],
    ],
)
def test_a_second_run_with_overwrite_gives_the_same_bytes(
    own: list[str], annotate: Annotate, tmp_path: Path
) -> None:
    head = "\n".join(["##fileformat=VCFv4.2", *own, COLUMNS]) + "\n"
    source = write_vcf(tmp_path / "in.vcf", RECORDS, head)
    first = annotate("--no-version", source=source)
    (tmp_path / "first.vcf").write_text(first)
    options = ["--no-version", "--overwrite"]
    assert annotate(*options, source=tmp_path / "first.vcf") == first


def test_a_second_run_needs_overwrite(
    annotate: Annotate, home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], bcftools: str
) -> None:
    first = tmp_path / "first.vcf"
    first.write_text(annotate("--no-version"))
    given = [first, "-f", home / "genome.fa", "-m", home / "toy", "--no-version", "-o"]
    assert call("vcf", *given, tmp_path / "again.vcf") == 1
    error = capfd.readouterr().err.splitlines()[-1]
    keys = "INFO/TOY_LLR,INFO/TOY_PLLR,INFO/TOY_STATUS"
    command = f"bcftools annotate -x {keys} {first}"
    assert command in error
    assert not (tmp_path / "again.vcf").exists()
    # The command that the message names does mend it.
    done = subprocess.run(
        [bcftools, *command.split()[1:]], capture_output=True, text=True, check=True
    )
    (tmp_path / "cleaned.vcf").write_text(done.stdout)
    given[0] = tmp_path / "cleaned.vcf"
    assert call("vcf", *given, tmp_path / "third.vcf") == 0
    assert records_of((tmp_path / "third.vcf").read_text()) == records_of(first.read_text())


def test_overwrite_replaces_values_of_any_place(annotate: Annotate, tmp_path: Path) -> None:
    stale = "TOY_LLR=9,9;DP=3;TOY_STATUS=OLD;NOTE=TOY_LLR"
    declaration = '##INFO=<ID=TOY_LLR,Number=1,Type=Integer,Description="x">\n'
    head = HEAD.replace(COLUMNS, declaration + COLUMNS)
    source = write_vcf(tmp_path / "in.vcf", [f"chr1 7 C A,T {stale}"], head)
    text = annotate("--overwrite", source=source)
    fresh = annotate(source=write_vcf(tmp_path / "new.vcf", ["chr1 7 C A,T DP=3;NOTE=TOY_LLR"]))
    assert records_of(text) == records_of(fresh)
    declared = [x for x in header_of(text) if "ID=TOY_LLR," in x]
    assert len(declared) == 1
    assert "Number=A,Type=Float" in declared[0]


def test_an_undeclared_key_of_ours_in_a_record(
    home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = write_vcf(tmp_path / "in.vcf", ["chr1 7 C A DP=1;TOY_PLLR=3"])
    out = tmp_path / "out.vcf"
    assert call("vcf", source, "-f", home / "genome.fa", "-m", home / "toy", "-o", out) == 1
    error = capfd.readouterr().err.splitlines()[-1]
    assert f"{source}: line 3 (chr1:7) has INFO TOY_PLLR already" in error
    assert f"bcftools annotate -x INFO/TOY_PLLR {source}" in error
    assert [p.name for p in tmp_path.iterdir()] == ["in.vcf"]


def test_another_model_beside_the_first(annotate: Annotate, home: Path, tmp_path: Path) -> None:
    first = tmp_path / "first.vcf"
    first.write_text(annotate("--no-version"))
    both = annotate("--no-version", source=first, model=home / "other")
    together = annotate("--no-version", "-m", home / "other")
    assert records_of(both) == records_of(together)
    assert both.count("##glm_annotateModel=") == 2


def test_other_lines_stay_in_their_order(home: Path, tmp_path: Path) -> None:
    for name in ("genome.fa", "every_kind.vcf"):
        shutil.copy(GOLDEN / name, tmp_path)
    source, out = tmp_path / "every_kind.vcf", tmp_path / "out.vcf"
    given = ["-f", tmp_path / "genome.fa", "-m", home / "toy", "-o", out]
    assert call("vcf", source, *given) == 0
    theirs = header_of(source.read_text())
    assert [x for x in header_of(out.read_text()) if x in set(theirs)] == theirs
