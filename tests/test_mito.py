"""The shipped model `mito`: what its bundle is, and its scores against the brute-force oracle."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from engine import Allele, Engine, make_chunk
from oracle import Oracle

from glm_annotate.bundle import ZOO, load_bundle
from glm_annotate.testing import check_bundle

BUNDLE = ZOO / "mito"
CIRCULAR = frozenset({"chrM"})
SCORES = ("LLR", "PLLR", "WTLLR", "ENT", "EMB_COS", "EMB_L2:pool=window:k=9")


def mixed(fasta: Path, seed: int, n: int) -> list[Allele]:
    """SNVs, MNVs, insertions, deletions and delins of chrM, some of them near its origin."""
    bases = "".join(fasta.read_text().splitlines()[1:])
    rng = np.random.default_rng(seed)
    out: list[Allele] = []
    while len(out) < n:
        near_origin = rng.random() < 0.1
        start = int(rng.integers(0, 40) if near_origin else rng.integers(0, len(bases) - 10))
        old = bases[start : start + int(rng.choice([1, 1, 1, 1, 2, 3, 5]))]
        new = "".join(rng.choice(list("ACGT"), int(rng.choice([1, 1, 1, 2, 4]))))
        kind = rng.choice(["snv", "insertion", "deletion", "delins", "mnv"], p=[0.4, *[0.15] * 4])
        ref, alt = {
            "snv": (old[0], new[0]),
            "insertion": (old[0], old[0] + new),
            "deletion": (old, old[0]),
            "delins": (old, new),
            "mnv": (bases[start : start + 3], "".join(rng.choice(list("ACGT"), 3))),
        }[str(kind)]
        if ref != alt and "N" not in ref:
            out.append(("chrM", start + 1, ref, alt))
    return out


def test_the_bundle_is_small_and_answers_its_self_test() -> None:
    assert sum(path.stat().st_size for path in BUNDLE.iterdir()) <= 8_000_000
    assert check_bundle(BUNDLE).cases > 0


def test_the_card_says_what_was_measured_and_held_out() -> None:
    card = load_bundle("mito").card
    assert (card.tag, card.objective, card.scores) == ("MITO", "masked", ("LLR", "PLLR"))
    assert "chrM" in card.circular
    assert "NC_012920.1" in card.provenance.held_out
    assert card.provenance.compute_pfs_days
    assert card.provenance.limits
    assert card.provenance.quality


def compare(fasta: Path, alleles: list[Allele], scores: tuple[str, ...]) -> float:
    """Compare with the oracle; returns the largest difference."""
    found = Engine(BUNDLE, fasta, scores, circular=CIRCULAR).score(alleles)
    oracle = Oracle(BUNDLE, fasta, circular=CIRCULAR)
    worst = 0.0
    for text, values in zip(scores, found.values(), strict=True):
        for allele, value in zip(alleles, values, strict=True):
            expected = oracle.score(*allele, text)
            if isinstance(expected, str) or isinstance(value, str):
                assert value == expected, (text, allele)
            else:
                worst = max(worst, abs(value - expected))
    return worst


@pytest.mark.timeout(300)
def test_scores_equal_the_oracle(example_dir: Path) -> None:
    fasta = example_dir / "chrM.fa"
    assert compare(fasta, mixed(fasta, seed=1, n=8), SCORES) < 1e-5


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_scores_of_500_mixed_variants_equal_the_oracle(
    example_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fasta = example_dir / "chrM.fa"
    worst = compare(fasta, mixed(fasta, seed=2, n=500), ("LLR", "PLLR", "EMB_COS"))
    with capsys.disabled():
        sys.stdout.write(f"\n500 mixed variants: at most {worst:.2g} from the oracle\n")
    assert worst < 1e-5


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_scores_do_not_depend_on_batch_threads_or_order(
    example_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fasta = example_dir / "chrM.fa"
    alleles = mixed(fasta, seed=3, n=500)
    order = np.random.default_rng(0).permutation(len(alleles))
    base = Engine(BUNDLE, fasta, circular=CIRCULAR).score(alleles)
    worst = 0.0
    for settings in ({"batch": 1}, {"batch": 7, "threads": 2}, {"batch": 64, "threads": 2}):
        engine = Engine(BUNDLE, fasta, circular=CIRCULAR, **settings)
        shuffled = engine.score([alleles[i] for i in order])
        for key, values in base.items():
            for place, i in enumerate(order.tolist()):
                one, other = values[i], shuffled[key][place]
                if isinstance(one, str) or isinstance(other, str):
                    assert one == other
                else:
                    worst = max(worst, abs(one - other) / max(1.0, abs(one)))
    with capsys.disabled():
        sys.stdout.write(f"\nbatch, threads, order: at most {worst:.2g} of max(1, |score|)\n")
    assert worst <= 1e-6


def test_every_class_of_small_variant_has_a_default_score(example_dir: Path) -> None:
    fasta = example_dir / "chrM.fa"
    engine = Engine(BUNDLE, fasta, circular=CIRCULAR)
    bases = "".join(fasta.read_text().splitlines()[1:])
    at = 3242
    alleles = [
        ("chrM", at + 1, bases[at], "G" if bases[at] != "G" else "A"),
        ("chrM", at + 1, bases[at : at + 2], "GC" if bases[at] == "A" else "AC"),
        ("chrM", at + 1, bases[at], bases[at] + "TTT"),
        ("chrM", at + 1, bases[at : at + 4], bases[at]),
        ("chrM", at + 1, bases[at : at + 3], "TTTTT"),
        ("chrM", 1, bases[0], bases[0] + "C"),
    ]
    (result,) = engine.results(make_chunk(alleles))
    numbers = np.stack(list(result.values.values()))
    assert np.isfinite(numbers).any(axis=0).all()
    assert not result.skip.any()
    assert all(math.isfinite(x) for x in result.values["PLLR"])
