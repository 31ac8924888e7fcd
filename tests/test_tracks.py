"""Scores of tracks: the engine against plain loops, what must not change them, and INFO keys."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cli_kit import HEAD, Record, call, header_of, records_of, statuses, write_vcf
from engine import Allele, make_chunk, write_fasta
from oracle_tracks import TrackOracle
from toy_tracks import KEYS, NAMES, ROWS, Shape, TrackEngine, maker, with_card, write_toy

from glm_annotate.errors import BundleError
from glm_annotate.scores import SCORES
from glm_annotate.testing import toy_bundle
from glm_annotate.track_plan import Answers, TrackPlan
from glm_annotate.track_scores import TRACK_SCORES
from glm_annotate.variants import SKIPS

ALL = tuple(TRACK_SCORES)
CIRCULAR = frozenset({"ring"})
SHAPES = {
    "bases": Shape(48, 23, 1),
    "bases-crop": Shape(60, 27, 1, 6),
    "bins": Shape(64, 31, 4, 2),
    "wide": Shape(96, 47, 16, 1),
}
Make = Callable[..., Path]


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("toys")
    return {name: write_toy(folder / name, shape) for name, shape in SHAPES.items()}


@pytest.fixture
def make(graphs: dict[str, Path], tmp_path: Path) -> Make:
    """Give a toy another card: `make("bins", anchor=32, shifts=(0, 1))`."""
    return maker(graphs, SHAPES, tmp_path)


@pytest.fixture(scope="module")
def contigs() -> dict[str, str]:
    rng = np.random.default_rng(5)
    sizes = {"lin": 420, "ring": 150, "tiny": 20}
    made = {name: "".join(rng.choice(list("ACGT"), size)) for name, size in sizes.items()}
    line = made["lin"]
    # A run of N, repeats in which an indel has several spellings, and soft-masked bases.
    made["lin"] = line[:200] + "NNN" + line[203:300] + "AAAAACACACAC" + line[312:].lower()
    return made


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory, contigs: dict[str, str]) -> Path:
    return write_fasta(tmp_path_factory.mktemp("genome") / "toy.fa", contigs)


def other(base: str) -> str:
    return base.translate(str.maketrans("ACGT", "CGTA"))


def mixed_alleles(contigs: dict[str, str], seed: int) -> list[Allele]:
    """Every kind of small variant: in the open, near N and repeats, at ends, across an origin."""
    rng = np.random.default_rng(seed)
    places = [
        *(("lin", int(x)) for x in rng.choice(np.r_[60:190, 215:400], 8, replace=False)),
        *(("lin", x) for x in (0, 1, 196, 203, 301, 307, 416)),
        *(("ring", x) for x in (0, 1, 75, 144)),
        *(("tiny", x) for x in (0, 9, 16)),
    ]
    out: list[Allele] = []
    for name, at in places:
        bases = contigs[name].upper()[at : at + 4]
        new = "".join(rng.choice(list("ACGT"), int(rng.integers(1, 7))))
        kinds = [
            (bases[0], other(bases[0])),
            (bases[:3], other(bases[0]) + bases[1] + other(bases[2])),
            (bases[0], bases[0] + new),
            (bases[: int(rng.integers(2, 5))], bases[0]),
            (bases[:3], other(bases[0]) + new + other(bases[2])),
            (bases, other(bases[0]) + other(bases[3])),
        ]
        chosen = kinds if name == "lin" and at in (0, 301) else rng.choice(len(kinds), 2, False)
        for kind in kinds if chosen is kinds else [kinds[i] for i in chosen]:
            if set("".join(kind)) <= set("ACGT") and kind[0] != kind[1]:
                out.append((name, at + 1, *kind))
    return out


def close(found: float, wanted: float) -> bool:
    if math.isnan(wanted):
        return math.isnan(found)
    return abs(found - wanted) <= 1e-6 * max(1.0, abs(wanted))


# --- against the oracle ------------------------------------------------------------------------

# Bins reach from crop x size to context - crop x size; anchors lie inside them, at the borders of
# a bin, at the first and last base that has a bin, and beside those.
CASES: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "bases": ("bases", {}, (*ALL, "SAD:mask=center:width=9", "JSD:mask=center:width=1")),
    "bases-forward": ("bases", {"strand": "forward", "anchor": 0}, ALL),
    "bases-shifts": ("bases", {"shifts": (-2, 0, 1)}, ("SAD", "D2", "LOGSED", "SAX", "JSD")),
    **{
        f"bases-crop-{anchor}": ("bases-crop", {"anchor": anchor}, ("SAD", "SAX", "D2", "LFC"))
        for anchor in (4, 5, 6, 7, 27, 52, 53, 54)
    },
    "bins": ("bins", {}, (*ALL, *(f"{x}:mask=center:width=13" for x in ALL))),
    "bins-forward": ("bins", {"strand": "forward"}, ("SAD", "LOGSED", "JS")),
    "bins-shifts": ("bins", {"shifts": (3, 0, -3)}, ALL),
    **{
        f"bins-{anchor}": ("bins", {"anchor": anchor}, ("SAD", "LOGD1", "SAX", "JSD"))
        for anchor in (3, 7, 8, 11, 12, 32, 35, 36, 55, 56)
    },
    **{
        f"wide-{anchor}": ("wide", {"anchor": anchor}, ("SAD", "D1", "LOGSED:mask=center:width=30"))
        for anchor in (15, 16, 47, 48, 79, 80)
    },
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_score_equals_the_oracle(
    case: str, make: Make, fasta: Path, contigs: dict[str, str]
) -> None:
    toy, card, scores = CASES[case]
    bundle = make(toy, **card)
    alleles = mixed_alleles(contigs, seed=sum(map(ord, case)))
    engine = TrackEngine(bundle, fasta, scores, circular=CIRCULAR)
    oracle = TrackOracle(bundle, fasta, circular=CIRCULAR)
    assert engine.model.tracks is not None
    assert engine.model.tracks.names == NAMES == tuple(x for x, _, _ in oracle.merged())
    (result,) = engine.results(make_chunk(alleles))
    wrong, numbers = [], 0
    for spec, text in zip(engine.model.scores, scores, strict=True):
        for i, allele in enumerate(alleles):
            wanted, code = oracle.tracks(*allele, text), int(result.skip[i])
            if isinstance(wanted, str):
                assert code
                assert str(SKIPS[code - 1]) == wanted
                continue
            assert not code
            found = result.tracks[spec.key][i].tolist()
            numbers += sum(abs(x) > 1e-4 for x in wanted.values())
            same = all(map(close, found, wanted.values()))
            known = [x for x in found if not math.isnan(x)]
            largest = max(known, key=abs) if known else math.nan
            same &= np.array_equal(result.values[spec.key][i], largest, equal_nan=True)
            same &= (result.reasons[spec.key][i] != 0) == (not known)
            if not same:
                wrong.append((text, allele, found, wanted))
    assert not wrong, f"{len(wrong)} differ, such as {wrong[:3]}"
    assert numbers > 50 * len(scores)
    if result.sums is None:
        pytest.fail("no sums")
    for i in np.flatnonzero(result.skip == 0)[::5].tolist():
        pairs = oracle.sums(*alleles[i]).values()
        np.testing.assert_allclose(result.sums[i].T, list(pairs), rtol=1e-6)


def test_the_oracle_is_sensitive(make: Make, fasta: Path, contigs: dict[str, str]) -> None:
    """What a wrong engine would do gives other numbers: strands, pairs, place, stitches."""
    bundle = make("bins")
    oracle = TrackOracle(bundle, fasta)
    text = contigs["lin"][60:124].upper()
    plain = np.array(oracle.raw(text))
    reverse = text[::-1].translate(str.maketrans("ACGT", "TGCA"))
    backward = np.array(oracle.raw(reverse))
    swapped = [oracle.partner(t) for t in range(len(ROWS))]
    for wrong in (backward, backward[::-1], backward[:, swapped], backward[::-1, swapped]):
        assert np.abs(plain - wrong).max() > 0.5
    assert np.abs(plain - np.array(oracle.raw(text[1:] + "A")))[:-1].max() > 0.5
    assert np.abs(plain - np.array(oracle.raw(text[:30] + "N" + text[31:]))).max() > 0.05
    # Without the second window all bins behind an indel of one base would change.
    base = contigs["lin"][99]
    wanted = oracle.tracks("lin", 100, base, base + other(base), "D1")
    assert isinstance(wanted, dict)
    allele = oracle.allele("lin", 100, base, base + other(base))
    left = allele.start - 31
    pair = [oracle.predict(oracle.haplotype(allele, left, x, 0), 0) for x in ("", allele.alt)]
    naive = np.abs(np.subtract(*pair)).sum(axis=0)
    assert naive[1] > 2 * wanted["dnase"] > 0


def test_shifts_move_the_window_to_the_right(make: Make, fasta: Path) -> None:
    """A shift of s is a model whose anchor lies s bases further left; shifts are averaged."""
    alleles: list[Allele] = [("lin", 100, "A", "C")]
    bases = TrackEngine(make("bins"), fasta).genome.codes("lin")
    ref = "ACGT"[int(bases[99])]
    alleles = [("lin", 100, ref, other(ref)), ("lin", 100, ref, ref + "GGT")]

    def score(**card: Any) -> np.ndarray:
        (result,) = TrackEngine(make("bins", **card), fasta, ("D2",)).results(make_chunk(alleles))
        return result.tracks["D2"]

    singly = [score(anchor=31 - shift) for shift in (-2, 0, 5)]
    np.testing.assert_allclose(score(shifts=(-2, 0, 5)), np.mean(singly, axis=0), rtol=1e-6)
    assert np.abs(singly[0] - singly[1]).max() > 1e-3


def test_too_long_in_one_of_the_shifted_windows(make: Make, fasta: Path) -> None:
    ref = "ACGT"[int(TrackEngine(make("bins"), fasta).genome.codes("lin")[59])]
    wanted = [0, 0, SKIPS.index("TOO_LONG") + 1]
    alleles: list[Allele] = [("lin", 60, ref, ref + other(ref) * n) for n in (1, 30, 31)]
    bundle = make("bins", anchor=31, shifts=(0, -3))
    (result,) = TrackEngine(bundle, fasta, ("SAD",)).results(make_chunk(alleles))
    assert result.skip.tolist() == wanted
    # Without the shift the last one, too, ends where the window does.
    fits: list[Allele] = [("lin", 60, ref, ref + other(ref) * n) for n in (30, 33, 34)]
    (result,) = TrackEngine(make("bins", anchor=31), fasta, ("SAD",)).results(make_chunk(fits))
    assert result.skip.tolist() == wanted


def test_a_model_that_takes_no_n(make: Make, fasta: Path) -> None:
    spec = {"kind": "kmer", "vocab": {"order": "ACGT", "single_ids": {"N": 4}, "n": "error"}}
    engine = TrackEngine(make("bins", encoder=spec, shifts=(0, 4)), fasta, ("SAD",))
    bases = engine.genome.codes("lin")
    # Windows of 64 bases from 31 (or 27) before the change; N at 200 to 202, and off the contig.
    places = [26, 30, 31, 163, 164, 167, 234, 300]
    alleles = [("lin", p + 1, "ACGT"[bases[p]], other("ACGT"[bases[p]])) for p in places]
    (result,) = engine.results(make_chunk(alleles))
    bad = [SKIPS[code - 1] if code else "" for code in result.skip.tolist()]
    wanted = [p - 31 < 0 or not (p + 4 + 33 <= 200 or p - 31 > 202) for p in places]
    assert bad == ["AMBIGUOUS" if x else "" for x in wanted]
    assert np.isfinite(result.values["SAD"]).tolist() == [not x for x in wanted]


def test_a_card_whose_bins_are_not_those_of_the_graph(make: Make, fasta: Path) -> None:
    engine = TrackEngine(make("bins", crop=1), fasta, ("SAD",))
    with pytest.raises(BundleError, match=r"the graph gives tracks of shape \(12, 7\).*14 bins"):
        engine.results(make_chunk([("ring", 10, *ring_snv(engine))]))


@pytest.mark.parametrize(("anchor", "shift"), [(1, 2), (31, 32), (62, -2)])
def test_shifts_that_leave_the_window(anchor: int, shift: int, make: Make, fasta: Path) -> None:
    for good in (False, True):
        shifts = (0, shift + (-1 if shift > 0 else 1) * good)
        engine = TrackEngine(make("bins", anchor=anchor, shifts=shifts), fasta, ("SAD",))
        chunk = make_chunk([("ring", 10, *ring_snv(engine))])
        if good:
            assert np.isfinite(engine.results(chunk)[0].values["SAD"]).all()
        else:
            with pytest.raises(BundleError, match=f"shift {shift} moves the variant, at {anchor}"):
                engine.results(chunk)


def ring_snv(engine: TrackEngine) -> tuple[str, str]:
    base = "ACGT"[int(engine.genome.codes("ring")[9])]
    return base, other(base)


# --- what must not change a score, and what must ------------------------------------------------


def test_a_score_depends_on_its_allele_alone(
    make: Make, fasta: Path, contigs: dict[str, str]
) -> None:
    alleles = mixed_alleles(contigs, seed=1)
    bundle = make("bins", shifts=(0, 1))

    def score(asked: Sequence[Allele], **options: Any) -> np.ndarray:
        engine = TrackEngine(bundle, fasta, ALL, circular=CIRCULAR, **options)
        (result,) = engine.results(make_chunk(asked))
        return np.stack([result.tracks[key] for key in ALL], axis=1)

    whole = score(alleles)

    def check(found: np.ndarray, wanted: np.ndarray) -> None:
        allowed = 1e-6 * np.maximum(1, np.abs(wanted))
        assert (np.abs(found - wanted) <= allowed).all()

    for batch in (1, 3, 500):
        check(score(alleles, batch=batch), whole)
    check(score(alleles, batch=7, threads=2), whole)
    order = np.random.default_rng(0).permutation(len(alleles))
    check(score([alleles[i] for i in order]), whole[order])
    for i in range(0, len(alleles), 4):
        check(score(alleles[i : i + 1]), whole[i : i + 1])
    engine = TrackEngine(bundle, fasta, ALL, circular=CIRCULAR)
    parts = engine.results(make_chunk(alleles[:11]), make_chunk(alleles[11:]))
    apart = [np.stack([part.tracks[key] for key in ALL], axis=1) for part in parts]
    check(np.concatenate(apart), whole)


@pytest.mark.parametrize("toy", ["bases", "bins", "wide"])
def test_swapped_alleles(toy: str, make: Make, tmp_path: Path) -> None:
    """The same two haplotypes, with the other one in the FASTA.

    With a bin a base that holds for substitutions: of an indel, what REF lacks becomes a maximum
    and what ALT lacks 0.
    """
    rng = np.random.default_rng(3)
    pairs = [("A", "C"), ("ACC", "GCT"), ("TACG", "CAGT")]
    pairs += [] if toy == "bases" else [("AT", "A"), ("G", "GTTCA"), ("TAC", "CGAGT")]
    flanks = [["".join(rng.choice(list("ACGT"), 120)) for _ in range(2)] for _ in pairs]
    found = []
    for turned in (False, True):
        sides = [pair[::-1] if turned else pair for pair in pairs]
        both = zip(flanks, sides, strict=True)
        contigs = {f"c{i}": a + ref + b for i, ((a, b), (ref, _)) in enumerate(both)}
        (tmp_path / f"{turned}").mkdir()
        fasta = write_fasta(tmp_path / f"{turned}" / "g.fa", contigs)
        engine = TrackEngine(make(toy), fasta, ALL)
        alleles = [(f"c{i}", 121, *side) for i, side in enumerate(sides)]
        found += engine.results(make_chunk(alleles))
    for key in ALL:
        one, turned = (result.tracks[key] for result in found)
        assert np.abs(one).max() > 1e-3
        kind = SCORES[key].kind
        if kind != "other":
            sign = -1 if kind == "signed" else 1
            # The largest change may be as large elsewhere only by chance.
            np.testing.assert_allclose(turned, sign * one, rtol=1e-5, atol=1e-6, err_msg=key)


# --- passes and memory ---------------------------------------------------------------------------


def test_passes_are_shared(make: Make, fasta: Path) -> None:
    engine = TrackEngine(make("bins"), fasta, ("SAD", "D2", "SAD:mask=center:width=8"))
    codes = engine.genome.codes("lin")
    at = next(i for i in range(100, 190) if codes[i] != codes[i + 1])
    a, b = ("ACGT"[int(codes[i])] for i in (at, at + 1))
    snvs: list[Allele] = [("lin", at + 2, b, x) for x in "ACGT" if x != b]
    # Neither can be moved to the left: all have one left edge.
    deletion: list[Allele] = [("lin", at + 1, a + b, a)]
    insertion: list[Allele] = [("lin", at + 1, a, a + other(a) * 2)]
    # REF, and three ALTs; of an indel two windows of the longer allele.
    for alleles, windows in [
        (snvs, 1 + 3),
        (snvs + snvs, 1 + 3),
        (deletion, 2 + 1),
        (insertion, 1 + 2),
        (snvs + deletion, 1 + 3 + 1 + 1),
        (snvs + deletion + insertion, 1 + 3 + 1 + 1 + 2),
    ]:
        before = engine.runner.passes
        work = engine.annotator.prepare(engine.annotator.read(make_chunk(alleles)))
        assert work.passes == {"T": 2 * windows}
        engine.results(make_chunk(alleles))
        assert engine.runner.passes - before == 2 * windows


class Counted:
    """A runner that knows how many of the arrays it gave still live."""

    def __init__(self, batch: int, limit: int = 10**9) -> None:
        self.batch, self.limit_of = batch, limit
        self.live, self.most, self.ran = 0, 0, list[int]()

    def batch_size(self, rows: int) -> int:
        return self.batch

    def run(self, rows: np.ndarray, outputs: Any, channels: Any) -> Any:
        self.ran += rows[:, 0].tolist()
        array = np.repeat(rows[:, :1].astype(np.float32), 3, axis=1)
        self.live += 1
        self.most = max(self.most, self.live)
        weakref.finalize(array, self.free)
        return SimpleNamespace(array=lambda role: array)

    def free(self) -> None:
        self.live -= 1


@pytest.mark.parametrize("batch", [1, 4])
def test_answers_are_let_go(batch: int) -> None:
    """Two neighbours share a pass each; however many jobs there are, few arrays live at once."""
    most = []
    for jobs in (6, 300):
        plan, runner, got = TrackPlan("tracks"), Counted(batch), list[list[float]]()

        def take(numbers: list[int], answers: Answers, got: list[list[float]] = got) -> None:
            got.append([float(answers[k][0]) for k in numbers])

        # Asked for in another order than they are needed in.
        rows = [np.array([i, 0], dtype=np.int64) for i in range(jobs + 1)]
        numbers = {i: plan.add(rows[i]) for i in reversed(range(jobs + 1))}
        for i in range(jobs):
            needs = [numbers[i], numbers[i + 1]]
            plan.then(needs, lambda answers, needs=needs, take=take: take(needs, answers))
        assert plan.seal() == jobs + 1
        plan.execute(runner)  # type: ignore[arg-type]
        assert got == [[i, i + 1] for i in range(jobs)]
        assert runner.ran == list(range(jobs + 1))
        assert runner.live == 0
        most.append(runner.most)
    assert most[0] == most[1] <= 3


def test_memory_does_not_grow_with_alleles(make: Make, fasta: Path) -> None:
    """Alleles of one site share REF though they are cut in batches of other shapes and shifts."""
    engine = TrackEngine(make("bins", shifts=(0, 1)), fasta, ("SAD",), batch=4)
    runner, live, most = engine.runner, [0], [0]
    codes, run = engine.genome.codes("lin"), runner.run

    def counted(*arguments: Any) -> Any:
        array = run(*arguments).array("tracks").copy()
        live[0] += 1
        most[0] = max(most[0], live[0])
        weakref.finalize(array, lambda: live.__setitem__(0, live[0] - 1))
        return SimpleNamespace(array=lambda role: array)

    runner.run = counted  # type: ignore[method-assign]
    peaks = []
    for sites in (5, 60):
        alleles: list[Allele] = []
        for at in range(50, 50 + 2 * sites, 2):
            a, b = ("ACGT"[int(codes[i])] for i in (at, at + 1))
            alleles += [("lin", at + 2, b, other(b)), ("lin", at + 1, a + b, a)]
        most[0] = 0
        engine.results(make_chunk(alleles))
        peaks.append(most[0])
        assert live == [0]
    assert peaks[1] <= peaks[0] + 1


# --- INFO --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 17 tracks."""
    rows = [{"identifier": f"t{i}", "transform": "none"} for i in range(17)]
    return write_toy(tmp_path_factory.mktemp("many") / "toy", Shape(32, 15, 8), rows, tag="MANY")


