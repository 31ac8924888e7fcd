"""Signals of bigWigs beside the bases: scores against the oracle and by hand, wrong files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyBigWig
import pytest
from cli_kit import call, records_of, statuses, write_vcf
from engine import Allele, Engine, gapped_contigs, write_fasta
from oracle import Oracle
from oracle_channels import Columns, Signals
from test_channels import (
    columns_of,
    edges,
    embedding,
    logits,
    logp,
    other,
    recard,
    species,
    tables,
    worst_of,
    write_msa,
)
from test_engine import CIRCULAR, MASKED, POOLED, mixed_alleles

from glm_annotate import signals
from glm_annotate.bundle import load_bundle, read_card
from glm_annotate.channels import Channels, check_channels
from glm_annotate.errors import BundleError, InputError, UsageError
from glm_annotate.genome import Genome
from glm_annotate.signals import BigWig, parse_signals
from glm_annotate.testing import check_bundle, toy_bundle
from glm_annotate.vocab import Channel

INF, NAN = math.inf, math.nan
Track = Mapping[str, list[float | None]]


def signal(name: str, indel: str = "edit", missing: float = 0, transform: str = "none") -> Any:
    return {
        "name": name, "source": "bigwig", "indel": indel, "missing": missing,
        "transform": transform,
    }  # fmt: skip


def write_bigwig(path: Path, track: Track, names: Mapping[str, str] | None = None) -> Path:
    """Write a bigWig with an entry a base; None is no entry."""
    file = pyBigWig.open(str(path), "w")
    file.addHeader([((names or {}).get(name, name), len(values)) for name, values in track.items()])
    for name, values in track.items():
        there = [i for i, x in enumerate(values) if x is not None]
        if there:
            contigs = [(names or {}).get(name, name)] * len(there)
            kept = [float(x) for x in values if x is not None]
            file.addEntries(contigs, there, ends=[i + 1 for i in there], values=kept)
    file.close()
    return path


def track_of(contigs: Mapping[str, str], seed: int) -> dict[str, list[float | None]]:
    """Draw numbers of two decimals with gaps, NaN and infinities, above all at the ends."""
    rng = np.random.default_rng(seed)
    out: dict[str, list[float | None]] = {}
    for name, bases in contigs.items():
        values: list[float | None] = np.round(rng.gamma(1, 1, len(bases)) - 0.3, 2).tolist()
        for i, odd in enumerate(rng.choice(12, len(bases)).tolist()):
            values[i] = {0: None, 1: NAN, 2: INF, 3: -INF}.get(odd, values[i])
        values[40:60] = [None] * len(values[40:60])
        out[name] = values
    return out


@pytest.fixture(scope="module")
def contigs() -> dict[str, str]:
    return gapped_contigs(16, lin=300, ring=120, tiny=25, bare=40)


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory, contigs: dict[str, str]) -> Path:
    return write_fasta(tmp_path_factory.mktemp("genome") / "toy.fa", contigs)


@pytest.fixture(scope="module")
def tracks(contigs: dict[str, str]) -> Signals:
    return {name: track_of(contigs, seed) for seed, name in enumerate(("CTCF", "ATAC", "H3"))}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, tracks: Signals) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bigwigs")
    return {name: write_bigwig(folder / f"{name}.bw", track) for name, track in tracks.items()}


def oracle_of(
    bundle: Path, fasta: Path, contigs: Mapping[str, str], tracks: Signals, **more: Any
) -> Oracle:
    """Give the oracle signals, on an alignment with no other species unless one is given."""
    alignment = more.pop("alignment", {name: list(bases) for name, bases in contigs.items()})
    oracle = Oracle(bundle, fasta, alignment=alignment, **more)
    oracle.columns = Columns(oracle.spec, alignment, tracks)
    return oracle


ONE = [signal("CTCF")]
TWO = [signal("ATAC", "reference", 0.5, "log1p"), signal("CTCF", "edit", -1)]
MIXED = [
    *species("edit", 7, 1), signal("H3", "edit", 2, "log1p"), *species("reference", 0, 1),
    signal("CTCF", "reference", 0.25),
]  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "one": ("wide", {"context": 30, "anchor": 13, "channels": ONE}),
    "two": ("markov", {"context": 24, "anchor": 12, "channels": TWO}),
    "reference": ("wide", {"context": 27, "anchor": 15, "channels": [TWO[0]]}),
    "forward": ("markov", {"context": 20, "anchor": 9, "strand": "forward", "channels": TWO}),
    "specials": ("prefix", {"context": 22, "anchor": 11, "channels": TWO}),
    "padded": ("wide", {"context": 20, "anchor": 10, "multiple_of": 7, "channels": TWO}),
    "onehot": ("onehot", {"context": 26, "anchor": 13, "channels": TWO}),
    "mixed": ("wide", {"context": 28, "anchor": 14, "channels": MIXED}),
    "same file twice": (
        "markov", {"context": 20, "channels": [*ONE, signal("CTCF", "edit", 3, "log1p")]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_score_equals_the_oracle(
    case: str, tmp_path: Path, fasta: Path, contigs: dict[str, str], tracks: Signals,
    files: dict[str, Path],
) -> None:  # fmt: skip
    kind, options = CASES[case]
    bundle = toy_bundle(kind, tmp_path / "toy", **options)
    given: dict[str, Any] = {"circular": CIRCULAR, "signals": files}
    more: dict[str, Any] = {"circular": CIRCULAR}
    if case == "mixed":
        more["alignment"] = columns_of(contigs, count=2)
        given["msa"] = write_msa(tmp_path / "m.zarr", more["alignment"])
    seed = sum(map(ord, case))
    alleles = mixed_alleles(contigs, seed=seed, n=30) + edges(contigs)
    engine = Engine(bundle, fasta, MASKED + POOLED, **given)
    found = engine.score(alleles)
    wrong = worst_of(found, oracle_of(bundle, fasta, contigs, tracks, **more), alleles)
    assert not wrong, f"{len(wrong)} differ, such as {wrong[:6]}"
    assert sum(isinstance(x, float) for values in found.values() for x in values) > 400
    # Neither the batch nor the company of other alleles changes anything.
    small = Engine(bundle, fasta, MASKED + POOLED, **given, batch=3)
    again = small.score(alleles[::-1])
    for key, values in again.items():
        for one, value in zip(values[::-1], found[key], strict=True):
            assert one == value or math.isclose(float(one), float(value), abs_tol=1e-5), key


def test_signals_that_differ_give_scores_that_do(
    tmp_path: Path, fasta: Path, contigs: dict[str, str], tracks: Signals, files: dict[str, Path]
) -> None:
    """The oracle's numbers come from the signals: with another file they are others."""
    bundle = toy_bundle("wide", tmp_path / "toy", context=30, channels=ONE)
    alleles = [("lin", 21, contigs["lin"][20], other(contigs["lin"][20]))]
    found = [
        Engine(bundle, fasta, ["LLR"], signals={"CTCF": files[name]}).score(alleles)["LLR"][0]
        for name in ("CTCF", "ATAC", "CTCF")
    ]
    assert found[0] == found[2]
    assert abs(float(found[0]) - float(found[1])) > 1e-3


