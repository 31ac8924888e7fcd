"""SpliceAI, OpenSpliceAI and Pangolin from files of their authors' layout to INFO, and masks.

The oracles follow the authors' programs in strings and lists; only the networks are ours.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from cli_kit import call, header_of, records_of, write_vcf
from engine import Engine, make_chunk, write_fasta
from test_family_splice import (
    fresh_pangolin,
    keras_weights,
    open_weights,
    pangolin_weights,
    published,
)

from glm_annotate.annotate import Annotator
from glm_annotate.bundle import load_bundle
from glm_annotate.gene_files import read_gene_models
from glm_annotate.opening import open_splice, site_roles
from glm_annotate.scores import available, parse_score

Allele = tuple[int, str, str]
Found = dict[str, float]
PAIR = [f"{kind}_{what}" for kind in ("DS", "DP") for what in ("AG", "AL", "DG", "DL")]
USAGE = [f"{kind}_{what}" for kind in ("DS", "DP") for what in ("GAIN", "LOSS")]
WIDE, CROP = 70, 40
CONTIG = "".join(random.Random(11).choices("ACGT", k=1500))
COMPLEMENT = str.maketrans("ACGTN", "TGCAN")


@dataclass(frozen=True)
class Locus:
    """A gene of these tests; exons 0-based half-open."""

    name: str
    strand: str
    exons: tuple[tuple[int, int], ...]

    @property
    def start(self) -> int:
        return self.exons[0][0]

    @property
    def end(self) -> int:
        return self.exons[-1][1]

    @property
    def ends(self) -> list[int]:
        """First and last bases of exons, counted from 1."""
        return sorted({x for a, b in self.exons for x in (a + 1, b)})


PLUS = Locus("PLUS", "+", ((100, 180), (300, 360), (500, 700)))
TWIN = Locus("TWIN", "+", ((250, 330), (450, 560)))
MINUS = Locus("MINUS", "-", ((600, 680), (800, 900), (1100, 1200)))
LOCI = [PLUS, TWIN, MINUS]


def snv(pos: int, step: int = 1) -> Allele:
    ref = CONTIG[pos - 1]
    return pos, ref, "ACGT"[("ACGT".index(ref) + step) % 4]


def insertion(pos: int, length: int) -> Allele:
    """Insert bases that cannot move to the left."""
    ref = CONTIG[pos - 1]
    inner = "".join(random.Random(pos).choices("ACGT", k=length - 1))
    return pos, ref, ref + inner + next(x for x in "ACGT" if x != ref)


def deletion(pos: int, length: int) -> Allele:
    """Delete so many bases behind a place near POS, where they cannot move to the left."""
    while CONTIG[pos - 1] == CONTIG[pos - 1 + length]:
        pos += 1
    return pos, CONTIG[pos - 1 : pos + length], CONTIG[pos - 1]


SITES = [snv(pos) for pos in (101, 181, 300, 301, 330, 361, 499, 560, 601, 681, 800, 901, 1099)]
CHANGES = [*SITES, snv(640), insertion(330, 4), insertion(850, 3), deletion(355, 6),
           deletion(795, 9), deletion(520, 30)]  # fmt: skip
PIECE = CONTIG[519:523]
SEVERAL = (520, PIECE, PIECE.translate(COMPLEMENT))


def held_by(allele: Allele) -> list[Locus]:
    pos, ref, _ = allele
    first = pos - 1 if len(ref) == 1 else pos
    return [x for x in LOCI if x.start < pos - 1 + len(ref) and x.end > first]


# --- the oracles ---------------------------------------------------------------------------------


@torch.no_grad()
def predict(network: torch.nn.Module, text: str, strand: str) -> list[list[float]]:
    """Give the tracks of every base that has its flanks, in the order of the genome."""
    read = text if strand == "+" else text[::-1].translate(COMPLEMENT)
    table = torch.cat([torch.eye(4), torch.zeros(1, 4)])
    rows = network(table[["ACGTN".index(x) for x in read]][None])[0][0].double().tolist()
    return rows if strand == "+" else rows[::-1]


def mean(answers: Sequence[list[list[float]]]) -> list[list[float]]:
    return [
        [math.fsum(x) / len(answers) for x in zip(*rows, strict=True)]
        for rows in zip(*answers, strict=True)
    ]


def bases(first: int, last: int, locus: Locus | None = None) -> str:
    """Cut bases counted from 1, N off the contig and, if it is named, outside the gene."""
    low, high = (1, len(CONTIG)) if locus is None else (locus.start + 1, locus.end)
    return "".join(CONTIG[x - 1] if low <= x <= high else "N" for x in range(first, last + 1))


Networks = Sequence[torch.nn.Module]
Oracle = Callable[[Networks, Locus, Allele, int, bool], Found]


def spliceai(
    networks: Networks, locus: Locus, allele: Allele, distance: int, masked: bool
) -> Found:
    """Score one allele in one gene as SpliceAI's program does."""
    (pos, ref, alt), cover = allele, 2 * distance + 1
    half = CROP + distance
    old = bases(pos - half, pos + half, locus)
    new = old[:half] + alt + old[half + len(ref) :]
    before, behind = (
        mean([predict(x, text, locus.strand) for x in networks]) for text in (old, new)
    )
    if len(ref) > 1:
        gone = [[0.0, 0.0]] * (len(ref) - 1)
        behind = behind[: distance + 1] + gone + behind[distance + 1 :]
    elif len(alt) > 1:
        most = [max(x) for x in zip(*behind[distance : distance + len(alt)], strict=True)]
        behind = [*behind[:distance], most, *behind[distance + len(alt) :]]
    assert len(before) == len(behind) == cover
    nearest = min((x - pos for x in locus.ends), key=abs)
    found = {}
    for column, kind in enumerate("AD"):
        for what, sign in (("G", 1), ("L", -1)):
            change = [sign * (b[column] - a[column]) for a, b in zip(before, behind, strict=True)]
            place = change.index(max(change)) - distance
            hidden = place == nearest if what == "G" else place != nearest
            found[f"DS_{kind}{what}"] = 0.0 if masked and hidden else max(change)
            found[f"DP_{kind}{what}"] = place
    return found


