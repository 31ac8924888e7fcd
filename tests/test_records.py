"""Reading records: formats, bytes, chunks, regions, and everything that is no variant file."""

from __future__ import annotations

import bz2
import gzip
import itertools
import lzma
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_annotate.bgzf import EOF_BLOCK, BgzfSink, deflate_block
from glm_annotate.chunks import Chunk
from glm_annotate.errors import InputError, UsageError
from glm_annotate.records import open_input
from glm_annotate.regions import Regions, regions_from, targets_from

HEADER = (
    b"##fileformat=VCFv4.2\n##contig=<ID=1>\n##contig=<ID=2>\n"
    b'##INFO=<ID=DP,Number=1,Type=Integer,Description="Depth \xe9">\n'
    b'##INFO=<ID=END,Number=1,Type=Integer,Description="End">\n'
    b'##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n'
)
SITES = HEADER + b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
RECORDS = (
    b"1\t5\trs1\tA\tC\t30.00\tPASS\tDP=3\n"
    b"1\t5\t.\tA\tG,T\t1e2\t.\t.\n"
    b"1\t10\t.\tACGTACGTAC\tA\t.\t.\tDP=1\n"
    b"1\t30\t.\tA\t<DEL>\t.\t.\tEND=60\n"
    b"2\t5\t.\tN\t*\t.\t.\tDP=007\n"
)


def compress(data: bytes) -> bytes:
    out: list[bytes] = []
    sink = BgzfSink(out.append)
    sink.write(data)
    sink.finish()
    return b"".join(out)


def read(source: Path | str, size: int = 1000, **limits) -> list[Chunk]:
    with open_input(str(source), **limits) as found:
        return list(found.chunks(size))


def text_of(chunks: list[Chunk]) -> bytes:
    return b"".join(line for chunk in chunks for line in chunk.lines)


def run_bcftools(*args: object) -> bytes:
    return subprocess.run([str(x) for x in args], check=True, capture_output=True).stdout


@pytest.fixture
def vcf(tmp_path: Path) -> Path:
    path = tmp_path / "in.vcf"
    path.write_bytes(SITES + RECORDS)
    return path


# --- what comes out ------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [bytes, gzip.compress, compress], ids=["plain", "gzip", "bgzip"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("last", [True, False], ids=["ended", "no-newline"])
def test_text_comes_out_byte_for_byte(tmp_path, pack, newline, last):
    whole = (SITES + RECORDS).replace(b"\n", newline)
    whole = whole if last else whole[: -len(newline)]
    path = tmp_path / "misleading.name"
    path.write_bytes(pack(whole))
    with open_input(str(path)) as found:
        chunks = list(found.chunks(2))
        head = b"".join(line + found.newline for line in found.header)
    assert found.kind == "vcf"
    assert head + text_of(chunks) == whole
    assert found.header[-1] == b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
    infos = [x for c in chunks for x in c.infos]
    assert infos == [b"DP=3", b".", b"DP=1", b"END=60", b"DP=007"]
    for chunk in chunks:
        for line, end, info in zip(chunk.lines, chunk.ends, chunk.infos, strict=True):
            assert line[end - len(info) : end] == info
            assert line[end:] in (newline, b"")


def test_columns_and_numbers(vcf):
    (chunk,) = read(vcf)
    assert chunk.chroms == [b"1"] * 4 + [b"2"]
    assert chunk.pos.tolist() == [5, 5, 10, 30, 5]
    assert chunk.refs == [b"A", b"A", b"ACGTACGTAC", b"A", b"N"]
    assert chunk.alts == [b"C", b"G,T", b"A", b"<DEL>", b"*"]
    # Seven header lines stand before the first record.
    assert chunk.first_line == 8
    assert chunk.where(4) == "line 12 (2:5)"


def test_header_with_one_odd_line_ending_keeps_it(tmp_path):
    path = tmp_path / "in.vcf"
    whole = SITES.replace(b"<ID=1>\n", b"<ID=1>\r\n") + RECORDS
    path.write_bytes(whole)
    with open_input(str(path)) as found:
        head = b"".join(line + found.newline for line in found.header)
        assert head + text_of(list(found.chunks(9))) == whole


