"""Channels beside the bases: scores against the oracle and by hand, alignments that are wrong."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cli_kit import call, records_of, statuses, write_vcf
from engine import Allele, Engine, gapped_contigs, write_fasta
from onnx import numpy_helper
from oracle import Oracle
from test_engine import CIRCULAR, MASKED, POOLED, mixed_alleles

from glm_annotate.alignment import Alignment
from glm_annotate.bundle import load_bundle, read_card, write_bundle
from glm_annotate.channels import check_channels
from glm_annotate.errors import BundleError, InputError, UsageError
from glm_annotate.genome import Genome
from glm_annotate.plan import PassFailed, Plan
from glm_annotate.runtime import Settings, open_runners
from glm_annotate.testing import check_bundle, toy_bundle

zarr = pytest.importorskip("zarr")

SPECIES = 3
Columns = dict[str, list[str]]


def species(indel: str = "edit", missing: float = 0, count: int = SPECIES) -> list[dict[str, Any]]:
    return [
        {"name": f"s{i}", "source": "msa", "indel": indel, "missing": missing} for i in range(count)
    ]


MIXED = [*species("edit", 7, 1), *species("reference", 0, 1), *species("edit", 5, 1)]


def columns_of(contigs: Mapping[str, str], seed: int = 8, count: int = SPECIES) -> Columns:
    """Align species that look like the reference, with gaps, unknown letters and small ones."""
    rng = np.random.default_rng(seed)
    return {
        name: [
            base + "".join(rng.choice(list("ACGT-Nacg" + 6 * base), count)) for base in bases
        ]
        for name, bases in contigs.items()
    }  # fmt: skip


def write_msa(
    path: Path, columns: Columns, dtype: str = "S1", names: Mapping[str, str] | None = None
) -> Path:
    """Write an alignment as GPN-MSA's authors do: zarr format 2, an array a contig."""
    root = zarr.open_group(str(path), mode="w", zarr_format=2)
    for contig, column in columns.items():
        letters = np.frombuffer("".join(column).encode(), dtype="u1").reshape(len(column), -1)
        array = root.create_array(
            (names or {}).get(contig, contig),
            shape=letters.shape,
            chunks=(16, letters.shape[1]),
            dtype=dtype,
        )
        array[:] = letters.view(dtype)
    return path


@pytest.fixture(scope="module")
def contigs() -> dict[str, str]:
    return gapped_contigs(6, lin=300, ring=120, tiny=25, bare=40)


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory, contigs: dict[str, str]) -> Path:
    return write_fasta(tmp_path_factory.mktemp("genome") / "toy.fa", contigs)


@pytest.fixture(scope="module")
def columns(contigs: dict[str, str]) -> Columns:
    return columns_of({name: bases for name, bases in contigs.items() if name != "bare"})


@pytest.fixture(scope="module")
def msa(tmp_path_factory: pytest.TempPathFactory, columns: Columns) -> Path:
    return write_msa(tmp_path_factory.mktemp("msa") / "toy.zarr", columns)


def other(base: str) -> str:
    return {"A": "C", "C": "G", "G": "T", "T": "A", "N": "A"}[base]


def edges(contigs: Mapping[str, str]) -> list[Allele]:
    """Every kind of change at both ends of contigs, and on the contig without columns."""
    out: list[Allele] = []
    for name in ("lin", "ring", "tiny", "bare"):
        bases = contigs[name]
        for at in (0, 1, len(bases) - 3):
            ref = bases[at : at + 2]
            alts = other(ref[0]) + ref[1], ref[0], ref + "GAT", "TGGC"
            out += [(name, at + 1, ref, x) for x in alts]
    return [x for x in out if x[2] != x[3]]


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "edit": ("wide", {"context": 30, "anchor": 13, "channels": species("edit", 7)}),
    "reference": ("wide", {"context": 27, "anchor": 15, "channels": species("reference", 6)}),
    "mixed": ("markov", {"context": 24, "anchor": 12, "channels": MIXED}),
    "forward": ("markov", {"context": 20, "anchor": 9, "strand": "forward", "channels": species()}),
    "specials": ("prefix", {"context": 22, "anchor": 11, "channels": species("edit", 9)}),
    "padded": ("wide", {"context": 20, "anchor": 10, "multiple_of": 7, "channels": MIXED}),
    "onehot": ("onehot", {"context": 26, "anchor": 13, "channels": species("edit", 0)}),
}


