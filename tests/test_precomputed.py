"""`--from`: what is taken from earlier outputs, what is not, and that numbers stay the same."""

from __future__ import annotations

import gzip
import json
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pysam
import pysam.bcftools
import pytest
from cli_kit import COLUMNS, HEAD, call, header_of, records_of, statuses, write_vcf
from engine import write_fasta

from glm_annotate import annotate, score_files
from glm_annotate.bundle import write_bundle
from glm_annotate.testing import toy_bundle

REPEATS = "GATTACAAAAAAACGTGTGTGTGTCCATGCATGCATTGACCAGTAC"
GENOME = {
    "chr1": REPEATS * 4,
    "chr2": "ACGTTGCAACGGATTC" * 8,
    "ring": "TTACGGATCAGCATTGCAGGTCAAGCTTACCATTTTAT",
}
LENGTHS = "".join(f"##contig=<ID={x},length={len(bases)}>\n" for x, bases in GENOME.items())
LENGTHS += '##INFO=<ID=SVLEN,Number=A,Type=Integer,Description="Length">\n'
MIXED = [
    *("chr1 2 A C", "chr1 3 T A,C,G", "chr1 6 CA C", "chr1 6 C CA,CAA", "chr1 8 A <DEL> SVLEN=-2"),
    *("chr1 21 G T", "chr1 21 GTG TTA", "chr1 9 A *,T", "chr1 30 A .", "chr1 4 A C", "chr9 4 A C"),
    *("chr2 9 A T", "chr2 3 G GAA", "chr2 5 TGCA CAAG", "chr1 2 A C", "ring 1 T G", "ring 38 T A"),
]
SCORES = ["-s", "PLLR,ENT"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("precomputed")
    write_fasta(folder / "genome.fa", GENOME)
    toy_bundle("wide", folder / "toy", context=24)
    toy_bundle("wide", folder / "other", context=24, seed=5)
    write_vcf(folder / "in.vcf", MIXED, HEAD.replace(COLUMNS, LENGTHS + COLUMNS))
    return folder


@pytest.fixture
def base(home: Path) -> list[object]:
    return ["-f", home / "genome.fa", "-m", home / "toy", "--no-version", "--circular", "ring"]


Run = Callable[..., str]


@pytest.fixture
def run(home: Path, base: list[object], tmp_path: Path) -> Run:
    """Annotate; the last of options that exclude each other wins."""

    def run(source: Path, *more: object, scores: Sequence[str] = SCORES, code: int = 0) -> str:
        out = tmp_path / "out.vcf"
        assert call("vcf", source, *base, *scores, "-o", out, "--force", *more) == code
        return out.read_text()

    return run


@pytest.fixture
def fails(base: list[object], home: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Give the one line on stderr of a run that must end with a code."""

    def fails(*more: object, scores: Sequence[str] = SCORES, code: int = 1) -> str:
        capfd.readouterr()
        assert call("-q", "vcf", home / "in.vcf", *base, *scores, *more) == code
        out, err = capfd.readouterr()
        assert out == ""
        (line,) = [x for x in err.splitlines() if "error: " in x]
        return line

    return fails


def indexed(text: str, path: Path, index: str = "csi") -> Path:
    """Pack the text of a VCF, sorted, as the name says, and index it."""
    lines = text.splitlines(keepends=True)
    head = [x for x in lines if x.startswith("#")]
    contigs = {x: i for i, x in enumerate([*GENOME, "1", "2", "chr9"])}

    def place(line: str) -> tuple[int, int]:
        chrom, pos, *_ = line.split("\t")
        return contigs[chrom], int(pos)

    rows = sorted((x for x in lines if not x.startswith("#")), key=place)
    plain = path.with_name(path.name + ".txt")
    plain.write_text("".join(head + rows))
    if path.suffix == ".bcf":
        pysam.bcftools.view("--no-version", "-Ob", "-o", str(path), str(plain), catch_stdout=False)
        pysam.bcftools.index("-f", str(path), catch_stdout=False)
        return path
    pysam.tabix_compress(str(plain), str(path), force=True)
    pysam.tabix_index(str(path), preset="vcf", force=True, csi=index == "csi")
    return path


def unpacked(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode()


def marked(text: str, first: int = 1) -> str:
    """Give every number in a file of scores another one, so that it is seen where it goes."""
    count = iter(range(first, 100_000))
    numbers = re.compile(r"(?<=[=,])-?[0-9][0-9.e+-]*(?=[,;\t\n]|$)")
    out = []
    for line in text.splitlines(keepends=True):
        columns = line.rstrip("\n").split("\t")
        if not line.startswith("#"):
            pairs = [x.partition("=") for x in columns[7].split(";")]
            columns[7] = ";".join(
                key + mark + (numbers.sub(lambda _: str(next(count)), mark + value)[1:]
                              if key.startswith("TOY_") else value)
                for key, mark, value in pairs
            )  # fmt: skip
        out.append("\t".join(columns) + "\n")
    return "".join(out)


def values(text: str, key: str = "TOY_PLLR") -> list[list[str]]:
    return [r.per_alt(key) for r in records_of(text) if r.alts]


# --- the same numbers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "index"), [("s.vcf.gz", "tbi"), ("s.vcf.gz", "csi"), ("s.bcf", "csi")]
)
@pytest.mark.parametrize("share", ["all", "some"])
def test_only_the_status_says_where_numbers_come_from(
    name: str, index: str, share: str, home: Path, run: Run, tmp_path: Path
) -> None:
    plain = run(home / "in.vcf", "--tsv", tmp_path / "plain.tsv")
    lines = plain.splitlines(keepends=True)
    kept = lines if share == "all" else [x for i, x in enumerate(lines) if x[0] == "#" or i % 2]
    kept = [x for x in kept if not x.startswith("chr9")]  # the FASTA lacks it, and so the header
    file = indexed("".join(kept), tmp_path / name, index)
    summary = tmp_path / "summary.json"
    found = run(
        home / "in.vcf", "--from", file, "--tsv", tmp_path / "found.tsv", "--summary", summary
    )
    assert found.replace("PRECOMPUTED", "SCORED") == plain
    table = (tmp_path / "found.tsv").read_text()
    assert table.replace("PRECOMPUTED", "SCORED") == (tmp_path / "plain.tsv").read_text()
    there = {(*r.site[:3], alt) for r in records_of("".join(kept)) for alt in r.alts}
    told = zip(statuses(plain).items(), statuses(found).values(), strict=True)
    for ((chrom, pos, ref, alts), before), after in told:
        for alt, old, new in zip(alts.split(","), before, after, strict=True):
            taken = old == "SCORED" and (chrom, pos, ref, alt) in there
            assert new == ("PRECOMPUTED" if taken else old), (chrom, pos, ref, alt)
    counts = json.loads(summary.read_text())["models"]["TOY"]
    assert counts["status"]["PRECOMPUTED"] == found.count("PRECOMPUTED") > 5
    assert (counts["forward_passes"] == 0) == (share == "all")
    assert counts["unscored"] == sum(x not in ("SCORED", "PRECOMPUTED") for s in
                                     statuses(found).values() for x in s)  # fmt: skip


def test_numbers_are_those_that_bcftools_takes(
    home: Path, run: Run, tmp_path: Path, bcftools: str
) -> None:
    records = [x for x in dict.fromkeys(MIXED) if not re.search(r"[,*.<]|chr9", x)]
    head = HEAD.replace(COLUMNS, LENGTHS + COLUMNS)
    text = write_vcf(tmp_path / "in.vcf", records, head).read_text()
    source = indexed(text, tmp_path / "in.vcf.gz")
    file = indexed(marked(run(source)), tmp_path / "scores.vcf.gz")
    found = records_of(run(source, "--from", file))
    keys = "INFO/TOY_PLLR,INFO/TOY_ENT"
    command = [bcftools, "annotate", "-a", file, "-c", keys, source]
    expected = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for ours, theirs in zip(found, records_of(expected), strict=True):
        for key in ("TOY_PLLR", "TOY_ENT"):
            assert ours.info[key] == theirs.info[key]
    told = [r.info["TOY_STATUS"] for r in found]
    assert sorted(told) == ["PRECOMPUTED"] * (len(records) - 1) + ["REF_MISMATCH"]


def test_each_alt_gets_its_own_numbers(home: Path, run: Run, tmp_path: Path) -> None:
    text = run(write_vcf(tmp_path / "a.vcf", ["chr1 3 T A,C,G", "chr2 3 G GAA,GA"]))
    rows = text.replace("TOY_STATUS=SCORED,SCORED,", "TOY_STATUS=SCORED,PLLR:NOT_FINITE,")
    file = indexed(marked(rows), tmp_path / "s.bcf")
    wanted = write_vcf(tmp_path / "b.vcf", ["chr1 3 T G", "chr1 3 T C,A", "chr2 3 G GA,C,GAA"])
    found = run(wanted, "--from", file)
    assert list(statuses(found).values()) == [
        ["PRECOMPUTED"], ["SCORED", "PRECOMPUTED"], ["PRECOMPUTED", "SCORED", "PRECOMPUTED"],
    ]  # fmt: skip
    plain = values(run(wanted))
    # Numbers of the file count on: three of PLLR, three of ENT, then those of the second record.
    assert values(found) == [["3"], [plain[1][0], "1"], ["8", plain[2][1], "7"]]
    assert values(found, "TOY_ENT")[0] == ["6"]


# --- one allele, many spellings ------------------------------------------------------------------


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look each record up for itself, so that none is found by what is asked for its neighbours."""
    monkeypatch.setattr(annotate, "_SMALLEST_CHUNK", 1)
    monkeypatch.setattr(annotate, "_LARGEST_CHUNK", 1)


def spellings(bases: str, haplotype: str) -> list[tuple[int, str, str]]:
    """List all ways to write a haplotype as one change with up to 3 more bases at each side."""
    grown, out = len(haplotype) - len(bases), []
    for start in range(len(bases) + 1):
        if bases[:start] != haplotype[:start]:
            break
        for end in range(start, min(len(bases), start + 9) + 1):
            ref, alt = bases[start:end], haplotype[start : end + grown]
            if ref and alt and bases[end:] == haplotype[end + grown :]:
                out.append((start + 1, ref, alt))
    return out


@pytest.mark.parametrize("kind", ["s.vcf.gz", "s.bcf"])
@pytest.mark.usefixtures("alone")
def test_an_allele_is_found_however_it_is_spelled(
    kind: str, home: Path, run: Run, tmp_path: Path
) -> None:
    draw, bases = random.Random(3), GENOME["chr1"][:60]

    def change() -> tuple[str, tuple[int, str, str]]:
        """Give the haplotype of a small change and one way to write it."""
        while True:
            start = draw.randrange(1, 50)
            end = start + draw.choice((0, 0, 1, 1, 2, 3))
            new = "".join(draw.choices("ACGT", k=draw.choice((0, 0, 1, 1, 2, 3))))
            haplotype = bases[:start] + new + bases[end:]
            ways = spellings(bases, haplotype)
            if haplotype != bases and ways:
                # Short ones as often: long ones overlap wherever they begin.
                least = min(len(ref) for _, ref, _ in ways)
                short = [x for x in ways if len(x[1]) == least]
                return haplotype, draw.choice(draw.choice((short, ways)))

    made, asked = ([change() for _ in range(300)] for _ in range(2))
    made.sort(key=lambda x: x[1][0])
    head = "".join(x + "\n" for x in header_of(run(home / "in.vcf")))
    rows = [
        f"chr1\t{pos}\t.\t{ref}\t{alt}\t.\t.\tTOY_PLLR={i};TOY_ENT=0;TOY_STATUS=SCORED\n"
        for i, (_, (pos, ref, alt)) in enumerate(made)
    ]
    file = indexed(head + "".join(rows), tmp_path / kind)
    source = write_vcf(tmp_path / "q.vcf", [f"chr1 {p} {r} {a}" for _, (p, r, a) in asked])
    found = records_of(run(source, "--from", file))
    first: dict[str, int] = {}
    for i, (haplotype, _) in enumerate(made):
        first.setdefault(haplotype, i)
    other = 0
    for record, (haplotype, written) in zip(found, asked, strict=True):
        assert (record.info["TOY_STATUS"] == "PRECOMPUTED") == (haplotype in first), written
        if haplotype in first:
            assert record.info["TOY_PLLR"] == str(first[haplotype]), written
            other += made[first[haplotype]][1] != written
    assert other > 30
    assert any(haplotype not in first for haplotype, _ in asked)


@pytest.mark.parametrize("circular", ["ring", "none"])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ring 1 T GT", "ring 38 T TG"),
        ("ring 37 AT A", "ring 1 TT T"),
        ("ring 1 TTA A", "ring 37 AT A"),
    ],
)
@pytest.mark.usefixtures("alone")
def test_indels_move_across_the_origin_of_circles_only(
    circular: str, one: str, other: str, run: Run, tmp_path: Path
) -> None:
    same = other != "ring 37 AT A"
    for written, asked in ((one, other), (other, one)):
        text = run(write_vcf(tmp_path / "w.vcf", [written]), "--circular", circular)
        file = indexed(marked(text), tmp_path / "s.vcf.gz")
        # What lies between keeps the two from being one site.
        source = write_vcf(tmp_path / "q.vcf", [asked, "chr2 9 A T", written])
        found = run(source, "--circular", circular, "--from", file)
        there = "PRECOMPUTED" if same and circular == "ring" else "SCORED"
        assert list(statuses(found).values()) == [[there], ["SCORED"], ["PRECOMPUTED"]]