def test_a_dynamic_window_narrows_signals_too(
    tmp_path: Path, fasta: Path, contigs: dict[str, str], files: dict[str, Path]
) -> None:
    toy = toy_bundle("wide", tmp_path / "toy", context=30, anchor=15, channels=TWO)
    window = {"kind": "dynamic", "max_tokens": 21}
    scores = ("LLR", "PLLR", "ENT", "EMB_L2:pool=all")
    alleles = mixed_alleles(contigs, 4, 40)
    dynamic, fixed = (
        Engine(bundle, fasta, scores, circular=CIRCULAR, signals=files).score(alleles)
        for bundle in (
            recard(toy, tmp_path / "dynamic", window=window),
            recard(toy, tmp_path / "fixed", context=21, anchor=11),
        )
    )
    assert dynamic == fixed


# By hand

#        0123456789
SHORT = "GATTACAGTC"
NUMBERS = [1.5, None, 0.25, -0.5, NAN, 3.0, 0.75, INF, 2.0, 10.0]


@pytest.fixture
def short(tmp_path: Path) -> Callable[..., tuple[Callable[[str, Allele], Any], dict[str, Any]]]:
    """Build a toy of 5 bases on the short contig; gives how to score, and its tables."""
    fasta = write_fasta(tmp_path / "short.fa", {"c": SHORT})
    file = write_bigwig(tmp_path / "short.bw", {"c": NUMBERS})

    def make(indel: str, strand: str, transform: str = "none") -> Any:
        given = {"context": 5, "anchor": 2, "strand": strand, "dim": 2}
        channels = [signal("S", indel, 7, transform)]
        bundle = toy_bundle("markov", tmp_path / "toy", channels=channels, **given)

        def score(text: str, allele: Allele) -> Any:
            (values,) = Engine(bundle, fasta, [text], signals={"S": file}).score([allele]).values()
            return values[0]

        return score, tables(bundle)

    return make


