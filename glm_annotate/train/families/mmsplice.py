"""MMSplice and MTSplice: how an exon and its ends are spliced, on average and by tissue.

After Cheng et al. (2019, 2021), written from the published description. MMSplice is five small
networks over parts of an exon and its introns; a change of their five numbers becomes one of the
logit of PSI (`splice_scores.delta_logit_psi`). MTSplice reads both ends with longer introns and
gives a number a tissue. Graphs have an input for each part, see `ExonPredictor`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from glm_annotate.errors import InputError
from glm_annotate.exon_frame import MODULES as MODULES
from glm_annotate.train.families.family import Family, Official, Source, Values
from glm_annotate.train.families.mmsplice_blocks import (
    ExonPredictor,
    MMSplice,
    MMSpliceConfig,
    MTSplice,
    MTSpliceConfig,
)
from glm_annotate.train.families.predictor import Predicted
from glm_annotate.train.families.spliceai import ENCODER, replicates
from glm_annotate.train.keras_layers import (
    Layers,
    by_layer,
    convolution,
    dense,
    norm,
    numbered,
    placed,
)
from glm_annotate.train.official import Keys, build_config, fill

# The 56 tissues of ASCOT that MTSplice was trained on, in the order of its outputs.
TISSUES = tuple(
    """Retina - Eye|RPE/Choroid/Sclera - Eye|Subcutaneous - Adipose|Visceral (Omentum) - Adipose
    |Adrenal Gland|Aorta - Artery|Coronary - Artery|Tibial - Artery|Bladder|Amygdala - Brain
    |Anterior cingulate - Brain|Caudate nucleus - Brain|Cerebellar Hemisphere - Brain
    |Cerebellum - Brain|Cortex - Brain|Frontal Cortex - Brain|Hippocampus - Brain
    |Hypothalamus - Brain|Nucleus accumbens - Brain|Putamen - Brain|Spinal cord (C1) - Brain
    |Substantia nigra - Brain|Mammary Tissue - Breast|EBV-xform lymphocytes - Cells
    |Leukemia (CML) - Cells|Xform. fibroblasts - Cells|Ectocervix - Cervix|Endocervix - Cervix
    |Sigmoid - Colon|Transverse - Colon|Gastroesoph. Junc. - Esophagus|Mucosa - Esophagus
    |Muscularis - Esophagus|Fallopian Tube|Atrial Appendage - Heart|Left Ventricle - Heart
    |Cortex - Kidney|Liver|Lung|Minor Salivary Gland|Skeletal - Muscle|Tibial - Nerve|Ovary
    |Pancreas|Pituitary|Prostate|Not Sun Exposed - Skin|Sun Exposed (Lower leg) - Skin
    |Ileum - Small Intestine|Spleen|Stomach|Testis|Thyroid|Uterus|Vagina|Whole Blood""".replace(
        "\n    ", ""
    ).split("|")
)

_Convert = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
# Layer of the file, what it is, and its place in our module, for each of the five files.
_Table = tuple[tuple[str, _Convert, str], ...]
_BASES: _Table = (("conv", convolution, "conv"),)
_ONE_NORM = "batch_normalization_1"
_TABLES: dict[str, tuple[_Table, ...]] = {
    "acceptor_intron": ((*_BASES, ("dense3", dense, "dense")),),
    "acceptor": (
        (
            ("convSpliceSite", convolution, "site"),
            (_ONE_NORM, norm, "norm1"),
            ("conv1by1", convolution, "mix"),
            ("batch_normalization_2", norm, "norm2"),
            ("denseSS", dense, "dense"),
        ),
    ),
    # Two are published: the first skips N, the second was trained on 3' ends and does not.
    "exon": (
        (*_BASES, (_ONE_NORM, norm, "norm"), ("dense3", dense, "dense")),
        (*_BASES, (_ONE_NORM, norm, "norm"), ("dense5", dense, "dense")),
    ),
    "donor": (
        (
            ("dense1", dense, "dense1"),
            (_ONE_NORM, norm, "norm1"),
            ("dense2", dense, "dense2"),
            ("batch_normalization_2", norm, "norm2"),
            ("dense_1", dense, "dense3"),
        ),
    ),
    "donor_intron": ((*_BASES, ("dense5", dense, "dense")),),
}


def build(values: Values) -> ExonPredictor:
    """Make a network from the config's `[model]` table; `tissues` makes it MTSplice.

    Raises:
        InputError: A key or value is not allowed.
    """
    if "tissues" in values:
        return MTSplice(build_config(MTSpliceConfig, values))
    return MMSplice(build_config(MMSpliceConfig, values))


# Official checkpoints


def _parts_of(source: Source) -> dict[str, Layers]:
    """Sort the weights of five files by module: keys begin with the module's name and `/`."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in source.weights.items():
        module, _, rest = key.partition("/")
        found.setdefault(module, {})[rest] = value
    return {module: by_layer(weights) for module, weights in found.items()}


