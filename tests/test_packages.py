"""Weights inside packages and files of others: wheels, frozen graphs, gene tables, licences."""

from __future__ import annotations

import base64
import gzip
import hashlib
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from glm_annotate.errors import InputError, UsageError
from glm_annotate.train.families import spliceai
from glm_annotate.train.families.family import Source
from glm_annotate.train.families.predictor import Predicted
from glm_annotate.train.frozen_graph import frozen_weights, read_frozen_graph
from glm_annotate.train.gene_table import TABLES, gene_table
from glm_annotate.train.importing import (
    Imported,
    check_licence,
    import_model,
    is_non_commercial,
    open_weights,
    prepare,
)
from glm_annotate.train.known_models import KNOWN
from glm_annotate.train.packages import normalise, open_package, open_wheel

SPLICEAI, CI, OPEN = spliceai.FAMILY.official


def identify(source: Source):
    found = [x for x in spliceai.FAMILY.official if x.recognise(source)]
    assert len(found) == 1
    return spliceai.FAMILY, found[0]


def no_file(source: Source):
    raise AssertionError(f"{source.name} should not be looked at")


# Packages


def record_of(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
    return f"sha256={digest.decode()}"


METADATA = "Metadata-Version: 2.1\nName: Toy_Models\nVersion: 1.5\nLicense: CC BY 4.0\n\nText\n"


def members(files: dict[str, bytes], metadata: str = METADATA) -> dict[str, bytes]:
    info = "toy_models-1.5.dist-info"
    whole = {**files, f"{info}/METADATA": metadata.encode()}
    lines = [f"{name},{record_of(data)},{len(data)}" for name, data in whole.items()]
    whole[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,", ""]).encode()
    return whole


def write_wheel(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def install(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


FILES = {"toy_models/__init__.py": b"raise SystemExit('imported')", "toy_models/w.bin": b"\1\2"}


@pytest.fixture(params=["installed", "wheel"])
def opened(request, tmp_path, monkeypatch):
    """The same package both ways; importing it would end the tests."""
    if request.param == "installed":
        monkeypatch.syspath_prepend(str(install(tmp_path / "site", members(FILES))))
        return lambda: open_package("toy-models")
    path = write_wheel(tmp_path / "toy_models-1.5-py3-none-any.whl", members(FILES))
    return lambda: open_package("toy.models", path)


def test_a_member_is_read_and_nothing_is_imported(opened):
    package = opened()
    assert (package.name, package.version, package.licence) == ("toy-models", "1.5", "CC BY 4.0")
    assert package.read("toy_models/w.bin") == b"\1\2"
    assert "toy_models" not in sys.modules
    with pytest.raises(InputError, match=r"holds no toy_models/v\.bin"):
        package.read("toy_models/v.bin")
    with pytest.raises(InputError, match=r"holds no \.\./\.\./secret"):
        package.read("../../secret")


def test_a_changed_member_is_refused(tmp_path, monkeypatch):
    whole = members(FILES)
    whole["toy_models/w.bin"] = b"\1\3"
    wheel = write_wheel(tmp_path / "x.whl", whole)
    monkeypatch.syspath_prepend(str(install(tmp_path / "site", whole)))
    for package in (open_wheel(wheel), open_package("toy_models")):
        with pytest.raises(InputError, match=r"w\.bin is not the file that its RECORD names"):
            package.read("toy_models/w.bin")


def test_a_file_that_is_gone(tmp_path, monkeypatch):
    folder = install(tmp_path / "site", members(FILES))
    (folder / "toy_models" / "w.bin").unlink()
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(
        InputError, match=r"cannot be read: No such file.*reinstall toy_models 1\.5"
    ):
        open_package("toy_models").read("toy_models/w.bin")


def test_packages_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match="not installed; run: pip install --no-deps no-such-thing"):
        open_package("no-such-thing")
    wheel = write_wheel(tmp_path / "x.whl", members(FILES))
    with pytest.raises(InputError, match="a wheel of toy-models, wanted one of mmsplice"):
        open_package("mmsplice", wheel)
    (tmp_path / "y.whl").write_bytes(b"PK\3\4 cut off")
    with pytest.raises(InputError, match=r"y\.whl: not a wheel"):
        open_wheel(tmp_path / "y.whl")
    with pytest.raises(InputError, match=r"z\.whl: not a wheel"):
        open_wheel(tmp_path / "z.whl")
    write_wheel(tmp_path / "u.whl", {"a.txt": b"a"})
    with pytest.raises(InputError, match=r"wanted one \.dist-info folder"):
        open_wheel(tmp_path / "u.whl")


def test_a_damaged_member_of_a_wheel(tmp_path):
    path = write_wheel(tmp_path / "x.whl", members({"toy_models/w.bin": b"w" * 5000}))
    data = bytearray(path.read_bytes())
    place = data.index(b"toy_models/w.bin") + len(b"toy_models/w.bin")
    data[place : place + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    with pytest.raises(InputError, match="a damaged wheel"):
        open_wheel(path).read("toy_models/w.bin")


def test_normalised_names():
    assert normalise("Toy_Models..x") == "toy-models-x"


# Frozen graphs, written by hand


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def part(number: int, data: bytes | int) -> bytes:
    """A field: a number, or something with a length."""
    if isinstance(data, int):
        return varint(number << 3) + varint(data)
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(shape: tuple[int, ...], content: bytes, dtype: int = 1, number: int = 4) -> bytes:
    dims = b"".join(part(2, part(1, size)) for size in shape)
    return part(1, dtype) + part(2, dims) + part(number, content)


def node(name: str, value: bytes, kind: str = "Const") -> bytes:
    kinds = part(5, part(1, b"dtype") + part(2, part(6, 1)))
    values = part(5, part(1, b"value") + part(2, part(8, value)))
    return part(1, part(1, name.encode()) + part(2, kind.encode()) + part(3, b"x") + kinds + values)


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def test_constants_by_hand():
    data = (
        node("plain", tensor((2, 3), floats(*range(6))))
        + node("scalar", tensor((), floats(0.001), number=5))
        + node("filled", tensor((2, 2), floats(7.0), number=5))
        + node("integers", tensor((1,), struct.pack("<i", 5), dtype=3))
        + node("other", tensor((1,), floats(1.0)), kind="Identity")
        + part(4, part(1, 561))  # versions
        + varint(3 << 3 | 5) + b"1234"
        + varint(9 << 3 | 1) + b"12345678"
    )  # fmt: skip
    found = frozen_weights(data, "x.pb")
    assert {k: v.tolist() for k, v in found.items()} == {
        "plain": [[0, 1, 2], [3, 4, 5]],
        "scalar": pytest.approx(0.001),
        "filled": [[7, 7], [7, 7]],
    }


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "holds no constants"),
        (b"not a graph at all", "not a frozen TensorFlow graph"),
        (node("a", tensor((3,), floats(1, 2))), "a tensor of 3 numbers has 2"),
        (node("a", tensor((1 << 30, 1 << 30), floats(1), number=5)), "numbers has 1"),
        (node("a", tensor((1,) * 9, floats(1))), "a shape that no weight has"),
        (node("a", tensor((1,), b"\1\2\3")), "not a frozen TensorFlow graph"),
        (node("a", tensor((2,), floats(1, 2)))[:-3], "not a frozen TensorFlow graph"),
        (part(1, 5), "a number where a message should be"),
        (b"\x0b", "wire type 3"),
        (b"\xff" * 30, "a number that is too long"),
        (part(1, part(1, b"\xff\xfe")), "not a frozen TensorFlow graph"),
    ],
)
def test_faults_of_frozen_graphs(tmp_path, data, fault):
    path = tmp_path / "x.pb"
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"x.pb: .*{fault}") as error:
        read_frozen_graph(path)
    assert "\n" not in str(error.value)


