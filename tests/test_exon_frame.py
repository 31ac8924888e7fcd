"""Parts of exons: MMSplice's and MTSplice's way against a plain one in strings."""

from __future__ import annotations

import gzip
import itertools
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from cli_kit import call, records_of, write_vcf
from engine import make_chunk, write_fasta
from test_family_splice import (
    MMSPLICE,
    MTSPLICE,
    fresh_mmsplice,
    fresh_mtsplice,
    mm_source,
    mt_weights,
    with_prefix,
)

from glm_annotate.annotate import Annotator
from glm_annotate.bundle import load_bundle, write_bundle
from glm_annotate.errors import BundleError, InputError, UsageError
from glm_annotate.exon_frame import Edit, Exon, frame_of, read_exon
from glm_annotate.gene_files import read_gene_models
from glm_annotate.gene_models import read_gene_table
from glm_annotate.genome import Genome, to_codes, to_text
from glm_annotate.model import Model
from glm_annotate.opening import open_exons, open_tracks
from glm_annotate.plan import PassFailed
from glm_annotate.runtime import OrtRunner, Settings, open_runners
from glm_annotate.scores import parse_scores
from glm_annotate.testing import check_bundle
from glm_annotate.track_choice import TrackChoice
from glm_annotate.train.export import export_imported
from glm_annotate.train.families import mmsplice
from glm_annotate.train.families.family import Source
from glm_annotate.train.gene_table import exon_table
from glm_annotate.train.importing import Imported

Variant = tuple[str, int, str, str]
COMPLEMENT = str.maketrans("ACGTN", "TGCAN")
NAMES = ("acceptor_intron", "acceptor", "exon", "donor", "donor_intron")


def draw(length: int, seed: int) -> str:
    return "".join(random.Random(seed).choices("ACGT", k=length))


def turned(text: str) -> str:
    return text[::-1].translate(COMPLEMENT)


# Genes of these tests: strand and, by transcript, exons, 0-based half-open.
GENES: dict[str, tuple[str, str, dict[str, list[tuple[int, int]]]]] = {
    "PLUS": (
        "c",
        "+",
        {
            "p1": [(150, 260), (420, 447), (600, 700)],
            "p2": [(405, 447), (600, 700)],
        },
    ),
    "MI;NUS": ("c", "-", {"m1": [(650, 760), (900, 1000), (1180, 1300)], "m2": [(930, 933)]}),
    # Its intron is short: what is read of it reaches over the last exon and out of the gene.
    "SHORT": ("d", "-", {"s1": [(5, 40), (60, 90)]}),
}
CONTIGS = {"c": draw(1500, 1), "d": draw(200, 2), "e": draw(100, 3)}


def gtf(genes=None) -> str:
    lines = []
    for gene, (contig, strand, transcripts) in (genes or GENES).items():
        for name, exons in transcripts.items():
            about = f'gene_id "id-{gene}"; gene_name "{gene}"; transcript_id "{name}";'
            for start, end in exons:
                place = f"{start + 1}\t{end}\t.\t{strand}\t."
                lines.append(f"{contig}\tx\texon\t{place}\t{about}\n")
    return "".join(lines)


# --- the oracle ----------------------------------------------------------------------------------


def haplotype(
    text: str, exon: tuple[int, int], reach: tuple[int, int], change: tuple[int, str, str]
) -> tuple[str, str, str]:
    """Sort every base of the haplotype to the intron, exon or intron that it lies in."""
    (start, end), (left, right), (at, ref, alt) = exon, reach, change
    sides: tuple[list[str], list[str], list[str]] = ([], [], [])

    def put(place: int, base: str) -> None:
        sides[(place >= start) + (place >= end)].append(base)

    for place in range(-500, len(text) + 500):
        if place == at:
            for step, base in enumerate(alt):
                put(min(at + step, at + len(ref) - 1) if ref else at - 1, base)
        if not at <= place < at + len(ref):
            put(place, text[place] if 0 <= place < len(text) else "N")
    before, inside, behind = ("".join(x) for x in sides)
    return before[len(before) - left :], inside, behind[:right]


