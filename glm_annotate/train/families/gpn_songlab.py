"""GPN as its authors published it: legacy ConvNet, GPN convnet and GPN bytenet.

After Benegas, Batra and Song (2023) and their checkpoints. Decisions: the window is exactly the one
that the checkpoints were trained on, because the receptive field is wider than it and so the zeros
past its edges reach every row; windows of another length give other numbers. There is no attention
and no mask: batches hold windows of one length.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from glm_annotate.errors import InputError
from glm_annotate.train.families.family import (
    Family,
    Loaded,
    Official,
    Release,
    Source,
    Values,
    is_matrix_of,
)
from glm_annotate.train.families.gpn_songlab_blocks import GpnSonglab, GpnSonglabConfig, Layout
from glm_annotate.train.official import Keys, build_config, fill, parse_config, whole

# Bases of a window in training, and in the authors' scores.
WINDOW = 512
TOKENS = {"[PAD]": 0, "[MASK]": 1, "[UNK]": 2, "a": 3, "c": 4, "g": 5, "t": 6}


def build(values: Values) -> GpnSonglab:
    """Make a network with fresh weights.

    Raises:
        InputError: A key or value of `[model]` is not allowed.
    """
    return GpnSonglab(build_config(GpnSonglabConfig, values))


# Official checkpoints


def _parts(prefix: str, new: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Rename the numbered parts of each layer below `prefix`."""
    return tuple((rf"{prefix}\.{old}\.", rf"layers.\1.{name}.") for old, name in new.items())


_GPN_KEYS = (
    (r"model\.embeddings\.word_embeddings\.", "embedding."),
    (r"model\.ln_f\.", "norm."),
    (r"cls\.transform\.0\.", "head.dense."),
    (r"cls\.transform\.2\.", "head.norm."),
    (r"cls\.decoder\.", "head.decoder."),
)
_CONV = {
    r"conv\.0": "norm_conv", r"conv\.2": "conv", r"conv\.5": "mix",
    r"ffn\.0": "norm_ffn", r"ffn\.1": "widen", r"ffn\.3": "narrow",
}  # fmt: skip
_BYTENET = {
    r"layer\.0": "norm_in", r"layer\.2": "narrow", r"layer\.3": "norm_narrow",
    r"layer\.6": "conv", r"layer\.8": "norm_conv", r"layer\.10": "widen",
}  # fmt: skip
_LEGACY = {
    r"conv\.1": "conv", r"conv\.4": "norm_conv", r"ffn\.0": "linear", r"ffn\.2": "norm_linear",
}  # fmt: skip
_RENAME: dict[Layout, tuple[tuple[str, str], ...]] = {
    "legacy": (
        *_parts(r"model\.encoder\.(\d+)", _LEGACY),
        (r"cls\.decoder\.0\.", "head.dense."),
        (r"cls\.decoder\.2\.", "head.norm."),
        (r"cls\.decoder\.3\.", "head.decoder."),
    ),
    "convnet": (*_parts(r"model\.encoder\.layer\.(\d+)", _CONV), *_GPN_KEYS),
    "bytenet": (*_parts(r"model\.encoder\.layer\.(\d+)", _BYTENET), *_GPN_KEYS),
}
# Where the config says `tie_word_embeddings`, a file may hold either of the two.
_TIES = (
    (r"head\.decoder\.weight", "embedding.weight"),
    (r"embedding\.weight", "head.decoder.weight"),
)
_TYPE: dict[Layout, str] = {"legacy": "ConvNet", "convnet": "GPN", "bytenet": "GPN"}
# A key that only this layout has.
_MARK: dict[Layout, str] = {
    "legacy": "model.encoder.0.conv.1.weight",
    "convnet": "model.encoder.layer.0.conv.2.weight",
    "bytenet": "model.encoder.layer.0.layer.6.weight",
}


def recognise(layout: Layout, source: Source) -> bool:
    """Tell whether a source is a GPN of this layout."""
    kind = source.config.get("model_type", _TYPE[layout])
    return kind == _TYPE[layout] and _MARK[layout] in source.weights


def load(layout: Layout, source: Source, context: int | None) -> Loaded:
    """Read an official checkpoint.

    Raises:
        InputError: Weights, config or tokenizer are not those of this layout.
    """
    check_tokens(source, TOKENS)
    config = official_config(layout, source)
    network = GpnSonglab(config)
    ties = _TIES if source.config.get("tie_word_embeddings") and config.table else ()
    fill(network, source, Keys(rename=_RENAME[layout], ties=ties))
    return Loaded(network, _card(source, context))


def limits_of(context: int | None, window: int) -> dict[str, str]:
    """Say in the card's provenance that a window is not the one of training."""
    if context in (None, window):
        return {}
    return {
        "limits": f"Windows of {context} bases; trained on {window}. The edges of a window reach "
        "every score, so these are not the authors' scores."
    }


def check_tokens(source: Source, tokens: Mapping[str, int]) -> None:
    """Compare the vocabulary that lies beside the weights, if any, with the one expected.

    Raises:
        InputError: It is another vocabulary, or unreadable.
    """
    for name, read in (("tokenizer.json", _json_tokens), ("vocab.txt", _text_tokens)):
        path = source.file(name)
        if path is None:
            continue
        try:
            found = read(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: cannot be read ({error!r}); fetch the {path.name} of the same checkpoint"
            ) from error
        if found != dict(tokens):
            wanted = ", ".join(f"{token} {i}" for token, i in tokens.items())
            shown = ", ".join(f"{token} {i}" for token, i in sorted(found.items())[:8])
            raise InputError(
                f"{path}: holds {shown or 'no tokens'}, wanted {wanted}; fetch the {path.name} of "
                "the same checkpoint"
            )


