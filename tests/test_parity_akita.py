"""Akita against akita-torch, and against the authors' network rebuilt of Keras' own layers.

akita-torch has the published sizes, but not two things of the published model: the ReLU at the end
of the trunk (`re_lu_28` of the authors' printed summary) and the norms' epsilon of Keras. They are
put in here, so that what is compared is the rest: every layer, its order, the pairs and the
triangle. Keras runs on torch; it writes the h5 itself and so decides names and axes.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from parity_kit import CUDA_OPERATORS, ONNX_LIMIT, PUBLIC_LIMIT, operators, randomise, worst
from torch import nn

from glm_annotate.train import graph
from glm_annotate.train.families.akita import FAMILY
from glm_annotate.train.families.family import Source
from glm_annotate.train.keras_h5 import read_weights

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

[OFFICIAL] = FAMILY.official


def params_of(length: int, crop: int, towers: int, **sizes: int) -> dict:
    """The params.json of the published network, with another window and other sizes."""
    size = {
        "stem": 96, "inner": 48, "neck": 64, "flat": 48, "flat_inner": 24, "repeat": 8,
        "flat_repeat": 6, "units": 5, "tower": 96, **sizes,
    }  # fmt: skip
    trunk = [
        {"name": "conv_block", "filters": size["stem"], "kernel_size": 11, "pool_size": 2},
        {
            "name": "conv_tower", "filters_init": size["tower"], "filters_mult": 1.0,
            "kernel_size": 5, "pool_size": 2, "repeat": towers,
        },
        {
            "name": "dilated_residual", "filters": size["inner"], "rate_mult": 1.75,
            "repeat": size["repeat"], "dropout": 0.4,
        },
        {"name": "conv_block", "filters": size["neck"], "kernel_size": 5},
    ]  # fmt: skip
    head = [
        {"name": "one_to_two", "operation": "mean"},
        {"name": "concat_dist_2d"},
        {"name": "conv_block_2d", "filters": size["flat"], "kernel_size": 3},
        {"name": "symmetrize_2d"},
        {
            "name": "dilated_residual_2d", "filters": size["flat_inner"], "kernel_size": 3,
            "rate_mult": 1.75, "repeat": size["flat_repeat"], "dropout": 0.1,
        },
        {"name": "cropping_2d", "cropping": crop},
        {"name": "upper_tri", "diagonal_offset": 2},
        {"name": "final", "units": size["units"], "activation": "linear"},
    ]  # fmt: skip
    model = {
        "seq_length": length, "target_crop": crop, "diagonal_offset": 2, "augment_rc": True,
        "augment_shift": 11, "activation": "relu", "norm_type": "batch", "bn_momentum": 0.9265,
        "trunk": trunk, "head_hic": head,
    }  # fmt: skip
    return {"train": {"batch_size": 2}, "model": model}


def rows_of(batch: int, length: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.integers(4, size=(batch, length)).astype(np.uint8)
    rows[rng.random(rows.shape) < 0.02] = 4
    return rows


def bases_of(rows: np.ndarray) -> np.ndarray:
    """One-hot, zeros for N."""
    return np.concatenate([np.eye(4), np.zeros((1, 4))]).astype(np.float32)[rows]


def compare(folder: Path, params: dict, forward, reference: str, record_property) -> None:
    """Read model_best.h5 of a folder, export it, and compare both with `forward`."""
    (folder / "params.json").write_text(json.dumps(params))
    path = folder / "model_best.h5"
    source = Source(str(path), read_weights(path), {}, folder, files=(path,))
    assert OFFICIAL.recognise(source)
    [network] = OFFICIAL.load(source, None).networks
    batches = [rows_of(batch, network.length, batch) for batch in (1, 3, 2)]
    wanted = [forward(bases_of(rows)) for rows in batches]
    first, second = wanted[1][:2]
    # What is compared has to depend on the bases.
    assert worst(first, second) > 1e-2
    ours = [graph.run_torch(network, rows)["contacts"] for rows in batches]
    graph.write_graph(network, folder / "model.onnx", "fp32")
    assert not operators(folder / "model.onnx") - CUDA_OPERATORS - {"MaxPool"}  # CUDA has it
    exported = graph.run_graph(folder / "model.onnx", batches)
    public = max(worst(a, b) for a, b in zip(ours, wanted, strict=True))
    onnx = max(worst(a["contacts"], b) for a, b in zip(exported, wanted, strict=True))
    record_property("parity", ["Akita", "Keras", reference, float(public), float(onnx), "-", 0])
    assert public <= PUBLIC_LIMIT
    assert onnx <= ONNX_LIMIT


@torch.no_grad()
def settle(model: nn.Module, bases: torch.Tensor) -> None:
    """Take running statistics from a batch, and move them away from it."""
    norms = [x for x in model.modules() if isinstance(x, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.eps, norm.momentum = 1e-3, 1.0
    model.train()(bases)
    generator = torch.Generator().manual_seed(3)
    for norm in norms:
        noise = torch.randn(norm.running_mean.shape, generator=generator)
        norm.running_mean.add_(0.2 * noise * norm.running_var.sqrt())
        norm.running_var.mul_(1 + 0.3 * noise.abs())
    model.eval()


def write_h5(path: Path, model: nn.Module) -> None:
    """Write akita-torch's weights as Keras has them."""
    h5py = pytest.importorskip("h5py")
    counts: dict[str, int] = {}

    def name_of(kind: str) -> str:
        number = counts.get(kind, 0)
        counts[kind] = number + 1
        layer = f"{kind}_{number}" if number else kind
        return f"model_weights/{layer}/{layer}"

    dense = model.head[-1].ffn
    with h5py.File(path, "w") as file:
        for part in model.modules():
            if part is dense:
                place = name_of("dense")
                file[f"{place}/kernel:0"] = part.weight.detach()[:, :, 0].numpy().T
                file[f"{place}/bias:0"] = part.bias.detach().numpy()
            elif isinstance(part, nn.Conv1d):
                kernel = np.einsum("oiw->wio", part.weight.detach().numpy())
                file[f"{name_of('conv1d')}/kernel:0"] = kernel
            elif isinstance(part, nn.Conv2d):
                kernel = np.einsum("oihw->hwio", part.weight.detach().numpy())
                file[f"{name_of('conv2d')}/kernel:0"] = kernel
            elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                place = name_of("batch_normalization")
                for keras, value in (
                    ("gamma", part.weight), ("beta", part.bias),
                    ("moving_mean", part.running_mean), ("moving_variance", part.running_var),
                ):  # fmt: skip
                    file[f"{place}/{keras}:0"] = value.detach().numpy()


