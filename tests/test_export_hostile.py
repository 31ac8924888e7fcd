"""Checkpoints, cards and places that are wrong: one line that says what to do, and no bundle."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import test_family_caduceus as caduceus_kit
import test_family_dnabert as dnabert_kit
import test_family_dnabert2 as dnabert2_kit
import test_family_evo as evo_kit
import test_family_evo2 as evo2_kit
import test_family_gena as gena_kit
import test_family_gpn as gpn_kit
import test_family_hyenadna as hyenadna_kit
import test_family_nucleotide_transformer as nt_kit
import torch
from cli_kit import call, statuses, write_vcf
from engine import write_fasta
from safetensors.torch import load_file, save_file
from test_export import CONFIG as RUN

from glm_annotate.bundle import load_bundle
from glm_annotate.errors import InputError
from glm_annotate.testing import check_bundle
from glm_annotate.train import checkpoints
from glm_annotate.train import export as export_module
from glm_annotate.train.checkpoints import Checkpoint
from glm_annotate.train.config import TrainConfig
from glm_annotate.train.export import export
from glm_annotate.train.families.family import Source
from glm_annotate.train.sources import open_source
from glm_annotate.train.subjects import identify, open_subject

QUERY = "bert.encoder.layer.1.attention.self.query.weight"


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def write(folder: Path, source: Source) -> Path:
    """Lay a source out as on the hub."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in source.weights.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(dict(source.config)))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "dnabert-3", dnabert_kit.source_of(3))


@pytest.fixture
def no_graph(monkeypatch):
    """Whoever comes as far as writing the graph was not refused."""

    def reached(*_):
        raise AssertionError("the graph is being written")

    monkeypatch.setattr(export_module, "_write_graph", reached)


def change(folder: Path, **weights: torch.Tensor | None) -> None:
    path = folder / "model.safetensors"
    kept = {**load_file(path), **weights}
    save_file({k: v for k, v in kept.items() if v is not None}, path)


def refused(capsys, *words: object) -> str:
    """Run a command that has to end in one line on stderr; gives the line."""
    capsys.readouterr()
    assert call(*words) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("glm-annotate: error: ")
    return lines[0]


# Weights


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: x.index_fill(0, torch.tensor([3]), torch.nan), rf"NaN or infinity in: {QUERY}"),
        (lambda x: x.index_fill(1, torch.tensor([0]), torch.inf), rf"NaN or infinity in: {QUERY}"),
        (lambda x: (x * 50).to(torch.int8), rf"no plain numbers: {QUERY} int8, wanted float32"),
        (lambda x: x.to(torch.complex64), rf"{QUERY} complex64, wanted float32; .*quantised copy"),
        (lambda x: x > 0, rf"{QUERY} bool, wanted float32"),
        (lambda x: x[:0], rf"shapes that do not fit the config: {QUERY} 0x12, wanted 12x12"),
    ],
    ids=["nan", "inf", "int8", "complex", "bool", "no rows"],
)
def test_weights_that_are_no_numbers(folder, no_graph, make, message):
    change(folder, **{QUERY: make(load_file(folder / "model.safetensors")[QUERY])})
    with pytest.raises(InputError, match=message):
        export(folder, folder.parent / "b")
    assert [x.name for x in folder.parent.iterdir()] == [folder.name]


def test_numbers_that_overflow_on_the_way(folder):
    """Every weight is finite, what the network makes of them is not."""
    embeddings = "bert.embeddings.LayerNorm.weight"
    big = torch.full_like(load_file(folder / "model.safetensors")[embeddings], 3e38)
    change(folder, **{embeddings: big})
    with pytest.raises(InputError, match="comes out as NaN or infinite; fetch"):
        export(folder, folder.parent / "b", context=20)
    assert [x.name for x in folder.parent.iterdir()] == [folder.name]


# Files


