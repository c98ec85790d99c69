"""Pictures behind URLs and on lists: found, read, followed and lost as those in folders are."""

import logging
import socket
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer import catalog_walk, fetching, members, originals, remote, shards
from indexer.check import check_collection
from indexer.collection import Absence, Collection, Filter, Query
from indexer.decode import DecodeTask
from indexer.errors import QueryError, SourceError
from indexer.estimate import estimate_build
from indexer.fetching import fetch_ahead
from indexer.remote import StoreError, list_remote, read_remote, stat_remote
from indexer.settings import BuildSettings
from indexer.sources import ASKED_AT_ONCE, Walk, resolve_folders
from indexer.texts import show_path, show_report
from indexer.upkeep import forget_folder, relocate_folder
from indexer.urls import is_remote, make_url, resolve
from indexer.watch import follow_changes
from seer_model.errors import SettingsError
from tests.indexer.making import build, draw
from tests.indexer.object_store import KEY, ObjectStore

ROOT = Path("s3://pictures/a")


@pytest.fixture
def drawn(tmp_path: Path) -> dict[str, bytes]:
    """Key -> picture, of nine below two prefixes."""
    folder = tmp_path / "drawn"
    return {
        f"{'x/' if seed % 2 else ''}{seed}.png": draw(folder / f"{seed}.png", seed).read_bytes() for seed in range(9)
    }


@pytest.fixture
def bucket(store: ObjectStore, drawn: dict[str, bytes]) -> ObjectStore:
    for name, data in drawn.items():
        store.put(f"a/{name}", data)
    return store


def write_all(folder: Path, drawn: dict[str, bytes]) -> Path:
    for name, data in drawn.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def read_rows(place: Path) -> list[tuple[str, bytes]]:
    """(content hash, row) in the order of the rows."""
    with Collection(place) as collection:
        ids, rows = collection.read_embeddings()
        told = {one.image_id: one.content_hash for one in collection.read_images(ids.tolist())}
        return [(told[image], rows[place].tobytes()) for place, image in enumerate(ids.tolist())]


def list_paths(place: Path) -> list[str]:
    with Collection(place) as collection:
        ids, _ = collection.read_embeddings()
        return sorted(show_path(path) for one in collection.read_images(ids.tolist()) for path in one.paths)


# --- as in a folder ----------------------------------------------------------------------------------------------


def test_a_bucket_gives_the_rows_that_a_folder_gives(
    by_pixels: None, bucket: ObjectStore, drawn: dict[str, bytes], tmp_path: Path
):
    for junk in ("a/notes.json", "a/.hidden/8.png", "a/x/.8.png", "a/@eaDir/8.png", "ab/8.png"):
        bucket.put(junk, drawn["8.png"])
    bucket.put("a/folder/", b"")
    bucket.put("a/x//8.png", drawn["8.png"])  # A path would have one slash.
    bucket.put("a/_SUCCESS", b"")
    bucket.put("a/b.tar/8.png", drawn["8.png"])  # It would be a member of a shard.
    bucket.put("a/no-suffix", drawn["1.png".replace("1", "x/1")])
    report = build(tmp_path / "there", ROOT)
    # Two listings, one look at what has no suffix, and each picture once: none for the name that says enough.
    assert bucket.seen == {"GET": 2 + 1 + 10}
    write_all(tmp_path / "a", drawn)
    build(tmp_path / "here", tmp_path / "a")
    assert read_rows(tmp_path / "there") == read_rows(tmp_path / "here")
    assert (report.found, report.images, report.ignored, report.unreadable) == (10, 9, 5, 2)
    assert "s3://pictures/a/x/1.png" in list_paths(tmp_path / "there")


def test_what_has_not_changed_is_listed_and_not_read(by_pixels: None, bucket: ObjectStore, place: Path):
    build(place, ROOT)
    bucket.seen.clear()
    report = build(place)
    assert (report.unchanged, report.embedded) == (9, 0) and bucket.seen == {"GET": 1}
    assert build(place, retry_failed=True).unchanged == 9


def test_another_content_of_the_same_size_and_time_is_read(
    by_pixels: None, bucket: ObjectStore, drawn: dict[str, bytes], place: Path, monkeypatch: pytest.MonkeyPatch
):
    build(place, ROOT)
    # However many have another version: a store does not number its files anew, as a disk may.
    monkeypatch.setattr(catalog_walk, "MOST_READ_AGAIN", 0)
    backend = bucket.find_backend()
    changed = drawn["2.png"][:-1] + b"!"
    before = backend.buckets["pictures"].keys["a/2.png"].last_modified
    bucket.put("a/2.png", changed)
    backend.buckets["pictures"].keys["a/2.png"].last_modified = before
    assert build(place).embedded == 1
    bucket.remove("a/0.png")
    report = build(place)
    assert (report.removed, report.found, report.embedded) == (1, 8, 0)


