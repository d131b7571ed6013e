"""Batch normalisation."""

from dataclasses import dataclass
from typing import ClassVar

from tinyconv.op import Op


@dataclass(frozen=True)
class BatchNorm(Op):
    """y = h * weight + bias, with h = (x - mean) / sqrt(var + eps), for each channel.

    x (N, C) or (N, C, H, W); weight, bias, running_mean, running_var (C,) or None. In training,
    mean and var are those of the batch (var with 1/n), and the running statistics move towards
    them in place: r += momentum * (batch - r), with the unbiased var (1/(n - 1)). Otherwise the
    running statistics are used. In training, with means over the channel,
    gx = weight / sqrt(var + eps) * (gy - mean(gy) - h mean(gy h)). It is computed in
    float32 at least; y and gx have x's dtype.
    Source: Ioffe and Szegedy, 2015, arXiv:1502.03167.
    """

    training: bool
    momentum: float = 0.1
    eps: float = 1e-5

    mutates: ClassVar[tuple[int, ...]] = (3, 4)

    def forward(self, xp, x, weight, bias, running_mean, running_var):
        wide = xp.promote_types(x.dtype, xp.float32)
        if self.training:
            axes = _all_but_channels(x)
            mean = x.mean(axis=axes, dtype=wide)
            y = x - _channels(mean, x)
            # Two passes: E[x^2] - E[x]^2 loses all digits where the mean is large.
            var = xp.square(y).mean(axis=axes)
            if running_mean is not None:
                n = x.size // x.shape[1]
                running_mean += self.momentum * (mean - running_mean)
                running_var += self.momentum * (var * (n / (n - 1)) - running_var)
        else:
            # Copies: backward may come after a later training step has moved the statistics.
            mean, var = running_mean.astype(wide), running_var.astype(wide)
            y = x - _channels(mean, x)
        inverse_std = 1 / xp.sqrt(var + self.eps)
        y *= _channels(inverse_std if weight is None else inverse_std * weight, x)
        if bias is not None:
            y += _channels(bias, x)
        return y.astype(x.dtype, copy=False), (x, weight, mean, inverse_std)

    def backward(self, xp, gy, saved, needs):
        x, weight, mean, inverse_std = saved
        axes = _all_but_channels(x)
        normalised = (x - _channels(mean, x)) * _channels(inverse_std, x)
        gweight, gbias = (gy * normalised).sum(axis=axes), gy.sum(axis=axes, dtype=mean.dtype)
        gx = None
        if needs[0]:
            gx = gy
            if self.training:
                # mean and var depend on every x of the channel: that takes out of the gradient
                # its mean and its part along the normalised x.
                n = x.size // x.shape[1]
                gx = gy - _channels(gbias / n, x) - normalised * _channels(gweight / n, x)
            gx = gx * _channels(inverse_std if weight is None else inverse_std * weight, x)
            gx = gx.astype(x.dtype, copy=False)
        return gx, gweight if needs[1] else None, gbias if needs[2] else None, None, None


def _all_but_channels(x):
    return (0, *range(2, x.ndim))


def _channels(values, x):
    """(C,) as (1, C, 1, 1), to meet x in broadcasting."""
    return values.reshape(1, -1, *(1,) * (x.ndim - 2))
