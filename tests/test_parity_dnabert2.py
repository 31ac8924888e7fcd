"""DNABERT-2 against multimolecule, and against the authors' own code where it is at hand.

multimolecule is AGPL and serves as an oracle alone. It renames the weights, so `as_the_authors`
renames them back before they are saved.

The authors' code and tokenizer are those of `dnabert2/` in github.com/yuddecho/SCG-GELP, commit
e85b31b, a copy of zhihan1996/DNABERT-2-117M. Their tests want a checkout as `SCG-GELP` in the
folder that the environment variable GLM_ANNOTATE_REFERENCES names, and the package einops, and
are skipped without.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import sys
import types
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from parity_kit import Case, check_parity, randomise, worst

from glm_annotate.encoding import EncoderSpec, make_encoder
from glm_annotate.genome import to_codes
from glm_annotate.train import graph
from glm_annotate.train.families import dnabert2
from glm_annotate.train.sources import open_source

pytestmark = pytest.mark.parity

SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
SCORES = ("LLR", "PLLR", "WTLLR", "EMB_COS", "EMB_L2:pool=all")
# 160 bases are at most 162 tokens, so that no window is cut, which the oracle cannot.
OPTIONS = ("--context", "160")


def sizes(vocabulary, heads=6, layers=3):
    return {
        "vocab_size": vocabulary,
        "hidden_size": 6 * heads,
        "intermediate_size": 50,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
    }


def train_tokenizer(path, size=70):
    """Train byte pairs on random bases with the authors' settings; cutting and padding are on."""
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIAL, show_progress=False
    )
    chosen = random.Random(0)
    made.train_from_iterator(["".join(chosen.choices("ACGT", k=400)) for _ in range(60)], trainer)
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    made.enable_truncation(max_length=20)
    made.enable_padding(pad_id=3, pad_token="[PAD]")
    made.save(str(path))
    assert made.get_vocab_size() == size
    return size


def as_the_authors(model):
    """Rename multimolecule's weights to what the authors' code calls them."""
    theirs = model.state_dict()
    weights = {}
    for name, value in theirs.items():
        if ".attention.self." in name:
            if ".query." in name:
                parts = (theirs[name.replace("query", x)] for x in ("query", "key", "value"))
                name, value = name.replace("query", "Wqkv"), torch.cat(list(parts))
            else:
                continue
        if name == "lm_head.bias":
            continue
        name = name.replace("lm_head.", "cls.predictions.").replace("model.", "bert.")
        name = name.replace("up_proj", "gated_layers").replace("down_proj", "wo")
        norm = "layernorm" if ".mlp." in name else "LayerNorm"
        weights[name.replace("layer_norm", norm)] = value.clone()
    return weights


def save(folder, weights, config):
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def load(folder):
    return dnabert2.OFFICIAL.load(open_source(folder), None)


@pytest.fixture
def multimolecule():
    return pytest.importorskip("multimolecule")


def multimolecule_model(multimolecule, vocabulary, **changes):
    config = multimolecule.DnaBert2Config(**sizes(vocabulary, **changes))
    return randomise(multimolecule.DnaBert2ForMaskedLM(config), 1)


def authors_config(vocabulary, **changes):
    return {
        **sizes(vocabulary, **changes),
        "alibi_starting_size": 512,
        "attention_probs_dropout_prob": 0.0,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "model_type": "bert",
        "pad_token_id": 0,
        "type_vocab_size": 2,
    }


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("heads", [6, 8, 12])
def test_multimolecule(multimolecule, heads, tmp_path, record_property, shared_dir):
    source = tmp_path / "dnabert-2"
    source.mkdir()
    size = train_tokenizer(source / "tokenizer.json")
    model = multimolecule_model(multimolecule, size, heads=heads)
    save(source, as_the_authors(model), authors_config(size, heads=heads))

    @torch.no_grad()
    def forward(rows):
        ids = torch.from_numpy(rows)
        mask = torch.ones_like(ids)
        hidden = model.model(ids, attention_mask=mask).last_hidden_state
        logits = model(ids, attention_mask=mask).logits
        return {"logits": logits.numpy(), "embedding": hidden.numpy()}

    case = Case(
        "DNABERT-2",
        f"{heads} heads",
        f"multimolecule {version('multimolecule')} DnaBert2ForMaskedLM",
        source,
        forward,
        rows=((1, 23), (3, 40), (1, 700)),
        options=OPTIONS,
        scores=SCORES,
    )
    check_parity(case, tmp_path, record_property, shared_dir)


# The authors' code and tokenizer


@pytest.fixture
def checkout():
    """The folder with the authors' files."""
    folder = Path(os.environ.get("GLM_ANNOTATE_REFERENCES", "")) / "SCG-GELP" / "dnabert2"
    if not (os.environ.get("GLM_ANNOTATE_REFERENCES") and folder.is_dir()):
        pytest.skip("GLM_ANNOTATE_REFERENCES names no folder with a checkout SCG-GELP")
    return folder


