"""`glm-annotate bed`: regions against plain loops, and tables of every kind."""

from __future__ import annotations

import gzip
import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyBigWig
import pytest
from engine import write_fasta
from region_kit import AlongOracle, CausalOracle, EmbeddingOracle, MaskedOracle
from toy_tracks import ROWS, Shape, maker, write_toy

from glm_annotate import bed_job
from glm_annotate.cli_bed import bed_command
from glm_annotate.errors import InputError, UsageError
from glm_annotate.plan import PassFailed
from glm_annotate.runtime import OrtRunner
from glm_annotate.testing import toy_bundle

parquet = pytest.importorskip("pyarrow.parquet")

SIZES = {"lin": 330, "chrM": 61, "gap": 120}
SPANS: dict[str, tuple[tuple[str, int, int], ...]] = {
    # Out of order, within each other, twice, ends of contigs, over letters that are no bases.
    "few": (("lin", 200, 223), ("lin", 0, 9), ("chrM", 50, 61), ("lin", 205, 207), ("lin", 76, 90),
            ("M", 0, 5), ("lin", 319, 330), ("lin", 200, 223)),
    "long": (("lin", 0, 330), ("chrM", 0, 61), ("lin", 60, 189), ("gap", 0, 120)),
}  # fmt: skip


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(12)
    made = {name: "".join(rng.choice(list("ACGT"), n)) for name, n in SIZES.items()}
    made["lin"] = made["lin"][:80] + "NNR" + made["lin"][83:170].lower() + made["lin"][170:]
    made["gap"] = made["gap"][:20] + "N" * 80 + made["gap"][100:]
    return write_fasta(tmp_path_factory.mktemp("genome") / "toy.fa", made)


def bed(*arguments: object) -> int:
    """Run `glm-annotate bed ARGS`; what it raises becomes an exit code in `cli.run`."""
    done: int = bed_command.main([str(x) for x in arguments], standalone_mode=False)
    return done


def write_bed(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    head, *lines = [x.split("\t") for x in path.read_text().splitlines()]
    return [dict(zip(head, x, strict=True)) for x in lines]


def scored(
    tmp_path: Path, fasta: Path, spans: Sequence[Sequence[object]], *arguments: object
) -> list[dict[str, str]]:
    """Give the rows of a TSV."""
    out = tmp_path / "out.tsv"
    source = write_bed(tmp_path / "in.bed", spans)
    assert bed(source, "-f", fasta, "-o", out, "--force", *arguments) == 0
    rows = rows_of(out)
    assert [[x["chrom"], x["start"], x["end"]] for x in rows] == [
        [str(cell) for cell in span[:3]] for span in spans
    ]
    return rows


def arrays(
    tmp_path: Path, fasta: Path, spans: Sequence[Sequence[object]], *arguments: object
) -> dict[str, list[Any]]:
    """Give the columns of a Parquet file."""
    out = tmp_path / "out.parquet"
    source = write_bed(tmp_path / "in.bed", spans)
    assert bed(source, "-f", fasta, "-o", out, "--force", *arguments) == 0
    found: dict[str, list[Any]] = parquet.read_table(out).to_pydict()
    return found


def exactly(text: str) -> Any:
    """Compare with what is printed with 6 digits."""
    return pytest.approx(float(text), rel=2e-5, abs=2e-5)


def check_likelihood(
    rows: Sequence[dict[str, str]], name: str, chance: Callable[[str, int], float | None]
) -> None:
    """Sum log p over bases, one by one."""
    for row in rows:
        contig = {"M": "chrM"}.get(row["chrom"], row["chrom"])
        every = [chance(contig, i) for i in range(int(row["start"]), int(row["end"]))]
        values = [x for x in every if x is not None]
        assert row["TOY_STATUS"] == "SCORED"
        assert int(row["TOY_BASES"]) == len(values)
        assert math.fsum(values) == exactly(row[f"TOY_{name}"])
        assert math.fsum(values) / len(values) == exactly(row["TOY_MEAN"])


# --- language models ---------------------------------------------------------------------------

MASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "wide": ("wide", {"context": 24, "dense": 5}),
    "forward": ("wide", {"context": 25, "anchor": 7, "dense": 4, "strand": "forward"}),
    "overlap": ("overlap", {"context": 22, "dense": 6}),
    "onehot": ("onehot", {"context": 20, "dense": 3}),
}


