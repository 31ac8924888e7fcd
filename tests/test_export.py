"""Checkpoint to bundle: the graph computes what torch computes, and the card says what was run."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from glm_annotate.bundle import load_bundle, sha256_of
from glm_annotate.cli import run
from glm_annotate.encoding import mask_rows
from glm_annotate.errors import BundleError, InputError
from glm_annotate.genome import to_codes
from glm_annotate.testing import check_bundle
from glm_annotate.train import checkpoints, graph
from glm_annotate.train.checkpoints import Checkpoint
from glm_annotate.train.config import TrainConfig
from glm_annotate.train.export import export
from glm_annotate.train.families import FAMILIES
from glm_annotate.train.families.family import Network

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = {
    "name": "tiny",
    "family": "gpn",
    "model": {"vocabulary": 7, "dim": 16, "kernel": 5, "hidden": 24, "dilations": [1, 2, 4]},
    "encoder": {
        "kind": "kmer",
        "vocab": {"first_id": 3, "single_ids": {"N": 2}, "pad_id": 0, "mask_id": 1},
    },
    "data": {
        "context": 64,
        "groups": [{"name": "a", "fasta": "a.fa", "weight": {"start": 1, "end": 1}}],
    },
    "optim": {"steps": 50, "warmup_steps": 0, "batch": 8},
    "run": {"out": "run"},
}
CARD = {
    "tag": "TINY",
    "scores": ["LLR"],
    "circular": ["chrM"],
    "embedding": {"pool": "window", "k": 5},
    "provenance": {
        "weights_licence": "CC0-1.0",
        "held_out": "Humans.",
        "quality": {"auroc": 0.75},
    },
}


def random_network(seed: int = 0) -> torch.nn.Module:
    """A network without a weight that its initialisation left at 0 or 1."""
    torch.manual_seed(seed)
    network = FAMILIES["gpn"].build(CONFIG["model"])
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    assert not any(((w == 0) | (w == 1)).any() for w in network.parameters())
    return network.eval()


@pytest.fixture(scope="module")
def state() -> Checkpoint:
    return Checkpoint(
        config=TrainConfig.model_validate(CONFIG).model_dump_json(),
        step=40,
        seconds=360.0,
        weights=random_network(1).state_dict(),
        average=random_network(0).state_dict(),
        optimizers=[],
        random=torch.get_rng_state(),
        quality={"a": 1.234567},
        best=1.234567,
        groups={"a": ["NC_2.1", "NC_1.1"]},
        valid={"a": ["NC_3.1"]},
    )


@pytest.fixture(scope="module")
def checkpoint(state, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    checkpoints.save(path, state)
    return path


@pytest.fixture(scope="module")
def bundles(checkpoint, tmp_path_factory):
    """The same checkpoint in both precisions, as reports."""
    folder = tmp_path_factory.mktemp("bundles")
    return {p: export(checkpoint, folder / p, card=CARD, precision=p) for p in ("fp32", "fp16")}


def rows_of(batch: int, length: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(7, size=(batch, length))


@torch.no_grad()
def torch_outputs(network: torch.nn.Module, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ids = torch.from_numpy(rows)
    return network(ids).numpy(), network.embed(ids).numpy()


def ort_outputs(path: Path, *batches: np.ndarray) -> list[list[np.ndarray]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [session.run(["logits", "embedding"], {"rows": rows}) for rows in batches]


# The exporter sees 2 x 41.
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 2), (3, 64), (7, 130)])
def test_the_graph_is_the_network_at_other_shapes(bundles, batch, length):
    rows = rows_of(batch, length, seed=batch)
    found = ort_outputs(bundles["fp32"].folder / "model.onnx", rows)[0]
    for array, wanted in zip(found, torch_outputs(random_network(0), rows), strict=True):
        assert (array.dtype, array.shape) == (np.float32, wanted.shape)
        np.testing.assert_allclose(array, wanted, rtol=0, atol=1e-4 * max(1, abs(wanted).max()))


def test_the_average_was_exported_and_not_the_weights(bundles):
    rows = rows_of(2, 30, seed=9)
    found = ort_outputs(bundles["fp32"].folder / "model.onnx", rows)[0][0]
    assert abs(found - torch_outputs(random_network(1), rows)[0]).max() > 0.1


def test_a_window_scores_the_same_in_any_batch(bundles):
    rows = rows_of(4, 50, seed=3)
    together, *alone = ort_outputs(
        bundles["fp32"].folder / "model.onnx", rows, *(row[None] for row in rows)
    )
    for place, single in enumerate(alone):
        np.testing.assert_allclose(single[0][0], together[0][place], rtol=0, atol=1e-5)


def test_fp16_is_torch_with_rounded_matrices(bundles):
    rounded = random_network(0)
    with torch.no_grad():
        for weight in rounded.parameters():
            if weight.ndim > 1:
                weight.copy_(weight.half().float())
    rows = rows_of(3, 40, seed=5)
    found = ort_outputs(bundles["fp16"].folder / "model.onnx", rows)[0]
    for array, wanted in zip(found, torch_outputs(rounded, rows), strict=True):
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, wanted, rtol=0, atol=1e-4 * max(1, abs(wanted).max()))
    # Rounding is visible, so the check above would have caught weights that were not rounded.
    exact = torch_outputs(random_network(0), rows)[0]
    assert abs(torch_outputs(rounded, rows)[0] - exact).max() > 1e-4


def test_fp16_stores_matrices_in_half_the_bytes(bundles):
    model = onnx.load(bundles["fp16"].folder / "model.onnx")
    kinds = {len(t.dims) > 1: set() for t in model.graph.initializer}
    for tensor in model.graph.initializer:
        kinds[len(tensor.dims) > 1].add(onnx.TensorProto.DataType.Name(tensor.data_type))
    assert kinds == {True: {"FLOAT16"}, False: {"FLOAT"}}
    matrices = sum(w.numel() for w in random_network().parameters() if w.ndim > 1)
    saved = bundles["fp32"].size - bundles["fp16"].size
    # Two bytes a weight, less what the casts take.
    assert 2 * matrices - 100 * 16 < saved <= 2 * matrices


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_graph_is_portable_and_tells_no_secrets(bundles, precision):
    path = bundles[precision].folder / "model.onnx"
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
    operators = {node.op_type for node in model.graph.node}
    assert not operators & {"Gelu", "DFT"}
    assert {"Conv", "Erf", "LayerNormalization"} <= operators
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "rows": ["batch", "length"],
        "logits": ["batch", "length", 7],
        "embedding": ["batch", "length", 16],
    }
    data = path.read_bytes()
    for word in (b"stack_trace", b".py", os.fsencode(Path.home()), os.fsencode(os.getcwd())):
        assert word not in data


class Mixer(Network):
    """A table of ids, and one function on its rows (B, T, D)."""

    def __init__(self, mix):
        super().__init__()
        self.dim, self.vocabulary, self.mix = 8, 7, mix
        self.table = torch.nn.Embedding(7, 8)

    def embed(self, rows):
        return self.mix(self.table(rows))

    def decode(self, embedding):
        return embedding[..., :7]


@pytest.mark.parametrize(
    ("mix", "opset", "operator"),
    [
        (lambda x: torch.fft.fft(x, dim=1).real, graph.OPSET, "DFT"),
        (torch.nn.functional.gelu, 20, "Gelu"),
    ],
)
def test_trap_operators_of_the_cpu_alone_are_refused(mix, opset, operator, tmp_path, monkeypatch):
    """ONNX Runtime would run them on the CPU, in the middle of a graph on a card."""
    monkeypatch.setattr(graph, "OPSET", opset)
    with pytest.raises(BundleError, match=f"holds {operator}, which CUDA lacks"):
        graph.write_graph(Mixer(mix).eval(), tmp_path / "model.onnx", "fp32")


def test_trap_gelu_is_a_formula_in_graphs(tmp_path):
    """Gelu is an operator from opset 20 on, which not every build for CUDA has."""
    path = tmp_path / "model.onnx"
    graph.write_graph(Mixer(torch.nn.functional.gelu).eval(), path, "fp32")
    assert {node.op_type for node in onnx.load(path).graph.node} >= {"Erf"}


def test_onnx_runtime_has_no_complaint(bundles, capfd):
    capfd.readouterr()
    for report in bundles.values():
        ort_outputs(report.folder / "model.onnx", rows_of(1, 1, 0), rows_of(2, 70, 1))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_bundle_loads_and_its_selftest_holds(bundles, precision):
    bundle = load_bundle(bundles[precision].folder)
    assert check_bundle(bundle.path).cases == 2
    selftest = np.load(bundle.path / "selftest.npz")
    rows = selftest["input_rows"]
    assert set(selftest.files) == {"input_rows", "output_logits", "output_embedding"}
    np.testing.assert_array_equal(rows[1][rows[1] != rows[0]], 1)  # the second row is masked
    assert (rows[1] == 1).any()
    for name, array in zip(
        ("logits", "embedding"), ort_outputs(bundle.graph, rows)[0], strict=True
    ):
        wanted = selftest[f"output_{name}"]
        limit = bundle.card.atol * max(1, abs(wanted).max())
        np.testing.assert_allclose(array, wanted, rtol=0, atol=limit)
    # What the bundle's own encoder makes of bases goes through the graph.
    encoded = bundle.encoder.encode(to_codes("ACGTNACGT")[None])[0].rows
    masked = mask_rows(encoded, np.arange(9) == 4, bundle.card.encoder)
    assert ort_outputs(bundle.graph, masked.astype(np.int64))[0][0].shape == (1, 9, 7)


def test_the_card_has_the_facts_of_the_run(bundles):
    card = bundles["fp16"].card
    assert (card.name, card.tag, card.family, card.objective) == ("tiny", "TINY", "gpn", "masked")
    assert (card.context, card.anchor, card.precision) == (64, 32, "fp16")
    assert (card.embedding.dim, card.embedding.pool, card.embedding.k) == (16, "window", 5)
    assert card.encoder.model_dump(exclude_unset=True)["vocab"]["mask_id"] == 1
    assert (card.circular, card.scores) == (("chrM",), ("LLR",))
    provenance = card.provenance
    assert provenance.held_out == "Humans. a: NC_3.1"
    digest = hashlib.sha256(b"NC_1.1\nNC_2.1\n").hexdigest()
    assert provenance.accessions == f"2 a; sha256 of their sorted names, one a line: {digest}"
    assert provenance.citation.startswith("Benegas")
    parameters = sum(w.numel() for w in random_network().parameters())
    bases = 40 * 8 * 64
    # 6 operations a parameter and base, over 10^15 a second for a day.
    assert provenance.compute_pfs_days == pytest.approx(6 * parameters * bases / 8.64e19, rel=1e-3)
    quality = provenance.quality
    assert quality["auroc"] == 0.75
    assert (quality["step"], quality["bases"], quality["parameters"]) == (40, bases, parameters)
    assert quality["training_hours"] == 0.1
    assert quality["held_out_cross_entropy"] == {"a": 1.23457}


def test_the_report_and_the_card_agree(bundles):
    for precision, report in bundles.items():
        worst = max(
            case.deviation[name] / max(1, case.largest[name])
            for case in report.parity
            for name in ("logits", "embedding")
        )
        quality = report.card.provenance.quality
        assert quality["onnx_against_torch"] == pytest.approx(worst, rel=0.05)
        assert 0 < 10 * worst <= report.card.atol <= 1e-3
        shapes = {(case.batch, case.length) for case in report.parity}
        assert shapes == {(1, 1), (1, 64), (5, 19)}
        assert ("fp16_against_fp32" in quality) == (precision == "fp16")
        rounding = max(report.rounding.deviation.values())
        assert rounding == 0 if precision == "fp32" else 1e-4 < rounding < 0.1
        assert report.size == (report.folder / "model.onnx").stat().st_size


def test_the_same_checkpoint_gives_the_same_bytes(bundles, checkpoint, tmp_path):
    again = export(checkpoint, tmp_path / "other_name", card=CARD, precision="fp16")
    first = bundles["fp16"].folder
    names = sorted(p.name for p in first.iterdir())
    assert names == sorted(p.name for p in again.folder.iterdir())
    assert names == ["card.json", "model.onnx", "selftest.npz"]
    assert [sha256_of(first / n) for n in names] == [sha256_of(again.folder / n) for n in names]


def test_large_graphs_keep_their_weights_beside(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "_INLINE_BYTES", 0)
    report = export(checkpoint, tmp_path / "b", card=CARD)
    names = {p.name for p in report.folder.iterdir()}
    assert names == {"card.json", "model.onnx", "model.onnx.data", "selftest.npz"}
    bundle = load_bundle(report.folder)
    rows = rows_of(2, 20, 0)
    wanted = torch_outputs(random_network(0), rows)[0]
    np.testing.assert_allclose(ort_outputs(bundle.graph, rows)[0][0], wanted, rtol=0, atol=1e-4)
    assert report.size > (report.folder / "model.onnx.data").stat().st_size > 16_000


def test_a_graph_that_is_off_is_refused_and_nothing_stays(checkpoint, tmp_path, monkeypatch):
    run = graph.run_graph

    def off(path, batches, *, attention):
        outputs = run(path, batches, attention=attention)
        outputs[1]["logits"][0, 0, 0] += 0.5
        return outputs

    monkeypatch.setattr(graph, "run_graph", off)
    with pytest.raises(BundleError, match=r"model\.onnx: logits of 1 x 64 rows differs .* by 0\.5"):
        export(checkpoint, tmp_path / "b", card=CARD)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [float("nan"), 2e-4])
def test_what_parity_refuses(bad):
    near = graph.Parity(1, 2, {"logits": 9e-5, "embedding": 4e-4}, {"logits": 0.5, "embedding": 5})
    near.check(Path("model.onnx"))
    far = dataclasses.replace(near, deviation={"logits": bad, "embedding": 0.0})
    with pytest.raises(BundleError, match=r"allowed are 0\.0001"):
        far.check(Path("model.onnx"))


def test_weights_beyond_float16_are_refused(state, tmp_path):
    average = {k: v * (1e6 if k == "head.weight" else 1) for k, v in state.average.items()}
    checkpoints.save(tmp_path / "c.ckpt", dataclasses.replace(state, average=average))
    with pytest.raises(BundleError, match=r"head\.weight: holds .*; export with --precision fp32"):
        export(tmp_path / "c.ckpt", tmp_path / "b", card=CARD, precision="fp16")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": {}}, "card: 'encoder' comes from the checkpoint"),
        ({"tags": "X"}, r"card: unknown key 'tags'; known here: anchor, atol, .*tag, version"),
        ({"tag": "tiny"}, "tag 'tiny' must be capitals"),
        ({"context": 8, "anchor": 8}, "anchor 8 lies outside a window of 8 bases"),
        ({"context": "long"}, "card: context: "),
        ({"provenance": {"licence": "x"}}, "card: provenance.licence: "),
        ({"embedding": "site"}, "card: embedding: found 'site', wanted a table"),
        ({"scope": {"contigs": [{"nam": "M"}]}}, r"card: scope\.contigs\.0\."),
    ],
)
def test_a_bad_card_is_one_line(checkpoint, tmp_path, change, message):
    with pytest.raises(InputError, match=message) as caught:
        export(checkpoint, tmp_path / "b", card={**CARD, **change})
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_card_files(checkpoint, tmp_path):
    with pytest.raises(InputError, match=r"none\.toml: cannot read the card"):
        export(checkpoint, tmp_path / "b", card=tmp_path / "none.toml")
    path = tmp_path / "card.toml"
    path.write_text("tag = TINY")
    with pytest.raises(InputError, match=r"card\.toml: not TOML"):
        export(checkpoint, tmp_path / "b", card=path)
    path.write_text('tag = "TINY"\ntaxa = 1')
    with pytest.raises(InputError, match=r"card\.toml: unknown key 'taxa'"):
        export(checkpoint, tmp_path / "b", card=path)


def test_weights_that_do_not_fit_their_config(state, tmp_path):
    average = {k: v for k, v in state.average.items() if k != "head.bias"}
    checkpoints.save(tmp_path / "c.ckpt", dataclasses.replace(state, average=average))
    with pytest.raises(InputError, match=r"c\.ckpt: the weights do not fit .*head\.bias") as caught:
        export(tmp_path / "c.ckpt", tmp_path / "b", card=CARD)
    assert "\n" not in str(caught.value)


def test_what_lies_in_the_way(checkpoint, tmp_path):
    file, other, bundle = (tmp_path / name for name in ("file", "other", "bundle"))
    file.write_text("mine")
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    bundle.mkdir()  # an empty folder is free
    export(checkpoint, bundle, card=CARD)
    with pytest.raises(InputError, match="a file lies where the bundle goes"):
        export(checkpoint, file, card=CARD, force=True)
    with pytest.raises(InputError, match=r"holds files and no card\.json"):
        export(checkpoint, other, card=CARD, force=True)
    with pytest.raises(InputError, match="is there already; replace it with --force"):
        export(checkpoint, bundle, card=CARD)
    assert (other / "thesis.txt").read_text() == file.read_text() == "mine"
    export(checkpoint, bundle, card={**CARD, "tag": "NEW"}, force=True)
    assert load_bundle(bundle).card.tag == "NEW"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "file", "other"]


def test_the_command(checkpoint, repo_dir, tmp_path, capsys):
    card = repo_dir / "recipes" / "mito" / "card.toml"
    words = ["export", checkpoint, "-o", tmp_path / "b", "--card", card, "--precision", "fp16"]
    # In a new process: the exporter says most of what it has to say once.
    module = [sys.executable, "-m", "glm_annotate", *map(str, words)]
    done = subprocess.run(module, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.startswith(f"{tmp_path / 'b'}: ")
    # Three shapes by two outputs, and what rounding did to two outputs.
    assert done.stdout.count("ONNX Runtime against torch") == 6, done.stdout
    assert done.stdout.count("fp16 against fp32") == 2, done.stdout
    made = load_bundle(tmp_path / "b").card
    assert (made.name, made.tag, made.scores) == ("mito", "MITO", ("LLR", "PLLR"))
    assert (made.precision, made.circular) == ("fp16", ("chrM", "MT", "M", "NC_012920.1"))
    for contig, length, expected in [
        ("chrM", 16_571, True),  # hg19
        ("MT", 16_569, True),
        ("NC_012920.1", 16_569, True),
        ("M", 14_999, False),
        ("chr1", 16_569, False),
    ]:
        assert made.in_scope(contig, length) is expected
    assert run([str(word) for word in words]) == 1
    error = capsys.readouterr().err
    expected = f"{tmp_path / 'b'}: is there already; replace it with --force\n"
    assert error == f"glm-annotate: error: {expected}"


def test_the_command_that_trains(tmp_path, capsys):
    config = str(tmp_path / "none.toml")
    assert run(["train", config, "--data", str(tmp_path), "--resume"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"glm-annotate: error: {config}: cannot read the training")


def test_training_reads_bases_with_the_annotation_side():
    """One encoder and one genome: what a model saw is what it is shown."""
    from glm_annotate import encoding, genome
    from glm_annotate.train import data, language, losses

    assert language.make_encoder is encoding.make_encoder
    assert losses.mask_rows is encoding.mask_rows
    assert data.Genome is genome.Genome
    assert data.reverse_complement is genome.reverse_complement
