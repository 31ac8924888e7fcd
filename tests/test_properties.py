"""What must be true of every score, whatever the genome and the alleles.

A drawn world is a list of loci, each a contig of its own: left flank, REF, ALT, right flank. Flanks
may be shorter than a window, and letters repeat, so that indels have several spellings.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from engine import Allele, Engine, make_chunk, write_fasta
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from glm_annotate.scores import SCORES
from glm_annotate.testing import toy_bundle

LANGUAGE = ("logits", "embedding")

Found = dict[str, list[float | str]]
MASKED = ("LLR", "PLLR", "WTLLR", "ENT")
POOLED = ("EMB_COS", "EMB_L1:pool=window:k=5", "EMB_L2:pool=all", "EMB_DOT")
KINDS: dict[str, tuple[str, ...]] = {
    "wide": (*MASKED, *POOLED),
    "overlap": (*MASKED, *POOLED),
    "blocks": (*MASKED, *POOLED),
    "onehot": (*MASKED, *POOLED),
    "bpe": ("LLR", "PLLR", "WTLLR", *POOLED),
    "causal": ("LLR", "ENT", *POOLED),
}
CONTEXT, ANCHOR = 18, 8


@dataclass(frozen=True)
class Locus:
    left: str
    ref: str
    alt: str
    right: str

    @property
    def contig(self) -> str:
        return self.left + self.ref + self.right

    @property
    def haplotype(self) -> str:
        return self.left + self.alt + self.right

    @property
    def is_change(self) -> bool:
        return self.ref != self.alt

    def allele(self, name: str) -> Allele:
        return name, len(self.left) + 1, self.ref, self.alt


def bases(least: int, most: int) -> st.SearchStrategy[str]:
    # Few letters at a time: repeats.
    return st.one_of(
        st.text(alphabet="ACGT", min_size=least, max_size=most),
        st.text(alphabet="AC", min_size=least, max_size=most),
    )


loci = (
    st.builds(Locus, bases(0, 24), bases(1, 4), bases(1, 4), bases(0, 24))
    .filter(lambda locus: locus.is_change)
    .flatmap(
        # A third are anchored indels, a third SNVs.
        lambda x: st.sampled_from(
            [x, Locus(x.left, x.ref[0], x.ref[0] + x.alt, x.right),
             Locus(x.left, x.ref + x.alt, x.ref[0], x.right),
             Locus(x.left, x.ref[0], "ACGT"["ACGT".index(x.ref[0]) - 1], x.right)]
        )
    )
    .filter(lambda locus: locus.is_change)
)  # fmt: skip
worlds = st.lists(loci, min_size=1, max_size=12)
few = settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    return {
        kind: toy_bundle(kind, folder / kind, context=CONTEXT, anchor=ANCHOR, pllr_max=9)
        for kind in (*KINDS, "uniform")
    }


@contextmanager
def engine_on(
    bundle: Path, scores: Sequence[str], contigs: dict[str, str], **options: int
) -> Iterator[Engine]:
    with tempfile.TemporaryDirectory() as folder:
        yield Engine(bundle, write_fasta(Path(folder) / "genome.fa", contigs), scores, **options)


def alike(found: Found, expected: Found, sign: dict[str, float] | None = None) -> None:
    """Compare all scores, or those that `sign` names, after multiplying."""
    for key, values in found.items():
        factor = 1.0 if sign is None else sign.get(key)
        if factor is None:
            continue
        for value, right in zip(values, expected[key], strict=True):
            if isinstance(value, str) or isinstance(right, str):
                assert value == right, key
            else:
                assert abs(value - factor * right) <= 1e-6 * max(1.0, abs(right)), key


def name_of(text: str) -> str:
    return text.partition(":")[0]


# Swap, and REF against itself


@pytest.mark.parametrize("kind", KINDS)
@given(world=worlds)
@few
def test_swapping_the_alleles(kind: str, bundles: dict[str, Path], world: list[Locus]) -> None:
    contigs = {f"c{i}": x.contig for i, x in enumerate(world)}
    contigs |= {f"s{i}": x.haplotype for i, x in enumerate(world)}
    swapped = [Locus(x.left, x.alt, x.ref, x.right) for x in world]
    with engine_on(bundles[kind], KINDS[kind], contigs) as engine:
        both = engine.score(
            [x.allele(f"c{i}") for i, x in enumerate(world)]
            + [x.allele(f"s{i}") for i, x in enumerate(swapped)]
        )
    n = len(world)
    kinds = {key: SCORES[name_of(x)].kind for key, x in zip(both, KINDS[kind], strict=True)}
    signs = {"signed": -1.0, "distance": 1.0}
    promised = {key: signs[what] for key, what in kinds.items() if what in signs}
    assert len(promised) >= 4
    forth = {key: values[:n] for key, values in both.items()}
    back = {key: values[n:] for key, values in both.items()}
    alike(forth, back, promised)


def test_the_table_has_no_other_kind() -> None:
    assert {score.kind for score in SCORES.values()} == {"signed", "distance", "other"}
    covered = {name_of(x) for scores in KINDS.values() for x in scores}
    assert covered == {name for name, score in SCORES.items() if score.output in LANGUAGE}


vectors = hnp.arrays(
    np.float64, st.tuples(st.just(5), st.integers(1, 6)), elements=st.floats(-50, 50)
)
# Scores of tracks and contacts are computed while passes run: test_track_scores, test_contacts.
PURE = [
    name for name, score in SCORES.items() if score.kind != "other" and score.output in LANGUAGE
]


@pytest.mark.parametrize("name", PURE)
@given(ref=vectors, shift=vectors)
def test_pure_functions(name: str, ref: np.ndarray, shift: np.ndarray) -> None:
    score = SCORES[name]
    if score.output == "logits":
        assert score.kind == "signed"
        evidence = ref[:, 0]
        np.testing.assert_array_equal(score.reduce(-evidence), -score.reduce(evidence))
        np.testing.assert_array_equal(score.reduce(evidence - evidence), 0)
        return
    alt = ref + shift[:, :1]
    itself = score.reduce(np.stack([ref, ref], axis=1))
    zero = (ref == 0).all(axis=1)
    # A vector of zeros has no direction.
    np.testing.assert_array_equal(itself[~zero | (name != "EMB_COS")], 0)
    there, back = (score.reduce(np.stack(x, axis=1)) for x in ((ref, alt), (alt, ref)))
    np.testing.assert_allclose(there, back, rtol=1e-12, atol=1e-12)
    assert not (there < -1e-12).any()


# Spelling


def spellings(locus: Locus) -> Iterator[Locus]:
    """All the ways to write a change within three bases around it, by brute force."""
    before, after = locus.contig, locus.haplotype
    for start in range(max(0, len(locus.left) - 3), len(locus.left) + 4):
        for size in range(1, len(locus.ref) + 6):
            end = start + size
            new = len(after) - (len(before) - end)
            if end > len(before) or new < start + 1:
                continue
            left, right = before[:start], before[end:]
            if after.startswith(left) and after.endswith(right):
                yield Locus(left, before[start:end], after[start:new], right)


@pytest.mark.parametrize("kind", ["wide", "blocks", "bpe", "causal"])
@given(locus=loci)
@settings(parent=few, max_examples=25)
def test_a_haplotype_has_one_score_however_it_is_spelled(
    kind: str, bundles: dict[str, Path], locus: Locus
) -> None:
    written = list(dict.fromkeys([locus, *spellings(locus)]))
    assert {x.haplotype for x in written} == {locus.haplotype}
    with engine_on(bundles[kind], KINDS[kind], {"c": locus.contig}) as engine:
        found = engine.score([x.allele("c") for x in written])
    for values in found.values():
        assert all(value == values[0] for value in values)


def test_spellings_are_many() -> None:
    deletion = Locus("GTTT", "TT", "T", "TTG")
    assert len(set(spellings(deletion))) > 20


# Independence


@pytest.mark.parametrize("kind", KINDS)
@given(world=worlds, data=st.data())
@few
def test_a_score_depends_on_its_allele_alone(
    kind: str, bundles: dict[str, Path], world: list[Locus], data: st.DataObject
) -> None:
    contigs = {f"c{i}": x.contig for i, x in enumerate(world)}
    alleles = [x.allele(f"c{i}") for i, x in enumerate(world)]
    bundle, scores = bundles[kind], KINDS[kind]
    with engine_on(bundle, scores, contigs) as engine:
        whole = engine.score(alleles)
        order = data.draw(st.permutations(range(len(alleles))))
        turned = engine.score([alleles[i] for i in order])
        alike(turned, {key: [x[i] for i in order] for key, x in whole.items()})
        chosen = sorted(data.draw(st.sets(st.sampled_from(range(len(alleles))), min_size=1)))
        some = engine.score([alleles[i] for i in chosen])
        alike(some, {key: [x[i] for i in chosen] for key, x in whole.items()})
        border = data.draw(st.integers(0, len(alleles) - 1))
        halves = [alleles[:border], alleles[border:]]
        results = engine.results(*(make_chunk(half) for half in halves if half))
        (together,) = engine.results(make_chunk(alleles))
        for key, values in together.values.items():
            apart = np.concatenate([result.values[key] for result in results])
            np.testing.assert_allclose(apart, values, rtol=1e-6, atol=1e-6)
    batch = data.draw(st.integers(1, 5))
    with engine_on(bundle, scores, contigs, batch=batch, threads=2) as engine:
        alike(engine.score(alleles), whole)


# Known values


@given(world=worlds)
@few
def test_a_uniform_model_has_no_preference(bundles: dict[str, Path], world: list[Locus]) -> None:
    contigs = {f"c{i}": x.contig for i, x in enumerate(world)}
    alleles = [x.allele(f"c{i}") for i, x in enumerate(world)]
    with engine_on(bundles["uniform"], ["PLLR", "LLR"], contigs) as engine:
        found = engine.score(alleles)
    for value in found["PLLR"]:
        assert value == "TOO_LONG" or abs(float(value)) < 1e-5
    for value in found["LLR"]:
        assert value == "INDEL" or abs(float(value)) < 1e-5


# Economy

SITE: list[Allele] = [("c", 20, "T", x) for x in "ACG"]
NEXT: list[Allele] = [("c", 21, "A", "C")]
DELETION: list[Allele] = [("c", 20, "TA", "T")]


@pytest.mark.parametrize(
    ("alleles", "scores", "passes"),
    [
        (SITE[:1], ["LLR"], 1),
        (SITE, ["LLR"], 1),
        (SITE + SITE, ["LLR"], 1),
        (SITE + NEXT, ["LLR"], 2),
        (SITE, ["LLR", "PLLR", "ENT"], 1),
        (SITE, ["EMB_L2"], 1 + 3),
        (SITE, ["EMB_L2", "EMB_COS", "EMB_DOT:pool=all", "EMB_L1:k=5"], 1 + 3),
        (SITE, ["LLR", "EMB_L2"], 1 + 1 + 3),
        # 20 and 21 lie in the central half of one window of the grid.
        (SITE + NEXT, ["WTLLR"], 1),
        ([*SITE, ("c", 40, "T", "A")], ["WTLLR"], 2),
        # REF has two rows that the ALT lacks... but one: the other bases follow in both.
        (DELETION, ["PLLR"], 1),
        (DELETION, ["LLR"], 0),
        # Rewritten, it is the same haplotype.
        ([*DELETION, ("c", 19, "ATA", "AT")], ["PLLR", "EMB_L2"], 1 + 2),
    ],
)
def test_passes_are_shared(
    alleles: list[Allele], scores: list[str], passes: int, bundles: dict[str, Path]
) -> None:
    contigs = {"c": "GATTACAGTCCATGCGTCAT" + "ACGGACTTGCATACAGTCCT" + "GG"}
    for strand, factor in (("forward", 1), ("both", 2)):
        with tempfile.TemporaryDirectory() as folder:
            fasta = write_fasta(Path(folder) / "genome.fa", contigs)
            engine = Engine(bundles["wide"], fasta, scores, strand=strand)
            work = engine.annotator.prepare(engine.annotator.read(make_chunk(alleles)))
            assert work.passes == {"T": passes * factor}
            engine.results(make_chunk(alleles))
            assert engine.runner.passes == passes * factor
