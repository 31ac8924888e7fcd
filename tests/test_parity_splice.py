"""Splice models against golden outputs of TensorFlow and against their authors' torch code.

The weights are real: of the packages cispliceai, mmsplice and spliceai, which are read and not
imported. OpenSpliceAI's code is the package openspliceai (GPL, tests only). Pangolin's is no
package: the environment variable GLM_ANNOTATE_REFERENCES names a folder that holds `Pangolin/` (of
github.com/tkzeng/Pangolin).
"""

from __future__ import annotations

import gzip
import importlib.util
import os
import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from parity_kit import CUDA_OPERATORS, ONNX_LIMIT, PUBLIC_LIMIT, operators, randomise, worst

from glm_annotate.genome import to_codes
from glm_annotate.train.exported import exported
from glm_annotate.train.families import mmsplice, pangolin, spliceai
from glm_annotate.train.families.family import Source
from glm_annotate.train.families.mmsplice_blocks import ExonPredictor, PartsGraph
from glm_annotate.train.families.predictor import Predictor
from glm_annotate.train.importing import Imported, prepare
from glm_annotate.train.keras_h5 import read_weights

pytestmark = [
    pytest.mark.parity,
    # Of the exporter.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

ON_CUDA = CUDA_OPERATORS | {"BatchNormalization", "LeakyRelu"}
SPLICEAI, CI, OPEN = spliceai.FAMILY.official
(PANGOLIN,) = pangolin.FAMILY.official
WIDTHS = [11] * 8 + [21] * 4 + [41] * 4
RATES = [1] * 4 + [4] * 4 + [10] * 4 + [25] * 4


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def no_file(source: Source):
    raise AssertionError(source.name)


def package(name: str, of: str | None = None, **options) -> Imported:
    pytest.importorskip("h5py")
    try:
        distribution(of or name)
    except PackageNotFoundError:
        pytest.skip(f"the package {of or name} is not installed")
    return prepare(name, identify=no_file, accept_licence=True, **options)


def write(network: Predictor, path: Path) -> onnxruntime.InferenceSession:
    """Write a graph whose batch and, where it is not fixed, length are free."""
    free = torch.export.Dim
    if isinstance(network, ExonPredictor):
        made = PartsGraph(network).eval()
        inputs, names = made.example(), list(network.parts)
        shapes = tuple(
            {0: free("batch"), **({} if size else {1: free(f"{name}_bases")})}
            for name, size in network.parts.items()
        )
        dynamic = (shapes,)
    else:
        made, names = exported(network).eval(), ["rows"]
        length = network.shortest + 100
        rows = (torch.arange(2 * length) % 4).reshape(2, length)
        inputs = (rows.to(torch.uint8),)
        dynamic = {"rows": {0: free("batch"), 1: free("length", min=network.shortest)}}
    torch.onnx.export(
        made,
        inputs,
        path,
        input_names=names,
        output_names=["tracks"],
        opset_version=18,
        dynamo=True,
        dynamic_shapes=dynamic,
        external_data=False,
        verbose=False,
    )
    assert not operators(path) - ON_CUDA
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def note(record, system: str, variant: str, reference: str, public: float, graph: float) -> None:
    record("parity", [system, variant, reference, float(public), float(graph), "-", 0])
    assert public <= PUBLIC_LIMIT
    assert graph <= ONNX_LIMIT


def to_ids(bases: np.ndarray) -> np.ndarray:
    known = bases.max(axis=2) > 0
    return np.where(known, bases.argmax(axis=2), 4).astype(np.uint8)


def one_hot(ids: np.ndarray) -> torch.Tensor:
    table = torch.cat([torch.eye(4), torch.zeros(1, 4)])
    return table[torch.from_numpy(ids).long()]


@torch.no_grad()
def run(network: torch.nn.Module, bases: torch.Tensor) -> np.ndarray:
    return network(bases)[0].numpy()


def random_ids(batch: int, length: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ids = rng.integers(4, size=(batch, length)).astype(np.uint8)
    ids[:, : length // 50] = 4
    return ids


def golden(shared_dir: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(shared_dir / "models" / "golden" / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def shaken(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Random weights; statistics of norms that are not 0 and 1.

    What units add is kept small, or sixteen of them give logits of hundreds, whose rounding is
    that of no trained network.
    """
    randomise(module, seed)
    with torch.no_grad():
        for name, value in module.named_parameters():
            if name.endswith("conv2.weight"):
                value.mul_(0.3)
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.named_buffers():
        if name.endswith("running_mean"):
            value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
        if name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return module.eval()


# Real weights, golden outputs of TensorFlow


@pytest.mark.timeout(300)
def test_cispliceai(shared_dir, tmp_path, record_property):
    networks = package("cispliceai").predicted.networks
    values = golden(shared_dir, "cispl")
    wanted = values["y"][:, :, 1:]
    bases = torch.from_numpy(values["x"])
    found = np.mean([run(network, bases) for network in networks], axis=0)
    public = worst(found, wanted)
    assert worst(found / wanted.max(), wanted / wanted.max()) <= 1e-5  # its largest value is 0.003
    sessions = [write(x, tmp_path / f"model.{n}.onnx") for n, x in enumerate(networks[:2])]
    ids, differences = to_ids(values["x"]), []
    for batch, length in ((1, ids.shape[1]), (3, 10_101)):
        rows = np.repeat(ids[:, :length], batch, axis=0)
        rows[1:, ::7] = random_ids(batch, length, 1)[1:, ::7]
        for session, network in zip(sessions, networks[:2], strict=True):
            (answer,) = session.run(None, {"rows": rows})
            differences.append(worst(answer, run(network, one_hot(rows))))
    note(
        record_property, "SpliceAI", "CI-SpliceAI", "TensorFlow, cispliceai 1.2.2", public,
        max(differences),
    )  # fmt: skip


@pytest.mark.timeout(300)
def test_sites_of_real_genes(shared_dir):
    """As many of the highest places of five genes of chr1 as they have sites: most are sites."""
    made = package("cispliceai")
    with gzip.open(shared_dir / "models" / "mini_borzoi" / "hg38_1m.fa.gz", "rt") as file:
        letters = "".join(line.strip() for line in file if not line.startswith(">"))
    codes = to_codes(letters)
    table = gzip.decompress(made.files["genes.tsv.gz"]).decode().splitlines()
    head, *lines = [line.split("\t") for line in table]
    genes = [dict(zip(head, line, strict=True)) for line in lines if line[1] == "chr1"]
    genes = [x for x in genes if int(x["start"]) > 700_000 and int(x["end"]) < 994_000]
    assert {x["strand"] for x in genes} == {"+", "-"}
    known, found = ({"acceptors": [], "donors": []} for _ in range(2))
    for gene in genes:
        start, end = int(gene["start"]), int(gene["end"])
        ids = np.full(10_000 + end - start, 4, dtype=np.uint8)  # N outside the gene
        ids[5000:-5000] = codes[start:end]
        backward = gene["strand"] == "-"
        ids = np.where(ids < 4, 3 - ids, 4)[::-1].copy() if backward else ids
        answers = [run(network, one_hot(ids[None]))[0] for network in made.predicted.networks]
        tracks = np.mean(answers, axis=0)[:: -1 if backward else 1]
        for column, role in enumerate(known):
            places = [int(x) - start for x in gene[role].split(",")]
            known[role].append(np.isin(np.arange(end - start), places))
            found[role].append(tracks[:, column])
    for role in known:
        sites, scores = np.concatenate(known[role]), np.concatenate(found[role])
        assert len(scores) > 50_000
        highest = np.argsort(-scores)[: sites.sum()]
        assert sites[highest].mean() >= 0.9


@pytest.mark.parametrize(
    ("file", "module"),
    [
        ("Intron3", "acceptor_intron"),
        ("Acceptor", "acceptor"),
        ("Exon", "exon"),
        ("Exon_prime3", "exon"),
        ("Donor", "donor"),
        ("Intron5", "donor_intron"),
    ],
)
def test_modules_of_mmsplice(shared_dir, tmp_path, record_property, file, module):
    package("mmsplice")
    names = dict(
        zip(mmsplice.MODULES, ("Intron3", "Acceptor", "Exon", "Donor", "Intron5"), strict=True)
    )
    names[module] = file
    place = distribution("mmsplice")
    weights = {}
    for part, name in names.items():
        read = read_weights(Path(str(place.locate_file(f"mmsplice/models/{name}.h5"))))
        weights |= {f"{part}/{key}": value for key, value in read.items()}
    (official,) = (x for x in mmsplice.FAMILY.official if x.variant == "MMSplice")
    (network,) = official.load(Source("mmsplice", weights), None).networks
    values = golden(shared_dir, f"mmsplice_{file}")
    with torch.no_grad():
        found = getattr(network, module)(torch.from_numpy(values["x"]))
    if module in ("acceptor", "donor"):
        found = torch.sigmoid(found)
    public = worst(found.numpy(), values["y"])
    session, differences = write(network, tmp_path / "model.onnx"), []
    for batch, length in ((1, 3), (4, 200), (3, 94)):
        parts = {
            name: random_ids(batch, size or length + place, place)
            for place, (name, size) in enumerate(network.parts.items())
        }
        parts[module] = to_ids(values["x"])[:batch]
        (answer,) = session.run(None, parts)
        with torch.no_grad():
            wanted = PartsGraph(network)(*(torch.from_numpy(x) for x in parts.values()))
        differences.append(worst(answer, wanted.numpy()))
    reference = "TensorFlow, mmsplice 2.4.0"
    note(record_property, "MMSplice", file, reference, public, max(differences))


def test_mtsplice(shared_dir, tmp_path, record_property):
    networks = package("mtsplice", "mmsplice").predicted.networks
    values = golden(shared_dir, "mtsplice")
    left, right = (torch.from_numpy(values[key]) for key in "lr")
    with torch.no_grad():
        answers = [network.predict(left, right).numpy() for network in networks]
    public = worst(np.mean(answers, axis=0), values["o"])
    session, differences = write(networks[0], tmp_path / "model.onnx"), []
    for batch in (1, 3):
        parts = {"acceptor": to_ids(values["l"])[:batch], "donor": to_ids(values["r"])[:batch]}
        (answer,) = session.run(None, parts)
        differences.append(worst(answer[:, 0], answers[0][:batch]))
    reference = "TensorFlow, mmsplice 2.4.0"
    note(record_property, "MMSplice", "MTSplice", reference, public, max(differences))


def mmsplice_linear_model():
    """The authors' linear model, out of the middle of a module that asks for TensorFlow's kin."""
    try:
        place = distribution("mmsplice").locate_file("mmsplice/utils.py")
    except PackageNotFoundError:
        pytest.skip("the package mmsplice is not installed")
    text = Path(str(place)).read_text()
    pieces = [re.search(r"^class _LINEAR_MODEL:.*?^class ", text, re.M | re.S)[0][:-6]]
    for name in ("_not_close0", "_and_not_close0", "transform"):
        pieces.append(re.search(rf"^def {name}\(.*?(?=^def )", text, re.M | re.S)[0])
    space = {"np": np}
    exec("\n".join(pieces), space)
    return lambda ref, alt: space["_LINEAR_MODEL"]().predict(space["transform"](alt - ref))


def test_linear_model_of_mmsplice():
    from glm_annotate.splice_scores import delta_logit_psi

    authors = mmsplice_linear_model()
    rng = np.random.default_rng(0)
    ref = rng.normal(size=(400, 5))
    # A part of the modules stays as it was.
    alt = np.where(rng.random((400, 5)) < 0.5, ref, ref + rng.normal(size=(400, 5)))
    np.testing.assert_allclose(delta_logit_psi(ref, alt), authors(ref, alt), rtol=1e-12, atol=1e-12)


@pytest.mark.timeout(300)
def test_spliceai_and_its_ensemble(tmp_path):
    """The five files are five networks, and one graph of them computes what torch does."""
    made = package("spliceai")
    assert len(made.predicted.networks) == 5
    stems = [x.trunk.initial_conv.weight for x in made.predicted.networks]
    assert all(not torch.equal(stems[0], other) for other in stems[1:])
    network = made.predicted.networks[3]
    session = write(network, tmp_path / "model.onnx")
    for batch, length in ((1, 10_001), (3, 10_101)):
        rows = random_ids(batch, length, batch)
        (answer,) = session.run(None, {"rows": rows})
        assert worst(answer, run(network, one_hot(rows))) <= ONNX_LIMIT


# Random weights, the authors' torch code


@pytest.mark.timeout(300)
@pytest.mark.parametrize("units", [4, 8, 12, 16])
def test_openspliceai(tmp_path, record_property, units):
    authors = pytest.importorskip("openspliceai.train_base.openspliceai")
    made = authors.SpliceAI(32, np.array(WIDTHS[:units]), np.array(RATES[:units]))
    shaken(made, units)
    source = Source("model.pt", made.state_dict())
    assert OPEN.recognise(source)
    (network,) = OPEN.load(source, None).networks
    session = write(network, tmp_path / "model.onnx")
    public, graph = [], []
    for batch, bins in ((1, 1), (3, 101), (2, 257)):
        rows = random_ids(batch, 2 * network.trunk.crop + bins, bins)
        bases = one_hot(rows)
        with torch.no_grad():
            wanted = made(bases.transpose(1, 2))[:, 1:].transpose(1, 2).numpy()
        assert bins == 1 or (np.ptp(wanted, axis=1) > 0.01).all()
        public.append(worst(run(network, bases), wanted))
        graph.append(worst(session.run(None, {"rows": rows})[0], wanted))
    variant, reference = f"OpenSpliceAI, {2 * network.trunk.crop} nt", "openspliceai 0.0.7"
    note(record_property, "SpliceAI", variant, reference, max(public), max(graph))


@pytest.fixture(scope="module")
def pangolin_code():
    named = os.environ.get("GLM_ANNOTATE_REFERENCES")
    if not named:
        pytest.skip("GLM_ANNOTATE_REFERENCES is not set")
    path = Path(named) / "Pangolin" / "pangolin" / "model.py"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    spec = importlib.util.spec_from_file_location("authors_pangolin", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.timeout(300)
@pytest.mark.parametrize("whole", [True, False])
def test_pangolin(pangolin_code, tmp_path, record_property, whole):
    ends = [-1] if whole else [0, 7]
    stacks = {}
    for end in ends:
        made = pangolin_code.Pangolin(32, pangolin_code.W, pangolin_code.AR)
        stacks[end] = shaken(made, 10 + end)
    weights = {}
    for end, made in stacks.items():
        prefix = "" if end < 0 else f"1/end{end}/"
        weights |= {f"{prefix}{key}": value for key, value in made.state_dict().items()}
    source = Source("final", weights)
    assert PANGOLIN.recognise(source)
    (network,) = PANGOLIN.load(source, None).networks
    session = write(network, tmp_path / "model.onnx")
    # Of twelve rows: two classes of a site and its usage, for each tissue.
    rows_of = [1, 2, 4, 5, 7, 8, 10, 11]
    public, graph = [], []
    for batch, bins in ((1, 3), (2, 101)):
        rows = random_ids(batch, 10_000 + bins, bins)
        bases = one_hot(rows)
        with torch.no_grad():
            answers = {end: made(bases.transpose(1, 2)).numpy() for end, made in stacks.items()}
        if whole:
            wanted = answers[-1][:, rows_of]
        else:
            wanted = np.stack([answers[end][:, rows_of[end]] for end in ends], axis=1)
        wanted = wanted.transpose(0, 2, 1)
        assert bins < 50 or (np.ptp(wanted, axis=1) > 1e-3).all()
        public.append(worst(run(network, bases), wanted))
        graph.append(worst(session.run(None, {"rows": rows})[0], wanted))
    variant = "Pangolin, eight ends" if whole else "Pangolin, two files"
    reference = "authors' code (GitHub)"
    note(record_property, "Pangolin", variant, reference, max(public), max(graph))
