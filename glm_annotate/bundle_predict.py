"""What a model says of sequences and of stretches of a genome, as arrays.

Decisions: strands are averaged as for scores, on the forward one. Language models are read in one
unmasked pass a window: a sequence of at most a window in one, with N around it (behind it, of
causal models), a longer one and stretches of a genome in windows of a grid that overlap by half,
each giving its middle. A base has the mean of the tokens that hold it. Models of tracks give
un-transformed bins: of a sequence, which is one whole window, those that the graph gives; of a
stretch those of `glm-annotate tracks`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from glm_annotate.answers import Batch, Floats, Ints, OutputRole, answer_bases
from glm_annotate.bundle import Bundle
from glm_annotate.encoding import Spans, refused
from glm_annotate.errors import InputError, UsageError
from glm_annotate.evidence import is_fixed
from glm_annotate.genome import Codes, Genome, Interval, reverse_complement, to_codes
from glm_annotate.made_genome import MadeGenome
from glm_annotate.model import Model, Tracks
from glm_annotate.passes import ask_passes, too_many_rows
from glm_annotate.plan import PassFailed
from glm_annotate.predict import Predictor, grid_of
from glm_annotate.runtime import open_runners, parse_device
from glm_annotate.stretches import Predicted, WindowReader, Work
from glm_annotate.track_plan import Answers, TrackPlan
from glm_annotate.track_predictions import predicted_tracks, tracks_of
from glm_annotate.track_table import TRACKS, read_tracks

Output = Literal["probabilities", "logits", "embedding", "tracks"]
Place = Interval | tuple[str, int, int]


class Reading(TypedDict, total=False):
    """How a model is run.

    Attributes:
        strand: None: the card's.
        device: As after --device.
        threads: Of ONNX Runtime on the CPU; 0: all cores.
        batch_size: Forward passes in a batch.
    """

    strand: Literal["both", "forward"] | None
    device: str
    threads: int
    batch_size: int | Literal["auto"]


def predict(
    bundle: Bundle,
    what: str | Place | Sequence[str] | Sequence[Place],
    genome: str | os.PathLike[str] | Genome | None = None,
    *,
    output: Output | None = None,
    strand: Literal["both", "forward"] | None = None,
    device: str = "auto",
    threads: int = 0,
    batch_size: int | Literal["auto"] = "auto",
) -> list[Floats]:
    """Say what a model makes of sequences, or of intervals of a genome.

    Args:
        bundle: The model.
        what: Sequences as text, or with a genome intervals of it, 0-based and half-open.
        genome: A FASTA.
        output: `probabilities` of A, C, G and T at each base, or their natural `logits`, shape
            (bases, 4); `embedding`, shape (bases, D); `tracks`, shape (bins, tracks). None: tracks
            where the model gives some, else the first of these that it gives.
        strand: Strands that are read and averaged; None: the card's.
        device: As after --device.
        threads: Of ONNX Runtime on the CPU; 0: all cores.
        batch_size: Forward passes in a batch.

    Returns:
        One array for each; NaN where the model says nothing, as of windows of N alone.

    Raises:
        UsageError: The model does not give that.
        InputError: An interval does not lie in the genome, or a sequence is not one window of a
            model of tracks.
    """
    card = bundle.card
    chosen = _output(bundle, output)
    if card.encoder.channels:
        raise UsageError(
            f"{bundle.path}: {card.name} reads an alignment or signals beside the bases; predict "
            "has sequence alone: use glm-annotate vcf or tracks"
        )
    batch = 0 if batch_size == "auto" else batch_size
    settings = parse_device(device, threads=threads, batch=batch)
    reads_both = (strand or card.strand) == "both" and card.frame == "variant"
    model = Model(
        card.tag,
        bundle,
        scores=(),
        strands=(False, True) if reads_both else (False,),
        circular=frozenset(),
        runners=open_runners(bundle, settings),
        tracks=_every_track(bundle) if chosen == "tracks" else None,
    )
    if genome is None:
        return _of_sequences(model, chosen, _listed(what, str))
    reference = genome if isinstance(genome, Genome) else Genome(os.fspath(genome))
    names = (reference.resolve(name) for name in card.circular)
    model = replace(model, circular=frozenset(filter(None, names)))
    places = [_placed(reference, place) for place in _listed(what, Interval | tuple)]
    if chosen == "tracks":
        _refuse_framed(bundle)
        return [_bins(Predictor(model, reference), place) for place in places]
    return [_bins(_BaseReader(model, reference, chosen), place) for place in places]


def _output(bundle: Bundle, wanted: Output | None) -> Output:
    card = bundle.card
    known: list[Output] = []
    if "logits" in card.outputs and is_fixed(bundle.encoder):
        known += ["probabilities", "logits"]
    known += [x for x in ("embedding", "tracks") if x in card.outputs]
    if card.frame == "exon" or not known:
        raise UsageError(
            f"{bundle.path}: {card.name} gives nothing along a sequence; use glm-annotate vcf"
        )
    found = wanted or ("tracks" if "tracks" in known else known[0])
    if found not in known:
        raise UsageError(f"output={found!r}: {card.name} gives {', '.join(known)}")
    return found


def _every_track(bundle: Bundle) -> Tracks:
    table = read_tracks(bundle.path / TRACKS)
    return Tracks(table, np.arange(len(table)))


def _refuse_framed(bundle: Bundle) -> None:
    if bundle.card.in_genes:
        raise UsageError(
            f"{bundle.path}: {bundle.card.name} is read on the strand of a gene; give it sequences "
            "of that strand, without a genome"
        )


def _listed(what: Any, kind: Any) -> list[Any]:
    """Give what was asked for as a list, and tell sequences from places."""
    is_place = isinstance(what, tuple) and len(what) == 3 and isinstance(what[1], int)
    one = isinstance(what, str | Interval) or is_place
    found = [what] if one else list(what)
    wrong = next((x for x in found if not isinstance(x, kind)), None)
    if wrong is not None:
        raise UsageError(
            f"predict: found {type(wrong).__name__} {wrong!r}; without a genome it takes sequences "
            "as text, with one it takes Interval(chrom, start, end)"
        )
    return found


def _placed(genome: Genome, place: Place) -> Interval:
    chrom, start, end = (
        (place.chrom, place.start, place.end) if isinstance(place, Interval) else place
    )
    contig = genome.resolve(chrom)
    if contig is None or not 0 <= start <= end <= genome.contigs[contig]:
        size = "no such contig" if contig is None else f"{genome.contigs[contig]} bases"
        raise InputError(
            f"{genome.path}: {chrom}, {start} to {end} (0-based, half-open) does not lie in it: "
            f"{size}"
        )
    return Interval(contig, start, end)


def _bins(reader: WindowReader, place: Interval) -> Floats:
    """Give the bins that hold a base of a place, shape (bins, numbers)."""
    parts = list(reader.predict([place])) if place.end > place.start else []
    if not parts:
        return np.zeros((0, reader.numbers))
    return np.concatenate([_cut(part, place) for part in parts])


def _cut(part: Predicted, place: Interval) -> Floats:
    first = max(0, (place.start - part.start) // part.bin_size)
    last = -(-(place.end - part.start) // part.bin_size)
    return part.values[first : max(first, last)]


# --- sequences -----------------------------------------------------------------------------------


def _of_sequences(model: Model, output: Output, texts: Sequence[str]) -> list[Floats]:
    codes = {f"sequence {i}": to_codes(text) for i, text in enumerate(texts, start=1)}
    if output == "tracks":
        return [_whole_window(model, name, x) for name, x in codes.items()]
    genome, context = MadeGenome(codes), model.bundle.card.context
    found = []
    for name, size in genome.contigs.items():
        reader = _BaseReader(model, genome, output, alone=size if 0 < size <= context else 0)
        found.append(_bins(reader, Interval(name, 0, size)))
    return found


def _whole_window(model: Model, name: str, codes: Codes) -> Floats:
    """Predict the tracks of one window, shape (bins, tracks)."""
    card = model.bundle.card
    if codes.size != card.context:
        raise InputError(
            f"{name} has {codes.size:,} bases; {card.name} reads {card.context:,} at a time: give "
            "so many, or a genome and the place in it"
        )
    if refused(codes[None], card.encoder).any() or too_many_rows(model, codes[None]).any():
        raise InputError(f"{name}: {card.name} cannot read it (N, or more tokens than it takes)")
    found: list[Floats] = []
    plan = TrackPlan("tracks")
    (side,) = ask_passes(plan, model, codes[None], None)

    def finish(answers: Answers) -> None:
        mean = predicted_tracks(model, grid_of(card, 0).bins, side, answers)
        found.append(tracks_of(model).transforms.invert(mean))

    plan.then([k for part in side for k in part], finish)
    plan.seal()
    try:
        plan.execute(model.runners[0])
    except PassFailed as error:
        raise InputError(f"{name}: the forward pass failed: {error}") from error
    return found[0]


# --- language models, base by base ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Given:
    """The logits of one window, as `answers.Outputs`."""

    logits: NDArray[Any]

    def rows(self, window: Ints, row: Ints) -> NDArray[np.floating[Any]]:
        found: NDArray[np.floating[Any]] = self.logits[row]
        return found

    def token_logs(self, ids: Ints) -> Floats:
        raise NotImplementedError("only rows are read")

    def pool(self, window: Ints, weights: Floats) -> Floats:
        raise NotImplementedError("only rows are read")


class _BaseReader(WindowReader):
    """Reads a language model along stretches.

    Args:
        model: The model.
        genome: The reference.
        output: What is read.
        alone: Bases of contigs that are read in one window each; 0: the grid.
    """

    def __init__(self, model: Model, genome: Genome, output: Output, *, alone: int = 0) -> None:
        card = model.bundle.card
        role: OutputRole = "embedding" if output == "embedding" else "logits"
        numbers = 4
        if role == "embedding" and card.embedding is not None:
            numbers = card.embedding.dim // (2 if card.embedding.halves == "rc" else 1)
        kept = alone or max(1, card.context // 2)
        self._lead = (card.context - kept) // 2
        if alone and card.objective == "causal":
            self._lead = 0
        self._output = output
        super().__init__(model, genome, role=role, kept=kept, bin_size=1, tracks=numbers)

    def _ask(self, work: Work, members: Ints) -> None:
        card, encoder = self.model.bundle.card, self.model.bundle.encoder
        left = work.numbers[members] * self.step - self._lead
        wraps = work.contig in self.model.circular
        codes = self.genome.windows(work.contig, left, card.context, circular=wraps)
        readable = (codes < 4).any(axis=1) & ~refused(codes, encoder.spec)
        readable &= ~too_many_rows(self.model, codes)
        which = np.flatnonzero(readable)
        if not which.size:
            return
        asked: list[dict[int, tuple[int, Spans, NDArray[Any]]]] = []
        for reverse in self.model.strands:
            strand = reverse_complement(codes[which]) if reverse else codes[which]
            by_window: dict[int, tuple[int, Spans, NDArray[Any]]] = {}
            for group in encoder.encode(strand):
                for at, i in enumerate(group.index.tolist()):
                    spans = group.spans_of(np.array([at]))[0]
                    by_window[i] = work.plan.add(group.rows[at]), spans, group.rows[at]
            asked.append(by_window)
        for i, member in enumerate(members[which].tolist()):
            sides = [by_window[i] for by_window in asked]
            work.plan.then([side[0] for side in sides], partial(self._finish, work, member, sides))

    def _finish(
        self,
        work: Work,
        member: int,
        sides: Sequence[tuple[int, Spans, NDArray[Any]]],
        answers: Answers,
    ) -> None:
        read: Callable[..., Floats] = (
            self._embedded if self._output == "embedding" else self._distributions
        )
        total = np.zeros(())
        for reverse, (number, spans, rows) in zip(self.model.strands, sides, strict=True):
            total = total + read(answers[number], spans, rows, reverse)
        mean = np.asarray(total)[self._lead : self._lead + self._kept] / len(sides)
        work.found[member] = np.log(mean) if self._output == "logits" else mean

    def _distributions(
        self, logits: NDArray[Any], spans: Spans, rows: NDArray[Any], reverse: bool
    ) -> Floats:
        """Give p of A, C, G and T at each base of a window, shape (context, 4)."""
        card = self.model.bundle.card
        row, place = _held(spans)
        if card.objective == "causal":
            # Nothing precedes the first row, and inside a token no base is given its own prefix.
            first = (row >= max(1, card.logits_shift)) & (spans[row, 0] == place)
            row, place = row[first], place[first]
        details = np.stack([row, spans[row, 1] - spans[row, 0], place - spans[row, 0]], axis=1)
        batch = Batch(_Given(logits), self.model.bundle.encoder, card.logits_shift, rows[None])
        none = np.zeros(row.size, dtype=np.int64)
        chances = answer_bases(batch, none, details.astype(np.int64), spans[None])
        mean = _mean_by(place, chances, card.context)
        return mean[::-1, ::-1] if reverse else mean  # the complement of ACGT is TGCA

    def _embedded(
        self, values: NDArray[Any], spans: Spans, rows: NDArray[Any], reverse: bool
    ) -> Floats:
        """Give the embedding of each base of a window, shape (context, D)."""
        row, place = _held(spans)
        mean = _mean_by(place, values[row].astype(np.float64), self.model.bundle.card.context)
        rule = self.model.bundle.card.embedding
        if rule is not None and rule.halves == "rc":
            half = mean.shape[1] // 2
            mean = (mean[:, :half] + mean[:, : half - 1 : -1]) / 2
        return mean[::-1] if reverse else mean


def _held(spans: Spans) -> tuple[Ints, Ints]:
    """List every base of every row: the row, and the base's place in the window."""
    widths = np.where(spans[:, 0] >= 0, spans[:, 1] - spans[:, 0], 0).astype(np.int64)
    row = np.repeat(np.arange(widths.size), widths)
    within = np.arange(row.size) - np.repeat(np.cumsum(widths) - widths, widths)
    return row, spans[row, 0] + within


def _mean_by(place: Ints, values: Floats, size: int) -> Floats:
    """Average values by place, shape (size, ...); NaN where there is none."""
    total = np.zeros((size, values.shape[1]))
    np.add.at(total, place, values)
    count = np.bincount(place, minlength=size)
    return total / np.where(count > 0, count, np.nan)[:, None]
