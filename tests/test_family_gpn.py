"""Published GPN and GPN-MSA: ids, windows, what a checkpoint may hold, and the networks by hand."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import onnx
import pytest
import torch

from glm_annotate.card import ModelCard
from glm_annotate.encoding import EncoderSpec, make_encoder, mask_rows
from glm_annotate.errors import InputError
from glm_annotate.genome import reverse_complement, to_codes, to_text
from glm_annotate.testing import check_encoder
from glm_annotate.train import graph
from glm_annotate.train.families import gpn_msa, gpn_songlab
from glm_annotate.train.families.family import Source

LAYOUTS = ("legacy", "convnet", "bytenet")
OFFICIAL = dict(zip(LAYOUTS, gpn_songlab.FAMILY.official, strict=True))
MSA = gpn_msa.FAMILY.official[0]
TOKENS = {"[PAD]": 0, "[MASK]": 1, "[UNK]": 2, "a": 3, "c": 4, "g": 5, "t": 6}

CONFIG = {
    "legacy": {
        "model_type": "ConvNet", "vocab_size": 7, "hidden_size": 10, "n_layers": 3,
        "kernel_size": 5, "dilation_max": 2, "dilation_cycle": 3, "n_aux_features": 0,
    },
    "convnet": {
        "model_type": "GPN", "encoder": "convnet", "embedding": "one_hot", "vocab_size": 7,
        "hidden_size": 10, "intermediate_size": 14, "num_hidden_layers": 3, "bias": False,
        "first_kernel_size": 7, "rest_kernel_size": 3, "dilation_cycle": 2,
        "layer_norm_eps": 1e-12, "depthwise": True, "mlm_head_transform": True,
    },
    "bytenet": {
        "model_type": "GPN", "encoder": "bytenet", "embedding": "embedding", "vocab_size": 7,
        "hidden_size": 10, "num_hidden_layers": 2, "bias": False, "slim": True,
        "first_kernel_size": 5, "rest_kernel_size": 3, "mlm_head_transform": False,
    },
}  # fmt: skip
MSA_CONFIG = {
    "model_type": "GPNRoFormer", "vocab_size": 6, "aux_features_vocab_size": 5,
    "n_aux_features": 15, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
    "intermediate_size": 20, "max_position_embeddings": 64, "layer_norm_eps": 1e-12,
    "hidden_act": "gelu", "rotary_value": False, "embedding_size": 24,
}  # fmt: skip


def shapes_of(layout):
    """Shapes of an official checkpoint of `CONFIG`, written out from the authors' layout."""
    if layout == "legacy":
        layer = {
            "conv.1.weight": (10, 10, 5), "conv.1.bias": (10,),
            "conv.4.weight": (10,), "conv.4.bias": (10,),
            "ffn.0.weight": (10, 10), "ffn.0.bias": (10,),
            "ffn.2.weight": (10,), "ffn.2.bias": (10,),
        }  # fmt: skip
        head = {"0.weight": (10, 10), "0.bias": (10,), "2.weight": (10,), "2.bias": (10,)}
        head |= {"3.weight": (7, 10), "3.bias": (7,)}
        shapes = {f"model.encoder.{i}.{key}": x for i in range(3) for key, x in layer.items()}
        return shapes | {f"cls.decoder.{key}": x for key, x in head.items()}
    if layout == "convnet":
        layer = {
            "conv.0.weight": (10,), "conv.2.weight": (10, 10, 7), "conv.5.weight": (10, 10),
            "ffn.0.weight": (10,), "ffn.1.weight": (14, 10), "ffn.3.weight": (10, 14),
        }  # fmt: skip
        shapes = {f"model.encoder.layer.{i}.{key}": x for i in range(3) for key, x in layer.items()}
        shapes |= {f"model.encoder.layer.{i}.conv.2.weight": (10, 1, 3) for i in (1, 2)}
        shapes |= {"cls.transform.0.weight": (10, 10), "cls.transform.2.weight": (10,)}
        return shapes | {"model.ln_f.weight": (10,), "cls.decoder.weight": (7, 10)}
    layer = {
        "0.weight": (10,), "2.weight": (5, 10), "3.weight": (5,), "6.weight": (5, 5, 5),
        "8.weight": (5,), "10.weight": (10, 5),
    }  # fmt: skip
    shapes = {
        f"model.encoder.layer.{i}.layer.{key}": x for i in range(2) for key, x in layer.items()
    }
    shapes |= {"model.encoder.layer.1.layer.6.weight": (5, 5, 3)}
    shapes |= {"model.embeddings.word_embeddings.weight": (7, 10), "model.ln_f.weight": (10,)}
    return shapes | {"cls.decoder.weight": (7, 10)}


