"""Alleles: what is changed, in one spelling, or the reason why there is nothing to score."""

from __future__ import annotations

import subprocess
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from glm_annotate.genome import Genome, to_codes, to_text
from glm_annotate.variants import (
    SKIPS,
    AlleleReader,
    Alleles,
    Skip,
    Variant,
    left_align,
    skip_code,
    symbolic_length,
    trim,
)

Edit = tuple[int, str, str]  # start (0-based), REF, ALT


def genome_of(folder: str | Path, **contigs: str) -> Genome:
    path = Path(folder) / "g.fa"
    path.write_text("".join(f">{name}\n{bases}\n" for name, bases in contigs.items()))
    return Genome(path)


def read(genome: Genome, *records: str, longest: int = 1 << 20, circular: str = "") -> Alleles:
    """Read records written as `chrom pos ref alt [info]`; `_` stands for an empty column."""
    rows = [[x.strip("_") for x in record.split(" ")] for record in records]
    columns = [[r[i].encode() for r in rows] for i in (0, 2, 3)]
    infos = [r[4].encode() if len(r) > 4 else b"." for r in rows]
    pos = np.array([int(r[1]) for r in rows], dtype=np.int64)
    reader = AlleleReader(genome, circular=frozenset(circular.split()), longest=longest)
    return reader.read(columns[0], pos, columns[1], columns[2], infos)


def told(alleles: Alleles) -> list[Edit | str]:
    """Give the edit of each allele, or the name of its reason."""
    out: list[Edit | str] = []
    for i, code in enumerate(alleles.skip.tolist()):
        ref, alt = alleles.edit(i)
        edit = int(alleles.start[i]), to_text(ref), to_text(alt)
        if not code:
            assert (alleles.ref_len[i], alleles.alt_len[i]) == (ref.size, alt.size)
        out.append(SKIPS[code - 1].value if code else edit)
    return out


