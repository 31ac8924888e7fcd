"""GENA-LM: tokens and gaps, what a checkpoint may hold, and its two kinds of sparse attention."""

from __future__ import annotations

import itertools
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
from glm_annotate.train.families import gena_bigbird, gena_lm
from glm_annotate.train.families.family import Source
from glm_annotate.train.families.gena_official import release

SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
# Letters of the authors' two kinds of tokenizer in the order of their ids, and some merges: those
# of the first kind hold N, which is a letter there like any other.
T2T = ["-", *"ABCGKMNRSTWY"], ["AA", "TT", "TN", "NN", "CA", "GG", "TTA", "CAGG"]
FIRST = ["\n", *"ACGT"], ["TT", "AA", "TG", "AG", "CC", "CAA"]
WORDS = len(SPECIAL) + len(T2T[0]) + len(T2T[1])
EMBEDDINGS, DECODER = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
LAYOUT = "bert.encoder.layer.{}.attention.self.sparse_self_attention.master_layout"
BLOCK, RANDOM = 4, 1  # of the small BigBird: full up to (5 + 2) x 4 = 28 rows


def tokenizer_of(kind=T2T, **changes):
    """A tokenizer.json built like the authors', with cutting and padding as a trap."""
    letters, words = kind
    merges = {word: [word[:-1], word[-1]] for word in words} | {
        "CAGG": ["CA", "GG"],
        "CAA": ["C", "AA"],
    }
    dash = {"type": "Replace", "pattern": {"Regex": "N{10,}"}, "content": "-"}
    strip = {"type": "Strip", "strip_left": True, "strip_right": True}
    split = {"type": "Split", "pattern": {"String": "-"}, "behavior": "Isolated", "invert": False}
    special = [*SPECIAL, *(["-"] if kind is T2T else [])]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
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
            {"id": i, "content": word, "special": True, **flags} for i, word in enumerate(special)
        ],
        "normalizer": {"type": "Sequence", "normalizers": [strip, dash]} if kind is T2T else None,
        "pre_tokenizer": split if kind is T2T else None,
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
        "decoder": {"type": "BPEDecoder", "suffix": " "},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "[UNK]",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "vocab": {word: i for i, word in enumerate([*SPECIAL, *letters, *words])},
            "merges": [" ".join(merges[word]) for word in words],
            **changes,
        },
    }


def config_of(variant="BERT", **changes):
    """The official config.json of a small model: BERT, sparse (rotary) or BigBird."""
    shared = {
        "attention_probs_dropout_prob": 0.1,
        "gradient_checkpointing": False,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": 24,
        "intermediate_size": 20,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 48,
        "model_type": "bert",
        "num_attention_heads": 3,
        "num_hidden_layers": 2,
        "pad_token_id": 3,
        "position_embedding_type": "absolute",
        "type_vocab_size": 2,
        "vocab_size": WORDS,
    }
    sparse = {"num_heads": 3, "block": 4, "different_layout_per_head": True}
    own = {
        "BERT": {"pre_layer_norm": True},
        "sparse": {
            "pre_layer_norm": True,
            "last_layer_norm": False,
            "position_embedding_type": "rotary",
            "rotary_base": 10000,
            "rotary_dim": 4,
            "sparse_config_cls": "deepspeed.ops.sparse_attention:BigBirdSparsityConfig",
            "sparse_attention": sparse,
        },
        "BigBird": {
            "model_type": "big_bird",
            "hidden_act": "gelu_new",
            "attention_type": "block_sparse",
            "block_size": BLOCK,
            "num_random_blocks": RANDOM,
            "rescale_embeddings": False,
            "use_bias": True,
        },
    }
    return {**shared, **own[variant], **changes}