def normal(text: str, at: int, ref: str, alt: str) -> tuple[int, str, str]:
    """Trim and left-align an allele; `at` is 0-based."""
    while ref and alt and ref[-1] == alt[-1]:
        ref, alt = ref[:-1], alt[:-1]
    while ref and alt and ref[0] == alt[0]:
        at, ref, alt = at + 1, ref[1:], alt[1:]
    while not (ref and alt) and at and text[at - 1] == (ref or alt)[-1]:
        at, ref, alt = at - 1, *(text[at - 1] + x[:-1] if x else "" for x in (ref, alt))
    return at, ref, alt


def holders(variant: Variant, reach: int):
    """Give gene, exon, bases of introns and the changes of REF and ALT, for each exon near it."""
    contig, pos, ref, alt = variant
    text = CONTIGS[contig]
    change = normal(text, pos - 1, ref, alt)
    first = change[0] if change[1] else change[0] - 1
    last = change[0] + len(change[1]) - 1
    for gene, (where, strand, transcripts) in GENES.items():
        seen = set()
        for exons in transcripts.values() if where == contig else ():
            for start, end in exons:
                left = 0 if start == min(x for x, _ in exons) else reach
                right = 0 if end == max(x for _, x in exons) else reach
                if first < end + right and last >= start - left:
                    seen.add((start, end, left, right))
        for start, end, left, right in sorted(seen):
            yield gene, strand, (start, end), (left, right), change


def both(variant: Variant, reach: int):
    """Give, for each exon near it, the gene and REF's and ALT's introns and exon, as it is read."""
    text = CONTIGS[variant[0]]
    for gene, strand, exon, sides, change in holders(variant, reach):
        pair = [haplotype(text, exon, sides, x) for x in ((change[0], "", ""), change)]
        if strand == "-":
            pair = [(turned(c), turned(b), turned(a)) for a, b, c in pair]
        yield gene, pair


def modular(before: str, exon: str, behind: str) -> tuple[str, ...]:
    if len(before) <= 50:
        before = "N" * (51 - len(before)) + before
    if len(behind) <= 13:
        behind += "N" * (14 - len(behind))
    return (
        before[:-6],
        before[-50:] + (exon + behind)[:3],
        exon or "N",
        (before + exon)[-5:] + behind[:13],
        behind[6:],
    )


def ends(before: str, exon: str, behind: str) -> tuple[str, ...]:
    whole = before.rjust(300, "N") + exon + behind.ljust(300, "N")
    return whole[:400], whole[-400:]


def one_hot(text: str) -> torch.Tensor:
    table = torch.cat([torch.eye(4), torch.zeros(1, 4)]).double()
    return table[torch.tensor(["ACGTN".index(x) for x in text])][None]


@torch.no_grad()
def predict(network, parts: tuple[str, ...]) -> np.ndarray:
    return network.double().predict(*map(one_hot, parts))[0].numpy()


def dlpsi(network, variant: Variant) -> dict[str, float]:
    """MMSplice's number of each gene: that of its most changed exon."""
    best: dict[str, float] = {}
    for gene, pair in both(variant, 100):
        old, new = (modular(*x) for x in pair)
        d = [
            b - a if x != y else 0.0
            for a, b, x, y in zip(
                predict(network, old), predict(network, new), old, new, strict=True
            )
        ]
        on = [abs(x) > 1e-8 for x in d]
        number = 0.0006480262366686865 + (
            0.49685773 * d[0] + 0.72322957 * d[1] + 1.54760024 * d[2]
            + 0.75011527 * d[3] + 2.26187717 * d[4]
        )  # fmt: skip
        if (on[1] and on[2]) or (on[2] and on[3]):
            number -= 0.69419094 * d[2]
        if on[3] and on[4]:
            number += 2.40138709 * d[4]
        if on[0] and on[1]:
            number += 0.88148553 * d[0]
        if abs(number) > abs(best.get(gene, 0.0)):
            best[gene] = number
    return best


def tissues(networks, variant: Variant) -> dict[str, np.ndarray]:
    """MTSplice's numbers of each gene: those of the exon with the largest."""
    best: dict[str, np.ndarray] = {}
    for gene, pair in both(variant, 300):
        old, new = (np.mean([predict(n, ends(*x)) for n in networks], axis=0) for x in pair)
        if gene not in best or np.abs(new - old).max() > np.abs(best[gene]).max():
            best[gene] = new - old
    return best


