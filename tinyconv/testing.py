"""Checks for the engine's own tests and for users who add an op or a kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from tinyconv.backend import Array, array_module, to_numpy
from tinyconv.op import Op, run, run_backward
from tinyconv.tensor import Tensor, no_grad


def relative_error(found: Any, expected: Any) -> float:
    """The largest difference of two arrays, divided by the largest value of `expected`.

    Infinity where a difference is NaN. Raises ValueError for arrays of different shapes.
    """
    found, expected = numpy.asarray(found), numpy.asarray(expected)
    if found.shape != expected.shape:
        raise ValueError(f"shapes {found.shape} and {expected.shape} differ")
    if found.size == 0:
        return 0.0
    error = float(numpy.abs(found - expected).max() / max(numpy.abs(expected).max(), 1e-30))
    return math.inf if math.isnan(error) else error


def gradient_error(
    function: Callable[..., Tensor], *inputs: numpy.ndarray, step: float = 1e-5
) -> float:
    """The worst relative error of backward() against central differences, over all float64 inputs.

    `function` takes one tensor for each input and returns a tensor; the check is made on the sum of
    its output times fixed random numbers. Inputs must stay clear of kinks and ties by more than
    `step`. Raises TypeError for inputs that are not float64: finite differences need the digits.
    """
    for x in inputs:
        if x.dtype != numpy.float64:
            raise TypeError(f"gradient_error: input is {x.dtype}, expected float64")
    tensors = [Tensor(x.copy(), requires_grad=True) for x in inputs]
    y = function(*tensors)
    projection = numpy.random.default_rng(0).standard_normal(y.shape)
    y.backward(projection)

    def projected() -> float:
        with no_grad():
            return float((function(*tensors).numpy() * projection).sum())

    worst = 0.0
    for tensor in tensors:
        differences = numpy.zeros(tensor.shape)
        for index in numpy.ndindex(tensor.shape):
            value = float(tensor.data[index])
            tensor.data[index] = value + step
            above = projected()
            tensor.data[index] = value - step
            below = projected()
            tensor.data[index] = value
            differences[index] = (above - below) / (2 * step)
        assert tensor.grad is not None
        worst = max(worst, relative_error(tensor.grad.numpy(), differences))
    return worst


def kernel_error(op: Op, *inputs: Array, needs: Sequence[bool] | None = None) -> float:
    """The worst relative error of what run() gives for `op` to its reference, both directions.

    Both backwards are run on what each of the two forwards saved: any forward must go with any
    backward. Inputs that the op writes to are compared too. `needs` says which gradients are asked
    for; by default those of all float inputs that the op does not write to.
    """
    xp = array_module(inputs[0])

    def copies() -> list[Any]:
        return [None if x is None else x.copy() for x in inputs]

    ours, theirs = copies(), copies()
    y, saved = run(op, *ours)
    y_reference, saved_reference = op.forward(xp, *theirs)
    pairs = [(ours[i], theirs[i]) for i in op.mutates if inputs[i] is not None]
    if y_reference is not None:
        pairs.append((y, y_reference))
        if needs is None:
            needs = [
                x is not None and x.dtype.kind == "f" and i not in op.mutates
                for i, x in enumerate(inputs)
            ]
        gy = xp.asarray(
            numpy.random.default_rng(0).standard_normal(y_reference.shape), y_reference.dtype
        )
        needs = tuple(needs)
        expected = op.backward(xp, gy, saved_reference, needs)
        for found in (
            run_backward(op, gy, saved, needs),
            run_backward(op, gy, saved_reference, needs),
            op.backward(xp, gy, saved, needs),
        ):
            pairs += [(a, b) for a, b in zip(found, expected, strict=True) if b is not None]
    return max(relative_error(to_numpy(a), to_numpy(b)) for a, b in pairs)
