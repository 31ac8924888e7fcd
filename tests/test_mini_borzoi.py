"""A trained model from its Keras file to scores in a VCF, against numbers of its own authors' code.

mini-Borzoi is a test model of baskerville, 131,072 bases and 74 tracks of human assays; the golden
files were made with baskerville under TensorFlow. Each window takes most of a second.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from cli_kit import HEAD, call, header_of, records_of
from engine import Allele, make_chunk
from toy_tracks import TrackEngine

from glm_annotate.genome import Genome
from glm_annotate.track_table import read_tracks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
# Our names of the scores of baskerville.
GOLDEN = {
    "SAD": "SUM", "LOGSAD": "logSUM", "LOGSED": "logSED", "SQRTSAD": "sqrtSUM", "SAX": "SAX",
    "D1": "D1", "LOGD1": "logD1", "D2": "D2", "LOGD2": "logD2", "JS": "JS",
}  # fmt: skip
LENGTH, BIN, CROP = 131_072, 32, 1024


@dataclass(frozen=True)
class Mini:
    """The bundle, a genome beside which an index may be written, and what baskerville gave."""

    bundle: Path
    fasta: Path
    alleles: list[Allele]
    ids: list[str]
    scores: dict[str, np.ndarray]
    window: tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def mini(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Mini:
    h5py = pytest.importorskip("h5py")
    pytest.importorskip("torch")
    source = shared_dir / "models" / "mini_borzoi"
    folder = tmp_path_factory.mktemp("mini")
    for path in source.iterdir():
        shutil.copyfile(path, folder / path.name)
    bundle = folder / "bundle"
    assert call("export", folder / "model.h5", "-o", bundle) == 0
    with h5py.File(folder / "golden_scores.h5") as file:
        sites = [file[name].asstr()[:].tolist() for name in ("chr", "ref_allele", "alt_allele")]
        places = file["pos"][:].tolist()
        alleles = [(c, p, r, a) for c, p, r, a in zip(sites[0], places, *sites[1:], strict=True)]
        scores = {ours: file[theirs][:].astype(np.float64) for ours, theirs in GOLDEN.items()}
        ids = file["target_ids"].asstr()[:].tolist()
    with np.load(folder / "golden_window.npz") as file:
        window = file["x"], file["y"]
    return Mini(bundle, folder / "hg38_1m.fa.gz", alleles, ids, scores, window)


@pytest.fixture(scope="module")
def session(mini: Mini) -> Any:
    return onnxruntime.InferenceSession(
        str(mini.bundle / "model.onnx"), providers=["CPUExecutionProvider"]
    )


def allowed(golden: np.ndarray, noise: float = 2e-5) -> np.ndarray:
    """How far we may be: 2e-3 of a number, since the file holds half precision, and the noise.

    Both sides compute in float32, and differences of sums of 10 to 200 cannot be better than that.
    Computed in float64, 14 of the 3,760 golden numbers are off by more than 2e-3 of themselves and
    1e-6 (ours: 20), and one of SQRTSAD by more than 1e-5; against each other it is 22 and that one.
    """
    return 2e-3 * np.abs(golden) + noise


def test_window(mini: Mini, session: Any) -> None:
    x, wanted = mini.window
    rows = np.where(x.any(2), x.argmax(2), 4).astype(np.uint8)
    (found,) = session.run(["tracks"], {"rows": rows})
    assert wanted.max() > 20
    assert np.abs(found - wanted).max() <= 1e-4


def test_scores_of_every_track(mini: Mini) -> None:
    engine = TrackEngine(mini.bundle, mini.fasta, tuple(GOLDEN), strand="forward", threads=2)
    assert engine.model.tracks is not None
    assert list(engine.model.tracks.names) == mini.ids
    (result,) = engine.results(make_chunk(mini.alleles))
    beyond = {1e-6: 0, 1e-5: 0}
    for name, golden in mini.scores.items():
        found = result.tracks[name]
        assert found.shape == golden.shape == (8, 47)
        off = np.abs(found - golden)
        assert (off <= allowed(golden)).all(), name
        for noise in beyond:
            beyond[noise] += int((off > allowed(golden, noise)).sum())
        # The smallest of them, LOGSED and JS, are still far above what is allowed.
        assert np.abs(golden).max() > 100 * 2e-5
    # Other processors round in other places.
    assert beyond[1e-6] <= 40
    assert beyond[1e-5] <= 2


def test_vcf(mini: Mini, tmp_path: Path) -> None:
    """Through the command line: the track with the largest score, and its score."""
    source, out = tmp_path / "eqtl.vcf", tmp_path / "out.vcf"
    lines = (mini.fasta.parent / "eqtl.vcf").read_text().splitlines()
    records = [x + "\t." for x in lines if x and not x.startswith("#")]
    source.write_text(HEAD + "".join(f"{x}\n" for x in records))
    scores = ",".join(GOLDEN)
    options = ("-m", mini.bundle, "-s", scores, "--strand", "forward", "--no-version")
    assert call("vcf", source, "-f", mini.fasta, "-o", out, *options) == 0
    text = out.read_text()
    assert sum("ID=BORZ_" in x for x in header_of(text)) == 2 * len(GOLDEN) + 1
    found = records_of(text)
    assert [record.site for record in found] == [(c, str(p), r, a) for c, p, r, a in mini.alleles]
    for i, record in enumerate(found):
        assert record.info["BORZ_STATUS"] == "SCORED"
        for name, golden in mini.scores.items():
            top = mini.ids.index(record.info[f"BORZ_{name}_TOP"])
            value = float(record.info[f"BORZ_{name}_MAX"])
            assert abs(value - golden[i, top]) <= allowed(golden[i, top]) + 1e-5 * abs(value)
            assert np.abs(golden[i]).max() <= abs(value) + 2 * allowed(golden[i, top])


def test_promoter_and_strands(mini: Mini, session: Any) -> None:
    """chr1:900,768-966,304: DNASE peaks at the promoter of NOC2L and KLHL17, TSS 959,290."""
    genome = Genome(mini.fasta)
    left = 900_768 - CROP * BIN
    forward = genome.windows("chr1", np.array([left]), LENGTH)
    (found,) = session.run(["tracks"], {"rows": np.minimum(forward, 4).astype(np.uint8)})
    table = read_tracks(mini.bundle / "tracks.tsv")
    dnase = [i for i, x in enumerate(table.tracks) if x.assay == "DNASE"]
    mean = found[0][:, dnase].mean(axis=1)
    places = 900_768 + BIN * np.sort(mean.argsort()[-4:])
    assert places.tolist() == [959_232, 959_264, 959_296, 959_328]
    reverse = np.where(forward < 4, 3 - forward, forward)[:, ::-1]
    (turned,) = session.run(["tracks"], {"rows": np.minimum(reverse, 4).astype(np.uint8)})

    def agreement(other: np.ndarray) -> float:
        return float(
            np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(found[0].T, other.T, strict=True)])
        )

    flipped = turned[0][::-1]
    assert agreement(flipped[:, table.pair]) > 0.85  # 0.886 of both strands of a window
    assert agreement(flipped) < 0.4  # 0.283 where strands are not swapped
    assert agreement(turned[0][:, table.pair]) < 0.2
