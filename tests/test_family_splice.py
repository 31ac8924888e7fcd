"""Splice models without their packages: arithmetic by hand, keys, layouts, traps."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping

import numpy as np
import onnxruntime
import pytest
import torch
from parity_kit import CUDA_OPERATORS, operators, randomise, worst

from glm_annotate.card import ModelCard
from glm_annotate.errors import InputError
from glm_annotate.train import graph
from glm_annotate.train.families import FAMILIES, mmsplice, pangolin, spliceai
from glm_annotate.train.families.family import Source
from glm_annotate.train.families.mmsplice_blocks import (
    Exon,
    Intron,
    PartsGraph,
    spline_basis,
)
from glm_annotate.train.families.spliceai_blocks import SpliceAIConfig, Unit

SPLICEAI, CI, OPEN = spliceai.FAMILY.official
(PANGOLIN,) = pangolin.FAMILY.official
MMSPLICE, MTSPLICE = mmsplice.FAMILY.official
OFFICIAL = [*spliceai.FAMILY.official, PANGOLIN, MMSPLICE, MTSPLICE]

# Two groups of two units; 1 x 2 + 1 x 2 + 3 x 4 + 3 x 4 = 28 bases at each side.
TINY = {"widths": [3, 3, 5, 5], "dilations": [1, 1, 3, 3], "channels": 4, "group": 2}
TINY_CROP = 28
ON_CUDA = CUDA_OPERATORS | {"BatchNormalization", "LeakyRelu"}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def shaken(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Random weights, and statistics of norms that are not 0 and 1."""
    randomise(network, seed)
    generator = torch.Generator().manual_seed(seed + 100)
    for name, value in network.named_buffers():
        if name.endswith("running_mean"):
            value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
        if name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return network.eval()


