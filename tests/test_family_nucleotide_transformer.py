"""The Nucleotide Transformer: vocabulary, windows, blocks by hand, and what a file must hold."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from glm_annotate.card import ModelCard, Provenance
from glm_annotate.encoding import EncoderSpec, make_encoder
from glm_annotate.errors import InputError
from glm_annotate.genome import reverse_complement, to_codes
from glm_annotate.testing import check_encoder
from glm_annotate.train import graph
from glm_annotate.train.families.family import Source
from glm_annotate.train.families.nucleotide_transformer import FAMILY, build, tokens

V1, V2 = FAMILY.official
SIZES = {"dim": 12, "layers": 2, "heads": 3, "hidden": 10}
CONFIG = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 10,
    "layer_norm_eps": 1e-12,
    "emb_layer_norm_before": False,
    "pad_token_id": 1,
    "mask_token_id": 2,
    "tie_word_embeddings": False,
}
V1_CONFIG = CONFIG | {
    "model_type": "esm",
    "vocab_size": 4105,
    "max_position_embeddings": 1002,
    "position_embedding_type": "absolute",
    "token_dropout": True,
}
# As the authors wrote it: nothing says which architecture this is.
V2_CONFIG = CONFIG | {
    "vocab_size": 4107,
    "max_position_embeddings": 2050,
    "position_embedding_type": "rotary",
    "add_bias_fnn": False,
    "token_dropout": False,
}
FOUR = ("<unk>", "<pad>", "<mask>", "<cls>")
SIX = (*FOUR, "<eos>", "<bos>")


def weights_of(config, *, gated):
    """Every key of an official file, in the authors' layout, with random values."""
    torch.manual_seed(4)
    dim, hidden = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    positions, ids = config["max_position_embeddings"], config["vocab_size"]
    shapes = {
        "esm.embeddings.word_embeddings.weight": (ids, dim),
        # v2's files have it too.
        "esm.embeddings.position_embeddings.weight": (positions, dim),
        "esm.encoder.emb_layer_norm_after.weight": (dim,),
        "esm.encoder.emb_layer_norm_after.bias": (dim,),
        "esm.contact_head.regression.weight": (1, config["num_hidden_layers"] * heads),
        "esm.contact_head.regression.bias": (1,),
        "lm_head.dense.weight": (dim, dim),
        "lm_head.dense.bias": (dim,),
        "lm_head.layer_norm.weight": (dim,),
        "lm_head.layer_norm.bias": (dim,),
        "lm_head.decoder.weight": (ids, dim),
        "lm_head.bias": (ids,),
    }
    for i in range(config["num_hidden_layers"]):
        layer = f"esm.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            shapes[f"{layer}.attention.self.{part}.weight"] = (dim, dim)
            shapes[f"{layer}.attention.self.{part}.bias"] = (dim,)
        shapes[f"{layer}.attention.output.dense.weight"] = (dim, dim)
        shapes[f"{layer}.attention.output.dense.bias"] = (dim,)
        for norm in ("attention.LayerNorm", "LayerNorm"):
            shapes[f"{layer}.{norm}.weight"] = shapes[f"{layer}.{norm}.bias"] = (dim,)
        shapes[f"{layer}.intermediate.dense.weight"] = (hidden * (2 if gated else 1), dim)
        shapes[f"{layer}.output.dense.weight"] = (dim, hidden)
        if not gated:
            shapes[f"{layer}.intermediate.dense.bias"] = (hidden,)
            shapes[f"{layer}.output.dense.bias"] = (dim,)
    weights = {name: torch.randn(shape) * 0.5 for name, shape in shapes.items()}
    weights["esm.embeddings.position_ids"] = torch.arange(positions)[None]
    if gated:
        for i in range(config["num_hidden_layers"]):
            name = f"esm.encoder.layer.{i}.attention.self.rotary_embeddings.inv_freq"
            weights[name] = 10000.0 ** -(torch.arange(0, dim // heads, 2) * heads / dim)
    return weights


def source(version, **changes):
    config = {"v1": V1_CONFIG, "v2": V2_CONFIG}[version] | changes
    return Source(version, weights_of(config, gated=version == "v2"), config)


def without(mapping, *names):
    return {name: value for name, value in mapping.items() if name not in names}


OFFICIAL = {"v1": V1, "v2": V2}
THREE_MERS = {"vocab_size": 75}


def encoder_of(version, **changes):
    card = OFFICIAL[version].load(source(version, **changes), None).card
    return make_encoder(EncoderSpec.model_validate(card["encoder"]))


# Vocabulary and windows


def test_trap_ids_and_order_of_the_vocabularies():
    v1, v2 = tokens(6, gated=False), tokens(6, gated=True)
    places = {"AAAAAA": 4, "AAAAAT": 5, "AAAAAC": 6, "AAAAAG": 7, "AAAATA": 8, "GGGGGG": 4099}
    letters = {"A": 4100, "T": 4101, "C": 4102, "G": 4103, "N": 4104}
    assert {x: v1.index(x) for x in (*places, *letters)} == places | letters
    assert {x: v2.index(x) for x in (*places, *letters)} == {
        x: place + 2 for x, place in (places | letters).items()
    }
    assert tuple(v1[:4]) == FOUR
    assert tuple(v2[:6]) == SIX
    assert (len(v1), len(v2), len(tokens(3, gated=True))) == (4105, 4107, 75)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_trap_n_breaks_the_frame_of_kmers(version):
    shift = 0 if version == "v1" else 2
    # <cls> ATTCCG A T T N CGATTC C G A, 6-mers as numbers to base 4 with A 0, T 1, C 2, G 3.
    digits = {"ATTCCG": 0b000101101011, "CGATTC": 0b101100010110}
    expected = [
        *(4 + digits["ATTCCG"], 4100, 4101, 4101, 4104),
        *(4 + digits["CGATTC"], 4102, 4103, 4100),
    ]
    (group,) = encoder_of(version).encode(to_codes("ATTCCGATTNCGATTCCGA")[None])
    assert group.rows[0].tolist() == [3, *(x + shift for x in expected)]
    spans = group.spans_of(np.array([0]))[0].tolist()
    assert spans[:3] == [[-1, -1], [0, 6], [6, 7]]
    assert spans[-5:] == [[9, 10], [10, 16], [16, 17], [17, 18], [18, 19]]


@pytest.mark.parametrize(
    ("version", "changes"), [("v1", {}), ("v2", {}), ("v2", THREE_MERS)], ids=["v1", "v2", "3-mers"]
)
def test_encoders_keep_their_promises(version, changes):
    encoder = encoder_of(version, **changes)
    for length in (60, 61, 65):
        check_encoder(encoder, length=length)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_trap_lower_case_and_iupac_letters(version):
    """The authors' tokenizer knows neither, and stops."""
    encoder = encoder_of(version)
    (plain,), (soft,) = (encoder.encode(to_codes(x)[None]) for x in ("ATTCCGNA", "attccgRa"))
    assert soft.rows.tolist() == plain.rows.tolist()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_places_of_bases_and_rows_both_ways(version):
    (group,) = encoder_of(version).encode(np.zeros((1, 62), dtype=np.uint8))
    spans = group.spans[0].tolist()
    assert len(spans) == 1 + 10 + 2
    row_of = {base: row for row, (a, b) in enumerate(spans) if a >= 0 for base in range(a, b)}
    assert row_of == {p: 1 + p // 6 if p < 60 else 11 + p - 60 for p in range(62)}


def test_trap_eos_and_bos_are_not_in_the_model_of_v1(tmp_path):
    """v1's list ends in two ids for which the network has no rows; v2 has them near the front."""
    encoder = encoder_of("v1")
    network = V1.load(source("v1"), None).network
    assert network.vocabulary == 4105
    assert max(encoder.spec.vocab.named_ids()) == 4104
    for ending, good in (([], True), (["<eos>", "<bos>"], True), (["<eos>"], False)):
        (tmp_path / "vocab.txt").write_text("\n".join([*tokens(6, gated=False), *ending]))
        plain = source("v1")
        here = Source("v1", plain.weights, plain.config, tmp_path)
        if good:
            V1.load(here, None)
        else:
            with pytest.raises(InputError, match=r"vocab\.txt: line 4106: found <eos>"):
                V1.load(here, None)


def test_a_vocabulary_beside_the_weights_must_agree(tmp_path):
    plain = source("v2")
    here = Source("v2", plain.weights, plain.config, tmp_path)
    listed = tokens(6, gated=True)
    (tmp_path / "vocab.txt").write_text("\n".join(listed) + "\n")
    V2.load(here, None)
    listed[7], listed[8] = listed[8], listed[7]  # order A, C, T, G
    (tmp_path / "vocab.txt").write_text("\n".join(listed))
    with pytest.raises(InputError, match=r"line 8: found AAAAAC, wanted AAAAAT"):
        V2.load(here, None)
    (tmp_path / "vocab.txt").write_text("\n".join(tokens(6, gated=True)[:-1]))
    with pytest.raises(InputError, match=r"line 4107: found nothing, wanted N"):
        V2.load(here, None)


@pytest.mark.parametrize(
    ("version", "changes", "asked", "context", "anchor"),
    [
        ("v1", {}, None, 1002, 501),
        ("v2", {}, None, 1002, 501),
        ("v2", THREE_MERS, None, 501, 250),
        ("v1", {}, 6, 6, 3),
        ("v1", {}, 5994, 5994, 2997),
        ("v2", {}, 12282, 12282, 6141),
        ("v2", THREE_MERS, 6141, 6141, 3070),
        ("v2", {}, 600, 600, 303),
        ("v1", {"max_position_embeddings": 23}, None, 120, 63),
    ],
)
def test_trap_the_variant_is_at_offset_3_of_the_central_6_mer(
    version, changes, asked, context, anchor
):
    given = source(version, **changes)
    loaded = OFFICIAL[version].load(given, asked)
    assert (loaded.card["context"], loaded.card["anchor"]) == (context, anchor)
    k = 3 if changes == THREE_MERS else 6
    encoder = make_encoder(EncoderSpec.model_validate(loaded.card["encoder"]))
    codes = np.random.default_rng(1).integers(4, size=(1, context)).astype(np.uint8)
    (forward,), (reverse,) = encoder.encode(codes), encoder.encode(reverse_complement(codes))
    kmers = context // k
    assert forward.rows.shape == reverse.rows.shape == (1, 1 + kmers)
    middle = 1 + kmers // 2
    assert forward.spans[0, middle].tolist() == [anchor - k // 2, anchor - k // 2 + k]
    # On the other strand the base has the place k - 1 - k // 2 of a k-mer: 2 where k is 6.
    assert (context - 1 - anchor) % k == k - 1 - k // 2


@pytest.mark.parametrize(
    ("version", "asked", "nearest"),
    [
        ("v1", 1000, 1002),
        ("v1", 998, 996),
        ("v1", 1, 6),
        ("v1", 6000, 5994),
        ("v2", 12288, 12282),
        ("v2", 99999, 12282),
    ],
)
def test_other_windows_are_refused_and_the_nearest_is_named(version, asked, nearest):
    with pytest.raises(
        InputError, match=f"--context {asked}: allowed are .* the nearest is {nearest}$"
    ):
        OFFICIAL[version].load(source(version), asked)


def test_the_card_is_a_card_and_says_what_the_weights_may_be_used_for():
    for version, official in OFFICIAL.items():
        card = official.load(source(version), None).card
        assert card["scores"] == ["LLR", "EMB_COS"]
        assert official.weights_licence == official.code_licence == "CC-BY-NC-SA-4.0"
        assert "no commercial use" in Provenance.model_validate(card["provenance"]).limits
        assert "training_data" not in card["provenance"]
        assert set(card) <= set(ModelCard.model_fields)
        # An indel changes the central k-mer and all behind it: 84 of 167.
        assert card["pllr_max"] >= math.ceil(167 / 2)


def test_training_data_is_told_of_repositories_that_are_known():
    repository = "InstaDeepAI/nucleotide-transformer-500m-human-ref"
    plain = source("v1")
    named = Source("v1", plain.weights, plain.config, repository=f"{repository}@0123abc")
    provenance = V1.load(named, None).card["provenance"]
    assert provenance["training_data"] == "the human reference genome"
    releases = {x.repository: x for official in FAMILY.official for x in official.releases}
    assert len(releases) == 9
    assert releases[repository].context == 5994
    assert releases["InstaDeepAI/nucleotide-transformer-v2-50m-multi-species"].context == 12282
    three = releases["InstaDeepAI/nucleotide-transformer-v2-50m-3mer-multi-species"]
    assert (three.name, three.context) == ("nt-v2-50m-3mer-multi-species", 6141)


# Keys and configs


def test_trap_sizes_add_up_to_the_official_file():
    """The official model.safetensors of v2-50m has 223,642,688 bytes, header and all."""
    config = V2_CONFIG | {
        "hidden_size": 512,
        "num_hidden_layers": 12,
        "num_attention_heads": 16,
        "intermediate_size": 2048,
    }
    with torch.device("meta"):
        weights = weights_of(config, gated=True)
    del weights["esm.embeddings.position_ids"]
    # One number each in memory; what is read has the size of the file.
    weights = {name: torch.zeros(()).expand(x.shape) for name, x in weights.items()}
    loaded = V2.load(Source("v2-50m", weights, config), None)
    assert loaded.network.dim == 512
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name in sorted(weights):
        shape = list(weights[name].shape)
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"))
    assert 8 + math.ceil(len(text) / 8) * 8 + end == 223_642_688


def test_trap_v2_is_known_from_keys_since_its_config_names_no_model_type():
    assert "model_type" not in V2_CONFIG
    v1, v2 = source("v1"), source("v2")
    for config in ({}, V1_CONFIG, V2_CONFIG):
        assert V2.recognise(Source("x", v2.weights, config))
        assert not V1.recognise(Source("x", v2.weights, config))
        assert V1.recognise(Source("x", v1.weights, config))
        assert not V2.recognise(Source("x", v1.weights, config))


@pytest.mark.parametrize(
    "weights",
    [
        {},
        {"esm.embeddings.word_embeddings.weight": torch.tensor(1.0)},
        {"bert.embeddings.word_embeddings.weight": torch.zeros(4101, 8)},
        weights_of(V1_CONFIG | {"vocab_size": 33}, gated=False),  # ESM of proteins
        weights_of(V2_CONFIG | {"vocab_size": 4096}, gated=True),
        {x.removeprefix("esm."): w for x, w in weights_of(V2_CONFIG, gated=True).items()},
        weights_of(V2_CONFIG, gated=True)
        | {"esm.encoder.layer.0.intermediate.dense.weight": torch.tensor(1.0)},
        weights_of(V2_CONFIG, gated=True)
        | {"esm.encoder.layer.0.output.dense.weight": torch.tensor(1.0)},
    ],
)
def test_other_files_are_not_recognised(weights):
    assert not any(x.recognise(Source("x", weights, V1_CONFIG)) for x in FAMILY.official)


def test_trap_a_v2_file_that_native_esm_saved_is_refused():
    """Its vocabulary is v2's; the feed-forward, with biases and of one width, was made up."""
    made_up = Source("saved", weights_of(V2_CONFIG, gated=False), V2_CONFIG)
    assert V1.recognise(made_up)
    assert not V2.recognise(made_up)
    for official in FAMILY.official:
        with pytest.raises(InputError, match="EsmModel"):
            official.load(made_up, None)


def test_trap_v2_stores_positions_that_nothing_reads():
    plain = source("v2")
    name = "esm.embeddings.position_embeddings.weight"
    rows = torch.arange(2, 30)[None]
    with torch.no_grad():
        wanted = V2.load(plain, None).network(rows)
        for weights in (
            plain.weights | {name: torch.full((2050, 12), 9.0)},
            without(plain.weights, name),
        ):
            found = V2.load(Source("v2", weights, plain.config), None).network(rows)
            torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    wrong = plain.weights | {name: torch.zeros(1002, 12)}
    with pytest.raises(InputError, match=r"position_embeddings.*found \(1002, 12\)"):
        V2.load(Source("v2", wrong, plain.config), None)
    with pytest.raises(InputError, match=r"no weights for: embeddings\.position_embeddings"):
        V1.load(Source("v1", without(source("v1").weights, name), V1_CONFIG), None)


def test_trap_inverse_frequencies_lie_in_either_place_and_are_not_read():
    plain = source("v2")
    old = [name for name in plain.weights if name.endswith("inv_freq")]
    assert len(old) == 2
    moved = without(plain.weights, *old) | {
        "esm.rotary_embeddings.inv_freq": torch.tensor([1.0, 0.01])
    }
    none = without(plain.weights, *old)
    rows = torch.arange(2, 30)[None]
    with torch.no_grad():
        wanted = V2.load(plain, None).network(rows)
        for weights in (moved, none):
            found = V2.load(Source("v2", weights, plain.config), None).network(rows)
            torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    # They tell the width of a head, which no other weight does.
    with pytest.raises(InputError, match=r"inv_freq: found \(2,\), wanted \(3,\)"):
        V2.load(Source("v2", moved, V2_CONFIG | {"num_attention_heads": 2}), None)
    assert "esm.rotary_embeddings.inv_freq" not in source("v1").weights
    extra = source("v1").weights | {"esm.rotary_embeddings.inv_freq": torch.ones(2)}
    with pytest.raises(InputError, match="does not have"):
        V1.load(Source("v1", extra, V1_CONFIG), None)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_every_key_is_accounted_for(version):
    plain, official = source(version), OFFICIAL[version]
    buffers = ("esm.embeddings.position_ids", "esm.contact_head.regression.weight")
    official.load(Source("x", without(plain.weights, *buffers), plain.config), None)
    for unknown in ("esm.pooler.dense.weight", "classifier.weight", "lm_head.decoder.scale"):
        weights = plain.weights | {unknown: torch.ones(1)}
        with pytest.raises(InputError, match=f"does not have: {unknown.removeprefix('esm.')}"):
            official.load(Source("x", weights, plain.config), None)
    unused = ("position_ids", "contact_head", "inv_freq")
    if version == "v2":
        unused += ("position_embeddings",)
    for name in plain.weights:
        if any(x in name for x in unused) or "layer.0." in name:
            continue
        with pytest.raises(InputError):
            official.load(Source("x", without(plain.weights, name), plain.config), None)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_trap_the_decoder_is_not_the_embedding(version):
    """Both are used as stored; a file that lacks the decoder is whole only where they are tied."""
    plain, official = source(version), OFFICIAL[version]
    words, decoder = "esm.embeddings.word_embeddings.weight", "lm_head.decoder.weight"
    network = official.load(plain, None).network
    assert torch.equal(network.state_dict()["lm_head.decoder.weight"], plain.weights[decoder])
    assert not torch.equal(plain.weights[decoder], plain.weights[words])
    short = without(plain.weights, decoder)
    with pytest.raises(InputError, match=r"no weights for: lm_head\.decoder\.weight"):
        official.load(Source("x", short, plain.config), None)
    tied = plain.config | {"tie_word_embeddings": True}
    network = official.load(Source("x", short, tied), None).network
    assert torch.equal(network.state_dict()["lm_head.decoder.weight"], plain.weights[words])


def test_norms_may_have_the_names_of_old_files():
    plain = source("v2")
    old = {
        x.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): w
        for x, w in plain.weights.items()
    }
    assert sum(x.endswith((".gamma", ".beta")) for x in old) == 8
    found = V2.load(Source("x", old, plain.config), None).network.state_dict()
    wanted = V2.load(plain, None).network.state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


@pytest.mark.parametrize(
    ("version", "changes", "message"),
    [
        ("v1", {"position_embedding_type": "rotary"}, "is 'rotary', wanted 'absolute' for v1"),
        ("v2", {"position_embedding_type": "absolute"}, "is 'absolute', wanted 'rotary' for v2"),
        ("v1", {"emb_layer_norm_before": True}, "emb_layer_norm_before"),
        ("v2", {"add_bias_fnn": True}, "add_bias_fnn"),
        ("v1", {"pad_token_id": 0}, "pad_token_id"),
        ("v1", {"mask_token_id": 32}, "mask_token_id"),
        ("v1", {"model_type": "bert"}, "model_type"),
        ("v1", {"layer_norm_eps": None}, "no config.json with layer_norm_eps"),
        ("v2", {"num_attention_heads": None}, "no config.json with num_attention_heads"),
        ("v2", {"num_attention_heads": 5}, "dim 12 is not a multiple of heads 5"),
        ("v2", {"num_attention_heads": 4}, "even width, found 3"),
        ("v1", {"max_position_embeddings": 3}, "leave no row"),
        ("v1", {"max_position_embeddings": 900}, "shapes that do not fit"),
        ("v2", {"max_position_embeddings": 1002}, r"found \(2050, 12\)"),
        ("v1", {"num_hidden_layers": 1}, "does not have"),
        ("v1", {"num_hidden_layers": 3}, "no weights for"),
        ("v2", {"intermediate_size": 20}, "shapes that do not fit"),
        ("v1", {"vocab_size": 4107}, "shapes that do not fit"),
    ],
)
def test_configs_that_contradict_the_weights_are_refused(version, changes, message):
    plain = source(version)
    changed = Source("x", plain.weights, plain.config | changes)
    with pytest.raises(InputError, match=message) as caught:
        OFFICIAL[version].load(changed, None)
    assert "\n" not in str(caught.value)


def test_a_file_without_a_config_is_refused():
    with pytest.raises(InputError, match=r"no config\.json with vocab_size, hidden_size"):
        V1.load(Source("x", source("v1").weights), None)


# The blocks by hand


def plain_network(**changes):
    torch.manual_seed(0)
    made = build({"vocabulary": 75, **SIZES, **changes})
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    return made.double().eval()


def normed(x, norm, eps):
    mean = x.mean(-1, keepdims=True)
    scaled = (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + eps)
    return scaled * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def linear(x, layer):
    out = x @ layer.weight.detach().numpy().T
    return out if layer.bias is None else out + layer.bias.detach().numpy()


def turned(x, base):
    """Rotate pairs (i, i + d/2) as complex numbers, position by position."""
    half = x.shape[-1] // 2
    pairs = x[..., :half] + 1j * x[..., half:]
    for place in range(len(x)):
        for i in range(half):
            pairs[place, i] *= np.exp(1j * place * base ** (-2 * i / x.shape[-1]))
    return np.concatenate([pairs.real, pairs.imag], axis=-1)


ERF = np.vectorize(math.erf)


def gelu(x):
    return x * (1 + ERF(x / math.sqrt(2))) / 2


@pytest.mark.parametrize(
    "changes",
    [
        {"gated": True, "base": 100.0, "eps": 0.01},
        {"gated": False, "positions": 40, "eps": 1e-12},
        {"gated": False, "positions": 40, "token_dropout": True, "eps": 1e-5},
    ],
    ids=["v2", "v1", "v1-dropout"],
)
def test_trap_positions_gates_and_dropout_by_hand(changes):
    network = plain_network(**changes)
    config = network.config
    rows = np.array([3, 7, 2, 74, 30, 2, 9])
    words = network.embeddings.word_embeddings.weight.detach().numpy()
    x = words[rows]
    if config.token_dropout:
        # Two of seven are masked; 12 % of all were in training.
        x[[2, 5]] = 0
        x = x * 0.88 / (1 - 2 / 7)
    if config.positions:
        # Positions count from two, behind that of the padding.
        x = x + network.embeddings.position_embeddings.weight.detach().numpy()[2:9]
    all_maps = []
    for layer in network.layers:
        inner = normed(x, layer.attention["LayerNorm"], config.eps)
        own = layer.attention["self"]
        query, key, value = (linear(inner, part) for part in (own.query, own.key, own.value))
        heads, maps = [], []
        for head in range(3):
            part = slice(4 * head, 4 * head + 4)
            q, k = query[:, part], key[:, part]
            if not config.positions:
                q, k = turned(q, config.base), turned(k, config.base)
            weights = np.exp(q @ k.T / 2)
            maps.append(weights / weights.sum(-1, keepdims=True))
            heads.append(maps[-1] @ value[:, part])
        all_maps.append(maps)
        x = x + linear(np.concatenate(heads, axis=-1), layer.attention["output"].dense)
        wide = linear(normed(x, layer.LayerNorm, config.eps), layer.intermediate.dense)
        if config.gated:
            assert layer.intermediate.dense.bias is layer.output.dense.bias is None
            wide = wide[:, :10] / (1 + np.exp(-wide[:, :10])) * wide[:, 10:]
        else:
            wide = gelu(wide)
        x = x + linear(wide, layer.output.dense)
    x = normed(x, network.norm, config.eps)
    head = network.lm_head
    logits = linear(normed(gelu(linear(x, head.dense)), head.layer_norm, config.eps), head.decoder)
    with torch.no_grad():
        ids = torch.from_numpy(rows)[None]
        embedding, maps = network.attend(ids)
        np.testing.assert_allclose(embedding[0].numpy(), x, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(maps[0].numpy(), np.array(all_maps), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(network(ids)[0].numpy(), logits, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(network.embed(ids), embedding, rtol=0, atol=0)


def test_trap_the_epsilon_is_that_of_the_config():
    for epsilon in (1e-12, 1e-5):
        network = V2.load(source("v2", layer_norm_eps=epsilon), None).network
        norms = [x for x in network.modules() if isinstance(x, torch.nn.LayerNorm)]
        assert len(norms) == 6
        assert {x.eps for x in norms} == {epsilon}


@torch.no_grad()
def test_a_window_of_masks_alone_has_numbers():
    network = plain_network(gated=False, positions=40, token_dropout=True)
    assert torch.isfinite(network(torch.full((2, 3), 2))).all()


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"gated": False, "positions": 40, "token_dropout": True}])
def test_batch_mates_do_not_matter(changes):
    network = plain_network(**changes)
    batch = torch.randint(75, (4, 17), generator=torch.Generator().manual_seed(3))
    batch[1, 3:9] = 2
    for one, expected in zip(batch, network(batch), strict=True):
        torch.testing.assert_close(network(one[None])[0], expected, rtol=1e-12, atol=1e-12)


def test_rows_that_the_weights_allow():
    assert V1.load(source("v1"), None).network.max_rows == 1000
    assert V2.load(source("v2"), None).network.max_rows is None


@pytest.mark.parametrize("change", [{"heads": 5}, {"positions": 3}, {"depth": 2}, {"eps": 0.0}])
def test_configs_of_a_run_are_checked(change):
    with pytest.raises(InputError, match=r"model\."):
        build({"vocabulary": 75, **SIZES, **change})


def test_the_trunk_is_the_matrices_of_the_layers():
    chosen = {x for x, w in plain_network().named_parameters() if FAMILY.trunk(x, w)}
    assert len(chosen) == 2 * 6
    assert all(x.startswith("layers.") and x.endswith(".weight") for x in chosen)


@pytest.mark.parametrize(
    ("changes", "maps"),
    [({}, False), ({"gated": False, "positions": 90, "token_dropout": True}, True)],
    ids=["v2", "v1 with maps"],
)
def test_trap_graph_takes_other_shapes(changes, maps, tmp_path):
    torch.set_num_threads(1)
    network = plain_network(**changes).float()
    path = tmp_path / "model.onnx"
    graph.write_graph(network, path, "fp32", attention=maps)
    shapes = [(1, 1), (5, 19), (1, 83)]
    batches = [
        np.random.default_rng(seed).integers(75, size=shape) for seed, shape in enumerate(shapes)
    ]
    batches[1][:, 4:9] = 2
    found = graph.run_graph(path, batches, attention=maps)
    for outputs, rows in zip(found, batches, strict=True):
        wanted = graph.run_torch(network, rows, attention=maps)
        assert set(outputs) == set(wanted)
        for name, value in wanted.items():
            allowed = 1e-5 * max(1.0, float(np.abs(value).max()))
            np.testing.assert_allclose(outputs[name], value, rtol=0, atol=allowed)
