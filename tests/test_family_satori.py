"""SATORI: the authors' keys, both forms, and windows that must not touch each other."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from classics_kit import filled, ids, numbers, onnx_worst, run_satori, satori, source_of, worst
from cli_kit import call
from engine import write_fasta

from glm_annotate.bundle import read_card
from glm_annotate.card import ModelCard
from glm_annotate.encoding import EncoderSpec
from glm_annotate.errors import InputError
from glm_annotate.testing import check_encoder
from glm_annotate.train import graph
from glm_annotate.train.families import satori as family
from glm_annotate.train.families.one_bin import recur

PUBLISHED, FIXED = family.FAMILY.official
SMALL = {"filters": 6, "taps": 5, "hidden": 4, "heads": 3, "wide": 2, "dim": 5, "classes": 3}
NO_LSTM = SMALL | {"hidden": 0}
TABLE = """use_CNN|True|#use CNN layer
CNN_poolsize|4|#CNN maxpool size
CNN_padding|2|#CNN padding
CNN1_useexponential|False|#
use_CNNpool|True|#
readout_strategy|normalize|#
"""


def loaded(sizes=SMALL, config=None, seed=1, folder=None, context=48):
    weights = filled(satori(**sizes), seed)
    weights["MultiHeadLinear.bias"] += 1.0  # features that are all 0 have no normal form
    source = source_of(weights, config, folder)
    (official,) = [x for x in family.FAMILY.official if x.recognise(source)]
    return weights, official, official.load(source, context)


def logits_of(network, rows):
    bases = torch.cat([torch.eye(4), torch.full((1, 4), network.unknown)])[rows.astype(int)]
    with torch.no_grad():
        return network.logits(bases)


def test_layout_is_the_authors():
    shapes = satori(classes=164)
    assert len(shapes) == 74  # as the specification counts the published CNN-RNN's state dict
    assert numbers(shapes) == 690_632  # and its parameters
    network = family.build({"compat": "published", "tracks": 164})
    assert {x: tuple(y.shape) for x, y in network.state_dict().items()} == shapes
    without = family.build({"hidden": 0})
    assert {x: tuple(y.shape) for x, y in without.state_dict().items()} == satori(hidden=0)


@pytest.mark.parametrize(("compat", "official"), [(None, PUBLISHED), ("fixed", FIXED)])
@pytest.mark.parametrize("sizes", [SMALL, NO_LSTM], ids=["lstm", "no lstm"])
def test_logits_and_maps_are_those_of_the_loops(compat, official, sizes):
    config = {"compat": compat} if compat else {}
    weights, found, predicted = loaded(sizes, config)
    assert found is official
    (network,) = predicted.networks
    rows = ids((3, 48))
    bases = torch.cat([torch.eye(4), torch.full((1, 4), 0.25)])[rows.astype(int)].transpose(1, 2)
    wanted = run_satori(weights, bases, alone=compat is None)
    for ours, theirs in zip(logits_of(network, rows), wanted, strict=True):
        assert worst(ours, theirs) < 1e-5
    tracks = graph.run_torch(network, rows)["tracks"]
    assert worst(tracks[:, 0], torch.sigmoid(wanted[0])) < 1e-6


def test_trap_windows_of_a_batch_do_not_touch_each_other():
    for config in ({}, {"compat": "fixed"}):
        (network,) = loaded(SMALL, config)[2].networks
        rows = ids((4, 48))
        together, _ = logits_of(network, rows)
        alone = torch.cat([logits_of(network, rows[i : i + 1])[0] for i in range(4)])
        assert worst(together, alone) < 1e-6


def test_trap_lstm_took_the_batch_for_the_time():
    """`published` is nn.LSTM without batch_first on one window: every row a sequence alone."""
    torch.manual_seed(0)
    theirs = torch.nn.LSTM(3, 4, num_layers=2, bidirectional=True)
    ours = torch.nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True)
    ours.load_state_dict(theirs.state_dict())
    rows = torch.randn(2, 7, 3)
    with torch.no_grad():
        wanted = torch.cat([theirs(rows[i : i + 1])[0] for i in range(2)])
        assert worst(recur(ours, rows, alone=True), wanted) < 1e-6
        over_the_window = theirs(rows.transpose(0, 1))[0].transpose(0, 1)
        assert worst(recur(ours, rows, alone=False), over_the_window) < 1e-6
        assert worst(recur(ours, rows, alone=False), wanted) > 1e-3


def test_trap_forms_agree_without_lstm_and_differ_with_one():
    for sizes, same in ((NO_LSTM, True), (SMALL, False)):
        rows = ids((2, 48))
        found = [
            logits_of(loaded(sizes, {"compat": compat})[2].networks[0], rows)[0]
            for compat in ("published", "fixed")
        ]
        assert (worst(*found) == 0) is same


def test_trap_readout_is_normalised_over_the_features_of_a_window():
    """With the last layer the identity, logits have mean 0 and unbiased variance 1."""
    (network,) = loaded(SMALL | {"classes": 5})[2].networks
    with torch.no_grad():
        network.fc3.weight.copy_(torch.eye(5))
        network.fc3.bias.zero_()
    logits, _ = logits_of(network, ids((3, 48)))
    assert torch.allclose(logits.mean(1), torch.zeros(3), atol=1e-6)
    assert torch.allclose(logits.square().sum(1) / 4, torch.ones(3), atol=1e-5)


def test_trap_features_that_are_all_zero():
    """The authors' code stops there; scores of that window are no numbers, training goes on."""
    for config, finite in (({}, False), ({"compat": "fixed"}, True)):
        (network,) = loaded(SMALL, config)[2].networks
        with torch.no_grad():
            network.MultiHeadLinear.bias.fill_(-1e3)
        logits, _ = logits_of(network, ids((2, 48)))
        assert bool(torch.isfinite(logits).all()) is finite
        if finite:
            assert torch.equal(logits, network.fc3.bias.detach().expand(2, 3))