@pytest.mark.parametrize("mode", ["exact", "dense"])
@pytest.mark.parametrize("case", MASKED)
def test_masked_models_equal_plain_loops(case: str, mode: str, tmp_path: Path, fasta: Path) -> None:
    kind, options = MASKED[case]
    bundle = toy_bundle(kind, tmp_path / "toy", circular=("chrM",), **options)
    oracle = MaskedOracle(bundle, fasta)
    known: dict[tuple[str, int], float | None] = {}

    def chance(contig: str, i: int) -> float | None:
        if (contig, i) not in known:
            known[contig, i] = oracle.log_chance(contig, i, dense=mode == "dense")
        return known[contig, i]

    rows = scored(tmp_path, fasta, SPANS["few"], "-m", bundle, "--mode", mode)
    check_likelihood(rows, "PLL", chance)
    assert list(rows[0])[3:] == ["TOY_STATUS", "TOY_PLL", "TOY_MEAN", "TOY_BASES"]


CAUSAL: dict[str, dict[str, Any]] = {
    "even": {"context": 16},
    "odd": {"context": 17, "bos": False},
    "forward": {"context": 16, "strand": "forward"},
    "narrowed": {"context": 40, "max_tokens": 14},
    "padded": {"context": 15, "multiple_of": 8},
}


@pytest.mark.parametrize("case", CAUSAL)
def test_causal_models_equal_plain_loops(case: str, tmp_path: Path, fasta: Path) -> None:
    """Every base behind what precedes it alone: nothing that follows is even shown."""
    bundle = toy_bundle("causal", tmp_path / "toy", circular=("chrM",), **CAUSAL[case])
    oracle = CausalOracle(bundle, fasta)
    if case == "narrowed":
        oracle.length = 13  # 14 rows, one of them the first token
    rows = scored(tmp_path, fasta, SPANS["few"], "-m", bundle)
    check_likelihood(rows, "LL", oracle.log_chance)
    rows = scored(tmp_path, fasta, SPANS["long"][:2], "-m", bundle)
    check_likelihood(rows, "LL", oracle.log_chance)


@pytest.mark.parametrize(("kind", "name"), [("wide", "PLL"), ("causal", "LL")])
def test_models_that_take_no_n(kind: str, name: str, tmp_path: Path, fasta: Path) -> None:
    """Bases whose windows have an N do not count; a region of such alone has no number."""
    bundle = toy_bundle(kind, tmp_path / "toy", context=16, n="error")
    (near, far, edge) = scored(
        tmp_path, fasta, [("lin", 60, 83), ("lin", 200, 210), ("lin", 78, 80)], "-m", bundle
    )
    assert far["TOY_BASES"] == "10"
    assert 0 < int(near["TOY_BASES"]) < 20
    assert (edge["TOY_BASES"], edge[f"TOY_{name}"]) == ("0", ".")


# --- tracks ------------------------------------------------------------------------------------

Make = Callable[..., Path]
SHAPES = {"crop": Shape(64, 31, 4, 2), "edge": Shape(96, 47, 8), "bases": Shape(40, 20, 1),
          "small": Shape(24, 11, 4)}  # fmt: skip
