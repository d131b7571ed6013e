"""Operations that move values without changing them."""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from tinyconv.op import Op


@dataclass(frozen=True)
class Reshape(Op):
    """The same values in the same order, in another shape."""

    shape: tuple[int, ...]

    def forward(self, xp, x):
        return x.reshape(self.shape), (x.shape,)

    def backward(self, xp, gy, saved, needs):
        return (gy.reshape(saved[0]),)


@dataclass(frozen=True)
class Permute(Op):
    """y's axis i is x's axis dims[i]; transpose is the case of two axes swapped."""

    dims: tuple[int, ...]

    def forward(self, xp, x):
        return x.transpose(self.dims), ()

    def backward(self, xp, gy, saved, needs):
        back = sorted(range(len(self.dims)), key=lambda axis: self.dims[axis] % len(self.dims))
        return (gy.transpose(back),)


@dataclass(frozen=True)
class Concatenate(Op):
    """The inputs one after another along dim; every other axis must agree."""

    dim: int = 0

    def forward(self, xp, *inputs):
        return xp.concatenate(inputs, axis=self.dim), tuple(x.shape[self.dim] for x in inputs)

    def backward(self, xp, gy, saved, needs):
        parts = xp.split(gy, list(accumulate(saved[:-1])), axis=self.dim)
        return tuple(part if needed else None for part, needed in zip(parts, needs, strict=True))


@dataclass(frozen=True)
class Pad(Op):
    """x with `before` and `after` entries of `value` added along each axis (negative: cut off)."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    value: float = 0.0

    def forward(self, xp, x):
        sizes = zip(self.before, x.shape, self.after, strict=True)
        y = xp.full(tuple(b + n + a for b, n, a in sizes), self.value, x.dtype)
        inside, kept = self._overlap(x.shape)
        y[inside] = x[kept]
        return y, (x.shape,)

    def backward(self, xp, gy, saved, needs):
        (shape,) = saved
        inside, kept = self._overlap(shape)
        gx = xp.zeros(shape, gy.dtype)
        gx[kept] = gy[inside]
        return (gx,)

    def _overlap(self, shape):
        """Where x's entries lie in y, and which of x's entries those are."""
        inside, kept = [], []
        for b, n, a in zip(self.before, shape, self.after, strict=True):
            first, last = max(0, -b), n - max(0, -a)
            inside.append(slice(first + b, last + b))
            kept.append(slice(first, last))
        return tuple(inside), tuple(kept)


@dataclass(frozen=True)
class Slice(Op):
    """y = x[index], the index made of integers, slices, None and `...`: no entry is taken twice."""

    index: Any

    def forward(self, xp, x):
        return x[self.index], (x.shape,)

    def backward(self, xp, gy, saved, needs):
        (shape,) = saved
        gx = xp.zeros(shape, gy.dtype)
        gx[self.index] = gy
        return (gx,)