def test_trap_unknown_base_is_the_mean_of_the_random_one():
    """The convolution of N is the mean over the four bases that the authors would draw from."""
    (network,) = loaded()[2].networks
    conv = network.layer1[0]
    rows = np.tile(ids((1, 48), unknown=0), (5, 1))
    rows[:, 20] = range(5)
    table = torch.cat([torch.eye(4), torch.full((1, 4), network.unknown)])
    with torch.no_grad():
        out = conv(table[rows.astype(int)].transpose(1, 2))
    assert torch.allclose(out[4], out[:4].mean(0), atol=1e-6)


def test_two_classes_exclude_each_other_and_cannot_be_selected_from():
    _, _, predicted = loaded(SMALL | {"classes": 2})
    (network,) = predicted.networks
    rows = ids((3, 48))
    tracks = graph.run_torch(network, rows)["tracks"]
    assert np.allclose(tracks.sum(2), 1, atol=1e-6)
    logits, _ = logits_of(network, rows)
    assert worst(tracks[:, 0], torch.softmax(logits, 1)) < 1e-6
    network.select([0, 1])
    with pytest.raises(InputError, match="exclude each other"):
        network.select([1])
    apart = loaded(SMALL | {"classes": 2}, {"exclusive": False})[2].networks[0]
    assert worst(graph.run_torch(apart, rows)["tracks"][:, 0], torch.sigmoid(logits)) < 1e-6


def test_select_keeps_tracks_in_order():
    (network,) = loaded()[2].networks
    rows = ids((2, 48))
    before = graph.run_torch(network, rows)["tracks"]
    network.select([2, 0])
    assert worst(graph.run_torch(network, rows)["tracks"], before[:, :, [2, 0]]) == 0
    assert network.fc3.weight.shape == (2, 5)


