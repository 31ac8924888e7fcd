"""Track hubs: UCSC's rules on good and on spoilt hubs, view limits by brute force, refusals."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pysam
import pytest
from ucsc_rules import parse, violations

from glm_annotate.errors import GlmAnnotateError, InputError, UsageError
from glm_annotate.hub import ALLELES, HubGroup, HubTrack, overlay_of, write_hub
from glm_annotate.hub_limits import data_range, view_limits
from glm_annotate.track_files import TrackSet, open_track

CONTIGS = {"chr1": 30_000, "chrM": 5000}
NAMES = ("likelihood", "A", "C", "G", "T", "ref", "alt", "delta", "K562+", "K562-", "empty")
FOLDER = HubGroup("by variant", "Predictions around variants", kind="folder")


def write_tracks(folder: Path) -> None:
    values = np.random.default_rng(0).normal(size=(4000, len(NAMES)))
    values[:, 0] = values[:, 0] ** 2
    values[:, -1] = np.nan
    with TrackSet(str(folder), NAMES, CONTIGS, force=False) as tracks:
        tracks.add("chr1", 10_000, values)


def write_vcf(path: Path) -> Path:
    text = "##fileformat=VCFv4.3\n##contig=<ID=chr1>\n"
    text += "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    with pysam.BGZFile(str(path), "wb") as out:
        out.write((text + "chr1\t10\t.\tA\tC\t.\t.\t.\n").encode())
    pysam.tabix_index(str(path), preset="vcf")
    return path


def tracks_in(folder: Path) -> list[HubTrack]:
    """A track of each sort; bigWigs lie in the hub's folder, the VCF elsewhere."""
    write_tracks(folder / "hub" / "hg38")
    vcf = write_vcf(folder / "scores.vcf.gz")
    pair = HubGroup("K562 DNase", "DNase of K562, both strands")
    at = "hg38/{}.bw".format
    return [
        HubTrack("likelihood", at("likelihood"), "Log-likelihood of every base", limits=(0, 1)),
        *overlay_of("ism", {x: at(x) for x in "ACGT"}, long_label="Saturation mutagenesis"),
        HubTrack("K562 DNase+", at("K562_plus"), "Forward", assay="DNASE:K562", group=pair),
        HubTrack("K562 DNase-", at("K562_minus"), "Reverse", assay="DNASE:K562", group=pair),
        *overlay_of(
            "chr1:10:A:C", {x: at(x) for x in ALLELES}, long_label="chr1:10 A>C",
            colours=ALLELES, parent=FOLDER,
        ),
        HubTrack("scores", str(vcf), "Scored variants", visibility="pack", group=FOLDER),
        HubTrack("7 nothing", at("empty"), "No values", assay="ODD"),
    ]  # fmt: skip


def write(folder: Path, tracks: list[HubTrack], **changes: Any) -> Path:
    options = {
        "name": "demo", "short_label": "Demo", "long_label": "A demonstration",
        "email": "me@example.org", "genome": "hg38", "force": False,
    }  # fmt: skip
    return Path(write_hub(str(folder), tracks=tracks, **{**options, **changes}))


