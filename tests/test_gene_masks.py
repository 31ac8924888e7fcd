"""Masks of genes: against loops over bins and sets of bases; INFO, the matrix, and where genes are.

The genes of these tests are transcripts in Python; the GTF is written from them, and what the
oracle knows of a gene is a set of bases for each mask.
"""

from __future__ import annotations

import gzip
import json
import math
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_kit import HEAD, call, header_of, records_of, write_vcf
from engine import Allele, make_chunk, write_fasta
from oracle_tracks import TrackOracle
from toy_tracks import NAMES, Shape, TrackEngine, maker, with_card, write_toy

from glm_annotate.annotate import Annotator
from glm_annotate.errors import UsageError
from glm_annotate.gene_files import read_gene_models
from glm_annotate.plan import PassFailed
from glm_annotate.runtime import OrtRunner
from glm_annotate.scores import ScoreSpec, parse_score
from glm_annotate.track_scores import TRACK_SCORES
from glm_annotate.variants import SKIPS

ALL = tuple(TRACK_SCORES)
CIRCULAR = frozenset({"ring"})
SHAPES = {
    "bases": Shape(48, 23, 1),
    "crop": Shape(60, 27, 1, 6),
    "bins": Shape(64, 31, 4, 2),
    "wide": Shape(96, 47, 16, 1),
}
SIZES = {"chr1": 520, "ring": 120, "bare": 150}
Make = Callable[..., Path]


@dataclass(frozen=True)
class Locus:
    """A gene: transcripts of exons, 0-based half-open."""

    gene_id: str
    name: str
    contig: str
    strand: str
    transcripts: tuple[tuple[tuple[int, int], ...], ...]

    @property
    def label(self) -> str:
        return self.name or self.gene_id

    def bases(self, options: dict[str, str]) -> set[int]:
        """List the bases of a mask."""
        exons = [exon for transcript in self.transcripts for exon in transcript]
        if options["mask"] == "exons":
            return {x for start, end in exons for x in range(start, end)}
        if options["mask"] == "gene":
            return set(range(min(x for x, _ in exons), max(x for _, x in exons)))
        width = int(options.get("width", "1"))
        out = set()
        for transcript in self.transcripts:
            minus = self.strand == "-"
            first = max(x for _, x in transcript) - 1 if minus else min(x for x, _ in transcript)
            low = first - (width - 1) // 2
            out |= set(range(low, low + width))
        return out


# The GTF says 1 where the FASTA has chr1. In the order of their starts.
LOCI = [
    Locus("G1", "PLUS 1;a", "1", "+", (
        ((60, 75), (90, 97), (120, 140)), ((52, 75), (130, 171)),
    )),
    Locus("G2", "MINUS", "1", "-", (((128, 150), (180, 190)), ((134, 139), (205, 222)))),
    Locus("G3", "", "1", "+", (((160, 162),),)),
    Locus("G4", "AFAR", "1", "-", (((330, 350), (400, 440)),)),
    Locus("R1", "RING", "ring", "-", (((20, 30), (40, 46)),)),
    Locus("R2", "ORIGIN", "ring", "+", (((104, 110), (116, 133)),)),
]  # fmt: skip


def write_gtf(path: Path, loci: Sequence[Locus] = LOCI) -> Path:
    lines = []
    for locus in loci:
        named = f' gene_name "{locus.name}";' if locus.name else ""
        for number, exons in enumerate(locus.transcripts):
            about = f'gene_id "{locus.gene_id}"; transcript_id "{locus.gene_id}.{number}";{named}'
            whole = (min(x for x, _ in exons), max(x for _, x in exons))
            for kind, (start, end) in (("transcript", whole), *(("exon", x) for x in exons)):
                cells = (locus.contig, "x", kind, start + 1, end, ".", locus.strand, ".", about)
                lines.append("\t".join(map(str, cells)) + "\n")
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="module")
def contigs() -> dict[str, str]:
    rng = np.random.default_rng(8)
    return {name: "".join(rng.choice(list("ACGT"), size)) for name, size in SIZES.items()}


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory, contigs: dict[str, str]) -> Path:
    return write_fasta(tmp_path_factory.mktemp("genome") / "toy.fa", contigs)


@pytest.fixture(scope="module")
def gtf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gtf(tmp_path_factory.mktemp("genes") / "toy.gtf")


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("toys")
    return {name: write_toy(folder / name, shape) for name, shape in SHAPES.items()}


