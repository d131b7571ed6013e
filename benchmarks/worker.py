"""One configuration of one workload in a process of its own, at the driver's commands.

The driver starts it with the number of an open pipe. It waits there without computing, so that
only the worker that is being measured is busy.
"""

from __future__ import annotations

import gc
import importlib
import re
import sys
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.workloads import Case, Skipped


def memory(field: str) -> float | None:
    """This process's VmRSS (now) or VmHWM (its peak) in MiB, without the processes that it started.

    None where there is no /proc.
    """
    status = Path("/proc/self/status")
    found = re.search(rf"{field}:\s+(\d+) kB", status.read_text() if status.exists() else "")
    return int(found[1]) / 1024 if found else None


def measure(case: Case, calls: int) -> float:
    """Seconds that so many calls take in all, until a device has done the last one."""
    for _ in range(
        (calls + 2) // 4
    ):  # wakes threads, caches and clocks; one call is long by itself
        case.call()
    gc.collect()
    case.wait()
    began = time.perf_counter()
    for _ in range(calls):
        case.call()
    case.wait()
    return time.perf_counter() - began


def calls_in(case: Case, seconds: float) -> int:
    """How many calls take about `seconds`, at least one; warms up."""
    calls = 1
    while (elapsed := measure(case, calls)) < seconds / 4:
        calls *= 2
    return max(1, round(calls * seconds / elapsed))


def serve(pipe: Connection) -> None:
    """Build what the first message asks for, then answer commands until the pipe is closed."""
    workload, configuration, folder = pipe.recv()
    side = importlib.import_module(f"benchmarks.{configuration.split('-')[0]}_side")
    baseline = memory("VmRSS")
    case = side.build(workload, configuration, Path(folder))
    pipe.send(("ok", None))
    commands: dict[str, Any] = {
        "check": case.check,
        "calls": lambda seconds: calls_in(case, seconds),
        "measure": lambda calls: measure(case, calls),
        "memory": lambda: {
            "baseline_rss_mib": baseline,
            "peak_rss_mib": memory("VmHWM"),
            "peak_device_mib": case.device_mib(),
        },
    }
    while True:
        name, *arguments = pipe.recv()
        answer = commands[name](*arguments)
        case.rest()
        pipe.send(("ok", answer))


def main() -> None:
    """Serve on the pipe whose number is the argument."""
    pipe = Connection(int(sys.argv[1]))
    try:
        serve(pipe)
    except (EOFError, KeyboardInterrupt):
        pass  # the driver is done, or broken off
    except Skipped as reason:
        pipe.send(("skipped", str(reason)))
    except Exception as error:
        pipe.send(("failed", f"{type(error).__name__}: {error}\n{traceback.format_exc()}"))


if __name__ == "__main__":
    main()