@pytest.fixture
def hub_tracks(tmp_path: Path) -> list[HubTrack]:
    return tracks_in(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    return write(folder / "hub", tracks_in(folder))


@pytest.fixture
def hub(tmp_path: Path, made: Path) -> Path:
    shutil.copytree(made.parent, tmp_path / "hub")
    return tmp_path / "hub" / "hub.txt"


def stanzas(hub: Path) -> dict[str, dict[str, str]]:
    broken: list[str] = []
    return {x["track"]: x for x in parse(hub.parent / "hg38" / "trackDb.txt", broken)}


def test_a_hub_of_everything_keeps_the_rules(hub: Path) -> None:
    assert violations(hub) == []
    assert sorted(os.listdir(hub.parent)) == ["genomes.txt", "hg38", "hub.txt"]
    found = stanzas(hub)
    assert list(found) == [
        "likelihood", "ism", "ism_A", "ism_C", "ism_G", "ism_T", "K562_DNase", "K562_DNase_plus",
        "K562_DNase_minus", "by_variant", "scores", "chr1_10_A_C", "chr1_10_A_C_ref",
        "chr1_10_A_C_alt", "chr1_10_A_C_delta", "t_7_nothing",
    ]  # fmt: skip
    assert found["chr1_10_A_C"]["parent"] == "by_variant"
    assert found["chr1_10_A_C"]["container"] == "multiWig"
    assert found["ism_G"]["parent"] == "ism"
    assert found["K562_DNase_minus"]["parent"] == "K562_DNase on"
    assert found["likelihood"]["viewLimits"] == "0:1"
    assert found["t_7_nothing"]["viewLimits"] == "0:1"
    assert found["scores"]["bigDataUrl"] == "scores.vcf.gz"
    assert (hub.parent / "hg38" / "scores.vcf.gz.tbi").is_file()
    assert len({found[f"ism_{x}"]["color"] for x in "ACGT"}) == 4


MUTATIONS = [
    # file, what is replaced, by what, what the checker says
    ("hub.txt", "hub demo", "hub my demo", "hub is not one word"),
    ("hub.txt", "hub demo\nshortLabel Demo", "shortLabel Demo\nhub demo", "hub is not the first"),
    ("hub.txt", "shortLabel Demo", "shortLabel " + "x" * 18, "shortLabel is too long"),
    ("hub.txt", "longLabel A demonstration", "longLabel " + "x" * 70, "longLabel is too long"),
    ("hub.txt", "me@example.org", "me", "email is none"),
    ("hub.txt", "email me@example.org\n", "", "no email"),
    ("hub.txt", "genomes.txt", "genome.txt", "genomesFile is missing"),
    ("hub.txt", "genomesFile", "\ngenomesFile", "2 stanzas"),
    ("genomes.txt", "genome hg38", "genome hg 38", "genome is no database name"),
    ("genomes.txt", "genome hg38", "genome hg19", "not in a folder named as the genome"),
    ("genomes.txt", "hg38/trackDb", "hg38/track", "trackDb is missing"),
    ("genomes.txt", "genome hg38\n", "", "genome is not the first line"),
    ("trackDb.txt", "track ism_A", "track ism-A", "bad track"),
    ("trackDb.txt", "track ism_A", "track 1ism_A", "bad track"),
    ("trackDb.txt", "track ism_A", "track ism_C", "ism_C: twice"),
    ("trackDb.txt", "track scores\n", "", "track is not the first line"),
    ("trackDb.txt", "shortLabel ism G", "shortLabel " + "g" * 18, "bad shortLabel"),
    ("trackDb.txt", "longLabel Forward", "longLabel " + "g" * 77, "bad longLabel"),
    ("trackDb.txt", "longLabel Forward", "longLabel", "longLabel without a value"),
    ("trackDb.txt", "longLabel Forward", "longLabel Forw\u00e4rd", "not ASCII"),
    ("trackDb.txt", "longLabel Forward", "longLabel Forward \\", "continued line"),
    ("trackDb.txt", "longLabel Forward\n", "longLabel Forward\n\n", "track is not the first line"),
    ("trackDb.txt", "bigDataUrl likelihood.bw", "bigDataUrl none.bw", "leads to no file"),
    ("trackDb.txt", "bigDataUrl likelihood.bw", "", "no bigDataUrl"),
    ("trackDb.txt", "bigDataUrl likelihood.bw", "bigDataURL likelihood.bw", "unknown setting"),
    ("trackDb.txt", "type vcfTabix", "type vcf", "bad type"),
    ("trackDb.txt", "type bigWig 0 1", "type bigWig 1", "bad type"),
    ("trackDb.txt", "viewLimits 0:1", "viewLimits 0,1", "bad viewLimits"),
    ("trackDb.txt", "viewLimits 0:1", "viewLimits 1:1", "bad viewLimits"),
    ("trackDb.txt", "visibility pack", "visibility shown", "bad visibility"),
    ("trackDb.txt", "color 0,114,178", "color 0,114,278", "bad color"),
    ("trackDb.txt", "color 0,114,178", "color blue", "bad color"),
    ("trackDb.txt", "maxHeightPixels 128:48:16", "maxHeightPixels 16:48:128", "bad maxHeight"),
    ("trackDb.txt", "autoScale off", "autoScale no", "bad autoScale"),
    ("trackDb.txt", "aggregate transparentOverlay", "aggregate none", "bad aggregate"),
    ("trackDb.txt", "parent ism\n", "parent isms\n", "parent is no group"),
    ("trackDb.txt", "superTrack on show", "superTrack shown", "bad superTrack"),
    ("trackDb.txt", "container multiWig\n", "", "parent is no group"),
    ("trackDb.txt", "parent by_variant", "parent ism", "a multiWig in a multiWig"),
    ("trackDb.txt", "parent by_variant", "parent K562_DNase", "vcfTabix in a group of bigWig"),
    ("trackDb.txt", "priority 1", "priority first", "bad priority"),
]


@pytest.mark.parametrize(("file", "old", "new", "said"), MUTATIONS)
def test_the_checker_sees_spoilt_hubs(hub: Path, file: str, old: str, new: str, said: str) -> None:
    path = hub.parent / ("hg38" if file == "trackDb.txt" else "") / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    assert any(said in x for x in violations(hub)), violations(hub)


def test_the_checker_wants_an_index(hub: Path) -> None:
    (hub.parent / "hg38" / "scores.vcf.gz.tbi").unlink()
    assert violations(hub) == ["trackDb.txt: scores: no index"]


def test_trackhub_takes_every_setting(hub: Path) -> None:
    """The package of that name has its own table of settings and of their values."""
    constants = pytest.importorskip("trackhub.constants")
    checked = 0
    for stanza in stanzas(hub).values():
        for key, value in stanza.items():
            if key in constants.param_dict:
                assert constants.param_dict[key].validate(value), (key, value)
                checked += 1
    assert checked > 80


# --- names and labels --------------------------------------------------------------------------

AWKWARD = [
    "ENCFF123ABC_dnase_K562_rep1", "ENCFF123ABC_dnase_K562_rep2", "CAGE: B\u00e9ta\\",
    "cage: beta/", "DNASE:CD14+ monocyte, <b>adult</b>", "\u6771\u4eac", "9", "a\nb\tc", "x" * 300,
    "x" * 301,
]  # fmt: skip


def test_awkward_names_and_labels_keep_the_rules(tmp_path: Path) -> None:
    root = tmp_path / "hub"
    files = []
    for i in range(len(AWKWARD)):
        file = tmp_path / f"in put {i}.bw"
        with open_track(str(file), CONTIGS, force=False) as track:
            track.add("chr1", 0, np.ones(5))
        files.append(file)
    inside = root / "with space" / "100%.bw"
    inside.parent.mkdir(parents=True)
    inside.write_bytes(files[0].read_bytes())
    tracks = [HubTrack(x, str(file), x) for x, file in zip(AWKWARD, files, strict=True)]
    tracks.append(HubTrack("inside", "with space/100%.bw"))
    hub = write(root, tracks, short_label="An overlong label \u00fc", long_label="word " * 40)
    assert violations(hub) == []
    found = stanzas(hub)
    labels = [x["shortLabel"] for x in found.values()]
    assert len({x.lower() for x in labels}) == len(labels) == len(AWKWARD) + 1
    assert labels[:4] == ["ENCFF123..62_rep1", "ENCFF123..62_rep2", "CAGE: Beta/", "cage: beta/ 2"]
    assert found["inside"]["bigDataUrl"] == "../with%20space/100%25.bw"
    assert "<" not in "".join(x["longLabel"] for x in found.values())


# --- view limits -------------------------------------------------------------------------------


def bigwig(path: Path, values: Any, start: int = 0, span: int = 1) -> str:
    with open_track(str(path), {"a": 10, "chr1": 50_000_000, "z": 9}, force=False) as track:
        track.add("chr1", start, np.asarray(values, dtype=np.float64), span)
    return str(path)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([], (0, 1)),
        ([0, 0], (0, 1)),
        ([0.5] * 3, (0, 0.5)),
        ([-0.123], (-0.13, 0)),
        ([1.5, -2.25, np.nan, 7.13], (-2.3, 7.2)),
        ([1.04e-7], (0, 1.1e-7)),
        ([99.6], (0, 100)),
        ([3e38, -3e38], (-3e38, 3e38)),
    ],
)
def test_view_limits_by_hand(tmp_path: Path, values: list[float], wanted: Any) -> None:
    path = bigwig(tmp_path / "x.bw", values)
    assert view_limits(path) == pytest.approx(wanted, rel=1e-6)
    known = [np.float32(x) for x in values if not np.isnan(x)]
    assert data_range(path) == ((min(known), max(known)) if known else (0, 1))


