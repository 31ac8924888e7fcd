"""Writing records: splicing, headers, numbers, files that are whole or not there, and BCF."""

from __future__ import annotations

import gzip
import json
import math
import os
import resource
import signal
import stat
import subprocess
import sys
import threading

import numpy as np
import pysam
import pysam.bcftools as pysam_bcftools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_annotate.bgzf import EOF_BLOCK
from glm_annotate.chunks import Chunk, parse
from glm_annotate.errors import InputError, UsageError
from glm_annotate.header import (
    clashing,
    declared,
    extend_header,
    fields_of,
    info_line,
    refuse_clashes,
    refuse_keys_in,
    run_lines,
    structured_line,
    without_samples,
)
from glm_annotate.records import open_input
from glm_annotate.vcf import (
    VcfWriter,
    atomic_file,
    check_index,
    check_output,
    format_floats,
    output_type,
    percent_encode,
    splice,
)

HEADER = (
    b"##fileformat=VCFv4.2",
    b'##FILTER=<ID=PASS,Description="All filters passed">',
    b"##contig=<ID=1>",
    b'##INFO=<ID=DP,Number=1,Type=Integer,Description="Depth, or \\"depth\\"">',
    b'##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">',
    b"##source=somewhere",
    b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO",
)
# What a child process needs to write the same records.
_PRELUDE = f"""
import sys
from glm_annotate.vcf import VcfWriter
HEADER = {HEADER!r}
def sites(count):
    row = b"1\\t%d\\t.\\tA\\tC\\t.\\tPASS\\tDP=%d\\n"
    return [row % (i, i * 7919 % 1009) for i in range(1, count + 1)]
"""
OURS = info_line("TOY_LLR", "A", "Float", 'a "quoted", \\ description', "0.1")


def chunk_of(*lines: bytes) -> Chunk:
    return parse("in.vcf", "line", b"".join(lines), 1)


def sites(count: int) -> list[bytes]:
    return [b"1\t%d\t.\tA\tC\t.\tPASS\tDP=%d\n" % (i, i * 7919 % 1009) for i in range(1, count + 1)]


def write_often(out: VcfWriter, lines: list[bytes], error: BaseException | None = None) -> None:
    for _ in range(20):
        out.write(lines)
    if error is not None:
        raise error


def run_bcftools(*args: object) -> bytes:
    return subprocess.run([str(x) for x in args], check=True, capture_output=True).stdout


def run_python(script: str, *args: object, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, args)], capture_output=True, **options
    )


# --- splicing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"1\t5\t.\tA\tC\t.\t.\t.\n", b"1\t5\t.\tA\tC\t.\t.\tX=1\n"),
        (b"1\t5\t.\tA\tC\t.\t.\t\n", b"1\t5\t.\tA\tC\t.\t.\tX=1\n"),
        (b"1\t5\t.\tA\tC\t.\t.\tDP=3\n", b"1\t5\t.\tA\tC\t.\t.\tDP=3;X=1\n"),
        (b"1\t5\t.\tA\tC\t.\t.\tDP=3;\n", b"1\t5\t.\tA\tC\t.\t.\tDP=3;X=1\n"),
        (b"1\t5\t.\tA\tC\t.\t.\tDP=3\r\n", b"1\t5\t.\tA\tC\t.\t.\tDP=3;X=1\r\n"),
        (b"1\t5\t.\tA\tC\t.\t.\t.\r\n", b"1\t5\t.\tA\tC\t.\t.\tX=1\r\n"),
        (b"1\t5\t.\tA\tC\t.\t.\tDP=3", b"1\t5\t.\tA\tC\t.\t.\tDP=3;X=1"),
        (
            b"1\t5\t \tA\tC\t3.0\t.\tDP=3\tGT\t.\t0/1\n",
            b"1\t5\t \tA\tC\t3.0\t.\tDP=3;X=1\tGT\t.\t0/1\n",
        ),
        (b"1\t5\t.\tA\tC\t.\t.\t.\tGT\t\xe9\r\n", b"1\t5\t.\tA\tC\t.\t.\tX=1\tGT\t\xe9\r\n"),
        (b"1\t5\t.\tA\tC\t.\t.\tDP\t\n", b"1\t5\t.\tA\tC\t.\t.\tDP;X=1\t\n"),
    ],
)
def test_splice(line, expected):
    assert splice(chunk_of(line), [b"X=1"]) == [expected]
    assert splice(chunk_of(line), [b""]) == [line]


