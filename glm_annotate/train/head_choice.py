"""`--head`: which head of a checkpoint that has several, such as human and mouse."""

from __future__ import annotations

from dataclasses import replace

from glm_annotate.errors import UsageError
from glm_annotate.train.families.family import Official, Source


def with_head(source: Source, official: Official, head: str | None) -> Source:
    """Put the head that the user asked for into the config, where the family reads it.

    Args:
        source: The checkpoint.
        official: How it is read.
        head: None: the family's own choice.

    Raises:
        UsageError: The checkpoint has no such head, or none to choose from.
    """
    if head is None:
        return source
    known = official.heads(source)
    if not known:
        raise UsageError(
            f"--head {head}: {source.name}: these weights have no heads to choose from; leave "
            "--head out"
        )
    if head not in known:
        raise UsageError(f"--head {head}: {source.name} has the heads {', '.join(known)}")
    return replace(source, config={**source.config, "head": head})
