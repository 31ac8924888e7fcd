"""Evo against the authors' `stripedhyena`, and optionally against the sources of flash-attn.

The tests put a stand-in for flash-attn in place (see `stubs_striped`). Where the environment
variable GLM_ANNOTATE_REFERENCES names a folder that holds `flash-attn/` (the unpacked sources of
flash-attn 2.6.3 from PyPI), one test uses its attention and rotary positions instead.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from parity_kit import Case, check_parity, randomise, worst
from stubs_striped import FLASH, apply_rotary, authors_code, forward_of, module, settle

from glm_annotate.train import graph
from glm_annotate.train.families.evo import FAMILY
from glm_annotate.train.sources import open_source

pytest.importorskip("einops", reason="stripedhyena needs einops")
pytest.importorskip("safetensors")
pytestmark = pytest.mark.parity

# The keys of the authors' .yml; three heads of 12.
CONFIG = {
    "vocab_size": 512,
    "hidden_size": 36,
    "num_filters": 36,
    "max_sequence_len": 8192,
    "attn_layer_idxs": [1, 3],
    "hyena_layer_idxs": [0, 2],
    "num_layers": 4,
    "short_filter_length": 3,
    "num_attention_heads": 3,
    "short_filter_bias": True,
    "mlp_init_method": "torch.nn.init.zeros_",
    "eps": 1.0e-6,
    "state_size": 5,
    "inner_size_multiple_of": 16,
    "smeared_gqa": False,
    "make_vocab_size_divisible_by": 8,
    "proj_groups": 1,
    "hyena_filter_groups": 1,
    "split_k0": True,
    "model_parallel_size": 1,
    "tie_embeddings": True,
    "inner_mlp_size": None,
    "mha_out_proj_bias": True,
    "qkv_proj_bias": True,
    "final_norm": True,
    "use_flash_attn": True,
    "use_flash_rmsnorm": False,
    "use_flash_depthwise": False,
    "use_flashfft": False,
    "column_split": True,
    "inference_mode": True,
    "prefill_style": "fft",
    "mlp_activation": "gelu",
}
LONG = {**CONFIG, "use_interpolated_rotary_pos_emb": True, "rotary_emb_scaling_factor": 16}
FP32 = {
    **dict.fromkeys(("attn_block_dtype", "hyena_block_dtype", "mlp_dtype"), torch.float32),
    "params_dtype": torch.float32,
    "use_flash_attn": False,
}
SCORES = ("LLR", "ENT", "EMB_COS", "EMB_L2:pool=all", "EMB_L1:pool=window:k=9")


@contextlib.contextmanager
def stripedhyena(config, stubs=FLASH, seed=1):
    """The authors' network with random weights."""
    pytest.importorskip("stripedhyena")
    with authors_code("stripedhyena.model", stubs) as code:
        from stripedhyena.utils import dotdict

        model = code.StripedHyena(dotdict({**config, **FP32}))
        yield settle(randomise(model, seed), seed)


def save_hf(folder: Path, model: torch.nn.Module, config, *, half=False, head=False) -> Path:
    """Write two shards and config.json in the layout of the hub, `backbone.` before every key."""
    from safetensors.torch import save_file

    folder.mkdir()
    weights = {f"backbone.{k}": v.detach().clone() for k, v in model.state_dict().items()}
    if not head:
        del weights["backbone.unembed.weight"]
    if half:
        exact = ("poles", "residues")
        weights = {k: v if k.endswith(exact) else v.bfloat16() for k, v in weights.items()}
    names = sorted(weights)
    for shard, part in ((1, names[::2]), (2, names[1::2])):
        path = folder / f"model-0000{shard}-of-00002.safetensors"
        save_file({k: weights[k] for k in part}, path, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "stripedhyena", **config}))
    return folder


def test_trap_head_missing_from_the_file_8k(tmp_path, record_property, shared_dir):
    with stripedhyena(CONFIG) as model:
        case = Case(
            system="Evo",
            variant="8k",
            reference="stripedhyena 0.2.2",
            source=save_hf(tmp_path / "evo", model, CONFIG),
            forward=forward_of(model),
            options=("--context", "64"),
            scores=SCORES,
        )
        check_parity(case, tmp_path, record_property, shared_dir)


def test_trap_interpolated_positions_and_half_precision_131k(tmp_path, record_property, shared_dir):
    with stripedhyena(LONG, seed=2) as model:
        source = save_hf(tmp_path / "evo", model, LONG, half=True, head=True)
        # As the authors' loader does: all but poles and residues are rounded to bfloat16.
        model.to_bfloat16_except_poles_residues()
        case = Case(
            system="Evo",
            variant="131k",
            reference="stripedhyena 0.2.2",
            source=source,
            forward=forward_of(model.float()),
            options=("--context", "64"),
            scores=SCORES,
        )
        check_parity(case, tmp_path, record_property, shared_dir)


