"""What a collection's status tells of its generations."""

import json
from datetime import datetime
from pathlib import Path

from indexer.collection import Collection
from indexer.layout import CURRENT, GENERATIONS
from indexer.texts import describe_status
from tests.indexer.making_rows import add_rows, draw_embeddings, keep_rows


def test_the_generations_on_the_disk_are_told_the_newest_first(tmp_path: Path):
    place = keep_rows(tmp_path / "place", draw_embeddings(5, 8, 0))
    with Collection(place) as collection:
        (first,) = collection.read_status().generations
        assert (first.name, first.images, first.model, first.is_current) == ("000001", 5, "seer-mini", True)
        assert abs((datetime.now().astimezone() - datetime.fromisoformat(first.made)).total_seconds()) < 600
        add_rows(place, draw_embeddings(2, 8, 1))
        found = collection.read_status().generations
        assert [(one.name, one.images, one.is_current) for one in found] == [("000002", 7, True), ("000001", 5, False)]
        # One whose manifest is gone tells nothing; a program is told the same as the page.
        (place / GENERATIONS / "000001" / "manifest.json").unlink()
    with Collection(place) as collection:
        told = json.loads(json.dumps(describe_status(collection.read_status(), [])))
    assert [one["name"] for one in told["generations"]] == ["000002"]


def test_where_none_answers_none_is_told_to(tmp_path: Path):
    place = keep_rows(tmp_path / "place", draw_embeddings(5, 8, 0))
    (place / CURRENT).unlink()
    with Collection(place) as collection:
        assert [one.is_current for one in collection.read_status().generations] == [False]
