"""Convolution, unfold and fold against loops over every index."""

import numpy
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import tinyconv
import tinyconv.functional as F
from tinyconv.tensor import Tensor

from .drawing import pairs, values


def conv_by_loops(x, w, b, gy, stride, padding, dilation, groups):
    """y, gx, gw, gb from the formula; gy is called with y's shape."""
    N, _, H, W = x.shape
    O, C_group, KH, KW = w.shape
    (sh, sw), (ph, pw), (dh, dw) = stride, padding, dilation
    OH = (H + 2 * ph - dh * (KH - 1) - 1) // sh + 1
    OW = (W + 2 * pw - dw * (KW - 1) - 1) // sw + 1
    y = numpy.zeros((N, O, OH, OW)) + b.reshape(1, O, 1, 1)
    gy = gy(y.shape)
    gx, gw = numpy.zeros(x.shape), numpy.zeros(w.shape)
    for n, o, i, j, k, u, v in numpy.ndindex(N, O, OH, OW, C_group, KH, KW):
        c = o // (O // groups) * C_group + k
        r, s = i * sh + u * dh - ph, j * sw + v * dw - pw
        if 0 <= r < H and 0 <= s < W:
            y[n, o, i, j] += w[o, k, u, v] * x[n, c, r, s]
            gx[n, c, r, s] += w[o, k, u, v] * gy[n, o, i, j]
            gw[o, k, u, v] += x[n, c, r, s] * gy[n, o, i, j]
    return y, gx, gw, gy.sum(axis=(0, 2, 3))


@given(
    N=st.integers(1, 2), groups=st.integers(1, 3), per_group=pairs(1, 2), size=pairs(1, 7),
    kernel=pairs(1, 3), stride=pairs(1, 3), padding=pairs(0, 2), dilation=pairs(1, 2),
    dtype=st.sampled_from([numpy.float32, numpy.float64]), channels_last=st.booleans(),
)  # fmt: skip
def test_conv2d(
    N, groups, per_group, size, kernel, stride, padding, dilation, dtype, channels_last, backend
):
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    assume(all(n + 2 * p >= r for n, p, r in zip(size, padding, reach, strict=True)))
    C, O = groups * per_group[0], groups * per_group[1]
    x, w = values((N, C, *size), dtype), values((O, per_group[0], *kernel), dtype)
    b = values((O,), dtype)
    settings = (stride, padding, dilation, groups)
    if channels_last:
        x = numpy.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    gy = lambda shape: values(shape, dtype)  # noqa: E731
    expected = conv_by_loops(x, w, b, gy, *settings)
    inputs = [Tensor(a, requires_grad=True) for a in (x, w, b)]
    y = F.conv2d(*inputs, *settings)
    y.backward(gy(y.shape))
    tolerance = 1e-12 if dtype == numpy.float64 else 1e-5
    for found, wanted in zip([y, *(a.grad for a in inputs)], expected, strict=True):
        assert found.dtype == dtype
        assert numpy.allclose(found.numpy(), wanted, rtol=tolerance, atol=10 * tolerance)


def test_rows_that_the_stride_never_reaches_get_gradient_0():
    x = Tensor(values((1, 1, 6, 6)), requires_grad=True)  # windows at rows 0-2 and 2-4: not row 5
    y = F.conv2d(x, numpy.ones((1, 1, 3, 3)), stride=2)
    y.sum().backward()
    column = numpy.array([1, 1, 2, 1, 1, 0.0])
    assert y.shape == (1, 1, 2, 2)
    assert numpy.array_equal(x.grad.numpy()[0, 0], numpy.outer(column, column))


def test_the_kernel_is_not_flipped():
    x = numpy.zeros((1, 1, 3, 3))
    x[0, 0, 0, 1] = 1
    w = numpy.arange(9.0).reshape(1, 1, 3, 3)
    assert F.conv2d(x, w).item() == 1