@pytest.mark.parametrize(
    ("info", "left"),
    [
        (b"A_X=1", b""),
        (b"A_X=1;DP=3", b"DP=3;"),
        (b"DP=3;A_X;A_Y=.,2;Q=1", b"DP=3;Q=1;"),
        (b"DP=3;BA_X=1;A_XX=2", b"DP=3;BA_X=1;A_XX=2;"),
        (b"S=A_X", b"S=A_X;"),
    ],
)
@pytest.mark.parametrize("rest", [b"\n", b"\r\n", b"\tGT\t0/1\n", b""])
def test_splice_overwrites(info, left, rest):
    start = b"1\t5\t.\tA\tC\t.\t.\t"
    chunk = chunk_of(start + info + rest)
    out = splice(chunk, [b"A_X=9"], remove=frozenset({b"A_X", b"A_Y"}))
    assert out == [start + left + b"A_X=9" + rest]
    # Without a new value the old one goes all the same.
    (bare,) = splice(chunk, [b""], remove=frozenset({b"A_X", b"A_Y"}))
    assert bare == start + (left.removesuffix(b";") or b".") + rest


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b""])
def test_splice_sites_only(ending):
    start = b"1\t5\t.\tA\tC\t.\t.\t"
    chunk = chunk_of(start + b"DP=3\tGT\t0/1\t.\n", start + b".\tGT\t0/1\t1" + ending)
    out = splice(chunk, [b"", b"X=1"], sites_only=True)
    assert out == [start + b"DP=3\n", start + b"X=1" + ending]
    assert without_samples((b"##x", HEADER[-1] + b"\tFORMAT\ta\tb")) == (b"##x", HEADER[-1])


# --- numbers and strings -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, b"0"),
        (-0.0, b"0"),
        (1.0, b"1"),
        (-3.14159265, b"-3.14159"),
        (1e-7, b"1e-07"),
        (123456789.0, b"1.23457e+08"),
        (math.nan, b"."),
        (math.inf, b"."),
        (-math.inf, b"."),
        (1e39, b"."),  # infinite in BCF
    ],
)
def test_format_floats(value, text):
    assert format_floats(np.array([value])) == [text]


@given(st.lists(st.floats(allow_subnormal=False), max_size=50))
def test_format_floats_keeps_six_digits(values):
    out = format_floats(np.array(values))
    assert len(out) == len(values)
    for value, text in zip(values, out, strict=True):
        if text == b".":
            assert not abs(value) < 3.4e38
        else:
            assert float(text) == pytest.approx(value, rel=5e-6)
            assert len(text.split(b"e")[0].strip(b"-").replace(b".", b"").lstrip(b"0")) <= 6


def test_percent_encode():
    assert percent_encode("a b;c=d:e,f%\t\r\n|é") == (
        b"a%20b%3Bc%3Dd%3Ae%2Cf%25%09%0D%0A|" + "é".encode()
    )


# --- headers -------------------------------------------------------------------------------------


def test_info_goes_after_the_last_info_line():
    model = structured_line("glm_annotateModel", "toy", {"Version": "1.0", "Note": 'a,"b"'})
    out = extend_header(HEADER, [OURS], [model], contigs={"9": 5})
    assert out == (*HEADER[:4], OURS, *HEADER[4:-1], model, HEADER[-1])
    assert model == b'##glm_annotateModel=<ID=toy,Version="1.0",Note="a,\\"b\\"">'


def test_info_goes_before_the_columns_where_there_is_none():
    assert extend_header((b"##x", HEADER[-1]), [OURS]) == (b"##x", OURS, HEADER[-1])
    assert extend_header((HEADER[-1],), [OURS]) == (OURS, HEADER[-1])


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("known", [True, False])
def test_contigs_are_added_for_bcf_or_where_there_is_none(binary, known):
    head = tuple(x for x in HEADER if known or not x.startswith(b"##contig"))
    out = extend_header(head, [], contigs={"1": 7, "2": 9}, binary=binary)
    added = [x for x in out if x not in head]
    one, two = b"##contig=<ID=1,length=7>", b"##contig=<ID=2,length=9>"
    assert added == ([] if known and not binary else [two] if known else [one, two])


