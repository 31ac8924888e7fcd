"""The page of a report in a real Chromium: it sorts, filters, draws, and sends nothing."""

from __future__ import annotations

import sys
import time

import pytest
from browser_kit import chromium, visit
from report_kit import (
    HEAD,
    SEQUENCE,
    record,
    scores,
    write_bigwig,
    write_fasta,
    write_tracks,
    write_vcf,
)

from glm_annotate.report import Extras, make_report

pytestmark = pytest.mark.browser

# Only tracks of ALT - REF have these colours: above and below 0; and only the letters of a logo
# and names of genes are drawn beside.
RISE = (0, 158, 115)
SPREAD = 200


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


def bell(height: float) -> list[float]:
    return [height * max(0.0, 1 - abs(i - SPREAD) / 100) for i in range(2 * SPREAD)]


@pytest.fixture(scope="module")
def page(tmp_path_factory, browser):
    """A page of six alleles, with all that can be shown."""
    folder = tmp_path_factory.mktemp("report")
    records = [
        record(1000, "N", scores(-3.5, -3.5), name="first"),
        record(1500, "N,GG", scores("2,.", "2,-0.5", "SCORED,LLR:INDEL"), name="a;b"),
        record(2500, "N", scores(0.125, 0.125), name="middle"),
        record(3000, "<CNV>", scores(".", ".", "SYMBOLIC"), name="cnv"),
        record(4000, "N", scores(-0.75, -0.75), name="last"),
    ]
    vcf = write_vcf(folder / "scored.vcf", records)
    tracks = folder / "tracks"
    tracks.mkdir()
    rows = []
    for kind, values in (("ref", bell(5)), ("alt", bell(9)), ("delta", bell(4))):
        write_bigwig(tracks / f"{kind}.bw", 4000 - 1 - SPREAD, values)
        rows.append(("c1", "4000", SEQUENCE[3999], "N", "DNase", kind, f"{kind}.bw"))
    write_tracks(tracks, rows)
    ism = folder / "ism"
    ism.mkdir()
    for base in "ACGT":
        effects = [0.0 if x == base else -1.0 for x in SEQUENCE[900:1100]]
        write_bigwig(ism / f"{base}.bw", 900, effects)
    genes = folder / "genes.gtf"
    genes.write_text('c1\tx\texon\t900\t1600\t.\t+\t.\tgene_id "GENE1";\n')
    extras = Extras(str(write_fasta(folder)), str(genes), str(tracks), str(ism))
    path = folder / "report.html"
    path.write_bytes(make_report(str(vcf), extras).page)
    return path


@pytest.fixture(scope="module")
def opened(browser, page):
    """The page, opened once; whoever takes it leaves it without filters."""
    with visit(browser, page) as visited:
        yield visited


def column(visited, field):
    cells = f"#table .tabulator-row .tabulator-cell[tabulator-field='{field}']"
    return visited.page.locator(cells).all_inner_texts()


def click_row(visited, name):
    visited.page.locator("#table .tabulator-row", has_text=name).first.click()


def shown(visited, row):
    visited.wait("row => document.documentElement.dataset.shown === row", str(row))


def locus(visited):
    return visited.page.locator("#browser input.igv-search-input").input_value()


def test_the_page_opens_on_the_largest_score_and_asks_for_nothing(browser, page):
    with visit(browser, page) as visited:
        text = visited.page.locator("#report").inner_text()
        assert "toy 1.5" in text
        assert "window 512 bp" in text
        assert "glm-annotate vcf in.vcf -m toy; Date=Today" in text
        assert visited.page.locator("#chosen h3").inner_text() == f"c1:1,000 {SEQUENCE[999]}>N"
        assert column(visited, "name") == ["first", "a", "b", "middle", "cnv", "last"]
        assert column(visited, "gene") == ["GENE1", "GENE1", "GENE1", "", "", ""]
        statuses = visited.page.locator(".status-list tr").all_inner_texts()
        assert [x.split()[:2] for x in statuses] == [
            ["SCORED", "4"], ["LLR:INDEL", "1"], ["SYMBOLIC", "1"],
        ]  # fmt: skip
        assert visited.page.locator(".histogram").count() == 2
        assert visited.page.locator(".histogram .mark[visibility=visible]").count() == 2
        visited.check_quiet()


def test_the_table_sorts_missing_numbers_last(browser, page):
    with visit(browser, page) as visited:
        header = visited.page.locator(".tabulator-col[tabulator-field='v0'] .tabulator-col-title")
        header.click()
        rising = ["-3.500", "-0.7500", "0.1250", "2", "\u2013", "\u2013"]
        assert column(visited, "v0") == rising
        header.click()
        assert column(visited, "v0") == [*rising[:4][::-1], "\u2013", "\u2013"]
        visited.check_quiet()


