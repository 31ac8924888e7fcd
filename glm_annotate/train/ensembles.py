"""Weights in several files as one model: replicates, whose outputs are averaged.

Some systems keep an ensemble in files that are read together (SpliceAI, Pangolin, MMSplice); of all
others each file is a checkpoint of its own, and those of one kind are its replicates. Training
leaves files of several heads in one folder: those of the head that is wanted are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glm_annotate.bundle import sha256_of
from glm_annotate.errors import InputError, UsageError
from glm_annotate.train.families.family import Family, Official, Source
from glm_annotate.train.families.predictor import Predicted
from glm_annotate.train.head_choice import with_head

Identify = Callable[[Source], tuple[Family, Official]]
_USUAL = "human"


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is read of the weights that were found.

    Attributes:
        family: The system; `official`: which of its checkpoints.
        sources: One a replicate.
    """

    family: Family
    official: Official
    sources: tuple[Source, ...]


def choose(whole: Source, parts: Sequence[Source], identify: Identify, head: str | None) -> Chosen:
    """Tell what weights are, and which of several files are meant.

    Args:
        whole: All weights together, those of a file behind a prefix where there are several.
        parts: The files one by one.
        identify: Tells the system of a source, see `subjects.identify`.
        head: Which head, where there are several.

    Raises:
        InputError: They are of no known system, or files of several ones.
        UsageError: There is no such head.
    """
    try:
        family, official = identify(whole)
    except InputError:
        if len(parts) < 2:
            raise
        return _replicates(whole.name, parts, identify, head)
    return Chosen(family, official, (with_head(whole, official, head),))


def _replicates(name: str, parts: Sequence[Source], identify: Identify, head: str | None) -> Chosen:
    kinds = [identify(part) for part in parts]
    if len({(family.name, official.variant) for family, official in kinds}) > 1:
        listed = ", ".join(
            f"{Path(part.name).name} ({family.title}, {official.variant})"
            for part, (family, official) in zip(parts, kinds, strict=True)
        )
        raise InputError(f"{name}: files of different models: {listed}; give one of them")
    family, official = kinds[0]
    heads = [official.heads(part) for part in parts]
    kept = list(parts)
    if len(set(heads)) > 1:
        wanted = head or _USUAL
        kept = [part for part, names in zip(parts, heads, strict=True) if wanted in names]
        if not kept:
            known = ", ".join(dict.fromkeys(x for names in heads for x in names))
            raise UsageError(f"--head {wanted}: {name} has weights of the heads {known}")
    return Chosen(family, official, tuple(with_head(part, official, head) for part in kept))


def load(chosen: Chosen, context: int | None) -> Predicted:
    """Make the networks.

    Raises:
        InputError: The weights are not what they should be, or not replicates of one model.
    """
    loaded: list[Any] = [chosen.official.load(source, context) for source in chosen.sources]
    for source, one in zip(chosen.sources, loaded, strict=True):
        if not isinstance(one, Predicted):
            raise InputError(
                f"{source.name}: a language model; run: glm-annotate export {source.name} -o BUNDLE"
            )
        if _facts(one) != _facts(loaded[0]):
            raise InputError(
                f"{source.name}: another window, or other tracks, than {chosen.sources[0].name}; "
                "give files of one model"
            )
    first: Predicted = loaded[0]
    if len(loaded) == 1:
        return first
    networks = tuple(network for one in loaded for network in one.networks)
    return Predicted(networks, first.card, first.tracks, first.files)


def digests(files: Sequence[Path]) -> dict[str, str]:
    """Give the sha256 of files by name, behind its place where several have one name."""
    names = [file.name for file in files]
    return {
        name if names.count(name) == 1 else f"{place}/{name}": sha256_of(file)
        for place, (name, file) in enumerate(zip(names, files, strict=True))
    }


def _facts(one: Predicted) -> tuple[Mapping[str, Any], tuple[Mapping[str, str], ...]]:
    """Give what replicates have in common."""
    return {key: x for key, x in one.card.items() if key != "provenance"}, one.tracks