@pytest.fixture
def vcf(tmp_path: Path, contigs: dict[str, str]) -> Path:
    line, ring = contigs["lin"].upper(), contigs["ring"]
    snv = f"lin 100 {line[99]} {other(line[99])},{line[99] + other(line[99]) * 2} DP=3"
    records = [
        snv,
        f"lin 201 {'A'} C",
        f"lin 120 {other(line[119])} {line[119]}",
        f"lin 130 {line[129]} <CNV>,*",
        f"lin 140 {line[139]} .",
        f"lin 301 {line[300:336]} {line[300]}",
        f"lin 150 {line[149]} {line[149]}",
        "lin 999 A C",
        "none 10 A C",
        f"ring 150 {ring[149]} {other(ring[149])}",
    ]
    return write_vcf(tmp_path / "in.vcf", records)


def annotate(tmp_path: Path, vcf: Path, fasta: Path, *arguments: object) -> bytes:
    out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}.vcf"
    code = call("vcf", vcf, "-f", fasta, "-o", out, "--no-version", *arguments)
    assert code == 0
    return out.read_bytes()


def number(text: str) -> float:
    return float("nan") if text == "." else float(text)


def check_record(record: Record, oracle: TrackOracle, texts: dict[str, str], keys: bool) -> None:
    for which, alt in enumerate(record.alts):
        chrom, pos, ref, _ = record.site
        for label, text in texts.items():
            wanted = oracle.tracks(chrom, int(pos), ref, alt, text)
            assert isinstance(wanted, dict)
            top = max(wanted, key=lambda name: abs(wanted[name]))
            assert close5(number(record.per_alt(f"{label}_MAX")[which]), wanted[top])
            encoded = {NAMES[-1]: "cell%201%3Bx%3D2%2C50%25"}.get(top, top)
            assert record.per_alt(f"{label}_TOP")[which] == encoded
            for key, value in zip(KEYS if keys else (), wanted.values(), strict=keys):
                assert close5(number(record.per_alt(f"{label}_{key}")[which]), value)


