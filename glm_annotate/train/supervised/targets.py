"""Tables of targets, as baskerville has them, put into a config.

A config that has been resolved lists its tracks itself, so that a checkpoint knows them without
the file.
"""

from __future__ import annotations

import csv
from pathlib import Path

from pydantic import ValidationError

from glm_annotate.errors import InputError
from glm_annotate.train.supervised.config import SpeciesConfig, SupervisedConfig, TrackConfig


def resolve(config: SupervisedConfig, home: Path) -> SupervisedConfig:
    """Put tables of targets into the config, with the folder of the config file at hand.

    Raises:
        InputError: A table cannot be read, or a row of it is not allowed.
    """
    if config.tracks is None:
        return config
    species = tuple(_with_targets(x, home) for x in config.tracks.species)
    tracks = config.tracks.model_copy(update={"species": species})
    return config.model_copy(update={"tracks": tracks})


_COLUMNS = (
    *("identifier", "file", "clip", "clip_soft", "scale", "sum_stat", "strand_pair"),
    *("description", "column", "bed", "version", "assay", "biosample", "units"),
)


def _with_targets(species: SpeciesConfig, home: Path) -> SpeciesConfig:
    if species.targets is None:
        return species
    path = home / species.targets
    try:
        with open(path, newline="", encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot read the table of targets: {error}") from error
    names = {row.get("index") or row.get(""): row.get("identifier") for row in rows}
    made = []
    for line, row in enumerate(rows, 2):
        cells = {key: row[key] for key in _COLUMNS if row.get(key) not in (None, "", "nan")}
        pair = cells.get("strand_pair")
        if pair in names:  # baskerville pairs by index
            cells["strand_pair"] = names[pair] or ""
        if cells.get("strand_pair") == cells.get("identifier"):
            cells.pop("strand_pair", None)
        try:
            made.append(TrackConfig.model_validate(cells))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise InputError(f"{path}: line {line}: {place}: {first['msg']}") from error
    return species.model_copy(update={"track": (*species.track, *made), "targets": None})
