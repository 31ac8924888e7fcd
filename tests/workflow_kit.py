"""What the tests of the workflow systems share: programs, inputs, an oracle of shards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pysam
from plugin_programs import PLUGINS as PLUGINS
from plugin_programs import program

Site = tuple[str, int]


def host(name: str) -> str:
    """Give the path of a host's program; skips where it is not installed."""
    return program(name, "see install_hosts in .ci/run; GLM_HOSTS may name its folder")


def run(command: list[str], cwd: Path, timeout: float = 600, **more: str) -> str:
    """Run a program that itself finds glm-annotate; gives stdout and stderr, fails with them."""
    done = subprocess.run(
        command,
        cwd=cwd,
        # The host's own folder first: hosts call one another and their Python.
        env={
            **os.environ,
            "PATH": os.pathsep.join(
                [str(Path(command[0]).parent), os.environ["PATH"], str(Path(sys.executable).parent)]
            ),
            "OMP_NUM_THREADS": "1",
            **more,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def scored_text(path: Path) -> list[str]:
    """Give the lines of a bgzipped VCF without those that name commands."""
    with pysam.BGZFile(str(path)) as file:
        lines = file.read().decode().splitlines()
    return [line for line in lines if "Command=" not in line]


@dataclass(frozen=True)
class Inputs:
    """A folder with calls.vcf.gz, genome.fa and their indices, and what `vcf` writes of them."""

    folder: Path
    expected: list[str]

    def copy(self, to: Path) -> None:
        for name in ("calls.vcf.gz", "calls.vcf.gz.tbi", "genome.fa", "genome.fa.fai"):
            shutil.copy(self.folder / name, to)


def make_inputs(folder: Path, example_dir: Path, records: int) -> Inputs:
    """Take the first records of the example, and a deletion from POS 302 beyond the next, 310."""
    for name in ("chrM.fa", "chrM.fa.fai"):
        shutil.copy(example_dir / name, folder / name.replace("chrM", "genome"))
    lines = (example_dir / "mtdna_variants.vcf").read_text().splitlines()
    head = [line for line in lines if line.startswith("#")]
    body = [line for line in lines if not line.startswith("#")][:records]
    genome = "".join((folder / "genome.fa").read_text().splitlines()[1:]).upper()
    at = 1 + next(i for i, line in enumerate(body) if line.split("\t")[1] == "302")
    body.insert(at, f"chrM\t302\t.\t{genome[301:313]}\t{genome[301]}\t.\t.\t.")
    plain = folder / "calls.vcf"
    plain.write_text("\n".join([*head, *body]) + "\n")
    pysam.tabix_index(str(plain), preset="vcf", keep_original=True)
    whole = folder / "whole.vcf.gz"
    run(
        [
            sys.executable, "-m", "glm_annotate", "-q", "vcf", "calls.vcf", "-f", "genome.fa",
            "-m", "mito", "-o", whole.name, "--no-version",
        ],
        folder,
    )  # fmt: skip
    return Inputs(folder, scored_text(whole))


# --- cutting into shards -----------------------------------------------------------------------

SITES: dict[str, list[Site]] = {
    "none": [],
    "one": [("chr1", 7)],
    "telomere": [("chr1", 0), ("chr1", 3), ("chr1", 9)],
    "positions several times": [("chr1", p) for p in (1, 1, 1, 2, 5, 5, 5, 5, 6, 9, 9)],
    "small contigs": [(f"HLA-A*01:{i:02}", p) for i in range(9) for p in (4, 4, 30)][:-2],
    "many": [("1", p) for p in range(10, 400, 7)] + [("X", p) for p in range(1, 60, 2)],
}


def cut(program: str, sites: list[Site], folder: Path, **variables: object) -> list[Path]:
    """Run the awk program of a plugin on sites; gives the BEDs that it made."""
    awk = host("awk")
    given = [x for key, value in variables.items() for x in ("-v", f"{key}={value}")]
    subprocess.run(
        [awk, *given, program],
        input="".join(f"{contig}\t{pos}\n" for contig, pos in sites),
        cwd=folder,
        text=True,
        check=True,
        timeout=30,
    )
    return sorted(folder.glob("*.bed"))


def check_shards(beds: list[Path], sites: list[Site], per: int) -> None:
    """Each site lies in one shard, in order; positions stay whole, shards are about as large."""
    found: list[list[Site]] = []
    for bed in beds:
        spans = [line.split("\t") for line in bed.read_text().splitlines()]
        assert spans, f"{bed}: glm-annotate takes no empty file"
        inside = []
        for contig, start, end in spans:
            assert 0 <= int(start) < max(int(end), 1)
            inside += [x for x in sites if x[0] == contig and int(start) < x[1] <= int(end)]
        found.append(inside)
    # The index of a VCF knows no POS 0, whose records the count at the end misses.
    assert [x for shard in found for x in shard] == [x for x in sites if x[1] > 0]
    filled = [shard for shard in found if shard]
    unseen = len([x for x in sites if x[1] == 0])
    for shard, following in pairwise(filled):
        assert len(shard) + unseen >= per
        assert not set(shard) & set(following)
    for shard in filled:
        # Only the records of the last position may go beyond what is asked for.
        assert len([x for x in shard if x != shard[-1]]) < per
