"""The recipes of plugins/bcftools_vcfanno, run as they stand in its README."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

FIELDS = ("MITO_LLR", "MITO_PLLR", "MITO_STATUS")

# Alleles of `query_vcf` after bcftools has left-aligned them, with what scores.vcf says of them.
# A duplicate comes once.
EXPECTED = {
    (73, "A", "G"): ("0.451384", "0.451384", "SCORED"),
    (247, "GA", "G"): (".", "0.419145", "LLR:INDEL"),
    (302, "A", "AC"): (".", "0.138675", "LLR:INDEL"),
    (513, "GCA", "G"): (".", "-0.991816", "LLR:INDEL"),
    (3106, "CN", "C"): (".", ".", "AMBIGUOUS"),
    (3243, "A", "G"): ("-3.9396", "-3.9396", "SCORED"),
    (3902, "ACCTTGC", "GCAAGGT"): ("-33.6983", "-32.249", "SCORED"),
    (8993, "T", "G"): ("-11.7953", "-11.7953", "SCORED"),
    (8993, "T", "C"): ("-7.57451", "-7.57451", "SCORED"),
    (14482, "C", "G"): ("-5.33814", "-5.33814", "SCORED"),
    (14482, "C", "A"): ("-1.918", "-1.918", "SCORED"),
}
UNSCORED = {(513, "G", "GCA"), (3243, "A", "T"), (8527, "A", "G"), (14482, "C", "T")}
UNLIKELY = {key for key, (_, pllr, _) in EXPECTED.items() if pllr != "." and float(pllr) < -5}

QUERY = """\
73 A G
245 TTGAA TTGA
302 A AC
513 GCA G,GCACA
3106 CN C
3243 A T,G
3901 GACCTTGC GGCAAGGT
8527 A G
8993 T G,C
14482 C G,A,T
"""


@pytest.fixture(scope="module")
def plugin_dir(repo_dir: Path) -> Path:
    return repo_dir / "plugins" / "bcftools_vcfanno"


@pytest.fixture
def folder(tmp_path: Path, plugin_dir: Path, repo_dir: Path, bcftools: str) -> Path:
    """A folder with the files that the recipes name."""
    for name in ("split_scores.sh", "glm.toml", "echtvar.json"):
        shutil.copy(plugin_dir / name, tmp_path)
    shutil.copy(repo_dir / "example_data" / "chrM.fa", tmp_path / "genome.fa")
    scores = repo_dir / "plugins" / "vep" / "t" / "data" / "scores.vcf"
    rows = (line.split() for line in QUERY.splitlines())
    (tmp_path / "in.vcf").write_text(
        "##fileformat=VCFv4.3\n##contig=<ID=chrM,length=16569>\n"
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
        + "".join(f"chrM\t{pos}\t.\t{ref}\t{alt}\t.\t.\t.\n" for pos, ref, alt in rows)
    )
    for source, name in ((scores, "scores"), (tmp_path / "in.vcf", "in")):
        packed = tmp_path / f"{name}.vcf.gz"
        subprocess.run([bcftools, "view", source, "-Oz", "-o", packed], check=True)
        subprocess.run([bcftools, "index", "-t", packed], check=True)
    return tmp_path


def recipe(plugin_dir: Path, heading: str) -> str:
    """The commands under a heading of the README."""
    section = (plugin_dir / "README.md").read_text().split(f"\n## {heading}\n")[1]
    found = re.search(r"```sh\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    assert found, heading
    return found[1]


def run_recipe(plugin_dir: Path, heading: str, folder: Path, env: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-euc", recipe(plugin_dir, heading)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr


def found_in(bcftools: str, path: Path, *keys: str) -> dict[tuple[int, str, str], tuple[str, ...]]:
    """Values of keys by position, REF and ALT, records split by Python and not by bcftools."""
    pattern = "\t".join(("%POS", "%REF", "%ALT", *(f"%INFO/{key}" for key in keys))) + "\n"
    done = subprocess.run(
        [bcftools, "query", "-u", "-f", pattern, path], capture_output=True, text=True, check=True
    )
    found = {}
    for line in done.stdout.splitlines():
        pos, ref, alts, *values = line.split("\t")
        columns = [x.split(",") if x != "." else ["."] * len(alts.split(",")) for x in values]
        for i, alt in enumerate(alts.split(",")):
            # bcftools leaves what two ALTs do not share but one of them shares with REF.
            key = trimmed(int(pos), ref, alt)
            found[key] = tuple(column[i] for column in columns)
    return found


def trimmed(pos: int, ref: str, alt: str) -> tuple[int, str, str]:
    while len(ref) > 1 and len(alt) > 1 and ref[-1] == alt[-1]:
        ref, alt = ref[:-1], alt[:-1]
    return pos, ref, alt


def test_bcftools_annotate(plugin_dir: Path, folder: Path, bcftools: str) -> None:
    run_recipe(plugin_dir, "bcftools annotate", folder, dict(os.environ))
    found = found_in(bcftools, folder / "out.vcf.gz", *FIELDS)
    assert {key: found[key] for key in EXPECTED} == EXPECTED
    assert {key for key in found if key not in EXPECTED} == UNSCORED
    assert all(found[key] == (".", ".", ".") for key in UNSCORED)
    unlikely = set(found_in(bcftools, folder / "unlikely.vcf", "MITO_PLLR"))
    assert unlikely >= UNLIKELY
    # Sites pass as a whole: what else comes out shares one with an unlikely allele.
    assert {pos for pos, _, _ in unlikely} == {pos for pos, _, _ in UNLIKELY}


def test_splitting_only_one_of_two_files_loses_scores(folder: Path, bcftools: str) -> None:
    """What the README warns of: if this fails, the warning can go."""
    split = folder / "split.vcf.gz"
    options = ("-m", "-any", "-Oz", "-o", split)
    subprocess.run([bcftools, "norm", *options, "in.vcf.gz"], cwd=folder, check=True)
    subprocess.run([bcftools, "index", "-t", split], check=True)
    options = ("-a", "scores.vcf.gz", "-c", "INFO/MITO_LLR", "-Oz", "-o", "out.vcf.gz")
    subprocess.run([bcftools, "annotate", *options, split], cwd=folder, check=True)
    found = found_in(bcftools, folder / "out.vcf.gz", "MITO_LLR")
    assert found[8993, "T", "G"] == ("-11.7953",)
    assert found[8993, "T", "C"] == (".",)


def test_split_scores(folder: Path, bcftools: str) -> None:
    done = subprocess.run(
        ["sh", "split_scores.sh", "scores.vcf.gz", "split.vcf.gz"], cwd=folder, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    lines = subprocess.run(
        [bcftools, "view", "-H", "split.vcf.gz"], cwd=folder, capture_output=True, text=True
    ).stdout.splitlines()
    assert len(lines) == 83
    info = {tuple(x.split("\t")[i] for i in (1, 3, 4)): x.split("\t")[7] for x in lines}
    assert "MITO_LLR=-11.7953;" in info["8993", "T", "G"]
    assert "MITO_LLR" not in info["247", "GA", "G"]
    assert "MITO_PLLR=0.419145;MITO_STATUS=LLR:INDEL" in info["247", "GA", "G"]
    assert info["3106", "CN", "C"].endswith("LOCUS=MT-RNR2;MITO_STATUS=AMBIGUOUS")
    assert not any("=." in x for x in info.values())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [((), 2, "usage: "), (("in.vcf.gz", "out.vcf.gz"), 1, "in.vcf.gz has no field of")],
)
def test_split_scores_refuses(
    folder: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = subprocess.run(
        ["sh", "split_scores.sh", *arguments], cwd=folder, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.count("\n")) == (code, 1)
    assert message in done.stderr


def test_vcfanno_configuration(plugin_dir: Path) -> None:
    (annotation,) = tomllib.loads((plugin_dir / "glm.toml").read_text())["annotation"]
    assert annotation["file"] in recipe(plugin_dir, "vcfanno")
    assert annotation["fields"] == annotation["names"] == list(FIELDS)
    assert annotation["ops"] == ["self"] * len(FIELDS)


def test_echtvar_configuration(plugin_dir: Path) -> None:
    """Keys of echtvar's `Field`; its integers have to hold the scores, and `.`."""
    fields = json.loads((plugin_dir / "echtvar.json").read_text())
    known = {"field", "alias", "missing_value", "missing_string", "zigzag", "multiplier"}
    assert [x["field"] for x in fields] == list(FIELDS)
    assert all(set(x) <= known for x in fields)
    commands = recipe(plugin_dir, "echtvar")
    assert fields[1]["alias"] in commands
    assert "echtvar.json" in commands
    for field in fields[:2]:
        assert field["missing_value"] == 0x7F800001  # htslib's bcf_float_missing
        assert field["zigzag"]
        assert 100 * field["multiplier"] < 2**31


