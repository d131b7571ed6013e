"""Conditions that kernels share."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

_FLOATS = (np.float32, np.float16)


def on_gpu(xp: ModuleType, *arrays: Any) -> bool:
    """Whether all arrays (None left aside) are CuPy's and hold something."""
    return xp.__name__ == "cupy" and all(
        a is None or (isinstance(a, xp.ndarray) and a.size) for a in arrays
    )


def floats(xp: ModuleType, *arrays: Any) -> bool:
    """Whether all arrays (None left aside) are CuPy's, float32 or float16, and hold something."""
    return on_gpu(xp, *arrays) and all(a is None or a.dtype in _FLOATS for a in arrays)


def float32(xp: ModuleType, *arrays: Any) -> bool:
    """Whether all arrays (None left aside) are CuPy's and float32, and hold something."""
    return on_gpu(xp, *arrays) and all(a is None or a.dtype == np.float32 for a in arrays)
