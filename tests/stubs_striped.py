"""The authors' code of Evo and Evo 2 on a CPU: what stands in for its CUDA packages.

`stripedhyena` needs flash-attn, `vtx` needs its own compiled attention, Triton and a CUDA device.
The stand-ins are plain torch, written from what the callers expect: attention is torch's own
function, rotation is multiplication by complex numbers.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
import types
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.nn import functional


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate pairs (i, i + d / 2) of heads (B, T, H, d) by angles of (T, d / 2)."""
    half = x.shape[-1] // 2
    turn = torch.complex(cos, sin)[: x.shape[1], None]
    turned = torch.complex(x[..., :half].contiguous(), x[..., half:].contiguous()) * turn
    return torch.cat([turned.real, turned.imag], dim=-1)


class RotaryEmbedding(nn.Module):
    """What `flash_attn.layers.rotary.RotaryEmbedding` is to its callers and heirs."""

    def __init__(
        self,
        dim: int,
        base: float = 10000.0,
        interleaved: bool = False,
        scale_base: float | None = None,
        pos_idx_in_fp32: bool = True,
        device: Any = None,
    ):
        super().__init__()
        assert not interleaved
        assert scale_base is None
        self.dim, self.base = dim, float(base)
        self.interleaved, self.scale_base, self.scale = interleaved, scale_base, None
        self.pos_idx_in_fp32 = pos_idx_in_fp32
        self.register_buffer("inv_freq", self._compute_inv_freq(device), persistent=False)
        self._seq_len_cached, self._cos_cached, self._sin_cached = 0, None, None

    def _compute_inv_freq(self, device: Any = None) -> torch.Tensor:
        return torch.exp(-torch.arange(0, self.dim, 2) / self.dim * np.log(self.base)).to(device)

    def _update_cos_sin_cache(self, seqlen: int, device: Any = None, dtype: Any = None) -> None:
        angles = torch.arange(seqlen, dtype=torch.float32)[:, None] * self.inv_freq
        self._cos_cached, self._sin_cached = angles.cos(), angles.sin()


class MHA(nn.Module):
    """What `flash_attn.modules.mha.MHA` is to its callers; names of parameters are its own."""

    cross_attn = False

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        num_heads_kv: int,
        rotary_emb_dim: int,
        rotary_emb_base: float,
        qkv_proj_bias: bool,
        out_proj_bias: bool,
        causal: bool,
        layer_idx: int,
        use_flash_attn: bool,
    ):
        super().__init__()
        assert causal
        assert not use_flash_attn
        assert num_heads_kv == num_heads
        self.num_heads = num_heads
        self.rotary_emb = RotaryEmbedding(rotary_emb_dim, rotary_emb_base)
        self.Wqkv = nn.Linear(embed_dim, 3 * embed_dim, bias=qkv_proj_bias)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=out_proj_bias)

    def forward(self, x: torch.Tensor, inference_params: None = None) -> torch.Tensor:
        batch, rows, dim = x.shape
        query, key, value = self.Wqkv(x).view(batch, rows, 3, self.num_heads, -1).unbind(2)
        self.rotary_emb._update_cos_sin_cache(rows, device=x.device, dtype=x.dtype)
        table = self.rotary_emb._cos_cached, self.rotary_emb._sin_cached
        heads = (y.transpose(1, 2) for y in (rotate(query, *table), rotate(key, *table), value))
        out = functional.scaled_dot_product_attention(*heads, is_causal=True)
        return self.out_proj(out.transpose(1, 2).reshape(batch, rows, dim))


def apply_rotary(x, cos, sin, interleaved=False, inplace=False, **_):
    """What `vortex.ops.embedding.rotary.apply_rotary` is to its callers."""
    assert not interleaved
    out = rotate(x, cos, sin)
    if inplace:
        x.copy_(out)
    return out


def module(name: str, **contents: object) -> types.ModuleType:
    made = types.ModuleType(name)
    made.__path__ = []  # type: ignore[attr-defined]
    vars(made).update(contents)
    return made


FLASH = (
    module("flash_attn"),
    module("flash_attn.modules"),
    module("flash_attn.modules.mha", MHA=MHA),
    module("flash_attn.layers"),
    module("flash_attn.layers.rotary", RotaryEmbedding=RotaryEmbedding),
)
VORTEX = (
    module("vortex.ops"),
    module("vortex.ops.embedding"),
    module("vortex.ops.embedding.rotary", apply_rotary=apply_rotary),
    # The real one opens a log file in the working folder and takes over the root logger.
    module(
        "vortex.logging",
        activations_logger=logging.getLogger("vortex"),
        enable_activations_logging=lambda: None,
    ),
)


@contextlib.contextmanager
def authors_code(name: str, stubs: tuple[types.ModuleType, ...]) -> Iterator[Any]:
    """Import `name` with stubs in place; all of it is forgotten afterwards.

    CUDA's device contexts do nothing meanwhile.
    """
    roots = {name.partition(".")[0], *(x.__name__.partition(".")[0] for x in stubs)}
    sys.modules.update({x.__name__: x for x in stubs})
    try:
        with mock.patch.object(torch.cuda, "device", return_value=contextlib.nullcontext()):
            yield importlib.import_module(name)
    finally:
        # Only these: modules such as onnx cannot be imported twice.
        for found in [x for x in sys.modules if x.partition(".")[0] in roots]:
            del sys.modules[found]


def settle(model: nn.Module, seed: int) -> nn.Module:
    """Let taps decay as those of trained networks do, after every weight was filled at random."""
    generator = torch.Generator().manual_seed(seed)

    def draw(shape: torch.Size, low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(".log_poles"):
                weight.copy_(-draw(weight.shape, 0.01, 0.7))
            elif name.endswith(".poles"):
                size, angle = draw(weight.shape[:-1], 0.5, 0.99), draw(weight.shape[:-1], -3, 3)
                weight.copy_(torch.view_as_real(torch.polar(size, angle)))
            elif name.endswith(".residues"):
                weight.copy_(0.5 * torch.randn(weight.shape, generator=generator))
    return model.eval()


def forward_of(model: nn.Module):
    """Make the forward pass that `parity_kit` wants: the embedding is what the last norm gives."""
    kept: list[torch.Tensor] = []
    model.norm.register_forward_hook(lambda *call: kept.append(call[2]))

    @torch.no_grad()
    def forward(rows: np.ndarray) -> dict[str, np.ndarray]:
        logits, _ = model(torch.from_numpy(rows))
        return {"logits": logits.float().numpy(), "embedding": kept.pop().float().numpy()}

    return forward
