"""C.Origami and Akita without public implementations: a second forward pass, keys, sizes, traps.

The forward passes here are written from the descriptions of the networks, with other means than
the package's: torch's own transformer layers, and Keras' order of axes in numpy.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from glm_annotate.card import ModelCard
from glm_annotate.encoding import EncoderSpec, make_encoder
from glm_annotate.errors import InputError
from glm_annotate.genome import to_codes
from glm_annotate.train import graph
from glm_annotate.train.families import akita, corigami
from glm_annotate.train.families.akita_blocks import dilations
from glm_annotate.train.families.corigami_blocks import pair_bins
from glm_annotate.train.families.family import Source

[ORIGAMI] = corigami.FAMILY.official
[AKITA] = akita.FAMILY.official

# Bins of 8 bases, 12 of them.
ORIGAMI_MODEL = {
    "bins": 12, "first": 4, "widths": [4, 6], "layers": 2, "heads": 3, "hidden": 10,
    "dilations": [2, 4],
}  # fmt: skip
# Bins of 8 bases, 16 of them; 3 are cropped at each side.
AKITA_MODEL = {
    "bins": 16, "stem": 6, "stem_kernel": 5, "tower": [6, 6], "tower_kernel": 3, "narrow": 4,
    "rate": 1.75, "repeat": 3, "neck": 5, "neck_kernel": 3, "flat": 6, "flat_narrow": 4,
    "flat_rate": 1.75, "flat_repeat": 2, "crop": 3, "diagonal": 2, "maps": 3,
}  # fmt: skip
PARAMS = {
    "train": {"batch_size": 2, "loss": "mse"},
    "model": {
        "seq_length": 128, "target_length": 16, "target_crop": 3, "diagonal_offset": 2,
        "augment_rc": True, "augment_shift": 11, "activation": "relu", "norm_type": "batch",
        "bn_momentum": 0.9265,
        "trunk": [
            {"name": "conv_block", "filters": 6, "kernel_size": 5, "pool_size": 2},
            {
                "name": "conv_tower", "filters_init": 6, "filters_mult": 1.0, "kernel_size": 3,
                "pool_size": 2, "repeat": 2,
            },
            {
                "name": "dilated_residual", "filters": 4, "rate_mult": 1.75, "repeat": 3,
                "dropout": 0.4,
            },
            {"name": "conv_block", "filters": 5, "kernel_size": 3},
        ],
        "head_hic": [
            {"name": "one_to_two", "operation": "mean"},
            {"name": "concat_dist_2d"},
            {"name": "conv_block_2d", "filters": 6, "kernel_size": 3},
            {"name": "symmetrize_2d"},
            {
                "name": "dilated_residual_2d", "filters": 4, "kernel_size": 3, "rate_mult": 1.75,
                "repeat": 2, "dropout": 0.1,
            },
            {"name": "cropping_2d", "cropping": 3},
            {"name": "upper_tri", "diagonal_offset": 2},
            {"name": "final", "units": 3, "activation": "linear"},
        ],
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@torch.no_grad()
def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights and running statistics, none of them 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if not value.is_floating_point() or name.endswith(".pe"):
            continue
        noise = torch.randn(value.shape, generator=generator)
        if value.ndim > 1:
            value.copy_(noise * 1.2 / value[0].numel() ** 0.5)
        elif name.endswith("running_var"):
            value.copy_(0.3 + noise.abs())
        else:
            around = 1.0 if name.endswith(".weight") else 0.0
            value.copy_(around + 0.3 * noise)
    return network.eval()


@torch.no_grad()
def calibrated(network: nn.Module) -> nn.Module:
    """Statistics near those of its own activations, so that bins differ from each other."""
    norms = [x for x in network.modules() if isinstance(x, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    beside = signals(4, network.length) if network.channels else None
    network.train()(windows(4, network.length), beside)
    generator = torch.Generator().manual_seed(9)
    for norm in norms:
        norm.momentum = 0.1
        noise = torch.randn(norm.running_mean.shape, generator=generator)
        norm.running_mean.add_(0.2 * noise * norm.running_var.sqrt())
        norm.running_var.mul_(1 + 0.3 * noise.abs())
    return network.eval()


def origami(seed: int = 0, **changes: object) -> corigami.Corigami:
    return calibrated(randomised(corigami.build({**ORIGAMI_MODEL, **changes}), seed))


def small_akita(seed: int = 0, **changes: object) -> akita.Akita:
    return calibrated(randomised(akita.build({**AKITA_MODEL, **changes}), seed))


def windows(batch: int, length: int, seed: int = 0, *, n: float = 0.1) -> torch.Tensor:
    """One-hot bases (B, L, 4), some of them N."""
    rng = np.random.default_rng(seed)
    table = np.concatenate([np.eye(4), np.zeros((1, 4))]).astype(np.float32)
    odds = [(1 - n) / 4] * 4 + [n]
    return torch.from_numpy(table[rng.choice(5, size=(batch, length), p=odds)])


def signals(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(100 + seed)
    return torch.from_numpy(rng.gamma(1.0, size=(batch, length, 2)).astype(np.float32))


def close(found, wanted, limit: float = 1e-5) -> None:
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= limit * max(1.0, np.abs(wanted).max())


def differ(found, other) -> None:
    """Far more than rounding: the test would see the trap."""
    found, other = np.asarray(found), np.asarray(other)
    assert np.abs(found - other).max() > 1e-3 * np.abs(other).max()


def whole_card(official, family, network, loaded) -> ModelCard:
    """The card as an export completes it."""
    inputs = {"rows": {"name": "rows", "axes": ("batch", "length"), "dtype": "uint8"}}
    if network.channels:
        axes = ("batch", "length", "channel")
        inputs["channels"] = {"name": "channels", "axes": axes, "dtype": "float32"}
    outputs = {name: {"name": name, "axes": axes} for name, axes in network.outputs.items()}
    return ModelCard.model_validate(
        {
            "name": "x", "tag": official.tag, "family": family.name,
            "objective": family.objective, "inputs": inputs, "outputs": outputs, **loaded.card,
        }
    )  # fmt: skip


# C.Origami


def origami_by_hand(weights, letters, beside, *, heads: int) -> torch.Tensor:
    """Letters (B, 5, L) in the order A, T, C, G, N and CTCF, ATAC (B, 2, L) to maps (B, N, N)."""

    def norm(x, name):
        mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        return functional.batch_norm(
            x, mean, var, weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-5
        )

    def conv1(x, name, stride, pad):
        return functional.conv1d(
            x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride=stride, padding=pad
        )

    def conv2(x, name, dilation):
        kernel = weights[f"{name}.weight"]
        pad = dilation * (kernel.shape[-1] // 2)
        return functional.conv2d(x, kernel, weights[f"{name}.bias"], padding=pad, dilation=dilation)

    def count(pattern):
        return len({k.split(".")[pattern.count(".")] for k in weights if k.startswith(pattern)})

    ends = []
    for kind, x in (("seq", letters), ("epi", beside)):
        place = f"encoder.conv_start_{kind}"
        x = norm(conv1(x, f"{place}.0", 2, 1), f"{place}.1").relu()
        for i in range(count(f"encoder.res_blocks_{kind}.")):
            place = f"encoder.res_blocks_{kind}.{i}"
            scaled = norm(conv1(x, f"{place}.scale.0", 2, 2), f"{place}.scale.1").relu()
            inner = norm(conv1(scaled, f"{place}.res.0", 1, 2), f"{place}.res.1").relu()
            x = (norm(conv1(inner, f"{place}.res.3", 1, 2), f"{place}.res.4") + scaled).relu()
        ends.append(x)
    x = conv1(torch.cat(ends, dim=1), "encoder.conv_end", 1, 0).transpose(1, 2)  # (B, N, D)
    x = x + torch.tensor([0.0, 1.0]).repeat(x.shape[-1] // 2)
    for i in range(count("attn.module.layers.")):
        place = f"attn.module.layers.{i}."
        layer = nn.TransformerEncoderLayer(
            x.shape[-1], heads, weights[f"{place}linear1.bias"].numel(), 0.1, "relu",
            batch_first=True, norm_first=True,
        )  # fmt: skip
        mine = {k.removeprefix(place): v for k, v in weights.items() if k.startswith(place)}
        layer.load_state_dict(mine)
        x = layer.eval()(x)
    bins = range(x.shape[1])
    pairs = [[torch.cat([x[:, q], x[:, p]], dim=1) for q in bins] for p in bins]
    x = torch.stack([torch.stack(row, dim=2) for row in pairs], dim=2)  # (B, 2 D, p, q)
    x = norm(conv2(x, "decoder.conv_start.0", 1), "decoder.conv_start.1").relu()
    for i in range(count("decoder.res_blocks.")):
        place, dilation = f"decoder.res_blocks.{i}.res", 2 ** (i + 1)
        inner = norm(conv2(x, f"{place}.0", dilation), f"{place}.1").relu()
        x = (norm(conv2(inner, f"{place}.3", dilation), f"{place}.4") + x).relu()
    return conv2(x, "decoder.conv_end", 1)[:, 0]


def letters_of(bases: torch.Tensor) -> torch.Tensor:
    """The five channels, the last one 1 where no base is."""
    unknown = (bases == 0).all(dim=2, keepdim=True).float()
    return torch.cat([bases, unknown], dim=2).transpose(1, 2)


@torch.no_grad()
def test_origami_computes_what_the_description_says():
    network = origami()
    bases, beside = windows(3, 96), signals(3, 96)
    wanted = origami_by_hand(
        network.state_dict(), letters_of(bases), beside.transpose(1, 2), heads=3
    )
    [found] = network(bases, beside)
    assert found.shape == (3, 12, 12)
    differ(found[0], found[1])
    close(found, wanted)


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """A checkpoint of the published size, with its table of positions as long as it may be."""
    network = calibrated(randomised(corigami.build({"bins": 4}), seed=5))
    weights = dict(network.state_dict())
    rows = torch.arange(20.0)[:, None, None]
    weights["attn.pos_encoder.pe"] = (weights["attn.pos_encoder.pe"] + rows).clone()
    return weights


def lightning(weights) -> Source:
    return Source("corigami_base.ckpt", {f"model.{k}": v for k, v in weights.items()})


@torch.no_grad()
def test_origami_of_the_published_size(published):
    loaded = ORIGAMI.load(lightning(published), 32_768)
    [network] = loaded.networks
    bases, beside = windows(1, 32_768, n=0.01), signals(1, 32_768)
    wanted = origami_by_hand(published, letters_of(bases), beside.transpose(1, 2), heads=8)
    close(network(bases, beside)[0], wanted)


def test_origami_has_the_published_keys_and_parameters():
    """Written out here: names made from the network would be right by definition."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = set()
    for stack in ("seq", "epi"):
        start = f"encoder.conv_start_{stack}"
        names |= {f"{start}.0.{x}" for x in ("weight", "bias")} | {f"{start}.1.{x}" for x in norm}
        for i in range(12):
            place = f"encoder.res_blocks_{stack}.{i}"
            for part, kinds in (
                ("scale.0", norm[:2]), ("scale.1", norm), ("res.0", norm[:2]), ("res.1", norm),
                ("res.3", norm[:2]), ("res.4", norm),
            ):  # fmt: skip
                names |= {f"{place}.{part}.{x}" for x in kinds}
    names |= {f"encoder.conv_end.{x}" for x in norm[:2]} | {"attn.pos_encoder.pe"}
    for i in range(8):
        place = f"attn.module.layers.{i}"
        names |= {f"{place}.self_attn.in_proj_weight", f"{place}.self_attn.in_proj_bias"}
        for part in ("self_attn.out_proj", "linear1", "linear2", "norm1", "norm2"):
            names |= {f"{place}.{part}.{x}" for x in norm[:2]}
    blocks = [f"decoder.res_blocks.{i}.res" for i in range(5)]
    convs = [
        "decoder.conv_start.0",
        "decoder.conv_end",
        *(f"{b}.{i}" for b in blocks for i in (0, 3)),
    ]
    norms = ["decoder.conv_start.1", *(f"{b}.{i}" for b in blocks for i in (1, 4))]
    names |= {f"{c}.{x}" for c in convs for x in norm[:2]}
    names |= {f"{c}.{x}" for c in norms for x in norm}
    with torch.device("meta"):
        network = corigami.build({})
    state = network.state_dict()
    assert state.keys() == names
    assert len(names) == 696
    assert sum(x.numel() for x in network.parameters()) == 12_840_369
    assert network.length == 2_097_152
    shapes = {
        "encoder.conv_start_seq.0.weight": (16, 5, 3),
        "encoder.conv_start_epi.0.weight": (16, 2, 3),
        "encoder.res_blocks_seq.4.scale.0.weight": (32, 16, 5),
        "encoder.res_blocks_epi.11.res.3.weight": (128, 128, 5),
        "encoder.conv_end.weight": (256, 256, 1),
        "attn.module.layers.7.linear1.weight": (512, 256),
        "decoder.conv_start.0.weight": (256, 512, 3, 3),
        "decoder.conv_end.weight": (1, 256, 1, 1),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


@torch.no_grad()
def test_trap_letters_stand_in_the_order_a_t_c_g_and_n_is_the_fifth(published):
    loaded = ORIGAMI.load(lightning(published), 8192)
    spec = EncoderSpec.model_validate(loaded.card["encoder"])
    [encoded] = make_encoder(spec).encode(to_codes("ATCGN")[None])
    assert encoded.rows.tolist() == [[0, 1, 2, 3, 4]]
    assert [(x.name, x.transform) for x in spec.channels] == [("CTCF", "none"), ("ATAC", "log1p")]
    assert {(x.source, x.missing, x.indel) for x in spec.channels} == {("bigwig", 0.0, "edit")}
    network = origami()
    bases, beside = windows(1, 96, n=0.5), signals(1, 96)
    bare = letters_of(bases)
    bare[:, 4] = 0
    wrong = origami_by_hand(network.state_dict(), bare, beside.transpose(1, 2), heads=3)
    differ(network(bases, beside)[0], wrong)


@torch.no_grad()
def test_trap_a_window_does_not_depend_on_its_place_in_the_batch():
    """The published code adds the row of the batch index to every position."""
    network = origami()
    bases, beside = windows(3, 96), signals(3, 96)
    [together] = network(bases, beside)
    for i in range(3):
        [alone] = network(bases[i : i + 1], beside[i : i + 1])
        close(together[i : i + 1], alone)
    network.attn.pos_encoder.pe.zero_()
    differ(together, network(bases, beside)[0])


@torch.no_grad()
def test_trap_row_0_of_the_stored_positions_is_added_whatever_their_number(published):
    [network] = ORIGAMI.load(lightning(published), 8192).networks
    pe = network.attn.pos_encoder.pe
    assert pe.shape == (1, 1, 256)
    assert torch.equal(pe[0, 0], torch.tensor([0.0, 1.0]).repeat(128))
    weights = {**published, "attn.pos_encoder.pe": published["attn.pos_encoder.pe"] + 0.5}
    [other] = ORIGAMI.load(lightning(weights), 8192).networks
    assert torch.equal(other.attn.pos_encoder.pe, pe + 0.5)


def test_trap_pairs_hold_the_column_first():
    bins = torch.tensor([[[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]])  # (1, 2, 3)
    pairs = pair_bins(bins)
    assert pairs.shape == (1, 4, 3, 3)
    assert pairs[0, :, 0, 2].tolist() == [3, 30, 1, 10]


@torch.no_grad()
def test_trap_the_map_is_given_as_it_is_not_symmetric(published):
    [found] = origami()(windows(1, 96), signals(1, 96))
    differ(found, found.transpose(1, 2))
    assert ORIGAMI.load(lightning(published), 8192).card["contacts"]["symmetric"] is False


@torch.no_grad()
def test_signals_are_needed_and_keep_their_order():
    network, bases, beside = origami(), windows(1, 96), signals(1, 96)
    differ(network(bases, beside)[0], network(bases, beside.flip(2))[0])
    with pytest.raises(InputError, match="CTCF and ATAC"):
        network(bases)


def test_trap_prefix_of_lightning(published):
    bare = Source("bare.pt", published)
    assert ORIGAMI.recognise(bare)
    assert ORIGAMI.recognise(lightning(published))
    [one], [two] = (ORIGAMI.load(x, 8192).networks for x in (bare, lightning(published)))
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name


def test_card_of_origami(published):
    loaded = ORIGAMI.load(lightning(published), None)
    [network] = loaded.networks
    card = whole_card(ORIGAMI, corigami.FAMILY, network, loaded)
    assert (card.context, card.anchor, network.length) == (2_097_152, 1_048_576, 2_097_152)
    assert card.contacts is not None
    assert card.contacts.bin_size * network.config.bins == card.context
    # The first changed base is the first one of bin 128 of 256.
    assert divmod(card.anchor, card.contacts.bin_size) == (128, 0)
    assert not card.provenance.limits
    shorter = ORIGAMI.load(lightning(published), 65_536)
    assert shorter.networks[0].config.bins == 8
    assert "trained on" in shorter.card["provenance"]["limits"]


@pytest.mark.parametrize("context", [0, 8191, 10_000, 2_097_152 + 8192, -8192])
def test_windows_of_origami_are_whole_bins(published, context):
    with pytest.raises(InputError, match=rf"--context {context}: allowed are multiples of 8192"):
        ORIGAMI.load(lightning(published), context)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra.weight": torch.ones(2)}, "does not have: extra.weight"),
        ({"decoder.conv_end.bias": None}, r"no weights for: decoder\.conv_end\.bias"),
        ({"encoder.conv_end.weight": torch.ones(3, 3, 1)}, "conv_end.weight 3x3x1, wanted 256x256"),
        ({"attn.pos_encoder.pe": torch.ones(9, 1, 64)}, "pe 1x1x64, wanted 1x1x256"),
    ],
)
def test_keys_of_origami_are_accounted_for(published, change, message):
    weights = {k: v for k, v in {**published, **change}.items() if v is not None}
    with pytest.raises(InputError, match=message):
        ORIGAMI.load(lightning(weights), 8192)


