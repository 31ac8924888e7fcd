"""Splice scores, computed by hand, and SpliceAI's published examples with its real weights."""

from __future__ import annotations

import gzip
import importlib.util
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from glm_annotate.genome import to_codes, to_text
from glm_annotate.splice_scores import (
    align_alt,
    delta_logit_psi,
    exon_parts,
    nearest_boundary,
    splice_deltas,
    tissue_parts,
)


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)[:, None]


def flat(found: np.ndarray) -> list[float]:
    return found[:, 0].tolist()


# ALT on REF's coordinates


def test_a_substitution_stays_as_it_is():
    assert flat(align_alt(column(1, 2, 3, 4), 2, 1, 1, 4)) == [1, 2, 3, 4]


# REF 0 1 2 3 4; two bases behind place 1 go: A[CG]T.
@pytest.mark.parametrize(("place", "ref_len", "alt_len"), [(1, 3, 1), (2, 2, 0)])
def test_deleted_bases_are_zero(place, ref_len, alt_len):
    found = align_alt(column(10, 11, 14, 15, 16), place, ref_len, alt_len, 5)
    assert flat(found) == [10, 11, 0, 0, 14]


# Two bases (7, 9) behind place 1, whose own value is 8: the three become their largest.
@pytest.mark.parametrize(("place", "ref_len", "alt_len"), [(1, 1, 3), (2, 0, 2)])
@pytest.mark.parametrize(("values", "wanted"), [((8, 7, 9), 9), ((12, 7, 9), 12)])
def test_trap_inserted_bases_and_the_one_before_become_their_maximum(
    place, ref_len, alt_len, values, wanted
):
    found = align_alt(column(1, *values, 2, 3, 4), place, ref_len, alt_len, 5)
    assert flat(found) == [1, wanted, 2, 3, 4]


def test_both_alleles_long_pair_from_the_left():
    # REF of 3, ALT of 2 bases at place 1.
    assert flat(align_alt(column(1, 2, 3, 4), 1, 3, 2, 5)) == [1, 2, 3, 0, 4]
    # REF of 2, ALT of 3: the second base takes the third in.
    assert flat(align_alt(column(1, 2, 3, 9, 4), 1, 2, 3, 4)) == [1, 2, 9, 4]


def test_an_insertion_at_the_left_edge_has_no_base_before_it():
    assert flat(align_alt(column(9, 9, 1, 2), 0, 0, 2, 2)) == [1, 2]


def test_trap_alt_of_an_insertion_must_reach_further():
    with pytest.raises(ValueError, match="ALT tracks give 3 bins, wanted 5"):
        align_alt(column(1, 2, 3, 4, 5), 2, 0, 2, 5)


def test_alignment_of_a_batch_of_two_tracks():
    alt = np.arange(24, dtype=float).reshape(2, 6, 2)
    found = align_alt(alt, 3, 1, 3, 4)
    assert found.shape == (2, 4, 2)
    assert found[0].tolist() == [[0, 1], [2, 3], [4, 5], [10, 11]]


# Delta scores


def example() -> np.ndarray:
    """One allele, 7 bins around 3; acceptor and donor columns of REF and ALT."""
    ref = np.array([[0, 0.9], [0.1, 0], [0, 0], [0.5, 0.2], [0, 0], [0, 0.1], [0.3, 0]])
    alt = np.array([[0, 0.2], [0.1, 0], [0.4, 0], [0.25, 0.2], [0, 0], [0, 0.7], [0.3, 0]])
    return np.stack([ref, alt])[None]


def test_delta_scores_by_hand():
    found = {name: float(x[0]) for name, x in splice_deltas(example(), 3).items()}
    assert found == pytest.approx(
        {
            "DS_AG": 0.4,
            "DS_AL": 0.25,
            "DS_DG": 0.6,
            "DS_DL": 0.7,
            "DP_AG": -1,
            "DP_AL": 0,
            "DP_DG": 2,
            "DP_DL": -3,
        }
    )


def test_a_smaller_distance_looks_at_fewer_bins():
    found = splice_deltas(example(), 3, distance=2)
    assert (found["DS_DL"][0], found["DP_DL"][0]) == (0, -2)  # the first of equal ones
    assert found["DS_DG"][0] == pytest.approx(0.6)
    assert found["DP_DG"][0] == 2
    assert splice_deltas(example(), 3, distance=50)["DP_DL"][0] == -3


def test_nothing_changes_nothing():
    same = np.repeat(example()[:, :1], 2, axis=1)
    found = splice_deltas(same, 3)
    assert all(x.tolist() == [0] for name, x in found.items() if name.startswith("DS_"))
    assert not any(np.signbit(found[name]).any() for name in ("DS_AL", "DS_DL"))


