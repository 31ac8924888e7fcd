"""The classics against bpnet-lite 1.1.0, basenji2-pytorch 0.1.2, selene's and Sei's classes.

bpnet-lite and basenji2-pytorch are installed beside the rest (`--no-deps`); selene's and Sei's
classes are read from the checkouts `selene` and `sei-framework` in the folder that the environment
variable GLM_ANNOTATE_REFERENCES names. DeepSEA of 2015, Beluga and Basset have no implementation to
install: their networks are computed anew in plain functional calls, and the table says so.
"""

from __future__ import annotations

import copy
import importlib.metadata
import importlib.util
import os
from pathlib import Path

import classics_kit as kit
import pytest
import torch
from parity_kit import ONNX_LIMIT, PUBLIC_LIMIT, shaken

from glm_annotate.train import graph
from glm_annotate.train.families import basenji2, basset, bpnet, deepsea, sei
from glm_annotate.train.sources import open_source

pytestmark = [pytest.mark.parity, pytest.mark.timeout(500)]
ANEW = "none to install: re-computed in plain torch"
FAMILIES = (
    deepsea.DEEPSEA, deepsea.BELUGA, deepsea.DANQ, basset.FAMILY, basenji2.FAMILY, sei.FAMILY,
    bpnet.BPNET, bpnet.CHROMBPNET,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def compare(source, run, folder, record, variant=None, *, context=None, counts=(1, 2, 3)):
    """Read a checkpoint, and hold network and graph against `run`: ids to tracks (B, bins, T)."""
    found = [(f, x) for f in FAMILIES for x in f.official if x.recognise(source)]
    ((family, official),) = found
    predicted = official.load(source, context)
    (network,) = predicted.networks

    @torch.no_grad()
    def theirs(rows):
        return {"tracks": run(rows)}

    batches = [kit.ids((count, network.length), count) for count in counts]
    public = max(
        kit.worst(graph.run_torch(network, rows)["tracks"], theirs(rows)["tracks"])
        for rows in batches
    )
    exported = kit.onnx_worst(network, folder, batches, wanted=theirs)
    row = [family.title, variant or official.variant, record[1], public, exported, "-", 0]
    record[0]("parity", row)
    assert public <= PUBLIC_LIMIT
    assert exported <= ONNX_LIMIT
    return predicted


def saved(weights, folder, name="model.pth"):
    torch.save(weights, folder / name)
    return open_source(folder / name)


def module_of(checkout, path):
    """Import a file of a checkout, or skip."""
    place = Path(os.environ.get("GLM_ANNOTATE_REFERENCES", "nowhere")) / checkout / path
    if not place.is_file():
        pytest.skip(f"GLM_ANNOTATE_REFERENCES names no folder with a checkout {checkout}")
    spec = importlib.util.spec_from_file_location(place.stem, place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Without a package


@pytest.mark.parametrize(
    ("shapes", "run", "unknown"),
    [
        (kit.deepsea_2015(), kit.run_deepsea_2015, 0),
        (kit.deepsea_plain((32, 48, 96), tracks=50), kit.run_deepsea_plain, 0.25),
        (kit.deepsea_selene((32, 48, 96), tracks=50), kit.run_deepsea_selene, 0.25),
        (kit.beluga((32, 48, 64), hidden=203, tracks=202), kit.run_beluga, 0),
        (kit.danq(64, hidden=95, tracks=91), kit.run_danq, 0.25),
        (kit.basset(), kit.run_basset, 0.25),
        (kit.sei((48, 64, 96), tracks=219), kit.run_sei, 0.25),
    ],
    ids=["deepsea", "deepsea plain", "deepsea selene", "beluga", "danq", "basset", "sei"],
)
def test_written_anew(shapes, run, unknown, tmp_path, record_property):
    source = saved(kit.filled(shapes), tmp_path)
    weights = source.weights
    counts = (1, 2) if "bdlstm.0.weight_ih_l0" in weights else (1, 2, 5)
    compare(
        source,
        lambda rows: run(weights, kit.one_hot(rows, unknown))[:, None],
        tmp_path,
        (record_property, ANEW),
        counts=counts,
    )


# selene's and Sei's classes


def test_deepsea_of_selene(tmp_path, record_property):
    """Either state of their class: the older one has batch norms, and its pass changes weights."""
    model = shaken(module_of("selene", "models/deepsea.py").DeepSEA(1000, 50))
    source = saved({"state_dict": model.state_dict()}, tmp_path)
    normed = "conv_net.3.weight" in source.weights
    fresh = copy.deepcopy(model)
    compare(
        source,
        lambda rows: fresh(kit.one_hot(rows, 0.25))[:, None],
        tmp_path,
        (record_property, "selene models/deepsea.py"),
        "selene, normed, its class" if normed else "selene, its class",
    )
    assert torch.equal(fresh.conv_net[0].weight, model.conv_net[0].weight) is not normed


def test_danq_of_selene_one_window_at_a_time(tmp_path, record_property):
    model = shaken(module_of("selene", "models/danQ.py").DanQ(1000, 91))
    source = saved({"state_dict": model.state_dict()}, tmp_path)
    source = type(source)(source.name, source.weights, {"compat": "published"}, None)
    compare(
        source,
        lambda rows: torch.cat([model(kit.one_hot(row[None], 0.25)) for row in rows])[:, None],
        tmp_path,
        (record_property, "selene models/danQ.py, one window at a time"),
        "selene, its class",
    )


def test_sei_of_the_authors(tmp_path, record_property):
    model = shaken(module_of("sei-framework", "model/sei.py").Sei(4096, 219))
    weights = {f"module.model.{name}": value for name, value in model.state_dict().items()}
    compare(
        saved({"state_dict": weights}, tmp_path),
        lambda rows: model(kit.one_hot(rows, 0.25))[:, None],
        tmp_path,
        (record_property, "authors' model/sei.py"),
        "2022, its class",
        counts=(1, 2),
    )


# basenji2-pytorch


def test_basenji2(tmp_path, record_property):
    package = pytest.importorskip("basenji2_pytorch")
    params = copy.deepcopy(package.basenji2_params["model"])
    stem, tower, dilated, crop, last = params["trunk"]
    params["seq_length"] = 4096
    stem["filters"] = 28
    tower |= {"filters_init": 33, "repeat": 4}
    dilated["filters"] = 38
    crop["cropping"] = 8
    last["filters"] = 53
    params["head_human"]["units"] = 31
    model = shaken(package.Basenji2(params))
    reference = f"basenji2-pytorch {importlib.metadata.version('basenji2-pytorch')}"
    source = saved(model.state_dict(), tmp_path)
    source = type(source)(source.name, source.weights, {"crop": 8}, None)
    predicted = compare(
        source,
        lambda rows: model(kit.one_hot(rows, 0.0)),
        tmp_path,
        (record_property, reference),
        context=4096,
    )
    assert predicted.networks[0].stem.norm.eps == 1e-3


# bpnet-lite


def reasonable(model, *prefixes):
    """Heads that give counts: random ones give 10^-40."""
    weights = shaken(model).state_dict()
    for prefix in prefixes or ("",):
        weights = kit.tempered(weights, prefix)
    model.load_state_dict(weights)
    return model


def shared_out(found):
    """What a profile's logits (B, strands, bins) and log counts make of bases, as a track."""
    logits, counts = found
    shares = torch.softmax(logits.flatten(1), dim=1).view_as(logits)
    return (shares * torch.exp(counts)[:, :, None]).transpose(1, 2)


def lite():
    package = pytest.importorskip("bpnetlite")
    return package, f"bpnet-lite {importlib.metadata.version('bpnet-lite')}"


@pytest.mark.parametrize(
    ("variant", "values"),
    [
        ("bpnet-lite", {"n_outputs": 1, "n_control_tracks": 0}),
        ("two strands, controls", {"n_outputs": 2, "n_control_tracks": 2}),
        ("no biases", {"n_outputs": 1, "n_control_tracks": 0, "profile_output_bias": False,
                       "count_output_bias": False, "n_layers": 5}),
    ],
)  # fmt: skip
def test_bpnet(variant, values, tmp_path, record_property):
    package, reference = lite()
    model = reasonable(package.BPNet(**values, verbose=False))
    controls = values["n_control_tracks"]

    def run(rows):
        zeros = torch.zeros(len(rows), controls, rows.shape[1]) if controls else None
        return shared_out(model(kit.one_hot(rows, 0.0), zeros))

    source = saved(model.state_dict(), tmp_path)
    compare(source, run, tmp_path, (record_property, reference), variant)


def test_chrombpnet(tmp_path, record_property):
    package, reference = lite()
    sizes = {"n_outputs": 1, "n_control_tracks": 0, "verbose": False}
    bias = package.BPNet(n_filters=128, n_layers=4, **sizes)
    wide = package.BPNet(n_filters=512, n_layers=8, **sizes)
    model = reasonable(package.ChromBPNet(bias, wide), "bias.", "accessibility.")
    compare(
        saved(model.state_dict(), tmp_path),
        lambda rows: shared_out(model(kit.one_hot(rows, 0.0))),
        tmp_path,
        (record_property, reference),
        counts=(1, 2),
    )


def test_chrombpnet_from_keras_files(tmp_path, record_property):
    """Files as Keras writes them: the port reads the parts one by one, we read either kind."""
    package, reference = lite()
    h5py = pytest.importorskip("h5py")
    from glm_annotate.train.keras_h5 import read_weights

    shapes = {"": kit.bpnet(16, 4), "wo_bias_": kit.bpnet(24, 8)}
    parts = {prefix: kit.tempered(kit.filled(x)) for prefix, x in shapes.items()}
    for prefix, weights in parts.items():
        last = f"{prefix}bpnet_" if prefix else ""
        names = {"fconv": f"{last}prof_out_precrop", "linear": f"{last}logcount_predictions"}
        names |= {"iconv": f"{prefix}bpnet_1st_conv"}
        names |= {f"rconvs.{i}": f"{prefix}bpnet_{i + 1}conv" for i in range(8)}
        nested = "model_wo_bias" if prefix else "model"
        for path, outer in ((f"{prefix}part.h5", ""), ("both.h5", nested)):
            with h5py.File(tmp_path / path, "a") as file:
                for name, value in weights.items():
                    layer, part = name.rsplit(".", 1)
                    part = {"weight": "kernel:0", "bias": "bias:0"}[part]
                    turned = value.permute(tuple(reversed(range(value.ndim)))).numpy()
                    file[f"model_weights/{outer or names[layer]}/{names[layer]}/{part}"] = turned
    bias = package.BPNet.from_chrombpnet(tmp_path / "part.h5")
    wide = package.BPNet.from_chrombpnet(tmp_path / "wo_bias_part.h5")
    models = {"both.h5": package.ChromBPNet(bias, wide), "part.h5": bias, "wo_bias_part.h5": wide}
    for name, model in models.items():
        model.eval()
        folder = tmp_path / name.removesuffix(".h5")
        folder.mkdir()
        source = kit.source_of(read_weights(tmp_path / name))
        compare(
            source,
            lambda rows, model=model: shared_out(model(kit.one_hot(rows, 0.0))),
            folder,
            (record_property, f"{reference}, from h5"),
            {
                "both.h5": "Keras, both parts",
                "part.h5": "Keras, bias",
                "wo_bias_part.h5": "Keras, without bias",
            }[name],
        )