KEYS = ("cage_plus", "dnase", "cage_minus", "rna_minus", "rna_plus", "chip_minus1_2",
        "cell_1_x_2_50_")  # fmt: skip


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Give what makes copies of toys of tracks, exported once."""
    folder = tmp_path_factory.mktemp("toys")
    graphs = {name: write_toy(folder / name, shape) for name, shape in SHAPES.items()}
    return maker(graphs, SHAPES, tmp_path_factory.mktemp("copies"))


@pytest.mark.parametrize("name", ["crop", "edge", "bases"])
def test_tracks_equal_plain_loops_and_pybigwig(
    name: str, tmp_path: Path, fasta: Path, make: Make
) -> None:
    """Means and maxima of bins, base by base, and as pyBigWig has them of a bigWig of the bins."""
    bundle = make(name, circular=("chrM",))
    oracle, size = AlongOracle(bundle, fasta), SHAPES[name].bin_size
    spans = (*SPANS["few"], *SPANS["long"], ("lin", 33, 34))
    rows = scored(tmp_path, fasta, spans, "-m", bundle)
    along = {contig: oracle.along(contig) for contig in SIZES}
    for t, key in enumerate(KEYS):
        path = str(tmp_path / f"{t}.bw")
        with pyBigWig.open(path, "w") as out:
            out.addHeader([*SIZES.items()])
            for contig, bins in along.items():
                for i, values in enumerate(bins):
                    end = min((i + 1) * size, SIZES[contig])
                    if values is not None:
                        out.addEntries([contig], [i * size], ends=[end], values=[values[t]])
        with pyBigWig.open(path) as wig:
            for row in rows:
                contig = {"M": "chrM"}.get(row["chrom"], row["chrom"])
                start, end = int(row["start"]), int(row["end"])
                bins = [along[contig][i // size] for i in range(start, end)]
                values = [x[t] for x in bins if x is not None]
                assert row["TRK_STATUS"] == "SCORED"
                assert math.fsum(values) / len(values) == exactly(row[f"TRK_{key}_mean"])
                assert max(values) == exactly(row[f"TRK_{key}_max"])
                for what in ("mean", "max"):
                    (theirs,) = wig.stats(contig, start, end, type=what, exact=True)
                    assert theirs == exactly(row[f"TRK_{key}_{what}"])


def test_gaps_have_no_tracks(tmp_path: Path, fasta: Path, make: Make) -> None:
    bundle = make("small")
    (row,) = scored(tmp_path, fasta, [("gap", 50, 60)], "-m", bundle, "--edge", "0")
    assert row["TRK_STATUS"] == "AMBIGUOUS"
    assert {row[f"TRK_{key}_{what}"] for key in KEYS for what in ("mean", "max")} == {"."}


def test_chosen_tracks_and_the_edge(tmp_path: Path, fasta: Path, make: Make) -> None:
    """Choosing one strand chooses the other; more bins left out are other bins."""
    bundle = make("crop")
    options = ("-m", bundle, "--track-regex", "^cage", "--edge", "3")
    (row,) = scored(tmp_path, fasta, [("lin", 100, 140)], *options)
    assert list(row)[3:] == [
        "TRK_STATUS", "TRK_cage_plus_mean", "TRK_cage_plus_max", "TRK_cage_minus_mean",
        "TRK_cage_minus_max",
    ]  # fmt: skip
    values = [AlongOracle(bundle, fasta).along("lin", 3)[i // 4][2] for i in range(100, 140)]
    assert math.fsum(values) / 40 == exactly(row["TRK_cage_minus_mean"])


def best(means: Sequence[float], names: Sequence[str], count: int) -> list[str]:
    return [names[t] for t in sorted(range(len(names)), key=lambda t: -means[t])[:count]]


def test_tracks_with_the_largest_means_are_named(tmp_path: Path, fasta: Path, make: Make) -> None:
    bundle = make("crop")
    rows = scored(tmp_path, fasta, SPANS["few"], "-m", bundle, "--top", "3")
    names = [row["identifier"] for row in ROWS]
    coded = [*names[:-1], "cell%201%3Bx%3D2%2C50%25"]
    for row in rows:
        means = [float(row[f"TRK_{key}_mean"]) for key in KEYS]
        pairs = [x.split("=") for x in row["TRK_TOP"].split(",")]
        assert [x for x, _ in pairs] == best(means, coded, 3)
        assert [float(x) for _, x in pairs] == sorted(means, reverse=True)[:3]


def test_many_tracks_are_lists(tmp_path: Path, fasta: Path) -> None:
    """Above 16 tracks: names in text, all of them in Parquet, with the names they have."""
    table = [{"identifier": f"t{i}", "transform": "none"} for i in range(17)]
    bundle = write_toy(tmp_path / "toy", SHAPES["crop"], table, tag="MANY")
    spans = [("lin", 100, 141), ("no", 1, 2), ("gap", 0, 9)]
    text = scored(tmp_path, fasta, spans, "-m", bundle)
    assert list(text[0])[3:5] == ["MANY_STATUS", "MANY_TOP"]
    found = arrays(tmp_path, fasta, spans, "-m", bundle)
    assert [*found] == ["chrom", "start", "end", "MANY_STATUS", "MANY_TOP", "MANY_mean", "MANY_max"]
    along = AlongOracle(bundle, fasta).along("lin")
    bins = np.array([along[i // 4] for i in range(100, 141)])
    np.testing.assert_allclose(found["MANY_mean"][0], bins.mean(axis=0), rtol=2e-5)
    np.testing.assert_allclose(found["MANY_max"][0], bins.max(axis=0), rtol=2e-5)
    assert found["MANY_mean"][1] is None
    assert found["MANY_TOP"] == [text[0]["MANY_TOP"], None, text[2]["MANY_TOP"]]
    names = [f"t{i}" for i in range(17)]
    assert [x.split("=")[0] for x in text[0]["MANY_TOP"].split(",")] == best(
        bins.mean(axis=0).tolist(), names, 5
    )
    fields = parquet.read_schema(tmp_path / "out.parquet")
    assert json.loads(fields.field("MANY_mean").metadata[b"labels"]) == names


# --- embeddings --------------------------------------------------------------------------------

EMBEDDED: dict[str, tuple[str, dict[str, Any]]] = {
    "wide": ("wide", {"context": 24}),
    "halves": ("wide", {"context": 21, "halves": "rc", "strand": "equivariant"}),
    "forward": ("causal", {"context": 20, "strand": "forward"}),
    "overlap": ("overlap", {"context": 22}),
    "blocks": ("blocks", {"context": 27}),
    "bpe": ("bpe", {"context": 40}),
    "narrowed": ("wide", {"context": 30, "max_tokens": 20}),
}


@pytest.mark.parametrize("case", EMBEDDED)
def test_embeddings_equal_plain_loops(case: str, tmp_path: Path, fasta: Path) -> None:
    kind, options = EMBEDDED[case]
    if kind == "bpe":
        pytest.importorskip("tokenizers")
    bundle = toy_bundle(kind, tmp_path / "toy", circular=("chrM",), **options)
    oracle = EmbeddingOracle(bundle, fasta)
    spans = [*SPANS["few"], *SPANS["long"], ("gap", 30, 90), ("gap", 10, 100)]
    if case == "narrowed":
        # Windows of 20 bases; of regions that they hold it is these that are seen.
        oracle.length, spans = 20, [("lin", 100, 108), ("lin", 150, 170), ("lin", 3, 13)]
    found = arrays(tmp_path, fasta, spans, "-m", bundle, "-s", "emb")
    assert [*found][3:] == ["TOY_STATUS", "TOY_EMB"]
    for i, (contig, start, end) in enumerate(spans):
        wanted = oracle.embedding({"M": "chrM"}.get(contig, contig), start, end)
        assert found["TOY_STATUS"][i] == ("AMBIGUOUS" if wanted is None else "SCORED")
        if wanted is None:
            assert found["TOY_EMB"][i] is None
        else:
            np.testing.assert_allclose(found["TOY_EMB"][i], wanted, rtol=2e-5, atol=2e-5)
    assert found["TOY_STATUS"].count("AMBIGUOUS") == (case != "narrowed")


def test_tiles_with_too_many_rows_are_halved(tmp_path: Path, fasta: Path) -> None:
    """30 bases do not fit into 20 rows: two tiles of 15 do, each in the middle of 20 bases."""
    bundle = toy_bundle("wide", tmp_path / "toy", context=30, max_tokens=20)
    oracle = EmbeddingOracle(bundle, fasta)
    oracle.length = 20
    found = arrays(tmp_path, fasta, [("lin", 200, 230)], "-m", bundle, "-s", "EMB")
    windows = [oracle.embedding("lin", 200, 215), oracle.embedding("lin", 215, 230)]
    np.testing.assert_allclose(found["TOY_EMB"][0], np.mean(windows, axis=0), rtol=2e-5, atol=2e-5)


def test_embeddings_beside_all_else(tmp_path: Path, fasta: Path) -> None:
    """Both parts of one model, with a status that tells them apart."""
    bundle = toy_bundle("wide", tmp_path / "toy", context=24, n="error")
    spans = [("lin", 200, 220), ("lin", 60, 80), ("gap", 40, 50)]
    both = arrays(tmp_path, fasta, spans, "-m", bundle, "--embedding")
    alone = arrays(tmp_path, fasta, spans, "-m", bundle, "-s", "EMB")
    text = scored(tmp_path, fasta, spans, "-m", bundle)
    assert [*both][3:] == ["TOY_STATUS", "TOY_PLL", "TOY_MEAN", "TOY_BASES", "TOY_EMB"]
    assert both["TOY_EMB"] == alone["TOY_EMB"]
    assert both["TOY_STATUS"] == ["SCORED", "EMB:AMBIGUOUS", "AMBIGUOUS"]
    assert both["TOY_PLL"][0] == exactly(text[0]["TOY_PLL"])
    assert both["TOY_PLL"][2] is None


def test_a_model_of_tracks_has_embeddings_too(tmp_path: Path, fasta: Path) -> None:
    bundle = write_toy(tmp_path / "toy", SHAPES["edge"], embeds=True)
    found = arrays(tmp_path, fasta, [("lin", 200, 260)], "-m", bundle, "-s", "EMB,TRACKS")
    wanted = EmbeddingOracle(bundle, fasta).embedding("lin", 200, 260)
    np.testing.assert_allclose(found["TRK_EMB"][0], wanted, rtol=2e-5, atol=2e-5)
    text = scored(tmp_path, fasta, [("lin", 200, 260)], "-m", bundle)
    assert found["TRK_dnase_mean"][0] == exactly(text[0]["TRK_dnase_mean"])


# --- rows in, rows out -------------------------------------------------------------------------


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return toy_bundle("wide", tmp_path / "toy", context=12)


def test_no_row_is_lost_whatever_it_says(tmp_path: Path, fasta: Path) -> None:
    scope = {"contigs": [{"name": "lin"}, {"name": "chrM"}]}
    bundle = toy_bundle("wide", tmp_path / "toy", context=12, scope=scope)
    spans = [
        ("no", 0, 9, "a", "0", "+"), ("lin", 320, 331, "b", "0", "-"), ("lin", 9, 9, "c", "0", "."),
        ("gap", 0, 9, "d", "0", "+"), ("lin", 80, 83, "e e", "", "+"), ("lin", 0, 1, "f", "0", "-"),
        ("MT", 60, 61, "g", "x", "?"), ("lin", 330, 330, "h", "0", "+"),
    ]  # fmt: skip
    source, out = write_bed(tmp_path / "in.bed", spans), tmp_path / "out.tsv"
    assert bed(source, "-f", fasta, "-m", bundle, "-o", out) == 0
    lines = [x.split("\t") for x in out.read_text().splitlines()]
    assert lines[0][:6] == ["chrom", "start", "end", "name", "score", "strand"]
    assert [tuple(x[:6]) for x in lines[1:]] == [tuple(map(str, x)) for x in spans]
    assert [x[6] for x in lines[1:]] == [
        "CONTIG_MISSING", "OFF_CONTIG", "EMPTY", "OUT_OF_SCOPE", "AMBIGUOUS", "SCORED", "SCORED",
        "EMPTY",
    ]  # fmt: skip
    assert [x[7:] for x in lines[1:] if x[6] == "AMBIGUOUS"] == [[".", ".", "0"]]
    assert [x[7:] for x in lines[1:] if x[6] == "EMPTY"] == [[".", ".", "."]] * 2
    assert bed(source, "-f", fasta, "-m", bundle, "-o", out, "--force", "--strict") == 3
    assert bed(source, "-f", fasta, "-m", bundle, "-o", out, "--force", "--ignore-scope") == 0
    assert out.read_text().splitlines()[4].split("\t")[6] == "SCORED"


@pytest.mark.parametrize("name", ["in.bed", "in.bed.gz", "-"])
def test_tables_of_every_kind_say_the_same(
    name: str, toy: Path, tmp_path: Path, fasta: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    text = "#a\tb\nbrowser x\n" + "".join(
        f"lin\t{i}\t{i + 5}\tr{i}\t0\t-\tmore\t\xe9{i}\r\n" for i in (200, 7, 240)
    )
    text += "no\t3\t4\tx\t0\t+\t\t\n"
    data = text.encode()
    source: Path | str = "-"
    if name == "-":
        stdin = SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(data)), isatty=lambda: False)
        monkeypatch.setattr("sys.stdin", stdin)
    else:
        source = tmp_path / name
        source.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert bed(source, "-f", fasta, "-m", toy) == 0
    table = [x.split("\t") for x in capfd.readouterr().out.splitlines()]
    assert table[0][:9] == [
        "chrom", "start", "end", "name", "score", "strand", "col7", "col8", "TOY_STATUS",
    ]  # fmt: skip
    assert [x[3] for x in table[1:]] == ["r200", "r7", "r240", "x"]
    assert [x[7] for x in table[1:]] == ["\xe9200", "\xe97", "\xe9240", ""]
    if name == "-":
        return
    assert bed(source, "-f", fasta, "-m", toy, "-o", tmp_path / "out.bed") == 0
    lines = [x.split("\t") for x in (tmp_path / "out.bed").read_text().splitlines()]
    assert lines == [["#chrom", *table[0][1:]], *table[1:]]
    assert bed(source, "-f", fasta, "-m", toy, "-o", tmp_path / "out.parquet") == 0
    found = parquet.read_table(tmp_path / "out.parquet")
    assert found.column_names == table[0]
    types = {x.name: str(x.type) for x in found.schema}
    assert [types[x] for x in ("start", "col8", "TOY_PLL", "TOY_BASES")] == [
        "int64", "string", "double", "int64",
    ]  # fmt: skip
    for row, cells in zip(found.to_pylist(), table[1:], strict=True):
        for key, cell in zip(table[0], cells, strict=True):
            mine = row[key]
            if isinstance(mine, float):
                assert mine == pytest.approx(float(cell), rel=1e-5)
            else:
                assert ("." if mine is None else str(mine)) == cell


def test_blocks_change_nothing(
    toy: Path, tmp_path: Path, fasta: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracks = make("crop")
    options = ("-m", toy, "-m", tracks)
    spans = [*SPANS["few"], ("no", 1, 2), *SPANS["long"]]
    whole = scored(tmp_path, fasta, spans, *options)
    for size in (1, 3):
        monkeypatch.setattr(bed_job, "_BLOCK", size)
        assert scored(tmp_path, fasta, spans, *options) == whole
    for row, span in zip(whole, spans, strict=True):
        assert scored(tmp_path, fasta, [span], *options) == [row]


def test_an_empty_bed_has_a_header(toy: Path, tmp_path: Path, fasta: Path) -> None:
    assert scored(tmp_path, fasta, [], "-m", toy) == []
    assert (tmp_path / "out.tsv").read_text() == (
        "chrom\tstart\tend\tTOY_STATUS\tTOY_PLL\tTOY_MEAN\tTOY_BASES\n"
    )
    assert arrays(tmp_path, fasta, [], "-m", toy, "--embedding")["TOY_EMB"] == []


def test_each_model_gives_what_it_has(toy: Path, tmp_path: Path, fasta: Path, make: Make) -> None:
    causal = toy_bundle("causal", tmp_path / "causal", context=16)
    tracks = make("crop")
    models = ("-m", toy, "-m", f"CAU={causal}", "-m", tracks)
    (row,) = scored(tmp_path, fasta, [("lin", 200, 230)], *models)
    heads = [x for x in row if x.endswith(("_STATUS", "LL"))]
    assert heads == ["TOY_STATUS", "TOY_PLL", "CAU_STATUS", "CAU_LL", "TRK_STATUS"]
    # EMB alone of those that have it; of the others what they have.
    found = arrays(tmp_path, fasta, [("lin", 200, 230)], *models, "-s", "EMB")
    assert [x for x in found if x.startswith(("TOY", "CAU"))] == [
        "TOY_STATUS", "TOY_EMB", "CAU_STATUS", "CAU_EMB",
    ]  # fmt: skip
    assert "TRK_dnase_mean" in found


class Failing:
    """Fails where rows hold something."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, is_bad: Callable[[Any], bool]) -> None:
        run = OrtRunner.run

        def failing(runner: OrtRunner, rows: Any, *rest: Any) -> Any:
            if any(is_bad(row) for row in rows):
                raise PassFailed("made to")
            return run(runner, rows, *rest)

        monkeypatch.setattr(OrtRunner, "run", failing)


