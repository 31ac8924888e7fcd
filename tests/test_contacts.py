"""Scores of contact maps: against loops, in files, and where there is no number."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_kit import call, header_of, records_of, write_vcf
from engine import Allele, Engine, gapped_contigs, make_chunk, write_fasta
from oracle_channels import Signals
from test_engine import CIRCULAR, mixed_alleles
from test_signals import write_bigwig
from toy_contacts import ContactOracle, Shape, card_of, insulation, write_toy

from glm_annotate.bundle import GRAPH, write_bundle
from glm_annotate.card import ModelCard
from glm_annotate.contact_scores import layout_of, score_contacts
from glm_annotate.errors import BundleError, UsageError
from glm_annotate.opening import open_tracks
from glm_annotate.scores import parse_scores

SCORES = ("CONTACT_L1", "INSULATION", "INSULATION:radius=3")
SIGNALS = tuple(
    {"name": name, "source": "bigwig", "indel": indel, "missing": missing}
    for name, indel, missing in (("CTCF", "edit", 0.25), ("ATAC", "reference", 0))
)
SHAPES = {
    "square": Shape(symmetric=False),
    "maps": Shape(maps=2, crop=1, anchor=17),
    "upper": Shape(layout="upper", diagonal=2, bins=11, crop=1, maps=3, anchor=21),
    "signals": Shape(symmetric=False, signals=SIGNALS, anchor=15),
    "ratios": Shape(layout="upper", diagonal=2, bins=11, crop=1, maps=2, anchor=21, ratios=True),
}
NAMES = {"maps": ("map_1", "map_2"), "upper": ("H1-hESC", "HFF+", "GM"), "ratios": ("a", "b")}


@pytest.fixture(scope="module")
def contigs() -> dict[str, str]:
    return gapped_contigs(21, lin=300, ring=120, tiny=25)


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory, contigs: dict[str, str]) -> Path:
    return write_fasta(tmp_path_factory.mktemp("genome") / "toy.fa", contigs)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bundle of each shape, written once."""
    folder = tmp_path_factory.mktemp("bundles")
    return {
        name: write_toy(folder / name, shape, NAMES.get(name, ()))
        for name, shape in SHAPES.items()
    }  # fmt: skip


@pytest.fixture(scope="module")
def tracks(contigs: dict[str, str]) -> Signals:
    """Quarters, which float32 holds, with gaps."""
    rng = np.random.default_rng(4)
    return {
        name: {
            contig: [
                None if gap else float(x)
                for x, gap in zip(
                    rng.integers(-2, 12, len(bases)) / 4, rng.random(len(bases)) < 0.1, strict=True
                )
            ]
            for contig, bases in contigs.items()
        }
        for name in ("CTCF", "ATAC")
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, tracks: Signals) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bigwigs")
    return {name: write_bigwig(folder / f"{name}.bw", track) for name, track in tracks.items()}


def recard(bundle: Path, folder: Path, shape: Shape, **card: Any) -> Path:
    """Copy a bundle under another card."""
    shutil.copytree(bundle, folder)
    write_bundle(folder, card_of(shape, **card))
    return folder


class ContactEngine(Engine):
    """An engine that gives the scores of every map."""

    def __init__(self, bundle: Path, fasta: Path, scores: Sequence[str] = SCORES, **more: Any):
        super().__init__(bundle, fasta, scores, **more)
        (model,) = self.annotator.models
        self.model = replace(model, tracks=open_tracks(self.bundle, None))
        self.annotator.models = [self.model]

    def by_map(self, alleles: Sequence[Allele]) -> dict[str, list[list[float]]]:
        """Give the numbers of every map, by score; NaN where there is none."""
        (result,) = self.results(make_chunk(alleles))
        if not result.tracks:
            return {key: [[x] for x in values.tolist()] for key, values in result.values.items()}
        return {key: values.tolist() for key, values in result.tracks.items()}


def edges(contigs: Mapping[str, str]) -> list[Allele]:
    """Every kind of change at both ends of contigs, as far as REF has no N."""
    out: list[Allele] = []
    for name, bases in contigs.items():
        for at in (0, 1, len(bases) - 3):
            ref = bases[at : at + 2]
            new = "CGTA"["ACGT".index(ref[0])]
            out += [(name, at + 1, ref, x) for x in (new + ref[1], ref[0], ref + "GAT", "TGGC")]
    return [x for x in out if x[2] != x[3]]


