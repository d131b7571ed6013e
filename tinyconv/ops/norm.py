"""Batch normalisation."""

from dataclasses import dataclass
from typing import ClassVar

from tinyconv.op import Op


@dataclass(frozen=True)
class BatchNorm(Op):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, for each channel.

    x (N, C) or (N, C, H, W); weight, bias, running_mean, running_var (C,) or None. In training,
    mean and var are those of the batch (var with 1/n), and the running statistics move towards
    them in place: r += momentum * (batch - r), with the unbiased var (1/(n - 1)). Otherwise the
    running statistics are used. Source: Ioffe and Szegedy, 2015, arXiv:1502.03167.
    """

    training: bool
    momentum: float = 0.1
    eps: float = 1e-5

    mutates: ClassVar[tuple[int, ...]] = (3, 4)

    def forward(self, xp, x, weight, bias, running_mean, running_var):
        if self.training:
            axes = _all_but_channels(x)
            mean = x.mean(axis=axes)
            # Two passes: E[x^2] - E[x]^2 loses all digits where the mean is large.
            var = xp.square(x - _channels(mean, x)).mean(axis=axes)
            if running_mean is not None:
                n = x.size // x.shape[1]
                running_mean += self.momentum * (mean - running_mean)
                running_var += self.momentum * (var * (n / (n - 1)) - running_var)
        else:
            # Copies: backward may come after a later training step has moved the statistics.
            mean, var = running_mean.astype(x.dtype), running_var.astype(x.dtype)
        inverse_std = 1 / xp.sqrt(var + self.eps)
        y = (x - _channels(mean, x)) * _channels(inverse_std, x)
        if weight is not None:
            y *= _channels(weight, x)
        if bias is not None:
            y += _channels(bias, x)
        return y, (x, weight, mean, inverse_std)

    def backward(self, xp, gy, saved, needs):
        x, weight, mean, inverse_std = saved
        axes = _all_but_channels(x)
        gx = gweight = gbias = None
        normalised = (x - _channels(mean, x)) * _channels(inverse_std, x)
        if needs[1]:
            gweight = (gy * normalised).sum(axis=axes)
        if needs[2]:
            gbias = gy.sum(axis=axes)
        if needs[0]:
            g = gy if weight is None else gy * _channels(weight, x)
            if self.training:
                # mean and var depend on every x of the channel: take out of the gradient its
                # mean and its part along the normalised x.
                along = (g * normalised).mean(axis=axes)
                g = g - _channels(g.mean(axis=axes), x) - normalised * _channels(along, x)
            gx = g * _channels(inverse_std, x)
        return gx, gweight, gbias, None, None


def _all_but_channels(x):
    return (0, *range(2, x.ndim))


def _channels(values, x):
    """(C,) as (1, C, 1, 1), to meet x in broadcasting."""
    return values.reshape(1, -1, *(1,) * (x.ndim - 2))
