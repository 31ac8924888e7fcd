"""Bins, masks, unequal alleles, strands and contact maps, against plain loops over bases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_annotate.track_windows import (
    Bins,
    around,
    bins_of,
    center_mask,
    contact_l1,
    flip_contacts,
    flip_tracks,
    flip_upper,
    insulation,
    insulation_change,
    interval_mask,
    onto_reference,
    stitch_of,
    stitch_tracks,
    to_square,
    upper_bins,
)

# --- bins and masks ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("context", "size", "crop", "count", "place", "at"),
    [
        (196_608, 128, 320, 896, 98_304, 448),  # Enformer
        (524_288, 32, 16, 16_352, 262_144, 8176),  # Borzoi
        (131_072, 32, 1024, 2048, 65_536, 1024),  # mini-Borzoi
        (2_097_152, 8192, 0, 256, 1_048_576, 128),  # C.Origami
        (2114, 1, 557, 1000, 1057, 500),  # BPNet
    ],
)
def test_bins_of_published_models(
    context: int, size: int, crop: int, count: int, place: int, at: int
) -> None:
    bins = bins_of(context, size, crop)
    assert (bins.count, bins.at(place)) == (count, at)
    assert bins.starts[at] == place
    assert bins.at(bins.first - 1) == -1
    assert bins.at(context - crop * size) == count


def loop_mask(starts: list[int], size: int, intervals: list[tuple[int, int]]) -> list[bool]:
    wanted = {base for a, b in intervals for base in range(a, b)}
    return [any(base in wanted for base in range(s, s + size)) for s in starts]


INTERVALS = st.lists(
    st.tuples(st.integers(-20, 60), st.integers(0, 15)).map(lambda x: (x[0], x[0] + x[1])),
    max_size=5,
)


@given(st.integers(1, 7), st.integers(0, 3), st.integers(1, 9), INTERVALS)
def test_interval_masks(size: int, crop: int, count: int, intervals: list[tuple[int, int]]) -> None:
    bins = bins_of((count + 2 * crop) * size, size, crop)
    assert bins.count == count
    got = interval_mask(bins, np.array(intervals, dtype=np.int64).reshape(-1, 2))
    starts = [crop * size + i * size for i in range(count)]
    assert got.tolist() == loop_mask(starts, size, intervals)


@given(st.integers(2, 7), st.integers(1, 9), INTERVALS, st.integers(-9, 70), st.integers(1, 9))
def test_interval_masks_where_a_deletion_was_stitched(
    size: int, count: int, intervals: list[tuple[int, int]], start: int, lost: int
) -> None:
    bins = bins_of((count + 2) * size, size, 1)
    stitch = stitch_of(bins, start, lost, 0)
    got = interval_mask(bins, np.array(intervals, dtype=np.int64).reshape(-1, 2), stitch)
    starts = [size + i * size for i in range(count)]
    # Bins behind the variant's own show what lies further right on the reference.
    moved = [s + lost if s > start else s for s in starts]
    assert got.tolist() == loop_mask(moved, size, intervals)


@pytest.mark.parametrize(
    ("width", "wanted"),
    [(4, [2, 3]), (2, [2, 3]), (8, [1, 2, 3, 4]), (5, [1, 2, 3]), (99, range(6))],
)
def test_center_masks(width: int, wanted: list[int]) -> None:
    # 16 bases in bins of 2, one cut off at each side: the middle is between bins 2 and 3.
    got = center_mask(bins_of(16, 2, 1), 16, width)
    assert np.flatnonzero(got).tolist() == list(wanted)


def test_center_of_a_published_window_is_whole_bins() -> None:
    assert np.flatnonzero(center_mask(bins_of(524_288, 32, 16), 524_288, 512)).tolist() == list(
        range(8168, 8184)
    )


def test_stretches_around_places() -> None:
    assert around(np.array([10, 20]), 1).tolist() == [[10, 11], [20, 21]]
    assert around(np.array([10]), 5).tolist() == [[8, 13]]
    assert around(np.array([10]), 4).tolist() == [[9, 13]]


# --- alleles of unequal length -----------------------------------------------------------------

VARIANTS = st.tuples(st.integers(0, 29), st.integers(0, 6), st.integers(0, 6))


def loop_onto_reference(
    alt: list[float], first: int, start: int, ref_len: int, alt_len: int
) -> list[float | None]:
    """One base of REF after the other; ALT's value there, None where its window ends."""
    count = len(alt)
    haplotype = {first + i: x for i, x in enumerate(alt)}
    paired = min(ref_len, alt_len)
    out: list[float | None] = []
    for base in range(first, first + count):
        if base < start + paired:
            sources = [base]
        elif base < start + ref_len:
            out.append(0.0)
            continue
        else:
            sources = [base - ref_len + alt_len]
        if base == start + paired - 1 and alt_len > ref_len:
            sources += [start + paired + i for i in range(alt_len - ref_len)]
        known = all(x in haplotype for x in sources)
        out.append(max(haplotype[x] for x in sources) if known else None)
    return out


