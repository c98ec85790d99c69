"""What pages share: an upload is decoded outside of the page's process, with the collection's limits."""

from pathlib import Path

import pytest

from seer_model.errors import PictureError
from tests.ui.conftest import Gallery
from ui.resources import PREVIEW_PX, make_preview, shrink, the_collection


@pytest.fixture
def nothing_is_decoded_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoders of this process are bugs; worker processes have their own."""
    for name in ("indexer.aside.open_picture", "seer_model.pictures.name_format"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("an upload was decoded in the page's process"))


@pytest.mark.usefixtures("nothing_is_decoded_here")
def test_an_upload_is_shown_and_searched_without_being_decoded_in_this_process(shown: Gallery, near_copy: Path):
    upload = near_copy.read_bytes()
    assert make_preview(upload)[8:12] == b"WEBP"
    assert the_collection().find_similar(upload, count=1)[0].path.name == "picture-07.jpg"


@pytest.mark.usefixtures("nothing_is_decoded_here")
def test_an_upload_has_the_limits_of_the_collection(shown: Gallery, near_copy: Path, monkeypatch: pytest.MonkeyPatch):
    settings = the_collection().open_snapshot().generation.manifest["settings"]
    monkeypatch.setitem(settings, "max_megapixels", 0.005)
    upload = near_copy.read_bytes()
    for ask in (lambda: shrink(upload, PREVIEW_PX, the_collection()), lambda: the_collection().find_similar(upload)):
        with pytest.raises(PictureError, match=r"allowed are 0\.005"):
            ask()
