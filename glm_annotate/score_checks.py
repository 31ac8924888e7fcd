"""What a row of the table of scores promises, tried on evidence that is drawn at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from glm_annotate.answers import Floats
from glm_annotate.errors import BundleError

if TYPE_CHECKING:
    from glm_annotate.scores import Score

_LANGUAGE = ("masked", "causal")
_ANY = (*_LANGUAGE, "tracks", "contacts")
_CLOSE = 1e-9  # of max(1, |number|)


@dataclass(frozen=True, slots=True)
class Known:
    """A kind of evidence.

    Attributes:
        objectives: Of the models that have it.
        shape: Of one allele's.
        draws: `any` numbers, `chances` in shares of one, or `chance` from 0 to 1.
        swap: What it is where REF and ALT are swapped; None: nothing is known of that.
    """

    objectives: tuple[str, ...]
    shape: tuple[int, ...] = ()
    draws: Literal["any", "chances", "chance"] = "any"
    swap: Callable[[Floats], Floats] | None = None


def _negative(evidence: Floats) -> Floats:
    return -evidence


def _turned(evidence: Floats) -> Floats:
    return evidence[:, ::-1]


# As in `evidence.EVIDENCE`.
KNOWN: dict[str, Known] = {
    "masked_ratio": Known(("masked",), swap=_negative),
    "unmasked_ratio": Known(("masked",)),
    "pseudo_ratio": Known(("masked",), swap=_negative),
    "likelihood_ratio": Known(("causal",), swap=_negative),
    "distribution": Known(_LANGUAGE, (4,), "chances"),
    "reference": Known(_LANGUAGE, (), "chance"),
    "pooled": Known(_ANY, (2, 6), swap=_turned),
}


def check_row(score: Score, seed: int) -> None:
    """See `testing.check_score`."""
    _promise(bool(score.evidence), "names no evidence")
    _promise(score.kind in ("signed", "distance", "other"), f"kind {score.kind!r} is none")
    _promise(score.frame == "variant" and not score.role, "is of a frame or role of its own")
    for objective, name in score.evidence.items():
        _promise(
            name in KNOWN and objective in KNOWN[name].objectives,
            f"a {objective} model has no evidence {name!r}; known: {_listed(objective)}",
        )
        text = score.formula.get(objective, "")
        _promise(bool(text) and "\n" not in text, f"formula for {objective} models is not one line")
        is_pooled = name == "pooled"
        _promise(
            score.output == ("embedding" if is_pooled else "logits")
            and score.keys == (("pool", "k") if is_pooled else ()),
            f"evidence {name} is of output {'embedding' if is_pooled else 'logits'} with the keys "
            f"{'pool, k' if is_pooled else 'none'}",
        )
        _check_reduce(score, KNOWN[name], name, np.random.default_rng(seed))


def _listed(objective: str) -> str:
    return ", ".join(name for name, known in KNOWN.items() if objective in known.objectives)


def _promise(kept: bool, fault: str) -> None:
    if not kept:
        raise BundleError(f"score: {fault}")


def _check_reduce(score: Score, known: Known, name: str, draw: np.random.Generator) -> None:
    evidence = _drawn(known, draw)
    found = _numbers(score, evidence, name)
    wrong = found[~np.isfinite(found)]
    _promise(not wrong.size, f"reduce of {name}: gives {wrong[:1].tolist()} for plain numbers")
    alone = np.concatenate([_numbers(score, evidence[i : i + 1], name) for i in range(len(found))])
    _promise(_same(alone, found), f"reduce of {name}: other alleles change an allele's number")
    if score.kind == "other":
        return
    _promise(known.swap is not None, f"kind is {score.kind}, but {name} cannot be swapped")
    if known.swap is not None:
        swapped = _numbers(score, known.swap(evidence), name)
        wanted = -found if score.kind == "signed" else found
        _promise(_same(swapped, wanted), f"kind is {score.kind}, but swapping REF and ALT differs")
        same = (evidence + known.swap(evidence)) / 2
        _promise(
            _same(_numbers(score, same, name), np.zeros(len(found))),
            f"kind is {score.kind}, but REF against itself is not 0",
        )


def _drawn(known: Known, draw: np.random.Generator) -> Floats:
    if known.draws == "chances":
        return np.asarray(draw.dirichlet(np.ones(known.shape[0]), 9))
    if known.draws == "chance":
        return np.asarray(draw.uniform(0.01, 1.0, (9, *known.shape)))
    return np.asarray(draw.normal(size=(9, *known.shape)))


def _numbers(score: Score, evidence: Floats, name: str) -> Floats:
    given = evidence.copy()
    found = np.asarray(score.reduce(given))
    fine = found.shape == evidence.shape[:1] and found.dtype.kind == "f"
    _promise(
        fine,
        f"reduce of {name}: gives {found.dtype} of shape {found.shape} for evidence of shape "
        f"{evidence.shape}; wanted are floats, one an allele",
    )
    _promise(bool(np.array_equal(given, evidence)), f"reduce of {name}: changes its argument")
    return np.asarray(found, dtype=np.float64)


def _same(found: Floats, wanted: Floats) -> bool:
    return bool((np.abs(found - wanted) <= _CLOSE * np.maximum(1.0, np.abs(wanted))).all())
