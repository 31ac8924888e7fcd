"""Small C.Origami and Akita, random and with the cards of the families, on variants of chr20.

The oracle takes the graph's maps and does all else in loops: windows, strands, signals, scores.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyBigWig
import pytest
import torch
from cli_kit import call, records_of, write_vcf
from oracle_channels import Columns
from test_family_contacts import (
    AKITA,
    AKITA_MODEL,
    ORIGAMI,
    ORIGAMI_MODEL,
    origami,
    small_akita,
    whole_card,
)
from toy_contacts import ContactOracle

from glm_annotate.bundle import GRAPH, write_bundle
from glm_annotate.train import graph
from glm_annotate.train.families import akita, corigami
from glm_annotate.train.families.predictor import Predictor

# Of the 1000 Genomes Project, but for the record without an ALT and the last long one.
RECORDS = [
    "20 1500401 T A", "20 1500650 A G", "20 1500648 G GC", "20 1500285 AT A",
    "20 63025518 N .", "20 1501235 T A,TGGGCCATTA",
]  # fmt: skip
START, END = 1_460_000, 1_540_000


class Sparse(Columns):
    """Signals that are 0 but where something is said, on a contig too long for lists."""

    def at(self, chrom, position, circular):
        if position is None:
            return self.missing
        return tuple(
            self.number(channel, chrom, position) if position in self.signals[channel.name][chrom]
            else self.missing[i]
            for i, channel in enumerate(self.spec.channels)
        )  # fmt: skip


@pytest.fixture(scope="module")
def fasta(shared_dir: Path) -> Path:
    return shared_dir / "data/chr20/chr20_GRCh37.fa.gz"


@pytest.fixture(scope="module")
def peaks() -> dict[str, dict[str, dict[int, float]]]:
    """Peaks of 200 bases."""
    rng = np.random.default_rng(1)
    return {
        name: {
            "20": {
                int(at) + i: float(height)
                for at, height in zip(
                    range(START, END, 900), np.round(rng.gamma(1, 4, 100), 2), strict=False
                )
                for i in range(200)
            }
        }
        for name in ("CTCF", "ATAC")
    }


def write_peaks(path: Path, values: dict[int, float], length: int) -> Path:
    file = pyBigWig.open(str(path), "w")
    file.addHeader([("20", length)])
    places = sorted(values)
    ends = [x + 1 for x in places]
    file.addEntries(["20"] * len(places), places, ends=ends, values=[values[x] for x in places])
    file.close()
    return path


def bundle_of(folder: Path, network: Predictor, official, family, card, names=()) -> Path:
    folder.mkdir()
    graph.write_graph(network, folder / GRAPH, "fp32")
    if names:
        (folder / "tracks.tsv").write_text("\n".join(["identifier", *names, ""]))
    made = whole_card(official, family, network, SimpleNamespace(card=card))
    write_bundle(folder, made.model_dump(exclude={"sha256"}))
    return folder


def check(
    text: str, tag: str, suffixes: list[str], oracle: list[ContactOracle], alleles: int
) -> None:
    """Compare every number of a VCF with the oracle of each map; differences are well above 0."""
    compared = 0
    for record in records_of(text):
        for i, alt in enumerate(record.alts):
            chrom, pos, ref, _ = record.site
            assert record.per_alt(f"{tag}_STATUS")[i] == "SCORED"
            for name in ("CONTACT_L1", "INSULATION:radius=3"):
                key = name.replace(":radius=", "_RADIUS")
                for suffix, one in zip(suffixes, oracle, strict=True):
                    found = float(record.per_alt(f"{tag}_{key}{suffix}")[i])
                    expected = one.score(chrom, int(pos), ref, alt, name)
                    assert found == pytest.approx(expected, rel=1e-3, abs=2e-6), (key, record.site)
                    assert name != "CONTACT_L1" or expected > 1e-4
                    compared += 1
    assert compared == alleles * 2 * len(oracle)


def test_origami_on_chr20(tmp_path: Path, fasta: Path, peaks) -> None:
    torch.set_num_threads(1)
    widths = [4] * 11 + [6]
    network = origami(**{**ORIGAMI_MODEL, "bins": 8, "widths": widths})
    assert network.length == 65_536
    card = corigami._card(network)
    bundle = bundle_of(tmp_path / "bundle", network, ORIGAMI, corigami.FAMILY, card)
    files = {
        name: write_peaks(tmp_path / f"{name}.bw", values["20"], 63_025_520)
        for name, values in peaks.items()
    }
    source = write_vcf(tmp_path / "in.vcf", [*RECORDS[1:5], "20 1501235 T A"])
    options = [x for name, path in files.items() for x in ("--signal", f"{name}={path}")]
    scores = ["-s", "CONTACT_L1,INSULATION:radius=3"]
    out = tmp_path / "out.vcf"
    assert call("vcf", source, "-f", fasta, "-m", bundle, *options, *scores, "-o", out) == 0
    oracle = ContactOracle(bundle, fasta, 0, alignment={})
    oracle.columns = Sparse(oracle.spec, {"20": []}, peaks)
    check(out.read_text(), "CORIGAMI", [""], [oracle], 4)


def test_akita_on_chr20(tmp_path: Path, fasta: Path) -> None:
    torch.set_num_threads(1)
    network = small_akita(**{**AKITA_MODEL, "bins": 24, "tower": [6] * 8})
    assert network.length == 24 * 512
    card = akita._card(network.config)
    names = ("HFF", "H1", "GM")
    bundle = bundle_of(tmp_path / "bundle", network, AKITA, akita.FAMILY, card, names)
    source, out = write_vcf(tmp_path / "in.vcf", RECORDS), tmp_path / "out.vcf"
    scores = ["-s", "CONTACT_L1,INSULATION:radius=3"]
    assert call("vcf", source, "-f", fasta, "-m", bundle, *scores, "-o", out) == 0
    first = ContactOracle(bundle, fasta, 0)
    oracle = [first.of_map(which) for which in range(3)]
    check(out.read_text(), "AKITA", [f"_{x}" for x in names], oracle, 6)
