"""The readers' door, exactly as the design names it, also while a build goes on."""

import sqlite3
import threading
from contextlib import closing
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from indexer.catalog_reader import CatalogReader
from indexer.collection import Collection, Neighbour, show_similarity
from indexer.errors import CollectionEmpty, CollectionMissing, FingerprintMismatch, QueryError
from seer_model.errors import PictureError
from tests.indexer import pixel_backbone
from tests.indexer.making import build, draw

pytestmark = pytest.mark.usefixtures("by_pixels")


@pytest.fixture
def built(place: Path, pictures: Path) -> Path:
    build(place, pictures)
    return place


def test_the_python_door_of_the_design(built: Path, pictures: Path):
    file = pictures / "a" / "picture-3.png"
    with Collection(built) as collection:
        neighbours = collection.find_similar(file.read_bytes(), count=5)
        first = neighbours[0]
        assert (first.rank, first.path, first.paths) == (1, file, [file])
        assert first.similarity >= 0.999999
        assert [neighbour.rank for neighbour in neighbours] == [1, 2, 3, 4, 5]
        assert collection.find_similar_to(first.image_id, count=5) == neighbours
        ids, rows = collection.read_embeddings()
        assert (ids.shape, rows.shape, rows.dtype) == ((9,), (9, 192), np.float16)
        assert not rows.flags.writeable


def test_answers_equal_brute_force_over_the_stored_rows(built: Path, tmp_path: Path):
    query = draw(tmp_path / "query.png", seed=500).read_bytes()
    with Collection(built) as collection:
        found = collection.find_similar(query, count=9)
        ids, rows = collection.read_embeddings()
    wide = rows.astype(np.float64)
    vector = pixel_backbone.embed_query(pixel_backbone.PixelBackbone("seer-mini"), query, max_megapixels=200)
    cosines = wide @ vector / np.linalg.norm(wide, axis=1)
    assert [neighbour.image_id for neighbour in found] == list(ids[np.argsort(-cosines)])
    np.testing.assert_allclose([n.similarity for n in found], np.sort(cosines)[::-1], atol=1e-6)


def test_pages_and_a_bound_cut_the_same_list(built: Path, pictures: Path):
    query = (pictures / "a" / "picture-3.png").read_bytes()
    with Collection(built) as collection:
        whole = collection.find_similar(query, count=9)
        assert collection.find_similar(query, count=4) + collection.find_similar(query, count=9, first=4) == whole
        bound = whole[3].similarity
        assert collection.find_similar(query, count=9, at_least=bound) == whole[:4]
        assert collection.find_similar(query, count=5, first=9) == []
        assert len(collection.find_similar(query, count=1000)) == 9


def test_among_pictures_that_are_equal_each_finds_itself_and_pages_fit_together(place: Path, tmp_path: Path):
    folder = tmp_path / "blank"
    for number in range(120):
        Image.new("RGB", (40, 40), (250, 250, 250)).save(
            folder_made(folder) / f"{number:03d}.png", pnginfo=note(number)
        )
    draw(folder / "other.png", seed=1)
    build(place, folder, batch_size=16)
    with Collection(place) as collection:
        for file in sorted(folder.glob("*.png"))[::10]:
            assert collection.find_similar(file.read_bytes(), count=1)[0].path == file
        query = (folder / "077.png").read_bytes()
        pages = [collection.find_similar(query, count=24, first=first) for first in range(0, 121, 24)]
        assert pages[0][0].path.name == "077.png"
        assert len({neighbour.path for page in pages for neighbour in page}) == 121


def folder_made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def note(number: int) -> PngInfo:
    """What makes the bytes differ and the pixels not."""
    info = PngInfo()
    info.add_text("number", str(number))
    return info


def test_a_question_is_answered_from_one_generation(built: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch):
    """A model change is published between the look-up and the search."""
    file = pictures / "a" / "picture-1.png"
    with Collection(built) as collection:
        find_row = collection._find_row

        def publish_meanwhile(*arguments: object) -> int | None:
            monkeypatch.setattr(collection, "_find_row", find_row)
            draw(pictures / "0.png", seed=300)
            build(built, model="another")
            return find_row(*arguments)

        monkeypatch.setattr(collection, "_find_row", publish_meanwhile)
        assert collection.find_similar(file.read_bytes(), count=1)[0].path == file
        assert collection.read_status().model == "another"


def test_a_bound_of_one_keeps_the_image_itself(built: Path, pictures: Path):
    with Collection(built) as collection:
        for file in pictures.rglob("*.png"):
            assert [n.path for n in collection.find_similar(file.read_bytes(), at_least=1.0)] == [file]