def shards(folder: Path, *names: str) -> Path:
    """Split the weights into files of these names."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    keys = sorted(weights)
    for i, name in enumerate(names):
        save_file({k: weights[k] for k in keys[i :: len(names)]}, folder / name)
    return folder


ONE, TWO, THREE = (f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3))
INDEX = "model.safetensors.index.json"


def test_shards_are_all_there_or_named(folder):
    whole = open_source(folder).weights
    shards(folder, ONE, TWO, THREE)
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": ONE, "b": TWO, "c": THREE}}))
    found = open_source(folder).weights
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[k], whole[k]) for k in whole)
    with pytest.raises(InputError, match="one of 3 shards; give the folder"):
        open_source(folder / TWO)
    (folder / INDEX).write_text("<html>")
    with pytest.raises(InputError, match=r"index\.json: not an index of shards; fetch it again"):
        open_source(folder)
    (folder / INDEX).write_text('{"weight_map": {"a": "model-last.safetensors"}}')
    with pytest.raises(InputError, match=r"shard model-last\.safetensors is missing"):
        open_source(folder)
    (folder / INDEX).unlink()
    (folder / TWO).unlink()
    with pytest.raises(InputError, match=rf"shard {TWO} is missing; fetch the whole"):
        open_source(folder)


def test_shards_of_two_checkpoints(folder):
    shards(folder, ONE, TWO, THREE)
    shutil.copy(folder / ONE, folder / "model-00001-of-00001.safetensors")
    with pytest.raises(InputError, match=r"shards of different sets: .*; remove one set"):
        open_source(folder)
    (folder / "model-00001-of-00001.safetensors").unlink()
    save_file({**load_file(folder / TWO), **load_file(folder / ONE)}, folder / TWO)
    with pytest.raises(InputError, match="lies in more than one file"):
        open_source(folder)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: "", "SOURCE is empty"),
        (lambda p: p, "holds no weights"),
        (lambda p: (p / "card.json").write_text("{}") and p, "is a bundle already; use it with"),
        (lambda p: (p / "model.bin").mkdir() or p, "holds no weights"),
    ],
    ids=["empty", "nothing", "bundle", "folder"],
)
def test_a_source_that_is_none(tmp_path, make, message):
    with pytest.raises(InputError, match=message):
        open_source(make(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": '{"x": 1}'}, "name: Field required: its config is of another version; use the"),
        ({"config": "{"}, "config: Invalid JSON: .* its config is of another version"),
        ({"average": [1]}, "average is a list, wanted a table"),
        ({"groups": 3}, "groups is a int, wanted a table"),
    ],
)
def test_a_run_of_another_version(tmp_path, change, message):
    empty = {name: {} for name in ("weights", "average", "quality", "groups", "valid")}
    config = TrainConfig.model_validate(RUN).model_dump_json()
    made = {"config": config, "step": 1, "seconds": 1.0, "optimizers": [], "best": 1.0, **empty}
    state = Checkpoint(**{**made, "random": torch.get_rng_state(), **change})
    checkpoints.save(tmp_path / "best.ckpt", state)
    with pytest.raises(InputError, match=message):
        open_subject(tmp_path / "best.ckpt")


# Configs

BAD = (None, "x", -1, 10**9, 10**30, [1], {}, True, float("nan"), float("inf"))
LAYOUTS = {"legacy": 0, "convnet": 1, "bytenet": 2}


def sources(tmp_path: Path) -> dict[str, Source]:
    """Every system as its own tests make it."""
    (tmp_path / "two").mkdir()
    made = dnabert2_kit.config_of()
    (tmp_path / "two" / "tokenizer.json").write_text(json.dumps(dnabert2_kit.tokenizer_of()))
    gena = {}
    for kind in ("BERT", "sparse", "BigBird"):
        (tmp_path / kind).mkdir()
        gena[kind] = gena_kit.source_of(tmp_path / kind, gena_kit.config_of(kind))
    return {
        "dnabert": dnabert_kit.source_of(),
        "dnabert2": Source("two", dnabert2_kit.weights_of(made), made, tmp_path / "two"),
        "nt-v1": nt_kit.source("v1"),
        "nt-v2": nt_kit.source("v2", vocab_size=75),
        **gena,
        "caduceus-ph": caduceus_kit.source_of(),
        "caduceus-ps": caduceus_kit.source_of(rcps=True),
        "evo": evo_kit.source_of(),
        "evo2": evo2_kit.source_of(),
        "hyenadna": hyenadna_kit.hf(),
        **{layout: gpn_kit.source_of(layout) for layout in LAYOUTS},
        "gpn-msa": gpn_kit.msa_source(),
    }


SYSTEMS = (
    *("dnabert", "dnabert2", "nt-v1", "nt-v2", "BERT", "sparse", "BigBird", "caduceus-ph"),
    *("caduceus-ps", "evo", "evo2", "hyenadna", *LAYOUTS, "gpn-msa"),
)


@pytest.mark.parametrize("system", SYSTEMS)
def test_no_value_of_a_config_ends_in_anything_but_a_line(system, tmp_path):
    """Each key in turn left out and set to nonsense, at the second level too."""
    source = sources(tmp_path)[system]
    plain = dict(source.config)
    changed = [{k: v for k, v in plain.items() if k != key} for key in plain]
    changed += [{**plain, key: value} for key in plain for value in BAD]
    for key, table in plain.items():
        if isinstance(table, dict) and key != "complement_map":
            changed += [{**plain, key: {**table, k: value}} for k in table for value in BAD]
    refusals = []
    for config in changed:
        other = dataclasses.replace(source, config=config)
        try:
            _, official = identify(other)
            official.load(other, None)
        except InputError as error:
            refusals.append(str(error))
    assert len(refusals) > 10
    assert not any("\n" in line for line in refusals)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": True}, "num_attention_heads is True, wanted a number"),
        (
            {"hidden_size": 9 * 10**8},
            "hidden_size is 900000000, wanted at most 10000 by the weights",
        ),
        ({"hidden_size": None}, "hidden_size: Input should be a valid integer, found None; fetch"),
        ({"layer_norm_eps": 2.5}, "layer_norm_eps: Input should be less than 1, found 2.5"),
    ],
)
def test_messages_name_the_key_of_the_file_and_what_it_holds(changes, message):
    source = dnabert_kit.source_of(3)
    other = dataclasses.replace(source, config={**source.config, **changes})
    with pytest.raises(InputError, match=message):
        dnabert_kit.OFFICIAL.load(other, None)


@pytest.mark.parametrize("both", [False, True])
def test_trap_caduceus_weights_of_one_strand_are_not_read_as_those_of_two(both):
    """The keys differ by a wrapper alone, which renaming takes off."""
    source = caduceus_kit.source_of(rcps=both)
    other = dataclasses.replace(source, config={**source.config, "rcps": not both})
    with pytest.raises(InputError, match=f"rcps is {not both}, wanted {both} by the keys"):
        caduceus_kit.load(other)


def test_trap_bigbird_without_a_word_has_the_gelu_of_its_authors(tmp_path):
    config = gena_kit.config_of("BigBird")
    del config["hidden_act"]
    loaded = gena_kit.official_of("BigBird").load(gena_kit.source_of(tmp_path, config), 40)
    assert loaded.network.config.activation == "tanh"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"merges": [["Q", "Z"]]}, "cannot be read .*; fetch the tokenizer.json of the same"),
        ({"dropout": 0.1}, "cuts tokens at random; set its model's dropout to null"),
    ],
)
def test_a_tokenizer_that_does_not_work(tmp_path, changes, message):
    tokenizer = gena_kit.tokenizer_of()
    tokenizer["model"] |= changes
    folder = write(tmp_path / "gena", gena_kit.source_of(tmp_path, gena_kit.config_of("BERT")))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(InputError, match=message):
        open_subject(folder, context=40)


# Cards and places


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('scores = ["LLR", "NOPE"]', "scores: NOPE: unknown score 'NOPE'; known: LLR"),
        ('scores = ["EMB_COS:pool=window:k=900"]', "k=900 is not a number of bases from 1 to 64"),
        ('strand = "equivariant"', "strand is 'equivariant', wanted both or forward"),
        ('strand = "gene"', "strand is 'gene', wanted both or forward"),
        ("anchor = 64", "anchor 64 lies outside a window of 64 bases"),
        ("embedding = {dim = 7}", "embedding.dim comes from the checkpoint; remove it"),
        ('embedding = {halves = "rc"}', "embedding.halves comes from the checkpoint"),
        ("window = {max_tokens = 513}", "max_tokens is 513, wanted at most 512 rows"),
        ('frame = "gene"', "unknown key 'frame'; known here: anchor"),
        ('name = " "', "name is empty"),
        ("provenance = 3", "provenance: Input should be a valid dictionary"),
        ("context = true", "context: found True, wanted a number of bases up to 1048576"),
        ("context = 99999999999", "found 99999999999, wanted a number of bases up to 1048576"),
    ],
)
def test_cards_that_the_network_cannot_keep(folder, tmp_path, no_graph, capsys, text, message):
    card = tmp_path / "card.toml"
    card.write_text(text if "context" in text else f"context = 64\n{text}")
    line = refused(capsys, "export", folder, "-o", tmp_path / "b", "--card", card)
    assert f"{card}: " in line
    assert message in line
    assert not (tmp_path / "b").exists()


def test_a_causal_model_gives_no_score_of_masked_ones(tmp_path, no_graph):
    folder = write(tmp_path / "evo", evo_kit.source_of())
    message = "scores: PLLR: the causal model 'evo' does not give PLLR; it gives LLR"
    with pytest.raises(InputError, match=message):
        export(folder, tmp_path / "b", context=8, card={"scores": ["PLLR"]})


def test_a_window_with_more_rows_than_its_card_allows(folder, tmp_path):
    with pytest.raises(InputError, match="64 bases has 64 rows, allowed are 9; give a smaller"):
        export(folder, tmp_path / "b", context=64, card={"window": {"max_tokens": 9}})
    assert sorted(x.name for x in tmp_path.iterdir()) == [folder.name]


def test_a_bundle_does_not_replace_its_own_source(folder, no_graph, capsys):
    shutil.copy(folder / "config.json", folder / "card.json")
    for source in (folder, folder / "model.safetensors"):
        line = refused(capsys, "export", source, "-o", folder, "--force")
        assert f"{folder}: holds SOURCE, and would be replaced; name another folder" in line
    assert (folder / "model.safetensors").is_file()


def test_a_place_that_cannot_be_written(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "b", tmp_path / ("b" * 300)):
        line = refused(capsys, "export", folder, "-o", place)
        assert "cannot be written: File " in line
        assert "; name another folder with -o" in line

    def full(scratch, *_):
        (scratch / "model.onnx").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_module, "_write_graph", full)
    assert "cannot be written: No space left" in refused(
        capsys, "export", folder, "-o", tmp_path / "b"
    )
    assert sorted(x.name for x in tmp_path.iterdir()) == ["dnabert-3", "file"]


# What only shows once a bundle is used


def test_trap_attention_of_a_causal_model_passes_its_own_check(tmp_path):
    """Its maps (batch, layer, head, query, key) change in the last query alone, not the last head.

    The key axis is longer than the head axis: cutting the wrong one would compare the last query.
    """
    folder = write(tmp_path / "ä ö" / "字 1", evo_kit.source_of())
    export(folder, tmp_path / "ü" / "b", context=24, attention=True)
    assert "attention" in check_bundle(tmp_path / "ü" / "b").differences
    # A path of any letters is a name, and no file tells of the machine.
    assert load_bundle(tmp_path / "ü" / "b").card.name == "字 1"
    for file in (tmp_path / "ü" / "b").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes()


def test_trap_unknown_bases_are_more_rows_than_kmers(tmp_path):
    """Every base before an N is a row: near a gap, or past the end of a contig, v1's table ends."""
    config = {"vocab_size": 69, "max_position_embeddings": 12}
    folder = write(tmp_path / "nt", nt_kit.source("v1", **config | {"vocab_size": 4105}))
    bases = "ACGTTGCAAC" * 20
    genome = {"gap": bases[:90] + "N" * 12 + bases[102:], "short": "ACGTA", "long": bases}
    fasta = write_fasta(tmp_path / "genome.fa", genome)
    export(folder, tmp_path / "b")
    card = load_bundle(tmp_path / "b").card
    assert (card.context, card.window.kind, card.window.max_tokens) == (54, "dynamic", 10)
    sites = {"gap": (85, 90, 103, 110, 150), "short": (1, 3, 5), "long": (1, 100, 200)}
    records = [
        f"{contig} {pos} {genome[contig][pos - 1]} {'ACGT'.replace(genome[contig][pos - 1], '')[0]}"
        for contig, places in sites.items()
        for pos in places
    ]
    vcf, out = write_vcf(tmp_path / "in.vcf", records), tmp_path / "out.vcf"
    words = ("-f", fasta, "-m", f"T={tmp_path / 'b'}", "-o", out, "--device", "cpu:1")
    assert call("vcf", vcf, *words) == 0
    assert {x for found in statuses(out.read_text(), "T").values() for x in found} == {"SCORED"}
