"""Training windows: equal to plain slicing, drawn as weighted, never from what is held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from glm_annotate.errors import InputError
from glm_annotate.genome import to_text
from glm_annotate.train.config import DataConfig
from glm_annotate.train.data import load_corpus, stream, window_count

CONTEXT = 12
_PAIRS = str.maketrans("ACGTN", "TGCAN")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two FASTA files: `a.fa` (a1, a2, a3, held, gone, short) and `b.fa` (b1)."""
    rng = np.random.default_rng(0)

    def letters(size: int, alphabet: str) -> str:
        return "".join(rng.choice(list(alphabet), size=size))

    # 30 to 57 random bases: a window of 12 says which contig it is from.
    sizes = {"a1": 30, "a2": 57, "a3": 41, "held": 40, "gone": 44, "short": 5}
    write(tmp_path / "a.fa", {name: letters(size, "ACGT") for name, size in sizes.items()})
    write(tmp_path / "b.fa", {"b1": letters(50, "ACGT")})
    (tmp_path / "own.txt").write_text("a3\n")
    (tmp_path / "held.txt").write_text("held\nb1\n")
    (tmp_path / "gone.txt").write_text("gone\nnot-in-any-fasta\n")
    return tmp_path


def write(path: Path, sequences: dict[str, str]) -> None:
    path.write_text("".join(f">{name}\n{text}\n" for name, text in sequences.items()))


def read(path: Path) -> dict[str, str]:
    lines = path.read_text().split()
    return {name[1:]: text for name, text in zip(lines[::2], lines[1::2], strict=True)}


def config(*groups: dict, **keys) -> DataConfig:
    defaults = {"weight": {"start": 1, "end": 1}}
    return DataConfig.model_validate(
        {"context": CONTEXT, "groups": [{**defaults, **g} for g in groups], **keys}
    )


def slices(text: str, circular: bool) -> set[str]:
    """Cut all windows of a contig by plain slicing."""
    if circular:
        return {(text * 4)[i : i + CONTEXT] for i in range(len(text))}
    padded = text + "N" * max(0, CONTEXT - len(text))
    return {padded[i : i + CONTEXT] for i in range(len(padded) - CONTEXT + 1)}


@pytest.mark.parametrize("circular", [False, True])
def test_windows_are_slices_and_every_slice_comes(folder, circular):
    data = config(
        {"name": "a", "fasta": "a.fa"}, exclude="gone.txt", circular=circular,
        reverse_complement=False,
    )  # fmt: skip
    corpus = load_corpus(data, folder, folder)
    drawn = {to_text(row) for step in range(4) for row in corpus.batch(1, step, 2000, 0.0)}
    texts = read(folder / "a.fa")
    expected = set().union(*(slices(texts[n], circular) for n in texts if n != "gone"))
    assert drawn == expected


def test_half_of_the_windows_are_reverse_complements(folder):
    group = {"name": "b", "fasta": "b.fa"}
    there = load_corpus(config(group, reverse_complement=False), folder, folder)
    both = load_corpus(config(group), folder, folder)
    plain, mixed = there.batch(3, 5, 2000, 0.0), both.batch(3, 5, 2000, 0.0)
    flipped = 0
    for one, other in zip(plain, mixed, strict=True):
        turned = to_text(one)[::-1].translate(_PAIRS)
        assert to_text(other) in (to_text(one), turned)
        flipped += to_text(other) == turned
    # Binomial(2000, 1/2): six standard deviations are 134.
    assert abs(flipped - 1000) < 134


def test_a_contig_is_drawn_in_proportion_to_its_windows(folder):
    data = config({"name": "a", "fasta": "a.fa"}, exclude="gone.txt", reverse_complement=False)
    corpus = load_corpus(data, folder, folder)
    texts = {n: t for n, t in read(folder / "a.fa").items() if n != "gone"}
    size = 20_000
    drawn = [to_text(row) for row in corpus.batch(0, 0, size, 0.0)]
    windows = {name: max(1, len(text) - CONTEXT + 1) for name, text in texts.items()}
    for name, text in texts.items():
        share = windows[name] / sum(windows.values())
        count = sum(window in slices(text, circular=False) for window in drawn)
        assert abs(count - size * share) < 6 * np.sqrt(size * share * (1 - share))


