"""The embedding job as a cluster does it, without one: output shards, what is left of them, and what a catalog makes
of them. The engine itself is tested in `test_cluster`."""

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from indexer import cluster_pipeline, fetching, fitting, members, parts
from indexer.catalog import Catalog
from indexer.cluster import Plan
from indexer.cluster_stages import DecodeFiles, Embedder, Embedding, EmbedFiles, Row, read_files
from indexer.collection import Collection
from indexer.decode import DecodedFile, DecodeTask, hash_content
from indexer.errors import SourceError
from indexer.job import build_collection
from indexer.layout import CATALOG
from indexer.output_shards import OutputShard, decode_shard, encode_shard, name_shard, read_shard, write_shard
from indexer.report import BuildReport, Watchers
from indexer.settings import BuildSettings
from seer_model.errors import DeviceError, SettingsError, UserError
from tests.indexer.making import build, draw, draw_pile
from tests.indexer.object_store import ObjectStore


class HereCluster:
    """A cluster of one node, which is this process. `fail_at`: the shard at which it is lost."""

    made: list[str] = []
    fail_at: int | None = None

    def __init__(self, address: str | None, device: str, workers: int | None = None) -> None:
        self.plan = Plan("cpu", 1, 1)

    def close(self) -> None:
        pass

    def open_embedder(self, embedding: Embedding):
        return Embedder(embedding).describe()

    def embed(self, embedding: Embedding, pixels: list) -> tuple:
        return Embedder(embedding).embed(pixels)

    def run(self, rows: list[Row], decoding, embedding: Embedding) -> Iterator[Row]:
        decode, embed = DecodeFiles(decoding, 1), EmbedFiles(embedding)
        for row in rows:
            if len(self.made) == self.fail_at:
                raise KeyboardInterrupt
            try:
                row = embed(decode(read_files(row)))
            except UserError:
                raise DeviceError("an engine hands on no more than a text") from None
            self.made.append(row["name"])
            yield row


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, by_pixels: None) -> type[HereCluster]:
    monkeypatch.setattr(cluster_pipeline, "Cluster", HereCluster)
    monkeypatch.setattr(cluster_pipeline, "SHARD_FILES", 4)
    monkeypatch.setattr(HereCluster, "made", [])
    monkeypatch.setattr(HereCluster, "fail_at", None)
    return HereCluster


@pytest.fixture
def pile(pictures: Path) -> Path:
    """Nine pictures, copies of some of them far apart, a black one without an embedding, and one that is none."""
    (pictures / "z").mkdir()
    for number in (1, 5):
        shutil.copy(pictures / "a" / f"picture-{number}.png", pictures / "z" / f"copy-{number}.png")
    shutil.copy(pictures / "a" / "picture-1.png", pictures / "a" / "picture-1-too.png")
    Image.new("RGB", (99, 99)).save(pictures / "z" / "black.png")
    Image.new("RGB", (99, 99)).save(pictures / "a" / "black.png")
    (pictures / "b" / "none.png").write_bytes(b"no picture")
    return pictures


def spread(place: Path, *pictures: Path, watchers: Watchers | None = None, **settings: object) -> BuildReport:
    chosen = BuildSettings(**{"engine": "ray", "batch_size": 4, "workers": 1, **settings})
    return build_collection(place, list(pictures), chosen, watchers)


def read_all(place: Path) -> tuple[list, list]:
    """Every row and every file of a collection, as far as two builds can be the same."""
    with Collection(place) as collection:
        ids, rows = collection.read_embeddings()
        told = collection.read_images(ids.tolist())
        failed = [(one.path, one.kind, one.reason) for one in collection.list_unsearchable()]
        images = [(one.image_id, one.content_hash, one.paths, one.width, one.format) for one in told]
        assert all(collection.read_thumbnail(one.content_hash) for one in told)
        return [ids.tolist(), rows.tobytes(), images], failed


