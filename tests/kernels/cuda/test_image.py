"""Bytes to normalised floats, and batches of a data set on the device."""

import numpy as np
import pytest

from tinyconv.op import run, which
from tinyconv.ops.image import Gather, NormalizeImage

MEAN, STD = (0.485, 0.456, 0.406, 0.5), (0.229, 0.224, 0.225, 0.3)


def photos(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (1, 1, 1, 1), (3, 28, 28, 1), (2, 9, 3, 4),
                                   (1, 3, 3, 2), (2, 40, 40, 3)])  # fmt: skip
def test_normalize(cuda, dtype, shape):
    C = shape[3]
    op = NormalizeImage(MEAN[:C], STD[:C], np.dtype(dtype))
    x = cuda.asarray(photos(*shape))
    assert which(op, "forward", x) == "normalize_channels_last"
    y, _ = run(op, x)
    assert y.dtype == dtype
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous
    scaled = (photos(*shape) / 255 - MEAN[:C]) / STD[:C]
    step = np.finfo(dtype).eps
    np.testing.assert_allclose(y.get(), scaled.transpose(0, 3, 1, 2), rtol=step, atol=8e-7)


def test_bytes_at_an_odd_address_and_turned(cuda):
    op, x = NormalizeImage(MEAN[:3], STD[:3], np.dtype(np.float32)), photos(3, 5, 7, 3)
    whole = run(op, cuda.asarray(x))[0].get()
    odd = cuda.asarray(np.append(np.uint8(0), x.ravel()))[1:].reshape(x.shape)
    turned = cuda.asarray(x.transpose(3, 0, 2, 1).copy()).transpose(1, 3, 2, 0)
    for given in (odd, turned):
        np.testing.assert_array_equal(run(op, given)[0].get(), whole)


@pytest.mark.parametrize(
    "x",
    [photos(9, 4, 4, 3), photos(9, 28, 28, 1), photos(9, 5, 3, 3), photos(9, 3, 3, 4),
     np.arange(9), np.arange(18.0).reshape(9, 2)],
    ids=lambda x: f"{x.dtype}{x.shape}",
)  # fmt: skip
@pytest.mark.parametrize("count", [1, 300])
def test_gather(cuda, x, count):
    indices = np.random.default_rng(1).integers(0, 9, count)
    given = cuda.asarray(x), cuda.asarray(indices)
    assert which(Gather(), "forward", *given) == "gather_rows"
    np.testing.assert_array_equal(run(Gather(), *given)[0].get(), x[indices], strict=True)


def test_gather_from_an_odd_address(cuda):
    x, indices = photos(9, 32)[1:], np.array([7, 0, 3])
    odd = cuda.asarray(np.append(np.uint8(0), x.ravel()))[1:].reshape(x.shape)
    np.testing.assert_array_equal(run(Gather(), odd, cuda.asarray(indices))[0].get(), x[indices])


def test_where_the_reference_is_used(cuda):
    op = NormalizeImage((0.5,) * 5, (0.5,) * 5, np.dtype(np.float32))
    assert which(op, "forward", cuda.asarray(photos(1, 2, 2, 5))) == "reference"
    op = NormalizeImage((0.5,), (0.5,), np.dtype(np.float64))
    assert which(op, "forward", cuda.asarray(photos(1, 2, 2, 1))) == "reference"
    rows = cuda.asarray(photos(4, 6))[:, ::2]
    assert which(Gather(), "forward", rows, cuda.arange(3)) == "reference"
