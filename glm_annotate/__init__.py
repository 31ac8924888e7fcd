"""Score what a variant does to the regulatory code, with genome language models run by ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glm_annotate.api import score as score
    from glm_annotate.bundle import Bundle as Bundle
    from glm_annotate.bundle import load_bundle as load_bundle
    from glm_annotate.errors import BundleError as BundleError
    from glm_annotate.errors import GlmAnnotateError as GlmAnnotateError
    from glm_annotate.errors import InputError as InputError
    from glm_annotate.errors import UsageError as UsageError
    from glm_annotate.genome import Genome as Genome
    from glm_annotate.genome import Interval as Interval
    from glm_annotate.track_choice import TrackChoice as TrackChoice

__version__ = "0.1.0"

# Where the public names live: each is imported when it is asked for, so that the command starts
# without what it does not need.
_HOMES = {
    "Bundle": "bundle",
    "BundleError": "errors",
    "Genome": "genome",
    "GlmAnnotateError": "errors",
    "InputError": "errors",
    "Interval": "genome",
    "TrackChoice": "track_choice",
    "UsageError": "errors",
    "load_bundle": "bundle",
    "score": "api",
}
__all__ = [
    "Bundle",
    "BundleError",
    "Genome",
    "GlmAnnotateError",
    "InputError",
    "Interval",
    "TrackChoice",
    "UsageError",
    "__version__",
    "load_bundle",
    "score",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