@pytest.fixture
def make(graphs: dict[str, Path], tmp_path: Path) -> Make:
    """Give a toy another card: `make("bins", anchor=32, shifts=(0, 1))`."""
    return maker(graphs, SHAPES, tmp_path)


def other(base: str) -> str:
    return base.translate(str.maketrans("ACGT", "CGTA"))


def some_alleles(contigs: dict[str, str], seed: int) -> list[Allele]:
    """SNVs, insertions, deletions and others: in genes, beside them, far off, across an origin."""
    rng = np.random.default_rng(seed)
    out: list[Allele] = []
    places = [
        *(("chr1", int(x)) for x in rng.choice(np.arange(40, 240), 7, replace=False)),
        *(("chr1", x) for x in (2, 154, 290, 369, 470)),
        *(("ring", x) for x in (0, 12, 60, 114)),
        ("bare", 70),
    ]
    for name, at in places:
        bases = contigs[name][at : at + 13]
        new = "".join(rng.choice(list("ACGT"), 9))
        kinds = [
            (bases[0], other(bases[0])),
            (bases[0], bases[0] + new[: int(rng.integers(1, 10))]),
            (bases[: int(rng.integers(2, min(13, SIZES[name] - at)))], bases[0]),
            (bases[:3], other(bases[0]) + new + other(bases[2])),
        ]
        for i in range(4) if at in (154, 114) else rng.choice(4, 2, replace=False):
            # Records do not cross the origin.
            if at + len(kinds[i][0]) <= SIZES[name] and kinds[i][0] != kinds[i][1]:
                out.append((name, at + 1, *kinds[i]))
    return out


class GeneOracle(TrackOracle):
    """Scores gene by gene: a bin is in a mask if one of its bases is."""

    loci: Sequence[Locus] = LOCI

    def bases_of(self, allele, left, number):
        """List the places on the contig of a bin; behind a deletion they lie further right."""
        first = self.first_base(number)
        lost = len(allele.ref) - len(allele.alt)
        behind = self.card.bin_size > 1 and first > allele.start - left
        start = left + first + (lost if lost > 0 and behind else 0)
        return range(start, start + self.card.bin_size)

    def chosen(self, allele, left, locus, options):
        """Give the bins of a mask as in `pairs_of_bins`."""
        wanted, size = locus.bases(options), self.genome.contigs[allele.chrom]
        if allele.chrom in CIRCULAR:
            wanted = {x % size for x in wanted}
        return [
            item
            for item in self.pairs_of_bins(allele, left)
            for places in [self.bases_of(allele, left, item[0])]
            if any((p % size if allele.chrom in CIRCULAR else p) in wanted for p in places)
        ]

    def by_gene(self, chrom, pos, ref, alt, text):
        """Give {gene: ({track: score}, {track: (sum of REF, of ALT)})} of one mask."""
        name, *pairs = text.split(":")
        options = dict(pair.split("=") for pair in pairs)
        allele = self.allele(chrom, pos, ref, alt)
        shifts, out = self.card.shifts, {}
        for locus in self.loci:
            if locus.contig.removeprefix("chr") != allele.chrom.removeprefix("chr"):
                continue
            lefts = [allele.start - self.card.anchor + shift for shift in shifts]
            windows = [self.chosen(allele, left, locus, options) for left in lefts]
            if not all(windows):
                continue
            scores, sums = {}, {}
            for merged, one, partner in self.merged():
                tracks = [t for t in (one, partner) if t is not None]
                sides = [0.0, 0.0]
                scores[merged] = 0.0
                for kept in windows:
                    parts = [
                        self.score_of(name, [x[1][t] for x in kept], [x[2][t] for x in kept])
                        for t in tracks
                    ]
                    squares = name in ("D2", "LOGD2")
                    score = math.hypot(*parts) if squares else sum(parts)
                    scores[merged] += score / len(shifts)
                    for side in (0, 1):
                        values = [x[1 + side][t] for x in kept for t in tracks]
                        sides[side] += math.fsum(values) / len(shifts)
                sums[merged] = tuple(sides)
            out[locus.gene_id] = scores, sums
        return out


def engine_of(bundle: Path, fasta: Path, gtf: Path, scores: Sequence[str], **more: Any):
    engine = TrackEngine(bundle, fasta, scores, circular=CIRCULAR, **more)
    engine.model = replace(engine.model, genes=read_gene_models(gtf))
    engine.annotator = Annotator(engine.genome, [engine.model])
    return engine


