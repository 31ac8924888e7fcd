"""Evo without its public implementation: arithmetic by hand, keys, configs, traps."""

from __future__ import annotations

import cmath
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
from glm_annotate.train import graph, long_convolution
from glm_annotate.train.families import evo2, gpn
from glm_annotate.train.families.evo import FAMILY, EvoConfig, OscillatingConvolution, build
from glm_annotate.train.families.family import Source
from glm_annotate.train.families.striped_hyena import Attention, GatedMlp, RmsNorm
from glm_annotate.train.long_convolution import convolve_directly

MODEL = {"dim": 20, "layers": 3, "heads": 5, "hidden": 24, "attention": [1], "state": 3}
# As the authors' config.json has them; many more keys stand in it.
CONFIG = {
    "model_type": "stripedhyena",
    "vocab_size": 512,
    "hidden_size": 20,
    "num_filters": 20,
    "num_layers": 3,
    "attn_layer_idxs": [1],
    "num_attention_heads": 5,
    "state_size": 3,
    "short_filter_length": 3,
    "eps": 1e-6,
    "tie_embeddings": True,
    "inner_mlp_size": None,
    "column_split_hyena": True,
    "hyena_filter_groups": 1,
    "proj_groups": 1,
    "mlp_activation": "gelu",
    "final_norm": True,
    "use_flashfft": False,
}
INTERPOLATED = {"use_interpolated_rotary_pos_emb": True, "rotary_emb_scaling_factor": 16}
SHORT, LONG = FAMILY.official
HEAD, WORDS = "backbone.unembed.weight", "backbone.embedding_layer.weight"
FREQUENCIES = "backbone.blocks.1.inner_mha_cls.rotary_emb.inv_freq"


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def fresh(seed: int = 0, **changes: object):
    torch.manual_seed(seed)
    network = build({**MODEL, **changes})
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if not name.endswith("poles"):
                weight.add_(torch.randn_like(weight) * 0.1)
    return network.eval()


def source_of(network=None, **changes: object) -> Source:
    """A checkpoint of the hub: keys behind `backbone.`, no head, frequencies of the rotation."""
    weights = {f"backbone.{k}": v for k, v in (network or fresh()).state_dict().items()}
    del weights[HEAD]
    weights[FREQUENCIES] = torch.tensor([1.0, 0.01])
    return Source("evo", weights, {**CONFIG, **changes})


def changed(source: Source, **weights: torch.Tensor | None) -> Source:
    """Replace weights; None removes one. `__` stands for a point."""
    values = dict(source.weights)
    for name, value in weights.items():
        values.pop(name.replace("__", "."), None)
        if value is not None:
            values[name.replace("__", ".")] = value
    return dataclasses.replace(source, weights=values)