def test_carriage_return_inside_a_line_ends_no_line(tmp_path):
    path = tmp_path / "in.vcf"
    path.write_bytes(SITES + b"1\t5\t.\tA\tC\t.\t.\tDP=\r3\n1\t6\t.\tA\tC\t.\t.\t.\n")
    (chunk,) = read(path)
    assert chunk.lines == [b"1\t5\t.\tA\tC\t.\t.\tDP=\r3\n", b"1\t6\t.\tA\tC\t.\t.\t.\n"]


def test_samples_stay_out_of_the_columns(tmp_path):
    rest = b"GT" + b"\t0|1" * 3000
    path = tmp_path / "in.vcf"
    path.write_bytes(SITES + b"1\t5\t.\tA\tC\t.\t.\tDP=1\t" + rest + b"\r\n" + RECORDS)
    (chunk,) = read(path)
    assert chunk.infos[0] == b"DP=1"
    assert chunk.lines[0][chunk.ends[0] :] == b"\t" + rest + b"\r\n"
    assert len(chunk) == 6


def test_many_blocks_and_long_lines(tmp_path):
    # More than the read size in one line and in many, so lines cross pieces everywhere.
    rng = np.random.default_rng(5)
    long = b"1\t1\t.\tA\tC\t.\t.\tX=" + rng.integers(65, 90, 3_000_000, dtype=np.uint8).tobytes()
    short = b"".join(b"1\t%d\t.\tA\tC\t.\t.\tDP=%d\n" % (i + 2, i) for i in range(60_000))
    for pack in (bytes, gzip.compress, compress):
        path = tmp_path / "in"
        path.write_bytes(pack(SITES + long + b"\n" + short))
        chunks = read(path, 1000)
        assert text_of(chunks) == long + b"\n" + short
        assert max(map(len, chunks)) == 1000
    assert text_of(read(path, 1000, threads=3)) == long + b"\n" + short


@pytest.mark.parametrize("kind", ["b", "u"])
def test_bcf_is_what_bcftools_prints(tmp_path, vcf, bcftools, kind):
    path = tmp_path / "in.dat"
    run_bcftools(bcftools, "view", f"-O{kind}", "-o", path, vcf)
    with open_input(str(path)) as found:
        chunks = list(found.chunks(2))
    assert found.kind == "bcf"
    assert text_of(chunks) == run_bcftools(bcftools, "view", "-H", path)
    assert b"\tEND" not in chunks[-1].lines[0]
    assert chunks[0].where(0) == "record 1 (1:5)"
    assert b"".join(found.header).count(b"##contig") == 2


def test_raw_bcf_is_read(tmp_path, vcf, bcftools):
    path = tmp_path / "raw.bcf"
    packed = run_bcftools(bcftools, "view", "-Ob", vcf)
    path.write_bytes(gzip.decompress(packed))
    assert sum(map(len, read(path))) == 5


@pytest.mark.parametrize("kind", ["v", "z", "b", "u", "tsv"])
def test_stdin_pipe(tmp_path, vcf, bcftools, kind):
    data = b"1\t5\tA\tC\n2\t7\tA\tG\n"
    if kind != "tsv":
        data = run_bcftools(bcftools, "view", f"-O{kind}", vcf)
    script = (
        "import sys\nfrom glm_annotate.records import open_input\n"
        "with open_input('-') as found:\n"
        "    print(found.name, found.kind, sum(map(len, found.chunks(2))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=data, capture_output=True, check=True
    )
    name, found, count = done.stdout.decode().split()
    expected = {"tsv": ("tsv", 2), "b": ("bcf", 5), "u": ("bcf", 5)}.get(kind, ("vcf", 5))
    assert (name, found, int(count)) == ("stdin", *expected)


