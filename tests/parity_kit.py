"""What every parity test does with a public implementation, its weights and a checkpoint of it.

A test builds the public implementation of a system with random weights that leave nothing at
zero or one (`randomise`), saves a checkpoint the way the authors' code does, and hands both to
`check_parity`, which: reads the checkpoint and compares our network with the public one; exports
it as a user would and compares ONNX Runtime with torch; scores real variants with the command
line and compares them with the brute-force oracle, whose forward passes are the public
implementation's. The figures become one row of the table that `make parity` prints.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pysam
import torch
from cli_kit import call, write_vcf
from oracle import Oracle

from glm_annotate.bundle import load_bundle
from glm_annotate.train import graph
from glm_annotate.train.sources import open_source
from glm_annotate.train.subjects import identify

# Token ids (B, T), and the channels (B, T, C) of systems that have some, to `logits` (B, T, V) and
# `embedding` (B, T, D).
Forward = Callable[..., Mapping[str, np.ndarray]]

# Operators that ONNX Runtime's CUDA provider has, of those that graphs may want (its list of
# operator kernels, and the classes in its library). DFT is not among them, Gelu not in every build.
_ON_CUDA = """
    Abs Add And Cast Ceil Clip Concat Constant ConstantOfShape Conv Cos CumSum Div Einsum Equal
    Erf Exp Expand Floor Gather GatherElements GatherND Gemm Greater GreaterOrEqual Identity If
    LayerNormalization Less LessOrEqual Log MatMul Max Min Mod Mul Neg Not Or Pad Pow Range
    Reciprocal ReduceL2 ReduceMax ReduceMean ReduceSum Relu Reshape Scan ScatterND Shape Sigmoid
    Sin Slice Softmax Softplus Split Sqrt Squeeze Sub Tanh Tile Transpose Trilu Unsqueeze Where
"""
CUDA_OPERATORS = frozenset(_ON_CUDA.split())

PUBLIC_LIMIT, ONNX_LIMIT, SCORE_LIMIT = 1e-5, 1e-4, 1e-4


@dataclass(frozen=True)
class Case:
    """One system and variant, as a public implementation made it.

    Attributes:
        system: The family's `title`; `variant`: see `Official.variant`.
        reference: The public implementation and its version, for the table.
        source: File or folder that it saved.
        forward: Its forward pass.
        rows: Numbers of rows of the windows compared.
        options: Further arguments of `glm-annotate export`.
        scores: Scores compared with the oracle.
        has_embedding: False where the public implementation does not give one.
        species: Species of the alignment that windows come with; it is made up.
    """

    system: str
    variant: str
    reference: str
    source: Path
    forward: Forward
    rows: Sequence[tuple[int, int]] = ((1, 23), (3, 40), (2, 57))
    options: Sequence[str] = ()
    scores: Sequence[str] = ("LLR", "PLLR", "WTLLR", "ENT", "EMB_COS", "EMB_L2:pool=all")
    has_embedding: bool = True
    species: int = 0


def randomise(module: torch.nn.Module, seed: int = 0, scale: float = 0.3) -> torch.nn.Module:
    """Fill every floating parameter: norms around 1, all else around 0, nothing exactly there."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if not weight.is_floating_point():
                continue
            noise = torch.randn(weight.shape, generator=generator)
            around = 1.0 if weight.ndim == 1 and name.endswith(("weight", "scale")) else 0.0
            fan = math.sqrt(weight[0].numel()) if weight.ndim > 1 else 1.0
            spread = max(scale, 1.2 / fan) if weight.ndim > 1 and fan < 8 else scale
            weight.copy_(around + noise * (1.2 / fan if weight.ndim > 1 else spread))
    return module.eval()


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    """Random weights, and running statistics that are not those of a fresh batch norm."""
    randomise(module)
    generator = torch.Generator().manual_seed(5)
    for name, value in module.named_buffers():
        if name.endswith("running_mean"):
            value.normal_(0, 0.3, generator=generator)
        if name.endswith("running_var"):
            value.uniform_(0.5, 2, generator=generator)
    assert all(bool(x.abs().max() > 0) for x in module.parameters())
    return module.eval()


