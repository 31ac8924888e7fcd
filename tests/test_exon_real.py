"""Real weights of MMSplice and MTSplice: golden outputs, and the numbers of their authors' program.

The numbers of `OFFICIAL` are those of the package mmsplice 2.4.0 (its exons, haplotypes, parts and
linear model, with kipoiseq 0.7.1) on chromosome 20 of GRCh37.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pysam
import pytest
from engine import write_fasta
from test_exon_frame import NAMES, gtf, run

from glm_annotate.bundle import load_bundle
from glm_annotate.runtime import Settings, open_runners
from glm_annotate.train.export import export_imported
from glm_annotate.train.families.family import Source
from glm_annotate.train.importing import prepare
from glm_annotate.train.known_models import KNOWN

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Bundles of the package mmsplice, by name."""
    pytest.importorskip("h5py")
    try:
        distribution("mmsplice")
    except PackageNotFoundError:
        pytest.skip("the package mmsplice is not installed")
    home = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("mmsplice", "mtsplice"):
            # Their tables of exons take their time, and are of the whole genome.
            patch.setitem(KNOWN, name, replace(KNOWN[name], genes={}))
            export_imported(prepare(name, identify=_no_file), home / name)
    return home


def _no_file(source: Source):
    raise AssertionError(source.name)


def golden(shared_dir: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(shared_dir / "models" / "golden" / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def ids(bases: np.ndarray) -> np.ndarray:
    return np.where(bases.max(axis=2) > 0, bases.argmax(axis=2), 4).astype(np.uint8)


@pytest.mark.parametrize(
    ("file", "name"),
    list(zip(("Intron3", "Acceptor", "Exon", "Donor", "Intron5"), NAMES, strict=True)),
)
def test_golden_modules_through_the_bundle(shared_dir, real, file, name):
    values = golden(shared_dir, f"mmsplice_{file}")
    session = onnxruntime.InferenceSession(real / "mmsplice" / "model.onnx")
    sizes = dict(zip(NAMES, (94, 53, 60, 18, 94), strict=True))
    feeds = {x: np.zeros((4, size), dtype=np.uint8) for x, size in sizes.items()}
    feeds[name] = ids(values["x"])
    (found,) = session.run(["tracks"], feeds)
    wanted = values["y"][:, 0].astype(np.float64)
    if file in ("Acceptor", "Donor"):
        wanted = np.log(wanted / (1 - wanted))
    np.testing.assert_allclose(found[:, 0, NAMES.index(name)], wanted, rtol=1e-5, atol=1e-5)


def test_golden_tissues_through_the_bundle(shared_dir, real):
    values = golden(shared_dir, "mtsplice")
    bundle = load_bundle(real / "mtsplice")
    (runner,) = open_runners(bundle, Settings(threads=1))
    parts = {"acceptor": ids(values["l"]), "donor": ids(values["r"])}
    found = runner.run_parts(parts, frozenset({"tracks"})).array("tracks")
    assert found.shape == (3, 1, 56)
    np.testing.assert_allclose(found[:, 0], values["o"], rtol=1e-5, atol=1e-5)


# Two genes of chromosome 20, and what the authors' program says: DLPSI of the most changed exon;
# of the exon with the largest difference of a tissue, which tissue and how much.
REAL_GENES = {
    "DEFB126": (
        "20",
        "+",
        {"a": [(123230, 123327), (126055, 126392)],
         "b": [(123274, 123327), (126055, 126129), (126219, 126390)]},
    ),
    "AL049634.1": (
        "20",
        "-",
        {"c": [(1497404, 1497691), (1502208, 1502523), (1514124, 1514440), (1532336, 1532684)]},
    ),
}  # fmt: skip
OFFICIAL = """
123242 T G -0.0677189 51 -0.0825459
123289 C T 0.3426001 13 0.0864014
123329 T G -3.9476376 13 -0.0096875
123351 GAAAC G 0.0121406 51 0.0843489
125975 AG GA -0.0002439 51 -0.0253562
126060 TTGGTATGTGAAAAAG T 0.6048495 51 0.2816353
126063 G GGATTATAA -0.3687648 51 0.2471477
126352 CCTG ACCC -0.1957147 13 -0.0819538
126391 TATTCTGG T 0.2004138 51 -0.0284406
1497412 C G 0.1421956 51 -0.0903688
1497414 ACTGGCCTGGACCAGAGC A -0.0611821 51 0.0325996
1497487 G GATGCTGC 0.0931291 51 0.038716
1497617 TTTG CTAC -0.2705756 51 0.0332375
1497763 C CTCATGATTTGAT 0.0500949 0 0.0108624
1502134 ATGCAGGT A 0.4111232 13 -0.036344
1502529 A T -0.4300891 13 0.0862331
1514114 G A 0.5303636 51 -0.0130279
1514427 CTCACCCGCCACTCCTGG C -4.4547274 51 -0.2176117
"""


def test_numbers_of_the_authors_program(shared_dir, tmp_path, real):
    rows = [line.split() for line in OFFICIAL.strip().splitlines()]
    with pysam.FastaFile(str(shared_dir / "data/chr20/chr20_GRCh37.fa.gz")) as file:
        write_fasta(tmp_path / "g.fa", {"20": file.fetch("20", 0, 1_600_000)})
    (tmp_path / "g.gtf").write_text(gtf(REAL_GENES))
    variants = [("20", int(pos), ref, alt) for pos, ref, alt, *_ in rows]
    models = ("-m", real / "mmsplice", "-m", real / "mtsplice")
    infos = run(tmp_path, "x", variants, *models, "--matrix", tmp_path / "x.parquet")
    tissues_of = pd.read_parquet(tmp_path / "x.parquet").query("model == 'MTSPLICE'")
    for (pos, ref, alt, wanted, tissue, most), info in zip(rows, infos, strict=True):
        assert float(info["MMSPLICE_DLPSI"]) == pytest.approx(float(wanted), abs=1e-5, rel=1e-5)
        assert info["MTSPLICE_DLPSI_TOP"] == f"tissue{tissue}"
        assert float(info["MTSPLICE_DLPSI_MAX"]) == pytest.approx(float(most), abs=1e-5)
        own = tissues_of.query(f"pos == {pos} and ref == '{ref}' and alt == '{alt}'")
        assert len(own) == 56
        assert own.DLPSI.abs().max() == pytest.approx(abs(float(most)), abs=1e-5)
