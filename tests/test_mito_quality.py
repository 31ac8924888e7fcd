"""The measuring script of the recipe `mito`, against brute force and hand-made data."""

from __future__ import annotations

import gzip
import importlib.util
import itertools
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from glm_annotate.errors import InputError
from glm_annotate.genome import reverse_complement, to_codes, to_text

SCRIPT = Path(__file__).resolve().parent.parent / "recipes" / "mito" / "quality.py"


@pytest.fixture(scope="module")
def quality():
    spec = importlib.util.spec_from_file_location("mito_quality", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def random_codes(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(4, size=size).astype(np.uint8)


def write_table(
    path: Path, rows: list[str], header: str = "chrom\tpos\tref\talt\tlabel_population"
):
    text = "\n".join([header, *rows]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def pairwise_auroc(score, positive, weight) -> float:
    """Every pair looked at: the definition."""
    won = total = 0.0
    for i, j in itertools.product(np.flatnonzero(positive), np.flatnonzero(~positive)):
        w = weight[i] * weight[j]
        won += w * (1.0 if score[i] > score[j] else 0.5 if score[i] == score[j] else 0.0)
        total += w
    return won / total


@pytest.mark.parametrize("levels", [3, 1000])
def test_auroc_counts_pairs(quality, levels):
    rng = np.random.default_rng(levels)
    score = rng.integers(levels, size=60).astype(float)  # 3 levels: mostly ties
    positive = rng.random(60) < 0.4
    weights = rng.integers(0, 4, size=(5, 60)).astype(float)
    expected = [pairwise_auroc(score, positive, w) for w in weights]
    np.testing.assert_allclose(quality.auroc(score, positive, weights), expected, rtol=1e-12)


def test_auroc_by_hand_and_without_a_class(quality):
    score, positive = np.array([1.0, 2.0, 3.0, 4.0]), np.array([False, True, False, True])
    # Pairs (2 over 1), (4 over 1), (4 over 3) are won, (2 over 3) is lost.
    assert quality.auroc(score, positive, np.ones((1, 4))) == [0.75]
    only_positive = np.array([[0.0, 1.0, 0.0, 1.0]])
    assert np.isnan(quality.auroc(score, positive, only_positive)).all()


def test_bootstrap_draws_whole_positions(quality):
    pos = np.array([7, 7, 9, 12, 12, 12])
    weights = np.concatenate(list(quality.resample(pos, 120, seed=3)))
    assert weights.shape == (120, 6)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 4]).all()
    assert (weights[:, 3] == weights[:, 5]).all()
    # As many positions are drawn as there are, with replacement.
    assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all()
    assert weights.max() == 3
    again = np.concatenate(list(quality.resample(pos, 120, seed=3)))
    np.testing.assert_array_equal(weights, again)


def test_interval_holds_what_resampling_by_hand_holds(quality):
    rng = np.random.default_rng(5)
    pos = np.repeat(np.arange(1, 81), 2)
    label = np.where(rng.random(160) < 0.5, "absent", "common")
    score = rng.normal(size=160) + (label == "absent")
    score[4] = np.nan
    table = quality.Table(pos, np.zeros(160, dtype=int), np.tile([1, 3], 80), label)
    found = quality.compare(score, table, ~table.transition, "common", 400, seed=1)
    used = np.isfinite(score)
    members = [np.flatnonzero(used & (pos == p)) for p in range(1, 81)]
    by_hand = []
    for _ in range(400):
        drawn = np.concatenate([members[i] for i in rng.integers(80, size=80)])
        ones = np.ones(drawn.size)
        by_hand.append(pairwise_auroc(score[drawn], label[drawn] == "absent", ones))
    assert found.auroc == pytest.approx(
        pairwise_auroc(score[used], label[used] == "absent", np.ones(159))
    )
    low, high = np.percentile(by_hand, [2.5, 97.5])
    assert found.low == pytest.approx(low, abs=0.025)
    assert found.high == pytest.approx(high, abs=0.025)
    assert (found.absent + found.others, found.missing) == (159, 1)


def test_a_label_without_variants_is_an_error(quality):
    table = quality.Table(
        np.arange(1, 4), np.zeros(3, int), np.full(3, 2), np.array(["absent"] * 3)
    )
    with pytest.raises(InputError, match=r"none is rare; labels of the table are absent"):
        quality.compare(np.arange(3.0), table, table.transition, "rare", 10, seed=0)


def count_by_hand(sequences: list[str], width: int) -> dict[str, int]:
    counts: dict[str, int] = {}
    for text in sequences:
        for strand in (text, to_text(reverse_complement(to_codes(text)))):
            wrapped = strand + (strand * width)[: width - 1]
            for start in range(len(strand)):
                kmer = wrapped[start : start + width]
                if "N" not in kmer:
                    counts[kmer] = counts.get(kmer, 0) + 1
    return counts


def test_kmers_are_counted_on_both_strands_and_around(quality):
    sequences = [to_text(random_codes(1, 50)), to_text(random_codes(2, 31)), "ACGTNACGA", "ACG"]
    found = quality.count_kmers([to_codes(s) for s in sequences], flank=2)
    expected = count_by_hand(sequences, 5)
    assert found.sum() == sum(expected.values())
    for kmer, count in expected.items():
        assert found[tuple(to_codes(kmer))] == count


def test_kmer_probabilities_back_off(quality):
    sequences, strength = [to_text(random_codes(3, 40))], 3.0
    counts = count_by_hand(sequences, 5)

    def probability(left: str, base: str, right: str) -> float:
        prior = probability(left[1:], base, right[:-1]) if left else 0.25
        f = len(left)
        middle = {k: n for k, n in counts.items() if (k[2 - f : 2], k[3 : 3 + f]) == (left, right)}
        hits = sum(n for k, n in middle.items() if k[2] == base)
        return (hits + strength * prior) / (sum(middle.values()) + strength)

    tables = quality.fit_kmers(quality.count_kmers([to_codes(sequences[0])], flank=2), strength)
    for f, table in enumerate(tables):
        np.testing.assert_allclose(table.sum(axis=f), 1.0, rtol=1e-12)
    # A 4-neighbour context that the sequence holds, one that it does not, and their inner parts.
    seen = next(iter(counts))
    unseen = next(
        left + "A" + right
        for left, right in itertools.product(
            map("".join, itertools.product("ACGT", repeat=2)), repeat=2
        )
        if not any((k[:2], k[3:]) == (left, right) for k in counts)
    )
    for kmer in (seen, unseen):
        codes = tuple(to_codes(kmer))
        assert tables[2][codes] == pytest.approx(
            probability(kmer[:2], kmer[2], kmer[3:]), rel=1e-12
        )
        assert tables[1][codes[1:4]] == pytest.approx(probability(kmer[1], kmer[2], kmer[3]))
    assert tables[2][tuple(to_codes(unseen))] == pytest.approx(
        tables[1][tuple(to_codes(unseen[1:4]))]
    )


@pytest.mark.parametrize(
    ("window", "used"),
    [("ACGTA", "ACGTA"), ("NCGTA", "CGT"), ("ACGTN", "CGT"), ("ANGTA", "G"), ("NCGNA", "G")],
)
def test_an_n_leaves_the_neighbours_before_it(quality, window, used):
    tables = quality.fit_kmers(quality.count_kmers([random_codes(4, 3000)], flank=2), 1.0)
    table = quality.Table(np.array([3]), np.array([2]), np.array([0]), np.array(["rare"]))
    found = quality.score_kmers(tables, to_codes(window)[None], table)
    half = len(used) // 2
    changed = used[:half] + "A" + used[half + 1 :]
    ratio = tables[half][tuple(to_codes(changed))] / tables[half][tuple(to_codes(used))]
    assert found[0] == pytest.approx(math.log(ratio))


def test_columns_are_found_in_any_case(quality, tmp_path):
    path = write_table(
        tmp_path / "t.tsv.gz", ["Absent\t5\tc\tT\t9"], "LABEL_POPULATION\tPosition\tREF\tAlt\tcount"
    )
    table = quality.read_table(path)
    assert (table.pos, table.ref, table.alt, table.label) == (5, 1, 3, "absent")
    assert table.transition.tolist() == [True]


@pytest.mark.parametrize(
    ("ref", "alt", "transition"),
    [(r, a, {r, a} in ({"A", "G"}, {"C", "T"})) for r, a in itertools.permutations("ACGT", 2)],
)
def test_transitions(quality, tmp_path, ref, alt, transition):
    path = write_table(tmp_path / "t.tsv", [f"chrM\t1\t{ref}\t{alt}\trare"])
    assert quality.read_table(path).transition.tolist() == [transition]


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        (
            "chrom\tpos\tref\tlabel_population",
            "M\t1\tA\trare",
            "no column alt .*are chrom, pos, ref",
        ),
        ("pos\tref\talt\tlabel_population", "1\tA\tAT\trare", "line 2: found 1 A>AT"),
        ("pos\tref\talt\tlabel_population", "x\tA\tT\trare", "line 2: found x A>T"),
        ("pos\tref\talt\tlabel_population", "1\tA\tT", "line 2: 3 columns"),
    ],
)
def test_a_bad_table_is_one_line(quality, tmp_path, header, row, message):
    path = write_table(tmp_path / "t.tsv", [row], header)
    with pytest.raises(InputError, match=message) as caught:
        quality.read_table(path)
    assert "\n" not in str(caught.value)


