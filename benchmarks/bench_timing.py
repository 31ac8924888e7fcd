"""Interleaved runs and their medians: the only way in which anything here is timed."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LAUNCHER = Path(__file__).with_name("bench_launch.py")


@dataclass(frozen=True, slots=True)
class Taken:
    """What one run took.

    Attributes:
        wall: Seconds on the clock.
        cpu: Seconds of all its threads, which busy neighbours disturb less.
        peak: Largest resident memory in bytes; 0 for work inside this process.
    """

    wall: float
    cpu: float
    peak: int = 0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured.

    Attributes:
        alleles: Of the runs with a real model; `scan`: passes that find the bare loop's best batch.
        snvs: Of the runs with the free model.
        few: Records of the short input whose peak memory is read; `many`: of the long one.
        windows: Encoded at a time.
        values: Written into a track.
    """

    alleles: int = 400
    scan: int = 128
    snvs: int = 200_000
    few: int = 10_000
    many: int = 1_000_000
    windows: int = 10_000
    values: int = 5_000_000


QUICK = Sizes(alleles=60, snvs=50_000, many=100_000, values=200_000)


@dataclass(frozen=True, slots=True)
class Options:
    """How often, how much, and on how many threads where a part is not pinned to one core."""

    pairs: int = 5
    threads: int = 1
    sizes: Sizes = field(default_factory=Sizes)


Subject = Callable[[], Taken]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        part: Which benchmark.
        what: What the figure is.
        figure: As printed, with its unit.
        beside: The medians that it was made of.
        goal: What is aimed at, and whether it was met; empty where there is no goal.
    """

    part: str
    what: str
    figure: str
    beside: str = ""
    goal: str = ""


def in_process(work: Callable[[], object]) -> Subject:
    """Make a subject of a function."""

    def run() -> Taken:
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        return Taken(time.perf_counter() - wall, time.process_time() - cpu)

    return run


def command(*arguments: object, cpu: int | None = None) -> Subject:
    """Make a subject of a command, from its start to its end.

    Args:
        *arguments: The program by its full path, and its arguments.
        cpu: The one CPU that it may use; None for any.
    """

    def run() -> Taken:
        pin = "any" if cpu is None else str(cpu)
        line = [sys.executable, str(LAUNCHER), pin, *map(str, arguments)]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(line[3:])} failed: {done.stderr.strip()}")
        return Taken(**json.loads(done.stdout))

    return run


def interleave(pairs: int, subjects: Mapping[str, Subject]) -> dict[str, list[Taken]]:
    """Run all subjects in turn, `pairs` times over: A B A B ..."""
    out: dict[str, list[Taken]] = {name: [] for name in subjects}
    for _ in range(pairs):
        for name, run in subjects.items():
            out[name].append(run())
    return out


def wall(taken: Sequence[Taken]) -> float:
    """Give the median seconds on the clock."""
    return statistics.median(x.wall for x in taken)


def cpu(taken: Sequence[Taken]) -> float:
    """Give the median CPU seconds."""
    return statistics.median(x.cpu for x in taken)


def ratio(
    over: Sequence[Taken], under: Sequence[Taken], of: Callable[[Taken], float] = lambda x: x.wall
) -> float:
    """Give the median of the ratios of pairs: what both of a pair suffered cancels out."""
    return statistics.median(of(a) / of(b) for a, b in zip(over, under, strict=True))


def last_cpu() -> int | None:
    """Choose the CPU that pinned runs use; None where the system cannot pin."""
    return max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def goal(value: float, sign: str, limit: float, text: str) -> str:
    """Say whether a goal was met; `sign` is "<=" or ">="."""
    met = value <= limit if sign == "<=" else value >= limit
    return f"{sign} {text}: {'met' if met else 'MISSED'}"
