"""What shares of tracks and of contact maps have in common: passes of haplotypes, and results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from glm_annotate.answers import Floats, Ints, is_writable
from glm_annotate.channels import Values, as_rows, reverse_channels
from glm_annotate.encoding import Encoder, Rows
from glm_annotate.genome import Codes, reverse_complement
from glm_annotate.model import Model, Result
from glm_annotate.track_plan import TrackPlan
from glm_annotate.variants import Alleles, Skip, skip_code

Bools = NDArray[np.bool_]
# Passes of one haplotype, by strand: one, or several that begin at other places of it.
Passes = tuple[tuple[int, ...], ...]


@dataclass(slots=True)
class ChunkTask:
    """What any model's share of a chunk consists of, beside its passes (see `shares.Share`).

    Attributes:
        model: The model.
        alleles: Of the chunk.
        skip: Why an allele has no score at all; 0 for none; shape (n,).
        silent: Skip code of alleles that no score can be given for, though they are not skipped,
            else 0.
        chosen: Alleles that are cut and run.
        failed: Whether a pass failed.
    """

    model: Model
    alleles: Alleles
    skip: Ints
    silent: Ints
    chosen: Ints
    failed: bool = field(default=False, init=False)

    def blank(self) -> Result:
        """Give a result without numbers, with the reasons that are the same for all scores."""
        return empty_result(self.model, self.skip, self.silent)

    def foreseen(self) -> Result:
        """Give the reasons that are known before the passes, and 0.0 for each number to come."""
        return foresee(self.blank())


def ask_passes(
    plan: TrackPlan,
    model: Model,
    codes: Codes,
    beside: Values | None,
    edges: tuple[int, ...] = (0,),
) -> list[Passes]:
    """Ask for windows of haplotypes that begin at some places of them, on every strand.

    Args:
        plan: Takes the passes.
        model: Gives strands, encoder and the bases of a window.
        codes: Haplotypes, shape (n, L).
        beside: Their channels, shape (n, L, C).
        edges: Where the windows begin.

    Returns:
        The passes of each haplotype.
    """
    encoder, length = model.bundle.encoder, model.bundle.card.context
    windows = []  # by strand and edge: rows of each haplotype (T,), and channels (n, T, C)
    for reverse in model.strands:
        for edge in edges:
            piece = codes[:, edge : edge + length]
            near = None if beside is None else beside[:, edge : edge + length]
            if reverse:
                piece = reverse_complement(piece)
                near = None if near is None else reverse_channels(near, encoder.spec)
            beside_rows = None if near is None else as_rows(near, encoder.spec)
            windows.append((_rows_of(encoder, piece), beside_rows))
    out = []
    for member in range(codes.shape[0]):
        numbers = [
            plan.add(rows[member], None if near is None else near[member]) for rows, near in windows
        ]
        step = len(edges)
        out.append(tuple(tuple(numbers[i : i + step]) for i in range(0, len(numbers), step)))
    return out


def _rows_of(encoder: Encoder, codes: Codes) -> list[Rows]:
    """Encode windows (n, L), which may have different numbers of rows, in their order."""
    found: dict[int, Rows] = {}
    for group in encoder.encode(codes):
        found.update(zip(group.index.tolist(), group.rows, strict=True))
    return [found[member] for member in range(codes.shape[0])]


def too_many_rows(model: Model, codes: Codes) -> Bools:
    """Say which windows (n, L) have more rows, on a strand that is read, than the graph takes."""
    card, encoder = model.bundle.card, model.bundle.encoder
    out = np.zeros(codes.shape[0], dtype=np.bool_)
    if card.window.max_tokens is None:
        return out
    for reverse in model.strands:
        for group in encoder.encode(reverse_complement(codes) if reverse else codes):
            out[group.index] |= group.rows.shape[1] > card.window.max_tokens
    return out


def empty_result(model: Model, skip: Ints, silent: Ints) -> Result:
    """Give a result without numbers, with the reasons that are the same for all scores.

    Args:
        model: Gives scores and tracks.
        skip: Why an allele has no score at all; 0 for none, shape (n,).
        silent: Why it has none of any score, though it is not skipped; 0 for none, shape (n,).
    """
    result = trackless_result(model, skip, silent)
    if model.tracks is None:
        return result
    n, tracks = skip.size, len(model.tracks.names)
    by_track = {key: np.full((n, tracks), np.nan) for key in result.values}
    sums = np.full((n, 2, tracks), np.nan)
    return Result(result.skip, result.values, result.reasons, by_track, sums)


def trackless_result(model: Model, skip: Ints, silent: Ints) -> Result:
    """Give what `empty_result` does of scores that no track has, whatever the model predicts."""
    n, keys = skip.size, [spec.key for spec in model.scores]
    return Result(
        skip.copy(),
        {key: np.full(n, np.nan) for key in keys},
        {key: silent.copy() for key in keys},
    )


def foresee(result: Result) -> Result:
    """Put 0.0 in the place of each number to come of an empty result."""
    for key, reasons in result.reasons.items():
        scored = (result.skip == 0) & (reasons == 0)
        result.values[key][scored] = 0.0
        if key in result.tracks:
            result.tracks[key][scored] = 0.0
    return result


def fill_result(result: Result, chosen: Ints, values: Mapping[str, Floats]) -> Result:
    """Put numbers in an empty result, and of several tracks the largest without its sign.

    Args:
        result: Where to put them.
        chosen: Alleles that have some.
        values: By `ScoreSpec.key`: of every allele by track, shape (n, tracks).
    """
    for key, every in values.items():
        numbers = every[chosen]
        fine = is_writable(numbers)
        numbers = np.where(fine, numbers, np.nan)
        top = np.where(fine, np.abs(numbers), -1.0).argmax(axis=1)
        result.values[key][chosen] = numbers[np.arange(chosen.size), top]
        if key in result.tracks:
            result.tracks[key][chosen] = numbers
        none = chosen[~fine.any(axis=1) & (result.reasons[key][chosen] == 0)]
        result.reasons[key][none] = skip_code(Skip.NOT_FINITE)
    return result