def test_the_one_map_of_origami():
    network = origami()
    network.select([0])
    with pytest.raises(InputError, match=r"tracks \[1\]: there is one map"):
        network.select([1])


@pytest.mark.parametrize(
    ("build", "change", "message"),
    [
        (corigami.build, {"heads": 5}, "width 12 of a bin is not divisible by 5 heads"),
        (corigami.build, {"widths": [4, 0]}, "above 0"),
        (corigami.build, {"width": 3}, r"model\.width: .*known here: bins, dilations"),
        (akita.build, {"crop": 7}, "crop 7 and diagonal 2 leave nothing of 16 bins"),
        (akita.build, {"stem_kernel": 4}, "stem_kernel must be odd"),
        (akita.build, {"flat_rate": 4.0, "flat_repeat": 4}, "dilation 64 reaches beyond 16 bins"),
        (akita.build, {"flat": 0}, r"model\.flat: "),
    ],
)
def test_a_bad_model_table(build, change, message):
    model = ORIGAMI_MODEL if build is corigami.build else AKITA_MODEL
    with pytest.raises(InputError, match=message):
        build({**model, **change})


@pytest.mark.parametrize("network", [origami, small_akita])
def test_it_can_be_trained(network):
    made = network().train()
    batch = windows(2, made.length), signals(2, made.length) if made.channels else None
    made(*batch)[0].square().sum().backward()
    assert [name for name, weight in made.named_parameters() if weight.grad is None] == []