def worst_of(found: Mapping[str, list[Any]], oracle: Oracle, alleles: list[Allele]) -> list[Any]:
    """List what differs from the oracle; NaN and reasons must be where they are due."""
    wrong = []
    for (key, values), text in zip(found.items(), [*MASKED, *POOLED], strict=True):
        for allele, value in zip(alleles, values, strict=True):
            expected = oracle.score(*allele, text)
            if isinstance(expected, str) or isinstance(value, str):
                same = value == expected
            else:
                same = math.isclose(value, expected, rel_tol=1e-5, abs_tol=2e-5)
            if not same:
                wrong.append((key, allele, value, expected))
    return wrong


@pytest.mark.parametrize("case", CASES)
def test_every_score_equals_the_oracle(
    case: str, tmp_path: Path, fasta: Path, contigs: dict[str, str], columns: Columns, msa: Path
) -> None:
    kind, options = CASES[case]
    bundle = toy_bundle(kind, tmp_path / "toy", **options)
    known = {name: contigs[name] for name in ("lin", "ring", "tiny")}
    alleles = mixed_alleles(known, seed=sum(map(ord, case)), n=30) + edges(contigs)
    engine = Engine(bundle, fasta, MASKED + POOLED, circular=CIRCULAR, msa=msa)
    oracle = Oracle(bundle, fasta, circular=CIRCULAR, alignment=columns)
    found = engine.score(alleles)
    wrong = worst_of(found, oracle, alleles)
    assert not wrong, f"{len(wrong)} differ, such as {wrong[:6]}"
    assert all(values.count("NO_SIGNAL") >= 10 for values in found.values())
    assert sum(isinstance(x, float) for values in found.values() for x in values) > 400
    # Neither the batch nor the company of other alleles changes anything.
    small = Engine(bundle, fasta, MASKED + POOLED, circular=CIRCULAR, msa=msa, batch=3)
    again = small.score(alleles[::-1])
    for key, values in again.items():
        for one, other in zip(values[::-1], found[key], strict=True):
            assert one == other or math.isclose(float(one), float(other), abs_tol=1e-5), key


def recard(bundle: Path, folder: Path, **keys: Any) -> Path:
    """Copy a bundle with other keys in its card."""
    shutil.copytree(bundle, folder)
    card = read_card(bundle).model_dump(mode="json", exclude={"sha256"})
    write_bundle(folder, card | keys)
    return folder


def test_a_dynamic_window_narrows_channels_too(
    tmp_path: Path, fasta: Path, contigs: dict[str, str], msa: Path
) -> None:
    """Windows of 30 bases of which 21 fit are windows of 21: 4 bases go on the left, 5 right."""
    toy = toy_bundle("wide", tmp_path / "toy", context=30, anchor=15, channels=MIXED)
    window = {"kind": "dynamic", "max_tokens": 21}
    scores = ("LLR", "PLLR", "ENT", "EMB_L2:pool=all")
    alleles = mixed_alleles(contigs, 4, 40)
    dynamic, fixed = (
        Engine(bundle, fasta, scores, circular=CIRCULAR, msa=msa).score(alleles)
        for bundle in (
            recard(toy, tmp_path / "dynamic", window=window),
            recard(toy, tmp_path / "fixed", context=21, anchor=11),
        )
    )
    assert dynamic == fixed


