"""Builds over formats that need a library more: named where it is missing, taken up once it is there."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from indexer.aside import Aside
from indexer.collection import Collection
from indexer.decode import DecodedFile, DecodeSettings, DecodeTask, decode_file
from seer_model import formats
from seer_model.formats import EXTRAS, explain_missing
from tests.indexer.making import build, draw
from tests.seer_model.making_pictures import encode, every_format, make_scene

pytestmark = pytest.mark.usefixtures("by_pixels")
NEEDY = {"HEIC": "phone.heic", "JXL": "new.jxl", "RAW": "camera.dng"}


@pytest.fixture
def needy(tmp_path: Path) -> Path:
    """A folder with a JPEG and one picture of each format that needs a library."""
    folder = tmp_path / "needy"
    folder.mkdir()
    (folder / "plain.jpg").write_bytes(encode(make_scene().rotate(90), "JPEG"))
    for name, file in NEEDY.items():
        (folder / file).write_bytes(every_format()[name])
    return folder


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """The formats whose library is not there; decoding happens in this process, so that it sees the same."""
    names, find = set(EXTRAS), formats.find_spec
    modules = {extra.module: name for name, extra in EXTRAS.items()}
    monkeypatch.setattr(formats, "find_spec", lambda module: None if modules.get(module) in names else find(module))
    monkeypatch.setattr("indexer.job.DecodePool", _DecodeHere)
    yield names


class _DecodeHere:
    read: list[str]
    """The files that the latest build has read."""

    def __init__(self, settings: DecodeSettings, workers: int | None = None, total: int = 0) -> None:
        self._settings, _DecodeHere.read = settings, []

    def decode(self, tasks: Iterable[DecodeTask]) -> Iterator[DecodedFile]:
        for task in tasks:
            _DecodeHere.read.append(Path(task.path).name)
            yield decode_file(task, self._settings)

    def close(self):
        pass


def list_reasons(place: Path) -> dict[str, str]:
    with Collection(place) as collection:
        return {Path(failure.path).name: failure.reason for failure in collection.list_unsearchable()}


def test_a_build_reads_them_all(place: Path, needy: Path):
    report = build(place, needy)
    assert (report.embedded, report.failed) == (4, 0)
    decoder = Aside()
    with Collection(place, decoder=decoder) as collection:
        for file in NEEDY.values():
            first = collection.find_similar((needy / file).read_bytes(), count=1)[0]
            assert first.path == needy / file and collection.read_thumbnail(first.content_hash)[8:12] == b"WEBP"
    decoder.close()


def test_a_format_without_its_library_is_listed_and_taken_up_once_it_is_there(place: Path, needy: Path, absent: set):
    assert (build(place, needy).embedded, build(place).failed) == (1, 3)
    assert list_reasons(place) == {file: explain_missing(name) for name, file in NEEDY.items()}
    absent.discard("HEIC")
    report = build(place)
    assert (report.embedded, report.failed) == (1, 2) and "phone.heic" not in list_reasons(place)
    absent.clear()
    assert (build(place).embedded, list_reasons(place)) == (2, {})


def test_what_is_damaged_is_not_tried_again_because_its_library_is_there(place: Path, needy: Path, absent: set):
    whole = every_format()["HEIC"]
    (needy / "phone.heic").write_bytes(whole[: len(whole) // 2])
    build(place, needy)
    absent.clear()
    assert build(place).failed == 1
    assert list_reasons(place)["phone.heic"].startswith("The HEIC data is")
    draw(needy / "more.png", seed=1)
    assert (build(place).embedded, _DecodeHere.read) == (1, ["more.png"])