def msa_shapes():
    layer = {f"attention.self.{x}": (24, 24) for x in ("query", "key", "value")}
    layer |= {"attention.output.dense": (24, 24), "intermediate.dense": (20, 24)}
    layer |= {"output.dense": (24, 20), "attention.output.LayerNorm": (24,)}
    layer |= {"output.LayerNorm": (24,)}
    shapes = {}
    for i in range(2):
        for key, shape in layer.items():
            shapes[f"model.encoder.layer.{i}.{key}.weight"] = shape
            shapes[f"model.encoder.layer.{i}.{key}.bias"] = shape[:1]
    shapes |= {"model.encoder.embed_positions.weight": (64, 8), "cls.predictions.bias": (6,)}
    for key, shape in {"transform.dense": (24, 24), "transform.LayerNorm": (24,)}.items():
        shapes |= {f"cls.predictions.{key}.weight": shape, f"cls.predictions.{key}.bias": (24,)}
    return shapes | {
        "cls.predictions.decoder.weight": (6, 24),
        "cls.predictions.decoder.bias": (6,),
    }


def drawn(shapes, scale=0.4):
    generator = torch.Generator().manual_seed(5)
    return {name: torch.randn(x, generator=generator) * scale for name, x in shapes.items()}


def source_of(layout, folder=None, **changes):
    return Source("checkpoint", drawn(shapes_of(layout)), CONFIG[layout] | changes, folder)


def msa_source(**changes):
    return Source("checkpoint", drawn(msa_shapes()), MSA_CONFIG | changes)


def load(layout, **changes):
    return OFFICIAL[layout].load(source_of(layout, **changes), None)


def replaced(source, add=(), drop=()):
    weights = {key: x for key, x in source.weights.items() if key not in drop}
    return Source(source.name, weights | dict(add), source.config)


