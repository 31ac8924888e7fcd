"""An annotated VCF in, one page out: a file that any browser opens without a network.

Decisions: the page holds its data as one JSON block and builds everything from it as text, never as
markup; its policy (CSP) runs only the scripts whose digests it names and lets nothing leave; igv.js
and Tabulator are inlined as published, their files checked against `versions.json`.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from glm_annotate import __version__
from glm_annotate.errors import InputError
from glm_annotate.report_data import Allele, Annotated, read_annotated, shortened
from glm_annotate.report_histograms import Histogram
from glm_annotate.report_places import (
    BASES,
    MOST_BINS,
    MOST_TRACKS,
    Mutagenesis,
    Signal,
    Stretch,
    genes_at,
    read_bases,
    read_genes,
    read_mutagenesis,
    read_signals,
    read_track_index,
    site_of,
)

logger = logging.getLogger(__name__)

ASSETS = Path(__file__).resolve().parent / "report_assets"
MOST_VARIANTS, MOST_TRACKED, MOST_INFO = 5_000, 50, 400
_SOURCE_MAP = re.compile(r"\n?(?://|/\*)# sourceMappingURL=\S+(?: ?\*/)?\s*$")
# What would end or nest a block of script; JSON may spell these letters as escapes.
_ESCAPES = {ord(x): f"\\u{ord(x):04x}" for x in "<>&"}
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Extras:
    """What a report shows beside the VCF; all of it may be missing.

    Attributes:
        fasta: The reference.
        genes: GTF or GFF3.
        tracks: Folder of `glm-annotate tracks -k ref,alt,delta`.
        mutagenesis: Folder TAG/ism of `glm-annotate tracks -k ism`.
    """

    fasta: str | None = None
    genes: str | None = None
    tracks: str | None = None
    mutagenesis: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A page, and how many of the file's alleles it shows."""

    page: bytes
    shown: int
    alleles: int


def make_report(
    source: str,
    extras: Extras = Extras(),
    *,
    most: int = MOST_VARIANTS,
    title: str | None = None,
) -> Report:
    """Make the page of an annotated VCF.

    Args:
        source: VCF or BCF of `glm-annotate vcf`, "-" for stdin.
        extras: Further files.
        most: Alleles in the table at most, those of the largest absolute score.
        title: Heading of the page.

    Raises:
        InputError: A file cannot be read or is not what it should be.
    """
    file = read_annotated(source, most)
    data = page_data(file, extras, title or f"Variant scores of {file.source}")
    return Report(_page(data), len(file.rows), file.alleles)


# --- the data --------------------------------------------------------------------------------


def page_data(file: Annotated, extras: Extras, title: str) -> Json:
    """Gather what the page holds, as values that JSON knows."""
    ranked = sorted(file.rows, key=lambda allele: (-allele.rank, allele.order))
    notes: list[str] = []
    if file.alleles > len(file.rows):
        notes.append(
            f"The table holds the {len(file.rows):,} alleles of the largest absolute score of "
            f"{file.alleles:,}; counts and distributions are of all. --max-variants N holds more."
        )
    stretches, lengths = _bases(file.rows, extras.fasta)
    genes, gene_names = _genes(file.rows, extras.genes, notes)
    contigs = _contigs(file, lengths, stretches)
    numbers = {name: i for i, name in enumerate(contigs)}
    return {
        "title": title,
        "source": file.source,
        "version": __version__,
        "reference": Path(extras.fasta).name if extras.fasta else None,
        "notes": [list(x) for x in file.notes],
        "models": [{"tag": x.tag, "fields": x.fields} for x in file.models],
        "counts": {
            "records": file.records, "alleles": file.alleles, "withoutAlt": file.without_alt,
            "scored": file.scored, "rows": len(file.rows),
        },
        "columns": [
            {
                "key": x.key, "tag": x.tag, "number": x.is_number, "ofTrack": x.of_track,
                "about": x.description,
            }
            for x in file.columns
        ],
        "tags": list(file.tags),
        "statuses": {
            tag: [[x.word, x.count, x.meaning] for x in found]
            for tag, found in file.statuses.items()
        },
        "histograms": {key: _histogram(x) for key, x in file.histograms.items()},
        "contigs": [
            {"name": shortened(name), "igv": safe, "length": length}
            for (name, length), safe in zip(contigs.items(), _safe_names(contigs), strict=True)
        ],
        "rows": [
            [
                numbers[x.chrom], x.pos, *map(shortened, (x.name, x.ref, x.alt)), len(x.ref),
                shortened(x.filter), shortened(x.info, MOST_INFO), gene, list(x.values),
                list(x.statuses),
            ]
            for x, gene in zip(file.rows, gene_names, strict=True)
        ],
        "hasGenes": bool(extras.genes),
        "bases": [[numbers[x.contig], x.start, x.bases] for x in stretches],
        "genes": [[numbers[contig], *gene] for contig, *gene in genes],
        "tracks": _tracks(file.rows, ranked, extras.tracks, notes),
        "ism": _mutagenesis(ranked, numbers, extras.mutagenesis, notes),
        "leftOut": notes,
        "packages": _packages(),
    }  # fmt: skip


def _bases(rows: Sequence[Allele], fasta: str | None) -> tuple[list[Stretch], dict[str, int]]:
    from glm_annotate.genome import Genome

    return read_bases(rows, Genome(fasta) if fasta else None)


