"""The oracle against sums worked out here, from the toys' tables and windows written as letters.

The tables are read from the ONNX files; neither the oracle's nor the package's windows, tokens or
formulas are used to say what a score should be.
"""

from __future__ import annotations

import itertools
import math
from itertools import pairwise

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from oracle import Oracle

from glm_annotate.testing import toy_bundle

LN4 = math.log(4)
#         0123456789....
CONTIG = "GATTACAGTCCATG"
MARKOV = {".": 0, "#": 1, "N": 2, "A": 3, "C": 4, "G": 5, "T": 6}  # '.': beyond, '#': masked
CAUSAL = {".": 4, "^": 2, "A": 7, "C": 8, "G": 9, "T": 10, "N": 11}  # '^': begin of sequence
CLOSE = {"abs": 2e-5}


def fasta(folder, text, name="c"):
    path = folder / "genome.fa"
    path.write_text(f">{name}\n{text}\n")
    return path


def tables(bundle):
    graph = onnx.load(bundle / "model.onnx").graph
    return {x.name: numpy_helper.to_array(x).astype(np.float64) for x in graph.initializer}


@pytest.fixture
def make(tmp_path):
    """Build a toy and its oracle on a contig; gives the oracle and the toy's tables."""

    def make(kind, text=CONTIG, *, circular=None, **options):
        options = {"context": 7, "anchor": 3, "strand": "forward", **options}
        bundle = toy_bundle(kind, tmp_path / kind, **options)
        return Oracle(bundle, fasta(tmp_path, text), circular=circular), tables(bundle)

    return make


def logits(t, left, own, right, ids=MARKOV):
    """A row of the markov toy between two tokens."""
    return t["left"][ids[left]] + t["own"][ids[own]] + t["right"][ids[right]]


def logp(z, i):
    return z[i] - math.log(sum(math.exp(x) for x in z))


def bit(t, left, right, base):
    """What a masked base of the markov toy adds to PLLR."""
    return logp(logits(t, left, "#", right), MARKOV[base]) + LN4


# LLR

# C>T at the second C of TCCATG: the reverse strand reads CATGGA, and G>A.


@pytest.mark.parametrize("strand", ["forward", "equivariant", "both"])
def test_llr_of_a_substitution(make, strand):
    oracle, t = make("markov", strand=strand)
    z, y = logits(t, "C", "#", "A"), logits(t, "T", "#", "G")
    forward, reverse = z[6] - z[4], y[3] - y[5]
    expected = (forward + reverse) / 2 if strand == "both" else forward
    assert oracle.score("c", 11, "C", "T", "LLR") == pytest.approx(expected, **CLOSE)
    assert oracle.score("c", 11, "C", "T", "PLLR") == pytest.approx(expected, **CLOSE)
    assert oracle.score("c", 10, "CCA", "CTA", "LLR") == pytest.approx(expected, **CLOSE)


def test_llr_masks_only_changed_bases_in_one_pass(make):
    oracle, t = make("markov")
    # TAC > CAG: T and C are masked, the A between them is seen and has no masked neighbour's id.
    first, last = logits(t, "T", "#", "A"), logits(t, "A", "#", "A")
    expected = first[4] - first[6] + last[5] - last[4]
    assert oracle.score("c", 4, "TAC", "CAG", "LLR") == pytest.approx(expected, **CLOSE)
    assert oracle.passes == 1


def test_pllr_of_neighbouring_bases_sees_each_haplotype(make):
    oracle, t = make("markov")
    # AC > CG within T AC A: masked one by one, each beside its own neighbour.
    alt = bit(t, "T", "G", "C") + bit(t, "C", "A", "G")
    ref = bit(t, "T", "C", "A") + bit(t, "A", "A", "C")
    assert oracle.score("c", 5, "AC", "CG", "PLLR") == pytest.approx(alt - ref, **CLOSE)


def wide(t, text, at, ids=MARKOV, context=7):
    """A row of the wide toy: markov's, and every letter of the window by its distance."""
    padded = f".{text}."
    reach = context + 1
    far = sum(t["weights"][at - s + reach] * t["value"][ids[x]] for s, x in enumerate(text))
    return logits(t, *padded[at : at + 3]) + far * t["direction"]