# Akita


def keras_weights(network: akita.Akita, first: int = 0, norm: str = "batch_normalization"):
    """Weights under Keras' names and in its order of axes; layers are numbered from `first`."""

    def named(kind, number):
        return kind if number == 0 else f"{kind}_{number}"

    weights, counts = {}, {"conv1d": first, "conv2d": first}
    for i, (_, unit) in enumerate(network.units()):
        kernel = unit.conv.weight.detach()
        kind = "conv1d" if kernel.ndim == 3 else "conv2d"
        order = (2, 1, 0) if kernel.ndim == 3 else (2, 3, 1, 0)
        weights[f"{named(kind, counts[kind])}/kernel"] = kernel.permute(order).contiguous()
        counts[kind] += 1
        layer = named(norm, first + i)
        weights |= {
            f"{layer}/gamma": unit.norm.weight.detach(), f"{layer}/beta": unit.norm.bias.detach(),
            f"{layer}/moving_mean": unit.norm.running_mean,
            f"{layer}/moving_variance": unit.norm.running_var,
        }  # fmt: skip
    dense = named("dense", first)
    weights[f"{dense}/kernel"] = network.final.weight.detach().T.contiguous()
    weights[f"{dense}/bias"] = network.final.bias.detach()
    return weights


def keras(network=None, params=None, **options: object) -> Source:
    weights = keras_weights(network or small_akita(), **options)
    return Source("model_best.h5", weights, copy.deepcopy(params or PARAMS))