def test_an_emptied_prefix_is_not_believed_before_somebody_says_so(by_pixels: None, bucket: ObjectStore, place: Path):
    build(place, ROOT)
    for key in list(bucket.find_backend().buckets["pictures"].keys):
        bucket.remove(key)
    with pytest.raises(SourceError, match="s3://pictures/a held 9 pictures and holds none now"):
        build(place)
    assert build(place, accept_removals=True).removed == 9


def test_originals_filters_check_and_estimate_reach_there(
    by_pixels: None, bucket: ObjectStore, drawn: dict[str, bytes], place: Path
):
    assert estimate_build(place, [ROOT], BuildSettings(batch_size=4, workers=1), lambda _: None).tried == 9
    build(place, ROOT)
    with Collection(place) as collection:
        (image,) = [one for one in collection.list_images(0, 99) if one.path.name == "3.png"]
        assert collection.read_original(image.content_hash) == (drawn["x/3.png"], "image/png")
        answer = collection.find(Query.of(image.image_id), count=99, where=Filter(under=[ROOT / "x"]))
        assert {one.path.name for one in answer.neighbours} == {"1.png", "3.png", "5.png", "7.png"}
        assert collection.list_subfolders() == {Path("s3:/pictures/a"): 9, Path("s3:/pictures/a/x"): 4}
    bucket.remove("a/0.png")
    bucket.put("a/2.png", drawn["4.png"])
    (missing, changed) = [one.text for one in check_collection(place, sample=0).problems]
    assert "1 of 9 files are not there any more" in missing and "1 of 9 files have changed" in changed
    bucket.is_gone = True
    with Collection(place) as collection:
        assert collection.read_original(image.content_hash) is None
    (problem,) = check_collection(place, sample=0).problems
    assert problem.text == "s3://pictures/a cannot be looked through at present."


def test_an_original_elsewhere_travels_once_and_a_store_without_an_answer_is_left_alone(
    by_pixels: None, bucket: ObjectStore, drawn: dict[str, bytes], place: Path
):
    build(place, ROOT)
    bucket.seen.clear()
    with Collection(place) as collection:
        image, other, third = collection.list_images(0, 3)
        key = show_path(image.path).removeprefix("s3://pictures/")
        data, _ = collection.read_original(image.content_hash)
        assert collection.find_absence(image) is None and bucket.seen["GET"] == 1
        for _ in range(3):
            assert collection.read_original(image.content_hash)[0] == data == drawn[key.removeprefix("a/")]
        assert bucket.seen["GET"] == 1
        # Its store's word that it is the same one counts, not the time that has gone by.
        bucket.put(key, data + b"!")
        assert collection.find_absence(image) == Absence.CHANGED
        bucket.remove(key)
        assert collection.find_absence(image) == Absence.GONE
        bucket.fail = {"error": 1.0}
        bucket.seen.clear()
        assert collection.find_absence(other) == Absence.AWAY
        assert bucket.seen.total() == remote.ATTEMPTS_FOR_A_LOOK, "somebody waits"
        bucket.fail = {}
        bucket.is_gone = True
        assert collection.find_absence(other) == Absence.AWAY
        bucket.seen.clear()
        assert collection.find_absence(other) == collection.find_absence(third) == Absence.AWAY and not bucket.seen
        bucket.is_gone = False
        assert collection.find_absence(other) == Absence.AWAY
        (until,) = collection._originals._left_alone.values()
        assert 0 < until - time.monotonic() <= originals.LEFT_ALONE_SECONDS
        collection._originals._left_alone = {ROOT.parent: time.monotonic()}
        assert collection.find_absence(other) is None


def test_what_is_kept_of_originals_has_a_bound(by_pixels: None, bucket: ObjectStore, place: Path, monkeypatch):
    build(place, ROOT)
    monkeypatch.setattr(originals, "KEPT_BYTES", 40_000)
    with Collection(place) as collection:
        for one in (images := collection.list_images(0, 9)):
            collection.read_original(one.content_hash)
        kept = collection._originals._kept
        assert list(kept) == [images[8].path, images[7].path]
        assert sum(len(data) for _, data in kept.values()) <= 40_000


