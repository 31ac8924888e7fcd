"""Evo 2 without its public implementation: arithmetic by hand, keys, configs, traps."""

from __future__ import annotations

import dataclasses
import io
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
from glm_annotate.train.families import evo, gpn
from glm_annotate.train.families.evo2 import (
    FAMILY,
    DecayingConvolution,
    Evo2Config,
    SharedConvolution,
    build,
    find_facts,
    ungroup,
)
from glm_annotate.train.families.family import Source
from glm_annotate.train.sources import open_source

SIZES = {"dim": 24, "heads": 3, "hidden": 20, "state": 4}
MODEL = {**SIZES, "pattern": "SMLAS", "short_groups": 4, "medium_groups": 6}
# As the authors' .yml has them; many more keys stand in it.
CONFIG = {
    "vocab_size": 512,
    "hidden_size": 24,
    "num_layers": 5,
    "attn_layer_idxs": [3],
    "hcl_layer_idxs": [2],
    "hcm_layer_idxs": [1],
    "hcs_layer_idxs": [0, 4],
    "num_attention_heads": 3,
    "inner_mlp_size": 20,
    "short_filter_length": 3,
    "eps": 0.000001,
    "rotary_emb_base": 10000,
    "max_seqlen": 32768,
    "interleave": True,
    "column_split": True,
    "column_split_hyena": False,
    "hyena_flip_x1x2": False,
    "evo2_style_activations": True,
    "mlp_activation": "gelu",
    "proj_groups": 1,
    "tie_embeddings": True,
    "final_norm": True,
    "use_fp8_input_projections": True,
}
(VORTEX,) = FAMILY.official
QKV = "blocks.3.inner_mha_cls.Wqkv.weight"
FREQUENCIES = "blocks.3.inner_mha_cls.rotary_emb.inv_freq"


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def fresh(seed: int = 0, **changes: object):
    torch.manual_seed(seed)
    network = build({**MODEL, **changes})
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith("log_poles"):
                # Quicker than at the start of training: sums stay small, and so do their errors.
                weight.copy_(-0.05 - 0.6 * torch.rand_like(weight))
            else:
                weight.add_(torch.randn_like(weight) * 0.1)
    return network.eval()


def source_of(network=None, **changes: object) -> Source:
    """A file of the authors: no head, projections of attention by head."""
    weights = dict((network or fresh()).state_dict())
    del weights["unembed.weight"]
    # (3, heads, d) to (heads, 3, d): the other way round than reading does.
    weights[QKV] = weights[QKV].view(3, 3, 8, 24).transpose(0, 1).reshape(72, 24)
    weights[FREQUENCIES] = torch.tensor([1.0, 0.1, 0.01, 0.001])
    return Source("evo2", weights, {**CONFIG, **changes})


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


def test_trap_upper_case_bytes_and_no_bos():
    spec = EncoderSpec.model_validate(VORTEX.load(source_of(), None).card["encoder"])
    encoder = make_encoder(spec)
    check_encoder(encoder)
    (found,) = encoder.encode(to_codes("ACGTNac")[None])
    assert found.rows.tolist() == [[65, 67, 71, 84, 78, 65, 67]]
    assert (spec.vocab.prefix, spec.vocab.suffix, spec.vocab.pad_id) == ((), (), 1)


def test_trap_nothing_is_padded():
    loaded = VORTEX.load(source_of(), None)
    encoder = make_encoder(EncoderSpec.model_validate(loaded.card["encoder"]))
    codes = np.stack([to_codes(text) for text in ("ACGTA", "ACNTA", "NNNNN")])
    (group,) = encoder.encode(codes)
    assert group.rows.shape == (3, 5)
    assert "window" not in loaded.card


def test_card_and_window():
    loaded = VORTEX.load(source_of(), 100)
    assert loaded.network.max_rows == 100
    assert (loaded.card["context"], loaded.card["anchor"], loaded.card["logits_shift"]) == (
        100,
        50,
        1,
    )
    assert VORTEX.load(source_of(), None).card["context"] == 8192
    assert VORTEX.load(source_of(max_seqlen=500), None).card["context"] == 500
    with pytest.raises(InputError, match="--context 32769: allowed are 1 to 32768 bases"):
        VORTEX.load(source_of(), 32769)


# Blocks by hand


def test_trap_channels_are_interleaved():
    convolution = DecayingConvolution(Evo2Config(dim=4, pattern="L", heads=1, hidden=4))
    z = torch.arange(12.0)[None, :, None].repeat(1, 1, 3)
    x2, x1, value = (part[0, :, 0].tolist() for part in convolution.split(z))
    assert (x2, x1, value) == ([0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11])