def close(found: float, wanted: float) -> bool:
    if not math.isfinite(wanted):
        return math.isnan(found)
    return abs(found - wanted) <= 1e-6 * max(1.0, abs(wanted))


def largest(scores: dict[str, float]) -> float:
    return max((abs(x) for x in scores.values() if math.isfinite(x)), default=-1.0)


# --- against the oracle ------------------------------------------------------------------------

EACH = ("LOGSED:mask=exons", "SAD:mask=gene", "D2:mask=tss", "SAX:mask=tss:width=21")
CASES: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "bins-exons": ("bins", {}, tuple(f"{x}:mask=exons" for x in ALL)),
    "bins": ("bins", {"anchor": 32}, (*EACH, "JSD:mask=gene", "SAD")),
    "bins-shifts": ("bins", {"shifts": (4, 0, -9)}, EACH),
    "bins-forward": ("bins", {"strand": "forward", "anchor": 9}, EACH),
    "wide": ("wide", {}, EACH),
    "wide-right": ("wide", {"anchor": 80}, EACH),
    "bases": ("bases", {}, (*EACH, "LOGD2:mask=exons", "D1")),
    "crop": ("crop", {"anchor": 46}, EACH),
    "crop-shifts": ("crop", {"shifts": (0, 2)}, EACH),
}


@pytest.mark.parametrize("case", CASES)
def test_every_gene_equals_the_oracle(
    case: str, make: Make, fasta: Path, gtf: Path, contigs: dict[str, str]
) -> None:
    toy, card, texts = CASES[case]
    bundle = make(toy, **card)
    alleles = some_alleles(contigs, seed=sum(map(ord, case)))
    engine = engine_of(bundle, fasta, gtf, texts)
    oracle = GeneOracle(bundle, fasta, circular=CIRCULAR)
    (result,) = engine.results(make_chunk(alleles))
    assert not result.skip.any()
    specs = dict(zip(texts, engine.model.scores, strict=True))
    masked = [text for text in texts if "mask=" in text]
    first = masked[0]
    several = none = 0
    for i, allele in enumerate(alleles):
        wanted = {text: oracle.by_gene(*allele, text) for text in masked}
        rows = [row for row in result.rows if row.allele == i]
        genes = [x.gene_id for x in LOCI if any(x.gene_id in found for found in wanted.values())]
        assert [row.gene_id for row in rows] == genes, allele
        assert [row.gene for row in rows] == [x.label for x in LOCI if x.gene_id in genes]
        for row in rows:
            assert list(row.values) == [specs[text].key for text in masked]
            for text in masked:
                scores, _ = wanted[text].get(row.gene_id, (dict.fromkeys(NAMES, math.nan), {}))
                found = row.values[specs[text].key].tolist()
                assert all(map(close, found, scores.values())), (allele, text, row.gene)
            sums = wanted[first].get(row.gene_id, (0, dict.fromkeys(NAMES, (math.nan,) * 2)))[1]
            np.testing.assert_allclose(row.sums.T, list(sums.values()), rtol=1e-6)
        for text, found in wanted.items():
            key = specs[text].key
            none += not found
            several += len(found) > 1
            best = max(found, key=lambda gene: largest(found[gene][0]), default=None)
            reason = result.reasons[key][i]
            if best is None:
                assert SKIPS[reason - 1] == "NO_GENE"
                assert np.isnan([*result.tracks[key][i], result.values[key][i]]).all()
                assert result.named[key][i] == ""
                continue
            assert not reason
            (chosen,) = [x for x in LOCI if x.label == result.named[key][i]]
            # Another gene only where both are as large but for rounding.
            assert close(largest(found[chosen.gene_id][0]), largest(found[best][0]))
            numbers = found[chosen.gene_id][0]
            assert all(map(close, result.tracks[key][i].tolist(), numbers.values()))
            assert close(abs(result.values[key][i]), largest(numbers))
        for text in set(texts) - set(masked):
            plain = oracle.tracks(*allele, text)
            assert all(map(close, result.tracks[text][i].tolist(), plain.values()))
            assert text not in result.named
    assert several > len(masked)
    assert none >= 2 * len(masked)


