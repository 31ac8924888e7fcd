"""Dense scores against plain loops, what must not change them, and how many passes they cost."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from cli_kit import call, header_of, records_of, write_vcf
from dense_kit import DenseEngine, DenseOracle
from engine import Allele, Engine, differing, make_chunk, write_fasta
from oracle_channels import Columns
from test_engine import mixed_alleles

from glm_annotate.bundle import load_bundle
from glm_annotate.deviation import dense_deviation, spearman
from glm_annotate.genome import Genome
from glm_annotate.testing import toy_bundle
from glm_annotate.train import toys
from glm_annotate.train.toy_graphs import markov

CIRCULAR = frozenset({"ring"})
SCORES = ("LLR", "ENT")
CASES = {
    "wide": ("wide", {"context": 40, "anchor": 20, "dense": 4}),
    "wide-odd": ("wide", {"context": 33, "anchor": 12, "dense": 7}),
    "least": ("wide", {"context": 24, "anchor": 5, "dense": 2, "strand": "forward"}),
    "one-a-window": ("wide", {"context": 16, "anchor": 8, "dense": 50}),
    "takes-no-n": ("wide", {"context": 24, "anchor": 12, "dense": 5, "n": "error"}),
    "prefix": ("prefix", {"context": 32, "anchor": 16, "dense": 8, "multiple_of": 8}),
    "onehot": ("onehot", {"context": 30, "anchor": 15, "dense": 3}),
    "overlap": ("overlap", {"context": 36, "anchor": 17, "dense": 4}),
    "overlap-wider": ("overlap", {"context": 37, "anchor": 17, "dense": 9}),
    "blocks": ("blocks", {"context": 33, "anchor": 16, "dense": 6}),
    "blocks-tail": ("blocks", {"context": 31, "anchor": 16, "dense": 7, "strand": "forward"}),
}
# Of rows that see the whole window.
FAR = ("wide", "prefix", "overlap", "blocks")


@pytest.fixture(autouse=True)
def far_sighted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let rows of every toy see the whole window, so that a mask anywhere changes something."""
    for kind in FAR:
        toy = replace(toys.TOYS[kind], body=partial(markov, wide=True))
        monkeypatch.setitem(toys.TOYS, kind, toy)


@pytest.fixture(scope="module")
def contigs() -> dict[str, str]:
    rng = np.random.default_rng(12)
    sizes = {"lin": 400, "ring": 131, "tiny": 14}
    made = {name: "".join(rng.choice(list("ACGT"), size)) for name, size in sizes.items()}
    line = made["lin"]
    made["lin"] = line[:180] + "NNN" + line[183:260] + "R" + line[261:300] + line[300:].lower()
    return made


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory, contigs: dict[str, str]) -> Path:
    return write_fasta(tmp_path_factory.mktemp("genome") / "toy.fa", contigs)


def other(base: str) -> str:
    return base.translate(str.maketrans("ACGT", "CGTA"))


def snvs(contigs: dict[str, str], name: str, places: Sequence[int]) -> list[Allele]:
    line = contigs[name].upper()
    return [(name, i + 1, line[i], other(line[i])) for i in places if line[i] in "ACGT"]


def alleles_of(contigs: dict[str, str], seed: int) -> list[Allele]:
    """Neighbouring and scattered ones, at ends, origins, N and an IUPAC letter, of every kind."""
    known = {name: contigs[name].replace("R", "A") for name in contigs}
    mixed = mixed_alleles(known, seed, 30)
    edges = snvs(contigs, "lin", [0, 1, 2, 178, 179, 183, 259, 261, 398, 399])
    ends = snvs(contigs, "ring", [0, 1, 64, 65, 129, 130]) + snvs(contigs, "tiny", [0, 7, 13])
    odd: list[Allele] = [("lin", 261, "A", "C"), ("lin", 180, "N", "A")]
    last = contigs["lin"][-1].upper()
    odd += [("lin", 400, last, last + other(last)), ("ring", 131, contigs["ring"][-1], "TT")]
    return mixed + edges + ends + odd + snvs(contigs, "lin", range(60, 80))


