"""Official checkpoints: how they are read, and that every key is accounted for."""

from __future__ import annotations

import io
import json
import sys
import types
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from glm_annotate.errors import InputError
from glm_annotate.train.families.family import Source
from glm_annotate.train.official import Keys, fill
from glm_annotate.train.sources import open_source

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([0.5, -2.0])}


def same(found, wanted=WEIGHTS) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[k], wanted[k]) for k in wanted)


class Evil:
    """What pickle would run if it were let."""

    def __reduce__(self):
        return print, ("the checkpoint ran code",)


# Reading


def test_safetensors_and_every_way_of_torch_save(tmp_path):
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    torch.save(WEIGHTS, tmp_path / "w.bin")
    torch.save(WEIGHTS, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": WEIGHTS, "epoch": 3, "loss": [1.0]}, tmp_path / "w.ckpt")
    torch.save({"model_state_dict": WEIGHTS}, tmp_path / "w.pth")
    extra = {
        **WEIGHTS,
        "a._extra_state": io.BytesIO(b"\x01"),
        "c._extra_state": io.BytesIO(b""),
        "b._extra_state": None,
    }
    torch.save({"module": extra}, tmp_path / "te.pt")
    for name in ("w.safetensors", "w.bin", "old.pt", "w.ckpt", "w.pth", "te.pt"):
        source = open_source(tmp_path / name)
        assert same(source.weights), name
        assert (source.config, source.files) == ({}, (tmp_path / name,))


def test_settings_of_omegaconf_beside_the_weights_are_not_needed(tmp_path, monkeypatch):
    """Lightning saves them so; here a class of the same name and state stands for omegaconf's."""
    module = types.ModuleType("omegaconf.dictconfig")
    config = type("DictConfig", (), {"__module__": module.__name__})
    module.DictConfig = config
    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    settings = config()
    settings.content = {"d_model": 128, "parent": settings, "kind": Any, "more": defaultdict(list)}
    saved(tmp_path / "w.ckpt", {"state_dict": WEIGHTS, "hyper_parameters": settings})
    monkeypatch.delitem(sys.modules, module.__name__)
    assert same(open_source(tmp_path / "w.ckpt").weights)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_folder_with_shards(tmp_path, kind):
    stem = {"safetensors": "model", "bin": "pytorch_model"}[kind]
    for i, (name, value) in enumerate(WEIGHTS.items(), 1):
        path = tmp_path / f"{stem}-0000{i}-of-00002.{kind}"
        save_file({name: value}, path) if kind == "safetensors" else torch.save({name: value}, path)
    (tmp_path / f"{stem}.{kind}.index.json").write_text("{}")
    (tmp_path / "config.json").write_text('{"hidden_size": 3}')
    source = open_source(tmp_path)
    assert same(source.weights)
    assert source.config == {"hidden_size": 3}
    assert len(source.files) == 2
    assert source.file("config.json") == tmp_path / "config.json"
    assert source.file("vocab.txt") is None


def test_safetensors_come_before_the_other_files_of_a_folder(tmp_path):
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    torch.save({"other": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    torch.save({"other": torch.zeros(1)}, tmp_path / "training_args.bin")
    assert same(open_source(tmp_path).weights)


def test_a_yml_config(tmp_path):
    torch.save(WEIGHTS, tmp_path / "m.pt")
    (tmp_path / "config.yml").write_text("hidden_size: 3\nattn_layer_idxs: [8, 16]\n")
    assert open_source(tmp_path / "m.pt").config == {"hidden_size": 3, "attn_layer_idxs": [8, 16]}


def test_a_checkpoint_cannot_run_code(tmp_path, capsys):
    torch.save({"a": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match=r"evil\.pt: cannot be .* \(it holds print\); give"):
        open_source(tmp_path / "evil.pt")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "none", "no such file or folder"),
        (lambda p: p, "holds no weights; known are"),
        (lambda p: write(p / "w.npz", b"x"), r"found \.npz, known are \.safetensors"),
        (lambda p: write(p / "w", b"x"), "found no suffix"),
        (lambda p: write(p / "w.bin", b"<html>"), "not a file of torch.save"),
        (lambda p: write(p / "w.bin", b"PK\x03\x04"), "cannot be read as tensors alone"),
        (lambda p: write(p / "w.bin", b"\x80\x02x"), "cannot be read as tensors alone"),
        (lambda p: write(p / "w.safetensors", b"x" * 9), "not a safetensors file"),
        (lambda p: saved(p / "w.pt", [1, 2]), "holds a list, wanted a state_dict"),
        (lambda p: saved(p / "w.pt", {"a": 3}), "a is no tensor; save the model's state_dict"),
        (lambda p: saved(p / "w.pt", {}), "holds no weights"),
        (lambda p: two(p), r"holds a\.ckpt, b\.ckpt; give one of them as SOURCE"),
        (lambda p: configured(p, "{"), r"config\.json: cannot be read"),
        (lambda p: configured(p, "[1]"), "holds a list, wanted a table of settings"),
    ],
)
def test_what_cannot_be_read_says_why_in_one_line(tmp_path, make, message):
    with pytest.raises(InputError, match=message) as error:
        open_source(make(tmp_path))
    assert "\n" not in str(error.value)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def saved(path: Path, value: object) -> Path:
    torch.save(value, path)
    return path


def two(folder: Path) -> Path:
    saved(folder / "a.ckpt", WEIGHTS)
    saved(folder / "b.ckpt", WEIGHTS)
    return folder


def configured(folder: Path, text: str) -> Path:
    (folder / "config.json").write_text(text)
    return saved(folder / "w.pt", WEIGHTS)


# The hub


class Hub:
    """Stands for huggingface_hub: one repository of one commit."""

    def __init__(self, folder: Path, files: list[str], *, online: bool = True):
        self.folder, self.files, self.online = folder, files, online
        self.asked: list[dict] = []

    def list_repo_files(self, repository, revision=None):
        if not self.online:
            raise OSError("no network")
        return self.files

    def snapshot_download(self, repository, **given):
        self.asked.append({"repository": repository, **given})
        if not self.folder.exists():
            raise OSError("not cached")
        return str(self.folder)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    def connect(files, *, online=True, cached=True):
        import huggingface_hub

        folder = tmp_path / "0123abc"
        if cached:
            folder.mkdir()
            save_file(WEIGHTS, folder / "model.safetensors")
            (folder / "config.json").write_text(json.dumps({"model_type": "x"}))
        made = Hub(folder, files, online=online)
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", made.snapshot_download)
        return made

    return connect


def test_only_one_kind_of_weights_is_downloaded(hub):
    files = ["README.md", "model.safetensors", "pytorch_model.bin", "tf_model.h5", "x/model.pt"]
    made = hub([*files, "config.json", "tokenizer.json"])
    source = open_source("hf://me/model@v1")
    assert same(source.weights)
    assert source.config == {"model_type": "x"}
    assert source.repository == "me/model@0123abc"
    (asked,) = made.asked
    assert (asked["repository"], asked["revision"]) == ("me/model", "v1")
    assert "model.safetensors" in asked["allow_patterns"]
    assert not {"pytorch_model.bin", "tf_model.h5", "x/model.pt"} & set(asked["allow_patterns"])


def test_without_network_the_cache_serves(hub):
    made = hub([], online=False)
    assert same(open_source("hf://me/model").weights)
    assert made.asked[-1]["local_files_only"] is True


def test_without_network_and_cache_it_says_so(hub):
    hub([], online=False, cached=False)
    with pytest.raises(
        InputError, match=r"hf://me/model: cannot be downloaded and is not in .*: no n"
    ):
        open_source("hf://me/model")


def test_without_the_package_it_says_how_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"pip install 'glm_annotate\[hub\]'"):
        open_source("hf://me/model")