@pytest.mark.parametrize(
    ("where", "act", "names"),
    [
        ("#search", lambda x: x.fill("c1:2500"), ["middle"]),
        ("#search", lambda x: x.fill("1,500 indel"), ["b"]),
        ("[tabulator-field=name] input", lambda x: x.press_sequentially("LAST"), ["last"]),
        ("[tabulator-field=v0] [data-range=max]", lambda x: x.fill("0"), ["first", "last"]),
        ("[tabulator-field=pos] [data-range=min]", lambda x: x.fill("3000"), ["cnv", "last"]),
        ("[tabulator-field=s0] select", lambda x: x.select_option("SYMBOLIC"), ["cnv"]),
        (".status-list tr:nth-child(2) button", lambda x: x.click(), ["b"]),
    ],
)
def test_the_table_filters(opened, where, act, names):
    count = "n => document.querySelectorAll('#table .tabulator-row').length === n"
    act(opened.page.locator(where))
    opened.wait(count, len(names))
    assert column(opened, "name") == names
    assert f"{len(names)} of 6 alleles" in opened.page.locator("#found").inner_text()
    opened.page.locator("#reset").click()
    opened.wait(count, 6)
    assert opened.page.locator("#found").inner_text() == "6 alleles"
    opened.check_quiet()


def test_a_row_moves_the_browser_and_draws_its_tracks(browser, page):
    with visit(browser, page) as visited:
        # 30 bases on each side; the contig's true length lets it go on.
        assert locus(visited) == "c1:970-1,030"
        assert visited.pixels().get(RISE, 0) == 0
        click_row(visited, "last")
        shown(visited, 5)
        # The tracks reach 200 bases to each side of base 4000.
        assert locus(visited) == "c1:3,799-4,201"
        visited.page.wait_for_timeout(300)
        drawn = visited.pixels()
        # The bell covers half of the width, and half of the height there, of a track 60 high.
        assert drawn.get(RISE, 0) > 60 * 300 / 4
        names = visited.run("() => genomeBrowser.tracks.map(x => x.name).filter(Boolean)")
        assert names[-2:] == ["DNase REF grey, ALT blue", "DNase ALT - REF"]
        click_row(visited, "middle")
        shown(visited, 3)
        assert locus(visited) == "c1:2,470-2,530"
        visited.page.wait_for_timeout(300)
        assert visited.pixels().get(RISE, 0) == 0
        assert "No predicted tracks" in visited.page.locator("#track-note").inner_text()
        visited.page.locator("#zooms button", has_text="1 kb").click()
        visited.wait(
            "() => document.querySelector('#zooms [aria-pressed=true]').textContent === '1 kb'"
        )
        visited.page.wait_for_timeout(300)
        assert locus(visited) == "c1:2,000-3,000"
        visited.check_quiet()


def test_the_browser_has_the_bases_of_the_reference(opened):
    read = "([from, to]) => genomeBrowser.genome.getSequence('c1', from, to)"
    for start, end in ((970, 1030), (3990, 4010), (2480, 2481)):
        assert opened.run(read, [start, end]) == SEQUENCE[start:end]
    assert opened.run("() => genomeBrowser.genome.getChromosome('c1').bpLength") == 5000


def test_a_name_typed_into_the_browser_is_looked_up_in_the_page_alone(browser, page):
    with visit(browser, page) as visited:
        box = visited.page.locator("#browser input.igv-search-input")
        box.fill("gene1")
        box.press("Enter")
        # The gene is drawn from base 900 to 1600; igv.js leaves room around it.
        visited.wait("() => genomeBrowser.referenceFrameList[0].end > 1600")
        assert visited.run("() => genomeBrowser.referenceFrameList[0].start") < 900
        box.fill("nosuchgene")
        box.press("Enter")
        visited.page.wait_for_timeout(500)
        visited.check_quiet()


def test_a_click_on_a_variant_chooses_its_row(browser, page):
    with visit(browser, page) as visited:
        answer = visited.run("""() => {
            const track = genomeBrowser.tracks.find(x => x.type === "variant");
            return genomeBrowser.fireEvent("trackclick", [track, [{name: "ROW", value: 4}]]);
        }""")
        # No popup of igv.js beside it.
        assert answer is False
        shown(visited, 4)
        assert "c1:3,000" in visited.page.locator("#chosen h3").inner_text()


def test_fast_clicks_end_at_the_last_row(browser, page):
    with visit(browser, page) as visited:
        for name in ("last", "first", "last", "middle", "last", "cnv"):
            click_row(visited, name)
        shown(visited, 4)
        assert locus(visited) == "c1:2,970-3,030"
        names = visited.run("() => genomeBrowser.tracks.map(x => x.name).filter(Boolean)")
        assert not [x for x in names if "DNase" in x]
        visited.check_quiet()


