"""Examples of fine-tuning: files, windows, families and splits, and figures on what is held out."""

from __future__ import annotations

import gzip
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, pearsonr
from test_docs import check_keys

from glm_annotate.errors import InputError
from glm_annotate.genome import to_codes, to_text
from glm_annotate.train.finetune import config
from glm_annotate.train.finetune.config import ExamplesConfig
from glm_annotate.train.finetune.data import families, load_examples
from glm_annotate.train.finetune.figures import measure

RNG = np.random.default_rng(0)
LONG = ["".join(RNG.choice(list("ACGT"), 40)) for _ in range(6)]


def load(folder, *, context=40, named=False, seed=0, **config):
    values = {"targets": ["y"], "valid_fraction": 0.3, "homology": 20, **config}
    return load_examples(
        ExamplesConfig.model_validate(values), folder, context, seed, classes=named
    )


def write(path, text):
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path.name


def pairs(split):
    """All windows and their values, as text."""
    both = [split.train, split.valid]
    return sorted(
        (to_text(codes), *values)
        for x in both
        for codes, values in zip(x.codes, x.targets.tolist(), strict=True)
    )


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz", "a.fa", "a.fasta.gz", "a.bed"])
def test_every_format_gives_the_same_examples(tmp_path, name):
    values = [(float(i), -i / 2) for i in range(6)]
    rows = [(s, *v) for s, v in zip(LONG, values, strict=True)]
    more = {}
    if ".tsv" in name:
        lines = ["id\tz\tsequence\ty"] + [f"i\t{b}\t{s.lower()}\t{a}" for s, a, b in rows]
    elif ".bed" in name:
        write(tmp_path / "g.fa", "".join(f">c{i}\nTTT{s}GG\n" for i, s in enumerate(LONG)))
        # Regions of other lengths with the same middle.
        lines = ["track x", "#y"] + [
            f"c{i}\t{8 + i}\t{38 - i}\t{a}\t{b}\trest" for i, (_, a, b) in enumerate(rows)
        ]
        more = {"fasta": "g.fa"}
    else:
        lines = [f">n{i} {a} {b} more\n{s[:13]}\n{s[13:]}" for i, (s, a, b) in enumerate(rows)]
    write(tmp_path / name, "\n".join(lines) + "\n")
    split = load(tmp_path, files=[name], targets=["y", "z"], **more)
    assert pairs(split) == sorted(rows)
    assert split.outputs == ("y", "z")
    assert len(split.valid.codes) == 2


def test_windows_are_filled_up_with_n_or_cut_to_their_middle(tmp_path):
    write(tmp_path / "a.tsv", f"sequence\ty\n{LONG[0]}\t1\nACGTA\t2\n{LONG[1]}T\t3\n")
    found = dict(pairs(load(tmp_path, files=["a.tsv"], context=10)))
    assert found == {LONG[0][15:25]: 1, "NNACGTANNN": 2, LONG[1][15:25]: 3}


def test_unknown_values_are_nan(tmp_path):
    text = "".join(
        f"{s}\t{v}\n" for s, v in zip(LONG, ["1", "NA", "", ".", "nan", "2"], strict=True)
    )
    write(tmp_path / "a.tsv", "sequence\ty\n" + text)
    split = load(tmp_path, files=["a.tsv"])
    values = np.concatenate([split.train.targets, split.valid.targets])
    assert np.isnan(values).sum() == 4


@pytest.mark.parametrize(
    ("classes", "names"), [((), ("in", "out")), (("out", "in"), ("out", "in"))]
)
def test_classes_are_numbered_in_order(tmp_path, classes, names):
    text = "".join(f"{s}\t{'in' if i % 2 else 'out'}\n" for i, s in enumerate(LONG))
    write(tmp_path / "a.tsv", "sequence\ty\n" + text)
    split = load(tmp_path, files=["a.tsv"], named=True, classes=classes)
    assert split.outputs == names
    wanted = [(s, names.index("in" if i % 2 else "out")) for i, s in enumerate(LONG)]
    assert pairs(split) == sorted(wanted)


# Families


def related(one, other, length):
    """Whether two sequences share a stretch without N, in either direction."""
    stretches = []
    for text in (one, other):
        inner = {text[i : i + length] for i in range(len(text) - length + 1)}
        stretches.append({x for x in inner if "N" not in x})
    turned = {x[::-1].translate(str.maketrans("ACGT", "TGCA")) for x in stretches[1]}
    return bool(stretches[0] & (stretches[1] | turned))