def same(x, kernel, dilation):
    """Keras' convolution with padding 'same', channels last, in any number of dimensions."""
    taps, axes = kernel.shape[:-2], x.ndim - 2
    pads = [(dilation * (t - 1) // 2, dilation * (t - 1) // 2) for t in taps]
    wide = np.pad(x, [(0, 0), *pads, (0, 0)])
    out = np.zeros((*x.shape[:-1], kernel.shape[-1]))
    for tap in np.ndindex(*taps):
        cut = tuple(slice(dilation * t, dilation * t + x.shape[1 + i]) for i, t in enumerate(tap))
        assert len(cut) == axes
        out += wide[(slice(None), *cut)] @ kernel[tap]
    return out


def akita_by_hand(weights, bases, *, eps: float = 1e-3, last_relu: bool = True) -> np.ndarray:
    """Bases (B, L, 4) to (B, pairs, maps) with Keras' weights of the small network."""
    values = {k: v.double().numpy() for k, v in weights.items()}
    counts = {"conv1d": 0, "conv2d": 0, "batch_normalization": 0}

    def of(kind):
        number, counts[kind] = counts[kind], counts[kind] + 1
        layer = kind if number == 0 else f"{kind}_{number}"
        return {k.split("/")[1]: v for k, v in values.items() if k.split("/")[0] == layer}

    def block(x, dilation=1, pool=1):
        kind = "conv1d" if x.ndim == 3 else "conv2d"
        x = same(np.maximum(x, 0), of(kind)["kernel"], dilation)
        n = of("batch_normalization")
        x = (x - n["moving_mean"]) / np.sqrt(n["moving_variance"] + eps) * n["gamma"] + n["beta"]
        return x.reshape(x.shape[0], -1, pool, x.shape[-1]).max(axis=2) if pool > 1 else x

    def symmetric(x):
        return (x + x.swapaxes(1, 2)) / 2

    x = block(bases.double().numpy(), pool=2)
    for _ in range(2):
        x = block(x, pool=2)
    for dilation in (1, 2, 3):  # 1, 1.75, 3.0625
        x = x + block(block(x, dilation))
    x = block(x)
    x = np.maximum(x, 0) if last_relu else x
    batch, bins, width = x.shape
    flat = np.empty((batch, bins, bins, width + 1))
    for i in range(bins):
        for j in range(bins):
            flat[:, i, j, :width] = (x[:, i] + x[:, j]) / 2
            flat[:, i, j, width] = abs(i - j)
    x = symmetric(block(flat))
    for dilation in (1, 2):
        x = symmetric(x + block(block(x, dilation)))
    x = x[:, 3:-3, 3:-3]
    rows = [x[:, i, j] for i in range(10) for j in range(i + 2, 10)]
    return np.stack(rows, axis=1) @ values["dense/kernel"] + values["dense/bias"]


@torch.no_grad()
def test_akita_computes_what_basenji_describes():
    source = keras()
    [network] = AKITA.load(source, None).networks
    bases = windows(3, 128)
    [found] = network(bases)
    assert found.shape == (3, 36, 3)
    differ(found[0], found[1])
    close(found, akita_by_hand(source.weights, bases))


@torch.no_grad()
def test_trap_the_trunk_ends_in_a_relu():
    source, bases = keras(), windows(2, 128)
    [found] = AKITA.load(source, None).networks[0](bases)
    differ(found, akita_by_hand(source.weights, bases, last_relu=False))


@torch.no_grad()
def test_trap_norms_have_the_epsilon_of_keras():
    network = small_akita()
    for _, unit in network.units():
        unit.norm.running_var.mul_(0.02)
    source, bases = keras(network), windows(2, 128)
    [found] = AKITA.load(source, None).networks[0](bases)
    close(found, akita_by_hand(source.weights, bases))
    differ(found, akita_by_hand(source.weights, bases, eps=1e-5))


PUBLISHED = {
    **PARAMS["model"], "seq_length": 1_048_576, "target_length": 512, "target_crop": 32,
    "trunk": [
        {"name": "conv_block", "filters": 96, "kernel_size": 11, "pool_size": 2},
        {
            "name": "conv_tower", "filters_init": 96, "filters_mult": 1.0, "kernel_size": 5,
            "pool_size": 2, "repeat": 10,
        },
        {
            "name": "dilated_residual", "filters": 48, "rate_mult": 1.75, "repeat": 8,
            "dropout": 0.4,
        },
        {"name": "conv_block", "filters": 64, "kernel_size": 5},
    ],
    "head_hic": [
        {"name": "one_to_two", "operation": "mean"},
        {"name": "concat_dist_2d"},
        {"name": "conv_block_2d", "filters": 48, "kernel_size": 3},
        {"name": "symmetrize_2d"},
        {
            "name": "dilated_residual_2d", "filters": 24, "kernel_size": 3, "rate_mult": 1.75,
            "repeat": 6, "dropout": 0.1,
        },
        {"name": "cropping_2d", "cropping": 32},
        {"name": "upper_tri", "diagonal_offset": 2},
        {"name": "final", "units": 5, "activation": "linear"},
    ],
}  # fmt: skip


def test_akita_of_the_published_size():
    """Names, shapes and counts as in the summary that the authors printed of their model."""
    kernels = {"conv1d": [(11, 4, 96), *[(5, 96, 96)] * 10, *[(3, 96, 48), (1, 48, 96)] * 8]}
    kernels["conv1d"].append((5, 96, 64))
    kernels["conv2d"] = [(3, 3, 65, 48), *[(3, 3, 48, 24), (1, 1, 24, 48)] * 6]
    weights, number = {}, 0
    for kind, shapes in kernels.items():
        for i, shape in enumerate(shapes):
            weights[f"{kind}_{i}/kernel" if i else f"{kind}/kernel"] = torch.zeros(shape)
            layer = f"batch_normalization_{number}" if number else "batch_normalization"
            for part in ("gamma", "beta", "moving_mean", "moving_variance"):
                weights[f"{layer}/{part}"] = torch.ones(shape[-1])
            number += 1
    weights |= {"dense/kernel": torch.zeros(48, 5), "dense/bias": torch.zeros(5)}
    assert (len(kernels["conv1d"]), len(kernels["conv2d"]), number) == (28, 13, 41)
    source = Source("model_best.h5", weights, {"model": PUBLISHED})
    assert AKITA.recognise(source)
    loaded = AKITA.load(source, None)
    [network] = loaded.networks
    still = [x for name, x in network.named_buffers() if name.endswith(("_mean", "_var"))]
    assert sum(x.numel() for x in network.parameters()) == 746_149
    assert sum(x.numel() for x in still) == 5_504
    assert network.pairs.numel() == 99_681
    assert network.config == akita.AkitaConfig()
    card = whole_card(AKITA, akita.FAMILY, network, loaded)
    assert (card.context, card.anchor, card.crop) == (1_048_576, 524_287, 32)
    assert card.contacts is not None
    assert card.contacts.model_dump() == {
        "bin_size": 2048, "diagonal": 2, "layout": "upper", "symmetric": True,
    }  # fmt: skip


def test_dilations_are_rounded_powers():
    assert dilations(1.75, 8) == [1, 2, 3, 5, 9, 16, 29, 50]
    assert dilations(1.75, 0) == []


@torch.no_grad()
def test_trap_layers_count_by_number_and_from_anywhere():
    """The tenth comes after the ninth; the model of a second head begins with a higher number."""
    network = small_akita(repeat=6, rate=1.2)
    params = copy.deepcopy(PARAMS)
    params["model"]["trunk"][2] |= {"repeat": 6, "rate_mult": 1.2}
    bases = windows(1, 128)
    for first in (0, 7):
        source = keras(network, params, first=first)
        close(AKITA.load(source, None).networks[0](bases)[0], network(bases)[0], 0)
        shuffled = dict(sorted(source.weights.items()))
        source = dataclasses.replace(source, weights=shuffled)
        close(AKITA.load(source, None).networks[0](bases)[0], network(bases)[0], 0)


@torch.no_grad()
def test_norms_of_several_devices_have_another_name():
    params = copy.deepcopy(PARAMS)
    params["model"]["norm_type"] = "batch-sync"
    source, bases = keras(params=params, norm="sync_batch_normalization"), windows(1, 128)
    assert AKITA.recognise(source)
    close(AKITA.load(source, None).networks[0](bases)[0], small_akita()(bases)[0], 0)


@torch.no_grad()
def test_trap_kernels_change_the_order_of_their_axes():
    source = keras()
    network = AKITA.load(source, None).networks[0]
    flat, stem = source.weights["conv2d/kernel"], source.weights["conv1d/kernel"]
    assert network.flat.conv.weight[5, 1, 0, 2] == flat[0, 2, 1, 5]
    assert network.stem.conv.weight[3, 2, 1] == stem[1, 2, 3]
    assert network.final.weight[2, 4] == source.weights["dense/kernel"][4, 2]


@torch.no_grad()
def test_trap_the_upper_triangle_goes_row_by_row_after_the_crop():
    """Weights that let nothing through but the distance of two bins."""
    network = small_akita(repeat=0, flat_repeat=0)
    for unit in (network.neck, network.flat):
        unit.norm.running_mean.zero_()
        unit.norm.running_var.fill_(1 - 1e-3)
        unit.norm.weight.fill_(1)
        unit.norm.bias.zero_()
        unit.conv.weight.zero_()
    network.flat.conv.weight[:, -1, 1, 1] = 1
    network.final.weight.fill_(1 / 6)
    network.final.bias.zero_()
    [found] = network(windows(1, 128))
    wanted = [j - i for i in range(10) for j in range(i + 2, 10)]
    close(found[0, :, 0], np.array(wanted, dtype=float))
    assert wanted[:9] == [2, 3, 4, 5, 6, 7, 8, 9, 2]


@torch.no_grad()
def test_the_reverse_complement_of_a_symmetric_network_flips_the_map():
    """With kernels that read alike on both strands: shows how the host has to put maps right."""
    network = small_akita()
    for _, unit in network.units():
        kernel = unit.conv.weight
        if kernel.ndim == 3:
            kernel.copy_((kernel + kernel.flip(2)) / 2)
        else:
            kernel.copy_((kernel + kernel.flip(2, 3)) / 2)
    first = network.stem.conv.weight
    first.copy_((first + first.flip(1)) / 2)  # A and T, C and G
    bases = windows(1, 128)
    forward, back = network(bases)[0][0, :, 0], network(bases.flip(1, 2))[0][0, :, 0]
    square = np.zeros((10, 10))
    upper = np.triu_indices(10, 2)
    square[upper] = forward
    square += square.T
    close(back, square[::-1, ::-1][upper])


@torch.no_grad()
def test_maps_are_selected_in_the_order_asked_for():
    network, bases = small_akita(), windows(2, 128)
    [whole] = network(bases)
    network.select([2, 0])
    [found] = network(bases)
    close(found, whole[:, :, [2, 0]])
    assert network.final.weight.shape == (2, 6)


def test_maps_are_named_by_the_targets_beside_them(tmp_path: Path):
    head = "index\tidentifier\tfile\tclip\tdescription\n"
    rows = [
        f"{i}\t{x}\t../../data/{x}.cool\t2\t{x} cells\n" for i, x in enumerate(("HFF", "H1", "GM"))
    ]
    (tmp_path / "targets.txt").write_text(head + "".join(rows))
    (tmp_path / "params.json").write_text(json.dumps(PARAMS))
    source = dataclasses.replace(keras(), folder=tmp_path, config={})
    tracks = AKITA.load(source, None).tracks
    assert [x["identifier"] for x in tracks] == ["HFF", "H1", "GM"]
    assert tracks[1]["description"] == "H1 cells"
    assert ".cool" not in str(tracks)
    (tmp_path / "targets.txt").write_text(head + rows[0])
    with pytest.raises(InputError, match=r"targets\.txt: found 1 rows, wanted 3"):
        AKITA.load(source, None)
    assert [x["identifier"] for x in AKITA.load(keras(), None).tracks] == [
        "map_1",
        "map_2",
        "map_3",
    ]


def edited(*path: object, value: object) -> dict:
    params = copy.deepcopy(PARAMS)
    place = params["model"]
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return params


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"train": {}}, r"params\.json"),
        (edited("norm_type", value="layer"), "norm_type is 'layer', wanted 'batch' or"),
        (edited("norm_type", value=None), "norm_type is None"),
        (edited("activation", value="gelu"), "activation is 'gelu', wanted 'relu'"),
        (edited("head_hic", 0, "operation", value="max"), "operation is 'max', wanted 'mean'"),
        (edited("head_hic", 3, "name", value="exp"), "head_hic has the blocks .*exp"),
        (edited("trunk", 0, "stride", value=2), "trunk: conv_block does not know stride"),
        (edited("trunk", 3, "filters", value=None), "trunk: conv_block needs filters"),
        (edited("trunk", 1, "filters_mult", value=9), "filters_mult is 9 and repeat 2"),
        (edited("trunk", 1, "repeat", value="2"), "repeat is '2'"),
        (edited("seq_length", value=130), "seq_length is 130, wanted a multiple of 8"),
        (edited("target_crop", value=2), "target_crop is 2, wanted 3"),
        (edited("diagonal_offset", value=1), "diagonal_offset is 1, wanted 2"),
        (edited("trunk", 2, "repeat", value=2), "found 10, 5, 15, 1, wanted 8, 5, 13, 1"),
        (edited("head_hic", 7, "units", value=4), "final.bias 3, wanted 4"),
        (edited("head_hic", 2, "filters", value=10**6), "flat"),
        (edited("head_mouse", value=[]), "found the heads head_hic, head_mouse"),
    ],
)
def test_trap_params_that_say_something_else_are_refused(params, message):
    with pytest.raises(InputError, match=message):
        AKITA.load(keras(params=params), None)


