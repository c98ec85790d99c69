"""Tar shards as picture folders: each picture in one is a file with a path of its own."""

import gzip
import io
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from indexer.check import check_collection
from indexer.collection import Collection, Filter, Query
from indexer.errors import SourceError
from indexer.kinds import is_source
from indexer.members import list_members, read_member, stat_file
from indexer.sources import Walk, resolve_folders
from indexer.texts import show_report
from indexer.upkeep import relocate_folder
from seer_model.errors import PictureError
from tests.indexer.making import build, draw


def pack(shard: Path, members: dict[str, bytes], before_ns: int = 0) -> Path:
    with tarfile.open(shard, "w") as tar:
        for name, data in members.items():
            told = tarfile.TarInfo(name)
            told.size = len(data)
            tar.addfile(told, io.BytesIO(data))
    if before_ns:
        os.utime(shard, ns=(before_ns, before_ns))
    return shard


@pytest.fixture
def drawn(tmp_path: Path) -> dict[str, bytes]:
    return {
        f"{'a/' if seed % 2 else ''}{seed:02d}.png": draw(tmp_path / "drawn" / f"{seed}.png", seed).read_bytes()
        for seed in range(8)
    }


def read_all(place: Path) -> dict[bytes, tuple[list[Path], np.ndarray]]:
    """Content hash -> paths and row."""
    with Collection(place) as collection:
        ids, rows = collection.read_embeddings()
        return {
            details.content_hash: (details.paths, rows[place])
            for place, image_id in enumerate(ids.tolist())
            for details in collection.read_images([image_id])
        }


def test_a_shard_gives_the_rows_that_its_pictures_give_as_files(tmp_path: Path, drawn: dict[str, bytes]):
    shard = pack(tmp_path / "x.tar", {**drawn, "notes.json": b"{}"})
    for name, data in drawn.items():
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).write_bytes(data)
    report = build(tmp_path / "packed", shard)
    build(tmp_path / "loose", tmp_path / "files")
    packed, loose = read_all(tmp_path / "packed"), read_all(tmp_path / "loose")
    assert (report.images, report.failed) == (8, 0) and packed.keys() == loose.keys()
    for content_hash, (paths, row) in packed.items():
        (path,), expected = loose[content_hash]
        assert paths == [shard / path.relative_to(tmp_path / "files")] and np.array_equal(row, expected)


def test_a_second_build_embeds_nothing_and_a_shard_written_anew_what_is_new_in_it(
    tmp_path: Path, drawn: dict[str, bytes]
):
    shard = pack(tmp_path / "x.tar", drawn)
    build(tmp_path / "place", shard)
    again = build(tmp_path / "place")
    assert (again.embedded, again.unchanged) == (0, 8)
    other = draw(tmp_path / "other.png", 99).read_bytes()
    pack(shard, {**drawn, "00.png": other})
    changed = build(tmp_path / "place")
    assert (changed.embedded, changed.images) == (1, 8)
    assert check_collection(tmp_path / "place", sample=8).is_sound


def test_what_the_page_shows_of_a_picture_in_a_shard(tmp_path: Path, drawn: dict[str, bytes]):
    shard = pack(tmp_path / "x.tar", drawn)
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "z.png").write_bytes(draw(tmp_path / "z.png", 77).read_bytes())
    build(tmp_path / "place", shard, tmp_path / "loose")
    with Collection(tmp_path / "place") as collection:
        image = next(one for one in collection.list_images() if one.path == shard / "a" / "03.png")
        assert collection.read_original(image.content_hash) == (drawn["a/03.png"], "image/png")
        assert collection.read_thumbnail(image.content_hash)[8:12] == b"WEBP"
        within = collection.find(Query.of(image.image_id), 20, where=Filter(under=[shard / "a"])).neighbours
        assert {one.path for one in within} == {shard / name for name in drawn if name.startswith("a/")}
        assert collection.list_subfolders()[shard] == 8
        shard.unlink()
        assert collection.read_original(image.content_hash) is None


def test_a_shard_that_is_gone_stops_a_build_and_a_cut_one_leaves_what_is_known(
    tmp_path: Path, drawn: dict[str, bytes]
):
    shard = pack(tmp_path / "x.tar", drawn)
    build(tmp_path / "place", shard)
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    report = build(tmp_path / "place")
    assert (report.unreadable, report.removed, report.images) == (1, 0, 8)
    shard.unlink()
    with pytest.raises(SourceError, match="There is no folder .*x.tar any more"):
        build(tmp_path / "place")
    shard.write_bytes(whole)
    assert build(tmp_path / "place").embedded == 0


