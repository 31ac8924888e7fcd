"""Tracks along the genome, against plain loops over windows of the session itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyBigWig
import pytest
from engine import write_fasta
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from region_kit import AlongOracle
from toy_tracks import ROWS, Shape, TrackEngine, maker, with_card, write_toy

from glm_annotate import stretches as module
from glm_annotate.annotate import Model
from glm_annotate.errors import UsageError
from glm_annotate.genome import Genome, Interval
from glm_annotate.plan import PassFailed
from glm_annotate.predict import Predictor, grid_of
from glm_annotate.runtime import OrtRunner

CIRCULAR = frozenset({"ring"})
SHAPES = {
    "bases": Shape(40, 20, 1),
    "bins": Shape(64, 31, 4, 2),
    "whole": Shape(96, 47, 8),
}
ERROR = {"kind": "kmer", "vocab": {"order": "ACGT", "n": "error"}}
CASES: dict[str, tuple[str, int | None, dict[str, Any]]] = {
    "no crop, an eighth": ("bases", None, {}),
    "no crop, no edge": ("bases", 0, {}),
    "crop": ("bins", None, {}),
    "crop and edge": ("bins", 3, {}),
    "one bin a window": ("whole", 5, {}),
    "shifts": ("bins", None, {"shifts": (0, 3, -2)}),
    "forward": ("whole", 1, {"strand": "forward"}),
    "no N": ("bins", None, {"encoder": ERROR}),
}
Make = Callable[..., Path]
Values = np.ndarray[Any, np.dtype[np.float64]]


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(5)
    sizes = {"lin": 451, "ring": 103, "short": 9, "gap": 300}
    made = {name: "".join(rng.choice(list("ACGT"), n)) for name, n in sizes.items()}
    made["lin"] = made["lin"][:200] + "NNR" + made["lin"][203:]
    made["gap"] = made["gap"][:60] + "N" * 180 + made["gap"][240:]
    return write_fasta(tmp_path_factory.mktemp("genome") / "toy.fa", made)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    folder = tmp_path_factory.mktemp("toys")
    graphs = {name: write_toy(folder / name, shape) for name, shape in SHAPES.items()}
    return maker(graphs, SHAPES, tmp_path_factory.mktemp("copies"))


@pytest.fixture(scope="module", params=CASES)
def case(
    request: pytest.FixtureRequest, make: Make, fasta: Path
) -> tuple[Model, Genome, int | None, dict[str, Values]]:
    """A model, and what it says of every contig by the oracle."""
    name, edge, card = CASES[request.param]
    bundle = make(name, **card)
    engine = TrackEngine(bundle, fasta, circular=CIRCULAR)
    oracle = AlongOracle(bundle, fasta, circular=CIRCULAR)
    tracks = len(ROWS)
    wanted = {
        contig: np.array([x or [np.nan] * tracks for x in oracle.along(contig, edge)])
        for contig in engine.genome.contigs
    }
    return engine.model, engine.genome, edge, wanted


def joined(
    model: Model, genome: Genome, asked: Sequence[Interval], edge: int | None
) -> dict[tuple[str, int], Values]:
    """Give the values of every bin that came, by contig and first base; none may come twice."""
    out: dict[tuple[str, int], Values] = {}
    for piece in Predictor(model, genome, edge).predict(asked):
        assert piece.bin_size == model.bundle.card.bin_size
        for i, values in enumerate(piece.values):
            key = piece.contig, piece.start + i * piece.bin_size
            assert key not in out
            assert key[1] < genome.contigs[piece.contig]
            out[key] = values
    order = [(list(genome.contigs).index(name), start) for name, start in out]
    assert order == sorted(order)
    return out


def whole(genome: Genome) -> list[Interval]:
    return [Interval(name, 0, size) for name, size in genome.contigs.items()]


def test_whole_contigs_equal_plain_loops(case: Any) -> None:
    """Ends, gaps, letters other than ACGT, circles shorter and longer than a window."""
    model, genome, edge, wanted = case
    found = joined(model, genome, whole(genome), edge)
    size = model.bundle.card.bin_size or 1
    assert len(found) == sum(len(x) for x in wanted.values())
    for contig, values in wanted.items():
        mine = np.array([found[contig, i * size] for i in range(len(values))])
        np.testing.assert_allclose(mine, values, rtol=2e-5, atol=2e-5)
    # Something of either kind is there to be compared.
    every = np.concatenate([*wanted.values()])
    assert np.isfinite(every).any()
    assert np.nanstd(every) > 0.05


def test_gaps_and_refused_letters_have_no_value(make: Make, fasta: Path) -> None:
    text = "".join("N" if 60 <= i < 240 else "A" for i in range(300))
    for card in ({}, {"encoder": ERROR}):
        engine = TrackEngine(make("whole", **card), fasta)
        found = joined(engine.model, engine.genome, [Interval("gap", 0, 300)], 4)
        lost = 0
        for (_, start), values in found.items():
            # Windows of 96 bases give 32 in their middle.
            left = start // 32 * 32 - 32
            window = [text[i] if 0 <= i < 300 else "N" for i in range(left, left + 96)]
            lacks = "N" in window if card else "A" not in window
            assert np.isnan(values).all() == lacks
            lost += lacks
        assert lost == (38 if card else 12)


boxes = st.lists(
    st.tuples(st.sampled_from(["lin", "ring", "short", "gap"]), st.integers(0, 450),
              st.integers(0, 160)),
    min_size=1, max_size=5,
)  # fmt: skip


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=boxes, most=st.integers(1, 5))
def test_values_depend_on_no_other_stretch(
    case: Any, asked: list[tuple[str, int, int]], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is asked for, and however many windows are run together."""
    from glm_annotate.beds import merged

    model, genome, edge, wanted = case
    cut = [
        Interval(x, min(start, genome.contigs[x]), min(start + length, genome.contigs[x]))
        for x, start, length in asked
    ]
    monkeypatch.setattr(module, "_MOST_WINDOWS", most)
    found = joined(model, genome, merged(cut, genome), edge)
    size = model.bundle.card.bin_size or 1
    for (contig, start), values in found.items():
        np.testing.assert_allclose(values, wanted[contig][start // size], rtol=2e-5, atol=2e-5)
    for x in cut:
        for base in range(x.start, x.end):
            assert (x.chrom, base // size * size) in found


def test_windows_that_stretches_share_are_run_once(make: Make, fasta: Path) -> None:
    engine = TrackEngine(make("bins", strand="forward"), fasta)
    kept = (64 // 4 - 4) * 4
    asked = [Interval("lin", 0, 5), Interval("lin", 9, kept + 1), Interval("lin", kept + 3, 60)]
    before = engine.runner.passes
    joined(engine.model, engine.genome, asked, None)
    assert engine.runner.passes - before == 2
    assert not joined(engine.model, engine.genome, [Interval("lin", 7, 7)], None)


def test_chosen_tracks_are_those_of_all(make: Make, fasta: Path) -> None:
    engine = TrackEngine(make("bins"), fasta)
    full = joined(engine.model, engine.genome, whole(engine.genome), None)
    assert engine.model.tracks is not None
    some = np.array([0, 2, 5])
    tracks = replace(engine.model.tracks, table=engine.model.tracks.table.take(some), which=some)
    part = joined(replace(engine.model, tracks=tracks), engine.genome, whole(engine.genome), None)
    assert list(part) == list(full)
    for key, values in part.items():
        np.testing.assert_array_equal(values, full[key][some])


@pytest.mark.parametrize("most", [1, 8])
def test_a_window_that_fails_spoils_no_other(
    make: Make, fasta: Path, most: int, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Windows of the gap are told by their rows; they fail alone, and the log says where."""
    engine = TrackEngine(make("whole"), fasta)
    full = joined(engine.model, engine.genome, [Interval("lin", 0, 451)], 4)
    run = OrtRunner.run

    def failing(self: OrtRunner, rows: Any, *rest: Any) -> Any:
        if ((rows == 4).sum(axis=1) == 3).any():
            raise PassFailed("no memory")
        return run(self, rows, *rest)

    monkeypatch.setattr(OrtRunner, "run", failing)
    monkeypatch.setattr(module, "_MOST_WINDOWS", most)
    found = joined(engine.model, engine.genome, [Interval("lin", 0, 451)], 4)
    lost = {start for (_, start), values in found.items() if np.isnan(values).all()}
    # Windows from 32 k - 32 to 32 k + 64 that hold 200 to 203.
    assert lost == {start for start in range(0, 451, 8) if start // 32 in (5, 6, 7)}
    for key, values in found.items():
        if key[1] not in lost:
            np.testing.assert_array_equal(values, full[key])
    messages = [x.getMessage() for x in caplog.records if "failed" in x.getMessage()]
    assert [x.split()[5] for x in messages] == ["lin:161", "lin:193", "lin:225"]


@pytest.mark.parametrize(
    ("shape", "edge", "kept", "lead"),
    [
        (Shape(40, 20, 1), None, 30, 5),
        (Shape(64, 31, 4, 2), None, 12, 8),
        (Shape(64, 31, 4, 2), 5, 2, 28),
        (Shape(14, 7, 2), None, 7, 0),
    ],
)
def test_the_grid_by_hand(shape: Shape, edge: int | None, kept: int, lead: int, make: Make,
                          fasta: Path) -> None:  # fmt: skip
    card = TrackEngine(make("bases"), fasta).bundle.card
    card = card.model_copy(
        update={"context": shape.context, "bin_size": shape.bin_size, "crop": shape.crop}
    )
    grid = grid_of(card, edge)
    assert (grid.kept, grid.step, grid.lead) == (kept, kept * shape.bin_size, lead)


def test_an_edge_that_leaves_nothing_is_refused(make: Make, fasta: Path) -> None:
    card = TrackEngine(make("bins"), fasta).bundle.card
    assert grid_of(card, 5).kept == 2
    with pytest.raises(UsageError, match=r"--edge 6: a window of toy tracks has 12 bins.* 0 to 5"):
        grid_of(card, 6)


def test_signals_beside_the_bases_move_with_the_window(tmp_path: Path, fasta: Path) -> None:
    """A graph whose bins are sums of the signal under a wave, so that each place is told apart."""
    length, size = 32, 4
    wave = np.round(1 + 0.5 * np.sin(np.arange(length)), 3).astype(np.float32)
    initial = [
        onnx.numpy_helper.from_array(wave[None, :, None], "wave"),
        onnx.numpy_helper.from_array(np.array([0, length // size, size]), "shape"),
        onnx.numpy_helper.from_array(np.array([2]), "last"),
        onnx.numpy_helper.from_array(np.float32(0), "none"),
    ]
    nodes = [
        onnx.helper.make_node("Cast", ["rows"], ["numbers"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Mul", ["numbers", "none"], ["nothing"]),
        onnx.helper.make_node("Mul", ["channels", "wave"], ["waved"]),
        onnx.helper.make_node("Reshape", ["waved", "shape"], ["bins"]),
        onnx.helper.make_node("Reshape", ["nothing", "shape"], ["no bins"]),
        onnx.helper.make_node("Add", ["bins", "no bins"], ["both"]),
        onnx.helper.make_node("ReduceSum", ["both", "last"], ["tracks"], keepdims=1),
    ]
    value, kinds = onnx.helper.make_tensor_value_info, onnx.TensorProto
    body = onnx.helper.make_graph(
        nodes, "toy",
        [value("rows", kinds.UINT8, ["batch", length]),
         value("channels", kinds.FLOAT, ["batch", length, 1])],
        [value("tracks", kinds.FLOAT, ["batch", length // size, 1])],
        initial,
    )  # fmt: skip
    graph = onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", 17)])
    graph.ir_version = 9
    folder = tmp_path / "toy"
    folder.mkdir()
    onnx.save(graph, folder / "model.onnx")
    vocab = {"order": "ACGT", "single_ids": {"N": 4}}
    channel = {"name": "S", "source": "bigwig", "indel": "reference", "missing": -3}
    inputs = {
        "rows": {"name": "rows", "axes": ("batch", "length"), "dtype": "uint8"},
        "channels": {"name": "channels", "axes": ("batch", "length", "channel")},
    }
    shape = Shape(length, 15, size)
    card = {"encoder": {"kind": "kmer", "vocab": vocab, "channels": [channel]}, "inputs": inputs}
    with_card(folder, shape, [{"identifier": "t"}], shifts=(0, 3), **card)
    signal = np.random.default_rng(4).random(451).round(3)
    with pyBigWig.open(str(tmp_path / "s.bw"), "w") as out:
        out.addHeader([("lin", 451)])
        out.addEntries("lin", 0, values=signal.tolist(), span=1, step=1)
    engine = TrackEngine(folder, fasta, signals={"S": tmp_path / "s.bw"})
    found = joined(engine.model, engine.genome, [Interval("lin", 0, 451)], 1)
    assert len(found) == 113
    for (_, start), (mine,) in found.items():
        left = start // 24 * 24 - 4  # 6 of 8 bins are given
        at, total = start - left, 0.0
        for shift in (0, 3):
            places = range(left + shift, left + shift + length)
            window = [signal[i] if 0 <= i < 451 else -3.0 for i in places]
            for seen, first in ((window, at), (window[::-1], length - at - size)):
                there = range(first, first + size)
                total += sum(seen[i] * float(wave[i]) for i in there) / 4
        assert mine == pytest.approx(total, abs=2e-5)
