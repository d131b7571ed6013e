"""Chains of ops as one op each, so that a kernel can do them in one pass over memory.

The compiler puts them in the place of the chain. Their reference is the composition of the plain
ops; what lies between the ops is never kept, backward works it out again from what is saved.
"""

from dataclasses import dataclass
from typing import ClassVar

from tinyconv.op import Op
from tinyconv.ops.activation import ReLU
from tinyconv.ops.norm import BatchNorm
from tinyconv.ops.pool import MaxPool2d


@dataclass(frozen=True)
class NormReLUPool(Op):
    """y = pool(relu(norm(x))), or with relu_first pool(norm(relu(x))); pool may be None.

    x (N, C, H, W), then as BatchNorm: weight, bias, running_mean, running_var (C,) or None, the
    last two moved in place -> y (N, C, OH, OW). Saves x, weight, mean and inverse_std of what was
    normalised, y, and the pool's winner (None without a pool).
    """

    norm: BatchNorm
    pool: MaxPool2d | None
    relu_first: bool

    mutates: ClassVar[tuple[int, ...]] = (3, 4)

    def forward(self, xp, x, weight, bias, running_mean, running_var):
        relu, winner = ReLU(), None
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
        relu = ReLU()
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