@given(st.integers(0, 4), st.integers(1, 22), VARIANTS)
def test_onto_the_reference(crop: int, count: int, variant: tuple[int, int, int]) -> None:
    start, ref_len, alt_len = variant
    bins = Bins(crop, 1, count)
    alt = np.random.default_rng(count).random((2, count, 3)).astype("f4")
    got, known = onto_reference(alt, bins, start, ref_len, alt_len)
    assert got.dtype == alt.dtype
    for batch in range(2):
        for track in range(3):
            values = alt[batch, :, track].tolist()
            wanted = loop_onto_reference(values, crop, start, ref_len, alt_len)
            assert known.tolist() == [x is not None for x in wanted]
            assert got[batch, :, track].tolist() == [x or 0.0 for x in wanted]


def test_an_insertion_and_a_deletion_by_hand() -> None:
    alt = np.array([1, 2, 9, 3, 4, 5], dtype=np.float32)[:, None]
    bins = Bins(10, 1, 6)
    # One base inserted in front of 12: its value 9 counts for the base before it.
    got, known = onto_reference(alt, bins, 12, 0, 1)
    assert (got[:, 0].tolist(), known.tolist()) == ([1, 9, 3, 4, 5, 0], [True] * 5 + [False])
    # Two bases deleted at 12.
    got, known = onto_reference(alt, bins, 12, 2, 0)
    assert (got[:, 0].tolist(), known.all()) == ([1, 2, 0, 0, 9, 3], True)


def test_substitutions_stay_where_they_are() -> None:
    alt = np.random.default_rng(0).random((5, 2))
    got, known = onto_reference(alt, Bins(0, 1, 5), 1, 3, 3)
    assert known.all()
    np.testing.assert_array_equal(got, alt)
    assert stitch_of(Bins(0, 4, 5), 1, 3, 3) is None


def test_larger_bins_are_not_put_on_single_bases() -> None:
    with pytest.raises(ValueError, match="stitched"):
        onto_reference(np.zeros((5, 1)), Bins(0, 2, 5), 1, 0, 1)


@given(
    st.integers(2, 5), st.integers(0, 2), st.integers(1, 6), VARIANTS.filter(lambda x: x[1] != x[2])
)
def test_stitched_haplotypes_line_up(
    size: int, crop: int, count: int, variant: tuple[int, int, int]
) -> None:
    """With a model that says which base of the reference a bin begins with, both alleles agree."""
    start, ref_len, alt_len = variant
    context = (count + 2 * crop) * size
    bins = bins_of(context, size, crop)
    stitch = stitch_of(bins, start, ref_len, alt_len)
    assert stitch is not None
    # Haplotypes as lists of reference bases; -1 is a base that the reference lacks.
    length = context + 20
    ref = list(range(length))
    alt = ref[:start] + [-1] * alt_len + ref[start + ref_len :] + [-1] * 20
    longer, shorter = (ref, alt) if ref_len > alt_len else (alt, ref)
    assert stitch.longer == ("ref" if ref_len > alt_len else "alt")
    assert stitch.shift == abs(ref_len - alt_len)

    def predict(haplotype: list[int], left: int) -> np.ndarray:
        window = haplotype[left : left + context]
        cut = window[crop * size : context - crop * size]
        return np.array(cut[::size], dtype=float)[:, None]

    long = stitch_tracks(stitch, predict(longer, 0), predict(longer, stitch.shift))[:, 0]
    short = predict(shorter, 0)[:, 0]
    for i, (one, other) in enumerate(zip(long, short, strict=True)):
        first = bins.first + i * size
        in_allele = start <= first < start + max(ref_len, alt_len)
        if not in_allele:
            assert one == other, (i, long, short)


def test_a_bin_of_the_variant_comes_from_the_first_prediction() -> None:
    bins = bins_of(24, 4, 1)  # bins at 4, 8, 12, 16
    first, second = np.zeros((4, 1)), np.ones((4, 1))
    for start, wanted in [(0, [1, 1, 1, 1]), (8, [0, 0, 1, 1]), (11, [0, 0, 1, 1]), (23, [0] * 4)]:
        stitch = stitch_of(bins, start, 0, 3)
        assert stitch is not None
        assert stitch_tracks(stitch, first, second)[:, 0].tolist() == wanted


