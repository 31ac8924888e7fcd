"""`glm-annotate tracks`: files read back, equal to what `vcf` says and to what networks give."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pybigtools
import pyBigWig
import pytest
from cli_kit import HEAD, call, records_of, write_vcf
from engine import gapped_contigs, write_fasta
from toy_tracks import NAMES, ROWS, Shape, write_toy
from ucsc_rules import violations

from glm_annotate.genome import to_codes
from glm_annotate.testing import toy_bundle
from glm_annotate.track_files import file_names
from glm_annotate.track_table import read_tracks

Values = dict[int, float]
TRACKS = [row["identifier"] for row in ROWS]
FILES = dict(zip(TRACKS, file_names(TRACKS), strict=True))
SHAPES = {"bases": Shape(24, 11, 1), "bins": Shape(48, 25, 4, 2)}


def bases(path: Path, contig: str) -> Values:
    """Read a bigWig: a value by base, equal by two readers."""
    with pyBigWig.open(str(path)) as file:
        found = file.intervals(contig, 0, file.chroms()[contig]) or ()
    with pybigtools.open(str(path)) as other:
        assert [tuple(x) for x in other.records(contig)] == list(found)
    return {i: value for start, end, value in found for i in range(start, end)}


@pytest.fixture(scope="module")
def contigs() -> dict[str, str]:
    made = gapped_contigs(5, lin=420, ring=90)
    return {"lin": made["lin"], "ring": made["ring"].replace("N", "A"), "tiny": "ACGTA"}


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory, contigs: dict[str, str]) -> Path:
    return write_fasta(tmp_path_factory.mktemp("genome") / "toy.fa", contigs)


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "toy"
    return toy_bundle("wide", folder, context=24, dense=5, circular=["ring"], scores=("LLR", "ENT"))


@pytest.fixture(scope="module", params=SHAPES)
def assay(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / request.param
    return write_toy(folder, SHAPES[request.param], circular=["ring"], scores=["SAD"])


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Callable[..., list[dict[str, str]]]:
    def run(*arguments: object) -> list[dict[str, str]]:
        """Run `vcf`, and give CHROM, POS, REF, ALT and INFO of each record."""
        capfd.readouterr()
        assert call("vcf", *arguments) == 0
        rows = []
        for record in records_of(capfd.readouterr().out):
            names = dict(zip(("chrom", "pos", "ref", "alt"), record.site, strict=True))
            rows.append(names | record.info)
        return rows

    return run


def snvs(contigs: dict[str, str], contig: str, places: Iterator[int] | range) -> list[str]:
    text = contigs[contig].upper()
    return [
        f"{contig} {i + 1} {text[i]} {alt}"
        for i in places
        if text[i] in "ACGT"
        for alt in "ACGT".replace(text[i], "")
    ]


# --- numbers of every base -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["exact", "dense"])
def test_numbers_of_bases_equal_vcf(
    mode: str,
    tmp_path: Path,
    fasta: Path,
    contigs: dict[str, str],
    language: Path,
    said: Callable[..., list[dict[str, str]]],
) -> None:
    common = ("-f", fasta, "-m", language, "--mode", mode)
    kinds = "likelihood,entropy,information,ism"
    assert call("tracks", *common, "-k", kinds, "-o", tmp_path / "out") == 0
    folder = tmp_path / "out" / "TOY"
    for contig in contigs:
        alleles = snvs(contigs, contig, range(len(contigs[contig])))
        rows = said(write_vcf(tmp_path / "all.vcf", alleles), *common)
        entropy, information = (
            bases(folder / f"{x}.bw", contig) for x in ("entropy", "information")
        )
        ism = {x: bases(folder / "ism" / f"{x}.bw", contig) for x in "ACGT"}
        largest, mean = (bases(folder / "ism" / f"{x}.bw", contig) for x in ("maxabs", "mean"))
        known = {int(row["pos"]) - 1 for row in rows}
        assert set(entropy) == set(largest) == set(mean) == set(ism["A"]) == known
        by_place: dict[int, list[float]] = {}
        for row in rows:
            at, llr = int(row["pos"]) - 1, float(row["TOY_LLR"])
            assert ism[row["alt"]][at] == pytest.approx(llr, rel=1e-5, abs=1e-5)
            assert ism[row["ref"]][at] == 0
            assert entropy[at] == pytest.approx(float(row["TOY_ENT"]), abs=1e-5)
            assert information[at] == pytest.approx(2 - entropy[at] / math.log(2), abs=1e-5)
            by_place.setdefault(at, []).append(llr)
        for at, three in by_place.items():
            assert largest[at] == pytest.approx(max(map(abs, three)), abs=1e-4)
            assert mean[at] == pytest.approx(sum(three) / 3, abs=1e-4)


def test_likelihood_and_mutagenesis_agree(
    tmp_path: Path, fasta: Path, language: Path, contigs: dict[str, str]
) -> None:
    """On one strand the four ratios and the likelihood come of one distribution."""
    out = tmp_path / "out"
    command = ("-f", fasta, "-m", language, "--strand", "forward", "-r", "lin:1-60", "-o", out)
    assert call("tracks", *command, "-k", "likelihood,ism") == 0
    likelihood = bases(out / "TOY" / "likelihood.bw", "lin")
    ism = {x: bases(out / "TOY" / "ism" / f"{x}.bw", "lin") for x in "ACGT"}
    for at, value in likelihood.items():
        assert at < 60
        wanted = -math.log(sum(math.exp(ism[x][at]) for x in "ACGT"))
        assert value == pytest.approx(wanted, abs=1e-5)


def test_a_mutagenesis_file_serves_as_precomputed_scores(
    tmp_path: Path,
    fasta: Path,
    contigs: dict[str, str],
    language: Path,
    said: Callable[..., list[dict[str, str]]],
) -> None:
    common = ("-f", fasta, "-m", language)
    assert call("tracks", *common, "-r", "lin:5-60,ring", "-k", "ism", "-o", tmp_path / "out") == 0
    saved = tmp_path / "out" / "TOY" / "ism" / "snvs.vcf.gz"
    there = [*snvs(contigs, "lin", range(4, 60)), *snvs(contigs, "ring", range(90))]
    listed = said(saved, *common, "--overwrite")
    assert [" ".join((x["chrom"], x["pos"], x["ref"], x["alt"])) for x in listed] == there
    source = write_vcf(tmp_path / "in.vcf", [*there[:9], *snvs(contigs, "lin", range(100, 103))])
    scored = said(source, *common)
    taken = said(source, *common, "--from", saved)
    for one, other in zip(scored, taken, strict=True):
        found = int(other["pos"]) <= 60
        assert other.pop("TOY_STATUS") == ("PRECOMPUTED" if found else "SCORED")
        assert one.pop("TOY_STATUS") == "SCORED"
        assert one == other


@pytest.mark.parametrize("mode", ["exact", "dense"])
def test_values_do_not_depend_on_the_regions(
    mode: str, tmp_path: Path, fasta: Path, language: Path
) -> None:
    bed = tmp_path / "some.bed"
    bed.write_text(
        "ring\t40\t90\nlin\t100\t131\nlin\t0\t7\nlin\t120\t201\nlin\t50\t50\nring\t80\t85\n"
    )
    common = ("-f", fasta, "-m", language, "--mode", mode, "-k", "entropy", "-O", "bw")
    assert call("tracks", *common, "-o", tmp_path / "all.bw") == 0
    assert call("tracks", bed, *common, "-o", tmp_path / "some.bw") == 0
    assert call("tracks", *common, "-r", "lin:101-201", "-o", tmp_path / "part.bw") == 0
    places = {"lin": {*range(7), *range(100, 201)}, "ring": set(range(40, 90))}
    for contig, wanted in places.items():
        whole = bases(tmp_path / "all.bw", contig)
        assert bases(tmp_path / "some.bw", contig) == {
            i: value for i, value in whole.items() if i in wanted
        }
    whole = bases(tmp_path / "all.bw", "lin")
    assert bases(tmp_path / "part.bw", "lin") == {
        i: whole[i] for i in range(100, 201) if i in whole
    }


# --- predicted tracks ----------------------------------------------------------------------------


def test_predicted_tracks_do_not_depend_on_the_regions(
    tmp_path: Path, fasta: Path, assay: Path
) -> None:
    common = ("-f", fasta, "-m", assay, "-k", "predict")
    assert call("tracks", *common, "-o", tmp_path / "all") == 0
    assert call("tracks", *common, "-r", "lin:42-43,lin:77-130,ring:1-9", "-o", tmp_path / "r") == 0
    size = read_bin_size(assay)
    asked = {"lin": {41, 42, *range(76, 130)}, "ring": set(range(9))}
    for name in FILES.values():
        for contig, places in asked.items():
            whole = bases(tmp_path / "all" / "TRK" / "predict" / f"{name}.bw", contig)
            bins = {i // size for i in places}
            assert bases(tmp_path / "r" / "TRK" / "predict" / f"{name}.bw", contig) == {
                i: value for i, value in whole.items() if i // size in bins
            }


def read_bin_size(bundle: Path) -> int:
    return SHAPES[bundle.name].bin_size


def test_one_track_goes_to_a_file_and_to_stdout(
    tmp_path: Path, fasta: Path, assay: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    common = ("tracks", "-f", fasta, "-m", assay, "-k", "predict", "--track-regex", "dnase")
    assert call(*common, "-o", tmp_path / "one.bw") == 0
    assert call(*common, "-o", tmp_path / "all") == 0
    assert call(*common[:-2], "-o", tmp_path / "every") == 0
    capfd.readouterr()
    assert call(*common, "-o", "-") == 0
    lines = [
        x.split("\t") for x in capfd.readouterr().out.splitlines() if not x.startswith("track")
    ]
    one = bases(tmp_path / "one.bw", "lin")
    printed = {
        i: float(value)
        for contig, start, end, value in lines
        if contig == "lin"
        for i in range(int(start), int(end))
    }
    assert printed == pytest.approx(one, rel=1e-5)
    for folder in ("all", "every"):
        assert bases(tmp_path / folder / "TRK" / "predict" / "dnase.bw", "lin") == one
    assert len(list((tmp_path / "every" / "TRK" / "predict").iterdir())) == len(TRACKS)


# --- alleles -------------------------------------------------------------------------------------


def network_bins(bundle: Path, window: str, *, reverse: bool) -> np.ndarray:
    """Predict a window by the session itself, un-transformed, on the forward strand's bins."""
    session = ort.InferenceSession(str(bundle / "model.onnx"))
    text = window[::-1].translate(str.maketrans("ACGT", "TGCA")) if reverse else window
    (found,) = session.run(["tracks"], {"rows": to_codes(text)[None]})
    table = read_tracks(bundle / "tracks.tsv")
    if reverse:
        found = found[:, ::-1][:, :, table.pair]
    return np.asarray(found[0], dtype=np.float64)