def _json_tokens(text: str) -> dict[str, int]:
    return dict(json.loads(text)["model"]["vocab"])


def _text_tokens(text: str) -> dict[str, int]:
    return {token: i for i, token in enumerate(text.splitlines())}


def official_config(layout: Layout, source: Source) -> GpnSonglabConfig:
    """Translate `config.json`; keys that it leaves out have the defaults of the authors' classes.

    Raises:
        InputError: There is none, or it contradicts the layout.
    """
    values, legacy = source.config, layout == "legacy"
    check_allowed(source, _allowed(layout))
    dim = whole(source, "hidden_size", 512)
    layers = whole(source, "n_layers" if legacy else "num_hidden_layers", 25)
    made: dict[str, object] = {
        "layout": layout,
        "vocabulary": whole(source, "vocab_size", len(TOKENS)),
        "dim": dim,
        "dilations": dilations(
            source, layers, cycle=6 if legacy else 8, most=32 if legacy else 9999
        ),
    }
    if legacy:
        kernel = whole(source, "kernel_size", 9)
        made |= {"hidden": dim, "kernel_first": kernel, "kernel": kernel, "bias": True}
        return parse_config(GpnSonglabConfig, source, made)
    narrow = dim // 2 if values.get("slim", False) else dim
    made |= {
        "hidden": whole(source, "intermediate_size", 2048) if layout == "convnet" else narrow,
        "kernel_first": whole(source, "first_kernel_size", 9),
        "kernel": whole(source, "rest_kernel_size", 5),
        "bias": values.get("bias", False),
        "depthwise": values.get("depthwise", False),
        "table": values.get("embedding", "one_hot") == "embedding",
        "transform": values.get("mlm_head_transform", True),
    }
    return parse_config(GpnSonglabConfig, source, made)


def check_allowed(source: Source, allowed: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse a config that has something else than one of the allowed values under a key.

    Raises:
        InputError: So it is, or there is no config.
    """
    if not source.config:
        raise InputError(
            f"{source.name}: no config.json beside the weights; fetch it from their repository"
        )
    for key, known in allowed.items():
        if key in source.config and source.config[key] not in known:
            raise InputError(
                f"{source.name}: config: {key} is {source.config[key]!r}, wanted "
                f"{' or '.join(map(str, known))}; fetch config and weights of one checkpoint"
            )


def _allowed(layout: Layout) -> dict[str, tuple[Any, ...]]:
    """List what the config must not contradict."""
    common = {"vocab_size": (len(TOKENS),), "n_aux_features": (0, None)}
    if layout == "legacy":
        return common
    return common | {"encoder": (layout,), "embedding": ("one_hot", "embedding")}


def dilations(source: Source, layers: int, *, cycle: int, most: int) -> list[int]:
    """Work out the dilation of each layer: min(max, base^((i mod cycle) div double_every))."""
    cycle = whole(source, "dilation_cycle", cycle)
    most = whole(source, "dilation_max", most)
    base, every = whole(source, "dilation_base", 2), whole(source, "dilation_double_every", 1)
    # From `most.bit_length()` on, no power of 2 and more is below `most`.
    steps = [min(i % cycle // every, most.bit_length()) for i in range(layers)]
    return [min(most, base**step) for step in steps]


_PNAS = "Benegas, Batra and Song, PNAS 120 (2023) e2311219120"
_FACTS: dict[str, dict[str, str]] = {
    "songlab/gpn-brassicales": {
        "species": "Arabidopsis thaliana and seven other Brassicales",
        "training_data": "songlab/genomes-brassicales-balanced-v1",
    },
    "songlab/gpn-animal-promoter": {
        "species": "animals",
        "training_data": "promoters, songlab/gpn-animal-promoter-dataset",
        "citation": "Benegas, Eraslan and Song, bioRxiv (2025) 2025.02.11.637758",
    },
}


def _card(source: Source, context: int | None) -> dict[str, Any]:
    window = context or WINDOW
    vocab = {
        "order": "ACGT",
        "first_id": TOKENS["a"],
        "single_ids": {"N": TOKENS["[UNK]"]},
        "pad_id": TOKENS["[PAD]"],
        "unk_id": TOKENS["[UNK]"],
        "mask_id": TOKENS["[MASK]"],
    }
    return {
        "encoder": {"kind": "kmer", "vocab": vocab},
        "context": window,
        "anchor": window // 2,
        "strand": "both",
        "scores": ["LLR", "PLLR"],
        "provenance": {
            **_FACTS.get(source.repository.partition("@")[0], {}),
            **limits_of(context, WINDOW),
        },
    }


def _official(layout: Layout, variant: str, *releases: Release) -> Official:
    recognises: Callable[[Source], bool] = partial(recognise, layout)
    loads: Callable[[Source, int | None], Loaded] = partial(load, layout)
    return Official(
        variant=variant,
        recognise=recognises,
        load=loads,
        tag="GPN",
        tokenizer="single bases",
        code_licence="MIT",
        weights_licence="MIT",
        releases=releases,
    )


FAMILY = Family(
    name="gpn_songlab",
    objective="masked",
    build=build,
    trunk=is_matrix_of("layers."),
    citation=_PNAS,
    title="GPN",
    official=(
        _official(
            "legacy",
            "legacy ConvNet",
            Release("gpn-brassicales", "songlab/gpn-brassicales", WINDOW, note="plants"),
        ),
        _official("convnet", "convnet"),
        _official(
            "bytenet",
            "bytenet",
            Release("gpn-animal-promoter", "songlab/gpn-animal-promoter", WINDOW, note="promoters"),
        ),
    ),
)