def test_window_edges(make):
    oracle, t = make("wide")
    z = wide(t, "AGT#CAT", 3)  # bases 6 to 12
    assert oracle.score("c", 10, "C", "G", "LLR") == pytest.approx(z[5] - z[4], **CLOSE)
    z = wide(t, "CAT#NNN", 3)  # the contig ends in G
    assert oracle.score("c", 14, "G", "T", "LLR") == pytest.approx(z[6] - z[5], **CLOSE)


def test_window_around_the_origin(make):
    oracle, t = make("wide", circular=["c"])
    z = wide(t, "ATG#ATT", 3)
    assert oracle.score("c", 1, "G", "C", "LLR") == pytest.approx(z[4] - z[5], **CLOSE)


def test_llr_of_one_hot_rows(make):
    oracle, t = make("onehot")
    # A masked row is zeros, so the row's own table adds nothing; channels are A, C, G, T.
    z = t["left"][1] + t["right"][0] + t["bias"]
    assert oracle.score("c", 11, "C", "T", "LLR") == pytest.approx(z[3] - z[1], **CLOSE)


def word(text, first, order="ATCG"):
    a, b, c = (order.index(x) for x in text)
    return first + 16 * a + 4 * b + c


def test_llr_of_overlapping_words(make):
    oracle, t = make("overlap")
    # A>G in ATT A CAG: the words TTA, TAC and ACA are masked, between ATT and CAG.
    left, right = word("ATT", 5), word("CAG", 5)
    sides = [(left, 4), (4, 4), (4, right)]
    ids = [("TTG", "TTA"), ("TGC", "TAC"), ("GCA", "ACA")]
    expected = 0.0
    for (before, behind), (alt, ref) in zip(sides, ids, strict=True):
        z = t["left"][before] + t["own"][4] + t["right"][behind]
        expected += (z[word(alt, 5)] - z[word(ref, 5)]) / 3
    assert oracle.score("c", 5, "A", "G", "LLR") == pytest.approx(expected, **CLOSE)
    assert oracle.score("c", 5, "A", "G", "PLLR") == pytest.approx(expected, **CLOSE)


def test_words_with_n_are_not_counted(make):
    oracle, t = make("overlap", "GATTACA")
    # The last A of TACANNN: of the three masked words only ACA holds no N.
    z = t["left"][word("TAC", 5)] + t["own"][4] + t["right"][4]
    expected = (z[word("ACG", 5)] - z[word("ACA", 5)]) / 3
    assert oracle.score("c", 7, "A", "G", "LLR") == pytest.approx(expected, **CLOSE)


def test_llr_of_blocks(make):
    oracle, t = make("blocks", context=9, anchor=4)
    # A>G at index 6: the window TTA CAG TCC, the middle word becomes CGG.
    z = t["left"][word("TTA", 4)] + t["own"][2] + t["right"][word("TCC", 4)]
    expected = z[word("CGG", 4)] - z[word("CAG", 4)]
    assert oracle.score("c", 7, "A", "G", "LLR") == pytest.approx(expected, **CLOSE)
    assert oracle.score("c", 7, "A", "G", "PLLR") == pytest.approx(expected, **CLOSE)


def test_pllr_of_blocks_after_an_insertion(make):
    oracle, t = make("blocks", context=9, anchor=4)
    # TTA C|AG TCC with GGG put in: TTA CGG GAG. The REF window loses its last three bases.
    before = word("TTA", 4), word("CAG", 4), word("TCC", 4)
    after = word("TTA", 4), word("CGG", 4), word("GAG", 4)

    def one(row, left, right):
        z = t["left"][left] + t["own"][2] + t["right"][right]
        return logp(z, row) + 3 * LN4

    pad = 1
    ref = one(before[1], before[0], before[2])
    alt = one(after[1], after[0], after[2]) + one(after[2], after[1], pad)
    assert oracle.score("c", 6, "C", "CGGG", "PLLR") == pytest.approx(alt - ref, **CLOSE)