@pytest.mark.usefixtures("alone")
def test_symbolic_alleles_and_what_they_spell_are_one(run: Run, tmp_path: Path) -> None:
    # The last one's ends are alike: what it changes begins behind the base after POS.
    written = ["chr1 9 A <DEL> SVLEN=-2;END=11", "chr1 24 T <INV> END=27", "chr1 26 C <INV> END=37"]
    file = indexed(marked(run(write_vcf(tmp_path / "w.vcf", written))), tmp_path / "s.vcf.gz")
    asked = {
        "chr1 6 CAA C": "PRECOMPUTED",
        "chr1 12 AA <DEL> END=13": "SCORED",  # of one base
        "chr1 24 T <INV> SVLEN=3": "PRECOMPUTED",
        "chr1 25 CCA TGG": "PRECOMPUTED",
        "chr1 26 C <INV> SVLEN=11": "PRECOMPUTED",
    }
    found = run(write_vcf(tmp_path / "q.vcf", list(asked)), "--from", file)
    told = [x for r in records_of(found) for x in r.per_alt("TOY_STATUS")]
    assert told == list(asked.values())


@pytest.mark.parametrize(("worth", "far"), [(1, 40), (3, 1 << 20), (1000, 7), (1000, 1 << 20)])
@pytest.mark.parametrize("kind", ["s.vcf.gz", "s.bcf"])
def test_records_near_places_are_all_found(
    worth: int, far: int, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_files, "_WORTH_A_JUMP", worth)
    monkeypatch.setattr(score_files, "_FARTHEST", far)
    draw = random.Random(worth + far)
    for _ in range(12):
        rows = [(draw.randrange(1, 400), draw.choice((1, 1, 1, 2, 40))) for _ in range(80)]
        text = f"##fileformat=VCFv4.2\n##contig=<ID=chr1>\n##contig=<ID=chr2>\n{COLUMNS}\n"
        text += "".join(
            f"{chrom}\t{pos}\t.\t{'A' * size}\tC\t.\t.\t.\n"
            for pos, size in rows for chrom in ("chr1", "chr2")
        )  # fmt: skip
        file = score_files.open_score_file(str(indexed(text, tmp_path / kind)))
        spans = [(x, x + draw.choice((1, 1, 3, 30))) for x in draw.sample(range(420), 15)]
        found = {(int(x[1]), len(x[3])) for x in file.near("chr1", spans)}
        file.close()
        wanted = {
            (pos, size) for pos, size in rows
            if any(start < pos - 1 + size and pos - 1 < end for start, end in spans)
        }  # fmt: skip
        assert found == wanted
    assert len(wanted) < len(set(rows))


