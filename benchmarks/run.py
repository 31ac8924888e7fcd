"""Speed and memory of glm_annotate, as one table: `make bench`.

Every figure is a ratio or a rate of runs that alternate within this one program (see README.md).
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import bench_parts
import bench_passes
import bench_tracks
import numpy
import onnxruntime
import pysam
from bench_timing import QUICK, Options, Row, Sizes

from glm_annotate import __version__
from glm_annotate.errors import GlmAnnotateError

EXAMPLE = Path(__file__).resolve().parent.parent / "example_data" / "chrM.fa"

Part = Callable[[Path, str, Options], list[Row]]
PARTS: dict[str, Part] = {
    "vcf": lambda folder, model, options: bench_passes.measure(folder, EXAMPLE, model, options),
    "throughput": lambda folder, model, options: bench_parts.throughput(folder, options),
    "memory": lambda folder, model, options: bench_parts.memory(folder, options),
    "bcftools": lambda folder, model, options: bench_parts.passthrough(folder, options),
    "encoding": lambda folder, model, options: bench_parts.encoding(options),
    "tracks": lambda folder, model, options: bench_tracks.measure(folder, options),
    "startup": lambda folder, model, options: bench_parts.startup(options),
}


def main(arguments: Sequence[str]) -> int:
    """Run the parts asked for; returns 1 if one of them could not be measured."""
    given = _parser().parse_args(arguments)
    sizes = QUICK if given.quick else Sizes()
    options = Options(given.pairs or (2 if given.quick else 5), given.threads, sizes)
    print(machine(given.threads))
    print(f"{options.pairs} interleaved pairs; figures are medians")
    failed = False
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        for part in given.only or PARTS:
            print(f"measuring: {part}", file=sys.stderr, flush=True)
            try:
                rows += PARTS[part](Path(name), given.model, options)
            except (GlmAnnotateError, RuntimeError) as error:
                failed = True
                rows.append(Row(part, "could not be measured", "-", str(error)))
    print(table(rows))
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", action="append", choices=PARTS, help="a part; repeat for more")
    parser.add_argument("--model", default="mito", help="of the part vcf (default: mito)")
    parser.add_argument("--pairs", type=int, help="interleaved pairs (default: 5; quick: 2)")
    parser.add_argument("--threads", type=int, default=cores(), help="default: all cores")
    parser.add_argument("--quick", action="store_true", help="small inputs: a trial, not a result")
    return parser


def cores() -> int:
    """Count the CPUs that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def machine(threads: int) -> str:
    """Describe the machine and what runs on it, in one line."""
    found = {"numpy": numpy, "pysam": pysam, "onnxruntime": onnxruntime}
    versions = ", ".join(f"{name} {module.__version__}" for name, module in found.items())
    load = f", load {os.getloadavg()[0]:.1f} before" if hasattr(os, "getloadavg") else ""
    return (
        f"{cores()} cores ({threads} threads used), {_cpu_model()}, {platform.system()}{load}; "
        f"glm_annotate {__version__}, Python {platform.python_version()}, {versions}"
    )


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def table(rows: Sequence[Row]) -> str:
    """Lay rows out in columns."""
    lines = [("part", "what", "figure", "made of", "goal")]
    lines += [(row.part, row.what, row.figure, row.beside, row.goal) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    cells = [[x.ljust(width) for x, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in cells)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
