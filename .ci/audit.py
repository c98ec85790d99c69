"""Are the installed dependencies those that were tested, and are weaknesses of them known?

    .ci/audit.py             offline, a part of every run: what is installed has the versions of constraints.txt,
                             nothing is there that the project does not need, no file of it has changed since,
                             and none lies beside them that no package brought
    .ci/audit.py --online    that, and what the Python index knows of weaknesses in the versions of constraints.txt

The first says nothing about whether a tested version is a good one, and the hashes compared are those that came with
each wheel: they show what was changed here, not what was published with ill intent.

Exit status: 0 nothing found, 1 something found, 3 the index could not be asked, or not about everything.
"""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import Distribution, PackagePath, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

REPOSITORY = Path(__file__).resolve().parent.parent
CONSTRAINTS = REPOSITORY / "constraints.txt"
PROJECT = "seer"
INSTALLER = "pip"
ALONE = "milvus-lite"
"""Installed without what it needs: its faiss-cpu would overwrite faiss-gpu, which serves it as well."""
AUDITOR = "pip-audit==2.10.1"
"""Looks up weaknesses; in an environment of its own, since the project does not need it."""
FOUND, NOT_ASKED = 1, 3


def read_pins(path: Path) -> dict[str, str]:
    """Name -> tested version."""
    pins = re.findall(r"^([\w.-]+)==(\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pins}


def list_installed() -> dict[str, Distribution]:
    """Name -> what is installed beside this Python."""
    return {canonicalize_name(one.metadata["Name"]): one for one in distributions()}


def find_untested(installed: Mapping[str, Distribution], pins: Mapping[str, str]) -> Iterator[str]:
    """What has another version than the tested one, or none that was tested."""
    for name, one in sorted(installed.items()):
        # The builds of torch for one accelerator or another are one version.
        if name not in (PROJECT, INSTALLER) and Version(one.version).public != pins.get(name):
            yield f"{name} {one.version} is installed, and constraints.txt has {pins.get(name, 'no such line')}"


def find_strays(installed: Mapping[str, Distribution]) -> Iterator[str]:
    """What nothing in pyproject.toml asks for, not even by way of others."""
    project = installed[PROJECT]
    needed = {(ALONE, "")}
    waiting = [(PROJECT, extra) for extra in ("", *project.metadata.get_all("Provides-Extra", []))]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) not in needed and name in installed:
            needed.add((name, extra))
            waiting += list_needs(installed[name], extra)
    for name in sorted(installed.keys() - {name for name, _ in needed} - {INSTALLER}):
        yield f"{name} is installed, and nothing in pyproject.toml needs it"


def list_needs(one: Distribution, extra: str) -> list[tuple[str, str]]:
    """What it asks for with this extra, each as its name and one of the extras wanted of it."""
    wanted = [need for need in map(Requirement, one.requires or []) if _applies(need, extra)]
    return [(canonicalize_name(need.name), more) for need in wanted for more in ("", *need.extras)]


def _applies(need: Requirement, extra: str) -> bool:
    return need.marker is None or need.marker.evaluate({"extra": extra})


def find_changed(installed: Iterable[Distribution]) -> Iterator[str]:
    """Files that are not, or no longer, what their wheel brought."""
    files = [path for one in installed for path in one.files or [] if path.hash is not None]
    with ThreadPoolExecutor() as pool:
        for path, is_same in zip(files, pool.map(is_as_brought, files), strict=True):
            if not is_same:
                yield f"{path.locate()} has changed since it was installed"


def is_as_brought(path: PackagePath) -> bool:
    """Whether the file's hash is the one that its wheel says."""
    try:
        with open(path.locate(), "rb") as file:
            digest = hashlib.file_digest(file, path.hash.mode).digest()
    except OSError:
        return False
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == path.hash.value


def find_added(installed: Iterable[Distribution], places: Iterable[str]) -> Iterator[str]:
    """Files that no wheel brought: what is called .pth or sitecustomize.py is run whenever Python starts.

    What Python compiles for itself is passed over, although somebody could have put other code there.
    """
    # Not each file's own real path: there are tens of thousands, and only the folders above may be links.
    brought = {
        os.path.normpath(os.path.join(home, path))
        for one in installed
        for home in [os.path.realpath(one.locate_file(""))]
        for path in one.files or []
    }
    for place in sorted(set(map(os.path.realpath, places))):
        for folder, folders, files in os.walk(place):
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            for path in (os.path.join(folder, name) for name in sorted(links + files)):
                if path not in brought and not (folder.endswith("__pycache__") and path.endswith(".pyc")):
                    yield f"{path} was brought by no package"


def find_conflicts() -> Iterator[str]:
    """What pip finds missing or in conflict."""
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    if done.returncode:
        found = done.stdout.splitlines() or [done.stderr.strip()]
        yield from (line for line in found if not line.startswith(ALONE))


def ask_index(auditor: Path, constraints: Path) -> tuple[int, list[str]]:
    """What is known of weaknesses in these versions. Returns: exit status, and sentences."""
    asked = [auditor, "--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json", "-r", constraints]
    done = subprocess.run(asked, capture_output=True, text=True)
    try:
        answers = json.loads(done.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        return NOT_ASKED, [f"The Python index could not be asked: {done.stderr.strip()[-200:] or 'no answer'}"]
    known = [f"{one['name']} {one['version']}: {weak['id']}" for one in answers for weak in one.get("vulns", [])]
    # It calls what it could not look up no weakness, and ends with 0.
    skipped = [one["name"] for one in answers if "skip_reason" in one]
    unknown = [f"The index could not say anything about {', '.join(skipped)}"] if skipped else []
    return FOUND if known else NOT_ASKED if skipped else 0, known + unknown


def install_auditor(place: Path) -> Path:
    """Where the auditor is, put there if need be. Raises: CalledProcessError when it cannot be had."""
    auditor = place / "bin" / "pip-audit"
    if not auditor.exists():
        venv.create(place, with_pip=True)
        subprocess.run([place / "bin" / "python", "-m", "pip", "install", "--quiet", AUDITOR], check=True)
    return auditor


def main(arguments: list[str]) -> int:
    """Print what was found. Returns: the exit status."""
    installed = list_installed()
    found = [*find_untested(installed, read_pins(CONSTRAINTS)), *find_strays(installed), *find_conflicts()]
    found += find_changed(installed.values())
    found += find_added(installed.values(), (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    status = FOUND if found else 0
    if "--online" in arguments:
        try:
            asked, more = ask_index(install_auditor(Path(sys.prefix, "audit")), CONSTRAINTS)
        except subprocess.CalledProcessError as error:
            asked, more = NOT_ASKED, [f"pip-audit could not be installed: {error}"]
        status, found = status or asked, found + more
    print(*found or [f"seer: {len(installed)} packages are as they were tested"], sep="\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