@torch.no_grad()
def test_akita_torch(tmp_path: Path, record_property):
    module = pytest.importorskip("akita_torch.model")
    torch.set_num_threads(1)
    model = module.Akita(module.AkitaConfig(target_crop=8))
    model.trunk.append(nn.ReLU())
    randomise(model, 7)
    length = 64 * 2048
    settle(model, torch.from_numpy(bases_of(rows_of(2, length, 11))))
    write_h5(tmp_path / "model_best.h5", model)

    def forward(bases):
        return model(torch.from_numpy(bases)).numpy()

    reference = "akita-torch 0.1.0, trunk's ReLU and eps added"
    compare(tmp_path, params_of(length, 8, 10), forward, reference, record_property)


def keras_model(keras, params: dict):
    """The authors' model as they print it, of Keras' layers; returns it and the bins of a side."""
    layers, model = keras.layers, params["model"]
    stem, tower, dilated, neck = model["trunk"]
    flat, dilated_2d, crop, final = (model["head_hic"][i] for i in (2, 4, 5, 7))

    def unit(x, conv, filters, width=1, dilation=1, pool=1):
        x = layers.ReLU()(x)
        x = conv(filters, width, padding="same", use_bias=False, dilation_rate=dilation)(x)
        x = layers.BatchNormalization(momentum=0.9265)(x)
        return layers.MaxPooling1D(pool, padding="same")(x) if pool > 1 else x

    def symmetric(x):
        return layers.Average()([x, layers.Permute((2, 1, 3))(x)])

    def pairs(x):
        from keras import ops  # a layer that is saved holds no module

        bins = x.shape[1]
        one = ops.repeat(ops.expand_dims(x, 1), bins, axis=1)
        mean = (one + ops.transpose(one, (0, 2, 1, 3))) / 2
        place = np.arange(bins, dtype=np.float32)
        apart = np.abs(place[:, None] - place)[None, :, :, None]
        zero = ops.zeros_like(mean[..., :1])
        return ops.concatenate([mean, zero + ops.convert_to_tensor(apart)], axis=-1)

    def upper(x):
        from keras import ops

        side = x.shape[1]
        row, column = np.triu_indices(side, 2)
        x = ops.reshape(x, (-1, side * side, x.shape[-1]))
        # As the authors count: the map is symmetric.
        return ops.take(x, ops.convert_to_tensor(row + side * column), axis=1)

    one, two = layers.Conv1D, layers.Conv2D
    sequence = x = keras.Input((model["seq_length"], 4))
    x = unit(x, one, stem["filters"], stem["kernel_size"], pool=2)
    for _ in range(tower["repeat"]):
        x = unit(x, one, tower["filters_init"], tower["kernel_size"], pool=2)
    for i in range(dilated["repeat"]):
        inner = unit(x, one, dilated["filters"], 3, int(np.round(1.75**i)))
        x = layers.Add()([x, layers.Dropout(0.4)(unit(inner, one, x.shape[-1]))])
    x = layers.ReLU()(unit(x, one, neck["filters"], neck["kernel_size"]))
    x = layers.Lambda(pairs)(x)
    x = symmetric(unit(x, two, flat["filters"], flat["kernel_size"]))
    for i in range(dilated_2d["repeat"]):
        inner = unit(x, two, dilated_2d["filters"], 3, int(np.round(1.75**i)))
        x = symmetric(layers.Add()([x, layers.Dropout(0.1)(unit(inner, two, x.shape[-1]))]))
    x = layers.Lambda(upper)(layers.Cropping2D(crop["cropping"])(x))
    return keras.Model(sequence, layers.Dense(final["units"])(x))