@pytest.mark.parametrize("case", CASES)
def test_every_score_equals_the_oracle(
    case: str, tmp_path: Path, fasta: Path, contigs: dict[str, str]
) -> None:
    kind, options = CASES[case]
    bundle = toy_bundle(kind, tmp_path / "toy", **options)
    alleles = alleles_of(contigs, seed=sum(map(ord, case)))
    found = DenseEngine(bundle, fasta, SCORES, circular=CIRCULAR).score(alleles)
    wrong, numbers = differing(found, DenseOracle(bundle, fasta, circular=CIRCULAR), alleles)
    assert not wrong, f"{len(wrong)} differ, such as {wrong[:6]}"
    assert numbers > 80
    exact = Engine(bundle, fasta, SCORES, circular=CIRCULAR).score(alleles)
    changed = sum(a != b for a, b in zip(found["LLR"], exact["LLR"], strict=True))
    assert (changed > 20) == (kind in FAR)
    # What has no number in one mode has none in the other.
    for key, values in exact.items():
        reasons = [isinstance(x, str) and x for x in values]
        assert reasons == [isinstance(x, str) and x for x in found[key]]


def test_channels_beside_the_bases(tmp_path: Path, fasta: Path, contigs: dict[str, str]) -> None:
    big = pytest.importorskip("pyBigWig")
    rng = np.random.default_rng(2)
    numbers = {name: rng.normal(size=len(text)).tolist() for name, text in contigs.items()}
    path = tmp_path / "s.bw"
    with big.open(str(path), "w") as out:
        out.addHeader([(name, len(text)) for name, text in contigs.items()])
        for name, values in numbers.items():
            out.addEntries(name, 0, values=values, span=1, step=1)
    channels = [{"name": "s", "source": "bigwig", "missing": -0.5}]
    bundle = toy_bundle("wide", tmp_path / "toy", context=24, dense=6, channels=channels)
    alleles = snvs(contigs, "lin", range(0, 390, 9)) + snvs(contigs, "ring", [0, 4, 65, 130])
    alleles += [("lin", 30, contigs["lin"][29:31], contigs["lin"][29])]
    engine = DenseEngine(bundle, fasta, SCORES, circular=CIRCULAR, signals={"s": path})
    oracle = DenseOracle(bundle, fasta, circular=CIRCULAR)
    columns = {name: list(text.upper()) for name, text in contigs.items()}
    oracle.columns = Columns(oracle.spec, columns, {"s": numbers})
    wrong, count = differing(engine.score(alleles), oracle, alleles)
    assert not wrong, f"{len(wrong)} differ, such as {wrong[:6]}"
    assert count > 60


def test_windows_of_too_many_rows_are_scored_exactly(
    tmp_path: Path, fasta: Path, contigs: dict[str, str]
) -> None:
    """Where N breaks the words of a grid window, its alleles get the narrower one around them."""
    options = {"context": 33, "anchor": 16, "dense": 8}
    bundle = toy_bundle("blocks", tmp_path / "toy", **options, max_tokens=12)
    free = toy_bundle("blocks", tmp_path / "free", **options)
    alleles = snvs(contigs, "lin", range(100, 300))
    found = DenseEngine(bundle, fasta, SCORES).score(alleles)
    exact = Engine(bundle, fasta, SCORES).score(alleles)
    oracle = DenseOracle(free, fasta)
    counts = {True: 0, False: 0}
    for i, allele in enumerate(alleles):
        left = (allele[1] - 1) // 16 * 16 - 8
        broken = bool(set(contigs["lin"][left : left + 33].upper()) - set("ACGT"))
        counts[broken] += 1
        for key in SCORES:
            wanted = exact[key][i] if broken else oracle.score(*allele, key)
            assert found[key][i] == pytest.approx(wanted, rel=1e-6, abs=1e-6), (allele, key)
    assert min(counts.values()) > 30


