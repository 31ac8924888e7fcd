"""Bundles: files that are what the card says, names that lead to them, zips that stay inside."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import sys
import types
import zipfile
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from glm_annotate import bundle as module
from glm_annotate.bundle import (
    Bundle,
    cache_dir,
    external_locations,
    find_bundle,
    load_bundle,
    sha256_of,
    shipped,
    write_bundle,
)
from glm_annotate.errors import BundleError

CARD = {
    "name": "toy",
    "tag": "TOY",
    "objective": "masked",
    "context": 16,
    "anchor": 8,
    "encoder": {"kind": "kmer", "vocab": {"first_id": 3, "unk_id": 2, "mask_id": 1}},
    "inputs": {"rows": {"name": "rows", "axes": ["batch", "row"], "dtype": "float32"}},
    "outputs": {"logits": {"name": "logits", "axes": ["batch", "row"]}},
}


def weights(name: str = "w", location: str | None = None) -> TensorProto:
    """Make a tensor of two floats, in the file or beside it."""
    made = helper.make_tensor(name, TensorProto.FLOAT, [2], [1.0, 2.0])
    if location is not None:
        made.ClearField("float_data")
        made.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", "8")):
            made.external_data.add(key=key, value=value)
    return made


def model_of(*tensors: TensorProto, nodes: tuple[onnx.NodeProto, ...] = ()) -> onnx.ModelProto:
    ends = [
        helper.make_tensor_value_info(x, TensorProto.FLOAT, ["b", 2]) for x in ("rows", "logits")
    ]
    add = helper.make_node("Add", ["rows", "w"], ["logits"])
    graph = helper.make_graph([*nodes, add], "g", ends[:1], ends[1:], list(tensors))
    return helper.make_model(graph)


def make_folder(folder: Path, **card: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model_of(weights()).SerializeToString())
    (folder / "selftest.npz").write_bytes(b"numbers")
    write_bundle(folder, {**CARD, **card})
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GLM_ANNOTATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "toy")


def edit_card(folder: Path, **changes: object) -> None:
    path = folder / "card.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_digests(folder: Path, **changes: str | None) -> None:
    digests = json.loads((folder / "card.json").read_text())["sha256"]
    merged = {**digests, **changes}
    edit_card(folder, sha256={k: v for k, v in merged.items() if v is not None})


def refuse(name: object, *words: str) -> None:
    with pytest.raises(BundleError) as caught:
        load_bundle(name)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_bundle_is_written_and_read(folder):
    (folder / "data").mkdir()
    (folder / "data" / "more.txt").write_text("more")
    written = write_bundle(folder, CARD)
    found = load_bundle(folder)
    assert found.card == written
    assert found.path == folder
    assert found.graph == folder / "model.onnx"
    assert set(found.card.sha256) == {"model.onnx", "selftest.npz", "data/more.txt"}
    for name, digest in found.card.sha256.items():
        assert digest == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert found.encoder.spec == found.card.encoder


def test_a_faulty_card_is_not_written(tmp_path):
    tmp_path.joinpath("model.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match=r"card\.json: colour: Extra inputs"):
        write_bundle(tmp_path, {**CARD, "colour": "red"})
    assert not (tmp_path / "card.json").exists()


def test_a_changed_file(folder):
    (folder / "model.onnx").write_bytes(model_of(weights("v")).SerializeToString())
    refuse(folder, "model.onnx: sha256 is not the one in card.json", "copy the bundle again")
    assert load_bundle(folder, verify=False).card.name == "toy"


def test_a_missing_file(folder):
    (folder / "selftest.npz").unlink()
    refuse(folder, str(folder), "selftest.npz is missing")


def test_a_card_without_the_graphs_digest(folder):
    edit_digests(folder, **{"model.onnx": None})
    refuse(folder, "card.json gives no sha256 of model.onnx")


@pytest.mark.parametrize("name", ["../secret", "a/../../secret", "/etc/passwd"])
def test_a_card_that_names_a_file_elsewhere(folder, name):
    (folder.parent / "secret").write_text("x")
    edit_digests(folder, **{name: hashlib.sha256(b"x").hexdigest()})
    refuse(folder, repr(name), "lies outside the bundle")


@pytest.mark.parametrize("name", ["tokenizer.json", "tracks.tsv", "genes.tsv.gz", "more.onnx"])
def test_a_file_that_matters_but_has_no_digest(folder, name):
    (folder / name).write_text("{}")
    refuse(folder, name, "gives no sha256 of it")


def test_a_file_that_does_not_matter_may_lie_there(folder):
    (folder / "README.md").write_text("words")
    assert load_bundle(folder).card.name == "toy"


def test_an_encoder_that_cannot_be_made_names_the_bundle(tmp_path):
    refuse(make_folder(tmp_path / "b", encoder={"kind": "bpe"}), str(tmp_path / "b"), "tokenizer")


# --- external data


def in_attribute(location: str) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["c"], value=weights("c", location))
    return model_of(weights(), nodes=(node,))


def in_attribute_list(location: str) -> onnx.ModelProto:
    node = helper.make_node("Custom", [], ["c"], domain="x")
    node.attribute.append(helper.make_attribute("all", [weights("a"), weights("c", location)]))
    return model_of(weights(), nodes=(node,))


def in_subgraph(location: str) -> onnx.ModelProto:
    branch = helper.make_graph([], "branch", [], [], [weights("c", location)])
    node = helper.make_node("If", ["rows"], ["c"], then_branch=branch, else_branch=branch)
    return model_of(weights(), nodes=(node,))


def in_function(location: str) -> onnx.ModelProto:
    model = model_of(weights())
    node = helper.make_node("Constant", [], ["c"], value=weights("c", location))
    made = helper.make_function("x", "F", [], ["c"], [node], [helper.make_opsetid("", 17)])
    model.functions.append(made)
    return model


def in_function_default(location: str) -> onnx.ModelProto:
    model = in_function("inside")
    del model.functions[0].node[:]
    default = helper.make_attribute("default", weights("c", location))
    model.functions[0].attribute_proto.append(default)
    return model


def in_sparse(location: str) -> onnx.ModelProto:
    model = model_of(weights())
    index = helper.make_tensor("i", TensorProto.INT64, [2], [0, 1])
    values = weights("c", location)
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, index, [4]))
    return model


def in_training(location: str) -> onnx.ModelProto:
    model = model_of(weights())
    model.training_info.add().algorithm.initializer.append(weights("c", location))
    return model


PLACES = [
    lambda location: model_of(weights("w", location)),
    *(in_attribute, in_attribute_list, in_subgraph, in_function, in_function_default),
    *(in_sparse, in_training),
]


@pytest.mark.parametrize("place", PLACES, ids=lambda f: f.__name__.strip("<>"))
def test_weights_outside_the_folder_are_found_wherever_they_hide(tmp_path, folder, place):
    outside = tmp_path / "secret"
    outside.write_bytes(b"12345678")
    for location in ("../secret", str(outside), "model.onnx.data"):
        made = place(location)
        assert external_locations(made.SerializeToString()) == {location}
        (folder / "model.onnx").write_bytes(made.SerializeToString())
        write_bundle(folder, CARD)
        refuse(folder, "model.onnx: reads weights from", repr(location))


def test_weights_beside_the_graph(folder):
    (folder / "model.onnx").write_bytes(model_of(weights("w", "w.data")).SerializeToString())
    (folder / "w.data").write_bytes(b"12345678")
    write_bundle(folder, CARD)
    assert "w.data" in load_bundle(folder).card.sha256


def test_every_graph_of_the_bundle_is_looked_into(folder):
    (folder / "model.onnx").rename(folder / "model.0.onnx")
    (folder / "model.1.onnx").write_bytes(model_of(weights("w", "../x")).SerializeToString())
    write_bundle(folder, CARD)
    refuse(folder, "model.1.onnx", "../x")


def test_a_graph_without_external_data_reads_nothing():
    assert external_locations(model_of(weights()).SerializeToString()) == set()


def wrapped(field: int, data: bytes) -> bytes:
    """Make a protobuf field of bytes by hand."""
    size, digits = len(data), b""
    while size > 127:
        digits, size = digits + bytes([size & 127 | 128]), size >> 7
    return bytes([field << 3 | 2]) + digits + bytes([size]) + data


def test_graphs_in_graphs_without_end(folder):
    data = b""
    for _ in range(1500):  # a node's attribute that holds a graph
        data = wrapped(1, wrapped(5, wrapped(6, data)))
    (folder / "model.onnx").write_bytes(wrapped(7, data))
    write_bundle(folder, CARD)
    refuse(folder, "model.onnx: not an ONNX file")


@pytest.mark.parametrize(
    "content",
    [b"not protobuf", b"\x3a\xff\xff", b"\x3a\x05ab", b"\xff" * 30, b"\x3b"],
    ids=["text", "cut", "short", "varint", "group"],
)
def test_a_graph_that_is_no_protobuf(folder, content):
    (folder / "model.onnx").write_bytes(content)
    write_bundle(folder, CARD)
    refuse(folder, "model.onnx: not an ONNX file")


# --- digest


def test_describing_again_keeps_the_digest(folder):
    before = load_bundle(folder).digest
    (folder / "background.npz").write_bytes(b"quantiles")
    (folder / "LICENSE").write_text("MIT")
    words = {"name": "other", "version": "2", "description": "x", "scores": ["LLR"], "atol": 0.1}
    write_bundle(folder, {**CARD, **words, "provenance": {"citation": "x"}})
    assert load_bundle(folder).digest == before


@pytest.mark.parametrize("key", ["context", "pllr_max", "encoder"])
def test_a_scoring_key_changes_the_digest(folder, key):
    before = load_bundle(folder).digest
    encoder = {"kind": "kmer", "vocab": {"first_id": 4, "unk_id": 2, "mask_id": 1}}
    write_bundle(folder, {**CARD, key: {"encoder": encoder}.get(key, 32)})
    assert load_bundle(folder).digest != before


@pytest.mark.parametrize("name", ["model.onnx", "w.data", "tracks.tsv", "genes.tsv.gz"])
def test_a_scoring_file_changes_the_digest(folder, name):
    before = load_bundle(folder).digest
    content = model_of(weights("other")).SerializeToString() if name == "model.onnx" else b"1"
    (folder / name).write_bytes(content)
    write_bundle(folder, CARD)
    assert load_bundle(folder).digest != before


def test_the_digest_is_a_sha256_and_not_of_the_place(folder, tmp_path):
    other = make_folder(tmp_path / "elsewhere" / "toy2")
    assert load_bundle(other).digest == load_bundle(folder).digest
    assert len(bytes.fromhex(load_bundle(folder).digest)) == 32


# --- names


def test_a_name_of_nothing_lists_what_ships(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ZOO", tmp_path / "none")
    assert shipped() == {}
    refuse("nowhere", "nowhere: no such bundle", "(none)", "glm-annotate models list")
    make_folder(tmp_path / "zoo" / "mito")
    make_folder(tmp_path / "zoo" / "tiny")
    (tmp_path / "zoo" / "notes").mkdir()
    monkeypatch.setattr(module, "ZOO", tmp_path / "zoo")
    assert list(shipped()) == ["mito", "tiny"]
    refuse("nowhere", "(mito, tiny)")


def test_a_shipped_name_a_folder_and_a_run_folder_of_the_same_name(tmp_path, monkeypatch):
    make_folder(tmp_path / "zoo" / "mito")
    monkeypatch.setattr(module, "ZOO", tmp_path / "zoo")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    assert find_bundle("mito") == tmp_path / "zoo" / "mito"
    (work / "mito").mkdir()
    (work / "mito" / "log.csv").write_text("step\n")
    assert find_bundle("mito") == tmp_path / "zoo" / "mito"
    write_bundle(work / "mito", CARD)
    assert find_bundle("mito") == Path("mito")
    (work / "other").mkdir()
    refuse("other", "other: not a model bundle: it holds no card.json")


def test_a_file_that_is_no_zip(tmp_path):
    (tmp_path / "model.txt").write_text("words")
    refuse(tmp_path / "model.txt", "not a model bundle (a folder or zip")


@pytest.mark.parametrize(
    ("set_to", "expected"),
    [
        ({"GLM_ANNOTATE_CACHE": "/c", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/c"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/glm_annotate"),
        ({"HOME": "/h"}, "/h/.cache/glm_annotate"),
        ({"GLM_ANNOTATE_CACHE": "", "HOME": "/h"}, "/h/.cache/glm_annotate"),
    ],
)
def test_where_the_cache_is(monkeypatch, set_to, expected):
    for name in ("GLM_ANNOTATE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in set_to.items():
        monkeypatch.setenv(name, value)
    assert cache_dir() == Path(expected)


# --- zips


def zip_of(folder: Path, path: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, inside + file.relative_to(folder).as_posix())
    return path


@pytest.mark.parametrize("inside", ["", "toy-1.0/"])
def test_a_zip_is_unpacked_once(tmp_path, folder, cache, inside):
    packed = zip_of(folder, tmp_path / "toy.zip", inside)
    found = load_bundle(packed)
    assert cache in found.path.parents
    assert found.card == load_bundle(folder).card
    stamp = (found.path / "model.onnx").stat().st_mtime_ns
    os.utime(found.path / "model.onnx", ns=(stamp - 10**9, stamp - 10**9))
    assert load_bundle(packed).path == found.path
    assert (found.path / "model.onnx").stat().st_mtime_ns == stamp - 10**9
    assert len(list((cache / "bundles").iterdir())) == 1


def test_a_zip_from_a_mac(tmp_path, folder):
    packed = zip_of(folder, tmp_path / "toy.zip", "toy/")
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("__MACOSX/toy/._card.json", "x")
    assert load_bundle(packed).path.name == "toy"


def test_another_process_may_unpack_at_the_same_time(tmp_path, folder, cache, monkeypatch):
    packed = zip_of(folder, tmp_path / "toy.zip")
    extract = module._extract

    def meanwhile(path, scratch):
        extract(path, scratch)
        target = cache / "bundles" / sha256_of(path)[:32]
        target.mkdir()
        extract(path, target)

    monkeypatch.setattr(module, "_extract", meanwhile)
    assert load_bundle(packed).card.name == "toy"
    assert len(list((cache / "bundles").iterdir())) == 1


def test_another_zip_of_the_same_name_is_another_bundle(tmp_path, folder):
    first = load_bundle(zip_of(folder, tmp_path / "toy.zip")).path
    write_bundle(folder, {**CARD, "name": "toy2"})
    second = load_bundle(zip_of(folder, tmp_path / "toy.zip"))
    assert second.path != first
    assert second.card.name == "toy2"


def test_a_cache_that_was_changed_is_noticed(tmp_path, folder):
    packed = zip_of(folder, tmp_path / "toy.zip")
    (load_bundle(packed).path / "selftest.npz").write_bytes(b"other")
    refuse(packed, "selftest.npz: sha256")


@pytest.mark.parametrize("name", ["../escaped", "a/../../escaped", "/escaped", "\\escaped"])
def test_a_zip_that_leaves_its_folder(tmp_path, folder, cache, name):
    packed = zip_of(folder, tmp_path / "toy.zip")
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr(name, "x")
    refuse(packed, "would leave the bundle", "escaped")
    assert not list(tmp_path.rglob("*escaped*"))
    assert list((cache / "bundles").iterdir()) == []


def test_a_zip_with_a_symlink(tmp_path, folder):
    packed = zip_of(folder, tmp_path / "toy.zip")
    with zipfile.ZipFile(packed, "a") as archive:
        member = zipfile.ZipInfo("tracks.tsv")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, "/etc/passwd")
    refuse(packed, "'tracks.tsv' would leave the bundle")


def test_a_zip_that_says_it_is_huge(tmp_path, folder, cache):
    """The size that the directory declares, which is the most that is ever unpacked, is refused."""
    packed = zip_of(folder, tmp_path / "toy.zip")
    data = bytearray(packed.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 24, 0xFFFFFFFE)
    monster = data[at : data.rindex(b"PK\x05\x06")] * 40
    end = bytearray(data[data.rindex(b"PK\x05\x06") :])
    start = data.index(b"PK\x01\x02")
    struct.pack_into("<HHII", end, 8, 40, 40, len(monster), start)
    packed.write_bytes(bytes(data[:start]) + bytes(monster) + bytes(end))
    refuse(packed, f"unpacks to {40 * 0xFFFFFFFE} bytes, more than there is room for")
    assert list((cache / "bundles").iterdir()) == []


def test_a_zip_that_lies_about_its_size(tmp_path, folder):
    """A member that holds more than it declares fails its checksum; nothing more is unpacked."""
    packed = tmp_path / "toy.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("card.json", " " * 100_000)
    data = bytearray(packed.read_bytes())
    struct.pack_into("<I", data, data.rindex(b"PK\x01\x02") + 24, 10)
    packed.write_bytes(data)
    refuse(packed, "a damaged zip")


def test_a_damaged_zip(tmp_path, folder):
    packed = tmp_path / "toy.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.onnx", bytes(range(256)) * 40)
    data = bytearray(packed.read_bytes())
    data[45:60] = b"\xff" * 15
    packed.write_bytes(data)
    refuse(packed, str(packed), "a damaged zip", "copy it again")


def test_an_encrypted_zip(tmp_path, folder):
    packed = zip_of(folder, tmp_path / "toy.zip")
    data = bytearray(packed.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    packed.write_bytes(data)
    refuse(packed, "encrypted")


def test_a_cache_that_cannot_be_written(tmp_path, folder, monkeypatch):
    packed = zip_of(folder, tmp_path / "toy.zip")
    blocker = tmp_path / "file"
    blocker.write_text("x")
    monkeypatch.setenv("GLM_ANNOTATE_CACHE", str(blocker))
    refuse(packed, "cannot be unpacked into", str(blocker), "set GLM_ANNOTATE_CACHE")


# --- the hub


@pytest.fixture
def hub(monkeypatch, folder):
    """A stand-in for huggingface_hub that serves `folder`, and what it was asked."""
    asked: list[tuple[str, str | None, bool]] = []
    fake = types.ModuleType("huggingface_hub")
    errors = types.ModuleType("huggingface_hub.errors")
    errors.HfHubHTTPError = type("HfHubHTTPError", (OSError,), {})
    errors.LocalEntryNotFoundError = type("LocalEntryNotFoundError", (FileNotFoundError,), {})
    fake.online, fake.cached = True, True

    def snapshot_download(repo, *, revision, cache_dir, local_files_only=False):
        asked.append((repo, revision, local_files_only))
        if not (fake.cached if local_files_only else fake.online):
            raise errors.LocalEntryNotFoundError("no network\nand more lines")
        return str(folder)

    fake.snapshot_download, fake.errors, fake.asked = snapshot_download, errors, asked
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    return fake


@pytest.mark.parametrize(
    ("name", "revision"),
    [("hf://me/toy", None), ("hf://me/toy@v1.0", "v1.0"), ("hf://me/toy@", None)],
)
def test_a_bundle_of_the_hub(hub, folder, name, revision):
    assert load_bundle(name).path == folder
    assert hub.asked == [("me/toy", revision, False)]


def test_the_hub_works_offline_from_the_cache(hub, folder):
    hub.online = False
    assert load_bundle("hf://me/toy").path == folder
    assert [x[2] for x in hub.asked] == [False, True]


def test_neither_the_hub_nor_the_cache(hub):
    hub.online = hub.cached = False
    refuse("hf://me/toy", "hf://me/toy: cannot be pulled and is not in", "no network")


def test_the_hub_needs_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refuse("hf://me/toy", "pip install 'glm_annotate[hub]'")


def test_sha256_of_the_empty_file(tmp_path):
    (tmp_path / "x").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256_of(tmp_path / "x") == empty


def test_what_ships_is_sound():
    for name in shipped():
        assert isinstance(load_bundle(name), Bundle)
