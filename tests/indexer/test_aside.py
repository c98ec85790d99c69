"""Pictures from outside: decoded in processes of their own, refused in a sentence, and nobody else pays for them."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from indexer import aside
from indexer.aside import Aside, prepare_picture, shrink_picture
from indexer.collection import Collection
from indexer.layout import THUMBNAILS
from seer_model.errors import PictureError
from seer_model.pictures import Region
from seer_model.preprocess import PREPROCESSINGS
from tests.indexer.failing_decoders import POISON, SLOW, SWELLING, prepare_or_die
from tests.indexer.making import build, draw

HOW = PREPROCESSINGS["vissl"]


@pytest.fixture
def poisonous(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aside]:
    """An Aside whose decoder is as bad as can be."""
    monkeypatch.setattr(aside, "prepare_picture", prepare_or_die)
    decoder = Aside(max_seconds=2.5)
    yield decoder
    decoder.close()


@pytest.fixture(scope="module")
def decoder() -> Iterator[Aside]:
    decoder = Aside()
    decoder.start()
    yield decoder
    decoder.close()


def test_aside_gives_what_this_process_would(decoder: Aside, tmp_path: Path):
    data = draw(tmp_path / "one.png", seed=1).read_bytes()
    np.testing.assert_array_equal(decoder.prepare(data, HOW, 200), prepare_picture(data, HOW, 200))
    part = Region(10, 20, 40, 50)
    np.testing.assert_array_equal(decoder.prepare(data, HOW, 200, part), prepare_picture(data, HOW, 200, part))
    assert decoder.shrink(data, 64, 200) == shrink_picture(data, 64, 200)


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(90)])
def test_what_is_no_picture_is_refused_with_the_reason_that_a_build_gives(decoder: Aside, data: bytes):
    with pytest.raises(PictureError) as here:
        prepare_picture(data, HOW, 200)
    with pytest.raises(PictureError) as there:
        decoder.prepare(data, HOW, 200)
    assert str(there.value) == str(here.value)


def test_the_limit_on_pixels_holds_aside(decoder: Aside, tmp_path: Path):
    data = draw(tmp_path / "one.png", seed=1).read_bytes()
    with pytest.raises(PictureError, match="megapixels"):
        decoder.shrink(data, 64, 0.01)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (POISON, "ended from outside"),
        (SLOW, r"longer than 2\.5 s"),
        pytest.param(
            SWELLING, "MemoryError", marks=pytest.mark.skipif(sys.platform != "linux", reason="there is no such limit")
        ),
    ],
)
def test_a_poisoned_picture_is_an_answer_and_the_next_one_is_decoded(poisonous, data, said, tmp_path: Path):
    with pytest.raises(PictureError, match=said):
        poisonous.prepare(data, HOW, 1)
    good = draw(tmp_path / "one.png", seed=1).read_bytes()
    np.testing.assert_array_equal(poisonous.prepare(good, HOW, 200), prepare_picture(good, HOW, 200))


def test_nobody_waits_for_another_ones_picture_that_hangs(poisonous: Aside, tmp_path: Path):
    good = draw(tmp_path / "one.png", seed=1).read_bytes()
    poisonous.prepare(good, HOW, 200)
    with ThreadPoolExecutor(2) as threads:
        hanging = threads.submit(poisonous.prepare, SLOW, HOW, 200)
        threads.submit(poisonous.prepare, good, HOW, 200).result()
        assert not hanging.done()
        with pytest.raises(PictureError):
            hanging.result()


def test_a_collection_lets_a_query_be_decoded_aside(
    decoder: Aside, place: Path, pictures: Path, by_pixels: None, tmp_path: Path
):
    build(place, pictures)
    query = draw(tmp_path / "query.png", seed=77).read_bytes()
    asked = []
    noting = SimpleNamespace(prepare=lambda *question: asked.append(question) or decoder.prepare(*question))
    with Collection(place) as here, Collection(place, decoder=noting) as there:
        assert there.find_similar(query) == here.find_similar(query)
        assert asked == [(query, HOW, 200, None)]
        with pytest.raises(PictureError, match="known format"):
            there.find_similar(b"no picture")


def test_a_missing_thumbnail_is_made_aside_with_the_limit_of_the_collection(
    decoder: Aside, place: Path, pictures: Path, by_pixels: None
):
    build(place, pictures, max_megapixels=3)
    (place / THUMBNAILS).unlink()
    asked = []
    noting = SimpleNamespace(shrink=lambda *question: asked.append(question) or decoder.shrink(*question))
    with Collection(place, decoder=noting) as collection:
        image = collection.list_images(count=1)[0]
        made = collection.read_thumbnail(image.content_hash)
    assert asked == [(image.path.read_bytes(), 320, 3)]
    assert made == shrink_picture(image.path.read_bytes(), 320, 3)