def test_the_files_name_tells_which_of_two_heads():
    params = copy.deepcopy(PARAMS)
    params["model"]["head_mouse"] = copy.deepcopy(PARAMS["model"]["head_hic"])
    params["model"]["head_mouse"][-1]["units"] = 3
    params["model"]["head_hic"][-1]["units"] = 7
    source = dataclasses.replace(keras(params=params), files=(Path("model1_best.h5"),))
    assert AKITA.load(source, None).networks[0].config.maps == 3
    wrong = dataclasses.replace(source, files=(Path("model0_best.h5"),))
    with pytest.raises(InputError, match="wanted 7"):
        AKITA.load(wrong, None)


def test_akita_has_one_window():
    with pytest.raises(InputError, match="--context 256: its window has 128 bases"):
        AKITA.load(keras(), 256)
    assert AKITA.load(keras(), 128).card["context"] == 128


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dense/extra": torch.ones(1)}, r"does not have: final\.extra"),
        ({"conv1d_3/kernel": None}, "found 9, 5, 15, 1, wanted 10"),
        ({"conv1d_3/kernel": torch.ones(3)}, "residual.0.narrow.conv.weight 3, wanted 4x6x3"),
        ({"batch_normalization_2/beta": None}, r"no weights for: tower\.1\.norm\.bias"),
    ],
)
def test_weights_of_akita_are_accounted_for(change, message):
    source = keras()
    weights = {k: v for k, v in {**source.weights, **change}.items() if v is not None}
    with pytest.raises(InputError, match=message):
        AKITA.load(dataclasses.replace(source, weights=weights), None)


