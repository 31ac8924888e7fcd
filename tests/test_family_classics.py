"""DeepSEA, Beluga, DanQ, Basset, Basenji2 and Sei: layouts, traps, and networks written anew."""

from __future__ import annotations

import dataclasses

import classics_kit as kit
import numpy as np
import pytest
import torch
from torch.nn import functional

from glm_annotate.card import ModelCard
from glm_annotate.encoding import EncoderSpec, make_encoder
from glm_annotate.errors import InputError
from glm_annotate.genome import to_codes
from glm_annotate.train import graph
from glm_annotate.train.families import basenji2, basset, deepsea, sei

DEEPSEA, PLAIN, SELENE = deepsea.DEEPSEA.official
(BELUGA,), (DANQ,) = deepsea.BELUGA.official, deepsea.DANQ.official
(BASSET,), (SEI,) = basset.FAMILY.official, sei.FAMILY.official
PORT, KERAS = basenji2.FAMILY.official
EVERY = (DEEPSEA, PLAIN, SELENE, BELUGA, DANQ, BASSET, SEI, PORT, KERAS)
WIDTHS = (5, 6, 7)


@dataclasses.dataclass(frozen=True)
class Case:
    """One official layout: a small one that has real lengths, and the network anew."""

    official: object
    shapes: dict
    run: object
    length: int
    order: str
    unknown: float
    tracks: int = 4
    config: dict = dataclasses.field(default_factory=dict)


CASES = {
    "deepsea 2015": Case(
        DEEPSEA, kit.deepsea_2015(WIDTHS, hidden=9, tracks=4), kit.run_deepsea_2015, 1000, "AGCT", 0
    ),
    "deepsea selene": Case(
        SELENE, kit.deepsea_selene(WIDTHS, tracks=4), kit.run_deepsea_selene, 1000, "ACGT", 0.25
    ),
    "deepsea plain": Case(
        PLAIN, kit.deepsea_plain(WIDTHS, tracks=4), kit.run_deepsea_plain, 1000, "ACGT", 0.25
    ),
    "beluga": Case(
        BELUGA, kit.beluga(WIDTHS, hidden=9, tracks=4), kit.run_beluga, 2000, "AGCT", 0
    ),
    "danq": Case(DANQ, kit.danq(5, hidden=9, tracks=4), kit.run_danq, 1000, "ACGT", 0.25),
    "danq published": Case(
        DANQ, kit.danq(5, hidden=9, tracks=4), lambda w, x: kit.run_danq(w, x, alone=True),
        1000, "ACGT", 0.25, config={"compat": "published"},
    ),
    "basset": Case(
        BASSET, kit.basset(WIDTHS, hidden=9, tracks=4), kit.run_basset, 600, "ACGT", 0.25
    ),
    "sei": Case(SEI, kit.sei(WIDTHS, tracks=4), kit.run_sei, 4096, "ACGT", 0.25),
}  # fmt: skip


def loaded(case, **changes):
    weights = kit.filled(case.shapes)
    source = kit.source_of(weights, {**case.config, **changes})
    (official,) = [x for x in EVERY if x.recognise(source)]
    assert official is case.official
    return weights, official.load(source, None)


@pytest.mark.parametrize("name", CASES)
def test_network_is_the_one_written_anew(name):
    case = CASES[name]
    weights, predicted = loaded(case)
    (network,) = predicted.networks
    rows = kit.ids((2, case.length))
    wanted = case.run(weights, kit.one_hot(rows, case.unknown))
    found = graph.run_torch(network, rows)["tracks"]
    assert found.shape == (2, 1, case.tracks)
    assert kit.worst(found[:, 0], wanted) < 1e-5
    assert wanted.std() > 1e-3
    # One window does not touch the next.
    assert kit.worst(graph.run_torch(network, rows[1:])["tracks"], found[1:]) < 1e-6