@pytest.mark.parametrize(
    ("boundary", "kept"),
    [
        (-1, {"DS_DG": 0.6}),  # the gain at -1 is of a site that is known
        (0, {"DS_AG": 0.4, "DS_AL": 0.25, "DS_DG": 0.6}),
        (2, {"DS_AG": 0.4}),
        (-3, {"DS_AG": 0.4, "DS_DG": 0.6, "DS_DL": 0.7}),
    ],
)
def test_trap_mask_hides_gains_at_known_sites_and_losses_elsewhere(boundary, kept):
    found = splice_deltas(example(), 3, boundary=[boundary])
    scores = {name: float(x[0]) for name, x in found.items() if name.startswith("DS_") and x[0]}
    assert scores == pytest.approx(kept)
    # Where the change was is told in any case.
    assert [found[f"DP_{x}"][0] for x in ("AG", "AL", "DG", "DL")] == [-1, 0, 2, -3]


def test_alleles_of_a_batch_have_their_own_boundary():
    both = np.concatenate([example(), example()])
    assert splice_deltas(both, 3, boundary=[-1, 0])["DS_AG"].tolist() == pytest.approx([0, 0.4])


def test_nearest_boundary():
    assert nearest_boundary([90, 120], 100) == -10
    assert nearest_boundary([90, 110], 100) == -10  # of two, the left one
    assert nearest_boundary([120, 104, 90], 100) == 4
    assert nearest_boundary([100], 100) == 0


# MMSplice's linear model

REF = [[1.0, 2.0, 3.0, 4.0, 5.0]]
INTERCEPT = 0.00064803


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ([0, 0, 0, 0, 0], 0.0),
        ([1, 0, 0, 0, 0], 0.49685773),
        ([0, 1, 0, 0, 0], 0.72322957),
        ([0, 0, 1, 0, 0], 1.54760024),
        ([0, 0, 0, 1, 0], 0.75011527),
        ([0, 0, 0, 0, 1], 2.26187717),
        # Acceptor's intron and acceptor: 0.88148553 for each unit of the intron.
        ([2, 1, 0, 0, 0], 2 * 0.49685773 + 0.72322957 + 2 * 0.88148553),
        # Acceptor and exon, exon and donor, or both: -0.69419094 for each unit of the exon, once.
        ([0, 1, 2, 0, 0], 0.72322957 + 2 * 1.54760024 - 2 * 0.69419094),
        ([0, 0, 2, 1, 0], 2 * 1.54760024 + 0.75011527 - 2 * 0.69419094),
        ([0, 1, 2, 1, 0], 0.72322957 + 2 * 1.54760024 + 0.75011527 - 2 * 0.69419094),
        # Donor and its intron: 2.40138709 for each unit of the intron.
        ([0, 0, 0, 1, -2], 0.75011527 - 2 * 2.26187717 - 2 * 2.40138709),
        # Parts that are no neighbours.
        ([1, 0, 1, 0, 1], 0.49685773 + 1.54760024 + 2.26187717),
    ],
)
def test_delta_logit_psi_by_hand(change, wanted):
    found = delta_logit_psi(REF, np.array(REF) + np.array([change]))
    assert found.tolist() == pytest.approx([wanted + INTERCEPT], abs=1e-7)


def test_trap_rounding_is_not_a_change():
    alt = np.add(REF, [[0, 1e-6, 2.0, 0, 0]])
    changed = np.array([[False, False, True, False, False]])
    alone = 2 * 1.54760024 + INTERCEPT
    assert delta_logit_psi(REF, alt, changed)[0] == pytest.approx(alone, abs=1e-7)
    # By the numbers alone a millionth switches the term of both on.
    assert delta_logit_psi(REF, alt)[0] == pytest.approx(alone - 2 * 0.69419094, abs=1e-5)


def test_delta_logit_psi_of_an_allele_does_not_depend_on_the_others():
    rng = np.random.default_rng(0)
    ref, alt = rng.normal(size=(2, 33, 5))
    whole = delta_logit_psi(ref, alt)
    single = [float(delta_logit_psi(ref[i : i + 1], alt[i : i + 1])[0]) for i in range(33)]
    assert whole.tolist() == single


# Parts of an exon

LEFT, EXON, RIGHT = "A" * 94 + "TTTTAG", "CGCCCGG", "GTAAGT" + "C" * 94


def parts(left: str, exon: str, right: str, cut=exon_parts) -> dict[str, str]:
    found = cut(to_codes(left + exon + right), len(left), len(right))
    return {name: to_text(codes) for name, codes in found.items()}


def test_parts_of_an_exon_with_its_introns():
    assert parts(LEFT, EXON, RIGHT) == {
        "acceptor_intron": "A" * 94,
        "acceptor": "A" * 44 + "TTTTAG" + "CGC",
        "exon": EXON,
        "donor": "CCCGG" + "GTAAGT" + "C" * 7,
        "donor_intron": "C" * 94,
    }


