"""Runs of hidden rows, tokens of every encoder, next rows and InfoNCE, by hand and by counting."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from glm_annotate.encoding import EncoderSpec, make_encoder
from glm_annotate.errors import InputError
from glm_annotate.genome import to_codes
from glm_annotate.train.config import MaskConfig
from glm_annotate.train.language import row_weights
from glm_annotate.train.losses import (
    IGNORED,
    Runs,
    info_nce,
    mask_batch,
    next_labels,
    runs_of,
    shifted,
)
from glm_annotate.train.tokens import encode_block, read_tokens

MASK = 4


def kmers(k: int, stride: int = 1, **vocab):
    """DNABERT's k-mers: [CLS] 2, [SEP] 3, [MASK] 4, words from 5 on."""
    keys = {"first_id": 5, "pad_id": 0, "unk_id": 1, "mask_id": MASK, "prefix": [2], "suffix": [3]}
    spec = {"kind": "kmer", "k": k, "stride": stride, "vocab": {**keys, **vocab}}
    return make_encoder(EncoderSpec.model_validate(spec))


def tokens_of(encoder):
    return read_tokens(encoder.spec, encoder)


@pytest.mark.parametrize(
    ("runs", "rate"),
    [
        (Runs(extra=5), 0.15),
        (Runs(), 0.3),
        (Runs(5.0, 10), 0.15),
        (Runs(2.0, 4, extra=2), 0.4),
    ],
)
def test_the_rate_of_starts_gives_the_rate_of_rows(runs, rate):
    """The chance of every pattern of starts and lengths before a row, added up."""
    reach = runs.longest + runs.extra
    start = runs.start_rate(rate)
    stop = 1 / runs.mean
    lengths = {}
    for n in range(1, runs.longest + 1):
        chance = (1 - stop) ** (n - 1) * (stop if n < runs.longest else 1)
        lengths[n + runs.extra] = chance
    free = 1.0
    for distance in range(reach):
        free *= 1 - start * sum(p for n, p in lengths.items() if n > distance)
    assert sum(lengths.values()) == pytest.approx(1)
    assert 1 - free == pytest.approx(rate, abs=1e-9)


@pytest.mark.parametrize("runs", [Runs(extra=5), Runs(5.0, 10), Runs(2.0, 4, extra=2)])
def test_every_row_is_as_likely(runs):
    """At the edges too; counts of 20,000 windows within five deviations."""
    count, rate = 20_000, 0.2
    chosen = runs.draw((count, 12), rate, np.random.default_rng(0))
    deviation = math.sqrt(count * rate * (1 - rate))
    assert (abs(chosen.sum(axis=0) - count * rate) < 5 * deviation).all()


def test_span_lengths_are_geometric():
    """Runs far apart: lengths of those that begin and end inside, against their shares."""
    runs = Runs(3.0, 5)
    chosen = runs.draw((400, 2000), 0.004, np.random.default_rng(1))
    found = [len(list(g)) for row in chosen for key, g in itertools.groupby(row) if key]
    stop = 1 / 3
    shares = [stop, (2 / 3) * stop, (2 / 3) ** 2 * stop, (2 / 3) ** 3 * stop, (2 / 3) ** 4]
    for length, share in enumerate(shares, 1):
        expected = len(found) * share
        # A few runs meet another.
        assert abs(found.count(length) - expected) < 6 * math.sqrt(expected) + 0.01 * len(found)


@pytest.mark.parametrize("k", [3, 6])
def test_contiguous_masks_hide_a_base_wholly(k):
    """Undo it from what is left: rows that stay readable must not cover the hidden bases."""
    encoder, rng = kmers(k), np.random.default_rng(2)
    codes = rng.integers(4, size=(300, 40)).astype(np.uint8)
    rows = encoder.encode(codes)[0].rows.astype(np.int64)
    tokens = tokens_of(encoder)
    runs = runs_of(MaskConfig(scheme="contiguous"), tokens)
    masked = mask_batch(rows, tokens, rng, rate=0.15, runs=runs)
    hidden = masked.rows == MASK
    assert np.array_equal(hidden, masked.labels != IGNORED)
    assert abs(hidden[:, 1:-1].mean() - 0.15) < 0.01
    assert not hidden[:, [0, -1]].any()  # [CLS] and [SEP]
    width = rows.shape[1] - 2
    covers = [set(range(max(0, b - k + 1), min(b, width - 1) + 1)) for b in range(40)]
    for row in hidden[:, 1:-1]:
        readable = [not row[sorted(cover)].all() for cover in covers]
        for asked, group in itertools.groupby(range(width), key=row.__getitem__):
            run = set(group)
            if asked:
                assert not all(readable[b] for b in range(40) if covers[b] <= run)


def test_rows_of_a_run_share_their_fate():
    """Kept, replaced or hidden together, since one left readable tells of its neighbours."""
    encoder, rng = kmers(3), np.random.default_rng(3)
    codes = rng.integers(4, size=(500, 40)).astype(np.uint8)
    rows = encoder.encode(codes)[0].rows.astype(np.int64)
    tokens = tokens_of(encoder)
    runs = runs_of(MaskConfig(scheme="contiguous"), tokens)
    masked = mask_batch(rows, tokens, rng, rate=0.1, keep=0.3, random=0.3, runs=runs)
    fates = {"hidden": 0, "kept": 0, "random": 0}
    for before, after, labels in zip(rows, masked.rows, masked.labels, strict=True):
        for asked, group in itertools.groupby(range(rows.shape[1]), key=lambda i: labels[i] >= 0):
            run = list(group)
            if not asked:
                continue
            same, hidden = before[run] == after[run], after[run] == MASK
            assert hidden.all() or not hidden.any()
            fates["hidden" if hidden.all() else "kept" if same.all() else "random"] += 1
    count = sum(fates.values())
    for fate, share in {"hidden": 0.4, "kept": 0.3, "random": 0.3}.items():
        assert abs(fates[fate] - share * count) < 6 * math.sqrt(count * share * (1 - share))


