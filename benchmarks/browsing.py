"""How fast the page is for a person in a real Chromium: python -m benchmarks.browsing --collection COLLECTION

What is measured, and what not to conclude, is said in benchmarks/README.md.

Rule: figures go to stdout, progress to stderr. The collection is only read; uploads go to a home of their own.
"""

import asyncio
import json
import random
import statistics
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import click
import numpy as np
import torch

from benchmarks.browser import FLAGS, GALLERY, GROUPS, WINDOW, WITHOUT_WEBGL, Tab, find_browser, open_browser
from benchmarks.machine import describe_machine, show_machine
from benchmarks.memory import read_memory
from benchmarks.page_client import PageSession
from benchmarks.page_sessions import Person, Plan, Search, find_times, tell
from benchmarks.page_stage import Stage, make_copy, show_page
from indexer.aside import Here
from indexer.collection import Collection
from indexer.embed import embed_prepared
from indexer.overview import Map, Overview, find_inside
from indexer.query_model import QueryModel

CARDS = 24
WARM_SEARCHES = 50
"""Before the memory is first read."""
PARTS = ("discover", "click", "upload", "scroll", "others", "map", "plain-map")
EXISTING = click.Path(exists=True, path_type=Path)
Times = dict[str, float]


@dataclass(kw_only=True)
class Visit:
    """One browser at the page of one collection."""

    collection: Path
    browser: Any
    page: tuple
    """Process, host and port of the server."""
    chance: random.Random

    @property
    def address(self) -> str:
        """Of the page."""
        return "http://{}:{}".format(*self.page[1:])

    @contextmanager
    def tab(self) -> Iterator[Tab]:
        """A tab of a browser that has seen nothing yet."""
        context = self.browser.new_context(viewport=WINDOW)
        try:
            yield Tab(context, self.address)
        finally:
            context.close()

    def draw_images(self, count: int) -> list[Any]:
        """Images of the collection at random."""
        with Collection(self.collection) as collection:
            return Overview(collection).surprise(self.chance.randrange(10**6), count)

    def draw_image(self) -> str:
        """The content hash of one of them."""
        return self.draw_images(1)[0].content_hash


def measure_discover(visit: Visit, rounds: int) -> dict[str, Times]:
    """The start page: by a browser that has seen nothing, and by one that has seen it before."""
    cold, warm = [], []
    for _ in range(rounds):
        with visit.tab() as tab:
            cold.append(tab.open("/", GROUPS))
            tab.settle()
            again = Tab(tab.page.context, visit.address)
            warm.append(again.open("/", GROUPS))
            again.settle()
    return {"discover, first visit": find_times(cold), "discover, warm": find_times(warm)}


def measure_clicks(visit: Visit, searches: int) -> dict:
    """One neighbour after another; the server's memory, and what the tab's objects take."""
    memory, times = {}, []
    with visit.tab() as tab:
        tab.open(f"/?image={visit.draw_image()}", GALLERY)
        for number in range(searches + WARM_SEARCHES):
            if number == WARM_SEARCHES:
                memory["warm"] = _read_all_memory(visit, tab)
            times.append(tab.click_neighbour(visit.chance.randrange(1, CARDS)))
        memory["end"] = _read_all_memory(visit, tab)
    growth = {kind: memory["end"][kind] / memory["warm"][kind] - 1 for kind in memory["end"]}
    return {"click": find_times(times[WARM_SEARCHES:]), "memory": memory, "growth": growth}


def _read_all_memory(visit: Visit, tab: Tab) -> dict[str, int]:
    return {**read_memory(visit.page[0].pid), "tab": tab.count_objects_bytes()}


def measure_uploads(visit: Visit, folder: Path, rounds: int) -> dict:
    """Pictures with the pixels of one that is there, and other bytes; and what the network alone takes for them."""
    copies = []
    for number, image in enumerate(visit.draw_images(rounds + 1)):
        copies.append(folder / f"copy-{number}.png")
        copies[-1].write_bytes(make_copy(image.path.read_bytes()))
    with visit.tab() as tab:
        tab.open("/?show=surprise", GALLERY)
        times = []
        for copy in copies:
            tab.settle()
            times.append(tab.upload(copy))
    forward = time_forward(visit.collection, [copy.read_bytes() for copy in copies])
    beyond = statistics.median(times[1:]) - forward["p50"]
    return {"upload": find_times(times[1:]), "forward": forward, "beyond_forward": beyond}


