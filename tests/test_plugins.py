"""Scores and encoders of other packages: the example package, and packages with faults."""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli_kit import call, header_of, records_of
from engine import write_fasta

from glm_annotate import load_bundle, score
from glm_annotate.bundle import CARD, write_bundle
from glm_annotate.encoding import EncoderSpec, make_encoder
from glm_annotate.errors import BundleError, GlmAnnotateError, InputError, UsageError
from glm_annotate.evidence import EVIDENCE
from glm_annotate.plugins import find_score
from glm_annotate.score_checks import KNOWN
from glm_annotate.scores import ALONG, SCORES
from glm_annotate.testing import check_bundle, check_encoder, check_score, toy_bundle

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "plugin"
SCORE_GROUP, ENCODER_GROUP = "glm_annotate.scores", "glm_annotate.encoders"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put packages where Python finds them, as pip would; all are gone after the test."""

    def add(name, version, points, module, source):
        site = tmp_path / f"site-{name}"
        info = site / f"{module}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = [
            f"[{group}]\n{key} = {value}\n"
            for group, x in points.items()
            for key, value in x.items()
        ]
        (info / "entry_points.txt").write_text("".join(lines))
        if isinstance(source, Path):
            shutil.copytree(source, site / module)
        else:
            (site / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(site))
        find_score.cache_clear()

    before = set(sys.modules)
    yield add
    find_score.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith(("example_glm", "other_")):
            del sys.modules[name]


@pytest.fixture
def example(install):
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    source = EXAMPLE / "src" / "example_glm"
    install(project["name"], project["version"], project["entry-points"], "example_glm", source)


@pytest.fixture(scope="module")
def fasta(tmp_path_factory):
    letters = "".join(np.random.default_rng(3).choice(list("ACGT"), 120))
    return write_fasta(
        tmp_path_factory.mktemp("genome") / "a.fa", {"c": letters[:60] + "A" + letters[61:]}
    )


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toys")
    return {kind: toy_bundle(kind, folder / kind) for kind in ("markov", "causal", "blocks")}


# --- scores --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["markov", "causal"])
def test_scores_of_the_example_are_made_of_the_models_evidence(
    kind, example, fasta, toys, tmp_path
):
    out = tmp_path / "out.vcf"
    command = ["-q", "vcf", "c:61:A:C,T", "-f", fasta, "-m", toys[kind], "-o", out]
    assert call(*command, "-s", "LLR,gini,LLR_SIZE,ENT") == 0
    (record,) = records_of(out.read_text())
    llr, size, gini, ent = (
        [float(x) for x in record.per_alt(f"TOY_{name}")]
        for name in ("LLR", "LLR_SIZE", "GINI", "ENT")
    )
    assert size == [abs(x) for x in llr]
    assert kind == "causal" or min(llr) < 0
    # Of four chances p, with H = -sum p ln p: 1 - sum p^2 lies between 1 - e^-H and H.
    assert all(
        0 < 1 - np.exp(-h) < 1 and g <= h and g <= 0.75 for g, h in zip(gini, ent, strict=True)
    )
    (line,) = [x for x in header_of(out.read_text()) if "ID=TOY_GINI," in x]
    assert "(example-glm 0.3); model toy-" in line


def test_gini_of_a_model_that_knows_nothing(example, fasta, tmp_path):
    uniform = toy_bundle("uniform", tmp_path / "uniform")
    assert score("c:61:A:C", fasta, uniform, "GINI")["TOY_GINI"][0] == 0.75


def test_nothing_is_imported_before_it_is_asked_for(example, fasta, toys):
    score("c:61:A:C", fasta, toys["markov"], "LLR,PLLR")
    assert "example_glm" not in sys.modules
    score("c:61:A:C", fasta, toys["markov"], "GINI")
    assert "example_glm" in sys.modules


def test_unknown_scores_are_told_with_those_of_other_packages(example, fasta, toys):
    with pytest.raises(UsageError, match=r"unknown score 'GINNI'; known: LLR, .*, GINI, LLR_SIZE"):
        score("c:61:A:C", fasta, toys["markov"], "GINNI")


def test_without_the_package_there_is_no_such_score(fasta, toys):
    with pytest.raises(UsageError, match=r"unknown score 'GINI'; known: LLR, .*DLPSI$"):
        score("c:61:A:C", fasta, toys["markov"], "GINI")


FAULTS = {
    "import missing_module_of_other": "cannot be imported: No module named 'missing_module_of",
    "THERE = 1": "cannot be imported: module 'other_glm' has no attribute 'IT'",
    "IT = abs": "not a glm_annotate.scores.Score under a name of capitals",
    "from glm_annotate.scores import Score\n"
    "IT = Score('signed', {'masked': 'masked_ratio'}, abs, {'masked': 'x'})": "score: kind is "
    "signed, but swapping REF and ALT differs",
}


@pytest.mark.parametrize("source", FAULTS)
def test_a_fault_is_told_with_the_package_and_only_when_it_is_asked_for(
    source, install, fasta, toys
):
    install("other-glm", "2.0", {SCORE_GROUP: {"IT": "other_glm:IT"}}, "other_glm", source)
    score("c:61:A:C", fasta, toys["markov"], "LLR")
    with pytest.raises(GlmAnnotateError) as error:
        score("c:61:A:C", fasta, toys["markov"], "IT")
    assert f"package other-glm 2.0, entry point {SCORE_GROUP} IT: {FAULTS[source]}" in str(
        error.value
    )
    assert "pip uninstall other-glm" in str(error.value)


def test_two_packages_with_one_score_are_refused(install, fasta, toys):
    for name in ("other_a", "other_b"):
        install(name, "1", {SCORE_GROUP: {"IT": f"{name}:IT"}}, name, "IT = 1")
    with pytest.raises(InputError, match=r"IT: offered by other_\w 1 and other_\w 1; uninstall"):
        score("c:61:A:C", fasta, toys["markov"], "IT")


def test_a_score_that_gives_another_number_of_values_later_ends_the_run(install, fasta, toys):
    source = (
        "import numpy as np\nfrom glm_annotate.scores import Score\n"
        "def halves(x):\n    return x if len(x) in (1, 9) else x[::2]\n"
        "IT = Score('other', {'masked': 'masked_ratio'}, halves, {'masked': 'x'})\n"
    )
    install("other-glm", "2.0", {SCORE_GROUP: {"IT": "other_glm:IT"}}, "other_glm", source)
    with pytest.raises(UsageError, match=r"other-glm 2.0.* gave an array of shape \(1,\) for 2"):
        score("c:61:A:C,T", fasta, toys["markov"], "IT")


# --- check_score ---------------------------------------------------------------------------------


def test_every_kind_of_evidence_can_be_checked():
    assert set(KNOWN) == set(EVIDENCE)


LANGUAGE = {k: v for k, v in SCORES.items() if set(v.evidence.values()) <= set(KNOWN)}


@pytest.mark.parametrize("name", [*LANGUAGE, *ALONG])
def test_our_own_scores_keep_the_promises(name):
    row = LANGUAGE[name] if name in LANGUAGE else ALONG[name]
    if name in ALONG:
        row = replace(row, formula={k: row.formula[k] for k in row.evidence})
    check_score(row)


def swapped_rows(x):
    return x[::-1].copy()


WRONG = [
    ("LLR", {"kind": "distance"}, "kind is distance, but swapping"),
    ("EMB_L1", {"kind": "signed"}, "kind is signed, but swapping"),
    ("EMB_DOT", {"kind": "distance"}, "REF against itself is not 0"),
    ("ENT", {"kind": "signed"}, "distribution cannot be swapped"),
    ("LLR", {"evidence": {"masked": "likelihood_ratio"}}, "a masked model has no evidence 'like"),
    (
        "LLR",
        {"evidence": {"causal": "surprise"}},
        "has no evidence 'surprise'; known: likelihood_r",
    ),
    ("LLR", {"evidence": {}}, "names no evidence"),
    ("LLR", {"formula": {"masked": "x"}}, "formula for causal models is not one line"),
    ("LLR", {"reduce": swapped_rows}, "other alleles change an allele's number"),
    ("LLR", {"reduce": np.sum}, r"gives float64 of shape \(\)"),
    ("LLR", {"reduce": np.signbit}, "gives bool"),
    ("LLR", {"reduce": lambda x: np.multiply(x, 2, out=x)}, "changes its argument"),
    ("LLR", {"reduce": lambda x: x / 0}, r"gives \[-?inf\] for plain numbers"),
    ("EMB_L1", {"keys": ()}, "output embedding with the keys pool, k"),
    ("LLR", {"frame": "gene"}, "frame or role of its own"),
]


@pytest.mark.parametrize(("name", "change", "fault"), WRONG)
def test_check_score_finds(name, change, fault):
    with pytest.raises(BundleError, match=fault), np.errstate(divide="ignore"):
        check_score(replace(SCORES[name], **change))


# --- encoders ------------------------------------------------------------------------------------

IUPAC = {"kind": "example-glm.iupac", "vocab": {"first_id": 10, "mask_id": 2, "prefix": (3,)}}
LETTERS = {"kind": "kmer", "vocab": {**IUPAC["vocab"], "single_ids": {"N": 14}}}


def recoded(source, folder, encoder):
    """Copy a bundle with another encoder; the toy's graph takes any ids up to 72."""
    shutil.copytree(source, folder)
    card = json.loads((folder / CARD).read_text())
    del card["sha256"]
    write_bundle(folder, {**card, "encoder": encoder})
    return folder