def close5(found: float, wanted: float) -> bool:
    """Six digits are printed."""
    return abs(found - wanted) <= 6e-6 * abs(wanted) + 1e-6


SCORED = ("SAD", "D2:mask=center:width=12")
TEXTS = {"TRK_SAD": SCORED[0], "TRK_D2_CENTER12": SCORED[1]}


def test_keys_of_a_few_tracks(make: Make, vcf: Path, fasta: Path, tmp_path: Path) -> None:
    bundle = make("bins", circular=("ring",))
    tsv = tmp_path / "out.tsv"
    text = annotate(tmp_path, vcf, fasta, "-m", bundle, "-s", ",".join(SCORED), "--tsv", tsv)
    declared = [x for x in header_of(text) if x.startswith("##INFO=<ID=TRK_")]
    wanted = [f"{x}_{key}" for x in TEXTS for key in (*KEYS, "MAX", "TOP")]
    names = [x.split("=", 2)[2].split(",")[0] for x in declared]
    assert names == [*wanted, "TRK_STATUS"]
    for name, line in zip(names, declared, strict=True):
        kind = "String" if name.endswith(("_TOP", "_STATUS")) else "Float"
        assert f"Number=A,Type={kind}," in line
    assert "sum of ALT bins minus sum of REF bins; model toy tracks" in declared[0]
    assert "width=12" in declared[-2 - len(KEYS)]
    oracle = TrackOracle(bundle, fasta)
    records = records_of(text)
    assert records[0].columns[7].startswith("DP=3;")
    for record in (records[0], records[-1]):
        check_record(record, oracle, TEXTS, keys=True)
    head, *lines = [line.split("\t") for line in tsv.read_text().splitlines()]
    assert head == ["chrom", "pos", "id", "ref", "alt", *names]
    assert len(lines) == sum(len(record.alts) for record in records)
    for which in range(2):
        assert lines[which][5:] == [records[0].per_alt(name)[which] for name in names]


