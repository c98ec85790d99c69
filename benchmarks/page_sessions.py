"""How the page answers many at once while builds publish new generations: python -m benchmarks.page_sessions

What is measured, and what not to conclude, is said in docs/load.md.

Rule: figures go to stdout, progress to stderr. An answer that is not the right one counts as an error, however fast.
"""

import asyncio
import json
import math
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time

import click
import torch

from benchmarks.machine import describe_machine, show_machine
from benchmarks.memory import read_memory
from benchmarks.page_client import PageFailed, PageSession, View
from benchmarks.page_stage import (
    Builds,
    Stage,
    find_result,
    make_copy,
    read_processor_seconds,
    show_page,
    unpack,
)
from indexer.decode import hash_content
from ui.address import Address

UPLOAD_EACH = 5
"""Every so many searches one is of a picture from outside."""
SAME = "1.000"
COPY = 0.99
"""At least so similar is a copy with the same pixels to its original: JPEGs may be decoded at another scale."""
SUCCESS = 0
"""ForwardMsg.FINISHED_SUCCESSFULLY."""
FAILURES = (PageFailed, OSError, TimeoutError, LookupError, EOFError, StopIteration)


@dataclass(frozen=True, kw_only=True)
class Search:
    """One search as the person saw it. Times in seconds from the action; None: no answer."""

    is_upload: bool
    drawn: float | None = None
    whole: float | None = None
    fetched: int = 0
    generation: str | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What each session does."""

    sessions: int
    searches: int
    warm_up: int
    """Searches of each session before the memory is first read; their times do not count."""
    think: float
    """Seconds between an answer and the next search."""
    seed: int = 0


@dataclass(kw_only=True)
class Outcome:
    """What came of a plan."""

    plan: Plan
    searches: list[Search] = field(default_factory=list)
    seconds: float = 0.0
    memory: dict[str, dict[str, int]] = field(default_factory=dict)
    page_processors: float = 0.0
    """Processors that the page's process kept busy."""
    client_processors: float = 0.0

    def describe(self) -> dict:
        """As JSON-able values."""
        errors = Counter(one.error for one in self.searches if one.error)
        return {
            "sessions": self.plan.sessions,
            "searches": len(self.searches),
            "uploads": sum(one.is_upload for one in self.searches),
            "think_seconds": self.plan.think,
            "errors": sum(errors.values()),
            "error_kinds": dict(errors),
            "whole": find_times(one.whole for one in self.searches),
            "drawn": find_times(one.drawn for one in self.searches),
            "uploads_whole": find_times(one.whole for one in self.searches if one.is_upload),
            "searches_per_second": len(self.searches) / self.seconds,
            "pictures_fetched": sum(one.fetched for one in self.searches),
            "generations": sorted({one.generation for one in self.searches if one.generation}),
            "memory": self.memory,
            "memory_growth": {
                kind: self.memory["end"][kind] / self.memory["warm"][kind] - 1 for kind in self.memory["end"]
            },
            "page_processors": self.page_processors,
            "client_processors": self.client_processors,
        }


