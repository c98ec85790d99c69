"""The whole walk in a real Chromium once more, with Milvus as the search engine."""

from collections.abc import Iterator

import pytest

from indexer.engine_publish import publish_collection
from tests.indexer.making_engines import let_go, start_server
from tests.ui import test_browser
from tests.ui.conftest import Gallery
from tests.ui.conftest import start_server as start_page

pytestmark = [pytest.mark.browser, pytest.mark.long]
visit = test_browser.visit


@pytest.fixture(scope="module")
def server(gallery: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`seer ui` on the gallery as Milvus answers for it, in place of the one that FAISS answers for."""
    folder = tmp_path_factory.mktemp("milvus")
    with start_server(folder / "gallery.db") as engine:
        publish_collection(gallery.place, f"{engine}/gallery")
        options = ("--collection", str(gallery.place), "--port", "0", "--search-engine", f"{engine}/gallery")
        process, address = start_page(folder / "home", "ui", *options)
        yield address
        process.kill()
        process.communicate()
    let_go(folder / "gallery.db")


test_the_walk = test_browser.test_upload_then_neighbours_then_on_and_back_again
test_tops = test_browser.test_a_new_answer_begins_at_its_top
test_links = test_browser.test_a_link_opens_the_same_page_in_another_browser
test_names = test_browser.test_a_file_name_runs_nothing_and_links_nowhere
test_drops = test_browser.test_a_picture_of_any_name_may_be_dropped
test_limits = test_browser.test_an_upload_that_is_too_large_is_refused_in_a_sentence
test_large = test_browser.test_the_original_opens_large_and_searches_on
test_keys = test_browser.test_keyboard_alone_searches_on
test_phones = test_browser.test_a_phone_sees_two_columns_and_scrolls_one_way_only
test_alternatives = test_browser.test_every_picture_has_a_name_and_every_button_too
