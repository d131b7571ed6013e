"""The device that a training runs on: its name, its memory, and what a step needs of that."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tinyconv.backend import backend_name, precision, use_backend, xp
from tinyconv.errors import BackendError, OutOfDeviceMemoryError

# Of the free memory a batch that "would fit" leaves this part: what is needed is only estimated.
_MARGIN = 0.1


def use_device(backend: str, wanted: str | None) -> None:
    """Compute on `backend` from now on, as --backend and --precision say.

    wanted is float32, tf32 or mixed, None for the backend's own. Raises BackendError where the
    backend cannot be used or has no such precision.
    """
    if backend == "cupy":
        use_backend(backend, precision="float32" if wanted == "float32" else "tf32")
        return
    if wanted not in (None, "float32"):
        raise BackendError(
            f"--precision {wanted}: the CPU computes in float32; this is for --backend cupy"
        )
    use_backend(backend)


def computing_precision(mixed: bool) -> str:
    """In which precision a training computes: float32, tf32, or mixed where that is wanted."""
    if mixed:
        return "mixed"
    return "float32" if backend_name() == "numpy" else precision()


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
    """What is done with batches: `attempt(n)` does it once with n images, `undo()` takes it back.

    An attempt returns what holds on to memory until the training ends, such as a compiled step.
    An epoch has so many `images`, whose last batch may be smaller; 0 where it is left out.
    """

    attempt: Callable[[int], Any]
    images: int
    undo: Callable[[], None] = lambda: None


def out_of_memory(
    batch_size: int, works: Sequence[Work], kept: int = 0, compiled: bool = True
) -> OutOfDeviceMemoryError:
    """The error that says how many images would fit where `batch_size` did not.

    Each work is attempted at two small sizes, in fresh memory pools; what it takes while it begins,
    and what it then keeps, grow in straight lines. The works begin one after the other, compiled
    ones anew for a smaller last batch. `kept` are bytes that were freed and will be needed again.
    """
    _let_go()
    free = free_bytes() - kept
    used: dict[int, list[tuple[int, int]]] = {}
    size = max(4, batch_size // 4)
    while size >= 2 and len(used) < 2:  # one image has no variance to normalise by
        with suppress(MemoryError):
            used[size] = [_used(work, size, free) for work in works]
        _let_go()
        size //= 2
    message = f"not enough memory on {device_name()}: {_amount(free)} are free"
    if len(used) < 2:
        return OutOfDeviceMemoryError(f"{message}, too little for the smallest batch")
    (large, at_large), (small, at_small) = used.items()

    def need(size: int) -> float:
        most = held = 0.0
        for work, *points in zip(works, at_large, at_small, strict=True):
            for n in (size, work.images % size if compiled else 0):
                if n:
                    peak, stays = (
                        least + (more - least) / (large - small) * (n - small)
                        for more, least in zip(*points, strict=True)
                    )
                    most = max(most, held + peak)
                    held += stays
        return most

    needed = need(batch_size)
    # What did not fit needs more than is free: an estimate below that is too low, for all sizes.
    most = (1 - _MARGIN) * min(free, needed)
    needs = f"about {_amount(needed)}" if needed > free else "more"
    message += f", batch size {batch_size} needs {needs}"
    fits = next((n for n in range(batch_size - 1, 0, -1) if need(n) <= most), None)
    if fits is None:
        return OutOfDeviceMemoryError(f"{message}, and no smaller one would fit")
    return OutOfDeviceMemoryError(f"{message}; batch size {fits} would fit (--batch-size {fits})")


def _amount(size: float) -> str:
    """A number of bytes as people say it."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"


def _used(work: Work, size: int, limit: int) -> tuple[int, int]:
    """The most memory that an attempt with `size` images uses at one time, and what it keeps."""
    pool, peak = xp().cuda.MemoryPool(), 0
    pool.set_limit(size=max(limit, 1))

    def malloc(size: int) -> Any:
        nonlocal peak
        memory = pool.malloc(size)
        peak = max(peak, pool.used_bytes())
        return memory

    try:
        with xp().cuda.using_allocator(malloc):
            holder = work.attempt(size)
        gc.collect()
        stays = pool.used_bytes()
        del holder
    finally:
        work.undo()
    _let_go()
    return peak, stays


def _let_go() -> None:
    """Give memory that nothing holds any more back to the device."""
    gc.collect()
    xp().get_default_memory_pool().free_all_blocks()