def test_overwrite_replaces_our_lines_only():
    old = info_line("TOY_LLR", "A", "Float", "old", "0.0")
    model = structured_line("glm_annotateModel", "toy", {"Version": "0"})
    other = structured_line("glm_annotateModel", "other", {"Version": "0"})
    head = (*HEADER[:4], old, *HEADER[4:-1], model, other, HEADER[-1])
    new = structured_line("glm_annotateModel", "toy", {"Version": "1"})
    out = extend_header(head, [OURS], [new], overwrite=True)
    assert out == (*HEADER[:4], OURS, *HEADER[4:-1], other, new, HEADER[-1])


def test_declared_reads_what_others_write():
    found = declared(
        (
            b'##INFO=<Description="x, ID=no, \\"ID=no\\"",ID=A,Number=1>\r',
            b"##INFO=<ID=B>",
            b'##FORMAT=<ID=GT,Description="\xe9=<>">',
            b'##FILTER=<ID=q10,Description="">',
            b"##contig=<ID=chr1,length=5,URL=ftp://x?a=b>",
            b"##INFO=garbage",
            b"##ID=<ID=no>",
            *HEADER[-1:],
        )
    )
    assert found.info == {b"A", b"B"}
    assert found.format == {b"GT"}
    assert found.filter == {b"PASS", b"q10"}
    assert found.contig == {b"chr1"}


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Z"]), max_size=20))
def test_quoting_comes_back(text):
    parsed = fields_of(structured_line("x", "id", {"a": text, "b": "end"}))
    assert parsed == (b"x", {b"ID": b"id", b"a": text.encode(), b"b": b"end"})


def test_clashes_name_the_mending_command():
    head = extend_header(HEADER, [OURS])
    assert clashing(head, ["TOY_LLR", "TOY_PLLR"]) == ["TOY_LLR"]
    with pytest.raises(InputError, match=r"--overwrite.*bcftools annotate -x INFO/TOY_LLR in\.vcf"):
        refuse_clashes("in.vcf", head, ["TOY_LLR", "TOY_PLLR"])
    refuse_clashes("in.vcf", HEADER, ["TOY_LLR"])


def test_undeclared_keys_of_ours_in_records():
    start = b"1\t%d\t.\tA\tC\t.\t.\t%b\n"
    fine = chunk_of(start % (1, b"DP=1;TOY_OTHER=2"), start % (2, b"S=TOY_LLR"))
    refuse_keys_in("in.vcf", fine, ["TOY_LLR"])
    chunk = chunk_of(start % (1, b"DP=1"), start % (2, b"DP=1;TOY_LLR=2"))
    with pytest.raises(InputError, match=r"line 2 \(1:2\) has INFO TOY_LLR .*annotate -x"):
        refuse_keys_in("in.vcf", chunk, ["TOY_LLR"])


def test_bcftools_keeps_all_our_lines(tmp_path, bcftools):
    lines = (
        structured_line("glm_annotateModel", "toy", {"Sha256": "ab", "Text": 'a,"b"<>=\\', "L": 5}),
        *run_lines("0.1", ["vcf", "in file.vcf", "-s", "LLR,PLLR"], "2024-01-01"),
    )
    path = tmp_path / "out.bcf"
    with VcfWriter(str(path), "b", extend_header(HEADER, [OURS], lines)) as out:
        out.write(sites(3))
    shown = run_bcftools(bcftools, "view", "-h", path).splitlines()
    assert set(lines) <= set(shown)
    assert OURS in shown
    assert lines[2] == b"##glm_annotateCommand=vcf 'in file.vcf' -s LLR,PLLR; Date=2024-01-01"


# --- what is written -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", "vzub")
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_every_type_holds_all_records(tmp_path, bcftools, kind, newline):
    path = tmp_path / "out.dat"
    lines = [x.replace(b"\n", newline) for x in sites(5000)]
    with VcfWriter(str(path), kind, HEADER, newline=newline) as out:
        for i in range(0, 5000, 700):
            out.write(lines[i : i + 700])
    expected = b"".join(sites(5000))
    if kind in "vz":
        data = path.read_bytes()
        whole = gzip.decompress(data) if kind == "z" else data
        assert whole == b"".join(x + newline for x in HEADER) + b"".join(lines)
    # Newer than the bcftools of some systems, and what the users' programs link to.
    assert pysam_bcftools.view("-H", str(path)).encode() == expected
    assert run_bcftools(bcftools, "view", "-H", path).replace(b"\r", b"") == expected
    assert [x.name for x in tmp_path.iterdir()] == ["out.dat"]


