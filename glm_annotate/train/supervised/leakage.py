"""How much of the held-out sequences has a close copy among those trained on.

Words of k bases, a word and its reverse complement being one, are hashed, and those with a small
hash are kept: the same words of every sequence, whatever surrounds them. The share of a held-out
window's kept words that the training sequences have too is its containment. Decision: training
sequences are one set, so a window that is put together from several of them counts as leaked too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glm_annotate.errors import InputError
from glm_annotate.genome import Codes, Genome, Interval, N
from glm_annotate.train.supervised.config import LeakageConfig

logger = logging.getLogger(__name__)

Hashes = NDArray[np.uint64]
_PIECE = 1 << 22  # bases hashed at a time
_LEAST = 10  # words from which a window says something
_ADAPTER = 10  # bases of a word that adapters are told by


@dataclass(frozen=True, slots=True)
class Leakage:
    """What was found.

    Attributes:
        windows: Held-out windows that have words enough.
        leaked: Those whose containment reaches the limit.
        mean: Mean containment.
        worst: Containment of the worst window, and where it begins, as `piece:base`.
        place: See `worst`.
    """

    windows: int
    leaked: int
    mean: float
    worst: float
    place: str

    @property
    def share(self) -> float:
        """Leaked windows, as a part of all."""
        return self.leaked / max(1, self.windows)

    @property
    def text(self) -> str:
        """In one line."""
        return (
            f"{self.leaked} of {self.windows} held-out windows ({self.share:.1%}) have a copy "
            f"among the training sequences; mean containment {self.mean:.4f}, worst "
            f"{self.worst:.3f} at {self.place}"
        )


def hash_words(codes: Codes, k: int) -> tuple[Hashes, NDArray[np.bool_]]:
    """Hash the word that begins at each base, shape (n - k + 1,), and say which have no N."""
    count = codes.size - k + 1
    if count < 1:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.bool_)
    bases = np.minimum(codes, 4).astype(np.uint64)
    forward, reverse = (np.zeros(count, dtype=np.uint64) for _ in range(2))
    known = np.ones(count, dtype=np.bool_)
    two = np.uint64(2)
    for i in range(k):
        column = bases[i : i + count]
        forward = (forward << two) | (column & np.uint64(3))
        reverse |= (np.uint64(3) - (column & np.uint64(3))) << np.uint64(2 * i)
        known &= column < 4
    return _mix(np.minimum(forward, reverse)), known


def _mix(x: Hashes) -> Hashes:
    """Scatter numbers evenly over 64 bits: the finaliser of splitmix64."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: Hashes = x ^ (x >> np.uint64(31))
    return mixed


