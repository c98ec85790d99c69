"""Making what tests of another search engine need: a collection of some hundred drawn pictures, and milvus-lite.

A file is served in the process that opens it; `start_server` serves one in a process of its own, as a cluster would be.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from tests.indexer.making import build, draw

FOLDERS = ("a", "a/b", '100%_"q" \\n', os.fsdecode(b"\xff\xe9 x"), "\u00e9t\u00e9")
"""With letters that mean something in an expression, and bytes that are no text."""
DAY = 24 * 3600


def make_mixed(folder: Path, count: int, first: int = 0) -> Path:
    """Pictures of several shapes, sizes, formats, folders and days; each seventh in two files. Returns: the folder."""
    for number in range(first, first + count):
        name = f"{number:03d}.{('png', 'jpg', 'webp')[number % 3]}"
        path = draw(folder / FOLDERS[number % len(FOLDERS)] / name, number)
        with Image.open(path) as picture:
            picture.resize(((140, 120), (90, 150), (100, 100))[number // 3 % 3]).save(path)
        os.utime(path, (1_700_000_000 + number % 9 * DAY,) * 2)
        if number % 7 == 0:
            other = folder / FOLDERS[(number + 1) % len(FOLDERS)] / f"copy-{name}"
            other.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, other)
            os.utime(other, (1_700_000_000 + (number + 5) % 9 * DAY,) * 2)
    return folder


def build_mixed(place: Path, folder: Path, count: int, first: int = 0) -> None:
    """A build of them, and of what else is there."""
    build(place, make_mixed(folder, count, first), batch_size=64)


@contextmanager
def start_server(folder: Path, port: int | None = None) -> Iterator[str]:
    """milvus-lite in a process of its own. Yields: its address, without a name."""
    port = port or find_port()
    command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(folder), "--host", "127.0.0.1"]
    process = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield f"milvus://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def find_port() -> int:
    """One that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def wait_for(port: int, seconds: float = 30.0) -> None:
    """Until something listens there."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        with socket.socket() as trying:
            if not trying.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens at {port}")


def let_go(file: Path) -> None:
    """Let another process have a file that this one has served."""
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(str(file))