def shared(length: int, *, medium: bool) -> SharedConvolution:
    config = Evo2Config(dim=4, pattern="S", heads=1, hidden=4)
    convolution = SharedConvolution(config, 2, length, medium=medium)
    taps = torch.arange(2.0 * length).view(2, 1, length)
    with torch.no_grad():
        convolution.h.copy_(taps)
    return convolution


def test_trap_short_taps_are_stored_backwards_and_groups_repeat():
    found = shared(3, medium=False).taps(9, torch.float64).tolist()
    # Neighbours share: channels 0 and 1 the first group, 2 and 3 the second.
    assert found == [[2, 1, 0], [2, 1, 0], [5, 4, 3], [5, 4, 3]]
    assert shared(3, medium=False).taps(2, torch.float64)[0].tolist() == [2, 1]
    assert shared(3, medium=False).D is None


def test_trap_medium_taps_are_stored_forwards():
    found = shared(128, medium=True).taps(3, torch.float64).tolist()
    assert found == [[0, 1, 2], [0, 1, 2], [128, 129, 130], [128, 129, 130]]
    assert shared(128, medium=True).taps(300, torch.float64).shape == (4, 128)
    assert shared(128, medium=True).D is not None


def test_long_taps_are_sums_of_decays():
    convolution = DecayingConvolution(Evo2Config(dim=34, pattern="L", heads=1, hidden=4, state=2))
    found = convolution.taps(5, torch.float64)
    rates, residues = convolution.log_poles.tolist(), convolution.residues.tolist()
    assert found.shape == (34, 5)  # more channels than are worked out at once
    for channel in (0, 33):
        for t in range(5):
            terms = [residues[channel][s] * math.exp(rates[channel][s][0] * t) for s in range(2)]
            assert found[channel, t].item() == pytest.approx(sum(terms), abs=1e-12)


def test_trap_gelu_in_the_first_block_alone():
    network = fresh(pattern="SASML")
    assert [block.mlp.gelu for block in network.blocks] == [True, False, False, False, False]
    mlp = network.blocks[1].mlp
    x = torch.randn(1, 2, 24)
    close(mlp(x), (x @ mlp.l1.weight.T * (x @ mlp.l2.weight.T)) @ mlp.l3.weight.T)


def test_trap_projections_of_attention_are_ungrouped():
    # Two heads of two dimensions; rows are named head, part, dimension.
    names = [f"{h}{p}{d}" for h in "ab" for p in "qkv" for d in "01"]
    found = ungroup(torch.arange(12.0)[:, None].repeat(1, 4), heads=2)[:, 0].int().tolist()
    assert [names[i] for i in found] == [f"{h}{p}{d}" for p in "qkv" for h in "ab" for d in "01"]


def test_trap_biases_are_where_they_are():
    names = set(fresh().state_dict())
    biases = {
        x.partition("blocks.3.")[2] for x in names if x.startswith("blocks.3.") and "bias" in x
    }
    assert biases == {"inner_mha_cls.out_proj.bias"}
    biases = {
        x.partition("blocks.2.")[2] for x in names if x.startswith("blocks.2.") and "bias" in x
    }
    assert biases == {"out_filter_dense.bias"}


# The network


def test_worked_out_taps_change_nothing():
    network = fresh()
    before = [network(ids(2, rows)) for rows in (1, 6, 127, 150)]
    network.materialise(150)
    for wanted in before:
        close(network(ids(2, wanted.shape[1])), wanted)


def test_trap_rows_do_not_see_what_follows():
    network = VORTEX.load(source_of(), 200).network
    rows = ids(2, 190)
    close(network.embed(rows[:, :140]), network.embed(rows)[:, :140])


def test_attend_and_training():
    network = fresh().train()
    embedding, maps = network.attend(ids(2, 7))
    close(embedding, network.embed(ids(2, 7)))
    assert maps.shape == (2, 1, 3, 7, 7)
    network(ids(2, 30)).logsumexp(-1).mean().backward()
    assert all(weight.grad.isfinite().all() for weight in network.parameters())
    matrices = {name for name, x in network.named_parameters() if FAMILY.trunk(name, x)}
    assert "blocks.2.projections.weight" in matrices
    assert not matrices & {"blocks.2.filter.residues", "embedding_layer.weight"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 5}, "dim 24 is not an even number for each of 5 heads"),
        ({"pattern": "SMX"}, r"model\.pattern: "),
        ({"short_groups": 7}, "dim 24 cannot be cut into the groups of channels"),
        ({"short_taps": 128}, r"model\.short_taps: "),
    ],
)
def test_config_of_a_training_run(change, message):
    with pytest.raises(InputError, match=message):
        build({**MODEL, **change})