def ids(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(512, shape, generator=torch.Generator().manual_seed(seed))


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    allowed = 1e-5 * max(1, float(wanted.detach().abs().max()))
    torch.testing.assert_close(found, wanted, rtol=0, atol=allowed)


# The tokenizer and the card


def make_spec() -> EncoderSpec:
    return EncoderSpec.model_validate(SHORT.load(source_of(), None).card["encoder"])


def test_trap_upper_case_bytes_behind_a_bos():
    encoder = make_encoder(make_spec())
    check_encoder(encoder)
    # Lower-case letters of a FASTA are masked repeats, not what the model was trained on.
    (found,) = encoder.encode(to_codes("ACGTNac")[None])
    assert found.rows.tolist() == [[0, 65, 67, 71, 84, 78, 65, 67]]
    assert found.spans.tolist() == [[[-1, -1], *([i, i + 1] for i in range(7))]]
    assert make_spec().vocab.pad_id == 1


def test_trap_nothing_is_padded():
    codes = np.stack([to_codes(text) for text in ("ACGTA", "ACNTA", "NNNNN")])
    (group,) = make_encoder(make_spec()).encode(codes)
    assert group.rows.shape == (3, 6)
    assert "window" not in SHORT.load(source_of(), None).card


def test_card_says_what_a_causal_model_needs():
    card = SHORT.load(source_of(), 100).card
    assert (card["logits_shift"], card["strand"]) == (1, "both")
    assert (card["context"], card["anchor"], card["scores"]) == (100, 50, ("LLR", "EMB_COS"))


def test_window_has_a_row_more_than_bases_and_ends_where_training_did():
    short, long = source_of(), source_of(**INTERPOLATED)
    assert SHORT.load(short, 100).network.max_rows == 101
    assert SHORT.load(short, None).card["context"] == 8192
    assert LONG.load(long, None).card["context"] == 8192
    assert LONG.load(long, 9000).network.max_rows == 9001
    with pytest.raises(InputError, match="--context 8193: allowed are 1 to 8192 bases"):
        SHORT.load(short, 8193)
    with pytest.raises(InputError, match="131072 bases"):
        LONG.load(long, 131073)


# Blocks by hand


def test_trap_eps_stands_outside_the_root():
    norm = RmsNorm(2, eps=0.5)
    torch.nn.init.constant_(norm.scale, 2.0)
    # Root mean square of 3 and 4: sqrt(12.5) = 3.535534.
    found = norm(torch.tensor([[[3.0, 4.0]]]))
    close(found, torch.tensor([[[6 / 4.035534, 8 / 4.035534]]]))


def test_trap_channels_are_grouped_by_head():
    config = EvoConfig(dim=4, layers=1, heads=2, hidden=4)
    z = torch.arange(12.0)[None, :, None].repeat(1, 1, 3)
    x2, x1, value = (part[0, :, 0].tolist() for part in OscillatingConvolution(config).split(z))
    assert (x2, x1, value) == ([0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11])


def test_taps_are_sums_of_powers():
    convolution = OscillatingConvolution(EvoConfig(dim=34, layers=1, heads=1, hidden=4, state=2))
    found = convolution.taps(6, torch.float64)
    poles, residues = convolution.poles.tolist(), convolution.residues.tolist()
    assert found.shape == (34, 6)  # more channels than are worked out at once
    for channel in (0, 13, 33):
        for t in range(6):
            terms = [
                complex(*residues[channel][s][0]) * complex(*poles[channel][s][0]) ** t
                for s in range(2)
            ]
            assert found[channel, t].item() == pytest.approx(sum(terms).real, abs=1e-12)


@torch.no_grad()
def test_trap_taps_are_worked_out_in_double(monkeypatch):
    """The angle of a pole grows with every row; float32 loses its digits far from the start."""
    monkeypatch.setattr(long_convolution, "DIRECT_TAPS", 8192)  # so that taps can be looked at
    convolution = OscillatingConvolution(EvoConfig(dim=2, layers=1, heads=1, hidden=4, state=1))
    pole = cmath.rect(0.9999, 3.0)
    convolution.poles.copy_(torch.tensor([pole.real, pole.imag]).expand(2, 1, 1, 2))
    convolution.residues.copy_(torch.tensor([1.0, 0.5]).expand(2, 1, 1, 2))
    stored = complex(*convolution.poles[0, 0, 0].tolist())
    convolution.materialise(8192)
    kept = convolution.long.taps[0, 0].flip(0)
    wanted = [(complex(1, 0.5) * stored**t).real for t in range(8100, 8192)]
    np.testing.assert_allclose(kept[8100:].numpy(), wanted, atol=2e-7)
    single = convolution.taps(8192, torch.float32)[0, 8100:]
    assert np.abs(single.numpy() - wanted).max() > 1e-5


def test_gated_convolution_by_hand():
    convolution = OscillatingConvolution(EvoConfig(dim=2, layers=1, heads=1, hidden=4, state=2))
    with torch.no_grad():
        for weight in (convolution.D, convolution.short_filter_bias):
            weight.copy_(torch.randn(weight.shape))
    z = torch.randn(1, 9, 6)
    taps = convolution.taps(9, torch.float64)
    short = torch.zeros(6, 9, dtype=torch.float64)
    for t in range(9):
        for lag in range(min(3, t + 1)):
            weight = convolution.short_filter_weight[:, 0, 2 - lag]
            short[:, t] += (weight * z[0, t - lag]).double()
    short += convolution.short_filter_bias[:, None].double()
    gated = short[2:4] * short[4:6]
    mixed = convolve_directly(gated[None], taps)[0] + convolution.D[:, None] * gated
    close(convolution(z)[0].double(), (short[:2] * mixed).T)


def test_trap_interpolation_divides_positions():
    def turned(scale: float, rows: int) -> torch.Tensor:
        attend = Attention(4, 1, base=100.0, scale=scale, bias=False)
        return torch.arange(rows)[:, None] * attend.frequency

    # Frequencies of base 100 and four dimensions: 1 and 1 / 10.
    assert turned(1, 33)[32].tolist() == pytest.approx([32, 3.2])
    assert turned(16, 33)[32].tolist() == pytest.approx([2, 0.2])
    network = LONG.load(source_of(**INTERPOLATED), 64).network
    frequency = network.blocks[1].inner_mha_cls.frequency
    assert frequency.tolist() == pytest.approx([1 / 16, 0.01 / 16])


def test_attention_by_hand():
    attend = Attention(4, 1, base=100.0, scale=2.0, bias=True)
    x = torch.randn(1, 3, 4)
    q, k, v = (row.tolist() for row in attend.Wqkv(x)[0].view(3, 3, 4).unbind(1))

    def turn(row, t):
        pairs = [complex(row[i], row[i + 2]) * cmath.exp(1j * t / 2 / 10**i) for i in (0, 1)]
        return [p.real for p in pairs] + [p.imag for p in pairs]

    out, maps = [], []
    for t in range(3):
        dots = [
            sum(a * b for a, b in zip(turn(q[t], t), turn(k[s], s), strict=True)) / 2
            for s in range(t + 1)
        ]
        weights = [math.exp(dot) for dot in dots]
        shares = [w / sum(weights) for w in weights]
        maps.append(shares + [0.0] * (2 - t))
        out.append([sum(w * v[s][i] for s, w in enumerate(shares)) for i in range(4)])
    found, kept = attend(x, keep=True)
    close(found[0], attend.out_proj(torch.tensor(out)))
    close(kept[0, 0], torch.tensor(maps))


def test_trap_mlp_is_gated_by_the_exact_gelu():
    mlp = GatedMlp(1, 1)
    for layer, value in ((mlp.l1, 2.0), (mlp.l2, 3.0), (mlp.l3, 5.0)):
        torch.nn.init.constant_(layer.weight, value)
    # x = 1: gelu(2) * 3 * 5, gelu(2) = 1 + erf(sqrt 2) = 1.9544997.
    assert mlp(torch.ones(1, 1, 1)).item() == pytest.approx(15 * (1 + math.erf(math.sqrt(2))))


# The network


def test_worked_out_taps_change_nothing():
    network = fresh()
    before = [network(ids(2, rows)) for rows in (1, 17, 90)]
    network.materialise(90)
    for wanted in before:
        close(network(ids(2, wanted.shape[1])), wanted)


def test_trap_rows_do_not_see_what_follows():
    network = SHORT.load(source_of(), 64).network
    rows = ids(2, 40)
    close(network.embed(rows[:, :23]), network.embed(rows)[:, :23])


def test_attend_gives_the_maps_of_blocks_that_attend():
    network = fresh(attention=[1, 2])
    assert network.has_attention
    rows = ids(2, 7)
    embedding, maps = network.attend(rows)
    close(embedding, network.embed(rows))
    assert maps.shape == (2, 2, 5, 7, 7)
    close(maps.sum(-1), torch.ones(2, 2, 5, 7))
    assert maps.triu(1).abs().max() == 0
    assert not build({**MODEL, "attention": []}).has_attention


def test_a_fresh_network_can_be_trained():
    network = fresh().train()
    network(ids(2, 30)).logsumexp(-1).mean().backward()
    assert all(weight.grad.isfinite().all() for weight in network.parameters())
    assert network.blocks[0].filter.poles.grad.abs().max() > 0
    matrices = {name for name, x in network.named_parameters() if FAMILY.trunk(name, x)}
    assert "blocks.0.projections.weight" in matrices
    assert "embedding_layer.weight" not in matrices


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "dim 20 is not an even number for each of 3 heads"),
        ({"attention": [3]}, "attention names blocks outside 0 to 2"),
        ({"depth": 3}, "known here: attention, base, dim"),
    ],
)
def test_config_of_a_training_run(change, message):
    with pytest.raises(InputError, match=message):
        build({**MODEL, **change})