def test_the_logo_is_of_the_chosen_place(browser, page):
    with visit(browser, page) as visited:
        # Every base but the reference costs 1: a letter of height 1 at each of the 61 positions.
        letters = visited.page.locator("#logo svg path")
        assert letters.count() == 61
        boxes = visited.run(
            "() => [...document.querySelectorAll('#logo svg path')].map(x => x.getBBox && "
            "x.getAttribute('fill'))"
        )
        colours = {"A": "#009e73", "C": "#0072b2", "G": "#e69f00", "T": "#d55e00"}
        assert boxes == [colours[x] for x in SEQUENCE[969:1030]]
        titles = visited.page.locator("#logo svg rect title").all_text_contents()
        assert f"c1:1,000 {SEQUENCE[999]}>{SEQUENCE[999]} reference" in titles
        click_row(visited, "middle")
        shown(visited, 3)
        assert "No saturation mutagenesis" in visited.page.locator("#logo").inner_text()


@pytest.mark.parametrize(("width", "letters"), [(800, 41), (420, 21)])
def test_the_logo_of_a_narrow_window_has_fewer_bases(browser, page, width, letters):
    with visit(browser, page, (width, 800)) as visited:
        assert visited.page.locator("#logo svg path").count() == letters


def test_previous_and_next_follow_the_table(browser, page):
    with visit(browser, page) as visited:
        visited.page.locator(".tabulator-col[tabulator-field='v0'] .tabulator-col-title").click()
        visited.page.locator("#chosen button", has_text="Next").click()
        shown(visited, 5)
        assert visited.page.locator("#chosen h3").inner_text() == f"c1:4,000 {SEQUENCE[3999]}>N"


IMAGE = "<img/src=x/onerror=window.hacked=1>"
SCRIPT = "</script><script>window.hacked=1</script>"

ANSWERS = """texts => {
    const asked = genomeBrowser.tracks.filter(x => x.type !== "sequence");
    const pairs = texts.map(x => ({name: x, value: x}));
    const root = document.querySelector("#browser").shadowRoot;
    const labels = root.querySelectorAll(".igv-track-label");
    if (labels.length < 3) throw new Error("no labels");
    labels.forEach(label => label.click());
    return asked.map(track => genomeBrowser.fireEvent("trackclick", [track, pairs]));
}"""
MARKUP = """() => {
    const roots = [document];
    for (const root of roots)
        for (const node of root.querySelectorAll("*"))
            if (node.shadowRoot) roots.push(node.shadowRoot);
    const all = kind => roots.reduce((n, root) => n + root.querySelectorAll(kind).length, 0);
    return [all("img"), all("script"), all("[onerror]"), roots.length];
}"""


def test_markup_in_the_files_stays_text(browser, tmp_path):
    """Payloads in every place that a file can fill: none becomes an element, none runs."""
    info = f"NOTE={IMAGE};ENC=%3Cimg%20src=x%20onerror=window.hacked=1%3E;{SCRIPT}"
    head = HEAD.replace("TOY_PLLR,Number", f"TOY_{IMAGE.replace('=', '')},Number")
    head = head.replace('Name="toy"', f'Name="{SCRIPT}",Extra="{IMAGE}"')
    head = head.replace('Description="a <b>ratio</b>"', f'Description="{SCRIPT}{IMAGE}"')
    head = head.replace("Date=Today", f"{SCRIPT}{IMAGE}")
    contig = IMAGE
    values = f"{info};TOY_LLR=-2;TOY_STATUS={IMAGE}"
    base = SEQUENCE[99]
    records = [
        record(100, IMAGE.replace(",", ""), values, name=SCRIPT, ref=base, chrom=contig),
        record(100, "<IMG>", f"{info};TOY_LLR=-1;TOY_STATUS={SCRIPT}", name=IMAGE, ref=base),
    ]
    vcf = write_vcf(tmp_path / "x.vcf", records, head)
    genes = tmp_path / "genes.gtf"
    genes.write_text(f'c1\tx\texon\t50\t160\t.\t+\t.\tgene_id "{IMAGE}";\n')
    tracks = tmp_path / "tracks"
    tracks.mkdir()
    write_bigwig(tracks / "d.bw", 50, bell(1))
    write_tracks(tracks, [("c1", "100", base, "<IMG>", IMAGE, "delta", "d.bw")])
    made = make_report(str(vcf), Extras(genes=str(genes), tracks=str(tracks)), title=SCRIPT + IMAGE)
    path = tmp_path / "report.html"
    path.write_bytes(made.page)
    with visit(browser, path) as visited:
        click_row(visited, "<IMG>")
        shown(visited, 1)
        visited.page.locator("#chooser summary").click()
        # What igv.js shows of a feature goes through markup: ask what it would show of each track.
        answers = visited.run(ANSWERS, [IMAGE, SCRIPT])
        assert len(answers) >= 4
        assert not [x for x in answers if "<img" in str(x) or "<script" in str(x)]
        visited.page.wait_for_timeout(300)
        counted = visited.run(MARKUP)
        # The scripts of the page itself: the data and three.
        assert counted[:3] == [0, 4, 0]
        assert counted[3] > 1
        assert visited.run("() => window.hacked") is None
        text = visited.page.locator("#report").inner_text()
        assert text.count(IMAGE) > 5
        assert SCRIPT in text
        visited.check_quiet()


