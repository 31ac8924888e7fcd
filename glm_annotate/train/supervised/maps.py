"""Contact maps of cooler files (HDF5) as targets of networks.

A cooler holds the upper triangle of counts, bin by bin, and a weight of each bin; balanced contacts
are counts times both weights. A bin without a weight has no contacts that are known: NaN here.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from glm_annotate.errors import InputError
from glm_annotate.genome import Genome, aliases
from glm_annotate.train.families.predictor import UNKNOWN, Predictor
from glm_annotate.train.supervised.config import ContactsConfig
from glm_annotate.train.supervised.windows import evaluating, run

Map = NDArray[np.float64]


class Cooler:
    """One resolution of a cooler.

    Args:
        text: Path, and `::GROUP` where the file holds several resolutions.
        data: Folder that it is relative to.

    Raises:
        InputError: It cannot be read, has bins of several sizes, or no weights though they are
            asked for.
    """

    def __init__(self, text: str, data: Path, *, balance: bool) -> None:
        import h5py

        file, _, group = text.partition("::")
        self.path = f"{data / file}"
        self.balance = balance
        try:
            self._file: Any = h5py.File(data / file, "r")
            self._root: Any = self._file[group or "/"]
            names = [bytes(x).decode() for x in self._root["chroms/name"][:]]
            offsets = self._root["indexes/chrom_offset"][:].tolist()
            self.resolution = int(self._root.attrs.get("bin-size", 0) or 0)
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise InputError(
                f"{self.path}: not a cooler, or one of several resolutions: name one, such as "
                f"{file}::/resolutions/10000 ({error})"
            ) from error
        if self.resolution < 1:
            raise InputError(f"{self.path}: bins of several sizes; wanted one")
        if balance and "weight" not in self._root["bins"]:
            raise InputError(
                f"{self.path}: no weights; run: cooler balance FILE, or set balance = false"
            )
        self._first = dict(zip(names, offsets, strict=False))
        self._bins = dict(zip(names, np.diff(offsets).tolist(), strict=True))

    def check(self, contig: str, size: int) -> None:
        """Check that a contig is there, with its length.

        Raises:
            InputError: It is not.
        """
        if self._bins[self._name(contig)] != -(-size // self.resolution):
            raise InputError(
                f"{self.path}: {contig} has {self._bins[self._name(contig)]} bins of "
                f"{self.resolution} bases, the FASTA {size:,} bases: another assembly"
            )

    def _name(self, contig: str) -> str:
        found = next((x for x in (contig, *aliases(contig)) if x in self._first), None)
        if found is None:
            raise InputError(f"{self.path}: no contig {contig}; leave it out of the split")
        return found

    def read(self, contig: str, start: int, bins: int) -> Map:
        """Read a square on the diagonal, (bins, bins), NaN where nothing is known.

        Args:
            contig: A name of the FASTA that `check` has let pass.
            start: First bin of the contig.
            bins: Bins of a side.
        """
        name = self._name(contig)
        known = min(bins, self._bins[name] - start)
        first = self._first[name] + start
        out = np.full((bins, bins), np.nan)
        out[:known, :known] = 0
        rows = self._root["indexes/bin1_offset"][first : first + known + 1]
        pixels = self._root["pixels"]
        part = slice(int(rows[0]), int(rows[-1]))
        one, two = pixels["bin1_id"][part] - first, pixels["bin2_id"][part] - first
        count = pixels["count"][part].astype(np.float64)
        inside = two < known
        out[one[inside], two[inside]] = count[inside]
        out[two[inside], one[inside]] = count[inside]
        if self.balance:
            weights = np.full(bins, np.nan)
            weights[:known] = self._root["bins/weight"][first : first + known]
            out *= weights[:, None] * weights[None, :]
        return out


@dataclass(frozen=True, slots=True)
class MapShape:
    """Maps of a network.

    Attributes:
        length: Bases of a window.
        size: Bases of a bin.
        side: Bins of a side that is given.
        crop: Bins cut off at each side.
        diagonal: Diagonals left out, of an upper triangle.
        upper: Whether the map is its upper triangle, row by row.
        maps: How many there are.
    """

    length: int
    size: int
    side: int
    crop: int
    diagonal: int
    upper: bool
    maps: int


@torch.no_grad()
def map_shape(network: Predictor, config: ContactsConfig) -> MapShape:
    """Find out what maps a network gives, with one pass over Ns.

    Raises:
        InputError: The network reads another number of signals, or a cell's place is not known.
    """
    length = int(network.length or 0)
    if network.channels != len(config.signals):
        raise InputError(
            f"supervised.contacts.signals: found {len(config.signals)}, the network reads "
            f"{network.channels}"
        )
    rows = torch.full((1, length), UNKNOWN, dtype=torch.uint8)
    channels = torch.zeros(1, length, network.channels) if network.channels else None
    with evaluating(network):
        found = run(network, network, rows, channels)["contacts"]
    if network.outputs["contacts"][1] != "pair":
        side = found.shape[1]
        return MapShape(length, length // side, side, 0, 0, False, 1)
    sizes = getattr(network, "config", None)
    if not all(hasattr(sizes, x) for x in ("side", "crop", "diagonal", "bin_size")):
        raise InputError("this family does not tell where the cells of its map lie")
    side, diagonal = int(sizes.side), int(sizes.diagonal)  # type: ignore[union-attr]
    return MapShape(
        length,
        int(sizes.bin_size),  # type: ignore[union-attr]
        side,
        int(sizes.crop),  # type: ignore[union-attr]
        diagonal,
        True,
        found.shape[2],
    )


def log_map(contacts: Map, side: int) -> Map:
    """Resize contacts to `side` bins, then log(1 + x), as C.Origami's authors do.

    Cells of which less than half is known are NaN. Resizing down smooths first.
    """
    known = np.isfinite(contacts)
    parts = torch.from_numpy(np.stack([np.where(known, contacts, 0.0), known.astype(float)]))
    small = side < contacts.shape[0]
    sized = functional.interpolate(
        parts[None], size=(side, side), mode="bilinear", align_corners=False, antialias=small
    )[0].numpy()
    out: Map = np.where(sized[1] >= 0.5, np.log1p(np.maximum(sized[0], 0)), np.nan)
    return out


def observed_expected(contacts: Map, clip: float) -> Map:
    """Give the log of contacts over the mean of their distance in the window, clipped."""
    bins = contacts.shape[0]
    distance = np.abs(np.arange(bins)[:, None] - np.arange(bins))
    known = np.isfinite(contacts)
    sums = np.bincount(distance[known], weights=contacts[known], minlength=bins)
    counts = np.bincount(distance[known], minlength=bins)
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = sums / counts
        out: Map = np.clip(np.log(contacts / expected[distance]), -clip, clip)
    return out


def target(contacts: Map, config: ContactsConfig, shape: MapShape) -> Map:
    """Turn the contacts of a window into a square target, (side, side)."""
    if config.kind == "log1p":
        found = log_map(contacts, shape.side + 2 * shape.crop)
    else:
        found = observed_expected(contacts, config.clip)
    inner = slice(shape.crop, shape.crop + shape.side)
    square = found[inner, inner]
    apart = np.abs(np.arange(shape.side)[:, None] - np.arange(shape.side))
    return np.where(apart < config.diagonal, np.nan, square)


def flatten(square: Map, shape: MapShape) -> NDArray[np.float32]:
    """Put the cells of a map in the network's order, (cells,)."""
    if not shape.upper:
        return square.astype(np.float32).ravel()
    rows, columns = np.triu_indices(shape.side, shape.diagonal)
    cells: NDArray[np.float32] = square[rows, columns].astype(np.float32)
    return cells


def open_coolers(
    config: ContactsConfig, shape: MapShape, genome: Genome, data: Path
) -> list[Cooler]:
    """Open the files, and check that they fit the network and each other.

    Raises:
        InputError: They do not.
    """
    files = [Cooler(x, data, balance=config.balance) for x in config.cooler]
    if len(files) != shape.maps:
        raise InputError(
            f"supervised.contacts.cooler: {len(files)} files, the network has {shape.maps} maps"
        )
    sizes = sorted({x.resolution for x in files})
    if len(sizes) > 1:
        raise InputError(f"supervised.contacts.cooler: bins of {sizes[0]} and {sizes[1]} bases")
    if config.kind == "observed_expected" and sizes[0] != shape.size:
        raise InputError(
            f"supervised.contacts: the cooler has bins of {sizes[0]} bases, the network of "
            f"{shape.size}; observed_expected needs them equal: cooler coarsen or zoomify"
        )
    if shape.length < 2 * sizes[0]:
        raise InputError(
            f"supervised.contacts: a window of {shape.length} bases has less than two bins of "
            f"{sizes[0]}"
        )
    return files
