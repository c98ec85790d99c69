"""Learning from shards in object storage: the same pictures in the same order, in few requests, though it fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from indexer.errors import SourceError
from indexer.pile import list_sources, open_pile
from indexer.shards import read_place
from seer_model.errors import PictureError
from tests.conftest import REPOSITORY
from tests.indexer.making_shards import make_shard, png
from tests.indexer.object_store import ObjectStore

SHARDS, EACH = 3, 20
BUCKET = Path("s3://pictures/shards")


@pytest.fixture
def here(tmp_path: Path, store: ObjectStore) -> Path:
    """Three shards in a folder, and the same in the bucket."""
    for number in range(SHARDS):
        members = {f"{place:06d}.png": png(10 + place, 10 + number) for place in range(EACH)}
        shard = make_shard(tmp_path / "shards" / f"s-{number}.tar", members)
        store.put(f"shards/{shard.name}", shard.read_bytes())
    store.put("some.txt", b"s3://pictures/one.png\nnothing.png\n")
    store.put("one.png", png())
    return tmp_path / "shards"


def test_shards_in_a_bucket_are_the_pile_that_they_are_on_a_disk(here: Path, store: ObjectStore):
    near, far = list_sources([here]), list_sources([BUCKET])
    assert near.fingerprint == far.fingerprint and len(far.places) == SHARDS * EACH
    assert [read_place(place) for place in far.places] == [read_place(place) for place in near.places]
    one = list_sources([BUCKET / "s-1.tar"])
    assert [place.name for place in one.places[:2]] == ["s-1.tar:000000.png", "s-1.tar:000001.png"]
    listed = list_sources([Path("s3://pictures/some.txt")])
    assert [(place.name, place.size_bytes) for place in listed.places] == [
        ("s3://pictures/one.png", len(png())), ("s3://pictures/nothing.png", 0),
    ]  # fmt: skip
    assert read_place(listed.places[0]) == png()
    with pytest.raises(PictureError):
        read_place(listed.places[1])
    with pytest.raises(SourceError, match="s3://no-such/x cannot be looked through"):
        list_sources([Path("s3://no-such/x")])


def test_members_in_their_order_come_by_few_requests(here: Path, store: ObjectStore):
    with open_pile([BUCKET], side_px=16, workers=1) as far, open_pile([here], side_px=16, workers=1) as near:
        numbers = [*range(len(far)), 5, 50, 15]
        store.seen.clear()
        squares = [(one.pixels.tobytes(), one.aspect) for one in far.read(numbers)]
        assert squares == [(one.pixels.tobytes(), one.aspect) for one in near.read(numbers)]
        assert store.seen == {"GET": SHARDS + 3}
        store.is_gone = True
        with pytest.raises(SourceError, match="None of the 60 pictures can be read"):
            list(far.read(range(len(far))))


@pytest.mark.long
def test_a_run_on_a_bucket_has_the_losses_of_one_on_a_disk_though_the_store_fails(
    here: Path, store: ObjectStore, tmp_path: Path
):
    far, near = tmp_path / "far.safetensors", tmp_path / "near.safetensors"
    store.fail = {"error": 0.05, "drop": 0.03}
    for output, source in ((far, "s3://pictures/shards"), (near, str(here))):
        line = [sys.executable, "-m", "indexer", "pretrain", source, "--output", str(output), "--preset", "tiny"]
        line += ["--batch-size", "8", "--epochs", "2", "--device", "cpu", "--workers", "1"]
        environment = os.environ | store.environment() | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(line, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert read_losses(far) == read_losses(near)


def read_losses(output: Path) -> list[tuple[int, float]]:
    (log,) = output.parent.glob(f"{output.stem}*/log.jsonl")
    told = [json.loads(line) for line in log.read_text().splitlines()]
    return [(one["step"], one["loss"]) for one in told if "loss" in one]