def test_threads_write_the_same_bytes(tmp_path):
    lines = sites(30_000)
    for threads in (0, 3):
        with VcfWriter(str(tmp_path / f"{threads}.gz"), "z", HEADER, threads=threads) as out:
            for i in range(0, len(lines), 7000):
                out.write(lines[i : i + 7000])
    assert (tmp_path / "0.gz").read_bytes() == (tmp_path / "3.gz").read_bytes()


@pytest.mark.parametrize("kind", "zb")
def test_filtering_on_our_floats(tmp_path, bcftools, kind):
    rng = np.random.default_rng(4)
    values = rng.normal(-2, 2, (400, 2))
    values[::7, 1] = np.nan
    texts = format_floats(values)
    chunk = chunk_of(*(b"1\t%d\t.\tA\tC,G\t.\t.\t.\n" % i for i in range(1, 401)))
    pairs = zip(texts[::2], texts[1::2], strict=True)
    path = tmp_path / "out.dat"
    with VcfWriter(str(path), kind, extend_header(HEADER, [OURS])) as out:
        out.write(splice(chunk, [b"TOY_LLR=%b,%b" % pair for pair in pairs]))
    below = sum(bool(np.nanmin(row) < -3) for row in values)
    assert below > 100
    assert run_bcftools(bcftools, "view", "-H", "-i", "TOY_LLR<-3", path).count(b"\n") == below


def test_bcf_is_typed_and_adds_nothing(tmp_path, bcftools):
    line = b"1\t10\t.\tA\t<DEL>,G\t30.5\tPASS\tTOY_LLR=-1.5,.\tGT\t0/1\n"
    path = tmp_path / "out.bcf"
    head = extend_header(HEADER, [OURS])
    with VcfWriter(str(path), "b", (*head[:-1], head[-1] + b"\tFORMAT\tS")) as out:
        out.write([line])
    assert run_bcftools(bcftools, "view", "-H", path) == line
    with pysam.VariantFile(str(path)) as handle:
        (record,) = handle
        assert record.info["TOY_LLR"] == (-1.5, None)


@pytest.mark.parametrize(
    ("line", "part"),
    [
        (b"1\t5\t.\tA\tC\t.\t.\tDP=1;XX=2\n", "INFO XX"),
        (b"1\t5\t.\tA\tC\t.\tPASS;q10\t.\n", "FILTER q10"),
        (b"1\t5\t.\tA\tC\t.\t.\t.\tGT:YY\t.\n", "FORMAT YY"),
        (b"2\t5\t.\tA\tC\t.\t.\t.\n", "contig 2"),
    ],
)
@pytest.mark.parametrize("kind", "ub")
def test_bcf_refuses_what_its_header_lacks(tmp_path, line, part, kind):
    path = tmp_path / "out.bcf"
    with (
        pytest.raises(InputError, match=rf"record 2 \(\d:5\): {part} .*-O z"),
        VcfWriter(str(path), kind, HEADER) as out,
    ):
        out.write([sites(1)[0], line])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    [
        b"1\t5\t.\tA\tC\t.\t.\t.\tGT\t0/1\n",
        b"1\t5\t.\tA\tC\t.\t.\t.\n",
        b"1\t5000000000000\t.\tA\tC\t.\t.\t.\tGT\t0/1\t0/1\n",
    ],
)
def test_what_htslib_refuses_is_one_line(tmp_path, line):
    path = tmp_path / "out.bcf"
    with (
        pytest.raises(InputError, match=r"htslib cannot write this as BCF: .*-O z") as caught,
        VcfWriter(str(path), "b", (*HEADER[:-1], HEADER[-1] + b"\tFORMAT\tS\tT")) as out,
    ):
        write_often(out, [line])  # the child dies while it is still being fed
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# --- whole or not there --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", "vzub")
@pytest.mark.parametrize("error", [InputError("stop"), KeyboardInterrupt(), ValueError("bug")])
def test_after_an_error_nothing_is_there(tmp_path, kind, error):
    with (
        pytest.raises(type(error)),
        VcfWriter(str(tmp_path / "out"), kind, HEADER) as out,
    ):
        write_often(out, sites(4000), error)
    assert list(tmp_path.iterdir()) == []