def time_forward(collection: Path, pictures: Sequence[bytes]) -> Times:
    """The network alone, as the page runs it."""
    with Collection(collection) as opened:
        manifest = opened.open_snapshot().generation.manifest
    backbone = QueryModel("auto", Here()).load(manifest)
    times = []
    for picture in pictures:
        pixels = Here().prepare(picture, backbone.preprocessing, manifest["settings"]["max_megapixels"], None)
        started = perf_counter()
        embed_prepared(backbone, pixels)
        times.append((perf_counter() - started) * 1000)
    return find_times(times[1:])


def measure_scrolling(visit: Visit) -> dict:
    """A thousand neighbours, from the first to the last."""
    with visit.tab() as tab:
        seen = tab.open(f"/?image={visit.draw_image()}&count=1000", GALLERY)
        return {"thousand_seen": seen, **asdict(tab.scroll_down())}


def measure_among_others(visit: Visit, others: int, rounds: int, think: float) -> dict:
    """One person's clicks in Chromium while others search, too; theirs are seen as a server sees a browser."""
    plan = Plan(sessions=others, searches=0, warm_up=0, think=think)
    ended, found, times = threading.Event(), [], []
    files = [image.path for image in visit.draw_images(200)]
    crowd = threading.Thread(target=lambda: found.extend(asyncio.run(_act(plan, visit.page, files, ended))))
    with visit.tab() as tab:
        tab.open(f"/?image={visit.draw_image()}", GALLERY)
        crowd.start()
        try:
            for _ in range(rounds):
                times.append(tab.click_neighbour(visit.chance.randrange(1, CARDS)))
                tab.page.wait_for_timeout(think * 1000)
        finally:
            ended.set()
            crowd.join()
    return {
        "others": others,
        "think_seconds": think,
        "click": find_times(times),
        "searches_of_others": len(found),
        "errors_of_others": sorted({one.error for one in found if one.error}),
        "whole_of_others": find_times(one.whole and one.whole * 1000 for one in found),
    }


async def _act(plan: Plan, page: tuple, files: Sequence[Path], ended: threading.Event) -> list[Search]:
    sessions = [PageSession(*page[1:]) for _ in range(plan.sessions)]
    people = [
        Person(page=one, plan=plan, chance=random.Random(f"crowd {number}"), files=files, number=number)
        for number, one in enumerate(sessions)
    ]
    try:
        return sum(await asyncio.gather(*(_go_on(person, ended) for person in people)), [])
    finally:
        await asyncio.gather(*(one.close() for one in sessions))


async def _go_on(person: Person, ended: threading.Event) -> list[Search]:
    await person.page.connect()
    await person.page.open("show=surprise")
    await asyncio.sleep(person.chance.random() * person.plan.think)
    found = []
    while not ended.is_set():
        found += await person.search(1)
        person.number += 1
    return found


def measure_map(visit: Visit, rounds: int, selected: int) -> dict:
    """The map: until it is drawn, while it is moved, and from a lasso to a gallery."""
    with Collection(visit.collection) as opened:
        found = Overview(opened).read_map()
    corners = find_rectangle(found, selected)
    shown, frames, lassos = [], [], []
    for _ in range(rounds):
        with visit.tab() as tab:
            shown.append(tab.open_map())
            frames.append(tab.pan(seconds=3))
            lassos.append(tab.draw_lasso(corners))
            tab.settle()
            drawn_by = tab.page.evaluate("document.querySelector('.st-key-map section').dataset.drawnBy")
    return {
        "points": len(found.places),
        "selected": len(find_inside(found, corners)),
        "drawn_by": drawn_by,
        "shown": find_times(shown),
        "frames_per_second": statistics.median(frames),
        "frames_least": min(frames),
        "lasso": find_times(lassos),
    }