def _genes(
    rows: Sequence[Allele], path: str | None, notes: list[str]
) -> tuple[list[list[Any]], list[str]]:
    if path is None:
        return [], [""] * len(rows)
    from glm_annotate.gene_files import read_gene_models

    models = read_gene_models(path)
    genes, left_out = read_genes(rows, models)
    if left_out:
        notes.append(f"{left_out:,} more genes lie near the alleles than the browser shows.")
    found = [
        [contig, x.start, x.end, x.name or x.gene_id, x.strand, x.exons.tolist()]
        for contig, x in genes
    ]
    return found, [genes_at(allele, models) for allele in rows]


def _contigs(
    file: Annotated, lengths: Mapping[str, int], stretches: Iterable[Stretch]
) -> dict[str, int]:
    """Give the contigs of the rows and their lengths, at least as long as what is shown of them."""
    found = {x.chrom: 0 for x in file.rows}
    for x in stretches:
        found[x.contig] = max(found[x.contig], x.start + len(x.bases))
    for allele in file.rows:
        found[allele.chrom] = max(found[allele.chrom], allele.pos + len(allele.ref))
    return {
        name: lengths.get(name) or max(least, file.contigs.get(name, 0))
        for name, least in found.items()
    }


def _safe_names(names: Iterable[str]) -> list[str]:
    """Spell contigs so that igv.js reads them: no colon, space or markup, all distinct."""
    found: list[str] = []
    for name in names:
        safe = re.sub(r"[^A-Za-z0-9_.|-]", "_", name)
        safe = f"{safe}_" if safe.lower() in ("", "all") else safe
        while safe in found:
            safe += "_"
        found.append(safe)
    return found


def _histogram(x: Histogram) -> Json:
    return {
        "low": x.low, "high": x.high, "counts": list(x.counts), "below": x.below, "above": x.above,
    }  # fmt: skip


def _tracks(
    rows: Sequence[Allele], ranked: Sequence[Allele], folder: str | None, notes: list[str]
) -> dict[str, list[list[Any]]] | None:
    """Give the tracks of the highest ranked alleles, by the number of their row."""
    if folder is None:
        return None
    files = read_track_index(Path(folder))
    places = {id(allele): i for i, allele in enumerate(rows)}
    with_files = [x for x in ranked if site_of(x) in files]
    found, fewer = {}, 0
    for allele in with_files[:MOST_TRACKED]:
        signals, left_out = read_signals(allele, files[site_of(allele)])
        fewer += left_out > 0
        if signals:
            found[str(places[id(allele)])] = [_signal(x) for x in signals]
    notes.append(
        f"Tracks are held for {len(found):,} alleles, those of the largest absolute score, of "
        f"{len(with_files):,} that have some; a track has {MOST_BINS} bins at most (REF and ALT: "
        "means, change: the largest)."
    )
    if fewer:
        notes.append(f"Of more than {MOST_TRACKS} tracks an allele, those that change most.")
    return found


def _signal(x: Signal) -> list[Any]:
    return [x.track, x.kind, x.start, x.step, [_short(v) for v in x.values.tolist()]]


def _short(value: float) -> float | None:
    """Round to four digits; None for what JSON cannot hold."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _mutagenesis(
    ranked: Sequence[Allele], numbers: Mapping[str, int], folder: str | None, notes: list[str]
) -> list[list[Any]] | None:
    if folder is None:
        return None
    found, left_out = read_mutagenesis(ranked, Path(folder))
    if left_out:
        notes.append(f"Saturation mutagenesis is left out around {left_out:,} alleles.")
    return [_effects(x, numbers[x.contig]) for x in found]


def _effects(x: Mutagenesis, contig: int) -> list[Any]:
    columns = [[_short(v) for v in x.effects[:, i].tolist()] for i in range(len(BASES))]
    return [contig, x.start, columns]


# --- the page --------------------------------------------------------------------------------


def as_script_data(data: object) -> str:
    """Write JSON that may stand in a block of script: no markup in it, ASCII alone."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.translate(_ESCAPES)


def _page(data: Json) -> bytes:
    scripts = {
        name: _asset(file)
        for name, file in (
            ("table", "tabulator.min.js"), ("browser", "igv.min.js"), ("page", "report.js"),
        )
    }  # fmt: skip
    sources = " ".join(f"'sha256-{_digest(text)}'" for text in scripts.values())
    policy = (
        f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; "
        "img-src data: blob:; font-src data:; connect-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    text = Template(_asset("template.html")).substitute(
        {f"{name}_script": text for name, text in scripts.items()},
        policy=html.escape(policy, quote=False),
        title=html.escape(data["title"]),
        table_style=_asset("tabulator.min.css"),
        page_style=_asset("report.css"),
        data=as_script_data(data),
    )
    return text.encode("utf-8", "replace")


def _asset(name: str) -> str:
    """Read a file that is inlined, without the address of its source map."""
    path = ASSETS / name
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}; a part of the package is missing; run: pip install "
            "--force-reinstall glm_annotate"
        ) from error
    return _SOURCE_MAP.sub("\n", text)


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _packages() -> list[Json]:
    listed = json.loads(_asset("versions.json"))
    return [
        {
            "title": x["title"], "version": x["version"], "licence": x["licence"],
            "copyright": x["copyright"], "contains": x["contains"],
            "text": _asset(x["licence_file"]),
        }
        for x in listed.values()
    ]  # fmt: skip