@pytest.mark.parametrize("kind", ["wide", "overlap", "blocks"])
def test_a_score_does_not_depend_on_the_other_records(
    kind: str, tmp_path: Path, fasta: Path, contigs: dict[str, str]
) -> None:
    bundle = toy_bundle(kind, tmp_path / "toy", context=36, dense=6)
    engine = DenseEngine(bundle, fasta, SCORES, circular=CIRCULAR)
    alleles = alleles_of(contigs, seed=8)
    together = engine.score(alleles)
    rng = np.random.default_rng(3)
    few = DenseEngine(bundle, fasta, SCORES, circular=CIRCULAR, batch=3)
    subsets = [rng.permutation(len(alleles))[: int(rng.integers(1, 30))] for _ in range(12)]
    for chosen in [*subsets, *([i] for i in range(0, len(alleles), 7))]:
        found = few.score([alleles[int(i)] for i in chosen])
        for key, values in found.items():
            for i, value in zip(chosen, values, strict=True):
                wanted = together[key][int(i)]
                if isinstance(value, str) or isinstance(wanted, str):
                    assert value == wanted
                else:
                    assert math.isclose(value, wanted, rel_tol=1e-6, abs_tol=1e-6)


def test_passes_are_shared(tmp_path: Path) -> None:
    bases = "".join(np.random.default_rng(1).choice(list("ACGT"), 3000))
    fasta = write_fasta(tmp_path / "g.fa", {"c": bases})
    bundle = toy_bundle("wide", tmp_path / "toy", context=256, dense=8)
    alleles = snvs({"c": bases}, "c", range(1000, 2000))
    engine = DenseEngine(bundle, fasta, SCORES)
    engine.results(make_chunk(alleles))
    windows = 1999 // 128 - 1000 // 128 + 1
    first = 8  # of these, the first window has 24 of the sites, and those of every residue
    assert windows * first * 2 == 144
    assert engine.runner.passes == 144
    exact = Engine(bundle, fasta, SCORES)
    exact.results(make_chunk(alleles))
    assert exact.runner.passes == 2000
    alone = DenseEngine(bundle, fasta, SCORES)
    alone.results(make_chunk([alleles[5], alleles[13], alleles[6]]))
    assert alone.runner.passes == 4  # two sites lie 8 bases apart in one window