def test_a_cluster_gives_what_a_build_at_home_gives(cluster: type[HereCluster], pile: Path, tmp_path: Path):
    there, here = spread(tmp_path / "there", pile), build(tmp_path / "here", pile)
    assert read_all(tmp_path / "there") == read_all(tmp_path / "here")
    told = {name: getattr(there, name) for name in ("found", "embedded", "moved", "failed", "pending", "images")}
    assert told == {name: getattr(here, name) for name in told} and told["failed"] == 3
    assert len(cluster.made) == -(-there.found // 4)
    # Nothing is left of what was on its way, and nothing is done again.
    assert not (tmp_path / "there" / "outputs").exists()
    assert spread(tmp_path / "there").embedded == 0 and len(cluster.made) == -(-there.found // 4)


def test_a_cluster_makes_the_parts_of_a_large_index(
    cluster: type[HereCluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fitting, "LEAST_ROWS", 16)
    monkeypatch.setattr(parts, "PART_ROWS", 20)
    asked: list[int] = []

    def fill_parts(self: HereCluster, tasks: list[parts.PartTask]) -> None:
        asked.extend(task.first for task in tasks)
        for task in tasks:
            parts.fill_if_reached(task)

    monkeypatch.setattr(cluster, "fill_parts", fill_parts, raising=False)
    pile = draw_pile(tmp_path / "pictures", 50)
    assert spread(tmp_path / "there", pile, exact_ms=0.0).images == 50 and asked[:3] == [0, 20, 40]
    here = build(tmp_path / "here", pile, exact_ms=0.0)
    assert here.generation == "000001"
    lists = [tmp_path / place / "generations" / "000001" / parts.LISTS for place in ("there", "here")]
    assert lists[0].read_bytes() == lists[1].read_bytes()


@pytest.mark.parametrize("fail_at", [0, 1, 3])
def test_what_a_lost_run_has_recorded_is_not_done_again(
    cluster: type[HereCluster], pile: Path, tmp_path: Path, fail_at: int
):
    cluster.fail_at = fail_at
    with pytest.raises(KeyboardInterrupt):
        spread(tmp_path / "there", pile)
    cluster.fail_at = None
    spread(tmp_path / "there")
    build(tmp_path / "here", pile)
    assert read_all(tmp_path / "there") == read_all(tmp_path / "here")
    assert len(cluster.made) == len(set(cluster.made)) == 4


def test_a_kept_shard_saves_its_work_and_a_damaged_one_is_made_anew(
    cluster: type[HereCluster], pile: Path, tmp_path: Path
):
    outputs, place = tmp_path / "outputs", tmp_path / "there"
    saved: dict[Path, bytes] = {}

    def keep(step: str) -> None:
        if step == "batch embedded":
            saved.update({path: path.read_bytes() for path in outputs.glob("*/*.safetensors")})

    spread(place, pile, outputs=str(outputs), watchers=Watchers(on_step=keep))
    assert len(saved) == 4 and not list(outputs.iterdir())
    shutil.rmtree(place)
    for number, (path, data) in enumerate(sorted(saved.items())):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data if number else data[:-1] + b"!")
    # Of other settings, and half written when its node was lost.
    for name in ("other.safetensors", "other.safetensors.0123.part"):
        (path.parent / name).write_bytes(b"left")
    cluster.made.clear()
    spread(place, pile, outputs=str(outputs))
    build(tmp_path / "here", pile)
    assert read_all(place) == read_all(tmp_path / "here") and len(cluster.made) == 1
    assert not list(outputs.iterdir())


def test_a_shard_of_another_content_under_the_same_stamp_is_not_taken_in(
    cluster: type[HereCluster], store: ObjectStore, tmp_path: Path
):
    one, other = (draw(tmp_path / f"{seed}.bmp", seed).read_bytes() for seed in (1, 2))
    assert len(one) == len(other)
    place, outputs, kept = tmp_path / "there", tmp_path / "outputs", {}
    store.put("a/1.bmp", one)
    then = store.find_backend().buckets["pictures"].keys["a/1.bmp"].last_modified

    def keep(step: str) -> None:
        if step == "batch embedded":
            kept.update({path: path.read_bytes() for path in outputs.glob("*/*.safetensors")})

    spread(place, Path("s3://pictures/a"), watchers=Watchers(on_step=keep), outputs=str(outputs))
    shutil.rmtree(place)
    for path, data in kept.items():
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    store.put("a/1.bmp", other)
    store.find_backend().buckets["pictures"].keys["a/1.bmp"].last_modified = then
    spread(place, Path("s3://pictures/a"), outputs=str(outputs))
    with Collection(place) as collection:
        assert collection.list_images()[0].content_hash == hash_content(other).hex()


def test_no_shard_is_lost_between_rounds(
    cluster: type[HereCluster], pile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cluster_pipeline, "ROUND_SHARDS", 1)
    report = spread(tmp_path / "there", pile)
    build(tmp_path / "here", pile)
    assert report.pending == 0 and read_all(tmp_path / "there") == read_all(tmp_path / "here")


def test_a_store_that_lets_no_node_in_is_no_reason_of_files(
    cluster: type[HereCluster], store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for seed in range(9):
        store.put(f"a/{seed}.png", draw(tmp_path / "one.png", seed).read_bytes())
    monkeypatch.setattr(fetching, "MOST_IN_VAIN", 6)
    with monkeypatch.context() as patch:
        refused = PermissionError(13, "its store lets nobody in")
        patch.setattr(members, "read_at_most", lambda *_: (_ for _ in ()).throw(refused))
        with pytest.raises(SourceError, match="A store does not answer, or lets nobody in: s3://pictures/a/"):
            spread(tmp_path / "there", Path("s3://pictures/a"))
    assert spread(tmp_path / "there").images == 9


def test_a_shard_of_one_file_that_vanished_is_no_missing_folder(
    cluster: type[HereCluster], pile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cluster_pipeline, "SHARD_FILES", 1)
    real = HereCluster.run

    def remove_and_run(self, *given):
        (pile / "a" / "picture-3.png").unlink(missing_ok=True)
        yield from real(self, *given)

    monkeypatch.setattr(HereCluster, "run", remove_and_run)
    report = spread(tmp_path / "there", pile)
    assert (report.images, report.failed) == (8, 4)


def test_shards_may_go_by_way_of_object_storage(
    cluster: type[HereCluster], pile: Path, tmp_path: Path, store: ObjectStore
):
    spread(tmp_path / "there", pile, outputs="s3://pictures/outputs")
    build(tmp_path / "here", pile)
    assert read_all(tmp_path / "there") == read_all(tmp_path / "here")
    assert store.seen["PUT"] == 4 and not store.find_backend().buckets["pictures"].keys


def test_a_build_that_is_told_to_stop_keeps_what_is_recorded(cluster: type[HereCluster], pile: Path, tmp_path: Path):
    steps = []
    watchers = Watchers(should_stop=lambda: len(steps) > 1, on_step=steps.append)
    report = spread(tmp_path / "there", pile, watchers=watchers)
    assert report.is_stopped and report.pending
    assert spread(tmp_path / "there").images == 9


def test_a_folder_that_is_not_everywhere_is_not_taken_for_an_empty_one(
    cluster: type[HereCluster], pile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(EmbedFiles, "__init__", lambda self, embedding: _require_elsewhere(embedding, tmp_path))
        with pytest.raises(SettingsError, match="is not the same folder on the node .*--outputs s3://"):
            spread(tmp_path / "there", pile)
    # As a node sees it that has not mounted the disk; and one that has an empty folder in its place.
    real = HereCluster.run

    def run_elsewhere(self, *given):
        pile.rename(tmp_path / "away")
        (tmp_path / "pictures" / "a").mkdir(parents=True)
        yield from real(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(HereCluster, "run", run_elsewhere)
        with pytest.raises(SourceError, match="pictures/a is not there, or is empty, on the node .*Mount it on every"):
            spread(tmp_path / "there", pile)
    shutil.rmtree(pile)
    (tmp_path / "away").rename(pile)
    with Collection(tmp_path / "there") as collection:
        assert not [one for one in collection.list_unsearchable() if "vanished" in one.reason]
    assert spread(tmp_path / "there").images == 9


@pytest.mark.parametrize("stage", ["read", "decode", "embed"])
def test_what_a_stage_refuses_is_handed_on_past_the_others_and_said_as_it_was(
    cluster: type[HereCluster], pile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
):
    def refuse(*_: object, **__: object) -> None:
        raise SourceError("It says why.")

    inside = {"read": "fetch_ahead", "decode": "DecodePool.decode", "embed": "embed_files"}[stage]
    with monkeypatch.context() as patch, pytest.raises(SourceError, match="^It says why.$"):
        patch.setattr(f"indexer.cluster_stages.{inside}", refuse)
        spread(tmp_path / "there", pile)
    assert spread(tmp_path / "there").images == 9


@pytest.mark.parametrize("kind", ["file", "full"])
def test_a_place_for_shards_that_cannot_be_used_is_what_is_named(
    cluster: type[HereCluster], pile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    outputs = tmp_path / "outputs"
    if kind == "file":
        outputs.touch()
    else:
        full = OSError(errno.ENOSPC, "No space left on device")
        monkeypatch.setattr("indexer.cluster_stages.write_shard", lambda *_: (_ for _ in ()).throw(full))
    why = {"file": "File exists", "full": "No space left on device"}[kind]
    with pytest.raises(SettingsError, match=f"{outputs}.*cannot be used .{why}.. .*--outputs"):
        spread(tmp_path / "there", pile, outputs=str(outputs))


def _require_elsewhere(embedding: Embedding, folder: Path) -> None:
    from dataclasses import replace

    from indexer.cluster_stages import _require_same_place

    _require_same_place(replace(embedding, outputs=folder))


def test_a_picture_that_comes_while_the_cluster_is_at_work_waits_for_the_next_build(
    cluster: type[HereCluster], pile: Path, tmp_path: Path
):
    draw(pile / "a" / "a-new.png", 77)
    spread(tmp_path / "there", pile, limit=5)
    catalog = Catalog(tmp_path / "there" / CATALOG)
    assert catalog.count_work(catalog.find_latest_store()) > 0
    catalog.close()
    assert spread(tmp_path / "there").pending == 0


# --- output shards -----------------------------------------------------------------------------------------------

REASONS = st.one_of(st.none(), st.text(max_size=20))
PATHS = st.binary(min_size=1, max_size=20).map(lambda data: data.decode("utf-8", "surrogateescape"))


@st.composite
def draw_shards(draw_one: st.DrawFn) -> OutputShard:
    files = [
        DecodedFile(
            path=draw_one(PATHS),
            size_bytes=draw_one(st.integers(0, 2**40)),
            mtime_ns=draw_one(st.integers(-(2**62), 2**62)),
            content_hash=draw_one(st.one_of(st.none(), st.binary(min_size=32, max_size=32))),
            width=draw_one(st.one_of(st.none(), st.integers(1, 9000))),
            reason=draw_one(REASONS),
            thumbnail=draw_one(st.one_of(st.none(), st.binary(max_size=30))),
        )
        for _ in range(draw_one(st.integers(0, 5)))
    ]
    embedded = [place for place, one in enumerate(files) if one.is_decoded]
    usable = [draw_one(st.booleans()) for _ in embedded]
    rows = np.random.default_rng(draw_one(st.integers(0, 99))).normal(size=(sum(usable), 7)).astype(np.float16)
    return OutputShard(files=files, embedded=embedded, usable=usable, rows=rows)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(shard=draw_shards(), data=st.data())
def test_a_shard_is_read_as_it_was_written_or_not_at_all(shard: OutputShard, data: st.DataObject):
    written = encode_shard(shard)
    read = decode_shard(written)
    assert (read.files, read.embedded, read.usable) == (shard.files, shard.embedded, shard.usable)
    assert np.array_equal(read.rows, shard.rows) and read.rows.dtype == np.float16
    place, bit = data.draw(st.integers(0, len(written) - 1)), data.draw(st.integers(0, 7))
    flipped = bytearray(written)
    flipped[place] ^= 1 << bit
    for damaged in (bytes(flipped), written[:place]):
        found = decode_shard(damaged)
        assert found is None or (found.files == shard.files and np.array_equal(found.rows, shard.rows))


def test_a_shard_is_named_after_what_it_is_made_of(tmp_path: Path):
    task = DecodeTask("/a.jpg", (b"known",), 5, 6)
    name = name_shard([task], {"fingerprint": "x"})
    assert name == name_shard([DecodeTask("/a.jpg", (), 5, 6)], {"fingerprint": "x"})
    others = DecodeTask("/b.jpg", (), 5, 6), DecodeTask("/a.jpg", (), 4, 6), DecodeTask("/a.jpg", (), 5, 7)
    for other in (*others, DecodeTask("/a.jpg", (), 5, 6, 8)):
        assert name != name_shard([other], {"fingerprint": "x"})
    assert name != name_shard([task], {"fingerprint": "y"}) and name != name_shard([task, task], {"fingerprint": "x"})
    assert read_shard(tmp_path / "none", name) is None
    nothing = OutputShard(files=[], embedded=[], usable=[], rows=np.empty((0, 3), np.float16))
    write_shard(tmp_path / "some", name, nothing)
    assert read_shard(tmp_path / "some", name).files == []
    assert [one.name for one in (tmp_path / "some").iterdir()] == [f"{name}.safetensors"]