def _match(module: str, layers: Layers) -> int | None:
    """Say which of a module's published forms these layers are."""
    for number, table in enumerate(_TABLES[module]):
        if {name for name, _, _ in table} == set(layers):
            return number
    return None


def _is_mmsplice(source: Source) -> bool:
    parts = _parts_of(source)
    return set(parts) == set(MODULES) and all(
        _match(module, layers) is not None for module, layers in parts.items()
    )


def _load_mmsplice(source: Source, context: int | None) -> Predicted:
    parts = _parts_of(source)
    weights: dict[str, Tensor] = {}
    for module, layers in parts.items():
        form = _match(module, layers)
        if form is None:
            raise InputError(f"{source.name}: {module}: not its layers: {', '.join(layers)}")
        for name, convert, place in _TABLES[module][form]:
            weights |= placed(f"{module}.{place}", convert(layers[name]))
    sizes = {
        "intron": len(weights["donor_intron.conv.weight"]),
        "acceptor": len(weights["acceptor.site.weight"]),
        "exon": len(weights["exon.conv.weight"]),
        "donor": (len(weights["donor.dense1.weight"]), len(weights["donor.dense2.weight"])),
        "masked": _match("exon", parts["exon"]) == 0,
    }
    network = MMSplice(build_config(MMSpliceConfig, sizes))
    fill(network, Source(source.name, weights, files=source.files), Keys())
    rows = tuple(
        {
            "identifier": module,
            "description": f"score of {module.replace('_', ' ')}",
            "assay": "splice",
            "units": "logit" if module in ("acceptor", "donor") else "score",
            "role": "profile",
            "transform": "none",
        }
        for module in MODULES
    )
    return Predicted((network,), _card(source, network, context), rows)


def _card(source: Source, network: ExonPredictor, context: int | None) -> dict[str, Any]:
    """Say what is read of an exon; `context` counts the bases of both introns.

    Raises:
        InputError: The user asked for introns of another length.
    """
    size = 2 * network.overhang
    if context is not None and context != size:
        raise InputError(
            f"{source.name}: trained on {network.overhang} bases of each intron; leave --context "
            f"away or give {size}"
        )
    inputs = {
        name: {"name": name, "axes": ("batch", "length"), "dtype": "uint8"}
        for name in network.parts
    }
    return {
        "encoder": ENCODER,
        "context": size,
        "anchor": network.overhang,
        "inputs": inputs,
        "bin_size": 1,
        "frame": "exon",
        "strand": "gene",
        "scores": ("DLPSI",),
    }


_ARMS = ("acceptor", "donor")
_SHARED = {"bn5": norm, "dense": dense, "bn6": norm, "dense2": dense}
_SPLINES = ("splinel", "spliner")


def _is_mtsplice(source: Source) -> bool:
    return all(_has_arms(by_layer(part.weights)) for part in replicates(source))