def test_llr_of_byte_pairs(tmp_path):
    text = "".join(np.random.default_rng(3).choice(list("ACGT"), size=120))
    bundle = toy_bundle("bpe", tmp_path / "bpe", context=40, anchor=20, strand="forward")
    oracle, t = Oracle(bundle, fasta(tmp_path, text)), tables(bundle)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    seen = set()
    for at, size, alt in itertools.product(range(40, 60), (1, 5), "ACGT"):
        old, new = text[at : at + size], alt + text[at + 1 : at + size - 1] + alt * (size > 1)
        if old[0] == alt or old[-1] == alt:
            continue
        window = text[at - 20 : at + 20]
        ids = [1, *tokenizer.encode(window).ids, 2]
        new_ids = [1, *tokenizer.encode(window[:20] + new + window[20 + size :]).ids, 2]
        found = oracle.score("c", at + 1, old, new, "LLR")
        differs = [i for i, (a, b) in enumerate(zip(ids, new_ids, strict=False)) if a != b]
        seen.add((len(ids) == len(new_ids), len(differs)))
        if len(ids) != len(new_ids) or len(differs) != 1:
            assert found == "TOKENIZATION"
            continue
        (i,) = differs
        z = t["left"][ids[i - 1]] + t["own"][4] + t["right"][ids[i + 1]]
        assert found == pytest.approx(z[new_ids[i]] - z[ids[i]], **CLOSE)
        if size == 1:
            assert oracle.score("c", at + 1, old, new, "PLLR") == pytest.approx(found, **CLOSE)
    assert {(True, 1), (True, 2)} <= seen
    assert any(not same for same, _ in seen)


# PLLR of alleles of unequal lengths


def deletion(t):
    # AGT CCAT without its first C is AGT CATG; the G is beyond the REF window.
    return -bit(t, "C", "A", "C")


def insertion(t):
    # ATT ACAG with AG before the A is ATT AGAC; of REF only ATTAC is in both.
    return bit(t, "A", "A", "G") + bit(t, "G", "C", "A")


def replacement(t):
    # ATT ACAG with T for AC is ATT TAGT.
    return bit(t, "T", "A", "T") - bit(t, "T", "C", "A") - bit(t, "A", "A", "C")


INDELS = [
    ("TC", "T", 9, deletion),
    ("TCC", "TC", 9, deletion),
    ("CCA", "CA", 10, deletion),
    ("A", "AGA", 5, insertion),
    ("T", "TAG", 4, insertion),
    ("AC", "T", 5, replacement),
]


@pytest.mark.parametrize(("ref", "alt", "pos", "by_hand"), INDELS)
def test_pllr_of_unequal_lengths(make, ref, alt, pos, by_hand):
    oracle, t = make("markov")
    assert oracle.score("c", pos, ref, alt, "PLLR") == pytest.approx(by_hand(t), **CLOSE)
    assert oracle.score("c", pos, ref, alt, "LLR") == "INDEL"
    assert oracle.score("c", pos, ref, alt, "WTLLR") == "INDEL"


def test_pllr_of_a_deletion_on_both_strands(make):
    oracle, t = make("markov", strand="both")
    # The reverse strand reads ATGGACT, and CATGACT whose first C is beyond the REF window.
    expected = (deletion(t) - bit(t, "G", "A", "G")) / 2
    assert oracle.score("c", 9, "TC", "T", "PLLR") == pytest.approx(expected, **CLOSE)


def test_pllr_of_an_insertion_on_both_strands(make):
    oracle, t = make("markov", strand="both")
    # CTGTAAT, without the first two GTAAT; the haplotype reads GTCTAAT: CT is put in after GT.
    reverse = bit(t, "T", "T", "C") + bit(t, "C", "A", "T")
    expected = (insertion(t) + reverse) / 2
    assert oracle.score("c", 5, "A", "AGA", "PLLR") == pytest.approx(expected, **CLOSE)


def test_pllr_of_a_deletion_in_overlapping_words(make):
    oracle, t = make("overlap")
    # AGTCCAT and AGTCATG: the bases differ by the second C, in the words TCC, CCA and CAT.
    rows = [2] + [word(x, 5) for x in ("AGT", "GTC", "TCC", "CCA", "CAT")] + [3]
    rows[3:6] = [4, 4, 4]
    expected = 0.0
    for i, name in zip((3, 4, 5), ("TCC", "CCA", "CAT"), strict=True):
        z = t["left"][rows[i - 1]] + t["own"][4] + t["right"][rows[i + 1]]
        expected -= (logp(z, word(name, 5)) + 3 * LN4) / 3
    assert oracle.score("c", 9, "TC", "T", "PLLR") == pytest.approx(expected, **CLOSE)


def test_pllr_counts_rows(make):
    oracle, _ = make("markov", pllr_max=2)
    assert isinstance(oracle.score("c", 5, "A", "AGA", "PLLR"), float)
    assert oracle.score("c", 5, "A", "AGAG", "PLLR") == "TOO_LONG"