def test_a_check_of_a_list_asks_a_store_that_is_down_once_round(
    by_pixels: None, bucket: ObjectStore, drawn: dict[str, bytes], tmp_path: Path, place: Path
):
    names = [*drawn, *(f"more/{number}.png" for number in range(30))]
    for name in names[9:]:
        bucket.put(f"a/{name}", drawn["0.png"])
    (tmp_path / "some.lst").write_text("".join(f"s3://pictures/a/{name}\n" for name in names))
    build(place, tmp_path / "some.lst")
    bucket.remove("a/more/20.png")
    bucket.put("a/more/21.png", drawn["2.png"])
    missing, changed = [one.text for one in check_collection(place, sample=0).problems]
    assert "1 of 39 files are not there any more" in missing and "1 of 39 files have changed" in changed
    bucket.is_gone = True
    bucket.seen.clear()
    (problem,) = check_collection(place, sample=0).problems
    assert "s3://pictures cannot be asked at present" in problem.text
    # A connection that is cut is tried once more by the library below.
    assert bucket.seen.total() <= 2 * ASKED_AT_ONCE * remote.ATTEMPTS


def test_pictures_may_move_into_a_bucket(by_pixels: None, bucket: ObjectStore, drawn, tmp_path: Path, place: Path):
    here = write_all(tmp_path / "a", drawn)
    build(place, here)
    with pytest.raises(SourceError, match="None of the 9 files known below .* lies below s3://pictures/b"):
        relocate_folder(place, here, Path("s3://pictures/b"))
    assert relocate_folder(place, here, ROOT) == 9
    report = build(place)
    # Its times are others than the disk's: each is read once more, and none is embedded.
    assert (report.found, report.embedded, report.images) == (9, 0, 9)


def test_a_shard_in_a_bucket_is_read_by_stretches(
    by_pixels: None, store: ObjectStore, drawn: dict[str, bytes], tmp_path: Path
):
    whole = pack(dict(sorted({**drawn, "notes.json": b"{}" * 999}.items())))
    store.put("shards/x.TAR", whole)
    (tmp_path / "x.tar").write_bytes(whole)
    build(tmp_path / "there", Path("s3://pictures/shards/x.TAR"))
    build(tmp_path / "here", tmp_path / "x.tar")
    assert read_rows(tmp_path / "there") == read_rows(tmp_path / "here") and store.seen["GET"] <= 4
    assert store.seen["HEAD"] <= 8  # However many members there are.
    with Collection(tmp_path / "there") as collection:
        image = next(one for one in collection.list_images(0, 99) if one.path.name == "3.png")
        assert show_path(image.path) == "s3://pictures/shards/x.TAR/x/3.png"
        assert collection.read_original(image.content_hash)[0] == drawn["x/3.png"]
    # Another process knows where the members lie: no header is read again, for a build or for an original.
    members._contents = members.Contents()
    store.seen.clear()
    assert build(tmp_path / "there").unchanged == 9
    with Collection(tmp_path / "there") as collection:
        assert collection.read_original(image.content_hash)[0] == drawn["x/3.png"]
    assert store.seen["GET"] == 1 and store.seen["HEAD"] <= 3
    # Written anew while it is read: what came is nobody's.
    tasks = [DecodeTask(f"s3:/pictures/shards/x.TAR/{name}") for name in sorted(drawn)]
    real = shards.read_remote
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "read_remote", lambda *asked: store.put("shards/x.TAR", whole + b"!") or real(*asked))
        assert {task.reason for task in fetch_ahead(tasks)} == {
            "The shard changed while it was read; the next build tries again."
        }
    # Cut short on its way there: nothing of it is believed, and what was known stays.
    store.put("shards/x.TAR", whole[:5000])
    assert build(tmp_path / "there").images == 9


def test_a_listing_streams(store: ObjectStore):
    for number in range(2500):
        store.put(f"many/{number:05d}.jpg", b"x")
    listed = list_remote(Path("s3://pictures/many"))
    next(listed)
    assert store.seen == {"GET": 1}
    assert len(list(listed)) == 2499 and store.seen == {"GET": 3}


# --- lists -------------------------------------------------------------------------------------------------------


