"""The house rules that can be read off the source: imports, sizes, docstrings."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tinyconv"
FILES = sorted(PACKAGE.rglob("*.py"))

# Which parts of tinyconv each part may import; a part may always import itself.
BASE = {"errors", "backend", "op", "recorder"}
ENGINE = BASE | {"ops", "tensor", "functional"}
MAY_IMPORT = {
    "errors": set(),
    "backend": {"errors"},
    "recorder": set(),
    "op": {"errors", "backend", "recorder"},
    "ops": {"errors", "op"},
    "tensor": BASE | {"ops"},
    "functional": BASE | {"ops", "tensor"},
    "kernels": ENGINE - {"tensor", "functional"},
    "compiler": ENGINE | {"kernels", "nn", "optim"},
    "testing": ENGINE,
    "nn": ENGINE,
    "optim": ENGINE,
    "models": ENGINE | {"nn"},
    "model_summary": ENGINE | {"compiler", "nn"},
    "data": {"errors"},
    "io": ENGINE | {"nn", "models"},
    "plotting": {"io"},
    "train": ENGINE | {"compiler", "nn", "optim", "models", "data", "io", "plotting"},
    "visualize": ENGINE | {"nn", "plotting"},
    "cli": ENGINE
    | {"compiler", "nn", "optim", "models", "data", "io", "plotting", "train"}
    | {"model_summary", "visualize"},
    "__main__": {"cli"},
}
LOADED_WITH_THE_PACKAGE = ENGINE | {"nn", "optim"}


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path):
    """Full names of the modules that a file imports, at its top or inside of functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def tops(path):
    return {name.split(".")[0] for name in imported(path)}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    part = part_of(path)
    if part == "__init__":
        return
    found = {name.split(".")[1] for name in imported(path) if name.startswith("tinyconv.")}
    assert found <= MAY_IMPORT[part] | {part}
    if part in LOADED_WITH_THE_PACKAGE:  # the package is not whole yet when these are loaded
        assert "tinyconv" not in imported(path)


def test_every_part_is_in_the_table():
    assert {part_of(path) for path in FILES} - {"__init__"} <= set(MAY_IMPORT)


@pytest.mark.parametrize("path", sorted((PACKAGE / "ops").glob("*.py")), ids=lambda p: p.name)
def test_ops_name_no_library(path):
    assert tops(path) <= {"tinyconv", *sys.stdlib_module_names}


def test_only_the_backend_knows_cupy():
    for path in FILES:
        if part_of(path) != "backend":
            assert "cupy" not in tops(path), path


def test_matplotlib_is_imported_inside_of_functions():
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert "matplotlib" not in ast.unparse(node), path


def test_import_tinyconv_is_light():
    heavy = ("PIL", "matplotlib", "rich", "safetensors", "torch", "cupy", "numba", "onnx")
    names = ("data", "train", "models", "io", "cli", "model_summary", "visualize")
    parts = tuple(f"tinyconv.{name}" for name in names)
    code = f"import sys, tinyconv; print([m for m in {heavy + parts} if m in sys.modules])"
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert child.stdout.strip() == "[]", child.stderr


def test_the_parts_load_when_they_are_used():
    code = (
        "import tinyconv; tinyconv.data; tinyconv.train; tinyconv.models; tinyconv.io;"
        "tinyconv.testing; print(all(hasattr(tinyconv, n) for n in tinyconv.__all__))"
    )
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert child.stdout.strip() == "True", child.stderr


# To be read in an afternoon -----------------------------------------------------------------------


def test_lines_of_the_engine():
    engine = [PACKAGE / "tensor.py", PACKAGE / "op.py", *(PACKAGE / "ops").glob("*.py")]
    assert sum(len(path.read_text().splitlines()) for path in engine) <= 1800


def classes(path):
    return [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]


@pytest.mark.parametrize("path", sorted((PACKAGE / "ops").glob("*.py")), ids=lambda p: p.name)
def test_each_op_fits_on_a_screen(path):
    for node in classes(path):
        assert node.end_lineno - node.lineno + 1 <= 60, node.name


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_docstrings(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree) or not path.read_text(), path
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.name}: {node.name}"


def test_a_docstring_of_an_op_starts_with_its_formula_or_meaning():
    for path in (PACKAGE / "ops").glob("*.py"):
        for node in classes(path):
            first = ast.get_docstring(node).splitlines()[0]
            assert len(first) < 100, node.name
