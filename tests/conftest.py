"""What all tests share: a clean start for each of them, and the array libraries to run on."""

import os

import pytest
from hypothesis import HealthCheck, settings

import tinyconv
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
    try:
        tinyconv.use_backend("cupy")
    except tinyconv.BackendError as error:
        return str(error)
    finally:
        tinyconv.use_backend("numpy")
    return ""


_LACKING = _what_cupy_lacks()
_CUPY = pytest.param("cupy", marks=pytest.mark.skipif(bool(_LACKING), reason=_LACKING))


@pytest.fixture(autouse=True)
def _clean_start():
    tinyconv.use_backend("numpy")
    tinyconv.manual_seed(0)
    yield
    tinyconv.use_backend("numpy")


@pytest.fixture
def empty_registry(monkeypatch):
    """No kernels but those that the test registers, and none of them afterwards."""
    monkeypatch.setattr(op, "_kernels", {})


@pytest.fixture(params=["numpy", _CUPY])
def backend(request):
    """Runs the test on every array library that works here."""
    tinyconv.use_backend(request.param)
    return request.param
