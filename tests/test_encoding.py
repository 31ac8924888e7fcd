"""Encoders, compared with slow plain-Python ones and with ids known from the models' papers."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable
from types import FrameType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from glm_annotate import encoding
from glm_annotate.encoding import (
    Bpe,
    Encoded,
    Encoder,
    EncoderSpec,
    make_encoder,
    mask_rows,
    refused,
)
from glm_annotate.errors import BundleError, InputError
from glm_annotate.genome import to_codes

Row = tuple[int, int, int]  # id, start, end

NT_SINGLES = {"A": 4102, "T": 4103, "C": 4104, "G": 4105, "N": 4106}


def spec_of(kind: str, k: int = 1, stride: int = 1, **vocab: object) -> EncoderSpec:
    return EncoderSpec.model_validate({"kind": kind, "k": k, "stride": stride, "vocab": vocab})


def kmers(k: int, stride: int, **more: object) -> EncoderSpec:
    """Make a small vocabulary that resembles the Nucleotide Transformer's."""
    first = 4**k + 6
    singles = {base: first + i for i, base in enumerate("ATCGN")}
    vocab = {"order": "ATCG", "first_id": 6, "unk_id": 0, "mask_id": 2, "single_ids": singles}
    return spec_of("kmer", k, stride, **{**vocab, "prefix": [3], **more})


DNABERT = {"order": "ATCG", "first_id": 5, "pad_id": 0, "unk_id": 1, "mask_id": 4}
NT = {"order": "ATCG", "first_id": 6, "unk_id": 0, "pad_id": 1, "mask_id": 2, "prefix": [3]}
SPECS = {
    "dnabert3": spec_of("kmer", 3, 1, **DNABERT, prefix=[2], suffix=[3]),
    "dnabert6": spec_of("kmer", 6, 1, **DNABERT, prefix=[2], suffix=[3]),
    "nt6": spec_of("kmer", 6, 6, **NT, single_ids=NT_SINGLES),
    "blocks3": kmers(3, 3),
    "blocks2": kmers(2, 2),
    "blocks-mask": kmers(3, 3, n="mask"),
    "blocks-drop": kmers(3, 3, tail="drop"),
    "blocks-drop-mask": kmers(3, 3, tail="drop", n="mask"),
    "half-overlap": kmers(4, 2, n="mask", suffix=[4, 5]),
    "hyenadna": spec_of("kmer", first_id=7, single_ids={"N": 11}, pad_id=4, mask_id=3, unk_id=6),
    "gpn": spec_of("kmer", first_id=3, unk_id=2, pad_id=0, mask_id=1),
    "letters-mask": spec_of("kmer", order="TGCA", first_id=3, unk_id=2, mask_id=1, n="mask"),
    "evo": spec_of("bytes", pad_id=1, prefix=[0]),
    "bytes-mask": spec_of("bytes", mask_id=200, n="mask", suffix=[7]),
}


def slow(spec: EncoderSpec, text: str) -> list[Row]:
    """Encode one sequence token by token."""
    vocab = spec.vocab
    if spec.kind == "bytes":
        masked = vocab.n == "mask"
        body = [
            (vocab.mask_id if masked and base not in "ACGT" else ord(base), i, i + 1)
            for i, base in enumerate(text)
        ]
    else:
        body = slow_kmers(spec, re.sub("[^ACGT]", "N", text))
    before, after = ([(i, -1, -1) for i in ids] for ids in (vocab.prefix, vocab.suffix))
    return [*before, *body, *after]


