"""Scores of splice models: pure functions on what their graphs give.

`DS_*` and `DP_*` are delta scores and positions, of acceptors and donors after SpliceAI, of the use
of sites after Pangolin; `DLPSI` is MMSplice's change of the logit of PSI. Tracks are in the order
of the genome, whatever the gene's strand: turn the answers of a gene on the reverse strand round
before they come here. Positions are bins of one base.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glm_annotate.genome import Codes, N

Floats = NDArray[np.float64]

_NOWHERE = 1 << 62
# Columns of the tracks.
ACCEPTOR, DONOR = 0, 1
# Column, and the sign of ALT - REF, of the largest gains and losses.
_CHANGES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"AG": (ACCEPTOR, 1), "AL": (ACCEPTOR, -1), "DG": (DONOR, 1), "DL": (DONOR, -1)}
)

# MMSplice's linear model: the five modules in the order of the graph's output, then what is added
# where two neighbours change together: to the exon, the donor's intron and the acceptor's.
_WEIGHTS = np.array([0.49685773, 0.72322957, 1.54760024, 0.75011527, 2.26187717])
_TOGETHER = np.array([-0.69419094, 2.40138709, 0.88148553])
_INTERCEPT = 0.0006480262366686865
# A change below this counts as none.
_NO_CHANGE = 1e-8

# Parts of an exon as MMSplice cuts them, in bases.
ACCEPTOR_INTRON, ACCEPTOR_EXON = 50, 3
DONOR_EXON, DONOR_INTRON = 5, 13
# What the introns' networks do not see of the introns, next to the exon.
INTRON_CUT = 6
# Bases of each end's intron and exon that MTSplice reads.
TISSUE_INTRON, TISSUE_EXON = 300, 100


def align_alt(alt: ArrayLike, place: int, ref_len: int, alt_len: int, bins: int) -> Floats:
    """Put ALT tracks on REF's coordinates.

    An inserted stretch and the base before it become their maximum, deleted bases 0. It makes no
    difference whether the alleles still have the base before them in common.

    Args:
        alt: ALT tracks, shape (..., at least bins + alt_len - ref_len, T), with REF's left edge.
        place: Bin of the first base of the alleles.
        ref_len: Bases of REF.
        alt_len: Bases of ALT.
        bins: Bins of the REF tracks.

    Returns:
        Shape (..., bins, T).

    Raises:
        ValueError: The ALT tracks end too early.
    """
    tracks = np.asarray(alt, dtype=np.float64)
    paired = place + min(ref_len, alt_len)  # the bases before it stand for themselves
    after = place + alt_len
    middle: list[Floats] = []
    if alt_len > ref_len and paired:
        middle = [tracks[..., paired - 1 : after, :].max(axis=-2, keepdims=True)]
        paired -= 1
    elif ref_len > alt_len:
        deleted = (*tracks.shape[:-2], ref_len - alt_len, tracks.shape[-1])
        middle = [np.zeros(deleted)]
    parts = [tracks[..., :paired, :], *middle, tracks[..., after:, :]]
    aligned = np.concatenate(parts, axis=-2)[..., :bins, :]
    if aligned.shape[-2] != bins:
        raise ValueError(f"ALT tracks give {aligned.shape[-2]} bins, wanted {bins}")
    return aligned


def nearest_boundary(boundaries: ArrayLike, pos: int) -> int:
    """Say how far the nearest end of an exon is, to the right above 0; of two, the left one.

    Args:
        boundaries: First and last bases of a gene's exons; none: farther than any bin.
        pos: The variant, counted from the same base.
    """
    if not np.size(boundaries):
        return _NOWHERE
    offsets = np.unique(np.asarray(boundaries, dtype=np.int64)) - pos
    return int(offsets[np.abs(offsets).argmin()])


def splice_deltas(
    evidence: ArrayLike,
    centre: int,
    *,
    distance: int | None = None,
    boundary: ArrayLike | None = None,
) -> dict[str, Floats]:
    """Find the largest gains and losses of acceptors and donors, and where they are.

    Args:
        evidence: REF and aligned ALT tracks, shape (n, 2, bins, 2); columns acceptor, donor.
        centre: The bin that positions are counted from: SpliceAI's is VCF's POS, so for insertions
            and deletions the base before.
        distance: How far from there changes are looked for; None: as far as the bins go.
        boundary: Nearest end of an exon of each allele, shape (n,), see `nearest_boundary`; gains
            there and losses elsewhere are then set to 0 (SpliceAI's mask). None: all count.

    Returns:
        `DS_AG`, `DS_AL`, `DS_DG`, `DS_DL` and the same with `DP_`, shape (n,). Positions are those
        of the largest change before the mask; of equal ones, the leftmost.
    """
    tracks = np.asarray(evidence, dtype=np.float64)
    first = 0
    if distance is not None:
        first = max(centre - distance, 0)
        tracks = tracks[:, :, first : centre + distance + 1]
    difference = tracks[:, 1] - tracks[:, 0]
    scores: dict[str, Floats] = {}
    places: dict[str, Floats] = {}
    for name, (column, sign) in _CHANGES.items():
        change = sign * difference[:, :, column]
        best = change.argmax(axis=1)
        value = np.take_along_axis(change, best[:, None], axis=1)[:, 0]
        place = best + first - centre
        if boundary is not None:
            known = place == np.asarray(boundary, dtype=np.int64)
            value = np.where(known if sign > 0 else ~known, 0.0, value)
        # With + 0.0 there is no -0.0.
        scores[f"DS_{name}"] = value + 0.0
        places[f"DP_{name}"] = place.astype(np.float64)
    return scores | places


def usage_deltas(
    evidence: ArrayLike,
    centre: int,
    *,
    distance: int | None = None,
    beyond: int = 0,
    known: NDArray[np.bool_] | None = None,
) -> dict[str, Floats]:
    """Find the largest gain and loss of splice sites over all tracks, and where they are.

    Args:
        evidence: REF and aligned ALT tracks, shape (n, 2, bins, T).
        centre: The bin that positions are counted from, see `splice_deltas`.
        distance: How far from there changes are looked for; None: as far as the bins go.
        beyond: So many bases further to the right: Pangolin counts from the last base of REF there.
        known: Bins that hold an end of an exon, shape (bins,); gains there and losses elsewhere are
            then 0 before the largest is taken (Pangolin's mask). None: all count.

    Returns:
        `DS_GAIN`, `DS_LOSS`, `DP_GAIN`, `DP_LOSS`, shape (n,); a score is below 0 where nothing
        gains, or nothing loses. Of equal places the leftmost.
    """
    tracks = np.asarray(evidence, dtype=np.float64)
    difference = tracks[:, 1] - tracks[:, 0]
    change = {"GAIN": difference.max(axis=2), "LOSS": -difference.min(axis=2)}
    if known is not None:
        change["GAIN"] = np.where(known, np.minimum(change["GAIN"], 0.0), change["GAIN"])
        change["LOSS"] = np.where(known, change["LOSS"], np.minimum(change["LOSS"], 0.0))
    first, last = 0, tracks.shape[2]
    if distance is not None:
        first, last = max(centre - distance, 0), centre + distance + beyond + 1
    found: dict[str, Floats] = {}
    for name, values in change.items():
        near = values[:, first:last]
        best = near.argmax(axis=1)
        found[f"DS_{name}"] = np.take_along_axis(near, best[:, None], axis=1)[:, 0] + 0.0
        found[f"DP_{name}"] = (best + first - centre).astype(np.float64)
    return found


def delta_logit_psi(
    ref: ArrayLike, alt: ArrayLike, changed: NDArray[np.bool_] | None = None
) -> Floats:
    """Change of the logit of PSI by MMSplice's linear model, shape (n,).

    It has an intercept: an allele that changes nothing gives 0.000648, not 0. Where two neighbours
    change, a term is added that does not shrink with the smaller change. So rounding must not look
    like a change: name the parts whose bases differ.

    Args:
        ref: Numbers of the five modules, shape (n, 5): acceptor's intron, logit of the acceptor,
            exon, logit of the donor, donor's intron.
        alt: The same of ALT.
        changed: Which parts differ between the haplotypes, shape (n, 5); None: tell by the numbers.
    """
    change = np.asarray(alt, dtype=np.float64) - np.asarray(ref, dtype=np.float64)
    if changed is not None:
        change = np.where(changed, change, 0.0)
    moved = np.abs(change) > _NO_CHANGE
    together = moved[:, :-1] & moved[:, 1:]  # neighbours: (0,1), (1,2), (2,3), (3,4)
    exon = change[:, 2] * (together[:, 1] | together[:, 2])
    terms = np.stack([exon, change[:, 4] * together[:, 3], change[:, 0] * together[:, 0]], axis=1)
    # No product of matrices: its rounding may depend on how many alleles there are.
    linear = (change * _WEIGHTS).sum(axis=1) + (terms * _TOGETHER).sum(axis=1)
    return np.asarray(linear + _INTERCEPT)


def exon_parts(codes: Codes, left: int, right: int) -> dict[str, Codes]:
    """Cut an exon with its introns into MMSplice's parts.

    Args:
        codes: Bases of the acceptor's intron, the exon and the donor's intron, in the direction of
            the gene, shape (L,).
        left: How many of them are of the acceptor's intron; 0 for a gene's first exon.
        right: How many are of the donor's. Where an intron is too short, N are put before or
            behind it: one more than are missing, as in the authors' code, which the introns'
            networks see.

    Returns:
        `acceptor_intron`, `acceptor` (53 bases), `exon`, `donor` (18), `donor_intron`.
    """
    if left <= ACCEPTOR_INTRON:
        codes = np.concatenate([_unknown(ACCEPTOR_INTRON + 1 - left), codes])
        left = ACCEPTOR_INTRON + 1
    if right <= DONOR_INTRON:
        codes = np.concatenate([codes, _unknown(DONOR_INTRON + 1 - right)])
        right = DONOR_INTRON + 1
    end = len(codes) - right
    exon = codes[left:end]
    return {
        "acceptor_intron": codes[: left - INTRON_CUT],
        "acceptor": codes[left - ACCEPTOR_INTRON : left + ACCEPTOR_EXON],
        "exon": exon if len(exon) else _unknown(1),
        "donor": codes[end - DONOR_EXON : end + DONOR_INTRON],
        "donor_intron": codes[end + INTRON_CUT :],
    }


def tissue_parts(codes: Codes, left: int, right: int) -> dict[str, Codes]:
    """Cut an exon with its introns into MTSplice's parts, `acceptor` and `donor`, 400 bases each.

    Args:
        codes: See `exon_parts`.
        left: How many of them are of the acceptor's intron.
        right: How many are of the donor's. What is missing from 300 becomes N, what is too much is
            cut off.
    """
    size = TISSUE_INTRON + TISSUE_EXON
    codes = codes[max(left - TISSUE_INTRON, 0) : len(codes) - max(right - TISSUE_INTRON, 0)]
    before, behind = (_unknown(max(TISSUE_INTRON - x, 0)) for x in (left, right))
    whole = np.concatenate([before, codes, behind])
    return {"acceptor": whole[:size], "donor": whole[len(whole) - size :]}


def _unknown(count: int) -> Codes:
    return np.full(count, N, dtype=np.uint8)
