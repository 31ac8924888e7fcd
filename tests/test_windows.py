"""Windows: REF and ALT haplotypes, compared with plain string surgery on the contig."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_annotate.card import ModelCard
from glm_annotate.encoding import Encoder, EncoderSpec, Vocab, make_encoder
from glm_annotate.genome import Genome, reverse_complement, to_text
from glm_annotate.variants import AlleleReader, Alleles
from glm_annotate.windows import WindowBatch, cut_windows, fit, too_long

SPAN = 9  # of the smallest contigs drawn below


def card_of(context: int, anchor: int, **more: object) -> ModelCard:
    tensor = {"name": "x", "axes": ["batch", "row"]}
    rest = {"encoder": {"kind": "bytes"}, "inputs": {"rows": tensor}, "outputs": {"logits": tensor}}
    values = {"name": "toy", "tag": "TOY", "objective": "masked", **rest, **more}
    return ModelCard.model_validate({**values, "context": context, "anchor": anchor})


def genome_of(folder: str | Path, bases: str) -> Genome:
    path = Path(folder) / "g.fa"
    path.write_text(f">x\n{bases}\n>y\n{bases[::-1]}\n")
    return Genome(path)


def read(genome: Genome, records: list[tuple[str, int, str, str]], circular: bool) -> Alleles:
    names = frozenset(genome.contigs) if circular else frozenset()
    columns = [[r[i].encode() for r in records] for i in (0, 2, 3)]
    pos = np.array([r[1] for r in records], dtype=np.int64)
    infos = [b"SVLEN=3"] * len(records)
    reader = AlleleReader(genome, circular=names)
    return reader.read(columns[0], pos, columns[1], columns[2], infos)


def cut(genome: Genome, alleles: Alleles, card: ModelCard, circular: bool) -> list[WindowBatch]:
    chosen = np.flatnonzero((alleles.skip == 0) & ~too_long(alleles, card))
    names = frozenset(genome.contigs) if circular else frozenset()
    return list(cut_windows(genome, alleles, chosen, card, names))


def by_hand(
    bases: str, start: int, ref: str, alt: str, context: int, anchor: int, circular: bool
) -> tuple[str, str]:
    """Edit a contig with much N, or many turns of itself, on both sides, and cut it as a string."""
    side = context + len(ref) + len(alt)
    turns = side // len(bases) + 1 if circular else 0
    around = bases * turns if circular else "N" * side
    line, at = around + bases + around, len(around) + start
    # A window longer than a circle shows the site again, as the FASTA has it.
    edited = line[:at] + ref + line[at + len(ref) :]
    haplotype = line[:at] + alt + line[at + len(ref) :]
    left = at - anchor
    return edited[left : left + context], haplotype[left : left + context]


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, list[tuple[str, int, str, str]], int, int, bool]:
    bases = draw(st.text("ACGT", min_size=SPAN, max_size=40))
    records = []
    for _ in range(draw(st.integers(1, 6))):
        name = draw(st.sampled_from("xy"))
        contig = bases if name == "x" else bases[::-1]
        start = draw(st.integers(0, len(bases) - 1))
        ref = contig[start : start + draw(st.integers(1, 5))]
        alt = draw(st.one_of(st.sampled_from("ACGT"), st.text("ACGT", min_size=1, max_size=6)))
        records.append((name, start + 1, ref, alt))
    context = draw(st.integers(1, 60))
    return bases, records, context, draw(st.integers(0, context - 1)), draw(st.booleans())


@given(case=cases())
def test_windows_are_string_surgery(case):
    """SNVs, MNVs, insertions, deletions and both, near and past the ends, on lines and circles."""
    bases, records, context, anchor, circular = case
    card = card_of(context, anchor)
    with tempfile.TemporaryDirectory() as folder:
        genome = genome_of(folder, bases)
        alleles = read(genome, records, circular)
        batches = cut(genome, alleles, card, circular)
    seen = []
    for batch in batches:
        assert batch.length == context
        assert batch.offset == anchor
        assert batch.ref.shape == batch.alt.shape == (batch.allele.size, context)
        for row, i in enumerate(batch.allele.tolist()):
            ref, alt = (to_text(x) for x in alleles.edit(i))
            contig = bases if records[i][0] == "x" else bases[::-1]
            start = int(alleles.start[i])
            want = by_hand(contig, start, ref, alt, context, anchor, circular)
            assert (to_text(batch.ref[row]), to_text(batch.alt[row])) == want
            assert batch.left[row] == start - anchor
            assert (batch.ref_len, batch.alt_len) == (len(ref), len(alt))
            differ = [anchor + k for k, (r, a) in enumerate(zip(ref, alt, strict=False)) if r != a]
            assert batch.changed == (tuple(differ) if len(ref) == len(alt) else ())
            # The haplotypes agree up to the anchor, and hold the allele behind it.
            assert (batch.ref[row, :anchor] == batch.alt[row, :anchor]).all()
            assert to_text(batch.alt[row, anchor : anchor + len(alt)]) == alt
            seen.append(i)
    short = [
        i
        for i in range(len(alleles))
        if not alleles.skip[i] and anchor + max(alleles.ref_len[i], alleles.alt_len[i]) <= context
    ]
    assert sorted(seen) == short


#         0123456789012345
LINE = "ACGTTGCAGGATCCAT"


@pytest.mark.parametrize(
    ("record", "left", "ref", "alt"),
    [
        # context 8, anchor 3: three bases before the first changed one.
        (("x", 6, "G", "T"), 2, "GTTGCAGG", "GTTTCAGG"),
        (("x", 1, "A", "C"), -3, "NNNACGTT", "NNNCCGTT"),
        (("x", 16, "T", "G"), 12, "CCATNNNN", "CCAGNNNN"),
        (("x", 1, "A", "CA"), -3, "NNNACGTT", "NNNCACGT"),
        (("x", 1, "A", "AA"), -3, "NNNACGTT", "NNNAACGT"),
        (("x", 1, "AC", "C"), -3, "NNNACGTT", "NNNCGTTG"),
        (("x", 16, "T", "TC"), 13, "CATNNNNN", "CATCNNNN"),
        (("x", 13, "CCAT", "C"), 10, "ATCCATNN", "ATCNNNNN"),
        (("x", 6, "GCA", "TT"), 2, "GTTGCAGG", "GTTTTGGA"),
        (("x", 6, "GCAG", "TCAT"), 2, "GTTGCAGG", "GTTTCATG"),
        (("x", 5, "T", "<DEL>"), 2, "GTTGCAGG", "GTTGGATC"),
        (("x", 5, "T", "<DUP>"), 2, "GTTGCAGG", "GTTGCAGC"),
        (("x", 5, "T", "<INV>"), 2, "GTTGCAGG", "GTTTGCGG"),
        # Alleles that fill the window behind the anchor.
        (("x", 6, "G", "TACAC"), 2, "GTTGCAGG", "GTTTACAC"),
        (("x", 5, "TGCAGG", "T"), 2, "GTTGCAGG", "GTTATCCA"),
    ],
)
def test_windows_by_hand(tmp_path, record, left, ref, alt):
    genome = genome_of(tmp_path, LINE)
    card = card_of(8, 3)
    (batch,) = cut(genome, read(genome, [record], False), card, False)
    assert (int(batch.left[0]), to_text(batch.ref[0]), to_text(batch.alt[0])) == (left, ref, alt)


@pytest.mark.parametrize(("inserted", "fits"), [("A" * 5, True), ("A" * 6, False)])
def test_an_allele_longer_than_the_window_is_too_long(tmp_path, inserted, fits):
    genome = genome_of(tmp_path, LINE)
    alleles = read(genome, [("x", 3, "G", "G" + inserted)], False)
    assert too_long(alleles, card_of(8, 3)).tolist() == [not fits]
    deleted = read(genome, [("x", 3, LINE[2 : 3 + len(inserted)], "G")], False)
    assert too_long(deleted, card_of(8, 3)).tolist() == [not fits]


def test_a_long_symbolic_allele_is_too_long_without_its_bases(tmp_path):
    genome = genome_of(tmp_path, LINE)
    reader = AlleleReader(genome, longest=2)
    alleles = reader.read([b"x"], np.array([5]), [b"T"], [b"<DEL>"], [b"SVLEN=6"])
    assert alleles.edits == {}
    assert too_long(alleles, card_of(8, 3)).tolist() == [True]


def test_the_records_base_stands_where_the_fasta_has_a_code(tmp_path):
    path = tmp_path / "g.fa"
    path.write_text(">x\nACRYA\n>y\nA\n")
    genome = Genome(path)
    (batch,) = cut(genome, read(genome, [("x", 3, "G", "T")], False), card_of(5, 2), False)
    assert (to_text(batch.ref[0]), to_text(batch.alt[0])) == ("ACGYA", "ACTYA")


def test_one_batch_a_shape(tmp_path):
    genome = genome_of(tmp_path, LINE)
    records = [
        *[("x", 6, "G", "T"), ("y", 3, "CCT", "GGA"), ("x", 1, "A", "G"), ("x", 6, "GCA", "TTT")],
        *[("x", 6, "GCA", "TCT"), ("y", 1, "T", "TA"), ("x", 3, "G", "GA")],
    ]
    batches = cut(genome, read(genome, records, False), card_of(12, 3), False)
    found = {tuple(b.allele.tolist()): (b.ref_len, b.alt_len, b.changed) for b in batches}
    assert found.pop((0, 2)) == (1, 1, (3,))
    assert found.pop((4,)) == (3, 3, (3, 5))
    assert found.pop((5, 6)) == (0, 1, ())
    three = (3, 3, (3, 4, 5))
    assert [found.pop(key) for key in list(found)] == [three]


def test_take_and_narrow(tmp_path):
    genome = genome_of(tmp_path, LINE)
    records = [("x", p, LINE[p - 1], "ACGT"[p % 4]) for p in (4, 7, 11)]
    (batch,) = cut(genome, read(genome, records, False), card_of(9, 4), False)
    few = batch.take(np.array([2, 0]))
    assert few.allele.tolist() == [batch.allele[2], batch.allele[0]]
    small = few.narrowed(3, 2)
    assert (small.length, small.offset, small.changed) == (4, 1, (1,))
    assert small.left.tolist() == [int(x) + 3 for x in few.left]
    for whole, part in ((few.ref, small.ref), (few.alt, small.alt)):
        assert [to_text(p) for p in part] == [to_text(w)[3:7] for w in whole]


class Runs:
    """Rows are bases, but up to three A in a run share one; one row more for every sequence."""

    spec = EncoderSpec(kind="bytes", vocab=Vocab(prefix=(0,)))

    @staticmethod
    def count(text: str) -> int:
        rows, length = 1, 0
        for before, base in zip(" " + text, text, strict=False):
            length = length + 1 if base == before == "A" and length < 3 else 1
            rows += length == 1
        return rows

    def encode(self, codes):
        inner = make_encoder(self.spec)
        counts = np.array([self.count(to_text(c)) for c in codes])
        groups = []
        for count in np.unique(counts):
            same = np.flatnonzero(counts == count)
            part = inner.encode(codes[same, : max(0, count - 1)])[0]
            groups.append(type(part)(same, part.rows, part.spans))
        return groups

    def base_ids(self, width, offset):
        return None


def encoder_of(name: str) -> Encoder:
    if name == "runs":
        return Runs()
    singles = {**dict(zip("ACGT", range(80, 84), strict=True)), "N": 84}
    vocab = Vocab(single_ids=singles, unk_id=85, prefix=(86,), suffix=(87,))
    return make_encoder(
        EncoderSpec(kind="kmer", k=3, stride=3 if name == "blocks" else 1, vocab=vocab)
    )


def rows_of(encoder: Encoder, codes: np.ndarray) -> int:
    return max(g.rows.shape[1] for g in encoder.encode(codes[None]))


@given(case=cases(), limit=st.integers(3, 20), name=st.sampled_from(["runs", "blocks", "overlap"]))
def test_dynamic_windows_fit_evenly_and_alone(case, limit, name):
    """What an allele's window becomes depends on that allele, and its rows fit on both strands."""
    bases, records, context, anchor, circular = case
    encoder = encoder_of(name)
    card = card_of(context, anchor, window={"kind": "dynamic", "max_tokens": limit})
    with tempfile.TemporaryDirectory() as folder:
        genome = genome_of(folder, bases)
        alleles = read(genome, records, circular)
        for batch in cut(genome, alleles, card, circular):
            parts = list(fit(batch, card, encoder))
            came = [i for part in parts for i in part.allele.tolist()]
            assert len(came) == len(set(came))
            assert set(came) <= set(batch.allele.tolist())
            for part in parts:
                check_part(part, batch, encoder, limit)
            for row, i in enumerate(batch.allele.tolist()):
                alone = list(fit(batch.take(np.array([row])), card, encoder))
                assert [(p.left.tolist(), p.length) for p in alone] == [
                    ([int(p.left[p.allele == i][0])], p.length) for p in parts if i in p.allele
                ]
                if i not in came:  # only where not even the bare allele fits
                    needed = max(1, batch.ref_len, batch.alt_len)
                    bare = slice(batch.offset, batch.offset + needed)
                    assert largest(batch, row, bare, encoder) > limit


