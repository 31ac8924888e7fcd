"""Enformer: coverage of assays in bins of 128 bases, from convolutions and attention.

After Avsec et al. (2021); layout and defaults checked against enformer-pytorch (MIT). Read are
checkpoints of that package, the converted official one among them: human or mouse, see
`chosen_head`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from glm_annotate.errors import InputError
from glm_annotate.train.families.borzoi import ASSEMBLIES, chosen_head, shape_of, tokens_of
from glm_annotate.train.families.enformer_blocks import (
    TABLE_TOKENS,
    Enformer,
    EnformerConfig,
    Gamma,
)
from glm_annotate.train.families.family import (
    Family,
    Official,
    Release,
    Source,
    Values,
    is_matrix_of,
)
from glm_annotate.train.families.predictor import Predicted
from glm_annotate.train.families.targets import find_targets
from glm_annotate.train.official import Keys, build_config, fill, parse_config

CONTEXT = 196_608
_KEPT = 896  # bins of the official output
_OFFICIAL = "EleutherAI/enformer-official-rough"


def build(values: Values) -> Enformer:
    """Make a network with fresh weights.

    Raises:
        InputError: A key or value of `[model]` is not allowed.
    """
    return Enformer(build_config(EnformerConfig, values))


# Checkpoints of enformer-pytorch

# Modules are registered twice there: by name, and by number in `_trunk`.
_TWICE = {"1": "stem", "2": "conv_tower", "4": "transformer", "6": "final_pointwise"}
_STEM, _FIRST, _LAST = "stem.0.weight", "transformer.0.0.fn.1.", "final_pointwise.1.2.weight"
_PARTS = {
    r"1\.fn\.0\.": "mix.norm.", r"1\.fn\.2\.": "mix.conv.", r"2\.to_attn_logits\.": "pool.score.",
}  # fmt: skip
_BLOCK = {
    r"0\.fn\.0\.": "norm_attention.", r"0\.fn\.1\.": "attention.", r"1\.fn\.0\.": "norm_mlp.",
    r"1\.fn\.1\.": "widen.", r"1\.fn\.4\.": "narrow.",
}  # fmt: skip
_RENAME = (
    (r"stem\.0\.", "stem.first."),
    *((rf"stem\.{old}", f"stem.{new}") for old, new in _PARTS.items()),
    (r"conv_tower\.(\d+)\.0\.0\.", r"tower.\1.first.norm."),
    (r"conv_tower\.(\d+)\.0\.2\.", r"tower.\1.first.conv."),
    *((rf"conv_tower\.(\d+)\.{old}", rf"tower.\1.{new}") for old, new in _PARTS.items()),
    *((rf"transformer\.(\d+)\.{old}", rf"transformer.\1.{new}") for old, new in _BLOCK.items()),
    (r"final_pointwise\.1\.0\.", "last.norm."),
    (r"final_pointwise\.1\.2\.", "last.conv."),
)


def recognise(source: Source) -> bool:
    """Tell whether a source is a checkpoint of enformer-pytorch."""
    names = {_once(name) for name in source.weights}
    return {"stem.2.to_attn_logits.weight", f"{_FIRST}to_rel_k.weight"} <= names


def load(source: Source, context: int | None) -> Predicted:
    """Read a checkpoint of enformer-pytorch.

    Raises:
        InputError: Weights or config are not those of one.
    """
    source = replace(source, weights=_unique(source))
    heads = _heads(source)
    head = chosen_head(source, heads)
    config = _config(source, heads[head], context)
    network = Enformer(config)
    rename = (*_RENAME, (rf"_heads\.{head}\.0\.", "head."))
    fill(network, source, Keys(rename, ignore=(r"_heads\.\w+\.0\.\w+",)))
    # Hard clips cannot be undone, and the rest is a scale.
    rows = find_targets(source, head, config.tracks, "none")
    return Predicted((network,), _card(source, config, head), rows)


def _heads(source: Source) -> dict[str, int]:
    """List the heads, and how many tracks each has."""
    return {
        found[1]: value.shape[0]
        for name, value in source.weights.items()
        if (found := re.fullmatch(r"_heads\.(\w+)\.0\.weight", name)) and value.ndim
    }


def heads_of(source: Source) -> tuple[str, ...]:
    """Name the heads, see `Official.heads`."""
    return tuple(sorted(_heads(source)))


def _once(name: str) -> str:
    return re.sub(r"^_trunk\.([1246])\.", lambda found: f"{_TWICE[found[1]]}.", name)


def _unique(source: Source) -> dict[str, Tensor]:
    """Keep one of the two copies of each weight.

    Raises:
        InputError: They differ.
    """
    out: dict[str, Tensor] = {}
    for name, value in source.weights.items():
        short = _once(name)
        if short.endswith("to_attn_logits.weight") and value.ndim == 4:
            value = value.squeeze(-1)
        if short in out and not torch.equal(out[short], value):
            raise InputError(
                f"{source.name}: {name} and its copy {short} differ; fetch the checkpoint again"
            )
        out[short] = value
    return out


def _config(source: Source, tracks: int, context: int | None) -> EnformerConfig:
    """Read sizes off the weights, and off the config what they do not tell."""
    weights = source.weights
    count = len([x for x in weights if re.fullmatch(r"conv_tower\.\d+\.0\.2\.bias", x)])
    blocks = {x.split(".")[1] for x in weights if re.match(r"transformer\.\d+\.", x)}
    tower = [shape_of(source, f"conv_tower.{i}.0.2.weight", 3) for i in range(count)]
    stem, bias = shape_of(source, _STEM, 3), shape_of(source, f"{_FIRST}rel_content_bias", 4)
    token = 2 << count
    tokens = tokens_of(source, context or TABLE_TOKENS * token, token)
    return parse_config(
        EnformerConfig,
        source,
        {
            "tokens": tokens,
            "stem": stem[0],
            "stem_kernel": stem[2],
            "tower": tuple(shape[0] for shape in tower),
            "kernel": tower[0][2] if tower else 0,
            "layers": len(blocks),
            "heads": bias[1],
            "key": bias[3],
            "features": shape_of(source, f"{_FIRST}to_rel_k.weight", 2)[1],
            "gamma": _gamma(source),
            "crop": _crop(source, tokens),
            "last": shape_of(source, _LAST, 3)[0],
            "tracks": tracks,
        },
    )


def _gamma(source: Source) -> Gamma:
    """Say which positions the weights were trained with.

    `use_tf_gamma` of the config; the official checkpoint is older than that key.
    """
    official = source.repository.partition("@")[0] == _OFFICIAL
    stated = source.config.get("use_tf_gamma", True)
    if not isinstance(stated, bool):
        raise InputError(f"{source.name}: config: use_tf_gamma is {stated!r}, wanted true or false")
    return "official" if official or stated else "feature"


def _crop(source: Source, tokens: int) -> int:
    """Work out the bins cut off at each side: the config says how many are kept."""
    kept = source.config.get("target_length", _KEPT)
    if kept == -1:
        return 0
    if not isinstance(kept, int) or isinstance(kept, bool) or kept < 1 or (tokens - kept) % 2:
        raise InputError(
            f"{source.name}: config: target_length is {kept!r}, wanted a number of bins that "
            f"leaves as many at either side of {tokens}, or -1"
        )
    if kept > tokens:
        raise InputError(
            f"{source.name}: a window of {tokens} bins has fewer than the {kept} of "
            "target_length; give a longer one with --context"
        )
    return (tokens - kept) // 2


def _card(source: Source, config: EnformerConfig, head: str) -> dict[str, Any]:
    species, assembly = ASSEMBLIES.get(head, ("", ""))
    length = config.tokens * config.token
    provenance: dict[str, Any] = {"species": species, "assembly": assembly}
    if config.gamma == "feature":
        provenance["limits"] = "Positions as enformer-pytorch has them with use_tf_gamma = false."
    if source.repository.startswith(_OFFICIAL):
        provenance |= {"training_data": "Basenji2 training set (cross-species)"}
    return {
        "encoder": {
            "kind": "kmer",
            "vocab": {"order": "ACGT", "first_id": 0, "single_ids": {"N": 4}},
        },
        "context": length,
        # As in the authors' variant files: the base left of the middle.
        "anchor": length // 2 - 1,
        "bin_size": config.token,
        "crop": config.crop,
        "strand": "both",
        "scores": ("SAD",),
        "provenance": provenance,
    }


FAMILY = Family(
    name="enformer",
    objective="tracks",
    build=build,
    trunk=is_matrix_of("transformer."),
    citation="Avsec et al., Nature Methods 18 (2021) 1196-1203",
    title="Enformer",
    official=(
        Official(
            variant="PyTorch",
            recognise=recognise,
            load=load,
            tag="ENF",
            tokenizer="one-hot bases",
            code_licence="Apache-2.0",
            weights_licence="Apache-2.0 (not verified; converted by EleutherAI)",
            releases=(
                Release("enformer", _OFFICIAL, CONTEXT, note="human head; mouse head is there too"),
            ),
            heads=heads_of,
        ),
    ),
)
