"""The .cu sources, and the compiler that CuPy gives them to.

On the emulator, whatever a test launches is compiled by NVRTC first, for sm_80 and sm_90 and with
the very constants of that launch (tests/emulator/README.md). So each kernel has to be in a test.
"""

import re
from pathlib import Path

import pytest

from tinyconv.kernels.cuda import launch

TESTS = Path(__file__).parent
EMULATOR = TESTS.parents[1] / "emulator"
SOURCES = sorted(path.name for path in launch.FOLDER.glob("*.cu"))


@pytest.fixture
def nvrtc(cuda):
    """tests/emulator/nvrtc.py, where it found the compiler."""
    if not Path(cuda.__file__).is_relative_to(EMULATOR):
        pytest.skip("there is a device: CuPy compiles for it")
    import nvrtc

    if not nvrtc.version():
        pytest.skip("NVRTC is not found: pip install nvidia-cuda-nvrtc")
    return nvrtc


def test_errors_and_warnings_are_both_refused(cuda, nvrtc):
    kernel = 'extern "C" __global__ void test(float *y) {{ {} }}'
    cuda.RawModule(code=kernel.format("y[0] = 1;"), options=launch.OPTIONS)
    for body, message in (
        ("y[0] = missing;", 'error: identifier "missing" is undefined'),
        ("int unused;", "warning .*never referenced"),
        (
            "__shared__ float t[12 * 1024 + 1]; t[threadIdx.x] = y[0]; y[1] = t[0];",
            "too much shared",
        ),
    ):
        with pytest.raises(Exception, match=f"(?s)sm_80.*{message}.*sm_90.*{message}"):
            cuda.RawModule(code=kernel.format(body), options=launch.OPTIONS)


@pytest.mark.parametrize("name", SOURCES)
def test_lines_keep_their_places(name):
    """What a compiler says of a line is said of the file that it comes from."""
    place, number = [], 0
    for line in launch.source(name).splitlines():
        if found := re.fullmatch(r'#line (\d+) "([^"]+)"', line):
            place, number = (launch.FOLDER / found[2]).read_text().splitlines(), int(found[1]) - 1
            continue
        there = place[number] if number < len(place) else ""
        assert line in (there, "")
        assert line == there or there.startswith(("#pragma once", '#include "'))
        number += 1


def test_every_function_in_ptx_has_a_twin():
    """device.cuh and emulated_device.h define the same names for the sources."""
    text = (launch.FOLDER / "device.cuh").read_text()
    ptx = text.partition('#include "emulated_device.h"')[2].rpartition("\n#endif")[0]
    twins = (EMULATOR / "emulated_device.h").read_text().partition("// Twins of device.cuh")[2]
    names = r"^(?:#define |struct |\w[\w ]* (?=\w+\())(\w+)"
    written, emulated = (set(re.findall(names, text, re.M)) for text in (ptx, twins))
    assert {"mma_tf32", "wait_for_copies", "half_t", "SHARED_MEMORY"} <= written
    assert written - {"INFINITY", "NAN"} <= emulated  # those are the C library's


def test_every_kernel_was_launched(cuda, request):
    """tests/conftest.py puts this test behind all others."""
    if not Path(cuda.__file__).is_relative_to(EMULATOR):
        pytest.skip("there is a device")
    chosen = {item.path for item in request.session.items}
    if request.config.option.keyword or not set(TESTS.glob("test_*.py")) <= chosen:
        pytest.skip("not all tests of this folder were chosen")
    from cupy import _raw

    kernel = re.compile(r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\)\s*)?(\w+)\(')
    written = {(n, k) for n in SOURCES for k in kernel.findall((launch.FOLDER / n).read_text())}
    assert len(written) > len(SOURCES)
    assert not written - _raw.launched
