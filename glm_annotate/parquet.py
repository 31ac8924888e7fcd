"""What tables in Parquet share: pyarrow, which is an extra, and files that it writes in one go."""

from __future__ import annotations

import io
from typing import Any

from glm_annotate.errors import UsageError
from glm_annotate.vcf import OutFile


def need_pyarrow(option: str) -> None:
    """Refuse to go on without pyarrow.

    Raises:
        UsageError: It is not installed; `option` is what asked for it.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"{option}: needs pyarrow; run: pip install 'glm_annotate[matrix]'"
        ) from error


class ParquetSink(io.RawIOBase):
    """What pyarrow needs of a file, around an output that only writes."""

    def __init__(self, out: OutFile) -> None:
        self._out, self._written = out, 0

    def writable(self) -> bool:
        """Say that it is written to."""
        return True

    def tell(self) -> int:
        """Say how many bytes were written."""
        return self._written

    def write(self, data: Any, /) -> int:
        """Write all of the bytes."""
        self._out.write(bytes(data))
        self._written += len(data)
        return len(data)