def compare(
    engine: ContactEngine, oracle: Sequence[ContactOracle], alleles: Sequence[Allele]
) -> int:
    """Compare every number and reason with the oracle of each map; gives how many numbers."""
    reasons, found = engine.score(alleles), engine.by_map(alleles)
    wrong, numbers = [], 0
    for text, key in zip(SCORES, found, strict=True):
        for i, allele in enumerate(alleles):
            expected = [one.score(*allele, text) for one in oracle]
            if isinstance(expected[0], str):
                good = reasons[key][i] == expected[0] and np.isnan(found[key][i]).all()
            else:
                numbers += len(expected)
                good = np.allclose(found[key][i], expected, rtol=1e-9, atol=1e-12)
                good &= reasons[key][i] == max(found[key][i], key=abs)
            if not good:
                wrong.append((key, allele, reasons[key][i], found[key][i], expected))
    assert not wrong, f"{len(wrong)} differ, such as {wrong[:4]}"
    return numbers


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "raw and not symmetric": ("square", {}),
    "one strand": ("square", {"strand": "forward"}),
    "square without its diagonal": ("square", {"diagonal": 2}),
    "said to be symmetric": ("maps", {}),
    "upper triangles": ("upper", {}),
    "upper triangles, one strand": ("upper", {"strand": "forward"}),
    "logarithms of ratios": ("ratios", {}),
    "signals": ("signals", {}),
    "signals, one strand": ("signals", {"strand": "forward"}),
}


@pytest.mark.parametrize("case", CASES)
def test_every_score_equals_the_oracle(
    case: str, tmp_path: Path, fasta: Path, contigs: dict[str, str], bundles: dict[str, Path],
    tracks: Signals, files: dict[str, Path],
) -> None:  # fmt: skip
    name, options = CASES[case]
    shape = replace(SHAPES[name], diagonal=options.pop("diagonal", SHAPES[name].diagonal))
    bundle = recard(bundles[name], tmp_path / "toy", shape, **options)
    given = files if shape.signals else {}
    engine = ContactEngine(bundle, fasta, circular=CIRCULAR, signals=given)
    oracle = [
        ContactOracle(bundle, fasta, which, shape, circular=CIRCULAR)
        for which in range(max(1, shape.maps))
    ]
    if shape.signals:
        oracle = [x.with_signals(tracks, contigs) for x in oracle]
    alleles = mixed_alleles(contigs, seed=sum(map(ord, case)), n=40) + edges(contigs)
    assert compare(engine, oracle, alleles) > 150 * len(oracle)
    # Neither the batch nor the company of other alleles changes anything.
    small = ContactEngine(bundle, fasta, circular=CIRCULAR, signals=given, batch=1)
    again = small.by_map(alleles[::-1])
    for key, values in engine.by_map(alleles).items():
        np.testing.assert_allclose(again[key][::-1], values, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["square", "upper"])
def test_swapping_the_alleles(
    name: str, tmp_path: Path, contigs: dict[str, str], fasta: Path, bundles: dict[str, Path]
) -> None:
    """On a genome that has ALT, the way back: a distance stays, a signed score turns."""
    line = contigs["lin"]
    variants = [(150, "A", "C"), (40, "AC", "TG"), (120, "G", "GTAGT"), (260, "TCA", "T")]
    for pos, ref, alt in variants:
        there = write_fasta(tmp_path / f"{pos}.fa", {"lin": line[:pos] + ref + line[pos + 9 :]})
        back = write_fasta(tmp_path / f"{pos}.back.fa", {"lin": line[:pos] + alt + line[pos + 9 :]})
        one = ContactEngine(bundles[name], there).by_map([("lin", pos + 1, ref, alt)])
        other = ContactEngine(bundles[name], back).by_map([("lin", pos + 1, alt, ref)])
        assert np.abs(one["CONTACT_L1"]).min() > 0
        assert np.abs(one["INSULATION_RADIUS3"]).max() > 0
        np.testing.assert_allclose(one["CONTACT_L1"], other["CONTACT_L1"], rtol=1e-9)
        np.testing.assert_allclose(
            one["INSULATION_RADIUS3"], np.negative(other["INSULATION_RADIUS3"]), rtol=1e-9
        )


