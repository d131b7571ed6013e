"""Compiling with g++, and what the compiled libraries offer: memory, and kernels to launch."""

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import nvrtc

FOLDER = Path(__file__).parents[1]
COMPILER = shutil.which("g++")
# Expressions that C++ leaves undefined end a launch; nothing of a library is seen from outside but
# the kernels, so that the same names in another one do not meet.
CHECKS = "bounds,alignment,shift,signed-integer-overflow,integer-divide-by-zero"
OPTIONS = ("-O1", "-g1", "-gdwarf-4", "-shared", "-fPIC", "-fvisibility=hidden", "-fno-gnu-unique")
KERNEL_OPTIONS = (
    *OPTIONS,
    f"-fsanitize={CHECKS}",
    "-fno-strict-aliasing",
    "-nostartfiles",  # .bss holds the kernels' shared memory and nothing else
    "-w",
)


def _cache_folder() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = folder / "tinyconv" / "emulator"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class CompileError(Exception):
    """What a compiler said."""


def _compile(text: str, options: tuple[str, ...], check: Callable[[], str] = str) -> Path:
    """The library made of `text`, compiled once for this text and these options.

    check() is asked meanwhile: what it says is an error.
    """
    header = (FOLDER / "emulated_device.h").read_text()
    key = repr((text, options, header, COMPILER, nvrtc.version(), nvrtc.ADDED))
    library = _cache_folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.so"
    if not library.exists():
        source = library.with_suffix(".cpp")
        with ThreadPoolExecutor(1) as beside, tempfile.TemporaryDirectory(dir=source.parent) as own:
            checked = beside.submit(check)
            Path(own, "source.cpp").write_text(text)
            os.replace(Path(own, "source.cpp"), source)
            made = Path(own, "made.so")
            command = [COMPILER, *options, "-I", str(FOLDER), str(source), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if said := checked.result():
                raise CompileError(said)
            if done.returncode:
                raise CompileError(done.stderr)
            os.replace(made, library)
    return library


@cache
def runtime() -> ctypes.PyDLL:
    """The scheduler and the memory (emulated_device.cpp), which all kernels share."""
    text = (FOLDER / "emulated_device.cpp").read_text()
    options = tuple(o for o in OPTIONS if "visibility" not in o)
    library = ctypes.PyDLL(str(_compile(text, ("-std=c++17", *options))), ctypes.RTLD_GLOBAL)
    library.emulated_allocate.restype = ctypes.c_void_p
    library.emulated_allocate.argtypes = [ctypes.c_size_t]
    library.emulated_free.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    library.emulated_free.restype = None
    library.emulated_launch.restype = ctypes.c_char_p
    return library


_KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+'
    r"(?:__launch_bounds__\s*\(((?:[^()]|\([^()]*\))*)\)\s*)?(\w+)\s*\("
)
_TAIL = """
extern "C" __attribute__((visibility("hidden"))) unsigned char __bss_start[], _end[];
extern "C" __attribute__((visibility("default"))) unsigned char *emulated_statics() {
    return __bss_start;
}
extern "C" __attribute__((visibility("default"))) size_t emulated_static_bytes() {
    return static_cast<size_t>(_end - __bss_start);
}
"""


class Kernels:
    """The kernels of one source text, compiled with one set of options."""

    def __init__(self, text: str, options: tuple[str, ...]) -> None:
        runtime()  # its symbols are needed when the library is loaded
        bounds = {name: bound or "1024" for bound, name in _KERNEL.findall(text)}
        tail = "".join(f"EMULATED_KERNEL({name}, {bound})\n" for name, bound in bounds.items())
        self.path = _compile(
            f'#include "emulated_device.h"\n#line 1 "source.cu"\n{text}\n{_TAIL}{tail}',
            (*KERNEL_OPTIONS, "-DTINYCONV_EMULATED", *options),
            lambda: nvrtc.complaints(text, options) if nvrtc.version() else "",
        )
        self.names = tuple(bounds)
        self.file = (re.findall(r'^#line 1 "(.*)"$', text, re.MULTILINE) or [""])[0]
        self._library = ctypes.PyDLL(str(self.path))
        self._library.emulated_statics.restype = ctypes.c_void_p
        self._library.emulated_static_bytes.restype = ctypes.c_size_t
        self.static_bytes = self._library.emulated_static_bytes()

    def signature(self, name: str) -> list[tuple[str, str, int]]:
        """("array", "float32", 8), ("value", "int32", 4), ... for the parameters of a kernel."""
        text = ctypes.create_string_buffer(4096)
        getattr(self._library, f"emulated_signature_{name}")(text)
        found = (p.split(" ") for p in text.value.decode().split(";")[:-1])
        return [(kind, dtype, int(size)) for kind, dtype, size in found]

    def bound(self, name: str) -> int:
        """How many threads a block may have by the kernel's __launch_bounds__."""
        return getattr(self._library, f"emulated_bound_{name}")()

    def launch(
        self,
        name: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        arguments: list[bytes],
        shared: int,
        backward: bool,
    ) -> str:
        """Run a kernel with the bytes of its arguments: "", or what went wrong."""
        buffers = [ctypes.create_string_buffer(a, len(a)) for a in arguments]
        pointers = (ctypes.c_void_p * len(buffers))(*map(ctypes.addressof, buffers))
        where = ctypes.c_void_p()
        message = runtime().emulated_launch(
            getattr(self._library, f"emulated_call_{name}"),
            pointers,
            (ctypes.c_uint * 3)(*grid),
            (ctypes.c_uint * 3)(*block),
            ctypes.c_size_t(shared),
            ctypes.c_void_p(self._library.emulated_statics()),
            ctypes.c_size_t(self.static_bytes),
            ctypes.c_bool(backward),
            ctypes.byref(where),
        )
        if message is None:
            return ""
        return message.decode() + (self._line(where.value) if where.value else "")

    def _line(self, address: int) -> str:
        """Where in the source the instruction at `address` comes from."""
        start = ctypes.cast(self._library.emulated_statics, ctypes.c_void_p).value
        symbols = subprocess.run(
            ["nm", "-D", str(self.path)], capture_output=True, text=True, check=False
        ).stdout
        found = re.search(r"^(\w+) T emulated_statics$", symbols, re.MULTILINE)
        if not found:
            return ""
        offset = address - start + int(found[1], 16)
        lines = subprocess.run(
            ["addr2line", "-s", "-e", str(self.path), hex(offset)],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
        return f" at {lines}" if lines and "?" not in lines else ""
