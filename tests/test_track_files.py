"""Files of tracks: read back by two libraries, against a dictionary filled base by base."""

from __future__ import annotations

import gzip
import math
import os
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyBigWig
import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_annotate import track_files
from glm_annotate.errors import GlmAnnotateError, InputError, UsageError
from glm_annotate.track_files import TrackFile, TrackSet, file_names, open_track

NAN, INF = math.nan, math.inf
CONTIGS = {"chr2": 1000, "chr10": 777, "chr1": 60}  # neither sorted nor of a whole number of bins
Bases = dict[tuple[str, int], float]


class Call(NamedTuple):
    """One call of `add`."""

    contig: str
    start: int
    values: list[float]
    span: int = 1


def write(path: Path, calls: Iterable[Call], contigs: dict[str, int] = CONTIGS) -> Path:
    with open_track(str(path), contigs, force=False) as track:
        for contig, start, values, span in calls:
            track.add(contig, start, np.array(values, dtype=np.float64), span)
    return path


def bases_of(calls: Iterable[Call], contigs: dict[str, int] = CONTIGS) -> Bases:
    """Fill in base by base what files of 32-bit floats should hold."""
    out: Bases = {}
    for contig, start, values, span in calls:
        for i, value in enumerate(values):
            for base in range(start + i * span, start + (i + 1) * span):
                if base < contigs[contig] and not math.isnan(value):
                    out[contig, base] = float(np.float32(value))
    return out


def spread(lines: Iterable[tuple[str, int, int, float]]) -> Bases:
    out: Bases = {}
    for contig, start, end, value in lines:
        for base in range(start, end):
            assert (contig, base) not in out
            out[contig, base] = value
    return out


def by_pybigwig(path: Path) -> Bases:
    file = pyBigWig.open(str(path))
    lines = [(c, *x) for c in file.chroms() for x in file.intervals(c) or ()]
    file.close()
    return spread(lines)


def by_pybigtools(path: Path) -> Bases:
    file = pytest.importorskip("pybigtools").open(str(path))
    return spread([(c, *x) for c in file.chroms() for x in file.records(c)])


def head_of(path: Path) -> tuple[int, int, float, float]:
    """Read zoom levels, covered bases, smallest and largest value, without a library.

    The `header` of pyBigWig crashes where squares overflow.
    """
    data = path.read_bytes()
    magic, _, levels = struct.unpack_from("<IHH", data)
    (summary,) = struct.unpack_from("<Q", data, 44)
    assert magic == 0x888FFC26
    return levels, *struct.unpack_from("<Qdd", data, summary)


def lines_of(path: Path) -> list[list[str]]:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [x.split("\t") for x in text.decode().splitlines()]


def by_bedgraph(path: Path) -> Bases:
    return spread([(c, int(a), int(b), float(v)) for c, a, b, v in lines_of(path)])


READERS = [("bw", by_pybigwig), ("bigWig", by_pybigtools), ("bg", by_bedgraph)]
READERS += [("bedgraph.gz", by_bedgraph)]
CALLS = [
    Call("chr2", 0, [1.5, NAN, NAN, -2.25, -2.25]),
    Call("chr2", 5, [0.0, 3e38, 1e-30], 32),  # no gap, another span
    Call("chr2", 904, [7, 8, 9, 10], 32),  # one whole, two, a clipped and none
    Call("chr10", 776, [0.5]),
    Call("chr1", 10, [NAN] * 10),
    Call("chr1", 20, [], 4),
    Call("chr1", 20, [0.125] * 20, 2),  # up to the end
]


@pytest.fixture(params=READERS, ids=[x for x, _ in READERS])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_every_base_comes_back(tmp_path: Path, kind: Any) -> None:
    ending, read = kind
    path = write(tmp_path / f"x.{ending}", CALLS)
    found = read(path)
    assert found == pytest.approx(bases_of(CALLS), rel=0 if ending[0:2] == "b" else 1e-6)
    assert found["chr2", 999] == 9
    assert ("chr2", 1) not in found
    assert ("chr2", 903) not in found


