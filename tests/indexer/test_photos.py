"""The whole job on 699 real photos with the real backbone: nothing fails, everything finds itself and its copies."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from indexer.aside import prepare_picture
from indexer.collection import Collection
from indexer.embed import embed_prepared, open_backbone
from indexer.job import build_collection
from indexer.labels import read_labels
from indexer.metrics import measure_retrieval
from indexer.report import BuildReport
from indexer.settings import BuildSettings

COUNT = 699


@pytest.fixture(scope="module")
def built(photos_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BuildReport]:
    place = tmp_path_factory.mktemp("photos") / "collection"
    return place, build_collection(place, [photos_folder], BuildSettings())


@pytest.fixture(scope="module")
def collection(built: tuple[Path, BuildReport]):
    with Collection(built[0], device="cpu") as collection:
        yield collection


@pytest.fixture(scope="module")
def photos(photos_folder: Path) -> list[Path]:
    return sorted(photos_folder.glob("*.jpg"))


def test_every_photo_is_embedded_and_a_second_build_embeds_none(built: tuple[Path, BuildReport]):
    place, first = built
    assert (first.found, first.embedded, first.failed, first.images) == (COUNT, COUNT, 0, COUNT)
    assert first.ignored == 1  # labels.csv
    second = build_collection(place, [], BuildSettings())
    assert (second.embedded, second.unchanged, second.generation) == (0, COUNT, first.generation)


def test_every_photo_searched_by_its_bytes_comes_first_at_similarity_one(collection: Collection, photos: list[Path]):
    assert len(photos) == COUNT
    for photo in photos:
        first = collection.find_similar(photo.read_bytes(), count=1)[0]
        assert first.path == photo.resolve()
        assert first.similarity >= 0.999999


def test_embedding_a_photo_again_by_itself_gives_its_stored_row(collection: Collection, photos: list[Path]):
    """The path of a query from outside: batches of one instead of the job's, no knowledge of the stored row."""
    backbone = open_backbone(device="cpu", batch_size=1)
    ids, rows = collection.read_embeddings()
    for photo in photos[::35]:
        query = embed_prepared(backbone, prepare_picture(photo.read_bytes(), backbone.preprocessing, 200))
        stored = rows[ids == find_id(collection, photo)][0].astype(np.float64)
        assert query @ stored / np.linalg.norm(stored) >= 0.999999


def test_photos_of_one_label_find_each_other(collection: Collection, photos_folder: Path):
    """The bundled model, measured as its card says; 16 x 16 pixels reach 0.266 and 0.114."""
    labels = read_labels(photos_folder / "labels.csv")
    by_id = {find_id(collection, path): label for path, label in labels.items()}
    ids, rows = collection.read_embeddings()
    found = measure_retrieval(rows, [by_id[image_id] for image_id in ids.tolist()])
    assert found.first_is_right.mean() >= 0.30
    assert found.average_precisions.mean() >= 0.13


@pytest.mark.parametrize(("edit", "at_least"), [("half size, JPEG 30", 98), ("mirrored", 98)])
def test_edited_copies_find_their_original(collection: Collection, photos: list[Path], edit: str, at_least: int):
    chosen = [photos[place] for place in np.random.default_rng(0).permutation(COUNT)[:100]]
    found = 0
    for photo in chosen:
        first = collection.find_similar(edit_picture(photo, edit), count=1)[0]
        assert not first.is_same
        found += first.path == photo.resolve()
    assert found >= at_least


def find_id(collection: Collection, photo: Path) -> int:
    return collection.find_similar(photo.read_bytes(), count=1)[0].image_id


def edit_picture(path: Path, edit: str) -> bytes:
    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    stream = io.BytesIO()
    if edit == "mirrored":
        ImageOps.mirror(picture).save(stream, format="PNG", compress_level=1)
    else:
        half = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BICUBIC)
        half.save(stream, format="JPEG", quality=30)
    return stream.getvalue()
