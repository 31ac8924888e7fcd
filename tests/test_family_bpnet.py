"""BPNet and ChromBPNet: bpnet-lite's and Keras' layouts, heads, controls and selections."""

from __future__ import annotations

import classics_kit as kit
import numpy as np
import pytest
import torch

from glm_annotate.card import ModelCard
from glm_annotate.errors import InputError
from glm_annotate.train import graph
from glm_annotate.train.families import bpnet as family

(BPNET,) = family.BPNET.official
BIASED, UNBIASED = family.CHROMBPNET.official
EVERY = (BPNET, BIASED, UNBIASED)
SMALL = {"filters": 6, "layers": 3, "kernel": 7, "profile": 9}
SHORT = {"filters": 5, "layers": 2, "kernel": 7, "profile": 9}
LENGTH = 200
CUT = 3 + 4 + 2 + 4 + 8  # reach of the first and last convolution and of the dilated ones


def filled(shapes):
    """Random weights whose heads give counts worth comparing."""
    weights = kit.filled(shapes)
    for prefix in ("", "bias.", "accessibility."):
        if f"{prefix}iconv.weight" in weights:
            weights = kit.tempered(weights, prefix, LENGTH, counts=2.0)
    return weights


def both_parts():
    return kit.bpnet(**SHORT, prefix="bias.") | kit.bpnet(**SMALL, prefix="accessibility.")


def read(weights, config=None, context=LENGTH):
    source = kit.source_of(weights, config)
    (official,) = [x for x in EVERY if x.recognise(source)]
    return official, official.load(source, context)


def tracks_of(predicted, rows):
    return graph.run_torch(predicted.networks[0], rows)["tracks"]


def shared_out(logits, counts):
    """One softmax over all strands, times the counts: (B, bins, strands)."""
    shares = torch.exp(logits - logits.amax((1, 2), keepdim=True))
    shares = shares / shares.sum((1, 2), keepdim=True)
    return (shares * torch.exp(counts)[:, :, None]).transpose(1, 2)


@pytest.mark.parametrize("outputs", [1, 2])
def test_bpnet_is_the_one_written_anew(outputs):
    weights = filled(kit.bpnet(**SMALL, outputs=outputs))
    official, predicted = read(weights)
    assert official is BPNET
    rows = kit.ids((3, LENGTH))
    wanted = shared_out(*kit.run_bpnet(weights, kit.one_hot(rows, 0.0)))
    assert wanted.shape == (3, LENGTH - 2 * CUT, outputs)
    assert kit.worst(tracks_of(predicted, rows), wanted) < 1e-5
    assert kit.worst(tracks_of(predicted, rows[:1]), wanted[:1]) < 1e-5


def test_trap_edges_are_cut_where_zeros_past_them_reach():
    """2,114 bases give 1,000, as published; the oracle above pads nothing and agrees."""
    assert family.BpnetConfig().cut == 557
    assert family.BpnetConfig().length - 2 * 557 == 1000
    assert family.BpnetConfig(layers=4).cut == 77


def test_published_sizes():
    """64 filters and 8 layers; the accessibility network has 512."""
    assert kit.numbers(kit.bpnet()) == 5440 + 8 * (64 * 64 * 3 + 64) + 64 * 75 + 1 + 65
    assert {
        x: tuple(y.shape) for x, y in family.build_bpnet({}).state_dict().items()
    } == kit.bpnet()
    shapes = kit.bpnet(128, 4, prefix="bias.") | kit.bpnet(512, 8, prefix="accessibility.")
    network = family.build_chrombpnet({})
    assert {x: tuple(y.shape) for x, y in network.state_dict().items()} == shapes


def test_trap_one_softmax_over_both_strands_and_a_selection_keeps_it():
    weights = filled(kit.bpnet(**SMALL, outputs=2))
    _, predicted = read(weights)
    (network,) = predicted.networks
    rows = kit.ids((2, LENGTH))
    both = tracks_of(predicted, rows)
    _, counts = kit.run_bpnet(weights, kit.one_hot(rows, 0.0))
    assert np.allclose(both.sum((1, 2)), torch.exp(counts)[:, 0], rtol=1e-5)
    network.select([1])
    assert kit.worst(tracks_of(predicted, rows), both[:, :, 1:]) == 0
    network.select([0])
    assert kit.worst(tracks_of(predicted, rows), both[:, :, 1:]) == 0
    first, second = predicted.tracks
    assert (first["identifier"], first["strand_pair"]) == ("plus", "minus")
    assert (second["identifier"], second["strand_pair"]) == ("minus", "plus")


