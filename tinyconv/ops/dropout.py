"""Dropout, with random numbers that are the same on every backend."""

from dataclasses import dataclass
from typing import ClassVar

from tinyconv.op import Op


def uniform(xp, stream, size):
    """`size` uniform numbers in [0, 1), the next of the stream [seed, position] (uint64), moved on.

    SplitMix64 read at random places: number i is a hash of seed and i, so all are computed at once
    and alike on any device. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number
    generators", OOPSLA 2014.
    """
    z = (stream[1] + xp.arange(1, size + 1, dtype=xp.uint64)) * xp.uint64(0x9E3779B97F4A7C15)
    z = z ^ _mix(xp, stream[:1])
    stream[1:] += xp.uint64(size)
    return (_mix(xp, z) >> xp.uint64(40)).astype(xp.float32) * xp.float32(2**-24)


def _mix(xp, z):
    z = (z ^ (z >> xp.uint64(30))) * xp.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> xp.uint64(27))) * xp.uint64(0x94D049BB133111EB)
    return z ^ (z >> xp.uint64(31))


@dataclass(frozen=True)
class Dropout(Op):
    """y = x / (1 - p) with probability 1 - p, else 0, drawn for each element.

    The second input is the random stream [seed, position] (uint64, shape (2,)), moved on in place.
    Source: Srivastava et al., JMLR 15, 2014 (the scaling is done in training: "inverted").
    """

    p: float = 0.5

    mutates: ClassVar[tuple[int, ...]] = (1,)

    def forward(self, xp, x, stream):
        keep = uniform(xp, stream, x.size).reshape(x.shape) >= self.p
        scale = keep.astype(x.dtype) * (1 / (1 - self.p) if self.p < 1 else 0)
        return x * scale, (scale,)

    def backward(self, xp, gy, saved, needs):
        (scale,) = saved
        return gy * scale, None