def test_card_and_tracks():
    _, _, predicted = loaded(SMALL, {"labels": ["a", "b", "c"]})
    card = predicted.card
    EncoderSpec.model_validate(card["encoder"])
    assert (card["context"], card["anchor"], card["bin_size"], card["crop"]) == (48, 23, 48, 0)
    assert card["encoder"]["vocab"]["order"] == "ACGT"
    assert "one by one" in card["provenance"]["limits"]
    assert [row["identifier"] for row in predicted.tracks] == ["a", "b", "c"]
    rest = {"name": "x", "tag": "SATORI", "objective": "tracks"}
    tensor = {"name": "rows", "axes": ["batch", "row"], "dtype": "uint8"}
    out = {"name": "tracks", "axes": list(predicted.networks[0].outputs["tracks"])}
    whole = {**card, **rest, "inputs": {"rows": tensor}, "outputs": {"tracks": out}}
    assert ModelCard.model_validate(whole).context == 48
    with pytest.raises(InputError, match="holds 2 names, the weights have 3 tracks"):
        loaded(SMALL, {"labels": ["a", "b"]})
    with pytest.raises(InputError, match="labels is no list"):
        loaded(SMALL, {"labels": [1, 2, 3]})


def test_table_of_hyper_parameters_is_read(tmp_path):
    (tmp_path / "CNN-RNN_hyperParams.txt").write_text(TABLE)
    weights, _, predicted = loaded(folder=tmp_path)
    rows = ids((2, 48), unknown=0)
    bases = torch.eye(4)[rows.astype(int)].transpose(1, 2)
    wanted, maps = run_satori(weights, bases, alone=True, pool=4)
    assert maps.shape[2:] == (12, 12)
    assert worst(logits_of(predicted.networks[0], rows)[0], wanted) < 1e-5
    changed = TABLE.replace("exponential|False", "exponential|True")
    (tmp_path / "CNN-RNN_hyperParams.txt").write_text(changed)
    wanted, _ = run_satori(weights, bases, alone=True, pool=4, exp=True)
    assert worst(logits_of(loaded(folder=tmp_path)[2].networks[0], rows)[0], wanted) < 1e-5
    changed = TABLE.replace("CNNpool|True", "CNNpool|False")
    (tmp_path / "CNN-RNN_hyperParams.txt").write_text(changed)
    assert logits_of(loaded(folder=tmp_path)[2].networks[0], rows)[1].shape[2:] == (48, 48)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("normalize", "none", "readout_strategy is none, only normalize can be read"),
        ("poolsize|4", "poolsize|many", "CNN_poolsize is many, wanted a number"),
        ("use_CNN|True", "use_CNN|False", "use_CNN is False, only True can be read"),
        ("poolsize|4", "poolsize|0", "pool"),
    ],
)
def test_contradicting_tables(old, new, message, tmp_path):
    (tmp_path / "a_hyperParams.txt").write_text(TABLE.replace(old, new))
    with pytest.raises(InputError, match=message):
        loaded(folder=tmp_path)


def test_two_tables_are_one_too_many(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}_hyperParams.txt").write_text(TABLE)
    with pytest.raises(InputError, match=r"a_hyperParams\.txt, b_hyperParams\.txt"):
        loaded(folder=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pe.pe": torch.zeros(1, 5000, 4)}, "keys that this system does not have: pe.pe"),
        ({"Q.1.weight": torch.zeros(3, 8)}, "Q.1.weight 3x8, wanted 2x8"),
        ({"fc3.weight": torch.zeros(3)}, "fc3.weight: found 3, wanted 2 axes"),
        ({"fc3.bias": torch.full((3,), torch.nan)}, "NaN or infinity in: fc3.bias"),
        ({"V.2.bias": None}, "no weights for: V.2.bias"),
    ],
)
def test_weights_that_contradict_the_system(change, message):
    weights = filled(satori(**SMALL)) | change
    weights = {name: value for name, value in weights.items() if value is not None}
    with pytest.raises(InputError, match=message):
        PUBLISHED.load(source_of(weights), 48)


