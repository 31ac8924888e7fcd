"""Whose scores a file of `--from` holds and how they were made: its header against this run.

Only a file of glm-annotate says so. What does not change numbers (names, versions, devices, other
scores) may differ; all else may not, also what later versions add to these lines.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

from glm_annotate import __version__
from glm_annotate.annotate import Model
from glm_annotate.assembly import header_contigs
from glm_annotate.errors import InputError
from glm_annotate.fields import info_lines, model_lines, status_key
from glm_annotate.genome import Genome
from glm_annotate.header import Header, fields_of
from glm_annotate.score_files import ScoreFile

logger = logging.getLogger(__name__)

# FASTA name of a contig to the names that a file has for it.
Contigs = Mapping[str, Sequence[str]]
_Fields = dict[bytes, bytes]

_LINE = b"glm_annotateModel"
# Other devices differ by rounding alone; the digest and the contigs that wrap have their own words.
_FREE = frozenset((b"ID", b"Name", b"Version", b"Scores", b"Device", b"ConvAlgoSearch", b"Genes"))
_APART = frozenset((b"Sha256", b"Circular"))
_USUAL = {b"TF32": b"0"}  # said of CUDA only
_MEND = "give this run the options of that one, or leave --from out"


def usable_models(
    file: ScoreFile, contigs: Contigs, models: Sequence[Model], genome: Genome, *, tf32: bool
) -> list[Model]:
    """List the models of a run whose scores can be taken from a file, and tell of the others.

    Args:
        file: What was named with --from.
        contigs: Of the file: those that are read.
        models: Of the run.
        genome: The reference of the run.
        tf32: Whether the run's matrix products are rounded so.

    Raises:
        InputError: The file is not of glm-annotate, or its scores with the tag of a model were made
            by another one, or in another way.
    """
    made = list(_structured(file.header, _LINE))
    if not made:
        raise InputError(
            f"--from {file.name}: not written by glm-annotate: its header has no line "
            "##glm_annotateModel; name an output of glm-annotate vcf"
        )
    declared = {fields.get(b"ID", b""): fields for fields in _structured(file.header, b"INFO")}
    found = []
    for model in models:
        theirs = [fields for fields in made if fields.get(b"ID") == model.tag.lower().encode()]
        if not theirs:
            known = ", ".join(_text(fields.get(b"ID", b"?")).upper() for fields in made)
            logger.info("%s: has scores of %s only: those of %s are computed", file.name, known,
                        model.tag)  # fmt: skip
            continue
        for fields in theirs:
            _check_model(file.name, model, fields)
            _check_way(file.name, model, fields, tf32)
            _check_circular(file, contigs, model, fields, genome)
        if _has_keys(file.name, model, declared, theirs[0]):
            found.append(model)
    return found


def readable_contigs(file: ScoreFile, genome: Genome, contig_map: dict[str, str]) -> Contigs:
    """Find the contigs of a file that the FASTA has too.

    One of another length is not read where the FASTA has it under another name (hg19's chrM is not
    rCRS).

    Raises:
        InputError: A contig of the same name has another length.
    """
    lengths = header_contigs(file.header)
    out: dict[str, list[str]] = {}
    for name in file.contigs:
        found, length = genome.resolve(name, contig_map), lengths.get(name)
        if found is None:
            continue
        if length in (None, genome.contigs[found]):
            out.setdefault(found, []).append(name)
        elif file.has_records(name):
            if name == found:
                raise InputError(
                    f"--from {file.name}: its header says that {name} has {length:,} bases, "
                    f"{genome.path} has {genome.contigs[found]:,}: another assembly; name scores "
                    "made with this FASTA, or leave --from out"
                )
            logger.warning(
                "%s has %d bases in the header of %s and %d in the FASTA: nothing is taken there",
                name, length, file.name, genome.contigs[found],
            )  # fmt: skip
    return out


def _structured(header: Header, name: bytes) -> Iterator[_Fields]:
    """Give the fields of all lines `##NAME=<...>`."""
    for line in header:
        parsed = fields_of(line) if line.startswith(b"##" + name) else None
        if parsed is not None and parsed[0] == name:
            yield parsed[1]


def _check_model(name: str, model: Model, theirs: _Fields) -> None:
    """Compare the digests.

    Raises:
        InputError: It is another model.
    """
    digest, card = _text(theirs.get(b"Sha256", b"none")), model.bundle.card
    if digest == model.bundle.digest:
        return
    other = " ".join(_text(theirs.get(key, b"?")) for key in (b"Name", b"Version"))
    raise InputError(
        f"--from {name}: its {model.tag} scores are of {other} with the digest {digest[:12]}, and "
        f"{model.tag} of this run is {card.name} {card.version} with the digest "
        f"{model.bundle.digest[:12]}; give that model with -m, or this one another tag (-m "
        "NEWTAG=MODEL), or leave --from out"
    )


def _check_way(name: str, model: Model, theirs: _Fields, tf32: bool) -> None:
    """Compare all that the line of a model says of how its scores are made.

    Raises:
        InputError: Something differs.
    """
    ours = next(_structured(tuple(model_lines([model], tf32)), _LINE))
    for key in dict.fromkeys((*ours, *theirs)):
        mine, other = (fields.get(key, _USUAL.get(key, b"none")) for fields in (ours, theirs))
        if key not in _FREE | _APART and mine != other:
            raise InputError(
                f"--from {name}: its {model.tag} scores were made with {_text(key)} "
                f"{_text(other)}, this run has {_text(mine)}; {_MEND}"
            )


def _check_circular(
    file: ScoreFile, contigs: Contigs, model: Model, theirs: _Fields, genome: Genome
) -> None:
    """Compare which contigs wrap around, of those that the file has records of.

    Raises:
        InputError: One does in one of the runs only.
    """
    listed = _text(theirs.get(b"Circular", b"")).split(",")
    wrap = {genome.resolve(name) for name in listed}
    for contig, names in contigs.items():
        here = contig in model.circular
        if here != (contig in wrap) and any(file.has_records(name) for name in names):
            ways = ("circular", "linear") if here else ("linear", "circular")
            raise InputError(
                f"--from {file.name}: its {model.tag} scores were made with {contig} as a "
                f"{ways[1]} contig, in this run it is {ways[0]}; {_MEND}, with --circular"
            )


def _has_keys(name: str, model: Model, declared: Mapping[bytes, _Fields], theirs: _Fields) -> bool:
    """Tell whether a file has all INFO keys of a model.

    Raises:
        InputError: One of them is something else than in this run.
    """
    # What is said of numbers beside a background is made anew of any run.
    declaring = tuple(info_lines([model], __version__, calibrated=False))
    ours = {x[b"ID"]: x for x in _structured(declaring, b"INFO")}
    missing = next((key for key in ours if key not in declared), None)
    if missing is not None:
        logger.info("%s: has no %s: all scores of %s are computed", name, _text(missing),
                    model.tag)  # fmt: skip
        return False
    me = next(_structured(tuple(model_lines([model], False)), _LINE))
    for key, fields in ours.items():
        mine, other = _meaning(fields, me), _meaning(declared[key], theirs)
        if mine != other and _text(key) != status_key(model):
            raise InputError(
                f"--from {name}: its {_text(key)} is {_text(other)!r}, that of this run is "
                f"{_text(mine)!r}; {_MEND}"
            )
    return True


def _meaning(declared: _Fields, model: _Fields) -> bytes:
    """Say what an INFO key is, without the name and version of its model."""
    kind = b"%b %b" % (declared.get(b"Number", b"?"), declared.get(b"Type", b"?"))
    named = b"; model %b %b, " % (model.get(b"Name", b""), model.get(b"Version", b""))
    return kind + b": " + declared.get(b"Description", b"").replace(named, b"; ")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
