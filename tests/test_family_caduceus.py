"""Caduceus: ids, windows, what a checkpoint may hold, and the network by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from glm_annotate.encoding import EncoderSpec, make_encoder
from glm_annotate.errors import InputError
from glm_annotate.genome import to_codes
from glm_annotate.testing import check_encoder
from glm_annotate.train import graph
from glm_annotate.train.families.caduceus import FAMILY
from glm_annotate.train.families.caduceus_blocks import CaduceusConfig, Mamba, RmsNorm
from glm_annotate.train.families.family import Source

torch.set_num_threads(1)

MASK, N = 3, 11
COMPLEMENT = [0, 1, 2, 3, 4, 5, 6, 10, 9, 8, 7, 11, 12, 13, 14, 15]
PH, PS = FAMILY.official
TABLE = "caduceus.backbone.embeddings.word_embeddings.weight"
MIXER = "caduceus.backbone.layers.0.mixer."
SSM = {
    "d_state": 3, "d_conv": 4, "expand": 2, "dt_rank": "auto", "dt_min": 0.001, "dt_max": 0.1,
    "dt_init": "random", "dt_scale": 1.0, "dt_init_floor": 1e-4, "conv_bias": True, "bias": False,
    "use_fast_path": True,
}  # fmt: skip


def config_of(**changes):
    """An official config.json of a small Caduceus."""
    values = {
        "architectures": ["CaduceusForMaskedLM"],
        "model_type": "caduceus",
        "d_model": 10,
        "n_layer": 2,
        "vocab_size": 16,
        "pad_vocab_size_multiple": 8,
        "ssm_cfg": SSM,
        "rms_norm": True,
        "fused_add_norm": True,
        "residual_in_fp32": False,
        "norm_epsilon": 1e-5,
        "bidirectional": True,
        "bidirectional_strategy": "add",
        "bidirectional_weight_tie": True,
        "rcps": False,
        "complement_map": {str(i): there for i, there in enumerate(COMPLEMENT)},
        **changes,
    }
    return {key: value for key, value in values.items() if value is not None}


def fresh(seed=0, **values):
    """A network with random weights, none of them 0 or 1."""
    torch.manual_seed(seed)
    network = FAMILY.build({"dim": 10, "layers": 2, "states": 3, **values}).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    return network


def weights_of(config, **changes):
    """Random weights under the official names, every tied one stored under both names."""
    both, fused = config["rcps"], config.get("fused_add_norm", True)
    network = fresh(**({"complement": COMPLEMENT} if both else {}), **changes)
    weights = {}
    for name, value in network.state_dict().items():
        key = f"caduceus.backbone.{name}"
        if name.startswith("lm_head."):
            key = f"lm_head.{name}" if both else name
        elif both and name.startswith("embeddings."):
            key = key.replace("word_embeddings.", "word_embeddings.embedding.")
        elif both:
            key = key.replace(".mixer.", ".mixer.submodule.")
            if not fused:
                key = key.replace("norm.", "norm.submodule.").replace("_f.", "_f.submodule.")
        weights[key] = value.clone()
    if both:
        pairs = torch.tensor(COMPLEMENT)
        weights["lm_head.complement_map"] = pairs
        weights["caduceus.backbone.embeddings.word_embeddings.complement_map"] = pairs.clone()
    return weights


def source_of(folder=None, repository="", without=(), **changes):
    config = config_of(**changes)
    weights = {k: v for k, v in weights_of(config_of() | config).items() if k not in without}
    return Source("checkpoint", weights, config, folder, repository)


def load(source, context=None):
    return PS.load(source, context)


def logits(network, rows):
    return graph.run_torch(network, np.array(rows))["logits"]


# Ids and windows


def encoder_of(**changes):
    return make_encoder(EncoderSpec.model_validate(load(source_of(**changes)).card["encoder"]))


def test_trap_no_special_tokens():
    """The tokenizer's [SEP] is not what the network was trained on, and would break PS."""
    (group,) = encoder_of().encode(to_codes(b"ACGTNacgtR")[None])
    assert group.rows[0].tolist() == [7, 8, 9, 10, N, 7, 8, 9, 10, N]
    assert group.spans[0].tolist() == [[i, i + 1] for i in range(10)]


