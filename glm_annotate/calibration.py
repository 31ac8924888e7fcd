"""The background of a bundle's scores, and what is said of numbers beside it.

`background.npz` holds the distribution of each score over the alleles of a background, by class of
allele (`sketches`). Numbers are compared as they are written in a VCF, with 6 digits and as 32-bit
floats, so that a score that is taken from an earlier output has the percentile of one that is
computed. It may also hold the mean LLR of each substitution in its context, for `TAG_LLR_ADJ`.
"""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from glm_annotate.answers import Floats, Ints
from glm_annotate.bundle import BACKGROUND, Bundle
from glm_annotate.errors import BundleError
from glm_annotate.genome import Codes, Genome
from glm_annotate.sketches import Singles, Sketch, exceedance, percentile
from glm_annotate.variants import Alleles

logger = logging.getLogger(__name__)

# Alleles are compared with those of their class alone: substitutions of one base, all others.
AlleleClass = Literal["snv", "other"]
CLASSES: tuple[AlleleClass, ...] = get_args(AlleleClass)

# The score that is corrected for its context, and what becomes of it.
CORRECTED, ADJUSTED = "LLR", "LLR_ADJ"
# A mean of fewer alleles says little.
LEAST_OF_CONTEXT = 10
_FORMAT = 1
_WORDS = ("digest", "null", "assembly", "command")
_AGAIN = "run: glm-annotate calibrate again, or leave the background out with --no-calibration"


@dataclass(frozen=True, slots=True)
class Series:
    """The background of one INFO key.

    Attributes:
        meaning: How its numbers are made, see `fields.meaning`: others are not compared with it.
        sketches: By class of allele; classes without numbers are left out.
    """

    meaning: str
    sketches: Mapping[AlleleClass, Sketch]

    def told(self) -> str:
        """Say of how many alleles it is."""
        counts = [x.n if (x := self.sketches.get(kind)) else 0 for kind in CLASSES]
        return f"{counts[0]} substitutions and {counts[1]} other alleles"


@dataclass(frozen=True, slots=True)
class ContextMeans:
    """Mean LLR of single-base substitutions, by context and ALT.

    Attributes:
        k: Bases of a context, the substituted one in the middle; odd.
        means: By `contexts` and ALT code, shape (4**k, 4); `counts`: of alleles.
    """

    k: int
    means: Floats
    counts: Ints

    def of(self, context: Ints, alt: Codes) -> Floats:
        """Look up, shape (n,): NaN for the context -1, and where the mean is of few alleles."""
        known = context >= 0
        at = np.where(known, context, 0), np.where(known, alt, 0)
        return np.where(known & (self.counts[at] >= LEAST_OF_CONTEXT), self.means[at], np.nan)


def context_means(k: int, context: Ints, alt: Codes, numbers: Floats) -> ContextMeans:
    """Average the numbers of a background; alleles with the context -1 or NaN do not count."""
    kept = (context >= 0) & np.isfinite(numbers)
    at, size = context[kept] * 4 + alt[kept], 4 ** (k + 1)
    counts = np.bincount(at, minlength=size)
    sums = np.bincount(at, weights=numbers[kept], minlength=size)
    means = sums / np.where(counts > 0, counts, 1)
    return ContextMeans(k, means.reshape(-1, 4), counts.reshape(-1, 4))


