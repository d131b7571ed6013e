"""What the README shows is true: its Python runs, and its Quick start has two commands."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_python_in_the_readme_runs(code):
    exec(compile(code, "README.md", "exec"), {})


def test_quick_start_has_two_commands():
    quick_start = README.split("## Quick start")[1].split("\n## ")[0]
    assert quick_start.count("pip install") == 2


def test_files_that_the_readme_names_are_there():
    for path in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (Path(__file__).parents[1] / path).exists(), path
