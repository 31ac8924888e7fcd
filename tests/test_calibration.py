"""`calibrate`, and what `vcf` says of scores beside a background: against scipy and by counting."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import zipfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pysam
import pytest
from cli_kit import call, header_of, records_of, statuses, write_vcf
from engine import make_chunk, write_fasta
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from glm_annotate import calibrated_bundle
from glm_annotate.bundle import load_bundle, write_bundle
from glm_annotate.calibration import contexts, read_background
from glm_annotate.cli_calibrate import calibrate_command, recorded
from glm_annotate.errors import BundleError, GlmAnnotateError, InputError, UsageError
from glm_annotate.genome import Genome
from glm_annotate.sketches import STEPS, TAIL, exceedance, make_sketch, percentile
from glm_annotate.testing import toy_bundle
from glm_annotate.variants import AlleleReader

BASES = "".join(np.random.default_rng(2).choice(list("ACGT"), 1500))
GENOME = {"chr1": BASES[:900] + "NN" + BASES[902:1000], "chr2": BASES[1000:]}
# Substitutions alone, then one of each other class.
SNVS = [
    f"{name} {i + 1} {bases[i]} {alt}"
    for name, bases in GENOME.items()
    for i in range(2, len(bases) - 2, 5)
    for alt in "ACGT"[i % 3 :: 2]
    if bases[i] not in ("N", alt)
]
OTHERS = [f"chr1 {i + 1} {GENOME['chr1'][i : i + 3]} {GENOME['chr1'][i]}" for i in range(9, 400, 9)]
TURN = str.maketrans("ACGT", "CGTA")
ASKED = [
    *(f"chr1 {i + 1} {GENOME['chr1'][i]} {','.join(x for x in 'ACGT' if x != GENOME['chr1'][i])}"
      for i in [0, 1, *range(21, 90), 899, 902, 999]),
    f"chr1 31 {GENOME['chr1'][30]} {GENOME['chr1'][30]}ACA,<DEL>",
    f"chr1 51 {GENOME['chr1'][50:53]} {GENOME['chr1'][50]},{GENOME['chr1'][50:53].translate(TURN)}",
    # A substitution of the second of three bases.
    f"chr1 61 {BASES[60:63]} {BASES[60]}{BASES[61].translate(TURN)}{BASES[62]}",
    *("chr1 900 A *", "chr1 4 N A", "chr9 5 A C", "chr1 5 A ."),
]  # fmt: skip
Vcf = Callable[..., str]


def calibrate(*words: object) -> None:
    """Run `glm-annotate calibrate` here; errors come as exceptions."""
    arguments = [str(x) for x in words]
    calibrate_command.main(arguments, standalone_mode=False, obj=("calibrate", *arguments))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A genome, a toy, a background of both classes, variants, and the calibrated toy."""
    folder = tmp_path_factory.mktemp("calibration")
    write_fasta(folder / "genome.fa", GENOME)
    toy_bundle("wide", folder / "toy", context=24, scores=["LLR", "PLLR", "EMB_L2"])
    write_vcf(folder / "common.vcf", SNVS + OTHERS)
    write_vcf(folder / "asked.vcf", ASKED)
    fasta = folder / "genome.fa"
    calibrate(folder / "toy", "-f", fasta, "--background", folder / "common.vcf",
              "--threads", "1", "-o", folder / "made", "--llr-context", "1")  # fmt: skip
    return folder


@pytest.fixture
def vcf(home: Path, tmp_path: Path) -> Vcf:
    """Annotate; gives the text of the output."""

    def vcf(source: Path, bundle: object, *more: object, code: int = 0) -> str:
        out = tmp_path / "out.vcf"
        base = ["-f", home / "genome.fa", "--threads", "1", "--no-version", "--force", "-o", out]
        assert call("vcf", source, "-m", bundle, *base, *more) == code
        return out.read_text()

    return vcf


def numbers(text: str, key: str, tag: str = "TOY") -> list[float]:
    """Give the values of all alleles, NaN for a dot."""
    found = [x for r in records_of(text) if r.alts for x in r.per_alt(f"{tag}_{key}")]
    return [math.nan if x == "." else float(x) for x in found]


