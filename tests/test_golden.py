"""`models check --golden`: the published figures, and how a bundle is compared with them."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from cli_kit import call
from engine import write_fasta

from glm_annotate import golden
from glm_annotate.bundle import load_bundle
from glm_annotate.errors import InputError
from glm_annotate.golden import GOLDEN, Figure, Golden, Region, check_golden
from glm_annotate.testing import toy_bundle

BASES = "".join(np.random.default_rng(2).choice(list("ACGT"), 300))
IDS = {"A": 7, "C": 8, "G": 9, "T": 10}


def run(bundle: Path, ids: list[int]) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(bundle / "model.onnx"))
    return session.run(["logits"], {"rows": np.array([ids])})[0][0].astype(float)


def loss(bundle: Path, bases: str) -> float:
    """Mean of -log p(base | what precedes it), the first base left out, by plain loops."""
    logits = run(bundle, [IDS[b] for b in bases])
    losses = []
    for t in range(1, len(bases)):
        exps = [math.exp(x) for x in logits[t - 1]]
        losses.append(-math.log(exps[IDS[bases[t]]] / sum(exps)))
    return sum(losses) / len(losses)


@pytest.fixture
def fasta(tmp_path):
    return write_fasta(tmp_path / "genome.fa", {"5": "ACGTT" + BASES})


@pytest.fixture
def causal(tmp_path):
    return toy_bundle("causal", tmp_path / "causal", bos=False, context=200, name="causal-official")


def test_losses_of_regions(causal, fasta, monkeypatch, capsys):
    wanted = loss(causal, BASES[10:110]), loss(causal, BASES[50:150])
    regions = (
        Region("chr5", 15, 115, None, (wanted[0],)),
        Region("chr5", 55, 155, None, (wanted[1] + 0.01,)),
    )
    entry = Golden("toy genome", "a hand calculation", 1e-4, regions)
    monkeypatch.setitem(GOLDEN, "causal-official", entry)
    first, second = check_golden(causal, fasta)
    assert first.found == pytest.approx(wanted[0], abs=1e-6)
    assert (first.good, second.good) == (True, False)
    assert first.what == "cross-entropy of chr5:16-115"
    assert call("models", "check", causal, "--golden", "-f", fasta) == 1
    out = capsys.readouterr().out
    assert "ok   cross-entropy of chr5:16-115" in out
    assert "BAD  cross-entropy of chr5:56-155" in out
    monkeypatch.setitem(GOLDEN, "causal-official", Golden("x", "x", 0.02, regions))
    assert call("models", "check", causal, "--golden", "-f", fasta) == 0


@pytest.mark.parametrize("start", [25, 26])
def test_logits_at_a_masked_base_where_coordinates_may_count_from_one(
    tmp_path, fasta, monkeypatch, start
):
    bundle = toy_bundle("markov", tmp_path / "markov", name="masked-official")
    vocab = load_bundle(bundle).card.encoder.vocab
    window = BASES[20:60]
    ids = [vocab.first_id + "ACGT".index(b) for b in window]
    ids[11] = vocab.mask_id
    wanted = tuple(run(bundle, ids)[11, vocab.first_id + i] for i in range(4))
    digest = hashlib.sha256(window.encode()).hexdigest()
    region = Region("chr5", start, start + 40, 11, wanted, digest)
    monkeypatch.setitem(GOLDEN, "masked-official", Golden("toy genome", "x", 1e-5, (region,)))
    figures = check_golden(bundle, fasta)
    assert [f.what[:10] for f in figures] == [f"logit of {b}" for b in "ACGT"]
    assert all(figure.good for figure in figures)
    assert len({round(figure.found, 3) for figure in figures}) == 4


def test_replicates_are_averaged(tmp_path, fasta, monkeypatch):
    """The mean of logits, which is neither the first replicate's loss nor the mean of losses."""
    bundle = toy_bundle(
        "causal", tmp_path / "three", bos=False, context=200, name="three", replicates=3
    )
    ids = [IDS[b] for b in BASES[10:60]]
    logits = []
    for i in range(3):
        session = onnxruntime.InferenceSession(str(bundle / f"model.{i}.onnx"))
        logits.append(session.run(["logits"], {"rows": np.array([ids])})[0][0].astype(float))

    def loss_of(values: np.ndarray) -> float:
        logs = values - np.log(np.exp(values).sum(axis=1, keepdims=True))
        return -float(np.mean([logs[t, ids[t + 1]] for t in range(len(ids) - 1)]))

    wanted = loss_of(np.mean(logits, axis=0))
    assert min(abs(wanted - loss_of(x)) for x in logits) > 1e-3
    region = Region("chr5", 15, 65, None, (wanted,))
    monkeypatch.setitem(GOLDEN, "three", Golden("toy genome", "x", 1e-5, (region,)))
    (figure,) = check_golden(bundle, fasta)
    assert figure.good


