"""Output sizes, im2col and col2im against loops over every window."""

import numpy
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import tinyconv
from tinyconv.ops.window import Window, col2im, conv_output_size, im2col

from .drawing import pairs


def windows_counted(n, kernel_size, stride, padding, dilation, ceil_mode):
    """How many windows there are, found by putting one after another."""
    count, start = 0, -padding
    while True:
        end = start + dilation * (kernel_size - 1)  # the last pixel it meets
        if end >= n + padding:
            if ceil_mode and end - (n + padding - 1) < stride and start < n:
                count += 1
            return count
        count, start = count + 1, start + stride


SETTINGS = {
    "n": st.integers(1, 20),
    "kernel_size": st.integers(1, 5),
    "stride": st.integers(1, 5),
    "padding": st.integers(0, 4),
    "dilation": st.integers(1, 3),
}


@given(**SETTINGS)
def test_conv_output_size(n, kernel_size, stride, padding, dilation):
    expected = windows_counted(n, kernel_size, stride, padding, dilation, ceil_mode=False)
    if expected:
        assert conv_output_size(n, kernel_size, stride, padding, dilation) == expected
    else:
        with pytest.raises(tinyconv.ShapeError, match=f"{n} pixels with padding {padding}"):
            conv_output_size(n, kernel_size, stride, padding, dilation)


@given(**SETTINGS)
def test_conv_output_size_in_ceil_mode(n, kernel_size, stride, padding, dilation):
    reach = dilation * (kernel_size - 1) + 1
    assume(2 * padding <= reach <= n + 2 * padding)  # pooling refuses more padding
    expected = windows_counted(n, kernel_size, stride, padding, dilation, ceil_mode=True)
    assert conv_output_size(n, kernel_size, stride, padding, dilation, True) == expected


def test_ceil_mode_drops_a_window_that_starts_behind_the_image():
    # ceil((3 + 2 - 2) / 2) + 1 = 3 windows, the third of which starts at pixel 3: in the border.
    assert conv_output_size(3, 2, stride=2, padding=1, ceil_mode=True) == 2
    assert conv_output_size(4, 2, stride=2, padding=1, ceil_mode=True) == 3
    assert conv_output_size(6, 3, stride=2, ceil_mode=True) == 3
    assert conv_output_size(6, 3, stride=2) == 2


def test_it_is_public():
    assert tinyconv.conv_output_size(28, 5, 1, 2) == 28
    assert tinyconv.functional.conv_output_size is tinyconv.conv_output_size


@given(
    size=pairs(1, 7), kernel=pairs(1, 3), stride=pairs(1, 3), padding=pairs(0, 2),
    dilation=pairs(1, 2), N=st.integers(1, 2), C=st.integers(1, 2),
)  # fmt: skip
def test_im2col_and_col2im(size, kernel, stride, padding, dilation, N, C):
    window = Window(kernel, stride, padding, dilation)
    (H, W), (KH, KW), (sh, sw), (ph, pw), (dh, dw) = size, kernel, stride, padding, dilation
    assume(H + 2 * ph > dh * (KH - 1) and W + 2 * pw > dw * (KW - 1))
    x = numpy.arange(1.0, N * C * H * W + 1).reshape(N, C, H, W)
    OH, OW = window.output_size(H, W)
    columns = numpy.zeros((C * KH * KW, N * OH * OW))
    met = numpy.zeros_like(x)
    for n, c, u, v, i, j in numpy.ndindex(N, C, KH, KW, OH, OW):
        h, w = i * sh + u * dh - ph, j * sw + v * dw - pw
        if 0 <= h < H and 0 <= w < W:
            columns[(c * KH + u) * KW + v, (n * OH + i) * OW + j] = x[n, c, h, w]
            met[n, c, h, w] += 1
    assert numpy.array_equal(im2col(numpy, x, window), columns)
    # Each pixel comes back as often as a window met it; those that none met, as 0.
    assert numpy.array_equal(col2im(numpy, columns, x.shape, window), x * met)