def test_the_alts_of_a_site_share_the_pass_of_ref(
    fasta: Path, bundles: dict[str, Path], contigs: dict[str, str]
) -> None:
    ref = contigs["lin"][149]
    engine = ContactEngine(bundles["square"], fasta)
    engine.by_map([("lin", 150, ref, x) for x in "ACGT" if x != ref])
    assert engine.runner.passes == 2 * 4


def test_alleles_are_asked_for_in_their_order(
    fasta: Path, bundles: dict[str, Path], contigs: dict[str, str]
) -> None:
    """Whatever kinds of change are mixed: then REF's maps of a site are let go with its alleles."""
    line = contigs["lin"]
    alleles: list[Allele] = []
    for at in range(100, 160, 4):
        ref = line[at - 1]
        for alt in ("ACGT"["ACGT".index(ref) - 1], ref + "GA", ref + "T"):
            alleles.append(("lin", at, ref, alt))
    engine = ContactEngine(bundles["square"], fasta)
    work = engine.annotator.prepare(engine.annotator.read(make_chunk(alleles)))
    (task,) = work.tasks
    jobs = task.plan._jobs
    assert [job.finish.args[1] for job in jobs] == list(range(len(alleles)))  # type: ignore[attr-defined]

    def most_held(needs: Sequence[Sequence[int]]) -> int:
        """Count the maps that are there at one time, where each is run when it is first read."""
        every = {k for some in needs for k in some}
        reads = {k: [i for i, some in enumerate(needs) if k in some] for k in every}
        return max(sum(x[0] <= i <= x[-1] for x in reads.values()) for i in range(len(needs)))

    # By kind, as windows are cut, REF's maps of every site would wait for its last allele.
    by_kind = [jobs[i].needs for kind in range(3) for i in range(kind, len(jobs), 3)]
    held = most_held([job.needs for job in jobs])
    assert held <= 8
    assert most_held(by_kind) > 2 * held


def test_logarithms_of_ratios_cannot_explode() -> None:
    """A map whose mean is 0 has no ratio; minus the mean across the bin is 0.5 less."""
    card = ModelCard.model_validate(card_of(Shape(bins=4, anchor=8, maps=2)))
    layout = layout_of(card, ["log(observed/expected)", "log(1 + contacts)"])
    assert layout.ratios == (True, False)
    ref = np.kron([[1.0, -1.0], [-1.0, 1.0]], np.ones((2, 2)))
    alt = np.kron([[1.0, -0.5], [-0.5, 1.0]], np.ones((2, 2)))
    ratio, plain = score_contacts(
        "INSULATION", layout, np.stack([ref, ref]), np.stack([alt, alt]), {"radius": "2"}
    )
    assert ratio == -0.5
    # (1 + 30 x 0.25) / (-0.5 + 30 x 0.25) - (1 + 0) / (-1 + 0): of another size and sign.
    assert plain == pytest.approx(8.5 / 7 + 1)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("log(observed/expected)", True), ("log2(obs/exp)", True), ("Log( Obs / Exp )", True),
        ("observed/expected", False), ("log(1+contacts)", False), ("", False),
    ],
)  # fmt: skip
def test_units_of_maps(text: str, wanted: bool) -> None:
    card = ModelCard.model_validate(card_of(SHAPES["maps"]))
    assert layout_of(card, [text]).ratios == (wanted,)


# --- files ---------------------------------------------------------------------------------------


def annotate(folder: Path, fasta: Path, bundle: Path, records: list[str], *options: object) -> Any:
    source, out = write_vcf(folder / "in.vcf", records), folder / "out.vcf"
    assert call("vcf", source, "-f", fasta, "-m", bundle, *options, "-o", out, "--force") == 0
    return out.read_text()


