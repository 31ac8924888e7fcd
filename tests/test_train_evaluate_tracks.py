"""`evaluate tracks`: bins and genes by plain loops, measures by scipy."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from evaluate_kit import contigs as contigs
from evaluate_kit import evaluate, rows_of
from evaluate_kit import fasta as fasta
from scipy import stats

from glm_annotate.bundle import write_bundle
from glm_annotate.errors import UsageError
from glm_annotate.evaluate.tracks import observed_files
from glm_annotate.genome import Genome, Interval
from glm_annotate.model import Model
from glm_annotate.opening import open_models
from glm_annotate.predict import Predictor
from glm_annotate.run_setup import Setup
from glm_annotate.testing import toy_bundle

NAMES = ("cage+", "dnase", "cage-", "cell 1;x=2,50%")


def write_toy(folder: Path) -> Path:
    """Write a toy of four tracks: softplus of the mean over a bin of a number a base and track."""
    onnx = pytest.importorskip("onnx")
    make = onnx.helper.make_node
    table = np.random.default_rng(6).normal(size=(5, 4)).astype(np.float32)
    constants = {"table": table, "from": np.array([2]), "to": np.array([14]), "axis": np.array([2])}
    nodes = [
        make("Cast", ["rows"], ["ids"], to=onnx.TensorProto.INT64),
        make("Gather", ["table", "ids"], ["bases"]),
        make("Transpose", ["bases"], ["turned"], perm=[0, 2, 1]),
        make("AveragePool", ["turned"], ["bins"], kernel_shape=[4], strides=[4]),
        make("Slice", ["bins", "from", "to", "axis"], ["inner"]),
        make("Softplus", ["inner"], ["soft"]),
        make("Transpose", ["soft"], ["tracks"], perm=[0, 2, 1]),
    ]
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "toy",
        [info("rows", onnx.TensorProto.UINT8, ["batch", 64])],
        [info("tracks", onnx.TensorProto.FLOAT, ["batch", 12, 4])],
        [onnx.numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    folder.mkdir()
    onnx.save_model(
        onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), str(folder / "model.onnx")
    )
    pairs = {"cage+": "cage-", "cage-": "cage+"}
    lines = ["identifier\tstrand_pair", *(f"{x}\t{pairs.get(x, '')}" for x in NAMES)]
    (folder / "tracks.tsv").write_text("\n".join(lines) + "\n")
    outputs = {"tracks": {"name": "tracks", "axes": ("batch", "bin", "track")}}
    card = {
        "name": "toy tracks", "tag": "TRK", "objective": "tracks", "context": 64, "anchor": 31,
        "bin_size": 4, "crop": 2, "outputs": outputs, "strand": "forward",
        "encoder": {"kind": "kmer", "vocab": {"order": "ACGT", "single_ids": {"N": 4}}},
        "inputs": {"rows": {"name": "rows", "axes": ("batch", "length"), "dtype": "uint8"}},
    }  # fmt: skip
    write_bundle(folder, card)
    return folder


def open_toy(bundle: Path, fasta: Path) -> tuple[Model, Genome]:
    genome = Genome(str(fasta))
    (model,) = open_models(Setup(fasta=str(fasta), models=(str(bundle),)), genome)
    return model, genome


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, fasta: Path, contigs: dict[str, str]):
    """A toy of tracks, a BED, genes, and bigWigs of noise (with gaps) and of the predictions."""
    pyBigWig = pytest.importorskip("pyBigWig")
    folder = tmp_path_factory.mktemp("tracks")
    bundle = write_toy(folder / "m")
    model, genome = open_toy(bundle, fasta)
    size, names = 4, list(NAMES)
    predicted = {}
    for contig, text in contigs.items():
        bins = np.full((-(-len(text) // size), len(names)), np.nan)
        for piece in Predictor(model, genome).predict([Interval(contig, 0, len(text))]):
            bins[piece.start // size : piece.start // size + len(piece.values)] = piece.values
        predicted[contig] = bins
    draw = np.random.default_rng(12)
    noise = {}
    for contig, text in contigs.items():
        noise[contig] = np.round(draw.gamma(1.0, 2.0, len(text)), 3).astype(np.float32)
        noise[contig][draw.random(len(text)) < 0.2] = np.nan
    signals = {"noise": noise, "same": {}}
    for contig, text in contigs.items():
        same = np.repeat(predicted[contig][:, names.index("dnase")], size)[: len(text)]
        signals["same"][contig] = same.astype(np.float32)
    for name, values in signals.items():
        with pyBigWig.open(str(folder / f"{name}.bw"), "w") as file:
            file.addHeader([(contig, len(text)) for contig, text in contigs.items()])
            for contig, numbers in values.items():
                known = np.flatnonzero(np.isfinite(numbers))
                file.addEntries(
                    [contig] * known.size, known.tolist(), ends=(known + 1).tolist(),
                    values=[float(x) for x in numbers[known]],
                )  # fmt: skip
    (folder / "x.bed").write_text("one\t0\t900\ntwo\t101\t503\n")
    gene = '{}\tx\texon\t{}\t{}\t.\t{}\t.\tgene_id "{}"; transcript_id "{}t";\n'
    genes = [("one", 11, 60, "+", "a"), ("one", 101, 113, "+", "a"), ("one", 201, 290, "-", "b"),
             ("two", 120, 180, "-", "c"), ("two", 300, 333, "+", "d"), ("two", 40, 130, "+", "e"),
             ("one", 500, 640, "+", "f")]  # fmt: skip
    (folder / "genes.gtf").write_text("".join(gene.format(*x, x[4]) for x in genes))
    return folder, bundle, predicted, names, noise


def test_bins_are_those_of_the_regions(measured, fasta, tmp_path):
    folder, bundle, predicted, names, noise = measured
    for missing in ("zero", "skip"):
        evaluate(
            "tracks", "-f", fasta, "-m", bundle, "-R", folder / "x.bed", "--missing", missing,
            "--observed", f"cage+={folder}/noise.bw", "--observed", f"dnase={folder}/same.bw",
            "--bootstrap", 20, "-o", tmp_path / missing,
        )  # fmt: skip
        rows = {(x["track"], x["column"], x["metric"]): x for x in rows_of(tmp_path / missing)}
        x, y = [], []
        for contig, start, end in (("one", 0, 900), ("two", 101, 503)):
            for k in range(len(predicted[contig])):
                if 4 * k + 4 <= start or 4 * k >= end:
                    continue
                part = noise[contig][4 * k : 4 * k + 4].astype(float)
                part = np.nan_to_num(part) if missing == "zero" else part[np.isfinite(part)]
                value = predicted[contig][k, names.index("cage+")]
                if part.size and np.isfinite(value):
                    x.append(value)
                    y.append(part.mean())
        row = rows["cage+", "prediction", "Pearson"]
        assert int(row["count"]) == len(x)
        assert float(row["value"]) == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-5)
        found = float(rows["cage+", "prediction", "Spearman"]["value"])
        assert found == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-5)
        assert float(row["low"]) < float(row["value"]) < float(row["high"])
        for metric in ("Pearson", "Spearman"):
            assert float(rows["dnase", "prediction", metric]["value"]) == pytest.approx(1, abs=1e-6)
            assert abs(float(rows["dnase", "gc", metric]["value"])) < 1


@pytest.mark.parametrize("mask", ["gene", "exons"])
def test_genes_are_sums_over_their_bases(measured, fasta, tmp_path, mask):
    folder, bundle, predicted, names, noise = measured
    evaluate(
        "tracks", "-f", fasta, "-m", bundle, "-R", folder / "x.bed", "--gtf", folder / "genes.gtf",
        "--mask", mask, "--observed", f"dnase={folder}/noise.bw", "--observed",
        f"cage+={folder}/noise.bw", "--bootstrap", 0, "-o", tmp_path / "out",
    )  # fmt: skip
    found = {
        (x["track"], x["metric"]): x for x in rows_of(tmp_path / "out") if "genes" in x["across"]
    }
    # Gene e lies outside of the regions in part.
    genes = {
        "a": ("one", [(10, 60), (100, 113)], "+"), "b": ("one", [(200, 290)], "-"),
        "c": ("two", [(119, 180)], "-"), "d": ("two", [(299, 333)], "+"),
        "f": ("one", [(499, 640)], "+"),
    }  # fmt: skip
    for track, strands in (("dnase", "+-"), ("cage+", "+")):
        x, y = [], []
        for contig, exons, strand in genes.values():
            if strand not in strands:
                continue
            spans = exons if mask == "exons" else [(exons[0][0], exons[-1][1])]
            places = [i for start, end in spans for i in range(start, end)]
            values = np.nan_to_num(noise[contig].astype(float))
            means = [values[4 * k : 4 * k + 4].mean() for k in range(len(predicted[contig]))]
            column = predicted[contig][:, names.index(track)]
            x.append(math.log2(1 + sum(column[i // 4] / 4 for i in places)))
            y.append(math.log2(1 + sum(means[i // 4] for i in places)))
        row = found[track, "Pearson"]
        assert int(row["count"]) == len(x)
        assert float(row["value"]) == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-5)


def test_tracks_that_cannot_be(measured, fasta, tmp_path):
    folder, bundle, *_ = measured
    model, _ = open_toy(bundle, fasta)
    assert observed_files(model, ["cell 1;x=2,50%=x=y.bw"]) == {"cell 1;x=2,50%": "x=y.bw"}
    with pytest.raises(UsageError, match=r"not TRACK=FILE\.bw with a track of toy tracks"):
        observed_files(model, ["none=x.bw"])
    with pytest.raises(UsageError, match=r"dnase is a\.bw already"):
        observed_files(model, ["dnase=a.bw", "dnase=b.bw"])
    language = toy_bundle("uniform", tmp_path / "m")
    with pytest.raises(UsageError, match="predicts no tracks"):
        evaluate(
            "tracks", "-f", fasta, "-m", language, "-R", folder / "x.bed", "--observed",
            f"dnase={folder}/same.bw", "-o", tmp_path / "out",
        )  # fmt: skip