@pytest.mark.parametrize("name", CASES)
def test_card(name):
    case = CASES[name]
    _, predicted = loaded(case)
    card = predicted.card
    assert card["encoder"]["vocab"]["order"] == case.order
    assert (card["context"], card["anchor"]) == (case.length, case.length // 2 - 1)
    assert (card["bin_size"], card["crop"], card["strand"]) == (case.length, 0, "both")
    assert predicted.networks[0].unknown == case.unknown
    assert [row["identifier"] for row in predicted.tracks] == [f"track_{i}" for i in range(4)]
    inputs = {"rows": {"name": "rows", "axes": ["batch", "row"], "dtype": "uint8"}}
    outputs = {"tracks": {"name": "tracks", "axes": ["batch", "bin", "track"]}}
    whole = {**card, "name": "x", "tag": case.official.tag, "objective": "tracks"}
    ModelCard.model_validate({**whole, "inputs": inputs, "outputs": outputs})


@pytest.mark.parametrize(("name", "ids"), [("deepsea 2015", [0, 2, 1, 3, 4]),
                                           ("beluga", [0, 2, 1, 3, 4]),
                                           ("basset", [0, 1, 2, 3, 4]),
                                           ("sei", [0, 1, 2, 3, 4])])  # fmt: skip
def test_trap_order_of_bases(name, ids):
    """Lua's DeepSEA and Beluga read A, G, C, T; Basset's data were written as A, C, G, T."""
    _, predicted = loaded(CASES[name])
    encoder = make_encoder(EncoderSpec.model_validate(predicted.card["encoder"]))
    (group,) = encoder.encode(to_codes(b"ACGTN")[None])
    assert group.rows.tolist() == [ids]


@pytest.mark.parametrize(
    ("shapes", "count", "parts"),
    [
        (kit.deepsea_2015(), 52_843_119, 10),
        (kit.beluga(), 149_536_251, 16),
        # 46,926,479 are published: torch has 2,560 biases more, two a gate.
        (kit.danq(), 46_926_479 + 2_560, 14),
        (kit.basset(), 4_135_064, 32),
        (kit.sei(), 889_979_983, 38),
    ],
)
def test_sizes_of_the_published_files(shapes, count, parts):
    """Counts follow from the published layers by hand, and from the specification for Sei."""
    assert (kit.numbers(shapes), len(shapes)) == (count, parts)


def test_full_sizes_are_the_defaults():
    for network, shapes in (
        (deepsea.build_deepsea({}), kit.deepsea_2015()),
        (basset.build({}), kit.basset()),
        (deepsea.build_danq({}), kit.danq()),
    ):
        assert sum(x.numel() for x in network.parameters()) == kit.numbers(shapes)
    with torch.device("meta"):
        beluga = deepsea.build_beluga({})
    assert sum(x.numel() for x in beluga.parameters()) == kit.numbers(kit.beluga())


@pytest.mark.parametrize("name", CASES)
def test_recognised_by_one_system_alone_also_behind_wrappers(name):
    case = CASES[name]
    for prefix in ("", "module."):
        weights = {prefix + key: value for key, value in kit.filled(case.shapes).items()}
        assert [x for x in EVERY if x.recognise(kit.source_of(weights))] == [case.official]
        case.official.load(kit.source_of(weights, case.config), None)
    one = torch.tensor(1.0)
    odd = [
        {f"{kind}_{i}/{part}": one for i in range(5) for kind in ("conv1d", "batch_normalization")}
        for part in ("kernel", "bias", "gamma")
    ]
    for official in EVERY:
        assert not official.recognise(kit.source_of({}))
        assert not official.recognise(kit.source_of({"dense/kernel": one}))
        assert not any(official.recognise(kit.source_of({**x, "dense/kernel": one})) for x in odd)
        assert not official.recognise(kit.source_of({"0.weight": torch.tensor(1.0)}))


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("deepsea 2015", "1."), ("deepsea 2015", "2."), ("beluga", "model."), ("sei", "model."),
     ("deepsea selene", "model."), ("deepsea plain", "model."), ("danq", "model.")],
)  # fmt: skip
def test_trap_layers_in_front_shift_the_numbers(name, prefix):
    """kipoi puts a layer or two in front that order bases; selene averages strands around it."""
    case = CASES[name]
    weights = kit.filled(case.shapes)
    _, plain = loaded(case)
    moved = {prefix + key: value for key, value in weights.items()}
    source = kit.source_of(moved, case.config)
    assert [x for x in EVERY if x.recognise(source)] == [case.official]
    rows = kit.ids((1, case.length))
    found = graph.run_torch(case.official.load(source, None).networks[0], rows)["tracks"]
    assert kit.worst(found, graph.run_torch(plain.networks[0], rows)["tracks"]) == 0


