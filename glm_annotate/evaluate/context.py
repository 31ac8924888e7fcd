"""`evaluate context`: how scores change as the model sees less around an allele.

Outside of the middle `width` bases of a window every base is hidden: it becomes N, which the model
reads as its card says, or the flank is shuffled so that its composition stays, base by base and
pair by pair (its first and last base stay in place, so that one more is seen on each side). A model
that uses its context scores otherwise; one that gains nothing by it is as good with a narrow
window.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from glm_annotate.annotate import Annotator, score_chunks
from glm_annotate.answers import Floats, Ints
from glm_annotate.chunks import parse
from glm_annotate.errors import InputError, UsageError
from glm_annotate.evaluate.alleles import Labels, SiteCell, read_labels, read_table
from glm_annotate.evaluate.columns import Direction, direction_of_score, directions_of
from glm_annotate.evaluate.compare import measures_of
from glm_annotate.evaluate.metrics import Estimate, bootstrap, estimate, once, resamples, spearman
from glm_annotate.evaluate.output import Row
from glm_annotate.evaluate.shuffle import shuffle_dinucleotides
from glm_annotate.evidence import EVIDENCE
from glm_annotate.genome import Codes, Genome, N
from glm_annotate.model import Model
from glm_annotate.opening import open_models
from glm_annotate.run_setup import Setup
from glm_annotate.variants import SKIPS

logger = logging.getLogger(__name__)

How = Literal["n", "shuffle"]
SHARE = 0.95  # of the whole window's figure, which a narrower one is asked for
_NARROWEST = 8
_CHANCE = {"AUROC": 0.5, "AUPRC": 0.0, "Spearman": 0.0, "Pearson": 0.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked.

    Attributes:
        source: VCF of alleles.
        label: INFO key of what is known; empty: only the scores are compared.
        positive: See `alleles.read_labels`; `negative`: too.
        directions: As after --direction.
        widths: Bases that stay, one each; none: powers of two up to the window.
        how: What becomes of the others.
        most: Alleles at most, drawn from all.
        times: Resamples of an interval.
        seed: Of all that is drawn.
    """

    source: str
    label: str = ""
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    directions: tuple[str, ...] = ()
    widths: tuple[int, ...] = ()
    how: How = "n"
    most: int = 1000
    times: int = 1000
    seed: int = 0


class HiddenFlanks(Genome):
    """A genome of which windows show the bases around their anchor alone.

    Args:
        path: The FASTA.
        anchor: Place of the first changed base in a window.
        context: Bases of a window; what a window has beyond them is of a deleted allele.
        width: Bases that stay, half of them before the anchor.
        how: What becomes of the others.
        seed: Of shuffles, which depend on it and on the place of the window alone.
    """

    def __init__(
        self, path: str, *, anchor: int, context: int, width: int, how: How, seed: int
    ) -> None:
        super().__init__(path)
        self._anchor, self._context, self._width = anchor, context, width
        self._how, self._seed = how, seed

    def windows(
        self, contig: str, starts: Ints, length: int, *, circular: bool | None = None
    ) -> Codes:
        """Cut windows, and hide their flanks."""
        found = super().windows(contig, starts, length, circular=circular)
        begin, end = kept(self._anchor, self._width, length, length - self._context)
        if begin == 0 and end == length:
            return found
        out = found.copy()
        if self._how == "n":
            out[:, :begin] = out[:, end:] = N
            return out
        number = list(self.contigs).index(contig)
        for row, start in zip(out, np.asarray(starts).tolist(), strict=True):
            draw = np.random.default_rng([self._seed, number, start + (1 << 32)])
            row[:begin] = shuffle_dinucleotides(row[:begin], draw)
            row[end:] = shuffle_dinucleotides(row[end:], draw)
        return out