def test_trap_graph_takes_other_shapes(tmp_path: Path):
    network = SHORT.load(source_of(), 199).network
    graph.write_graph(network, tmp_path / "model.onnx", "fp32")
    batches = [ids(*shape).numpy() for shape in ((1, 1), (5, 19), (1, 200))]
    for batch, found in zip(
        batches, graph.run_graph(tmp_path / "model.onnx", batches), strict=True
    ):
        for name, wanted in graph.run_torch(network, batch).items():
            assert np.abs(found[name] - wanted).max() <= 1e-5 * max(1, np.abs(wanted).max())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_block_of_the_real_width(tmp_path: Path):
    torch.manual_seed(0)
    network = build({"dim": 4096, "layers": 1, "heads": 32, "hidden": 10928}).eval()
    network.materialise(1024)
    graph.write_graph(network, tmp_path / "model.onnx", "fp32")
    rows = ids(1, 1024).numpy()
    (found,) = graph.run_graph(tmp_path / "model.onnx", [rows])
    for name, wanted in graph.run_torch(network, rows).items():
        assert np.abs(found[name] - wanted).max() <= 1e-4 * max(1, np.abs(wanted).max())


# Official checkpoints


def test_recognise_tells_contexts_and_other_systems():
    short, long = source_of(), source_of(**INTERPOLATED)
    assert [x.recognise(short) for x in FAMILY.official] == [True, False]
    assert [x.recognise(long) for x in FAMILY.official] == [False, True]
    bare = Source("evo", {k.removeprefix("backbone."): v for k, v in short.weights.items()})
    assert SHORT.recognise(bare)
    for other in (
        evo2.build({"dim": 8, "pattern": "SMLA", "heads": 2, "hidden": 8}),
        gpn.build({"dim": 8, "hidden": 8, "dilations": [1]}),
    ):
        assert not any(x.recognise(Source("x", other.state_dict())) for x in FAMILY.official)
    assert not any(x.recognise(Source("x", {}, CONFIG)) for x in FAMILY.official)


