"""What all tests share: a clean start for each of them, and the array libraries to run on."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import tinyconv
from tinyconv import backend as _backend
from tinyconv import op

# No deadline: a first call may compile or load something. The `backend` fixture does not change
# between the examples of one test, so it may stand beside @given.
settings.register_profile(
    "tinyconv",
    deadline=None,
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("tinyconv")


def _what_cupy_lacks() -> str:
    wanted = _backend.kernels_wanted()
    try:
        tinyconv.use_backend("cupy", kernels=False)
    except tinyconv.BackendError as error:
        return str(error)
    finally:
        tinyconv.use_backend("numpy", kernels=wanted)
    return ""


def _emulate() -> str:
    """Put the stand-in for CuPy where `import cupy` finds it; why not, where that cannot be."""
    if not shutil.which("g++"):
        return "there is no g++ for tests/emulator either"
    for name in [m for m in sys.modules if m.partition(".")[0] in ("cupy", "cupyx")]:
        del sys.modules[name]
    sys.path.insert(0, str(Path(__file__).parent / "emulator"))
    return _what_cupy_lacks()


_LACKING = _what_cupy_lacks()
_EMULATED = bool(_LACKING)
if _EMULATED:
    _LACKING = (why := _emulate()) and f"{_LACKING}; {why}"
_CUPY = pytest.param("cupy", marks=pytest.mark.skipif(bool(_LACKING), reason=_LACKING))


def pytest_report_header():
    if _LACKING:
        return f"cupy: not tested: {_LACKING}"
    if _EMULATED:
        return "cupy: emulated on the CPU by tests/emulator, not a GPU"
    import cupy

    return f"cupy: {cupy.cuda.runtime.getDeviceProperties(0)['name'].decode()}"


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.name == "test_every_kernel_was_launched")


# TINYCONV_BACKEND=cupy: the tests that do not choose run on a GPU or the emulator, tests/parity so.
# Some others are about NumPy by nature and fail then.
_START = os.environ.get("TINYCONV_BACKEND") or "numpy"
_KERNELS = _backend.kernels_wanted()


@pytest.fixture(autouse=True)
def _clean_start():
    tinyconv.use_backend(_START, kernels=_KERNELS, precision="float32")
    tinyconv.manual_seed(0)
    yield
    tinyconv.use_backend(_START, kernels=_KERNELS, precision="float32")


@pytest.fixture
def empty_registry(monkeypatch):
    """No kernels but those that the test registers, and none of them afterwards."""
    monkeypatch.setattr(op, "_kernels", {})


@pytest.fixture(params=["numpy", _CUPY])
def backend(request):
    """Runs the test on every array library that works here, to float32's precision.

    CuPy's kernels are left out where Hypothesis chooses settings: each of them would have to be
    compiled. tests/kernels/cuda tests them.
    """
    drawn = getattr(request.function, "is_hypothesis_test", False)
    kernels = _backend.kernels_wanted()
    by_reference = request.param == "cupy" and drawn
    tinyconv.use_backend(request.param, kernels=kernels and not by_reference, precision="float32")
    yield request.param
    tinyconv.use_backend("numpy", kernels=kernels, precision="tf32")


@pytest.fixture
def cuda():
    """CuPy with kernels, on a device or the emulator; the module itself."""
    if _LACKING:
        pytest.skip(_LACKING)
    kernels = _backend.kernels_wanted()
    tinyconv.use_backend("cupy", kernels=True, precision="tf32")
    yield _backend.xp()
    tinyconv.use_backend("numpy", kernels=kernels)


@pytest.fixture
def on_device():
    """Whether CuPy computes on a GPU, and not on the emulator."""
    return not _LACKING and not _EMULATED