def test_a_frozen_graph_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_frozen_graph(tmp_path / "x.pb")


# Gene tables


def rows(data: bytes) -> list[list[str]]:
    return [line.split("\t") for line in gzip.decompress(data).decode().splitlines()]


def test_gene_table_of_spliceai():
    text = (
        "#NAME\tCHROM\tSTRAND\tTX_START\tTX_END\tEXON_START\tEXON_END\n"
        "F\t1\t+\t100\t400\t100,300,\t150,400,\n"
        "R\tX\t-\t100\t400\t100,300,\t150,400,\n"
    )
    found = gene_table(text.encode(), TABLES["exons"], "x")
    assert rows(found) == [
        ["gene", "contig", "strand", "start", "end", "acceptors", "donors"],
        ["F", "1", "+", "100", "400", "100,300", "149,399"],
        # In the direction of the gene its exons begin at their last base.
        ["R", "X", "-", "100", "400", "149,399", "100,300"],
    ]
    assert found == gene_table(text.encode(), TABLES["exons"], "y")


def test_trap_gene_table_of_cispliceai_counts_from_one():
    """OR4F5 of GRCh38: exons 65419-65433, 65520-65573 and 69037-71585, 1-based."""
    text = (
        "gene_id,chr,strand,start,end,jn_start,jn_end\n"
        'ENSG00000186092,chr1,+,65419,71585,"65433,65573","65520,69037"\n'
        'BACK,chr1,-,65419,71585,"65433,65573","65520,69037"\n'
    )
    assert rows(gene_table(text.encode(), TABLES["junctions"], "x"))[1:] == [
        ["ENSG00000186092", "chr1", "+", "65418", "71585", "65519,69036", "65432,65572"],
        ["BACK", "chr1", "-", "65418", "71585", "65432,65572", "65519,69036"],
    ]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("F\t1\t+\tx\t400\t100,\t150,", "line 2: not a gene"),
        ("F\t1\t+\t100", "line 2: not a gene"),
        ("F\t1\t.\t100\t400\t100,\t150,", "strand '.'"),
        ("F\t1\t+\t400\t400\t100,\t150,", "a start before the end"),
    ],
)
def test_faults_of_gene_tables(row, fault):
    head = "#NAME\tCHROM\tSTRAND\tTX_START\tTX_END\tEXON_START\tEXON_END\n"
    with pytest.raises(InputError, match=fault):
        gene_table(f"{head}{row}\n".encode(), TABLES["exons"], "x")
    with pytest.raises(InputError, match="x: not a table"):
        gene_table(b"\xff\xfe", TABLES["exons"], "x")


