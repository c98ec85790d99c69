"""An index in parts: what one in memory finds, also when it was killed between them; memory that one part bounds."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from indexer import fitting, index, index_maker, parts, recall, snapshot
from indexer.check import check_collection
from indexer.collection import Collection
from indexer.errors import CollectionDamaged, CollectionUnwritable, DiskTooSmall
from indexer.fitting import Before, Demands, Fitted, fit_index
from indexer.index import ApproximateIndex, ExactIndex, open_approximate
from indexer.index_maker import IndexMaker, train
from indexer.lists import pack
from indexer.parts import LISTS, PARTS, PartedIndex, PartTask, fill_part, keep_trained, remove_parts, train_once
from indexer.recipes import Recipe
from indexer.vectors import Store
from tests.conftest import REPOSITORY
from tests.indexer.making import build, draw
from tests.indexer.making_rows import store_rows

ROWS, DIMENSION, PART = 1600, 48, 450
RECIPE, SAMPLE = Recipe(reduced=48, lists=16), np.arange(0, ROWS, 2)
FORCED = Demands(exact_ms=0, recall=0.95)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Rows of length 1 about 80 places, three of them twice, in different parts."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(80, DIMENSION)).repeat(20, axis=0) + 0.5 * random.normal(size=(ROWS, DIMENSION))
    rows = random.permutation(rows).astype(np.float32)
    rows[[500, 1000, 1500]] = rows[7]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def store(rows: np.ndarray, tmp_path: Path) -> Store:
    """All of them, stored."""
    return store_rows(tmp_path / "store", rows)


@pytest.fixture(scope="module")
def whole(rows: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> ApproximateIndex:
    """What memory holds."""
    maker = train(RECIPE, rows.astype(np.float16), SAMPLE)
    maker.add(rows.astype(np.float16))
    return maker.show()


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", PART)


def make_index(store: Store, **given: object) -> PartedIndex:
    made = PartedIndex(store, train_once(RECIPE, store, SAMPLE), **given)
    made.fill()
    return made


def write(fitted: Fitted, folder: Path, rows: int) -> Before:
    folder.mkdir()
    fitted.write(folder)
    return Before(folder=folder, search=fitted.described["search"], rows=rows)


def count_parts(store: Store) -> int:
    return len(list((store.folder / PARTS).glob("*.part")))


# --- one part against many ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [1, 33, 450, 799, 1599, 1600])
def test_parts_find_what_one_index_in_memory_finds(part: int, store: Store, whole, monkeypatch: pytest.MonkeyPatch):
    if part == 1:  # 40 of them, of one row each, behind a large one
        monkeypatch.setattr(parts.PartedIndex, "_list_tasks", cut_finely)
    monkeypatch.setattr(parts, "PART_ROWS", part)
    found, queries = make_index(store).show(), store.rows[::80].astype(np.float32)
    assert (found.shape, found.lists) == ((ROWS, DIMENSION), 16) == (whole.shape, whole.lists)
    allowed = np.arange(ROWS) % 9 == 0
    for count, probes, mask in ((1, 1, None), (40, 3, None), (200, 16, None), (40, 3, allowed), (300, 16, allowed)):
        assert (found.search(queries, count, probes, mask) == whole.search(queries, count, probes, mask)).all()
        told, expected = (one.rank(queries, count, probes, ExactIndex(store.rows), mask) for one in (found, whole))
        assert all(np.array_equal(*pair) for pair in zip(told, expected, strict=True))


def test_many_threads_ask_parts_at_once(store: Store):
    found, queries = make_index(store).show(), store.rows[:64].astype(np.float32)
    expected = [found.search(query[None], 40, 16) for query in queries]
    with ThreadPoolExecutor(8) as threads:
        told = list(threads.map(lambda query: found.search(query[None], 40, 16), queries))
    assert all(np.array_equal(*pair) for pair in zip(told, expected, strict=True))


def test_one_question_to_parts_is_shared_out_among_threads(store: Store, monkeypatch: pytest.MonkeyPatch):
    alone, queries = make_index(store).show(), store.rows[:64].astype(np.float32)
    monkeypatch.setattr(index, "WORTH_THREADS", 1)
    shared = make_index(store).show()
    assert index.faiss.downcast_index(shared._index.index).implem == index.SHARED_LISTS
    for query in queries:
        # Of equal codes either may be the last that is proposed.
        one, other = (set(found.search(query[None], 40, 16)[0]) for found in (alone, shared))
        assert len(one & other) > 35


def cut_finely(made: PartedIndex) -> list[PartTask]:
    cuts = [0, *range(ROWS - 40, ROWS + 1)]
    place = {"store": made._store.folder, "dimension": DIMENSION, "trained": made._trained}
    return [
        PartTask(**place, first=first, last=last, part=made._trained.with_name(f"{last}.part"))
        for first, last in zip(cuts, cuts[1:], strict=False)
    ]


def test_codes_and_lists_are_those_that_faiss_adds(store: Store):
    maker = index_maker.open_trained(train_once(RECIPE, store, SAMPLE))
    lists, codes = maker.encode(store.rows)
    maker.add(store.rows)
    own = index_maker.faiss.extract_index_ivf(maker._index).invlists
    for number in range(16):
        ids = index_maker.faiss.rev_swig_ptr(own.get_ids(number), own.list_size(number))
        assert (ids == np.flatnonzero(lists == number)).all()
        block = index_maker.faiss.rev_swig_ptr(own.get_codes(number), -(-len(ids) // 32) * 32 * codes.shape[1])
        assert (pack(codes[ids]).ravel() == block).all()


def test_few_rows_make_one_file_as_they_always_did(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parts, "PART_ROWS", ROWS)
    before = write(fit_index(store, FORCED), tmp_path / "index", ROWS)
    assert sorted(path.name for path in before.folder.iterdir()) == ["held_out.npz", "index.faiss"]
    assert not (store.folder / PARTS).exists()


def test_where_faiss_has_no_lists_on_a_disk_one_file_is_made(store: Store, tmp_path: Path, monkeypatch):
    monkeypatch.delattr(index.faiss, "OnDiskInvertedLists")
    before = write(fit_index(store, FORCED), tmp_path / "index", ROWS)
    assert not (before.folder / LISTS).exists() and open_approximate(before.folder / "index.faiss").shape[0] == ROWS


def test_mapped_lists_may_be_larger_than_memory_unless_a_limit_is_given(store: Store, monkeypatch):
    monkeypatch.setattr(fitting, "_read_memory", lambda: 4000)
    assert fit_index(store, FORCED).described["index"].startswith("PCA48,")
    bounded = fit_index(store, Demands(exact_ms=0, recall=0.95, memory_bytes=1000)).described
    assert bounded["chosen"].endswith("but no index fits in 1,000 bytes (--memory)")
    monkeypatch.setattr(parts, "PART_ROWS", ROWS)
    assert fit_index(store, FORCED).described["chosen"].endswith("but no index fits in 1,000 bytes (--memory)")


def test_what_is_claimed_of_parts_is_what_a_reader_measures(store: Store, tmp_path: Path):
    fitted = fit_index(store, FORCED)
    before = write(fitted, tmp_path / "index", ROWS)
    found, search = open_approximate(before.folder / "index.faiss", before.folder / LISTS), before.search
    held = fitting.read_held_out(before.folder).halve()[1]
    proposed = found.search(held.queries, search["candidates"], search["probes"])
    told = np.mean([len(set(near) & set(one)) / 10 for near, one in zip(held.nearest, proposed, strict=True)])
    assert told == pytest.approx(fitted.described["recall"], abs=1e-3) and told >= 0.945
    assert len(held.own) == 160 and len(set(held.own)) == 160


# --- growth -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [PART - 50, 1200])
def test_new_rows_join_parts_and_nothing_is_trained_or_made_again(
    first: int, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fitting, "MOST_GROWTH", 10)
    monkeypatch.setattr(fitting, "LEAST_ROWS", 100)
    few = Store(store.folder, DIMENSION, first)
    before = write(fit_index(few, Demands(exact_ms=0, recall=0.8)), tmp_path / "first", first)
    remove_parts(store.folder)
    made, real = [], fill_part
    monkeypatch.setattr(index_maker, "train", lambda *_: pytest.fail("it was trained again"))
    monkeypatch.setattr(parts, "fill_part", lambda task: (made.append((task.first, task.last)), real(task)))
    grown = fit_index(store, Demands(exact_ms=0, recall=0.8), before=before)
    after = write(grown, tmp_path / "grown", ROWS)
    assert made == ([(1200, 1600)] if first == 1200 else [(0, 450), (450, 900), (900, 1350), (1350, 1600)])
    trained = index_maker.open_trained(before.folder / "index.faiss")
    trained.clear()
    trained.add(store.rows)
    found = open_approximate(after.folder / "index.faiss", after.folder / LISTS)
    queries = store.rows[::50].astype(np.float32)
    assert found.shape == (ROWS, DIMENSION) and after.search["trained_among"] == first
    assert (found.search(queries, 60, 4) == trained.show().search(queries, 60, 4)).all()


# --- danger -------------------------------------------------------------------------------------------------------


def test_a_build_that_was_killed_between_parts_goes_on_with_those_that_are_there(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    expected = write(fit_index(store, FORCED), tmp_path / "expected", ROWS)
    remove_parts(store.folder)
    made, real = [], fill_part

    def fill_two(task: PartTask) -> None:
        if len(made) == 2:
            raise KeyboardInterrupt
        real(task)
        made.append(task.first)

    monkeypatch.setattr(parts, "fill_part", fill_two)
    with pytest.raises(KeyboardInterrupt):
        fit_index(store, FORCED)
    assert made == [0, 450] and count_parts(store) == 2
    monkeypatch.setattr(index_maker, "train", lambda *_: pytest.fail("it was trained again"))
    monkeypatch.setattr(parts, "fill_part", lambda task: (made.append(task.first), real(task)))
    notes: list[str] = []
    after = write(fit_index(store, FORCED, on_note=notes.append), tmp_path / "after", ROWS)
    assert made == [0, 450, 900, 1350] and "2 of 4 parts of the index are there" in notes
    for name in ("index.faiss", LISTS):
        assert (after.folder / name).read_bytes() == (expected.folder / name).read_bytes()


def test_a_build_that_is_killed_while_it_writes_a_part_leaves_none_that_is_not_whole(store: Store):
    script = """if True:
        import os, signal, sys
        from pathlib import Path
        from indexer import parts
        from indexer.vectors import Store
        from tests.indexer.test_parts import RECIPE, SAMPLE, ROWS, DIMENSION, PART
        write, parts.PART_ROWS = parts.write_part, PART
        def write_half(path, lists, codes, count):
            write(path, lists, codes, count)
            if len(list(path.parent.glob("*.part"))) == 3:
                os.truncate(path, path.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
        parts.write_part = write_half
        store = Store(Path(sys.argv[1]), DIMENSION, ROWS)
        parts.PartedIndex(store, parts.train_once(RECIPE, store, SAMPLE)).fill()
    """
    killed = subprocess.run([sys.executable, "-c", script, str(store.folder)], cwd=REPOSITORY, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    named = [path.name for path in (store.folder / PARTS).glob("*.part") if not path.name.startswith(".")]
    assert len(named) == 2, "what was begun has no name yet"
    notes: list[str] = []
    lists = make_index(store, on_note=notes.append)._path.read_bytes()
    assert notes[0] == "2 of 4 parts of the index are there"
    remove_parts(store.folder)
    assert make_index(store)._path.read_bytes() == lists


def test_a_part_that_was_damaged_is_made_anew(store: Store):
    whole = make_index(store)
    lists = whole._path.read_bytes()
    place, made = store.folder / PARTS, []
    path = sorted(place.glob("*.part"))[2]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    real = parts.fill_part
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "fill_part", lambda task: (made.append(task.first), real(task)))
        again = make_index(store)
    assert made == [900] and again._path.read_bytes() == lists


def test_a_trained_index_that_was_damaged_is_trained_anew(store: Store):
    path = train_once(RECIPE, store, SAMPLE)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert not PartTask(
        store=store.folder, dimension=DIMENSION, trained=path, first=0, last=1, part=path
    ).is_reached()  # fmt: skip
    assert train_once(RECIPE, store, SAMPLE).read_bytes() == whole


def test_another_training_takes_no_parts_of_this_one(store: Store):
    make_index(store)
    other = PartedIndex(store, keep_trained(train(RECIPE, store.rows, SAMPLE[:500]), store))
    other.fill()
    assert count_parts(store) == 8
    assert train_once(RECIPE, store, SAMPLE[:500]) not in (train_once(RECIPE, store, SAMPLE), other._trained)


def test_a_disk_that_keeps_no_part_is_told(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parts, "write_part", lambda path, lists, codes, count: path.write_bytes(b"nothing"))
    with pytest.raises(CollectionUnwritable, match="another disk"):
        make_index(store)


def test_a_disk_that_is_too_small_is_told_before_a_part_is_made(store: Store, monkeypatch: pytest.MonkeyPatch):
    trained = train_once(RECIPE, store, SAMPLE)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=20_000))
    monkeypatch.setattr(parts, "fill_part", lambda _: pytest.fail("a part was made"))
    with pytest.raises(DiskTooSmall, match=r"What was embedded is kept\. Free some space"):
        PartedIndex(store, trained).fill()


def test_an_index_that_is_given_up_takes_no_part_of_another_with_it(store: Store, monkeypatch: pytest.MonkeyPatch):
    """The next recipe's parts are of a build that was killed: what was tried before it must not cost them."""
    kept = make_index(store)
    other = PartedIndex(store, train_once(RECIPE, store, SAMPLE[:500]))
    other.fill()
    other.remove()
    assert count_parts(store) == 4 and kept.show().shape[0] == ROWS and kept._trained.exists()
    assert not other._trained.exists()
    monkeypatch.setattr(recall, "CANDIDATES", (10,))
    assert fit_index(store, Demands(exact_ms=0, recall=1.0)).described["index"] == "exact"
    assert count_parts(store) == 4 and kept._trained.exists(), "what was given up is gone, and nothing else"


def test_memory_holds_one_part_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch):
    encoded, encode = [], IndexMaker.encode
    monkeypatch.setattr(IndexMaker, "encode", lambda maker, rows: (encoded.append(len(rows)), encode(maker, rows))[1])
    monkeypatch.setattr(IndexMaker, "add", lambda *_: pytest.fail("rows went into memory"))
    make_index(store)
    assert encoded == [450, 450, 450, 250]


