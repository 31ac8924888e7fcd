"""Numbers of every base: against plain loops, and equal to what `vcf` says of the same sites."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pysam
import pytest
from cli_kit import call
from dense_kit import DenseEngine, DenseOracle
from engine import Allele, Engine, write_fasta
from oracle import Oracle, log_softmax
from toy_tracks import NAMES, Shape, TrackEngine, write_toy

from glm_annotate import annotate
from glm_annotate.annotate import Model
from glm_annotate.errors import UsageError
from glm_annotate.genome import Genome
from glm_annotate.per_base import ISM, Kind, Mode, per_base, substitutions
from glm_annotate.testing import toy_bundle
from glm_annotate.variants import SKIPS, AlleleReader

CIRCULAR = frozenset({"ring"})
ALL = (Kind("likelihood"), Kind("entropy"), Kind("information"), Kind("ism"))
Columns = dict[str, np.ndarray[Any, np.dtype[np.float64]]]


@pytest.fixture(scope="module")
def contigs() -> dict[str, str]:
    rng = np.random.default_rng(21)
    made = {n: "".join(rng.choice(list("ACGT"), s)) for n, s in (("lin", 230), ("ring", 61))}
    line = made["lin"]
    made["lin"] = line[:80] + "NN" + line[82:120] + "R" + line[121:160] + line[160:].lower()
    return made


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory, contigs: dict[str, str]) -> Path:
    return write_fasta(tmp_path_factory.mktemp("genome") / "toy.fa", contigs)


def model_of(engine: Engine) -> Model:
    (model,) = engine.annotator.models
    return model


def joined(engine: Engine, contig: str, start: int, end: int, **options: Any) -> Columns:
    """Put the pieces together, which must follow each other."""
    kinds = options.pop("kinds", ALL)
    parts: dict[str, list[Any]] = {name: [] for kind in kinds for name in kind.columns}
    at = start
    for first, found in per_base(
        model_of(engine), engine.genome, contig, start, end, kinds, **options
    ):
        assert first == at
        assert list(found) == list(parts)
        for name, values in found.items():
            parts[name].append(values)
            assert values.dtype == np.float64
        assert len({x.size for x in found.values()}) == 1
        at += next(iter(found.values())).size
    assert at == end
    return {name: np.concatenate([np.zeros(0), *x]) for name, x in parts.items()}


def others(base: str) -> str:
    return "ACGT".replace(base, "")


CASES = {
    "wide": ("wide", {"context": 24, "dense": 5}),
    "forward": ("wide", {"context": 25, "anchor": 7, "dense": 4, "strand": "forward"}),
    "overlap": ("overlap", {"context": 22, "dense": 6}),
    "blocks": ("blocks", {"context": 21, "dense": 7}),
    "onehot": ("onehot", {"context": 20, "dense": 3}),
}


@pytest.mark.parametrize("mode", ["exact", "dense"])
@pytest.mark.parametrize("case", CASES)
def test_every_base_equals_plain_loops(
    case: str, mode: Mode, tmp_path: Path, fasta: Path, contigs: dict[str, str]
) -> None:
    kind, options = CASES[case]
    bundle = toy_bundle(kind, tmp_path / "toy", **options)
    engine = Engine(bundle, fasta, (), circular=CIRCULAR)
    oracle = (DenseOracle if mode == "dense" else Oracle)(bundle, fasta, circular=CIRCULAR)
    for contig, start, end in (("lin", 74, 124), ("ring", 0, 61)):
        found = joined(engine, contig, start, end, mode=mode)
        for i in range(start, end):
            base = contigs[contig][i].upper()
            here = {name: values[i - start] for name, values in found.items()}
            if base not in "ACGT":
                assert all(math.isnan(x) for x in here.values())
                continue
            llr = {x: oracle.score(contig, i + 1, base, x, "LLR") for x in others(base)}
            entropy = oracle.score(contig, i + 1, base, others(base)[0], "ENT")
            wanted = {f"ism_{x}": value for x, value in llr.items()} | {f"ism_{base}": 0.0}
            wanted["ism_maxabs"] = max(abs(x) for x in llr.values())
            wanted["ism_mean"] = sum(llr.values()) / 3
            wanted["entropy"], wanted["information"] = entropy, 2 - entropy / math.log(2)
            if mode == "dense":
                wanted["likelihood"] = oracle.likelihood(contig, i)
            for name, value in wanted.items():
                assert here[name] == pytest.approx(value, rel=1e-6, abs=2e-6), (contig, i, name)


def test_likelihood_by_hand(tmp_path: Path, fasta: Path, contigs: dict[str, str]) -> None:
    """One base masked in a window of its own, on both strands, from the session itself."""
    bundle = toy_bundle("wide", tmp_path / "toy", context=16, anchor=6)
    found = joined(Engine(bundle, fasta), "lin", 0, 40, kinds=[Kind("likelihood")])["likelihood"]
    oracle = Oracle(bundle, fasta)
    ids, pair = dict(zip("ACGTN", (3, 4, 5, 6, 2), strict=True)), str.maketrans("ACGT", "TGCA")
    for i in range(40):
        window = oracle.stretch("lin", i - 6, 16)
        chances = []
        for text, at in ((window, 6), (window[::-1].translate(pair), 9)):
            rows = np.array([[1 if j == at else ids[x] for j, x in enumerate(text)]])
            (logits,) = oracle.session.run(["logits"], {"rows": rows})
            logs = log_softmax(logits[0][at].astype(float))
            four = [math.exp(logs[ids[x]]) for x in "ACGT"]
            chances.append(math.exp(logs[ids[text[at]]]) / sum(four))
        assert found[i] == pytest.approx(math.log(sum(chances) / 2), abs=1e-5)


def test_causal_models_are_read_given_what_precedes(
    tmp_path: Path, fasta: Path, contigs: dict[str, str]
) -> None:
    bundle = toy_bundle("causal", tmp_path / "toy", context=16, anchor=8)
    found = joined(Engine(bundle, fasta), "lin", 20, 40)
    oracle = Oracle(bundle, fasta)
    for i in range(20, 40):
        base = contigs["lin"][i]
        first = others(base)[0]
        assert found["entropy"][i - 20] == pytest.approx(
            oracle.score("lin", i + 1, base, first, "ENT"), abs=2e-6
        )
        assert found[f"ism_{first}"][i - 20] == pytest.approx(
            oracle.score("lin", i + 1, base, first, "LLR"), abs=2e-6
        )
    with pytest.raises(UsageError, match="causal"):
        joined(Engine(bundle, fasta), "lin", 0, 9, mode="dense")


def test_pieces_and_stretches_change_nothing(
    tmp_path: Path, fasta: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = toy_bundle("wide", tmp_path / "toy", context=24, dense=5)
    engine = Engine(bundle, fasta)
    modes: tuple[Mode, Mode] = ("exact", "dense")
    whole = {mode: joined(engine, "lin", 0, 230, mode=mode) for mode in modes}
    monkeypatch.setattr(annotate, "_LARGEST_CHUNK", 40)
    monkeypatch.setattr(annotate, "_SMALLEST_CHUNK", 1)
    for mode in modes:
        for start, end in ((0, 230), (17, 101), (90, 91), (50, 50)):
            found = joined(engine, "lin", start, end, mode=mode)
            for name, values in found.items():
                np.testing.assert_allclose(values, whole[mode][name][start:end], atol=1e-6)


def test_dense_passes_are_made_once(
    tmp_path: Path, fasta: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annotate, "_LARGEST_CHUNK", 60)
    bundle = toy_bundle("wide", tmp_path / "toy", context=24, dense=4)
    engine = Engine(bundle, fasta)
    joined(engine, "ring", 6, 61, mode="dense")
    # Windows 0 to 5 answer for 12 bases each, of every residue, but the last one has one base.
    assert engine.runner.passes == 2 * (5 * 4 + 1)


@pytest.mark.parametrize("mode", ["exact", "dense"])
def test_the_command_vcf_says_the_same(
    mode: Mode, tmp_path: Path, fasta: Path, contigs: dict[str, str]
) -> None:
    bundle = toy_bundle("wide", tmp_path / "toy", context=24, dense=5, circular=["ring"])
    regions = "ring:51-61,lin:31-90,lin:71-125,ring:1-20"
    command = ("tracks", "-f", fasta, "-m", bundle, "-s", "LLR,ENT", "--mode", mode, "-k", "ism")
    assert call(*command, "-r", regions, "-o", tmp_path) == 0
    saved = str(tmp_path / "TOY" / "ism" / "snvs.vcf.gz")
    engine = Engine(bundle, fasta, (), circular=CIRCULAR)
    found = {name: joined(engine, name, 0, len(contigs[name]), mode=mode) for name in contigs}
    # bcftools' own reader, through the index.
    with pysam.VariantFile(saved) as vcf:
        records = [(x.contig, x.start, x.ref, x.alts, dict(x.info)) for x in vcf]
        there = [(x.contig, x.start) for x in vcf.fetch("ring", 49, 52)]
    assert there == [("ring", i) for i in (50, 51) for _ in range(3)]
    text = {name: bases.upper() for name, bases in contigs.items()}
    wanted = [
        (name, i, text[name][i], x)
        for name, places in (("lin", range(30, 125)), ("ring", (*range(20), *range(50, 61))))
        for i in places
        if text[name][i] in "ACGT"
        for x in others(text[name][i])
    ]
    assert [(c, i, ref, *alts) for c, i, ref, alts, _ in records] == wanted
    for contig, i, _, (alt,), info in records:
        assert info["TOY_STATUS"] == ("SCORED",)
        for key, name in (("TOY_LLR", f"ism_{alt}"), ("TOY_ENT", "entropy")):
            assert info[key][0] == pytest.approx(found[contig][name][i], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("alts", [1, 2, 3])
def test_substitutions_are_what_a_reader_of_records_makes(
    alts: int, fasta: Path, contigs: dict[str, str]
) -> None:
    genome = Genome(fasta)
    made = substitutions(genome, "lin", 70, 130, alts)
    rows = [
        (i, x, y)
        for i in range(70, 130)
        for x in contigs["lin"][i].upper()
        for y in (others(x) if x in "ACGT" else "ACG")[:alts]
    ]
    read = AlleleReader(genome).read(
        [b"lin"] * len(rows),
        np.array([i + 1 for i, _, _ in rows]),
        [x.encode() for _, x, _ in rows],
        [y.encode() for _, _, y in rows],
        [b"."] * len(rows),
    )
    np.testing.assert_array_equal(made.skip, read.skip)
    assert set(made.skip.tolist()) == {0, 1 + SKIPS.index("AMBIGUOUS")}
    for name in ("contig", "start", "ref_len", "alt_len", "ref_base", "record"):
        np.testing.assert_array_equal(getattr(made, name), getattr(read, name))
    good = made.skip == 0
    np.testing.assert_array_equal(made.alt_base[good], read.alt_base[good])


def test_scope(tmp_path: Path, fasta: Path) -> None:
    scope = {"contigs": [{"name": "ring"}]}
    engine = Engine(toy_bundle("wide", tmp_path / "toy", context=16, scope=scope), fasta)
    assert np.isnan(joined(engine, "lin", 0, 9)["ism_mean"]).all()
    assert np.isfinite(joined(engine, "ring", 0, 9)["ism_mean"]).all()


@pytest.mark.parametrize("track", [None, NAMES[1], NAMES[2]])
def test_mutagenesis_by_a_score_of_tracks(
    track: str | None, tmp_path: Path, fasta: Path, contigs: dict[str, str]
) -> None:
    bundle = write_toy(tmp_path / "toy", Shape(48, 23, 1))
    engine = TrackEngine(bundle, fasta, ("SAD", "D2"), circular=CIRCULAR)
    sites = range(60, 68)
    kinds = [Kind("ism", "D2", track)]
    found = joined(engine, "lin", 60, 68, kinds=kinds)
    alleles: list[Allele] = [
        ("lin", i + 1, contigs["lin"][i], x) for i in sites for x in others(contigs["lin"][i])
    ]
    result = scored(engine, alleles)
    values = result.values["D2"] if track is None else result.tracks["D2"][:, NAMES.index(track)]
    for (_, pos, ref, alt), value in zip(alleles, values, strict=True):
        assert found[f"ism_{alt}"][pos - 61] == pytest.approx(value, rel=1e-6)
        assert found[f"ism_{ref}"][pos - 61] == 0.0
    three = np.abs(values.reshape(-1, 3))
    np.testing.assert_allclose(found["ism_maxabs"], three.max(axis=1), rtol=1e-6)


def scored(engine: Engine, alleles: Sequence[Allele]) -> Any:
    from engine import make_chunk

    (result,) = engine.results(make_chunk(alleles))
    return result


def test_what_a_model_cannot_give(tmp_path: Path, fasta: Path) -> None:
    tracks = TrackEngine(write_toy(tmp_path / "toy", Shape(48, 23, 1)), fasta, ("SAD",))
    with pytest.raises(UsageError, match=r"no track 'x'; it has cage\+, dnase"):
        joined(tracks, "lin", 0, 5, kinds=[Kind("ism", "SAD", "x")])
    with pytest.raises(UsageError, match="does not give ENT"):
        joined(tracks, "lin", 0, 5, kinds=[Kind("likelihood")])
    with pytest.raises(UsageError, match="cannot be read so: it is tracks"):
        joined(tracks, "lin", 0, 5, kinds=[Kind("ism", "SAD")], mode="dense")
    wide = Engine(toy_bundle("wide", tmp_path / "wide", context=16), fasta)
    with pytest.raises(UsageError, match="has no track 'x'; it has none"):
        joined(wide, "lin", 0, 5, kinds=[Kind("ism", "LLR", "x")])
    pairs = Engine(toy_bundle("bpe", tmp_path / "bpe", context=24), fasta)
    with pytest.raises(UsageError, match="toy-bpe gives no entropy of single bases"):
        joined(pairs, "lin", 0, 5, kinds=[Kind("entropy")])
    with pytest.raises(ValueError, match="no bases 5 to 231"):
        joined(wide, "lin", 5, 231)


def test_some_substitutions_of_byte_pairs_have_no_number(
    tmp_path: Path, fasta: Path, contigs: dict[str, str]
) -> None:
    engine = Engine(toy_bundle("bpe", tmp_path / "bpe", context=24), fasta)
    found = joined(engine, "lin", 10, 60, kinds=[Kind("ism")])
    four = np.stack([found[f"ism_{x}"] for x in ISM[:4]], axis=1)
    lost = np.isnan(four)
    assert lost.any()
    assert not lost.all()
    np.testing.assert_array_equal(np.isnan(found["ism_mean"]), lost.any(axis=1))
    np.testing.assert_array_equal(np.isnan(found["ism_maxabs"]), lost.any(axis=1))
    # Where no substitution has a number, the reference's zero would be the only one.
    assert not (lost.sum(axis=1) == 3).any()


def test_the_models_own_scores_and_mode_do_not_matter(tmp_path: Path, fasta: Path) -> None:
    bundle = toy_bundle("wide", tmp_path / "toy", context=16, dense=4)
    engine = DenseEngine(bundle, fasta, ("EMB_COS",))
    found = joined(engine, "lin", 0, 40)
    wanted = joined(Engine(bundle, fasta), "lin", 0, 40)
    for name, values in found.items():
        np.testing.assert_allclose(values, wanted[name], atol=1e-6)
    assert replace(model_of(engine), dense=0).scores[0].name == "EMB_COS"