def largest(batch: WindowBatch, row: int, keep: slice, encoder: Encoder) -> int:
    both = [batch.ref[row, keep], batch.alt[row, keep]]
    return max(rows_of(encoder, x) for codes in both for x in (codes, reverse_complement(codes)))


def check_part(part: WindowBatch, whole: WindowBatch, encoder: Encoder, limit: int) -> None:
    cut_left = whole.offset - part.offset
    cut_right = whole.length - part.length - cut_left
    assert min(cut_left, cut_right) >= 0
    assert part.changed == tuple(x - cut_left for x in whole.changed)
    needed = max(1, part.ref_len, part.alt_len)
    left_over, right_over = part.offset, part.length - part.offset - needed
    assert min(left_over, right_over) >= 0
    if left_over and right_over:  # an odd number of bases leaves one more to one side each round
        assert abs(cut_left - cut_right) <= 8
    for row, i in enumerate(part.allele.tolist()):
        at = int(np.flatnonzero(whole.allele == i)[0])
        keep = slice(cut_left, cut_left + part.length)
        assert (part.ref[row] == whole.ref[at, keep]).all()
        assert (part.alt[row] == whole.alt[at, keep]).all()
        assert part.left[row] == whole.left[at] + cut_left
        assert largest(whole, at, keep, encoder) <= limit


def test_fixed_windows_stay_as_they_are(tmp_path):
    genome = genome_of(tmp_path, LINE)
    (batch,) = cut(genome, read(genome, [("x", 6, "G", "T")], False), card_of(8, 3), False)
    card = card_of(8, 3, window={"kind": "fixed", "max_tokens": 2})
    (same,) = fit(batch, card, encoder_of("overlap"))
    assert same is batch