# --- elsewhere ----------------------------------------------------------------------------------------------------


def test_parts_are_made_elsewhere_and_what_is_not_reached_from_there_here(store: Store, monkeypatch):
    asked, notes, here, real = [], [], [], fill_part

    def fill_some(tasks: list[PartTask]) -> None:
        asked.extend(task.first for task in tasks)
        for task in tasks[:2]:
            real(task)

    monkeypatch.setattr(parts, "fill_part", lambda task: (here.append(task.first), real(task)))
    made = make_index(store, fill=fill_some, on_note=notes.append)
    assert asked == [0, 450, 900, 1350] and here == [900, 1350] and made.show().shape[0] == ROWS
    assert notes[0] == "2 parts are made here: no node of the cluster reaches their folder"


def test_a_node_without_the_folder_makes_nothing(store: Store, tmp_path: Path):
    trained = train_once(RECIPE, store, SAMPLE)
    for folder, path in ((tmp_path / "elsewhere", trained), (store.folder, tmp_path / "elsewhere" / trained.name)):
        part = store.folder / PARTS / "made.part"
        parts.fill_if_reached(
            PartTask(store=folder, dimension=DIMENSION, trained=path, first=0, last=9, part=part)
        )  # fmt: skip
        assert not part.exists()


# --- a collection -------------------------------------------------------------------------------------------------