# POS:   1234567890123456789012345678
BASES = "ACGTTTGCANNRYKACACACGGTCATGG"


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    return genome_of(tmp_path_factory.mktemp("variants"), chr1=BASES, chrM="AACCGGTTAA", N="NNN")


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        # Substitutions, in every spelling.
        ("chr1 1 A C", [(0, "A", "C")]),
        ("1 1 a g", [(0, "A", "G")]),
        ("chr1 1 ACG ATG", [(1, "C", "T")]),
        ("chr1 1 A C,G,T", [(0, "A", "C"), (0, "A", "G"), (0, "A", "T")]),
        ("chr1 4 U C", [(3, "T", "C")]),
        ("chr1 1 ACG GCA", [(0, "ACG", "GCA")]),
        # A FASTA code agrees with what it stands for, and the record's base is the one that counts.
        ("chr1 12 A C", [(11, "A", "C")]),
        ("chr1 12 G A", [(11, "G", "A")]),
        ("chr1 12 C A", ["REF_MISMATCH"]),
        ("chr1 12 AC GC", [(11, "A", "G")]),
        ("chr1 12 AA GA", ["REF_MISMATCH"]),
        # Indels: trimmed, then to the left.
        ("chr1 3 G GT", [(3, "", "T")]),
        ("chr1 6 T TT", [(3, "", "T")]),
        ("chr1 5 TT T", [(3, "T", "")]),
        ("chr1 19 AC A", [(19, "C", "")]),
        ("chr1 18 CAC C", [(14, "AC", "")]),
        ("chr1 15 A ACA", [(14, "", "AC")]),
        ("chr1 1 A GA", [(0, "", "G")]),
        ("chr1 28 G GA", [(28, "", "A")]),
        ("chr1 23 TC T,TCC,GC", [(23, "C", ""), (23, "", "C"), (22, "T", "G")]),
        ("chr1 23 TCA GG", [(22, "TCA", "GG")]),
        # Whole-allele reasons.
        ("chr2 1 A C", ["CONTIG_MISSING"]),
        ("chr2 1 AC A", ["CONTIG_MISSING"]),
        ("chr1 1 C A", ["REF_MISMATCH"]),
        ("chr1 1 CC C,CCC", ["REF_MISMATCH"] * 2),
        ("chr1 0 A C", ["OFF_CONTIG"]),
        ("chr1 0 AC A", ["OFF_CONTIG"]),
        ("chr1 29 A C", ["OFF_CONTIG"]),
        ("chr1 28 GA G", ["OFF_CONTIG"]),
        ("chr1 99999999999 A C", ["OFF_CONTIG"]),
        ("chr1 0 N <DEL> SVLEN=-3", ["OFF_CONTIG"]),
        ("chr1 29 N .[chr1:1[", ["BREAKEND"]),
        ("chr1 10 A C", ["AMBIGUOUS"]),
        ("chr1 10 N C", ["AMBIGUOUS"]),
        ("chr1 9 AN A", ["AMBIGUOUS"]),
        ("chr1 9 AA A", ["AMBIGUOUS"]),
        ("chr1 1 A N", ["AMBIGUOUS"]),
        ("chr1 1 A R", ["AMBIGUOUS"]),
        ("chr1 1 A AN", ["AMBIGUOUS"]),
        ("chr1 1 R A", ["AMBIGUOUS"]),
        ("chr1 1 A _", ["AMBIGUOUS"]),
        ("chr1 1 _ A", ["AMBIGUOUS"]),
        ("chr1 1 A C,", [(0, "A", "C"), "AMBIGUOUS"]),
        ("chr1 1 C N", ["REF_MISMATCH"]),
        ("chr1 1 A a", ["NO_CHANGE"]),
        ("chr1 1 AC AC,A", ["NO_CHANGE", (1, "C", "")]),
        ("chr1 1 A *", ["SPANNING"]),
        ("chr1 1 A C,*", [(0, "A", "C"), "SPANNING"]),
        ("chr2 1 A *", ["SPANNING"]),
        ("chr1 1 A <*>", ["SYMBOLIC"]),
        ("chr1 1 A T,<NON_REF>", [(0, "A", "T"), "SYMBOLIC"]),
        ("chr1 1 A <INS> SVLEN=5", ["SYMBOLIC"]),
        ("chr1 1 A <CNV> END=5", ["SYMBOLIC"]),
        ("chr1 1 A <del> SVLEN=5", ["SYMBOLIC"]),
        ("chr1 1 A A[chr1:9[", ["BREAKEND"]),
        ("chr1 1 A ]chr1:9]A", ["BREAKEND"]),
        ("chr1 1 A [<ctg>:9[A", ["BREAKEND"]),
        ("chr1 1 A A.", ["BREAKEND"]),
        ("chr1 1 A .A", ["BREAKEND"]),
        ("chr1 1 A .", []),
        ("N 2 N A", ["AMBIGUOUS"]),
    ],
)
def test_what_a_record_becomes(genome, record, expected):
    alleles = read(genome, record)
    assert told(alleles) == expected
    assert len(alleles) == len(expected)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        # POS 23 is T; the changed bases are C A T G G, of which CAT after T can move left.
        ("chr1 23 T <DEL> SVLEN=-2", [(23, "CA", "")]),
        ("chr1 23 T <DEL> SVLEN=2;END=25", [(23, "CA", "")]),
        ("chr1 23 T <DEL> END=25", [(23, "CA", "")]),
        ("chr1 23 T <DEL:ME:ALU> AC=1;END=25", [(23, "CA", "")]),
        ("chr1 23 T <DEL> SVLEN=.;END=25", [(23, "CA", "")]),
        ("chr1 23 T <DUP> SVLEN=3", [(22, "", "TCA")]),
        ("chr1 23 T <DUP:TANDEM> END=26", [(22, "", "TCA")]),
        ("chr1 23 T <INV> END=26", [(23, "CAT", "ATG")]),
        ("chr1 23 T <INV> END=28", [(24, "ATG", "CAT")]),
        ("chr1 26 T <DEL> SVLEN=-2", [(26, "GG", "")]),
        ("chr1 20 C <DEL> SVLEN=-1", [(20, "G", "")]),
        ("chr1 21 G <DEL> SVLEN=-1", [(20, "G", "")]),
        ("chr1 21 G <DUP> SVLEN=1", [(20, "", "G")]),
        ("chr1 18 C <DEL> SVLEN=-2", [(14, "AC", "")]),
        ("chr1 2 C <INV> SVLEN=1", [(2, "G", "C")]),
        ("chr1 24 C <INV> SVLEN=2", ["NO_CHANGE"]),  # AT is its own reverse complement
        # One length for each ALT; END is the farthest.
        ("chr1 23 T <DEL>,<DUP> SVLEN=-2,3;END=26", [(23, "CA", ""), (22, "", "TCA")]),
        ("chr1 23 T <DEL>,TA SVLEN=-2,.", [(23, "CA", ""), (23, "", "A")]),
        ("chr1 23 T <DEL>,<DUP> END=25", [(23, "CA", ""), (23, "", "CA")]),
        ("chr1 23 T <DEL>,<DEL> SVLEN=-2,-4;END=26", [(23, "CA", ""), "SYMBOLIC"]),
        ("chr1 23 T <DEL>,<DEL> SVLEN=-2", ["SYMBOLIC", "SYMBOLIC"]),
        # No length, or two.
        ("chr1 23 T <DEL>", ["SYMBOLIC"]),
        ("chr1 23 T <DEL> SVLEN=0", ["SYMBOLIC"]),
        ("chr1 23 T <DEL> SVLEN=-2;END=26", ["SYMBOLIC"]),
        ("chr1 23 T <DEL> END=23", ["SYMBOLIC"]),
        ("chr1 23 T <DEL> END=3", ["SYMBOLIC"]),
        ("chr1 23 T <DEL> SVLEN=two;XEND=26", ["SYMBOLIC"]),
        ("chr1 23 T <DUP:DISPERSED> SVLEN=2", ["SYMBOLIC"]),
        # The reasons of other alleles.
        ("chr2 23 T <DEL> END=25", ["CONTIG_MISSING"]),
        ("chr1 23 A <DEL> END=25", ["REF_MISMATCH"]),
        ("chr1 23 T <DEL> END=29", ["OFF_CONTIG"]),
        ("chr1 8 C <DEL> END=12", ["AMBIGUOUS"]),
        ("chr1 23 A <DEL>", ["SYMBOLIC"]),
    ],
)
def test_symbolic_alleles_as_haplotypes(genome, record, expected):
    assert told(read(genome, record)) == expected