def pangolin(
    networks: Networks, locus: Locus, allele: Allele, distance: int, masked: bool
) -> Found:
    """Score one allele in one gene as Pangolin's program does: the flanks are 5,000 bases.

    It takes the largest of inserted bases for each network, and the mean of them afterwards; here
    the mean comes first, which is the same but for insertions.
    """
    (pos, ref, alt), flank = allele, 5000 + distance
    old = bases(pos - flank, pos + len(ref) - 1 + flank)
    new = old[:flank] + alt + old[flank + len(ref) :]
    before, behind = (
        mean([predict(x, text, locus.strand) for x in networks]) for text in (old, new)
    )
    short = len(before) - len(behind)
    if short > 0:
        gone = [[0.0] * len(before[0])] * short
        behind = behind[: distance + 1] + gone + behind[distance + 1 :]
    elif short < 0:
        most = [max(x) for x in zip(*behind[distance : distance + 1 - short], strict=True)]
        behind = [*behind[:distance], most, *behind[distance + 1 - short :]]
    gain, loss = [], []
    for place, rows in enumerate(zip(before, behind, strict=True), start=pos - distance):
        changes = [b - a for a, b in zip(*rows, strict=True)]
        more, less = max(changes), min(changes)
        if masked and place in locus.ends:
            more = min(more, 0.0)
        elif masked:
            less = max(less, 0.0)
        gain.append(more)
        loss.append(less)
    assert len(gain) == 2 * distance + len(ref)
    return {
        "DS_GAIN": max(gain),
        "DS_LOSS": -min(loss),
        "DP_GAIN": gain.index(max(gain)) - distance,
        "DP_LOSS": loss.index(min(loss)) - distance,
    }


def best_of(oracle: Oracle, networks: Networks, allele: Allele, distance: int, masked: bool):
    """Evaluate every gene that holds the allele; gives the most changed, and all."""
    every = {x.name: oracle(networks, x, allele, distance, masked) for x in held_by(allele)}
    name = max(every, key=lambda x: max(abs(v) for k, v in every[x].items() if k[:2] == "DS"))
    return name, every


# --- files of the authors' layout ----------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """A bundle, and what it was made of."""

    bundle: Path
    networks: Networks
    tag: str
    names: list[str]
    oracle: Oracle
    wide: int


def save_h5(networks: Networks, folder: Path) -> None:
    h5py = pytest.importorskip("h5py")
    for number, network in enumerate(networks, start=1):
        with h5py.File(folder / f"spliceai{number}.h5", "w") as file:
            # Keras counts on from model to model only within one program.
            for name, value in keras_weights(network).items():
                layer, kind = name.split("/")
                file[f"model_weights/{layer}/{layer}/{kind}:0"] = value.numpy()


def save_pt(networks: Networks, folder: Path) -> None:
    for number, network in enumerate(networks):
        torch.save(open_weights(network), folder / f"model_80nt_rs{10 + number}.pt")


