"""Memory of large arrays is used again, and never while anything still looks at it."""

import numpy as np
import pytest

from tinyconv.kernels.cpu import reuse

LARGE = (300, 1000)


@pytest.fixture(autouse=True)
def nothing_idle(monkeypatch):
    monkeypatch.setattr(reuse, "_idle", type(reuse._idle)())
    monkeypatch.setattr(reuse, "_ended", type(reuse._ended)())


def test_memory_is_used_again():
    address = reuse.empty(LARGE, np.float32).ctypes.data
    array = reuse.empty((290, 1000), np.float32)
    assert array.ctypes.data == address
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert reuse.empty(LARGE, np.float32).ctypes.data != address


def test_a_view_keeps_the_memory():
    array = reuse.empty(LARGE, np.float32)
    array[:] = 7
    view = array.T.reshape(1000, 3, 100)[5:]
    del array
    other = reuse.empty(LARGE, np.float32)
    other[:] = 0
    assert (view == 7).all()


def test_small_arrays_are_ordinary():
    assert reuse.empty((3,), np.float64).flags.owndata
    assert reuse.empty((), np.float32).shape == ()


def test_idle_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(reuse, "_KEPT", 3_000_000)
    arrays = [reuse.empty(LARGE, np.float32) for _ in range(5)]
    del arrays
    reuse._collect()
    assert sum(block.nbytes for block in reuse._idle.values()) <= 3_000_000
    assert len(reuse._idle) == 2
