"""A checkpoint in, a model bundle out, checked against torch before it takes its name.

The bundle is built in a folder beside its place and renamed, so that it is there whole or not at
all. The weights are in memory once: what the network gave before rounding is kept, not a copy.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glm_annotate.bundle import CARD, GRAPH, SELFTEST, TOKENIZER, write_bundle
from glm_annotate.card import ModelCard
from glm_annotate.encoding import make_encoder, mask_rows
from glm_annotate.errors import InputError
from glm_annotate.testing import check_bundle
from glm_annotate.track_choice import TrackChoice
from glm_annotate.train import graph, predictors
from glm_annotate.train.card_source import CardSource, card_values, context_of, read_card
from glm_annotate.train.families.family import Network
from glm_annotate.train.families.predictor import Predictor
from glm_annotate.train.graph import Batch, Parity, Precision, Values
from glm_annotate.train.importing import Imported
from glm_annotate.train.quantise import SCALED, calibration_batches, quantise
from glm_annotate.train.subjects import Subject, imported_subject, open_subject

_SELFTEST_LENGTH = 96
_SMALLEST_ATOL = 1e-4
# Rows of the two windows on which rounding is measured.
_ROUNDING_ROWS = 512


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What `export` made.

    Attributes:
        folder: The bundle.
        card: Its card.
        parity: ONNX Runtime against torch with the weights as stored, one a shape; for int8
            before the quantisation.
        rounding: The graph's weights as stored against those of the checkpoint; all 0 for fp32.
        size: Bytes of graph and weights.
    """

    folder: Path
    card: ModelCard
    parity: tuple[Parity, ...]
    rounding: Parity
    size: int


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How a checkpoint becomes a bundle.

    Attributes:
        card: The card's keys that the checkpoint does not know or only suggests, as a mapping or
            a TOML file.
        family: The system, where it cannot be told from config and keys.
        context: Bases of the window, in place of the default.
        precision: How matrices are stored.
        calibration: FASTA whose windows set the scales of int8.
        attention: Give the graph the output `attention`.
        tracks: Which tracks of a predictor are kept; None: all.
        head: Which head of a checkpoint with several.
        force: Replace a bundle that is already there.
    """

    card: CardSource | None = None
    family: str | None = None
    context: int | None = None
    precision: Precision = "fp32"
    calibration: str | Path | None = None
    attention: bool = False
    tracks: TrackChoice | None = None
    head: str | None = None
    force: bool = False


def export(source: str | Path, folder: str | Path, **options: Any) -> ExportReport:
    """Write the bundle of a checkpoint.

    Args:
        source: File of a training run (its averaged weights are taken); or an official checkpoint,
            see `sources.open_source`.
        folder: The bundle to make.
        **options: See `ExportOptions`.

    Raises:
        InputError: Checkpoint or card are not usable, or something lies where the bundle goes.
        BundleError: ONNX Runtime does not compute what torch computes.
    """
    wanted = ExportOptions(**options)
    target = Path(os.path.realpath(folder))
    _check_place(target, Path(source), force=wanted.force)
    name, given = read_card(wanted.card)
    context = context_of(name, given, wanted.context)
    subject = open_subject(source, family=wanted.family, context=context, head=wanted.head)
    if wanted.attention and not getattr(subject.network, "has_attention", False):
        raise InputError(f"{subject.name}: the architecture has no attention maps to export")
    for network in subject.networks:
        if wanted.attention and isinstance(network, Predictor):
            network.give_maps()
    values = card_values(
        name, given, subject, precision=wanted.precision, attention=wanted.attention
    )
    try:
        return _write(target, subject, values, wanted)
    except OSError as error:
        raise InputError(
            f"{target}: cannot be written: {error.strerror or error}; name another folder with -o"
        ) from error


def export_imported(made: Imported, folder: str | Path, **options: Any) -> ExportReport:
    """Write the bundle of weights that a user had, see `importing.prepare`.

    Args:
        made: Networks and card.
        folder: The bundle to make.
        **options: `card`, `precision`, `tracks` and `force` of `ExportOptions`.

    Raises:
        InputError: The card is not usable, or something lies where the bundle goes.
        BundleError: ONNX Runtime does not compute what torch computes.
    """
    wanted = ExportOptions(**options)
    target = Path(os.path.realpath(folder))
    _check_place(target, Path(folder) / "none", force=wanted.force)
    name, given = read_card(wanted.card)
    subject = imported_subject(made)
    values = card_values(name, given, subject, precision=wanted.precision, attention=False)
    return _write(target, subject, values, wanted)


def _write(
    target: Path, subject: Subject, values: dict[str, Any], wanted: ExportOptions
) -> ExportReport:
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        if subject.tokenizer is not None:
            (scratch / TOKENIZER).write_text(subject.tokenizer, encoding="utf-8")
        if isinstance(subject.network, Predictor):
            measured = _write_predictor(scratch, subject, values, wanted)
        else:
            measured = _write_graph(scratch, subject, values, wanted)
        written = write_bundle(scratch, measured.card)
        check_bundle(scratch)
        size = sum(path.stat().st_size for path in scratch.glob("model*"))
        _move(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return ExportReport(target, written, measured.parity, measured.rounding, size)


@dataclass(frozen=True, slots=True)
class _Measured:
    card: dict[str, Any]
    parity: tuple[Parity, ...]
    rounding: Parity


def _write_predictor(
    scratch: Path, subject: Subject, values: dict[str, Any], wanted: ExportOptions
) -> _Measured:
    table = predictors.choose(subject, wanted.tracks)
    card = ModelCard.model_validate(values)
    parity, rounding = predictors.write_graphs(scratch, subject, card, wanted.precision, table)
    return _Measured(_with_measurements(values, parity, rounding), parity, rounding)


def _write_graph(
    scratch: Path, subject: Subject, values: dict[str, Any], wanted: ExportOptions
) -> _Measured:
    """Write graph and self-test into a folder, and measure how far they are from torch."""
    network, card = subject.network, ModelCard.model_validate(values)
    if not isinstance(network, Network):
        raise TypeError(f"{subject.name}: not a language model")
    path, maps = scratch / GRAPH, wanted.attention
    full = _full_rows(subject.name, card, network, scratch / TOKENIZER)
    windows: list[Batch] = []
    probe = graph.random_batch(network, card.encoder, (2, min(full, _ROUNDING_ROWS)), seed=7)
    if wanted.precision == "int8":
        windows = calibration_batches(card, network, scratch / TOKENIZER, wanted.calibration)
        probe = windows[-1]
    exact = graph.run_torch(network, probe, attention=maps)
    _check_numbers(subject.name, exact)
    if wanted.precision == "fp16":
        graph.round_matrices(network)
    graph.write_graph(network, path, wanted.precision, attention=maps)
    shapes = ((1, 1), (1, full), (5, min(19, full)))
    parity = _check_parity(path, network, card, shapes, attention=maps)
    if wanted.precision == "int8":
        quantise(path, windows[:SCALED])
        (stored,) = graph.run_graph(path, [probe], attention=maps)
    else:
        stored = graph.run_torch(network, probe, attention=maps)
    rounding = graph.compare(stored, exact)
    shape = 1, min(_SELFTEST_LENGTH, full)
    tested = graph.random_batch(network, card.encoder, shape, seed=11, masked=0.0)
    if windows:
        tested = graph.first_rows(windows[-2], _SELFTEST_LENGTH)
    _write_selftest(scratch / SELFTEST, network, card, tested, attention=maps)
    return _Measured(_with_measurements(values, parity, rounding), parity, rounding)


def _check_numbers(name: str, outputs: Values) -> None:
    for output, array in outputs.items():
        if not np.isfinite(array).all():
            raise InputError(
                f"{name}: {output} comes out as NaN or infinite; fetch config and weights of one "
                "checkpoint"
            )


def _check_place(target: Path, source: Path, *, force: bool) -> None:
    if not os.path.exists(target):
        return
    if source.exists() and source.resolve().is_relative_to(target):
        raise InputError(
            f"{target}: holds SOURCE, and would be replaced; name another folder with -o"
        )
    if not target.is_dir():
        raise InputError(
            f"{target}: a file lies where the bundle goes; name another folder with -o"
        )
    if not any(target.iterdir()):
        return
    if not (target / CARD).is_file():
        raise InputError(
            f"{target}: holds files and no {CARD}, so it is not a bundle and is not replaced; "
            "name another folder with -o"
        )
    if not force:
        raise InputError(f"{target}: is there already; replace it with --force")


def _full_rows(name: str, card: ModelCard, network: Network, tokenizer: Path) -> int:
    """Say how many rows a window of A, C, G and T has, as far as the network allows.

    Raises:
        InputError: It has to have more than are allowed.
    """
    encoder = make_encoder(card.encoder, tokenizer if tokenizer.is_file() else None)
    codes = np.random.default_rng(5).integers(4, size=(1, card.context)).astype(np.uint8)
    rows = encoder.encode(codes)[0].rows.shape[1]
    limits = [x for x in (network.max_rows, card.window.max_tokens) if x is not None]
    if card.window.kind == "fixed" and limits and rows > min(limits):
        raise InputError(
            f"{name}: a window of {card.context} bases has {rows} rows, allowed are {min(limits)}; "
            "give a smaller --context"
        )
    return int(min(rows, *limits)) if limits else int(rows)


def _check_parity(
    path: Path,
    network: Network,
    card: ModelCard,
    shapes: Sequence[tuple[int, int]],
    *,
    attention: bool,
) -> tuple[Parity, ...]:
    """Run graph and torch at shapes that the exporter has not seen."""
    batches: list[Batch] = [
        graph.random_batch(network, card.encoder, shape, seed) for seed, shape in enumerate(shapes)
    ]
    found = graph.run_graph(path, batches, attention=attention)
    parity = tuple(
        graph.compare(outputs, graph.run_torch(network, batch, attention=attention))
        for outputs, batch in zip(found, batches, strict=True)
    )
    for case in parity:
        case.check(path)
    return parity


def _write_selftest(
    path: Path, network: Network, card: ModelCard, batch: Batch, *, attention: bool
) -> None:
    """Write rows and what torch answers: a window as it is, and with a tenth of it masked."""
    rows, channels = graph.parts_of(batch)
    if card.encoder.vocab.mask_id is not None:
        touched = np.arange(rows.shape[1]) % 10 == 5
        rows = np.concatenate([rows, mask_rows(rows, touched, card.encoder)])
    arrays: dict[str, Any] = {"input_rows": rows}
    if channels is not None:
        channels = np.repeat(channels, len(rows) // len(channels), axis=0)
        arrays["input_channels"] = channels
    whole: Batch = rows if channels is None else (rows, channels)
    outputs: Values = graph.run_torch(network, whole, attention=attention)
    arrays |= {f"output_{key}": array for key, array in outputs.items()}
    np.savez_compressed(path, **arrays)


def _with_measurements(
    values: dict[str, Any], parity: Sequence[Parity], rounding: Parity
) -> dict[str, Any]:
    """Put the tolerance and what was measured into the card."""
    worst, precision = max(case.worst for case in parity), values["precision"]
    atol = max(values.get("atol", _SMALLEST_ATOL), _round_up(10 * worst))
    measured: dict[str, Any] = {"onnx_against_torch": _two_digits(worst)}
    if precision != "fp32":
        deviation = {k: _two_digits(v) for k, v in rounding.deviation.items()}
        measured[f"{precision}_against_fp32"] = deviation
    if precision == "int8":
        # The self-test holds what torch computes in float32.
        atol = max(atol, _round_up(2 * rounding.worst))
    provenance = values["provenance"]
    quality = {**provenance["quality"], **measured}
    return {**values, "atol": atol, "provenance": {**provenance, "quality": quality}}


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")


def _round_up(value: float) -> float:
    """Round up to one significant digit."""
    if value == 0:
        return 0.0
    unit = 10.0 ** math.floor(math.log10(value))
    return float(f"{math.ceil(value / unit) * unit:.1g}")


def _move(scratch: Path, target: Path) -> None:
    """Rename the finished folder into place; a bundle that was there goes away last."""
    scratch.chmod(0o755)  # mkdtemp shuts others out
    if not target.exists():
        os.rename(scratch, target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    os.rename(target, old)
    try:
        os.rename(scratch, target)
    except OSError:
        os.rename(old, target)
        raise
    shutil.rmtree(old)