def shapes_of(config):
    """Names and shapes that the authors' code stores, written down from their description."""
    dim, wide, words = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    norm_before = bool(config.get("pre_layer_norm"))
    shapes = {EMBEDDINGS: (words, dim), "bert.embeddings.token_type_embeddings.weight": (2, dim)}
    if config["position_embedding_type"] == "absolute":
        rows = config["max_position_embeddings"]
        shapes["bert.embeddings.position_embeddings.weight"] = (rows, dim)
    linear, norms = {}, ["bert.embeddings.LayerNorm", "cls.predictions.transform.LayerNorm"]
    for i in range(config["num_hidden_layers"]):
        layer = f"bert.encoder.layer.{i}"
        linear |= {f"{layer}.attention.self.{x}": (dim, dim) for x in ("query", "key", "value")}
        linear[f"{layer}.attention.output.dense"] = (dim, dim)
        linear[f"{layer}.intermediate.dense"] = (wide, dim)
        linear[f"{layer}.output.dense"] = (dim, wide)
        before = ("pre_attention_ln", "post_attention_ln")
        after = ("attention.output.LayerNorm", "output.LayerNorm")
        norms += [f"{layer}.{x}" for x in (before if norm_before else after)]
    if norm_before and config.get("last_layer_norm", True):
        norms.append("bert.encoder.last_layer_ln")
    linear["cls.predictions.transform.dense"] = (dim, dim)
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name in norms:
        shapes |= {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}
    return {**shapes, "cls.predictions.bias": (words,)}


def layout_of(config, seed):
    """A random layout (H, n, n) in which each block sees at least itself."""
    blocks = config["max_position_embeddings"] // config["sparse_attention"]["block"]
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(config["num_attention_heads"], blocks, blocks, generator=generator) < 0.3
    return (chosen | torch.eye(blocks, dtype=torch.bool)).to(torch.int64)