def test_named_pipe_that_trickles(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    data = compress(SITES + RECORDS)

    def feed() -> None:
        with open(fifo, "wb", buffering=0) as handle:
            for i in range(0, len(data), 7):
                handle.write(data[i : i + 7])

    thread = threading.Thread(target=feed)
    thread.start()
    assert text_of(read(fifo)) == RECORDS
    thread.join()


def test_plain_gzip_is_read_with_one_warning(tmp_path, caplog):
    path = tmp_path / "in.vcf.gz"
    # Two members, and the zeros that some tools pad with.
    path.write_bytes(gzip.compress(SITES) + gzip.compress(RECORDS) + bytes(100))
    assert text_of(read(path)) == RECORDS
    assert len(caplog.records) == 1
    assert "bgzip" in caplog.text


# --- tables and alleles --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "table",
    [
        b"chr1\t5\tA\tC\n2\t7\tAC\tA\n",
        b"chrom\tpos\tref\talt\nchr1\t5\tA\tC\n2\t7\tAC\tA",
        b"#CHROM\tPOS\tREF\tALT\r\nchr1\t5\tA\tC\r\n2\t7\tAC\tA\r\n",
        b"gene\tAlt\tRef\tPos\tChrom\nx\tC\tA\t5\tchr1\n\tA\tAC\t7\t2\n",
    ],
)
def test_tables(tmp_path, table):
    path = tmp_path / "in.tsv"
    path.write_bytes(table)
    with open_input(str(path)) as found:
        (chunk,) = found.chunks(10)
    assert found.kind == "tsv"
    assert chunk.lines == [b"chr1\t5\t.\tA\tC\t.\t.\t.\n", b"2\t7\t.\tAC\tA\t.\t.\t.\n"]
    has_names = b"ef" in table.lower().split(b"\n")[0]
    assert chunk.numbers.tolist() == ([2, 3] if has_names else [1, 2])
    assert found.header[0] == b"##fileformat=VCFv4.3"
    assert found.header[-1] == b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"


@pytest.mark.parametrize(
    ("source", "chrom", "pos", "ref", "alt"),
    [
        ("chrM:3243:A:G", b"chrM", 3243, b"A", b"G"),
        ("HLA-A*01:01:5:acgt:A,C", b"HLA-A*01:01", 5, b"acgt", b"A,C"),
        ("2:321681:G:G]17:198982]", b"2", 321681, b"G", b"G]17:198982]"),
        ("1:10:A:<DEL>", b"1", 10, b"A", b"<DEL>"),
    ],
)
def test_alleles(source, chrom, pos, ref, alt):
    with open_input(source) as found:
        (chunk,) = found.chunks(10)
    assert found.kind == "allele"
    assert (chunk.chroms, chunk.pos.tolist()) == ([chrom], [pos])
    assert (chunk.refs, chunk.alts, chunk.infos) == ([ref], [alt], [b"."])


def test_a_file_named_like_an_allele_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("1:10:A:C").write_bytes(SITES + RECORDS)
    assert sum(map(len, read("1:10:A:C"))) == 5


# --- errors --------------------------------------------------------------------------------------

_GOOD = b"1\t5\t.\tA\tC\t.\t.\t.\n"


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        (b"", ["empty"]),
        (HEADER, ["#CHROM"]),
        (b"##fileformat=VCFv4.2\n" + _GOOD, ["line 2", "#CHROM"]),
        (HEADER + b"#CHROM POS ID REF ALT QUAL FILTER INFO\n", ["line 7", "tab-separated"]),
        (SITES + _GOOD + b"\n", ["line 9", "empty"]),
        (SITES + b"\n" + _GOOD, ["line 8", "empty"]),
        (SITES + _GOOD + b"##x\n", ["line 9", "header line after records"]),
        (SITES + _GOOD + SITES, ["line 9", "header line after records", "concat"]),
        (SITES + _GOOD + b"1\t7\t.\tA", ["line 9", "4 tab-separated columns"]),
        (SITES + b"1\tx\t.\tA\tC\t.\t.\t.\n", ["line 8", "POS 'x'"]),
        (SITES + b"1\t-1\t.\tA\tC\t.\t.\t.\n", ["line 8", "POS '-1'"]),
        (SITES + b"1\t1_0\t.\tA\tC\t.\t.\t.\n", ["line 8", "POS '1_0'"]),
        (SITES + b"1\t\t.\tA\tC\t.\t.\t.\n", ["line 8", "POS ''"]),
        (SITES + b"1\t" + b"9" * 30 + b"\t.\tA\tC\t.\t.\t.\n", ["line 8", "POS"]),
        (b"\xef\xbb\xbf" + SITES, ["byte order mark"]),
        (SITES.decode("latin-1").encode("utf-16"), ["none of"]),
        (b">1\nACGT\n", ["none of", "'>1"]),
        (bz2.compress(SITES), ["bzip2 -dc"]),
        (lzma.compress(SITES), ["xz -dc"]),
        (_GOOD, ["line 1", "8 columns and no header"]),
        (b"1\t5\tA\tC\n1\t6\tA\n", ["line 2", "4 tab-separated values"]),
        (b"1\t5\tA\tC\n1\t6\tA\t\n", ["line 2"]),
        (b"1\t5\tA\tC\n1\tsix\tA\tC\n", ["line 2", "POS 'six'"]),
    ],
)
@pytest.mark.parametrize("pack", [bytes, compress], ids=["plain", "bgzip"])
def test_what_is_no_record_names_file_and_line(tmp_path, data, parts, pack):
    path = tmp_path / "bad.vcf"
    path.write_bytes(pack(data))
    with pytest.raises(InputError) as caught:
        read(path)
    message = str(caught.value)
    assert "bad.vcf" in message
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_bad_line_far_down_keeps_its_number(tmp_path):
    path = tmp_path / "bad.vcf"
    good = b"".join(b"1\t%d\t.\tA\tC\t.\t.\tDP=%d\n" % (i, i) for i in range(1, 100_001))
    path.write_bytes(SITES + good + b"1\t7\n")
    with pytest.raises(InputError, match="line 100008 "):
        read(path)


