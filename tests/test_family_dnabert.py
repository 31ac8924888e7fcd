"""DNABERT: ids, windows, what a checkpoint may hold, and the network by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from glm_annotate.encoding import EncoderSpec, make_encoder, mask_rows
from glm_annotate.errors import InputError
from glm_annotate.genome import to_codes
from glm_annotate.testing import check_encoder
from glm_annotate.train import graph
from glm_annotate.train.families import dnabert
from glm_annotate.train.families.bert import BIASES
from glm_annotate.train.families.dnabert import FAMILY, OFFICIAL
from glm_annotate.train.families.family import Source

SIZES = {3: 69, 4: 261, 5: 1029, 6: 4101}
CLS, SEP, UNK, MASK = 2, 3, 1, 4
DECODER = "cls.predictions.decoder.weight"
WORDS = "bert.embeddings.word_embeddings.weight"


def config_of(k=3, **changes):
    """An official config.json of a small DNABERT."""
    return {
        "architectures": ["BertForMaskedLM"],
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "rnn": "lstm",
        "split": 10,
        "hidden_size": 12,
        "intermediate_size": 20,
        "max_position_embeddings": 512,
        "num_attention_heads": 3,
        "num_hidden_layers": 2,
        "type_vocab_size": 2,
        "vocab_size": SIZES[k],
        **changes,
    }


def weights_of(config, seed=0):
    """Random weights under the official names, both biases and both matrices stored."""
    generator = torch.Generator().manual_seed(seed)
    values = {
        ours: config[theirs]
        for ours, theirs in {
            "vocabulary": "vocab_size",
            "dim": "hidden_size",
            "layers": "num_hidden_layers",
            "heads": "num_attention_heads",
            "hidden": "intermediate_size",
            "positions": "max_position_embeddings",
        }.items()
    }
    weights = {
        name: torch.randn(value.shape, generator=generator) * 0.4
        for name, value in FAMILY.build(values).state_dict().items()
    }
    weights[DECODER] = weights[WORDS].clone()
    weights["cls.predictions.bias"] = weights["cls.predictions.decoder.bias"].clone()
    return weights


def source_of(k=3, folder=None, **changes):
    config = config_of(k, **changes)
    return Source("checkpoint", weights_of(config), config, folder)


def encoder_of(k=3, **changes):
    return make_encoder(EncoderSpec.model_validate(card_of(k, **changes)["encoder"]))


def card_of(k=3, context=None, **changes):
    return OFFICIAL.load(source_of(k, **changes), context).card


def encode(text, k=3):
    (group,) = encoder_of(k).encode(to_codes(text.encode())[None])
    return group.rows[0].tolist(), group.spans[0].tolist()


# Ids and windows


@pytest.mark.parametrize(("k", "size"), SIZES.items())
def test_vocabulary_is_that_of_the_k(k, size):
    words = dnabert.vocabulary(k)
    assert len(words) == len(set(words)) == size
    assert words[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    first, last = "A" * k, "G" * k
    assert (words[5], words[-1]) == (first, last)


def test_trap_order_of_bases_is_atcg():
    # Digits A 0, T 1, C 2, G 3: ATC = 0 + 4 + 2, TCG = 16 + 8 + 3, CGA = 32 + 12 + 0; first id 5.
    assert encode("ATCGA")[0] == [CLS, 11, 32, 49, SEP]
    # GATTAC = 3 x 1024 + 0 + 1 x 64 + 1 x 16 + 0 + 2.
    assert encode("GATTAC", k=6)[0] == [CLS, 3159, SEP]
    words = dnabert.vocabulary(6)
    assert words[3159] == "GATTAC"


@pytest.mark.parametrize("k", SIZES)
def test_the_encoder_keeps_its_promises(k):
    # So long that no k-mer of the base that it changes holds an N, which would hide the change.
    check_encoder(encoder_of(k), length=85)


@pytest.mark.parametrize(("k", "length"), [(3, 9), (4, 4), (5, 23), (6, 40)])
def test_trap_a_base_belongs_to_all_rows_that_cover_it(k, length):
    rows, spans = encode("ACGT" * 10, k) if length == 40 else encode(("ACGT" * 10)[:length], k)
    assert len(rows) == length - k + 1 + 2
    assert spans[0] == spans[-1] == [-1, -1]
    for base in range(length):
        covering = [t for t, (start, end) in enumerate(spans) if start <= base < end]
        first, last = max(0, base - k + 1), min(base, length - k)
        assert covering == [i + 1 for i in range(first, last + 1)]
    for row in range(1, len(rows) - 1):
        assert spans[row] == [row - 1, row - 1 + k]


def test_trap_kmers_with_n_are_unknown_and_no_row_is_lost():
    rows, _ = encode("ATCGNATCG")
    assert rows == [CLS, 11, 32, UNK, UNK, UNK, 11, 32, SEP]


@pytest.mark.parametrize("k", SIZES)
def test_trap_lower_case_is_not_unknown(k):
    # The authors' tokenizer takes soft-masked bases for unknown k-mers.
    text = "ACGTTGCATGACC"
    assert encode(text.lower(), k) == encode(text, k)
    assert UNK not in encode(text.lower(), k)[0]


def test_trap_all_k_overlapping_rows_are_masked():
    # One row masked alone leaks the base through its k - 1 neighbours.
    encoder = encoder_of(6)
    (group,) = encoder.encode(to_codes(b"ACGTTGCATGACCTAGGATC")[None])
    spans = group.spans[0]
    touched = (spans[:, 0] <= 10) & (spans[:, 1] > 10)
    masked = mask_rows(group.rows, touched, encoder.spec)[0].tolist()
    assert [t for t, row in enumerate(masked) if row == MASK] == [6, 7, 8, 9, 10, 11]


@pytest.mark.parametrize("k", SIZES)
def test_trap_no_window_is_longer_than_the_table_of_positions(k):
    card = card_of(k)
    assert (card["context"], card["anchor"]) == (512, 256)
    most = 509 + k
    text = "ACGT" * 200
    assert len(encode(text[:most], k)[0]) == 512
    assert card_of(k, most)["context"] == most
    with pytest.raises(InputError, match=f"allowed are {k} to {most} bases"):
        card_of(k, most + 1)
    with pytest.raises(InputError, match="allowed are"):
        card_of(k, k - 1)
    assert card_of(k, k)["context"] == k


def test_a_short_table_of_positions_gives_a_short_default():
    assert card_of(4, max_position_embeddings=40)["context"] == 41


def test_trap_nothing_is_padded():
    # The authors' code lets padding take part in attention, so no window may need any.
    codes = np.stack([to_codes(text) for text in (b"ACGTACGTA", b"ACNTACGNA", b"NNNNNNNNN")])
    (group,) = encoder_of(3).encode(codes)
    assert group.rows.shape == (3, 9)
    assert "window" not in card_of(3)


# Checkpoints


def test_recognises_its_own_and_nobody_else():
    assert all(OFFICIAL.recognise(source_of(k)) for k in SIZES)
    big = torch.zeros(32000, 12)
    own = source_of().weights
    gena = {**own, WORDS: big, "bert.encoder.layer.0.pre_attention_ln.weight": torch.ones(12)}
    others = {
        "nothing": {},
        "a scalar": {WORDS: torch.tensor(1.0)},
        "dnabert-2": {
            WORDS: torch.zeros(4096, 12),
            "bert.encoder.layer.0.attention.self.Wqkv.weight": torch.zeros(36, 12),
            "bert.encoder.layer.0.mlp.gated_layers.weight": torch.zeros(40, 12),
        },
        "gena": gena,
        "gena of 69 tokens": {**gena, WORDS: own[WORDS]},
        "bigbird": {**own, WORDS: big},
        "nt": {"esm.embeddings.word_embeddings.weight": torch.zeros(4105, 12)},
        "gpn": {"model.encoder.0.conv.1.weight": torch.zeros(4, 4, 9)},
        "gpn-msa": {"model.encoder.layer.0.attention.self.query.weight": torch.zeros(12, 12)},
        "hyena": {"hyena.backbone.embeddings.word_embeddings.weight": torch.zeros(16, 12)},
        "evo": {"blocks.0.inner_mha_cls.Wqkv.weight": torch.zeros(36, 12)},
        "caduceus": {"caduceus.backbone.embeddings.word_embeddings.weight": torch.zeros(16, 12)},
    }
    assert [name for name, x in others.items() if OFFICIAL.recognise(Source(name, x))] == []


@pytest.mark.parametrize("norms", [("weight", "bias"), ("gamma", "beta")])
def test_trap_names_and_shapes_of_the_official_file(norms):
    """Written out here: names made from the network would be right by definition."""
    shapes = {
        "bert.embeddings.word_embeddings.weight": (69, 12),
        "bert.embeddings.position_embeddings.weight": (512, 12),
        "bert.embeddings.token_type_embeddings.weight": (2, 12),
        "bert.pooler.dense.weight": (12, 12),
        "bert.pooler.dense.bias": (12,),
        "cls.predictions.bias": (69,),
        "cls.predictions.decoder.weight": (69, 12),
        "cls.predictions.decoder.bias": (69,),
    }
    linear = {"cls.predictions.transform.dense": (12, 12)}
    normed = ["bert.embeddings.LayerNorm", "cls.predictions.transform.LayerNorm"]
    for layer in ("bert.encoder.layer.0", "bert.encoder.layer.1"):
        linear |= {f"{layer}.attention.self.{x}": (12, 12) for x in ("query", "key", "value")}
        linear[f"{layer}.attention.output.dense"] = (12, 12)
        linear |= {f"{layer}.intermediate.dense": (20, 12), f"{layer}.output.dense": (12, 20)}
        normed += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    shapes |= {f"{name}.{part}": (12,) for name in normed for part in norms}
    weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
    assert OFFICIAL.recognise(Source("official", weights, config_of()))
    OFFICIAL.load(Source("official", weights, config_of()), None)


def test_trap_sizes_add_up_to_the_official_file():
    """DNA_bert_6 is 359 MB: the decoder is the table of embeddings, and there is a pooler."""
    sizes = {"vocabulary": 4101, "dim": 768, "layers": 12, "heads": 12, "hidden": 3072}
    with torch.device("meta"):
        network = FAMILY.build(sizes)
    pooler = 768 * 768 + 768
    numbers = sum(weight.numel() for weight in network.parameters()) + pooler
    assert round(4 * numbers / 1e6) == 359


def test_every_weight_is_read():
    source = source_of()
    found = OFFICIAL.load(source, None).network.state_dict()
    unread = [name for name, value in source.weights.items() if name in found]
    assert len(unread) == len(found)
    assert all(torch.equal(found[name], source.weights[name]) for name in found)


def change(source, **changes):
    """Weights with some replaced; None removes one."""
    weights = {**source.weights, **changes.pop("weights", {})}
    kept = {name: value for name, value in weights.items() if value is not None}
    return Source(source.name, kept, {**source.config, **changes}, source.folder)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"bert.extra.weight": torch.ones(2)}, "keys that this system does not have: bert.extra"),
        ({"bert.encoder.layer.2.output.dense.bias": torch.ones(12)}, "does not have"),
        ({"bert.encoder.layer.1.output.dense.bias": None}, "no weights for: bert.encoder.layer.1"),
        ({"bert.encoder.layer.1.output.dense.bias": torch.ones(7)}, "7, wanted 12"),
        (dict.fromkeys(BIASES), "no weights for: cls.predictions.decoder.bias"),
        ({"cls.predictions.bias": torch.ones(69)}, "differ, and are one weight"),
        ({"cls.predictions.bias": torch.ones(7)}, "differ, and are one weight"),
    ],
)
def test_keys_that_do_not_fit_are_refused(weights, message):
    with pytest.raises(InputError, match=message):
        OFFICIAL.load(change(source_of(), weights=weights), None)


@torch.no_grad()
@pytest.mark.parametrize(
    "weights",
    [
        {"bert.embeddings.position_ids": torch.arange(512)[None]},
        {"bert.pooler.dense.weight": torch.ones(12, 12), "bert.pooler.dense.bias": torch.ones(12)},
        {"cls.predictions.bias": None},
        {"cls.predictions.decoder.bias": None},
        {DECODER: None},
    ],
    ids=["position_ids", "pooler", "one bias", "the other bias", "tied decoder"],
)
def test_known_buffers_and_twins_change_nothing(weights):
    rows = torch.arange(40).reshape(2, 20)
    plain = OFFICIAL.load(source_of(), None).network(rows)
    assert torch.equal(
        OFFICIAL.load(change(source_of(), weights=weights), None).network(rows), plain
    )


@torch.no_grad()
def test_trap_older_files_call_norms_gamma_and_beta():
    source = source_of()
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in source.weights.items()
    }
    # Embeddings, two norms in each of two layers, and the head: a weight and a bias each.
    assert sum(name.endswith(("gamma", "beta")) for name in old) == 12
    rows = torch.arange(30).reshape(2, 15)
    found = OFFICIAL.load(Source("old", old, source.config), None).network(rows)
    assert torch.equal(found, OFFICIAL.load(source, None).network(rows))


@torch.no_grad()
def test_a_decoder_that_is_not_tied_is_used_as_stored():
    source = source_of()
    other = change(source, weights={DECODER: source.weights[DECODER] + 1})
    found = OFFICIAL.load(other, None).network.state_dict()
    assert torch.equal(found[WORDS], source.weights[WORDS])
    assert torch.equal(found[DECODER], source.weights[DECODER] + 1)


@torch.no_grad()
def test_trap_mlm_bias_twice():
    rows = torch.arange(30).reshape(2, 15)
    once = OFFICIAL.load(source_of(), None).network
    twice = OFFICIAL.load(source_of(mlm_bias_twice=True), None).network
    bias = source_of().weights["cls.predictions.bias"]
    assert torch.equal(twice.embed(rows), once.embed(rows))
    torch.testing.assert_close(twice(rows), once(rows) + bias)
    assert bias.abs().max() > 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "relu"}, "hidden_act is 'relu', wanted 'gelu'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"vocab_size": 70}, "vocab_size is 70, wanted 69 or 261 or 1029 or 4101"),
        ({"num_attention_heads": 5}, "dim 12 is no multiple of 5 heads"),
        ({"num_hidden_layers": 0}, "config: num_hidden_layers"),
        ({"hidden_size": "wide"}, "config: hidden_size"),
        ({"intermediate_size": 21}, "20x12, wanted 21x12"),
    ],
)
def test_a_config_of_something_else_is_refused(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        OFFICIAL.load(change(source_of(), **changes), None)
    assert str(caught.value).startswith("checkpoint: ")
    assert "\n" not in str(caught.value)


def test_a_config_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"no config\.json"):
        OFFICIAL.load(Source("checkpoint", source_of().weights), None)
    config = {k: v for k, v in config_of().items() if k != "num_attention_heads"}
    with pytest.raises(InputError, match="config: num_attention_heads: Field required"):
        OFFICIAL.load(Source("checkpoint", source_of().weights, config), None)


def test_vocab_txt_must_be_that_of_the_k(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(dnabert.vocabulary(3)) + "\n")
    OFFICIAL.load(source_of(3, tmp_path), None)
    words = dnabert.vocabulary(3)
    words[6], words[7] = words[7], words[6]
    path.write_text("\n".join(words))
    with pytest.raises(InputError, match=r"vocab\.txt: line 7: found AAC, wanted AAT"):
        OFFICIAL.load(source_of(3, tmp_path), None)
    path.write_text("\n".join(dnabert.vocabulary(4)))
    with pytest.raises(InputError, match="line 6: found AAAA, wanted AAA"):
        OFFICIAL.load(source_of(3, tmp_path), None)
    path.write_text("\n".join(dnabert.vocabulary(3)[:-1]))
    with pytest.raises(InputError, match="line 69: found nothing, wanted GGG"):
        OFFICIAL.load(source_of(3, tmp_path), None)


def test_releases_and_card():
    names = {x.repository: x.context for x in OFFICIAL.releases}
    assert names == {f"zhihan1996/DNA_bert_{k}": 509 + k for k in SIZES}
    card = card_of(6)
    vocab = card["encoder"]["vocab"]
    assert (card["encoder"]["k"], card["encoder"]["stride"], vocab["first_id"]) == (6, 1, 5)
    assert (vocab["prefix"], vocab["suffix"], vocab["mask_id"]) == ([CLS], [SEP], MASK)
    assert card["scores"] == ["LLR", "PLLR", "EMB_COS"]
    json.dumps(card)


# The network


@pytest.fixture
def network():
    return OFFICIAL.load(source_of(max_position_embeddings=64), None).network


@torch.no_grad()
def test_attention_maps_are_distributions(network):
    rows = torch.arange(34).reshape(2, 17)
    embedding, maps = network.attend(rows)
    assert torch.equal(embedding, network.embed(rows))
    assert maps.shape == (2, 2, 3, 17, 17)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 2, 3, 17))


@torch.no_grad()
def test_one_layer_by_hand():
    config = config_of(num_hidden_layers=1, num_attention_heads=1)
    weights = {name: value.double() for name, value in weights_of(config).items()}
    network = OFFICIAL.load(Source("one", weights_of(config), config), None).network.double()
    rows = [7, 4, 68]

    def linear(name, x):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name, x):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-12).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def gelu(x):
        return x * (1 + torch.erf(x / 2**0.5)) / 2

    at, layer = "bert.embeddings", "bert.encoder.layer.0"
    x = weights[WORDS][rows] + weights[f"{at}.position_embeddings.weight"][:3]
    x = norm(f"{at}.LayerNorm", x + weights[f"{at}.token_type_embeddings.weight"][0])
    query, key, value = (
        linear(f"{layer}.attention.self.{part}", x) for part in ("query", "key", "value")
    )
    seen = ((query @ key.T) / 12**0.5).exp()
    seen = seen / seen.sum(-1, keepdim=True) @ value
    out = f"{layer}.attention.output"
    x = norm(f"{out}.LayerNorm", linear(f"{out}.dense", seen) + x)
    wide = gelu(linear(f"{layer}.intermediate.dense", x))
    x = norm(f"{layer}.output.LayerNorm", linear(f"{layer}.output.dense", wide) + x)
    torch.testing.assert_close(network.embed(torch.tensor([rows]))[0], x)
    head = "cls.predictions"
    x = norm(f"{head}.transform.LayerNorm", gelu(linear(f"{head}.transform.dense", x)))
    logits = x @ weights[WORDS].T + weights[f"{head}.bias"]
    torch.testing.assert_close(network(torch.tensor([rows]))[0], logits)


def test_a_model_table_builds_a_fresh_network():
    table = {"vocabulary": 69, "dim": 12, "layers": 1, "heads": 2, "hidden": 24}
    made = FAMILY.build(table)
    assert (made.dim, made.vocabulary, made.max_rows) == (12, 69, 512)
    trunk = {name for name, weight in made.named_parameters() if FAMILY.trunk(name, weight)}
    assert len(trunk) == 6
    assert all(name.startswith("bert.encoder.layer.0.") for name in trunk)
    with pytest.raises(InputError, match=r"model\.width"):
        FAMILY.build({**table, "width": 3})


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("twice", [False, True])
def test_onnx_at_other_shapes(tmp_path, attention, twice):
    source = source_of(max_position_embeddings=64, mlm_bias_twice=twice)
    network = OFFICIAL.load(source, None).network
    path = tmp_path / "model.onnx"
    graph.write_graph(network, path, "fp32", attention=attention)
    rng = np.random.default_rng(0)
    batches = [rng.integers(69, size=shape) for shape in ((1, 1), (5, 19), (1, 64))]
    for rows, found in zip(
        batches, graph.run_graph(path, batches, attention=attention), strict=True
    ):
        wanted = graph.run_torch(network, rows, attention=attention)
        assert graph.compare(found, wanted).worst < 5e-6