def slow_kmers(spec: EncoderSpec, text: str) -> list[Row]:
    vocab, k = spec.vocab, spec.k
    names = ("".join(x) for x in itertools.product(vocab.order, repeat=k))
    table = {name: vocab.first_id + i for i, name in enumerate(names)}
    single = dict(table if k == 1 else {}, **vocab.single_ids)
    single.setdefault("N", vocab.unk_id)
    other = vocab.unk_id
    if vocab.n == "mask":
        single["N"] = other = vocab.mask_id
    if k == 1:
        return [(single[base], i, i + 1) for i, base in enumerate(text)]
    breaks = spec.stride == k and vocab.n == "token"
    rows, at = [], 0
    for piece in re.split("(N)", text) if breaks else [text]:
        if piece == "N" and breaks:
            rows.append((single["N"], at, at + 1))
        else:
            starts = range(0, len(piece) - k + 1, spec.stride)
            rows += [(table.get(piece[s : s + k], other), at + s, at + s + k) for s in starts]
            tail = len(piece) % k if spec.stride == k and vocab.tail == "single" else 0
            ends = range(len(piece) - tail, len(piece))
            rows += [(single[piece[e]], at + e, at + e + 1) for e in ends]
        at += len(piece)
    return rows


def codes_of(*texts: str) -> np.ndarray:
    return np.stack([to_codes(x) for x in texts])


def rows_by_sequence(groups: list[Encoded], count: int) -> list[list[Row]]:
    out: list[list[Row]] = [[] for _ in range(count)]
    for group in groups:
        assert group.rows.shape[0] == group.index.size
        assert group.spans.shape == (group.spans.shape[0], group.rows.shape[1], 2)
        assert group.spans.dtype == np.int32
        for place, i in enumerate(group.index.tolist()):
            assert not out[i]
            spans = group.spans_of(np.array([place]))[0]
            ids = group.rows[place].tolist()
            out[i] = [(t, s, e) for t, (s, e) in zip(ids, spans.tolist(), strict=True)]
    return out


@st.composite
def batches(draw: st.DrawFn, least: int = 1) -> list[str]:
    length = draw(st.integers(least, 30))
    letters = st.sampled_from("ACGT" * 6 + "NR")
    clean = st.text("ACGT", min_size=length, max_size=length)
    mixed = st.text(letters, min_size=length, max_size=length)
    return draw(st.lists(st.one_of(clean, mixed), min_size=1, max_size=6))


@pytest.mark.parametrize("name", sorted(SPECS))
@given(texts=batches())
def test_encoders_against_slow_ones(name, texts):
    encoder = make_encoder(SPECS[name])
    groups = encoder.encode(codes_of(*texts))
    assert rows_by_sequence(groups, len(texts)) == [slow(SPECS[name], t) for t in texts]
    assert len({g.rows.shape[1] for g in groups if g.spans.shape[0] != 1}) == sum(
        g.spans.shape[0] != 1 for g in groups
    )


PARTITIONS = [n for n in SPECS if not re.search("dnabert|drop|half", n)]


@pytest.mark.parametrize("name", PARTITIONS)
@given(texts=batches())
def test_spans_partition_the_bases(name, texts):
    for rows in rows_by_sequence(make_encoder(SPECS[name]).encode(codes_of(*texts)), len(texts)):
        spans = [(s, e) for _, s, e in rows if s >= 0]
        assert [s for s, _ in spans] == [0, *(e for _, e in spans[:-1])]
        assert spans[-1][1] == len(texts[0])


@pytest.mark.parametrize(
    ("name", "text", "ids"),
    [
        # The order is A, T, C, G: AAA is the first k-mer, AAT the second, GGG the last.
        ("dnabert3", "AAAT", [2, 5, 6, 3]),
        ("dnabert3", "GGGN", [2, 68, 1, 3]),
        ("dnabert6", "GGGGGG", [2, 4100, 3]),
        ("nt6", "AAAAAAAAAAAT", [3, 6, 7]),
        ("nt6", "GGGGGGA", [3, 4101, 4102]),
        ("nt6", "NNT", [3, 4106, 4106, 4103]),
        ("hyenadna", "ACGTN", [7, 8, 9, 10, 11]),
        ("gpn", "ACGTN", [3, 4, 5, 6, 2]),
        ("evo", "ACGTNR", [0, 65, 67, 71, 84, 78, 82]),
    ],
)
def test_published_ids(name, text, ids):
    (group,) = make_encoder(SPECS[name]).encode(codes_of(text))
    assert group.rows[0].tolist() == ids


