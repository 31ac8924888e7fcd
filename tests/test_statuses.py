"""Every status: where it is due, and only there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from cli_kit import call, records_of, statuses, write_vcf
from engine import Allele, Engine, make_chunk, write_fasta
from onnx import numpy_helper

from glm_annotate.bundle import read_card, write_bundle
from glm_annotate.plan import PassFailed
from glm_annotate.testing import toy_bundle

# T in one place only, and no A that the reverse strand would show as T: models break on it.
GENOME = {"chr1": "CACCGACGCAGCCACGACCA" + "T" + "CAGCAACCGACACGACACCG"}
T_AT = 20  # 0-based
ID = {"A": 3, "C": 4, "G": 5, "T": 6}
Edit = Callable[[str, np.ndarray], np.ndarray]


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    return write_fasta(tmp_path / "genome.fa", GENOME)


def altered(folder: Path, change: Edit) -> Path:
    """Change tables of a toy's graph and seal the bundle again."""
    graph = folder / "model.onnx"
    model = onnx.load(graph)
    for table in model.graph.initializer:
        values = change(table.name, numpy_helper.to_array(table).copy())
        table.CopyFrom(numpy_helper.from_array(values, table.name))
    graph.write_bytes(model.SerializeToString())
    write_bundle(folder, read_card(folder).model_dump(exclude={"sha256"}))
    return folder


def toy(folder: Path, **options: object) -> Path:
    given = {"context": 8, "anchor": 4, "strand": "forward", **options}
    return toy_bundle("markov", folder, **given)


def sees_t(start: int) -> bool:
    """Whether the window of 8 bases with the changed base at place 4 holds the T."""
    return start - 4 <= T_AT < start + 4


def every_snv(alt: str = "G", ref_not: str = "GT") -> list[Allele]:
    bases = GENOME["chr1"]
    return [("chr1", i + 1, b, alt) for i, b in enumerate(bases) if b not in ref_not]


def test_a_pass_that_fails_costs_only_its_own_alleles(tmp_path: Path, fasta: Path) -> None:
    whole = toy(tmp_path / "whole")
    # Gather finds no row for T.
    broken = altered(toy(tmp_path / "broken"), lambda name, x: x[: ID["T"]] if name == "own" else x)
    alleles = every_snv()
    expected = Engine(whole, fasta, ["LLR", "EMB_L2"]).score(alleles)
    found = Engine(broken, fasta, ["LLR", "EMB_L2"]).score(alleles)
    failed = [sees_t(pos - 1) for _, pos, _, _ in alleles]
    assert 0 < sum(failed) < len(failed)
    for key, values in found.items():
        for is_failed, value, right in zip(failed, values, expected[key], strict=True):
            assert value == ("FAILED" if is_failed else right)


def test_failed_in_a_file(tmp_path: Path, fasta: Path, capfd: pytest.CaptureFixture[str]) -> None:
    broken = altered(toy(tmp_path / "broken"), lambda name, x: x[: ID["T"]] if name == "own" else x)
    # The second ALT brings the T with it, but LLR reads the REF window alone.
    source = write_vcf(tmp_path / "in.vcf", ["chr1 2 A G,T", "chr1 19 C G,T", "chr1 3 G C"])
    options = ["-f", fasta, "-m", broken]
    assert call("vcf", source, *options, "-s", "LLR", "-o", tmp_path / "llr.vcf") == 0
    assert "a forward pass failed" in capfd.readouterr().err
    assert list(statuses((tmp_path / "llr.vcf").read_text()).values()) == [
        ["SCORED", "SCORED"], ["FAILED", "FAILED"], ["REF_MISMATCH"],
    ]  # fmt: skip
    last = records_of((tmp_path / "llr.vcf").read_text())[1]
    assert last.per_alt("TOY_LLR") == [".", "."]
    assert call("vcf", source, *options, "-s", "LLR,EMB_L2", "-o", tmp_path / "both.vcf") == 0
    assert list(statuses((tmp_path / "both.vcf").read_text()).values()) == [
        ["SCORED", "FAILED"], ["FAILED", "FAILED"], ["REF_MISMATCH"],
    ]  # fmt: skip