def beside(*values: float) -> list[Any]:
    return [np.array([x]) for x in values]


def test_the_other_strand_has_the_same_numbers_backwards(short: Any) -> None:
    score, t = short("edit", "both")
    # C > T at base 5: the window is TA#AG, bases 3 to 7; NaN and the infinity are missing, 7.
    forward = logits(t, "TA#AG", beside(-0.5, 7, 3, 0.75, 7), 2)
    reverse = logits(t, "CT#TA", beside(7, 0.75, 3, 7, -0.5), 2)
    expected = (forward[6] - forward[4] + reverse[3] - reverse[5]) / 2
    assert score("LLR", ("c", 6, "C", "T")) == pytest.approx(expected, abs=2e-5)


def test_what_is_missing_is_not_transformed(short: Any) -> None:
    score, t = short("edit", "forward", "log1p")
    # T > A at base 2: bases 0 to 4, of which 1 has no entry and 4 is NaN.
    values = beside(math.log(2.5), 7, math.log(1.25), math.log(0.5), 7)
    z = logits(t, "GA#TA", values, 2)
    assert score("LLR", ("c", 3, "T", "A")) == pytest.approx(z[3] - z[6], abs=2e-5)


def test_off_the_contig_is_missing_on_both_strands(short: Any) -> None:
    score, t = short("edit", "both")
    forward = logits(t, "NN#AT", beside(7, 7, 1.5, 7, 0.25), 2)
    reverse = logits(t, "AT#NN", beside(0.25, 7, 1.5, 7, 7), 2)
    expected = (forward[3] - forward[5] + reverse[6] - reverse[4]) / 2
    assert score("LLR", ("c", 1, "G", "A")) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("indel", ["edit", "reference"])
def test_an_insertion(short: Any, indel: str) -> None:
    score, t = short(indel, "forward")
    # C G follows base 4, A: ref TACAG, alt TACGC.
    plain = beside(-0.5, 7, 3, 0.75, 7)
    moved = beside(-0.5, 7, 7, 7, 3) if indel == "edit" else plain
    expected = logp(logits(t, "TAC#C", moved, 3), 5) + logp(logits(t, "TACG#", moved, 4), 4)
    found = score("PLLR", ("c", 5, "A", "ACG"))
    assert found == pytest.approx(expected + 2 * math.log(4), abs=2e-5)


@pytest.mark.parametrize("indel", ["edit", "reference"])
def test_a_deletion(short: Any, indel: str) -> None:
    score, t = short(indel, "forward")
    # AG at bases 6 and 7 goes: ref ACAGT, alt ACTC and what lies past the contig's end.
    plain = beside(7, 3, 0.75, 7, 2)
    moved = beside(7, 3, 2, 10, 7) if indel == "edit" else plain
    vectors = [
        sum(embedding(t, text, values, at) for at in range(5)) / 5
        for text, values in (("ACAGT", plain), ("ACTCN", moved))
    ]
    found = score("EMB_L2:pool=all", ("c", 6, "CAG", "C"))
    assert found == pytest.approx(math.dist(*vectors), abs=2e-5)