def test_trap_threshold_puts_a_millionth_in_the_place_of_what_is_below_zero():
    """Weights of 10^6 after a dead layer: 1e-6 for each of its channels shows, 0 would not."""
    case = CASES["deepsea 2015"]
    weights, _ = loaded(case)
    dead = {**weights, "12.1.bias": torch.full((9,), -1e6), "14.1.bias": torch.zeros(4)}
    dead["14.1.weight"] = torch.full((4, 9), 1e5)
    (network,) = DEEPSEA.load(kit.source_of(dead), None).networks
    found = graph.run_torch(network, kit.ids((1, 1000)))["tracks"]
    assert np.allclose(found, 1 / (1 + np.exp(-9 * 1e-6 * 1e5)), atol=1e-6)


def test_trap_selene_shortens_rows_in_its_pass():
    """A row of length 5 becomes 0.9, one of length 0.5 stays; nothing changes in a pass of ours."""
    weights = kit.filled(CASES["deepsea selene"].shapes)
    first = torch.zeros(5, 4, 8)
    first[0, 0, :2] = torch.tensor([3.0, 4.0])
    first[1, 1, :2] = torch.tensor([0.3, 0.4])
    weights["conv_net.0.weight"] = first
    (network,) = SELENE.load(kit.source_of(weights), None).networks
    kept = network.stages[0][0].weight.detach().clone()
    assert torch.allclose(kept[0, 0, :2], torch.tensor([0.54, 0.72]), atol=1e-6)
    assert torch.allclose(kept[1, 1, :2], torch.tensor([0.3, 0.4]))
    graph.run_torch(network, kit.ids((1, 1000)))
    assert torch.equal(network.stages[0][0].weight, kept)
    assert torch.equal(weights["conv_net.0.weight"], first)


def test_trap_danq_recurs_over_the_window():
    """A change of later bases reaches the first row of the LSTM, unless every row is alone."""
    rows = kit.ids((1, 1000), unknown=0)
    changed = rows.copy()
    changed[0, 100:110] = 3 - changed[0, 100:110]
    for config, reaches in (({}, True), ({"compat": "published"}, False)):
        _, predicted = loaded(CASES["danq"], **config)
        (network,) = predicted.networks
        said = "each row alone" if config else "the window, as published"
        assert said in predicted.card["provenance"]["limits"]
        with torch.no_grad():
            network.dense[0].weight[:, 10:] = 0  # what the first row gives alone
        found = [graph.run_torch(network, x)["tracks"] for x in (rows, changed)]
        assert (kit.worst(*found) > 0) is reaches


def test_trap_first_dilated_layer_of_sei_leaves_the_linear_half_out():
    """With everything after it dead, what is left is the rectified half alone: the sums differ."""
    case = CASES["sei"]
    weights = kit.filled(case.shapes)
    for i in range(5):
        weights[f"dconv{i + 1}.1.bias"] = torch.full((7,), -1e6)
    (network,) = SEI.load(kit.source_of(weights), None).networks
    taken = []
    network.stages[2].register_forward_hook(lambda *found: taken.append(found[2]))
    network.dense.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    graph.run_torch(network, kit.ids((1, 4096)))
    (_, rectified), summed = taken
    basis = torch.from_numpy(kit.splines(256, 16)).float()
    assert kit.worst(summed, (rectified @ basis).flatten(1)) < 1e-5


@pytest.mark.parametrize(("rows", "functions"), [(256, 16), (5, 4), (20, 7), (2, 4)])
def test_trap_spline_basis_is_scipys(rows, functions):
    basis = sei.spline_basis(rows, functions)
    assert np.abs(basis - kit.splines(rows, functions)).max() < 1e-12
    assert np.abs(basis.sum(1) - 1).max() < 1e-12
    assert basis[0, 0] == basis[-1, -1] == 1