def test_trap_graph_takes_other_shapes(tmp_path: Path):
    network = fresh(pattern="SLA")
    network.materialise(200)
    graph.write_graph(network, tmp_path / "model.onnx", "fp32")
    batches = [ids(*shape).numpy() for shape in ((1, 1), (5, 19), (1, 200))]
    for batch, found in zip(
        batches, graph.run_graph(tmp_path / "model.onnx", batches), strict=True
    ):
        for name, wanted in graph.run_torch(network, batch).items():
            assert np.abs(found[name] - wanted).max() <= 1e-5 * max(1, np.abs(wanted).max())


# Official checkpoints


def test_recognise_tells_other_systems():
    assert VORTEX.recognise(source_of())
    for other in (
        evo.build({"dim": 8, "layers": 2, "heads": 2, "hidden": 8, "attention": [1]}),
        gpn.build({"dim": 8, "hidden": 8, "dilations": [1]}),
    ):
        assert not VORTEX.recognise(Source("x", other.state_dict()))
    assert not VORTEX.recognise(Source("x", {}, CONFIG))


def test_trap_names_and_shapes_of_the_official_file():
    """Written out here: names made from the network would be right by definition."""
    shapes = {"embedding_layer.weight": (512, 24), "norm.scale": (24,)}
    for i in range(5):
        shapes |= {
            f"blocks.{i}.pre_norm.scale": (24,), f"blocks.{i}.post_norm.scale": (24,),
            f"blocks.{i}.mlp.l1.weight": (20, 24), f"blocks.{i}.mlp.l2.weight": (20, 24),
            f"blocks.{i}.mlp.l3.weight": (24, 20),
        }  # fmt: skip
    for i in (0, 1, 2, 4):
        shapes |= {
            f"blocks.{i}.projections.weight": (72, 24),
            f"blocks.{i}.out_filter_dense.weight": (24, 24),
            f"blocks.{i}.out_filter_dense.bias": (24,),
            f"blocks.{i}.filter.short_filter_weight": (72, 1, 3),
        }
    shapes |= {f"blocks.{i}.filter.h": (4, 1, 7) for i in (0, 4)}
    shapes |= {
        "blocks.1.filter.h": (6, 1, 128), "blocks.1.filter.D": (24,), "blocks.2.filter.D": (24,),
        "blocks.2.filter.log_poles": (24, 4, 1), "blocks.2.filter.residues": (24, 4),
        "blocks.3.inner_mha_cls.Wqkv.weight": (72, 24),
        "blocks.3.inner_mha_cls.out_proj.weight": (24, 24),
        "blocks.3.inner_mha_cls.out_proj.bias": (24,),
    }  # fmt: skip
    weights = {name: torch.ones(shape) for name, shape in shapes.items()}
    source = Source("official", weights, CONFIG)
    assert VORTEX.recognise(source)
    VORTEX.load(source, 64)


def test_loads_its_own_weights():
    network = fresh()
    for split in (True, False):
        source = source_of(network, column_split=split)
        if not split:
            source = changed(source, **{QKV: network.state_dict()[QKV]})
        close(VORTEX.load(source, 64).network(ids(2, 40)), network(ids(2, 40)))


def test_trap_extra_states_of_fp8_are_ignored(tmp_path: Path):
    source, buffer = source_of(), io.BytesIO(b"no tensor")
    path = tmp_path / "evo2_mine.pt"
    torch.save({**source.weights, "blocks.0.projections._extra_state": buffer}, path)
    read = dataclasses.replace(open_source(path), config=CONFIG)
    close(VORTEX.load(read, 64).network(ids(1, 9)), VORTEX.load(source, 64).network(ids(1, 9)))
    tensor = changed(source, blocks__0__projections___extra_state=torch.zeros(3))
    VORTEX.load(tensor, 64)


