"""HyenaDNA without its public implementation: arithmetic by hand, keys, configs, traps."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from glm_annotate.encoding import EncoderSpec, make_encoder
from glm_annotate.errors import InputError
from glm_annotate.genome import to_codes
from glm_annotate.testing import check_encoder
from glm_annotate.train import graph
from glm_annotate.train.families.family import Source
from glm_annotate.train.families.hyenadna import FAMILY, ImplicitFilter, build, is_trunk

MODEL = {"dim": 12, "layers": 2, "hidden": 20, "max_rows": 202, "filter_width": 8}
CONFIG = {
    "d_model": 12,
    "d_inner": 20,
    "n_layer": 2,
    "max_seq_len": 202,
    "filter_order": 8,
    "emb_dim": 5,
    "num_inner_mlps": 2,
    "hyena_order": 2,
    "vocab_size": 12,
    "layer_norm_epsilon": 1e-5,
    "model_type": "hyenadna",
    "tie_word_embeddings": False,
}
FREQ = "backbone.layers.{}.mixer.filter_fn.implicit_filter.{}.freq"
WORDS = "backbone.embeddings.word_embeddings.weight"
HF, LIGHTNING = FAMILY.official


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def fresh(seed: int = 0, **changes: int):
    torch.manual_seed(seed)
    network = build({**MODEL, **changes})
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return network.eval()


def hf(network=None, **changes: object) -> Source:
    weights = (network or fresh()).state_dict()
    named = {k if k == "lm_head.weight" else f"hyena.{k}": v for k, v in weights.items()}
    return Source("hyena", named, {**CONFIG, **changes})


def lightning(network=None, *, infix: str = "") -> Source:
    weights = (network or fresh()).state_dict()
    for part in ("mixer", "mlp"):
        weights = {k.replace(f".{part}.", f".{part}.{infix}"): v for k, v in weights.items()}
    weights = {f"model.{k}": v for k, v in weights.items()}
    weights["train_torchmetrics.num_tokens.count"] = torch.tensor(5)
    return Source("weights.ckpt", weights)


def changed(source: Source, **weights: torch.Tensor | None) -> Source:
    """Replace weights; None removes one. `__` stands for a point."""
    values = dict(source.weights)
    for name, value in weights.items():
        values.pop(name.replace("__", "."), None)
        if value is not None:
            values[name.replace("__", ".")] = value
    return dataclasses.replace(source, weights=values)


def ids(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(16, shape, generator=torch.Generator().manual_seed(seed))


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * max(1, float(wanted.abs().max())))


# The tokenizer


def make_spec() -> EncoderSpec:
    return EncoderSpec.model_validate(HF.load(hf(), None).card["encoder"])


def test_trap_ids_and_lower_case_is_not_unknown():
    encoder = make_encoder(make_spec())
    check_encoder(encoder)
    (found,) = encoder.encode(to_codes("ACGTNA")[None])
    # [CLS] 0 [SEP] 1 [BOS] 2 [MASK] 3 [PAD] 4 [RESERVED] 5 [UNK] 6 A 7 C 8 G 9 T 10 N 11
    assert found.rows.tolist() == [[7, 8, 9, 10, 11, 7]]
    (soft,) = encoder.encode(to_codes("acgtnR")[None])
    assert soft.rows.tolist() == [[7, 8, 9, 10, 11, 11]]
    vocab = make_spec().vocab
    assert (vocab.mask_id, vocab.pad_id, vocab.unk_id) == (3, 4, 6)


def test_trap_no_special_tokens():
    # The authors' two tokenizers append [SEP], one also prepends [CLS]; neither is scored with.
    encoder = make_encoder(make_spec())
    (found,) = encoder.encode(to_codes("TTGAC")[None])
    assert found.rows.shape == (1, 5)
    assert found.spans.tolist() == [[[i, i + 1] for i in range(5)]]


def test_trap_nothing_is_padded():
    """The authors pad on the left, and nothing masks it: windows of a batch have equal rows."""
    codes = np.stack([to_codes(text) for text in ("ACGTACGTA", "ACNTACGNA", "NNNNNNNNN")])
    (group,) = make_encoder(make_spec()).encode(codes)
    assert group.rows.shape == (3, 9)
    assert "window" not in HF.load(hf(), None).card


def test_trap_the_vocabulary_is_padded_to_sixteen():
    network = HF.load(hf(), None).network
    assert network.vocabulary == 16
    assert network(ids(1, 4)).shape == (1, 4, 16)


# The card


@pytest.mark.parametrize(("context", "wanted"), [(None, 200), (202, 202), (77, 77)])
def test_the_window(context, wanted):
    loaded = HF.load(hf(), context)
    card = loaded.card
    assert (card["context"], card["anchor"]) == (wanted, wanted // 2)
    assert card["logits_shift"] == 1
    assert loaded.network.max_rows == wanted
    assert loaded.network(ids(1, wanted)).shape == (1, wanted, 16)


def test_the_default_window_is_affordable():
    assert HF.load(hf(fresh(max_rows=9000), max_seq_len=9000), None).card["context"] == 8192


def test_trap_no_window_beyond_the_filters():
    with pytest.raises(InputError, match=r"--context 203: allowed are 1 to 202 bases"):
        HF.load(hf(), 203)


def test_what_it_was_trained_on_is_said_of_the_authors_files_alone():
    assert "provenance" not in HF.load(hf(), None).card
    source = dataclasses.replace(hf(), repository="LongSafari/hyenadna-tiny-1k-seqlen-hf@abc")
    assert HF.load(source, None).card["provenance"]["assembly"] == "hg38"


# Arithmetic


def taps_by_hand(part: ImplicitFilter, rows: int) -> np.ndarray:
    """The taps (D, rows) from the stored tensors, in float64 and with loops over layers."""
    value = {name: tensor.double().numpy() for name, tensor in part.state_dict().items()}
    x = value["pos_emb.z"][0, :rows]
    for layer in (0, 2, 4):
        x = x @ value[f"implicit_filter.{layer}.weight"].T + value[f"implicit_filter.{layer}.bias"]
        x = np.sin(value["implicit_filter.1.freq"] * x)
    x = x @ value["implicit_filter.6.weight"].T
    decay = np.exp(-value["pos_emb.t"][0, :rows] * np.abs(value["modulation.deltas"][0]))
    return (x * (decay + 0.05)).T


def test_trap_taps_of_a_window_are_the_first_of_the_longest():
    # 33 of 202: times and waves made anew for 33 positions would be others.
    part = fresh().backbone.layers[1].mixer.filter_fn
    np.testing.assert_allclose(part.taps(33).detach().numpy(), taps_by_hand(part, 33), atol=2e-5)


def test_positions_and_decay_by_hand():
    part = build({**MODEL, "max_rows": 101, "features": 7}).backbone.layers[0].mixer.filter_fn
    z, turn = part.pos_emb.z[0], 2 * math.pi * 25 / 101
    frequencies = (1e-4, 1.00005, 2.0)  # evenly from 1e-4 to bands - 1
    waves = [
        *(math.cos(f * turn) for f in frequencies),
        *(-math.sin(f * turn) for f in frequencies),
    ]
    np.testing.assert_allclose(z[25].numpy(), [0.25, *waves], atol=1e-6)
    assert part.pos_emb.t[0, 100, 0] == 1
    rates = part.modulation.deltas[0, 0]
    np.testing.assert_allclose(rates[[0, -1]].numpy(), [math.log(0.01) / 1.5, math.log(0.01) / 0.3])


@torch.no_grad()
def test_the_operator_by_hand():
    mixer = fresh().backbone.layers[0].mixer
    x = torch.randn(9, 12, generator=torch.Generator().manual_seed(3))
    wide = mixer.in_proj(x).double().numpy()
    kernel, bias = mixer.short_filter.weight.double().numpy(), mixer.short_filter.bias.numpy()
    short = np.tile(bias, (9, 1)).astype(float)
    for t in range(9):
        for back in range(min(3, t + 1)):
            short[t] += kernel[:, 0, 2 - back] * wide[t - back]
    gate, key, value = short[:, :12], short[:, 12:24], short[:, 24:]
    product, taps = key * value, taps_by_hand(mixer.filter_fn, 9)
    mixed = product * mixer.filter_fn.bias.double().numpy()
    for t in range(9):
        for back in range(t + 1):
            mixed[t] += taps[:, back] * product[t - back]
    wanted = mixer.out_proj(torch.from_numpy(mixed * gate).float())
    close(mixer(x[None])[0], wanted)


@torch.no_grad()
def test_trap_gelu_is_the_one_by_tanh_and_norms_add_1e_5():
    block = fresh().backbone.layers[0]
    block.mixer = torch.nn.Identity()
    # Rows of small variance, where the eps of the norms shows.
    x = torch.randn(1, 5, 12, generator=torch.Generator().manual_seed(4)) * 4e-3
    w = {name: value.double().numpy() for name, value in block.state_dict().items()}

    def norm(y, name):
        centred = y - y.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    y = x[0].double().numpy()
    y = y + norm(y, "norm1")
    wide = norm(y, "norm2") @ w["mlp.fc1.weight"].T + w["mlp.fc1.bias"]
    bent = wide * (1 + np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3))) / 2
    wanted = y + bent @ w["mlp.fc2.weight"].T + w["mlp.fc2.bias"]
    np.testing.assert_allclose(block(x)[0].numpy(), wanted, atol=5e-6)
    exact = wide * (1 + np.vectorize(math.erf)(wide / math.sqrt(2))) / 2
    other = y + exact @ w["mlp.fc2.weight"].T + w["mlp.fc2.bias"]
    assert np.abs(other - wanted).max() > 5e-5


@torch.no_grad()
@pytest.mark.parametrize("window", [40, 130, 202])
def test_fixed_filters_give_what_trained_ones_give(window):
    network = fresh()
    rows = ids(2, 40)
    wanted = network(rows)
    network.materialise(window)
    assert network.max_rows == window
    close(network(rows), wanted)
    assert network.state_dict().keys() == fresh().state_dict().keys()


@torch.no_grad()
def test_trap_no_row_knows_what_comes_after_it():
    network = fresh()
    before, after = ids(1, 60), ids(1, 60)
    after[0, 40:] = (after[0, 40:] + 1) % 16
    close(network(after)[:, :40], network(before)[:, :40])
    assert float((network(after) - network(before))[:, 40].abs().max()) > 1e-3


def test_it_can_be_trained():
    network = fresh().train()
    network(ids(2, 30)).logsumexp(-1).sum().backward()
    names = [name for name, weight in network.named_parameters() if weight.grad is None]
    assert names == []
    assert (
        float(network.backbone.layers[0].mixer.filter_fn.implicit_filter[0].weight.grad.norm()) > 0
    )


def test_matrices_of_the_trunk():
    chosen = {
        name.rpartition("layers.0.")[2]
        for name, x in fresh().named_parameters()
        if is_trunk(name, x)
    }
    first = {name for name in chosen if not name.startswith("backbone")}
    assert first == {
        f"{x}.weight" for x in ("mixer.in_proj", "mixer.out_proj", "mlp.fc1", "mlp.fc2")
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": 4}, r"model\.features: .*must be odd"),
        ({"width": 3}, r"model\.width: .*known here: dim, features, "),
        ({"max_rows": 1}, r"model\.max_rows: "),
    ],
)
def test_a_bad_model_table(change, message):
    with pytest.raises(InputError, match=message):
        build({**MODEL, **change})


# Official checkpoints


def test_trap_names_and_shapes_of_the_official_file():
    """Written out here: names made from the network would be right by definition."""
    shapes = {
        "lm_head.weight": (16, 12),
        "hyena.backbone.embeddings.word_embeddings.weight": (16, 12),
        "hyena.backbone.ln_f.weight": (12,),
        "hyena.backbone.ln_f.bias": (12,),
    }
    for layer in ("hyena.backbone.layers.0", "hyena.backbone.layers.1"):
        taps = f"{layer}.mixer.filter_fn"
        linear = {
            f"{layer}.mixer.in_proj": (36, 12), f"{layer}.mixer.out_proj": (12, 12),
            f"{layer}.mlp.fc1": (20, 12), f"{layer}.mlp.fc2": (12, 20),
            f"{layer}.mixer.short_filter": (36, 1, 3),
            f"{taps}.implicit_filter.0": (8, 5), f"{taps}.implicit_filter.2": (8, 8),
            f"{taps}.implicit_filter.4": (8, 8),
            f"{layer}.norm1": (12,), f"{layer}.norm2": (12,),
        }  # fmt: skip
        for name, shape in linear.items():
            shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        shapes |= {f"{taps}.implicit_filter.{i}.freq": (1, 8) for i in (1, 3, 5)}
        shapes |= {
            f"{taps}.implicit_filter.6.weight": (12, 8), f"{taps}.bias": (12,),
            f"{taps}.pos_emb.z": (1, 202, 5), f"{taps}.pos_emb.t": (1, 202, 1),
            f"{taps}.modulation.deltas": (1, 1, 12),
        }  # fmt: skip
    weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
    source = Source("official", weights, CONFIG)
    assert HF.recognise(source)
    HF.load(source, None)
    old = {k if k.startswith("lm_head") else k.removeprefix("hyena.") for k in shapes}
    original = {f"model.{k}": weights.get(f"hyena.{k}", weights.get(k)) for k in old}
    assert LIGHTNING.recognise(Source("weights.ckpt", original))
    LIGHTNING.load(Source("weights.ckpt", original), None)


@torch.no_grad()
@pytest.mark.parametrize("infix", ["", "layer."])
def test_trap_both_layouts_and_gradient_checkpointing_give_the_same(infix):
    network = fresh()
    wanted = network(ids(2, 50))
    assert HF.recognise(hf(network))
    assert LIGHTNING.recognise(lightning(network, infix=infix))
    close(HF.load(hf(network), None).network(ids(2, 50)), wanted)
    close(LIGHTNING.load(lightning(network, infix=infix), None).network(ids(2, 50)), wanted)


@torch.no_grad()
@pytest.mark.parametrize("kept", [1, 3, 5])
def test_trap_the_shared_frequency_may_be_kept_once(kept):
    network = fresh()
    source = hf(network)
    gone = [f"hyena.{FREQ.format(b, i)}" for b in (0, 1) for i in (1, 3, 5) if i != kept]
    source = changed(source, **dict.fromkeys(gone))
    close(HF.load(source, None).network(ids(1, 30)), network(ids(1, 30)))


def test_frequencies_that_differ_or_are_not_there():
    name = f"hyena.{FREQ.format(1, 3)}"
    with pytest.raises(InputError, match=r"layers\.1\..*freq differ"):
        HF.load(changed(hf(), **{name: torch.ones(1, 8)}), None)
    gone = dict.fromkeys(f"hyena.{FREQ.format(0, i)}" for i in (1, 3, 5))
    with pytest.raises(InputError, match=r"no weights for: .*layers\.0.*freq"):
        HF.load(changed(hf(), **gone), None)


@torch.no_grad()
@pytest.mark.parametrize("name", ["pos_emb.z", "pos_emb.t", "modulation.deltas"])
def test_trap_what_is_stored_is_used_not_what_would_be_computed(name):
    network = fresh()
    part = network.backbone.layers[0].mixer.filter_fn
    part.get_buffer(name).mul_(1.5)
    loaded = HF.load(hf(network), None).network
    assert torch.equal(
        loaded.backbone.layers[0].mixer.filter_fn.get_buffer(name), part.get_buffer(name)
    )
    close(loaded(ids(1, 30)), network(ids(1, 30)))
    assert float((loaded(ids(1, 30)) - fresh()(ids(1, 30))).abs().max()) > 1e-3


@torch.no_grad()
def test_a_head_left_out_is_the_table_in_the_training_layout_alone():
    network = fresh()
    loaded = LIGHTNING.load(changed(lightning(network), model__lm_head__weight=None), None).network
    assert torch.equal(loaded.lm_head.weight, network.state_dict()[WORDS])
    with pytest.raises(InputError, match=r"no weights for: lm_head\.weight"):
        HF.load(changed(hf(network), lm_head__weight=None), None)


@torch.no_grad()
def test_trap_a_head_of_its_own_is_used_as_stored():
    network = fresh()
    loaded = LIGHTNING.load(lightning(network), None).network
    assert torch.equal(loaded.lm_head.weight, network.lm_head.weight)
    assert not torch.equal(loaded.lm_head.weight, network.state_dict()[WORDS])


@pytest.mark.parametrize(
    ("official", "source", "message"),
    [
        (HF, changed(hf(), score__weight=torch.ones(3, 12)), "does not have: score.weight"),
        (
            HF,
            changed(hf(), **{"hyena.backbone.ln_f.bias": None}),
            r"no weights for: backbone\.ln_f",
        ),
        (HF, changed(hf(), **{f"hyena.{WORDS}": None}), f"no weights for {WORDS}"),
        (LIGHTNING, changed(lightning(), **{"model.extra": torch.ones(1)}), "not have: extra"),
        (
            HF,
            changed(hf(), **{"hyena.backbone.ln_f.bias": torch.ones(3)}),
            r"ln_f\.bias 3, wanted 12",
        ),
    ],
)
def test_every_key_is_accounted_for(official, source, message):
    with pytest.raises(InputError, match=message):
        official.load(source, None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_seq_len", 32002),
        ("hyena_order", 3),
        ("layer_norm_epsilon", 1e-12),
        ("vocab_size", 11),
        ("n_layer", 8),
        ("d_inner", 48),
    ],
)
def test_trap_a_config_that_says_something_else_is_refused(key, value):
    with pytest.raises(InputError, match=rf"config: {key} is {value}, wanted "):
        HF.load(hf(**{key: value}), None)


@pytest.mark.parametrize("layer", [{"l_max": 32002}, {"modulate": False}, {"emb_dim": 3}])
def test_the_original_config_has_a_table_of_its_own(layer):
    given = {"d_model": 12, "n_layer": 2, "vocab_size": 12, "layer": {"l_max": 202, "w": 10}}
    source = dataclasses.replace(lightning(), config=given)
    assert LIGHTNING.load(source, None).card["context"] == 200
    bad = dataclasses.replace(source, config={**given, "layer": {**given["layer"], **layer}})
    with pytest.raises(InputError, match=f"config: {next(iter(layer))} is "):
        LIGHTNING.load(bad, None)


@pytest.mark.parametrize(
    "name",
    [
        "backbone.blocks.0.filter.D",  # Evo
        "caduceus.backbone.layers.0.mixer.mamba_fwd.D",
        "model.layers.0.mixer.filter_fn.bias",  # multimolecule
        "bert.embeddings.word_embeddings.weight",
        "model.encoder.0.conv.1.weight",  # GPN
        "lm_head.weight",
    ],
)
def test_other_systems_are_not_recognised(name):
    source = Source("other", {name: torch.ones(2, 2)})
    assert not HF.recognise(source)
    assert not LIGHTNING.recognise(source)


def test_each_layout_is_recognised_by_its_own_entry():
    assert not LIGHTNING.recognise(hf())
    assert not HF.recognise(lightning())


def test_releases_have_their_window_in_the_name():
    names = [release.repository for official in FAMILY.official for release in official.releases]
    assert "LongSafari/hyenadna-small-32k-seqlen-hf" in names
    assert "LongSafari/hyenadna-tiny-1k-seqlen" in names
    assert len(set(names)) == 14


# The graph


@pytest.mark.parametrize("context", [48, 150])
def test_trap_graph_takes_other_shapes(tmp_path: Path, context):
    network = HF.load(hf(), context).network
    path = tmp_path / "model.onnx"
    graph.write_graph(network, path, "fp32")
    shapes = ((1, 1), (5, 19), (1, context))
    batches = [ids(*shape, seed=i).numpy() for i, shape in enumerate(shapes)]
    for rows, found in zip(batches, graph.run_graph(path, batches), strict=True):
        assert graph.compare(found, graph.run_torch(network, rows)).worst <= 5e-6