def some_variants() -> list[Variant]:
    """Alleles of every kind around every exon, and some that no exon holds."""
    dice, found = (
        random.Random(7),
        {("c", 10, CONTIGS["c"][9], "T"), ("e", 50, CONTIGS["e"][49], "T")},
    )
    found = {x for x in found if x[2] != x[3]}
    for contig, _, transcripts in GENES.values():
        text = CONTIGS[contig]
        for exon in {x for exons in transcripts.values() for x in exons}:
            for edge, kind in itertools.product(exon, ("snv", "ins", "del", "mnv", "delins")):
                at = edge + dice.choice([dice.randint(-105, 105), dice.randint(-8, 8)])
                if not 1 <= at < len(text) - 30:
                    continue
                size = dice.randint(1, 14)
                base = text[at]
                ref, alt = {
                    "snv": (base, turned(base)),
                    "ins": (base, base + draw(size, at)),
                    "del": (text[at : at + size + 1], base),
                    "mnv": (text[at : at + 3], turned(text[at : at + 3])[::-1]),
                    "delins": (text[at : at + 4], turned(text[at])[0] + draw(size, at)),
                }[kind]
                found.add((contig, at + 1, ref, alt))
    return sorted(x for x in found if x[2] != x[3])


# --- the bundles ---------------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def imported(official, source: Source, **files: bytes) -> Imported:
    predicted = official.load(source, None)
    card = {"name": official.variant, "tag": official.tag, **predicted.card}
    return Imported(mmsplice.FAMILY, official, predicted, card, files)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("exons")
    write_fasta(home / "g.fa", CONTIGS)
    (home / "g.gtf").write_text(gtf())
    return home


@pytest.fixture(scope="module")
def mm_network():
    return fresh_mmsplice(seed=4)


@pytest.fixture(scope="module")
def mt_networks():
    return [fresh_mtsplice(seed=seed) for seed in (5, 6)]


@pytest.fixture(scope="module")
def mm(folder, mm_network) -> Path:
    export_imported(imported(MMSPLICE, mm_source(mm_network)), folder / "mm")
    return folder / "mm"


@pytest.fixture(scope="module")
def mt(folder, mt_networks) -> Path:
    weights = [with_prefix(f"{n}/", mt_weights(x)) for n, x in enumerate(mt_networks)]
    source = Source("mtsplice", weights[0] | weights[1])
    export_imported(imported(MTSPLICE, source), folder / "mt")
    return folder / "mt"


def model_of(path: Path, genome: Genome, genes: Path | None, batch: int = 0) -> Model:
    bundle = load_bundle(path)
    return Model(
        "T",
        bundle,
        parse_scores((), bundle.card),
        (False,),
        frozenset(),
        open_runners(bundle, Settings(batch=batch, threads=1)),
        tracks=open_tracks(bundle, None),
        exons=open_exons(bundle, None if genes is None else read_gene_models(genes)),
    )


def results(model: Model, genome: Genome, variants: list[Variant]):
    annotator = Annotator(genome, [model])
    work = annotator.run(annotator.prepare(annotator.read(make_chunk(variants))))
    return annotator.finish(work).results["T"], work


# --- haplotypes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("sides", [(6, 5), (0, 5), (6, 0), (0, 0)])
def test_every_small_change_of_a_small_exon(tmp_path, reverse, sides):
    text, span = draw(24, 9), (9, 14)
    genome = Genome(write_fasta(tmp_path / "g.fa", {"c": text}))
    exon = Exon("c", *span, *sides, reverse)
    cases = 0
    for at, old, new in itertools.product(range(1, 22), range(6), range(5)):
        first = at if old else at - 1
        near = first < span[1] + sides[1] and at + old > span[0] - sides[0]
        if (
            not (old or new)
            or not near
            or (not old and first < span[0] - sides[0])
            or at + old > 24
        ):
            continue
        change = at, text[at : at + old], draw(new, at)
        found = read_exon(
            genome, exon, Edit(at, old, to_codes(change[2]).tobytes()), circular=False
        )
        before, inside, behind = haplotype(text, span, sides, change)
        if reverse:
            before, inside, behind = turned(behind), turned(inside), turned(before)
        assert to_text(found.codes()) == before + inside + behind, change
        assert found.shape == (len(before), len(inside), len(behind)), change
        cases += 1
    assert cases > 100


