"""Arguments that several transforms have: each check returns the value in one form, or raises
ValueError naming the argument, the value found and what was expected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

from tinyconv.data.transforms.pillow import RESAMPLING

Numbers = float | Sequence[float]  # one number, or one for each channel or each end of a range


def is_number(value: Any) -> bool:
    """Whether it is one number, NumPy's too."""
    return isinstance(value, Real)


def as_numbers(value: Any) -> tuple[float, ...]:
    """The numbers of a sequence; () for anything else."""
    values = tuple(value) if isinstance(value, Sequence) else ()
    return values if all(map(is_number, values)) else ()


def as_probability(name: str, value: float) -> float:
    """A number from 0 to 1."""
    if not (is_number(value) and 0 <= value <= 1):
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
    pair = as_numbers(value)
    if len(pair) == 2 and least <= pair[0] <= pair[1] <= most and above < pair[0]:
        return pair[0], pair[1]
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
    if not (is_number(value) and 0 <= value <= most - centre):
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
    values = as_numbers([value]) or as_numbers(value)
    if not values or not all(0 <= number <= 255 for number in values):
        raise ValueError(
            f"{name} is {value!r}; expected a number from 0 to 255, or one for each channel"
        )
    return value


def as_padding(name: str, value: int | Sequence[int]) -> tuple[int, int, int, int]:
    """Pixels (left, top, right, bottom) of one number for all, of (x, y), or of all four."""
    pixels = (value,) if isinstance(value, int) else as_numbers(value)
    if len(pixels) not in (1, 2, 4) or not all(isinstance(n, int) and n >= 0 for n in pixels):
        raise ValueError(
            f"{name} is {value!r}; expected 0 or more pixels, (x, y) or (left, top, right, bottom)"
        )
    left, top, right, bottom = (int(n) for n in pixels * (4 // len(pixels)))
    return left, top, right, bottom


def for_channels(name: str, value: Numbers, channels: int) -> tuple[int, ...]:
    """`value`, a colour, as one whole number for each channel of an image."""
    values = tuple(value) if isinstance(value, Sequence) else (value,) * channels
    if len(values) != channels:
        raise ValueError(f"{name} is {value!r}; the image has {channels} channel(s)")
    return tuple(int(number) for number in values)
