"""Generations: a published one is immutable, a damaged one is refused, `CURRENT` decides."""

import json
import os
import shutil
from pathlib import Path

import pytest

from indexer import generations, index, snapshot
from indexer.collection import Collection
from indexer.errors import CollectionDamaged
from tests.indexer.making import build, draw

pytestmark = pytest.mark.usefixtures("by_pixels")

APPROXIMATE = ["index.faiss", "held_out.npz"]
"""Files that a generation with an approximate index has besides."""


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("name", [*APPROXIMATE, "image_ids.npy"])
def test_a_changed_file_is_refused_before_faiss_reads_a_byte(
    name: str, approximate: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
):
    place = approximate
    flip_byte(place / "generations" / "000001" / name)
    monkeypatch.setattr(index, "open_approximate", lambda path: pytest.fail("FAISS was asked to read it"))
    with Collection(place) as collection, pytest.raises(CollectionDamaged, match="hash differs"):
        collection.find_similar((pictures / "a" / "picture-1.png").read_bytes())


def test_an_index_that_rots_under_its_stamp_is_refused_before_faiss_reads_a_byte(
    approximate: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
):
    path = approximate / "generations" / "000001" / "index.faiss"
    status = path.stat()
    flip_byte(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    monkeypatch.setattr(index, "open_approximate", lambda path: pytest.fail("FAISS was asked to read it"))
    with (
        Collection(approximate) as collection,
        pytest.raises(CollectionDamaged, match="hash differs"),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(snapshot, "SMALL_BYTES", 0)
        collection.find_similar((pictures / "a" / "picture-1.png").read_bytes())


def test_what_is_asked_of_an_index_holds_until_something_else_is(approximate: Path):
    assert build(approximate).generation == "000001"
    assert build(approximate, recall=0.5).generation == "000002"
    assert build(approximate).generation == "000002"
    settings = generations.open_generation(approximate).manifest["settings"]
    assert (settings["recall"], settings["exact_ms"], settings["memory_bytes"]) == (0.5, 0.0, None)
    assert build(approximate, exact_ms=1e6).generation == "000003"
    assert generations.open_generation(approximate).manifest["index"] == "exact"
    with Collection(approximate) as collection:
        assert collection.find_similar_to(1)[0].image_id == 1


@pytest.mark.parametrize("name", [*APPROXIMATE, "image_ids.npy", "manifest.json"])
@pytest.mark.parametrize("harm", [flip_byte, Path.unlink])
def test_the_next_build_makes_a_damaged_generation_anew_and_embeds_nothing(
    name: str, harm, approximate: Path, pictures: Path
):
    place = approximate
    harm(place / "generations" / "000001" / name)
    report = build(place)
    assert (report.embedded, report.generation) == (0, "000002")
    with Collection(place) as collection:
        assert collection.find_similar((pictures / "a" / "picture-1.png").read_bytes(), 1)[0].similarity >= 0.999999


def test_a_deleted_current_is_put_right_by_a_build(place: Path, pictures: Path):
    build(place, pictures)
    (place / "CURRENT").unlink()
    assert build(place).generation == "000002"


def test_a_copy_of_the_collection_is_verified_once_and_then_by_its_stamps(place: Path, pictures: Path, tmp_path: Path):
    build(place, pictures)
    copy = tmp_path / "copy"
    shutil.copytree(place, copy)
    generations.open_generation(copy)
    verified = json.loads((copy / "generations" / "000001" / "verified.json").read_text())
    assert verified["image_ids.npy"][0] == os.stat(copy / "generations" / "000001" / "image_ids.npy").st_ino


def test_two_generations_are_kept_and_nothing_unfinished(place: Path, pictures: Path):
    build(place, pictures)
    (place / "generations" / ".000002").mkdir()
    (place / "generations" / ".000009").mkdir()
    for seed in range(30, 34):
        draw(pictures / f"new-{seed}.png", seed)
        build(place, pictures)
    assert sorted(entry.name for entry in (place / "generations").iterdir()) == ["000004", "000005"]


def test_a_read_only_copy_opens_and_answers(place: Path, pictures: Path, tmp_path: Path):
    """As another user than root, for whom read-only means nothing."""
    build(place, pictures)
    query = (pictures / "a" / "picture-1.png").read_bytes()
    for folder, _, files in os.walk(place):
        for file in files:
            os.chmod(Path(folder) / file, 0o444)
        os.chmod(folder, 0o555)
    if os.geteuid() == 0:
        answer = ask_as_nobody(place, query, tmp_path)
    else:
        with Collection(place) as collection:
            answer = collection.find_similar(query, 1)[0].path.name
    assert answer == "picture-1.png"


def ask_as_nobody(place: Path, query: bytes, tmp_path: Path) -> str:
    for folder in (place, *place.parents):
        if folder != Path("/tmp") and folder.is_relative_to("/tmp"):
            os.chmod(folder, 0o555 if folder.is_relative_to(place) else 0o755)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            with Collection(place) as collection:
                os.write(write_end, collection.find_similar(query, 1)[0].path.name.encode())
        except BaseException as error:
            os.write(write_end, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    return os.read(read_end, 10000).decode()
