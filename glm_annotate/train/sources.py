"""Official checkpoints as they lie on disk or on the Hugging Face hub.

Nothing but tensors is unpickled (`weights_only`): a checkpoint from the internet cannot run code.
"""

from __future__ import annotations

import codecs
import io
import json
import pickle
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glm_annotate.bundle import CARD, cache_dir
from glm_annotate.errors import InputError
from glm_annotate.train.families.family import Source
from glm_annotate.train.keras_h5 import read_weights

# In the order of preference; `*` also names shards, whose index lies beside them.
_WEIGHTS = (
    "model.safetensors", "model-*.safetensors", "pytorch_model.bin", "pytorch_model-*.bin",
    "pytorch_model-*.pt", "*.safetensors", "*.pt", "*.pth", "*.ckpt", "*.bin", "*.h5",
)  # fmt: skip
_BESIDE = (
    "config.json", "*.yml", "*.yaml", "vocab.txt", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "*.index.json",
)  # fmt: skip
_CONFIGS = ("config.json", "config.yml", "config.yaml")
# Lightning's files may hold settings of these classes of omegaconf beside the weights.
_SETTINGS = (
    *("base.ContainerMetadata", "base.Metadata", "dictconfig.DictConfig", "listconfig.ListConfig"),
    *(f"nodes.{x}Node" for x in ("Any", "Boolean", "Float", "Integer", "String")),
)
# What some files wrap the weights in.
_WRAPPERS = ("state_dict", "model_state_dict", "module")
_UNREADABLE = (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError, TypeError)
_KERAS = (".h5", ".hdf5")
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", *_KERAS)
_SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)(\.\w+)")


class _Settings:
    """Stands for a class that is not imported, and forgets what it is given."""

    def __setstate__(self, state: object) -> None:
        """Keep nothing."""


# Transformer Engine keeps a buffer of bytes a layer in its `_extra_state`.
_ALLOWED: list[Any] = [
    *(io.BytesIO, bytes, codecs.encode),
    *((_Settings, f"omegaconf.{name}") for name in _SETTINGS),
    *(dict, list, int, str, float, bool, defaultdict, (Any, "typing.Any")),
]


def open_source(text: str | Path) -> Source:
    """Read an official checkpoint.

    Args:
        text: A weights file (.safetensors, .bin, .pt, .pth, .ckpt), a folder in the layout of the
            Hugging Face hub, or `hf://owner/repo[@revision]`.

    Raises:
        InputError: It is none of these, cannot be read, or holds anything but tensors.
    """
    name = str(text)
    if not name:
        raise InputError("SOURCE is empty; give a weights file, a folder, or hf://owner/repo")
    if name.startswith("hf://"):
        folder = _download(name)
        # The hub's cache names the folder after the commit.
        repository = f"{name.removeprefix('hf://').partition('@')[0]}@{folder.name}"
        return _read(name, folder, _weights_of(folder, name), repository)
    path = Path(text)
    if path.is_dir():
        return _read(name, path, _weights_of(path, name))
    if not path.is_file():
        raise InputError(
            f"{name}: no such file or folder; give a weights file, a folder with config.json and "
            "weights, or hf://owner/repo"
        )
    if path.suffix not in _SUFFIXES:
        raise InputError(
            f"{name}: found {path.suffix or 'no suffix'}, known are {_list(_SUFFIXES)}"
        )
    shard = _SHARD.fullmatch(path.name)
    if shard is not None and int(shard[3]) > 1:
        raise InputError(
            f"{name}: one of {int(shard[3])} shards; give the folder that holds all of them"
        )
    return _read(name, path.parent, [path])


def _read(name: str, folder: Path, files: list[Path], repository: str = "") -> Source:
    weights: dict[str, Tensor] = {}
    for file in files:
        part = _load(file)
        twice = sorted(weights.keys() & part.keys())
        if twice:
            raise InputError(
                f"{name}: {twice[0]} lies in more than one file; remove shards of other checkpoints"
            )
        weights |= part
    if not weights:
        raise InputError(f"{name}: holds no weights")
    return Source(name, weights, config_beside(folder), folder, repository, tuple(files))


def _weights_of(folder: Path, name: str) -> list[Path]:
    """Choose the weights of a folder: one file, or all shards of one kind."""
    try:
        present = [path.name for path in folder.iterdir() if path.is_file()]
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from error
    if CARD in present:
        raise InputError(f"{name}: is a bundle already; use it with: glm-annotate vcf -m {name}")
    chosen = _choose(present, name)
    _check_shards(folder, chosen, name)
    return [folder / file for file in chosen]


