"""Toy bundles: their graphs against sums in plain Python, and the checks against broken things."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from glm_annotate.bundle import load_bundle, sha256_of, write_bundle
from glm_annotate.encoding import EncoderSpec, make_encoder
from glm_annotate.errors import BundleError, UsageError
from glm_annotate.testing import check_bundle, check_encoder, toy_bundle
from glm_annotate.train.toys import TOYS


def build(folder, kind, **options):
    return toy_bundle(kind, folder / "toy", **options)


def tables(bundle):
    graph = onnx.load(bundle / "model.onnx").graph
    return {x.name: numpy_helper.to_array(x).astype(np.float64) for x in graph.initializer}


def run(bundle, rows):
    session = onnxruntime.InferenceSession(
        str(bundle / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    (tensor,) = session.get_inputs()
    dtype = {"tensor(int64)": np.int64, "tensor(uint8)": np.uint8, "tensor(float)": np.float32}
    names = [x.name for x in session.get_outputs()]
    arrays = session.run(names, {"rows": np.asarray(rows, dtype=dtype[tensor.type])})
    return dict(zip(names, arrays, strict=True))


@pytest.mark.parametrize("kind", TOYS)
def test_every_toy_is_a_sound_bundle(tmp_path, kind):
    bundle = build(tmp_path, kind, seed=5)
    report = check_bundle(bundle)
    outputs = {"logits"} if kind == "free" else {"logits", "embedding"}
    # The expected outputs are onnx's reference evaluator's, the found ones ONNX Runtime's.
    assert set(report.differences) == outputs
    assert max(report.differences.values()) < 1e-6
    with np.load(bundle / "selftest.npz") as arrays:
        assert set(arrays) == {"input_rows", *(f"output_{x}" for x in outputs)}
        assert arrays["input_rows"].shape[0] == report.cases


@pytest.mark.parametrize("kind", TOYS)
def test_a_toy_is_the_same_each_time(tmp_path, kind):
    seeds = {"a": 1, "b": 1, "c": 2}
    bundles = [toy_bundle(kind, tmp_path / name, seed=seed) for name, seed in seeds.items()]
    digests = [{x.name: sha256_of(x) for x in path.iterdir()} for path in bundles]
    assert digests[0] == digests[1]
    assert kind == "uniform" or digests[0]["model.onnx"] != digests[2]["model.onnx"]


def spelled(t, tokens, pad, *, right=True):
    """Logits and embedding of the toys without far terms, as written in their description."""
    around = [pad, *tokens, pad]
    logits = [
        t["left"][around[i]] + t["own"][x] + (t["right"][around[i + 2]] if right else 0)
        for i, x in enumerate(tokens)
    ]
    embedding = [t["embed_left"][around[i]] + t["embed_own"][x] for i, x in enumerate(tokens)]
    return np.array(logits), np.array(embedding)


@pytest.mark.parametrize("kind", ["markov", "prefix", "overlap", "blocks", "bpe"])
@pytest.mark.parametrize("length", [1, 2, 9])
def test_rows_see_their_neighbours(tmp_path, kind, length):
    bundle = build(tmp_path, kind)
    pad = {"blocks": 1, "bpe": 3}.get(kind, 0)
    batch = np.random.default_rng(0).integers(0, TOYS[kind].size, size=(3, length))
    found = run(bundle, batch)
    for i, tokens in enumerate(batch):
        logits, embedding = spelled(tables(bundle), tokens, pad)
        np.testing.assert_allclose(found["logits"][i], logits, atol=1e-5)
        np.testing.assert_allclose(found["embedding"][i], embedding, atol=1e-5)


def test_wide_rows_see_everything(tmp_path):
    bundle = build(tmp_path, "wide", context=8)
    t, tokens = tables(bundle), np.array([3, 1, 6, 2, 4, 5, 5, 3])
    logits, embedding = spelled(t, tokens, 0)
    middle = t["weights"].size // 2
    for i in range(8):
        far = sum(t["weights"][middle + i - s] * t["value"][x] for s, x in enumerate(tokens))
        logits[i] += far * t["direction"]
        embedding[i] += far * t["embed_direction"]
    found = run(bundle, tokens[None])
    np.testing.assert_allclose(found["logits"][0], logits, atol=1e-5)
    np.testing.assert_allclose(found["embedding"][0], embedding, atol=1e-5)


@pytest.mark.parametrize("shift", [1, 0])
def test_causal_rows_see_what_came_before(tmp_path, shift):
    bundle = build(tmp_path, "causal", context=8, logits_shift=shift)
    t, tokens = tables(bundle), [2, 7, 8, 11, 10, 9, 7, 7, 8]
    seen = tokens if shift else [4, *tokens[:-1]]  # unshifted, row t may not see token t
    logits, embedding = spelled(t, seen, 4, right=False)
    for i in range(9):
        so_far = sum(t["weights"][s] * t["value"][seen[s]] for s in range(i + 1))
        logits[i] += so_far * t["direction"]
        embedding[i] += so_far * t["embed_direction"]
    found = run(bundle, [tokens])
    np.testing.assert_allclose(found["logits"][0], logits, atol=1e-5)
    np.testing.assert_allclose(found["embedding"][0], embedding, atol=1e-5)


def test_one_hot_rows(tmp_path):
    bundle = build(tmp_path, "onehot", context=5)
    t, letters = tables(bundle), [2, None, 0, 3, 3]  # None: masked or N
    rows = np.zeros((1, 5, 4))
    for i, x in enumerate(letters):
        if x is not None:
            rows[0, i, x] = 1
    around = [None, *letters, None]
    found = run(bundle, rows)
    for i in range(5):
        logits, embedding = t["bias"].copy(), t["embed_bias"].copy()
        for name, x in zip(("left", "own", "right"), around[i : i + 3], strict=True):
            if x is not None:
                logits += t[name][x]
                embedding += t[f"embed_{name}"][x] if name != "right" else 0
        np.testing.assert_allclose(found["logits"][0, i], logits, atol=1e-5)
        np.testing.assert_allclose(found["embedding"][0, i], embedding, atol=1e-5)


def test_uniform_and_free(tmp_path):
    found = run(toy_bundle("uniform", tmp_path / "u"), [[0, 1, 3, 6]])["logits"]
    assert (found[..., 3:] == 0).all()
    assert (found[..., :3] < -1000).all()
    bundle = toy_bundle("free", tmp_path / "f")
    found = run(bundle, [[3, 0]])
    np.testing.assert_array_equal(found["logits"][0], tables(bundle)["own"][[3, 0]])
    assert list(found) == ["logits"]
    assert load_bundle(bundle).card.inputs["rows"].dtype == "uint8"


def test_options_reach_the_card(tmp_path):
    scope = {"contigs": [{"name": "chrM", "min_length": 16000, "max_length": 17000}]}
    embedding = {"dim": 8, "pool": "window", "k": 5, "halves": "rc"}
    options = {"context": 24, "anchor": 7, "strand": "forward", "circular": ["chrM"], "tag": "T9"}
    options |= {"scores": ["ENT"], "scope": scope, "n": "mask", "dtype": "int32"}
    options |= {"multiple_of": 8, "max_tokens": 40, "pllr_max": 3, **embedding}
    bundle = build(tmp_path, "markov", **options)
    card = json.loads((bundle / "card.json").read_text())
    assert (card["context"], card["anchor"], card["strand"]) == (24, 7, "forward")
    assert (card["circular"], card["tag"], card["scores"]) == (["chrM"], "T9", ["ENT"])
    assert card["scope"]["contigs"] == scope["contigs"]
    assert card["embedding"] == embedding
    assert card["encoder"]["vocab"]["n"] == "mask"
    assert card["inputs"]["rows"]["dtype"] == "int32"
    assert card["window"] == {"kind": "dynamic", "max_tokens": 40, "multiple_of": 8}
    assert card["pllr_max"] == 3
    check_bundle(bundle)


@pytest.mark.parametrize(("bos", "rows"), [(True, 9), (False, 8)])
def test_a_prefix_can_be_left_out(tmp_path, bos, rows):
    bundle = load_bundle(build(tmp_path, "causal", context=8, bos=bos))
    (group,) = bundle.encoder.encode(np.zeros((1, 8), dtype=np.uint8))
    assert group.rows.shape == (1, rows)


@pytest.mark.parametrize(
    ("kind", "options", "error", "words"),
    [
        ("marcov", {}, UsageError, ["marcov", "markov", "free"]),
        ("markov", {"contxt": 9}, UsageError, ["contxt", "context", "pllr_max"]),
        ("markov", {"anchor": 99}, BundleError, ["markov", "anchor 99"]),
        ("markov", {"strand": "left"}, BundleError, ["strand", "both"]),
    ],
)
def test_options_that_are_wrong(tmp_path, kind, options, error, words):
    with pytest.raises(error) as caught:
        build(tmp_path, kind, **options)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words)
    assert not (tmp_path / "toy").exists()


def test_without_the_onnx_package(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="glm_annotate\\[train\\]"):
        build(tmp_path, "markov")


# check_bundle


def recard(bundle, **keys):
    """Write the card again, with other keys and the digests of the files as they are now."""
    card = json.loads((bundle / "card.json").read_text())
    del card["sha256"]
    write_bundle(bundle, card | keys)


def spoil(bundle, change):
    with np.load(bundle / "selftest.npz") as file:
        arrays = dict(file)
    change(arrays)
    np.savez(bundle / "selftest.npz", **arrays)
    recard(bundle)


def nudge(arrays):
    arrays["output_logits"][1, 2, 3] += 0.01


def blank(arrays):
    arrays["output_embedding"][0, 0, 0] = np.nan


def drop(arrays):
    del arrays["output_embedding"]


def shorten(arrays):
    arrays["output_logits"] = arrays["output_logits"][:, :-1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (nudge, ["logits", "self-test"]),
        (blank, ["embedding", "self-test"]),
        (drop, ["output_embedding"]),
        (shorten, ["logits", "shape"]),
    ],
)
def test_a_self_test_that_fails(tmp_path, change, words):
    bundle = build(tmp_path, "markov")
    spoil(bundle, change)
    refuses(bundle, *words)


def refuses(bundle, *words):
    with pytest.raises(BundleError) as caught:
        check_bundle(bundle)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_within_the_tolerance_of_the_card(tmp_path):
    bundle = build(tmp_path, "markov", atol=0.5)
    spoil(bundle, nudge)
    largest = float(np.abs(np.load(bundle / "selftest.npz")["output_logits"]).max())
    assert check_bundle(bundle).differences["logits"] == pytest.approx(0.01 / largest, rel=0.01)


ROWS = {"name": "rows", "axes": ["batch", "rows"], "dtype": "int64"}
LOGITS = {"name": "logits", "axes": ["batch", "rows", "vocabulary"]}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"inputs": {"rows": {**ROWS, "dtype": "int32"}}}, ["rows", "int64", "int32"]),
        ({"inputs": {"rows": {**ROWS, "axes": ["batch"]}}}, ["rows", "2 axes"]),
        ({"inputs": {"rows": {**ROWS, "name": "ids"}}}, ["'ids'", "rows"]),
        (
            {"outputs": {"logits": {**LOGITS, "name": "scores"}}, "embedding": None},
            ["'scores'", "logits, embedding"],
        ),
    ],
)
def test_a_card_that_does_not_fit_its_graph(tmp_path, keys, words):
    bundle = build(tmp_path, "markov")
    if "outputs" in keys:
        spoil(bundle, drop)
    recard(bundle, **keys)
    refuses(bundle, *words)


def test_a_bundle_without_a_self_test(tmp_path):
    bundle = build(tmp_path, "markov")
    (bundle / "selftest.npz").unlink()
    recard(bundle)
    refuses(bundle, "no selftest.npz")
    (bundle / "selftest.npz").write_text("not an archive")
    recard(bundle)
    refuses(bundle, "not a self-test")


def test_a_graph_that_does_not_load(tmp_path):
    bundle = build(tmp_path, "markov")
    model = onnx.load(bundle / "model.onnx")
    model.graph.node[0].op_type = "Unheard"
    (bundle / "model.onnx").write_bytes(model.SerializeToString())
    recard(bundle)
    refuses(bundle, "model.onnx", "cannot load")


def test_a_causal_model_that_sees_the_future(tmp_path):
    bundle = build(tmp_path, "markov")
    check_bundle(bundle)
    recard(bundle, objective="causal")
    refuses(bundle, "last row was changed")


# check_encoder


@dataclass
class Broken:
    """An encoder that breaks one promise."""

    inner: object
    fault: str

    @property
    def spec(self):
        return self.inner.spec

    def encode(self, codes):
        if self.fault == "batch" and len(codes) > 1:
            codes = codes[:, ::-1]
        groups = self.inner.encode(codes)
        first = groups[0]
        rows, spans = first.rows.copy(), first.spans.copy()
        if self.fault == "lost":
            first = replace(first, index=first.index[:-1], rows=rows[:-1])
        if self.fault == "spans":
            spans[:, 1:-1] += 1
        if self.fault == "gap":
            spans[:, 4, 1] -= 1
        if self.fault == "specials":
            spans[:, 0] = (0, 1)
        if self.fault == "neighbour":
            rows[:, 2:] = rows[:, 2:] * 2 + rows[:, 1:-1] % 2
        if self.fault in ("spans", "gap", "specials", "neighbour"):
            first = replace(first, rows=rows, spans=spans)
        return [first, *groups[1:]]

    def base_ids(self, width, offset):
        ids = None if self.fault == "neighbour" else self.inner.base_ids(width, offset)
        return ids[::-1] if self.fault == "ids" and ids is not None else ids


@pytest.mark.parametrize("kind", [x for x in TOYS if x not in ("free", "uniform", "wide")])
@pytest.mark.parametrize("length", [48, 61])
def test_our_encoders_are_sound(tmp_path, kind, length):
    check_encoder(load_bundle(build(tmp_path, kind)).encoder, length=length)


@pytest.mark.parametrize(
    ("kind", "fault", "words"),
    [
        ("prefix", "batch", "batch changes"),
        ("prefix", "lost", "partition"),
        ("prefix", "spans", "first base to the last"),
        ("blocks", "gap", "follow each other"),
        ("prefix", "specials", "special tokens"),
        ("markov", "neighbour", "changes other rows"),
        ("overlap", "ids", "base_ids"),
        ("onehot", "ids", "base_ids"),
    ],
)
def test_broken_encoders_are_found(tmp_path, kind, fault, words):
    encoder = load_bundle(build(tmp_path, kind)).encoder
    with pytest.raises(BundleError, match=words):
        check_encoder(Broken(encoder, fault))


@pytest.mark.parametrize(
    ("k", "stride", "vocab"),
    [(4, 2, {"unk_id": 999}), (3, 3, {"unk_id": 999, "n": "mask", "mask_id": 998, "tail": "drop"})],
)
def test_bases_that_do_not_fill_a_last_word_may_be_lost(k, stride, vocab):
    spec = EncoderSpec.model_validate(
        {"kind": "kmer", "k": k, "stride": stride, "vocab": {"first_id": 1, **vocab}}
    )
    check_encoder(make_encoder(spec), length=61)
