"""Chains of ops as one op each, so that a kernel can do them in one pass over memory.

The compiler puts them in the place of the chain. Their reference is the composition of the plain
ops; what lies between the ops is never kept, backward works it out again from what is saved.
"""

from dataclasses import dataclass
from typing import ClassVar

from tinyconv.op import Op
from tinyconv.ops.activation import ReLU, ReLU6
from tinyconv.ops.conv import Conv2d
from tinyconv.ops.norm import BatchNorm
from tinyconv.ops.pool import MaxPool2d
from tinyconv.ops.shape import Pad


@dataclass(frozen=True)
class PaddedConv2d(Conv2d):
    """y = conv(pad(x)): besides Conv2d's padding, zeros before and after (rows, columns).

    So the two ends may differ, as "same" padding wants it for even kernels and strides. Saves x, w.
    """

    before: tuple[int, int] = (0, 0)
    after: tuple[int, int] = (0, 0)

    def forward(self, xp, x, w, b):
        y, (_, w) = super().forward(xp, self._pad().forward(xp, x)[0], w, b)
        return y, (x, w)

    def backward(self, xp, gy, saved, needs):
        x, w = saved
        padded, shape = self._pad().forward(xp, x)
        gx, gw, gb = super().backward(xp, gy, (padded, w), needs)
        if needs[0]:
            (gx,) = self._pad().backward(xp, gx, shape, (True,))
        return gx, gw, gb

    def _pad(self):
        return Pad((0, 0, *self.before), (0, 0, *self.after))


@dataclass(frozen=True)
class ConvNormReLU(Op):
    """y = relu(norm(conv(x, w, b), ...) + residual), for inference: the norm is in evaluation.

    x, w, b as Conv2d, then as BatchNorm: weight, bias, running_mean, running_var; then the residual
    of y's shape, if there is one. relu: ReLU, ReLU6 or None.
    """

    conv: Conv2d
    norm: BatchNorm
    relu: ReLU | ReLU6 | None

    def forward(self, xp, x, w, b, weight, bias, running_mean, running_var, residual=None):
        y, _ = self.conv.forward(xp, x, w, b)
        y, _ = self.norm.forward(xp, y, weight, bias, running_mean, running_var)
        if residual is not None:
            y = y + residual
        return (y if self.relu is None else self.relu.forward(xp, y)[0]), ()


@dataclass(frozen=True)
class NormReLUPool(Op):
    """y = pool(relu(norm(x))), or with relu_first pool(norm(relu(x))); pool may be None.

    With relu6 it is y = relu6(norm(x)), without a pool.

    x (N, C, H, W), then as BatchNorm: weight, bias, running_mean, running_var (C,) or None, the
    last two moved in place -> y (N, C, OH, OW). Saves x, weight, mean and inverse_std of what was
    normalised, y, and the pool's winner (None without a pool).
    """

    norm: BatchNorm
    pool: MaxPool2d | None
    relu_first: bool
    relu6: bool = False

    mutates: ClassVar[tuple[int, ...]] = (3, 4)

    def forward(self, xp, x, weight, bias, running_mean, running_var):
        relu, winner = ReLU6() if self.relu6 else ReLU(), None
        y = relu.forward(xp, x)[0] if self.relu_first else x
        y, saved = self.norm.forward(xp, y, weight, bias, running_mean, running_var)
        _, _, mean, inverse_std = saved
        if not self.relu_first:
            y, _ = relu.forward(xp, y)
        if self.pool is not None:
            y, (winner, _) = self.pool.forward(xp, y)
        return y, (x, weight, mean, inverse_std, y, winner)

    def backward(self, xp, gy, saved, needs):
        x, weight, mean, inverse_std, y, winner = saved
        relu = ReLU6() if self.relu6 else ReLU()
        if not self.relu_first:  # the winner is what the pool let through: its sign tells
            (gy,) = relu.backward(xp, gy, (y,), (True,))
        if self.pool is not None:
            (gy,) = self.pool.backward(xp, gy, (winner, x.shape), (True,))
        rectified = relu.forward(xp, x)[0] if self.relu_first else x
        gx, *others = self.norm.backward(xp, gy, (rectified, weight, mean, inverse_std), needs)
        if self.relu_first and needs[0]:
            (gx,) = relu.backward(xp, gx, (rectified,), (True,))
        return gx, *others


@dataclass(frozen=True)
class ReLUPool(Op):
    """y = pool(relu(x));  saves y, the pool's winner and x's shape."""

    pool: MaxPool2d

    def forward(self, xp, x):
        y, (winner, shape) = self.pool.forward(xp, ReLU().forward(xp, x)[0])
        return y, (y, winner, shape)

    def backward(self, xp, gy, saved, needs):
        y, winner, shape = saved
        (gy,) = ReLU().backward(xp, gy, (y,), (True,))
        return self.pool.backward(xp, gy, (winner, shape), (True,))


@dataclass(frozen=True)
class Together(Op):
    """The same in-place update `op` of several parameters: their inputs one after another.

    Every parameter has `width` inputs, as `op` takes them.
    """

    op: Op
    width: int

    def forward(self, xp, *inputs):
        for start in range(0, len(inputs), self.width):
            self.op.forward(xp, *inputs[start : start + self.width])
        return None, ()