# Windows and blocks


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize("length", [1, 7, 25, 60])
def test_windows_hold_the_value_of_every_position(
    circular: bool, length: int, fasta: Path, files: dict[str, Path], tracks: Signals
) -> None:
    """Windows apart, side by side, over one another and equal, in any order, and past the ends."""
    spec = read_spec(ONE, missing=-9)
    genome = Genome(fasta)
    file = BigWig("CTCF", str(files["CTCF"]), genome)
    source = signals.Signals(spec.channels, {"CTCF": file})
    assert source.holds("tiny")
    left = np.array([30, -70, 3, 3, 3 + length, 24, -length, 25, 4, -1])
    found = Channels(spec, genome, {"bigwig": source}).windows(
        "tiny", left, length, circular=circular
    )
    values = [-9 if x is None or not math.isfinite(x) else x for x in tracks["CTCF"]["tiny"]]
    expected = [
        [values[p % 25] if circular else values[p] if 0 <= p < 25 else -9 for p in range(a, b)]
        for a, b in zip(left, left + length, strict=True)
    ]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[:, :, 0], np.array(expected, dtype=np.float32))


def read_spec(channels: list[dict[str, Any]], missing: float = 0) -> Any:
    from glm_annotate.vocab import EncoderSpec

    return EncoderSpec(kind="one_hot", channels=tuple(Channel(**x) for x in channels)).model_copy(
        update={"channels": tuple(Channel(**{**x, "missing": missing}) for x in channels)}
    )


def test_blocks_are_read_once_and_few_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "_BLOCK", 64)
    monkeypatch.setattr(signals, "_KEPT", 3)
    fasta = write_fasta(tmp_path / "g.fa", {"c": "A" * 1000})
    values: list[float | None] = [float(i) if i % 7 else None for i in range(1000)]
    file = BigWig("S", str(write_bigwig(tmp_path / "s.bw", {"c": values})), Genome(fasta))
    file.check("c")
    asked: list[tuple[int, int]] = []
    library = file._file

    class Noting:
        def values(self, name: str, start: int, end: int, numpy: bool) -> Any:
            asked.append((start, end))
            return library.values(name, start, end, numpy=numpy)

    file._file = Noting()
    for positions in ([0, 63, 64, 130], [5, 70, 129, 140], [3], [999], [2], [70]):
        found = file.read("c", np.array(positions))
        np.testing.assert_array_equal(found, [NAN if values[i] is None else i for i in positions])
    # The last block is cut at the contig's end; the one used least lately was let go for it.
    assert asked == [(0, 64), (64, 128), (128, 192), (960, 1000), (64, 128)]


def test_pure_alignments_stay_bytes(tmp_path: Path, fasta: Path) -> None:
    for channels, dtype in ((species(), np.uint8), (MIXED, np.float32), (ONE, np.float32)):
        spec = read_spec(channels)
        assert Channels(spec, Genome(fasta), {}).blank(2, 3).dtype == dtype


def test_names_of_contigs_are_looked_up_as_aliases(tmp_path: Path) -> None:
    fasta = write_fasta(tmp_path / "g.fa", {"chr1": "ACGT", "chrM": "ACG"})
    track = {"chr1": [1.0, 2.0, None, 4.0], "chrM": [5.0, 6.0, 7.0]}
    path = write_bigwig(tmp_path / "s.bw", track, {"chr1": "1", "chrM": "MT"})
    file = BigWig("S", str(path), Genome(fasta))
    for contig, values in track.items():
        file.check(contig)
        found = file.read(contig, np.arange(len(values)))
        np.testing.assert_array_equal(found, [NAN if x is None else x for x in values])


# The command


@pytest.fixture
def toys(tmp_path: Path) -> tuple[Path, Path]:
    """Give a model with two signals, and one without any."""
    bundle = toy_bundle("wide", tmp_path / "toy", context=24, anchor=12, channels=TWO)
    return bundle, toy_bundle("wide", tmp_path / "plain", context=24, anchor=12, tag="P")