def _truncations(whole: bytes) -> dict[str, bytes]:
    middle = len(whole) // 2
    return {
        "no end block": whole[: -len(EOF_BLOCK)],
        "half the end block": whole[:-14],
        "half": whole[:middle],
        "crc": whole[:middle] + bytes([whole[middle] ^ 0x55]) + whole[middle + 1 :],
        "header only": whole[:10],
        "junk after": whole + b"junkjunkjunkjunkjunkjunk",
    }


@pytest.mark.parametrize("how", list(_truncations(b"x" * 99)))
@pytest.mark.parametrize("form", ["bgzip", "gzip", "bcf"])
@pytest.mark.parametrize("where", ["file", "pipe"])
def test_half_files_are_refused(tmp_path, bcftools, how, form, where):
    rng = np.random.default_rng(1)
    lines = b"".join(
        b"1\t%d\t.\tA\tC\t.\t.\tDP=%d\n" % (i, rng.integers(10**9)) for i in range(1, 20_000)
    )
    if form == "gzip":
        if "end block" in how:
            return  # gzip has none
        whole = gzip.compress(SITES + lines)
    else:
        whole = compress(SITES + lines)
        assert subprocess.run([bcftools, "view", "-H"], input=whole, capture_output=True).stdout
    if form == "bcf":
        done = subprocess.run([bcftools, "view", "-Ob"], input=whole, capture_output=True)
        whole = done.stdout
    path = tmp_path / "in.gz"
    data = _truncations(whole)[how]
    if where == "file":
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"in\.gz: truncated or damaged"):
            read(path)
        return
    os.mkfifo(path)

    def feed() -> None:
        with open(path, "wb", buffering=0) as handle:
            try:
                handle.write(data)
            except BrokenPipeError:
                return

    thread = threading.Thread(target=feed)
    thread.start()
    with pytest.raises(InputError, match=r"in\.gz: truncated or damaged"):
        read(path)
    thread.join()


