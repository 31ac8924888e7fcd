"""The scores: what each one is, which evidence it reads, and the pure function that makes it.

*Evidence* is what the forward passes of one allele say, already averaged over strands, and
`evidence.py` asks for it. A row of `SCORES` joins a kind of evidence to a function. The function
takes an array whose first axis is alleles, and gives one float64 number an allele. `kind` says what
swapping REF and ALT does: *signed* flips the sign, *distance* changes nothing, *other* promises
neither; REF against itself is 0 in the first two. Logarithms are natural.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from glm_annotate.answers import Floats, OutputRole
from glm_annotate.card import Frame, ModelCard, Objective
from glm_annotate.contact_scores import CONTACT_SCORES, ContactScore
from glm_annotate.errors import UsageError
from glm_annotate.exon_frame import FORMULA
from glm_annotate.plugins import SCORE_GROUP, find_score, plugin_names
from glm_annotate.reductions import cosine_distance as cosine_distance
from glm_annotate.reductions import dot_product as dot_product
from glm_annotate.reductions import entropy as entropy
from glm_annotate.reductions import euclidean_distance as euclidean_distance
from glm_annotate.reductions import log_likelihood as log_likelihood
from glm_annotate.reductions import plain as plain
from glm_annotate.reductions import sum_of_differences as sum_of_differences
from glm_annotate.splice_options import SPLICE_SCORES, SpliceScore, splice_options
from glm_annotate.track_scores import TRACK_SCORES, TrackScore
from glm_annotate.track_windows import INSULATION_RADIUS

Kind = Literal["signed", "distance", "other"]


@dataclass(frozen=True, slots=True)
class Score:
    """A row of the table.

    Attributes:
        kind: What swapping the alleles does (see the module).
        evidence: Name in `evidence.EVIDENCE` for each objective that the score is defined for.
        reduce: From evidence (n, ...) to numbers (n,).
        formula: For the header of a VCF, by objective.
        output: Output of the graph that the score reads.
        keys: Options that may follow the name.
        frame: Of the models that give it.
        whole: Whether its numbers are whole ones.
        role: Of the tracks that it reads, where not every model of the frame has them.
    """

    kind: Kind
    evidence: Mapping[Objective, str]
    reduce: Callable[[Floats], Floats]
    formula: Mapping[Objective, str]
    output: OutputRole = "logits"
    keys: tuple[str, ...] = ()
    frame: Frame = "variant"
    whole: bool = False
    role: str = ""


_ANY: tuple[Objective, ...] = ("masked", "causal", "tracks", "contacts")


def _embedding(kind: Kind, reduce: Callable[[Floats], Floats], formula: str) -> Score:
    return Score(
        kind,
        dict.fromkeys(_ANY, "pooled"),
        reduce,
        dict.fromkeys(_ANY, formula),
        output="embedding",
        keys=("pool", "k"),
    )


def _of_tracks(score: TrackScore) -> Score:
    """Make a row for a score that is computed track by track, while passes run."""
    formula: dict[Objective, str] = {"tracks": score.formula}
    return Score(
        score.kind, {"tracks": "tracks"}, plain, formula, output="tracks", keys=("mask", "width")
    )


def _of_contacts(score: ContactScore) -> Score:
    """Make a row for a score that is computed map by map, while passes run."""
    formula: dict[Objective, str] = {"contacts": score.formula}
    return Score(
        score.kind, {"contacts": "contacts"}, plain, formula, output="contacts", keys=score.keys
    )


def _of_splice_sites(score: SpliceScore) -> Score:
    """Make a row for a score that is computed gene by gene, while passes run."""
    formula: dict[Objective, str] = {"tracks": score.formula}
    return Score(
        "other", {"tracks": "splice"}, plain, formula, output="tracks",
        keys=("mask", "dist"), frame="gene", whole=score.whole, role=score.role,
    )  # fmt: skip


SCORES: dict[str, Score] = {
    "LLR": Score(
        "signed",
        {"masked": "masked_ratio", "causal": "likelihood_ratio"},
        plain,
        {
            "masked": "log p(ALT) - log p(REF) at the changed bases, all masked in one pass",
            "causal": "log likelihood of the ALT window minus that of the REF window",
        },
    ),
    "PLLR": Score(
        "signed",
        {"masked": "pseudo_ratio"},
        plain,
        {
            "masked": "sum over the ALT rows that differ of log p(row, that row masked) + n log 4 "
            "(n bases a row), minus the same over the REF rows"
        },
    ),
    "WTLLR": Score(
        "other",
        {"masked": "unmasked_ratio"},
        plain,
        {"masked": "log p(ALT) - log p(REF) at the changed bases, from one unmasked REF pass"},
    ),
    "ENT": Score(
        "other",
        {"masked": "distribution", "causal": "distribution"},
        entropy,
        {
            "masked": "entropy of A, C, G, T at the first changed base, masked",
            "causal": "entropy of A, C, G, T at the first changed base, given what precedes it",
        },
    ),
    "EMB_COS": _embedding("distance", cosine_distance, "1 - cosine of pooled REF, ALT embeddings"),
    "EMB_L1": _embedding(
        "distance", sum_of_differences, "sum of absolute differences of pooled embeddings"
    ),
    "EMB_L2": _embedding(
        "distance", euclidean_distance, "Euclidean distance of pooled REF, ALT embeddings"
    ),
    "EMB_DOT": _embedding("other", dot_product, "dot product of pooled REF, ALT embeddings"),
    **{name: _of_tracks(score) for name, score in TRACK_SCORES.items()},
    **{name: _of_contacts(score) for name, score in CONTACT_SCORES.items()},
    **{name: _of_splice_sites(score) for name, score in SPLICE_SCORES.items()},
    # Computed exon by exon, after the passes.
    "DLPSI": Score(
        "other", {"tracks": "exon"}, plain, {"tracks": FORMULA}, output="tracks", frame="exon"
    ),
}

# What is read of every base of a stretch, by `per_base`; no key of a VCF.
ALONG: dict[str, Score] = {
    "LIKELIHOOD": Score(
        "other",
        {"masked": "reference", "causal": "reference"},
        log_likelihood,
        dict.fromkeys(_ANY, "log p(REF base) among A, C, G, T"),
    )
}

POOLS = ("site", "window", "all")
# Masks of genes; scores over them are made gene by gene.
GENE_MASKS = ("gene", "exons", "tss")
MASKS = ("all", "center", *GENE_MASKS)


@dataclass(frozen=True, slots=True)
class ScoreSpec:
    """One score as a user asked for it of one model, options filled in from the card.

    Attributes:
        name: Row of `SCORES`.
        options: Options after the name, the card's values where the user gave none.
        label: What follows the name in INFO keys where options differ from the card's.
        objective: Of the model.
    """

    name: str
    objective: Objective
    options: Mapping[str, str] = field(default_factory=dict)
    label: str = ""

    @property
    def score(self) -> Score:
        """The row of the table."""
        return ALONG[self.name] if self.name in ALONG else score_of(self.name)

    @property
    def key(self) -> str:
        """Name and label, as in INFO keys and reasons."""
        return f"{self.name}_{self.label}" if self.label else self.name

    @property
    def in_genes(self) -> bool:
        """Whether it is taken over a mask of genes, once for each."""
        return self.options.get("mask") in GENE_MASKS

    @property
    def evidence(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """What has to be asked for: scores that share it share its passes."""
        return self.score.evidence[self.objective], tuple(sorted(self.options.items()))


# Roles of a model's tracks; None: not known.
Roles = Collection[str] | None


def parse_scores(
    texts: tuple[str, ...], card: ModelCard, roles: Roles = None
) -> tuple[ScoreSpec, ...]:
    """Parse what the user wrote after -s, or take the card's default scores.

    Args:
        texts: Each `NAME[:key=value...]`, several joined by commas.
        card: The model that is asked.
        roles: Of its tracks, see `available`.

    Raises:
        UsageError: A name, key or value is unknown, or the model cannot give the score.
    """
    wanted = [t.strip() for text in texts for t in text.split(",") if t.strip()]
    asked = wanted or card.scores or available(card, roles)
    specs = [parse_score(text, card, roles) for text in asked]
    return tuple({spec.key: spec for spec in specs}.values())


def share_scores(
    texts: tuple[str, ...], cards: Sequence[ModelCard], roles: Sequence[Roles]
) -> list[tuple[ScoreSpec, ...]]:
    """Parse what the user wrote after -s for several models: each gets those that it can give.

    A model that can give none of them gets its card's own.

    Raises:
        UsageError: A score is unknown, or no model can give it; see `parse_scores`.
    """
    wanted = [t.strip() for text in texts for t in text.split(",") if t.strip()]
    shares: list[list[str]] = [[] for _ in cards]
    for text in wanted:
        name = text.split(":")[0].upper()
        takers = [i for i, x in enumerate(cards) if gives(x, name, roles[i])]
        for i in takers:
            shares[i].append(text)
        if not takers:
            parse_score(text, cards[0], roles[0])
    each = zip(shares, cards, roles, strict=True)
    return [parse_scores(tuple(share), card, known) for share, card, known in each]


def score_of(name: str) -> Score:
    """Give the row of a name, of this package or of another.

    Raises:
        UsageError: There is none, or the other package's cannot be used.
    """
    found = SCORES[name] if name in SCORES else find_score(name)
    if found is None:
        known = ", ".join((*SCORES, *plugin_names(SCORE_GROUP)))
        raise UsageError(f"-s {name}: unknown score {name!r}; known: {known}")
    return found


def gives(card: ModelCard, name: str, roles: Roles = None) -> bool:
    """Say whether a model can give a score, with tracks of these roles or, for None, of any."""
    score = score_of(name)
    return (
        card.objective in score.evidence
        and score.output in card.outputs
        and score.frame == ("gene" if card.in_genes else card.frame)
        and (not score.role or roles is None or score.role in roles)
    )


def available(card: ModelCard, roles: Roles = None) -> tuple[str, ...]:
    """List the scores of this package that a model can give, see `gives`."""
    return tuple(name for name in SCORES if gives(card, name, roles))


def parse_score(text: str, card: ModelCard, roles: Roles = None) -> ScoreSpec:
    """Parse one `NAME[:key=value...]`.

    `pool=window:K` is also understood, as it stands in the help.

    Raises:
        UsageError: See `parse_scores`.
    """
    name, *rest = text.split(":")
    name = name.upper()
    score = score_of(name)
    if not gives(card, name, roles):
        raise UsageError(
            f"-s {text}: the {card.objective} model {card.name!r} does not give {name}; "
            f"it gives {', '.join(available(card, roles)) or 'none'}"
        )
    given = _options(text, score, rest)
    if "dist" in score.keys:
        options, label = splice_options(text, given, card)
        return ScoreSpec(name, card.objective, options, label)
    if "mask" in score.keys:
        return _masked(text, name, given, card)
    if "radius" in score.keys:
        return _insulated(text, name, given, card)
    if "pool" not in score.keys:
        return ScoreSpec(name, card.objective)
    return _pooled(text, name, given, card)


def _masked(text: str, name: str, given: dict[str, str], card: ModelCard) -> ScoreSpec:
    mask = given.get("mask", "center" if "width" in given else "all")
    if mask not in MASKS:
        raise UsageError(f"-s {text}: unknown mask {mask!r}; known: {', '.join(MASKS)}")
    allowed = mask in ("center", "tss") if "width" in given else mask != "center"
    if not allowed:
        raise UsageError(
            f"-s {text}: width= belongs to mask=center, which needs it, and to mask=tss"
        )
    # A start is one base unless told.
    width = given.get("width", "1")
    if not width.isdecimal() or not 1 <= int(width) <= card.context:
        raise UsageError(
            f"-s {text}: width={width} is not a number of bases from 1 to {card.context}"
        )
    options, label = {"mask": mask}, "" if mask == "all" else mask.upper()
    if mask == "center" or int(width) > 1:
        options["width"] = str(int(width))
        label += options["width"]
    return ScoreSpec(name, card.objective, options, label)


def _insulated(text: str, name: str, given: dict[str, str], card: ModelCard) -> ScoreSpec:
    radius = given.get("radius", str(INSULATION_RADIUS))
    least = 1 + (card.contacts.diagonal if card.contacts else 0)
    if not radius.isdecimal() or int(radius) < least:
        raise UsageError(
            f"-s {text}: radius={radius} is not a number of bins from {least} on: the map has no "
            "contacts nearer to the diagonal"
        )
    label = "" if int(radius) == INSULATION_RADIUS else f"RADIUS{int(radius)}"
    return ScoreSpec(name, card.objective, {"radius": str(int(radius))}, label)


def _options(text: str, score: Score, parts: list[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for part in parts:
        if part.isdecimal() and given.get("pool") == "window" and "k" not in given:
            part = f"k={part}"
        if part.isdecimal() and given.get("mask") in ("center", "tss") and "width" not in given:
            part = f"width={part}"
        key, equals, value = part.partition("=")
        if not equals or key not in score.keys:
            known = ", ".join(f"{k}=" for k in score.keys) or "none"
            raise UsageError(f"-s {text}: unknown option {part!r}; known here: {known}")
        given[key] = value.lower()
    return given


def _pooled(text: str, name: str, given: dict[str, str], card: ModelCard) -> ScoreSpec:
    rule = card.embedding
    own_pool, own_k = (rule.pool, rule.k) if rule else ("site", 1)
    pool = given.get("pool", "window" if "k" in given else own_pool)
    if pool not in POOLS:
        raise UsageError(f"-s {text}: unknown pool {pool!r}; known: {', '.join(POOLS)}")
    if "k" in given and pool != "window":
        raise UsageError(f"-s {text}: k= belongs to pool=window, not to pool={pool}")
    k = given.get("k", str(own_k))
    if not k.isdecimal() or not 1 <= int(k) <= card.context:
        raise UsageError(f"-s {text}: k={k} is not a number of bases from 1 to {card.context}")
    options = {"pool": pool, "k": k} if pool == "window" else {"pool": pool}
    is_default = pool == own_pool and (pool != "window" or int(k) == own_k)
    label = "" if is_default else f"WINDOW{int(k)}" if pool == "window" else pool.upper()
    return ScoreSpec(name, card.objective, options, label)