def test_trap_nothing_is_padded():
    """Padding at either end would be read: there is no mask."""
    codes = np.stack([to_codes(text) for text in (b"ACGTA", b"ACNTA", b"NNNNN")])
    (group,) = encoder_of().encode(codes)
    assert group.rows.shape == (3, 5)
    assert "window" not in load(source_of()).card


def test_the_encoder_keeps_its_promises():
    encoder = encoder_of()
    check_encoder(encoder)
    assert (encoder.spec.vocab.mask_id, encoder.spec.vocab.pad_id) == (MASK, 4)
    assert encoder.base_ids(1, 0).ravel().tolist() == [7, 8, 9, 10]


NAME = "kuleshov-group/caduceus-ps_seqlen-{}_d_model-256@0a1b2c"


@pytest.mark.parametrize(
    ("length", "asked", "window"),
    [("131k", None, 2048), ("131k", 131_072, 131_072), ("1k", None, 1024), ("1k", 300, 300)],
)
def test_window(length, asked, window):
    card = load(source_of(repository=NAME.format(length)), asked).card
    assert (card["context"], card["anchor"]) == (window, window // 2)


@pytest.mark.parametrize(("length", "asked"), [("131k", 131_073), ("1k", 1025), ("1k", 0)])
def test_no_window_beyond_what_it_was_trained_on(length, asked):
    with pytest.raises(InputError, match=f"--context {asked}: allowed are 1 to "):
        load(source_of(repository=NAME.format(length)), asked)


def test_window_from_the_files_beside(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 700}))
    assert load(source_of(tmp_path)).card["context"] == 700
    with pytest.raises(InputError, match="--context 701: allowed are 1 to 700 bases"):
        load(source_of(tmp_path), 701)
    # What transformers writes where nothing was given says nothing.
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": int(1e30)}))
    assert load(source_of(tmp_path)).card["context"] == 1024
    (tmp_path / "tokenizer_config.json").write_text("[")
    with pytest.raises(
        InputError, match=r"cannot be read .* fetch the tokenizer_config\.json of the same"
    ):
        load(source_of(tmp_path))
    named = tmp_path / "caduceus-ph_seqlen-131k_d_model-256_n_layer-16"
    named.mkdir()
    assert load(source_of(named)).card["context"] == 2048


@pytest.mark.parametrize(
    ("rcps", "strand", "halves", "dim"),
    [(False, "both", "none", 10), (True, "equivariant", "rc", 20)],
)
def test_card_of_both_variants(rcps, strand, halves, dim):
    loaded = load(source_of(rcps=rcps))
    assert loaded.card["strand"] == strand
    assert loaded.card["embedding"]["halves"] == halves
    assert loaded.card["scores"] == ("LLR", "PLLR")
    assert (loaded.network.dim, loaded.network.vocabulary) == (dim, 16)
    found = graph.run_torch(loaded.network, np.full((2, 5), 8))
    assert found["embedding"].shape == (2, 5, dim)


# What a checkpoint may hold


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("rcps", [True, False])
def test_trap_weights_are_read_as_fused_add_norm_of_the_config_says(rcps, fused):
    source = source_of(rcps=rcps, fused_add_norm=fused)
    network = load(source).network
    wanted = fresh(**({"complement": COMPLEMENT, "exchange": fused} if rcps else {}))
    rows = np.random.default_rng(0).integers(16, size=(2, 9))
    assert np.array_equal(logits(network, rows), logits(wanted, rows))


