"""Scores and encoders of other packages, found by their entry points.

A package declares a `scores.Score` in the group `glm_annotate.scores`, under the name that follows
-s, or a maker of encoders in `glm_annotate.encoders`, under a kind `PACKAGE.NAME` as it stands in a
card; `testing.check_score` and `testing.check_encoder` say whether they keep what scoring relies
on. Names are looked up, and packages imported, when something of theirs is asked for and not
before: what is merely installed changes no run.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from glm_annotate.errors import BundleError, InputError, UsageError

if TYPE_CHECKING:
    from glm_annotate.answers import Floats
    from glm_annotate.encoding import Encoder
    from glm_annotate.scores import Score
    from glm_annotate.vocab import EncoderSpec

SCORE_GROUP, ENCODER_GROUP = "glm_annotate.scores", "glm_annotate.encoders"
_SCORE_NAME = re.compile(r"[A-Z][A-Z0-9_]*")


def plugin_names(group: str) -> tuple[str, ...]:
    """List what the installed packages offer, without importing them."""
    return tuple(sorted({point.name for point in entry_points(group=group)}))


@cache  # by process: specs of scores ask again and again
def find_score(name: str) -> Score | None:
    """Find a score of another package; None where none offers it.

    Raises:
        InputError: Two packages offer it, or it cannot be imported.
        UsageError: It is no score, or does not keep the promises of one.
    """
    point = _find(SCORE_GROUP, name)
    return None if point is None else _load_score(point)


def _load_score(point: EntryPoint) -> Score:
    from glm_annotate.scores import Score
    from glm_annotate.testing import check_score

    found, who = _load(point), _package(point)
    if not isinstance(found, Score) or not _SCORE_NAME.fullmatch(point.name):
        raise UsageError(
            f"{_where(point)}: not a glm_annotate.scores.Score under a name of capitals; upgrade "
            f"the package, or run: pip uninstall {_name(point)}"
        )
    try:
        check_score(found)
    except BundleError as error:
        raise UsageError(
            f"{_where(point)}: {error}; upgrade the package, or run: pip uninstall {_name(point)}"
        ) from error
    return replace(
        found,
        reduce=partial(_reduced, found.reduce, _where(point)),
        formula={key: f"{text} ({who})" for key, text in found.formula.items()},
    )


def _reduced(reduce: Callable[[Floats], Floats], where: str, evidence: Floats) -> Floats:
    """Reduce evidence, and look at what came out before it spoils the numbers of others."""
    found = np.asarray(reduce(evidence), dtype=np.float64)
    if found.shape != evidence.shape[:1]:
        raise UsageError(
            f"{where}: gave an array of shape {found.shape} for {evidence.shape[0]} alleles; "
            "upgrade the package"
        )
    return found


def make_plugin_encoder(spec: EncoderSpec, tokenizer: Path | None) -> Encoder:
    """Make an encoder of another package.

    Args:
        spec: The card's; its kind is `PACKAGE.NAME`.
        tokenizer: The bundle's tokenizer.json, if it has one.

    Raises:
        InputError: Two packages offer it, or it cannot be imported.
        BundleError: The package is not there, or what it offers is no encoder.
    """
    point = _find(ENCODER_GROUP, spec.kind)
    if point is None:
        package = spec.kind.partition(".")[0]
        raise BundleError(
            f"the card's encoder {spec.kind} is of the package {package}, which is not installed "
            f"here or offers no such encoder; run: pip install -U {package}"
        )
    make = _load(point)
    found = make(spec, tokenizer) if callable(make) else make
    if any(not hasattr(found, name) for name in ("spec", "encode", "base_ids")):
        raise BundleError(
            f"{_where(point)}: makes {type(found).__name__}, which is no encoder (spec, encode, "
            "base_ids); upgrade the package"
        )
    encoder: Encoder = found
    return encoder


def _find(group: str, name: str) -> EntryPoint | None:
    found = tuple(dict.fromkeys(entry_points(group=group, name=name)))
    if len(found) > 1:
        rivals = " and ".join(map(_package, found))
        raise InputError(f"entry point {group} {name}: offered by {rivals}; uninstall one of them")
    return found[0] if found else None


def _load(point: EntryPoint) -> Any:
    try:
        return point.load()
    except (ImportError, AttributeError) as fault:
        raise InputError(
            f"{_where(point)}: cannot be imported: {fault}; upgrade the package, or run: pip "
            f"uninstall {_name(point)}"
        ) from fault


def _name(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "unknown"


def _package(point: EntryPoint) -> str:
    """Name the package of an entry point, and its version."""
    return f"{_name(point)} {point.dist.version}" if point.dist is not None else "unknown"


def _where(point: EntryPoint) -> str:
    return f"package {_package(point)}, entry point {point.group} {point.name}"
