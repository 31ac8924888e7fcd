"""GENA-LM against transformers, and against the authors' own code where it is at hand.

transformers has no BERT with norms before the layers, but RobertaPreLayerNorm is one whose
positions start at pad + 1; its weights are saved here under the authors' names. BigBird is
transformers' own. Sparse BERT runs on CUDA alone, so its reference is the definition, dense, with
a mask that is the Kronecker product of the checkpoint's layout and a block.

The last tests want, in the folder that the environment variable GLM_ANNOTATE_REFERENCES names,
checkouts of github.com/AIRI-Institute/GENA_LM, commit 4a88463, as `GENA_LM`, and of
github.com/deepspeedai/DeepSpeed, commit edaa722, as `DeepSpeed`; and transformers 4.46.3 as
`transformers-4.46.3`, made by `pip install --no-deps --target transformers-4.46.3
transformers==4.46.3 'huggingface_hub<1' 'tokenizers<0.21'`. They are skipped without.
"""

from __future__ import annotations

import copy
import io
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from parity_kit import Case, check_parity, randomise, worst
from test_family_gena import (
    WORDS,
    config_of,
    emulate,
    encode,
    tokenizer_of,
    weights_of,
)

from glm_annotate.encoding import EncoderSpec, make_encoder
from glm_annotate.testing import check_encoder
from glm_annotate.train import graph
from glm_annotate.train.families import gena_bigbird, gena_lm
from glm_annotate.train.families.family import Source
from glm_annotate.train.families.gena_official import card_of
from glm_annotate.train.sources import open_source

pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]

transformers = pytest.importorskip("transformers")

POSITIONS = 640
SHAPE = {
    "hidden_size": 36,
    "intermediate_size": 50,
    "max_position_embeddings": POSITIONS,
    "num_attention_heads": 3,
    "num_hidden_layers": 3,
}
PAD = 3


def save(folder, weights, config):
    """A checkpoint as it lies on the hub: a pickle, a config and a tokenizer."""
    folder.mkdir()
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_of()))
    return folder


# BERT against RobertaPreLayerNorm


def roberta(config, seed):
    """Transformers' BERT with norms before the layers; without the last one where so asked."""
    model = transformers.RobertaPreLayerNormForMaskedLM(
        transformers.RobertaPreLayerNormConfig(
            **{k: config[k] for k in SHAPE} | {"max_position_embeddings": POSITIONS + PAD + 1},
            vocab_size=WORDS,
            type_vocab_size=2,
            layer_norm_eps=config["layer_norm_eps"],
            pad_token_id=PAD,
            hidden_act=config["hidden_act"],
            attn_implementation="eager",
        )
    )
    randomise(model, seed)
    if not config.get("last_layer_norm", True):
        model.roberta_prelayernorm.LayerNorm = torch.nn.Identity()
    return model


def as_the_authors_name_it(state):
    """RobertaPreLayerNorm's weights under the names of GENA-LM's checkpoints."""
    names = (
        ("roberta_prelayernorm.LayerNorm.", "bert.encoder.last_layer_ln."),
        ("roberta_prelayernorm.", "bert."),
        (".attention.LayerNorm.", ".pre_attention_ln."),
        (".intermediate.LayerNorm.", ".post_attention_ln."),
        ("lm_head.dense.", "cls.predictions.transform.dense."),
        ("lm_head.layer_norm.", "cls.predictions.transform.LayerNorm."),
        ("lm_head.", "cls.predictions."),
    )
    weights = {}
    for name, value in state.items():
        new = name
        for old, wanted in names:
            new = new.replace(old, wanted)
        is_table = new.endswith("position_embeddings.weight")
        weights[new] = (value[PAD + 1 :] if is_table else value).clone()
    return weights


def forward_of_roberta(model):
    @torch.no_grad()
    def forward(rows):
        ids = torch.from_numpy(rows)
        # [PAD] among random ids would move the positions.
        place = torch.arange(rows.shape[1])[None] + PAD + 1
        hidden = model.roberta_prelayernorm(ids, position_ids=place).last_hidden_state
        return {"logits": model.lm_head(hidden).numpy(), "embedding": hidden.numpy()}

    return forward