def save_pangolin(networks: Networks, folder: Path) -> None:
    for replicate, network in enumerate(networks, start=1):
        for stack, end in enumerate(network.ends):
            weights = pangolin_weights(network, stack)
            torch.save(weights, folder / f"final.{replicate}.{end}.3.v2")


def make(folder: Path, kind: str) -> Family:
    torch.set_num_threads(1)
    files, bundle, options = folder / kind.lower(), folder / f"{kind}.bundle", []
    files.mkdir()
    if kind == "PANGOLIN":
        networks: Networks = [fresh_pangolin(seed, ends=[0, 4, 6]) for seed in range(2)]
        save_pangolin(networks, files)
        family = Family(bundle, networks, kind, USAGE, pangolin, 20)
    else:
        of_torch = kind == "OPENSPLICEAI"
        changes = {"slope": 0.1, "eps": 1e-5} if of_torch else {}
        networks = [published(4, channels=6, seed=seed, **changes) for seed in range(5)]
        (save_pt if of_torch else save_h5)(networks, files)
        options = ["--context", 2 * (CROP + WIDE) + 1]
        family = Family(bundle, networks, kind, PAIR, spliceai, WIDE)
    accepted = ["--accept-licence"] if kind == "SPLICEAI" else []
    assert call("models", "import", files, "-o", bundle, *options, *accepted) == 0
    return family


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("families")
    write_fasta(folder / "g.fa", {"c": CONTIG})
    rows = [
        "\t".join(
            (x.name, "c", x.strand, str(x.start), str(x.end),
             *("".join(f"{y[i]}," for y in x.exons) for i in (0, 1)))
        )
        for x in LOCI
    ]  # fmt: skip
    head = "#NAME\tCHROM\tSTRAND\tTX_START\tTX_END\tEXON_START\tEXON_END"
    (folder / "genes.tsv").write_text("\n".join([head, *rows]) + "\n")
    return folder


@pytest.fixture(scope="module", params=["SPLICEAI", "OPENSPLICEAI", "PANGOLIN"])
def family(request, place) -> Family:
    return make(place, request.param)


@pytest.fixture(scope="module")
def pangolin_family(place, tmp_path_factory) -> Family:
    return make(tmp_path_factory.mktemp("pangolin"), "PANGOLIN")


def run_vcf(place: Path, out: Path, alleles: Sequence[Allele], *options: object) -> str:
    source = write_vcf(out.with_suffix(".in.vcf"), [f"c {p} {r} {a}" for p, r, a in alleles])
    common = ("-f", place / "g.fa", "--gtf", place / "genes.tsv", "-o", out)
    assert call("vcf", source, *common, *options) == 0
    return out.read_text()


# --- numbers -------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_as_the_authors_programs_score(tmp_path, place, family):
    """Defaults, and mask and distance together, of the same run: each has its own gene."""
    label = f"ANNOTATED_DIST{family.wide}"
    narrow = [f"{x}:mask=annotated:dist={family.wide}" for x in family.names]
    asked = ["-s", ",".join([*family.names, *narrow])]
    alleles = [*CHANGES, SEVERAL] if family.names == USAGE else CHANGES
    text = run_vcf(place, tmp_path / "out.vcf", alleles, "-m", family.bundle, *asked)
    hidden = genes = 0
    for record, allele in zip(records_of(text), alleles, strict=True):
        for suffix, distance, masked in (("", 50, False), (f"_{label}", family.wide, True)):
            name, every = best_of(family.oracle, family.networks, allele, distance, masked)
            assert record.info[f"{family.tag}_GENE{suffix}"] == name
            found = {x: float(record.info[f"{family.tag}_{x}{suffix}"]) for x in family.names}
            assert found == pytest.approx(every[name], abs=2e-5)
            hidden += sum(masked and found[x] == 0 for x in family.names if x[:2] == "DS")
            genes += len(every) > 1
        assert record.info[f"{family.tag}_STATUS"] == "SCORED"
    assert hidden > 5
    assert genes > 10
    lines = "\n".join(header_of(text))
    assert f"dist={family.wide}, mask=annotated" in lines
    assert f"<ID={family.tag}_GENE_{label},Number=A,Type=String" in lines


@pytest.mark.timeout(300)
def test_bundles_check(family):
    assert call("models", "check", family.bundle) == 0
    card = load_bundle(family.bundle).card
    assert len(list(family.bundle.glob("model.*.onnx"))) == len(family.networks)
    assert card.provenance.weights_licence
    assert card.in_genes


