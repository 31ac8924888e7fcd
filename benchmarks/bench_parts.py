"""The parts that run with a model that costs nothing, or with none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import bench_data as data
import bench_timing as timing
import numpy as np
from bench_timing import Row

from glm_annotate.encoding import EncoderSpec, Vocab, make_encoder
from glm_annotate.testing import toy_bundle

ENCODERS: dict[str, dict[str, Any]] = {
    "one_hot": {"kind": "one_hot"},
    "kmer 1": {"kind": "kmer", "k": 1, "stride": 1},
    "kmer 6/1": {"kind": "kmer", "k": 6, "stride": 1},
    "kmer 6/6": {"kind": "kmer", "k": 6, "stride": 6},
    "bytes": {"kind": "bytes"},
}
HEAVY = ("torch", "transformers", "onnx", "onnxruntime", "pandas", "pyranges", "pysam", "cyvcf2")
HEAVY += ("numpy", "pydantic", "matplotlib", "pyBigWig", "tokenizers", "huggingface_hub")
_CONTEXT = 512
_CONTIG = "chr1"
_STARTS = 20  # the fewest starts of an interpreter that make a median


def throughput(folder: Path, options: timing.Options) -> list[Row]:
    """Alleles a second on one core, beside reading and writing alone."""
    count = options.sizes.snvs
    source, run = _free_run(folder, count, options)
    taken = timing.interleave(options.pairs, {"vcf": run, "io": _io_only(folder, source)})
    vcf, io = taken["vcf"], taken["io"]
    rate = count / timing.wall(vcf)
    return [
        Row("throughput", "vcf, free model, one core", f"{rate:,.0f} alleles/s",
            f"{count:,} SNVs, {timing.wall(vcf):.2f} s",
            timing.goal(rate, ">=", 50_000, "50,000")),
        Row("throughput", "the same a CPU second", f"{count / timing.cpu(vcf):,.0f} alleles/s",
            f"{timing.cpu(vcf):.2f} s of CPU"),
        Row("throughput", "reading and writing alone", f"{count / timing.wall(io):,.0f} alleles/s",
            f"{timing.wall(io):.2f} s"),
        Row("throughput", "vcf / reading and writing alone", f"{timing.ratio(vcf, io):.2f}"),
    ]  # fmt: skip


def memory(folder: Path, options: timing.Options) -> list[Row]:
    """Peak memory of a short and a long input."""
    small, large = options.sizes.few, options.sizes.many
    runs = {str(n): _free_run(folder, n, options)[1] for n in (small, large)}
    taken = timing.interleave(min(2, options.pairs), runs)
    few, many = (max(x.peak for x in taken[str(n)]) / 1e6 for n in (small, large))
    return [
        Row("memory", f"peak memory, {large:,} / {small:,} records", f"{many / few:.3f}",
            f"{many:.0f} MB / {few:.0f} MB",
            timing.goal(many - few, "<=", 50, "50 MB more")),
    ]  # fmt: skip


def passthrough(folder: Path, options: timing.Options) -> list[Row]:
    """Reading and writing alone, beside `bcftools view`."""
    program = shutil.which("bcftools")
    if program is None:
        return [Row("bcftools", "reading and writing / bcftools view", "not installed")]
    count = options.sizes.snvs
    source = _snvs(folder, count, options)
    view = timing.command(
        program, "view", "--no-version", "-Ov", "-o", folder / "view.vcf", source,
        cpu=timing.last_cpu(),
    )  # fmt: skip
    taken = timing.interleave(options.pairs, {"io": _io_only(folder, source), "view": view})
    io, viewed = taken["io"], taken["view"]
    return [
        Row("bcftools", "reading and writing / bcftools view", f"{timing.ratio(io, viewed):.2f}",
            f"{timing.wall(io):.2f} s / {timing.wall(viewed):.2f} s"),
        Row("bcftools", "bcftools view", f"{count / timing.wall(viewed):,.0f} records/s"),
    ]  # fmt: skip


def encoding(options: timing.Options) -> list[Row]:
    """Encode random windows, beside a copy of the same output bytes."""
    count = options.sizes.windows
    codes = np.random.default_rng(5).integers(0, 4, size=(count, _CONTEXT)).astype(np.uint8)
    # single_ids: 512 bases leave a tail behind the last of the non-overlapping 6-mers.
    singles = {letter: 4200 + i for i, letter in enumerate("ACGTN")}
    rows = []
    for name, keys in ENCODERS.items():
        vocab = Vocab(single_ids=singles) if keys.get("k") == 6 else Vocab(unk_id=4)
        encoder = make_encoder(EncoderSpec(**keys, vocab=vocab))
        (whole,) = encoder.encode(codes)
        taken = timing.interleave(
            options.pairs,
            {
                "encode": timing.in_process(lambda e=encoder: e.encode(codes)),  # type: ignore[misc]
                "copy": timing.in_process(whole.rows.copy),
            },
        )
        encoded, copied = taken["encode"], taken["copy"]
        rate = count / timing.wall(encoded)
        rows.append(
            Row("encoding", f"{name} / copy of its output", f"{timing.ratio(encoded, copied):.1f}",
                f"{rate:,.0f} windows/s, {whole.rows.nbytes / 1e6:.1f} MB")
        )  # fmt: skip
    return rows


def startup(options: timing.Options) -> list[Row]:
    """Start of the command, beside that of an empty interpreter."""
    python = sys.executable
    script = Path(python).with_name("glm-annotate")
    help_text = [script, "--help"] if script.exists() else [python, "-m", "glm_annotate", "--help"]
    taken = timing.interleave(
        max(_STARTS, options.pairs),
        {
            "help": timing.command(*help_text),
            "import": timing.command(python, "-c", "import glm_annotate.cli"),
            "pass": timing.command(python, "-c", "pass"),
        },
    )
    empty = taken["pass"]
    rows = [
        Row("startup", f"{what} / python -c pass", f"{timing.ratio(taken[key], empty):.2f}",
            f"{timing.wall(taken[key]) * 1e3:.0f} ms / {timing.wall(empty) * 1e3:.0f} ms")
        for key, what in (("help", "glm-annotate --help"), ("import", "import glm_annotate.cli"))
    ]  # fmt: skip
    heavy = heavy_modules()
    return [
        *rows,
        Row("startup", "heavy modules that the import loads", str(len(heavy)), ", ".join(heavy),
            timing.goal(len(heavy), "<=", 0, "0")),
    ]  # fmt: skip


def heavy_modules() -> list[str]:
    """List what `import glm_annotate.cli` loads of `HEAVY`."""
    script = f"import sys, glm_annotate.cli\nprint(*(x for x in {HEAVY!r} if x in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def _bases(folder: Path, options: timing.Options) -> str:
    """Give the bases of a random contig that has room for all SNVs, written once a folder."""
    path = folder / "random.fa"
    if path.exists():
        return data.read_fasta(path)[1]
    return data.write_genome(path, _CONTIG, 2 * max(options.sizes.snvs, options.sizes.many) + 2000)


def _snvs(folder: Path, count: int, options: timing.Options) -> Path:
    source = folder / f"snvs{count}.vcf"
    if not source.exists():
        bases = _bases(folder, options)
        data.write_vcf(source, _CONTIG, len(bases), data.snvs(bases, count))
    return source


def _free_run(folder: Path, count: int, options: timing.Options) -> tuple[Path, timing.Subject]:
    """Make `glm-annotate vcf` with the free model, on one core."""
    source, model = _snvs(folder, count, options), folder / "free"
    if not model.exists():
        toy_bundle(
            "free", model, context=_CONTEXT, anchor=_CONTEXT // 2, strand="forward", tag="FREE"
        )
    return source, timing.command(
        sys.executable, "-m", "glm_annotate", "-q", "vcf", source, "-f", folder / "random.fa",
        "-m", model, "-o", folder / "snvs.out.vcf", "--force", "--device", "cpu", "--threads", 1,
        cpu=timing.last_cpu(),
    )  # fmt: skip


def _io_only(folder: Path, source: Path) -> timing.Subject:
    script = Path(__file__).with_name("bench_io.py")
    return timing.command(
        sys.executable, script, source, folder / "io.out.vcf", cpu=timing.last_cpu()
    )
