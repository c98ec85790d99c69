"""The source of the three packages, parsed: modules, and what each of them imports.

Rule: an import counts wherever it stands: at the top, inside a function, or for the type checker only.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
FLOORS = ("seer_model", "indexer", "ui")
"""From the ground up; a floor imports itself and the floors below."""


@dataclass(frozen=True)
class Module:
    """One file of the three packages."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]

    @property
    def is_page(self) -> bool:
        """Streamlit runs it as a script, from top to bottom; nobody imports it."""
        return self.name.startswith("ui.views.") or self.name == "ui.script"


@dataclass(frozen=True)
class Import:
    """One name that a module imports, and on which line."""

    module: str
    name: str
    line: int
    at_the_top: bool


def read_module(path: Path) -> Module:
    """Parse one file of the repository."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(name, path, ast.parse(path.read_text(encoding="utf-8")))


MODULES = [read_module(path) for package in FLOORS for path in sorted((REPOSITORY / package).rglob("*.py"))]
NAMES = {module.name for module in MODULES}
DEFINITIONS = [module for module in MODULES if not module.is_page]
"""What may be imported: everything but the pages."""


@cache
def list_imports(module: Module) -> tuple[Import, ...]:
    """What a module imports, each as the longest name that is a module of ours, or as it is written."""
    inside = {id(node) for function in list_functions(module.tree) for node in ast.walk(function)}
    return tuple(
        Import(module.name, name, node.lineno, id(node) not in inside)
        for node in ast.walk(module.tree)
        for name in list_targets(node, module)
    )


def list_targets(node: ast.AST, module: Module) -> Iterator[str]:
    """The names that one node imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = resolve_relative(node, module)
        for alias in node.names:
            whole = f"{base}.{alias.name}"
            yield whole if whole in NAMES else base
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
        # Only a name in quotes can be read here; whoever computes one computes it past this test.
        yield from (str(argument.value) for argument in node.args[:1] if isinstance(argument, ast.Constant))


def resolve_relative(node: ast.ImportFrom, module: Module) -> str:
    """The full name of what stands behind `from`."""
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    up = node.level - (module.path.name == "__init__.py")
    return ".".join([*parts[: len(parts) - up], *filter(None, [node.module])])


def list_functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions, those inside others and methods too."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def is_under(name: str, root: str) -> bool:
    """Whether a dotted name is the root or lies below it."""
    return name == root or name.startswith(root + ".")


def find_imports(*roots: str) -> list[Import]:
    """Every import of these, or of what lies below them, in the three packages."""
    found = [one for module in MODULES for one in list_imports(module)]
    return [one for one in found if any(is_under(one.name, root) for root in roots)]
