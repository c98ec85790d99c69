"""The whole job on 699 real photos with the real backbone: nothing fails, everything finds itself and its copies."""

import csv
import io
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from indexer.aside import prepare_picture
from indexer.collection import Collection, hash_content
from indexer.edits import EDITS, apply_edit
from indexer.embed import embed_prepared, open_backbone
from indexer.index import find_nearest
from indexer.job import build_collection
from indexer.labels import read_labels
from indexer.metrics import measure_retrieval
from indexer.overview import Overview
from indexer.report import BuildReport
from indexer.settings import BuildSettings
from indexer.sights import compare_with_mean, find_outliers
from indexer.survey import survey_collection
from indexer.words import MILD
from seer_model.checkpoint import write_checkpoint
from seer_model.pictures import open_picture
from seer_model.preprocess import prepare
from tests.seer_model import making_weights as making

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


# --- what is shown without a query --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def overview(built: tuple[Path, BuildReport], collection: Collection) -> Overview:
    survey_collection(built[0])
    return Overview(collection)


def measure_purity(groups: list[list[str]], labels: dict[str, str]) -> float:
    """The share of photos whose label is their group's most frequent one."""
    right = sum(Counter(labels[name] for name in group).most_common(1)[0][1] for group in groups)
    return right / sum(map(len, groups))


def list_names(images: list) -> list[str]:
    return [image.path.name for image in images]


@pytest.mark.parametrize("level", ["large", "small"])
def test_groups_are_purer_than_random_ones_of_the_same_sizes(overview: Overview, photos_folder: Path, level: str):
    with (photos_folder / "labels.csv").open(newline="") as file:
        labels = dict(list(csv.reader(file))[1:])
    large = overview.list_groups()
    groups = [list_names(overview.list_group(group.number, count=COUNT)) for group in large]
    if level == "small":
        groups = [
            list_names(overview.list_group(group.number, part.number, count=COUNT))
            for group in large
            for part in overview.list_groups(group.number)
        ]
    random, ends = np.random.default_rng(0), np.cumsum([len(group) for group in groups])
    names, drawn = np.array(sorted(labels)), []
    for _ in range(100):
        parts = np.split(random.permutation(names), ends[:-1])
        drawn.append(measure_purity([part.tolist() for part in parts], labels))
    purity = measure_purity(groups, labels)
    assert purity > 1.2 * max(drawn), f"{purity:.3f}; of a hundred random ones at most {max(drawn):.3f}"


def test_copies_are_called_the_same_picture_and_random_pairs_are_not(
    overview: Overview, collection: Collection, photos: list[Path]
):
    words, backbone = overview.read_words(), open_backbone(device="cpu", batch_size=8)
    random = np.random.default_rng(1)
    ids, table = collection.read_embeddings()
    chosen, rows = random.choice(len(photos), 60, replace=False), dict(zip(ids.tolist(), table, strict=True))
    similarities = []
    for number in chosen.tolist():
        data = photos[number].read_bytes()
        original = rows[collection.find_image(hash_content(data).hex())].astype(np.float32)
        pixels = open_picture(data).pixels
        copies = [apply_edit(pixels, EDITS[title], number=number, seed=9) for title in MILD]
        similarities += (backbone.embed([prepare(copy, backbone.preprocessing) for copy in copies]) @ original).tolist()
    same = np.mean([words.name(value) == "same picture" for value in similarities])
    table = table.astype(np.float32)
    one, other = random.integers(len(table), size=(2, 5000))
    pairs = (table[one] * table[other]).sum(axis=1)[one != other]
    taken = np.mean([words.name(value) == "same picture" for value in pairs])
    assert same >= 0.95 and taken <= 0.01, f"{same:.3f} of the copies, {taken:.4f} of the pairs"


def test_an_untrained_model_says_that_it_has_no_words(photos: list[Path], tmp_path: Path):
    write_checkpoint(making.make_checkpoint(), tmp_path / "untrained.safetensors")
    (tmp_path / "pictures").mkdir()
    for photo in photos[:150]:
        (tmp_path / "pictures" / photo.name).symlink_to(photo)
    place = tmp_path / "place"
    build_collection(place, [tmp_path / "pictures"], BuildSettings(model=str(tmp_path / "untrained.safetensors")))
    with Collection(place, device="cpu") as collection:
        words = Overview(collection).read_words()
    assert not words.is_telling and words.name(0.99) is None, words


def test_the_heat_map_shows_where_a_pasted_patch_lies(photos: list[Path]):
    """Of 50 photos, each with a patch of another: the query is the patch."""
    backbone, random, inside = open_backbone(device="cpu", batch_size=1), np.random.default_rng(0), []
    side, whole = 112, 224
    for _ in range(50):
        one, other = (
            Image.fromarray(prepare(open_picture(photos[number].read_bytes()).pixels, backbone.preprocessing))
            for number in random.choice(len(photos), 2, replace=False)
        )
        patch = one.crop((56, 56, 56 + side, 56 + side))
        left, top = random.integers(0, whole - side + 1, 2).tolist()
        other.paste(patch, (left, top))
        aim = backbone.embed([np.asarray(patch.resize((whole, whole), Image.Resampling.BICUBIC))])[0]
        places = backbone.find_matching_places(np.asarray(other), aim)
        row, column = np.unravel_index(places.argmax(), places.shape)
        field = whole / places.shape[0]
        x, y = (column + 0.5) * field, (row + 0.5) * field
        inside.append(left <= x < left + side and top <= y < top + side)
    assert np.mean(inside) >= 0.8, f"{np.mean(inside):.2f} lie inside"


def test_foreign_pictures_among_photos_are_the_odd_ones(
    built: tuple[Path, BuildReport], collection: Collection, photos_folder: Path
):
    """Ten of another kind among 699 photos of clothes, ten times: how many are among the twenty oddest?"""
    _, rows = collection.read_embeddings()
    backbone, found = open_backbone(device="cpu", batch_size=8), []
    with tarfile.open(photos_folder.parent / "unlabelled" / "unlabelled-00.tar") as shard:
        pictures = [shard.extractfile(member).read() for member in shard.getmembers()[:2000] if member.isfile()]
    for seed in range(10):
        drawn = np.random.default_rng(seed).choice(len(pictures), 10, replace=False)
        pixels = [prepare_picture(pictures[number], backbone.preprocessing, 200) for number in drawn]
        mixed = np.concatenate([rows, backbone.embed(pixels).astype(np.float16)])
        norms = np.linalg.norm(mixed.astype(np.float32), axis=1)
        cosines, neighbours = find_nearest(mixed, norms, mixed.astype(np.float32) / norms[:, None], 17)
        everyone = np.arange(len(mixed))
        odd, _ = find_outliers(neighbours[:, 1:], cosines[:, 1:], everyone, compare_with_mean(mixed, norms, everyone))
        found.append(int((odd[:20] >= len(rows)).sum()))
    assert np.mean(found) >= 7.5, f"of ten {np.mean(found):.1f} in the mean: {found}"


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