def test_statuses(make: Make, vcf: Path, fasta: Path, tmp_path: Path) -> None:
    text = annotate(tmp_path, vcf, fasta, "-m", make("bins", circular=("ring",)), "-s", "SAD")
    found = list(statuses(text, "TRK").values())
    assert found == [
        ["SCORED", "SCORED"], ["AMBIGUOUS"], ["REF_MISMATCH"], ["SYMBOLIC", "SPANNING"],
        ["TOO_LONG"], ["NO_CHANGE"], ["OFF_CONTIG"], ["CONTIG_MISSING"], ["SCORED"],
    ]  # fmt: skip
    for record in records_of(text)[1:-1]:
        values = {v for k, v in record.info.items() if k.startswith("TRK_SAD")}
        assert values <= {".", ".,."}


def test_numbers_that_are_none(graphs: dict[str, Path], tmp_path: Path, fasta: Path) -> None:
    """A track whose number is beyond Float has a dot; only where all are does the status say so."""
    huge = {"identifier": "a", "transform": "old:sum", "clip_soft": "1e-60", "scale": "1e-60"}
    rows = [{**huge, "identifier": f"h{i}"} for i in range(6)]
    base = "ACGT"[int(TrackEngine(graphs["bins"], fasta).genome.codes("lin")[99])]
    source = write_vcf(tmp_path / "one.vcf", [f"lin 100 {base} {other(base)}"])
    for last, status in (("dnase", "SCORED"), ("h6", "SAD:NOT_FINITE")):
        bundle = tmp_path / last
        shutil.copytree(graphs["bins"], bundle)
        end = huge if last == "h6" else {"transform": "none"}
        with_card(bundle, SHAPES["bins"], [*rows, {**end, "identifier": last}])
        (record,) = records_of(annotate(tmp_path, source, fasta, "-m", bundle, "-s", "SAD"))
        assert record.info["TRK_STATUS"] == status
        assert record.info["TRK_SAD_h0"] == "."
        top = last if status == "SCORED" else "."
        assert record.info["TRK_SAD_TOP"] == top
        assert (record.info["TRK_SAD_MAX"] == ".") == (top == ".")
        assert record.info[f"TRK_SAD_{last}"] == record.info["TRK_SAD_MAX"]


