"""The benchmarks count, feed and pair what they say; how fast anything is, is not tested."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyBigWig
import pytest

from glm_annotate.job import Job, run_job
from glm_annotate.testing import toy_bundle

MODULES = (
    *("bench_timing", "bench_data", "bench_io", "bench_passes", "bench_parts", "bench_tracks"),
    "run",
)


@pytest.fixture(scope="module")
def bench(repo_dir) -> Iterator[SimpleNamespace]:
    """The modules of benchmarks/, which is no package."""
    folder = str(repo_dir / "benchmarks")
    sys.path.insert(0, folder)
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    finally:
        sys.path.remove(folder)
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def free(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "free"
    return toy_bundle("free", folder, context=16, anchor=8, strand="forward", tag="FREE")


@pytest.fixture
def tiny(bench: Any, monkeypatch) -> Any:
    sizes = bench.bench_timing.Sizes(
        alleles=12, scan=4, snvs=50, few=20, many=60, windows=30, values=999
    )
    monkeypatch.setattr(bench.run, "QUICK", sizes)
    return sizes


# --- timing --------------------------------------------------------------------------------------


def test_runs_alternate_and_ratios_are_those_of_pairs(bench):
    timing, order = bench.bench_timing, []
    walls = {"a": iter([2.0, 30.0, 4.0]), "b": iter([1.0, 10.0, 4.0])}

    def subject(name: str) -> Any:
        def run() -> Any:
            order.append(name)
            return timing.Taken(next(walls[name]), cpu=7.0)

        return run

    taken = timing.interleave(3, {"a": subject("a"), "b": subject("b")})
    assert order == ["a", "b"] * 3
    assert timing.wall(taken["a"]) == 4.0
    assert timing.cpu(taken["b"]) == 7.0
    # 2, 3 and 1; the ratio of the medians would be 1.
    assert timing.ratio(taken["a"], taken["b"]) == 2.0


@pytest.mark.parametrize(
    ("value", "sign", "verdict"),
    [(1.1, "<=", "met"), (1.2, "<=", "MISSED"), (1.1, ">=", "met"), (1.0, ">=", "MISSED")],
)
def test_goals(bench, value, sign, verdict):
    assert bench.bench_timing.goal(value, sign, 1.1, "1.10") == f"{sign} 1.10: {verdict}"


def test_the_peak_of_a_command_is_its_own(bench):
    """Neither is the memory of the benchmark counted, nor is that of the command missed."""
    held = bytearray(b"x") * (300 << 20)
    small = bench.bench_timing.command(sys.executable, "-c", "pass")()
    large = bench.bench_timing.command(
        sys.executable, "-c", "held = bytearray(b'x') * (200 << 20)"
    )()
    assert len(held) > 200 << 20 > small.peak > 1 << 20
    assert 200 << 20 < large.peak < 300 << 20
    assert small.wall > 0 < small.cpu


def test_a_command_is_pinned(bench, tmp_path):
    cpu = bench.bench_timing.last_cpu()
    if cpu is None:
        pytest.skip("this system cannot pin processes")
    script = (
        f"import os; open({str(tmp_path / 'found')!r}, 'w').write(str(os.sched_getaffinity(0)))"
    )
    before = os.sched_getaffinity(0)
    bench.bench_timing.command(sys.executable, "-c", script, cpu=cpu)()
    assert (tmp_path / "found").read_text() == f"{{{cpu}}}"
    assert os.sched_getaffinity(0) == before


def test_a_command_that_fails_is_an_error(bench):
    run = bench.bench_timing.command(sys.executable, "-c", "raise SystemExit('no such luck')")
    with pytest.raises(RuntimeError, match="no such luck"):
        run()


# --- inputs --------------------------------------------------------------------------------------


def test_mixed_variants_are_as_many_as_asked_and_fit_the_reference(
    bench, bcftools, example_dir, tmp_path
):
    data = bench.bench_data
    fasta = example_dir / "chrM.fa"
    contig, bases = data.read_fasta(fasta)
    assert (contig, len(bases), bases[:10]) == ("chrM", 16569, "GATCACAGGT")
    sites = data.mixed(bases, 200)
    source = data.write_vcf(tmp_path / "x.vcf", contig, len(bases), sites)
    # -c e: bcftools ends with an error at a REF that is not the FASTA's.
    done = subprocess.run(
        [bcftools, "norm", "-c", "e", "-f", fasta, "-m", "-any", source],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [x.split("\t") for x in done.stdout.splitlines() if not x.startswith("#")]
    assert len(rows) == 200
    shapes = {(len(ref) == 1, len(alt) == 1) for _, _, _, ref, alt, *_ in rows}
    assert shapes == {(True, True), (True, False), (False, True)}
    assert any("," in alt for _, _, alt in sites)
    assert sites == data.mixed(bases, 200) != data.mixed(bases, 200, seed=4)


def test_snvs_are_distinct_and_in_order(bench, tmp_path):
    data = bench.bench_data
    bases = data.write_genome(tmp_path / "g.fa", "c", 2000)
    assert data.read_fasta(tmp_path / "g.fa") == ("c", bases)
    sites = list(data.snvs(bases, 300))
    places = [pos for pos, _, _ in sites]
    assert places == sorted(set(places))
    assert len(places) == 300
    assert 600 < places[0] < places[-1] <= 1400
    assert all(bases[pos - 1] == ref != alt and alt in "ACGT" for pos, ref, alt in sites)


# --- the bare loop -------------------------------------------------------------------------------


def test_the_collected_passes_are_the_distinct_masked_windows(bench, free, tmp_path):
    data = bench.bench_data
    bases = data.write_genome(tmp_path / "g.fa", "c", 100)
    others = {ref: [x for x in "ACGT" if x != ref] for ref in "ACGT"}
    places = [40, 30, 30, 60]  # 0-based; a site twice, and one with two ALTs
    sites = [(p + 1, bases[p], others[bases[p]][0]) for p in places]
    sites[0] = (*sites[0][:2], ",".join(others[bases[40]][:2]))
    source = data.write_vcf(tmp_path / "x.vcf", "c", 100, sites)
    passes = bench.bench_passes.collect(
        Job(source=str(source), fasta=str(tmp_path / "g.fa"), models=(str(free),))
    )

    expected = [["ACGT".index(x) for x in bases[p - 8 : p + 8]] for p in (40, 30, 60)]
    for row in expected:
        row[8] = 5  # the mask of this model
    (rows,) = passes.rows
    assert rows.tolist() == expected
    assert (passes.count, passes.first(2).count) == (3, 2)
    assert (rows.dtype, passes.input, passes.outputs) == (np.uint8, "rows", ["logits"])


def test_a_run_makes_as_many_passes_as_the_bare_loop(bench, example_dir, tmp_path):
    data = bench.bench_data
    fasta = example_dir / "chrM.fa"
    contig, bases = data.read_fasta(fasta)
    source = data.write_vcf(tmp_path / "x.vcf", contig, len(bases), data.mixed(bases, 60))
    model = toy_bundle("markov", tmp_path / "markov", context=32, anchor=16, tag="TOY")
    job = Job(
        source=str(source), fasta=str(fasta), models=(str(model),), output=str(tmp_path / "out.vcf")
    )
    count = bench.bench_passes.collect(job).count
    assert count == run_job(job).models["TOY"]["forward_passes"]
    assert count > 2 * len({pos for pos, _, _ in data.mixed(bases, 60)})


@pytest.mark.parametrize("batch", [1, 3, 128])
def test_the_bare_loop_feeds_every_pass_once(bench, batch):
    seen: list[Any] = []

    class Session:
        def run(self, names: list[str], feeds: dict[str, Any]) -> None:
            assert names == ["logits"]
            seen.append(feeds["rows"])

    rows = [np.arange(14).reshape(7, 2), np.arange(9).reshape(3, 3)]
    passes = bench.bench_passes.Passes(rows, "rows", ["logits"], (Path("model.onnx"),))
    bench.bench_passes.bare_loop([Session()], passes, batch)()
    assert max(map(len, seen)) == min(batch, 7)
    assert [x for part in seen for x in part.tolist()] == [
        x for part in rows for x in part.tolist()
    ]


def test_a_pass_of_replicates_runs_all_of_them(bench, example_dir, tmp_path):
    data, made = bench.bench_data, {}
    fasta = example_dir / "chrM.fa"
    contig, bases = data.read_fasta(fasta)
    source = data.write_vcf(tmp_path / "x.vcf", contig, len(bases), data.mixed(bases, 8))
    for count in (1, 3):
        model = toy_bundle("markov", tmp_path / str(count), context=16, replicates=count, tag="TOY")
        job = Job(source=str(source), fasta=str(fasta), models=(str(model),))
        made[count] = bench.bench_passes.collect(job)
    assert made[1].count == made[3].count
    assert [len(made[count].graphs) for count in (1, 3)] == [1, 3]
    sessions = bench.bench_passes.open_sessions(made[3].graphs, 1, spinning=False)
    ran = []
    for number, session in enumerate(sessions):
        session.run = lambda names, feeds, number=number: ran.append((number, len(feeds["rows"])))
    bench.bench_passes.bare_loop(sessions, made[3], 4)()
    assert {n: sum(x for m, x in ran if m == n) for n in range(3)} == dict.fromkeys(
        range(3), made[3].count
    )


def test_models_that_the_bare_loop_cannot_feed_are_refused(bench, example_dir, tmp_path, capsys):
    model = toy_bundle("markov", tmp_path / "m", context=30, anchor=15, multiple_of=8, tag="TOY")
    assert bench.run.main(["--quick", "--only", "vcf", "--model", str(model)]) == 1
    assert "name another" in capsys.readouterr().out


# --- the parts -----------------------------------------------------------------------------------


def test_reading_and_writing_alone_adds_constant_text(bench, tmp_path):
    data = bench.bench_data
    source = data.write_vcf(tmp_path / "x.vcf", "c", 99, [(5, "A", "C,G"), (9, "AC", "A")])
    assert bench.bench_io.main(str(source), str(tmp_path / "out.vcf")) == 2
    added = bench.bench_io.ADDITION.decode()
    expected = source.read_text().replace("AC=1,1\n", f"AC=1,1;{added}\n")
    expected = expected.replace("AC=1\n", f"AC=1;{added}\n")
    assert (tmp_path / "out.vcf").read_text() == expected


def test_heavy_modules_are_found(bench, monkeypatch):
    assert bench.bench_parts.heavy_modules() == []
    monkeypatch.setattr(bench.bench_parts, "HEAVY", ("click", "torch"))
    assert bench.bench_parts.heavy_modules() == ["click"]


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_the_bare_library_writes_what_we_write(bench, tmp_path, layout, monkeypatch):
    """Parts of other sizes would bring other random numbers, so both get the same."""
    tracks, held = bench.bench_tracks, []
    monkeypatch.setattr(tracks, "_ARRAY", tracks._CALL)
    for write, path in ((tracks.ours, tmp_path / "a.bw"), (tracks.bare, tmp_path / "b.bw")):
        write(layout, str(path), 9_999)
        with pyBigWig.open(str(path)) as file:
            held.append(file.intervals("chr1"))
    assert held[0] == held[1]
    assert len(held[0]) == 9_999
    # Every base, or one of every ten.
    every = {"dense": 1, "sparse": 10}[layout]
    assert [x[0] // every for x in held[0]] == list(range(9_999))


@pytest.mark.usefixtures("tiny")
def test_the_table_has_every_part_asked_for(bench, free, capsys):
    asked = ["--quick", "--pairs", "1", "--threads", "1", "--model", str(free)]
    parts = ["vcf", "throughput", "memory", "bcftools", "encoding", "tracks"]
    assert bench.run.main([*asked, *(x for part in parts for x in ("--only", part))]) == 0
    machine, pairs, head, *rows = capsys.readouterr().out.splitlines()
    assert "(1 threads used)" in machine
    assert "onnxruntime" in machine
    assert pairs.startswith("1 interleaved")
    assert head.split() == ["part", "what", "figure", "made", "of", "goal"]
    assert list(dict.fromkeys(row.split()[0] for row in rows)) == parts
    assert sum(row.startswith("encoding") for row in rows) == 5
    assert "could not be measured" not in "".join(rows)


@pytest.mark.usefixtures("tiny")
def test_a_part_that_fails_does_not_stop_the_others(bench, tmp_path, capsys):
    asked = ["--quick", "--model", str(tmp_path / "none"), "--only", "vcf", "--only", "encoding"]
    assert bench.run.main(asked) == 1
    out = capsys.readouterr().out
    assert "no such bundle" in out
    assert "kmer 6/6" in out
