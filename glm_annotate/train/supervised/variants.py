"""Learning measured effects of variants: the prediction of ALT less that of REF.

The window lies around the variant as the card's anchor says, so that what is learned is what `vcf`
computes as SAD from one strand; the other strand is learned by reading half of the windows from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from glm_annotate.errors import InputError
from glm_annotate.genome import Codes, Genome, Interval, reverse_complement, to_codes
from glm_annotate.train.objective import Batch, Measured, Record
from glm_annotate.train.supervised import losses
from glm_annotate.train.supervised.config import RegressionConfig, SupervisedConfig
from glm_annotate.train.supervised.examples import correlations
from glm_annotate.train.supervised.exporting import track_table
from glm_annotate.train.supervised.leakage import check_split
from glm_annotate.train.supervised.measures import ratio
from glm_annotate.train.supervised.splits import contigs, split_genome
from glm_annotate.train.supervised.windows import (
    WINDOWS,
    Setup,
    encode,
    evaluating,
    make_window_encoder,
    one_number,
    predictor_of,
    run,
    stream,
)


@dataclass(frozen=True, slots=True)
class Effect:
    """An SNV, insertion or deletion with what was measured; `pos` is 1-based."""

    contig: str
    pos: int
    ref: str
    alt: str
    values: NDArray[np.float32]


def read_effects(config: RegressionConfig, data: Path, genome: Genome) -> list[Effect]:
    """Read the records of a VCF that have the keys.

    Raises:
        InputError: A key or contig is missing, REF is not that of the FASTA, or nothing is found.
    """
    import pysam

    path = data / str(config.vcf)
    found = []
    try:
        with pysam.VariantFile(str(path)) as vcf:
            unknown = [key for key in config.key if key not in vcf.header.info]
            if unknown:
                known = ", ".join(vcf.header.info)
                raise InputError(f"{path}: no INFO key {unknown[0]!r}; it has {known}")
            for record in vcf:
                for number, alt in enumerate(record.alts or ()):
                    raw = [_pick(record.info.get(key), number) for key in config.key]
                    values = ((np.array(raw) - config.offset) * config.scale).astype(np.float32)
                    if not set(alt) <= set("ACGT") or not np.isfinite(values).any():
                        continue
                    contig = genome.resolve(record.chrom)
                    ref = (record.ref or "").upper()
                    _check_reference(path, genome, contig, record.chrom, record.pos, ref)
                    found.append(Effect(contig or "", record.pos, ref, alt, values))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if not found:
        raise InputError(f"{path}: no allele with {', '.join(config.key)}")
    return found


def _pick(value: object, number: int) -> float:
    found = value[number] if isinstance(value, tuple) else value
    return float(found) if isinstance(found, int | float) else float("nan")


def _check_reference(
    path: Path, genome: Genome, contig: str | None, name: str, pos: int, ref: str
) -> None:
    if contig is None:
        raise InputError(f"{path}: {name}:{pos}: {genome.path} has no such contig")
    codes = genome.codes(contig)[pos - 1 : pos - 1 + len(ref)]
    if not np.array_equal(codes, to_codes(ref)):
        raise InputError(f"{path}: {name}:{pos}: REF is {ref}, {genome.path} has another sequence")


class VariantsObjective:
    """Effects of variants, see `Objective`."""

    def __init__(self, config: SupervisedConfig, network: nn.Module, setup: Setup) -> None:
        """Read data and check that the network fits them.

        Raises:
            InputError: Something does not fit, or held-out sequences leak.
        """
        rule = config.regression
        if rule is None or rule.split is None:
            raise InputError("supervised.regression: a vcf needs a split")
        if config.loss.kind != "mse" or config.loss.coarse:
            raise InputError("supervised.loss: effects have both signs; kind must be mse")
        self.config, self.seed, self.size = config, setup.seed, setup.batch
        self.predictor = predictor_of(network, "tracks", setup.family)
        self.network: nn.Module = self.predictor
        self.table = track_table(config)
        self.length = one_number(self.predictor).length
        self.encoder = make_window_encoder()
        self.paths = tuple(setup.data / str(x) for x in (rule.fasta, rule.vcf))
        self.genome = Genome(setup.data / str(rule.fasta))
        self.split = split_genome(rule.split, self.genome, setup.home)
        effects = read_effects(rule, setup.data, self.genome)
        self.train = [x for x in effects if self._inside(x, self.split.train)]
        self.valid = [x for x in effects if self._inside(x, self.split.valid)]
        if not self.train or not self.valid:
            raise InputError(
                f"split: {len(self.train)} alleles to train on and {len(self.valid)} held out; "
                "wanted some of both"
            )
        others = (*self.split.valid, *self.split.test)
        self.leakage = check_split(self.genome, self.split.train, others, config.leakage)

    @staticmethod
    def _inside(effect: Effect, part: tuple[Interval, ...]) -> bool:
        return any(x.chrom == effect.contig and x.start < effect.pos <= x.end for x in part)

    def record(self) -> Record:
        """Say what was read and held out."""
        return Record(
            files=self.paths,
            groups={"variants": contigs(self.split.train)},
            valid={"variants": contigs((*self.split.valid, *self.split.test))},
        )

    def haplotypes(self, effect: Effect, shift: int = 0) -> tuple[Codes, Codes]:
        """Cut the window of REF and that of ALT, which have the same first base, (L,) each."""
        anchor = max(self.length // 2 - 1, 0)
        before = np.array([effect.pos - 1 - anchor + shift], dtype=np.int64)
        spare = self.length + len(effect.ref)
        codes = self.genome.windows(effect.contig, before, spare)[0]
        at = anchor - shift
        alt = np.concatenate([codes[:at], to_codes(effect.alt), codes[at + len(effect.ref) :]])
        return codes[: self.length], alt[: self.length]

    def batch(self, step: int, anneal: float) -> Batch:
        """Draw effects: `ref` and `alt` (B, L), `targets` (B, tracks)."""
        del anneal
        rng, augment = stream(self.seed, step, WINDOWS), self.config.augment
        chosen = [self.train[i] for i in rng.integers(len(self.train), size=self.size).tolist()]
        shifts = rng.integers(-augment.shift, augment.shift + 1, size=self.size).tolist()
        flip = (rng.random(self.size) < 0.5) & augment.reverse_complement
        return self._batch(chosen, shifts, flip)

    def _batch(self, chosen: list[Effect], shifts: list[int], flip: NDArray[np.bool_]) -> Batch:
        pairs = [self.haplotypes(x, s) for x, s in zip(chosen, shifts, strict=True)]
        out: Batch = {"targets": torch.from_numpy(np.stack([x.values for x in chosen]))}
        for name, number in (("ref", 0), ("alt", 1)):
            codes = np.stack([pair[number] for pair in pairs])
            codes[flip] = reverse_complement(codes[flip])
            out[name] = torch.from_numpy(encode(self.encoder, codes))
        return out

    def weight(self, batch: Batch) -> Tensor:
        """Count what was measured."""
        return losses.weight(batch["targets"][:, None], self.config.loss)

    def total(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum the squared errors."""
        found = self.predict(model, batch)[:, None]
        return losses.total(found, batch["targets"][:, None], self.config.loss)

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Predict (B, tracks): ALT less REF. One pass, so that batch norms see both alike."""
        rows = torch.cat([batch["ref"], batch["alt"]])
        ref, alt = run(model, self.predictor, rows, None)["tracks"].float()[:, 0].chunk(2)
        return alt - ref

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, Measured]:
        """Measure the loss and correlations over the held-out alleles."""
        device = next(self.network.parameters()).device
        found, wanted, loss, weight = [], [], 0.0, 0.0
        most = self.config.batch_valid
        with evaluating(model):
            for start in range(0, len(self.valid), most):
                chosen = self.valid[start : start + most]
                still = np.zeros(len(chosen), dtype=np.bool_)
                cpu = self._batch(chosen, [0] * len(chosen), still)
                batch = {key: value.to(device) for key, value in cpu.items()}
                out = self.predict(model, batch)
                wide = out[:, None], batch["targets"][:, None]
                loss += float(losses.total(*wide, self.config.loss))
                weight += float(self.weight(batch))
                found.append(out.cpu().numpy())
                wanted.append(cpu["targets"].numpy())
        x, y = np.concatenate(found).astype(float), np.concatenate(wanted).astype(float)
        return {"loss": Measured(ratio(loss, weight), len(x)), **correlations(x, y)}