def test_windows_that_the_model_refuses_take_their_channels_along(
    tmp_path: Path, fasta: Path, contigs: dict[str, str], msa: Path
) -> None:
    """Of windows on the grid some are left out for an N; the others keep what they had."""
    given = {"context": 16, "anchor": 1, "strand": "forward", "channels": MIXED}
    line = contigs["lin"]
    alleles = [("lin", i + 1, line[i], other(line[i])) for i in range(203, 215)]
    plain, strict = (
        Engine(toy_bundle("wide", tmp_path / n, n=n, **given), fasta, ["WTLLR"], msa=msa)
        for n in ("token", "error")
    )
    expected, found = plain.score(alleles)["WTLLR"], strict.score(alleles)["WTLLR"]
    kinds = {x for x in found if isinstance(x, str)}
    assert kinds == {"TOKENIZATION"}
    numbers = [(x, y) for x, y in zip(found, expected, strict=True) if not isinstance(x, str)]
    assert numbers
    assert all(x == y for x, y in numbers)


def test_changes_that_leave_the_grid_take_nothing_from_the_others(
    tmp_path: Path, fasta: Path, contigs: dict[str, str], msa: Path, columns: Columns
) -> None:
    bundle = toy_bundle("markov", tmp_path / "toy", context=8, anchor=1, channels=MIXED)
    line, alleles = contigs["lin"], []
    for i in range(20, 40):
        ref = line[i : i + 6]
        alleles.append(("lin", i + 1, ref, other(ref[0]) + ref[1:5] + other(ref[5])))
    found = Engine(bundle, fasta, ["WTLLR"], msa=msa).score(alleles)["WTLLR"]
    oracle = Oracle(bundle, fasta, alignment=columns)
    expected = [oracle.score(*allele, "WTLLR") for allele in alleles]
    assert "TOO_LONG" in found[:4]
    for value, wanted in zip(found, expected, strict=True):
        assert value == (wanted if isinstance(wanted, str) else pytest.approx(wanted, abs=2e-5))


# By hand


def tables(bundle: Path) -> dict[str, np.ndarray]:
    graph = onnx.load(bundle / "model.onnx").graph
    return {x.name: numpy_helper.to_array(x).astype(np.float64) for x in graph.initializer}


#        0123456789
SHORT = "GATTACAGTC"
#       reference and two species, base by base
SHORT_COLUMNS = ["GGA", "AA-", "Tt-", "TCG", "AAN", "CCC", "A-G", "GGT", "TTA", "CaC"]
IDS = {"A": 3, "C": 4, "G": 5, "T": 6, "N": 2, "#": 1, ".": 0}


def logits(t: Mapping[str, np.ndarray], text: str, beside: list[tuple[int, ...]], at: int) -> Any:
    """A row of the markov toy with channels, as `toy_graphs` describes it."""
    padded = f".{text}."
    left, own, right = (IDS[x] for x in padded[at : at + 3])
    middle = (t["channel_weights"].size - 1) // 2
    value = t["channel_value"].reshape(-1)
    far = sum(t["channel_weights"][middle + at - s] * (x @ value) for s, x in enumerate(beside))
    return (
        t["left"][left] + t["own"][own] + t["right"][right]
        + beside[at] @ t["near"] + far * t["channel_direction"]
    )  # fmt: skip


def logp(z: Any, i: int) -> float:
    return float(z[i] - math.log(sum(math.exp(x) for x in z)))


@pytest.fixture
def short(tmp_path: Path) -> Callable[..., tuple[Callable[[str, Allele], Any], dict[str, Any]]]:
    """Build a toy of 5 bases on the short contig; gives how to score, and its tables."""
    fasta = write_fasta(tmp_path / "short.fa", {"c": SHORT})
    path = write_msa(tmp_path / "short.zarr", {"c": SHORT_COLUMNS})

    def make(indel: str, strand: str, missing: float = 5) -> Any:
        given = {"context": 5, "anchor": 2, "strand": strand, "dim": 2}
        channels = species(indel, missing, 2)
        bundle = toy_bundle("markov", tmp_path / "toy", channels=channels, **given)

        def score(text: str, allele: Allele) -> Any:
            (values,) = Engine(bundle, fasta, [text], msa=path).score([allele]).values()
            return values[0]

        return score, tables(bundle)

    return make


