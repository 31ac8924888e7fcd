"""Contact maps: coolers read as the cooler package reads them, targets, and a run that learns."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pyBigWig
import pysam
import pytest
import scipy.ndimage
import torch

from glm_annotate.card import ModelCard
from glm_annotate.errors import InputError
from glm_annotate.genome import reverse_complement, to_codes, to_text
from glm_annotate.train.families import FAMILIES
from glm_annotate.train.supervised.config import SupervisedConfig
from glm_annotate.train.supervised.contacts import ContactsObjective
from glm_annotate.train.supervised.exporting import card_of_run
from glm_annotate.train.supervised.maps import Cooler, log_map, observed_expected
from glm_annotate.train.supervised.windows import Setup

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = {"a": 1300, "b": 800}
# 8 bins of 32 bases, of which 6 are given, without two diagonals.
AKITA = {
    "bins": 8, "stem": 4, "stem_kernel": 3, "tower": [4, 4, 4, 4], "tower_kernel": 3,
    "narrow": 4, "repeat": 1, "neck": 4, "neck_kernel": 3, "flat": 4, "flat_narrow": 4,
    "flat_repeat": 1, "crop": 1, "diagonal": 2, "maps": 1,
}  # fmt: skip
ORIGAMI = {"bins": 8, "first": 4, "widths": [4, 4, 4, 4], "layers": 1, "heads": 2, "hidden": 8,
           "dilations": [2]}  # fmt: skip


def write_cooler(path: Path, size: int, matrices: dict[str, np.ndarray], weights) -> None:
    """Write the layout of cooler's schema, version 3."""
    bins = [-(-n // size) for n in SIZES.values()]
    offsets = np.cumsum([0, *bins])
    rows, columns, counts = [], [], []
    for first, matrix in zip(offsets, matrices.values(), strict=False):
        i, j = np.triu_indices(len(matrix))
        kept = matrix[i, j] > 0
        rows.append(i[kept] + first)
        columns.append(j[kept] + first)
        counts.append(matrix[i, j][kept])
    bin1 = np.concatenate(rows)
    with h5py.File(path, "w") as out:
        out.attrs.update({"format": "HDF5::Cooler", "format-version": 3, "bin-type": "fixed",
                          "bin-size": size, "storage-mode": "symmetric-upper",
                          "nbins": int(offsets[-1]), "nnz": len(bin1)})  # fmt: skip
        out["chroms/name"] = np.array(list(SIZES), dtype="S8")
        out["chroms/length"] = list(SIZES.values())
        out["bins/chrom"] = np.repeat(np.arange(2), bins).astype(np.int32)
        starts = np.concatenate([np.arange(n) * size for n in bins])
        out["bins/start"] = starts
        out["bins/end"] = np.minimum(starts + size, np.repeat(list(SIZES.values()), bins))
        out["bins/weight"] = weights
        out["indexes/chrom_offset"] = offsets
        out["indexes/bin1_offset"] = np.searchsorted(bin1, np.arange(offsets[-1] + 1))
        out["pixels/bin1_id"] = bin1
        out["pixels/bin2_id"] = np.concatenate(columns)
        out["pixels/count"] = np.concatenate(counts)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    texts = {k: to_text(rng.integers(4, size=n).astype(np.uint8)) for k, n in SIZES.items()}
    (tmp_path / "g.fa").write_text("".join(f">{k}\n{t}\n" for k, t in texts.items()))
    pysam.faidx(str(tmp_path / "g.fa"))
    matrices = {}
    for name, size in SIZES.items():
        bins = -(-size // 32)
        apart = np.abs(np.arange(bins)[:, None] - np.arange(bins))
        matrix = rng.poisson(30 / (1 + apart))
        matrices[name] = np.triu(matrix) + np.triu(matrix, 1).T
    weights = rng.random(sum(len(x) for x in matrices.values())) + 0.5
    weights[7] = np.nan
    write_cooler(tmp_path / "m.cool", 32, matrices, weights)
    np.savez(tmp_path / "truth.npz", weights=weights, **matrices)
    with pyBigWig.open(str(tmp_path / "s.bw"), "w") as out:
        out.addHeader(list(SIZES.items()))
        for name, size in SIZES.items():
            out.addEntries(name, 0, values=rng.random(size).tolist(), span=1, step=1)
    return tmp_path


def truth(folder: Path, contig: str) -> np.ndarray:
    kept = np.load(folder / "truth.npz")
    first = 0 if contig == "a" else len(kept["a"])
    weights = kept["weights"][first : first + len(kept[contig])]
    return kept[contig] * weights[:, None] * weights


@pytest.mark.parametrize(("contig", "start", "bins"), [("a", 0, 8), ("a", 5, 12), ("b", 20, 9)])
def test_squares_of_a_cooler(folder, contig, start, bins):
    found = Cooler("m.cool", folder, balance=True).read(contig, start, bins)
    whole = truth(folder, contig)
    wanted = np.full((bins, bins), np.nan)
    part = whole[start : start + bins, start : start + bins]
    wanted[: len(part), : len(part)] = part
    np.testing.assert_allclose(found, wanted)


def test_the_cooler_package_reads_the_same(folder):
    cooler = pytest.importorskip("cooler")
    other = cooler.Cooler(str(folder / "m.cool"))
    for balance in (True, False):
        wanted = other.matrix(balance=balance).fetch("a")
        found = Cooler("m.cool", folder, balance=balance).read("a", 0, len(wanted))
        np.testing.assert_allclose(found, wanted)


def test_coolers_that_do_not_fit(folder):
    with h5py.File(folder / "m.mcool", "w") as out:
        out.create_group("resolutions/32")
    with pytest.raises(InputError, match="one of several resolutions"):
        Cooler("m.mcool", folder, balance=True)
    with h5py.File(folder / "m.cool", "r+") as out:
        del out["bins/weight"]
    with pytest.raises(InputError, match="cooler balance"):
        Cooler("m.cool", folder, balance=True)
    with pytest.raises(InputError, match="no contig z"):
        Cooler("m.cool", folder, balance=False).check("z", 10)
    with pytest.raises(InputError, match="another assembly"):
        Cooler("m.cool", folder, balance=False).check("a", 9999)


def test_maps_are_resized_as_scipy_does():
    contacts = np.random.default_rng(0).random((9, 9)) * 10
    wanted = scipy.ndimage.zoom(contacts, 13 / 9, order=1, mode="reflect", grid_mode=True)
    np.testing.assert_allclose(log_map(contacts, 13), np.log1p(wanted), atol=1e-6)
    same = log_map(contacts, 9)
    np.testing.assert_allclose(same, np.log1p(contacts))
    contacts[2] = contacts[:, 2] = np.nan
    assert np.isnan(log_map(contacts, 9)).sum() == 17


def test_observed_over_expected_by_hand():
    contacts = np.array([[4.0, 2, 1], [2, 8, 6], [1, 6, np.nan]])
    found = observed_expected(contacts, 2.0)
    wanted = np.log([[4 / 6, 2 / 4, 1], [2 / 4, 8 / 6, 6 / 4], [1, 6 / 4, 1]])
    wanted[2, 2] = np.nan
    np.testing.assert_allclose(found, wanted)
    assert observed_expected(contacts, 0.1)[0, 1] == -0.1


def make(folder: Path, family: str, model: dict, **contacts) -> ContactsObjective:
    values = {"fasta": "g.fa", "cooler": ["m.cool"], "split": {"valid": ["b"]}, **contacts}
    config = SupervisedConfig.model_validate(
        {"contacts": values, "loss": {"kind": "mse"}, "leakage": {"allow": True},
         "augment": {"shift": 0}}
    )  # fmt: skip
    torch.manual_seed(0)
    built = FAMILIES[family].build(model)
    return ContactsObjective(config, built, Setup(family, 1, 8, folder, folder, folder / "run"))


SIGNALS = [{"name": "CTCF", "file": "s.bw"}, {"name": "ATAC", "file": "s.bw", "transform": "log1p"}]


@pytest.mark.parametrize("family", ["akita", "corigami"])
def test_batches_of_both_kinds(folder, family):
    upper = family == "akita"
    if upper:
        objective = make(folder, family, AKITA, kind="observed_expected")
    else:
        objective = make(folder, family, ORIGAMI, signals=SIGNALS)
    text = to_text(objective.genome.codes("a"))
    batch = objective.batch(0, 0.0)
    turned_seen = set()
    for row in range(8):
        window = "".join("ACGTN"[i] for i in batch["rows"][row].tolist())
        back = to_text(reverse_complement(to_codes(window)))
        turned = window not in text
        turned_seen.add(turned)
        start = text.find(back if turned else window)
        assert start % 32 == 0
        whole = truth(folder, "a")[start // 32 : start // 32 + 8, start // 32 : start // 32 + 8]
        square = observed_expected(whole, 2.0)[1:7, 1:7] if upper else np.log1p(whole)
        square = square[::-1, ::-1] if turned else square
        cells = square[np.triu_indices(6, 2)] if upper else square.ravel()
        np.testing.assert_allclose(batch["targets"][row, :, 0].numpy(), cells, atol=1e-5)
        if not upper:
            with pyBigWig.open(str(folder / "s.bw")) as signal:
                values = signal.values("a", start, start + 256, numpy=True)
            values = values[::-1] if turned else values
            beside = batch["channels"][row].numpy()
            np.testing.assert_allclose(beside[:, 0], values, atol=1e-6)
            np.testing.assert_allclose(beside[:, 1], np.log1p(values), atol=1e-6)
    assert turned_seen == {True, False}
    objective.network.eval()
    with torch.no_grad():
        found = objective.predict(objective.network, batch)
        loss = objective.total(objective.network, batch) / objective.weight(batch)
    wanted = np.nanmean((found - batch["targets"]).numpy() ** 2)
    assert loss.item() == pytest.approx(wanted, rel=1e-5)
    figures = objective.validate(objective.network)
    assert figures["pearson"].better == "higher"
    assert objective.valid == [("b", 0), ("b", 8), ("b", 16)]
    card = card_of_run(objective.config, objective.predictor)
    contacts = card["contacts"]
    assert contacts == {"bin_size": 32, "diagonal": 2 if upper else 0,
                        "layout": "upper" if upper else "square", "symmetric": upper}  # fmt: skip
    axes = {"name": "rows", "axes": ["batch", "length"], "dtype": "uint8"}
    outputs = {"contacts": {"name": "contacts", "axes": objective.predictor.outputs["contacts"]}}
    facts = {"inputs": {"rows": axes}, "outputs": outputs, "objective": "contacts"}
    ModelCard.model_validate({"name": "x", "tag": "X", **facts, **card})


def test_a_run_learns_how_contacts_fall(folder):
    objective = make(folder, "corigami", ORIGAMI, signals=SIGNALS)
    before = objective.validate(objective.network)["loss"].value
    optimizer = torch.optim.Adam(objective.network.parameters(), lr=0.01)
    for step in range(25):
        objective.network.train()
        batch = objective.batch(step, 0.0)
        loss = objective.total(objective.network, batch) / objective.weight(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = objective.validate(objective.network)
    assert after["loss"].value < before / 2
    assert after["pearson"].value > 0.5


@pytest.mark.parametrize(
    ("family", "model", "keys", "message"),
    [
        ("corigami", ORIGAMI, {}, "the network reads 2"),
        ("akita", {**AKITA, "maps": 2}, {}, "1 files, the network has 2 maps"),
        ("akita", {**AKITA, "tower": [4] * 5}, {"kind": "observed_expected"}, "needs them equal"),
        ("akita", {**AKITA, "bins": 64}, {}, "no stretch holds a window"),
    ],
)
def test_networks_that_do_not_fit(folder, family, model, keys, message):
    with pytest.raises(InputError, match=message):
        make(folder, family, model, **keys)
