"""What the sessions of a load test act on: a collection, its page, and builds that go on meanwhile, each in a process.

Rule: everything is made in one scratch folder and started through the `seer` command, as a person does it; what was
started is ended here.
"""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

from PIL import Image

from indexer.collection import Collection
from indexer.shards import is_shard, list_pictures

READY = "The page is at "
END_SECONDS = 60
SEER = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from ui.cli import main; main()"
"""The command, hearing Ctrl-C also where a shell that starts it in the background has made it deaf."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A scratch folder: pictures, the collection made of some of them, and copies to upload."""

    folder: Path

    @property
    def pictures(self) -> Path:
        """The folder that the collection is made of."""
        return self.folder / "pictures"

    @property
    def collection(self) -> Path:
        """The collection."""
        return self.folder / "collection"

    def list_files(self) -> list[Path]:
        """One file of each image that can be searched."""
        with Collection(self.collection) as collection:
            return sorted(image.path for image in collection.list_images(count=collection.read_status().images))

    def start(self, *arguments: str, **options: object) -> subprocess.Popen:
        """Start a `seer` command."""
        home = {"SEER_HOME": str(self.folder / "home"), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        return subprocess.Popen(
            [sys.executable, "-c", SEER, *arguments],
            env={**os.environ, **home},
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )

    def build(self, limit: int, *arguments: str) -> subprocess.Popen:
        """Start a build that embeds at most so many pictures and publishes them."""
        place = (str(self.pictures), "--collection", str(self.collection))
        return self.start("build", *place, "--json", "--limit", str(limit), *arguments, stderr=subprocess.DEVNULL)


def unpack(sources: Sequence[Path], count: int, target: Path) -> int:
    """Write the first pictures of tar shards and folders into a folder. Returns: how many there were."""
    target.mkdir(parents=True)
    written = 0
    for name, picture in islice(_read_pictures(sources), count):
        (target / f"{written:06d}{name.suffix}").write_bytes(picture)
        written += 1
    return written


def _read_pictures(sources: Sequence[Path]) -> Iterator[tuple[Path, bytes]]:
    files = [file for source in sources for file in (sorted(source.iterdir()) if source.is_dir() else [source])]
    for file in files:
        if not is_shard(file):
            yield file, file.read_bytes()
            continue
        with file.open("rb") as shard:
            for place in list_pictures(file):
                shard.seek(place.offset)
                yield Path(place.name), shard.read(place.size_bytes)


def make_copy(picture: bytes) -> bytes:
    """The same pixels in another file: content that a collection does not know, with a known nearest neighbour."""
    copy = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").save(copy, "PNG")
    return copy.getvalue()


def find_result(build: subprocess.Popen) -> dict:
    """Wait for a build, and read what it did. Raises: RuntimeError if it failed."""
    told, _ = build.communicate()
    if build.returncode:
        raise RuntimeError(f"seer build ended with status {build.returncode}")
    return json.loads(told.splitlines()[-1])


@contextmanager
def show_page(stage: Stage) -> Iterator[tuple[subprocess.Popen, str, int]]:
    """`seer ui` on a free port. Yields: its process, host and port."""
    process = stage.start("ui", "--collection", str(stage.collection), "--port", "0")
    try:
        line = process.stdout.readline()
        if not line.startswith(READY):
            raise RuntimeError("seer ui did not start")
        address = urlsplit(line.removeprefix(READY).split()[0])
        yield process, address.hostname, address.port
    finally:
        process.kill()
        process.communicate()


@dataclass
class Builds:
    """Builds one after another, each in a process of its own, until they are told to stop."""

    stage: Stage
    limit: int
    niceness: int | None = None
    """None: as a build is by itself."""
    reports: list[dict] = field(default_factory=list)
    error: str | None = None
    _stopping: threading.Event = field(default_factory=threading.Event)
    _current: subprocess.Popen | None = None

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Let builds go on while the body runs; the one in hand is interrupted at the end, as by Ctrl-C."""
        thread = threading.Thread(target=self._go_on)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            with suppress(ProcessLookupError):
                self._current.send_signal(signal.SIGINT)
            thread.join(END_SECONDS)

    def _go_on(self) -> None:
        own = () if self.niceness is None else ("--nice", str(self.niceness))
        while not self._stopping.is_set():
            self._current = self.stage.build(self.limit, *own)
            try:
                self.reports.append(find_result(self._current))
            except RuntimeError as error:
                self.error = None if self._stopping.is_set() else str(error)
                return
            if not self.reports[-1]["pending"]:
                self.error = "the builds ran out of pictures"
                return


def read_processor_seconds(process: subprocess.Popen) -> float:
    """Processor time that a process has used so far. Linux only."""
    fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
