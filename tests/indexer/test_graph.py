"""The neighbour graph: what comparing every pair gives, gone on with after a kill, grown with the collection."""

import json
import shutil
import signal
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from indexer import fitting, index, linking, vectors
from indexer.check import check_collection
from indexer.cli import cli
from indexer.collection import Collection
from indexer.errors import CollectionBusy, CollectionDamaged
from indexer.generations import compute_checksum, open_generation, verify_whole
from indexer.graph import build_graph
from indexer.graph_folder import GraphWriter, Links
from indexer.hold import hold
from indexer.snapshot import Snapshot
from tests.indexer.making_rows import add_rows, draw_embeddings, keep_rows

ROWS, DIMENSION, COUNT = 70, 24, 4
GRAPH = Path("generations/000001/graph")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five batches for 70 rows."""
    monkeypatch.setattr(linking, "BATCH", 16)


@pytest.fixture
def embeddings() -> np.ndarray:
    """Rows in all directions, and six of one content; another one is far from all."""
    rows = draw_embeddings(ROWS, DIMENSION, 3)
    rows[[5, 9, 20, 40, 41, 66]] = rows[5]
    return rows


@pytest.fixture
def exact(place: Path, embeddings: np.ndarray) -> Path:
    """A collection of these rows that is searched exactly."""
    return keep_rows(place, embeddings)


@pytest.fixture
def indexed(place: Path, embeddings: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same with an approximate index."""
    force_index(monkeypatch)
    keep_rows(place, embeddings)
    assert (place / "generations" / "000001" / "index.faiss").is_file()
    return place


