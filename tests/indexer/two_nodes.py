"""Two computers on this one: network namespaces joined by a cable, or two loopback addresses where none can be made.

In both the nodes share disk and processors, and speak to each other by TCP alone.

Rule: what was started here is ended here, a node's processes with all that they have started.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPOSITORY

ON_TWO = ("--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "3", "--rdzv-backend", "c10d")


def start_torchrun(
    prefix: tuple[str, ...], how: tuple[str, ...], command: list[str], interface: str, log: Path
) -> subprocess.Popen:
    """`python COMMAND...` by torchrun, whose words and theirs go to `log`. It is ended by `end_node`."""
    environment = os.environ | {
        **{"OMP_NUM_THREADS": "1", "COLUMNS": "80", "GLOO_SOCKET_IFNAME": interface},
        # Or a node that is started anew waits in vain for an address (docs/scale.md).
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }
    line = [*prefix, sys.executable, "-m", "torch.distributed.run", *how, *command]
    with open(log, "ab") as file:
        return subprocess.Popen(line, cwd=REPOSITORY, env=environment, stdout=file, stderr=subprocess.STDOUT)


@dataclass(frozen=True)
class Node:
    """One of the two."""

    address: str
    interface: str
    is_host: bool
    """Whether the ranks meet here."""
    prefix: tuple[str, ...] = ()
    """What a command begins with to be run there."""

    def start(self, command: list[str], endpoint: str, name: str, log: Path) -> subprocess.Popen:
        """This node's torchrun, for a run of that name whose nodes meet at `endpoint`."""
        # torchrun would find out who is the host by the computer's name, of which there is only one here.
        meeting = ("--rdzv-endpoint", endpoint, "--rdzv-id", name, "--rdzv-conf", f"is_host={self.is_host:d}")
        how = (*ON_TWO, *meeting, "--local-addr", self.address)
        return start_torchrun(self.prefix, how, command, self.interface, log)


@contextmanager
def join_nodes() -> Iterator[tuple[Node, Node]]:
    """Two nodes for as long as they are needed."""
    names = [f"seer-{os.getpid()}-{number}" for number in (1, 2)]
    try:
        nodes = _make_namespaces(names)
    except (OSError, subprocess.CalledProcessError):
        nodes = Node("127.0.0.2", "lo", True), Node("127.0.0.3", "lo", False)
    try:
        yield nodes
    finally:
        for name in names if nodes[0].prefix else ():
            _run("ip", "netns", "delete", name)


def _make_namespaces(names: list[str]) -> tuple[Node, Node]:
    made = []
    try:
        for name in names:
            _run("ip", "netns", "add", name)
            made.append(name)
        ends = ("seer0", "seer1")
        _run("ip", "link", "add", ends[0], "netns", names[0], "type", "veth", "peer", ends[1], "netns", names[1])
        return _set_up(names[0], ends[0], "10.99.0.1", True), _set_up(names[1], ends[1], "10.99.0.2", False)
    except (OSError, subprocess.CalledProcessError):
        for name in made:
            _run("ip", "netns", "delete", name)
        raise


def _set_up(name: str, end: str, address: str, is_host: bool) -> Node:
    inside = ("ip", "netns", "exec", name)
    _run(*inside, "ip", "address", "add", f"{address}/24", "dev", end)
    for device in ("lo", end):
        _run(*inside, "ip", "link", "set", device, "up")
    return Node(address, end, is_host, inside)


def _run(*line: str) -> None:
    if not shutil.which(line[0]):
        raise FileNotFoundError(line[0])
    subprocess.run(line, check=True, capture_output=True)


def find_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def end_node(process: subprocess.Popen) -> None:
    """SIGKILL to a torchrun and to all that it has started, so that nobody says good-bye; to one that ended nothing."""
    for pid in [*list_descendants(process.pid), process.pid] if process.poll() is None else ():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def list_descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    found = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in map(int, task.read_text().split()):
                found += [child, *list_descendants(child)]
    return found