def test_the_nucleotide_transformers_example():
    """ATTCCGATTNCGATTCCGA is <cls> ATTCCG A T T N CGATTC C G A."""
    pieces = ["ATTCCG", "A", "T", "T", "N", "CGATTC", "C", "G", "A"]
    order = "ATCG"
    ids = [
        NT_SINGLES[p] if len(p) == 1 else 6 + int("".join(str(order.index(b)) for b in p), 4)
        for p in pieces
    ]
    (group,) = make_encoder(SPECS["nt6"]).encode(codes_of("".join(pieces)))
    assert group.rows[0].tolist() == [3, *ids]
    ends = list(itertools.accumulate(map(len, pieces)))
    assert group.spans[0, 1:, 1].tolist() == ends


@given(texts=batches())
def test_one_hot(texts):
    order = "GATC"
    (group,) = make_encoder(spec_of("one_hot", order=order, n="zeros")).encode(codes_of(*texts))
    want = [[[float(b == c) for c in order] for b in text] for text in texts]
    assert group.rows.dtype == np.float32
    assert group.rows.tolist() == want
    assert group.spans[0].tolist() == [[i, i + 1] for i in range(len(texts[0]))]
    assert group.index.tolist() == list(range(len(texts)))


@pytest.mark.parametrize(
    "spec",
    [
        spec_of("one_hot", n="error"),
        spec_of("kmer", n="error"),
        spec_of("kmer", 3, 3, n="error", single_ids=dict(zip("ACGT", range(70, 74), strict=True))),
        spec_of("bytes", n="error"),
    ],
    ids=lambda s: f"{s.kind}{s.k}",
)
def test_n_can_be_refused(spec):
    encoder = make_encoder(spec)
    assert refused(codes_of("ACGTA", "ACNTA", "RAAAA"), spec).tolist() == [False, True, True]
    assert len(encoder.encode(codes_of("ACGTA"))) == 1
    with pytest.raises(InputError, match="takes no N"):
        encoder.encode(codes_of("ACGTA", "ACNTA"))


@pytest.mark.parametrize("name", sorted(SPECS))
def test_a_spec_that_takes_n_refuses_nothing(name):
    assert not refused(codes_of("ACN", "NNN"), SPECS[name]).any()


@pytest.mark.parametrize(
    ("spec", "dtype"),
    [
        (SPECS["gpn"], np.uint8),
        (SPECS["evo"], np.uint8),
        (SPECS["dnabert3"], np.uint8),
        (SPECS["nt6"], np.uint16),
        (spec_of("kmer", first_id=252, unk_id=0), np.uint8),
        (spec_of("kmer", first_id=253, unk_id=0), np.uint16),
        (spec_of("kmer", unk_id=0, mask_id=256), np.uint16),
        (spec_of("kmer", unk_id=0, pad_id=65535), np.uint16),
        (spec_of("kmer", unk_id=0, pad_id=65536), np.int32),
        (spec_of("kmer", 8, 1, unk_id=0), np.uint16),
        (spec_of("kmer", 8, 1, first_id=1, unk_id=0), np.int32),
        (spec_of("bytes", suffix=[256]), np.uint16),
    ],
)
def test_ids_take_the_smallest_type_that_holds_the_vocabulary(spec, dtype):
    for text in ("ACGTTGCAA", "ACNTTGCAA"):
        for group in make_encoder(spec).encode(codes_of(text)):
            assert group.rows.dtype == dtype
            if spec.vocab.mask_id is not None:
                masked = mask_rows(group.rows, np.ones(group.rows.shape[1], dtype=bool), spec)
                assert masked.tolist() == [[spec.vocab.mask_id] * group.rows.shape[1]]
            assert [slow(spec, text)] == rows_by_sequence([group], 1)


