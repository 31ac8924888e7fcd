"""Splice sites in the frame of genes: SpliceAI's convention against a plain one in strings."""

from __future__ import annotations

import gzip
import importlib.metadata
import json
import math
import random
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from cli_kit import call, header_of, records_of, write_vcf
from engine import Allele, Engine, make_chunk, write_fasta
from torch import Tensor, nn

from glm_annotate.annotate import Annotator
from glm_annotate.bundle import GRAPH, write_bundle
from glm_annotate.errors import InputError
from glm_annotate.gene_models import read_gene_table
from glm_annotate.genome import Genome
from glm_annotate.opening import open_splice, open_tracks
from glm_annotate.plan import PassFailed
from glm_annotate.runtime import OrtRunner
from glm_annotate.scores import available
from glm_annotate.train import graph
from glm_annotate.train.families.predictor import Predictor

FLANK, DISTANCE = 6, 50
NAMES = [f"{kind}_{what}" for kind in ("DS", "DP") for what in ("AG", "AL", "DG", "DL")]
COLUMN = {"A": 1, "D": 2}


class Toy(Predictor):
    """Three classes at each base from the 13 bases around it; the tracks are donor, acceptor."""

    def __init__(self, spoiled: bool = False) -> None:
        super().__init__()
        self.outputs = {"tracks": ("batch", "bin", "track")}
        draw = torch.Generator().manual_seed(3)
        self.taps = nn.Parameter(torch.randn(3, 4, 2 * FLANK + 1, generator=draw))
        self.spoiled = spoiled

    def forward(self, bases: Tensor, channels: Tensor | None = None) -> tuple[Tensor, ...]:
        signal = nn.functional.conv1d(bases.transpose(1, 2), self.taps)
        classes = torch.softmax(signal, dim=1).transpose(1, 2)[:, :, [2, 1]]
        return (classes * float("nan") if self.spoiled else classes,)


TAPS = Toy().taps.detach().double().numpy()


@dataclass(frozen=True)
class Locus:
    """A gene of these tests: 0-based half-open."""

    name: str
    contig: str
    strand: str
    start: int
    end: int


LOCI = [
    Locus("PLUS", "c", "+", 100, 420),
    Locus("MINUS", "c", "-", 380, 700),
    Locus("IN;SIDE", "c", "+", 450, 500),
    Locus("WHOLE", "d", "-", 0, 90),
    Locus("EDGE", "e", "+", 0, 300),
]
GENES = "name\tchrom\tstrand\ttx_start\ttx_end\texon_starts\texon_ends\n" + "".join(
    f"{x.name}\t{x.contig}\t{x.strand}\t{x.start}\t{x.end}\t{x.start}\t{x.end}\n" for x in LOCI
)


def draw(length: int, seed: int) -> str:
    return "".join(random.Random(seed).choices("ACGT", k=length))


CONTIGS = {"c": draw(900, 1), "d": draw(90, 2), "e": draw(300, 3)}
COMPLEMENT = str.maketrans("ACGTN", "TGCAN")

# --- the oracle ----------------------------------------------------------------------------------


def predict(text: str) -> list[list[float]]:
    """Give the classes of every base that has all its flanks."""
    found = []
    for at in range(FLANK, len(text) - FLANK):
        logits = [0.0, 0.0, 0.0]
        for step, base in enumerate(text[at - FLANK : at + FLANK + 1]):
            if base != "N":
                for kind in range(3):
                    logits[kind] += float(TAPS[kind]["ACGT".index(base)][step])
        weights = [math.exp(x) for x in logits]
        found.append([x / sum(weights) for x in weights])
    return found


def of_gene(text: str, strand: str) -> list[list[float]]:
    if strand == "+":
        return predict(text)
    return predict(text[::-1].translate(COMPLEMENT))[::-1]