@pytest.mark.parametrize("kind", ["wide", "causal", "tracks", "EMB"])
def test_regions_that_fail_spoil_no_others(
    kind: str, tmp_path: Path, fasta: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "tracks":
        bundle = make("small", tag="TOY")
    else:
        bundle = toy_bundle("causal" if kind == "causal" else "wide", tmp_path / "toy", context=16)
    spans = [("lin", 200, 210), ("lin", 70, 79), ("lin", 250, 270)]
    options = ("-m", bundle, "-s", "EMB") if kind == "EMB" else ("-m", bundle)
    good = arrays(tmp_path, fasta, spans, *options)
    # Ids of N: windows near the letters at 80 to 83.
    n = {"wide": 2, "EMB": 2, "causal": 11, "tracks": 4}[kind]
    Failing(monkeypatch, lambda row: bool((row == n).any()))
    found = arrays(tmp_path, fasta, [*spans, ("lin", 75, 79)], *options)
    assert found["TOY_STATUS"][0] == found["TOY_STATUS"][2] == "SCORED"
    assert found["TOY_STATUS"][3] == "FAILED"
    for key, values in good.items():
        assert [values[0], values[2]] == [found[key][0], found[key][2]]


def test_contigs_without_columns_have_no_signal(tmp_path: Path, fasta: Path) -> None:
    zarr = pytest.importorskip("zarr")
    species = [{"name": f"s{i}", "source": "msa", "indel": "edit", "missing": 0} for i in range(2)]
    bundle = toy_bundle("wide", tmp_path / "toy", context=14, channels=species)
    text = fasta.read_text().splitlines()[1]
    rng = np.random.default_rng(3)
    columns = [base.upper() + "".join(rng.choice(list("ACGT-"), 2)) for base in text]
    root = zarr.open_group(str(tmp_path / "m.zarr"), mode="w", zarr_format=2)
    letters = np.frombuffer("".join(columns).encode(), dtype="S1").reshape(len(text), 3)
    root.create_array("lin", shape=letters.shape, chunks=(16, 3), dtype="S1")[:] = letters
    spans = [("lin", 100, 112), ("gap", 0, 9), ("lin", 150, 190)]
    found = arrays(
        tmp_path, fasta, spans, "-m", bundle, "--embedding", "--msa", tmp_path / "m.zarr"
    )
    assert found["TOY_STATUS"] == ["SCORED", "NO_SIGNAL", "SCORED"]
    alignment = {"lin": columns}
    masked = MaskedOracle(bundle, fasta, alignment=alignment)
    logs = [masked.log_chance("lin", i) for i in range(100, 112)]
    assert found["TOY_PLL"][0] == pytest.approx(math.fsum(logs), rel=2e-5)
    oracle = EmbeddingOracle(bundle, fasta, alignment=alignment)
    for i in (0, 2):
        wanted = oracle.embedding(*spans[i])
        np.testing.assert_allclose(found["TOY_EMB"][i], wanted, rtol=2e-5, atol=2e-5)


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-s", "LLR"], "-s LLR: not something that bed gives; known: PLL, LL, TRACKS, EMB"),
        (["-s", "TRACKS"], "-s TRACKS: no model .*TOY gives PLL, EMB"),
        (["-s", "EMB"], "need a Parquet file: -o OUT.parquet"),
        (["--embedding", "-o", "x.bed"], "need a Parquet file"),
        (["-o", "x.bed.gz"], r"x\.bed\.gz: not a name that ends in \.tsv"),
        (["--mode", "dense"], "--mode dense: .*toy-wide"),
    ],
)
def test_options_that_make_no_sense(
    arguments: list[str], message: str, toy: Path, tmp_path: Path, fasta: Path
) -> None:
    source = write_bed(tmp_path / "in.bed", [("lin", 0, 9)])
    with pytest.raises(UsageError, match=message):
        bed(source, "-f", fasta, "-m", toy, *arguments)


