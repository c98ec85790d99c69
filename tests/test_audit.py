"""The audit of dependencies finds what it says it finds."""

import importlib.util
import os
from importlib.metadata import Distribution
from pathlib import Path
from types import SimpleNamespace

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def load_audit():
    spec = importlib.util.spec_from_file_location("audit", REPOSITORY / ".ci" / "audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


audit = load_audit()


def make(name: str, version: str = "1.0", *requires: str, extras: tuple[str, ...] = ()):
    """Something installed that says this of itself."""
    metadata = SimpleNamespace(get_all=lambda key, default: list(extras) or default)
    return SimpleNamespace(name=name, version=version, requires=list(requires), metadata=metadata, files=[])


def test_every_version_is_the_tested_one():
    installed = {"torch": make("torch", "2.13.0+cpu"), "numpy": make("numpy", "2.4.6"), "pip": make("pip", "1")}
    pins = {"torch": "2.13.0", "numpy": "2.4.6", "not-installed": "1"}
    assert not list(audit.find_untested(installed, pins))
    installed |= {"numpy": make("numpy", "2.4.5"), "left-pad": make("left-pad")}
    found = list(audit.find_untested(installed, pins))
    assert len(found) == 2 and "left-pad 1.0" in found[0] and "numpy 2.4.5" in found[1] and "2.4.6" in found[1]


def test_nothing_is_installed_that_is_not_needed():
    installed = {
        "seer": make("seer", "1", "web[fast]", "pytest; extra == 'test'", "no-such; os_name == 'x'", extras=("test",)),
        "web": make("web", "1", "quick; extra == 'fast'", "slow; extra == 'slow'"),
        "quick": make("quick", "1", "web"), "pytest": make("pytest"), "pip": make("pip"),
    }  # fmt: skip
    assert not list(audit.find_strays(installed))
    installed |= {"slow": make("slow"), "left-pad": make("left-pad")}
    assert [line.split()[0] for line in audit.find_strays(installed)] == ["left-pad", "slow"]


def test_a_changed_file_and_a_missing_one_are_found(tmp_path: Path):
    (tmp_path / "same.py").write_bytes(b"x = 1\n")
    (tmp_path / "changed.py").write_bytes(b"x = 2\n")
    said = SimpleNamespace(mode="sha256", value="nia_NpkRxFwkPGhBR7I_yeHc_PJX0pmhxjIBam_NM_Q")
    names = ("same.py", "changed.py", "missing.py")
    files = [SimpleNamespace(hash=said, locate=lambda name=name: tmp_path / name) for name in names]
    files.append(SimpleNamespace(hash=None, locate=lambda: tmp_path / "RECORD"))
    found = list(audit.find_changed([SimpleNamespace(files=files), SimpleNamespace(files=None)]))
    assert [Path(line.split()[0]).name for line in found] == ["changed.py", "missing.py"]


def test_what_no_package_brought_is_found(tmp_path: Path):
    brought = ("a/__init__.py", "a/part.so", "b.py", "a-1.dist-info/METADATA", "a-1.dist-info/RECORD", "../bin/a")
    compiled = ("a/__pycache__/__init__.cpython-311.pyc", "__pycache__/b.cpython-311.pyc")
    added = (
        "evil.pth",
        "sitecustomize.py",
        "c/__init__.py",
        "c-1.dist-info/x",
        "a/late.py",
        "a/old.pyc",
        "__pycache__/d",
    )
    place, outside = tmp_path / "packages", tmp_path / "outside"
    outside.mkdir()
    for name in (*brought, *compiled, *added):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
    (place / "a-1.dist-info" / "RECORD").write_text("".join(f"{name},,\n" for name in brought))
    (place / "d").symlink_to(outside)
    (tmp_path / "lib64").symlink_to(place)
    known = Distribution.at(tmp_path / "lib64" / "a-1.dist-info")
    installed = [known, SimpleNamespace(files=None, locate_file=lambda _: place)]
    found = list(audit.find_added(installed, [str(place), str(tmp_path / "lib64")]))
    assert sorted(os.path.relpath(line.split()[0], place) for line in found) == sorted((*added, "d"))
    assert list(audit.find_added(installed, [str(outside)])) == []


def test_the_audit_looks_for_what_was_added(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
):
    (tmp_path / "evil.pth").touch()
    for name in ("list_installed", "find_untested", "find_strays", "find_conflicts", "find_changed"):
        monkeypatch.setattr(audit, name, lambda *_: {})
    monkeypatch.setattr(audit.sysconfig, "get_path", lambda _: str(tmp_path))
    assert audit.main([]) == audit.FOUND
    assert capsys.readouterr().out == f"{tmp_path}/evil.pth was brought by no package\n"


@pytest.mark.parametrize(
    ("answer", "status", "sentence"),
    [
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', 0, ""),
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1"}]}]}', 1, "a 1: CVE-1"),
        ('{"dependencies": [{"name": "a", "skip_reason": "not found"}]}', 3, "could not say anything about a"),
        ("", 3, "The Python index could not be asked: no way out"),
    ],
)
def test_what_could_not_be_looked_up_is_not_called_sound(tmp_path: Path, answer: str, status: int, sentence: str):
    auditor = tmp_path / "pip-audit"
    auditor.write_text(f"#!/bin/sh\necho 'no way out' >&2\necho '{answer}'\n")
    auditor.chmod(0o755)
    asked, said = audit.ask_index(auditor, tmp_path / "constraints.txt")
    assert asked == status and len(said) == bool(sentence) and sentence in "".join(said)


def test_ci_audits_before_it_tests():
    lines = (REPOSITORY / ".ci/run").read_text(encoding="utf-8").strip().splitlines()
    done = [line for line in lines if not line.startswith("#")]
    assert done[-2] == '.venv/bin/python .ci/audit.py || [ -z "${SEER_CI:-}" ]'
