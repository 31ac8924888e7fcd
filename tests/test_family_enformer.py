"""Enformer's network and the layout of its checkpoints, without the public implementation."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from parity_kit import CUDA_OPERATORS, randomise

from glm_annotate.errors import InputError
from glm_annotate.train import graph
from glm_annotate.train.families.borzoi_blocks import RelativeAttention, shift
from glm_annotate.train.families.enformer import CONTEXT, FAMILY, recognise
from glm_annotate.train.families.enformer_blocks import (
    AttentionPool,
    Enformer,
    EnformerConfig,
    gammas,
    gelu,
    positions,
)
from glm_annotate.train.families.family import Source

SMALL = {
    "tokens": 12, "stem": 6, "stem_kernel": 15, "tower": (8, 12), "kernel": 5, "layers": 2,
    "heads": 2, "key": 4, "features": 12, "gamma": "feature", "crop": 2, "last": 10, "tracks": 5,
}  # fmt: skip
LOAD = FAMILY.official[0].load
CONFIG = {"use_tf_gamma": False, "target_length": 8}


def small(**values) -> Enformer:
    network = Enformer(EnformerConfig(**SMALL | values))
    return randomise(network, seed=1)


def official_names(network: Enformer, head: str = "human") -> dict[str, torch.Tensor]:
    """Names as enformer-pytorch gives them, written out by hand, each of its two copies."""
    out = {}
    state = network.state_dict()

    def norm(old: str, new: str) -> None:
        parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        out.update({f"{old}.{part}": state[f"{new}.{part}"] for part in parts})

    def layer(old: str, new: str, parts=("weight", "bias")) -> None:
        out.update({f"{old}.{part}": state[f"{new}.{part}"] for part in parts})

    def step(old: str, new: str) -> None:
        norm(f"{old}.1.fn.0", f"{new}.mix.norm")
        layer(f"{old}.1.fn.2", f"{new}.mix.conv")
        out[f"{old}.2.to_attn_logits.weight"] = state[f"{new}.pool.score.weight"][..., None]

    layer("stem.0", "stem.first")
    step("stem", "stem")
    for i in range(len(network.tower)):
        norm(f"conv_tower.{i}.0.0", f"tower.{i}.first.norm")
        layer(f"conv_tower.{i}.0.2", f"tower.{i}.first.conv")
        step(f"conv_tower.{i}", f"tower.{i}")
    for i in range(len(network.transformer)):
        here, ours = f"transformer.{i}", f"transformer.{i}"
        layer(f"{here}.0.fn.0", f"{ours}.norm_attention")
        layer(f"{here}.0.fn.1.to_out", f"{ours}.attention.to_out")
        for part in ("to_q", "to_k", "to_v", "to_rel_k"):
            layer(f"{here}.0.fn.1.{part}", f"{ours}.attention.{part}", ("weight",))
        for part in ("rel_content_bias", "rel_pos_bias"):
            out[f"{here}.0.fn.1.{part}"] = state[f"{ours}.attention.{part}"]
        layer(f"{here}.1.fn.0", f"{ours}.norm_mlp")
        layer(f"{here}.1.fn.1", f"{ours}.widen")
        layer(f"{here}.1.fn.4", f"{ours}.narrow")
    norm("final_pointwise.1.0", "last.norm")
    layer("final_pointwise.1.2", "last.conv")
    for number, name in (
        (1, "stem"),
        (2, "conv_tower"),
        (4, "transformer"),
        (6, "final_pointwise"),
    ):
        copies = {k: v for k, v in out.items() if k.startswith(f"{name}.")}
        out.update({k.replace(name, f"_trunk.{number}", 1): v for k, v in copies.items()})
    layer(f"_heads.{head}.0", "head")
    return out


def source_of(network: Enformer, **config) -> Source:
    weights = official_names(network)
    weights |= {"_heads.mouse.0.weight": torch.ones(3, 10), "_heads.mouse.0.bias": torch.zeros(3)}
    return Source("enformer", weights, {**CONFIG, **config})


def rows_of(batch: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(5, size=(batch, length)).astype(np.uint8)


def tracks(network, rows: np.ndarray) -> np.ndarray:
    return graph.run_torch(network, rows)["tracks"]


def test_trap_gelu_has_the_sigmoid_form():
    assert float(gelu(torch.tensor(1.0))) == pytest.approx(1 / (1 + math.exp(-1.702)), abs=1e-7)
    assert abs(float(gelu(torch.tensor(1.0))) - 0.8413447) > 4e-3  # the exact form


def test_trap_gammas_are_divided_by_their_largest_over_positions():
    table = gammas(1536, 32, "official")
    formula = gammas(1536, 32, "position")
    assert table.shape == (1536, 32)
    assert float((table - formula).abs().max()) < 2.6e-3
    assert float((table - gammas(1536, 32, "feature")).abs().max()) > 0.9
    # The published source divides by the largest of all.
    place, mean = torch.arange(1536.0, dtype=torch.float64)[:, None], torch.linspace(48, 1536, 32)
    law = torch.distributions.Gamma((mean.double() / 24) ** 2, mean.double() / 576)
    density = law.log_prob(place.clamp(min=1e-300)).exp() + 1e-8
    assert float((density / density.amax(0) - formula).abs().max()) < 1e-6
    assert float((density / density.max() - table).abs().max()) > 0.1


def test_positions_by_hand():
    table = positions(4, 12, "position")
    assert table.shape == (7, 12)
    far = table[6]  # distance 3
    # Half-lives 8 and 4 (log2 of the tokens), widths 1 and 3, both strictly beyond what they tell.
    assert far[:2].tolist() == pytest.approx([2 ** (-3 / 8), 2 ** (-3 / 4)])
    assert table[:, 2].tolist() == [0, 0, 0, 1, 0, 0, 0]
    assert table[:, 3].tolist() == [0, 1, 1, 1, 1, 1, 0]
    assert torch.equal(table[:, :6], table.flip(0)[:, :6])
    assert torch.equal(table[4:, 6:], table[4:, :6])
    assert torch.equal(table[:3, 6:], -table[:3, :6])
    assert not table[3, 6:].any()


def test_a_shorter_window_has_the_middle_of_the_official_table():
    whole, part = positions(1536, 192, "official"), positions(100, 192, "official")
    assert torch.equal(whole[1436:1635], part)
    with pytest.raises(ValueError, match="at most 1536"):
        EnformerConfig(tokens=1537, gamma="official")


def test_trap_logits_are_shifted_to_the_distance_of_column_and_row():
    logits = torch.arange(2 * 3 * 4 * 7.0).reshape(2, 3, 4, 7)
    found = shift(logits)
    assert found.shape == (2, 3, 4, 4)
    for i in range(4):
        for j in range(4):
            assert torch.equal(found[:, :, i, j], logits[:, :, i, 3 + j - i])


@torch.no_grad()
def test_trap_biases_are_added_to_scaled_queries():
    layer = randomise(RelativeAttention(6, 2, 4, 5), seed=3)
    x, features = torch.randn(2, 7, 6), torch.randn(13, 5)
    query, key, value, away = (
        part.reshape(*part.shape[:-1], 2, -1)
        for part in (layer.to_q(x) / 2, layer.to_k(x), layer.to_v(x), layer.to_rel_k(features))
    )
    content, place = (part[0, :, 0] for part in (layer.rel_content_bias, layer.rel_pos_bias))
    out = torch.zeros(2, 7, 2, 3)
    for b in range(2):
        for h in range(2):
            for i in range(7):
                scores = torch.stack(
                    [
                        (query[b, i, h] + content[h]) @ key[b, j, h]
                        + (query[b, i, h] + place[h]) @ away[6 + j - i, h]
                        for j in range(7)
                    ]
                )
                out[b, i, h] = scores.softmax(0) @ value[b, :, h]
    assert torch.allclose(layer(x, features), layer.to_out(out.flatten(2)), atol=1e-5)


@torch.no_grad()
def test_trap_pooling_is_a_softmax_over_the_pair_in_each_channel():
    pool = randomise(AttentionPool(3), seed=2)
    x = torch.randn(2, 3, 8)
    pairs = x.reshape(2, 3, 4, 2)
    scores = torch.einsum("oi,binp->bonp", pool.score.weight[..., 0], pairs)
    assert torch.allclose(pool(x), (pairs * scores.softmax(-1)).sum(-1), atol=1e-6)


def test_outputs_are_cropped_and_activated():
    network = small()
    assert (network.length, network.multiple_of) == (96, 8)
    rows = rows_of(2, 96)
    found = tracks(network, rows)
    assert found.shape == (2, 8, 5)
    assert found.min() > 0
    whole = tracks(small(crop=0), rows)
    assert np.allclose(found, whole[:, 2:-2], atol=1e-5)


def test_trap_n_is_zeros():
    network = small()
    rows = rows_of(1, 96)
    one_hot = torch.zeros(1, 96, 4)
    for i, base in enumerate(rows[0]):
        if base < 4:
            one_hot[0, i, int(base)] = 1
    with torch.no_grad():
        assert np.allclose(tracks(network, rows), network(one_hot)[0].numpy())
    assert network.unknown == 0


def test_select_keeps_tracks_in_the_order_given():
    network = small()
    rows = rows_of(2, 96)
    whole = tracks(network, rows)
    network.select([3, 0, 3])
    assert np.allclose(tracks(network, rows), whole[..., [3, 0, 3]], atol=1e-6)
    assert network.head.weight.shape == (3, 10)


def test_onnx_at_other_batch_sizes(tmp_path):
    network, path = small(), tmp_path / "model.onnx"
    graph.write_graph(network, path, "fp32")
    batches = [rows_of(batch, 96, batch) for batch in (1, 2, 5)]
    for rows, found in zip(batches, graph.run_graph(path, batches), strict=True):
        wanted = tracks(network, rows)
        assert np.abs(found["tracks"] - wanted).max() < 1e-5 * max(1, wanted.max())
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert operators <= CUDA_OPERATORS | {"BatchNormalization", "MaxPool"}


@pytest.mark.parametrize("copies", ["both", "by name", "by number"])
def test_trap_modules_are_registered_twice(copies):
    network = small()
    source = source_of(network)
    dropped = {"both": "-", "by name": "_trunk.", "by number": "stem conv_ trans final"}[copies]
    kept = {k: v for k, v in source.weights.items() if not k.startswith(tuple(dropped.split()))}
    source = replace(source, weights=kept)
    assert recognise(source)
    rows = rows_of(2, 96)
    loaded = LOAD(source, 96)
    assert np.array_equal(tracks(loaded.networks[0], rows), tracks(network, rows))


def test_copies_that_differ_are_refused():
    source = source_of(small())
    weights = dict(source.weights)
    weights["_trunk.1.0.bias"] = weights["_trunk.1.0.bias"] + 1
    with pytest.raises(InputError, match=r"stem\.0\.bias differ"):
        LOAD(replace(source, weights=weights), 96)


def test_heads():
    source = source_of(small())
    human, mouse = LOAD(source, 96), LOAD(replace(source, config={**CONFIG, "head": "mouse"}), 96)
    assert human.networks[0].head.weight.shape == (5, 10)
    assert mouse.networks[0].head.weight.shape == (3, 10)
    assert human.card["provenance"]["species"] == "Homo sapiens"
    assert mouse.card["provenance"]["assembly"] == "mm10"
    with pytest.raises(InputError, match="no head 'rat', found human, mouse"):
        LOAD(replace(source, config={**CONFIG, "head": "rat"}), 96)


@pytest.mark.parametrize(
    ("config", "repository", "gamma"),
    [
        ({}, "", "official"),
        ({"use_tf_gamma": True}, "", "official"),
        ({"use_tf_gamma": False}, "", "feature"),
        ({"use_tf_gamma": False}, "EleutherAI/enformer-official-rough@0a1b", "official"),
    ],
)
def test_trap_the_official_checkpoint_does_not_say_which_positions_it_has(
    config, repository, gamma
):
    network = small(features=192, tokens=1536, crop=320, layers=1)
    source = source_of(network)
    source = replace(source, config=config, repository=repository)
    loaded = LOAD(source, None)
    assert loaded.networks[0].config.gamma == gamma
    assert ("limits" in loaded.card["provenance"]) == (gamma == "feature")


def test_card():
    card = LOAD(source_of(small()), 96).card
    assert (card["context"], card["anchor"], card["bin_size"], card["crop"]) == (96, 47, 8, 2)
    assert card["encoder"]["vocab"] == {"order": "ACGT", "first_id": 0, "single_ids": {"N": 4}}


def test_targets_are_not_untransformed(tmp_path):
    head = "index\tgenome\tidentifier\tfile\tclip\tscale\tsum_stat\tdescription\n"
    lines = [f"{i}\t0\tT{i}\t/home/x/{i}.w5\t32\t2\tmean\tDNASE:cell {i}\n" for i in range(5)]
    (tmp_path / "targets_human.txt").write_text(head + "".join(lines))
    source = replace(source_of(small()), folder=tmp_path)
    rows = LOAD(source, 96).tracks
    assert rows[4] == {
        "identifier": "T4", "description": "DNASE:cell 4", "assay": "DNASE",
        "biosample": "cell 4", "transform": "none:mean", "scale": "2.0",
    }  # fmt: skip
    # There is no table of the mouse head.
    assert LOAD(replace(source, config={**CONFIG, "head": "mouse"}), 96).tracks == ()


def test_trap_the_base_left_of_the_middle_is_in_bin_447():
    config = EnformerConfig()
    assert config.tokens * config.token == CONTEXT == 196_608
    # Formula of the bins: (index - cropped bases) // 128, of 896.
    assert (CONTEXT // 2 - 1 - config.crop * config.token) // config.token == 447
    assert (CONTEXT // 2 - config.crop * config.token) // config.token == 448


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("stem.1.fn.2.bias"), None),  # its copy is there
        (lambda w: w.update({"extra.weight": torch.ones(2)}), "does not have: extra.weight"),
        (lambda w: w.update({"final_pointwise.1.0.bias": torch.ones(2)}), "differ"),
    ],
)
def test_keys_are_accounted_for(change, message):
    source = source_of(small())
    weights = dict(source.weights)
    change(weights)
    source = replace(source, weights=weights)
    if message is None:
        LOAD(source, 96)
        return
    with pytest.raises(InputError, match=message):
        LOAD(source, 96)


@pytest.mark.parametrize(
    ("config", "context", "message"),
    [
        ({"target_length": 14}, 96, "fewer than the 14"),
        ({"target_length": 7}, 96, "target_length is 7"),
        ({"use_tf_gamma": "no"}, 96, "use_tf_gamma is 'no'"),
        ({}, 97, "multiple of 8"),
        ({"use_tf_gamma": True}, 96, "192 features"),
    ],
)
def test_contradictions(config, context, message):
    with pytest.raises(InputError, match=message):
        LOAD(source_of(small(), **config), context)


def test_recognise_leaves_others_alone():
    assert not recognise(Source("x", {}))
    assert not recognise(Source("x", {"stem.0.weight": torch.ones(1)}))


def test_the_keys_and_sizes_of_the_published_checkpoint(shared_dir):
    text = (shared_dir / "models" / "golden" / "enformer_keys.json").read_text()
    shapes = {name: tuple(shape) for name, shape in json.loads(text).items()}
    with torch.device("meta"):
        network = Enformer(EnformerConfig())
        weights = official_names(network)
        heads = {"human": 5313, "mouse": 1643}
        for head, count in heads.items():
            weights[f"_heads.{head}.0.weight"] = torch.empty(count, 3072)
            weights[f"_heads.{head}.0.bias"] = torch.empty(count)
    assert {name: tuple(value.shape) for name, value in weights.items()} == shapes
    assert len(shapes) == 570
    ours = sum(value.numel() for value in network.parameters())
    assert ours + 1643 * 3073 == 251_221_292
