"""The `seer` command as a process, and what the system says of it while it runs and when it has ended.

Rule: what is started here is the whole command, the interpreter's start included. Nothing here loads torch: on Linux a
process's greatest memory counts from that of the process which started it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seer_model.errors import UserError

SEER = (sys.executable, "-c", "from ui.cli import main; main()")
"""What the console script does."""


class CommandFailed(UserError):
    """A command that is measured did not end well; the text is what it said."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a command."""

    seconds: float
    peak_bytes: int
    """The most memory that its process held at one moment, its children's left out."""
    output: str


def run_to_end(command: Sequence[str], *, is_kept: bool = True) -> Run:
    """Run a command to its end.

    Args:
        is_kept: whether its output is; else it goes nowhere.
    Raises: CommandFailed.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
        started = time.perf_counter()
        process = start(command, stdout=output if is_kept else subprocess.DEVNULL, stderr=complaints)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise CommandFailed(f"{command[-1]}: {_read(complaints) or f'status {process.returncode}'}")
        kilobytes = usage.ru_maxrss if sys.platform != "darwin" else usage.ru_maxrss >> 10
        return Run(seconds=seconds, peak_bytes=kilobytes << 10, output=_read(output))


def start(command: Sequence[str], **options: object) -> subprocess.Popen:
    """Start a command that finds our modules where this process does."""
    paths = os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, **options)


def make_build(pictures: Path, collection: Path, *more: str) -> list[str]:
    """`seer build`, telling its result as JSON."""
    return [*SEER, "build", str(pictures), "--collection", str(collection), "--json", *more]


def read_result(output: str) -> dict:
    """What `seer build --json` did."""
    return json.loads(output.splitlines()[-1])


def _read(file) -> str:
    file.seek(0)
    return file.read().decode(errors="replace").strip()
