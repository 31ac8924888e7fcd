"""The VEP plugin: against stand-ins of VEP's modules, and with VEP itself where it is installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

OPTIONS = {"file", "fields", "check_assembly", "expand_left", "expand_right", "cache_size"}
COLUMNS = (
    "Allele",
    "Consequence",
    "SYMBOL",
    "GLMAnnotate_cutoff",
    "MITO_LLR",
    "MITO_PLLR",
    "MITO_STATUS",
)
# Checkouts that VEP consists of.
PARTS = ("ensembl-vep", "ensembl", "ensembl-variation", "ensembl-io", "ensembl-funcgen")

# What VEP trims or leaves another way than left-aligned: the one thing that does not match.
NOT_LEFT_ALIGNED = {"del_padded", "ins_not_left_aligned"}


@pytest.fixture(scope="module")
def plugin_dir(repo_dir: Path) -> Path:
    return repo_dir / "plugins" / "vep"


@pytest.fixture(scope="module")
def data(plugin_dir: Path) -> Path:
    return plugin_dir / "t" / "data"


def needs(*programs: str) -> None:
    missing = [x for x in programs if not shutil.which(x)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (Debian: apt-get install perl tabix)")


def test_prove(plugin_dir: Path) -> None:
    needs("prove", "bgzip", "tabix")
    # Without the VEP that the surroundings may name.
    env = {key: value for key, value in os.environ.items() if key != "PERL5LIB"}
    done = subprocess.run(
        ["prove", "-w", "t"], cwd=plugin_dir, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Result: PASS" in done.stdout
    assert not done.stderr


def test_documentation_in_the_plugin(plugin_dir: Path) -> None:
    needs("podchecker", "pod2text")
    path = plugin_dir / "GLMAnnotate.pm"
    subprocess.run(["podchecker", path], check=True, capture_output=True)
    text = subprocess.run(["pod2text", path], check=True, capture_output=True, text=True).stdout
    for heading in ("LICENSE", "CONTACT", "NAME", "SYNOPSIS", "DESCRIPTION"):
        assert f"\n{heading}\n" in f"\n{text}"
    readme = (plugin_dir / "README.md").read_text()
    source = path.read_text()
    listed = re.search(r"@OPTIONS = qw\(([^)]+)\)", source)
    assert listed
    assert set(listed[1].split()) == OPTIONS
    for option in OPTIONS | {"min_FIELD", "max_FIELD"}:
        assert re.search(rf"\b{option}\b", text), option
        assert f"`{option}=" in readme, option


def test_scores_are_what_the_program_writes(
    run_cli: Any, data: Path, example_dir: Path, tmp_path: Path
) -> None:
    """The header that the plugin reads has not changed since t/data/scores.vcf was made."""
    out = tmp_path / "out.vcf"
    run_cli(
        *("vcf", example_dir / "mtdna_variants.vcf", "-f", example_dir / "chrM.fa"),
        *("-m", "mito", "-t", "chrM:3243", "--no-version", "-o", out),
        check=True,
    )

    def header(path: Path) -> list[str]:
        lines = [x for x in path.read_text().splitlines() if x.startswith("##")]
        return [re.sub(r'Version="[^"]*"|Sha256="[^"]*"|model mito [0-9.]+', "", x) for x in lines]

    assert header(out) == header(data / "scores.vcf")


def csq_rows(path: Path) -> list[tuple[str, dict[str, str]]]:
    """ID and columns of each line of CSQ."""
    columns: list[str] = []
    rows = []
    for line in path.read_text().splitlines():
        if found := re.search(r'ID=CSQ,.*Format: ([^"]+)"', line):
            columns = found[1].split("|")
        if line.startswith("#"):
            continue
        fields = line.split("\t")
        csq = re.search(r"CSQ=([^;]+)", fields[7])
        assert csq, line
        rows += [
            (fields[2], dict(zip(columns, row.split("|"), strict=True)))
            for row in csq[1].split(",")
        ]
    return rows


def by_bcftools(bcftools: str, path: Path, fasta: Path, *keys: str) -> list[tuple[str, ...]]:
    """POS, REF, ALT, ID and keys, one ALT a line and left-aligned."""
    split = subprocess.run(
        [bcftools, "norm", "-m", "-any", "-f", fasta, path], capture_output=True, check=True
    ).stdout
    pattern = "\t".join(("%POS", "%REF", "%ALT", "%ID", *(f"%INFO/{x}" for x in keys))) + "\n"
    text = subprocess.run(
        [bcftools, "query", "-f", pattern], input=split, capture_output=True, check=True
    ).stdout.decode()
    return [tuple(x.split("\t")) for x in text.splitlines()]


def test_golden_output_agrees_with_bcftools(bcftools: str, data: Path, example_dir: Path) -> None:
    """What VEP wrote with the plugin is what bcftools finds when it normalises both files."""
    fasta = example_dir / "chrM.fa"
    keys = ("MITO_LLR", "MITO_PLLR", "MITO_STATUS")
    scores = {row[:3]: row[4:] for row in by_bcftools(bcftools, data / "scores.vcf", fasta, *keys)}
    named: dict[tuple[str, str], set[tuple[str, ...]]] = {}
    for name, row in csq_rows(data / "golden.vcf"):
        values = tuple(row[x] for x in keys)
        named.setdefault((name, row["Allele"]), set()).add(values)
    compared = 0
    for pos, ref, alt, name in by_bcftools(bcftools, data / "input.vcf", fasta):
        # VEP's allele: without the base that anchors an insertion or a deletion.
        allele = alt if len(alt) == len(ref) else alt[1:] or "-"
        if name == "del_and_unscored_ins" and allele != "-":
            allele = "CACA"
        if name == "mnv_padded":
            allele = "G" + allele
        wanted = tuple("" if x == "." else x for x in scores.get((pos, ref, alt), ("",) * 3))
        found = named.pop((name, allele))
        if name in NOT_LEFT_ALIGNED:
            assert wanted[2]
            wanted = ("",) * 3
        assert found == {wanted}, name
        compared += bool(wanted[2])
    assert not named
    assert compared >= 13


# What follows runs VEP.


@pytest.fixture(scope="module")
def vep_env() -> dict[str, str]:
    """The environment in which VEP's programs run."""
    home = Path(os.environ.get("GLM_VEP_HOME", ""))
    if "GLM_VEP_HOME" not in os.environ:
        pytest.skip("GLM_VEP_HOME does not name a folder with VEP; see plugins/vep/README.md")
    missing = [x for x in PARTS if not (home / x / "modules").is_dir()]
    assert not missing, f"GLM_VEP_HOME lacks {missing}"
    needs("bgzip", "tabix")
    libraries = [str(home / x / "modules") for x in PARTS]
    if inherited := os.environ.get("PERL5LIB"):
        libraries.append(inherited)
    return {**os.environ, "PERL5LIB": ":".join(libraries)}


