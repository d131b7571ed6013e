"""Max, average and adaptive average pooling."""

import numpy as np
import pytest

import tinyconv.functional as F

torch = pytest.importorskip("torch")

from .compare import drawn  # noqa: E402

TF = torch.nn.functional


def settings(draw, dilated):
    """kernel, stride, padding and dilation that PyTorch allows, and an image size that fits."""
    kernel = draw.pair(1, 5)
    dilation = draw.pair(1, 3) if dilated and draw.chance(0.5) else (1, 1)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    padding = tuple(draw.integer(0, k // 2) for k in kernel)
    stride = draw.one_of(None, draw.pair(1, 3), draw.pair(1, 6))
    size = [max(1, r - 2 * p + draw.integer(0, 9)) for r, p in zip(reach, padding, strict=True)]
    return kernel, stride, padding, dilation, (draw.integer(1, 2), draw.integer(1, 3), *size)


def ties(draw, shape):
    return draw.rng.integers(0, 3, shape).astype(float)


def special(draw, shape):
    """-inf nearly everywhere, then a few nan, inf and numbers."""
    values = [-np.inf] * 6 + [np.nan, np.inf, 0.0, 1.0]
    return draw.rng.choice(values, shape)


@pytest.mark.parametrize("values", ["normal", ties, special])
@drawn(45)
def test_max_pool2d(parity, draw, values):
    kernel, stride, padding, dilation, shape = settings(draw, dilated=True)
    x = draw.image(*shape) if values == "normal" else values(draw, shape)
    ceil_mode = draw.chance(0.5)
    parity.check(
        lambda x: F.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode),
        lambda x: TF.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode),
        x,
    )


@drawn(90)
def test_avg_pool2d(parity, draw):
    kernel, stride, _, _, shape = settings(draw, dilated=False)
    padding = tuple(draw.integer(0, k // 2) for k in kernel)
    options = (
        draw.chance(0.5), draw.chance(0.5), draw.one_of(None, None, draw.integer(1, 9), -2)
    )  # fmt: skip
    shape = (*shape[:2], *(max(n, k) for n, k in zip(shape[2:], kernel, strict=True)))
    parity.check(
        lambda x: F.avg_pool2d(x, kernel, stride, padding, *options),
        lambda x: TF.avg_pool2d(x, kernel, stride, padding, *options),
        draw.image(*shape),
    )


@drawn(30)
def test_adaptive_avg_pool2d(parity, draw):
    size = draw.one_of(draw.integer(1, 6), draw.pair(1, 12))
    x = draw.image(2, draw.integer(1, 3), *draw.pair(1, 11))
    parity.check(
        lambda x: F.adaptive_avg_pool2d(x, size), lambda x: TF.adaptive_avg_pool2d(x, size), x
    )


def test_empty_batches(parity):
    x = np.zeros((0, 3, 6, 6))
    parity.check(lambda x: F.max_pool2d(x, 2), lambda x: TF.max_pool2d(x, 2), x)
    parity.check(lambda x: F.avg_pool2d(x, 2), lambda x: TF.avg_pool2d(x, 2), x)
    parity.check(lambda x: F.adaptive_avg_pool2d(x, 2), lambda x: TF.adaptive_avg_pool2d(x, 2), x)


@pytest.mark.parametrize(
    ("kernel", "padding", "dilation"), [(2, 2, 1), (3, 2, 1), ((3, 1), (1, 1), 1), (2, 2, 2)]
)
def test_too_much_padding_is_refused_by_both(kernel, padding, dilation):
    x = np.zeros((1, 1, 8, 8))
    with pytest.raises(ValueError, match="padding"):
        F.max_pool2d(x, kernel, 1, padding, dilation)
    with pytest.raises(RuntimeError, match="pad"):
        TF.max_pool2d(torch.from_numpy(x), kernel, 1, padding, dilation)