def test_many_tracks_have_two_keys(
    many: Path, make: Make, vcf: Path, fasta: Path, tmp_path: Path
) -> None:
    text = annotate(tmp_path, vcf, fasta, "-m", many, "-m", f"A={make('bins')}", "-s", "LFC")
    keys = [x[len("##INFO=<ID=") :].split(",")[0] for x in header_of(text) if "ID=MANY_" in x]
    assert keys == ["MANY_LFC_MAX", "MANY_LFC_TOP", "MANY_STATUS"]
    oracle, record = TrackOracle(many, fasta), records_of(text)[0]
    check_record(record, oracle, {"MANY_LFC": "LFC"}, keys=False)
    check_record(record, TrackOracle(make("bins"), fasta), {"A_LFC": "LFC"}, keys=True)


@pytest.mark.parametrize(
    ("names", "scores", "message"),
    [
        (("a+", "a_plus"), "SAD", "the tracks 'a+' and 'a_plus' would both be a_plus"),
        (("MAX", "b"), "SAD", "two columns would have the INFO key TRK_SAD_MAX"),
        (("b", "CENTER8_b"), "SAD,SAD:mask=center:width=8", "INFO key TRK_SAD_CENTER8_b"),
    ],
)
def test_names_that_collide(
    names: tuple[str, str], scores: str, message: str, graphs: dict[str, Path], tmp_path: Path,
    vcf: Path, fasta: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    bundle = tmp_path / "toy"
    shutil.copytree(graphs["bins"], bundle)
    more = [f"x{i}" for i in range(5)]
    with_card(bundle, SHAPES["bins"], [{"identifier": x} for x in (*names, *more)])
    assert call("vcf", vcf, "-f", fasta, "-m", bundle, "-s", scores) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "INFO key" in x]
    assert message in line
    assert "--tracks-file" in line