@pytest.mark.parametrize(
    ("variant", "changes"),
    [
        ("BERT, last norm", {}),
        ("BERT, no last norm", {"last_layer_norm": False}),
        (
            "BERT large, eps 1e-5",
            {"layer_norm_eps": 1e-5, "hidden_size": 48, "num_hidden_layers": 5},
        ),
    ],
)
def test_bert(variant, changes, tmp_path, record_property, shared_dir):
    config = config_of("BERT", **{**SHAPE, **changes})
    model = roberta(config, seed=len(variant))
    source = save(tmp_path / "official", as_the_authors_name_it(model.state_dict()), config)
    reference = f"transformers {transformers.__version__} RobertaPreLayerNorm"
    options = ("--context", "90")
    case = Case("GENA-LM", variant, reference, source, forward_of_roberta(model), options=options)
    check_parity(case, tmp_path, record_property, shared_dir)


def test_trap_gelu_and_last_norm_would_show(tmp_path):
    config = config_of("BERT", **SHAPE)
    model = roberta(config, seed=1)
    rows = np.arange(40).reshape(2, 20) % WORDS
    wanted = forward_of_roberta(model)(rows)["logits"]
    weights = as_the_authors_name_it(model.state_dict())
    found = {}
    for name, changes in (
        ("right", {}),
        ("tanh", {"hidden_act": "gelu_new"}),
        ("norm", {"last_layer_norm": False}),
    ):
        kept = {k: v for k, v in weights.items() if name != "norm" or "last_layer_ln" not in k}
        source = open_source(save(tmp_path / name, kept, config | changes))
        network = gena_lm.load(source, 90).network
        found[name] = worst(graph.run_torch(network, rows)["logits"], wanted)
    assert found["right"] <= 1e-5
    assert found["tanh"] > 3e-5
    assert found["norm"] > 1e-1


# Sparse BERT by definition


@pytest.mark.parametrize(
    ("variant", "changes"),
    [
        ("block sparse, rotary", {}),
        (
            "block sparse, positions",
            {
                "position_embedding_type": "absolute",
                "last_layer_norm": True,
                "layer_norm_eps": 1e-5,
            },
        ),
    ],
)
def test_block_sparse(variant, changes, tmp_path, record_property, shared_dir):
    # Context of several blocks of 8, lengths that are no multiple of one, and blocks unseen.
    sparse = {"num_heads": 3, "block": 8, "different_layout_per_head": True}
    config = config_of("sparse", **{**SHAPE, "sparse_attention": sparse, **changes})
    weights = weights_of(config, seed=5)
    source = save(tmp_path / "official", weights, config)

    def forward(rows):
        return emulate(weights, config, rows)

    case = Case(
        "GENA-LM",
        variant,
        "definition, dense (float64)",
        source,
        forward,
        rows=((1, 23), (3, 40), (2, 501)),
        options=("--context", "120"),
    )
    check_parity(case, tmp_path, record_property, shared_dir)


# BigBird against transformers

BIGBIRD = {
    "attention_type": "block_sparse",
    "block_size": 8,
    "num_random_blocks": 3,
    "hidden_act": "gelu_new",
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 1024,
    "pad_token_id": PAD,
    "vocab_size": WORDS,
}
LIMIT = (5 + 2 * 3) * 8


def bigbird(kind="BigBirdForMaskedLM", seed=0, **changes):
    config = transformers.BigBirdConfig(**{**SHAPE, **BIGBIRD, **changes})
    config._attn_implementation = "eager"
    return randomise(getattr(transformers, kind)(config), seed)