@pytest.mark.hosts
def test_vcfanno(plugin_dir: Path, folder: Path, bcftools: str) -> None:
    if not shutil.which("vcfanno"):
        pytest.skip("vcfanno is not installed (Debian: apt-get install vcfanno)")
    run_recipe(plugin_dir, "vcfanno", folder, dict(os.environ))
    found = found_in(bcftools, folder / "out.vcf", *FIELDS)
    for key, (*numbers, status) in EXPECTED.items():
        *got, got_status = found[key]
        assert got_status == status, key
        for number, rounded in zip(numbers, got, strict=True):
            if number == ".":
                assert rounded == ".", key
            else:
                assert float(rounded) == pytest.approx(float(number), abs=5.1e-5), key
    assert all(set(found[key]) == {"."} for key in UNSCORED)


@pytest.mark.hosts
def test_slivar(plugin_dir: Path, folder: Path, bcftools: str) -> None:
    if not shutil.which("slivar"):
        pytest.skip("slivar is not installed (a binary is at its authors' site)")
    run_recipe(plugin_dir, "slivar", folder, dict(os.environ))
    assert set(found_in(bcftools, folder / "unlikely.vcf", "MITO_PLLR")) == UNLIKELY


@pytest.mark.hosts
def test_echtvar(plugin_dir: Path, folder: Path, bcftools: str) -> None:
    if not shutil.which("echtvar"):
        pytest.skip("echtvar is not installed (a binary is at its authors' site)")
    run_recipe(plugin_dir, "echtvar", folder, dict(os.environ))
    assert set(found_in(bcftools, folder / "unlikely.bcf", "mito_pllr")) == UNLIKELY
