"""Whole-genome alignments: the letters of other species beside the bases of the reference.

The format is that of GPN-MSA's authors: a zarr group, a folder or a zip of one, with one array a
contig, shape (bases, 1 + species), a letter of one byte each, the reference first. Positions are
read where windows need them, each one once. Decisions: codes are 0 for a gap and whatever else is
no base, then A 1, C 2, G 3, T 4, in either case; the first column has to be the FASTA's sequence,
since an alignment of another assembly gives numbers that look right.
"""

from __future__ import annotations

import logging
import warnings
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm_annotate.channels import GAP, Ints
from glm_annotate.errors import InputError, UsageError
from glm_annotate.genome import Genome, aliases, to_codes

logger = logging.getLogger(__name__)

# How many bases of a contig may differ from the FASTA, and how many must before it is a reason.
_MOST_WRONG, _AT_LEAST = 0.05, 5
_CODES = np.full(256, GAP, dtype=np.uint8)
for _code, _letter in enumerate("ACGT", start=1):
    _CODES[ord(_letter)] = _CODES[ord(_letter.lower())] = _code
# What zarr raises at files that are missing, cut off or something else.
_UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)


class Alignment:
    """An alignment on disk, see `channels.Source`.

    Args:
        path: Folder, or zip of one that zarr opens in place.
        genome: The reference.
        species: How many species the model reads beside the reference.

    Raises:
        UsageError: The zarr package is not installed.
        InputError: No alignment there, or one without any contig of the FASTA.
    """

    def __init__(self, path: str, genome: Genome, species: int) -> None:
        self.path, self._genome, self._species = path, genome, species
        self._group = _open(path)
        self._names = _names(path, self._group)
        self._arrays: dict[str, Any] = {}
        self._compared: Counter[str] = Counter()
        self._wrong: Counter[str] = Counter()
        if all(self._name(contig) is None for contig in genome.contigs):
            known = ", ".join(sorted(self._names)[:3]) or "none"
            raise InputError(
                f"{path}: it has no contig of {genome.path} (it has {known}, the FASTA "
                f"{', '.join(list(genome.contigs)[:3])}); name the alignment of this genome"
            )

    @property
    def label(self) -> str:
        """Name the file, without its folder."""
        return Path(self.path).name

    def holds(self, contig: str) -> bool:
        """Say whether a contig of the FASTA is aligned; one that is not is told of once.

        Raises:
            InputError: It has another length or number of species, or is no table of letters.
        """
        if contig not in self._arrays:
            name = self._name(contig)
            self._arrays[contig] = None if name is None else self._array(contig, name)
            if name is None:
                logger.warning(
                    "%s has no contig %s: alleles there get NO_SIGNAL", self.path, contig
                )
        return self._arrays[contig] is not None

    def read(self, contig: str, positions: Ints) -> NDArray[np.uint8]:
        """Read the codes of the other species, shape (m, species).

        Args:
            contig: A name of the FASTA that `holds` has said yes to.
            positions: 0-based, in ascending order, shape (m,).

        Raises:
            InputError: The file is damaged, or its first column is not the FASTA's sequence.
        """
        try:
            letters = np.asarray(self._arrays[contig].oindex[positions]).view(np.uint8)
        except _UNREADABLE as error:
            raise InputError(
                f"{self.path}: {contig} cannot be read: {_first(error)}; copy the alignment again"
            ) from error
        self._compare(contig, positions, letters[:, 0])
        return _CODES.take(letters[:, 1:])

    def _name(self, contig: str) -> str | None:
        return next((x for x in (contig, *aliases(contig)) if x in self._names), None)

    def _array(self, contig: str, name: str) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                array = self._group[name]
            shape, dtype = tuple(array.shape), np.dtype(array.dtype)
        except (*_UNREADABLE, AttributeError) as error:
            raise InputError(
                f"{self.path}: {name} cannot be read: {_first(error)}; copy the alignment again"
            ) from error
        if len(shape) != 2 or dtype.itemsize != 1 or dtype.kind not in "Su":
            raise InputError(
                f"{self.path}: {name} has shape {shape} and type {dtype}; wanted a letter of one "
                "byte (S1 or uint8) for each base and species"
            )
        if shape[1] != 1 + self._species:
            raise InputError(
                f"{self.path}: {name} has {shape[1]} columns, the model reads 1 + {self._species}: "
                "the reference and other species; name the alignment that the model is made for"
            )
        length = self._genome.contigs[contig]
        if shape[0] != length:
            raise InputError(
                f"{self.path}: {name} has {shape[0]:,} bases, {contig} of {self._genome.path} has "
                f"{length:,}: an alignment of another assembly; name the one of this FASTA"
            )
        return array

    def _compare(self, contig: str, positions: Ints, first: NDArray[np.uint8]) -> None:
        """Compare the first column with the FASTA, contig by contig as the run goes."""
        if not first.all():  # zarr fills with zeros what a folder lacks
            where = int(positions[int(first.argmin())]) + 1
            raise InputError(
                f"{self.path}: it holds nothing at {contig}:{where}, not even the reference: a "
                "copy that is not whole; copy the alignment again"
            )
        bases = self._genome.codes(contig)[positions]
        known = bases < 4
        self._compared[contig] += int(known.sum())
        self._wrong[contig] += int((known & (to_codes(first.tobytes()) != bases)).sum())
        compared, wrong = self._compared[contig], self._wrong[contig]
        if wrong >= _AT_LEAST and wrong > _MOST_WRONG * compared:
            raise InputError(
                f"{self.path}: {wrong} of {compared} bases of {contig} in its first column are not "
                f"those of {self._genome.path}: an alignment of another assembly; name the one of "
                "this FASTA"
            )


def _open(path: str) -> Any:
    try:
        import zarr
        from zarr.storage import ZipStore
    except ImportError as error:
        raise UsageError(
            "--msa needs the zarr package; run: pip install 'glm_annotate[msa]'"
        ) from error
    if not Path(path).exists():
        raise InputError(f"{path}: no such alignment; --msa takes a .zarr folder or .zarr.zip")
    try:
        store: Any = ZipStore(path, mode="r") if Path(path).is_file() else path
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return zarr.open_group(store, mode="r")
    except _UNREADABLE as error:
        raise InputError(
            f"{path}: not an alignment: {_first(error)}; --msa takes a zarr group with one array "
            "a contig, a .zarr folder or .zarr.zip"
        ) from error


def _names(path: str, group: Any) -> frozenset[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what else may lie in the folder
            return frozenset(group.keys())
    except _UNREADABLE as error:
        raise InputError(
            f"{path}: its contigs cannot be listed: {_first(error)}; copy the alignment again"
        ) from error


def _first(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
