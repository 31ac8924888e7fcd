"""Reads of a sample with planted variants, and the pipeline that has to find and score them."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import plugin_programs
import pytest

PLUGIN = plugin_programs.PLUGINS / "pipelines"
# Known variants of the example data: SNVs, an insertion, a deletion of nine bases in a repeat.
PLANTED = [
    (750, "A", "G"), (1555, "A", "G"), (3243, "A", "G"), (5537, "A", "AT"),
    (8270, "CACCCCCTCT", "C"), (8993, "T", "G"), (11778, "G", "A"), (14484, "T", "C"),
]  # fmt: skip


@pytest.fixture
def truth(tmp_path):
    path = tmp_path / "truth.vcf"
    rows = "".join(f"chrM\t{p}\t.\t{r}\t{a}\t.\t.\t.\n" for p, r, a in PLANTED)
    path.write_text("##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n" + rows)
    return path


@pytest.fixture
def fasta(tmp_path, example_dir):
    """A copy, beside which programs may put their indexes."""
    path = tmp_path / "chrM.fa"
    path.write_bytes((example_dir / "chrM.fa").read_bytes())
    return path


def simulate(fasta, truth, prefix, *more):
    return subprocess.run(
        [sys.executable, PLUGIN / "make_reads.py", fasta, truth, "-o", prefix, *more],
        capture_output=True,
        text=True,
        check=False,
    )


def bases(fasta):
    return "".join(fasta.read_text().splitlines()[1:]).upper()


def read_pairs(prefix):
    paths = [Path(f"{prefix}_{i}.fq.gz") for i in (1, 2)]
    files = [gzip.decompress(x.read_bytes()).decode().splitlines()[1::4] for x in paths]
    return list(zip(*files, strict=True))


def aligned_sam(fasta, prefix):
    """A SAM of reads of a sample that differs from REF by SNVs alone: where each lies is plain."""
    reference, rows = bases(fasta), []
    sample = list(reference)
    for pos, ref, alt in PLANTED:
        if len(ref) == len(alt):
            sample[pos - 1] = alt
    sample = "".join(sample)
    back = str.maketrans("ACGTN", "TGCAN")
    for i, pair in enumerate(read_pairs(prefix)):
        for read in pair:
            flag, place = 0, sample.find(read)
            if place < 0:
                read = read[::-1].translate(back)
                flag, place = 16, sample.find(read)
            assert place >= 0
            start = ("chrM", place + 1, 60, f"{len(read)}M", "*", 0, 0)
            cells = (f"r{i}_{flag}", flag, *start, read, "?" * len(read), "RG:Z:S1")
            rows.append((place, "\t".join(map(str, cells)) + "\n"))
    head = f"@HD\tVN:1.6\tSO:coordinate\n@SQ\tSN:chrM\tLN:{len(reference)}\n@RG\tID:S1\tSM:S1\n"
    path = Path(f"{prefix}.sam")
    path.write_text(head + "".join(text for _, text in sorted(rows)))
    return path


def run_pipeline(*arguments):
    # glm-annotate of the environment that runs the tests.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", PLUGIN / "reads_to_scores.sh", *map(str, arguments)],
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def query(bcftools, path, more=""):
    done = subprocess.run(
        [bcftools, "query", "-f", f"%POS\t%REF\t%ALT{more}\n", path],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [tuple(line.split("\t")) for line in done.stdout.splitlines()]


def test_reads_carry_the_variants_and_repeat(tmp_path, fasta, truth):
    for name in ("a", "b"):
        done = simulate(fasta, truth, tmp_path / name, "--errors", "0", "--depth", "10")
        assert done.returncode == 0, done.stderr
    pairs = read_pairs(tmp_path / "a")
    assert pairs == read_pairs(tmp_path / "b")
    # The sample is one base longer and nine shorter than the reference; pairs make the depth.
    assert done.stdout.split()[:2] == [str(round(10 * (16569 - 8) / 300)), "pairs"]
    sample = bases(fasta)
    for pos, ref, alt in reversed(PLANTED):
        sample = sample[: pos - 1] + alt + sample[pos - 1 + len(ref) :]
    other = sample[::-1].translate(str.maketrans("ACGTN", "TGCAN"))
    assert all((a in sample) != (a in other) and (b in sample) == (a in other) for a, b in pairs)


def test_variant_that_is_not_of_the_reference_is_refused(tmp_path, fasta):
    wrong = tmp_path / "wrong.vcf"
    wrong.write_text("chrM\t750\t.\tC\tG\t.\t.\t.\n")
    done = simulate(fasta, wrong, tmp_path / "a")
    assert done.returncode == 1
    assert "wrong.vcf line 1" in done.stderr


def test_script_tells_its_usage():
    done = subprocess.run(
        ["bash", PLUGIN / "reads_to_scores.sh", "x.bam"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "-f REF.fa -m MODEL -o PREFIX" in done.stderr


@pytest.mark.hosts
@pytest.mark.timeout(200)
def test_alignment_to_scores(tmp_path, fasta, bcftools):
    """The way of a BAM, here a SAM that is written directly: bcftools alone."""
    snvs = [x for x in PLANTED if len(x[1]) == len(x[2])]
    truth = tmp_path / "snvs.vcf"
    truth.write_text("".join(f"chrM\t{p}\t.\t{r}\t{a}\t.\t.\t.\n" for p, r, a in snvs))
    assert simulate(fasta, truth, tmp_path / "s", "--errors", "0", "--depth", "20").returncode == 0
    sam = aligned_sam(fasta, tmp_path / "s")
    run_pipeline("-f", fasta, "-m", "mito", "-o", tmp_path / "out", "-p", 1, sam)
    found = query(bcftools, tmp_path / "out.filtered.vcf.gz")
    assert found == [(str(p), r, a) for p, r, a in snvs]


@pytest.mark.hosts
@pytest.mark.timeout(200)
def test_reads_to_scores(tmp_path, fasta, truth, bcftools, run_cli):
    for tool in ("minimap2", "samtools"):
        plugin_programs.program(tool, f"Debian: apt-get install {tool}")
    assert simulate(fasta, truth, tmp_path / "s").returncode == 0
    out = tmp_path / "out"
    run_pipeline(
        "-f", fasta, "-m", "mito", "-o", out, "-p", 1, "-s", "S1", "-i", "MITO_PLLR<-3",
        f"{tmp_path}/s_1.fq.gz", f"{tmp_path}/s_2.fq.gz",
    )  # fmt: skip
    # Every planted variant, spelled as it was planted, and no other.
    expected = [(str(p), r, a) for p, r, a in PLANTED]
    scored = query(bcftools, f"{out}.scored.vcf.gz", "\t%MITO_PLLR\t%MITO_STATUS")
    assert [x[:3] for x in scored] == expected
    assert all(len(ref) == len(alt) or s == "LLR:INDEL" for _, ref, alt, _, s in scored)
    # The scores are those of the same alleles without any reads.
    alone = run_cli("vcf", truth, "-f", fasta, "-m", "mito", "--tsv", tmp_path / "alone.tsv",
                    "-o", tmp_path / "alone.vcf", check=True)  # fmt: skip
    assert alone.returncode == 0
    numbers = [x.split("\t")[6] for x in (tmp_path / "alone.tsv").read_text().splitlines()[1:]]
    assert [float(x[3]) for x in scored] == pytest.approx([float(x) for x in numbers], rel=1e-5)
    kept = query(bcftools, f"{out}.filtered.vcf.gz")
    assert kept == [x[:3] for x in scored if float(x[3]) < -3]
    assert ("3243", "A", "G") in kept
    assert len(kept) < len(PLANTED)
    assert json.loads(Path(f"{out}.glm_annotate.json").read_text())["alleles"] == len(PLANTED)
    assert all(Path(f"{out}.{x}.vcf.gz.tbi").exists() for x in ("calls", "scored", "filtered"))
