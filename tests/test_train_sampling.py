"""Where windows come from: BED files, genes and repeats, against brute force over every start."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from train_kit import write_genome, write_run

from glm_annotate.errors import InputError
from glm_annotate.genome import to_text
from glm_annotate.train.config import DataConfig, load_config
from glm_annotate.train.data import load_corpus
from glm_annotate.train.objectives import make_objective
from glm_annotate.train.places import Starts, anywhere, soft_masked, starts_within

CONTEXT = 12


def config(group: dict | None = None, **keys) -> DataConfig:
    groups = [{"name": "a", "fasta": "a.fa", **(group or {})}]
    defaults = {"context": CONTEXT, "reverse_complement": False, "groups": groups}
    return DataConfig.model_validate({**defaults, **keys})


def write(path: Path, sequences: dict[str, str]) -> None:
    path.write_text("".join(f">{name}\n{text}\n" for name, text in sequences.items()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    texts = {name: "".join(rng.choice(list("ACGT"), n)) for name, n in (("x", 200), ("y", 60))}
    write(tmp_path / "a.fa", texts)
    return tmp_path


def all_starts(starts: Starts) -> list[tuple[int, int]]:
    """List contig and start of every window, each as often as it can be drawn."""
    total = int(starts.cumulative[-1])
    contig, start = starts.at((np.arange(total) + 0.5) / total)
    return list(zip(contig.tolist(), start.tolist(), strict=True))


def brute(stretches: list[list[tuple[int, int]]], sizes: list[int], circular: bool) -> set:
    """Mark bases of widened stretches, then keep the windows of marked bases alone."""
    found = set()
    for contig, (parts, size) in enumerate(zip(stretches, sizes, strict=True)):
        marked = set()
        for start, end in parts:
            lack = max(0, CONTEXT - (end - start))
            left, right = start - lack // 2, end + lack - lack // 2
            if not circular and left < 0:
                left, right = 0, right - left
            if not circular and right > size:
                left, right = left - (right - size), size
            marked |= {i % size if circular else i for i in range(left, right)}
        for start in range(size if circular else size - CONTEXT + 1):
            window = {(start + i) % size for i in range(CONTEXT)}
            if window <= marked:
                found.add((contig, start))
    return found


CASES = [
    [[(20, 60)], [(0, 5)]],  # one long, one short at the very start
    [[(0, 200)], []],  # a whole contig, and none of the other
    [[(3, 4), (10, 11), (100, 101)], [(55, 60)]],  # widened ones that join; one at the very end
    [[(150, 200), (0, 20)], [(59, 60), (30, 50)]],  # both sides of the origin
]


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize("stretches", CASES)
def test_windows_lie_within_stretches(stretches, circular):
    arrays = [np.array(x, dtype=np.int64).reshape(-1, 2) for x in stretches]
    found = all_starts(starts_within(arrays, np.array([200, 60]), CONTEXT, circular))
    assert len(found) == len(set(found))
    assert set(found) == brute(stretches, [200, 60], circular)


@pytest.mark.parametrize("circular", [False, True])
def test_contigs_shorter_than_a_window(circular):
    arrays = [np.array([[2, 4]])]
    found = all_starts(starts_within(arrays, np.array([7]), CONTEXT, circular))
    assert found == [(0, i) for i in range(7 if circular else 1)]
    assert found == all_starts(anywhere(np.array([7]), CONTEXT, circular))


def test_bed_files_are_united(folder):
    (folder / "one.bed").write_text("x\t20\t50\nx\t40\t60\ny\t1\t2\n")
    (folder / "two.bed").write_text("x\t60\t80\ty\n")
    corpus = load_corpus(config({"regions": ["one.bed", "two.bed"]}), folder, folder)
    drawn = {to_text(row) for row in corpus.batch(0, 0, 3000, 0.0)}
    text = to_text(corpus.codes)
    x, y = text[:200], text[200:]
    # 20 to 80 is one stretch; y's single base is widened: 5 to the left and moved into 0.
    expected = {x[i : i + CONTEXT] for i in range(20, 80 - CONTEXT + 1)} | {y[:CONTEXT]}
    assert drawn == expected


def test_exons_and_promoters(folder):
    """Two exons and a start each; promoters lie on the side that transcription comes from."""
    rows = [
        ("x", 61, 75, "+", "g1"), ("x", 91, 105, "+", "g1"), ("y", 11, 30, "-", "g2"),
    ]  # fmt: skip
    (folder / "g.gtf").write_text(
        "".join(
            f'{c}\tt\texon\t{a}\t{b}\t.\t{s}\t.\tgene_id "{g}"; transcript_id "{g}t";\n'
            for c, a, b, s, g in rows
        )
    )
    genes = {"gtf": "g.gtf", "upstream": 15, "downstream": 2, "flank": 1}
    corpus = load_corpus(config({"genes": genes}), folder, folder)
    # x: promoter 45-62 and exon 59-76, exon 89-106. y: exon 9-31, promoter 28 to 45.
    stretches = [[(45, 62), (59, 76), (89, 106)], [(9, 31), (28, 45)]]
    starts = corpus.groups[0].starts
    assert set(all_starts(starts)) == brute(stretches, [200, 60], circular=False)


def test_some_windows_come_from_anywhere(folder):
    (folder / "r.bed").write_text("x\t100\t130\n")
    data = config({"regions": ["r.bed"], "random": 0.25})
    corpus = load_corpus(data, folder, folder)
    group, size = corpus.groups[0], 40_000
    contig, start = group.place((np.arange(size) + 0.5) / size)
    inside = (contig == 0) & (start >= 100) & (start <= 130 - CONTEXT)
    assert inside[size // 4 :].all()
    # The first quarter covers all 189 + 49 windows evenly.
    counts = Counter(zip(contig[: size // 4].tolist(), start[: size // 4].tolist(), strict=True))
    assert len(counts) == 189 + 49
    assert max(counts.values()) - min(counts.values()) <= 1


def test_regions_elsewhere_are_an_error(folder):
    (folder / "r.bed").write_text("y\t100\t130\n")
    with pytest.raises(InputError, match=r"r\.bed: line 1: y:100-130 runs past the end"):
        load_corpus(config({"regions": ["r.bed"]}), folder, folder)
    (folder / "r.bed").write_text("y\t10\t30\n")
    data = config({"regions": ["r.bed"]}, exclude=["y"])
    with pytest.raises(InputError, match="group 'a' has regions or genes on none of its contigs"):
        load_corpus(data, folder, folder)


def test_lower_case_is_read(tmp_path):
    write(tmp_path / "a.fa", {"x": "ACgtnNAc", "y": "acgt"})
    found = soft_masked(str(tmp_path / "a.fa"), ["y", "x"])
    assert [x.tolist() for x in found] == [[True] * 4, [c.islower() for c in "ACgtnNAc"]]


@pytest.mark.parametrize("circular", [False, True])
def test_repeats_are_drawn_in_proportion(tmp_path, circular):
    """A window's chance is 1 - (1 - w) x its share of lower-case bases."""
    rng = np.random.default_rng(1)
    letters = rng.choice(list("ACGT"), 80)
    lower = np.zeros(80, dtype=bool)
    lower[20:45] = lower[60:64] = True
    text = "".join(c.lower() if low else c for c, low in zip(letters, lower, strict=True))
    write(tmp_path / "a.fa", {"x": text})
    corpus = load_corpus(config(repeat_sampling=0.2, circular=circular), tmp_path, tmp_path)
    starts = range(80 if circular else 80 - CONTEXT + 1)
    wrapped = np.concatenate([lower, lower])
    chances = np.array([1 - 0.8 * wrapped[i : i + CONTEXT].mean() for i in starts])
    size = 60_000
    windows = corpus.windows(0, 0, size, 0.0)
    double = text.upper() * 2
    place = {double[i : i + CONTEXT]: i for i in starts}
    assert len(place) == len(starts)
    counts = np.bincount([place[to_text(row)] for row in windows.codes], minlength=len(starts))
    expected = size * chances / chances.sum()
    # Chi-square of n - 1 degrees of freedom: mean n - 1, variance 2 (n - 1); six deviations.
    chi = ((counts - expected) ** 2 / expected).sum()
    assert chi < len(starts) - 1 + 6 * np.sqrt(2 * (len(starts) - 1))
    uneven = ((counts - size / len(starts)) ** 2 * len(starts) / size).sum()
    assert uneven > 1000  # the same test tells these counts from even ones
    again = corpus.windows(0, 0, size, 0.0)
    np.testing.assert_array_equal(windows.codes, again.codes)