def find_rectangle(found: Map, count: int) -> list[tuple[float, float]]:
    """The corners of one about the middle of the map that holds so many points, or hardly more."""
    middle = np.median(found.places, axis=0)
    reach = float(np.sort(np.abs(found.places - middle).max(axis=1))[min(count, len(found.places)) - 1])
    x, y = middle.tolist()
    return [(x + a * reach, y + b * reach) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]


@click.command()
@click.option("--collection", required=True, type=EXISTING, help="One that was surveyed.")
@click.option("--map-collection", type=EXISTING, help="Whose map is drawn; else the same.")
@click.option("--rounds", type=click.IntRange(2), default=11, show_default=True)
@click.option("--searches", type=click.IntRange(1), default=500, show_default=True)
@click.option("--others", type=click.IntRange(1), default=19, show_default=True, help="At the page at once.")
@click.option("--think", type=click.FloatRange(0), default=3.0, show_default=True, help="Seconds between searches.")
@click.option("--selected", type=click.IntRange(3), default=10_000, show_default=True, help="Images in the lasso.")
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="Parts to measure; else all.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(collection: Path, map_collection: Path | None, only: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Measure what a person at the page waits for."""
    report = {"schema_version": 1, "machine": describe_machine(torch.device("cpu"))}
    with tempfile.TemporaryDirectory(prefix="seer-browsing-") as folder:
        for name, (place, flags, measure) in list_parts(collection, map_collection or collection, given, Path(folder)):
            if not only or name in only:
                with visiting(place, Path(folder), flags) as visit:
                    report[name] = measure(visit)
                tell(f"{name}: {json.dumps(report[name])}")
    click.echo(json.dumps(report, indent=1) if as_json else show_report(report))


Part = tuple[Path, Sequence[str], Callable[[Visit], dict]]


def list_parts(collection: Path, mapped: Path, given: dict[str, Any], folder: Path) -> list[tuple[str, Part]]:
    """What is measured, one after another, each by a server and a browser of its own."""
    rounds = given["rounds"]
    return [
        ("discover", (collection, FLAGS, lambda visit: measure_discover(visit, rounds))),
        ("click", (collection, FLAGS, lambda visit: measure_clicks(visit, given["searches"]))),
        ("upload", (collection, FLAGS, lambda visit: measure_uploads(visit, folder, 2 * rounds))),
        ("scroll", (collection, FLAGS, measure_scrolling)),
        (
            "others",
            (collection, FLAGS, lambda one: measure_among_others(one, given["others"], 2 * rounds, given["think"])),
        ),
        ("map", (mapped, FLAGS, lambda visit: measure_map(visit, rounds, given["selected"]))),
        ("plain-map", (mapped, WITHOUT_WEBGL, lambda visit: measure_map(visit, rounds, given["selected"]))),
    ]


@contextmanager
def visiting(collection: Path, folder: Path, flags: Sequence[str]) -> Iterator[Visit]:
    """A server on the collection, warm, and a browser."""
    stage = BuiltStage(folder=folder, built=collection)
    with ExitStack() as stack:
        page = stack.enter_context(show_page(stage))
        browser = stack.enter_context(open_browser(find_browser(), flags))
        visit = Visit(collection=collection, browser=browser, page=page, chance=random.Random(0))
        with visit.tab() as tab:
            tab.open("/", GROUPS)
            tab.settle()
            tab.page.goto(f"{visit.address}/healthz")
            tab.page.wait_for_function(
                "fetch('/healthz').then(answer => answer.json()).then(told => told.is_model_loaded)", timeout=120_000
            )
        yield visit


@dataclass(frozen=True, kw_only=True)
class BuiltStage(Stage):
    """A collection that is there already."""

    built: Path

    @property
    def collection(self) -> Path:
        """The collection."""
        return self.built


def show_report(report: dict) -> str:
    """The figures as text."""
    parts = [f"{name}: {_show(found)}" for name, found in report.items() if name not in ("schema_version", "machine")]
    return "\n".join([show_machine(report["machine"]), *parts])


def _show(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name} {_show(one)}" for name, one in value.items())
    return f"{value:,.3g}" if isinstance(value, float) and abs(value) < 100 else f"{value:,.0f}" if isinstance(
        value, float
    ) else str(value)


if __name__ == "__main__":
    main()
