"""Initial weights, drawn on the host so that one seed gives the same network on every backend."""

from __future__ import annotations

import math

import numpy

from tinyconv.backend import generator
from tinyconv.nn.module import Parameter


def uniform_fan_in(shape: tuple[int, ...], fan_in: int) -> Parameter:
    """float32 weights, uniform in +-1 / sqrt(fan_in): PyTorch's default for layers.

    It is He initialisation, "kaiming_uniform", with a = sqrt(5). Source: He et al., 2015,
    arXiv:1502.01852; torch.nn.Linear.reset_parameters.
    """
    bound = 1 / math.sqrt(fan_in) if fan_in else 0
    return Parameter(generator().uniform(-bound, bound, shape).astype(numpy.float32))