def worst(found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest absolute difference as a part of max(1, largest value); shapes must agree."""
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max() / max(1.0, np.abs(wanted).max()))


class PublicOracle(Oracle):
    """The brute-force oracle with the public implementation's forward passes."""

    def __init__(self, bundle: Path, fasta: Path, forward: Forward, alignment: Any = None):
        super().__init__(bundle, fasta, alignment=alignment)
        self.forward = forward

    def run(self, rows, masked=()):
        ids = [self.vocab.mask_id if t in masked else row.id for t, row in enumerate(rows)]
        self.passes += 1
        batch = [np.array([ids], dtype=np.int64)]
        if self.columns is not None:
            batch.append(np.array([[row.beside for row in rows]], dtype=np.float32))
        outputs = self.forward(*batch)
        return {name: values[0].astype(np.float64) for name, values in outputs.items()}


def batch_of(network: Any, case: Case, shape: tuple[int, int], seed: int) -> Any:
    """Random ids, and random codes as channels where the network has some."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(network.vocabulary, size=shape)
    if not network.channels:
        return (rows,)
    return rows, rng.integers(5, size=(*shape, network.channels)).astype(np.float32)


Alleles = list[tuple[str, int, str, str]]


def real_variants(shared: Path, count: int = 24, end: int = 2_000_000) -> tuple[Path, Alleles]:
    """Human chr20 and variants of the 1000 Genomes: half substitutions, a quarter each indels."""
    folder = shared / "data" / "chr20"
    wanted = {"snv": count // 2, "ins": count // 4, "del": count - count // 2 - count // 4}
    pools: dict[str, Alleles] = {kind: [] for kind in wanted}
    with pysam.VariantFile(str(folder / "1000G_phase3_chr20_1-2Mb_sites.vcf.gz")) as file:
        for record in file:
            for alt in record.alts or ():
                size = len(alt) - len(record.ref)
                kind = "snv" if size == 0 else "ins" if size > 0 else "del"
                plain = set(record.ref + alt) <= set("ACGT")
                if plain and abs(size) <= 12 and record.pos < end - 1000:
                    pools[kind].append((record.chrom, record.pos, record.ref, alt))
    chosen = random.Random(3)
    picked = [x for kind, n in wanted.items() for x in chosen.sample(pools[kind], n)]
    return folder / "chr20_GRCh37.fa.gz", sorted(picked)


def aligned_variants(
    shared: Path, folder: Path, species: int
) -> tuple[Path, Alleles, Path, dict[str, list[str]]]:
    """The same on a piece of chr20 with an alignment whose other species are made up."""
    import zarr

    first, last = 1_000_000, 1_100_000
    whole, alleles = real_variants(shared, end=last)
    with pysam.FastaFile(str(whole)) as file:
        bases = file.fetch("20", first, last).upper()
    fasta = folder / "piece.fa"
    fasta.write_text(f">20\n{bases}\n")
    rng = np.random.default_rng(4)
    reference = np.array(list(bases), dtype="S1")
    letters = np.repeat(reference[:, None], 1 + species, axis=1)
    changed = rng.random(letters.shape) < 0.3
    changed[:, 0] = False
    letters[changed] = rng.choice(np.array(list("ACGT-"), dtype="S1"), changed.sum())
    root = zarr.open_group(str(folder / "msa.zarr"), mode="w", zarr_format=2)
    array = root.create_array("20", shape=letters.shape, chunks=(10_000, 1 + species), dtype="S1")
    array[:] = letters
    moved = [(chrom, pos - first, ref, alt) for chrom, pos, ref, alt in alleles]
    columns = [b"".join(column).decode() for column in letters]
    return fasta, moved, folder / "msa.zarr", {"20": columns}


def public_parity(case: Case) -> float:
    """Read the checkpoint with our code and compare the network with the public one."""
    source = open_source(case.source)
    _, official = identify(source)
    loaded = official.load(source, _context(case))
    differences = []
    for seed, shape in enumerate(case.rows):
        batch = batch_of(loaded.network, case, shape, seed)
        ours = graph.run_torch(loaded.network, batch if len(batch) > 1 else batch[0])
        theirs = case.forward(*batch)
        names = ("logits", "embedding") if case.has_embedding else ("logits",)
        differences += [worst(ours[name], theirs[name]) for name in names]
    return max(differences)


def onnx_parity(case: Case, bundle: Path) -> float:
    """Compare the bundle's graph with the public implementation at the same shapes."""
    card = load_bundle(bundle).card
    source = open_source(case.source)
    _, official = identify(source)
    network = official.load(source, _context(case)).network
    assert card.precision == "fp32"
    batches = [batch_of(network, case, shape, 40 + seed) for seed, shape in enumerate(case.rows)]
    single = [batch if len(batch) > 1 else batch[0] for batch in batches]
    found = graph.run_graph(bundle / "model.onnx", single)
    names = ("logits", "embedding") if case.has_embedding else ("logits",)
    return max(
        worst(outputs[name], theirs[name])
        for outputs, batch in zip(found, batches, strict=True)
        for theirs in [case.forward(*batch)]
        for name in names
    )


def operators(path: Path) -> set[str]:
    """List the operators of a graph and of those inside it."""
    found, graphs = set(), [onnx.load(path, load_external_data=False).graph]
    while graphs:
        for node in graphs.pop().node:
            found.add(node.op_type)
            graphs += [x.g for x in node.attribute if x.HasField("g")]
    return found


def score_parity(case: Case, bundle: Path, folder: Path, shared: Path) -> tuple[float, int]:
    """Score real variants with the command line and with the oracle; gives how many values."""
    alignment, words = None, []
    if case.species:
        fasta, alleles, msa, alignment = aligned_variants(shared, folder, case.species)
        words = ["--msa", msa]
    else:
        fasta, alleles = real_variants(shared)
    vcf = write_vcf(folder / "real.vcf", [f"{c} {p} {r} {a}" for c, p, r, a in alleles])
    table = folder / "scores.tsv"
    words = ["vcf", vcf, *words, "-f", fasta, "-m", f"T={bundle}", "-o", folder / "out.vcf"]
    words += ["--tsv", table, "--device", "cpu:1"]
    assert call(*words, *(x for score in case.scores for x in ("-s", score))) == 0
    head, *lines = [line.split("\t") for line in table.read_text().splitlines()]
    assert len(lines) == len(alleles)
    oracle = PublicOracle(bundle, fasta, case.forward, alignment)
    columns = [name for name in head if name.startswith("T_") and name != "T_STATUS"]
    assert len(columns) == len(case.scores), columns
    by_site = {tuple(map(str, allele)): allele for allele in alleles}
    differences, texts = [], []
    for line in lines:
        row = dict(zip(head, line, strict=True))
        allele = by_site[tuple(row[name] for name in ("chrom", "pos", "ref", "alt"))]
        for column, score in zip(columns, case.scores, strict=True):
            wanted = oracle.score(*allele, score)
            if isinstance(wanted, str):
                assert row[column] == ".", (allele, score, wanted, row[column])
                texts.append(wanted)
            else:
                assert row[column] != ".", (allele, score, wanted, row["T_STATUS"])
                difference = abs(float(row[column]) - wanted)
                differences.append(difference / max(1.0, abs(wanted)))
    # At least one score must say something about every allele.
    assert len(differences) >= len(alleles), texts
    return float(max(differences)), len(differences)


def check_parity(
    case: Case, folder: Path, record: Callable[[str, object], None], shared: Path
) -> None:
    """Do all three comparisons, note the figures for the table, and hold them to the limits."""
    torch.set_num_threads(1)
    bundle = folder / "bundle"
    public = public_parity(case)
    assert call("export", case.source, "-o", bundle, *case.options) == 0
    assert call("models", "check", bundle) == 0
    assert not operators(bundle / "model.onnx") - CUDA_OPERATORS
    exported = onnx_parity(case, bundle)
    scores, values = score_parity(case, bundle, folder, shared)
    row = [
        case.system,
        case.variant,
        case.reference,
        float(public),
        float(exported),
        scores,
        values,
    ]
    record("parity", row)
    assert public <= PUBLIC_LIMIT
    assert exported <= ONNX_LIMIT
    assert scores <= SCORE_LIMIT


def _context(case: Case) -> int | None:
    words = list(case.options)
    return int(words[words.index("--context") + 1]) if "--context" in words else None
