"""`models import` of files and folders of others, from h5 to numbers in a VCF, and `--head`."""

from __future__ import annotations

import json
import math
import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_kit import call, records_of, write_vcf
from engine import write_fasta

pytest.importorskip("h5py")
pytest.importorskip("torch")

import h5py
import torch
from test_family_borzoi import PARAMS as BORZOI_PARAMS
from test_family_borzoi import official_names, small, write_keras
from test_family_classics import GELUS, basenji, keras_names, run_basenji
from test_family_contacts import PARAMS as AKITA_PARAMS
from test_family_contacts import akita_by_hand, keras_weights, small_akita
from test_family_enformer import small as small_enformer
from test_family_enformer import source_of as enformer_source
from torch.nn import functional

from glm_annotate.bundle import load_bundle, read_card
from glm_annotate.card import Provenance
from glm_annotate.train.importing import prepare
from glm_annotate.train.subjects import identify, open_subject

BASES = "".join(np.random.default_rng(8).choice(list("ACGT"), 3000))
# A column `file` as upstream has it: paths of somebody's machine.
PATHS = "/home/somebody/data/{}/coverage.w5"


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fasta(tmp_path_factory.mktemp("genome") / "g.fa", {"chr1": BASES})


def snvs(*places: int) -> list[tuple[int, str, str]]:
    return [(at, BASES[at - 1], "ACGT"["ACGT".index(BASES[at - 1]) - 1]) for at in places]


def annotate(
    folder: Path, fasta: Path, bundle: Path, sites: list[tuple[int, str, str]], scores: str
) -> list[dict[str, str]]:
    source = write_vcf(folder / "in.vcf", [f"chr1 {at} {ref} {alt}" for at, ref, alt in sites])
    out = folder / "out.vcf"
    assert call("vcf", source, "-f", fasta, "-m", bundle, "-s", scores, "-o", out, "--force") == 0
    found = records_of(out.read_text())
    assert len(found) == len(sites)
    return [record.info for record in found]


def window(left: int, length: int, edit: tuple[int, str] | None = None) -> np.ndarray:
    """One-hot bases (L, 4) of the genome, zeros past its ends."""
    bases = list(BASES)
    if edit is not None:
        bases[edit[0] - 1] = edit[1]
    found = np.zeros((length, 4))
    for i in range(length):
        if 0 <= left + i < len(bases):
            found[i, "ACGT".index(bases[left + i])] = 1
    return found


