"""Sessions: devices, heads, what is bound to a graph, and graphs that are not what a card says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest
from engine import Allele, Engine, write_fasta
from onnx import TensorProto, helper
from oracle import Oracle

from glm_annotate import runtime
from glm_annotate.bundle import load_bundle, read_card, write_bundle
from glm_annotate.errors import BundleError, InputError, UsageError
from glm_annotate.plan import PassFailed, Stopped
from glm_annotate.runtime import Device, OrtRunner, Settings, open_runners, parse_device
from glm_annotate.testing import toy_bundle
from glm_annotate.train import heads

GENOME = {"c": "ACGTTGCAACGGATTC" * 4}
ALLELES: list[Allele] = [
    *(("c", 9, "A", x) for x in "CGT"),
    *(("c", 1, "A", "T"), ("c", 21, "TGC", "T"), ("c", 33, "A", "AGG"), ("c", 64, "C", "G")),
]
SCORES = ["LLR", "PLLR", "ENT", "EMB_L1", "EMB_DOT:pool=all"]


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    return write_fasta(tmp_path / "genome.fa", GENOME)


def same(found: dict[str, list[float | str]], expected: dict[str, list[float | str]]) -> None:
    assert found.keys() == expected.keys()
    for key, values in found.items():
        for value, right in zip(values, expected[key], strict=True):
            if isinstance(value, str) or isinstance(right, str):
                assert value == right
            else:
                assert value == pytest.approx(right, rel=1e-6, abs=1e-6)


# Devices


@pytest.mark.parametrize(
    ("text", "devices", "threads"),
    [
        ("cpu", ["cpu"], 3),
        ("CPU", ["cpu"], 3),
        ("cpu:5", ["cpu"], 5),
        ("cuda", ["cuda:0"], 3),
        ("cuda:1", ["cuda:1"], 3),
        ("cuda:0,2", ["cuda:0", "cuda:2"], 3),
    ],
)
def test_parse_device(text: str, devices: list[str], threads: int) -> None:
    settings = parse_device(text, threads=3, batch=7, tf32=True)
    assert [str(device) for device in settings.devices] == devices
    assert settings.threads == threads
    assert (settings.batch, settings.tf32) == (7, True)
    assert settings.required == text.startswith("cuda")


@pytest.mark.parametrize("text", ["", "gpu", "auto:1", "cpu:1,2", "cpu:", "cuda:a", "cuda:-1"])
def test_unknown_devices(text: str) -> None:
    with pytest.raises(UsageError, match="--device"):
        parse_device(text)


def test_auto_needs_nothing() -> None:
    settings = parse_device("auto")
    assert not settings.required
    assert settings.threads >= 1


class FakeSession:
    """A session that was asked for some providers and got others."""

    got: ClassVar[list[str]] = []
    asked: ClassVar[list[Any]] = []

    def __init__(self, path: str, options: Any, providers: list[Any]) -> None:
        FakeSession.asked = providers
        self._real = onnxruntime_session(path, options, providers=["CPUExecutionProvider"])

    def get_providers(self) -> list[str]:
        return self.got

    def get_inputs(self) -> Any:
        return self._real.get_inputs()

    def get_outputs(self) -> Any:
        return self._real.get_outputs()


onnxruntime_session = onnxruntime.InferenceSession
CUDA = ["CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeSession]:
    monkeypatch.setattr(onnxruntime, "InferenceSession", FakeSession)
    monkeypatch.setattr(FakeSession, "got", ["CPUExecutionProvider"])
    return FakeSession


def test_a_session_that_fell_back_is_an_error_where_cuda_was_asked_for(
    fake: type[FakeSession], tmp_path: Path
) -> None:
    bundle = load_bundle(toy_bundle("markov", tmp_path / "toy"))
    with pytest.raises(InputError, match=r"--device cuda:2: .*--device cpu"):
        open_runners(bundle, parse_device("cuda:2"))


def test_a_session_that_fell_back_says_cpu(fake: type[FakeSession], tmp_path: Path) -> None:
    bundle = load_bundle(toy_bundle("markov", tmp_path / "toy"))
    (runner,) = open_runners(bundle, Settings((Device("cuda"),), required=False))
    assert str(runner.device) == "cpu"


@pytest.mark.parametrize(("tf32", "value"), [(False, "0"), (True, "1")])
def test_what_cuda_is_asked_for(
    tf32: bool, value: str, fake: type[FakeSession], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "got", CUDA)
    bundle = load_bundle(toy_bundle("markov", tmp_path / "toy"))
    runners = open_runners(bundle, parse_device("cuda:1,3", tf32=tf32))
    assert [str(runner.device) for runner in runners] == ["cuda:1", "cuda:3"]
    name, options = fake.asked[0]
    assert name == "CUDAExecutionProvider"
    assert options == {
        "device_id": "3",
        "use_tf32": value,
        "cudnn_conv_algo_search": "HEURISTIC",
    }


def test_trap_tf32_is_off_unless_asked_for(
    fake: type[FakeSession], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime rounds matrix products on newer cards unless it is told not to."""
    monkeypatch.setattr(fake, "got", CUDA)
    bundle = load_bundle(toy_bundle("markov", tmp_path / "toy"))
    for settings in (parse_device("cuda"), Settings((Device("cuda"),))):
        open_runners(bundle, settings)
        assert fake.asked[0][1]["use_tf32"] == "0"


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["wide", "causal", "onehot"])
def test_cuda_agrees_with_the_cpu(kind: str, tmp_path: Path, fasta: Path) -> None:
    bundle = toy_bundle(kind, tmp_path / "toy", context=16)
    scores = [x for x in SCORES if kind != "causal" or x != "PLLR"]
    engine = Engine(bundle, fasta, scores)
    expected = engine.score(ALLELES)
    (runner,) = open_runners(engine.bundle, parse_device("cuda"))
    model = engine.annotator.models[0]
    assert isinstance(model.runners, list)
    model.runners[:] = [runner]
    found = engine.score(ALLELES)
    assert str(runner.device) == "cuda:0"
    for key, values in found.items():
        assert values == pytest.approx(expected[key], rel=1e-4, abs=1e-4)


