"""Examples of fine-tuning: files in, windows of one length with their values out.

Decisions: a sequence shorter than the window stands in its middle between N, of a longer one the
middle is taken. Relatives are found by long stretches that two sequences share, in either
direction, and families of relatives are never split between training and validation: natural
promoters come with their mutants, and a mutant in validation would only measure memory.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glm_annotate.errors import InputError
from glm_annotate.genome import Codes, Genome, reverse_complement, to_codes
from glm_annotate.train.finetune.config import ExamplesConfig

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_FASTA = (".fa", ".fasta", ".fna")


@dataclass(frozen=True, slots=True)
class Examples:
    """Windows and what is to be said of them.

    Attributes:
        codes: Bases, shape (n, context).
        targets: Values, NaN where unknown, shape (n, targets); or number of the class, (n, 1).
        contigs: Contig of each, empty where there is none.
    """

    codes: Codes
    targets: Floats
    contigs: tuple[str, ...]

    def take(self, which: Ints) -> Examples:
        """Keep some of the examples."""
        contigs = tuple(self.contigs[i] for i in which.tolist())
        return Examples(self.codes[which], self.targets[which], contigs)


@dataclass(frozen=True, slots=True)
class Split:
    """Examples to train on and examples to measure.

    Attributes:
        train: Trained on; `valid`: held out.
        outputs: Names of the predictions: the targets, or the classes.
        files: What was read.
    """

    train: Examples
    valid: Examples
    outputs: tuple[str, ...]
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class _Row:
    """One example as a file gives it; `where` names its place for messages."""

    where: str
    codes: Codes
    values: tuple[str, ...]
    contig: str = ""


def load_examples(
    config: ExamplesConfig, folder: Path, context: int, seed: int, *, classes: bool
) -> Split:
    """Read the examples of a run, and hold some out.

    Args:
        config: The `[finetune.examples]` table.
        folder: What its files are relative to.
        context: Bases of a window.
        seed: Of the choice of families.
        classes: Whether the target is the name of a class.

    Raises:
        InputError: A file or value is not usable, nothing is left on one side, or a sequence that
            is held out has relatives on the other.
    """
    rows = list(_read(config.files, config, folder, context))
    held = list(_read(config.valid_files, config, folder, context))
    names = config.targets
    if classes:
        names = config.classes or tuple(sorted({row.values[0] for row in (*rows, *held)}))
    every = _examples([*rows, *held], names if classes else None, context)
    family = families(every.codes, config.homology)
    apart = np.arange(len(family)) >= len(rows)
    known = set(every.contigs)
    for contig in config.valid_contigs:
        if contig not in known:
            raise InputError(f"finetune.examples.valid_contigs: no example lies on {contig!r}")
    apart |= np.array([contig in config.valid_contigs for contig in every.contigs], dtype=bool)
    if config.valid_fraction:
        apart |= _some_families(family, config.valid_fraction, seed)
    _check_split(config, family, apart)
    train, valid = (every.take(np.flatnonzero(side)) for side in (~apart, apart))
    files = (*config.files, *config.valid_files, *filter(None, [config.fasta]))
    return Split(train, valid, names, tuple(folder / name for name in files))


def families(codes: Codes, length: int) -> Ints:
    """Number the families of sequences (n, L): linked by stretches of `length` bases, shape (n,).

    Stretches are compared with those of the other strand too; none with an N counts.
    """
    n = len(codes)
    label = np.arange(n)
    if codes.shape[1] < length:
        return label
    hashes = np.minimum(_hashes(codes, length), _hashes(reverse_complement(codes), length)[:, ::-1])
    unknown = np.lib.stride_tricks.sliding_window_view(codes > 3, length, axis=1).any(axis=2)
    member = np.broadcast_to(np.arange(n)[:, None], hashes.shape)[~unknown]
    _, stretch = np.unique(hashes[~unknown], return_inverse=True)
    if not member.size:
        return label
    while True:  # each takes the smallest number among its relatives, until none changes
        least = np.full(int(stretch.max()) + 1, n)
        np.minimum.at(least, stretch, label[member])
        new = label.copy()
        np.minimum.at(new, member, least[stretch])
        new = new[new]
        if np.array_equal(new, label):
            return label
        label = new


def _hashes(codes: Codes, length: int) -> NDArray[np.uint64]:
    """Hash every stretch of sequences (n, L), shape (n, L - length + 1)."""
    # Random odd factors, the same in every run.
    factors = np.random.default_rng(17).integers(2**63, size=length, dtype=np.uint64) * 2 + 1
    wide = codes.astype(np.uint64) + np.uint64(1)
    count = codes.shape[1] - length + 1
    total = np.zeros((len(codes), count), dtype=np.uint64)
    for at, factor in enumerate(factors):
        total += wide[:, at : at + count] * factor
    return total


def _some_families(family: Ints, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Choose a fraction of the families, at least one and not all."""
    names = np.unique(family)
    if len(names) < 2:
        raise InputError(
            "finetune.examples.valid_fraction: all sequences are of one family; raise homology, or "
            "hold examples out with valid_files"
        )
    count = min(max(1, round(fraction * len(names))), len(names) - 1)
    chosen = np.random.default_rng((seed, 3)).permutation(names)[:count]
    return np.isin(family, chosen)


