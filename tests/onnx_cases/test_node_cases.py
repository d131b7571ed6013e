"""ONNX's cases for the nodes that tinyconv has ops for; `python -m tests.onnx_cases` counts."""

from __future__ import annotations

import pytest

onnx = pytest.importorskip(
    "onnx", minversion="1.22", reason="the onnx package from 1.22 on holds the test cases"
)

from . import cases, check, runner  # noqa: E402

CASES = check.supported()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: cases.Case) -> None:
    if case.name not in check.SKIPPED:
        check.check(case)
        return
    # A listed case has to fail: one that passes by now must leave the list.
    with pytest.raises((runner.NotExpressible, AssertionError, ValueError)):
        check.check(case)
    pytest.skip(check.SKIPPED[case.name])


def test_cases_were_found() -> None:
    assert len(CASES) - len(check.SKIPPED) >= 400
    missing = runner.OPS.keys() - {op for case in CASES for op in case.ops}
    assert not missing, "nodes of the runner that no case tests"


@pytest.mark.skipif(onnx.__version__.startswith("1.22."), reason="1.22 has fewer cases")
def test_skipped_cases_exist() -> None:
    assert check.SKIPPED.keys() <= {case.name for case in CASES}
