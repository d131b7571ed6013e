"""Updates of one parameter by an optimiser, in place.

p is the parameter, g its gradient; arrays that a setting makes needless (v_max without amsgrad)
may be None. lr is an array of shape () and t the number of this step, an array of shape () too, so
that a recorded step reads their values anew each time. Formulas and their order are PyTorch's
(torch.optim).
"""

from dataclasses import dataclass
from typing import ClassVar

from tinyconv.op import Op


@dataclass(frozen=True)
class CountStep(Op):
    """t += 1"""

    mutates: ClassVar[tuple[int, ...]] = (0,)

    def forward(self, xp, t):
        t += 1
        return None, ()


@dataclass(frozen=True)
class Update(Op):
    """What all updates share: g + weight_decay p (L2) + l1 sign(p) (L1) takes the gradient's place.

    sign(0) = 0: the subgradient of |p| at 0 is taken as 0.
    """

    weight_decay: float = 0.0
    l1: float = 0.0
    maximize: bool = False

    def _gradient(self, xp, p, g):
        if self.maximize:
            g = -g
        if self.weight_decay:
            g = g + self.weight_decay * p
        if self.l1:
            g = g + self.l1 * xp.sign(p)
        return g


@dataclass(frozen=True)
class SGDUpdate(Update):
    """v = momentum v + (1 - dampening) g;  p -= lr v;  Nesterov: p -= lr (g + momentum v).

    v starts as the first g itself (t = 1), not damped.
    """

    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False

    mutates: ClassVar[tuple[int, ...]] = (0, 4)

    def forward(self, xp, p, g, lr, t, v):
        g = self._gradient(xp, p, g)
        if self.momentum:
            damping = xp.where(t == 1, 1, 1 - self.dampening).astype(p.dtype)
            v *= self.momentum
            v += damping * g
            g = g + self.momentum * v if self.nesterov else v
        p -= lr.astype(p.dtype) * g
        return None, ()


@dataclass(frozen=True)
class AdamUpdate(Update):
    """m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p -= lr m' / (sqrt(v') + eps)

    with m' = m / (1 - b1^t), v' = v / (1 - b2^t); amsgrad takes the largest v so far. `shrink` is
    AdamW's weight decay, apart from the gradient: p -= lr shrink p. Sources: Kingma and Ba, 2014,
    arXiv:1412.6980; Loshchilov and Hutter, 2017, arXiv:1711.05101; Reddi et al., 2018 (amsgrad).
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    shrink: float = 0.0
    amsgrad: bool = False

    mutates: ClassVar[tuple[int, ...]] = (0, 4, 5, 6)

    def forward(self, xp, p, g, lr, t, m, v, v_max):
        b1, b2 = self.betas
        step_size = (lr / (1 - b1**t)).astype(p.dtype)
        correction = xp.sqrt(1 - b2**t).astype(p.dtype)
        if self.shrink:
            p *= (1 - lr * self.shrink).astype(p.dtype)
        g = self._gradient(xp, p, g)
        m += (1 - b1) * (g - m)
        v *= b2
        v += (1 - b2) * g * g
        if self.amsgrad:
            xp.maximum(v_max, v, out=v_max)
            v = v_max
        p -= step_size * m / (xp.sqrt(v) / correction + self.eps)
        return None, ()


@dataclass(frozen=True)
class RMSpropUpdate(Update):
    """v = a v + (1 - a) g^2;  p -= lr g / (sqrt(v) + eps)

    `centered` takes v - mean(g)^2 for v, with a running mean of g; with momentum u the quotient is
    collected in buf = u buf + g / (...), and p -= lr buf. Source: Hinton, lecture 6e, 2012.
    """

    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    centered: bool = False

    mutates: ClassVar[tuple[int, ...]] = (0, 4, 5, 6)

    def forward(self, xp, p, g, lr, t, v, mean, buf):
        g = self._gradient(xp, p, g)
        v *= self.alpha
        v += (1 - self.alpha) * g * g
        variance = v
        if self.centered:
            mean += (1 - self.alpha) * (g - mean)
            variance = v - mean * mean
        step = g / (xp.sqrt(variance) + self.eps)
        if self.momentum:
            buf *= self.momentum
            buf += step
            step = buf
        p -= lr.astype(p.dtype) * step
        return None, ()


# Mixed precision: gradients of float16 are computed of scale * loss, so that small ones do not
# become 0. `scaling` is float32 (3,): the scale; 1 where a gradient overflowed, else 0; steps since
# the scale was last changed, -1 once one of them overflowed (of several optimisers, any). Source:
# Micikevicius et al., 2017, arXiv:1710.03740.


@dataclass(frozen=True)
class CheckGradients(Op):
    """scaling[1] = 1, scaling[2] = -1 if a gradient g holds infinity or NaN; else scaling[1] = 0"""

    mutates: ClassVar[tuple[int, ...]] = (0,)

    def forward(self, xp, scaling, *gradients):
        scaling[1] = 0
        for g in gradients:
            scaling[1] = xp.maximum(scaling[1], ~xp.isfinite(g).all())
        scaling[2] = xp.where(scaling[1] > 0, -1, scaling[2])
        return None, ()


@dataclass(frozen=True)
class Scaled(Op):
    """`op`, an update or CountStep, with g / scale for g; nothing at all if a gradient overflowed.

    Its inputs are scaling, then those of `op`.
    """

    op: Op

    @property
    def mutates(self):  # type: ignore[override]
        return tuple(i + 1 for i in self.op.mutates)

    def forward(self, xp, scaling, *inputs):
        if scaling[1]:
            return None, ()
        if isinstance(self.op, Update):
            p, g, *rest = inputs
            inputs = (p, g / scaling[0], *rest)
        return self.op.forward(xp, *inputs)


@dataclass(frozen=True)
class AdjustScale(Op):
    """scale *= backoff after an overflow; scale *= growth after `interval` steps without one.

    It stays finite.
    """

    growth: float = 2.0
    backoff: float = 0.5
    interval: int = 2000

    mutates: ClassVar[tuple[int, ...]] = (0,)

    def forward(self, xp, scaling):
        overflow = scaling[2] < 0
        steps = xp.where(overflow, 0, scaling[2] + 1)
        grown = steps == self.interval
        growth = xp.where(grown & xp.isfinite(scaling[0] * self.growth), self.growth, 1)
        scaling[0] *= xp.where(overflow, self.backoff, growth)
        scaling[2] = xp.where(grown, 0, steps)
        return None, ()
