"""Replicates of a model: several graphs in one bundle, whose outputs are averaged."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from cli_kit import call, header_of, records_of
from engine import Allele, Engine, write_fasta
from onnx import numpy_helper
from oracle import Oracle
from test_engine import CIRCULAR, MASKED, POOLED, mixed_alleles
from test_runtime import regraph, to_half

from glm_annotate.bundle import load_bundle, read_card, write_bundle
from glm_annotate.errors import BundleError
from glm_annotate.plan import Stopped
from glm_annotate.runtime import OrtRunner, Settings, open_runners
from glm_annotate.testing import check_bundle, toy_bundle
from glm_annotate.train import heads

SITES: list[Allele] = [("lin", 9, "A", "C"), ("lin", 9, "A", "AT"), ("lin", 30, "G", "T")]


@pytest.fixture(scope="module")
def contigs() -> dict[str, str]:
    rng = np.random.default_rng(26)
    sizes = ("lin", 200), ("ring", 90), ("tiny", 25)
    made = {name: "".join(rng.choice(list("ACGT"), size)) for name, size in sizes}
    made["lin"] = made["lin"][:8] + "A" + made["lin"][9:29] + "G" + made["lin"][30:]
    return made


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory, contigs: dict[str, str]) -> Path:
    return write_fasta(tmp_path_factory.mktemp("genome") / "toy.fa", contigs)


class Average:
    """Runs every graph of a bundle, one after the other, and averages on the host."""

    def __init__(self, bundle: Path) -> None:
        self.sessions = [
            onnxruntime.InferenceSession(str(path)) for path in sorted(bundle.glob("model.*.onnx"))
        ]

    def run(self, names: list[str], feeds: dict[str, Any]) -> list[Any]:
        every = [session.run(names, feeds) for session in self.sessions]
        return [
            sum(x.astype(np.float64) for x in same) / len(every)
            for same in zip(*every, strict=True)
        ]


def oracle_of(bundle: Path, fasta: Path) -> Oracle:
    oracle = Oracle(bundle, fasta, circular=CIRCULAR)
    oracle.session = Average(bundle)
    return oracle


def seal(folder: Path, **card: Any) -> Path:
    write_bundle(folder, read_card(folder).model_dump(exclude={"sha256"}) | card)
    return folder


CASES = {
    "markov": ("markov", {"replicates": 2}, MASKED + POOLED),
    "wide": ("wide", {"replicates": 5, "strand": "forward"}, MASKED + POOLED),
    "padded": ("wide", {"replicates": 3, "multiple_of": 7}, MASKED + POOLED),
    "onehot": ("onehot", {"replicates": 3}, MASKED + POOLED),
    "bpe": ("bpe", {"replicates": 2, "context": 36}, ("LLR", "PLLR", *POOLED)),
    # Log likelihoods of whole windows, which are taken of averages on the device.
    "causal": ("causal", {"replicates": 3}, ("LLR", "ENT", *POOLED)),
}


@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_averaged_outputs(
    case: str, tmp_path: Path, fasta: Path, contigs: dict[str, str]
) -> None:
    kind, options, scores = CASES[case]
    bundle = toy_bundle(kind, tmp_path / "toy", **{"context": 24, **options})
    assert len(list(bundle.glob("model.*.onnx"))) == options["replicates"]
    alleles = mixed_alleles(contigs, seed=sum(map(ord, case)), n=40)
    oracle = oracle_of(bundle, fasta)
    found = Engine(bundle, fasta, scores, circular=CIRCULAR).score(alleles)
    numbers = 0
    for values, text in zip(found.values(), scores, strict=True):
        for allele, value in zip(alleles, values, strict=True):
            expected = oracle.score(*allele, text)
            if isinstance(value, str) or isinstance(expected, str):
                assert value == expected, (text, allele)
            else:
                numbers += 1
                assert math.isclose(value, expected, rel_tol=1e-5, abs_tol=2e-5), (text, allele)
    assert numbers > 100
    (plain,) = Engine(bundle, fasta, scores[:1], circular=CIRCULAR, batch=3).score(alleles).values()
    for one, other in zip(plain, found[next(iter(found))], strict=True):
        assert one == other or math.isclose(float(one), float(other), abs_tol=1e-6)


def test_the_average_by_hand(tmp_path: Path) -> None:
    """A table a replicate, and one base alone in the window: logits are averages of its rows."""
    fasta = write_fasta(tmp_path / "g.fa", {"c": "A"})
    bundle = toy_bundle("free", tmp_path / "toy", replicates=3, context=1, strand="forward")
    tables = []
    for i in range(3):
        (table,) = onnx.load(bundle / f"model.{i}.onnx").graph.initializer
        tables.append(numpy_helper.to_array(table).astype(np.float64))
    row = (tables[0] + tables[1] + tables[2])[5] / 3  # 5 is the mask
    (found,) = Engine(bundle, fasta, ["LLR"]).score([("c", 1, "A", "G")]).values()
    assert found[0] == pytest.approx(row[2] - row[0], abs=1e-12)
    single = tables[0][5, 2] - tables[0][5, 0]
    assert abs(float(found[0]) - single) > 1e-2


@pytest.mark.parametrize("kind", ["wide", "causal"])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_equal_replicates_are_one(kind: str, count: int, tmp_path: Path, fasta: Path) -> None:
    """Exactly: the sum of 7 equal singles in double, divided by 7, is that single."""
    toy = toy_bundle(kind, tmp_path / "toy", context=20)
    same = tmp_path / "same"
    shutil.copytree(toy, same)
    for i in range(count):
        shutil.copy(toy / "model.onnx", same / f"model.{i}.onnx")
    (same / "model.onnx").unlink()
    seal(same)
    scores = ["LLR", "ENT", "EMB_L1", "EMB_COS:pool=all"]
    expected, found = (Engine(x, fasta, scores).score(SITES) for x in (toy, same))
    assert found == expected


def test_a_bundle_with_one_graph_averages_nothing(
    tmp_path: Path, fasta: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OrtRunner, "_average", None)
    for number, given in enumerate(({}, {"replicates": 1})):
        bundle = toy_bundle("wide", tmp_path / str(number), context=20, **given)
        assert Engine(bundle, fasta, ["LLR"]).score(SITES)["LLR"][1] == "INDEL"


def test_half_precision_outputs(tmp_path: Path, fasta: Path) -> None:
    toy = toy_bundle("wide", tmp_path / "toy", context=16, replicates=3)
    outputs = read_card(toy).model_dump()["outputs"]
    halves = {name: {**tensor, "dtype": "float16"} for name, tensor in outputs.items()}
    for i in range(3):
        model = onnx.load(toy / f"model.{i}.onnx")
        to_half(model)
        (toy / f"model.{i}.onnx").write_bytes(model.SerializeToString())
    seal(toy, outputs=halves)
    oracle = oracle_of(toy, fasta)  # adds the same rounded outputs up in double
    for text in ("LLR", "EMB_L1", "EMB_DOT:pool=all"):
        (found,) = Engine(toy, fasta, [text]).score(SITES).values()
        for allele, value in zip(SITES, found, strict=True):
            expected = oracle.score(*allele, text)
            assert value == (
                expected if isinstance(expected, str) else pytest.approx(expected, rel=1e-9)
            )


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_heads_of_averages_against_numpy(dtype: str) -> None:
    random = np.random.default_rng(7)
    parts = random.normal(scale=3, size=(3, 2, 5, 4)).astype(dtype)
    session = onnxruntime.InferenceSession(str(heads.FOLDER / f"mean.{dtype}.onnx"))
    total: Any = np.zeros((1, 1, 1))
    for i, part in enumerate(parts):
        count = np.array(3.0 if i == 2 else 1.0)
        (total,) = session.run(None, {"values": part, "total": total, "count": count})
    assert total.dtype == np.float64
    np.testing.assert_allclose(total, parts.astype(np.float64).mean(axis=0), rtol=1e-14, atol=1e-15)


def test_heads_read_averages_in_double() -> None:
    """What float32 would drown is kept: 1e-9 beside 1."""
    values = 1 + np.arange(24).reshape(2, 3, 4) * 1e-9

    def run(name: str, **feeds: Any) -> Any:
        session = onnxruntime.InferenceSession(str(heads.FOLDER / f"{name}.float64.onnx"))
        return session.run(None, {"values": values, **feeds})[0]

    np.testing.assert_array_equal(
        run("rows", index=np.array([[1, 2], [0, 1]])), values[[1, 0], [2, 1]]
    )
    weights = np.array([[0.5, 0.25, 0.25]])
    pooled = run("pool", window=np.array([1]), weights=weights)
    np.testing.assert_allclose(pooled, weights @ values[1], rtol=1e-15)
    logs = values - np.log(np.exp(values).sum(axis=2, keepdims=True))
    ids = np.array([[0, 1, 2], [3, 0, 1]])
    expected = np.take_along_axis(logs, ids[..., None], axis=2)[..., 0]
    np.testing.assert_allclose(run("tokens", ids=ids), expected, rtol=1e-13)


# Runs


def test_a_pass_is_all_replicates(tmp_path: Path) -> None:
    bundle = load_bundle(toy_bundle("markov", tmp_path / "toy", context=16, replicates=3))
    (runner,) = open_runners(bundle, Settings())
    outputs = frozenset[Any]({"logits", "embedding"})
    rows = np.zeros((4, 16), dtype=np.int64)
    runner.run(rows, outputs)
    assert runner.passes == 4
    assert runner.seconds_per_pass(16, outputs) > 0
    # Ctrl-C need not wait for the other replicates.
    ran = []
    graph = runner._run_graph

    def stop_after(*given: Any) -> Any:
        ran.append(1)
        found = graph(*given)
        runner.stopped = True
        return found

    runner._run_graph = stop_after  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        runner.run(rows, outputs)
    assert len(ran) == 2


def test_the_command(tmp_path: Path, fasta: Path) -> None:
    bundle = toy_bundle("wide", tmp_path / "toy", context=20, replicates=2)
    command = ["vcf", "lin:9:A:C", "-f", fasta, "-m", bundle, "--no-version"]
    assert call(*command, "-o", tmp_path / "o.vcf", "--summary", tmp_path / "s.json") == 0
    (record,) = records_of((tmp_path / "o.vcf").read_text())
    wanted = oracle_of(bundle, fasta).score("lin", 9, "A", "C", "LLR")
    assert float(record.info["TOY_LLR"]) == pytest.approx(wanted, abs=2e-5)
    (line,) = [x for x in header_of((tmp_path / "o.vcf").read_text()) if "glm_annotateModel" in x]
    assert ',Replicates="2"' in line
    single = toy_bundle("wide", tmp_path / "single", context=20)
    assert call("vcf", "lin:9:A:C", "-f", fasta, "-m", single, "-o", tmp_path / "1.vcf") == 0
    assert "Replicates" not in (tmp_path / "1.vcf").read_text()
    summary = json.loads((tmp_path / "s.json").read_text())["models"]["TOY"]
    assert summary["forward_passes"] == 2  # a strand each
    assert summary["digest"] == load_bundle(bundle).digest
    assert call("models", "check", bundle) == 0
    archive = shutil.make_archive(str(tmp_path / "zipped"), "zip", root_dir=bundle)
    zipped = [*command[:4], "-m", archive, "--no-version", "-o", tmp_path / "zip.vcf"]
    assert call(*zipped) == 0
    assert (tmp_path / "zip.vcf").read_text() == (tmp_path / "o.vcf").read_text()


# Bundles


def test_the_self_test_is_of_the_average(tmp_path: Path) -> None:
    bundle = toy_bundle("causal", tmp_path / "toy", replicates=3)
    report = check_bundle(bundle)
    assert set(report.differences) == {"logits", "embedding"}
    assert max(report.differences.values()) < 1e-6
    with np.load(bundle / "selftest.npz") as arrays:
        found = dict(arrays)
    parts = Average(bundle).run(["logits"], {"rows": found["input_rows"]})
    np.testing.assert_allclose(found["output_logits"], parts[0], atol=1e-5)
    # One replicate alone, or with another in its place, is not the model.
    shutil.copy(bundle / "model.1.onnx", bundle / "model.2.onnx")
    seal(bundle)
    with pytest.raises(BundleError, match="logits differs from the self-test"):
        check_bundle(bundle)


def test_digest_and_sha256_cover_every_replicate(tmp_path: Path) -> None:
    bundle = toy_bundle("markov", tmp_path / "toy", replicates=12)
    loaded = load_bundle(bundle)
    assert [path.name for path in loaded.graphs] == [f"model.{i}.onnx" for i in range(12)]
    assert loaded.graph == bundle / "model.0.onnx"
    digests = {loaded.digest}
    for i in (0, 11):
        other = tmp_path / f"other{i}"
        shutil.copytree(bundle, other)
        shutil.copy(bundle / "model.5.onnx", other / f"model.{i}.onnx")
        with pytest.raises(BundleError, match=rf"model\.{i}\.onnx: sha256 is not the one"):
            load_bundle(other)
        digests.add(load_bundle(seal(other)).digest)
    assert len(digests) == 3


def add(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            shutil.copy(folder / "model.0.onnx", folder / name)

    return change


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (add("model.onnx"), "model.onnx, model.0.onnx, model.1.onnx"),
        (add("model.3.onnx"), "model.0.onnx, model.1.onnx, model.3.onnx"),
        (add("model.02.onnx"), "model.0.onnx, model.1.onnx, model.02.onnx"),
        (lambda folder: (folder / "model.0.onnx").unlink(), "model.1.onnx"),
    ],
)
def test_replicates_are_numbered_without_a_gap(change: Any, found: str, tmp_path: Path) -> None:
    bundle = toy_bundle("markov", tmp_path / "toy", replicates=2)
    change(bundle)
    seal(bundle)
    with pytest.raises(BundleError) as caught:
        load_bundle(bundle)
    assert str(caught.value) == (
        f"{bundle}: found {found}; wanted model.onnx, or replicates model.0.onnx, model.1.onnx and "
        "so on without a gap; export the bundle again"
    )


def test_a_replicate_that_is_missing(tmp_path: Path) -> None:
    bundle = toy_bundle("markov", tmp_path / "toy", replicates=2)
    os.remove(bundle / "model.1.onnx")
    with pytest.raises(BundleError, match=r"model\.1\.onnx is missing; copy the whole bundle"):
        load_bundle(bundle)


def test_a_replicate_of_another_card(tmp_path: Path) -> None:
    bundle = toy_bundle("markov", tmp_path / "toy", replicates=2)
    other = toy_bundle("uniform", tmp_path / "other", dtype="int32", context=16)
    shutil.copy(other / "model.onnx", bundle / "model.1.onnx")
    loaded = load_bundle(seal(bundle))
    with pytest.raises(BundleError, match=r"model\.1\.onnx: the card names the input 'rows'"):
        open_runners(loaded, Settings())
    with pytest.raises(BundleError, match=r"model\.1\.onnx: input 'rows' is tensor\(int32\)"):
        check_bundle(bundle)


def test_a_replicate_of_another_shape(tmp_path: Path, fasta: Path) -> None:
    """One number a row would be added to all the others without a word."""
    bundle = toy_bundle("markov", tmp_path / "toy", replicates=2, context=16, dim=6)
    wider = toy_bundle("markov", tmp_path / "other", context=16, dim=9)
    shutil.copy(wider / "model.onnx", bundle / "model.1.onnx")
    seal(bundle)
    with pytest.raises(BundleError, match=r"model\.1\.onnx: the output embedding has the shape"):
        Engine(bundle, fasta, ["EMB_L1"]).score(SITES)
    with pytest.raises(BundleError, match=r"model\.1\.onnx: embedding has shape \(\d+, 16, 9\)"):
        check_bundle(bundle)


def test_a_replicate_that_cannot_be_loaded(tmp_path: Path) -> None:
    def unknown_operator(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type = "NoSuchOperator"
        model.graph.node[0].domain = "nowhere"
        model.opset_import.append(onnx.helper.make_opsetid("nowhere", 1))

    broken = regraph(toy_bundle("markov", tmp_path / "broken"), unknown_operator)
    bundle = toy_bundle("markov", tmp_path / "toy", replicates=2)
    shutil.copy(broken / "model.onnx", bundle / "model.1.onnx")
    loaded = load_bundle(seal(bundle))
    with pytest.raises(BundleError, match=r"model\.1\.onnx: ONNX Runtime cannot load it"):
        open_runners(loaded, Settings())
    with pytest.raises(BundleError, match=r"model\.1\.onnx: ONNX Runtime cannot load it"):
        check_bundle(bundle)


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(tmp_path: Path, fasta: Path) -> None:
    from glm_annotate.runtime import parse_device

    bundle = toy_bundle("causal", tmp_path / "toy", context=16, replicates=3)
    engine = Engine(bundle, fasta, ["LLR", "ENT", "EMB_L1"])
    expected = engine.score(SITES)
    (runner,) = open_runners(engine.bundle, parse_device("cuda"))
    model = engine.annotator.models[0]
    assert isinstance(model.runners, list)
    model.runners[:] = [runner]
    for key, values in engine.score(SITES).items():
        assert values == pytest.approx(expected[key], rel=1e-4, abs=1e-4)