Allele = tuple[str, int, str, str]


def alleles_of(text: str) -> list[Allele]:
    """List contig, 1-based place, REF and ALT; a substitution of one base is cut down to it."""
    out = []
    for chrom, pos, ref, alts in (r.site for r in records_of(text) if r.alts):
        for alt in alts.split(","):
            differ = [i for i, (x, y) in enumerate(zip(ref, alt, strict=False)) if x != y]
            single = len(ref) == len(alt) and len(differ) == 1 and set(ref + alt) <= set("ACGT")
            at = differ[0] if single else 0
            out.append((chrom, int(pos) + at, *((ref[at], alt[at]) if single else (ref, alt))))
    return out


def is_snv(text: str) -> list[bool]:
    """Tell substitutions of one base from other alleles."""
    return [len(x) == len(y) == 1 and y in "ACGT" for _, _, x, y in alleles_of(text)]


# --- the distribution ----------------------------------------------------------------------------


def counted(background: list[float], value: float, *, upper: bool) -> float:
    """Count what is as extreme."""
    above = (sum(x >= value for x in background) + 1) / (len(background) + 1)
    below = (sum(x <= value for x in background) + 1) / (len(background) + 1)
    return above if upper else min(1.0, 2 * min(above, below))


@given(
    st.lists(st.integers(-6, 6), min_size=1, max_size=40),
    st.lists(st.integers(-15, 15), min_size=1, max_size=20),
)
def test_ranks_are_those_of_scipy_and_of_counting(below: list[int], asked: list[int]) -> None:
    background = [x / 2 for x in below]
    values = np.array([x / 4 for x in asked], dtype=np.float32)
    sketch = make_sketch(np.array(background, dtype=np.float32))
    expected = [stats.percentileofscore(background, x, kind="mean") for x in values]
    np.testing.assert_allclose(percentile(sketch, values), expected, rtol=1e-12)
    for upper in (False, True):
        found = exceedance(sketch, values, upper=upper)
        chances = [counted(background, float(x), upper=upper) for x in values]
        np.testing.assert_allclose(10**-found, chances, rtol=1e-12)


@pytest.mark.parametrize("kind", ["normal", "zeros", "grid"])
def test_long_distributions_are_exact_at_their_ends_and_close_between(kind: str) -> None:
    rng = np.random.default_rng(6)
    background = rng.standard_normal(40_000).astype(np.float32)
    if kind == "zeros":  # which half of all are
        background[::2] = 0
    if kind == "grid":
        background = np.round(background, 4)
    sketch = make_sketch(background)
    assert STEPS // 2 < sketch.values.size <= STEPS + 1 + 2 * TAIL
    ordered = np.sort(background)
    asked = np.concatenate([ordered[::7], rng.uniform(-5, 5, 3000).astype(np.float32)])
    low, high = (np.searchsorted(ordered, asked, side=x) for x in ("left", "right"))
    exact = 100 * (low + high) / 2 / background.size
    np.testing.assert_allclose(percentile(sketch, asked), exact, atol=100 / STEPS)
    # Between kept values the count is interpolated, not that of the one below.
    assert np.median(np.abs(percentile(sketch, asked) - exact)) < 10 / STEPS
    ends = np.concatenate([ordered[:TAIL], ordered[-TAIL:], [-9, 9, ordered[:2].mean()]])
    ends = ends.astype(np.float32)
    mean = [stats.percentileofscore(ordered, x, kind="mean") for x in ends]
    np.testing.assert_allclose(percentile(sketch, ends), mean, rtol=1e-9)
    for upper in (False, True):
        chances = [counted(ordered.tolist(), float(x), upper=upper) for x in ends[::40]]
        found = exceedance(sketch, ends[::40], upper=upper)
        np.testing.assert_allclose(10**-found, chances, rtol=1e-9)


def test_no_number_has_no_rank() -> None:
    sketch = make_sketch(np.array([1, 2], dtype=np.float32))
    assert np.isnan(percentile(sketch, np.array([np.nan], dtype=np.float32))).all()
    assert np.isnan(exceedance(sketch, np.array([np.nan], dtype=np.float32), upper=True)).all()