# ENT and WTLLR


def bases(z, ids):
    weights = [math.exp(z[i]) for i in ids]
    return [x / sum(weights) for x in weights]


def entropy(p):
    return -sum(x * math.log(x) for x in p)


@pytest.mark.parametrize("anchor", [2, 3])
@pytest.mark.parametrize(
    ("pos", "ref", "alt", "left", "right"),
    [(11, "C", "T", "C", "A"), (9, "TC", "T", "T", "C"), (9, "T", "TA", "T", "C")],
    ids=["substitution", "deletion: its first base", "insertion: the base behind"],
)
def test_entropy(make, anchor, pos, ref, alt, left, right):
    oracle, t = make("markov", strand="both", anchor=anchor)
    opposite = dict(zip("ACGT", "TGCA", strict=True))
    forward = bases(logits(t, left, "#", right), (3, 4, 5, 6))
    reverse = bases(logits(t, opposite[right], "#", opposite[left]), (6, 5, 4, 3))
    mean = [(a + b) / 2 for a, b in zip(forward, reverse, strict=True)]
    assert oracle.score("c", pos, ref, alt, "ENT") == pytest.approx(entropy(mean), **CLOSE)


def test_entropy_of_blocks_sums_words_by_their_base(make):
    oracle, t = make("blocks", context=9, anchor=4)
    z = t["left"][word("TTA", 4)] + t["own"][2] + t["right"][word("TCC", 4)]
    p = dict.fromkeys("ACGT", 0.0)
    for x in "ACGT":
        for middle in "ACGT":
            for y in "ACGT":
                p[middle] += math.exp(z[word(x + middle + y, 4)])
    total = sum(p.values())
    expected = entropy([x / total for x in p.values()])
    assert oracle.score("c", 7, "A", "G", "ENT") == pytest.approx(expected, **CLOSE)


def test_wild_type_window_lies_on_the_grid(make):
    oracle, t = make("wide")
    # Windows of 7 answer for 3 bases; number 3 holds the bases 8 to 14, and base 10 is its third.
    z = wide(t, "TCCATGN", 2)
    assert oracle.score("c", 11, "C", "T", "WTLLR") == pytest.approx(z[6] - z[4], **CLOSE)
    # Base 0 is in window 0, which begins one base before the contig.
    z = wide(t, "NGATTAC", 1)
    assert oracle.score("c", 1, "G", "T", "WTLLR") == pytest.approx(z[6] - z[5], **CLOSE)


def test_wild_type_window_that_does_not_hold_all_changes(make):
    oracle, _ = make("markov", context=12)
    # Windows of 12 answer for 6: window 0 holds the bases -3 to 8.
    assert isinstance(oracle.score("c", 6, "CAGT", "ATTA", "WTLLR"), float)
    assert oracle.score("c", 6, "CAGTC", "ATTAA", "WTLLR") == "TOO_LONG"
    assert oracle.score("c", 6, "CAGTC", "ATTAC", "WTLLR") != "TOO_LONG"


# Causal models


def causal_logits(t, tokens, at):
    so_far = sum(t["weights"][s] * t["value"][CAUSAL[tokens[s]]] for s in range(at + 1))
    before = tokens[at - 1] if at else "."
    sides = t["left"][CAUSAL[before]] + t["own"][CAUSAL[tokens[at]]]
    return sides + so_far * t["direction"]


def sentence(t, tokens):
    """Log-likelihood of all but the first letter, N left out."""
    predicted = [(i, x) for i, x in enumerate(tokens) if i and x != "N"]
    return sum(logp(causal_logits(t, tokens, i - 1), CAUSAL[x]) for i, x in predicted)


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize(
    ("pos", "change", "windows"),
    [
        (11, ("C", "T"), ("GTCCATG", "GTCTATG")),
        (9, ("TC", "T"), ("AGTCCAT", "AGTCATG")),
        (5, ("A", "AGA"), ("ATTACAG", "ATTAGAC")),
        (13, ("TG", "T"), ("CATGNNN", "CATNNNN")),
    ],
    ids=["substitution", "deletion", "insertion", "at the end"],
)
def test_causal_llr(make, bos, pos, change, windows):
    oracle, t = make("causal", bos=bos)
    ref, alt = (("^" if bos else "") + x for x in windows)
    expected = sentence(t, alt) - sentence(t, ref)
    assert oracle.score("c", pos, *change, "LLR") == pytest.approx(expected, **CLOSE)