# --- which alleles -------------------------------------------------------------------------------


def test_contigs_go_by_their_aliases(home: Path, run: Run, tmp_path: Path) -> None:
    text = marked(run(home / "in.vcf")).replace("chr1", "1").replace("chr2", "2")
    kept = "".join(x for x in text.splitlines(keepends=True) if not x.startswith("chr9"))
    file = indexed(kept, tmp_path / "s.vcf.gz")
    found = run(write_vcf(tmp_path / "q.vcf", ["chr1 2 A C", "2 9 A T", "1 2 A C"]), "--from", file)
    (one,), (two,), (three,) = values(found)
    assert one == three == values(text)[0][0]
    assert two == next(r.info["TOY_PLLR"] for r in records_of(text) if r.site[:2] == ("2", "9"))
    # The user's own names count for the file too.
    names = tmp_path / "names.tsv"
    names.write_text("one\tchr1\n")
    kept = kept.replace("ID=1,", "ID=one,").replace("\n1\t", "\none\t")
    file = indexed(kept.replace("\none\t", "\nchr9\t"), tmp_path / "t.vcf.gz")
    names.write_text("chr9\tchr1\n")
    source = write_vcf(tmp_path / "r.vcf", ["chr9 2 A C"])
    assert values(run(source, "--contig-map", names, "--from", file)) == [[one]]


