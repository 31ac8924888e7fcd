"""The table of targets that lies beside a checkpoint of Enformer, Borzoi or baskerville."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from glm_annotate.errors import InputError
from glm_annotate.track_table import Track, read_targets
from glm_annotate.track_transforms import Transform, Version
from glm_annotate.train.families.family import Source

_VERSIONS: tuple[Version, ...] = get_args(Version)


def find_targets(
    source: Source, head: str, tracks: int, version: Version
) -> tuple[Mapping[str, str], ...]:
    """Read targets_HEAD.txt or targets.txt beside the weights; no rows where there is neither.

    Args:
        source: The checkpoint; its config may name another version under `transform`.
        head: Of the network, such as `human`.
        tracks: That it has.
        version: Of the transform, where the config does not say.

    Raises:
        InputError: It is damaged, or has another number of rows.
    """
    stated = source.config.get("transform", version)
    chosen = next((name for name in _VERSIONS if name == stated), None)
    if chosen is None:
        raise InputError(
            f"{source.name}: config: transform is {stated!r}, known are {', '.join(_VERSIONS)}"
        )
    named = (source.file(name) for name in (f"targets_{head}.txt", "targets.txt"))
    path = next((x for x in named if x is not None), None)
    if path is None:
        return ()
    table = read_targets(path, chosen)
    if len(table) != tracks:
        raise InputError(
            f"{path}: {len(table)} tracks, head {head} has {tracks}; fetch the {path.name} of the "
            "same head"
        )
    return tuple(_row(track) for track in table.tracks)


def _row(track: Track) -> dict[str, str]:
    """Write a track as the row of a table, without what it does not have."""
    values: dict[str, str | float | Transform | None] = {
        "identifier": track.identifier,
        "description": track.description,
        "assay": track.assay,
        "biosample": track.biosample,
        "strand_pair": track.strand_pair,
        "transform": track.transform.text,
        "clip_soft": track.clip_soft,
        "scale": track.scale,
    }
    return {name: str(value) for name, value in values.items() if value not in (None, "")}