def test_trap_names_and_shapes_of_the_official_file():
    """Written out here: names made from the network would be right by definition."""
    shapes = {"embedding_layer.weight": (512, 20), "norm.scale": (20,)}
    for block in ("blocks.0", "blocks.1", "blocks.2"):
        shapes |= {
            f"{block}.pre_norm.scale": (20,), f"{block}.post_norm.scale": (20,),
            f"{block}.mlp.l1.weight": (24, 20), f"{block}.mlp.l2.weight": (24, 20),
            f"{block}.mlp.l3.weight": (20, 24),
        }  # fmt: skip
    for block in ("blocks.0", "blocks.2"):
        shapes |= {
            f"{block}.projections.weight": (60, 20), f"{block}.projections.bias": (60,),
            f"{block}.out_filter_dense.weight": (20, 20), f"{block}.out_filter_dense.bias": (20,),
            f"{block}.filter.D": (20,), f"{block}.filter.short_filter_weight": (60, 1, 3),
            f"{block}.filter.short_filter_bias": (60,),
            f"{block}.filter.poles": (20, 3, 1, 2), f"{block}.filter.residues": (20, 3, 1, 2),
        }  # fmt: skip
    shapes |= {
        "blocks.1.inner_mha_cls.Wqkv.weight": (60, 20), "blocks.1.inner_mha_cls.Wqkv.bias": (60,),
        "blocks.1.inner_mha_cls.out_proj.weight": (20, 20),
        "blocks.1.inner_mha_cls.out_proj.bias": (20,),
    }  # fmt: skip
    weights = {f"backbone.{name}": torch.ones(shape) for name, shape in shapes.items()}
    weights[FREQUENCIES] = torch.tensor([1.0, 0.01])
    source = Source("official", weights, CONFIG)
    assert SHORT.recognise(source)
    SHORT.load(source, 64)