def spliceai(
    locus: Locus, pos: int, ref: str, alt: str, low: int = -DISTANCE, high: int = DISTANCE
) -> dict[str, float]:
    """SpliceAI's way: windows whose middle is POS, and ALT's predictions put on REF's bases.

    REF and ALT begin with the same base unless they have one base each. Windows are as long as
    the deleted bases ask for, so that a deletion of more than 50 bases leaves all 101 places.
    """
    half, contig, text = DISTANCE + FLANK, CONTIGS[locus.contig], ""
    for place in range(pos - 1 - half, pos + half + len(ref) - 1):
        inside = locus.start <= place < locus.end and 0 <= place < len(contig)
        text += contig[place] if inside else "N"
    old = of_gene(text, locus.strand)[: 2 * DISTANCE + 1]
    new = of_gene(text[:half] + alt + text[half + len(ref) :], locus.strand)
    if len(ref) > 1:
        gone = [[0.0, 0.0, 0.0] for _ in range(len(ref) - len(alt))]
        new = [*new[: DISTANCE + 1], *gone, *new[DISTANCE + 1 :]]
    elif len(alt) > 1:
        middle = new[DISTANCE : DISTANCE + len(alt)]
        most = [max(row[kind] for row in middle) for kind in range(3)]
        new = [*new[:DISTANCE], most, *new[DISTANCE + len(alt) :]]
    found = {}
    for what in ("AG", "AL", "DG", "DL"):
        kind, sign = COLUMN[what[0]], 1 if what[1] == "G" else -1
        changes = {
            at: sign * (new[DISTANCE + at][kind] - old[DISTANCE + at][kind])
            for at in range(low, high + 1)
        }
        best = max(changes, key=lambda at: (changes[at], -at))
        found[f"DS_{what}"], found[f"DP_{what}"] = changes[best], best
    return found


def best_gene(allele: Allele) -> tuple[str, dict[str, float]] | None:
    """Evaluate the allele in each gene that has a base of it, and take the most changed one."""
    contig, pos, ref, alt = allele
    first = pos - 1 if len(ref) == 1 else pos
    end = pos - 1 + len(ref)
    held = [x for x in LOCI if x.contig == contig and x.start < end and x.end > first]
    if not held:
        return None
    found = [(x.name, spliceai(x, pos, ref, alt)) for x in held]
    return max(found, key=lambda x: max(abs(x[1][n]) for n in NAMES[:4]))


# --- the engine ----------------------------------------------------------------------------------


def write_toy(folder: Path, *, genes: str = GENES, spoiled: bool = False, **card: object) -> Path:
    folder.mkdir(parents=True)
    graph.write_graph(Toy(spoiled).eval(), folder / GRAPH, "fp32")
    (folder / "tracks.tsv").write_text("identifier\trole\nfirst\tdonor\nsecond\tacceptor\n")
    if genes:
        (folder / "genes.tsv.gz").write_bytes(gzip.compress(genes.encode(), mtime=0))
    size = 2 * (DISTANCE + FLANK) + 1
    values = {
        "name": "toy splice", "tag": "TOY", "objective": "tracks",
        "frame": "gene", "strand": "gene", "context": size, "anchor": size // 2,
        "bin_size": 1, "crop": FLANK, "scores": NAMES,
        "encoder": {"kind": "kmer", "vocab": {"order": "ACGT", "single_ids": {"N": 4}}},
        "inputs": {"rows": {"name": "rows", "axes": ("batch", "length"), "dtype": "uint8"}},
        "outputs": {"tracks": {"name": "tracks", "axes": ("batch", "bin", "track")}},
    }  # fmt: skip
    write_bundle(folder, values | card)
    return folder


class SpliceEngine(Engine):
    """An engine that reads the genes of its model."""

    def __init__(self, bundle: Path, fasta: Path, scores: tuple[str, ...] = (), **options: object):
        super().__init__(bundle, fasta, scores, **options)
        (model,) = self.annotator.models
        splice = open_splice(self.bundle, None)
        self.annotator = Annotator(self.genome, [replace(model, splice=splice)])


@pytest.fixture(scope="module")
def fasta(tmp_path_factory) -> Path:
    return write_fasta(tmp_path_factory.mktemp("genome") / "g.fa", CONTIGS)


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy") / "bundle")


@pytest.fixture(scope="module")
def engine(toy, fasta) -> SpliceEngine:
    return SpliceEngine(toy, fasta)