def test_one_map_in_a_file(
    tmp_path: Path, fasta: Path, bundles: dict[str, Path], contigs: dict[str, str]
) -> None:
    ref = contigs["lin"][149]
    alt = "C" if ref != "C" else "G"
    text = annotate(
        tmp_path, fasta, bundles["square"], [f"lin 150 {ref} {alt},{ref}TTG,*"],
        "-s", "INSULATION,CONTACT_L1,insulation:radius=10",
    )  # fmt: skip
    (record,) = records_of(text)
    assert list(record.info) == [
        "MAP_INSULATION", "MAP_CONTACT_L1", "MAP_INSULATION_RADIUS10", "MAP_STATUS",
    ]  # fmt: skip
    assert record.per_alt("MAP_STATUS") == ["SCORED", "SCORED", "SPANNING"]
    oracle = ContactOracle(bundles["square"], fasta, 0, SHAPES["square"])
    for key, score in (("INSULATION", "INSULATION"), ("CONTACT_L1", "CONTACT_L1")):
        found = record.per_alt(f"MAP_{key}")
        assert found[2] == "."
        for value, new in zip(found, (alt, f"{ref}TTG"), strict=False):
            expected = oracle.score("lin", 150, ref, new, score)
            assert float(value) == pytest.approx(expected, rel=1e-5)
    about = {line.partition(",")[0]: line for line in header_of(text)}
    for key in ("INSULATION", "CONTACT_L1", "INSULATION_RADIUS10"):
        line = about[f"##INFO=<ID=MAP_{key}"]
        assert "Number=A,Type=Float" in line
        assert "aligned at the left edge of the window alone" in line
    assert "radius=10" in about["##INFO=<ID=MAP_INSULATION_RADIUS10"]
    assert "mean with its transpose" in about["##INFO=<ID=MAP_INSULATION"]


def test_several_maps_in_a_file(tmp_path: Path, fasta: Path, bundles: dict[str, Path]) -> None:
    records = ["lin 150 N .", "lin 91 A AC", "lin 92 A G,T"]
    text = annotate(tmp_path, fasta, bundles["upper"], records, "-s", "CONTACT_L1")
    *_, indel, double = records_of(text)
    assert list(double.info) == [
        *(f"MAP_CONTACT_L1_{x}" for x in ("H1_minushESC", "HFF_plus", "GM", "MAX", "TOP")),
        "MAP_STATUS",
    ]
    for record in (indel, double):
        oracle = [
            ContactOracle(bundles["upper"], fasta, which, SHAPES["upper"]) for which in range(3)
        ]
        for i, alt in enumerate(record.alts):
            _, pos, ref, _ = record.site
            wanted = [x.score("lin", int(pos), ref, alt, "CONTACT_L1") for x in oracle]
            found = [
                float(record.per_alt(f"MAP_CONTACT_L1_{x}")[i])
                for x in ("H1_minushESC", "HFF_plus", "GM")
            ]
            assert found == pytest.approx(wanted, rel=1e-5)
            assert float(record.per_alt("MAP_CONTACT_L1_MAX")[i]) == max(found)
            top = record.per_alt("MAP_CONTACT_L1_TOP")[i]
            assert top == ("H1-hESC", "HFF+", "GM")[found.index(max(found))]


def test_one_of_several_maps(tmp_path: Path, fasta: Path, bundles: dict[str, Path]) -> None:
    every, some = (
        records_of(annotate(tmp_path, fasta, bundles["upper"], ["lin 92 A G"], *options))[0].info
        for options in ([], ["--track-regex", "HFF"])
    )
    key = "MAP_CONTACT_L1_HFF_plus"
    assert some[key] == some["MAP_CONTACT_L1_MAX"] == every[key]
    assert not any("GM" in name for name in some)


def test_dry_run_and_summary(tmp_path: Path, fasta: Path, bundles: dict[str, Path]) -> None:
    source, summary = write_vcf(tmp_path / "in.vcf", ["lin 92 A G", "tiny 1 N ."]), tmp_path / "s"
    options = ["-f", fasta, "-m", bundles["upper"], "--summary", summary]
    assert call("vcf", source, *options, "--dry-run") == 0
    model = json.loads(summary.read_text())["models"]["MAP"]
    assert (model["status"], model["forward_passes"]) == ({"SCORED": 1}, 4)


def test_a_signal_is_needed(tmp_path: Path, fasta: Path, bundles: dict[str, Path], capfd) -> None:
    source = write_vcf(tmp_path / "in.vcf", ["lin 92 A G"])
    assert call("vcf", source, "-f", fasta, "-m", bundles["signals"]) == 2
    assert "--signal CTCF=FILE.bw" in capfd.readouterr().err


