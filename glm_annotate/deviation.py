"""How far dense scores are from exact ones: both of the same sites, side by side.

Sites are neighbours, as a dense run has them: stretches drawn from a genome, or of random bases.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glm_annotate.answers import Floats
from glm_annotate.bundle import Bundle
from glm_annotate.dense import dense_stride
from glm_annotate.errors import UsageError
from glm_annotate.genome import Codes, Genome, Interval, aliases, to_text
from glm_annotate.model import Model
from glm_annotate.per_base import Kind, Mode, per_base
from glm_annotate.runtime import Settings, open_runners

_CONTIG = "random"
_STRETCHES = 4  # at least
_LEAST = 16


@dataclass(frozen=True, slots=True)
class Deviation:
    """Differences of LLR of all substitutions at some sites.

    Attributes:
        sites: How many sites.
        stride: Of the dense passes.
        median: Of |dense - exact|; `p99`: its 99th percentile; `largest`: its maximum.
        spearman: Rank correlation of dense and exact; NaN where either is constant.
        spread: Standard deviation of the exact ones, to compare with.
    """

    sites: int
    stride: int
    median: float
    p99: float
    largest: float
    spearman: float
    spread: float


def dense_deviation(
    bundle: Bundle,
    source: Genome | Codes | None = None,
    *,
    sites: int = 384,
    seconds: float = 60.0,
    stride: int | None = None,
    seed: int = 0,
    settings: Settings | None = None,
) -> Deviation:
    """Measure how far dense scores are from exact ones.

    Args:
        bundle: A masked model.
        source: A genome, of whose contigs in the card's scope stretches are drawn; or base codes,
            shape (n,); None: random bases.
        sites: How many sites to look at.
        seconds: Look at fewer, 16 at least, where the exact passes would take longer than this.
        stride: In place of the card's.
        seed: Of what is drawn.
        settings: Device and threads; None: the CPU.

    Raises:
        UsageError: The model has no dense mode or reads channels, or the genome has no contig that
            it is meant for.
    """
    card, stride = bundle.card, dense_stride(bundle, wanted=stride)
    if card.encoder.channels:
        raise UsageError(f"{card.name}: reads channels beside the bases, which random bases lack")
    rng = np.random.default_rng(seed)
    runners = open_runners(bundle, settings or Settings())
    strands = (False, True) if card.strand == "both" else (False,)
    cost = runners[0].seconds_per_pass(_rows(bundle), frozenset({"logits"})) * len(strands)
    sites = max(_LEAST, min(sites, int(seconds / max(cost, 1e-9))))
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(source, Genome):
            genome = source
        else:
            codes = source
            if codes is None:
                codes = rng.integers(0, 4, sites + 2 * card.context).astype(np.uint8)
            genome = _written(Path(folder), codes)
        circular = frozenset(filter(None, (genome.resolve(name) for name in card.circular)))
        model = Model(card.tag, bundle, (), strands, circular, runners, ignore_scope=True)
        pairs = [
            (_llr(model, genome, at, "exact", stride), _llr(model, genome, at, "dense", stride))
            for at in _stretches(genome, bundle, sites, rng)
        ]
    exact, dense = (np.concatenate(x) for x in zip(*pairs, strict=True))
    known = np.isfinite(exact) & np.isfinite(dense)
    if not known.any():
        raise UsageError(f"{genome.path}: none of the sites drawn has a score; name another FASTA")
    exact, dense = exact[known], dense[known]
    differences = np.abs(dense - exact)
    return Deviation(
        exact.size // 3,
        stride,
        float(np.median(differences)),
        float(np.percentile(differences, 99)),
        float(differences.max()),
        spearman(exact, dense),
        float(exact.std()),
    )


def spearman(first: Floats, second: Floats) -> float:
    """Rank correlation; NaN where either is constant."""
    a, b = (_ranks(values) - (values.size - 1) / 2 for values in (first, second))
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else float("nan")


def _ranks(values: Floats) -> Floats:
    """Rank from 0 on; equal values share the mean of their ranks."""
    _, group, count = np.unique(values, return_inverse=True, return_counts=True)
    mean: Floats = np.cumsum(count) - (count + 1) / 2
    return mean[group.reshape(-1)]


def _rows(bundle: Bundle) -> int:
    blank = np.zeros((1, bundle.card.context), dtype=np.uint8)
    return int(bundle.encoder.encode(blank)[0].rows.shape[1])


def _written(folder: Path, codes: Codes) -> Genome:
    """Make a genome of one contig."""
    path, bases = folder / "bases.fa", to_text(codes)
    path.write_text(f">{_CONTIG}\n{bases}\n")
    # An index of our own: htslib's would be told of as if it were of use to the user.
    size, start = len(bases), len(_CONTIG) + 2
    Path(f"{path}.fai").write_text(f"{_CONTIG}\t{size}\t{start}\t{size}\t{size + 1}\n")
    return Genome(path)


def _stretches(
    genome: Genome, bundle: Bundle, sites: int, rng: np.random.Generator
) -> Iterator[Interval]:
    """Draw stretches that hold so many sites together, from the contigs that the card names."""
    card = bundle.card
    lengths = {
        name: length
        for name, length in genome.contigs.items()
        if name == _CONTIG or card.in_scope(name, length, aliases(name))
    }
    total = sum(lengths.values())
    if not total:
        raise UsageError(
            f"{genome.path}: no contig that {card.name} is meant for; name another FASTA"
        )
    number = max(_STRETCHES, -(-sites // max(1, card.context // 2)))
    size = -(-sites // number)
    weights = np.array(list(lengths.values())) / total
    for name in rng.choice(list(lengths), number, p=weights).tolist():
        wide = min(size, lengths[name])
        start = int(rng.integers(0, lengths[name] - wide + 1))
        yield Interval(name, start, start + wide)


def _llr(model: Model, genome: Genome, at: Interval, mode: Mode, stride: int) -> Floats:
    """Give the LLR of every base other than the reference's, shape (3 x sites,)."""
    pieces = per_base(model, genome, at.chrom, at.start, at.end, [Kind("ism")], mode, stride=stride)
    columns = [np.stack([found[f"ism_{x}"] for x in "ACGT"], axis=1) for _, found in pieces]
    ref = genome.codes(at.chrom)[at.start : at.end]
    values: Floats = np.concatenate(columns)[ref[:, None] != np.arange(4)]
    return values
