"""What is installed where: markers, ranges, tested versions, and the recipes that install them."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

REPOSITORY = Path(__file__).resolve().parent.parent
TEXT = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
PROJECT = tomllib.loads(TEXT)["project"]
CORE = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = {name: [Requirement(line) for line in lines] for name, lines in PROJECT["optional-dependencies"].items()}
DIRECT = CORE + [requirement for lines in EXTRAS.values() for requirement in lines]

SYSTEMS = {
    # sys_platform, platform_machine, platform_system, os_name. There is no torch any more for a Mac with Intel inside.
    "Linux on x86-64": ("linux", "x86_64", "Linux", "posix"),
    "Linux on ARM": ("linux", "aarch64", "Linux", "posix"),
    "macOS on ARM": ("darwin", "arm64", "Darwin", "posix"),
    "Windows": ("win32", "AMD64", "Windows", "nt"),
}


def read_constraints() -> dict[str, str]:
    """Name -> tested version."""
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pin) == 2 for pin in pins), "a constraint is NAME==VERSION"
    return {canonicalize_name(name): version for name, version in pins}


def install_on(system: str) -> set[str]:
    """The direct core dependencies that this system gets."""
    names = ("sys_platform", "platform_machine", "platform_system", "os_name")
    environment = default_environment() | dict(zip(names, SYSTEMS[system], strict=True)) | {"extra": ""}
    return {one.name for one in CORE if one.marker is None or one.marker.evaluate(environment)}


# --- markers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_gets_exactly_one_faiss(system):
    wanted = "faiss-gpu" if system == "Linux on x86-64" else "faiss-cpu"
    assert {name for name in install_on(system) if name.startswith("faiss")} == {wanted}


@pytest.mark.parametrize("system", SYSTEMS)
def test_everything_but_faiss_is_the_same_on_every_system(system):
    assert {one.name for one in CORE if not one.name.startswith("faiss")} <= install_on(system)


# --- ranges and tested versions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda one: one.name)
def test_a_dependency_is_a_lower_bound_and_its_tested_version_lies_in_it(requirement):
    operators = {part.operator for part in requirement.specifier}
    assert operators == {">="}, "a cap that nobody tried is a lie, a pin belongs into constraints.txt"
    tested = read_constraints()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(tested)


def test_a_tested_version_is_a_plain_release():
    versions = {name: Version(version) for name, version in read_constraints().items()}
    assert not {name: version for name, version in versions.items() if version.local or version.is_prerelease}
    assert str(versions["torch"]) == "2.13.0"


def test_the_project_itself_is_no_constraint():
    assert "seer" not in read_constraints()


def test_the_least_python_is_the_same_everywhere():
    assert PROJECT["requires-python"] == ">=3.11"
    assert "sys.version_info < (3, 11)" in (REPOSITORY / ".ci/install").read_text(encoding="utf-8")
    assert tomllib.loads(TEXT)["tool"]["ruff"]["target-version"] == "py311"


def test_every_dependency_has_its_reason_beside_it():
    names = "|".join(["dependencies", *EXTRAS])
    tables = re.findall(rf"^(?:{names}) = \[\n(.*?)^\]", TEXT, re.MULTILINE | re.DOTALL)
    lines = [line for table in tables for line in table.splitlines()]
    assert len(lines) == len(DIRECT)
    silent = [line for line in lines if not re.search(r'",\s+# \S.{9,}', line)]
    assert not silent


# --- what a wheel holds ------------------------------------------------------------------------------------------


def test_the_seer_command_leads_to_a_function():
    module, _, function = PROJECT["scripts"]["seer"].partition(":")
    source = (REPOSITORY / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8")
    assert re.search(rf"^def {function}\(|^{function} = ", source, re.MULTILINE)


def test_every_file_of_the_packages_that_is_no_python_is_declared():
    declared = tomllib.loads(TEXT)["tool"]["setuptools"]["package-data"]
    for package in ("seer_model", "indexer", "ui"):
        for path in (REPOSITORY / package).rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc") and "__pycache__" not in path.parts:
                below = path.relative_to(REPOSITORY / package)
                folders = [glob.split("/")[0] for glob in declared.get(package, [])]
                assert below.parts[0] in folders, f"{path} would be missing from an installation"


# --- recipes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [".ci/run", ".ci/install", ".ci/chromium"])
def test_a_script_can_be_run_and_stops_at_the_first_failure(script):
    path = REPOSITORY / script
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n") and "\nset -euo pipefail\n" in text
    listed = subprocess.run(["git", "ls-files", "--stage", script], cwd=REPOSITORY, capture_output=True, text=True)
    assert listed.stdout.startswith("100755") or path.stat().st_mode & 0o111 == 0o111
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_the_last_thing_that_ci_does_is_pytest():
    lines = (REPOSITORY / ".ci/run").read_text(encoding="utf-8").strip().splitlines()
    assert lines[-1].startswith(".venv/bin/python -m pytest ") and lines[-1].endswith(' "$@"')


@pytest.mark.parametrize("target", ["install", "demo", "test", "lint", "audit", "fuzz", "screenshots", "clean"])
def test_make_knows_its_targets(target):
    shown = subprocess.run(["make", "--dry-run", target], cwd=REPOSITORY, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr


@pytest.mark.parametrize("folder", ["/pictures/of mine", "~/Pictures"])
def test_make_demo_hands_the_folder_on_as_one_word(folder):
    shown = subprocess.run(
        ["make", "--dry-run", "demo", f"PICTURES={folder}"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin", "HOME": "/home/me"},
    )
    assert shown.stdout.splitlines()[-1] == f'.venv/bin/seer demo --port 8501 "{folder.replace("~", "/home/me")}"'


def write_python(folder: Path, body: str) -> Path:
    """Something that answers as a Python would."""
    path = folder / "python-of-the-test"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ('case "$2" in *version_info*) exit 1;; *) echo 3.9.2;; esac', "3.9.2; 3.11 or newer is needed"),
        ('case "$2" in *ensurepip*) exit 1;; esac', "apt-get install python3-venv"),
    ],
)
def test_a_python_that_will_not_do_is_refused_in_a_sentence(tmp_path, body, sentence):
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci/install").write_bytes((REPOSITORY / ".ci/install").read_bytes())
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": str(write_python(tmp_path, body))}
    done = subprocess.run(["bash", ".ci/install"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and sentence in done.stderr
    assert not (tmp_path / ".venv").exists()


STAND_IN = """
case "$1" in
    -) cat >/dev/null; cat pyproject.toml constraints.txt ;;
    -c) echo 3.11 ;;
    -m) echo "$*" >>calls
        if [ "$2" = venv ]; then mkdir -p .venv/bin; cp "$0" .venv/bin/python; fi
        if [ "$3" = install ]; then : >.venv/bin/seer; chmod +x .venv/bin/seer; fi ;;
