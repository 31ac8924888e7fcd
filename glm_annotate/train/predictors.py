"""Bundles of predictors: which tracks stay, their graphs and tables, and parity with torch."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm_annotate.bundle import GRAPH, SELFTEST
from glm_annotate.card import ModelCard
from glm_annotate.errors import InputError
from glm_annotate.track_choice import TrackChoice, choose_tracks
from glm_annotate.track_table import COLUMNS, TRACKS, Track, TrackTable, read_tracks, write_tracks
from glm_annotate.train import graph
from glm_annotate.train.exported import Batch, Values
from glm_annotate.train.families.mmsplice_blocks import ExonPredictor, MMSplice
from glm_annotate.train.families.predictor import Predictor
from glm_annotate.train.graph import Parity, Precision
from glm_annotate.train.subjects import Subject

# What a self-test may hold; a whole Borzoi would give 500 MB a window.
_LARGEST_SELFTEST = 200_000_000
# Rows of windows of tokens in it.
_PROBED = 96
# Exons of a batch, and their bases: as few as there may be, a usual exon, a long one.
_EXONS = ((3, 147), (1, 1), (2, 61), (5, 2003))


def choose(subject: Subject, choice: TrackChoice | None) -> TrackTable | None:
    """Cut the networks to the tracks asked for, strand pairs whole; gives the table of those.

    Raises:
        InputError: Tracks are chosen of a model without a table, or whose numbers belong together.
        UsageError: Nothing is left, or a name is unknown.
    """
    if not subject.tracks:
        if choice is not None:
            raise InputError(f"{subject.name}: has no table of tracks to choose from")
        return None
    rows = ["\t".join(row.get(name, "") for name in COLUMNS) for row in subject.tracks]
    table = _table(rows)
    if choice is None:
        return table
    if any(isinstance(network, MMSplice) for network in _networks(subject)):
        raise InputError(
            f"{subject.name}: its tracks are the five numbers of an exon, which belong together; "
            "leave --tracks-file, --track-regex, --assay and --biosample away"
        )
    which = choose_tracks(table, choice)
    for network in _networks(subject):
        network.select(which.tolist())
    return table.take(which)


def _table(rows: Sequence[str]) -> TrackTable:
    """Read rows as tracks.tsv is read, so that a family's table keeps its rules."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / TRACKS
        path.write_text("\t".join(COLUMNS) + "\n" + "".join(f"{row}\n" for row in rows))
        return read_tracks(path)


def write_graphs(
    folder: Path, subject: Subject, card: ModelCard, precision: Precision, table: TrackTable | None
) -> tuple[tuple[Parity, ...], Parity]:
    """Write graphs, tables and self-test into a folder.

    Returns:
        ONNX Runtime against torch, and the weights as stored against those of the checkpoint; of
        replicates the largest differences.

    Raises:
        InputError: int8, which is for language models; or outputs are NaN or too large.
        BundleError: ONNX Runtime does not compute what torch computes.
    """
    if precision == "int8":
        raise InputError(f"{subject.name}: int8 is for language models; use fp32 or fp16")
    for name, data in subject.files.items():
        (folder / name).write_bytes(data)
    networks = _networks(subject)
    names = [GRAPH] if len(networks) == 1 else [f"model.{i}.onnx" for i in range(len(networks))]
    probe = graph.random_batch(networks[0], card.encoder, _shapes(networks[0], card)[0], seed=7)
    parity: list[Parity] = []
    rounding: list[Parity] = []
    means: dict[str, NDArray[np.float64]] = {}
    for name, network in zip(names, networks, strict=True):
        exact = graph.run_torch(network, probe)
        _check(subject.name, exact)
        if precision == "fp16":
            graph.round_matrices(network)
        graph.write_graph(network, folder / name, precision)
        stored = graph.run_torch(network, probe) if precision == "fp16" else exact
        rounding.append(graph.compare(stored, exact))
        parity += _compare(folder / name, network, card, probe, stored)
        for key, values in stored.items():
            share = values.astype(np.float64) / len(networks)
            means[key] = means[key] + share if key in means else share
    if table is None and "tracks" in means:  # no table lay beside the weights
        count = means["tracks"].shape[-1]
        table = TrackTable(tuple(Track(f"track_{i + 1}") for i in range(count)))
    if table is not None:
        write_tracks(table, folder / TRACKS)
    _write_selftest(folder / SELFTEST, probe, means)
    return tuple(parity), max(rounding, key=lambda case: case.worst)


def _networks(subject: Subject) -> tuple[Predictor, ...]:
    return tuple(x for x in subject.networks if isinstance(x, Predictor))


def _check(name: str, outputs: Values) -> None:
    for output, values in outputs.items():
        if not np.isfinite(values).all():
            raise InputError(
                f"{name}: {output} comes out as NaN or infinite; fetch config and weights of one "
                "checkpoint"
            )
        if values.nbytes > _LARGEST_SELFTEST:
            raise InputError(
                f"{name}: {output} of one window has {values.nbytes / 1e6:.0f} MB; choose tracks "
                "with --tracks-file, --track-regex, --assay or --biosample"
            )


def _shapes(network: Predictor, card: ModelCard) -> list[tuple[int, int]]:
    """Choose sizes of batches, windows and bases of each, that of the self-test first."""
    if isinstance(network, ExonPredictor):
        return [(count, card.context + exon) for count, exon in _EXONS]
    if network.vocabulary:
        vocab = card.encoder.vocab
        full = card.context + len(vocab.prefix) + len(vocab.suffix)
        full = min(full, network.max_rows or full)
        return [(2, min(full, _PROBED)), (1, full), (5, min(full, 19))]
    return [(1, card.context), (2, card.context)]


def _compare(
    path: Path, network: Predictor, card: ModelCard, probe: Batch, wanted: Values
) -> list[Parity]:
    """Run graph and torch on the probe and on batches of other sizes."""
    others = [
        graph.random_batch(network, card.encoder, shape, seed)
        for seed, shape in enumerate(_shapes(network, card)[1:], start=8)
    ]
    found, *more = graph.run_graph(path, [probe, *others], attention=True)
    cases = [graph.compare(found, wanted)]
    for batch, values in zip(others, more, strict=True):
        cases.append(graph.compare(values, graph.run_torch(network, batch)))
    for case in cases:
        case.check(path)
    return cases


def _write_selftest(path: Path, probe: Batch, outputs: Mapping[str, NDArray[np.float64]]) -> None:
    arrays: dict[str, Any] = {f"input_{key}": x for key, x in graph.feeds_of(probe).items()}
    arrays |= {f"output_{key}": values.astype(np.float32) for key, values in outputs.items()}
    np.savez_compressed(path, **arrays)
