"""Every score of the engine against the brute-force oracle, and what must not change it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from engine import Allele, Engine, write_fasta
from oracle import Oracle

from glm_annotate.testing import toy_bundle

CONTIGS = {"lin": 700, "ring": 260, "tiny": 30}
CIRCULAR = frozenset({"ring"})


@pytest.fixture(scope="module")
def contigs() -> dict[str, str]:
    rng = np.random.default_rng(5)
    made = {name: "".join(rng.choice(list("ACGT"), size)) for name, size in CONTIGS.items()}
    # Repeats, where an indel can be written in several places; a run of N; soft-masked bases.
    line = made["lin"]
    made["lin"] = line[:200] + "AAAAAAAACACACACAC" + line[217:400] + "NNN" + line[403:]
    made["lin"] = made["lin"][:500] + made["lin"][500:550].lower() + made["lin"][550:]
    return made


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory, contigs: dict[str, str]) -> Path:
    return write_fasta(tmp_path_factory.mktemp("genome") / "toy.fa", contigs)


def mixed_alleles(contigs: dict[str, str], seed: int, n: int) -> list[Allele]:
    """SNVs, MNVs, insertions, deletions and delins everywhere, also at the ends of contigs."""
    rng = np.random.default_rng(seed)
    out: list[Allele] = []
    while len(out) < n:
        name = str(rng.choice(["lin", "lin", "ring", "tiny"]))
        bases = contigs[name].upper()
        start = int(rng.integers(0, len(bases)))
        kind = rng.choice(["snv", "snv", "mnv", "ins", "del", "delins"])
        size = {"snv": 1, "mnv": int(rng.integers(2, 5)), "ins": 1, "del": int(rng.integers(2, 7))}
        ref = bases[start : start + size.get(str(kind), int(rng.integers(1, 5)))]
        new = "".join(rng.choice(list("ACGT"), int(rng.integers(1, 6))))
        alt = {"ins": ref + new, "del": ref[:1], "delins": new}.get(str(kind), new[: len(ref)])
        if kind in ("snv", "mnv"):
            alt = "".join(rng.choice(list("ACGT"), len(ref)))
        if ref and alt and alt != ref:
            out.append((name, start + 1, ref, alt))
    return out


MASKED = ("LLR", "PLLR", "WTLLR", "ENT")
POOLED = (
    *("EMB_COS:pool=site", "EMB_L1:pool=site", "EMB_L2:pool=window:k=7", "EMB_DOT:pool=all"),
    *("EMB_COS:pool=window:k=4", "EMB_COS:pool=all"),
)
CASES = {
    "markov": ("markov", {"context": 40, "anchor": 20}, MASKED + POOLED),
    "wide": ("wide", {"context": 33, "anchor": 12}, MASKED + POOLED),
    "wide-forward": ("wide", {"context": 24, "anchor": 11, "strand": "forward"}, MASKED + POOLED),
    "prefix": ("prefix", {"context": 32, "anchor": 16}, MASKED + POOLED),
    "overlap": ("overlap", {"context": 36, "anchor": 17}, MASKED + POOLED),
    "blocks": ("blocks", {"context": 33, "anchor": 16, "pllr_max": 9}, MASKED + POOLED),
    "onehot": ("onehot", {"context": 30, "anchor": 15}, MASKED + POOLED),
    "bpe": ("bpe", {"context": 48, "anchor": 24}, ("LLR", "PLLR", "WTLLR", "ENT", *POOLED)),
    "causal": ("causal", {"context": 32, "anchor": 16, "bos": False}, ("LLR", "ENT", *POOLED)),
    "causal-bos": ("causal", {"context": 32, "anchor": 10, "bos": True}, ("LLR", "ENT", *POOLED)),
}


@pytest.mark.parametrize("case", CASES)
def test_every_score_equals_the_oracle(
    case: str, tmp_path: Path, fasta: Path, contigs: dict[str, str]
) -> None:
    kind, options, scores = CASES[case]
    bundle = toy_bundle(kind, tmp_path / "toy", **options)
    alleles = mixed_alleles(contigs, seed=sum(map(ord, case)), n=70)
    engine = Engine(bundle, fasta, scores, circular=CIRCULAR)
    oracle = Oracle(bundle, fasta, circular=CIRCULAR)
    wrong = []
    numbers = 0
    found = engine.score(alleles)
    for text, values in zip(scores, found.values(), strict=True):
        for allele, value in zip(alleles, values, strict=True):
            expected = oracle.score(*allele, text)
            if isinstance(expected, str) or isinstance(value, str):
                same = value == expected
            else:
                numbers += 1
                same = math.isclose(value, expected, rel_tol=1e-6, abs_tol=1e-6)
            if not same:
                wrong.append((text, allele, value, expected))
    assert not wrong, f"{len(wrong)} differ, such as {wrong[:6]}"
    assert numbers > 150


def test_batches_that_are_asked_different_things(
    tmp_path: Path, fasta: Path, contigs: dict[str, str]
) -> None:
    """Masked and unmasked passes in batches of their own give what they give together."""
    bundle = toy_bundle("wide", tmp_path / "toy", context=32, anchor=16)
    alleles = mixed_alleles(contigs, seed=3, n=40)
    scores = ("LLR", "ENT", "EMB_COS:pool=site", "PLLR")
    together = Engine(bundle, fasta, scores, circular=CIRCULAR, batch=4096).score(alleles)
    apart = Engine(bundle, fasta, scores, circular=CIRCULAR, batch=3).score(alleles)
    for key, values in together.items():
        for one, other in zip(values, apart[key], strict=True):
            assert one == other or math.isclose(float(one), float(other), abs_tol=1e-6), key


def test_byte_pairs_agree_again_behind_an_indel(tmp_path: Path) -> None:
    """Few rows differ however long the window: both haplotypes end at one base of the contig."""
    rng = np.random.default_rng(8)
    bases = "".join(rng.choice(list("ACGT"), 2000))
    fasta = write_fasta(tmp_path / "g.fa", {"c": bases})
    bundle = toy_bundle("bpe", tmp_path / "bpe", context=400, pllr_max=20)
    alleles: list[Allele] = []
    for at in range(300, 1700, 70):
        size = int(rng.integers(1, 12))
        alleles.append(("c", at + 1, bases[at : at + 1 + size], bases[at]))
        alleles.append(("c", at + 36, bases[at + 35], bases[at + 35] + bases[at : at + size]))
    found = Engine(bundle, fasta, ("PLLR",)).score(alleles)["PLLR"]
    assert all(isinstance(value, float) for value in found)
    oracle = Oracle(bundle, fasta)
    wanted = [oracle.score(*allele, "PLLR") for allele in alleles[:8]]
    np.testing.assert_allclose(found[:8], wanted, rtol=1e-5, atol=1e-6)
