"""`evaluate perplexity` and `context`: sums and windows by plain loops."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine import Engine
from evaluate_kit import contigs as contigs
from evaluate_kit import evaluate, rows_of
from evaluate_kit import fasta as fasta
from scipy import stats

from glm_annotate.errors import InputError, UsageError
from glm_annotate.evaluate.context import (
    HiddenFlanks,
    choose_alleles,
    kept,
    verdict,
    width_needed,
    widths_of,
)
from glm_annotate.evaluate.context import Question as ContextQuestion
from glm_annotate.evaluate.perplexity import BLOCK, find_regions
from glm_annotate.genome import Genome
from glm_annotate.per_base import Kind, per_base
from glm_annotate.testing import toy_bundle

# --- perplexity ----------------------------------------------------------------------------------


def test_a_model_that_knows_nothing_has_perplexity_four(tmp_path, fasta):
    bundle = toy_bundle("uniform", tmp_path / "m")
    bed = tmp_path / "x.bed"
    bed.write_text("one\t30\t120\n")
    evaluate("perplexity", "-f", fasta, "-m", bundle, "-R", bed, "-o", tmp_path / "out")
    rows = {x["bases"]: x for x in rows_of(tmp_path / "out")}
    assert {k: int(x["count"]) for k, x in rows.items()} == {"all": 87, "unique": 37, "repeats": 50}
    for row in rows.values():
        assert float(row["nats"]) == pytest.approx(math.log(4), abs=1e-5)
        assert (row["bits"], row["perplexity"]) == ("2", "4")
        # One block of bases has no interval.
        assert (row["low"], row["lost"]) == (".", "0")


@pytest.mark.parametrize("kind", ["wide", "causal"])
def test_bases_are_shared_out_by_regions_and_repeats(tmp_path, fasta, contigs, kind):
    bundle = toy_bundle(kind, tmp_path / "m", tag="T")
    bed = tmp_path / "x.bed"
    bed.write_text("one\t20\t80\ta\none\t70\t130\tb\ntwo\t10\t40\ta\n")
    evaluate("perplexity", "-f", fasta, "-m", bundle, "-R", bed, "-o", tmp_path / "out")
    engine = Engine(bundle, fasta, strand="forward" if kind == "causal" else None)
    (model,) = engine.annotator.models
    if kind == "causal":
        model = replace(model, strands=(False,))
    every: dict[tuple[str, str], list[float]] = {}
    letters: dict[tuple[str, str], str] = {}
    regions = {"a": [("one", 20, 80), ("two", 10, 40)], "b": [("one", 70, 130)]}
    for contig, text in contigs.items():
        pieces = per_base(model, engine.genome, contig, 0, 140, [Kind("likelihood")])
        logs = np.concatenate([x["likelihood"] for _, x in pieces])
        for i in range(140):
            of = [
                n
                for n, some in regions.items()
                if any(c == contig and s <= i < e for c, s, e in some)
            ]
            if not of or text[i] == "N":
                continue
            for name in ("all", *of):
                for part in ("all", "repeats" if text[i].islower() else "unique"):
                    every.setdefault((name, part), []).append(float(logs[i]))
                    letters[name, part] = letters.get((name, part), "") + text[i].upper()
    rows = {(x["regions"], x["bases"]): x for x in rows_of(tmp_path / "out")}
    assert set(rows) == set(every)
    for key, values in every.items():
        row = rows[key]
        nats = -sum(values) / len(values)
        shares = [letters[key].count(x) / len(values) for x in "ACGT"]
        assert int(row["count"]) == len(values)
        assert float(row["nats"]) == pytest.approx(nats, abs=1e-5)
        assert float(row["perplexity"]) == pytest.approx(math.exp(nats), rel=1e-5)
        assert float(row["bits"]) == pytest.approx(nats / math.log(2), abs=1e-5)
        composition = math.exp(-sum(x * math.log(x) for x in shares if x))
        assert float(row["composition_perplexity"]) == pytest.approx(composition, rel=1e-5)


def test_intervals_come_of_blocks():
    from glm_annotate.evaluate.perplexity import Tally

    tally, draw = Tally(), np.random.default_rng(2)
    logs = draw.normal(-1, 0.2, 12 * BLOCK)
    tally.add("c", np.arange(12 * BLOCK), logs, np.zeros(12 * BLOCK, dtype=np.uint8))
    found = tally.entropy(60, 4)
    means, again = logs.reshape(12, BLOCK).mean(axis=1), np.random.default_rng(4)
    samples = [-means[again.integers(0, 12, 12)].mean() for _ in range(60)]
    assert found.value == pytest.approx(-logs.mean())
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(samples, [2.5, 97.5])))


def test_regions_without_a_base_are_an_error(tmp_path, fasta):
    genome = Genome(str(fasta))
    assert [(x.chrom, x.end) for x in find_regions(genome, None).stretches] == [
        ("one", 1300), ("two", 700),
    ]  # fmt: skip
    bed = tmp_path / "x.bed"
    bed.write_text("one\t5\t5\n")
    with pytest.raises(InputError, match="no base in it"):
        find_regions(genome, str(bed))


# --- context -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "extra"), [(1, 0), (8, 0), (9, 3), (400, 0)])
def test_only_the_middle_of_a_window_is_seen(fasta, width, extra):
    plain = Genome(str(fasta))
    starts, length, anchor = np.array([120, 300, 641]), 40 + extra, 17
    expected = plain.windows("one", starts, length)
    begin, end = max(0, anchor - width // 2), min(length, anchor - width // 2 + width + extra)
    assert kept(anchor, width, length, extra) == (begin, end)
    for how in ("n", "shuffle"):
        genome = HiddenFlanks(str(fasta), anchor=anchor, context=40, width=width, how=how, seed=1)
        found = genome.windows("one", starts, length)
        assert np.array_equal(found[:, begin:end], expected[:, begin:end])
        for hidden in (slice(0, begin), slice(end, length)):
            for row, was in zip(found[:, hidden], expected[:, hidden], strict=True):
                if how == "n":
                    assert (row == 4).all()
                else:
                    assert np.array_equal(np.sort(row), np.sort(was))
        # One by one, and again, they are the same.
        assert np.array_equal(found[1:2], genome.windows("one", starts[1:2], length))
        assert np.array_equal(genome.codes("one"), plain.codes("one"))
    if begin > 8:
        assert not np.array_equal(found, expected)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, contigs: dict[str, str]) -> Path:
    draw, lines = np.random.default_rng(4), []
    for pos in range(150, 1100, 9):
        ref = contigs["one"][pos - 1]
        alt = "ACGT".replace(ref, "")[pos % 3]
        lines.append(f"one\t{pos}\t.\t{ref}\t{alt}\t.\t.\tX={draw.normal():.4f}\n")
    path = tmp_path_factory.mktemp("vcf") / "x.vcf"
    head = "##fileformat=VCFv4.3\n##contig=<ID=one>\n"
    head += '##INFO=<ID=X,Number=A,Type=Float,Description="x">\n'
    path.write_text(head + "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n" + "".join(lines))
    return path


def test_a_model_of_neighbours_needs_no_more_than_them(labelled, fasta, tmp_path, capsys):
    # It reads the bases beside the masked one and nothing else; "wide" reads the whole window.
    for kind in ("markov", "wide"):
        bundle = toy_bundle(kind, tmp_path / kind, tag="T", scores=("LLR",))
        for how in ("n", "shuffle"):
            evaluate(
                "context", labelled, "-f", fasta, "-m", bundle, "--label", "X", "--how", how,
                "--widths", "1,4,16", "--bootstrap", 5, "-o", tmp_path / f"{kind}-{how}",
            )  # fmt: skip
            rows = {
                (int(x["width"]), x["metric"]): float(x["value"])
                for x in rows_of(tmp_path / f"{kind}-{how}")
            }
            alike = {w: rows[w, "Spearman with whole window"] for w in (1, 4, 16, 32)}
            assert alike[32] == 1
            if kind == "markov":
                assert (alike[4], alike[16]) == (1, 1)
                # A shuffle leaves the first and the last base of a flank in place.
                assert alike[1] < 0.99 if how == "n" else alike[1] == 1
                assert rows[4, "Spearman"] == rows[32, "Spearman"]
            else:
                assert alike[4] < alike[16] < 1
    assert "T_LLR: its ranks are those of the whole window (32 bases" in capsys.readouterr().out
    # With the whole window the scores are those of an ordinary run.
    engine = Engine(tmp_path / "wide", fasta, ("LLR",))
    alleles, truth = [], []
    for line in labelled.read_text().splitlines():
        if not line.startswith("#"):
            chrom, pos, _, ref, alt, *_, info = line.split("\t")
            alleles.append((chrom, int(pos), ref, alt))
            truth.append(float(info[2:]))
    expected = stats.spearmanr(engine.score(alleles)["LLR"], truth)[0]
    assert rows[32, "Spearman"] == pytest.approx(expected, abs=1e-5)


def test_classes_are_told_apart_by_low_values(labelled, fasta, tmp_path):
    metrics = pytest.importorskip("sklearn.metrics")
    bundle = toy_bundle("wide", tmp_path / "m", tag="T")
    about = '##INFO=<ID=Y,Number=1,Type=String,Description="y">\n#CHROM'
    lines = labelled.read_text().replace("#CHROM", about).splitlines()
    kinds = ["" if x.startswith("#") else ";Y=bad" if "X=-" in x else ";Y=good" for x in lines]
    lines = [x + kind for x, kind in zip(lines, kinds, strict=True)]
    (tmp_path / "x.vcf").write_text("\n".join(lines) + "\n")
    arguments = ["context", tmp_path / "x.vcf", "-f", fasta, "-m", bundle, "-s", "LLR", "--label"]
    arguments += ["Y", "--positive", "bad", "--widths", "8", "--bootstrap", 2]
    evaluate(*arguments, "-o", tmp_path / "low")
    evaluate(*arguments, "--direction", "T_LLR=abs", "-o", tmp_path / "abs")
    cells = [x.split("\t") for x in lines if not x.startswith("#")]
    alleles = [(x[0], int(x[1]), x[3], x[4]) for x in cells]
    scores = np.array(Engine(bundle, fasta, ("LLR",)).score(alleles)["LLR"])
    truth = ["bad" in x[7] for x in cells]
    assert 20 < sum(truth) < len(truth) - 20
    for folder, values in (("low", -scores), ("abs", np.abs(scores))):
        found = {(x["width"], x["metric"]): float(x["value"]) for x in rows_of(tmp_path / folder)}
        assert found["32", "AUROC"] == pytest.approx(metrics.roc_auc_score(truth, values), abs=1e-5)


def row(width: int, value: float, low: float = 0.6, metric: str = "AUROC") -> dict[str, object]:
    return {"column": "T", "width": width, "metric": metric, "value": value, "low": low, "high": 1}


@pytest.mark.parametrize(
    ("values", "low", "needed"),
    [
        # From 0.5 on, 0.79 is 29 of 30 parts and 0.78 is 28 of them, less than 95 %.
        ((0.5, 0.78, 0.79, 0.8), 0.6, 32),
        ((0.5, 0.79, 0.78, 0.8), 0.6, 64),
        ((0.9, 0.9, 0.9, 0.8), 0.6, 8),
        ((0.5, 0.6, 0.7, 0.8), 0.45, None),
        # Turned the wrong way it is no measure to keep.
        ((0.4, 0.3, 0.2, 0.2), 0.1, None),
    ],
)
def test_the_width_that_is_enough(values, low, needed):
    rows = [row(w, v, low) for w, v in zip((8, 16, 32, 64), values, strict=True)]
    assert width_needed(rows, "AUROC") == needed
    rows += [row(w, 1.0, 1, "Spearman with whole window") for w in (8, 16, 32, 64)]
    text = verdict(rows, "T")
    if needed is None:
        assert "not above chance" in text
    else:
        assert f"95 % of its AUROC above chance is reached from {needed} bases on" in text
        assert ("uses all of its window" in text) == (needed == 64)


def test_alleles_are_drawn_once(caplog):
    sites = [("c", i // 2, "A", "C") for i in range(40)]
    question = ContextQuestion(source="x", most=5, seed=3)
    found = choose_alleles(sites, None, question)
    assert found.size == 5
    assert (found % 2 == 0).all()
    assert np.array_equal(found, choose_alleles(sites, None, question))
    assert choose_alleles(sites, None, replace(question, most=99)).size == 20


def test_what_context_cannot_be_asked(labelled, fasta, tmp_path):
    bundle = toy_bundle("wide", tmp_path / "m", n="error")
    (model,) = Engine(bundle, fasta).annotator.models
    assert widths_of(model, ()) == [8, 16, 32]
    assert widths_of(model, (32, 5)) == [5, 32]
    arguments = ["context", labelled, "-f", fasta, "-m", bundle, "-o", tmp_path / "out", "--force"]
    for more, fault in (
        (["--widths", "33"], "the window of toy-wide has 32 bases"),
        (["--widths", "x"], "not a number of bases"),
        (["-s", "WTLLR"], "windows on a grid"),
        (["-s", "LLR"], "0 alleles have TOY_LLR at all widths; models that cannot read N"),
    ):
        with pytest.raises((UsageError, InputError), match=fault):
            evaluate(*arguments, *more)
    evaluate(*arguments, "-s", "LLR", "--how", "shuffle", "--bootstrap", 2)
    assert {x["width"] for x in rows_of(tmp_path / "out")} == {"8", "16", "32"}