def test_trap_a_first_or_last_exon_gets_one_n_more_than_is_missing():
    first = parts("", EXON, RIGHT)
    assert first["acceptor_intron"] == "N" * 45
    assert first["acceptor"] == "N" * 50 + "CGC"
    assert first["donor"] == "CCCGG" + "GTAAGT" + "C" * 7
    last = parts(LEFT, EXON, "")
    assert last["donor"] == "CCCGG" + "N" * 13
    assert last["donor_intron"] == "N" * 8
    assert last["exon"] == EXON
    # An intron of just the length that the site needs gets one as well.
    assert parts("A" * 50, EXON, RIGHT)["acceptor_intron"] == "N" + "A" * 44


def test_an_exon_that_is_gone_is_one_n():
    found = parts(LEFT, "", RIGHT)
    assert found["exon"] == "N"
    assert found["acceptor"] == "A" * 44 + "TTTTAG" + "GTA"
    assert found["donor"] == "TTTAG"[-5:] + "GTAAGT" + "C" * 7


def test_parts_for_tissues():
    found = parts("A" * 310, "C" * 120, "T" * 299, tissue_parts)
    assert found == {"acceptor": "A" * 300 + "C" * 100, "donor": "C" * 100 + "T" * 299 + "N"}
    # An exon below 100 bases: its ends reach into the other intron.
    short = parts("A" * 300, "C" * 60, "T" * 300, tissue_parts)
    assert short == {
        "acceptor": "A" * 300 + "C" * 60 + "T" * 40,
        "donor": "A" * 40 + "C" * 60 + "T" * 300,
    }


# SpliceAI's own code and examples


class LocalModel:
    """Tracks that follow the bases around each place, so that every shift shows."""

    def __init__(self, seed: int):
        self.taps = np.random.default_rng(seed).normal(size=(9, 4, 3))

    def predict(self, one_hot: np.ndarray) -> np.ndarray:
        size = one_hot.shape[1] - 10_000
        views = [one_hot[:, 4996 + i : 4996 + i + size] @ taps for i, taps in enumerate(self.taps)]
        return 1 / (1 + np.exp(-sum(views)))


@pytest.fixture(scope="module")
def spliceai_code():
    """The authors' module; what it imports for its models and its genome is not needed."""
    pytest.importorskip("pandas")
    names = {"keras": {}, "keras.models": {"load_model": None}}
    names |= {"pkg_resources": {"resource_filename": None}, "pyfaidx": {"Fasta": None}}
    with pytest.MonkeyPatch.context() as patch:
        for name, values in names.items():
            module = types.ModuleType(name)
            vars(module).update(values)
            patch.setitem(sys.modules, name, module)
        yield _load_authors()


def _load_authors():
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        place = distribution("spliceai").locate_file("spliceai/utils.py")
    except PackageNotFoundError:
        pytest.skip("the package spliceai is not installed")
    spec = importlib.util.spec_from_file_location("authors_spliceai", str(place))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def one_hot(text: str) -> np.ndarray:
        # Theirs wants a function that numpy 2 does not have any more.
        return np.concatenate([np.eye(4), np.zeros((1, 4))])[np.minimum(to_codes(text), 4)]

    module.one_hot_encode = one_hot
    return module


@pytest.mark.parity
@pytest.mark.parametrize("mask", [0, 1])
@pytest.mark.parametrize("strand", ["+", "-"])
@pytest.mark.parametrize(
    ("ref_len", "alt"), [(1, "T"), (1, "TGACC"), (4, "T"), (2, "C"), (1, "AG"), (9, "G")]
)
def test_indels_and_mask_are_those_of_the_authors(spliceai_code, mask, strand, ref_len, alt):
    distance, pos = 20, 6000
    rng = np.random.default_rng(ref_len + len(alt))
    letters = to_text(rng.integers(4, size=12_000).astype(np.uint8))
    ref = letters[pos - 1 : pos - 1 + ref_len]
    alt = (
        alt if alt[0] != ref or len(alt) > 1 or ref_len > 1 else "ACGT"[("ACGT".index(ref) + 1) % 4]
    )
    start, end, edges = 5200, 6015, np.array([5200, 5990, 6003, 6015])
    sequence = types.SimpleNamespace(seq=letters[pos - 1 - 5000 - distance : pos + 5000 + distance])
    models = [LocalModel(seed) for seed in range(5)]
    offsets = min(np.unique(edges) - pos, key=abs)
    annotation = types.SimpleNamespace(
        get_name_and_strand=lambda *_: (["G"], [strand], [0]),
        get_pos_data=lambda *_: (start - pos, end - pos, offsets),
        ref_fasta={"1": Sliced(sequence)},
        models=models,
    )
    record = types.SimpleNamespace(chrom="1", pos=pos, ref=ref, alts=[alt])
    (text,) = spliceai_code.get_delta_scores(record, annotation, distance, mask)

    codes = to_codes(sequence.seq).copy()
    left = pos - 1 - 5000 - distance
    codes[: start - 1 - left] = 4
    codes[end - left :] = 4
    centre = 5000 + distance
    altered = np.concatenate([codes[:centre], to_codes(alt), codes[centre + ref_len :]])
    tracks = [run_models(models, x, strand) for x in (codes, altered)]
    aligned = align_alt(tracks[1], distance, ref_len, len(alt), len(tracks[0]))
    boundary = [nearest_boundary(edges, pos)] if mask else None
    found = splice_deltas(np.stack([tracks[0], aligned])[None], distance, boundary=boundary)
    assert text == "|".join([alt, "G", written(found)])