def _check_shards(folder: Path, files: list[str], name: str) -> None:
    """Refuse a part of the shards that their own names or the index beside them tell of.

    Raises:
        InputError: One is missing, they are of different sets, or the index is damaged.
    """
    shards = [found for found in map(_SHARD.fullmatch, files) if found is not None]
    wanted = {
        f"{x[1]}-{number:0{len(x[2])}}-of-{x[3]}{x[4]}"
        for x in shards
        for number in range(1, int(x[3]) + 1)
    }
    for index in sorted({folder / f"{x[1]}{x[4]}.index.json" for x in shards}):
        if index.is_file():
            try:
                places = json.loads(index.read_text(encoding="utf-8")).get("weight_map", {})
                wanted |= {str(place) for place in places.values()}
            except (OSError, ValueError, AttributeError) as error:
                raise InputError(f"{index}: not an index of shards; fetch it again") from error
    if len({x[3] for x in shards}) > 1:
        raise InputError(f"{name}: holds shards of different sets: {_list(files)}; remove one set")
    missing = sorted(wanted - set(files))
    if shards and missing:
        raise InputError(f"{name}: shard {missing[0]} is missing; fetch the whole checkpoint again")


def _choose(files: Iterable[str], name: str) -> list[str]:
    present = sorted(files)
    for pattern in _WEIGHTS:
        found = [file for file in present if fnmatch(file, pattern)]
        if len(found) > 1 and "-*" not in pattern:
            raise InputError(f"{name}: holds {_list(found)}; give one of them as SOURCE")
        if found:
            return found
    raise InputError(f"{name}: holds no weights; known are {_list(_WEIGHTS)}")


def _load(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    if path.suffix in _KERAS:
        return read_weights(path)
    try:
        with path.open("rb") as handle:
            start = handle.read(2)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    # A zip, or the pickle that torch wrote before 1.6. Anything else fails in any way.
    if start not in (b"PK", b"\x80\x02"):
        raise InputError(f"{path}: not a file of torch.save: damaged, or an unfinished download")
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            values = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it holds {found[1]}" if found else type(error).__name__
        raise InputError(
            f"{path}: cannot be read as tensors alone ({reason}); give a .safetensors of the same "
            "weights, or save its state_dict by itself"
        ) from error
    return _tensors(path, values)


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a safetensors file: {error}") from error


def _tensors(path: Path, values: Any) -> dict[str, Tensor]:
    """Unwrap a state dict, and leave out what Transformer Engine adds to it."""
    while isinstance(values, Mapping):
        inner = next(
            (values[key] for key in _WRAPPERS if isinstance(values.get(key), Mapping)), None
        )
        if inner is None:
            break
        values = inner
    if not isinstance(values, Mapping):
        raise InputError(f"{path}: holds a {type(values).__name__}, wanted a state_dict")
    kept = {str(k): v for k, v in values.items() if not str(k).endswith("_extra_state")}
    odd = [key for key, value in kept.items() if not isinstance(value, Tensor)]
    if odd:
        raise InputError(f"{path}: {odd[0]} is no tensor; save the model's state_dict by itself")
    return kept


def config_beside(folder: Path) -> dict[str, Any]:
    """Read the config that lies beside the weights; nothing where there is none."""
    path = next((folder / name for name in _CONFIGS if (folder / name).is_file()), None)
    if path is None:
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else _yaml(path, text)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds a {type(values).__name__}, wanted a table of settings")
    return values


def _yaml(path: Path, text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from error


def _download(name: str) -> Path:
    """Bring weights, config and tokenizer of a repository into the cache, or find them there."""
    repository, _, revision = name.removeprefix("hf://").partition("@")
    try:
        from huggingface_hub import HfApi, snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise InputError(
            f"{name}: needs huggingface_hub; run: pip install 'glm_annotate[hub]'"
        ) from error
    where, wanted = str(cache_dir() / "hub"), revision or None
    try:
        files = HfApi().list_repo_files(repository, revision=wanted)
        chosen = [*_choose([x for x in files if "/" not in x], name), *_BESIDE]
        path = snapshot_download(
            repository, revision=wanted, cache_dir=where, allow_patterns=chosen
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        try:
            path = snapshot_download(
                repository, revision=wanted, cache_dir=where, local_files_only=True
            )
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError):
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(
                f"{name}: cannot be downloaded and is not in {where}: {first}"
            ) from error
    return Path(path)


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
