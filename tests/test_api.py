"""The Python interface: the numbers of the command, and of plain loops over the session."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from cli_kit import call, write_vcf
from engine import write_fasta
from oracle import Haplotype, Oracle
from region_kit import AlongOracle
from toy_tracks import Shape, write_toy

import glm_annotate
from glm_annotate import Interval, load_bundle, score
from glm_annotate.errors import BundleError, InputError, UsageError
from glm_annotate.testing import toy_bundle


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    rng = np.random.default_rng(8)
    made = {name: "".join(rng.choice(list("ACGT"), n)) for name, n in (("lin", 150), ("ring", 70))}
    made["lin"] = made["lin"][:40] + "C" + made["lin"][41:100] + "NNR" + made["lin"][103:]
    return write_fasta(tmp_path_factory.mktemp("genome") / "toy.fa", made)


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toys")
    found = {}
    for kind in ("markov", "prefix", "overlap", "blocks", "causal", "onehot", "bpe"):
        found[kind] = toy_bundle(kind, folder / kind, circular=("ring",), context=24)
    found["halves"] = toy_bundle("wide", folder / "halves", context=24, dim=6, halves="rc")
    return found


@pytest.fixture(scope="module")
def tracks(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("tracks") / "toy", Shape(64, 31, 4, 2))


# --- score ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def variants(genome):
    """Alleles as (chrom, pos, id, ref, alt): all kinds that can and cannot be scored."""
    text = "".join(genome.read_text().split(">lin\n")[1].split(">")[0].split())
    other = {"A": "C", "C": "G", "G": "T", "T": "A"}
    rows = [("lin", i, f"v{i}", text[i - 1], other[text[i - 1]]) for i in (3, 40, 41, 90, 149)]
    rows += [("lin", 41, ".", "C", "T,<DEL>,*,CAG"), ("lin", 60, ".", text[59:63], text[59])]
    rows += [("lin", 5, ".", other[text[4]], text[4]), ("nowhere", 5, ".", "A", "C")]
    return rows


def as_kind(kind, variants, tmp_path):
    if kind == "frame":
        columns = ("CHROM", "pos", "id", "Ref", "alt")
        return pd.DataFrame(variants, columns=columns, index=range(len(variants), 0, -1))
    if kind == "tuples":
        return [(chrom, pos, ref, alt) for chrom, pos, _, ref, alt in variants]
    if kind == "texts":
        return (f"{chrom}:{pos}:{ref}:{alt}" for chrom, pos, _, ref, alt in variants)
    path = tmp_path / "in.vcf"
    lines = ["\t".join(map(str, (*v[:2], *v[2:], ".", ".", "."))) for v in variants]
    write_vcf(path, [])
    path.write_text(path.read_text() + "\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("kind", ["path", "frame", "tuples", "texts"])
def test_a_table_of_alleles_is_that_of_the_command(kind, genome, toys, variants, tmp_path):
    table = tmp_path / "out.tsv"
    source = as_kind("path", variants, tmp_path)
    command = ["-q", "vcf", source, "-f", genome, "-m", f"A={toys['markov']}"]
    command += ["-m", f"B={toys['causal']}", "-s", "LLR,PLLR,EMB_L2", "--tsv", table]
    assert call(*command, "-o", tmp_path / "out.vcf") == 0
    head, *lines = [line.split("\t") for line in table.read_text().splitlines()]
    models = {"A": toys["markov"], "B": toys["causal"]}
    found = score(as_kind(kind, variants, tmp_path), genome, models, ["LLR,PLLR", "EMB_L2"])
    assert list(found.columns) == head
    assert list(found.index) == list(range(len(lines)))
    assert len(lines) == 12
    for name, *cells in zip(head, *lines, strict=True):
        if name == "pos":
            assert found[name].tolist() == [int(x) for x in cells]
        elif name == "id" and kind in ("tuples", "texts"):
            assert set(found[name]) == {"."}
        elif found[name].dtype == np.float64:
            wanted = [math.nan if x == "." else float(x) for x in cells]
            np.testing.assert_array_equal(found[name], wanted)
            assert np.isfinite(wanted).any()
            assert not np.isfinite(wanted).all()
        else:
            assert found[name].tolist() == cells, name
    assert {"SCORED", "SYMBOLIC", "LLR:INDEL", "REF_MISMATCH"} <= set(found["A_STATUS"])


def test_tracks_have_columns_of_numbers_and_of_names(genome, tracks):
    found = score("lin:41:C:T", genome, load_bundle(tracks), "SAD")
    assert found["TRK_SAD_MAX"].dtype == found["TRK_SAD_dnase"].dtype == np.float64
    best = found["TRK_SAD_TOP"][0]
    assert best in {"cage+", "dnase", "rna+", "chip-1.2", "cell%201%3Bx%3D2%2C50%25"}


def test_no_variants_give_an_empty_table_with_its_columns(genome, toys):
    found = score([], genome, toys["markov"], "LLR")
    assert list(found.columns) == ["chrom", "pos", "id", "ref", "alt", "TOY_LLR", "TOY_STATUS"]
    assert (len(found), found["TOY_LLR"].dtype, found["pos"].dtype) == (0, np.float64, np.int64)


def test_whole_numbers_of_chromosomes_are_names(tmp_path, toys):
    fasta = write_fasta(tmp_path / "one.fa", {"chr1": "ACGT" * 20})
    frame = pd.DataFrame({"chrom": [1], "pos": [9], "ref": ["A"], "alt": ["T"]})
    found = score(frame, fasta, toys["markov"], "LLR")
    assert (found["chrom"][0], found["TOY_STATUS"][0]) == ("1", "SCORED")


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        (["lin:41:C:T", "lin-41-C-T"], "number 2 is 'lin-41-C-T'; a variant is 'chr:pos:ref:alt'"),
        ([("lin", 41, "C")], "number 1 is"),
        ([("lin", -1, "C", "T")], "number 1 is 'lin:-1:C:T'"),
        ([("lin", 41.0, "C", "T")], "whole number from 0 up"),
        ([("lin", 41, "C\tG", "T")], "chrom, ref and alt are words"),
        ([("lin", 41, "C", None)], "number 1 is 'lin:41:C:None'"),
        (pd.DataFrame({"chrom": ["lin"], "pos": [1], "alt": ["T"]}), "no column 'ref'"),
    ],
)
def test_what_is_no_variant_is_named(variants, message, genome, toys):
    with pytest.raises(InputError) as error:
        score(variants, genome, toys["markov"])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_tags_and_options_are_checked(genome, toys):
    with pytest.raises(UsageError, match="tag 'low'"):
        score("lin:41:C:T", genome, {"low": toys["markov"]})
    with pytest.raises(UsageError, match="unknown score 'LLX'"):
        score("lin:41:C:T", genome, toys["markov"], "LLX")
    with pytest.raises(UsageError, match="--device tpu"):
        score("lin:41:C:T", genome, toys["markov"], device="tpu")
    with pytest.raises(BundleError, match="no such bundle"):
        score("lin:41:C:T", genome, "nothing-of-that-name")


# --- predict -------------------------------------------------------------------------------------


class Reading(Oracle):
    """What a window says of its bases when nothing is masked."""

    def of_window(self, text, output):
        """Average strands, by base."""
        haps = [Haplotype(text, 0, 0)]
        haps += [haps[0].reversed()] if self.strand == "both" else []
        found = []
        for hap in haps:
            values = [self.of_base(hap, at, output) for at in range(self.length)]
            if hap is not haps[0]:
                values = values[::-1]
                values = [x[::-1] for x in values] if output == "probabilities" else values
            found.append(values)
        return np.mean(found, axis=0)

    def of_base(self, hap, at, output):
        rows = self.rows(hap)
        touched = [t for t, row in enumerate(rows) if row.touches([at])]
        if output == "embedding":
            found = np.mean([self.run(rows)["embedding"][t] for t in touched], axis=0)
            if self.card.embedding.halves == "rc":
                half = found.size // 2
                found = np.array([(found[i] + found[-1 - i]) / 2 for i in range(half)])
            return found
        if self.card.objective == "causal":
            touched = [t for t in touched if t > 0 and rows[t].start == at]
        logp, found = self.log_probabilities(rows), []
        for t in touched:
            ids = self.encoder.ids_by_base(rows[t].end - rows[t].start, at - rows[t].start)
            sums = np.array([sum(math.exp(logp[t][i]) for i in ids[base]) for base in "ACGT"])
            found.append(sums / sums.sum())
        return np.mean(found, axis=0)


LETTERS = "GATTACAGGCTCCATNGGTATCAA"
READ = [(kind, "probabilities") for kind in ("markov", "prefix", "overlap", "blocks", "onehot")]
READ += [("causal", "probabilities"), ("bpe", "embedding"), ("overlap", "embedding")]
READ += [("halves", "embedding"), ("causal", "embedding")]


@pytest.mark.parametrize(("kind", "output"), READ)
def test_sequences_of_a_window_are_read_whole_and_shorter_ones_amid_n(kind, output, toys, genome):
    oracle = Reading(toys[kind], genome)
    short = LETTERS[:11]
    lead = 0 if kind == "causal" else 6
    padded = "N" * lead + short + "N" * (24 - 11 - lead)
    bundle = load_bundle(toys[kind])
    whole, part = bundle.predict([LETTERS, short], output=output, threads=1)
    assert whole.shape[0] == 24
    np.testing.assert_allclose(whole, oracle.of_window(LETTERS, output), rtol=2e-5, atol=2e-6)
    wanted = oracle.of_window(padded, output)[lead : lead + 11]
    np.testing.assert_allclose(part, wanted, rtol=2e-5, atol=2e-6)
    (forward,) = bundle.predict(LETTERS, output=output, strand="forward", threads=1)
    oracle.strand = "forward"
    np.testing.assert_allclose(forward, oracle.of_window(LETTERS, output), rtol=2e-5, atol=2e-6)
    assert np.abs(forward - whole).max() > 1e-3 or kind == "halves"


@pytest.mark.parametrize("chrom", ["lin", "ring"])
def test_intervals_are_read_on_a_grid_of_which_windows_give_their_middle(chrom, toys, genome):
    oracle = Reading(toys["markov"], genome)
    size, parts = oracle.genome.contigs[chrom], []
    for left in range(-6, size, 12):
        parts.append(oracle.of_window(oracle.stretch(chrom, left, 24), "probabilities")[6:18])
    wanted = np.concatenate(parts)[:size]
    bundle = load_bundle(toys["markov"])
    places = [Interval(chrom, 0, size), (chrom, 17, 30), (chrom, 5, 5)]
    whole, part, none = bundle.predict(places, genome, threads=1)
    np.testing.assert_allclose(whole, wanted, rtol=2e-5, atol=2e-6)
    np.testing.assert_array_equal(part, whole[17:30])
    assert none.shape == (0, 4)
    (logits,) = bundle.predict(places[0], str(genome), output="logits", threads=1)
    np.testing.assert_allclose(np.exp(logits), whole, rtol=1e-12)
    if chrom == "lin":  # longer than a window: the same grid
        (same,) = bundle.predict(oracle.text(chrom), threads=1)
        np.testing.assert_array_equal(same, whole)


def test_tracks_are_those_of_the_grid_and_of_single_windows(tracks, genome):
    oracle = AlongOracle(tracks, genome)
    bundle = load_bundle(tracks)
    (found,) = bundle.predict(("lin", 30, 71), genome, threads=1)
    wanted = np.array(oracle.along("lin"), dtype=float)[30 // 4 : 18]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    text = oracle.stretch("lin", 20, 64)
    (window,) = bundle.predict(text, threads=1)
    assert window.shape == (12, 7)
    np.testing.assert_allclose(window, oracle.window_of_bins("lin", 20), rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="sequence 2 has 63 bases; toy tracks reads 64 at a time"):
        bundle.predict([text, text[1:]], threads=1)


def test_what_a_model_does_not_give_is_refused(toys, genome, tracks):
    bundle = load_bundle(toys["bpe"])
    with pytest.raises(UsageError, match="gives embedding"):
        bundle.predict(LETTERS, output="probabilities")
    with pytest.raises(UsageError, match="gives tracks"):
        load_bundle(tracks).predict(LETTERS, output="logits")
    with pytest.raises(UsageError, match="without a genome it takes sequences"):
        bundle.predict([Interval("lin", 3, 9)])
    with pytest.raises(UsageError, match="with one it takes Interval"):
        bundle.predict(LETTERS, genome)
    with pytest.raises(InputError, match=r"lin, 140 to 151 .* does not lie in it: 150 bases"):
        bundle.predict(Interval("lin", 140, 151), genome)
    with pytest.raises(InputError, match="no such contig"):
        bundle.predict(Interval("no", 1, 2), genome)


def test_a_model_with_channels_is_refused(tmp_path):
    channels = [{"name": "a", "source": "msa"}]
    bundle = load_bundle(toy_bundle("markov", tmp_path / "toy", channels=channels))
    with pytest.raises(UsageError, match="reads an alignment or signals beside the bases"):
        bundle.predict(LETTERS)


# --- the package ---------------------------------------------------------------------------------


def test_public_names_are_there_and_load_nothing_before_they_are_asked_for():
    for name in glm_annotate.__all__:
        assert name in dir(glm_annotate)
        assert getattr(glm_annotate, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'scorer'"):
        _ = glm_annotate.scorer
    script = (
        "import sys, glm_annotate\n"
        "assert not [x for x in sys.modules if x.startswith('glm_annotate.')]\n"
        "assert 'numpy' not in sys.modules\n"
        "glm_annotate.score\n"
        "assert not {'pandas', 'onnxruntime', 'torch'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=50)


USE = """
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import glm_annotate
from glm_annotate import Bundle, Interval, load_bundle