def official_shapes(rcps, dim, layers, states=16):
    """Names and shapes of an official file whose config is fused, tied ones once."""
    inner, rank = 2 * dim, -(-dim // 16)
    table = "caduceus.backbone.embeddings.word_embeddings"
    shapes = {"caduceus.backbone.norm_f.weight": (dim,)}
    if rcps:
        shapes |= {f"{table}.complement_map": (16,), "lm_head.complement_map": (16,)}
        shapes[f"{table}.embedding.weight"] = (16, dim)
    else:
        shapes[f"{table}.weight"] = (16, dim)
    for i in range(layers):
        layer = f"caduceus.backbone.layers.{i}"
        mixer = f"{layer}.mixer.submodule" if rcps else f"{layer}.mixer"
        shapes[f"{layer}.norm.weight"] = (dim,)
        for part in ("mamba_fwd", "mamba_rev"):
            shapes |= {
                f"{mixer}.{part}.A_log": (inner, states), f"{mixer}.{part}.D": (inner,),
                f"{mixer}.{part}.conv1d.weight": (inner, 1, 4),
                f"{mixer}.{part}.conv1d.bias": (inner,),
                f"{mixer}.{part}.x_proj.weight": (rank + 2 * states, inner),
                f"{mixer}.{part}.dt_proj.weight": (inner, rank),
                f"{mixer}.{part}.dt_proj.bias": (inner,),
            }  # fmt: skip
        shapes[f"{mixer}.mamba_fwd.in_proj.weight"] = (2 * inner, dim)
        shapes[f"{mixer}.mamba_fwd.out_proj.weight"] = (dim, inner)
    return shapes


@pytest.mark.parametrize("rcps", [True, False])
@pytest.mark.parametrize(
    ("dim", "layers", "size"), [(256, 16, 30.9), (256, 4, 7.75), (118, 4, 1.89)]
)
def test_trap_names_and_shapes_of_the_official_files(rcps, dim, layers, size):
    """Written out here: names made from the network would be right by definition.

    The sizes are what the hub says of the files: the numbers, and at most 1 % of names. 118 is no
    multiple of 16, which tells how the rank of the steps is rounded.
    """
    weights = {}
    for name, shape in official_shapes(rcps, dim, layers).items():
        is_map = name.endswith("complement_map")
        weights[name] = torch.tensor(COMPLEMENT) if is_map else torch.zeros(shape)
    ssm = {**SSM, "d_state": 16}
    config = config_of(rcps=rcps, d_model=dim, n_layer=layers, ssm_cfg=ssm)
    loaded = load(Source("official", weights, config))
    numbers = sum(weight.numel() for weight in loaded.network.parameters())
    assert 0.99 * size * 1e6 < 4 * numbers < size * 1e6 + 5e3


@pytest.mark.parametrize("part", ["norm_f.weight", "layers.1.mixer.mamba_rev.A_log"])
def test_a_missing_weight_is_refused(part):
    key = f"caduceus.backbone.{part}"
    with pytest.raises(InputError, match=f"no weights for: {part}"):
        load(source_of(without=[key]))


def test_an_unknown_key_is_refused():
    source = source_of()
    source.weights["score.weight"] = torch.zeros(2, 10)
    with pytest.raises(InputError, match=r"does not have: score\.weight"):
        load(source)


@pytest.mark.parametrize("rcps", [True, False])
@pytest.mark.parametrize(("kept", "left"), [("fwd", "rev"), ("rev", "fwd")])
def test_trap_tied_weights_are_left_out(kept, left, rcps):
    """Safetensors stores a shared tensor once, under either name."""
    whole = source_of(rcps=rcps)
    gone = {k for k in whole.weights if f"mamba_{left}.in_" in k or f"mamba_{left}.out_" in k}
    gone |= {k for k in whole.weights if k.endswith("lm_head.weight")}
    assert len(gone) == 5
    rows = np.random.default_rng(0).integers(16, size=(2, 9))
    found = load(source_of(rcps=rcps, without=gone)).network
    assert np.array_equal(logits(found, rows), logits(load(whole).network, rows))
    table = {k for k in whole.weights if k.endswith(("embeddings.weight", "embedding.weight"))}
    found = load(source_of(rcps=rcps, without=table)).network
    assert np.array_equal(logits(found, rows), logits(load(whole).network, rows))


def test_weights_that_the_config_does_not_tie_are_not_made_up():
    with pytest.raises(InputError, match=r"no weights for: layers\.0\.mixer\.mamba_rev\.in_proj"):
        load(
            source_of(bidirectional_weight_tie=False, without=[f"{MIXER}mamba_rev.in_proj.weight"])
        )
    with pytest.raises(InputError, match=r"no weights for: lm_head\.weight"):
        load(source_of(tie_word_embeddings=False, without=["lm_head.weight"]))


@pytest.mark.parametrize("key", ["lm_head.weight", f"{MIXER}mamba_rev.out_proj.weight"])
def test_tied_weights_that_differ_are_both_used(key):
    source = source_of()
    source.weights[key] += 1
    state = load(source).network.state_dict()
    assert torch.equal(state[key.removeprefix("caduceus.backbone.")], source.weights[key])
    twin = TABLE if key == "lm_head.weight" else key.replace("_rev", "_fwd")
    assert torch.equal(state[twin.removeprefix("caduceus.backbone.")], source.weights[twin])


def test_trap_the_order_of_the_configs_complement_map_is_no_order():
    """JSON sorts keys as text: 0, 1, 10, 11, ..., 2; only the keys tell what belongs together."""
    by_text = {key: COMPLEMENT[int(key)] for key in sorted(map(str, range(16)))}
    assert list(by_text.values()) != COMPLEMENT
    network = load(source_of(rcps=True, complement_map=by_text)).network
    assert network.complement.tolist() == COMPLEMENT


@pytest.mark.parametrize("rcps", [True, False])
def test_recognise(rcps):
    source = source_of(rcps=rcps)
    assert (PH.recognise(source), PS.recognise(source)) == (not rcps, rcps)
    bare = Source("bare", source.weights)
    assert (PH.recognise(bare), PS.recognise(bare)) == (not rcps, rcps)
    with pytest.raises(InputError, match=r"no config\.json with d_model"):
        load(bare)


@pytest.mark.parametrize(
    ("key", "config"),
    [
        ("hyena.backbone.layers.0.mixer.in_proj.weight", {"model_type": "hyenadna", "d_model": 8}),
        ("backbone.embeddings.word_embeddings.weight", {"d_model": 8}),
        ("backbone.layers.0.mixer.A_log", {"model_type": "mamba", "d_model": 8}),
        ("bert.encoder.layer.0.output.dense.weight", {"model_type": "bert"}),
        ("blocks.0.filter.poles", {"num_layers": 2}),
        ("model.encoder.0.conv.1.weight", {"model_type": "ConvNet"}),
    ],
)
def test_other_systems_are_not_recognised(key, config):
    source = Source("other", {key: torch.zeros(2, 2)}, config)
    assert not PH.recognise(source)
    assert not PS.recognise(source)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layer": 0}, "config: layers"),
        ({"bidirectional_strategy": "concat"}, "is 'concat', wanted add or ew_multiply"),
        ({"ssm_cfg": {"layer": "Mamba2"}}, "ssm_cfg has layer, wanted keys are"),
        ({"vocab_size": 4101}, "is 4101, wanted 12 tokens, or 16 with padding"),
        ({"rcps": True, "complement_map": {"7": 8}}, "complement_map pairs 7 with 8"),
        ({"d_model": 12}, "shapes that do not fit"),
        ({"n_layer": 3}, "no weights for"),
    ],
)
def test_a_config_that_contradicts_the_rest_is_refused(changes, message):
    source = source_of(rcps=changes.get("rcps", False))
    with pytest.raises(InputError, match=message):
        load(Source("checkpoint", source.weights, config_of(**changes)))


