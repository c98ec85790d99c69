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


def test_the_promises_are_all_there():
    assert re.findall(r"^## (.*)$", PROMISES, re.MULTILINE) == [
        "Nothing lost", "Nothing wrong", "What is shown without a query", "Nobody let in",
    ]  # fmt: skip
    assert len(LINES) > 30


def test_every_step_of_the_tour_is_held_by_tests_and_shows_pictures_that_are_there():
    tour = (REPOSITORY / "docs" / "guide.md").read_text(encoding="utf-8")
    known = set().union(*(list_tests(f"tests/ui/{path.name}") for path in REPOSITORY.glob("tests/ui/test_*.py")))
    steps = tour.split("\n## ")[1:]
    for step in steps:
        named = set(re.findall(r"`(test_\w+)`", step))
        assert named and named <= known, step.splitlines()[0]
    for picture in re.findall(r"\]\((images/\S+)\)", tour):
        assert (REPOSITORY / "docs" / picture).is_file(), picture