def test_not_finite(tmp_path: Path, fasta: Path) -> None:
    def spoil(name: str, values: np.ndarray) -> np.ndarray:
        if name == "left":
            values[ID["G"]] = np.nan
        return values

    bundle = altered(toy(tmp_path / "nan"), spoil)
    alleles = every_snv("T", ref_not="T")
    found = Engine(bundle, fasta, ["LLR", "ENT", "EMB_L2"]).score(alleles)
    after_g = [pos > 1 and GENOME["chr1"][pos - 2] == "G" for _, pos, _, _ in alleles]
    assert any(after_g)
    for key in ("LLR", "ENT"):
        assert [value == "NOT_FINITE" for value in found[key]] == after_g
    assert not any(isinstance(value, str) for value in found["EMB_L2"])


def test_not_finite_names_the_score(tmp_path: Path, fasta: Path) -> None:
    # Finite in double, but no VCF Float: 1e20 squared.
    large = altered(
        toy(tmp_path / "large"), lambda name, x: x * 0 + 1e20 if "embed_own" in name else x
    )
    source = write_vcf(tmp_path / "in.vcf", ["chr1 2 A G"])
    command = ["vcf", source, "-f", fasta, "-m", large, "-s", "EMB_DOT,LLR,EMB_L1"]
    assert call(*command, "-o", tmp_path / "out.vcf") == 0
    (record,) = records_of((tmp_path / "out.vcf").read_text())
    assert record.info["TOY_STATUS"] == "EMB_DOT:NOT_FINITE"
    assert record.info["TOY_EMB_DOT"] == "."
    float(record.info["TOY_LLR"])


@pytest.mark.parametrize(
    ("kind", "options", "scores", "allele", "expected"),
    [
        ("markov", {}, "LLR,PLLR", "A AC", "LLR:INDEL"),
        ("markov", {}, "LLR", "A AC", "LLR:INDEL"),
        ("markov", {"pllr_max": 2}, "LLR,PLLR", "A ACGC", "LLR:INDEL|PLLR:TOO_LONG"),
        ("markov", {"pllr_max": 2}, "LLR,PLLR", "ACC GTT", "PLLR:TOO_LONG"),
        ("markov", {"pllr_max": 3}, "LLR,PLLR", "ACC GTT", "SCORED"),
        ("markov", {}, "PLLR", "A ACGCG", "SCORED"),
        ("markov", {}, "PLLR", "A ACGCGC", "TOO_LONG"),
        # The grid's window 0 of 8 bases begins at -2 and ends at 6, place 1 to 8 lie past it.
        ("markov", {}, "WTLLR,LLR", "ACCGACG TCCGACT", "TOO_LONG"),
        ("markov", {"anchor": 1}, "WTLLR,LLR", "ACCGACG TCCGACT", "WTLLR:TOO_LONG"),
        ("bpe", {"context": 24, "anchor": 12}, "ENT,EMB_L2", "A G", "ENT:TOKENIZATION"),
        ("bpe", {"context": 24, "anchor": 12}, "ENT,LLR,EMB_L2", "A AG",
         "ENT:TOKENIZATION|LLR:INDEL"),
        ("causal", {}, "LLR", "A AC", "SCORED"),
    ],
)  # fmt: skip
def test_score_reasons(
    kind: str, options: dict[str, int], scores: str, allele: str, expected: str, tmp_path: Path,
    fasta: Path,
) -> None:  # fmt: skip
    given = {"context": 8, "anchor": 4, "strand": "forward", **options}
    bundle = toy_bundle(kind, tmp_path / "toy", **given)
    source = write_vcf(tmp_path / "in.vcf", [f"chr1 2 {allele}"])
    out = tmp_path / "out.vcf"
    assert call("vcf", source, "-f", fasta, "-m", bundle, "-s", scores, "-o", out) == 0
    (record,) = records_of(out.read_text())
    assert record.per_alt("TOY_STATUS") == [expected]
    missing = {x.partition(":")[0] for x in expected.split("|") if ":" in x}
    for score in scores.split(","):
        is_missing = score in missing or expected == "TOO_LONG"
        assert (record.info[f"TOY_{score}"] == ".") == is_missing