# --- what vcf writes -----------------------------------------------------------------------------


def test_percentiles_and_exceedances_are_those_of_the_background(home: Path, vcf: Vcf) -> None:
    scored = vcf(home / "common.vcf", home / "toy")
    found = vcf(home / "asked.vcf", home / "made")
    assert set(is_snv(found)) == set(is_snv(scored)) == {True, False}
    checked = others = 0
    for key in ("LLR", "PLLR", "EMB_L2"):
        background = {True: [], False: []}
        for kind, value in zip(is_snv(scored), numbers(scored, key), strict=True):
            if not math.isnan(value):
                background[kind].append(value)
        columns = (numbers(found, key + x) for x in ("", "_PCT", "_EXC"))
        for snv, value, rank, extreme in zip(is_snv(found), *columns, strict=True):
            if math.isnan(value):
                assert math.isnan(rank)
                assert math.isnan(extreme)
                continue
            same = background[snv]
            if not same:  # of substitutions of several bases the background has none
                assert key == "LLR"
                assert math.isnan(rank)
                others += 1
                continue
            expected = stats.percentileofscore(same, value, kind="mean")
            assert rank == pytest.approx(expected, rel=1e-5, abs=1e-9)
            chance = counted(same, value, upper=key == "EMB_L2")
            assert extreme == pytest.approx(-math.log10(chance), rel=1e-5, abs=1e-9)
            checked += 1
    assert checked > 500
    assert others == 1
    assert [math.isnan(x) for x in numbers(found, "LLR")] != [
        math.isnan(x) for x in numbers(found, "PLLR")
    ]


def test_the_header_names_the_null(home: Path, vcf: Vcf) -> None:
    lines = header_of(vcf(home / "asked.vcf", home / "made"))
    told = f"background: alleles of common.vcf, genome, {len(SNVS)} substitutions and "
    for key, count in (("LLR", 0), ("PLLR", len(OTHERS)), ("EMB_L2", len(OTHERS))):
        for what in ("PCT", "EXC"):
            (line,) = [x for x in lines if f"##INFO=<ID=TOY_{key}_{what},Number=A,Type=Float" in x]
            assert f"{told}{count} other alleles" in line
            assert f"TOY_{key}" in line.partition("Description=")[2]