def test_single_rows_of_overlapping_words_are_refused():
    with pytest.raises(InputError, match=r"mask\.scheme: found single, but k-mers overlap"):
        runs_of(MaskConfig(), tokens_of(kmers(3)))
    assert runs_of(MaskConfig(), tokens_of(kmers(3, 3, single_ids=SINGLES))) is None
    assert runs_of(MaskConfig(scheme="span", span=2, span_max=4), tokens_of(kmers(3))) == Runs(
        2.0, 4, 2
    )


SINGLES = dict(zip("ACGTN", range(70, 75), strict=True))


def test_words_and_tails_count_their_bases():
    tokens = tokens_of(kmers(3, 3, single_ids=SINGLES))
    assert sorted(tokens.ids) == [*range(5, 69), 70, 71, 72, 73]
    assert tokens.count(np.array([5, 68, 70, 73])) == 3 + 3 + 1 + 1
    assert tokens_of(kmers(3)).count(np.array([5, 6, 68])) == 3  # one base further each
    assert tokens_of(kmers(5, 2)).overlap == 3


def test_rows_are_cut_and_filled():
    encoder = kmers(3, 3, single_ids=SINGLES)
    codes = to_codes("ACGACGACNACG").reshape(2, 6)
    # ACG ACG and A C N ACG, between [CLS] and [SEP].
    assert [x.rows.shape[1] for x in encoder.encode(codes)] == [4, 6]
    acg = 5 + 0 * 16 + 1 * 4 + 2
    block = encode_block(encoder, codes, 5)
    assert block.rows.tolist() == [[2, acg, acg, 3, 0], [2, 70, 71, 74, 3]]
    assert block.weights is None
    with pytest.raises(InputError, match=r"data\.rows: found 9, a window has only 4 and .* no pad"):
        encode_block(kmers(3, 3, single_ids=SINGLES, pad_id=None, unk_id=None, n="mask"), codes, 9)


def test_rows_weigh_what_their_bases_do():
    """Two of four bases lower-case at weight 0.1: 0.55; specials 1."""
    encoder = kmers(4, 4, single_ids=SINGLES)
    soft = np.array([[True, True, False, False, True, True, True, True]])
    block = encode_block(encoder, to_codes("ACGTACGT")[None], None, soft, 0.1)
    np.testing.assert_allclose(block.weights, [[1, 0.55, 0.1, 1]], rtol=1e-6)
    cut = encode_block(encoder, to_codes("ACGTACGT")[None], 6, soft, 0.1)
    np.testing.assert_allclose(cut.weights, [[1, 0.55, 0.1, 1, 1, 1]], rtol=1e-6)


def test_weights_of_bases_and_repeats_multiply():
    by_id = np.array([1, 2, 4], dtype=np.float32)
    labels = np.array([[1, IGNORED, 2]])
    weights = np.array([[0.5, 0.5, 1]], dtype=np.float32)
    assert row_weights(None, labels, None) is None
    assert row_weights(None, labels, by_id).tolist() == [[2, 1, 4]]
    assert row_weights(weights, labels, by_id).tolist() == [[1, 0.5, 4]]


def test_next_rows():
    """Each row is asked for the next; special tokens and N never, the last row nothing."""
    encoder = kmers(1, single_ids={"N": 1})
    rows = encoder.encode(to_codes("ACNGT")[None])[0].rows.astype(np.int64)
    assert rows.tolist() == [[2, 5, 6, 1, 7, 8, 3]]
    labels = next_labels(rows, tokens_of(encoder))
    assert labels.tolist() == [[5, 6, IGNORED, 7, 8, IGNORED, IGNORED]]
    weights = np.arange(7, dtype=np.float32)[None]
    assert shifted(weights).tolist() == [[1, 2, 3, 4, 5, 6, 0]]


def test_info_nce_by_hand():
    one = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 3.0]])
    other = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 5.0]])
    root = 1 / math.sqrt(2)
    cosines = [[1, root, 0], [0, root, 1], [root, 1, root]]
    scores = [[c / 0.5 for c in row] for row in cosines]

    def lost(values, index):
        return math.log(sum(math.exp(v) for v in values)) - values[index]

    forward = sum(lost(scores[i], i) for i in range(3))
    backward = sum(lost([row[i] for row in scores], i) for i in range(3))
    sets = torch.tensor([0, 1, 2])
    assert float(info_nce(one, other, sets, 0.5, symmetric=False)) == pytest.approx(forward)
    assert float(info_nce(one, other, sets, 0.5)) == pytest.approx((forward + backward) / 2)
    # Pairs 0 and 2 are of one set: neither is held against the other.
    sets = torch.tensor([7, 1, 7])
    left = [[scores[0][0], scores[0][1]], scores[1], [scores[2][1], scores[2][2]]]
    expected = lost(left[0], 0) + lost(left[1], 1) + lost(left[2], 1)
    assert float(info_nce(one, other, sets, 0.5, symmetric=False)) == pytest.approx(expected)
