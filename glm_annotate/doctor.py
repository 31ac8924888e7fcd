"""What works on this machine: `glm-annotate doctor`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from glm_annotate import __version__
from glm_annotate.bundle import cache_dir, load_bundle, shipped
from glm_annotate.errors import GlmAnnotateError

_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
_OPTIONAL = {
    "tokenizers": "bundles with byte-pair tokens: pip install 'glm_annotate[bpe]'",
    "huggingface_hub": "hf:// bundles: pip install 'glm_annotate[hub]'",
    "zarr": "alignments (--msa): pip install 'glm_annotate[msa]'",
    "matplotlib": "pictures: pip install 'glm_annotate[plots]'",
    "torch": "training and exporting: pip install 'glm_annotate[train]'",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `mend` says what to do, or what an absent part is for."""

    what: str
    found: str
    ok: bool = True
    mend: str = ""


def examine() -> list[Finding]:
    """Look at the machine."""
    return [
        Finding("glm_annotate", f"{__version__}, Python {platform.python_version()}"),
        Finding("machine", f"{sys.platform} {platform.machine()}, {os.cpu_count()} cores"),
        _runtime(),
        _cuda(),
        *_packages(),
        _cache(),
        *_models(),
    ]


def _runtime() -> Finding:
    found = {name: _version(name) for name in _RUNTIMES}
    there = [f"{name} {version}" for name, version in found.items() if version]
    if len(there) == 1:
        return Finding("ONNX Runtime", there[0])
    if not there:
        return Finding("ONNX Runtime", "none", False, "pip install --force-reinstall glm_annotate")
    return Finding(
        "ONNX Runtime",
        " and ".join(there) + " together: they overwrite each other",
        False,
        "pip uninstall onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu",
    )


def _cuda() -> Finding:
    """Ask a session, since ONNX Runtime's own lists name devices that are not there."""
    from glm_annotate.runtime import Device, Settings, gets_cuda

    if gets_cuda(Device("cuda"), Settings()):
        return Finding("CUDA", "a session runs on card 0")
    return Finding(
        "CUDA",
        "not usable: models run on the CPU",
        mend="for a GPU: NVIDIA's driver, and pip install 'onnxruntime-gpu[cuda,cudnn]'",
    )


def _packages() -> Iterator[Finding]:
    for name in ("numpy", "pysam", "pyBigWig", "pydantic", "click"):
        yield Finding(name, _version(name) or "missing", _version(name) is not None)
    for name, purpose in _OPTIONAL.items():
        version = _version(name)
        yield Finding(name, version or "not installed", mend="" if version else f"for {purpose}")


def _cache() -> Finding:
    folder = cache_dir()
    parent = next(x for x in (folder, *folder.parents) if x.exists())
    if os.access(parent, os.W_OK):
        return Finding("cache", str(folder))
    return Finding("cache", f"{folder} cannot be written", False, "set GLM_ANNOTATE_CACHE")


def _models() -> Iterator[Finding]:
    for name in shipped():
        try:
            bundle = load_bundle(name)
        except GlmAnnotateError as error:
            yield Finding(f"model {name}", str(error), False, "install the package again")
        else:
            yield Finding(f"model {name}", f"{bundle.card.version}, {bundle.digest[:12]}")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