def test_bcftools_reads_the_keys(
    make: Make, vcf: Path, fasta: Path, tmp_path: Path, bcftools: str
) -> None:
    source = tmp_path / "whole.vcf"
    declared = '##INFO=<ID=DP,Number=1,Type=Integer,Description="d">\n'
    records = vcf.read_text().removeprefix(HEAD).splitlines(keepends=True)
    # BCF holds no contig that neither header nor FASTA has.
    kept = "".join(x for x in records if not x.startswith("none"))
    source.write_text(HEAD.replace("#CHROM", declared + "#CHROM") + kept)
    bundle, out = make("bins"), tmp_path / "out.bcf"
    text = annotate(tmp_path, source, fasta, "-m", bundle, "-s", "SAD")
    arguments = ("-m", bundle, "-s", "SAD", "-o", out, "-O", "b", "--no-version")
    assert call("vcf", source, "-f", fasta, *arguments) == 0

    def view(*options: str) -> list[Record]:
        command = [bcftools, "view", "-H", *options, str(out)]
        run = subprocess.run(command, capture_output=True, text=True)
        assert not run.returncode, run.stderr
        assert "rror" not in run.stderr
        return records_of(run.stdout)

    whole = records_of(text)
    assert [x.info for x in view()] == [x.info for x in whole]
    for key, value in ((f"TRK_SAD_{KEYS[0]}", 0), ("TRK_SAD_MAX", 0)):
        for sign, holds in ((">", lambda x: x > 0), ("<", lambda x: x < 0)):
            wanted = [x.site for x in whole if x.alts and any(map(holds, floats(x, key)))]
            assert [x.site for x in view("-i", f"{key}{sign}{value}")] == wanted
    top = whole[-1].info["TRK_SAD_TOP"]
    wanted = [x.site for x in whole if x.alts and top in x.per_alt("TRK_SAD_TOP")]
    assert [x.site for x in view("-i", f'TRK_SAD_TOP="{top}"')] == wanted
    assert len(wanted) < len(whole)