def snv(contig: str, pos: int, step: int = 1) -> Allele:
    ref = CONTIGS[contig][pos - 1]
    return contig, pos, ref, "ACGT"[("ACGT".index(ref) + step) % 4]


def insertion(contig: str, pos: int, length: int) -> Allele:
    """Insert bases that cannot move to the left."""
    ref = CONTIGS[contig][pos - 1]
    last = next(x for x in "ACGT" if x != ref)
    return contig, pos, ref, ref + draw(length - 1, pos) + last


def deletion(contig: str, pos: int, length: int) -> Allele:
    """Delete so many bases behind a place near POS, where they cannot move to the left."""
    text = CONTIGS[contig]
    while text[pos - 1] == text[pos - 1 + length]:
        pos += 1
    return contig, pos, text[pos - 1 : pos + length], text[pos - 1]


SNVS = [snv("c", pos) for pos in (101, 103, 200, 300, 390, 400, 420, 421, 470, 500, 600, 699, 700)]
ALTS = [snv("c", 250, step) for step in (1, 2, 3)]
INSERTIONS = [
    insertion("c", pos, length)
    for pos, length in ((101, 2), (200, 1), (200, 7), (260, 45), (400, 3), (419, 4), (600, 5),
                        (640, 30), (700, 2))
]  # fmt: skip
DELETIONS = [
    deletion("c", pos, length)
    for pos, length in ((104, 1), (200, 1), (220, 9), (250, 40), (300, 55), (410, 20), (600, 5),
                        (620, 44), (690, 20))
]  # fmt: skip
ENDS = [
    *(snv(contig, pos) for contig, pos in (("d", 1), ("d", 45), ("d", 90), ("e", 2), ("e", 300))),
    insertion("d", 3, 4), insertion("e", 298, 3), deletion("d", 5, 6), deletion("e", 290, 4),
]  # fmt: skip
EVERY = [*SNVS, *ALTS, *INSERTIONS, *DELETIONS, *ENDS]


@pytest.mark.parametrize("allele", EVERY, ids=lambda x: f"{x[0]}{x[1]}{x[2][:8]}-{x[3][:8]}")
def test_the_convention_of_spliceai(engine, allele):
    wanted = best_gene(allele)
    assert wanted is not None
    (result,) = engine.results(make_chunk([allele]))
    assert result.genes == [wanted[0]]
    found = {name: float(result.values[name][0]) for name in NAMES}
    assert found == pytest.approx(wanted[1], abs=2e-6)


def test_both_genes_at_an_allele_can_be_the_reported_one():
    names = {best_gene(snv("c", pos))[0] for pos in range(381, 421)}
    assert names == {"PLUS", "MINUS"}


def test_alleles_do_not_depend_on_each_other(engine):
    (together,) = engine.results(make_chunk(EVERY))
    for i, allele in enumerate(EVERY):
        (alone,) = engine.results(make_chunk([allele]))
        assert together.genes[i] == alone.genes[0]
        for name in NAMES:
            assert together.values[name][i] == pytest.approx(alone.values[name][0], abs=1e-6)


def test_alleles_of_a_site_share_the_pass_of_the_reference(engine):
    work = engine.annotator.read(make_chunk(ALTS))
    assert engine.annotator.prepare(work).passes == {"T": 4}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # The same haplotype, written without a base in common, with more, and further right.
        (("AC", "A"), ("ACT", "AT")),
        (("C", "CG"), ("CT", "CGT")),
    ],
)
def test_spellings(engine, one, other):
    text = CONTIGS["c"]
    written = max(one[0], other[0], key=len)
    pos = 1 + next(i for i in range(150, 370) if text[i:].startswith(written))
    found = engine.score([("c", pos, *one), ("c", pos, *other)])
    assert all(first == pytest.approx(second) for first, second in found.values())


@pytest.mark.parametrize(("contig", "pos"), [("c", 200), ("c", 600)])
def test_an_insertion_of_more_bases_than_a_window_has_bins(tmp_path, fasta, contig, pos):
    """61 bins from 2 before the site on: three windows make the haplotype."""
    bundle = write_toy(tmp_path / "short", context=73, anchor=8)
    allele = insertion(contig, pos, 63)
    short = SpliceEngine(bundle, fasta)
    assert short.annotator.prepare(short.annotator.read(make_chunk([allele]))).passes == {"T": 4}
    locus = LOCI[0] if pos == 200 else LOCI[1]
    found = {name: values[0] for name, values in short.score([allele]).items()}
    assert found == pytest.approx(spliceai(locus, *allele[1:], low=-2), abs=2e-6)