# Licences


@pytest.mark.parametrize(
    ("licence", "wanted"),
    [
        ("CC-BY-NC-4.0", True),
        ("CC BY-NC-SA 4.0", True),
        ("non-commercial", True),
        ("noncommercial use only", True),
        ("academic use only", True),
        ("Academic licence (see the repository)", True),
        ("CC-BY-4.0", False),
        ("MIT", False),
        ("GPL-3.0", False),
        ("NCSA", False),
        ("Apache-2.0", False),
        ("", False),
    ],
)
def test_which_licences_have_to_be_accepted(licence, wanted):
    assert is_non_commercial(licence) is wanted


def test_a_licence_is_shown_and_must_be_accepted(tmp_path):
    opened = open_weights(save(tmp_path / "x.pt"))
    with pytest.raises(UsageError, match=r"under CC-BY-NC-4\.0, .*add --accept-licence") as error:
        check_licence(opened, SPLICEAI, accepted=False)
    assert "\n" not in str(error.value)
    check_licence(opened, SPLICEAI, accepted=True)
    check_licence(opened, CI, accepted=False)
    check_licence(opened, OPEN, accepted=False)


def test_every_known_model_names_a_checkpoint_of_its_family():
    for name, known in KNOWN.items():
        variants = [x.variant for x in known.family.official]
        assert variants.count(known.variant) == 1, name
        assert all("\\" not in member and ".." not in member for member in known.members)
    assert sorted(KNOWN) == ["cispliceai", "mmsplice", "mtsplice", "spliceai"]
    # Of the packages, SpliceAI's alone asks for a promise.
    asks = {
        name
        for name, known in KNOWN.items()
        for official in known.family.official
        if official.variant == known.variant and is_non_commercial(official.weights_licence)
    }
    assert asks == {"spliceai"}


# From weights to what becomes a bundle


def small(seed: int = 0):
    torch.manual_seed(seed)
    values = {"widths": [3, 3, 3, 3], "dilations": [1, 1, 1, 1], "channels": 2}
    return spliceai.build(values).eval()


def save(path: Path, seed: int = 0) -> Path:
    state = {k.removeprefix("trunk."): v for k, v in small(seed).state_dict().items()}
    torch.save(state, path)
    return path