def codes(*columns: str) -> list[Any]:
    return [np.array(["-ACGT?".index(x) for x in column]) for column in columns]


def test_a_masked_row_keeps_its_channels(short: Any) -> None:
    score, t = short("edit", "forward")
    # C > T at base 5: the window is TA#AG, with the species' letters below it.
    z = logits(t, "TA#AG", codes("CG", "A-", "CC", "-G", "GT"), 2)
    expected = z[IDS["T"]] - z[IDS["C"]]
    assert score("LLR", ("c", 6, "C", "T")) == pytest.approx(expected, abs=2e-5)


def test_the_other_strand_has_the_other_letters(short: Any) -> None:
    score, t = short("edit", "both")
    forward = logits(t, "TA#AG", codes("CG", "A-", "CC", "-G", "GT"), 2)
    reverse = logits(t, "CT#TA", codes("CA", "-C", "GG", "T-", "GC"), 2)
    expected = (forward[6] - forward[4] + reverse[3] - reverse[5]) / 2
    assert score("LLR", ("c", 6, "C", "T")) == pytest.approx(expected, abs=2e-5)


def test_off_the_contig_is_missing_on_both_strands(short: Any) -> None:
    score, t = short("edit", "both")
    # G > A at base 0: the window begins two bases before the contig.
    forward = logits(t, "NN#AT", codes("??", "??", "GA", "A-", "T-"), 2)
    reverse = logits(t, "AT#NN", codes("A-", "T-", "CT", "??", "??"), 2)
    expected = (forward[3] - forward[5] + reverse[6] - reverse[4]) / 2
    assert score("LLR", ("c", 1, "G", "A")) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("indel", ["edit", "reference"])
def test_an_insertion(short: Any, indel: str) -> None:
    score, t = short(indel, "forward")
    # C G follows base 4, A: ref TACAG, alt TACGC; the last common reference base is base 5.
    plain = codes("CG", "A-", "CC", "-G", "GT")
    moved = codes("CG", "A-", "??", "??", "CC") if indel == "edit" else plain
    # What is left of the token lists TAC and TACGC is GC and nothing.
    expected = logp(logits(t, "TAC#C", moved, 3), 5) + logp(logits(t, "TACG#", moved, 4), 4)
    found = score("PLLR", ("c", 5, "A", "ACG"))
    assert found == pytest.approx(expected + 2 * math.log(4), abs=2e-5)


@pytest.mark.parametrize("indel", ["edit", "reference"])
def test_a_deletion(short: Any, indel: str) -> None:
    score, t = short(indel, "forward")
    # AG at bases 6 and 7 goes: ref ACAGT, alt ACTC and what lies past the contig's end.
    plain = codes("A-", "CC", "-G", "GT", "TA")
    gone = logp(logits(t, "AC#GT", plain, 2), IDS["A"]) + logp(logits(t, "ACA#T", plain, 3), 5)
    found = score("PLLR", ("c", 6, "CAG", "C"))
    assert found == pytest.approx(-gone - 2 * math.log(4), abs=2e-5)
    # The embedding of ALT tells where its columns come from.
    moved = codes("A-", "CC", "TA", "AC", "??") if indel == "edit" else plain
    vectors = [
        sum(embedding(t, text, beside, at) for at in range(5)) / 5
        for text, beside in (("ACAGT", plain), ("ACTCN", moved))
    ]
    expected = math.dist(*vectors)
    assert score("EMB_L2:pool=all", ("c", 6, "CAG", "C")) == pytest.approx(expected, abs=2e-5)


def embedding(t: Mapping[str, np.ndarray], text: str, beside: list[Any], at: int) -> Any:
    padded = f".{text}"
    middle = (t["channel_weights"].size - 1) // 2
    value = t["channel_value"].reshape(-1)
    far = sum(t["channel_weights"][middle + at - s] * (x @ value) for s, x in enumerate(beside))
    return (
        t["embed_left"][IDS[padded[at]]] + t["embed_own"][IDS[padded[at + 1]]]
        + beside[at] @ t["embed_near"] + far * t["embed_channel_direction"]
    )  # fmt: skip


