"""The embedding job on a real Ray cluster of three nodes on this computer, nodes and drivers of which are killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from indexer import parts
from indexer.cluster import MOST_DEATHS, TRIES, Cluster
from indexer.collection import Collection
from indexer.vectors import Store, StoreWriter
from seer_model.errors import SettingsError
from tests.conftest import REPOSITORY, fail_in_ci_else_skip
from tests.indexer.making import build
from tests.indexer.making_rows import draw_embeddings
from tests.indexer.object_store import serve_objects

NODES = 3
PATIENCE_SECONDS = 600
FEW, SHARD_FILES = 64, 8
UNLABELLED = REPOSITORY.parent / "shared" / "data" / "unlabelled" / "unlabelled-00.tar"


class Nodes:
    """A cluster in processes of its own."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.nodes", str(NODES), "1"], cwd=REPOSITORY, text=True,
            env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.address = self._process.stdout.readline().strip()
        assert self.address, "the cluster did not start"

    def kill(self) -> None:
        """One is lost, another comes."""
        self._process.stdin.write("kill\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def close(self) -> None:
        self._process.communicate(timeout=60)


class Driver:
    """`seer build --engine ray`, in a process of its own."""

    def __init__(self, nodes: Nodes, place: Path, *pictures: str, files: int = SHARD_FILES, **environment: str) -> None:
        self._rows = place / "stores" / "000001" / "rows.f16"
        line = [sys.executable, "-m", "tests.indexer.small_shards", str(files), "build", *pictures, "--json"]
        line += ["--collection", str(place), "--engine", "ray", "--address", nodes.address]
        self._process = subprocess.Popen(
            line, cwd=REPOSITORY, text=True, env=os.environ | environment, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def wait_for_rows(self, count: int) -> None:
        """Until so many are on the disk."""
        until = time.monotonic() + PATIENCE_SECONDS
        while not (self._rows.is_file() and self._rows.stat().st_size >= count * 2048):
            assert self._process.poll() is None, self._process.communicate()
            assert time.monotonic() < until
            time.sleep(0.02)

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def hear_out(self) -> dict:
        """Its report, when it has come to the end."""
        answer, told = self._process.communicate(timeout=PATIENCE_SECONDS)
        assert self._process.returncode == 0 and "Warning" not in told, told
        return json.loads(answer)

    def hear_of_failure(self) -> str:
        """What it says on standard error when it has failed."""
        answer, told = self._process.communicate(timeout=PATIENCE_SECONDS)
        assert (self._process.returncode, answer) == (1, ""), told
        return told


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[..., Nodes]]:
    """Starts a cluster; it ends with the tests of this module."""
    started: list[Nodes] = []

    def start_one(**environment: str) -> Nodes:
        started.append(Nodes(environment))
        return started[-1]

    yield start_one
    for nodes in started:
        nodes.close()


@pytest.fixture(scope="module")
def nodes(start: Callable[..., Nodes]) -> Nodes:
    """One that several tests may use, also after some of its nodes were lost."""
    return start()


def read_rows(place: Path) -> tuple[list[str], np.ndarray]:
    """Content hashes and the bits of the rows, in the order of the rows."""
    with Collection(place) as collection:
        ids, rows = collection.read_embeddings()
        hashes = {one.image_id: one.content_hash for one in collection.read_images(ids.tolist())}
        return [hashes[image] for image in ids.tolist()], rows.view(np.uint16).copy()


def assert_same(there: Path, here: Path) -> None:
    (hashes, rows), (expected, expected_rows) = read_rows(there), read_rows(here)
    assert hashes == expected and np.array_equal(rows, expected_rows)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory, photos_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("few")
    for number, path in enumerate(sorted(photos_folder.rglob("*.jpg"))[:FEW]):
        (folder / f"{number:03d}.jpg").write_bytes(path.read_bytes())
    return folder


def test_a_killed_node_leaves_the_rows_of_a_build_at_home(nodes: Nodes, few: Path, tmp_path: Path):
    there = tmp_path / "there"
    driver = Driver(nodes, there, str(few))
    driver.wait_for_rows(2 * SHARD_FILES)
    nodes.kill()
    report = driver.hear_out()
    assert (report["found"], report["failed"], report["pending"]) == (FEW, 0, 0)
    build(tmp_path / "here", few, batch_size=None)
    assert_same(there, tmp_path / "here")


@pytest.mark.long
def test_killed_drivers_and_nodes_leave_the_rows_of_a_build_at_home(nodes: Nodes, few: Path, tmp_path: Path):
    there = tmp_path / "there"
    first = Driver(nodes, there, str(few))
    first.wait_for_rows(2 * SHARD_FILES)
    first.kill()
    second = Driver(nodes, there)
    second.wait_for_rows(4 * SHARD_FILES)
    nodes.kill()
    report = second.hear_out()
    assert (report["found"], report["failed"], report["pending"]) == (FEW, 0, 0)
    # Of the second shard the rows may be there, and its files not recorded yet.
    assert report["embedded"] <= FEW - SHARD_FILES
    build(tmp_path / "here", few, batch_size=None)
    assert_same(there, tmp_path / "here")


@pytest.mark.long
def test_a_shard_that_kills_whoever_takes_it_ends_the_build_in_a_sentence(nodes: Nodes, few: Path, tmp_path: Path):
    there, deaths = tmp_path / "there", tmp_path / "deaths"
    told = Driver(nodes, there, str(few), DEADLY="040.jpg", DEATHS=str(deaths)).hear_of_failure()
    last = told.splitlines()[-1]
    assert last.startswith("seer: The cluster lost what it had in hand (") and "Traceback" not in told, told
    assert len(deaths.read_text()) == 1 + MOST_DEATHS
    report = Driver(nodes, there).hear_out()
    assert (report["found"], report["failed"], report["pending"]) == (FEW, 0, 0)
    build(tmp_path / "here", few, batch_size=None)
    assert_same(there, tmp_path / "here")


def test_what_a_node_refuses_is_said_as_at_home(nodes: Nodes, few: Path, tmp_path: Path):
    told = Driver(nodes, tmp_path / "there", str(few), "--model", "nothing-of-this-name").hear_of_failure()
    assert told.splitlines()[-1].startswith("seer: There is no model 'nothing-of-this-name'"), told
    assert "Traceback" not in told


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("address", ["local", None])
def test_a_cluster_that_is_started_here_has_the_time_that_it_needs(address: str, monkeypatch: pytest.MonkeyPatch):
    import ray

    asked = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", lambda *given, **_: asked.append((*given, os.environ.get(TRIES))))
    monkeypatch.setattr(Cluster, "_make_plan", lambda *_: None)
    Cluster(address, "cpu")
    assert asked == [("local", None)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Of Ray, about itself.
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nobody_is_is_said_at_once(scheme: str, monkeypatch: pytest.MonkeyPatch):
    import ray

    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray tries for a quarter of an hour"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"{scheme}127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(SettingsError, match=f"no Ray cluster at {address} .*refused.*ray start --head"):
        Cluster(address, "cpu")


def test_parts_of_an_index_are_made_on_the_nodes_as_they_are_here(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    place, rows, dimension, part_rows = tmp_path / "store", 1600, 48, 450
    with closing(StoreWriter(place, dimension, 0)) as writer:
        writer.append(draw_embeddings(rows, dimension, seed=0).astype(np.float32))
    line = [sys.executable, "-m", "tests.indexer.part_filler", nodes.address, str(place)]
    line += map(str, (rows, dimension, part_rows))
    done = subprocess.run(line, cwd=REPOSITORY, text=True, capture_output=True, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["merging 4 parts of 16 lists"], "none was made by that process"
    (lists,) = (place / parts.PARTS).glob("*.lists")
    (trained,) = (place / parts.PARTS).glob("*.faiss")
    made = lists.read_bytes()
    for path in (place / parts.PARTS).glob("*.part"):
        path.unlink()
    monkeypatch.setattr(parts, "PART_ROWS", part_rows)
    parts.PartedIndex(Store(place, dimension, rows), trained).fill()
    assert lists.read_bytes() == made


@pytest.mark.long
@pytest.mark.parametrize("trouble", ["none", "nodes", "driver", "store"])
def test_sixteen_thousand_pictures_are_embedded_as_at_home(
    start: Callable[..., Nodes], tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, trouble: str
):
    if not UNLABELLED.is_file():
        fail_in_ci_else_skip(f"There is no {UNLABELLED}; it lies beside the repository, in shared/.")
    here = tmp_path_factory.getbasetemp() / "sixteen-thousand"
    if not here.exists():
        build(here, UNLABELLED, batch_size=None, workers=2)
    there, source = tmp_path / "there", str(UNLABELLED)
    if trouble == "store":
        _build_from_store(start, there)
    else:
        nodes = start()
        driver = Driver(nodes, there, source, files=256)
        for rows in (3000, 8000) if trouble == "nodes" else ():
            driver.wait_for_rows(rows)
            nodes.kill()
        if trouble == "driver":
            driver.wait_for_rows(5000)
            driver.kill()
            driver = Driver(nodes, there, files=256)
        report = driver.hear_out()
        assert (report["failed"], report["pending"]) == (0, 0)
    assert_same(there, here)


def _build_from_store(start: Callable[..., Nodes], there: Path) -> None:
    """Each picture an object of its own, answered with errors, late, or by a connection that is cut."""
    with serve_objects() as store, tarfile.open(UNLABELLED) as tar:
        for member in tar:
            if member.isreg():
                store.put(f"unlabelled/{member.name}", tar.extractfile(member).read())
        store.fail = {"error": 0.05, "drop": 0.03, "refuse": 0.02, "slow": 0.002}
        nodes = start(**store.environment())
        driver = Driver(nodes, there, "s3://pictures/unlabelled", files=256, **store.environment())
        report = driver.hear_out()
        assert (report["failed"], report["pending"]) == (0, 0)
        assert min(store.seen[fault] for fault in ("error", "drop", "refuse", "slow")) > 10