def fill_keras(model, bases: np.ndarray) -> None:
    """Random weights; statistics from a batch, layer after layer, and moved away from it."""
    rng = np.random.default_rng(5)
    for layer in model.layers:
        values = layer.get_weights()
        if not values:
            continue
        if len(values) == 4:
            before = type(model)(model.input, layer.input).predict(bases, verbose=0)
            axes = tuple(range(before.ndim - 1))
            mean, var = before.mean(axes), before.var(axes)
            noise = rng.standard_normal(mean.shape)
            layer.set_weights(
                [
                    1 + 0.3 * noise[::-1], 0.3 * rng.standard_normal(mean.shape),
                    mean + 0.2 * noise * np.sqrt(var), var * (1 + 0.3 * np.abs(noise)),
                ]
            )  # fmt: skip
        else:
            scale = 1.2 / np.sqrt(values[0][..., 0].size)
            layer.set_weights([scale * rng.standard_normal(x.shape) for x in values])


def test_keras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))  # it writes its settings there
    keras = pytest.importorskip("keras")
    pytest.importorskip("h5py")
    torch.set_num_threads(1)
    sizes = {"stem": 12, "tower": 12, "inner": 8, "neck": 10, "flat": 9, "flat_inner": 6}
    params = params_of(24 * 16, 3, 3, **sizes, repeat=5, flat_repeat=5, units=3)
    # What is made before moves the numbers of what comes after: here from 7 on, past 9.
    keras.utils.clear_session()
    keras_model(keras, params_of(24 * 16, 3, 3, repeat=1))
    model = keras_model(keras, params)
    fill_keras(model, bases_of(rows_of(4, 24 * 16, 13)))
    model.save(tmp_path / "model_best.h5")
    layers = {name.split("/")[0] for name in read_weights(tmp_path / "model_best.h5")}
    assert {x for x in layers if "conv1d" in x} == {f"conv1d_{i}" for i in range(7, 22)}

    def forward(bases):
        return model.predict(bases, verbose=0)

    reference = f"keras {keras.__version__} (torch), layers as the authors print them"
    compare(tmp_path, params, forward, reference, record_property)
