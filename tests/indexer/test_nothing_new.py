"""A build that finds nothing new opens no model, and knows when it must."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from indexer import embed
from indexer.settings import BuildSettings
from seer_model.checkpoint import write_checkpoint
from tests.conftest import REPOSITORY
from tests.indexer.making import build, draw
from tests.seer_model import making_weights as making

AGAIN = """
import sys
from pathlib import Path
from indexer.job import build_collection
from indexer.settings import BuildSettings
report = build_collection(Path(sys.argv[1]), [], BuildSettings())
print(report.unchanged, sorted({"torch", "faiss"} & set(sys.modules)))
"""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    write_checkpoint(making.make_checkpoint(), path)
    return path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that were opened since."""
    models, open_fleet = [], embed.open_fleet

    def note(model: str, *given: object, **how: object) -> object:
        models.append(model)
        return open_fleet(model, *given, **how)

    monkeypatch.setattr(embed, "open_fleet", note)
    return models


def test_neither_torch_nor_faiss_is_loaded(place: Path, pictures: Path, weights: Path):
    assert build(place, pictures, model=str(weights)).embedded == 9
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, str(place)], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert done.stdout == "9 []\n"


def test_a_build_that_finds_something_opens_the_model_and_the_next_one_does_not(
    place: Path, pictures: Path, weights: Path, opened: list[str]
):
    build(place, pictures, model=str(weights))
    new = draw(pictures / "new.png", 30)
    assert build(place).embedded == 1
    new.unlink()
    assert (build(place).removed, len(opened)) == (1, 2)


@pytest.mark.parametrize("seed", [0, 1])
def test_weights_that_were_written_anew_are_looked_at(
    place: Path, pictures: Path, weights: Path, opened: list[str], seed: int
):
    build(place, pictures, model=str(weights))
    write_checkpoint(making.make_checkpoint(seed=seed), weights)
    assert build(place).embedded == (9 if seed else 0)
    assert len(opened) == 2


@pytest.mark.parametrize("change", ["rows cut off", "CURRENT gone", "other limit"])
def test_what_is_not_as_it_was_is_no_reason_to_do_nothing(
    place: Path, pictures: Path, weights: Path, opened: list[str], change: str
):
    build(place, pictures, model=str(weights))
    settings = {}
    if change == "rows cut off":
        rows = place / "stores" / "000001" / "rows.f16"
        os.truncate(rows, rows.stat().st_size - 1)
    elif change == "CURRENT gone":
        (place / "CURRENT").unlink()
    else:
        settings["max_megapixels"] = 100.0
    report = build(place, **settings)
    assert (report.images, report.generation, len(opened)) == (9, "000002", 2)


def test_the_settings_say_which_files_a_model_was_read_from(weights: Path):
    about = embed.open_fleet(str(weights), ["cpu"], batch_size=BuildSettings().batch_size).about
    status = weights.stat()
    assert about.stamps == [["tiny.safetensors", status.st_size, status.st_mtime_ns, status.st_ino]]