def test_the_oracle_is_sensitive(make: Make, fasta: Path, contigs: dict[str, str]) -> None:
    """Bins of the reference would be other ones behind a deletion, and starts have widths."""
    oracle = GeneOracle(make("bins"), fasta, circular=CIRCULAR)
    text = contigs["chr1"]
    allele = oracle.allele("chr1", 126, text[125:135], text[125])
    left = allele.start - 31
    kept = [x[0] for x in oracle.chosen(allele, left, LOCI[1], {"mask": "exons"})]
    unmoved = [
        number
        for number in range(12)
        if set(range(left + oracle.first_base(number), left + oracle.first_base(number) + 4))
        & LOCI[1].bases({"mask": "exons"})
    ]
    assert kept
    assert kept != unmoved
    # The exon of G3 lies in what is lost: no bin has it.
    lost = oracle.allele("chr1", 158, text[157:170], text[157])
    assert lost.start <= 160 < 162 < lost.start + len(lost.ref) - 4
    assert not oracle.chosen(lost, lost.start - 31, LOCI[2], {"mask": "exons"})
    assert LOCI[1].bases({"mask": "tss"}) == {189, 221}
    assert LOCI[0].bases({"mask": "tss", "width": "4"}) == {*range(59, 63), *range(51, 55)}


# --- what must not change it ---------------------------------------------------------------------


def test_an_allele_alone(make: Make, fasta: Path, gtf: Path, contigs: dict[str, str]) -> None:
    """Batches, chunks and neighbours change neither the genes nor their numbers."""
    alleles = some_alleles(contigs, seed=2)
    bundle = make("bins")
    (whole,) = engine_of(bundle, fasta, gtf, EACH).results(make_chunk(alleles))
    engine = engine_of(bundle, fasta, gtf, EACH, batch=3)
    parts = engine.results(*(make_chunk([x]) for x in alleles))
    rows = [(i, row) for i, part in enumerate(parts) for row in part.rows]
    assert len(rows) == len(whole.rows) > len(alleles)
    for (i, one), row in zip(rows, whole.rows, strict=True):
        assert (i, one.gene_id) == (row.allele, row.gene_id)
        for key, values in row.values.items():
            np.testing.assert_allclose(one.values[key], values, rtol=1e-6, atol=1e-6)
    for key, names in whole.named.items():
        assert [part.named[key][0] for part in parts] == names