# --- the other strand --------------------------------------------------------------------------


def test_predictions_of_the_other_strand() -> None:
    reverse = np.array([[1, 2, 3], [4, 5, 6]])  # tracks: plus, minus, unstranded
    got = flip_tracks(reverse, np.array([1, 0, 2]))
    assert got.tolist() == [[5, 4, 6], [2, 1, 3]]
    np.testing.assert_array_equal(flip_tracks(got, np.array([1, 0, 2])), reverse)


def test_maps_of_the_other_strand() -> None:
    maps = np.arange(9).reshape(1, 3, 3)
    got = flip_contacts(maps)
    assert all(got[0, i, j] == maps[0, 2 - i, 2 - j] for i in range(3) for j in range(3))


@pytest.mark.parametrize("diagonal", [0, 1, 2])
def test_upper_triangles(diagonal: int) -> None:
    bins = 6
    pairs = [(i, j) for i in range(bins) for j in range(bins) if j - i >= diagonal]
    upper = np.random.default_rng(3).random((2, len(pairs)))
    assert upper_bins(len(pairs), diagonal) == bins
    square = to_square(upper, diagonal)
    for number, (i, j) in enumerate(pairs):
        np.testing.assert_array_equal(square[:, i, j], upper[:, number])
        np.testing.assert_array_equal(square[:, j, i], upper[:, number])
    assert np.isnan(square).sum() == 2 * sum(
        abs(i - j) < diagonal for i in range(bins) for j in range(bins)
    )
    flipped = to_square(flip_upper(upper, bins, diagonal), diagonal)
    np.testing.assert_array_equal(flipped, flip_contacts(square))


def test_the_upper_triangle_of_akita() -> None:
    assert upper_bins(99_681, 2) == 448
    with pytest.raises(ValueError, match="no upper triangle"):
        upper_bins(99_682, 2)


# --- contact scores ----------------------------------------------------------------------------


def loop_insulation(matrix: list[list[float]], at: int, radius: int) -> float:
    count = len(matrix)
    before = [i for i in range(count) if at - radius <= i < at]
    after = [i for i in range(count) if at <= i < at + radius]

    def mean(rows: list[int], columns: list[int]) -> float:
        values = [matrix[i][j] for i in rows for j in columns]
        return sum(values) / len(values)

    floor = 30 * mean(list(range(count)), list(range(count)))
    inside = max(mean(before, before), mean(after, after))
    return (inside + floor) / (mean(before, after) + floor)


@pytest.mark.parametrize("radius", [1, 3, 50])
@pytest.mark.parametrize("at", [1, 4, 8])
def test_insulation_against_loops(at: int, radius: int) -> None:
    rng = np.random.default_rng(at)
    maps = rng.random((2, 9, 9)).astype("f4")
    got = insulation(maps, at, radius)
    wanted = [loop_insulation(m.tolist(), at, radius) for m in maps]
    np.testing.assert_allclose(got, wanted, rtol=1e-12)
    change = insulation_change(maps[0], maps[1], at, radius)
    assert change == pytest.approx(wanted[1] - wanted[0], abs=1e-12)
    assert insulation_change(maps[1], maps[0], at, radius) == -change
    assert insulation_change(maps[0], maps[0], at, radius) == 0


def test_insulation_by_hand() -> None:
    # Two domains of two bins: contacts 1 inside, 0 between. Mean 1/2, so p = 15.
    domains = np.kron(np.eye(2), np.ones((2, 2)))
    assert insulation(domains, 2) == pytest.approx(16 / 15)
    # Without the diagonal: 1 inside and 0 between still, the mean of twelve pairs is 1/3.
    domains[np.eye(4, dtype=bool)] = np.nan
    assert insulation(domains, 2) == pytest.approx(11 / 10)


@pytest.mark.parametrize("at", [-1, 0, 4])
def test_insulation_needs_bins_at_both_sides(at: int) -> None:
    assert np.isnan(insulation(np.ones((4, 4)), at))


def test_mean_difference_of_maps() -> None:
    ref, alt = np.zeros((2, 2, 2)), np.array([[[1.0, -2], [0, 0]], [[0, 0], [0, 4]]])
    assert contact_l1(ref, alt, "square").tolist() == [0.75, 1.0]
    assert contact_l1(alt, ref, "square").tolist() == [0.75, 1.0]
    assert contact_l1(alt, alt, "square").tolist() == [0.0, 0.0]
    assert contact_l1(np.zeros((1, 3)), np.array([[3.0, -3, 0]]), "upper").tolist() == [2.0]
