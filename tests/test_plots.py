"""The picture of an annotated VCF: what is read, what is drawn, and what stops it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from glm_annotate.errors import InputError
from glm_annotate.plot_data import Scale, auroc, read_alleles, read_regions, scale_of
from glm_annotate.plots import plot_scores

pytest.importorskip("matplotlib")

HEADER = """\
##fileformat=VCFv4.3
##contig=<ID=c,length=1000>
##INFO=<ID=CLASS,Number=1,Type=String,Description="what is known">
##INFO=<ID=X_LLR,Number=A,Type=Float,Description="a score">
##INFO=<ID=X_PLLR,Number=A,Type=Float,Description="another">
##INFO=<ID=X_STATUS,Number=A,Type=String,Description="no score">
#CHROM	POS	ID	REF	ALT	QUAL	FILTER	INFO
"""


def write_vcf(folder: Path, *records: tuple[int, str, str, str, str], contig: str = "c") -> Path:
    """Write records of POS, ID, REF, ALT and INFO."""
    path = folder / "scores.vcf"
    lines = [
        f"{contig}\t{pos}\t{name}\t{ref}\t{alt}\t.\t.\t{info}"
        for pos, name, ref, alt, info in records
    ]
    path.write_text(HEADER + "".join(f"{line}\n" for line in lines))
    return path


def test_auroc_counts_pairs():
    # Of the pairs (1,2) (1,3) (2,2) (2,3), three are in order and one is a tie.
    assert auroc([1, 2], [2, 3]) == 3.5 / 4
    assert auroc([5], [4]) == 0


def test_a_lone_far_score_is_off_the_scale():
    # Quartiles of 0..10 and 100 are 2.75 and 8.25: three times 5.5 beyond them is 24.75.
    scale = scale_of([*range(11), 100])
    assert (scale.low, scale.high) == (0, 10)
    assert scale.edges == pytest.approx((-1.2, 11.2))
    assert [scale.is_off(x) for x in (0, 10, 100, -5, None)] == [False, False, True, True, False]
    assert [scale.place(x) for x in (4, 100, -5)] == pytest.approx([4, 11.2, -1.2])


@pytest.mark.parametrize("scores", [[3], [0, 100], [*range(11), 24.7], [0] * 8 + [-50, 50]])
def test_otherwise_the_scale_holds_every_score(scores):
    assert scale_of(scores) == Scale(min(scores), max(scores))


def test_alleles_are_read_with_their_fallback_and_their_own_names(tmp_path):
    path = write_vcf(
        tmp_path,
        (5, "one;two", "A", "C,G", "CLASS=good;X_LLR=-1,.;X_PLLR=-1,2.5"),
        (9, "shared", "A", "C,G", "X_LLR=0.5,nan"),
        (11, ".", "A", ".", "."),
        (12, ".", "AT", "A", "X_STATUS=FAILED"),
    )
    contig, length, alleles = read_alleles(path, "X_LLR", "X_PLLR", "CLASS")
    assert (contig, length) == ("c", 1000)
    assert [(x.pos, x.name, x.known, x.score, x.is_fallback) for x in alleles] == [
        (5, "one", "good", -1, False),
        (5, "two", "good", 2.5, True),
        (9, "9A>C", "unclassified", 0.5, False),
        (9, "9A>G", "unclassified", None, True),
        (12, "12AT>A", "unclassified", None, True),
    ]
    # Keys that the header does not declare are no reason to stop, but for the first.
    _, _, alleles = read_alleles(path, "X_LLR", "Y_PLLR", "GROUP")
    assert [x.score for x in alleles] == [-1, None, 0.5, None, None]


def test_regions_of_other_contigs_and_header_lines_are_left_out(tmp_path):
    path = tmp_path / "genes.bed"
    path.write_text("track name=x\n#c\nc\t0\t10\tMT-A\t0\t-\nd\t0\t10\tB\nc\t20\t30\n")
    found = [(x.start, x.end, x.name, x.strand) for x in read_regions(path, "c")]
    assert found == [(0, 10, "MT-A", "-"), (20, 30, "", ".")]


def test_the_picture_says_what_it_left_out(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    saved = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: saved.append(figure))
    good = [(10 * i, ".", "A", "C", f"CLASS=benign_common;X_LLR={i}") for i in range(1, 12)]
    bad = (500, "far", "A", "C", "CLASS=pathogenic_confirmed;X_LLR=-99.5")
    indel = (600, ".", "AT", "A", "CLASS=odd_ones;X_LLR=.;X_PLLR=5")
    path = write_vcf(tmp_path, *good, bad, indel, (700, ".", "A", "N", "X_LLR=.;X_PLLR=."))
    (tmp_path / "genes.bed").write_text("c\t100\t600\tMT-GENE\t0\t+\n")
    plot_scores(
        path,
        tmp_path / "scores.png",
        key="X_LLR",
        fallback="X_PLLR",
        regions=tmp_path / "genes.bed",
        highlight=["110A>C"],
        title="Heading",
    )
    (figure,) = saved
    main, side, track = figure.axes
    texts = [text.get_text() for text in main.texts]
    assert "hollow: X_PLLR   1 off the scale, at the edge   1 without a score" in texts
    assert {"far (score -99.5)", "110A>C"} <= set(texts)
    # -99.5 is below all of 1 to 11.
    assert side.get_title(loc="left") == "1 pathogenic, 11 benign alleles\nAUROC 1.000"
    assert [text.get_text() for text in track.texts] == ["GENE"]
    assert [text.get_text() for text in figure.texts] == ["Heading"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "common polymorphism (11)",
        "confirmed pathogenic (1)",
        "odd ones (1)",
    ]


def test_png(tmp_path):
    path = write_vcf(tmp_path, (5, ".", "A", "C", "X_LLR=1"))
    out = plot_scores(path, tmp_path / "scores.png", key="X_LLR", fallback=None)
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("records", "options", "message"),
    [
        ([], {}, "records of 0 contigs"),
        ([(5, ".", "A", "C", "X_LLR=.")], {}, "no allele has a number in X_LLR"),
        ([(5, ".", "A", "C,G", "X_LLR=1")], {}, "c:5 has 1 numbers in X_LLR for 2 ALT alleles"),
        ([(5, ".", "A", "C", "X_LLR=1")], {"key": "X_STATUS"}, "it has X_LLR, X_PLLR; run"),
        ([(5, ".", "A", "C", "X_LLR=1")], {"key": "Y_LLR"}, "no INFO field Y_LLR"),
        ([("x", ".", "A", "C", "X_LLR=1")], {}, "cannot be read as VCF or BCF"),
        ([(5, ".", "A", "C", "X_LLR=1")], {"out_png": "no/such/x.png"}, "No such file"),
        ([(5, ".", "A", "C", "X_LLR=1")], {"out_png": "x.doc"}, ".doc is no picture format"),
        ([(5, ".", "A", "C", "X_LLR=1")], {"regions": "none.bed"}, "cannot be read as BED"),
        ([(5, ".", "A", "C", "X_LLR=1")], {"regions": "scores.vcf"}, "line 8 is not BED"),
    ],
)
def test_errors_are_one_line(tmp_path, monkeypatch, records, options, message):
    monkeypatch.chdir(tmp_path)
    path = write_vcf(tmp_path, *records)
    with pytest.raises(InputError) as caught:
        plot_scores(path, **{"out_png": "x.png", "key": "X_LLR", **options})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("x.*"))


def test_two_contigs_are_one_too_many(tmp_path):
    path = write_vcf(tmp_path, (5, ".", "A", "C", "X_LLR=1"))
    path.write_text(path.read_text() + "d\t5\t.\tA\tC\t.\t.\tX_LLR=1\n")
    with pytest.raises(InputError, match="records of 2 contigs"):
        plot_scores(path, tmp_path / "x.png", key="X_LLR")


def test_without_matplotlib_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"pip install 'glm_annotate\[plots\]'"):
        plot_scores(tmp_path / "x.vcf", tmp_path / "x.png")
