"""Run one command, and print its wall seconds, CPU seconds and peak memory as JSON.

This small process stands between the benchmark and what it measures, because the kernel counts the
memory of whoever starts a program towards that program's peak.

Usage: bench_launch.py any|CPU COMMAND [ARGUMENT...]
"""

from __future__ import annotations

import json
import os
import sys
import time


def main(cpu: str, command: list[str]) -> int:
    """Run `command`, pinned to one CPU unless `cpu` is "any"; returns its exit code."""
    if cpu != "any":
        os.sched_setaffinity(0, {int(cpu)})
    silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    began = time.perf_counter()
    child = os.posix_spawn(command[0], command, os.environ, file_actions=silent)
    _, status, used = os.wait4(child, 0)
    wall = time.perf_counter() - began
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, else KiB
    taken = {
        "wall": wall,
        "cpu": used.ru_utime + used.ru_stime,
        "peak": used.ru_maxrss * unit,
    }
    print(json.dumps(taken))
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