def _check_split(config: ExamplesConfig, family: Ints, apart: NDArray[np.bool_]) -> None:
    if not apart.any() or apart.all():
        side = "held out" if not apart.any() else "left to train on"
        raise InputError(f"finetune.examples: no example is {side}")
    shared = np.intersect1d(family[apart], family[~apart])
    if shared.size and not config.allow_leakage:
        related = int(np.isin(family[apart], shared).sum())
        raise InputError(
            f"finetune.examples: {related} of {int(apart.sum())} held-out sequences share "
            f"{config.homology} bases in a row with some that are trained on; use valid_fraction, "
            "which keeps families together, or set allow_leakage"
        )


def _examples(rows: list[_Row], classes: tuple[str, ...] | None, context: int) -> Examples:
    if not rows:
        raise InputError("finetune.examples: the files hold no example")
    codes = np.stack([_fit(row.codes, context) for row in rows])
    numbers = {name: i for i, name in enumerate(classes or ())}
    targets = [
        [_number(row, text) if classes is None else _class(row, text, numbers)]
        for row in rows
        for text in row.values
    ]
    shape = len(rows), len(rows[0].values)
    values = np.array(targets, dtype=np.float32).reshape(shape)
    return Examples(codes, values, tuple(row.contig for row in rows))


def _fit(codes: Codes, context: int) -> Codes:
    """Put a sequence in the middle of a window, or cut its middle out."""
    out = np.full(context, 4, dtype=np.uint8)
    if len(codes) >= context:
        first = (len(codes) - context) // 2
        return codes[first : first + context]
    first = (context - len(codes)) // 2
    out[first : first + len(codes)] = codes
    return out


def _number(row: _Row, text: str) -> float:
    if text in ("", "NA", "nan", "."):
        return float("nan")
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(f"{row.where}: {text!r} is not a number") from error
    if not np.isfinite(value):
        raise InputError(f"{row.where}: {text!r} is not a number")
    return value


def _class(row: _Row, text: str, numbers: dict[str, int]) -> float:
    if text not in numbers:
        raise InputError(
            f"{row.where}: {text!r} is not one of the classes {', '.join(numbers)}; name it in "
            "finetune.examples.classes"
        )
    return float(numbers[text])


# --- files -------------------------------------------------------------------------------------


def _read(
    files: tuple[str, ...], config: ExamplesConfig, folder: Path, context: int
) -> Iterator[_Row]:
    for name in files:
        path = folder / name
        kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
        lines = _lines(path)
        if kind in (".tsv", ".txt"):
            yield from _read_table(path, lines, config)
        elif kind in _FASTA:
            yield from _read_fasta(path, lines, config)
        elif kind == ".bed":
            yield from _read_bed(path, lines, config, folder, context)
        else:
            raise InputError(f"{path}: found {kind or 'no suffix'}, known are .tsv, .fa and .bed")


def _lines(path: Path) -> list[str]:
    try:
        data = path.read_bytes()
        text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        return text.decode("utf-8").splitlines()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error


def _read_table(path: Path, lines: list[str], config: ExamplesConfig) -> Iterator[_Row]:
    head = lines[0].split("\t") if lines else []
    for name in (config.sequence, *config.targets):
        if head.count(name) != 1:
            raise InputError(f"{path}: line 1 has no column {name!r}; it has {', '.join(head)}")
    columns = [head.index(name) for name in config.targets]
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split("\t")
        if len(cells) != len(head):
            raise InputError(
                f"{path}: line {number} has {len(cells)} columns, the header {len(head)}"
            )
        where = f"{path}: line {number}"
        text = cells[head.index(config.sequence)]
        yield _Row(where, _codes(where, text), tuple(cells[i] for i in columns))


def _read_fasta(path: Path, lines: list[str], config: ExamplesConfig) -> Iterator[_Row]:
    starts = [i for i, line in enumerate(lines) if line.startswith(">")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        name, *values = lines[start][1:].split() or [f"record {start + 1}"]
        where = f"{path}: {name}"
        if len(values) < len(config.targets):
            raise InputError(
                f"{where}: has {len(values)} values behind its name, wanted {len(config.targets)}"
            )
        text = "".join(lines[start + 1 : end])
        yield _Row(where, _codes(where, text), tuple(values[: len(config.targets)]))


def _read_bed(
    path: Path, lines: list[str], config: ExamplesConfig, folder: Path, context: int
) -> Iterator[_Row]:
    if config.fasta is None:
        raise InputError(f"{path}: finetune.examples.fasta names no genome for it")
    genome = Genome(folder / config.fasta)
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith(("#", "track", "browser")):
            continue
        where, cells = f"{path}: line {number}", line.split("\t")
        if len(cells) < 3 + len(config.targets):
            raise InputError(
                f"{where}: has {len(cells)} columns, wanted contig, start, end and "
                f"{len(config.targets)} values"
            )
        try:
            start, end = int(cells[1]), int(cells[2])
        except ValueError as error:
            raise InputError(f"{where}: start and end are no whole numbers") from error
        contig = genome.resolve(cells[0])
        if contig is None or not 0 <= start < end <= genome.contigs[contig]:
            raise InputError(f"{where}: {cells[0]}:{start}-{end} is not in {genome.path}")
        left = np.array([(start + end) // 2 - context // 2])
        codes = genome.windows(contig, left, context)[0]
        yield _Row(where, codes, tuple(cells[3 : 3 + len(config.targets)]), cells[0])


def _codes(where: str, text: str) -> Codes:
    if not text.isalpha():
        raise InputError(f"{where}: the sequence is empty or holds other than letters")
    return to_codes(text)
