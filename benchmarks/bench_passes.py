"""A whole run of `vcf` beside a bare loop of `session.run` over exactly the same passes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bench_data as data
import bench_timing as timing
import numpy as np
from bench_timing import Row
from numpy.typing import NDArray

from glm_annotate.answers import OutputRole, Outputs
from glm_annotate.assembly import look_ahead
from glm_annotate.card import ModelCard
from glm_annotate.encoding import Rows
from glm_annotate.errors import UsageError
from glm_annotate.genome import Genome
from glm_annotate.job import Job, run_job
from glm_annotate.opening import open_models
from glm_annotate.records import open_input
from glm_annotate.runtime import OrtRunner, Settings

BATCHES = (1, 8, 32, 128)
_SCANS = 3  # rounds that choose the two kinds of bare loop to run in full


_OPTIONS = {False: "the engine's options", True: "default options"}


@dataclass(frozen=True, slots=True)
class _Loop:
    """A kind of bare loop: its batch size, and whether waiting threads spin (the default)."""

    batch: int
    spinning: bool


@dataclass(slots=True)
class Recorder:
    """A runner that keeps the rows of every batch, in order."""

    runner: OrtRunner
    kept: list[Rows] = field(default_factory=list)

    def batch_size(self, rows: int) -> int:
        """See `plan.Runner`."""
        return self.runner.batch_size(rows)

    def limit(self, rows: int, batch: int) -> None:
        """See `plan.Runner`."""
        self.runner.limit(rows, batch)

    def run(self, rows: Rows, outputs: frozenset[OutputRole]) -> Outputs:
        """Run a batch, and keep its rows."""
        done = self.runner.run(rows, outputs)
        self.kept.append(rows.copy())
        return done


@dataclass(frozen=True, slots=True)
class Passes:
    """What a run asks of its model.

    Attributes:
        rows: Distinct passes in the order run, shape (n, T) in the type of the graph's input; one
            array for each T.
        input: Name of the graph's input; `outputs`: of those that the scores read.
        graphs: The ONNX files: one, or the replicates that a pass runs all of.
    """

    rows: list[NDArray[Any]]
    input: str
    outputs: list[str]
    graphs: tuple[Path, ...]

    @property
    def count(self) -> int:
        """Number of passes."""
        return sum(len(x) for x in self.rows)

    def first(self, count: int) -> Passes:
        """Keep at most `count` passes of every number of rows."""
        return Passes([x[:count] for x in self.rows], self.input, self.outputs, self.graphs)


def collect(job: Job) -> Passes:
    """Plan a run with the engine, and keep the distinct passes that it makes."""
    genome = Genome(job.fasta)
    (model,) = open_models(job, genome)
    card = model.bundle.card
    _check(card)
    recorder = Recorder(model.runners[0])
    with open_input(job.source) as source:
        annotator, works = look_ahead(genome, [model], source, contig_map=job.contig_map)
        for work in works:
            for task in annotator.prepare(work).tasks:
                task.plan.execute(recorder)
    widths = dict.fromkeys(x.shape[1] for x in recorder.kept)
    dtype = card.inputs["rows"].dtype
    rows = [
        np.concatenate([x for x in recorder.kept if x.shape[1] == width]).astype(dtype)
        for width in widths
    ]
    outputs = [card.outputs[role].name for role in sorted(model.outputs)]
    return Passes(rows, card.inputs["rows"].name, outputs, tuple(model.bundle.graphs))


def _check(card: ModelCard) -> None:
    if set(card.inputs) != {"rows"} or card.window.multiple_of != 1:
        raise UsageError(
            f"--model {card.name}: the bare loop feeds models whose one input is rows of any "
            "number; name another"
        )


def open_sessions(graphs: Sequence[Path], threads: int, *, spinning: bool) -> list[Any]:
    """Open sessions as the engine does, or (`spinning`) with ONNX Runtime's defaults."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = ["CPUExecutionProvider"]
    return [onnxruntime.InferenceSession(str(x), options, providers=providers) for x in graphs]