@pytest.mark.parametrize(
    "name",
    [
        "conv1d/kernel",  # SpliceAI, ChromBPNet
        "multihead_attention/q_layer/kernel",  # Borzoi
        "encoder.conv_end.weight",
        "trunk.0.conv.weight",
        "stem.0.weight",  # Enformer
    ],
)
def test_other_systems_are_not_recognised(name):
    source = Source("other", {name: torch.ones(2, 2, 2)})
    assert not ORIGAMI.recognise(source)
    assert not AKITA.recognise(source)
    assert not ORIGAMI.recognise(keras())
    assert not AKITA.recognise(lightning(origami().state_dict()))


# Graphs


@pytest.mark.parametrize("network", [origami, small_akita])
def test_graph_takes_other_numbers_of_windows(tmp_path: Path, network):
    made, path = network(), tmp_path / "model.onnx"
    graph.write_graph(made, path, "fp32")
    batches = []
    for size in (1, 4, 5):
        rng = np.random.default_rng(size)
        rows = rng.integers(5, size=(size, made.length)).astype(np.uint8)
        beside = signals(size, made.length, size).numpy()
        batches.append((rows, beside) if made.channels else rows)
    for batch, found in zip(batches, graph.run_graph(path, batches), strict=True):
        wanted = graph.run_torch(made, batch)
        assert found.keys() == {"contacts"}
        close(found["contacts"], wanted["contacts"])
