"""Published figures of official weights, for those who have them: `models check --golden`.

A bundle can pass its self-test and still not be the model that it is called: the self-test comes
from the export itself. These figures come from elsewhere. The sequences are not ours to ship: a
genome in the user's hands, or the authors' file of prompts, gives them, and a digest tells whether
they are the right ones.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm_annotate.bundle import Bundle, load_bundle
from glm_annotate.encoding import mask_rows
from glm_annotate.errors import BundleError, InputError
from glm_annotate.genome import Genome, to_codes, to_text
from glm_annotate.plan import PassFailed
from glm_annotate.runtime import Settings, open_runners

# float32 here, other kernels there.
_CLOSE = 2e-3
# The authors ran in bfloat16.
_COARSE = 5e-3


@dataclass(frozen=True, slots=True)
class Region:
    """A stretch of a genome and what the model says of it.

    Attributes:
        contig: By its usual name; aliases are found.
        start: 0-based; `end`: half-open.
        masked: Index of the base that is masked, whose logits of A, C, G, T are `expected`;
            None: `expected` is the mean cross-entropy, in nats over the full vocabulary, of each
            base but the first given those before it.
        expected: What was published.
        sha256: Of the bases in capitals, where known.
    """

    contig: str
    start: int
    end: int
    masked: int | None
    expected: tuple[float, ...]
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Golden:
    """Published figures of one set of weights.

    Attributes:
        file: What the user has to give, in words.
        source: Who published them.
        tolerance: Largest difference that still is the same model.
        regions: Figures of stretches of a genome.
        prompts: Mean cross-entropy over the sequences of the authors' prompts.csv.
    """

    file: str
    source: str
    tolerance: float
    regions: tuple[Region, ...] = ()
    prompts: float | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """One published figure beside what the bundle gives."""

    what: str
    found: float
    expected: float
    tolerance: float

    @property
    def good(self) -> bool:
        """Whether they agree; False for NaN."""
        return abs(self.found - self.expected) <= self.tolerance


def _losses(contig: str, start: int, expected: float) -> Region:
    return Region(contig, start, start + 1000, None, (expected,))


_GPN = Golden(
    file="genome of Arabidopsis thaliana (TAIR10)",
    source="songlab-cal/gpn at 99293f8, examples/ss/basic_example.ipynb",
    tolerance=_CLOSE,
    regions=(
        Region(
            "chr5", 3_566_900, 3_567_600, 489, (4.8509, -2.3441, -1.7025, -1.5116),
            "eb41e193f0b8902b991c5ff9b5d92023a52a918fdf53977c0f70bcfacf3c6c78",
        ),
    ),
)  # fmt: skip
_HYENA = Golden(
    file="human genome (hg38)",
    source="WilliamChen768/hyenadna-inference at 84248ca, outputs/validation_results.json",
    tolerance=_CLOSE,
    regions=(
        _losses("chr1", 100_000_000, 0.826378345),
        _losses("chr2", 50_000_000, 1.311943769),
        _losses("chr3", 120_000_000, 1.200547338),
        _losses("chr5", 80_000_000, 1.296669483),
        _losses("chr7", 100_000_000, 0.957133412),
        _losses("chr9", 100_000_000, 0.827930093),
        _losses("chr12", 80_000_000, 1.183213830),
        _losses("chr16", 60_000_000, 1.151474476),
    ),
)


def _evo2(expected: float) -> Golden:
    return Golden(
        file="prompts.csv of the authors' tests (evo2/test/data of github.com/ArcInstitute/evo2)",
        source="ArcInstitute/evo2 at 53f1959, evo2/test/test_evo2.py",
        tolerance=_COARSE,
        prompts=expected,
    )


# By the `name` of the card, which an export takes from the table of releases. The figures of
# HyenaDNA were measured with the files for transformers, which hold the weights of the first ones.
GOLDEN: dict[str, Golden] = {
    "gpn-brassicales": _GPN,
    "hyenadna-small-32k-seqlen-hf": _HYENA,
    "hyenadna-small-32k-seqlen": _HYENA,
    "evo2-1b-base": _evo2(0.501953125),
    "evo2-7b-base": _evo2(0.3520508),
    "evo2-7b": _evo2(0.3476563),
    "evo2-20b": _evo2(0.2166748),
    "evo2-40b-base": _evo2(0.2149658),
    "evo2-40b": _evo2(0.2159424),
}


def check_golden(model: str | Path, file: str | Path | None) -> list[Figure]:
    """Compare a bundle with the published figures of its weights, on the CPU.

    Args:
        model: A bundle, whose card's `name` tells which weights it says to hold.
        file: The genome or prompts that the figures are of.

    Raises:
        InputError: There are no figures, no file, or the file is not the right one.
        BundleError: The graph cannot be run.
    """
    bundle = load_bundle(model)
    name = bundle.card.name
    if name not in GOLDEN:
        raise InputError(
            f"{name}: no figures are published that we know of; there are some of "
            f"{', '.join(sorted(GOLDEN))}"
        )
    golden = GOLDEN[name]
    if file is None:
        raise InputError(f"{name}: name the file with the sequences, -f FILE: {golden.file}")
    run = _Runner(bundle)
    if golden.prompts is not None:
        losses = [run.loss(codes) for codes in _prompts(Path(file))]
        mean = sum(losses) / len(losses)
        what = f"mean cross-entropy of {len(losses)} prompts"
        return [Figure(what, mean, golden.prompts, golden.tolerance)]
    genome = Genome(file)
    return [figure for x in golden.regions for figure in _of_region(run, genome, x, golden)]


def _of_region(run: _Runner, genome: Genome, region: Region, golden: Golden) -> Iterator[Figure]:
    codes = _bases(genome, region, golden)
    place = f"{region.contig}:{region.start + 1}-{region.end}"
    if region.masked is None:
        what = f"cross-entropy of {place}"
        yield Figure(what, run.loss(codes), region.expected[0], golden.tolerance)
        return
    logits = run.masked(codes, region.masked)
    for base, found, expected in zip("ACGT", logits, region.expected, strict=True):
        what = f"logit of {base} at {region.contig}:{region.start + region.masked + 1}"
        yield Figure(what, float(found), expected, golden.tolerance)


def _bases(genome: Genome, region: Region, golden: Golden) -> NDArray[np.uint8]:
    name = genome.resolve(region.contig)
    place = f"{region.contig}:{region.start + 1}-{region.end}"
    if name is None or genome.contigs[name] < region.end:
        raise InputError(f"{genome.path}: has no {place}; wanted the {golden.file}")
    # Published with coordinates that may count from 0 or from 1: the digest decides.
    shifts = (0, -1) if region.sha256 else (0,)
    for start in (region.start + shift for shift in shifts):
        codes: NDArray[np.uint8]
        codes = genome.windows(name, np.array([start]), region.end - region.start)[0]
        digest = hashlib.sha256(to_text(codes).encode()).hexdigest()
        if region.sha256 in ("", digest):
            return codes
    raise InputError(f"{genome.path}: other bases at {place}; wanted the {golden.file}")


def _prompts(path: Path) -> list[NDArray[np.uint8]]:
    """Read the first column of the authors' table, below its heading."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head, *rows = [row for row in csv.reader(file) if row] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as prompts.csv: {error}") from error
    if (
        head[:1] != ["Sequence"]
        or not rows
        or any(set(row[0].upper()) - set("ACGTN") for row in rows)
    ):
        raise InputError(f"{path}: wanted a column Sequence of A, C, G and T")
    return [to_codes(row[0].upper()) for row in rows]