def test_thousands_of_variants(browser, tmp_path, capsys):
    records = [
        record(200 + i % 4500, "N", f"AF=0.5;{scores((i * 37 % 1000) / 100 - 5, 0)}", name=f"v{i}")
        for i in range(5000)
    ]
    path = tmp_path / "report.html"
    path.write_bytes(make_report(str(write_vcf(tmp_path / "x.vcf", records))).page)
    began = time.perf_counter()
    with visit(browser, path) as visited:
        opened = time.perf_counter() - began
        visited.page.locator("#table .tabulator-page-size").select_option("true")
        visited.wait(
            "() => document.querySelector('.tabulator-page-counter').textContent.includes('1-5000')"
        )
        # Rows out of sight are not in the page.
        rows = visited.page.locator("#table .tabulator-row")
        assert 10 < rows.count() < 400
        began = time.perf_counter()
        visited.run("() => { document.querySelector('.tabulator-tableholder').scrollTop = 1e7; }")
        visited.wait("() => document.querySelector('#table').textContent.includes('v4999')")
        assert rows.count() < 400
        scrolled = time.perf_counter() - began
        visited.page.locator("#table .tabulator-page-size").select_option("100")
        visited.run("() => document.querySelector('#table [data-page=last]').click()")
        visited.wait("() => document.querySelector('#table').textContent.includes('4901-5000')")
        visited.page.locator("#search").fill("v43")
        # v43, v430 to v439 and v4300 to v4399: what a filter finds is seen from its first row on.
        visited.wait("() => document.querySelector('#table').textContent.includes('1-100 of 111')")
        began = time.perf_counter()
        visited.page.locator("#search").fill("v4321")
        visited.wait("() => document.querySelectorAll('#table .tabulator-row').length === 1")
        searched = time.perf_counter() - began
        visited.check_quiet()
    size = path.stat().st_size / 1e6
    with capsys.disabled():
        sys.stdout.write(
            f"\n5,000 alleles: {size:.1f} MB, opened and drawn in {opened:.2f} s, scrolled to the "
            f"end in {scrolled:.2f} s, searched in {searched:.2f} s\n"
        )


@pytest.mark.parametrize("size", [(1440, 900), (900, 700), (420, 800)])
def test_nothing_is_wider_than_the_window(browser, page, size):
    with visit(browser, page, size) as visited:
        assert visited.run("() => document.documentElement.scrollWidth") <= size[0]


def test_a_page_of_odd_records(browser, tmp_path):
    """Outside the contig, telomeres, numbers at the ends of 32 bits, many statuses."""
    records = [
        record(9000, "A", scores(3e38, -3e38), ref="C", name="beyond"),
        record(0, "A", scores(1e16, 1e-30), ref="C", name="telomere"),
        *(record(10 + i, "N", scores(".", ".", f"S{i}")) for i in range(30)),
    ]
    path = tmp_path / "report.html"
    vcf = write_vcf(tmp_path / "x.vcf", records)
    path.write_bytes(make_report(str(vcf), Extras(fasta=str(write_fasta(tmp_path)))).page)
    with visit(browser, path) as visited:
        # igv.js shows 40 bases at least.
        assert locus(visited) == "c1:4,961-5,000"
        click_row(visited, "telomere")
        shown(visited, 1)
        assert locus(visited) == "c1:1-40"
        # The 24 most frequent by name, and the other 7 together, which are no status to filter by.
        assert visited.page.locator(".status-list tr").count() == 25
        last = visited.page.locator(".status-list tr").last
        assert last.inner_text().split()[:2] == ["others", "7"]
        assert last.locator("button").count() == 0
        visited.check_quiet()


def test_a_page_without_alleles(browser, tmp_path):
    path = tmp_path / "report.html"
    vcf = write_vcf(tmp_path / "x.vcf", [record(700, ".", "CLASS=x")])
    path.write_bytes(make_report(str(vcf)).page)
    with visit(browser, path) as visited:
        assert "No allele has a number" in visited.page.locator("#histograms").inner_text()
        visited.check_quiet()
