"""HyenaDNA against multimolecule's, and against the authors' code where it is at hand.

The authors' code is no package. For the tests that need it, the environment variable
GLM_ANNOTATE_REFERENCES names a folder that holds `checkpoint-62500/` (of github.com/shubhamtkr/
checkpoint-62500 at 18ec652: their modeling_hyena.py and configuration_hyena.py) and `hyena-dna/`
(of github.com/HazyResearch/hyena-dna at d553021: standalone_hyenadna.py).
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
from parity_kit import Case, check_parity, worst

from glm_annotate.train import graph
from glm_annotate.train.families.family import Source
from glm_annotate.train.families.hyenadna import FAMILY
from glm_annotate.train.sources import open_source

# The authors' code uses torch.jit.script, which is deprecated.
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

ROWS = 152
SIZES = {"d_model": 32, "d_inner": 72, "n_layer": 3, "vocab_size": 12}
CONFIG = {
    **SIZES,
    "model_type": "hyenadna",
    "max_seq_len": ROWS,
    "emb_dim": 5,
    "filter_order": 64,
    "short_filter_order": 3,
    "num_inner_mlps": 2,
    "hyena_order": 2,
    "activation_freq": 10,
    "embed_dropout": 0.1,
    "layer_norm_epsilon": 1e-05,
    "train_freq": True,
    "use_bias": True,
    "pad_vocab_size_multiple": 8,
    "tie_word_embeddings": False,
    "pad_token_id": 4,
}
ORIGINAL = {
    **SIZES,
    "resid_dropout": 0.0,
    "embed_dropout": 0.1,
    "fused_mlp": False,
    "residual_in_fp32": True,
    "fused_dropout_add_ln": True,
    "checkpoint_mixer": True,
    "checkpoint_mlp": True,
    "pad_vocab_size_multiple": 8,
    "layer": {
        "_name_": "hyena",
        "emb_dim": 5,
        "filter_order": 64,
        "short_filter_order": 3,
        "l_max": ROWS,
        "modulate": True,
        "w": 10,
        "lr": 6e-4,
        "wd": 0.0,
        "lr_pos_emb": 0.0,
    },
}
SCORES = ("LLR", "ENT", "EMB_COS", "EMB_L2:pool=all", "EMB_L1:pool=window:k=9")
SHAPES = ((1, 23), (3, 40), (2, ROWS - 2))


@torch.no_grad()
def fill(module: torch.nn.Module) -> torch.nn.Module:
    """Random weights, with implicit filters that oscillate as those of trained networks do."""
    generator = torch.Generator().manual_seed(5)

    def noise(weight, size):
        return size * torch.randn(weight.shape, generator=generator)

    frequencies = {}
    for name, weight in module.named_parameters():
        block = name.partition(".mixer.")[0]
        if name.endswith("freq"):
            frequencies.setdefault(block, 10 + noise(weight, 1.0))
            weight.copy_(frequencies[block])
        elif "implicit_filter" in name and weight.ndim == 2:
            weight.copy_(noise(weight, 0.6 / weight.shape[1] ** 0.5))
        elif weight.ndim == 1 and name.endswith("weight"):
            weight.copy_(1 + noise(weight, 0.3))
        else:
            weight.copy_(noise(weight, 1.2 / max(weight[0].numel(), 4) ** 0.5))
    return module.eval()


@pytest.fixture(scope="module")
def multimolecule():
    pytest.importorskip("transformers")
    models = pytest.importorskip("multimolecule.models.hyenadna")
    config = models.HyenaDnaConfig(
        vocab_size=12,
        hidden_size=32,
        num_hidden_layers=3,
        intermediate_size=72,
        max_position_embeddings=ROWS,
        tie_word_embeddings=False,
        pad_token_id=4,
    )
    return fill(models.HyenaDnaForCausalLM(config))


def authors_names(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights of multimolecule's by the authors' names, and the buffers that it leaves out."""
    values = {**dict(module.named_buffers()), **module.state_dict()}
    for old, new in (("model.final_layer_norm.", "model.ln_f."), ("model.", "hyena.backbone.")):
        values = {k.replace(old, new) if k.startswith(old) else k: v for k, v in values.items()}
    return {k: v.detach().clone() for k, v in values.items()}