def forward_of_bigbird(model):
    """A twin for each regime: a model that met a short window is full for ever after."""
    twins = {short: copy.deepcopy(model) for short in (False, True)}

    @torch.no_grad()
    def forward(rows):
        short = rows.shape[1] <= LIMIT
        twin = twins[short]
        hidden = twin.bert(torch.from_numpy(rows)).last_hidden_state
        assert twin.bert.attention_type == ("original_full" if short else "block_sparse")
        logits = twin.cls.predictions(hidden)
        return {"logits": logits.numpy(), "embedding": hidden.numpy()}

    return forward


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("variant", "kind", "context"),
    [
        ("BigBird, full", "BigBirdForMaskedLM", 90),
        # 88 tokens are 773 bases: from there on windows are sparse.
        ("BigBird, block sparse", "BigBirdForPreTraining", 774),
    ],
)
def test_bigbird(variant, kind, context, tmp_path, record_property, shared_dir):
    model = bigbird(kind, seed=context)
    source = tmp_path / "official"
    model.save_pretrained(source)
    (source / "tokenizer.json").write_text(json.dumps(tokenizer_of()))
    case = Case(
        "GENA-LM",
        variant,
        f"transformers {transformers.__version__} {kind}",
        source,
        forward_of_bigbird(model),
        # Both sides of the limit, multiples of the block and not.
        rows=((1, 23), (3, LIMIT), (2, LIMIT + 1), (2, LIMIT + 8), (1, 333), (1, 1024)),
        options=("--context", str(context)),
        scores=("PLLR", "EMB_COS") if context > LIMIT * 5 else Case.scores,
    )
    check_parity(case, tmp_path, record_property, shared_dir)


@pytest.mark.filterwarnings("ignore")
def test_trap_bigbird_stays_full_after_a_short_window(tmp_path):
    model = bigbird(seed=2)
    long, short = (np.random.default_rng(n).integers(WORDS, size=(1, n)) for n in (200, 20))
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer_of()))
    network = gena_bigbird.load(open_source(tmp_path), 110).network

    @torch.no_grad()
    def theirs(rows):
        return model(torch.from_numpy(rows)).logits.numpy()

    def difference(rows):
        return worst(graph.run_torch(network, rows)["logits"], theirs(rows))

    assert difference(long) <= 1e-5
    assert difference(short) <= 1e-5
    # Theirs has now forgotten that it is sparse, ours has not.
    assert difference(long) > 1e-2


@pytest.mark.filterwarnings("ignore")
def test_bigbird_maps():
    model = bigbird(seed=3, attention_type="original_full")
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    config = {**SHAPE, **BIGBIRD, "model_type": "big_bird", "attention_type": "original_full"}
    network = gena_bigbird.BigBird(
        gena_bigbird.BigBirdConfig(
            vocabulary=WORDS, dim=36, layers=3, heads=3, hidden=50, positions=1024, block=0
        )
    )
    gena_bigbird.fill(network, Source("official", weights, config), gena_bigbird.KEYS)
    rows = torch.from_numpy(np.random.default_rng(0).integers(WORDS, size=(2, 31)))
    with torch.no_grad():
        theirs = torch.stack(model(rows, output_attentions=True).attentions, dim=1)
        _, ours = network.attend(rows)
    assert worst(ours.numpy(), theirs.numpy()) <= 1e-5


# The authors' code, in a process of its own with the transformers that it needs