# --- where there is no number --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("anchor", "scores", "expected"),
    [
        (3, "INSULATION,CONTACT_L1", "INSULATION:NO_BIN"),  # cut off
        (7, "INSULATION:radius=4", "INSULATION_RADIUS4:NO_BIN"),  # the first bin of the map
        (8, "INSULATION,CONTACT_L1", "SCORED"),
        (31, "INSULATION,CONTACT_L1", "SCORED"),  # the last one
        (32, "CONTACT_L1,INSULATION", "INSULATION:NO_BIN"),
        (32, "CONTACT_L1", "SCORED"),
    ],
)
def test_a_bin_outside_the_map(
    anchor: int, scores: str, expected: str, tmp_path: Path, fasta: Path, bundles: dict[str, Path]
) -> None:
    shape = replace(SHAPES["maps"], anchor=anchor)
    bundle = recard(bundles["maps"], tmp_path / "toy", shape)
    text = annotate(tmp_path, fasta, bundle, ["lin 150 N .", "lin 92 A G,AT"], "-s", scores)
    record = records_of(text)[1]
    assert record.per_alt("MAP_STATUS") == [expected] * 2
    for key, value in record.info.items():
        lost = "INSULATION" in key and "NO_BIN" in expected
        assert key == "MAP_STATUS" or (value == ".,.") == lost


def test_numbers_beyond_float32(
    tmp_path: Path, fasta: Path, contigs: dict[str, str], bundles: dict[str, Path],
    tracks: Signals,
) -> None:  # fmt: skip
    """A signal whose square is no float32 makes a map infinite, wherever a window holds it."""
    spike = 180
    loud = {contig: list(values) for contig, values in tracks["ATAC"].items()}
    loud["lin"][spike] = 1e30
    given = {
        "CTCF": write_bigwig(tmp_path / "CTCF.bw", tracks["CTCF"]),
        "ATAC": write_bigwig(tmp_path / "ATAC.bw", loud),
    }
    line, anchor = contigs["lin"], SHAPES["signals"].anchor
    alleles = [("lin", i + 1, line[i], "A" if line[i] != "A" else "G") for i in range(120, 198)]
    found = ContactEngine(bundles["signals"], fasta, signals=given).score(alleles)
    for key, values in found.items():
        for (_, pos, _, _), value in zip(alleles, values, strict=True):
            left = pos - 1 - anchor
            assert (value == "NOT_FINITE") == (left <= spike < left + 36), (key, pos)
    assert set(map(type, found["CONTACT_L1"])) == {float, str}


@pytest.mark.parametrize("name", ["CONTACT_L1", "INSULATION"])
@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_one_contact_that_is_no_number(name: str, odd: float) -> None:
    """The score is not that of the other contacts; nor does another map suffer."""
    layout = layout_of(ModelCard.model_validate(card_of(SHAPES["maps"])))
    ref = np.random.default_rng(2).random((2, 7, 7))
    alt = ref + 0.25 * ref.swapaxes(1, 2)
    good = score_contacts(name, layout, ref, alt, {"radius": "3"})
    assert np.isfinite(good).all()
    alt[0, 0, 6] = odd
    found = score_contacts(name, layout, ref, alt, {"radius": "3"})
    assert math.isnan(found[0])
    assert found[1] == good[1]


def test_what_the_encoder_refuses(
    tmp_path: Path, fasta: Path, contigs: dict[str, str], bundles: dict[str, Path]
) -> None:
    encoder = {"kind": "kmer", "vocab": {"order": "ACGT", "single_ids": {"N": 4}, "n": "error"}}
    bundle = recard(bundles["square"], tmp_path / "toy", SHAPES["square"], encoder=encoder)
    line = contigs["lin"]
    alleles = [("lin", i + 1, line[i], "A" if line[i] != "A" else "G") for i in range(160, 198)]
    found = ContactEngine(bundle, fasta).score(alleles)
    plain = ContactEngine(bundles["square"], fasta).score(alleles)
    for key, values in found.items():
        for (_, pos, _, _), value, right in zip(alleles, values, plain[key], strict=True):
            left = pos - 1 - SHAPES["square"].anchor
            assert value == ("AMBIGUOUS" if left + 36 > 200 else right)