@pytest.mark.parametrize("name", CASES)
def test_select_keeps_tracks_in_order(name):
    _, predicted = loaded(CASES[name])
    (network,) = predicted.networks
    rows = kit.ids((2, CASES[name].length))
    before = graph.run_torch(network, rows)["tracks"]
    size = sum(x.numel() for x in network.parameters())
    network.select([3, 1])
    assert kit.worst(graph.run_torch(network, rows)["tracks"], before[:, :, [3, 1]]) < 1e-7
    assert sum(x.numel() for x in network.parameters()) < size
    assert all(weight.requires_grad for weight in network.parameters())


def test_names_of_tracks_come_from_a_file_beside_the_weights(tmp_path):
    case = CASES["sei"]
    (tmp_path / "target.names").write_text("a | b\nc\td\n\ne\nf\n")
    source = kit.source_of(kit.filled(case.shapes), folder=tmp_path)
    tracks = SEI.load(source, None).tracks
    assert [row["identifier"] for row in tracks] == ["a | b", "c", "e", "f"]
    (tmp_path / "target.names").write_text("a\n")
    with pytest.raises(InputError, match=r"target\.names: holds 1 names, the weights have 4"):
        SEI.load(source, None)


@pytest.mark.parametrize("name", CASES)
def test_another_window_is_refused(name):
    case = CASES[name]
    source = kit.source_of(kit.filled(case.shapes), case.config)
    case.official.load(source, case.length)
    with pytest.raises(InputError, match=f"found --context 500, these weights .* {case.length} "):
        case.official.load(source, 500)


@pytest.mark.parametrize("name", CASES)
def test_weights_that_contradict_the_system(name):
    case = CASES[name]
    weights = kit.filled(case.shapes)
    last = list(weights)[-1]
    with pytest.raises(InputError, match="keys that this system does not have: extra"):
        case.official.load(kit.source_of({**weights, "extra.weight": torch.zeros(1)}), None)
    with pytest.raises(InputError, match=r"no weights for: .*bias"):
        case.official.load(kit.source_of({k: v for k, v in weights.items() if k != last}), None)
    with pytest.raises(InputError, match=r"weights of other shapes|wanted"):
        case.official.load(kit.source_of({**weights, last: torch.zeros(3)}), None)
    flat = {name: value.flatten() for name, value in weights.items()}
    with pytest.raises(InputError, match=r"found .*, wanted . axes"):
        case.official.load(kit.source_of(flat), None)


@pytest.mark.parametrize(
    ("build", "values", "message"),
    [
        (deepsea.build_deepsea, {"length": 60}, "no row is left of 60 bases"),
        (deepsea.build_beluga, {"width": 3}, "model.width"),
        (deepsea.build_danq, {"length": 20}, "no row is left"),
        (deepsea.build_danq, {"compat": "both"}, "model.compat"),
        (basset.build, {"length": 30}, "no row is left"),
        (basset.build, {"pools": [2, 2]}, "one number a convolution"),
        (sei.build, {"length": 20}, "less than two rows"),
        (sei.build, {"kernel": 4}, "odd"),
        (basenji2.build, {"length": 1000}, "multiple of 128"),
        (basenji2.build, {"crop": 512}, "more than 1024 bins"),
        (basenji2.build, {"gelu": "none"}, "model.gelu"),
    ],
)
def test_configs_that_cannot_be(build, values, message):
    with pytest.raises(InputError, match=message):
        build(values)


# Basenji2

SMALL = {"stem": 5, "tower": [6, 7], "narrow": 4, "dilations": [1, 2, 3], "crop": 2, "wide": 9,
         "tracks": 4, "length": 128}  # fmt: skip


def basenji(**changes):
    torch.manual_seed(0)
    network = basenji2.build({**SMALL, **changes})
    weights = kit.filled({x: tuple(y.shape) for x, y in network.state_dict().items()})
    network.load_state_dict(weights)
    return network.eval(), weights