def test_of_unequal_alleles_the_first_bases_are_paired(short: Any) -> None:
    score, t = short("edit", "forward")
    # CA > T: T takes the column of C, that of A goes.
    moved = codes("CG", "A-", "CC", "GT", "TA")
    plain = codes("CG", "A-", "CC", "-G", "GT")
    vectors = [
        sum(embedding(t, text, beside, at) for at in range(5)) / 5
        for text, beside in (("TACAG", plain), ("TATGT", moved))
    ]
    expected = math.dist(*vectors)
    assert score("EMB_L2:pool=all", ("c", 6, "CA", "T")) == pytest.approx(expected, abs=2e-5)


# Passes


def test_passes_are_the_same_where_rows_and_channels_are(tmp_path: Path) -> None:
    """The same bases five times, under four columns that differ and one that does not."""
    unit = "ACGTTGCAACGT"
    fasta = write_fasta(tmp_path / "g.fa", {"c": unit * 5})
    columns = [base + "AA" for base in unit * 5]
    columns[14] = "GAC"  # the window of the second unit
    columns[27] = "TTA"  # of the third
    path = write_msa(tmp_path / "m.zarr", {"c": columns})
    given = {"context": 8, "anchor": 4, "strand": "forward"}
    alleles = [("c", 12 * i + 5, "T", alt) for i in range(5) for alt in "AC"]
    counts = {}
    for name, channels in (("with", species(count=2)), ("without", [])):
        bundle = toy_bundle("markov", tmp_path / name, channels=channels, **given)
        engine = Engine(bundle, fasta, ["LLR"], msa=path if channels else None)
        found = engine.score(alleles)["LLR"]
        counts[name] = engine.runner.passes
        assert found[0] == found[6] == found[8]
        assert (found[0] == found[2]) == (found[0] == found[4]) == (not channels)
    assert counts == {"with": 3, "without": 1}


def test_rows_and_channels_do_not_cancel(tmp_path: Path) -> None:
    """A row one up and a channel one down is another pass, whatever the place."""
    bundle = load_bundle(toy_bundle("markov", tmp_path / "toy", channels=species(count=1)))
    plan = Plan(bundle.encoder, 0)
    codes = np.zeros((2, 6), dtype=np.uint8)
    codes[1, 3] = 1
    channels = np.ones((2, 6, 1), dtype=np.uint8)
    channels[1, 3] = 0
    (encoded,) = bundle.encoder.encode(codes)
    sequences = plan.add(encoded, channels)
    sequences.bucket.passes(sequences, np.arange(2))
    assert plan.seal() == 2


def test_a_pass_that_fails_costs_only_its_own_alleles(
    tmp_path: Path, fasta: Path, contigs: dict[str, str], msa: Path, columns: Columns
) -> None:
    given = {"context": 12, "anchor": 6, "strand": "forward", "channels": species("edit", 9)}
    bundle = toy_bundle("markov", tmp_path / "toy", **given)
    alleles = [("lin", i + 1, x, other(x)) for i, x in enumerate(contigs["lin"])]
    alleles = [*alleles[:60], ("bare", 9, contigs["bare"][8], other(contigs["bare"][8]))]
    expected = Engine(bundle, fasta, ["LLR"], msa=msa).score(alleles)["LLR"]
    engine = Engine(bundle, fasta, ["LLR"], msa=msa)
    run = engine.runner.run

    def reluctant(rows: Any, outputs: Any, channels: Any) -> Any:
        if (channels == 9).any():  # only windows that reach over the contig's end
            raise PassFailed("no")
        return run(rows, outputs, channels)

    engine.runner.run = reluctant  # type: ignore[method-assign]
    found = engine.score(alleles)["LLR"]
    for (name, pos, _, _), value, right in zip(alleles, found, expected, strict=True):
        if name == "lin" and pos - 1 >= 6:
            assert value == pytest.approx(right, abs=1e-6)
        else:
            assert value == ("FAILED" if name == "lin" else "NO_SIGNAL")


# The command