VCF_HEADER = """##fileformat=VCFv4.2
##contig=<ID=MT,length=400>
##INFO=<ID=MITO_LLR,Number=A,Type=Float,Description="x">
##INFO=<ID=DEPTH,Number=1,Type=Integer,Description="x">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO
"""


@pytest.fixture
def world(tmp_path):
    """A contig of 400 bases whose absent SNVs have low LLRs and high phyloP, by construction."""
    import pyBigWig

    codes = random_codes(9, 400)
    text = to_text(codes)
    (tmp_path / "m.fa").write_text(f">chrM\n{text}\n")
    (tmp_path / "train.fa").write_text(f">NC_1.1\n{text}\n>NC_9.1\n{'A' * 400}\n")
    (tmp_path / "withheld.txt").write_text("NC_9.1  # not for the model\n")
    rng, rows, records = np.random.default_rng(2), [], []
    for at, ref in enumerate(text):
        alts = [base for base in "ACGT" if base != ref]
        labels = [("absent", "rare", "common")[at % 3]] * 3
        rows += [f"chrM\t{at + 1}\t{ref}\t{a}\t{x}" for a, x in zip(alts, labels, strict=True)]
        low = {"absent": -10.0, "rare": -1.0, "common": 0.0}[labels[0]]
        numbers = [f"{low + rng.random():.4f}" for _ in alts]
        numbers[0] = "." if at == 11 else numbers[0]
        info = f"MITO_LLR={','.join(numbers)}"
        records.append(f"MT\t{at + 1}\t.\t{ref}\t{','.join(alts)}\t.\t.\t{info}\n")
    write_table(tmp_path / "t.tsv.gz", rows)
    (tmp_path / "a.vcf").write_text(VCF_HEADER + "".join(records))
    with pyBigWig.open(str(tmp_path / "p.bw"), "w") as bigwig:
        bigwig.addHeader([("chrM", 400)])
        # Position 1 has no value; absent and common have the same values from there on.
        bigwig.addEntries("chrM", list(range(1, 400)), values=[0.5] * 399, span=1)
    return tmp_path


