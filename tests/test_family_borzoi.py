"""Borzoi's network and the layouts of its checkpoints, without any public implementation."""

from __future__ import annotations

import json
import math

import numpy as np
import onnx
import pysam
import pytest
import torch
from parity_kit import CUDA_OPERATORS, randomise

from glm_annotate.errors import InputError
from glm_annotate.train import graph
from glm_annotate.train.families import baskerville
from glm_annotate.train.families.borzoi import FAMILY, _crop, _keys, load, recognise
from glm_annotate.train.families.borzoi_blocks import (
    Borzoi,
    BorzoiConfig,
    ConvBlock,
    RotaryAttention,
    central_mask,
)
from glm_annotate.train.families.family import Source
from glm_annotate.train.official import rename

SMALL = {
    "tokens": 8, "stem": 6, "stem_kernel": 7, "tower": (8, 10, 12), "kernel": 5, "layers": 2,
    "heads": 2, "key": 4, "features": 6, "crop": 3, "last": 9, "tracks": 5,
}  # fmt: skip
BLOCK = {
    "0.fn.0": "norm_attention", "0.fn.1": "attention", "1.fn.0": "norm_mlp", "1.fn.1": "widen",
    "1.fn.4": "narrow",
}  # fmt: skip


def small(**values) -> Borzoi:
    network = randomise(Borzoi(BorzoiConfig(**SMALL | values)), seed=1)
    generator = torch.Generator().manual_seed(2)
    for name, value in network.named_buffers():
        if name.endswith("running_mean"):
            value.copy_(torch.randn(value.shape, generator=generator))
        elif name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return network


