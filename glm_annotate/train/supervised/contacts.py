"""Learning contact maps: windows of bases, and signals beside them, with maps of cooler files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from glm_annotate.errors import InputError
from glm_annotate.genome import Codes, Genome, Interval, reverse_complement
from glm_annotate.signals import BigWig, Signals
from glm_annotate.train.objective import Batch, Measured, Record
from glm_annotate.train.supervised import losses
from glm_annotate.train.supervised.config import SupervisedConfig
from glm_annotate.train.supervised.leakage import check_split
from glm_annotate.train.supervised.maps import flatten, map_shape, open_coolers, target
from glm_annotate.train.supervised.measures import Correlation, mean_of_known, ratio
from glm_annotate.train.supervised.splits import contigs, split_genome
from glm_annotate.train.supervised.windows import (
    WINDOWS,
    Setup,
    encode,
    evaluating,
    make_window_encoder,
    predictor_of,
    run,
    stream,
)
from glm_annotate.vocab import Channel

# Windows drawn in search of one that is known well enough.
_TRIES = 20


class ContactsObjective:
    """Contact maps, see `Objective`.

    Attributes:
        network: The predictor.
        valid: Held-out windows: contig and first bin of the cooler.
    """

    def __init__(self, config: SupervisedConfig, network: nn.Module, setup: Setup) -> None:
        """Open data and check that the network fits them.

        Raises:
            InputError: Something does not fit, or held-out sequences leak.
        """
        contacts = config.contacts
        if contacts is None:
            raise InputError("supervised.contacts: missing")
        loss = config.loss
        if loss.kind != "mse" or loss.coarse or loss.weight_range != 1:
            raise InputError("supervised.loss: of maps it is mse, without coarse and weight_range")
        self.config, self.contacts = config, contacts
        self.predictor = predictor_of(network, "contacts", setup.family)
        self.network: nn.Module = self.predictor
        self.seed, self.size = setup.seed, setup.batch
        self.encoder = make_window_encoder()
        names = [contacts.fasta, *(x.partition("::")[0] for x in contacts.cooler)]
        names += [x.file for x in contacts.signals]
        self.paths = tuple(setup.data / name for name in dict.fromkeys(names))
        self.genome = Genome(setup.data / contacts.fasta)
        self.split = split_genome(contacts.split, self.genome, setup.home)
        self.shape = map_shape(self.predictor, contacts)
        self.files = open_coolers(contacts, self.shape, self.genome, setup.data)
        self.resolution = self.files[0].resolution
        for contig in self.split.used:
            for file in self.files:
                file.check(contig, self.genome.contigs[contig])
        self.signals = self._signals(setup.data)
        self.train = self._places(self.split.train, "train")
        held = self._places(self.split.valid, "valid")
        # Windows whose maps do not overlap.
        apart = max(1, self.shape.length // self.resolution)
        valid = [
            (contig, cell) for contig, low, high in held for cell in range(low, high + 1, apart)
        ]
        known = [x for x in valid if self._known(self._square(*x)) >= contacts.min_known]
        if not known:
            raise InputError("split.valid: no window whose map is known well enough")
        chosen = np.linspace(0, len(known) - 1, min(len(known), contacts.valid_windows))
        self.valid = [known[i] for i in chosen.round().astype(int)]
        others = (*self.split.valid, *self.split.test)
        self.leakage = check_split(self.genome, self.split.train, others, config.leakage)

    def _signals(self, data: Path) -> Signals | None:
        if not self.contacts.signals:
            return None
        files, channels = {}, []
        for x in self.contacts.signals:
            files[x.name] = BigWig(x.name, str(data / x.file), self.genome)
            channels.append(
                Channel(name=x.name, source="bigwig", transform=x.transform, missing=x.missing)
            )
        found = Signals(channels, files)
        for contig in self.split.used:
            found.holds(contig)
        return found

    def _places(self, stretches: tuple[Interval, ...], part: str) -> list[tuple[str, int, int]]:
        """List first and last bin at which a window inside a stretch may begin."""
        unit, found = self.resolution, []
        for x in stretches:
            low, high = -(-x.start // unit), (x.end - self.shape.length) // unit
            if low <= high:
                found.append((x.chrom, low, high))
        if not found:
            raise InputError(
                f"split.{part}: no stretch holds a window of {self.shape.length:,} bases"
            )
        return found

    def record(self) -> Record:
        """Say what was read and held out."""
        return Record(
            files=self.paths,
            groups={"contacts": contigs(self.split.train)},
            valid={"contacts": contigs((*self.split.valid, *self.split.test))},
        )

    def _square(self, contig: str, cell: int) -> NDArray[np.float64]:
        """Make the target maps of a window, (side, side, maps)."""
        bins = self.shape.length // self.resolution
        maps = [
            target(file.read(contig, cell, bins), self.contacts, self.shape) for file in self.files
        ]
        return np.stack(maps, axis=-1)

    @staticmethod
    def _known(square: NDArray[np.float64]) -> float:
        return float(np.isfinite(square).mean())

    def _draw(self, rng: np.random.Generator) -> tuple[str, int, NDArray[np.float64]]:
        counts = np.array([high - low + 1 for _, low, high in self.train])
        best: tuple[float, str, int, NDArray[np.float64]] | None = None
        for _ in range(_TRIES):
            contig, low, high = self.train[rng.choice(len(counts), p=counts / counts.sum())]
            cell = int(rng.integers(low, high + 1))
            square = self._square(contig, cell)
            known = self._known(square)
            if best is None or known > best[0]:
                best = known, contig, cell, square
            if known >= self.contacts.min_known:
                break
        if best is None:
            raise InputError("split.train: no window")
        return best[1:]

    def _codes(self, contig: str, start: int) -> Codes:
        place = np.array([start], dtype=np.int64)
        window: Codes = self.genome.windows(contig, place, self.shape.length)[0]
        return window

    def _channels(self, contig: str, start: int) -> NDArray[np.float32]:
        """Read the signals of a window, (L, channels); `missing` past the ends of the contig."""
        length, size = self.shape.length, self.genome.contigs[contig]
        out = np.empty((length, len(self.contacts.signals)), dtype=np.float32)
        out[:] = [x.missing for x in self.contacts.signals]
        low, high = max(start, 0), min(start + length, size)
        if self.signals is not None and low < high:
            values = self.signals.read(contig, np.arange(low, high, dtype=np.int64))
            out[low - start : high - start] = values
        return out

    def _batch(
        self,
        places: list[tuple[str, int, NDArray[np.float64]]],
        shifts: list[int],
        flip: NDArray[np.bool_],
    ) -> Batch:
        starts = [
            cell * self.resolution + s for (_, cell, _), s in zip(places, shifts, strict=True)
        ]
        codes = np.stack([self._codes(x[0], s) for x, s in zip(places, starts, strict=True)])
        squares = np.stack([x[2] for x in places])
        codes[flip] = reverse_complement(codes[flip])
        squares[flip] = squares[flip][:, ::-1, ::-1]
        cells = [
            np.stack([flatten(square[..., i], self.shape) for i in range(self.shape.maps)], -1)
            for square in squares
        ]
        out: Batch = {
            "rows": torch.from_numpy(encode(self.encoder, codes)),
            "targets": torch.from_numpy(np.stack(cells)),
        }
        if self.signals is not None:
            pairs = zip(places, starts, strict=True)
            channels = np.stack([self._channels(x[0], s) for x, s in pairs])
            channels[flip] = channels[flip][:, ::-1]
            out["channels"] = torch.from_numpy(channels)
        return out

    def batch(self, step: int, anneal: float) -> Batch:
        """Draw windows: `rows` (B, L), `targets` (B, cells, maps), and `channels` (B, L, C)."""
        del anneal
        rng, augment = stream(self.seed, step, WINDOWS), self.config.augment
        places = [self._draw(rng) for _ in range(self.size)]
        shifts = rng.integers(-augment.shift, augment.shift + 1, size=self.size).tolist()
        flip = (rng.random(self.size) < 0.5) & augment.reverse_complement
        return self._batch(places, shifts, flip)

    def weight(self, batch: Batch) -> Tensor:
        """Count the cells that are known."""
        return losses.weight(batch["targets"], self.config.loss)

    def total(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum the squared errors."""
        return losses.total(self.predict(model, batch), batch["targets"], self.config.loss)

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Predict (B, cells, maps)."""
        found = run(model, self.predictor, batch["rows"], batch.get("channels"))["contacts"].float()
        return found if self.shape.upper else found.flatten(1)[..., None]

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, Measured]:
        """Measure the loss and Pearson's r over cells, as a mean over maps."""
        device = next(self.network.parameters()).device
        r = Correlation(self.shape.maps)
        loss = weight = 0.0
        most = self.config.batch_valid
        with evaluating(model):
            for start in range(0, len(self.valid), most):
                places = [(*x, self._square(*x)) for x in self.valid[start : start + most]]
                still = np.zeros(len(places), dtype=np.bool_)
                cpu = self._batch(places, [0] * len(places), still)
                batch = {key: value.to(device) for key, value in cpu.items()}
                out = self.predict(model, batch)
                loss += float(losses.total(out, batch["targets"], self.config.loss))
                weight += float(self.weight(batch))
                pair = out.cpu(), cpu["targets"]
                r.add(*(x.flatten(0, 1).numpy() for x in pair))
        cells, mean = int(r.count.max()), mean_of_known(r.value())
        return {
            "loss": Measured(ratio(loss, weight), cells),
            "pearson": Measured(mean, cells, "higher"),
        }