@pytest.mark.parametrize("name", ["gpn", "hyenadna", "letters-mask", "evo", "dnabert3", "blocks2"])
def test_base_ids(name):
    """For each k-mer of the other bases, the four ids differ in the base at the offset alone."""
    spec = SPECS[name]
    encoder, k = make_encoder(spec), spec.k
    for offset in range(k):
        ids = encoder.base_ids(k, offset)
        assert ids.shape == (4, 4 ** (k - 1))
        rest = ["".join(x) for x in itertools.product(spec.vocab.order, repeat=k - 1)]
        for base, row in zip("ACGT", ids.tolist(), strict=True):
            words = [r[:offset] + base + r[offset:] for r in rest]
            first = len(spec.vocab.prefix)
            assert row == [slow(spec, w)[first][0] for w in words]


def test_base_ids_of_the_tail_and_of_channels():
    assert make_encoder(SPECS["nt6"]).base_ids(1, 0).tolist() == [[4102], [4104], [4105], [4103]]
    order = spec_of("one_hot", order="TGCA", n="zeros")
    assert make_encoder(order).base_ids(1, 0).tolist() == [[3], [2], [1], [0]]


def test_single_ids_are_asked_for_only_where_a_tail_is_met():
    encoder = make_encoder(spec_of("kmer", 3, 3, unk_id=0, first_id=1))
    assert encoder.encode(codes_of("AAACCC"))[0].rows.tolist() == [[1, 22]]
    for text in ("AAAC", "AANAAA"):
        with pytest.raises(BundleError, match="single_ids of A, C, G and T"):
            encoder.encode(codes_of(text))
    with pytest.raises(BundleError, match="single_ids"):
        encoder.base_ids(1, 0)


@pytest.mark.parametrize("shared", [True, False])
def test_masking_ids_and_channels(shared):
    touched = np.array([[0, 1, 0, 1], [1, 0, 0, 0]], dtype=bool)
    touched = touched[0] if shared else touched
    for spec, masked in ((SPECS["gpn"], 1), (spec_of("one_hot"), 0.0)):
        (group,) = make_encoder(spec).encode(codes_of("ACGT", "TTTT"))
        before = group.rows.copy()
        out = mask_rows(group.rows, touched, spec)
        assert (group.rows == before).all()
        assert out.dtype == before.dtype
        every = np.broadcast_to(touched, (2, 4))
        for i, t in itertools.product(range(2), range(4)):
            assert (out[i, t] == (masked if every[i, t] else before[i, t])).all()


def test_there_is_no_masking_without_a_mask():
    with pytest.raises(BundleError, match="mask_id"):
        mask_rows(np.zeros((1, 2), dtype=np.uint8), np.ones(2, dtype=bool), SPECS["evo"])