def test_the_first_of_several_records_counts(
    run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = ["chr1 2 A C", "chr1 2 A C", "chr2 9 A T", "chr2 9 A T"]
    text = run(write_vcf(tmp_path / "w.vcf", rows))
    source = write_vcf(tmp_path / "q.vcf", ["chr1 2 A C", "chr2 9 A T"])
    capfd.readouterr()
    same = run(source, "--from", indexed(text, tmp_path / "s.vcf.gz"))
    assert "stands twice" not in capfd.readouterr().err
    assert same.count("PRECOMPUTED") == 2
    found = run(source, "--from", indexed(marked(text), tmp_path / "s.vcf.gz"))
    assert values(found) == [["1"], ["5"]]
    assert capfd.readouterr().err.count("stands twice, with other scores of TOY") == 1
    # Nor is one without numbers taken before one that has some.
    lost = marked(text).replace("TOY_STATUS=SCORED", "TOY_STATUS=FAILED", 1)
    assert values(run(source, "--from", indexed(lost, tmp_path / "s.vcf.gz"))) == [["3"], ["5"]]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("TOY_STATUS=SCORED", "TOY_STATUS=SCORED,SCORED"),
        ("TOY_STATUS=SCORED", "OTHER=1"),
        ("TOY_PLLR=1;", ""),
        ("TOY_PLLR=1;", "TOY_PLLR=1,2;"),
        ("TOY_PLLR=1;", "TOY_PLLR=;"),
        ("TOY_PLLR=1;", "TOY_PLLR=nan;"),
        ("TOY_PLLR=1;", "TOY_PLLR=<b>;"),
        ("\tA\tC\t", "\tA\tG\t"),
        ("\tA\tC\t", "\tT\tC\t"),  # REF is not the FASTA's
        ("\tA\tC\t", "\tA\t.\t"),
    ],
)
def test_what_is_not_clear_is_computed(old: str, new: str, run: Run, tmp_path: Path) -> None:
    source = write_vcf(tmp_path / "q.vcf", ["chr1 2 A C"])
    plain = run(source)
    text = marked(plain)
    assert text.count(old) == 1
    assert "PRECOMPUTED" in run(source, "--from", indexed(text, tmp_path / "s.vcf.gz"))
    assert run(source, "--from", indexed(text.replace(old, new), tmp_path / "s.vcf.gz")) == plain