def test_a_list_names_files_members_and_urls(
    by_pixels: None, bucket: ObjectStore, drawn: dict[str, bytes], tmp_path: Path, place: Path
):
    write_all(tmp_path / "a", drawn)
    with tarfile.open(tmp_path / "m.tar", "w") as tar:
        tar.add(draw(tmp_path / "m" / "40.png", 40), "deep/40.png")
    named = ["# mine", "a/0.png", "", "  a/x/1.png", "s3://pictures/a/2.png", "m.tar/deep/40.png", "a/nothing.png"]
    listed = tmp_path / "some.lst"
    listed.write_text("\n".join(named))
    report = build(place, listed)
    assert (report.found, report.images, report.ignored, report.absent) == (4, 4, 0, 1)
    assert "1 file that lists name is not there; " in show_report(report, place)
    folder = tmp_path.resolve()
    assert list_paths(place) == [
        *(f"{folder}/{name}" for name in ("a/0.png", "a/x/1.png", "m.tar/deep/40.png")),
        "s3://pictures/a/2.png",
    ]
    # A line less is a file less; one on a disk that is away is not.
    listed.write_text("\n".join(["a/0.png", "away/1.png", "s3://pictures/a/2.png"]))
    with pytest.raises(SourceError, match="Lists named 1 pictures in .*/a/x; none of them is there now"):
        build(place)
    report = build(place, accept_removals=True)
    assert (report.removed, report.found, report.unreadable) == (2, 2, 1)
    bucket.put("lists/all.txt", b"s3://pictures/a/2.png\ns3://pictures/a/8.png\n")
    assert build(place, Path("s3://pictures/lists/all.txt")).found == 3
    bucket.remove("lists/all.txt")
    with pytest.raises(SourceError, match="s3://pictures/lists/all.txt cannot be looked through"):
        build(place)
    bucket.put("lists/all.txt", b"s3://pictures/a/2.png\ns3://pictures/a/8.png\n")
    assert forget_folder(place, listed) == 1 and list_paths(place)[0] == "s3://pictures/a/2.png"


def test_a_list_of_nothing_that_is_there_takes_nothing_out(by_pixels: None, tmp_path: Path, drawn, place: Path):
    write_all(tmp_path / "a", drawn)
    listed = tmp_path / "some.lst"
    listed.write_text("a/0.png\na/2.png\n")
    build(place, listed)
    more = draw(tmp_path / "more" / "50.png", 50).parent
    build(place, more)
    listed.write_text("# half written\n")
    with pytest.raises(SourceError, match="Lists named 2 pictures in .*accept-removals"):
        build(place)
    listed.write_text("a/0.png\na/2.png\n")
    (tmp_path / "a").rename(tmp_path / "b")
    assert (build(place).found, len(list_paths(place))) == (3, 3)
    # Of a list that is away nobody knows what it names; that of a folder is known.
    listed.rename(tmp_path / "away.lst")
    assert forget_folder(place, more) == 1 and len(list_paths(place)) == 2
    (tmp_path / "away.lst").rename(listed)
    (tmp_path / "a").mkdir()
    with pytest.raises(SourceError, match="nothing that it names is there.*seer forget"):
        build(place)
    assert len(list_paths(place)) == 2


# --- failures ----------------------------------------------------------------------------------------------------


def test_errors_delays_and_cut_connections_lose_nothing_and_double_nothing(
    by_pixels: None, bucket: ObjectStore, drawn: dict[str, bytes], tmp_path: Path
):
    bucket.fail = {"error": 0.15, "drop": 0.1, "refuse": 0.05, "slow": 0.1}
    for seed in range(10, 40):
        drawn[f"{seed}.png"] = draw(tmp_path / "more.png", seed).read_bytes()
        bucket.put(f"a/{seed}.png", drawn[f"{seed}.png"])
    report = build(tmp_path / "there", ROOT)
    write_all(tmp_path / "a", drawn)
    build(tmp_path / "here", tmp_path / "a")
    assert (report.images, report.failed) == (39, 0) and read_rows(tmp_path / "there") == read_rows(tmp_path / "here")
    assert bucket.seen["error"] and bucket.seen["drop"]