def test_existing_output_and_the_input_itself(tmp_path):
    path = tmp_path / "out.vcf"
    path.write_bytes(b"precious")
    path.chmod(0o640)
    for early in (True, False):
        with pytest.raises(InputError, match=r"out\.vcf: is there already; --force"):
            check_output(str(path), False) if early else VcfWriter(
                str(path), "v", HEADER
            ).__enter__()
    for fine in (None, "-", "/dev/null", str(tmp_path / "new.vcf")):
        check_output(fine, False)
    link = tmp_path / "link.vcf"
    link.symlink_to(path)
    with pytest.raises(InputError, match="is the input itself"):
        VcfWriter(str(link), "v", HEADER, force=True, source=str(path)).__enter__()
    assert path.read_bytes() == b"precious"
    with pytest.raises(ValueError, match="bug"), VcfWriter(str(path), "v", HEADER, force=True):
        raise ValueError("bug")
    assert path.read_bytes() == b"precious"
    with VcfWriter(str(link), "v", HEADER, force=True) as out:
        out.write(sites(1))
    # The link stays a link, the mode stays the mode.
    assert link.is_symlink()
    assert path.read_bytes().endswith(sites(1)[0])
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_new_files_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        with atomic_file(str(tmp_path / "out.json")) as out:
            out.write(json.dumps({"a": 1}).encode())
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "out.json").stat().st_mode) == 0o640
    assert json.loads((tmp_path / "out.json").read_text()) == {"a": 1}


@pytest.mark.parametrize("name", ["nowhere/out.vcf", "."])
def test_places_that_cannot_be_written(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="cannot be"):
        VcfWriter(name, "v", HEADER, force=True).__enter__()


def test_a_name_taken_meanwhile(tmp_path):
    path = tmp_path / "out"
    with pytest.raises(InputError, match="directory"), atomic_file(str(path)):
        path.mkdir()
    assert [x.name for x in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", "vzub")
def test_full_device(kind):
    with (
        pytest.raises(InputError, match="/dev/full: cannot be written: No space left"),
        VcfWriter("/dev/full", kind, HEADER) as out,
    ):
        write_often(out, sites(5000))


@pytest.mark.parametrize("kind", "vzb")
def test_full_disk_leaves_nothing(tmp_path, kind):
    # A limit on the size of files stands for the end of the disk.
    script = _PRELUDE + (
        "import resource\n"
        "from glm_annotate.errors import InputError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))\n"
        "try:\n"
        "    with VcfWriter(sys.argv[1], sys.argv[2], HEADER) as out:\n"
        "        for _ in range(20): out.write(sites(5000))\n"
        "except InputError as error:\n"
        "    sys.exit(str(error))\n"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    done = run_python(script, tmp_path / "out", kind)
    assert done.returncode == 1
    assert b"cannot be written: File too large" in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert list(tmp_path.iterdir()) == []


_TO_STDOUT = _PRELUDE + (
    "kind, path, fate = sys.argv[1:]\n"
    "with VcfWriter(path, kind, HEADER) as out:\n"
    "    out.write(sites(5000))\n"
    "    if fate == 'fail': raise KeyError('stop')\n"
    "    if fate == 'die':\n"
    "        import os, signal, time\n"
    "        time.sleep(0.5)\n"
    "        os.kill(os.getpid(), signal.SIGKILL)\n"
)


@pytest.mark.parametrize("kind", "vzub")
@pytest.mark.parametrize("path", ["-", "/dev/stdout", "/dev/fd/1"])
@pytest.mark.parametrize("fate", ["live", "fail"])
def test_stdout(kind, path, fate):
    if fate == "fail" and path != "-":
        return
    done = run_python(_TO_STDOUT, kind, path, fate)
    assert (done.returncode == 0) == (fate == "live"), done.stderr
    if kind != "v":
        assert done.stdout.endswith(EOF_BLOCK) == (fate == "live")
    if fate == "live":
        whole = gzip.decompress(done.stdout) if kind != "v" else done.stdout
        assert (b"".join(sites(5000)) in whole) == (kind in "vz")
        assert len(whole) > 100_000


@pytest.mark.parametrize("kind", "zb")
def test_no_end_block_when_killed(kind):
    done = run_python(_TO_STDOUT, kind, "-", "die")
    assert done.returncode == -signal.SIGKILL
    assert not done.stdout.endswith(EOF_BLOCK)


def test_redirected_stdout_is_not_truncated(tmp_path):
    path = tmp_path / "log"
    with open(path, "wb") as handle:
        handle.write(b"before\n")
        handle.flush()
        subprocess.run(
            [sys.executable, "-c", _TO_STDOUT, "v", "/dev/stdout", "live"],
            stdout=handle,
            check=True,
        )
    assert path.read_bytes().startswith(b"before\n##fileformat")


@pytest.mark.parametrize("kind", "vzb")
def test_fifo_and_null(tmp_path, kind):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()))
    reader.start()
    with VcfWriter(str(fifo), kind, HEADER) as out:
        out.write(sites(100))
    reader.join()
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    copy = tmp_path / "copy"
    copy.write_bytes(got[0])
    assert pysam_bcftools.view("-H", str(copy)).encode() == b"".join(sites(100))
    with VcfWriter("/dev/null", kind, HEADER) as out:
        out.write(sites(100))
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("kind", "vzub")
def test_closed_pipe_is_let_through(kind):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with (
            pytest.raises(BrokenPipeError),
            VcfWriter(f"/dev/fd/{writing}", kind, HEADER) as out,
        ):
            write_often(out, sites(5000))
    finally:
        os.close(writing)