def test_alleles_that_must_not_be_scored_are_not_taken(
    run: Run, home: Path, tmp_path: Path
) -> None:
    scoped = toy_bundle("wide", tmp_path / "toy", context=24, scope={"contigs": [{"name": "chr2"}]})
    source = write_vcf(tmp_path / "q.vcf", ["chr1 2 A C", "chr2 9 A T", "chr1 2 T C", "chr9 2 A C"])
    model = ["-m", scoped, "-m", f"TWO={home / 'toy'}"]
    base = ["-f", home / "genome.fa", *model[:2], "--circular", "ring", *SCORES, "--no-version"]
    out = tmp_path / "o.vcf"
    assert call("vcf", source, *base, "--ignore-scope", "-o", out) == 0
    kept = "".join(x for x in out.read_text().splitlines(True) if not x.startswith("chr9"))
    file = indexed(kept.replace("REF_MISMATCH", "SCORED"), tmp_path / "s.vcf.gz")
    assert call("vcf", source, *base, "--from", file, "--force", "-o", out) == 0
    told = [x for s in statuses(out.read_text()).values() for x in s]
    assert told == ["OUT_OF_SCOPE", "PRECOMPUTED", "REF_MISMATCH", "CONTIG_MISSING"]


def test_several_files_and_models(home: Path, tmp_path: Path, run: Run) -> None:
    source = write_vcf(tmp_path / "q.vcf", ["chr1 2 A C", "chr1 3 T A", "chr2 9 A T"])
    one = marked(run(write_vcf(tmp_path / "a.vcf", ["chr1 2 A C"])))
    two = marked(run(write_vcf(tmp_path / "b.vcf", ["chr1 2 A C", "chr1 3 T A"])), 100)
    files = [indexed(x, tmp_path / f"{i}.vcf.gz") for i, x in enumerate((one, two))]
    also = ["-m", f"NEW={home / 'other'}"]
    plain = run(source, *also)
    found = run(source, *also, *(x for file in files for x in ("--from", file)))
    assert values(found) == [["1"], ["102"], values(plain)[2]]
    assert [s for (s,) in statuses(found).values()] == ["PRECOMPUTED", "PRECOMPUTED", "SCORED"]
    for key in ("NEW_PLLR", "NEW_ENT", "NEW_STATUS"):  # which no file has
        assert values(found, key) == values(plain, key)
    # And from what was made so, once more.
    again = run(source, *also, "--from", indexed(found, tmp_path / "2.vcf.gz"))
    assert values(again) == values(found)
    assert again.count("PRECOMPUTED") == 6


def test_chunks_do_not_matter(
    home: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run(home / "in.vcf")
    kept = "".join(x for x in plain.splitlines(True) if not x.startswith("chr9"))
    file = indexed(marked(kept), tmp_path / "s.vcf.gz")
    found = run(home / "in.vcf", "--from", file)
    for size in (1, 3):
        monkeypatch.setattr(annotate, "_SMALLEST_CHUNK", size)
        monkeypatch.setattr(annotate, "_LARGEST_CHUNK", size)
        assert run(home / "in.vcf", "--from", file) == found


# --- other outputs -------------------------------------------------------------------------------


def test_taken_alleles_count_as_scored(
    home: Path, run: Run, base: list[object], tmp_path: Path
) -> None:
    source = write_vcf(tmp_path / "q.vcf", ["chr1 2 A C", "chr1 6 C CA", "chr2 9 A T"])
    file = indexed(run(source), tmp_path / "s.vcf.gz")
    told = tmp_path / "told.json"
    assert "PRECOMPUTED" in run(source, "--from", file, "--strict")
    options = [*base, *SCORES, "--from", file, "--dry-run", "--summary", told, "--strict"]
    assert call("vcf", source, *options) == 0
    counts = json.loads(told.read_text())["models"]["TOY"]
    assert counts["status"] == {"PRECOMPUTED": 3}
    assert counts["forward_passes"] == counts["unscored"] == 0
    more = write_vcf(tmp_path / "r.vcf", ["chr1 2 A C", "chr1 2 G C"])
    run(more, "--from", file, "--strict", code=3)


def test_a_file_brings_its_own_scores_up_to_date(run: Run, tmp_path: Path) -> None:
    source = write_vcf(tmp_path / "q.vcf", ["chr1 2 A C", "chr2 9 A T"])
    text = marked(run(source)).replace("TOY_STATUS=SCORED", "TOY_STATUS=FAILED", 1)
    file = indexed(text, tmp_path / "s.vcf.gz")
    found = run(file, "--from", file, "--overwrite")
    assert values(found) == [values(run(source))[0], ["3"]]


# --- who made it ---------------------------------------------------------------------------------


@pytest.fixture
def made(run: Run, home: Path, tmp_path: Path) -> Callable[..., Path]:
    """Make a file of scores; `change` edits its text."""

    def made(*more: object, change: Sequence[tuple[str, str]] = (), **kept: Any) -> Path:
        source = write_vcf(tmp_path / "m.vcf", ["chr1 2 A C", "chr2 9 A T", "ring 3 A G"])
        text = run(source, *more, **kept)
        for old, new in change:
            assert re.search(old, text)
            text = re.sub(old, new, text)
        return indexed(text, tmp_path / "made.vcf.gz")

    return made


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        (["-m", "TOY=other"], [], r"are of toy-wide 1.0 with the digest \w{12}, and TOY of"),
        (["--strand", "forward"], [], "made with Strands forward, this run has both; give"),
        (["--circular", "none"], [], "made with ring as a linear contig, in this run it is"),
        ([], [("##glm_annotateModel.*\n", "")], "not written by glm-annotate"),
        ([], [('Context="24"', 'Context="26"')], "made with Context 26, this run has 24"),
        ([], [('Device="cpu"', 'Device="cuda",TF32="1"')], "made with TF32 1, this run has 0"),
        ([], [('Device="cpu"', 'Device="cpu",Mode="dense"')], "made with Mode dense, this run has"),
        ([], [("window 24 bp", "window 24 bp, dense")], "TOY_PLLR is '.*, dense, .*', that of"),
        ([], [("Number=A,Type=Float", "Number=.,Type=Float")], "TOY_PLLR is '. Float: .*', that"),
        ([], [("ID=chr2,length=128", "ID=chr2,length=130")], "chr2 has 130 bases, .*another"),
    ],
)  # fmt: skip
def test_scores_of_other_makings_are_refused(
    options: list[str], change: list[tuple[str, str]], message: str, made: Callable[..., Path],
    fails: Run, base: list[object], home: Path, tmp_path: Path,
) -> None:  # fmt: skip
    if options[:1] == ["-m"]:
        out, source = tmp_path / "out.vcf", write_vcf(tmp_path / "m.vcf", ["chr1 2 A C"])
        model = ["-f", home / "genome.fa", "-m", f"TOY={home / 'other'}", "--circular", "ring"]
        assert call("vcf", source, *model, *SCORES, "-o", out) == 0
        file = indexed(out.read_text(), tmp_path / "made.vcf.gz")
    else:
        file = made(*options, change=change)
    line = fails("--from", file)
    assert re.search(message, line), line
    assert f"--from {file}: " in line