class _Runner:
    """Runs one sequence through a bundle as scoring does: replicates are averaged."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        (self._runner,) = open_runners(bundle, Settings())

    def masked(self, codes: NDArray[np.uint8], at: int) -> NDArray[np.float64]:
        """Give the logits of A, C, G, T at a base that is masked."""
        encoded = self.bundle.encoder.encode(codes[None])[0]
        spans = encoded.spans[0]
        touched = (spans[:, 0] <= at) & (at < spans[:, 1])
        rows = mask_rows(encoded.rows, touched, self.bundle.encoder.spec)
        ids = self.bundle.encoder.base_ids(1, 0)
        if ids is None:
            raise BundleError(f"{self.bundle.path}: rows do not stand for single bases")
        logits: NDArray[np.float64] = self._logits(rows)[np.flatnonzero(touched)[0], ids[:, 0]]
        return logits

    def loss(self, codes: NDArray[np.uint8]) -> float:
        """Give the mean cross-entropy of every base but the first, full vocabulary, nats."""
        encoded = self.bundle.encoder.encode(codes[None])[0]
        logits = self._logits(encoded.rows)
        first = int(np.flatnonzero(encoded.spans[0, :, 0] >= 0)[0])
        targets = encoded.rows[0].astype(np.int64)
        total = 0.0
        for row in range(first + 1, targets.size):
            scores = logits[row - 1]
            top = scores.max()
            total += float(top + math.log(np.exp(scores - top).sum()) - scores[targets[row]])
        return float(total / (targets.size - first - 1))

    def _logits(self, rows: Any) -> NDArray[np.float64]:
        try:
            logits = self._runner.run(rows, frozenset({"logits"})).array("logits")
        except PassFailed as error:
            raise BundleError(
                f"{self.bundle.graph}: does not run on {rows.shape[1]} rows; export it with "
                f"--context {rows.shape[1]} or more"
            ) from error
        values: NDArray[np.float64] = logits[0, : rows.shape[1]].astype(np.float64)
        return values