esac
"""


def test_a_second_installation_does_nothing_until_a_file_it_depends_on_changes(tmp_path):
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci/install").write_bytes((REPOSITORY / ".ci/install").read_bytes())
    (tmp_path / "pyproject.toml").write_text("one")
    (tmp_path / "constraints.txt").write_text("one")
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": str(write_python(tmp_path, STAND_IN))}

    def install(*extras: str) -> list[str]:
        (tmp_path / "calls").write_text("")
        subprocess.run(["bash", ".ci/install", *extras], cwd=tmp_path, env=environment, check=True, capture_output=True)
        return [line.split()[1] for line in (tmp_path / "calls").read_text().splitlines()]

    assert install() == ["venv", "pip"]
    assert install() == []
    assert install("demo,test") == ["pip", "pip"] and install("demo,test") == []
    (tmp_path / "constraints.txt").write_text("two")
    assert install("demo,test") == ["pip", "pip"] and install("demo,test") == []
    # Somebody broke off in the middle: there is a folder, but nothing that runs.
    (tmp_path / ".venv/bin/python").unlink()
    (tmp_path / ".venv/bin/seer").unlink()
    assert install() == ["venv", "pip"]


def look_for_chromium(tmp_path: Path, apt_get: str | None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script on a system without a browser, where apt-get is what is given, or missing."""
    (tmp_path / "id").write_text("#!/bin/sh\necho 0\n")
    if apt_get is not None:
        (tmp_path / "apt-get").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\n{apt_get}\n')
    for program in tmp_path.iterdir():
        program.chmod(0o755)
    return subprocess.run(
        ["/bin/bash", REPOSITORY / ".ci/chromium"],
        env={"PATH": str(tmp_path)} | environment, capture_output=True, text=True,
    )


def test_chromium_is_installed_where_apt_is_and_asked_for_elsewhere(tmp_path):
    assert look_for_chromium(tmp_path, None).returncode == 0, "a person's tests go on without the browser"
    missing = look_for_chromium(tmp_path, None, SEER_CI="1")
    assert missing.returncode == 1 and "Put a chromium on the PATH" in missing.stderr
    failed = look_for_chromium(tmp_path, "exit 100", SEER_CI="1")
    assert failed.returncode == 1 and "could not be installed" in failed.stderr
    assert look_for_chromium(tmp_path, "exit 0", SEER_CI="1").returncode == 0
    line = "install -y -qq --no-install-recommends chromium"
    assert (tmp_path / "calls").read_text().splitlines()[-1] == f"{line}-headless-shell"
    only_whole = 'case "$*" in *shell) exit 100;; esac'
    assert look_for_chromium(tmp_path, only_whole, SEER_CI="1").returncode == 0
    assert (tmp_path / "calls").read_text().splitlines()[-1] == line


def test_a_python_that_is_not_there_is_refused_in_a_sentence(tmp_path):
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": "python-that-is-not-there"}
    done = subprocess.run([REPOSITORY / ".ci/install"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "there is no python-that-is-not-there here" in done.stderr