@pytest.mark.parametrize("fused", [True, False])
def test_trap_fused_add_norm_against_the_keys(fused):
    """A config whose switch was turned off to run without Triton gives other numbers."""
    weights = source_of(rcps=True, fused_add_norm=fused).weights
    with pytest.raises(InputError, match=f"fused_add_norm is {not fused}"):
        load(Source("checkpoint", weights, config_of(rcps=True, fused_add_norm=not fused)))


def test_a_complement_map_of_the_weights_that_is_another_is_refused():
    source = source_of(rcps=True)
    source.weights["lm_head.complement_map"] = torch.arange(16)
    with pytest.raises(InputError, match=r"lm_head\.complement_map pairs 7 with 7"):
        load(source)


# The network by hand


def test_trap_eps_of_the_norm_stands_inside_the_root():
    norm = RmsNorm(2, eps=0.5)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 10.0]))
    # (9 + 16) / 2 + 0.5 = 13.
    found = norm(torch.tensor([3.0, 4.0])).tolist()
    assert found == pytest.approx([3 / math.sqrt(13), 40 / math.sqrt(13)], rel=1e-6)


def test_mamba_by_hand():
    """Row by row in float64, from the published equations."""
    torch.manual_seed(1)
    part = Mamba(CaduceusConfig(dim=3, layers=1, states=2, kernel=3, expand=2, rank=2))
    with torch.no_grad():
        for weight in part.parameters():
            weight.copy_(torch.randn_like(weight) * 0.7)
    p = {name: value.double().numpy() for name, value in part.state_dict().items()}
    x = np.random.default_rng(3).normal(size=(5, 3))

    def silu(v):
        return v / (1 + np.exp(-v))

    inside = x @ p["in_proj.weight"].T
    value, gate = inside[:, :6], inside[:, 6:]
    rows, state = [], np.zeros((6, 2))
    for t in range(5):
        # The last tap weighs the current row.
        seen = [value[t - 2 + j] * p["conv1d.weight"][:, 0, j] for j in range(3) if t - 2 + j >= 0]
        u = silu(np.sum(seen, axis=0) + p["conv1d.bias"])
        numbers = p["x_proj.weight"] @ u
        step, write, read = numbers[:2], numbers[2:4], numbers[4:]
        delta = np.log1p(np.exp(p["dt_proj.weight"] @ step + p["dt_proj.bias"]))
        state = np.exp(-np.exp(p["A_log"]) * delta[:, None]) * state
        state += (delta * u)[:, None] * write
        rows.append(p["out_proj.weight"] @ ((state @ read + p["D"] * u) * silu(gate[t])))
    found = part(torch.from_numpy(x)[None].float())[0].detach().numpy()
    assert found == pytest.approx(np.array(rows), rel=2e-5, abs=2e-5)


