"""What else happens to a collection and to the pictures while it is built: locks, clocks, rights, files that change."""

import os
import random
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from indexer import decode, schema
from indexer.collection import Collection
from indexer.errors import CollectionBusy, CollectionEmpty, CollectionMissing, CollectionUnwritable
from indexer.layout import APPLICATION, CATALOG
from indexer.report import NO_EMBEDDING, Watchers
from indexer.upkeep import prune_collection
from tests.danger.oracle import list_unaccounted, read_truth, require_equal, require_no_wrong
from tests.danger.tally import add
from tests.indexer import pixel_backbone
from tests.indexer.making import build, draw

pytestmark = pytest.mark.usefixtures("by_pixels")

NOBODY = 65534


# The catalog, locked by another program


@pytest.fixture
def locked(place: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """A collection whose catalog another program keeps until the function is called."""
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.05)
    build(place, pictures)
    other = sqlite3.connect(place / CATALOG, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    add("faults injected")
    yield other.close
    other.close()


def test_a_catalog_locked_by_another_program_is_told_and_left_alone(locked, place: Path, pictures: Path):
    truth_files = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    for attempt in (lambda: build(place), lambda: prune_collection(place), lambda: Collection(place)):
        with pytest.raises(CollectionBusy, match=r"Another program keeps .*catalog\.sqlite locked"):
            attempt()
    assert {path: path.read_bytes() for path in truth_files} == truth_files
    locked()
    assert build(place).unchanged == 9


def test_a_reader_that_is_open_says_so_too_and_goes_on_afterwards(
    place: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.05)
    build(place, pictures)
    query = next(pictures.rglob("*.png")).read_bytes()
    with Collection(place) as reader:
        assert reader.find_similar(query)[0].is_same
        other = sqlite3.connect(place / CATALOG, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        add("faults injected")
        with pytest.raises(CollectionBusy, match="Another program"):
            reader.find_similar(query)
        other.close()
        assert reader.find_similar(query)[0].is_same


def test_a_lock_that_is_soon_let_go_is_waited_for(place: Path, pictures: Path):
    build(place, pictures)
    other = sqlite3.connect(place / CATALOG, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    add("faults injected")
    release = threading.Timer(0.3, other.close)
    release.start()
    assert build(place).unchanged == 9
    release.join()


# The clock


def test_a_clock_set_back_changes_neither_the_model_nor_the_answers(
    place: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
):
    build(place, pictures, model="regnety-400mf")
    real = time.time
    for days, model in ((-400, "seer-mini"), (-800, "regnety-400mf"), (-1200, "seer-mini")):
        monkeypatch.setattr(time, "time", lambda days=days: real() + days * 86400)
        add("faults injected")
        draw(pictures / f"{-days}.png", -days)
        chosen = build(place, model=model)
        again = build(place)
        assert again.generation == chosen.generation, "another model came into use"
        with Collection(place) as collection:
            assert collection.read_status().model == model
    assert list_unaccounted(place, pictures) == []


def test_files_from_the_future_and_files_that_went_back_in_time_are_read_once(
    place: Path, pictures: Path, tmp_path: Path
):
    files = sorted(pictures.rglob("*.png"))
    os.utime(files[0], (4_000_000_000, 4_000_000_000))
    build(place, pictures)
    assert build(place).unchanged == 9
    draw(files[1], 70)
    os.utime(files[1], (1, 1))
    os.utime(files[2], (2, 2))
    add("faults injected", 3)
    report = build(place)
    assert (report.embedded, report.images) == (1, 9)
    assert build(place).unchanged == 9
    build(tmp_path / "undisturbed", pictures)
    require_equal(place, read_truth(tmp_path / "undisturbed", pictures), pictures)


# Rights


def as_nobody(work: Callable[[], str]) -> str:
    """What `work` gives, or raises, for a user without rights: root may read and write whatever the rights say."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            os.write(writing, work().encode())
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as said:
        return said.read()


def give_to_nobody(*folders: Path) -> None:
    if os.geteuid() == 0:
        for folder in folders:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
            for above in folder.parents:
                if above.stat().st_uid == 0 and above.is_relative_to(folder.parents[-3]):
                    above.chmod(above.stat().st_mode | 0o055)


@pytest.mark.usefixtures("in_one_process")
def test_a_read_only_collection_is_read_and_a_build_of_it_refused(place: Path, pictures: Path):
    build(place, pictures)
    truth = read_truth(place, pictures)
    query = next(pictures.rglob("*.png"))
    draw(pictures / "new.png", 60)
    give_to_nobody(place, pictures)
    for path in (*place.rglob("*"), place):
        path.chmod(0o555 if path.is_dir() else 0o444)
    add("faults injected")

    def search() -> str:
        with Collection(place) as collection:
            return str(collection.find_similar(query.read_bytes())[0].path)

    assert as_nobody(search) == str(query)
    for change in (lambda: str(build(place)), lambda: str(prune_collection(place))):
        said = as_nobody(change)
        assert said.startswith(CollectionUnwritable.__name__) and "Permission denied" in said, said
    for path in (place, *place.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    require_no_wrong(place, truth, pictures)
    assert build(place).embedded == 1


@pytest.mark.usefixtures("in_one_process")
def test_files_and_folders_without_permission_are_listed_or_kept(place: Path, pictures: Path, tmp_path: Path):
    build(tmp_path / "undisturbed", pictures)  # loads what nobody may not
    truth = read_truth(tmp_path / "undisturbed", pictures)
    place.mkdir()
    give_to_nobody(place, pictures)
    closed = pictures / "a" / "picture-1.png"
    closed.chmod(0)
    add("faults injected", 2)
    said = as_nobody(lambda: str(build(place, pictures)))
    assert "embedded=8" in said and "failed=1" in said, said
    with Collection(place) as collection:
        failure = collection.list_unsearchable()[0]
        assert failure.path == closed and "permission denied" in failure.reason
    closed.chmod(0o644)
    (pictures / "b").chmod(0)
    said = as_nobody(lambda: str(build(place)))
    assert "embedded=1" in said and "found=9" in said and "removed=0" in said, said
    (pictures / "b").chmod(0o755)
    assert build(place).unchanged == 9
    require_equal(place, truth, pictures)


# Files that do not stay what they are


def change_while_read(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_in_a_pictures_place_keeps_nobody_waiting(place: Path, pictures: Path):
    build(place, pictures)
    with Collection(place) as collection, ThreadPoolExecutor(1) as threads:
        image = collection.list_images(count=1)[0]
        image.path.unlink()
        os.mkfifo(image.path)
        add("faults injected")
        answer = threads.submit(collection.read_original, image.content_hash)
        try:
            assert answer.result(20) is None
        finally:
            os.close(os.open(image.path, os.O_RDWR))  # Else a thread that waits would wait for ever.


@pytest.mark.usefixtures("in_one_process")
@pytest.mark.parametrize(
    ("happens", "said"), [(change_while_read, "changed while it was read"), (os.unlink, "vanished before it was read")]
)
def test_files_that_change_or_vanish_in_the_middle_are_listed_and_taken_up_later(
    happens: Callable, said: str, place: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    chosen = random.Random(1).sample(sorted(pictures.rglob("*.png")), 4)
    real = os.fstat

    def read_whole(path: str, read=decode.read_whole) -> tuple:
        if Path(path) in chosen and happens is os.unlink:
            os.unlink(path)
        if Path(path) in chosen and happens is change_while_read:
            seen = iter((lambda: None, lambda: change_while_read(Path(path))))
            monkeypatch.setattr(os, "fstat", lambda handle: (next(seen)(), real(handle))[1])
        try:
            return read(path)
        finally:
            monkeypatch.setattr(os, "fstat", real)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(decode, "read_whole", read_whole)
        report = build(place, pictures)
    add("faults injected", 4)
    assert (report.embedded, report.failed, report.images) == (5, 4, 5)
    with Collection(place) as collection:
        failures = collection.list_unsearchable()
        assert {failure.path for failure in failures} == set(chosen)
        assert all(said in failure.reason for failure in failures)
    build(place)
    build(tmp_path / "undisturbed", pictures)
    require_equal(place, read_truth(tmp_path / "undisturbed", pictures), pictures)


def test_decoding_processes_killed_in_the_middle_cost_no_picture(place: Path, pictures: Path, tmp_path: Path):
    for seed in range(100, 160):
        draw(pictures / f"{seed}.png", seed)
    build(tmp_path / "undisturbed", pictures)
    truth = read_truth(tmp_path / "undisturbed", pictures)
    killed = []

    def on_step(name: str) -> None:
        # Once: a picture whose process dies twice is given up, and rightly.
        if name == "batch embedded" and not killed:
            for process in list_decoding():
                os.kill(process, signal.SIGKILL)
                killed.append(process)

    report = build(place, pictures, workers=2, watchers=Watchers(on_step=on_step))
    add("faults injected", len(killed))
    assert killed and report.failed == 0
    require_equal(place, truth, pictures)
    add("kills survived", len(killed))


def list_decoding() -> list[int]:
    """The decoding processes of this process: children of its fork server."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    servers = {process for process, parent in parents.items() if parent == os.getpid()}
    return [process for process, parent in parents.items() if parent in servers]


# Little and nothing


@pytest.mark.usefixtures("in_one_process")
def test_of_no_picture_and_of_more_than_there_are_one_may_ask(place: Path, pictures: Path, tmp_path: Path):
    (tmp_path / "none").mkdir()
    report = build(tmp_path / "empty", tmp_path / "none")
    assert (report.found, report.images) == (0, 0)
    build(place, pictures)
    query = next(pictures.rglob("*.png")).read_bytes()
    with Collection(tmp_path / "empty") as nothing, Collection(place) as collection:
        assert nothing.find_similar(query, count=10) == nothing.find_similar(query, count=10**9) == []
        assert [found.rank for found in collection.find_similar(query, count=10**9)] == list(range(1, 10))
        assert collection.find_similar(query, count=10**9, first=9) == []
    add("faults injected", 2)


@pytest.mark.usefixtures("in_one_process")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_never_stored(
    value: float, place: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
):
    """A network's zero is such a row as well: `tests/seer_model/test_backbone.py`."""
    embed = pixel_backbone.PixelBackbone.embed

    def embed_badly(self, pixels: list) -> np.ndarray:
        rows = embed(self, pixels)
        rows[::2] = value
        return rows

    monkeypatch.setattr(pixel_backbone.PixelBackbone, "embed", embed_badly)
    report = build(place, pictures)
    add("faults injected", 5)
    assert (report.embedded, report.failed) == (4, 5)
    with Collection(place) as collection:
        (reason,) = {failure.reason for failure in collection.list_unsearchable()}
        assert NO_EMBEDDING.startswith(reason.rstrip("."))
        norms = np.linalg.norm(collection.read_embeddings()[1].astype(np.float32), axis=1)
        assert np.allclose(norms, 1, atol=1e-3)


# What a kill inside SQLite leaves


@pytest.mark.usefixtures("in_one_process")
def test_a_catalog_that_had_only_begun_says_so_and_is_gone_on_from(place: Path, pictures: Path):
    place.mkdir()
    for statement in ("SELECT 1", f"PRAGMA application_id = {int.from_bytes(APPLICATION, 'big')}"):
        begun = sqlite3.connect(place / CATALOG)
        begun.execute(statement)
        begun.close()
        (place / CATALOG).touch()
        add("faults injected")
        with pytest.raises((CollectionEmpty, CollectionMissing), match="seer build PICTURES"):
            Collection(place)
    assert build(place, pictures).images == 9


@pytest.mark.usefixtures("in_one_process")
def test_a_transaction_that_was_cut_off_is_rolled_back_by_who_comes_next(place: Path, pictures: Path, tmp_path: Path):
    build(place, pictures)
    truth = read_truth(place, pictures)
    writer = sqlite3.connect(place / CATALOG, isolation_level=None)
    for statement in ("PRAGMA cache_size = 1", "BEGIN", "DELETE FROM rows", "DELETE FROM files"):
        writer.execute(statement)
    writer.executemany("INSERT INTO folders VALUES (?)", [(bytes(3000) + bytes([n]),) for n in range(60)])
    left = Path(shutil.copytree(place, tmp_path / "left"))  # as they are on the disk at this moment
    writer.close()
    assert (left / f"{CATALOG}-journal").stat().st_size
    assert (left / CATALOG).read_bytes() != (place / CATALOG).read_bytes()
    add("faults injected")
    require_equal(left, truth, pictures)
    assert build(left).unchanged == 9
