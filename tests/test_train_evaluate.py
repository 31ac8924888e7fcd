"""`evaluate variants`: figures from the VCF up, baselines and strata by hand, controls."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pysam
import pytest
from engine import write_fasta

from glm_annotate.bundle import load_bundle
from glm_annotate.cli_evaluate import evaluate_group
from glm_annotate.errors import InputError, UsageError
from glm_annotate.evaluate.alleles import read_labels, read_table, reason_of
from glm_annotate.evaluate.columns import (
    Column,
    Placed,
    direction_of_score,
    directions_of,
    make_baseline,
    make_strata,
)
from glm_annotate.evaluate.compare import compare, share_alleles
from glm_annotate.evaluate.genome_columns import count_kmers, place_alleles
from glm_annotate.evaluate.output import as_text, cell
from glm_annotate.genome import Genome
from glm_annotate.testing import toy_bundle

HEADER = """\
##fileformat=VCFv4.3
##contig=<ID=lin,length=300>
##INFO=<ID=CLASS,Number=1,Type=String,Description="what is known">
##INFO=<ID=EFFECT,Number=A,Type=Float,Description="what was measured">
##INFO=<ID=AF,Number=R,Type=Float,Description="frequencies">
##INFO=<ID=SEEN,Number=0,Type=Flag,Description="a flag">
##INFO=<ID=OLD,Number=A,Type=Float,Description="a score">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO
"""


def write_vcf(path: Path, rows: list[tuple[int, str, str, str]]) -> Path:
    """Write records of POS, REF, ALT and INFO on `lin`."""
    lines = [f"lin\t{pos}\t.\t{ref}\t{alt}\t.\t.\t{info}\n" for pos, ref, alt, info in rows]
    path.write_text(HEADER + "".join(lines))
    return path


def evaluate(*arguments: object) -> None:
    evaluate_group.main([*map(str, arguments)], "evaluate", standalone_mode=False)


def rows_of(folder: Path, name: str = "metrics.tsv") -> list[dict[str, str]]:
    with (folder / name).open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.fixture(scope="module")
def bases() -> str:
    return "".join(np.random.default_rng(3).choice(list("ACGT"), 300))


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory, bases: str) -> Path:
    return write_fasta(tmp_path_factory.mktemp("genome") / "toy.fa", {"lin": bases})


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("bundles")
    # Their tables differ, and so do their scores.
    return [
        toy_bundle("wide", folder / "a", tag="AA", seed=1, scores=("LLR",)),
        toy_bundle("wide", folder / "b", tag="BB", seed=2, scores=("LLR", "ENT")),
    ]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, bases: str) -> Path:
    """SNVs of two classes, an indel, one of a third class, one without a label, one twice."""
    draw, rows = np.random.default_rng(7), []
    for pos in range(20, 260, 3):
        ref = bases[pos - 1]
        alts = [x for x in "ACGT" if x != ref]
        kind = "bad" if draw.random() < 0.4 else "good"
        effect = float(draw.normal())
        rows.append((pos, ref, alts[pos % 3], f"CLASS={kind};EFFECT={effect:.4f}"))
    rows.append((261, bases[260], f"{bases[260]}GG", "CLASS=bad;EFFECT=1"))
    rows.append((264, bases[263], "ACGT".replace(bases[263], "")[0], "CLASS=unsure;EFFECT=2"))
    rows.append((267, bases[266], "ACGT".replace(bases[266], "")[0], "SEEN"))
    rows.append(rows[4])
    return write_vcf(tmp_path_factory.mktemp("vcf") / "labelled.vcf", rows)


# --- alleles and labels --------------------------------------------------------------------------


def test_values_belong_to_their_alts(tmp_path):
    rows = [(5, "A", "C,G", "EFFECT=1,.;AF=0.7,0.2,0.1;SEEN"), (6, "A", "T", "CLASS=x")]
    table = read_table(str(write_vcf(tmp_path / "x.vcf", rows)), None)
    assert [site[3] for site in table.sites] == ["C", "G", "T"]
    assert table.numbers("EFFECT").tolist()[0] == 1
    assert np.isnan(table.numbers("EFFECT")[1:]).all()
    assert table.numbers("AF")[:2] == pytest.approx([0.2, 0.1])
    assert table.texts("CLASS") == ["", "", "x"]
    assert table.texts("SEEN") == ["1", "1", ""]


def test_labels_are_classes_or_numbers(tmp_path):
    rows = [(5, "A", "C", "CLASS=x;EFFECT=2;SEEN"), (6, "A", "T", "CLASS=y"), (7, "A", "T", ".")]
    table = read_table(str(write_vcf(tmp_path / "x.vcf", rows)), None)
    found = read_labels(table, "CLASS", ("x",), ())
    assert found.values.tolist()[:2] == [1, 0]
    assert found.reasons == ["", "", "no CLASS"]
    assert read_labels(table, "SEEN", ("1",), ()).values.tolist() == [1, 0, 0]
    numbers = read_labels(table, "EFFECT", (), ())
    assert (numbers.kind, numbers.values[0]) == ("numbers", 2)
    assert numbers.reasons == ["", "no EFFECT", "no EFFECT"]


@pytest.mark.parametrize(
    ("key", "positive", "negative", "fault"),
    [
        ("CLASS", (), (), "--positive x"),
        ("CLASS", (), ("x",), "needs --positive"),
        ("CLASS", ("z",), (), "no allele is of the positive class; CLASS holds x, y"),
        ("CLASS", ("x",), ("z",), "no allele is of the negative class"),
        ("CLASS", ("x",), ("x",), "of the positive class too"),
    ],
)
def test_labels_that_cannot_be(tmp_path, key, positive, negative, fault):
    rows = [(5, "A", "C", "CLASS=x"), (6, "A", "T", "CLASS=y")]
    table = read_table(str(write_vcf(tmp_path / "x.vcf", rows)), None)
    with pytest.raises(UsageError, match=fault):
        read_labels(table, key, positive, negative)


def test_unknown_keys_and_empty_files_are_errors(tmp_path):
    path = str(write_vcf(tmp_path / "x.vcf", [(5, "A", "C", ".")]))
    with pytest.raises(InputError, match="no INFO key NONE; it has CLASS"):
        read_table(path, ["NONE"])
    with pytest.raises(InputError, match="no ALT allele"):
        read_table(str(write_vcf(tmp_path / "y.vcf", [])), None)
    with pytest.raises(InputError, match="CLASS is String, not numbers"):
        read_table(path, ["CLASS"]).numbers("CLASS")


@pytest.mark.parametrize(
    ("status", "key", "reason"),
    [
        ("SCORED", "LLR", "no value"),
        ("REF_MISMATCH", "LLR", "REF_MISMATCH"),
        ("LLR:INDEL|ENT:NO_BIN", "LLR", "INDEL"),
        ("SAD:NO_GENE", "SAD_GENE_MAX", "NO_GENE"),
        ("LLR:INDEL", "PLLR", "no value"),
        ("", "LLR", "no value"),
    ],
)
def test_reasons_are_those_of_the_status(status, key, reason):
    assert reason_of(status, key) == reason


def test_directions():
    keys = ("M_LLR", "M_EMB_COS_ALL", "M_EMB_DOT", "B_SAD_MAX")
    assert [direction_of_score(x) for x in keys] == ["low", "high", "low", "abs"]
    assert direction_of_score("CADD") == "high"
    assert directions_of(["low,X=abs"]) == {"": "low", "X": "abs"}
    with pytest.raises(UsageError, match="'up' is none of low, high, abs"):
        directions_of(["X=up"])
    column = Column("x", "score", "low", np.array([1.0, -2.0]), ["", ""])
    assert column.oriented.tolist() == [-1, 2]


# --- baselines and strata ------------------------------------------------------------------------


def placed_on(fasta: Path, sites: list[tuple[int, str, str]]) -> Placed:
    genome = Genome(str(fasta))
    return Placed(genome, place_alleles(genome, [("lin", *site) for site in sites]))


def turned(text: str) -> str:
    return text[::-1].translate(str.maketrans("ACGT", "TGCA"))


def test_kmers_are_counted_on_both_strands(fasta, bases):
    expected = Counter(
        text[i : i + 3] for text in (bases, turned(bases)) for i in range(len(bases) - 2)
    )
    found = count_kmers(Genome(str(fasta)), ["lin"], 3)
    numbers = {f"{a}{b}{c}": 16 * "ACGT".index(a) + 4 * "ACGT".index(b) + "ACGT".index(c)
               for a in "ACGT" for b in "ACGT" for c in "ACGT"}  # fmt: skip
    assert {k: int(found[i]) for k, i in numbers.items()} == {k: expected[k] for k in numbers}


def test_kmer_change_is_that_of_a_plain_loop(fasta, bases):
    k = 3
    counts = Counter(
        text[i : i + k] for text in (bases, turned(bases)) for i in range(len(bases) - k + 1)
    )
    edits = []  # start, REF and ALT without what they share
    for pos, old, new in [(50, 1, 1), (90, 2, 2)]:
        ref = bases[pos : pos + old]
        alt = "".join("ACGT".replace(x, "")[0] for x in ref)[:new]
        edits.append((pos, ref, alt))
    # A deletion and an insertion that cannot be moved to the left.
    at = next(i for i in range(120, 200) if bases[i] != bases[i - 1])
    edits.append((at, bases[at], ""))
    edits.append((at, "", next(x for x in "ACGT" if x != bases[at - 1])))
    sites = [(pos, bases[pos - 1] + ref, bases[pos - 1] + alt) for pos, ref, alt in edits]
    found = make_baseline(f"kmer={k}", placed_on(fasta, sites)).values
    for (pos, ref, alt), value in zip(edits, found.tolist(), strict=True):
        left, right = bases[pos - k + 1 : pos], bases[pos + len(ref) : pos + len(ref) + k - 1]
        means = []
        for allele in (alt, ref):
            text = left + allele + right
            logs = [math.log1p(counts[text[i : i + k]]) for i in range(len(text) - k + 1)]
            means.append(sum(logs) / len(logs))
        assert value == pytest.approx(means[0] - means[1], abs=1e-12)


def other(base: str, which: int = 0) -> str:
    return "ACGT".replace(base, "")[which]


def test_simple_columns_by_hand(fasta, bases, tmp_path):
    import pyBigWig

    sites = [(11, bases[10], other(bases[10])), (100, bases[99], other(bases[99])), (1, "N", "A")]
    sites.append((41, bases[40], other(bases[40])))
    placed = placed_on(fasta, sites)
    gc = make_baseline("gc=20", placed).values
    # Before the contig there is nothing that could count.
    expected = [sum(x in "GC" for x in text) / len(text) for text in (bases[:20], bases[89:109])]
    assert gc[:2] == pytest.approx(expected)
    assert math.isnan(gc[2])

    genes = tmp_path / "genes.gtf"
    gene = 'lin\tx\texon\t{}\t{}\t.\t{}\t.\tgene_id "{}"; transcript_id "{}";\n'
    genes.write_text(gene.format(31, 60, "+", "a", "a1") + gene.format(70, 95, "-", "b", "b1"))
    tss = make_baseline(f"tss={genes}", placed).values
    # Starts at 30 and 94, of which the nearest counts, on either side.
    assert tss[[0, 1, 3]] == pytest.approx([math.log10(21), math.log10(6), math.log10(11)])

    path = str(tmp_path / "x.bw")
    with pyBigWig.open(path, "w") as file:
        file.addHeader([("lin", 300)])
        starts, values = [10, 47, 48, 49, 98], [2.5, 2.0, 4.0, 9.0, 7.0]
        file.addEntries(["lin"] * 5, starts, ends=[x + 1 for x in starts], values=values)
    bases_here = {bases[47], bases[48]}
    sites = [
        (48, bases[47], bases[47] + next(x for x in "ACGT" if x not in bases_here)),
        (11, bases[10], other(bases[10])),
        (100, bases[99], other(bases[99])),
        (98, bases[97:99], other(bases[97]) + other(bases[98])),
    ]
    column = make_baseline(f"phylop={path}", placed_on(fasta, sites))
    # The insertion has the mean of both bases beside it.
    assert column.values[[0, 1, 3]].tolist() == [3.0, 2.5, 7.0]
    assert math.isnan(column.values[2])
    assert (column.direction, column.reasons[2]) == ("high", "no value")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("nothing", "known: kmer, gc, tss, phylop, transition"),
        ("kmer=0", "not a number from 1 to 10"),
        ("tss", "needs genes"),
        ("phylop", "needs a bigWig"),
        ("transition=1", "takes no value"),
    ],
)
def test_baselines_that_cannot_be(fasta, bases, text, fault):
    with pytest.raises(UsageError, match=fault):
        make_baseline(text, placed_on(fasta, [(11, bases[10], other(bases[10]))]))


def test_files_that_are_no_bigwig_are_errors(fasta, bases, tmp_path):
    import pyBigWig

    placed = placed_on(fasta, [(11, bases[10], other(bases[10]))])
    with pytest.raises(InputError, match="no such file"):
        make_baseline(f"phylop={tmp_path}/none.bw", placed)
    path = str(tmp_path / "x.bw")
    with pyBigWig.open(path, "w") as file:
        file.addHeader([("lin", 301)])
        file.addEntries(["lin"], [10], ends=[11], values=[2.5])
    with pytest.raises(InputError, match=r"301 bases, lin of .* has 300"):
        make_baseline(f"phylop={path}", placed)


def test_strata_by_hand(fasta, bases, tmp_path):
    swap = dict(zip("ACGT", "GTAC", strict=True))
    cross = dict(zip("ACGT", "CAAA", strict=True))
    rows = [
        (11, bases[10], swap[bases[10]], "CLASS=x;AF=0.5,0.001"),
        (21, bases[20], cross[bases[20]], "CLASS=y;AF=0.5,0.0999"),
        (31, bases[30], f"{bases[30]}{other(bases[31])}", "CLASS=x;AF=0.9,0.1"),
        (41, bases[40], cross[bases[40]], "."),
        (10, bases[9], cross[bases[9]], "."),
        (199, bases[198:201], "".join(cross[x] for x in bases[198:201]), "."),
    ]
    table = read_table(str(write_vcf(tmp_path / "x.vcf", rows)), ["CLASS", "AF"])
    genome = Genome(str(fasta))
    placed = Placed(genome, place_alleles(genome, table.sites))
    bed = tmp_path / "x.bed"
    bed.write_text("lin\t20\t31\tone\nlin\t10\t21\ttwo\nlin\t200\t300\tfar\nlin\t39\t40\n")
    genes = tmp_path / "genes.gtf"
    genes.write_text('lin\tx\texon\t31\t60\t.\t+\t.\tgene_id "a"; transcript_id "a1";\n')

    def strata(text: str) -> list[str]:
        return make_strata(text, table, placed).labels

    ti, tv = "transition", "transversion"
    assert strata("titv") == [ti, tv, "other", tv, tv, "other"]
    assert strata("consequence=CLASS") == ["x", "y", "x", *["none"] * 3]
    assert make_strata("consequence=CLASS", table, placed).order == ["none", "x", "y"]
    # The first row of the file that holds a base; the insertion lies before base 31 (0-based).
    assert strata(f"region={bed}") == ["two", "one", *["outside"] * 3, "far"]
    assert strata("af=AF") == ["0.001 to 0.01", "0.01 to 0.1", "0.1 or more", *["none"] * 3]
    assert strata("af=AF:0.0999")[:3] == ["below 0.0999", "0.0999 or more", "0.0999 or more"]
    assert make_strata("af=AF", table, placed).order == [
        "0.001 to 0.01", "0.01 to 0.1", "0.1 or more", "none",
    ]  # fmt: skip
    assert strata(f"tss={genes}:5:15") == [
        "15 or more", "5 to 15", "below 5", "5 to 15", "15 or more", "15 or more",
    ]  # fmt: skip
    for text, fault in (
        ("colour", "known: titv"),
        ("titv=1", "takes no value"),
        ("af", "needs a value"),
        ("af=AF:1:0.1", "have to ascend"),
    ):
        with pytest.raises(UsageError, match=fault):
            strata(text)


# --- comparison ----------------------------------------------------------------------------------


def test_strata_take_away_what_lies_between_them():
    """Pooled, the column tells the strata apart; within them it says nothing."""
    from glm_annotate.evaluate.alleles import Labels
    from glm_annotate.evaluate.columns import Strata

    # Stratum a: 30 of 40 positive, all 1; stratum b: 10 of 40 positive, all 0.
    label = np.array([1.0] * 30 + [0.0] * 10 + [1.0] * 10 + [0.0] * 30)
    where = ["a"] * 40 + ["b"] * 40
    column = Column("x", "score", "high", np.array([1.0] * 40 + [0.0] * 40), [""] * 80)
    labels = Labels("classes", label, [""] * 80, "")
    sites = [("lin", i, "A", "C") for i in range(80)]
    shared = share_alleles(sites, labels, [column])
    strata = Strata("side", where, ["a", "b"])
    figures = compare([column], labels, shared, [strata], times=50, seed=0)
    found = {(x.by, x.stratum): x for x in figures if x.metric == "AUROC"}
    assert found["all", ""].estimate.value == pytest.approx(0.75 * 0.75 + 2 * 0.75 * 0.25 * 0.5)
    assert found["side", "within strata"].estimate.value == 0.5
    assert (found["side", "a"].rows, found["side", "a"].positives) == (40, 30)


def test_intervals_of_strata_and_differences_are_those_of_plain_loops():
    metrics = pytest.importorskip("sklearn.metrics")
    from glm_annotate.evaluate.alleles import Labels
    from glm_annotate.evaluate.columns import Strata

    draw, times, seed = np.random.default_rng(2), 40, 6
    label = (draw.random(150) < 0.4).astype(float)
    where = ["a" if x < 0.3 else "b" for x in draw.random(150)]
    values = {"x": draw.normal(size=150) + label, "y": np.round(draw.normal(size=150), 1)}
    columns = [Column(name, "score", "high", x, [""] * 150) for name, x in values.items()]
    sites = [("lin", i, "A", "C") for i in range(150)]
    labels = Labels("classes", label, [""] * 150, "")
    shared = share_alleles(sites, labels, columns)
    strata = Strata("side", where, ["a", "b"])
    figures = compare(columns, labels, shared, [strata], times=times, seed=seed)
    found = {(x.by, x.stratum, x.column, x.against, x.metric): x for x in figures}

    def drawn(groups: list[list[int]]) -> list[list[int]]:
        again = np.random.default_rng(seed)
        return [
            [rows[k] for rows in groups for k in again.integers(0, len(rows), len(rows)).tolist()]
            for _ in range(times)
        ]

    def area(column: str, rows: list[int]) -> float:
        return float(metrics.roc_auc_score(label[rows], values[column][rows]))

    def check(key: tuple[str, ...], whole: float, samples: list[float]) -> None:
        got = found[key].estimate
        low, high = np.percentile(samples, [2.5, 97.5])
        assert (got.value, got.low, got.high) == pytest.approx((whole, low, high), abs=1e-12)

    every = list(range(150))
    pools = [[i for i in every if label[i] == kind] for kind in (0, 1)]
    gaps = [area("x", rows) - area("y", rows) for rows in drawn(pools)]
    check(("all", "", "x", "y", "AUROC"), area("x", every) - area("y", every), gaps)

    pools = [[i for i in every if where[i] == s and label[i] == k] for s in "ab" for k in (0, 1)]
    pairs = {"a": len(pools[0]) * len(pools[1]), "b": len(pools[2]) * len(pools[3])}
    assert 2 * pairs["a"] < pairs["b"]

    def inside(rows: list[int], stratum: str) -> list[int]:
        return [i for i in rows if where[i] == stratum]

    def mean(rows: list[int]) -> float:
        total = sum(n * area("x", inside(rows, s)) for s, n in pairs.items())
        return total / sum(pairs.values())

    some = drawn(pools)
    check(("side", "within strata", "x", "", "AUROC"), mean(every), [mean(x) for x in some])
    alone = [area("x", inside(rows, "a")) for rows in some]
    check(("side", "a", "x", "", "AUROC"), area("x", inside(every, "a")), alone)


def test_no_shared_allele_is_an_error():
    from glm_annotate.evaluate.alleles import Labels

    nan = np.array([math.nan, 1.0])
    columns = [
        Column("x", "score", "high", nan, ["INDEL", ""]),
        Column("y", "score", "high", nan[::-1], ["", "NO_BIN"]),
    ]
    labels = Labels("numbers", np.array([1.0, 2.0]), ["", ""], "")
    with pytest.raises(InputError, match="1 x: INDEL; 1 y: NO_BIN"):
        share_alleles([("l", 1, "A", "C"), ("l", 2, "A", "C")], labels, columns)


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory, fasta, bundles, labelled):
    folder = tmp_path_factory.mktemp("out") / "evaluation"
    arguments = ["variants", labelled, "-f", fasta, "--label", "CLASS", "--positive", "bad"]
    arguments += ["--negative", "good", "-m", bundles[0], "-m", f"CC={bundles[1]}", "--threads", 1]
    arguments += ["--baseline", "kmer=3,transition", "--by", "titv", "--bootstrap", 40]
    evaluate(*arguments, "--random-control", "-o", folder)
    return folder


KEYS = ("AA_LLR", "CC_LLR", "CC_ENT", "AARANDOM_LLR", "CCRANDOM_LLR", "CCRANDOM_ENT")


def test_figures_are_those_of_the_annotated_vcf(run, labelled):
    metrics = pytest.importorskip("sklearn.metrics")
    scores, label = {}, []
    seen = set()
    with pysam.VariantFile(str(run / "scored.vcf.gz")) as file:
        for record in file:
            kind = record.info.get("CLASS")
            single = len(record.ref) == len(record.alts[0])
            if kind in ("good", "bad") and single and record.pos not in seen:
                label.append(kind == "bad")
                for key in KEYS:
                    scores.setdefault(key, []).append(record.info[key][0])
            seen.add(record.pos)
    found = {
        (x["column"], x["metric"]): x
        for x in rows_of(run)
        if x["against"] == "." and x["by"] == "all"
    }
    assert {column for column, _ in found} == {*KEYS, "kmer3", "transition"}
    for key in KEYS:
        row = found[key, "AUROC"]
        assert float(row["value"]) == pytest.approx(
            metrics.roc_auc_score(label, [-x for x in scores[key]]), abs=1e-5
        )
        expected = metrics.average_precision_score(label, [-x for x in scores[key]])
        assert float(found[key, "AUPRC"]["value"]) == pytest.approx(expected, abs=1e-5)
        assert float(row["low"]) < float(row["value"]) < float(row["high"])
        assert (row["alleles"], row["positives"]) == (str(len(label)), str(sum(label)))
        assert row["role"] == ("control" if "RANDOM" in key else "score")
    assert len({tuple(x) for x in scores.values()}) == len(KEYS)


def test_differences_are_of_the_same_alleles(run):
    rows = rows_of(run)
    alone = {
        (x["column"], x["metric"]): float(x["value"])
        for x in rows
        if x["by"] == "all" and x["against"] == "."
    }
    pairs = [x for x in rows if x["against"] != "."]
    assert len(pairs) == 2 * 8 * 7 / 2
    for x in pairs:
        gap = alone[x["column"], x["metric"]] - alone[x["against"], x["metric"]]
        assert float(x["value"]) == pytest.approx(gap, abs=2e-6)
        assert float(x["low"]) <= float(x["high"])


def test_the_report_tells_what_was_left_out_and_of_which_models(run, bundles):
    text = (run / "report.md").read_text()
    for line in (
        "| AA_LLR: INDEL | 1 |",
        "| CLASS of neither class | 1 |",
        "| no CLASS | 1 |",
        "| given before in the file | 1 |",
        "80 of 84 alleles",
        "permuted weights",
    ):
        assert line in text, line
    for bundle in bundles:
        assert load_bundle(bundle).digest in text


def test_tables_say_the_same_in_both_formats(run):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(run / "metrics.parquet").to_pylist()
    rows = rows_of(run)
    assert len(table) == len(rows)
    for x, y in zip(table, rows, strict=True):
        for key, value in x.items():
            assert y[key] == cell("" if value is None else value)
    alleles = rows_of(run, "alleles.tsv")
    assert len(alleles) == 80
    assert {x["by_titv"] for x in alleles} == {"transition", "transversion"}


def test_pictures_are_drawn(run):
    pytest.importorskip("matplotlib")
    for name in ("auroc.png", "auroc_by_titv.png"):
        assert (run / name).read_bytes()[:4] == b"\x89PNG"


def test_an_annotated_vcf_needs_no_model(run, tmp_path, capsys):
    scored = run / "scored.vcf.gz"
    evaluate(
        "variants", scored, "--label", "CLASS", "--positive", "bad", "--negative", "good",
        "--key", "AA_LLR,CC_LLR", "--bootstrap", 5, "-o", tmp_path / "again",
    )  # fmt: skip
    first = {
        x["column"]: x["value"]
        for x in rows_of(run)
        if x["by"] == "all" and x["metric"] == "AUROC" and x["against"] == "."
    }
    again = {
        x["column"]: x["value"]
        for x in rows_of(tmp_path / "again")
        if x["metric"] == "AUROC" and x["against"] == "."
    }
    assert again == {key: first[key] for key in ("AA_LLR", "CC_LLR")}
    assert "80 of 84 alleles have a label and a number" in capsys.readouterr().out


def test_numbers_are_correlated_as_they_are(run, tmp_path):
    from scipy import stats

    scored = run / "scored.vcf.gz"
    arguments = ["variants", scored, "--label", "EFFECT", "--key", "AA_LLR", "--bootstrap", 5]
    evaluate(*arguments, "-o", tmp_path / "raw")
    evaluate(*arguments, "--direction", "AA_LLR=low", "-o", tmp_path / "turned")
    alleles = rows_of(tmp_path / "raw", "alleles.tsv")
    x, y = ([float(row[key]) for row in alleles] for key in ("AA_LLR", "label"))
    expected = {"Spearman": stats.spearmanr(x, y)[0], "Pearson": stats.pearsonr(x, y)[0]}
    for folder, sign in (("raw", 1), ("turned", -1)):
        found = {r["metric"]: float(r["value"]) for r in rows_of(tmp_path / folder)}
        assert found == pytest.approx({k: sign * v for k, v in expected.items()}, abs=1e-4)


def test_a_direction_without_a_column_is_of_scores_alone(run, fasta, tmp_path):
    evaluate(
        "variants", run / "scored.vcf.gz", "-f", fasta, "--label", "CLASS", "--positive", "bad",
        "--key", "AA_LLR,CC_LLR", "--baseline", "gc", "--direction", "abs,CC_LLR=high",
        "--bootstrap", 0, "-o", tmp_path / "out",
    )  # fmt: skip
    found = {x["column"]: x["direction"] for x in rows_of(tmp_path / "out")}
    assert found == {"AA_LLR": "abs", "CC_LLR": "high", "gc": "high"}


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        (["--label", "CLASS", "--positive", "bad"], "nothing to evaluate"),
        (["--label", "NO", "--key", "OLD"], "no INFO key NO"),
        (["--label", "EFFECT", "--key", "OLD", "--by", "titv"], "needs the reference"),
        (["--label", "EFFECT", "--baseline", "gc"], "needs the reference"),
        (["--label", "EFFECT", "--key", "OLD", "--random-control"], "needs models"),
        (["--label", "EFFECT", "-m", "mito"], "needs the reference"),
        (["--label", "EFFECT", "--key", "OLD", "--by", "af=AF,af=AF:1"], "--by af: given twice"),
        (["--label", "EFFECT", "--baseline", "gc,gc"], "--baseline gc: given twice"),
        (["--label", "EFFECT", "--key", "EFFECT", "--direction", "X=low"], "no such column"),
    ],
)
def test_questions_that_cannot_be_answered(labelled, tmp_path, more, fault):
    with pytest.raises((UsageError, InputError), match=fault):
        evaluate("variants", labelled, *more, "-o", tmp_path / "out")


def test_an_evaluation_is_not_replaced_unasked(run, labelled):
    with pytest.raises(InputError, match="holds an evaluation"):
        evaluate("variants", labelled, "--label", "EFFECT", "--key", "EFFECT", "-o", run)


# --- controls ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["permuted", "normal"])
def test_a_control_has_the_shape_of_the_model_and_other_weights(bundles, tmp_path, method):
    onnx = pytest.importorskip("onnx")
    from glm_annotate.train.randomised import write_control

    assert write_control(f"ZZ={bundles[0]}", tmp_path / "a", method, 4) == "ZZ"
    assert write_control(str(bundles[0]), tmp_path / "b", method, 4) == "AA"
    assert write_control(str(bundles[0]), tmp_path / "c", method, 5) == "AA"
    control, model = load_bundle(tmp_path / "a"), load_bundle(bundles[0])
    assert f"with {method} weights" in control.card.name
    assert control.card.scoring_digest() == model.card.scoring_digest()

    def weights(folder):
        graph = onnx.load(str(folder / "model.onnx")).graph
        return {x.name: onnx.numpy_helper.to_array(x) for x in graph.initializer}

    old, new = weights(bundles[0]), weights(tmp_path / "a")
    assert {k: v.shape for k, v in old.items()} == {k: v.shape for k, v in new.items()}
    large = [name for name, x in old.items() if x.size > 20 and x.dtype.kind == "f"]
    assert large
    for name in large:
        assert not np.array_equal(old[name], new[name])
        if method == "permuted" or old[name].ndim < 2:
            assert np.array_equal(np.sort(old[name], axis=None), np.sort(new[name], axis=None))
        else:
            spread = old[name].std() / math.sqrt(old[name].size)
            assert new[name].mean() == pytest.approx(old[name].mean(), abs=float(6 * spread))
    same, another = weights(tmp_path / "b"), weights(tmp_path / "c")
    assert all(np.array_equal(new[k], same[k]) for k in new)
    assert not all(np.array_equal(new[k], another[k]) for k in new)


def test_codes_and_whole_numbers_are_no_weights():
    from glm_annotate.train.randomised import _is_weights

    assert not _is_weights(np.eye(5, dtype=np.float32))
    assert not _is_weights(np.arange(40))
    assert not _is_weights(np.float32(2.5))
    assert _is_weights(np.arange(40, dtype=np.float16))
    assert _is_weights(np.arange(-40, 40, dtype=np.int8).reshape(8, 10))


def test_text_tables_are_aligned():
    rows = [{"name": "a", "value": 1.5}, {"name": "long", "value": math.nan}]
    assert as_text(rows) == "name  value\na       1.5\nlong      .\n"
    assert json.loads(json.dumps(rows[0])) == rows[0]
    assert "glm_annotate.train.randomised" in sys.modules
