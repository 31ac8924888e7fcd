"""The picture of a locus: what its artists show, against loops over what went in."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_annotate.errors import InputError
from glm_annotate.gene_models import GeneModels, make_gene
from glm_annotate.locus_curves import number, steps_of
from glm_annotate.locus_genes import gene_rows, packed
from glm_annotate.locus_logo import importance
from glm_annotate.locus_page import COLUMNS, chosen
from glm_annotate.locus_plot import (
    Curve,
    GeneShape,
    Locus,
    Logo,
    draw_locus,
    genes_of,
    locus_figure,
)
from glm_annotate.locus_text import shortened, text_width, wrapped

pytest.importorskip("matplotlib")

S = 1_000_000
SITE = (S + 600, S + 601, "chr1:1,000,601 A>G")


def curve(name="track", start=S, count=40, span=32, seed=0, alt=True, **kind):
    random = np.random.default_rng(seed)
    ref = random.gamma(1, 3, count)
    changed = ref + random.normal(0, 1, count) if alt else None
    return Curve(name, start + span * np.arange(count), span, ref, changed, **kind)


def logo(start=S + 560, count=81, seed=0, title="LLR"):
    random = np.random.default_rng(seed)
    reference = random.integers(0, 4, count).astype(np.uint8)
    values = random.normal(-0.5, 1, (count, 4))
    values[np.arange(count), reference] = 0
    return Logo(start, reference, values, title)


def gene(name, start, end, strand="+", exons=()):
    return GeneShape(name, strand, start, end, tuple(exons) or ((start, end),))


GENES = (
    gene("LONG", S - 500, S + 3000, "-", [(S - 500, S + 100), (S + 700, S + 3000)]),
    gene("INNER", S + 200, S + 900, "+", [(S + 200, S + 300), (S + 800, S + 900)]),
    gene("$\\hat$", S + 1275, S + 1276, "."),
    gene("ELSEWHERE", S + 5000, S + 6000),
)
ODD = "a_name of $many$ letters_\x07\nthat_goes_on_and_on_{} \\frac"
LOCI = {
    "three": Locus(
        "chr1", S, S + 1280, tuple(curve(f"track {i}", seed=i) for i in range(3)),
        GENES, logo(), SITE,
    ),
    "one": Locus("chr1", S, S + 1280, (curve(alt=False),)),
    "many": Locus(
        "chr1", S, S + 1280,
        tuple(curve(ODD.format(i), seed=i, units=9 * "odd$ ") for i in range(20)),
        tuple(gene(f"GENE{i}", S + 7 * i, S + 7 * i + 40, "+-"[i % 2]) for i in range(180)),
        logo(), (S, S + 1, 30 * ODD), 9 * ODD,
    ),
    "zoom": Locus(
        "chr1", S + 580, S + 620,
        (
            curve("likelihood", S + 580, 40, 1, alt=False, units="nats"),
            curve("ism", S + 580, 40, 1, signed=True),
        ),
        GENES, logo(S + 590, 21), (S + 600, S + 606, "ACGTTG>A"),
    ),
    "region": Locus("chr1", 0, 100_000, (curve("wide", 0, 50_000, 2),), (), logo(50_000), None),
    "empty": Locus(
        "chr1", S, S + 1280,
        (
            Curve("none", np.zeros(0, dtype=np.int64), 32, np.zeros(0), np.zeros(0)),
            Curve("nan", S + 32 * np.arange(3), 32, np.full(3, np.nan), np.full(3, np.inf)),
            Curve("$\\frac$", S + 32 * np.arange(40), 32, np.zeros(40), np.zeros(40)),
        ),
    ),
    "logo": Locus("chr1", 0, 10, (), (), logo(), (S + 600, S + 600, "insertion")),
}  # fmt: skip


def figure_of(locus):
    figure = locus_figure(locus)
    figure.draw_without_rendering()
    return figure


@cache
def picture(name):
    return figure_of(LOCI[name])


def panels(figure):
    return [x for x in figure.axes if x.get_label() != "scale"]


def kinds(figure):
    return [x.get_label() for x in panels(figure)]


def words(figure):
    """Give the texts that are seen, and the pixels that they cover."""
    from matplotlib.text import Text

    seen = [x for x in figure.findobj(Text) if x.get_visible() and x.get_text().strip()]
    return [(x, x.get_window_extent()) for x in seen]


def steps(values, starts, span):
    """Give the corners of steps in a loop: two a bin, and NaN before a bin behind a gap."""
    xs, ys = [], []
    for i, (start, value) in enumerate(zip(starts, values, strict=True)):
        if i and starts[i - 1] + span != start:
            xs.append(np.nan)
            ys.append(np.nan)
        xs += [start, start + span]
        ys += [value, value]
    return xs, ys


# --- panels --------------------------------------------------------------------------------------

TRACK = ["curve", "delta"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("three", [*TRACK * 3, "genes", "logo", "strip"]),
        ("one", ["curve"]),
        ("many", [*TRACK * 8, "genes", "logo", "strip"]),
        ("zoom", ["curve", *TRACK, "genes", "logo", "strip"]),
        ("region", [*TRACK, "logo", "strip"]),
        ("empty", TRACK * 3),
        ("logo", ["logo", "strip"]),
    ],
)
def test_panels_from_the_top_and_their_axis(name, expected):
    locus, figure = LOCI[name], picture(name)
    assert kinds(figure) == expected
    tops = [x.get_window_extent() for x in panels(figure)]
    assert all(a.y0 > b.y1 for a, b in pairwise(tops))
    for axes in panels(figure):
        # Logos are on the axis of the tracks in `zoom` alone.
        apart = axes.get_label() in ("logo", "strip") and name != "zoom"
        stretch = (locus.logo.start, locus.logo.end) if apart else (locus.start, locus.end)
        assert axes.get_xlim() == stretch


@pytest.mark.parametrize("name", LOCI)
def test_text_is_inside_the_page_large_enough_and_never_on_other_text(name):
    figure = picture(name)
    found = words(figure)
    assert found
    left, bottom, right, top = figure.bbox.extents
    for text, box in found:
        assert text.get_fontsize() >= 7
        assert left <= box.x0 < box.x1 <= right
        assert bottom <= box.y0 < box.y1 <= top
    touching = [
        (a.get_text(), b.get_text()) for (a, x), (b, y) in combinations(found, 2) if x.overlaps(y)
    ]
    assert not touching


@pytest.mark.parametrize("name", LOCI)
def test_numbers_at_the_left_keep_to_their_panel(name):
    for axes in panels(picture(name)):
        panel = axes.get_window_extent()
        for label in axes.get_yticklabels():
            box = label.get_window_extent()
            assert panel.y0 - 1 <= box.y0
            assert box.y1 <= panel.y1 + 1


def test_words():
    texts = [x.get_text() for x, _ in words(picture("three"))]
    assert {"chr1:1,000,001\u20131,001,280", "chr1:1,000,601 A>G", "REF", "ALT"} <= set(texts)
    assert {"track 0", "track 1", "track 2", "genes", "LONG", "INNER", "$\\hat$", "LLR"} <= set(
        texts
    )
    assert "ELSEWHERE" not in texts
    assert texts.count("ALT \u2212 REF") == 3
    # Without ALT nothing speaks of it.
    texts = [x.get_text() for x, _ in words(picture("one"))]
    assert not [x for x in texts if "ALT" in x]
    texts = [x.get_text() for x, _ in words(picture("many"))]
    assert "8 of 20 tracks: those with the largest |ALT \u2212 REF|" in texts


def test_panels_without_values_say_so_and_those_of_zeros_have_no_scale():
    axes = panels(picture("empty"))
    said = [[x.get_text() for x in here.texts] for here in axes]
    assert said == [["no prediction"]] * 4 + [[], []]
    for here in axes[4:]:
        assert [x.get_text() for x in here.get_yticklabels()] == ["0"]
        assert here.get_ylim() == (-1, 1)


# --- tracks --------------------------------------------------------------------------------------


def test_lines_are_the_values_and_gaps_are_gaps():
    starts = np.array([90, 100, 110, 130, 140, 150, 200])
    ref = np.array([1.0, 2, np.nan, 4, 5, -1, 7])
    alt = np.array([1.0, 3, 4, np.inf, 4, -2, 7])
    figure = figure_of(Locus("c", 95, 160, (Curve("x", starts, 10, ref, alt),)))
    main, delta = panels(figure)
    zero, first, second = main.lines
    assert zero.get_ydata()[0] == 0
    for line, values in ((first, ref), (second, alt)):
        # The bin from 200 on is outside, that from 90 on sticks out.
        known = [x if np.isfinite(x) else np.nan for x in values[:6]]
        xs, ys = steps(known, starts[:6], 10)
        np.testing.assert_array_equal(line.get_xdata(), xs)
        np.testing.assert_array_equal(line.get_ydata(), ys)
    assert (first.get_linestyle(), second.get_linestyle()) == ("-", "--")
    # The axis has 0 and the extremes, 5 and -2, and 6 hundredths of their distance beyond.
    assert main.get_ylim() == pytest.approx((-2.42, 5.42))
    # Both alleles have a number and differ at 100, where ALT has more, and at 140 and 150.
    for place in (95, 105, 115, 135, 145, 155):
        shown = [inside(x, place, y) for x, y in zip(delta.collections, (0.5, -0.5), strict=True)]
        assert shown == [place == 105, place in (145, 155)]


def inside(collection, x, y):
    return any(path.contains_point((x, y)) for path in collection.get_paths())


@pytest.mark.parametrize("seed", range(3))
def test_delta_is_filled_up_and_down(seed):
    track = curve(seed=seed)
    _, delta = panels(figure_of(Locus("c", S, S + 1280, (track,))))
    up, down = delta.collections
    most = max(abs(a - b) for a, b in zip(track.alt, track.ref, strict=True))
    low, high = delta.get_ylim()
    assert (low, high) == pytest.approx((-1.12 * most, 1.12 * most))
    assert [x.get_text() for x in delta.get_yticklabels()] == [
        f"\u2212{most:.3g}",
        f"+{most:.3g}",
    ]
    for start, ref, alt in zip(track.starts, track.ref, track.alt, strict=True):
        middle, change = start + 16, alt - ref
        shown, other = (up, down) if change > 0 else (down, up)
        assert inside(shown, middle, 0.98 * change)
        assert not inside(shown, middle, 1.02 * change)
        assert not inside(other, middle, 0.5 * change)


@given(st.data())
def test_reduction_keeps_the_extremes_of_every_column(data):
    columns = data.draw(st.integers(1, 12))
    count = data.draw(st.integers(columns + 1, 60))
    span = data.draw(st.integers(1, 5))
    gaps = data.draw(st.lists(st.integers(0, 9), min_size=count, max_size=count))
    values = data.draw(
        st.lists(st.one_of(st.just(np.nan), st.floats(-9, 9)), min_size=count, max_size=count)
    )
    starts, place = [], 100
    for gap in gaps:
        starts.append(place + gap)
        place += gap + span
    stretch = (starts[0] + span // 2, starts[-1] + (span + 1) // 2)
    width = (stretch[1] - stretch[0]) / columns
    expected = {}
    for start, value in zip(starts, values, strict=True):
        middle = min(max(start + span / 2, stretch[0]), stretch[1])
        column = min(
            int((middle - stretch[0]) / (stretch[1] - stretch[0]) * columns + 1e-9), columns - 1
        )
        expected.setdefault(column, []).append(value)
    found = steps_of(np.array(starts), span, np.array(values), stretch, columns)
    assert found.columns
    np.testing.assert_allclose(found.lefts, [stretch[0] + c * width for c in expected])
    np.testing.assert_allclose(found.rights, [stretch[0] + (c + 1) * width for c in expected])
    known = [[x for x in held if x == x] for held in expected.values()]
    np.testing.assert_array_equal(found.low, [min(x, default=np.nan) for x in known])
    np.testing.assert_array_equal(found.high, [max(x, default=np.nan) for x in known])
    # A line breaks where columns are missing, and there alone.
    missing = sum(b - a > 1 for a, b in pairwise(expected))
    assert found.x.size == 2 * len(expected) + missing
    assert np.isnan(found.x).sum() == missing


def test_a_wide_region_shows_the_envelope_and_says_so():
    locus = LOCI["region"]
    (track,) = locus.curves
    figure = figure_of(locus)
    main, delta, *_ = panels(figure)
    _, *lines = main.lines
    pixels = main.get_window_extent().width
    assert pixels / 3 < COLUMNS <= pixels
    drawn = (track.ref, max), (track.ref, min), (track.alt, max), (track.alt, min)
    for line, (values, extreme) in zip(lines, drawn, strict=True):
        held = {}
        for start, value in zip(track.starts, values, strict=True):
            held.setdefault(int((start + 1) * COLUMNS / 100_000), []).append(value)
        expected = [extreme(x) for _, x in sorted(held.items()) for _ in range(2)]
        np.testing.assert_array_equal(line.get_ydata(), expected)
    change = track.alt - track.ref
    assert inside(delta.collections[0], 2 * int(change.argmax()) + 1, 0.9 * change.max())
    assert inside(delta.collections[1], 2 * int(change.argmin()) + 1, 0.9 * change.min())
    assert any("highest and the lowest" in x.get_text() for x in figure.texts)


def test_the_tracks_that_matter_most_are_drawn():
    def track(name, ref, alt=None):
        return Curve(
            name, np.array([0, 10]), 10, np.array(ref), None if alt is None else np.array(alt)
        )

    changed = [
        track("up", [1.0, 1], [1.0, 2.0]),
        track("none", [9.0, 9]),
        track("down", [1.0, 1], [-4.0, 1]),
        track("nan", [1.0, 1], [np.nan, np.nan]),
        track("some", [1.0, 1], [1.0, 1.5]),
    ]
    assert [x.name for x in chosen(changed, 2)] == ["up", "down"]
    assert [x.name for x in chosen(changed, 4)] == ["up", "none", "down", "some"]
    plain = [
        track("low", [0.0, 1]),
        track("nan", [np.nan, np.nan]),
        track("high", [0.0, np.nan + 5]),
    ]
    assert [x.name for x in chosen(plain, 1)] == ["low"]
    # What lies outside the stretch does not count: the jump of the second is there.
    tracks = tuple(track(f"{i}", [1.0, 1], [1.0 + i, 1]) for i in range(8))
    far = track("far", [1.0, 1], [1.0, 99])
    figure = figure_of(Locus("c", 0, 10, (*tracks, far)))
    assert "far" not in [x.get_text() for x in figure.texts]


@pytest.mark.parametrize(
    ("value", "plus", "text"),
    [(0, True, "0"), (-0.01234, False, "\u22120.0123"), (12.3456, True, "+12.3"), (3, False, "3")],
)
def test_numbers_at_axes(value, plus, text):
    assert number(value, plus=plus) == text


# --- positions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOCI)
def test_numbers_stand_at_the_middles_of_their_bases(name):
    figure = picture(name)
    numbered = [x for x in panels(figure) if x.xaxis.get_label_text()]
    assert len(numbered) == (2 if name in ("three", "many", "region") else 1)
    for axes in numbered:
        ticks = dict(zip(axes.get_xticks(), axes.get_xticklabels(), strict=True))
        assert 1 <= len(ticks) <= 8
        for place, label in ticks.items():
            pos = int(label.get_text().replace(",", ""))
            assert label.get_text() == f"{pos:,}"
            # The base of POS is from POS - 1 to POS.
            assert place == pos - 0.5
        start, end = axes.get_xlim()
        noted = "numbers below their middles" in axes.get_xlabel()
        assert noted == (end - start < 100)
        assert axes.get_xlabel().startswith("position on chr1 (bp)")


@pytest.mark.parametrize(
    ("start", "end", "noted"),
    [
        (S, S + 1, True),
        (0, 1, True),
        (0, 2, True),
        (0, 99, True),
        (0, 100, False),
        (248_000_000, 248_900_000, False),
    ],
)
def test_any_stretch_has_a_number_and_short_ones_a_note(start, end, noted):
    (axes,) = panels(figure_of(Locus("c", start, end, (curve("x", start, 1, 1, alt=False),))))
    assert axes.get_xticks().size
    assert ("numbers below their middles" in axes.get_xlabel()) == noted


@pytest.mark.parametrize("name", ["three", "zoom", "many"])
def test_the_variant_is_marked_through_all_panels(name):
    locus, figure = LOCI[name], picture(name)
    (mark,) = [x for x in figure.artists if x.get_label() == "variant"]
    box = mark.get_window_extent()
    shared = [x for x in panels(figure) if x.get_xlim() == (locus.start, locus.end)]
    for axes in shared:
        pixels = axes.transData.transform([(x, 0) for x in locus.variant[:2]])[:, 0]
        assert (box.x0, box.x1) == pytest.approx(tuple(pixels), abs=0.01)
        assert box.y0 <= axes.get_window_extent().y0 + 0.01
        assert box.y1 >= axes.get_window_extent().y1 - 0.01
    written = shortened(locus.variant[2], 8, 594)
    (centre,) = [box for text, box in words(figure) if text.get_text() == written]
    # Over the mark, unless that is at the edge of the panels.
    assert name == "many" or (centre.x0 + centre.x1) / 2 == pytest.approx(
        (box.x0 + box.x1) / 2, abs=2
    )


def test_a_variant_elsewhere_is_not_marked():
    locus = replace(LOCI["one"], variant=(S + 9000, S + 9001, "far"))
    figure = figure_of(locus)
    assert not figure.artists
    assert "far" not in [x.get_text() for x in figure.texts]


# --- genes ---------------------------------------------------------------------------------------

SPANS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda x: (x[0], x[0] + x[1]))
)


@given(SPANS, st.integers(1, 5), st.integers(0, 3))
def test_packing_takes_the_first_free_row(spans, most, gap):
    rows = packed(spans, most, gap)
    for i, ((left, right), row) in enumerate(zip(spans, rows, strict=True)):
        before = list(zip(spans[:i], rows[:i], strict=True))
        taken = {r for (a, b), r in before if r is not None and a < right + gap and left < b + gap}
        free = [r for r in range(most) if r not in taken]
        assert row == (free[0] if free else None)


@given(SPANS)
def test_packing_from_the_left_takes_as_few_rows_as_genes_lie_over_one_base(spans):
    spans = sorted(spans)
    depth = max((sum(a <= x < b for a, b in spans) for x in range(80)), default=0)
    rows = packed(spans, 99)
    assert max(rows, default=-1) + 1 == depth


@given(st.lists(st.tuples(st.integers(-50, 400), st.integers(1, 300)), max_size=60))
def test_no_gene_is_lost(places):
    genes = [gene(f"G{i}", a, a + n) for i, (a, n) in enumerate(places)]
    inside = [x for x in genes if x.start < 400 and x.end > 0]
    rows = gene_rows(genes, 0, 400, 594)
    names = [x.gene.name for x in rows.placed]
    assert set(names) <= {x.name for x in inside}
    assert len(set(names)) + rows.hidden == len(inside)


@pytest.mark.parametrize("site", [(350, 351), (350, 350), (355, 360)])
def test_the_gene_of_the_variant_finds_room_before_others(site):
    # Six fill the rows up to the name of the seventh.
    others = [gene(f"G{i}", 0, 340) for i in range(6)]
    hit = gene("ALONGNAME", 345, 355)
    for first, seen in ((None, False), (site, True)):
        rows = gene_rows([*others, hit], 0, 400, 594, first)
        assert ("ALONGNAME" in [x.gene.name for x in rows.placed]) == seen
        assert rows.hidden == 1


def test_genes_do_not_overlap_on_the_page():
    figure = picture("many")
    (axes,) = [x for x in panels(figure) if x.get_label() == "genes"]
    named = [x for x in axes.texts if x.get_text().strip()]
    assert len({round(x.get_position()[1]) for x in named}) == 6
    boxes = []
    for text in named:
        index = int(re.search(r"GENE(\d+)", text.get_text())[1])
        row = round(text.get_position()[1] - 0.25)
        corners = [(S + 7 * index, row - 0.18), (S + 7 * index + 40, row + 0.18)]
        (x0, y1), (x1, y0) = axes.transData.transform(corners)
        label = text.get_window_extent()
        boxes.append((min(x0, label.x0), min(y0, label.y0), max(x1, label.x1), max(y1, label.y1)))
        # The exon is drawn there.
        assert any(
            np.allclose(path.get_extents().extents, [*corners[0], *corners[1]])
            for held in axes.collections
            for path in held.get_paths()
        )
    for a, b in combinations(boxes, 2):
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]
    hidden = 180 - len(named)
    assert f"+{hidden} more" in [x.get_text() for x in figure.texts]


def test_exons_introns_and_arrows():
    (axes,) = [x for x in panels(picture("three")) if x.get_label() == "genes"]
    boxes = {
        tuple(path.get_extents().intervalx)
        for held in axes.collections
        for path in held.get_paths()
    }
    # Cut to the stretch, as is the line of the whole gene.
    assert {(S, S + 100), (S + 700, S + 1280), (S, S + 1280), (S + 200, S + 300)} <= boxes
    for line in axes.lines:
        # Point of the arrow: right on the forward strand, that of INNER.
        tips = line.get_marker().vertices[1, 0] > 0
        for place, row in zip(*line.get_data(), strict=True):
            assert tips == (row == 1)
            exons = ((S + 200, S + 300), (S + 800, S + 900)) if tips else GENES[0].exons
            on_exon = any(a < place < b for a, b in exons)
            assert line.get_markeredgecolor() == ("white" if on_exon else "#44525E")
    assert sum(len(x.get_xdata()) for x in axes.lines) > 20


@pytest.mark.parametrize(
    ("strand", "end", "label"),
    [("+", 2, "G \u2192"), ("-", 2, "\u2190 G"), (".", 2, "G"), ("+", 900, "G"), ("-", 900, "G")],
)
def test_genes_too_short_for_arrows_name_their_strand(strand, end, label):
    (placed,) = gene_rows([gene("G", 0, end, strand)], 0, 1000, 594).placed
    assert placed.label == label
    assert bool(placed.arrows) == (end == 900 and strand != ".")


def test_genes_of_models():
    models = GeneModels(
        "x.gtf",
        [
            make_gene("a", "A", "chr1", "-", (0, 50), [(0, 10), (20, 50)], ()),
            make_gene("b", "B", "chr1", "+", (60, 70), [], ()),
            make_gene("c", "C", "chr2", "+", (0, 70), [], ()),
        ],
    )
    a = GeneShape("A", "-", 0, 50, ((0, 10), (20, 50)))
    b = GeneShape("B", "+", 60, 70, ((60, 70),))
    assert genes_of(models, "1", 49, 61) == (a, b)
    assert genes_of(models, "chr1", 50, 60) == ()


# --- logo ----------------------------------------------------------------------------------------

HAND = Logo(
    10,
    np.array([0, 3, 2, 4, 1], dtype=np.uint8),
    np.array(
        [
            [0, -1, -2, -3],
            [4, np.nan, 2, 0],
            [np.nan, np.nan, 0, np.nan],
            [1, 2, 3, 4],
            [-0.5, 0, 0.5, 0],
        ]
    ),
)


def test_importance_by_hand():
    # (1 + 2 + 3) / 3, -(4 + 2) / 2, no score, no base, and scores that cancel out.
    np.testing.assert_array_equal(importance(HAND), [2, -3, np.nan, np.nan, 0])
    # The zero of the reference base is no score, whatever stands there.
    odd = HAND.values.copy()
    odd[0, 0] = 99
    assert importance(replace(HAND, values=odd))[0] == 2


def test_letters_and_colours_are_the_scores():
    figure = figure_of(Locus("c", 10, 15, (), (), HAND))
    letters, strip = panels(figure)
    boxes = [x.get_path().get_extents() for x in letters.patches]
    assert [tuple(np.round(x.extents, 6)) for x in boxes] == [
        (10.05, 0, 10.95, 2),
        (11.05, -3, 11.95, 0),
        (14.05, 0, 14.95, 0),
    ]
    assert letters.get_ylim() == pytest.approx((-3.3, 2.3))
    mesh, dots = strip.collections
    np.testing.assert_array_equal(np.ma.filled(mesh.get_array(), np.nan), HAND.values.T)
    assert mesh.get_clim() == (-4, 4)
    # A at the top, which has the least y.
    assert [x.get_text() for x in strip.get_yticklabels()] == ["A", "C", "G", "T"]
    assert strip.get_ylim()[0] > strip.get_ylim()[1]
    assert dots.get_offsets().tolist() == [[10.5, 0], [11.5, 3], [12.5, 2], [14.5, 1]]
    assert "grey: no score" in [x.get_text() for x in figure.texts]
    # More and less are as far from white, on either side, and not of one colour.
    less, none, more = mesh.cmap([0.2, 0.5, 0.8])[:, :3]
    assert none.min() > 0.95
    assert less[2] > less[0]
    assert more[0] > more[2]


def test_a_logo_without_scores_says_so():
    bare = replace(HAND, values=np.full((5, 4), np.nan))
    letters, _ = panels(figure_of(Locus("c", 10, 15, (), (), bare)))
    assert [x.get_text() for x in letters.texts] == ["no prediction"]


@pytest.mark.parametrize(
    ("width", "start", "apart"),
    [(150, S + 50, False), (151, S + 50, True), (100, S + 50, True), (100, S + 5, False)],
)
def test_a_logo_has_its_own_axis_where_letters_would_be_thin_or_outside(width, start, apart):
    locus = Locus("c", S, S + width, (curve(),), (), logo(start, 81))
    figure = figure_of(locus)
    axes = panels(figure)[-2]
    assert axes.get_xlim() == ((start, start + 81) if apart else (S, S + width))
    marks = {x.get_label(): x for x in figure.artists}
    assert set(marks) == ({"logo", "join"} if apart else set())
    if not apart:
        return
    box = marks["logo"].get_window_extent()
    above = panels(figure)[0]
    ends = above.transData.transform([(start, 0), (min(start + 81, S + width), 0)])[:, 0]
    assert (box.x0, box.x1) == pytest.approx(tuple(ends), abs=0.01)
    corners = figure.transFigure.transform(marks["join"].get_xy())
    below = axes.get_window_extent()
    expected = [(ends[0], box.y0), (ends[1], box.y0), (below.x1, below.y1), (below.x0, below.y1)]
    np.testing.assert_allclose(corners[:4], expected, atol=0.01)


# --- text ----------------------------------------------------------------------------------------


PRINTED = st.sampled_from([x for x in map(chr, range(32, 256)) if x.isprintable()])


@given(st.text(PRINTED, max_size=60), st.integers(20, 200))
def test_text_is_cut_to_its_room(text, room):
    cut = shortened(text, 8, room)
    assert text_width(cut, 8) <= room
    if "\u2026" in cut:
        head, tail = cut.split("\u2026")
        assert len(head) - len(tail) in (0, 1)
        assert len(cut) < len(text) + 1
    lines = wrapped(text, 8, room, 3)
    assert len(lines) <= 3
    assert all(text_width(x, 8) <= room for x in lines)


def test_names_break_behind_marks_and_keep_their_ends():
    room = text_width("CNhs10608_liver_x", 8)
    assert wrapped("CNhs10608_liver_adult_pool", 8, room, 2) == ["CNhs10608_liver_", "adult_pool"]
    lines = wrapped("CNhs10608_liver_" + 9 * "adult_" + "end", 8, room, 2)
    assert lines[0] == "CNhs10608_liver_"
    assert lines[1].startswith("adul")
    assert lines[1].endswith("_end")


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "magic"),
    [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF"), ("PNG", b"\x89PNG")],
)
def test_the_same_picture_gives_the_same_bytes(tmp_path, ending, magic):
    first, second = (draw_locus(LOCI["three"], tmp_path / f"{i}.{ending}") for i in "ab")
    assert first.read_bytes().startswith(magic)
    assert first.read_bytes() == second.read_bytes()


def test_svg_keeps_text_as_text_and_has_no_date(tmp_path):
    from xml.etree import ElementTree

    path = draw_locus(LOCI["many"], tmp_path / "x.svg")
    texts = [
        "".join(x.itertext()) for x in ElementTree.parse(path).iter() if x.tag.endswith("}text")
    ]
    assert {"ALT above REF", "GENE0", "position on chr1 (bp)"} <= set(texts)
    assert "dc:date" not in path.read_text()


def test_png_is_eleven_inches_wide(tmp_path):
    head = draw_locus(LOCI["one"], tmp_path / "x.png").read_bytes()[:24]
    assert int.from_bytes(head[16:20], "big") == 11 * 150


def test_drawing_in_another_process_gives_the_same_and_leaves_pyplot_alone(tmp_path):
    code = (
        "import sys, numpy as np\n"
        "from glm_annotate.locus_plot import Curve, Locus, draw_locus\n"
        "assert 'matplotlib' not in sys.modules\n"
        "track = Curve('x', np.arange(9), 1, np.arange(9.0), np.ones(9))\n"
        "draw_locus(Locus('c', 0, 9, (track,), variant=(3, 4, 'v')), sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    other = tmp_path / "other.svg"
    subprocess.run([sys.executable, "-c", code, str(other)], check=True)
    track = Curve("x", np.arange(9), 1, np.arange(9.0), np.ones(9))
    here = draw_locus(Locus("c", 0, 9, (track,), variant=(3, 4, "v")), tmp_path / "here.svg")
    assert here.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.doc", "x.doc: .doc is no picture format; known are"),
        ("x", "x: no ending is no picture format"),
        ("no/such/x.png", "No such file"),
    ],
)
def test_errors_are_one_line(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        draw_locus(LOCI["one"], name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_error_names_the_extra(tmp_path, monkeypatch):
    for module in [x for x in sys.modules if x.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"pip install 'glm_annotate\[plots\]'"):
        draw_locus(LOCI["three"], tmp_path / "x.png")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Locus("c", 5, 5, (curve(),)),
        lambda: Locus("c", 0, 5, ()),
        lambda: Curve("x", np.array([0, 5]), 10, np.zeros(2)),
        lambda: Curve("x", np.array([0, 10]), 10, np.zeros(2), np.zeros(3)),
        lambda: Curve("x", np.array([10, 0]), 10, np.zeros(2)),
        lambda: Logo(0, np.zeros(3, dtype=np.uint8), np.zeros((4, 3))),
        lambda: Logo(0, np.zeros(0, dtype=np.uint8), np.zeros((0, 4))),
    ],
)
def test_what_cannot_be_drawn_is_refused(make):
    with pytest.raises(ValueError, match=r"no base|nothing to draw|overlap|one a base"):
        make()
