"""Every score of the engine against the brute-force oracle, and what must not change it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from engine import Allele, Engine, differing, write_fasta
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
    found = dict(zip(scores, engine.score(alleles).values(), strict=True))
    wrong, numbers = differing(found, oracle, alleles)
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


OTHER = str.maketrans("ACGT", "TGCA")


@pytest.mark.parametrize("context", [40, 41])
def test_trap_strands_are_averaged_and_the_reverse_window_is_the_same_one(
    tmp_path: Path, context: int
) -> None:
    """On the other strand the base is at w // 2 - 1 of an even window, at w // 2 of an odd one."""
    rng = np.random.default_rng(11)
    bases = "".join(rng.choice(list("ACGT"), 400))
    places = [0, 3, 19, 20, 150, 237, 379, 380, 399]
    alleles: list[Allele] = [("c", p + 1, bases[p], bases[p].translate(OTHER)) for p in places]
    turned: list[Allele] = [
        ("c", 400 - p, x[3], x[2]) for p, x in zip(places, alleles, strict=True)
    ]
    # Read from the other end, with ALT and REF of the pair (base, complement) changed over.
    genome = write_fasta(tmp_path / "g.fa", {"c": bases})
    (tmp_path / "r").mkdir()
    reverse = write_fasta(tmp_path / "r" / "g.fa", {"c": bases[::-1].translate(OTHER)})
    half = context // 2

    def score(name: str, fasta: Path, asked: list[Allele], **options: object) -> list[float]:
        bundle = toy_bundle("wide", tmp_path / name, context=context, **options)
        found = Engine(bundle, fasta, ("LLR",)).score(asked)["LLR"]
        return [float(x) for x in found]

    both = score("both", genome, alleles, anchor=half, strand="both")
    forward = score("forward", genome, alleles, anchor=half, strand="forward")
    anchor = half - 1 if context % 2 == 0 else half
    backward = score("backward", reverse, turned, anchor=anchor, strand="forward")
    means = [(a + b) / 2 for a, b in zip(forward, backward, strict=True)]
    np.testing.assert_allclose(both, means, atol=2e-6)
    assert np.abs(np.subtract(forward, backward)).min() > 1e-3


@pytest.mark.parametrize("bos", [True, False])
def test_trap_a_base_is_predicted_by_the_row_before_it_and_the_first_by_a_bos_alone(
    tmp_path: Path, bos: bool
) -> None:
    """A sum over every base that has a row before it; special tokens are never part of it."""
    bases = "GATTACAGTCCATGCA"
    fasta = write_fasta(tmp_path / "g.fa", {"c": bases})
    bundle = toy_bundle("causal", tmp_path / "t", context=8, anchor=0, bos=bos, strand="forward")
    engine = Engine(bundle, fasta, ("LLR",))
    session = onnxruntime.InferenceSession(str(bundle / "model.onnx"))

    def likelihood(window: str) -> float:
        ids = [2] * bos + [7 + "ACGT".index(x) for x in window]
        logits = session.run(["logits"], {"rows": np.array([ids])})[0][0].astype(float)
        logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return sum(float(logs[t - 1, ids[t]]) for t in range(1, len(ids)))

    # The window begins with the changed base.
    wanted = likelihood("T" + bases[5:12]) - likelihood(bases[4:12])
    assert engine.score([("c", 5, "A", "T")])["LLR"] == [pytest.approx(wanted, abs=2e-6)]
    shifted = likelihood("AT" + bases[6:12]) - likelihood(bases[4:12])
    assert abs(wanted - shifted) > 1e-3


def test_trap_alleles_of_other_lengths_in_a_batch_change_nothing(tmp_path: Path) -> None:
    """Rows are never filled up to the longest of a batch: causal rows would be summed too far."""
    rng = np.random.default_rng(4)
    bases = "".join(rng.choice(list("ACGT"), 300))
    fasta = write_fasta(tmp_path / "g.fa", {"c": bases})
    alleles: list[Allele] = []
    for size, at in enumerate((90, 120, 150, 180, 210), start=1):
        alleles.append(("c", at + 1, bases[at : at + 1 + size], bases[at]))
        alleles.append(("c", at + 11, bases[at + 10], bases[at + 10] + "GATTACA"[:size]))
    for kind, score in (("causal", "LLR"), ("bpe", "PLLR")):
        bundle = toy_bundle(kind, tmp_path / kind, context=48, anchor=24)
        together = Engine(bundle, fasta, (score,)).score(alleles)[score]
        alone = [Engine(bundle, fasta, (score,)).score([x])[score][0] for x in alleles]
        np.testing.assert_allclose(together, alone, rtol=1e-6, atol=1e-6)


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
