"""Masking and losses, against counts and sums done by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from glm_annotate.encoding import EncoderSpec, make_encoder
from glm_annotate.errors import InputError
from glm_annotate.train.config import MaskConfig
from glm_annotate.train.losses import (
    IGNORED,
    base_loss,
    class_weights,
    mask_batch,
    summed_loss,
    total_weight,
)
from glm_annotate.train.tokens import read_tokens

PAD, MASK, N, A, C, G, T = range(7)
BASES = [A, C, G, T]


def encoder(**keys):
    vocab = {"first_id": A, "single_ids": {"N": N}, "pad_id": PAD, "mask_id": MASK, **keys}
    return make_encoder(EncoderSpec.model_validate({"kind": "kmer", "vocab": vocab}))


def tokens(**keys):
    found = encoder(**keys)
    return read_tokens(found.spec, found)


def many_rows() -> np.ndarray:
    """Rows in which every fourth id is no base."""
    rows = np.random.default_rng(0).choice(BASES, size=(200, 400))
    rows[:, ::4] = np.random.default_rng(1).choice([PAD, MASK, N], size=(200, 100))
    return rows


def near(count: int, size: int, share: float) -> bool:
    """Within six standard deviations of a binomial."""
    return abs(count - size * share) < 6 * math.sqrt(size * share * (1 - share)) + 1e-9


@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_rates_and_fates(rate):
    rows = many_rows()
    masked = mask_batch(
        rows, tokens(), np.random.default_rng(2), rate=rate, keep=0.1, random=0.1
    )  # fmt: skip
    asked = masked.labels != IGNORED
    bases = np.isin(rows, BASES)
    assert not (asked & ~bases).any()  # specials and N are never predicted
    assert near(asked.sum(), bases.sum(), rate)
    np.testing.assert_array_equal(masked.labels[asked], rows[asked])
    np.testing.assert_array_equal(masked.rows[~asked], rows[~asked])
    shown = masked.rows[asked]
    size = shown.size
    assert set(np.unique(shown)) == {MASK, *BASES}
    assert near((shown == MASK).sum(), size, 0.8)
    # A random base is the true one in a quarter of the cases.
    assert near((shown == rows[asked]).sum(), size, 0.1 + 0.1 / 4)


def test_all_are_masked_by_default():
    rows = many_rows()
    masked = mask_batch(rows, tokens(), np.random.default_rng(3), rate=0.5)
    assert (masked.rows[masked.labels != IGNORED] == MASK).all()


def test_replacements_are_even_over_bases():
    rows = np.full((100, 400), A)
    masked = mask_batch(rows, tokens(), np.random.default_rng(4), rate=1.0, random=1.0)
    for base in BASES:
        assert near((masked.rows == base).sum(), rows.size, 0.25)


def test_same_numbers_same_masks_and_the_input_stays():
    rows = many_rows()
    before = rows.copy()
    one, other = (mask_batch(rows, tokens(), np.random.default_rng(5), rate=0.2) for _ in "12")
    np.testing.assert_array_equal(one.rows, other.rows)
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(rows, before)


def test_base_tokens_follow_the_encoder():
    assert tokens(order="TGCA").ids.tolist() == [T, G, C, A]


def test_masks_need_a_mask():
    with pytest.raises(InputError, match=r"mask_id: masked training needs one, found none"):
        mask_batch(many_rows(), tokens(mask_id=None), np.random.default_rng(0), rate=0.1)


def log_softmax(values: list[float], index: int) -> float:
    return values[index] - math.log(sum(math.exp(v) for v in values))


LOGITS = [[0.5, -1.0, 2.0, 1.0, 0.0, -0.5, 0.25], [0.0, 3.0, 0.0, -2.0, 1.5, 0.5, 1.0]]


def test_cross_entropy_by_hand():
    logits = torch.tensor([[LOGITS[0], [9.0] * 7, LOGITS[1]]])
    labels = torch.tensor([[A, IGNORED, T]])
    losses = [-log_softmax(LOGITS[0], A), -log_softmax(LOGITS[1], T)]
    assert float(summed_loss(logits, labels)) == pytest.approx(sum(losses), rel=1e-6)
    assert float(total_weight(labels)) == 2
    weights = torch.tensor([[1.0, 7.0, 3.0]])
    weighted = losses[0] + 3 * losses[1]
    assert float(summed_loss(logits, labels, weights)) == pytest.approx(weighted, rel=1e-6)
    assert float(total_weight(labels, weights)) == 4


def test_base_loss_by_hand_looks_at_the_four_bases_alone():
    logits = torch.tensor([[LOGITS[0], [9.0] * 7, LOGITS[1]]])
    labels = torch.tensor([[A, IGNORED, T]])
    order = [T, G, C, A]  # ids of A, C, G, T of another vocabulary: any order will do
    expected = -sum(
        log_softmax([row[i] for i in BASES], BASES.index(label))
        for row, label in zip(LOGITS, (A, T), strict=True)
    )
    for ids in (BASES, order):
        total, count = base_loss(logits, labels, torch.tensor(ids))
        assert total == pytest.approx(expected, rel=1e-6)
        assert count == 2


def test_class_weights():
    assert class_weights(tokens(), MaskConfig(), 7) is None
    weights = class_weights(tokens(), MaskConfig(weights={"C": 2.0, "T": 0.5}), 7)
    assert weights.tolist() == [1, 1, 1, 1, 2.0, 1, 0.5]
    with pytest.raises(InputError, match="'N', allowed are A, C, G and T"):
        class_weights(tokens(), MaskConfig(weights={"N": 2.0}), 7)
