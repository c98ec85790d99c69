"""The load test's client: it speaks to a real page as a browser does, and calls a wrong answer wrong.

Rule: no speed is asserted.
"""

import asyncio
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from benchmarks.page_client import PageSession, View
from benchmarks.page_sessions import UPLOAD_EACH, Plan, act, find_times, judge
from benchmarks.page_stage import Stage, make_copy, show_page
from indexer.decode import hash_content
from tests.indexer.making import build, draw

IMAGES = 30
PLAN = Plan(sessions=2, searches=UPLOAD_EACH, warm_up=1, think=0)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """A collection of drawn pictures, more than fit into one answer."""
    stage = Stage(folder=tmp_path_factory.mktemp("stage"))
    for seed in range(IMAGES):
        draw(stage.pictures / f"{seed:02d}.bmp", seed)
    build(stage.collection, stage.pictures, batch_size=16)
    return stage


@pytest.fixture(scope="module")
def page(stage: Stage) -> Iterator[tuple]:
    """`seer ui` on it."""
    with show_page(stage) as page:
        yield page


def run(client: Coroutine) -> object:
    """What it returns. In a thread of its own: where tests drove a browser, Playwright's loop runs in the main one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, client).result()


def test_people_search_and_upload_without_an_error(stage: Stage, page: tuple):
    outcome = run(act(PLAN, page, stage.list_files()))
    told = outcome.describe()
    assert (told["errors"], told["searches"], told["uploads"], told["generations"]) == (0, 10, 2, ["000001"])
    assert 0 < told["drawn"]["p50"] <= told["whole"]["max"]
    assert told["memory"]["end"]["rss"] > told["memory"]["end"]["pss"] > 0


def test_a_browser_goes_where_the_person_clicks_and_keeps_what_it_has_seen(stage: Stage, page: tuple):
    views = run(walk(stage, page[1:]))
    start, first, again, upload = views
    assert len(start.cards) == start.fetched == IMAGES
    wanted = start.cards[3].content_hash
    assert judge(first, wanted, is_upload=False) is judge(again, wanted, is_upload=False) is None
    assert first.fetched == again.fetched == 0
    original = hash_content(stage.list_files()[0].read_bytes()).hex()
    assert judge(upload, original, is_upload=True) is None
    assert upload.fetched == 1  # its preview


def test_an_answer_that_is_not_the_right_one_is_an_error(stage: Stage, page: tuple):
    start, first, _, upload = run(walk(stage, page[1:]))
    wanted, other = first.cards[0].content_hash, first.cards[1].content_hash
    assert judge(first, wanted, is_upload=False) is None
    assert "another" in judge(first, other, is_upload=False)
    assert "another" in judge(upload, upload.cards[0].content_hash, is_upload=False)
    assert "script" in judge(replace(first, status=1), wanted, is_upload=False)
    assert "cards" in judge(start, start.cards[0].content_hash, is_upload=False)
    drawn = [element for element in first.elements if element.WhichOneof("type") != "bidi_component"]
    assert judge(replace(first, elements=drawn), wanted, is_upload=False) == "0 cards"
    assert "footer" in judge(replace(first, elements=first.elements[:-3]), wanted, is_upload=False)


def test_a_percentile_is_a_time_that_somebody_waited():
    assert find_times([*range(100, 0, -1), None]) == {"p50": 50, "p95": 95, "max": 100}
    assert find_times([None]) == {}


async def walk(stage: Stage, place: tuple[str, int]) -> list[View]:
    """Start, a click, the same click in the answer, and an upload."""
    async with PageSession(*place) as session:
        start = await session.open()
        wanted = start.cards[3].content_hash
        first = await session.find_similar(wanted)
        assert session.query == f"image={wanted}"
        return [
            start,
            first,
            await session.find_similar(wanted),
            await session.upload("copy.png", make_copy(stage.list_files()[0].read_bytes())),
        ]