def test_a_byte_pair_that_splits_otherwise(tmp_path: Path, fasta: Path) -> None:
    bundle = toy_bundle("bpe", tmp_path / "bpe", context=24, anchor=12, strand="forward")
    found = Engine(bundle, fasta, ["LLR", "PLLR"]).score(every_snv("T"))
    assert "TOKENIZATION" in found["LLR"]
    assert set(map(type, found["PLLR"])) == {float}


def test_out_of_scope(tmp_path: Path) -> None:
    fasta = write_fasta(tmp_path / "genome.fa", {"1": GENOME["chr1"], "2": "ACGT" * 10})
    scope = {"contigs": [{"name": "chr1", "max_length": 41}, {"name": "2", "min_length": 41}]}
    bundle = toy(tmp_path / "scoped", scope=scope)
    records = ["chr1 2 A G", "2 1 A G", "2 2 G A", "3 1 A G"]
    source = write_vcf(tmp_path / "in.vcf", records)
    options = ["-f", fasta, "-m", bundle, "-o"]
    assert call("vcf", source, *options, tmp_path / "out.vcf") == 0
    # An alias of chr1 of 41 bases; a contig that is too short for the scope; what comes first.
    assert list(statuses((tmp_path / "out.vcf").read_text()).values()) == [
        ["SCORED"], ["OUT_OF_SCOPE"], ["REF_MISMATCH"], ["CONTIG_MISSING"],
    ]  # fmt: skip
    assert call("vcf", source, "--ignore-scope", *options, tmp_path / "all.vcf") == 0
    assert statuses((tmp_path / "all.vcf").read_text())[("2", "1", "A", "G")] == ["SCORED"]


class Reluctant:
    """Lets an engine's batches of more than `most` passes fail, and those that hold a base."""

    def __init__(self, engine: Engine, most: int, base: int | None = None) -> None:
        self.sizes: list[int] = []
        self._run, self._most, self._base = engine.runner.run, most, base
        engine.runner.run = self.run  # type: ignore[method-assign]

    def run(self, rows, outputs):
        self.sizes.append(len(rows))
        if len(rows) > self._most or (self._base is not None and (rows == self._base).any()):
            raise PassFailed("no room")
        return self._run(rows, outputs)


def test_batches_that_fail_are_halved(tmp_path: Path, fasta: Path) -> None:
    bundle = toy(tmp_path / "toy")
    scores = ["LLR", "PLLR", "EMB_L2"]
    alleles = every_snv()
    expected = Engine(bundle, fasta, scores).score(alleles)
    engine = Engine(bundle, fasta, scores, batch=16)
    runner = Reluctant(engine, most=3)
    assert engine.score(alleles) == expected
    assert runner.sizes[:4] == [16, 8, 4, 2]
    assert max(runner.sizes[3:]) == 2
    # What did not fit is remembered.
    runner.sizes.clear()
    assert engine.score(alleles) == expected
    assert max(runner.sizes) == 2


def test_one_bad_allele_does_not_shrink_the_batches_for_ever(tmp_path: Path, fasta: Path) -> None:
    engine = Engine(toy(tmp_path / "toy"), fasta, ["LLR"], batch=16)
    runner = Reluctant(engine, most=16, base=ID["T"])
    alleles = every_snv()
    found = engine.score(alleles)["LLR"]
    assert [value == "FAILED" for value in found] == [sees_t(pos - 1) for _, pos, _, _ in alleles]
    runner.sizes.clear()
    engine.results(make_chunk([x for x in alleles if not sees_t(x[1] - 1)]))
    assert runner.sizes[0] == 16
