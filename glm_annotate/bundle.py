"""Model bundles: a folder or zip with a card, ONNX graphs and a self-test; names to bundles.

A model is one graph, or several replicates whose outputs are averaged (`runtime.py`).

Loading checks the sha256 of every file and that the graph reads no file outside the folder; the
session that runs it checks the graph's inputs and outputs against the card (`runtime.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Unpack

from pydantic import ValidationError

from glm_annotate.card import ModelCard
from glm_annotate.encoding import Encoder, make_encoder
from glm_annotate.errors import BundleError

if TYPE_CHECKING:
    from glm_annotate.answers import Floats
    from glm_annotate.bundle_predict import Output, Place, Reading
    from glm_annotate.genome import Genome

CARD, GRAPH, SELFTEST, TOKENIZER = "card.json", "model.onnx", "selftest.npz", "tokenizer.json"
BACKGROUND = "background.npz"  # not digested: a calibrated model is the same model
_DIGESTED = (GRAPH, TOKENIZER, "tracks.tsv", "genes.tsv.gz")
_REPLICATE = re.compile(r"model\.\d+\.onnx")
_LARGEST_ZIP = 64 << 30
ZOO = Path(__file__).parent / "zoo"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model on disk whose files are what its card says."""

    path: Path
    card: ModelCard
    encoder: Encoder

    @property
    def graphs(self) -> tuple[Path, ...]:
        """The ONNX files: one, or the replicates in the order of their numbers."""
        return tuple(self.path / name for name in _graphs(self.card))

    @property
    def graph(self) -> Path:
        """The ONNX file, of replicates the first."""
        return self.graphs[0]

    @property
    def digest(self) -> str:
        """sha256 over what changes scores: model, tokenizer, tracks, genes and scoring keys."""
        files = {k: v for k, v in self.card.sha256.items() if _is_digested(k)}
        text = json.dumps([sorted(files.items()), self.card.scoring_digest()])
        return hashlib.sha256(text.encode()).hexdigest()

    def predict(
        self,
        what: str | Place | Sequence[str] | Sequence[Place],
        genome: str | os.PathLike[str] | Genome | None = None,
        *,
        output: Output | None = None,
        **options: Unpack[Reading],
    ) -> list[Floats]:
        """Say what the model makes of sequences, or of intervals of a genome, an array for each.

        Raises what `bundle_predict.predict` does, which says more.
        """
        from glm_annotate.bundle_predict import predict

        return predict(self, what, genome, output=output, **options)


def load_bundle(name: str | Path, *, verify: bool = True) -> Bundle:
    """Load a bundle from a folder, a zip, a shipped name or `hf://owner/repo[@rev]`.

    Args:
        name: What the user wrote after -m.
        verify: Check the sha256 of every file.

    Raises:
        BundleError: Nothing of that name, or a bundle that is not what its card says.
    """
    folder = find_bundle(str(name))
    card = read_card(folder)
    _check_files(folder, card, verify=verify)
    _check_external_data(folder, card)
    tokenizer = folder / TOKENIZER
    try:
        encoder = make_encoder(card.encoder, tokenizer if tokenizer.exists() else None)
    except BundleError as error:
        raise BundleError(f"{folder}: {error}") from error
    return Bundle(folder, card, encoder)


def shipped() -> dict[str, Path]:
    """List the bundles that come with the package: name to folder."""
    if not ZOO.is_dir():
        return {}
    return {p.name: p for p in sorted(ZOO.iterdir()) if (p / CARD).is_file()}


def find_bundle(name: str) -> Path:
    """Turn what the user wrote into a bundle folder (zips are unpacked into the cache)."""
    if name.startswith("hf://"):
        return _pull(name)
    path, known = Path(name), shipped()
    # A folder that merely has the name of a shipped model, such as a run's, does not hide it.
    if path.is_dir() and (name not in known or (path / CARD).is_file()):
        return path
    if path.is_file() and zipfile.is_zipfile(path):
        return _unpack(path)
    if name in known:
        return known[name]
    if path.exists():
        raise BundleError(f"{name}: not a model bundle (a folder or zip that holds {CARD})")
    raise BundleError(
        f"{name}: no such bundle; give a folder, a .zip, hf://owner/repo, or a shipped model "
        f"({', '.join(known) or 'none'}); see: glm-annotate models list"
    )