def test_beyond_a_contig_there_is_n_and_a_circle_goes_on(tmp_path):
    genome = Genome(write_fasta(tmp_path / "g.fa", {"c": "ACGTTGCA"}), circular=frozenset("c"))
    exon = Exon("c", 2, 6, 4, 4, False)
    assert to_text(read_exon(genome, exon, None, circular=False).codes()) == "NNACGTTGCANN"
    assert to_text(read_exon(genome, exon, None, circular=True).codes()) == "CAACGTTGCAAC"


def test_which_exons_hold_an_allele(mm, folder):
    bundle = load_bundle(mm)
    frame = frame_of(bundle.card, bundle.encoder, read_gene_models(folder / "g.gtf"))

    def held(contig, start, size=1):
        return [
            (g.name, x.start, x.left, x.right, x.reverse)
            for g, x in frame.holding(contig, start, size)
        ]

    last = ("PLUS", 600, 100, 0, False)
    assert held("c", 149) == []  # before the first exon nothing is read
    assert held("c", 150) == held("c", 319) == [("PLUS", 150, 0, 100, False)]
    assert held("c", 151, 0) == [("PLUS", 150, 0, 100, False)]
    assert held("c", 150, 0) == []  # inserted before the first base
    assert held("c", 304, 0) == [("PLUS", 150, 0, 100, False)]
    # Both transcripts have an exon here; that of the second is its first.
    assert held("c", 430) == [("PLUS", 405, 0, 100, False), ("PLUS", 420, 100, 100, False)]
    assert held("c", 359) == [("PLUS", 150, 0, 100, False), ("PLUS", 420, 100, 100, False)]
    assert held("c", 360) == [("PLUS", 420, 100, 100, False)]
    assert held("c", 547) == held("c", 548, 0) == [last]
    assert held("c", 690) == [last, ("MI;NUS", 650, 0, 100, True)]
    assert held("c", 359, 62)[-1] == ("PLUS", 420, 100, 100, False)
    assert held("c", 931)[1:] == [("MI;NUS", 930, 0, 0, True)]
    assert held("d", 100) == held("chrd", 100) == [("SHORT", 5, 0, 100, True)]
    assert held("d", 139)
    assert not held("d", 140)


# --- from VCF to VCF -----------------------------------------------------------------------------


def run(folder: Path, name: str, variants: list[Variant], *more: object) -> list[dict[str, str]]:
    records = [" ".join(map(str, x)) for x in variants]
    vcf, out = write_vcf(folder / f"{name}.vcf", records), folder / f"{name}.out.vcf"
    given = ("-f", folder / "g.fa", "--gtf", folder / "g.gtf", "-o", out, "--force", *more)
    assert call("vcf", vcf, *given) == 0
    return [x.info for x in records_of(out.read_bytes())]


def test_mmsplice_against_strings(folder, mm, mm_network):
    variants, matrix = some_variants(), folder / "mm.parquet"
    infos = run(folder, "mm", variants, "-m", mm, "--matrix", matrix)
    rows, statuses = defaultdict(dict), set()
    table = pd.read_parquet(matrix)
    for row in table.itertuples():
        rows[row.chrom, row.pos, row.ref, row.alt][row.gene] = row.DLPSI
    for variant, info in zip(variants, infos, strict=True):
        wanted = dlpsi(mm_network, variant)
        statuses.add(info["MMSPLICE_STATUS"])
        assert rows[variant] == pytest.approx(wanted, rel=1e-5, abs=1e-5)
        if not wanted:
            assert info["MMSPLICE_STATUS"] == "DLPSI:NO_GENE"
            assert info["MMSPLICE_DLPSI"] == info["MMSPLICE_GENE"] == "."
            continue
        gene = max(wanted, key=lambda x: abs(wanted[x]))
        assert float(info["MMSPLICE_DLPSI"]) == pytest.approx(wanted[gene], rel=1e-5, abs=1e-5)
        assert info["MMSPLICE_GENE"] == gene.replace(";", "%3B")
    assert statuses == {"SCORED", "DLPSI:NO_GENE"}
    assert any(len(x) == 2 for x in rows.values())
    assert table.track.isna().all()
    assert table.REF.isna().all()
    assert set(table.gene_id) == {f"id-{x}" for x in GENES}