def test_a_failed_pass(
    make: Make, fasta: Path, gtf: Path, contigs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only its own allele is FAILED; the genes of the others stay, in their order."""
    text = contigs["chr1"]
    places = [60, 135, 160]
    alleles: list[Allele] = [("chr1", x + 1, text[x], other(text[x])) for x in places]
    alleles.append(("bare", 71, contigs["bare"][70], other(contigs["bare"][70])))
    engine = engine_of(make("bins", strand="forward"), fasta, gtf, (*EACH, "SAD"))
    (whole,) = engine.results(make_chunk(alleles))
    bad = ["ACGT".index(x) for x in text[135 - 31 : 135] + other(text[135])]
    run = OrtRunner.run

    def fail(self: OrtRunner, rows: np.ndarray, *rest: Any) -> Any:
        if (rows[:, :32] == bad).all(axis=1).any():
            raise PassFailed("made to")
        return run(self, rows, *rest)

    monkeypatch.setattr(OrtRunner, "run", fail)
    (result,) = engine.results(make_chunk(alleles))
    assert (result.skip > 0).tolist() == [False, True, False, False]
    kept = [row for row in whole.rows if row.allele != 1]
    assert 0 < len(kept) < len(whole.rows)
    found = [(row.allele, row.gene_id) for row in result.rows]
    assert found == [(row.allele, row.gene_id) for row in kept]
    for spec in engine.model.scores:
        np.testing.assert_allclose(
            result.tracks[spec.key][[0, 2, 3]], whole.tracks[spec.key][[0, 2, 3]], rtol=1e-6
        )
        np.testing.assert_array_equal(result.reasons[spec.key][3], whole.reasons[spec.key][3])
    for key, names in result.named.items():
        assert names == [whole.named[key][0], "", whole.named[key][2], ""]


def test_alleles_without_any_gene_cost_nothing(
    make: Make, fasta: Path, gtf: Path, contigs: dict[str, str]
) -> None:
    base = contigs["bare"][70]
    allele: Allele = ("bare", 71, base, other(base))
    for scores, passes in ((EACH, 0), ((*EACH, "SAD"), 4)):
        engine = engine_of(make("bins"), fasta, gtf, scores)
        engine.results(make_chunk([allele]))
        assert engine.runner.passes == passes


# --- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "options"),
    [
        ("SAD:mask=gene", "SAD_GENE", {"mask": "gene"}),
        ("logsed:mask=Exons", "LOGSED_EXONS", {"mask": "exons"}),
        ("D2:mask=tss", "D2_TSS", {"mask": "tss"}),
        ("D2:mask=tss:width=1", "D2_TSS", {"mask": "tss"}),
        ("D2:mask=tss:width=0012", "D2_TSS12", {"mask": "tss", "width": "12"}),
        ("D2:mask=tss:12", "D2_TSS12", {"mask": "tss", "width": "12"}),
        ("SAD:mask=center:1", "SAD_CENTER1", {"mask": "center", "width": "1"}),
        ("SAD:mask=all", "SAD", {"mask": "all"}),
    ],
)
def test_options(text: str, key: str, options: dict[str, str], graphs: dict[str, Path]) -> None:
    spec = parse(text, graphs)
    assert (spec.key, dict(spec.options)) == (key, options)
    assert spec.in_genes == (options["mask"] in ("gene", "exons", "tss"))


def parse(text: str, graphs: dict[str, Path]) -> ScoreSpec:
    from glm_annotate.bundle import load_bundle

    return parse_score(text, load_bundle(graphs["bins"]).card)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SAD:mask=genes", "unknown mask 'genes'; known: all, center, gene, exons, tss"),
        ("SAD:mask=exons:width=9", "width= belongs to mask=center, which needs it, and to mask="),
        ("SAD:mask=all:width=9", "width= belongs to mask=center, which needs it"),
        ("SAD:mask=center", "width= belongs to mask=center, which needs it"),
        ("SAD:mask=tss:width=65", "width=65 is not a number of bases from 1 to 64"),
        ("SAD:mask=tss:width=0", "width=0 is not a number of bases from 1 to 64"),
    ],
)
def test_options_that_are_none(text: str, message: str, graphs: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match=message):
        parse(text, graphs)


# --- the command line ----------------------------------------------------------------------------


@pytest.fixture
def vcf(tmp_path: Path, contigs: dict[str, str]) -> Path:
    line, bare = contigs["chr1"], contigs["bare"]
    records = [
        # Names as in the GTF, and as in the FASTA.
        f"1 136 {line[135]} {other(line[135])},{line[135] + other(line[135]) * 2}",
        f"chr1 71 {line[70:74]} {line[70]}",
        f"bare 71 {bare[70]} {other(bare[70])}",
        f"chr1 481 {line[480]} {other(line[480])},<CNV>",
        f"chr1 345 {line[344]} {other(line[344])}",
    ]
    return write_vcf(tmp_path / "in.vcf", records)


SCORED = ("LOGSED:mask=exons", "D2:mask=tss:width=21", "SAD")
LABELS = {"TRK_LOGSED_EXONS": SCORED[0], "TRK_D2_TSS21": SCORED[1]}


def annotate(tmp_path: Path, *arguments: object) -> bytes:
    out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}.vcf"
    assert call("vcf", *arguments, "-o", out, "--no-version") == 0
    return out.read_bytes()


def number(text: str) -> float:
    return math.nan if text == "." else float(text)


def close5(found: float, wanted: float) -> bool:
    """Six digits are printed."""
    return math.isfinite(found) and abs(found - wanted) <= 6e-6 * abs(wanted) + 1e-6


def test_info(make: Make, vcf: Path, fasta: Path, gtf: Path, tmp_path: Path) -> None:
    bundle = make("bins")
    words = (vcf, "-f", fasta, "-m", bundle, "-s", ",".join(SCORED), "--gtf", gtf)
    text = annotate(tmp_path, *words)
    header = header_of(text)
    keys = [x[len("##INFO=<ID=") :].split(",")[0] for x in header if x.startswith("##INFO=<ID=")]
    for label in LABELS:
        names = [x.removeprefix(f"{label}_") for x in keys if x.startswith(label)]
        assert names == [*(x for x in names[:-3]), "MAX", "TOP", "GENE"]
        (line,) = [x for x in header if f"ID={label}_GENE," in x]
        assert "Number=A,Type=String" in line
        assert f"Gene of {label}_MAX" in line
        (line,) = [x for x in header if f"ID={label}_MAX," in x]
        assert "in the gene in which the largest absolute value of all tracks is largest" in line
    assert "TRK_SAD_GENE" not in keys
    oracle = GeneOracle(bundle, fasta)
    records, named = records_of(text), set()
    for record in (records[0], records[1], records[4]):
        chrom, pos, ref, _ = record.site
        for which, alt in enumerate(record.alts):
            far = int(pos) == 345
            status = "D2_TSS21:NO_GENE" if far else "SCORED"
            assert record.per_alt("TRK_STATUS")[which] == status
            for label, wanted in LABELS.items():
                genes = oracle.by_gene(chrom, int(pos), ref, alt, wanted)
                found = record.per_alt(f"{label}_GENE")[which]
                named.add(found)
                if far and label == "TRK_D2_TSS21":
                    assert not genes
                    assert found == "."
                    continue
                best = max(genes, key=lambda gene: largest(genes[gene][0]))
                scores = genes[best][0]
                (locus,) = [x for x in LOCI if x.gene_id == best]
                assert found == locus.label.replace(" ", "%20").replace(";", "%3B")
                top = max(scores, key=lambda name: abs(scores[name]))
                assert close5(number(record.per_alt(f"{label}_MAX")[which]), scores[top])
                assert close5(number(record.per_alt(f"{label}_dnase")[which]), scores["dnase"])
                shown = record.per_alt(f"{label}_TOP")[which]
                assert shown == {NAMES[-1]: "cell%201%3Bx%3D2%2C50%25"}.get(top, top)
    assert len(named) > 1
    assert "PLUS%201%3Ba" in named
    for record in records[2:4]:
        assert record.per_alt("TRK_STATUS")[0] == "LOGSED_EXONS:NO_GENE|D2_TSS21:NO_GENE"
        for label in LABELS:
            for key in ("MAX", "TOP", "GENE", "dnase"):
                assert record.per_alt(f"{label}_{key}")[0] == "."
        assert number(record.per_alt("TRK_SAD_MAX")[0])
    assert records[3].per_alt("TRK_STATUS")[1] == "SYMBOLIC"


def test_dry_run(make: Make, vcf: Path, fasta: Path, gtf: Path, tmp_path: Path) -> None:
    bundle, found = make("bins"), []
    for name, options in (("dry", ("--dry-run",)), ("real", ("-o", tmp_path / "o.vcf"))):
        summary = tmp_path / f"{name}.json"
        given = ("-m", bundle, "-s", ",".join(SCORED[:2]), "--gtf", gtf, "--summary", summary)
        assert call("vcf", vcf, "-f", fasta, *given, *options) == 0
        found.append(json.loads(summary.read_text())["models"]["TRK"])
    assert found[0]["status"] == found[1]["status"]
    assert found[0]["status"]["LOGSED_EXONS:NO_GENE|D2_TSS21:NO_GENE"] == 2
    assert found[0]["status"]["D2_TSS21:NO_GENE"] == 1
    # An SNV, an insertion and a deletion in genes, and an SNV near the exons of the far gene.
    assert found[0]["forward_passes"] == found[1]["forward_passes"] == 2 * (2 + 3 + 3 + 2)


def test_genes_of_the_bundle(
    make: Make,
    vcf: Path,
    fasta: Path,
    gtf: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = make("bins")
    words = (vcf, "-f", fasta, "-m", bundle, "-s", SCORED[0])
    assert call("vcf", *words, "-o", tmp_path / "none.vcf") == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "--gtf" in x]
    assert "-s LOGSED:mask=exons" in line
    assert "has no genes.tsv.gz; name the genes: --gtf FILE" in line
    head = "name\tchrom\tstrand\ttx_start\ttx_end\texon_starts\texon_ends\n"
    rows = []
    for locus in LOCI:
        exons = sorted(exon for transcript in locus.transcripts for exon in transcript)
        starts, ends = (",".join(str(x[i]) for x in exons) for i in (0, 1))
        span = exons[0][0], max(x for _, x in exons)
        rows.append(
            "\t".join(map(str, (locus.label, locus.contig, locus.strand, *span, starts, ends)))
        )
    with gzip.open(bundle / "genes.tsv.gz", "wt") as file:
        file.write(head + "\n".join(rows) + "\n")
    with_card(bundle, SHAPES["bins"])
    own = annotate(tmp_path, *words)
    given = annotate(tmp_path, *words, "--gtf", gtf)
    kept = [[x.info for x in records_of(text)] for text in (own, given)]
    assert kept[0] == kept[1]


def test_genes_of_nothing(
    make: Make,
    vcf: Path,
    fasta: Path,
    gtf: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("vcf", vcf, "-f", fasta, "-m", make("bins"), "-o", tmp_path / "out.vcf")
    assert call(*words, "--gtf", gtf, "-s", "SAD") == 0
    assert "no model of this run reads genes" in capsys.readouterr().err
    elsewhere = write_gtf(tmp_path / "x.gtf", [replace(LOCI[0], contig="XIV")])
    assert call(*words, "--gtf", elsewhere, "-s", SCORED[0], "--force") == 1
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "x.gtf" in x]
    assert "no gene on a contig of" in line
    assert "genes are on XIV, the FASTA has chr1, ring, bare" in line


def test_bcftools(
    make: Make, vcf: Path, fasta: Path, gtf: Path, tmp_path: Path, bcftools: str
) -> None:
    source, out = tmp_path / "whole.vcf", tmp_path / "out.bcf"
    lines = vcf.read_text().removeprefix(HEAD).splitlines(keepends=True)
    # One spelling of the contig: a BCF holds no other.
    source.write_text(HEAD + "".join(x for x in lines if not x.startswith("1\t")))
    words = (source, "-f", fasta, "-m", make("bins"), "-s", SCORED[0], "--gtf", gtf)
    text = annotate(tmp_path, *words)
    assert call("vcf", *words, "-o", out, "-O", "b", "--no-version") == 0
    key = "TRK_LOGSED_EXONS_GENE"
    command = [bcftools, "query", "-f", f"%POS\t%{key}\n", str(out)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    wanted = [f"{x.site[1]}\t{x.info[key]}" for x in records_of(text)]
    assert run.stdout.splitlines() == wanted
    command = [bcftools, "view", "-H", "-i", f'{key}="AFAR"', str(out)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [x.site[1] for x in records_of(run.stdout)] == ["345"]


def test_matrix(make: Make, vcf: Path, fasta: Path, gtf: Path, tmp_path: Path) -> None:
    """Rows of alleles without gene for SAD, and of every gene for the rest."""
    pytest.importorskip("pyarrow")
    pandas = pytest.importorskip("pandas")
    bundle, matrix = make("bins"), tmp_path / "m.parquet"
    words = (vcf, "-f", fasta, "-m", bundle, "-s", ",".join(SCORED), "--gtf", gtf)
    text = annotate(tmp_path, *words, "--matrix", matrix)
    table = pandas.read_parquet(matrix)
    assert list(table.columns) == [
        "chrom", "pos", "id", "ref", "alt", "model", "gene", "gene_id", "track", "REF", "ALT",
        "LOGSED_EXONS", "D2_TSS21", "SAD",
    ]  # fmt: skip
    plain, rows = table[table.gene.isna()], table[table.gene.notna()]
    assert len(plain) == 6 * len(NAMES)
    assert plain[["gene_id", "LOGSED_EXONS", "D2_TSS21"]].isna().all().all()
    assert plain.SAD.notna().all()
    assert rows.SAD.isna().all()
    oracle, at = GeneOracle(bundle, fasta), 0
    for record in records_of(text):
        chrom, pos, ref, _ = record.site
        for alt in record.alts:
            if alt.startswith("<"):
                continue
            found = {x: oracle.by_gene(chrom, int(pos), ref, alt, LABELS[x]) for x in LABELS}
            for locus in LOCI:
                if not any(locus.gene_id in genes for genes in found.values()):
                    continue
                here = rows.iloc[at : at + len(NAMES)]
                at += len(NAMES)
                assert here.track.tolist() == list(NAMES)
                site = {(chrom, int(pos), ref, alt, "TRK", locus.label, locus.gene_id)}
                columns = ("chrom", "pos", "ref", "alt", "model", "gene", "gene_id")
                assert set(zip(*(here[x] for x in columns), strict=True)) == site
                for label, genes in found.items():
                    scores, sums = genes.get(locus.gene_id, ({}, {}))
                    values = [scores.get(x, math.nan) for x in NAMES]
                    assert all(map(close, here[label.removeprefix("TRK_")].tolist(), values))
                    if label != "TRK_LOGSED_EXONS":
                        continue
                    for side, name in enumerate(("REF", "ALT")):
                        values = [sums[x][side] if sums else math.nan for x in NAMES]
                        np.testing.assert_allclose(here[name], values, rtol=1e-6)
    assert at == len(rows) > 4 * len(NAMES)
    # Without a score of no gene there are no rows of none.
    alone = tmp_path / "alone.parquet"
    annotate(tmp_path, *words[:5], "-s", SCORED[0], "--gtf", gtf, "--matrix", alone)
    only = pandas.read_parquet(alone)
    assert only.gene.notna().all()
    held = rows[rows.LOGSED_EXONS.notna()]
    np.testing.assert_array_equal(only.LOGSED_EXONS, held.LOGSED_EXONS)


# --- a trained model and real genes --------------------------------------------------------------


def genes_near(gtf: Path, contig: str, start: int, end: int) -> list[Locus]:
    """Read the genes of a stretch of a real GTF line by line."""
    found: dict[str, dict[str, Any]] = {}
    with gzip.open(gtf, "rt") as lines:
        for line in lines:
            cells = line.rstrip("\n").split("\t")
            if cells[0] != contig or cells[2] != "exon":
                continue
            about = dict(x.strip().split(" ", 1) for x in cells[8].split(";") if x.strip())
            words = {key: value.strip('"') for key, value in about.items()}
            gene = found.setdefault(words["gene_id"], {"name": words.get("gene_name", "")})
            gene["strand"] = cells[6]
            exons = gene.setdefault("exons", {}).setdefault(words["transcript_id"], [])
            exons.append((int(cells[3]) - 1, int(cells[4])))
    loci = []
    for gene_id, gene in found.items():
        exons = tuple(map(tuple, gene["exons"].values()))
        places = [x for transcript in exons for exon in transcript for x in exon]
        if min(places) < end and max(places) > start:
            loci.append((min(places), max(places), gene_id, gene, exons))
    ordered = sorted(loci, key=lambda x: x[:3])
    return [Locus(x[2], x[3]["name"], contig, x[3]["strand"], x[4]) for x in ordered]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_mini_borzoi_and_the_genes_of_yeast(shared_dir: Path, tmp_path: Path) -> None:
    """An SNV, an insertion and a deletion; names of contigs differ by chr."""
    pytest.importorskip("h5py")
    yeast = shared_dir / "data" / "yeast"
    bundle, fasta = tmp_path / "mini", tmp_path / "yeast.fa.gz"
    for name in ("model.h5", "params.json", "targets.txt"):
        shutil.copyfile(shared_dir / "models" / "mini_borzoi" / name, tmp_path / name)
    for suffix in ("", ".fai", ".gzi"):
        shutil.copyfile(yeast / f"S288C_R64_16chr.fa.gz{suffix}", f"{fasta}{suffix}")
    assert call("export", tmp_path / "model.h5", "-o", bundle, "--assay", "CAGE") == 0
    gtf = yeast / "Saccharomyces_cerevisiae.R64-1-1.109.gtf.gz"
    oracle = GeneOracle(bundle, fasta)
    at = 100_000
    text = oracle.stretch("chrI", at, 40)
    alleles: list[Allele] = [
        ("chrI", at + 1, text[0], other(text[0])),
        ("chrI", at + 1, text[0], text[0] + "ACGTT" * 8),
        ("chrI", at + 1, text, text[0]),
    ]
    scores = ("LOGSED:mask=exons", "D2:mask=tss")
    oracle.loci = genes_near(gtf, "I", at - 70_000, at + 70_000)
    engine = TrackEngine(bundle, fasta, scores, threads=2)
    engine.model = replace(engine.model, genes=read_gene_models(gtf))
    engine.annotator = Annotator(engine.genome, [engine.model])
    (result,) = engine.results(make_chunk(alleles))
    numbers = 0
    for i, allele in enumerate(alleles):
        wanted = [oracle.by_gene(*allele, text) for text in scores]
        rows = [row for row in result.rows if row.allele == i]
        held = [x.gene_id for x in oracle.loci if any(x.gene_id in found for found in wanted)]
        assert [row.gene_id for row in rows] == held
        assert len(held) > 20
        for row in rows:
            for key, found in zip(("LOGSED_EXONS", "D2_TSS"), wanted, strict=True):
                assert (row.gene_id in found) == np.isfinite(row.values[key]).all()
                if row.gene_id in found:
                    values = list(found[row.gene_id][0].values())
                    np.testing.assert_allclose(row.values[key], values, rtol=1e-5, atol=1e-5)
                    numbers += len(values)
    assert numbers > 1000