def test_adjusted_llr_is_less_the_mean_of_its_context(home: Path, vcf: Vcf, tmp_path: Path) -> None:
    fasta = home / "genome.fa"
    dense = [
        f"chr1 {i + 1} {x} {alt}"
        for i, x in enumerate(GENOME["chr1"]) for alt in "ACGT" if x not in ("N", alt)
    ]  # fmt: skip
    common = write_vcf(tmp_path / "common.vcf", dense + OTHERS)
    scored, padded = vcf(common, home / "toy"), {x: f"-{b}-" for x, b in GENOME.items()}
    alleles = [
        (r.site[0], int(r.site[1]), r.site[2], x) for r in records_of(scored) for x in r.alts
    ]
    for k in (1, 3):
        sums = defaultdict(list)
        for (chrom, pos, ref, alt), value in zip(alleles, numbers(scored, "LLR"), strict=True):
            if len(ref) == 1:
                sums[padded[chrom][pos - k // 2 : pos + k // 2 + 1], alt].append(value)
        bundle = tmp_path / f"k{k}"
        calibrate(home / "toy", "-f", fasta, "--background", common, "--threads", "1", "-o", bundle,
                  "--llr-context", k, "-s", "LLR")  # fmt: skip
        adjusted = {
            (chrom, pos, alt): float(f"{value - float(np.mean(same)):.6g}")
            for (chrom, pos, ref, alt), value in zip(alleles, numbers(scored, "LLR"), strict=True)
            if len(ref) == 1
            and len(same := sums[padded[chrom][pos - k // 2 : pos + k // 2 + 1], alt]) >= 10
        }
        found = vcf(home / "asked.vcf", bundle, "-s", "LLR")
        kinds = {"number": 0, "none": 0, "few": 0}
        values = (numbers(found, x) for x in ("LLR", "LLR_ADJ", "LLR_ADJ_PCT", "LLR_ADJ_EXC"))
        rows = alleles_of(found)
        for (chrom, pos, ref, alt), llr, adj, rank, extreme in zip(rows, *values, strict=True):
            site = padded.get(chrom, "")[pos - k // 2 : pos + k // 2 + 1]
            same = sums.get((site, alt), [])
            if math.isnan(llr) or len(ref) > 1 or set(site) - set("ACGT") or len(same) < 10:
                assert math.isnan(adj)
                assert math.isnan(rank)
                kinds["few" if same else "none"] += 1
                continue
            assert adj == pytest.approx(llr - np.mean(same), rel=1e-5, abs=1e-5)
            expected = stats.percentileofscore(list(adjusted.values()), adj, kind="mean")
            # Means of few numbers of 5 decimals can end in a 5, which is rounded either way.
            assert rank == pytest.approx(expected, abs=101 / len(adjusted))
            assert extreme >= 0
            kinds["number"] += 1
        assert kinds["number"] > 20
        assert kinds["none"] >= 4
        assert (kinds["few"] > 10) == (k == 3)


@pytest.mark.parametrize(
    ("allele", "one", "three"),
    [
        (("c", 3, "A", "C"), "A", "CAT"),  # the FASTA has R, A or G
        (("c", 3, "G", "C"), "G", "CGT"),
        (("c", 4, "T", "C"), "T", ""),
        (("c", 1, "A", "C"), "A", ""),
        (("c", 7, "CA", "GA"), "C", "GCA"),
        (("c", 7, "CA", "GT"), "", ""),
        (("c", 7, "C", "CT"), "", ""),
        (("c", 7, "G", "C"), "", ""),
        (("c", 7, "C", "*"), "", ""),
    ],
)
def test_contexts(allele: tuple[str, int, str, str], one: str, three: str, tmp_path: Path) -> None:
    genome = Genome(write_fasta(tmp_path / "g.fa", {"c": "ACRTAGCA"}))
    chunk = make_chunk([allele])
    alleles = AlleleReader(genome).read(chunk.chroms, chunk.pos, chunk.refs, chunk.alts, [b"."])
    for k, bases in ((1, one), (3, three)):
        number = int("".join(str("ACGT".index(x)) for x in bases), 4) if bases else -1
        assert contexts(genome, alleles, k).tolist() == [number]


def test_nothing_else_changes(home: Path, vcf: Vcf) -> None:
    plain = vcf(home / "asked.vcf", home / "toy")
    assert vcf(home / "asked.vcf", home / "made", "--no-calibration") == plain
    found = vcf(home / "asked.vcf", home / "made")
    ours = re.compile(r"[A-Z0-9_]+_(PCT|EXC|ADJ)=")
    kept = [
        ";".join(x for x in r.columns[7].split(";") if not ours.match(x)) for r in records_of(found)
    ]
    assert kept == [r.columns[7] for r in records_of(plain)]
    assert found != plain
    assert load_bundle(home / "made").digest == load_bundle(home / "toy").digest


def test_other_tags_tables_and_dry_runs(home: Path, vcf: Vcf, tmp_path: Path) -> None:
    found = vcf(home / "asked.vcf", home / "made")
    table = tmp_path / "t.tsv"
    renamed = vcf(home / "asked.vcf", f"NEW={home / 'made'}", "--tsv", table)
    for key in ("LLR_PCT", "EMB_L2_EXC", "LLR_ADJ"):
        np.testing.assert_array_equal(numbers(renamed, key, "NEW"), numbers(found, key))
    head, *lines = (x.split("\t") for x in table.read_text().splitlines())
    for key in ("NEW_LLR_PCT", "NEW_PLLR_EXC", "NEW_LLR_ADJ_PCT"):
        column = [row[head.index(key)] for row in lines]
        assert column == [x for r in records_of(renamed) if r.alts for x in r.per_alt(key)]
    (tmp_path / "out.vcf").unlink()
    fasta = ["-f", home / "genome.fa", "--threads", "1"]
    assert call("vcf", home / "asked.vcf", "-m", home / "made", *fasta, "--dry-run") == 0
    assert not (tmp_path / "out.vcf").exists()


def test_bcftools_filters_by_percentile(
    home: Path, vcf: Vcf, tmp_path: Path, bcftools: str
) -> None:
    found = vcf(write_vcf(tmp_path / "q.vcf", SNVS), home / "made")
    command = [bcftools, "view", "-H", "-i", "TOY_LLR_PCT<5", tmp_path / "out.vcf"]
    kept = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert len(kept.splitlines()) == sum(x < 5 for x in numbers(found, "LLR_PCT")) > 3


def test_batches_and_neighbours_do_not_matter(home: Path, vcf: Vcf, tmp_path: Path) -> None:
    found = vcf(home / "asked.vcf", home / "made", "--batch-size", "1")
    assert found == vcf(home / "asked.vcf", home / "made")
    line = next(x for x in found.splitlines() if x.startswith("chr1\t31\t"))
    alone = write_vcf(tmp_path / "one.vcf", [x for x in ASKED if x.startswith("chr1 31 ")])
    assert line in vcf(alone, home / "made").splitlines()


# --- scores of an earlier run --------------------------------------------------------------------


def indexed(text: str, path: Path) -> Path:
    plain = path.with_suffix(".txt")
    kept = [x for x in text.splitlines(True) if not x.startswith("chr9")]
    head = [x for x in kept if x.startswith("#")]
    rows = sorted((x for x in kept[len(head) :]), key=lambda x: int(x.split("\t")[1]))
    plain.write_text("".join(head + rows))
    pysam.tabix_compress(str(plain), str(path), force=True)
    pysam.tabix_index(str(path), preset="vcf", force=True)
    return path


@pytest.mark.parametrize("before", ["toy", "made"])
@pytest.mark.parametrize("now", ["toy", "made"])
def test_scores_are_taken_from_runs_with_and_without_a_background(
    before: str, now: str, home: Path, vcf: Vcf, tmp_path: Path
) -> None:
    file = indexed(vcf(home / "asked.vcf", home / before), tmp_path / "s.vcf.gz")
    expected = vcf(home / "asked.vcf", home / now)
    found = vcf(home / "asked.vcf", home / now, "--from", file)
    assert found.replace("PRECOMPUTED", "SCORED") == expected
    told = [x for s in statuses(found).values() for x in s]
    assert told.count("PRECOMPUTED") > 150
    assert ("_PCT" in found) == (now == "made")


# --- other makings -------------------------------------------------------------------------------


def test_what_was_made_in_another_way_is_not_compared(
    home: Path, vcf: Vcf, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    found = vcf(home / "asked.vcf", home / "made", "-s", "LLR,ENT,EMB_L2:pool=all")
    err = capfd.readouterr().err
    assert "TOY_ENT: no percentiles: the background has none of it" in err
    assert "TOY_EMB_L2_ALL: no percentiles: the background has none of it" in err
    keys = set(records_of(found)[0].info)
    assert {"TOY_LLR_PCT", "TOY_ENT"} <= keys
    assert not {x for x in keys if "_PCT" in x} - {"TOY_LLR_PCT", "TOY_LLR_ADJ_PCT"}
    one = vcf(home / "asked.vcf", home / "made", "--strand", "forward")
    assert "_PCT" not in one
    err = capfd.readouterr().err
    assert err.count("the background was made in another way") == 3
    assert "forward strand" in err


def test_a_background_of_another_model_is_refused(home: Path, tmp_path: Path) -> None:
    bundle = toy_bundle("wide", tmp_path / "b", context=24, seed=9)
    shutil.copy(home / "made" / "background.npz", bundle)
    with pytest.raises(BundleError, match="gives no sha256 of it; remove it"):
        load_bundle(bundle)
    card = json.loads((bundle / "card.json").read_text())
    card.pop("sha256")
    write_bundle(bundle, card)
    with pytest.raises(BundleError, match="background is of the model with the digest"):
        read_background(load_bundle(bundle))
    fasta = ["-f", home / "genome.fa", "--threads", "1", "-o", tmp_path / "o.vcf", "--force"]
    for more, code in (([], 1), (["--no-calibration"], 0)):
        assert call("vcf", home / "asked.vcf", "-m", bundle, *fasta, *more) == code


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"PK no zip", "not a background of scores"),
        (lambda data: b"", "not a background of scores"),
        (lambda data: data[: len(data) // 2], "not a background of scores"),
    ],
)
def test_damaged_backgrounds_say_so(
    change: Callable[[bytes], bytes], message: str, home: Path, tmp_path: Path
) -> None:
    bundle = shutil.copytree(home / "made", tmp_path / "b")
    path = bundle / "background.npz"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(BundleError, match="the file is damaged or was changed"):
        load_bundle(bundle)
    card = json.loads((bundle / "card.json").read_text())
    card.pop("sha256")
    write_bundle(bundle, card)
    with pytest.raises(BundleError, match=message):
        read_background(load_bundle(bundle))


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"format": 2}, "format 2, this version reads 1"),
        ({"series": [{"key": "LLR"}]}, "'meaning'"),
        ({"seed": None}, "not a background of scores"),
    ],
)
def test_backgrounds_of_other_formats_say_so(
    about: dict[str, object], message: str, home: Path, tmp_path: Path
) -> None:
    bundle = shutil.copytree(home / "made", tmp_path / "b")
    with np.load(bundle / "background.npz") as file:
        arrays = {name: file[name] for name in file.files}
    arrays["about"] = np.array(json.dumps(json.loads(str(arrays["about"])) | about))
    np.savez(bundle / "background.npz", **arrays)
    card = json.loads((bundle / "card.json").read_text())
    card.pop("sha256")
    write_bundle(bundle, card)
    with pytest.raises(BundleError, match=message):
        read_background(load_bundle(bundle))


# --- bundles -------------------------------------------------------------------------------------


def files_of(folder: Path) -> dict[str, bytes]:
    return {x.name: x.read_bytes() for x in folder.iterdir()}


def draw(home: Path, *more: object) -> list[object]:
    return ["-f", home / "genome.fa", "--random", 150, "--threads", 1, *more]


def zip_of(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"inner/{file.name}")
    return path


@pytest.mark.parametrize("source", ["folder", "zip"])
@pytest.mark.parametrize("target", ["folder", "zip", "in place"])
def test_folders_and_zips(
    source: str, target: str, home: Path, vcf: Vcf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLM_ANNOTATE_CACHE", str(tmp_path / "cache"))
    bundle = shutil.copytree(home / "toy", tmp_path / "toy")
    if source == "zip":
        bundle = zip_of(bundle, tmp_path / "toy.zip")
    before = bundle.read_bytes() if bundle.is_file() else files_of(bundle)
    made = {"folder": tmp_path / "new", "zip": tmp_path / "new.zip"}.get(target, bundle)
    where = ["--in-place"] if target == "in place" else ["-o", made]
    calibrate(bundle, *draw(home), *where)
    found = load_bundle(made)
    assert found.digest == load_bundle(home / "toy").digest
    background = read_background(found)
    assert background is not None
    assert {x: y.sketches["snv"].n for x, y in background.series.items()} == dict.fromkeys(
        ("LLR", "PLLR", "EMB_L2"), 150
    )
    assert background.null == "random substitutions, seed 0"
    kept = {
        x: y for x, y in files_of(found.path).items() if x not in ("background.npz", "card.json")
    }
    assert kept == {x: y for x, y in files_of(home / "toy").items() if x != "card.json"}
    cards = [json.loads((x / "card.json").read_text()) for x in (home / "toy", found.path)]
    assert cards[1].pop("sha256").keys() - cards[0].pop("sha256").keys() == {"background.npz"}
    assert cards[0] == cards[1]
    if target != "in place":
        assert before == (bundle.read_bytes() if bundle.is_file() else files_of(bundle))
    assert "_PCT" in vcf(home / "asked.vcf", made)
    assert not list(tmp_path.rglob(".calibrated*"))


def test_a_background_is_made_again_byte_for_byte(home: Path, tmp_path: Path) -> None:
    calibrate(home / "toy", *draw(home), "--seed", 4, "-o", tmp_path / "a")
    calibrate(tmp_path / "a", *draw(home), "--seed", 4, "-o", tmp_path / "b", "--null-name", "x")
    calibrate(tmp_path / "b", *draw(home), "--seed", 4, "-o", tmp_path / "a", "--force")
    calibrate(home / "toy", *draw(home), "--seed", 4, "-o", tmp_path / "c")
    calibrate(home / "toy", *draw(home), "--seed", 5, "-o", tmp_path / "d")
    arrays = []
    for name in "abcd":
        with np.load(tmp_path / name / "background.npz") as file:
            arrays.append({x: file[x] for x in file.files})
    words = [json.loads(str(x.pop("about"))) for x in arrays]
    assert [x["null"] for x in words] == [
        "random substitutions, seed 4", "x", "random substitutions, seed 4",
        "random substitutions, seed 5",
    ]  # fmt: skip
    for other in arrays[1:3]:
        assert all(np.array_equal(arrays[0][x], other[x]) for x in arrays[0])
    assert not np.array_equal(arrays[0]["0.snv.values"], arrays[3]["0.snv.values"])
    again = tmp_path / "again"
    again.mkdir()
    calibrate(home / "toy", *draw(home), "--seed", 4, "-o", again / "c")
    name = "background.npz"
    assert (again / "c" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()


def test_the_record_of_a_background_names_no_folder(home: Path, tmp_path: Path) -> None:
    calibrate(home / "toy", *draw(home), "-o", tmp_path / "b", "--assembly", "S1")
    background = read_background(load_bundle(tmp_path / "b"))
    assert background is not None
    assert background.command == (
        "glm-annotate calibrate toy -f genome.fa --random 150 --threads 1 -o b --assembly S1"
    )
    assert background.assembly == "S1"
    assert str(tmp_path).encode() not in (tmp_path / "b" / "background.npz").read_bytes()
    words = ("vcf", "hf://me/toy", "--signal", "A=/x/a.bw,/y/b.bw", "--fasta=../g.fa")
    assert recorded(words) == "vcf hf://me/toy --signal A=a.bw,b.bw --fasta=g.fa"


def test_regions_and_matches_reach_the_draw(home: Path, tmp_path: Path) -> None:
    (tmp_path / "r.bed").write_text("chr2\t10\t80\n")
    match = write_vcf(tmp_path / "m.vcf", [x for x in SNVS if x.split()[2:] in (["A", "G"],)])
    calibrate(home / "toy", "-f", home / "genome.fa", "--random", 15, "-o", tmp_path / "b", "-s",
              "LLR", "--regions", tmp_path / "r.bed", "--match", match, "--match-context", 1,
              "--llr-context", 1, "--threads", 1)  # fmt: skip
    background = read_background(load_bundle(tmp_path / "b"))
    assert background is not None
    assert background.null == (
        "random substitutions in r.bed, matched to m.vcf by ALT in contexts of 1, seed 0"
    )
    assert background.context is not None
    assert background.context.counts.tolist() == [[0, 0, 15, 0], *[[0] * 4] * 3]
    assert GENOME["chr2"][10:80].count("A") >= 15
    calibrate(home / "toy", "-f", home / "genome.fa", "--background", home / "common.vcf", "-s",
              "LLR,PLLR", "--match", match, "--match-titv", "-o", tmp_path / "c",
              "--threads", 1)  # fmt: skip
    background = read_background(load_bundle(tmp_path / "c"))
    assert background is not None
    assert background.null == "alleles of common.vcf, matched to m.vcf by transitions, seed 0"
    transitions = sum(set(x.split()[2:]) in ({"A", "G"}, {"C", "T"}) for x in SNVS)
    counts = {key: {k: v.n for k, v in x.sketches.items()} for key, x in background.series.items()}
    assert counts == {"LLR": {"snv": transitions}, "PLLR": {"snv": transitions}}


def test_random_substitutions_are_of_contigs_in_scope(home: Path, tmp_path: Path) -> None:
    scope = {"contigs": [{"name": "chr2"}]}
    bundle = toy_bundle("wide", tmp_path / "toy", context=24, scope=scope, scores=["LLR"])
    calibrate(bundle, *draw(home), "-o", tmp_path / "b")
    background = read_background(load_bundle(tmp_path / "b"))
    assert background is not None
    assert background.series["LLR"].sketches["snv"].n == 150
    nowhere = toy_bundle("wide", tmp_path / "no", context=24, scope={"contigs": [{"name": "x"}]})
    with pytest.raises(InputError, match="has no contig that the model toy-wide is meant for"):
        calibrate(nowhere, *draw(home), "-o", tmp_path / "c")
    calibrate(nowhere, *draw(home), "-o", tmp_path / "c", "--ignore-scope")


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        ("TOY -f FA --random 9", UsageError, "name the bundle to make with -o, or change MODEL"),
        ("TOY -f FA --random 9 -o B --in-place", UsageError, "name the bundle to make with -o"),
        ("TOY -f FA --random 9 -o TOY", UsageError, "is MODEL itself; use --in-place"),
        ("TOY -f FA -o B", UsageError, "name a background with --background FILE, or draw"),
        ("TOY -f FA -o B --random 9 --background IN", UsageError, "name a background with"),
        ("TOY -f FA -o B --background IN --regions IN", UsageError, "is for --random; of"),
        ("TOY -f FA -o B --random 9 --match IN", UsageError, "belong together; give both or"),
        ("TOY -f FA -o B --random 9 --match-titv", UsageError, "belong together"),
        ("TOY -f FA -o B --random 9 --match IN --match-titv --match-context 3", UsageError,
         "belong together"),
        ("TOY -f FA -o B --random 9 -s PLLR --llr-context 3", UsageError,
         "LLR is not among the scores PLLR; add -s LLR"),
        ("TOY -f FA -o HOME --random 9", InputError, "something that is no bundle lies there"),
        ("TOY -f FA -o FA --random 9", InputError, "something that is no bundle lies there"),
        ("TOY -f FA -o MADE --random 9", InputError, "is there already; replace it with --force"),
        ("TOY -f FA -o B --random 9999", InputError, "has 4494 substitutions in the regions, and"),
        ("TOY -f FA -o B --background BAD", InputError, "no allele of the background has a score"),
        ("mito -f FA --random 9 --in-place", BundleError, "comes with the package or lies in"),
        ("ZOO -f FA --random 9 --in-place", BundleError, "comes with the package or lies in"),
        ("hf://a/b -f FA --random 9 -o B", GlmAnnotateError, "hf://a/b: "),
    ],
)  # fmt: skip
def test_errors(
    words: str, kind: type[GlmAnnotateError], message: str, home: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("GLM_ANNOTATE_CACHE", str(tmp_path / "cache"))
    bad = write_vcf(tmp_path / "bad.vcf", ["chr1 2 A *", "chr9 2 A C", "chr9 3 A C"])
    places = {
        "TOY": home / "toy", "FA": home / "genome.fa", "B": tmp_path / "b", "HOME": home,
        "IN": home / "common.vcf", "MADE": home / "made", "BAD": bad,
        "ZOO": calibrated_bundle.ZOO / "mito",
    }  # fmt: skip
    with pytest.raises(kind, match=message) as caught:
        calibrate(*(places.get(x, x) for x in words.split()))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "b").exists()


def test_a_bundle_that_cannot_be_written_to_is_an_error(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = shutil.copytree(home / "toy", tmp_path / "toy")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != bundle.resolve())
    with pytest.raises(BundleError, match="cannot be written to; make a calibrated copy: -o NEW"):
        calibrate(bundle, *draw(home), "--in-place")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written: .*; name another -o"):
        calibrate(bundle, *draw(home), "-o", tmp_path / "file" / "b")


def test_few_numbers_are_warned_of(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calibrate(home / "toy", *draw(home)[:2], "--random", 99, "-o", tmp_path / "b", "-s", "LLR")
    assert "LLR: only 99 alleles of the background have a number" in caplog.text
