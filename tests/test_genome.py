"""The reference genome: letters, windows, contig names, and FASTA files in every state."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_annotate.errors import InputError
from glm_annotate.genome import (
    BITS,
    Genome,
    Interval,
    aliases,
    reverse_complement,
    to_codes,
    to_letters,
    to_text,
)

# From the IUPAC recommendations: what each letter stands for, and its complement.
TRIPLES = ("CGT", "AGT", "ACT", "ACG")
IUPAC = dict(
    zip(
        "ACGTRYSWKMBDHVN",
        ["A", "C", "G", "T", "AG", "CT", "CG", "AT", "GT", "AC", *TRIPLES, "ACGT"],
        strict=True,
    )
)
PAIRS = {"A": "T", "C": "G", "G": "C", "T": "A"}


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def fasta(path: Path, **contigs: str) -> Genome:
    return Genome(write(path, "".join(f">{name}\n{bases}\n" for name, bases in contigs.items())))


@pytest.mark.parametrize(("letter", "meaning"), sorted(IUPAC.items()))
def test_a_letter_its_meaning_and_its_complement(letter, meaning):
    for spelled in (letter, letter.lower()):
        (code,) = to_codes(spelled)
        assert to_text(np.array([code])) == letter
        assert {b for i, b in enumerate("ACGT") if BITS[code] >> i & 1} == set(meaning)
    complement = to_text(reverse_complement(to_codes(letter)))
    assert set(IUPAC[complement]) == {PAIRS[b] for b in meaning}


def test_bases_are_the_first_four_codes_and_n_is_none_of_them():
    assert to_codes(b"ACGTacgt").tolist() == [0, 1, 2, 3] * 2
    assert to_codes("Uu").tolist() == [3, 3]
    assert to_text(to_codes("*-.X é€")) == "N" * 7
    assert (to_codes("NRYSWKMBDHV") > 3).all()
    assert to_codes("").size == 0


def test_letters_and_complements_keep_the_shape():
    block = np.stack([to_codes("ACGTN"), to_codes("RRAAC")])
    assert [row.tobytes() for row in to_letters(block)] == [b"ACGTN", b"RRAAC"]
    assert [to_text(row) for row in reverse_complement(block)] == ["NACGT", "GTTYY"]


def test_interval_runs_forwards():
    assert Interval("x", 0, 0).end == 0
    for start, end in ((-1, 2), (3, 2)):
        with pytest.raises(ValueError, match="x:"):
            Interval("x", start, end)


@pytest.mark.parametrize(
    ("name", "held", "found"),
    [
        ("chr1", ["1", "2"], "1"),
        ("1", ["chr1"], "chr1"),
        ("chr1", ["chr1", "1"], "chr1"),
        ("chrM", ["MT"], "MT"),
        ("MT", ["chrM"], "chrM"),
        ("M", ["MT"], "MT"),
        ("MT", ["chrMT"], "chrMT"),
        ("X", ["chrX"], "chrX"),
        ("NC_1.1", ["1"], None),
        ("1", ["chr11", "11"], None),
        ("M", ["chr1"], None),
    ],
)
def test_contig_spellings(tmp_path, name, held, found):
    genome = fasta(tmp_path / "g.fa", **dict.fromkeys(held, "ACGT"))
    assert genome.resolve(name) == found
    assert name not in aliases(name)


def test_the_users_contig_map_comes_first(tmp_path):
    genome = fasta(tmp_path / "g.fa", chr1="ACGT", NC_1="CCCC")
    assert genome.resolve("1", {"1": "NC_1"}) == "NC_1"
    assert genome.resolve("1", {"1": "absent"}) is None
    assert genome.resolve("1", {"2": "NC_1"}) == "chr1"


CONTIGS = {"lin": "ACGTNRYACGTTTGCA", "one": "G", "chrM": "AACCGGTTAC"}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("genome") / "g.fa"
    text = "".join(f">{name}\n{bases}\n" for name, bases in CONTIGS.items())
    return Genome(write(path, text), circular=["MT", "absent"])


@given(
    contig=st.sampled_from(sorted(CONTIGS)),
    starts=st.lists(st.integers(-40, 40), max_size=6),
    length=st.integers(1, 35),
    circular=st.sampled_from([None, True, False]),
)
def test_windows_are_the_contig_read_base_by_base(small, contig, starts, length, circular):
    bases = CONTIGS[contig]
    wraps = contig == "chrM" if circular is None else circular

    def base(p: int) -> str:
        if wraps:
            return bases[p % len(bases)]
        return bases[p] if 0 <= p < len(bases) else "N"

    got = small.windows(contig, np.array(starts, dtype=np.int64), length, circular=circular)
    assert got.shape == (len(starts), length)
    assert got.dtype == np.uint8
    assert [to_text(w) for w in got] == [
        "".join(base(p) for p in range(s, s + length)) for s in starts
    ]


def test_windows_do_not_share_memory_with_the_contig(small):
    got = small.windows("lin", np.array([0, 2]), 4)
    got[:] = 9
    assert to_text(small.codes("lin")) == CONTIGS["lin"]
    assert not small.codes("lin").flags.writeable


def test_circular_names_follow_the_alias_table(small):
    assert "chrM" in small.circular
    assert "lin" not in small.circular


def test_a_contig_without_bases_gives_n(tmp_path):
    path = write(tmp_path / "g.fa", ">a\nACGT\n>b\n\n")
    write(tmp_path / "g.fa.fai", "a\t4\t3\t4\t5\nb\t0\t11\t0\t1\n")
    genome = Genome(path, circular=["b"])
    assert genome.contigs == {"a": 4, "b": 0}
    assert to_text(genome.windows("b", np.array([0]), 3)[0]) == "NNN"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (">x description here\nACgt\nNNr\n", {"x": "ACGTNNR"}),
        (">x\r\nACG\r\nAC\r\n>y\r\nUU\r\n", {"x": "ACGAC", "y": "TT"}),
        (">x\nACG", {"x": "ACG"}),
        ("\n>x\nACG\n", {"x": "ACG"}),
        (">x\nAC*-\n", {"x": "ACNN"}),
    ],
    ids=["lower", "windows-lines", "no-last-newline", "leading-blank", "gaps"],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_a_fasta_is_read(tmp_path, text, expected, compressed):
    path = write(tmp_path / "g.fa", text)
    if compressed:
        packed = tmp_path / "g.fa.gz"
        pysam.tabix_compress(str(path), str(packed))
        path = packed
    genome = Genome(path)
    assert {name: to_text(genome.codes(name)) for name in genome.contigs} == expected
    assert Path(f"{path}.fai").exists()
    assert genome.contigs == {name: len(bases) for name, bases in expected.items()}


def test_a_bgzipped_fasta_without_its_block_index(tmp_path):
    pysam.tabix_compress(str(write(tmp_path / "g.fa", ">x\nACG\n")), str(tmp_path / "g.fa.gz"))
    Genome(tmp_path / "g.fa.gz")
    (tmp_path / "g.fa.gz.gzi").unlink()
    assert to_text(Genome(tmp_path / "g.fa.gz").codes("x")) == "ACG"


def test_a_long_contig_is_read_in_pieces(tmp_path):
    piece = 1 << 24
    bases = "A" * (piece - 1) + "CG" + "T" * 5
    codes = fasta(tmp_path / "g.fa", x=bases).codes("x")
    assert codes.size == piece + 6
    assert to_text(codes[piece - 2 : piece + 2]) == "ACGT"


def test_the_cache_is_bounded_and_forgets_what_was_used_least(tmp_path):
    text = ">a\nAAAA\n>b\nCCCC\n>c\nGGGG\n"
    genome = Genome(write(tmp_path / "g.fa", text), cache_bytes=8)
    first = genome.codes("a")
    genome.codes("b")
    assert genome.codes("a") is first
    genome.codes("c")  # pushes b out, not a
    assert genome.codes("a") is first
    assert list(genome._cache) == ["c", "a"]


BAD = {
    "absent": (None, ["no such FASTA"]),
    "empty": (b"", ["not a FASTA"]),
    "vcf": (b"##fileformat=VCFv4.2\n", ["not a FASTA", "##filefo"]),
    "fastq": (b"@r\nACG\n+\nIII\n", ["not a FASTA"]),
    "gzip": (gzip.compress(b">x\nACG\n"), ["bgzip", "gunzip"]),
    "uneven": (b">x\nACG\nAC\nACG\n", ["equal length", "samtools faidx"]),
    "no-bases": (b">x\n", ["samtools faidx"]),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_what_is_not_a_fasta_is_one_line(tmp_path, case, capfd):
    content, words = BAD[case]
    path = tmp_path / "g.fa"
    if content is not None:
        write(path, content)
    with pytest.raises(InputError) as caught:
        Genome(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for word in words:
        assert word in message
    assert capfd.readouterr() == ("", "")


def test_a_folder_is_not_a_fasta(tmp_path):
    with pytest.raises(InputError, match="a folder"):
        Genome(tmp_path)


def test_an_index_that_cannot_be_written(tmp_path, monkeypatch):
    path = write(tmp_path / "g.fa", ">x\nACG\n")
    (tmp_path / "g.fa.fai").symlink_to(tmp_path / "absent" / "folder")  # stops root as well
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="not writable; copy"):
        Genome(path)


def test_an_index_that_is_not_one(tmp_path):
    path = write(tmp_path / "g.fa", ">x\nACG\n")
    write(tmp_path / "g.fa.fai", "garbage\n")
    with pytest.raises(InputError, match=r"index cannot be read; run: rm -f .*g\.fa\.fai"):
        Genome(path)


@pytest.mark.parametrize(
    "later", [">x\nAC\n>y\nACGTACGT\n", ">x\nACGTT\n>y\nACG\n", ">x\nACG\n", ">x\nACGT\n>y\nA\n"]
)
def test_an_index_of_an_older_file(tmp_path, later):
    path = write(tmp_path / "g.fa", ">x\nACG\n>y\nACGTACGT\n")
    Genome(path)
    write(path, later)
    genome = Genome(path)
    with pytest.raises(InputError, match=r"run: rm -f .*g\.fa\.fai .* && samtools faidx .*g\.fa$"):
        [genome.codes(name) for name in genome.contigs]


def test_a_file_newer_than_its_index_is_told(tmp_path, caplog):
    path = write(tmp_path / "g.fa", ">x\nACG\n")
    Genome(path)
    caplog.clear()
    Genome(path)
    assert not caplog.records
    os.utime(path, ns=(0, Path(f"{path}.fai").stat().st_mtime_ns + 60_000_000_000))
    Genome(path)
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "newer than its index" in caplog.text


def test_an_unknown_contig_names_some_that_are_known(small):
    with pytest.raises(InputError, match=r"no contig 'chr7' \(it has lin, one, chrM"):
        small.codes("chr7")


def test_htslib_prints_nothing_of_its_own(tmp_path):
    """In a fresh process: a made index, a repeated name and a damaged file, and a quiet stderr."""
    write(tmp_path / "good.fa", ">x\nACG\n>x\nTT\n")
    write(tmp_path / "bad.fa", ">x\nACG\nA\nACG\n")
    script = (
        "import sys\n"
        "from glm_annotate.errors import InputError\n"
        "from glm_annotate.genome import Genome\n"
        "assert Genome(sys.argv[1]).contigs == {'x': 3}\n"
        "try:\n    Genome(sys.argv[2])\nexcept InputError:\n    print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "good.fa"), str(tmp_path / "bad.fa")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SAMTOOLS": "1", "HTS_VERBOSITY": "9"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "refused\n", "")


def test_the_human_mitochondrion_is_the_revised_cambridge_sequence(example_dir):
    """Known facts of NC_012920.1: 16,569 bases, N at the spacer 3107, origin GATCACAGG."""
    genome = Genome(example_dir / "chrM.fa", circular=["MT"])
    codes = genome.codes("chrM")
    assert codes.size == 16569
    assert to_text(codes[:9]) == "GATCACAGG"
    assert np.flatnonzero(codes > 3).tolist() == [3106]
    assert to_text(genome.windows("chrM", np.array([-4]), 8)[0]) == to_text(codes[-4:]) + "GATC"
