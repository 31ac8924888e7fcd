"""Score what a variant does to the regulatory code, with genome language models run by ONNX."""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["__version__"]
