"""Tracks at full size, on real genomes: equal to `vcf` at the same sites, whatever the tiling.

The whole human mitochondrial genome with `mito`, 20,000 bases of yeast with a network of mito's
size and random weights, and a million bases of human chr1 with mini-Borzoi.
"""

from __future__ import annotations

import gzip
import itertools
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pybigtools
import pyBigWig
import pytest
from cli_kit import call, records_of, write_vcf
from numpy.typing import NDArray
from sized_kit import random_mito

from glm_annotate.genome import Genome, to_text

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
Floats = NDArray[np.float64]
_SITES = 120  # of which all substitutions are scored by `vcf`
_MITO = "likelihood,entropy,information,ism"


def track(path: Path, contig: str, end: int) -> Floats:
    """Read a bigWig base by base, equal by two readers; NaN where there is nothing."""
    with pyBigWig.open(str(path)) as file:
        values = np.asarray(file.values(contig, 0, end, numpy=True), dtype=np.float64)
    with pybigtools.open(str(path)) as other:
        again = np.full(end, np.nan)
        for first, last, value in other.records(contig, 0, end):
            again[first:last] = value
    np.testing.assert_array_equal(values, again)
    return values


def fasta_of(source: Path, folder: Path) -> Path:
    """Copy a FASTA to where its index may be written."""
    target = folder / source.name.removesuffix(".gz")
    with gzip.open(source) if source.suffix == ".gz" else open(source, "rb") as data:
        target.write_bytes(data.read())
    return target


def compare_with_vcf(
    folder: Path, tag: str, fasta: Path, model: str | Path, contig: str, places: list[int],
    printed: Callable[[], str],
) -> float:  # fmt: skip
    """Score substitutions by `vcf`, and give the largest difference to the tracks."""
    text = to_text(Genome(fasta).codes(contig))
    sites = [(i, x) for i in places for x in "ACGT".replace(text[i], "") if text[i] in "ACGT"]
    source = write_vcf(
        folder.parent / "some.vcf", [f"{contig} {i + 1} {text[i]} {x}" for i, x in sites]
    )
    assert call("vcf", source, "-f", fasta, "-m", model, "-s", "LLR,ENT") == 0
    end = max(places) + 1
    entropy, information = (
        track(folder / f"{name}.bw", contig, end) for name in ("entropy", "information")
    )
    ism = {x: track(folder / "ism" / f"{x}.bw", contig, end) for x in "ACGT"}
    worst = 0.0
    records = records_of(printed())
    assert len(records) == len(sites)
    for (i, alt), record in zip(sites, records, strict=True):
        llr, ent = (float(record.info[f"{tag}_{x}"]) for x in ("LLR", "ENT"))
        worst = max(
            worst, abs(ism[alt][i] - llr), abs(entropy[i] - ent),
            abs(information[i] - (2 - ent / math.log(2))),
        )  # fmt: skip
    return worst


@pytest.mark.parametrize("case", ["mito", "yeast"])
def test_tracks_of_language_models(
    case: str, shared_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:  # fmt: skip
    model: str | Path = "mito"
    if case == "mito":
        fasta, contig, end = fasta_of(shared_dir / "data/chrM/chrM.fa", tmp_path), "chrM", 16_569
    else:
        pytest.importorskip("torch")
        source = shared_dir / "data/yeast/S288C_R64_16chr.fa.gz"
        fasta, contig, end = fasta_of(source, tmp_path), "chrI", 20_000
        model = random_mito(tmp_path / "random")
    tag = "MITO" if case == "mito" else "RANDOM"
    region = ("-r", f"{contig}:1-{end}")
    common = ("tracks", "-f", fasta, "-m", model, "-k", _MITO)
    assert call(*common, *region, "-o", tmp_path / "all") == 0
    folder = tmp_path / "all" / tag
    values = track(folder / "entropy.bw", contig, end)
    known = np.flatnonzero(np.isfinite(values))
    assert known.size >= end - 1  # chrM has one N
    rng = np.random.default_rng(1)
    places = sorted({int(known[0]), int(known[-1]), *rng.choice(known, _SITES).tolist()})
    capfd.readouterr()
    worst = compare_with_vcf(
        folder, tag, fasta, model, contig, places, lambda: capfd.readouterr().out
    )
    record_property("largest difference to vcf", worst)
    assert worst < 1e-4
    bed = tmp_path / "tiles.bed"
    cuts = [0, 1, 200, 457, 1000]
    tiles = itertools.pairwise(cuts)
    bed.write_text("".join(f"{contig}\t{a}\t{b}\n" for a, b in tiles))
    assert call(*common[:1], bed, *common[1:], "-o", tmp_path / "some") == 0
    for name in ("likelihood", "entropy", "ism/A", "ism/mean"):
        whole = track(folder / f"{name}.bw", contig, 1000)
        np.testing.assert_array_equal(
            track(tmp_path / "some" / tag / f"{name}.bw", contig, 1000), whole
        )


def test_predicted_tracks_of_mini_borzoi(shared_dir: Path, tmp_path: Path) -> None:
    """Whole against tiles, and the golden window of the model's own authors."""
    pytest.importorskip("torch")
    shared = shared_dir / "models/mini_borzoi"
    for name in ("model.h5", "params.json", "targets.txt", "golden_window.npz"):
        shutil.copyfile(shared / name, tmp_path / name)
    fasta = fasta_of(shared / "hg38_1m.fa.gz", tmp_path)
    bundle = tmp_path / "bundle"
    assert call("export", tmp_path / "model.h5", "-o", bundle) == 0
    common = ("tracks", "-f", fasta, "-m", bundle, "-k", "predict")
    assert call(*common, "-o", tmp_path / "all") == 0
    folder = tmp_path / "all" / "BORZ" / "predict"
    assert len(list(folder.iterdir())) == 74
    choice = ("--track-regex", "ENCFF136DBS")
    assert call(*common, *choice, "-r", "chr1:900001-1000000", "-o", tmp_path / "some.bw") == 0
    whole = track(folder / "ENCFF136DBS.bw", "chr1", 1_000_000)
    some = track(tmp_path / "some.bw", "chr1", 1_000_000)
    there = np.isfinite(some)
    assert there.sum() == 100_000
    np.testing.assert_allclose(some[there], whole[there], atol=1e-5, rtol=1e-5)
    # The annotated start of NOC2L is where DNase of HepG2 is highest on this stretch.
    assert abs(int(np.nanargmax(whole[900_000:])) + 900_000 - 959_290) < 200