@st.composite
def calls(draw: st.DrawFn) -> list[Call]:
    """Draw ordered calls with gaps, NaN, spans, bins past the end, few values and many."""
    out = []
    number = st.one_of(st.just(NAN), st.floats(width=32, allow_nan=False, allow_infinity=False))
    for contig, length in CONTIGS.items():
        at = 0
        for _ in range(draw(st.integers(0, 4))):
            at += draw(st.integers(0, 30))
            if at >= length:
                break
            span = draw(st.sampled_from([1, 1, 3, 32]))
            values = draw(st.lists(number, max_size=12)) * draw(st.sampled_from([1, 1, 30]))
            out.append(Call(contig, at, values, span))
            at += len(values) * span
    return out


@given(given_calls=calls(), waiting=st.sampled_from([1, 7, 300, 1 << 16]), run=st.integers(1, 40))
def test_random_runs_come_back(given_calls: list[Call], waiting: int, run: int) -> None:
    # Small buffers and runs, so that blocks begin and end everywhere.
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr("glm_annotate.track_sinks._RUN", run)
        patch.setattr("glm_annotate.track_sinks._READ", 50)
        path = Path(folder, "x.bw")
        with TrackFile(str(path), CONTIGS, force=False, buffer=waiting) as track:
            for contig, start, values, span in given_calls:
                track.add(contig, start, np.array(values, dtype=np.float64), span)
        wanted = bases_of(given_calls)
        assert by_pybigwig(path) == wanted
        if wanted:
            levels, *summary = head_of(path)
            assert levels > 0
            assert summary == [len(wanted), min(wanted.values()), max(wanted.values())]


@pytest.mark.parametrize("waiting", [1000, 1 << 16])
def test_calls_of_one_value_make_the_same_file(tmp_path: Path, waiting: int) -> None:
    """Blocks do not depend on how values were cut into calls."""
    values = np.random.default_rng(1).normal(size=3000)
    values[100:180] = values[2000] = NAN
    contigs = {"c": 5000}
    for name, cut in (("one", 1), ("all", 3000), ("odd", 77)):
        with TrackFile(str(tmp_path / f"{name}.bw"), contigs, force=False, buffer=waiting) as track:
            for at in range(0, 3000, cut):
                track.add("c", at, values[at : at + cut])
    first = (tmp_path / "one.bw").read_bytes()
    assert first == (tmp_path / "all.bw").read_bytes() == (tmp_path / "odd.bw").read_bytes()


def test_zoom_levels_give_means_and_extremes(tmp_path: Path) -> None:
    pybigtools = pytest.importorskip("pybigtools")
    # Slow waves: bins of zoom levels straddle the edges of bins asked for.
    values = np.sin(np.arange(200_000) / 7000) + np.arange(200_000) / 100_000
    values[50_000:60_000] = NAN
    path = write(tmp_path / "x.bw", [Call("c", 0, values.tolist())], {"c": 200_000})
    file = pyBigWig.open(str(path))
    assert head_of(path)[0] >= 2
    for summary, of in (("mean", np.mean), ("max", np.max), ("min", np.min)):
        wanted = [of(values[i : i + 10_000]) for i in range(0, 200_000, 10_000)]
        ours = file.stats("c", 0, 200_000, type=summary, nBins=20)
        theirs = pybigtools.open(str(path)).values("c", 0, 200_000, 20, summary, False, fillna=None)
        for i in range(20):
            if i == 5:
                assert ours[5] is None
                assert math.isnan(theirs[5])
                continue
            assert ours[i] == pytest.approx(wanted[i], abs=0.1)
            assert theirs[i] == pytest.approx(wanted[i], abs=0.1)


