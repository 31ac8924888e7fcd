"""Caduceus against transformers' Mamba, and against the authors' own code where it is at hand.

`MambaMixer` (its path without kernels) is the core of both variants; what Caduceus builds around
it, two directions and two strands, is assembled here in the authors' layout, once as their fused
code computes it and once as their other code does.

The authors' code is that of github.com/kuleshov-group/caduceus, commit 0060a6d, over that of
github.com/state-spaces/mamba, commit e9594ce. Its tests want checkouts as `caduceus` and `mamba`
in the folder that the environment variable GLM_ANNOTATE_REFERENCES names, and the package einops;
they are skipped without. What runs there is the authors' torch code: Triton's kernels are replaced
by the references that lie beside them (`rms_norm_ref`, `layer_norm_ref`, `selective_scan_ref`).
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import types
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from parity_kit import Case, check_parity, randomise, worst
from safetensors.torch import save_model
from torch import nn

from glm_annotate.train import graph
from glm_annotate.train.families import caduceus
from glm_annotate.train.sources import open_source

pytestmark = pytest.mark.parity

transformers = pytest.importorskip("transformers")

REFERENCE = f"transformers {transformers.__version__} MambaMixer"
DIM, LAYERS, VOCABULARY = 36, 3, 16
COMPLEMENT = {i: {7: 10, 8: 9, 9: 8, 10: 7}.get(i, i) for i in range(VOCABULARY)}
SSM = {"d_state": 5, "d_conv": 4, "expand": 2, "dt_rank": "auto", "conv_bias": True, "bias": False}
ROWS = ((1, 23), (3, 40), (2, 57), (2, 1))
OPTIONS = ("--context", "96")


def config_of(**changes):
    """A config.json as the authors write it."""
    values = {
        "model_type": "caduceus", "d_model": DIM, "n_layer": LAYERS, "vocab_size": VOCABULARY,
        "pad_vocab_size_multiple": 8, "ssm_cfg": SSM, "rms_norm": True, "residual_in_fp32": False,
        "norm_epsilon": 1e-5, "fused_add_norm": True, "bidirectional": True,
        "bidirectional_strategy": "add", "bidirectional_weight_tie": True, "rcps": False,
        "complement_map": {str(k): v for k, v in COMPLEMENT.items()},
    }  # fmt: skip
    return values | changes


def holder(**parts):
    """A module that only names its parts."""
    module = nn.Module()
    for name, part in parts.items():
        if isinstance(part, torch.Tensor) and not isinstance(part, nn.Parameter):
            module.register_buffer(name, part)
        else:
            setattr(module, name, part)
    return module


def mixer(layer):
    config = transformers.MambaConfig(
        hidden_size=DIM, num_hidden_layers=LAYERS, state_size=5, conv_kernel=4, expand=2,
        use_conv_bias=True, use_bias=False, time_step_rank="auto",
    )  # fmt: skip
    return transformers.models.mamba.modeling_mamba.MambaMixer(config, layer)


def directions(layer):
    both = holder(mamba_fwd=mixer(layer), mamba_rev=mixer(layer))
    both.mamba_rev.in_proj.weight = both.mamba_fwd.in_proj.weight
    both.mamba_rev.out_proj.weight = both.mamba_fwd.out_proj.weight
    return both


def norm():
    return nn.RMSNorm(DIM, eps=1e-5)


def assemble(config):
    """Parts of transformers and torch, under the names of the authors' checkpoints."""
    strands, wrapped = config["rcps"], config["rcps"] and not config["fused_add_norm"]
    table = nn.Embedding(VOCABULARY, DIM)
    pairs = torch.tensor(list(COMPLEMENT.values()))
    wrap = (lambda part: holder(submodule=part)) if strands else (lambda part: part)
    wrap_norm = (lambda part: holder(submodule=part)) if wrapped else (lambda part: part)
    layers = [
        holder(norm=wrap_norm(norm()), mixer=wrap(directions(i))) for i in range(config["n_layer"])
    ]
    head = nn.Linear(DIM, VOCABULARY, bias=False)
    head.weight = table.weight
    words = holder(embedding=table, complement_map=pairs) if strands else table
    backbone = holder(
        embeddings=holder(word_embeddings=words),
        layers=nn.ModuleList(layers),
        norm_f=wrap_norm(norm()),
    )
    lm_head = holder(lm_head=head, complement_map=pairs.clone()) if strands else head
    model = randomise(holder(caduceus=holder(backbone=backbone), lm_head=lm_head), 3)
    with torch.no_grad():  # decays of real models: slow ones and fast ones
        for name, weight in model.named_parameters():
            if name.endswith("A_log"):
                weight.copy_(torch.arange(1, 6).log() + 0.3 * torch.randn(weight.shape))
            elif name.endswith("dt_proj.bias"):
                weight.sub_(3)
    return model


def mix(part, x):
    return part.mamba_fwd(x) + part.mamba_rev(x.flip(1)).flip(1)


