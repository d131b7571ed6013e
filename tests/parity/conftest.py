"""The `parity` fixture, and with -v the worst errors found."""

from __future__ import annotations

import pytest

WORST = pytest.StashKey[dict]()


def pytest_configure(config):
    config.stash[WORST] = {}


@pytest.fixture
def parity(request):
    """A comparison with PyTorch that keeps the worst errors of the test function."""
    from .compare import Parity

    group = f"{request.path.stem.removeprefix('test_')}: {request.node.originalname}"
    return Parity(request.config.stash[WORST].setdefault(group, {}))


def pytest_terminal_summary(terminalreporter, config):
    found = {group: errors for group, errors in config.stash[WORST].items() if errors}
    if not found or config.get_verbosity() < 1:
        return
    terminalreporter.section(
        "worst errors against PyTorch, as a share of the largest value (or of 1)"
    )
    for group, errors in sorted(found.items()):
        columns = [f"{dtype} {errors[dtype]:.1e}" for dtype in sorted(errors, reverse=True)]
        terminalreporter.write_line(f"{group:60}  {'  '.join(columns)}")


@pytest.fixture
def draw(request):
    """Random choices of their own for each test function and number."""
    from .compare import Draw

    return Draw([*request.node.originalname.encode(), request.param])
