"""Conditions that kernels share."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np


def float32(xp: ModuleType, *arrays: Any) -> bool:
    """Whether all arrays (None left aside) are NumPy's and float32, and none is empty."""
    return xp is np and all(a is None or (a.dtype == np.float32 and a.size) for a in arrays)