@pytest.mark.parametrize(
    ("start", "size"), [(0, 100_000), (49_000_000, 100_000), (49_000_000, 4000)]
)
def test_view_limits_leave_out_few(tmp_path: Path, start: int, size: int) -> None:
    """A few peaks do not flatten the rest, wherever in the contig the values stand."""
    values = np.abs(np.random.default_rng(1).normal(size=size))
    values[[size // 20, size // 2]] = 1000
    low, high = view_limits(bigwig(tmp_path / "x.bw", values, start))
    assert low == 0
    assert np.quantile(values, 0.99) < high < 10


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "my hub"}, "name 'my hub'; UCSC wants a letter"),
        ({"name": "1"}, "name '1'"),
        ({"email": "me"}, "email 'me'; UCSC wants an address"),
        ({"email": "m\xe9@example.org"}, "UCSC wants an address"),
        ({"genome": "../x"}, r"genome '\.\./x'; UCSC wants"),
        ({"genome": "h g"}, "genome 'h g'"),
    ],
)
def test_words_are_refused(
    tmp_path: Path, hub_tracks: list[HubTrack], changes: dict[str, str], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        write(tmp_path / "other", hub_tracks, **changes)
    assert not (tmp_path / "other").exists()


NESTED = HubGroup("inner", kind="folder", parent=FOLDER)
COMPOSITE = HubGroup("mixed", kind="composite")
OVERLAY = HubGroup("drawn", kind="overlay")


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"file": "none.bw"}, InputError, r"none\.bw: no such file"),
        ({"file": "hub.html"}, InputError, r"a hub takes \.bw"),
        ({"group": NESTED}, UsageError, "only a folder holds groups"),
        ({"group": HubGroup("x", parent=COMPOSITE)}, UsageError, "only a folder holds groups"),
        ({"group": HubGroup("by variant")}, UsageError, "two groups named by variant"),
        ({"group": COMPOSITE}, UsageError, "mixed: a composite holds files of one kind"),
        ({"group": OVERLAY}, UsageError, "drawn: an overlay holds bigWigs"),
    ],
)
def test_tracks_are_refused(
    tmp_path: Path,
    hub_tracks: list[HubTrack],
    changes: dict[str, Any],
    error: type[GlmAnnotateError],
    said: str,
) -> None:
    scores = next(i for i, x in enumerate(hub_tracks) if x.name == "scores")
    hub_tracks[scores] = dataclasses.replace(hub_tracks[scores], **changes)
    if changes.get("group") is COMPOSITE:
        hub_tracks[0] = dataclasses.replace(hub_tracks[0], group=COMPOSITE)
    before = sorted(os.listdir(tmp_path / "hub" / "hg38"))
    with pytest.raises(error, match=said) as caught:
        write(tmp_path / "hub", hub_tracks)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path / "hub") == ["hg38"]
    assert sorted(os.listdir(tmp_path / "hub" / "hg38")) == before


def test_a_vcf_needs_its_index(tmp_path: Path, hub_tracks: list[HubTrack]) -> None:
    (tmp_path / "scores.vcf.gz.tbi").unlink()
    with pytest.raises(InputError, match="run: bcftools index -t"):
        write(tmp_path / "hub", hub_tracks)


def test_what_is_no_bigwig_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.bw").write_bytes(b"chr1 0 5 1.0\n")
    with pytest.raises(InputError, match="not a bigWig: it starts with"):
        write(tmp_path / "hub", [HubTrack("x", str(tmp_path / "x.bw"))])


@pytest.mark.parametrize("there", ["hub.txt", "genomes.txt", "hg38/trackDb.txt"])
def test_an_existing_hub_needs_force(
    tmp_path: Path, hub_tracks: list[HubTrack], there: str
) -> None:
    path = tmp_path / "hub" / there
    path.write_text("old")
    with pytest.raises(InputError, match=f"{re.escape(there)}: is there already; --force"):
        write(tmp_path / "hub", hub_tracks)
    assert path.read_text() == "old"
    assert violations(write(tmp_path / "hub", hub_tracks, force=True)) == []


def test_a_hub_needs_a_track(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one track"):
        write(tmp_path / "hub", [])