def arguments(world: Path) -> list[str]:
    inputs = ["--table", "t.tsv.gz", "--fasta", "m.fa", "--scores", "a.vcf", "--phylop", "p.bw"]
    inputs += ["--kmer-train", "train.fa", "--kmer-withheld", "withheld.txt", "--out", "q.json"]
    return [word if word.startswith("--") else str(world / word) for word in inputs]


def test_the_whole_script(quality, world, capsys):
    code = quality.main([*arguments(world), "--resamples", "60", "--markdown"])
    out = capsys.readouterr()
    assert (code, out.err) == (0, "")
    report = json.loads((world / "q.json").read_text())
    assert report["labels"] == {"absent": 402, "common": 399, "rare": 399}
    for kind in ("transitions", "transversions"):
        model = report["auroc"]["MITO_LLR"][kind]["absent_common"]
        assert (model["auroc"], model["low"], model["high"]) == (1.0, 1.0, 1.0)
        flat = report["auroc"]["phyloP"][kind]["absent_rare"]
        assert (flat["auroc"], flat["low"], flat["high"]) == (0.5, 0.5, 0.5)
        # The first position (absent, one transition and two transversions) has no phyloP.
        assert flat["missing"] == {"transitions": 1, "transversions": 2}[kind]
    # Position 12 is common, and its first ALT has no LLR.
    model = report["auroc"]["MITO_LLR"]
    assert sum(model[kind]["absent_common"]["missing"] for kind in model) == 1
    rows = [line for line in out.out.splitlines() if line.startswith("| MITO_LLR")]
    assert len(rows) == 4
    assert "| MITO_LLR | transitions | common | 1.000 | 1.000 to 1.000 |" in rows[0]