WORKER = '''
import contextlib, importlib.util, io, json, random, struct, sys, types
import numpy as np, torch

root, config, folder = sys.argv[1:]
config = json.loads(config)


def by_path(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Dense(torch.nn.Module):
    """DeepSpeed's module without its kernels: the same buffer, and a mask in place of blocks."""

    def __init__(self, config, max_seq_length):
        super().__init__()
        self.block = config.block
        self.register_buffer("master_layout", config.make_layout(max_seq_length))

    def forward(self, query, key, value, rpe=None, key_padding_mask=None):
        blocks = query.shape[2] // self.block
        layout = self.master_layout[:, :blocks, :blocks]
        seen = layout.repeat_interleave(self.block, 1).repeat_interleave(self.block, 2)
        scores = query @ key * query.shape[-1] ** -0.5 + key_padding_mask
        scores = scores.masked_fill(seen == 0, -float("inf"))
        return scores.softmax(-1) @ value


if "sparse_config_cls" in config:
    file = f"{root}/DeepSpeed/deepspeed/ops/sparse_attention/sparsity_config.py"
    fake = types.ModuleType("deepspeed.ops.sparse_attention")
    fake.BigBirdSparsityConfig = by_path("sparsity_config", file).BigBirdSparsityConfig
    fake.SparseSelfAttention = Dense
    sys.modules["deepspeed"] = types.ModuleType("deepspeed")
    sys.modules["deepspeed.ops"] = types.ModuleType("deepspeed.ops")
    sys.modules["deepspeed.ops.sparse_attention"] = fake
    # The kernels want half precision, which would drown the comparison.
    torch.Tensor.half = lambda self: self

with contextlib.redirect_stdout(sys.stderr):
    import transformers
    official = by_path("modeling_bert", f"{root}/GENA_LM/src/gena_lm/modeling_bert.py")
    torch.set_num_threads(1)
    torch.manual_seed(4)
    random.seed(4)
    model = official.BertForPreTraining(transformers.BertConfig(**config)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            around = float(weight.ndim == 1 and name.endswith("weight"))
            weight.copy_(around + torch.randn_like(weight) * (0.3 if weight.ndim == 1 else 0.2))
    model.save_pretrained(folder, safe_serialization=False)
    block = config.get("sparse_attention", {}).get("block", 1)

while True:
    size = sys.stdin.buffer.read(4)
    if not size:
        break
    rows = torch.from_numpy(np.load(io.BytesIO(sys.stdin.buffer.read(*struct.unpack("<I", size)))))
    length = rows.shape[1]
    extra = -length % block
    ids = torch.nn.functional.pad(rows, (0, extra), value=3)
    mask = torch.nn.functional.pad(torch.ones_like(rows), (0, extra))
    with torch.no_grad():
        out = model(ids, attention_mask=mask, output_hidden_states=True)
    answer = io.BytesIO()
    values = {"logits": out.prediction_logits, "embedding": out.hidden_states[-1]}
    np.savez(answer, **{k: v[:, :length].numpy() for k, v in values.items()})
    sys.stdout.buffer.write(struct.pack("<I", answer.tell()) + answer.getvalue())
    sys.stdout.buffer.flush()
'''


def references(*names):
    root = os.environ.get("GLM_ANNOTATE_REFERENCES")
    if root is None or not all((Path(root) / name).is_dir() for name in names):
        pytest.skip(f"GLM_ANNOTATE_REFERENCES names no folder with {', '.join(names)}")
    return Path(root).resolve()


@pytest.fixture
def start_worker(tmp_path):
    """Start the authors' code on a config; gives its checkpoint and its forward pass."""
    running = []

    def start(root, config):
        script = tmp_path / "worker.py"
        script.write_text(WORKER)
        folder = tmp_path / "official"
        words = [sys.executable, "-W", "ignore", str(script), str(root), json.dumps(config)]
        log = tmp_path / "worker.log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                [*words, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": str(root / "transformers-4.46.3")},
            )
        running.append(process)

        def forward(rows):
            message = io.BytesIO()
            np.save(message, rows)
            process.stdin.write(struct.pack("<I", message.tell()) + message.getvalue())
            process.stdin.flush()
            size = process.stdout.read(4)
            assert size, log.read_text()[-2000:]
            with np.load(io.BytesIO(process.stdout.read(*struct.unpack("<I", size)))) as found:
                return dict(found)

        forward(np.zeros((1, 8), dtype=np.int64))  # the checkpoint is there when this is answered
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer_of()))
        return folder, forward

    yield start
    for process in running:
        process.stdin.close()
        process.wait(timeout=30)
        process.stdout.close()


