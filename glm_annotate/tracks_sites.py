"""Tracks of stretches of the genome: predicted ones, and numbers of every base."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from glm_annotate.answers import Floats
from glm_annotate.dense import dense_stride, is_dense
from glm_annotate.errors import UsageError
from glm_annotate.genome import Genome, Interval
from glm_annotate.model import Model
from glm_annotate.per_base import ISM, Kind, What, over_stretches
from glm_annotate.predict import Predictor
from glm_annotate.saturation import SaturationFile
from glm_annotate.scores import ScoreSpec, parse_score
from glm_annotate.stretches import Predicted
from glm_annotate.track_files import TrackSet, is_track_file, open_track
from glm_annotate.track_predictions import tracks_of
from glm_annotate.tracks_written import Written

if TYPE_CHECKING:
    from glm_annotate.tracks_job import TracksJob

_ABOUT: dict[What, str] = {
    "likelihood": "log p of the reference base",
    "entropy": "entropy of A, C, G, T (nats)",
    "information": "2 - entropy (bits)",
    "ism": "of a substitution",
}
SNVS = "snvs.vcf.gz"


class Sink(Protocol):
    """Where columns of values go: one file, or those of a folder."""

    def add(self, contig: str, start: int, values: Floats, span: int = 1) -> None:
        """Add values of consecutive bins, shape (bins,) or (bins, tracks)."""


def folder_of(job: TracksJob, model: Model, *parts: str) -> str:
    """Name a folder of a model's files."""
    return os.path.join(job.output, model.tag, *parts)


def write_predictions(
    job: TracksJob,
    model: Model,
    genome: Genome,
    stretches: Sequence[Interval],
    done: Callable[[int], None],
) -> list[Written]:
    """Write the tracks that a model predicts, those of each strand of a pair by itself.

    Args:
        job: The run.
        model: A model of tracks.
        genome: The reference.
        stretches: Merged, in the order of the FASTA.
        done: Told the bases of each piece.
    """
    table = tracks_of(model).table
    predictor = Predictor(model, genome, job.edge)
    single, asked = is_track_file(job.output), Asked(stretches)
    folder = folder_of(job, model, "predict")
    with ExitStack() as stack:
        if single:
            file = stack.enter_context(open_track(job.output, genome.contigs, force=job.force))
            paths = [job.output]
        else:
            files = TrackSet(
                folder, table.identifiers, genome.contigs, force=job.force,
                extension=job.extension,
            )  # fmt: skip
            stack.enter_context(files)
            paths = [x.path for x in files.files.values()]
        for piece in predictor.predict(stretches):
            for start, values in asked.bins(piece):
                size = piece.bin_size
                if single:
                    file.add(piece.contig, start, values[:, 0], size)
                else:
                    files.add(piece.contig, start, values, size)
                done(values.shape[0] * size)
    return [
        Written(path, model.tag, "predict", x.identifier, x.description or x.identifier, x.assay)
        for path, x in zip(paths, table.tracks, strict=True)
    ]