def test_trap_counts_are_the_mean_over_what_the_profile_sees():
    """With a first layer that copies A and a head that copies it, counts are exp of A's share."""
    shapes = kit.bpnet(filters=1, layers=0, kernel=1, profile=5)
    weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
    weights["iconv.weight"][0, 0, 0] = 1.0
    weights["linear.weight"][0, 0] = 2.0
    _, predicted = read(weights, {"trimming": 4}, 20)
    rows = np.full((1, 20), 1, dtype=np.uint8)
    rows[0, [0, 1, 2, 7, 18]] = 0  # 2 .. 17 count
    found = tracks_of(predicted, rows)
    assert found.shape == (1, 12, 1)
    assert np.allclose(found, np.exp(2 * 2 / 16) / 12)


@pytest.mark.parametrize("controls", [1, 2])
def test_trap_control_tracks_are_zero_and_leave_with_their_weights(controls):
    weights = filled(kit.bpnet(**SMALL, outputs=2, controls=controls))
    official, predicted = read(weights)
    assert official is BPNET
    assert f"{controls} control tracks" in predicted.card["provenance"]["limits"]
    rows = kit.ids((2, LENGTH))
    # The authors' network with zeros for controls, log(0 + 1) = 0 for their counts.
    cut = dict(weights)
    cut["fconv.weight"] = (
        weights["fconv.weight"] * torch.tensor([1.0] * 6 + [0.0] * controls)[:, None]
    )
    cut["fconv.weight"] = cut["fconv.weight"][:, :6]
    cut["linear.weight"] = weights["linear.weight"][:, :6]
    wanted = shared_out(*kit.run_bpnet(cut, kit.one_hot(rows, 0.0)))
    assert kit.worst(tracks_of(predicted, rows), wanted) < 1e-5


def run_chrombpnet(weights, x):
    logits, counts = kit.run_bpnet(weights, x, "accessibility.")
    skewed, more = kit.run_bpnet(weights, x, "bias.")
    spare = (skewed.shape[2] - logits.shape[2]) // 2
    total = torch.logsumexp(torch.stack([counts, more]), dim=0)
    return shared_out(logits + skewed[:, :, spare : skewed.shape[2] - spare], total)


def test_chrombpnet_adds_logits_and_counts():
    """The bias network's profile is longer: it is cut to the middle."""
    weights = filled(both_parts())
    official, predicted = read(weights)
    assert official is BIASED
    rows = kit.ids((2, LENGTH))
    wanted = run_chrombpnet(weights, kit.one_hot(rows, 0.0))
    assert wanted.shape == (2, LENGTH - 2 * CUT, 1)
    assert kit.worst(tracks_of(predicted, rows), wanted) < 1e-5
    predicted.networks[0].select([0])
    assert kit.worst(tracks_of(predicted, rows), wanted) < 1e-5


def keras_names(weights, prefix, model="", short=False):
    """bpnet-lite's names of one part as chrombpnet's Keras models have them."""
    names = {"iconv": "bpnet_1st_conv"}
    last = "bpnet_" if prefix else ""
    names |= {"fconv": f"{last}prof_out_precrop", "linear": f"{last}logcount_predictions"}
    names |= {f"rconvs.{i}": f"bpnet_{i + 1}conv" for i in range(20)}
    found = {}
    for name, value in weights.items():
        layer, part = name.rsplit(".", 1)
        layer = prefix + names[layer]
        part = {"weight": "kernel", "bias": "bias"}[part]
        turned = value.permute(tuple(reversed(range(value.ndim)))).contiguous()
        outer = f"{model}/{layer}" if model else layer
        found[
            f"{outer}/{part}" if short else f"model_weights/{model or layer}/{layer}/{part}:0"
        ] = turned
    return found


@pytest.mark.parametrize("short", [False, True], ids=["h5 path", "short name"])
def test_trap_keras_kernels_are_turned(short):
    many = SMALL | {"layers": 3}
    weights = filled(kit.bpnet(**many))
    rows = kit.ids((2, LENGTH))
    wanted = shared_out(*kit.run_bpnet(weights, kit.one_hot(rows, 0.0)))
    for prefix, expected in (("", BPNET), ("wo_bias_", UNBIASED)):
        official, predicted = read(keras_names(weights, prefix, short=short))
        assert official is expected
        assert kit.worst(tracks_of(predicted, rows), wanted) < 1e-5


