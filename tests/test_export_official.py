"""An official checkpoint to a bundle: recognition, facts, precisions, attention, large weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from engine import write_fasta
from safetensors.torch import save_file
from torch import Tensor, nn

from glm_annotate.bundle import load_bundle, sha256_of
from glm_annotate.cli import run
from glm_annotate.errors import InputError
from glm_annotate.testing import check_bundle
from glm_annotate.train import graph
from glm_annotate.train.export import export
from glm_annotate.train.families import FAMILIES
from glm_annotate.train.families.family import (
    Family,
    Loaded,
    Network,
    Official,
    Release,
    is_matrix_of,
)
from glm_annotate.train.layers import PostNormLayer
from glm_annotate.train.official import Keys, fill

VOCAB = {"first_id": 3, "single_ids": {"N": 2}, "pad_id": 0, "mask_id": 1, "unk_id": 2}


class Small(Network):
    """Two BERT layers over single bases."""

    has_attention = True

    def __init__(self) -> None:
        super().__init__()
        self.dim, self.vocabulary = 16, 7
        self.word = nn.Embedding(7, 16)
        self.layers = nn.ModuleList(PostNormLayer(16, 2, 24, 1e-5) for _ in range(2))
        self.head = nn.Linear(16, 7)

    def attend(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        x, maps = self.word(rows), []
        for layer in self.layers:
            x, found = layer(x)
            maps.append(found)
        return x, torch.stack(maps, dim=1)

    def embed(self, rows: Tensor) -> Tensor:
        return self.attend(rows)[0]

    def decode(self, embedding: Tensor) -> Tensor:
        return self.head(embedding)


class Channelled(Small):
    """The same with two channels of codes."""

    has_attention = False
    channels = 2

    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.Linear(2, 16)

    def embed_with(self, rows: Tensor, channels: Tensor) -> Tensor:
        return self.embed(rows) + self.extra(channels)


def _family(name: str, network: type[Network], marker: str) -> Family:
    def load(source, context):
        made = network()
        fill(made, source, Keys(rename=((r"model\.", ""),), ignore=(r"pooler\..*",)))
        channels = [{"name": f"c{i}", "source": "msa"} for i in range(made.channels)]
        return Loaded(
            made,
            {
                "encoder": {"kind": "kmer", "vocab": VOCAB, "channels": channels},
                "context": context or 64,
                "anchor": (context or 64) // 2,
                "scores": ("LLR", "PLLR"),
                "embedding": {"pool": "window", "k": 3},
                "provenance": {"training_data": "Random numbers.", "quality": {"auroc": 0.5}},
            },
        )

    official = Official(
        variant="plain",
        recognise=lambda source: source.config.get("model_type") == marker,
        load=load,
        tag="SMALL",
        tokenizer="single bases",
        code_licence="MIT",
        weights_licence="CC0-1.0",
        releases=(Release("small-one", "me/small-hub", 64),),
    )
    return Family(
        name,
        "masked",
        lambda values: network(),
        is_matrix_of("layers."),
        "Somebody, Somewhere 1",
        title="Small",
        official=(official,),
    )


def save(folder: Path, network: type[Network] = Small, marker: str = "small", **more) -> Path:
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    made = network()
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    weights = {f"model.{name}": value for name, value in made.state_dict().items()}
    save_file({**weights, **more}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": marker}))
    return folder


@pytest.fixture(autouse=True)
def families(monkeypatch):
    torch.set_num_threads(1)
    for name, network, marker in (("small", Small, "small"), ("lined", Channelled, "lined")):
        monkeypatch.setitem(FAMILIES, name, _family(name, network, marker))


@pytest.fixture
def source(tmp_path):
    return save(tmp_path / "small-source")


def test_what_the_checkpoint_knows_is_in_the_card(source, tmp_path):
    extra = {"pooler.weight": torch.zeros(1)}
    save(source, **extra)
    report = export(source, tmp_path / "b")
    card = load_bundle(tmp_path / "b").card
    assert check_bundle(tmp_path / "b").cases == 2
    assert (card.name, card.tag, card.family) == ("small-source", "SMALL", "small")
    assert (card.context, card.anchor, card.objective) == (64, 32, "masked")
    assert (card.embedding.dim, card.embedding.pool, card.embedding.k) == (16, "window", 3)
    known = card.provenance
    assert (known.code_licence, known.weights_licence) == ("MIT", "CC0-1.0")
    assert (known.citation, known.training_data) == ("Somebody, Somewhere 1", "Random numbers.")
    assert known.command == ""
    quality = known.quality
    assert quality["auroc"] == 0.5
    assert quality["sha256_of_weights"] == {
        "model.safetensors": sha256_of(source / "model.safetensors")
    }
    assert quality["parameters"] == sum(x.numel() for x in Small().parameters())
    assert max(case.worst for case in report.parity) < 1e-5
    assert [(case.batch, case.length) for case in report.parity] == [(1, 1), (1, 64), (5, 19)]
    assert str(tmp_path) not in card.model_dump_json()


def test_a_card_replaces_what_is_only_suggested(source, tmp_path):
    given = {
        "name": "mine",
        "tag": "MINE",
        "context": 48,
        "pllr_max": 9,
        "provenance": {"held_out": "Humans.", "quality": {"seen": 1}},
    }
    export(source, tmp_path / "b", card=given)
    card = load_bundle(tmp_path / "b").card
    assert (card.name, card.tag, card.context, card.anchor) == ("mine", "MINE", 48, 24)
    assert (card.pllr_max, card.scores) == (9, ("LLR", "PLLR"))
    assert (card.provenance.held_out, card.provenance.weights_licence) == ("Humans.", "CC0-1.0")
    assert {"seen", "auroc"} <= card.provenance.quality.keys()
    with pytest.raises(InputError, match="'logits_shift' comes from the checkpoint"):
        export(source, tmp_path / "c", card={"logits_shift": 1})
    with pytest.raises(InputError, match="context: found 'long', wanted a number of bases"):
        export(source, tmp_path / "c", card={"context": "long"})


@pytest.mark.parametrize(
    ("family", "marker", "message"),
    [
        (None, "else", r"config and keys \(model\.head\.bias, .*\) are of no known system; known"),
        ("gpn", "small", "--family gpn: known are .*small"),
        ("nothing", "small", "--family nothing: known are .*small"),
    ],
)
def test_a_source_of_no_known_system(tmp_path, family, marker, message):
    source = save(tmp_path / "source", marker=marker)
    with pytest.raises(InputError, match=message):
        export(source, tmp_path / "b", family=family)
    assert not (tmp_path / "b").exists()


def test_a_source_that_fits_two_systems_needs_a_name(source, tmp_path, monkeypatch):
    monkeypatch.setitem(FAMILIES, "twin", _family("twin", Small, "small"))
    with pytest.raises(InputError, match="may be of small, twin; say which with --family"):
        export(source, tmp_path / "b")
    export(source, tmp_path / "b", family="twin")
    assert load_bundle(tmp_path / "b").card.family == "twin"


def test_a_family_may_be_named_where_the_config_says_nothing(tmp_path):
    source = save(tmp_path / "source", marker="who knows")
    export(source, tmp_path / "b", family="small")
    assert load_bundle(tmp_path / "b").card.family == "small"


def test_a_key_that_is_not_known_is_an_error(source, tmp_path):
    save(source, **{"model.adapter.weight": torch.zeros(1)})
    with pytest.raises(InputError, match=r"keys that this system does not have: adapter\.weight"):
        export(source, tmp_path / "b")


def test_attention_maps_on_request(source, tmp_path):
    export(source, tmp_path / "b", attention=True)
    check_bundle(tmp_path / "b")
    card = load_bundle(tmp_path / "b").card
    assert card.outputs["attention"].axes == ("batch", "layer", "head", "query", "key")
    rows = np.array([[3, 4, 5, 6, 1]])
    (found,) = graph.run_graph(tmp_path / "b" / "model.onnx", [rows], attention=True)
    assert found["attention"].shape == (1, 2, 2, 5, 5)
    assert found["attention"].sum(-1) == pytest.approx(np.ones((1, 2, 2, 5)), abs=1e-5)
    lined = save(tmp_path / "lined", Channelled, "lined")
    with pytest.raises(InputError, match="has no attention maps to export"):
        export(lined, tmp_path / "c", attention=True)


def test_channels_are_a_second_input(tmp_path):
    export(save(tmp_path / "lined", Channelled, "lined"), tmp_path / "b")
    bundle = load_bundle(tmp_path / "b")
    assert [x.name for x in bundle.card.encoder.channels] == ["c0", "c1"]
    assert bundle.card.inputs["channels"].axes == ("batch", "length", "channel")
    check_bundle(tmp_path / "b")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_weights_beside_the_graph(source, tmp_path, monkeypatch, precision):
    """Large weights lie in a file of their own, with the same numbers."""
    export(source, tmp_path / "one", precision=precision)
    monkeypatch.setattr(graph, "_INLINE_BYTES", 0)
    report = export(source, tmp_path / "two", precision=precision)
    assert not (tmp_path / "one" / "model.onnx.data").exists()
    if precision != "int8":  # whose quantiser keeps what is as small as this in the graph
        assert (tmp_path / "two" / "model.onnx.data").stat().st_size > 1000
        assert "model.onnx.data" in report.card.sha256
    check_bundle(tmp_path / "two")
    rows = np.array([[3, 4, 5, 6, 1, 2, 3]])
    (one,) = graph.run_graph(tmp_path / "one" / "model.onnx", [rows])
    (two,) = graph.run_graph(tmp_path / "two" / "model.onnx", [rows])
    for name in graph.OUTPUTS:
        assert np.abs(one[name] - two[name]).max() < 1e-6


def test_half_precision_beside_the_graph_is_half_as_large(source, tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "_INLINE_BYTES", 0)
    monkeypatch.setattr(graph, "_ALIGNMENT", 1)
    sizes = {
        precision: export(source, tmp_path / precision, precision=precision).size
        for precision in ("fp32", "fp16")
    }
    matrices = sum(w.numel() for w in Small().parameters() if w.ndim > 1)
    assert sizes["fp32"] - sizes["fp16"] == pytest.approx(2 * matrices, rel=0.2)


def test_int8_is_static_and_its_price_is_in_the_card(source, tmp_path, capsys):
    fasta = write_fasta(
        tmp_path / "genome.fa",
        {"c": "".join(np.random.default_rng(0).choice(list("ACGT"), 900)), "d": "N" * 900},
    )
    words = ["export", source, "-o", tmp_path / "b", "--precision", "int8", "--calibration", fasta]
    assert run([str(word) for word in words]) == 0
    assert "int8 against fp32" in capsys.readouterr().out
    card = load_bundle(tmp_path / "b").card
    check_bundle(tmp_path / "b")
    price = card.provenance.quality["int8_against_fp32"]
    assert card.precision == "int8"
    assert 1e-4 < price["logits"] < 0.5
    assert card.atol >= price["logits"] / 10
    model = onnx.load(tmp_path / "b" / "model.onnx")
    kinds = {node.op_type for node in model.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert "DynamicQuantizeLinear" not in kinds
    # Static scales: a window's answer does not depend on its batch mates.
    rows = np.random.default_rng(1).integers(3, 7, size=(5, 40))
    rows[1:] = 3
    together, alone = graph.run_graph(tmp_path / "b" / "model.onnx", [rows, rows[:1]])
    assert np.array_equal(together["logits"][:1], alone["logits"])


def test_calibration_windows_must_be_there(source, tmp_path):
    short = write_fasta(tmp_path / "short.fa", {"c": "ACGT" * 10})
    with pytest.raises(InputError, match="no contig is as long as a window of 64 bases"):
        export(source, tmp_path / "b", precision="int8", calibration=short)
    empty = write_fasta(tmp_path / "empty.fa", {"c": "N" * 500})
    with pytest.raises(InputError, match="too few windows of 64 bases without N"):
        export(source, tmp_path / "b", precision="int8", calibration=empty)
    words = ["export", source, "-o", tmp_path / "b", "--calibration", short]
    assert run([str(word) for word in words]) == 2


def test_a_hub_checkpoint_says_where_it_came_from(tmp_path, monkeypatch):
    from glm_annotate.train import sources

    folder = save(tmp_path / "abc123")
    monkeypatch.setattr(sources, "_download", lambda name: folder)
    export("hf://me/small-hub", tmp_path / "b")
    card = load_bundle(tmp_path / "b").card
    assert card.name == "small-one"
    assert card.provenance.command == "glm-annotate export hf://me/small-hub@abc123"