class Vep:
    """VEP in a folder with the files of t/data."""

    def __init__(self, env: dict[str, str], folder: Path, plugin_dir: Path) -> None:
        self.env, self.folder, self.plugin_dir = env, folder, plugin_dir

    def program(
        self, name: str, *arguments: object, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        script = Path(self.env["GLM_VEP_HOME"]) / "ensembl-vep" / name
        done = subprocess.run(
            ["perl", script, *map(str, arguments)],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done

    def run(
        self, *arguments: object, contig: str = "chrM", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        return self.program(
            *("vep", "-i", f"{contig}.vcf", "--gff", f"{contig}.gff3.gz"),
            *("--fasta", f"{contig}.fa", "--format", "vcf"),
            *("--force_overwrite", "--no_stats", "--distance", "0", "--safe", *arguments),
            check=check,
        )

    def plugin(self, *options: str) -> tuple[object, ...]:
        return ("--dir_plugins", self.plugin_dir, "--plugin", ",".join(("GLMAnnotate", *options)))


def pack(path: Path, *how: str) -> Path:
    subprocess.run(["bgzip", "-kf", path], check=True)
    packed = path.with_name(f"{path.name}.gz")
    subprocess.run(["tabix", "-f", *how, packed], check=True)
    return packed


@pytest.fixture
def vep(
    vep_env: dict[str, str], tmp_path: Path, plugin_dir: Path, data: Path, example_dir: Path
) -> Vep:
    shutil.copy(data / "scores.vcf", tmp_path)
    pack(tmp_path / "scores.vcf", "-p", "vcf")
    head, *features = (data / "genes.gff3").read_text().splitlines(keepends=True)
    features.sort(key=lambda line: int(line.split("\t")[3]))
    sources = {
        "fa": (example_dir / "chrM.fa").read_text(),
        "gff3": head + "".join(features),
        "vcf": (data / "input.vcf").read_text(),
    }
    for contig in ("chrM", "MT"):
        for suffix, text in sources.items():
            (tmp_path / f"{contig}.{suffix}").write_text(text.replace("chrM", contig))
        pack(tmp_path / f"{contig}.gff3", "-p", "gff")
    return Vep(vep_env, tmp_path, plugin_dir)


def without_origin(text: str) -> list[str]:
    """Lines but those that hold the date, folders, versions and the name of the file of genes."""
    return [x for x in text.splitlines() if not x.startswith(("##VEP", "##INFO=<ID=chrM.gff3"))]


@pytest.mark.hosts
@pytest.mark.parametrize("more", [(), ("--fork", 2)], ids=["one", "fork"])
def test_vcf_of_vep(vep: Vep, data: Path, more: tuple[object, ...]) -> None:
    plugin = vep.plugin("file=scores.vcf.gz", "max_MITO_PLLR=-2")
    vep.run("--vcf", "--fields", ",".join(COLUMNS), "-o", "out.vcf", *plugin, *more)
    got = without_origin((vep.folder / "out.vcf").read_text())
    assert got == without_origin((data / "golden.vcf").read_text())


@pytest.mark.hosts
def test_json_of_vep(vep: Vep, data: Path) -> None:
    vep.run("--json", "-o", "out.json", *vep.plugin("file=scores.vcf.gz", "max_MITO_PLLR=-2"))

    def parsed(path: Path) -> list[Any]:
        return [json.loads(x) for x in path.read_text().splitlines()]

    got = parsed(vep.folder / "out.json")
    assert got == parsed(data / "golden.json")
    (consequence,) = got[0]["intergenic_consequences"]
    assert consequence["glmannotate"]["MITO_LLR"] == 0.451384


@pytest.mark.hosts
def test_tab_of_vep(vep: Vep) -> None:
    columns = ",".join(("Uploaded_variation", *COLUMNS))
    chosen = vep.plugin("file=scores.vcf.gz", "fields=MITO_LLR:MITO_STATUS")
    vep.run("--tab", "--fields", columns, "-o", "out.tab", *chosen)
    text = (vep.folder / "out.tab").read_text()
    assert "## MITO_LLR : log p(ALT) - log p(REF)" in text
    assert "\none_of_two\tG\tnon_coding_transcript_exon_variant\t-\t-\t-3.9396\t-\tSCORED\n" in text
    assert "\nno_number\t-\tnon_coding_transcript_exon_variant\t-\t-\t-\t-\tAMBIGUOUS\n" in text


@pytest.mark.hosts
def test_filter_vep(vep: Vep) -> None:
    vep.run("--vcf", "-o", "out.vcf", *vep.plugin("file=scores.vcf.gz"))

    def kept(expression: str) -> set[tuple[str, str, str]]:
        done = vep.program(
            *("filter_vep", "-i", "out.vcf", "--filter", expression, "--only_matched"),
            *("--force_overwrite", "-o", "filtered.vcf"),
        )
        assert "isn't numeric" not in done.stderr
        rows = csq_rows(vep.folder / "filtered.vcf")
        return {(name, row["Allele"], row["MITO_PLLR"]) for name, row in rows}

    assert kept("MITO_PLLR < -5") == {
        ("mnv_padded", "GGCAAGGT", "-32.249"),
        ("mnv", "GCAAGGT", "-32.249"),
        ("reverse_gene", "A", "-5.10232"),
        ("other_order", "G", "-11.7953"),
        ("other_order", "C", "-7.57451"),
        ("reverse_gene_three", "G", "-5.33814"),
    }
    # What has no number passes neither way.
    assert kept("MITO_LLR > -1") == {("snv", "G", "0.451384")}
    assert {x[0] for x in kept("MITO_STATUS match INDEL")} == {
        "ins",
        "del_and_unscored_ins",
        "ins_in_gene",
        "del_of_9",
        "del_frameshift",
    }


@pytest.mark.hosts
def test_other_name_of_the_mitochondrial_genome(vep: Vep, data: Path) -> None:
    """A VEP that says MT, and scores that say chrM."""
    plugin = vep.plugin("file=scores.vcf.gz", "max_MITO_PLLR=-2")
    vep.run("--vcf", "--fields", ",".join(COLUMNS), "-o", "out.vcf", *plugin, contig="MT")

    def without_consequences(path: Path) -> list[Any]:
        # VEP reads codons of MT as mitochondrial, and those of chrM in a GFF as of the nucleus.
        return [(name, {**row, "Consequence": ""}) for name, row in csq_rows(path)]

    golden = without_consequences(data / "golden.vcf")
    assert without_consequences(vep.folder / "out.vcf") == golden


@pytest.mark.hosts
def test_table_of_scores(vep: Vep, data: Path) -> None:
    keys = ("MITO_LLR", "MITO_PLLR", "MITO_STATUS")
    rows = ["\t".join(("#chrom", "pos", "id", "ref", "alt", *keys))]
    for line in (vep.folder / "scores.vcf").read_text().splitlines():
        if line.startswith("#"):
            continue
        chrom, pos, name, ref, alts, _, _, info = line.split("\t")
        pairs = dict(x.split("=", 1) for x in info.split(";"))
        for i, alt in enumerate(alts.split(",")):
            values = (pairs[x].split(",")[i] for x in keys)
            rows.append("\t".join((chrom, pos, name, ref, alt, *values)))
    (vep.folder / "scores.tsv").write_text("\n".join(rows) + "\n")
    pack(vep.folder / "scores.tsv", "-s", "1", "-b", "2", "-e", "2")
    plugin = vep.plugin("file=scores.tsv.gz", "max_MITO_PLLR=-2")
    done = vep.run("--vcf", "--fields", ",".join(COLUMNS), "-o", "out.vcf", *plugin)
    assert "cannot tell whether scores.tsv.gz is of the assembly" in done.stderr
    assert csq_rows(vep.folder / "out.vcf") == csq_rows(data / "golden.vcf")


@pytest.mark.hosts
def test_other_assembly_is_refused(vep: Vep) -> None:
    text = (vep.folder / "scores.vcf").read_text()
    (vep.folder / "other.vcf").write_text(text.replace("length=16569", "length=16571"))
    pack(vep.folder / "other.vcf", "-p", "vcf")
    # VEP makes the index of the FASTA when it first reads it.
    vep.run("--vcf", "-o", "bare.vcf")
    done = vep.run("--vcf", "-o", "out.vcf", *vep.plugin("file=other.vcf.gz"), check=False)
    assert done.returncode
    assert "chrM has 16571 bases in other.vcf.gz, 16569 in chrM.fa" in done.stderr


@pytest.mark.hosts
def test_custom_annotation(vep: Vep, data: Path) -> None:
    """The recipe without the plugin gives the same values, and `.` where there is none."""
    fields = "MITO_LLR%MITO_PLLR%MITO_STATUS"
    custom = f"file=scores.vcf.gz,short_name=GLM,format=vcf,type=exact,fields={fields}"
    assert (
        f"short_name=GLM,format=vcf,type=exact,fields={fields}"
        in (vep.plugin_dir / "README.md").read_text()
    )
    vep.run("--vcf", "-o", "out.vcf", "--custom", custom)
    got = csq_rows(vep.folder / "out.vcf")
    golden = csq_rows(data / "golden.vcf")
    assert len(got) == len(golden)
    for (name, row), (golden_name, wanted) in zip(got, golden, strict=True):
        assert name == golden_name
        for key in ("MITO_LLR", "MITO_PLLR", "MITO_STATUS"):
            value = row[f"GLM_{key}"]
            assert ("" if value == "." else value) == wanted[key], name
    # The trap that the README names, and the way around it.
    kept = []
    for expression in ("GLM_MITO_LLR > -1", "GLM_MITO_LLR > -1 and GLM_MITO_LLR != ."):
        arguments = ("--filter", expression, "--only_matched", "--force_overwrite")
        vep.program("filter_vep", "-i", "out.vcf", *arguments, "-o", "filtered.vcf")
        kept.append({name for name, _ in csq_rows(vep.folder / "filtered.vcf")})
    assert "ins" in kept[0]
    assert kept[1] == {"snv"}


@pytest.mark.hosts
def test_scores_made_now(vep: Vep, run_cli: Any, example_dir: Path, data: Path) -> None:
    """From the program to VEP: what `glm-annotate` writes and indexes is what the plugin reads."""
    run_cli(
        *("vcf", example_dir / "mtdna_variants.vcf", "-f", example_dir / "chrM.fa", "-m", "mito"),
        *("-o", vep.folder / "fresh.vcf.gz", "-W=tbi", "--threads", 1),
        check=True,
    )
    plugin = vep.plugin("file=fresh.vcf.gz", "max_MITO_PLLR=-2")
    vep.run("--vcf", "--fields", ",".join(COLUMNS), "-o", "out.vcf", *plugin)
    golden = csq_rows(data / "golden.vcf")
    for (name, row), (_, wanted) in zip(csq_rows(vep.folder / "out.vcf"), golden, strict=True):
        assert row["MITO_STATUS"] == wanted["MITO_STATUS"], name
        for key in ("MITO_LLR", "MITO_PLLR"):
            assert bool(row[key]) == bool(wanted[key]), name
            if row[key]:
                assert float(row[key]) == pytest.approx(float(wanted[key]), abs=1e-3)
