"""Search in Milvus: a generation published there answers as the rows here do, whatever comes between."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from indexer import engine_publish, engine_rows, engine_snapshot, milvus, snapshot
from indexer.cli import cli
from indexer.collection import Collection, Filter, ImageKind, Query, Term
from indexer.engine_publish import publish_collection
from indexer.errors import EngineError, EngineMismatch, EngineMissing, EngineUnreachable
from indexer.milvus import Milvus, read_address
from seer_model.errors import SettingsError
from tests.indexer import pixel_backbone
from tests.indexer.making import build, draw
from tests.indexer.making_engines import build_mixed, find_port, let_go, make_mixed, start_server

PICTURES = 100
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, str]]:
    """A collection of mixed pictures, published: its place, its pictures, and where it was published."""
    folder = tmp_path_factory.mktemp("mixed")
    with pytest.MonkeyPatch.context() as patch:
        pixel_backbone.install(patch)
        build_mixed(folder / "place", folder / "pictures", PICTURES)
    address = f"milvus://{folder / 'engine.db'}/mixed"
    publish_collection(folder / "place", address)
    yield folder / "place", folder / "pictures", address
    let_go(folder / "engine.db")


@pytest.fixture
def asked(mixed: tuple[Path, Path, str]) -> Iterator[Collection]:
    """The same, opened to be answered for by Milvus."""
    with Collection(mixed[0], search_engine=mixed[2]) as collection:
        yield collection


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[str]:
    """The address of a file that is not there yet."""
    yield f"milvus://{tmp_path / 'engine.db'}/own"
    let_go(tmp_path / "engine.db")


@pytest.fixture(scope="module")
def sixty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection of 60 mixed pictures, and these beside it; to be copied."""
    folder = tmp_path_factory.mktemp("sixty")
    with pytest.MonkeyPatch.context() as patch:
        pixel_backbone.install(patch)
        build_mixed(folder / "collection", folder / "pictures", 60)
    return folder


@pytest.fixture
def made(sixty: Path, place: Path, by_pixels: None) -> Path:
    """A copy of that collection; its pictures lie where they were."""
    shutil.copytree(sixty / "collection", place)
    return place


@pytest.fixture
def own(place: Path, tmp_path: Path, by_pixels: None) -> Path:
    """Another one, of pictures of its own, that may be changed."""
    build_mixed(place, tmp_path / "pictures", 60)
    return place


def show(answer) -> list[tuple[int, str]]:
    return [(one.image_id, f"{one.similarity:.5f}", one.rank) for one in answer.neighbours]


# --- addresses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "uri", "database", "name"),
    [
        ("milvus://host/pictures", "http://host:19530", "", "pictures"),
        ("milvus://host:1234", "http://host:1234", "", "my_photos"),
        ("milvus://host:1234/mine/pictures", "http://host:1234", "mine", "pictures"),
        ("milvus+https://host.example/pictures", "https://host.example:19530", "", "pictures"),
        ("milvus://[::1]:7/x", "http://[::1]:7", "", "x"),
        ("milvus:///data/a b.db/x", "/data/a b.db", "", "x"),
        ("milvus:///data/a.db", "/data/a.db", "", "my_photos"),
        ("/data/a.db", "/data/a.db", "", "my_photos"),
        ("/data/a.db/", "/data/a.db", "", "my_photos"),
    ],
)
def test_an_address_is_a_server_or_a_file_and_is_read_again_from_what_it_is_shown_as(text, uri, database, name):
    found = read_address(text, "my photos")
    assert (found.uri, found.database, found.name) == (uri, database, name)
    assert read_address(str(found), "other") == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http://host/x", "names no search engine"),
        ("pictures", "names no search engine"),
        ("milvus://root:secret@host/x", "MILVUS_TOKEN"),
        ("milvus://host/a/b/c", "more parts"),
        ("milvus://host:high/x", "no port"),
        ("milvus://host/9x", "no name in Milvus"),
        ("milvus:///data/pictures", "neither a server nor a file"),
    ],
)
def test_what_is_no_address_is_refused_and_no_password_is_repeated(text, said):
    with pytest.raises(EngineError, match=said) as refused:
        read_address(text, "photos")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("missing", ["pymilvus", "milvus_lite"])