REFUSED = {
    "causal": ("causal", {"dense": 8}, "toy-causal cannot be read so: it is causal"),
    "bpe": ("bpe", {"dense": 8}, "toy-bpe cannot be read so: its tokens differ in length"),
    "none": ("wide", {}, r"toy-wide cannot be read so: its card has no stride \(dense = 0\)"),
    "near": ("overlap", {"dense": 3}, "its stride is 3, and its rows need 4 or more"),
    "blocks": ("blocks", {"dense": 5}, "its stride is 5, and its rows need 6 or more"),
    "one": ("wide", {"dense": 1}, "its stride is 1, and its rows need 2 or more"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_models(
    case: str, tmp_path: Path, fasta: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kind, options, message = REFUSED[case]
    bundle = toy_bundle(kind, tmp_path / "toy", **options)
    command = ["vcf", "lin:5:A:C", "-f", fasta, "-m", bundle]
    assert call(*command, "--mode", "dense") == 2
    error = capfd.readouterr().err
    assert re.search(message, error)
    assert len(error.splitlines()) == 1
    assert call(*command, "--allow-ref-mismatch") == 0


def test_the_command_and_its_header(
    tmp_path: Path, fasta: Path, contigs: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    bundle = toy_bundle("wide", tmp_path / "toy", context=40, dense=4)
    alleles = snvs(contigs, "lin", range(40, 60))
    source = write_vcf(tmp_path / "in.vcf", [" ".join(map(str, x)) for x in alleles])
    command = ["vcf", source, "-f", fasta, "-m", bundle, "-s", "LLR,ENT,PLLR"]
    texts = {}
    for mode in ("exact", "dense"):
        assert call(*command, "--mode", mode) == 0
        texts[mode] = capfd.readouterr().out
    heads = {mode: header_of(text) for mode, text in texts.items()}
    lines = {
        key: next(x for x in heads["dense"] if x.startswith(f"##INFO=<ID=TOY_{key},"))
        for key in ("LLR", "ENT", "PLLR")
    }
    assert "both strands averaged, dense, stride 4" in lines["LLR"]
    assert "both strands averaged, dense, stride 4" in lines["ENT"]
    assert "dense" not in lines["PLLR"]
    assert "dense" not in "".join(x for x in heads["exact"] if "Command" not in x)
    assert any('Mode="dense, stride 4"' in x for x in heads["dense"])
    oracle = DenseOracle(bundle, fasta)
    found = {mode: records_of(text) for mode, text in texts.items()}
    for i, allele in enumerate(alleles):
        dense, exact = found["dense"][i].info, found["exact"][i].info
        for key in ("LLR", "ENT"):
            expected = oracle.score(*allele, key)
            assert float(dense[f"TOY_{key}"]) == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert dense["TOY_PLLR"] == exact["TOY_PLLR"]


def test_deviation_is_what_both_modes_say(tmp_path: Path, contigs: dict[str, str]) -> None:
    bundle = load_bundle(toy_bundle("wide", tmp_path / "toy", context=16, anchor=8, dense=4))
    bases = contigs["ring"]
    codes = np.array(["ACGT".index(x) for x in bases], dtype=np.uint8)
    found = dense_deviation(bundle, codes[:4], sites=16)
    fasta = write_fasta(tmp_path / "g.fa", {"random": bases[:4]})
    alleles = [("random", i + 1, x, y) for i, x in enumerate(bases[:4]) for y in "ACGT" if x != y]
    exact = np.array(Engine(bundle.path, fasta, ("LLR",)).score(alleles)["LLR"], dtype=float)
    dense = np.array(DenseEngine(bundle.path, fasta, ("LLR",)).score(alleles)["LLR"], dtype=float)
    gaps = np.abs(exact - dense)
    # The four stretches drawn are these four bases each time.
    assert (found.sites, found.stride) == (16, 4)
    assert found.largest == pytest.approx(gaps.max(), abs=1e-6)
    assert found.median == pytest.approx(np.median(gaps), abs=1e-6)
    assert found.p99 == pytest.approx(np.percentile(np.tile(gaps, 4), 99), abs=1e-6)
    assert found.spread == pytest.approx(exact.std(), abs=1e-6)
    assert found.largest > 1e-3


def test_deviation_of_a_model_that_sees_no_other_masks_is_none(tmp_path: Path) -> None:
    bundle = load_bundle(toy_bundle("markov", tmp_path / "toy", context=32, dense=8))
    found = dense_deviation(bundle, sites=100)
    assert found.sites == 105  # 7 stretches of 16 at most hold 100
    assert found.largest < 1e-5
    assert found.spearman == pytest.approx(1.0, abs=1e-6)


def test_deviation_on_a_genome(tmp_path: Path, fasta: Path) -> None:
    bundle = load_bundle(toy_bundle("wide", tmp_path / "toy", context=32, dense=8))
    found = dense_deviation(bundle, Genome(fasta), sites=60, seconds=1e9)
    assert 30 <= found.sites <= 60  # some sites are N
    assert dense_deviation(bundle, Genome(fasta), sites=60, seconds=0.0).sites <= 16


def test_spearman_shares_ranks_of_equal_values() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 9, 50).astype(float), rng.normal(size=50)
    second += first
    assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert math.isnan(spearman(np.ones(3), np.arange(3.0)))


def test_models_check_tells_the_deviation(
    tmp_path: Path, fasta: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle = toy_bundle("wide", tmp_path / "toy", context=32, dense=8)
    for more, what in (((), "random bases"), (("-f", fasta), str(fasta))):
        assert call("models", "check", bundle, *more) == 0
        (line,) = (x for x in capfd.readouterr().out.splitlines() if x.startswith("dense\t"))
        found = dense_deviation(load_bundle(bundle), Genome(fasta) if more else None)
        assert f"stride 8\tLLR at {found.sites} sites of {what} against exact" in line
        assert f"largest {found.largest:.3g};" in line
    plain = toy_bundle("wide", tmp_path / "plain", context=32)
    assert call("models", "check", plain) == 0
    assert "dense" not in capfd.readouterr().out
    assert call("models", "check", plain, "-f", fasta) == 2
    assert "-f is for --golden and for models with --mode dense" in capfd.readouterr().err