def by_hand(texts, length):
    label = list(range(len(texts)))
    changed = True
    while changed:
        changed = False
        for i, j in itertools.combinations(range(len(texts)), 2):
            if label[i] != label[j] and related(texts[i], texts[j], length):
                low, high = sorted((label[i], label[j]))
                label = [low if x == high else x for x in label]
                changed = True
    return label


@given(
    st.lists(st.text("ACGTN", min_size=24, max_size=24), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11), st.integers(0, 11), st.booleans())),
)
def test_families_are_those_of_a_search_by_hand(texts, copies):
    length = 13
    for source, target, at, turned in copies:
        piece = texts[source % len(texts)][:length]
        if turned:
            piece = piece[::-1].translate(str.maketrans("ACGT", "TGCA"))
        where = target % len(texts)
        texts[where] = texts[where][:at] + piece + texts[where][at + length :]
    found = families(np.stack([to_codes(x) for x in texts]), length)
    wanted = by_hand(texts, length)
    same = [found[i] == found[j] for i, j in itertools.combinations(range(len(texts)), 2)]
    assert same == [wanted[i] == wanted[j] for i, j in itertools.combinations(range(len(texts)), 2)]


def mutants(count):
    """Families of a parent and mutants of it, one base away each."""
    rows = []
    for parent in LONG:
        for i in range(count):
            at = 3 + 5 * i
            rows.append(parent[:at] + ("A" if parent[at] != "A" else "C") + parent[at + 1 :])
    return rows


def test_families_are_never_split(tmp_path):
    rows = mutants(3)
    write(
        tmp_path / "a.tsv",
        "sequence\ty\n" + "".join(f"{s}\t{i // 3}\n" for i, s in enumerate(rows)),
    )
    chosen = set()
    for seed in range(4):
        split = load(tmp_path, files=["a.tsv"], seed=seed)
        held = sorted(split.valid.targets[:, 0].tolist())
        assert len(held) == 6  # 2 of 6 families are 0.3 of them
        assert len(set(held)) == 2
        assert not set(held) & set(split.train.targets[:, 0].tolist())
        again = load(tmp_path, files=["a.tsv"], seed=seed)
        assert np.array_equal(again.valid.codes, split.valid.codes)
        chosen.add(tuple(held))
    assert len(chosen) > 1


def test_leakage_is_refused_unless_it_is_allowed(tmp_path):
    rows = mutants(2)
    write(tmp_path / "a.tsv", "sequence\ty\n" + "".join(f"{s}\t1\n" for s in rows[:8]))
    write(tmp_path / "b.tsv", "sequence\ty\n" + "".join(f"{s}\t2\n" for s in rows[7:]))
    config = {"files": ["a.tsv"], "valid_files": ["b.tsv"], "valid_fraction": 0.0}
    with pytest.raises(InputError, match="1 of 5 held-out sequences share 20 bases in a row"):
        load(tmp_path, **config)
    split = load(tmp_path, **config, allow_leakage=True)
    assert split.valid.targets[:, 0].tolist() == [2] * 5
    assert len(split.train.codes) == 8


def test_contigs_are_held_out(tmp_path):
    write(tmp_path / "g.fa", "".join(f">c{i}\n{s}\n" for i, s in enumerate(LONG)))
    write(tmp_path / "a.bed", "".join(f"c{i}\t0\t40\t{i}\n" for i in range(6)))
    config = {"files": ["a.bed"], "fasta": "g.fa", "valid_fraction": 0.0}
    split = load(tmp_path, **config, valid_contigs=["c4", "c1"])
    assert split.valid.contigs == ("c1", "c4")
    assert split.valid.targets[:, 0].tolist() == [1, 4]
    assert {x.name for x in split.files} == {"a.bed", "g.fa"}
    with pytest.raises(InputError, match="no example lies on 'c9'"):
        load(tmp_path, **config, valid_contigs=["c9"])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "", "line 1 has no column 'sequence'"),
        ("a.tsv", "sequence\ty\nACGT\n", "line 2 has 1 columns, the header 2"),
        ("a.tsv", "sequence\ty\nAC-T\t1\n", "line 2: the sequence is empty or holds other"),
        ("a.tsv", "sequence\ty\nACGT\tinf\n", "line 2: 'inf' is not a number"),
        ("a.tsv", "sequence\ty\nACGT\tx\n", "line 2: 'x' is not a number"),
        ("a.tsv", "sequence\ty\n", "the files hold no example"),
        ("a.tsv", "sequence\ty\nACGT\t1\n", "all sequences are of one family"),
        ("a.fa", ">n\nACGT\n", "a.fa: n: has 0 values behind its name, wanted 1"),
        ("a.fa", ">\nACGT\n", "has 0 values behind its name"),
        ("a.bed", "c\t1\t2\t1\n", "finetune.examples.fasta names no genome"),
        ("a.csv", "x", "found .csv, known are .tsv, .fa and .bed"),
        ("a.tsv.gz", "x", "has no column 'sequence'"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, name, text, message):
    write(tmp_path / name, text)
    with pytest.raises(InputError) as caught:
        load(tmp_path, files=[name], context=4)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("c\t1\t2", "line 1: has 3 columns"),
        ("c\tx\t2\t1", "start and end are no whole numbers"),
        ("c\t5\t99\t1", "c:5-99 is not in"),
        ("d\t1\t2\t1", "d:1-2 is not in"),
    ],
)
def test_bad_regions_are_refused(tmp_path, line, message):
    write(tmp_path / "g.fa", ">c\nACGTACGTAC\n")
    write(tmp_path / "a.bed", line + "\n")
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        load(tmp_path, files=["a.bed"], fasta="g.fa", context=4)


