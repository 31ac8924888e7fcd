"""A bundle with the background of its scores: in its place, or as a copy (a folder or a zip)."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glm_annotate.bundle import BACKGROUND, CARD, ZOO, find_bundle, sha256_of
from glm_annotate.calibration import Background, write_background
from glm_annotate.errors import BundleError, InputError, UsageError


@dataclass(frozen=True, slots=True)
class Target:
    """Where a calibrated bundle goes.

    Attributes:
        source: Folder of the bundle that is calibrated.
        path: What is written.
        zipped: Whether it is a zip.
    """

    source: Path
    path: Path
    zipped: bool

    @property
    def changed(self) -> bool:
        """Whether it is the folder of the source itself."""
        return self.path == self.source


def find_target(model: str, output: str | None, *, in_place: bool, force: bool) -> Target:
    """Say where a calibrated bundle goes, before the work.

    Args:
        model: What the user wrote for the bundle.
        output: Folder or `.zip` to make.
        in_place: Change the bundle itself.
        force: Replace what is there.

    Raises:
        UsageError: Not one of both is asked for.
        BundleError: The bundle itself cannot be changed.
        InputError: Something else lies there.
    """
    source, own = find_bundle(model).resolve(), Path(model).resolve()
    if in_place == (output is not None):
        raise UsageError("name the bundle to make with -o, or change MODEL itself with --in-place")
    if output is None:
        return _in_place(source, own, model)
    path = Path(os.path.realpath(output))
    if path in (source, own):
        raise UsageError(f"-o {output}: is MODEL itself; use --in-place")
    target = Target(source, path, path.suffix == ".zip")
    _check_place(output, target, force=force)
    return target


def _in_place(source: Path, own: Path, model: str) -> Target:
    zipped = own.is_file()
    if source.is_relative_to(ZOO.resolve()) or not (zipped or own == source):
        raise BundleError(
            f"{model}: comes with the package or lies in the cache, and is not changed; make a "
            "calibrated copy: -o NEW_BUNDLE"
        )
    if not os.access(own.parent if zipped else own, os.W_OK):
        raise BundleError(f"{model}: cannot be written to; make a calibrated copy: -o NEW_BUNDLE")
    return Target(source, own, zipped)


def _check_place(output: str, target: Target, *, force: bool) -> None:
    path = target.path
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if path.is_dir() == target.zipped or not (target.zipped or (path / CARD).is_file()):
        raise InputError(f"-o {output}: something that is no bundle lies there; name another")
    if not force:
        raise InputError(f"-o {output}: is there already; replace it with --force")


def write_calibrated(target: Target, background: Background) -> None:
    """Write the bundle.

    Raises:
        InputError: It cannot be written.
    """
    try:
        target.path.parent.mkdir(parents=True, exist_ok=True)
        where = target.source if target.changed else target.path.parent
        with tempfile.TemporaryDirectory(prefix=".calibrated.", dir=where) as scratch:
            _write(target, background, Path(scratch))
    except OSError as error:
        raise InputError(
            f"{target.path}: cannot be written: {error.strerror or error}; name another -o"
        ) from error


def _write(target: Target, background: Background, scratch: Path) -> None:
    made = scratch / "bundle"
    made.mkdir()
    write_background(made / BACKGROUND, background)
    card: dict[str, Any] = json.loads((target.source / CARD).read_text(encoding="utf-8"))
    digests = {**card["sha256"], BACKGROUND: sha256_of(made / BACKGROUND)}
    card["sha256"] = dict(sorted(digests.items()))
    (made / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    if target.changed:
        for name in (BACKGROUND, CARD):
            os.replace(made / name, target.path / name)
        return
    for name in digests:
        if name != BACKGROUND:
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(target.source / name, made / name)
    if target.zipped:
        _zip(made, scratch / "bundle.zip", [*digests, CARD])
        os.replace(scratch / "bundle.zip", target.path)
        return
    if target.path.exists():
        os.replace(target.path, scratch / "old")
    os.replace(made, target.path)


def _zip(folder: Path, path: Path, names: list[str]) -> None:
    """Pack files, the same bytes for the same files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(names):
            member = zipfile.ZipInfo(name)
            member.compress_type, member.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            with (
                (folder / name).open("rb") as data,
                archive.open(member, "w", force_zip64=True) as out,
            ):
                shutil.copyfileobj(data, out)