def msa_batch(shape=(2, 9), seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(5, size=(*shape, 3)).astype(np.float32)
    return rng.integers(6, size=shape), codes


# Ids and windows


def encode(card, text):
    encoder = make_encoder(EncoderSpec.model_validate(card["encoder"]))
    (group,) = encoder.encode(to_codes(text.encode())[None])
    return encoder, group


@pytest.mark.parametrize("layout", LAYOUTS)
def test_trap_single_bases_from_id_3_any_case_and_everything_else_unknown(layout):
    encoder, group = encode(load(layout).card, "ACGTacgtNnR")
    assert group.rows[0].tolist() == [3, 4, 5, 6, 3, 4, 5, 6, 2, 2, 2]
    # No special tokens: base p is row p.
    assert group.spans[0].tolist() == [[p, p + 1] for p in range(11)]
    assert encoder.base_ids(1, 0).tolist() == [[3], [4], [5], [6]]
    masked = mask_rows(group.rows, np.arange(11) == 4, encoder.spec)
    assert masked[0].tolist() == [3, 4, 5, 6, 1, 4, 5, 6, 2, 2, 2]
    check_encoder(encoder)


def test_trap_msa_ids_are_those_of_the_byte_table():
    encoder, group = encode(MSA.load(msa_source(), None).card, "ACGTacgtNR")
    assert group.rows[0].tolist() == [1, 2, 3, 4, 1, 2, 3, 4, 0, 0]
    assert mask_rows(group.rows, np.arange(10) == 0, encoder.spec)[0, 0] == 5
    check_encoder(encoder)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_trap_window_is_512_and_another_is_said_to_be_another(layout):
    card = load(layout).card
    assert (card["context"], card["anchor"]) == (512, 256)
    same = OFFICIAL[layout].load(source_of(layout), 512).card
    assert (same["context"], "limits" in same["provenance"]) == (512, False)
    other = OFFICIAL[layout].load(source_of(layout), 128).card
    assert (other["context"], other["anchor"]) == (128, 64)
    assert other["provenance"]["limits"].startswith("Windows of 128 bases; trained on 512.")


def test_trap_msa_window_is_128_and_another_is_said_to_be_another():
    card = MSA.load(msa_source(), None).card
    assert (card["context"], card["anchor"], "limits" in card["provenance"]) == (128, 64, False)
    assert MSA.load(msa_source(), 64).card["provenance"]["limits"].startswith("Windows of 64")
    with pytest.raises(InputError, match=r"--context 9999: allowed are 1 to "):
        MSA.load(msa_source(), 9999)


@pytest.mark.parametrize("loaded", [load("legacy"), MSA.load(msa_source(), None)])
def test_trap_reverse_strand_has_the_base_at_half_minus_one(loaded):
    width, anchor = loaded.card["context"], loaded.card["anchor"]
    text = "A" * anchor + "G" + "A" * (width - anchor - 1)
    turned = to_text(reverse_complement(to_codes(text.encode())))
    assert turned.index("C") == width // 2 - 1


def test_trap_receptive_field_of_the_published_convnet_is_wider_than_its_window():
    config = {"model_type": "ConvNet"}
    made = gpn_songlab.official_config("legacy", Source("x", {}, config))
    assert made.dilations == (*(1, 2, 4, 8, 16, 32) * 4, 1)
    assert 2 * made.reach + 1 == 2025
    assert (made.dim, made.hidden, made.kernel_first, made.kernel) == (512, 512, 9, 9)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [1, 2, 4, 8, 16, 32, 64, 128, 1, 2]),
        ({"dilation_cycle": 3}, [1, 2, 4, 1, 2, 4, 1, 2, 4, 1]),
        ({"dilation_max": 5}, [1, 2, 4, 5, 5, 5, 5, 5, 1, 2]),
        ({"dilation_double_every": 3}, [1, 1, 1, 2, 2, 2, 4, 4, 1, 1]),
        ({"dilation_base": 3, "dilation_cycle": 4}, [1, 3, 9, 27, 1, 3, 9, 27, 1, 3]),
    ],
)
def test_trap_dilations_follow_the_schedule(changes, expected):
    config = {"model_type": "GPN", "num_hidden_layers": 10} | changes
    made = gpn_songlab.official_config("convnet", Source("x", {}, config))
    assert list(made.dilations) == expected


def test_defaults_of_the_gpn_class():
    made = gpn_songlab.official_config("convnet", Source("x", {}, {"model_type": "GPN"}))
    assert (made.dim, made.hidden, made.kernel_first, made.kernel) == (512, 2048, 9, 5)
    assert len(made.dilations) == 25
    assert (made.bias, made.depthwise, made.table, made.transform) == (False, False, False, True)


def test_trap_sizes_add_up_to_the_official_files():
    with torch.device("meta"):
        plants = gpn_songlab.GpnSonglab(
            gpn_songlab.official_config("legacy", Source("x", {}, {"model_type": "ConvNet"}))
        )
        human = gpn_msa.build(
            {"species": 89, "dim": 768, "layers": 12, "heads": 12, "hidden": 3072}
        )
        dilations = [2 ** (i % 8) for i in range(64)]
        animals = gpn_songlab.build(
            {
                "layout": "bytenet", "dim": 1024, "hidden": 512, "dilations": dilations,
                "table": True, "transform": False,
            }
        )  # fmt: skip
    # 263,520,284 bytes of tensors, as the model.safetensors of gpn-brassicales holds.
    assert 4 * sum(weight.numel() for weight in plants.parameters()) == 263_520_284
    # Twelve layers of four 768 x 768, two 768 x 3072 and two norms; the head.
    layer = 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    head = 768 * 768 + 768 + 2 * 768 + 6 * 768 + 6
    assert sum(x.numel() for x in human.parameters() if x.requires_grad) == 12 * layer + head
    assert (human.channels, human.max_rows) == (89, 1536)
    # 343 MB are gpn-msa-sapiens, its table of positions among them, and 609 MB gpn-animal-promoter.
    sizes = [4 * sum(x.numel() for x in network.parameters()) for network in (human, animals)]
    assert [round(size / 1e6) for size in sizes] == [343, 609]