def floats(record: Record, key: str) -> list[float]:
    return [number(x) for x in record.per_alt(key)]


def test_dry_run_foresees_passes_and_statuses(
    make: Make, vcf: Path, fasta: Path, tmp_path: Path
) -> None:
    bundle, found = make("bins", shifts=(0, 5)), []
    for name, options in (("dry", ("--dry-run",)), ("real", ("-o", tmp_path / "o.vcf"))):
        summary = tmp_path / f"{name}.json"
        given = ("-m", bundle, "-s", "SAD,JS", "--summary", summary, *options)
        assert call("vcf", vcf, "-f", fasta, *given) == 0
        found.append(json.loads(summary.read_text())["models"]["TRK"])
    # Of the site with an SNV and an insertion: REF twice (the insertion begins a base later), one
    # window of the SNV and two of the insertion; two of the last record; strands and shifts.
    assert found[0]["forward_passes"] == found[1]["forward_passes"] == (2 + 1 + 2 + 2) * 2 * 2
    assert found[0]["status"] == found[1]["status"]
    assert found[0]["estimated_seconds"] >= 0


def test_two_kinds_of_models_in_one_run(make: Make, vcf: Path, fasta: Path, tmp_path: Path) -> None:
    """Each model says what it says alone; scores that only one of them has are its own."""
    toy = toy_bundle("wide", tmp_path / "lm", context=32, anchor=16, scores=("LLR", "ENT"))
    tracks = make("bins", scores=("LOGSED", "SAX"))
    both = records_of(annotate(tmp_path, vcf, fasta, "-m", toy, "-m", tracks))
    parts = [records_of(annotate(tmp_path, vcf, fasta, "-m", x)) for x in (toy, tracks)]
    for record, one, two in zip(both, *parts, strict=True):
        assert record.info == one.info | two.info
    assert {"TOY_LLR", "TRK_LOGSED_MAX", "TRK_SAX_dnase"} <= both[0].info.keys()


