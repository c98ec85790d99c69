"""What must hold of a collection whatever has happened to it, counted into the tally.

    read_truth          what an undisturbed build gives: rows by content, answers by file
    require_no_wrong    it opens or says that it is empty, and each answer pairs a path with its own embedding
    require_equal       it answers as the undisturbed one, and accounts for every file

Rule: what is compared is read through the door that people use, and the files of the store.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexer.collection import Collection
from indexer.decode import hash_content
from indexer.errors import CollectionEmpty, CollectionError, CollectionMissing, QueryError
from indexer.layout import CATALOG
from indexer.schema import connect_to_read
from seer_model.errors import PictureError
from tests.danger.tally import add

ALL = 10_000
Answer = list[tuple[str, float, tuple[str, ...]]]


@dataclass(frozen=True)
class Truth:
    """What a collection gave that nothing had happened to."""

    rows: dict[str, bytes]
    """Content hash -> its row."""
    answers: dict[str, Answer]
    """File -> all that it is answered with, or why it is not."""


def read_truth(place: Path, *pictures: Path) -> Truth:
    """Rows and answers of a collection as they are."""
    with Collection(place) as collection:
        answers = {str(file): read_answer(collection, file) for file in list_files(*pictures)}
        return Truth(rows=dict(read_rows(collection)), answers=answers)


def list_files(*pictures: Path) -> list[Path]:
    """These files, and all below these folders, in order."""
    below = (file for one in pictures for file in ((one,) if one.is_file() else one.rglob("*")))
    return sorted(file for file in below if file.is_file())


def read_rows(collection: Collection) -> Iterator[tuple[str, bytes]]:
    """(content hash, the bytes of its row) of every image that has a file."""
    for image_id, row in zip(*collection.read_embeddings(), strict=True):
        try:
            yield collection.read_image(int(image_id)).content_hash, row.tobytes()
        except QueryError:
            continue  # gone


def read_answer(collection: Collection, file: Path) -> Answer | str:
    """All images, the nearest first, those equally near by content; what was raised if the file is no picture."""
    try:
        found = collection.find_similar(file.read_bytes(), count=ALL)
    except (PictureError, QueryError) as error:
        return type(error).__name__
    told = [(n.content_hash, round(n.similarity, 5), tuple(map(str, n.paths))) for n in found]
    return sorted(told, key=lambda one: (-one[1], one[0]))


def require_no_wrong(place: Path, truth: Truth, *pictures: Path, is_damaged: bool = False) -> None:
    """What the collection answers now is right, as far as it answers.

    Args:
        is_damaged: a file of it was harmed on purpose: it may refuse then, or leave images out.
    """
    wrong = list_wrong(place, truth, *pictures, is_damaged=is_damaged)
    add("wrong answers", len(wrong))
    assert not wrong, wrong


def list_wrong(place: Path, truth: Truth, *pictures: Path, is_damaged: bool = False) -> list[str]:
    """Answers that pair a path with another's embedding, and files that do not find themselves first."""
    refusals = (CollectionError,) if is_damaged else (CollectionEmpty, CollectionMissing)
    try:
        collection = Collection(place)
    except refusals:
        return []
    with collection:
        try:
            rows = dict(read_rows(collection))
        except refusals:
            return []
        wrong = [] if is_damaged else [f"row of {one}" for one, row in rows.items() if row != truth.rows.get(one, row)]
        for file in list_files(*pictures):
            wrong += _list_wrong_answers(collection, file, rows | truth.rows, set(rows), is_damaged)
        return wrong


def _list_wrong_answers(
    collection: Collection, file: Path, rows: dict[str, bytes], there: set[str], is_damaged: bool
) -> Iterator[str]:
    refusals = (PictureError, QueryError, CollectionError) if is_damaged else (PictureError, QueryError)
    data = file.read_bytes()
    own = hash_content(data).hex()
    try:
        found = collection.find_similar(data, count=ALL)
    except refusals:
        return
    if own in there and (found[0].content_hash, found[0].is_same) != (own, True):
        yield f"{file} is not its own first neighbour"
    query = _read_unit(rows[own]) if own in there else None
    for neighbour in found:
        stored = _read_unit(rows[neighbour.content_hash])
        if query is not None and abs(float(query @ stored) - neighbour.similarity) > 1e-5:
            yield f"{file} has another similarity with {neighbour.path}"
        for path in neighbour.paths:
            if path.exists() and hash_content(path.read_bytes()).hex() != neighbour.content_hash:
                yield f"{path} is shown for a content that it does not hold"


def _read_unit(row: bytes) -> np.ndarray:
    values = np.frombuffer(row, "<f2").astype(np.float64)
    return values / np.linalg.norm(values)


def require_equal(place: Path, truth: Truth, *pictures: Path) -> None:
    """The collection has every file, and the rows and answers of an undisturbed build."""
    require_no_wrong(place, truth, *pictures)
    lost = list_unaccounted(place, *pictures)
    add("files unaccounted for", len(lost))
    assert not lost, lost
    found = read_truth(place, *pictures)
    assert found.rows == truth.rows
    assert found.answers == truth.answers


def list_unaccounted(place: Path, *pictures: Path) -> list[Path]:
    """Files that the catalog does not know, or that are neither searchable nor listed with a reason."""
    with Collection(place) as collection:
        failed = {failure.path for failure in collection.list_unsearchable(0, ALL)}
        searchable = {path for image in collection.list_images(0, ALL) for path in image.paths}
    return [file for file in list_files(*pictures) if file not in failed | searchable]


def count_committed(place: Path) -> int:
    """Rows that the catalog names; 0 where there is none yet."""
    try:
        connection = connect_to_read(place / CATALOG)
    except (CollectionMissing, CollectionEmpty):
        return 0
    try:
        return connection.execute("SELECT count(*) FROM rows").fetchone()[0]
    finally:
        connection.close()
