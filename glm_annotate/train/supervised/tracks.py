"""Learning assay tracks: windows of one or more genomes, and the values measured along them.

Windows begin at random multiples of the resolution, drawn from (seed, step) alone. With several
species the network has the tracks of all of them; those of the others are NaN in a window's
targets, so that each species trains the trunk and its own rows of the head.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from glm_annotate.beds import place, read_bed
from glm_annotate.errors import InputError
from glm_annotate.genome import Codes, Genome, Interval, reverse_complement
from glm_annotate.train.objective import Batch, Measured, Record
from glm_annotate.train.supervised import losses
from glm_annotate.train.supervised.config import SpeciesConfig, SupervisedConfig, TracksConfig
from glm_annotate.train.supervised.exporting import track_table
from glm_annotate.train.supervised.leakage import check_split
from glm_annotate.train.supervised.measures import Correlation, mean_of_known, ratio
from glm_annotate.train.supervised.splits import Split, contigs, split_genome
from glm_annotate.train.supervised.stored import Bins, Store, from_arrays, store
from glm_annotate.train.supervised.windows import (
    WINDOWS,
    Setup,
    Shape,
    encode,
    evaluating,
    make_window_encoder,
    predictor_of,
    run,
    shape_of,
    stream,
)

logger = logging.getLogger(__name__)

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Places:
    """Where the targets of windows may begin.

    Attributes:
        contigs: Of each stretch.
        low: First cell of each, shape (n,).
        cumulative: Starts up to and with each stretch, shape (n,).
    """

    contigs: tuple[str, ...]
    low: Ints
    cumulative: Ints

    def at(self, index: int) -> tuple[str, int]:
        """Give contig and cell of a start, by its number."""
        number = int(np.searchsorted(self.cumulative, index, side="right"))
        before = int(self.cumulative[number - 1]) if number else 0
        return self.contigs[number], int(self.low[number]) + index - before


class Species:
    """A genome with its tracks: windows of both strands and their targets."""

    def __init__(
        self,
        config: SpeciesConfig,
        tracks: TracksConfig,
        shape: Shape,
        setup: Setup,
    ) -> None:
        """Open the files.

        Args:
            config: Of the species.
            tracks: Sizes that all species share.
            shape: Of the network.
            setup: Of the run.

        Raises:
            InputError: A file is not usable, or a part of the split has no window.
        """
        self.config, self.shape = config, shape
        self.files = self._files(setup)
        self.resolution = tracks.resolution or tracks.bin
        self.genome = Genome(setup.data / config.fasta)
        self.split = split_genome(config.split, self.genome, setup.home)
        self.store = self._store(tracks, setup)
        self.bins = Bins(config.track, tracks.bin, self.store.resolution)
        self.span = shape.bins * tracks.bin // self.store.resolution  # cells of a window's targets
        self.train = self._places(self.split.train, "train")
        self.valid = self._grid(self._places(self.split.valid, "valid"), tracks.valid_windows)
        self.centres = self._centres(setup)

    def _files(self, setup: Setup) -> tuple[Path, ...]:
        config = self.config
        names = [config.fasta, *(x.file for x in config.track)]
        names += [config.arrays.file] if config.arrays is not None else []
        lists = [x for x in (config.blacklist, config.regions) if x is not None]
        paths = [setup.data / name for name in dict.fromkeys(names) if name]
        return (*paths, *map(setup.find, lists))

    def _store(self, tracks: TracksConfig, setup: Setup) -> Store:
        config = self.config
        if config.arrays is None:
            return store(
                self.genome,
                self.split.used,
                config.track,
                data=setup.data,
                folder=setup.folder,
                resolution=self.resolution,
                blacklist=setup.find(config.blacklist) if config.blacklist else None,
            )
        if self.resolution != tracks.bin:
            raise InputError("supervised.tracks.resolution: arrays hold bins; leave it out")
        self._check_ready()
        return from_arrays(
            config.arrays,
            config.track,
            self.genome,
            self.split.used,
            data=setup.data,
            size=tracks.bin,
        )

    def _check_ready(self) -> None:
        wrong = next((x for x in self.config.track if x.log1p or x.file), None)
        if wrong is not None:
            raise InputError(
                f"track {wrong.identifier!r}: arrays are transformed already; leave log1p and "
                "file out"
            )

    def _places(self, stretches: tuple[Interval, ...], part: str) -> Places:
        unit, edge = self.store.resolution, 0 if self.split.whole else self.shape.crop
        contigs, low, counts = [], [], []
        for stretch in stretches:
            start, end = stretch.start + edge, stretch.end - edge
            if self.store.known is not None:
                known = self.store.known[stretch.chrom]
                start, end = max(start, known.start), min(end, known.end)
            first, last = -(-start // unit), end // unit - self.span
            if last < first:
                continue
            contigs.append(stretch.chrom)
            low.append(first)
            counts.append(last - first + 1)
        if not contigs:
            raise InputError(
                f"split.{part}: no stretch of {self.config.fasta} holds a window, whose targets "
                f"are {self.shape.bins * self.shape.size:,} bases; shorten the model's window"
            )
        return Places(
            tuple(contigs), np.array(low, dtype=np.int64), np.cumsum(counts, dtype=np.int64)
        )

    def _grid(self, places: Places, most: int) -> list[tuple[str, int]]:
        """Tile stretches with windows whose targets do not overlap; thin them out evenly."""
        found = []
        before = 0
        for contig, low, upto in zip(
            places.contigs, places.low.tolist(), places.cumulative.tolist(), strict=True
        ):
            found += [(contig, cell) for cell in range(low, low + upto - before, self.span)]
            before = upto
        if len(found) <= most:
            return found
        return [found[i] for i in np.linspace(0, len(found) - 1, most).round().astype(int)]

    def _centres(self, setup: Setup) -> list[tuple[str, int]]:
        """Middles of the regions inside stretches trained on, in cells."""
        if self.config.regions is None:
            return []
        path = str(setup.find(self.config.regions))
        found = []
        for row in read_bed(path):
            contig = self.genome.resolve(row.contig)
            middle = (row.start + row.end) // 2
            inside = (x for x in self.split.train if x.chrom == contig)
            if any(x.start <= middle < x.end for x in inside):
                stretch = place(row, self.genome, path)
                found.append((stretch.chrom, middle // self.store.resolution))
        if not found:
            raise InputError(f"{path}: no region lies in what is trained on")
        return found

    def draw(self, rng: np.random.Generator) -> tuple[str, int]:
        """Draw a window to train on: contig, and the cell where its targets begin."""
        if self.centres and rng.random() < self.config.region_share:
            contig, middle = self.centres[rng.integers(len(self.centres))]
            wander = max(1, self.span // 4)
            wanted = middle - self.span // 2 + int(rng.integers(-wander, wander + 1))
            return self._inside(contig, middle, wanted)
        return self.train.at(int(rng.integers(self.train.cumulative[-1])))

    def _inside(self, contig: str, middle: int, wanted: int) -> tuple[str, int]:
        """Move a window into the stretch that holds its region."""
        best, before = wanted, 0
        nearest: int | None = None
        for name, low, upto in zip(
            self.train.contigs,
            self.train.low.tolist(),
            self.train.cumulative.tolist(),
            strict=True,
        ):
            high = low + upto - before - 1
            before = upto
            moved = min(max(wanted, low), high)
            away = abs(moved + self.span // 2 - middle)
            if name == contig and (nearest is None or away < nearest):
                nearest, best = away, moved
        return contig, best

    def codes(self, contig: str, cell: int, shift: int = 0) -> Codes:
        """Read the bases of a window, shape (L,)."""
        start = cell * self.store.resolution - self.shape.crop + shift
        window: Codes = self.genome.windows(
            contig, np.array([start], dtype=np.int64), self.shape.length
        )[0]
        return window

    def targets(self, contig: str, cell: int) -> NDArray[np.float32]:
        """Read the targets of a window, shape (bins, tracks)."""
        cells = self.store.read(contig, cell, self.span)
        return cells if self.store.ready else self.bins.make(cells)


class TracksObjective:
    """Tracks along windows, see `Objective`.

    Attributes:
        network: The predictor.
        species: Its genomes.
    """

    def __init__(self, config: SupervisedConfig, network: nn.Module, setup: Setup) -> None:
        """Open data and check that the network fits them.

        Raises:
            InputError: Something does not fit, or held-out sequences leak.
        """
        if config.tracks is None:
            raise InputError("supervised.tracks: missing")
        self.config, self.tracks = config, config.tracks
        self.predictor = predictor_of(network, "tracks", setup.family)
        self.network: nn.Module = self.predictor
        self.seed, self.size = setup.seed, setup.batch
        self.table = track_table(config)
        self.shape = shape_of(self.predictor, self.tracks.bin)
        if self.shape.tracks != len(self.table):
            raise InputError(
                f"model: the network has {self.shape.tracks} tracks, the config {len(self.table)}"
            )
        if config.loss.coarse > self.shape.bins:
            raise InputError(f"supervised.loss.coarse: a window has {self.shape.bins} bins")
        self.encoder = make_window_encoder()
        self.species = [Species(x, self.tracks, self.shape, setup) for x in self.tracks.species]
        counts = [len(x.track) for x in self.tracks.species]
        self.columns = [
            slice(start, start + n)
            for start, n in zip(np.cumsum([0, *counts]).tolist(), counts, strict=False)
        ]
        self.leakage = [self._check_leakage(x) for x in self.species]

    def _check_leakage(self, species: Species) -> object:
        split: Split = species.split
        return check_split(
            species.genome, split.train, (*split.valid, *split.test), self.config.leakage
        )

    def record(self) -> Record:
        """Say what was read and held out."""
        parts = {"valid": [x.split.valid for x in self.species]}
        parts["test"] = [x.split.test for x in self.species]
        names = [x.config.name for x in self.species]
        return Record(
            files=tuple(file for x in self.species for file in x.files),
            groups={n: contigs(x.split.train) for n, x in zip(names, self.species, strict=True)},
            valid={
                f"{name} {part}": contigs(stretches)
                for part, each in parts.items()
                for name, stretches in zip(names, each, strict=True)
                if stretches
            },
        )

    def batch(self, step: int, anneal: float) -> Batch:
        """Draw windows: `rows` (B, L) and `targets` (B, bins, tracks)."""
        del anneal
        rng, augment = stream(self.seed, step, WINDOWS), self.config.augment
        weights = np.array([x.config.weight for x in self.species])
        chosen = rng.choice(len(self.species), size=self.size, p=weights / weights.sum())
        codes = np.empty((self.size, self.shape.length), dtype=np.uint8)
        targets = np.full((self.size, self.shape.bins, self.shape.tracks), np.nan, dtype=np.float32)
        for row, number in enumerate(chosen.tolist()):
            species = self.species[number]
            contig, cell = species.draw(rng)
            shift = int(rng.integers(-augment.shift, augment.shift + 1))
            codes[row] = species.codes(contig, cell, shift)
            targets[row, :, self.columns[number]] = species.targets(contig, cell)
        flip = rng.random(self.size) < 0.5
        if augment.reverse_complement:
            codes[flip] = reverse_complement(codes[flip])
            targets[flip] = targets[flip][:, ::-1][..., self.table.pair]
        return {
            "rows": torch.from_numpy(encode(self.encoder, codes)),
            "targets": torch.from_numpy(targets),
        }

    def weight(self, batch: Batch) -> Tensor:
        """Count what was measured."""
        return losses.weight(batch["targets"], self.config.loss)

    def total(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum the losses."""
        found = run(model, self.predictor, batch["rows"], None)["tracks"]
        return losses.total(found, batch["targets"], self.config.loss)

    def _held_out(self, number: int) -> Iterator[Batch]:
        species, most = self.species[number], self.config.batch_valid
        for start in range(0, len(species.valid), most):
            places = species.valid[start : start + most]
            codes = np.stack([species.codes(*x) for x in places])
            targets = np.full(
                (len(places), self.shape.bins, self.shape.tracks), np.nan, dtype=np.float32
            )
            targets[..., self.columns[number]] = np.stack([species.targets(*x) for x in places])
            yield {
                "rows": torch.from_numpy(encode(self.encoder, codes)),
                "targets": torch.from_numpy(targets),
            }

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, Measured]:
        """Measure the loss, and Pearson's r across bins as a mean over tracks.

        `pearson_coarse` is of sums of `valid_coarse` bins; each is there for every species.
        """
        found: dict[str, Measured] = {}
        device = next(self.network.parameters()).device
        with evaluating(model):
            for number, species in enumerate(self.species):
                name = f"{species.config.name}." if len(self.species) > 1 else ""
                for key, value in self._measure(model, number, device).items():
                    found[name + key] = value
        return found

    def _measure(self, model: nn.Module, number: int, device: torch.device) -> dict[str, Measured]:
        columns, wide = self.columns[number], self.tracks.valid_coarse
        count = columns.stop - columns.start
        fine, coarse = Correlation(count), Correlation(count)
        loss = weight = 0.0
        for cpu in self._held_out(number):
            batch = {key: value.to(device) for key, value in cpu.items()}
            out = run(model, self.predictor, batch["rows"], None)["tracks"].float()
            loss += float(losses.total(out, batch["targets"], self.config.loss))
            weight += float(losses.weight(batch["targets"], self.config.loss))
            pair = out[..., columns].cpu(), cpu["targets"][..., columns]
            fine.add(*(x.flatten(0, 1).numpy() for x in pair))
            if wide:
                coarse.add(*(losses.coarsen(x, wide).flatten(0, 1).numpy() for x in pair))
        bins = int(fine.count.max())
        found = {
            "loss": Measured(ratio(loss, weight), bins),
            "pearson": Measured(mean_of_known(fine.value()), bins, "higher"),
        }
        if wide:
            seen = int(coarse.count.max())
            found["pearson_coarse"] = Measured(mean_of_known(coarse.value()), seen, "higher")
        return found