# The networks by hand


def convolve(x, weight, dilation):
    """Sum over taps, with zeros past both ends; (T, D) to (T, D)."""
    out = np.zeros((len(x), weight.shape[0]))
    depthwise = weight.shape[1] == 1 and x.shape[1] > 1
    half = weight.shape[2] // 2
    for t in range(len(x)):
        for tap in range(weight.shape[2]):
            source = t + dilation * (tap - half)
            if 0 <= source < len(x):
                taps = weight[:, :, tap]
                out[t] += taps[:, 0] * x[source] if depthwise else taps @ x[source]
    return out


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def norm(x, weight, bias=0.0, eps=1e-5):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + bias


def by_hand(layout, ids, w, eps=1e-5):
    """Embedding and logits of one window, from the official keys."""
    if layout == "bytenet":
        x = w["model.embeddings.word_embeddings.weight"][ids]
    else:
        x = np.eye(10)[ids]
    dilations = {"legacy": (1, 2, 2), "convnet": (1, 2, 1), "bytenet": (1, 2)}[layout]
    for i, dilation in enumerate(dilations):
        if layout == "legacy":
            at = f"model.encoder.{i}"
            y = convolve(x, w[f"{at}.conv.1.weight"], dilation) + w[f"{at}.conv.1.bias"]
            x = x + norm(gelu(y), w[f"{at}.conv.4.weight"], w[f"{at}.conv.4.bias"])
            y = x @ w[f"{at}.ffn.0.weight"].T + w[f"{at}.ffn.0.bias"]
            x = x + norm(gelu(y), w[f"{at}.ffn.2.weight"], w[f"{at}.ffn.2.bias"])
        elif layout == "convnet":
            at = f"model.encoder.layer.{i}"
            y = norm(x, w[f"{at}.conv.0.weight"], eps=eps)
            y = gelu(convolve(y, w[f"{at}.conv.2.weight"], dilation))
            x = x + y @ w[f"{at}.conv.5.weight"].T
            y = gelu(norm(x, w[f"{at}.ffn.0.weight"], eps=eps) @ w[f"{at}.ffn.1.weight"].T)
            x = x + y @ w[f"{at}.ffn.3.weight"].T
        else:
            at = f"model.encoder.layer.{i}.layer"
            y = gelu(norm(x, w[f"{at}.0.weight"], eps=eps)) @ w[f"{at}.2.weight"].T
            y = gelu(norm(y, w[f"{at}.3.weight"], eps=eps))
            y = gelu(norm(convolve(y, w[f"{at}.6.weight"], dilation), w[f"{at}.8.weight"], eps=eps))
            x = x + y @ w[f"{at}.10.weight"].T
    if layout == "legacy":
        y = gelu(x @ w["cls.decoder.0.weight"].T + w["cls.decoder.0.bias"])
        y = norm(y, w["cls.decoder.2.weight"], w["cls.decoder.2.bias"])
        return x, y @ w["cls.decoder.3.weight"].T + w["cls.decoder.3.bias"]
    x = y = norm(x, w["model.ln_f.weight"], eps=eps)
    if layout == "convnet":
        y = gelu(x @ w["cls.transform.0.weight"].T)
        y = norm(y, w["cls.transform.2.weight"], eps=eps)
    return x, y @ w["cls.decoder.weight"].T


@pytest.mark.parametrize("layout", LAYOUTS)
def test_trap_order_of_norms_and_gelus_by_hand(layout):
    source = source_of(layout)
    network = OFFICIAL[layout].load(source, None).network.double()
    ids = np.random.default_rng(1).integers(7, size=13)
    weights = {key: x.double().numpy() for key, x in source.weights.items()}
    embedding, logits = by_hand(layout, ids, weights)
    with torch.no_grad():
        found = network.embed(torch.from_numpy(ids)[None])
        np.testing.assert_allclose(found[0].numpy(), embedding, atol=1e-12)
        np.testing.assert_allclose(network.decode(found)[0].numpy(), logits, atol=1e-12)