# --- wrong cards and options ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("INSULATION:radius=2", "not a number of bins from 3"),
        ("INSULATION:radius=", "not a number of bins from 3"),
        ("INSULATION:radius=²", "not a number of bins from 3"),
        ("INSULATION:radius=-9", "not a number of bins from 3"),
        ("INSULATION:k=3", "known here: radius="),
        ("CONTACT_L1:radius=3", "known here: none"),
        ("SAD", "it gives CONTACT_L1, INSULATION"),
    ],
)
def test_options_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_scores((text,), ModelCard.model_validate(card_of(SHAPES["upper"])))


def test_labels() -> None:
    card = ModelCard.model_validate(card_of(SHAPES["upper"]))
    specs = parse_scores(("INSULATION:radius=050,INSULATION,INSULATION:radius=3",), card)
    assert [x.key for x in specs] == ["INSULATION", "INSULATION_RADIUS3"]
    assert [x.key for x in parse_scores((), card)] == ["CONTACT_L1", "INSULATION"]


@pytest.mark.parametrize("layout", ["square", "upper"])
@pytest.mark.parametrize("diagonal", [0, 1, 2, 5])
def test_a_layout_says_whether_insulation_is_defined(layout: str, diagonal: int) -> None:
    """The formula that is asked before the passes, against what the maps then give."""
    for anchor in range(0, 28, 4):
        shape = Shape(bins=7, layout=layout, diagonal=diagonal, anchor=anchor)
        made = layout_of(ModelCard.model_validate(card_of(shape)))
        ones = [[None if abs(i - j) < diagonal else 1.0 for i in range(7)] for j in range(7)]
        for radius in range(1 + diagonal, 9):
            known = insulation(ones, anchor // 4, radius) is not None
            assert made.has_insulation(radius) == known, (anchor, radius)


@pytest.mark.parametrize(
    ("name", "change", "tsv"),
    [
        ("square", {"bins": 11, "crop": 0}, ""),
        ("upper", {"diagonal": 1}, "H1-hESC HFF+ GM"),
        ("upper", {}, "a b c d"),
        ("upper", {}, ""),
    ],
)
def test_maps_that_are_not_what_the_card_says(
    name: str, change: dict[str, int], tsv: str, tmp_path: Path, fasta: Path,
    bundles: dict[str, Path],
) -> None:  # fmt: skip
    shape = replace(SHAPES[name], **change)
    folder = tmp_path / "toy"
    folder.mkdir()
    shutil.copy(bundles[name] / GRAPH, folder)
    if tsv:
        (folder / "tracks.tsv").write_text("\n".join(["identifier", *tsv.split(), ""]))
    context = SHAPES[name].bins * SHAPES[name].size
    contacts = card_of(shape)["contacts"] | ({"bin_size": 3} if name == "square" else {})
    write_bundle(folder, card_of(shape, context=context, contacts=contacts))
    with pytest.raises(BundleError, match=r"the graph gives . maps of .* by the card they have"):
        ContactEngine(folder, fasta).by_map([("lin", 92, "A", "G")])


def test_a_toy_depends_on_what_it_should(
    fasta: Path, bundles: dict[str, Path], contigs: dict[str, str]
) -> None:
    """Otherwise the comparisons above could not fail: strands, maps and axes all differ."""
    alleles = mixed_alleles(contigs, seed=1, n=12)
    both, forward = (
        ContactEngine(bundles["square"], fasta, strand=strand).by_map(alleles)["CONTACT_L1"]
        for strand in ("both", "forward")
    )
    assert not np.allclose(both, forward, equal_nan=True)
    raw = ContactOracle(bundles["square"], fasta, 0, SHAPES["square"])
    haplotype, _ = raw.pairs(raw.allele("lin", 150, contigs["lin"][149], "AC"))[0]
    found = np.array(raw.predict(haplotype))
    assert not np.allclose(found, found.T)
    assert not np.allclose(found, found[::-1, ::-1])
    # The graph and the oracle's own sums are the same maps, to the last bit.
    graphs = ContactOracle(bundles["square"], fasta, 0)
    assert np.array_equal(found, graphs.predict(haplotype))
    assert math.isfinite(found.sum())