def test_what_does_not_change_numbers_may_differ(
    made: Callable[..., Path], run: Run, tmp_path: Path
) -> None:
    change = [
        ('Name="toy-wide",Version="1.0"', 'Name="old name",Version="0.9"'),
        ("model toy-wide 1.0,", "model old name 0.9,"),
        ("scores of toy-wide", "scores of old name"),
        ('Device="cpu"', 'Device="cuda",TF32="0",ConvAlgoSearch="HEURISTIC"'),
        ('Version="[0-9.a-z]+">', 'Version="0.0">'),
        ('Circular="ring"', 'Circular="chr7,chrring"'),
    ]  # fmt: skip
    source = write_vcf(tmp_path / "q.vcf", ["chr1 2 A C"])
    file = made("-s", "EMB_L1", change=change)
    assert "PRECOMPUTED" in run(source, "--from", file)


def test_contigs_of_other_lengths_under_other_names_are_left_out(
    made: Callable[..., Path], run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = made(change=[("ID=chr2,length=128", "ID=2,length=130"), ("\nchr2\t", "\n2\t")])
    source = write_vcf(tmp_path / "q.vcf", ["chr1 2 A C", "chr2 9 A T"])
    found = run(source, "--from", file)
    assert [s for (s,) in statuses(found).values()] == ["PRECOMPUTED", "SCORED"]
    assert "2 has 130 bases in the header of" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "scores", "message"),
    [
        ([], ["-s", "PLLR"], "has no TOY_ENT: all scores of TOY are computed"),
        (["-m", "OLD="], SCORES, "has scores of OLD only: those of TOY are computed"),
    ],
)
def test_models_that_a_file_lacks_are_computed(
    options: list[str], scores: list[str], message: str, run: Run, home: Path, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    source = write_vcf(tmp_path / "q.vcf", ["chr1 2 A C", "chr2 9 A T"])
    out = tmp_path / "made.vcf"
    model = f"OLD={home / 'toy'}" if options else home / "toy"
    command = ["-f", home / "genome.fa", "-m", model, *scores, "--circular", "ring"]
    assert call("vcf", source, *command, "-o", out) == 0
    plain = run(source)
    capfd.readouterr()
    assert run(source, "--from", indexed(out.read_text(), tmp_path / "s.vcf.gz")) == plain
    assert message in capfd.readouterr().err


def test_a_file_of_another_assembly_is_found_out(
    made: Callable[..., Path], base: list[object], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bases = GENOME["chr1"] + GENOME["chr2"]
    sites = [(chrom, i) for chrom in ("chr1", "chr2") for i in range(len(GENOME[chrom]))]
    turn = str.maketrans("ACGT", "CGTA")
    head = re.sub("##contig.*\n", "", unpacked(made()).partition("chr1\t")[0])
    rows = "".join(
        f"{c}\t{i + 1}\t.\t{b.translate(turn)}\t{b}\t.\t.\tTOY_PLLR=1;TOY_ENT=1;TOY_STATUS=SCORED\n"
        for (c, i), b in zip(sites, bases, strict=True)
    )
    file = indexed(head + rows, tmp_path / "s.vcf.gz")
    right = [f"{c} {i + 1} {b} {b.translate(turn)}" for (c, i), b in zip(sites, bases, strict=True)]
    source = write_vcf(tmp_path / "q.vcf", right)
    assert call("vcf", source, *base, *SCORES, "--from", file, "-o", tmp_path / "x.vcf") == 1
    message = rf"--from {file}: {len(bases)} of the first {len(bases)} REF alleles are not what"
    assert re.search(message, capfd.readouterr().err)
    assert not (tmp_path / "x.vcf").exists()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda x: (x.parent / (x.name + ".csi")).unlink(), "has no index; run: bcftools index"),
        (lambda x: (x.parent / (x.name + ".csi")).write_bytes(b"no"), "the index cannot be read"),
        (lambda x: x.write_bytes(gzip.compress(b"#")), "neither a bgzipped VCF nor a BCF"),
        (lambda x: x.write_text("##fileformat=VCFv4.2\n"), "neither a bgzipped VCF nor a BCF"),
        (lambda x: x.unlink(), "No such file or directory; name an output of glm-annotate vcf"),
        (
            lambda x: x.write_bytes(x.read_bytes()[:-9]),
            "truncated or damaged: no BGZF end-of-file block",
        ),
    ],
)
def test_files_that_cannot_be_read(
    break_it: Callable[[Path], Any], message: str, made: Callable[..., Path], fails: Run
) -> None:
    file = made()
    break_it(file)
    line = fails("--from", file)
    assert re.search(message, line), line