def test_the_command(
    tmp_path: Path, fasta: Path, toys: tuple[Path, Path], contigs: dict[str, str], tracks: Signals,
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    bundle, plain = toys
    lin = contigs["lin"]
    source = write_vcf(
        tmp_path / "in.vcf",
        [f"lin 51 {lin[50]} {other(lin[50])}", f"lin 61 {lin[60]} {lin[60]}CA", "nowhere 5 A C"],
    )
    texts = [f"{name}={files[name]}" for name in ("CTCF", "ATAC")]
    command = ["vcf", source, "-f", fasta, "-m", bundle, "-m", plain, "--no-version"]
    named = [*command, "--signal", texts[0], "--signal", texts[1]]
    assert call(*named, "-o", tmp_path / "out.vcf") == 0
    text = (tmp_path / "out.vcf").read_text()
    # In the order of the card's channels.
    assert ',Bigwig="ATAC=ATAC.bw,CTCF=CTCF.bw"' in text
    assert text.count("Bigwig=") == 1
    assert [x for (x,) in statuses(text).values()] == ["SCORED", "LLR:INDEL", "CONTIG_MISSING"]
    oracle = oracle_of(bundle, fasta, contigs, tracks)
    for record, score in zip(records_of(text)[:2], ("LLR", "PLLR"), strict=True):
        chrom, pos, ref, alt = record.site
        wanted = oracle.score(chrom, int(pos), ref, alt, score)
        assert float(record.info[f"TOY_{score}"]) == pytest.approx(wanted, abs=2e-5)
    # The same from a variable and from a file.
    monkeypatch.setenv("GLM_ANNOTATE_SIGNAL", " ".join(texts))
    assert call(*command, "-o", tmp_path / "env.vcf") == 0
    monkeypatch.delenv("GLM_ANNOTATE_SIGNAL")
    (tmp_path / "run.toml").write_text(f"signal = {json.dumps(texts)}\n")
    assert call(*command, "--config", tmp_path / "run.toml", "-o", tmp_path / "toml.vcf") == 0
    assert (tmp_path / "env.vcf").read_text() == (tmp_path / "toml.vcf").read_text() == text


def test_signals_that_are_not_given_or_not_read(
    fasta: Path, toys: tuple[Path, Path], files: dict[str, Path], contigs: dict[str, str],
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    bundle, plain = toys
    allele = f"lin:31:{contigs['lin'][30]}:{other(contigs['lin'][30])}"
    command = ["vcf", allele, "-f", fasta]
    one, small = f"CTCF={files['CTCF']}", f"atac={files['ATAC']}"
    assert call(*command, "-m", bundle, "--signal", one, "--signal", small) == 2
    lines = capfd.readouterr().err.splitlines()
    assert "warning" not in lines[-1]
    assert "reads the signal ATAC" in lines[-1]
    assert "given are: CTCF, atac;" in lines[-1]
    assert lines[-1].endswith("--signal ATAC=FILE.bw")
    assert call(*command, "-m", plain, "--signal", "X=/no/such.bw") == 0
    found = capfd.readouterr().err
    assert "--signal X: no model of this run reads a signal of that name; they read: none" in found
    assert call(*command, "-m", bundle, "--signal", one, "--signal", one) == 2
    assert f"CTCF is {files['CTCF']} already" in capfd.readouterr().err.splitlines()[-1]


def test_two_models_read_one_file(
    tmp_path: Path, fasta: Path, contigs: dict[str, str], files: dict[str, Path]
) -> None:
    first = toy_bundle("wide", tmp_path / "a", context=24, channels=ONE)
    second = toy_bundle("wide", tmp_path / "b", context=24, channels=ONE, tag="B")
    allele = f"lin:31:{contigs['lin'][30]}:{other(contigs['lin'][30])}"
    command = ["vcf", allele, "-f", fasta, "-m", first, "-m", second, "-o", tmp_path / "o.vcf"]
    assert call(*command, "--signal", f"CTCF={files['CTCF']}") == 0
    (record,) = records_of((tmp_path / "o.vcf").read_text())
    assert record.info["TOY_LLR"] == record.info["B_LLR"]


@pytest.mark.parametrize("text", ["", "CTCF", "=x.bw", "CTCF="])
def test_signals_that_are_no_pair(text: str) -> None:
    with pytest.raises(UsageError, match=r"not NAME=FILE\.bw"):
        parse_signals([text])


def test_a_path_may_hold_an_equals_sign() -> None:
    assert parse_signals(["a=b=c.bw", "A=d.bw"]) == {"a": "b=c.bw", "A": "d.bw"}


# Files that do not fit


def score_at(pos: int, fasta: Path, bundle: Path, path: Path, contigs: Any, name: str) -> Any:
    base = contigs[name][pos - 1]
    engine = Engine(bundle, fasta, ["LLR"], signals={"CTCF": path})
    return engine.score([(name, pos, base, other(base))])["LLR"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: {"tiny": t["tiny"], "ring": t["ring"]},
            "no contig lin, where alleles are to be scored; of the FASTA it lacks bare too "
            r"\(it has tiny, ring\); name a bigWig that covers it, or leave the contig out: "
            r"-t \^lin$",
        ),
        (
            lambda t: {name: x for name, x in t.items() if name != "lin"},
            r"no contig lin, where alleles are to be scored \(it has ring, tiny, bare\)",
        ),
        (
            lambda t: {**t, "lin": t["lin"][:-2]},
            "lin has 298 bases, lin of .*toy.fa has 300: a signal on another assembly",
        ),
    ],
)
def test_contigs_that_do_not_fit(
    change: Any, message: str, tmp_path: Path, fasta: Path, contigs: dict[str, str], tracks: Signals
) -> None:
    path = write_bigwig(tmp_path / "s.bw", change(tracks["CTCF"]))
    bundle = toy_bundle("markov", tmp_path / "toy", context=20, channels=ONE)
    # Another contig has nothing to do with it.
    assert isinstance(score_at(10, fasta, bundle, path, contigs, "tiny"), float)
    with pytest.raises(InputError, match=message) as caught:
        score_at(50, fasta, bundle, path, contigs, "lin")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"--signal CTCF={path}: ")