# Heads


def test_the_shipped_heads_are_what_their_source_builds() -> None:
    built = heads.build()
    assert {path.name: path.read_bytes() for path in heads.FOLDER.iterdir()} == built


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_heads_against_numpy(dtype: str) -> None:
    random = np.random.default_rng(3)
    values = random.normal(scale=3, size=(4, 7, 5)).astype(dtype)
    wide = values.astype(np.float64)

    def run(name: str, **feeds: Any) -> Any:
        session = onnxruntime_session(str(heads.FOLDER / f"{name}.{dtype}.onnx"))
        return session.run(None, {"values": values, **feeds})[0]

    index = np.array([[0, 0], [3, 6], [1, 2], [1, 2]])
    picked = run("rows", index=index)
    assert picked.dtype == np.float32
    np.testing.assert_array_equal(picked, values[index[:, 0], index[:, 1]].astype(np.float32))

    window, weights = np.array([2, 0, 2]), random.random((3, 7))
    pooled = run("pool", window=window, weights=weights)
    assert pooled.dtype == np.float64
    np.testing.assert_allclose(pooled, np.einsum("mt,mtd->md", weights, wide[window]), rtol=1e-13)

    ids = random.integers(0, 5, size=(4, 7))
    logs = wide - np.log(np.exp(wide).sum(axis=2, keepdims=True))
    expected = np.take_along_axis(logs, ids[..., None], axis=2)[..., 0]
    np.testing.assert_allclose(run("tokens", ids=ids), expected, rtol=1e-12, atol=1e-14)


# What is bound


@pytest.mark.parametrize("dtype", ["int32", "uint8"])
def test_integer_inputs(dtype: str, tmp_path: Path, fasta: Path) -> None:
    plain = Engine(toy_bundle("wide", tmp_path / "plain", context=16), fasta, SCORES)
    narrow = toy_bundle("wide", tmp_path / dtype, context=16, dtype=dtype)
    assert Engine(narrow, fasta, SCORES).score(ALLELES) == plain.score(ALLELES)