def test_a_change_of_several_bases_counts_from_its_first(engine):
    text = CONTIGS["c"]
    ref = text[199:202]
    alt = ref.translate(COMPLEMENT)
    old = of_gene(text[199 - 56 : 200 + 56], "+")
    new = of_gene(text[199 - 56 : 199] + alt + text[202 : 200 + 56], "+")
    gain = [b[1] - a[1] for a, b in zip(old, new, strict=True)]
    found = engine.score([("c", 200, ref, alt)])
    assert found["DS_AG"] == [pytest.approx(max(gain), abs=2e-6)]
    assert found["DP_AG"] == [gain.index(max(gain)) - 50]


@pytest.mark.parametrize(
    ("allele", "reason"),
    [
        (snv("c", 100), "NO_GENE"),
        (snv("c", 701), "NO_GENE"),
        (insertion("c", 100, 2), "NO_GENE"),
        (insertion("c", 701, 2), "NO_GENE"),
        (deletion("c", 750, 2), "NO_GENE"),
        (("c", 200, CONTIGS["c"][199], CONTIGS["c"][199] + "A" * 57), "TOO_LONG"),
    ],
)
def test_reasons(engine, allele, reason):
    assert engine.score([allele]) == {name: [reason] for name in NAMES}
    (result,) = engine.results(make_chunk([allele]))
    assert result.genes == [""]


def test_numbers_that_are_none(tmp_path, fasta):
    spoiled = SpliceEngine(write_toy(tmp_path / "spoiled", spoiled=True), fasta)
    assert spoiled.score([SNVS[2]]) == {name: ["NOT_FINITE"] for name in NAMES}


def test_a_failed_pass_takes_no_other_allele_with_it(engine, monkeypatch):
    run = OrtRunner.run
    bad = "ACGT".index(SNVS[3][3])
    middle = DISTANCE + FLANK
    (whole,) = engine.results(make_chunk(SNVS[2:5]))

    def fail(self, rows, *rest):
        around = CONTIGS["c"][SNVS[3][1] - 4 : SNVS[3][1] - 1]
        here = (rows[:, middle] == bad) & (
            rows[:, middle - 3 : middle] == ["ACGT".index(x) for x in around]
        ).all(axis=1)
        if here.any():
            raise PassFailed("made to")
        return run(self, rows, *rest)

    monkeypatch.setattr(OrtRunner, "run", fail)
    (result,) = engine.results(make_chunk(SNVS[2:5]))
    assert (result.skip > 0).tolist() == [False, True, False]
    assert result.genes == [whole.genes[0], "", whole.genes[2]]
    for name in NAMES:
        assert result.values[name][[0, 2]] == pytest.approx(whole.values[name][[0, 2]], abs=1e-6)


def test_scores_of_the_frame(engine):
    card = engine.bundle.card
    assert [name for name in available(card) if not name.endswith(("GAIN", "LOSS"))] == NAMES
    assert not set(NAMES) & set(
        available(card.model_copy(update={"frame": "variant", "strand": "both"}))
    )
    assert open_tracks(engine.bundle, None) is None


# --- tables of genes -----------------------------------------------------------------------------

SITES = "gene\tcontig\tstrand\tstart\tend\tacceptors\tdonors\n"


