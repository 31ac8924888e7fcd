"""Toy models of tracks: predictions that depend on every base, its place and N, and on the strand.

A window's signal is a short convolution under a wave along the window; bins are sums of it, crops
are cut off, and a softplus ends the graph. Nothing is alike on both strands, so that whatever is
flipped, swapped or moved the wrong way is seen.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from engine import Engine
from torch import Tensor, nn
from torch.nn import functional

from glm_annotate.annotate import Annotator
from glm_annotate.bundle import GRAPH, write_bundle
from glm_annotate.opening import open_tracks
from glm_annotate.train import graph
from glm_annotate.train.families.predictor import Predictor

Row = Mapping[str, str]
# Pairs, one of them named from its minus strand on; a track alone; every transform.
ROWS: tuple[Row, ...] = (
    {"identifier": "cage+", "strand_pair": "cage-", "transform": "new:sum_sqrt", "clip_soft": "3"},
    {"identifier": "dnase", "transform": "none"},
    {"identifier": "cage-", "strand_pair": "cage+", "transform": "new:sum_sqrt", "clip_soft": "3"},
    {"identifier": "rna-", "strand_pair": "rna+", "transform": "old:sum_sqrt", "clip_soft": "2.5",
     "scale": "0.3"},
    {"identifier": "rna+", "strand_pair": "rna-", "transform": "old:sum_sqrt", "clip_soft": "2.5",
     "scale": "0.3"},
    {"identifier": "chip-1.2", "transform": "new:sum_exp75", "scale": "2"},
    {"identifier": "cell 1;x=2,50%", "transform": "old:mean", "clip_soft": "3", "scale": "0.5"},
)  # fmt: skip
# Their names after strands are merged, in order, and as INFO keys have them.
NAMES = ("cage+", "dnase", "rna+", "chip-1.2", "cell 1;x=2,50%")
KEYS = ("cage_plus", "dnase", "rna_plus", "chip_minus1_2", "cell_1_x_2_50_")
_COLUMNS = ("identifier", "strand_pair", "transform", "clip_soft", "scale")


@dataclass(frozen=True)
class Shape:
    """Windows and bins of a toy."""

    context: int
    anchor: int
    bin_size: int
    crop: int = 0


class Toy(Predictor):
    """See the module.

    Args:
        shape: Windows and bins.
        tracks: How many.
        seed: Of the weights.
        embeds: Give the signal, base by base, as an embedding too.
    """

    def __init__(self, shape: Shape, tracks: int, seed: int, *, embeds: bool) -> None:
        super().__init__()
        outputs = {"tracks": ("batch", "bin", "track")}
        if embeds:
            outputs["embedding"] = ("batch", "length", "channel")
        self.outputs = outputs
        self.length, self.unknown, self.shape = shape.context, 0.3, shape
        draw = torch.Generator().manual_seed(seed)
        self.taps = nn.Parameter(torch.randn(tracks, 4, 5, generator=draw))
        pace = 0.05 + torch.rand(tracks, 1, generator=draw)
        wave = 1 + 0.6 * torch.sin(pace * torch.arange(shape.context))
        self.register_buffer("wave", wave)
        self.wave: Tensor

    def forward(self, bases: Tensor, channels: Tensor | None = None) -> tuple[Tensor, ...]:
        signal = (
            functional.conv1d(bases.transpose(1, 2), self.taps, padding=6, dilation=3) * self.wave
        )
        size, crop = self.shape.bin_size, self.shape.crop
        bins = functional.avg_pool1d(signal, size) * size**0.5
        count = self.shape.context // size
        tracks = functional.softplus(bins[:, :, crop : count - crop]).transpose(1, 2)
        return (tracks, signal.transpose(1, 2)) if "embedding" in self.outputs else (tracks,)


def write_toy(
    folder: Path,
    shape: Shape,
    rows: Sequence[Row] = ROWS,
    *,
    seed: int = 1,
    embeds: bool = False,
    **card: Any,
) -> Path:
    """Write a bundle; `card` adds keys or replaces them."""
    folder.mkdir(parents=True)
    network = Toy(shape, len(rows), seed, embeds=embeds).eval()
    graph.write_graph(network, folder / GRAPH, "fp32")
    if embeds:
        outputs = {name: {"name": name, "axes": axes} for name, axes in network.outputs.items()}
        card |= {"outputs": outputs, "embedding": {"dim": len(rows), "pool": "all"}}
    return with_card(folder, shape, rows, **card)


def with_card(folder: Path, shape: Shape, rows: Sequence[Row] = ROWS, **card: Any) -> Path:
    """Write table and card beside a graph."""
    lines = ["\t".join(row.get(name, "") for name in _COLUMNS) for row in rows]
    (folder / "tracks.tsv").write_text("\n".join(["\t".join(_COLUMNS), *lines]) + "\n")
    axes = {"rows": ("batch", "length"), "tracks": ("batch", "bin", "track")}
    values = {
        "name": "toy tracks",
        "tag": "TRK",
        "objective": "tracks",
        "context": shape.context,
        "anchor": shape.anchor,
        "bin_size": shape.bin_size,
        "crop": shape.crop,
        "encoder": {"kind": "kmer", "vocab": {"order": "ACGT", "single_ids": {"N": 4}}},
        "inputs": {"rows": {"name": "rows", "axes": axes["rows"], "dtype": "uint8"}},
        "outputs": {"tracks": {"name": "tracks", "axes": axes["tracks"]}},
    }
    write_bundle(folder, values | card)
    return folder


class TrackEngine(Engine):
    """An engine that reads the table of its model."""

    def __init__(self, bundle: Path, fasta: Path, scores: Sequence[str] = (), **options: Any):
        super().__init__(bundle, fasta, scores, **options)
        (model,) = self.annotator.models
        self.model = replace(model, tracks=open_tracks(self.bundle, None))
        self.annotator = Annotator(self.genome, [self.model])


def maker(
    graphs: Mapping[str, Path], shapes: Mapping[str, Shape], folder: Path
) -> Callable[..., Path]:
    """Give what makes copies of toys with other cards: `make("bins", anchor=32, shifts=(0, 1))`."""

    def make(name: str, **card: Any) -> Path:
        copied = folder / f"{name}-{len(list(folder.iterdir()))}"
        shutil.copytree(graphs[name], copied)
        return with_card(copied, shapes[name], **card)

    return make