def test_a_value_without_a_logarithm(
    tmp_path: Path, fasta: Path, contigs: dict[str, str], tracks: Signals
) -> None:
    values = list(tracks["CTCF"]["tiny"])
    values[20] = -1.0
    path = write_bigwig(tmp_path / "s.bw", {"tiny": values})
    channels = [signal("CTCF", transform="log1p")]
    bundle = toy_bundle("markov", tmp_path / "toy", context=10, channels=channels)
    # Windows of bases 4 to 13 do not reach it, those of 11 to 20 do.
    assert isinstance(score_at(10, fasta, bundle, path, contigs, "tiny"), float)
    with pytest.raises(InputError, match=r"-1 at tiny:21, and the model reads log\(1 \+ value\)"):
        score_at(17, fasta, bundle, path, contigs, "tiny")
    plain = toy_bundle("markov", tmp_path / "plain", context=10, channels=ONE)
    assert isinstance(score_at(17, fasta, plain, path, contigs, "tiny"), float)


def cut_to(size: int) -> Callable[[Path, bytes], int]:
    return lambda path, data: path.write_bytes(data[:size])


def beyond(path: Path, data: bytes) -> None:
    """Let the header name an index that lies past the file's end."""
    path.write_bytes(data[:24] + (1 << 63).to_bytes(8, "little") + data[32:])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path, data: None, "no such file"),
        (lambda path, data: path.mkdir(), "a folder"),
        (lambda path, data: path.write_text("track type=bedGraph"), "not a bigWig: it starts with"),
        (lambda path, data: path.write_bytes(b""), "not a bigWig: it starts with"),
        (
            lambda path, data: path.write_bytes((0x8789F2EB).to_bytes(4, "little") + data[4:]),
            "not a bigWig: a bigBed",
        ),
        (cut_to(10), "a bigWig that was cut off"),
        (cut_to(80), "a bigWig that was cut off"),
        (cut_to(600), "a bigWig that was cut off"),
        (beyond, "a bigWig that was cut off"),
    ],
)
def test_files_that_are_no_bigwig(
    make: Any, message: str, tmp_path: Path, fasta: Path, files: dict[str, Path]
) -> None:
    path = tmp_path / "s.bw"
    make(path, files["CTCF"].read_bytes())
    with pytest.raises(InputError, match=message) as caught:
        BigWig("S", str(path), Genome(fasta))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"--signal S={path}: ")


