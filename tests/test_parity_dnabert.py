"""DNABERT against transformers' BERT, and against the authors' own code where it is at hand.

The authors' code is that of github.com/jerryji1993/DNABERT, commit b6da04e, which ships a changed
copy of transformers 2.5. Its test wants a checkout as `DNABERT` in the folder that the environment
variable GLM_ANNOTATE_REFERENCES names, and is skipped without.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from parity_kit import Case, check_parity, randomise, worst

from glm_annotate.train import graph
from glm_annotate.train.families import dnabert
from glm_annotate.train.sources import open_source

pytestmark = pytest.mark.parity

transformers = pytest.importorskip("transformers")

REFERENCE = f"transformers {transformers.__version__} BertForMaskedLM"
POSITIONS = 64
SHAPE = {
    "hidden_size": 36,
    "intermediate_size": 50,
    "max_position_embeddings": POSITIONS,
    "num_attention_heads": 3,
    "num_hidden_layers": 3,
}


def public_model(k, seed=0):
    config = transformers.BertConfig(
        vocab_size=4**k + 5, layer_norm_eps=1e-12, attn_implementation="eager", **SHAPE
    )
    return randomise(transformers.BertForMaskedLM(config), seed)


def forward_of(model, times=1):
    """Forward pass of a public model; its output bias added `times` times."""

    @torch.no_grad()
    def forward(rows):
        ids = torch.from_numpy(rows)
        hidden = model.bert(ids).last_hidden_state
        logits = model.cls(hidden) + (times - 1) * model.cls.predictions.bias
        return {"logits": logits.numpy(), "embedding": hidden.numpy()}

    return forward


def save_as_in_2020(model, folder, **config):
    """Write what transformers 2.5 wrote: a pickle with every name, and a config without a type."""
    folder.mkdir()
    weights = {}
    for name, value in model.state_dict().items():
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        weights[old.replace("LayerNorm.bias", "LayerNorm.beta")] = value.clone()
    size = model.config.hidden_size
    weights["bert.embeddings.position_ids"] = torch.arange(POSITIONS)[None]
    weights["bert.pooler.dense.weight"] = torch.randn(size, size)
    weights["bert.pooler.dense.bias"] = torch.randn(size)
    assert {"cls.predictions.bias", "cls.predictions.decoder.weight"} <= set(weights)
    torch.save(weights, folder / "pytorch_model.bin")
    values = {**SHAPE, "hidden_act": "gelu", "vocab_size": model.config.vocab_size, **config}
    (folder / "config.json").write_text(json.dumps(values))
    k = dnabert.SIZES[model.config.vocab_size]
    (folder / "vocab.txt").write_text("\n".join(dnabert.vocabulary(k)) + "\n")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("k", [3, 4, 5, 6])
def test_as_saved_by_transformers(k, tmp_path, record_property, shared_dir):
    model = public_model(k, seed=k)
    source = tmp_path / f"dnabert-{k}"
    model.save_pretrained(source)
    case = Case("DNABERT", f"k = {k}", REFERENCE, source, forward_of(model))
    check_parity(case, tmp_path, record_property, shared_dir)


@pytest.mark.timeout(300)
def test_trap_mlm_bias_twice_as_saved_by_the_authors(tmp_path, record_property, shared_dir):
    model = public_model(4, seed=9)
    source = tmp_path / "twice"
    save_as_in_2020(model, source, mlm_bias_twice=True)
    reference = f"{REFERENCE} + bias"
    case = Case("DNABERT", "k = 4, bias twice", reference, source, forward_of(model, times=2))
    check_parity(case, tmp_path, record_property, shared_dir)


def load(folder):
    return dnabert.OFFICIAL.load(open_source(folder), None).network


@torch.no_grad()
def test_trap_mlm_bias_once_unless_asked(tmp_path):
    model = public_model(4, seed=9)
    save_as_in_2020(model, tmp_path / "once")
    rows = np.random.default_rng(0).integers(261, size=(2, 20))
    found = graph.run_torch(load(tmp_path / "once"), rows)["logits"]
    assert worst(found, forward_of(model)(rows)["logits"]) < 1e-5
    assert worst(found, forward_of(model, times=2)(rows)["logits"]) > 0.05


@torch.no_grad()
def test_attention_maps_are_those_of_transformers(tmp_path):
    model = public_model(3)
    model.save_pretrained(tmp_path)
    rows = torch.randint(69, (2, 33), generator=torch.Generator().manual_seed(0))
    maps = torch.stack(model.bert(rows, output_attentions=True).attentions, dim=1)
    torch.testing.assert_close(load(tmp_path).attend(rows)[1], maps)


@pytest.fixture
def authors(monkeypatch):
    """The authors' modelling code, under a name of its own."""
    folder = Path(os.environ.get("GLM_ANNOTATE_REFERENCES", "")) / "DNABERT" / "src/transformers"
    if not (os.environ.get("GLM_ANNOTATE_REFERENCES") and folder.is_dir()):
        pytest.skip("GLM_ANNOTATE_REFERENCES names no folder with a checkout DNABERT")
    package = types.ModuleType("dnabert_authors")
    package.__path__ = [str(folder)]
    package.__version__ = "2.5.0"
    # They are for downloads, which nothing here does.
    fakes = {"boto3": {}, "botocore": {}, "botocore.config": {"Config": None}}
    fakes["botocore.exceptions"] = {"ClientError": OSError}
    for name, attributes in fakes.items():
        module = types.ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "dnabert_authors", package)
    yield importlib.import_module("dnabert_authors.modeling_bert")
    for name in [x for x in sys.modules if x.startswith("dnabert_authors.")]:
        del sys.modules[name]


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
def test_the_authors_code(authors, tmp_path):
    config = authors.BertConfig(vocab_size=1029, output_attentions=True, **SHAPE)
    model = randomise(authors.BertForMaskedLM(config), 5)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    values = {**json.loads(config.to_json_string()), "mlm_bias_twice": True}
    (tmp_path / "config.json").write_text(json.dumps(values))
    network = load(tmp_path)
    rows = torch.randint(1029, (3, 41), generator=torch.Generator().manual_seed(1))
    hidden, _, attentions = model.bert(rows)
    (logits, _) = model(rows)
    embedding, maps = network.attend(rows)
    assert worst(embedding.numpy(), hidden.numpy()) < 1e-5
    assert worst(network.decode(embedding).numpy(), logits.numpy()) < 1e-5
    torch.testing.assert_close(maps, torch.stack(attentions, dim=1))
    # Trap: their mask only lowers the scores of padding by 1, so it takes part all the same.
    mask = torch.ones(3, 41)
    mask[:, 30:] = 0
    padded = model.bert(rows, attention_mask=mask)[0][:, :30]
    assert (padded - network.embed(rows[:, :30])).abs().max() > 0.01