def test_the_command(
    tmp_path: Path, fasta: Path, msa: Path, contigs: dict[str, str], columns: Columns,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    bundle = toy_bundle("wide", tmp_path / "toy", context=24, anchor=12, channels=MIXED)
    plain = toy_bundle("wide", tmp_path / "plain", context=24, anchor=12, tag="P")
    lin, bare = contigs["lin"], contigs["bare"]
    records = [f"lin 51 {lin[50]} {other(lin[50])}", f"lin 61 {lin[60]} {lin[60]}CA"]
    records += [f"bare 11 {bare[10]} {other(bare[10])}", "nowhere 5 A C"]
    source = write_vcf(tmp_path / "in.vcf", records)
    command = ["vcf", source, "-f", fasta, "-m", bundle, "-m", plain, "--msa", msa]
    assert call(*command, "-o", tmp_path / "out.vcf") == 0
    assert f',Msa="{msa.name}"' in (tmp_path / "out.vcf").read_text()
    text = (tmp_path / "out.vcf").read_text()
    assert [x for (x,) in statuses(text).values()] == [
        "SCORED", "LLR:INDEL", "LLR:NO_SIGNAL|PLLR:NO_SIGNAL", "CONTIG_MISSING",
    ]  # fmt: skip
    assert [x for (x,) in statuses(text, "P").values()][2] == "SCORED"
    assert capfd.readouterr().err.count("no contig bare: alleles there get NO_SIGNAL") == 1
    oracle = Oracle(bundle, fasta, alignment=columns)
    for record, score in zip(records_of(text)[:2], ("LLR", "PLLR"), strict=True):
        chrom, pos, ref, alt = record.site
        wanted = oracle.score(chrom, int(pos), ref, alt, score)
        assert float(record.info[f"TOY_{score}"]) == pytest.approx(wanted, abs=2e-5)
    assert call(*command, "--dry-run", "--summary", tmp_path / "s.json") == 0
    counted = json.loads((tmp_path / "s.json").read_text())["models"]["TOY"]["status"]
    assert counted["LLR:NO_SIGNAL|PLLR:NO_SIGNAL"] == 1


@pytest.mark.parametrize("dtype", ["S1", "u1"])
def test_names_types_and_zips_are_one(
    dtype: str, tmp_path: Path, contigs: dict[str, str], columns: Columns
) -> None:
    fasta = write_fasta(tmp_path / "g.fa", {"chr1": contigs["lin"], "chrM": contigs["tiny"]})
    columns = {"chr1": columns["lin"], "chrM": columns["tiny"]}
    path = write_msa(tmp_path / "m.zarr", columns, dtype, {"chr1": "1", "chrM": "MT"})
    (path / "README.txt").write_text("beside the arrays")
    shutil.make_archive(str(path), "zip", root_dir=path)
    genome = Genome(fasta)
    for name in ("m.zarr", "m.zarr.zip"):
        alignment = Alignment(str(tmp_path / name), genome, SPECIES)
        for contig, column in columns.items():
            assert alignment.holds(contig)
            at = np.array([0, 1, 15, 16, len(column) - 1])
            expected = [["-ACGT".find(x) % 6 % 5 for x in column[i][1:].upper()] for i in at]
            np.testing.assert_array_equal(alignment.read(contig, at), expected)


# Alignments that do not fit


def spoil(columns: Columns, contig: str, change: Callable[[list[str]], list[str]]) -> Columns:
    return {**columns, contig: change(columns[contig])}


def other_assembly(column: list[str]) -> list[str]:
    """Shift the reference by one base."""
    return [column[i - 1][0] + x[1:] for i, x in enumerate(column)]


def gone(column: list[str]) -> list[str]:
    return [("\0" * len(x)) if 48 <= i < 64 else x for i, x in enumerate(column)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_assembly, "bases of lin in its first column are not those of"),
        (gone, "it holds nothing at lin:49, not even the reference"),
        (lambda x: x[:-2], "lin has 298 bases, lin of"),
        (lambda x: [y + "A" for y in x], r"lin has 5 columns, the model reads 1 \+ 3"),
    ],
)
def test_alignments_that_do_not_fit(
    change: Any,
    message: str,
    tmp_path: Path,
    fasta: Path,
    columns: Columns,
    contigs: dict[str, str],
) -> None:
    path = write_msa(tmp_path / "m.zarr", spoil(columns, "lin", change))
    bundle = toy_bundle("markov", tmp_path / "toy", context=20, channels=species())
    engine = Engine(bundle, fasta, ["LLR"], msa=path)
    # Another contig has nothing to do with it.
    tiny = contigs["tiny"]
    engine.score([("tiny", 10, tiny[9], other(tiny[9]))])
    base = contigs["lin"][54]
    with pytest.raises(InputError, match=message) as caught:
        engine.score([("lin", 55, base, other(base))])
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("positions", "sites"),
    [
        ((52, 57), (54,)),  # 2 of 20 bases: too few to say anything
        (range(20, 280, 40), range(10, 300, 20)),  # 7 of 300: too small a part
    ],
)
def test_few_bases_may_differ(
    positions: Any, sites: Any, tmp_path: Path, fasta: Path, columns: Columns,
    contigs: dict[str, str],
) -> None:  # fmt: skip
    """A FASTA of one person differs from the reference in a few places."""

    def changed(column: list[str]) -> list[str]:
        return [(other(x[0]) if i in positions else x[0]) + x[1:] for i, x in enumerate(column)]

    path = write_msa(tmp_path / "m.zarr", spoil(columns, "lin", changed))
    bundle = toy_bundle("markov", tmp_path / "toy", context=20, channels=species())
    line = contigs["lin"]
    alleles = [("lin", i + 1, line[i], other(line[i])) for i in sites]
    oracle = Oracle(bundle, fasta, alignment=columns)
    found = Engine(bundle, fasta, ["LLR"], msa=path).score(alleles)["LLR"]
    assert found == pytest.approx([oracle.score(*x, "LLR") for x in alleles], abs=2e-5)