def test_thousand_contigs_out_of_order(tmp_path: Path) -> None:
    names = [f"s{i * 389 % 1000}" for i in range(1000)]
    contigs = dict.fromkeys(names, 10)
    made = [Call(name, 2, [float(name[1:])]) for name in names[::3]]
    path = write(tmp_path / "x.bw", made, contigs)
    assert by_pybigwig(path) == by_pybigtools(path) == bases_of(made, contigs)
    assert list(pyBigWig.open(str(path)).chroms()) == names


@pytest.mark.parametrize("ending", ["bw", "bedgraph", "bg.gz"])
def test_no_values_are_a_valid_file(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"x.{ending}", [Call("chr2", 5, [NAN, NAN])])
    if ending == "bw":
        file = pyBigWig.open(str(path))
        assert file.chroms() == CONTIGS
        assert file.intervals("chr2") is None
        file.close()
    else:
        assert lines_of(path) == []


# --- bedGraph ----------------------------------------------------------------------------------


def test_bedgraph_joins_equal_neighbours_only(tmp_path: Path) -> None:
    made = [
        Call("chr2", 0, [1, 1, 2, NAN, 2, 1 / 3, 0.3333334]),
        Call("chr2", 7, [0.333333333], 32),
        Call("chr10", 0, [1234567.0, -0.0, 1e-9]),
        Call("chr1", 3, [1e-9]),
    ]
    wanted = """\
chr2 0 2 1
chr2 2 3 2
chr2 4 5 2
chr2 5 39 0.333333
chr10 0 1 1.23457e+06
chr10 1 2 0
chr10 2 3 1e-09
chr1 3 4 1e-09
"""
    path = write(tmp_path / "x.bedgraph", made)
    assert path.read_text() == wanted.replace(" ", "\t")


@pytest.mark.parametrize(("length", "index"), [(10_000, ".tbi"), (600_000_000, ".csi")])
def test_packed_bedgraph_is_indexed(tmp_path: Path, length: int, index: str) -> None:
    path = tmp_path / "x.bg.gz"
    stale = Path(str(path) + {".tbi": ".csi", ".csi": ".tbi"}[index])
    for name in (path, stale):
        name.write_bytes(b"old")
    contigs = {"a": length, "b": 500}
    with open_track(str(path), contigs, force=True) as track:
        track.add("a", length - 300, np.arange(300.0))
        track.add("b", 0, np.arange(500.0))
    assert sorted(os.listdir(tmp_path)) == sorted([path.name, path.name + index])
    with pysam.TabixFile(str(path), index=str(path) + index) as tabix:
        rows = [x.split("\t") for x in tabix.fetch("a", length - 3, length)]
        assert [x[3] for x in rows] == ["297", "298", "299"]
        assert next(tabix.fetch("b", 499, 500)).split("\t") == ["b", "499", "500", "499"]


