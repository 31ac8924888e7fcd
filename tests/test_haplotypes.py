"""Haplotypes of phased samples against bcftools consensus, and the way back to the reference."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import numpy as np
import pytest

from glm_annotate.errors import InputError
from glm_annotate.genome import Genome, to_text
from glm_annotate.haplotypes import HaplotypeGenome, read_carried

_HEAD = (
    "##fileformat=VCFv4.2\n##contig=<ID=c1>\n##contig=<ID=c2>\n"
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="G">\n'
    "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tother\tS\n"
)


def write(path: Path, rows: list[tuple[str, int, str, str, str]]) -> str:
    lines = [f"{c}\t{p}\t.\t{r}\t{a}\t.\t.\t.\tGT\t0|0\t{g}\n" for c, p, r, a, g in rows]
    path.write_text(_HEAD + "".join(lines))
    return str(path)


def fasta(path: Path, **contigs: str) -> Genome:
    path.write_text("".join(f">{name}\n{bases}\n" for name, bases in contigs.items()))
    return Genome(path)


def random_rows(rng: random.Random, bases: str) -> list[tuple[str, int, str, str, str]]:
    """Alleles that leave at least two bases between them: SNVs, MNVs, insertions, deletions."""
    rows, at = [], 2
    while at < len(bases) - 12:
        size = rng.randint(1, 5)
        ref = bases[at : at + size]
        first = rng.choice([x for x in "ACGT" if x != ref[0]])
        alts = [ref + "GATTACA"[: rng.randint(1, 7)], first + ref[1:]]
        if size > 1:
            alts.append(ref[0])
        rng.shuffle(alts)
        genotype = rng.choice(["0|1", "1|0", "1|1", "2|1", "0|0", "1/1", ".|.", "1|2"])
        rows.append(("c1", at + 1, ref, ",".join(alts[:2]), genotype))
        at += size + rng.randint(2, 9)
    return rows


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("haplotype", [1, 2])
def test_the_bases_are_those_of_bcftools_consensus(
    tmp_path: Path, bcftools: str, seed: int, haplotype: int
) -> None:
    rng = random.Random(seed)
    bases = "".join(rng.choice("ACGT") for _ in range(400))
    genome = fasta(tmp_path / "r.fa", c1=bases, c2="ACGTTGCA")
    vcf = write(tmp_path / "in.vcf", random_rows(rng, bases))
    packed = str(tmp_path / "in.vcf.gz")
    subprocess.run([bcftools, "view", "-Oz", "-o", packed, vcf], check=True)
    subprocess.run([bcftools, "index", packed], check=True)
    consensus = [bcftools, "consensus", "-s", "S", "-H", str(haplotype), "-f", genome.path, packed]
    wanted = subprocess.run(consensus, check=True, capture_output=True, text=True).stdout
    _, first, second = wanted.split(">")
    ours = HaplotypeGenome(genome, read_carried(vcf, "S", haplotype, genome))
    assert to_text(ours.codes("c1")) == "".join(first.split("\n")[1:])
    assert to_text(ours.codes("c2")) == "".join(second.split("\n")[1:]) == "ACGTTGCA"
    assert ours.contigs["c1"] == ours.codes("c1").size


def test_places_lead_back_to_the_bases_they_stand_for(tmp_path: Path) -> None:
    #                                 0123456789
    genome = fasta(tmp_path / "r.fa", c1="AACCGATTAC")
    rows = [
        ("c1", 2, "A", "ATT", "1|0"),  # two bases behind base 1
        ("c1", 5, "GA", "G", "1|0"),  # base 5 goes
        ("c1", 8, "T", "C", "1|0"),
    ]
    one = HaplotypeGenome(genome, read_carried(write(tmp_path / "v.vcf", rows), "S", 1, genome))
    assert to_text(one.codes("c1")) == "AATTCCGTCAC"
    # A  A  T  T  C  C  G  T  C  A  C, and the end
    wanted = [0, 1, 2, 2, 2, 3, 4, 6, 7, 8, 9, 10]
    assert one.to_reference("c1", np.arange(12)).tolist() == wanted
    assert [one.to_haplotype("c1", x) for x in range(11)] == [0, 1, 4, 5, 6, 7, 7, 8, 9, 10, 11]
    two = HaplotypeGenome(genome, read_carried(str(tmp_path / "v.vcf"), "S", 2, genome))
    assert to_text(two.codes("c1")) == "AACCGATTAC"
    assert two.to_reference("c1", np.arange(11)).tolist() == list(range(11))


def test_what_cannot_be_placed_is_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    genome = fasta(tmp_path / "r.fa", c1="AACCGGTTAC")
    rows = [
        ("c1", 1, "A", "C", "0/1"),
        ("c1", 2, "A", "<DEL>", "1|1"),
        ("c1", 3, "CCG", "C", "1|1"),
        ("c1", 4, "C", "T", "1|1"),
        ("c1", 6, "C", "T", "1|1"),
        ("c1", 7, "T", "G,*", "2|1"),
        ("c1", 9, "A", "G", "1"),
        ("c1", 10, "C", "G", "1/1/0"),
        ("c3", 1, "A", "C", "1|1"),
    ]
    carried = read_carried(write(tmp_path / "v.vcf", rows), "S", 1, genome)
    assert dict(carried.left_out) == {
        "heterozygous and not phased": 1,
        "symbolic, or no bases": 1,
        "it overlaps another one of the haplotype": 1,
        "REF is not the base of the FASTA": 1,
        "spanning deletions": 1,
        "genotypes of 3 alleles": 1,
    }
    assert to_text(HaplotypeGenome(genome, carried).codes("c1")) == "AACGTTGC"
    assert "1 alleles on c3, which the FASTA lacks" in caplog.text


def test_a_sample_that_is_not_there_and_an_unsorted_file_are_refused(tmp_path: Path) -> None:
    genome = fasta(tmp_path / "r.fa", c1="AACCGGTTAC")
    path = write(tmp_path / "v.vcf", [("c1", 5, "G", "T", "1|1"), ("c1", 2, "A", "T", "1|1")])
    with pytest.raises(InputError, match="no sample NA1; it has 2: other, S"):
        read_carried(path, "NA1", 1, genome)
    with pytest.raises(InputError, match="c1:2 is out of order; run: bcftools sort"):
        read_carried(path, "S", 1, genome)