class Asked:
    """The stretches that were asked for, to take their bins out of what was predicted.

    Args:
        stretches: Disjoint, sorted within a contig.
    """

    def __init__(self, stretches: Iterable[Interval]) -> None:
        spans: dict[str, list[tuple[int, int]]] = {}
        for x in stretches:
            spans.setdefault(x.chrom, []).append((x.start, x.end))
        self._spans = {name: np.array(found, dtype=np.int64) for name, found in spans.items()}

    def bins(self, piece: Predicted) -> Iterator[tuple[int, Floats]]:
        """Give the bins of a piece that hold a base of a stretch, each once.

        Yields:
            First base and values (bins, tracks) of runs of bins.
        """
        size, count = piece.bin_size, piece.values.shape[0]
        spans = self._spans.get(piece.contig, np.zeros((0, 2), dtype=np.int64)) - piece.start
        near = spans[(spans[:, 1] > 0) & (spans[:, 0] < count * size)]
        edges = np.zeros(count + 1, dtype=np.int64)
        np.add.at(edges, np.clip(near[:, 0] // size, 0, count), 1)
        np.add.at(edges, np.clip(-(-near[:, 1] // size), 0, count), -1)
        wanted = np.concatenate([[0], np.cumsum(edges[:-1]) > 0, [0]]).astype(np.int8)
        for first, last in np.flatnonzero(np.diff(wanted)).reshape(-1, 2).tolist():
            yield piece.start + first * size, piece.values[first:last]


def write_sites(
    job: TracksJob,
    model: Model,
    genome: Genome,
    stretches: Sequence[Interval],
    whats: Sequence[What],
    done: Callable[[int], None],
) -> list[Written]:
    """Write numbers of every base, all from the same passes.

    Args:
        job: The run.
        model: The model.
        genome: The reference.
        stretches: Merged, in the order of the FASTA.
        whats: Which numbers.
        done: Told the bases of each piece.
    """
    mutated = mutation_score(model)
    kinds = [Kind(what, mutated) if what == "ism" else Kind(what) for what in whats]
    dense = dense_stride(model.bundle) if job.mode == "dense" else 0
    shown = replace(model, dense=dense)
    shown = replace(shown, scores=_listed(shown, job))
    written: list[Written] = []
    with ExitStack() as stack:
        sinks: dict[str, tuple[Sink, tuple[str, ...]]] = {}
        for kind in kinds:
            sinks[kind.what], paths = _sink(job, model, genome, kind, stack)
            about = f"{mutated.key} {_ABOUT['ism']}" if kind.what == "ism" else _ABOUT[kind.what]
            written += [
                Written(path, model.tag, kind.what, name, about) for name, path in paths.items()
            ]
        snvs = None
        if "ism" in whats:
            path = os.path.join(folder_of(job, model, "ism"), SNVS)
            snvs = stack.enter_context(
                SaturationFile(
                    path,
                    shown,
                    genome,
                    force=job.force,
                    tf32=job.runtime.tf32,
                    arguments=job.arguments,
                    date=job.date,
                )
            )  # fmt: skip
            written.append(Written(path, model.tag, "ism", SNVS, "all substitutions"))
        also = shown.scores if snvs is not None else ()
        for piece in over_stretches(model, genome, stretches, kinds, job.mode, also=also):
            for sink, columns in sinks.values():
                values = np.stack([piece.columns[name] for name in columns], axis=1)
                sink.add(piece.contig, piece.start, values if len(columns) > 1 else values[:, 0])
            if snvs is not None:
                snvs.write(piece.scored)
            done(next(iter(piece.columns.values())).size)
    return written


def mutation_score(model: Model) -> ScoreSpec:
    """Choose the score of saturation mutagenesis: the first of the run that an SNV can have."""
    if model.bundle.card.objective in ("masked", "causal"):
        for spec in model.scores:
            if spec.name in ("LLR", "PLLR", "WTLLR"):
                return spec
    if not model.scores:
        raise UsageError(f"{model.bundle.card.name}: no score to mutate for; name one with -s")
    return model.scores[0]


def _listed(model: Model, job: TracksJob) -> tuple[ScoreSpec, ...]:
    """Choose the scores of the VCF: in dense mode those that cost no passes of their own."""
    if not model.dense or job.scores:
        return model.scores
    shared = tuple(spec for spec in model.scores if is_dense(model, spec))
    return shared or (parse_score("LLR", model.bundle.card),)


def _sink(
    job: TracksJob, model: Model, genome: Genome, kind: Kind, stack: ExitStack
) -> tuple[tuple[Sink, tuple[str, ...]], dict[str, str]]:
    """Open where a kind goes: the sink with the columns it takes, and paths by name."""
    if is_track_file(job.output):
        file = open_track(job.output, genome.contigs, force=job.force)
        stack.enter_context(file)
        return (file, kind.columns), {kind.what: job.output}
    if kind.what != "ism":
        path = folder_of(job, model, kind.what + job.extension)
        os.makedirs(folder_of(job, model), exist_ok=True)
        file = open_track(path, genome.contigs, force=job.force)
        stack.enter_context(file)
        return (file, kind.columns), {kind.what: path}
    files = TrackSet(
        folder_of(job, model, "ism"), ISM, genome.contigs, force=job.force,
        extension=job.extension,
    )  # fmt: skip
    stack.enter_context(files)
    paths = {name: file.path for name, file in files.files.items()}
    return (files, kind.columns), paths
