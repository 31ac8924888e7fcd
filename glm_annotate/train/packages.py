"""Weights inside a package that the user has: installed, or as a wheel file.

Nothing of the package is imported, so that none of what it asks for (TensorFlow, an old Keras) has
to be there, and none of its code runs. Files are compared with the digests in its RECORD.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.parser import HeaderParser
from importlib import metadata
from pathlib import Path, PurePosixPath

from glm_annotate.errors import InputError

# Larger than any model in a package, small enough to be held in memory.
_LARGEST = 2 << 30
_LICENCE_KEYS = ("License-Expression", "License")


@dataclass(frozen=True, slots=True)
class Package:
    """A Python package on disk.

    Attributes:
        name: Of the distribution, normalised: small letters, `-` for `_` and `.`.
        version: As its metadata gives it.
        licence: What its metadata says of it, for messages; "" for nothing.
        place: How messages call it: the wheel, or name and version.
        digests: Members, paths with `/`, and their sha256 in RECORD, hex; "" where it gives none.
        open: Reads a member.
    """

    name: str
    version: str
    licence: str
    place: str
    digests: Mapping[str, str]
    open: Callable[[str], bytes]

    def read(self, member: str) -> bytes:
        """Read a member, and compare it with its digest.

        Raises:
            InputError: It is not there, cannot be read, or was changed.
        """
        if member not in self.digests:
            raise InputError(
                f"{self.place}: holds no {member}; install a version that does, or give the wheel"
            )
        data = self.open(member)
        wanted = self.digests[member]
        if wanted and hashlib.sha256(data).hexdigest() != wanted:
            raise InputError(
                f"{self.place}: {member} is not the file that its RECORD names: damaged or "
                f"changed; run: pip install --force-reinstall --no-deps {self.name}=={self.version}"
            )
        return data


def open_package(name: str, wheel: str | Path | None = None) -> Package:
    """Find a package.

    Args:
        name: Of the distribution.
        wheel: A wheel of it, in place of the installed one.

    Raises:
        InputError: It is not installed; the wheel is damaged, or one of another package.
    """
    if wheel is not None:
        package = open_wheel(wheel)
        if package.name != normalise(name):
            raise InputError(f"{wheel}: a wheel of {package.name}, wanted one of {name}")
        return package
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise InputError(
            f"{name}: the package is not installed; run: pip install --no-deps {name}, or: "
            f"pip download --no-deps {name} and give the wheel"
        ) from error
    paths = {x.as_posix(): x for x in found.files or ()}
    digests = {
        key: _hex(x.hash.value) if x.hash is not None and x.hash.mode == "sha256" else ""
        for key, x in paths.items()
    }
    place = f"{name} {found.version}"

    def read(member: str) -> bytes:
        return _read(Path(str(found.locate_file(member))), place)

    values = {x: found.metadata[x] for x in _LICENCE_KEYS if x in found.metadata}
    return Package(normalise(name), found.version, _licence(values), place, digests, read)


def open_wheel(path: str | Path) -> Package:
    """Open a wheel file.

    Raises:
        InputError: It cannot be read, or is no wheel.
    """
    place = str(path)
    names = _names(place)
    info = {PurePosixPath(x).parts[0] for x in names if ".dist-info/" in x}
    if len(info) != 1:
        raise InputError(f"{place}: not a wheel: wanted one .dist-info folder; download it again")
    (folder,) = info

    def read(member: str) -> bytes:
        return _member(place, member)

    try:
        values = HeaderParser().parsestr(read(f"{folder}/METADATA").decode())
        record = list(csv.reader(io.StringIO(read(f"{folder}/RECORD").decode())))
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: a damaged wheel ({error}); download it again") from error
    listed = {row[0]: row[1] for row in record if len(row) >= 2}
    digests = {x: _hex(listed.get(x, "").removeprefix("sha256=")) for x in names}
    name, version = values.get("Name", ""), values.get("Version", "")
    licence = _licence(dict(values.items()))
    return Package(normalise(name), version, licence, place, digests, read)


def normalise(name: str) -> str:
    """Write a distribution's name as package indexes do."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _names(place: str) -> list[str]:
    try:
        with zipfile.ZipFile(place) as archive:
            return [x for x in archive.namelist() if not x.endswith("/")]
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{place}: not a wheel ({error}); download it again") from error


def _member(place: str, member: str) -> bytes:
    try:
        with zipfile.ZipFile(place) as archive:
            size = archive.getinfo(member).file_size
            if size > _LARGEST:
                raise InputError(f"{place}: {member} has {size} bytes, allowed are {_LARGEST}")
            return archive.read(member)
    except KeyError as error:
        raise InputError(f"{place}: not a wheel: it holds no {member}") from error
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise InputError(f"{place}: a damaged wheel ({error}); download it again") from error


def _read(path: Path, place: str) -> bytes:
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path}: larger than any model of a package; reinstall {place}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; reinstall {place}") from error


def _licence(values: Mapping[str, str]) -> str:
    """Take the licence out of a package's metadata: the expression, else the old free text."""
    text = next((values[key] for key in _LICENCE_KEYS if values.get(key)), "")
    return text.splitlines()[0].strip() if text.strip() else ""


def _hex(digest: str) -> str:
    """Turn RECORD's base64 without padding into hex; "" where it is none."""
    try:
        return base64.urlsafe_b64decode(digest + "=" * (-len(digest) % 4)).hex()
    except ValueError:
        return ""