def no_table(path: Path, columns: Columns) -> None:
    root = zarr.open_group(str(path), mode="w", zarr_format=2)
    root.create_array("lin", shape=(300, 4), chunks=(16, 4), dtype="i4")


def half(path: Path, columns: Columns) -> None:
    """Cut a chunk off, whose header says how long it is."""
    write_msa(path, columns)
    for chunk in (path / "lin").glob("[0-9]*.0"):
        chunk.write_bytes(chunk.read_bytes()[:7])


def no_metadata(path: Path, columns: Columns) -> None:
    write_msa(path, columns)
    for name in (".zarray", "zarr.json"):
        if (path / "lin" / name).exists():
            (path / "lin" / name).write_text('{"zarr_format": 2}')


def read_lin(path: Path, fasta: Path) -> None:
    alignment = Alignment(str(path), Genome(fasta), SPECIES)
    assert alignment.holds("lin")
    alignment.read("lin", np.arange(50))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path, columns: None, "no such alignment"),
        (lambda path, columns: path.write_text("no zip"), "not an alignment"),
        (lambda path, columns: path.mkdir(), "not an alignment"),
        (lambda path, columns: write_msa(path, {"x": columns["tiny"]}), "it has no contig of"),
        (no_table, "lin has shape .300, 4. and type int32"),
        (half, "lin cannot be read"),
        (no_metadata, "cannot be (read|listed)"),
    ],
)
def test_files_that_are_no_alignment(
    make: Any, message: str, tmp_path: Path, fasta: Path, columns: Columns
) -> None:
    path = tmp_path / "m.zarr"
    make(path, columns)
    with pytest.raises(InputError, match=message) as caught:
        read_lin(path, fasta)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_without_zarr(tmp_path: Path, fasta: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(UsageError, match=r"glm_annotate\[msa\]"):
        Alignment(str(tmp_path), Genome(fasta), SPECIES)


# Cards


def test_without_an_alignment(
    tmp_path: Path, fasta: Path, msa: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle = toy_bundle("markov", tmp_path / "toy", channels=species())
    plain = toy_bundle("markov", tmp_path / "plain")
    signal = {"name": "CTCF", "source": "bigwig"}
    signals = toy_bundle("markov", tmp_path / "signals", channels=[*species(), signal])
    command = ["vcf", "lin:5:A:C", "-f", fasta, "-o", tmp_path / "out.vcf"]
    assert call(*command, "-m", bundle) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert "--msa" in line
    assert "3 other species" in line
    assert call(*command, "-m", signals, "--msa", msa) == 2
    assert "name its bigWig: --signal CTCF=FILE.bw" in capfd.readouterr().err
    assert not (tmp_path / "out.vcf").exists()
    assert call(*command, "-m", plain, "--msa", msa) == 0
    assert "no model of this run reads an alignment" in capfd.readouterr().err


def test_a_bundle_with_channels_is_checked(tmp_path: Path) -> None:
    bundle = toy_bundle("onehot", tmp_path / "toy", channels=MIXED)
    assert set(check_bundle(bundle).differences) == {"logits", "embedding"}
    with np.load(bundle / "selftest.npz") as arrays:
        found = dict(arrays)
    assert found["input_channels"].shape == (*found["input_rows"].shape[:2], len(MIXED))
    found["input_channels"] = 4 - found["input_channels"]
    np.savez(bundle / "selftest.npz", **found)
    write_bundle(bundle, read_card(bundle).model_dump(exclude={"sha256"}))
    with pytest.raises(BundleError, match="differs from the self-test"):
        check_bundle(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": {"channels": []}}, "has 0 encoder.channels and the inputs rows, channels"),
        ({"inputs": {"channels": None}}, "has 3 encoder.channels and the inputs rows:"),
        ({"encoder": {"k": 3}}, "channels need rows of one base"),
        ({"encoder": {"channels": species(missing=2)}}, "missing = 2; codes"),
        ({"encoder": {"channels": species(missing=0.5)}}, "missing = 0.5; codes"),
        (
            {"encoder": {"channels": [{**species()[0], "transform": "log1p"}]}},
            "the channel 's0' of the card has transform = log1p",
        ),
    ],
)
def test_cards_that_do_not_fit(change: Any, message: str, tmp_path: Path) -> None:
    bundle = toy_bundle("markov", tmp_path / "toy", channels=species())
    card = read_card(bundle).model_dump(mode="json", exclude={"sha256"})
    for key, values in change.items():
        merged = {**card[key], **values}
        card[key] = {name: value for name, value in merged.items() if value is not None}
    write_bundle(bundle, card)
    with pytest.raises(BundleError, match=message):
        check_channels(load_bundle(bundle))


def test_a_graph_of_another_number_of_species(tmp_path: Path) -> None:
    toy = toy_bundle("markov", tmp_path / "toy", channels=species())
    encoder = read_card(toy).model_dump(mode="json")["encoder"] | {"channels": species(count=2)}
    bundle = load_bundle(recard(toy, tmp_path / "other", encoder=encoder))
    with pytest.raises(BundleError, match="needs 2 values a row of the input channels, the graph"):
        open_runners(bundle, Settings())


def test_channels_in_the_type_of_the_graph(
    tmp_path: Path, fasta: Path, msa: Path, contigs: dict[str, str]
) -> None:
    given = {"context": 20, "channels": species()}
    toy = toy_bundle("markov", tmp_path / "float", **given)
    inputs = read_card(toy).model_dump(mode="json")["inputs"]
    inputs["channels"]["dtype"] = "uint8"
    narrow = toy_bundle("markov", tmp_path / "byte", inputs=inputs, **given)
    check_bundle(narrow)
    alleles = mixed_alleles(contigs, seed=1, n=10)
    found = [Engine(x, fasta, ["LLR", "ENT"], msa=msa).score(alleles) for x in (toy, narrow)]
    assert found[0] == found[1]


def test_toys_that_have_no_channels(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="toy bundle bpe has no channels"):
        toy_bundle("bpe", tmp_path / "toy", channels=species())