def test_causal_llr_on_both_strands(make):
    oracle, t = make("causal", strand="both")
    forward = sentence(t, "^AGTCATG") - sentence(t, "^AGTCCAT")
    reverse = sentence(t, "^CATGACT") - sentence(t, "^ATGGACT")
    found = oracle.score("c", 9, "TC", "T", "LLR")
    assert found == pytest.approx((forward + reverse) / 2, **CLOSE)


def test_causal_entropy(make):
    oracle, t = make("causal", strand="both")
    forward = bases(causal_logits(t, "^GTCCATG", 3), (7, 8, 9, 10))
    reverse = bases(causal_logits(t, "^CATGGAC", 3), (10, 9, 8, 7))
    mean = [(a + b) / 2 for a, b in zip(forward, reverse, strict=True)]
    assert oracle.score("c", 11, "C", "T", "ENT") == pytest.approx(entropy(mean), **CLOSE)


@pytest.mark.parametrize(("bos", "has_number"), [(True, True), (False, False)])
def test_causal_entropy_of_the_first_base_needs_a_prefix(make, bos, has_number):
    oracle, _ = make("causal", bos=bos, anchor=0)
    found = oracle.score("c", 11, "C", "T", "ENT")
    assert isinstance(found, float) == has_number
    assert has_number or found == "TOKENIZATION"


# Embeddings: the rows that each pool averages, by hand


def hidden(t, text):
    return [t["embed_left"][MARKOV[a]] + t["embed_own"][MARKOV[b]] for a, b in pairwise("." + text)]


def causal_hidden(t, text):
    rows, so_far = [], 0.0
    for s, (a, b) in enumerate(pairwise(".^" + text)):
        so_far += t["weights"][s] * t["value"][CAUSAL[b]]
        own = t["embed_left"][CAUSAL[a]] + t["embed_own"][CAUSAL[b]]
        rows.append(own + so_far * t["embed_direction"])
    return rows[1:]


SNV = (11, "C", "T", ("GTCCATG", "GTCTATG"), ("CATGGAC", "CATAGAC"))
DEL = (4, "TAC", "T", ("ATTACAG", "ATTAGTC"), ("CTGTAAT", "GACTAAT"))
INS = (5, "A", "AGA", ("ATTACAG", "ATTAGAC"), ("CTGTAAT", "GTCTAAT"))
ALL = range(7)
POOLS = [
    # variant, pool, rows of REF and ALT forward, rows of REF and ALT reverse
    (SNV, "pool=site", [3], [3], [3], [3]),
    (DEL, "pool=site", [3, 4], [2, 3], [2, 3], [3, 4]),
    (INS, "pool=site", [2, 3], [3, 4], [3, 4], [2, 3]),
    (SNV, "pool=window:k=3", [2, 3, 4], [2, 3, 4], [2, 3, 4], [2, 3, 4]),
    (SNV, "pool=window:k=2", [2, 3], [2, 3], [3, 4], [3, 4]),
    (INS, "pool=window:k=4", [1, 2, 3, 4], [2, 3, 4, 5], [2, 3, 4, 5], [1, 2, 3, 4]),
    (SNV, "pool=window:k=9", ALL, ALL, ALL, ALL),
    (INS, "pool=window:k=7", range(7), range(1, 7), range(7), range(6)),
    (INS, "pool=all", ALL, ALL, ALL, ALL),
]
CAUSAL_POOLS = [
    (SNV, "pool=site", [3], [3], [3], [3]),
    (SNV, "pool=window:k=2", [3, 4], [3, 4], [3, 4], [3, 4]),
    (INS, "pool=window:k=2", [3, 4], [3, 4], [4, 5], [2, 3]),
    (INS, "pool=window:k=9", range(3, 7), range(3, 7), range(4, 7), range(2, 7)),
    (INS, "pool=all", ALL, ALL, ALL, ALL),
]


def distances(a, b):
    cosine = sum(a * b) / math.sqrt(sum(a * a)) / math.sqrt(sum(b * b))
    difference = [abs(x) for x in a - b]
    return {
        "EMB_COS": 1 - cosine,
        "EMB_L1": sum(difference),
        "EMB_L2": math.hypot(*difference),
        "EMB_DOT": sum(a * b),
    }