def test_trap_norms_have_torchs_eps_not_the_configs():
    # One-hot rows of 10 have a variance of 0.09; scaled weights make eps matter further in.
    source = source_of("convnet")
    weights = {key: x.double().numpy() for key, x in source.weights.items()}
    network = OFFICIAL["convnet"].load(source, None).network.double()
    ids = np.random.default_rng(1).integers(7, size=13)
    with torch.no_grad():
        found = network.embed(torch.from_numpy(ids)[None])[0].numpy()
    wrong, _ = by_hand("convnet", ids, weights, eps=CONFIG["convnet"]["layer_norm_eps"])
    assert np.abs(found - wrong).max() > 1e-6


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_trap_no_mask_so_padding_would_change_the_edges(layout):
    network = load(layout).network.double()
    rows = torch.randint(7, (3, 20), generator=torch.Generator().manual_seed(2))
    padded = torch.cat([rows, torch.zeros(3, 4, dtype=torch.int64)], dim=1)
    assert (network(padded)[:, :20] - network(rows)).abs().max() > 1e-3
    for one, expected in zip(rows, network(rows), strict=True):
        torch.testing.assert_close(network(one[None])[0], expected, rtol=1e-12, atol=1e-12)


def test_trap_msa_letters_are_laid_out_species_by_species():
    network = MSA.load(msa_source(), None).network
    codes = torch.tensor([[[0.0, 4.0, 2.0], [1.0, 1.0, 3.0]]])
    letters = network.letters(torch.tensor([[5, 3]]), codes)
    # Human at 0 to 5, the species at 6 to 10, 11 to 15, 16 to 20, and zeros up to 24.
    assert letters.shape == (1, 2, 24)
    assert letters[0, 0].nonzero().flatten().tolist() == [5, 6, 11 + 4, 16 + 2]
    assert letters[0, 1].nonzero().flatten().tolist() == [3, 6 + 1, 11 + 1, 16 + 3]
    assert set(letters.flatten().tolist()) == {0.0, 1.0}


def test_trap_msa_rotation_takes_neighbours_as_pairs():
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4)
    # Sines of both pairs, then cosines: a quarter turn of the first pair, a third of the second.
    third = 2 * math.pi / 3
    table = torch.tensor([[1.0, math.sin(third), 0.0, math.cos(third)]])
    s, c = math.sin(third), math.cos(third)
    expected = [-2.0, 1.0, 3 * c - 4 * s, 4 * c + 3 * s]
    found = gpn_msa.rotate_pairs(x, table).flatten().tolist()
    assert found == pytest.approx(expected, abs=1e-6)


def test_trap_msa_rotary_table_is_the_stored_one():
    stored = MSA.load(msa_source(), None).network.embed_positions.weight
    assert torch.equal(stored, msa_source().weights["model.encoder.embed_positions.weight"])
    fresh = gpn_msa.build({"species": 1, "dim": 16, "layers": 1, "heads": 2, "hidden": 4})
    table = fresh.embed_positions.weight
    assert table.shape == (1536, 8)
    for place, i in [(0, 0), (1, 3), (70, 1)]:
        angle = place / 10000 ** (2 * i / 8)
        assert table[place, i].item() == pytest.approx(math.sin(angle), abs=1e-5)
        assert table[place, 4 + i].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_msa_network_by_hand():
    source = msa_source()
    network = MSA.load(source, None).network.double()
    w = {key: x.double().numpy() for key, x in source.weights.items()}
    rows, codes = msa_batch((1, 7))
    x = np.zeros((7, 24))
    for t in range(7):
        x[t, rows[0, t]] = 1
        for species in range(3):
            x[t, 6 + 5 * species + int(codes[0, t, species])] = 1

    def linear(x, key):
        return x @ w[f"{key}.weight"].T + w[f"{key}.bias"]

    def normed(x, key):
        return norm(x, w[f"{key}.weight"], w[f"{key}.bias"], eps=1e-12)

    table = w["model.encoder.embed_positions.weight"]
    for i in range(2):
        at = f"model.encoder.layer.{i}"
        q, k, v = (linear(x, f"{at}.attention.self.{part}") for part in ("query", "key", "value"))
        out = np.zeros((7, 24))
        for head in range(3):
            own = slice(8 * head, 8 * head + 8)
            turned = np.zeros((2, 7, 8))
            for which, part in enumerate((q[:, own], k[:, own])):
                for t in range(7):
                    for pair in range(4):
                        s, c = table[t, pair], table[t, 4 + pair]
                        a, b = part[t, 2 * pair : 2 * pair + 2]
                        turned[which, t, 2 * pair : 2 * pair + 2] = a * c - b * s, b * c + a * s
            scores = np.exp(turned[0] @ turned[1].T / math.sqrt(8))
            out[:, own] = scores / scores.sum(-1, keepdims=True) @ v[:, own]
        inner = linear(out, f"{at}.attention.output.dense")
        x = normed(inner + x, f"{at}.attention.output.LayerNorm")
        inner = linear(gelu(linear(x, f"{at}.intermediate.dense")), f"{at}.output.dense")
        x = normed(inner + x, f"{at}.output.LayerNorm")
    y = normed(
        gelu(linear(x, "cls.predictions.transform.dense")), "cls.predictions.transform.LayerNorm"
    )
    logits = linear(y, "cls.predictions.decoder")
    with torch.no_grad():
        found = network.embed_with(torch.from_numpy(rows), torch.from_numpy(codes))
        np.testing.assert_allclose(found[0].numpy(), x, atol=1e-10)
        np.testing.assert_allclose(network.decode(found)[0].numpy(), logits, atol=1e-10)


