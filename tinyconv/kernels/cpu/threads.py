"""The threads that kernels compute on: one setting for all of them, BLAS included.

TINYCONV_NUM_THREADS says how many there are (default: all cores this process may use).
"""

from __future__ import annotations

import os
import queue
import threading
import time

import numpy as np

from tinyconv.kernels.cpu.runner import CANCELLED, PARTS, run_table, wait_for_change

# How often an idle thread looks for work before it goes to sleep: some 50 microseconds, about what
# it takes to wake a thread that sleeps.
_TURNS = 20_000

_threads = 0
_workers: list[_Worker] = []
_busy = threading.Lock()


def num_threads() -> int:
    """How many threads kernels may use.

    Raises ValueError where TINYCONV_NUM_THREADS is not a whole number >= 1.
    """
    global _threads
    if not _threads:
        set_num_threads(_from_environment())
    return _threads


def set_num_threads(number: int) -> None:
    """Use so many threads from now on, in kernels and in BLAS. Raises ValueError below 1."""
    global _threads
    if number < 1:
        raise ValueError(f"num_threads: {number} found, expected a whole number >= 1")
    import threadpoolctl

    threadpoolctl.threadpool_limits(number, user_api="blas")
    _threads = number


def _from_environment() -> int:
    text = os.environ.get("TINYCONV_NUM_THREADS", "")
    if not text:
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"TINYCONV_NUM_THREADS: {text!r} found, expected a whole number >= 1")
    return int(text)


def run(table: np.ndarray, ticks: np.ndarray, most: int | None = None) -> None:
    """Run all rows of a table (see runner.py), on `most` threads at most.

    The result does not depend on the number of threads: the parts of a row do not.
    """
    threads = min(most or num_threads(), int(table[:, PARTS].max(initial=1)))
    barrier = np.zeros(1, np.int64)
    # Two threads of the caller's may compute at a time: the second one does all parts itself.
    if threads == 1 or not _busy.acquire(blocking=False):
        run_table(table, 0, len(table), 0, 1, barrier, ticks)
        return
    try:
        while len(_workers) < threads - 1:
            _workers.append(_Worker())
        for thread in range(1, threads):
            _workers[thread - 1].begin((table, 0, len(table), thread, threads, barrier, ticks))
        run_table(table, 0, len(table), 0, threads, barrier, ticks)
        # The last barrier has been passed: nobody works on the arrays any more.
    except BaseException:  # Ctrl-C before this thread took part: the others must not wait for it
        barrier[0] = CANCELLED
        while any(worker.finished < worker.begun for worker in _workers):
            time.sleep(0.001)
        raise
    finally:
        _busy.release()


class _Worker:
    """A thread that waits to be handed a table, first awake and then asleep."""

    def __init__(self) -> None:
        self._given = np.zeros(1, np.int64)  # how many tables so far
        self.begun = self.finished = 0
        self._tables: queue.SimpleQueue[tuple] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="tinyconv-kernel", daemon=True).start()

    def begin(self, call: tuple) -> None:
        self._tables.put(call)
        self._given[0] += 1
        self.begun += 1

    def _work(self) -> None:
        taken = 0
        while True:
            wait_for_change(self._given, taken, _TURNS)
            call = self._tables.get()
            taken += 1
            run_table(*call)
            self.finished += 1
            del call  # an idle thread holds no array


def _forget_workers() -> None:
    """After a fork the child has none of the parent's threads."""
    global _busy
    _workers.clear()
    _busy = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_workers)
