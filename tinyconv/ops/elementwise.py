"""Arithmetic element by element, with broadcasting."""

from dataclasses import dataclass
from typing import Any

from tinyconv.op import Op


def sum_to(g, shape):
    """Sum the gradient g over the axes along which an input of `shape` was broadcast."""
    if g.shape == shape:
        return g
    if g.ndim > len(shape):
        g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    stretched = tuple(i for i, n in enumerate(shape) if n == 1 and g.shape[i] != 1)
    return g.sum(axis=stretched, keepdims=True) if stretched else g


@dataclass(frozen=True)
class Add(Op):
    """y = a + b"""

    def forward(self, xp, a, b):
        return a + b, (a.shape, b.shape)

    def backward(self, xp, gy, saved, needs):
        return tuple(sum_to(gy, saved[i]) if needs[i] else None for i in (0, 1))


@dataclass(frozen=True)
class Subtract(Op):
    """y = a - b"""

    def forward(self, xp, a, b):
        return a - b, (a.shape, b.shape)

    def backward(self, xp, gy, saved, needs):
        a_shape, b_shape = saved
        ga = sum_to(gy, a_shape) if needs[0] else None
        gb = sum_to(-gy, b_shape) if needs[1] else None
        return ga, gb


@dataclass(frozen=True)
class Multiply(Op):
    """y = a b"""

    def forward(self, xp, a, b):
        return a * b, (a, b)

    def backward(self, xp, gy, saved, needs):
        a, b = saved
        ga = sum_to(gy * b, a.shape) if needs[0] else None
        gb = sum_to(gy * a, b.shape) if needs[1] else None
        return ga, gb


@dataclass(frozen=True)
class Divide(Op):
    """y = a / b;  ga = gy / b,  gb = -gy a / b^2"""

    def forward(self, xp, a, b):
        return a / b, (a, b)

    def backward(self, xp, gy, saved, needs):
        a, b = saved
        ga = sum_to(gy / b, a.shape) if needs[0] else None
        gb = sum_to(-gy * a / (b * b), b.shape) if needs[1] else None
        return ga, gb


@dataclass(frozen=True)
class Power(Op):
    """y = x^exponent;  gx = gy exponent x^(exponent - 1)"""

    exponent: float

    def forward(self, xp, x):
        return x**self.exponent, (x,)

    def backward(self, xp, gy, saved, needs):
        (x,) = saved
        if self.exponent == 0:
            return (xp.zeros_like(gy),)
        return (gy * self.exponent * x ** (self.exponent - 1),)


@dataclass(frozen=True)
class Cast(Op):
    """y = x in another dtype"""

    dtype: Any

    def forward(self, xp, x):
        return x.astype(self.dtype), (x.dtype,)

    def backward(self, xp, gy, saved, needs):
        return (gy.astype(saved[0]),)


@dataclass(frozen=True)
class Negative(Op):
    """y = -x"""

    def forward(self, xp, x):
        return -x, ()

    def backward(self, xp, gy, saved, needs):
        return (-gy,)


@dataclass(frozen=True)
class Absolute(Op):
    """y = |x|;  the gradient at 0 is 0"""

    def forward(self, xp, x):
        return xp.abs(x), (x,)

    def backward(self, xp, gy, saved, needs):
        (x,) = saved
        return (gy * xp.sign(x),)


@dataclass(frozen=True)
class Exp(Op):
    """y = e^x"""

    def forward(self, xp, x):
        y = xp.exp(x)
        return y, (y,)

    def backward(self, xp, gy, saved, needs):
        (y,) = saved
        return (gy * y,)


@dataclass(frozen=True)
class Log(Op):
    """y = log x"""

    def forward(self, xp, x):
        return xp.log(x), (x,)

    def backward(self, xp, gy, saved, needs):
        (x,) = saved
        return (gy / x,)


@dataclass(frozen=True)
class Sqrt(Op):
    """y = sqrt x;  gx = gy / (2 y)"""

    def forward(self, xp, x):
        y = xp.sqrt(x)
        return y, (y,)

    def backward(self, xp, gy, saved, needs):
        (y,) = saved
        return (gy / (2 * y),)


@dataclass(frozen=True)
class Maximum(Op):
    """y = max(a, b);  where they are equal, each gets half of the gradient"""

    def forward(self, xp, a, b):
        y = xp.maximum(a, b)
        return y, (a, b, y)

    def backward(self, xp, gy, saved, needs):
        a, b, y = saved
        a_share = xp.where(a == b, 0.5, a == y).astype(gy.dtype)
        ga = sum_to(gy * a_share, a.shape) if needs[0] else None
        gb = sum_to(gy * (1 - a_share), b.shape) if needs[1] else None
        return ga, gb


@dataclass(frozen=True)
class Minimum(Maximum):
    """y = min(a, b);  where they are equal, each gets half of the gradient"""

    def forward(self, xp, a, b):
        y = xp.minimum(a, b)
        return y, (a, b, y)