def ci_wheel(tmp_path: Path) -> Path:
    """A wheel that has what cispliceai's has: a small network twice, and a gene."""
    names = {
        "weight": "conv1d{}/ExpandDims_1/ReadVariableOp/resource",
        "bias": "BiasAdd{}/ReadVariableOp/resource",
    }
    norms = {
        "running_var": "batchnorm{}/ReadVariableOp/resource",
        "weight": "batchnorm{}/mul/ReadVariableOp/resource",
        "running_mean": "batchnorm{}/ReadVariableOp_1/resource",
        "bias": "batchnorm{}/ReadVariableOp_2/resource",
    }
    graph = b""
    for number, suffix in enumerate(("", "_1")):
        state = small(number).state_dict()
        counts = {"conv1d": 0, "batch_normalization": 0}
        places = ["trunk.initial_conv", "trunk.initial_skip.conv"]
        for unit in range(4):
            place = f"trunk.residual_units.{unit}"
            places += [f"{place}.{x}" for x in ("batchnorm1", "conv1", "batchnorm2", "conv2")]
        for place in (*places, "trunk.residual_units.4.conv", "final_conv"):
            kind = "batch_normalization" if "batchnorm" in place else "conv1d"
            counts[kind] += 1
            for ours, theirs in (norms if "batchnorm" in place else names).items():
                value = state[f"{place}.{ours}"]
                array = value.permute(*reversed(range(value.ndim))).contiguous().numpy()
                name = f"model_1/{kind}_{counts[kind]}/{theirs.format(suffix)}"
                graph += node(name, tensor(array.shape, array.tobytes()))
    genes = b"gene_id,chr,strand,start,end,jn_start,jn_end\nG,chr1,+,11,90,20,31\n"
    info = "cispliceai-1.2.2.dist-info"
    metadata = METADATA.replace("Toy_Models", "cispliceai").replace("1.5", "1.2.2")
    files = {
        "cispliceai/data/CI-SpliceAI.pb": graph,
        "cispliceai/data/grch38.csv": genes,
        f"{info}/licenses/LICENSE": b"CC BY 4.0, as in the wheel",
    }
    whole = members(files, metadata)
    renamed = {k.replace("toy_models-1.5.dist-info", info): v for k, v in whole.items()}
    record = renamed[f"{info}/RECORD"].replace(b"toy_models-1.5.dist-info", info.encode())
    return write_wheel(
        tmp_path / "cispliceai-1.2.2-py3-none-any.whl", {**renamed, f"{info}/RECORD": record}
    )


def test_a_wheel_becomes_networks_card_and_files(tmp_path):
    made = prepare(ci_wheel(tmp_path), identify=no_file)
    assert made.official.variant == "CI-SpliceAI"
    assert rows(made.files["genes.tsv.gz"])[1] == ["G", "chr1", "+", "10", "90", "30", "19"]
    assert made.files["LICENSE"] == b"CC BY 4.0, as in the wheel"
    for seed, network in enumerate(made.predicted.networks):
        assert torch.equal(network.final_conv.weight, small(seed).final_conv.weight)
    card = made.card
    assert (card["name"], card["tag"], card["objective"]) == ("cispliceai", "CISPLICEAI", "tracks")
    assert (card["frame"], card["bin_size"], card["crop"]) == ("gene", 1, 8)
    origin = card["provenance"]
    assert origin["weights_licence"] == "CC-BY-4.0"
    assert origin["citation"].startswith("Strauch")
    assert set(origin["quality"]["sha256_of_weights"]) == {"CI-SpliceAI.pb"}
    # Nothing of the user's machine.
    assert str(tmp_path) not in repr(card)


def test_an_assembly_that_the_package_has_not(tmp_path):
    with pytest.raises(InputError, match=r"--assembly hg17: .*has gene tables of grch37, grch38"):
        prepare(ci_wheel(tmp_path), identify=no_file, assembly="hg17")
    with pytest.raises(InputError, match=r"holds no cispliceai/data/grch37\.csv"):
        prepare(ci_wheel(tmp_path), identify=no_file, assembly="GRCh37")


def test_wheels_of_several_models_or_none(tmp_path):
    metadata = METADATA.replace("Toy_Models", "mmsplice")
    several = write_wheel(tmp_path / "m.whl", members({}, metadata))
    with pytest.raises(InputError, match="2 models; choose with --model mmsplice or mtsplice"):
        open_weights(several)
    with pytest.raises(InputError, match="holds no model spliceai; choose with"):
        open_weights(several, "spliceai")
    other = write_wheel(tmp_path / "o.whl", members({}))
    with pytest.raises(InputError, match="known are those of cispliceai, mmsplice, spliceai"):
        open_weights(other)