def lightning_names(weights: dict[str, torch.Tensor], infix: str) -> dict[str, torch.Tensor]:
    values = {k.replace("hyena.backbone.", "backbone."): v for k, v in weights.items()}
    for part in ("mixer", "mlp"):
        values = {k.replace(f".{part}.", f".{part}.{infix}"): v for k, v in values.items()}
    return {f"model.{k}": v for k, v in values.items()}


def forward_of(module: torch.nn.Module):
    @torch.no_grad()
    def forward(rows: np.ndarray) -> dict[str, np.ndarray]:
        found = module(torch.from_numpy(rows), output_hidden_states=True)
        return {"logits": found.logits.numpy(), "embedding": found.hidden_states[-1].numpy()}

    return forward


def write_hf(folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    """As `save_pretrained` does: of tensors that are one, safetensors keep the first name."""
    from safetensors.torch import save_file

    folder.mkdir()
    repeated = (".implicit_filter.3.freq", ".implicit_filter.5.freq")
    kept = {k: v for k, v in weights.items() if not k.endswith(repeated)}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def write_lightning(folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    folder.mkdir()
    counts = {f"{x}_torchmetrics.num_tokens.count": torch.tensor(9) for x in ("train", "val")}
    values = {"epoch": 3, "global_step": 100, "state_dict": {**weights, **counts}}
    torch.save(values, folder / "weights.ckpt")
    (folder / "config.json").write_text(json.dumps(ORIGINAL))
    return folder


@pytest.mark.parametrize("context", [96, 40])
def test_transformers_layout(multimolecule, tmp_path, record_property, shared_dir, context):
    case = Case(
        system="HyenaDNA",
        variant=f"transformers, window {context}",
        reference="multimolecule 0.2.2 HyenaDna",
        source=write_hf(tmp_path / "hyenadna-hf", authors_names(multimolecule)),
        forward=forward_of(multimolecule),
        rows=((1, 1), (3, 19), (2, context)),
        options=("--context", str(context)),
        scores=SCORES,
    )
    check_parity(case, tmp_path, record_property, shared_dir)


@pytest.mark.parametrize("infix", ["", "layer."])
def test_lightning_layout(multimolecule, tmp_path, record_property, shared_dir, infix):
    weights = lightning_names(authors_names(multimolecule), infix)
    case = Case(
        system="HyenaDNA",
        variant="Lightning, checkpointed" if infix else "Lightning",
        reference="multimolecule 0.2.2 HyenaDna",
        source=write_lightning(tmp_path / "hyenadna", weights),
        forward=forward_of(multimolecule),
        rows=SHAPES,
        options=("--context", "150"),
        scores=SCORES,
    )
    check_parity(case, tmp_path, record_property, shared_dir)


@pytest.fixture
def references() -> Path:
    named = os.environ.get("GLM_ANNOTATE_REFERENCES")
    if not named:
        pytest.skip("GLM_ANNOTATE_REFERENCES is not set")
    return Path(named)


@pytest.fixture
def authors(references, monkeypatch):
    """The authors' code for transformers, as a package of its own name."""
    pytest.importorskip("transformers")
    folder = references / "checkpoint-62500"
    if not (folder / "modeling_hyena.py").is_file():
        pytest.skip(f"{folder} is not there")
    package = types.ModuleType("authors_hyenadna")
    package.__path__ = [str(folder)]
    monkeypatch.setitem(sys.modules, "authors_hyenadna", package)
    modeling = importlib.import_module("authors_hyenadna.modeling_hyena")
    config = importlib.import_module("authors_hyenadna.configuration_hyena").HyenaConfig(**CONFIG)
    made = fill(modeling.HyenaDNAForCausalLM(config))
    yield made
    for name in ("modeling_hyena", "configuration_hyena"):
        sys.modules.pop(f"authors_hyenadna.{name}", None)


def save_authors(module: torch.nn.Module, folder: Path) -> None:
    """As transformers 4 did; transformers 5 refuses to save a tensor that has three names."""
    from safetensors.torch import save_model

    module.config.save_pretrained(folder)
    save_model(module, str(folder / "model.safetensors"))


def test_transformers_layout_of_the_authors(authors, tmp_path, record_property, shared_dir):
    folder = tmp_path / "hyenadna-hf"
    save_authors(authors, folder)
    case = Case(
        system="HyenaDNA",
        variant="transformers",
        reference="authors' code for transformers",
        source=folder,
        forward=forward_of(authors),
        rows=SHAPES,
        options=("--context", "150"),
        scores=SCORES,
    )
    check_parity(case, tmp_path, record_property, shared_dir)


def test_trap_frequencies_that_safetensors_kept_once(authors, tmp_path):
    save_authors(authors, tmp_path)
    source = open_source(tmp_path)
    kept = [name for name in source.weights if ".layers.0." in name and name.endswith("freq")]
    assert len(kept) == 1
    network = FAMILY.official[0].load(source, None).network
    rows = np.arange(40).reshape(2, 20) % 16
    assert (
        worst(graph.run_torch(network, rows)["logits"], forward_of(authors)(rows)["logits"]) < 1e-5
    )


@pytest.fixture
def standalone(references, monkeypatch):
    """The authors' file that needs no training code; two things it imports are not installed."""
    if not (references / "hyena-dna" / "standalone_hyenadna.py").is_file():
        pytest.skip(f"{references / 'hyena-dna'} is not there")
    pytest.importorskip("einops")
    transformers = pytest.importorskip("transformers")
    vision, ops = types.ModuleType("torchvision"), types.ModuleType("torchvision.ops")
    ops.StochasticDepth = torch.nn.Identity
    tokens = types.ModuleType("transformers.tokenization_utils")
    tokens.AddedToken = transformers.AddedToken
    tokens.PreTrainedTokenizer = object
    for name, module in (
        ("torchvision", vision),
        ("torchvision.ops", ops),
        ("transformers.tokenization_utils", tokens),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.syspath_prepend(str(references / "hyena-dna"))
    yield importlib.import_module("standalone_hyenadna")
    sys.modules.pop("standalone_hyenadna", None)


@torch.no_grad()
def test_the_standalone_file_of_the_authors(standalone):
    class Depth(torch.nn.Identity):
        def __init__(self, *_: object, **__: object):
            super().__init__()

    standalone.StochasticDepth = Depth
    layer = {k: v for k, v in ORIGINAL["layer"].items() if k != "_name_"}
    sizes = {k: v for k, v in ORIGINAL.items() if k != "layer"}
    made = fill(standalone.HyenaDNAModel(layer=layer, **sizes))
    weights = {f"model.{name}": value for name, value in made.state_dict().items()}
    network = FAMILY.official[1].load(Source("weights.ckpt", weights, ORIGINAL), None).network
    for shape in SHAPES:
        rows = np.random.default_rng(shape[1]).integers(16, size=shape)
        wanted = made(torch.from_numpy(rows)).numpy()
        assert worst(graph.run_torch(network, rows)["embedding"], wanted) <= 1e-5


def test_trap_the_standalone_tokenizer_adds_a_token_before(standalone):
    made = standalone.CharacterTokenizer.__new__(standalone.CharacterTokenizer)
    made.sep_token_id, made.cls_token_id = 1, 0
    # [CLS] A C [SEP] there; our windows have neither.
    assert made.build_inputs_with_special_tokens([7, 8]) == [0, 7, 8, 1]
    source = Source("hyena", authors_tiny())
    vocab = FAMILY.official[0].load(source, None).card["encoder"]["vocab"]
    assert "prefix" not in vocab
    assert "suffix" not in vocab


def authors_tiny() -> dict[str, torch.Tensor]:
    network = FAMILY.build({"dim": 4, "layers": 1, "hidden": 4, "max_rows": 8})
    values = network.state_dict()
    return {k if k.startswith("lm_head") else f"hyena.{k}": v for k, v in values.items()}
