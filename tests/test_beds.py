"""BED files: rows with all their columns, what is no row, where rows lie, and stretches joined."""

from __future__ import annotations

import gzip
import io
import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
from engine import write_fasta
from hypothesis import given
from hypothesis import strategies as st

from glm_annotate.beds import BedRow, merged, place, read_bed
from glm_annotate.errors import InputError
from glm_annotate.genome import Genome, Interval

SIZES = {"one": 40, "chr2": 30, "three": 25}


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    path = tmp_path_factory.mktemp("genome") / "toy.fa"
    return Genome(write_fasta(path, {name: "ACGTN" * (n // 5) for name, n in SIZES.items()}))


def rows_of(tmp_path: Path, text: str | bytes) -> list[BedRow]:
    path = tmp_path / "in.bed"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return list(read_bed(str(path)))


# Whatever may stand between tabs, first and last letters included.
cell = st.text(st.characters(exclude_characters="\t\r\n", exclude_categories=("Cs",)), max_size=8)
contig = st.from_regex(r"[A-Za-z0-9_.*|-]{1,12}", fullmatch=True).filter(
    lambda x: x not in ("track", "browser")
)
row = st.builds(
    lambda name, a, b, rest: (name, str(min(a, b)), str(max(a, b)), *rest),
    contig, st.integers(0, 10**12), st.integers(0, 10**12), st.lists(cell, max_size=9),
)  # fmt: skip
noise = st.sampled_from(
    ["", "   ", "# chrom\tstart\tend", "#", "track name=x", "browser position a:1-2"]
)


@given(
    lines=st.lists(st.one_of(row, noise), max_size=12),
    ending=st.sampled_from(["\n", "\r\n"]),
    closed=st.booleans(),
    zipped=st.booleans(),
)
def test_every_row_comes_as_it_stands(
    lines: list[tuple[str, ...] | str],
    ending: str,
    closed: bool,
    zipped: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    texts = [x if isinstance(x, str) else "\t".join(x) for x in lines]
    data = (ending.join(texts) + (ending if closed and texts else "")).encode()
    folder = tmp_path_factory.mktemp("bed")
    found = rows_of(folder, gzip.compress(data) if zipped else data)
    expected = [(i, x) for i, x in enumerate(lines, 1) if not isinstance(x, str)]
    assert [(x.line, x.cells) for x in found] == expected
    for one, (_, cells) in zip(found, expected, strict=True):
        assert (one.contig, one.start, one.end) == (cells[0], int(cells[1]), int(cells[2]))
        assert one.name == (cells[3] if len(cells) > 3 else "")
        assert one.strand == (cells[5] if len(cells) > 5 else ".")


def test_columns_may_be_between_spaces(tmp_path: Path) -> None:
    (found,) = rows_of(tmp_path, "chr1  5 9 name\t\n".replace("\t", ""))
    assert found.cells == ("chr1", "5", "9", "name")


@pytest.mark.parametrize("name", ["track", "browser"])
def test_contigs_may_begin_like_lines_of_browsers(tmp_path: Path, name: str) -> None:
    (found,) = rows_of(tmp_path, f"{name}s\t1\t2\n")
    assert found.contig == f"{name}s"


def test_stdin_plain_and_gzipped(monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (b"a\t0\t1\n", gzip.compress(b"a\t0\t1\n")):
        stdin = SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(data)))
        monkeypatch.setattr("sys.stdin", stdin)
        assert [x.cells for x in read_bed("-")] == [("a", "0", "1")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a\t0\t1\nchr1\t5\n", "line 2: 'chr1"),
        (b"chr1\t-5\t7\n", "line 1"),
        (b"chr1\t5\t7.0\n", "line 1"),
        (b"chr1\t5\t\n", "line 1"),
        (b"chr1\t5\t" + b"9" * 5000 + b"\n", "line 1"),
        (b"\n\nchr1\t7\t6\tx\n", "line 3: 'chr1.*ends before it begins"),
        (b"chr1\t7\t9\t\xff\n", "cannot be read as BED"),
        (gzip.compress(b"chr1\t7\t9\n" * 999, mtime=0)[:-9], "cannot be read as BED"),
        (b"\x1f\x8bnot gzip at all", "cannot be read as BED"),
    ],
    ids=[
        *("two columns", "negative", "fraction", "empty", "huge", "backwards", "no text", "cut"),
        "no gzip",
    ],
)  # fmt: skip
def test_what_is_no_bed_is_told_in_one_line(tmp_path: Path, text: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        rows_of(tmp_path, text)
    assert str(error.value).startswith(str(tmp_path / "in.bed"))
    assert "\n" not in str(error.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.bed: no such BED file"):
        list(read_bed(str(tmp_path / "none.bed")))
    with pytest.raises(InputError, match="cannot be read as BED"):
        list(read_bed(str(tmp_path)))


def test_faults_of_stdin_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(b"x\n")))
    monkeypatch.setattr("sys.stdin", stdin)
    with pytest.raises(InputError, match=r"^stdin: line 1"):
        list(read_bed("-"))


def test_rows_are_placed_by_the_fasta(genome: Genome) -> None:
    assert place(BedRow("2", 0, 30, (), 1), genome, "x") == Interval("chr2", 0, 30)
    assert place(BedRow("one", 40, 40, (), 1), genome, "x") == Interval("one", 40, 40)
    with pytest.raises(InputError, match=r"^x: line 7: .*has no contig four; its first is one"):
        place(BedRow("four", 0, 1, (), 7), genome, "x")
    with pytest.raises(InputError, match=r"^stdin: line 7: 2:0-31 runs past .* 30 bases"):
        place(BedRow("2", 0, 31, (), 7), genome, "-")


stretches = st.lists(
    st.sampled_from([*SIZES]).flatmap(
        lambda name: st.tuples(
            st.just(name), st.integers(0, SIZES[name]), st.integers(0, SIZES[name])
        )
    ),
    max_size=9,
)


@given(given=stretches)
def test_stretches_are_joined(genome: Genome, given: list[tuple[str, int, int]]) -> None:
    """The same bases, sorted, in stretches that do not touch."""
    asked = [Interval(name, min(a, b), max(a, b)) for name, a, b in given]
    found = merged(asked, genome)
    bases = {(x.chrom, i) for x in asked for i in range(x.start, x.end)}
    assert [(x.chrom, i) for x in found for i in range(x.start, x.end)] == sorted(
        bases, key=lambda base: ([*SIZES].index(base[0]), base[1])
    )
    for one, other in itertools.pairwise(found):
        assert one.chrom != other.chrom or one.end < other.start
