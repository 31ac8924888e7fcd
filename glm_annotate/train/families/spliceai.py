"""SpliceAI and its retrained forms: splice sites from 10,000 bases of flanks.

After Jaganathan et al. (2019), Strauch et al. (2022: CI-SpliceAI) and Chao et al. (2025:
OpenSpliceAI), written from the published description: one stack of dilated convolutions in all
three; the last has leaky units, another eps, and also comes with fewer units and flanks. Bases
that the flanks cannot reach are cut off, so that zeros beyond the window never count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from glm_annotate.errors import InputError
from glm_annotate.train.families.family import Family, Official, Source, Values
from glm_annotate.train.families.predictor import Predicted, Predictor
from glm_annotate.train.families.spliceai_blocks import (
    DILATIONS,
    GROUP,
    SpliceAIConfig,
    Trunk,
)
from glm_annotate.train.keras_layers import (
    Layers,
    by_layer,
    convolution,
    norm,
    numbered,
    placed,
)
from glm_annotate.train.official import Keys, build_config, fill

# The two classes that are given of the network's three: 0 is "no site".
_SITES = ("acceptor", "donor")
_CI = (
    "Strauch Y. et al. (2022) CI-SpliceAI: improving machine learning predictions of disease "
    "causing splicing variants using curated alternative splice sites. PLoS ONE 17, e0269159. "
    "doi:10.1371/journal.pone.0269159"
)
_OPEN = (
    "Chao K.-H. et al. (2025) OpenSpliceAI provides an efficient modular implementation of "
    "SpliceAI enabling easy retraining across nonhuman species. eLife 14, RP107454. "
    "doi:10.7554/eLife.107454"
)
# Bases on each side of a variant in which SpliceAI looks for changes.
DISTANCE = 50
SCORES = tuple(f"{kind}_{what}" for kind in ("DS", "DP") for what in ("AG", "AL", "DG", "DL"))
ENCODER = {
    "kind": "kmer",
    "vocab": {"order": "ACGT", "first_id": 0, "single_ids": {"N": 4}},
}


class SpliceAI(Predictor):
    """Probabilities of an acceptor and of a donor at each base, of the strand that it is given."""

    outputs: Mapping[str, tuple[str, ...]] = {"tracks": ("batch", "bin", "track")}
    chosen: Tensor

    def __init__(self, config: SpliceAIConfig) -> None:
        super().__init__()
        self.trunk = Trunk(config)
        self.final_conv = nn.Conv1d(config.channels, 1 + len(_SITES), 1)
        self.shortest = 2 * self.trunk.crop + 1
        self.register_buffer("chosen", torch.arange(1, 1 + len(_SITES)), persistent=False)

    def forward(self, bases: Tensor, channels: Tensor | None = None) -> tuple[Tensor, ...]:
        """Give tracks (B, L - 2 crop, T) for bases (B, L, 4)."""
        classes = torch.softmax(self.final_conv(self.trunk(bases)), dim=1)
        return (classes[:, self.chosen].transpose(1, 2),)

    def select(self, tracks: Sequence[int]) -> None:
        """Keep these tracks; the weights of all three classes make each probability, and stay."""
        self.chosen = self.chosen[list(tracks)]


def build(values: Values) -> SpliceAI:
    """Make a network from the config's `[model]` table.

    Raises:
        InputError: A key or value is not allowed.
    """
    return SpliceAI(build_config(SpliceAIConfig, values))


# Official checkpoints


def replicates(source: Source) -> list[Source]:
    """Take apart what holds several networks: keys that begin with `0/`, `1/`, ..."""
    numbers = {match[1] for key in source.weights if (match := re.match(r"(\d+)/", key))}
    if not numbers:
        return [source]
    return [_replicate(source, number) for number in sorted(numbers, key=int)]


def _replicate(source: Source, number: str) -> Source:
    prefix = f"{number}/"
    weights = {
        key.removeprefix(prefix): value
        for key, value in source.weights.items()
        if key.startswith(prefix)
    }
    name = source.name if number == "0" else f"{source.name} (network {number})"
    return Source(name, weights, source.config, source.folder, source.repository, source.files)


def window_of(source: Source, crop: int, context: int | None) -> dict[str, int]:
    """Choose the window: flanks, and an odd number of bases of which the variant is the middle.

    Raises:
        InputError: The user asked for one that has no such middle.
    """
    size = context or 2 * (crop + DISTANCE) + 1
    if size <= 2 * crop or size % 2 == 0:
        raise InputError(
            f"{source.name}: a window of {size} bases, wanted an odd number above {2 * crop}: the "
            f"flanks of {crop} bases, and those around the variant; give --context "
            f"{2 * (crop + DISTANCE) + 1}"
        )
    return {"context": size, "anchor": size // 2}


def _units(source: Source, widths: Sequence[int], **changes: Any) -> SpliceAIConfig:
    """Complete what the weights tell: dilations follow from a unit's place.

    Raises:
        InputError: No published network has as many units.
    """
    if len(widths) % GROUP or not 1 <= len(widths) // GROUP <= len(DILATIONS):
        raise InputError(
            f"{source.name}: {len(widths)} units, wanted 4, 8, 12 or 16; fetch the checkpoint again"
        )
    dilations = tuple(DILATIONS[number // GROUP] for number in range(len(widths)))
    return build_config(SpliceAIConfig, {"widths": widths, "dilations": dilations, **changes})


def _finish(
    networks: list[SpliceAI], source: Source, context: int | None, citation: str = ""
) -> Predicted:
    crops = {network.trunk.crop for network in networks}
    if len(crops) != 1:
        raise InputError(
            f"{source.name}: networks with flanks of {', '.join(map(str, sorted(crops)))} bases; "
            "give those of one size"
        )
    (crop,) = crops
    card = {
        "encoder": ENCODER,
        **window_of(source, crop, context),
        "bin_size": 1,
        "crop": crop,
        "frame": "gene",
        "strand": "gene",
        "scores": SCORES,
        **({"provenance": {"citation": citation}} if citation else {}),
    }
    tracks = tuple(
        {
            "identifier": role,
            "description": f"probability of a splice {role}",
            "assay": "splice",
            "units": "probability",
            "role": role,
            "transform": "none",
        }
        for role in _SITES
    )
    return Predicted(tuple(networks), card, tracks)


def _load_open(source: Source, context: int | None) -> Predicted:
    networks = []
    for part in replicates(source):
        pattern = re.compile(r"residual_units\.(\d+)\.conv1\.weight")
        found = {int(m[1]): v for k, v in part.weights.items() if (m := pattern.fullmatch(k))}
        widths = [int(found[number].shape[-1]) for number in sorted(found)]
        stem = part.weights["initial_conv.weight"]
        config = _units(part, widths, channels=len(stem), slope=0.1, eps=1e-5)
        network = SpliceAI(config)
        fill(network, part, Keys(rename=((r"(?!final_conv)", "trunk."),)))
        networks.append(network)
    return _finish(networks, source, context, _OPEN)


def _is_open(source: Source) -> bool:
    wanted = {"initial_conv.weight", "initial_skip.conv.weight", "residual_units.0.conv1.weight"}
    return all(wanted <= part.weights.keys() for part in replicates(source))


def _walk(units: int) -> Iterator[tuple[str, str]]:
    """Name the places of convolutions and norms in the order in which Keras numbered them."""
    yield "convolution", "trunk.initial_conv"
    yield "convolution", "trunk.initial_skip.conv"
    place = 0
    for number in range(1, units + 1):
        for half in (1, 2):
            yield "norm", f"trunk.residual_units.{place}.batchnorm{half}"
            yield "convolution", f"trunk.residual_units.{place}.conv{half}"
        place += 1
        if number % GROUP == 0:
            yield "convolution", f"trunk.residual_units.{place}.conv"
            place += 1
    yield "convolution", "final_conv"


def _from_layers(source: Source, layers: Layers) -> SpliceAI:
    """Make one network from layers that Keras numbered, which says where each belongs."""
    convolutions, norms = numbered(layers, "conv1d"), numbered(layers, "batch_normalization")
    units = len(norms) // 2
    weights: dict[str, Tensor] = {}
    turn = {"convolution": iter(convolutions), "norm": iter(norms)}
    for kind, place in _walk(units):
        name = next(turn[kind], "")
        if not name:
            raise InputError(f"{source.name}: {place} is missing; fetch the file again")
        make = convolution if kind == "convolution" else norm
        weights |= placed(place, make(layers[name]))
    left = [*turn["convolution"], *turn["norm"], *(layers.keys() - {*convolutions, *norms})]
    if left:
        raise InputError(f"{source.name}: layers that SpliceAI does not have: {', '.join(left)}")
    first = [x for x in weights if re.search(r"residual_units\.\d+\.conv1\.weight", x)]
    widths = [int(weights[name].shape[-1]) for name in first]
    config = _units(source, widths, channels=len(weights["trunk.initial_conv.weight"]))
    network = SpliceAI(config)
    named = Source(source.name, weights, source.config, source.folder, files=source.files)
    fill(network, named, Keys())
    return network


def _load_keras(source: Source, context: int | None) -> Predicted:
    parts = replicates(source)
    networks = [_from_layers(part, by_layer(part.weights)) for part in parts]
    return _finish(networks, source, context)


def _is_keras(source: Source) -> bool:
    return all(_has_layers(by_layer(part.weights)) for part in replicates(source))


def _has_layers(layers: Layers) -> bool:
    names, norms = numbered(layers, "conv1d"), numbered(layers, "batch_normalization")
    wanted = sum(kind == "convolution" for kind, _ in _walk(len(norms) // 2))
    if not norms or len(names) != wanted:
        return False
    stem, last = (layers[name].get("kernel", torch.empty(0)) for name in (names[0], names[-1]))
    return (*stem.shape[:2], *last.shape[::2]) == (1, 4, 1, 1 + len(_SITES))


# A frozen graph names the constant behind each weight, and numbers the replicates.
_FROZEN = {
    "kernel": r"conv1d(?:_(\d+))?/ExpandDims_1/ReadVariableOp",
    "bias": r"BiasAdd(?:_(\d+))?/ReadVariableOp",
    "gamma": r"batchnorm(?:_(\d+))?/mul/ReadVariableOp",
    "moving_variance": r"batchnorm(?:_(\d+))?/ReadVariableOp",
    "moving_mean": r"batchnorm(?:_(\d+))?/ReadVariableOp_1",
    "beta": r"batchnorm(?:_(\d+))?/ReadVariableOp_2",
}


def _frozen(source: Source) -> dict[int, dict[str, dict[str, Tensor]]]:
    """Sort a frozen graph's constants by replicate, layer and kind; small change is left out."""
    sorted_out: dict[int, dict[str, dict[str, Tensor]]] = {}
    for name, value in source.weights.items():
        for kind, pattern in _FROZEN.items():
            layer = r"(?:.*/)?((?:conv1d|batch_normalization)_\d+)"
            match = re.fullmatch(rf"{layer}/{pattern}/resource", name)
            if match:
                network = sorted_out.setdefault(int(match[2] or 0), {})
                network.setdefault(match[1], {})[kind] = value
    return sorted_out