def published(network, rows, fused):
    """PS as the authors lay it out: halves of the channels, the second turned in both axes."""

    def turn(x):
        return x.flip(1, 2)

    ids = torch.from_numpy(rows)
    table = network.embeddings.word_embeddings
    first, second = table(ids), turn(table(torch.tensor(COMPLEMENT)[ids.flip(1)]))
    for layer in network.layers:
        if fused:  # sums of hidden state and residual, each half read as the other
            first, second = second, first
        first = first + layer.mixer(layer.norm(first))
        second = second + turn(layer.mixer(layer.norm(turn(second))))
    first, second = network.norm_f(first), turn(network.norm_f(turn(second)))
    weight = network.lm_head.weight
    paired = second.flip(2) @ weight[COMPLEMENT].T
    return torch.cat([first, second], dim=2).detach(), (first @ weight.T + paired).detach()


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("fused", [True, False])
def test_trap_the_fused_code_swaps_the_strands(fused, layers):
    network = fresh(complement=COMPLEMENT, exchange=fused, layers=layers)
    rows = np.random.default_rng(4).integers(16, size=(2, 13))
    found = graph.run_torch(network, rows)
    for name, wanted in zip(("embedding", "logits"), published(network, rows, fused), strict=True):
        assert found[name] == pytest.approx(wanted.numpy(), rel=1e-5, abs=1e-5)
    other = published(network, rows, not fused)[1].numpy()
    assert np.abs(found["logits"] - other).max() > 0.05


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 24, 25])
def test_ps_is_equivariant(rows, exchange):
    """With every id that a window can hold: bases, N and [MASK]; so one strand is enough."""
    network = fresh(complement=COMPLEMENT, exchange=exchange)
    ids = np.random.default_rng(rows).choice([7, 8, 9, 10, N, MASK], size=(3, rows))
    turned = np.array(COMPLEMENT)[ids[:, ::-1]]
    one, other = graph.run_torch(network, ids), graph.run_torch(network, turned)
    assert other["logits"][:, ::-1][..., COMPLEMENT] == pytest.approx(one["logits"], abs=2e-5)
    # The second half is the other strand's first, channels reversed: averaged as `halves: rc` says
    # it, both strands give one embedding of a base.
    embeddings = [x["embedding"] for x in (one, other)]
    means = [(x[..., :10] + x[..., :9:-1]) / 2 for x in embeddings]
    assert means[1][:, ::-1] == pytest.approx(means[0], abs=2e-5)
    assert rows == 1 or np.abs(embeddings[1][:, ::-1] - embeddings[0]).max() > 0.1


