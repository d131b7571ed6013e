"""The device that a training runs on: its name, its memory, and what a step needs of that."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tinyconv.backend import backend_name, use_backend, xp
from tinyconv.errors import BackendError, OutOfDeviceMemoryError

# Of the free memory a batch that "would fit" leaves this part: what is needed is only estimated.
_MARGIN = 0.1


def use_device(backend: str, precision: str | None) -> None:
    """Compute on `backend` from now on, as --backend and --precision say.

    precision is float32, tf32 or mixed, None for the backend's own. Raises BackendError where the
    backend cannot be used or has no such precision.
    """
    if backend == "cupy":
        use_backend(backend, precision="float32" if precision == "float32" else "tf32")
        return
    if precision not in (None, "float32"):
        raise BackendError(
            f"--precision {precision}: the CPU computes in float32; this is for --backend cupy"
        )
    use_backend(backend)


def device_name() -> str:
    """What computes: "CPU", or the name of the GPU."""
    if backend_name() == "numpy":
        return "CPU"
    cuda = xp().cuda
    return cuda.runtime.getDeviceProperties(cuda.Device().id)["name"].decode()


def free_bytes() -> int:
    """How much memory of the GPU new arrays can take."""
    pool = xp().get_default_memory_pool()
    free = xp().cuda.runtime.memGetInfo()[0] + pool.free_bytes()
    limit = pool.get_limit()
    return min(free, limit - pool.used_bytes()) if limit else free


def lacks_memory(error: MemoryError) -> bool:
    """Whether it was the GPU's memory that was too small, not the host's."""
    return type(error).__module__.startswith("cupy")


@dataclass(frozen=True)
class Work:
    """What is done with batches: `attempt(n)` does it once with n images.

    An epoch has so many `images`, whose last batch may be smaller; 0 where it is left out.
    """

    attempt: Callable[[int], Any]
    images: int


def out_of_memory(
    batch_size: int, works: Sequence[Work], kept: int = 0, compiled: bool = True
) -> OutOfDeviceMemoryError:
    """The error that says how many images would fit where `batch_size` did not.

    Each work is attempted at two small sizes, in fresh memory pools; what it takes grows in a
    straight line. `kept` are bytes that were freed and will be needed again. Compiled, each work
    keeps memory for each size of its batches, else they have it one after the other.
    """
    _let_go()
    free = free_bytes() - kept
    peaks: dict[int, list[int]] = {}
    size = max(4, batch_size // 4)
    while size >= 2 and len(peaks) < 2:  # one image has no variance to normalise by
        with suppress(MemoryError):
            peaks[size] = [_peak(work.attempt, size, free) for work in works]
        _let_go()
        size //= 2
    message = f"not enough memory on {device_name()}: {_amount(free)} are free"
    if len(peaks) < 2:
        return OutOfDeviceMemoryError(f"{message}, too little for the smallest batch")
    (large, at_large), (small, at_small) = peaks.items()

    def need(size: int) -> float:
        takes = []
        for work, most, least in zip(works, at_large, at_small, strict=True):
            each = (most - least) / (large - small)
            sizes = (size, work.images % size)
            takes += [least + each * (n - small) for n in sizes if n]
        return sum(takes) if compiled else max(takes)

    message += f", batch size {batch_size} needs about {_amount(need(batch_size))}"
    most = (1 - _MARGIN) * free
    fits = next((n for n in range(batch_size - 1, 0, -1) if need(n) <= most), None)
    if fits is None:
        return OutOfDeviceMemoryError(f"{message}, and no smaller one would fit")
    return OutOfDeviceMemoryError(f"{message}; batch size {fits} would fit (--batch-size {fits})")


def _amount(size: float) -> str:
    """A number of bytes as people say it."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"


def _peak(step: Callable[[int], Any], size: int, limit: int) -> int:
    """The most memory that a step on `size` images has in use at one time."""
    pool, peak = xp().cuda.MemoryPool(), 0
    pool.set_limit(size=max(limit, 1))

    def malloc(size: int) -> Any:
        nonlocal peak
        memory = pool.malloc(size)
        peak = max(peak, pool.used_bytes())
        return memory

    with xp().cuda.using_allocator(malloc):
        step(size)
    return peak


def _let_go() -> None:
    """Give memory that nothing holds any more back to the device."""
    gc.collect()
    xp().get_default_memory_pool().free_all_blocks()
