"""The GPU: what it is, and how much of its memory is in use."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import tinyconv


def describe() -> dict[str, str] | None:
    """The first card, its driver and its memory in MiB, by nvidia-smi; None where that is not."""
    if shutil.which("nvidia-smi") is None:
        return None
    fields = ("name", "driver_version", "memory.total")
    answer = subprocess.run(
        ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    lines = answer.stdout.splitlines()
    if answer.returncode or not lines:
        return None
    return dict(zip(fields, lines[0].split(", "), strict=True))


def memory() -> dict[str, int]:
    """Bytes of CuPy's pool that arrays hold, bytes that the pool holds, bytes that nobody holds."""
    xp: Any = tinyconv.backend.xp()
    pool = xp.get_default_memory_pool()
    free, _ = xp.cuda.runtime.memGetInfo()
    return {"used": pool.used_bytes(), "pool": pool.total_bytes(), "free": free}


def memory_mib() -> float:
    """What CuPy's pool holds, in MiB: what the steps need, once they are recorded."""
    return memory()["pool"] / 2**20