def test_a_missing_file_and_a_foreign_class_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path, files=["no.tsv"])
    write(tmp_path / "a.tsv", f"sequence\ty\n{LONG[0]}\ta\n{LONG[1]}\tb\n")
    with pytest.raises(InputError, match="'b' is not one of the classes a"):
        load(tmp_path, files=["a.tsv"], named=True, classes=["a", "c"])
    same = f"sequence\ty\n{LONG[0]}\t1\n{LONG[0]}\t2\n"
    write(tmp_path / "b.tsv", same)
    with pytest.raises(InputError, match="all sequences are of one family"):
        load(tmp_path, files=["b.tsv"])


# Figures


def test_figures_of_numbers():
    found, wanted = RNG.normal(size=(20, 2)), RNG.normal(size=(20, 2))
    wanted[:5, 1] = np.nan
    figures = measure("mse", found, wanted)
    known = ~np.isnan(wanted)
    assert figures["mse"].value == pytest.approx(((found - wanted)[known] ** 2).mean())
    r = [pearsonr(found[known[:, i], i], wanted[known[:, i], i])[0] for i in (0, 1)]
    assert figures["pearson"].value == pytest.approx(np.mean(r))
    assert [(figures[k].count, figures[k].better) for k in ("mse", "pearson")] == [
        (35, "lower"), (35, "higher"),
    ]  # fmt: skip
    assert set(measure("mse", found[:, :1] * 0, wanted[:, :1])) == {"mse"}


def test_figures_of_counts():
    found, wanted = np.array([[2.0], [1.0]]), np.array([[3.0], [0.0]])
    figures = measure("poisson", found, wanted)
    assert figures["poisson"].value == pytest.approx((2 - 3 * np.log(2) + 1) / 2, abs=1e-5)
    assert figures["pearson"].value == pytest.approx(1)


def test_figures_of_labels():
    found = np.round(RNG.random((30, 1)), 1)  # with ties
    wanted = (RNG.random((30, 1)) < 0.4).astype(float)
    figures = measure("bce", np.clip(found, 0.05, 0.95), wanted)
    statistic = mannwhitneyu(found[wanted == 1], found[wanted == 0]).statistic
    pairs = wanted.sum() * (30 - wanted.sum())
    assert figures["auroc"].value == pytest.approx(statistic / pairs)
    p = np.where(wanted == 1, np.clip(found, 0.05, 0.95), 1 - np.clip(found, 0.05, 0.95))
    assert figures["bce"].value == pytest.approx(-np.log(p).mean())
    assert set(measure("bce", found, np.ones((30, 1)))) == {"bce"}


def test_figures_of_classes():
    found = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.6, 0.3, 0.1]])
    figures = measure("cross_entropy", found, np.array([[0.0], [2.0], [1.0]]))
    assert figures["accuracy"].value == pytest.approx(2 / 3)
    assert figures["cross_entropy"].value == pytest.approx(-np.log([0.5, 0.8, 0.3]).mean())


@pytest.mark.parametrize("name", ["FinetuneConfig", "HeadConfig", "LoraConfig", "ExamplesConfig"])
def test_every_key_is_explained(name):
    check_keys("docs/training/finetune.md", name, getattr(config, name).model_fields)
