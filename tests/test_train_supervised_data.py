"""Supervised objectives: batches against what lies in the files, and small runs that learn."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyBigWig
import pytest
import torch
from supervised_kit import random_text, write_fasta

from glm_annotate.errors import InputError
from glm_annotate.genome import N, reverse_complement, to_codes, to_text
from glm_annotate.train.families import FAMILIES
from glm_annotate.train.supervised import make_supervised
from glm_annotate.train.supervised.config import SupervisedConfig, TrackConfig
from glm_annotate.train.supervised.examples import ExamplesObjective
from glm_annotate.train.supervised.exporting import card_of_run, tracks_of
from glm_annotate.train.supervised.reading import Example
from glm_annotate.train.supervised.stored import store
from glm_annotate.train.supervised.tracks import TracksObjective
from glm_annotate.train.supervised.variants import VariantsObjective
from glm_annotate.train.supervised.windows import Setup, run

pytestmark = pytest.mark.usefixtures("one_thread")

NAN = float("nan")
LETTERS = "ACGTN"
# Windows of 64 bases, bins of 4, two of them cut off at each side.
BASENJI = {
    "length": 64, "stem": 8, "stem_kernel": 5, "tower": [8], "narrow": 4, "dilations": [1],
    "crop": 2, "wide": 8, "tracks": 2,
}  # fmt: skip
BASSET = {
    "length": 24, "widths": [8], "kernels": [5], "pools": [4], "hidden": 8, "tracks": 1,
}  # fmt: skip


def write_bigwig(path: Path, values: dict[str, np.ndarray]) -> None:
    with pyBigWig.open(str(path), "w") as out:
        out.addHeader([(name, len(x)) for name, x in values.items()])
        for name, x in values.items():
            known = np.flatnonzero(~np.isnan(x))
            out.addEntries(
                [name] * known.size, known.tolist(), ends=(known + 1).tolist(),
                values=x[known].tolist(),
            )  # fmt: skip


def setup(folder: Path, batch: int = 4, seed: int = 3) -> Setup:
    return Setup("family", seed, batch, folder, folder, folder / "run")


def network(family: str, values: dict, seed: int = 0):
    torch.manual_seed(seed)
    return FAMILIES[family].build(values)


def text_of(rows: torch.Tensor) -> str:
    return "".join(LETTERS[i] for i in rows.tolist())


def train(objective, steps: int, lr: float = 0.02) -> list[float]:
    """The loop in short: the loss of every step."""
    optimizer = torch.optim.AdamW(objective.network.parameters(), lr=lr)
    found = []
    for step in range(steps):
        objective.network.train()
        batch = objective.batch(step, 0.0)
        loss = objective.total(objective.network, batch) / objective.weight(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


# Stores


@pytest.fixture
def folder(tmp_path):
    texts = {"a": random_text(700, 1), "b": random_text(500, 2), "c": random_text(300, 3)}
    write_fasta(tmp_path / "g.fa", texts)
    rng = np.random.default_rng(0)
    for name in ("p", "m"):
        values = {k: rng.integers(1, 9, size=len(t)).astype(float) for k, t in texts.items()}
        values["a"][100:150] = NAN
        write_bigwig(tmp_path / f"{name}.bw", values)
    return tmp_path


def genome_of(folder):
    from glm_annotate.genome import Genome

    return Genome(folder / "g.fa")


def test_a_bigwig_by_cells(folder):
    tracks = [TrackConfig(identifier="p", file="p.bw"),
              TrackConfig(identifier="x", file="m.bw", sum_stat="max")]  # fmt: skip
    (folder / "black.bed").write_text("a\t41\t43\n")
    found = store(genome_of(folder), ["a", "c"], tracks, data=folder, folder=folder / "run",
                  resolution=8, blacklist=folder / "black.bed")  # fmt: skip
    with pyBigWig.open(str(folder / "p.bw")) as p, pyBigWig.open(str(folder / "m.bw")) as m:
        plus = np.nan_to_num(p.values("a", 0, 696, numpy=True)).reshape(-1, 8).sum(1)
        most = np.nan_to_num(m.values("a", 0, 696, numpy=True)).reshape(-1, 8).max(1)
        last = np.nan_to_num(p.values("c", 288, 296, numpy=True)).sum()
    plus[5] = most[5] = NAN  # the cell of bases 40 to 47
    read = found.read("a", -1, 90)
    np.testing.assert_allclose(read[1:88], np.stack([plus, most], 1))
    assert np.isnan(read[[0, 88, 89]]).all()  # before the contig, and a cell that is not full
    assert found.read("c", 36, 1)[0, 0] == pytest.approx(last)


def test_a_store_is_made_once_and_anew_where_a_file_changes(folder):
    tracks = [TrackConfig(identifier="p", file="p.bw")]

    def made():
        store(genome_of(folder), ["a"], tracks, data=folder, folder=folder / "run", resolution=4)
        return {x.name: x.stat().st_mtime_ns for x in (folder / "run").glob("*.npy")}

    first = made()
    assert made() == first
    write_bigwig(folder / "p.bw", {"a": np.ones(700)})
    assert len(made()) == 2


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        ("coverage", [0, 1, 2, 2, 1, 1, 0, 0]),
        ("presence", [0, 1, 1, 1, 1, 1, 0, 0]),
        ("ends", [0, 1, 1, 1, 0, 1, 0, 0]),
        ("score", [0, 3, 5, 5, 5, 5, 0, 0]),
    ],
)
def test_what_a_bed_gives_a_base(folder, mode, wanted):
    (folder / "x.bed").write_text("c\t2\t6\tn\t5\nc\t1\t4\tn\t3\n")
    tracks = [TrackConfig(identifier="x", file="x.bed", bed=mode)]
    found = store(genome_of(folder), ["c"], tracks, data=folder, folder=folder, resolution=1)
    assert found.read("c", 0, 8)[:, 0].tolist() == wanted


@pytest.mark.parametrize(
    ("file", "message"),
    [("none.bw", "cannot be read"), ("g.fa", "wanted a .bw"), ("bad.bw", "not a bigWig"),
     ("short.bw", "found 600 bases"), ("other.bw", "found no such contig"), ("", "no file")],
)  # fmt: skip
def test_files_that_do_not_fit(folder, file, message):
    (folder / "bad.bw").write_text("no bigWig at all")
    write_bigwig(folder / "short.bw", {"a": np.ones(600)})
    write_bigwig(folder / "other.bw", {"z": np.ones(600)})
    tracks = [TrackConfig(identifier="p", file=file)]
    with pytest.raises(InputError, match=message):
        store(genome_of(folder), ["a"], tracks, data=folder, folder=folder, resolution=4)


# Tracks


def tracks_config(**keys) -> SupervisedConfig:
    species = {
        "fasta": "g.fa",
        "split": {"valid": ["b"], "test": ["c"]},
        "track": [
            {"identifier": "s+", "file": "p.bw", "strand_pair": "s-"},
            {"identifier": "s-", "file": "m.bw", "strand_pair": "s+"},
        ],
    }
    values = {"tracks": {"bin": 4, "resolution": 2, "species": [species]}, **keys}
    return SupervisedConfig.model_validate({"leakage": {"allow": True}, **values})


def places_of(rows: torch.Tensor, text: str) -> list[tuple[int, bool]]:
    """Find where a window without N lies, and whether it was turned around."""
    window = text_of(rows)
    turned = to_text(reverse_complement(to_codes(window)))
    return [(text.find(x), x == turned) for x in (window, turned) if x in text]


def test_batches_are_what_the_files_say(folder):
    config = tracks_config(augment={"shift": 3})
    objective = TracksObjective(config, network("basenji2", BASENJI), setup(folder, 16))
    assert (objective.shape.bins, objective.shape.crop) == (12, 8)
    text = genome_of(folder)
    text = to_text(text.codes("a"))
    with pyBigWig.open(str(folder / "p.bw")) as p, pyBigWig.open(str(folder / "m.bw")) as m:
        values = np.stack([np.nan_to_num(x.values("a", 0, 700, numpy=True)) for x in (p, m)], 1)
    seen = set()
    for step in range(4):
        batch = objective.batch(step, 0.0)
        for rows, targets in zip(batch["rows"], batch["targets"].numpy(), strict=True):
            if "N" in text_of(rows):
                continue
            [(start, turned)] = places_of(rows, text)
            forward = targets[::-1, ::-1] if turned else targets  # the pair is swapped too
            shifts = [
                s for s in range(-3, 4) for first in [start + 8 - s]
                if first % 2 == 0 and 0 <= first <= 700 - 48
                and np.allclose(values[first : first + 48].reshape(12, 4, 2).sum(1), forward)
            ]  # fmt: skip
            assert len(shifts) == 1, (step, start, turned)
            seen.add((shifts[0], turned))
    assert {s for s, _ in seen} == set(range(-3, 4))
    assert {t for _, t in seen} == {True, False}


def test_a_batch_is_a_function_of_seed_and_step(folder):
    made = [TracksObjective(tracks_config(), network("basenji2", BASENJI), setup(folder, 4, seed))
            for seed in (3, 3, 4)]  # fmt: skip
    for key in ("rows", "targets"):
        one, two, other = (x.batch(7, 0.0)[key] for x in made)
        assert torch.equal(one, two)
        assert not torch.equal(one, other)
        assert not torch.equal(one, made[0].batch(8, 0.0)[key])


def test_held_out_windows_tile_their_contig(folder):
    objective = TracksObjective(tracks_config(), network("basenji2", BASENJI), setup(folder))
    (species,) = objective.species
    assert species.valid == [("b", cell) for cell in range(0, 500 // 2 - 23, 24)]
    record = objective.record()
    assert record.groups == {"species": ["a"]}
    assert record.valid == {"species valid": ["b"], "species test": ["c"]}
    assert [x.name for x in record.files] == ["g.fa", "p.bw", "m.bw"]
    # A window at the end of a contig has N beyond it, and its targets are there.
    codes = species.codes("b", 0)
    assert (codes[:8] == N).all()
    assert (codes[8:] < 4).all()
    thinned = tracks_config().tracks.model_copy(update={"valid_windows": 3})
    config = tracks_config().model_copy(update={"tracks": thinned})
    few = TracksObjective(config, network("basenji2", BASENJI), setup(folder))
    assert few.species[0].valid == [("b", 0), ("b", 24 * 4), ("b", 24 * 9)]


def test_validation_measures_the_predictions(folder):
    config = tracks_config(loss={"kind": "mse"})
    config = config.model_copy(
        update={"tracks": config.tracks.model_copy(update={"valid_coarse": 3}), "batch_valid": 3}
    )
    objective = TracksObjective(config, network("basenji2", BASENJI), setup(folder))
    objective.network.train()
    figures = objective.validate(objective.network)
    assert objective.network.training
    (species,) = objective.species
    found, wanted = [], []
    objective.network.eval()
    for place in species.valid:
        rows = torch.from_numpy(np.minimum(species.codes(*place), 4))[None]
        with torch.no_grad():
            out = run(objective.network, objective.predictor, rows, None)["tracks"]
        found.append(out[0].numpy())
        wanted.append(species.targets(*place))
    for name, wide in (("pearson", 1), ("pearson_coarse", 3)):
        x, y = (np.concatenate(v).reshape(-1, wide, 2).sum(1) for v in (found, wanted))
        r = np.mean([np.corrcoef(x[:, i], y[:, i])[0, 1] for i in range(2)])
        assert figures[name].value == pytest.approx(r, abs=1e-5)
        assert (figures[name].better, figures[name].count) == ("higher", len(x))
    error = (np.concatenate(found) - np.concatenate(wanted)) ** 2
    assert figures["loss"].value == pytest.approx(error.mean(), rel=1e-5)


def test_species_train_their_own_tracks(folder):
    other = {"name": "mouse", "fasta": "g.fa", "split": {"train": ["b"], "valid": ["c"]},
             "track": [{"identifier": "x", "file": "p.bw"}]}  # fmt: skip
    config = tracks_config()
    values = config.model_dump()
    values["tracks"]["species"] = [*values["tracks"]["species"], other]
    config = SupervisedConfig.model_validate(values)
    objective = TracksObjective(
        config, network("basenji2", {**BASENJI, "tracks": 3}), setup(folder, 32)
    )
    targets = objective.batch(0, 0.0)["targets"]
    known = ~targets.isnan().any(1)
    assert sorted({tuple(x) for x in known.tolist()}) == [(False, False, True), (True, True, False)]
    for row in range(32):
        objective.network.zero_grad()
        batch = {k: v[row : row + 1] for k, v in objective.batch(0, 0.0).items()}
        objective.network.eval()
        objective.total(objective.network, batch).backward()
        touched = objective.network.head.weight.grad.abs().sum(1) > 0
        assert touched.tolist() == known[row].tolist()
    assert {"species.pearson", "mouse.pearson"} <= objective.validate(objective.network).keys()


def test_regions_lie_in_the_middle(folder):
    (folder / "r.bed").write_text("a\t399\t401\nb\t200\t210\n")
    values = tracks_config(augment={"shift": 0, "reverse_complement": False}).model_dump()
    values["tracks"]["species"][0].update(regions="r.bed", region_share=1.0)
    objective = TracksObjective(
        SupervisedConfig.model_validate(values), network("basenji2", BASENJI), setup(folder, 64)
    )
    text = to_text(genome_of(folder).codes("a"))  # b is held out: its region is left out
    starts = [places_of(x, text)[0][0] for x in objective.batch(0, 0.0)["rows"]]
    assert {abs(x + 32 - 400) <= 14 for x in starts} == {True}
    assert len(set(starts)) > 5


def test_arrays_in_place_of_files(folder):
    texts = {f"w{i}": random_text(96, i) for i in range(4)}
    write_fasta(folder / "w.fa", texts)
    targets = np.random.default_rng(0).random((4, 12, 3)).astype(np.float16)
    np.savez(folder / "t.npz", targets=targets, contigs=np.array(list(texts)))
    values = tracks_config(augment={"shift": 0, "reverse_complement": False}).model_dump()
    species = values["tracks"]["species"][0]
    values["tracks"] |= {"resolution": None}
    species |= {
        "fasta": "w.fa",
        "arrays": {"file": "t.npz"},
        "split": {"valid": ["w2"], "test": ["w3"]},
        "track": [{"identifier": "a", "column": 2}, {"identifier": "b", "column": 0}],
    }
    config = SupervisedConfig.model_validate(values)
    objective = TracksObjective(
        config, network("basenji2", {**BASENJI, "length": 40, "crop": 1}), setup(folder, 16)
    )
    for rows, found in zip(*objective.batch(0, 0.0).values(), strict=True):
        name, start = next(
            (k, t.find(text_of(rows))) for k, t in texts.items() if text_of(rows) in t
        )
        first = (start + 4 - 24) // 4  # targets are of bases 24 to 72 of the 96
        wanted = targets[int(name[1])][first : first + 8][:, [2, 0]]
        np.testing.assert_array_equal(found.numpy(), wanted.astype(np.float32))
        assert name in ("w0", "w1")


def test_a_run_learns_where_gs_are(tmp_path):
    texts = {name: random_text(4000, seed) for seed, name in enumerate("ab")}
    write_fasta(tmp_path / "g.fa", texts)
    write_bigwig(
        tmp_path / "p.bw",
        {k: np.array([x == "G" for x in t], dtype=float) for k, t in texts.items()},
    )
    write_bigwig(
        tmp_path / "m.bw",
        {k: np.array([x == "C" for x in t], dtype=float) for k, t in texts.items()},
    )
    config = tracks_config()
    values = config.model_dump()
    values["tracks"]["species"][0]["split"] = {"valid": ["b"]}
    objective = TracksObjective(
        SupervisedConfig.model_validate(values), network("basenji2", BASENJI), setup(tmp_path, 8)
    )
    before = objective.validate(objective.network)["pearson"].value
    found = train(objective, 40)
    after = objective.validate(objective.network)["pearson"].value
    assert np.mean(found[-10:]) < np.mean(found[:10])
    assert after > max(0.6, before + 0.3)


@pytest.mark.parametrize(
    ("change", "model", "message"),
    [
        ({}, {"tracks": 3}, "the network has 3 tracks, the config 2"),
        ({"bin": 6}, {}, "do not lie in its middle"),
        ({}, {"length": 1024}, "no stretch of g.fa holds a window"),
    ],
)
def test_networks_that_do_not_fit(folder, change, model, message):
    values = tracks_config().model_dump()
    values["tracks"] |= change
    with pytest.raises(InputError, match=message):
        TracksObjective(
            SupervisedConfig.model_validate(values),
            network("basenji2", BASENJI | model),
            setup(folder),
        )


def test_language_models_predict_no_tracks(folder):
    gpn = {"vocabulary": 7, "dim": 8, "hidden": 8, "kernel": 3, "dilations": [1]}
    with pytest.raises(InputError, match="predicts no tracks"):
        TracksObjective(tracks_config(), network("gpn", gpn), setup(folder))


def test_what_a_bundle_says(folder):
    values = tracks_config().model_dump()
    values["tracks"]["species"][0]["track"][0].update(
        sum_stat="sum_sqrt", clip_soft=32.0, scale=0.5, description="RNA:liver"
    )
    config = SupervisedConfig.model_validate(values)
    plus, minus = tracks_of(config)
    assert plus == {
        "identifier": "s+", "description": "RNA:liver", "assay": "RNA", "biosample": "liver",
        "strand_pair": "s-", "transform": "new:sum_sqrt", "clip_soft": "32.0", "scale": "0.5",
    }  # fmt: skip
    assert (minus["transform"], minus["biosample"]) == ("new:sum", "species")
    card = card_of_run(config, network("basenji2", BASENJI))
    assert {k: card[k] for k in ("context", "anchor", "bin_size", "crop")} == {
        "context": 64, "anchor": 31, "bin_size": 4, "crop": 2,
    }  # fmt: skip


# Sequences


def examples(folder: Path, model: dict | None = None, **keys) -> ExamplesObjective:
    config = SupervisedConfig.model_validate({"leakage": {"allow": True}, **keys})
    return ExamplesObjective(config, network("basset", {**BASSET, **(model or {})}), setup(folder))


@pytest.mark.parametrize(
    ("length", "shift", "wanted"),
    [(4, 0, "CGTA"), (4, 1, "GTAC"), (8, 0, "NACGTACN"), (8, -2, "NNNACGTA"), (2, 9, "NN")],
)
def test_windows_of_a_sequence(length, shift, wanted):
    example = Example("x", to_codes("ACGTAC"), np.zeros(1, dtype=np.float32), "")
    assert to_text(example.window(length, shift)) == wanted


def write_labels(folder: Path, count: int = 60) -> dict[str, str]:
    """Sequences of 24 bases; those with a motif in the middle are promoters."""
    found = {}
    for i in range(count):
        text = random_text(24, 100 + i)
        found[f"s{i}"] = text[:8] + "TATAAA" + text[14:] if i % 2 else text
    lines = [
        f">{k} {'promoter' if i % 2 else '0'}\n{t}\n" for i, (k, t) in enumerate(found.items())
    ]
    (folder / "s.fa").write_text("".join(lines))
    return found


def test_labels_of_a_fasta_are_learned(tmp_path):
    texts = write_labels(tmp_path, 200)
    objective = examples(
        tmp_path,
        labels={"fasta": "s.fa", "valid_share": 0.25},
        loss={"kind": "bce"},
        augment={"shift": 0},
    )
    assert objective.classes == ("promoter",)
    values = [x.values[0] for x in objective.examples]
    assert values == [i % 2 for i in range(200)]
    parts = objective.parts
    assert parts.train.size + parts.valid.size == 200
    assert not set(parts.train) & set(parts.valid)
    assert 20 < parts.valid.size < 80
    # An epoch reads every sequence of the training part once, on either strand.
    steps = -(-parts.train.size // 4)
    rows = torch.cat([objective.batch(i, 0.0)["rows"] for i in range(steps)])[: parts.train.size]
    own = [list(texts.values())[i] for i in parts.train]
    both = {to_text(reverse_complement(to_codes(t))): t for t in own} | {t: t for t in own}
    assert sorted(both[text_of(x)] for x in rows) == sorted(own)
    assert {text_of(x) in own for x in rows} == {True, False}
    train(objective, 150, lr=0.01)
    figures = objective.validate(objective.network)
    assert figures["auroc"].value > 0.8
    assert figures["average_precision"].value > 0.8
    assert figures["auroc"].better == "higher"


def test_labels_of_a_bed(folder):
    (folder / "p.bed").write_text("a\t20\t30\tx,y\nb\t50\t60\ty\nc\t50\t60\t0\na\t2\t4\tx\n")
    objective = examples(
        folder,
        {"tracks": 2},
        labels={"fasta": "g.fa", "bed": "p.bed", "classes": ["y", "x"], "split": {"valid": ["b"]}},
        loss={"kind": "bce"},
        augment={"shift": 2},
    )
    text = to_text(genome_of(folder).codes("a"))
    assert objective.values.tolist() == [[1, 1], [1, 0], [0, 0], [0, 1]]
    assert objective.parts.train.tolist() == [0, 2, 3]
    assert text_of(torch.from_numpy(objective.examples[0].window(24))) == text[13:37]
    # Bases around the window come from the genome, not N, when it is moved.
    assert text_of(torch.from_numpy(objective.examples[0].window(24, 2))) == text[15:39]
    assert text_of(torch.from_numpy(objective.examples[3].window(24))) == "N" * 9 + text[:15]


def test_satoris_files(tmp_path):
    texts = [random_text(24, i) for i in range(6)]
    rows = [f"c{i % 2}\t{i}\t{i + 24}\tx\t{'t1,t2' if i % 3 else 't2'}\n" for i in range(6)]
    (tmp_path / "d.txt").write_text("".join(rows))
    titles = [f">c{i % 2}:{i}-{i + 24}(+)\n{t}\n" for i, t in enumerate(texts)]
    (tmp_path / "d.fa").write_text("".join(titles))
    keys = {"labels": {"satori": "d", "split": {"valid": ["c1"]}}, "loss": {"kind": "bce"}}
    objective = examples(tmp_path, {"tracks": 2}, **keys)
    assert objective.classes == ("t1", "t2")
    assert objective.values[:, 0].tolist() == [0, 1, 1, 0, 1, 1]
    assert objective.parts.valid.tolist() == [1, 3, 5]
    (tmp_path / "d.fa").write_text("".join(titles[::-1]))
    with pytest.raises(InputError, match="the same order"):
        examples(tmp_path, {"tracks": 2}, **keys)


def test_classes_that_exclude_each_other(tmp_path):
    (tmp_path / "s.fa").write_text(
        "".join(f">s{i} {'xyz'[i % 3]}\n{random_text(600, i)}\n" for i in range(30))
    )
    torch.manual_seed(0)
    model = {"length": 40, "filters": 8, "hidden": 0, "heads": 2, "head_dim": 4, "dim": 8,
             "tracks": 3, "exclusive": True}  # fmt: skip
    config = SupervisedConfig.model_validate(
        {"labels": {"fasta": "s.fa", "exclusive": True, "valid_share": 0.3}}
    )
    objective = ExamplesObjective(config, FAMILIES["satori"].build(model), setup(tmp_path, 8))
    batch = objective.batch(0, 0.0)
    objective.network.eval()
    found = objective.predict(objective.network, batch["rows"])
    wanted = -torch.log(found[torch.arange(8), batch["targets"].argmax(1)]).mean()
    loss = objective.total(objective.network, batch) / objective.weight(batch)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)


def write_table(folder: Path, rows: list[tuple[str, object, str]]) -> None:
    lines = [f"{text}\t{value}\t{fold}\n" for text, value, fold in rows]
    (folder / "t.tsv").write_text("sequence\texpression\tfold\n" + "".join(lines))


def test_numbers_of_a_table(tmp_path):
    texts = [random_text(20, i) for i in range(12)]
    write_table(tmp_path, [(t, i, f"f{i % 3}") for i, t in enumerate(texts)])
    objective = examples(
        tmp_path,
        regression={
            "table": "t.tsv", "fold": "fold", "split": {"valid": ["f1"], "test": ["f2"]},
            "left": "AC", "right": "GT", "offset": 2, "scale": 0.1,
        },
        loss={"kind": "mse"},
        augment={"shift": 0, "reverse_complement": False},
    )  # fmt: skip
    batch = objective.batch(0, 0.0)
    assert sorted(batch["targets"][:, 0].tolist()) == pytest.approx([-0.2, 0.1, 0.4, 0.7])
    own = {f"AC{t}GT": (i - 2) * 0.1 for i, t in enumerate(texts)}
    for rows, value in zip(batch["rows"], batch["targets"], strict=True):
        assert own[text_of(rows)] == pytest.approx(value.item(), abs=1e-6)
    figures = objective.validate(objective.network)
    assert figures.keys() == {"loss", "pearson", "spearman"}
    assert figures["loss"].count == 4
    assert tracks_of(objective.config)[0]["units"] == "(expression - 2) x 0.1"


@pytest.mark.parametrize(
    ("row", "loss", "message"),
    [
        (("ACGU", 1, "f0"), "mse", "line 6: 'ACGU' is no sequence"),
        (("ACGT", "high", "f0"), "mse", "line 6: 'high' is no number"),
        (("ACGT", -2, "f0"), "poisson", "the least value is -2"),
        (("ACGT", 2, "f0"), "bce", "wanted 0 to 1"),
    ],
)
def test_tables_that_do_not_fit(tmp_path, row, loss, message):
    rows = [(random_text(20, i), 0.5, f"f{i % 2}") for i in range(4)]
    write_table(tmp_path, [*rows, row])
    with pytest.raises(InputError, match=message):
        examples(
            tmp_path,
            regression={"table": "t.tsv", "fold": "fold", "split": {"valid": ["f1"]}},
            loss={"kind": loss},
        )


def test_sequences_that_leak(tmp_path):
    # Adapters that all share are no leak, a sequence with one base changed is.
    texts = [random_text(60, i) for i in range(10)]
    copies = [t[:30] + "ACGT"["ACGT".index(t[30]) - 1] + t[31:] for t in texts[:5]]
    adapter = random_text(40, 99)
    for held, refused in ((texts[5:], False), (copies, True)):
        rows = [(adapter + t, 1, "f0") for t in texts[:5]] + [(adapter + t, 1, "f1") for t in held]
        write_table(tmp_path, rows)
        keys = {
            "regression": {"table": "t.tsv", "fold": "fold", "split": {"valid": ["f1"]}},
            "loss": {"kind": "mse"},
            "leakage": {"allow": False, "contained": 0.2},
        }
        if refused:
            with pytest.raises(InputError, match=r"5 of 5 held-out windows"):
                examples(tmp_path, **keys)
        else:
            assert examples(tmp_path, **keys).leakage.leaked == 0


def test_homologs_are_held_out_together(tmp_path):
    texts = [random_text(60, i) for i in range(20)]
    rows = [(t[:i] + "A" + t[i + 1 :], 1, "") for t in texts for i in (10, 30, 50)]
    write_table(tmp_path, rows)
    keys = {"regression": {"table": "t.tsv", "valid_share": 0.3}, "loss": {"kind": "mse"},
            "leakage": {"allow": False, "contained": 0.2}}  # fmt: skip
    objective = examples(tmp_path, **keys)
    groups = [set((part // 3).tolist()) for part in (objective.parts.train, objective.parts.valid)]
    assert not groups[0] & groups[1]
    assert objective.parts.valid.size == 3 * len(groups[1])
    keys["regression"]["homology"] = False
    with pytest.raises(InputError, match="have a copy among the training sequences"):
        examples(tmp_path, **keys)


# Effects of variants


def test_effects_of_variants(folder):
    text = {k: to_text(genome_of(folder).codes(k)) for k in "abc"}
    other = {"A": "C", "C": "G", "G": "T", "T": "A"}
    lines = ["##fileformat=VCFv4.2", "##contig=<ID=a>", "##contig=<ID=b>",
             '##INFO=<ID=E,Number=A,Type=Float,Description="e">',
             "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]  # fmt: skip
    for contig, pos in itertools.product("ab", (30, 60, 90)):
        ref = text[contig][pos - 1]
        lines.append(f"{contig}\t{pos}\t.\t{ref}\t{other[ref]}\t.\t.\tE={pos / 10}")
    ref = text["a"][119:122]
    lines.append(f"a\t120\t.\t{ref}\t{ref[0]}\t.\t.\tE=1.5")
    (folder / "v.vcf").write_text("\n".join(lines) + "\n")
    config = SupervisedConfig.model_validate({
        "regression": {"vcf": "v.vcf", "fasta": "g.fa", "key": ["E"], "split": {"valid": ["b"]}},
        "loss": {"kind": "mse"}, "augment": {"shift": 2}, "leakage": {"allow": True},
    })  # fmt: skip
    objective = VariantsObjective(config, network("basset", BASSET), setup(folder, 16))
    assert (len(objective.train), len(objective.valid)) == (4, 3)
    ref_codes, alt_codes = objective.haplotypes(objective.train[0])
    assert to_text(ref_codes) == text["a"][18:42]  # the base sits at 11, the anchor
    assert np.flatnonzero(ref_codes != alt_codes).tolist() == [11]
    moved, _ = objective.haplotypes(objective.train[0], 2)
    assert to_text(moved) == text["a"][20:44]
    ref_codes, alt_codes = objective.haplotypes(objective.train[3])
    assert to_text(ref_codes) == text["a"][108:132]
    assert to_text(alt_codes) == text["a"][108:120] + text["a"][122:134]
    batch = objective.batch(0, 0.0)
    objective.network.eval()
    with torch.no_grad():
        ref_out, alt_out = (
            run(objective.network, objective.predictor, batch[k], None)["tracks"][:, 0]
            for k in ("ref", "alt")
        )
        loss = objective.total(objective.network, batch) / objective.weight(batch)
    wanted = (alt_out - ref_out - batch["targets"]).square().mean()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert objective.validate(objective.network)["spearman"].count == 3
    (folder / "v.vcf").write_text("\n".join(lines).replace("a\t30\t.\t", "a\t31\t.\t") + "\n")
    if text["a"][29] != text["a"][30]:
        with pytest.raises(InputError, match="a:31: REF is"):
            VariantsObjective(config, network("basset", BASSET), setup(folder))


# The registry


def test_a_config_makes_its_objective(folder):
    from glm_annotate.train.config import TrainConfig

    values = {
        "name": "x", "family": "basenji2", "objective": "tracks", "model": BASENJI,
        "data": {"context": 64}, "optim": {"steps": 2, "batch": 2, "warmup_steps": 0},
        "run": {"out": "run"}, "supervised": tracks_config().model_dump(),
    }  # fmt: skip
    config = TrainConfig.model_validate(values)
    one, two = (make_supervised(config, folder, folder) for _ in range(2))
    assert isinstance(one, TracksObjective)
    assert one.batch(0, 0.0)["rows"].shape == (2, 64)
    for a, b in zip(one.network.parameters(), two.network.parameters(), strict=True):
        assert torch.equal(a, b)  # fresh weights are those of the seed


# Recipes


@pytest.mark.parametrize("recipe", ["yeast-atac", "human-dnase"])
def test_recipes_fit_together(repo_dir, recipe):
    from glm_annotate.train.config import load_config

    config = load_config(repo_dir / "recipes" / recipe / "config.toml")
    assert config.supervised is not None
    built = FAMILIES[config.family].build(config.model)
    assert sum(x.numel() for x in built.parameters()) < 1_500_000
    card = card_of_run(config.supervised, built)
    assert card["context"] == config.data.context
    rows = tracks_of(config.supervised)
    with torch.no_grad():
        found = built.eval()(torch.zeros(1, card["context"], 4))[0]
    bins = card["context"] // card["bin_size"] - 2 * card["crop"]
    assert found.shape == (1, bins, len(rows))
    assert config.supervised.tracks.valid_coarse * card["bin_size"] in (200, 128)