@pytest.mark.parametrize(
    ("module", "attribute", "value"),
    [
        ("blocks.0.filter", "column_split_hyena", False),
        ("blocks.1.inner_mha_cls.rotary_emb", "_linear_scaling_factor", 1.0),
        ("norm", "eps", 0.1),
    ],
)
def test_trap_what_the_traps_change_is_seen(tmp_path, module, attribute, value):
    """Each is far above the tolerance on the weights that are compared."""
    with stripedhyena(LONG) as model:
        source = open_source(save_hf(tmp_path / "evo", model, LONG))
        rows = np.random.default_rng(3).integers(512, size=(2, 40))
        found = graph.run_torch(FAMILY.official[1].load(source, 64).network, rows)["logits"]
        assert worst(found, forward_of(model)(rows)["logits"]) < 1e-5
        changed = model.get_submodule(module)
        assert getattr(changed, attribute) != value
        setattr(changed, attribute, value)
        changed._seq_len_cached = 0  # of the rotation
        assert worst(found, forward_of(model)(rows)["logits"]) > 1e-3


def test_config_yml_of_the_authors(tmp_path):
    with stripedhyena(LONG) as model:
        folder = save_hf(tmp_path / "evo", model, LONG)
        rows = np.random.default_rng(3).integers(512, size=(2, 40))
        wanted = forward_of(model)(rows)["logits"]
    (folder / "config.json").unlink()
    (folder / "config.yml").write_text(yaml.safe_dump(LONG))
    source = open_source(folder)
    assert [x.recognise(source) for x in FAMILY.official] == [False, True]
    network = FAMILY.official[1].load(source, 64).network
    assert worst(graph.run_torch(network, rows)["logits"], wanted) < 1e-5


def test_trap_lengths_of_one_batch(tmp_path):
    """Authors score `mean(log p[:length])`; windows of one length are all that we compare."""
    with stripedhyena(CONFIG) as model:
        network = (
            FAMILY.official[0]
            .load(open_source(save_hf(tmp_path / "evo", model, CONFIG)), 64)
            .network
        )
        rows = np.random.default_rng(3).choice([65, 67, 71, 84], size=(2, 31))
        rows[:, 0] = 0
        wanted = forward_of(model)(rows)["logits"]
    found = graph.run_torch(network, rows)["logits"]
    theirs, ours = (torch.log_softmax(torch.from_numpy(x), -1) for x in (wanted, found))
    ids = torch.from_numpy(rows)[:, 1:, None]
    scores = [x[:, :-1].gather(2, ids).squeeze(2).mean(1) for x in (theirs, ours)]
    torch.testing.assert_close(scores[0], scores[1], atol=1e-5, rtol=1e-5)


@pytest.fixture
def flash_attn():
    """The real attention of flash-attn 2.6.3; its kernels alone are replaced."""
    folder = Path(os.environ.get("GLM_ANNOTATE_REFERENCES", "")) / "flash-attn" / "flash_attn"
    if "GLM_ANNOTATE_REFERENCES" not in os.environ or not folder.is_dir():
        pytest.skip("GLM_ANNOTATE_REFERENCES names no folder with flash-attn/")
    package = module("flash_attn")
    package.__path__ = [str(folder)]
    fused = module(
        "flash_attn.ops.fused_dense",
        **dict.fromkeys(("FusedDense", "ColumnParallelLinear", "RowParallelLinear")),
    )
    return (
        package,
        module("flash_attn.ops.triton.rotary", apply_rotary=apply_rotary),
        module("flash_attn.ops.triton"),
        fused,
    )


@pytest.mark.parametrize("config", [CONFIG, LONG], ids=["8k", "131k"])
def test_attention_of_flash_attn(tmp_path, flash_attn, config):
    with stripedhyena(config, stubs=flash_attn) as model:
        assert type(model.blocks[1].inner_mha_cls).__module__ == "flash_attn.modules.mha"
        folder = save_hf(tmp_path / "evo", model, config)
        rows = np.random.default_rng(3).integers(512, size=(2, 60))
        wanted = forward_of(model)(rows)
    source = open_source(folder)
    official = next(x for x in FAMILY.official if x.recognise(source))
    found = graph.run_torch(official.load(source, 64).network, rows)
    assert max(worst(found[name], wanted[name]) for name in found) < 1e-5
