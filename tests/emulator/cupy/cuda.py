"""Streams, events, graphs and memory of the one emulated device.

What a stream is given is done at once, in the order of the program. Two things are late, as they
may be on a device: copies between pinned memory and arrays on a non-blocking stream, done when that
stream gets more work or is waited for; and what a captured stream is given, done by each launch of
the graph.
"""

import contextlib
import threading
import time
import types
import weakref

import numpy

from cupy import _library


class _RuntimeError(RuntimeError):
    """CUDARuntimeError: what a device would refuse."""


class _OutOfMemoryError(MemoryError):
    pass


# Streams ------------------------------------------------------------------------------------------

_local = threading.local()
_streams: "weakref.WeakSet[Stream]" = weakref.WeakSet()


class Stream:
    """A queue of work; see the module."""

    null: "Stream"

    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        self.is_non_blocking = non_blocking
        self.ptr = 0 if null else id(self)
        self._late = []  # work that is not done yet
        self._done = 0  # how much late work was done in all
        self._captured = None  # while capturing: what was given since begin_capture()
        _streams.add(self)

    def __enter__(self):
        _stack().append(self)
        return self

    def __exit__(self, *error):
        _stack().pop()

    def use(self):
        _stack()[-1] = self
        return self

    def _submit(self, work):
        if self._captured is not None:
            self._captured.append(work)
        else:
            self._finish()
            work()

    def _submit_late(self, work):
        if self._captured is None and self.is_non_blocking:
            self._late.append(work)
        else:
            self._submit(work)

    def _finish(self, until=None):
        while self._late and (until is None or self._done < until):
            self._done += 1
            self._late.pop(0)()

    def _no_capture(self, what):
        if self._captured is not None:
            raise _RuntimeError(
                f"cudaErrorStreamCaptureUnsupported: {what} while a stream captures"
            )

    def synchronize(self):
        self._no_capture("synchronize()")
        self._finish()

    @property
    def done(self):
        self._no_capture("a query")
        return not self._late

    def record(self, event=None):
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event):
        if event._captured is not None:
            self._captured = event._captured  # this stream takes part in the capture too
            self._captured.streams.append(self)
        elif event._stream is not None:
            event._stream._finish(event._position)

    def begin_capture(self, mode=None):
        self._no_capture("begin_capture()")
        if not self.ptr:
            raise RuntimeError("cannot capture on the default stream")
        self._finish()
        self._captured = _Captured()
        self._captured.streams = [self]

    def end_capture(self):
        if self._captured is None:
            raise _RuntimeError("cudaErrorIllegalState: the stream is not capturing")
        captured = self._captured
        for stream in captured.streams:
            stream._captured = None
        return Graph(list(captured))

    def is_capturing(self):
        return self._captured is not None


class _Captured(list):
    """The work of a capture, and the streams that take part in it."""

    __slots__ = ("streams",)


Stream.null = Stream(null=True)


def _stack():
    if not hasattr(_local, "streams"):
        _local.streams = [Stream.null]
    return _local.streams


def get_current_stream(device_id=None):
    return _stack()[-1]


class Graph:
    """Work that is done anew by each launch."""

    def __init__(self, work):
        self._work = work

    def launch(self, stream=None):
        stream = stream or get_current_stream()
        for work in self._work:
            stream._submit(work)

    def upload(self, stream=None):
        pass


class Event:
    """A place in the work of a stream."""

    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self._stream = self._captured = None
        self._position = 0
        self._time = 0.0

    def record(self, stream=None):
        stream = stream or get_current_stream()
        self._stream, self._captured = stream, stream._captured
        self._position = stream._done + len(stream._late)
        self._time = time.perf_counter()

    def synchronize(self):
        if self._captured is not None:
            raise _RuntimeError("cudaErrorCapturedEvent: the event was recorded in a capture")
        if self._stream is not None:
            self._stream._finish(self._position)

    @property
    def done(self):
        return self._stream is None or self._stream._done >= self._position


def get_elapsed_time(start_event, end_event):
    """Milliseconds between two events."""
    return 1000 * (end_event._time - start_event._time)


# Memory -------------------------------------------------------------------------------------------