def test_scores_are_turned_and_belong_to_their_position(quality, world):
    import pyBigWig

    values = np.random.default_rng(0).normal(size=400).astype(np.float32)
    with pyBigWig.open(str(world / "p.bw"), "w") as bigwig:
        bigwig.addHeader([("MT", 400)])
        bigwig.addEntries("MT", 0, values=values.tolist(), span=1, step=1)
    options = quality._parser().parse_args(arguments(world))
    table, genome = quality.read_table(options.table), quality.Genome(options.fasta)
    scores = quality.collect_scores(options, genome, "chrM", table)
    np.testing.assert_allclose(scores["phyloP"], values[table.pos - 1], rtol=1e-6)
    # REF alleles are likely to a model counted on the genome itself: almost every ALT is unlikely.
    assert (scores["k-mer"] > 0).mean() > 0.95
    lines = [x.split("\t") for x in (world / "a.vcf").read_text().splitlines() if x[0] != "#"]
    for pos, alts, info in ((x[1], x[4], x[7]) for x in (lines[0], lines[11], lines[399])):
        for alt, llr in zip(alts.split(","), info.split("=")[1].split(","), strict=True):
            at = (table.pos == int(pos)) & (table.alt == "ACGT".index(alt))
            wanted = [np.nan if llr == "." else -float(llr)]
            np.testing.assert_allclose(scores["MITO_LLR"][at], wanted, rtol=1e-6)


def test_withheld_sequences_are_not_counted(quality, world):
    sequences = list(quality.training_sequences([world / "train.fa"], frozenset({"NC_9.1"})))
    assert [to_text(s) for s in sequences] == [(world / "m.fa").read_text().split("\n")[1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--key", "DEPTH"], "no INFO key 'DEPTH'.*such keys are MITO_LLR"),
        (["--scores", "none.vcf"], "none.vcf: no such file"),
        (["--fasta", "train.fa"], "no contig chrM, MT or M"),
    ],
)
def test_errors_are_one_line_and_a_code(quality, world, capsys, monkeypatch, change, message):
    monkeypatch.chdir(world)
    assert quality.main([*arguments(world), *change]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)


def test_another_reference_is_refused(quality, world, capsys):
    text = (world / "m.fa").read_text()
    first = text.split("\n")[1][0]
    other = "A" if first != "A" else "C"
    (world / "other.fa").write_text(text.replace(f"\n{first}", f"\n{other}", 1))
    assert quality.main([*arguments(world), "--fasta", str(world / "other.fa")]) == 1
    assert f"has not {first} at chrM:1;" in capsys.readouterr().err
