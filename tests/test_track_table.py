"""tracks.tsv and targets.txt: what is read, refused, written, chosen and named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from glm_annotate.errors import GlmAnnotateError, InputError, UsageError
from glm_annotate.track_choice import TrackChoice, choose_tracks, info_names
from glm_annotate.track_table import (
    COLUMNS,
    Track,
    TrackTable,
    read_targets,
    read_tracks,
    write_tracks,
)
from glm_annotate.track_transforms import Transform

HEAD = "\t".join(COLUMNS)
FULL = f"""{HEAD}
a-\tCAGE:liver\tCAGE\tliver\ta+\treads\tprofile\tnew:sum_sqrt\t384\t0.5
d1\tDNASE:K562\tDNASE\tK562\t\t\t\t\t\t
a+\tCAGE:liver\tCAGE\tliver\ta-\treads\tprofile\tnew:sum_sqrt\t384\t0.5
s\tsites, "quoted"\tsplice\tliver\ts\t\tdonor\told:mean\t64\t2
"""
TARGETS = """\tidentifier\tfile\tclip\tclip_soft\tscale\tsum_stat\tstrand_pair\tdescription
5\tx+\t/secret/x+.w5\t768\t384\t0.3\tsum_sqrt\t7\tRNA:liver: adult
6\ty\t/secret/y.w5\t64\t32\t2\tmean\t6\tCHIP:H3K4me3:K562
7\tx-\t/secret/x-.w5\t768\t384\t0.3\tsum_sqrt\t5\tRNA:liver: adult
"""


def write(tmp_path: Path, text: str, name: str = "tracks.tsv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def table(tmp_path: Path) -> TrackTable:
    return read_tracks(write(tmp_path, FULL))


def test_reading(table: TrackTable) -> None:
    rule = Transform("new", "sum_sqrt")
    assert table.tracks[0] == Track(
        "a-", "CAGE:liver", "CAGE", "liver", "a+", "reads", "profile", rule, 384.0, 0.5
    )
    assert table.tracks[1] == Track("d1", "DNASE:K562", "DNASE", "K562")
    # A track that names itself has no partner.
    assert table.tracks[3] == Track(
        "s", 'sites, "quoted"', "splice", "liver", "", "", "donor", Transform("old", "mean"), 64, 2
    )
    assert table.pair.tolist() == [2, 1, 0, 3]


def test_merged_tracks_have_the_name_of_the_plus_strand(table: TrackTable) -> None:
    first, second = table.merged
    assert (first.tolist(), second.tolist()) == ([2, 1, 3], [0, 1, 3])
    assert table.merged_identifiers == ("a+", "d1", "s")


def test_writing_is_the_inverse_of_reading(table: TrackTable, tmp_path: Path) -> None:
    path = tmp_path / "again.tsv"
    write_tracks(table, path)
    assert read_tracks(path) == table
    assert path.read_text().splitlines()[0] == HEAD


def test_only_the_identifier_is_needed(tmp_path: Path) -> None:
    assert read_tracks(write(tmp_path, "identifier\nx\ny\n")).tracks == (Track("x"), Track("y"))


def test_transforms_in_columns(table: TrackTable) -> None:
    got = table.transforms().invert(np.full((1, 4), 3.0))
    np.testing.assert_allclose(got, [[15.0, 3.0, 15.0, 3.0]])  # (3 + 1)^2 - 1
    np.testing.assert_allclose(table.transforms("none").invert(np.full((1, 4), 3.0)), 3.0)


def test_another_version_that_a_track_does_not_know(table: TrackTable) -> None:
    with pytest.raises(UsageError, match="un-transform new"):
        table.transforms("new")  # d1 has no statistic


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a header"),
        ("name\nx\n", "not a header with the columns identifier"),
        ("identifier\tidentifier\nx\ty\n", "each once"),
        ("identifier\tfile\nx\ty\n", "unknown column 'file'; known: identifier, description"),
        ("identifier\n", "no track"),
        ("identifier\tunits\nx\n", "line 2 has 1 columns, the header 2"),
        ("identifier\tunits\n\tx\n", "line 2: the identifier is empty"),
        ("identifier\nx\ny\nx\n", "'x' stands in 2 rows"),
        ("identifier\trole\nx\tpeak\n", "line 2: role 'peak' is not one of profile, acceptor"),
        ("identifier\ttransform\nx\tsum\n", "line 2: transform 'sum'"),
        ("identifier\tscale\nx\tmany\n", "line 2: scale 'many' is not a number"),
        ("identifier\tscale\nx\t0\n", "scale '0' is not a number above 0"),
        ("identifier\tclip_soft\nx\tinf\n", "clip_soft 'inf' is not a number above 0"),
        ("identifier\tstrand_pair\nx\ty\n", "'x' has the strand_pair 'y', which is no identifier"),
        ("identifier\tstrand_pair\nx\ty\ny\t\n", "pairs are mutual"),
        ("identifier\tstrand_pair\nx\ty\ny\tz\nz\ty\n", "pairs are mutual"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_tracks(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such table"):
        read_tracks(tmp_path / "none.tsv")
    (tmp_path / "bytes.tsv").write_bytes(b"identifier\n\xff\n")
    with pytest.raises(InputError, match="cannot be read"):
        read_tracks(tmp_path / "bytes.tsv")


def test_a_tab_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'x' has a tab"):
        write_tracks(TrackTable((Track("x", "a\tb"),)), tmp_path / "t.tsv")


def test_targets_of_baskerville(tmp_path: Path) -> None:
    table = read_targets(write(tmp_path, TARGETS, "targets.txt"), "new")
    rule = Transform("new", "sum_sqrt")
    assert table.tracks[0] == Track(
        "x+", "RNA:liver: adult", "RNA", "liver: adult", "x-", "", "profile", rule, 384.0, 0.3
    )
    assert table.tracks[1] == Track(
        "y", "CHIP:H3K4me3:K562", "CHIP", "K562", transform=Transform("new", "mean"),
        clip_soft=32.0, scale=2.0,
    )  # fmt: skip
    write_tracks(table, tmp_path / "tracks.tsv")
    assert "secret" not in (tmp_path / "tracks.tsv").read_text()


def test_targets_of_enformer(tmp_path: Path) -> None:
    text = (
        "index\tgenome\tidentifier\tfile\tclip\tscale\tsum_stat\tdescription\n"
        "0\t0\tENCFF1\t/secret/1.w5\t32\t2\tmean\tDNASE:liver\n"
    )
    [track] = read_targets(write(tmp_path, text), "none").tracks
    assert track == Track(
        "ENCFF1", "DNASE:liver", "DNASE", "liver", transform=Transform("none", "mean"), scale=2.0
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\tidentifier", "identifier", "columns index, identifier"),
        ("sum_sqrt\t7", "sum_sqrt\t9", "line 2: strand_pair '9' is no index"),
        ("sum_sqrt\t5", "sum_sqrt\t6", "pairs are mutual"),
        ("mean", "peak", "line 3: transform 'new:peak'"),
    ],
)
def test_targets_that_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_targets(write(tmp_path, TARGETS.replace(old, new, 1)), "new")


def test_targets_of_the_real_small_borzoi(shared_dir: Path) -> None:
    table = read_targets(shared_dir / "models" / "mini_borzoi" / "targets.txt", "new")
    assert len(table) == 74
    # 27 pairs and 20 tracks without a strand.
    assert len(table.merged[0]) == 47
    assert table.merged_identifiers[:2] == ("CNhs10752+", "CNhs10853+")
    assert {t.assay for t in table.tracks} >= {"CAGE", "RNA3", "DNASE"}
    assert len(info_names(table.identifiers)) == 74


CHOICES: list[tuple[TrackChoice, list[int]]] = [
    (TrackChoice(), [0, 1, 2, 3]),
    (TrackChoice(regexes=("^d",)), [1]),
    (TrackChoice(regexes=("K562",)), [1]),  # in the description
    (TrackChoice(regexes=(r"\+$",)), [0, 2]),  # the other strand comes along
    (TrackChoice(assays=("cage",)), [0, 2]),
    (TrackChoice(assays=("DNASE", "splice")), [1, 3]),
    (TrackChoice(biosamples=("liver",)), [0, 2, 3]),
    (TrackChoice(biosamples=("liver",), assays=("splice",)), [3]),
    (TrackChoice(biosamples=("liver",), regexes=("^[ad]",)), [0, 2]),
]


@pytest.mark.parametrize(("choice", "wanted"), CHOICES)
def test_choosing(table: TrackTable, choice: TrackChoice, wanted: list[int]) -> None:
    got = choose_tracks(table, choice)
    assert got.tolist() == wanted
    assert table.take(got).identifiers == tuple(table.identifiers[i] for i in wanted)


def test_choosing_by_file_keeps_the_order_of_the_table(table: TrackTable, tmp_path: Path) -> None:
    path = write(tmp_path, "# mine\ns\tsplice\r\n\n  a+  \n", "mine.txt")
    assert choose_tracks(table, TrackChoice(files=(str(path),))).tolist() == [0, 2, 3]


@pytest.mark.parametrize(
    ("choice", "parts"),
    [
        (TrackChoice(regexes=("(",)), ["--track-regex (", "no regular expression"]),
        (TrackChoice(regexes=("zebra",)), ["zebra", "a+, a-, d1, s"]),
        (TrackChoice(assays=("CAG",)), ["--assay CAG", "mean 'CAGE'", "CAGE, DNASE, splice"]),
        (TrackChoice(biosamples=("brain",)), ["--biosample brain", "K562, liver"]),
        (TrackChoice(assays=("DNASE",), biosamples=("liver",)), ["--assay DNASE, --biosample"]),
    ],
)
def test_choices_that_are_refused(table: TrackTable, choice: TrackChoice, parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        choose_tracks(table, choice)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a+\nd11\n", "line 2: unknown track 'd11'; did you mean 'd1'"), ("#\n", "no track in it")],
)
def test_files_of_tracks_that_are_refused(
    table: TrackTable, tmp_path: Path, text: str, message: str
) -> None:
    path = write(tmp_path, text, "mine.txt")
    with pytest.raises(InputError, match=message):
        choose_tracks(table, TrackChoice(files=(str(path),)))
    with pytest.raises(GlmAnnotateError, match="cannot be read"):
        choose_tracks(table, TrackChoice(files=(str(tmp_path / "none"),)))


def test_names_for_info_keys() -> None:
    names = info_names(["CNhs1+", "CNhs1-", "liver (adult)", "p53_1", "é-a"])
    assert names == ("CNhs1_plus", "CNhs1_minus", "liver__adult_", "p53_1", "__minusa")
    with pytest.raises(UsageError, match=r"'a b' and 'a\.b' would both be a_b"):
        info_names(["a b", "c", "a.b"])