@pytest.mark.parametrize("strand", ["forward", "both"])
@pytest.mark.parametrize(
    ("kind", "rows_of", "case"),
    [("markov", hidden, x) for x in POOLS] + [("causal", causal_hidden, x) for x in CAUSAL_POOLS],
    ids=lambda x: x[1] if isinstance(x, tuple) else "",
)
def test_embeddings(make, strand, kind, rows_of, case):
    (pos, ref, alt, forward, reverse), pool, *rows = case
    oracle, t = make(kind, strand=strand)
    means = [
        np.mean([rows_of(t, text)[i] for i in wanted], axis=0)
        for text, wanted in zip(forward + reverse, rows, strict=True)
    ]
    old, new = means[:2]
    if strand == "both":
        old, new = (means[0] + means[2]) / 2, (means[1] + means[3]) / 2
    for name, expected in distances(old, new).items():
        found = oracle.score("c", pos, ref, alt, f"{name}:{pool}")
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_halves_of_the_channels_are_averaged(make):
    oracle, t = make("markov", dim=4, halves="rc", strand="equivariant")
    rows = hidden(t, "GTCCATG")[3], hidden(t, "GTCTATG")[3]
    old, new = (np.array([x[0] + x[3], x[1] + x[2]]) / 2 for x in rows)
    found = oracle.score("c", 11, "C", "T", "EMB_L1")
    assert found == pytest.approx(sum(abs(old - new)), **CLOSE)


def test_embedding_rows_weigh_by_their_bases(make):
    oracle, t = make("blocks", context=9, anchor=4)
    # Five bases about the A of TTA CAG TCC: one of TTA, three of CAG, one of TCC.
    vectors = []
    for middle in ("CAG", "CGG"):
        rows = [3, word("TTA", 4), word(middle, 4), word("TCC", 4)]
        h = [t["embed_left"][a] + t["embed_own"][b] for a, b in pairwise(rows)]
        vectors.append((h[0] + 3 * h[1] + h[2]) / 5)
    found = oracle.score("c", 7, "A", "G", "EMB_L1:pool=window:k=5")
    assert found == pytest.approx(sum(abs(vectors[0] - vectors[1])), **CLOSE)


# A uniform model, and reasons


@given(data=st.data())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_uniform_model_has_no_opinion(uniform, data):
    oracle, text = uniform
    start = data.draw(st.integers(0, len(text) - 6))
    ref = text[start : start + data.draw(st.integers(1, 5))]
    alt = data.draw(st.text("ACGT", min_size=1, max_size=5).filter(lambda x: x != ref))
    pos = start + 1
    assert oracle.score("c", pos, ref, alt, "PLLR") == pytest.approx(0, abs=1e-9)
    assert oracle.score("c", pos, ref, alt, "ENT") == pytest.approx(LN4, abs=1e-9)