def kept(anchor: int, width: int, length: int, extra: int) -> tuple[int, int]:
    """Say which bases of a window stay: `width` around the anchor, and those of a deletion."""
    begin = max(0, anchor - width // 2)
    return begin, min(length, anchor - width // 2 + width + max(0, extra))


def widths_of(model: Model, given: Sequence[int]) -> list[int]:
    """List the widths that are tried, ascending, the whole window last.

    Raises:
        UsageError: A width is no part of the window.
    """
    context = model.bundle.card.context
    if wrong := [x for x in given if not 1 <= x <= context]:
        raise UsageError(
            f"--widths {wrong[0]}: the window of {model.bundle.card.name} has {context} bases"
        )
    powers = [1 << i for i in range(40) if _NARROWEST <= 1 << i < context]
    return [*sorted({x for x in given or powers if x < context}), context]


def check_model(model: Model) -> None:
    """Refuse models and scores whose windows do not lie around the allele.

    Raises:
        UsageError: Such a model or score.
    """
    if model.framed is not None:
        raise UsageError(f"{model.tag}: reads alleles in genes, not in windows around them")
    for spec in model.scores:
        known = EVIDENCE.get(spec.evidence[0])
        if known is not None and known.windows == "grid":
            raise UsageError(
                f"-s {spec.key}: is read from windows on a grid, not around the allele; name other "
                "scores"
            )


def evaluate_context(question: Question, setup: Setup) -> list[Row]:
    """Score alleles with less and less context.

    Returns:
        A row for each model, score, width and metric: `Spearman with whole window`, and the
        measures of the labels.

    Raises:
        GlmAnnotateError: Something that the user can mend.
    """
    if setup.mode == "dense":
        raise UsageError("--mode dense: its windows do not lie around the allele")
    directions = directions_of(question.directions)
    table = read_table(question.source, [question.label] if question.label else [])
    labels = None
    if question.label:
        labels = read_labels(table, question.label, question.positive, question.negative)
    chosen = choose_alleles(table.sites, labels, question)
    sites = [table.sites[i] for i in chosen.tolist()]
    truth = None if labels is None else labels.values[chosen]
    genome = Genome(setup.fasta)
    rows: list[Row] = []
    for model in open_models(setup, genome):
        check_model(model)
        widths = widths_of(model, question.widths)
        found = {w: _score(model, _genome(setup, model, w, question), sites) for w in widths}
        for spec in model.scores:
            values = {w: found[w][spec.key] for w in widths}
            kind = "" if labels is None else labels.kind
            way = direction_of_score(spec.key) if kind == "classes" else "high"
            way = directions.get(f"{model.tag}_{spec.key}", directions.get("", way))
            rows += compare_widths(
                f"{model.tag}_{spec.key}", model, values, truth, kind, way, question
            )
    return rows


def choose_alleles(sites: Sequence[SiteCell], labels: Labels | None, question: Question) -> Ints:
    """Choose alleles with a label, each once, and of too many some at random."""
    seen: set[SiteCell] = set()
    usable = []
    for i, site in enumerate(sites):
        if site not in seen and (labels is None or not labels.reasons[i]):
            usable.append(i)
        seen.add(site)
    found = np.array(usable, dtype=np.int64)
    if found.size > question.most:
        logger.warning("%d of %d alleles are drawn; more: --most", question.most, found.size)
        draw = np.random.default_rng(question.seed)
        found = np.sort(draw.choice(found, question.most, replace=False))
    return found


def _genome(setup: Setup, model: Model, width: int, question: Question) -> Genome:
    card = model.bundle.card
    return HiddenFlanks(
        setup.fasta,
        anchor=card.anchor,
        context=card.context,
        width=width,
        how=question.how,
        seed=question.seed,
    )


def _score(model: Model, genome: Genome, sites: Sequence[SiteCell]) -> dict[str, Floats]:
    """Score alleles of which windows are cut from a genome, NaN where there is no number."""
    lines = [f"{c}\t{p}\t.\t{r}\t{a}\t.\t.\t.\n".encode() for c, p, r, a in sites]
    annotator = Annotator(genome, [model])
    size = annotator.chunk_size
    works = (
        annotator.read(parse("alleles", "allele", b"".join(lines[i : i + size]), i + 1))
        for i in range(0, len(lines), size)
    )
    parts: dict[str, list[Floats]] = {spec.key: [] for spec in model.scores}
    reasons: dict[str, int] = {}
    for scored in score_chunks(annotator, works):
        result = scored.results[model.tag]
        for code in result.skip[result.skip > 0].tolist():
            reasons[str(SKIPS[code - 1])] = reasons.get(str(SKIPS[code - 1]), 0) + 1
        for key, values in result.values.items():
            parts[key].append(np.where(result.skip > 0, np.nan, values))
    if reasons:
        logger.info("%s: without a score: %s", model.tag, reasons)
    return {key: np.concatenate(values) for key, values in parts.items()}


def compare_widths(
    key: str,
    model: Model,
    values: dict[int, Floats],
    truth: Floats | None,
    kind: str,
    direction: Direction,
    question: Question,
) -> list[Row]:
    """Compare the scores of each width with those of the whole window, and with the labels.

    Raises:
        InputError: Fewer than two alleles have a number at all widths.
    """
    known = np.all([np.isfinite(x) for x in values.values()], axis=0)
    if known.sum() < 2:
        raise InputError(
            f"{question.source}: {int(known.sum())} alleles have {key} at all widths; models that "
            "cannot read N take --how shuffle, insertions and deletions other scores"
        )
    whole = values[max(values)][known]
    sets = {}
    for width, column in values.items():
        own = {"Spearman with whole window": spearman(column[known], whole)}
        if truth is not None:
            turned = np.abs(column) if direction == "abs" else column
            turned = -turned if direction == "low" else turned
            own |= measures_of(turned[known], truth[known], kind)
        sets[width] = own
    groups = np.zeros(int(known.sum()), dtype=np.int64)
    if truth is not None and kind == "classes":
        groups = truth[known].astype(np.int64)
    flat = [measure for own in sets.values() for measure in own.values()]
    samples = bootstrap(flat, resamples(groups, question.times, question.seed))
    names = [(width, metric) for width, own in sets.items() for metric in own]
    rows: list[Row] = []
    for place, (width, metric) in enumerate(names):
        found: Estimate = estimate(flat[place](once(groups)), samples[:, place])
        rows.append(
            {
                "column": key,
                "digest": model.bundle.digest,
                "hidden": question.how,
                "width": width,
                "metric": metric,
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "alleles": int(known.sum()),
                "left_out": int((~known).sum()),
            }
        )
    return rows


def width_needed(rows: Sequence[Row], metric: str) -> int | None:
    """Find the narrowest width from which on a metric is at least `SHARE` of that at the whole.

    A metric counts from what chance gives. None where even the whole window gives no more than
    chance: the interval of its value reaches it.
    """
    found = sorted((int(x["width"]), x) for x in rows if x["metric"] == metric)
    chance = _CHANCE.get(metric, 0.0)
    last = found[-1][1]
    full = float(last["value"]) - chance
    unsure = float(last["low"]) <= chance <= float(last["high"])
    # Correlations may have either sign; classes that are told apart the wrong way are not.
    wrong = full <= 0 if metric in ("AUROC", "AUPRC") else full == 0
    if not np.isfinite(full) or wrong or unsure:
        return None
    needed = found[-1][0]
    for width, row in reversed(found):
        if not (float(row["value"]) - chance) / full >= SHARE:
            break
        needed = width
    return needed


def verdict(rows: Sequence[Row], column: str) -> str:
    """Say in a line or two whether a score uses its context, and whether that pays."""
    own = [row for row in rows if row["column"] == column]
    widest = max(int(row["width"]) for row in own)
    alike = width_needed(own, "Spearman with whole window")
    text = f"{column}: its ranks are those of the whole window ({widest} bases; Spearman "
    text += f"{SHARE:g} or more) from {alike or widest} bases on"
    metric = next((str(x["metric"]) for x in own if x["metric"] in ("AUROC", "Spearman")), "")
    if not metric:
        return text + "."
    needed = width_needed(own, metric)
    if needed is None:
        return text + f"; its {metric} is not above chance, so that no width can be named."
    base = " above chance" if metric == "AUROC" else ""
    text += f"; {100 * SHARE:g} % of its {metric}{base} is reached from {needed} bases on"
    uses = "it gains little by the bases beyond" if needed < widest else "it uses all of its window"
    return f"{text}: {uses}."