def test_the_embedding_of_a_model_of_tracks(fasta: Path, vcf: Path, tmp_path: Path) -> None:
    """It has one number an allele and no track; both kinds in one run are refused."""
    bundle = write_toy(tmp_path / "toy", Shape(32, 15, 8), embeds=True, strand="forward")
    text = annotate(tmp_path, vcf, fasta, "-m", bundle, "-s", "EMB_L1")
    keys = [x[len("##INFO=<ID=") :].split(",")[0] for x in header_of(text) if "ID=TRK_" in x]
    assert keys == ["TRK_EMB_L1", "TRK_STATUS"]
    oracle, record = TrackOracle(bundle, fasta), records_of(text)[0]
    ref, alt = record.site[2], record.alts[0]
    allele = oracle.allele("lin", 100, ref, alt)
    means = []
    for base in (ref, alt):
        hap = oracle.haplotype(allele, 99 - 15, base, 0)
        ids = np.array([["ACGT".index(x) for x in hap]], dtype=np.uint8)
        means.append(oracle.session.run(["embedding"], {"rows": ids})[0][0].mean(axis=0))
    wanted = np.abs(means[1] - means[0]).sum()
    assert float(record.per_alt("TRK_EMB_L1")[0]) == pytest.approx(wanted, rel=1e-5)
    both = ("-m", bundle, "-s", "SAD,EMB_L1", "-o", tmp_path / "both.vcf")
    assert call("vcf", vcf, "-f", fasta, *both) == 2