@pytest.fixture
def parted(place: Path, pictures: Path, by_pixels: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A collection of 49 pictures, its index in parts of 20."""
    monkeypatch.setattr(parts, "PART_ROWS", 20)
    monkeypatch.setattr(fitting, "LEAST_ROWS", 16)
    monkeypatch.setattr(snapshot, "SMALL_BYTES", 0)
    for seed in range(100, 140):
        draw(pictures / f"more-{seed}.png", seed)
    assert build(place, pictures, exact_ms=0.0, batch_size=16).images == 49
    return place


def find_first(place: Path, pictures: Path, name: str) -> str:
    with Collection(place) as collection:
        found = collection.find_similar((pictures / name).read_bytes(), 3)
    assert found[0].similarity >= 0.999999
    return found[0].path.name


def test_a_collection_is_searched_in_its_parts_and_grows(parted: Path, pictures: Path):
    first = parted / "generations" / "000001"
    assert {LISTS, "index.faiss"} < set(json.loads((first / "manifest.json").read_text())["files"])
    assert not (parted / "stores" / "000001" / PARTS).exists()
    assert find_first(parted, pictures, "a/picture-1.png") == "picture-1.png"
    for seed in range(200, 205):
        draw(pictures / f"new-{seed}.png", seed)
    assert build(parted, pictures).images == 54
    assert find_first(parted, pictures, "new-203.png") == "new-203.png"
    assert find_first(parted, pictures, "a/picture-1.png") == "picture-1.png"


def test_lists_that_rot_are_refused_before_faiss_maps_them_and_repaired(
    parted: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
):
    path = parted / "generations" / "000001" / LISTS
    status, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with monkeypatch.context() as patch, pytest.raises(CollectionDamaged, match="hash differs"):
        patch.setattr(index, "open_approximate", lambda *_: pytest.fail("FAISS was asked to map it"))
        find_first(parted, pictures, "a/picture-1.png")
    assert check_collection(parted, repair=True, sample=0).is_sound
    assert find_first(parted, pictures, "a/picture-1.png") == "picture-1.png"


def test_lists_that_do_not_fit_are_told_as_damage(parted: Path):
    folder = parted / "generations" / "000001"
    (folder / LISTS).write_bytes((folder / LISTS).read_bytes()[:-64])
    with pytest.raises(CollectionDamaged, match="seer check --repair"):
        open_approximate(folder / "index.faiss", folder / LISTS)


@pytest.mark.parametrize("full_at", ["write_part", "merge"])
def test_a_full_disk_leaves_what_answers_and_the_next_build_goes_on(
    full_at: str, parted: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(path: Path, *_: object, **__: object) -> None:
        path.write_bytes(b"a part of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    for seed in range(200, 260):
        draw(pictures / f"new-{seed}.png", seed)
    with monkeypatch.context() as patch, pytest.raises(CollectionUnwritable):
        patch.setattr(parts, full_at, refuse)
        build(parted, pictures)
    assert find_first(parted, pictures, "a/picture-1.png") == "picture-1.png"
    report = build(parted, pictures)
    assert (report.embedded, report.images) == (0, 109)
    assert find_first(parted, pictures, "new-250.png") == "new-250.png"
    assert not (parted / "stores" / "000001" / PARTS).exists()