def test_models_that_have_nothing_of_regions(tmp_path: Path, fasta: Path) -> None:
    pytest.importorskip("tokenizers")
    source = write_bed(tmp_path / "in.bed", [("lin", 0, 9)])
    bundle = toy_bundle("bpe", tmp_path / "bpe", context=40)
    with pytest.raises(UsageError, match=r"toy-bpe gives neither .* --embedding -o OUT\.parquet"):
        bed(source, "-f", fasta, "-m", bundle)
    free = toy_bundle("free", tmp_path / "free")
    with pytest.raises(UsageError, match=r"-s EMB: no model .* TOY gives PLL"):
        bed(source, "-f", fasta, "-m", free, "--embedding", "-o", tmp_path / "x.parquet")


def test_models_in_the_frame_of_genes_are_refused(tmp_path: Path, fasta: Path, make: Make) -> None:
    source = write_bed(tmp_path / "in.bed", [("lin", 0, 9)])
    with pytest.raises(UsageError, match=r"-m G=.*: toy tracks reads alleles in their genes"):
        bed(source, "-f", fasta, "-m", f"G={make('crop', strand='gene')}")


def test_files_that_are_wrong(toy: Path, tmp_path: Path, fasta: Path) -> None:
    ragged = write_bed(tmp_path / "ragged.bed", [("lin", 0, 9, "a"), ("lin", 0, 9)])
    out = tmp_path / "out.tsv"
    with pytest.raises(InputError, match=r"ragged\.bed: line 2 has 3 columns, .* first row has 4"):
        bed(ragged, "-f", fasta, "-m", toy, "-o", out)
    assert not out.exists()
    assert not [x for x in tmp_path.iterdir() if x.name.endswith(".tmp")]
    with pytest.raises(InputError, match=r"none\.bed: no such BED file"):
        bed(tmp_path / "none.bed", "-f", fasta, "-m", toy)
    out.write_text("mine")
    good = write_bed(tmp_path / "in.bed", [("lin", 0, 9)])
    with pytest.raises(InputError, match=r"out\.tsv: is there already"):
        bed(good, "-f", fasta, "-m", toy, "-o", out)
    assert out.read_text() == "mine"
    with pytest.raises(InputError, match=r"in\.bed: is the input itself"):
        bed(good, "-f", fasta, "-m", toy, "-o", good, "--force")


def test_options_of_tracks_without_tracks(
    toy: Path, tmp_path: Path, fasta: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scored(tmp_path, fasta, [("lin", 0, 9)], "-m", toy, "--top", "3", "--edge", "1")
    messages = [x.getMessage() for x in caplog.records if x.levelname == "WARNING"]
    assert messages == [
        "--edge 1: no model of this run gives tracks", "--top 3: no model of this run gives tracks",
    ]  # fmt: skip
