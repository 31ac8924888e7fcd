"""Evo 2 against the authors' inference code, `vtx`, on a CPU (see `stubs_striped`)."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from parity_kit import Case, check_parity, randomise, worst
from stubs_striped import VORTEX, authors_code, forward_of, settle

from glm_annotate.train import graph
from glm_annotate.train.families.evo2 import FAMILY
from glm_annotate.train.sources import open_source

pytest.importorskip("einops", reason="vtx needs einops")
pytestmark = [
    pytest.mark.parity,
    # The authors' code asks for mixed precision on CUDA.
    pytest.mark.filterwarnings("ignore:CUDA is not available|User provided device_type"),
]

# The keys of the authors' .yml; three heads of 12.
CONFIG = {
    "model_name": "shc-evo2-tiny",
    "vocab_size": 512,
    "hidden_size": 36,
    "num_filters": 36,
    "attn_layer_idxs": [3, 6],
    "hcl_layer_idxs": [2, 5],
    "hcm_layer_idxs": [1],
    "hcs_layer_idxs": [0, 4],
    "hcm_filter_length": 128,
    "hcl_filter_groups": 36,
    "hcm_filter_groups": 12,
    "hcs_filter_groups": 6,
    "hcs_filter_length": 7,
    "num_layers": 7,
    "short_filter_length": 3,
    "num_attention_heads": 3,
    "short_filter_bias": False,
    "eps": 0.000001,
    "state_size": 5,
    "rotary_emb_base": 10000,
    "make_vocab_size_divisible_by": 8,
    "inner_size_multiple_of": 16,
    "inner_mlp_size": 40,
    "proj_groups": 1,
    "hyena_filter_groups": 1,
    "column_split_hyena": False,
    "column_split": True,
    "interleave": True,
    "evo2_style_activations": True,
    "model_parallel_size": 1,
    "tie_embeddings": True,
    "mha_out_proj_bias": True,
    "hyena_out_proj_bias": True,
    "hyena_flip_x1x2": False,
    "qkv_proj_bias": False,
    "use_fp8_input_projections": True,
    "max_seqlen": 8192,
    "final_norm": True,
    "use_flash_attn": True,
    "use_flash_rmsnorm": False,
    "use_flash_depthwise": False,
    "use_flashfft": False,
    "inference_mode": True,
    "prefill_style": "fft",
    "mlp_activation": "gelu",
}
LONG = {
    **CONFIG,
    "rotary_emb_base": 1000000,
    "use_interpolated_rotary_pos_emb": True,
    "rotary_emb_scaling_factor": 128,
    "max_seqlen": 1048576,
}
FP32 = {
    **dict.fromkeys(("attn_block_dtype", "hyena_block_dtype", "mlp_dtype"), torch.float32),
    "params_dtype": torch.float32,
    "use_flash_attn": False,
    "use_fp8_input_projections": False,
}
SCORES = ("LLR", "ENT", "EMB_COS", "EMB_L2:pool=all", "EMB_L1:pool=window:k=9")
# Longer than the 128 taps of the medium convolution.
ROWS = ((1, 23), (3, 40), (2, 150))


@contextlib.contextmanager
def vortex(config, folder: Path, *, half=False, seed=1):
    """A random checkpoint in the authors' layout, and the authors' network that has read it."""
    pytest.importorskip("vortex")
    folder.mkdir()
    with authors_code("vortex.model.model", VORTEX) as code:
        from vortex.model.utils import dotdict

        def fresh():
            return code.StripedHyena(dotdict({**config, **FP32})).float()

        weights = settle(randomise(fresh(), seed), seed).state_dict()
        path = folder / "evo2_tiny.pt"
        torch.save(official_file(weights, half=half), path)
        (folder / "config.yml").write_text(yaml.safe_dump(config))
        model = fresh()
        with torch.serialization.safe_globals([io.BytesIO]):
            read = torch.load(path, weights_only=True)
        model.custom_load_state_dict(read)
        yield path, model.float().eval()


def official_file(weights, *, half):
    """As published: rounded to bfloat16 but for what long taps are made of; with FP8's extras."""
    exact = ("log_poles", "residues", "inv_freq")
    kept = {k: v if k.endswith(exact) or not half else v.bfloat16() for k, v in weights.items()}
    buffer = io.BytesIO()
    torch.save({"scale_fwd": torch.ones(3)}, buffer)
    return {**kept, "blocks.0.projections._extra_state": buffer}


@pytest.mark.parametrize(
    ("variant", "config", "half"),
    [
        pytest.param("8k", CONFIG, False, id="trap_groups_and_order_of_taps_8k"),
        pytest.param("1m", LONG, True, id="trap_rotary_base_and_scale_1m"),
    ],
)
def test_evo2(tmp_path, record_property, shared_dir, variant, config, half):
    with vortex(config, tmp_path / "evo2", half=half) as (path, model):
        case = Case(
            system="Evo 2",
            variant=f"vortex, {variant}",
            reference="vtx 1.1.0",
            source=path,
            forward=forward_of(model),
            rows=ROWS,
            options=("--context", "160"),
            scores=SCORES,
        )
        check_parity(case, tmp_path, record_property, shared_dir)


def test_trap_projections_of_attention_are_grouped_by_head(tmp_path):
    """`column_split: True` means that the file holds (heads, q k v, d), False (q k v, heads, d)."""
    rows = np.random.default_rng(3).integers(512, size=(2, 40))
    found = []
    for split in (True, False):
        config = {**CONFIG, "column_split": split}
        with vortex(config, tmp_path / str(split)) as (path, model):
            wanted = forward_of(model)(rows)["logits"]
            network = FAMILY.official[0].load(open_source(path), 64).network
        found.append(graph.run_torch(network, rows)["logits"])
        assert worst(found[-1], wanted) < 1e-5
    assert worst(found[0], found[1]) > 1e-2


@pytest.mark.parametrize("rows", [5, 127, 129, 200])
def test_medium_taps_shorter_and_longer_than_the_window(tmp_path, rows):
    ids = np.random.default_rng(3).integers(512, size=(1, rows))
    with vortex(CONFIG, tmp_path / "evo2") as (path, model):
        wanted = forward_of(model)(ids)
        network = FAMILY.official[0].load(open_source(path), 200).network
    found = graph.run_torch(network, ids)
    assert max(worst(found[name], wanted[name]) for name in found) < 1e-5