def _has_arms(layers: Layers) -> bool:
    convolutions = numbered(layers, "conv1d")
    norms = numbered(layers, "batch_normalization")
    named = {*_SHARED, *_SPLINES}
    return (
        named <= layers.keys()
        and len(convolutions) % 2 == 0
        and len(norms) == len(convolutions) - 2
        and len(layers) == len(named) + len(convolutions) + len(norms)
    )


def _mtsplice(source: Source) -> MTSplice:
    layers = by_layer(source.weights)
    weights: dict[str, Tensor] = {}
    convolutions = numbered(layers, "conv1d")
    norms = numbered(layers, "batch_normalization")
    depth = len(norms) // 2
    # The first half of each kind belongs to the acceptor's arm.
    for side, (arm, spline) in enumerate(zip(_ARMS, _SPLINES, strict=True)):
        own = convolutions[side * (depth + 1) : (side + 1) * (depth + 1)]
        for place, name in zip(("first", *(f"convs.{x}" for x in range(depth))), own, strict=True):
            weights |= placed(f"{arm}.{place}", convolution(layers[name]))
        for number, name in enumerate(norms[side * depth : (side + 1) * depth]):
            weights |= placed(f"{arm}.norms.{number}", norm(layers[name]))
        weights |= placed(f"{arm}.spline", layers[spline])
    for name, convert in _SHARED.items():
        weights |= placed(name, convert(layers[name]))
    first = weights["acceptor.first.weight"]
    config = build_config(
        MTSpliceConfig,
        {
            "tissues": len(weights["dense2.weight"]),
            "channels": len(first),
            "width": first.shape[-1],
            "depth": depth,
            "hidden": len(weights["dense.weight"]),
            "bases": len(weights["acceptor.spline.kernel"]),
        },
    )
    network = MTSplice(config)
    fill(network, Source(source.name, weights, files=source.files), Keys())
    return network


def _load_mtsplice(source: Source, context: int | None) -> Predicted:
    networks = tuple(_mtsplice(part) for part in replicates(source))
    counts = {int(network.dense2.out_features) for network in networks}
    if len(counts) != 1:
        raise InputError(f"{source.name}: networks of {counts} tissues; give one set of files")
    (count,) = counts
    names = TISSUES if count == len(TISSUES) else tuple(f"tissue {x}" for x in range(count))
    rows = tuple(
        {
            "identifier": f"tissue{number}",
            "description": f"deviation of the logit of PSI from the mean, {name}",
            "assay": "splice",
            "biosample": name,
            "units": "logit",
            "role": "profile",
            "transform": "none",
        }
        for number, name in enumerate(names)
    )
    return Predicted(networks, _card(source, networks[0], context), rows)


def is_trunk(name: str, weight: Tensor) -> bool:
    """Tell the parameters that Muon may update: matrices of dense layers."""
    return "dense" in name and weight.ndim == 2 and min(weight.shape) > 1


FAMILY = Family(
    name="mmsplice",
    objective="tracks",
    build=build,
    trunk=is_trunk,
    citation="Cheng J. et al. (2019) MMSplice: modular modeling improves the predictions of "
    "genetic variant effects on splicing. Genome Biology 20, 48. doi:10.1186/s13059-019-1653-z; "
    "Cheng J. et al. (2021) MTSplice predicts effects of genetic variants on tissue-specific "
    "splicing. Genome Biology 22, 94. doi:10.1186/s13059-021-02273-7",
    title="MMSplice",
    official=(
        Official(
            variant="MMSplice",
            recognise=_is_mmsplice,
            load=_load_mmsplice,
            tag="MMSPLICE",
            tokenizer="one-hot bases",
            code_licence="MIT",
            weights_licence="MIT",
        ),
        Official(
            variant="MTSplice",
            recognise=_is_mtsplice,
            load=_load_mtsplice,
            tag="MTSPLICE",
            tokenizer="one-hot bases",
            code_licence="MIT",
            weights_licence="MIT",
        ),
    ),
)
