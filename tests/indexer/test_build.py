"""Builds: each change of the folder does the least work, and every file is accounted for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import indexer
from indexer.collection import Collection
from indexer.errors import (
    CollectionBusy,
    CollectionPlaceTaken,
    DiskTooSmall,
    FaissMissing,
    SourceError,
)
from indexer.hold import hold
from indexer.settings import BuildSettings
from seer_model.errors import SettingsError
from tests.indexer import pixel_backbone
from tests.indexer.making import build, draw

pytestmark = pytest.mark.usefixtures("by_pixels")


def test_a_second_build_embeds_nothing_and_keeps_the_generation(place: Path, pictures: Path):
    first, second = build(place, pictures), build(place)
    assert (first.found, first.embedded, first.images, first.failed) == (9, 9, 9, 0)
    assert (second.embedded, second.unchanged, second.images) == (0, 9, 9)
    assert second.generation == first.generation == "000001"


def test_an_added_file_is_embedded_alone_and_can_be_searched(place: Path, pictures: Path):
    build(place, pictures)
    added = draw(pictures / "c" / "added.png", seed=50)
    report = build(place)
    assert (report.embedded, report.unchanged, report.images) == (1, 9, 10)
    assert find_first(place, added) == added


def test_a_renamed_folder_embeds_nothing_and_is_found_under_its_new_name(place: Path, pictures: Path):
    build(place, pictures)
    (pictures / "a").rename(pictures / "renamed")
    report = build(place)
    assert (report.embedded, report.moved, report.removed, report.images) == (0, 4, 0, 9)
    moved = pictures / "renamed" / "picture-3.png"
    assert find_first(place, moved) == moved


def test_a_copy_is_a_second_path_of_the_same_image(place: Path, pictures: Path):
    build(place, pictures)
    original, copy = pictures / "a" / "picture-1.png", pictures / "z-copy.png"
    shutil.copy(original, copy)
    report = build(place)
    assert (report.embedded, report.moved, report.images) == (0, 1, 9)
    with Collection(place) as collection:
        assert collection.find_similar(copy.read_bytes(), count=1)[0].paths == [original, copy]


def test_copies_that_arrive_together_are_embedded_once(place: Path, pictures: Path):
    for number in range(6):
        draw(pictures / "0" / f"copy-{number}.png", seed=0)
    report = build(place, pictures)
    assert (report.found, report.embedded, report.moved, report.images) == (15, 9, 6, 9)
    with Collection(place) as collection:
        assert len(collection.read_embeddings()[1]) == 9


def test_a_changed_file_is_found_by_its_new_content_only(place: Path, pictures: Path):
    build(place, pictures)
    changed = pictures / "a" / "picture-1.png"
    before = changed.read_bytes()
    draw(changed, seed=99)
    report = build(place)
    assert (report.embedded, report.unchanged, report.removed, report.images) == (1, 8, 0, 9)
    assert find_first(place, changed) == changed
    with Collection(place) as collection:
        assert collection.find_similar(before, count=1)[0].similarity < 0.9999


def test_a_deleted_file_leaves_every_answer_at_once_without_a_new_generation(place: Path, pictures: Path):
    build(place, pictures)
    with Collection(place) as collection:
        gone = pictures / "a" / "picture-1.png"
        query = gone.read_bytes()
        assert collection.find_similar(query, count=1)[0].path == gone
        gone.unlink()
        report = build(place)
        assert (report.removed, report.images, report.generation) == (1, 8, "000001")
        answers = collection.find_similar(query, count=50)
    assert len(answers) == 8
    assert gone not in [neighbour.path for neighbour in answers]


def test_as_many_answers_as_asked_for_when_most_of_the_nearest_were_deleted(place: Path, tmp_path: Path):
    folder = tmp_path / "many"
    files = [draw(folder / f"picture-{seed:02d}.png", seed) for seed in range(60)]
    build(place, folder)
    with Collection(place) as collection:
        query = files[0].read_bytes()
        for neighbour in collection.find_similar(query, count=50)[1:]:
            neighbour.path.unlink()
        build(place)
        assert len(collection.find_similar(query, count=10)) == 10


@pytest.mark.parametrize("name", ["rows.f16", "norms.f32", "crc.u32"])
def test_rows_that_a_power_cut_took_are_embedded_again(name: str, place: Path, pictures: Path):
    build(place, pictures)
    path = place / "stores" / "000001" / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 5 // 9 + 1])
    assert build(place).embedded == 4
    assert (place / "stores" / "000002" / name).read_bytes() == whole
    for file in pictures.rglob("*.png"):
        assert find_first(place, file) == file


@pytest.mark.parametrize("harm", ["deleted", "cut"])
def test_a_store_that_was_lost_never_pairs_a_path_with_a_foreign_row(harm: str, place: Path, pictures: Path):
    """The rows were written in another order than that of their paths."""
    for seed, name in ((90, "z.png"), (91, "0.png"), (92, "m.png")):
        draw(pictures / name, seed)
        build(place, pictures)
    with Collection(place) as open_before:
        first = open_before.read_embeddings()[1][0].copy()
        if harm == "deleted":
            shutil.rmtree(place / "stores" / "000001")
        else:
            os.truncate(place / "stores" / "000001" / "norms.f32", 9)
        build(place)
        if harm == "cut":
            assert (np.asarray(open_before._snapshots._snapshot.store.rows[0]) == first).all()
        for file in pictures.rglob("*.png"):
            assert find_first(place, file) == file
            assert open_before.find_similar(file.read_bytes(), count=1)[0].path == file


def test_nothing_but_our_own_is_ever_removed(place: Path, pictures: Path):
    build(place, pictures)
    kept = [place / "stores" / "paris" / "shop.png", place / "generations" / "2019" / "grandma.png"]
    for number, file in enumerate(kept):
        draw(file, seed=80 + number)
    for seed in range(3):
        draw(pictures / f"late-{seed}.png", seed=100 + seed)
        build(place, model=f"model {seed}")
    assert all(file.is_file() for file in kept)


def test_a_collection_is_not_made_among_other_files(pictures: Path):
    before = sorted(pictures.rglob("*"))
    with pytest.raises(CollectionPlaceTaken, match="--collection"):
        build(pictures, pictures)
    with pytest.raises(CollectionPlaceTaken):
        build(pictures / "a" / "picture-1.png", pictures)
    assert sorted(pictures.rglob("*")) == before


def test_a_folder_that_is_gone_for_good_can_be_let_go(place: Path, pictures: Path, tmp_path: Path):
    other = tmp_path / "other"
    draw(other / "one.png", seed=70)
    build(place, pictures, other)
    shutil.rmtree(other)
    with pytest.raises(SourceError, match="--accept-removals"):
        build(place)
    assert build(place, accept_removals=True).removed == 1
    assert build(place).images == 9


def test_each_file_is_accounted_for_also_where_a_limit_cuts_copies_apart(place: Path, pictures: Path):
    draw(pictures / "z-copy.png", seed=1)
    build(place, pictures)
    reports = [build(place, model="regnety-400mf", limit=1) for _ in range(9)]
    assert [(report.embedded, report.pending) for report in reports][-1] == (1, 0)
    assert sum(report.embedded for report in reports) == 9


def test_copies_of_a_broken_file_are_failures_not_moves(place: Path, pictures: Path):
    for name in ("bad-1.png", "bad-2.png"):
        (pictures / name).write_bytes(b"no picture")
    blacken(pictures / "black-1.png")
    blacken(pictures / "black-2.png")
    report = build(place, pictures)
    assert (report.failed, report.moved, report.embedded) == (4, 0, 9)
    shutil.copy(pictures / "bad-1.png", pictures / "bad-3.png")
    (pictures / "bad-2.png").rename(pictures / "bad-4.png")
    report = build(place)
    assert (report.failed, report.moved, report.unchanged) == (5, 0, 9)


def test_another_model_with_a_limit_does_not_take_the_collection_away(place: Path, pictures: Path):
    build(place, pictures, model="one")
    report = build(place, model="two", limit=4)
    assert (report.embedded, report.pending, report.images, report.generation) == (4, 5, 9, "000001")
    report = build(place)
    assert (report.embedded, report.images, report.generation) == (5, 9, "000002")


def test_folders_deeper_than_calls_may_be_and_times_beyond_the_catalog(place: Path, pictures: Path):
    handle = os.open(pictures, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("d", dir_fd=handle)
        deeper = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = deeper
    os.close(handle)
    os.utime(pictures / "a" / "picture-1.png", (0, 10**10))
    try:
        assert build(place, pictures).images == 9
        assert build(place).unchanged == 9
    finally:
        # Python's own removal is one call deep for each folder, and the tests' clean-up uses it.
        subprocess.run(["rm", "-rf", pictures / "d"], check=True)


def test_a_foreign_catalog_in_a_picture_folder_hides_nothing(place: Path, pictures: Path):
    (pictures / "a" / "catalog.sqlite").write_bytes(b"SQLite format 3\0" + bytes(4000))
    assert build(place, pictures).images == 9


def test_damaged_thumbnails_are_set_aside_and_missing_ones_made_anew(place: Path, pictures: Path):
    build(place, pictures)
    (place / "thumbnails.sqlite").write_bytes(b"damaged" * 1000)
    added = draw(pictures / "added.png", seed=66)
    assert build(place).embedded == 1
    with Collection(place) as collection:
        for file in (added, pictures / "a" / "picture-1.png"):
            content_hash = collection.find_similar(file.read_bytes(), count=1)[0].content_hash
            assert collection.read_thumbnail(content_hash)[8:12] == b"WEBP"


def test_a_model_file_that_moved_is_looked_for_where_the_last_build_found_it(
    place: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        pixel_backbone.PixelBackbone, "fingerprint", property(lambda _: "x", lambda *_: None), raising=False
    )
    (tmp_path / "new.pt").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    build(place, pictures, model="old.pt")
    build(place, model="new.pt")
    with Collection(place) as collection:
        assert collection.read_status().model == str(tmp_path / "new.pt")


def test_a_deleted_file_that_comes_back_costs_nothing(place: Path, pictures: Path, tmp_path: Path):
    build(place, pictures)
    file = pictures / "a" / "picture-1.png"
    file.rename(tmp_path / "kept.png")
    build(place)
    (tmp_path / "kept.png").rename(file)
    report = build(place)
    assert (report.embedded, report.moved, report.images) == (0, 1, 9)
    assert find_first(place, file) == file


def test_several_folders_make_one_collection_and_all_are_looked_through_again(
    place: Path, pictures: Path, tmp_path: Path
):
    other = tmp_path / "other"
    draw(other / "one.png", seed=70)
    assert build(place, pictures, other).images == 10
    draw(other / "two.png", seed=71)
    third = tmp_path / "third"
    draw(third / "three.png", seed=72)
    report = build(place, third)
    assert (report.found, report.embedded, report.images) == (12, 2, 12)


def test_a_folder_inside_another_is_not_walked_twice(place: Path, pictures: Path):
    assert build(place, pictures, pictures / "a").found == 9


def test_every_file_is_accounted_for_when_many_are_broken(place: Path, tmp_path: Path):
    folder = tmp_path / "mixed"
    for number, data in enumerate(make_broken_files()):
        name = folder / f"broken-{number:02d}.jpg"
        name.parent.mkdir(exist_ok=True)
        name.write_bytes(data)
    for seed in range(10):
        draw(folder / f"good-{seed}.png", seed)
    draw(folder / "a jpeg.HEIC", seed=20, format="JPEG")
    draw(folder / "no suffix", seed=21, format="PNG")
    (folder / "notes.txt").write_text("BMW is not a picture format")
    (folder / "film.mp4").write_bytes(b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41" + bytes(500))
    report = build(place, folder)
    assert (report.found, report.embedded, report.failed, report.ignored) == (60, 12, 48, 2)
    with Collection(place) as collection:
        failures = collection.list_unsearchable()
        assert len(failures) == 48
        assert all(len(failure.reason) > 20 and failure.path.name.startswith("broken") for failure in failures)
    again = build(place)
    assert (again.found, again.embedded, again.failed, again.unchanged) == (60, 0, 48, 12)


def make_broken_files() -> list[bytes]:
    """48 different ones: empty, cut short, text, wrong headers, a bomb."""
    good = draw_bytes("JPEG")
    png = draw_bytes("PNG")
    bomb = bytearray(png)
    bomb[16:24] = (60000).to_bytes(4, "big") * 2
    broken = [b"", bytes(bomb), b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM" + bytes(60), b"RIFF1234WEBP"]
    broken += [good[: len(good) * part // 14] for part in range(1, 14)]
    broken += [png[: len(png) * part // 14] for part in range(1, 14)]
    broken += [f"text number {number}, called a picture".encode() for number in range(15)]
    assert len(set(broken)) == 48
    return broken


def draw_bytes(picture_format: str) -> bytes:
    import io

    from PIL import Image

    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, format=picture_format)
    return stream.getvalue()


def test_a_bad_file_shifts_nothing_each_path_keeps_its_own_row(place: Path, pictures: Path):
    for position in range(4):
        (pictures / "a" / f"picture-{position * 2}-bad.png").write_bytes(b"bad %d" % position)
    draw(pictures / "b" / "black.png", seed=1)
    blacken(pictures / "b" / "black.png")
    assert build(place, pictures).failed == 5
    with Collection(place) as collection:
        for file in sorted(pictures.rglob("picture-?.png")):
            answer = collection.find_similar(file.read_bytes(), count=1)[0]
            assert answer.path == file
            recomputed = embed_by_pixels(file)
            stored = collection.find_similar_to(answer.image_id, count=1)[0]
            ids, rows = collection.read_embeddings()
            row = rows[list(ids).index(stored.image_id)].astype(np.float32)
            assert float(row @ recomputed) > 0.9995, file


def blacken(path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (140, 120)).save(path)


def embed_by_pixels(path: Path) -> np.ndarray:
    from tests.indexer.pixel_backbone import PixelBackbone, embed_query

    return embed_query(PixelBackbone("seer-mini"), path.read_bytes(), max_megapixels=200)


def test_a_picture_without_an_embedding_is_listed_with_its_reason(place: Path, pictures: Path):
    blacken(pictures / "black.png")
    assert build(place, pictures).failed == 1
    with Collection(place) as collection:
        assert "no finite embedding" in collection.list_unsearchable()[0].reason


def test_a_limit_leaves_the_rest_pending_and_the_next_build_takes_it_up(place: Path, pictures: Path):
    first = build(place, pictures, limit=5)
    assert (first.embedded, first.pending, first.images) == (5, 4, 5)
    with Collection(place) as collection:
        assert collection.read_status().pending == 4
    second = build(place)
    assert (second.embedded, second.pending, second.images, second.generation) == (4, 0, 9, "000002")


def test_failed_pictures_are_tried_again_only_when_asked(place: Path, pictures: Path):
    large = draw(pictures / "large.png", seed=5)
    assert build(place, pictures, max_megapixels=0.001).failed == 10
    assert build(place).failed == 10
    report = build(place, retry_failed=True)
    assert (report.embedded, report.failed, report.images) == (9, 0, 9)
    assert large.read_bytes() == (pictures / "a" / "picture-5.png").read_bytes()


def test_a_folder_that_became_empty_is_not_believed_until_told_so(place: Path, pictures: Path):
    build(place, pictures)
    shutil.rmtree(pictures)
    with pytest.raises(SourceError, match="There is no folder"):
        build(place)
    pictures.mkdir()
    with pytest.raises(SourceError, match="--accept-removals"):
        build(place)
    with Collection(place) as collection:
        assert collection.read_status().images == 9
    report = build(place, accept_removals=True)
    assert (report.removed, report.images) == (9, 0)


def test_a_subfolder_that_may_not_be_listed_loses_nothing(place: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch):
    build(place, pictures)
    scandir = os.scandir

    def refuse(folder):
        if str(folder).endswith("/a"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    report = build(place)
    assert (report.found, report.removed, report.images) == (9, 0, 9)


def test_another_model_fills_a_store_of_its_own_and_the_old_one_goes_after_two_generations(place: Path, pictures: Path):
    build(place, pictures, model="one")
    report = build(place, model="two")
    assert (report.embedded, report.images, report.generation) == (9, 9, "000002")
    assert len(list((place / "stores").iterdir())) == 2
    draw(pictures / "new.png", seed=60)
    assert build(place).generation == "000003"
    assert [store.name for store in (place / "stores").iterdir()] == ["000002"]
    assert sorted(entry.name for entry in (place / "generations").iterdir()) == ["000002", "000003"]
    with Collection(place) as collection:
        assert collection.read_status().model == "two"


def test_what_one_model_could_not_embed_another_may(place: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch):
    embed = pixel_backbone.PixelBackbone.embed

    def fail_if_blind(self: pixel_backbone.PixelBackbone, pixels: list) -> np.ndarray:
        rows = embed(self, pixels)
        return np.full_like(rows, np.nan) if self.model == "blind" else rows

    monkeypatch.setattr(pixel_backbone.PixelBackbone, "embed", fail_if_blind)
    assert build(place, pictures, model="blind").failed == 9
    report = build(place, model="seeing")
    assert (report.failed, report.embedded, report.images) == (0, 9, 9)


@pytest.mark.parametrize(
    "setting", [{"device": "gpu"}, {"max_megapixels": 0}, {"max_seconds": 0}, {"batch_size": 0}, {"limit": -1}]
)
def test_a_setting_out_of_range_is_refused_before_any_work(setting: dict):
    with pytest.raises(SettingsError):
        BuildSettings(**setting)


def test_excluded_hidden_and_foreign_files_are_not_looked_at(place: Path, pictures: Path):
    for name in (".hidden/x.png", "@eaDir/x.png", ".dot.png", "skip/x.png", "b/raw-1.png"):
        draw(pictures / name, seed=30)
    report = build(place, pictures, exclude=("skip", "b/raw-*"))
    assert (report.found, report.ignored) == (9, 1)


def test_two_builds_at_once_the_second_is_refused(place: Path, pictures: Path):
    build(place, pictures)
    with hold(place, "build"), pytest.raises(CollectionBusy, match=rf"Another build \(process {os.getpid()}, since 20"):
        build(place)


def test_too_little_disk_is_said_before_anything_is_embedded(
    place: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
):
    usage = shutil.disk_usage(pictures)._replace(free=10 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DiskTooSmall, match="10 MB are free"):
        build(place, pictures)
    with Collection(place) as collection:
        assert collection.read_status().pending == 9


def test_without_faiss_everything_is_embedded_and_kept(place: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch):
    # The package holds its modules, too: both are put back, or later tests would meet two of one name.
    monkeypatch.setattr(indexer, "index", None, raising=False)
    monkeypatch.delitem(sys.modules, "indexer.index", raising=False)
    with monkeypatch.context() as without, pytest.raises(FaissMissing, match="seer doctor"):
        without.setitem(sys.modules, "faiss", None)
        build(place, pictures)
    report = build(place)
    assert (report.embedded, report.images) == (0, 9)


def test_a_name_that_is_not_utf8_survives_the_round_trip(place: Path, pictures: Path):
    odd = Path(os.fsdecode(os.fsencode(pictures) + b"/caf\xe9 100%_.png"))
    draw(odd, seed=40)
    assert build(place, pictures).images == 10
    assert find_first(place, odd) == odd


def find_first(place: Path, file: Path) -> Path:
    with Collection(place) as collection:
        found = collection.find_similar(file.read_bytes(), count=1)[0]
    assert found.similarity >= 0.999999
    return found.path