def shapes_of(engine: Engine) -> list[tuple[int, ...]]:
    """Collect the shapes that the graph is given."""
    seen: list[tuple[int, ...]] = []
    bind = engine.runner._bind

    def note(binding: Any, role: str, values: Any) -> None:
        seen.append(values.shape)
        bind(binding, role, values)

    engine.runner._bind = note  # type: ignore[method-assign]
    return seen


@pytest.mark.parametrize("kind", ["markov", "prefix", "onehot"])
def test_rows_are_padded_to_a_multiple(kind: str, tmp_path: Path, fasta: Path) -> None:
    # These toys see the pad token beyond the last row, padded or not.
    plain = Engine(toy_bundle(kind, tmp_path / "plain", context=16), fasta, SCORES)
    padded = Engine(toy_bundle(kind, tmp_path / "padded", context=16, multiple_of=7), fasta, SCORES)
    shapes = shapes_of(padded)
    same(padded.score(ALLELES), plain.score(ALLELES))
    assert {shape[1] for shape in shapes} == {21}


def regraph(folder: Path, change: Callable[[onnx.ModelProto], None], **card: Any) -> Path:
    """Change a toy's graph and card, and seal the bundle again."""
    model = onnx.load(folder / "model.onnx")
    change(model)
    onnx.checker.check_model(model)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    write_bundle(folder, read_card(folder).model_dump(exclude={"sha256"}) | card)
    return folder


def add_mask_input(model: onnx.ModelProto) -> None:
    """Replace the embedding by the number of rows that the mask shows."""
    graph = model.graph
    shape = ["batch", "rows"]
    graph.input.append(helper.make_tensor_value_info("seen", TensorProto.INT32, shape))
    for node in graph.node:
        node.output[:] = ["plain" if x == "embedding" else x for x in node.output]
    graph.initializer.append(helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]))
    graph.initializer.append(helper.make_tensor("axes", TensorProto.INT64, [1], [2]))
    graph.initializer.append(helper.make_tensor("rows_axis", TensorProto.INT64, [1], [1]))
    graph.node.extend(
        [
            helper.make_node("Cast", ["seen"], ["float_mask"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["float_mask", "rows_axis"], ["shown"]),
            helper.make_node("Unsqueeze", ["shown", "axes"], ["column"]),
            helper.make_node("Mul", ["plain", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "column"], ["embedding"]),
        ]
    )


def test_attention_mask_shows_all_rows_but_the_padding(tmp_path: Path, fasta: Path) -> None:
    toy = toy_bundle("markov", tmp_path / "toy", context=16, multiple_of=5, dim=3)
    card = read_card(toy).model_dump()
    mask = {"name": "seen", "axes": ("batch", "rows"), "dtype": "int32"}
    bundle = regraph(toy, add_mask_input, inputs={**card["inputs"], "attention_mask": mask})
    found = Engine(bundle, fasta, ["EMB_DOT", "LLR"]).score(ALLELES)
    # 20 rows, 16 of them shown: each of 3 channels is 16 in both haplotypes.
    assert found["EMB_DOT"] == [3 * 16 * 16] * len(ALLELES)
    plain = toy_bundle("markov", tmp_path / "plain", context=16)
    same({"LLR": found["LLR"]}, Engine(plain, fasta, ["LLR"]).score(ALLELES))


def to_half(model: onnx.ModelProto) -> None:
    graph = model.graph
    for output in graph.output:
        name = output.name
        for node in graph.node:
            node.output[:] = [f"{name}_wide" if x == name else x for x in node.output]
        graph.node.append(
            helper.make_node("Cast", [f"{name}_wide"], [name], to=TensorProto.FLOAT16)
        )
        output.type.tensor_type.elem_type = TensorProto.FLOAT16


def test_half_precision_outputs(tmp_path: Path, fasta: Path) -> None:
    toy = toy_bundle("wide", tmp_path / "toy", context=16)
    outputs = read_card(toy).model_dump()["outputs"]
    halves = {name: {**tensor, "dtype": "float16"} for name, tensor in outputs.items()}
    bundle = regraph(toy, to_half, outputs=halves)
    found = Engine(bundle, fasta, SCORES).score(ALLELES)
    oracle = Oracle(bundle, fasta)  # reads the same rounded outputs in double
    expected = {
        key: [oracle.score(*allele, text) for allele in ALLELES]
        for key, text in zip(found, SCORES, strict=True)
    }
    same(found, expected)


# Graphs that are not what the card says


def rename_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("extra", TensorProto.FLOAT, ["batch"]))