def one_strand(model):
    """PH: a residual stream with a norm before each mixer."""

    @torch.no_grad()
    def forward(rows):
        trunk = model.caduceus.backbone
        x = trunk.embeddings.word_embeddings(torch.from_numpy(rows))
        for layer in trunk.layers:
            x = x + mix(layer.mixer, layer.norm(x))
        x = trunk.norm_f(x)
        return {"logits": model.lm_head(x).numpy(), "embedding": x.numpy()}

    return forward


def two_strands(model, swapped):
    """PS, halves of the channels in the authors' layout: the second turned in rows and channels.

    `swapped`: each block normalises the second half as the first and the first, turned, as the
    second, which is what the fused code does. The final norm takes them as they are.
    """

    def turn(x):
        return x.flip(1, 2)

    @torch.no_grad()
    def forward(rows):
        trunk, pairs = model.caduceus.backbone, model.lm_head.complement_map
        table = trunk.embeddings.word_embeddings.embedding
        ids = torch.from_numpy(rows)
        first, second = table(ids), turn(table(pairs[ids.flip(1)]))
        for layer in trunk.layers:
            part = layer.norm if swapped else layer.norm.submodule
            if swapped:
                first, second = second, first
            first = first + mix(layer.mixer.submodule, part(first))
            second = second + turn(mix(layer.mixer.submodule, part(turn(second))))
        last = trunk.norm_f if swapped else trunk.norm_f.submodule
        first, second = last(first), turn(last(turn(second)))
        weight = model.lm_head.lm_head.weight
        logits = first @ weight.T + second.flip(2) @ weight[pairs].T
        return {"logits": logits.numpy(), "embedding": torch.cat([first, second], 2).numpy()}

    return forward


def save(model, config, folder):
    folder.mkdir()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.timeout(900)
def test_ph(tmp_path, record_property, shared_dir):
    config = config_of()
    model = assemble(config)
    source = save(model, config, tmp_path / "source")
    forward = one_strand(model)
    case = Case("Caduceus", "PH", REFERENCE, source, forward, ROWS, OPTIONS)
    check_parity(case, tmp_path, record_property, shared_dir)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("fused", [True, False])
def test_ps(fused, tmp_path, record_property, shared_dir):
    config = config_of(rcps=True, fused_add_norm=fused)
    model = assemble(config)
    source = save(model, config, tmp_path / "source")
    forward = two_strands(model, swapped=fused)
    variant = "PS" if fused else "PS, unfused"
    case = Case("Caduceus", variant, REFERENCE, source, forward, ROWS, OPTIONS)
    check_parity(case, tmp_path, record_property, shared_dir)


def references():
    folder = Path(os.environ.get("GLM_ANNOTATE_REFERENCES", "nowhere"))
    if not (folder / "caduceus").is_dir() or not (folder / "mamba").is_dir():
        pytest.skip("GLM_ANNOTATE_REFERENCES names no folder with caduceus and mamba")
    pytest.importorskip("einops")
    return folder


@pytest.fixture
def authors(monkeypatch):
    """The authors' package `caduceus`, with torch in the place of Triton."""
    folder = references()
    # Before Triton is there in name only, which transformers would take for the thing itself.
    from transformers import PreTrainedModel, PreTrainedTokenizer  # noqa: F401

    triton = MagicMock(__version__="3.0.0")
    triton.Config = lambda kwargs, num_warps=1, **_: types.SimpleNamespace(
        kwargs=kwargs, num_warps=num_warps
    )
    for name in ("triton", "triton.language"):
        monkeypatch.setitem(sys.modules, name, triton)
    # The package's own __init__ wants compiled parts.
    package = types.ModuleType("mamba_ssm")
    package.__path__ = [str(folder / "mamba" / "mamba_ssm")]
    monkeypatch.setitem(sys.modules, "mamba_ssm", package)
    monkeypatch.syspath_prepend(str(folder / "caduceus"))
    norms = importlib.import_module("mamba_ssm.ops.triton.layer_norm")

    def layer_norm(x, weight, bias, residual=None, eps=1e-6, prenorm=False, **options):
        options.pop("residual_in_fp32", None)
        options.pop("dropout_p", None)
        reference = (
            norms.rms_norm_ref if options.pop("is_rms_norm", False) else norms.layer_norm_ref
        )
        assert not options
        return reference(x, weight, bias, residual=residual, eps=eps, prenorm=prenorm)

    def rms_norm(x, weight, bias, **options):
        return layer_norm(x, weight, bias, is_rms_norm=True, **options)

    monkeypatch.setattr(norms, "layer_norm_fn", layer_norm)
    monkeypatch.setattr(norms, "rms_norm_fn", rms_norm)
    simple = importlib.import_module("mamba_ssm.modules.mamba_simple")
    scans = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    monkeypatch.setattr(simple, "selective_scan_fn", scans.selective_scan_ref)
    package = importlib.import_module("caduceus")
    for name in ("triton", "triton.language"):  # nor should torch's exporter find it
        monkeypatch.delitem(sys.modules, name)
    tie = package.CaduceusForMaskedLM.tie_weights
    # transformers 5 hands over arguments that the method, of 2024, does not know.
    monkeypatch.setattr(package.CaduceusForMaskedLM, "tie_weights", lambda self, **_: tie(self))
    yield package
    for name in list(sys.modules):
        if name.split(".")[0] in ("mamba_ssm", "caduceus"):
            del sys.modules[name]