def both_strands(predict: Any, at: int, alt: str, length: int) -> list[np.ndarray]:
    """REF and ALT predictions (bins, tracks), averaged with the flipped reverse one."""
    left, out = at - 1 - (length // 2 - 1), []
    for edit in (None, (at, alt)):
        x = window(left, length, edit)
        out.append((predict(x) + predict(x[::-1, ::-1].copy())[::-1]) / 2)
    return out


def contents(bundle: Path) -> dict[str, bytes]:
    """Every file of a bundle, and of the archive inside every member."""
    found = {path.name: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    with zipfile.ZipFile(bundle / "selftest.npz") as archive:
        found |= {name: archive.read(name) for name in archive.namelist()}
    return found


def keeps_out(bundle: Path, *texts: str) -> None:
    for name, data in contents(bundle).items():
        for text in texts:
            assert text.encode() not in data, f"{name} holds {text}"


# ChromBPNet


def write_chrombpnet(
    path: Path, *, biased: bool, filters: int, layers: int, bias: tuple[int, int] = (128, 4)
) -> None:
    """Write the h5 that Keras saves of chrombpnet: with bias two models below their names."""
    rng = np.random.default_rng(filters + layers)

    def network(root: Any, width: int, count: int, first: str, last: str, names: bool) -> None:
        def layer(name: str, *shape: int, scale: float) -> None:
            group = root.create_group(f"{name}/{name}" if names else name)
            group["kernel:0"] = (rng.normal(size=shape) * scale).astype(np.float32)
            middle = 5.0 if "count" in name else 0.0  # some hundred reads
            group["bias:0"] = (middle + rng.normal(size=shape[-1]) * 0.1).astype(np.float32)

        layer(f"{first}bpnet_1st_conv", 21, 4, width, scale=0.3)
        for i in range(1, count + 1):
            layer(f"{first}bpnet_{i}conv", 3, width, width, scale=0.5 / math.sqrt(3 * width))
        layer(f"{last}prof_out_precrop", 75, width, 1, scale=1 / math.sqrt(75 * width))
        layer(f"{last}logcount_predictions", width, 1, scale=1 / math.sqrt(width))

    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.8.0"
        file.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": {}})
        file.create_group("optimizer_weights/Adam")["iter:0"] = np.int64(9)
        root = file.create_group("model_weights")
        own = "wo_bias_bpnet_"
        if not biased:
            network(root, filters, layers, "wo_bias_", own, names=True)
            return
        network(root.create_group("model"), *bias, "", "", names=False)
        network(root.create_group("model_1"), filters, layers, "wo_bias_", own, names=False)


def read_chrombpnet(path: Path) -> list[dict[str, torch.Tensor]]:
    """The networks of an h5 by the names of their layers, without what marks them."""
    networks: dict[bool, dict[str, torch.Tensor]] = {}

    def visit(name: str, item: Any) -> None:
        if hasattr(item, "shape"):
            layer, part = name.split("/")[-2:]
            short = re.sub("^(wo_bias_)?(bpnet_)?", "", layer)
            own = networks.setdefault(layer.startswith("wo_bias_"), {})
            own[f"{short}/{part[:-2]}"] = torch.from_numpy(item[()]).double()

    with h5py.File(path) as file:
        file["model_weights"].visititems(visit)
    return list(networks.values())


def run_chrombpnet(networks: list[dict[str, torch.Tensor]], x: np.ndarray) -> np.ndarray:
    """As Keras does: nothing is padded, and profiles are cut to the 1,000 bases in the middle."""
    logits, counts = torch.zeros(1000, dtype=torch.float64), []
    for weights in networks:

        def conv(
            name: str, values: torch.Tensor, step: int = 1, weights: Any = weights
        ) -> torch.Tensor:
            kernel = weights[f"{name}/kernel"].permute(2, 1, 0)
            return functional.conv1d(values, kernel, weights[f"{name}/bias"], dilation=step)

        values = torch.relu(conv("1st_conv", torch.from_numpy(x.T[None].copy())))
        for i in range(1, sum(bool(re.match(r"\d+conv/k", name)) for name in weights) + 1):
            new = torch.relu(conv(f"{i}conv", values, 2**i))
            cut = (values.shape[2] - new.shape[2]) // 2
            values = new + values[:, :, cut : values.shape[2] - cut]
        profile = conv("prof_out_precrop", values)[0, 0]
        cut = (len(profile) - 1000) // 2
        logits = logits + profile[cut : cut + 1000]
        total = values.mean(2) @ weights["logcount_predictions/kernel"]
        counts.append(float(total + weights["logcount_predictions/bias"]))
    shares = torch.softmax(logits, 0).numpy()
    return (shares * sum(math.exp(x) for x in counts))[:, None]


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Square root of the Jensen-Shannon divergence, base 2."""
    p, q = one / one.sum(), other / other.sum()
    m = (p + q) / 2
    return math.sqrt(float((p * np.log2(p / m) + q * np.log2(q / m)).sum() / 2))


@pytest.mark.parametrize("biased", [False, True], ids=["nobias", "with bias"])
@pytest.mark.parametrize(
    ("filters", "bias"),
    [(16, (9, 4)), pytest.param(512, (128, 4), marks=pytest.mark.slow)],
    ids=["narrow", "full size"],
)
def test_chrombpnet_from_its_h5_to_a_vcf(
    tmp_path: Path, fasta: Path, capsys: pytest.CaptureFixture[str], biased: bool, filters: int,
    bias: tuple[int, int],
) -> None:  # fmt: skip
    path = tmp_path / ("chrombpnet.h5" if biased else "chrombpnet_nobias.h5")
    write_chrombpnet(path, biased=biased, filters=filters, layers=8, bias=bias)
    bundle = tmp_path / "bundle"
    assert call("models", "import", path, "-o", bundle) == 0
    assert "weights: as their publisher says" in capsys.readouterr().out
    assert call("models", "check", bundle) == 0
    card = read_card(bundle)
    assert (card.context, card.bin_size, card.crop) == (2114, 1, 557)
    assert card.provenance.citation.startswith("Pampari et al.")
    assert card.provenance.code_licence == "MIT"
    assert card.description.startswith("ChromBPNet (with")
    assert list(card.provenance.quality["sha256_of_weights"]) == [path.name]
    keeps_out(bundle, str(tmp_path))

    networks = read_chrombpnet(path)
    assert len(networks) == 1 + biased
    sites = snvs(1500, 1410, 900)
    found = annotate(tmp_path, fasta, bundle, sites, "LOGSED,JSD")
    sizes = []
    for (at, _, alt), info in zip(sites, found, strict=True):
        ref, new = both_strands(lambda x: run_chrombpnet(networks, x), at, alt, 2114)
        wanted = math.log2(1 + new.sum()) - math.log2(1 + ref.sum())
        assert float(info["CHROMBPNET_LOGSED_MAX"]) == pytest.approx(wanted, abs=2e-5)
        assert float(info["CHROMBPNET_JSD_MAX"]) == pytest.approx(distance(ref, new), rel=5e-3)
        sizes.append(abs(wanted))
    assert max(sizes) > 2e-4  # float32 has a tenth of it


def test_files_of_chrombpnet_in_one_folder(
    tmp_path: Path, fasta: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Folds are replicates, whose predictions are averaged; other parts of the model are not."""
    folds = [tmp_path / "folds" / f"fold_{i}.h5" for i in range(2)]
    folds[0].parent.mkdir()
    for i, path in enumerate(folds):
        write_chrombpnet(path, biased=False, filters=4 + i, layers=8)
    bundle = tmp_path / "bundle"
    assert call("models", "import", folds[0].parent, "-o", bundle) == 0
    assert len(load_bundle(bundle).graphs) == 2
    assert list(read_card(bundle).provenance.quality["sha256_of_weights"]) == [
        "fold_0.h5", "fold_1.h5",
    ]  # fmt: skip
    networks = [read_chrombpnet(path) for path in folds]
    ((at, _, alt),) = sites = snvs(1500)
    (info,) = annotate(tmp_path, fasta, bundle, sites, "LOGSED")
    ref, new = both_strands(
        lambda x: sum(run_chrombpnet(one, x) for one in networks) / 2, at, alt, 2114
    )
    wanted = math.log2(1 + new.sum()) - math.log2(1 + ref.sum())
    assert float(info["CHROMBPNET_LOGSED_MAX"]) == pytest.approx(wanted, abs=2e-5)
    # The same two named one by one.
    named = prepare(folds, identify=identify).predicted.networks
    for network, (weights,) in zip(named, networks, strict=True):
        kernel = weights["1st_conv/kernel"].permute(2, 1, 0)
        assert torch.equal(network.iconv.weight.double(), kernel)
    write_chrombpnet(folds[0].parent / "whole.h5", biased=True, filters=4, layers=8, bias=(3, 2))
    assert call("models", "import", folds[0].parent, "-o", bundle, "--force") == 1
    assert re.search(
        r"folds: files of different models: fold_0\.h5 \(ChromBPNet, without bias\), .*"
        r"whole\.h5 \(ChromBPNet, with bias\); give one of them\n$",
        capsys.readouterr().err,
    )


def test_replicates_have_one_window_and_the_same_tracks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for layers in (3, 4):
        path = tmp_path / f"{layers}.h5"
        write_chrombpnet(path, biased=False, filters=3, layers=layers)
    assert call("models", "import", tmp_path, "-o", tmp_path / "b") == 1
    assert "4.h5: another window, or other tracks, than" in capsys.readouterr().err


# Folders of baskerville and Basenji


def targets(path: Path, count: int, name: str, assay: str = "DNASE") -> None:
    head = "\tidentifier\tfile\tclip\tclip_soft\tscale\tsum_stat\tstrand_pair\tdescription\n"
    lines = [
        f"{i}\t{name}{i}\t{PATHS.format(i)}\t32\t\t1\tsum\t{i}\t{assay}:cell {i}\n"
        for i in range(count)
    ]
    path.write_text(head + "".join(lines))


@pytest.fixture(scope="module")
def two_heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as training leaves it: the best and the latest weights of two heads."""
    folder = tmp_path_factory.mktemp("heads") / "f0"
    folder.mkdir()
    for number, tracks in ((0, 5), (1, 4)):
        write_keras(folder, small(tracks=tracks))
        shutil.copy(folder / "model.h5", folder / f"model{number}_best.h5")
        shutil.copy(folder / "model.h5", folder / f"model{number}_check.h5")
    (folder / "model.h5").unlink()
    targets(folder / "targets_human.txt", 5, "H")
    targets(folder / "targets_mouse.txt", 4, "M")
    return folder


@pytest.mark.parametrize(
    ("head", "assembly", "count", "file"),
    [(None, "hg38", 5, "model0_best.h5"), ("mouse", "mm10", 4, "model1_best.h5")],
)
def test_a_folder_of_baskerville_with_two_heads(
    two_heads: Path, tmp_path: Path, fasta: Path, head: str | None, assembly: str, count: int,
    file: str,
) -> None:  # fmt: skip
    bundle = tmp_path / "bundle"
    options = ["--head", head] if head else []
    assert call("models", "import", two_heads, "-o", bundle, *options) == 0
    assert call("models", "check", bundle) == 0
    card = read_card(bundle)
    assert (card.name, card.provenance.assembly) == ("f0", assembly)
    assert list(card.provenance.quality["sha256_of_weights"]) == [file]
    assert card.provenance.code_licence == "Apache-2.0"
    assert card.provenance.citation
    rows = (bundle / "tracks.tsv").read_text().splitlines()[1:]
    letter = assembly[0].upper()
    assert [row.split("\t")[0] for row in rows] == [f"{letter}{i}" for i in range(count)]
    keeps_out(bundle, "somebody", "coverage.w5", str(two_heads), str(tmp_path))
    found = annotate(tmp_path, fasta, bundle, snvs(1500, 700), "SAD")
    assert all(info["BORZ_STATUS"] == "SCORED" for info in found)
    assert len({info["BORZ_SAD_MAX"] for info in found}) == 2


def test_tracks_are_chosen_at_import(two_heads: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    options = ["--head", "mouse", "--track-regex", "^M[13]$"]
    assert call("models", "import", two_heads, "-o", bundle, *options) == 0
    rows = (bundle / "tracks.tsv").read_text().splitlines()[1:]
    assert [row.split("\t")[0] for row in rows] == ["M1", "M3"]


def test_trap_heads_of_as_many_tracks_are_told_by_the_file(tmp_path: Path) -> None:
    """Both have 5: the number in the name is the head's place in params.json."""
    params = {**BORZOI_PARAMS, "head_mouse": BORZOI_PARAMS["head_human"]}
    write_keras(tmp_path, small(), params)
    for number, assembly in ((0, "hg38"), (1, "mm10")):
        shutil.copy(tmp_path / "model.h5", tmp_path / f"model{number}_best.h5")
        made = prepare(tmp_path / f"model{number}_best.h5", identify=identify)
        assert made.card["provenance"]["assembly"] == assembly


def write_h5(path: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Write weights by `layer/part` as Keras saves a model."""
    with h5py.File(path, "w") as file:
        for name, value in weights.items():
            layer, part = name.removeprefix("model_weights/").split("/")[0], name.split("/")[-1]
            short = part.removesuffix(":0")
            file[f"model_weights/{layer}/{layer}/{short}:0"] = value.numpy()


def basenji_params(units: Mapping[str, int]) -> dict[str, Any]:
    heads = {
        f"head_{name}": {"name": "final", "units": count, "activation": "softplus"}
        for name, count in units.items()
    }
    trunk = [
        {"name": "conv_block", "filters": 5, "kernel_size": 15, "pool_size": 2},
        {"name": "conv_tower", "filters_init": 6, "filters_mult": 1.17, "kernel_size": 5,
         "pool_size": 2, "repeat": 2},
        {"name": "dilated_residual", "filters": 4, "rate_mult": 1.5, "repeat": 3, "dropout": 0.3},
        {"name": "Cropping1D", "cropping": 2},
        {"name": "conv_block", "filters": 9, "dropout": 0.05},
    ]  # fmt: skip
    model = {"seq_length": 128, "activation": "gelu", "norm_type": "batch", "trunk": trunk, **heads}
    return {"train": {}, "model": model}


@pytest.mark.parametrize(("count", "head"), [(4, "human"), (3, "mouse")])
def test_a_folder_of_basenji2(
    tmp_path: Path, fasta: Path, capsys: pytest.CaptureFixture[str], count: int, head: str
) -> None:
    """Window and crop come from params.json, the head from its number of tracks."""
    folder = tmp_path / "basenji2"
    folder.mkdir()
    _, weights = basenji(tracks=count)
    write_h5(folder / "model_best.h5", keras_names(weights))
    (folder / "params.json").write_text(json.dumps(basenji_params({"human": 4, "mouse": 3})))
    targets(folder / "targets_human.txt", 4, "H")
    targets(folder / "targets_mouse.txt", 3, "M")
    bundle = tmp_path / "bundle"
    assert call("models", "import", folder, "-o", bundle, "--head", head) == 0
    assert call("models", "check", bundle) == 0
    card = read_card(bundle)
    assert (card.context, card.crop, card.bin_size, card.tag) == (128, 2, 8, "BASENJI")
    assert card.provenance.species == {"human": "Homo sapiens", "mouse": "Mus musculus"}[head]
    keeps_out(bundle, "somebody", "coverage.w5", str(tmp_path))
    found = annotate(tmp_path, fasta, bundle, sites := snvs(1500, 700, 30), "SAD")

    def predict(x: np.ndarray) -> np.ndarray:
        given = torch.from_numpy(x.T[None].copy()).float()
        return run_basenji(weights, given, GELUS["tanh"])[0].double().numpy()

    for (at, _, alt), info in zip(sites, found, strict=True):
        ref, new = both_strands(predict, at, alt, 128)
        wanted = new.sum(0) - ref.sum(0)
        for i in range(count):
            value = float(info[f"BASENJI_SAD_{head[0].upper()}{i}"])
            assert value == pytest.approx(wanted[i], rel=1e-3, abs=1e-5)
        assert np.abs(wanted).max() > 1e-3
    other = {"human": "mouse", "mouse": "human"}[head]
    assert call("models", "import", folder, "-o", tmp_path / "o", "--head", other) == 2
    assert f"--head {other}: {folder}" in capsys.readouterr().err


def test_a_folder_of_akita(tmp_path: Path, fasta: Path) -> None:
    folder = tmp_path / "akita"
    folder.mkdir()
    weights = keras_weights(small_akita())
    write_h5(folder / "model_best.h5", weights)
    (folder / "params.json").write_text(json.dumps(AKITA_PARAMS))
    targets(folder / "targets.txt", 3, "A", "HiC")
    bundle = tmp_path / "bundle"
    assert call("models", "import", folder, "-o", bundle) == 0
    assert call("models", "check", bundle) == 0
    card = read_card(bundle)
    assert card.scores == ("CONTACT_L1", "INSULATION")
    assert card.provenance.citation.startswith("Fudenberg")
    keeps_out(bundle, "somebody", "coverage.w5", str(tmp_path))
    # 16 bins of 8 bases, 3 cropped, pairs from 2 bins on: 10 bins and 36 pairs.
    row, column = np.triu_indices(10, 2)
    sites = snvs(1500, 700)
    found = annotate(tmp_path, fasta, bundle, sites, "CONTACT_L1,INSULATION:radius=4")
    for (at, _, alt), info in zip(sites, found, strict=True):
        maps = []
        for edit in (None, (at, alt)):
            x = window(at - 1 - 63, 128, edit)
            sides = []
            for strand in (x, x[::-1, ::-1]):
                upper = akita_by_hand(weights, torch.from_numpy(strand[None].copy()))[0]
                square = np.full((10, 10, 3), np.nan)
                square[row, column] = square[column, row] = upper
                sides.append(square)
            maps.append((sides[0] + sides[1][::-1, ::-1]) / 2)
        difference = maps[1] - maps[0]
        at_bin = (63 - 24) // 8  # of the first changed base
        square = difference[at_bin - 4 : at_bin, at_bin : at_bin + 4]
        for i in range(3):
            l1 = np.abs(difference[row, column, i]).mean()
            assert float(info[f"AKITA_CONTACT_L1_A{i}"]) == pytest.approx(l1, rel=1e-3, abs=1e-6)
            # Logarithms of ratios: minus the mean of the change across the bin.
            across = -np.nanmean(square[:, :, i])
            value = float(info[f"AKITA_INSULATION_RADIUS4_A{i}"])
            assert value == pytest.approx(across, rel=1e-3, abs=1e-6)
            assert abs(value) <= np.nanmax(np.abs(difference))


@pytest.mark.slow
def test_the_folder_of_mini_borzoi(shared_dir: Path, tmp_path: Path) -> None:
    """A trained model: the bundle is that of `export`, and nothing of upstream's paths is in it."""
    source, folder = shared_dir / "models" / "mini_borzoi", tmp_path / "mini"
    folder.mkdir()
    for name in ("params.json", "targets.txt", "hg38_1m.fa.gz"):
        shutil.copyfile(source / name, folder / name)
    shutil.copyfile(source / "model.h5", folder / "model_best.h5")
    bundle, direct = tmp_path / "bundle", tmp_path / "direct"
    assert call("models", "import", folder, "-o", bundle) == 0
    assert call("models", "check", bundle) == 0
    assert call("export", folder / "model_best.h5", "-o", direct) == 0
    assert load_bundle(bundle).digest == load_bundle(direct).digest
    lines = (folder / "targets.txt").read_text().splitlines()
    place = lines[0].split("\t").index("file")
    paths = {line.split("\t")[place] for line in lines[1:]}
    assert len(paths) == 74
    keeps_out(bundle, *paths, str(tmp_path))
    keeps_out(direct, *paths, str(tmp_path))
    out, source_vcf = tmp_path / "out.vcf", write_vcf(tmp_path / "in.vcf", ["chr1 63697 T C"])
    assert call("vcf", source_vcf, "-f", folder / "hg38_1m.fa.gz", "-m", bundle, "-o", out) == 0
    (record,) = records_of(out.read_text())
    assert record.info["BORZ_STATUS"] == "SCORED"


# Heads of torch's checkpoints


def checkpoint(kind: str, folder: Path) -> Path:
    folder.mkdir()
    if kind == "enformer":
        source = enformer_source(small_enformer())
        weights, config = source.weights, source.config
    else:
        network = small(trained_tokens=4096)
        weights = official_names(network, {"human": 5, "mouse": 3})
        config = {"bins_to_return": 26, "heads": 2}
    torch.save(dict(weights), folder / "model.pt")
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "model.pt"


@pytest.mark.parametrize(("kind", "context"), [("enformer", 96), ("borzoi", 128)])
def test_head_of_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, context: int
) -> None:
    path = checkpoint(kind, tmp_path / kind)
    wanted = {None: ("hg38", 5), "human": ("hg38", 5), "mouse": ("mm10", 3)}
    for head, (assembly, tracks) in wanted.items():
        subject = open_subject(path, context=context, head=head)
        made = prepare(path, identify=identify, context=context, head=head)
        for network in (*subject.networks, *made.predicted.networks):
            assert network.head.weight.shape[0] == tracks
        assert subject.provenance(Provenance())["assembly"] == assembly
        assert made.card["provenance"]["assembly"] == assembly
    for command in (["export"], ["models", "import"]):
        out = tmp_path / "rat"
        assert call(*command, path, "--context", context, "-o", out, "--head", "rat") == 2
        error = capsys.readouterr().err
        assert error == f"glm-annotate: error: --head rat: {path} has the heads human, mouse\n"
        assert not out.exists()


def test_a_bundle_of_the_other_head(tmp_path: Path) -> None:
    path = checkpoint("enformer", tmp_path / "enformer")
    bundle = tmp_path / "mouse"
    assert call("export", path, "--context", 96, "--head", "mouse", "-o", bundle) == 0
    assert read_card(bundle).provenance.species == "Mus musculus"
    with np.load(bundle / "selftest.npz") as arrays:
        assert arrays["output_tracks"].shape[2] == 3


def test_a_head_where_there_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "chrombpnet_nobias.h5"
    write_chrombpnet(path, biased=False, filters=3, layers=2)
    for command in (["models", "import"], ["export"]):
        assert call(*command, path, "-o", tmp_path / "b", "--head", "human") == 2
        error = capsys.readouterr().err
        assert error == (
            f"glm-annotate: error: --head human: {path}: these weights have no heads to choose "
            "from; leave --head out\n"
        )
