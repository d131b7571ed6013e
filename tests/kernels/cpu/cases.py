"""What the tests of kernels share: arrays in all memory layouts, results by number of threads."""

import numpy

from tinyconv.kernels.cpu import launch, threads

LAYOUTS = ("contiguous", "slice", "turned", "read-only")


def values(shape, seed=0):
    """Normal numbers in float32."""
    return numpy.random.default_rng(seed).standard_normal(shape).astype(numpy.float32)


def laid_out(x, layout):
    """A copy of x that lies so: "turned" is channels last for images, else with its axes reversed.

    "slice" is every second row of a larger array.
    """
    if layout == "slice":
        larger = numpy.empty((2 * len(x), *x.shape[1:]), x.dtype)
        larger[::2] = x
        return larger[::2]
    if layout == "turned":
        axes = (0, 2, 3, 1) if x.ndim == 4 else tuple(reversed(range(x.ndim)))
        return x.transpose(axes).copy().transpose(numpy.argsort(axes))
    y = x.copy()
    y.flags.writeable = layout != "read-only"
    return y


def by_threads(monkeypatch, compute):
    """What compute() gives with 1, 2 and 3 threads, all work cut into as many parts."""
    monkeypatch.setattr(launch, "_SMALLEST_PART", 1)
    monkeypatch.setattr(launch, "_SMALLEST_PART_ALONE", 1)
    before, results = threads.num_threads(), []
    try:
        for number in (1, 2, 3):
            threads.set_num_threads(number)
            results.append(compute())
    finally:
        threads.set_num_threads(before)
    return results