def test_mtsplice_against_strings(folder, mt, mt_networks):
    variants, matrix = some_variants()[::5], folder / "mt.parquet"
    infos = run(folder, "mt", variants, "-m", mt, "--matrix", matrix)
    table = pd.read_parquet(matrix)
    assert set(table.track) == {"tissue0", "tissue1", "tissue2"}
    assert (table.ALT - table.REF).tolist() == pytest.approx(table.DLPSI.tolist(), abs=1e-9)
    many = 0
    for variant, info in zip(variants, infos, strict=True):
        wanted = tissues(mt_networks, variant)
        if not wanted:
            assert info["MTSPLICE_STATUS"] == "DLPSI:NO_GENE"
            continue
        own = table[(table.chrom == variant[0]) & (table.pos == variant[1])]
        own = own[(own.ref == variant[2]) & (own.alt == variant[3])]
        for gene, numbers in wanted.items():
            found = own[own.gene == gene].DLPSI.tolist()
            assert found == pytest.approx(numbers.tolist(), rel=1e-4, abs=1e-5)
        gene = max(wanted, key=lambda x: np.abs(wanted[x]).max())
        most = int(np.abs(wanted[gene]).argmax())
        for track in range(3):
            given = float(info[f"MTSPLICE_DLPSI_tissue{track}"])
            assert given == pytest.approx(float(wanted[gene][track]), rel=1e-4, abs=1e-5)
        assert info["MTSPLICE_DLPSI_MAX"] == info[f"MTSPLICE_DLPSI_tissue{most}"]
        assert info["MTSPLICE_DLPSI_TOP"] == f"tissue{most}"
        assert info["MTSPLICE_GENE"] == gene.replace(";", "%3B")
        many += 1
    assert many > 5


def test_tissues_are_chosen(folder, mt):
    variants = [("c", 430, CONTIGS["c"][429], turned(CONTIGS["c"][429]))]
    (all_of_them,) = run(folder, "all", variants, "-m", mt)
    (chosen,) = run(folder, "some", variants, "-m", mt, "--track-regex", "tissue[02]")
    assert set(all_of_them) - set(chosen) == {"MTSPLICE_DLPSI_tissue1"}
    assert chosen["MTSPLICE_DLPSI_tissue2"] == all_of_them["MTSPLICE_DLPSI_tissue2"]


@pytest.mark.parametrize("kind", ["mm", "mt"])
def test_an_allele_does_not_depend_on_the_others(request, folder, kind):
    genome, path = Genome(folder / "g.fa"), request.getfixturevalue(kind)
    variants = some_variants()[::9]
    whole, _ = results(model_of(path, genome, folder / "g.gtf"), genome, variants)
    one = model_of(path, genome, folder / "g.gtf", batch=1)
    back, _ = results(one, genome, variants[::-1])
    alone = [results(one, genome, [x])[0] for x in variants]
    for other in (back.values["DLPSI"][::-1], [x.values["DLPSI"][0] for x in alone]):
        np.testing.assert_allclose(whole.values["DLPSI"], other, rtol=1e-6, atol=1e-6)
    assert [x.genes[0] for x in alone] == whole.genes


def test_a_site_is_read_once(mm, folder):
    genome = Genome(folder / "g.fa")
    model = model_of(mm, genome, folder / "g.gtf")
    base = CONTIGS["c"][429]
    variants = [("c", 430, base, x) for x in "ACGT" if x != base]
    _, work = results(model, genome, variants)
    # Two exons hold it: each once as REF, and once for each ALT.
    assert work.passes == {"T": 8}
    assert model.runners[0].passes == 8
    assert work.tasks[0].plan.rows_counts() == {127 + 100: 4, 142: 4}
    assert work.tasks[0].foreseen().values["DLPSI"].tolist() == [0.0] * 3