# What a checkpoint may hold

SOURCES = {**{layout: source_of(layout) for layout in LAYOUTS}, "msa": msa_source()}
READERS = {**OFFICIAL, "msa": MSA}


@pytest.mark.parametrize("name", SOURCES)
def test_recognise_own_and_no_others(name):
    for reader, official in READERS.items():
        assert official.recognise(SOURCES[name]) == (reader == name)
        bare = Source("bare", SOURCES[name].weights)
        assert official.recognise(bare) == (reader == name)
    for kind in ("bert", "GPNStar", "roformer", 7, None):
        other = Source("other", SOURCES[name].weights, {"model_type": kind})
        assert not any(official.recognise(other) for official in READERS.values())
    assert not READERS[name].recognise(Source("empty", {}, SOURCES[name].config))


@pytest.mark.parametrize("name", SOURCES)
def test_every_key_is_accounted_for(name):
    source, official = SOURCES[name], READERS[name]
    with pytest.raises(InputError, match=r"keys that this system does not have: classifier\.x"):
        official.load(replaced(source, add={"classifier.x": torch.zeros(2)}), None)
    tied = {"cls.predictions.bias", "cls.predictions.decoder.bias"}
    for key in sorted(set(source.weights) - tied):
        with pytest.raises(InputError, match=r"checkpoint: no weights for|layers\.0"):
            official.load(replaced(source, drop=[key]), None)
    key = min(set(source.weights) - tied)
    with pytest.raises(InputError, match="shapes that do not fit the config"):
        official.load(replaced(source, add={key: torch.zeros(2, 3)}), None)


def test_msa_bias_of_the_decoder_may_have_either_name():
    source, decoder, other = msa_source(), "cls.predictions.decoder.bias", "cls.predictions.bias"
    assert not torch.equal(source.weights[decoder], source.weights[other])
    both = MSA.load(source, None).network.head.decoder.bias
    assert torch.equal(both, source.weights[decoder])
    alone = MSA.load(replaced(source, drop=[decoder]), None).network.head.decoder.bias
    assert torch.equal(alone, source.weights[other])
    assert torch.equal(
        MSA.load(replaced(source, drop=[other]), None).network.head.decoder.bias, both
    )
    with pytest.raises(InputError, match=r"no weights for: head\.decoder\.bias"):
        MSA.load(replaced(source, drop=[decoder, other]), None)


def test_trap_decoder_may_be_left_out_where_it_is_tied():
    words, decoder = "model.embeddings.word_embeddings.weight", "cls.decoder.weight"
    tied = source_of("bytenet", tie_word_embeddings=True)
    for kept, left in ((words, decoder), (decoder, words)):
        network = OFFICIAL["bytenet"].load(replaced(tied, drop=[left]), None).network
        assert torch.equal(network.head.decoder.weight, tied.weights[kept])
        assert torch.equal(network.embedding.weight, tied.weights[kept])
        with pytest.raises(InputError, match="no weights for"):
            OFFICIAL["bytenet"].load(replaced(source_of("bytenet"), drop=[left]), None)


