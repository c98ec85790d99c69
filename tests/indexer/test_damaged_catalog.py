"""A catalog with flipped bits: `seer check` tells, unless the answers are right; and no build ends in a bug."""

import random
from pathlib import Path

import pytest

from indexer.check import check_collection
from indexer.collection import Collection
from indexer.errors import CollectionDamaged
from indexer.job import build_collection
from indexer.layout import CATALOG
from indexer.settings import BuildSettings
from seer_model.errors import UserError
from tests.indexer.making import build

pytestmark = pytest.mark.usefixtures("by_pixels")

FLIPS = 150
HEADER_BYTES = 100

Answers = dict[str, list[tuple[str, float]]]


@pytest.fixture
def whole(place: Path, pictures: Path) -> bytes:
    """The bytes of a catalog that nine pictures were built into."""
    build(place, pictures)
    return (place / CATALOG).read_bytes()


def flip(data: bytes, seed: int) -> bytes:
    """Turn one bit after the file's header, where something is written."""
    dice = random.Random(seed)
    changed = bytearray(data)
    changed[dice.choice([at for at in range(HEADER_BYTES, len(data)) if data[at]])] ^= 1 << dice.randrange(8)
    return bytes(changed)


def ask(place: Path, pictures: Path) -> Answers:
    """File name -> (path, similarity) of its neighbours; without those whose path leads nowhere."""
    with Collection(place) as collection:
        return {
            file.name: [
                (str(neighbour.path), round(neighbour.similarity, 4))
                for neighbour in collection.find_similar(file.read_bytes(), count=9)
                if neighbour.path.is_file()
            ]
            for file in pictures.rglob("*.png")
        }


def test_it_is_told_or_the_answers_are_right(place: Path, pictures: Path, whole: bytes):
    right, found = ask(place, pictures), 0
    for seed in range(FLIPS):
        (place / CATALOG).write_bytes(flip(whole, seed))
        try:
            is_sound = check_collection(place, sample=0).is_sound
        except UserError:
            is_sound = False
        found += not is_sound
        assert not is_sound or ask(place, pictures) == right, seed
    assert FLIPS / 2 < found < FLIPS


def test_bytes_in_sqlites_own_words_are_told_as_damage(place: Path, whole: bytes):
    changed = whole.replace(b"size_bytes INTEGER NOT NULL, mtime", b"size_bytes INTEGER NOT \xffULL, mtime")
    assert changed != whole
    (place / CATALOG).write_bytes(changed)
    with pytest.raises(CollectionDamaged, match="cannot be read as a catalog"):
        Collection(place).read_status()
    with pytest.raises(CollectionDamaged, match="cannot be read as a catalog"):
        build_collection(place, [], BuildSettings(workers=1))


def test_a_build_on_it_ends_with_a_sentence_or_well(place: Path, whole: bytes):
    for seed in range(FLIPS):
        (place / CATALOG).write_bytes(flip(whole, seed))
        try:
            build_collection(place, [], BuildSettings(workers=1, batch_size=4))
        except UserError:
            continue
