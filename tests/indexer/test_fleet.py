"""Several devices: the same rows as of one, whichever of them dies or falls short; here each is the CPU."""

import logging
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from indexer import embed
from indexer.collection import Collection
from indexer.fleet import Fleet, start_processes
from indexer.settings import BuildSettings
from seer_model.checkpoint import write_checkpoint
from seer_model.errors import DeviceError, ModelMissing, SettingsError
from tests.indexer import failing_lanes
from tests.indexer.making import build, draw
from tests.seer_model import making_weights as making

BATCH = 4


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    write_checkpoint(making.make_checkpoint(), path)
    return str(path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """26 pictures, two of them copies, and one that is none."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(24):
        draw(folder / f"{seed:02}.png", seed)
    for name in ("05-copy.png", "zz-copy.png"):
        draw(folder / name, 5)
    (folder / "12-none.png").write_bytes(b"no picture")
    return folder


Rows = tuple[list[str], np.ndarray]


def read_rows(place: Path) -> Rows:
    """The first path of each row's image, and the rows."""
    with Collection(place) as collection:
        images, rows = collection.read_embeddings()
        return [collection.read_image(int(image)).path.name for image in images], np.array(rows)


def compute_cosines(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of each row with the other at its place; a row in float16 is not of length 1."""
    rows, others = rows.astype(np.float64), others.astype(np.float64)
    return (rows * others).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(others, axis=1)


@pytest.fixture(scope="module")
def alone(weights: str, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    place = tmp_path_factory.mktemp("alone") / "collection"
    assert build(place, photos, model=weights, device="cpu").embedded == 24
    return read_rows(place)


def let(serve: Callable, marker: Path, weights: str, **_: object) -> Fleet:
    """Two processes, of which the first has a fault."""
    how = {"model": weights, "device": "cpu", "share": 2, "how": (("batch_size", BATCH),)}
    return start_processes(
        {"first": partial(serve, marker=marker, **how), "second": partial(embed._serve, **how)}, "indexer.embed"
    )


@pytest.mark.parametrize(
    "fault",
    [
        *(None, "serve_and_die", "serve_short_of_memory"),
        # That one device ends for good, and the last one, is in each run: the test after this one.
        pytest.param("serve_and_die_always", marks=pytest.mark.long),
    ],
)
def test_rows_and_their_order_are_those_of_one_device_whatever_happens_to_another(
    place: Path, photos: Path, weights: str, alone: Rows, tmp_path: Path, fault: str | None,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
):  # fmt: skip
    marker = tmp_path / "has failed"
    if fault:
        monkeypatch.setattr(embed, "open_fleet", lambda *_, **__: let(getattr(failing_lanes, fault), marker, weights))
    with caplog.at_level(logging.WARNING):
        report = build(place, photos, model=weights, device="cpu,cpu")
    assert (report.embedded, report.failed, report.pending) == (24, 1, 0)
    assert marker.exists() == bool(fault)
    assert ("The process for first ended twice" in caplog.text) == (fault == "serve_and_die_always")
    names, rows = read_rows(place)
    assert names == alone[0]
    if fault == "serve_short_of_memory":
        # A batch of another shape may round otherwise.
        assert compute_cosines(rows, alone[1]).min() > 0.99999
    else:
        assert np.array_equal(rows, alone[1])
    assert build(place, device="cpu,cpu").unchanged == 26


@pytest.mark.long
def test_when_the_last_device_is_lost_the_build_ends_with_a_sentence_and_keeps_what_it_has(
    place: Path, photos: Path, weights: str, alone: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kept = build(place, photos, model=weights, limit=9).embedded
    how = {"model": weights, "device": "cpu", "share": 2, "how": (("batch_size", BATCH),)}
    broken = partial(failing_lanes.serve_and_die_always, marker=tmp_path / "has failed", **how)
    with monkeypatch.context() as patched:
        patched.setattr(
            embed, "open_fleet", lambda *_, **__: start_processes({"one": broken, "other": broken}, "indexer.embed")
        )
        with pytest.raises(DeviceError, match="ended twice on one batch"):
            build(place)
    assert build(place).embedded == 24 - kept
    assert np.array_equal(read_rows(place)[1], alone[1])


def test_a_process_that_reads_another_model_when_it_is_started_again_is_left_alone(tmp_path: Path, weights: str):
    changed = tmp_path / "changed.safetensors"
    write_checkpoint(making.make_checkpoint(), changed)
    how = {"model": str(changed), "device": "cpu", "share": 2, "how": (("batch_size", BATCH),)}
    dying = partial(failing_lanes.serve_and_die, marker=tmp_path / "has failed", **how)
    with closing(start_processes({"one": dying}, "indexer.embed")) as fleet:
        write_checkpoint(making.make_checkpoint(seed=1), changed)
        with pytest.raises(DeviceError, match="file was changed while it was in use"):
            fleet.lanes[0]([np.zeros((224, 224, 3), dtype=np.uint8)])


def test_a_model_that_cannot_be_opened_is_said_as_for_one_device(place: Path, photos: Path):
    with pytest.raises(ModelMissing, match="seer models fetch"):
        build(place, photos, model="seer-32gf", device="cpu,cpu")


@pytest.mark.parametrize(("device", "devices"), [
    ("auto", ["auto"]), ("cpu", ["cpu"]), ("cuda", ["cuda"]), ("cuda:1", ["cuda:1"]),
    ("cuda:0,2,3", ["cuda:0", "cuda:2", "cuda:3"]), ("cpu,cpu", ["cpu", "cpu"]),
])  # fmt: skip
def test_devices_are_named_as_one_word(device: str, devices: list[str]):
    assert BuildSettings(device=device).devices == devices


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:0,", "cpu:1", "cuda,cuda", "cpu,cuda", "auto,auto"])
def test_other_words_are_no_devices(device: str):
    with pytest.raises(SettingsError, match="cuda:0,1"):
        BuildSettings(device=device)


def test_what_is_embedded_besides_goes_to_a_device_that_is_left():
    def lost(pixels: list[np.ndarray]) -> tuple[np.ndarray, list[bool]]:
        raise DeviceError("lost")

    row = np.ones((1, 4), np.float32)
    fleet = Fleet(about=None, lanes=[lost, lambda pixels: (row, [True])])
    assert fleet.embed([])[0] is row
    with pytest.raises(DeviceError, match="lost"):
        Fleet(about=None, lanes=[lost]).embed([])
