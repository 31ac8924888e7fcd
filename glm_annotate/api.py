"""Scores for notebooks and programs: variants of any kind in, a table of their alleles out.

`score` is `glm-annotate vcf --tsv` without a file: the same reading, passes and rounding, so that
both give the same numbers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from glm_annotate.annotate import score_chunks
from glm_annotate.assembly import look_ahead
from glm_annotate.bundle import Bundle
from glm_annotate.chunks import COLUMNS, Chunk, parse
from glm_annotate.errors import InputError, UsageError
from glm_annotate.fields import FieldWriter, columns_of, extras_of, numbers_in, status_key
from glm_annotate.genome import Genome
from glm_annotate.model import Model
from glm_annotate.opening import open_models
from glm_annotate.records import VariantInput, open_input
from glm_annotate.run_setup import Setup
from glm_annotate.runtime import parse_device
from glm_annotate.track_choice import TrackChoice

if TYPE_CHECKING:
    import pandas as pd

Path = str | os.PathLike[str]
Allele = str | tuple[str, int, str, str]
Models = Path | Bundle | Sequence[Path | Bundle] | Mapping[str, Path | Bundle]

SITE = ("chrom", "pos", "id", "ref", "alt")
_TEXT = re.compile(r"(\S+):(\d+):([A-Za-z]+):(\S+)")
_WORD = re.compile(r"\S+")
_HEADER = (b"##fileformat=VCFv4.3", COLUMNS)
_BLOCK = 1 << 14  # records that are turned into text at a time


def score(
    variants: Path | pd.DataFrame | Iterable[Allele],
    genome: Path,
    models: Models,
    scores: str | Sequence[str] | None = None,
    *,
    device: str = "auto",
    threads: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    precision: Literal["fp32", "tf32"] = "fp32",
    strand: Literal["both", "forward"] | None = None,
    mode: Literal["exact", "dense"] = "exact",
    circular: Sequence[str] | None = None,
    contig_map: Mapping[str, str] | None = None,
    msa: Path | None = None,
    gtf: Path | None = None,
    signals: Mapping[str, Path] | None = None,
    tracks: TrackChoice | None = None,
    ignore_scope: bool = False,
    calibration: bool = True,
    allow_ref_mismatch: bool = False,
) -> pd.DataFrame:
    """Score the ALT alleles of variants.

    Args:
        variants: Path of a VCF, BCF or table; `chr:pos:ref:alt`; a list of such texts or of tuples
            (chrom, pos, ref, alt); or a DataFrame with these columns, and `id` if need be. `pos` is
            1-based as in VCF, several ALTs are joined by commas.
        genome: The reference FASTA.
        models: One bundle or several: folder or .zip, shipped name, `hf://owner/repo`, or what
            `load_bundle` gave; a mapping gives each a tag of its own.
        scores: As after -s; None: those of the models' cards.
        device: As after --device, and so on for the other options of `glm-annotate vcf`.
        threads: Of ONNX Runtime on the CPU; 0: all cores.
        batch_size: Forward passes in a batch.
        precision: Of matrix products on CUDA.
        strand: None: the card's.
        mode: `dense`: many sites a pass, where scores can be read so.
        circular: Contigs that wrap around; None: those of the models.
        contig_map: FASTA names by names in the variants, where aliases do not cover them.
        msa: Alignment, for models that read one.
        gtf: Genes, for models and scores that read them.
        signals: bigWigs by name of the signal, for models that read some.
        tracks: Which tracks are read, of models of tracks.
        ignore_scope: Score contigs that a model is not meant for.
        calibration: Compare scores with the background of a bundle that has one.
        allow_ref_mismatch: Go on where the FASTA looks like another assembly.

    Returns:
        One row an ALT, in order: chrom, pos, id, ref, alt and the INFO keys of a VCF: numbers as
        float64 (positions as nullable integers), names and `TAG_STATUS` as text. What is missing
        is what pandas calls so.

    Raises:
        InputError: A variant or the reference cannot be used.
        BundleError: The same of a model.
        UsageError: Options contradict each other or name something unknown.
    """
    setup = Setup(
        fasta=os.fspath(genome),
        models=_model_texts(models),
        scores=(scores,) if isinstance(scores, str) else tuple(scores or ()),
        circular=None if circular is None else tuple(circular),
        strand=strand,
        msa=None if msa is None else os.fspath(msa),
        gtf=None if gtf is None else os.fspath(gtf),
        signals={name: os.fspath(path) for name, path in (signals or {}).items()},
        tracks=tracks,
        runtime=parse_device(
            device,
            threads=threads,
            batch=0 if batch_size == "auto" else batch_size,
            tf32=precision == "tf32",
        ),
        threads=threads,
        mode=mode,
        ignore_scope=ignore_scope,
        calibrated=calibration,
    )
    return _table(variants, setup, dict(contig_map or {}), allow_ref_mismatch)


def _table(
    variants: Path | pd.DataFrame | Iterable[Allele],
    setup: Setup,
    contig_map: dict[str, str],
    allow_mismatch: bool,
) -> pd.DataFrame:
    reference = Genome(setup.fasta)
    opened = open_models(setup, reference)
    fields = FieldWriter(opened)
    sites: list[tuple[bytes, ...]] = []
    cells: list[list[bytes]] = [[] for _ in fields.keys]
    with _open(variants, setup.threads) as source:
        annotator, works = look_ahead(
            reference, opened, source, contig_map=contig_map, allow_mismatch=allow_mismatch
        )
        for scored in score_chunks(annotator, works):
            sites += fields.sites(scored)
            for cell, column in zip(cells, fields.columns(scored), strict=True):
                cell += column
    return _frame(sites, dict(zip(fields.keys, cells, strict=True)), opened)


def _frame(
    sites: Sequence[tuple[bytes, ...]],
    cells: Mapping[str, Sequence[bytes]],
    models: Sequence[Model],
) -> pd.DataFrame:
    import pandas as pd

    columns = dict(zip(SITE, zip(*sites, strict=True), strict=True)) if sites else {}
    found: dict[str, Any] = {
        name: np.array(columns.get(name, ()), dtype=np.int64)
        if name == "pos"
        else pd.Series([x.decode() for x in columns.get(name, ())], dtype=object)
        for name in SITE
    }
    kinds = _kinds(models)
    for key, texts in cells.items():
        if kinds[key] == "Float":
            found[key] = numbers_in(texts) if texts else np.zeros(0)
            continue
        known = [None if x == b"." else x.decode() for x in texts]
        if kinds[key] == "Integer":
            wholes = [None if x is None else int(x) for x in known]
            found[key] = pd.Series(wholes, dtype="Int64")
        else:
            found[key] = pd.Series(known, dtype=object)
    return pd.DataFrame(found)


def _kinds(models: Iterable[Model]) -> dict[str, str]:
    """Give the Type of each INFO key."""
    kinds: dict[str, str] = {}
    for model in models:
        kinds |= {column.key: column.kind for column in columns_of(model)}
        kinds |= dict.fromkeys((extra.key for extra in extras_of(model)), "Float")
        kinds[status_key(model)] = "String"
    return kinds


def _model_texts(models: Models) -> tuple[str, ...]:
    """Write models as after -m."""
    if isinstance(models, Mapping):
        wrong = next((tag for tag in models if not re.fullmatch(r"[A-Z][A-Z0-9]*", tag)), None)
        if wrong is not None:
            raise UsageError(
                f"models: tag {wrong!r}; a tag is capitals and digits, a capital first"
            )
        return tuple(f"{tag}={_model_text(model)}" for tag, model in models.items())
    if isinstance(models, str | os.PathLike | Bundle):
        models = (models,)
    return tuple(map(_model_text, models))


def _model_text(model: Path | Bundle) -> str:
    return str(model.path) if isinstance(model, Bundle) else os.fspath(model)


# --- variants ------------------------------------------------------------------------------------


def _open(variants: Path | pd.DataFrame | Iterable[Allele], threads: int) -> VariantInput:
    import pandas as pd

    if isinstance(variants, str | os.PathLike):
        return open_input(os.fspath(variants), threads=threads)
    rows = _of_frame(variants) if isinstance(variants, pd.DataFrame) else _of_list(variants)
    return VariantInput("variants", "tsv", _HEADER, b"\n", _blocks(rows))


def _of_frame(frame: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    """Give chrom, pos, id, ref and alt of each row."""
    names = {str(name).lower().removeprefix("#"): name for name in frame.columns}
    absent = [name for name in SITE if name not in names and name != "id"]
    if absent:
        raise InputError(
            f"variants: no column {absent[0]!r}; a table has chrom, pos, ref and alt, it has "
            f"{', '.join(map(str, frame.columns))}"
        )
    ids = frame[names["id"]].fillna(".") if "id" in names else ["."] * len(frame)
    chrom, pos, ref, alt = (frame[names[name]] for name in SITE if name != "id")
    return zip(chrom, pos, ids, ref, alt, strict=True)


def _of_list(variants: Iterable[Allele]) -> Iterator[tuple[Any, ...]]:
    for number, variant in enumerate(variants, start=1):
        parts: tuple[Any, ...] = ()
        if isinstance(variant, str):
            found = _TEXT.fullmatch(variant)
            parts = found.groups() if found else ()
        elif isinstance(variant, tuple | list):
            parts = tuple(variant)
        if len(parts) != 4:
            raise InputError(
                f"variants: number {number} is {variant!r}; a variant is 'chr:pos:ref:alt', or the "
                "tuple (chrom, pos, ref, alt)"
            )
        chrom, pos, ref, alt = parts
        yield chrom, pos, ".", ref, alt


def _blocks(rows: Iterator[tuple[Any, ...]]) -> Iterator[Chunk]:
    lines: list[bytes] = []
    number = 1
    for i, row in enumerate(rows, start=1):
        lines.append(_line(i, row))
        if len(lines) == _BLOCK:
            yield parse("variants", "record", b"".join(lines), number)
            lines, number = [], i + 1
    if lines:
        yield parse("variants", "record", b"".join(lines), number)


def _line(number: int, row: tuple[Any, ...]) -> bytes:
    """Write a variant as a record."""
    chrom, pos, name, ref, alt = row
    if isinstance(chrom, int | np.integer):  # as tables of 1 to 22 are read
        chrom = str(chrom)
    texts = [x for x in (chrom, name, ref, alt) if isinstance(x, str) and _WORD.fullmatch(x)]
    place = str(pos)
    if len(texts) < 4 or not (place.isascii() and place.isdigit()):
        shown = ":".join(map(str, (chrom, pos, ref, alt)))
        raise InputError(
            f"variants: number {number} is {shown!r}; chrom, ref and alt are words (so is id), and "
            "pos is a whole number from 0 up"
        )
    chrom, name, ref, alt = texts
    return f"{chrom}\t{place}\t{name}\t{ref}\t{alt}\t.\t.\t.\n".encode()
