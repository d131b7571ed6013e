"""From a photo's bytes to the network's input."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyconv
import tinyconv.functional as F


@given(N=st.integers(0, 2), H=st.integers(1, 3), W=st.integers(1, 3), C=st.sampled_from([1, 3]))
def test_normalize_image(N, H, W, C, backend):
    mean, std = (0.4, 0.5, 0.6)[:C], (0.2, 0.25, 0.3)[:C]
    x = (numpy.arange(N * H * W * C) * 37 % 256).astype(numpy.uint8).reshape(N, H, W, C)
    y = F.normalize_image(x, mean, std)
    assert y.shape == (N, C, H, W)
    assert y.dtype == numpy.float32
    for n, c, h, w in numpy.ndindex(y.shape):
        expected = (int(x[n, h, w, c]) / 255 - mean[c]) / std[c]
        assert y.numpy()[n, c, h, w] == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("kernels", [True, False])
def test_the_result_lies_as_its_user_wants_it(kernels):
    tinyconv.use_backend("numpy", kernels=kernels)
    try:
        y = F.normalize_image(numpy.zeros((2, 4, 5, 3), numpy.uint8), (0.5,) * 3, (0.5,) * 3)
    finally:
        tinyconv.use_backend("numpy", kernels=True)
    lies = y.numpy().transpose(0, 2, 3, 1) if kernels else y.numpy()  # kernels: channels last
    assert lies.flags.c_contiguous


def test_bad_arguments():
    images = numpy.zeros((1, 2, 2, 3), numpy.uint8)
    with pytest.raises(tinyconv.ShapeError, match=r"\(1, 2, 2, 3\), mean 1 and std 1 values"):
        F.normalize_image(images, [0.5], [0.5])
    with pytest.raises(tinyconv.ShapeError, match=r"\(2, 2, 3\)"):
        F.normalize_image(images[0], [0.5] * 3, [0.5] * 3)
    with pytest.raises(TypeError, match="float64, expected uint8"):
        F.normalize_image(images / 255, [0.5] * 3, [0.5] * 3)