def test_config_that_contradicts_the_system():
    weights = filled(satori(**SMALL))
    assert not any(
        x.recognise(source_of(weights, {"compat": "new"})) for x in family.FAMILY.official
    )
    assert not PUBLISHED.recognise(source_of({"fc3.weight": torch.zeros(2, 2)}))
    with pytest.raises(InputError, match="exclusive"):
        PUBLISHED.load(source_of(weights, {"exclusive": "maybe"}), 48)
    with pytest.raises(InputError, match=r"model\.pools"):
        family.build({"pools": 3})
    with pytest.raises(InputError, match="no row is left"):
        family.build({"length": 4})


def test_onnx_at_other_batch_sizes(tmp_path):
    """The LSTM's batch stays free; the form of the authors is exported by the parity tests."""
    (network,) = loaded(SMALL, {"compat": "fixed", "attention": True})[2].networks
    assert network.outputs["attention"] == ("batch", "layer", "head", "query", "key")
    batches = [ids((count, 48), count) for count in (1, 2, 5)]
    assert onnx_worst(network, tmp_path, batches) < 1e-5


@pytest.mark.parametrize("way", ["option", "config"])
def test_maps_are_a_second_output_of_the_bundle(tmp_path, way):
    """Asked for on the command line or in the config: the self-test holds them, scores do not."""
    weights, _, predicted = loaded()
    torch.save({"epoch": 3, "model_state_dict": weights}, tmp_path / "model.pt")
    asked = {"attention": True} if way == "config" else {}
    (tmp_path / "config.json").write_text(json.dumps({"length": 48, **asked}))
    bundle = tmp_path / "bundle"
    options = ["--attention"] if way == "option" else []
    assert call("export", tmp_path / "model.pt", "-o", bundle, *options) == 0
    assert call("models", "check", bundle) == 0
    card = read_card(bundle)
    assert list(card.outputs) == ["tracks", "attention"]
    assert card.outputs["attention"].axes == ("batch", "layer", "head", "query", "key")
    with np.load(bundle / "selftest.npz") as arrays:
        rows, maps = arrays["input_rows"], arrays["output_attention"]
    _, wanted = logits_of(predicted.networks[0], rows)
    assert maps.shape == (1, 1, *wanted.shape[1:])
    assert np.abs(maps[:, 0] - wanted.numpy()).max() < 1e-6
    assert np.allclose(maps.sum(-1), 1, atol=1e-5)
    # Rows ask, columns answer: not the transpose.
    assert np.abs(maps[:, 0] - wanted.numpy().swapaxes(-1, -2)).max() > 1e-4
    fasta = write_fasta(tmp_path / "g.fa", {"c": "ACGGTTACAG" * 20})
    out = tmp_path / "out.vcf"
    assert call("vcf", "c:95:T:C", "-f", fasta, "-m", bundle, "-o", out) == 0
    assert "SATORI_STATUS=SCORED" in out.read_text()


def test_encoder_keeps_its_promises():
    from glm_annotate.encoding import make_encoder

    card = loaded()[2].card
    check_encoder(make_encoder(EncoderSpec.model_validate(card["encoder"])))


def test_training_form_learns():
    """A step along the gradient lowers the loss; dropout off, so that it must."""
    network = family.build(
        {"length": 48, "filters": 6, "kernel": 5, "padding": 2, "hidden": 4, "heads": 2,
         "head_dim": 3, "dim": 5, "tracks": 3}
    ).eval()  # fmt: skip
    torch.manual_seed(0)
    bases = torch.eye(4)[torch.from_numpy(ids((8, 48), unknown=0)).long()]
    wanted = torch.rand(8, 3).round()
    loss = torch.nn.BCEWithLogitsLoss()
    first = loss(network.logits(bases)[0], wanted)
    first.backward()
    with torch.no_grad():
        for weight in network.parameters():
            weight -= 0.01 * weight.grad
        assert loss(network.logits(bases)[0], wanted) < first
