"""Fine-tuning: what is pooled, what is trained, how changes merge, batches and losses."""

from __future__ import annotations

import json
import math

import finetune_kit as kit
import numpy as np
import pytest
import torch
from torch import nn

from glm_annotate.encoding import EncoderSpec, make_encoder
from glm_annotate.errors import InputError
from glm_annotate.genome import to_codes
from glm_annotate.train.config import load_config
from glm_annotate.train.families import FAMILIES
from glm_annotate.train.families.family import Network
from glm_annotate.train.families.with_head import Facts, Finetuned, WithHead
from glm_annotate.train.finetune import make_finetune
from glm_annotate.train.finetune.config import HeadConfig, LoraConfig
from glm_annotate.train.finetune.exporting import finetuned
from glm_annotate.train.finetune.model import (
    check_windows,
    choose_trained,
    count_parameters,
    merge,
    restore,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(2)


SINGLE = {"kind": "kmer", "vocab": {"first_id": 3, "single_ids": {"N": 2}, "pad_id": 0}}
OVERLAP = {
    "kind": "kmer", "k": 3,
    "vocab": {"order": "ATCG", "first_id": 5, "unk_id": 1, "pad_id": 0, "prefix": [2],
              "suffix": [3]},
}  # fmt: skip
BLOCKS = {
    "kind": "kmer", "k": 3, "stride": 3,
    "vocab": {"order": "ATCG", "first_id": 4, "unk_id": 0, "prefix": [3],
              "single_ids": {"A": 68, "T": 69, "C": 70, "G": 71, "N": 72}},
}  # fmt: skip
BYTES = {"kind": "bytes", "vocab": {"prefix": [0]}}
KINDS = (SINGLE, OVERLAP, BLOCKS, BYTES, "bpe", "bpe with N")
TEXTS = ("ACGTACGTTGCAT", "NNNTACGTTGNNN", "ACGNACGTANCAT", "NNNNNNNNNNNNN")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    kit.write_dnabert2(folder / "dnabert2")
    kit.write_promoters(folder / "promoters.tsv")
    return folder


def make(source, tmp_path, mode, **changes):
    """The objective of a config beside its own run folder."""
    path = source / f"{tmp_path.name}.toml"
    path.write_text(kit.config_text("dnabert2", mode, out=f'"{tmp_path / "run"}"', **changes))
    return make_finetune(load_config(path), source, source)


def facts_of(spec, *, pool="mean", mode="full", context=13, loss="mse", tokenizer=None, **more):
    return Facts(
        family=more.pop("family", "gpn"),
        model=more.pop("model", {}),
        encoder=EncoderSpec.model_validate(spec),
        tokenizer=tokenizer,
        context=context,
        reverse_complement=False,
        mode=mode,
        loss=loss,
        head=HeadConfig(pool=pool),
        lora=LoraConfig(rank=2, alpha=6),
        outputs=more.pop("outputs", ("y",)),
    )


# What is pooled


class OneHot(Network):
    """Its embedding of a row is the row's id, one-hot: pooled rows are frequencies of ids."""

    def __init__(self, size):
        super().__init__()
        self.dim = self.vocabulary = size
        self.scale = nn.Parameter(torch.ones(1))

    def embed(self, rows):
        return torch.eye(self.dim)[rows] * self.scale


def encoder_with_text(spec, tmp_path):
    """The encoder of a spec, with a tokenizer where it needs one."""
    if spec not in ("bpe", "bpe with N"):
        return make_encoder(EncoderSpec.model_validate(spec)), spec, None
    path = tmp_path / "tokenizer.json"
    kit.write_tokenizer(path, alphabet="ACGT" if spec == "bpe" else "ACGTN")
    vocab = {"pad_id": 3, "unk_id": 0, "mask_id": 4, "prefix": [1], "suffix": [2]}
    spec = {"kind": "bpe", "vocab": vocab}
    return make_encoder(EncoderSpec.model_validate(spec), path), spec, path.read_text()


@pytest.mark.parametrize("spec", KINDS, ids=lambda x: str(x)[:40])
def test_a_row_weighs_the_bases_it_stands_for(spec, tmp_path):
    encoder, spec, text = encoder_with_text(spec, tmp_path)
    network = WithHead(OneHot(128), facts_of(spec, tokenizer=text), encoder)
    codes = np.stack([to_codes(x) for x in TEXTS])
    for group in encoder.encode(codes):
        found = network.pool(torch.from_numpy(group.rows.astype(np.int64))).detach().numpy()
        for at, member in enumerate(group.index.tolist()):
            wanted = np.zeros(128)
            for row, (start, end) in zip(
                group.rows[at].tolist(), group.spans_of(np.array([at]))[0].tolist(), strict=True
            ):
                if start >= 0 and "N" not in TEXTS[member][start:end]:
                    wanted[row] += end - start
            wanted /= max(1, wanted.sum())
            np.testing.assert_allclose(found[at], wanted, atol=1e-6)


@pytest.mark.parametrize("context", [13, 12])
@pytest.mark.parametrize("spec", KINDS, ids=lambda x: str(x)[:40])
def test_site_is_the_rows_of_the_middle(spec, context, tmp_path):
    encoder, spec, text = encoder_with_text(spec, tmp_path)
    facts = facts_of(spec, tokenizer=text, pool="site", context=context)
    network = WithHead(OneHot(128), facts, encoder)
    middle = {(context - 1) // 2, context // 2}
    texts = [x[:context] for x in ("ACGTACGTTGCAT", "NACGTACNTGCAT", "NNNTAACGTGNNN")]
    for group in encoder.encode(np.stack([to_codes(x) for x in texts])):
        found = network.pool(torch.from_numpy(group.rows.astype(np.int64))).detach().numpy()
        for at, member in enumerate(group.index.tolist()):
            wanted = np.zeros(128)
            for row, (start, end) in zip(
                group.rows[at].tolist(), group.spans_of(np.array([at]))[0].tolist(), strict=True
            ):
                if start >= 0 and "N" not in texts[member][start:end]:
                    wanted[row] += sum(start <= site < end for site in middle)
            np.testing.assert_allclose(found[at], wanted / max(1, wanted.sum()), atol=1e-6)


def test_cls_is_the_first_row_and_needs_one():
    network = WithHead(OneHot(80), facts_of(OVERLAP, pool="cls"), make_encoder(
        EncoderSpec.model_validate(OVERLAP)))  # fmt: skip
    assert network.pool(torch.tensor([[2, 7, 9, 3]])).argmax() == 2


def test_padding_changes_nothing(source, tmp_path):
    made = make(source, tmp_path, "full")
    batch = made.batch(0, 0.0)
    assert batch["lengths"].unique().numel() > 3
    found = made.network({k: batch[k] for k in ("rows", "lengths")})
    for i in range(len(found)):
        alone = made.network.pool(batch["rows"][i : i + 1, : batch["lengths"][i]])
        torch.testing.assert_close(found[i], made.network.head(alone)[0], rtol=1e-5, atol=1e-5)
    wider = torch.nn.functional.pad(batch["rows"], (0, 5), value=3)
    again = made.network({"rows": wider, "lengths": batch["lengths"]})
    assert torch.equal(found, again)


def test_both_strands_of_an_equivariant_model_pool_alike():
    values = {"vocabulary": 12, "dim": 8, "layers": 1, "states": 4}
    values["complement"] = [0, 1, 2, 3, 4, 5, 6, 10, 9, 8, 7, 11]
    spec = {"kind": "kmer", "vocab": {"first_id": 7, "single_ids": {"N": 11}}}
    trunk = FAMILIES["caduceus"].build(values)
    network = WithHead(trunk, facts_of(spec), make_encoder(EncoderSpec.model_validate(spec)))
    assert network.dim == 8
    rows = torch.randint(7, 11, (2, 13))
    other = torch.tensor(values["complement"])[rows.flip(1)]
    torch.testing.assert_close(network.pool(rows), network.pool(other), rtol=1e-4, atol=1e-5)


# What is trained

MODELS = {
    "gpn": ({"vocabulary": 7, "dim": 8, "kernel": 3, "hidden": 8, "dilations": [1, 2]}, SINGLE),
    "dnabert": (
        {"vocabulary": 69, "dim": 8, "layers": 1, "heads": 2, "hidden": 12, "positions": 64},
        OVERLAP,
    ),
    "nucleotide_transformer": (
        {"vocabulary": 73, "dim": 8, "layers": 1, "heads": 2, "hidden": 12},
        BLOCKS,
    ),
    "gena_lm": (
        {"vocabulary": 73, "dim": 8, "layers": 1, "heads": 2, "hidden": 12, "positions": 64},
        BLOCKS,
    ),
    "hyenadna": (
        {"dim": 8, "layers": 1, "hidden": 12, "max_rows": 32},
        {"kind": "kmer", "vocab": {"first_id": 7, "single_ids": {"N": 11}, "prefix": [0]}},
    ),
    "evo": (
        {"vocabulary": 128, "dim": 8, "layers": 2, "heads": 2, "hidden": 12, "attention": [1]},
        BYTES,
    ),
    "caduceus": (
        {"vocabulary": 12, "dim": 8, "layers": 1, "states": 4},
        {"kind": "kmer", "vocab": {"first_id": 7, "single_ids": {"N": 11}}},
    ),
}


def tuned(name, mode):
    values, spec = MODELS[name]
    facts = facts_of(spec, mode=mode, family=name, model=values)
    network = WithHead(FAMILIES[name].build(values), facts, make_encoder(facts.encoder))
    with torch.no_grad():
        for weight in network.trunk.parameters():  # fresh ones are too small for slopes to be seen
            weight.add_(torch.randn_like(weight) * 0.15)
    choose_trained(network)
    return network


def some_rows(network, seed=0):
    codes = np.random.default_rng(seed).integers(4, size=(3, 13)).astype(np.uint8)
    (group,) = make_encoder(network.facts.encoder).encode(codes)
    rows = torch.from_numpy(group.rows.astype(np.int64))
    return {"rows": rows, "lengths": torch.full((3,), rows.shape[1])}


def step(network, batch, rate=0.02):
    network(batch).square().sum().backward()
    trained = [x for x in network.parameters() if x.requires_grad]
    assert all(x.grad is not None for x in trained)
    torch.optim.Adam(trained, lr=rate, eps=1e-20).step()  # moves whatever has a slope
    network.zero_grad()


@pytest.mark.parametrize("mode", ["full", "lora", "frozen"])
@pytest.mark.parametrize("name", MODELS)
def test_any_model_trains_is_kept_and_merges(name, mode):
    network = tuned(name, mode)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    batch = some_rows(network)
    start = network(batch).detach()
    for _ in range(3):  # at first B is 0, and A has no slope
        step(network, batch)
    changed = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    trunk = {k for k in changed if k.startswith("trunk.")}
    assert changed >= {"head.0.weight", "head.0.bias"}
    if mode == "frozen":
        assert not trunk
    elif mode == "lora":
        assert trunk <= {k for k in before if "lora_" in k}
        assert {k for k in trunk if "lora_B" in k} == {k for k in before if "lora_B" in k} != set()
    else:
        assert trunk
    found = network(batch).detach()
    assert (found - start).abs().max() > 1e-3
    again = restore(network.state_dict())
    assert torch.equal(again(batch), found)
    merge(again)
    assert not [k for k in again.state_dict() if "lora" in k or "base_layer" in k]
    torch.testing.assert_close(again(batch), found, rtol=1e-5, atol=1e-5)


def test_low_rank_is_w_plus_alpha_over_r_times_b_a():
    network = tuned("dnabert", "lora")
    batch = some_rows(network)
    whole = "trunk.bert.encoder.layer.0.attention.self.query"
    plain = network.state_dict()[f"{whole}.base_layer.weight"].clone()
    torch.testing.assert_close(  # no change before the first step
        network(batch), network.head(pooled_by_the_plain_model(network, batch)), rtol=0, atol=1e-6
    )
    for _ in range(3):
        step(network, batch)
    weights = network.state_dict()
    a, b = (weights[f"{whole}.lora_{x}.default.weight"].double() for x in "AB")
    assert a.shape == (2, 8)
    assert b.shape == (8, 2)
    assert b.abs().max() > 1e-4
    wanted = plain.double() + 6 / 2 * (b @ a)
    before = network(batch).detach()
    merge(network)
    found = network.state_dict()[f"{whole}.weight"]
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-6)
    assert (found - plain).abs().max() > 1e-4
    torch.testing.assert_close(network(batch), before, rtol=0, atol=1e-6)


def pooled_by_the_plain_model(network, batch):
    """The pooled rows of the model as it was, without the layers that peft put around its own."""
    plain = FAMILIES["dnabert"].build(MODELS["dnabert"][0])
    plain.load_state_dict(
        {
            k.removeprefix("trunk.").replace(".base_layer", ""): v
            for k, v in network.state_dict().items()
            if k.startswith("trunk.") and "lora_" not in k
        }
    )
    encoder = make_encoder(network.facts.encoder)
    return WithHead(plain, facts_of(OVERLAP), encoder).pool(batch["rows"])


class Bypass(OneHot):
    """One layer is called, the weights of the other are read behind its back."""

    def __init__(self):
        super().__init__(16)
        self.called, self.read = nn.Linear(16, 16), nn.Linear(16, 16)

    def embed(self, rows):
        return nn.functional.linear(self.called(super().embed(rows)), self.read.weight)


@pytest.mark.parametrize(
    ("target", "changed"), [(None, {"called"}), (".*all.*", {"called"}), ("read", None)]
)
def test_only_layers_that_are_called_are_changed(target, changed):
    facts = facts_of(SINGLE, mode="lora")
    lora = LoraConfig(rank=2, alpha=6, target=target)
    facts = facts.model_copy(update={"lora": lora})
    network = WithHead(Bypass(), facts, make_encoder(facts.encoder))
    if changed is None:
        with pytest.raises(InputError, match=r"finetune.lora.target: 'read' .* \(called, ...\)"):
            choose_trained(network)
        return
    choose_trained(network)
    found = {k.split(".")[1] for k in network.state_dict() if "lora_" in k}
    assert found == changed


def test_what_the_embedding_does_not_read_is_not_trained():
    network = tuned("dnabert", "full")
    left = {k for k, v in network.named_parameters() if not v.requires_grad}
    assert left
    assert all(k.startswith("trunk.cls.") for k in left)
    trained, whole = count_parameters(network)
    sizes = {k: v.numel() for k, v in network.named_parameters()}
    assert (trained, whole) == (whole - sum(sizes[k] for k in left), sum(sizes.values()))


def test_trained_parameters_are_told(source, tmp_path, caplog):
    with caplog.at_level("INFO"):
        made = make(source, tmp_path, "lora")
    # Two layers: Wqkv 24 x 72, dense 24 x 24, gated 24 x 96, wo 48 x 24, of rank 4; head 24 + 1.
    low_rank = 2 * 4 * ((24 + 72) + (24 + 24) + (24 + 96) + (48 + 24))
    assert f"lora: {low_rank + 25:,} of" in caplog.text
    assert "promoters" not in caplog.text
    frozen = {k: v for k, v in made.network.named_parameters() if not v.requires_grad}
    stored = torch.load(source / "dnabert2" / "pytorch_model.bin", weights_only=True)
    for name, value in frozen.items():
        plain = name.removeprefix("trunk.").replace(".base_layer", "")
        assert torch.equal(value, stored[plain])


# Embeddings that are kept


def test_kept_embeddings_give_the_slopes_of_the_frozen_model(source, tmp_path, monkeypatch):
    frozen, kept = (
        make(source, tmp_path, mode, rc="true", hidden="6") for mode in ("frozen", "embeddings")
    )
    kept.network.load_state_dict(
        {**frozen.network.state_dict(), "text": kept.network.state_dict()["text"]}
    )
    for number in (0, 3):
        slopes = []
        for made in (frozen, kept):
            batch = made.batch(number, 0.0)
            (made.total(made.network, batch) / made.weight(batch)).backward()
            slopes.append([x.grad.clone() for x in made.network.head.parameters()])
            made.network.zero_grad()
        assert "rows" not in batch
        assert max(float(x.abs().max()) for x in slopes[0]) > 1e-2
        for one, other in zip(*slopes, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    figures = [made.validate(made.network) for made in (frozen, kept)]
    assert figures[0].keys() == figures[1].keys() == {"mse", "pearson"}
    for name, found in figures[0].items():
        assert figures[1][name].value == pytest.approx(found.value, rel=1e-4)
    # The second run reads what the first one kept.
    monkeypatch.setattr(WithHead, "pool_each", None)
    again = make(source, tmp_path, "embeddings", rc="true", hidden="6")
    assert np.array_equal(again.train.pooled, kept.train.pooled)
    monkeypatch.undo()
    # Other weights have other embeddings.
    assert len(list((tmp_path / "run").glob("embeddings.*.npy"))) == 2


# Batches and losses


def test_batches_are_a_function_of_the_step_and_see_every_example(source, tmp_path):
    made, again = (make(source, tmp_path, "frozen", batch="27", rc="true") for _ in range(2))
    n = len(made.train)
    assert n == 108
    seen = [made.batch(i, 0.0) for i in range(n // 27)]
    other = [again.batch(i, 0.0) for i in reversed(range(n // 27))][::-1]
    for one, two in zip(seen, other, strict=True):
        assert all(torch.equal(one[k], two[k]) for k in one)
    values = torch.cat([x["targets"] for x in seen])[:, 0]
    wanted = torch.from_numpy(made.train.targets)[:, 0]
    assert torch.equal(values.sort().values, wanted.sort().values)
    later = torch.cat([made.batch(i, 0.0)["targets"] for i in range(4, 8)])[:, 0]
    assert not torch.equal(values, later)
    assert torch.equal(later.sort().values, wanted.sort().values)


def test_parts_of_a_batch_add_up(source, tmp_path):
    made = make(source, tmp_path, "lora")
    batch = made.batch(0, 0.0)
    batch["targets"][3:9] = math.nan
    parts = [{k: v[i:j] for k, v in batch.items()} for i, j in ((0, 5), (5, 6), (6, 32))]
    assert made.weight(batch) == 26 == sum(made.weight(x) for x in parts)
    assert made.weight(parts[1]) == 0
    whole = made.total(made.network, batch)
    kept = torch.cat([torch.arange(3), torch.arange(9, 32)])
    known = made.total(made.network, {k: v[kept] for k, v in batch.items()})
    torch.testing.assert_close(whole, known)
    pieces = sum(made.total(made.network, x) for x in parts)
    torch.testing.assert_close(whole, pieces)
    assert whole.isfinite()


@pytest.mark.parametrize(
    ("loss", "raw", "target", "wanted"),
    [
        # Train values have mean 3 and spread 2 in the test: (1 - (7 - 3) / 2)^2.
        ("mse", [1.0], [7.0], 1.0),
        ("poisson", [0.0], [2.0], math.log(2) - 2 * math.log(math.log(2) + 1e-6)),
        ("bce", [2.0], [1.0], math.log(1 + math.exp(-2))),
        ("bce", [2.0], [0.0], math.log(1 + math.exp(2))),
        ("cross_entropy", [1.0, 2.0, 0.5], [1.0], math.log(math.exp(-1) + 1 + math.exp(-1.5))),
    ],
)
def test_losses_by_hand(source, tmp_path, loss, raw, target, wanted):
    made = make(source, tmp_path, "frozen")
    made.config = made.config.model_copy(update={"loss": loss})
    made.tuned.shift.fill_(3.0)
    made.tuned.scale.fill_(2.0)

    def model(batch):
        return torch.tensor([raw, raw])

    batch = {"rows": torch.zeros(2, 1), "targets": torch.tensor([target, target])}
    assert float(made.total(model, batch)) == pytest.approx(2 * wanted, rel=1e-6)


def test_values_are_shifted_and_scaled_by_what_is_trained_on(source, tmp_path):
    made = make(source, tmp_path, "frozen")
    values = made.train.targets[:, 0].astype(float)
    assert made.tuned.shift.item() == pytest.approx(values.mean(), rel=1e-6)
    assert made.tuned.scale.item() == pytest.approx(values.std(), rel=1e-6)
    raw = torch.tensor([[0.0], [2.0]])
    found = made.tuned.activate(raw)[:, 0].tolist()
    assert found == pytest.approx([values.mean(), values.mean() + 2 * values.std()], rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "raw", "wanted"),
    [
        ("poisson", [0.0], [math.log(2)]),
        ("bce", [0.0, -math.log(3)], [0.5, 0.25]),
        ("cross_entropy", [0.0, math.log(3)], [0.25, 0.75]),
    ],
)
def test_predictions_by_hand(loss, raw, wanted):
    facts = facts_of(SINGLE, loss=loss, outputs=tuple("abc"[: len(raw)]))
    network = WithHead(OneHot(7), facts, make_encoder(facts.encoder))
    assert network.activate(torch.tensor([raw]))[0].tolist() == pytest.approx(wanted)


def test_some_outputs_are_kept_and_classes_are_not_torn_apart():
    facts = facts_of(SINGLE, outputs=("a", "b", "c"))
    network = WithHead(OneHot(7), facts, make_encoder(facts.encoder))
    network.shift.copy_(torch.tensor([1.0, 2.0, 3.0]))
    predictor, rows = Finetuned(network), torch.tensor([[3, 4, 5, 6]])
    whole = predictor(rows)[0].detach()
    predictor.select([2, 0])
    torch.testing.assert_close(predictor(rows)[0], whole[..., [2, 0]])
    facts = facts.model_copy(update={"loss": "cross_entropy"})
    classes = Finetuned(WithHead(OneHot(7), facts, make_encoder(facts.encoder)))
    classes.select([0, 1, 2])
    with pytest.raises(InputError, match="belong together"):
        classes.select([0])


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": "3000", "held": "valid_fraction = 0.5"}, "context 3000"),
        ({"targets": '["missing"]'}, "has no column 'missing'"),
        ({"held": "valid_fraction = 0.0"}, "nothing is held out"),
        ({"loss": '"bce"'}, "bce is for values from 0 to 1"),
        ({"loss": '"cross_entropy"', "targets": '["sequence", "expression"]'}, "one target"),
    ],
)
def test_a_config_that_cannot_be_is_refused_in_one_line(source, tmp_path, changes, message):
    with pytest.raises(InputError) as caught:
        make(source, tmp_path, "lora", **changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pool_that_the_tokens_do_not_have_is_refused(source, tmp_path):
    path = source / "dnabert2" / "tokenizer.json"
    text = path.read_text()
    values = json.loads(text)
    values["model"]["fuse_unk"] = True
    try:
        path.write_text(json.dumps(values))
        with pytest.raises(InputError, match="one token of several N"):
            make(source, tmp_path, "lora", pool='"site"')
    finally:
        path.write_text(text)
    assert make(source, tmp_path, "lora", pool='"site"').tuned.facts.head.pool == "site"


def test_a_predictor_is_no_language_model(source, tmp_path):
    path = source / f"{tmp_path.name}.toml"
    text = kit.config_text("dnabert2", "lora").replace('"with_head"', '"gpn"')
    path.write_text(text)
    with pytest.raises(InputError, match="it is 'with_head'"):
        make_finetune(load_config(path), source, source)


def test_weights_of_something_else_are_refused():
    with pytest.raises(InputError, match="not those of a fine-tuned model"):
        restore({"a": torch.zeros(1)})
    network = tuned("gpn", "frozen")
    weights = {k: v for k, v in network.state_dict().items() if k != "head.0.bias"}
    with pytest.raises(InputError, match=r"head\.0\.bias"):
        restore(weights)
    with pytest.raises(InputError, match="windows of 13 bases; leave --context out"):
        finetuned("x.ckpt", network.state_dict(), 14)


def test_windows_with_too_many_rows_are_refused(source, tmp_path, monkeypatch):
    monkeypatch.setattr("glm_annotate.train.families.dnabert2._ROWS", 20)
    with pytest.raises(InputError, match=r"a window of 60 bases has \d+ rows, .* at most 20"):
        make(source, tmp_path, "frozen")
    values, spec = MODELS["dnabert"]
    facts = facts_of(spec, family="dnabert", model=values, context=61)
    facts = facts.model_copy(update={"max_rows": 60})
    trunk, encoder = FAMILIES["dnabert"].build(values), make_encoder(facts.encoder)
    with pytest.raises(InputError, match=r"found 61, which is 61 rows; .* at most 60"):
        check_windows("x", facts, trunk, encoder)


def test_strategies_and_optimizers_that_cannot_be_are_refused(source, tmp_path):
    path = source / f"{tmp_path.name}.toml"
    text = kit.config_text("dnabert2", "embeddings")
    for change, message in (
        (("[optim]", '[optim]\nname = "muon"'), "muon is for matrices of the model"),
        (("[run]", '[run]\nstrategy = "fsdp"'), "different numbers of rows; use ddp"),
    ):
        path.write_text(text.replace(*change))
        with pytest.raises(InputError, match=message):
            make_finetune(load_config(path), source, source)