def test_an_encoder_of_the_example_reads_like_ours(example, fasta, toys, tmp_path):
    theirs, ours = (
        recoded(toys["blocks"], tmp_path / n, x) for n, x in (("a", IUPAC), ("b", LETTERS))
    )
    check_encoder(load_bundle(theirs).encoder)
    assert check_bundle(theirs).cases > 1
    scores = "LLR,PLLR,WTLLR,ENT,EMB_L2"
    alleles = [
        "c:61:A:C,T,ATT",
        f"c:1:{load_text(fasta)[0]}:C",
        f"c:30:{load_text(fasta)[29:33]}:G",
    ]
    found, wanted = (score(alleles, fasta, bundle, scores) for bundle in (theirs, ours))
    assert found["TOY_LLR"].notna().sum() >= 2
    assert found.equals(wanted)


def load_text(fasta):
    return "".join(fasta.read_text().split("\n")[1:])


def test_the_missing_package_of_an_encoder_is_named(toys, tmp_path):
    folder = recoded(toys["blocks"], tmp_path / "a", IUPAC)
    with pytest.raises(
        BundleError, match=r"of the package example-glm, .*pip install -U example-glm"
    ):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("IT = 5", "makes int, which is no encoder"),
        ("def IT(spec, tokenizer): return [spec]", "makes list, which is no encoder"),
        ("import missing_module_of_other", "cannot be imported"),
    ],
)
def test_what_is_no_encoder_is_told_with_its_package(source, fault, install):
    points = {ENCODER_GROUP: {"other-glm.it": "other_glm:IT"}}
    install("other-glm", "2.0", points, "other_glm", source)
    spec = EncoderSpec.model_validate({"kind": "other-glm.it"})
    with pytest.raises(GlmAnnotateError, match=f"package other-glm 2.0, entry point .*{fault}"):
        make_encoder(spec)


@pytest.mark.parametrize("kind", ["Other.it", "other", "other.", ".it", "a.b.c"])
def test_kinds_of_other_packages_have_a_form(kind):
    with pytest.raises(ValueError, match="kind"):
        EncoderSpec.model_validate({"kind": kind})