def test_trap_sep_at_one_end_would_break_equivariance():
    network = fresh(complement=COMPLEMENT)
    ids = np.random.default_rng(0).integers(7, 11, size=(1, 24))
    turned = np.array(COMPLEMENT)[ids[:, ::-1]]
    ended = [np.concatenate([x, [[1]]], axis=1) for x in (ids, turned)]
    one, other = (logits(network, x)[:, :-1] for x in ended)
    assert np.abs(other[:, ::-1][..., COMPLEMENT] - one).max() > 1e-3


def test_ph_is_not_equivariant():
    ids = np.random.default_rng(0).integers(7, 11, size=(1, 24))
    one, other = (logits(fresh(), x) for x in (ids, np.array(COMPLEMENT)[ids[:, ::-1]]))
    assert np.abs(other[:, ::-1][..., COMPLEMENT] - one).max() > 0.05


def test_settings_change_what_they_say():
    rows = np.random.default_rng(0).integers(16, size=(1, 9))
    plain = logits(fresh(), rows)
    for changes in ({"directions": "multiply"}, {"directions": "forward"}, {"norm": "layer"}):
        assert np.abs(logits(fresh(**changes), rows) - plain).max() > 0.01
    changed = rows.copy()
    changed[0, -1] = (changed[0, -1] + 1) % 16
    forward = fresh(directions="forward")
    assert np.array_equal(logits(forward, rows)[:, :-1], logits(forward, changed)[:, :-1])
    assert np.abs(logits(fresh(), changed)[:, 0] - plain[:, 0]).max() > 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"complement": [0, 1]}, "each of 16 ids once"),
        ({"complement": [1, 2, 0], "vocabulary": 3}, "must lead back"),
        ({"exchange": True}, "exchange needs complement"),
        ({"heads": 2}, r"model\.heads"),
    ],
)
def test_a_config_of_ours_is_checked(values, message):
    with pytest.raises(InputError, match=message):
        FAMILY.build({"dim": 10, "layers": 1, **values})


def test_a_fresh_network_trains():
    """Steps start between a thousandth and a tenth, shared weights are one parameter."""
    torch.manual_seed(0)
    network = FAMILY.build({"dim": 10, "layers": 2, "complement": COMPLEMENT})
    bias = network.layers[0].mixer.mamba_rev.dt_proj.bias.detach()
    steps = torch.nn.functional.softplus(bias)
    assert 0.001 <= float(steps.min()) <= float(steps.max()) <= 0.1
    rows = torch.randint(7, 11, (2, 12))
    loss = torch.nn.functional.cross_entropy(network(rows).transpose(1, 2), rows)
    loss.backward()
    assert all(bool((weight.grad != 0).any()) for weight in network.parameters())
    names = {name for name, weight in network.named_parameters() if FAMILY.trunk(name, weight)}
    assert names == {
        f"layers.{i}.mixer.mamba_{part}.weight"
        for i in range(2)
        for part in (
            *("fwd.in_proj", "fwd.out_proj", "fwd.x_proj", "fwd.dt_proj"),
            *("rev.x_proj", "rev.dt_proj"),
        )
    }


def test_trap_graph_takes_other_shapes(tmp_path):
    network = fresh(complement=COMPLEMENT, exchange=True, layers=1)
    path = tmp_path / "model.onnx"
    graph.write_graph(network, path, "fp32")
    rng = np.random.default_rng(6)
    batches = [rng.integers(16, size=shape) for shape in ((1, 1), (5, 19), (1, 300))]
    for batch, found in zip(batches, graph.run_graph(path, batches), strict=True):
        parity = graph.compare(found, graph.run_torch(network, batch))
        assert parity.worst < 5e-6


def test_releases():
    names = [release.repository for official in FAMILY.official for release in official.releases]
    assert len(set(names)) == 6
    assert "kuleshov-group/caduceus-ps_seqlen-131k_d_model-256_n_layer-16" in names
    assert "kuleshov-group/caduceus-ph_seqlen-131k_d_model-256_n_layer-16" in names