def test_trap_sizes_add_up_to_the_official_files():
    """Shards of 4.98, 4.93 and 3.00 GB: bfloat16, poles and residues in float32, one table."""
    sizes = {"dim": 4096, "layers": 32, "heads": 32, "hidden": 10928, "attention": [8, 16, 24]}
    with torch.device("meta"):
        network = build(sizes)
    exact = ("poles", "residues")
    total = sum(x.numel() * (4 if k.endswith(exact) else 2) for k, x in network.named_parameters())
    assert round(total / 1e9, 2) == 4.98 + 4.93 + 3.00


def test_loads_its_own_weights():
    network = fresh()
    loaded = SHORT.load(source_of(network), 64).network
    close(loaded(ids(2, 40)), network(ids(2, 40)))


def test_trap_head_may_be_absent_and_must_agree():
    source = source_of()
    assert HEAD not in source.weights
    loaded = SHORT.load(source, 64).network
    assert loaded.unembed.weight is loaded.embedding_layer.weight
    same = changed(source, **{HEAD: source.weights[WORDS].clone()})
    close(SHORT.load(same, 64).network(ids(1, 9)), loaded(ids(1, 9)))
    with pytest.raises(InputError, match=r"unembed\.weight differs from embedding_layer"):
        SHORT.load(changed(source, **{HEAD: source.weights[WORDS] + 1}), 64)
    untied = dataclasses.replace(same, config={**CONFIG, "tie_embeddings": False})
    assert SHORT.load(untied, 64).network.unembed.weight is not loaded.unembed.weight
    with pytest.raises(InputError, match=r"no weights for: unembed\.weight"):
        SHORT.load(dataclasses.replace(source, config=untied.config), 64)


def test_trap_poles_stay_exact_where_the_rest_is_rounded():
    exact = source_of()
    rounded = {
        k: v if k.endswith(("poles", "residues")) else v.bfloat16()
        for k, v in exact.weights.items()
    }
    network = SHORT.load(dataclasses.replace(exact, weights=rounded), 64).network
    assert all(weight.dtype == torch.float32 for weight in network.parameters())
    poles = exact.weights["backbone.blocks.0.filter.poles"]
    assert torch.equal(network.blocks[0].filter.poles, poles)
    assert not torch.equal(poles.bfloat16().float(), poles)
    words = exact.weights[WORDS].bfloat16().float()
    assert torch.equal(network.embedding_layer.weight, words)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone__norm__weight": torch.ones(20)}, r"does not have: norm\.weight"),
        ({"backbone__norm__scale": None}, r"no weights for: norm\.scale"),
        ({"backbone__norm__scale": torch.ones(3)}, r"norm\.scale 3, wanted 20"),
        ({WORDS: None}, r"no weights for embedding_layer\.weight"),
        ({FREQUENCIES: torch.tensor([1.0, 0.5])}, "rotary base 10000"),
        ({FREQUENCIES: torch.tensor([1.0])}, "heads 4 wide"),
    ],
)
def test_keys_are_accounted_for(change, message):
    with pytest.raises(InputError, match=message):
        SHORT.load(changed(source_of(), **change), 64)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vocab_size", 256),
        ("hidden_size", 24),
        ("num_layers", 4),
        ("attn_layer_idxs", [2]),
        ("state_size", 8),
        ("inner_mlp_size", 32),
        ("column_split_hyena", False),
        ("mlp_activation", "silu"),
        ("proj_groups", 4),
        ("hyena_filter_groups", 4),
        ("final_norm", False),
    ],
)
def test_config_that_contradicts(key, value):
    with pytest.raises(InputError, match=rf"config: {key} is "):
        SHORT.load(source_of(**{key: value}), 64)


def test_heads_need_a_config():
    bare = dataclasses.replace(source_of(), config={})
    with pytest.raises(InputError, match=r"no config with num_attention_heads beside the weights"):
        SHORT.load(bare, 64)
    with pytest.raises(InputError, match=r"config: heads: "):
        SHORT.load(source_of(num_attention_heads=0), 64)


def test_releases_are_pinned_to_the_mended_revision():
    names = {x.name: x for official in FAMILY.official for x in official.releases}
    for name in ("evo-1-8k-base", "evo-1-131k-base"):
        assert names[name].repository == f"togethercomputer/{name}@1.1_fix"
    assert names["evo-1-131k-base"].context == 131072