def test_paging_through_an_answer_embeds_the_query_once(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    embedded = []
    embed = pixel_backbone.embed_prepared
    monkeypatch.setattr(pixel_backbone, "embed_prepared", lambda *a: embedded.append(a) or embed(*a))
    queries = [draw(tmp_path / f"query-{seed}.png", seed).read_bytes() for seed in range(500, 540)]
    with Collection(built) as collection:
        pages = [collection.find_similar(queries[0], count=3, first=first) for first in (0, 3, 6)]
        assert (len(embedded), len({n.image_id for page in pages for n in page})) == (1, 9)
        for query in queries:
            collection.find_similar(query)
        assert len(embedded) == 40 and len(collection._model._known) <= 32


@pytest.mark.parametrize(("count", "first"), [(0, 0), (-3, 0), (5, -1)])
def test_a_range_that_makes_no_sense_is_refused(built: Path, pictures: Path, count: int, first: int):
    with Collection(built) as collection, pytest.raises(QueryError, match="allowed are"):
        collection.find_similar((pictures / "a" / "picture-3.png").read_bytes(), count, first=first)


def test_bytes_that_are_no_picture_are_refused_with_a_reason(built: Path):
    with Collection(built) as collection, pytest.raises(PictureError):
        collection.find_similar(b"hello")


def test_an_open_collection_takes_up_the_next_generation_by_itself(built: Path, pictures: Path):
    with Collection(built) as collection:
        assert collection.read_status().images == 9
        added = draw(pictures / "added.png", seed=77)
        build(built)
        assert collection.find_similar(added.read_bytes(), count=1)[0].path == added
        assert collection.read_status().generation == "000002"


def test_the_counts_follow_the_catalog_and_are_not_counted_for_every_question(
    built: Path, monkeypatch: pytest.MonkeyPatch
):
    counted = []
    count = CatalogReader.count_searchable
    monkeypatch.setattr(CatalogReader, "count_searchable", lambda *told: counted.append(told) or count(*told))
    with Collection(built) as collection, closing(sqlite3.connect(built / "catalog.sqlite")) as writer:
        assert [collection.read_status().images for _ in range(3)] == [9, 9, 9]
        assert len(counted) == 1
        with writer:
            writer.execute("DELETE FROM files WHERE path = (SELECT min(path) FROM files)")
        assert [collection.read_status().images for _ in range(3)] == [8, 8, 8]
        assert len(counted) == 2


def test_an_image_outside_the_collection_is_not_handed_out(built: Path, pictures: Path):
    gone = pictures / "a" / "picture-3.png"
    with Collection(built) as collection:
        neighbour = collection.find_similar(gone.read_bytes(), count=1)[0]
        content_hash = neighbour.content_hash
        assert collection.read_original(content_hash) == (gone.read_bytes(), "image/png")
        assert collection.read_thumbnail(content_hash)[:4] == b"RIFF"
        draw(gone, seed=600)
        assert collection.read_original(content_hash) is None
        build(built)
        assert collection.read_thumbnail(content_hash) is None
        assert collection.find_image(content_hash) is None
        with pytest.raises(QueryError, match="not in the collection any more"):
            collection.find_similar_to(neighbour.image_id)
        for nonsense in ("", "zz", "00", "../../etc/passwd", "00" * 32):
            assert collection.find_image(nonsense) is None
            assert collection.read_thumbnail(nonsense) is None
            assert collection.read_original(nonsense) is None


def test_a_model_that_changed_since_the_build_is_refused(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pixel_backbone, "open_backbone", lambda model, **_: pixel_backbone.PixelBackbone("other"))
    query = draw(tmp_path / "query.png", seed=500).read_bytes()
    with Collection(built) as collection, pytest.raises(FingerprintMismatch, match="seer build"):
        collection.find_similar(query)


def test_a_folder_without_a_collection_says_how_to_make_one(tmp_path: Path):
    with pytest.raises(CollectionMissing, match="seer build PICTURES"):
        Collection(tmp_path)


def test_an_empty_folder_makes_a_collection_that_answers_with_nothing(place: Path, tmp_path: Path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert build(place, empty).images == 0
    query = draw(tmp_path / "query.png", seed=500).read_bytes()
    with Collection(place) as collection:
        assert collection.find_similar(query) == []
        assert collection.list_images() == []


def test_before_the_first_generation_the_status_can_be_read(place: Path, pictures: Path):
    with pytest.raises(RuntimeError):
        build(place, pictures, watchers=stop_at("walk recorded"))
    with Collection(place) as collection:
        status = collection.read_status()
        assert (status.images, status.pending, status.generation, status.model) == (0, 9, None, None)
        with pytest.raises(CollectionEmpty):
            collection.read_embeddings()


def stop_at(step: str):
    from indexer.report import Watchers

    def on_step(name: str) -> None:
        if name == step:
            raise RuntimeError(name)

    return Watchers(on_step=on_step)


def test_many_threads_ask_while_builds_publish(built: Path, pictures: Path):
    queries = [file.read_bytes() for file in sorted(pictures.rglob("*.png"))]
    wrong, asked = [], []

    def ask(collection: Collection, number: int) -> None:
        for turn in range(30):
            query = queries[(number + turn) % len(queries)]
            first = collection.find_similar(query, count=3)[0]
            asked.append(first)
            if first.path.read_bytes() != query:
                wrong.append(first)

    with Collection(built) as collection:
        threads = [threading.Thread(target=ask, args=(collection, number)) for number in range(6)]
        for thread in threads:
            thread.start()
        for seed in range(700, 703):
            draw(pictures / f"late-{seed}.png", seed)
            build(built)
        for thread in threads:
            thread.join()
    assert (len(asked), wrong) == (180, [])


@pytest.mark.parametrize(("similarity", "is_same", "shown"), [
    (1.0, True, "1.000"), (0.9999999, False, "0.999"), (0.98765, False, "0.988"), (-0.25, False, "-0.250"),
])  # fmt: skip
def test_a_similarity_of_one_is_shown_for_identical_content_only(similarity: float, is_same: bool, shown: str):
    neighbour = Neighbour(1, 1, similarity, [Path("x.jpg")], "00", 1, 1, is_same, "JPEG", 1, datetime(2026, 1, 1))
    assert show_similarity(neighbour) == shown
