"""Measures against scikit-learn and scipy, resamples against plain loops, shuffles by counting."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from glm_annotate.evaluate.metrics import (
    auroc,
    average_precision,
    bootstrap,
    estimate,
    once,
    pearson,
    resamples,
    spearman,
    within,
)
from glm_annotate.evaluate.shuffle import shuffle_dinucleotides

# Few different numbers, so that there are ties.
_ROWS = st.lists(
    st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 3), st.integers(-2, 4)), min_size=2,
    max_size=30,
)  # fmt: skip


def columns(rows):
    values, positive, weights, other = (np.array(x) for x in zip(*rows, strict=True))
    return values * 0.5, positive, weights, other * 1.25


@given(_ROWS)
def test_classes_are_measured_as_scikit_learn_does(rows):
    metrics = pytest.importorskip("sklearn.metrics")
    values, positive, weights, _ = columns(rows)
    for drawn in (once(positive), weights):
        many = np.repeat(values, drawn), np.repeat(positive, drawn)
        found = auroc(values, positive)(drawn), average_precision(values, positive)(drawn)
        if not many[1].any():
            assert math.isnan(found[1])
        else:
            expected = metrics.average_precision_score(many[1], many[0])
            assert found[1] == pytest.approx(expected, abs=1e-12)
        if 0 < many[1].sum() < many[1].size:
            expected = metrics.roc_auc_score(many[1], many[0])
            assert found[0] == pytest.approx(expected, abs=1e-12)
        else:
            assert math.isnan(found[0])


@given(_ROWS)
def test_correlations_are_those_of_scipy(rows):
    values, _, weights, other = columns(rows)
    for drawn in (once(weights), weights):
        x, y = np.repeat(values, drawn), np.repeat(other, drawn)
        for measure, function in ((spearman, stats.spearmanr), (pearson, stats.pearsonr)):
            found = measure(values, other)(drawn)
            if x.size < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
                assert math.isnan(found)
            else:
                assert found == pytest.approx(function(x, y).statistic, abs=1e-12)


def test_ties_by_hand():
    values, positive = np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, True, False, True])
    # Pairs 2>1, 2=2, 3>1, 3>2: three and a half of four.
    assert auroc(values, positive)(once(positive)) == 3.5 / 4
    # 3 is found with precision 1, the other positive with 2 of 3.
    assert average_precision(values, positive)(once(positive)) == pytest.approx(0.5 + 0.5 * 2 / 3)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5.
    ranks = spearman(values, np.array([1.0, 2.0, 3.0, 4.0]))(once(positive))
    assert ranks == pytest.approx(4.5 / math.sqrt(4.5 * 5))


def test_a_constant_column_with_rounding_has_no_correlation():
    x = np.array([0.1 + 0.2, 0.3, 0.3])
    assert math.isnan(pearson(x, np.arange(3.0))(np.ones(3, dtype=np.int64)))


def test_intervals_are_those_of_a_plain_loop_with_the_same_seed():
    metrics = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(1)
    values, positive = draw.integers(0, 12, 60).astype(float), draw.random(60) < 0.4
    groups = positive.astype(int)
    measures = [auroc(values, positive), average_precision(values, positive)]
    found = bootstrap(measures, resamples(groups, 50, seed=9))

    again, expected = np.random.default_rng(9), []
    for _ in range(50):
        rows: list[int] = []
        for group in (0, 1):
            members = [i for i in range(60) if groups[i] == group]
            picks = again.integers(0, len(members), len(members))
            rows += [members[k] for k in picks]
        y, x = positive[rows], values[rows]
        expected.append([metrics.roc_auc_score(y, x), metrics.average_precision_score(y, x)])
    assert found == pytest.approx(np.array(expected), abs=1e-12)

    whole = estimate(measures[0](once(groups)), found[:, 0])
    ordered = sorted(row[0] for row in expected)
    # 2.5 % of 49 steps lie between the second and the third of 50.
    low = ordered[1] + 0.225 * (ordered[2] - ordered[1])
    high = ordered[47] + 0.775 * (ordered[48] - ordered[47])
    assert (whole.low, whole.high) == pytest.approx((low, high))
    assert whole.value == metrics.roc_auc_score(positive, values)


def test_resamples_keep_the_size_of_every_group():
    groups = np.array([2, 0, 0, 5, 2, 0])
    for weights in resamples(groups, 20, seed=3):
        assert [int(weights[groups == g].sum()) for g in (0, 2, 5)] == [3, 2, 1]
    drawn = [w.tolist() for w in resamples(groups, 20, seed=3)]
    assert drawn == [w.tolist() for w in resamples(groups, 20, seed=3)]
    assert drawn != [w.tolist() for w in resamples(groups, 20, seed=4)]


def test_the_mean_over_strata_leaves_out_what_has_no_value():
    parts = [lambda w: 0.5, lambda w: math.nan, lambda w: 0.8]
    assert within(parts, [3.0, 100.0, 1.0])(np.ones(1, int)) == pytest.approx(2.3 / 4)
    assert math.isnan(within(parts[1:2], [1.0])(np.ones(1, int)))


def test_an_estimate_without_samples_has_no_interval():
    found = estimate(0.5, np.array([]))
    assert found.value == 0.5
    assert math.isnan(found.low)
    assert math.isnan(found.high)


# --- shuffles ------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 4), max_size=80), st.integers(0, 1 << 30))
def test_a_shuffle_keeps_every_dinucleotide(letters, seed):
    codes = np.array(letters, dtype=np.uint8)
    found = shuffle_dinucleotides(codes, np.random.default_rng(seed))
    assert found.dtype == codes.dtype
    assert Counter(pairwise(found.tolist())) == Counter(pairwise(letters))
    assert found[:1].tolist() == letters[:1]
    assert found[-1:].tolist() == letters[-1:]


@pytest.mark.parametrize("text", ["01020103", "0011201", "01232130", "0123"])
def test_all_shuffles_are_equally_likely(text):
    letters = [int(x) for x in text]
    wanted = Counter(pairwise(letters))
    every = {
        (letters[0], *rest)
        for rest in permutations(letters[1:])
        if Counter(pairwise((letters[0], *rest))) == wanted
    }
    draw = np.random.default_rng(5)
    codes, times = np.array(letters, dtype=np.uint8), 3000
    found = Counter(tuple(shuffle_dinucleotides(codes, draw).tolist()) for _ in range(times))
    assert set(found) == every
    share = 1 / len(every)
    allowed = 5 * math.sqrt(times * share * (1 - share))
    assert all(abs(count - times * share) <= allowed for count in found.values())
