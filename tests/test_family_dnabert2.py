"""DNABERT-2: tokens, what a checkpoint may hold, and ALiBi and the gated unit by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from glm_annotate.errors import InputError
from glm_annotate.train import graph
from glm_annotate.train.families import dnabert2
from glm_annotate.train.families.dnabert2 import FAMILY, OFFICIAL
from glm_annotate.train.families.family import Source

# The official tokenizer's first merges in its order, so that tokens can be found by hand.
MERGES = ["AA", "TT", "TG", "CA", "CC", "TA"]
WORDS = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "A", "C", "G", "T", *MERGES]
DECODER = "cls.predictions.decoder.weight"
EMBEDDINGS = "bert.embeddings.word_embeddings.weight"


def tokenizer_of(**changes):
    """A tokenizer.json as the authors ship theirs, cutting and padding included."""
    return {
        "version": "1.0",
        "truncation": {
            "direction": "Right",
            "max_length": 9,
            "strategy": "LongestFirst",
            "stride": 0,
        },
        "padding": {
            "strategy": {"Fixed": 7},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 3,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
        "added_tokens": [
            {
                "id": i,
                "content": word,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for i, word in enumerate(WORDS[:5])
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "[UNK]",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {word: i for i, word in enumerate(WORDS)},
            "merges": [" ".join(word) for word in MERGES],
            **changes,
        },
    }


def config_of(**changes):
    """An official config.json of a small DNABERT-2; 6 heads, which is no power of two."""
    return {
        "alibi_starting_size": 512,
        "attention_probs_dropout_prob": 0.0,
        "hidden_act": "gelu",
        "hidden_size": 24,
        "intermediate_size": 10,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "model_type": "bert",
        "num_attention_heads": 6,
        "num_hidden_layers": 2,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "type_vocab_size": 2,
        "vocab_size": len(WORDS),
        **changes,
    }


def weights_of(config, seed=0):
    """Random weights under the official names, both matrices stored."""
    generator = torch.Generator().manual_seed(seed)
    names = {
        "vocabulary": "vocab_size",
        "dim": "hidden_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "hidden": "intermediate_size",
    }
    network = FAMILY.build({ours: config[theirs] for ours, theirs in names.items()})
    weights = {
        name: torch.randn(value.shape, generator=generator) * 0.4
        for name, value in network.state_dict().items()
    }
    weights[DECODER] = weights[EMBEDDINGS].clone()
    return weights


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer_of()))
    return tmp_path


@pytest.fixture
def source(folder):
    return Source("checkpoint", weights_of(config_of()), config_of(), folder)


def change(source, weights=None, **changes):
    """A source with some weights and config keys replaced; a weight of None is removed."""
    kept = {k: v for k, v in {**source.weights, **(weights or {})}.items() if v is not None}
    return Source(source.name, kept, {**source.config, **changes}, source.folder)


def load(source, context=None):
    return OFFICIAL.load(source, context)


# ALiBi, attention and the gated unit


@pytest.mark.parametrize(
    ("heads", "powers"),
    [
        (1, [-8]),
        (2, [-4, -8]),
        (3, [-4, -8, -2]),
        (6, [-2, -4, -6, -8, -1, -3]),
        (8, [-1, -2, -3, -4, -5, -6, -7, -8]),
        (12, [-1, -2, -3, -4, -5, -6, -7, -8, -0.5, -1.5, -2.5, -3.5]),
        (16, [-(i + 1) / 2 for i in range(16)]),
    ],
)
def test_trap_slopes_where_heads_are_no_power_of_two(heads, powers):
    np.testing.assert_allclose(dnabert2.slopes(heads), [2.0**x for x in powers], rtol=1e-15)


@torch.no_grad()
def test_alibi_falls_with_the_distance_to_both_sides(source):
    encoder = load(source).network.bert.encoder
    bias = encoder.bias(torch.zeros(1, 4, 24))
    assert bias.shape == (6, 4, 4)
    # Head 1 has the slope 1/16.
    expected = [[-abs(i - j) / 16 for j in range(4)] for i in range(4)]
    assert torch.equal(bias[1], torch.tensor(expected))


@torch.no_grad()
def test_attention_by_hand():
    # One head of two dimensions; queries, keys and values one after the other in the matrix.
    part = dnabert2.Attention(2, 1)
    query, key, value = [[1.0, 0.0], [0.0, 1.0]], [[0.0, 2.0], [1.0, 0.0]], [[3.0, 0.0], [0.0, 5.0]]
    part.Wqkv.weight.copy_(torch.tensor([*query, *key, *value]))
    part.Wqkv.bias.zero_()
    x = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    # Keys are (0, 1) and (2, 0): row 0 scores 0 and 2 / sqrt 2, row 1 scores 1 / sqrt 2 and 0.
    out, maps = part(x, torch.tensor([[[0.0, -0.25], [-0.25, 0.0]]]))
    raw = [[0.0, math.sqrt(2) - 0.25], [1 / math.sqrt(2) - 0.25, 0.0]]
    expected = [[math.exp(v) / sum(map(math.exp, row)) for v in row] for row in raw]
    torch.testing.assert_close(maps[0, 0], torch.tensor(expected))
    torch.testing.assert_close(out[0], torch.tensor(expected) * torch.tensor([3.0, 5.0]))


@torch.no_grad()
def test_trap_the_first_half_of_the_gated_layer_is_the_gate():
    unit = dnabert2.GatedUnit(2, 1, 1e-12)
    unit.gated_layers.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    unit.wo.weight.copy_(torch.tensor([[1.0], [0.0]]))
    unit.wo.bias.zero_()
    unit.layernorm = torch.nn.Identity()
    # gelu(2) x 3 = 2 x Phi(2) x 3.
    gate = 2 * (1 + math.erf(2 / math.sqrt(2))) / 2
    torch.testing.assert_close(
        unit(torch.tensor([[[2.0, 3.0]]])), torch.tensor([[[2.0 + 3 * gate, 3.0]]])
    )
    assert unit.gated_layers.bias is None


def test_trap_the_norm_of_the_head_does_not_follow_the_config(source):
    network = load(change(source, layer_norm_eps=0.5)).network
    assert network.cls.predictions.transform.LayerNorm.eps == 1e-12
    others = [x.eps for x in network.bert.modules() if isinstance(x, torch.nn.LayerNorm)]
    assert others == [0.5] * 5


@torch.no_grad()
def test_attention_maps_are_distributions(source):
    network = load(source).network
    rows = torch.arange(34).reshape(2, 17) % len(WORDS)
    embedding, maps = network.attend(rows)
    assert torch.equal(embedding, network.embed(rows))
    assert maps.shape == (2, 2, 6, 17, 17)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 2, 6, 17))


@pytest.mark.parametrize("attention", [False, True])
def test_trap_the_graph_holds_no_table_of_distances(tmp_path, source, attention):
    # 700 rows are more than the traced 41 and the authors' 512.
    network = load(source).network
    assert network.max_rows is None
    path = tmp_path / "model.onnx"
    graph.write_graph(network, path, "fp32", attention=attention)
    rng = np.random.default_rng(0)
    shapes = ((1, 1), (5, 19), (1, 700))
    batches = [rng.integers(len(WORDS), size=shape) for shape in shapes]
    for rows, found in zip(
        batches, graph.run_graph(path, batches, attention=attention), strict=True
    ):
        wanted = graph.run_torch(network, rows, attention=attention)
        assert graph.compare(found, wanted).worst < 5e-6


# Tokens


@pytest.fixture
def encoder(source, tmp_path):
    pytest.importorskip("tokenizers")
    from glm_annotate.encoding import EncoderSpec, make_encoder

    loaded = load(source)
    path = tmp_path / "bundled.json"
    path.write_text(loaded.tokenizer)
    return make_encoder(EncoderSpec.model_validate(loaded.card["encoder"]), path)


def encode(encoder, text):
    from glm_annotate.genome import to_codes

    (group,) = encoder.encode(to_codes(text.encode())[None])
    return group.rows[0].tolist(), group.spans[0].tolist()


def test_tokens_and_spans_by_hand(encoder):
    # TT first; then CA, which was learned before CC. N is [UNK].
    rows, spans = encode(encoder, "TTGACCAN")
    assert rows == [1, 10, 7, 5, 6, 12, 0, 2]
    inner = [[0, 2], [2, 3], [3, 4], [4, 5], [5, 7], [7, 8]]
    assert spans == [[-1, -1], *inner, [-1, -1]]


def test_trap_every_n_is_a_token(encoder):
    assert encode(encoder, "ANNNA")[0] == [1, 5, 0, 0, 0, 5, 2]


def test_trap_lower_case_is_not_unknown(encoder):
    assert encode(encoder, "ttgaccan") == encode(encoder, "TTGACCAN")


def test_trap_cutting_and_padding_of_the_tokenizer_are_dropped(encoder):
    assert len(encode(encoder, "G" * 30)[0]) == 32
    assert len(encode(encoder, "G")[0]) == 3


def test_the_encoder_keeps_its_promises(encoder):
    from glm_annotate.testing import check_encoder

    check_encoder(encoder)


def test_the_tokenizer_is_handed_over_without_cutting_and_padding(source):
    given = json.loads(load(source).tokenizer)
    assert given == {**tokenizer_of(), "truncation": None, "padding": None}


def write_tokenizer(source, **changes):
    (source.folder / "tokenizer.json").write_text(json.dumps(tokenizer_of(**changes)))


def ids(**changes):
    values = {word: i for i, word in enumerate(WORDS)} | changes
    return {word: i for word, i in values.items() if i is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "WordPiece"}, "the tokenizer is WordPiece, wanted BPE"),
        ({"vocab": ids(**{"[PAD]": 0, "[UNK]": 3})}, r"the id of \[UNK\] is 3, wanted 0"),
        ({"vocab": ids(**{"[MASK]": None})}, r"the id of \[MASK\] is None, wanted 4"),
        ({"vocab": ids(TAT=15)}, "has 16 ids, the model has 15"),
        ({"vocab": ids(TA=None)}, "has 14 ids, the model has 15"),
        ({"vocab": ids(G=None)}, "has no token for G"),
        ({"vocab": None}, r"cannot be read .* fetch the tokenizer\.json"),
    ],
)
def test_a_tokenizer_of_something_else_is_refused(source, changes, message):
    write_tokenizer(source, **changes)
    with pytest.raises(InputError, match=message) as caught:
        load(source)
    assert "tokenizer.json: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_is_not_there_is_named(source):
    (source.folder / "tokenizer.json").write_text("no json")
    with pytest.raises(InputError, match=r"cannot be read .* fetch the tokenizer\.json"):
        load(source)
    (source.folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"checkpoint: no tokenizer\.json beside the weights"):
        load(source)


# The card


def test_trap_the_pad_of_the_tokenizer_is_not_that_of_the_config(source):
    assert source.config["pad_token_id"] == 0
    vocab = load(source).card["encoder"]["vocab"]
    named = {key: vocab[key] for key in ("unk_id", "prefix", "suffix", "pad_id", "mask_id")}
    assert named == {"unk_id": 0, "prefix": [1], "suffix": [2], "pad_id": 3, "mask_id": 4}


@torch.no_grad()
def test_trap_the_row_of_unknown_is_used_as_stored(source):
    # The pad_token_id 0 only keeps its look-ups out of training: what the file holds counts.
    weights = source.weights[EMBEDDINGS].clone()
    weights[0] = 0
    rows = torch.tensor([[1, 0, 9, 2]])
    zero = load(change(source, {EMBEDDINGS: weights, DECODER: weights})).network
    assert torch.isfinite(zero(rows)).all()
    assert (
        zero(rows)[0, :, 0].tolist()
        == [float(source.weights["cls.predictions.decoder.bias"][0])] * 4
    )
    own = load(source).network
    assert (own.embed(rows) - zero.embed(rows)).abs().max() > 0.1


def test_windows(source):
    card = load(source, 300).card
    assert (card["context"], card["anchor"]) == (300, 150)
    assert card["window"] == {"kind": "dynamic", "max_tokens": 512}
    assert card["scores"] == ["PLLR", "EMB_COS"]
    # 510 tokens of two bases, the longest here, between [CLS] and [SEP].
    assert load(source).card["context"] == 1020
    assert load(source, 1020).card["context"] == 1020
    for context in (0, 1021):
        with pytest.raises(InputError, match="allowed are 1 to 1020 bases"):
            load(source, context)


def test_the_default_window_where_tokens_are_long(source):
    write_tokenizer(source, vocab=ids(TA=None, CATTA=14))
    assert load(source).card["context"] == 2048


# Checkpoints


def test_recognises_its_own_and_nobody_else(source):
    assert OFFICIAL.recognise(source)
    qkv = "bert.encoder.layer.0.attention.self.Wqkv.weight"
    others = {
        "nothing": {},
        "dnabert": {
            EMBEDDINGS: torch.zeros(4101, 12),
            "bert.embeddings.position_embeddings.weight": torch.zeros(512, 12),
            "bert.encoder.layer.0.attention.self.query.weight": torch.zeros(12, 12),
        },
        "with positions": {
            **source.weights,
            "bert.embeddings.position_embeddings.weight": torch.zeros(512, 24),
        },
        "without gates": {qkv: torch.zeros(36, 12)},
        "gena": {"bert.encoder.layer.0.pre_attention_ln.weight": torch.zeros(12)},
        "nt": {"esm.encoder.layer.0.attention.self.query.weight": torch.zeros(12, 12)},
        "evo": {"blocks.0.inner_mha_cls.Wqkv.weight": torch.zeros(36, 12)},
        "caduceus": {"caduceus.backbone.norm_f.weight": torch.zeros(12)},
    }
    assert [name for name, x in others.items() if OFFICIAL.recognise(Source(name, x))] == []


def test_trap_names_and_shapes_of_the_official_file(folder):
    """Written out here: names made from the network would be right by definition."""
    shapes = {
        "bert.embeddings.word_embeddings.weight": (15, 24),
        "bert.embeddings.token_type_embeddings.weight": (2, 24),
        "bert.embeddings.LayerNorm.weight": (24,),
        "bert.embeddings.LayerNorm.bias": (24,),
        "cls.predictions.transform.dense.weight": (24, 24),
        "cls.predictions.transform.dense.bias": (24,),
        "cls.predictions.transform.LayerNorm.weight": (24,),
        "cls.predictions.transform.LayerNorm.bias": (24,),
        "cls.predictions.decoder.weight": (15, 24),
        "cls.predictions.decoder.bias": (15,),
    }
    for layer in ("bert.encoder.layer.0", "bert.encoder.layer.1"):
        shapes |= {
            f"{layer}.attention.self.Wqkv.weight": (72, 24),
            f"{layer}.attention.self.Wqkv.bias": (72,),
            f"{layer}.attention.output.dense.weight": (24, 24),
            f"{layer}.attention.output.dense.bias": (24,),
            f"{layer}.attention.output.LayerNorm.weight": (24,),
            f"{layer}.attention.output.LayerNorm.bias": (24,),
            f"{layer}.mlp.gated_layers.weight": (20, 24),
            f"{layer}.mlp.wo.weight": (24, 10),
            f"{layer}.mlp.wo.bias": (24,),
            # Not LayerNorm here.
            f"{layer}.mlp.layernorm.weight": (24,),
            f"{layer}.mlp.layernorm.bias": (24,),
        }
    weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
    official = Source("official", weights, config_of(), folder)
    assert OFFICIAL.recognise(official)
    load(official)


def test_trap_sizes_add_up_to_the_official_file():
    """Its 468,354,983 bytes are the numbers, and 100 kB of names: no pooler, one tied matrix."""
    sizes = {"vocabulary": 4096, "dim": 768, "layers": 12, "heads": 12, "hidden": 3072}
    with torch.device("meta"):
        network = FAMILY.build(sizes)
    numbers = sum(weight.numel() for weight in network.parameters())
    assert 0 < 468_354_983 - 4 * numbers < 100_000


def test_every_weight_is_read(source):
    found = load(source).network.state_dict()
    assert found.keys() == source.weights.keys()
    assert all(torch.equal(found[name], source.weights[name]) for name in found)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"bert.encoder.layer.0.mlp.gated_layers.bias": torch.ones(20)}, "does not have: bert"),
        ({"bert.encoder.layer.1.mlp.layernorm.bias": None}, "no weights for: bert.encoder.layer.1"),
        ({"bert.encoder.layer.1.mlp.wo.bias": torch.ones(7)}, "7, wanted 24"),
        ({"cls.predictions.bias": torch.ones(15)}, "does not have: cls.predictions.bias"),
        ({"cls.predictions.decoder.bias": None}, "no weights for: cls.predictions.decoder.bias"),
    ],
)
def test_keys_that_do_not_fit_are_refused(source, weights, message):
    with pytest.raises(InputError, match=message):
        load(change(source, weights))


@torch.no_grad()
@pytest.mark.parametrize(
    "weights",
    [
        {"bert.embeddings.token_type_ids": torch.zeros(1, 512, dtype=torch.int64)},
        {"bert.pooler.dense.weight": torch.ones(24, 24), "bert.pooler.dense.bias": torch.ones(24)},
        {DECODER: None},
    ],
    ids=["token_type_ids", "pooler", "tied decoder"],
)
def test_known_buffers_and_twins_change_nothing(source, weights):
    rows = torch.arange(40).reshape(2, 20) % len(WORDS)
    found = load(change(source, weights)).network(rows)
    assert torch.equal(found, load(source).network(rows))


def test_a_decoder_that_is_not_tied_is_used_as_stored(source):
    other = change(source, {DECODER: source.weights[DECODER] + 1})
    found = load(other).network.state_dict()
    assert torch.equal(found[EMBEDDINGS], source.weights[EMBEDDINGS])
    assert torch.equal(found[DECODER], source.weights[DECODER] + 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "relu"}, "hidden_act is 'relu', wanted 'gelu'"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"num_attention_heads": 5}, "dim 24 is no multiple of 5 heads"),
        ({"vocab_size": 16}, "has 15 ids, the model has 16"),
        ({"intermediate_size": 11}, "20x24, wanted 22x24"),
    ],
)
def test_a_config_of_something_else_is_refused(source, changes, message):
    with pytest.raises(InputError, match=message):
        load(change(source, **changes))


def test_a_config_that_is_not_there_is_named(source):
    with pytest.raises(InputError, match=r"no config\.json"):
        load(Source("checkpoint", source.weights, {}, source.folder))


def test_a_model_table_builds_a_fresh_network():
    table = {"vocabulary": 15, "dim": 24, "layers": 1, "heads": 3, "hidden": 8}
    made = FAMILY.build(table)
    assert (made.dim, made.vocabulary, made.has_attention) == (24, 15, True)
    trunk = {name for name, weight in made.named_parameters() if FAMILY.trunk(name, weight)}
    layer = "bert.encoder.layer.0"
    assert trunk == {
        f"{layer}.attention.self.Wqkv.weight",
        f"{layer}.attention.output.dense.weight",
        f"{layer}.mlp.gated_layers.weight",
        f"{layer}.mlp.wo.weight",
    }
    with pytest.raises(InputError, match=r"model\.width"):
        FAMILY.build({**table, "width": 3})