def contexts(genome: Genome, alleles: Alleles, k: int) -> Ints:
    """Number the k bases around each single-base substitution, shape (n,).

    The first base counts most, A, C, G, T are 0 to 3. -1: no substitution of one base, a reason
    not to be scored, or a context with another letter or beyond the end of the contig.
    """
    chosen = np.flatnonzero(is_snv(alleles))
    out = np.full(len(alleles), -1, dtype=np.int64)
    for number in np.unique(alleles.contig[chosen]):
        here = chosen[alleles.contig[chosen] == number]
        codes = genome.windows(
            alleles.contigs[int(number)], alleles.start[here] - k // 2, k, circular=False
        ).astype(np.int64)
        # REF as it is written: the FASTA may have a letter that stands for it.
        codes[:, k // 2] = alleles.ref_base[here]
        numbered = codes @ (4 ** np.arange(k - 1, -1, -1))
        out[here] = np.where((codes < 4).all(axis=1), numbered, -1)
    return out


def is_snv(alleles: Alleles) -> NDArray[np.bool_]:
    """Tell which alleles are substitutions of one base that may be scored, shape (n,)."""
    bases = (alleles.ref_base < 4) & (alleles.alt_base < 4)
    single = (alleles.ref_len == 1) & (alleles.alt_len == 1)
    return np.asarray(bases & single & (alleles.skip == 0))


@dataclass(frozen=True, slots=True)
class Background:
    """What `background.npz` holds.

    Attributes:
        digest: Of the model whose scores these are.
        null: What the background is, in words; `assembly`: of which reference.
        seed: Of the draw.
        command: That made it.
        series: By INFO key without the tag.
        context: Of the LLR, where it was asked for.
    """

    digest: str
    null: str
    assembly: str
    seed: int
    command: str
    series: Mapping[str, Series]
    context: ContextMeans | None = None


def write_background(path: Path, background: Background) -> None:
    """Write a background as .npz, the same bytes for the same background."""
    arrays: dict[str, Any] = {}
    listed = []
    for key, series in background.series.items():
        listed.append({"key": key, "meaning": series.meaning})
        for kind, sketch in series.sketches.items():
            where = f"{len(listed) - 1}.{kind}"
            arrays[f"{where}.values"] = sketch.values
            arrays[f"{where}.below"], arrays[f"{where}.upto"] = sketch.below, sketch.upto
    if background.context is not None:
        arrays["context.means"] = background.context.means
        arrays["context.counts"] = background.context.counts
    about = {
        "format": _FORMAT,
        **{key: getattr(background, key) for key in _WORDS},
        "seed": background.seed,
        "series": listed,
    }
    np.savez_compressed(path, about=np.array(json.dumps(about)), **arrays)


def read_background(bundle: Bundle) -> Background | None:
    """Read the background of a bundle; None where it has none.

    Raises:
        BundleError: It is damaged, or of another model.
    """
    path = bundle.path / BACKGROUND
    if BACKGROUND not in bundle.card.sha256:
        return None
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            found = _parsed({name: file[name] for name in file.files})
    except (OSError, EOFError, ValueError, LookupError, TypeError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path}: not a background of scores: {error}; {_AGAIN}") from error
    if found.digest != bundle.digest:
        raise BundleError(
            f"{path}: the background is of the model with the digest {found.digest[:12]}, this one "
            f"has {bundle.digest[:12]}; {_AGAIN}"
        )
    return found


def _parsed(arrays: Mapping[str, Any]) -> Background:
    about = json.loads(str(arrays["about"]))
    if about["format"] != _FORMAT:
        raise ValueError(f"format {about['format']}, this version reads {_FORMAT}")
    series = {}
    for number, item in enumerate(about["series"]):
        sketches: dict[AlleleClass, Sketch] = {}
        for kind in CLASSES:
            parts = [arrays.get(f"{number}.{kind}.{x}") for x in ("values", "below", "upto")]
            if parts[0] is not None:
                sketches[kind] = _sketch(*parts)
        series[str(item["key"])] = Series(str(item["meaning"]), sketches)
    context = None
    if "context.means" in arrays:
        means, counts = arrays["context.means"], arrays["context.counts"]
        k = (means.size.bit_length() - 1) // 2 - 1
        if means.shape != (4**k, 4) or counts.shape != means.shape:
            raise ValueError(f"means of contexts of the shape {means.shape}")
        context = ContextMeans(k, means, counts)
    words = {key: str(about[key]) for key in _WORDS}
    return Background(seed=int(about["seed"]), series=series, context=context, **words)


def _sketch(values: Any, below: Any, upto: Any) -> Sketch:
    if not values.size or not values.shape == below.shape == upto.shape:
        raise ValueError("counts that do not belong to their values")
    return Sketch(values, below, upto, int(upto[-1]))


@dataclass(frozen=True, slots=True)
class Extra:
    """An INFO key whose numbers are made from those of another one.

    Attributes:
        key: Its name; `source`: the other's.
        description: For the header.
        make: From the numbers of the other, NaN where there is none, and their alleles.
    """

    key: str
    source: str
    description: str
    make: Callable[[Floats, Alleles], Floats]


@dataclass(frozen=True, slots=True)
class Calibration:
    """A background as it is used in one run, on one reference."""

    background: Background
    genome: Genome

    def extras(self, tag: str, key: str, meaning: str, *, upper: bool) -> list[Extra]:
        """List what is said of the numbers of an INFO key.

        Args:
            tag: Of the model.
            key: Of the numbers, without the tag.
            meaning: How they are made.
            upper: Whether only large ones are extreme.
        """
        if not self.fits(key, meaning):
            return []
        means, found = self.background.context, self._compared(tag, key, upper=upper)
        if key != CORRECTED or means is None:
            return found
        around = "of the same base" if means.k == 1 else f"within the same {means.k} bases"
        about = (
            f"{tag}_{key} minus its mean over the background's substitutions {around} by the same "
            "base; substitutions of one base only; "
        )
        made = Extra(f"{tag}_{ADJUSTED}", f"{tag}_{key}", about + self._named(key), self._adjusted)
        return [*found, made, *self._compared(tag, ADJUSTED, upper=upper)]

    def fits(self, key: str, meaning: str) -> bool:
        """Tell whether the background has numbers of a key that were made in the same way."""
        series = self.background.series.get(key)
        return series is not None and series.meaning == meaning

    def tell(self, tag: str, meanings: Mapping[str, str]) -> None:
        """Say which of the numbers of a run the background is not of."""
        for key, meaning in meanings.items():
            if key not in self.background.series:
                logger.info("%s_%s: no percentiles: the background has none of it", tag, key)
            elif not self.fits(key, meaning):
                logger.warning(
                    "%s_%s: no percentiles: the background was made in another way, as %r, this "
                    "run has %r",
                    tag, key, self.background.series[key].meaning, meaning,
                )  # fmt: skip

    def _compared(self, tag: str, key: str, *, upper: bool) -> list[Extra]:
        series, source = self.background.series.get(key), f"{tag}_{key}"
        if series is None:
            return []
        tail = "as large or larger" if upper else "as far out or farther in its tail, doubled"
        share = (
            f"100 x share of the background with a lower {source}, plus half of that with the same"
        )
        chance = (
            f"-log10 of (k + 1) / (n + 1), k of the n alleles of the background have a {source} "
            f"{tail}"
        )
        named, compare = self._named(key), partial(exceedance, upper=upper)
        made: list[tuple[str, str, Callable[[Sketch, Singles], Floats]]]
        made = [("PCT", share, percentile), ("EXC", chance, compare)]
        return [
            Extra(f"{source}_{name}", source, f"{about}; {named}", partial(_by_class, series, way))
            for name, about, way in made
        ]

    def _named(self, key: str) -> str:
        """Name the null."""
        own = self.background
        return f"background: {own.null}, {own.assembly}, {own.series[key].told()}"

    def _adjusted(self, numbers: Floats, alleles: Alleles) -> Floats:
        means = self.background.context
        if means is None:
            raise ValueError("the background has no means of contexts")
        expected = means.of(contexts(self.genome, alleles, means.k), alleles.alt_base)
        return np.asarray(numbers - expected)


def _by_class(
    series: Series,
    compare: Callable[[Sketch, Singles], Floats],
    numbers: Floats,
    alleles: Alleles,
) -> Floats:
    """Compare numbers with those of alleles of the same class, NaN where there are none."""
    out = np.full(numbers.size, np.nan)
    snv = is_snv(alleles)
    for kind, sketch in series.sketches.items():
        here = snv if kind == "snv" else ~snv
        out[here] = compare(sketch, numbers[here].astype(np.float32))
    return out