def test_every_place_to_cut_a_file_is_survived(
    tmp_path: Path, fasta: Path, files: dict[str, Path]
) -> None:
    """The library ends the process at some of these, so it must not see them."""
    data = files["CTCF"].read_bytes()
    index = int.from_bytes(data[24:32], "little")
    genome = Genome(fasta)
    whole = BigWig("S", str(files["CTCF"]), genome)
    whole.check("lin")
    expected = whole.read("lin", np.arange(300))
    outcomes = set()
    for size in [*range(0, 400, 13), *range(index - 8, len(data), 11)]:
        path = tmp_path / f"{size}.bw"
        path.write_bytes(data[:size])
        try:
            file = BigWig("S", str(path), genome)
            file.check("lin")
            found = file.read("lin", np.arange(300))
        except InputError as error:
            outcomes.add(str(error).split(": ")[1].split("; ")[0])
        else:
            outcomes.add("read")
            np.testing.assert_array_equal(found, expected)
    cut = {"not a bigWig", "a bigWig that was cut off", "its header cannot be read"}
    assert outcomes == {*cut, "read"}


def test_damaged_data(tmp_path: Path, fasta: Path, files: dict[str, Path]) -> None:
    data = bytearray(files["CTCF"].read_bytes())
    start = int.from_bytes(data[16:24], "little") + 8
    data[start + 20 : start + 60] = bytes(40)
    path = tmp_path / "s.bw"
    path.write_bytes(data)
    file = BigWig("S", str(path), Genome(fasta))
    file.check("lin")
    with pytest.raises(InputError, match="lin:1-300 cannot be read; the file is damaged"):
        file.read("lin", np.arange(9))


def test_an_unreadable_file(
    tmp_path: Path, fasta: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(signals, "open", refuse, raising=False)
    with pytest.raises(InputError, match="cannot be read: Permission denied"):
        BigWig("S", str(files["CTCF"]), Genome(fasta))


def test_a_header_that_the_library_refuses(
    fasta: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise RuntimeError("Received an error during file opening!")

    monkeypatch.setattr(pyBigWig, "open", refuse)
    with pytest.raises(InputError, match="its header cannot be read; the file is damaged"):
        BigWig("S", str(files["CTCF"]), Genome(fasta))


# Cards


def test_a_bundle_with_signals_is_checked(tmp_path: Path) -> None:
    bundle = toy_bundle("onehot", tmp_path / "toy", channels=MIXED)
    assert set(check_bundle(bundle).differences) == {"logits", "embedding"}


@pytest.mark.parametrize(
    ("channels", "dtype", "message"),
    [
        (
            MIXED,
            "uint8",
            "the input channels is uint8; the numbers of 'H3', a bigWig, need float32",
        ),
        ([signal("A", missing=1e39)], "float32", "the channel 'A' of the card has missing = 1e.39"),
        ([*TWO, signal("B", missing=NAN)], "float32", "'B' of the card has missing = nan; wanted"),
    ],
)
def test_cards_that_do_not_fit(channels: Any, dtype: str, message: str, tmp_path: Path) -> None:
    bundle = load_bundle(toy_bundle("markov", tmp_path / "toy", channels=ONE))
    card = read_card(bundle.path)
    inputs = {**card.inputs, "channels": card.inputs["channels"].model_copy()}
    inputs["channels"] = inputs["channels"].model_copy(update={"dtype": dtype})
    encoder = card.encoder.model_copy(update={"channels": tuple(Channel(**x) for x in channels)})
    changed = card.model_copy(update={"inputs": inputs, "encoder": encoder})
    with pytest.raises(BundleError, match=message):
        check_channels(type(bundle)(bundle.path, changed, bundle.encoder))