def weights_of(config, seed=0):
    """Random weights with all names that a file of pretraining holds."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes_of(config).items():
        noise = torch.randn(shape, generator=generator)
        is_norm = name.endswith(("LayerNorm.weight", "ln.weight"))
        weights[name] = 1 + 0.3 * noise if is_norm else noise * (0.3 if noise.ndim > 1 else 0.2)
    weights[DECODER] = weights[EMBEDDINGS].clone()
    weights["cls.predictions.decoder.bias"] = weights["cls.predictions.bias"].clone()
    for i in range(config["num_hidden_layers"]):
        if "sparse_config_cls" in config:
            weights[LAYOUT.format(i)] = layout_of(config, 7 + i)
        if config["position_embedding_type"] == "rotary":
            steps = torch.arange(0, config["rotary_dim"], 2) / config["rotary_dim"]
            name = f"bert.encoder.layer.{i}.attention.self.rotary_emb.inv_freq"
            weights[name] = 1 / 10000**steps
    return weights


@torch.no_grad()
def emulate(weights, config, rows):
    """GENA-LM once more, dense, in double and by definition: rows are filled up to whole blocks.

    Filling rows are [PAD], and no row may look at one: so the authors use their sparse models.
    """
    w = {k: v.double() if v.is_floating_point() else v for k, v in weights.items()}
    length, heads = rows.shape[1], config["num_attention_heads"]
    block = config.get("sparse_attention", {}).get("block", 1)
    filled = -(-length // block) * block
    ids = torch.nn.functional.pad(torch.as_tensor(rows), (0, filled - length), value=3)

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        spread = (centred.square().mean(-1, keepdim=True) + config["layer_norm_eps"]).sqrt()
        return centred / spread * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def gelu(x):
        return x * (1 + torch.erf(x / math.sqrt(2))) / 2

    x = w[EMBEDDINGS][ids] + w["bert.embeddings.token_type_embeddings.weight"][0]
    if config["position_embedding_type"] == "absolute":
        x = x + w["bert.embeddings.position_embeddings.weight"][:filled]
    x = norm(x, "bert.embeddings.LayerNorm")
    for i in range(config["num_hidden_layers"]):
        layer = f"bert.encoder.layer.{i}"
        h = norm(x, f"{layer}.pre_attention_ln")
        q, k, v = (
            linear(h, f"{layer}.attention.self.{part}").unflatten(-1, (heads, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        if config["position_embedding_type"] == "rotary":
            q, k = turn(q, config["rotary_dim"]), turn(k, config["rotary_dim"])
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        scores[..., length:] = -math.inf
        if "sparse_config_cls" in config:
            layout = w[LAYOUT.format(i)][:, : filled // block, : filled // block]
            seen = torch.stack([torch.kron(x, torch.ones(block, block)) for x in layout])
            scores = scores.masked_fill(seen == 0, -math.inf)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + linear(mixed, f"{layer}.attention.output.dense")
        h = norm(x, f"{layer}.post_attention_ln")
        x = x + linear(gelu(linear(h, f"{layer}.intermediate.dense")), f"{layer}.output.dense")
    if config.get("last_layer_norm", True):
        x = norm(x, "bert.encoder.last_layer_ln")
    x = x[:, :length]
    h = gelu(linear(x, "cls.predictions.transform.dense"))
    h = norm(h, "cls.predictions.transform.LayerNorm")
    logits = h @ w[DECODER].T + w["cls.predictions.decoder.bias"]
    return {"logits": logits.numpy(), "embedding": x.numpy()}


def turn(x, dim):
    """Rotate pairs (i, i + dim / 2) of the first `dim` dimensions, as complex numbers."""
    half = dim // 2
    place = torch.arange(x.shape[2], dtype=torch.float64)
    angle = place[:, None] * 10000.0 ** (-2 * torch.arange(half, dtype=torch.float64) / dim)
    turned = torch.complex(x[..., :half], x[..., half:dim]) * torch.polar(
        torch.ones_like(angle), angle
    )
    return torch.cat([turned.real, turned.imag, x[..., dim:]], dim=-1)


def source_of(folder, config, weights=None, tokenizer=None, repository=""):
    """A checkpoint beside its tokenizer."""
    kept = tokenizer_of() if tokenizer is None else tokenizer
    (folder / "tokenizer.json").write_text(json.dumps(kept))
    return Source(
        "official",
        weights_of(config) if weights is None else weights,
        config,
        folder=folder,
        repository=repository,
    )


def official_of(variant):
    entries = [*gena_lm.FAMILY.official, *gena_bigbird.FAMILY.official]
    return entries[["BERT", "sparse", "BigBird"].index(variant)]


def load(folder, variant, context=40, weights=None, **changes):
    source = source_of(folder, config_of(variant, **changes), weights)
    return official_of(variant).load(source, context)


def encoder_of(folder, kind=T2T):
    """Our encoder of the card over a tokenizer of one of the two kinds."""
    words = len(tokenizer_of(kind)["model"]["vocab"])
    config = config_of(vocab_size=words)
    loaded = official_of("BERT").load(source_of(folder, config, None, tokenizer_of(kind)), 40)
    path = folder / "kept.json"
    path.write_text(loaded.tokenizer)
    return make_encoder(EncoderSpec.model_validate(loaded.card["encoder"]), path)


def encode(encoder, text):
    """Ids and spans of one sequence."""
    (group,) = encoder.encode(to_codes(text.encode())[None])
    return group.rows[0].tolist(), [tuple(x) for x in group.spans[0].tolist()]


VARIANTS = ("BERT", "sparse", "BigBird")

# Tokens


@pytest.mark.parametrize(
    ("kind", "text", "ids", "bounds"),
    [
        # G, A, TTA, T, TN, CAGG, AA: merges by rank, ids as listed above.
        (T2T, "GATTATTNCAGGAA", [9, 6, 24, 19, 12, 25, 18], [0, 1, 2, 5, 7, 8, 12, 14]),
        # N has no token: each is unknown, and none is folded.
        (FIRST, "CAANNTG", [15, 0, 0, 12], [0, 3, 4, 5, 7]),
    ],
)
def test_tokens_by_hand(tmp_path, kind, text, ids, bounds):
    rows, spans = encode(encoder_of(tmp_path, kind), text)
    assert rows == [1, *ids, 2]
    assert spans == [(-1, -1), *itertools.pairwise(bounds), (-1, -1)]


@pytest.mark.parametrize("kind", [T2T, FIRST])
def test_encoder_keeps_its_promises(tmp_path, kind):
    check_encoder(encoder_of(tmp_path, kind))


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("ACGT" + "N" * 15 + "ACGT", [(4, 19)]),
        ("N" * 10 + "ACGT", [(0, 10)]),
        ("CG" + "N" * 12, [(2, 14)]),
        ("C" + "N" * 10 + "G" + "N" * 11 + "C", [(1, 11), (12, 23)]),
        ("N" * 30, [(0, 30)]),
        ("C" + "N" * 9 + "C", []),
    ],
)
def test_trap_dash_stands_for_its_whole_run_of_n(tmp_path, text, spans):
    encoder = encoder_of(tmp_path)
    rows, found = encode(encoder, text)
    assert [span for row, span in zip(rows, found, strict=True) if row == 5] == spans
    inner = found[1:-1]
    assert [b for _, b in inner[:-1]] == [a for a, _ in inner[1:]]
    assert (inner[0][0], inner[-1][1]) == (0, len(text))
    # The tokenizer itself says less, or the test would prove nothing.
    raw = encoder._tokenizer.encode(text, add_special_tokens=False)
    short = [(a, b) for x, (a, b) in zip(raw.ids, raw.offsets, strict=True) if x == 5]
    assert all(b - a == 1 for a, b in short)
    assert len(short) == len(spans)


@pytest.mark.parametrize("kind", [T2T, FIRST])
def test_trap_lower_case_is_not_unknown(tmp_path, kind):
    encoder = encoder_of(tmp_path, kind)
    assert encode(encoder, "gattacagg") == encode(encoder, "GATTACAGG")


def test_trap_n_merges_with_bases(tmp_path):
    # TTN is TT N by rank, CTN is C TN: an N changes how its neighbours are cut.
    encoder = encoder_of(tmp_path)
    assert encode(encoder, "CTNN")[0] == [1, 8, 20, 12, 2]
    assert encode(encoder, "CTCC")[0] == [1, 8, 15, 8, 8, 2]


def test_tokenizer_is_handed_over_without_cutting(tmp_path):
    text = load(tmp_path, "BERT").tokenizer
    assert json.loads(text) == tokenizer_of() | {"truncation": None, "padding": None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "WordPiece"}, "the tokenizer is WordPiece, wanted BPE"),
        ({"vocab": {"[UNK]": 0, "[CLS]": 2, "[SEP]": 1}}, r"the id of \[CLS\] is 2, wanted 1"),
        ({"vocab": {x: i for i, x in enumerate([*SPECIAL, *"ACG"])}}, "has no token for T"),
        ({"vocab": {x: i for i, x in enumerate([*SPECIAL, *"ACGT"])}}, "has 9 ids, the model has"),
        ({"vocab": None}, r"cannot be read .* fetch the tokenizer\.json"),
        ({"vocab": {}}, r"cannot be read .* fetch the tokenizer\.json"),
    ],
)
@pytest.mark.parametrize("variant", ["BERT", "BigBird"])
def test_tokenizer_of_something_else(tmp_path, variant, changes, message):
    source = source_of(tmp_path, config_of(variant), None, tokenizer_of(**changes))
    with pytest.raises(InputError, match=message):
        official_of(variant).load(source, 40)


@pytest.mark.parametrize("variant", VARIANTS)
def test_tokenizer_is_needed(variant):
    config = config_of(variant)
    with pytest.raises(InputError, match=r"no tokenizer\.json beside the weights"):
        official_of(variant).load(Source("official", weights_of(config), config), 40)


# Keys and config


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_is_recognised_once(variant):
    config = config_of(variant)
    source = Source("official", weights_of(config), config)
    assert [v for v in VARIANTS if official_of(v).recognise(source)] == [variant]


@pytest.mark.parametrize(
    ("weights", "config"),
    [
        ({}, {}),
        ({"bert.encoder.layer.0.attention.self.Wqkv.weight": torch.zeros(3, 1)}, {}),
        # BERT with norms after the layers, as DNABERT.
        (weights_of(config_of("BigBird")), {"model_type": "bert"}),
        (weights_of(config_of("BigBird")), {}),
        # A BigBird without the head for masked tokens.
        (
            {k: v for k, v in weights_of(config_of("BigBird")).items() if k.startswith("bert.")},
            {"model_type": "big_bird"},
        ),
        ({"esm.embeddings.word_embeddings.weight": torch.zeros(9, 2)}, {"model_type": "esm"}),
        ({"roberta_prelayernorm.LayerNorm.weight": torch.zeros(2)}, {}),
    ],
)
def test_others_are_not_recognised(weights, config):
    source = Source("other", weights, config)
    assert not any(official_of(v).recognise(source) for v in VARIANTS)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_key_counts(tmp_path, variant):
    config = config_of(variant)
    whole = weights_of(config)
    extra = {**whole, "bert.encoder.layer.0.adapter.weight": torch.zeros(2)}
    with pytest.raises(InputError, match=r"does not have: bert\.encoder\.layer\.0\.adapter"):
        load(tmp_path, variant, weights=extra)
    for gone in (
        "bert.encoder.layer.1.output.dense.weight",
        "cls.predictions.transform.dense.bias",
    ):
        less = {k: v for k, v in whole.items() if k != gone}
        with pytest.raises(InputError, match=f"no weights for: {gone}"):
            load(tmp_path, variant, weights=less)


@pytest.mark.parametrize("variant", VARIANTS)
def test_trap_extras_of_pretraining_change_nothing(tmp_path, variant):
    weights = weights_of(config_of(variant))
    pooler = "bert.pooler" if variant == "BigBird" else "bert.pooler.dense"
    extra = {
        "bert.embeddings.position_ids": torch.arange(48)[None],
        f"{pooler}.weight": torch.randn(24, 24),
        f"{pooler}.bias": torch.randn(24),
        "cls.seq_relationship.weight": torch.randn(2, 24),
        "cls.seq_relationship.bias": torch.randn(2),
    }
    rows = np.arange(12).reshape(2, 6)
    plain = graph.run_torch(load(tmp_path, variant, weights=weights).network, rows)
    found = graph.run_torch(load(tmp_path, variant, weights=weights | extra).network, rows)
    assert np.array_equal(found["logits"], plain["logits"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_decoder_may_be_left_out_or_be_another(tmp_path, variant):
    weights = weights_of(config_of(variant))
    rows = np.arange(12).reshape(2, 6)
    whole = load(tmp_path, variant, weights=weights).network
    wanted = graph.run_torch(whole, rows)["logits"]
    gone = {DECODER, "cls.predictions.decoder.bias"}
    short = {k: v for k, v in weights.items() if k not in gone}
    assert np.array_equal(
        graph.run_torch(load(tmp_path, variant, weights=short).network, rows)["logits"], wanted
    )
    own = weights | {DECODER: torch.randn(WORDS, 24)}
    network = load(tmp_path, variant, weights=own).network
    assert torch.equal(network.state_dict()[DECODER], own[DECODER])
    assert torch.equal(network.state_dict()[EMBEDDINGS], weights[EMBEDDINGS])
    matrix = WORDS * 24
    sizes = [sum(x.numel() for x in net.parameters()) for net in (whole, network)]
    assert sizes[1] - sizes[0] == matrix


def test_two_output_biases_must_agree(tmp_path):
    weights = weights_of(config_of())
    weights["cls.predictions.bias"] = weights["cls.predictions.bias"] + 1
    with pytest.raises(InputError, match=r"cls\.predictions\.decoder\.bias differ"):
        load(tmp_path, "BERT", weights=weights)


@pytest.mark.parametrize(
    ("variant", "changes", "message"),
    [
        ("BERT", {"pre_layer_norm": False}, "pre_layer_norm is False, wanted True"),
        ("BERT", {"pre_layer_norm": None}, "pre_layer_norm is None, wanted True"),
        ("BERT", {"hidden_act": "relu"}, "hidden_act is 'relu', wanted gelu or gelu_new"),
        ("BERT", {"pad_token_id": 0}, "pad_token_id is 0, wanted 3"),
        ("BERT", {"is_decoder": True}, "is_decoder is True"),
        (
            "BERT",
            {"position_embedding_type": "relative_key"},
            "is 'relative_key', wanted absolute or",
        ),
        (
            "BERT",
            {"max_position_embeddings": None},
            "max_position_embeddings is None, wanted a number",
        ),
        ("BERT", {"num_attention_heads": 5}, "dim 24 is not a multiple of heads 5"),
        ("BERT", {"max_position_embeddings": 47}, "shapes that do not fit the config"),
        ("BERT", {"vocab_size": 99}, "has 26 ids, the model has 99"),
        ("sparse", {"rotary_dim": 10}, "rotary 10 is not an even part of a head of 8"),
        ("sparse", {"rotary_dim": 8}, r"inv_freq is not of base 10000 and 8 dimensions"),
        ("sparse", {"rotary_base": 500}, r"inv_freq is not of base 500 and 4 dimensions"),
        (
            "sparse",
            {"sparse_attention": {"block": 0}},
            r"sparse_attention\.block is 0, wanted a number",
        ),
        ("sparse", {"sparse_attention": {"block": 8}}, "shapes that do not fit the config"),
        ("sparse", {"sparse_config_cls": None}, "does not have: .*master_layout"),
        ("BigBird", {"use_bias": False}, "use_bias is False, wanted True"),
        ("BigBird", {"rescale_embeddings": True}, "rescale_embeddings is True"),
        ("BigBird", {"attention_type": "sdpa"}, "attention_type is 'sdpa', wanted block_sparse or"),
        ("BigBird", {"hidden_size": 25}, "dim 25 is not a multiple"),
    ],
)
def test_config_contradicts(tmp_path, variant, changes, message):
    weights = weights_of(config_of(variant))
    with pytest.raises(InputError, match=message):
        load(tmp_path, variant, weights=weights, **changes)


@pytest.mark.parametrize("variant", VARIANTS)
def test_config_is_needed(tmp_path, variant):
    source = source_of(tmp_path, {}, weights_of(config_of(variant)))
    with pytest.raises(InputError, match=r"no config\.json"):
        official_of(variant).load(source, None)


def test_trap_last_norm_is_there_unless_the_config_says_no(tmp_path):
    silent, without = config_of(), config_of(last_layer_norm=False)
    assert "last_layer_norm" not in silent
    with_norm, bare = weights_of(silent), weights_of(without)
    name = "bert.encoder.last_layer_ln.weight"
    assert name in with_norm
    network = load(tmp_path, "BERT", weights=with_norm).network
    assert torch.equal(network.state_dict()[name], with_norm[name])
    plain = load(tmp_path, "BERT", weights=bare, last_layer_norm=False).network
    assert name not in plain.state_dict()
    with pytest.raises(InputError, match=r"no weights for: bert\.encoder\.last_layer_ln"):
        load(tmp_path, "BERT", weights=bare)
    with pytest.raises(InputError, match=r"does not have: bert\.encoder\.last_layer_ln"):
        load(tmp_path, "BERT", weights=with_norm, last_layer_norm=False)


# Window and card


@pytest.mark.parametrize(
    ("variant", "context", "window", "tokens"),
    [
        # As many bases as the authors take 48 tokens for: 48 x 4500 / 512 = 421.
        ("BERT", None, 421, 48),
        ("BERT", 100, 100, 48),
        ("sparse", None, 421, 48),
        # 28 tokens, 246 bases: up to there attention stays full.
        ("BigBird", 246, 246, 28),
        ("BigBird", 247, 247, 48),
        ("BigBird", None, 421, 48),
    ],
)
def test_window(tmp_path, variant, context, window, tokens):
    loaded = load(tmp_path, variant, context)
    assert (loaded.card["context"], loaded.card["anchor"]) == (window, window // 2)
    assert loaded.card["window"] == {"kind": "dynamic", "max_tokens": tokens}
    assert loaded.network.max_rows == 48


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("context", [0, 422])
def test_window_beyond_the_training(tmp_path, variant, context):
    with pytest.raises(InputError, match=f"--context {context}: allowed are 1 to 421 bases"):
        load(tmp_path, variant, context)


def test_full_size_windows():
    # 4,096 tokens: the default must not cross BigBird's limit of 704 tokens.
    assert release("x", 512).context == 4500
    assert release("x", 4096).context == 36000
    config = gena_bigbird.BigBirdConfig(dim=768, layers=12, heads=12, hidden=3072)
    assert config.full == 704
    card = gena_bigbird._card(Source("x", {}), config, 4096)
    assert card["window"]["max_tokens"] == 704
    assert "704 tokens" in card["provenance"]["limits"]
    assert gena_bigbird._card(Source("x", {}), config, 16000)["window"]["max_tokens"] == 4096


@pytest.mark.parametrize(
    ("ending", "held_out", "data"),
    [
        ("bert-base", "22 and Y", "Human T2T genome"),
        ("bert-large-t2t", "7 and 10", "Human T2T genome with SNPs of 1000 Genomes"),
        ("bert-base-t2t-multi", "7 and 10", "other species"),
        ("", "", ""),
    ],
)
def test_provenance_is_that_of_the_repository(tmp_path, ending, held_out, data):
    repository = f"AIRI-Institute/gena-lm-{ending}@abc" if ending else ""
    source = source_of(tmp_path, config_of(), repository=repository)
    found = official_of("BERT").load(source, None).card["provenance"]
    assert held_out in found.get("held_out", "")
    assert data in found.get("training_data", "")
    assert bool(found) == bool(ending)


# Networks


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"last_layer_norm": False},
        {"layer_norm_eps": 0.1},
        {"position_embedding_type": "rotary", "rotary_dim": 8, "rotary_base": 10000},
        {"position_embedding_type": "rotary", "rotary_dim": 2, "rotary_base": 10000},
    ],
)
@pytest.mark.parametrize("variant", ["BERT", "sparse"])
def test_trap_norms_and_rotation_by_definition(tmp_path, variant, changes):
    config = config_of(variant, **changes)
    weights = weights_of(config)
    network = load(tmp_path, variant, weights=weights, **changes).network
    # Whole blocks, one block, a part of a block, all blocks.
    for length in (8, 4, 1, 19, 48):
        rows = np.random.default_rng(length).integers(WORDS, size=(2, length))
        found, wanted = graph.run_torch(network, rows), emulate(weights, config, rows)
        for name, values in wanted.items():
            assert found[name].shape == values.shape
            assert np.abs(found[name] - values).max() < 1e-5 * max(1, np.abs(values).max())


def test_trap_layout_is_the_checkpoints_and_cropped(tmp_path):
    config = config_of("sparse")
    weights = weights_of(config)
    network = load(tmp_path, "sparse", weights=weights).network
    for length in (48, 17):
        with torch.no_grad():
            _, maps = network.attend(torch.zeros(1, length, dtype=torch.int64))
        for layer, head in itertools.product(range(2), range(3)):
            layout = weights[LAYOUT.format(layer)][head]
            for i, j in itertools.product(range(length), repeat=2):
                assert bool(maps[0, layer, head, i, j] > 0) == bool(layout[i // 4, j // 4])
    without = {k: v for k, v in weights.items() if k != LAYOUT.format(1)}
    with pytest.raises(InputError, match=r"no weights for: .*layer\.1\..*master_layout"):
        load(tmp_path, "sparse", weights=without)


@pytest.mark.parametrize("length", [1, 27, 28, 29, 31, 32, 48])
def test_trap_bigbird_pattern_and_its_threshold(length):
    found = gena_bigbird.pattern(torch.arange(length), BLOCK, RANDOM)
    last = (length - 1) // BLOCK
    for i, j in itertools.product(range(length), repeat=2):
        row, column = i // BLOCK, j // BLOCK
        if length <= 28 or row in (0, last):
            wanted = 0.0
        else:
            # The first block, itself and neighbours, the last, and the first once a random block.
            places = {0, row - 1, row, row + 1, last}
            times = (column in places) + RANDOM * (column == 0)
            wanted = math.log(times) if times else -3.0e38
        assert (found[i, j] < -3e38) if wanted < -1e38 else abs(found[i, j] - wanted) < 1e-6


def test_trap_random_blocks_are_the_first_block_again(tmp_path):
    # Queries of 0 see all that they see alike: the weights are times seen over their sum.
    weights = weights_of(config_of("BigBird"))
    for name in [x for x in weights if ".attention.self.query." in x]:
        weights[name] = torch.zeros_like(weights[name])
    network = load(tmp_path, "BigBird", weights=weights).network
    with torch.no_grad():
        _, maps = network.attend(torch.zeros(1, 40, dtype=torch.int64))
    # Ten blocks. The second sees 0 (twice), 1, 2 and 9; the fifth 0 (twice), 3, 4, 5, 9.
    for block, counts in ((1, {0: 2, 1: 1, 2: 1, 9: 1}), (4, {0: 2, 3: 1, 4: 1, 5: 1, 9: 1})):
        wanted = [counts.get(j // 4, 0) / (4 * sum(counts.values())) for j in range(40)]
        assert maps[0, 0, 0, 4 * block].numpy() == pytest.approx(wanted, abs=1e-6)
    assert maps[0, 0, 0, 39].numpy() == pytest.approx([1 / 40] * 40, abs=1e-6)


def test_trap_bigbird_remembers_no_window(tmp_path):
    network = load(tmp_path, "BigBird").network
    long, short = (np.random.default_rng(n).integers(WORDS, size=(2, n)) for n in (40, 20))
    first = graph.run_torch(network, long)["logits"]
    graph.run_torch(network, short)
    assert np.array_equal(graph.run_torch(network, long)["logits"], first)


def test_bigbird_may_be_full_at_any_length(tmp_path):
    network = load(tmp_path, "BigBird", attention_type="original_full").network
    with torch.no_grad():
        _, maps = network.attend(torch.zeros(1, 48, dtype=torch.int64))
    assert bool((maps > 0).all())


@pytest.mark.parametrize("variant", ["BERT", "BigBird"])
@pytest.mark.parametrize("name", ["gelu", "gelu_new"])
def test_trap_which_gelu(tmp_path, variant, name):
    config = config_of(variant, hidden_act=name)
    weights = weights_of(config)
    network = load(tmp_path, variant, weights=weights, hidden_act=name).network
    w = {k: v.double().numpy() for k, v in weights.items()}
    x = np.linspace(-1, 1, 24)
    head = "cls.predictions.transform"
    wide = w[f"{head}.dense.weight"] @ x + w[f"{head}.dense.bias"]
    if name == "gelu":
        bent = np.array([v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in wide])
    else:
        inner = math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)
        bent = wide * (1 + np.tanh(inner)) / 2
    normed = (bent - bent.mean()) / bent.std()
    normed = normed * w[f"{head}.LayerNorm.weight"] + w[f"{head}.LayerNorm.bias"]
    wanted = w[DECODER] @ normed + w["cls.predictions.bias"]
    with torch.no_grad():
        found = network.decode(torch.tensor(x, dtype=torch.float32)[None, None])[0, 0]
    assert found.numpy() == pytest.approx(wanted, abs=2e-6)
    # The layers' is the same one.
    other = {"gelu": "gelu_new", "gelu_new": "gelu"}[name]
    rows = np.arange(12).reshape(2, 6)
    twin = load(tmp_path, variant, weights=weights, hidden_act=other).network
    difference = (
        graph.run_torch(network, rows)["embedding"] - graph.run_torch(twin, rows)["embedding"]
    )
    assert 1e-5 < np.abs(difference).max() < 1e-1


# These two hold all that BERT does; exporting takes seconds.
@pytest.mark.parametrize("variant", ["sparse", "BigBird"])
def test_trap_one_graph_for_every_length(tmp_path, variant):
    network = load(tmp_path, variant).network
    path = tmp_path / "model.onnx"
    graph.write_graph(network, path, "fp32", attention=True)
    # Both sides of BigBird's limit of 28 rows, and rows that are no multiple of a block.
    shapes = [(1, 1), (5, 19), (2, 28), (3, 29), (1, 32), (1, 48)]
    batches = [np.random.default_rng(i).integers(WORDS, size=x) for i, x in enumerate(shapes)]
    for batch, found in zip(batches, graph.run_graph(path, batches, attention=True), strict=True):
        wanted = graph.run_torch(network, batch, attention=True)
        assert graph.compare(found, wanted).worst < 1e-5


# Fresh networks


@pytest.mark.parametrize(
    ("family", "values"),
    [
        (gena_lm.FAMILY, {"positions": 16}),
        (gena_lm.FAMILY, {"rotary": 4, "last_norm": False}),
        (gena_lm.FAMILY, {"rotary": 4, "block": 4, "blocks": 12}),
        (gena_bigbird.FAMILY, {"positions": 48, "block": 4, "random": 1}),
    ],
)
def test_fresh_networks_learn(family, values):
    size = {"vocabulary": 30, "dim": 24, "layers": 2, "heads": 3, "hidden": 20}
    network = family.build({**size, **values})
    network(torch.arange(32).reshape(2, 16) % 30).logsumexp(-1).sum().backward()
    trunk = [name for name, x in network.named_parameters() if family.trunk(name, x)]
    assert len(trunk) == 12
    gone = [name for name, x in network.named_parameters() if x.grad is None]
    assert gone == []


def test_fresh_layout():
    layout = gena_lm.draw_layout(3, 12)
    assert torch.equal(layout, gena_lm.draw_layout(3, 12))
    place = torch.arange(12)
    near = (place[:, None] - place).abs() <= 1
    assert bool((layout[:, near] == 1).all())
    assert bool((layout[:, :2] == 1).all())
    assert bool((layout[:, :, :2] == 1).all())
    # Two global, three near, at most three more.
    counts = layout[:, 2:].sum(-1)
    assert counts.max() <= 8
    assert counts.min() >= 4
    assert not torch.equal(layout[0], layout[1])


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        (gena_lm.FAMILY, {"heads": 5}, "dim 24 is not a multiple of heads 5"),
        (gena_lm.FAMILY, {"rotary": 4}, "either positions or rotary"),
        (gena_lm.FAMILY, {"positions": 0}, "either positions or rotary"),
        (gena_lm.FAMILY, {"positions": 0, "rotary": 3}, "rotary 3 is not an even part"),
        (gena_lm.FAMILY, {"block": 4}, "block and blocks go together"),
        (gena_lm.FAMILY, {"colour": 1}, r"known here: .*activation, base"),
        (gena_bigbird.FAMILY, {"heads": 5}, "dim 24 is not a multiple of heads 5"),
        (gena_bigbird.FAMILY, {"activation": "relu"}, "activation"),
    ],
)
def test_build_refuses(family, changes, message):
    size = {"dim": 24, "layers": 1, "heads": 3, "hidden": 20, "positions": 16}
    with pytest.raises(InputError, match=message):
        family.build({**size, **changes})
