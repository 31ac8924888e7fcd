"""DeepSEA, Beluga and DanQ: probabilities of chromatin features from windows of 1 or 2 kb.

After Zhou and Troyanskaya (2015), Zhou et al. (2018) and Quang and Xie (2016). Decisions: weights
that Lua trained (they lie in kernels of two-dimensional layers) read bases in the order A, G, C, T
and take N for zeros; those that selene trained read A, C, G, T and take N for a quarter of each.
The published scores average both strands, which the card asks for; the network reads one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from glm_annotate.train.families.deepsea_blocks import DanQ, DanQConfig, DeepSea, DeepSeaConfig
from glm_annotate.train.families.family import Family, Official, Source, Values, is_matrix_of
from glm_annotate.train.families.one_bin import (
    check_context,
    limit_rows,
    predicted_whole,
    stored,
    with_counts,
    with_flat_kernels,
)
from glm_annotate.train.families.predictor import Predicted
from glm_annotate.train.official import Keys, build_config, fill, parse_config, rename

_LUA_ORDER, _LUA_FLOOR = "AGCT", 1e-6
# selene's DeepSEA scales rows of these weights down to this length in every pass.
_LONGEST_ROW = 0.9
_LIMITED = ("conv_net.0", "conv_net.4", "conv_net.9", "classifier.0", "classifier.3")


def build_deepsea(values: Values) -> DeepSea:
    """Make a DeepSEA with fresh weights.

    Raises:
        InputError: A key or value of `[model]` is not allowed.
    """
    return DeepSea(build_config(DeepSeaConfig, values))


def build_beluga(values: Values) -> DeepSea:
    """Make a Beluga with fresh weights: twice the window and the depth.

    Raises:
        InputError: A key or value of `[model]` is not allowed.
    """
    return DeepSea(build_config(DeepSeaConfig, {**_BELUGA, **values}))


def build_danq(values: Values) -> DanQ:
    """Make a DanQ with fresh weights.

    Raises:
        InputError: A key or value of `[model]` is not allowed.
    """
    return DanQ(build_config(DanQConfig, values))


_BELUGA: dict[str, Any] = {
    "length": 2000, "widths": (320, 480, 640), "depth": 2, "hidden": 2003, "tracks": 2002,
}  # fmt: skip

# Official checkpoints: a wrapper or two, then numbers of layers in nested sequences.

_WRAPPED = (r"module\.", "")
_LUA = (
    _WRAPPED,
    # kipoi puts one or two layers that order bases and strands in front.
    (r"[12]\.(?=\d)", ""),
    (r"0\.", "stages.0.0."), (r"4\.", "stages.1.0."), (r"8\.", "stages.2.0."),
    (r"12\.1\.", "dense.0."), (r"14\.1\.", "dense.1."),
)  # fmt: skip
_SELENE_PLAIN = (
    _WRAPPED, (r"model\.", ""),
    *((rf"conv_net\.{4 * i}\.", f"stages.{i}.0.") for i in range(3)),
    (r"classifier\.0\.", "dense.0."), (r"classifier\.2\.", "dense.1."),
)  # fmt: skip
# With batch norms, as the class was up to 2019.
_SELENE = (
    _WRAPPED, (r"model\.", ""),
    (r"conv_net\.0\.", "stages.0.0."), (r"conv_net\.4\.", "stages.1.0."),
    (r"conv_net\.9\.", "stages.2.0."), (r"conv_net\.3\.", "norms.0."),
    (r"conv_net\.7\.", "norms.1."), (r"conv_net\.11\.", "norms.2."),
    (r"classifier\.0\.", "dense.0."), (r"classifier\.2\.", "dense_norm."),
    (r"classifier\.3\.", "dense.1."),
)  # fmt: skip
_BELUGA_KEYS = (
    _WRAPPED, (r"model\.(?=model\.)", ""),
    *(
        (rf"model\.0\.{number}\.", f"stages.{i // 2}.{i % 2}.")
        for i, number in enumerate((0, 2, 6, 8, 12, 14))
    ),
    (r"model\.1\.2\.1\.", "dense.0."), (r"model\.1\.4\.1\.", "dense.1."),
)  # fmt: skip
_DANQ = (
    _WRAPPED, (r"model\.", ""),
    (r"nnet\.0\.", "conv."), (r"bdlstm\.0\.", "lstm."),
    (r"classifier\.1\.", "dense.0."), (r"classifier\.3\.", "dense.1."),
)  # fmt: skip


def _name(source: Source, ending: str) -> str | None:
    """Find the key that is this one behind wrappers."""
    pattern = re.compile(rf"(?:module\.|model\.|[12]\.)*{re.escape(ending)}")
    return next((name for name in source.weights if pattern.fullmatch(name)), None)


def _has(source: Source, axes: int, *endings: str) -> bool:
    names = [_name(source, ending) for ending in endings]
    return all(name is not None and source.weights[name].ndim == axes for name in names)


def _is_lua(source: Source) -> bool:
    first = _name(source, "0.weight")
    # Basset's converted file has the same numbers, its kernels lie along the other axis.
    return (
        _has(source, 4, "0.weight", "4.weight", "8.weight")
        and first is not None
        and source.weights[first].shape[2] == 1
    )


def _is_selene(source: Source) -> bool:
    return _has(source, 3, *(f"conv_net.{i}.weight" for i in (0, 4, 9)))


def _is_selene_plain(source: Source) -> bool:
    return _has(source, 3, *(f"conv_net.{i}.weight" for i in (0, 4, 8)))


def _is_beluga(source: Source) -> bool:
    return _has(source, 4, *(f"model.0.{i}.weight" for i in (0, 2, 6, 8, 12, 14)))


def _is_danq(source: Source) -> bool:
    return _has(source, 3, "nnet.0.weight") and _name(source, "bdlstm.0.weight_ih_l0") is not None


def _plain(source: Source, keys: tuple[tuple[str, str], ...]) -> Source:
    """Give the weights our names, so that their shapes can be read."""
    return replace(source, weights=rename(source.weights, Keys(rename=keys)))


def _sizes(source: Source, depth: int) -> dict[str, object]:
    """Read what the shapes tell."""
    first = stored(source, "stages.0.0.weight", 3)
    widths = [stored(source, f"stages.{i}.0.weight", 3).shape[0] for i in range(3)]
    return {
        "widths": tuple(widths),
        "depth": depth,
        "kernel": first.shape[2],
        "hidden": stored(source, "dense.0.weight", 2).shape[0],
        "tracks": stored(source, "dense.1.weight", 2).shape[0],
    }


def _load_convs(
    source: Source,
    context: int | None,
    keys: tuple[tuple[str, str], ...],
    fixed: Mapping[str, Any],
    order: str = "ACGT",
) -> Predicted:
    named = _plain(source, keys)
    sizes = _sizes(named, fixed.get("depth", 1))
    config = parse_config(DeepSeaConfig, named, {**sizes, **fixed, **_given(source, "length")})
    check_context(source, context, config.length)
    network = DeepSea(config)
    fill(network, with_counts(named, network), Keys())
    return _predicted(source, network, config.tracks, order)


def load_lua(source: Source, context: int | None) -> Predicted:
    """Read the DeepSEA of 2015, as kipoi converted it.

    Raises:
        InputError: Weights are not those of the system.
    """
    fixed = {"floor": _LUA_FLOOR, "length": 1000}
    return _load_convs(with_flat_kernels(source, 2), context, _LUA, fixed, _LUA_ORDER)


def load_selene(source: Source, context: int | None) -> Predicted:
    """Read a DeepSEA of selene with batch norms, and the row lengths that its pass enforces.

    Raises:
        InputError: Weights are not those of the system.
    """
    rows = tuple(f"{name}.weight" for name in _LIMITED)
    limited = limit_rows(source, rows, _LONGEST_ROW)
    return _load_convs(limited, context, _SELENE, {"normed": True, "unknown": 0.25, "length": 1000})


def load_selene_plain(source: Source, context: int | None) -> Predicted:
    """Read a DeepSEA that selene trained since its class has no batch norms.

    Raises:
        InputError: Weights are not those of the system.
    """
    return _load_convs(source, context, _SELENE_PLAIN, {"unknown": 0.25, "length": 1000})


def load_beluga(source: Source, context: int | None) -> Predicted:
    """Read Beluga, the network of ExPecto.

    Raises:
        InputError: Weights are not those of the system.
    """
    fixed = {"depth": 2, "length": _BELUGA["length"]}
    return _load_convs(with_flat_kernels(source, 2), context, _BELUGA_KEYS, fixed, _LUA_ORDER)


def load_danq(source: Source, context: int | None) -> Predicted:
    """Read a DanQ in selene's layout; its config may say `compat` and `length`.

    Raises:
        InputError: Weights are not those of the system.
    """
    named = _plain(source, _DANQ)
    conv = stored(named, "conv.weight", 3)
    values: dict[str, object] = {
        "width": conv.shape[0],
        "kernel": conv.shape[2],
        "hidden": stored(named, "dense.0.weight", 2).shape[0],
        "tracks": stored(named, "dense.1.weight", 2).shape[0],
        **_given(source, "length", "compat", "pool"),
    }
    config = parse_config(DanQConfig, named, values)
    check_context(source, context, config.length)
    network = DanQ(config)
    fill(network, named, Keys())
    limits = "selene's class takes the batch for the time of its LSTM; here it is "
    limits += "each row alone" if config.compat == "published" else "the window, as published"
    return _predicted(source, network, config.tracks, "ACGT", f"{limits}.")


def _given(source: Source, *names: str) -> dict[str, object]:
    return {name: source.config[name] for name in names if name in source.config}


def _predicted(
    source: Source, network: DeepSea | DanQ, tracks: int, order: str, limits: str = ""
) -> Predicted:
    length = network.length or 0
    facts = {"limits": limits} if limits else {}
    return predicted_whole(
        source, network, length=length, tracks=tracks, provenance=facts, order=order
    )


def _official(
    variant: str,
    tag: str,
    recognise: Callable[[Source], bool],
    load: Callable[[Source, int | None], Predicted],
    licences: tuple[str, str],
) -> Official:
    return Official(
        variant=variant,
        recognise=recognise,
        load=load,
        tag=tag,
        tokenizer="one-hot bases",
        code_licence=licences[0],
        weights_licence=licences[1],
    )


_SELENE_LICENCES = ("BSD-3-Clause-Clear", "none published")
_BELUGA_LICENCES = ("non-commercial use only", "non-commercial use only")
DEEPSEA = Family(
    name="deepsea",
    objective="tracks",
    build=build_deepsea,
    trunk=is_matrix_of("dense."),
    citation="Zhou and Troyanskaya, Nature Methods 12 (2015) 931",
    title="DeepSEA",
    official=(
        _official("2015", "DEEPSEA", _is_lua, load_lua, ("CC-BY-3.0", "CC-BY-3.0")),
        _official("selene", "DEEPSEA", _is_selene_plain, load_selene_plain, _SELENE_LICENCES),
        _official("selene, normed", "DEEPSEA", _is_selene, load_selene, _SELENE_LICENCES),
    ),
)
BELUGA = Family(
    name="beluga",
    objective="tracks",
    build=build_beluga,
    trunk=is_matrix_of("dense."),
    citation="Zhou et al., Nature Genetics 50 (2018) 1171",
    title="Beluga",
    official=(_official("ExPecto", "BELUGA", _is_beluga, load_beluga, _BELUGA_LICENCES),),
)
DANQ = Family(
    name="danq",
    objective="tracks",
    build=build_danq,
    trunk=is_matrix_of("dense."),
    citation="Quang and Xie, Nucleic Acids Research 44 (2016) e107",
    title="DanQ",
    official=(_official("selene", "DANQ", _is_danq, load_danq, _SELENE_LICENCES),),
)
