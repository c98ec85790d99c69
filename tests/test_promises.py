"""docs/promises.md names tests that exist, and a promise without one is none."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PROMISES = (REPOSITORY / "docs" / "promises.md").read_text(encoding="utf-8")
LINES = [line for line in PROMISES.splitlines() if line.startswith("| ") and not line.startswith("| promise ")]
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


@cache
def list_tests(file: str) -> frozenset[str]:
    """The names of the tests in a file."""
    tree = ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))
    return frozenset(
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[2:60])
def test_a_promise_names_tests_that_exist(line: str):
    named = NAMED.findall(line)
    assert named and line.count("`tests/") == len(named), line
    for file, name in named:
        assert (REPOSITORY / file).is_file(), file
        assert name in list_tests(file) if name else list_tests(file), f"{file}::{name}"


def test_the_three_promises_are_all_there():
    assert re.findall(r"^## (.*)$", PROMISES, re.MULTILINE) == ["Nothing lost", "Nothing wrong", "Nobody let in"]
    assert len(LINES) > 30
