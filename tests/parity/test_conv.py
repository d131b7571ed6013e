"""Convolution, unfold and fold."""

import numpy as np
import pytest

import tinyconv.functional as F

torch = pytest.importorskip("torch")

from .compare import drawn  # noqa: E402

TF = torch.nn.functional


def reach(kernel, dilation):
    return [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]


@drawn(120)
def test_conv2d(parity, draw):
    groups = draw.one_of(1, 1, 1, 2, 3)
    C, O = groups * draw.integer(1, 3), groups * draw.integer(1, 3)
    kernel, stride, dilation = draw.pair(1, 5), draw.pair(1, 4), draw.pair(1, 3)
    padding = draw.one_of(draw.pair(0, 3), draw.integer(0, 3), 0, "valid")
    p = padding if isinstance(padding, tuple) else (padding if padding != "valid" else 0,) * 2
    # Up to 9 pixels more than the window needs: the stride leaves out some of the last rows.
    H, W = (
        max(1, r - 2 * q + draw.integer(0, 9))
        for r, q in zip(reach(kernel, dilation), p, strict=True)
    )
    x = draw.image(draw.integer(1, 3), C, H, W)
    w, b = draw.normal(O, C // groups, *kernel), draw.normal(O)
    settings = (stride, padding, dilation, groups)
    frozen = draw.one_of((), (), (0,), (1,), (2,))
    if draw.chance(0.3):
        parity.check(
            lambda x, w: F.conv2d(x, w, None, *settings),
            lambda x, w: TF.conv2d(x, w, None, *settings),
            x, w, frozen=frozen,
        )  # fmt: skip
    else:
        parity.check(
            lambda x, w, b: F.conv2d(x, w, b, *settings),
            lambda x, w, b: TF.conv2d(x, w, b, *settings),
            x, w, b, frozen=frozen,
        )  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@drawn(25)
def test_conv2d_same(parity, draw):
    groups = draw.one_of(1, 2)
    kernel, dilation = draw.pair(1, 5), draw.pair(1, 3)
    x = draw.image(2, 2 * groups, *draw.pair(1, 9))
    w = draw.normal(3 * groups, 2, *kernel)
    parity.check(
        lambda x, w: F.conv2d(x, w, padding="same", dilation=dilation, groups=groups),
        lambda x, w: TF.conv2d(x, w, padding="same", dilation=dilation, groups=groups),
        x,
        w,
    )


def test_conv2d_depthwise_and_pointwise(parity):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 6, 9, 7))
    for w, groups in (
        (rng.standard_normal((12, 1, 3, 3)), 6),
        (rng.standard_normal((4, 6, 1, 1)), 1),
    ):
        parity.check(
            lambda x, w, groups=groups: F.conv2d(x, w, None, 2, 1, 1, groups),
            lambda x, w, groups=groups: TF.conv2d(x, w, None, 2, 1, 1, groups),
            x,
            w,
        )


def test_conv2d_of_an_empty_batch(parity):
    x, w, b = np.zeros((0, 4, 5, 5)), np.ones((6, 2, 3, 3)), np.ones(6)
    parity.check(
        lambda x, w, b: F.conv2d(x, w, b, groups=2),
        lambda x, w, b: TF.conv2d(x, w, b, groups=2),
        x,
        w,
        b,
    )


@drawn(40)
def test_unfold_and_fold(parity, draw):
    kernel, stride, dilation, padding = (
        draw.pair(1, 4), draw.pair(1, 3), draw.pair(1, 2), draw.pair(0, 2)
    )  # fmt: skip
    size = tuple(
        max(1, r - 2 * p + draw.integer(0, 6))
        for r, p in zip(reach(kernel, dilation), padding, strict=True)
    )
    x = draw.image(draw.integer(1, 2), draw.integer(1, 3), *size)
    settings = (kernel, dilation, padding, stride)
    parity.check(lambda x: F.unfold(x, *settings), lambda x: TF.unfold(x, *settings), x)
    columns = draw.normal(*TF.unfold(torch.from_numpy(x), *settings).shape)
    parity.check(
        lambda x: F.fold(x, size, *settings), lambda x: TF.fold(x, size, *settings), columns
    )
