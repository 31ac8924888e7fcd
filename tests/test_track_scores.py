"""Scores of tracks: hand calculations, plain loops, and what swapping the alleles does."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_annotate.track_scores import TRACK_SCORES, merge_strands, merge_values, score_tracks

NAMES = list(TRACK_SCORES)
# Two tracks of four bins: the second changes nowhere.
REF = np.array([[0, 1], [1, 2], [3, 3], [4, 4]], dtype=np.float32)
ALT = np.array([[1, 1], [1, 2], [7, 3], [0, 4]], dtype=np.float32)
# By hand: changes 1 0 4 -4; log2(1 + x) 0 1 2 log2(5) to 1 1 3 0; roots 0 1 sqrt(3) 2 to
# 1 1 sqrt(7) 0; sums 8 and 9, means 2 and 2.25.
BY_HAND = {
    "SAD": 1.0,
    "LOGSAD": 5 - (3 + math.log2(5)),
    "SQRTSAD": (2 + math.sqrt(7)) - (3 + math.sqrt(3)),
    "LOGSED": math.log2(10) - math.log2(9),
    "SAX": 4.0,  # as large as the last bin's -4, and before it
    "LFC": math.log(2.251) - math.log(2.001),
    "D1": 9.0,
    "D2": math.sqrt(1 + 16 + 16),
    "LOGD1": 2 + math.log2(5),
    "LOGD2": math.sqrt(1 + 1 + math.log2(5) ** 2),
}
SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(0, 10**6))


def random_pair(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    bins, tracks, seed = shape
    rng = np.random.default_rng(seed)
    # Zeros and equal bins are what real tracks are full of.
    ref = (rng.gamma(0.5, 4, (bins, tracks)) * (rng.random((bins, tracks)) < 0.8)).astype("f4")
    factor = rng.lognormal(0, 1, (bins, tracks)) * (rng.random((bins, tracks)) < 0.9)
    alt = np.where(rng.random((bins, tracks)) < 0.3, ref, ref * factor).astype("f4")
    return ref, alt


def one(name: str, ref: np.ndarray, alt: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    return score_tracks([name], ref, alt, mask)[name]


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name: str) -> None:
    got = one(name, REF, ALT)
    assert got.dtype == np.float64
    assert got == pytest.approx([BY_HAND[name], 0.0], abs=1e-12)


def entropy2(p: list[float]) -> float:
    return -sum(x * math.log2(x) for x in p if x)


def test_jensen_shannon_distance_from_entropies() -> None:
    p, q = [0, 1 / 8, 3 / 8, 4 / 8], [1 / 9, 1 / 9, 7 / 9, 0]
    middle = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
    wanted = math.sqrt(entropy2(middle) - (entropy2(p) + entropy2(q)) / 2)
    assert one("JSD", REF, ALT) == pytest.approx([wanted, 0.0], abs=1e-12)


@pytest.mark.parametrize(
    ("ref", "alt", "wanted"),
    [
        ([1.0, 0.0], [0.0, 1.0], 1.0),  # nothing in common
        ([1.0, 3.0], [10.0, 30.0], 0.0),  # the same shape
        ([0.0, 0.0], [0.0, 0.0], 0.0),  # no distribution, but nothing changed
        ([0.0, 0.0], [1.0, 0.0], math.nan),
    ],
)
def test_jensen_shannon_distance_at_its_ends(
    ref: list[float], alt: list[float], wanted: float
) -> None:
    got = one("JSD", np.array(ref)[:, None], np.array(alt)[:, None])
    assert got == pytest.approx([wanted], abs=1e-9, nan_ok=True)


def test_a_tiny_jensen_shannon_distance_keeps_its_digits() -> None:
    # Of p = (1 + t, 1 - t) / 2 and q = 1/2 each it is t^2 / 8 nats, but for terms of t^4.
    t = 1e-7
    got = one("JSD", np.array([[1 + t], [1 - t]]), np.ones((2, 1)))
    assert got == pytest.approx([math.sqrt(t * t / 8 / math.log(2))], rel=1e-6)


def test_js_by_hand() -> None:
    # The 25th percentile of 0 1 3 4 is 0.75: 0.75 1.75 3.75 4.75 of 11 and 1.75 1.75 7.75 0.75
    # of 12.
    r = [x / 11 for x in (0.75, 1.75, 3.75, 4.75)]
    a = [x / 12 for x in (1.75, 1.75, 7.75, 0.75)]
    forth = sum(x * math.log(x / y) for x, y in zip(r, a, strict=True))
    back = sum(y * math.log(y / x) for x, y in zip(r, a, strict=True))
    assert one("JS", REF, ALT) == pytest.approx([(forth + back) / 2, 0.0], abs=1e-12)


def loop_score(name: str, ref: list[float], alt: list[float]) -> float:
    """One track, one bin after the other."""
    both = list(zip(ref, alt, strict=True))
    change = [a - r for r, a in both]
    logs = [math.log2(1 + a) - math.log2(1 + r) for r, a in both]
    largest = 0.0
    for x in change:
        largest = x if abs(x) > abs(largest) else largest
    n = len(both)
    scores: dict[str, Callable[[], float]] = {
        "SAD": lambda: math.fsum(change),
        "LOGSAD": lambda: math.fsum(logs),
        "SQRTSAD": lambda: math.fsum(math.sqrt(a) - math.sqrt(r) for r, a in both),
        "LOGSED": lambda: math.log2(1 + sum(alt)) - math.log2(1 + sum(ref)),
        "SAX": lambda: largest,
        "LFC": lambda: math.log(sum(alt) / n + 0.001) - math.log(sum(ref) / n + 0.001),
        "D1": lambda: math.fsum(map(abs, change)),
        "D2": lambda: math.hypot(*change),
        "LOGD1": lambda: math.fsum(map(abs, logs)),
        "LOGD2": lambda: math.hypot(*logs),
    }
    return scores[name]()


@pytest.mark.parametrize("name", BY_HAND)
@given(shape=SHAPES)
def test_against_loops_over_masked_bins(name: str, shape: tuple[int, int, int]) -> None:
    ref, alt = random_pair(shape)
    mask = np.arange(len(ref)) % 3 != 1
    got = one(name, ref, alt, mask)
    for t in range(ref.shape[1]):
        kept = [i for i in range(len(ref)) if i % 3 != 1]
        wanted = loop_score(
            name, [float(ref[i, t]) for i in kept], [float(alt[i, t]) for i in kept]
        )
        assert got[t] == pytest.approx(wanted, rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("name", NAMES)
@given(shape=SHAPES)
def test_swap_and_identity(name: str, shape: tuple[int, int, int]) -> None:
    ref, alt = random_pair(shape)
    forth, back = one(name, ref, alt), one(name, alt, ref)
    kind = TRACK_SCORES[name].kind
    if kind == "signed":
        np.testing.assert_array_equal(forth, -back)
    elif kind == "distance":
        np.testing.assert_array_equal(forth, back)
        assert (forth[np.isfinite(forth)] >= 0).all()
    np.testing.assert_array_equal(one(name, ref, ref), np.zeros(ref.shape[1]))


def test_kinds_are_those_of_the_design() -> None:
    by_kind = {k: {n for n, s in TRACK_SCORES.items() if s.kind == k} for k in ("signed", "other")}
    assert by_kind["signed"] == {"SAD", "LOGSAD", "SQRTSAD", "LOGSED", "SAX", "LFC"}
    assert by_kind["other"] == {"JS"}
    assert not np.allclose(one("JS", REF, ALT + 5), one("JS", ALT + 5, REF))


@pytest.mark.parametrize("name", NAMES)
def test_tracks_and_leading_axes_do_not_mix(name: str) -> None:
    pairs = [random_pair((6, 3, seed)) for seed in range(4)]
    together = one(name, np.stack([r for r, _ in pairs]), np.stack([a for _, a in pairs]))
    assert together.shape == (4, 3)
    for got, (ref, alt) in zip(together, pairs, strict=True):
        for t in range(3):
            alone = one(name, ref[:, t : t + 1], alt[:, t : t + 1])
            assert got[t : t + 1] == pytest.approx(alone, rel=1e-12, nan_ok=True)


def test_a_small_change_in_a_large_sum() -> None:
    ref = np.full((100_000, 1), 1000.0, dtype=np.float32)
    alt = ref.copy()
    alt[7] = np.nextafter(np.float32(1000), np.float32(2000))  # 2^-14 more; the sum is 1e8
    assert one("SAD", ref, alt)[0] == 2.0**-14


@pytest.mark.parametrize("name", NAMES)
def test_no_bin_is_no_number(name: str) -> None:
    got = one(name, REF, ALT, np.zeros(4, dtype=bool))
    assert got.shape == (2,)
    assert np.isnan(got).all()


def test_what_a_track_does_not_define_is_not_finite() -> None:
    got = score_tracks(["SQRTSAD", "LOGSAD", "SAD"], np.array([[-2.0]]), np.array([[1.0]]))
    assert np.isnan(got["SQRTSAD"]).all()
    assert np.isnan(got["LOGSAD"]).all()
    assert got["SAD"] == pytest.approx([3.0])


@pytest.mark.parametrize("name", NAMES)
def test_strand_pairs_merge(name: str) -> None:
    values = np.array([[3.0, 4.0, -5.0], [-0.5, 1.2, 2.0]])
    got = merge_strands(name, values, np.array([0, 2]), np.array([1, 2]))
    both = [5.0, 1.3] if name in ("D2", "LOGD2") else [7.0, 0.7]
    # A track without a partner keeps its sign and is not doubled.
    np.testing.assert_allclose(got, np.array([[both[0], -5.0], [both[1], 2.0]]), rtol=1e-12)


def test_sums_of_strand_pairs_add_up() -> None:
    got = merge_values(np.array([3.0, 4.0, 5.0]), np.array([1, 2]), np.array([0, 2]))
    np.testing.assert_array_equal(got, [7.0, 5.0])


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        score_tracks(["SAD"], np.zeros((3, 1)), np.zeros((4, 1)))