# --- names and indices ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "given", "kind"),
    [
        (None, None, "v"),
        ("-", "b", "b"),
        ("a.vcf", None, "v"),
        ("a.vcf.gz", None, "z"),
        ("a.vcf.bgz", None, "z"),
        ("a.bcf", None, "b"),
        ("a.bcf", "u", "u"),
        ("a.txt", None, "v"),
        ("a.txt", "z", "z"),
    ],
)
def test_output_type(path, given, kind):
    assert output_type(path, given) == kind


@pytest.mark.parametrize(
    ("path", "given"),
    [("a.vcf", "z"), ("a.vcf.gz", "v"), ("a.vcf.gz", "b"), ("a.bcf", "v"), (None, "x")],
)
def test_output_type_contradicts(path, given):
    with pytest.raises(UsageError, match=f"-O {given}"):
        output_type(path, given)


@pytest.mark.parametrize(
    ("path", "kind", "index"),
    [
        ("-", "z", "csi"),
        ("/dev/null", "z", "csi"),
        ("a.vcf", "v", "csi"),
        ("a.bcf", "u", "csi"),
        ("a.bcf", "b", "tbi"),
        ("a.vcf.gz", "z", "gzi"),
    ],
)
def test_index_that_cannot_be(path, kind, index):
    with pytest.raises(UsageError, match="-W"):
        check_index(path, kind, index)


@pytest.mark.parametrize(("kind", "index"), [("z", "csi"), ("z", "tbi"), ("b", "csi")])
def test_index(tmp_path, bcftools, kind, index):
    path = tmp_path / ("out.vcf.gz" if kind == "z" else "out.bcf")
    with VcfWriter(str(path), kind, HEADER, index=index) as out:
        out.write(sites(3000))
    assert sorted(x.name for x in tmp_path.iterdir()) == [path.name, f"{path.name}.{index}"]
    shown = run_bcftools(bcftools, "view", "-H", "-r", "1:2990-", path)
    assert shown == b"".join(sites(3000)[2989:])


@pytest.mark.parametrize("kind", "zb")
def test_index_of_unsorted_file(tmp_path, kind, capfd):
    path = tmp_path / "out.dat"
    with (
        pytest.raises(InputError, match=r"not indexed: .*nsorted.*bcftools sort") as caught,
        VcfWriter(str(path), kind, HEADER, index="csi") as out,
    ):
        out.write(sites(3)[::-1])
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    with open_input(str(path)) as found:  # the records themselves are there
        assert sum(map(len, found.chunks(10))) == 3


def test_what_htslib_drops_is_said(tmp_path, caplog):
    with VcfWriter(str(tmp_path / "out.bcf"), "b", HEADER) as out:
        out.write([b"1\t5\t.\tA\tC\t.\t.\tDP=99999999999\n"])
    assert len(caplog.records) == 1
    assert "set to missing at 1:5" in caplog.text