def read_card(folder: Path) -> ModelCard:
    """Parse a bundle's card.

    Raises:
        BundleError: No card, not JSON, an unknown key or a value that is not allowed.
    """
    path = folder / CARD
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise BundleError(f"{folder}: not a model bundle: it holds no {CARD}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: cannot be read: {error}") from error
    try:
        return ModelCard.model_validate_json(text)
    except ValidationError as error:
        raise BundleError(f"{path}: {_fault(error)}") from error


def write_bundle(folder: Path, card: Mapping[str, Any]) -> ModelCard:
    """Write `card.json` beside the files that already lie in the folder, with their sha256.

    Args:
        folder: Holds model.onnx (or replicates model.0.onnx, model.1.onnx, ...), selftest.npz and
            whatever else belongs to the bundle.
        card: The card's keys without `sha256`.

    Raises:
        BundleError: The card is not valid.
    """
    digests = {name: sha256_of(folder / name) for name in _files(folder)}
    try:
        parsed = ModelCard.model_validate({**card, "sha256": digests})
    except ValidationError as error:
        raise BundleError(f"{folder / CARD}: {_fault(error)}") from error
    text = json.dumps(parsed.model_dump(mode="json", exclude_none=True), indent=2)
    (folder / CARD).write_text(text + "\n", encoding="utf-8")
    return parsed


def _fault(error: ValidationError) -> str:
    """Put the first fault of a card in one line: its key and what is wrong there."""
    first = error.errors()[0]
    where = ".".join(str(x) for x in first["loc"]) or "card"
    return f"{where}: {first['msg']}; see the card's JSON schema in the documentation"


