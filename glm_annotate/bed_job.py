"""`glm-annotate bed`: the rows of a BED in, the same rows in order with what models say out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice

import numpy as np

from glm_annotate.bed_embedding import EmbeddingPart
from glm_annotate.bed_scores import (
    Cells,
    Column,
    LikelihoodPart,
    Part,
    Said,
    TracksPart,
    causal_part,
    masked_part,
)
from glm_annotate.bed_tables import Table, kind_of
from glm_annotate.beds import BedRow, read_bed
from glm_annotate.card import ModelCard
from glm_annotate.causal import reads_bases
from glm_annotate.errors import UsageError
from glm_annotate.evidence import is_fixed
from glm_annotate.genome import Genome, Interval, aliases
from glm_annotate.model import Model
from glm_annotate.opening import card_of, open_models, plain_scores
from glm_annotate.run_setup import Setup
from glm_annotate.skips import Skip
from glm_annotate.vcf import check_output

logger = logging.getLogger(__name__)

PARTS = ("PLL", "LL", "TRACKS", "EMB")
_BLOCK = 256  # rows that are read together
_SCORED = "SCORED"


@dataclass(frozen=True, slots=True, kw_only=True)
class BedJob(Setup):
    """One run of `glm-annotate bed`; `scores` are names of `PARTS`.

    Attributes:
        source: The BED; "-" is stdin.
        output: Path or None for stdout.
        embedding: Give EMB beside what is given anyway.
        edge: As of `predict.Predictor`; `top`: as of `bed_scores.TracksPart`.
        force: Replace an output that is there.
    """

    source: str
    output: str | None = None
    embedding: bool = False
    edge: int | None = None
    top: int | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class BedSummary:
    """What a run did.

    Attributes:
        regions: Rows of the BED.
        status: How often each status was given, by tag.
    """

    regions: int
    status: dict[str, Counter[str]]

    @property
    def has_unscored(self) -> bool:
        """Whether some region lacks something of some model."""
        return any(set(counts) - {_SCORED} for counts in self.status.values())


def run_bed(job: BedJob, progress: Callable[[int], None] = lambda regions: None) -> BedSummary:
    """Write a row for each row of a BED.

    Args:
        job: What to do.
        progress: Called with the number of regions of each block that is done.

    Raises:
        GlmAnnotateError: Something that the user can mend.
    """
    check_output(job.output, job.force, job.source)
    wanted = _wanted(job)
    rows = read_bed(job.source)
    first = list(islice(rows, 1))  # tells of a file that is none before models are opened
    genome = Genome(job.fasta)
    models = open_models(replace(job, scores=plain_scores(_cards(job.models))), genome)
    speakers = [Speaker(model, genome, x) for model, x in _shared(job, wanted, models, genome)]
    columns = [column for speaker in speakers for column in speaker.columns]
    width = len(first[0].cells) if first else 3
    status: dict[str, Counter[str]] = {speaker.tag: Counter() for speaker in speakers}
    regions = 0
    with Table(job.output, width, columns, force=job.force, source=job.source) as table:
        for block in _blocks(chain(first, rows)):
            cells: list[Cells] = []
            for speaker in speakers:
                found = speaker.say(block)
                status[speaker.tag].update(found[0].tolist())
                cells += found
            table.write(block, cells)
            regions += len(block)
            progress(len(block))
    return BedSummary(regions, status)


def _blocks(rows: Iterator[BedRow]) -> Iterator[list[BedRow]]:
    while block := list(islice(rows, _BLOCK)):
        yield block


class Speaker:
    """What one model says of rows.

    Args:
        model: The model.
        genome: The reference.
        parts: Of what it says.

    Attributes:
        columns: Its columns, the status first.
    """

    def __init__(self, model: Model, genome: Genome, parts: Sequence[Part]) -> None:
        self.tag, self._model, self._genome, self._parts = model.tag, model, genome, parts
        own = [column for part in parts for column in part.columns]
        self.columns = [Column(f"{model.tag}_STATUS", "text"), *own]

    def say(self, rows: Sequence[BedRow]) -> list[Cells]:
        """Give the cells of every column, shape (rows,) or (rows, size)."""
        found = [self._place(row) for row in rows]
        at = np.array([i for i, x in enumerate(found) if isinstance(x, Interval)], dtype=np.int64)
        places = [x for x in found if isinstance(x, Interval)]
        said = [part.say(places) if places else None for part in self._parts]
        texts = ["" if isinstance(x, Interval) else x for x in found]
        for k, i in enumerate(at.tolist()):
            texts[i] = self._status([x.reasons[k] for x in said if x is not None])
        cells: list[Cells] = [np.array(texts, dtype=object)]
        for part, one in zip(self._parts, said, strict=True):
            cells += _spread(part, one, at, len(rows))
        return cells

    def _place(self, row: BedRow) -> Interval | str:
        """Find a row on the reference, or say why it is not read."""
        contig = self._genome.resolve(row.contig)
        if contig is None:
            return Skip.CONTIG_MISSING
        model, length = self._model, self._genome.contigs[contig]
        if row.end > length:
            return Skip.OFF_CONTIG
        if row.end == row.start:
            return "EMPTY"
        scoped = model.ignore_scope or model.bundle.card.in_scope(contig, length, aliases(contig))
        if not scoped:
            return Skip.OUT_OF_SCOPE
        if model.channels is not None and not model.channels.holds(contig):
            return Skip.NO_SIGNAL
        return Interval(contig, row.start, row.end)

    def _status(self, reasons: Sequence[str]) -> str:
        """Join the reasons of parts; one that all share stands alone."""
        if len(set(reasons)) == 1:
            return reasons[0] or _SCORED
        pairs = zip(self._parts, reasons, strict=True)
        return "|".join(f"{part.name}:{reason}" for part, reason in pairs if reason)


def _spread(part: Part, said: Said | None, at: Cells, n: int) -> Iterator[Cells]:
    """Put what is said of some rows beside nothing of the others."""
    for k, column in enumerate(part.columns):
        cells: Cells
        if column.kind == "text":
            cells = np.full(n, "", dtype=object)
        elif column.kind == "count":
            cells = np.full(n, -1, dtype=np.int64)
        else:
            cells = np.full((n, column.size) if column.kind == "list" else n, np.nan)
        if said is not None:
            cells[at] = said.cells[k]
        yield cells


# --- what is asked of whom ---------------------------------------------------------------------


def _wanted(job: BedJob) -> list[str]:
    """Parse what was given after -s.

    Raises:
        UsageError: A name is unknown, or the output cannot hold embeddings.
    """
    names = [x.strip().upper() for text in job.scores for x in text.split(",") if x.strip()]
    odd = next((x for x in names if x not in PARTS), None)
    if odd is not None:
        raise UsageError(f"-s {odd}: not something that bed gives; known: {', '.join(PARTS)}")
    if (job.embedding or "EMB" in names) and kind_of(job.output) != "parquet":
        raise UsageError("embeddings of regions need a Parquet file: -o OUT.parquet")
    kind_of(job.output)
    return names


def _cards(models: Sequence[str]) -> list[ModelCard]:
    """Read the cards of the models.

    Raises:
        UsageError: A model says nothing of regions, but of alleles in their genes.
    """
    cards = [card_of(text) for text in models]
    for text, card in zip(models, cards, strict=True):
        if card.frame != "variant" or card.in_genes:
            raise UsageError(
                f"-m {text}: {card.name} reads alleles in their genes and says nothing of regions; "
                "leave it out"
            )
    return cards


def _shared(
    job: BedJob, wanted: Sequence[str], models: Sequence[Model], genome: Genome
) -> list[tuple[Model, list[Part]]]:
    """Give each model those of the wanted parts that it has, else all but EMB.

    Raises:
        UsageError: A model has no part, or no model has a wanted one.
    """
    has = [_parts_of(model, genome, job) for model in models]
    lost = next((x for x in wanted if not any(x in own for own in has)), None)
    if job.embedding and not any("EMB" in own for own in has):
        lost = "EMB"
    if lost is not None:
        known = "; ".join(
            f"{model.tag} gives {', '.join(own) or 'nothing'}"
            for model, own in zip(models, has, strict=True)
        )
        raise UsageError(f"-s {lost}: no model of this run gives it of regions: {known}")
    if not any("TRACKS" in own for own in has):
        for name, value in (("--edge", job.edge), ("--top", job.top)):
            if value is not None:
                logger.warning("%s %d: no model of this run gives tracks", name, value)
    out = []
    for model, own in zip(models, has, strict=True):
        names = [x for x in own if x in wanted] or [x for x in own if x != "EMB"]
        if job.embedding and "EMB" in own and "EMB" not in names:
            names.append("EMB")
        if not names:
            mend = "; ask for its embedding: --embedding -o OUT.parquet" if own else ""
            raise UsageError(
                f"{model.bundle.card.name} gives neither the likelihood of single bases nor "
                f"tracks of regions{mend}"
            )
        out.append((model, [own[name]() for name in names]))
    return out


def _parts_of(model: Model, genome: Genome, job: BedJob) -> dict[str, Callable[[], Part]]:
    """Say what a model can say of regions, and give what makes each part."""
    card, encoder = model.bundle.card, model.bundle.encoder
    found: dict[str, Callable[[], Part]] = {}
    likelihood: Callable[[], LikelihoodPart]
    if card.objective == "masked" and "logits" in card.outputs and is_fixed(encoder):
        likelihood = partial(masked_part, model, genome, job.mode)
        found["PLL"] = likelihood
    if card.objective == "causal" and "logits" in card.outputs and reads_bases(encoder):
        likelihood = partial(causal_part, model, genome)
        found["LL"] = likelihood
    if card.objective == "tracks" and model.tracks is not None:
        found["TRACKS"] = lambda: TracksPart(model, genome, job.edge, job.top)
    if "embedding" in card.outputs:
        found["EMB"] = lambda: EmbeddingPart(model, genome)
    return found