def test_tracks_of_an_snv_are_those_of_the_network(
    tmp_path: Path, fasta: Path, contigs: dict[str, str], assay: Path
) -> None:
    shape, text = SHAPES[assay.name], contigs["lin"].upper()
    at = next(i for i in range(200, 300) if set(text[i - 60 : i + 60]) <= set("ACGT"))
    alt = "ACGT"["ACGT".index(text[at]) - 1]
    source = f"lin:{at + 1}:{text[at]}:{alt}"
    command = ("-f", fasta, "-m", assay, "-k", "ref,alt,delta", "-o", tmp_path / "out")
    assert call("tracks", source, *command) == 0
    left = at - shape.anchor
    window = text[left : left + shape.context]
    sides = {"ref": window, "alt": window[: shape.anchor] + alt + window[shape.anchor + 1 :]}
    transforms = read_tracks(assay / "tracks.tsv").transforms()
    wanted = {
        kind: transforms.invert(
            sum(network_bins(assay, x, reverse=turn) for turn in (False, True)) / 2
        )
        for kind, x in sides.items()
    }
    wanted["delta"] = wanted["alt"] - wanted["ref"]
    assert np.abs(wanted["delta"]).max() > 0.01
    folder = tmp_path / "out" / "TRK" / "alleles" / source.replace(":", "_")
    first = left + shape.crop * shape.bin_size
    for kind, values in wanted.items():
        for column, name in enumerate(FILES.values()):
            found = bases(folder / kind / f"{name}.bw", "lin")
            assert min(found) == first
            assert len(found) == values.shape[0] * shape.bin_size
            for i, value in found.items():
                there = values[(i - first) // shape.bin_size, column]
                assert value == pytest.approx(there, rel=1e-5, abs=1e-5)


def alleles_of(contigs: dict[str, str]) -> list[str]:
    """Single bases, indels, neighbours of contig ends and of the origin, and what has no score."""
    lin, ring = contigs["lin"].upper(), contigs["ring"].upper()
    out = []
    for contig, text, at in (
        ("lin", lin, 210),
        ("lin", lin, 2),
        ("lin", lin, 416),
        ("ring", ring, 1),
    ):
        ref = text[at]
        out.append(f"{contig} {at + 1} {ref} {'ACGT'['ACGT'.index(ref) - 1]}")
    out.append(f"lin 212 {lin[211:219]} {lin[211]}")
    out.append(f"lin 213 {lin[212]} {lin[212]}GATTACAGA")
    out.append(f"ring 30 {ring[29:33]} {ring[29]}C")
    wrong = "ACGT"["ACGT".index(lin[219]) - 1]
    out.append(f"lin 220 {wrong} {lin[219]}")
    out.append(f"lin 221 {lin[220]} <DEL>")
    return out


def test_delta_adds_up_to_the_score(
    tmp_path: Path,
    fasta: Path,
    contigs: dict[str, str],
    assay: Path,
    said: Callable[..., list[dict[str, str]]],
) -> None:
    source = write_vcf(tmp_path / "in.vcf", alleles_of(contigs))
    common = ("-f", fasta, "-m", assay)
    out = tmp_path / "out"
    assert call("tracks", source, *common, "-k", "delta,ref,alt", "-o", out) == 0
    table = [x.split("\t") for x in (out / "TRK" / "alleles.tsv").read_text().splitlines()[1:]]
    rows = said(source, *common)
    assert [x[5] for x in table] == [row["TRK_STATUS"] for row in rows]
    assert {x[5] for x in table} == {"SCORED", "REF_MISMATCH", "SYMBOLIC"}
    pairs = {"cage+": ("cage+", "cage-"), "rna+": ("rna-", "rna+")}
    size = read_bin_size(assay)
    for row, cells in zip(rows, table, strict=True):
        assert (cells[6] == ".") == (cells[5] != "SCORED")
        if cells[5] != "SCORED":
            continue
        folder = out / "TRK" / "alleles" / cells[6]
        at_edge = int(row["pos"]) < 60 or int(row["pos"]) > 380
        for name, key in zip(NAMES, ("cage_plus", "dnase", "rna_plus"), strict=False):
            files = [FILES[x] for x in pairs.get(name, (name,))]
            delta = [bases(folder / "delta" / f"{x}.bw", row["chrom"]) for x in files]
            ref = [bases(folder / "ref" / f"{x}.bw", row["chrom"]) for x in files]
            alt = [bases(folder / "alt" / f"{x}.bw", row["chrom"]) for x in files]
            for one, two, both in zip(ref, alt, delta, strict=True):
                assert set(two) == set(both) <= set(one)
                assert all(both[i] == pytest.approx(two[i] - one[i], abs=1e-5) for i in both)
            if not at_edge:  # bins beyond the contig are scored, but lie nowhere
                total = sum(sum(x.values()) for x in delta) / size
                assert total == pytest.approx(float(row[f"TRK_SAD_{key}"]), rel=1e-4, abs=1e-4)
    index = [x.split("\t") for x in (out / "index.tsv").read_text().splitlines()]
    assert index[0] == ["chrom", "pos", "ref", "alt", "track", "kind", "file", "model"]
    scored = sum(x[5] == "SCORED" for x in table)
    assert len(index) - 1 == scored * 3 * len(TRACKS)
    assert all((out / line[6]).is_file() for line in index[1:])


def test_bins_behind_a_deletion_lie_where_their_bases_are(
    tmp_path: Path, fasta: Path, contigs: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """REF behind a deletion comes of a window further right: of its own bases there."""
    shape = SHAPES["bins"]
    assay = write_toy(tmp_path / "bins", shape, strand="forward")
    text = contigs["lin"].upper()
    at = next(i for i in range(200, 300) if set(text[i - 60 : i + 70]) <= set("ACGT"))
    lost = 6
    source = f"lin:{at}:{text[at - 1 : at + lost]}:{text[at - 1]}"
    assert call("tracks", source, "-f", fasta, "-m", assay, "-k", "ref", "-o", tmp_path / "o") == 0
    (folder,) = (tmp_path / "o" / "TRK" / "alleles").iterdir()
    found = bases(folder / "ref" / "dnase.bw", "lin")
    # Where the deletion lies after left alignment, by hand.
    start = at
    while text[start - 1] == text[start + lost - 1]:
        start -= 1
    column = TRACKS.index("dnase")
    near, far = (
        network_bins(assay, text[left : left + shape.context], reverse=False)[:, column]
        for left in (start - shape.anchor, start - shape.anchor + lost)
    )
    first = start - shape.anchor + shape.crop * shape.bin_size
    last = (start - first) // shape.bin_size
    wanted = {}
    for i in range(near.size):
        begin = first + i * shape.bin_size + (lost if i > last else 0)
        value = near[i] if i <= last else far[i]
        wanted |= {begin + j: value for j in range(shape.bin_size)}
    assert found == pytest.approx(wanted, rel=1e-5)


def test_too_many_alleles_stop_the_run_before_it_writes(
    tmp_path: Path, fasta: Path, contigs: dict[str, str], assay: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    source = write_vcf(tmp_path / "in.vcf", snvs(contigs, "lin", range(200, 204)))
    command = ("tracks", source, "-f", fasta, "-m", assay, "-k", "ref", "-o", tmp_path / "out")
    assert call(*command, "--max-alleles", "3") == 1
    assert "more than 3 alleles" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


# --- haplotypes ----------------------------------------------------------------------------------


PHASED = HEAD.replace(
    "#CHROM",
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n##contig=<ID=lin>\n#CHROM',
).replace("INFO\n", "INFO\tFORMAT\tS1\n")


def phased(path: Path, rows: list[tuple[int, str, str, str]]) -> Path:
    lines = [f"lin\t{pos}\t.\t{ref}\t{alt}\t.\t.\t.\tGT\t{call}\n" for pos, ref, alt, call in rows]
    path.write_text(PHASED + "".join(lines))
    return path


def test_a_haplotype_of_substitutions_is_another_genome(
    tmp_path: Path, fasta: Path, contigs: dict[str, str], assay: Path
) -> None:
    text = contigs["lin"].upper()
    places = [i for i in range(40, 380, 37) if text[i] in "ACGT"]
    turned = {i: "ACGT"["ACGT".index(text[i]) - 1] for i in places}
    rows = [
        (i + 1, text[i], alt, "0|1" if n % 3 else "1|0")
        for n, (i, alt) in enumerate(turned.items())
    ]
    source = phased(tmp_path / "in.vcf", rows)
    for number in (1, 2):
        carried = {i for n, i in enumerate(turned) if bool(n % 3) == (number == 2)}
        other = "".join(turned[i] if i in carried else x for i, x in enumerate(contigs["lin"]))
        changed = write_fasta(tmp_path / f"h{number}.fa", {**contigs, "lin": other})
        out = tmp_path / f"out{number}"
        common = ("-m", assay, "-r", "lin")
        assert call("tracks", "-f", changed, *common, "-k", "predict", "-o", out / "alt") == 0
        assert call("tracks", "-f", fasta, *common, "-k", "predict", "-o", out / "ref") == 0
        sample = ("--sample", "S1", "--haplotype", number)
        command = ("tracks", source, "-f", fasta, *common, *sample, "-k", "ref,alt,delta")
        assert call(*command, "-o", out) == 0
        folder = out / "TRK" / f"S1_h{number}"
        for name in FILES.values():
            sides = {}
            for kind in ("ref", "alt"):
                sides[kind] = bases(folder / kind / f"{name}.bw", "lin")
                alone = bases(out / kind / "TRK" / "predict" / f"{name}.bw", "lin")
                assert sides[kind] == pytest.approx(alone, rel=1e-6)
            delta = bases(folder / "delta" / f"{name}.bw", "lin")
            assert delta.keys() == sides["alt"].keys() & sides["ref"].keys()
            assert max(map(abs, delta.values())) > 1e-3
            for i, value in delta.items():
                assert value == pytest.approx(sides["alt"][i] - sides["ref"][i], abs=1e-5)


def test_indels_of_a_haplotype_are_laid_on_the_reference(
    tmp_path: Path, fasta: Path, contigs: dict[str, str], assay: Path
) -> None:
    """ALT of a bin is the mean over the haplotype's bases that stand for its bases."""
    text = contigs["lin"].upper()
    ins, cut = 150, 260
    assert set(text[ins - 2 : ins + 2] + text[cut - 2 : cut + 9]) <= set("ACGT")
    rows = [
        (ins, text[ins - 1], text[ins - 1] + "GATTACA", "1|1"),
        (cut, text[cut - 1 : cut + 5], text[cut - 1], "1|1"),
    ]
    whole = contigs["lin"]
    other = whole[:ins] + "GATTACA" + whole[ins:cut] + whole[cut + 5 :]
    changed = write_fasta(tmp_path / "h.fa", {**contigs, "lin": other})
    common = ("-m", assay, "-r", "lin")
    out = tmp_path / "out"
    assert call("tracks", "-f", changed, *common, "-k", "predict", "-o", out / "own") == 0
    source = phased(tmp_path / "in.vcf", rows)
    command = ("tracks", source, "-f", fasta, *common, "--sample", "S1", "-k", "alt", "-o", out)
    assert call(*command) == 0
    # The base of the reference that each base of the haplotype stands for.
    stands = [*range(ins), *[ins] * 7, *range(ins, cut), *range(cut + 5, len(whole))]
    size = read_bin_size(assay)
    for name in FILES.values():
        own = bases(out / "own" / "TRK" / "predict" / f"{name}.bw", "lin")
        found = bases(out / "TRK" / "S1_h1" / "alt" / f"{name}.bw", "lin")
        by_bin: dict[int, list[float]] = {}
        for place, value in own.items():
            by_bin.setdefault(stands[place] // size, []).append(value)
        wanted = {
            i: sum(values) / len(values)
            for b, values in by_bin.items()
            for i in range(b * size, min((b + 1) * size, len(whole)))
        }
        assert found == pytest.approx(wanted, rel=1e-5)


# --- hub, picture, refusals ----------------------------------------------------------------------


def test_hub_and_picture(
    tmp_path: Path, fasta: Path, contigs: dict[str, str], assay: Path, language: Path
) -> None:
    text = contigs["lin"].upper()
    source = f"lin:211:{text[210]}:{'ACGT'['ACGT'.index(text[210]) - 1]}"
    hub = ("--hub", "hg38", "--email", "me@example.org")
    out = tmp_path / "out"
    command = ("tracks", source, "-f", fasta, "-m", assay, "-k", "ref,alt,delta,ism", "--around", 9)
    assert call(*command, *hub, "-o", out, "--plot", tmp_path / "p.png") == 0
    assert violations(out / "hub.txt") == []
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    database = (out / "hg38" / "trackDb.txt").read_text()
    assert len(re.findall(r"^\s*bigDataUrl", database, re.MULTILINE)) == 3 * len(TRACKS) + 7
    other = tmp_path / "lm"
    command = ("tracks", "-f", fasta, "-m", language, "-r", "lin:1-80", "-k", "likelihood,ism")
    assert call(*command, *hub, "-o", other, "--plot", tmp_path / "p.svg") == 0
    assert violations(other / "hub.txt") == []
    assert "LLR of a substitution" in (tmp_path / "p.svg").read_text()


REFUSED = {
    "kind": (("-k", "coverage"), "known are predict"),
    "no such for gLM": (("-k", "predict", "-r", "lin"), "toy-wide gives likelihood"),
    "variants": (("-k", "delta"), "name a VCF"),
    "single": (("-k", "likelihood,entropy", "-o", "x.bw"), "name a folder"),
    "region": (("-k", "entropy", "-r", "lin:400-900"), "has 420 bases"),
    "contig": (("-k", "entropy", "-r", "chr9"), "no such contig"),
    "hub": (("-k", "entropy", "--hub", "hg38"), "go together"),
    "hub of text": (
        ("-k", "entropy", "--hub", "hg38", "--email", "a@b.c", "-O", "bedgraph"),
        "bigWigs",
    ),
    "plot": (("-k", "entropy", "--plot", "x.doc"), "no picture format"),
    "sample": (("-k", "entropy", "--sample", "S1"), "alone"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(
    case: str, tmp_path: Path, fasta: Path, language: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options, words = REFUSED[case]
    where = () if "-o" in options else ("-o", tmp_path / "out")
    assert call("tracks", "-f", fasta, "-m", language, *options, *where) in (1, 2)
    error = capfd.readouterr().err.splitlines()[-1]
    assert words in error
    assert error.startswith("glm-annotate: error: ")
    assert not (tmp_path / "out").exists()


def test_files_are_not_replaced_unasked(
    tmp_path: Path, fasta: Path, language: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = (
        "tracks",
        "-f",
        fasta,
        "-m",
        language,
        "-r",
        "tiny",
        "-k",
        "ism",
        "-o",
        tmp_path / "o",
    )
    assert call(*command) == 0
    assert call(*command) == 1
    assert "--force" in capfd.readouterr().err
    assert call(*command, "--force") == 0


def test_scope_is_kept_and_told(
    tmp_path: Path, fasta: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scope = {"contigs": [{"name": "ring"}]}
    bundle = toy_bundle("wide", tmp_path / "toy", context=16, scope=scope)
    command = ("tracks", "-f", fasta, "-m", bundle, "-k", "entropy")
    assert call(*command, "-o", tmp_path / "a.bw") == 0
    assert "--ignore-scope" in capfd.readouterr().err
    assert not bases(tmp_path / "a.bw", "lin")
    assert len(bases(tmp_path / "a.bw", "ring")) == 90
    assert call(*command, "--ignore-scope", "-o", tmp_path / "b.bw") == 0
    assert bases(tmp_path / "b.bw", "lin")


def test_regions_come_from_one_place(
    tmp_path: Path, fasta: Path, language: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever the name of the BED: a region that is not read would be lost silently."""
    for name in ("some.bed", "some.txt"):
        (tmp_path / name).write_text("lin\t0\t9\n")
        command = ("tracks", tmp_path / name, "-f", fasta, "-m", language, "-k", "entropy")
        assert call(*command, "-r", "lin:1-5", "-o", tmp_path / "a.bw") == 2
        assert "give one" in capfd.readouterr().err