# Keys


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Linear(3, 2)
        self.b = torch.nn.Linear(3, 2, bias=False)
        self.register_buffer("kept", torch.zeros(2))
        self.register_buffer("computed", torch.ones(2), persistent=False)


FULL = {
    "model.a.weight": WEIGHTS["a.weight"],
    "model.a.bias": WEIGHTS["a.bias"],
    "model.b.weight": -WEIGHTS["a.weight"],
    "model.kept": torch.tensor([3.0, 4.0]),
}
KEYS = Keys(rename=((r"model\.", ""), (r"(a|b)\.gamma$", r"\1.weight")), ignore=(r".*\.inv_freq",))


def loaded(weights, keys=KEYS) -> Small:
    network = Small()
    fill(network, Source("file.pt", weights), keys)
    return network


def test_every_weight_is_copied_and_the_network_is_in_evaluation_mode():
    network = loaded(FULL)
    assert torch.equal(network.a.weight, WEIGHTS["a.weight"])
    assert torch.equal(network.b.weight, -WEIGHTS["a.weight"])
    assert network.kept.tolist() == [3.0, 4.0]
    assert network.computed.tolist() == [1.0, 1.0]
    assert not network.training


def test_known_buffers_are_left_out_and_old_names_are_renamed():
    old = {k.replace("b.weight", "b.gamma"): v for k, v in FULL.items()}
    network = loaded({**old, "model.a.inv_freq": torch.zeros(1)})
    assert torch.equal(network.b.weight, -WEIGHTS["a.weight"])


def test_a_tied_weight_that_the_file_leaves_out_is_its_twins_and_else_its_own():
    keys = Keys(KEYS.rename, KEYS.ignore, ((r"b\.(\w+)", r"a.\1"),))
    without = {k: v for k, v in FULL.items() if k != "model.b.weight"}
    assert torch.equal(loaded(without, keys).b.weight, WEIGHTS["a.weight"])
    assert torch.equal(loaded(FULL, keys).b.weight, -WEIGHTS["a.weight"])


def test_half_precision_weights_become_float32():
    network = loaded({k: v.bfloat16() for k, v in FULL.items()})
    assert network.a.weight.dtype == torch.float32
    assert torch.equal(network.a.weight, WEIGHTS["a.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model.c.weight": torch.zeros(1)},
            r"file\.pt: keys that this system does not have: c\.w",
        ),
        ({"model.a.bias": None}, r"file\.pt: no weights for: a\.bias; name the right system"),
        ({"model.kept": None}, r"no weights for: kept"),
        ({"model.a.weight": torch.zeros(3, 2)}, r"shapes .*: a\.weight 3x2, wanted 2x3"),
        ({f"model.x{i}": torch.zeros(1) for i in range(9)}, r"x0, x1, x2, x3 and 5 more"),
    ],
)
def test_keys_that_do_not_fit_are_named(change, message):
    weights = {k: v for k, v in {**FULL, **change}.items() if v is not None}
    with pytest.raises(InputError, match=message) as error:
        loaded(weights)
    assert "\n" not in str(error.value)