def run_basenji(w, x, gelu, crop=2):
    """The network anew, on weights under our names."""

    def block(name, x, step=1):
        weight = w[f"{name}.conv.weight"]
        pad = step * (weight.shape[2] // 2)
        x = functional.conv1d(gelu(x), weight, dilation=step, padding=pad)
        return kit._norm(w, f"{name}.norm", x, eps=1e-3)

    for name in ("stem", "tower.0", "tower.1"):
        x = functional.max_pool1d(block(name, x), 2)
    for i, step in enumerate((1, 2, 3)):
        x = x + block(f"dilated.{i}.1", block(f"dilated.{i}.0", x, step))
    x = gelu(block("last", x[:, :, crop : x.shape[2] - crop]))
    return torch.log1p(torch.exp(x.mT @ w["head.weight"].T + w["head.bias"]))


GELUS = {
    "erf": lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5)),
    "tanh": lambda x: 0.5 * x * (1 + torch.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "sigmoid": lambda x: x * torch.sigmoid(1.702 * x),
}


@pytest.mark.parametrize("gelu", GELUS)
def test_basenji2_is_the_one_written_anew(gelu):
    network, weights = basenji(gelu=gelu)
    rows = kit.ids((2, 128))
    found = graph.run_torch(network, rows)["tracks"]
    assert found.shape == (2, 12, 4)
    assert kit.worst(found, run_basenji(weights, kit.one_hot(rows, 0.0), GELUS[gelu])) < 1e-5


def test_trap_gelus_differ():
    rows = kit.ids((2, 128))
    outputs = {gelu: graph.run_torch(basenji(gelu=gelu)[0], rows)["tracks"] for gelu in GELUS}
    assert kit.worst(outputs["erf"], outputs["sigmoid"]) > 1e-3
    assert kit.worst(outputs["erf"], outputs["tanh"]) > 1e-5


def test_trap_dilations_round_half_to_even():
    """1.5 times 3 is 4.5, which numpy rounds to 4; 13.5 becomes 14."""
    assert basenji2.dilations(11) == (1, 2, 3, 4, 6, 9, 14, 21, 32, 48, 72)
    assert basenji2.Basenji2Config().dilations == basenji2.dilations(11)
    wide = [round(339 * 1.1776**i) for i in range(6)]
    assert basenji2.Basenji2Config().tower == tuple(wide)


def port_names(weights):
    """Our names as basenji2-pytorch has them."""
    parts = {"conv": "1", "norm": "2"}
    found = {}
    for name, value in weights.items():
        first, *rest = name.split(".")
        if first == "head":
            found[f"model.head.final.block.1.{rest[0]}"] = value
            continue
        place = {"stem": "0", "tower": "1.tower", "dilated": "2.block", "last": "4"}[first]
        if first == "dilated":
            place += f".{rest[0]}.module.{rest[1]}"
            rest = rest[2:]
        elif first == "tower":
            place += f".{rest[0]}"
            rest = rest[1:]
        found[f"model.trunk.{place}.block.{parts[rest[0]]}.{rest[1]}"] = value
    return found


def keras_names(weights, start=3):
    """Our weights as Keras stores them, layers numbered on from what a program made before."""
    layers = {"conv1d": [], "batch_normalization": [], "dense": []}
    parts = {"running_mean": "moving_mean", "running_var": "moving_variance"}
    found = {}
    for name, value in weights.items():
        layer, part = name.rsplit(".", 1)
        if part == "num_batches_tracked":
            continue
        kind = "dense" if layer == "head" else {"conv": "conv1d", "norm": "batch_normalization"}[
            layer.rsplit(".", 1)[-1]
        ]  # fmt: skip
        if layer not in layers[kind]:
            layers[kind].append(layer)
        number = layers[kind].index(layer) + (start if kind != "dense" else 0)
        made = f"{kind}_{number}" if number else kind
        norm = kind == "batch_normalization"
        part = parts.get(part) or {"weight": "gamma" if norm else "kernel",
                                   "bias": "beta" if norm else "bias"}[part]  # fmt: skip
        turned = value.permute(tuple(reversed(range(value.ndim)))).contiguous()
        found[f"model_weights/{made}/{made}/{part}:0" if start else f"{made}/{part}"] = turned
    return found