class Sliced:
    """A contig of pyfaidx, of which the code asks for one slice."""

    def __init__(self, piece):
        self.piece = piece

    def __getitem__(self, _):
        return self.piece


def run_models(models: list[LocalModel], codes: np.ndarray, strand: str) -> np.ndarray:
    table = np.concatenate([np.eye(4), np.zeros((1, 4))])
    if strand == "-":
        codes = np.where(codes < 4, 3 - codes, 4)[::-1]
    tracks = np.mean([model.predict(table[codes][None])[0] for model in models], axis=0)[:, 1:]
    return tracks[::-1] if strand == "-" else tracks


def written(found: dict[str, np.ndarray]) -> str:
    """Write scores as SpliceAI does."""
    values = {name: float(x[0]) for name, x in found.items()}
    scores = [f"{values[f'DS_{x}']:.2f}" for x in ("AG", "AL", "DG", "DL")]
    return "|".join([*scores, *(f"{values[f'DP_{x}']:.0f}" for x in ("AG", "AL", "DG", "DL"))])


@pytest.fixture(scope="module")
def spliceai_test_genome() -> Path:
    named = os.environ.get("GLM_ANNOTATE_REFERENCES")
    if not named:
        pytest.skip("GLM_ANNOTATE_REFERENCES is not set")
    path = Path(named) / "SpliceAI" / "tests" / "data" / "test.fa"
    if not path.is_file():
        pytest.skip(f"{path} is not there (github.com/Illumina/SpliceAI)")
    return path


@pytest.mark.parity
@pytest.mark.parametrize(
    ("pos", "ref", "alt", "wanted"),
    [
        (94077, "A", "C", "0.15|0.27|0.00|0.05|89|-23|-267|193"),
        (94555, "C", "T", "0.01|0.18|0.15|0.62|-2|110|-190|0"),
    ],
)
def test_published_scores_of_spliceai(spliceai_test_genome, pos, ref, alt, wanted):
    """Of the authors' tests: TUBB8 on the reverse strand of chr10 (hg19), 500 bases around."""
    pytest.importorskip("h5py")
    torch = pytest.importorskip("torch")
    from importlib.metadata import PackageNotFoundError, distribution

    from glm_annotate.train.importing import prepare

    try:
        distribution("spliceai")
    except PackageNotFoundError:
        pytest.skip("the package spliceai is not installed")
    torch.set_num_threads(1)

    def no_file(source):
        raise AssertionError(source)

    made = prepare("spliceai", identify=no_file, accept_licence=True, assembly="grch37")
    table = gzip.decompress(made.files["genes.tsv.gz"]).decode().splitlines()
    (row,) = (x.split("\t") for x in table if x.startswith("TUBB8\t"))
    strand, start, end = row[2], int(row[3]), int(row[4])
    assert strand == "-"
    letters = spliceai_test_genome.read_text().split("\n", 1)[1].replace("\n", "")
    codes = to_codes(letters)
    distance = 500
    left = pos - 1 - 5000 - distance
    window = codes[left : pos + 5000 + distance].copy()
    window[: max(start - left, 0)] = 4
    window[end - left :] = 4
    centre = 5000 + distance
    assert to_text(window[centre : centre + 1]) == ref
    changed = window.copy()
    changed[centre : centre + 1] = to_codes(alt)
    both = np.stack([window, changed])
    complement = np.where(both < 4, 3 - both, 4)[:, ::-1].copy()
    bases = torch.cat([torch.eye(4), torch.zeros(1, 4)])[torch.from_numpy(complement).long()]
    with torch.no_grad():
        answers = [network(bases)[0].numpy() for network in made.predicted.networks]
    tracks = np.mean(answers, axis=0)[:, ::-1]
    aligned = align_alt(tracks[1], distance, 1, 1, tracks.shape[1])
    found = splice_deltas(np.stack([tracks[0], aligned])[None], distance)
    assert written(found) == wanted