@pytest.mark.parametrize(
    "info",
    ["END=\u00b2", "SVLEN=" + "9" * 5000, "END=1e3", "END", "SVLEN"],
    ids=["square", "endless", "float", "flag", "other-flag"],
)
def test_a_length_that_is_no_number_of_bases(info):
    assert symbolic_length("<DEL>", 23, info, 0, 1) is None


@pytest.mark.parametrize(
    ("kind", "lengths"), [("DEL", (2000, 0)), ("DUP", (0, 2000)), ("INV", (2000, 2000))]
)
def test_a_symbolic_allele_longer_than_any_window_is_only_measured(tmp_path, kind, lengths):
    genome = genome_of(tmp_path, chr1="ACGTTGCA" * 300)
    alleles = read(genome, f"chr1 8 A <{kind}> SVLEN=2000", longest=1999)
    assert (alleles.skip[0], alleles.start[0], alleles.edits) == (0, 8, {})
    assert (alleles.ref_len[0], alleles.alt_len[0]) == lengths
    assert 0 in read(genome, f"chr1 8 A <{kind}> SVLEN=2000", longest=2000).edits


def test_huge_symbolic_alleles_take_no_memory(tmp_path):
    length = 3_000_000
    genome = genome_of(tmp_path, chr1="ACGTTGCA" * (length // 8 + 1))
    genome.codes("chr1")
    records = [f"chr1 4 T <{kind}> SVLEN={length}" for kind in ("DEL", "DUP", "INV")] * 20
    tracemalloc.start()
    alleles = read(genome, *records)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not alleles.skip.any()
    assert peak < length


def test_a_deletion_that_stays_in_place_is_a_view_of_the_contig(tmp_path):
    genome = genome_of(tmp_path, chr1="ACGTTGCA" * 10 + "CC")
    ref, _ = read(genome, "chr1 8 A <DEL> SVLEN=70").edit(0)
    assert np.shares_memory(ref, genome.codes("chr1"))


def test_columns_follow_records_and_alts(genome):
    records = ["chr1 1 A C,G", "chr1 2 C .", "MT 1 A T", "chr9 1 A T", "chr1 2 A G", "chr1 10 N A"]
    alleles = read(genome, *records)
    assert alleles.record.tolist() == [0, 0, 2, 3, 4, 5]
    assert [alleles.contigs[i] if i >= 0 else None for i in alleles.contig] == [
        *("chr1", "chr1", "chrM"),
        *(None, "chr1", "chr1"),
    ]
    # Agreed, no ALT, agreed, no contig, disagreed, N.
    assert alleles.compared.tolist() == [1, 0, 1, 0, 2, 0]
    assert told(alleles)[3:] == ["CONTIG_MISSING", "REF_MISMATCH", "AMBIGUOUS"]


def test_no_record_and_no_allele(genome):
    reader = AlleleReader(genome)
    empty = reader.read([], np.zeros(0, dtype=np.int64), [], [], [])
    assert len(empty) == 0
    assert len(read(genome, "chr1 1 A .")) == 0


def test_the_contig_map_leads_to_the_fasta(genome):
    reader = AlleleReader(genome, contig_map={"NC_1": "chr1", "chr1": "gone"})
    two = [b"A"] * 2, [b"T"] * 2, [b"."] * 2
    alleles = reader.read([b"NC_1", b"chr1"], np.array([1, 1]), *two)
    assert told(alleles) == [(0, "A", "T"), "CONTIG_MISSING"]


def test_codes_of_reasons_start_at_one():
    assert [skip_code(s) for s in Skip] == list(range(1, len(Skip) + 1))


def test_a_variant_has_both_coordinates():
    variant = Variant("chr1", 3, "GT", "G")
    assert (variant.start, variant.end, str(variant)) == (2, 4, "chr1:3:GT:G")


# The simple path reads records of one letter each at once; two ALTs go the general way.
LETTERS = st.sampled_from("ACGTUNRYKBacgtnr*<>[].-?X")


@given(
    sites=st.lists(
        st.tuples(
            st.sampled_from(["chr1", "1", "MT", "chr9"]),
            st.integers(-1, len(BASES) + 2),
            LETTERS,
            LETTERS.filter(lambda x: x != "."),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_both_paths_agree(genome, sites):
    simple = read(genome, *(f"{c} {p} {r} {a}" for c, p, r, a in sites))
    general = read(genome, *(f"{c} {p} {r} {a},{a}" for c, p, r, a in sites))
    doubled = [x for x in told(simple) for _ in range(2)]
    assert told(general) == doubled
    assert general.contig.tolist() == np.repeat(simple.contig, 2).tolist()
    assert general.compared.tolist() == simple.compared.tolist()


def spellings(genome: str, start: int, ref: str, alt: str) -> list[Edit]:
    """Find every way to write the haplotype with the fewest bases, by trying all, leftmost first.

    Written for clarity: for each length of REF, each place; the ALT that would give the haplotype.
    """
    haplotype = genome[:start] + alt + genome[start + len(ref) :]
    extra = len(haplotype) - len(genome)
    for old in range(max(0, -extra), len(genome) + 1):
        new = old + extra
        found = [
            (s, genome[s : s + old], haplotype[s : s + new])
            for s in range(len(genome) - old + 1)
            if genome[:s] == haplotype[:s] and genome[s + old :] == haplotype[s + new :]
        ]
        if found:
            return found
    raise AssertionError


@st.composite
def edits(draw: st.DrawFn, size: int = 14) -> tuple[str, int, str, str]:
    """Draw a genome with repeats, and a change of it that changes something."""
    genome = draw(st.text("ACG", min_size=2, max_size=size)) + draw(st.text("AC", max_size=6))
    start = draw(st.integers(0, len(genome)))
    ref = genome[start : start + draw(st.integers(0, 5))]
    alt = draw(st.one_of(st.text("ACG", max_size=4), st.just(ref + ref), st.just(ref[1:])))
    assume(ref != alt)
    return genome, start, ref, alt


@given(edit=edits(), data=st.data())
def test_a_haplotype_has_one_spelling(edit, data):
    """However a record spells a haplotype, what is stored is the shortest and leftmost spelling."""
    bases, start, ref, alt = edit
    ways = spellings(bases, start, ref, alt)
    start, ref, alt = data.draw(st.sampled_from(ways))
    before = bases[data.draw(st.integers(0, start)) : start]
    end = start + len(ref)
    after = bases[end : data.draw(st.integers(end, len(bases)))]
    # A record without a REF base is no VCF, so take a base of context, before or else after.
    if not before + ref + after:
        before, after = bases[start - 1 : start] if start else "", "" if start else bases[:1]
    pos = start - len(before) + 1
    record = f"x {pos} {before}{ref}{after} {before}{alt}{after}"
    assume(before + alt + after)
    with tempfile.TemporaryDirectory() as folder:
        genome = genome_of(folder, x=bases)
        assert told(read(genome, record)) == [ways[0]]


@given(edit=edits(), data=st.data())
def test_left_alignment_passes_the_origin_of_a_circle(edit, data):
    """On a circle the answer is that of three turns in a line, edited in the middle one."""
    bases, start, ref, alt = edit
    size = len(bases)
    prefix, old, new = trim(to_codes(ref), to_codes(alt))
    expected, want_ref, want_alt = spellings(bases * 3, size + start, ref, alt)[0]
    assume(size + start + prefix - expected < size)  # a circle that is one repeat has no leftmost
    at, got_ref, got_alt = left_align(to_codes(bases), start + prefix, old, new, circular=True)
    assert (to_text(got_ref), to_text(got_alt)) == (want_ref, want_alt)
    assert at == expected % size


@pytest.mark.parametrize("record", ["chrM 1 A AA", "chrM 2 A AA", "chrM 9 A AA", "chrM 10 A AA"])
def test_one_insertion_around_the_origin(genome, record):
    """AACCGGTTAA: the run of four A around the origin begins at base 9."""
    assert told(read(genome, record, circular="chrM")) == [(8, "", "A")]


@pytest.mark.parametrize("record", ["chrM 1 A CA", "chrM 10 A AC"])
def test_before_the_first_and_after_the_last_base_of_a_circle(genome, record):
    assert told(read(genome, record, circular="chrM")) == [(0, "", "C")]


def test_a_line_ends_where_a_circle_goes_on(genome):
    assert told(read(genome, "chrM 1 AA A")) == [(0, "A", "")]
    assert told(read(genome, "chrM 1 AA A", circular="chrM")) == [(8, "A", "")]
    assert told(read(genome, "chrM 10 A AC")) == [(10, "", "C")]


def test_a_repeat_ends_at_n(tmp_path):
    genome = genome_of(tmp_path, x="AAANAAAC", y="AAARAAAC")
    assert told(read(genome, "x 7 AC A", "x 6 AA A")) == [(7, "C", ""), (4, "A", "")]
    assert told(read(genome, "y 6 AA A")) == [(4, "A", "")]


def test_n_does_not_move_along_n():
    codes = to_codes("ANNN")
    at, ref, alt = left_align(codes, 3, codes[3:], codes[:0], circular=False)
    assert (at, to_text(ref), to_text(alt)) == (3, "N", "")


@given(ref=st.text("AC", max_size=6), alt=st.text("AC", max_size=6))
def test_trimming_takes_as_much_as_there_is(ref, alt):
    prefix, old, new = trim(to_codes(ref), to_codes(alt))
    left, right = to_text(old), to_text(new)
    suffix = len(ref) - prefix - len(left)
    assert ref[:prefix] == alt[:prefix]
    assert ref == ref[:prefix] + left + ref[len(ref) - suffix :]
    assert alt == alt[:prefix] + right + ref[len(ref) - suffix :]
    if left and right:
        assert left[0] != right[0]
        assert left[-1] != right[-1]


def test_bcftools_norm_finds_the_same_places(bcftools, tmp_path):
    """Random edits of a genome full of repeats, and the same records through `bcftools norm`."""
    rng = np.random.default_rng(7)
    repeats = ["ACACACAC", "TTTTTT", "GCAGCAGCA", "CCCC", "GATTACA"]
    bases = "".join(rng.choice(repeats, 60))
    lines, records = [], []
    for number in range(1500):
        start, context = int(rng.integers(0, len(bases) - 20)), int(rng.integers(0, 3))
        old, new = (int(x) for x in rng.integers(0, 7, 2))
        inserted = (
            bases[start : start + new] if number % 2 else "".join(rng.choice(list("AC"), new))
        )
        before = bases[max(0, start - context) : start] or bases[start - 1 : start]
        after = "" if before else bases[start + old]
        ref = before + bases[start : start + old] + after
        alt = before + inserted + after
        if ref == alt:
            continue
        pos = start - len(before) + 1
        records.append(f"x {pos} {ref} {alt}")
        lines.append(f"x\t{pos}\t{len(lines)}\t{ref}\t{alt}\t.\t.\t.\n")
    genome = genome_of(tmp_path, x=bases)
    head = f"##fileformat=VCFv4.2\n##contig=<ID=x,length={len(bases)}>\n"
    head += "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    vcf = tmp_path / "in.vcf"
    vcf.write_text(head + "".join(lines))
    command = [bcftools, "norm", "-c", "e", "-f", genome.path, str(vcf)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    theirs: dict[int, Edit] = {}
    for line in done.stdout.splitlines():
        if not line.startswith("#"):
            _, pos, name, ref, alt = line.split("\t")[:5]
            theirs[int(name)] = bare(int(pos) - 1, ref, alt)
    ours = told(read(genome, *records))
    assert len(ours) > 1200
    assert sum(not ref or not alt for _, ref, alt in theirs.values()) > 300
    assert ours == [theirs[i] for i in range(len(ours))]


def bare(start: int, ref: str, alt: str) -> Edit:
    """Drop the base of context that VCF demands; at POS 1 it stands behind."""
    while ref and alt and ref[-1] == alt[-1]:
        ref, alt = ref[:-1], alt[:-1]
    while ref and alt and ref[0] == alt[0]:
        start, ref, alt = start + 1, ref[1:], alt[1:]
    return start, ref, alt