@pytest.mark.parametrize("start", [0, 3, 8])
def test_basenji2_from_both_kinds_of_file(start):
    """Layers of Keras are told by the order of their numbers: 9 comes before 10."""
    _, weights = basenji(dilations=list(basenji2.dilations(3)))
    rows = kit.ids((2, 1024))
    cases = ((PORT, port_names(weights), "erf"), (KERAS, keras_names(weights, start), "tanh"))
    for official, named, gelu in cases:
        source = kit.source_of(named, {"crop": 2})
        assert [x for x in EVERY if x.recognise(source)] == [official]
        predicted = official.load(source, 1024)
        found = graph.run_torch(predicted.networks[0], rows)["tracks"]
        wanted = run_basenji(weights, kit.one_hot(rows, 0.0), GELUS[gelu])
        assert found.shape == (2, 1024 // 8 - 4, 4)
        assert kit.worst(found, wanted) < 1e-5
        card = predicted.card
        assert (card["context"], card["bin_size"], card["crop"]) == (1024, 8, 2)
        assert gelu in card["provenance"]["limits"]
        with pytest.raises(InputError, match="multiple of 8 of more than the 4 bins"):
            official.load(source, 1023)
        with pytest.raises(InputError, match="more than the 4 bins"):
            official.load(source, 32)


def test_basenji2_full_size():
    """30,123,584 numbers, as the port counts, less 2 running ones a channel; 896 bins."""
    channels = 288 + 3182 + 11 * (384 + 768) + 1536
    with torch.device("meta"):
        network = basenji2.build({})
    assert sum(x.numel() for x in network.parameters()) == 30_123_584 - 2 * channels
    assert network.length // 128 - 2 * network.crop == 896
    network.select([5, 2])
    assert network.head.weight.shape == (2, 1536)


def test_basenji2_keras_that_is_another_network():
    _, weights = basenji()
    named = keras_names(weights)
    other = {**named, "layer_normalization/gamma:0": torch.ones(7)}
    assert not KERAS.recognise(kit.source_of(other))
    swapped = {**named, "model_weights/conv1d_12/conv1d_12/kernel:0": torch.zeros(3, 7, 9)}
    assert not KERAS.recognise(kit.source_of(swapped))
    with pytest.raises(InputError, match="found convolutions of 15, 5, 5, 3, 1, 3, 1, 3, 1, 3"):
        KERAS.load(kit.source_of(swapped), None)


def test_trap_paths_of_targets_stay_out(tmp_path):
    _, weights = basenji()
    head = "\tidentifier\tfile\tclip\tsum_stat\tdescription\n"
    lines = [f"{i}\tE{i}\t/home/a/{i}.bw\t32\tmean\tDNASE:cell {i}\n" for i in range(4)]
    (tmp_path / "targets_human.txt").write_text(head + "".join(lines))
    source = kit.source_of(port_names(weights), folder=tmp_path)
    tracks = PORT.load(source, None).tracks
    assert "/home" not in str(tracks)
    assert (tracks[2]["identifier"], tracks[2]["assay"]) == ("E2", "DNASE")
    assert tracks[2]["biosample"] == "cell 2"
    (tmp_path / "targets_human.txt").write_text(head + lines[0])
    with pytest.raises(InputError, match=r"targets_human\.txt: 1 tracks, head human has 4"):
        PORT.load(source, None)


def test_onnx_at_other_batch_sizes(tmp_path):
    networks = {name: loaded(CASES[name])[1].networks[0] for name in ("deepsea 2015", "sei")}
    networks["basenji2"] = basenji()[0]
    for name, network in networks.items():
        folder = tmp_path / name
        folder.mkdir()
        batches = [kit.ids((count, network.length), count) for count in (1, 2, 5)]
        assert kit.onnx_worst(network, folder, batches) < 1e-5, name