def find_times(values: "Sequence[float | None]") -> dict[str, float]:
    """p50, p95 and the largest of some times; without one that was answered, nothing."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return {}
    # The nearest rank: a time that somebody waited, not one between two.
    return {
        name: known[math.ceil(share * len(known)) - 1] for name, share in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))
    }


def judge(view: View, wanted: str, *, is_upload: bool) -> str | None:
    """What is wrong with an answer to a search from (a copy of) the image `wanted`; None if it is right."""
    if view.status != SUCCESS:
        return f"the script ended with {view.status}"
    if view.complaints:
        return f"the page says: {view.complaints[0]}"
    if view.generation is None:
        return "no footer"
    if len(view.cards) != Address.count:
        return f"{len(view.cards)} cards"
    first = view.cards[0]
    is_as_near = first.line != SAME and float(first.line) >= COPY if is_upload else first.line == SAME
    if first.content_hash != wanted or not is_as_near:
        return "another picture comes first, or with another similarity"
    return None


@dataclass(kw_only=True)
class Person:
    """One session's way through the page, drawn at random from a seed of its own."""

    page: PageSession
    plan: Plan
    chance: random.Random
    files: Sequence[Path]
    """Files of the collection to upload copies of."""
    number: int = 0
    """Which of the sessions it is: not all upload at the same moment."""

    async def search(self, count: int) -> list[Search]:
        """So many searches, one after another."""
        found = []
        for number in range(self.number, self.number + count):
            await asyncio.sleep(self.plan.think)
            is_upload = number % UPLOAD_EACH == 0
            try:
                found.append(await (self._upload() if is_upload else self._click()))
            except FAILURES as error:
                found.append(Search(is_upload=is_upload, error=f"{type(error).__name__}: {error}"[:200]))
        return found

    async def _click(self) -> Search:
        wanted = self.chance.choice(self.page.view.cards).content_hash
        view = await self.page.find_similar(wanted)
        return _describe(view, judge(view, wanted, is_upload=False), is_upload=False)

    async def _upload(self) -> Search:
        picture = self.chance.choice(self.files).read_bytes()
        view = await self.page.upload("picture.png", make_copy(picture))
        return _describe(view, judge(view, hash_content(picture).hex(), is_upload=True), is_upload=True)


def _describe(view: View, error: str | None, *, is_upload: bool) -> Search:
    times = {"drawn": view.drawn_seconds, "whole": view.whole_seconds}
    return Search(is_upload=is_upload, error=error, generation=view.generation, fetched=view.fetched, **times)


async def act(plan: Plan, page: tuple, files: Sequence[Path]) -> Outcome:
    """Open all sessions, let them warm up, and measure their searches."""
    process, host, port = page
    outcome = Outcome(plan=plan)
    outcome.memory["before"] = read_memory(process.pid)
    sessions = [PageSession(host, port) for _ in range(plan.sessions)]
    people = [
        Person(page=one, plan=plan, chance=random.Random(f"{plan.seed} {number}"), files=files, number=number)
        for number, one in enumerate(sessions)
    ]
    try:
        await asyncio.gather(*map(_arrive, people))
        outcome.memory["warm"] = read_memory(process.pid)
        started = perf_counter(), process_time(), read_processor_seconds(process)
        found = await asyncio.gather(*(person.search(plan.searches) for person in people))
        outcome.seconds = perf_counter() - started[0]
        outcome.client_processors = (process_time() - started[1]) / outcome.seconds
        outcome.page_processors = (read_processor_seconds(process) - started[2]) / outcome.seconds
        outcome.memory["end"] = read_memory(process.pid)
    finally:
        await asyncio.gather(*(one.close() for one in sessions))
    outcome.searches = [search for one in found for search in one]
    return outcome


async def _arrive(person: Person) -> None:
    await person.page.connect()
    await person.page.open()
    await person.search(person.plan.warm_up)


