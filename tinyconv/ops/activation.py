"""Activations, softmax and log-softmax.

Where a function has a kink, the gradient there is PyTorch's: 0 at ReLU's 0. Conditions are written
so that a NaN stays a NaN.
"""

from dataclasses import dataclass

from tinyconv.op import Op


@dataclass(frozen=True)
class ReLU(Op):
    """y = max(x, 0)"""

    def forward(self, xp, x):
        y = xp.maximum(x, 0)
        return y, (y,)

    def backward(self, xp, gy, saved, needs):
        (y,) = saved
        return (xp.where(y <= 0, 0, gy),)


@dataclass(frozen=True)
class ReLU6(Op):
    """y = min(max(x, 0), 6)"""

    def forward(self, xp, x):
        y = xp.clip(x, 0, 6)
        return y, (y,)

    def backward(self, xp, gy, saved, needs):
        (y,) = saved
        return (xp.where((y <= 0) | (y >= 6), 0, gy),)


@dataclass(frozen=True)
class LeakyReLU(Op):
    """y = x where x > 0, else negative_slope * x"""

    negative_slope: float = 0.01

    def forward(self, xp, x):
        return xp.where(x > 0, x, x * self.negative_slope), (x,)

    def backward(self, xp, gy, saved, needs):
        (x,) = saved
        return (xp.where(x > 0, gy, gy * self.negative_slope),)


@dataclass(frozen=True)
class Tanh(Op):
    """y = (e^x - e^-x) / (e^x + e^-x);  dy/dx = 1 - y^2"""

    def forward(self, xp, x):
        y = xp.tanh(x)
        return y, (y,)

    def backward(self, xp, gy, saved, needs):
        (y,) = saved
        return (gy * (1 - y * y),)


@dataclass(frozen=True)
class Sigmoid(Op):
    """y = 1 / (1 + e^-x);  dy/dx = y (1 - y)"""

    def forward(self, xp, x):
        # 1 / (1 + e^-x) for x >= 0, e^x / (1 + e^x) below: nothing overflows.
        small = xp.exp(-xp.abs(x))
        y = xp.where(x < 0, small, 1) / (1 + small)
        return y, (y,)

    def backward(self, xp, gy, saved, needs):
        (y,) = saved
        return (gy * y * (1 - y),)


@dataclass(frozen=True)
class Softmax(Op):
    """y_i = e^x_i / sum_j e^x_j along dim;  gx = y * (gy - sum_j gy_j y_j)"""

    dim: int = -1

    def forward(self, xp, x):
        e = xp.exp(x - x.max(axis=self.dim, keepdims=True))  # the maximum cancels: no overflow
        y = e / e.sum(axis=self.dim, keepdims=True)
        return y, (y,)

    def backward(self, xp, gy, saved, needs):
        (y,) = saved
        return (y * (gy - (gy * y).sum(axis=self.dim, keepdims=True)),)


@dataclass(frozen=True)
class LogSoftmax(Op):
    """y_i = x_i - log sum_j e^x_j along dim;  gx = gy - softmax(x) * sum_j gy_j"""

    dim: int = -1

    def forward(self, xp, x):
        y = log_softmax(xp, x, self.dim)
        return y, (y,)

    def backward(self, xp, gy, saved, needs):
        (y,) = saved
        return (gy - xp.exp(y) * gy.sum(axis=self.dim, keepdims=True),)


def log_softmax(xp, x, axis):
    """x - log sum e^x along an axis, with the row's maximum taken out first: no overflow."""
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - xp.log(xp.exp(shifted).sum(axis=axis, keepdims=True))