@pytest.mark.parametrize(
    ("layout", "changes", "message"),
    [
        ("legacy", {"vocab_size": 8}, "vocab_size is 8, wanted 7"),
        ("convnet", {"encoder": "bytenet"}, "encoder is 'bytenet', wanted convnet"),
        ("bytenet", {"embedding": "cnn"}, "embedding is 'cnn', wanted one_hot or embedding"),
        ("convnet", {"n_aux_features": 445}, "n_aux_features is 445, wanted 0"),
        ("convnet", {"rest_kernel_size": 4}, "kernels must be odd"),
        ("convnet", {"hidden_size": 5}, "one-hot ids of 7 do not fit in dim 5"),
        ("legacy", {"n_layers": "many"}, "n_layers is 'many', wanted a number from 1 on"),
        ("legacy", {"n_layers": 0}, "n_layers is 0, wanted a number from 1 on"),
        ("convnet", {"bias": "perhaps"}, "config: bias: "),
    ],
)
def test_config_that_contradicts(layout, changes, message):
    with pytest.raises(InputError, match=f"^checkpoint: .*{message}"):
        OFFICIAL[layout].load(source_of(layout, **changes), None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 7}, "vocab_size is 7, wanted 6"),
        ({"n_aux_features": 14}, "n_aux_features is 14, wanted 5 for each species"),
        ({"n_aux_features": 0}, "n_aux_features is 0, wanted a number"),
        ({"n_aux_features": 20}, "26 letters of 4 species exceed dim 24"),
        ({"rotary_value": True}, "rotary_value is True, wanted False"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu', wanted gelu"),
        ({"num_attention_heads": 8}, "dim 24 is not an even number for each of 8 heads"),
        ({"embedding_size": 32}, "embedding_size is 32, wanted 24 as hidden_size"),
        ({"species": ["hg38"]}, "species has 1 different names, wanted 3"),
        ({"species": ["a", "b", "b"]}, "species has 2 different names, wanted 3"),
    ],
)
def test_msa_config_that_contradicts(changes, message):
    with pytest.raises(InputError, match=f"^checkpoint: .*{message}"):
        MSA.load(msa_source(**changes), None)


@pytest.mark.parametrize("name", SOURCES)
def test_no_config(name):
    with pytest.raises(InputError, match=r"^bare: no config\.json beside the weights"):
        READERS[name].load(Source("bare", SOURCES[name].weights), None)


