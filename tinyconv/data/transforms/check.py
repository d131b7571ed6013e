"""Arguments that several transforms have: each check returns the value in one form, or raises
ValueError naming the argument, the value found and what was expected."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tinyconv.data.transforms.pillow import RESAMPLING

Numbers = float | Sequence[float]  # one number, or one for each channel or each end of a range


def as_probability(name: str, value: float) -> float:
    """A number from 0 to 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value!r}; expected a probability from 0 to 1")
    return value


def as_range(
    name: str,
    value: Numbers,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
) -> tuple[float, float]:
    """(low, high), both from `least` to `most` and greater than `above`."""
    pair = tuple(value) if isinstance(value, Sequence) else ()
    if len(pair) == 2 and least <= pair[0] <= pair[1] <= most and above < pair[0]:
        return pair
    bounds = [
        f"{words} {bound:g}"
        for words, bound in (("above", above), ("at least", least), ("at most", most))
        if math.isfinite(bound)
    ]
    raise ValueError(
        ", ".join([f"{name} is {value!r}; expected (low, high) with low <= high", *bounds])
    )


def as_spread(
    name: str, value: Numbers, centre: float, least: float, most: float
) -> tuple[float, float]:
    """(low, high) as it is, or a number s as (centre - s, centre + s), cut off at `least`."""
    if isinstance(value, Sequence):
        return as_range(name, value, least, most)
    if not 0 <= value <= most - centre:
        limit = "" if most == math.inf else f" to {most - centre:g}"
        raise ValueError(f"{name} is {value!r}; expected 0 or more{limit}, or (low, high)")
    return max(centre - value, least), centre + value


def as_interpolation(value: str) -> str:
    """One of the names in RESAMPLING."""
    if value not in RESAMPLING:
        raise ValueError(f"interpolation is {value!r}; expected one of {', '.join(RESAMPLING)}")
    return value


def as_colour(name: str, value: Numbers) -> Numbers:
    """A grey value from 0 to 255, or a sequence of one for each channel."""
    values = value if isinstance(value, Sequence) else (value,)
    if not values or not all(0 <= number <= 255 for number in values):
        raise ValueError(
            f"{name} is {value!r}; expected a number from 0 to 255, or one for each channel"
        )
    return value


def for_channels(name: str, value: Numbers, channels: int) -> tuple[int, ...]:
    """`value`, a colour, as one whole number for each channel of an image."""
    values = tuple(value) if isinstance(value, Sequence) else (value,) * channels
    if len(values) != channels:
        raise ValueError(f"{name} is {value!r}; the image has {channels} channel(s)")
    return tuple(int(number) for number in values)
