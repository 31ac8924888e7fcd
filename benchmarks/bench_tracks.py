"""Files of tracks: values written by us, beside the bare library fed with whole arrays.

Usage: bench_tracks.py ours|bare dense|sparse OUT COUNT
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import bench_timing as timing
import numpy as np
from bench_timing import Row
from numpy.typing import NDArray

from glm_annotate.track_files import open_track

_CALL = 4096  # values in a call of ours: the bins of a few windows
_ARRAY = 1 << 16  # values in a call of the bare library
_EVERY = 10  # of so many bases has one a value, where values are sparse
_CONTIG = "chr1"


def measure(folder: Path, options: timing.Options) -> list[Row]:
    """Seconds and peak memory of a bigWig of values, dense and sparse, and of a bedGraph."""
    count = options.sizes.values
    rows = []
    for layout in ("dense", "sparse"):
        runs = {
            "bigWig": _command("ours", layout, folder / "ours.bw", count),
            "bare": _command("bare", layout, folder / "bare.bw", count),
            "bedGraph": _command("ours", layout, folder / "ours.bedgraph", count),
            "start": _command("ours", layout, folder / "start.bw", 0),
        }
        taken = timing.interleave(options.pairs, runs)
        ours, bare, graph, start = (taken[x] for x in runs)
        peaks = [max(x.peak for x in taken[name]) / 1e6 for name in runs]
        rows += [
            Row("tracks", f"bigWig, {layout}: ours / bare pyBigWig",
                f"{timing.ratio(ours, bare):.2f}",
                f"{timing.wall(ours):.1f} s / {timing.wall(bare):.1f} s, {count:,} values"),
            Row("tracks", f"bigWig, {layout}: peak memory", f"{peaks[0]:.0f} MB",
                f"bare {peaks[1]:.0f} MB, no values {peaks[3]:.0f} MB "
                f"({timing.wall(start):.1f} s)"),
            Row("tracks", f"bedGraph, {layout}", f"{timing.wall(graph):.1f} s",
                f"{peaks[2]:.0f} MB"),
        ]  # fmt: skip
    return rows


def _command(writer: str, layout: str, out: Path, count: int) -> timing.Subject:
    return timing.command(
        sys.executable, Path(__file__), writer, layout, out, count, cpu=timing.last_cpu()
    )


def parts(
    layout: str, count: int, size: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Yield `count` random values and their places, `size` at a time."""
    rng = np.random.default_rng(7)
    for done in range(0, count, size):
        places = np.arange(done, min(done + size, count))
        if layout == "sparse":
            places = places * _EVERY + rng.integers(0, _EVERY, size=places.size)
        yield places, rng.normal(size=places.size)


def ours(layout: str, out: str, count: int) -> None:
    """Write a track as the package does: bases without a value are NaN."""
    every = _EVERY if layout == "sparse" else 1
    with open_track(out, {_CONTIG: max(1, count * every)}, force=True) as track:
        for places, values in parts(layout, count, _CALL):
            start = int(places[0]) // every * every
            bases = np.full(places.size * every, np.nan)
            bases[places - start] = values
            track.add(_CONTIG, start, bases)


def bare(layout: str, out: str, count: int) -> None:
    """Write the same with the library alone, in the best of its ways for each layout."""
    import pyBigWig

    file = pyBigWig.open(out, "w")
    file.addHeader([(_CONTIG, max(1, count * _EVERY))])
    for places, values in parts(layout, count, _ARRAY):
        if layout == "dense":
            file.addEntries(_CONTIG, int(places[0]), values=values, span=1, step=1)
        else:
            file.addEntries(_CONTIG, places, values=values, span=1)
    file.close()


if __name__ == "__main__":
    {"ours": ours, "bare": bare}[sys.argv[1]](sys.argv[2], sys.argv[3], int(sys.argv[4]))