def kept_words(codes: Codes, k: int, scaled: int) -> Iterator[tuple[NDArray[np.int64], Hashes]]:
    """Yield places and hashes of the words that are looked at, a piece of the sequence a time."""
    limit = np.uint64((1 << 64) // scaled - 1)
    for start in range(0, codes.size, _PIECE):
        hashes, known = hash_words(codes[start : start + _PIECE + k - 1], k)
        at = np.flatnonzero(known & (hashes <= limit))
        yield at + start, hashes[at]


def sketch(sequences: Iterable[Codes], k: int, scaled: int) -> Hashes:
    """Collect the words of sequences, sorted, each once; one word of `scaled` is kept."""
    each = [hashes for codes in sequences for _, hashes in kept_words(codes, k, scaled)]
    return np.unique(np.concatenate(each)) if each else np.empty(0, dtype=np.uint64)


def without_adapters(sequences: Sequence[Codes]) -> list[Codes]:
    """Replace what most of short sequences have in common by N: it makes none a copy of another."""
    k = _ADAPTER
    each = [hash_words(codes, k) for codes in sequences]
    words = np.concatenate([np.unique(hashes[known]) for hashes, known in each])
    found, times = np.unique(words, return_counts=True)
    adapters = found[times > len(sequences) / 2]
    out = []
    for codes, (hashes, known) in zip(sequences, each, strict=True):
        hit = np.flatnonzero(known & np.isin(hashes, adapters))
        masked = codes.copy()
        masked[(hit[:, None] + np.arange(k)).ravel()] = N
        out.append(masked)
    return out


def clusters(sequences: Sequence[Codes], k: int) -> NDArray[np.int64]:
    """Group sequences that share a word of k bases, directly or by way of others.

    Returns:
        Number of the first member of each sequence's group, shape (n,).
    """
    each = [np.unique(hashes[known]) for hashes, known in (hash_words(x, k) for x in sequences)]
    owner = np.repeat(np.arange(len(each)), [x.size for x in each])
    words, word = np.unique(np.concatenate(each), return_inverse=True)
    label = np.arange(len(each))
    while True:
        # The least label that a word has been given goes to all who have the word.
        least = np.full(words.size, len(each))
        np.minimum.at(least, word, label[owner])
        new = label.copy()
        np.minimum.at(new, owner, least[word])
        new = new[new]
        if np.array_equal(new, label):
            return label
        label = new


def measure(
    held_out: Iterable[tuple[str, Codes]], training: Hashes, config: LeakageConfig, scaled: int
) -> Leakage:
    """Compare held-out sequences with the words of the training sequences.

    Args:
        held_out: Name and base codes of each.
        training: Of `sketch`.
        config: Sizes and limits.
        scaled: As of the training words.
    """
    found: list[NDArray[np.float64]] = []
    worst, place = 0.0, "none"
    for name, codes in held_out:
        count = -(-codes.size // config.window)
        words, hits = (np.zeros(count, dtype=np.int64) for _ in range(2))
        for at, hashes in kept_words(codes, config.k, scaled):
            window = at // config.window
            index = np.searchsorted(training, hashes)
            there = index < training.size
            there[there] = training[index[there]] == hashes[there]
            words += np.bincount(window, minlength=count)
            hits += np.bincount(window[there], minlength=count)
        enough = np.flatnonzero(words >= _LEAST)
        share = hits[enough] / words[enough]
        if share.size and share.max() > worst:
            worst, place = float(share.max()), f"{name}:{enough[share.argmax()] * config.window}"
        found.append(share)
    shares = np.concatenate(found) if found else np.empty(0)
    mean = float(shares.mean()) if shares.size else 0.0
    return Leakage(
        shares.size, int((shares >= config.contained).sum()), mean, round(worst, 6), place
    )


def check(found: Leakage, config: LeakageConfig) -> Leakage:
    """Log what was found, and refuse a split that leaks.

    Raises:
        InputError: More windows have leaked than `most` allows, and `allow` is not set.
    """
    logger.info("leakage: %s", found.text)
    if found.share > config.most and not config.allow:
        raise InputError(
            f"split: {found.text}; allowed are {config.most:.1%}; hold other contigs out, or go "
            "on with supervised.leakage.allow = true"
        )
    return found


def check_split(
    genome: Genome, train: Sequence[Interval], held_out: Sequence[Interval], config: LeakageConfig
) -> Leakage:
    """Compare the held-out stretches of a genome with those trained on.

    Raises:
        InputError: See `check`.
    """
    training = sketch(
        (_read(genome, x, config.soft_masked) for x in train), config.k, config.scaled
    )
    pairs = ((f"{x.chrom}:{x.start}", _read(genome, x, config.soft_masked)) for x in held_out)
    return check(measure(pairs, training, config, config.scaled), config)


def _read(genome: Genome, stretch: Interval, soft_masked: bool) -> Codes:
    """Read a stretch; soft-masked bases become N unless they are wanted."""
    codes = genome.codes(stretch.chrom)[stretch.start : stretch.end]
    if soft_masked:
        return codes
    import pysam

    with pysam.FastaFile(genome.path) as fasta:  # `Genome` drops the case
        text = fasta.fetch(stretch.chrom, stretch.start, stretch.end).encode("latin-1")
    lower = np.frombuffer(text, dtype=np.uint8) >= ord("a")
    # A FASTA that is lower-case throughout has no masks.
    return codes if lower.all() else np.where(lower, np.uint8(N), codes)