def test_a_bcf_needs_its_index(made: Callable[..., Path], fails: Run, tmp_path: Path) -> None:
    file = indexed(unpacked(made()), tmp_path / "s.bcf")
    index = Path(f"{file}.csi")
    index.write_bytes(b"no")
    assert "the index cannot be read; run: bcftools index -f" in fails("--from", file)
    index.unlink()
    assert fails("--from", file).endswith(f"has no index; run: bcftools index {file}")


def test_the_output_is_not_where_a_file_of_scores_is(made: Callable[..., Path], fails: Run) -> None:
    file = made()
    line = fails("--from", file, "-o", file, "--force", code=2)
    assert f"--from {file}: the place of -o too" in line


# --- models of tracks, and mito ------------------------------------------------------------------


@pytest.fixture(scope="module")
def tracks(home: Path) -> Path:
    pytest.importorskip("torch")
    from toy_tracks import Shape, write_toy

    return write_toy(home / "tracks", Shape(64, 32, 4, 2), scores=("SAD", "LOGSED"))


def test_all_keys_of_tracks_are_taken(
    tracks: Path, home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    base = ["-f", home / "genome.fa", "-m", tracks, "--no-version"]
    out = tmp_path / "out.vcf"

    def run(*more: object) -> str:
        assert call("vcf", home / "in.vcf", *base, "-o", out, "--force", *more) == 0
        return out.read_text()

    plain = run()
    kept = "".join(x for x in plain.splitlines(True) if not x.startswith("chr9"))
    file = indexed(kept, tmp_path / "s.vcf.gz")
    found = run("--from", file)
    assert found.replace("PRECOMPUTED", "SCORED") == plain
    assert "PRECOMPUTED" in found
    other = re.sub("TRK_SAD_TOP=[^;]*", lambda x: x[0].replace(",", "x,") + "x", kept)
    other = re.sub("TRK_SAD_dnase=-?", "TRK_SAD_dnase=7", other)
    assert other != kept
    (record, *_) = records_of(run("--from", indexed(other, tmp_path / "t.vcf.gz")))
    (before, *_) = records_of(plain)
    assert record.info["TRK_SAD_TOP"] == before.info["TRK_SAD_TOP"] + "x"
    assert record.info["TRK_SAD_dnase"] == "7" + before.info["TRK_SAD_dnase"].lstrip("-")
    capfd.readouterr()
    command = ["vcf", home / "in.vcf", *base, "--from", file, "--force", "-o", out]
    assert call(*command, "--track-regex", "cage") == 1
    assert re.search(r"made with Tracks 5 \w{12}, this run has 1 \w{12}; ", capfd.readouterr().err)


def test_the_matrix_has_no_rows_of_what_is_taken(
    tracks: Path, home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    base = [
        "-f",
        home / "genome.fa",
        "-m",
        tracks,
        "--no-version",
        "-o",
        tmp_path / "o.vcf",
        "--force",
    ]
    source = write_vcf(tmp_path / "a.vcf", ["chr1 2 A C"])
    assert call("vcf", source, *base) == 0
    file = indexed((tmp_path / "o.vcf").read_text(), tmp_path / "s.vcf.gz")
    source = write_vcf(tmp_path / "b.vcf", ["chr1 2 A C", "chr2 9 A T"])
    matrix = tmp_path / "m.parquet"
    assert call("vcf", source, *base, "--from", file, "--matrix", matrix) == 0
    assert set(pandas.read_parquet(matrix)["chrom"]) == {"chr2"}
    assert capfd.readouterr().err.count("alleles taken from --from have no rows") == 1


def test_scores_in_other_genes_are_refused(
    tracks: Path, home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = write_vcf(tmp_path / "a.vcf", ["chr1 20 T A"])
    row = 'chr1\tx\texon\t{}\t60\t.\t+\t.\tgene_id "g"; gene_name "n"; transcript_id "t";\n'
    genes = {}
    for name, start in (("one", 10), ("same", 10), ("two", 14)):
        genes[name] = tmp_path / f"{name}.gtf"
        genes[name].write_text(row.format(start))
    out = tmp_path / "o.vcf"
    base = ["-f", home / "genome.fa", "-m", tracks, "-s", "SAD:mask=gene", "-o", out, "--force"]
    assert call("vcf", source, *base, "--gtf", genes["one"]) == 0
    plain = out.read_text()
    file = indexed(plain, tmp_path / "s.vcf.gz")
    assert call("vcf", source, *base, "--gtf", genes["same"], "--from", file) == 0
    (record,) = records_of(out.read_text())
    assert record.info["TRK_STATUS"] == "PRECOMPUTED"
    assert record.info["TRK_SAD_GENE_MAX"] == records_of(plain)[0].info["TRK_SAD_GENE_MAX"]
    assert record.info["TRK_SAD_GENE_GENE"] == "n"
    capfd.readouterr()
    assert call("vcf", source, *base, "--gtf", genes["two"], "--from", file) == 1
    assert re.search(r"made with GenesSha256 \w{12}, this run has \w{12}", capfd.readouterr().err)


def test_a_saturated_stretch_of_the_mitochondrion(example_dir: Path, tmp_path: Path) -> None:
    fasta = tmp_path / "chrM.fa"
    shutil.copy(example_dir / "chrM.fa", fasta)
    bases = pysam.FastaFile(str(fasta)).fetch("chrM", 3240, 3256).upper()
    base = ["-f", fasta, "-m", "mito", "--no-version", "--force"]
    every = [f"chrM {3241 + i} {b} {a}" for i, b in enumerate(bases) for a in "ACGT" if a != b]
    file, out = tmp_path / "s.vcf.gz", tmp_path / "o.vcf"
    assert call("vcf", write_vcf(tmp_path / "s.vcf", every), *base, "-o", file, "-W") == 0
    sites = [f"chrM {3241 + i} {b} {','.join(set('ACGT') - {b})}" for i, b in enumerate(bases)]
    order = np.random.default_rng(2).permutation(len(sites))
    source = write_vcf(tmp_path / "in.vcf", [sites[i] for i in order] + ["chrM 3243 A G,AT"])
    assert call("vcf", source, *base, "-o", out) == 0
    plain = out.read_text()
    assert call("vcf", source, *base, "-o", out, "--from", file) == 0
    found = out.read_text()
    assert found.replace("PRECOMPUTED", "SCORED") == plain
    assert found.count("PRECOMPUTED") == 3 * len(bases) + 1


def test_scores_of_splice_sites_are_taken_with_their_gene(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    import test_splice_vcf as splice

    fasta = write_fasta(tmp_path / "g.fa", splice.CONTIGS)
    bases = splice.CONTIGS["c"]
    rows = [f"c {i} {bases[i - 1]} {'A' if bases[i - 1] != 'A' else 'T'}" for i in (150, 470, 650)]
    source = write_vcf(tmp_path / "a.vcf", [*rows, f"c 650 {bases[649:652]} {bases[649]}"])
    made = splice.write_toy(tmp_path / "toy")
    file, out = tmp_path / "s.vcf.gz", tmp_path / "o.vcf"
    base = ["-f", fasta, "-m", made, "--no-version", "--force"]
    assert call("vcf", source, *base, "-o", out) == 0
    assert call("vcf", source, *base, "-o", file, "-W") == 0
    plain = out.read_text()
    assert call("vcf", source, *base, "-o", out, "--from", file) == 0
    assert out.read_text().replace("PRECOMPUTED", "SCORED") == plain
    assert [r.info["TOY_STATUS"] for r in records_of(out.read_text())] == ["PRECOMPUTED"] * 4
    # A model of how much sites are used, of which other tracks were read.
    card = json.loads((made / "card.json").read_text())
    del card["sha256"]
    (made / "tracks.tsv").write_text("identifier\trole\nfirst\tusage\nsecond\tusage\n")
    write_bundle(made, card | {"scores": ["DS_GAIN", "DS_LOSS"]})
    assert call("vcf", source, *base, "-o", file, "-W", "--track-regex", "first") == 0
    assert call("vcf", source, *base, "-o", out, "--track-regex", "first", "--from", file) == 0
    assert out.read_text().count("PRECOMPUTED") == 4
    capfd.readouterr()
    assert call("vcf", source, *base, "-o", out, "--track-regex", "second", "--from", file) == 1
    assert re.search(r"made with Tracks 1 \w{12}, this run has 1 \w{12}; ", capfd.readouterr().err)