def _load_frozen(source: Source, context: int | None) -> Predicted:
    parts = _frozen(source)
    networks = [_from_layers(source, parts[number]) for number in sorted(parts)]
    return _finish(networks, source, context, _CI)


def _is_frozen(source: Source) -> bool:
    # The names tell; sorting ten thousand constants for every file that is looked at would not do.
    if not any(name.endswith("/ReadVariableOp/resource") for name in source.weights):
        return False
    parts = _frozen(source)
    return bool(parts) and all(_has_layers(layers) for layers in parts.values())


def is_trunk(name: str, weight: Tensor) -> bool:
    """Tell the parameters that Muon may update: the taps of the stack."""
    return name.startswith("trunk.residual_units.") and weight.ndim == 3


_TOKENS = "one-hot bases"
FAMILY = Family(
    name="spliceai",
    objective="tracks",
    build=build,
    trunk=is_trunk,
    citation="Jaganathan K. et al. (2019) Predicting splicing from primary sequence with deep "
    "learning. Cell 176, 535-548. doi:10.1016/j.cell.2018.12.015",
    title="SpliceAI",
    official=(
        Official(
            variant="SpliceAI",
            recognise=_is_keras,
            load=_load_keras,
            tag="SPLICEAI",
            tokenizer=_TOKENS,
            code_licence="PolyForm-Strict-1.0.0",
            weights_licence="CC-BY-NC-4.0",
        ),
        Official(
            variant="CI-SpliceAI",
            recognise=_is_frozen,
            load=_load_frozen,
            tag="CISPLICEAI",
            tokenizer=_TOKENS,
            code_licence="CC-BY-4.0",
            weights_licence="CC-BY-4.0",
        ),
        Official(
            variant="OpenSpliceAI",
            recognise=_is_open,
            load=_load_open,
            tag="OPENSPLICEAI",
            tokenizer=_TOKENS,
            code_licence="GPL-3.0",
            weights_licence="GPL-3.0",
        ),
    ),
)
