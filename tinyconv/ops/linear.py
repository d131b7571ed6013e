"""Matrix products: the fully connected layer and matmul."""

from dataclasses import dataclass

from tinyconv.op import Op
from tinyconv.ops.elementwise import sum_to


@dataclass(frozen=True)
class Linear(Op):
    """y = x w^T + b;  gx = gy w,  gw = gy^T x,  gb = sum of gy

    x (..., I), w (O, I), b (O,) or None -> y (..., O). It is computed in w's dtype; y has x's.
    """

    def forward(self, xp, x, w, b):
        y = x.astype(w.dtype, copy=False) @ w.T
        if b is not None:
            y += b
        return y.astype(x.dtype, copy=False), (x, w)

    def backward(self, xp, gy, saved, needs):
        x, w = saved
        gy = gy.astype(w.dtype, copy=False)
        rows = gy.reshape(-1, gy.shape[-1])
        gx = (gy @ w).astype(x.dtype, copy=False) if needs[0] else None
        gw = rows.T @ x.reshape(-1, x.shape[-1]) if needs[1] else None
        gb = rows.sum(axis=0) if needs[2] else None
        return gx, gw, gb


@dataclass(frozen=True)
class MatMul(Op):
    """y = a b;  ga = gy b^T,  gb = a^T gy;  matrices in the last two axes, the others broadcast

    a (..., I, K), b (..., K, J) -> y (..., I, J).
    """

    def forward(self, xp, a, b):
        return a @ b, (a, b)

    def backward(self, xp, gy, saved, needs):
        a, b = saved
        ga = sum_to(gy @ b.swapaxes(-1, -2), a.shape) if needs[0] else None
        gb = sum_to(a.swapaxes(-1, -2) @ gy, b.shape) if needs[1] else None
        return ga, gb
