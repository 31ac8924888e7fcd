"""The ridge baseline against counting by hand, plain least squares and a loop of resamples."""

from __future__ import annotations

import numpy as np
import pytest

from glm_annotate.genome import reverse_complement, to_codes, to_text
from glm_annotate.train.supervised.measures import pearson
from glm_annotate.train.supervised.ridge import (
    NormalEquations,
    bootstrap,
    count_kmers,
    kmer_columns,
    resample,
)


def random_codes(size: int, seed: int = 0) -> np.ndarray:
    codes = np.random.default_rng(seed).integers(4, size=size).astype(np.uint8)
    codes[size // 3] = 4
    return codes


@pytest.mark.parametrize("canonical", [False, True])
def test_kmers_by_hand(canonical):
    codes = random_codes(95)
    text = to_text(codes)
    counts = count_kmers(codes, 20, 3, canonical=canonical)
    columns, width = kmer_columns(3, canonical=canonical)
    wanted = np.zeros((4, width))  # the last 15 bases are no bin
    for start in range(80):
        word = text[start : start + 3]
        if "N" not in word:
            number = sum("ACGT".index(x) * 4 ** (2 - i) for i, x in enumerate(word))
            wanted[start // 20, columns[number]] += 1
    np.testing.assert_array_equal(counts, wanted)
    if canonical:
        assert width == 32
        for number, column in enumerate(columns):
            word = "".join("ACGT"[number // 4 ** (2 - i) % 4] for i in range(3))
            turned = to_text(reverse_complement(to_codes(word)))
            other = sum("ACGT".index(x) * 4 ** (2 - i) for i, x in enumerate(turned))
            assert columns[other] == column


def test_ridge_is_the_minimum():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80, 6)) + 3, rng.normal(size=(80, 2))
    y[4, 0] = np.nan
    equations = NormalEquations(6, 2)
    for start in range(0, 80, 30):
        equations.add(x[start : start + 30], y[start : start + 30])
    known = np.isfinite(y).all(1)
    a, b = x[known], y[known]
    for strength, found in zip((0.0, 5.0), equations.solve((0.0, 5.0)), strict=True):
        # Least squares with rows that ask for weights of 0, and a free intercept.
        rows = np.hstack([a, np.ones((len(a), 1))])
        penalty = np.hstack([np.sqrt(strength) * np.eye(6), np.zeros((6, 1))])
        wide = np.vstack([rows, penalty])
        solved = np.linalg.lstsq(wide, np.vstack([b, np.zeros((6, 2))]), rcond=None)[0]
        np.testing.assert_allclose(found.weights, solved[:6], atol=1e-8)
        np.testing.assert_allclose(found.intercept, solved[6], atol=1e-8)
        np.testing.assert_allclose(found.predict(x), x @ solved[:6] + solved[6], atol=1e-7)


def test_features_that_depend_on_each_other():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3))
    x = np.hstack([x, x[:, :1]])  # a column twice
    y = x[:, :1] * 2 + 1
    equations = NormalEquations(4, 1)
    equations.add(x, y)
    [found] = equations.solve((0.0,))
    np.testing.assert_allclose(found.predict(x), y, atol=1e-8)


def test_intervals_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    wanted = [rng.normal(size=n) for n in (5, 9, 7, 6)]
    found = [x + rng.normal(size=x.size) for x in wanted]
    other = [x + 3 * rng.normal(size=x.size) for x in wanted]
    drawn = resample([(found, wanted), (other, wanted)], count=200, seed=1)
    times = np.random.default_rng(1).multinomial(4, [0.25] * 4, size=200)
    for row, number in zip(drawn, times, strict=True):
        blocks = [i for i, n in enumerate(number) for _ in range(n)]
        for value, predictions in zip(row, (found, other), strict=True):
            pair = [np.concatenate([x[i] for i in blocks]) for x in (predictions, wanted)]
            assert value == pytest.approx(pearson(*pair), abs=1e-9)
    interval = bootstrap(found, wanted, count=200, seed=1)
    assert interval.value == pytest.approx(pearson(np.concatenate(found), np.concatenate(wanted)))
    low, high = np.percentile(drawn[:, 0], [2.5, 97.5])
    assert (interval.low, interval.high) == pytest.approx((low, high))