@click.command()
@click.option(
    "--pictures", "sources", multiple=True, required=True, type=click.Path(exists=True, path_type=Path),
    metavar="SOURCE", help="A folder or tar shard; may be repeated.",
)  # fmt: skip
@click.option("--sessions", type=click.IntRange(1), default=50, show_default=True)
@click.option("--searches", type=click.IntRange(1), default=20, show_default=True, help="Of each session.")
@click.option(
    "--warm-up", type=click.IntRange(UPLOAD_EACH), default=UPLOAD_EACH, show_default=True,
    help="More of each, before these: at least one upload.",
)  # fmt: skip
@click.option(
    "--think", "thinks", type=click.FloatRange(0), multiple=True, default=(0.0, 1.0), show_default=True,
    help="Seconds between an answer and the next search; repeated: measured one after another.",
)  # fmt: skip
@click.option("--images", type=click.IntRange(50), default=3000, show_default=True, help="In the collection at first.")
@click.option("--added", type=click.IntRange(0), default=20000, show_default=True, help="Pictures left to the builds.")
@click.option("--portion", type=click.IntRange(1), default=250, show_default=True, help="Pictures of one build.")
@click.option("--nice", "niceness", type=click.IntRange(0, 19), help="Of the builds; they have their own otherwise.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(sources: tuple[Path, ...], as_json: bool, thinks: tuple[float, ...], **given: int) -> None:
    """Measure the page with many sessions at once, while builds publish new generations."""
    with tempfile.TemporaryDirectory(prefix="seer-load-") as folder:
        report = measure(Stage(folder=Path(folder)), sources, thinks, given)
    click.echo(json.dumps(report, indent=1) if as_json else show_report(report))


def measure(stage: Stage, sources: Sequence[Path], thinks: Sequence[float], given: dict[str, int]) -> dict:
    """Set the stage, and let all plans be acted out on it. Returns: the report, as JSON-able values."""
    machine = describe_machine(torch.device("cpu"))
    count = unpack(sources, given["images"] + given["added"], stage.pictures)
    first = find_result(stage.build(given["images"]))
    tell(f"{first['images']} images, {count - first['images']} pictures are left to the builds")
    files, outcomes = stage.list_files(), []
    builds = Builds(stage, given["portion"], given["niceness"])
    with show_page(stage) as page, builds.going_on():
        for think in thinks:
            names = ("sessions", "searches", "warm_up", "seed")
            plan = Plan(think=think, **{name: given[name] for name in names})
            outcomes.append(asyncio.run(act(plan, page, files)).describe())
            tell(f"think {think:g} s: {outcomes[-1]['errors']} errors, {outcomes[-1]['whole']}")
    return {
        "schema_version": 1,
        "machine": machine,
        "images": first["images"],
        "niceness": given["niceness"],
        "builds": [{name: one[name] for name in ("embedded", "generation", "seconds")} for one in builds.reports],
        "build_error": builds.error,
        "outcomes": outcomes,
    }


def tell(text: str) -> None:
    """Progress."""
    click.echo(text, err=True)


def show_report(report: dict) -> str:
    """The figures as text."""
    builds = report["builds"]
    embedded, seconds = (sum(one[name] for one in builds) for name in ("embedded", "seconds"))
    lines = [
        show_machine(report["machine"]),
        f"Builds meanwhile: {len(builds)} ended, {embedded:,} pictures in {seconds:.0f} s"
        + ("" if report["niceness"] is None else f", nice {report['niceness']}")
        + (f"; {report['build_error']}" if report["build_error"] else ""),
        *(line for outcome in report["outcomes"] for line in _list_lines(outcome)),
    ]
    return "\n".join(lines)


def _list_lines(outcome: dict) -> list[str]:
    growth, memory = outcome["memory_growth"], outcome["memory"]
    return [
        f"{outcome['sessions']} sessions, {outcome['think_seconds']:g} s between searches: "
        f"{outcome['searches']} searches ({outcome['uploads']} of uploads), {outcome['errors']} errors, "
        f"{outcome['searches_per_second']:.1f} a second",
        *(f"  {count} x {kind}" for kind, count in outcome["error_kinds"].items()),
        f"  generations seen: {', '.join(outcome['generations'])}"
        + ("" if len(outcome["generations"]) > 1 else "; without a swap among the searches this run does not count"),
        *(_show_times(name, outcome[name]) for name in ("whole", "drawn", "uploads_whole")),
        f"  pictures fetched: {outcome['pictures_fetched']:,}; processors: page {outcome['page_processors']:.2f}, "
        f"client {outcome['client_processors']:.2f}",
        *(
            f"  {kind} MB: {memory['before'][kind] >> 20} before, {memory['warm'][kind] >> 20} warm, "
            f"{memory['end'][kind] >> 20} at the end ({growth[kind]:+.1%})"
            for kind in growth
        ),
    ]


def _show_times(name: str, times: dict[str, float]) -> str:
    return f"  {name:<14}" + "".join(f"  {key} {value:.2f} s" for key, value in times.items())


if __name__ == "__main__":
    main()