def test_trap_rotary_base_and_scale_come_from_the_config():
    stretched = {"use_interpolated_rotary_pos_emb": True, "rotary_emb_scaling_factor": 128}
    cases = [({}, 1), (stretched, 128), ({"rotary_emb_scaling_factor": 128}, 1)]
    for config, scale in cases:
        network = VORTEX.load(source_of(**config), 64).network
        frequency = network.blocks[3].inner_mha_cls.frequency * scale
        assert frequency.tolist() == pytest.approx([1, 0.1, 0.01, 0.001])
    with pytest.raises(InputError, match="heads 8 wide and rotary base 1e"):
        VORTEX.load(source_of(rotary_emb_base=1_000_000), 64)


@pytest.mark.parametrize(
    ("name", "sizes", "wanted"),
    [
        ("evo2_1b_base", (1920, 25, 5120), (15, 1e4, 1, 8192)),
        ("evo2_7b_base", (4096, 32, 11008), (32, 1e4, 1, 8192)),
        ("evo2_7b_262k", (4096, 32, 11008), (32, 1e4, 32, 262_144)),
        ("evo2_7b", (4096, 32, 11264), (32, 1e4, 128, 1_048_576)),
        ("evo2_20b", (8192, 24, 22528), (64, 1e6, 128, 1_048_576)),
        ("evo2_40b", (8192, 50, 22528), (64, 1e6, 128, 1_048_576)),
        ("evo2_40b_base", (8192, 50, 21888), (64, 1e6, 1, 8192)),
    ],
)
def test_trap_rotary_facts_of_the_authors_files(name, sizes, wanted):
    # Dimension of a head is 128 in all of them.
    assert sizes[0] == 128 * wanted[0]
    named = Source(name, {}, {"model_type": "evo2"}, files=(Path(f"{name}.pt"),))
    assert dataclasses.astuple(find_facts(named, sizes)) == wanted
    renamed = dataclasses.replace(named, files=(Path("weights.pt"),))
    if sizes != (4096, 32, 11008):
        assert dataclasses.astuple(find_facts(renamed, sizes)) == wanted
        return
    # Three files have these sizes, and their positions differ.
    with pytest.raises(InputError, match=r"as config\.yml, or keep the file's own name"):
        find_facts(renamed, sizes)


def test_facts_of_a_name_need_its_sizes_and_a_config_goes_before():
    named = Source("x", {}, files=(Path("evo2_7b.pt"),))
    with pytest.raises(InputError, match="sizes and file name do not tell"):
        find_facts(named, (24, 5, 20))
    base = dataclasses.replace(named, config=CONFIG, files=(Path("evo2_7b_base.pt"),))
    # The authors' .yml of this file says 32768, their README that it was trained on 8192.
    assert dataclasses.astuple(find_facts(base, (4096, 32, 11008))) == (3, 1e4, 1, 8192)
    assert dataclasses.astuple(find_facts(base, (24, 5, 20))) == (3, 1e4, 1, 32768)
    with pytest.raises(InputError, match="config: rotary_emb_base is None, wanted a number"):
        VORTEX.load(source_of(rotary_emb_base=None), 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm__weight": torch.ones(24)}, r"does not have: norm\.weight"),
        ({"norm__scale": None}, r"no weights for: norm\.scale"),
        ({"blocks__3__inner_mha_cls__Wqkv__bias": torch.ones(72)}, r"does not have: .*Wqkv\.bias"),
        ({"blocks__0__filter__D": torch.ones(24)}, r"does not have: blocks\.0\.filter\.D"),
        ({"blocks__1__filter__D": None}, r"no weights for: blocks\.1\.filter\.D"),
        ({"blocks__2__filter__log_poles": None}, "blocks without weights"),
        ({QKV: torch.ones(70, 24)}, r"Wqkv\.weight 70x24, wanted 72x24"),
        ({FREQUENCIES: torch.ones(4)}, "rotary base 10000"),
        ({"unembed__weight": torch.ones(512, 24)}, r"unembed\.weight differs"),
    ],
)
def test_keys_are_accounted_for(change, message):
    with pytest.raises(InputError, match=message):
        VORTEX.load(changed(source_of(), **change), 64)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", 32),
        ("hcl_layer_idxs", [1]),
        ("hcm_layer_idxs", [2]),
        ("inner_mlp_size", 24),
        ("interleave", False),
        ("column_split_hyena", True),
        ("hyena_flip_x1x2", True),
        ("evo2_style_activations", False),
        ("mlp_activation", "silu"),
        ("proj_groups", 4),
    ],
)
def test_config_that_contradicts(key, value):
    with pytest.raises(InputError, match=rf"config: {key} is "):
        VORTEX.load(source_of(**{key: value}), 64)