def test_prompts(causal, tmp_path, monkeypatch):
    prompts = tmp_path / "prompts.csv"
    texts = [BASES[:90], BASES[100:260].lower()]
    lines = "".join(f"{text},name,12\n" for text in texts)
    prompts.write_text(f"\ufeffSequence,Name,Percent\n{lines}", encoding="utf-8")
    wanted = sum(loss(causal, text.upper()) for text in texts) / 2
    monkeypatch.setitem(GOLDEN, "causal-official", Golden("x", "x", 1e-5, prompts=wanted))
    (figure,) = check_golden(causal, prompts)
    assert figure.good
    assert figure.found == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("unknown", "genome.fa", r"unknown: no figures are published .*gpn-brassicales"),
        ("hyenadna-small-32k-seqlen", None, r"-f FILE: human genome \(hg38\)"),
        (
            "hyenadna-small-32k-seqlen-hf",
            "genome.fa",
            r"has no chr1:100000001-100001000; wanted the human",
        ),
        ("evo2-7b", "none.csv", r"none\.csv: cannot be read as prompts\.csv"),
        ("evo2-7b", "genome.fa", "wanted a column Sequence of A, C, G and T"),
    ],
)
def test_what_cannot_be_compared_says_why(tmp_path, fasta, name, file, message):
    bundle = toy_bundle("causal", tmp_path / "b", bos=False, name=name)
    with pytest.raises(InputError, match=message):
        check_golden(bundle, tmp_path / file if file else None)


def test_another_genome_is_recognised(tmp_path, fasta, monkeypatch):
    bundle = toy_bundle("markov", tmp_path / "markov", name="masked-official")
    region = Region("chr5", 25, 65, 11, (0.0,) * 4, "0" * 64)
    monkeypatch.setitem(GOLDEN, "masked-official", Golden("toy genome", "x", 1e-5, (region,)))
    with pytest.raises(InputError, match="other bases at chr5:26-65; wanted the toy genome"):
        check_golden(bundle, fasta)


def test_a_window_that_the_graph_cannot_hold(causal, monkeypatch, tmp_path):
    # The graph of this toy has positions for its context of 200 bases only.
    prompts = tmp_path / "prompts.csv"
    prompts.write_text(f"Sequence\n{BASES}\n")
    monkeypatch.setitem(GOLDEN, "causal-official", Golden("x", "x", 1e-5, prompts=1.0))
    with pytest.raises(golden.BundleError, match="does not run on 300 rows; export it with --con"):
        check_golden(causal, prompts)


def test_nan_is_not_good():
    assert not Figure("x", float("nan"), 1.0, 0.1).good


def test_a_file_without_golden_is_refused(causal, fasta, capsys):
    assert call("models", "check", causal, "-f", fasta) == 2
    assert "-f is for --golden" in capsys.readouterr().err


@pytest.mark.parametrize("name", GOLDEN)
def test_trap_the_name_is_the_one_that_an_export_from_the_hub_gives(name, monkeypatch):
    """Figures under another name would never be found, and nobody would be told."""
    pytest.importorskip("torch")
    from glm_annotate.train import subjects
    from glm_annotate.train.families.family import Loaded, Network, Source

    ((family, official, release),) = [
        (family, official, release)
        for family in subjects.FAMILIES.values()
        for official in family.official
        for release in official.releases
        if release.name == name
    ]
    network = Network()
    network.dim = network.vocabulary = 1
    reader = replace(official, recognise=lambda source: True, load=lambda *_: Loaded(network, {}))
    monkeypatch.setitem(subjects.FAMILIES, family.name, replace(family, official=(reader,)))
    # The hub adds the commit, and some releases name a revision.
    repository = f"{release.repository.partition('@')[0]}@0123abc"
    monkeypatch.setattr(subjects, "open_source", lambda _: Source("x", {}, repository=repository))
    subject = subjects.open_subject(f"hf://{release.repository}", family=family.name)
    assert subject.card["name"] == name


def test_published_figures_are_those_of_the_sources():
    # p(a) of the notebook, from its logits.
    exps = [math.exp(x) for x in GOLDEN["gpn-brassicales"].regions[0].expected]
    assert exps[0] / sum(exps) == pytest.approx(0.99611449, abs=1e-5)
    # The mean that the source gives over its regions.
    losses = [region.expected[0] for region in GOLDEN["hyenadna-small-32k-seqlen-hf"].regions]
    assert sum(losses) / 8 == pytest.approx(1.0944113433361053, abs=1e-6)
    # Both layouts hold one set of weights.
    assert GOLDEN["hyenadna-small-32k-seqlen"] is GOLDEN["hyenadna-small-32k-seqlen-hf"]
    evo2 = {name: x.prompts for name, x in GOLDEN.items() if name.startswith("evo2-")}
    assert evo2 == {
        "evo2-1b-base": 0.501953125, "evo2-7b-base": 0.3520508, "evo2-7b": 0.3476563,
        "evo2-20b": 0.2166748, "evo2-40b-base": 0.2149658, "evo2-40b": 0.2159424,
    }  # fmt: skip