class SpliceEngine(Engine):
    """An engine that reads the genes of a file."""

    def __init__(self, family: Family, place: Path, *scores: str) -> None:
        super().__init__(family.bundle, place / "g.fa", scores or family.names)
        genes = read_gene_models(place / "genes.tsv")
        splice = open_splice(self.bundle, genes)
        (model,) = self.annotator.models
        self.annotator = Annotator(self.genome, [replace(model, splice=splice)])


@pytest.mark.timeout(300)
def test_every_gene_of_an_allele_has_a_row(place, family):
    alleles = [snv(640), snv(1400), insertion(330, 4)]
    engine = SpliceEngine(family, place)
    (result,) = engine.results(make_chunk([("c", *x) for x in alleles]))
    wanted = [(i, x.name) for i in (0, 2) for x in held_by(alleles[i])]
    assert [(row.allele, row.gene) for row in result.rows] == wanted
    for row in result.rows:
        (locus,) = (x for x in LOCI if x.name == row.gene)
        values = family.oracle(family.networks, locus, alleles[row.allele], 50, False)
        assert row.gene_id == row.gene
        assert row.sums is None
        assert {k: v.shape for k, v in row.values.items()} == dict.fromkeys(values, (1,))
        assert {k: float(v[0]) for k, v in row.values.items()} == pytest.approx(values, abs=2e-5)


def test_passes_of_pangolin_are_shared(place, pangolin_family):
    """Nothing is hidden outside a gene: two on one strand need the same windows."""
    engine = SpliceEngine(pangolin_family, place)
    both = engine.annotator.prepare(engine.annotator.read(make_chunk([("c", *snv(310))])))
    assert both.passes == {"T": 2}
    assert [x.name for x in held_by(snv(310))] == ["PLUS", "TWIN"]
    # A deletion is looked at up to 50 bases behind its last base, for which REF needs two windows.
    gone = make_chunk([("c", *deletion(310, 6))])
    assert engine.annotator.prepare(engine.annotator.read(gone)).passes == {"T": 3}
    near = SpliceEngine(pangolin_family, place, *(f"{x}:dist=40" for x in USAGE))
    assert near.annotator.prepare(near.annotator.read(gone)).passes == {"T": 2}


def test_scores_do_not_depend_on_what_else_is_asked(place, pangolin_family):
    alleles = [("c", *x) for x in (*SITES, SEVERAL, deletion(310, 6))]
    alone = SpliceEngine(pangolin_family, place, "DS_GAIN").score(alleles)
    asked = ("DP_LOSS", "DS_GAIN:mask=annotated", "DS_GAIN:dist=3", "DS_GAIN")
    together = SpliceEngine(pangolin_family, place, *asked).score(alleles)
    assert together["DS_GAIN"] == pytest.approx(alone["DS_GAIN"], abs=1e-6)


@pytest.mark.timeout(300)
def test_tracks_of_pangolin_can_be_chosen(tmp_path, place, pangolin_family):
    bundle, allele = pangolin_family.bundle, snv(310)
    text = run_vcf(place, tmp_path / "o.vcf", [allele], "-m", bundle, "--track-regex", "brain")
    (record,) = records_of(text)
    networks = [fresh_pangolin(seed, ends=[0, 4, 6]) for seed in range(2)]
    for network in networks:
        network.select([1])
    wanted = pangolin(networks, PLUS, allele, 50, False)
    assert float(record.info["PANGOLIN_DS_GAIN"]) == pytest.approx(wanted["DS_GAIN"], abs=2e-5)
    assert wanted["DS_GAIN"] != pytest.approx(
        pangolin(pangolin_family.networks, PLUS, allele, 50, False)["DS_GAIN"], abs=1e-3
    )


@pytest.mark.timeout(300)
def test_a_run_of_both_kinds(tmp_path, place, pangolin_family):
    other = make(tmp_path, "OPENSPLICEAI")
    models = ("-m", other.bundle, "-m", pangolin_family.bundle, "-s", "DS_AG,DS_GAIN:dist=20")
    (record,) = records_of(run_vcf(place, tmp_path / "o.vcf", [snv(640)], *models))
    assert [x for x in record.info if "DS_" in x] == [
        "OPENSPLICEAI_DS_AG",
        "PANGOLIN_DS_GAIN_DIST20",
    ]
    assert "PANGOLIN_GENE" not in record.info
    assert record.info["PANGOLIN_GENE_DIST20"] in {x.name for x in held_by(snv(640))}


# Of one gene two transcripts: the exon of one ends inside the exon of the other.
GTF = "".join(
    f'c\tx\t{kind}\t{first}\t{last}\t.\t+\t.\tgene_id "G"; transcript_id "{name}";\n'
    for name, exons in (("A", ((101, 180), (301, 700))), ("B", ((101, 150), (301, 700))))
    for kind, parts in (("transcript", ((101, 700),)), ("exon", exons))
    for first, last in parts
)


