"""Write what opens scored variants and tracks in a genome browser.

    python browser_files.py jbrowse -f REF.fa [--vcf SCORED.vcf.gz] [--tracks DIR] -o config.json
    python browser_files.py igv -f REF.fa [--vcf SCORED.vcf.gz] [--tracks DIR] -o session.xml

DIR is a folder that `glm-annotate tracks` has written. Paths are written relative to the output,
which therefore moves along with its files; web addresses stay as they are. Needs Python alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, NamedTuple

BASES = ("A", "C", "G", "T")
# Okabe and Ito's colours, which the colour-blind can tell apart; those of the UCSC hub.
BASE_COLOURS = {"A": "0,158,115", "C": "0,114,178", "G": "230,159,0", "T": "213,94,0"}
UP, DOWN = "0,114,178", "213,94,0"


class Signal(NamedTuple):
    """A bigWig, or the four of the bases, which are drawn over each other."""

    name: str
    group: tuple[str, ...]
    files: dict[str, str]  # by base, or under "" where it is one


class Scene(NamedTuple):
    """What is to be opened."""

    fasta: str
    assembly: str
    variants: list[str]
    signals: list[Signal]
    locus: str | None
    folder: Path  # of the output


def is_address(path: str) -> bool:
    """Whether it is on the web rather than a file."""
    return path.startswith(("http://", "https://"))


def find_signals(folder: str) -> list[Signal]:
    """Tracks under a folder of `glm-annotate tracks`, in the order of their names."""
    root = Path(folder)
    found = []
    for path in sorted(root.rglob("*.bw")):
        group = path.relative_to(root).parts[:-1]
        four = {base: str(path.with_name(f"{base}.bw")) for base in BASES}
        if path.stem in BASES and all(map(os.path.exists, four.values())):
            if path.stem == BASES[0]:
                found.append(Signal(" ".join(group), group, four))
            continue
        found.append(Signal(" ".join((*group, path.stem)), group, {"": str(path)}))
    if not found:
        sys.exit(f"{folder} has no bigWig: make them with `glm-annotate tracks ... -o {folder}`")
    return found


def place(path: str, folder: Path) -> str:
    """The path as the output in `folder` names it."""
    return path if is_address(path) else Path(os.path.relpath(path, folder)).as_posix()


def index_of(path: str, endings: tuple[str, ...]) -> str:
    """The index of a file: the one that is there, the first for a web address."""
    names = [path + ending for ending in endings]
    if is_address(path):
        return names[0]
    for name in names:
        if os.path.exists(name):
            return name
    sys.exit(f"{path} has no index ({' or '.join(endings)} behind its name)")


# --- JBrowse 2 ----------------------------------------------------------------------------------


def location(path: str, folder: Path) -> dict[str, str]:
    """How JBrowse says where a file is."""
    return {"uri": place(path, folder), "locationType": "UriLocation"}


def sequence_adapter(scene: Scene) -> dict[str, Any]:
    """The reference, plain or bgzipped."""
    fasta = scene.fasta
    adapter = {
        "type": "IndexedFastaAdapter",
        "fastaLocation": location(fasta, scene.folder),
        "faiLocation": location(index_of(fasta, (".fai",)), scene.folder),
    }
    if fasta.endswith(".gz"):
        adapter["type"] = "BgzipFastaAdapter"
        adapter["gziLocation"] = location(index_of(fasta, (".gzi",)), scene.folder)
    return adapter


def identifier(text: str) -> str:
    """An identifier of a track, made of its name."""
    return "".join(c if c.isalnum() else "_" for c in text)


def variant_track(path: str, scene: Scene) -> dict[str, Any]:
    """A scored VCF."""
    index = index_of(path, (".tbi", ".csi"))
    name = path.rsplit("/", 1)[-1]
    return {
        "type": "VariantTrack",
        "trackId": identifier(name),
        "name": name,
        "category": ["glm_annotate"],
        "assemblyNames": [scene.assembly],
        "adapter": {
            "type": "VcfTabixAdapter",
            "vcfGzLocation": location(path, scene.folder),
            "index": {
                "location": location(index, scene.folder),
                "indexType": index[-3:].upper(),
            },
        },
    }


def signal_track(signal: Signal, scene: Scene) -> dict[str, Any]:
    """A bigWig as bars below and above 0, or the four of the bases over each other."""
    track: dict[str, Any] = {
        "type": "QuantitativeTrack",
        "trackId": identifier(signal.name),
        "name": signal.name,
        "category": ["glm_annotate", *signal.group],
        "assemblyNames": [scene.assembly],
    }
    wigs = [
        {
            "type": "BigWigAdapter",
            "bigWigLocation": location(path, scene.folder),
            **(
                {"source": base, "name": base, "color": f"rgb({BASE_COLOURS[base]})"}
                if base
                else {}
            ),
        }
        for base, path in signal.files.items()
    ]
    if len(wigs) == 1:
        display = {
            "type": "LinearWiggleDisplay",
            "displayId": f"{track['trackId']}-display",
            "renderers": {
                "XYPlotRenderer": {
                    "type": "XYPlotRenderer",
                    "posColor": f"rgb({UP})",
                    "negColor": f"rgb({DOWN})",
                }
            },
        }
        return {**track, "adapter": wigs[0], "displays": [display]}
    track["type"] = "MultiQuantitativeTrack"
    return {**track, "adapter": {"type": "MultiWiggleAdapter", "subadapters": wigs}}


def jbrowse(scene: Scene) -> str:
    """The config.json of a JBrowse 2."""
    tracks = [variant_track(path, scene) for path in scene.variants]
    tracks += [signal_track(signal, scene) for signal in scene.signals]
    config: dict[str, Any] = {
        "assemblies": [
            {
                "name": scene.assembly,
                "sequence": {
                    "type": "ReferenceSequenceTrack",
                    "trackId": f"{identifier(scene.assembly)}-sequence",
                    "adapter": sequence_adapter(scene),
                },
            }
        ],
        "tracks": tracks,
    }
    if scene.locus:
        config["defaultSession"] = {
            "name": "glm_annotate",
            "views": [
                {
                    "id": "glm_view",
                    "type": "LinearGenomeView",
                    "init": {
                        "assembly": scene.assembly,
                        "loc": scene.locus,
                        "tracks": [x["trackId"] for x in tracks],
                    },
                }
            ],
        }
    return json.dumps(config, indent=2) + "\n"


# --- IGV ----------------------------------------------------------------------------------------


def igv(scene: Scene) -> str:
    """A session of IGV, on the desktop and of igv.js alike."""
    session = ET.Element("Session", genome=place(scene.fasta, scene.folder), version="8")
    session.set("locus", scene.locus or "All")
    resources = ET.SubElement(session, "Resources")
    for path in scene.variants:
        index = index_of(path, (".tbi", ".csi"))
        resource = {"path": place(path, scene.folder), "index": place(index, scene.folder)}
        ET.SubElement(resources, "Resource", {**resource, "type": "vcf"})
    for signal in scene.signals:
        for path in signal.files.values():
            ET.SubElement(resources, "Resource", path=place(path, scene.folder), type="bw")
    panel = ET.SubElement(session, "Panel", name="DataPanel")
    for path in scene.variants:
        name = path.rsplit("/", 1)[-1]
        ET.SubElement(
            panel,
            "Track",
            {
                "clazz": "org.broad.igv.variant.VariantTrack",
                "id": place(path, scene.folder),
                "name": name,
            },
        )
    for signal in scene.signals:
        parent = panel
        if len(signal.files) > 1:
            merged = {"clazz": "org.broad.igv.track.MergedTracks", "id": identifier(signal.name)}
            parent = ET.SubElement(
                panel, "Track", {**merged, "name": signal.name, "height": "80", "autoScale": "true"}
            )
        for base, path in signal.files.items():
            ET.SubElement(
                parent,
                "Track",
                {
                    "clazz": "org.broad.igv.track.DataSourceTrack",
                    "id": place(path, scene.folder),
                    "name": f"{signal.name} {base}".strip(),
                    "color": BASE_COLOURS.get(base, UP),
                    "altColor": BASE_COLOURS.get(base, DOWN),
                    "renderer": "BAR_CHART",
                    "height": "60",
                    "autoScale": "true",
                    "windowFunction": "mean",
                },
            )
    ET.indent(session)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(session, "unicode") + "\n"


def main() -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("browser", choices=["jbrowse", "igv"])
    parser.add_argument("-f", "--fasta", required=True, metavar="REF.fa", help="with its .fai")
    parser.add_argument("--vcf", action="append", default=[], help="bgzipped, with its index")
    parser.add_argument("--tracks", action="append", default=[], metavar="DIR")
    parser.add_argument("--assembly", help="its name; default: the name of REF.fa")
    parser.add_argument("--locus", help="what is shown first, such as chrM:3200-3300")
    parser.add_argument("-o", "--output", required=True)
    given = parser.parse_args()
    output = Path(given.output)
    for path in (given.fasta, *given.vcf):
        if not is_address(path) and not os.path.exists(path):
            sys.exit(f"{path} is not there")
    name = Path(given.fasta).name.removesuffix(".gz")
    scene = Scene(
        fasta=given.fasta,
        assembly=given.assembly or name.rsplit(".", 1)[0],
        variants=given.vcf,
        signals=[signal for folder in given.tracks for signal in find_signals(folder)],
        locus=given.locus,
        folder=output.resolve().parent,
    )
    index_of(scene.fasta, (".fai",))
    write = {"jbrowse": jbrowse, "igv": igv}[given.browser]
    output.write_text(write(scene), encoding="utf-8")


if __name__ == "__main__":
    main()
