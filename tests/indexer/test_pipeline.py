"""The pipeline of a build: which stage it says it waits for."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer import job, pipeline
from indexer.decode import DecodePool, DecodeSettings
from indexer.recording import Recorder
from indexer.report import Progress, Watchers
from tests.indexer import pixel_backbone
from tests.indexer.making import build

SLOW_SECONDS = 0.05


def slow_down(work: Callable) -> Callable:
    def slower(*given: object, **more: object) -> object:
        time.sleep(SLOW_SECONDS)
        return work(*given, **more)

    return slower


def slow_down_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = DecodePool.decode
    monkeypatch.setattr(DecodePool, "decode", lambda *given: map(slow_down(lambda one: one), decode(*given)))


def slow_down_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_backbone, "embed_batch", slow_down(pixel_backbone.embed_batch))


def slow_down_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recorder, "record", slow_down(Recorder.record))


@pytest.mark.parametrize(
    ("slow_down_one", "limit"),
    [(slow_down_decoding, "decoding"), (slow_down_network, "the network"), (slow_down_disk, "the disk")],
)
def test_the_stage_that_is_told_is_the_one_that_is_waited_for(
    place: Path, pictures: Path, by_pixels: None, monkeypatch: pytest.MonkeyPatch, slow_down_one: Callable, limit: str
):
    # What starting the decoding process takes is no stage's: the first build has done it.
    monkeypatch.setattr(pipeline, "TELLING_SECONDS", SLOW_SECONDS)
    monkeypatch.setattr(pipeline.Pipeline, "_take", count_from_the_first(pipeline.Pipeline._take))
    slow_down_one(monkeypatch)
    told: list[Progress] = []
    build(place, pictures, batch_size=1, watchers=Watchers(on_progress=told.append))
    assert told[0].limit is None
    assert [one.limit for one in told if one.stage == "embedding"][-1] == limit


def count_from_the_first(take: Callable) -> Callable:
    """As it is, but that the first file counts as no waiting."""

    def take_after(self: pipeline.Pipeline, files: object) -> object:
        taken = take(self, files)
        if not self.tally.read:
            self._waited.clear()
        return taken

    return take_after


def test_files_from_elsewhere_do_not_travel_many_at_a_time(
    place: Path, pictures: Path, tmp_path: Path, by_pixels: None, monkeypatch: pytest.MonkeyPatch
):
    asked = []

    def note(settings: DecodeSettings, workers: int | None, total: int) -> DecodePool:
        asked.append(total)
        return DecodePool(settings, workers)

    monkeypatch.setattr(job, "DecodePool", note)
    build(place, pictures)
    listed = tmp_path / "listed.txt"
    listed.write_text("\n".join(map(str, sorted(pictures.glob("*/*.png")))))
    build(tmp_path / "of a list", listed)
    assert asked == [9, 0], "a list may name URLs, whose files travel with their bytes"
