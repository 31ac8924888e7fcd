"""The card of a bundle to be: what its author wrote, joined with what the checkpoint knows."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from glm_annotate.card import ModelCard, Provenance
from glm_annotate.errors import InputError, UsageError
from glm_annotate.scores import parse_scores
from glm_annotate.train.families.family import Network
from glm_annotate.train.families.predictor import Predictor
from glm_annotate.train.graph import Precision
from glm_annotate.train.subjects import FACTS, Subject

# Longest window of any model there is, Evo 2's.
_LONGEST = 1_048_576
# Keys of the card that no language model has.
_ELSEWHERE = frozenset({"bin_size", "contacts", "crop", "frame", "shifts"})

_Model = TypeVar("_Model", bound=BaseModel)
CardSource = Mapping[str, Any] | str | Path


def read_card(source: CardSource | None) -> tuple[str, dict[str, Any]]:
    """Read a card: how messages call it, and its keys.

    Raises:
        InputError: The file cannot be read, or is not TOML.
    """
    if source is None:
        return "card", {}
    if isinstance(source, Mapping):
        return "card", dict(source)
    try:
        return str(source), tomllib.loads(Path(source).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: cannot read the card: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source}: not TOML: {error}") from error


def context_of(name: str, given: dict[str, Any], asked: int | None) -> int | None:
    """Take the window out of an author's card: the network is made for it.

    Args:
        name: How messages call the card.
        given: Its keys; `context` is removed.
        asked: What the user asked for, which goes before.

    Raises:
        InputError: It is no number of bases.
    """
    found = given.pop("context", None)
    for text, value in ((f"{name}: context:", found), ("--context:", asked)):
        if value is not None and (type(value) is not int or not 1 <= value <= _LONGEST):
            raise InputError(f"{text} found {value!r}, wanted a number of bases up to {_LONGEST}")
    return asked or found


def card_values(
    name: str, given: dict[str, Any], subject: Subject, *, precision: Precision, attention: bool
) -> dict[str, Any]:
    """Join the author's card with the checkpoint's facts, and check that a card comes out.

    Raises:
        InputError: A key is unknown, contradicts the checkpoint, or its value is not allowed.
    """
    network = subject.network
    elsewhere = frozenset() if isinstance(network, Predictor) else _ELSEWHERE
    allowed = sorted(set(ModelCard.model_fields) - set(FACTS) - elsewhere)
    for key in given:
        if key in FACTS:
            raise InputError(f"{name}: {key!r} comes from the checkpoint; remove it from the card")
        if key not in allowed:
            raise InputError(f"{name}: unknown key {key!r}; known here: {', '.join(allowed)}")
    rule = given.get("embedding", {})
    if not isinstance(rule, Mapping):
        raise InputError(f"{name}: embedding: found {rule!r}, wanted a table of pool and k")
    for key in sorted(rule.keys() & {"dim", "halves"}):
        raise InputError(f"{name}: embedding.{key} comes from the checkpoint; remove it")
    provenance = _parse(name, Provenance, given.get("provenance", {}), "provenance.")
    suggested = subject.card.get("embedding", {})
    values = {
        **subject.card,
        **given,
        **{key: subject.card[key] for key in FACTS if key in subject.card},
        "precision": precision,
        "provenance": subject.provenance(provenance),
    }
    if isinstance(network, Network):
        values["embedding"] = {"dim": network.dim, **suggested, **rule}
    if attention:
        axes = ("batch", "layer", "head", "query", "key")
        values["outputs"] = {**values["outputs"], "attention": {"name": "attention", "axes": axes}}
    _check_card(name, _parse(name, ModelCard, values), subject)
    return values


def _check_card(name: str, card: ModelCard, subject: Subject) -> None:
    """Refuse what an author's card may say and the network cannot do.

    Raises:
        InputError: Empty names, scores that the model does not give, a strand or a number of rows
            that it is not made for.
    """
    for key in ("name", "version"):
        if not getattr(card, key).strip():
            raise InputError(f"{name}: {key} is empty; give one")
    try:
        parse_scores(card.scores, card)
    except UsageError as error:
        raise InputError(f"{name}: scores: {str(error).removeprefix('-s ')}") from error
    made_for = subject.card.get("strand", "both")
    if card.strand not in ("both", "forward", made_for):
        raise InputError(
            f"{name}: strand is {card.strand!r}, wanted both or forward: the network reads one "
            "strand at a time"
        )
    if isinstance(subject.network, Predictor):
        return
    limit, most = subject.network.max_rows, card.window.max_tokens
    if limit is not None and most is not None and most > limit:
        raise InputError(f"{name}: window.max_tokens is {most}, wanted at most {limit} rows")


def _parse(name: str, model: type[_Model], values: object, prefix: str = "") -> _Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = (prefix + ".".join(map(str, first["loc"]))).strip(".")
        raise InputError(f"{name}: {where or 'card'}: {first['msg']}") from error
