"""Seeded inputs, made anew for every run."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np

Site = tuple[int, str, str]  # 1-based POS, REF, ALT as in VCF

_MARGIN = 600  # bases that SNVs keep from the ends of a contig, so that windows hold no N


def read_fasta(path: Path) -> tuple[str, str]:
    """Read the first sequence of a FASTA: its name and bases."""
    head, *lines = path.read_text(encoding="ascii").split(">", 2)[1].splitlines()
    return head.split()[0], "".join(lines).upper()


def write_genome(path: Path, contig: str, length: int, seed: int = 1) -> str:
    """Write a FASTA of random bases, and return them."""
    codes = np.random.default_rng(seed).integers(0, 4, size=length)
    bases = np.frombuffer(b"ACGT", dtype=np.uint8)[codes].tobytes().decode()
    lines = (bases[i : i + 100] for i in range(0, length, 100))
    path.write_text(f">{contig}\n" + "\n".join(lines) + "\n", encoding="ascii")
    return bases


def snvs(bases: str, count: int, seed: int = 2) -> Iterable[Site]:
    """Yield SNVs at `count` distinct places, in order."""
    rng = np.random.default_rng(seed)
    places = np.sort(rng.choice(len(bases) - 2 * _MARGIN, size=count, replace=False)) + _MARGIN
    for place, step in zip(places.tolist(), rng.integers(1, 4, size=count).tolist(), strict=True):
        ref = bases[place]
        yield place + 1, ref, "ACGT"[("ACGT".index(ref) + step) % 4]


def mixed(bases: str, alleles: int, seed: int = 3) -> list[Site]:
    """Make SNVs (a tenth of the sites with two ALTs) and, at a tenth, indels of 1 to 6 bases."""
    rng = random.Random(seed)
    places = rng.sample(range(1, len(bases) - 8), k=min(len(bases) - 9, 2 * alleles + 8))
    out: list[Site] = []
    left = alleles
    for place in places:
        if not left:
            break
        ref, size, kind = bases[place], rng.randint(1, 6), rng.random()
        if set(bases[place : place + 7]) - set("ACGT"):
            continue
        others = rng.sample([x for x in "ACGT" if x != ref], k=2)
        if kind < 0.05:
            site = place + 1, ref, ref + "".join(rng.choices("ACGT", k=size))
        elif kind < 0.1:
            site = place + 1, bases[place : place + size + 1], ref
        elif kind < 0.2 and left > 1:
            site = place + 1, ref, ",".join(others)
        else:
            site = place + 1, ref, others[0]
        out.append(site)
        left -= site[2].count(",") + 1
    return sorted(out)


def write_vcf(path: Path, contig: str, length: int, sites: Iterable[Site]) -> Path:
    """Write sites as a VCF without samples."""
    with path.open("w", encoding="ascii") as out:
        out.write(
            f"##fileformat=VCFv4.3\n##contig=<ID={contig},length={length}>\n"
            '##FILTER=<ID=PASS,Description="All filters passed">\n'
            '##INFO=<ID=AC,Number=A,Type=Integer,Description="Allele count">\n'
            "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
        )
        for pos, ref, alt in sites:
            counts = ",".join("1" for _ in alt.split(","))
            out.write(f"{contig}\t{pos}\t.\t{ref}\t{alt}\t50\tPASS\tAC={counts}\n")
    return path