def test_long_alleles(mm, folder):
    genome, text = Genome(folder / "g.fa"), CONTIGS["c"]
    model = model_of(mm, genome, folder / "g.gtf")
    # A whole exon of 27 bases goes, with the ends of its introns; 201 bases are too many.
    gone = ("c", 400, text[399:460], text[399])
    longer = ("c", 400, text[399:601], text[399])
    found, _ = results(model, genome, [gone, longer])
    assert found.values["DLPSI"][0] == pytest.approx(
        max(dlpsi(fresh_mmsplice(seed=4), gone).values(), key=abs), rel=1e-5
    )
    assert found.skip.tolist()[0] == 0
    assert np.isnan(found.values["DLPSI"][1])
    assert found.skip.tolist()[1] != 0


def test_the_record_stands_for_letters_of_the_fasta(tmp_path, mm, folder):
    at = 639
    base = CONTIGS["c"][at]
    letter = {"A": "R", "G": "R", "C": "Y", "T": "Y"}[base]
    odd = CONTIGS["c"][:at] + letter + CONTIGS["c"][at + 1 :]
    plain, other = Genome(folder / "g.fa"), Genome(write_fasta(tmp_path / "g.fa", {"c": odd}))
    variant = ("c", at + 1, base, turned(base))
    found = [
        results(model_of(mm, genome, folder / "g.gtf"), genome, [variant])[0].values["DLPSI"][0]
        for genome in (plain, other)
    ]
    assert found[0] == found[1] != 0


# --- passes that fail ----------------------------------------------------------------------------


def test_batches_that_do_not_fit_are_halved(monkeypatch, mm, folder):
    genome = Genome(folder / "g.fa")
    variants = [("c", x, CONTIGS["c"][x - 1], turned(CONTIGS["c"][x - 1])) for x in range(610, 640)]
    wanted, _ = results(model_of(mm, genome, folder / "g.gtf"), genome, variants)
    real, sizes = OrtRunner.run_parts, []

    def run_parts(self, parts, outputs):
        sizes.append(len(parts["exon"]))
        if sizes[-1] > 3:
            raise PassFailed("out of memory")
        return real(self, parts, outputs)

    monkeypatch.setattr(OrtRunner, "run_parts", run_parts)
    found, work = results(model_of(mm, genome, folder / "g.gtf"), genome, variants)
    np.testing.assert_allclose(found.values["DLPSI"], wanted.values["DLPSI"], atol=1e-6)
    assert not work.tasks[0].failed
    assert max(sizes) > 3
    assert sizes.count(max(sizes)) == 1


def test_a_pass_that_fails_alone_fails_its_allele(monkeypatch, mm, folder):
    genome = Genome(folder / "g.fa")
    variants = [("c", x, CONTIGS["c"][x - 1], turned(CONTIGS["c"][x - 1])) for x in (610, 640)]
    wanted, _ = results(model_of(mm, genome, folder / "g.gtf"), genome, variants)
    bad = to_codes(turned(CONTIGS["c"][609]))[0]
    real = OrtRunner.run_parts

    def run_parts(self, parts, outputs):
        if (parts["exon"][:, 9] == bad).any():
            raise PassFailed("no")
        return real(self, parts, outputs)

    monkeypatch.setattr(OrtRunner, "run_parts", run_parts)
    found, _ = results(model_of(mm, genome, folder / "g.gtf"), genome, variants)
    assert found.values["DLPSI"][1] == pytest.approx(wanted.values["DLPSI"][1], abs=1e-6)
    assert np.isnan(found.values["DLPSI"][0])
    assert (found.skip != 0).tolist() == [True, False]
    assert {row.allele for row in found.rows} == {1}


# --- what is refused -----------------------------------------------------------------------------