@pytest.fixture(scope="module")
def uniform(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uniform")
    bundle = toy_bundle("uniform", folder / "b", context=16)
    return Oracle(bundle, fasta(folder, CONTIG * 2)), CONTIG * 2


REASONS = [
    ("x", 1, "A", "C", "CONTIG_MISSING"),
    ("c", 0, "A", "C", "OFF_CONTIG"),
    ("c", 15, "A", "C", "OFF_CONTIG"),
    ("c", 14, "GA", "G", "OFF_CONTIG"),
    ("c", 1, "A", "C", "REF_MISMATCH"),
    ("c", 1, "G", "N", "AMBIGUOUS"),
    ("c", 1, "GA", "GA", "NO_CHANGE"),
    ("c", 2, "ATTAC", "A", None),
    ("c", 2, "ATTACA", "A", "TOO_LONG"),
    ("c", 2, "A", "ATTACA", "TOO_LONG"),
    ("chrc", 1, "G", "C", None),
]


@pytest.mark.parametrize(("chrom", "pos", "ref", "alt", "reason"), REASONS)
def test_reasons_of_whole_alleles(make, chrom, pos, ref, alt, reason):
    oracle, _ = make("markov")
    found = oracle.score(chrom, pos, ref, alt, "PLLR")
    assert isinstance(found, float) if reason is None else found == reason


@pytest.mark.parametrize(("shortest", "inside"), [(14, True), (15, False)])
def test_scope(make, shortest, inside):
    oracle, _ = make("markov", scope={"contigs": [{"name": "c", "min_length": shortest}]})
    found = oracle.score("c", 1, "G", "C", "LLR")
    assert isinstance(found, float) if inside else found == "OUT_OF_SCOPE"


def test_byte_pairs_have_no_entropy(make):
    oracle, _ = make("bpe")
    assert oracle.score("c", 5, "A", "C", "ENT") == "TOKENIZATION"


def test_iupac_letters_stand_for_their_bases(make):
    oracle, t = make("markov", "GATTACAGTCMATG")
    z = logits(t, "C", "#", "A")
    assert oracle.score("c", 11, "C", "T", "LLR") == pytest.approx(z[6] - z[4], **CLOSE)
    assert oracle.score("c", 11, "G", "T", "LLR") == "REF_MISMATCH"


@pytest.mark.parametrize(("circular", "start"), [(None, 0), (["c"], 9)])
def test_left_alignment_passes_the_origin(make, circular, start):
    oracle, _ = make("markov", "AATTACGGTA", circular=circular)
    spellings = [(2, "AT", "T"), (1, "AA", "A"), (1, "AAT", "AT")]
    assert {oracle.allele("c", *x).start for x in spellings} == {start}
    assert len({oracle.score("c", *x, "PLLR") for x in spellings}) == 1


# Properties

SIGNED = ("LLR", "PLLR")
DISTANCES = ("EMB_COS", "EMB_L1:pool=window:k=5", "EMB_L2:pool=all")
KINDS = ("wide", "causal", "prefix", "overlap", "blocks", "bpe", "onehot")
SEQUENCE = "".join(np.random.default_rng(11).choice(list("ACGT"), size=60)) + "CACACAGGGG"


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toys")
    return {kind: toy_bundle(kind, folder / kind, context=21, anchor=9) for kind in KINDS}


def change(data, text, *, same_length):
    start = data.draw(st.integers(0, len(text) - 4))
    ref = text[start : start + data.draw(st.integers(1, 4))]
    sizes = (len(ref), len(ref)) if same_length else (1, 4)
    letters = st.text("ACGT", min_size=sizes[0], max_size=sizes[1])
    return start, ref, data.draw(letters.filter(lambda x: x != ref))


def names(kind):
    return (SIGNED[:1] if kind == "causal" else SIGNED), DISTANCES


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=12)
def test_swapped_alleles(toys, tmp_path_factory, kind, data):
    """In a genome that holds ALT, the way back has the opposite score and the same distance."""
    start, ref, alt = change(data, SEQUENCE, same_length=False)
    mutated = SEQUENCE[:start] + alt + SEQUENCE[start + len(ref) :]
    there = Oracle(toys[kind], fasta(tmp_path_factory.mktemp("a"), SEQUENCE))
    back = Oracle(toys[kind], fasta(tmp_path_factory.mktemp("b"), mutated))
    signed, distance = names(kind)
    for name in signed + distance:
        a = there.score("c", start + 1, ref, alt, name)
        b = back.score("c", start + 1, alt, ref, name)
        if isinstance(a, str):
            assert a == b
        else:
            assert b == pytest.approx(-a if name in signed else a, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=12)
def test_strands(toys, tmp_path_factory, kind, data):
    """The reverse strand is what the forward strand would be in the opposite genome."""
    start, ref, alt = change(data, SEQUENCE, same_length=True)
    table = str.maketrans("ACGT", "TGCA")
    opposite, not_ref, not_alt = (x[::-1].translate(table) for x in (SEQUENCE, ref, alt))
    folder = tmp_path_factory.mktemp("s")
    genome, other = fasta(folder, SEQUENCE), fasta(tmp_path_factory.mktemp("o"), opposite)
    both = Oracle(toys[kind], genome, strand="both")
    allele = both.allele("c", start + 1, ref, alt)
    anchor = 21 - 9 - len(allele.ref)
    bundle = toy_bundle(kind, folder / "b", context=21, anchor=anchor, strand="forward")
    forward = Oracle(toys[kind], genome, strand="forward")
    reverse = Oracle(bundle, other)
    for name in names(kind)[0]:
        found = both.score("c", start + 1, ref, alt, name)
        parts = [
            forward.score("c", start + 1, ref, alt, name),
            reverse.score("c", len(SEQUENCE) - start - len(ref) + 1, not_ref, not_alt, name),
        ]
        if isinstance(found, str):
            assert found in parts
        else:
            assert found == pytest.approx(sum(parts) / 2, abs=1e-5)