def test_tokens_beside_the_weights_are_compared(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"model": {"type": "BPE", "vocab": TOKENS, "merges": []}}))
    assert load("legacy", folder=tmp_path).card["encoder"]["vocab"]["first_id"] == 3
    path.write_text(json.dumps({"model": {"vocab": TOKENS | {"c": 5, "g": 4}}}))
    with pytest.raises(
        InputError,
        match=re.escape(f"{path}: holds ") + ".*wanted .*c 4.*; fetch the tokenizer.json",
    ):
        load("legacy", folder=tmp_path)
    for text in ("{", "{}", "[]", '{"model": {"vocab": 3}}'):
        path.write_text(text)
        with pytest.raises(InputError, match=r"cannot be read .* fetch the tokenizer\.json"):
            load("legacy", folder=tmp_path)
    path.unlink()
    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS) + "\n")
    load("legacy", folder=tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n")
    with pytest.raises(InputError, match=r"vocab\.txt: holds \[PAD\] 0, \[UNK\] 1, wanted "):
        load("legacy", folder=tmp_path)


def test_msa_channels_are_the_species_in_the_order_of_the_alignment():
    channels = MSA.load(msa_source(), None).card["encoder"]["channels"]
    assert [x["name"] for x in channels] == ["species_1", "species_2", "species_3"]
    assert {(x["source"], x["indel"], x["missing"]) for x in channels} == {("msa", "edit", 0)}
    named = MSA.load(msa_source(species=["a", "b", "c"]), None).card["encoder"]["channels"]
    assert [x["name"] for x in named] == ["a", "b", "c"]


@pytest.mark.parametrize("name", SOURCES)
def test_cards_are_valid(name):
    loaded = READERS[name].load(SOURCES[name], None)
    rows = {"name": "rows", "axes": ["batch", "length"], "dtype": "int64"}
    logits = {"name": "logits", "axes": ["batch", "length", "vocabulary"]}
    card = ModelCard.model_validate(
        {
            "name": "x",
            "tag": READERS[name].tag,
            "objective": "masked",
            "inputs": {"rows": rows},
            "outputs": {"logits": logits},
            **loaded.card,
        }
    )
    assert card.scores == ("LLR", "PLLR")
    assert (card.strand, card.logits_shift, card.window.kind) == ("both", 0, "fixed")
    assert len(card.encoder.channels) == loaded.network.channels


def test_facts_come_with_the_repository_alone():
    facts = {
        repository: OFFICIAL[layout]
        .load(Source("x", drawn(shapes_of(layout)), CONFIG[layout], None, repository), None)
        .card["provenance"]
        for layout, repository in [
            ("legacy", "songlab/gpn-brassicales@0123"),
            ("bytenet", "songlab/gpn-animal-promoter@0123"),
            ("legacy", "someone/else@0123"),
        ]
    }
    assert "Arabidopsis" in facts["songlab/gpn-brassicales@0123"]["species"]
    assert "2025" in facts["songlab/gpn-animal-promoter@0123"]["citation"]
    assert facts["someone/else@0123"] == {}


# Graphs


@pytest.mark.parametrize("name", SOURCES)
def test_trap_graph_has_explicit_padding_and_any_shape(name, tmp_path):
    torch.set_num_threads(1)
    network = READERS[name].load(SOURCES[name], None).network
    path = tmp_path / "model.onnx"
    graph.write_graph(network, path, "fp32")
    shapes = [(1, 1), (5, 19), (1, 64)]
    rng = np.random.default_rng(3)
    batches = [
        msa_batch(shape) if network.channels else rng.integers(7, size=shape) for shape in shapes
    ]
    # ONNX Runtime refuses automatic padding with dilation on some devices.
    nodes = [node for node in onnx.load(path).graph.node if node.op_type == "Conv"]
    assert bool(nodes) == (name != "msa")
    for node in nodes:
        kinds = {x.name: onnx.helper.get_attribute_value(x) for x in node.attribute}
        assert kinds.get("auto_pad", b"NOTSET") == b"NOTSET"
        assert sum(kinds["pads"]) == kinds["dilations"][0] * (kinds["kernel_shape"][0] - 1)
    for batch, found in zip(batches, graph.run_graph(path, batches), strict=True):
        parity = graph.compare(found, graph.run_torch(network, batch))
        assert parity.worst < 2e-6


@pytest.mark.parametrize(
    ("build", "values", "message"),
    [
        (
            gpn_songlab.build,
            {"dim": 8, "hidden": 8, "dilations": [0]},
            "dilations must be at least",
        ),
        (gpn_songlab.build, {"dim": 8, "hidden": 8, "dilations": []}, r"model\.dilations: "),
        (gpn_songlab.build, {"dim": 8, "wide": 8}, r"known here: bias, depthwise, dilations"),
        (
            gpn_songlab.build,
            {"layout": "legacy", "dim": 8, "hidden": 9, "dilations": [1], "bias": True},
            "legacy has bias",
        ),
        (gpn_msa.build, {"species": 0}, r"model\.species: "),
    ],
)
def test_a_bad_model_table(build, values, message):
    with pytest.raises(InputError, match=message):
        build(values)


def test_fresh_networks_can_be_made():
    values = {"dim": 8, "hidden": 12, "kernel": 3, "dilations": [1, 2]}
    network = gpn_songlab.build(values)
    assert network(torch.zeros(2, 5, dtype=torch.int64)).shape == (2, 5, 7)
    trunk = {name for name, x in network.named_parameters() if gpn_songlab.FAMILY.trunk(name, x)}
    assert "layers.1.mix.weight" in trunk
    assert not any(name.startswith("head.") for name in trunk)