@pytest.mark.parametrize("name", sorted(SPECS))
def test_there_is_no_loop_over_bases_or_windows(name):
    """As many lines run for 300 windows of 240 bases as for 6 of 24, all with their N in place."""
    encoder = make_encoder(SPECS[name])

    def batch(count: int, length: int) -> np.ndarray:
        codes = np.random.default_rng(1).integers(0, 4, (count, length)).astype(np.uint8)
        codes[::2, length // 2] = 4
        return codes

    encoder.encode(batch(2, 12))
    lines = [lines_run(lambda b=b: encoder.encode(b)) for b in (batch(6, 24), batch(300, 240))]
    assert 3 < lines[0] == lines[1]


def lines_run(action: Callable[[], object]) -> int:
    count = 0

    def trace(frame: FrameType, event: str, arg: object) -> object:
        nonlocal count
        # The garbage collector may run a finaliser of somebody else at any time.
        count += event == "line" and frame.f_code.co_filename == encoding.__file__
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return count


def test_windows_shorter_than_a_kmer():
    assert make_encoder(SPECS["dnabert6"]).encode(codes_of("ACG"))[0].rows.tolist() == [[2, 3]]
    assert make_encoder(SPECS["nt6"]).encode(codes_of("AC"))[0].rows.tolist() == [[3, 4102, 4104]]


# --- BPE

WORDS = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "-", *"ACGTN"]
MERGES = [("A", "C"), ("G", "T"), ("AC", "GT"), ("N", "N"), ("T", "T"), ("T", "A"), ("AC", "A")]


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    """Give a tokenizer in the manner of GENA-LM: long runs of N become one '-'."""
    tokenizers = pytest.importorskip("tokenizers")
    vocab = {w: i for i, w in enumerate([*WORDS, *map("".join, MERGES)])}
    model = tokenizers.models.BPE(vocab, MERGES, unk_token="[UNK]")
    made = tokenizers.Tokenizer(model)
    many_n = tokenizers.normalizers.Replace(tokenizers.Regex("N{10,}"), "-")
    made.normalizer = tokenizers.normalizers.Sequence([tokenizers.normalizers.Strip(), many_n])
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split("-", "isolated")
    made.enable_truncation(4)
    made.enable_padding(length=50)
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    made.save(str(path))
    return path


def slow_bpe(text: str, prefix: tuple[int, ...], suffix: tuple[int, ...]) -> list[Row]:
    """Apply the merges one by one, best first; a token's bases are those it was made of."""
    ids = {w: i for i, w in enumerate([*WORDS, *map("".join, MERGES)])}
    rows, at = [(i, -1, -1) for i in prefix], 0
    for piece in re.split("(N{10,})", text):
        parts = ["-"] if re.fullmatch("N{10,}", piece) else list(piece)
        while True:
            pairs = list(itertools.pairwise(parts))
            known = [MERGES.index(p) for p in pairs if p in MERGES]
            if not known:
                break
            best = pairs.index(MERGES[min(known)])
            parts[best : best + 2] = ["".join(parts[best : best + 2])]
        for part in parts:
            size = len(piece) if part == "-" else len(part)
            rows.append((ids.get(part, 0), at, at + size))
            at += size
    return rows + [(i, -1, -1) for i in suffix]


def bpe_encoder(path, **vocab: object) -> Encoder:
    return make_encoder(spec_of("bpe", **vocab), path)


@st.composite
def texts_with_gaps(draw: st.DrawFn) -> list[str]:
    length = draw(st.integers(1, 40))

    def one() -> str:
        pieces = st.one_of(
            st.text("ACGT", max_size=12),
            st.sampled_from(["N", "NNN", "R", "N" * 9, "N" * 10, "N" * 15, "N" * 40]),
        )
        return ("".join(draw(st.lists(pieces, max_size=6))) + "GATTACA" * 6)[:length]

    return [one() for _ in range(draw(st.integers(1, 5)))]


@given(texts=texts_with_gaps())
def test_bpe_against_a_slow_one(bpe, texts):
    encoder = bpe_encoder(bpe, prefix=[1], suffix=[2])
    got = rows_by_sequence(encoder.encode(codes_of(*texts)), len(texts))
    assert got == [slow_bpe(t, (1,), (2,)) for t in texts]


def test_bpe_spans_fill_the_gaps_of_n(bpe):
    """The tokenizer itself puts the '-' of 15 N on the last one only."""
    text = "ACGT" + "N" * 15 + "TA"
    (group,) = bpe_encoder(bpe).encode(codes_of(text))
    assert [(WORDS + ["".join(m) for m in MERGES])[i] for i in group.rows[0]] == ["ACGT", "-", "TA"]
    assert group.spans[0].tolist() == [[0, 4], [4, 19], [19, 21]]