class _Region:
    """Memory between two stretches that must not be touched."""

    def __init__(self, size):
        self.size, self._free = size, _library.runtime().emulated_free
        self.ptr = _library.runtime().emulated_allocate(size)
        if not self.ptr:
            raise _OutOfMemoryError(f"out of memory: {size} bytes")
        capacity = -(-size // 4096) * 4096
        self.end = self.ptr + capacity
        self.__array_interface__ = {
            "data": (self.ptr, False),
            "shape": (capacity,),
            "typestr": "|u1",
            "version": 3,
        }
        numpy.asarray(self)[:] = 0xFF  # NaN, until something else is written
        _regions[self.ptr] = self

    def __del__(self):
        if self.ptr:
            self._free(self.ptr, self.size)


_regions: "weakref.WeakValueDictionary[int, _Region]" = weakref.WeakValueDictionary()


class Memory:
    """One allocation: it ends where its region does, but for alignment to 16 bytes."""

    def __init__(self, region, size, pool, key):
        self.region, self.size, self._pool, self._key = region, size, pool, key
        self.bytes = numpy.asarray(region)
        start = len(self.bytes) - (size + 15) // 16 * 16
        self.ptr = region.ptr + start
        # What lies around it in the region: nobody may write there.
        self._guards = self.bytes[:start], self.bytes[start + size :]

    def __del__(self):
        self.bytes[:] = 0xFF
        self._pool._take_back(self.region, self._key)


class UnownedMemory:
    """A part of memory that `owner` keeps alive."""

    _guards = ()

    def __init__(self, ptr, size, owner, device_id=-1):
        self.ptr, self.size, self.owner = ptr, size, owner
        found = [r for r in list(_regions.values()) if r.ptr <= ptr and ptr + size <= r.end]
        if not found:
            raise _RuntimeError(f"no memory of the device at {ptr:#x}")
        self.region = found[0]
        self.bytes = numpy.asarray(self.region)


class MemoryPointer:
    """An address in an allocation."""

    def __init__(self, mem, offset):
        self.mem, self.ptr = mem, mem.ptr + offset

    def __add__(self, offset):
        return MemoryPointer(self.mem, self.ptr - self.mem.ptr + offset)

    def __int__(self):
        return self.ptr

    def memset_async(self, value, size, stream=None):
        start = self.ptr - self.mem.region.ptr
        view = self.mem.bytes[start : start + size]
        (stream or get_current_stream())._submit(lambda: view.fill(value))

    memset = memset_async


class MemoryPool:
    """Allocations in steps of 512 bytes; what is freed serves the next of its size and stream."""

    def __init__(self, allocator=None):
        self._free = {}
        self._used = self._limit = 0

    def malloc(self, size):
        rounded = max(-(-size // 512) * 512, 512)
        key = (get_current_stream().ptr, rounded)
        free = self._free.get(key)
        if free:
            region = free.pop()
        else:
            if self._limit and self.total_bytes() + rounded > self._limit:
                self.free_all_blocks()
            if self._limit and self.total_bytes() + rounded > self._limit:
                raise _OutOfMemoryError(
                    f"Out of memory allocating {rounded:,} bytes "
                    f"(allocated so far: {self.total_bytes():,} bytes, "
                    f"limit set to: {self._limit:,} bytes)."
                )
            region = _Region(rounded)
        self._used += rounded
        return MemoryPointer(Memory(region, size, self, key), 0)

    def _take_back(self, region, key):
        self._used -= key[1]
        self._free.setdefault(key, []).append(region)

    def used_bytes(self):
        return self._used

    def free_bytes(self):
        return sum(size * len(regions) for (_, size), regions in self._free.items())

    def total_bytes(self):
        return self.used_bytes() + self.free_bytes()

    def n_free_blocks(self):
        return sum(map(len, self._free.values()))

    def free_all_blocks(self, stream=None):
        self._free = {k: v for k, v in self._free.items() if stream and k[0] != stream.ptr}

    def set_limit(self, size=None, fraction=None):
        self._limit = size if size is not None else int((fraction or 0) * _TOTAL)

    def get_limit(self):
        return self._limit


_TOTAL = 8 << 30  # bytes that the device claims to have
_default_pool = MemoryPool()
_allocator = _default_pool.malloc


def _get_default_memory_pool():
    return _default_pool


def set_allocator(allocator=None):
    global _allocator
    _allocator = allocator or _default_pool.malloc


def get_allocator():
    return getattr(_local, "allocator", None) or _allocator


@contextlib.contextmanager
def using_allocator(allocator=None):
    before = getattr(_local, "allocator", None)
    _local.allocator = allocator or _default_pool.malloc
    try:
        yield
    finally:
        _local.allocator = before


def alloc(size):
    return get_allocator()(size)


class PinnedMemoryPointer(bytearray):
    """Host memory that a stream may copy from and to later."""

    @property
    def ptr(self):
        return numpy.frombuffer(self, numpy.uint8).ctypes.data


def alloc_pinned_memory(size):
    return PinnedMemoryPointer(max(size, 1))


def _is_pinned(array):
    """Whether a NumPy array lies in pinned memory."""
    while isinstance(array, numpy.ndarray | memoryview):
        array = array.base if isinstance(array, numpy.ndarray) else array.obj
    return isinstance(array, PinnedMemoryPointer)


# The device ---------------------------------------------------------------------------------------


class Device:
    """The one emulated device."""

    def __init__(self, device=None):
        if device not in (None, 0) and getattr(device, "id", None) != 0:
            raise _RuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self.id = 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def __eq__(self, other):
        return isinstance(other, Device)

    def __hash__(self):
        return 0

    def use(self):
        pass

    def synchronize(self):
        for stream in list(_streams):
            stream.synchronize()

    compute_capability = "90"

    @property
    def mem_info(self):
        return _TOTAL - _default_pool.total_bytes(), _TOTAL

    @property
    def attributes(self):
        return {
            "MultiProcessorCount": 132,
            "MaxThreadsPerBlock": 1024,
            "MaxSharedMemoryPerBlock": 48 << 10,
            "MaxSharedMemoryPerBlockOptin": 227 << 10,
            "MaxSharedMemoryPerMultiprocessor": 228 << 10,
            "MaxThreadsPerMultiProcessor": 2048,
            "WarpSize": 32,
            "ComputeCapabilityMajor": 9,
            "ComputeCapabilityMinor": 0,
        }


def _properties(device):
    return {
        "name": b"an emulator on the CPU",
        "major": 9,
        "minor": 0,
        "multiProcessorCount": 132,
        "totalGlobalMem": _TOTAL,
    }


runtime = types.SimpleNamespace(
    CUDARuntimeError=_RuntimeError,
    getDeviceCount=lambda: 1,
    getDeviceProperties=_properties,
    getDevice=lambda: 0,
    memGetInfo=lambda: Device().mem_info,
    deviceSynchronize=lambda: Device().synchronize(),
    runtimeGetVersion=lambda: 13000,
    driverGetVersion=lambda: 13000,
)
memory = types.SimpleNamespace(OutOfMemoryError=_OutOfMemoryError, MemoryPool=MemoryPool)
