"""Upkeep: a moved folder costs nothing, and what is gone goes, without a reader ever seeing a foreign picture."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from indexer import generations, upkeep
from indexer.catalog import Catalog
from indexer.cli import cli
from indexer.collection import Collection
from indexer.errors import CollectionBusy, CollectionDamaged, CollectionEmpty, FaissMissing, SourceError
from indexer.hold import hold
from indexer.layout import CATALOG, HOLDER, THUMBNAILS
from indexer.thumbnails import ThumbnailReader
from indexer.upkeep import prune_collection, relocate_folder
from tests.conftest import REPOSITORY
from tests.indexer.making import build, draw

pytestmark = pytest.mark.usefixtures("by_pixels")

def find_all(place: Path, pictures: Path) -> dict[str, str]:
    """File name -> name of its first neighbour, and that its similarity is 1."""
    with Collection(place) as collection:
        found = {}
        for file in sorted(pictures.rglob("*.png")):
            first = collection.find_similar(file.read_bytes(), count=1)[0]
            assert first.similarity >= 0.999999
            found[file.name] = first.path.name
    return found


def remove_some(pictures: Path) -> dict[Path, bytes]:
    """Remove the four pictures of folder a, the first rows. Returns: what they held."""
    gone = {file: file.read_bytes() for file in sorted((pictures / "a").glob("*.png"))}
    for file in gone:
        file.unlink()
    return gone


def read_rows(place: Path, store: int) -> list[bytes]:
    return [(place / "stores" / f"{store:06d}" / name).read_bytes() for name in ("rows.f16", "norms.f32", "crc.u32")]


# Prune


def test_what_is_gone_goes_and_the_rest_answers_as_before(place: Path, pictures: Path):
    build(place, pictures)
    gone = remove_some(pictures).values()
    build(place)
    before = find_all(place, pictures)
    report = prune_collection(place)
    assert (report.images, report.removed, report.thumbnails, report.generation) == (5, 4, 4, "000002")
    assert find_all(place, pictures) == before == {file.name: file.name for file in pictures.rglob("*.png")}
    rows = read_rows(place, 2)
    assert [len(part) for part in rows] == [5 * 192 * 2, 5 * 4, 5 * 4]
    with Collection(place) as collection:
        assert collection.read_status().images == 5
        for data in gone:
            assert all(neighbour.path.exists() for neighbour in collection.find_similar(data, count=9))


def test_the_rows_that_stay_are_the_same_to_the_byte(place: Path, pictures: Path, tmp_path: Path):
    build(place, pictures)
    remove_some(pictures)
    build(place)
    prune_collection(place)
    build(tmp_path / "fresh", pictures)
    assert read_rows(place, 2) == read_rows(tmp_path / "fresh", 1)


def test_nothing_gone_is_nothing_written(place: Path, pictures: Path):
    build(place, pictures)
    report = prune_collection(place)
    assert (report.removed, report.thumbnails, report.generation) == (0, 0, "000001")
    assert not (place / "stores" / "000002").exists()


def test_all_gone_leaves_an_empty_generation(place: Path, pictures: Path):
    build(place, pictures)
    shutil.rmtree(pictures)
    pictures.mkdir()
    build(place, accept_removals=True)
    assert prune_collection(place).images == 0
    draw(pictures / "new.png", seed=70)
    report = build(place)
    assert (report.embedded, report.images) == (1, 1)
    assert find_all(place, pictures) == {"new.png": "new.png"}


def test_a_build_after_a_prune_goes_on_in_the_new_store(place: Path, pictures: Path):
    build(place, pictures)
    remove_some(pictures)
    build(place)
    prune_collection(place)
    draw(pictures / "new.png", seed=70)
    report = build(place)
    assert (report.embedded, report.unchanged, report.images) == (1, 5, 6)
    assert find_all(place, pictures)["new.png"] == "new.png"
    # The old store has gone with the last generation that stood on it.
    assert sorted(entry.name for entry in (place / "stores").iterdir()) == ["000002"]


def test_a_picture_that_comes_back_is_embedded_and_has_its_thumbnail_again(place: Path, pictures: Path):
    build(place, pictures)
    kept = remove_some(pictures)
    build(place)
    prune_collection(place)
    for file, data in kept.items():
        file.write_bytes(data)
    assert build(place).embedded == 4
    assert find_all(place, pictures) == {file.name: file.name for file in pictures.rglob("*.png")}
    with Collection(place) as collection:
        hashes = [collection.find_similar(data, count=1)[0].content_hash for data in kept.values()]
    thumbnails = ThumbnailReader(place / THUMBNAILS)
    assert all(thumbnails.read(bytes.fromhex(content_hash)) for content_hash in hashes)
    thumbnails.close()


def test_a_reader_of_the_old_generation_never_sees_a_foreign_picture(place: Path, pictures: Path):
    build(place, pictures)
    with Collection(place) as collection:
        asked = {file: file.read_bytes() for file in sorted(pictures.rglob("*.png"))}
        collection.find_similar(next(iter(asked.values())), count=1)
        held = collection._snapshots._snapshot
        remove_some(pictures)
        for round_ in range(3):  # until the old store and the numbers of the gone images are free
            build(place)
            prune_collection(place)
            draw(pictures / f"later-{round_}.png", seed=80 + round_)
        build(place)
        reader = collection._catalog
        for row, image_id in enumerate(held.image_ids.tolist()):
            details = reader.read_images([image_id]).get(image_id)
            if details is not None:
                data = details.path.read_bytes()
                first = next(file for file, known in asked.items() if known == data)
                assert held.store.read_embedding(row) @ embed(first) >= 0.99999


def test_the_number_of_an_image_is_never_given_out_again(place: Path, pictures: Path):
    build(place, pictures)
    for name in ("picture-8.png", "picture-6.png"):  # read last: they have the highest numbers, 9 and 8
        (pictures / "b" / name).unlink()
        build(place)
        prune_collection(place)
    # The first store has gone, and with it the last row of image 9.
    assert not (place / "stores" / "000001").exists()
    new = draw(pictures / "new.png", seed=80)
    build(place)
    with Collection(place) as collection:
        assert collection.find_similar(new.read_bytes(), count=1)[0].image_id == 10


def embed(file: Path) -> np.ndarray:
    from tests.indexer import pixel_backbone

    return pixel_backbone.embed_query(pixel_backbone.PixelBackbone("seer-mini"), file.read_bytes(), max_megapixels=200)


def test_another_models_half_filled_store_is_left_alone(place: Path, pictures: Path):
    build(place, pictures)
    remove_some(pictures)
    report = build(place, model="regnety-400mf", limit=2)
    assert report.pending == 3
    assert prune_collection(place).removed == 4
    assert find_all(place, pictures) == {file.name: file.name for file in pictures.rglob("*.png")}
    report = build(place)  # goes on with the model that was begun
    assert (report.embedded, report.unchanged, report.images) == (3, 2, 5)
    with Collection(place) as collection:
        assert collection.read_status().model == "regnety-400mf"


def test_what_a_killed_prune_has_left_is_never_taken_for_the_rows_of_a_short_store(place: Path, pictures: Path):
    build(place, pictures)
    (pictures / "a" / "picture-1.png").unlink()
    build(place)
    code = (
        "import os, sys; from pathlib import Path; from indexer.upkeep import prune_collection\n"
        "prune_collection(Path(sys.argv[1]), on_step=lambda name: os._exit(9))"
    )
    subprocess.run([sys.executable, "-c", code, str(place)], cwd=REPOSITORY, timeout=60)
    assert (place / "stores" / "000002" / "rows.f16").stat().st_size == 8 * 192 * 2  # rows 1 to 8, from place 0 on
    for name, width in (("rows.f16", 192 * 2), ("norms.f32", 4), ("crc.u32", 4)):
        path = place / "stores" / "000001" / name
        path.write_bytes(path.read_bytes()[: 6 * width])
    build(place)
    assert find_all(place, pictures) == {file.name: file.name for file in pictures.rglob("*.png")}


def test_a_damaged_row_is_not_carried_over(place: Path, pictures: Path):
    build(place, pictures)
    remove_some(pictures)
    build(place)
    rows = place / "stores" / "000001" / "rows.f16"
    damaged = bytearray(rows.read_bytes())
    damaged[-1] ^= 1  # of b/picture-8.png, which stays
    rows.write_bytes(damaged)
    with pytest.raises(CollectionDamaged, match="checksum"):
        prune_collection(place)
    assert generations.open_generation(place).name == "000001"


def test_a_collection_without_a_generation_has_nothing_to_prune(place: Path, pictures: Path):
    place.mkdir()
    Catalog(place / CATALOG).close()
    with pytest.raises(CollectionEmpty):
        prune_collection(place)


def test_without_faiss_nothing_is_changed(place: Path, pictures: Path, monkeypatch):
    build(place, pictures)
    remove_some(pictures)
    build(place)
    monkeypatch.setitem(sys.modules, "indexer.index", None)
    with pytest.raises(FaissMissing, match="nothing was changed"):
        prune_collection(place)
    assert sorted(entry.name for entry in (place / "stores").iterdir()) == ["000001"]


# Relocate


def test_a_moved_folder_is_followed_and_nothing_is_read_again(place: Path, pictures: Path, monkeypatch):
    build(place, pictures)
    moved = pictures.rename(pictures.with_name("moved"))
    assert relocate_folder(place, pictures, moved) == 9
    monkeypatch.setattr("indexer.job.DecodePool", None)  # a build that reads a picture would fail
    report = build(place)
    assert (report.found, report.unchanged, report.moved, report.removed) == (9, 9, 0, 0)
    assert report.generation == "000001"
    assert find_all(place, moved) == {file.name: file.name for file in moved.rglob("*.png")}


def test_names_that_begin_alike_and_names_that_are_no_text_are_told_apart(place: Path, tmp_path: Path):
    one, other = tmp_path / "pictures", tmp_path / "pictures-2"
    strange = draw(one / "sub" / "a.png", 1).rename(Path(str(one / "sub" / "n\udcff.png")))
    draw(other / "b.png", 2)
    build(place, one, other)
    moved = one.rename(tmp_path / "m%_oved")
    assert relocate_folder(place, one, moved) == 1
    with Collection(place) as collection:
        status = collection.read_status()
        assert set(status.folders) == {moved, other}
        there = moved / "sub" / strange.name
        assert collection.find_similar(there.read_bytes())[0].path == there
    assert build(place).unchanged == 2


def test_a_disk_with_several_picture_folders_moves_as_one(place: Path, tmp_path: Path):
    disk = tmp_path / "disk"
    draw(disk / "one" / "a.png", 1), draw(disk / "two" / "b.png", 2)
    build(place, disk / "one", disk / "two")
    moved = disk.rename(tmp_path / "other")
    assert relocate_folder(place, disk, moved) == 2
    assert build(place).unchanged == 2


def test_what_was_built_at_the_new_place_already_stays(place: Path, pictures: Path, tmp_path: Path):
    build(place, pictures)
    copied = Path(shutil.copytree(pictures, tmp_path / "copied"))
    build(place, copied)
    shutil.rmtree(pictures)
    assert relocate_folder(place, pictures, copied) == 9
    report = build(place)
    assert (report.found, report.unchanged, report.embedded) == (9, 9, 0)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("pictures", "nowhere", "There is no folder .*nowhere"),
        ("never-known", "empty", "Nothing in this collection lies below .*never-known"),
        ("pictures", "empty", "None of the 9 files known below .*pictures lies below .*empty"),
        ("pictures", "second", "None of the 9 files known below .*pictures lies below .*second"),
        ("pictures/a", "apart", "would lie in none of the collection's picture folders"),
        ("pictures", "second/inner", "would lie in another picture folder"),
    ],
)
def test_a_move_that_would_lose_pictures_is_refused(old, new, said, place: Path, pictures: Path, tmp_path: Path):
    draw(tmp_path / "second" / "inner" / "s.png", 30)
    (tmp_path / "empty").mkdir()
    build(place, pictures, tmp_path / "second")
    shutil.copytree(pictures / "a", tmp_path / "apart")
    if new == "second/inner":
        shutil.copytree(pictures, tmp_path / new, dirs_exist_ok=True)
    with pytest.raises(SourceError, match=said):
        relocate_folder(place, tmp_path / old, tmp_path / new)
    if new == "second/inner":
        shutil.rmtree(tmp_path / new / "a")
        shutil.rmtree(tmp_path / new / "b")
    assert build(place).unchanged == 10


def test_a_folder_that_moves_into_itself_keeps_every_file(place: Path, pictures: Path):
    build(place, pictures)
    inner = pictures / "a"
    for file in sorted(pictures.rglob("*.png")):
        target = inner / "moved" / file.relative_to(pictures)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)
    assert relocate_folder(place, pictures, inner / "moved") == 9
    with Collection(place) as collection:
        assert collection.read_status().files == 9


def test_the_old_place_may_be_spelled_as_one_likes(place: Path, pictures: Path, tmp_path: Path, monkeypatch):
    build(place, pictures)
    link = tmp_path / "link"
    link.symlink_to(tmp_path, target_is_directory=True)
    moved = pictures.rename(tmp_path / "moved")
    assert relocate_folder(place, link / "pictures", moved) == 9
    again = moved.rename(tmp_path / "again")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert relocate_folder(place, Path("../moved/"), again) == 9
    assert build(place).unchanged == 9


# The commands, and the lock


def test_the_commands_say_what_they_did(place: Path, pictures: Path):
    build(place, pictures)
    moved = pictures.rename(pictures.with_name("moved"))
    given = ["--collection", str(place), "--json"]
    done = CliRunner().invoke(cli, ["relocate", str(pictures), str(moved), *given])
    assert json.loads(done.stdout) == {"schema_version": 1, "files": 9}, done.output
    remove_some(moved)
    build(place)
    told = json.loads(CliRunner().invoke(cli, ["prune", *given]).stdout)
    assert told == {"schema_version": 1, "images": 5, "removed": 4, "thumbnails": 4, "generation": "000002"}
    text = CliRunner().invoke(cli, ["prune", "--collection", str(place)]).stdout
    assert text == "0 embeddings and 0 thumbnails of gone images removed; 5 images stay, generation 000002.\n"


def test_two_changes_at_once_are_refused_with_who_is_at_work(place: Path, pictures: Path):
    build(place, pictures)
    with hold(place, "seer prune"):
        for change in (prune_collection, lambda place: relocate_folder(place, pictures, pictures)):
            with pytest.raises(CollectionBusy, match=r"Another seer prune \(process \d+, since \d{4}-"):
                change(place)
        (place / HOLDER).write_text("{", encoding="utf-8")
        with pytest.raises(CollectionBusy, match="Another build is at work"):
            prune_collection(place)
    assert not (place / HOLDER).exists()
    assert prune_collection(place).removed == 0


def test_the_lock_of_a_process_that_died_is_taken_over(place: Path, pictures: Path):
    build(place, pictures)
    code = (
        "import os, sys; from pathlib import Path; from indexer.hold import hold\n"
        "with hold(Path(sys.argv[1]), 'build'): os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(place)], cwd=REPOSITORY, timeout=60)
    assert (place / HOLDER).exists()
    assert upkeep.prune_collection(place).removed == 0
