"""NVRTC, the compiler that CuPy uses: it needs no GPU, so sources can be tried without one."""

import ctypes
import ctypes.util
import importlib.util
from functools import cache
from pathlib import Path

ARCHITECTURES = ("sm_80", "sm_90")
# What CuPy adds to the options of every kernel: float32 numbers below 1.2e-38 count as 0.
ADDED = ("-ftz=true", "--device-as-default-execution-space")


def _candidates():
    """Where the library may be: pip's package, a CUDA toolkit, the system's folders."""
    package = importlib.util.find_spec("nvidia")
    folders = list(package.submodule_search_locations or ()) if package else []
    for folder in folders:
        yield from sorted(Path(folder).glob("*/lib/libnvrtc.so.*"), reverse=True)
    yield from sorted(Path("/usr/local").glob("cuda*/lib64/libnvrtc.so*"), reverse=True)
    if found := ctypes.util.find_library("nvrtc"):
        yield found


@cache
def library():
    """NVRTC, or None where it is not found."""
    for path in _candidates():
        try:
            return ctypes.CDLL(str(path))
        except OSError:
            continue
    return None


@cache
def version():
    """(13, 5), or None where NVRTC is not found."""
    if library() is None:
        return None
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return major.value, minor.value


def complaints(text, options):
    """What NVRTC says of a source (errors and warnings) for each architecture: "" if nothing."""
    return "".join(
        _complaints(text, (f"--gpu-architecture={a}", *ADDED, *options)) for a in ARCHITECTURES
    )


def _complaints(text, options):
    nvrtc, program = library(), ctypes.c_void_p()
    _check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"source.cu", 0, 0, 0))
    arguments = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
    failed = nvrtc.nvrtcCompileProgram(program, len(options), arguments)
    size = ctypes.c_size_t()
    _check(nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size)))
    log = ctypes.create_string_buffer(size.value)
    _check(nvrtc.nvrtcGetProgramLog(program, log))
    _check(nvrtc.nvrtcDestroyProgram(ctypes.byref(program)))
    said = log.value.decode().strip()
    return f"{options[0]}: {said or f'error {failed}'}\n" if failed or said else ""


def _check(status):
    if status:
        raise RuntimeError(f"NVRTC: error {status}")