def use(frame: pd.DataFrame, folder: Path) -> NDArray[np.float64]:
    bundle: Bundle = load_bundle("mito")
    table: pd.DataFrame = glm_annotate.score(frame, folder / "a.fa", bundle, "LLR", threads=2)
    glm_annotate.score([("chrM", 1, "A", "C")], "a.fa", {"A": "mito"}, ["LLR"], mode="dense")
    glm_annotate.score("chrM:1:A:C", "a.fa", [bundle, "other.zip"])
    first: NDArray[np.float64] = bundle.predict("ACGT", output="embedding")[0]
    bundle.predict([Interval("chrM", 0, 9)], "a.fa", strand="forward", threads=1)
    table.sort_values("MITO_LLR")
    return first
"""
MISUSE = [
    ('glm_annotate.score("a", "b", "c", mode="fast")', "arg-type"),
    ('glm_annotate.score(5, "b", "c")', "arg-type"),
    ('load_bundle("mito").predict("ACGT", output="tokens")', "arg-type"),
    ('load_bundle("mito").predict("ACGT", thread=1)', "call-arg"),
]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_use_is_type_checked_and_misuse_found(tmp_path, repo_dir):
    (tmp_path / "use.py").write_text(USE)
    lines = "".join(f"{line}\n" for line, _ in MISUSE)
    (tmp_path / "misuse.py").write_text(
        f"import glm_annotate\nfrom glm_annotate import load_bundle\n\n{lines}"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "pyproject.toml"]
    files = [str(tmp_path / name) for name in ("use.py", "misuse.py")]
    done = subprocess.run(
        [*command, *files], capture_output=True, text=True, check=False, cwd=repo_dir
    )
    errors = [x for x in done.stdout.splitlines() if ": error:" in x]
    assert [x.partition(":")[2].partition(":")[0] for x in errors] == ["4", "5", "6", "7"], errors
    for line, (_, code) in zip(errors, MISUSE, strict=True):
        assert "misuse.py" in line
        assert line.endswith(f"[{code}]")