def test_files_and_folders(tmp_path):
    one = prepare(save(tmp_path / "model_rs10.pt"), identify=identify)
    assert (one.card["name"], len(one.predicted.networks)) == ("model_rs10", 1)
    assert one.card["provenance"]["weights_licence"] == "GPL-3.0"
    assert one.files == {}
    save(tmp_path / "model_rs11.pt", seed=1)
    for what in (tmp_path, sorted(tmp_path.glob("*.pt"))):
        both = prepare(what, identify=identify)
        assert both.card["name"] == tmp_path.name
        bias = [x.final_conv.bias for x in both.predicted.networks]
        assert torch.equal(
            torch.stack(bias), torch.stack([small(x).final_conv.bias for x in (0, 1)])
        )
        digests = both.card["provenance"]["quality"]["sha256_of_weights"]
        assert set(digests) == {"model_rs10.pt", "model_rs11.pt"}


def test_trap_a_folder_of_pangolin_is_read_as_its_authors_do(tmp_path):
    names = [f"final.{j}.{i}.3{v}" for j in (1, 2) for i in (0, 1, 2) for v in ("", ".v2")]
    for number, name in enumerate(names):
        torch.save({"w": torch.tensor([float(number)])}, tmp_path / name)
    found = open_weights(tmp_path).source.weights
    wanted = {
        f"{j}/end{i}/w": float(names.index(f"final.{j}.{i}.3.v2")) for j in (1, 2) for i in (0, 2)
    }
    assert {k: float(v) for k, v in found.items()} == wanted
    # One file is good for its own end.
    assert list(open_weights(tmp_path / "final.2.1.3").source.weights) == ["2/end1/w"]
    both = [tmp_path / "final.1.0.3", tmp_path / "final.1.0.3.v2"]
    with pytest.raises(InputError, match="two files of one place in the ensemble"):
        open_weights(both)


def test_faults_of_what_is_named(tmp_path):
    with pytest.raises(InputError, match="nothing: no such file, and no model of a package; known"):
        open_weights("nothing")
    with pytest.raises(InputError, match=r"b\.pt: no such file"):
        open_weights([save(tmp_path / "a.pt"), tmp_path / "b.pt"])


def test_import_hands_to_the_writer(tmp_path):
    seen = []

    def write(folder: Path, made: Imported) -> str:
        seen.append((folder, made.official.variant))
        return "the card"

    source = save(tmp_path / "x.pt")
    found = import_model(source, tmp_path / "out", write=write, identify=identify, context=21)
    assert (found, seen) == ("the card", [(tmp_path / "out", "OpenSpliceAI")])


def test_upstream_paths_of_track_tables_stay_outside(tmp_path, monkeypatch):
    def load(source: Source, context: int | None) -> Predicted:
        row = {"identifier": "t", "file": "/home/somebody/t.bw", "role": "profile"}
        return Predicted((small(),), {"context": 33}, (row,), {"extra.txt": b"x"})

    official = spliceai.Official("V", lambda _: True, load, "V", "", "MIT", "MIT")
    made = prepare(save(tmp_path / "x.pt"), identify=lambda _: (spliceai.FAMILY, official))
    assert made.predicted.tracks == ({"identifier": "t", "role": "profile"},)
    assert made.files == {"extra.txt": b"x"}


def test_a_language_model_is_not_imported(tmp_path):
    official = spliceai.Official("V", lambda _: True, lambda *_: object(), "V", "", "MIT", "MIT")
    with pytest.raises(InputError, match="a language model; run: glm-annotate export"):
        prepare(save(tmp_path / "x.pt"), identify=lambda _: (spliceai.FAMILY, official))


def test_h5_files(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights/conv1d_1/conv1d_1")
        group["kernel:0"] = np.ones((1, 4, 2), dtype=np.float32)
        file.attrs["model_config"] = '{"class_name": "Model"}'
    opened = open_weights(path)
    assert list(opened.source.weights) == ["conv1d_1/kernel"]
    assert opened.source.config == {"class_name": "Model"}
    assert list(opened.digests) == ["x.h5"]
