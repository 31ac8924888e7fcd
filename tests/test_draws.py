"""Substitutions of a background: which are drawn, how many of each class, and from where."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from cli_kit import write_vcf
from engine import write_fasta

from glm_annotate import draws
from glm_annotate.draws import (
    Match,
    Substitutions,
    choose_matched,
    draw_substitutions,
    read_substitutions,
)
from glm_annotate.errors import InputError
from glm_annotate.genome import Genome, Interval

BASES = "".join(np.random.default_rng(1).choice(list("ACGT"), 3000, p=[0.4, 0.2, 0.1, 0.3]))
CONTIGS = {
    "one": BASES[:40] + "NNNRNacgt" + BASES[49:1200],
    "two": BASES[1200:].lower(),
    "end": "GAT",
}
UPPER = {name: bases.upper() for name, bases in CONTIGS.items()}
Rows = list[tuple[str, int, str, str]]


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    return Genome(write_fasta(tmp_path_factory.mktemp("draws") / "g.fa", CONTIGS))


@pytest.fixture(params=["shuffled", "drawn"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to draw: of all substitutions at once, and some at a time."""
    if request.param == "drawn":
        monkeypatch.setattr(draws, "_SHUFFLED", 0)
        monkeypatch.setattr(draws, "_LEAST_ROUND", 500)
    return request.param


def whole(genome: Genome) -> list[Interval]:
    return [Interval(name, 0, length) for name, length in genome.contigs.items()]


def rows(genome: Genome, found: Substitutions) -> Rows:
    names = list(genome.contigs)
    return [
        (names[c], s, "ACGT"[r], "ACGT"[a])
        for c, s, r, a in zip(
            found.contig.tolist(), found.start.tolist(), found.ref.tolist(), found.alt.tolist(),
            strict=True,
        )
    ]  # fmt: skip