def test_missing_and_directory(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.vcf: No such file"):
        read(tmp_path / "nowhere.vcf")
    with pytest.raises(InputError, match="directory"):
        read(tmp_path)
    with pytest.raises(InputError, match="No such file"):
        read("chr1:10:A")


def test_bcf_child_ends_with_the_input(tmp_path, bcftools):
    path = tmp_path / "in.bcf"
    lines = b"".join(b"1\t%d\t.\tA\tC\t.\t.\tDP=%d\n" % (i, i) for i in range(1, 200_000))
    done = subprocess.run([bcftools, "view", "-Ob"], input=SITES + lines, capture_output=True)
    path.write_bytes(done.stdout)
    with open_input(str(path)) as found:
        assert len(next(found.chunks(10))) == 10
    # Leaving the block killed the child; nothing is left to wait for.
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


# --- chunks --------------------------------------------------------------------------------------


@given(
    runs=st.lists(st.integers(1, 30), max_size=25),
    size=st.integers(1, 6),
    piece=st.sampled_from([17, 200, 1 << 20]),
)
def test_chunks_keep_sites_together(tmp_path_factory, runs, size, piece):
    sites = [i + 1 for i, n in enumerate(runs) for _ in range(n)]
    lines = [b"1\t%d\t.\tA\tC\t.\t.\tDP=%d\n" % (p, i) for i, p in enumerate(sites)]
    path = tmp_path_factory.mktemp("chunks") / "in.vcf"
    path.write_bytes(SITES + b"".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("glm_annotate.bgzf.READ_BYTES", piece)
        chunks = read(path, size)
    assert text_of(chunks) == b"".join(lines)
    assert [n for c in chunks for n in c.numbers] == [8 + i for i in range(len(sites))]
    for a, b in itertools.pairwise(chunks):
        if a.pos[-1] == b.pos[0]:  # only a run that alone is too long is cut
            assert len(a) == 4 * size
            assert set(a.pos.tolist()) == {a.pos[0]}
    for chunk in chunks:
        assert len(chunk) <= size or (len(chunk) <= 4 * size and len(set(chunk.pos.tolist())) == 1)


# --- regions and targets -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def indexed(tmp_path_factory, bcftools):
    """The same 600 records as VCF with csi, VCF with tbi, and BCF."""
    folder = tmp_path_factory.mktemp("indexed")
    rng = np.random.default_rng(3)
    lines = []
    for chrom in (b"1", b"2"):
        for pos in np.sort(rng.integers(1, 3000, 300)).tolist():
            length = int(rng.choice([1, 1, 1, 5, 40]))
            info = b"END=%d" % (pos + 100) if rng.random() < 0.1 else b"DP=1"
            ref, alt = (b"A", b"<DEL>") if info[:1] == b"E" else (b"A" * length, b"C")
            lines.append(b"%b\t%d\t.\t%b\t%b\t.\t.\t%b\n" % (chrom, pos, ref, alt, info))
    plain = folder / "in.vcf"
    plain.write_bytes(SITES + b"".join(lines))
    for name, kind, index in (
        ("csi.vcf.gz", "z", "-c"),
        ("tbi.vcf.gz", "z", "-t"),
        ("in.bcf", "b", "-c"),
    ):
        run_bcftools(bcftools, "view", "--no-version", f"-O{kind}", "-o", folder / name, plain)
        run_bcftools(bcftools, "index", index, folder / name)
    return folder


_SPECS = [
    "1",
    "2,1",
    "1:500",
    "1:500-800",
    "1:2500-",
    "1:500-800,1:700-900,1:901-1000",
    "2:100-200,1:100-200,2:150-400",
    ",".join(f"1:{i}-{i + 3}" for i in range(1, 2900, 7)),
    "{1}:500-800",
    "1:1-1",
]


@pytest.mark.parametrize("spec", _SPECS, ids=range(len(_SPECS)))
@pytest.mark.parametrize("name", ["csi.vcf.gz", "tbi.vcf.gz", "in.bcf"])
def test_regions_like_bcftools(indexed, bcftools, spec, name):
    path = indexed / name
    expected = run_bcftools(bcftools, "view", "-H", "-r", spec.replace("{1}", "1"), path)
    chunks = read(path, 50, regions=regions_from(spec, None))
    assert text_of(chunks) == expected


@pytest.mark.parametrize("spec", [*_SPECS, "^1:500-800", "^1", "^1:5-1000,2:5-1000", "3"])
@pytest.mark.parametrize("name", ["csi.vcf.gz", "in.bcf", "in.vcf"])
def test_targets_like_bcftools(indexed, bcftools, spec, name):
    path = indexed / name
    expected = run_bcftools(bcftools, "view", "-H", "-t", spec.replace("{1}", "1"), path)
    assert text_of(read(path, 50, targets=targets_from(spec, None))) == expected


_FILES = {
    "a.bed": "# comment\n1\t499\t800\tname\n2\t0\t100\n",
    "a.txt": "1\t500\t800\n2\t7\t100\n",
    "pos.txt": "1\t500\n2\t700\n",
    "a.bed.gz": "1\t499\t800\n",
    "a.vcf": "##fileformat=VCFv4.2\n##contig=<ID=1>\n"
    "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    "1\t500\t.\tA\tC\t.\t.\t.\n1\t700\t.\tAAAA\tC\t.\t.\t.\n",
}


@pytest.mark.parametrize("file", list(_FILES))
@pytest.mark.parametrize("option", ["-R", "-T", "-T^"])
def test_region_files_like_bcftools(tmp_path, indexed, bcftools, file, option):
    regions = tmp_path / file
    data = _FILES[file].encode()
    regions.write_bytes(compress(data) if file.endswith(".gz") else data)
    path = indexed / "csi.vcf.gz"
    expected = run_bcftools(bcftools, "view", "-H", option[:2], f"{option[2:]}{regions}", path)
    if option == "-R":
        limits = {"regions": regions_from(None, str(regions))}
    else:
        limits = {"targets": targets_from(None, f"{option[2:]}{regions}")}
    assert text_of(read(path, 50, **limits)) == expected


def test_targets_of_a_region_keep_line_numbers(vcf):
    (chunk,) = read(vcf, targets=targets_from("1:10-30", None))
    assert chunk.numbers.tolist() == [10, 11]


def test_regions_of_crlf_file_keep_bytes(tmp_path):
    import pysam

    path = tmp_path / "in.vcf.gz"
    path.write_bytes(compress((SITES + RECORDS.replace(b"rs1", b"rs\xe9")).replace(b"\n", b"\r\n")))
    pysam.tabix_index(str(path), preset="vcf")
    chunks = read(path, regions=regions_from("1:1-9", None))
    assert (
        text_of(chunks)
        == b"1\t5\trs\xe9\tA\tC\t30.00\tPASS\tDP=3\r\n1\t5\t.\tA\tG,T\t1e2\t.\t.\r\n"
    )


@pytest.mark.parametrize(
    "spec", ["", "1:", "1:x", "1:5-2", "1:-5", "1:1-2,", "1:0", ":5", "{1", "1:2:3"]
)
def test_bad_region_strings(spec):
    with pytest.raises(UsageError, match="-r"):
        regions_from(spec, None)


@pytest.mark.parametrize("data", [b"1 5 9\n", b"1\tx\t9\n", b"1\t9\t5\n", b"", b"\x1f\x8b\x08junk"])
def test_bad_region_files(tmp_path, data):
    path = tmp_path / "regions.txt"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"regions\.txt"):
        targets_from(None, str(path))


def test_both_kinds_of_regions_are_a_usage_error():
    with pytest.raises(UsageError, match="-r and -R"):
        regions_from("1", "x.bed")
    with pytest.raises(UsageError, match="-t and -T"):
        targets_from("1", "x.bed")
    assert regions_from(None, None) is None
    assert targets_from(None, None) is None


def test_regions_need_an_index(tmp_path, vcf):
    limits = {"regions": regions_from("1", None)}
    for source, part in (
        (vcf, "bcftools index"),
        ("1:5:A:C", "-t"),
    ):
        with pytest.raises(InputError, match=part):
            read(source, **limits)
    path = tmp_path / "in.vcf.gz"
    path.write_bytes(compress(SITES + RECORDS))
    with pytest.raises(InputError, match=r"no index .*bcftools index .*in\.vcf\.gz"):
        read(path, **limits)
    table = tmp_path / "in.tsv"
    table.write_bytes(b"1\t5\tA\tC\n")
    with pytest.raises(InputError, match="-t"):
        read(table, **limits)
    (tmp_path / "in.vcf.gz.tbi").write_bytes(b"junk")
    with pytest.raises(InputError, match="index"):
        read(path, **limits)


@given(
    spans=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 9)), min_size=1, max_size=8),
    exclude=st.booleans(),
)
def test_contains_is_membership(spans, exclude):
    spec = ",".join(f"1:{a}-{a + n}" for a, n in spans)
    regions = targets_from(("^" if exclude else "") + spec, None)
    assert isinstance(regions, Regions)
    inside = {p for a, n in spans for p in range(a, a + n + 1)}
    pos = np.arange(60)
    kept = regions.contains([b"1"] * 60, pos)
    assert kept.tolist() == [(p in inside) != exclude for p in range(60)]
    assert regions.contains([b"2"], pos[:1]).tolist() == [exclude]


def test_bgzf_blocks_of_any_data():
    rng = np.random.default_rng(2)
    for data in (b"", b"A" * 65_280, rng.integers(0, 256, 65_280, dtype=np.uint8).tobytes()):
        block = deflate_block(data)
        assert gzip.decompress(block) == data
        assert len(block) <= 1 << 16
        assert int.from_bytes(block[16:18], "little") + 1 == len(block)