def test_a_store_that_goes_away_ends_the_build_and_the_next_goes_on(
    by_pixels: None, bucket: ObjectStore, place: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fetching, "MOST_IN_VAIN", 2)
    monkeypatch.setattr(fetching, "READERS", 1)
    for seed in range(10, 40):
        bucket.put(f"a/{seed}.png", draw(place.parent / "more.png", seed).read_bytes())
    real, asked = members.read_at_most, []

    def read_and_go(path: str, *stretch: int) -> bytes:
        asked.append(path)
        bucket.is_gone = len(asked) > 30
        if bucket.is_gone:
            raise StoreError(5, "its store did not answer as it should: nothing")
        return real(path, *stretch)

    monkeypatch.setattr(members, "read_at_most", read_and_go)
    with pytest.raises(SourceError, match="A store does not answer.*: s3://pictures/a/.*run again"):
        build(place, ROOT)
    monkeypatch.setattr(members, "read_at_most", real)
    bucket.is_gone = False
    report = build(place)
    assert (report.images, report.failed) == (39, 0) and 0 < report.embedded < 39
    # Not to be reached at all: what is known stays, and answers.
    bucket.is_gone = True
    report = build(place)
    assert (report.images, report.unreadable, report.removed) == (39, 1, 0)


def test_a_url_that_cannot_be_looked_through_makes_no_collection(store: ObjectStore, place: Path):
    for url, reason in {
        "s3://no-such-bucket/a": "there is nothing under this name",
        "zzz://host/a": "zzz:// is no kind of URL",
        "sftp://host.invalid/a": "sftp:// needs a library",
    }.items():
        with pytest.raises(SourceError, match=reason):
            build(place, Path(url))


@pytest.mark.parametrize(
    ("url", "said"), [("http://[::1/x", "is no URL .Invalid IPv6 URL"), ("http://host/a#b.jpg", "Write %23 for it")]
)
def test_what_is_no_url_or_would_be_cut_short_is_refused(tmp_path: Path, place: Path, url: str, said: str):
    (tmp_path / "some.lst").write_text(f"{url}\n")
    for source in (Path(url), tmp_path / "some.lst"):
        with pytest.raises(SourceError, match=said):
            build(place, source)


def test_shards_below_a_prefix_are_told_unless_they_are_left_out(by_pixels: None, bucket: ObjectStore, place: Path):
    for name in ("a/one.tar", "a/.hidden/two.tar", "a/out/three.tar"):
        bucket.put(name, b"no matter")
    assert build(place, ROOT, exclude=("out",)).shards == 1


def test_a_store_that_says_nothing_is_not_asked_for_ever(bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remote, "LAST_SECONDS", 0.0)
    bucket.fail = {"error": 1.0}
    with pytest.raises(StoreError, match="asked 6 times"):
        remote.stat_remote(ROOT / "0.png")
    bucket.is_gone = True
    with pytest.raises(StoreError, match="asked 1 times"):
        remote.stat_remote(ROOT / "0.png")