def sha256_of(path: Path) -> str:
    """Digest a file in pieces."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def cache_dir() -> Path:
    """Where unpacked and pulled bundles go: $GLM_ANNOTATE_CACHE, else the user's cache folder."""
    chosen = os.environ.get("GLM_ANNOTATE_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "glm_annotate"


def _files(folder: Path) -> list[str]:
    found = (p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return sorted(p.relative_to(folder).as_posix() for p in found if p.name != CARD)


def _is_digested(name: str) -> bool:
    return name in _DIGESTED or name.endswith((".onnx", ".data"))


def replicate(number: int) -> str:
    """Name the file of a replicate."""
    return f"model.{number}.onnx"


def _graphs(card: ModelCard) -> list[str]:
    found = [name for name in card.sha256 if name == GRAPH or _REPLICATE.fullmatch(name)]
    return sorted(found, key=lambda name: (len(name), name))


def _check_files(folder: Path, card: ModelCard, *, verify: bool) -> None:
    graphs = _graphs(card)
    if not graphs:
        raise BundleError(f"{folder}: {CARD} gives no sha256 of {GRAPH}; export the bundle again")
    if graphs not in ([GRAPH], [replicate(i) for i in range(len(graphs))]):
        raise BundleError(
            f"{folder}: found {', '.join(graphs)}; wanted {GRAPH}, or replicates {replicate(0)}, "
            f"{replicate(1)} and so on without a gap; export the bundle again"
        )
    for name, expected in card.sha256.items():
        path = folder / name
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise BundleError(f"{folder}: {CARD} names {name!r}, which lies outside the bundle")
        if not path.is_file():
            raise BundleError(f"{folder}: {name} is missing; copy the whole bundle again")
        if verify and sha256_of(path) != expected:
            raise BundleError(
                f"{path}: sha256 is not the one in {CARD}: the file is damaged or was changed; "
                "copy the bundle again"
            )
    for name in _files(folder):
        if (_is_digested(name) or name == BACKGROUND) and name not in card.sha256:
            raise BundleError(
                f"{folder / name}: {CARD} gives no sha256 of it; remove it, or export the bundle "
                "again"
            )


def _check_external_data(folder: Path, card: ModelCard) -> None:
    for graph in (folder / name for name in card.sha256 if name.endswith(".onnx")):
        try:
            locations = external_locations(graph.read_bytes())
        except BundleError as error:
            raise BundleError(f"{graph}: {error}; copy the bundle again") from error
        outside = sorted(locations - set(card.sha256))
        if outside:
            raise BundleError(
                f"{graph}: reads weights from {outside[0]!r}, which is not a file of this bundle; "
                "export it again with its data beside it"
            )


# Fields of onnx.proto3 that lead to a tensor: (message, field) -> message.
_PROTO = {
    ("model", 7): "graph",
    ("graph", 1): "node",
    ("graph", 5): "tensor",
    ("graph", 15): "sparse",
    ("node", 5): "attribute",
    ("attribute", 5): "tensor",
    ("attribute", 6): "graph",
    ("attribute", 10): "tensor",
    ("attribute", 11): "graph",
    ("attribute", 22): "sparse",
    ("attribute", 23): "sparse",
    ("sparse", 1): "tensor",
    ("sparse", 2): "tensor",
    ("tensor", 13): "entry",
    ("model", 20): "training",
    ("training", 1): "graph",
    ("training", 2): "graph",
    ("model", 25): "function",
    ("function", 7): "node",
    ("function", 11): "attribute",
}


def external_locations(data: bytes) -> set[str]:
    """Find the files that an ONNX graph reads tensors from (protobuf walk, no onnx package)."""
    try:
        return set(_locations(memoryview(data), "model"))
    except (IndexError, ValueError, RecursionError) as error:
        raise BundleError("not an ONNX file") from error


def _locations(data: memoryview, message: str) -> Iterator[str]:
    if message == "entry":
        pair = {number: bytes(value) for number, value in _fields(data)}
        if pair.get(1) == b"location":
            yield pair.get(2, b"").decode("utf-8", "replace")
        return
    for number, value in _fields(data):
        inner = _PROTO.get((message, number))
        if inner is not None:
            yield from _locations(value, inner)


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the length-delimited fields of a protobuf message."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            _, at = _varint(data, at)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        elif wire == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("field runs past the end")
            yield key >> 3, data[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {wire}")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("varint too long")


def _unpack(path: Path) -> Path:
    target = cache_dir() / "bundles" / sha256_of(path)[:32]
    if not target.is_dir():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, ignore_cleanup_errors=True) as home:
                scratch = Path(home) / "bundle"
                scratch.mkdir()
                _extract(path, scratch)
                try:
                    scratch.rename(target)
                except OSError:  # another process was faster
                    if not target.is_dir():
                        raise
        except OSError as error:
            raise BundleError(
                f"{path}: cannot be unpacked into {target}: {error}; set GLM_ANNOTATE_CACHE to a "
                "folder with room that can be written"
            ) from error
    inner = [p for p in target.iterdir() if (p / CARD).is_file()]
    return inner[0] if not (target / CARD).exists() and len(inner) == 1 else target


def _extract(path: Path, scratch: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(member.flag_bits & 1 for member in members):
                raise BundleError(f"{path}: encrypted; zip the bundle again without a password")
            for member in members:
                parts = PurePosixPath(member.filename).parts
                link = stat.S_ISLNK(member.external_attr >> 16)
                if link or ".." in parts or member.filename.startswith(("/", "\\")):
                    raise BundleError(f"{path}: member {member.filename!r} would leave the bundle")
            total = sum(member.file_size for member in members)
            if total > min(_LARGEST_ZIP, shutil.disk_usage(scratch).free):
                raise BundleError(f"{path}: unpacks to {total} bytes, more than there is room for")
            archive.extractall(scratch)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise BundleError(f"{path}: a damaged zip ({error}); copy it again") from error


def _pull(name: str) -> Path:
    repository, _, revision = name.removeprefix("hf://").partition("@")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise BundleError(
            f"{name}: needs huggingface_hub; run: pip install 'glm_annotate[hub]'"
        ) from error
    where = str(cache_dir() / "hub")
    try:
        return Path(snapshot_download(repository, revision=revision or None, cache_dir=where))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        try:
            return Path(
                snapshot_download(
                    repository, revision=revision or None, cache_dir=where, local_files_only=True
                )
            )
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError):
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BundleError(f"{name}: cannot be pulled and is not in {where}: {first}") from error