@pytest.mark.parametrize("short", [False, True], ids=["h5 path", "short name"])
def test_keras_model_with_both_parts(short):
    weights = filled(both_parts())
    parts = {
        part: {x.removeprefix(part): y for x, y in weights.items() if x.startswith(part)}
        for part in ("bias.", "accessibility.")
    }
    named = keras_names(parts["bias."], "", "model", short)
    named |= keras_names(parts["accessibility."], "wo_bias_", "model_wo_bias", short)
    official, predicted = read(named)
    assert official is BIASED
    rows = kit.ids((2, LENGTH))
    assert (
        kit.worst(tracks_of(predicted, rows), run_chrombpnet(weights, kit.one_hot(rows, 0.0)))
        < 1e-5
    )


def test_biases_may_be_missing():
    weights = filled(kit.bpnet(**SMALL))
    del weights["fconv.bias"], weights["linear.bias"]
    _, predicted = read(weights)
    zeros = {**weights, "fconv.bias": torch.zeros(1), "linear.bias": torch.zeros(1)}
    rows = kit.ids((2, LENGTH))
    wanted = shared_out(*kit.run_bpnet(zeros, kit.one_hot(rows, 0.0)))
    assert kit.worst(tracks_of(predicted, rows), wanted) < 1e-5


def test_card():
    for weights, tag in (
        (filled(kit.bpnet(**SMALL)), "BPNET"),
        (filled(both_parts()), "CHROMBPNET"),
    ):
        official, predicted = read(weights, {"labels": ["K562"]})
        card = predicted.card
        assert (card["context"], card["anchor"], card["bin_size"], card["crop"]) == (
            200,
            99,
            1,
            CUT,
        )
        assert official.tag == tag
        assert [row["identifier"] for row in predicted.tracks] == ["K562"]
        inputs = {"rows": {"name": "rows", "axes": ["batch", "row"], "dtype": "uint8"}}
        outputs = {"tracks": {"name": "tracks", "axes": ["batch", "bin", "track"]}}
        whole = {**card, "name": "x", "tag": tag, "objective": "tracks"}
        ModelCard.model_validate({**whole, "inputs": inputs, "outputs": outputs})
    _, predicted = read(filled(kit.bpnet(**SMALL, outputs=2)), {"labels": ["a+", "a-"]})
    assert [row["strand_pair"] for row in predicted.tracks] == ["a-", "a+"]


@pytest.mark.parametrize(
    ("change", "context", "message"),
    [
        ({"alpha.weight": torch.zeros(1)}, LENGTH, "does not have: alpha.weight"),
        ({"rconvs.1.weight": torch.zeros(6, 6, 5)}, LENGTH, "rconvs.1.weight 6x6x5, wanted 6x6x3"),
        ({"fconv.weight": torch.zeros(1, 8, 9)}, LENGTH, "fconv.weight 1x8x9, wanted 1x6x9"),
        ({"iconv.weight": torch.zeros(6)}, LENGTH, "iconv.weight: found 6, wanted 3 axes"),
        ({"iconv.weight": torch.zeros(6, 4, 8)}, LENGTH, "kernels must be odd"),
        ({}, 42, "more than twice 21, the edges"),
    ],
)
def test_weights_that_contradict_the_system(change, context, message):
    weights = filled(kit.bpnet(**SMALL)) | change
    with pytest.raises(InputError, match=message):
        BPNET.load(kit.source_of(weights), context)


def test_parts_of_different_models():
    deep = kit.bpnet(**SHORT | {"layers": 4}, prefix="bias.")
    with pytest.raises(InputError, match="cuts 37 bases, the other 1 and 21"):
        BIASED.load(kit.source_of(filled(both_parts() | deep)), LENGTH)
    weights = filled(both_parts()) | {"more": torch.zeros(1)}
    with pytest.raises(InputError, match="does not have: more"):
        BIASED.load(kit.source_of(weights), LENGTH)
    with pytest.raises(InputError, match="bias_layers: found 3, allowed are 0 to 2"):
        family.build_chrombpnet({"bias_layers": 3, "layers": 2})


def test_nothing_else_is_recognised():
    for weights in ({}, {"iconv.weight": torch.zeros(2)}, {"conv1d/kernel": torch.zeros(2)}):
        assert not any(official.recognise(kit.source_of(weights)) for official in EVERY)


def test_onnx_at_other_batch_sizes(tmp_path):
    for number, shapes in enumerate((kit.bpnet(**SMALL, outputs=2), both_parts())):
        _, predicted = read(filled(shapes))
        (network,) = predicted.networks
        if not number:
            network.select([1])
        folder = tmp_path / str(number)
        folder.mkdir()
        batches = [kit.ids((count, LENGTH), count) for count in (1, 2, 5)]
        assert kit.onnx_worst(network, folder, batches) < 1e-5