@pytest.fixture
def authors(checkout, monkeypatch):
    """The authors' modelling code; its Triton kernel, which needs a GPU, cannot be imported."""
    pytest.importorskip("einops")
    package = types.ModuleType("dnabert2_authors")
    package.__path__ = [str(checkout)]
    monkeypatch.setitem(sys.modules, "dnabert2_authors", package)
    monkeypatch.setitem(sys.modules, "dnabert2_authors.flash_attn_triton", None)
    yield importlib.import_module("dnabert2_authors.bert_layers")
    for name in [x for x in sys.modules if x.startswith("dnabert2_authors.")]:
        sys.modules.pop(name)


def authors_model(authors, values):
    config = importlib.import_module("dnabert2_authors.configuration_bert").BertConfig(**values)
    return randomise(authors.BertForMaskedLM(config), 2)


def authors_forward(model):
    @torch.no_grad()
    def forward(rows):
        ids = torch.from_numpy(rows)
        mask = torch.ones_like(ids)
        hidden = model.bert(ids, attention_mask=mask)[0]
        logits = model(ids, attention_mask=mask).logits
        return {"logits": logits.numpy(), "embedding": hidden.numpy()}

    return forward


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore")
def test_the_authors_code_and_tokenizer(authors, checkout, tmp_path, record_property, shared_dir):
    source = tmp_path / "dnabert-2"
    source.mkdir()
    shutil.copy(checkout / "tokenizer.json", source)
    values = {**json.loads((checkout / "config.json").read_text()), **sizes(4096)}
    model = authors_model(authors, values)
    # Trap: the row of [UNK] is zero where the authors' code made it, since their pad_token_id is 0.
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[0] = 0
    save(source, model.state_dict(), values)
    case = Case(
        "DNABERT-2",
        "official tokenizer",
        "zhihan1996/DNABERT-2-117M bert_layers.py",
        source,
        authors_forward(model),
        rows=((1, 23), (3, 40), (1, 700)),
        options=("--context", "300"),
        scores=SCORES,
    )
    check_parity(case, tmp_path, record_property, shared_dir)


@pytest.mark.filterwarnings("ignore")
def test_trap_padding_is_masked_by_the_authors_and_not_needed_here(authors, checkout, tmp_path):
    shutil.copy(checkout / "tokenizer.json", tmp_path)
    values = {**json.loads((checkout / "config.json").read_text()), **sizes(4096)}
    model = authors_model(authors, values)
    save(tmp_path, model.state_dict(), values)
    rows = np.random.default_rng(0).integers(5, 4096, size=(2, 30))
    padded = torch.from_numpy(rows).clone()
    padded[1, 20:] = 3
    with torch.no_grad():
        logits = model(padded, attention_mask=(padded != 3).long()).logits.numpy()
    network = load(tmp_path).network
    assert worst(graph.run_torch(network, rows[:1])["logits"], logits[:1]) < 1e-5
    assert worst(graph.run_torch(network, rows[1:, :20])["logits"], logits[1:, :20]) < 1e-5


@pytest.mark.timeout(300)
def test_the_official_tokenizer(checkout, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    official = tokenizers.Tokenizer.from_file(str(checkout / "tokenizer.json"))
    official.no_truncation()
    official.no_padding()
    first = ["A", "C", "G", "T", "AA", "TT", "TG", "CA", "CC", "TA"]
    assert [official.token_to_id(x) for x in [*SPECIAL, *first]] == list(range(15))
    shutil.copy(checkout / "tokenizer.json", tmp_path)
    network = dnabert2.build({"vocabulary": 4096, "dim": 6, "layers": 1, "heads": 2, "hidden": 4})
    names = {"hidden_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2}
    save(
        tmp_path,
        network.state_dict(),
        {**authors_config(4096), **names, "intermediate_size": 4},
    )
    loaded = load(tmp_path)
    assert (loaded.card["context"], loaded.card["anchor"]) == (2048, 1024)
    (tmp_path / "bundled.json").write_text(loaded.tokenizer)
    encoder = make_encoder(
        EncoderSpec.model_validate(loaded.card["encoder"]), tmp_path / "bundled.json"
    )
    chosen = random.Random(1)
    texts = ["".join(chosen.choices("ACGT", k=2048)) for _ in range(8)]
    texts.append(texts[0][:1000] + "N" * 9 + texts[0][1009:])
    for text in texts:
        (group,) = encoder.encode(to_codes(text.encode())[None])
        whole = official.encode(text)
        assert group.rows[0].tolist() == whole.ids
        assert group.spans[0][1:-1].tolist() == [list(x) for x in whole.offsets[1:-1]]
        # The default window fits: [CLS] and [SEP] stand beside about 4.6 bases a token.
        assert len(whole.ids) <= 512
        if "N" in text:
            assert whole.ids.count(0) == 9