def test_bedgraph_to_stdout(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with open_track("-", CONTIGS, force=False) as track:
        track.add("chr2", 3, np.array([0.5]))
    assert capfdbinary.readouterr().out == b"chr2\t3\t4\t0.5\n"


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["bw", "bg"])
@pytest.mark.parametrize(
    ("bad", "place"),
    [(INF, "inf at chr2:213"), (-INF, "-inf at chr2:213"), (3.5e38, "3.5e+38 at chr2:213")],
)
def test_infinities_are_refused(tmp_path: Path, ending: str, bad: float, place: str) -> None:
    made = [Call("chr2", 0, [1.0]), Call("chr2", 200, [NAN, NAN, NAN, bad], 4)]
    with pytest.raises(InputError, match=re.escape(place)):
        write(tmp_path / f"x.{ending}", made)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (Call("chr2", 9, [1]), "chr2:9-10 comes after chr2:5-10"),
        (Call("chr2", 0, [1, 1], 2), "chr2:0-4 comes after chr2:5-10"),
        (Call("chr9", 20, [1]), "chr9 is no contig"),
        (Call("chr2", 20, [1], 0), "bins of 0 from chr2:20"),
        (Call("chr2", -1, [1]), "bins of 1 from chr2:-1"),
    ],
)
def test_disorder_is_an_error_of_ours(tmp_path: Path, second: Call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        write(tmp_path / "x.bw", [Call("chr2", 5, [NAN] * 5), second])
    assert os.listdir(tmp_path) == []


def test_contigs_come_in_their_order(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="chr2:900-901 comes after chr10:3-4"):
        write(tmp_path / "x.bw", [Call("chr10", 3, [1]), Call("chr2", 900, [1])])


def test_an_existing_file_needs_force(tmp_path: Path) -> None:
    path = tmp_path / "x.bw"
    path.write_text("old")
    path.chmod(0o640)
    with pytest.raises(InputError, match="is there already; --force"):
        open_track(str(path), CONTIGS, force=False)
    assert path.read_text() == "old"
    with open_track(str(path), CONTIGS, force=True) as track:
        track.add("chr2", 0, np.ones(3))
    assert len(by_pybigwig(path)) == 3
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("path", "error", "said"),
    [
        ("x.txt", UsageError, "unknown kind of track; names end in .bw"),
        ("x.gz", UsageError, "unknown kind"),
        ("no/x.bw", InputError, "cannot be made: No such file"),
        ("no/x.bg", InputError, "cannot be made: No such file"),
    ],
)
def test_names_are_refused(
    tmp_path: Path, path: str, error: type[GlmAnnotateError], said: str
) -> None:
    with (
        pytest.raises(error, match=said) as caught,
        open_track(str(tmp_path / path), CONTIGS, force=False),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_a_bigwig_to_a_pipe_is_refused(tmp_path: Path) -> None:
    fifo = tmp_path / "x.bw"
    os.mkfifo(fifo)
    with pytest.raises(UsageError, match="cannot be written to a pipe"):
        open_track(str(fifo), CONTIGS, force=False)


def test_missing_pybigwig_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyBigWig", None)
    with pytest.raises(UsageError, match="pip install pyBigWig"):
        write(tmp_path / "x.bw", [])
    assert os.listdir(tmp_path) == []


# --- all or nothing ----------------------------------------------------------------------------


@pytest.fixture(params=["bw", "bg", "bg.gz"])
def ending(request: pytest.FixtureRequest) -> Iterator[str]:
    return request.param


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_an_interruption_leaves_nothing(
    tmp_path: Path, ending: str, stop: type[BaseException]
) -> None:
    path = tmp_path / f"x.{ending}"
    path.write_text("old")

    def run() -> None:
        with open_track(str(path), CONTIGS, force=True) as track:
            track.add("chr2", 0, np.ones(900))
            assert len(os.listdir(tmp_path)) == 2
            raise stop

    with pytest.raises(stop):
        run()
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    "harm",
    [
        lambda values: values[:-1],
        lambda values: np.delete(values, 1),
        lambda values: values + np.array([0, 0, 0.5], dtype=np.float32),
        lambda values: values + np.array([0.5, 0, 0], dtype=np.float32),
    ],
)
def test_what_cannot_be_read_again_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Any], Any]
) -> None:
    """A value that is lost or changed on its way to the file is noticed."""
    real = pyBigWig.open

    class Lossy:
        def __init__(self, *args: str) -> None:
            self.file = real(*args)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def addEntries(self, *args: Any, values: Any, **more: Any) -> None:
            self.file.addEntries(*args, values=harm(values), **more)

    monkeypatch.setattr(pyBigWig, "open", lambda *args: Lossy(*args))
    with pytest.raises(InputError, match="cannot be read again"):
        write(tmp_path / "x.bw", [Call("chr2", 0, [1.0, 2.0, 3.0])])
    assert os.listdir(tmp_path) == []