def test_ends_of_all_transcripts_are_known(tmp_path):
    (tmp_path / "g.gtf").write_text(GTF)
    (gene,) = read_gene_models(tmp_path / "g.gtf").on("c")
    assert gene.exons.tolist() == [[100, 180], [300, 700]]
    assert gene.sites.tolist() == [100, 149, 179, 300, 699]


# --- what may be asked ---------------------------------------------------------------------------


def test_scores_of_a_model_follow_its_tracks(family):
    bundle = load_bundle(family.bundle)
    roles = site_roles(bundle)
    assert list(available(bundle.card, roles)) == family.names
    assert set(bundle.card.scores) == set(family.names)
    labels = {
        "": "",
        ":mask=all": "",
        ":dist=50": "",
        ":dist=0": "DIST0",
        ":dist=007": "DIST7",
        ":mask=annotated": "ANNOTATED",
        ":dist=20:mask=annotated": "ANNOTATED_DIST20",
    }
    for options, label in labels.items():
        assert parse_score(f"{family.names[0]}{options}", bundle.card, roles).label == label


@pytest.mark.parametrize(
    ("score", "message"),
    [
        ("DS_GAIN:dist=51", "has 50 bases beside the site; make the bundle again with --context "
         "10103"),
        ("DS_GAIN:dist=5000", "dist=5000 is not a number of bases from 0 to 4999"),
        ("DS_GAIN:dist=-1", "dist=-1 is not a number"),
        ("DS_GAIN:mask=exons", "unknown mask 'exons'; known here: all, annotated"),
        ("DS_GAIN:width=3", "unknown option 'width=3'; known here: mask=, dist="),
        ("DS_AG", "does not give DS_AG; it gives DS_GAIN, DS_LOSS, DP_GAIN, DP_LOSS"),
        ("SAX", "does not give SAX; it gives DS_GAIN"),
    ],
)  # fmt: skip
def test_what_pangolin_is_not_asked(place, pangolin_family, capsys, score, message):
    common = ("-f", place / "g.fa", "--gtf", place / "genes.tsv")
    assert call("vcf", "c:310:A:C", "-m", pangolin_family.bundle, *common, "-s", score) == 2
    assert message in capsys.readouterr().err


@pytest.mark.timeout(300)
def test_pangolin_needs_genes_and_tracks(tmp_path, place, pangolin_family, capsys):
    common = ("vcf", "c:310:A:C", "-f", place / "g.fa", "-m", pangolin_family.bundle)
    assert call(*common) == 2
    assert "name them: --gtf FILE" in capsys.readouterr().err
    assert call(*common, "--gtf", place / "genes.tsv", "--track-regex", "spleen") == 2
    assert "spleen" in capsys.readouterr().err


@pytest.mark.timeout(300)
def test_one_file_of_all_ends_is_exported(tmp_path, place):
    network = fresh_pangolin(7)
    source, bundle = tmp_path / "pangolin.pt", tmp_path / "bundle"
    torch.save(pangolin_weights(network), source)
    assert call("export", source, "-o", bundle, "--track-regex", "_site") == 0
    (record,) = records_of(run_vcf(place, tmp_path / "o.vcf", [SEVERAL], "-m", bundle))
    network.select([0, 2, 4, 6])
    _, every = best_of(pangolin, [network], SEVERAL, 50, False)
    found = {x: float(record.info[f"PANGOLIN_{x}"]) for x in USAGE}
    assert found == pytest.approx(every[record.info["PANGOLIN_GENE"]], abs=2e-5)


def test_masked_genes_without_exon_ends(place, pangolin_family):
    """No site is known: every gain counts, no loss does."""
    engine = SpliceEngine(pangolin_family, place, *(f"{x}:mask=annotated" for x in USAGE))
    (model,) = engine.annotator.models
    bare = place / "bare.tsv"
    bare.write_text("gene\tcontig\tstrand\tstart\tend\tacceptors\tdonors\nB\tc\t+\t100\t700\t\t\n")
    splice = open_splice(engine.bundle, read_gene_models(bare))
    engine.annotator = Annotator(engine.genome, [replace(model, splice=splice)])
    found = engine.score([("c", *snv(310))])
    wanted = pangolin(pangolin_family.networks, PLUS, snv(310), 50, False)
    assert found["DS_GAIN_ANNOTATED"] == [pytest.approx(wanted["DS_GAIN"], abs=2e-5)]
    assert found["DS_LOSS_ANNOTATED"] == [0.0]