def test_soft_masks_follow_the_bases(tmp_path):
    """On both strands: the mask of a window is where its letters are lower-case."""
    rng = np.random.default_rng(2)
    text = "".join(rng.choice(list("ACGTacgt"), 50))
    write(tmp_path / "a.fa", {"x": text})
    data = config(repeat_weight=0.5, reverse_complement=True, circular=True)
    windows = load_corpus(data, tmp_path, tmp_path).windows(0, 0, 300, 0.0)
    pairs = str.maketrans("ACGTacgt", "TGCAtgca")
    round_ = text + text
    both = [round_[i : i + CONTEXT] for i in range(50)]
    both += [x[::-1].translate(pairs) for x in both]
    for row, soft in zip(windows.codes, windows.soft, strict=True):
        letters = to_text(row)
        shown = "".join(c.lower() if s else c for c, s in zip(letters, soft, strict=True))
        assert shown in both


def test_a_species_can_be_held_out(folder):
    write(folder / "b.fa", {"z": "ACGT" * 10})
    groups = [
        {"name": "a", "fasta": "a.fa"}, {"name": "b", "fasta": "b.fa", "held_out": True},
    ]  # fmt: skip
    corpus = load_corpus(config(groups=groups), folder, folder)
    assert [g.name for g in corpus.groups] == ["a"]
    assert {name: g.contigs for name, g in corpus.valid.items()} == {"b": ("z",)}
    drawn = {to_text(row) for row in corpus.batch(0, 0, 2000, 0.0)}
    assert not drawn & {("ACGT" * 10)[i : i + CONTEXT] for i in range(29)}
    with pytest.raises(InputError, match="every group is held_out, so nothing is left to train"):
        load_corpus(config(groups=groups[1:]), folder, folder)


def test_validation_can_be_named_in_the_config(folder):
    corpus = load_corpus(config(validation=["y"]), folder, folder)
    assert corpus.groups[0].contigs == ("x",)
    assert corpus.valid["a"].contigs == ("y",)


def test_a_run_that_holds_nothing_out_is_refused(tmp_path):
    write_genome(tmp_path)
    path = write_run(tmp_path)
    path.write_text(path.read_text().replace('validation = ["held"]\n', ""))
    with pytest.raises(InputError, match=r"data\.validation: nothing is held out, so nothing"):
        make_objective(load_config(path), tmp_path, tmp_path)
