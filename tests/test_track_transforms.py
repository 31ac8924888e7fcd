"""Un-transforming predictions: forward and back, and numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from glm_annotate.errors import InputError, UsageError
from glm_annotate.track_transforms import (
    Transform,
    Transforms,
    Version,
    parse_transform,
    transforms_of,
    with_version,
)

TEXTS = ["none", "new:sum", "new:mean", "new:sum_sqrt", "new:sum_exp75", "old:sum", "old:sum_sqrt"]


def columns(*texts: str, clip: float | None = 32.0, scale: float | None = 0.25) -> Transforms:
    rows = [parse_transform(x) for x in texts]
    return transforms_of(rows, [clip] * len(rows), [scale] * len(rows))


# (transform, soft clip, scale, prediction, un-transformed, and also un-scaled).
BY_HAND = [
    ("none", 4, 0.25, 9.0, 9.0, 9.0),
    ("new:sum", 4, 0.25, 3.0, 3.0, 12.0),
    ("new:sum", 4, 0.25, 4.0, 4.0, 16.0),  # not yet above the clip
    ("new:mean", 4, 0.25, 6.0, 4 - 1 + (6 - 4 + 1) ** 2, 48.0),
    ("new:sum_sqrt", 32, 0.5, 3.0, 15.0, 30.0),  # (3 + 1)^2 - 1
    ("new:sum_sqrt", 2, 0.5, 4.0, 120.0, 240.0),  # 2 - 1 + (4 - 2 + 1)^2 = 10, 11^2 - 1
    ("new:sum_exp75", 32, 0.5, 7.0, 15.0, 30.0),  # 8^(4/3) - 1
    ("old:sum", 4, 0.25, 0.5, 0.5, 2.0),
    ("old:sum", 4, 0.25, 1.5, 2.0, 8.0),  # 1.5 / 0.25 = 6, 4 + (6 - 4)^2 = 8, times 0.25
    ("old:sum_sqrt", 32, 0.25, 2.0, 4.0, 16.0),  # 8^(4/3)
    ("old:sum_sqrt", 4, 1.0, 6.0, 16.0, 16.0),  # 4 + 2^2 = 8, 8^(4/3)
]


@pytest.mark.parametrize(("text", "clip", "scale", "x", "wanted", "unscaled"), BY_HAND)
def test_by_hand(
    text: str, clip: float, scale: float, x: float, wanted: float, unscaled: float
) -> None:
    one = columns(text, clip=clip, scale=scale)
    values = np.array([[x]], dtype=np.float32)
    assert one.invert(values)[0, 0] == pytest.approx(wanted, rel=1e-12)
    assert one.invert(values, unscale=True)[0, 0] == pytest.approx(unscaled, rel=1e-12)
    assert values[0, 0] == x  # predictions stay as they are


@pytest.mark.parametrize("clip", [2.0, 32.0, None])
@pytest.mark.parametrize("scale", [0.01, 1.0, 2.0, None])
@pytest.mark.parametrize("text", TEXTS)
def test_forward_and_back(text: str, scale: float | None, clip: float | None) -> None:
    one = columns(text, scale=scale, clip=clip)
    values = np.concatenate([[0.0, 1e-9], np.geomspace(1e-3, 1e5, 60)])[:, None]
    squashed = one.apply(values)
    assert (np.diff(squashed[:, 0]) > 0).all()
    np.testing.assert_allclose(one.invert(squashed, unscale=True), values, rtol=1e-9, atol=1e-12)


def test_forward_by_hand() -> None:
    y = np.array([[15.0]])
    assert columns("new:sum_sqrt", clip=2, scale=1).apply(y)[0, 0] == pytest.approx(1 + np.sqrt(2))
    assert columns("new:sum_exp75", clip=None, scale=1).apply(y)[0, 0] == pytest.approx(7.0)
    assert columns("old:sum_sqrt", clip=4, scale=3).apply(np.array([[16.0]]))[0, 0] == 18.0


def test_every_track_by_its_own_rule() -> None:
    rows = [parse_transform(x) for x in TEXTS * 2]
    clips = np.linspace(1, 6, len(rows)).tolist()
    scales = np.linspace(0.1, 2, len(rows)).tolist()
    together = transforms_of(rows, clips, scales)
    values = np.random.default_rng(1).gamma(1, 6, (2, 5, len(rows))).astype("f4")
    got = together.invert(values)
    assert got.dtype == np.float64
    for t, row in enumerate(rows):
        alone = transforms_of([row], clips[t : t + 1], scales[t : t + 1])
        np.testing.assert_array_equal(got[..., t : t + 1], alone.invert(values[..., t : t + 1]))
    some = np.array([9, 3, 0])
    np.testing.assert_array_equal(together.take(some).invert(values[..., some]), got[..., some])


def test_negative_numbers_without_a_power_are_nan() -> None:
    assert np.isnan(columns("old:sum_sqrt", clip=None).invert(np.array([[-1.0]]))).all()


@pytest.mark.parametrize("text", [*TEXTS, "none:sum_sqrt", "new:avg_sqrt", "old:max"])
def test_text_round_trip(text: str) -> None:
    assert parse_transform(text).text == text


def test_an_empty_transform_is_none() -> None:
    assert parse_transform(" ") == Transform("none", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sum_sqrt", "versions none, old, new"),
        ("New:sum", "versions none, old, new"),
        ("new", "statistics sum, mean"),
        ("new:peak", "statistics sum, mean"),
        ("new:sum_log", "_sqrt, _exp75"),
        ("old:sum_exp75", "_sqrt"),
    ],
)
def test_what_is_no_transform(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_transform(text)


@pytest.mark.parametrize(
    ("text", "version", "wanted"),
    [
        ("new:sum_sqrt", "old", "old:sum_sqrt"),
        ("old:sum", "none", "none:sum"),
        ("none", "none", "none"),
    ],
)
def test_another_version(text: str, version: Version, wanted: str) -> None:
    assert with_version(parse_transform(text), version).text == wanted


@pytest.mark.parametrize("text", ["none", "new:sum_exp75"])
def test_a_version_that_does_not_fit(text: str) -> None:
    with pytest.raises(UsageError, match="un-transform old"):
        with_version(parse_transform(text), "old")