@pytest.mark.parametrize(
    ("row", "exons"),
    [
        ("G\tc\t+\t10\t90\t30,60\t19,39", [[10, 20], [30, 40], [60, 90]]),
        ("G\tc\t-\t10\t90\t19,39\t30,60", [[10, 20], [30, 40], [60, 90]]),
        ("G\tc\t+\t10\t90\t10,60\t39,89", [[10, 40], [60, 90]]),
        ("G\tc\t+\t10\t90\t30,50,60\t19", [[10, 90]]),
        ("G\tc\t-\t10\t90\t\t", [[10, 90]]),
    ],
)
def test_tables_of_sites(tmp_path, row, exons):
    path = tmp_path / "genes.tsv"
    path.write_text(f"{SITES}{row}\n")
    (gene,) = read_gene_table(path).on("c")
    assert (gene.name, gene.strand, gene.start, gene.end) == ("G", row[4], 10, 90)
    assert gene.exons.tolist() == exons


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("G\tc\t+\t10\t90\t30,90\t19", "line 2: 'G' needs a strand"),
        ("G\tc\t.\t10\t90\t30\t19", "line 2: 'G' needs a strand"),
        ("G\tc\t+\t10\t90\t30\tx", "line 2 is no gene"),
    ],
)
def test_tables_of_sites_that_are_refused(tmp_path, row, message):
    (tmp_path / "genes.tsv").write_text(f"{SITES}{row}\n")
    with pytest.raises(InputError, match=message):
        read_gene_table(tmp_path / "genes.tsv")


# --- the command line ----------------------------------------------------------------------------


def test_info(tmp_path, toy, fasta):
    chosen = [SNVS[2], INSERTIONS[2], snv("c", 100), snv("c", 480), DELETIONS[7]]
    inside = next(x for x in (snv("c", p) for p in range(451, 501)) if best_gene(x)[0] == "IN;SIDE")
    chosen.append(inside)
    source = write_vcf(tmp_path / "in.vcf", [f"{c} {p} {r} {a}" for c, p, r, a in chosen])
    out = tmp_path / "out.vcf"
    assert call("vcf", source, "-f", fasta, "-m", toy, "--strand", "both", "-o", out) == 0
    text = out.read_text()
    for record, allele in zip(records_of(text), chosen, strict=True):
        wanted = best_gene(allele)
        assert list(record.info) == [*(f"TOY_{n}" for n in NAMES), "TOY_GENE", "TOY_STATUS"]
        if wanted is None:
            assert {record.info[f"TOY_{n}"] for n in (*NAMES, "GENE")} == {"."}
            assert record.info["TOY_STATUS"] == "|".join(f"{n}:NO_GENE" for n in NAMES)
            continue
        assert record.info["TOY_GENE"] == wanted[0].replace(";", "%3B")
        assert record.info["TOY_STATUS"] == "SCORED"
        for name in NAMES[:4]:
            assert float(record.info[f"TOY_{name}"]) == pytest.approx(wanted[1][name], abs=3e-6)
        for name in NAMES[4:]:
            assert record.info[f"TOY_{name}"] == str(wanted[1][name])
    lines = {x.partition("ID=")[2].partition(",")[0]: x for x in header_of(text) if "ID=TOY" in x}
    assert "Number=A,Type=Float" in lines["TOY_DS_AG"]
    assert "Number=A,Type=Integer" in lines["TOY_DP_DL"]
    assert "Number=A,Type=String" in lines["TOY_GENE"]
    assert "strand of the gene" in lines["TOY_DS_AG"]
    assert 'Strands="gene"' in text


def test_genes_of_a_gtf(tmp_path, fasta):
    """Other genes than the bundle's: those of --gtf count."""
    bundle = write_toy(tmp_path / "bundle", genes=GENES.replace("PLUS", "OTHER"))
    row = 'c\tx\t{}\t101\t420\t.\t+\t.\tgene_id "PLUS"; transcript_id "T";\n'
    gtf = tmp_path / "genes.gtf"
    gtf.write_text("".join(row.format(kind) for kind in ("transcript", "exon")))
    source = write_vcf(tmp_path / "in.vcf", ["{} {} {} {}".format(*SNVS[2])])
    out = tmp_path / "out.vcf"
    assert call("vcf", source, "-f", fasta, "-m", bundle, "--gtf", gtf, "-o", out) == 0
    (record,) = records_of(out.read_text())
    assert record.info["TOY_GENE"] == "PLUS"
    wanted = spliceai(LOCI[0], *SNVS[2][1:])
    assert float(record.info["TOY_DS_AG"]) == pytest.approx(wanted["DS_AG"], abs=3e-6)