def test_same_padding_keeps_the_size_and_puts_the_odd_pixel_behind():
    x, w = numpy.arange(1.0, 4).reshape(1, 1, 1, 3), numpy.array([[[[1.0, 10]]]])
    assert F.conv2d(x, w, padding="same").numpy().tolist() == [[[[21, 32, 3]]]]
    for kernel in ((1, 1), (2, 3), (4, 5)):
        y = F.conv2d(numpy.ones((1, 1, 7, 6)), numpy.ones((1, 1, *kernel)), padding="same")
        assert y.shape == (1, 1, 7, 6)
    y = F.conv2d(x, w, padding="valid")
    assert y.numpy().tolist() == [[[[21, 32]]]]


def test_a_first_convolution_computes_no_gradient_of_the_photo(monkeypatch):
    monkeypatch.setattr("tinyconv.ops.conv.col2im", None)  # calling it would be an error
    w = Tensor(values((2, 1, 3, 3)), requires_grad=True)
    F.conv2d(values((1, 1, 5, 5)), w).sum().backward()
    assert w.grad is not None


def test_empty_batch():
    w = Tensor(numpy.ones((2, 3, 3, 3)), requires_grad=True)
    y = F.conv2d(numpy.ones((0, 3, 5, 5)), w)
    y.sum().backward()
    assert y.shape == (0, 2, 3, 3)
    assert not w.grad.numpy().any()


@pytest.mark.parametrize(
    ("x", "w", "settings", "message"),
    [
        ((2, 3, 8, 8), (4, 1, 3, 3), {}, r"\(2, 3, 8, 8\).*3 channels.*\(4, 1, 3, 3\).*expects 1"),
        ((3, 8, 8), (4, 3, 3, 3), {}, r"\(3, 8, 8\), expected \(N, C, H, W\)"),
        ((1, 3, 8, 8), (4, 3, 3), {}, r"weight has shape \(4, 3, 3\)"),
        ((1, 1, 2, 2), (1, 1, 3, 3), {}, "window of 3 pixels.*does not fit into 2 pixels"),
        ((1, 1, 4, 4), (1, 1, 3, 3), {"dilation": 2}, "window of 5 pixels .*dilation 2"),
        ((1, 1, 4, 4), (2, 1, 3, 3), {"bias": numpy.ones(3)}, r"bias has shape \(3,\).*\(2,\)"),
        ((1, 1, 4, 4), (2, 1, 3, 3), {"bias": numpy.ones((1, 2))}, r"bias has shape \(1, 2\)"),
    ],
)
def test_shapes_that_do_not_fit(x, w, settings, message):
    with pytest.raises(tinyconv.ShapeError, match=message):
        F.conv2d(numpy.ones(x), numpy.ones(w), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": 0}, "groups: 0 found"),
        ({"groups": 2}, "groups: 2 found, expected a divisor of 3"),
        ({"stride": 0}, "stride: 0 found"),
        ({"stride": (1, 2, 3)}, "stride"),
        ({"padding": -1}, "padding: -1 found"),
        ({"padding": "SAME"}, "padding: 'SAME' found"),
        ({"padding": "same", "stride": 2}, "'same' needs stride 1"),
        ({"dilation": 1.5}, "dilation: 1.5 found"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        F.conv2d(numpy.ones((1, 4, 8, 8)), numpy.ones((3, 4, 3, 3)), **settings)


def test_fold_adds_what_overlaps():
    x = Tensor(numpy.ones((1, 4, 4)), requires_grad=True)  # four 2x2 windows over 3x3 pixels
    y = F.fold(x, (3, 3), 2)
    assert y.numpy().tolist() == [[[[1, 2, 1], [2, 4, 2], [1, 2, 1]]]]


def test_unfold_puts_windows_into_columns():
    x = numpy.arange(6.0).reshape(1, 1, 2, 3)
    assert F.unfold(x, 2).numpy().tolist() == [[[0, 1], [1, 2], [3, 4], [4, 5]]]


@pytest.mark.parametrize("shape", [(1, 4, 5), (1, 3, 4), (4, 4)])
def test_fold_of_a_wrong_number_of_columns(shape):
    with pytest.raises(tinyconv.ShapeError, match=r"expected \(N, a multiple of 4, 4\)"):
        F.fold(numpy.ones(shape), (3, 3), 2)