def force_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is published from now on has an approximate index."""
    for name, value in (("LEAST_ROWS", 16), ("INSTANT_BYTES", 0), ("time_exact", lambda *_: 99.0)):
        monkeypatch.setattr(fitting, name, value)


def link_by_numpy(rows: np.ndarray, count: int) -> np.ndarray:
    """(N, k) cosines of each row with its nearest others, largest first."""
    rows = rows.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -np.inf)
    return -np.sort(-cosines, axis=1)[:, :count]


def read_files(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (place / GRAPH).iterdir()}


def test_each_row_has_its_nearest_others_and_the_similarities_that_a_search_shows(exact: Path):
    report = build_graph(exact, neighbours=COUNT)
    assert (report.rows, report.linked, report.pending, report.recall) == (ROWS, ROWS, 0, 1.0)
    with Collection(exact) as collection:
        image_ids, rows = collection.read_embeddings()
        of, neighbours, similarities = collection.read_graph()
        assert list(of) == list(image_ids) and neighbours.dtype == np.int32 and similarities.dtype == np.float32
        np.testing.assert_allclose(similarities, link_by_numpy(rows, COUNT), atol=1e-6)
        for row in range(ROWS):
            shown = {one.image_id: one.similarity for one in collection.find_similar_to(int(image_ids[row]), ROWS)}
            assert row not in neighbours[row] and len(set(neighbours[row])) == COUNT
            assert [shown[one] for one in image_ids[neighbours[row]]] == similarities[row].tolist(), "to the bit"
            assert list(np.lexsort((neighbours[row], -similarities[row]))) == list(range(COUNT))


def test_where_there_are_fewer_places_stay_empty(place: Path):
    keep_rows(place, draw_embeddings(3, 8, 0))
    build_graph(place, neighbours=4)
    with Collection(place) as collection:
        _, neighbours, similarities = collection.read_graph()
    assert (neighbours[:, 2:] == -1).all() and np.isneginf(similarities[:, 2:]).all()
    assert [sorted(one[:2]) for one in neighbours.tolist()] == [[1, 2], [0, 2], [0, 1]]


def test_an_approximate_index_proposes_and_its_recall_is_measured(indexed: Path):
    report = build_graph(indexed, neighbours=COUNT)
    with Collection(indexed) as collection:
        _, rows = collection.read_embeddings()
        _, neighbours, similarities = collection.read_graph()
    exact, stored = link_by_numpy(rows, COUNT), rows.astype(np.float64)
    stored /= np.linalg.norm(stored, axis=1, keepdims=True)
    told = (stored[:, None] * stored[neighbours]).sum(axis=2)
    np.testing.assert_allclose(similarities, told, atol=1e-6)
    assert not (neighbours == np.arange(len(rows))[:, None]).any()
    assert report.recall >= 0.9 and (similarities >= exact[:, -1:] - 1e-6).mean() >= 0.9


def test_recall_is_that_of_rows_which_the_index_has_not_seen(indexed: Path, monkeypatch: pytest.MonkeyPatch):
    """One list of many, and of few candidates: what is told is what a comparison with every row tells of them."""
    held = fitting.read_held_out(indexed / "generations" / "000001").halve()[1].own
    monkeypatch.setattr(linking.Linker, "_propose", lambda self, rows: np.tile(np.arange(26), (len(rows), 1)))
    told = build_graph(indexed, neighbours=COUNT).recall
    with Collection(indexed) as collection:
        _, rows = collection.read_embeddings()
        _, _, similarities = collection.read_graph()
    right = similarities >= link_by_numpy(rows, COUNT)[:, -1:] - 1e-6
    assert told == pytest.approx(right[held[held >= 0]].mean(), abs=1e-4) and told < 0.8


@pytest.mark.parametrize("where", ["exact", "indexed"])
def test_killed_at_any_batch_it_goes_on_and_ends_with_the_same_bytes(where: str, request: pytest.FixtureRequest):
    place = request.getfixturevalue(where)
    batches = -(-build_graph(place, neighbours=COUNT).rows // 16)
    whole = read_files(place)
    for batch in range(batches):
        shutil.rmtree(place / GRAPH)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            kill_at(patch, batch)
            build_graph(place, neighbours=COUNT)
        with Collection(place) as collection:
            assert collection.read_graph() is None
        assert "graphs" not in {problem.part for problem in check_collection(place, sample=0).problems}
        went_on = build_graph(place, neighbours=COUNT)
        assert went_on.linked == went_on.rows - 16 * batch and read_files(place) == whole


def kill_at(patch: pytest.MonkeyPatch, batch: int) -> None:
    """After the bytes of a batch are written, and before they are counted."""
    tell, told = GraphWriter._tell, iter(range(100))

    def die(self: GraphWriter, **changed: object) -> None:
        if next(told) == batch:
            raise KeyboardInterrupt
        tell(self, **changed)

    patch.setattr(GraphWriter, "_tell", die)


def test_a_stop_ends_with_whole_batches_and_a_finished_graph_is_left_alone(exact: Path):
    asked = iter([False, True])
    stopped = build_graph(exact, neighbours=COUNT, should_stop=lambda: next(asked))
    assert (stopped.linked, stopped.pending, stopped.recall) == (32, ROWS - 32, None)
    pending = [build_graph(exact, neighbours=COUNT, should_stop=lambda: True).pending for _ in range(2)]
    last = build_graph(exact, neighbours=COUNT, should_stop=lambda: True)
    assert (*pending, last.pending, last.recall) == (22, 6, 0, 1.0), "a stop with nothing left to do is none"
    before = {path: path.stat().st_mtime_ns for path in (exact / GRAPH).iterdir()}
    assert build_graph(exact, neighbours=COUNT).linked == 0
    assert {path: path.stat().st_mtime_ns for path in (exact / GRAPH).iterdir()} == before
    assert build_graph(exact, neighbours=COUNT + 1).linked == ROWS, "another number: made anew"


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


HARM = {
    "a neighbour": lambda place: flip(place / "neighbours.i32", 40),
    "a similarity": lambda place: flip(place / "similarities.f32", -1),
    "an end": lambda place: (place / "similarities.f32").write_bytes(b""),
    "what is told": lambda place: flip(place / "graph.json", -4),
    "a file": lambda place: (place / "neighbours.i32").unlink(),
    "the generation": lambda place: (place / "graph.json").write_text(place.with_name("other").read_text()),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_graph_is_refused_found_removed_and_made_again(harm: str, exact: Path):
    build_graph(exact, neighbours=COUNT)
    whole = read_files(exact)
    keep_foreign(exact / GRAPH)
    HARM[harm](exact / GRAPH)
    with Collection(exact) as collection, pytest.raises(CollectionDamaged, match="Run seer graph"):
        collection.read_graph()
    (problem,) = [one for one in check_collection(exact, sample=0).problems if one.part == "graphs"]
    assert problem.text.count("Run ") == 1 and not problem.is_repaired
    (problem,) = [one for one in check_collection(exact, sample=0, repair=True).problems if one.part == "graphs"]
    assert problem.is_repaired and not (exact / GRAPH).exists()
    assert build_graph(exact, neighbours=COUNT).linked == ROWS and read_files(exact) == whole
    HARM[harm](exact / GRAPH)
    assert build_graph(exact, neighbours=COUNT).linked == ROWS and read_files(exact) == whole, "without a check, too"


def keep_foreign(folder: Path) -> None:
    """What the graph of another generation tells, beside this one."""
    told = json.loads((folder / "graph.json").read_text()) | {"generation": "0" * 64}
    told["checksum"] = compute_checksum(told)
    folder.with_name("other").write_text(json.dumps(told))


@pytest.mark.parametrize("where", ["exact", "indexed"])
def test_a_graph_grows_and_misses_none_of_what_is_new(
    where: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    """Only new rows are searched for; what is old is compared with all that is new, whatever the index is."""
    place = request.getfixturevalue(where)
    build_graph(place, neighbours=COUNT)
    add_rows(place, draw_embeddings(30, DIMENSION, 7))
    searched, find = [], linking.Linker._find
    monkeypatch.setattr(linking.Linker, "_find", lambda self, rows: (searched.extend(rows), find(self, rows))[1])
    assert build_graph(place, neighbours=COUNT).linked == 100 and searched == list(range(70, 100))
    neighbours, similarities = read_lists(place)
    with Collection(place) as collection:
        exact = link_by_numpy(collection.read_embeddings()[1], COUNT)
    came = (neighbours[:ROWS] >= ROWS).sum(axis=1)
    nearer = (similarities[:ROWS] >= exact[:ROWS, -1:] - 1e-6).sum(axis=1)
    assert came.sum() > 50 and (nearer >= came).all()
    if where == "exact":
        for name in ("000001", "000002"):
            shutil.rmtree(place / "generations" / name / "graph")
        build_graph(place, neighbours=COUNT)
        assert searched[30:] == list(range(100)), "from nothing"
        for values, fresh in zip((neighbours, similarities), read_lists(place), strict=True):
            np.testing.assert_array_equal(values, fresh)


def read_lists(place: Path) -> tuple[np.ndarray, np.ndarray]:
    with Collection(place) as collection:
        _, neighbours, similarities = collection.read_graph()
        return np.array(neighbours), np.array(similarities)


def test_another_number_a_damaged_or_a_later_one_is_not_grown_from(exact: Path):
    build_graph(exact, neighbours=COUNT)
    add_rows(exact, draw_embeddings(3, DIMENSION, 7))
    build_graph(exact, neighbours=COUNT)
    assert read_origin(exact) == ROWS
    build_graph(exact, neighbours=3)
    assert read_origin(exact) == 0
    flip(exact / GRAPH / "neighbours.i32", 0)
    build_graph(exact, neighbours=COUNT)
    assert read_origin(exact) == 0
    (exact / "CURRENT").write_text("000001\n")
    assert build_graph(exact, neighbours=COUNT).linked == ROWS and read_origin(exact, "000001") == 0, "a later one"


def test_lists_of_another_index_are_not_grown_from(exact: Path, monkeypatch: pytest.MonkeyPatch):
    build_graph(exact, neighbours=COUNT)
    force_index(monkeypatch)
    add_rows(exact, draw_embeddings(3, DIMENSION, 7))
    build_graph(exact, neighbours=COUNT)
    assert read_origin(exact) == 0


def read_origin(place: Path, generation: str = "000002") -> int:
    told = (place / "generations" / generation / "graph" / "graph.json").read_text()
    return json.loads(told)["made"]["grown_from"]


def test_memory_does_not_grow_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(index, "PIECE_BYTES", 1 << 16)
    monkeypatch.setattr(vectors, "COMPARED_BYTES", 1 << 16)
    monkeypatch.setattr(linking, "BATCH", 64)
    few, many = (measure_peak(tmp_path / str(count), count) for count in (300, 1200))
    assert many < 1.2 * few and many < 6 << 16, (few, many)


def measure_peak(place: Path, count: int) -> int:
    """Bytes that NumPy has at a time while a graph of so many rows is made; each takes 256 bytes."""
    keep_rows(place, draw_embeddings(count, 128, 0))
    linker = linking.Linker(Snapshot(place, open_generation(place)), COUNT, graph_of_none())
    next(linker.link(0))
    tracemalloc.start()
    try:
        for links in linker.link(0):
            assert links.neighbours.shape[1] == COUNT
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def graph_of_none() -> Links:
    return Links(np.empty((0, COUNT), np.int32), np.empty((0, COUNT), np.float32))


def test_the_generation_is_what_it_was_and_the_graph_goes_with_it(exact: Path):
    manifest = (exact / "generations/000001/manifest.json").read_bytes()
    build_graph(exact, neighbours=COUNT)
    assert (exact / "generations/000001/manifest.json").read_bytes() == manifest
    verify_whole(open_generation(exact))
    assert "graph" not in json.loads(manifest)["files"]


def test_a_build_and_a_graph_do_not_work_at_once(exact: Path):
    with hold(exact, "build"), pytest.raises(CollectionBusy, match="Another build"):
        build_graph(exact)


def test_the_command_tells_what_it_did_and_goes_on_after_ctrl_c(exact: Path, monkeypatch: pytest.MonkeyPatch):
    # The priority of the tests themselves cannot be taken back.
    arguments = ["graph", "--collection", str(exact), "--neighbours", str(COUNT), "--nice", "0"]
    with monkeypatch.context() as patch:
        link = linking.Linker.link
        patch.setattr(linking.Linker, "link", lambda self, first: interrupt_after(link(self, first)))
        stopped = CliRunner().invoke(cli, arguments)
    assert stopped.exit_code == 130 and "54 are left: run seer graph again" in stopped.stdout
    done = CliRunner().invoke(cli, [*arguments, "--json"])
    told = json.loads(done.stdout)
    assert done.exit_code == 0 and (told["linked"], told["pending"], told["recall"]) == (54, 0, 1.0)
    again = CliRunner().invoke(cli, arguments).stdout
    assert again == "Generation 000001: 4 neighbours for each of 70 rows, recall 1.000 (nothing was left to do).\n"


def interrupt_after(batches: Iterator[Links]) -> Iterator[Links]:
    """A person presses Ctrl-C while the first batch is in hand."""
    signal.raise_signal(signal.SIGINT)
    yield from batches