def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(
    missing: str, made: Path, engine: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(EngineMissing, match="pip install"):
        publish_collection(made, engine)


# --- answers -----------------------------------------------------------------------------------------------------

FILTERS = (
    Filter(under=["a"]),
    Filter(under=["a/b", '100%_"q" \\n']),
    Filter(under=[os.fsdecode(b"\xff\xe9 x")]),
    Filter(under=["été"], since=date(2023, 11, 17)),
    Filter(since=date(2023, 11, 16), until=date(2023, 11, 19)),
    Filter(until=date(2023, 11, 15), formats=["png"]),
    Filter(formats=["jpeg", "WEBP"], shapes=["portrait"]),
    Filter(shapes=["square", "landscape"], least_px=110),
    Filter(most_px=100, least_bytes=1500, most_bytes=2**40),
    Filter(images=range(5, 45)),
)


def place_filter(where: Filter, pictures: Path) -> Filter:
    """The same, below the folder of pictures."""
    given = {name: getattr(where, name) for name in where.__dataclass_fields__}
    return Filter(**{**given, "under": [pictures / folder for folder in where.under]})


@pytest.mark.parametrize("where", FILTERS, ids=str)
def test_a_filter_lets_through_in_milvus_what_the_catalog_says_and_the_answer_is_the_exact_one(
    where: Filter, mixed: tuple[Path, Path, str], asked: Collection, monkeypatch: pytest.MonkeyPatch
):
    where = place_filter(where, mixed[1])
    # Else so few rows would be compared here.
    monkeypatch.setattr(snapshot, "SMALL_BYTES", 0)
    expressions = spy_on_expressions(monkeypatch)
    allowed = asked.count_images(where)
    assert 0 < allowed < PICTURES
    answer = asked.find(Query.of(7), PICTURES, where=where)
    assert show(answer) == show(asked.find(Query.of(7), PICTURES, where=where, is_exact=True))
    assert len(answer.neighbours) == allowed and not answer.is_exact
    assert expressions and all(expressions)
    opened = asked.open_snapshot()
    rows = asked.open_catalog().list_rows(opened.number, opened.rows, where)
    let_through = opened._milvus.search(
        opened.version.name, "embedding", "row", np.ones((1, opened.dimension)), PICTURES, "HNSW", expressions[0]
    )[0]
    assert set(rows.tolist()) <= set(let_through.tolist())
    several = int((let_through >= 0).sum()) - len(rows)
    assert several <= PICTURES // 7 + 1, "only what several files hold may be let through for nothing"


def spy_on_expressions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Milvus is told from now on."""
    told, search = [], Milvus.search

    def spy(self, *arguments, **options):
        told.append(arguments[6] if len(arguments) > 6 else options.get("expression", ""))
        return search(self, *arguments, **options)

    monkeypatch.setattr(Milvus, "search", spy)
    return told


def test_answers_equal_those_of_the_index_here(mixed: tuple[Path, Path, str], asked: Collection, tmp_path: Path):
    queries = (
        Query.of(3),
        Query(Term(3), Term(9, 0.5), Term(20, -0.75)),
        Query(Term(11, -1.0)),
        Query(Term(np.linspace(-1, 1, 192))),
    )
    with Collection(mixed[0]) as here:
        for query in queries:
            for wish in (
                {"count": 10},
                {"count": 5, "first": 5},
                {"count": PICTURES + 5},
                {"count": 50, "at_least": 0.9},
                {"count": 50, "at_least": 0.7, "at_most": 0.9},
                {"count": 10, "where": Filter(formats=["png"])},
            ):
                assert show(asked.find(query, **wish)) == show(here.find(query, **wish)), wish
            assert asked.count_similar(query, at_least=0.8) == here.count_similar(query, at_least=0.8)
        assert here.find(queries[0]).is_exact and asked.find(queries[0], is_exact=True).is_exact
    answer = asked.find(queries[0])
    assert (answer.is_exact, answer.engine, answer.generation) == (False, "Milvus", "000001")
    assert answer.way == f"searched approximately by Milvus, recall {answer.recall:.3f}"


def test_what_people_type_is_answered_alike(mixed: tuple[Path, Path, str]):
    place, _, address = mixed
    search = ["search", "image:4", "--minus", "image:9=0.5", "--collection", str(place), "--count", "7"]
    here, there = (CliRunner().invoke(cli, [*search, *more]) for more in ([], ["--search-engine", address]))
    assert here.exit_code == there.exit_code == 0
    assert there.stdout == here.stdout and len(here.stdout.splitlines()) >= 7
    assert there.stderr.startswith("Searched approximately by Milvus, recall ")
    told = json.loads(CliRunner().invoke(cli, [*search, "--search-engine", address, "--json"]).stdout)
    assert (told["engine"], told["exact"]) == ("Milvus", False)


def test_gone_and_hidden_images_are_passed_over_and_the_answer_is_as_long_as_it_can_be(
    own: Path, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine_publish, "CANDIDATES", (0, 8))
    assert publish_collection(own, engine).candidates == 8
    with Collection(own, search_engine=engine) as collection:
        nearest = collection.find(Query.of(2), 60).neighbours
        for one in nearest[1:40]:
            for path in one.paths:
                path.unlink()
        collection.decisions.mark(ImageKind.HIDDEN, nearest[45].content_hash)
        build(own, tmp_path / "pictures", batch_size=64)
        for count in (1, 3, 10, 60):
            answer = collection.find(Query.of(2), count)
            assert show(answer) == show(collection.find(Query.of(2), count, is_exact=True))
            assert len(answer.neighbours) == min(count, 20)


def test_files_that_moved_since_are_found_where_they_are(own: Path, engine: str, tmp_path: Path, monkeypatch):
    publish_collection(own, engine)
    monkeypatch.setattr(snapshot, "SMALL_BYTES", 0)
    expressions = spy_on_expressions(monkeypatch)
    (tmp_path / "pictures" / "a" / "b").rename(tmp_path / "pictures" / "new")
    build(own, tmp_path / "pictures", batch_size=64)
    with Collection(own, search_engine=engine) as collection:
        where = Filter(under=[tmp_path / "pictures" / "new"], formats=["png"])
        answer = collection.find(Query.of(2), 60, where=where)
        assert answer.neighbours
        assert show(answer) == show(collection.find(Query.of(2), 60, where=where, is_exact=True))
    assert set(expressions) == {'format in ["PNG"]'}
    assert publish_collection(own, engine).written == 60, "published anew, it knows where they are"


def test_beyond_what_milvus_answers_with_the_rows_here_are_compared(asked: Collection, monkeypatch):
    monkeypatch.setattr(engine_snapshot, "MOST_ROWS", 64)
    assert not asked.find(Query.of(1), 40).is_exact
    monkeypatch.setattr(Milvus, "search", lambda *_, **__: pytest.fail("it was asked for more than it may be"))
    assert show(asked.find(Query.of(1), 90)) == show(asked.find(Query.of(1), 90, is_exact=True))


# --- which version -----------------------------------------------------------------------------------------------


def test_later_builds_are_answered_for_by_what_was_published_until_the_next_publication(
    own: Path, engine: str, tmp_path: Path
):
    publish_collection(own, engine)
    for number in range(3):
        build_mixed(own, tmp_path / "pictures", 2, first=100 + 2 * number)
    with Collection(own, search_engine=engine) as collection, Collection(own) as here:
        answer = collection.find(Query.of(5), 80)
        assert (len(answer.neighbours), answer.generation, collection.read_generation()) == (60, "000001", "000001")
        assert len(here.find(Query.of(5), 80).neighbours) == 66
        status = collection.read_status()
        assert (status.images, status.is_approximate) == (60, True)
        assert status.pending == 66 + 9 - status.images - 9 + (status.files - 75) and status.index.startswith("HNSW in")
        assert collection.read_graph() is None
        report = publish_collection(own, engine)
        assert (report.generation, report.written) == ("000004", 66)
        collection._snapshots.forget()
        assert show(collection.find(Query.of(5), 80)) == show(here.find(Query.of(5), 80))


def test_who_asks_a_version_that_is_no_longer_kept_is_answered_by_the_one_in_its_place(
    own: Path, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine_snapshot, "LOOKED_FOR_SECONDS", 3600)
    publish_collection(own, engine)
    with Collection(own, search_engine=engine) as collection:
        assert collection.find(Query.of(1)).generation == "000001"
        for number in range(2):
            build_mixed(own, tmp_path / "pictures", 1, first=100 + number)
            publish_collection(own, engine)
        assert collection.find(Query.of(1), 60, where=None).generation == "000003"


def test_what_belongs_to_no_rows_here_is_refused_with_what_to_do(made: Path, engine: str, tmp_path: Path):
    with Collection(made, search_engine=engine) as collection:
        with pytest.raises(EngineError, match=r"There is no .*engine.db. Run seer publish --to"):
            collection.find(Query.of(1))
        assert not (tmp_path / "engine.db").exists()
        Milvus(read_address(engine, ""), makes_file=True).close()
        assert (tmp_path / "engine.db").stat().st_mode & 0o777 == 0o700
        with pytest.raises(EngineMismatch, match=r"holds no collection of seer's. Run seer publish --to milvus://"):
            collection.find(Query.of(1))
        other = tmp_path / "other"
        draw(tmp_path / "one" / "one.png", 1)
        build(other, tmp_path / "one")
        publish_collection(other, engine)
        with pytest.raises(EngineMismatch, match="holds generation 000001 with 1 images"):
            collection.find(Query.of(1))


def test_a_row_that_is_not_here_is_refused(made: Path, engine: str):
    publish_collection(made, engine)
    with Collection(made, search_engine=engine) as collection:
        name = collection.open_snapshot().version.name
        records = [dict.fromkeys(engine_rows.FIELDS, 0)]
        for field, (kind, _) in engine_rows.FIELDS.items():
            records[0][field] = "x" if kind == "VARCHAR" else 77
        writer = Milvus(read_address(engine, ""), makes_file=True)
        writer.write(name, records, "embedding", collection.read_embeddings()[1][:1], is_new=True)
        with pytest.raises(EngineMismatch, match="answers with row 77 where there are 60"):
            collection.find(Query.of(1), 60)


# --- publishing --------------------------------------------------------------------------------------------------


def test_a_publication_holds_ids_paths_and_what_filters_ask(mixed: tuple[Path, Path, str], asked: Collection):
    opened = asked.open_snapshot()
    held = opened._milvus._client.query(opened.version.name, filter="row >= 0", output_fields=["*"], limit=1000)
    assert sorted(one["row"] for one in held) == list(range(PICTURES))
    for one in held:
        image = asked.read_image(one["image_id"])
        assert int(opened.image_ids[one["row"]]) == image.image_id
        assert one["path"] == engine_rows.spell_path(os.fsencode(image.path))
        assert (one["files"], one["content_hash"]) == (len(image.paths), image.content_hash)
        assert (one["format"], one["size_bytes"]) == (image.format, image.size_bytes)
        assert (one["width"], one["height"], one["short_px"]) == (
            image.width, image.height, min(image.width, image.height),
        )  # fmt: skip
        assert one["mtime_ns"] == image.path.stat().st_mtime_ns
        np.testing.assert_array_equal(np.float16(one["embedding"]), opened.store.rows[one["row"]])


KILLED = """
import os, signal, sys
from pathlib import Path
from indexer import engine_publish
engine_publish.BATCH_ROWS = 16
def die(progress):
    if progress.stage == sys.argv[3] and progress.done == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
engine_publish.publish_collection(Path(sys.argv[1]), sys.argv[2], on_progress=die)
"""


@pytest.mark.parametrize(("stage", "done"), [("publishing", 32), ("indexing and measuring", 0)])
def test_killed_it_goes_on_and_nobody_sees_half_of_it(made: Path, engine: str, stage, done, monkeypatch):
    ended = subprocess.run([sys.executable, "-c", KILLED, made, engine, stage, str(done)], cwd=REPOSITORY, check=False)
    assert ended.returncode == -signal.SIGKILL
    with Collection(made, search_engine=engine) as collection:
        with pytest.raises(EngineMismatch, match="holds no collection"):
            collection.find(Query.of(1))
        monkeypatch.setattr(engine_publish, "BATCH_ROWS", 16)
        report = publish_collection(made, engine)
        assert (report.written, report.pending) == (60 - done if done else 0, 0)
        assert show(collection.find(Query.of(1), 60)) == show(collection.find(Query.of(1), 60, is_exact=True))


def test_stopped_it_goes_on_and_writes_a_batch_anew_of_which_a_part_is_there(made: Path, engine: str, monkeypatch):
    monkeypatch.setattr(engine_publish, "BATCH_ROWS", 16)
    report = publish_collection(made, engine, should_stop=lambda: True)
    assert (report.written, report.pending, report.recall) == (16, 44, None)
    writer = Milvus(read_address(engine, ""), makes_file=True)
    writer._client.delete(report.version, filter="row in [3, 4]")
    report = publish_collection(made, engine)
    assert (report.written, report.pending) == (60, 0)
    assert publish_collection(made, engine).written == 0


def test_rows_that_did_not_arrive_keep_it_from_answering(made: Path, engine: str, monkeypatch):
    write = Milvus.write
    monkeypatch.setattr(
        Milvus, "write", lambda self, name, records, vector, rows, **options: write(
            self, name, records[1:], vector, rows[1:], **options
        )
    )  # fmt: skip
    with pytest.raises(EngineError, match="has 59 rows where 60 were written"):
        publish_collection(made, engine)
    assert Milvus(read_address(engine, ""), makes_file=True).find_target() is None
    monkeypatch.undo()
    pixel_backbone.install(monkeypatch)
    assert publish_collection(made, engine).written == 60


def test_a_recall_that_is_told_was_measured_in_milvus(made: Path, engine: str, monkeypatch):
    search = Milvus.search

    def lose_every_other(self, *arguments, **options):
        found = search(self, *arguments, **options)
        return np.where(found % 2, found, -1)

    monkeypatch.setattr(Milvus, "search", lose_every_other)
    report = publish_collection(made, engine)
    assert 0.3 < report.recall < 0.7 and report.candidates == engine_publish.CANDIDATES[-1]


def test_versions_before_the_one_before_are_removed_and_what_others_made_is_left_alone(
    own: Path, engine: str, tmp_path: Path
):
    writer = Milvus(read_address(engine, ""), makes_file=True)
    writer._client.create_collection("own_things", dimension=4)
    names = []
    for number in range(3):
        build_mixed(own, tmp_path / "pictures", 1, first=200 + number)
        names.append(publish_collection(own, engine).version)
    assert writer.list_names() == sorted([*names[1:], "own_things"])
    assert writer.find_target() == names[-1]


@pytest.mark.parametrize("how", ["collection", "alias"])
def test_a_name_that_is_somebody_elses_is_refused_before_anything_is_written(made: Path, engine: str, how: str):
    client = Milvus(read_address(engine, ""), makes_file=True)._client
    client.create_collection("own" if how == "collection" else "theirs", dimension=4)
    if how == "alias":
        client.create_alias("theirs", "own")
    with pytest.raises(EngineError, match="seer did not make"):
        publish_collection(made, engine)
    assert len(client.list_collections()) == 1


def test_a_name_that_another_collection_answers_to_is_refused_unless_it_has_moved(
    made: Path, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    other = tmp_path / "other"
    shutil.copytree(made, other)
    publish_collection(other, engine)
    with pytest.raises(EngineError, match=f"answers for the collection in {other}, .* as in {engine}_2$"):
        publish_collection(made, engine)
    assert publish_collection(other, engine).written == 0
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", lambda path, **_: (_ for _ in ()).throw(PermissionError(errno.EACCES, "shut")))
        assert engine_publish._is_anothers(other, made), "one that is shut is somebody's"
    other.rename(tmp_path / "elsewhere")
    assert publish_collection(made, engine).written == 60


def test_rows_that_are_gone_there_are_written_again(made: Path, engine: str):
    version = publish_collection(made, engine).version
    writer = Milvus(read_address(engine, ""))
    writer._client.delete(version, filter="row >= 20")
    assert writer.count(version) == 20
    stopped = publish_collection(made, engine, should_stop=lambda: True)
    assert (stopped.written, stopped.recall) == (60, None)  # A batch of which a part is gone.
    assert writer.count(version) == 60 and writer.find(version).measured is None
    done = publish_collection(made, engine)
    assert done.written == 0 and writer.find(version).measured["recall"] == done.recall
    writer._client.insert(version, [writer._client.get(version, 1)[0] | {"row": 60}])
    with pytest.raises(EngineError, match="has 61 rows where 60 are here: somebody else has written to it"):
        publish_collection(made, engine)


def test_a_version_that_does_not_answer_is_not_called_whole(made: Path, engine: str, monkeypatch):
    publish_collection(made, engine)

    def refuse(*_: object, **__: object) -> None:
        raise EngineError("it is damaged")

    monkeypatch.setattr(Milvus, "search", refuse)
    with pytest.raises(EngineError, match="it is damaged"):
        publish_collection(made, engine)


def test_milvus_lite_is_not_asked_for_an_index_that_it_does_not_make(made: Path, engine: str, tmp_path: Path):
    with pytest.raises(SettingsError, match="which milvus-lite does not make; allowed are HNSW, HNSW_SQ, FLAT"):
        publish_collection(made, engine, index="DISKANN")
    assert Milvus(read_address(engine, "")).list_names() == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_database_is_refused_and_left_as_it_is(made: Path, tmp_path: Path, kind: str):
    file = tmp_path / "photos.db"
    if kind == "file":
        file.write_text("own")
    else:
        draw(file / "own.png", 1)
    before = sorted([file, *file.rglob("*")])
    for command in (["publish", "--to"], ["search", "image:1", "--search-engine"]):
        refused = CliRunner().invoke(cli, [*command, str(file), "--collection", str(made)])
        assert refused.exit_code == 1 and refused.stderr.startswith(f"seer: {file} is no database of milvus-lite")
    assert sorted([file, *file.rglob("*")]) == before


def test_a_folder_that_nobody_may_write_in_is_what_is_named(made: Path, tmp_path: Path, monkeypatch):
    file, mkdir = tmp_path / "shut" / "engine.db", Path.mkdir
    file.parent.mkdir()

    def refuse(path: Path, *arguments: object, **options: object) -> None:
        if path == file:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        mkdir(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(EngineError, match=f"{file} cannot be made .Permission denied.. Allow writing in {file.parent}"):
        publish_collection(made, f"milvus://{file}/own")


def test_stopped_before_it_measures_it_does_not_switch(made: Path, engine: str):
    stopped = publish_collection(made, engine, should_stop=lambda: True)
    assert (stopped.written, stopped.pending, stopped.recall) == (60, 0, None)
    assert Milvus(read_address(engine, "")).find_target() is None
    done = publish_collection(made, engine)
    assert (done.written, done.recall is None) == (0, False)


def test_who_asks_what_is_older_than_the_collection_is_told(own: Path, engine: str, tmp_path: Path):
    publish_collection(own, engine)
    search = ["search", "image:1", "--collection", str(own), "--search-engine", engine, "--exact"]
    assert CliRunner().invoke(cli, search).stderr == ""
    build_mixed(own, tmp_path / "pictures", 1, first=200)
    told = "It answers from generation 000001, and 000002 is here: seer publish lets it find what is new.\n"
    assert CliRunner().invoke(cli, search).stderr == told


def test_what_is_only_unlike_a_picture_is_compared_with_every_row(asked: Collection):
    unlike, both = Query(Term(1, weight=-1)), Query(Term(2), Term(1, weight=-1))
    assert asked.find(unlike).is_exact and not asked.find(both).is_exact
    assert show(asked.find(unlike)) == show(asked.find(unlike, is_exact=True))


def test_the_command_says_what_it_did_and_goes_on(made: Path, engine: str):
    publish = ["publish", "--collection", str(made), "--to", engine]
    first = CliRunner().invoke(cli, publish)
    assert first.exit_code == 0, first.output
    assert f"{engine} answers with generation 000001, 60 rows: HNSW, recall" in first.stdout
    again = json.loads(CliRunner().invoke(cli, [*publish, "--json"]).stdout)
    assert (again["written"], again["pending"], again["removed"]) == (0, 0, [])
    exact = json.loads(CliRunner().invoke(cli, [*publish, "--index", "FLAT", "--json"]).stdout)
    assert (exact["written"], exact["index"], exact["recall"]) == (60, "FLAT", 1.0)
    refused = CliRunner().invoke(cli, [*publish[:-1], "http://here"])
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)


# --- a server ----------------------------------------------------------------------------------------------------


def test_a_server_that_is_gone_is_told_in_a_sentence_and_asked_again_when_it_is_back(
    made: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(milvus, "PATIENCE_SECONDS", 0.5)
    port = find_port()
    with start_server(tmp_path / "engine.db", port) as address:
        publish_collection(made, f"{address}/own")
        collection = Collection(made, search_engine=f"{address}/own")
        before = show(collection.find(Query.of(1), 60))
    with pytest.raises(EngineUnreachable, match="Milvus does not answer at milvus://127.0.0.1"):
        collection.find(Query.of(1), 60)
    collection._snapshots.forget()
    assert collection.list_images(), "what needs no engine goes on"
    with pytest.raises(EngineUnreachable), Collection(made, search_engine=f"{address}/own") as late:
        late.find(Query.of(1))
    with start_server(tmp_path / "engine.db", port):
        monkeypatch.setattr(milvus, "PATIENCE_SECONDS", 5.0)
        assert show(collection.find(Query.of(1), 60)) == before
    collection.close()


def test_a_file_that_another_process_serves_is_told_as_that(made: Path, tmp_path: Path):
    with start_server(tmp_path / "engine.db"), pytest.raises(EngineUnreachable, match="one process at a time"):
        publish_collection(made, f"milvus://{tmp_path / 'engine.db'}/own")


SWITCHING = """
import sys
from pathlib import Path
from indexer.engine_publish import publish_collection
publish_collection(Path(sys.argv[1]), sys.argv[2])
"""


def test_while_the_alias_is_switched_no_question_fails_and_no_answer_is_empty(
    own: Path, tmp_path: Path, request: pytest.FixtureRequest
):
    rounds = 12 if request.config.getoption("--long") else 2
    with start_server(tmp_path / "engine.db") as address:
        address += "/own"
        publish_collection(own, address)
        with Collection(own, search_engine=address) as collection:
            asking = Asking(collection)
            for number in range(rounds):
                build_mixed(own, tmp_path / "pictures", 1, first=300 + number)
                subprocess.run([sys.executable, "-c", SWITCHING, own, address], cwd=REPOSITORY, check=True)
            asking.end()
    assert not asking.wrong, asking.wrong[:3]
    assert asking.rate > 40, f"{asking.rate:.0f} questions a second"
    assert set(asking.generations) == {f"{number:06d}" for number in range(1, rounds + 2)}


class Asking:
    """Two threads that ask for images of a collection, 50 times a second together, until they are told to end."""

    THREADS, PER_SECOND = 2, 52

    def __init__(self, collection: Collection) -> None:
        self._collection, self._ended = collection, threading.Event()
        self.wrong: list[object] = []
        self.generations: dict[str, int] = {}
        self._asked, self._started = 0, time.monotonic()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(self.THREADS)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        due = time.monotonic()
        while not self._ended.is_set():
            image_id = 1 + number % 60
            number += self.THREADS
            try:
                answer = self._collection.find(Query.of(image_id), 10)
                if len(answer.neighbours) < 10 or answer.neighbours[0].image_id != image_id or answer.is_exact:
                    self.wrong.append(answer)
                self.generations[answer.generation] = self.generations.get(answer.generation, 0) + 1
            except Exception as error:
                self.wrong.append(error)
            self._asked += 1
            due += self.THREADS / self.PER_SECOND
            time.sleep(max(0.0, due - time.monotonic()))

    def end(self) -> None:
        time.sleep(1.2)  # The last switch is seen within a second.
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self.rate = self._asked / (time.monotonic() - self._started)


def test_pictures_of_a_mixed_collection_are_as_the_tests_believe(tmp_path: Path):
    assert len(list(make_mixed(tmp_path, 21).rglob("*.*"))) == 24
