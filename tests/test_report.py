"""What a report holds: rows, counts, distributions, bases, genes, tracks; and that it is closed."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import re
import subprocess

import numpy as np
import pytest
from click.testing import CliRunner
from report_kit import (
    HEAD,
    LENGTH,
    SEQUENCE,
    data_of,
    record,
    scores,
    write_bigwig,
    write_fasta,
    write_tracks,
    write_vcf,
)

from glm_annotate import report, report_histograms, report_places
from glm_annotate.cli_report import report_command
from glm_annotate.errors import InputError
from glm_annotate.report import ASSETS, Extras, as_script_data, make_report
from glm_annotate.report_data import MEANINGS, meaning, read_annotated
from glm_annotate.report_histograms import Distribution
from glm_annotate.skips import Skip

RECORDS = [
    record(100, "A,T", scores("-1.5,0.25", "-1,2", "SCORED,SCORED"), name="one;two", ref="G"),
    record(700, ".", "CLASS=x", name="none"),
    record(1000, "ACC", "CLASS=known;" + scores(".", "-7.5", "LLR:INDEL"), name="ins"),
    record(4000, "<CNV>", scores(".", ".", "SYMBOLIC"), name="shared;by;three"),
]


@pytest.fixture
def vcf(tmp_path):
    return write_vcf(tmp_path / "scored.vcf", RECORDS)


# Rows


def test_rows_are_alleles_with_their_own_scores_and_names(vcf):
    file = read_annotated(str(vcf), 10)
    assert [(x.pos, x.name, x.alt, x.values, x.statuses) for x in file.rows] == [
        (100, "one", "A", (-1.5, -1.0), ("SCORED",)),
        (100, "two", "T", (0.25, 2.0), ("SCORED",)),
        (1000, "ins", "ACC", (None, -7.5), ("LLR:INDEL",)),
        (4000, "shared;by;three", "<CNV>", (None, None), ("SYMBOLIC",)),
    ]
    # Our keys are columns; the rest of INFO is kept as it is.
    assert [x.info for x in file.rows] == ["", "", "CLASS=known", ""]
    assert (file.records, file.alleles, file.without_alt, file.scored) == (4, 4, 1, 3)
    assert [(x.word, x.count) for x in file.statuses["TOY"]] == [
        ("SCORED", 2), ("LLR:INDEL", 1), ("SYMBOLIC", 1),
    ]  # fmt: skip
    assert [(x.key, x.tag, x.is_number) for x in file.columns] == [
        ("TOY_LLR", "TOY", True), ("TOY_PLLR", "TOY", True),
    ]  # fmt: skip
    (model,) = file.models
    assert (model.tag, model.fields["Context"], model.fields["Scores"]) == (
        "TOY",
        "512",
        "LLR,PLLR",
    )
    assert ("Command", "glm-annotate vcf in.vcf -m toy; Date=Today") in file.notes
    assert file.contigs == {"c1": LENGTH}


def test_bcf_and_compressed_files_are_read_too(vcf, bcftools, tmp_path):
    for kind in "bz":
        path = tmp_path / f"scored.{kind}"
        head = '##ALT=<ID=CNV,Description="x">\n##FILTER=<ID=PASS,Description="x">\n#CHROM'
        vcf.write_text(vcf.read_text().replace("#CHROM", head) if kind == "b" else vcf.read_text())
        subprocess.run([bcftools, "view", f"-O{kind}", "-o", path, vcf], check=True)
        file = read_annotated(str(path), 10)
        assert [x.values for x in file.rows][:3] == [(-1.5, -1.0), (0.25, 2.0), (None, -7.5)]


def test_the_largest_scores_are_kept_in_the_order_of_the_file(vcf):
    # By the first score that has a number: 1.5, 0.25, 7.5 (the fallback), none.
    assert [x.name for x in read_annotated(str(vcf), 2).rows] == ["one", "ins"]
    made = make_report(str(vcf), most=2)
    assert (made.shown, made.alleles) == (2, 4)
    data = data_of(made.page)
    assert len(data["rows"]) == 2
    # What was left out is counted, and said.
    assert sum(x[1] for x in data["statuses"]["TOY"]) == 4
    assert any("2 alleles" in x and "of 4" in x for x in data["leftOut"])


def test_a_sum_over_tracks_ranks_before_single_tracks(tmp_path):
    lines = [
        f'##INFO=<ID=T_SAD_{x},Number=A,Type={kind},Description="d",Source="glm_annotate">\n'
        for x, kind in (("liver", "Float"), ("MAX", "Float"), ("TOP", "String"), ("GENE", "String"))
    ]
    head = "##fileformat=VCFv4.3\n" + "".join(lines) + HEAD.splitlines(keepends=True)[-1]
    info = "T_SAD_liver=1;T_SAD_MAX=-3;T_SAD_TOP=RNA%3Aliver%20adult;T_SAD_GENE=."
    path = write_vcf(tmp_path / "x.vcf", [record(5, "A", info, ref="C")], head)
    file = read_annotated(str(path), 5)
    assert [x.of_track for x in file.columns] == [True, False, False, False]
    assert file.rows[0].rank == 3
    assert file.rows[0].values == (1.0, -3.0, "RNA:liver adult", None)
    assert file.statuses == {}


def test_histograms_count_every_number(tmp_path):
    values = [*np.linspace(-2, 2, 81).round(3).tolist(), -50.0]
    records = [record(10 + i, "N", scores(x, ".")) for i, x in enumerate(values)]
    found = read_annotated(str(write_vcf(tmp_path / "x.vcf", records)), 3).histograms
    assert set(found) == {"TOY_LLR"}
    histogram = found["TOY_LLR"]
    # The lone score far off is counted in the first bin.
    assert (histogram.low, histogram.high) == pytest.approx((-2, 2))
    assert (sum(histogram.counts), histogram.below, histogram.above) == (82, 1, 0)
    # Bins of 0.1 from -2 on: two values 0.05 apart in each, and the last one holds its edge too.
    assert histogram.counts[0] in (3, 4)
    assert all(1 <= n <= 3 for n in histogram.counts[1:])


def test_one_value_still_has_a_range(tmp_path):
    path = write_vcf(tmp_path / "x.vcf", [record(10, "N", scores(3, "."))])
    histogram = read_annotated(str(path), 3).histograms["TOY_LLR"]
    assert (histogram.low, histogram.high, sum(histogram.counts)) == (2.5, 3.5, 1)


def test_counts_are_of_every_number_however_many_wait(monkeypatch):
    monkeypatch.setattr(report_histograms, "_HELD", 100)
    numbers = np.random.default_rng(0).normal(size=1050).astype(np.float32)
    found = Distribution()
    for number in numbers.tolist():
        found.add(number)
    histogram = found.histogram()
    # The first hundred choose the range.
    low, high = float(numbers[:100].min()), float(numbers[:100].max())
    assert (histogram.low, histogram.high) == (low, high)
    assert (histogram.below, histogram.above) == ((numbers < low).sum(), (numbers > high).sum())
    assert histogram.below > 0 < histogram.above
    edges = np.linspace(low, high, 41)
    inner = [((numbers >= a) & (numbers < b)).sum() for a, b in itertools.pairwise(edges)]
    assert histogram.counts[1:-1] == tuple(inner[1:-1])
    assert sum(histogram.counts) == 1050


@pytest.mark.parametrize(
    ("numbers", "low", "high"),
    [
        ([0.0] * 95 + [0.9] * 5, 0, 0.9),  # most are one number: the others are no outliers
        ([3e38, -3e38], -3e38, 3e38),
        ([1e16], 0.9e16, 1.1e16),  # wide enough for numbers of that size
        ([1e-20, 2e-20], 1e-20, 2e-20),
        ([0.0], -0.5, 0.5),
    ],
)
def test_ranges_of_odd_scores(numbers, low, high):
    found = Distribution()
    for number in numbers:
        found.add(number)
    histogram = found.histogram()
    assert (histogram.low, histogram.high) == pytest.approx((low, high), rel=1e-6)
    assert (sum(histogram.counts), histogram.below) == (len(numbers), 0)


def test_a_score_without_numbers_has_no_histogram():
    assert Distribution().histogram() is None


def test_what_is_no_number_of_32_bits_has_no_number(tmp_path):
    texts = ["1e39", "-inf", "nan", ".", "3e38"]
    records = [record(10 + i, "N", scores(x, "1")) for i, x in enumerate(texts)]
    # A lone dot says that no ALT has a value.
    records.append(record(40, "A,N", "TOY_LLR=.;TOY_PLLR=2,3;TOY_STATUS=."))
    file = read_annotated(str(write_vcf(tmp_path / "x.vcf", records)), 20)
    assert [x.values[0] for x in file.rows] == [None] * 4 + [3e38, None, None]
    assert sum(file.histograms["TOY_LLR"].counts) == 1
    assert [x.statuses for x in file.rows[-2:]] == [(".",), (".",)]


def test_every_reason_has_a_meaning():
    assert {*Skip, "SCORED"} == set(MEANINGS)
    assert all(MEANINGS.values())
    assert meaning("REF_MISMATCH") == MEANINGS["REF_MISMATCH"]
    both = meaning("LLR:INDEL|WTLLR:INDEL|PLLR:TOO_LONG")
    assert both == f"no LLR, WTLLR: {MEANINGS['INDEL']}; no PLLR: {MEANINGS['TOO_LONG']}"
    assert meaning("<b>") == meaning("LLR:<b>") == ""


def test_long_text_is_cut_but_lengths_are_true(tmp_path):
    info = f"NOTE={'x' * 5000};" + scores(1, 1)
    records = [record(10, "A", info, ref="C" * 3000, name="n" * 900)]
    data = data_of(make_report(str(write_vcf(tmp_path / "x.vcf", records))).page)
    ((_, _, name, ref, _, ref_length, _, info, *_),) = data["rows"]
    assert (len(ref), len(name), len(info), ref_length) == (200, 200, 400, 3000)


# What lies around


def test_bases_have_their_true_places(vcf, tmp_path):
    data = data_of(make_report(str(vcf), Extras(fasta=str(write_fasta(tmp_path)))).page)
    assert data["contigs"] == [{"name": "c1", "igv": "c1", "length": LENGTH}]
    places = [(start, start + len(bases)) for _, start, bases in data["bases"]]
    # 200 on each side of REF, cut at the start of the contig.
    assert places == [(0, 300), (799, 1200), (3799, 4200)]
    for _, start, bases in data["bases"]:
        assert bases == SEQUENCE[start : start + len(bases)]


def test_without_a_genome_the_bases_are_those_of_ref(vcf):
    data = data_of(make_report(str(vcf)).page)
    for _, start, bases in data["bases"]:
        known = {start + i: x for i, x in enumerate(bases) if x != "N"}
        expected = {99: "G", 999: SEQUENCE[999], 3999: SEQUENCE[3999]}
        assert known == {k: v for k, v in expected.items() if start <= k < start + len(bases)}
    assert data["reference"] is None


def test_records_outside_their_contig(tmp_path):
    records = [record(0, "A", scores(1, 1), ref="C"), record(9000, "A", scores(2, 2), ref="C")]
    vcf = write_vcf(tmp_path / "x.vcf", records)
    data = data_of(make_report(str(vcf), Extras(fasta=str(write_fasta(tmp_path)))).page)
    assert [(start, len(bases)) for _, start, bases in data["bases"]] == [(0, 201)]
    assert data["contigs"][0]["length"] == LENGTH


def test_contigs_get_names_that_stay_apart(tmp_path):
    records = [record(5, "A", scores(1, 1), ref="C", chrom=x) for x in ("a:b", "a_b", "<i>", "ALL")]
    data = data_of(make_report(str(write_vcf(tmp_path / "x.vcf", records))).page)
    assert [x["name"] for x in data["contigs"]] == ["a:b", "a_b", "<i>", "ALL"]
    assert [x["igv"] for x in data["contigs"]] == ["a_b", "a_b_", "_i_", "ALL_"]


def test_genes_near_alleles_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(report_places, "GENE_FLANK", 300)
    rows = [("g1", 50, 120), ("g1", 150, 200), ("far", 2000, 2500), ("g2", 90, 101)]
    gtf = tmp_path / "genes.gtf"
    gtf.write_text("".join(
        f'c1\tx\texon\t{start}\t{end}\t.\t-\t.\tgene_id "{name}"; gene_name "{name.upper()}";\n'
        for name, start, end in rows
    ))  # fmt: skip
    path = write_vcf(tmp_path / "x.vcf", [RECORDS[0], RECORDS[2]])
    data = data_of(make_report(str(path), Extras(genes=str(gtf))).page)
    assert sorted(data["genes"]) == [
        [0, 49, 200, "G1", "-", [[49, 120], [149, 200]]], [0, 89, 101, "G2", "-", [[89, 101]]],
    ]  # fmt: skip
    assert [row[8] for row in data["rows"]] == ["G1, G2", "G1, G2", ""]
    monkeypatch.setattr(report_places, "MOST_GENES", 1)
    data = data_of(make_report(str(path), Extras(genes=str(gtf))).page)
    assert len(data["genes"]) == 1
    assert any("1 more genes" in x for x in data["leftOut"])


def tracks_of(tmp_path, values, kinds=("ref", "alt", "delta"), names=("liver",)):
    folder = tmp_path / "tracks"
    folder.mkdir()
    rows = []
    for name in names:
        for kind in kinds:
            write_bigwig(folder / f"{name}.{kind}.bw", 50, values[kind])
            rows.append(("c1", "100", "G", "A", name, kind, f"{name}.{kind}.bw"))
    return write_tracks(folder, rows)


def test_tracks_are_binned_where_they_lie(vcf, tmp_path, monkeypatch):
    monkeypatch.setattr(report_places, "MOST_BINS", 4)
    values = {
        "ref": [1, 2, 3, 4, 5, 6, 7, 8, 9], "alt": [0] * 9,
        "delta": [0, 1, -2, 0.5, 0.25, 0, 0, 3, -3.5],
    }  # fmt: skip
    data = data_of(make_report(str(vcf), Extras(tracks=str(tracks_of(tmp_path, values)))).page)
    # Nine bases in at most four bins are three bins of three: means, and the largest change.
    assert data["tracks"] == {
        "0": [
            ["liver", "ref", 50, 3, [2, 5, 8]],
            ["liver", "alt", 50, 3, [0, 0, 0]],
            ["liver", "delta", 50, 3, [-2, 0.5, -3.5]],
        ]
    }


def test_tracks_of_long_alleles_that_begin_alike(tmp_path):
    folder = tracks_of(tmp_path, {"delta": [1, 1]}, kinds=("delta",))
    write_bigwig(folder / "other.bw", 50, [2, 2])
    write_bigwig(folder / "empty.bw", 50, [])
    alts = ["A" * 300 + x for x in "CG"]
    rows = [
        ("c1", "100", "G", alts[0], "liver", "delta", "liver.delta.bw"),
        ("c1", "100", "G", alts[1], "liver", "delta", "other.bw"),
        ("c1", "100", "G", alts[1], "liver", "ref", "empty.bw"),
    ]
    write_tracks(folder, rows)
    records = [record(100, ",".join(alts), scores("1,2", "1,2", "SCORED,SCORED"), ref="G")]
    vcf = write_vcf(tmp_path / "x.vcf", records)
    data = data_of(make_report(str(vcf), Extras(tracks=str(folder))).page)
    assert data["tracks"] == {
        "0": [["liver", "delta", 50, 1, [1, 1]]], "1": [["liver", "delta", 50, 1, [2, 2]]],
    }  # fmt: skip


def test_tracks_of_several_models_are_told_apart(vcf, tmp_path):
    folder = tracks_of(tmp_path, {"delta": [1, 1]}, kinds=("delta",))
    write_bigwig(folder / "other.bw", 50, [2, 2])
    lines = ["chrom\tpos\tref\talt\ttrack\tkind\tfile\tmodel"]
    lines += [f"c1\t100\tG\tA\tliver\tdelta\t{x}" for x in ("liver.delta.bw\tM", "other.bw\tN")]
    for count, names in ((2, {"liver"}), (3, {"M liver", "N liver"})):
        (folder / "index.tsv").write_text("\n".join(lines[:count]) + "\n")
        data = data_of(make_report(str(vcf), Extras(tracks=str(folder))).page)
        assert {x[0] for x in data["tracks"]["0"]} == names


def test_a_bigwig_that_was_cut_off_is_refused(vcf, tmp_path):
    """The library ends the process at some of them."""
    values = np.random.default_rng(0).normal(size=4000).tolist()
    folder = tracks_of(tmp_path, {"delta": values}, kinds=("delta",))
    path = folder / "liver.delta.bw"
    whole = path.read_bytes()
    for size in (10, 80, 400, len(whole) // 2):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match="bigWig"):
            make_report(str(vcf), Extras(tracks=str(folder)))


def test_tracks_of_the_largest_scores_and_changes_alone(vcf, tmp_path, monkeypatch):
    monkeypatch.setattr(report_places, "MOST_TRACKS", 1)
    folder = tracks_of(tmp_path, {"delta": [0, 1]}, kinds=("delta",))
    write_bigwig(folder / "more.bw", 50, [0, -2])
    index = folder / "index.tsv"
    more = "c1\t100\tG\tA\tbrain\tdelta\tmore.bw\nc1\t100\tG\tT\tbrain\tdelta\tmore.bw\n"
    index.write_text(index.read_text() + more)
    monkeypatch.setattr(report, "MOST_TRACKED", 1)
    data = data_of(make_report(str(vcf), Extras(tracks=str(folder))).page)
    # Of the first ALT (score 1.5 against 0.25), and of its tracks the one that changes by 2.
    assert data["tracks"] == {"0": [["brain", "delta", 50, 1, [0, -2]]]}
    assert any("for 1 alleles" in x and "of 2" in x for x in data["leftOut"])


def test_mutagenesis_around_alleles(vcf, tmp_path):
    folder = tmp_path / "ism"
    folder.mkdir()
    columns = {base: [i + 0.25 * k for i in range(300)] for k, base in enumerate("ACGT")}
    for base, values in columns.items():
        write_bigwig(folder / f"{base}.bw", 0, values)
    data = data_of(make_report(str(vcf), Extras(mutagenesis=str(folder))).page)
    ((contig, start, four),) = data["ism"]
    # 30 bases on each side of position 100; the other alleles lie where there is no value.
    assert (contig, start, len(four[0])) == (0, 69, 61)
    assert [column[0] for column in four] == [69, 69.25, 69.5, 69.75]
    (folder / "G.bw").unlink()
    with pytest.raises(InputError, match=r"G\.bw: no such file; --ism needs"):
        make_report(str(vcf), Extras(mutagenesis=str(folder)))


# The page


def test_the_page_is_closed_and_its_policy_names_its_scripts(vcf):
    page = make_report(str(vcf), title="A <i>title</i> & more").page.decode()
    assert "<title>A &lt;i&gt;title&lt;/i&gt; &amp; more</title>" in page
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    rules = dict(x.strip().split(" ", 1) for x in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "data: blob:"
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(x.encode()).digest()).decode() for x in scripts]
    assert rules["script-src"].split() == [f"'sha256-{x}'" for x in digests]
    assert len(scripts) == 3
    # Nothing is fetched: no address in a tag, no source map.
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=", page)
    assert not re.search(r"^(?://|/\*)# sourceMappingURL", page, re.MULTILINE)


def test_the_same_file_makes_the_same_page(vcf):
    assert make_report(str(vcf)).page == make_report(str(vcf)).page


@pytest.mark.parametrize(
    "text", ["</script><script>", "<!--", "&amp;", "\u2028\u2029", "\udcff", '"\\', "\x00"]
)
def test_data_cannot_end_its_block(text):
    written = as_script_data({"x": text})
    assert written.isascii()
    assert not set("<>&\n\r\x00") & set(written)
    assert json.loads(written) == {"x": text}


def test_numbers_that_json_lacks_are_refused():
    with pytest.raises(ValueError, match="JSON"):
        as_script_data([math.nan])


def test_vendored_files_are_as_published():
    listed = json.loads((ASSETS / "versions.json").read_text())
    files = {name: digest for x in listed.values() for name, digest in x["files"].items()}
    for name, digest in files.items():
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == digest, name
    ours = {"template.html", "report.js", "report.css", "versions.json"}
    assert {x.name for x in ASSETS.iterdir()} == set(files) | ours
    # A closing tag inside a script would end it.
    assert all(
        "</script" not in (ASSETS / x).read_text().lower() for x in files if x.endswith("js")
    )


# The command and its errors


def test_command(vcf, tmp_path):
    out = tmp_path / "report.html"
    runner = CliRunner()
    arguments = [str(vcf), "-o", str(out), "--max-variants", "3", "--title", "T"]
    assert runner.invoke(report_command, arguments).exit_code == 0
    assert data_of(out.read_bytes())["title"] == "T"
    assert len(data_of(out.read_bytes())["rows"]) == 3
    again = runner.invoke(report_command, arguments)
    assert isinstance(again.exception, InputError)
    assert runner.invoke(report_command, [*arguments, "--force"]).exit_code == 0


@pytest.mark.parametrize(
    ("records", "head", "message"),
    [
        ([record(5, "A,C", scores(1, "1,2"))], HEAD, "c1:5) has 1 values in TOY_LLR for 2 ALT"),
        ([record(5, "A", scores("x", 1))], HEAD, "c1:5) has 'x' in TOY_LLR, which is no number"),
        (
            [],
            "##fileformat=VCFv4.3\n" + HEAD.splitlines()[-1] + "\n",
            "no INFO key of glm-annotate",
        ),
        (["c1\tx\n"], HEAD, "tab-separated columns"),
    ],
)
def test_faults_of_the_file(tmp_path, records, head, message):
    with pytest.raises(InputError) as caught:
        make_report(str(write_vcf(tmp_path / "x.vcf", records, head)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (None, "no index of tracks can be read"),
        ("chrom\tpos\n", "line 1 lacks the columns ref, alt, track, kind, file"),
        ("chrom\tpos\tref\talt\ttrack\tkind\tfile\nc1\t5\n", "line 2 has not the columns"),
        ("chrom\tpos\tref\talt\ttrack\tkind\tfile\nc1\t5\tA\tC\tt\tx\tf\n", "has the kind 'x'"),
        ("chrom\tpos\tref\talt\ttrack\tkind\tfile\nc1\t5\tA\tC\tt\tref\t../f\n", "outside"),
        ("chrom\tpos\tref\talt\ttrack\tkind\tfile\nc1\t100\tG\tA\tt\tref\tf\n", "not a bigWig: it"),
    ],
)  # fmt: skip
def test_faults_of_tracks(vcf, tmp_path, index, message):
    folder = tmp_path / "tracks"
    folder.mkdir()
    if index is not None:
        (folder / "index.tsv").write_text(index)
    (folder / "f").write_text("no bigWig")
    with pytest.raises(InputError) as caught:
        make_report(str(vcf), Extras(tracks=str(folder)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_without_alleles_makes_a_page(tmp_path):
    data = data_of(make_report(str(write_vcf(tmp_path / "x.vcf", [RECORDS[1]]))).page)
    assert (data["rows"], data["counts"]["withoutAlt"], data["histograms"]) == ([], 1, {})