def test_bpe_spans_reach_the_end_where_the_tokenizer_drops_it(bpe, tmp_path):
    text = bpe.read_text()
    assert text.count('"Isolated"') == 1
    path = tmp_path / "tokenizer.json"
    path.write_text(text.replace('"Isolated"', '"Removed"'))
    (group,) = bpe_encoder(path).encode(codes_of("ACGT" + "N" * 12 + "TA" + "N" * 12))
    assert group.spans[0].tolist() == [[0, 4], [4, 30]]


def test_bpe_rows_are_as_long_as_the_sequence_asks(bpe):
    """Truncation and padding that the file has switched on are switched off."""
    (group,) = bpe_encoder(bpe).encode(codes_of("G" * 60))
    assert group.rows.shape == (1, 60)
    assert group.rows.dtype == np.uint8


def test_bpe_has_no_ids_by_base_and_may_refuse_n(bpe):
    encoder = bpe_encoder(bpe, n="error")
    assert encoder.base_ids(1, 0) is None
    with pytest.raises(InputError, match="takes no N"):
        encoder.encode(codes_of("ACN"))


def test_bpe_with_a_large_vocabulary(bpe, tmp_path):
    text = bpe.read_text()
    assert text.count('"[MASK]": 4') == 1
    (tmp_path / "tokenizer.json").write_text(text.replace('"[MASK]": 4', '"[MASK]": 70000'))
    (group,) = bpe_encoder(tmp_path / "tokenizer.json").encode(codes_of("ACGT"))
    assert group.rows.dtype == np.int32


def test_bpe_needs_its_file_and_its_package(bpe, tmp_path, monkeypatch):
    spec = spec_of("bpe")
    for path in (None, tmp_path / "absent.json"):
        with pytest.raises(BundleError, match=r"needs tokenizer\.json"):
            make_encoder(spec, path)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(BundleError, match="pip install 'glm_annotate"):
        Bpe(spec, bpe)


# --- specs


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "kmer", "k": 2, "stride": 3}, "stride 3 is larger"),
        ({"kind": "kmer", "k": 0}, "greater than or equal to 1"),
        ({"kind": "kmer", "k": 13}, "less than or equal to 12"),
        ({"kind": "one_hot", "k": 2}, "one_hot has k = 1"),
        ({"kind": "bytes", "k": 2, "stride": 2}, "bytes has k = 1"),
        ({"kind": "bpe", "k": 6}, "bpe has k = 1"),
        ({"kind": "kmer", "vocab": {"n": "zeros"}}, "n = zeros is for one_hot"),
        ({"kind": "kmer", "vocab": {"n": "mask"}}, "needs a mask_id"),
        ({"kind": "bpe", "vocab": {"n": "mask", "mask_id": 4}}, "n = mask is for"),
        ({"kind": "one_hot", "vocab": {"prefix": [1]}}, "neither prefix nor suffix"),
        ({"kind": "kmer", "vocab": {"order": "ACG"}}, "order 'ACG'"),
        ({"kind": "kmer", "vocab": {"order": "ACGU"}}, "order 'ACGU'"),
        ({"kind": "kmer", "vocab": {"single_ids": {"X": 4}}}, "single_ids names 'X'"),
        ({"kind": "kmer", "vocab": {"unk_id": -1}}, "greater than or equal to 0"),
        ({"kind": "kmer", "vocab": {"pad_id": 2**31}}, "less than 2147483648"),
        ({"kind": "words"}, "Input should be 'one_hot'"),
        ({"kind": "kmer", "size": 3}, "Extra inputs"),
        ({"kind": "kmer", "vocab": {"first": 3}}, "Extra inputs"),
        ({"kind": "one_hot", "channels": [{"name": "x", "source": "bed"}]}, "bigwig"),
    ],
)
def test_specs_that_make_no_sense(spec, message):
    with pytest.raises(ValidationError, match=message):
        EncoderSpec.model_validate(spec)


@pytest.mark.parametrize("k", [1, 3])
def test_n_needs_an_id(k):
    with pytest.raises(BundleError, match="no id for N: set single_ids"):
        make_encoder(spec_of("kmer", k, k))
