"""What was done to the data a track model learned, and how its predictions are taken back.

A track's `transform` is `VERSION:STATISTIC`, such as `new:sum_sqrt`, or `none`. The statistic is
how the bases of a bin became one number (the `sum_stat` of a baskerville table); its ending says
how that number was squashed. With scale s and soft clip c, y the number of a bin:

- `new`: y has been multiplied by s before; `_sqrt`: sqrt(1 + y) - 1; `_exp75`: (1 + y)^0.75 - 1;
  then above c: c - 1 + sqrt(y - c + 1).
- `old`: `_sqrt`: y^0.75; then above c: c + sqrt(y - c); then times s.
- `none`: predictions are taken as they are.

The hard clip lies beyond the soft one and cannot be taken back. The scale stays in unless
`unscale` asks otherwise, as in the authors' programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from glm_annotate.errors import InputError, UsageError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Version = Literal["none", "old", "new"]

VERSIONS: tuple[Version, ...] = get_args(Version)
STATISTICS = ("sum", "mean", "avg", "median", "max")
# Power of the squashed number that is the number, by version and ending of the statistic.
_POWERS: dict[Version, dict[str, float]] = {
    "none": {"": 1, "_sqrt": 1, "_exp75": 1},
    "old": {"": 1, "_sqrt": 4 / 3},
    "new": {"": 1, "_sqrt": 2, "_exp75": 4 / 3},
}


@dataclass(frozen=True, slots=True)
class Transform:
    """The `transform` of a track; `statistic` may be empty where the version is none."""

    version: Version = "none"
    statistic: str = ""

    @property
    def text(self) -> str:
        """As it stands in tracks.tsv."""
        return f"{self.version}:{self.statistic}" if self.statistic else self.version

    @property
    def ending(self) -> str:
        """What the statistic ends in: nothing, `_sqrt` or `_exp75`."""
        return self.statistic[len(self.statistic.partition("_")[0]) :]


NO_TRANSFORM = Transform()


def parse_transform(text: str) -> Transform:
    """Parse the `transform` of a track; an empty one is `none`.

    Raises:
        InputError: It is not one; the caller adds file and record.
    """
    version, _, statistic = text.strip().partition(":")
    name = next((x for x in VERSIONS if x == (version or "none")), None)
    if name is None:
        raise InputError(f"transform {text!r} is not VERSION:STATISTIC with {_known()}")
    found = Transform(name, statistic)
    missing = not statistic and name != "none"
    if missing or (statistic and statistic.partition("_")[0] not in STATISTICS):
        raise InputError(f"transform {text!r} has no known statistic; known: {_known()}")
    if found.ending not in _POWERS[name]:
        raise InputError(
            f"transform {text!r}: {name} knows the endings "
            f"{', '.join(x for x in _POWERS[name] if x)}, not {found.ending!r}"
        )
    return found


def _known() -> str:
    return f"versions {', '.join(VERSIONS)}; statistics {', '.join(STATISTICS)}, _sqrt or _exp75"


def with_version(transform: Transform, version: Version) -> Transform:
    """Give a transform another version, for users who know better than the table.

    Raises:
        UsageError: Its statistic is unknown, or the version does not know it.
    """
    try:
        return parse_transform(f"{version}:{transform.statistic}".rstrip(":"))
    except InputError as error:
        raise UsageError(
            f"un-transform {version}: the table has {transform.text}; {error}"
        ) from error


@dataclass(frozen=True, slots=True)
class Transforms:
    """The transforms of tracks in columns.

    Attributes:
        version: Index into `VERSIONS`, shape (tracks,).
        power: Of the inverse, shape (tracks,).
        clip_soft: Where squashing above begins; infinite where it does not, shape (tracks,).
        scale: Shape (tracks,).
    """

    version: Ints
    power: Floats
    clip_soft: Floats
    scale: Floats

    def take(self, which: Ints) -> Transforms:
        """Keep some of the tracks."""
        return Transforms(
            self.version[which], self.power[which], self.clip_soft[which], self.scale[which]
        )

    def invert(self, values: NDArray[Any], *, unscale: bool = False) -> Floats:
        """Take predictions back.

        Args:
            values: Predictions, shape (..., tracks).
            unscale: Whether to divide by the scale too.

        Returns:
            float64 of the same shape; NaN where a negative number has no power.
        """
        out = values.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            for columns, one in self._groups():
                out[..., columns] = one._invert(out[..., columns], unscale=unscale)
        return out

    def apply(self, values: NDArray[Any]) -> Floats:
        """Transform numbers of bins, shape (..., tracks), as the training data were; no hard clip.

        The scale is applied in both versions, so that it is `invert` with `unscale` turned around.
        """
        out = values.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            for columns, one in self._groups():
                out[..., columns] = one._apply(out[..., columns])
        return out

    def _groups(self) -> list[tuple[Ints | slice, Transforms]]:
        """Split into tracks of one version and power, without those that stay as they are."""
        kinds = np.stack([self.version, self.power], axis=1)
        found: list[tuple[Ints | slice, Transforms]] = []
        for kind in np.unique(kinds, axis=0):
            same = (kinds == kind).all(axis=1)
            if VERSIONS[int(kind[0])] == "none":
                continue
            # A slice spares a copy of everything where all tracks are alike.
            columns = slice(None) if same.all() else np.flatnonzero(same)
            found.append((columns, self.take(np.flatnonzero(same))))
        return found

    def _invert(self, x: Floats, *, unscale: bool) -> Floats:
        power, clip = float(self.power[0]), self.clip_soft
        if VERSIONS[int(self.version[0])] == "old":
            x = x / self.scale
            x = np.where(x > clip, clip + (x - clip) ** 2, x)
            x = x if power == 1 else x**power
            return x if unscale else x * self.scale
        x = np.where(x > clip, clip - 1 + (x - clip + 1) ** 2, x)
        x = _power_of_one_more(x, power)
        return x / self.scale if unscale else x

    def _apply(self, y: Floats) -> Floats:
        power, clip = float(self.power[0]), self.clip_soft
        if VERSIONS[int(self.version[0])] == "old":
            y = y if power == 1 else y ** (1 / power)
            return np.where(y > clip, clip + np.sqrt(y - clip), y) * self.scale
        y = _power_of_one_more(y * self.scale, 1 / power)
        return np.where(y > clip, clip - 1 + np.sqrt(y - clip + 1), y)


def _power_of_one_more(x: Floats, power: float) -> Floats:
    """(1 + x)^power - 1, with its digits where x is small."""
    if power == 1:
        return x
    return x * (x + 2) if power == 2 else np.asarray(np.expm1(power * np.log1p(x)))


def transforms_of(
    transforms: Sequence[Transform],
    clip_soft: Sequence[float | None],
    scale: Sequence[float | None],
) -> Transforms:
    """Turn the rows of a table into columns; None: no soft clip, a scale of 1."""
    return Transforms(
        np.array([VERSIONS.index(x.version) for x in transforms], dtype=np.int64),
        np.array([_POWERS[x.version][x.ending] for x in transforms], dtype=np.float64),
        np.array([np.inf if x is None else x for x in clip_soft], dtype=np.float64),
        np.array([1.0 if x is None else x for x in scale], dtype=np.float64),
    )