def test_genes_are_needed_and_may_be_the_bundle_s(tmp_path, mm, folder):
    with pytest.raises(UsageError, match=r"has no genes\.tsv\.gz; name the genes: --gtf FILE"):
        open_exons(load_bundle(mm), None)
    spliced = "gene_id\tname\tcontig\tstrand\texon_starts\texon_ends\tintrons\n"
    lines = []
    for gene, (contig, strand, transcripts) in GENES.items():
        rows = {
            (a, b, (a > min(x)[0]) + 2 * (b < max(y for _, y in x)))
            for x in transcripts.values()
            for a, b in x
        }
        lists = [",".join(map(str, x)) for x in zip(*sorted(rows), strict=True)]
        lines.append("\t".join([f"id-{gene}", gene, contig, strand, *lists]) + "\n")
    made = imported(
        MMSPLICE,
        mm_source(fresh_mmsplice(seed=4)),
        **{"genes.tsv.gz": gzip.compress((spliced + "".join(lines)).encode())},
    )
    export_imported(made, tmp_path / "own")
    genome, variants = Genome(folder / "g.fa"), some_variants()[::7]
    own, _ = results(model_of(tmp_path / "own", genome, None), genome, variants)
    given, _ = results(model_of(mm, genome, folder / "g.gtf"), genome, variants)
    np.testing.assert_array_equal(own.values["DLPSI"], given.values["DLPSI"])
    assert own.genes == given.genes


def copied(mm: Path, folder: Path, **card: object) -> Path:
    folder.mkdir()
    for file in mm.iterdir():
        if file.name != "card.json":
            (folder / file.name).write_bytes(file.read_bytes())
    values = load_bundle(mm).card.model_dump(mode="json", exclude={"sha256"}, exclude_none=True)
    write_bundle(folder, values | card)
    return folder


def part(name: str) -> dict[str, object]:
    return {"name": name, "axes": ("batch", "length"), "dtype": "uint8"}


@pytest.mark.parametrize(
    "card",
    [
        {"inputs": {"exon": part("exon")}},
        {"inputs": {x: part(x) for x in NAMES[1:]}},
        {"encoder": {"kind": "kmer", "k": 3, "vocab": {"order": "ACGT", "single_ids": {"N": 64}}}},
        {"encoder": {"kind": "kmer", "vocab": {"order": "ACGT", "n": "error"}}},
    ],
)
def test_cards_that_are_no_frame(tmp_path, mm, folder, card):
    bundle = load_bundle(copied(mm, tmp_path / "b", **card))
    with pytest.raises(BundleError, match="a model with frame = exon has the inputs acceptor_int"):
        open_exons(bundle, read_gene_models(folder / "g.gtf"))


def test_other_objectives_have_no_exons(tmp_path, mm, folder, capsys):
    contacts = {"contacts": {"name": "tracks", "axes": ("batch", "bin", "track")}}
    path = copied(
        mm,
        tmp_path / "b",
        objective="contacts",
        outputs=contacts,
        contacts={"bin_size": 1},
        scores=(),
    )
    vcf = write_vcf(tmp_path / "x.vcf", ["c 430 A C"])
    given = ("-f", folder / "g.fa", "--gtf", folder / "g.gtf")
    assert call("vcf", vcf, "-m", path, *given) == 1
    assert "the card has frame = exon, which" in capsys.readouterr().err


def test_more_tracks_than_the_graph_has(tmp_path, mt, folder):
    path = copied(mt, tmp_path / "b")
    with (path / "tracks.tsv").open("a") as table:
        table.write("x" + "\t" * 9 + "\n")
    values = load_bundle(mt).card.model_dump(mode="json", exclude={"sha256"}, exclude_none=True)
    write_bundle(path, values)
    genome, base = Genome(folder / "g.fa"), CONTIGS["c"][429]
    model = model_of(path, genome, folder / "g.gtf")
    with pytest.raises(
        BundleError, match=r"gives 3 numbers an exon, by the card and .* there are 4"
    ):
        results(model, genome, [("c", 430, base, turned(base))])


def test_mmsplice_is_not_cut_to_some_tracks(tmp_path):
    made = imported(MMSPLICE, mm_source(fresh_mmsplice()))
    with pytest.raises(InputError, match="the five numbers of an exon, which belong together"):
        export_imported(made, tmp_path / "b", tracks=TrackChoice(regexes=("exon",)))