def test_a_shard_that_has_moved_is_followed(tmp_path: Path, drawn: dict[str, bytes]):
    shard = pack(tmp_path / "x.tar", drawn)
    build(tmp_path / "place", shard)
    moved = shard.rename(tmp_path / "y.tar")
    assert relocate_folder(tmp_path / "place", shard, moved) == 8
    assert build(tmp_path / "place").embedded == 0
    with Collection(tmp_path / "place") as collection:
        assert {one.path.parts[-1] for one in collection.list_images()} == {name.split("/")[-1] for name in drawn}
        assert all(moved in one.path.parents for one in collection.list_images())
    with pytest.raises(SourceError, match="None of the 8 files"):
        relocate_folder(tmp_path / "place", moved, pack(tmp_path / "z.tar", {"other.png": drawn["00.png"]}))


def test_a_name_that_leads_out_of_the_shard_is_passed_over_and_of_two_alike_the_last_counts(tmp_path: Path):
    secret = draw(tmp_path / "secret.png", 5).read_bytes()
    one, two = (draw(tmp_path / f"{seed}.png", seed).read_bytes() for seed in (1, 2))
    shard = tmp_path / "x.tar"
    with tarfile.open(shard, "w") as tar:
        for name, data in (("../secret.png", two), ("./a.png", one), ("a.png", two), ("/b.png", two)):
            told = tarfile.TarInfo(name)
            told.size = len(data)
            tar.addfile(told, io.BytesIO(data))
    assert list(list_members(shard)) == [f"{shard}/a.png", f"{shard}/b.png"]
    # As whatever unpacks it would have it: the second one is written over the first.
    assert read_member(f"{shard}/a.png")[0] == read_member(f"{shard}/b.png")[0] == two != one
    for name in ("../secret.png", "c.png", "a.png/d.png", ""):
        with pytest.raises(OSError):
            read_member(f"{shard}/{name}")
    assert secret not in [read_member(path)[0] for path in list_members(shard)]


def test_what_is_excluded_in_a_shard_is_ignored(tmp_path: Path, drawn: dict[str, bytes]):
    walk = Walk([pack(tmp_path / "x.tar", drawn)], ("a/*",))
    assert [file.path for file in walk] == [f"{tmp_path}/x.tar/{name}" for name in drawn if "a/" not in name]
    assert walk.ignored == 4 and walk.matched == {"a/*"}


def test_a_shard_that_changes_while_it_is_read_is_not_believed(
    tmp_path: Path, drawn: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
):
    shard = pack(tmp_path / "x.tar", drawn, before_ns=10**18)
    read = list_members.__globals__["read_place"]

    def change(place):
        data = read(place)
        os.utime(shard, ns=(2 * 10**18,) * 2)
        return data

    monkeypatch.setattr("indexer.members.read_place", change)
    with pytest.raises(PictureError, match="changed while it was read"):
        read_member(f"{shard}/00.png")
    monkeypatch.undo()
    assert read_member(f"{shard}/00.png")[0] == drawn["00.png"]
    assert stat_file(f"{shard}/00.png").st_mtime_ns == 2 * 10**18


def test_shards_in_a_folder_are_told(by_pixels: None, tmp_path: Path, drawn: dict[str, bytes], place: Path):
    draw(tmp_path / "pictures" / "1.png", 1)
    for told in ("1 tar shard in these folders is passed over", "2 tar shards in these folders are passed over"):
        pack(tmp_path / "pictures" / f"{told[0]}.tar", drawn)
        report = build(place, tmp_path / "pictures")
        assert report.found == 1 and told in show_report(report, place)
    given = build(place, tmp_path / "pictures" / "1.tar", tmp_path / "pictures" / "2.tar")
    assert given.shards == 0 and given.found == 1 + 2 * len(drawn)


def test_a_shard_that_has_become_something_else_says_so_and_its_pictures_stay(
    by_pixels: None, tmp_path: Path, drawn: dict[str, bytes], place: Path
):
    shard = pack(tmp_path / "x.tar", drawn)
    before = build(place, shard)
    shard.write_bytes(gzip.compress(shard.read_bytes()))
    for accept in (False, True):
        with pytest.raises(SourceError, match="x.tar is compressed"):
            build(place, accept_removals=accept)
    pack(shard, drawn)
    assert build(place).images == before.images


def test_sources_are_folders_uncompressed_tars_and_lists(tmp_path: Path, drawn: dict[str, bytes]):
    shard = pack(tmp_path / "x.tar", drawn)
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz"):
        pass
    (tmp_path / "text.tar").write_text("no tar")
    assert [is_source(tmp_path / name) for name in ("", "x.tar", "x.tar.gz", "text.tar", "none")] == [
        True, True, False, True, False,
    ]  # fmt: skip
    assert resolve_folders([tmp_path, shard, shard]) == [tmp_path, shard]
    with pytest.raises(SourceError, match="gzip -dc x.tar.gz > plain.tar"):
        resolve_folders([tmp_path / "x.tar.gz"])
    shutil.rmtree(tmp_path / "drawn")