def test_no_secret_is_kept_or_said(
    by_pixels: None, bucket: ObjectStore, place: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    caplog.set_level(logging.DEBUG, "indexer")
    bucket.fail = {"error": 0.3, "refuse": 0.3}
    build(place, ROOT)
    assert "asked again" in caplog.text and KEY not in caplog.text
    assert not [file for file in place.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]
    for url in (
        f"https://me:{KEY}@host/a", f"https://host/a.jpg?X-Amz-Signature={KEY}", f"https://host/a.jpg?sig={KEY}&x=1",
        f"https://host/a.jpg?access_token={KEY}", f"https://{KEY}@host/a", f"https://host/a?x=1;pwd={KEY}",
        f"https://host/a?subscription-key={KEY}", f"https://host/a#token={KEY}", f"https://host/a?auth={KEY}",
    ):  # fmt: skip
        with pytest.raises(SourceError) as caught:
            build(place, Path(url))
        assert KEY not in str(caught.value) and "Give the URL without" in str(caught.value)
    # What a library says may name who asked.
    told = f"User: arn:aws:iam::123456789012:user/jane is not authorized; https://host/x?X-Amz-Signature={KEY}"
    for error in (PermissionError(told), OSError(5, told), RuntimeError(told)):
        with pytest.raises(OSError) as caught:
            remote._persist("s3:/pictures/a", lambda error=error: (_ for _ in ()).throw(error))
        assert KEY not in str(caught.value) and "jane" not in str(caught.value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    remote._find_system.cache_clear()
    with pytest.raises(PermissionError, match="no credentials were found"):
        stat_remote("s3:/pictures/a/0.png")


def test_what_a_second_question_would_not_change_is_asked_once(bucket: ObjectStore):
    with pytest.raises(FileNotFoundError):
        read_remote("s3:/pictures/a/nothing.png")
    assert bucket.seen.total() == 1
    bucket.is_gone = True
    with pytest.raises(StoreError, match="asked 6 times"):
        read_remote("s3:/pictures/a/0.png")


# --- spelling, and the order of what is fetched ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "url"),
    [("s3://b/a.jpg", "s3://b/a.jpg"), ("s3:/b/a b.jpg", "s3://b/a b.jpg"), ("https://h:80/a", "https://h:80/a")],
)
def test_a_url_is_a_path_and_back(path: str, url: str):
    assert is_remote(Path(path)) and make_url(Path(path)) == url and make_url(str(Path(path))) == url
    assert resolve(Path(path)) == Path(path) == resolve_folders([Path(path)])[0]


@pytest.mark.parametrize("path", ["/s3:/a", "C:/a", "C:\\a", "a/b", "s3", "./s3/x", "S3/x:/y"])
def test_a_path_is_no_url(path: str):
    assert not is_remote(path)


@given(sizes=st.lists(st.integers(0, 90), max_size=60), elsewhere=st.lists(st.booleans(), min_size=60, max_size=60))
def test_tasks_leave_in_order_with_their_bytes_and_few_are_ahead(sizes: list[int], elsewhere: list[bool]):
    ahead, most = set(), 0

    def read(path: str) -> bytes:
        ahead.add(path)
        return bytes(int(path.rpartition("-")[2]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(members, "read_at_most", lambda path, _: read(path))
        patch.setattr(fetching, "MOST_BYTES_AHEAD", 200)
        patch.setattr(fetching, "MOST_BATCHES_AHEAD", 7)
        tasks = [
            DecodeTask(f"{'s3:' if far else ''}/b/{number}-{size}", size_bytes=size)
            for number, (size, far) in enumerate(zip(sizes, elsewhere, strict=False))
        ]
        fetched = []
        for task in fetch_ahead(iter(tasks)):
            fetched.append(task)
            ahead.discard(task.path)
            most = max(most, len(ahead))
    assert [task.path for task in fetched] == [task.path for task in tasks]
    assert all((task.data is None) != is_remote(task.path) for task in fetched)
    assert all(len(task.data) == task.size_bytes for task in fetched if task.data is not None) and most <= 8


def test_a_web_server_is_a_source(by_pixels: None, tmp_path: Path, drawn, place: Path, web_folder):
    write_all(tmp_path / "a", drawn)
    root = Path(f"{web_folder(tmp_path)}/a")
    report = build(place, root)
    assert (report.found, report.images, report.failed) == (9, 9, 0)
    assert build(place).unchanged == 9
    build(tmp_path / "here", tmp_path / "a")
    assert sorted(read_rows(place)) == sorted(read_rows(tmp_path / "here"))
    found = sorted(file.path for file in Walk([root], exclude=("x",)))
    assert found == [f"{root}/{seed}.png" for seed in (0, 2, 4, 6, 8)]


class WebServer(BaseHTTPRequestHandler):
    """A web server that tells no sizes, knows no parts, and has one picture without an end; a subclass does better."""

    files: dict[str, bytes] = {}  # noqa: RUF012 - of each test its own, by `serve`
    seen: Counter = Counter()
    is_complete = has_parts = False
    sent = 0

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        data, status, wanted = self.files.get(self.path), 200, self.headers.get("Range")
        type(self).seen[self.command, status if data else 404] += 1
        if data is None:
            self.send_error(404)
            return
        told = {"ETag": f'"{hash(data)}"'}
        if self.is_complete:
            if wanted and self.has_parts:
                first, last = map(int, wanted.removeprefix("bytes=").split("-"))
                told["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
                data, status = data[first : last + 1], 206
            told["Content-Length"] = str(len(data))
        self.send_response(status)
        for name, value in told.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self._write(data)

    def _write(self, data: bytes) -> None:
        with suppress(OSError):
            self.wfile.write(data)
            while "endless" in self.path:
                self.wfile.write(bytes(1 << 16))
                type(self).sent += 1 << 16

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(files: dict[str, bytes], *, is_complete: bool) -> Iterator[tuple[str, type[WebServer]]]:
    """A web server. Yields: its URL, and what it has seen and sent."""
    seen = type("Seen", (WebServer,), {"files": files, "seen": Counter(), "is_complete": is_complete})
    seen.has_parts = is_complete
    with ThreadingHTTPServer(("127.0.0.1", 0), seen) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
        server.shutdown()


def pack(drawn: dict[str, bytes]) -> bytes:
    """A shard."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in drawn.items():
            told = tarfile.TarInfo(name)
            told.size = len(data)
            tar.addfile(told, BytesIO(data))
    return buffer.getvalue()


def test_a_web_server_that_tells_no_size_is_read_as_far_as_a_file_may_be_long(
    by_pixels: None, tmp_path: Path, drawn, place: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(members, "MAX_UNSIZED_BYTES", 1 << 20)
    files = {"/one.png": drawn["0.png"], "/endless.png": drawn["2.png"]}
    with serve(files, is_complete=False) as (url, server):
        (tmp_path / "some.lst").write_text("".join(f"{url}{name}\n" for name in files))
        report = build(place, tmp_path / "some.lst")
        assert (report.images, report.failed) == (1, 1) and server.sent < 64 << 20
        with Collection(place) as collection:
            (failed,) = collection.list_unsearchable(0, 9)
            (image,) = collection.list_images(0, 9)
            assert failed.kind == "Too large"
            assert collection.read_original(image.content_hash)[0] == drawn["0.png"]
            server.seen.clear()
            # It is known by its version alone; a look at that is a question for the head, and one for the size.
            assert collection.find_absence(image) is None and server.seen.total() == 2
            files["/one.png"] = drawn["4.png"]
            assert collection.find_absence(image) == Absence.CHANGED


def test_a_shard_on_a_web_server_needs_one_that_hands_out_parts(by_pixels: None, tmp_path: Path, drawn, place: Path):
    shard = pack(drawn)
    with serve({"/x.tar": shard}, is_complete=True) as (url, server):
        report = build(place, Path(f"{url}/x.tar"))
        assert (report.images, report.failed) == (9, 0)
        (tmp_path / "x.tar").write_bytes(shard)
        build(tmp_path / "here", tmp_path / "x.tar")
        assert read_rows(place) == read_rows(tmp_path / "here")
        with Collection(place) as collection:
            image = next(one for one in collection.list_images(0, 9) if one.path.name == "4.png")
            server.seen.clear()
            assert collection.read_original(image.content_hash)[0] == drawn["4.png"]
            assert collection.find_absence(image) is None and server.seen["GET", 200] == 1, "it is kept"
        server.has_parts, members._contents = False, members.Contents()
        report = build(tmp_path / "other", Path(f"{url}/x.tar"))
        assert (report.found, report.failed) == (9, 9)
        with Collection(tmp_path / "other") as collection:
            assert all("hands out whole files and no parts" in one.reason for one in collection.list_unsearchable(0, 9))
        server.is_complete, members._contents = False, members.Contents()
        with pytest.raises(SourceError, match="does not say how large it is"):
            build(tmp_path / "third", Path(f"{url}/x.tar"))


def test_a_web_server_that_is_down_has_lost_nothing(
    by_pixels: None, tmp_path: Path, drawn, place: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(remote, "FIRST_SECONDS", 0.01)
    with serve({f"/{name}": data for name, data in drawn.items()}, is_complete=True) as (url, server):
        (tmp_path / "some.lst").write_text("".join(f"{url}/{name}\n" for name in drawn))
        assert build(place, tmp_path / "some.lst").images == 9
        server.send_response = lambda self, _: WebServer.send_response(self, 503)
        with Collection(place) as collection:
            assert collection.find_absence(collection.list_images(0, 1)[0]) == Absence.AWAY
    with Collection(place) as collection:
        assert collection.find_absence(collection.list_images(0, 1)[0]) == Absence.AWAY
        with pytest.raises(QueryError, match="can be read now.*Try later"):
            collection.explain(Query.of(2), 1)
    (problem,) = check_collection(place, sample=0).problems
    assert "cannot be asked at present" in problem.text
    build(place)
    with Collection(place) as collection:
        assert collection.read_status().images == 9


def test_a_shard_whose_store_goes_away_ends_the_build_and_is_no_reason_of_its_members(
    by_pixels: None, store: ObjectStore, drawn, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fetching, "MOST_IN_VAIN", 3)
    store.put("x.tar", pack(drawn))
    real, asked = members.read_place, []

    def read_and_go(at: shards.Place) -> bytes:
        asked.append(at)
        store.is_gone = len(asked) > 0
        return real(at)

    monkeypatch.setattr(fetching, "read_place", read_and_go)
    with pytest.raises(SourceError, match="A store does not answer.*: s3://pictures/x.tar/.*run again"):
        build(place, Path("s3://pictures/x.tar"))
    monkeypatch.undo()


def test_a_list_waits_for_a_host_that_is_down_once(
    by_pixels: None, tmp_path: Path, drawn, place: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(remote, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr("indexer.sources.ASKED_AT_ONCE", 2)
    with socket.socket() as taken:  # Nobody listens there.
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        write_all(tmp_path / "a", drawn)
        names = [f"{url}/{number}.png" for number in range(50)]
        (tmp_path / "some.lst").write_text("\n".join(["a/0.png", *names]))
        asked, real = [], members.stat_remote
        monkeypatch.setattr(members, "stat_remote", lambda path: asked.append(path) or real(path))
        report = build(place, tmp_path / "some.lst")
    assert (report.images, report.unreadable) == (1, 50) and len(asked) <= 3


def test_what_may_not_be_read_or_is_damaged_is_not_called_gone(
    by_pixels: None, bucket: ObjectStore, drawn, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "some.lst").write_text("".join(f"s3://pictures/a/{name}\n" for name in drawn))
    build(place, tmp_path / "some.lst")
    refused = PermissionError(13, "its store lets nobody in")
    monkeypatch.setattr(members, "stat_remote", lambda _: (_ for _ in ()).throw(refused))
    (problem,) = check_collection(place, sample=0).problems
    assert problem.text.startswith("9 of 9 files cannot be read at present.")
    monkeypatch.undo()
    (tmp_path / "x.tar").write_bytes(pack(drawn))
    build(tmp_path / "other", tmp_path / "x.tar")
    (tmp_path / "x.tar").write_bytes(b"no shard any more")
    with Collection(tmp_path / "other") as collection:
        assert collection.find_absence(collection.list_images(0, 1)[0]) == Absence.CHANGED


def test_what_is_kept_of_a_member_is_no_longer_handed_out_when_its_shard_is_another(
    by_pixels: None, store: ObjectStore, drawn, place: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(members, "BELIEVED_SECONDS", 0.0)
    store.put("x.tar", pack(drawn))
    build(place, Path("s3://pictures/x.tar"))
    with Collection(place) as collection:
        image = next(one for one in collection.list_images(0, 9) if one.path.name == "4.png")
        assert collection.find_absence(image) is None
        store.seen.clear()
        assert collection.find_absence(image) is None and "GET" not in store.seen
        store.put("x.tar", pack(drawn | {"4.png": drawn["2.png"]}))
        assert collection.find_absence(image) == Absence.CHANGED
        store.is_gone = True
        assert collection.find_absence(image) == Absence.AWAY
        store.seen.clear()
        assert collection.find_absence(image) == Absence.AWAY and not store.seen


def test_a_token_that_ends_in_the_middle_is_no_reason_of_files(
    by_pixels: None, bucket: ObjectStore, place: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fetching, "MOST_IN_VAIN", 4)
    refused = PermissionError(13, "its store lets nobody in")
    with monkeypatch.context() as patch:
        patch.setattr(members, "read_at_most", lambda *_: (_ for _ in ()).throw(refused))
        with pytest.raises(SourceError, match="A store does not answer, or lets nobody in"):
            build(place, ROOT)
    assert build(place).images == 9


def test_a_list_moves_with_its_pictures_and_a_watch_outlives_its_absence(
    by_pixels: None, tmp_path: Path, drawn: dict[str, bytes], place: Path
):
    folder = write_all(tmp_path / "one" / "a", drawn).parent
    (folder / "some.lst").write_text("a/0.png\na/2.png\n")
    build(place, folder / "some.lst")
    folder.rename(tmp_path / "two")
    assert relocate_folder(place, folder, tmp_path / "two") == 2
    assert build(place).unchanged == 2
    looks, listed = [], tmp_path / "two" / "some.lst"

    def list_watched() -> tuple[list[Path], tuple[str, ...]]:
        looks.append(listed.exists())
        if len(looks) == 3:
            listed.rename(tmp_path / "away.lst")
        return [listed], ()

    changes = follow_changes(list_watched, should_stop=lambda: len(looks) > 8, quiet_seconds=0.01, poll_seconds=0.02)
    next(changes)
    with pytest.raises(StopIteration):
        while True:
            changes.send(True)
    assert not looks[-1]


def test_an_estimate_says_nothing_of_a_cluster(bucket: ObjectStore, place: Path):
    with pytest.raises(SettingsError, match="tells nothing of a cluster"):
        estimate_build(place, [ROOT], BuildSettings(engine="ray"), lambda _: None)