@pytest.mark.parametrize(
    ("variant", "file"),
    [
        ("authors', last norm", "L12-H768-A12-V32k-preln-lastln"),
        ("authors', no last norm", "L12-H768-A12-V32k-preln"),
        ("authors', large", "L24-H1024-A16-V32k-preln-lastln"),
        ("authors', sparse, rotary", "L12-H768-A12-V32k-L4096-preln-sparse-rope"),
        ("authors', sparse, positions", "L12-H768-A12-V32k-L4096-preln-lastln-sparse-ln1e-05"),
        ("authors', dense, rotary", "L12-H768-A12-V32k-L4096-preln-sparse-rope"),
    ],
)
def test_authors_code(variant, file, start_worker, tmp_path, record_property, shared_dir):
    root = references("GENA_LM", "transformers-4.46.3", "DeepSpeed")
    config = json.loads((root / "GENA_LM" / "data" / "configs" / f"{file}.json").read_text())
    # The authors' own config but for the sizes; head size 12, of which 4 are rotated.
    config |= {**SHAPE, "vocab_size": WORDS}
    if "dense" in variant:
        del config["sparse_config_cls"], config["sparse_attention"]
    if "rotary_dim" in config:
        config["rotary_dim"] = 4
    if "sparse_attention" in config:
        config["sparse_attention"] |= {"num_heads": 3, "block": 8}
    source, forward = start_worker(root, config)
    case = Case(
        "GENA-LM",
        variant,
        "GENA_LM 4a88463, transformers 4.46.3",
        source,
        forward,
        rows=((1, 23), (3, 40), (2, 501)),
        options=("--context", "110"),
    )
    check_parity(case, tmp_path, record_property, shared_dir)


def test_authors_layout_is_what_is_drawn_here():
    root = references("DeepSpeed")
    file = root / "DeepSpeed/deepspeed/ops/sparse_attention/sparsity_config.py"
    scope = {"__name__": "sparsity_config"}
    exec(compile(file.read_text(), str(file), "exec"), scope)
    config = scope["BigBirdSparsityConfig"](
        12, 64, True, num_random_blocks=3, num_sliding_window_blocks=3, num_global_blocks=2
    )
    theirs, ours = config.make_layout(4096), gena_lm.draw_layout(12, 64)
    assert (theirs.shape, theirs.dtype) == (ours.shape, ours.dtype)
    # What every head has is the same; the rest are three blocks a row, some of them there already.
    shared = [x.all(dim=0) for x in (theirs, ours)]
    assert torch.equal(*shared)
    for layout in (theirs, ours):
        counts = (layout.bool() & ~shared[0]).sum(-1)
        assert counts.max() <= 3
        assert counts[:, 2:].float().mean() > 2


@pytest.mark.parametrize(
    "name", ["t2t_1000h_multi_32k", "human/BPE_32k", "human/BPE_32k_all_chr_10M"]
)
def test_real_tokenizers(name):
    root = references("GENA_LM")
    file = root / "GENA_LM" / "data" / "tokenizers" / name / "tokenizer.json"
    source = Source("official", {}, {}, folder=file.parent)
    assert json.loads(gena_lm.read_tokenizer(source, 32000))["truncation"] is None
    spec = EncoderSpec.model_validate(card_of(source, 100, 512)["encoder"])
    encoder = make_encoder(spec, file)
    check_encoder(encoder, length=400)
    text = "C" + "N" * 15 + "GATTACA"
    rows, spans = encode(encoder, text)
    assert (rows[0], rows[-1]) == (1, 2)
    if name.startswith("t2t"):
        assert spans[rows.index(5)] == (1, 16)
        words = {v: k for k, v in encoder._tokenizer.get_vocab().items()}
        cut = [words[x] for x in encode(encoder, "GATTTATTAGGGGAGATTTTATATATCCCGA")[0][1:-1]]
        assert cut == ["G", "ATTTATT", "AGGGG", "AGATT", "TTATAT", "ATCCCG", "A"]
    else:
        assert rows.count(0) == 15
        assert spans[rows.index(0)] == (1, 2)
