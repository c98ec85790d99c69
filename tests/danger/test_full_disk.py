"""A disk that is full at any moment: the build says so in a sentence, and the next one, with room, ends as if
undisturbed. On a real small disk where this system lets us mount one, and call by call everywhere."""

import builtins
import errno
import io
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from indexer import catalog
from indexer.errors import CollectionUnwritable
from indexer.index_maker import train
from indexer.recipes import Recipe
from indexer.schema import connect_to_write
from indexer.upkeep import prune_collection
from tests.danger.oracle import Truth, read_truth, require_equal, require_no_wrong
from tests.danger.tally import add
from tests.indexer.making import build, draw

pytestmark = pytest.mark.usefixtures("by_pixels", "in_one_process")

PAGE_BYTES = 4096
CALLS = ("fsync", "replace", "rename", "mkdir", "truncate")


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Five pictures."""
    for seed in range(5):
        draw(tmp_path / "few" / f"{seed}.png", seed)
    return tmp_path / "few"


@pytest.fixture
def truth(few: Path, tmp_path: Path) -> Truth:
    """What there should be in the end."""
    build(tmp_path / "undisturbed", few)
    return read_truth(tmp_path / "undisturbed", few)


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch) -> None:
    """The build does not ask first whether there is room."""
    monkeypatch.setattr("indexer.job._Build._require_disk", lambda *_: None)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A function that gives a disk of so many bytes, with what it held before."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def resize(size: int) -> Path:
        options = f"{'remount,' if disk.is_mount() else ''}size={size}"
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(disk)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"No small disk can be mounted here ({done.stderr.strip()}); the next tests stand in for it.")
        return disk

    yield resize
    if disk.is_mount():
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.usefixtures("careless")
def test_a_small_disk_full_at_any_page_is_told_and_the_next_build_goes_on(small_disk, few: Path, truth: Truth):
    size, room = PAGE_BYTES, 64 << 20
    while is_full(small_disk(size) / "collection", few):
        place = small_disk(room) / "collection"
        add("faults injected")
        require_no_wrong(place, truth, few)
        build(place, few, batch_size=2)
        require_equal(place, truth, few)
        shutil.rmtree(place)
        size += 3 * PAGE_BYTES
    assert size > 60 * PAGE_BYTES
    require_equal(small_disk(room) / "collection", truth, few)


def is_full(place: Path, *pictures: Path) -> bool:
    """Whether the disk was too small for a build, and the build said so."""
    try:
        build(place, *pictures, batch_size=2)
    except CollectionUnwritable as error:
        assert any(words in str(error) for words in ("is full", "No space left", "disk I/O error")), error
        return True
    return False


class Disk:
    """A disk that refuses the n-th write, sync, rename or new name below a folder, and all later ones."""

    def __init__(self, place: Path, calls: int) -> None:
        self.place, self.left = str(place), calls

    def use(self) -> None:
        """Count one; raise OSError if it was one too many."""
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stand between Python and the system."""
        real_open = builtins.open

        def open_counted(file, mode="r", *rest, **options):
            opened = real_open(file, mode, *rest, **options)
            is_ours = not isinstance(file, int) and os.fspath(file).startswith(self.place)
            return Written(opened, self) if is_ours and set(mode) & set("wa+x") else opened

        for module in (builtins, io):
            monkeypatch.setattr(module, "open", open_counted)
        for name in CALLS:
            monkeypatch.setattr(os, name, self._count(getattr(os, name)))

    def _count(self, call: Callable) -> Callable:
        return lambda *given, **named: (self.use(), call(*given, **named))[1]


class Written:
    """An open file whose writes are counted."""

    def __init__(self, file, disk: Disk) -> None:
        self._file, self._disk = file, disk

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def __enter__(self) -> "Written":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        """As the file's, if there is room."""
        self._disk.use()
        return self._file.write(data)


def build_all(place: Path, few: Path) -> None:
    build(place, few, batch_size=2)


def prune_some(place: Path, few: Path) -> None:
    if not place.exists():
        draw(few / "gone.png", 60)
        build(place, few)
        (few / "gone.png").unlink()
        build(place)
    else:
        prune_collection(place)


@pytest.mark.parametrize("change", [build_all, prune_some])
def test_the_nth_call_that_finds_no_room_is_told_and_the_next_run_goes_on(
    change: Callable, place: Path, few: Path, truth: Truth, monkeypatch: pytest.MonkeyPatch
):
    for calls in range(200):
        if change is prune_some:
            change(place, few)
        with monkeypatch.context() as full:
            Disk(place, calls).install(full)
            try:
                change(place, few)
                break
            except CollectionUnwritable as error:
                assert "No space left" in str(error)
        add("faults injected")
        require_no_wrong(place, truth, few)
        change(place, few)
        build(place, few)
        require_equal(place, truth, few)
        shutil.rmtree(place)
    assert 15 < calls < 199


def test_an_index_without_room_is_told():
    with pytest.raises(OSError, match="No space left"):
        train(Recipe(reduced=32, lists=1), np.eye(64, dtype=np.float16), np.arange(64)).write(Path("/dev/full"))


def test_a_catalog_that_may_not_grow_is_told_and_the_next_build_goes_on(
    place: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for number in range(120):
        (few / f"{number:0200}.jpg").write_bytes(b"\xff\xd8\xff no picture")
    build(tmp_path / "undisturbed", few)
    truth = read_truth(tmp_path / "undisturbed", few)
    for pages in range(10, 200, 4):
        with monkeypatch.context() as full:
            full.setattr(catalog, "connect_to_write", lambda path, pages=pages: limit(connect_to_write(path), pages))
            if not is_full(place, few):
                break
        add("faults injected")
        require_no_wrong(place, truth, few)
        build(place, few)
        require_equal(place, truth, few)
        shutil.rmtree(place)
    assert 20 < pages < 199


def limit(connection, pages: int):
    connection.execute(f"PRAGMA max_page_count = {pages}")
    return connection