# --- bundles and tables --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mm", "mt"])
def test_bundles_pass_their_check(request, kind):
    path = request.getfixturevalue(kind)
    report, card = check_bundle(path), load_bundle(path).card
    assert report.cases == 3
    assert card.frame == "exon"
    with np.load(path / "selftest.npz") as file:
        shapes = {key: file[key].shape for key in file.files}
    assert {f"input_{x}" for x in card.inputs} == {x for x in shapes if x.startswith("input_")}
    assert shapes["output_tracks"] == (3, 1, 5 if kind == "mm" else 3)
    if kind == "mm":
        assert shapes["input_exon"] == (3, 147)
        assert shapes["input_donor_intron"] == (3, 94)


def test_exons_of_transcripts_in_files(tmp_path):
    (tmp_path / "g.gtf").write_text(gtf())
    genes = {x.name: x for y in "cd" for x in read_gene_models(tmp_path / "g.gtf").on(y)}
    assert genes["PLUS"].spliced.tolist() == [
        [150, 260, 0, 1], [405, 447, 0, 1], [420, 447, 1, 1], [600, 700, 1, 0],
    ]  # fmt: skip
    assert genes["MI;NUS"].spliced.tolist()[1:3] == [[900, 1000, 1, 1], [930, 933, 0, 0]]
    head = "name\tchrom\tstrand\ttx_start\ttx_end\texon_starts\texon_ends\n"
    (tmp_path / "t.tsv").write_text(f"{head}G\tc\t-\t5\t90\t5,60\t40,90\n")
    (gene,) = read_gene_table(tmp_path / "t.tsv").on("c")
    assert gene.spliced.tolist() == [[5, 40, 0, 1], [60, 90, 1, 0]]


HEAD = (
    "Chromosome,Start,End,Strand,exon_id,gene_id,gene_name,transcript_id,"
    "left_overhang,right_overhang"
)


def test_the_table_of_a_package(tmp_path):
    text = f"""{HEAD}
chr1,101,300,+,e1,G1,ONE,t1,0,100
chr1,301,500,+,e2,G1,ONE,t1,100,0
chr1,101,300,+,e1,G1,ONE,t2,0,100
chr2,11,20,-,e3,G2,TWO,t3,0,0
"""
    table = exon_table(gzip.compress(text.encode()), "x")
    assert table == exon_table(gzip.compress(text.encode()), "y")
    (tmp_path / "genes.tsv.gz").write_bytes(table)
    models = read_gene_table(tmp_path / "genes.tsv.gz")
    (one,), (two,) = models.on("chr1"), models.on("2")
    assert (one.gene_id, one.name, one.strand, one.start, one.end) == ("G1", "ONE", "+", 100, 500)
    assert one.spliced.tolist() == [[100, 200, 0, 1], [400, 500, 1, 0]]
    assert two.spliced.tolist() == [[10, 20, 0, 0]]
    assert two.strand == "-"


@pytest.mark.parametrize(
    "text", ["a,b\n", f"{HEAD}\nchr1,x,300,+,e1,G1,ONE,t1,0,100\n", f"{HEAD}\nchr1\n", ""]
)
def test_tables_that_are_none(text):
    with pytest.raises(InputError, match=r"^x: not a table of exons: "):
        exon_table(gzip.compress(text.encode()), "x")
    with pytest.raises(InputError, match=r"^x: not a table of exons: "):
        exon_table(text.encode() or b"\x1f", "x")


@pytest.mark.parametrize(
    "row", ["G\tg\tc\t.\t1\t2\t0", "G\tg\tc\t+\t2\t2\t0", "G\tg\tc\t+\t1\t2\t4"]
)
def test_rows_that_are_no_gene(tmp_path, row):
    head = "gene_id\tname\tcontig\tstrand\texon_starts\texon_ends\tintrons\n"
    (tmp_path / "t.tsv").write_text(f"{head}{row}\n")
    with pytest.raises(InputError, match=r"line 2: 'g' needs a strand \+ or -, exons with starts"):
        read_gene_table(tmp_path / "t.tsv")
    (tmp_path / "t.tsv").write_text(f"{head}G\tg\tc\t+\t1,3\t2\t0\n")
    with pytest.raises(InputError, match="line 2 is no gene"):
        read_gene_table(tmp_path / "t.tsv")