def rows_of(batch: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(5, size=(batch, length)).astype(np.uint8)


def tracks(network, rows: np.ndarray) -> np.ndarray:
    return graph.run_torch(network, rows)["tracks"]


# The network


def test_trap_widths_of_the_mask_are_those_of_the_training_window():
    table = central_mask(6, 8, 15)
    assert table.shape == (11, 8)
    # 16^(k/4) - 1: 1, 3, 7 and 15, each strictly beyond the distances that it tells.
    assert [int(table[5:, k].sum()) for k in range(4)] == [1, 3, 6, 6]
    assert torch.equal(table[:5, 4:], -table[:5, :4])
    assert torch.equal(table[6:, 4:], table[6:, :4])
    assert not torch.equal(table, central_mask(6, 8, 6))
    made = small(trained_tokens=4096).positions
    assert torch.equal(made, central_mask(8, 6, 4096))


@torch.no_grad()
def test_trap_gelu_has_the_tanh_form_and_norms_keras_epsilon():
    block = ConvBlock(1, 1)
    block.norm.running_var.fill_(0.001)
    block.conv.weight.fill_(1.0)
    block.conv.bias.zero_()
    x = 0.05 / math.sqrt(0.002)  # variance + 1e-3
    wanted = 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    assert float(block.eval()(torch.full((1, 1, 1), 0.05))) == pytest.approx(wanted, abs=1e-6)
    erf = 0.5 * x * (1 + math.erf(x / math.sqrt(2)))
    assert abs(wanted - erf) > 1e-5


@torch.no_grad()
def test_trap_two_heads_share_a_key_and_only_128_numbers_turn():
    layer = randomise(RotaryAttention(560, 4), seed=3)
    x = torch.randn(1, 5, 560)
    parts = layer.Wqkv(x)[0]
    query, key, value = parts[:, :560], parts[:, 560:840], parts[:, 840:]

    def turn(vector: torch.Tensor, place: int) -> torch.Tensor:
        out = vector.clone()
        for i in range(64):
            angle = place / 20000.0 ** (i / 64)
            out[i] = vector[i] * math.cos(angle) - vector[i + 64] * math.sin(angle)
            out[i + 64] = vector[i + 64] * math.cos(angle) + vector[i] * math.sin(angle)
        return out

    heads = []
    for head in range(4):
        own = slice(140 * head, 140 * head + 140)
        shared = slice(140 * (head // 2), 140 * (head // 2) + 140)
        turned = [(turn(query[t, own], t), turn(key[t, shared], t)) for t in range(5)]
        scores = torch.stack([torch.stack([q @ k for _, k in turned]) for q, _ in turned])
        heads.append((scores / math.sqrt(140)).softmax(-1) @ value[:, shared])
    wanted = layer.out_proj(torch.cat(heads, -1))
    angles = small(tower=(8, 256), attention="rotary").positions[:5]
    assert torch.allclose(layer(x, angles)[0], wanted, atol=1e-5)


def test_outputs_are_cropped_and_activated():
    network = small()
    assert (network.length, network.multiple_of, network.config.bin) == (128, 16, 4)
    rows = rows_of(2, 128)
    found = tracks(network, rows)
    assert found.shape == (2, 26, 5)
    assert found.min() > 0
    assert np.allclose(found, tracks(small(crop=0), rows)[:, 3:-3], atol=1e-5)


@torch.no_grad()
def test_a_step_up_by_hand():
    up = small().up[0]
    x, beside = torch.randn(1, 12, 4), torch.randn(1, 12, 8)
    joined = up.own(x).repeat_interleave(2, dim=2) + up.beside(beside)
    padded = torch.nn.functional.pad(joined, (1, 1))
    smooth = sum(up.depth.weight[:, 0, k, None] * padded[:, :, k : k + 8] for k in range(3))
    wanted = torch.einsum("oi,bin->bon", up.point.weight[..., 0], smooth)
    wanted = wanted + up.point.bias[:, None]
    assert torch.allclose(up(x, beside), wanted, atol=1e-5)


def test_select_keeps_tracks_in_the_order_given():
    network = small()
    rows = rows_of(2, 128)
    whole = tracks(network, rows)
    network.select([4, 1])
    assert np.allclose(tracks(network, rows), whole[..., [4, 1]], atol=1e-6)
    assert sum(x.numel() for x in network.head.parameters()) == 2 * 10


@pytest.mark.parametrize(
    "values", [{"last": None, "dense_up": False}, {"tower": (8, 256), "attention": "rotary"}]
)
def test_onnx_at_other_batch_sizes(tmp_path, values):
    network, path = small(**values), tmp_path / "model.onnx"
    graph.write_graph(network, path, "fp32")
    batches = [rows_of(batch, network.length, batch) for batch in (1, 2, 5)]
    for rows, found in zip(batches, graph.run_graph(path, batches), strict=True):
        wanted = tracks(network, rows)
        assert np.abs(found["tracks"] - wanted).max() < 1e-5 * max(1, wanted.max())
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert operators <= CUDA_OPERATORS | {"BatchNormalization", "MaxPool"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crop": 16}, "leaves no bin"),
        ({"kernel": 4}, "must be odd"),
        ({"levels": 4}, "only 3 to return"),
        ({"heads": 5}, "do not divide"),
        ({"features": 5}, "must be even"),
        ({"attention": "rotary"}, "128 numbers or more"),
        ({"size": 5}, "Extra inputs"),
    ],
)
def test_build_refuses(values, message):
    with pytest.raises(InputError, match=message):
        FAMILY.build({**SMALL, "tower": [8, 10, 12]} | values)


# Checkpoints of borzoi-pytorch


def official_names(network: Borzoi, heads: dict[str, int]) -> dict[str, torch.Tensor]:
    """Names as borzoi-pytorch gives them, written out by hand."""
    out, state = {}, network.state_dict()
    rotary = network.config.attention == "rotary"

    def conv(old: str, new: str) -> None:
        out.update({f"{old}.{x}": state[f"{new}.{x}"] for x in ("weight", "bias")})

    def block(old: str, new: str) -> None:
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            out[f"{old}.norm.{part}"] = state[f"{new}.norm.{part}"]
        conv(f"{old}.conv_layer", f"{new}.conv")

    conv("conv_dna.conv_layer", "stem")
    last = len(network.tower) - 1
    for i in range(last):
        block(f"res_tower.{2 * i}", f"tower.{i}")
    block("unet1.1", f"tower.{last}")
    for theirs, ours in ((1, 0), (0, 1)):
        block(f"horizontal_conv{theirs}", f"up.{ours}.beside")
        block(f"upsampling_unet{theirs}.0", f"up.{ours}.own")
        out[f"separable{theirs}.conv_layer.0.weight"] = state[f"up.{ours}.depth.weight"]
        conv(f"separable{theirs}.conv_layer.1", f"up.{ours}.point")
    for name, value in state.items():
        if name.startswith("transformer."):
            _, i, part, *rest = name.split(".")
            theirs = next(old for old, new in BLOCK.items() if new == part)
            infix = "mha." if rotary and part == "attention" else ""
            out[f"transformer.{i}.{theirs}.{infix}{'.'.join(rest)}"] = value
    block("final_joined_convs.0", "last")
    width = network.head.in_features
    for head, count in heads.items():
        out[f"{head}_head.weight"] = torch.full((count, width, 1), 0.25)
        out[f"{head}_head.bias"] = torch.zeros(count)
    out["human_head.weight"] = state["head.weight"][..., None]
    out["human_head.bias"] = state["head.bias"]
    return out


@pytest.mark.parametrize("rotary", [False, True])
def test_the_layout_of_borzoi_pytorch(rotary):
    # What a checkpoint of the other kind does not tell has the config's defaults.
    values = {"tower": (8, 10, 256), "attention": "rotary", "key": 64, "features": 32}
    network = small(trained_tokens=4096, **values if rotary else {})
    weights = official_names(network, {"human": 5, "mouse": 3})
    config = {"bins_to_return": 26, "heads": 2}
    source = Source("borzoi", weights, config)
    assert [x.recognise(source) for x in FAMILY.official] == [not rotary, rotary, False]
    loaded = load(rotary, source, 128)
    assert loaded.networks[0].config == network.config
    rows = rows_of(2, 128)
    assert np.array_equal(tracks(loaded.networks[0], rows), tracks(network, rows))
    mouse = load(rotary, Source("borzoi", weights, {**config, "head": "mouse"}), 128)
    assert mouse.networks[0].head.weight.shape == (3, 9)
    assert bool((mouse.networks[0].head.weight == 0.25).all())
    further = Source("borzoi", weights, config, repository="johahi/borzoi-replicate-0-mouse@1")
    assert load(rotary, further, 128).card["provenance"]["assembly"] == "mm10"
    with pytest.raises(InputError, match=r"does not have: unet9\.bias"):
        load(rotary, Source("x", {**weights, "unet9.bias": torch.ones(1)}, config), 128)
    with pytest.raises(InputError, match="no head 'rat', found human, mouse"):
        load(rotary, Source("x", weights, {**config, "head": "rat"}), 128)


@pytest.mark.parametrize(
    ("config", "context", "crop"),
    [
        ({"bins_to_return": 20}, 128, 6),
        ({"bins_to_return": -1}, 128, 0),
        ({"return_center_bins_only": False}, 256, 16),
    ],
)
def test_the_config_says_how_many_bins_are_kept(config, context, crop):
    network = small()
    source = Source("borzoi", official_names(network, {"human": 5}), config)
    assert load(False, source, context).card["crop"] == crop


def test_trap_the_package_keeps_a_central_part_by_default():
    assert _crop(Source("x", {}), 16_384, 32) == 5120
    assert _crop(Source("x", {}, {"return_center_bins_only": False}), 16_384, 32) == 16
    assert BorzoiConfig().bins == 16_352
    # The base at the middle is in the first bin of the second half.
    assert (524_288 // 2 - 16 * 32) // 32 == 8176
    assert (524_288 // 2 - 5120 * 32) // 32 == 3072


@pytest.mark.parametrize(
    ("config", "context", "message"),
    [
        ({"bins_to_return": 40}, 128, "fewer than the 40 bins"),
        ({"bins_to_return": 7}, 128, "bins_to_return is 7"),
        ({"bins_to_return": 26}, 100, "multiple of 16"),
    ],
)
def test_contradictions(config, context, message):
    source = Source("borzoi", official_names(small(), {"human": 5}), config)
    with pytest.raises(InputError, match=message):
        load(False, source, context)


def test_recognise_leaves_others_alone():
    for source in (Source("x", {}), Source("x", {"conv1d/kernel": torch.ones(1)})):
        assert not recognise(False, source)
        assert not baskerville.recognise(source)


@pytest.mark.parametrize("attention", ["relative", "rotary"])
def test_the_keys_and_sizes_of_the_published_checkpoints(shared_dir, attention):
    with torch.device("meta"):
        network = Borzoi(BorzoiConfig(attention=attention))
        weights = official_names(network, {"human": 7611, "mouse": 2608})
    wanted = {"relative": 190_902_667, "rotary": 197_079_435}[attention]
    ours = sum(value.numel() for value in network.parameters())
    assert ours + 2608 * 1921 == wanted
    named = rename(weights, _keys(network.config, "human"))
    assert named.keys() == network.state_dict().keys()
    if attention == "rotary":
        shapes = {
            k: tuple(v.shape) for k, v in weights.items() if k.startswith("transformer.0.0.fn.1")
        }
        assert shapes["transformer.0.0.fn.1.mha.Wqkv.weight"] == (3072, 1536)
        return
    text = (shared_dir / "models" / "golden" / "borzoi_keys.json").read_text()
    shapes = {name: tuple(shape) for name, shape in json.loads(text).items()}
    assert {name: tuple(value.shape) for name, value in weights.items()} == shapes


# Keras files of baskerville

TOWER = {"filters_init": 8, "filters_mult": 1.25, "divisible_by": 2, "repeat": 3, "kernel_size": 5}
PARAMS = {
    "seq_length": 128, "augment_rc": True, "activation": "gelu", "norm_type": "batch-sync",
    "trunk": [
        {"name": "conv_dna", "filters": 6, "kernel_size": 7, "norm_type": None,
         "activation": "linear", "pool_size": 2},
        {"name": "res_tower", "num_convs": 1, "pool_size": 2, **TOWER},
        {"name": "transformer_tower", "key_size": 4, "heads": 2, "num_position_features": 6,
         "dropout": 0.2, "repeat": 2},
        {"name": "unet_conv", "kernel_size": 3, "upsample_conv": True},
        {"name": "unet_conv", "kernel_size": 3, "upsample_conv": True},
        {"name": "Cropping1D", "cropping": 3},
        {"name": "conv_nac", "filters": 9, "dropout": 0.1},
    ],
    "head_human": {"name": "final", "units": 5, "activation": "softplus"},
    "head_mouse": {"name": "final", "units": 4, "activation": "softplus"},
}  # fmt: skip


def write_keras(folder, network: Borzoi, params=PARAMS, first: int = 0, norm="batch_normalization"):
    """Write the h5 that Keras would, layers numbered from `first` on as their kinds are made."""
    h5py = pytest.importorskip("h5py")
    state = {k: v.numpy() for k, v in network.state_dict().items()}
    made: dict[str, int] = {}
    (folder / "params.json").write_text(json.dumps({"train": {}, "model": params}))
    file = h5py.File(folder / "model.h5", "w")
    file.create_dataset("optimizer_weights/step:0", data=np.zeros(1))

    def layer(kind: str, weights: dict[str, np.ndarray]) -> None:
        number = first + made.get(kind, 0)
        made[kind] = made.get(kind, 0) + 1
        name = f"{kind}_{number}" if number else kind
        for key, value in weights.items():
            file.create_dataset(f"model_weights/{name}/{name}/{key}:0", data=value)

    def conv(ours: str) -> None:
        kernel = state[f"{ours}.weight"].transpose(2, 1, 0)
        layer("conv1d", {"kernel": kernel, "bias": state[f"{ours}.bias"]})

    def dense(ours: str) -> None:
        kernel = state[f"{ours}.weight"]
        kernel = kernel.reshape(kernel.shape[:2]).T
        layer("dense", {"kernel": kernel, "bias": state[f"{ours}.bias"]})

    def normal(ours: str, kind: str) -> None:
        names = {"gamma": "weight", "beta": "bias"}
        if kind == norm:
            names |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
        layer(kind, {key: state[f"{ours}.{name}"] for key, name in names.items()})

    conv("stem")
    for i in range(3):
        normal(f"tower.{i}.norm", norm)
        conv(f"tower.{i}.conv")
    for i in range(2):
        here = f"transformer.{i}"
        normal(f"{here}.norm_attention", "layer_normalization")
        weights = {f"{x}_layer/kernel": state[f"{here}.attention.to_{x}.weight"].T for x in "qkv"}
        weights["r_k_layer/kernel"] = state[f"{here}.attention.to_rel_k.weight"].T
        weights["embedding_layer/kernel"] = state[f"{here}.attention.to_out.weight"].T
        weights["embedding_layer/bias"] = state[f"{here}.attention.to_out.bias"]
        weights["r_w_bias"] = state[f"{here}.attention.rel_content_bias"]
        weights["r_r_bias"] = state[f"{here}.attention.rel_pos_bias"]
        layer("multihead_attention", weights)
        normal(f"{here}.norm_mlp", "layer_normalization")
        dense(f"{here}.widen")
        dense(f"{here}.narrow")
    for i in range(2):
        normal(f"up.{i}.own.norm" if network.config.dense_up else f"up.{i}.own", norm)
        normal(f"up.{i}.beside.norm", norm)
        if network.config.dense_up:
            dense(f"up.{i}.own.conv")
        dense(f"up.{i}.beside.conv")
        depth = state[f"up.{i}.depth.weight"].transpose(2, 0, 1)
        point = state[f"up.{i}.point.weight"].transpose(2, 1, 0)
        bias = state[f"up.{i}.point.bias"]
        weights = {"depthwise_kernel": depth, "pointwise_kernel": point, "bias": bias}
        layer("separable_conv1d", weights)
    if network.config.last:
        normal("last.norm", norm)
        conv("last.conv")
    dense("head")
    file.close()


def read_keras(folder, **config) -> Source:
    from glm_annotate.train.keras_h5 import read_weights

    return Source("model.h5", read_weights(folder / "model.h5"), config, folder)


LOAD_KERAS = FAMILY.official[2].load


def without(*names: str) -> dict:
    trunk = [dict(block) for block in PARAMS["trunk"] if block["name"] not in names]
    for block in trunk:
        block.pop("upsample_conv", None)
    return {**PARAMS, "trunk": trunk}


@pytest.mark.parametrize("norm", ["batch_normalization", "sync_batch_normalization"])
@pytest.mark.parametrize(
    ("params", "values"),
    [
        (PARAMS, {}),
        (without("Cropping1D", "conv_nac"), {"crop": 0, "last": None, "dense_up": False}),
    ],
)
def test_keras_round_trip(tmp_path, norm, params, values):
    network = small(trained_tokens=8, **values)
    write_keras(tmp_path, network, params, norm=norm)
    source = read_keras(tmp_path)
    assert [x.recognise(source) for x in FAMILY.official] == [False, False, True]
    loaded = LOAD_KERAS(source, None)
    assert loaded.networks[0].config == network.config
    rows = rows_of(2, 128)
    assert np.array_equal(tracks(loaded.networks[0], rows), tracks(network, rows))
    assert (loaded.card["context"], loaded.card["anchor"], loaded.card["bin_size"]) == (128, 63, 4)


def test_trap_layers_need_not_be_numbered_from_0(tmp_path):
    network = small()
    # conv1d_8, conv1d_9, conv1d_10: in the order of numbers, not of names.
    write_keras(tmp_path, network, first=8)
    rows = rows_of(1, 128)
    found = LOAD_KERAS(read_keras(tmp_path), None).networks[0]
    assert np.array_equal(tracks(found, rows), tracks(network, rows))


def test_a_head_is_told_by_its_tracks(tmp_path):
    write_keras(tmp_path, small(tracks=4))
    assert LOAD_KERAS(read_keras(tmp_path), None).card["provenance"]["assembly"] == "mm10"
    with pytest.raises(InputError, match=r"not those of head 'human'.*give the h5 of that head"):
        LOAD_KERAS(read_keras(tmp_path, head="human"), None)
    write_keras(tmp_path, small(tracks=6))
    with pytest.raises(InputError, match=r"has 6 tracks, params\.json gives human, mouse"):
        LOAD_KERAS(read_keras(tmp_path), None)


def test_a_longer_window_keeps_the_widths_of_training(tmp_path):
    write_keras(tmp_path, small())
    config = LOAD_KERAS(read_keras(tmp_path), 256).networks[0].config
    assert (config.tokens, config.trained_tokens, config.crop) == (16, 8, 3)
    with pytest.raises(InputError, match="not a multiple of 16"):
        LOAD_KERAS(read_keras(tmp_path), 100)


def change(index: int, **values) -> dict:
    trunk = [dict(block) for block in PARAMS["trunk"]]
    trunk[index] |= values
    return {**PARAMS, "trunk": trunk}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (change(0, name="conv_block"), "block 'conv_block', known are conv_dna"),
        (change(1, num_convs=2), "res_tower: num_convs is 2, known are 1"),
        (change(1, repeat=4), "4 conv|wanted 6"),
        (change(2, num_position_features=None), "no num_position_features"),
        (change(2, gated=True), "transformer_tower: gated is True"),
        (change(3, upsample_conv=False), "unet_conv blocks differ"),
        (change(5, cropping=40), "leaves no bin"),
        (change(6, residual=True), "conv_nac: residual is True"),
        (change(0, filters="6"), "conv_dna: filters is '6'"),
        ({**PARAMS, "activation": "relu"}, "activation is 'relu', known are gelu"),
        ({**PARAMS, "trunk": PARAMS["trunk"][1:]}, "blocks res_tower"),
        ({**PARAMS, "head_human": {"name": "final", "units": 5}}, "activation is left out"),
        ({**PARAMS, "seq_length": 120}, "not a multiple of 16"),
        ({**PARAMS, "seq_length": None}, "seq_length is None"),
    ],
)
def test_params_that_are_not_known(tmp_path, params, message):
    write_keras(tmp_path, small(), params)
    with pytest.raises(InputError, match=message):
        LOAD_KERAS(read_keras(tmp_path), None)


def test_layers_are_accounted_for(tmp_path):
    write_keras(tmp_path, small())
    source = read_keras(tmp_path)
    for name, message in (
        ("conv1d_7/kernel", "6 layers of the kind conv, wanted 5"),
        ("embedding/table", "layer embedding is of no known kind"),
        ("conv1d_1/gain", "conv1d_1 holds gain"),
        ("sync_batch_normalization/gamma", "two kinds"),
    ):
        weights = {**source.weights, name: torch.ones(2)}
        with pytest.raises(InputError, match=message):
            LOAD_KERAS(Source("model.h5", weights, {}, tmp_path), None)
    weights = {k: v for k, v in source.weights.items() if k != "conv1d_1/bias"}
    with pytest.raises(InputError, match=r"no weights for: tower\.0\.conv\.bias"):
        LOAD_KERAS(Source("model.h5", weights, {}, tmp_path), None)
    (tmp_path / "params.json").unlink()
    with pytest.raises(InputError, match=r"no params\.json beside it"):
        LOAD_KERAS(source, None)


def test_files_that_are_no_h5(tmp_path):
    h5py = pytest.importorskip("h5py")
    from glm_annotate.train.keras_h5 import read_config, read_weights

    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\nnot really")
    (tmp_path / "b.h5").write_text("PK")
    for name in ("a.h5", "b.h5", "missing.h5"):
        with pytest.raises(InputError, match=f"{name}: cannot be read"):
            read_weights(tmp_path / name)
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.attrs["model_config"] = '{"class_name": "Functional"}'
    assert read_config(tmp_path / "c.h5") == {"class_name": "Functional"}
    with pytest.raises(InputError, match=r"c\.h5: holds no weights"):
        read_weights(tmp_path / "c.h5")
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file.create_dataset("conv1d/conv1d/kernel:0", data=np.arange(6, dtype=">f4"))
        file.create_dataset("dense/note", data=b"text")
    with pytest.raises(InputError, match="no array of numbers"):
        read_weights(tmp_path / "d.h5")
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file.create_dataset("conv1d/conv1d/kernel:0", data=np.arange(6, dtype=">f4"))
    assert read_weights(tmp_path / "e.h5")["conv1d/kernel"].tolist() == [0, 1, 2, 3, 4, 5]


def test_the_params_of_the_published_borzoi():
    model = json.loads(
        """{"seq_length": 524288, "activation": "gelu", "norm_type": "batch-sync", "trunk": [
        {"name": "conv_dna", "filters": 512, "kernel_size": 15, "norm_type": null,
         "activation": "linear", "pool_size": 2},
        {"name": "res_tower", "filters_init": 608, "filters_end": 1536, "divisible_by": 32,
         "kernel_size": 5, "num_convs": 1, "pool_size": 2, "repeat": 6},
        {"name": "transformer_tower", "key_size": 64, "heads": 8, "num_position_features": 32,
         "dropout": 0.2, "mha_l2_scale": 1e-8, "l2_scale": 1e-8,
         "kernel_initializer": "he_normal", "repeat": 8},
        {"name": "unet_conv", "kernel_size": 3, "upsample_conv": true},
        {"name": "unet_conv", "kernel_size": 3, "upsample_conv": true},
        {"name": "Cropping1D", "cropping": 16},
        {"name": "conv_nac", "filters": 1920, "dropout": 0.1}]}"""
    )
    found = baskerville.config_of(Source("x", {}), model, 7611, None)
    assert found == BorzoiConfig(trained_tokens=4096)


# Targets

TABLE = """\tidentifier\tfile\tclip\tclip_soft\tscale\tsum_stat\tstrand_pair\tdescription
5\tA+\t/home/someone/A+.w5\t768\t384\t0.3\tsum_sqrt\t6\tRNA:liver: left
6\tA-\t/home/someone/A-.w5\t768\t384\t0.3\tsum_sqrt\t5\tRNA:liver: left
7\tB\t/home/someone/B.w5\t128\t32\t2.0\tmean\t7\tCHIP:H3K4me3:K562
8\tC\t/home/someone/C.w5\t128\t32\t2.0\tsum\t8\tDNASE:HepG2
9\tD\t/home/someone/D.w5\t128\t32\t2.0\tmean\t9\tDNASE:HepG2
"""


def test_targets_become_rows(tmp_path):
    write_keras(tmp_path, small())
    (tmp_path / "targets.txt").write_text(TABLE.replace("sum\t8", "sum_exp75\t8"))
    rows = LOAD_KERAS(read_keras(tmp_path), None).tracks
    assert rows[1] == {
        "identifier": "A-", "description": "RNA:liver: left", "assay": "RNA",
        "biosample": "liver: left", "transform": "new:sum_sqrt", "clip_soft": "384.0",
        "scale": "0.3", "strand_pair": "A+",
    }  # fmt: skip
    assert (rows[2]["assay"], rows[2]["biosample"]) == ("CHIP", "K562")
    assert rows[3]["transform"] == "new:sum_exp75"


def test_trap_indices_need_not_start_at_0_and_a_track_may_be_its_own_pair(tmp_path):
    write_keras(tmp_path, small())
    (tmp_path / "targets.txt").write_text(TABLE)
    rows = LOAD_KERAS(read_keras(tmp_path), None).tracks
    assert [row.get("strand_pair") for row in rows] == ["A-", "A+", None, None, None]


def test_trap_paths_of_targets_do_not_enter(tmp_path):
    write_keras(tmp_path, small())
    (tmp_path / "targets.txt").write_text(TABLE)
    assert "someone" not in repr(LOAD_KERAS(read_keras(tmp_path), None).tracks)


def test_targets_beside_the_weights(tmp_path):
    write_keras(tmp_path, small())
    assert LOAD_KERAS(read_keras(tmp_path), None).tracks == ()
    (tmp_path / "targets.txt").write_text(TABLE)
    rows = LOAD_KERAS(read_keras(tmp_path), None).tracks
    assert [row["transform"] for row in rows[::2]] == ["new:sum_sqrt", "new:mean", "new:mean"]
    rows = LOAD_KERAS(read_keras(tmp_path, transform="old"), None).tracks
    assert rows[0]["transform"] == "old:sum_sqrt"
    with pytest.raises(InputError, match="transform is 'newest', known are none, old, new"):
        LOAD_KERAS(read_keras(tmp_path, transform="newest"), None)
    (tmp_path / "targets_human.txt").write_text(TABLE.split("9\tD")[0])
    with pytest.raises(InputError, match=r"targets_human\.txt: 4 tracks, head human has 5"):
        LOAD_KERAS(read_keras(tmp_path), None)


# The real mini-Borzoi


@pytest.fixture(scope="module")
def mini(shared_dir):
    pytest.importorskip("h5py")
    folder = shared_dir / "models" / "mini_borzoi"
    return LOAD_KERAS(read_keras(folder), None)


def test_trap_the_upward_norm_comes_before_the_one_beside_it(mini, shared_dir):
    # By the graph in the file: batch_normalization_6 reads the transformer, _7 reads conv1d_6.
    weights = read_keras(shared_dir / "models" / "mini_borzoi").weights
    network = mini.networks[0]
    assert torch.equal(network.up[0].own.norm.bias, weights["batch_normalization_6/beta"])
    assert torch.equal(network.up[0].beside.norm.bias, weights["batch_normalization_7/beta"])
    assert torch.equal(network.up[1].beside.norm.bias, weights["batch_normalization_9/beta"])


def test_mini_borzoi_gives_what_tensorflow_gave(mini, shared_dir):
    with np.load(shared_dir / "models" / "mini_borzoi" / "golden_window.npz") as golden:
        x, wanted = torch.from_numpy(golden["x"]).float(), golden["y"]
    with torch.no_grad():
        found = mini.networks[0](x)[0].numpy()
    assert np.abs(found - wanted).max() < 1e-4
    assert wanted.max() > 20


def test_mini_borzoi_sees_a_promoter_on_both_strands(mini, shared_dir, tmp_path):
    packed = shared_dir / "models" / "mini_borzoi" / "hg38_1m.fa.gz"
    with pysam.FastxFile(str(packed)) as file:
        sequence = next(iter(file)).sequence[868_000 : 868_000 + 131_072].upper()
    rows = np.array([["ACGT".find(base) for base in sequence]])
    rows = np.where(rows < 0, 4, rows).astype(np.uint8)
    back = np.where(rows == 4, 4, 3 - rows)[:, ::-1].astype(np.uint8)
    network = mini.networks[0]
    names = [i for i, row in enumerate(mini.tracks) if row["assay"] == "DNASE"]
    assert len(names) == 10
    forward = tracks(network, rows)[0][:, names].mean(1)
    reverse = tracks(network, back)[0][::-1, names].mean(1)
    # The promoter of NOC2L and KLHL17; the output begins at 868,000 + 1024 x 32.
    assert 959_200 <= 900_768 + 32 * int(forward.argmax()) < 959_400
    assert 959_200 <= 900_768 + 32 * int(reverse.argmax()) < 959_400
    assert np.corrcoef(forward, reverse)[0, 1] > 0.85


def test_the_table_of_mini_borzoi(mini):
    rows = mini.tracks
    assert len(rows) == 74
    pairs = {row["identifier"]: row["strand_pair"] for row in rows if "strand_pair" in row}
    assert len(rows) - len(pairs) // 2 == 47
    assert all(pairs[other] == name for name, other in pairs.items())
    assert {row["transform"] for row in rows} == {"new:mean", "new:sum_sqrt"}