def every(regions: list[Interval], k: int = 1) -> Rows:
    """List the substitutions of some regions, letter by letter."""
    out = []
    for name, bases in UPPER.items():
        inside = {i for x in regions if x.chrom == name for i in range(x.start, x.end)}
        for i in sorted(inside):
            around = bases[max(0, i - k // 2) : i + k // 2 + 1]
            if len(around) == k and set(around) <= set("ACGT"):
                out += [(name, i, bases[i], alt) for alt in "ACGT" if alt != bases[i]]
    return out


def test_all_there_are_and_no_more(genome: Genome) -> None:
    expected = every(whole(genome))
    found = draw_substitutions(genome, whole(genome), len(expected), 0)
    assert rows(genome, found) == expected
    with pytest.raises(InputError, match=f"has {len(expected)} substitutions in the regions, and"):
        draw_substitutions(genome, whole(genome), len(expected) + 1, 0)


@pytest.mark.usefixtures("way")
def test_a_draw_is_of_the_regions_and_of_the_seed(genome: Genome) -> None:
    regions = [Interval("two", 30, 400), Interval("one", 20, 60), Interval("two", 390, 500)]
    allowed = set(every(regions))
    drawn = [rows(genome, draw_substitutions(genome, regions, 400, seed)) for seed in (7, 7, 8)]
    for found in drawn:
        assert len(set(found)) == len(found) == 400
        assert set(found) <= allowed
        assert [x[:2] for x in found] == sorted(x[:2] for x in found)
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.usefixtures("way")
def test_every_substitution_is_as_likely(genome: Genome) -> None:
    regions = [Interval("one", 30, 60)]
    counts: Counter[object] = Counter()
    for seed in range(300):
        counts.update(rows(genome, draw_substitutions(genome, regions, 10, seed)))
    expected = every(regions)
    assert set(counts) == set(expected)
    mean = 300 * 10 / len(expected)
    chi = sum((counts[x] - mean) ** 2 / mean for x in expected)
    assert chi < len(expected) + 5 * (2 * len(expected)) ** 0.5


def test_no_regions_hold_no_substitution(genome: Genome) -> None:
    for regions in ([], [Interval("one", 40, 43)]):
        with pytest.raises(InputError, match="has 0 substitutions in the regions, and 1 are"):
            draw_substitutions(genome, regions, 1, 0)


# --- matched -------------------------------------------------------------------------------------


def class_of(row: tuple[str, int, str, str], k: int) -> str:
    name, start, ref, alt = row
    if not k:
        return "transition" if {ref, alt} in ({"A", "G"}, {"C", "T"}) else "transversion"
    return UPPER[name][start - k // 2 : start + k // 2 + 1] + ">" + alt


@pytest.fixture(scope="module")
def target(genome: Genome, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows]:
    """Substitutions of one region, transitions three times as likely, and what does not count."""
    rng = np.random.default_rng(5)
    listed = every([Interval("two", 0, 900)], k=3)
    weights = np.array([3.0 if class_of(x, 0) == "transition" else 1.0 for x in listed])
    at = np.sort(rng.choice(len(listed), 250, replace=False, p=weights / weights.sum()))
    chosen = [listed[i] for i in at]
    records = [f"{name} {start + 1} {ref} {alt}" for name, start, ref, alt in chosen]
    other = ["one 41 N A", "one 1 GGG A", "end 1 G <DEL>", "two 1 C *", "zzz 5 A C"]
    path = tmp_path_factory.mktemp("target") / "t.vcf"
    return write_vcf(path, records + other), chosen


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("k", [0, 1, 3])
def test_shares_are_those_of_the_other_variants(
    k: int, genome: Genome, target: tuple[Path, Rows]
) -> None:
    path, chosen = target
    wanted = Counter(class_of(x, k) for x in chosen)
    found = draw_substitutions(genome, whole(genome), 500, 3, Match(str(path), k))
    listed = rows(genome, found)
    assert len(set(listed)) == 500
    assert set(listed) <= set(every(whole(genome)))
    # Twice as many of each class, as there are twice as many in all.
    assert Counter(class_of(x, k) for x in listed) == {x: 2 * n for x, n in wanted.items()}


def test_what_is_left_goes_to_the_largest_remainders(genome: Genome, tmp_path: Path) -> None:
    # 4 transitions and 3 transversions: of 10 these are 5.71 and 4.29.
    found = every([Interval("two", 0, 200)])
    some = [x for x in found if class_of(x, 0) == "transition"][:4]
    some += [x for x in found if class_of(x, 0) == "transversion"][:3]
    path = write_vcf(tmp_path / "t.vcf", [f"{c} {s + 1} {r} {a}" for c, s, r, a in some])
    drawn = draw_substitutions(genome, whole(genome), 10, 0, Match(str(path), 0))
    counts = Counter(class_of(x, 0) for x in rows(genome, drawn))
    assert counts == {"transition": 6, "transversion": 4}


@pytest.mark.parametrize("k", [0, 1, 3])
def test_the_most_of_a_pool_is_chosen(
    k: int, genome: Genome, target: tuple[Path, Rows], tmp_path: Path
) -> None:
    path, chosen = target
    listed = every([Interval("one", 60, 1100), Interval("two", 0, 1700)], k=3)
    pool_path = write_vcf(tmp_path / "p.vcf", [f"{c} {s + 1} {r} {a}" for c, s, r, a in listed])
    match = Match(str(path), k)
    pool, wanted = (read_substitutions(str(x), genome, match.context) for x in (pool_path, path))
    assert rows(genome, wanted) == chosen
    found = rows(genome, choose_matched(pool, wanted, match, 1))
    assert set(found) <= set(listed)
    shares, stock = (Counter(class_of(x, k) for x in y) for y in (chosen, listed))
    # The largest total whose shares, rounded down, the pool has.
    total = max(n for n in range(10_000) if all(c * n // 250 <= stock[x] for x, c in shares.items())
                and all(c * n <= stock[x] * 250 for x, c in shares.items()))  # fmt: skip
    expected = {x: c * total // 250 for x, c in shares.items()}
    assert Counter(class_of(x, k) for x in found) == {x: n for x, n in expected.items() if n}
    assert rows(genome, choose_matched(pool, wanted, match, 1)) == found
    assert rows(genome, choose_matched(pool, wanted, match, 2)) != found


def test_a_class_that_is_not_there_is_an_error(genome: Genome, tmp_path: Path) -> None:
    found = every([Interval("two", 0, 300)])
    one, other = (
        [x for x in found if class_of(x, 0) == kind][:5] for kind in ("transition", "transversion")
    )
    paths = [
        write_vcf(tmp_path / f"{i}.vcf", [f"{c} {s + 1} {r} {a}" for c, s, r, a in x])
        for i, x in enumerate((one, one + other))
    ]
    pool, target = (read_substitutions(str(x), genome, 1) for x in paths)
    with pytest.raises(InputError, match="5 of its 10 substitutions are transversions, of which"):
        choose_matched(pool, target, Match(str(paths[1]), 0), 0)
    last = every([Interval("two", 5, 8)], k=3)[0]
    rare = write_vcf(tmp_path / "r.vcf", [f"two {last[1] + 1} {last[2]} {last[3]}"])
    name = class_of(last, 3).replace(">", " to ")
    with pytest.raises(InputError, match=rf"substitutions {name} in the regions, and 900 are"):
        draw_substitutions(genome, whole(genome), 900, 0, Match(str(rare), 3))


def test_variants_of_another_assembly_are_found_out(genome: Genome, tmp_path: Path) -> None:
    turn = str.maketrans("ACGT", "CGTA")
    listed = every([Interval("two", 0, 30)])
    path = write_vcf(
        tmp_path / "t.vcf", [f"{c} {s + 1} {r.translate(turn)} {r}" for c, s, r, _ in listed]
    )
    with pytest.raises(InputError, match="90 of 90 REF alleles are not what"):
        read_substitutions(str(path), genome, 1)
    few = write_vcf(tmp_path / "f.vcf", ["two 1 N A", "zzz 5 A C"])
    with pytest.raises(InputError, match="has no substitution of one base that agrees"):
        read_substitutions(str(few), genome, 1)
