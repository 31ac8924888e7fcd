"""A progress bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_of(unit: str) -> Iterator[Callable[[int], None]]:
    """Show how many of something are done a second.

    Args:
        unit: What is counted, behind the number.

    Yields:
        To be called with how many more are done.
    """
    if not sys.stderr.isatty() or logging.getLogger("glm_annotate").level > logging.INFO:
        yield lambda count: None
        return
    from tqdm import tqdm

    with tqdm(unit=unit, unit_scale=True, leave=False, file=sys.stderr) as bar:

        def done(count: int) -> None:
            bar.update(count)

        yield done
