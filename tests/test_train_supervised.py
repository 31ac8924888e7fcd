"""Supervised training: losses, transforms, splits, leakage and figures, against other oracles."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from pydantic import ValidationError
from supervised_kit import random_text, write_fasta

from glm_annotate.errors import InputError
from glm_annotate.genome import Genome, Interval, N, reverse_complement, to_codes, to_text
from glm_annotate.track_transforms import parse_transform, transforms_of
from glm_annotate.train.supervised import losses
from glm_annotate.train.supervised.config import (
    LeakageConfig,
    LossConfig,
    SplitConfig,
    SupervisedConfig,
    TrackConfig,
)
from glm_annotate.train.supervised.leakage import (
    check_split,
    clusters,
    hash_words,
    sketch,
    without_adapters,
)
from glm_annotate.train.supervised.measures import (
    Correlation,
    auroc,
    average_precision,
    pearson,
    spearman,
)
from glm_annotate.train.supervised.splits import assign, split_genome
from glm_annotate.train.supervised.stored import Bins, transform_of
from glm_annotate.train.supervised.targets import resolve

NAN = float("nan")


# Losses


@pytest.mark.parametrize(
    ("key", "settings"),
    [("a", {}), ("b", {"weight_range": 8.0, "weight_exp": 6})],
    ids=["plain", "weighted"],
)
def test_poisson_multinomial_is_borzois(shared_dir, key, settings):
    golden = np.load(shared_dir / "models" / "golden" / "borzoi_losses.npz")
    config = LossConfig(kind="poisson_multinomial", total_weight=0.2, **settings)
    found, wanted = (torch.from_numpy(golden[x]) for x in ("yp", "yt"))
    weights = losses.position_weights(wanted.shape[1], config)[None, :, None]
    each = losses.poisson_multinomial(found, wanted, weights, 0.2)
    np.testing.assert_allclose(each.numpy(), golden[key], atol=5e-5)
    mean = losses.total(found, wanted, config) / losses.weight(wanted, config)
    assert mean.item() == pytest.approx(golden[key].mean(), abs=5e-5)


def test_poisson_is_borzois(shared_dir):
    golden = np.load(shared_dir / "models" / "golden" / "borzoi_losses.npz")
    each = losses.poisson(torch.from_numpy(golden["yp"]), torch.from_numpy(golden["yt"]))
    np.testing.assert_allclose(each.mean(-1).numpy(), golden["p"], atol=2e-6)


def test_losses_by_hand():
    found, wanted = torch.tensor([[[2.0], [4.0]]]), torch.tensor([[[1.0], [3.0]]])

    def mean(**keys):
        config = LossConfig(**keys)
        return (losses.total(found, wanted, config) / losses.weight(wanted, config)).item()

    assert mean(kind="poisson") == pytest.approx((2 - math.log(2) + 4 - 3 * math.log(4)) / 2)
    assert mean(kind="mse") == pytest.approx(1.0)
    # Both bins together: 6 predicted, 4 measured.
    coarse = 6 - 4 * math.log(6)
    fine = (2 - math.log(2) + 4 - 3 * math.log(4)) / 2
    assert mean(kind="poisson", coarse=2, coarse_weight=0.5) == pytest.approx(
        fine + 0.5 * coarse, abs=1e-6
    )
    spread = -(math.log(2 / 6) + 3 * math.log(4 / 6))
    assert mean(kind="poisson_multinomial", total_weight=0.2) == pytest.approx(
        (spread + 0.2 * coarse) / 2, abs=1e-5
    )


def test_cross_entropy_by_hand():
    found, wanted = torch.tensor([[[0.8, 0.3]]]), torch.tensor([[[1.0, 0.0]]])
    loss = losses.total(found, wanted, LossConfig(kind="bce"))
    assert loss.item() == pytest.approx(-math.log(0.8) - math.log(0.7), abs=1e-6)
    edge = torch.tensor([[[0.0, 1.0]]], requires_grad=True)
    losses.total(edge, wanted, LossConfig(kind="bce")).backward()
    assert edge.grad is not None
    assert edge.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["poisson", "poisson_multinomial", "mse", "bce"])
def test_what_was_not_measured_does_not_count(kind):
    rng = torch.Generator().manual_seed(0)
    found = torch.rand(3, 8, 2, generator=rng) * 0.8 + 0.1
    wanted = torch.rand(3, 8, 2, generator=rng)
    wanted[1, 2:5, 0] = wanted[0, :, 1] = NAN
    config = LossConfig(kind=kind, total_weight=0.3, weight_range=4.0)
    moved = torch.where(wanted.isnan(), found * 0 + 0.5, found)
    assert losses.total(found, wanted, config) == losses.total(moved, wanted, config)
    # The same sums when the hidden numbers are left out altogether, one window and track a time.
    places = losses.position_weights(8, config)
    total, weight = 0.0, 0.0
    for b in range(3):
        for t in range(2):
            kept = ~wanted[b, :, t].isnan()
            if not kept.any():
                continue
            x, y, w = found[b, kept, t].double(), wanted[b, kept, t].double(), places[kept]
            if kind == "poisson_multinomial":
                a, c = x * w, y * w
                one = -(c * (a / a.sum()).log()).sum()
                one += 0.3 * (a.sum() - c.sum() * a.sum().log())
                total, weight = total + one.item() / w.sum().item(), weight + 1
                continue
            each = {
                "poisson": x - y * x.log(),
                "mse": (x - y) ** 2,
                "bce": -(y * x.log() + (1 - y) * (1 - x).log()),
            }[kind]
            total, weight = total + (each * w).sum().item(), weight + w.sum().item()
    assert losses.total(found, wanted, config).item() == pytest.approx(total, rel=1e-5)
    assert losses.weight(wanted, config).item() == pytest.approx(weight, rel=1e-6)


@pytest.mark.parametrize("kind", ["poisson", "poisson_multinomial"])
def test_parts_of_a_batch_add_up(kind):
    found, wanted = torch.rand(5, 6, 2) + 0.1, torch.rand(5, 6, 2)
    wanted[0, 1:] = NAN
    config = LossConfig(kind=kind, coarse=3)
    for figure in (lambda s: losses.weight(wanted[s], config),
                   lambda s: losses.total(found[s], wanted[s], config)):  # fmt: skip
        whole = figure(slice(None)).item()
        assert figure(slice(0, 1)).item() + figure(slice(1, 5)).item() == pytest.approx(whole)


def test_position_weights():
    weights = losses.position_weights(9, LossConfig(weight_range=5.0, weight_exp=2))
    assert weights[4] == 1
    np.testing.assert_allclose(weights[[0, 8]], 0.2, rtol=1e-6)
    assert (losses.position_weights(9, LossConfig()) == 1).all()


# Transforms


@pytest.mark.parametrize(
    ("keys", "cells", "wanted"),
    [
        ({"sum_stat": "sum"}, [[3, 4]], 7),
        ({"sum_stat": "mean"}, [[3, 4]], 7 / 4),  # 2 cells of 2 bases
        ({"sum_stat": "max"}, [[3, 4]], 4),
        # Scale first, root, soft clip, hard clip: 0.5 * 100 = 50; sqrt(51) - 1 = 6.1414.
        ({"sum_stat": "sum_sqrt", "scale": 0.5}, [[40, 60]], math.sqrt(51) - 1),
        (
            {"sum_stat": "sum_sqrt", "scale": 0.5, "clip_soft": 4},
            [[40, 60]],
            4 - 1 + math.sqrt(math.sqrt(51) - 1 - 4 + 1),
        ),
        ({"sum_stat": "sum_sqrt", "scale": 0.5, "clip": 5}, [[40, 60]], 5),
        ({"sum_stat": "sum_exp75"}, [[8, 7]], 16**0.75 - 1),
        # The old order: root (power 3/4), soft clip, hard clip, scale.
        (
            {"version": "old", "sum_stat": "sum_sqrt", "scale": 3, "clip_soft": 5},
            [[10, 6]],
            3 * (5 + math.sqrt(8 - 5)),
        ),
        ({"version": "old", "sum_stat": "sum", "scale": 3, "clip": 10}, [[10, 6]], 30),
        ({"sum_stat": "sum", "log1p": True, "clip": 50}, [[40, 60]], math.log1p(50)),
    ],
)  # fmt: skip
def test_bins_by_hand(keys, cells, wanted):
    bins = Bins([TrackConfig(identifier="a", **keys)], size=4, resolution=2)
    found = bins.make(np.array(cells, dtype=np.float32).T)
    assert found.shape == (1, 1)
    assert found[0, 0] == pytest.approx(wanted, rel=1e-6)


def test_a_cell_without_a_value_leaves_its_bin_without_one():
    bins = Bins([TrackConfig(identifier=x, sum_stat=x) for x in ("sum", "mean", "max")], 4, 2)
    cells = np.array([[1, 1, 1], [NAN, NAN, NAN], [2, 2, 2], [3, 3, 3]], dtype=np.float32)
    np.testing.assert_allclose(bins.make(cells), [[NAN] * 3, [5, 1.25, 3]])


@pytest.mark.parametrize("version", ["new", "old"])
@pytest.mark.parametrize("statistic", ["sum", "mean", "sum_sqrt", "mean_sqrt", "sum_exp75"])
def test_what_training_transforms_scoring_takes_back(version, statistic):
    if version == "old" and statistic == "sum_exp75":
        with pytest.raises(InputError, match="track 'a'"):
            transform_of(TrackConfig(identifier="a", version=version, sum_stat=statistic))
        return
    track = TrackConfig(
        identifier="a", version=version, sum_stat=statistic, scale=0.3, clip_soft=6.0
    )
    values = np.linspace(0, 3000, 200)[:, None]
    squashed = Bins([track], size=8, resolution=8).squash(values)
    assert squashed.max() < values.max()
    table = transforms_of([parse_transform(transform_of(track).text)], [6.0], [0.3])
    np.testing.assert_allclose(table.invert(squashed, unscale=True), values, rtol=2e-4, atol=1e-3)


def test_version_none_cannot_squash():
    with pytest.raises(InputError, match="version none has no scale"):
        transform_of(TrackConfig(identifier="a", version="none", scale=2))


# Config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "found none"),
        ({"labels": {"satori": "x"}, "regression": {"table": "x"}}, "found labels and regression"),
        ({"labels": {"fasta": "x", "bed": "y"}}, "needs a split"),
        ({"regression": {"vcf": "x"}}, "needs fasta, key and a split"),
        ({"regression": {"table": "x", "fold": "f"}}, "give both or neither"),
        ({"labels": {"satori": "x"}, "loss": {"coarse": 1}}, "coarse is 1"),
        ({"labels": {"satori": "x"}, "loss": {"weight_exp": 3}}, "must be even"),
        ({"labels": {"satori": "x", "split": {"valid": []}}}, "at least 1"),
        ({"labels": {"satori": "x", "split": {"valid": ["a"], "test": ["a"]}}}, "stands twice"),
        (
            {"tracks": {"bin": 8, "resolution": 3,
                        "species": [{"fasta": "x", "split": {"valid": ["a"]}}]}},
            "does not divide",
        ),
    ],
)  # fmt: skip
def test_contradictions_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        SupervisedConfig.model_validate(values)


def tracks_with(targets: str) -> SupervisedConfig:
    species = {"fasta": "x.fa", "split": {"valid": ["b"]}, "targets": targets}
    return SupervisedConfig.model_validate({"tracks": {"bin": 8, "species": [species]}})


def test_a_table_of_targets_goes_into_the_config(tmp_path):
    (tmp_path / "t.tsv").write_text(
        "\tidentifier\tfile\tclip\tclip_soft\tscale\tsum_stat\tstrand_pair\tdescription\n"
        "0\tr+\tp.bw\t768\t384\t0.3\tsum_sqrt\t1\tRNA:liver\n"
        "1\tr-\tm.bw\t768\t384\t0.3\tsum_sqrt\t0\tRNA:liver\n"
        "2\tatac\ta.bw\t\t\t2\tmean\t2\tATAC:liver\n"
    )
    (species,) = resolve(tracks_with("t.tsv"), tmp_path).tracks.species
    plus, minus, atac = species.track
    assert (plus.strand_pair, minus.strand_pair, atac.strand_pair) == ("r-", "r+", "")
    assert (plus.clip, plus.clip_soft, plus.scale, plus.sum_stat) == (768, 384, 0.3, "sum_sqrt")
    assert (atac.clip, atac.scale, atac.file) == (None, 2, "a.bw")
    assert species.targets is None


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "cannot read"), ("identifier\tscale\na\t-1\n", r"line 2: scale")],
)
def test_a_bad_table_of_targets(tmp_path, text, message):
    if text is not None:
        (tmp_path / "t.tsv").write_text(text)
    with pytest.raises(InputError, match=message):
        resolve(tracks_with("t.tsv"), tmp_path)


# Splits and leakage


@pytest.fixture
def genome(tmp_path):
    contigs = {name: random_text(3000, seed) for seed, name in enumerate("abc")}
    contigs["d"] = contigs["a"][:1000] + random_text(2000, 9)
    # A reverse complement of a part of b, which is a copy all the same.
    flipped = to_text(reverse_complement(to_codes(contigs["b"][1000:2000])))
    contigs["e"] = random_text(2000, 10) + flipped
    return Genome(write_fasta(tmp_path / "g.fa", contigs))


def test_splits_by_contig(genome, tmp_path):
    split = split_genome(SplitConfig(valid=("b",), test=("c",)), genome, tmp_path)
    assert [x.chrom for x in split.train] == ["a", "d", "e"]
    assert split.valid == (Interval("b", 0, 3000),)
    assert split.used == ("a", "d", "e", "b")  # c is never read
    assert split.whole


def test_splits_by_fold(genome, tmp_path):
    (tmp_path / "folds.bed").write_text("a\t0\t1000\tf0\na\t1000\t3000\tf1\nb\t0\t500\tf2\n")
    config = SplitConfig(train=("f0",), valid=("f1",), test=("f2",), folds="folds.bed")
    split = split_genome(config, genome, tmp_path)
    assert (split.train, split.valid) == ((Interval("a", 0, 1000),), (Interval("a", 1000, 3000),))
    assert not split.whole
    with open(tmp_path / "folds.bed", "a") as handle:
        handle.write("a\t900\t1200\tf2\n")
    with pytest.raises(InputError, match="overlaps a stretch of another part"):
        split_genome(config, genome, tmp_path)


def test_names_that_are_not_there():
    with pytest.raises(InputError, match="has no 'z'"):
        assign(SplitConfig(valid=("z",)), ["a", "b"], "file")
    with pytest.raises(InputError, match="nothing of file is left"):
        assign(SplitConfig(valid=("a",), test=("b",)), ["a", "b"], "file")


def test_words_are_the_same_on_both_strands():
    codes = to_codes("ACGTTGCANACGGATTACA")
    forward, known = hash_words(codes, 5)
    backward, other = hash_words(reverse_complement(codes), 5)
    np.testing.assert_array_equal(forward[known], backward[other][::-1])
    text = "ACGTTGCANACGGATTACA"
    assert known.tolist() == ["N" not in text[i : i + 5] for i in range(len(text) - 4)]
    # As many hashes as there are words, a word and its reverse complement being one.
    words = {text[i : i + 5] for i in range(15) if known[i]}
    both = {min(w, to_text(reverse_complement(to_codes(w)))) for w in words}
    assert len(set(forward[known].tolist())) == len(both)


def test_sketches_keep_their_share():
    codes = np.random.default_rng(0).integers(4, size=200_000).astype(np.uint8)
    kept = sketch([codes], 21, 10).size
    assert abs(kept - 20_000) < 6 * math.sqrt(200_000 * 0.09)
    assert np.isin(sketch([codes[50_000:]], 21, 10), sketch([codes], 21, 10)).all()


@pytest.mark.parametrize(
    ("train", "held", "share"),
    [("abc", "d", 1 / 3), ("ab", "c", 0), ("bc", "e", 1 / 3), ("c", "e", 0), ("abc", "de", 1 / 3)],
)
def test_copies_are_found_on_either_strand(genome, train, held, share):
    config = LeakageConfig(window=500, scaled=1, allow=True)
    parts = [[Interval(x, 0, 3000) for x in names] for names in (train, held)]
    found = check_split(genome, *parts, config)
    assert found.windows == 6 * len(held)
    assert found.share == pytest.approx(share)
    # Of 500 - 20 words of a window that straddles nothing, each is there or none is.
    assert found.mean == pytest.approx(share, abs=0.03)
    if share:
        assert found.worst == 1
        with pytest.raises(InputError, match=r"supervised\.leakage\.allow = true"):
            check_split(genome, *parts, config.model_copy(update={"allow": False}))


def test_soft_masked_bases_are_left_out(tmp_path):
    repeat, rest = random_text(1000, 1), random_text(1000, 2)
    path = write_fasta(tmp_path / "m.fa", {"a": repeat.lower() + rest, "b": repeat})
    genome = Genome(path)
    parts = [Interval("a", 0, 2000)], [Interval("b", 0, 1000)]
    plain = LeakageConfig(window=500, scaled=1, allow=True)
    assert check_split(genome, *parts, plain).share == 0
    whole = plain.model_copy(update={"soft_masked": True})
    assert check_split(genome, *parts, whole).share == 1


def test_sequences_that_hang_together():
    # 0 and 1 share their ends, 1 and 3 theirs on the other strand; 2 and 4 are alone.
    texts = [random_text(60, seed) for seed in range(5)]
    adapter = random_text(30, 50)
    texts[1] = texts[0][30:] + texts[1][30:]
    texts[3] = to_text(reverse_complement(to_codes(texts[1][30:]))) + texts[3][30:]
    wanted = [0, 0, 2, 0, 4]
    assert clusters([to_codes(t) for t in texts], 21).tolist() == wanted
    framed = [to_codes(adapter[:17] + t + adapter[17:]) for t in texts]
    assert clusters(framed, 13).tolist() == [0] * 5
    bare = without_adapters(framed)
    # A random base beside an adapter may be one that most have there too.
    assert all((x[:17] == N).all() and (x[-13:] == N).all() for x in bare)
    assert all((x[20:-16] < 4).all() for x in bare)
    assert clusters(bare, 21).tolist() == wanted


# Figures


def test_correlations_that_are_summed_up():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(60, 3)) + 100).astype(np.float32)
    y = (x + rng.normal(size=x.shape)).astype(np.float32)
    y[:, 2] = 4  # does not vary
    y[5:9, 1] = NAN
    r = Correlation(3)
    for start in range(0, 60, 7):
        r.add(x[start : start + 7], y[start : start + 7])
    known = ~np.isnan(y[:, 1])
    wanted = [scipy.stats.pearsonr(x[k, i], y[k, i])[0] for i, k in ((0, slice(None)), (1, known))]
    np.testing.assert_allclose(r.value()[:2], wanted, atol=1e-5)
    assert np.isnan(r.value()[2])
    assert r.count.tolist() == [60, 56, 60]


def test_ranks_and_areas():
    rng = np.random.default_rng(1)
    x = rng.integers(6, size=50).astype(float)  # many ties
    y = x + rng.integers(5, size=50)
    assert spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y)[0])
    assert pearson(x, y) == pytest.approx(scipy.stats.pearsonr(x, y)[0])
    positive = rng.random(50) < 0.4
    pairs = [(a > b) + (a == b) / 2 for a in x[positive] for b in x[~positive]]
    assert auroc(x, positive) == pytest.approx(np.mean(pairs))
    # Precision at each threshold, weighted by the recall that it adds.
    area, before = 0.0, 0.0
    for level in sorted(set(x.tolist()), reverse=True):
        seen = x >= level
        recall = positive[seen].sum() / positive.sum()
        area += (recall - before) * positive[seen].mean()
        before = recall
    assert average_precision(x, positive) == pytest.approx(area)
    assert math.isnan(auroc(x, positive & False))