def bare_loop(sessions: Sequence[Any], passes: Passes, batch: int) -> Callable[[], None]:
    """Make the loop: every pass once through every replicate, nothing read of the answers."""

    def run() -> None:
        for rows in passes.rows:
            for start in range(0, len(rows), batch):
                feeds = {passes.input: rows[start : start + batch]}
                for session in sessions:
                    session.run(passes.outputs, feeds)

    return run


def _scan(sessions: dict[bool, list[Any]], passes: Passes) -> dict[_Loop, float]:
    """Time every batch size and both kinds of session options; returns median seconds."""
    loops = [_Loop(batch, spinning) for spinning in sessions for batch in BATCHES]
    taken = timing.interleave(
        _SCANS,
        {
            str(x): timing.in_process(bare_loop(sessions[x.spinning], passes, x.batch))
            for x in loops
        },
    )
    return {x: timing.wall(taken[str(x)]) for x in loops}


def measure(folder: Path, example: Path, model: str, options: timing.Options) -> list[Row]:
    """Compare `vcf` with the bare loop at its best batch size and session options."""
    contig, bases = data.read_fasta(example)
    sites = data.mixed(bases, options.sizes.alleles)
    source = data.write_vcf(folder / "mixed.vcf", contig, len(bases), sites)
    out, threads = folder / "mixed.out.vcf", options.threads
    job = Job(
        source=str(source), fasta=str(example), models=(model,), output=str(out), force=True,
        runtime=Settings(threads=threads), threads=threads,
    )  # fmt: skip
    passes = collect(job)
    sessions = {x: open_sessions(passes.graphs, threads, spinning=x) for x in (False, True)}
    scan = _scan(sessions, passes.first(options.sizes.scan))
    finalists = sorted(scan, key=lambda key: scan[key])[:2]
    cli = [sys.executable, "-m", "glm_annotate", "-q", "vcf", source, "-f", example, "-m", model]
    cli += ["-o", out, "--force", "--device", "cpu", "--threads", str(threads)]
    subjects = {
        "vcf": timing.in_process(lambda: run_job(job)),
        **{
            str(key): timing.in_process(bare_loop(sessions[key.spinning], passes, key.batch))
            for key in finalists
        },
        "command": timing.command(*cli),
    }
    taken = timing.interleave(options.pairs, subjects)
    return _report(passes, options, scan, taken)


def _report(
    passes: Passes,
    options: timing.Options,
    scan: dict[_Loop, float],
    taken: dict[str, list[timing.Taken]],
) -> list[Row]:
    best = min((x for x in scan if str(x) in taken), key=lambda x: timing.wall(taken[str(x)]))
    vcf, whole, bare = taken["vcf"], taken["command"], taken[str(best)]
    over = timing.ratio(vcf, bare)
    same, other = (
        min(seconds for loop, seconds in scan.items() if loop.spinning == spinning)
        for spinning in (best.spinning, not best.spinning)
    )
    return [
        Row("vcf", "forward passes an allele", f"{passes.count / options.sizes.alleles:.2f}",
            f"{passes.count} passes, {options.sizes.alleles} alleles"),
        Row("vcf", "vcf in this process / bare loop", f"{over:.3f}",
            f"{timing.wall(vcf):.2f} s / {timing.wall(bare):.2f} s",
            timing.goal(over, "<=", 1.10, "1.10")),
        Row("vcf", "the same in CPU time", f"{timing.ratio(vcf, bare, lambda x: x.cpu):.3f}",
            f"{timing.cpu(vcf):.2f} s / {timing.cpu(bare):.2f} s"),
        Row("vcf", "vcf as a command / bare loop", f"{timing.ratio(whole, bare):.3f}",
            f"{timing.wall(whole):.2f} s / {timing.wall(bare):.2f} s"),
        Row("vcf", f"bare loop, {_OPTIONS[not best.spinning]} / {_OPTIONS[best.spinning]}",
            f"{other / same:.3f}", f"best: batch {best.batch}, {_OPTIONS[best.spinning]}"),
    ]  # fmt: skip