@pytest.mark.parametrize(
    ("card", "tracks", "code", "message"),
    [
        ({}, None, 2, "name them: --gtf FILE"),
        ({"frame": "exon"}, None, 2, "does not give DS_AG; it gives DLPSI"),
        ({"shifts": (0, 1)}, None, 1, "the card has shifts = [0, 1]"),
        ({"genes": GENES, "anchor": FLANK - 1}, None, 1, "the anchor among its bins"),
        ({"genes": GENES}, "identifier\trole\na\tdonor\nb\tdonor\n", 1, "one acceptor and one"),
        (
            {"genes": GENES, "encoder": {"kind": "kmer", "vocab": {"n": "error"}}},
            None,
            1,
            "takes N",
        ),
    ],
)
def test_models_that_are_refused(tmp_path, fasta, capsys, card, tracks, code, message):
    bundle = write_toy(tmp_path / "bundle", **({"genes": ""} | card))
    if tracks is not None:
        (bundle / "tracks.tsv").write_text(tracks)
        bundle = rewritten(bundle)
    assert call("vcf", "c:200:A:C", "-f", fasta, "-m", bundle, "-o", tmp_path / "o.vcf") == code
    assert message in capsys.readouterr().err


def rewritten(bundle: Path) -> Path:
    """Take the sums of a bundle's files again."""
    path = bundle / "card.json"
    card = json.loads(path.read_text())
    path.unlink()
    write_bundle(bundle, {k: v for k, v in card.items() if k != "sha256"})
    return bundle


def test_a_score_of_tracks_is_not_given(tmp_path, toy, fasta, capsys):
    assert call("vcf", "c:200:A:C", "-f", fasta, "-m", toy, "-s", "SAD") == 2
    assert "does not give SAD; it gives DS_AG" in capsys.readouterr().err


# --- weights of a package ------------------------------------------------------------------------


# Reading the weights takes most of a minute.
@pytest.mark.parity
@pytest.mark.timeout(300)
@pytest.mark.parametrize("strand", "+-")
def test_cispliceai_loses_annotated_sites(tmp_path_factory, shared_dir, cispliceai, strand):
    """SNVs in the first and last base of introns of KLHL17 (+) and NOC2L (-)."""
    gene = {"+": "ENSG00000187961", "-": "ENSG00000188976"}[strand]
    folder = tmp_path_factory.mktemp("cispliceai")
    fasta = folder / "hg38.fa.gz"
    shutil.copyfile(shared_dir / "models" / "mini_borzoi" / "hg38_1m.fa.gz", fasta)
    with gzip.open(cispliceai / "genes.tsv.gz", "rt") as lines:
        (cells,) = (x.rstrip("\n").split("\t") for x in lines if x.startswith(gene))
    acceptors, donors = ([int(x) for x in cells[i].split(",")] for i in (5, 6))
    away = 1 if strand == "+" else -1
    wanted = [("DL", x, away) for x in donors[4:7]] + [("AL", x, -away) for x in acceptors[4:7]]
    genome = Genome(fasta).codes("chr1")
    records = []
    for _, site, step in wanted:
        ref = "ACGT"[genome[site + step]]
        assert ref == ("G" if strand == "+" else "C")  # of GT and AG
        records.append(f"chr1 {site + step + 1} {ref} {'A' if strand == '+' else 'T'}")
    out = folder / "out.vcf"
    source = write_vcf(folder / "in.vcf", records)
    assert call("vcf", source, "-f", fasta, "-m", cispliceai, "-o", out) == 0
    for record, (what, _, step) in zip(records_of(out.read_text()), wanted, strict=True):
        assert record.info["CISPLICEAI_GENE"] == gene
        assert float(record.info[f"CISPLICEAI_DS_{what}"]) > 0.5
        assert record.info[f"CISPLICEAI_DP_{what}"] == str(-step)


@pytest.fixture(scope="module")
def cispliceai(tmp_path_factory) -> Path:
    try:
        importlib.metadata.version("cispliceai")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package cispliceai is not installed")
    bundle = tmp_path_factory.mktemp("models") / "cispliceai"
    assert call("models", "import", "cispliceai", "-o", bundle) == 0
    return bundle