@pytest.mark.parametrize(("anneal", "share"), [(0.0, 0.2), (0.5, 0.5), (1.0, 0.8)])
def test_group_weights_are_followed_and_move(folder, anneal, share):
    data = config(
        {"name": "a", "fasta": "a.fa", "weight": {"start": 1, "end": 16}},
        {"name": "b", "fasta": "b.fa", "weight": {"start": 4, "end": 4}},
        reverse_complement=False,
    )
    if anneal == 0.5:  # (1 + 16) / 2 = 8.5 against 4
        share = 8.5 / 12.5
    corpus = load_corpus(data, folder, folder)
    of_b = slices(read(folder / "b.fa")["b1"], circular=False)
    size = 10_000
    count = sum(to_text(row) not in of_b for row in corpus.batch(0, 0, size, anneal))
    assert abs(count - size * share) < 6 * np.sqrt(size * share * (1 - share))


def test_a_batch_depends_on_seed_and_step_alone(folder):
    data = config({"name": "a", "fasta": "a.fa"})
    one, other = load_corpus(data, folder, folder), load_corpus(data, folder, folder)
    one.batch(1, 0, 7, 0.0)  # no state is left behind
    np.testing.assert_array_equal(one.batch(1, 3, 7, 0.0), other.batch(1, 3, 7, 0.0))
    assert (one.batch(1, 3, 7, 0.0) != one.batch(1, 4, 7, 0.0)).any()
    assert (one.batch(1, 3, 7, 0.0) != one.batch(2, 3, 7, 0.0)).any()
    numbers = [stream(1, 2, kind).random() for kind in (0, 1)]
    assert numbers[0] != numbers[1]


@pytest.mark.parametrize("circular", [False, True])
def test_held_out_and_excluded_contigs_are_never_sampled(folder, circular):
    data = config(
        {"name": "own", "fasta": "a.fa", "accessions": "own.txt"},
        {"name": "rest", "fasta": "a.fa"},
        validation="held_a.txt", exclude="gone.txt", circular=circular, reverse_complement=False,
    )  # fmt: skip
    (folder / "held_a.txt").write_text("held\n")
    corpus = load_corpus(data, folder, folder)
    names = {group.name: group.contigs for group in corpus.groups}
    assert names == {"own": ("a3",), "rest": ("a1", "a2", "short")}
    assert {name: group.contigs for name, group in corpus.valid.items()} == {"rest": ("held",)}
    texts = read(folder / "a.fa")
    withheld = slices(texts["held"], circular) | slices(texts["gone"], circular)
    drawn = {to_text(row) for row in corpus.batch(0, 0, 5000, 0.0)}
    assert not drawn & withheld


@pytest.mark.parametrize("circular", [False, True])
def test_validation_windows_are_a_grid(folder, circular):
    (folder / "held.txt").write_text("held\nshort\n")
    data = config(
        {"name": "a", "fasta": "a.fa"}, validation="held.txt", valid_stride=7, circular=circular
    )
    texts = read(folder / "a.fa")
    expected = []
    for name in ("held", "short"):
        text = texts[name]
        long = text * 4 if circular else text + "N" * CONTEXT
        last = len(text) if circular else max(1, len(text) - CONTEXT + 1)
        expected += [long[start : start + CONTEXT] for start in range(0, last, 7)]
    windows = load_corpus(data, folder, folder).validation("a")
    assert [to_text(row) for row in windows] == expected


@pytest.mark.parametrize(
    ("size", "circular", "count"), [(12, False, 1), (13, False, 2), (5, False, 1), (5, True, 5)]
)
def test_window_count(size, circular, count):
    assert window_count(size, CONTEXT, circular) == count


def test_a_listed_accession_that_is_in_no_fasta(folder):
    (folder / "own.txt").write_text("a3\nmissing\n")
    data = config({"name": "own", "fasta": "a.fa", "accessions": "own.txt"})
    with pytest.raises(InputError, match=r"1 listed accessions are in no FASTA .*'missing'"):
        load_corpus(data, folder, folder)


def test_a_group_without_contigs(folder):
    data = config({"name": "b", "fasta": "b.fa"}, validation="held_b.txt")
    (folder / "held_b.txt").write_text("b1\n")
    with pytest.raises(InputError, match=r"b\.fa: group 'b' has no contig left to sample"):
        load_corpus(data, folder, folder)