def official(authors, **changes):
    """A model of the authors' code, and its forward pass."""
    values = config_of(**changes)
    del values["model_type"]
    values["complement_map"] = dict(COMPLEMENT)  # from their tokenizer, as their training does
    model = authors.CaduceusForMaskedLM(authors.CaduceusConfig(**values))
    randomise(model, 5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("dt_proj.bias"):
                weight.sub_(3)
    model.tie_weights()

    @torch.no_grad()
    def forward(rows):
        ids = torch.from_numpy(rows)
        hidden = model.caduceus(ids).last_hidden_state
        return {"logits": model(ids).logits.numpy(), "embedding": hidden.numpy()}

    return model, forward


def save_official(model, folder):
    """Write config and weights; a tied weight once, under one of its names."""
    model.config.save_pretrained(folder)
    save_model(model, folder / "model.safetensors")
    return folder


OFFICIAL = {
    "PH, authors' code": {},
    "PH, unfused, authors' code": {"fused_add_norm": False},
    "PS, authors' code": {"rcps": True},
    "PS, unfused, authors' code": {"rcps": True, "fused_add_norm": False},
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("variant", OFFICIAL)
def test_authors_code(variant, authors, tmp_path, record_property, shared_dir):
    model, forward = official(authors, **OFFICIAL[variant])
    save_official(model, tmp_path / "source")
    authors.CaduceusTokenizer(model_max_length=1024).save_pretrained(tmp_path / "source")
    case = Case(
        "Caduceus", variant, "kuleshov-group/caduceus 0060a6d, mamba e9594ce",
        tmp_path / "source", forward, ROWS, OPTIONS,
    )  # fmt: skip
    check_parity(case, tmp_path, record_property, shared_dir)


@pytest.mark.parametrize(
    "changes",
    [
        {"bidirectional_strategy": "ew_multiply"},
        {"bidirectional": False},
        {"bidirectional_weight_tie": False, "rcps": True},
        {"rms_norm": False, "rcps": True},
        {"rms_norm": False, "fused_add_norm": False},
        {"ssm_cfg": SSM | {"bias": True, "d_conv": 3, "expand": 1, "dt_rank": 7}},
        {"ssm_cfg": SSM | {"conv_bias": False, "d_state": 3}, "rcps": True},
        {"ssm_cfg": None, "residual_in_fp32": True},
        {"vocab_size": 12, "complement_map": {i: COMPLEMENT[i] for i in range(12)}, "rcps": True},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_settings_of_the_authors_config(changes, authors, tmp_path):
    model, forward = official(authors, **changes)
    loaded = caduceus.load(open_source(save_official(model, tmp_path / "source")), None)
    rows = np.random.default_rng(0).integers(12, size=(2, 31))
    found, wanted = graph.run_torch(loaded.network, rows), forward(rows)
    for name, value in wanted.items():
        assert worst(found[name], value) <= 1e-5


def test_trap_the_fused_code_swaps_the_strands_and_stays_equivariant(authors):
    """Same weights, other numbers in the two codes; each is equivariant, so no such test tells."""
    rows = np.random.default_rng(1).integers(7, 12, size=(1, 41))
    turned = np.vectorize(COMPLEMENT.get)(rows[:, ::-1])
    pairs = list(COMPLEMENT.values())
    fused, run_fused = official(authors, rcps=True)
    plain, run_plain = official(authors, rcps=True, fused_add_norm=False)
    weights = {
        key.replace(".norm.", ".norm.submodule.").replace("norm_f.", "norm_f.submodule."): value
        for key, value in fused.state_dict().items()
    }
    plain.load_state_dict(weights)
    ours = {}
    for name, run in (("fused", run_fused), ("plain", run_plain)):
        logits = run(rows)["logits"]
        assert worst(run(turned)["logits"][:, ::-1][..., pairs], logits) < 1e-5
        ours[name] = logits
    assert np.abs(ours["fused"] - ours["plain"]).max() > 0.5


def test_trap_the_authors_data_set_takes_sep_off_again(authors, monkeypatch):
    """Their tokenizer ends sequences with [SEP]; what the network was trained on does not."""
    folder = references()
    place = folder / "caduceus" / "src" / "dataloaders" / "utils" / "mlm.py"
    spec = importlib.util.spec_from_file_location("authors_mlm", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tokenizer = authors.CaduceusTokenizer(model_max_length=64)
    assert tokenizer("ACGTN")["input_ids"] == [7, 8, 9, 10, 11, 1]
    ids = [*tokenizer("ACGTN", add_special_tokens=False)["input_ids"], tokenizer.sep_token_id]
    data, target = module.mlm_getitem(torch.tensor(ids), contains_eos=True, tokenizer=tokenizer)
    assert len(data) == len(target) == 5