def published(units: int, channels: int = 2, seed: int = 0, **changes) -> spliceai.SpliceAI:
    """A network of SpliceAI's shape: 16 units reach 5,000 bases."""
    widths = [(11, 11, 21, 41)[x // 4] for x in range(units)]
    dilations = [(1, 4, 10, 25)[x // 4] for x in range(units)]
    values = {"widths": widths, "dilations": dilations, "channels": channels, **changes}
    return shaken(spliceai.build(values), seed)


def bases_of(batch: int, length: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.eye(4)[torch.randint(4, (batch, length), generator=generator)]


@torch.no_grad()
def run(network: torch.nn.Module, bases: torch.Tensor) -> np.ndarray:
    return network(bases)[0].numpy()


def keras_order(units: int) -> list[tuple[str, str]]:
    """Places of convolutions and norms in the order of the published h5 files, written out."""
    order = [("conv1d", "trunk.initial_conv"), ("conv1d", "trunk.initial_skip.conv")]
    for unit in range(units):
        place = f"trunk.residual_units.{unit + unit // 4}"
        for half in "12":
            order += [("batch_normalization", f"{place}.batchnorm{half}")]
            order += [("conv1d", f"{place}.conv{half}")]
        if unit % 4 == 3:
            order += [("conv1d", f"trunk.residual_units.{unit + unit // 4 + 1}.conv")]
    return [*order, ("conv1d", "final_conv")]


def keras_weights(network: spliceai.SpliceAI, first: int = 1) -> dict[str, torch.Tensor]:
    """Weights as `keras_h5` gives them; numbers begin at `first`."""
    state, counts, units = network.state_dict(), {}, len(network.trunk.residual_units) * 4 // 5
    found = {}
    for kind, place in keras_order(units):
        number = counts.get(kind, first)
        counts[kind] = number + 1
        layer = f"{kind}_{number}" if number else kind
        if kind == "conv1d":
            # (width, in, out)
            found[f"{layer}/kernel"] = state[f"{place}.weight"].permute(2, 1, 0).contiguous()
            found[f"{layer}/bias"] = state[f"{place}.bias"]
        else:
            found[f"{layer}/gamma"] = state[f"{place}.weight"]
            found[f"{layer}/beta"] = state[f"{place}.bias"]
            found[f"{layer}/moving_mean"] = state[f"{place}.running_mean"]
            found[f"{layer}/moving_variance"] = state[f"{place}.running_var"]
    return found


def frozen_names(weights: Mapping[str, torch.Tensor], number: int) -> dict[str, torch.Tensor]:
    """The same under the names of CI-SpliceAI's graph."""
    suffix = f"_{number}" if number else ""
    names = {
        "kernel": f"conv1d{suffix}/ExpandDims_1/ReadVariableOp/resource",
        "bias": f"BiasAdd{suffix}/ReadVariableOp/resource",
        "moving_variance": f"batchnorm{suffix}/ReadVariableOp/resource",
        "gamma": f"batchnorm{suffix}/mul/ReadVariableOp/resource",
        "moving_mean": f"batchnorm{suffix}/ReadVariableOp_1/resource",
        "beta": f"batchnorm{suffix}/ReadVariableOp_2/resource",
    }
    found = {}
    for name, value in weights.items():
        layer, kind = name.split("/")
        found[f"model_1/{layer}/{names[kind]}"] = value
        if kind == "gamma":
            found[f"model_1/{layer}/batchnorm{suffix}/add/y"] = torch.tensor(1e-3)
    return found


def open_weights(network: spliceai.SpliceAI) -> dict[str, torch.Tensor]:
    return {k.removeprefix("trunk."): v for k, v in network.state_dict().items()}


def pangolin_weights(network: pangolin.Pangolin, stack: int = 0) -> dict[str, torch.Tensor]:
    """One stack under the authors' names."""
    found = {}
    for name, value in network.stacks[stack].state_dict().items():
        name = name.removeprefix("trunk.").removeprefix("heads.")
        name = name.replace("initial_conv.", "conv1.").replace("initial_skip.conv.", "skip.")
        match = re.match(r"residual_units\.(\d+)\.", name)
        if match:
            group, place = divmod(int(match[1]), 5)
            rest = name[match.end() :].replace("batchnorm", "bn")
            if place == 4:
                name = f"convs.{group}.{rest.removeprefix('conv.')}"
            else:
                name = f"resblocks.{4 * group + place}.{rest}"
        found[name] = value
    return found


def fresh_pangolin(seed: int = 0, **values) -> pangolin.Pangolin:
    return shaken(pangolin.build({"channels": 2, **values}), seed)


def h5(state: Mapping[str, torch.Tensor], table) -> dict[str, torch.Tensor]:
    """Weights of one of MMSplice's files; table: our place to (layer, folder inside it)."""
    kinds = {
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
        "bias": "bias",
        "weight": "kernel",
    }
    found = {}
    for place, (layer, inner) in table.items():
        for kind, keras in kinds.items():
            value = state.get(f"{place}.{kind}")
            if value is None:
                continue
            if f"{place}.running_mean" in state:
                keras = {"weight": "gamma", "bias": "beta"}.get(kind, keras)
            axes = tuple(reversed(range(value.ndim)))
            found[f"{layer}/{inner}/{keras}"] = value.permute(axes).contiguous()
    return found


MM_TABLES = {
    "acceptor_intron": {"conv": ("conv", "conv_9"), "dense": ("dense3", "dense3_9")},
    "donor_intron": {"conv": ("conv", "conv_26"), "dense": ("dense5", "dense5_18")},
    "exon": {
        "conv": ("conv", "conv_1"),
        "norm": ("batch_normalization_1", "batch_normalization_1_1"),
        "dense": ("dense3", "dense3_1"),
    },
    "acceptor": {
        "site": ("convSpliceSite", "x"),
        "norm1": ("batch_normalization_1", "x"),
        "mix": ("conv1by1", "x"),
        "norm2": ("batch_normalization_2", "x"),
        "dense": ("denseSS", "x"),
    },
    "donor": {
        "dense1": ("dense1", "dense1_4"),
        "norm1": ("batch_normalization_1", "y"),
        "dense2": ("dense2", "dense2_4"),
        "norm2": ("batch_normalization_2", "y"),
        "dense3": ("dense_1", "dense_1_4"),
    },
}


def mm_source(network, prime3: bool = False) -> Source:
    weights = {}
    for module, table in MM_TABLES.items():
        if module == "exon" and prime3:
            table = {**table, "dense": ("dense5", "dense5_3")}
        state = getattr(network, module).state_dict()
        weights |= {f"{module}/{k}": v for k, v in h5(state, table).items()}
    return Source("mmsplice", weights)


def fresh_mmsplice(seed: int = 0, **values):
    return shaken(mmsplice.build({"intron": 3, "acceptor": 2, "exon": 3, **values}), seed)


def fresh_mtsplice(seed: int = 0, **values):
    sizes = {"tissues": 3, "channels": 4, "depth": 2, "hidden": 5, **values}
    return shaken(mmsplice.build(sizes), seed)


def mt_weights(network) -> dict[str, torch.Tensor]:
    depth, found = len(network.acceptor.convs), {}
    for side, arm in enumerate((network.acceptor, network.donor)):
        table = {"first": (f"conv1d_{side * (depth + 1) + 1}", "x")}
        for x in range(depth):
            table[f"convs.{x}"] = (f"conv1d_{side * (depth + 1) + 2 + x}", "x")
            table[f"norms.{x}"] = (f"batch_normalization_{side * depth + 1 + x}", "x")
        found |= h5(arm.state_dict(), table)
        found[f"{('splinel', 'spliner')[side]}/kernel"] = arm.spline.kernel.detach()
    shared = {name: (name, "x") for name in ("bn5", "dense", "bn6", "dense2")}
    return found | h5(network.state_dict(), shared)


def sources() -> dict[str, Source]:
    network = published(4)
    keras = keras_weights(network)
    return {
        "SpliceAI": Source("spliceai.h5", keras),
        "CI-SpliceAI": Source("CI-SpliceAI.pb", frozen_names(keras, 0)),
        "OpenSpliceAI": Source("model.pt", open_weights(network)),
        "Pangolin": Source("final.1.0.3", pangolin_weights(fresh_pangolin())),
        "MMSplice": mm_source(fresh_mmsplice()),
        "MTSplice": Source("mtsplice", mt_weights(fresh_mtsplice())),
    }


def load(source: Source, official, context: int | None = None):
    return official.load(source, context)


def with_prefix(prefix: str, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{key}": value for key, value in weights.items()}


# What is recognised, and as what


@pytest.mark.parametrize("variant", [x.variant for x in OFFICIAL])
def test_each_is_known_and_to_nobody_else(variant):
    source = sources()[variant]
    everyone = {x.name: x for x in (*FAMILIES.values(), spliceai.FAMILY, pangolin.FAMILY)}
    everyone["mmsplice"] = mmsplice.FAMILY
    entries = [official for family in everyone.values() for official in family.official]
    assert [x.variant for x in entries if x.recognise(source)] == [variant]
    replicated = {f"{n}/{k}": v for n in range(2) for k, v in source.weights.items()}
    if variant not in ("CI-SpliceAI", "MMSplice"):
        whole = dataclasses.replace(source, weights=replicated)
        assert [x.variant for x in OFFICIAL if x.recognise(whole)] == [variant]


@pytest.mark.parametrize("variant", [x.variant for x in OFFICIAL])
def test_a_card_comes_out(variant):
    (official,) = (x for x in OFFICIAL if x.variant == variant)
    loaded = load(sources()[variant], official)
    inputs = {"rows": {"name": "rows", "axes": ("batch", "length"), "dtype": "uint8"}}
    outputs = {"tracks": {"name": "tracks", "axes": loaded.networks[0].outputs["tracks"]}}
    values = {"inputs": inputs, **loaded.card, "outputs": outputs, "objective": "tracks"}
    card = ModelCard.model_validate({"name": "x", "tag": official.tag, **values})
    assert card.bin_size == 1
    assert card.strand == "gene"
    assert card.encoder.vocab.single_ids == {"N": 4}
    with torch.no_grad():
        length = max(card.context, loaded.networks[0].shortest)
        (found,) = loaded.networks[0](bases_of(1, length))
    assert found.shape[2] == len(loaded.tracks)
    assert len({row["identifier"] for row in loaded.tracks}) == len(loaded.tracks)
    assert "file" not in {key for row in loaded.tracks for key in row}
    if card.frame == "exon":
        assert set(card.inputs) == set(loaded.networks[0].parts)
    else:
        assert found.shape[1] == card.context - 2 * card.crop == 101
        assert card.anchor - card.crop == 50


def test_nothing_is_recognised_in_what_is_empty():
    for weights in ({}, {"a": torch.zeros(1)}, {"conv1d/kernel": torch.zeros(())}):
        assert not any(x.recognise(Source("x", weights)) for x in OFFICIAL)


# SpliceAI's stack


@pytest.mark.parametrize(("units", "flanks"), [(4, 40), (8, 200), (12, 1000), (16, 5000)])
def test_flanks_and_sizes_of_the_published_networks(units, flanks):
    network = published(units, channels=32)
    assert network.trunk.crop == flanks
    assert network.shortest == 2 * flanks + 1
    # Counted in the published files, of both layouts, without the counters of the norms.
    sizes = {4: 93_763, 8: 186_211, 12: 360_579, 16: 698_787}
    assert sum(x.numel() for x in published_weights(network).values()) == sizes[units]
    assert len(network.state_dict()) == {4: 64, 8: 122, 12: 180, 16: 238}[units]


def published_weights(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    state = network.state_dict().items()
    return {k: v for k, v in state if not k.endswith("num_batches_tracked")}


def test_keys_and_shapes_of_openspliceai():
    shapes = {k: tuple(v.shape) for k, v in open_weights(published(4, channels=32)).items()}
    unit = {
        **{f"batchnorm{n}.{k}": (32,) for n in "12" for k in ("weight", "bias")},
        **{f"batchnorm{n}.running_{k}": (32,) for n in "12" for k in ("mean", "var")},
        **{f"batchnorm{n}.num_batches_tracked": () for n in "12"},
        **{f"conv{n}.weight": (32, 32, 11) for n in "12"},
        **{f"conv{n}.bias": (32,) for n in "12"},
    }
    assert shapes == {
        "initial_conv.weight": (32, 4, 1),
        "initial_conv.bias": (32,),
        "initial_skip.conv.weight": (32, 32, 1),
        "initial_skip.conv.bias": (32,),
        **{f"residual_units.{n}.{k}": v for n in range(4) for k, v in unit.items()},
        "residual_units.4.conv.weight": (32, 32, 1),
        "residual_units.4.conv.bias": (32,),
        "final_conv.weight": (3, 32, 1),
        "final_conv.bias": (3,),
    }


def test_a_unit_by_hand():
    config = SpliceAIConfig(widths=(3,), dilations=(2,), channels=1, group=1, slope=0.5, eps=0.25)
    unit = Unit(config, 3, 2).eval()
    with torch.no_grad():
        for norm in (unit.batchnorm1, unit.batchnorm2):
            norm.running_var.fill_(0.75)  # with eps a deviation of 1
        unit.batchnorm1.running_mean.fill_(1.0)
        unit.conv1.weight.copy_(torch.tensor([[[1.0, 10.0, 100.0]]]))
        unit.conv1.bias.zero_()
        unit.conv2.weight.copy_(torch.tensor([[[0.0, 1.0, 0.0]]]))
        unit.conv2.bias.fill_(5.0)
        found = unit(torch.tensor([[[1.0, 3.0, -1.0, 1.0, 2.0]]]))
    # Less the mean: 0 2 -2 0 1, leaky: 0 2 -1 0 1. Taps two apart, zeros beyond the ends:
    # 0+0-100, 0+20+0, 0-10+100, 2+0+0, -1+10+0; leaky: -50 20 90 2 9; + 5 + x.
    assert found.tolist() == [[[-44.0, 28.0, 94.0, 8.0, 16.0]]]


def test_a_network_by_hand():
    """One group of two units that add nothing but their bias: skips and classes remain."""
    network = spliceai.build({"widths": [3, 1], "dilations": [1, 1], "channels": 1, "group": 2})
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
        trunk = network.trunk
        trunk.initial_conv.weight.copy_(torch.tensor([[[0.0], [1.0], [2.0], [3.0]]]))
        trunk.initial_skip.conv.weight.fill_(2.0)
        trunk.residual_units[0].conv2.bias.fill_(0.5)
        trunk.residual_units[1].conv2.bias.fill_(0.25)
        trunk.residual_units[2].conv.weight.fill_(-1.0)
        network.final_conv.weight.copy_(torch.tensor([[[0.0]], [[1.0]], [[-2.0]]]))
        # Two bases are cut at each side.
        found = run(network.eval(), torch.eye(4)[torch.tensor([[1, 0, 3, 2, 0, 1]])])
    sums = [2 * x - (x + 0.75) for x in (3, 2)]
    totals = [1 + math.exp(x) + math.exp(-2 * x) for x in sums]
    wanted = [[math.exp(x) / t, math.exp(-2 * x) / t] for x, t in zip(sums, totals, strict=True)]
    np.testing.assert_allclose(found[0], wanted, rtol=1e-6)


def test_trap_nothing_beyond_the_flanks_counts():
    """Every layer pads with zeros; what they reach is cut off, so that windows agree."""
    network = shaken(spliceai.build({**TINY, "slope": 0.3})).double()
    bases = bases_of(1, 2 * TINY_CROP + 40).double()
    whole = run(network, bases)
    assert whole.shape == (1, 40, 2)
    for left, right in ((0, 30), (17, 40)):
        part = run(network, bases[:, left : right + 2 * TINY_CROP])
        np.testing.assert_allclose(part, whole[:, left:right], atol=1e-12)
    # And what is inside does count, to the last base at both ends.
    for place in (0, 2 * TINY_CROP):
        other = bases[:, : 2 * TINY_CROP + 1].clone()
        other[0, place] = other[0, place].roll(1)
        assert np.abs(run(network, other) - whole[:, :1]).max() > 0


def test_trap_order_of_the_classes():
    """The file's classes are none, acceptor, donor; the first is not a track."""
    network = shaken(spliceai.build(TINY))
    with torch.no_grad():
        network.final_conv.weight.zero_()
        network.final_conv.bias.copy_(torch.log(torch.tensor([0.7, 0.2, 0.1])))
    found = run(network, bases_of(1, 2 * TINY_CROP + 1))
    np.testing.assert_allclose(found, [[[0.2, 0.1]]], rtol=1e-6)
    assert [row["role"] for row in load(sources()["SpliceAI"], SPLICEAI).tracks] == [
        "acceptor",
        "donor",
    ]


def test_trap_eps_and_slope_of_openspliceai():
    network = published(4)
    keras = load(Source("x", keras_weights(network)), SPLICEAI).networks[0]
    other = load(Source("x", open_weights(network)), OPEN).networks[0]
    bases = bases_of(1, 100)
    np.testing.assert_array_equal(run(keras, bases), run(network, bases))
    assert np.abs(run(other, bases) - run(network, bases)).max() > 1e-3
    unit = other.trunk.residual_units[0]
    assert (unit.slope, unit.batchnorm1.eps) == (0.1, 1e-5)
    unit = keras.trunk.residual_units[0]
    assert (unit.slope, unit.batchnorm1.eps) == (0.0, 1e-3)
    same = published(4, slope=0.1, eps=1e-5)
    np.testing.assert_array_equal(run(other, bases), run(same, bases))


def test_trap_keras_counts_on_from_models_made_before():
    network, bases = published(16), bases_of(1, 10_003)
    wanted = run(network, bases)
    for first in (0, 1, 40):
        loaded = load(Source("x", keras_weights(network, first)), SPLICEAI)
        np.testing.assert_array_equal(run(loaded.networks[0], bases), wanted)


def test_trap_names_of_a_frozen_graph():
    """`ReadVariableOp` of a norm is its variance, `_1` the mean, `_2` beta, `mul/` gamma."""
    networks = [published(4, seed=seed) for seed in range(3)]
    weights = {}
    for number, network in enumerate(networks):
        weights |= frozen_names(keras_weights(network), number)
    loaded = load(Source("x.pb", weights), CI)
    bases = bases_of(1, 100)
    for found, wanted in zip(loaded.networks, networks, strict=True):
        np.testing.assert_array_equal(run(found, bases), run(wanted, bases))


def test_replicates_keep_their_order():
    networks = [published(4, seed=seed) for seed in range(11)]
    weights = {}
    for number, network in enumerate(networks):
        weights |= with_prefix(f"{number}/", open_weights(network))
    loaded = load(Source("x", weights), OPEN)
    assert len(loaded.networks) == 11
    for found, wanted in zip(loaded.networks, networks, strict=True):
        bias = wanted.final_conv.bias
        assert torch.equal(found.final_conv.bias, bias)


def test_trap_n_is_nothing():
    network = shaken(spliceai.build(TINY))
    length = 2 * TINY_CROP + 5
    rows = np.full((1, length), 4, dtype=np.uint8)
    found = graph.run_torch(network, rows)["tracks"]
    np.testing.assert_array_equal(found, run(network, torch.zeros(1, length, 4)))


def test_select_of_spliceai():
    network = shaken(spliceai.build(TINY))
    bases = bases_of(2, 2 * TINY_CROP + 3)
    whole = run(network, bases)
    network.select([1])
    np.testing.assert_array_equal(run(network, bases), whole[:, :, 1:])
    network.select([0, 0])
    np.testing.assert_array_equal(run(network, bases), whole[:, :, [1, 1]])


def changed(source: Source, **weights: torch.Tensor | None) -> Source:
    """Replace weights; None removes one. `__` stands for `/`, `_dot_` for a point."""
    values = dict(source.weights)
    for key, value in weights.items():
        name = key.replace("__", "/").replace("_dot_", ".")
        values.pop(name, None)
        if value is not None:
            values[name] = value
    return dataclasses.replace(source, weights=values)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"conv1d_12__bias": None}, "no weights for: final_conv.bias"),
        ({"conv1d_13__kernel": torch.zeros(1, 2, 3)}, "layers that SpliceAI does not have"),
        ({"dense__kernel": torch.zeros(2, 2)}, "layers that SpliceAI does not have: dense"),
        ({"conv1d_3__scale": torch.zeros(2)}, "keys that this system does not have"),
        ({"batch_normalization_8__gamma": torch.zeros(3)}, "shapes that do not fit"),
        ({"conv1d_5__bias": torch.full((2,), math.nan)}, "NaN or infinity"),
    ],
)
def test_faults_of_keras_files(change, fault):
    with pytest.raises(InputError, match=fault):
        load(changed(sources()["SpliceAI"], **change), SPLICEAI)


def test_a_missing_layer_is_told():
    weights = {k: v for k, v in keras_weights(published(4)).items() if "conv1d_12/" not in k}
    with pytest.raises(InputError, match="final_conv is missing"):
        load(Source("x.h5", weights), SPLICEAI)
    assert not SPLICEAI.recognise(Source("x.h5", weights))


def test_networks_of_different_flanks_are_no_ensemble():
    weights = {f"{n}/{k}": v for n in (0, 1) for k, v in open_weights(published(4 + 4 * n)).items()}
    with pytest.raises(InputError, match="flanks of 40, 200 bases"):
        load(Source("models", weights), OPEN)


def test_units_that_nobody_published():
    weights = open_weights(shaken(spliceai.build({**TINY, "group": 4})))
    more = {k.replace(".0.", ".9."): v for k, v in weights.items() if "residual_units.0." in k}
    with pytest.raises(InputError, match="5 units, wanted 4, 8, 12 or 16"):
        load(Source("model.pt", {**weights, **more}), OPEN)


@pytest.mark.parametrize("context", [80, 81, 82, 100])
def test_windows_without_a_middle(context):
    source = sources()["OpenSpliceAI"]
    if context == 81:
        assert load(source, OPEN, context).card["anchor"] == 40
        return
    with pytest.raises(InputError, match=r"wanted an odd number above 80: .*--context 181"):
        load(source, OPEN, context)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({**TINY, "widths": [3, 3, 5, 4]}, "widths must be odd"),
        ({**TINY, "dilations": [1, 1, 3]}, "must be as many"),
        ({**TINY, "group": 3}, "multiple of group"),
        ({**TINY, "depth": 3}, "model.depth"),
        ({"dilations": [1]}, "model.widths"),
    ],
)
def test_faults_of_a_config(values, fault):
    with pytest.raises(InputError, match=fault):
        spliceai.build(values)


# Pangolin


def test_keys_and_sizes_of_pangolin():
    weights = pangolin_weights(fresh_pangolin(channels=32))
    assert len(weights) == 252
    shapes = {k: tuple(v.shape) for k, v in weights.items() if not k.startswith("resblocks")}
    assert shapes == {
        **{f"{k}.bias": (32,) for k in ("conv1", "skip", *(f"convs.{n}" for n in range(4)))},
        **{f"convs.{n}.weight": (32, 32, 1) for n in range(4)},
        "conv1.weight": (32, 4, 1),
        "skip.weight": (32, 32, 1),
        **{f"conv_last{n}.weight": (1 + n % 2, 32, 1) for n in range(1, 9)},
        **{f"conv_last{n}.bias": (1 + n % 2,) for n in range(1, 9)},
    }
    assert weights["resblocks.15.conv2.weight"].shape == (32, 32, 41)
    assert weights["resblocks.8.conv1.weight"].shape == (32, 32, 21)


def test_trap_eight_ends_of_pangolin_by_hand():
    """Sites are the second of two classes, usage is a sigmoid of its own."""
    network = fresh_pangolin()
    with torch.no_grad():
        for number, head in enumerate(network.stacks[0].heads.values(), start=1):
            head.weight.zero_()
            head.bias.copy_(torch.tensor([0.0, number]) if number % 2 else torch.tensor([number]))
    found = run(network, bases_of(1, 10_001))
    wanted = [1 / (1 + math.exp(-number)) for number in range(1, 9)]
    np.testing.assert_allclose(found[0, 0], wanted, rtol=1e-6)
    rows = load(sources()["Pangolin"], PANGOLIN).tracks
    assert [row["identifier"] for row in rows] == [
        f"{tissue}_{kind}"
        for tissue in ("heart", "liver", "brain", "testis")
        for kind in ("site", "usage")
    ]
    assert {row["role"] for row in rows} == {"usage"}
    assert [row["units"] for row in rows] == ["probability", "fraction"] * 4


def test_trap_a_tuned_file_is_good_for_one_end():
    stacks = {end: fresh_pangolin(seed=end) for end in (0, 4, 6)}
    weights = {}
    for replicate in (1, 2):
        for end, network in stacks.items():
            weights |= with_prefix(f"{replicate}/end{end}/", pangolin_weights(network))
    loaded = load(Source("models", weights), PANGOLIN)
    assert [row["identifier"] for row in loaded.tracks] == [
        "heart_site",
        "brain_site",
        "testis_site",
    ]
    assert len(loaded.networks) == 2
    bases = bases_of(1, 10_004)
    found = run(loaded.networks[0], bases)
    wanted = [run(network, bases)[:, :, end] for end, network in stacks.items()]
    np.testing.assert_array_equal(found, np.stack(wanted, axis=2))
    unit = loaded.networks[0].stacks[0].trunk.residual_units[0]
    assert (unit.slope, unit.batchnorm1.eps) == (0.0, 1e-5)


def test_select_of_pangolin_drops_stacks_and_heads():
    network, bases = fresh_pangolin(ends=[0, 4, 6]), bases_of(1, 10_003)
    whole = run(network, bases)
    network.select([2, 0])
    np.testing.assert_array_equal(run(network, bases), whole[:, :, [2, 0]])
    assert [list(x.heads) for x in network.stacks] == [["conv_last7"], ["conv_last1"]]
    one = fresh_pangolin()
    whole = run(one, bases)
    one.select([5, 2])
    np.testing.assert_array_equal(run(one, bases), whole[:, :, [5, 2]])
    assert len(one.stacks) == 1
    assert sorted(one.stacks[0].heads) == ["conv_last3", "conv_last6"]


def test_faults_of_pangolin():
    source = sources()["Pangolin"]
    with pytest.raises(InputError, match=r"no weights for: heads\.conv_last8\.bias"):
        load(changed(source, conv_last8_dot_bias=None), PANGOLIN)
    mixed = {**with_prefix("end0/", source.weights), **source.weights}
    with pytest.raises(InputError, match="one end beside others"):
        load(Source("x", mixed), PANGOLIN)
    uneven = {**with_prefix("1/end0/", source.weights), **with_prefix("2/end2/", source.weights)}
    with pytest.raises(InputError, match="not of the same ends"):
        load(Source("x", uneven), PANGOLIN)
    with pytest.raises(InputError, match=r"model\.ends"):
        pangolin.build({"ends": [8]})
    kept = {k: v for k, v in source.weights.items() if not k.startswith("resblocks.15.")}
    with pytest.raises(InputError, match="15 units, wanted 16"):
        load(Source("x", kept), PANGOLIN)


# MMSplice


def test_mmsplice_has_every_weight_of_its_files():
    network = shaken(mmsplice.build({}))
    sizes = {
        "acceptor_intron": 13 * 4 * 256 + 256 + 257,
        "acceptor": 15 * 4 * 32 + 32 + 32 * 32 + 32 + 8 * 32 + 1697,
        "exon": 11 * 4 * 128 + 128 + 4 * 128 + 129,
        "donor": 72 * 128 + 128 + 4 * 128 + 128 * 64 + 64 + 4 * 64 + 65,
        "donor_intron": 13 * 4 * 256 + 256 + 257,
    }
    found = {
        name: sum(x.numel() for x in published_weights(getattr(network, name)).values())
        for name in sizes
    }
    assert found == sizes


@pytest.mark.parametrize("prime3", [False, True])
def test_mmsplice_round_trip(prime3):
    network = fresh_mmsplice(masked=not prime3)
    loaded = load(mm_source(network, prime3), MMSPLICE)
    bases = bases_of(2, 237)
    bases[:, 110] = 0
    np.testing.assert_array_equal(run(loaded.networks[0], bases), run(network, bases))
    assert loaded.networks[0].exon.masked is not prime3
    assert loaded.card["scores"] == ("DLPSI",)


def test_trap_the_mean_of_an_exon_leaves_n_out():
    masked, plain = (Exon(1, masked=x, width=1).eval() for x in (True, False))
    with torch.no_grad():
        for module in (masked, plain):
            module.conv.weight.copy_(torch.tensor([[[1.0], [2.0], [3.0], [4.0]]]))
            module.conv.bias.fill_(1.0)
            module.norm.running_var.fill_(1 - 1e-3)
            module.dense.weight.fill_(1.0)
            module.dense.bias.fill_(10.0)
        bases = torch.cat([torch.eye(4)[[0, 3]], torch.zeros(2, 4)])[None]  # A T N N
        assert masked(bases).item() == pytest.approx(10 + (2 + 5) / 2)
        assert plain(bases).item() == pytest.approx(10 + (2 + 5 + 1 + 1) / 4)
        # Nothing but N: no division by zero.
        assert masked(torch.zeros(1, 3, 4)).item() == 10.0


def test_trap_padding_changes_introns():
    """N behind an intron are part of its mean, so that exons of a batch must not be padded."""
    module = Intron(1, width=1).eval()
    with torch.no_grad():
        module.conv.weight.fill_(2.0)
        module.conv.bias.fill_(1.0)
        module.dense.weight.fill_(1.0)
        module.dense.bias.zero_()
        bases = torch.eye(4)[None]
        padded = torch.cat([bases, torch.zeros(1, 4, 4)], dim=1)
        assert module(bases).item() == 3.0
        assert module(padded).item() == 2.0


def test_trap_places_before_channels_in_the_acceptor():
    network = fresh_mmsplice()
    module = network.acceptor
    with torch.no_grad():
        module.dense.weight.zero_()
        module.dense.weight[0, 2 * 7 + 1] = 1.0  # place 7, channel 1 of 2
        module.dense.bias.zero_()
        bases = bases_of(1, 53)
        x = module.norm1(torch.relu(module.site(bases.transpose(1, 2))))
        x = module.norm2(torch.relu(module.mix(x)))
        assert module(bases).item() == pytest.approx(x[0, 1, 7].item())


def test_trap_logits_of_sites_are_clipped():
    network = fresh_mmsplice()
    with torch.no_grad():
        network.acceptor.dense.weight.zero_()
        network.acceptor.dense.bias.fill_(40.0)
        network.donor.dense3.weight.zero_()
        network.donor.dense3.bias.fill_(-40.0)
        found = run(network, bases_of(1, 230))[0, 0]
    most = math.log(0.99999 / 0.00001)
    assert found[[1, 3]].tolist() == pytest.approx([most, -most])


def test_parts_of_mmsplice():
    network = fresh_mmsplice()
    # Each base is its own place in 0 .. 206.
    parts = network.split(torch.arange(207)[None, :, None])
    found = [(int(x[0, 0]), int(x[0, -1]), x.shape[1]) for x in parts]
    assert found == [(0, 93, 94), (50, 102, 53), (100, 106, 7), (102, 119, 18), (113, 206, 94)]
    mt = fresh_mtsplice()
    parts = mt.split(torch.arange(660)[None, :, None])
    found = [(int(x[0, 0]), int(x[0, -1])) for x in parts]
    assert found == [(0, 399), (260, 659)]


def test_a_context_that_mmsplice_was_not_trained_on():
    source = mm_source(fresh_mmsplice())
    assert load(source, MMSPLICE, 200).card["context"] == 200
    with pytest.raises(InputError, match="100 bases of each intron; leave --context away"):
        load(source, MMSPLICE, 300)


def test_faults_of_mmsplice():
    source = mm_source(fresh_mmsplice())
    more = changed(source, donor__dense9__kernel=torch.zeros(1, 1))
    assert not MMSPLICE.recognise(more)
    with pytest.raises(InputError, match="donor: not its layers"):
        load(more, MMSPLICE)
    with pytest.raises(InputError, match="shapes that do not fit"):
        load(changed(source, acceptor__denseSS__x__kernel=torch.zeros(9, 1)), MMSPLICE)


# MTSplice


def test_a_spline_by_hand():
    basis = spline_basis(400, 10)
    assert basis.shape == (400, 10)
    # Within the knots the splines add up to 1, and four of them are above 0 at each place.
    np.testing.assert_allclose(basis.sum(axis=1), 1, atol=1e-12)
    assert ((basis > 0).sum(axis=1) == 4).all()
    # Cubic splines at a knot are 1/6, 4/6, 1/6; the knots lie 399 x 1.002 / 7 apart.
    step = 399 * 1.002 / 7
    knot = 3 * step - 0.399
    near = round(knot)
    part = (near - knot) / step  # how far behind the knot, in steps
    wanted = [(1 - part) ** 3 / 6, (3 * part**3 - 6 * part**2 + 4) / 6]
    np.testing.assert_allclose(basis[near, 3:5], wanted, atol=1e-6)
    # Symmetric to the rounding of its knots to float32.
    np.testing.assert_allclose(basis, basis[::-1, ::-1], atol=1e-6)


def test_trap_a_place_has_a_weight_of_one_plus_its_curve():
    network = fresh_mtsplice()
    spline = network.acceptor.spline
    with torch.no_grad():
        spline.kernel.fill_(0.5)
        x = torch.ones(1, 4, 400)
        np.testing.assert_allclose(spline(x).numpy(), 1.5, rtol=1e-6)


def test_trap_each_half_of_the_layers_is_one_end():
    network = fresh_mtsplice()
    loaded = load(Source("x", mt_weights(network)), MTSPLICE)
    left, right = bases_of(2, 400, seed=1), bases_of(2, 400, seed=2)
    with torch.no_grad():
        found = loaded.networks[0].predict(left, right)
        assert torch.equal(found, network.predict(left, right))
        assert not torch.allclose(found, network.predict(right, left), atol=1e-3)


def test_tissues_of_mtsplice():
    assert len(mmsplice.TISSUES) == 56
    assert mmsplice.TISSUES[0] == "Retina - Eye"
    assert mmsplice.TISSUES[9] == "Amygdala - Brain"
    assert mmsplice.TISSUES[-1] == "Whole Blood"
    network = fresh_mtsplice(tissues=56)
    rows = load(Source("x", mt_weights(network)), MTSPLICE).tracks
    assert [row["biosample"] for row in rows] == list(mmsplice.TISSUES)
    depth = sum(
        x.numel() for x in published_weights(shaken(mmsplice.build({"tissues": 56}))).values()
    )
    assert depth == 213_080


def test_replicates_of_mtsplice_have_the_same_tissues():
    weights = with_prefix("0/", mt_weights(fresh_mtsplice()))
    weights |= with_prefix("1/", mt_weights(fresh_mtsplice(tissues=4)))
    with pytest.raises(InputError, match="give one set of files"):
        load(Source("x", weights), MTSPLICE)


# Graphs


@pytest.mark.parametrize("make", ["spliceai", "pangolin"])
def test_graph_at_other_batch_sizes_and_lengths(tmp_path, make):
    sizes = {"widths": [3, 5], "dilations": [2, 6], "group": 1}  # 4 + 24 bases
    if make == "spliceai":
        network = shaken(spliceai.build({**sizes, "channels": 3}))
        network.select([1, 0])
    else:
        network = fresh_pangolin(ends=[0, 3], **sizes)
    path = tmp_path / "model.onnx"
    graph.write_graph(network, path, "fp32")
    rng = np.random.default_rng(3)
    batches = [
        rng.integers(5, size=(batch, 2 * TINY_CROP + bins)).astype(np.uint8)
        for batch, bins in ((1, 1), (3, 101), (5, 18))
    ]
    for rows, found in zip(batches, graph.run_graph(path, batches), strict=True):
        assert found["tracks"].shape == (len(rows), rows.shape[1] - 2 * TINY_CROP, 2)
        assert worst(found["tracks"], graph.run_torch(network, rows)["tracks"]) <= 1e-5
    assert not operators(path) - ON_CUDA


def write_parts(network, path) -> None:
    """Write a graph with an input for each part."""
    made, free = PartsGraph(network).eval(), torch.export.Dim
    shapes = tuple(
        {0: free("batch"), **({} if size else {1: free(f"{name}_bases")})}
        for name, size in network.parts.items()
    )
    torch.onnx.export(
        made,
        made.example(),
        path,
        input_names=list(network.parts),
        output_names=["tracks"],
        opset_version=18,
        dynamo=True,
        dynamic_shapes=(shapes,),
        external_data=False,
        verbose=False,
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("make", [fresh_mmsplice, fresh_mtsplice])
def test_graph_of_parts_at_other_sizes(tmp_path, make):
    network = make()
    path = tmp_path / "model.onnx"
    write_parts(network, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [x.name for x in session.get_inputs()] == list(network.parts)
    rng = np.random.default_rng(5)
    for batch, length in ((1, 1), (4, 30), (3, 94)):
        parts = {
            name: rng.integers(5, size=(batch, size or length + place)).astype(np.uint8)
            for place, (name, size) in enumerate(network.parts.items())
        }
        (found,) = session.run(None, parts)
        with torch.no_grad():
            wanted = PartsGraph(network)(*(torch.from_numpy(x) for x in parts.values()))
        assert found.shape == (batch, 1, {"mmsplice": 5}.get(make.__name__[6:], 3))
        assert worst(found, wanted.numpy()) <= 1e-5
    assert not operators(path) - ON_CUDA


def test_parts_and_the_whole_exon_are_one():
    network, bases = fresh_mmsplice(), bases_of(3, 260)
    ids = [x.argmax(dim=2).to(torch.uint8) for x in network.split(bases)]
    with torch.no_grad():
        np.testing.assert_array_equal(PartsGraph(network)(*ids).numpy(), run(network, bases))
    network.select([4, 1])
    assert run(network, bases).shape == (3, 1, 2)