LATE_IDS = {"first_id": 9, "mask_id": 1, "unk_id": 2}


@pytest.mark.parametrize(
    ("change", "card", "message"),
    [
        (rename_input, {}, "wants the input 'extra', which is not in the card"),
        (lambda model: None, {"encoder": {"kind": "kmer", "vocab": LATE_IDS}},
         "needs 13 values a row of the output logits, the graph has 7"),
        (lambda model: None, {"embedding": {"dim": 9}},
         "needs 9 values a row of the output embedding, the graph has 6"),
    ],
)  # fmt: skip
def test_graphs_that_contradict_the_card(
    change: Callable[[onnx.ModelProto], None], card: dict[str, Any], message: str, tmp_path: Path
) -> None:
    bundle = regraph(toy_bundle("markov", tmp_path / "toy"), change, **card)
    with pytest.raises(BundleError, match=message) as caught:
        open_runners(load_bundle(bundle), Settings())
    assert str(bundle) in str(caught.value)


def test_a_graph_that_cannot_be_loaded(tmp_path: Path) -> None:
    def unknown_operator(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type = "NoSuchOperator"
        model.graph.node[0].domain = "nowhere"
        model.opset_import.append(helper.make_opsetid("nowhere", 1))

    bundle = regraph(toy_bundle("markov", tmp_path / "toy"), unknown_operator)
    with pytest.raises(BundleError, match="ONNX Runtime cannot load it") as caught:
        open_runners(load_bundle(bundle), Settings())
    assert "\n" not in str(caught.value)


# Batches


def runner_of(tmp_path: Path, **settings: Any) -> OrtRunner:
    bundle = load_bundle(toy_bundle("markov", tmp_path / "toy", context=16))
    return open_runners(bundle, Settings(**settings))[0]


def test_batch_size_follows_from_the_rows_on_the_cpu(tmp_path: Path) -> None:
    runner = runner_of(tmp_path)
    sizes = [runner.batch_size(rows) for rows in (1, 512, 8192, 100_000)]
    assert sizes == [16, 16, 1, 1]
    runner.limit(16, 5)
    assert runner.batch_size(16) == 5


def test_a_batch_size_that_was_asked_for(tmp_path: Path) -> None:
    runner = runner_of(tmp_path, batch=12)
    assert runner.batch_size(16) == 12
    runner.limit(16, 3)
    assert (runner.batch_size(16), runner.batch_size(32)) == (3, 12)


def test_passes_are_counted_and_trials_are_not(tmp_path: Path) -> None:
    runner = runner_of(tmp_path, batch=4)
    outputs = frozenset[Any]({"logits"})
    assert runner.seconds_per_pass(16, outputs) > 0
    assert runner.passes == 0
    runner.run(np.zeros((3, 16), dtype=np.int64), outputs)
    assert runner.passes == 3


def test_what_a_graph_cannot_run_is_a_failed_pass(tmp_path: Path) -> None:
    runner = runner_of(tmp_path)
    outputs = frozenset[Any]({"logits"})
    with pytest.raises(PassFailed, match="99"):
        runner.run(np.full((2, 16), 99), outputs)
    runner.stopped = True
    with pytest.raises(Stopped):
        runner.run(np.zeros((2, 16), dtype=np.int64), outputs)


def test_the_smallest_graph_finds_no_card_here(fake: type[FakeSession]) -> None:
    assert not runtime.gets_cuda(Device("cuda"), Settings())
    fake.got = CUDA
    assert runtime.gets_cuda(Device("cuda"), Settings())