FULL = """
import resource, signal, sys
import numpy as np
from glm_annotate.errors import InputError
from glm_annotate.track_files import open_track
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (9_000_000, 9_000_000))
values = np.random.default_rng(0).normal(size=100_000)
try:
    with open_track(sys.argv[1], {"c": 100_000_000}, force=False) as track:
        for i in range(40):
            track.add("c", i * 100_000, values)
except InputError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize(
    ("ending", "said"), [("bw", "under the limit of ulimit -f"), ("bg", "File too large")]
)
def test_no_room_is_one_line(tmp_path: Path, ending: str, said: str) -> None:
    """pyBigWig would end the process (munmap_chunk: invalid pointer)."""
    line = [sys.executable, "-c", FULL, str(tmp_path / f"x.{ending}")]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []


# --- sets --------------------------------------------------------------------------------------

NAMES = ("DNASE:K562+", "DNASE:K562-", "a/b c%")


def write_set(folder: Path, values: Any) -> None:
    with TrackSet(str(folder), NAMES, CONTIGS, force=False) as tracks:
        tracks.add("chr2", 0, values)


def test_a_set_writes_a_file_a_track(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    values = np.random.default_rng(3).normal(size=(500, 3)).round(3)
    values[10:20, 1] = NAN
    with TrackSet(str(folder), NAMES, CONTIGS, force=False) as tracks:
        tracks.add("chr2", 0, values[:200], 2)
        tracks.add("chr2", 400, values[200:], 2)
        assert all(x.startswith(".") for x in os.listdir(folder))
    names = ["DNASE_K562_plus.bw", "DNASE_K562_minus.bw", "a_b_c_.bw"]
    assert sorted(os.listdir(folder)) == sorted(names)
    for column, name in enumerate(names):
        wanted = bases_of([Call("chr2", 0, values[:, column].tolist(), 2)])
        assert by_pybigwig(folder / name) == wanted


@pytest.mark.parametrize("there", [False, True])
def test_a_set_is_all_or_nothing(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "out"
    if there:
        folder.mkdir()
    values = np.ones((9, 3))
    values[8, 1] = INF

    with pytest.raises(InputError, match="DNASE:K562-: inf at chr2:9;"):
        write_set(folder, values)
    assert folder.exists() == there
    assert not there or os.listdir(folder) == []


def test_no_file_of_a_set_is_named_before_all_are_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal = TrackFile.seal

    def fail_last(file: TrackFile) -> None:
        seal(file)
        if file.name == NAMES[-1]:
            raise InputError("full")

    monkeypatch.setattr(TrackFile, "seal", fail_last)
    with pytest.raises(InputError, match="full"):
        write_set(tmp_path, np.ones((9, 3)))
    assert os.listdir(tmp_path) == []


def test_a_set_refuses_existing_files_first(tmp_path: Path) -> None:
    (tmp_path / "b.bw").write_text("old")
    with pytest.raises(InputError, match=r"b\.bw: is there already"):
        TrackSet(str(tmp_path), ["a", "b"], CONTIGS, force=False)


@pytest.mark.parametrize("names", [("a+", "a_plus"), ("x", "X"), ("a b", "a_b"), ("t", "t")])
def test_colliding_names_are_refused(names: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="would both go to a file"):
        file_names(names)


@pytest.mark.parametrize(("hard", "hint"), [(100, False), (5000, True)])
def test_too_many_files_name_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hard: int, hint: bool
) -> None:
    monkeypatch.setattr(track_files.resource, "getrlimit", lambda which: (100, hard))
    TrackSet(str(tmp_path), [str(i) for i in range(36)], CONTIGS, force=False)
    with pytest.raises(UsageError, match="at most 36 with --track-regex") as caught:
        TrackSet(str(tmp_path), [str(i) for i in range(37)], CONTIGS, force=False)
    assert ("ulimit -n 101" in str(caught.value)) == hint


def test_buffers_of_a_set_share_their_bound(tmp_path: Path) -> None:
    few = TrackSet(str(tmp_path), ["a", "b"], CONTIGS, force=False)
    many = TrackSet(str(tmp_path), [str(i) for i in range(900)], CONTIGS, force=False)
    for tracks in (few, many):
        waiting = sum(file._size for file in tracks.files.values())
        assert waiting * track_files._VALUE_BYTES <= track_files.SET_BYTES
